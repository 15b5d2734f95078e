// Package storetable is section 4 of the contract of the store as data: what each verb of an
// [idemflight.Store] answers in each state of a record. storetest runs it on stores; a model can run it, too.
package storetable

// What a record reads as.
const (
	Absent   = "absent"
	InFlight = "in flight"
	Dead     = "in flight, dead" // lease over, announced, nothing begun
	Retained = "retained"
	Held     = "held"
)

// Answers.
const (
	Granted   = "granted"     // of Claim, with State 0
	ToFindOut = "to find out" // of Claim: granted, with State Held
	Refused   = "refused"     // of Claim: what the record reads as, and nothing changes
	OK        = "ok"
	Forgotten = "forgotten" // of Settle: ok, but what would be retained is absent, and the answer says so
	Lost      = "lost"      // ErrClaimLost, and nothing changes
	Marked    = "marked"    // of Forget: true, still in flight, and Forgotten
	Dropped   = "dropped"   // of Forget: true, and absent
	Nothing   = "nothing"   // of Forget: false, and nothing changes
	Any       = "any"       // not promised
)

// State is a state of a record, and a column for each verb. The owner is who claimed last, unless he was
// replaced: then he is the one whose verbs must be refused.
//
// Steps lead from absent to the state: claim, announce (claim with EffectsAnnounced), begin, retain, unkept
// (retain with TTL 0), hold, release, giveback, forget, expire (wait until it reads as absent), die (the
// owner's lease ends), replace (another claims what is announced and dead), reconcile (the owner is from now
// on who reconciles), reconciled (another reconciles; the owner stays), again (another claims what is absent).
// All steps take the leases and TTLs of the runner; "brief" before retain or hold stands for a TTL that ends
// within the test.
//
// Each verb comes twice, and the second must be answered like the first. A column for Settle that is OK or
// Forgotten is tried with each Disposition; a state there is the outcome that any repeat is answered with,
// and nothing changes. GiveBack says what the record reads as afterwards.
type State struct {
	Name      string
	Steps     string
	Reads     string
	Claim     string // by another, where there is nothing
	Again     string // the owner's Claim, repeated
	TakeOver  string // Claim by another that Replaces the owner, From InFlight
	Reconcile string // Claim by another that Replaces the owner, From Held
	Begin     string
	Settle    string
	Renew     string
	GiveBack  string
	Forget    string
}

// States are all of them.
var States = []State{
	// name, steps, reads
	//	claim, again, take over, reconcile
	//	begin, settle, renew, give back, forget
	{"absent", "", Absent,
		Granted, Granted, Refused, Refused,
		Lost, Lost, Lost, Absent, Nothing},
	{"claimed", "claim", InFlight,
		Refused, Granted, Refused, Refused,
		OK, OK, OK, Absent, Marked},
	{"announced", "announce", InFlight,
		Refused, Granted, Refused, Refused,
		OK, OK, OK, Absent, Marked},
	{"claimed and dead", "claim die", Held,
		Refused, Granted, Refused, ToFindOut,
		OK, OK, OK, Absent, Dropped},
	{"announced and dead", "announce die", Dead,
		Refused, Granted, Granted, Refused,
		OK, OK, OK, Absent, Dropped},
	{"claimed and marked", "claim forget", InFlight,
		Refused, Granted, Refused, Refused,
		OK, Forgotten, OK, Absent, Marked},
	{"begun", "claim begin", InFlight,
		Refused, Granted, Refused, Refused,
		OK, OK, OK, InFlight, Marked},
	{"begun, announced", "announce begin", InFlight,
		Refused, Granted, Refused, Refused,
		OK, OK, OK, InFlight, Marked},
	{"begun and marked", "claim begin forget", InFlight,
		Refused, Granted, Refused, Refused,
		OK, Forgotten, OK, InFlight, Marked},
	{"begun and dead", "announce begin die", Held,
		Refused, Granted, Refused, ToFindOut,
		OK, OK, OK, Held, Dropped},
	{"retained", "claim begin retain", Retained,
		Refused, Refused, Refused, Refused,
		Lost, Retained, Lost, Retained, Dropped},
	{"retained, announced, never begun", "announce retain", Retained,
		Refused, Refused, Refused, Refused,
		Lost, Retained, Lost, Retained, Dropped},
	{"retained and expired", "claim brief retain expire", Absent,
		Granted, Refused, Refused, Refused,
		Lost, Retained, Lost, Absent, Nothing},
	{"retained and forgotten", "claim retain forget", Absent,
		Granted, Refused, Refused, Refused,
		Lost, Retained, Lost, Absent, Nothing},
	{"retained with TTL 0", "claim unkept", Absent,
		Granted, Refused, Refused, Refused,
		Lost, Retained, Lost, Absent, Nothing},
	{"marked, then retained", "claim begin forget retain", Absent,
		Granted, Refused, Refused, Refused,
		Lost, Retained, Lost, Absent, Nothing},
	{"late, then retained", "claim begin die retain", Retained,
		Refused, Refused, Refused, Refused,
		Lost, Retained, Lost, Retained, Dropped},
	{"held", "claim hold", Held,
		Refused, Refused, Refused, ToFindOut,
		Lost, Held, Lost, Held, Dropped},
	{"marked, then held", "claim forget hold", Held,
		Refused, Refused, Refused, ToFindOut,
		Lost, Held, Lost, Held, Dropped},
	{"held and expired", "claim brief hold expire", Absent,
		Granted, Refused, Refused, Refused,
		Lost, Held, Lost, Absent, Nothing},
	{"held and forgotten", "claim hold forget", Absent,
		Granted, Refused, Refused, Refused,
		Lost, Held, Lost, Absent, Nothing},
	{"dead and forgotten", "claim begin die forget", Absent,
		Granted, Refused, Refused, Refused,
		Lost, Any, Lost, Absent, Nothing},
	{"released", "claim begin release", Absent,
		Granted, Refused, Refused, Refused,
		Lost, Absent, Lost, Absent, Nothing},
	{"released, announced, never begun", "announce release", Absent,
		Granted, Refused, Refused, Refused,
		Lost, Absent, Lost, Absent, Nothing},
	{"given back", "claim giveback", Absent,
		Granted, Refused, Refused, Refused,
		Lost, Any, Lost, Absent, Nothing},
	{"reconciling", "claim hold reconcile", InFlight,
		Refused, ToFindOut, Refused, Refused,
		OK, OK, OK, Held, Marked},
	{"reconciling what a dead owner began", "announce begin die reconcile", InFlight,
		Refused, ToFindOut, Refused, Refused,
		OK, OK, OK, Held, Marked},
	{"reconciling what was marked", "claim begin forget die reconcile", InFlight,
		Refused, ToFindOut, Refused, Refused,
		OK, OK, OK, Held, Marked},
	{"reconciling and dead", "claim hold reconcile die", Held,
		Refused, ToFindOut, Refused, ToFindOut,
		OK, OK, OK, Held, Dropped},
	{"reconciling what was begun, announced, and dead", "announce begin die reconcile die", Held,
		Refused, ToFindOut, Refused, ToFindOut,
		OK, OK, OK, Held, Dropped},
	{"reconciled, given back", "claim hold reconcile giveback", Held,
		Refused, Refused, Refused, ToFindOut,
		Lost, Held, Lost, Held, Dropped},
	{"reconciled, begun", "claim hold reconcile begin", InFlight,
		Refused, Any, Refused, Refused,
		OK, OK, OK, InFlight, Marked},
	{"reconciled, begun and dead", "claim hold reconcile begin die", Held,
		Refused, Any, Refused, ToFindOut,
		OK, OK, OK, Held, Dropped},
	{"reconciled and retained", "claim hold reconcile retain", Retained,
		Refused, Refused, Refused, Refused,
		Lost, Retained, Lost, Retained, Dropped},
	{"reconciled and held again", "claim hold reconcile hold", Held,
		Refused, Refused, Refused, ToFindOut,
		Lost, Held, Lost, Held, Dropped},
	{"replaced", "announce die replace", InFlight,
		Refused, Refused, Refused, Refused,
		Lost, Lost, Lost, InFlight, Nothing},
	{"replaced by who reconciles", "claim begin die reconciled", InFlight,
		Refused, Refused, Refused, Refused,
		Lost, Lost, Lost, InFlight, Nothing},
	{"released, and claimed by another", "claim release again", InFlight,
		Refused, Refused, Refused, Refused,
		Lost, Lost, Lost, InFlight, Nothing},
	{"forgotten, and claimed by another", "claim retain forget again", InFlight,
		Refused, Refused, Refused, Refused,
		Lost, Lost, Lost, InFlight, Nothing},
}
