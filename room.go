package idemflight

import (
	"sync/atomic"
	"time"
)

// This file is what shards share: places, weight, and the order of use across them. All of it is
// atomic counters, so that no lock is taken under a shard's mu. What they say is a hint until the
// shard it leads to is locked: there it is looked at again.

// edge is what a shard lets the others see of its ends, to find the record that has to go first
// without visiting every shard. Written under the shard's mu, read by anyone; forever if there is
// no such record. Edges lie side by side, so that a look at all of them reads little memory. What
// it says may be outdated by the time the shard is locked: then one looks again.
type edge struct {
	due    atomic.Int64 // deadline of the record that expires first
	used   atomic.Int64 // last use of the least recently used outcome
	done   atomic.Int64 // and its completion
	valued atomic.Int64 // last use of the least recently used outcome that weighs something
}

// publishLocked brings the edge up to date. Must be called after every change of s.kept.
// As long as the outcomes are unsorted, what was published stays as a lower bound.
func (s *shard[K, V]) publishLocked() {
	due, used, done, valued := int64(forever), int64(forever), int64(forever), int64(forever)
	if r := s.kept.firstDue(); r != nil {
		due = int64(r.deadline)
	}
	if r := oldest(s.kept.order); r != nil {
		used, done = int64(r.used), int64(r.done)
	}
	if r := oldest(s.kept.valued); r != nil {
		valued = int64(r.used)
	}
	if s.kept.unsorted {
		used, done = min(used, s.edge.used.Load()), min(done, s.edge.done.Load())
		valued = min(valued, s.edge.valued.Load())
	}
	set(&s.edge.due, due)
	set(&s.edge.used, used)
	set(&s.edge.done, done)
	set(&s.edge.valued, valued)
}

// lowerLocked makes the edge a lower bound also of r, which is about to be put in out of order.
func (s *shard[K, V]) lowerLocked(r *record[K, V]) {
	set(&s.edge.used, min(s.edge.used.Load(), int64(r.used)))
	set(&s.edge.done, min(s.edge.done.Load(), int64(r.done)))
	set(&s.edge.valued, min(s.edge.valued.Load(), int64(r.used)))
}

// sortLocked puts records that came in late where they belong.
func (s *shard[K, V]) sortLocked() {
	if s.kept.unsorted {
		s.kept.sort()
		s.publishLocked()
	}
}

// set stores v if it is new: most calls change nothing, and a store would take the cache line away
// from its readers.
func set(a *atomic.Int64, v int64) {
	if a.Load() != v {
		a.Store(v)
	}
}

// stamp returns the mark of an insertion: greater than all before it, and at least now, so that
// marks of different shards, and the completions of restored records, compare.
func (c *Cache[K, V]) stamp(now time.Duration) time.Duration {
	for {
		last := c.lastStamp.Load()
		next := max(last+1, int64(now))
		if c.lastStamp.CompareAndSwap(last, next) {
			return time.Duration(next)
		}
	}
}

// takePlace takes one of MaxEntries places, and reports whether there was one.
//
// The tempting wrong implementation adds first and takes back if that was too much: for a moment
// there are more than MaxEntries, and two that do so at once refuse each other the last place.
func (c *Cache[K, V]) takePlace() bool {
	for {
		n := c.places.Load()
		if n >= int64(c.opts.MaxEntries) {
			return false
		}
		if c.places.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// giveBack gives a place back. Whoever drops a record gives its place back first, under the same
// lock: so nobody finds neither the place nor the record, and ErrFull is never said while something
// could go.
func (c *Cache[K, V]) giveBack() { c.places.Add(-1) }

// room is what makeRoom came to.
type room int

const (
	roomNone  room = iota // nothing may go
	roomMade              // a place was given back: take it, if no other is faster
	roomAgain             // the key is kept meanwhile: look at it again
)

// makeRoom frees the place of an expired record, else of the least recently used outcome that
// Protect lets go; but never of key itself, for which the place is wanted: it came in while the
// caller looked, and to drop it would run its fn again. Must be called without a lock; it takes
// that of one shard at a time.
func (c *Cache[K, V]) makeRoom(key K, notes *[]note[K]) room {
	for {
		before, now := c.lastStamp.Load(), c.now()
		if i := c.firstDue(now); i >= 0 {
			if c.reclaimSome(&c.shards[i], now, notes) > 0 {
				return roomMade
			}
			continue
		}
		i, used := c.leastRecentlyUsed(now)
		if i < 0 {
			if c.lastStamp.Load() != before {
				continue // outcomes came and went while we looked
			}
			return roomNone
		}
		if got := c.evict(&c.shards[i], key, used, now, notes); got != roomNone {
			return got
		}
	}
}

// firstDue returns a shard that keeps something expired, or -1.
func (c *Cache[K, V]) firstDue(now time.Duration) int {
	for i := range c.edges {
		if c.edges[i].due.Load() <= int64(now) {
			return i
		}
	}
	return -1
}

// leastRecentlyUsed returns the shard with the outcome that has to go first, or -1 if Protect lets
// none go. The least recently used of a shard stands for all of it: whatever is in front of it and
// was never replayed was completed later (up to late, see newestLocked).
func (c *Cache[K, V]) leastRecentlyUsed(now time.Duration) (found int, least int64) {
	found, least = -1, int64(forever)
	for i := range c.edges {
		e := &c.edges[i]
		if used := e.used.Load(); used < least && c.unprotected(time.Duration(e.done.Load()), now) {
			found, least = i, used
		}
	}
	return found, least
}

// unprotected reports whether Protect lets an outcome completed at done go at now.
func (c *Cache[K, V]) unprotected(done, now time.Duration) bool {
	switch c.opts.Protect {
	case 0:
		return true // also what was completed after now was read
	case forever:
		return false
	}
	return now-done >= c.opts.Protect
}

// evict drops the least recently used outcome of s, if it is the one that was seen at its edge.
func (c *Cache[K, V]) evict(s *shard[K, V], key K, seen int64, now time.Duration, notes *[]note[K]) room {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sortLocked()
	r := oldest(s.kept.order)
	if r == nil || int64(r.used) != seen || !c.unprotected(r.done, now) {
		return roomNone
	}
	if r.key == key {
		return roomAgain
	}
	c.giveBack()
	c.removeLocked(s, r)
	s.stats.Evicted++
	c.note(notes, Event[K]{Kind: EventEvicted, Key: r.key})
	return roomMade
}

// takeWeight takes w of MaxWeight, and reports whether there was so much left. w is at most
// MaxWeight. It must be published with its record before s.mu is unlocked, so that whoever finds
// the weight taken finds the records that have it.
func (c *Cache[K, V]) takeWeight(w int64) bool {
	for {
		sum := c.weight.Load()
		if w > c.opts.MaxWeight-sum {
			return false
		}
		if c.weight.CompareAndSwap(sum, sum+w) {
			return true
		}
	}
}

// shedOne drops something expired, else the least recently used value of all shards. Must be called
// without a lock. It may find nothing, if others have just shed: the caller tries to take its
// weight again in any case.
func (c *Cache[K, V]) shedOne(notes *[]note[K]) {
	now := c.now()
	if i := c.firstDue(now); i >= 0 {
		c.reclaimSome(&c.shards[i], now, notes)
		return
	}
	found, least := -1, int64(forever)
	for i := range c.edges {
		if used := c.edges[i].valued.Load(); used < least {
			found, least = i, used
		}
	}
	if found < 0 {
		return
	}
	s := &c.shards[found]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sortLocked()
	if r := oldest(s.kept.valued); r != nil && int64(r.used) == least {
		c.weight.Add(-r.weight)
		s.kept.shed(r)
		s.publishLocked()
		c.noteShed(s, r.key, notes)
	}
}

// noteShed counts and tells that the value of key, of s, was dropped. Must be called with s.mu held.
func (c *Cache[K, V]) noteShed(s *shard[K, V], key K, notes *[]note[K]) {
	s.stats.Shed++
	c.note(notes, Event[K]{Kind: EventShed, Key: key})
}
