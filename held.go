package idemflight

import (
	"context"
	"fmt"
	"time"
)

// why is why a key is held. Save writes it: numbers never change, new ones are appended.
type why uint8

const (
	unsaid             why = iota // fn failed, and had not said whether an effect had begun
	panickedUnsaid                // or panicked
	failedAfterBegin              // BeginEffect
	panickedAfterBegin            // BeginEffect
	markedUnknown                 // by fn
	interrupted                   // by a restart
	learnedNothing                // of a call that asked: Reconcile did not find out
	restored                      // it was held when Restore got it
	unsaidInPart                  // as unsaid, about a part of fn's error; others are marked
	unrecorded                    // the store did not take the outcome
	takenOver                     // and another process has taken the key over
	whyEnd
)

// spare reports whether a key is held only because fn said nothing at all: such a key may be
// evicted, as the last resort.
func (w why) spare() bool { return w == unsaid || w == panickedUnsaid }

// String completes the sentence "the key is held: ".
func (w why) String() string {
	switch w {
	case unsaid:
		return "fn did not say whether an effect had begun (if none: return Retryable(err), or Final(err) for a real answer, or call NoEffect(ctx) first)"
	case panickedUnsaid:
		return "fn panicked and had not said whether an effect had begun (if none: call NoEffect(ctx) first)"
	case failedAfterBegin:
		return "fn failed after BeginEffect"
	case panickedAfterBegin:
		return "fn panicked after BeginEffect"
	case markedUnknown:
		return "fn's error is marked Unknown"
	case interrupted:
		return "its execution was interrupted"
	case learnedNothing:
		return "Reconcile learned nothing"
	case unsaidInPart:
		return "a part of fn's error has no marker, and fn did not say whether an effect had begun"
	case restored:
		return "it was held when it was restored"
	case unrecorded:
		return "its outcome was not recorded by the store"
	case takenOver:
		return "another process had taken the key over when fn ended"
	}
	return fmt.Sprintf("reason %d", uint8(w))
}

// unknownError is ErrOutcomeUnknown around the error that left the outcome unknown (nil after a
// Restore that brought none).
type unknownError struct {
	cause error
	why   why
	since time.Time // zero for the callers of the flight that left it unknown
	until time.Time // zero if the key is held without end
}

func (e *unknownError) Error() string {
	const layout = "2006-01-02 15:04:05Z"
	since, until, cause := "", "resolved or forgotten", ""
	if !e.since.IsZero() {
		since = " since " + e.since.UTC().Format(layout)
	}
	if !e.until.IsZero() {
		until = e.until.UTC().Format(layout)
	}
	if e.cause != nil {
		cause = fmt.Sprintf(": %v", e.cause)
	}
	return fmt.Sprintf("idemflight: outcome unknown, key held%s until %s: %v%s", since, until, e.why, cause)
}
func (e *unknownError) Is(target error) bool { return target == ErrOutcomeUnknown }
func (e *unknownError) Unwrap() error        { return e.cause }

// unknown returns the answer to a call that met r, which is held, at the given time.
func (c *Cache[K, V]) unknown(r *record[K, V], at time.Duration) error {
	t := c.timesOf(r)
	e := &unknownError{cause: r.err(), why: r.more.why, since: t.completed, until: t.expires}
	if p := r.more.pause; !p.over(at) {
		e.cause, e.why = p.err, learnedNothing
	}
	return e
}

// pause is what a Reconcile that learned nothing leaves with the record: for a second, calls are
// told its error and do not ask again, so that a bank that is down is not asked by every retry.
type pause struct {
	until time.Duration
	err   error
}

const pauseTime = time.Second

func (p *pause) over(now time.Duration) bool { return p == nil || now >= p.until }

// lateError is an error of fn that came after ExecTimeout, as Classify is given it.
type lateError struct{ err error }

func (e *lateError) Error() string        { return fmt.Sprintf("after ExecTimeout: %v", e.err) }
func (e *lateError) Is(target error) bool { return target == context.DeadlineExceeded }
func (e *lateError) Unwrap() error        { return e.err }
