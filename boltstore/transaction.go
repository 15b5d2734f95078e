package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/idemflight/idemflight/internal/record"
)

// write is the writer: it writes transactions as long as there is something to write.
func (d *DB) write() {
	for {
		d.mu.Lock()
		batch := d.queue
		d.queue = nil
		if d.writing = len(batch) > 0; !d.writing {
			d.mu.Unlock()
			return
		}
		broken := d.broken
		d.mu.Unlock()
		t := transaction{db: d, keys: make(map[id]*current)}
		err := broken
		if err == nil {
			err = contain(func() error { return d.bolt.Update(func(tx *bolt.Tx) error { return t.run(tx, batch) }) })
		}
		d.land(&t, batch, err)
	}
}

// land tells what has become of a batch.
func (d *DB) land(t *transaction, batch []*operation, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == errNothing:
		err = nil
	case err == nil:
		d.commits++
	case t.done && d.broken == nil:
		d.broken = err
	}
	for id, now := range t.keys {
		switch {
		case err != nil:
		case now.inMemory:
			d.keepLocked(id, now.record)
		default:
			delete(d.inMemory, id)
			d.wakeLocked(id)
		}
	}
	for _, o := range batch {
		if d.busy[o.id]--; d.busy[o.id] == 0 {
			delete(d.busy, o.id)
		}
		if err != nil {
			o.answer = answer{err: fmt.Errorf("boltstore: %s: %w", d.path, err)}
		}
		close(o.done)
	}
}

// transaction is one write of the file. Only the writer has it.
type transaction struct {
	db     *DB
	at     record.At
	keys   map[id]*current // that have changed, as they are now
	writes int
	done   bool // all but the commit: until then nothing has happened to the file
}

// errNothing: there is nothing to write.
var errNothing = errors.New("nothing")

// run takes the steps of batch in their order. What one of them cannot do is its own error.
func (t *transaction) run(tx *bolt.Tx, batch []*operation) error {
	t.at = t.db.at()
	stores := make(map[string]*Store)
	for _, o := range batch {
		stores[o.store.name] = o.store
		o.answer = t.step(tx, o)
	}
	for id, now := range t.keys {
		if !now.inMemory {
			if err := t.put(tx.Bucket(stores[id.store].bucket), id.key, now.record); err != nil {
				return err
			}
		}
	}
	if t.writes == 0 {
		return errNothing
	}
	for _, s := range stores {
		if err := t.sweep(tx.Bucket(s.bucket)); err != nil {
			return err
		}
	}
	t.done = true
	return nil
}

func (t *transaction) step(tx *bolt.Tx, o *operation) answer {
	now, ok := t.keys[o.id]
	if !ok {
		now = &current{}
		t.db.mu.Lock()
		now.record, now.inMemory = t.db.inMemory[o.id]
		t.db.mu.Unlock()
		if !now.inMemory {
			var err error
			if now.record, err = get(tx.Bucket(o.store.bucket).Bucket(recordsBucket), o.id.key); err != nil {
				return answer{err: fmt.Errorf("boltstore: %s: %w", t.db.path, err)}
			}
		}
	}
	next, a := o.step(now.record, t.at)
	if !same(now.record, next) {
		onDisk := ok && !now.inMemory // by a step before this one: its answer says that it is there
		t.keys[o.id] = &current{next, !onDisk && now.canStay(next, t.at)}
	}
	return a
}

// put writes a record, and when it is due.
func (t *transaction) put(store *bolt.Bucket, key string, r record.Record) error {
	t.writes++
	records, due := store.Bucket(recordsBucket), store.Bucket(dueBucket)
	if before, err := get(records, key); err == nil && before.State != record.Absent {
		if err := due.Delete(dueKey(dueOf(before), key)); err != nil {
			return err
		}
	}
	if at := dueOf(r); at != record.Forever {
		if err := due.Put(dueKey(at, key), nil); err != nil {
			return err
		}
	}
	return records.Put([]byte(key), record.Encode(r))
}

// dueOf returns when r ends if its owner dies with its lease. It may live on: see sweep.
func dueOf(r record.Record) int64 { return record.End(r, record.At{}) }

func dueKey(at int64, key string) []byte { return append(bytesOf(uint64(at)), key...) }

// sweepMost is how many records a transaction drops besides its own business: more than a few batches of writes
// bring, few enough that nobody waits for it.
const sweepMost = 256

// sweep drops records that have ended.
func (t *transaction) sweep(store *bolt.Bucket) error {
	records, due := store.Bucket(recordsBucket), store.Bucket(dueBucket)
	var ended [][]byte
	for c, k, _ := start(due); k != nil && len(ended) < sweepMost; k, _ = c.Next() {
		if len(k) <= 8 || int64(binary.BigEndian.Uint64(k)) > t.at.Now {
			break
		}
		ended = append(ended, bytes.Clone(k))
	}
	for _, k := range ended {
		if err := due.Delete(k); err != nil {
			return err
		}
		key := string(k[8:])
		r, err := get(records, key)
		switch end := record.End(r, t.at); {
		case err != nil:
			err = nil // somebody has to look at it: it stays, and is due no more
		case r.State == record.Absent:
		case end <= t.at.Now:
			err = errors.Join(records.Delete([]byte(key)), due.Delete(dueKey(dueOf(r), key)))
		case dueOf(r) > t.at.Now: // it was written again since
		default: // its owner lives on, or died later than its lease
			err = due.Put(dueKey(min(end, t.at.Now+int64(time.Hour)), key), nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
