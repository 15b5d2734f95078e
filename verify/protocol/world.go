package main

import "cmp"

// How much one world can hold. explore panics if a configuration needs more claim IDs.
const (
	maxClaims  = 11
	maxCallers = 4
	maxLate    = 3
)

// claimID is a claim ID that something in the world still bears. 0: none.
type claimID uint8

// world is one state of everything: what the engine keeps, what is on its way, where each process stands,
// and, for the invariants alone, what has really happened.
type world struct {
	record  record
	before  record      // with RelaxedClaims: what a crash of the engine brings back; no ID and no state: nothing
	undoes  bool        // before is in force
	tx      transaction // of a user, in which SettleTx wrote
	callers [maxCallers]caller
	late    [maxLate]request
	truth   [maxClaims + 1]execution // by claim ID
	told    claimID                  // the outcome that callers were told in this life of the key
	drops   uint8                    // lives that have ended
}

// state of a record: see the drawing in store.go.
type state uint8

const (
	noRow state = iota
	closed
	claimed
	begun
	reconciling
	retained
	held
	numberStates = iota
)

type disposition uint8

const (
	unsettled disposition = iota
	release
	retain
	hold
)

type record struct {
	state     state
	id        claimID
	announced bool
	leaseOver bool
	forgotten claimID     // not 0: marked by Forget. Whose flight it met only the invariants ask
	settled   disposition // what the claim was settled with; also of a closed row
	outcome   claimID     // whose effect the outcome tells of
	started   claimID     // whose execution StartedAt tells of (in configurations that look at it)
}

func (r *record) open() bool   { return r.state == claimed || r.state == begun || r.state == reconciling }
func (r *record) alive() bool  { return r.open() && !r.leaseOver }
func (r *record) absent() bool { return r.state == noRow || r.state == closed }

// transaction of a user. While it is open its owner's record is locked.
type transaction struct {
	owner claimID // 0: there is none
	sent  bool    // COMMIT is with the server, which has not decided
}

// place is where a caller stands.
type place uint8

const (
	idle         place = iota
	claiming           // has no answer to its Claim
	askingBank         // was granted a held key: Reconcile, or an operator, finds out
	restarting         // Reconcile said Retryable: Begin comes before fn
	running            // fn, before its effect
	mayEffect          // BeginEffect has said nil
	atBank             // the effect is sent, its answer awaited
	inTx               // SettleTx has said nil
	committing         // COMMIT is sent, its answer awaited
	settling           // has no answer to its Settle
	offering           // its callers were told ErrOutcomeUnknown(ErrStore): the heartbeat offers the outcome again
	givingBack         // its Claim was never answered: the heartbeat gives it back
	numberPlaces = iota
)

// caller is a call in some process, with the flight that it leads, or what the process owes a flight that
// has ended. Processes share nothing, so it makes no difference which callers are in one.
type caller struct {
	at          place
	id          claimID
	replaces    claimID
	from        state // in which Replaces was seen: claimed (in flight) or held
	stale       bool  // the key was free in between, and Replaces was granted it again: its StartedAt is another
	operator    bool  // Resolve, or Cache.Reconcile: has no fn
	begun       bool  // BeginEffect has said nil
	asked       bool  // SettleTx has said nil
	disposition disposition
	outcome     claimID
}

type verb uint8

const (
	noVerb verb = iota
	claim
	begin
	settle
	forget
	giveBack
)

// request is a verb on its way to the engine.
type request struct {
	verb        verb
	id          claimID
	replaces    claimID
	from        state
	stale       bool // as above
	reconcile   bool
	disposition disposition
	outcome     claimID
}

// execution is the truth about a claim. No verb looks at it.
type execution struct {
	lost       bool  // another ID is in its place, or the user dropped what read as held
	revived    bool  // and then a late Claim of its own found the key free
	begun      bool  // it may have an effect, for all that others can know
	sent       bool  // its effect is on its way to the bank
	happened   bool  // its effect took place
	writtenOff bool  // somebody answered Retryable while its effect could still arrive: promise 32
	expired    bool  // the bank takes its effect no more
	past       uint8 // how many lives of the key have ended since it began
}

// doubtful reports whether, in this life of the key, an effect of the execution may have happened.
func (e *execution) doubtful() bool {
	return e.past == 0 && (e.begun || e.happened) && !e.writtenOff
}

// fresh returns a claim ID that nothing in the world bears.
func (w *world) fresh() claimID {
	var used [maxClaims + 1]bool
	for _, id := range w.ids() {
		used[*id] = true
	}
	for id := claimID(1); id <= maxClaims; id++ {
		if !used[id] && !matters(&w.truth, id) {
			w.truth[id] = execution{}
			return id
		}
	}
	panic("a world needs more claim IDs: raise maxClaims")
}

const numberIDs = 2*4 + 2 + 3*maxCallers + 3*maxLate

// ids returns every place for a claim ID.
func (w *world) ids() (all [numberIDs]*claimID) {
	n := 0
	add := func(ids ...*claimID) { n += copy(all[n:], ids) }
	for _, r := range []*record{&w.record, &w.before} {
		add(&r.id, &r.forgotten, &r.outcome, &r.started)
	}
	add(&w.tx.owner, &w.told)
	for i := range w.callers {
		c := &w.callers[i]
		add(&c.id, &c.replaces, &c.outcome)
	}
	for i := range w.late {
		q := &w.late[i]
		add(&q.id, &q.replaces, &q.outcome)
	}
	return all
}

// matters reports whether an invariant can still ask for the truth about id, should nothing bear it.
func matters(truth *[maxClaims + 1]execution, id claimID) bool {
	e := &truth[id]
	if e.sent || e.doubtful() {
		return true
	}
	if !e.happened {
		return false
	}
	for other := range truth { // an effect of the same life may follow
		o := &truth[other]
		if claimID(other) != id && o.past == e.past && (o.begun || o.sent) {
			return true
		}
	}
	return false
}

// renaming says where normalize has put callers and claim IDs: old place → new place.
type renaming struct {
	callers [maxCallers]int
	claims  [maxClaims + 1]claimID
}

// normalize puts callers and late requests in order and numbers the claim IDs as they occur: worlds that
// differ in nothing else are one. What nobody can ask for any more is forgotten.
func (w *world) normalize() (to renaming) {
	// Callers, by what they do; a few, so the simplest sort.
	var order [maxCallers]int
	for i := range order {
		order[i] = i
		for j := i; j > 0 && w.callers[order[j]].compare(&w.callers[order[j-1]]) < 0; j-- {
			order[j], order[j-1] = order[j-1], order[j]
		}
	}
	old := w.callers
	for place, i := range order {
		w.callers[place] = old[i]
		to.callers[i] = place
	}
	for i := range w.late {
		for j := i; j > 0 && w.late[j].compare(&w.late[j-1]) < 0; j-- {
			w.late[j], w.late[j-1] = w.late[j-1], w.late[j]
		}
	}

	was := w.truth
	w.truth = [maxClaims + 1]execution{}
	var next claimID
	for _, id := range w.ids() {
		if *id == 0 {
			continue
		}
		if to.claims[*id] == 0 {
			next++
			to.claims[*id] = next
			w.truth[next] = was[*id]
		}
		*id = to.claims[*id]
	}
	for id := claimID(1); id <= maxClaims; id++ {
		if to.claims[id] == 0 && was[id] != (execution{}) && matters(&was, id) {
			next++
			to.claims[id] = next
			w.truth[next] = was[id]
		}
	}
	return to
}

// compare orders callers by all but their claim IDs.
func (c *caller) compare(d *caller) int {
	return cmp.Or(cmp.Compare(d.at, c.at), cmp.Compare(c.from, d.from), cmp.Compare(c.disposition, d.disposition),
		cmp.Compare(bits(c.operator, c.begun, c.asked, c.stale), bits(d.operator, d.begun, d.asked, d.stale)))
}

// compare orders requests; no request comes last.
func (m *request) compare(n *request) int {
	return cmp.Or(cmp.Compare(n.verb, m.verb), cmp.Compare(m.from, n.from), cmp.Compare(m.disposition, n.disposition),
		cmp.Compare(m.id, n.id), cmp.Compare(m.replaces, n.replaces), cmp.Compare(m.outcome, n.outcome),
		cmp.Compare(bits(m.reconcile, m.stale), bits(n.reconcile, n.stale)))
}

func bits(of ...bool) (n int) {
	for _, bit := range of {
		n *= 2
		if bit {
			n++
		}
	}
	return n
}
