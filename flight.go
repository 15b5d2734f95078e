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
//	   └─▶ reconciling ──(Retryable, no lock)
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
	ttl         time.Duration // of its outcome, as the leader wants it; negative: Options.TTL
	startedAt   time.Duration

	// fn is read by who flies, and cleared by settle.
	fn func(context.Context) (V, error)

	// done is closed by settle. It is made under the shard's mu by the first who needs it (the leader,
	// who joins, Close), and may then be read by that one without a lock.
	done chan struct{}

	// exec is the first execution; it is fn's context, and lives here to save an allocation.
	exec execution

	// held is the record that Reconcile is asked about; nil once fn runs. Written only by the
	// goroutine that flies.
	held *fullRecord[K, V]

	// Guarded by the shard's mu.
	leaderLeft bool // nobody will tell the outcome as the leader's
	forgotten  bool // its outcome is not to be retained
	settled    bool
	waiters    int32 // joined callers that wait

	// Written under the shard's mu before settled is set and done is closed, only read after: who
	// has seen either may read without the lock.
	outcome outcome[V]
}

// outcome is what the callers of a flight share.
type outcome[V any] struct {
	value       V
	err         error         // as callers get it
	panicked    *PanicError   // of fn, for the leader to panic with
	completed   time.Duration // on the cache's clock
	expires     time.Duration // the same; 0 if it is not kept, or held without end
	times       *times        // if they do not follow from these
	took        time.Duration
	waiters     int32
	source      uint8 // a Source, the leader's: Executed or Reconciled; None if Reconcile learned nothing
	disposition uint8 // a Disposition
}

// result returns the outcome as one caller sees it; source is that caller's.
func (o *outcome[V]) result(c *clock, source Source) Result[V] {
	if Source(o.source) == None {
		return Result[V]{}
	}
	if o.times != nil {
		return Result[V]{Value: o.value, Source: source, CompletedAt: o.times.completed, ExpiresAt: o.times.expires}
	}
	res := Result[V]{Value: o.value, Source: source, CompletedAt: c.wall(o.completed)}
	if o.expires != 0 {
		res.ExpiresAt = c.wall(o.expires)
	}
	return res
}

// ended returns the event, of the given kind, that tells of f's end. f must have settled.
func (f *flight[K, V]) ended(kind EventKind) Event[K] {
	o := &f.outcome
	return Event[K]{Kind: kind, Key: f.key, Err: o.err, Took: o.took, Waiters: int(o.waiters), Disposition: Disposition(o.disposition)}
}

// ending is how one execution ended: what fn returned, and what is then made of it.
type ending[K comparable, V any] struct {
	value    V
	err      error // fn's, with its markers until it has been judged
	panicked *PanicError
	returned bool // neither panic nor Goexit
	at       time.Duration

	spoke, begun bool // what fn said about its effect

	disposition Disposition
	weight      int64
	notes       []note[K] // events to emit once settled
}

// run calls fn with e as its context and captures how it ends. After runtime.Goexit in fn it runs
// as a deferred call of a goroutine that is about to exit, and so does all that follows.
func (x *ending[K, V]) run(e *execution, fn func(context.Context) (V, error)) {
	defer func() {
		if !x.returned {
			if v := recover(); v != nil {
				x.panicked = &PanicError{Value: v, Stack: debug.Stack()}
				x.err = x.panicked
			} else {
				x.err = ErrGoexit
			}
		}
		x.at = e.clock.nowToo()
		x.spoke, x.begun = e.end(x.at)
	}()
	x.value, x.err = fn(e)
	x.returned = true
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
	first       *execution      // the first of its flight, which stands for that
	clock       *clock          // of its cache, for which it stands too
	started     time.Duration
	deadline    time.Duration // 0: none
	reconciling bool          // Reconcile is what it runs

	// mu guards the rest. Nothing is called with it held but the standard library's contexts.
	spoke  bool  // BeginEffect or NoEffect was called
	ended  bool  // fn has returned,
	late   bool  // after the deadline
	begun  int32 // effects begun and not taken back
	mu     sync.Mutex
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

// inside reports whether e is of the flight whose first execution is given, or runs within it.
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
		if e.clock == of && !e.hasEnded() {
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

// start sets the clock of the execution, right before fn, unless its flight has just begun.
func (e *execution) start(timeout time.Duration) {
	if e.started == 0 {
		e.started = e.clock.now()
	}
	if timeout > 0 {
		e.deadline = e.started + min(timeout, forever-e.started)
	}
}

// end ends the context at the given time, and returns what fn said about its effect while it ran.
func (e *execution) end(at time.Duration) (spoke, begun bool) {
	e.mu.Lock()
	e.late = e.deadline != 0 && at >= e.deadline // which Err may have said already
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
	return e.deadline != 0 && e.clock.now() >= e.deadline
}

// String names the context where one is printed, as those of the standard library do; without it,
// fmt would read the fields below mu.
func (e *execution) String() string { return "idemflight.execution" }

// Deadline is ExecTimeout after the start; the leader's does not count.
func (e *execution) Deadline() (time.Time, bool) {
	if e.deadline == 0 {
		return time.Time{}, false
	}
	return e.clock.start.Add(e.deadline), true
}

// Done makes inner, and so arms the timer of the deadline.
func (e *execution) Done() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.inner == nil {
		values := context.WithoutCancel(e.leader)
		if e.deadline == 0 || e.ended && !e.late {
			e.inner, e.cancel = context.WithCancel(values)
		} else {
			e.inner, e.cancel = context.WithDeadline(values, e.clock.start.Add(e.deadline))
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
	case e.ended && !e.late:
		return context.Canceled
	case e.late || e.overdue():
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
