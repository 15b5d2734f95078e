package idemflight

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// EventKind says what an [Event] tells.
type EventKind int

const (
	// One of these for every call of Do, when it has its answer.
	EventExecuted   EventKind = iota // it led the flight, and fn ran
	EventJoined                      // it waited for a flight that it did not start
	EventReplayed                    // it got a retained outcome, and fn did not run
	EventReconciled                  // it led the flight, and Reconcile found it out
	EventRejected                    // it got no outcome: Err says why
	EventCallerLeft                  // its own context ended first

	EventFinished // a flight whose leader left has ended

	// Upkeep.
	EventEvicted  // an unexpired outcome was dropped for capacity
	EventExpired  // a record has expired; Err is ErrOutcomeUnknown if the key was held
	EventShed     // a value was dropped for weight
	EventPanicked // Classify, Weigh or Trace panicked (Err is a *PanicError) or exited (ErrGoexit)

	// What operators did, in the context that they gave.
	EventForgotten // Forget dropped a key, or marked one in flight
	EventResolved  // Resolve or Cache.Reconcile acted on a held key: Disposition says how

	EventStore       // an attempt to ask the Store failed
	EventUnannounced // with EffectsAnnounced, fn succeeded without BeginEffect, NoEffect or SettleTx
)

var eventTexts = []string{"executed", "joined", "replayed", "reconciled", "rejected", "caller_left", "finished",
	"evicted", "expired", "shed", "panicked", "forgotten", "resolved", "store", "unannounced"}

// String returns the name of the constant without Event, in lower case: "executed", "caller_left".
func (k EventKind) String() string { return textOf(k, eventTexts) }

// MarshalText returns what String does; a number that is none of the constants is an error.
func (k EventKind) MarshalText() ([]byte, error) { return marshalText(k, eventTexts) }

// UnmarshalText reads what MarshalText wrote. Anything else is an error and changes nothing.
func (k *EventKind) UnmarshalText(text []byte) error { return unmarshalText(k, text, eventTexts) }

// Event is what an Observer gets, together with a context: that of the caller or operator it
// concerns; for EventFinished that of fn, which has ended by then; for upkeep context.Background().
// Every call of Do, DoResult or a wrapped function causes exactly one of the call events. Events of
// upkeep may come while fn runs. EventStore comes while whoever asked the store waits: an Observer
// that then waits for the same key, or for Close, waits for itself. One that asks the failing
// store about the key is told of that, too, up to a hundred times deep.
type Event[K comparable] struct {
	Kind        EventKind
	Key         K
	Err         error         // what the call returned (for EventFinished, a joined caller's)
	Took        time.Duration // of the execution; what a joined, rejected or left call waited; 0 otherwise
	Waiters     int           // joined callers, when an execution ends
	Disposition Disposition   // executed, reconciled, finished, resolved: of the outcome
	Origin      *Origin       // of the execution, with Options.Trace; nil: not traced. Read-only
	Led         bool          // the call led the flight
}

// JoinObservers returns an Observer that passes each event to all the given ones, in order; nil
// ones are skipped. If one panics or calls runtime.Goexit, the others still get the event; then the
// first panic goes on, and the cache contains and counts it like the panic of a single Observer.
// The result is safe for concurrent use if the observers are.
func JoinObservers[K comparable](observers ...func(context.Context, Event[K])) func(context.Context, Event[K]) {
	joined := make([]func(context.Context, Event[K]), 0, len(observers))
	for _, o := range observers {
		if o != nil {
			joined = append(joined, o)
		}
	}
	if len(joined) == 1 {
		return joined[0]
	}
	return func(ctx context.Context, e Event[K]) { tell(joined, ctx, e) }
}

// tell passes e to all observers, even if some of them do not return.
func tell[K comparable](observers []func(context.Context, Event[K]), ctx context.Context, e Event[K]) {
	told := 0
	defer func() {
		if told < len(observers) {
			defer func() { _ = recover() }() // this panic is not the first
			tell(observers[told:], ctx, e)
		}
	}()
	for told < len(observers) {
		told++
		observers[told-1](ctx, e)
	}
}

// LogEvents returns an Observer that logs each event to l: its kind under "event", the key under
// "key" (a [Key] as a group of scope and id), and, where they say something, "took", "waiters",
// "disposition", "err" (of a panic with the place where it was raised), and "stack" if a hook
// panicked. (The stack of fn's panic is in the value that the leader panics with: see
// [PanicError].) The message is one of a few constants that begin with "idemflight: "; if a key has
// just become held, it begins with "idemflight: key held".
//
//	Debug  executed, joined, replayed, caller left, finished; rejected because the caller is wrong, or is
//	       to retry: ErrKeyReused, ErrInFlight, ErrReentrant, ErrInvalidKey
//	Info   expired, forgotten, resolved, reconciled
//	Warn   whatever is held, a hold that expired, rejected for any other reason, evicted, shed,
//	       a Store that failed, an effect that was not announced
//	Error  a panic or runtime.Goexit of fn, Reconcile, Classify, Weigh or Trace
//
// Values are not logged. If keys must not be logged either, wrap l's handler. A nil l means
// slog.Default() at the time of each event. Safe for concurrent use. An event below l's level
// costs next to nothing.
func LogEvents[K comparable](l *slog.Logger) func(context.Context, Event[K]) {
	return func(ctx context.Context, e Event[K]) {
		logger := l
		if logger == nil {
			logger = slog.Default()
		}
		level, message := e.logged()
		if !logger.Enabled(ctx, level) {
			return
		}
		attrs := make([]slog.Attr, 0, 7)
		attrs = append(attrs, slog.String("event", e.Kind.String()), slog.Any("key", e.Key))
		if e.Took != 0 {
			attrs = append(attrs, slog.Duration("took", e.Took))
		}
		if e.ended() || e.Kind == EventResolved {
			attrs = append(attrs, slog.String("disposition", e.Disposition.String()))
		}
		if e.Waiters != 0 {
			attrs = append(attrs, slog.Int("waiters", e.Waiters))
		}
		if e.Err != nil {
			attrs = append(attrs, slog.Any("err", e.Err))
			if p, ok := panicIn(e.Err); ok && len(p.Stack) > 0 {
				attrs = append(attrs, slog.String("stack", string(p.Stack)))
			}
		}
		logger.LogAttrs(ctx, level, message, attrs...)
	}
}

// panicIn returns the panic that err wraps. An error without end has none.
func panicIn(err error) (*PanicError, bool) {
	if endless(err) {
		return nil, false
	}
	return errors.AsType[*PanicError](err)
}

// ended reports whether e reports the end of an execution.
func (e Event[K]) ended() bool {
	return e.Kind == EventExecuted || e.Kind == EventReconciled || e.Kind == EventFinished
}

// logged returns how LogEvents logs e. The messages are constants, for searches and alerts.
func (e Event[K]) logged() (slog.Level, string) {
	switch e.Kind {
	case EventExecuted, EventReconciled, EventFinished:
		return e.loggedEnd()
	case EventJoined:
		if errors.Is(finite(e.Err), ErrOutcomeUnknown) {
			return slog.LevelWarn, "idemflight: joined, outcome unknown"
		}
		return slog.LevelDebug, "idemflight: joined"
	case EventReplayed:
		return slog.LevelDebug, "idemflight: replayed"
	case EventRejected:
		return e.loggedRejection()
	case EventCallerLeft:
		return slog.LevelDebug, "idemflight: caller left"
	case EventEvicted:
		if e.Err != nil {
			return slog.LevelWarn, "idemflight: held key evicted"
		}
		return slog.LevelWarn, "idemflight: evicted"
	case EventExpired:
		if e.Err != nil {
			return slog.LevelWarn, "idemflight: held key expired"
		}
		return slog.LevelInfo, "idemflight: expired"
	case EventShed:
		return slog.LevelWarn, "idemflight: value shed"
	case EventPanicked:
		return slog.LevelError, "idemflight: hook panicked"
	case EventForgotten:
		return slog.LevelInfo, "idemflight: forgotten"
	case EventResolved:
		if e.Disposition == Hold {
			return slog.LevelWarn, "idemflight: held key not reconciled"
		}
		return slog.LevelInfo, "idemflight: resolved"
	case EventStore:
		return slog.LevelWarn, "idemflight: store failed"
	case EventUnannounced:
		return slog.LevelWarn, "idemflight: effect not announced"
	}
	return slog.LevelWarn, "idemflight: unknown event"
}

// loggedEnd is logged for the end of an execution.
func (e Event[K]) loggedEnd() (slog.Level, string) {
	how := e.Err // of this execution, not of an inner one
	if unknown, ok := how.(*unknownError); ok {
		how = unknown.cause
	}
	_, panicked := how.(*PanicError)
	panicked = panicked || how == ErrGoexit
	switch {
	case panicked && e.Disposition == Hold:
		return slog.LevelError, "idemflight: key held, execution panicked"
	case panicked:
		return slog.LevelError, "idemflight: execution panicked"
	case e.Disposition == Hold:
		return slog.LevelWarn, "idemflight: key held"
	case e.Kind == EventReconciled:
		return slog.LevelInfo, "idemflight: reconciled"
	case e.Kind == EventFinished:
		return slog.LevelDebug, "idemflight: finished without its leader"
	case e.Disposition == Release:
		return slog.LevelDebug, "idemflight: executed, not kept"
	}
	return slog.LevelDebug, "idemflight: executed"
}

// loggedRejection is logged for a call that got no outcome. ErrOutcomeUnknown comes first: it wraps
// fn's error, which may be the answer of another cache.
func (e Event[K]) loggedRejection() (slog.Level, string) {
	switch {
	case errors.Is(e.Err, ErrOutcomeUnknown):
		return slog.LevelWarn, "idemflight: rejected, outcome unknown"
	case errors.Is(e.Err, ErrValueShed):
		return slog.LevelWarn, "idemflight: rejected, value shed"
	case errors.Is(e.Err, ErrFull):
		return slog.LevelWarn, "idemflight: rejected, full"
	case errors.Is(e.Err, ErrClosed):
		return slog.LevelWarn, "idemflight: rejected, closed"
	case errors.Is(e.Err, ErrKeyReused):
		return slog.LevelDebug, "idemflight: rejected, key reused"
	case errors.Is(e.Err, ErrInFlight):
		return slog.LevelDebug, "idemflight: rejected, in flight"
	case errors.Is(e.Err, ErrReentrant):
		return slog.LevelDebug, "idemflight: rejected, reentrant"
	case errors.Is(e.Err, ErrInvalidKey):
		return slog.LevelDebug, "idemflight: rejected, invalid key"
	}
	return slog.LevelWarn, "idemflight: rejected"
}
