package idemflight

import (
	"context"
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

// ask asks ctx on behalf of a caller that has joined f at its first look. nil means that it may wait,
// or that f has settled. Otherwise it has left f again, and the error says why: the call is from
// within f, or its context has ended. It leaves f even if a method of ctx panics.
//
//go:noinline
func (c *Cache[K, V]) ask(ctx context.Context, s *shard[K, V], f *flight[K, V]) error {
	asked := false
	defer func() {
		if !asked {
			c.leave(s, f, joined, nil)
		}
	}()
	err, within := ctx.Err(), executionOf(ctx)
	switch {
	case err == nil && within == nil: // mostly
	case within.inside(&f.exec):
		err = ErrReentrant
	case err != nil:
		err = left(ctx, err)
	}
	asked = true
	if err == nil {
		return nil
	}
	return c.refuse(ctx, s, f, err)
}

// refuse takes a caller out of f that may not wait, as ask has found, and returns err; or nil if f has
// settled meanwhile.
func (c *Cache[K, V]) refuse(ctx context.Context, s *shard[K, V], f *flight[K, V], err error) error {
	kind, as := EventCallerLeft, &s.stats.CallerLeft
	if err == ErrReentrant {
		kind, as = EventRejected, &s.stats.Reentrant
	}
	if !c.leave(s, f, joined, as) {
		return nil
	}
	c.observe(ctx, Event[K]{Kind: kind, Key: f.key, Err: err})
	return err
}

// join waits for f, which the caller has joined, and reports the call to the Observer. nil means that
// the caller gets the outcome of f.
func (c *Cache[K, V]) join(ctx context.Context, s *shard[K, V], f *flight[K, V],
	maxWait time.Duration) error {
	if c.opts.Observer == nil {
		return c.waitUpTo(ctx, s, f, maxWait)
	}
	since := c.now()
	err := c.waitUpTo(ctx, s, f, maxWait)
	e := Event[K]{Kind: EventJoined, Key: f.key, Err: err, Took: c.now() - since}
	switch {
	case err == nil:
		e.Err = f.outcome.err
		if Source(f.outcome.source) == NoOutcome {
			e.Kind = EventRejected
		}
	case err == ErrInFlight:
		e.Kind = EventRejected
	default:
		e.Kind = EventCallerLeft
	}
	c.observe(ctx, e)
	return err
}

// wait returns nil once f has settled, or the error of a caller whose context ended before.
func (c *Cache[K, V]) wait(ctx context.Context, s *shard[K, V], f *flight[K, V], as role) error {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return c.abandon(ctx, s, f, as)
	}
}

// waitUpTo is wait for a joined caller, which may have a time limit.
func (c *Cache[K, V]) waitUpTo(ctx context.Context, s *shard[K, V], f *flight[K, V],
	maxWait time.Duration) error {
	if maxWait == forever {
		return c.wait(ctx, s, f, joined)
	}
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return c.abandon(ctx, s, f, joined)
	case <-time.After(maxWait):
	}
	if ctx.Err() != nil {
		return c.abandon(ctx, s, f, joined)
	}
	if !c.leave(s, f, joined, &s.stats.NotWaited) {
		return nil
	}
	return ErrInFlight
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
	if counter != nil {
		*counter++
	}
	return true
}

// left returns the error of a call whose context has ended with err.
func left(ctx context.Context, err error) error {
	return &leftError{cause: unmark(context.Cause(ctx)), err: unmark(err)}
}
