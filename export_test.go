package idemflight

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"time"
	"unsafe"

	"github.com/idemflight/idemflight/internal/order"
)

// LimitShards gives caches made from now on at most n shards, until restore is called.
func LimitShards(n int) (restore func()) {
	before := maxShards
	maxShards = n
	return func() { maxShards = before }
}

// LimitHash gives hashes at most n bits, for caches that are made and used until restore is called.
func LimitHash(n int) (restore func()) {
	before := hashMask
	hashMask = ^uint64(0) << (64 - n)
	return func() { hashMask = before }
}

// Hashes returns how many different hashes the given keys have.
func (c *Cache[K, V]) Hashes(keys ...K) int {
	seen := map[uint64]bool{}
	for _, key := range keys {
		seen[c.hash(key)] = true
	}
	return len(seen)
}

// all visits each record.
func (t *table[K, V]) all(visit func(*record[K, V]) bool) {
	for i := range t.buckets() {
		for r := range t.at(i).all {
			if !visit(r) {
				return
			}
		}
	}
}

// ShardOf returns the number of the shard of key.
func (c *Cache[K, V]) ShardOf(key K) int { return c.shardOf(c.hash(key)).index }

// TimesOfSlow returns the times that are kept of an execution which ends now, having taken longer
// than a record has room for, and those that its leader is told. (Should the wall clock seem to be set
// meanwhile, which the scheduler can do by a pause between its reading and that of the other clock, it begins
// anew.)
func (c *Cache[K, V]) TimesOfSlow(key K) (kept, told [2]time.Time) {
	for {
		at := c.syncWall()
		ahead := [4]int64{c.ahead.Load()}
		d := draft[K, V]{key: key, hash: uint32(c.hash(key)), state: Retained, started: at - time.Hour, done: at}
		d.expireAfter(&c.clock, at, c.opts.TTL)
		r := c.record(&d)
		ahead[1] = c.ahead.Load()
		t := c.timesOf(r)
		ahead[2] = c.ahead.Load()
		o := outcome[V]{source: uint8(Executed), completed: at, expires: d.deadline}
		res := o.result(&c.clock, Executed)
		ahead[3] = c.ahead.Load()
		if ahead == [4]int64{ahead[0], ahead[0], ahead[0], ahead[0]} {
			return [2]time.Time{t.completed, t.expires}, [2]time.Time{res.CompletedAt, res.ExpiresAt}
		}
	}
}

// SetWallClock makes it look to c as if the wall clock had been set forward by so many seconds since
// c was made.
func (c *Cache[K, V]) SetWallClock(seconds int) {
	before := c.start.Round(0)
	wall := (*uint64)(unsafe.Pointer(&c.start)) // one bit, 33 of seconds, 30 of nanoseconds
	*wall -= uint64(seconds) << 30
	if got := before.Sub(c.start.Round(0)); got != time.Duration(seconds)*time.Second {
		panic(fmt.Sprintf("the wall clock was set by %v", got))
	}
}

// SetEffects makes it look as if so many effects of the execution whose context ctx is had begun.
func SetEffects(ctx context.Context, n int32) { executionOf(ctx).effects = n }

// Effects returns how many effects of the execution whose context ctx is have begun.
func Effects(ctx context.Context) int32 { return executionOf(ctx).effects }

// InLine returns how many records of c lie in the lines of their shards, and not in heaps.
func (c *Cache[K, V]) InLine() (n int) {
	for i := range c.shards {
		for r := range c.shards[i].kept.table.all {
			if !r.has(queued) {
				n++
			}
		}
	}
	return n
}

// Small returns how many records of c are no larger than they must be, and in line.
func (c *Cache[K, V]) Small() (n int) {
	for i := range c.shards {
		for r := range c.shards[i].kept.table.all {
			if r.more == nil && !r.has(queued) {
				n++
			}
		}
	}
	return n
}

// StartTurns makes n+1 the number of the next insertion.
func (c *Cache[K, V]) StartTurns(n uint32) { c.seq.Store(n) }

// Shards returns the number of shards of c.
func (c *Cache[K, V]) Shards() int { return len(c.shards) }

// Buckets returns how many buckets the tables of c have.
func (c *Cache[K, V]) Buckets() (n int) {
	for i := range c.shards {
		n += int(c.shards[i].kept.table.buckets())
	}
	return n
}

// Directory returns for how many segments the table of the first shard has room.
func (c *Cache[K, V]) Directory() int { return len(*c.shards[0].kept.table.segments.Load()) }

// PeakOfFlights returns the most flights that the map of the first shard's has had.
func (c *Cache[K, V]) PeakOfFlights() int { return c.shards[0].flights.peak }

// Stripes returns how many stripes replays are counted in.
func (c *Cache[K, V]) Stripes() int { return len(c.replays.stripes) }

// KeysFrom returns the keys that a walk through the first shard's table finds from a position on, and
// those whose positions are there.
func (c *Cache[K, V]) KeysFrom(at uint64) (found, there []K) {
	t := &c.shards[0].kept.table
	for r := range t.all {
		if position(r.hash) >= at {
			there = append(there, r.key)
		}
	}
	for at < positions {
		at = t.scan(at, func(r *record[K, V]) { found = append(found, r.key) })
	}
	return found, there
}

// LockFreeReplays returns how many replays took no lock.
func (c *Cache[K, V]) LockFreeReplays() uint64 { return c.replays.sum() }

// CheckInvariants returns what is wrong with the books of c, while nothing is under way.
func (c *Cache[K, V]) CheckInvariants() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	var places, weight int64
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		places += int64(s.flights.len + s.kept.len())
		weight += s.kept.weight
		s.checkLocked(wrong)
		s.mu.Unlock()
	}
	if c.places.Load() != places {
		wrong("%d places are taken, in flight + kept are %d", c.places.Load(), places)
	}
	if c.weight.Load() != weight {
		wrong("weight is %d, the sum of records is %d", c.weight.Load(), weight)
	}
	if len(c.shedding) != 0 {
		wrong("someone is said to shed")
	}
	return errors.Join(errs...)
}

// checkLocked reports what is wrong with what s keeps.
func (s *shard[K, V]) checkLocked(wrong func(string, ...any)) {
	k := &s.kept
	flights := 0
	for range s.flights.each {
		flights++
	}
	if flights != s.flights.len {
		wrong("%d flights, not %d", flights, s.flights.len)
	}

	k.table.check(wrong)

	inLine, last := 0, order.Turn{At: math.MinInt64}
	for place, r := range k.line.All {
		inLine++
		t := insertionTurn(r.done(k.ttl), r.seq)
		if t.Before(last) || r.has(queued) || r.place != place {
			wrong("%v in line: turn %v behind %v, queued %v, place %d said %d", r.key, t, last, r.has(queued), place, r.place)
		}
		last = t
	}
	values, last := 0, order.Turn{At: math.MinInt64}
	for place, r := range k.values.All {
		values++
		if t := r.more.valueTurn; t.Before(last) || r.more.valuePlace != place {
			wrong("value of %v: turn %v behind %v, place %d said %d", r.key, t, last, place, r.more.valuePlace)
		}
		last = r.more.valueTurn
	}

	first, due, value, spare := never, forever, never, never
	all, held, ordered, expiring, valued, weight := 0, 0, 0, 0, 0, int64(0)
	for r := range k.table.all {
		all++
		if k.table.get(r.hash, r.key) != r || r.has(gone) || s.flights.len > 0 && s.hasFlight(r.key) {
			wrong("key %v: found otherwise, gone (%v) or in flight", r.key, r.has(gone))
		}
		due = min(due, r.deadline)
		weight += r.weight()
		if r.weight() > 0 {
			valued++
			if r.more.valueTurn.Before(value) {
				value = r.more.valueTurn
			}
		}
		t := insertionTurn(r.done(k.ttl), r.seq)
		switch {
		case r.state() == Held:
			held++
			if at, turn := k.queueOf(r).At(r.place); at != r || turn != t {
				wrong("%v is not where it should be among the held", r.key)
			}
			if r.more.why.spare() && t.Before(spare) {
				spare = t
			}
		case r.has(queued):
			ordered++
			at, turn := k.order.At(r.place)
			if at != r {
				wrong("%v is not where it should be in the order queue", r.key)
			}
			t = turn
		}
		if r.state() != Held && t.Before(first) {
			first = t
		}
		if r.has(queued) && r.deadline != forever {
			expiring++
			if at, _ := k.due.At(r.due); at != r {
				wrong("%v is not where it should be in the due queue", r.key)
			}
		}
	}
	if all != k.table.len || held != k.holds() || weight != k.weight || valued != values ||
		ordered != k.order.Len() || expiring != k.due.Len() || all-held-ordered != inLine {
		wrong("counted %d records (%d said), %d held (%d), weight %d (%d), %d values (%d), %d in order (%d), %d to expire (%d), %d in line (%d)",
			all, k.table.len, held, k.holds(), weight, k.weight, valued, values,
			ordered, k.order.Len(), expiring, k.due.Len(), all-held-ordered, inLine)
	}
	if got := s.head.evict.load(); got != first {
		wrong("the head says turn %v, first is %v", got, first)
	}
	if got := time.Duration(s.head.due.Load()); got != due {
		wrong("the head says due %v, first is %v", got, due)
	}
	queued := forever
	if r, _ := k.order.First(); r != nil {
		queued = r.done(k.ttl)
	}
	if got := time.Duration(s.head.queued.Load()); got != queued {
		wrong("the head says that the first in the queue completed at %v, it did at %v", got, queued)
	}
	if got := s.head.spare.load(); got != spare {
		wrong("the head says spare %v, first is %v", got, spare)
	}
	if got := s.head.shed.load(); got != value {
		wrong("the head says value %v, first is %v", got, value)
	}
}

// check reports what is wrong with the buckets of t.
func (t *table[K, V]) check(wrong func(string, ...any)) {
	n := t.buckets()
	if t.len > perBucket*int(n) || n > segmentLen && t.len*sparse < perBucket*int(n) {
		wrong("%d records in %d buckets", t.len, n)
	}
	for i := range uint32(len(*t.segments.Load()) * segmentLen) {
		first := t.at(i)
		for b := first; b != nil; b = b.more.Load() {
			used := 0
			for j := range b.records {
				r, tag := b.records[j].Load(), b.tags.Load()>>(8*j)&0xff
				if r != nil {
					used++
				}
				if r == nil && tag != 0 || r != nil && (tag != tagOf(r.hash) || t.bucket(r.hash) != first) {
					wrong("slot %d of bucket %d has tag %#x and record %v", j, i, tag, r != nil)
				}
			}
			if used > 0 && i >= n || b != first && used == 0 || b.more.Load() != nil && used < slots {
				wrong("a bucket of chain %d, of %d, has %d records, and more (%v)", i, n, used, b.more.Load() != nil)
			}
		}
	}
}

func (s *shard[K, V]) hasFlight(key K) bool {
	for f := range s.flights.each {
		if f.key == key {
			return true
		}
	}
	return false
}

// Carry writes an entry and reads it again, as Save and Load do.
func (c Codec[K, V]) Carry(key K, e Entry[V]) (again K, read Entry[V], err error) {
	if c, err = c.withDefaults(); err != nil {
		return key, e, err
	}
	body, err := c.appendEntry([]byte{entryFrame, byte(e.State), 0}, key, e)
	if err != nil {
		return key, e, err
	}
	in := cursor{rest: body[1:]}
	read, _, parts := readEntry[V](&in)
	again, err = c.readParts(&in, parts, &read)
	return again, read, err
}

// Lacks returns what New, Save and Load say of the codec; nil if it is enough.
func (c Codec[K, V]) Lacks() error {
	_, err := c.withDefaults()
	return err
}

// CheckKey says what is wrong with a key.
func CheckKey[K comparable](key K) error {
	traits := traitsOf(reflect.TypeFor[K]())
	return checkKey(&traits, key)
}

// TimerAtRest reports whether the timer of what expires is stopped, and whether it refers to nothing. It
// stops it.
func (c *Cache[K, V]) TimerAtRest() (stopped, free bool) {
	t := &c.reclaimer
	return !t.timer.Stop(), t.calls.reclaim.Load() == nil
}

// HeartbeatAtRest reports whether no beat is to come.
func (c *Cache[K, V]) HeartbeatAtRest() bool {
	c.keeper.mu.Lock()
	defer c.keeper.mu.Unlock()
	return !c.keeper.armed
}

// StripesInUse returns in how many stripes replays have been counted.
func (c *Cache[K, V]) StripesInUse() (n int) {
	for i := range c.replays.stripes {
		if c.replays.stripes[i].n.Load() > 0 {
			n++
		}
	}
	return n
}

// KeysAtOnce is how many keys a walk notes under one hold of a lock, but for those beside the last in its bucket.
const KeysAtOnce = keysAtOnce

// WalkKeys tells how many keys each step of a walk through the first shard has, and of these how many are of the
// last bucket.
func (c *Cache[K, V]) WalkKeys(step func(keys, last int)) {
	s := &c.shards[0]
	for at := uint64(0); at < positions; {
		keys, next := s.keysFrom(nil, at)
		last := 0
		for at < next {
			last = 0
			at = s.kept.table.scan(at, func(*record[K, V]) { last++ })
		}
		step(len(keys), last)
	}
}
