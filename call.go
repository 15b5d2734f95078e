package idemflight

import (
	"context"
	"time"

	"github.com/idemflight/idemflight/internal/yield"
)

// caller is what a call knows of itself before it takes a lock.
type caller struct {
	ctx    context.Context
	err    error      // ctx has ended already
	within *execution // innermost execution around the call
	stays  bool       // cannot leave: if it leads, it runs fn itself
}

// meeting is what a call met at its key, decided in one critical section.
type meeting[K comparable, V any] struct {
	flight *flight[K, V] // to wait for, or, with leads, to fly; nil if the call has its answer
	leads  bool

	result Result[V]
	err    error
	kind   EventKind

	notes []note[K]
}

// callValue is call for who wants no more than the value.
//
//go:noinline
func (c *Cache[K, V]) callValue(ctx context.Context, s *shard[K, V], key K, fn func(context.Context) (V, error), o *callOptions, puts uint32) (V, error) {
	r, err := c.call(ctx, s, key, fn, o, puts)
	return r.Value, err
}

// call is a call that its first look did not answer; puts is how many records s had been given then.
func (c *Cache[K, V]) call(ctx context.Context, s *shard[K, V], key K, fn func(context.Context) (V, error), o *callOptions, puts uint32) (res Result[V], err error) {
	if !validKey(c.traits, key) {
		c.invalidKeys.Add(1)
		c.observe(ctx, Event[K]{Kind: EventRejected, Key: key, Err: ErrInvalidKey})
		return res, ErrInvalidKey
	}
	me := callerOf(ctx, o.inline)
	m := c.meet(s, key, fn, &me, o, puts)
	if m.leads {
		return c.lead(s, m.flight, &me, m.notes)
	}
	c.emit(m.notes)
	if m.flight != nil {
		if err := c.join(ctx, s, m.flight, o.maxWait); err != nil {
			return res, err
		}
		return m.flight.outcome.result(&c.clock, Joined), m.flight.outcome.err
	}
	if m.kind == EventLeft {
		m.err = left(ctx, me.err)
	}
	c.observe(ctx, Event[K]{Kind: m.kind, Key: key, Err: m.err})
	return m.result, m.err
}

func callerOf(ctx context.Context, inline bool) caller {
	return caller{ctx: ctx, err: ctx.Err(), within: executionOf(ctx), stays: inline || ctx.Done() == nil}
}

// meet decides what the call meets: replays, rejects, joins or claims. It returns without a lock.
// puts is how many records s had been given when key was not among them.
func (c *Cache[K, V]) meet(s *shard[K, V], key K, fn func(context.Context) (V, error), me *caller, o *callOptions, puts uint32) (m meeting[K, V]) {
	none, upTo := false, uint32(0) // of the last search for room
	for {
		yield.At("meet")
		s.mu.Lock()
		mayLead := me.err == nil && !c.closed.Load()
		hasPlace := false
		var r found[K, V]
		if s.kept.puts != puts {
			r = s.kept.get(key)
		}
		if r.record != nil {
			if !r.expired(c.now()) {
				c.meetKeptLocked(s, key, r, fn, me, o, &m)
				break
			}
			if mayLead {
				hasPlace = true // that of the record passes to the flight
			} else {
				c.giveBack()
			}
			c.expireLocked(s, key, r, &m.notes)
		}
		if f := s.pending[key]; f != nil {
			c.meetFlightLocked(s, f, me, o, &m)
			break
		}
		if me.err != nil {
			s.stats.Left++
			m.kind = EventLeft
			break
		}
		if !mayLead {
			s.stats.Closed++
			m.kind, m.err = EventRejected, ErrClosed
			break
		}
		if hasPlace || c.takePlace() {
			c.claimLocked(s, key, fn, me, o, nil, &m)
			break
		}
		if none && upTo == c.seq.Load() { // nothing that may go has come since
			s.stats.Full++
			m.kind, m.err = EventRejected, ErrFull
			break
		}
		s.mu.Unlock()
		none, upTo = c.makeRoom(key, &m.notes)
	}
	s.mu.Unlock()
	return m
}

// meetKeptLocked answers a call that met r, unexpired; or claims a flight to find out about it.
func (c *Cache[K, V]) meetKeptLocked(s *shard[K, V], key K, r found[K, V], fn func(context.Context) (V, error), me *caller, o *callOptions, m *meeting[K, V]) {
	m.kind = EventRejected
	switch {
	case r.fingerprint() != o.fp:
		s.stats.KeyReused++
		m.err = ErrKeyReused
	case r.state() == Retained:
		r.use()
		s.stats.Replayed++
		c.result(r, &m.result)
		m.kind, m.err = EventReplayed, r.err()
	case r.state() == Shed:
		s.stats.ValueShed++
		m.err = ErrValueShed
	case c.opts.Reconcile == nil || me.err != nil || c.closed.Load():
		s.stats.OutcomeUnknown++
		m.err = &unknownError{r.err()}
	default:
		s.kept.remove(key, r) // its place passes to the flight
		s.publishLocked()
		c.claimLocked(s, key, fn, me, o, r.full, m)
	}
}

// meetFlightLocked joins f, or says why not.
func (c *Cache[K, V]) meetFlightLocked(s *shard[K, V], f *flight[K, V], me *caller, o *callOptions, m *meeting[K, V]) {
	m.kind = EventRejected
	switch {
	case me.within.inside(&f.exec):
		s.stats.Reentrant++
		m.err = ErrReentrant
	case f.fingerprint != o.fp:
		s.stats.KeyReused++
		m.err = ErrKeyReused
	case me.err != nil:
		s.stats.Left++
		m.kind = EventLeft
	case o.maxWait <= 0 || c.opts.MaxWaiters > 0 && int(f.waiters) >= c.opts.MaxWaiters:
		s.stats.NotWaited++
		m.err = ErrInFlight
	default:
		s.joinLocked(f)
		m.flight = f
	}
}

// joinLocked counts the caller among those that wait for f.
func (s *shard[K, V]) joinLocked(f *flight[K, V]) {
	f.waiters++
	s.waiters++
	if f.done == nil {
		f.done = make(chan struct{})
	}
}

// claimLocked publishes a flight of key with the call as its leader. The key has a place already.
func (c *Cache[K, V]) claimLocked(s *shard[K, V], key K, fn func(context.Context) (V, error), me *caller, o *callOptions, held *fullRecord[K, V], m *meeting[K, V]) {
	f := &flight[K, V]{key: key, fingerprint: o.fp, fn: fn, ttl: o.ttl, startedAt: c.now(), held: held}
	f.exec.leader, f.exec.outer = me.ctx, me.within
	f.exec.first, f.exec.clock = &f.exec, &c.clock
	f.exec.reconciling = held != nil
	if me.stays && held == nil {
		f.exec.started = f.startedAt
	}
	if !me.stays {
		f.done = make(chan struct{})
	}
	if s.pending == nil {
		s.pending = make(map[K]*flight[K, V])
	}
	s.pending[key] = f
	s.peak = max(s.peak, len(s.pending))
	m.flight, m.leads = f, true
}

// lead flies f, or has it flown, and returns its outcome to the leader. notes are told once f flies:
// the Observer may wait for it, or call runtime.Goexit.
func (c *Cache[K, V]) lead(s *shard[K, V], f *flight[K, V], me *caller, notes []note[K]) (Result[V], error) {
	switch {
	case f.held != nil: // Reconcile never runs on a caller's goroutine
		if !me.stays {
			go c.findOut(s, f, nil)
			break
		}
		through := make(chan struct{})
		go c.findOut(s, f, through)
		<-through
		if !f.settled { // there was no effect: fn is to run
			return c.leadInline(s, f, f.next(), me, notes)
		}
		c.emit(notes)
		return c.ledTo(f, me)
	case me.stays:
		return c.leadInline(s, f, &f.exec, me, notes)
	default:
		go c.fly(s, f)
	}
	c.emit(notes)
	if err := c.wait(me.ctx, s, f, true); err != nil {
		c.observe(me.ctx, Event[K]{Kind: EventLeft, Key: f.key, Err: err, Took: c.now() - f.startedAt})
		return Result[V]{}, err
	}
	return c.ledTo(f, me)
}

// leadInline runs fn on the calling goroutine. The deferred observation also tells of fn's Goexit.
func (c *Cache[K, V]) leadInline(s *shard[K, V], f *flight[K, V], e *execution, me *caller, notes []note[K]) (Result[V], error) {
	exits := true
	defer func() {
		if exits {
			c.observeLed(f, me)
		}
	}()
	c.execute(s, f, e, f.fn, notes)
	exits = false
	return c.ledTo(f, me)
}

// ledTo tells the leader, who is still there, the outcome of f: it panics if fn did.
func (c *Cache[K, V]) ledTo(f *flight[K, V], me *caller) (Result[V], error) {
	c.observeLed(f, me)
	if f.outcome.panicked != nil {
		panic(f.outcome.panicked)
	}
	return f.outcome.result(&c.clock, Source(f.outcome.source)), f.outcome.err
}

func (c *Cache[K, V]) observeLed(f *flight[K, V], me *caller) {
	switch Source(f.outcome.source) {
	case Executed:
		c.observe(me.ctx, f.ended(EventExecuted))
	case Reconciled:
		c.observe(me.ctx, f.ended(EventReconciled))
	default: // Reconcile learned nothing
		c.observe(me.ctx, Event[K]{Kind: EventRejected, Key: f.key, Err: f.outcome.err, Took: c.now() - f.startedAt})
	}
}

// joined is a call that joined f at its first look, before it asked ctx: it may have to leave again,
// because it is from within f, or its context has ended, or a method of that panics. If waits is
// true, it is to wait now, with no limit and nobody to tell; else, if err is nil, it has the outcome of f.
//
// A storm of callers comes on as many new goroutines: what they need to wait should fit into the
// stack that those begin with, also where the runtime has to allocate what it notes of the wait. So
// the wait itself is in Do, and what an Observer is told has a function of its own. (Measured: half
// the time of a storm.)
func (c *Cache[K, V]) joined(ctx context.Context, s *shard[K, V], f *flight[K, V], maxWait time.Duration) (waits bool, err error) {
	if err := c.ask(ctx, s, f); err != nil {
		return false, err
	}
	if c.opts.Observer != nil || maxWait != forever {
		return false, c.join(ctx, s, f, maxWait)
	}
	return true, nil
}

// ask asks ctx on behalf of a call that has joined f, and returns why it may not wait, having left f:
// also if a method of ctx panics. nil means that it may, or that f has settled.
//
//go:noinline
func (c *Cache[K, V]) ask(ctx context.Context, s *shard[K, V], f *flight[K, V]) error {
	asked := false
	defer func() {
		if !asked {
			c.leave(s, f, nil, false)
		}
	}()
	err, within := ctx.Err(), executionOf(ctx)
	asked = true
	if err == nil && within == nil {
		return nil
	}
	return c.refuse(ctx, s, f, err, within.inside(&f.exec))
}

// refuse lets a call that has joined f leave it again if it is from within f, or err ended its context.
func (c *Cache[K, V]) refuse(ctx context.Context, s *shard[K, V], f *flight[K, V], err error, inside bool) error {
	kind, as := EventRejected, &s.stats.Reentrant
	switch {
	case inside:
		err = ErrReentrant
	case err != nil:
		err, kind, as = left(ctx, err), EventLeft, &s.stats.Left
	default:
		return nil
	}
	if !c.leave(s, f, as, false) {
		return nil
	}
	c.observe(ctx, Event[K]{Kind: kind, Key: f.key, Err: err})
	return err
}

// join waits for f, which the call has joined. nil means that the call has the outcome of f.
func (c *Cache[K, V]) join(ctx context.Context, s *shard[K, V], f *flight[K, V], maxWait time.Duration) error {
	if c.opts.Observer == nil {
		return c.waitUpTo(ctx, s, f, maxWait)
	}
	since := c.now()
	err := c.waitUpTo(ctx, s, f, maxWait)
	e := Event[K]{Kind: EventJoined, Key: f.key, Err: err, Took: c.now() - since}
	switch {
	case err == nil:
		e.Err = f.outcome.err
		if Source(f.outcome.source) == None {
			e.Kind = EventRejected
		}
	case err == ErrInFlight:
		e.Kind = EventRejected
	default:
		e.Kind = EventLeft
	}
	c.observe(ctx, e)
	return err
}

// wait returns nil once f has settled, or the reason why the caller waits no longer. If both are
// there, the outcome wins.
func (c *Cache[K, V]) wait(ctx context.Context, s *shard[K, V], f *flight[K, V], leads bool) error {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return c.depart(ctx, s, f, true, leads)
	}
}

// waitUpTo is wait for a joined caller, which may have a bound.
func (c *Cache[K, V]) waitUpTo(ctx context.Context, s *shard[K, V], f *flight[K, V], maxWait time.Duration) error {
	if maxWait == forever {
		return c.wait(ctx, s, f, false)
	}
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return c.depart(ctx, s, f, true, false)
	case <-time.After(maxWait):
		return c.depart(ctx, s, f, ctx.Err() != nil, false)
	}
}

// depart is the end of a wait because the context of the caller has ended, if it leaves, or else
// because it has waited long enough: unless f has settled meanwhile.
func (c *Cache[K, V]) depart(ctx context.Context, s *shard[K, V], f *flight[K, V], leaves, leads bool) error {
	as := &s.stats.NotWaited
	if leaves {
		as = &s.stats.Left
	}
	switch {
	case !c.leave(s, f, as, leads):
		return nil
	case leaves:
		return left(ctx, ctx.Err())
	}
	return ErrInFlight
}

// leave takes a caller out of f and counts the call, unless f has settled, which has counted it then:
// it reports which.
func (c *Cache[K, V]) leave(s *shard[K, V], f *flight[K, V], as *uint64, leads bool) bool {
	yield.At("leave")
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.settled {
		return false
	}
	if leads {
		f.leaderLeft = true
	} else {
		f.waiters--
		s.waiters--
	}
	if as != nil {
		*as++
	}
	return true
}

// left returns the error of a call whose context has ended with err.
func left(ctx context.Context, err error) error {
	return &leftError{cause: unmark(context.Cause(ctx)), err: unmark(err)}
}
