package idemflight

import (
	"context"
	"runtime/debug"
	"sync"
	"time"
)

// A flight and its states; every arrow that is not marked otherwise happens under the shard's mu.
//
//	             ┌────────────── waiters join, wait, leave ──────────────┐
//	(claim) ──▶ running ──fn returned, no lock──▶ ended ──(settle)──▶ settled
//	   │           ▲
//	   └─▶ reconciling ──(Retryable: yielded)
//	            └──────────(anything else)──────▶ ended
//
// From claim to settle the flight is in its shard's pending map; settle takes it out, puts in what
// is kept and closes done in one critical section, so that no caller finds the key in neither. Only
// settle removes a flight: leaving, Forget and Close do not. Everybody may leave; the execution
// goes on.
type flight[K comparable, V any] struct {
	// Written before the flight is published, only read after.
	key         K
	fingerprint Fingerprint
	fn          func(context.Context) (V, error)
	opts        callOptions // the leader's
	startedAt   time.Time
	done        chan struct{} // closed by settle; made by the leader, if it waits, else by the first who joins

	// exec is the first execution; it is fn's context, and lives here to save an allocation.
	exec execution

	// held is the record that Reconcile is asked about; nil once fn runs. turn, if not nil, is
	// closed when Reconcile is through, and yielded tells that fn is to run: for a leader that
	// stays and runs fn itself. Written by the goroutine that runs Reconcile before it closes turn.
	held    *fullRecord[K, V]
	turn    chan struct{}
	yielded bool

	// Guarded by the shard's mu.
	waiters    int  // joined callers that wait
	leaderLeft bool // nobody will tell the outcome as the leader's
	forgotten  bool // its outcome is not to be retained
	settled    bool

	// Written under the shard's mu before settled is set and done is closed, only read after: who
	// has seen either may read without the lock.
	outcome outcome[V]
}

// outcome is what the callers of a flight share.
type outcome[V any] struct {
	value              V
	err                error       // as callers get it
	source             Source      // the leader's: Executed or Reconciled; None if Reconcile learned nothing
	panicked           *PanicError // of fn, for the leader to panic with
	completed, expires time.Time
	took               time.Duration
	waiters            int
	disposition        Disposition
}

// result returns the outcome as one caller sees it; source is that caller's.
func (o *outcome[V]) result(source Source) Result[V] {
	if o.source == None {
		return Result[V]{}
	}
	return Result[V]{Value: o.value, Source: source, CompletedAt: o.completed, ExpiresAt: o.expires}
}

// ended returns the event, of the given kind, that tells of f's end. f must have settled.
func (f *flight[K, V]) ended(kind EventKind) Event[K] {
	o := &f.outcome
	return Event[K]{Kind: kind, Key: f.key, Err: o.err, Took: o.took, Waiters: o.waiters, Disposition: o.disposition}
}

// ending is how one execution ended: what fn returned, and what is then made of it.
type ending[K comparable, V any] struct {
	value    V
	err      error // fn's, with its markers until it has been judged
	panicked *PanicError
	goexit   bool
	at       time.Time

	spoke, begun bool // what fn said about its effect

	disposition Disposition
	weight      int64
	notes       []note[K] // events to emit once settled
}

// run calls fn with e as its context and captures how it ends. After runtime.Goexit in fn it runs
// as a deferred call of a goroutine that is about to exit, and so does all that follows.
func (x *ending[K, V]) run(e *execution, fn func(context.Context) (V, error)) {
	returned := false
	defer func() {
		if !returned {
			var zero V
			x.value = zero
			if v := recover(); v != nil {
				x.panicked = &PanicError{Value: v, Stack: debug.Stack()}
				x.err = x.panicked
			} else {
				x.goexit, x.err = true, ErrGoexit
			}
		}
		x.at = time.Now()
		x.spoke, x.begun = e.end()
	}()
	x.value, x.err = fn(e)
	returned = true
}

// execution is one run of fn or Reconcile, and the context it is given: the leader's values, no
// cancellation of the leader's, a deadline of its own, ended by fn's return.
//
// It costs one allocation (none, inside its flight) until someone looks for its end: then inner, a
// context of the standard library, takes over Done and Value, so that the standard library
// recognises it as its own and derives contexts from it without a goroutine for each.
type execution struct {
	// Written before fn runs, only read after.
	leader      context.Context // for its values; its end must not be reached through us
	outer       *execution      // the innermost one around the leader's call, if any
	flight      any             // the *flight this belongs to, for re-entrancy
	cache       any             // the *Cache this belongs to, for Close
	started     time.Time
	deadline    time.Time // zero: none
	reconciling bool

	// mu guards the rest. Nothing is called with it held but the standard library's contexts.
	mu     sync.Mutex
	begun  int  // effects begun and not taken back
	spoke  bool // BeginEffect or NoEffect was called
	ended  bool
	err    error // once ended, if there was no inner to ask
	inner  context.Context
	cancel context.CancelFunc
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

// inside reports whether e is an execution of flight, or runs within one.
func (e *execution) inside(flight any) bool {
	for ; e != nil; e = e.outer {
		if e.flight == flight {
			return true
		}
	}
	return false
}

// running reports whether e is, or runs within, an execution of cache that has not ended.
func (e *execution) running(cache any) bool {
	for ; e != nil; e = e.outer {
		if e.cache == cache && !e.hasEnded() {
			return true
		}
	}
	return false
}

func (e *execution) hasEnded() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ended
}

// start sets the clock of the execution; right before fn.
func (e *execution) start(timeout time.Duration) {
	e.started = time.Now()
	if timeout > 0 {
		e.deadline = e.started.Add(timeout)
	}
}

// end ends the context, and returns what fn said about its effect while it ran.
func (e *execution) end() (spoke, begun bool) {
	e.mu.Lock()
	if e.inner == nil {
		e.err = context.Canceled
		if e.overdue() {
			e.err = context.DeadlineExceeded // what Err may have answered already
		}
	}
	e.ended = true
	spoke, begun, cancel := e.spoke, e.begun > 0, e.cancel
	e.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	return spoke, begun
}

// overdue reports whether the deadline has passed. An execution without deadline reads no clock.
func (e *execution) overdue() bool {
	return !e.deadline.IsZero() && !time.Now().Before(e.deadline)
}

// String names the context where one is printed, as those of the standard library do; without it,
// fmt would read the fields below mu.
func (e *execution) String() string { return "idemflight.execution" }

// Deadline is ExecTimeout after the start; the leader's does not count.
func (e *execution) Deadline() (time.Time, bool) { return e.deadline, !e.deadline.IsZero() }

// Done makes inner, and so arms the timer of the deadline.
func (e *execution) Done() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.inner == nil {
		values := context.WithoutCancel(e.leader)
		if e.deadline.IsZero() || e.err == context.Canceled {
			e.inner, e.cancel = context.WithCancel(values)
		} else {
			e.inner, e.cancel = context.WithDeadline(values, e.deadline)
		}
		if e.ended {
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
	case e.ended:
		return e.err
	case e.overdue():
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
