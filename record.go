package idemflight

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/idemflight/idemflight/internal/order"
)

// record is a kept outcome. For a plain success there is nothing to say but what stands here; the
// rest has details beside it. With a string as K and a pointer or an int as V, a record is one
// cache line of 64 bytes.
type record[K comparable, V any] struct {
	// Written before the record is added to its shard's table, only read after: readers without a
	// lock may have it, even once it has left the table. (One that is held is added again after a
	// Reconcile that learned nothing. It has another deadline then; readers look at its state
	// first, which is the same, and no further.)
	key      K
	value    V             // zero unless Retained
	deadline time.Duration // on the cache's monotonic clock; forever if it does not expire
	more     *details      // nil: Retained, and nothing special
	took     uint32        // by the execution, in ns
	hash     uint32        // the lower half of the key's

	flags atomic.Uint32 // replayed, replayedValue, gone, queued

	// Guarded by the shard's mu.
	seq   uint32 // the number of its insertion
	place uint32 // in the line or, if queued, in the order queue
	due   uint32 // if queued, its place in the due queue
}

// Flags of a record. A replay sets the first two, without a lock. The others are set with the
// shard's mu held, gone before the record leaves the table. They are cleared with mu held: the
// first two by a second chance, all when what is held is added again.
const (
	replayed      uint32 = 1 << iota // since it was inserted, or had its second chance to stay
	replayedValue                    // the same, for its value under MaxWeight
	gone                             // it leaves the table, or has left it
	queued                           // it is not in the line: see kept
)

// fullRecord is a record with details.
type fullRecord[K comparable, V any] struct {
	record[K, V]
	details
}

// details are what most records do without: the state of one that is held or shed, an error, a
// fingerprint, a weight, a TTL of its own, times that do not follow from the rest.
type details struct {
	// Like the fields of record: only read once it is in the table.
	err         error
	fingerprint Fingerprint
	origin      *Origin       // of the execution, if it was traced
	weight      int64         // counted against MaxWeight; 0 unless Retained
	done        time.Duration // when the execution completed
	times       *times        // nil if they follow from the above
	pause       *pause        // of one that is held; written before it is added again; nil if none was

	// Guarded by the shard's mu, if weight is not 0.
	valueTurn  order.Turn // the first is the next value to be shed
	valuePlace uint32     // in the line of values

	kind uint8 // a State
	why  why   // it is held, if it is
}

// times are when an execution started and completed, and when its record expires, in wall time as
// it stood when the clock was ahead so far.
type times struct {
	started, completed, expires time.Time
	ahead                       int64
}

// as returns t in wall time as it stands when the clock is ahead so far.
func (t times) as(ahead int64) times {
	if by := time.Duration(ahead - t.ahead); by != 0 {
		for _, at := range []*time.Time{&t.started, &t.completed, &t.expires} {
			if !at.IsZero() {
				*at = at.Round(0).Add(by)
			}
		}
		t.ahead = ahead
	}
	return t
}

// Turns are the order in which outcomes are evicted, and values shed: by the time at which a record
// completed, or had its last second chance; where the clock stood still, by number. The upper half
// of a number is that of the last insertion, so that it tells how many insertions ago a record had
// its turn; the lower half tells second chances since from each other.

// insertionTurn returns the turn at which a record is inserted, with that number.
func insertionTurn(at time.Duration, number uint32) order.Turn {
	return order.Turn{At: at, Seq: uint64(number) << 32}
}

// never is after every turn.
var never = order.Turn{At: forever}

// expired reports whether r is no longer valid at now. The deadline itself counts as expired.
func (r *record[K, V]) expired(now time.Duration) bool { return now >= r.deadline }

func (r *record[K, V]) has(flag uint32) bool { return r.flags.Load()&flag != 0 }

// use notes a replay of r, and reports whether r is not gone. It writes only if the replay is news,
// so that the cores that replay one key share its cache line.
func (r *record[K, V]) use() bool {
	const both = replayed | replayedValue
	flags := r.flags.Load()
	if flags&(both|gone) != both {
		if flags&gone != 0 {
			return false
		}
		r.flags.Or(both)
	}
	return true
}

func (r *record[K, V]) state() State {
	if r.more == nil {
		return Retained
	}
	return State(r.more.kind)
}

func (r *record[K, V]) origin() *Origin {
	if r.more == nil {
		return nil
	}
	return r.more.origin
}

func (r *record[K, V]) err() error {
	if r.more == nil {
		return nil
	}
	return r.more.err
}

func (r *record[K, V]) fingerprint() (fp Fingerprint) {
	if r.more != nil {
		fp = r.more.fingerprint
	}
	return fp
}

func (r *record[K, V]) weight() int64 {
	if r.more == nil {
		return 0
	}
	return r.more.weight
}

// done returns when the execution of r completed; ttl is that of the cache.
func (r *record[K, V]) done(ttl time.Duration) time.Duration {
	if r.more == nil {
		return r.deadline - ttl
	}
	return r.more.done
}

// answers reports whether r is a retained outcome with this fingerprint.
func (r *record[K, V]) answers(fp Fingerprint) bool {
	if r.more == nil {
		return fp == Fingerprint{}
	}
	return State(r.more.kind) == Retained && r.more.fingerprint == fp
}

// tookOf returns how long an execution took, if that is less than the 4.3 s that a record has room
// for.
func tookOf(d time.Duration) (took uint32, fits bool) {
	return uint32(d), 0 <= d && d <= math.MaxUint32
}
