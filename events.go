package idemflight

import (
	"context"
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
	EventRejected                    // it got no outcome; Err says why
	EventCallerLeft                  // its own context ended first

	EventFinished // a flight whose leader left has ended

	// Upkeep.
	EventEvicted  // an unexpired outcome was dropped for capacity
	EventExpired  // a record has expired; Err is ErrOutcomeUnknown if the key was held
	EventShed     // a value was dropped for weight
	EventPanicked // Classify or Weigh panicked (Err is a *PanicError) or called runtime.Goexit (ErrGoexit)

	// What operators did, in the context that they gave.
	EventForgotten // Forget dropped a key, or marked one in flight
	EventResolved  // Resolve or Cache.Reconcile acted on a held key; Disposition says how

	EventStore       // an attempt to ask the Store failed
	EventUnannounced // fn of a cache with EffectsAnnounced succeeded without BeginEffect or NoEffect
)

func (k EventKind) String() string {
	return name(k, "executed", "joined", "replayed", "reconciled", "rejected", "caller_left", "finished",
		"evicted", "expired", "shed", "panicked", "forgotten", "resolved", "store", "unannounced")
}

// Event is what an Observer gets, with the context of the caller it concerns; with fn's, ended by
// then, for EventFinished, and context.Background() for upkeep. Every call of Do, DoResult or a wrapped
// function causes exactly one of the call events. Events of upkeep may come while fn runs.
type Event[K comparable] struct {
	Kind        EventKind
	Key         K
	Err         error         // what the call returned (for EventFinished, a joined caller's)
	Took        time.Duration // of the execution; what a joined, rejected or left call waited; 0 otherwise
	Waiters     int           // joined callers, when an execution ends
	Disposition Disposition   // executed, reconciled, finished: what became of the outcome
}

// LogEvents returns an Observer that logs each event to l with the message "idemflight": its kind
// under "event", the key under "key", and, where they say something, "took", "waiters",
// "disposition" and "err". What went as planned is Info; what somebody should look at is Warn:
// rejected and left calls, holds, evicted and shed outcomes, held keys that expired, panics. The
// "err" of a panic has its stack. Values are not logged; wrap l's handler if keys must not be. A nil l
// is slog.Default(), at each event.
func LogEvents[K comparable](l *slog.Logger) func(context.Context, Event[K]) {
	return func(ctx context.Context, e Event[K]) {
		logger := l
		if logger == nil {
			logger = slog.Default()
		}
		level := slog.LevelInfo
		if e.alarming() {
			level = slog.LevelWarn
		}
		if !logger.Enabled(ctx, level) {
			return
		}
		attrs := make([]slog.Attr, 0, 6)
		attrs = append(attrs, slog.String("event", e.Kind.String()), slog.Any("key", e.Key))
		if e.Took != 0 {
			attrs = append(attrs, slog.Duration("took", e.Took))
		}
		if e.ended() {
			attrs = append(attrs, slog.String("disposition", e.Disposition.String()))
		}
		if e.Waiters != 0 {
			attrs = append(attrs, slog.Int("waiters", e.Waiters))
		}
		if e.Err != nil {
			attrs = append(attrs, slog.Any("err", e.Err))
		}
		logger.LogAttrs(ctx, level, "idemflight", attrs...)
	}
}

// ended reports whether e tells of an execution's end.
func (e Event[K]) ended() bool {
	return e.Kind == EventExecuted || e.Kind == EventReconciled || e.Kind == EventFinished
}

func (e Event[K]) alarming() bool {
	switch e.Kind {
	case EventRejected, EventCallerLeft, EventEvicted, EventShed, EventPanicked:
		return true
	case EventExpired:
		return e.Err != nil
	}
	return e.ended() && e.Disposition == Hold
}
