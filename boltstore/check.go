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
				p := pages{file: file, size: int64(db.Info().PageSize), end: uint64(tx.Size() / int64(db.Info().PageSize)), seen: make(map[uint64]bool)}
				if err := p.check(uint64(tx.Cursor().Bucket().RootPage())); err != nil {
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
	end  uint64 // the first number that is not in use
	seen map[uint64]bool
}

const (
	pageHeader, element = 16, 16
	branch, leaf        = 1, 2 // flags of a page
	bucket              = 1    // flag of an element of a leaf
)

// check looks at a page and those below it. The depth of a tree is bounded by its pages, each of which may be met
// once.
func (p *pages) check(number uint64) error {
	head := make([]byte, pageHeader)
	if number < 2 || number >= p.end {
		return fmt.Errorf("page %d of %d", number, p.end)
	}
	if _, err := p.file.ReadAt(head, int64(number)*p.size); err != nil {
		return fmt.Errorf("page %d: %w", number, err)
	}
	more := uint64(binary.NativeEndian.Uint32(head[12:]))
	if binary.NativeEndian.Uint64(head) != number || more >= p.end-number {
		return fmt.Errorf("page %d does not say that it is", number)
	}
	for i := number; i <= number+more; i++ {
		if p.seen[i] {
			return fmt.Errorf("page %d is in use twice", i)
		}
		p.seen[i] = true
	}
	page := make([]byte, int64(more+1)*p.size)
	if _, err := p.file.ReadAt(page, int64(number)*p.size); err != nil {
		return fmt.Errorf("page %d: %w", number, err)
	}
	return p.checkPage(number, page)
}

// checkPage looks at the elements of a page.
func (p *pages) checkPage(number uint64, page []byte) error {
	damaged := fmt.Errorf("page %d has elements that do not fit", number)
	flags, count := binary.NativeEndian.Uint16(page[8:]), int(binary.NativeEndian.Uint16(page[10:]))
	if flags != branch && flags != leaf || pageHeader+count*element > len(page) || flags == branch && count == 0 {
		return damaged
	}
	var last []byte
	for i := range count {
		at := page[pageHeader+i*element:]
		word := func(i int) uint64 { return uint64(binary.NativeEndian.Uint32(at[i:])) }
		pos, keySize, valueSize := word(0), word(4), uint64(0)
		if flags == leaf {
			pos, keySize, valueSize = word(4), word(8), word(12)
		}
		if pos+keySize+valueSize > uint64(len(at)) {
			return damaged
		}
		key, value := at[pos:pos+keySize], at[pos+keySize:pos+keySize+valueSize]
		if i > 0 && bytes.Compare(last, key) >= 0 || len(key) == 0 && (flags == leaf || i > 0) {
			return fmt.Errorf("the keys of page %d are not in order", number)
		}
		last = key
		switch {
		case flags == branch:
			if err := p.check(binary.NativeEndian.Uint64(at[8:])); err != nil {
				return err
			}
		case word(0)&^bucket != 0:
			return damaged
		case word(0) == bucket:
			if len(value) < 16 {
				return damaged
			}
			if root := binary.NativeEndian.Uint64(value); root != 0 {
				if err := p.check(root); err != nil {
					return err
				}
			} else if inline := value[16:]; len(inline) < pageHeader || binary.NativeEndian.Uint64(inline) != 0 || binary.NativeEndian.Uint16(inline[8:]) != leaf {
				return damaged
			} else if err := p.checkPage(number, inline); err != nil {
				return err
			}
		}
	}
	return nil
}
