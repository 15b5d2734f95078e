package idemflight

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// The errors a call can answer with instead of an outcome, or around one. Test for them with
// [errors.Is]; an error of fn comes back as it is. None names the key, which may be a secret: an
// Observer gets it.
var (
	// ErrKeyReused: the key is in flight or kept with another [Fingerprint]: the client used it for
	// two different requests. Retrying cannot help.
	ErrKeyReused = errors.New("idemflight: key already used with another payload (fingerprint): a new operation needs a new key")

	// ErrInFlight: an execution of the key runs, and the caller may not wait for it, or not any
	// longer ([WithMaxWait], Options.MaxWaiters). Retry the same key later.
	ErrInFlight = errors.New("idemflight: key is in flight and this call may not wait any longer: retry the same key")

	// ErrOutcomeUnknown: an execution may or may not have had its effect, so the key is held, and
	// fn does not run again until someone finds out or HoldTTL passes. It wraps the error that left
	// the outcome unknown, so test for ErrOutcomeUnknown first. Its text says why the key is held,
	// since when and until when. Retrying helps only with Options.Reconcile; otherwise a person
	// calls [Cache.Resolve].
	ErrOutcomeUnknown = errors.New("idemflight: outcome unknown: the effect may or may not have taken place, key is held until someone finds out")

	// ErrValueShed: the operation is done, but its value was dropped under Options.MaxWeight. fn
	// does not run until the key expires, is evicted or forgotten.
	ErrValueShed = errors.New("idemflight: done before, but its value was shed under MaxWeight: fn does not run again before it expires")

	// ErrFull: there is no room for a new key, because MaxEntries keys are in flight, held or
	// protected by MinRetention. fn did not run. Retry later; make MaxEntries larger than the
	// rate of new keys × TTL.
	ErrFull = errors.New("idemflight: full, fn did not run: all MaxEntries keys are in flight, held or protected; retry later")

	// ErrClosed: the cache is closed and starts no more executions. fn did not run.
	ErrClosed = errors.New("idemflight: cache is closed, fn did not run")

	// ErrReentrant: the call came from inside the running execution of the same key, and would wait
	// for itself; or [Cache.Close] was called from inside an execution.
	ErrReentrant = errors.New("idemflight: called from inside the execution it would wait for")

	// ErrInvalidKey: the key is missing (the zero value, a [Key] without Scope or ID), is not equal
	// to itself (NaN) or, with a Store, cannot be encoded. fn did not run.
	ErrInvalidKey = errors.New("idemflight: invalid key, fn did not run: zero, without Scope or ID, or not equal to itself")

	// ErrCallerLeft: the caller's own context ended first. It wraps that context's cause and its
	// error. This caller does not learn the outcome; fn may still be running. Retry the same key.
	ErrCallerLeft = errors.New("idemflight: left before the outcome was there, fn may still run: retry the same key")

	// ErrGoexit: fn or Reconcile called runtime.Goexit (t.FailNow does that) and so returned
	// nothing. In an [EventPanicked], it was Classify, Weigh or Trace.
	ErrGoexit = errors.New("idemflight: ended by runtime.Goexit and returned nothing")

	// ErrInterrupted: the key was in flight when it was saved for the next process ([Cache.Save],
	// or [Cache.All] and [Cache.Restore]) or, with a Store, when its process died, so its effect
	// may have taken place. It comes wrapped in ErrOutcomeUnknown.
	ErrInterrupted = errors.New("idemflight: in flight when the process was restarted: may have had its effect")

	// ErrNotHeld: [Cache.Resolve] and [Cache.Reconcile] act on held keys only, and the key is
	// not held (any more).
	ErrNotHeld = errors.New("idemflight: key is not held")

	// ErrExpired: an entry to be restored has expired meanwhile, so nothing is lost.
	ErrExpired = errors.New("idemflight: the entry has expired")

	// ErrStore: the store could not be asked; it wraps the store's error. From Do: fn did not run.
	// Inside ErrOutcomeUnknown: the outcome could not be recorded.
	ErrStore = errors.New("idemflight: the store could not be asked")

	// ErrClaimLost: the lease ended and another process has taken the key over.
	ErrClaimLost = errors.New("idemflight: the claim is lost: its lease ended, and another process has taken the key over")

	// ErrNotExecuting: [BeginEffect], or a store's SettleTx (see [Settling]), was called with a
	// context that belongs to no execution, so nothing guards the effect.
	ErrNotExecuting = errors.New("idemflight: the context belongs to no execution, nothing guards the effect: pass on the one that fn was given")
)

// Some of them in more detail.
var (
	errMayNotWait = fmt.Errorf("%w: it must not wait at all (NoWait)", ErrInFlight)
	errWaited     = fmt.Errorf("%w: its MaxWait ran out", ErrInFlight)
	errManyWait   = fmt.Errorf("%w: MaxWaiters wait already", ErrInFlight)

	errZeroKey  = fmt.Errorf("%w: it is the zero value", ErrInvalidKey)
	errNoScope  = fmt.Errorf("%w: its Scope is missing", ErrInvalidKey)
	errNoID     = fmt.Errorf("%w: its ID is missing", ErrInvalidKey)
	errNotEqual = fmt.Errorf("%w: it is not equal to itself (NaN)", ErrInvalidKey)

	errNoClaim = fmt.Errorf("idemflight: nothing can be settled: the cache of this execution has no Store (%w)", ErrNotExecuting)
)

// full returns ErrFull with what takes up the places. Must be called without a lock. Cost: the lock
// of each shard, one after the other.
func (c *Cache[K, V]) full() error {
	flying, held := 0, 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		flying += s.flights.len
		held += s.kept.holds()
		s.mu.Unlock()
	}
	return fmt.Errorf("%w: of %d places %d are in flight, %d held, and %d too young to go (MinRetention)",
		ErrFull, c.opts.MaxEntries, flying, held, max(c.opts.MaxEntries-flying-held, 0))
}

// ownSentinels are the errors above by which callers tell the package's answers apart.
var ownSentinels = []error{
	ErrKeyReused, ErrInFlight, ErrOutcomeUnknown, ErrValueShed, ErrFull, ErrClosed, ErrReentrant,
	ErrInvalidKey, ErrCallerLeft, ErrInterrupted, ErrNotExecuting, ErrNotHeld, ErrExpired,
	ErrStore, ErrClaimLost,
}

// storeError is ErrStore around what the store said.
type storeError struct{ said error }

func (e *storeError) Error() string        { return fmt.Sprintf("%v: %v", ErrStore, e.said) }
func (e *storeError) Is(target error) bool { return target == ErrStore }
func (e *storeError) Unwrap() error        { return e.said }

// leftError is ErrCallerLeft around what ended the caller's context. The cause is the user's; a
// marker in it must not speak to an execution around this one (see unmark).
type leftError struct{ cause, err error }

func (e *leftError) Error() string {
	if errors.Is(e.cause, e.err) {
		return fmt.Sprintf("%v: %v", ErrCallerLeft, e.cause)
	}
	return fmt.Sprintf("%v: %v: %v", ErrCallerLeft, e.err, e.cause)
}
func (e *leftError) Is(target error) bool { return target == ErrCallerLeft }
func (e *leftError) Unwrap() []error      { return []error{e.cause, e.err} }

// PanicError is a panic as an error. If fn panicked, the leader panics with it, unless the leader
// has left. Joined callers, and callers that meet the kept outcome later, find one without Stack in
// their error. If Reconcile panicked, it is in every caller's error, without Stack. If Classify,
// Weigh or Trace panicked, it is in an [EventPanicked].
type PanicError struct {
	Value any    // what panic was called with
	Stack []byte // of the goroutine that panicked, as debug.Stack prints it; or nil

	at     string // where, for those without Stack
	leader bool   // the leader panics with it: if nobody recovers that, the runtime prints Error
}

// newPanicError returns v, which was just recovered, as an error with the stack.
func newPanicError(v any) *PanicError {
	return &PanicError{Value: v, Stack: debug.Stack(), at: raisedAt(), leader: true}
}

// withoutStack returns e as others get it, and as it is kept. If fn panicked with the panic of an
// inner call, that one has no stack either.
func (e *PanicError) withoutStack() *PanicError {
	without := &PanicError{Value: e.Value, at: e.at}
	if inner, ok := e.Value.(*PanicError); ok && inner != nil {
		without.Value = inner.withoutStack()
	}
	return without
}

// raisedAt returns where the panic was raised that was just recovered.
func raisedAt() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	for raised := false; ; {
		frame, more := frames.Next()
		inRuntime := strings.HasPrefix(frame.Function, "runtime.")
		if raised && !inRuntime {
			return fmt.Sprintf(" (raised at %s:%d, in %s)", filepath.Base(frame.File), frame.Line, frame.Function)
		}
		raised = raised || frame.Function == "runtime.gopanic"
		if !more {
			return ""
		}
	}
}

// Error shows the value and where it was raised, on one line if the value is. The one that
// the leader panics with also shows the stack, because Error is all that the runtime prints
// of an uncaught panic.
func (e *PanicError) Error() string {
	text := fmt.Sprintf("idemflight: panic: %v%s", e.Value, e.at)
	if e.leader && len(e.Stack) > 0 {
		return fmt.Sprintf("%s\n\n%s", text, e.Stack)
	}
	return text
}

// Format shows the stack under %+v, if there is one.
func (e *PanicError) Format(f fmt.State, verb rune) {
	text := e.Error()
	if verb == 'v' && f.Flag('+') && !e.leader && len(e.Stack) > 0 {
		text = fmt.Sprintf("%s\n\n%s", text, e.Stack)
	}
	if verb == 'q' {
		text = strconv.Quote(text)
	}
	_, _ = io.WriteString(f, text)
}

// Unwrap returns Value if it is an error, otherwise nil.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
