package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	bolt "go.etcd.io/bbolt"
)

// check says what is wrong with an existing file, and changes nothing in it. bbolt looks for damage on
// goroutines of its own, where a panic ends the process: so what it trusts is looked at before.
func check(path string) error {
	db, err := openBolt(path, &bolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if err != nil {
		return err
	}
	file, err := os.Open(path)
	if err == nil {
		err = contain(func() error {
			return db.View(func(tx *bolt.Tx) error {
				size := int64(db.Info().PageSize)
				p := pages{file: file, size: size, seen: make([]bool, tx.Size()/size)}
				if err := p.check(uint64(tx.Cursor().Bucket().RootPage()), nil, nil); err != nil {
					return fmt.Errorf("the file is damaged: %w", err)
				}
				return checkHead(tx)
			})
		})
		_ = file.Close()
	}
	return errors.Join(err, db.Close())
}

// checkHead says whether this is a boltstore, or empty.
func checkHead(tx *bolt.Tx) error {
	head := tx.Bucket(headBucket)
	if head == nil {
		if key, _ := tx.Cursor().First(); key == nil {
			return nil // made, and then the power failed
		}
		return errOther
	}
	if v := head.Get(versionKey); !bytes.Equal(v, bytesOf(version)) {
		return fmt.Errorf("it is of version %x, and this program reads %d", v, version)
	}
	return nil
}

// pages are those of a bbolt file. A page, in the byte order of the machine that wrote it:
//
//	number 8 bytes, flags 2, elements 2, overflow 4 (more pages that belong to it)
//	elements of a branch   position of the key 4, its size 4, page 8
//	elements of a leaf     flags 4, position of the key 4, its size 4, size of the value behind it 4
//
// Positions count from the element. A value that is a bucket begins with its root page, 8 bytes, and 8 others;
// if that is 0, there is a page behind them.
type pages struct {
	file *os.File
	size int64  // of a page
	seen []bool // by number
}

const (
	pageHeader, elementSize = 16, 16
	branch, leaf            = 1, 2 // flags of a page
	bucket                  = 1    // flag of an element of a leaf
)

// check looks at a page and those below it. Its keys are not less than from and, if there is an end, less than end.
// A page may be met once, so a tree is no deeper than it has pages.
func (p *pages) check(number uint64, from, end []byte) error {
	head := make([]byte, pageHeader)
	all := uint64(len(p.seen))
	if number < 2 || number >= all {
		return fmt.Errorf("page %d of %d", number, all)
	}
	if _, err := p.file.ReadAt(head, int64(number)*p.size); err != nil {
		return fmt.Errorf("page %d: %w", number, err)
	}
	more := uint64(binary.NativeEndian.Uint32(head[12:]))
	if binary.NativeEndian.Uint64(head) != number || more >= all-number {
		return fmt.Errorf("page %d does not say that it is", number)
	}
	for i := number; i <= number+more; i++ {
		if p.seen[i] {
			return fmt.Errorf("page %d is met twice", i)
		}
		p.seen[i] = true
	}
	page := make([]byte, int64(more+1)*p.size)
	if _, err := p.file.ReadAt(page, int64(number)*p.size); err != nil {
		return fmt.Errorf("page %d: %w", number, err)
	}
	return p.checkPage(number, page, from, end)
}

// checkPage looks at the elements of a page.
func (p *pages) checkPage(number uint64, page, from, end []byte) error {
	damaged := fmt.Errorf("page %d has elements that do not fit", number)
	flags, count := binary.NativeEndian.Uint16(page[8:]), int(binary.NativeEndian.Uint16(page[10:]))
	if flags != branch && flags != leaf || pageHeader+count*elementSize > len(page) || flags == branch && count == 0 {
		return damaged
	}
	type element struct {
		flags, page uint64
		key, value  []byte
	}
	elements := make([]element, count)
	for i := range elements {
		at := page[pageHeader+i*elementSize:]
		word := func(i int) uint64 { return uint64(binary.NativeEndian.Uint32(at[i:])) }
		e, pos, keySize, valueSize := &elements[i], word(0), word(4), uint64(0)
		if flags == leaf {
			e.flags, pos, keySize, valueSize = word(0), word(4), word(8), word(12)
		} else {
			e.page = binary.NativeEndian.Uint64(at[8:])
		}
		if pos+keySize+valueSize > uint64(len(at)) || e.flags&^bucket != 0 {
			return damaged
		}
		e.key, e.value = at[pos:pos+keySize], at[pos+keySize:pos+keySize+valueSize]
		if i == 0 && bytes.Compare(e.key, from) < 0 || i > 0 && bytes.Compare(e.key, elements[i-1].key) <= 0 ||
			end != nil && bytes.Compare(e.key, end) >= 0 {
			return fmt.Errorf("the keys of page %d are not in order", number)
		}
	}
	for i, e := range elements {
		var err error
		switch {
		case flags == branch:
			until := end
			if i+1 < count {
				until = elements[i+1].key
			}
			err = p.check(e.page, e.key, until)
		case e.flags == bucket && len(e.value) < 16:
			err = damaged
		case e.flags == bucket:
			err = p.checkBucket(number, e.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkBucket looks at a bucket, which is the value of an element of a page.
func (p *pages) checkBucket(number uint64, value []byte) error {
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return p.check(root, nil, nil)
	}
	inline := value[16:]
	if len(inline) < pageHeader || binary.NativeEndian.Uint64(inline) != 0 || binary.NativeEndian.Uint16(inline[8:]) != leaf {
		return fmt.Errorf("page %d has a bucket that does not fit", number)
	}
	return p.checkPage(number, inline, nil, nil)
}
