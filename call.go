package idemflight

import (
	"context"
	"time"
	"unsafe"

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
	stays  bool       // it cannot abandon fn (Inline, or ctx never ends): as leader it runs fn itself

	// What it met, decided in one critical section. A flight in reply is to be waited for or,
	// with leads, to be led. With undecided, the call waits for that and looks again. Otherwise
	// the reply is there.
	leads        bool
	undecided    chan struct{} // closed once it is known whether the key is in flight
	mayMeetAgain bool          // it has joined a flight that may end without an outcome
	wait         waitClock     // when it began to wait
	kind         EventKind     // of the event that reports the reply
	origin       *Origin       // of what it met, for that event
	notes        []note[K]     // of upkeep on the way, to be delivered without the lock
}

// meet answers a call that its first look did not answer.
//
// It must not be inlined: its frame would be part of Do's, and a caller that only joins would no
// longer fit into the stack of a new goroutine. (Measured: a third of a storm.)
//
//go:noinline
func (c *Cache[K, V]) meet(ctx context.Context, key K, fn func(context.Context) (V, error), r *reply[K, V]) {
	if err := checkKey(&c.traits, key); err != nil {
		r.err = err
		c.invalidKeys.Add(1)
		c.observe(ctx, Event[K]{Kind: EventRejected, Key: key, Err: r.err})
		return
	}
	m := call[K, V]{c: c, shard: c.shardOf(r.hash), key: key, fn: fn, ctx: ctx, reply: *r}
	m.within, m.stays = executionOf(ctx), r.opts.inline
	if !m.stays { // otherwise it is asked only if the call has to wait: Done may allocate
		m.reply.ended = ctx.Done()
		m.stays = m.reply.ended == nil
	}
	for over := false; !over; {
		m.ctxErr, m.leads, m.undecided = ctx.Err(), false, nil
		m.decide()
		switch {
		case m.leads:
			over = m.lead()
		case m.undecided != nil:
			m.awaitDecision()
		case m.reply.flight != nil:
			over = m.follow()
		default:
			m.refuse()
			over = true
		}
	}
	*r = m.reply
}

// refuse answers a call that is neither to wait nor to lead, with what decide has found.
func (m *call[K, V]) refuse() {
	m.c.emit(m.notes)
	switch {
	case m.kind == EventCallerLeft:
		m.reply.err = left(m.ctx, m.ctxErr)
	case m.reply.err == ErrFull:
		m.reply.err = m.c.full()
	}
	m.c.observe(m.ctx, Event[K]{Kind: m.kind, Key: m.key, Err: m.reply.err, Took: m.waited(), Origin: m.origin})
}

// waited returns how long the call has waited: since it joined a flight at first, or
// since it leads one.
func (m *call[K, V]) waited() time.Duration {
	switch {
	case m.wait.has:
		return m.c.now() - m.wait.began
	case m.reply.flight != nil:
		return m.c.now() - m.reply.flight.startedAt
	}
	return 0
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
	m.origin = r.origin()
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
	default:
		now := m.c.now()
		if m.c.opts.Reconcile == nil || m.ctxErr != nil || m.c.closed.Load() || !r.more.pause.over(now) {
			m.rejectLocked(&s.stats.OutcomeUnknown, m.c.unknown(r, now))
			return
		}
		m.c.removeLocked(s, r) // its place passes to the flight
		m.claimLocked(r)
	}
}

// meetFlightLocked joins f, or says why not.
func (m *call[K, V]) meetFlightLocked(f *flight[K, V]) {
	s, maxWaiters := m.shard, m.c.opts.MaxWaiters
	m.origin = f.origin()
	switch {
	case m.within.inside(&f.exec):
		m.rejectLocked(&s.stats.Reentrant, ErrReentrant)
	case f.operated != byCall && f.undecided(): // its fingerprint is not known yet
		if m.ctxErr != nil {
			m.leaveLocked()
			return
		}
		m.undecided = f.asks.claiming.decided
	case f.fingerprint != m.reply.opts.fingerprint && (m.ctxErr != nil || !f.undecided()):
		m.rejectLocked(&s.stats.KeyReused, ErrKeyReused)
	case m.ctxErr != nil:
		m.leaveLocked()
	case f.fingerprint != m.reply.opts.fingerprint:
		m.undecided = f.asks.claiming.decided
	case m.reply.opts.maxWait <= 0 && f.undecided(): // as a leader that may not wait
		m.undecided = f.asks.claiming.decided
	case m.reply.opts.maxWait <= 0:
		m.rejectLocked(&s.stats.NotWaited, errMayNotWait)
	case maxWaiters > 0 && int(f.waiters) >= maxWaiters:
		m.rejectLocked(&s.stats.NotWaited, errManyWait)
	default:
		s.joinLocked(f)
		m.reply.flight, m.mayMeetAgain = f, f.asks != nil
	}
}

// claimLocked publishes a flight of the key with the call as its leader. The key has a place
// already. held, if not nil, is the record that Reconcile is to be asked about first.
func (m *call[K, V]) claimLocked(held *record[K, V]) {
	o := &m.reply.opts
	f := &flight[K, V]{
		hash: m.reply.hash, fingerprint: o.fingerprint, ttl: o.ttl, startedAt: m.c.now(), fn: m.fn,
	}
	f.exec.leader, f.exec.outer = m.ctx, m.within
	f.exec.first, f.exec.env = &f.exec, &m.c.env
	if m.c.opts.Trace != nil {
		f.exec.env = &env{clock: &m.c.clock}
	}
	if held == nil {
		f.key = m.key
		m.c.traits.copyText(unsafe.Pointer(&f.key))
	}
	switch {
	case m.c.keeper != nil:
		f.asks = &asking[K, V]{stays: m.stays, answered: make(chan struct{}), claiming: newClaiming(o.maxWait <= 0)}
	case held != nil:
		f.key, f.exec.reconciling = held.key, true
		f.asks = &asking[K, V]{held: held, stays: m.stays, answered: make(chan struct{})}
	default:
		f.exec.stays = m.stays
		if m.stays {
			f.exec.started = f.startedAt
		}
	}
	if !m.stays {
		f.done = make(chan struct{})
	}
	m.shard.flights.add(f)
	m.reply.flight, m.leads = f, true
}

// follow waits for the flight that the call has joined. It reports false if the flight ended
// without an outcome and without an fn to run: then the call meets its key again.
func (m *call[K, V]) follow() (over bool) {
	c, r := m.c, &m.reply
	if !m.mayMeetAgain {
		m.fn = nil // it is not needed while the call waits
	}
	c.emit(m.notes)
	m.notes = nil
	if r.opts.inline {
		r.ended, r.err = c.checkContext(m.ctx, m.shard, r.flight)
	}
	if r.err == nil {
		r.err = c.join(m.ctx, m.shard, r, &m.wait)
	}
	switch {
	case r.err != nil:
	case r.flight.outcome.source == lookAgain:
		r.flight = nil
		return false
	default:
		r.share(r.flight, Joined)
	}
	return true
}

// lead runs the flight, here or on a new goroutine, and replies with its outcome. It reports false
// if there is none and the call has to look at its key again. Pending events are delivered only
// once the flight has started, because the Observer may wait for it or call runtime.Goexit.
func (m *call[K, V]) lead() (over bool) {
	c, s, f := m.c, m.shard, m.reply.flight
	asks := f.asks
	switch {
	case asks != nil: // Reconcile never runs on a caller's goroutine
		m.startAsking()
		switch {
		case !m.waitForAnswer(asks):
			return true
		case asks.next == nil && f.outcome.source == lookAgain:
			m.reply.flight = nil
			return false
		case asks.next == nil:
			m.led()
			return true
		case m.stays:
			m.leadInline(asks.next)
			return true
		}
	case m.stays:
		m.leadInline(&f.exec)
		return true
	default:
		go c.fly(f)
		c.emit(m.notes)
	}
	if err := c.wait(m.ctx, s, &m.reply, leader); err != nil {
		m.reply.err = err
		c.observe(m.ctx, Event[K]{Kind: EventCallerLeft, Key: f.key, Err: err, Took: m.waited(), Origin: c.originOf(s, f), Led: true})
		return true
	}
	m.led()
	return true
}

// startAsking has the store, or Reconcile, asked on another goroutine. That goroutine delivers the
// pending events once it has an answer, because the Observer may not return, and this call is still
// needed. Before it starts, a call that may not wait for Reconcile has left, as has one whose Done
// panics (an inline leader asks for Done only here).
func (m *call[K, V]) startAsking() {
	f, notes := m.reply.flight, m.notes
	m.notes = nil
	asked := false
	defer func() {
		if !asked {
			m.c.leaveAnswer(m.shard, f, &m.shard.stats.CallerLeft)
		}
		if f.asks.claiming != nil {
			go m.c.claim(f, notes)
		} else {
			go m.c.reconcile(f, notes)
		}
	}()
	if m.reply.opts.inline {
		m.reply.ended = m.ctx.Done()
	}
	asked = true
	if m.reply.opts.maxWait <= 0 && f.asks.claiming == nil {
		m.c.leaveAnswer(m.shard, f, &m.shard.stats.NotWaited)
	}
}

// leadInline runs fn on the calling goroutine. The deferred observation also reports its panic or
// Goexit.
func (m *call[K, V]) leadInline(e *execution) {
	exits := true
	defer func() {
		if exits {
			m.observeLed()
		}
	}()
	m.c.execute(m.reply.flight, e, m.fn, m.notes)
	exits = false
	m.led()
}

// led replies to the leader, which is still there, with the outcome of its flight.
// It panics if fn did.
func (m *call[K, V]) led() {
	m.observeLed()
	o := &m.reply.flight.outcome
	if o.rare != nil && o.panicked != nil {
		panic(o.panicked)
	}
	m.reply.share(m.reply.flight, Source(o.source))
}

func (m *call[K, V]) observeLed() {
	if m.c.opts.Observer == nil {
		return
	}
	f := m.reply.flight
	e := Event[K]{Key: f.key, Err: f.outcome.err, Took: m.waited(), Origin: f.origin()}
	switch Source(f.outcome.source) {
	case Executed:
		e = f.ended(EventExecuted)
	case Reconciled:
		e = f.ended(EventReconciled)
	case Replayed:
		e.Kind, e.Took = EventReplayed, 0
	case Joined:
		e.Kind = EventJoined
	default: // Reconcile learned nothing, or the store says no
		e.Kind = EventRejected
	}
	e.Led = true
	m.c.observe(m.ctx, e)
}
