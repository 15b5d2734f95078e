package idemflight

import (
	"errors"
	"fmt"
)

// The errors a call can answer with instead of an outcome, or around one. Test for them with
// [errors.Is]; an error of fn comes back as it is. None names the key, which may be a secret: an
// Observer gets it.
var (
	// ErrKeyReused: the key is in flight or kept with another [Fingerprint]: the same key names a
	// different request. A mistake of the client; asking again cannot help.
	ErrKeyReused = errors.New("idemflight: key already used with another payload (fingerprint): a new operation needs a new key")

	// ErrInFlight: an execution of the key runs, and the caller may not wait for it, or no longer
	// ([WithMaxWait], Options.MaxWaiters). Retry the same key later.
	ErrInFlight = errors.New("idemflight: key is in flight and this call may not wait any longer: retry the same key")

	// ErrOutcomeUnknown: an execution may or may not have had its effect, so the key is held and fn
	// does not run again until someone finds out or HoldTTL passes. Wraps the error that left it
	// unknown. Asking again helps only with Options.Reconcile; otherwise a person calls
	// [Cache.Resolve].
	ErrOutcomeUnknown = errors.New("idemflight: outcome unknown: the effect may or may not have taken place, key is held until someone finds out")

	// ErrValueShed: the operation is done, but its value was dropped under Options.MaxWeight. fn
	// does not run until the key expires, is evicted or forgotten.
	ErrValueShed = errors.New("idemflight: done before, but its value was shed under MaxWeight: fn does not run again before it expires")

	// ErrFull: no place for a new key: MaxEntries are in flight, held or protected. fn did not run.
	// Retry later; make MaxEntries larger than the rate of new keys × TTL.
	ErrFull = errors.New("idemflight: full, fn did not run: all MaxEntries keys are in flight, held or protected; retry later")

	// ErrClosed: the cache is closed and starts no more executions. fn did not run.
	ErrClosed = errors.New("idemflight: cache is closed, fn did not run")

	// ErrReentrant: the call came from inside the running execution of the same key and would wait
	// for itself; or [Cache.Close] was called from inside an execution.
	ErrReentrant = errors.New("idemflight: called from inside the execution it would wait for")

	// ErrInvalidKey: the key is missing (the zero value, a [Key] without Scope or ID) or not equal
	// to itself (NaN). fn did not run.
	ErrInvalidKey = errors.New("idemflight: invalid key, fn did not run: zero, without Scope or ID, or not equal to itself")

	// ErrCallerLeft: the caller's own context ended first. Wraps its cause and its error. The outcome is
	// not known to this caller; fn may still be running. Retry the same key.
	ErrCallerLeft = errors.New("idemflight: left before the outcome was there, fn may still run: retry the same key")

	// ErrGoexit: fn or Reconcile ended by runtime.Goexit (t.FailNow does that) and so returned
	// nothing. In an [EventPanicked], Classify or Weigh did.
	ErrGoexit = errors.New("idemflight: ended by runtime.Goexit and returned nothing")

	// ErrInterrupted: why a key is held that was in flight when [Cache.All] saved it for
	// [Cache.Restore]: the old process may have had its effect. It is wrapped in ErrOutcomeUnknown.
	ErrInterrupted = errors.New("idemflight: in flight when the process was restarted: may have had its effect")

	// ErrNotHeld: the operator's verb acts on held keys only, and the key is not held (any more).
	ErrNotHeld = errors.New("idemflight: key is not held")

	// ErrExpired: an entry to be restored has expired meanwhile. It is no loss.
	ErrExpired = errors.New("idemflight: the entry has expired")

	// ErrNotExecuting: [BeginEffect] was called with a context that belongs to no execution, so
	// nothing guards the effect.
	ErrNotExecuting = errors.New("idemflight: BeginEffect with a context of no execution, nothing guards the effect: pass on the one that fn was given")
)

// ownSentinels are the answers of a cache that leave the guarding of the effect to its own key:
// all of the above but ErrGoexit, which is how an execution itself ended.
var ownSentinels = []error{
	ErrKeyReused, ErrInFlight, ErrOutcomeUnknown, ErrValueShed, ErrFull, ErrClosed, ErrReentrant,
	ErrInvalidKey, ErrCallerLeft, ErrInterrupted, ErrNotExecuting,
}

// unknownError is ErrOutcomeUnknown around the error that left the outcome unknown (nil after a
// Restore that brought none).
type unknownError struct{ cause error }

func (e *unknownError) Error() string {
	if e.cause == nil {
		return ErrOutcomeUnknown.Error()
	}
	return fmt.Sprintf("%v: %v", ErrOutcomeUnknown, e.cause)
}
func (e *unknownError) Is(target error) bool { return target == ErrOutcomeUnknown }
func (e *unknownError) Unwrap() error        { return e.cause }

// leftError is ErrCallerLeft around what ended the caller's context. The cause is the user's and may
// bear a marker, which must not speak to an execution around this one (see unmark).
type leftError struct{ cause, err error }

func (e *leftError) Error() string {
	if errors.Is(e.cause, e.err) {
		return fmt.Sprintf("%v: %v", ErrCallerLeft, e.cause)
	}
	return fmt.Sprintf("%v: %v: %v", ErrCallerLeft, e.err, e.cause)
}
func (e *leftError) Is(target error) bool { return target == ErrCallerLeft }
func (e *leftError) Unwrap() []error      { return []error{e.cause, e.err} }

// PanicError is a panic as an error. If fn panicked, the leader panics with it, unless it has left, and
// joined callers find it in their error. That of Reconcile is in the error of all, and that of Classify
// or Weigh in an [EventPanicked].
type PanicError struct {
	Value any    // what was panicked with
	Stack []byte // of the goroutine that panicked, as debug.Stack prints it
}

// Error shows the value and the stack.
func (e *PanicError) Error() string {
	return fmt.Sprintf("idemflight: panic: %v\n\n%s", e.Value, e.Stack)
}

// Unwrap returns Value if it is an error, otherwise nil.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
