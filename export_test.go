package idemflight

import (
	"errors"
	"fmt"
	"math"
	"time"
	"unsafe"
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

// ShardOf returns the number of the shard of key.
func (c *Cache[K, V]) ShardOf(key K) int { return c.shardOf(c.hash(key)).index }

// TimesOfSlow returns the times that are kept of an execution which ends now, having taken longer
// than a small record has room for, and those that its leader is told.
func (c *Cache[K, V]) TimesOfSlow(key K) (kept, told [2]time.Time) {
	at := c.nowToo()
	r := newRecord[K, V](&c.clock, key, Retained, nil, Fingerprint{}, at-time.Hour, at, c.opts.TTL)
	t := r.timesOf(&c.clock)
	o := outcome[V]{source: uint8(Executed), completed: at, expires: r.deadline}
	res := o.result(&c.clock, Executed)
	return [2]time.Time{t.completed, t.expires}, [2]time.Time{res.CompletedAt, res.ExpiresAt}
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

// Small returns how many records of c are the small ones that golang-lru lists.
func (c *Cache[K, V]) Small() (n int) {
	for i := range c.shards {
		if plain := c.shards[i].kept.plain; plain != nil {
			n += plain.Len()
		}
	}
	return n
}

// StartTurns makes n+1 the number of the next turn.
func (c *Cache[K, V]) StartTurns(n uint32) { c.seq.Store(n) }

// Shards returns the number of shards of c.
func (c *Cache[K, V]) Shards() int { return len(c.shards) }

// HotKeys returns the keys that are replayed without a lock.
func (c *Cache[K, V]) HotKeys() (keys []K) {
	for i := range c.hot.slots {
		if h := c.hot.slots[i].Load(); h != nil {
			keys = append(keys, h.key)
		}
	}
	return keys
}

// HotReplays returns how many replays took no lock.
func (c *Cache[K, V]) HotReplays() uint64 { return c.hot.counted() }

// CheckInvariants returns what is wrong with the books of c, while nothing is under way.
func (c *Cache[K, V]) CheckInvariants() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	var places, weight int64
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		places += int64(len(s.pending) + s.kept.len())
		weight += s.checkLocked(wrong)
		s.mu.Unlock()
	}
	for i := range c.hot.slots {
		h := c.hot.slots[i].Load()
		if h == nil {
			continue
		}
		s := c.shardOf(h.hash)
		s.mu.Lock()
		if h.hash != c.hash(h.key) || h.hash%hotSlots != uint64(i) || s.kept.get(h.key) != h.found || h.state() != Retained {
			wrong("slot %d has %v, which is not what is kept", i, h.key)
		}
		s.mu.Unlock()
	}
	if c.places.Load() != places {
		wrong("%d places are taken, in flight + kept are %d", c.places.Load(), places)
	}
	if c.weight.Load() != weight {
		wrong("weight is %d, the sum of records is %d", c.weight.Load(), weight)
	}
	return errors.Join(errs...)
}

// checkLocked reports what is wrong with what s keeps, and returns its weight.
func (s *shard[K, V]) checkLocked(wrong func(string, ...any)) (weight int64) {
	k := &s.kept
	first, due := never, forever
	if k.plain != nil {
		last := turn{at: math.MinInt64}
		for _, key := range k.plain.Keys() {
			r, _ := k.plain.Peek(key)
			if k.others[key] != nil || s.pending[key] != nil {
				wrong("key %v is there twice", key)
			}
			if k.turnOf(r).before(last) {
				wrong("plain records are out of order: %v at %v behind %v", key, k.turnOf(r), last)
			}
			last = k.turnOf(r)
			due = min(due, r.deadline)
			if last.before(first) {
				first = last
			}
		}
	}
	held, expiring, valued := 0, 0, 0
	in := func(q *queue[K, V], r *fullRecord[K, V]) {
		if at := int(r.index[q.by]); at >= len(q.items) || q.items[at] != r {
			wrong("%v is not where it thinks it is in queue %d", r.key, q.by)
		}
	}
	for key, r := range k.others {
		if key != r.key || s.pending[key] != nil {
			wrong("key %v leads to the record of %v, in flight: %v", key, r.key, s.pending[key] != nil)
		}
		if r.deadline != forever {
			expiring++
			in(&k.due, r)
			due = min(due, r.deadline)
		}
		if r.weight > 0 {
			valued++
			in(&k.valued, r)
		}
		weight += r.weight
		if State(r.state) == Held {
			held++
		} else {
			in(&k.order, r)
			if r.turn.before(first) {
				first = r.turn
			}
		}
	}
	if k.held != held || len(k.order.items) != len(k.others)-held || len(k.due.items) != expiring || len(k.valued.items) != valued {
		wrong("%d held of %d, %d expire, %d weigh; by count %d, %d, %d; %d in order",
			held, len(k.others), expiring, valued, k.held, len(k.due.items), len(k.valued.items), len(k.order.items))
	}
	if got := s.edges.turn[s.index].load(); got != first {
		wrong("the edge says turn %v, first is %v", got, first)
	}
	if got := time.Duration(s.edges.due[s.index].Load()); got != due {
		wrong("the edge says due %v, first is %v", got, due)
	}
	if got := s.edges.worth[s.index].load(); got != k.firstWorth() {
		wrong("the edge says worth %v, first is %v", got, k.firstWorth())
	}
	return weight
}
