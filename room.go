package idemflight

import (
	"sync/atomic"
	"time"

	"github.com/idemflight/idemflight/internal/yield"
)

// This file is what shards share: places, weight, and the order of turns across them. All of it is
// atomic counters, so that no lock is taken under a shard's mu. What they say is a hint until the
// shard it leads to is locked: there it is looked at again.

// edges are what shards let each other see of their ends, to find the record that has to go first
// without visiting every shard. Written under the shard's mu, read by anyone; forever if there is no
// such record. What they say may be outdated by the time the shard is locked: then one looks again.
// They lie side by side: a look at all of them reads ten cache lines, not one for each shard.
type edges struct {
	due   []atomic.Int64 // deadline of the record that expires first
	turn  []atomicTurn   // of the outcome whose turn it is to be evicted
	done  []atomic.Int64 // and its completion
	worth []atomicTurn   // of the value whose turn it is to be shed
}

func newEdges(n int) edges {
	return edges{make([]atomic.Int64, n), make([]atomicTurn, n), make([]atomic.Int64, n), make([]atomicTurn, n)}
}

// atomicTurn is a turn in two words. Who reads them while they are written may get a mixture: a
// hint like all here.
type atomicTurn struct {
	at  atomic.Int64
	seq atomic.Uint32
}

func (a *atomicTurn) load() turn { return turn{time.Duration(a.at.Load()), a.seq.Load()} }

func (a *atomicTurn) set(t turn) {
	if a.load() != t {
		a.at.Store(int64(t.at))
		a.seq.Store(t.seq)
	}
}

// publishLocked brings the edge up to date. Must be called after every change at an end of s.kept.
func (s *shard[K, V]) publishLocked() {
	due := int64(forever)
	if _, f := s.kept.firstDue(); f.record != nil {
		due = int64(f.deadline)
	}
	_, _, first, done := s.kept.firstTurn()
	set(&s.edges.due[s.index], due)
	set(&s.edges.done[s.index], int64(done))
	s.edges.turn[s.index].set(first)
	s.edges.worth[s.index].set(s.kept.firstWorth())
}

// atEdge reports whether f, a record of s, is at an end of it.
func (s *shard[K, V]) atEdge(f found[K, V]) bool {
	if int64(f.deadline) == s.edges.due[s.index].Load() {
		return true
	}
	if f.full == nil {
		return s.kept.turnOf(f.record) == s.edges.turn[s.index].load()
	}
	return f.full.turn == s.edges.turn[s.index].load() || f.full.worth == s.edges.worth[s.index].load()
}

// set stores v if it is new: most changes are not at an edge, and a store would take the cache line
// away from its readers.
func set(a *atomic.Int64, v int64) {
	if a.Load() != v {
		a.Store(v)
	}
}

// next returns the last turn of all, at now.
func (c *Cache[K, V]) next(now time.Duration) turn {
	return turn{now, c.seq.Add(1) << seqShift >> seqShift}
}

// beginning returns the turn that is about to be given: what was put in before has an earlier one.
func (c *Cache[K, V]) beginning() turn {
	return turn{c.now(), (c.seq.Load() + 1) << seqShift >> seqShift}
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

// makeRoom frees the place of an expired record, else of the outcome whose turn it is and that
// Protect lets go; but never of key itself, for which the place is wanted: it came in while the
// caller looked, and to drop it would run its fn again. none means that nothing may go, up to the
// turn of the number upTo; else the caller looks again: at its key, and for a place. Must be called
// without a lock; it takes that of one shard at a time.
func (c *Cache[K, V]) makeRoom(key K, notes *[]note[K]) (none bool, upTo uint32) {
	began := c.beginning()
	for {
		yield.At("look for room")
		before, now := c.seq.Load(), c.now()
		if i := c.firstDue(now); i >= 0 {
			c.reclaimSome(&c.shards[i], now, notes)
			return false, 0 // there is a place, also if someone else was quicker to give it back
		}
		i := c.firstTurn(now)
		yield.At("looked for room")
		if i < 0 {
			return true, before
		}
		if c.evict(&c.shards[i], key, began, now, notes) {
			return false, 0
		}
	}
}

// firstDue returns a shard that keeps something expired, or -1. (When the timer is set to fire tells
// less: it is set after the record that it is for can be seen.)
func (c *Cache[K, V]) firstDue(now time.Duration) int {
	for i := range c.edges.due {
		if c.edges.due[i].Load() <= int64(now) {
			return i
		}
	}
	return -1
}

// firstTurn returns the shard with the outcome that has to go first, or -1 if Protect lets none go.
// That whose turn it is in a shard stands for all of it: whatever is behind it and was never
// replayed was completed later.
func (c *Cache[K, V]) firstTurn(now time.Duration) int {
	found, first := -1, never
	for i := range c.edges.turn {
		t := c.edges.turn[i].load()
		if t.before(first) && c.unprotected(time.Duration(c.edges.done[i].Load()), now) {
			found, first = i, t
		}
	}
	return found
}

// unprotected reports whether Protect lets an outcome completed at done go at now.
func (c *Cache[K, V]) unprotected(done, now time.Duration) bool {
	return c.opts.Protect == 0 || // also what was completed after now was read
		now-done >= c.opts.Protect
}

// evict drops the outcome of s whose turn it is. If it was replayed, it gets its second chance
// instead, unless it has had one since the search began: so that the search ends. It reports whether
// the search is over: a place was given back, or it is the turn of key itself.
func (c *Cache[K, V]) evict(s *shard[K, V], key K, began turn, now time.Duration, notes *[]note[K]) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first, f, its, done := s.kept.firstTurn()
	switch {
	case f.record == nil || !c.unprotected(done, now):
		return false
	case f.flags.Load()&replayed != 0 && its.before(began):
		s.kept.again(first, f, c.next(now))
		s.publishLocked()
		return false
	case first == key:
		return true
	}
	c.giveBack()
	c.removeLocked(s, first, f)
	s.stats.Evicted++
	c.note(notes, Event[K]{Kind: EventEvicted, Key: first})
	return true
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

// shedOne drops something expired, else the value whose turn it is in all shards. Must be called
// without a lock, with the turn at which the search for weight began. It may find nothing, if
// others have just shed: the caller tries to take its weight again in any case.
func (c *Cache[K, V]) shedOne(began turn, notes *[]note[K]) {
	now := c.now()
	if i := c.firstDue(now); i >= 0 {
		c.reclaimSome(&c.shards[i], now, notes)
		return
	}
	found, first := -1, never
	for i := range c.edges.worth {
		if t := c.edges.worth[i].load(); t.before(first) {
			found, first = i, t
		}
	}
	if found < 0 {
		return
	}
	s := &c.shards[found]
	yield.At("shed")
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept.valued.items) == 0 {
		return
	}
	r := s.kept.valued.items[0]
	if r.flags.Load()&replayedValue != 0 && r.worth.before(began) {
		s.kept.valueAgain(r, c.next(now))
	} else {
		c.weight.Add(-r.weight)
		s.kept.shed(r)
		c.noteShed(s, r.key, notes)
	}
	s.publishLocked()
}

// noteShed counts and tells that the value of key, of s, was dropped. Must be called with s.mu held.
func (c *Cache[K, V]) noteShed(s *shard[K, V], key K, notes *[]note[K]) {
	s.stats.Shed++
	c.note(notes, Event[K]{Kind: EventShed, Key: key})
}
