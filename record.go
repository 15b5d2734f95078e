package idemflight

import (
	"math"
	"sync/atomic"
	"time"
)

// record is a kept outcome. For most there is nothing to say but what is here; the others lie in a
// fullRecord. Once an outcome has been put in, only its flags change, and it is never put in again:
// a reader without a lock may have it. (What is held is not read so, and is put in again after a
// Reconcile that learned nothing.) With a pointer or an int as V it takes 24 bytes, a size that Go allocates without waste: per entry there
// are 80 bytes more for golang-lru's list and some 32 for its map. (Measured: 139; with all fields
// in one record, and a queue for expiry, it was 343.)
type record[V any] struct {
	value    V             // zero unless Retained
	deadline time.Duration // on the cache's monotonic clock; forever if it does not expire
	took     uint32        // by the execution, in ns
	flags    atomic.Uint32 // and, from seqShift on, the number of its turn
}

// Flags of a record. Set by replays; cleared under the shard's mu.
const (
	replayed      uint32 = 1 << iota // since it was put in, or had its second chance to stay
	replayedValue                    // the same, for its value under MaxWeight
	hot                              // it is, or was, in the hot table

	seqShift = 8
)

// turn is a place in the order in which outcomes go: by time, and where the clock stood still, by
// number. Numbers have 24 bits and wrap; those of one instant are not so far apart.
type turn struct {
	at  time.Duration
	seq uint32
}

func (t turn) before(o turn) bool {
	if t.at != o.at {
		return t.at < o.at
	}
	return int32((t.seq-o.seq)<<seqShift) < 0
}

// never is after every turn.
var never = turn{at: forever}

// expired reports whether r is gone at now. The deadline itself counts as expired.
func (r *record[V]) expired(now time.Duration) bool { return now >= r.deadline }

// use notes a replay of r. It writes only if that is news, so that the cores that replay one key
// share its cache line.
func (r *record[V]) use() {
	if both := replayed | replayedValue; r.flags.Load()&both != both {
		r.flags.Or(both)
	}
}

// fullRecord is a record with everything that most do without: an error, a fingerprint, a weight, a
// TTL of its own, a completion out of order, a second chance; or one that is held or shed.
type fullRecord[K comparable, V any] struct {
	record[V]
	key         K
	err         error
	fingerprint Fingerprint
	weight      int64         // counted against MaxWeight; 0 unless Retained
	done        time.Duration // when its execution completed, for Protect
	turn        turn          // when it was put in, or had its second chance: the first is the next to be evicted
	worth       turn          // the same for its value, which is the next to be shed
	index       [3]int32      // in each of kept's queues
	state       uint8         // a State
	times       *times        // if they do not follow from the above
}

// times are when an execution started and completed, and when its record expires, in wall time.
type times struct{ started, completed, expires time.Time }

// found is a record and, if it is a full one, that. The zero value is nothing.
type found[K comparable, V any] struct {
	*record[V]
	full *fullRecord[K, V]
}

func (f found[K, V]) state() State {
	if f.full == nil {
		return Retained
	}
	return State(f.full.state)
}

func (f found[K, V]) err() error {
	if f.full == nil {
		return nil
	}
	return f.full.err
}

func (f found[K, V]) fingerprint() (fp Fingerprint) {
	if f.full != nil {
		fp = f.full.fingerprint
	}
	return fp
}

// shed returns r as it is once its value is dropped.
func (r *fullRecord[K, V]) shed() *fullRecord[K, V] {
	s := &fullRecord[K, V]{
		record: record[V]{deadline: r.deadline, took: r.took},
		key:    r.key, err: r.err, fingerprint: r.fingerprint, state: uint8(Shed),
		done: r.done, turn: r.turn, times: r.times,
	}
	s.flags.Store(r.flags.Load() &^ hot)
	return s
}

// newRecord returns a record of an execution that started and completed then, and that expires ttl
// later; a negative ttl is without end. Its turn and weight are set later.
func newRecord[K comparable, V any](c *clock, key K, state State, err error, fp Fingerprint, started, completed, ttl time.Duration) *fullRecord[K, V] {
	r := &fullRecord[K, V]{key: key, state: uint8(state), err: err, fingerprint: fp, done: completed}
	var fits bool
	if r.took, fits = tookOf(completed - started); !fits {
		r.times = &times{started: c.wall(started), completed: c.wall(completed)}
	}
	r.expireAfter(c, completed, ttl)
	return r
}

// tookOf returns how long an execution took, if that is less than the 4 s that a record has room for.
func tookOf(d time.Duration) (uint32, bool) { return uint32(d), 0 <= d && d <= math.MaxUint32 }

// expireAfter makes r, which is not kept at the moment, expire ttl after from; a negative ttl is
// without end.
func (r *fullRecord[K, V]) expireAfter(c *clock, from, ttl time.Duration) {
	r.deadline = deadlineOf(from, ttl)
	if r.times != nil || r.deadline == forever && ttl >= 0 {
		t := r.timesOf(c)
		t.expires = after(c.wall(from), ttl)
		r.times = &t
	}
}

// after returns the time ttl after from; a negative ttl is without end, which is the zero time.
func after(from time.Time, ttl time.Duration) time.Time {
	if ttl < 0 {
		return time.Time{}
	}
	return from.Add(ttl)
}

// timesOf returns the times of r in wall time.
func (r *fullRecord[K, V]) timesOf(c *clock) times {
	if r.times != nil {
		return *r.times
	}
	return r.record.timesOf(c, r.done)
}

func (r *record[V]) timesOf(c *clock, done time.Duration) times {
	t := times{completed: c.wall(done), started: c.wall(done - time.Duration(r.took))}
	if r.deadline != forever {
		t.expires = c.wall(r.deadline)
	}
	return t
}

// clock is the monotonic clock of a cache, which starts at 0 when the cache is made. What it is for
// is not moved by those who set the wall clock; what is told in wall time follows them.
type clock struct {
	start time.Time
	ahead atomic.Int64 // of start and the time since: how far the wall clock was set, in ns
}

func (c *clock) now() time.Duration { return time.Since(c.start) }

// nowToo is now for the end of an execution: it also looks whether the wall clock was set.
func (c *clock) nowToo() time.Duration {
	const tolerance = time.Millisecond // the two clocks are not read at the same instant
	t := time.Now()
	d := t.Sub(c.start)
	ahead := t.Round(0).Sub(c.start.Round(0)) - d
	if off := ahead - time.Duration(c.ahead.Load()); off < -tolerance || off > tolerance {
		c.ahead.Store(int64(ahead))
	}
	return d
}

// wall returns d in wall time, as far as it is known how that was set.
func (c *clock) wall(d time.Duration) time.Time {
	if ahead := c.ahead.Load(); ahead != 0 {
		return c.start.Round(0).Add(d + time.Duration(ahead))
	}
	return c.start.Add(d)
}

// deadlineOf returns the mark ttl after another, or forever.
func deadlineOf(mark, ttl time.Duration) time.Duration {
	if ttl < 0 {
		return forever
	}
	return mark + min(ttl, forever-mark)
}
