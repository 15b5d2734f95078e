package idemflight

import (
	"errors"
	"fmt"
	"time"

	"github.com/idemflight/idemflight/internal/yield"
)

// Restore puts an entry back that [Cache.All] gave in an earlier process, before the first calls
// come in. It wants an absent key, and room: it evicts like a new key. An entry that is Retained,
// Held or Shed must expire in the future (a held one may have no end) and is kept until then; its
// own TTL is ExpiresAt − CompletedAt. One that was InFlight becomes held for Options.HoldTTL with
// [ErrInterrupted]: the old process may have had its effect.
//
// It costs a lock or two, and a place in two or three queues: O(log n) of one shard. A full cache
// evicts the outcomes that completed first, restored or not, in whatever order they come; a replay
// before its turn comes saves a restored one as it does any other.
//
// The error says what was wrong, [ErrInvalidKey], [ErrFull] and [ErrClosed] among others, but not with
// which key. An entry that has expired meanwhile is an error too, and no loss. After any other the key
// may be unguarded: do not start to listen.
//
// An Err keeps only what your encoding keeps: save what callers test it for, and give back an error
// that answers the same. Two processes that overlap are not covered: between Close here and Restore
// there nobody may call.
func (c *Cache[K, V]) Restore(key K, e Entry[V]) error {
	s := c.shardOf(c.hash(key))
	if !validKey(c.traits, key) {
		return ErrInvalidKey
	}
	var notes []note[K]
	defer func() { c.emit(notes) }()
	r, weight, err := c.recordOf(key, e, &notes)
	if err != nil {
		return err
	}
	if err := c.placeFor(s, key, &notes); err != nil {
		return err
	}
	wanted := func() bool { err = c.restorableLocked(s, key, &notes); return err == nil }
	if !c.lockWithWeight(s, weight, wanted, &notes) {
		s.mu.Unlock()
		yield.At("restore: refused")
		c.giveBack()
		c.disarm()
		return err
	}
	c.keepLocked(s, r, weight, &notes)
	deadline := r.deadline // r may be claimed once the lock is released
	s.mu.Unlock()
	c.arm(deadline)
	return nil
}

// placeFor takes a place for key, which must be absent.
func (c *Cache[K, V]) placeFor(s *shard[K, V], key K, notes *[]note[K]) error {
	none, upTo := false, uint32(0)
	for {
		yield.At("restore")
		s.mu.Lock()
		err := c.restorableLocked(s, key, notes)
		if err == nil && !c.takePlace() {
			err = ErrFull
		}
		s.mu.Unlock()
		if err != ErrFull || none && upTo == c.seq.Load() {
			return err
		}
		none, upTo = c.makeRoom(key, notes)
	}
}

func (c *Cache[K, V]) restorableLocked(s *shard[K, V], key K, notes *[]note[K]) error {
	switch {
	case c.closed.Load():
		return ErrClosed
	case s.pending[key] != nil:
		return errors.New("idemflight: Restore of a key that is in flight: restore before the first calls come in")
	case c.liveLocked(s, key, notes).record != nil:
		return errors.New("idemflight: Restore of a key that is kept already: restored twice?")
	}
	return nil
}

// recordOf returns e as a record, and its weight, or says what is wrong with it.
func (c *Cache[K, V]) recordOf(key K, e Entry[V], notes *[]note[K]) (*fullRecord[K, V], int64, error) {
	at := c.nowToo()
	now := c.wall(at)
	var cause error
	c.guard(func() { cause = unmark(e.Err) }, func(error) { cause = &unmarked{e.Err} })
	restored := func(state State, ttl time.Duration) *fullRecord[K, V] {
		r := newRecord[K, V](&c.clock, key, state, cause, e.Fingerprint, 0, at, ttl)
		r.times = &times{e.StartedAt, e.CompletedAt, e.ExpiresAt}
		return r
	}
	switch e.State {
	case InFlight:
		cause = ErrInterrupted
		r := restored(Held, c.opts.HoldTTL)
		r.times.completed = now
		r.expireAfter(&c.clock, at, c.opts.HoldTTL)
		return r, 0, nil
	case Retained, Shed:
		if e.ExpiresAt.IsZero() {
			return nil, 0, errors.New("idemflight: Restore of an entry without ExpiresAt; only a held one may have none")
		}
	case Held:
		if e.ExpiresAt.IsZero() {
			return restored(Held, -1), 0, nil
		}
	default:
		return nil, 0, fmt.Errorf("idemflight: Restore of an entry whose State is %v: want in flight, retained, held or shed", e.State)
	}
	left := e.ExpiresAt.Sub(now)
	if left <= 0 {
		return nil, 0, fmt.Errorf("idemflight: Restore of an entry that expired %v ago", -left)
	}
	r := restored(e.State, left)
	// Protect and the order of turns go by the completion: not that of a clock that ran ahead.
	r.done -= min(max(now.Sub(e.CompletedAt), 0), forever/2)
	if e.State != Retained {
		return r, 0, nil
	}
	r.value = e.Value
	return r, c.weightOf(key, e.Value, notes), nil
}
