package idemflight

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/idemflight/idemflight/internal/yield"
)

// With a Store, a flight first asks the store whether it may run, on a goroutine of its own:
//
//	         ┌───────────────── takeover, or a held key and Reconcile: another request
//	         ▼                                │
//	─────▶ asking ──granted──────▶ fly: fn runs, on the leader's goroutine or this one
//	         │ │ └──granted, held▶ Reconcile, and then perhaps fn
//	         │ └────in flight────▶ watching ──────▶ settled: joined, or look again
//	         └──────retained, held, reused, failed▶ settled
//
// All callers may leave while it asks or watches; fn does not start if the leader has left.
// Once it is decided that fn runs, the flight is like any other, except that it runs under a
// claim: BeginEffect is recorded, the lease is renewed, and the outcome is recorded before any
// caller hears of it.
//
// The types:
//
//	Claim     what the store is told: key and ID
//	claim     a Claim that was granted, and the execution under it
//	asking    what has to be known before a flight's fn runs: Reconcile's answer, and first the store's
//	claiming  the part of asking that only a Store needs; guarded by the shard's mu
//	inquiry   one run of claim, which asks: from its first request until fn or Reconcile runs, or the
//	          flight settles

// claim is the right to run an execution, and the one that follows it in its flight.
type claim struct {
	Claim
	env   env           // of the executions under it; env.claim is this one
	since time.Duration // when it was asked for

	// What the cache does for an execution, which does not know the cache's type parameters.
	begin func(context.Context) error
	seal  func(value any, err error) (Settlement, error)

	// Guarded by the mu of the execution that runs.
	lost    bool // another process has taken the key over
	settles bool // Settling was called
	begins  int  // calls of BeginEffect that ask the store
	abort   context.CancelCauseFunc

	exec *execution // the one that runs; guarded by the keeper's mu
}

// claiming is how far a flight has got with the store before fn may run. It is written with
// the shard's mu held.
type claiming struct {
	decided    chan struct{} // closed once the key is known to be in flight, or the flight settles
	isDecided  bool
	reconciles bool   // it was decided to ask Reconcile
	watches    bool   // it waits for an execution in another process
	leaderLeft bool   // when that was decided, because it may not wait
	stopWatch  func() // ends the wait
	noWait     bool   // the leader may not wait
}

func newClaiming(noWait bool) *claiming {
	return &claiming{decided: make(chan struct{}), noWait: noWait}
}

func (cl *claiming) decideLocked() {
	if cl != nil && !cl.isDecided {
		cl.isDecided = true
		close(cl.decided)
	}
}

// undecided reports whether f is still asking the store, so that its key may turn out not to be in
// flight at all. Must be called with the shard's mu held.
func (f *flight[K, V]) undecided() bool {
	return f.asks != nil && f.asks.claiming != nil && !f.asks.claiming.isDecided
}

// unwatchLocked ends the wait for another process if nobody waits with f any more.
func (f *flight[K, V]) unwatchLocked() {
	if f.waiters == 0 && f.leaderLeft && f.asks != nil && f.asks.claiming != nil && f.asks.claiming.watches {
		f.asks.claiming.stopWatch()
	}
}

// awaitDecision waits until it is known whether the key that the call met is in flight, or until
// the call's context ends.
func (m *call[K, V]) awaitDecision() {
	if m.reply.opts.inline {
		m.reply.ended = m.ctx.Done()
	}
	select {
	case <-m.undecided:
	case <-m.reply.ended:
	}
}

// inquiry is a flight's question to the store, while it is being asked.
type inquiry[K comparable, V any] struct {
	c      *Cache[K, V]
	s      *shard[K, V]
	flight *flight[K, V]
	asks   *asking[K, V]
	ctx    context.Context // the leader's values
	key    string
	since  time.Duration // when the last request was sent

	operated bool // Cache.Reconcile leads (flight.operated changes when its caller leaves)
	over     bool // the flight has settled, or an execution will settle it
}

// tooOften is how many times in a row a store may neither grant a claim nor say what is in its way.
const tooOften = 100

// claim asks the store on behalf of f, and goes on from there.
func (c *Cache[K, V]) claim(f *flight[K, V], notes []note[K]) {
	q := inquiry[K, V]{
		c: c, s: c.shardOf(f.hash), flight: f, asks: f.asks, ctx: context.WithoutCancel(f.exec.leader), operated: f.fn == nil,
	}
	defer func() {
		if !q.over { // the Store, the Codec or the Observer has called runtime.Goexit
			q.reject(&storeError{ErrGoexit})
		}
		c.emit(notes)
	}()
	var err error
	if q.key, err = c.keeper.encodeKey(f.key); err != nil {
		q.reject(err)
		return
	}
	if o := c.keeper.offered(q.key); o != nil {
		q.reject(q.unrecorded(o))
		return
	}
	r := ClaimRequest{Fingerprint: f.fingerprint}
	if q.operated && !q.replaceHeld(&r) {
		return
	}
	for range tooOften {
		standing, err := q.ask(&r)
		switch {
		case errors.Is(err, ErrClaimLost): // the answer came too late
		case err != nil:
			q.reject(err)
			return
		case standing.Granted:
			q.granted(&r, standing)
			return
		case q.operated:
			if !q.replaceHeld(&r) {
				return
			}
		case !q.refused(&r, standing):
			return
		}
	}
	q.reject(&storeError{errors.New("it does not grant the claim of a key that it says is absent")})
}

// ask sends r with an ID of its own.
func (q *inquiry[K, V]) ask(r *ClaimRequest) (Standing, error) {
	q.since = q.c.now()
	return q.c.request(q.ctx, q.flight.key, q.key, r)
}

// request asks the store for a claim of key, whose text is given, and fills r in.
//
// A grant that comes more than a lease after r was sent is given back, and the error is
// ErrClaimLost: it may be the second grant of this ID. (The answer to the first was lost; its lease
// ended; another process replaced it and released the key; then a repeat of r found the key free. A
// late copy of the request by which that process replaced the first grant would now replace the
// second, although an effect may have begun under it.)
func (c *Cache[K, V]) request(ctx context.Context, key K, text string, r *ClaimRequest) (standing Standing, err error) {
	r.Claim = Claim{text, newClaimID()}
	r.Lease, r.HoldTTL, r.EffectsAnnounced = c.opts.Lease, c.opts.HoldTTL, c.opts.EffectsAnnounced
	sent := c.now()
	known := false // what became of the request
	defer func() {
		if !known {
			c.keeper.giveBackLater(r.Claim)
		}
	}()
	yield.At("claim")
	err = c.patiently(ctx, key, min(patience, c.opts.Lease), func(ctx context.Context) error {
		standing, err = c.opts.Store.Claim(ctx, *r)
		return err
	})
	if err == nil && standing.Granted && c.now()-sent >= c.opts.Lease {
		given := c.patiently(ctx, key, patience, func(ctx context.Context) error { return c.opts.Store.GiveBack(ctx, r.Claim) })
		known = given == nil
		return standing, ErrClaimLost
	}
	known = err == nil || errors.Is(err, ErrInvalidKey)
	return standing, err
}

// unrecorded returns the answer to a call whose key has an outcome that the store has not taken.
func (q *inquiry[K, V]) unrecorded(o *offer[K]) error {
	if o.fingerprint != q.flight.fingerprint && !q.operated {
		return ErrKeyReused
	}
	now := q.c.syncWall()
	return &unknownError{cause: o.err, why: unrecorded, since: q.c.wall(o.at), until: q.c.wall(now + q.c.opts.Lease)}
}

// replaceHeld reads the key for Cache.Reconcile and makes r the request that replaces its hold. If
// it is not held, it rejects the flight and reports false.
func (q *inquiry[K, V]) replaceHeld(r *ClaimRequest) bool {
	standing, err := q.c.read(q.ctx, q.flight.key, q.key)
	switch {
	case err != nil:
		q.reject(err)
		return false
	case standing.State != Held:
		q.reject(notHeld(standing.State))
		return false
	}
	*r = ClaimRequest{Fingerprint: standing.Fingerprint, Replaces: standing.ID, From: Held, Reconcile: true}
	q.s.mu.Lock()
	q.flight.fingerprint = standing.Fingerprint
	q.s.mu.Unlock()
	return true
}

// refused deals with what is in the way of a claim. It reports whether to ask again,
// with r as it then is.
func (q *inquiry[K, V]) refused(r *ClaimRequest, standing Standing) (again bool) {
	c, f := q.c, q.flight
	*r = ClaimRequest{Fingerprint: f.fingerprint}
	switch {
	case standing.State == Absent:
		return true
	case standing.free():
		r.Replaces, r.From = standing.ID, InFlight
		return true
	case standing.State == InFlight && standing.ExpiresIn == 0: // a store that keeps to Store.Read has said so itself
		standing.State = Held
	}
	switch {
	case standing.Fingerprint != f.fingerprint:
		q.reject(ErrKeyReused)
	case standing.State == InFlight:
		q.watch(standing)
	case standing.State == Retained:
		q.land(standing, Replayed)
	case c.opts.Reconcile == nil || c.closed.Load():
		q.reject(c.unknownAs(standing))
	default:
		if err := c.keeper.paused(standing.ID); err != nil {
			q.reject(err)
			return false
		}
		r.Replaces, r.From, r.Reconcile = standing.ID, Held, true
		return true
	}
	return false
}

// granted goes on with what the store has granted.
func (q *inquiry[K, V]) granted(r *ClaimRequest, standing Standing) {
	c, f := q.c, q.flight
	cl := c.newClaim(f, r.Claim, q.since)
	switch {
	case standing.State != Held:
	case !r.Reconcile: // fn must not run
		c.keeper.giveBackLater(r.Claim)
		q.reject(&storeError{errors.New("it granted the claim of a held key to a call that did not ask to reconcile it")})
		return
	default:
		q.reconcile(cl, standing)
		return
	}
	next := &execution{leader: f.exec.leader, outer: f.exec.outer, first: &f.exec, env: &cl.env, stays: q.asks.stays}
	yield.At("granted")
	q.s.mu.Lock()
	if f.leaderLeft { // it has nobody's fn to run
		q.s.mu.Unlock()
		q.releaseUnused(cl)
		if q.operated {
			q.reject(notHeld(Absent))
		} else {
			q.lookAgain()
		}
		return
	}
	q.over = true
	f.exec.env = &cl.env
	f.forgotten = false // from here on the store tells
	f.asks, q.asks.next = nil, next
	q.asks.claiming.decideLocked()
	close(q.asks.answered)
	q.s.mu.Unlock()
	if !next.stays {
		c.execute(f, next, f.fn, nil)
	}
}

// releaseUnused releases a claim under which nothing ran. If the store cannot be
// asked, the lease ends.
func (q *inquiry[K, V]) releaseUnused(cl *claim) {
	_ = q.c.settleClaim(q.ctx, q.flight.key, cl.Claim, Settlement{Disposition: Release}, patience)
}

// settleClaim settles a claim under which no execution ran. If the store does not
// answer, it is given back.
func (c *Cache[K, V]) settleClaim(ctx context.Context, key K, granted Claim, s Settlement, upTo time.Duration) error {
	answered := false
	defer func() { // even if the store calls runtime.Goexit
		if !answered {
			c.keeper.giveBackLater(granted)
		}
	}()
	err := c.patiently(ctx, key, upTo, func(ctx context.Context) error {
		_, err := c.opts.Store.Settle(ctx, granted, s)
		return err
	})
	answered = !errors.Is(err, ErrStore)
	return err
}

// reconcile runs Options.Reconcile for the hold that was granted, and after it fn, if there was no
// effect and fn does not run on the leader's goroutine.
func (q *inquiry[K, V]) reconcile(cl *claim, standing Standing) {
	c, f, asks := q.c, q.flight, q.asks
	held, err := c.entryOf(standing, q.since)
	if err != nil {
		held.Err = err // an error that cannot be decoded need not stop anybody from finding out
	}
	q.s.mu.Lock()
	f.exec.env, f.exec.reconciling = &cl.env, true
	asks.claiming.reconciles, f.forgotten = true, false
	q.inFlightLocked()
	q.s.mu.Unlock()
	asks.held = c.record(&draft[K, V]{
		key: f.key, state: Held, err: held.Err, fingerprint: standing.Fingerprint, origin: held.Origin, deadline: forever,
		times: &times{held.StartedAt, held.CompletedAt, held.ExpiresAt, c.ahead.Load()},
	})
	q.over = true
	defer func() { // even if the Observer calls runtime.Goexit
		if asks.next != nil && !asks.next.stays {
			c.execute(f, asks.next, f.fn, nil)
		}
	}()
	c.execute(f, &f.exec, func(ctx context.Context) (V, error) { return c.opts.Reconcile(ctx, f.key, held) }, nil)
}

// inFlightLocked notes that the key is in flight, here with Reconcile or elsewhere. A leader that
// may not wait for that leaves now.
func (q *inquiry[K, V]) inFlightLocked() {
	cl := q.asks.claiming
	if cl.noWait && !q.flight.leaderLeft {
		q.flight.leaderLeft, cl.leaderLeft = true, true
		q.s.stats.NotWaited++
	}
	cl.decideLocked()
}

// watch waits for an execution in another process.
func (q *inquiry[K, V]) watch(standing Standing) {
	c, f := q.c, q.flight
	ctx, stop := context.WithCancel(q.ctx)
	defer stop()
	q.s.mu.Lock()
	q.asks.claiming.watches, q.asks.claiming.stopWatch = true, stop
	q.inFlightLocked()
	f.unwatchLocked()
	q.s.mu.Unlock()
	for pause := firstPause; ; pause = nextPause(pause) {
		yield.At("watch")
		err := contained(func() error { return c.opts.Store.Watch(ctx, Claim{q.key, standing.ID}) })
		if err == nil && ctx.Err() == nil {
			q.since = c.now()
			if standing, err = c.read(ctx, f.key, q.key); err == nil {
				switch {
				case standing.State == Retained && standing.Fingerprint == f.fingerprint:
					q.land(standing, Joined)
					return
				case standing.State != InFlight || standing.ExpiresIn == 0 || standing.Fingerprint != f.fingerprint:
					q.lookAgain()
					return
				}
			}
		} else if ctx.Err() == nil {
			c.storeFailed(f.key, err)
		}
		if ctx.Err() != nil {
			q.lookAgain()
			return
		}
		if err == nil { // Watch returned too early
			pause = firstPause
		}
		rest(ctx, pause)
	}
}

// lookAgain settles the flight so that its callers look at the key again.
func (q *inquiry[K, V]) lookAgain() { q.settle(lookAgain, nil) }

// reject settles the flight without an outcome: its callers get err.
func (q *inquiry[K, V]) reject(err error) { q.settle(uint8(NoOutcome), err) }

func (q *inquiry[K, V]) settle(source uint8, err error) {
	without := q.s.stats.without(err)
	yield.At("settle")
	q.s.mu.Lock()
	q.flight.outcome.source, q.flight.outcome.err = source, err
	q.takeOutLocked()
	q.c.returnPlace()
	q.s.wakeLocked(q.flight, without)
	q.s.mu.Unlock()
	q.c.disarm()
}

// land settles the flight with the retained outcome of another flight.
func (q *inquiry[K, V]) land(standing Standing, source Source) {
	c, f := q.c, q.flight
	e, err := c.entryOf(standing, q.since)
	if err != nil {
		q.reject(&storeError{fmt.Errorf("its record cannot be read: %w", err)})
		return
	}
	d := c.copyOf(f.key, f.hash, e, standing, q.since)
	var notes []note[K]
	defer func() { q.landAs(e, source, d, notes) }() // even if Weigh calls runtime.Goexit
	if d != nil {
		d.weight = c.weightOf(f.key, e.Value, &notes)
	}
}

// landAs is land once the outcome has been weighed; d, if not nil, is to be kept.
func (q *inquiry[K, V]) landAs(e Entry[V], source Source, d *draft[K, V], notes []note[K]) {
	c, f := q.c, q.flight
	yield.At("settle")
	q.s.mu.Lock()
	if d != nil && (f.forgotten || d.weight > c.opts.MaxWeight) {
		d = nil
	}
	if d != nil {
		c.takeWeightLocked(q.s, d.weight, &notes)
	}
	o := &f.outcome
	o.value, o.err, o.source, o.completed = e.Value, e.Err, uint8(source), q.since
	o.rare = &rare{foreign: &times{e.StartedAt, e.CompletedAt, e.ExpiresAt, c.ahead.Load()}}
	o.disposition = uint8(Retain)
	f.exec.env = &env{clock: &c.clock, origin: e.Origin}
	q.takeOutLocked()
	deadline := forever
	switch {
	case d == nil:
		c.returnPlace()
	case f.forgotten: // while it waited for weight
		c.returnWeight(d.weight)
		c.returnPlace()
	default:
		deadline = d.deadline
		c.keepLocked(q.s, d, &notes)
	}
	q.s.wakeLocked(f, nil) // last: a caller that is answered finds the copy, and no place too many
	q.s.mu.Unlock()
	c.arm(deadline)
	c.disarm()
	c.emit(notes)
}

// takeOutLocked takes the flight out of its shard's: it settles.
func (q *inquiry[K, V]) takeOutLocked() {
	f := q.flight
	q.over = true
	f.outcome.waiters = f.waiters
	if !q.s.flights.remove(f) {
		q.s.mu.Unlock()
		panic("idemflight: bug, please report it: a flight was not there when the store had answered")
	}
}

// copyOf returns the draft of a copy of an outcome that the store has; nil if no
// copy is to be kept.
func (c *Cache[K, V]) copyOf(key K, hash uint64, e Entry[V], standing Standing, at time.Duration) *draft[K, V] {
	keep := c.opts.LocalTTL
	if standing.ExpiresIn >= 0 {
		keep = min(keep, standing.ExpiresIn)
	}
	if keep <= 0 {
		return nil
	}
	return &draft[K, V]{
		key: key, hash: uint32(hash), state: Retained, value: e.Value, err: e.Err, fingerprint: e.Fingerprint,
		origin: e.Origin, started: at, done: at, deadline: deadlineOf(at, keep),
		times: &times{e.StartedAt, e.CompletedAt, e.ExpiresAt, c.ahead.Load()},
	}
}

// entryOf returns what the store knows as an Entry; at is when it was asked, from which
// ExpiresIn is counted.
func (c *Cache[K, V]) entryOf(s Standing, at time.Duration) (e Entry[V], err error) {
	e = Entry[V]{State: s.State, Fingerprint: s.Fingerprint, StartedAt: s.StartedAt}
	if s.State == InFlight {
		return e, nil
	}
	e.CompletedAt = s.CompletedAt
	if s.ExpiresIn >= 0 {
		c.syncWall()
		e.ExpiresAt = c.wall(at).Add(s.ExpiresIn)
	}
	codec := &c.keeper.codec
	c.guard(func() {
		if s.State == Retained {
			if e.Value, err = codec.DecodeValue(s.Value); err != nil {
				return
			}
		}
		if s.State == Held {
			e.Origin, e.Err, _, err = codec.decodeHeld(s.Err)
		} else {
			e.Origin, e.Err, err = codec.decodeOutcome(s.Err)
		}
	}, func(panicked error) { err = panicked })
	return e, err
}

// unknownAs returns the answer to a call whose key the store has as held.
func (c *Cache[K, V]) unknownAs(s Standing) error {
	_, held, reason, err := c.keeper.codec.decodeHeld(s.Err)
	if err != nil {
		held, reason = err, restored
	}
	e := &unknownError{cause: held, why: reason, since: s.CompletedAt}
	if s.ExpiresIn >= 0 {
		e.until = time.Now().Add(s.ExpiresIn)
	}
	return e
}

// newClaim returns what was granted, and asked for at since, as the claim of the executions of f.
func (c *Cache[K, V]) newClaim(f *flight[K, V], granted Claim, since time.Duration) *claim {
	cl := &claim{Claim: granted, since: since, env: env{clock: &c.clock}}
	cl.env.claim = cl
	cl.begin = func(ctx context.Context) error {
		return c.patiently(ctx, f.key, patience, func(ctx context.Context) error {
			return c.opts.Store.Begin(ctx, cl.Claim, c.opts.Lease)
		})
	}
	cl.seal = func(value any, err error) (Settlement, error) { return c.seal(f, value, err) }
	return cl
}

// seal returns the settlement by which a store records an outcome of f in the
// user's own transaction.
func (c *Cache[K, V]) seal(f *flight[K, V], value any, err error) (Settlement, error) {
	v, ok := value.(V)
	if !ok && value != nil {
		return Settlement{}, fmt.Errorf("idemflight: the outcome to be recorded has a value of type %T, and the cache has %T", value, v)
	}
	cause := err
	if err != nil {
		d := Hold
		c.guard(func() {
			if found, marked := markedAs(err, always(Hold)); marked {
				d = found
			}
			cause = unmark(err)
		}, nil)
		if d != Retain {
			return Settlement{}, fmt.Errorf("idemflight: the outcome to be recorded must be nil or Final(err): roll back, and return %w from fn", cause)
		}
	}
	ttl := f.ttl
	if ttl < 0 {
		ttl = c.opts.TTL
	}
	return c.keeper.retaining(v, cause, c.originOf(c.shardOf(f.hash), f), ttl)
}

// Settling is for implementers of a [Store] that can record an outcome in the user's own
// transaction, together with the effect. It returns the claim under which the execution of ctx
// runs, and the outcome as it is to be recorded. Users call what their store offers for it
// (SettleTx), inside fn.
//
// err must be nil or marked by [Final]; anything else is an error, and so is a value that is not of
// the cache's type V. [ErrNotExecuting]: ctx belongs to no running execution of a cache with a
// Store. [ErrClaimLost]: another process has taken the key over. It counts as [NoEffect] at the top
// of fn does: either the transaction commits and the record shows it, or it did nothing.
func Settling(ctx context.Context, value any, err error) (Claim, Settlement, error) {
	e := executionOf(ctx)
	if e == nil {
		return Claim{}, Settlement{}, ErrNotExecuting
	}
	cl := e.env.claim
	if cl == nil {
		return Claim{}, Settlement{}, errNoClaim
	}
	e.mu.Lock()
	over, lost := e.phase != running, cl.lost
	if !over {
		cl.settles = true
		e.last = max(e.last, noEffect)
	}
	e.mu.Unlock()
	switch {
	case over:
		return Claim{}, Settlement{}, ErrNotExecuting
	case lost:
		return Claim{}, Settlement{}, ErrClaimLost
	}
	s, err := cl.seal(value, err)
	return cl.Claim, s, err
}

// newClaimID returns a random ID, which nothing else in the world has.
func newClaimID() (id ClaimID) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}
