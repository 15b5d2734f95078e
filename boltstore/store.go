package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/record"
)

// Store is an [idemflight.Store]: the keys of one name in a [DB]. It is safe for concurrent use. A verb that
// writes costs a place in a transaction, of which there is one at a time; one that changes nothing, and a Claim
// with EffectsAnnounced, costs a read of the file's memory map.
//
// A key is 1 to 32,000 bytes, any others are [idemflight.ErrInvalidKey]. A lease of this process does not end
// while it lives: Standing.ExpiresIn is negative in flight, and Renew only tells what is lost.
type Store struct {
	db     *DB
	name   string
	bucket []byte
}

var _ idemflight.Store = (*Store)(nil)

// maxKey leaves room, below bbolt's 32,768, for the time in the bucket due.
const maxKey = 32_000

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
		return answer{}, context.Cause(ctx)
	}
	o := &operation{id: id{s.name, key}, store: s, step: step, done: make(chan struct{})}
	if done, err := s.db.tryWithoutDisk(o); done || err != nil {
		return o.answer, err
	}
	select {
	case <-o.done:
		return o.answer, o.answer.err
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
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

// currentLocked returns the record of id. Nobody may be writing it.
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
		case err != nil: // somebody has to look at it
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

// Claim is [idemflight.Store].Claim. With EffectsAnnounced a fresh one is in memory alone.
func (s *Store) Claim(ctx context.Context, r idemflight.ClaimRequest) (idemflight.Standing, error) {
	a, err := s.do(ctx, r.Key, func(now record.Record, at record.At) (next record.Record, a answer) {
		next, a.standing = record.Claim(now, r, at)
		return next, a
	})
	return a.standing, err
}

// Begin is [idemflight.Store].Begin.
func (s *Store) Begin(ctx context.Context, c idemflight.Claim, lease time.Duration) error {
	_, err := s.do(ctx, c.Key, func(now record.Record, at record.At) (next record.Record, a answer) {
		if next, a.err = record.Begin(now, c, lease, at); now.State == record.Begun {
			return now, a // a lease that does not end need not be written again
		}
		return next, a
	})
	return err
}

// maxParts is how long value and error may be together, in bytes: half of what bbolt has room for.
const maxParts = 1 << 30

// Settle is [idemflight.Store].Settle. Value and error of more than 1 GiB together are an error.
func (s *Store) Settle(ctx context.Context, c idemflight.Claim, what idemflight.Settlement) (idemflight.Standing, error) {
	if int64(len(what.Value))+int64(len(what.Err)) > maxParts {
		return idemflight.Standing{}, errors.New("boltstore: value and error of more than 1 GiB together")
	}
	what.Value, what.Err = bytes.Clone(what.Value), bytes.Clone(what.Err) // it may be written after s has returned
	a, err := s.do(ctx, c.Key, func(now record.Record, at record.At) (next record.Record, a answer) {
		next, a.standing, a.err = record.Settle(now, c, what, at)
		return next, a
	})
	return a.standing, err
}

// Renew is [idemflight.Store].Renew. Leases do not end here, so it writes nothing.
func (s *Store) Renew(ctx context.Context, cs []idemflight.Claim, lease time.Duration) (lost []idemflight.ClaimID, err error) {
	for _, c := range cs {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		owned, err := s.owned(c, lease)
		if err != nil {
			return nil, err
		}
		if !owned {
			lost = append(lost, c.ID)
		}
	}
	return lost, nil
}

func (s *Store) owned(c idemflight.Claim, lease time.Duration) (owned bool, err error) {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	if err := s.db.usableLocked(); err != nil {
		return false, err
	}
	now, err := s.db.currentLocked(s, id{s.name, c.Key})
	_, owned = record.Renew(now.record, c, lease, s.db.at())
	return owned, err
}

// Watch is [idemflight.Store].Watch. It waits without polling, and ends with the DB.
func (s *Store) Watch(ctx context.Context, c idemflight.Claim) error {
	changed, err := s.watch(c)
	if err != nil || changed == nil {
		return err
	}
	select {
	case <-changed:
		return nil
	case <-s.db.closed:
		return errClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// watch returns a channel that is closed when the record changes, or nil if it is not in flight by c.
func (s *Store) watch(c idemflight.Claim) (chan struct{}, error) {
	d := s.db
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usableLocked(); err != nil {
		return nil, err
	}
	id := id{s.name, c.Key}
	now, err := d.currentLocked(s, id)
	if err != nil || !record.InFlight(now.record, c, d.at()) {
		return nil, err
	}
	if d.watched[id] == nil {
		d.watched[id] = make(chan struct{})
	}
	return d.watched[id], nil
}

// Read is [idemflight.Store].Read. It waits for a write of the same key, so that what it tells is there to stay.
func (s *Store) Read(ctx context.Context, key string) (idemflight.Standing, error) {
	a, err := s.do(ctx, key, func(now record.Record, at record.At) (record.Record, answer) {
		return now, answer{standing: record.Read(now, at)}
	})
	return a.standing, err
}

// GiveBack is [idemflight.Store].GiveBack.
func (s *Store) GiveBack(ctx context.Context, c idemflight.Claim) error {
	_, err := s.do(ctx, c.Key, func(now record.Record, at record.At) (record.Record, answer) {
		return record.GiveBack(now, c, at), answer{}
	})
	return err
}

// Forget is [idemflight.Store].Forget.
func (s *Store) Forget(ctx context.Context, c idemflight.Claim) (bool, error) {
	a, err := s.do(ctx, c.Key, func(now record.Record, at record.At) (next record.Record, a answer) {
		next, a.found = record.Forget(now, c, at)
		return next, a
	})
	return a.found, err
}

// Unsettled is [idemflight.Store].Unsettled: what is in memory alone, then what is in the file, each in the order
// of the keys. It scans the file, a few hundred records at a time; f may ask the store.
func (s *Store) Unsettled(ctx context.Context, f func(key string, x idemflight.Standing) error) error {
	inMemory := s.db.inMemoryKeys(s.name)
	told := make(map[string]bool, len(inMemory))
	tell := func(keys []string) error {
		for _, key := range keys {
			x, err := s.Read(ctx, key)
			if err != nil {
				return err
			}
			if told[key] || x.State != idemflight.InFlight && x.State != idemflight.Held {
				continue
			}
			if err := f(key, x); err != nil {
				return err
			}
		}
		return nil
	}
	if err := tell(inMemory); err != nil {
		return err
	}
	for _, key := range inMemory {
		told[key] = true
	}
	for from := ""; ; {
		keys, next, err := s.unsettledFrom(from)
		if err != nil {
			return err
		}
		if err := tell(keys); err != nil || next == "" {
			return err
		}
		from = next
	}
}

// scanMost is how many records a scan looks at in one transaction.
const scanMost = 512

// unsettledFrom returns keys in the file that may be in flight or held, and from where to go on; "" if
// those are the last.
func (s *Store) unsettledFrom(from string) (keys []string, next string, err error) {
	at := s.db.at()
	err = s.db.view(s, func(records *bolt.Bucket) error {
		c := records.Cursor()
		looked := 0
		for k, v := c.Seek([]byte(from)); k != nil; k, v = c.Next() {
			if looked++; looked > scanMost {
				next = string(k)
				return nil
			}
			r, err := record.Decode(v)
			if err != nil {
				return fmt.Errorf("the record of key %q: %w", k, err)
			}
			if slices.Contains([]idemflight.State{idemflight.InFlight, idemflight.Held}, record.Read(r, at).State) {
				keys = append(keys, string(k))
			}
		}
		return nil
	})
	return keys, next, err
}
