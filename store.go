package idemflight

import (
	"context"
	"time"
)

// Store keeps one record per key in an engine that you already have, so that Do keeps its promises
// across crashes and among processes. The store is authoritative; a process keeps only copies of
// outcomes in memory.
//
// # States of a record
//
//	absent ──Claim──▶ claimed ──Begin──▶ begun ──Settle Retain──▶ retained ──TTL, Forget──▶ absent
//	                    │  ▲               └─────Settle Hold────▶ held ──HoldTTL, Forget──▶ absent
//	                    │  └ Claim, lease over, announced          │  ▲
//	                    └──── Settle Release ──▶ absent            ▼  └ lease over, or learned nothing
//	   claimed (not announced) or begun, lease over: reads as held   reconciling (held + claim + lease)
//
// A record is open while an execution owns it: claimed, begun or reconciling. It bears the
// [ClaimID] of that execution, which every verb compares inside the engine: that is the fence. The
// lease decides only when others may take over; ownership is lost only to a takeover, which
// replaces the ID. So a late owner that was not replaced can still begin and settle, and one that
// was replaced can do neither. That a record reads as held is computed by the reader: nothing has
// to be written, and a late owner can still settle.
//
// # Rules for implementers
//
// Each verb is one atomic step of the engine, and durable before it returns. It may come twice: a
// request that is repeated because its answer was lost gets the same answer and changes nothing
// more (only Forget, whose claim is gone by then, may report false). It may also come late, long
// after others have acted.
//
// All times are by the engine's clock; no verb trusts the clock of a process.
//
// [ErrClaimLost] and [ErrInvalidKey] (a key that the engine cannot hold) are answers. Every
// other error means that the result is not known, and the verb is repeated. A verb returns
// soon after its context ends, with ctx.Err() and not with the context's cause, which may be
// one of these two errors.
//
// Keys, values and errors are arbitrary bytes; a nil slice and an empty one differ. All methods
// must be safe for concurrent use.
//
// A record that ends as absent stays as a closed row for at least a lease, or until another
// execution claims the key: it reads as absent, keeps its ID and what it was settled with, answers
// a repeat of its Settle, and refuses a late Claim with its ID.
//
// Package storetest has the tests that a Store must pass.
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
	// A grant writes r's ID, lease and HoldTTL, and clears a mark of Forget; the error and the
	// times of a held record stay until it settles. If the claim is granted, the answer is a
	// Standing with Granted, r's ID, and State 0 for a fresh claim or Held for one that is to be
	// reconciled, with the error and the times of the hold. Otherwise it is what [Store.Read]
	// returns. Granted says nothing about what other requests have done since.
	Claim(ctx context.Context, r ClaimRequest) (Standing, error)

	// Begin notes, before an effect, that one may have taken place. If the record is open and bears
	// c.ID, it is begun, and its lease ends after the given time, or later if it already did; a
	// record that was being reconciled starts now, and loses its error. Otherwise [ErrClaimLost].
	Begin(ctx context.Context, c Claim, lease time.Duration) error

	// Settle ends the execution. If the record is open and bears c.ID: Retain makes it retained,
	// with value, error and TTL (or, if it was forgotten, a closed row, and the answer says
	// Forgotten); Hold makes it held (if it was being reconciled, its error and times stay, and
	// only its end is new); Release makes it a closed row. The answer is the zero Standing,
	// except for Forgotten.
	//
	// If the record bears c.ID and was settled before, nothing changes, and the answer is the
	// outcome that counts: what it was settled with, even if it reads as absent by now.
	// Otherwise [ErrClaimLost].
	Settle(ctx context.Context, c Claim, s Settlement) (Standing, error)

	// Renew moves the ends of the leases of all claims whose records are open and bear their IDs to
	// now + lease, and returns the IDs of the others. It does not wait for a record that is being
	// written: its owner is alive.
	Renew(ctx context.Context, cs []Claim, lease time.Duration) (lost []ClaimID, err error)

	// Watch returns nil once the record is no longer in flight under this claim, or its lease has
	// ended. It may return nil too early.
	Watch(ctx context.Context, c Claim) error

	// Read returns what is known of a key. InFlight with ExpiresIn 0 means a record that is
	// claimed, announced, and whose lease is over: its owner has certainly begun nothing.
	Read(ctx context.Context, key string) (Standing, error)

	// GiveBack undoes a Claim whose answer never came. If the record is open and bears c.ID,
	// claimed becomes a closed row, and reconciling becomes held as it was. Otherwise nothing
	// changes, which is no error.
	GiveBack(ctx context.Context, c Claim) error

	// Forget drops the record that bears c.ID, and reports whether there was anything. A record
	// that is in flight, with its lease running, is marked: it will not be retained (though it is
	// held, if it comes to that). If it was settled with Retain in a user's transaction, the closed
	// row is kept until the lease would have ended.
	Forget(ctx context.Context, c Claim) (bool, error)

	// Unsettled calls f for every key that is in flight or reads as held, until f returns an error,
	// which it returns. It may scan all records.
	Unsettled(ctx context.Context, f func(key string, s Standing) error) error
}

// ClaimID names one claim. It is random, made for one request and its repeats,
// and never used again.
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
	HoldTTL          time.Duration // of the hold that is left if the owner dies; negative: without end
	EffectsAnnounced bool          // no effect begins without Begin, except in a transaction that settles
	Reconcile        bool          // the owner will find out what became of a held key
	Replaces         ClaimID       // the claim to replace; zero: grant only where there is nothing
	From             State         // in which that claim was seen: InFlight or Held
}

// Standing is what a [Store] knows of a key.
type Standing struct {
	State            State // Absent, InFlight, Retained or Held
	Granted          bool  // in an answer of Claim
	Begun, Forgotten bool
	ID               ClaimID
	Fingerprint      Fingerprint
	Value, Err       []byte // Err is nil if there was none, or if the owner died

	// Times are by the engine's clock. While a hold is being reconciled, they are those of the
	// hold. If the owner died, CompletedAt is when the lease ended.
	StartedAt, CompletedAt time.Time

	// ExpiresIn is how long, when the engine answered, it was until the record expires; or, in
	// flight, until the lease ends (0: it has ended). Negative: never.
	ExpiresIn time.Duration
}

// Settlement is what becomes of a claim: see [Store].Settle.
type Settlement struct {
	Disposition Disposition
	Value, Err  []byte

	// TTL is that of a retained outcome (0 or less: a closed row), or the HoldTTL of a hold
	// (negative: without end).
	TTL time.Duration
}
