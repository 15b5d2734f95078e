package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

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
		next, a.err = record.Begin(now, c, lease, at)
		if now.State == record.Begun {
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
			return nil, ctx.Err()
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
		return ctx.Err()
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
// of the keys. It scans the file, a few hundred records at a time; f may ask the store. Records that are damaged do
// not end it: it returns what is wrong with them at the end.
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
	var damaged []error
	for from := ""; ; {
		p, err := s.unsettledFrom(from)
		if err != nil {
			return err
		}
		damaged = append(damaged, p.damaged...)
		if err := tell(p.keys); err != nil {
			return err
		}
		if p.next == "" {
			return errors.Join(damaged...)
		}
		from = p.next
	}
}

// scanMost is how many records a scan looks at in one transaction.
const scanMost = 512

// page is what a scan found in one transaction.
type page struct {
	keys    []string // that may be in flight or held
	damaged []error
	next    string // key to go on from; "" at the end
}

func (s *Store) unsettledFrom(from string) (p page, err error) {
	at := s.db.at()
	err = s.db.view(s, func(records *bolt.Bucket) error {
		c := records.Cursor()
		looked := 0
		for k, v := c.Seek([]byte(from)); k != nil; k, v = c.Next() {
			if looked++; looked > scanMost {
				p.next = string(k)
				return nil
			}
			r, err := record.Decode(v)
			if err != nil {
				p.damaged = append(p.damaged, fmt.Errorf("the record of key %q: %w", k, err))
				continue
			}
			if slices.Contains([]idemflight.State{idemflight.InFlight, idemflight.Held}, record.Read(r, at).State) {
				p.keys = append(p.keys, string(k))
			}
		}
		return nil
	})
	return p, err
}
