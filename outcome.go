package idemflight

import (
	"fmt"
	"time"
)

// Disposition is what becomes of an outcome.
type Disposition int

const (
	Release Disposition = iota // nothing is kept: the next call runs fn again
	Retain                     // kept for the TTL and replayed: fn does not run
	Hold                       // the effect may or may not have taken place: fn does not run until someone finds out
)

func (d Disposition) String() string { return name(d, "release", "retain", "hold") }

// Final marks err as a real answer (the card was declined): it is retained and replayed like a
// value. Final(nil) is nil. A marker works through wrapping, speaks only to the cache whose fn
// returned it, and is not seen by callers: they get err itself.
func Final(err error) error { return mark(err, Retain) }

// Retryable marks err as certain to have had no effect: nothing is kept and the next call runs fn
// again, whatever [BeginEffect] was told. Retryable(nil) is nil. A value that must not be kept is
// returned together with Retryable(err).
func Retryable(err error) error { return mark(err, Release) }

// Unknown marks err as one after which the effect may or may not have taken place: the key is held
// and callers get [ErrOutcomeUnknown] around err. Unknown(nil) is nil.
func Unknown(err error) error { return mark(err, Hold) }

func mark(err error, d Disposition) error {
	if err == nil {
		return nil
	}
	return &marked{err, d}
}

// marked is an error with a marker.
type marked struct {
	err error
	d   Disposition
}

func (m *marked) Error() string { return m.err.Error() }
func (m *marked) Unwrap() error { return m.err }

// unmarked is an error as fn returned it, with markers somewhere inside that have been heeded
// already. [errors.Is] and [errors.As] see through it; the search for markers ends at it.
type unmarked struct{ err error }

func (u *unmarked) Error() string { return u.err.Error() }
func (u *unmarked) Unwrap() error { return u.err }

// judge returns the disposition that the markers in err decide; the outermost of a chain wins, and
// among joined errors Hold beats Retain beats Release. Where some of those bear a marker, plain
// judges each of the others. found is false if there is no marker at all.
func judge(err error, plain func(error) Disposition) (d Disposition, found bool) {
	for err != nil {
		switch e := err.(type) {
		case *marked:
			return e.d, true
		case *PanicError, *unmarked:
			return Release, false
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			return judgeJoined(e.Unwrap(), plain)
		default:
			return Release, false
		}
	}
	return Release, false
}

func judgeJoined(errs []error, plain func(error) Disposition) (d Disposition, found bool) {
	var rest []error // asked only if another bears a marker
	for _, err := range errs {
		if err == nil {
			continue
		}
		if part, ok := judge(err, plain); ok {
			d, found = strongest(d, part), true
		} else {
			rest = append(rest, err)
		}
	}
	if found {
		for _, err := range rest {
			d = strongest(d, plain(err))
		}
	}
	return d, found
}

// strongest returns what wins among joined errors. Release < Retain < Hold, and what is none of
// the three is Hold.
func strongest(a, b Disposition) Disposition { return max(a, sane(b)) }

func sane(d Disposition) Disposition {
	if d < Release || d > Hold {
		return Hold
	}
	return d
}

// unmark returns err so that no marker of it is seen again: the error that was marked, or one that
// hides the markers deeper inside.
func unmark(err error) error {
	for {
		m, ok := err.(*marked)
		if !ok {
			break
		}
		err = m.err
	}
	if _, found := judge(err, sureRelease); found {
		return &unmarked{err}
	}
	return err
}

func sureRelease(error) Disposition { return Release }

// Source says where a [Result] comes from.
type Source int

const (
	None       Source = iota // no outcome was obtained: the error says why
	Executed                 // this call led the flight, and fn ran, also if it left the outcome unknown
	Joined                   // this call waited for a flight that it did not start
	Replayed                 // kept from an earlier flight
	Reconciled               // this call led the flight, and Reconcile found it out
)

func (s Source) String() string {
	return name(s, "none", "executed", "joined", "replayed", "reconciled")
}

// Result is an outcome and where it comes from.
type Result[V any] struct {
	Value       V         // fn's, also beside an error; zero if Source is None
	Source      Source    // Executed, Joined, Replayed or Reconciled; None exactly when no outcome was obtained
	CompletedAt time.Time // when the execution ended; zero if Source is None
	ExpiresAt   time.Time // zero when the outcome is not kept (or is held without end)
}

// State is where a key stands.
type State int

const (
	InFlight State = iota + 1 // an execution runs
	Retained                  // its outcome is kept and replayed
	Held                      // outcome unknown: fn does not run
	Shed                      // done, the value dropped under MaxWeight: fn does not run
)

func (s State) String() string { return name(s, "absent", "in flight", "retained", "held", "shed") }

// Entry is what the cache knows about a key at one moment.
type Entry[V any] struct {
	State       State
	Value       V     // of a retained outcome; zero otherwise
	Err         error // of the outcome, as fn returned it, without its markers
	Fingerprint Fingerprint
	Waiters     int // joined callers, in flight only

	// When the execution started and ended, and when the entry expires, in wall time. In flight
	// only StartedAt is set, to the start of the flight (Reconcile's, if fn follows it). ExpiresAt
	// is zero for what is held without end.
	StartedAt, CompletedAt, ExpiresAt time.Time
}

// name is the String method of the small named integers.
func name[T ~int](i T, names ...string) string {
	if i < 0 || int(i) >= len(names) {
		return fmt.Sprintf("%T(%d)", i, int(i))
	}
	return names[i]
}
