package idemflight

import (
	"context"

	"github.com/idemflight/idemflight/internal/yield"
)

// call is a call that its first look did not answer: what it brings, and what it meets at its key.
type call[K comparable, V any] struct {
	c     *Cache[K, V]
	shard *shard[K, V] // of key
	key   K
	fn    func(context.Context) (V, error)
	ctx   context.Context
	reply reply[K, V] // a value: as a pointer it would make that of a replay escape, too

	// What ctx says, asked before a lock is taken.
	ctxErr error      // ctx has ended already
	within *execution // innermost execution around the call
	stays  bool       // it cannot abandon the wait (Inline, or ctx never ends): as leader it runs fn itself

	// What it met, decided in one critical section. Without a flight the reply is there.
	flight *flight[K, V] // to wait for or, with leads, to fly
	leads  bool
	kind   EventKind
	notes  []note[K]
}

// meet answers a call that its first look did not answer.
//
// It must not be inlined: its frame would be part of Do's, and a caller that only joins would no
// longer fit into the stack of a new goroutine. (Measured: a third of a storm.)
//
//go:noinline
func (c *Cache[K, V]) meet(ctx context.Context, key K, fn func(context.Context) (V, error), r *reply[K, V]) {
	if !validKey(c.traits, key) {
		r.err = ErrInvalidKey
		c.invalidKeys.Add(1)
		c.observe(ctx, Event[K]{Kind: EventRejected, Key: key, Err: r.err})
		return
	}
	m := call[K, V]{c: c, shard: c.shardOf(r.hash), key: key, fn: fn, ctx: ctx, reply: *r}
	m.ctxErr, m.within, m.stays = ctx.Err(), executionOf(ctx), r.opts.inline || ctx.Done() == nil
	m.decide()
	switch {
	case m.leads:
		m.lead()
	case m.flight != nil:
		m.follow()
	default:
		c.emit(m.notes)
		if m.kind == EventCallerLeft {
			m.reply.err = left(ctx, m.ctxErr)
		}
		c.observe(ctx, Event[K]{Kind: m.kind, Key: key, Err: m.reply.err})
	}
	*r = m.reply
}

// decide looks at the key with mu held, and makes room without it, until it is decided what becomes
// of the call: it replays, is rejected, joins or claims.
func (m *call[K, V]) decide() {
	c, s := m.c, m.shard
	exhausted, asOf := false, uint32(0) // the last makeRoom found nothing, as of this insertion
	for {
		yield.At("meet")
		s.mu.Lock()
		if m.decideLocked(exhausted && asOf == c.seq.Load()) {
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		exhausted, asOf = c.makeRoom(m.key, m.reply.hash, &m.notes)
	}
}

// decideLocked reports whether the call is decided; if not, it needs a place, and there is none.
// full says that there is nothing to evict either.
func (m *call[K, V]) decideLocked(full bool) bool {
	c, s := m.c, m.shard
	mayLead := m.ctxErr == nil && !c.closed.Load()
	hasPlace := false
	if r := s.kept.get(m.reply.hash, m.key); r != nil {
		if !r.expired(c.now()) {
			m.meetKeptLocked(r)
			return true
		}
		if hasPlace = mayLead; !hasPlace { // otherwise the record's place passes to the flight
			c.returnPlace()
		}
		c.expireLocked(s, r, &m.notes)
	}
	if f := s.flights.get(m.reply.hash, m.key); f != nil {
		m.meetFlightLocked(f)
		return true
	}
	switch {
	case m.ctxErr != nil:
		m.leaveLocked()
	case !mayLead:
		m.rejectLocked(&s.stats.Closed, ErrClosed)
	case hasPlace || c.takePlace():
		m.claimLocked(nil)
	case full:
		m.rejectLocked(&s.stats.Full, ErrFull)
	default:
		return false
	}
	return true
}

// rejectLocked ends the call without an outcome, and counts it under as.
func (m *call[K, V]) rejectLocked(as *uint64, err error) {
	*as++
	m.kind, m.reply.err = EventRejected, err
}

// leaveLocked ends the call because its context has ended; its error is made without the lock.
func (m *call[K, V]) leaveLocked() {
	m.shard.stats.CallerLeft++
	m.kind = EventCallerLeft
}

// meetKeptLocked answers a call that met r, unexpired; or claims a flight to find out about it.
func (m *call[K, V]) meetKeptLocked(r *record[K, V]) {
	s := m.shard
	switch {
	case r.fingerprint() != m.reply.opts.fingerprint:
		m.rejectLocked(&s.stats.KeyReused, ErrKeyReused)
	case r.state() == Retained:
		s.stats.Replayed++
		m.kind = EventReplayed
		r.use()
		m.reply.replay(r)
	case r.state() == Shed:
		m.rejectLocked(&s.stats.ValueShed, ErrValueShed)
	case m.c.opts.Reconcile == nil || m.ctxErr != nil || m.c.closed.Load():
		m.rejectLocked(&s.stats.OutcomeUnknown, &unknownError{r.err()})
	default:
		m.c.removeLocked(s, r) // its place passes to the flight
		m.claimLocked(r)
	}
}

// meetFlightLocked joins f, or says why not.
func (m *call[K, V]) meetFlightLocked(f *flight[K, V]) {
	s, maxWaiters := m.shard, m.c.opts.MaxWaiters
	switch {
	case m.within.inside(&f.exec):
		m.rejectLocked(&s.stats.Reentrant, ErrReentrant)
	case f.fingerprint != m.reply.opts.fingerprint:
		m.rejectLocked(&s.stats.KeyReused, ErrKeyReused)
	case m.ctxErr != nil:
		m.leaveLocked()
	case m.reply.opts.maxWait <= 0 || maxWaiters > 0 && int(f.waiters) >= maxWaiters:
		m.rejectLocked(&s.stats.NotWaited, ErrInFlight)
	default:
		s.joinLocked(f)
		m.flight = f
	}
}

// claimLocked publishes a flight of the key with the call as its leader. The key has a place
// already. held, if not nil, is the record that Reconcile is to be asked about first.
func (m *call[K, V]) claimLocked(held *record[K, V]) {
	o := &m.reply.opts
	f := &flight[K, V]{
		key: m.key, hash: m.reply.hash, fingerprint: o.fingerprint, ttl: o.ttl, startedAt: m.c.now(),
		fn: m.fn, held: held,
	}
	f.exec.leader, f.exec.outer = m.ctx, m.within
	f.exec.first, f.exec.clock = &f.exec, &m.c.clock
	f.exec.reconciling = held != nil
	if m.stays && held == nil {
		f.exec.started = f.startedAt
	}
	if !m.stays {
		f.done = make(chan struct{})
	}
	m.shard.flights.add(f)
	m.flight, m.leads = f, true
}

// follow waits for the flight that the call has joined.
func (m *call[K, V]) follow() {
	m.fn = nil // it is not needed while the call waits
	m.c.emit(m.notes)
	m.reply.err = m.c.join(m.ctx, m.shard, m.flight, m.reply.opts.maxWait)
	if m.reply.err == nil {
		m.reply.share(m.flight, Joined)
	}
}

// lead runs the flight, here or on a new goroutine, and replies with its outcome. Pending events are
// delivered only once it has started, because the Observer may wait for it or call runtime.Goexit.
func (m *call[K, V]) lead() {
	c, s, f := m.c, m.shard, m.flight
	switch {
	case m.stays && f.held == nil:
		m.leadInline(&f.exec)
		return
	case m.stays: // Reconcile never runs on a caller's goroutine; fn, if it follows, runs on this one
		next := make(chan *execution)
		go func() {
			defer close(next) // even if Reconcile called runtime.Goexit
			if e := c.reconcile(f); e != nil {
				next <- e
			}
		}()
		if e := <-next; e != nil {
			m.leadInline(e)
			return
		}
		c.emit(m.notes)
		m.led()
		return
	case f.held == nil:
		go c.fly(f)
	default:
		go func() {
			if e := c.reconcile(f); e != nil {
				c.execute(f, e, f.fn, nil)
			}
		}()
	}
	c.emit(m.notes)
	if err := c.wait(m.ctx, s, f, leader); err != nil {
		m.reply.err = err
		c.observe(m.ctx, Event[K]{Kind: EventCallerLeft, Key: f.key, Err: err, Took: c.now() - f.startedAt})
		return
	}
	m.led()
}

// leadInline runs fn on the calling goroutine. The deferred observation also reports fn's Goexit.
func (m *call[K, V]) leadInline(e *execution) {
	exits := true
	defer func() {
		if exits {
			m.observeLed()
		}
	}()
	m.c.execute(m.flight, e, m.flight.fn, m.notes)
	exits = false
	m.led()
}

// led replies to the leader, which is still there, with the outcome of its flight: it panics if fn
// did.
func (m *call[K, V]) led() {
	m.observeLed()
	o := &m.flight.outcome
	if o.rare != nil && o.panicked != nil {
		panic(o.panicked)
	}
	m.reply.share(m.flight, Source(o.source))
}

func (m *call[K, V]) observeLed() {
	f := m.flight
	switch Source(f.outcome.source) {
	case Executed:
		m.c.observe(m.ctx, f.ended(EventExecuted))
	case Reconciled:
		m.c.observe(m.ctx, f.ended(EventReconciled))
	default: // Reconcile learned nothing
		took := m.c.now() - f.startedAt
		m.c.observe(m.ctx, Event[K]{Kind: EventRejected, Key: f.key, Err: f.outcome.err, Took: took})
	}
}
