// Package record is the state machine of one record of a [idemflight.Store], for engines that run Go code in
// a transaction. Its functions are pure: each takes the record as it is and returns what to put in its place,
// which is the same where nothing changes. [idemflight.Store] says what the verbs promise; this says how.
//
//	Absent ──Claim──▶ Claimed ──Begin──▶ Begun ──Settle──▶ Retained, Held or Closed
//	Held, or dead ──Claim──▶ Reconciling ──Begin──▶ Begun
//	                             └──Settle──▶ Retained, Held or Closed
//
// No function keeps or gives away a slice that is another's. None is slower than copying value and error.
package record

import (
	"bytes"
	"math"
	"time"

	"github.com/idemflight/idemflight"
)

// State is what is written in a record. What a record reads as depends on the time, too: see [Read].
type State byte

const (
	Absent      State = iota // the zero Record: there is none
	Claimed                  // open: owned by an execution, no effect yet
	Begun                    // open: an effect may have taken place
	Reconciling              // open: held, and somebody finds out
	Retained
	Held
	Closed // reads as absent; answers late repeats until it ends
	states
)

// open reports whether an execution owns the record.
func (s State) open() bool { return s == Claimed || s == Begun || s == Reconciling }

// Forever is the time, in ns since 1970, of what never ends.
const Forever int64 = math.MaxInt64

// Record is what an engine keeps of one key. All times are in ns since 1970 by the engine's clock.
type Record struct {
	State       State
	Settled     bool                   // by the owner of ID, with Disposition
	Disposition idemflight.Disposition // if Settled
	Announced   bool                   // the owner's EffectsAnnounced
	Forgotten   bool                   // while it was open
	ID          idemflight.ClaimID
	Fingerprint idemflight.Fingerprint
	Epoch       uint64        // At.Epoch of the claim
	Lease, Hold time.Duration // the owner's Lease and HoldTTL
	Leased      int64         // end of the lease
	Started     int64
	Completed   int64 // zero while Claimed or Begun
	Expires     int64 // of Retained, Held, Reconciling: of what is kept; of Closed: of the row
	Value, Err  []byte
}

// At is when and where a verb acts.
type At struct {
	Now   int64  // by the engine's clock
	Epoch uint64 // written into claims, for LeaseEnd

	// LeaseEnd returns when the lease of an open record ends or has ended, Forever if its owner is alive for
	// certain. Nil: Record.Leased.
	LeaseEnd func(Record) int64
}

func (at At) leaseEnd(r Record) int64 {
	if at.LeaseEnd == nil {
		return r.Leased
	}
	return at.LeaseEnd(r)
}

// alive reports whether the owner of r may be alive. The end of the lease itself counts as over.
func (at At) alive(r Record) bool { return r.State.open() && at.Now < at.leaseEnd(r) }

// after returns t + d, Forever if d is negative or the sum is too far away.
func after(t int64, d time.Duration) int64 {
	if d < 0 || t > Forever-int64(d) {
		return Forever
	}
	return t + int64(d)
}

// left returns the time that is left until t; negative only for Forever.
func (at At) left(t int64) time.Duration {
	if t == Forever {
		return -1
	}
	return time.Duration(max(0, t-at.Now))
}

// Read returns what r reads as.
func Read(r Record, at At) idemflight.Standing {
	x := r.standing()
	switch {
	case at.alive(r):
		x.State, x.ExpiresIn = idemflight.InFlight, at.left(at.leaseEnd(r))
		return x
	case r.State == Claimed && r.Announced: // its owner has begun nothing: the next one runs
		x.State = idemflight.InFlight
		return x
	case r.State.open() || r.State == Held:
		r = r.heldBy(at)
		x.State, x.CompletedAt, x.ExpiresIn = idemflight.Held, unix(r.Completed), at.left(r.Expires)
	case r.State == Retained:
		x.State, x.ExpiresIn = idemflight.Retained, at.left(r.Expires)
	}
	if x.ExpiresIn == 0 { // expired, closed or absent
		return idemflight.Standing{}
	}
	return x
}

// heldBy returns r as held; its owner, if it has one, is dead.
func (r Record) heldBy(at At) Record {
	if r.State == Claimed || r.State == Begun {
		r.Completed = at.leaseEnd(r)
		r.Expires = after(r.Completed, r.Hold)
	}
	r.State = Held
	return r
}

// standing returns all of a Standing that does not depend on the time.
func (r Record) standing() idemflight.Standing {
	return idemflight.Standing{
		ID: r.ID, Fingerprint: r.Fingerprint, Begun: r.State == Begun, Forgotten: r.Forgotten,
		Value: bytes.Clone(r.Value), Err: bytes.Clone(r.Err),
		StartedAt: unix(r.Started), CompletedAt: unix(r.Completed),
	}
}

func unix(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// owns reports whether an execution with this ID owns r. The lease does not matter: a late owner that
// nobody has replaced still owns.
func (r Record) owns(id idemflight.ClaimID) bool { return r.State.open() && r.ID == id }

// Claim is [idemflight.Store].Claim.
func Claim(r Record, q idemflight.ClaimRequest, at At) (Record, idemflight.Standing) {
	seen := Read(r, at)
	var none idemflight.ClaimID
	switch {
	case r.owns(q.ID): // a repeat: the same answer, and nothing new
		return r, r.granted()
	case r.State != Absent && r.ID == q.ID: // a late duplicate: its execution is over
		return r, seen
	case q.Replaces == none && seen.State == idemflight.Absent:
		return r.claimed(q, at)
	case q.Replaces == none || q.Replaces != r.ID: // what the caller saw is no longer there
		return r, seen
	case q.From == idemflight.InFlight && seen.State == idemflight.InFlight && seen.ExpiresIn == 0:
		return r.claimed(q, at)
	case q.From == idemflight.Held && seen.State == idemflight.Held && q.Reconcile && q.Fingerprint == r.Fingerprint:
		r = r.heldBy(at) // error, times and end are written down: they are given back if nothing is learned
		r.State, r.Settled = Reconciling, false
		return r.own(q, at)
	}
	return r, seen
}

func (r Record) claimed(q idemflight.ClaimRequest, at At) (Record, idemflight.Standing) {
	return Record{State: Claimed, Fingerprint: q.Fingerprint, Started: at.Now}.own(q, at)
}

// own makes q the owner of r.
func (r Record) own(q idemflight.ClaimRequest, at At) (Record, idemflight.Standing) {
	r.ID, r.Announced, r.Lease, r.Hold, r.Epoch = q.ID, q.EffectsAnnounced, q.Lease, q.HoldTTL, at.Epoch
	r.Leased = after(at.Now, max(0, q.Lease))
	r.Forgotten = false // what a new owner finds out is kept
	return r, r.granted()
}

// granted is the answer to a Claim that owns r.
func (r Record) granted() idemflight.Standing {
	if r.State != Reconciling {
		return idemflight.Standing{Granted: true, ID: r.ID}
	}
	x := r.standing()
	x.Granted, x.State = true, idemflight.Held
	return x
}

// Begin is [idemflight.Store].Begin.
func Begin(r Record, c idemflight.Claim, lease time.Duration, at At) (Record, error) {
	if !r.owns(c.ID) {
		return r, idemflight.ErrClaimLost
	}
	if r.State == Reconciling { // no effect was found: what was held is over, and fn starts now
		r.Started, r.Completed, r.Expires, r.Value, r.Err = at.Now, 0, 0, nil, nil
	}
	r.State = Begun
	r.Leased = max(r.Leased, after(at.Now, max(0, lease)))
	return r, nil
}

// Settle is [idemflight.Store].Settle.
func Settle(r Record, c idemflight.Claim, s idemflight.Settlement, at At) (Record, idemflight.Standing, error) {
	switch {
	case r.State != Absent && r.ID == c.ID && r.Settled: // a repeat: what counts is the first
		return r, r.outcome(at), nil
	case !r.owns(c.ID):
		return r, idemflight.Standing{}, idemflight.ErrClaimLost
	}
	wasReconciling := r.State == Reconciling
	r.Settled, r.Disposition = true, s.Disposition
	if s.Disposition != idemflight.Hold || !wasReconciling { // who learned nothing leaves error and times alone
		r.Value, r.Err, r.Completed = bytes.Clone(s.Value), bytes.Clone(s.Err), at.Now
	}
	switch {
	case s.Disposition == idemflight.Hold:
		r.State, r.Expires = Held, after(at.Now, s.TTL)
		r.Forgotten = false // an effect that may have taken place is not to be forgotten unseen
	case s.Disposition == idemflight.Retain && s.TTL > 0 && !r.Forgotten:
		r.State, r.Expires = Retained, after(at.Now, s.TTL)
	default:
		r = r.closed(at)
	}
	return r, idemflight.Standing{Forgotten: r.Forgotten && s.Disposition == idemflight.Retain}, nil
}

// outcome returns what r was settled with, also if it reads as absent by now.
func (r Record) outcome(at At) idemflight.Standing {
	x := r.standing()
	switch r.Disposition {
	case idemflight.Retain:
		x.State = idemflight.Retained
	case idemflight.Hold:
		x.State = idemflight.Held
	}
	if r.State != Closed {
		x.ExpiresIn = at.left(r.Expires)
	}
	return x
}

// closed returns r as a row that reads as absent, for as long as a repeat or a late duplicate may come.
func (r Record) closed(at At) Record {
	r.Expires = after(at.Now, max(0, r.Lease))
	if r.State.open() {
		r.Expires = max(r.Expires, r.Leased)
	}
	r.State = Closed
	return r
}

// Renew is [idemflight.Store].Renew of one claim; it reports whether the claim is still owned.
func Renew(r Record, c idemflight.Claim, lease time.Duration, at At) (Record, bool) {
	if !r.owns(c.ID) {
		return r, false
	}
	r.Leased = after(at.Now, max(0, lease))
	return r, true
}

// GiveBack is [idemflight.Store].GiveBack. The ID stays, so that a late duplicate of the Claim is refused.
func GiveBack(r Record, c idemflight.Claim, at At) Record {
	switch {
	case !r.owns(c.ID):
	case r.State == Claimed:
		return r.closed(at)
	case r.State == Reconciling: // never absent: the effect of the one before may have taken place
		r.State, r.Settled, r.Disposition = Held, true, idemflight.Hold
	}
	return r
}

// Forget is [idemflight.Store].Forget.
func Forget(r Record, c idemflight.Claim, at At) (Record, bool) {
	switch {
	case r.ID != c.ID || Read(r, at).State == idemflight.Absent: // what came after is not meant
		return r, false
	case at.alive(r): // its owner decides; what it retains is dropped
		r.Forgotten = true
		return r, true
	}
	r.Forgotten = true
	return r.closed(at), true
}

// InFlight reports whether r is in flight by this claim, and alive: [idemflight.Store].Watch goes on.
func InFlight(r Record, c idemflight.Claim, at At) bool { return r.ID == c.ID && at.alive(r) }

// End returns when the engine may drop r: once nobody can want anything of it. Forever is never.
func End(r Record, at At) int64 {
	lease := max(0, r.Lease)
	switch r.State {
	case Claimed, Begun: // as long as it would be held; until then a late owner may come
		return after(after(at.leaseEnd(r), r.Hold), lease)
	case Reconciling:
		return after(max(at.leaseEnd(r), r.Expires), lease)
	case Retained, Held: // then for a lease like a closed row
		return after(r.Expires, lease)
	}
	return r.Expires
}
