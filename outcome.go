package idemflight

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Disposition is what becomes of an outcome: see the table in the package documentation.
type Disposition int

const (
	Release Disposition = iota // nothing is kept: the next call runs fn again
	Retain                     // kept for the TTL and replayed: fn does not run
	Hold                       // the effect may have taken place: fn does not run until someone finds out
)

var dispositionTexts = []string{"release", "retain", "hold"}

// String returns "release", "retain" or "hold".
func (d Disposition) String() string { return textOf(d, dispositionTexts) }

// MarshalText returns what String does; a number that is none of the constants is an error.
func (d Disposition) MarshalText() ([]byte, error) { return marshalText(d, dispositionTexts) }

// UnmarshalText reads what MarshalText wrote. Anything else is an error and changes nothing.
func (d *Disposition) UnmarshalText(text []byte) error {
	return unmarshalText(d, text, dispositionTexts)
}

// Source says where a [Result] comes from.
type Source int

const (
	NoOutcome  Source = iota // no outcome was obtained: the error says why
	Executed                 // this call led the flight, and fn ran, even if it left the outcome unknown
	Joined                   // this call waited for a flight that it did not start
	Replayed                 // kept from an earlier flight
	Reconciled               // this call led the flight, and Reconcile found the outcome out
)

var sourceTexts = []string{"none", "executed", "joined", "replayed", "reconciled"}

// String returns "none", "executed", "joined", "replayed" or "reconciled".
func (s Source) String() string { return textOf(s, sourceTexts) }

// MarshalText returns what String does; a number that is none of the constants is an error.
func (s Source) MarshalText() ([]byte, error) { return marshalText(s, sourceTexts) }

// UnmarshalText reads what MarshalText wrote. Anything else is an error and changes nothing.
func (s *Source) UnmarshalText(text []byte) error { return unmarshalText(s, text, sourceTexts) }

// Result is an outcome and where it comes from.
type Result[V any] struct {
	Value       V         // fn's, also beside an error; zero if Source is NoOutcome
	Source      Source    // NoOutcome exactly when no outcome was obtained
	CompletedAt time.Time // when the execution ended; zero if Source is NoOutcome
	ExpiresAt   time.Time // zero if the outcome is not kept, or is held without end
	Origin      *Origin   // of its execution, with Options.Trace; nil: not traced. Read-only
}

// State is the state of a key: see the table in the package documentation.
type State int

const (
	Absent   State = iota // neither in flight nor kept: the next call runs fn
	InFlight              // an execution runs
	Retained              // its outcome is kept and replayed
	Held                  // outcome unknown: fn does not run
	Shed                  // done, the value dropped under MaxWeight: fn does not run
)

var stateTexts = []string{"absent", "in_flight", "retained", "held", "shed"}

// String returns "absent", "in_flight", "retained", "held" or "shed".
func (s State) String() string { return textOf(s, stateTexts) }

// MarshalText returns what String does; a number that is none of the constants is an error.
func (s State) MarshalText() ([]byte, error) { return marshalText(s, stateTexts) }

// UnmarshalText reads what MarshalText wrote. Anything else is an error and changes nothing.
func (s *State) UnmarshalText(text []byte) error { return unmarshalText(s, text, stateTexts) }

// Entry is what the cache knows about a key at one moment.
type Entry[V any] struct {
	State       State
	Value       V     // of a retained outcome; zero otherwise
	Err         error // of the outcome, as fn returned it, without its markers
	Fingerprint Fingerprint
	Waiters     int     // joined callers, in flight only
	Origin      *Origin // of the execution, with Options.Trace; nil: not traced. Read-only

	// When the execution started and ended, and when the entry expires, in wall time. In flight,
	// only StartedAt is set, to the start of the flight (that of Reconcile, if fn follows it).
	// ExpiresAt is zero if the key is held without end.
	StartedAt, CompletedAt, ExpiresAt time.Time
}

// The small named integers have a text for each number from 0 up. Logs, metrics and saved files
// hold both, so numbers and texts never change, and new ones are appended.

func textOf[T ~int](i T, texts []string) string {
	if i < 0 || int(i) >= len(texts) {
		return fmt.Sprintf("%T(%d)", i, int(i))
	}
	return texts[i]
}

func marshalText[T ~int](i T, texts []string) ([]byte, error) {
	if i < 0 || int(i) >= len(texts) {
		return nil, fmt.Errorf("idemflight: %T(%d) has no text", i, int(i))
	}
	return []byte(texts[i]), nil
}

func unmarshalText[T ~int](i *T, text []byte, texts []string) error {
	known := slices.Index(texts, string(text))
	if known < 0 {
		return fmt.Errorf("idemflight: %q is no %T, which are %s", text, *i, strings.Join(texts, ", "))
	}
	*i = T(known)
	return nil
}
