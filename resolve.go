package idemflight

import (
	"context"
	"fmt"
	"time"

	"github.com/idemflight/idemflight/internal/yield"
)

// Resolve settles a held key by hand, once someone has found out what became of its effect:
//
//	nil, Final(err)   the answer is known: value and err are retained for Options.TTL from now
//	Retryable(err)    it certainly had no effect: released, the next call runs fn
//	anything else     still unknown: refused with an error that says so; the key stays held
//
// A key that is not held, or of which Reconcile runs, is refused with [ErrNotHeld], which says what it
// is: so if two operators resolve one key, one of them acts. It costs what settling an execution costs,
// and may ask Options.Weigh.
func (c *Cache[K, V]) Resolve(ctx context.Context, key K, value V, err error) error {
	if ctx == nil {
		panic("idemflight: Resolve called with a nil context")
	}
	var notes []note[K]
	defer func() { c.emit(notes) }()

	d := Retain
	cause := err
	if err != nil {
		d = Hold
		c.guard(func() {
			if found, ok := markedAs(err, always(Hold)); ok {
				d = found
			}
			cause = unmark(err)
		}, c.notePanic(key, &notes))
	}
	if d == Hold {
		return fmt.Errorf("idemflight: Resolve needs nil, Final(err) or Retryable(err), the key stays held: %w", cause)
	}
	hash := c.hash(key)
	s := c.shardOf(hash)
	yield.At("resolve")
	s.mu.Lock()
	held := c.heldLocked(s, hash, key, &notes)
	s.mu.Unlock()
	if held == nil {
		return c.notHeld(key)
	}
	weight := int64(0)
	if d == Retain {
		weight = c.weightOf(key, value, &notes)
	}
	yield.At("settle")
	s.mu.Lock()
	if c.heldLocked(s, hash, key, &notes) != held {
		weight = 0
	}
	c.takeWeightLocked(s, weight, &notes)
	if c.heldLocked(s, hash, key, &notes) != held { // another goroutine was quicker
		c.returnWeight(weight)
		s.mu.Unlock()
		return c.notHeld(key)
	}
	deadline := forever
	if d == Release {
		c.returnPlace()
		c.removeLocked(s, held)
	} else {
		c.removeLocked(s, held)
		r := c.resolved(held)
		r.value, r.err, r.weight = value, cause, weight
		c.keepLocked(s, &r, &notes)
		deadline = r.deadline
	}
	s.mu.Unlock()
	c.arm(deadline)
	c.disarm()
	c.noteIn(ctx, &notes, Event[K]{Kind: EventResolved, Key: key, Err: cause, Disposition: d})
	return nil
}

// notHeld returns ErrNotHeld with what key is instead.
func (c *Cache[K, V]) notHeld(key K) error {
	e, _ := c.lookup(key)
	return fmt.Errorf("%w: it is %v", ErrNotHeld, e.State)
}

// resolved returns the draft of what held becomes when its outcome is known now.
func (c *Cache[K, V]) resolved(held *record[K, V]) draft[K, V] {
	at := c.nowAndWall()
	d := draft[K, V]{
		key: held.key, hash: held.hash, state: Retained, fingerprint: held.fingerprint(),
		started: held.more.done - time.Duration(held.took), done: at,
	}
	if held.more.times != nil {
		d.times = &times{started: held.more.times.started, completed: c.wall(at)}
	}
	d.expireAfter(&c.clock, at, c.opts.TTL)
	return d
}

// heldLocked returns the record of key if that is held.
func (c *Cache[K, V]) heldLocked(s *shard[K, V], hash uint64, key K, notes *[]note[K]) *record[K, V] {
	if r := c.liveLocked(s, hash, key, notes); r != nil && r.state() == Held {
		return r
	}
	return nil
}
