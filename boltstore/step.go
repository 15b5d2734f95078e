package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/record"
)

// answer is what any verb may answer.
type answer struct {
	standing idemflight.Standing
	found    bool
	err      error
}

// step is what a verb makes of a record. It may be asked more than once, and has no effect of its own.
type step func(r record.Record, at record.At) (record.Record, answer)

// operation is a step on its way through a transaction. The writer writes answer before it closes done.
type operation struct {
	id     id
	store  *Store
	step   step
	done   chan struct{}
	answer answer
}

// do takes a step: at once, if it changes nothing that has to be on the disk, or in the next transaction. If ctx
// ends before, the step may yet be taken.
func (s *Store) do(ctx context.Context, key string, step step) (answer, error) {
	if key == "" || len(key) > maxKey {
		return answer{}, fmt.Errorf("%w: a key in boltstore has 1 to %d bytes, this one %d", idemflight.ErrInvalidKey, maxKey, len(key))
	}
	if ctx.Err() != nil {
		return answer{}, ctx.Err()
	}
	o := &operation{id: id{s.name, key}, store: s, step: step, done: make(chan struct{})}
	if done, err := s.db.tryWithoutDisk(o); done || err != nil {
		return o.answer, err
	}
	select {
	case <-o.done:
		return o.answer, o.answer.err
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
}

// tryWithoutDisk takes the step of o if it needs no disk, and queues o otherwise.
func (d *DB) tryWithoutDisk(o *operation) (done bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usableLocked(); err != nil {
		return false, err
	}
	at := d.at()
	d.sweepRowsLocked(at.Now)
	if d.busy[o.id] == 0 { // else what is on the disk may not be there to stay
		now, err := d.currentLocked(o.store, o.id)
		if err != nil {
			return false, err
		}
		next, answer := o.step(now.record, at)
		if changed := !same(now.record, next); !changed || now.canStay(next, at) {
			if changed {
				d.keepLocked(o.id, next)
			}
			o.answer = answer
			return true, answer.err
		}
	}
	d.busy[o.id]++
	d.queue = append(d.queue, o)
	if !d.writing {
		d.writing = true
		d.writer.Go(d.write)
	}
	return false, nil
}

// usableLocked returns why nothing can be asked.
func (d *DB) usableLocked() error {
	switch {
	case d.closing:
		return errClosed
	case d.broken != nil: // an fsync that fails once may succeed the next time, and have lost data
		return fmt.Errorf("boltstore: %s has to be opened again: %w", d.path, d.broken)
	}
	return nil
}

// current is a record, and whether it is in memory alone.
type current struct {
	record   record.Record
	inMemory bool
}

// currentLocked returns the record of id as it was last committed, or as it is in memory. If id is busy,
// it is about to change.
func (d *DB) currentLocked(s *Store, id id) (now current, err error) {
	if now.record, now.inMemory = d.inMemory[id]; now.inMemory {
		return now, nil
	}
	err = d.view(s, func(records *bolt.Bucket) (err error) {
		now.record, err = get(records, id.key)
		return err
	})
	return now, err
}

// view runs do on the records in the file.
func (d *DB) view(s *Store, do func(records *bolt.Bucket) error) error {
	err := contain(func() error {
		return d.bolt.View(func(tx *bolt.Tx) error { return do(tx.Bucket(s.bucket).Bucket(recordsBucket)) })
	})
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return errClosed
	}
	if err != nil {
		return fmt.Errorf("boltstore: %s: %w", d.path, err)
	}
	return nil
}

func get(records *bolt.Bucket, key string) (record.Record, error) {
	b := records.Get([]byte(key))
	if b == nil {
		return record.Record{}, nil
	}
	r, err := record.Decode(b)
	if err != nil {
		return r, fmt.Errorf("the record of key %q: %w", key, err)
	}
	return r, nil
}

func same(a, b record.Record) bool {
	return a.State == b.State && (a.State == record.Absent || bytes.Equal(record.Encode(a), record.Encode(b)))
}

// canStay reports whether next, in the place of now, may be in memory alone: if it is lost, what is in the file
// below reads as absent, which is right for who has begun nothing, and for what has ended as absent.
func (now current) canStay(next record.Record, at record.At) bool {
	if !now.inMemory && record.Read(now.record, at).State != idemflight.Absent {
		return false
	}
	return next.State == record.Claimed && next.Announced || now.inMemory && next.State == record.Closed
}

// keepLocked keeps r in memory.
func (d *DB) keepLocked(id id, r record.Record) {
	d.inMemory[id] = r
	if r.State == record.Closed {
		d.rows = append(d.rows, row{id, r.Expires})
	}
	d.wakeLocked(id)
}

// sweepRowsLocked drops closed rows that have ended from memory. Their ends are nearly in order, as leases are
// alike.
func (d *DB) sweepRowsLocked(now int64) {
	for len(d.rows) > 0 && d.rows[0].end <= now {
		id := d.rows[0].id
		if r := d.inMemory[id]; r.State == record.Closed && r.Expires <= now {
			delete(d.inMemory, id)
		}
		d.rows = d.rows[1:]
	}
}

func (d *DB) wakeLocked(id id) {
	if changed, ok := d.watched[id]; ok {
		delete(d.watched, id)
		close(changed)
	}
}
