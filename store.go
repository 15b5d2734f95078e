package idemflight

import (
	"context"
	"time"
)

// Store keeps one record per key in an engine that exists already, so that Do keeps its word over a crash
// and among processes. It is the truth; what the process has in memory is a copy of outcomes.
//
// # States of a record
//
//	absent ──Claim──▶ claimed ──Begin──▶ begun ──Settle Retain──▶ retained ──TTL, Forget──▶ absent
//	                    │  ▲               └─────Settle Hold────▶ held ──HoldTTL, Forget──▶ absent
//	                    │  └ Claim, lease over, announced          │  ▲
//	                    └──── Settle Release ──▶ absent            ▼  └ lease over, or learned nothing
//	   claimed (not announced) or begun, lease over: reads as held   reconciling (held + claim + lease)
//
// A record is open while an execution owns it: claimed, begun or reconciling. It bears the [ClaimID] of
// that execution, which every verb compares inside the engine: that is the fence. The lease decides only
// when others may look; the ownership is lost only to a takeover, which replaces the ID. So a late owner
// that nobody has replaced still begins and settles, and one that was replaced does neither. What reads as
// held is computed by who reads: nobody has to write it, and the late owner can still settle.
//
// # Rules for implementers
//
// Each verb is one atomic step of the engine, durable before it returns, and may come twice: the same
// request, repeated since its answer was lost, gets the same answer and changes nothing more. It may also
// come late, long after others have acted. All times are the engine's clock; no verb trusts that of a
// process. [ErrClaimLost] and [ErrInvalidKey] (a key that the engine cannot hold) are answers; every other
// error means "not known", and the verb is repeated. A verb ends soon after its context, with ctx.Err() and not
// its cause, which may be one of these. Keys, values and
// errors are any bytes; a nil slice and an empty one are told apart. All methods are safe for concurrent use.
//
// What ends as absent stays as a closed row for at least a lease, or until another execution claims the key:
// it reads as absent, keeps its ID and what it was settled with, answers a repeat of its Settle, and refuses
// a late Claim with its ID.
//
// The package storetest has the tests that a Store must pass.
type Store interface {
	// Claim asks for the right to run. In this order:
	//
	//	the record bears r.ID    open: granted, as the first time; closed: not granted
	//	r.Replaces is zero       granted where there is nothing, which includes what has expired
	//	r.Replaces is the        r.From InFlight: granted if it is claimed, announced, and its lease is over;
	//	record's ID              r.From Held: granted with r.Reconcile if it reads as held, with the same
	//	                         fingerprint
	//	otherwise                not granted
	//
	// A grant writes r's ID, lease and HoldTTL and takes a mark of Forget away; of a held record the error,
	// and the times stay until it settles. The answer is, if it is granted, a Standing with Granted, r's ID
	// and State 0 for a fresh claim or Held for one that is to be reconciled, with the error and the times of
	// the hold; otherwise what [Store.Read] says. Granted says nothing about what other requests have done
	// since.
	Claim(ctx context.Context, r ClaimRequest) (Standing, error)

	// Begin notes, before an effect, that one may have taken place. If the record is open and bears c.ID: it is
	// begun, and its lease ends in the given time, or later if it did; one that was being reconciled has
	// started now, and has no error any more. Otherwise [ErrClaimLost].
	Begin(ctx context.Context, c Claim, lease time.Duration) error

	// Settle ends the execution. If the record is open and bears c.ID: Retain makes it retained with value,
	// error and TTL (a closed row, if it was forgotten, and the answer says Forgotten), Hold makes it held (of
	// a record that was being reconciled error and times stay, only its end is new), Release a closed row. The
	// answer is the zero Standing, but for Forgotten.
	//
	// If it bears c.ID and is closed, nothing changes, and the answer is the outcome that counts: what it
	// was settled with, also if it reads as absent by now. Otherwise [ErrClaimLost].
	Settle(ctx context.Context, c Claim, s Settlement) (Standing, error)

	// Renew moves the ends of the leases of all claims that are open and owned: now + lease. It returns
	// those that are not, and does not wait for a record that somebody is writing, whose owner is alive.
	Renew(ctx context.Context, cs []Claim, lease time.Duration) (lost []ClaimID, err error)

	// Watch returns nil once the record is no longer in flight by this claim, or its lease has ended; it may
	// return nil too early.
	Watch(ctx context.Context, c Claim) error

	// Read returns what is known of a key. In flight with ExpiresIn 0 is one that is claimed, announced, and
	// whose lease is over: its owner has certainly begun nothing.
	Read(ctx context.Context, key string) (Standing, error)

	// GiveBack undoes a Claim whose answer never came. If the record is open and bears c.ID: claimed becomes a
	// closed row, reconciling becomes held as it was. Otherwise nothing changes, and that is no error.
	GiveBack(ctx context.Context, c Claim) error

	// Forget drops the record that bears c.ID, and reports whether there was anything. One that is alive in
	// flight is marked: it will not be retained (but is held, if it comes to that). If it was settled with
	// Retain in a user's transaction, the closed row is kept until the lease would have ended.
	Forget(ctx context.Context, c Claim) (bool, error)

	// Unsettled calls f for every key in flight or held, what reads as held included, until f returns an
	// error, which it returns. It may scan.
	Unsettled(ctx context.Context, f func(key string, s Standing) error) error
}

// ClaimID names one claim. It is made at random for every request, and never used again.
type ClaimID [16]byte

// Claim is the right to run one execution of a key.
type Claim struct {
	Key string // as Options.Codec encodes it
	ID  ClaimID
}

// ClaimRequest asks for a claim: see [Store].
type ClaimRequest struct {
	Claim
	Fingerprint      Fingerprint
	Lease            time.Duration
	HoldTTL          time.Duration // of the hold that the record reads as if the owner dies; negative: without end
	EffectsAnnounced bool          // the owner begins no effect without Begin, or without settling in its transaction
	Reconcile        bool          // the owner will find out about a held key
	Replaces         ClaimID       // zero: only where there is nothing; otherwise only over this claim
	From             State         // in which that was seen: InFlight or Held
}

// Standing is what a [Store] knows of a key.
type Standing struct {
	State            State // Absent, InFlight, Retained or Held
	Granted          bool  // answer of Claim
	Begun, Forgotten bool
	ID               ClaimID
	Fingerprint      Fingerprint
	Value, Err       []byte    // Err is nil if there was none, and of what is held because its owner died
	StartedAt        time.Time // by the engine's clock; of what waits for Reconcile's answer, those of the hold
	CompletedAt      time.Time // of what is held because its owner died: when the lease ended

	// ExpiresIn is counted by the engine when it answered: until the record expires, or in flight until the
	// lease ends (0: it has). Negative: never.
	ExpiresIn time.Duration
}

// Settlement is what becomes of a claim: see [Store].Settle.
type Settlement struct {
	Disposition Disposition
	Value, Err  []byte
	TTL         time.Duration // of what is retained (not above 0: a closed row); of a hold its HoldTTL, negative: without end
}
