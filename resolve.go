package idemflight

import (
	"context"
	"errors"
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
// A key that is not held, or for which Reconcile is running, is refused with [ErrNotHeld], whose
// text says what it is: so if two operators resolve one key, only one of them acts. Without a Store
// that is the only other error; it costs what settling an execution costs, and may ask
// Options.Weigh. With one, the error may also be [ErrStore] (look again: the key may have been
// settled), [ErrClaimLost], or [ErrInvalidKey] for a key that cannot be encoded; it costs three
// round trips and does not ask Weigh.
func (c *Cache[K, V]) Resolve(ctx context.Context, key K, value V, err error) error {
	mustHave(ctx, "Resolve")
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
	if c.keeper == nil {
		err = c.resolve(key, value, cause, d, &notes)
	} else {
		err = c.resolveStored(ctx, key, value, cause, d)
	}
	if err == nil {
		c.noteIn(ctx, &notes, Event[K]{Kind: EventResolved, Key: key, Err: cause, Disposition: d})
	}
	return err
}

// resolve settles key, which must be held, with an outcome that is known.
func (c *Cache[K, V]) resolve(key K, value V, cause error, d Disposition, notes *[]note[K]) error {
	hash := c.hash(key)
	s := c.shardOf(hash)
	yield.At("resolve")
	s.mu.Lock()
	held, state := c.heldLocked(s, hash, key, notes)
	s.mu.Unlock()
	if held == nil {
		return notHeld(state)
	}
	weight := int64(0)
	if d == Retain {
		weight = c.weightOf(key, value, notes)
	}
	yield.At("settle")
	s.mu.Lock()
	if now, _ := c.heldLocked(s, hash, key, notes); now != held {
		weight = 0
	}
	c.takeWeightLocked(s, weight, notes)
	if now, state := c.heldLocked(s, hash, key, notes); now != held { // another goroutine was quicker
		c.returnWeight(weight)
		s.mu.Unlock()
		return notHeld(state)
	}
	deadline := forever
	if d == Release {
		c.returnPlace()
		c.removeLocked(s, held)
	} else {
		c.removeLocked(s, held)
		r := c.resolved(held)
		r.value, r.err, r.weight = value, cause, weight
		c.keepLocked(s, &r, notes)
		deadline = r.deadline
	}
	s.mu.Unlock()
	c.arm(deadline)
	c.disarm()
	return nil
}

// notHeld returns ErrNotHeld with the state of the key.
func notHeld(state State) error {
	if state == Held {
		return fmt.Errorf("%w as it was: somebody else has settled it, and it is held anew", ErrNotHeld)
	}
	return fmt.Errorf("%w: it is %v", ErrNotHeld, state)
}

// resolved returns the draft of what held becomes when its outcome is known now.
func (c *Cache[K, V]) resolved(held *record[K, V]) draft[K, V] {
	at := c.syncWall()
	d := draft[K, V]{
		key: held.key, hash: held.hash, state: Retained, fingerprint: held.fingerprint(), origin: held.origin(),
		started: held.more.done - time.Duration(held.took), done: at,
	}
	if held.more.times != nil {
		d.times = &times{started: c.timesOf(held).started, completed: c.wall(at), ahead: c.ahead.Load()}
	}
	d.expireAfter(&c.clock, at, c.opts.TTL)
	return d
}

// heldLocked returns the record of key if the key is held, and the key's state in any case.
func (c *Cache[K, V]) heldLocked(s *shard[K, V], hash uint64, key K, notes *[]note[K]) (*record[K, V], State) {
	r := c.liveLocked(s, hash, key, notes)
	switch {
	case r != nil && r.state() == Held:
		return r, Held
	case r != nil:
		return nil, r.state()
	case s.flights.get(hash, key) != nil:
		return nil, InFlight
	}
	return nil, Absent
}

// Reconcile asks Options.Reconcile now what became of a held key. It does what a call that met
// the key would do, except that no fn of its own follows, and that it does not matter what was
// learned a moment ago. It returns as soon as Options.Reconcile has answered, with the entry as
// it is then: Absent if there was certainly no effect, InFlight if a call that waits for the key
// now runs its own fn.
//
// Calls that arrive meanwhile join it, and it joins a Reconcile that is running. Errors:
// [ErrNotHeld]; [ErrOutcomeUnknown] if the key is still held; [ErrCallerLeft] once ctx ends, while
// Options.Reconcile goes on; [ErrClosed]; [ErrReentrant] from inside a Reconcile of the same key;
// an error that says so if there is no Options.Reconcile; and with a Store also [ErrStore],
// [ErrFull], and [ErrInvalidKey] for a key that cannot be encoded. It does not count as a call in
// Stats. Cost: a goroutine and what Options.Reconcile costs; with a Store also four round trips.
func (c *Cache[K, V]) Reconcile(ctx context.Context, key K) (Entry[V], error) {
	mustHave(ctx, "Reconcile")
	if c.opts.Reconcile == nil {
		return Entry[V]{}, errors.New("idemflight: Cache.Reconcile needs Options.Reconcile, which is nil")
	}
	if c.keeper != nil {
		return c.reconcileStored(ctx, key)
	}
	m := call[K, V]{c: c, key: key, ctx: ctx}
	m.reply.hash, m.reply.ended = c.hash(key), ctx.Done()
	m.shard, m.ctxErr, m.within = c.shardOf(m.reply.hash), ctx.Err(), executionOf(ctx)
	yield.At("operate")
	m.shard.mu.Lock()
	asks, err := m.askLocked()
	m.shard.mu.Unlock()
	f := m.reply.flight
	if m.leads {
		go c.reconcile(f, nil)
	}
	c.emit(m.notes)
	switch {
	case err == ErrCallerLeft:
		return Entry[V]{}, left(ctx, m.ctxErr)
	case err != nil:
		return Entry[V]{}, err
	}
	select {
	case <-asks.answered:
	case <-m.reply.ended:
		if m.operatorLeaves() {
			return Entry[V]{}, left(ctx, ctx.Err())
		}
	}
	if m.leads {
		c.observe(ctx, f.ended(EventResolved))
	}
	e, _ := c.lookup(key)
	if asks.next == nil && Disposition(f.outcome.disposition) == Hold {
		return e, f.outcome.err
	}
	return e, nil
}

// operatorLeaves reports false if Reconcile has answered: the answer wins.
func (m *call[K, V]) operatorLeaves() bool {
	f := m.reply.flight
	m.shard.mu.Lock()
	defer m.shard.mu.Unlock()
	if f.asks == nil {
		return false
	}
	if m.leads {
		f.operated = byOperatorWhoLeft
	}
	return true
}

// askLocked finds or claims the flight that asks Reconcile about the key.
func (m *call[K, V]) askLocked() (*asking[K, V], error) {
	c, s := m.c, m.shard
	if f := s.flights.get(m.reply.hash, m.key); f != nil && f.asks != nil {
		if m.within.inside(&f.exec) {
			return nil, ErrReentrant
		}
		m.reply.flight = f
		return f.asks, nil
	}
	held, state := c.heldLocked(s, m.reply.hash, m.key, &m.notes)
	switch {
	case held == nil:
		return nil, notHeld(state)
	case m.ctxErr != nil:
		return nil, ErrCallerLeft
	case c.closed.Load():
		return nil, ErrClosed
	}
	c.removeLocked(s, held) // its place passes to the flight
	m.reply.opts.fingerprint, m.reply.opts.ttl = held.fingerprint(), -1
	m.claimLocked(held)
	f := m.reply.flight
	f.leaderLeft, f.operated = true, byOperator
	return f.asks, nil
}
