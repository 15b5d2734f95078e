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

// Source says where a [Result] comes from.
type Source int

const (
	NoOutcome  Source = iota // no outcome was obtained: the error says why
	Executed                 // this call led the flight, and fn ran, even if it left the outcome unknown
	Joined                   // this call waited for a flight that it did not start
	Replayed                 // kept from an earlier flight
	Reconciled               // this call led the flight, and Reconcile found it out
)

func (s Source) String() string {
	return name(s, "none", "executed", "joined", "replayed", "reconciled")
}

// Result is an outcome and where it comes from.
type Result[V any] struct {
	Value       V         // fn's, also beside an error; zero if Source is NoOutcome
	Source      Source    // NoOutcome exactly when no outcome was obtained
	CompletedAt time.Time // when the execution ended; zero if Source is NoOutcome
	ExpiresAt   time.Time // zero when the outcome is not kept (or is held without end)
}

// State is where a key stands.
type State int

const (
	Absent   State = iota // neither in flight nor kept: the next call runs fn
	InFlight              // an execution runs
	Retained              // its outcome is kept and replayed
	Held                  // outcome unknown: fn does not run
	Shed                  // done, the value dropped under MaxWeight: fn does not run
)

func (s State) String() string { return name(s, "absent", "in_flight", "retained", "held", "shed") }

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
