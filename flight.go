package idemflight

import (
	"context"
	"time"
)

// flight is an execution and the callers waiting for it. Its phases, with the function and the lock
// (none, or the shard's mu) of each step:
//
//	               waiters join, wait and leave (mu)
//	            ┌──────────────────────────────────────┐
//	claimLocked │                                      │ settle
//	   (mu)     ▼                                      │  (mu)
//	─────────▶ flying ──fn returns──▶ judge ──▶ weigh ─┴──────▶ settled
//	   │          ▲                    ▲
//	   │          │ Retryable, and     │ anything else
//	   │          │ the leader is there│
//	   │          │ (yieldToFn, mu)    │
//	   └──▶ reconciling ──Reconcile returns
//
// From claimLocked to settle the flight is among its shard's flights. settle takes it out, inserts
// what is kept and closes done in one critical section, so that no caller finds the key in neither.
// Nothing but settle removes a flight: leaving, Forget and Close do not. All callers may leave; the
// execution goes on. If Reconcile found that there was no effect, and the leader has left, there is
// no fn to run: the flight settles with the source lookAgain, and the callers that wait look again.
//
// With a Store, a flight first asks the store, in a phase before flying and
// reconciling: see claim.go.
type flight[K comparable, V any] struct {
	// Written before the flight is published, only read after.
	key       K
	hash      uint64
	ttl       time.Duration // of its outcome, as the leader wants it; negative: Options.TTL
	startedAt time.Duration

	// Used by the goroutine that flies, and cleared by settle.
	fn func(context.Context) (V, error) // nil if Cache.Reconcile leads

	// asks is what has to be known before fn may run. It is nil once fn runs or the flight has
	// settled. It is written with mu held. The goroutine that asks is the only one to clear it
	// before the flight settles, and so reads it without.
	asks *asking[K, V]

	// done is closed when the flight settles. It is made with mu held by the first that needs it
	// (the leader, a caller that joins, Close), which may then read it without a lock.
	done chan struct{}

	// exec is the first execution; it is fn's context, and lives here to save an allocation.
	exec execution

	// Guarded by the shard's mu.
	fingerprint Fingerprint   // the leader's; if Cache.Reconcile leads, the record's, once read
	twin        *flight[K, V] // of another key with the same hash
	leaderLeft  bool          // fn must not start, and nobody reports the outcome as the leader's
	operated    operated      // whether Cache.Reconcile leads: then leaderLeft is set from the start
	forgotten   bool          // its outcome is not to be retained
	settled     bool
	waiters     int32 // joined callers that wait

	// Written with mu held before settled is set and done is closed, only read after: a goroutine
	// that has seen either may read without the lock.
	outcome outcome[V]
}

// operated says whether Cache.Reconcile leads a flight.
type operated uint8

const (
	byCall operated = iota
	byOperator
	byOperatorWhoLeft // its caller has left, so settle reports what became of it
)

// asking is a flight's question to Reconcile, and before that to the store.
type asking[K comparable, V any] struct {
	held     *record[K, V] // without a Store: what Reconcile is asked about
	stays    bool          // fn, if it follows, runs on the leader's goroutine
	answered chan struct{} // closed, with the shard's mu held, when fn follows or the flight settles
	next     *execution    // of fn, if that follows; written before answered is closed

	claiming *claiming // with a Store, which is asked first
}

// outcome is what the callers of a flight share.
type outcome[V any] struct {
	value       V
	err         error         // as callers get it
	completed   time.Duration // on the cache's clock
	expires     time.Duration // the same; 0 if it is not kept, or held without end
	took        time.Duration
	*rare             // nil if it would be empty
	waiters     int32 // as the execution ended
	source      uint8 // the leader's Source; NoOutcome if Reconcile learned nothing; or lookAgain
	disposition uint8 // a Disposition
	lost        bool  // with a Store: another process has the key, and nothing was recorded
}

// lookAgain is the source of a flight without an outcome whose callers look at the key again.
const lookAgain = ^uint8(0)

// rare is what few outcomes have.
type rare struct {
	panicked *PanicError // of fn, with its stack, for the leader to panic with
	expiry   time.Time   // if it does not follow from expires: the clock does not reach so far
	foreign  *times      // all times of the execution, if it was another process's
}

// result returns the outcome as one caller sees it; source is that caller's.
func (o *outcome[V]) result(c *clock, source Source) Result[V] {
	if Source(o.source) == NoOutcome {
		return Result[V]{}
	}
	c.syncWall()
	if o.rare != nil && o.foreign != nil {
		t := o.foreign.as(c.ahead.Load())
		return Result[V]{Value: o.value, Source: source, CompletedAt: t.completed, ExpiresAt: t.expires}
	}
	res := Result[V]{Value: o.value, Source: source, CompletedAt: c.wall(o.completed)}
	switch {
	case o.rare != nil && !o.expiry.IsZero():
		res.ExpiresAt = o.expiry
	case o.expires != 0:
		res.ExpiresAt = c.wall(o.expires)
	}
	return res
}

// ended returns the event, of the given kind, that reports f's end. f must have settled.
func (f *flight[K, V]) ended(kind EventKind) Event[K] {
	o := &f.outcome
	return Event[K]{
		Kind: kind, Key: f.key, Err: o.err, Took: o.took, Waiters: int(o.waiters), Disposition: Disposition(o.disposition),
		Origin: f.origin(),
	}
}

// origin returns the origin of f's execution, of the last one if there were two, or of the foreign
// outcome that it has landed with. It needs the shard's mu, unless f has settled.
func (f *flight[K, V]) origin() *Origin { return f.exec.env.origin }

// originOf is f.origin for a goroutine that does not hold the lock.
func (c *Cache[K, V]) originOf(s *shard[K, V], f *flight[K, V]) *Origin {
	if c.opts.Trace == nil && c.keeper == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return f.origin()
}

// flights are the flights of a shard, by the hash of their keys; those with one hash are chained.
// Its methods need the shard's mu.
type flights[K comparable, V any] struct {
	byHash map[uint64]*flight[K, V]
	len    int
	peak   int // the most since byHash was made
}

// A map of Go never shrinks. So byHash is made anew when it is nearly empty: not for a handful, and
// not with so many in it that a caller would have to wait.
const (
	fewFlights  = 8
	manyFlights = 512
)

func (all *flights[K, V]) get(hash uint64, key K) *flight[K, V] {
	f := all.byHash[hash]
	for f != nil && f.key != key {
		f = f.twin
	}
	return f
}

// add inserts f, whose key must be absent.
func (all *flights[K, V]) add(f *flight[K, V]) {
	if all.byHash == nil {
		all.byHash = make(map[uint64]*flight[K, V])
	}
	f.twin = all.byHash[f.hash]
	all.byHash[f.hash] = f
	all.len++
	all.peak = max(all.peak, all.len)
}

// remove takes out f, and reports whether it was there.
func (all *flights[K, V]) remove(f *flight[K, V]) bool {
	first := all.byHash[f.hash]
	switch {
	case first == f && f.twin == nil:
		delete(all.byHash, f.hash)
	case first == f:
		all.byHash[f.hash] = f.twin
	default:
		for first != nil && first.twin != f {
			first = first.twin
		}
		if first == nil {
			return false
		}
		first.twin = f.twin
	}
	f.twin = nil
	all.len--
	if all.peak > fewFlights && all.len <= min(all.peak/sparse, manyFlights) {
		all.trim()
	}
	return true
}

// trim makes byHash anew.
func (all *flights[K, V]) trim() {
	old := all.byHash
	all.byHash, all.peak = nil, all.len
	if all.len > 0 {
		all.byHash = make(map[uint64]*flight[K, V], all.len)
	}
	for hash, f := range old {
		all.byHash[hash] = f
	}
}

// each visits every flight.
func (all *flights[K, V]) each(visit func(*flight[K, V]) bool) {
	for _, f := range all.byHash {
		for ; f != nil; f = f.twin {
			if !visit(f) {
				return
			}
		}
	}
}
