package idemflight

import (
	"context"
	"slices"

	"github.com/idemflight/idemflight/internal/yield"
)

// The way of a key, from Do to settle:
//
//	Do, DoResult, Wrap
//	  lookKept      in the table, without a lock: retained, same payload? return it
//	  lookInFlight  under the shard's mu: a flight to join? join it
//	  await         ask ctx; wait for done or the context; the outcome wins a tie
//	  meet          under the shard's mu, until decided:
//	    kept          wrong payload, replay, shed, unknown; or held with Reconcile: claim
//	    in flight     re-entrant, wrong payload, dead ctx, may not wait; otherwise join; with a Store
//	                  that still has to say whether it is in flight at all: awaitDecision, meet again
//	    absent        dead ctx, closed; take a place and claim; otherwise make room, look again
//	  lead          fly here or on a new goroutine; wait; return the outcome or leave
//	  follow        wait for done, the context or the time limit; the outcome wins a tie; if there is
//	                none, and nobody's fn to run, meet again
//
// and of an outcome:
//
//	execute → judge → weigh → settle → land: one critical section takes the flight out, inserts the
//	record and closes done; then the timer is armed and the Observer hears of it. With a Store,
//	settle first has it record the outcome.

// Do returns the outcome of fn for key. For one key, fn runs at most once at a time, and not again
// while its outcome is kept: see the table in the package documentation. fn gets a context with the
// values of ctx but neither its cancellation nor its deadline (see Options.ExecTimeout): the work
// goes on when the caller leaves. So fn may outlive the caller and must capture nothing that the
// caller closes, reuses or reads afterwards; [Inline] is the alternative.
//
// All callers share the value for the whole TTL: treat it as immutable. fn's error comes back as fn
// returned it, without its marker ([Final], [Retryable], [Unknown]). Other errors:
// [ErrOutcomeUnknown] around fn's error (so test for it first), [ErrCallerLeft] as soon as ctx ends
// (if the outcome is there, too, it wins), [ErrInFlight], [ErrKeyReused], [ErrValueShed],
// [ErrFull], [ErrClosed], [ErrReentrant], [ErrInvalidKey], and with a Store [ErrStore] after up to
// 5 s of trying. If fn panics, the leader panics with a *[PanicError], with fn's frames still on
// the stack if fn ran on its goroutine, and joined callers get one without its stack in their
// error. If fn calls runtime.Goexit, they get [ErrGoexit].
//
// The cache keeps its own copy of the key's text. A nil ctx, a nil fn and an unhashable key panic.
// A replay takes no lock and allocates nothing. A first execution takes two allocations, one more
// for a key with text, and two more and a goroutine if ctx can end and [Inline] was not given. With
// a Store, it also takes a goroutine and two round trips, and a third with [BeginEffect].
func (c *Cache[K, V]) Do(ctx context.Context, key K, fn func(context.Context) (V, error),
	opts ...CallOption) (V, error) {
	mustCall(ctx, "Do", fn == nil)
	var r reply[K, V]
	r.opts.read(opts)
	switch {
	case c.lookKept(ctx, key, &r):
	case c.lookInFlight(key, &r):
		c.await(ctx, &r)
	default:
		c.meet(ctx, key, fn, &r)
	}
	return r.value, r.err
}

// DoResult is [Cache.Do], but also tells where the outcome came from and how long it is
// kept. It costs the same.
func (c *Cache[K, V]) DoResult(ctx context.Context, key K, fn func(context.Context) (V, error),
	opts ...CallOption) (Result[V], error) {
	mustCall(ctx, "DoResult", fn == nil)
	var r reply[K, V]
	r.opts.read(opts)
	switch {
	case c.lookKept(ctx, key, &r):
	case c.lookInFlight(key, &r):
		c.await(ctx, &r)
	default:
		c.meet(ctx, key, fn, &r)
	}
	return r.result(c), r.err
}

// mustHave panics if ctx, given to the named method, is nil.
func mustHave(ctx context.Context, method string) {
	if ctx == nil {
		panic("idemflight: " + method + " called with a nil context")
	}
}

// mustCall panics if the named method was called without ctx or fn.
func mustCall(ctx context.Context, method string, noFn bool) {
	mustHave(ctx, method)
	if noFn {
		panic("idemflight: " + method + " called with a nil fn")
	}
}

// Wrap returns fn made once-only: a call of it has the semantics of [Cache.Do], with the key and
// the fingerprint that the function key returns for the argument. An error from key is returned as
// it is, and does not count as a call. If key returns the zero Fingerprint, the one in opts
// applies, if any. A replay allocates nothing. A nil c, key or fn panics at once. The result is
// safe for concurrent use if key and fn are.
func Wrap[A any, K comparable, V any](c *Cache[K, V], key func(A) (K, Fingerprint, error),
	fn func(context.Context, A) (V, error), opts ...CallOption) func(context.Context, A) (V, error) {
	switch {
	case c == nil:
		panic("idemflight: Wrap called with a nil Cache")
	case key == nil:
		panic("idemflight: Wrap called with a nil key function")
	case fn == nil:
		panic("idemflight: Wrap called with a nil fn")
	}
	opts = slices.Clone(opts)
	return func(ctx context.Context, arg A) (V, error) {
		if ctx == nil {
			panic("idemflight: a call through Wrap with a nil context")
		}
		k, fp, err := key(arg)
		if err != nil {
			return *new(V), err
		}
		var r reply[K, V]
		r.opts.read(opts)
		if fp != (Fingerprint{}) {
			r.opts.fingerprint = fp
		}
		switch {
		case c.lookKept(ctx, k, &r):
		case c.lookInFlight(k, &r):
			c.await(ctx, &r)
		default: // the closure is made here and not before, since it allocates
			c.meet(ctx, k, func(ctx context.Context) (V, error) { return fn(ctx, arg) }, &r)
		}
		return r.value, r.err
	}
}

// reply is what a call is about to return, and where it comes from.
type reply[K comparable, V any] struct {
	opts  callOptions
	hash  uint64          // of the key
	ended <-chan struct{} // of the caller's context, once that was asked

	value  V
	err    error
	source Source
	record *record[K, V] // if source is Replayed, from memory
	flight *flight[K, V] // otherwise, if there is an outcome; the one that was joined
}

// result returns the reply as DoResult tells it.
func (r *reply[K, V]) result(c *Cache[K, V]) Result[V] {
	switch {
	case r.source == NoOutcome:
		return Result[V]{}
	case r.record != nil:
		t := c.timesOf(r.record)
		return Result[V]{Value: r.value, Source: Replayed, CompletedAt: t.completed, ExpiresAt: t.expires, Origin: r.record.origin()}
	}
	res := r.flight.outcome.result(&c.clock, r.source)
	if res.Source != NoOutcome {
		res.Origin = r.flight.origin()
	}
	return res
}

// replay makes the outcome rec the reply.
func (r *reply[K, V]) replay(rec *record[K, V]) {
	r.record, r.source, r.value, r.err = rec, Replayed, rec.value, rec.err()
}

// share makes the outcome of f, which has settled, the reply to a caller with that source.
func (r *reply[K, V]) share(f *flight[K, V], source Source) {
	o := &f.outcome
	r.flight, r.value, r.err = f, o.value, o.err
	if Source(o.source) != NoOutcome {
		r.source = source
	}
}

// lookKept answers a call if it finds a retained outcome without a lock, and reports whether it
// did. It does not touch ctx.
func (c *Cache[K, V]) lookKept(ctx context.Context, key K, r *reply[K, V]) bool {
	r.hash = c.hash(key)
	rec := c.shardOf(r.hash).kept.get(r.hash, key)
	if rec == nil || !c.replayable(rec, r.opts.fingerprint) {
		return false
	}
	r.replay(rec)
	c.replays.count()
	if c.opts.Observer != nil {
		c.observeReplayed(ctx, key, rec)
	}
	return true
}

// replayable reports whether rec, which was found without a lock, is the answer to a call with this
// fingerprint, and notes its use.
//
// The clock is read first, and then whether rec is gone: so there is an instant, that of the
// reading, at which rec was in the table and had not expired.
func (c *Cache[K, V]) replayable(rec *record[K, V], fp Fingerprint) bool {
	yield.At("look: found")
	if !rec.answers(fp) || rec.expired(c.now()) {
		return false
	}
	yield.At("look: not expired")
	return rec.use()
}

// lookInFlight joins the flight of key, if there is one that any call with these options may
// join, and reports whether it did. The outcome of such a flight answers the call, whose own
// fn is not needed. It asks no context: methods of a context are user code, which is never
// called with mu held.
func (c *Cache[K, V]) lookInFlight(key K, r *reply[K, V]) bool {
	if r.opts.maxWait <= 0 || c.opts.MaxWaiters > 0 {
		return false
	}
	s := c.shardOf(r.hash)
	yield.At("look: lock")
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.flights.get(r.hash, key)
	if f == nil || f.asks != nil || f.fingerprint != r.opts.fingerprint {
		return false
	}
	s.joinLocked(f)
	r.flight = f
	return true
}

// await waits for the flight that lookInFlight has joined, and answers with its outcome.
//
// A storm of callers arrives on as many new goroutines, each with a stack of 2 KiB. A
// joined call should fit into that, so await waits in its own small frame and leaves rare
// cases to other functions. (Measured: half the time of a storm.) Nothing refers to the
// caller's fn while it waits.
func (c *Cache[K, V]) await(ctx context.Context, r *reply[K, V]) {
	f := r.flight
	s := c.shardOf(r.hash)
	r.ended, r.err = c.checkContext(ctx, s, f)
	switch {
	case r.err != nil:
	case c.opts.Observer != nil || r.opts.maxWait != forever:
		r.err = c.joinOnce(ctx, s, r)
	default: // as wait does, for which the stack might have to grow
		select {
		case <-f.done:
		case <-r.ended:
			r.err = c.abandon(ctx, s, f, joined)
		}
	}
	if r.err == nil {
		r.share(f, Joined)
	}
}
