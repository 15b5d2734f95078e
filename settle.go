package idemflight

import (
	"context"
	"time"

	"github.com/idemflight/idemflight/internal/yield"
)

// execute runs one execution of f to its end and settles f.
//
// notes are told by settle: a leader that runs fn itself flies first and tells then what it evicted
// to get its place, since the Observer may call the cache and wait for the flight.
func (c *Cache[K, V]) execute(s *shard[K, V], f *flight[K, V], e *execution, fn func(context.Context) (V, error), notes []note[K]) {
	x := ending[K, V]{notes: notes}
	yield.At("execute")
	defer c.finish(s, f, e, &x) // also if fn called runtime.Goexit
	e.start(c.opts.ExecTimeout)
	x.run(e, fn)
}

// fly executes f on a goroutine of its own.
func (c *Cache[K, V]) fly(s *shard[K, V], f *flight[K, V]) {
	growStack(0)
	c.execute(s, f, &f.exec, f.fn, nil)
}

// growStack makes the stack of a new goroutine grow to 8 KiB now, when there is next to nothing on it
// that has to be moved: the 2 that it begins with, half of them kept in reserve, do not last for
// settle and golang-lru. (Measured: a sixth of a first execution.)
//
//go:noinline
func growStack(i int) byte {
	var room [3 << 10]byte
	return room[i]
}

// finish follows fn: the steps up to settle are each done even if a hook in the one before called
// runtime.Goexit, so that nobody is stranded.
func (c *Cache[K, V]) finish(s *shard[K, V], f *flight[K, V], e *execution, x *ending[K, V]) {
	if x.err != nil || c.opts.Weigh != nil {
		defer c.settle(s, f, e, x)
		c.decide(s, f, e, x)
		return
	}
	x.disposition = Retain
	c.settle(s, f, e, x)
}

// decide lets the hooks say what becomes of the outcome.
func (c *Cache[K, V]) decide(s *shard[K, V], f *flight[K, V], e *execution, x *ending[K, V]) {
	defer c.weigh(s, f, e, x)
	c.judge(f, e, x)
}

// findOut runs Reconcile for the held key of f, and fn after it if that is certain to have had no
// effect, unless the leader stays to run fn itself.
func (c *Cache[K, V]) findOut(s *shard[K, V], f *flight[K, V], through chan struct{}) {
	if through != nil {
		defer close(through)
	}
	held := c.entry(found[K, V]{&f.held.record, f.held})
	c.execute(s, f, &f.exec, func(ctx context.Context) (V, error) {
		return c.opts.Reconcile(ctx, f.key, held)
	}, nil)
	if !f.settled && through == nil {
		c.execute(s, f, f.next(), f.fn, nil)
	}
}

// next returns the execution of fn that follows that of Reconcile.
func (f *flight[K, V]) next() *execution {
	return &execution{leader: f.exec.leader, outer: f.exec.outer, first: &f.exec, clock: f.exec.clock}
}

// judge decides the disposition and takes the markers off the error.
func (c *Cache[K, V]) judge(f *flight[K, V], e *execution, x *ending[K, V]) {
	if x.err == nil {
		x.disposition = Retain
		return
	}
	err := x.err
	x.disposition, x.err = Hold, &unmarked{err} // should Classify or a method of err panic
	plain := func(err error) Disposition {
		switch {
		case e.reconciling || x.begun:
			return Hold
		case x.spoke:
			return Release
		}
		return sane(c.opts.Classify(err))
	}
	c.guard(func() {
		x.err = unmark(err)
		d, found := judge(err, plain)
		if !found {
			d = plain(err)
		}
		x.disposition = d
	}, c.panicked(f.key, &x.notes))
}

// panicked returns what to do when Classify or Weigh has failed.
func (c *Cache[K, V]) panicked(key K, notes *[]note[K]) func(error) {
	return func(err error) { c.note(notes, Event[K]{Kind: EventPanicked, Key: key, Err: err}) }
}

// weigh asks Weigh about an outcome that is to be retained.
func (c *Cache[K, V]) weigh(s *shard[K, V], f *flight[K, V], e *execution, x *ending[K, V]) {
	if c.opts.Weigh == nil || x.disposition != Retain || c.ttl(f, e) == 0 {
		return
	}
	yield.At("weigh")
	s.mu.Lock()
	forgotten := f.forgotten
	s.mu.Unlock()
	if !forgotten {
		x.weight = c.weightOf(f.key, x.value, &x.notes)
	}
}

func (c *Cache[K, V]) weightOf(key K, value V, notes *[]note[K]) (weight int64) {
	if c.opts.Weigh == nil {
		return 0
	}
	c.guard(func() { weight = max(c.opts.Weigh(key, value), 0) }, c.panicked(key, notes))
	return weight
}

// ttl returns how long an outcome of e is to be retained. WithTTL(0) is about sharing what fn
// returns; what Reconcile finds out is kept all the same.
func (c *Cache[K, V]) ttl(f *flight[K, V], e *execution) time.Duration {
	if f.ttl < 0 || e.reconciling && f.ttl == 0 {
		return c.opts.TTL
	}
	return f.ttl
}

// settle ends f: in one critical section it leaves pending, what is kept is put in, and its callers
// wake. If Reconcile found that there was no effect, f goes on with fn instead.
func (c *Cache[K, V]) settle(s *shard[K, V], f *flight[K, V], e *execution, x *ending[K, V]) {
	if e.reconciling && x.disposition == Release {
		yield.At("yielded")
		s.mu.Lock()
		s.stats.Releases++
		s.mu.Unlock()
		f.held = nil
		return
	}
	ttl := c.ttl(f, e)
	retain := c.lockWithWeight(s, x.weight, func() bool { return x.disposition == Retain && !f.forgotten && ttl > 0 }, &x.notes)
	if s.pending[f.key] != f {
		panic("idemflight: bug, please report it: a flight was not pending when it settled")
	}
	if x.disposition == Retain && !retain {
		x.disposition = Release
	}

	o := &f.outcome
	o.completed = x.at
	o.value, o.err, o.source = x.value, x.err, uint8(Executed)
	o.took, o.waiters, o.disposition = o.completed-e.started, f.waiters, uint8(x.disposition)
	if e.reconciling {
		o.source = uint8(Reconciled)
	} else {
		o.panicked = x.panicked
	}
	deadline := forever
	switch x.disposition {
	case Retain:
		deadline = c.retainLocked(s, f.key, f.fingerprint, e.started, nil, ttl, x)
		s.stats.Retains++
	case Hold:
		ttl = c.opts.HoldTTL
		deadline = c.holdLocked(s, f, e, x)
		s.stats.Holds++
	case Release:
		c.giveBack()
		s.stats.Releases++
		ttl = -1
	}
	if deadline != forever {
		o.expires = deadline
	}
	if deadline == forever && ttl >= 0 {
		o.times = &times{completed: c.wall(x.at), expires: after(c.wall(x.at), ttl)}
	}
	if !x.returned {
		s.stats.Panics++
	}
	c.landLocked(s, f)
	s.mu.Unlock()

	c.arm(deadline)
	c.disarm()
	yield.At("settled")
	if c.opts.Observer != nil {
		c.tell(f, e, x.notes)
	}
}

// tell emits notes and, if its leader left, the end of f.
func (c *Cache[K, V]) tell(f *flight[K, V], e *execution, notes []note[K]) {
	if f.leaderLeft {
		notes = append(notes, note[K]{e, f.ended(EventFinished)})
	}
	c.emit(notes)
}

// holdLocked holds the key of f for HoldTTL, and returns when that expires: anew with the error of x,
// or as it was held before, if Reconcile learned nothing.
func (c *Cache[K, V]) holdLocked(s *shard[K, V], f *flight[K, V], e *execution, x *ending[K, V]) time.Duration {
	o, r := &f.outcome, f.held
	if r == nil {
		r = newRecord[K, V](&c.clock, f.key, Held, x.err, f.fingerprint, e.started, x.at, c.opts.HoldTTL)
	} else {
		o.source, o.value = uint8(None), *new(V)
		r.expireAfter(&c.clock, x.at, c.opts.HoldTTL)
	}
	c.keepLocked(s, r, 0, &x.notes)
	o.err = &unknownError{x.err}
	return r.deadline
}

// landLocked takes f, whose outcome is set, out of pending, counts the calls that it answers, and
// wakes them.
func (c *Cache[K, V]) landLocked(s *shard[K, V], f *flight[K, V]) {
	delete(s.pending, f.key)
	if len(s.pending) == 0 && s.peak > smallTable {
		s.pending, s.peak = nil, 0
	}
	joined, led := &s.stats.Joined, &s.stats.Executed
	switch Source(f.outcome.source) {
	case Reconciled:
		led = &s.stats.Reconciled
	case None:
		joined, led = &s.stats.OutcomeUnknown, &s.stats.OutcomeUnknown
	}
	*joined += uint64(f.waiters)
	if !f.leaderLeft {
		*led++
	}
	s.waiters -= int(f.waiters)
	f.fn, f.held = nil, nil // callers that hold f must not keep them alive
	f.settled = true
	if f.done != nil {
		close(f.done)
	}
}

// retainLocked keeps what x ended with as the outcome of key for ttl, and returns when it expires.
// Its place is there, its weight has been taken. restored, if not nil, knows better when it started.
func (c *Cache[K, V]) retainLocked(s *shard[K, V], key K, fp Fingerprint, started time.Duration, restored *times, ttl time.Duration, x *ending[K, V]) time.Duration {
	deadline := deadlineOf(x.at, ttl)
	took, fits := tookOf(x.at - started)
	if fits && restored == nil && x.err == nil && fp == (Fingerprint{}) && x.weight == 0 && ttl == c.opts.TTL &&
		s.kept.fits(deadline) {
		r := &record[V]{value: x.value, deadline: deadline, took: took}
		r.flags.Store(c.next(0).seq << seqShift)
		if s.kept.addPlain(key, r) {
			s.publishLocked()
		}
		return deadline
	}
	r := newRecord[K, V](&c.clock, key, Retained, x.err, fp, started, x.at, ttl)
	r.value = x.value
	if restored != nil {
		at := c.wall(x.at)
		r.times = &times{restored.started, at, after(at, ttl)}
	}
	c.keepLocked(s, r, x.weight, &x.notes)
	return deadline
}

// keepLocked puts in r, whose place is there and whose weight has been taken: or sheds it at once
// if it alone is heavier than MaxWeight. Its turn is that of its completion, also if that is long
// ago: Protect looks only at the first.
func (c *Cache[K, V]) keepLocked(s *shard[K, V], r *fullRecord[K, V], weight int64, notes *[]note[K]) {
	r.turn = c.next(r.done)
	r.weight, r.worth = weight, turn{c.now(), r.turn.seq}
	if weight > c.opts.MaxWeight {
		r.state, r.value, r.weight = uint8(Shed), *new(V), 0
		c.noteShed(s, r.key, notes)
	}
	if s.kept.add(r) {
		s.publishLocked()
	}
}

// lockWithWeight locks s.mu and reports whether the weight is still wanted, which it asks with s.mu
// held; if so, it has been taken from MaxWeight, others having been shed until there was room. The
// caller must go by this answer and not ask again, since the clock goes on.
func (c *Cache[K, V]) lockWithWeight(s *shard[K, V], weight int64, wanted func() bool, notes *[]note[K]) bool {
	var began turn
	for searching := false; ; searching = true {
		yield.At("settle")
		s.mu.Lock()
		if !wanted() {
			return false
		}
		if weight == 0 || weight > c.opts.MaxWeight || c.takeWeight(weight) {
			return true
		}
		s.mu.Unlock()
		if !searching {
			began = c.beginning()
		}
		c.shedOne(began, notes)
	}
}

// Resolve settles a held key by hand, once someone has found out, and reports whether it did:
//
//	nil, Final(err)   the answer is known: value and err are retained for Options.TTL from now
//	Retryable(err)    it certainly had no effect: released, the next call runs fn
//	anything else     still unknown: stays held; false
//
// It acts on held keys only, and not while Reconcile runs: if two operators resolve one key, only one
// of them does it. It costs what settling an execution costs, and may ask Options.Weigh.
func (c *Cache[K, V]) Resolve(key K, value V, err error) bool {
	s := c.shardOf(c.hash(key))
	x := ending[K, V]{value: value}
	defer func() { c.emit(x.notes) }()

	d := Retain
	if err != nil {
		d = Hold
		c.guard(func() {
			if found, ok := judge(err, sureHold); ok {
				d = found
			}
			x.err = unmark(err)
		}, c.panicked(key, &x.notes))
	}
	if d == Hold {
		return false
	}
	yield.At("resolve")
	s.mu.Lock()
	held := c.heldLocked(s, key, &x.notes)
	s.mu.Unlock()
	if held == nil {
		return false
	}
	if d == Retain {
		x.weight = c.weightOf(key, value, &x.notes)
	}
	same := func() bool { return c.heldLocked(s, key, &x.notes) == held }
	if !c.lockWithWeight(s, x.weight, same, &x.notes) {
		s.mu.Unlock()
		return false
	}
	deadline := forever
	if d == Release {
		c.giveBack()
	}
	c.removeLocked(s, key, found[K, V]{&held.record, held})
	if d == Retain {
		x.at = c.nowToo()
		deadline = c.retainLocked(s, key, held.fingerprint, held.done-time.Duration(held.took), held.times, c.opts.TTL, &x)
	}
	s.mu.Unlock()
	c.arm(deadline)
	c.disarm()
	return true
}

func sureHold(error) Disposition { return Hold }

func (c *Cache[K, V]) heldLocked(s *shard[K, V], key K, notes *[]note[K]) *fullRecord[K, V] {
	if f := c.liveLocked(s, key, notes); f.record != nil && f.state() == Held {
		return f.full
	}
	return nil
}
