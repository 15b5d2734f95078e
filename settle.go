package idemflight

import (
	"context"
	"errors"
	"time"

	"github.com/idemflight/idemflight/internal/verdict"
	"github.com/idemflight/idemflight/internal/yield"
)

// ending is the end of one execution, step by step:
//
//	fn ──▶ judge ──▶ weigh ──▶ settle
//	                     └───▶ yieldToFn  (Reconcile found that there was no effect)
//
// The first three are or call user code, which may panic (each panic is contained) or call
// runtime.Goexit: then the remaining steps run deferred, on a goroutine that is about to exit, so
// that nobody is stranded.
type ending[K comparable, V any] struct {
	c      *Cache[K, V]
	flight *flight[K, V]
	exec   *execution
	ctx    context.Context // fn's

	// How fn ended, and when, on the cache's clock.
	value    V
	err      error       // fn's, with its markers until judge has heeded them
	panicked *PanicError // with its stack; err is the same panic without it
	returned bool        // neither panic nor Goexit
	at       time.Duration
	said     said

	// What becomes of the outcome.
	disposition Disposition
	nobodysFn   bool          // Reconcile says that fn may run, but the leader has left
	why         why           // it is held, if it is
	forgotten   bool          // the store says that it is not to be retained
	unheld      bool          // the store has not recorded the hold
	adopted     bool          // the store had an outcome already
	expires     time.Duration // when that expires; it may have by now
	lost        bool          // the claim was lost before anything began: nothing is to be recorded
	weight      int64
	notes       []note[K] // events to report once the flight has settled

	// With Trace.
	origin  *Origin
	traced  func(Event[K]) // what it returned, to be called at the end
	yielded bool           // Reconcile has yielded to fn
	waiters int32          // when it did
}

// execute runs one execution of f to its end: then f has settled or, if that was
// Reconcile, fn may be next.
//
// settle delivers notes. An inline leader reports its evictions after fn, not before, because the
// Observer may call the cache and wait for this flight.
func (c *Cache[K, V]) execute(f *flight[K, V], e *execution, fn func(context.Context) (V, error),
	notes []note[K]) {
	end := ending[K, V]{c: c, flight: f, exec: e, ctx: e, notes: notes}
	yield.At("execute")
	defer func() { // even if fn panics or calls runtime.Goexit
		if !end.returned {
			end.caught(recover())
		}
		end.at = c.now()
		end.said = e.end(end.at)
		if end.traced != nil {
			defer end.traceEnds() // even if the Observer calls runtime.Goexit
		}
		end.finish()
		if end.panicked != nil && e.stays {
			panic(end.panicked) // with fn's frames still on the stack, for a recover outside
		}
	}()
	e.start(c.opts.ExecTimeout)
	if cl := e.env.claim; cl != nil {
		c.keeper.runs(cl, e)
	}
	if c.opts.Trace != nil {
		end.ctx = end.trace()
	}
	end.value, end.err = fn(end.ctx)
	end.returned = true
}

// caught notes how fn ended if it did not return: by a panic with v or, if v is nil, by
// runtime.Goexit.
func (end *ending[K, V]) caught(v any) {
	if v == nil {
		end.err = ErrGoexit
		return
	}
	end.panicked = newPanicError(v)
	end.err = end.panicked.withoutStack()
}

// fly executes f on a goroutine of its own.
func (c *Cache[K, V]) fly(f *flight[K, V]) {
	growStack(0)
	c.execute(f, &f.exec, f.fn, nil)
}

// growStack grows a new goroutine's stack to 8 KiB while it is nearly empty and cheap to copy;
// settle would outgrow the initial 2 KiB anyway. (Measured: a sixth of a first execution.)
//
//go:noinline
func growStack(i int) byte {
	var room [3 << 10]byte
	return room[i]
}

// reconcile runs Options.Reconcile for the held key of f, on a goroutine of its own, and then fn,
// if there was no effect and fn is not to run on the leader's goroutine.
func (c *Cache[K, V]) reconcile(f *flight[K, V], notes []note[K]) {
	asks := f.asks
	held := c.entry(asks.held)
	defer func() { // even if the Observer calls runtime.Goexit
		if asks.next != nil && !asks.next.stays {
			c.execute(f, asks.next, f.fn, nil)
		}
	}()
	c.execute(f, &f.exec, func(ctx context.Context) (V, error) {
		return c.opts.Reconcile(ctx, f.key, held)
	}, notes)
}

// finish judges, weighs and settles. Each step is deferred by the one before it, so that it runs
// even if a hook calls runtime.Goexit.
func (end *ending[K, V]) finish() {
	if end.err == nil && end.c.opts.Weigh == nil { // the usual case: no user code is called
		end.disposition = Retain
		end.settle()
		return
	}
	defer end.yieldOrSettle()
	defer end.weigh()
	end.judge()
}

// yieldOrSettle goes on with fn after Reconcile, or ends the flight.
func (end *ending[K, V]) yieldOrSettle() {
	yields := false
	defer func() { // even if the store or the Observer calls runtime.Goexit
		if yields {
			end.c.emit(end.notes)
		} else {
			end.settle()
		}
	}()
	yields = end.exec.reconciling && end.disposition == Release && end.recordsBegin() && end.yieldToFn()
}

// judge decides the disposition and takes the markers off the error.
func (end *ending[K, V]) judge() {
	if end.err == nil {
		end.disposition = Retain
		return
	}
	err := end.err
	end.disposition, end.err = Hold, &unmarked{err} // in case Classify or a method of err panics
	if end.why = end.whyHeld(); end.why == unsaid { // until it is known that nothing bears a marker
		end.why = unsaidInPart
	}
	end.c.guard(func() {
		end.err = unmark(err)
		d, found := markedAs(err, end.classify)
		if !found {
			end.why = end.whyHeld()
			d = end.classify(err)
		} else if byMarkers, _ := markedAs(err, always(Release)); byMarkers == Hold && !end.exec.reconciling {
			end.why = markedUnknown
		}
		end.disposition = d
	}, end.c.notePanic(end.flight.key, &end.notes))
}

// whyHeld returns why an error without a marker is held, if it is.
func (end *ending[K, V]) whyHeld() why {
	switch {
	case end.exec.reconciling:
		return learnedNothing
	case end.said == effectBegun && end.panicked != nil:
		return panickedAfterBegin
	case end.said == effectBegun:
		return failedAfterBegin
	case end.panicked != nil:
		return panickedUnsaid
	}
	return unsaid
}

// classify judges an error without a marker.
func (end *ending[K, V]) classify(err error) Disposition {
	switch {
	case end.exec.reconciling || end.said == effectBegun:
		return Hold
	case end.said == noEffect || end.c.opts.EffectsAnnounced:
		return Release
	}
	if own, ok := err.(*verdict.Error); ok {
		switch {
		case own.Retain:
			return Retain
		case own.Hold:
			return Hold
		}
		return Release
	}
	if end.c.opts.Classify == nil {
		return Hold
	}
	if end.exec.phase == overLate && err != context.DeadlineExceeded {
		err = &lateError{err}
	}
	return sane(end.c.opts.Classify(err))
}

// weigh asks Weigh about an outcome that is to be retained.
func (end *ending[K, V]) weigh() {
	c, f := end.c, end.flight
	if c.opts.Weigh == nil || end.disposition != Retain || end.ttl() == 0 {
		return
	}
	yield.At("weigh")
	s := c.shardOf(f.hash)
	s.mu.Lock()
	forgotten := f.forgotten
	s.mu.Unlock()
	if !forgotten {
		end.weight = c.weightOf(f.key, end.value, &end.notes)
	}
}

// ttl returns how long the outcome is to be retained. WithTTL(0) is about sharing what fn returns;
// what Reconcile finds out is kept all the same.
func (end *ending[K, V]) ttl() time.Duration {
	ttl := end.flight.ttl
	if ttl < 0 || end.exec.reconciling && ttl == 0 {
		return end.c.opts.TTL
	}
	return ttl
}

// keeps returns for how long after its end the outcome is retained; negative: without end.
func (end *ending[K, V]) keeps() time.Duration {
	switch {
	case !end.adopted:
		return end.ttl()
	case end.expires == forever:
		return -1
	}
	return max(end.expires-end.at, 0)
}

// retains reports whether the outcome is to be retained. Must be called with the shard's mu held.
func (end *ending[K, V]) retains() bool {
	forgotten := end.flight.forgotten
	if end.c.keeper != nil { // the store tells; flight.forgotten is about the copy
		forgotten = end.forgotten
	}
	return end.disposition == Retain && !forgotten && end.ttl() > 0
}

// recordsBegin notes in the store, if there is one, that fn, which is to run under Reconcile's
// claim, may have its effect from now on. It reports false if fn must not run.
func (end *ending[K, V]) recordsBegin() bool {
	f, cl := end.flight, end.exec.env.claim
	if cl == nil {
		return true
	}
	s := end.c.shardOf(f.hash)
	s.mu.Lock()
	end.nobodysFn = f.leaderLeft
	s.mu.Unlock()
	if end.nobodysFn {
		return false
	}
	answered := false
	defer func() {
		if !answered {
			end.hold(unrecorded, &storeError{ErrGoexit})
		}
	}()
	err := cl.begin(context.WithoutCancel(f.exec.leader))
	answered = true
	switch {
	case err == nil:
		return true
	case errors.Is(err, ErrStore):
		end.hold(unrecorded, err)
	default:
		end.lost, end.nobodysFn = true, true
	}
	return false
}

// yieldToFn ends Reconcile, which found that there was no effect: the flight goes on with fn. It
// reports false if the leader has left: then there is no fn to run.
func (end *ending[K, V]) yieldToFn() bool {
	f := end.flight
	s := end.c.shardOf(f.hash)
	asks := f.asks
	next := &execution{leader: f.exec.leader, outer: f.exec.outer, first: &f.exec, env: f.exec.env, stays: asks.stays}
	yield.At("yielded")
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.leaderLeft {
		end.nobodysFn = true
		return false
	}
	s.stats.Releases++
	end.yielded, end.waiters = true, f.waiters
	f.asks, asks.next = nil, next
	close(asks.answered)
	return true
}

// settle ends the flight: in one critical section it leaves the shard's flights, what is kept is
// inserted, and its callers wake.
func (end *ending[K, V]) settle() {
	if cl := end.exec.env.claim; cl != nil {
		defer end.land() // even if user code calls runtime.Goexit
		end.record(cl)
		return
	}
	end.land()
}

// land is settle once the store, if there is one, has recorded the outcome.
func (end *ending[K, V]) land() {
	c, f := end.c, end.flight
	s := c.shardOf(f.hash)
	yield.At("settle")
	s.mu.Lock()
	if !end.retains() {
		end.weight = 0
	}
	c.takeWeightLocked(s, end.weight, &end.notes) // may unlock mu meanwhile
	if !s.flights.remove(f) {
		s.mu.Unlock()
		panic("idemflight: bug, please report it: a flight was not there when it settled")
	}
	if end.disposition == Retain && !end.retains() { // WithTTL(0); or forgotten, perhaps while mu was unlocked
		end.disposition = Release
		c.returnWeight(end.weight)
	}
	deadline := end.landLocked(s)
	s.mu.Unlock()

	c.arm(deadline)
	c.disarm()
	yield.At("settled")
	if c.opts.Observer != nil {
		end.report()
	}
}

// landLocked keeps what is to be kept and gives the flight's callers its outcome. The flight is no
// longer among those of s. It returns when the record expires.
func (end *ending[K, V]) landLocked(s *shard[K, V]) (deadline time.Duration) {
	c, f, o := end.c, end.flight, &end.flight.outcome
	o.value, o.err, o.completed, o.source = end.value, end.err, end.at, uint8(Executed)
	o.took, o.waiters, o.disposition, o.lost = end.at-end.exec.started, f.waiters, uint8(end.disposition), end.lost
	switch {
	case end.exec.reconciling:
		o.source = uint8(Reconciled)
	case end.panicked != nil:
		o.rare = &rare{panicked: end.panicked}
	case end.unannounced():
		s.stats.Unannounced++
	}
	d := draft[K, V]{
		key: f.key, hash: uint32(f.hash), err: end.err, fingerprint: f.fingerprint,
		started: end.exec.started, done: end.at, deadline: forever, origin: f.origin(),
	}
	switch end.disposition {
	case Retain:
		s.stats.Retains++
		d.state, d.value, d.weight = Retained, end.value, end.weight
		d.expireAfter(&c.clock, end.at, end.keeps())
		if c.keeper != nil {
			o.expires = d.deadline
			d.deadline = end.copyLocked(s, &d)
			break
		}
		c.keepLocked(s, &d, &end.notes)
	case Hold:
		end.holdLocked(s, &d)
	case Release:
		s.stats.Releases++
		c.returnPlace()
		if end.nobodysFn {
			o.source, o.value = lookAgain, *new(V)
		}
	}
	switch {
	case o.expires != 0: // with a Store, whose copy ends earlier
	case d.deadline != forever:
		o.expires = d.deadline
	case !d.expiry.IsZero():
		if o.rare == nil {
			o.rare = new(rare)
		}
		o.expiry = d.expiry
	}
	if !end.returned {
		s.stats.Panics++
	}
	s.wakeLocked(f, &s.stats.OutcomeUnknown)
	return d.deadline
}

// holdLocked holds the key as d, and makes [ErrOutcomeUnknown] the answer to the flight's callers.
// If Reconcile ran, it learned nothing, and there is no outcome.
func (end *ending[K, V]) holdLocked(s *shard[K, V], d *draft[K, V]) {
	c, f, o := end.c, end.flight, &end.flight.outcome
	s.stats.Holds++
	d.state, d.why = Held, end.why
	d.expireAfter(&c.clock, end.at, c.opts.HoldTTL)
	switch {
	case c.keeper != nil: // the store keeps it
		c.returnPlace()
		o.err = end.unknown()
	case !end.exec.reconciling:
		c.keepLocked(s, d, &end.notes)
		c.syncWall()
		o.err = &unknownError{cause: end.err, why: end.why, until: after(c.wall(end.at), c.opts.HoldTTL)}
	default:
		c.holdAgainLocked(s, f.asks.held, d)
		o.err = c.unknown(f.asks.held, end.at)
	}
	if end.exec.reconciling {
		o.source, o.value = uint8(NoOutcome), *new(V)
	}
}

// wakeLocked counts the calls that the outcome of f answers, and wakes them. without counts those
// that get an error and no outcome: see Stats.without, which must not be called with mu held.
func (s *shard[K, V]) wakeLocked(f *flight[K, V], without *uint64) {
	joined, led := &s.stats.Joined, &s.stats.Executed
	switch f.outcome.source {
	case uint8(Reconciled):
		led = &s.stats.Reconciled
	case uint8(Replayed):
		led = &s.stats.Replayed
	case uint8(Joined):
		led = &s.stats.Joined
	case uint8(NoOutcome):
		led, joined = without, without
	case lookAgain:
		joined = new(uint64) // their calls are not over,
		led = joined         // nor is the leader's, if it has not left
	}
	*joined += uint64(f.waiters)
	if !f.leaderLeft {
		*led++
	}
	s.waiters -= int(f.waiters)
	f.settled = true
	if f.asks != nil {
		f.asks.claiming.decideLocked()
		close(f.asks.answered)
	}
	if f.done != nil {
		close(f.done)
	}
	f.fn, f.asks = nil, nil // callers that hold f must not keep them alive
}

// without returns the count of the calls that got err and no outcome. It calls methods of err,
// which may be the user's.
func (s *Stats) without(err error) *uint64 {
	if _, failed := err.(*storeError); failed { // whatever the store wrapped in it
		return &s.StoreFailed
	}
	switch {
	case errors.Is(err, ErrOutcomeUnknown):
		return &s.OutcomeUnknown
	case errors.Is(err, ErrKeyReused):
		return &s.KeyReused
	case errors.Is(err, ErrInvalidKey):
		return &s.InvalidKey
	}
	return &s.StoreFailed
}

// unannounced reports whether fn may have had an effect without announcing it as it should have.
func (end *ending[K, V]) unannounced() bool {
	return end.c.opts.EffectsAnnounced && end.err == nil && end.said == nothing && !end.exec.reconciling
}

// report delivers the notes and, if its leader left, the end of the flight.
func (end *ending[K, V]) report() {
	f := end.flight
	if end.unannounced() {
		end.notes = append(end.notes, note[K]{end.ctx, Event[K]{Kind: EventUnannounced, Key: f.key, Origin: f.origin()}})
	}
	switch {
	case f.operated == byOperatorWhoLeft && !f.outcome.lost:
		end.notes = append(end.notes, note[K]{f.exec.leader, f.ended(EventResolved)})
	case f.leaderLeft && f.operated == byCall:
		end.notes = append(end.notes, note[K]{end.ctx, f.ended(EventFinished)})
	}
	end.c.emit(end.notes)
}
