package idemflight

import (
	"context"
	"math"
	"sync"
	"time"
)

// execution is one run of fn or Reconcile, and the context it is given: the leader's values, no
// cancellation of the leader's, a deadline of its own, ended by fn's return.
//
// It costs one allocation (none, inside its flight) until someone looks for its end: then inner, a
// context of the standard library, takes over Done and Value, so that the standard library
// recognises it as its own and derives contexts from it without a goroutine for each.
type execution struct {
	// Written before fn runs, only read after.
	leader      context.Context // for values only: its Done and deadline must not be reachable through e
	outer       *execution      // the innermost one around the leader's call, if any
	first       *execution      // the first of its flight, which stands for that
	env         *env            // its surroundings
	started     time.Duration
	deadline    time.Duration // 0: none
	reconciling bool          // Reconcile is what it runs
	stays       bool          // on the leader's goroutine, where a panic of fn is raised again

	// mu guards the rest. Nothing is called with it held but the standard library's contexts.
	last    said  // what fn said last
	phase   phase // whether it has returned
	effects int32 // begun and not taken back; at its maximum it stays there
	mu      sync.Mutex
	inner   context.Context
	cancel  context.CancelFunc
}

// env is what the executions of a flight have around them. Without a Store and without Trace, all
// flights of a cache share one.
type env struct {
	clock  *clock  // of their cache, which it also identifies
	claim  *claim  // with a Store: the claim under which they run
	origin *Origin // of the last one, if traced; then the flight has its own env. Guarded by the shard's mu
}

// said is what fn has said about its effect. The order counts: max(s, noEffect) is s, or noEffect
// if fn had said nothing, and min(s, noEffect) tells only whether fn has said anything.
type said uint8

const (
	nothing     said = iota
	noEffect         // none has begun, or the last was taken back
	effectBegun      // by BeginEffect
)

// phase is where an execution stands.
type phase uint8

const (
	running phase = iota
	over
	overLate // it ended after its deadline
)

// BeginEffect tells the cache that from here on an effect may take place: call it right before the
// call to the bank. If fn then fails without a marker, panics or exits, the key is held: a failure
// is "unknown", not "try again". ctx is the context that fn was given, or one derived from it; the
// innermost execution counts.
//
// A nil error means: the effect may begin. Otherwise do not begin it:
//
//   - the cause of fn's context, once fn has returned or ExecTimeout has passed: too late, nobody
//     would learn what becomes of it. The refusal counts as [NoEffect] does at the top of fn: an
//     error of fn releases the key, unless an effect begun earlier holds it.
//   - with a Store, [ErrStore] or [ErrClaimLost]: what is about to begin could not be recorded.
//     This counts in the same way.
//   - [ErrNotExecuting]: ctx belongs to no execution and nothing guards the effect. Whether to go
//     on all the same is the caller's decision.
//
// It may return other errors in the future. In Options.Reconcile it returns nil and means nothing.
// Safe for concurrent use while fn runs. It costs one lock and one clock reading; with a Store also
// a durable write of the engine, for which it waits up to 5 s or until ctx ends.
func BeginEffect(ctx context.Context) error {
	e := executionOf(ctx)
	if e == nil {
		return ErrNotExecuting
	}
	cl := e.env.claim
	if cl == nil || e.reconciling {
		return e.begins(nil, notNeeded)
	}
	if err := e.begins(cl, requested); err != nil {
		return err
	}
	answered := false
	defer func() {
		if !answered { // the store called runtime.Goexit
			_ = e.takeBack(cl, ErrStore)
		}
	}()
	err := cl.begin(ctx)
	answered = true
	if err == nil {
		err = e.begins(cl, given)
	}
	if err != nil {
		return e.takeBack(cl, err)
	}
	return nil
}

// consent says how far the store, which must agree before an effect may begin, has been asked.
type consent uint8

const (
	notNeeded consent = iota // there is no store
	requested                // it is about to be asked
	given                    // it has agreed
)

// begins counts one more effect; cl is the claim, if consent is needed. While consent is requested
// the effect is counted apart, because NoEffect does not refer to that one.
func (e *execution) begins(cl *claim, c consent) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case cl != nil && cl.lost: // first: it stays the cause once fn has returned
		e.last = max(e.last, noEffect)
		return ErrClaimLost
	case e.phase != running:
		if err := e.errLocked(); err != nil {
			return err
		}
		return context.Canceled // end has counted, and is about to cancel inner
	case e.reconciling:
		return nil
	}
	if e.overdue() { // even if the timer of inner is late
		e.last = max(e.last, noEffect)
		return context.DeadlineExceeded
	}
	switch c {
	case requested:
		cl.begins++
		return nil
	case given:
		cl.begins--
	}
	e.last = effectBegun
	if e.effects < math.MaxInt32 {
		e.effects++
	}
	return nil
}

// takeBack takes back an effect for which the store was asked, as if NoEffect had been called
// before. (If fn has returned meanwhile, the effect has counted.) It returns why the effect must
// not begin: ErrClaimLost if a heartbeat learned, while the store was asked, that another process
// has taken the key over; otherwise err.
func (e *execution) takeBack(asked *claim, err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if asked.lost { // then fn's context has ended, and with it the attempt to ask
		err = ErrClaimLost
	}
	if e.phase == running {
		asked.begins--
		e.last = max(e.last, noEffect)
	}
	return err
}

// lose ends the context, because another process has taken the key over. If fn settles in a
// transaction of its own, it does nothing: once that has committed, the store reports the claim as
// lost, too, and only the end of the execution tells the two apart.
func (e *execution) lose() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if cl := e.env.claim; e.phase == running && !cl.settles {
		e.doneLocked()
		cl.lost = true
		cl.abort(ErrClaimLost)
	}
}

// NoEffect takes back one [BeginEffect]: the effect begun last certainly did not take place (the
// bank refused the connection). At the top of fn it says that nothing has begun yet, so that an
// error before BeginEffect releases the key: make it the first line of every fn, unless the cache
// has Options.EffectsAnnounced, which says the same.
//
// A second NoEffect without a BeginEffect in between does nothing: the client library and the code
// that called it may both say it. Effects that run at the same time cannot be told apart: if both
// were refused, return Retryable(err). Outside of a running execution it does nothing. Safe for
// concurrent use. Cost: one lock.
func NoEffect(ctx context.Context) {
	e := executionOf(ctx)
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.phase != running || e.last == noEffect {
		return
	}
	e.last = noEffect
	if 0 < e.effects && e.effects < math.MaxInt32 {
		e.effects--
	}
}

// start sets the clock of the execution, right before fn, unless its flight has just begun.
func (e *execution) start(timeout time.Duration) {
	if e.started == 0 {
		e.started = e.env.clock.now()
	}
	if timeout > 0 {
		e.deadline = e.started + min(timeout, forever-e.started)
	}
}

// end ends the context at the given time, and returns what fn has said about its effects in all.
func (e *execution) end(at time.Duration) said {
	e.mu.Lock()
	e.phase = over
	if e.deadline != 0 && at >= e.deadline { // Err may have said so already
		e.phase = overLate
	}
	cancel, said := e.cancel, min(e.last, noEffect)
	if e.effects > 0 || e.env.claim != nil && e.env.claim.begins > 0 {
		said = effectBegun
	}
	e.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	return said
}

// overdue reports whether the deadline has passed. An execution without deadline reads no clock.
func (e *execution) overdue() bool {
	return e.deadline != 0 && e.env.clock.now() >= e.deadline
}

type executionKey struct{}

// executionOf returns the innermost execution that ctx belongs to, or nil.
func executionOf(ctx context.Context) *execution {
	if ctx == nil {
		return nil
	}
	e, _ := ctx.Value(executionKey{}).(*execution)
	return e
}

// inside reports whether e belongs to the flight whose first execution is given, or runs within it.
func (e *execution) inside(first *execution) bool {
	for ; e != nil; e = e.outer {
		if e.first == first {
			return true
		}
	}
	return false
}

// running reports whether e is, or runs within, an execution that has not ended, of the cache with
// the given clock.
func (e *execution) running(of *clock) bool {
	for ; e != nil; e = e.outer {
		if e.env.clock == of && !e.hasEnded() {
			return true
		}
	}
	return false
}

func (e *execution) hasEnded() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.phase != running
}

// String names the context where one is printed, as those of the standard library do; without it,
// fmt would read the fields below mu.
func (e *execution) String() string { return "idemflight.execution" }

// Deadline is ExecTimeout after the start; the leader's does not count.
func (e *execution) Deadline() (time.Time, bool) {
	if e.deadline == 0 {
		return time.Time{}, false
	}
	return e.env.clock.moment(e.deadline), true
}

// Done makes inner, and so arms the timer of the deadline.
func (e *execution) Done() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.doneLocked()
}

func (e *execution) doneLocked() <-chan struct{} {
	if e.inner == nil {
		values := context.WithoutCancel(e.leader)
		if cl := e.env.claim; cl != nil && e.phase == running { // otherwise it is the next one's
			values, cl.abort = context.WithCancelCause(values)
		}
		if e.deadline == 0 || e.phase == over {
			e.inner, e.cancel = context.WithCancel(values)
		} else {
			e.inner, e.cancel = context.WithDeadline(values, e.env.clock.moment(e.deadline))
		}
		if e.phase != running {
			e.cancel()
		}
	}
	return e.inner.Done()
}

// Err agrees with Done: before anyone has looked at that, the clock decides.
func (e *execution) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.errLocked()
}

func (e *execution) errLocked() error {
	switch {
	case e.inner != nil:
		return e.inner.Err()
	case e.phase == over:
		return context.Canceled
	case e.phase == overLate || e.overdue():
		return context.DeadlineExceeded
	}
	return nil
}

// Value answers with the leader's values, but never with what would lead to the leader's end: the
// standard library finds a context to cancel by asking for a value.
func (e *execution) Value(key any) any {
	if key == (executionKey{}) {
		return e
	}
	e.mu.Lock()
	values := e.inner
	e.mu.Unlock()
	if values == nil {
		values = context.WithoutCancel(e.leader)
	}
	return values.Value(key)
}
