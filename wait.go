package idemflight

import (
	"context"
	"fmt"
	"time"

	"github.com/idemflight/idemflight/internal/yield"
)

// role is what a waiting caller is to its flight.
type role uint8

const (
	joined role = iota // it waits on a flight that it did not start
	leader
)

// joinLocked counts a caller among those that wait for f.
func (s *shard[K, V]) joinLocked(f *flight[K, V]) {
	f.waiters++
	s.waiters++
	if f.done == nil {
		f.done = make(chan struct{})
	}
}

// checkContext asks ctx on behalf of a caller that has joined f at its first look. Without an error
// the caller may wait, or f has settled. Otherwise the caller has left f again, and the error says
// why: the call comes from within f, or ctx has ended. It leaves f even if a method of ctx panics.
//
//go:noinline
func (c *Cache[K, V]) checkContext(ctx context.Context, s *shard[K, V], f *flight[K, V]) (ended <-chan struct{}, err error) {
	asked := false
	defer func() {
		if !asked {
			c.leave(s, f, joined, nil)
		}
	}()
	ended, err = ctx.Done(), ctx.Err()
	switch within := executionOf(ctx); {
	case err == nil && within == nil: // mostly
	case within.inside(&f.exec):
		err = ErrReentrant
	case err != nil:
		err = left(ctx, err)
	}
	asked = true
	if err == nil {
		return ended, nil
	}
	return ended, c.withdraw(ctx, s, f, err)
}

// withdraw takes a caller that may not wait, for the reason err, out of f, and returns err; or nil
// if f has settled meanwhile.
func (c *Cache[K, V]) withdraw(ctx context.Context, s *shard[K, V], f *flight[K, V], err error) error {
	kind, as := EventCallerLeft, &s.stats.CallerLeft
	if err == ErrReentrant {
		kind, as = EventRejected, &s.stats.Reentrant
	}
	if !c.leave(s, f, joined, as) {
		return nil
	}
	c.observe(ctx, Event[K]{Kind: kind, Key: f.key, Err: err, Origin: c.originOf(s, f)})
	return err
}

// join waits for r.flight, which the caller has joined, and reports the call to the Observer. It
// returns nil if the caller gets the outcome of the flight.
func (c *Cache[K, V]) join(ctx context.Context, s *shard[K, V], r *reply[K, V], w *waitClock) error {
	f := r.flight
	if c.opts.Observer == nil {
		return c.waitUpTo(ctx, s, r, w)
	}
	w.begins(c.now())
	err := c.waitUpTo(ctx, s, r, w)
	e := Event[K]{Kind: EventJoined, Key: f.key, Err: err, Took: c.now() - w.began, Origin: c.originOf(s, f)}
	switch {
	case err == nil && f.outcome.source == lookAgain:
		return nil // the call is not over
	case err == nil:
		e.Err = f.outcome.err
		if Source(f.outcome.source) == NoOutcome {
			e.Kind = EventRejected
		}
	case err == errWaited:
		e.Kind = EventRejected
	default:
		e.Kind = EventCallerLeft
	}
	c.observe(ctx, e)
	return err
}

// joinOnce is join for a call that will not wait again. A function of its own, it keeps what is
// rare out of await's frame.
//
//go:noinline
func (c *Cache[K, V]) joinOnce(ctx context.Context, s *shard[K, V], r *reply[K, V]) error {
	var w waitClock
	return c.join(ctx, s, r, &w)
}

// waitClock is when a call began to wait: when it first joined a flight, or led one
// that asks Reconcile.
type waitClock struct {
	has   bool
	began time.Duration
}

// begins notes that the call begins to wait. Only the first time counts.
func (w *waitClock) begins(now time.Duration) {
	if !w.has {
		w.has, w.began = true, now
	}
}

// wait returns nil once r.flight has settled, or the error of a caller whose context ended before.
func (c *Cache[K, V]) wait(ctx context.Context, s *shard[K, V], r *reply[K, V], as role) error {
	select {
	case <-r.flight.done:
		return nil
	case <-r.ended:
		return c.abandon(ctx, s, r.flight, as)
	}
}

// waitUpTo is wait for a joined caller, which may have a time limit.
func (c *Cache[K, V]) waitUpTo(ctx context.Context, s *shard[K, V], r *reply[K, V], w *waitClock) error {
	if r.opts.maxWait == forever {
		return c.wait(ctx, s, r, joined)
	}
	select {
	case <-r.flight.done:
		return nil
	case <-r.ended:
		return c.abandon(ctx, s, r.flight, joined)
	case <-time.After(c.mayWait(r, w)):
	}
	select {
	case <-r.ended:
		return c.abandon(ctx, s, r.flight, joined)
	default:
	}
	if !c.leave(s, r.flight, joined, &s.stats.NotWaited) {
		return nil
	}
	return errWaited
}

// mayWait returns how long a call with a time limit may wait from now on. The limit counts from its
// first wait, even if it looks at its key again.
func (c *Cache[K, V]) mayWait(r *reply[K, V], w *waitClock) time.Duration {
	w.begins(c.now())
	return r.opts.maxWait - (c.now() - w.began)
}

// waitForAnswer waits, as the leader, until it is known whether fn runs, and reports whether the
// leader is still there. If not, its context has ended or it may wait no longer, and fn does not
// start. It waits for the store's answer without a limit; for Reconcile, and for an execution in
// another process, it waits as a joined caller does.
func (m *call[K, V]) waitForAnswer(asks *asking[K, V]) bool {
	r := &m.reply
	mayNotWait := r.opts.maxWait <= 0 // and has left already: see startAsking
	if asks.claiming != nil {
		select {
		case <-asks.claiming.decided:
			mayNotWait = asks.claiming.leaderLeft
		case <-r.ended:
			return !m.leavesAnswer(asks, EventCallerLeft)
		}
	}
	if mayNotWait {
		r.err = errMayNotWait
		m.c.observe(m.ctx, Event[K]{Kind: EventRejected, Key: r.flight.key, Err: r.err, Origin: m.c.originOf(m.shard, r.flight), Led: true})
		return false
	}
	var limit <-chan time.Time
	if r.opts.maxWait != forever && r.opts.maxWait > 0 {
		limit = time.After(m.c.mayWait(r, &m.wait))
	}
	select {
	case <-asks.answered:
		return true
	case <-r.ended:
		return !m.leavesAnswer(asks, EventCallerLeft)
	case <-limit:
		return !m.leavesAnswer(asks, EventRejected)
	}
}

// leavesAnswer withdraws the leader, which waits no longer, and replies. It reports false, and does
// nothing, if the answer came first.
func (m *call[K, V]) leavesAnswer(asks *asking[K, V], kind EventKind) bool {
	r, counter := &m.reply, &m.shard.stats.CallerLeft
	if kind == EventRejected {
		counter = &m.shard.stats.NotWaited
	}
	if !m.c.leaveAnswer(m.shard, r.flight, counter) {
		<-asks.answered
		if asks.claiming == nil || !asks.claiming.leaderLeft {
			return false
		}
	}
	switch {
	case asks.claiming != nil && asks.claiming.leaderLeft: // it may not wait, and was counted
		kind, r.err = EventRejected, errMayNotWait
	case kind == EventCallerLeft:
		r.err = left(m.ctx, m.ctx.Err())
	default:
		r.err = errWaited
	}
	m.c.observe(m.ctx, Event[K]{Kind: kind, Key: r.flight.key, Err: r.err, Took: m.waited(), Origin: m.c.originOf(m.shard, r.flight), Led: true})
	return true
}

// leaveAnswer removes the leader from f and counts it under counter, unless that was done already.
// It reports false if fn runs or f has settled.
func (c *Cache[K, V]) leaveAnswer(s *shard[K, V], f *flight[K, V], counter *uint64) bool {
	yield.At("leave")
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.asks == nil {
		return false
	}
	if !f.leaderLeft {
		f.leaderLeft = true
		f.unwatchLocked()
		*counter++
	}
	return true
}

// abandon ends a wait because ctx has ended. If f has settled meanwhile the outcome wins, and it
// returns nil.
func (c *Cache[K, V]) abandon(ctx context.Context, s *shard[K, V], f *flight[K, V], as role) error {
	if !c.leave(s, f, as, &s.stats.CallerLeft) {
		return nil
	}
	return left(ctx, ctx.Err())
}

// leave removes a caller from f and counts the call under counter, unless that is nil. It reports
// false, and does nothing, if f has settled: settle has counted the caller.
func (c *Cache[K, V]) leave(s *shard[K, V], f *flight[K, V], as role, counter *uint64) bool {
	yield.At("leave")
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.settled {
		return false
	}
	if as == leader {
		f.leaderLeft = true
	} else {
		f.waiters--
		s.waiters--
	}
	f.unwatchLocked()
	if counter != nil {
		*counter++
	}
	return true
}

// left returns the error of a call whose context has ended with err. The cause is the user's.
func left(ctx context.Context, err error) error {
	return &leftError{cause: harmless(context.Cause(ctx)), err: harmless(err)}
}

// harmless returns err without its markers; or, if a method of it panics or it wraps itself, an
// error that tells its type only.
func harmless(err error) (safe error) {
	defer func() {
		if recover() != nil {
			safe = fmt.Errorf("an error of type %T, whose methods panic", err)
		}
	}()
	if endless(err) {
		return fmt.Errorf("an error of type %T, which wraps itself", err)
	}
	return unmark(err)
}
