package idemflight

import "context"

// Both count under e.mu until the execution has ended; end reads the count.

// BeginEffect tells the cache that from here on an effect may take place: call it right before the
// call to the bank. If fn then fails without a marker, panics or exits, the key is held: a failure
// is "unknown", not "try again". ctx is the context that fn was given, or one derived from it; the
// innermost execution counts.
//
// A nil error means: the effect may begin. Otherwise do not begin it:
//
//   - the cause of fn's context, once fn has returned or ExecTimeout has passed: too late, nobody
//     would be told what becomes of it. The refusal counts as [NoEffect] does at the top of fn: an
//     error of fn releases the key, unless an effect begun earlier holds it.
//   - [ErrNotExecuting]: ctx belongs to no execution and nothing guards the effect. Whether to go
//     on all the same is the caller's decision.
//
// It may return other errors in the future. In Options.Reconcile it returns nil and means nothing.
// Safe for use from any goroutine while fn runs. It costs one lock and one clock reading.
func BeginEffect(ctx context.Context) error {
	e := executionOf(ctx)
	if e == nil {
		return ErrNotExecuting
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.ended:
		if err := e.errLocked(); err != nil {
			return err
		}
		return context.Canceled // end has counted, and is about to cancel inner
	case e.reconciling:
		return nil
	}
	e.spoke = true
	if e.overdue() { // also if the timer of inner is late
		return context.DeadlineExceeded
	}
	e.begun++
	return nil
}

// NoEffect takes back one [BeginEffect]: the effect begun last certainly did not take place (the
// bank refused the connection). At the top of fn it says that nothing has begun yet, so that an
// error before BeginEffect releases the key whatever Classify thinks of it. Outside of a running
// execution it does nothing. Safe for concurrent use.
func NoEffect(ctx context.Context) {
	e := executionOf(ctx)
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return
	}
	e.spoke = true
	if e.begun > 0 {
		e.begun--
	}
}
