// Package interval checks what callers saw of a cache, however many they were, by the intervals in
// which it happened: it sorts the executions of each key, and asks of each pair of neighbours, and of
// each answer, whether it could be so. [History.Sound] says what exactly.
package interval

import (
	"fmt"
	"math"

	"github.com/idemflight/idemflight"
)

// Never is later than all times of a history.
const Never = math.MaxInt64

// Kind says what an [Op] is.
type Kind int

const (
	Ran      Kind = iota // an execution of fn, with its leader, or one of Reconcile
	Joined               // got the outcome of execution ID, and had not started it
	Replayed             // got the kept outcome of execution ID
	MetHeld              // was told that execution ID is held
	InFlight             // did not wait for a flight
	Full                 // found no place
	Forgot               // Forget
	Looked               // Lookup
	Resolved             // Resolve
	Evicted              // an eviction, from the Observer
	MetShed              // was told that the value was shed
	Reused               // was told that the key has another fingerprint
)

func (k Kind) String() string {
	return [...]string{"ran", "joined", "replayed", "met held", "in flight", "full", "forgot", "looked", "resolved", "evicted", "met shed", "reused"}[k]
}

// Op is one thing that happened to a key, some time between Call and Ret. All times are nanoseconds
// since the history began.
type Op struct {
	Kind      Kind
	Key       int
	Client    int
	ID        int // of the execution that it is, or whose outcome it got (0: not told); for Resolved, of the new value
	Call, Ret int64

	// Of an execution: when it began and ended, what it wants to become of its outcome, and for how
	// long that is to be retained: 0, shared with joined callers only.
	Start, End int64
	Becomes    idemflight.Disposition
	Keeps      int64
	Reconciles bool // of Reconcile, not of fn
	ByHand     bool // for an operator, whom no pause keeps from asking
	Spare      bool // held only because fn said nothing at all: may be evicted as the last resort
	Charged    bool // it had an effect, or may have had one

	// Payload stands for the fingerprint of a call; 0: not recorded. Either: the call does not tell
	// whether it joined or got what was kept.
	Payload uint8
	Either  bool

	// Of Forgot, Looked and Resolved: what they answered. Of Evicted: what the key was, Held or not.
	OK       bool
	State    idemflight.State
	Releases bool // Resolved, without a value
}

func (o Op) String() string {
	s := fmt.Sprintf("[%d, %d] client %d %v", o.Call, o.Ret, o.Client, o.Kind)
	switch o.Kind {
	case Ran:
		if o.Reconciles {
			s += " Reconcile"
		}
		return s + fmt.Sprintf(" %d, from %d to %d, %v", o.ID, o.Start, o.End, o.Becomes)
	case Forgot:
		return s + fmt.Sprintf(" %v", o.OK)
	case Looked:
		return s + fmt.Sprintf(" %v %v %d", o.OK, o.State, o.ID)
	case Evicted:
		return s + fmt.Sprintf(" %v", o.State)
	case Resolved:
		return s + fmt.Sprintf(" %v %d, releases %v", o.OK, o.ID, o.Releases)
	}
	return s + fmt.Sprintf(" %d", o.ID)
}
