package idemflight

import (
	"context"
	"errors"
	"fmt"
	"unsafe"

	"github.com/idemflight/idemflight/internal/yield"
)

// Restore puts back an entry that [Cache.All] gave in an earlier process, before the first calls
// come in. The key must be absent, and there must be room: Restore evicts like a new key. An entry
// that is Retained, Held or Shed must expire in the future (a held one may have no end) and is kept
// until then; its own TTL is ExpiresAt − CompletedAt. One that was InFlight becomes held for
// Options.HoldTTL with [ErrInterrupted]: the old process may have had its effect. With a Store, the
// entry is written into it, and one that was Shed becomes held, with [ErrValueShed].
//
// It costs a lock or two and O(log n) in one shard; with a Store two round trips. When the cache
// is full, the outcomes that completed first are evicted first, restored or not, in whatever
// order they were restored (from 4,096 entries on, approximately). A replay protects a restored
// outcome like any other.
//
// The error says what was wrong ([ErrInvalidKey], [ErrFull] and [ErrClosed], with a Store
// also [ErrStore], among others), but not with which key. If the entry has expired meanwhile,
// it is [ErrExpired], and nothing is lost. After any other error the key may be unguarded: do
// not start to listen.
//
// An Err survives only as far as your encoding keeps it: save what callers test for, and restore an
// error that answers those tests the same way. Two processes that overlap are not covered: between
// Close in the old one and Restore in the new one, nobody may call.
func (c *Cache[K, V]) Restore(ctx context.Context, key K, e Entry[V]) error {
	mustHave(ctx, "Restore")
	return c.restore(ctx, key, e, restored)
}

// restore is Restore; held is the reason for which the key is held, if it is.
func (c *Cache[K, V]) restore(ctx context.Context, key K, e Entry[V], held why) error {
	hash := c.hash(key)
	s := c.shardOf(hash)
	if err := checkKey(&c.traits, key); err != nil {
		return err
	}
	if c.keeper != nil {
		return c.restoreStored(ctx, key, e, held)
	}
	c.traits.copyText(unsafe.Pointer(&key))
	var notes []note[K]
	defer func() { c.emit(notes) }()
	d, err := c.draftFrom(key, e, &notes)
	if err != nil {
		return err
	}
	d.hash = uint32(hash)
	d.why = held
	if d.err == ErrInterrupted {
		d.why = interrupted
	}
	if err := c.placeFor(key, hash, &notes); err == ErrFull {
		return c.full()
	} else if err != nil {
		return err
	}
	yield.At("settle")
	s.mu.Lock()
	if c.restorableLocked(s, hash, key, &notes) != nil {
		d.weight = 0
	}
	c.takeWeightLocked(s, d.weight, &notes)
	if err := c.restorableLocked(s, hash, key, &notes); err != nil {
		c.returnWeight(d.weight)
		s.mu.Unlock()
		yield.At("restore: refused")
		c.returnPlace()
		c.disarm()
		return err
	}
	c.keepLocked(s, d, &notes)
	s.mu.Unlock()
	c.arm(d.deadline)
	return nil
}

// placeFor takes a place for key, which must be absent.
func (c *Cache[K, V]) placeFor(key K, hash uint64, notes *[]note[K]) error {
	s := c.shardOf(hash)
	exhausted, asOf := false, uint32(0) // the last makeRoom found nothing, as of this insertion
	for {
		yield.At("restore")
		s.mu.Lock()
		err := c.restorableLocked(s, hash, key, notes)
		if err == nil && !c.takePlace() {
			err = ErrFull
		}
		s.mu.Unlock()
		if err != ErrFull || exhausted && asOf == c.seq.Load() {
			return err
		}
		exhausted, asOf = c.makeRoom(key, hash, notes)
	}
}

// restorableLocked says why key may not be restored.
func (c *Cache[K, V]) restorableLocked(s *shard[K, V], hash uint64, key K, notes *[]note[K]) error {
	switch {
	case c.closed.Load():
		return ErrClosed
	case s.flights.get(hash, key) != nil:
		return errors.New("idemflight: Restore of a key that is in flight: restore before the first calls come in")
	case c.liveLocked(s, hash, key, notes) != nil:
		return errors.New("idemflight: Restore of a key that is kept already: restored twice?")
	}
	return nil
}

// draftFrom returns e as a draft, or an error that says what is wrong with it.
func (c *Cache[K, V]) draftFrom(key K, e Entry[V], notes *[]note[K]) (*draft[K, V], error) {
	at := c.syncWall()
	now := c.wall(at)
	d := &draft[K, V]{
		key: key, state: e.State, fingerprint: e.Fingerprint, origin: e.Origin, done: at, deadline: forever,
		times: &times{e.StartedAt, e.CompletedAt, e.ExpiresAt, c.ahead.Load()},
	}
	c.guard(func() { d.err = unmark(e.Err) }, func(error) { d.err = &unmarked{e.Err} })
	switch e.State {
	case InFlight:
		d.state, d.err, d.times.completed = Held, ErrInterrupted, now
		d.expireAfter(&c.clock, at, c.opts.HoldTTL)
		return d, nil
	case Retained, Shed:
		if e.ExpiresAt.IsZero() {
			return nil, errors.New("idemflight: Restore of an entry without ExpiresAt; only a held one may have none")
		}
	case Held:
	default:
		return nil, fmt.Errorf("idemflight: Restore of an entry whose State is %v: want in flight, retained, held or shed", e.State)
	}
	// MinRetention and the order of turns go by the time of completion, even one long past, but not
	// by one in the future, which a clock that ran ahead has left.
	d.done -= min(max(now.Sub(e.CompletedAt), 0), forever/2)
	if e.ExpiresAt.IsZero() {
		return d, nil
	}
	left := e.ExpiresAt.Sub(now)
	if left <= 0 {
		return nil, fmt.Errorf("%w, %v ago", ErrExpired, -left)
	}
	d.deadline = deadlineOf(at, left)
	if e.State == Retained {
		d.value = e.Value
		d.weight = c.weightOf(key, e.Value, notes)
	}
	return d, nil
}
