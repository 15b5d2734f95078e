package idemflight

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/idemflight/idemflight/internal/order"
	"github.com/idemflight/idemflight/internal/yield"
)

// Capacity is shared by all shards: places, weight, and the order of turns across them. All of it
// is atomics, so that no other lock is taken under a shard's mu. A reading is a hint, checked again
// under the lock of the shard that it points to.

// head publishes which records of a shard would go first, so that a search reads one table instead
// of locking every shard. It is written with the shard's mu held, and read by anyone.
type head struct {
	due   atomic.Int64 // deadline of the record that expires first, or forever
	done  atomic.Int64 // completion of the outcome that is the next to be evicted,
	evict atomicTurn   // and its turn
	shed  atomicTurn   // of the value that is the next to be shed
	spare atomicTurn   // of the held key that is the next to be evicted as the last resort

	// Completion of the first outcome in the order queue, or forever. It may hide behind a younger
	// one of the line: it had its second chance after that completed.
	queued atomic.Int64
}

// atomicTurn is a turn in two words: a concurrent reader may see one old and one new.
type atomicTurn struct {
	at  atomic.Int64
	seq atomic.Uint64
}

func (a *atomicTurn) load() order.Turn {
	return order.Turn{At: time.Duration(a.at.Load()), Seq: a.seq.Load()}
}

func (a *atomicTurn) set(t order.Turn) {
	if a.load() != t {
		a.at.Store(int64(t.At))
		a.seq.Store(t.Seq)
	}
}

// set stores v if it is new: a store would take the cache line away from its readers.
func set(a *atomic.Int64, v int64) {
	if a.Load() != v {
		a.Store(v)
	}
}

// publishLocked brings the head of s up to date. It must be called after every change at the head
// of one of its orders.
func (s *shard[K, V]) publishLocked() {
	due, done, queued := int64(forever), int64(forever), int64(forever)
	if r := s.kept.firstDue(); r != nil {
		due = int64(r.deadline)
	}
	r, first := s.kept.firstTurn()
	if r != nil {
		done = int64(r.done(s.kept.ttl))
	}
	if r, _ := s.kept.order.First(); r != nil {
		queued = int64(r.done(s.kept.ttl))
	}
	_, value := s.kept.firstValue()
	_, spare := s.kept.firstSpare()
	set(&s.head.due, due)
	set(&s.head.done, done)
	set(&s.head.queued, queued)
	s.head.evict.set(first)
	s.head.shed.set(value)
	s.head.spare.set(spare)
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

// returnPlace gives a place back. That of a record is returned before the record is removed, under
// one lock: a search that does not see the record any more sees its place, so that ErrFull is never
// said while something could go.
func (c *Cache[K, V]) returnPlace() { c.places.Add(-1) }

// search is a search for a record that may go, to make room for key.
type search[K comparable, V any] struct {
	c     *Cache[K, V]
	key   K
	hash  uint32        // of key; asked first: the text of the key that goes is not in any cache
	from  int           // the shard to begin with
	began order.Turn    // only outcomes that had their turn before get a second chance, so that it ends
	now   time.Duration // as of which records are expired or young
	notes *[]note[K]
}

// makeRoom frees the place of an expired record, otherwise of the outcome whose turn it is and that
// MinRetention lets go. It never evicts key itself: if key was inserted meanwhile, evicting it
// would run its fn again. exhausted means that nothing may go that was there as of insertion number
// asOf; otherwise the caller looks again, at its key and for a place. Must be called without a
// lock; it takes that of one shard at a time.
func (c *Cache[K, V]) makeRoom(key K, hash uint64, notes *[]note[K]) (exhausted bool, asOf uint32) {
	find := search[K, V]{c: c, key: key, hash: uint32(hash), now: c.now(), notes: notes}
	find.from, find.began = c.shardOf(hash).index+1, c.nextTurn(find.now)
	for ; ; find.now = c.now() {
		yield.At("look for room")
		asOf = c.seq.Load()
		if s := c.firstDue(find.now); s != nil {
			c.reclaimSome(s, find.now, notes)
			return false, asOf // there is a place, even if another goroutine was quicker to return it
		}
		s, t := find.victim()
		yield.At("looked for room")
		over := false
		if s != nil {
			over = find.evict(s, t)
		} else if s = find.hidden(); s != nil {
			over = find.evictHidden(s)
		} else if s, t = find.lastResort(); s != nil {
			over = find.evictHeld(s, t)
		} else {
			return true, asOf
		}
		if over {
			return false, asOf
		}
	}
}

// firstDue returns a shard that keeps something expired, or nil. (The deadline that the timer is
// set for would not do: it is set after the record that it is for can be seen.)
func (c *Cache[K, V]) firstDue(now time.Duration) *shard[K, V] {
	for i := range c.heads {
		if c.heads[i].due.Load() <= int64(now) {
			return &c.shards[i]
		}
	}
	return nil
}

// exactBelow is the MaxEntries below which the outcome whose turn it is in all shards is evicted.
// From there on the first that is found to be old enough is, so that the goroutines that look for
// room at the same time neither read what all the others write nor meet at one shard.
const exactBelow = 1 << 12

// oldEnough reports whether an outcome may be evicted although others may be older: it was
// inserted, or had its second chance, three quarters of MaxEntries insertions ago. (So one
// that is replayed at least once in a quarter of MaxEntries insertions bears its mark by then,
// and is not evicted.)
func (find *search[K, V]) oldEnough(t order.Turn) bool {
	n := find.c.opts.MaxEntries
	return n >= exactBelow && int(find.c.seq.Load()-uint32(t.Seq>>32)) >= n-n/4
}

// victim returns a shard whose next outcome may be evicted, and the turn of that: the first that is
// old enough, otherwise the one with the earliest turn; nil if MinRetention spares all. The head of
// a shard stands for the shard: records behind it that were never replayed completed later.
func (find *search[K, V]) victim() (s *shard[K, V], first order.Turn) {
	c := find.c
	first = never
	for i := range c.shards {
		if i += find.from; i >= len(c.shards) {
			i -= len(c.shards)
		}
		t := c.heads[i].evict.load()
		if t.At == forever || !find.unprotected(time.Duration(c.heads[i].done.Load())) {
			continue
		}
		if find.oldEnough(t) {
			return &c.shards[i], t
		}
		if t.Before(first) {
			s, first = &c.shards[i], t
		}
	}
	return s, first
}

// unprotected reports whether MinRetention lets an outcome go that completed at done.
func (find *search[K, V]) unprotected(done time.Duration) bool {
	protect := find.c.minRetention
	return protect == 0 || // even what has completed since now was read
		find.now-done >= protect
}

// evict drops the outcome of s whose turn it is, if that is still the one that was found, or
// another that is old enough. One that was replayed gets its second chance instead. It reports
// whether the search is over: a place was returned, or it is the turn of key itself.
func (find *search[K, V]) evict(s *shard[K, V], found order.Turn) bool {
	c := find.c
	s.mu.Lock()
	defer s.mu.Unlock()
	r, t := s.kept.firstTurn()
	switch {
	case r == nil || t != found && !find.oldEnough(t) || !find.unprotected(r.done(c.opts.TTL)):
		return false
	case r.has(replayed) && t.Before(find.began):
		s.kept.giveSecondChance(r, c.secondChance(find.now))
		s.publishLocked()
		return false
	default:
		find.dropLocked(s, r, nil)
		return true
	}
}

// dropLocked evicts r from s, unless it is of key itself; err is that of the event.
func (find *search[K, V]) dropLocked(s *shard[K, V], r *record[K, V], err error) {
	if r.hash == find.hash && r.key == find.key {
		return
	}
	find.c.returnPlace()
	find.c.removeLocked(s, r)
	s.stats.Evicted++
	find.c.noteDropped(find.notes, Event[K]{Kind: EventEvicted, Key: r.key, Err: err, Origin: r.origin()})
}

// hidden returns a shard with an outcome that may go although victim did not find it, the one
// that completed first; nil if there is none. (Those in the queue had their second chance, and
// so may go, but for those with a TTL of their own and restored ones: behind one of these,
// there may be another.)
func (find *search[K, V]) hidden() (s *shard[K, V]) {
	first := forever
	for i := range find.c.heads {
		done := time.Duration(find.c.heads[i].queued.Load())
		if done < first && find.unprotected(done) {
			s, first = &find.c.shards[i], done
		}
	}
	return s
}

// evictHidden drops the first in the queue of s, if it may go still, even if it was replayed. It
// reports whether the search is over.
func (find *search[K, V]) evictHidden(s *shard[K, V]) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _ := s.kept.order.First()
	if r == nil || !find.unprotected(r.done(find.c.opts.TTL)) {
		return false
	}
	find.dropLocked(s, r, nil)
	return true
}

// lastResort returns a shard with a key that is held only because fn said nothing at all, and
// the turn of that, the earliest of all; nil if there is none that MinRetention lets go. So
// an hour in which a database is dead, and every fn fails without a word, does not lock
// everybody out for HoldTTL.
func (find *search[K, V]) lastResort() (s *shard[K, V], first order.Turn) {
	first = never
	for i := range find.c.heads {
		if t := find.c.heads[i].spare.load(); t.Before(first) && find.unprotected(t.At) {
			s, first = &find.c.shards[i], t
		}
	}
	return s, first
}

// evictHeld drops the held key of s that lastResort has found, if it is there still. It reports
// whether the search is over.
func (find *search[K, V]) evictHeld(s *shard[K, V], found order.Turn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, t := s.kept.firstSpare()
	if r == nil || t != found {
		return false
	}
	find.dropLocked(s, r, ErrOutcomeUnknown)
	return true
}

// nextTurn returns a turn after all that were given so far, and not after one given later.
func (c *Cache[K, V]) nextTurn(now time.Duration) order.Turn {
	t := insertionTurn(now, c.seq.Load())
	t.Seq |= uint64(c.chances.Load() + 1)
	return t
}

// secondChance gives the next turn.
func (c *Cache[K, V]) secondChance(now time.Duration) order.Turn {
	t := insertionTurn(now, c.seq.Load())
	t.Seq |= uint64(c.chances.Add(1))
	return t
}

// takeWeightLocked takes the weight of a newcomer to s from MaxWeight. If there is too little left,
// it unlocks s.mu and sheds values until there is enough: then the caller has to look again whether
// the weight is still wanted, and to return it if not. (A value that alone is heavier than
// MaxWeight takes nothing: it will be shed at once.)
//
// Weight that is taken with mu held is published with its record before mu is unlocked. A
// newcomer that finds too little waits until it is the only one that sheds, and keeps for
// itself what it has shed: so it gets there however many light ones come meanwhile. All other
// weight is that of records, or of the newcomer before, which is about to insert its record: so
// there is something to shed.
func (c *Cache[K, V]) takeWeightLocked(s *shard[K, V], weight int64, notes *[]note[K]) {
	if weight == 0 || weight > c.opts.MaxWeight || c.takeWeight(weight, weight) > 0 {
		return
	}
	s.mu.Unlock()
	yield.At("weight")
	c.shedding <- struct{}{}
	began := c.nextTurn(c.now())
	for missing := weight; missing > 0; {
		if missing -= c.takeWeight(0, missing); missing > 0 {
			missing -= c.shedOne(began, notes)
		}
		if missing < 0 {
			c.weight.Add(missing) // the last one freed more
		}
	}
	yield.At("weight: taken")
	s.mu.Lock()
	<-c.shedding // does not block: it takes what was sent above
}

// takeWeight takes as much as there is left of MaxWeight, up to most; nothing, if that is not at
// least the given least. It returns how much it took.
func (c *Cache[K, V]) takeWeight(least, most int64) int64 {
	for {
		sum := c.weight.Load()
		taken := min(most, c.opts.MaxWeight-sum)
		if taken < least {
			return 0
		}
		if c.weight.CompareAndSwap(sum, sum+taken) {
			return taken
		}
	}
}

// returnWeight gives back what takeWeightLocked has taken, or the weight of a
// record that is dropped.
func (c *Cache[K, V]) returnWeight(weight int64) {
	if weight > 0 && weight <= c.opts.MaxWeight {
		c.weight.Add(-weight)
	}
}

// shedOne drops something expired, otherwise the value whose turn it is in all shards, or gives
// that its second chance if it had its turn before the given one. It returns the weight of a value
// that it has dropped, which then is the caller's. Must be called without a lock.
func (c *Cache[K, V]) shedOne(began order.Turn, notes *[]note[K]) (freed int64) {
	now := c.now()
	if s := c.firstDue(now); s != nil {
		c.reclaimSome(s, now, notes)
		return 0
	}
	found, first := -1, never
	for i := range c.heads {
		if t := c.heads[i].shed.load(); t.Before(first) {
			found, first = i, t
		}
	}
	if found < 0 { // the newcomer before has all of it, and is about to publish it
		runtime.Gosched()
		return 0
	}
	s := &c.shards[found]
	yield.At("shed")
	s.mu.Lock()
	defer s.mu.Unlock()
	r, t := s.kept.firstValue()
	switch {
	case r == nil:
		return 0
	case r.has(replayedValue) && t.Before(began):
		s.kept.giveValueSecondChance(r, c.secondChance(c.now()))
	default:
		freed = r.weight()
		if c.keeper == nil {
			s.kept.shed(r)
		} else { // a copy, which goes as a whole
			c.returnPlace()
			s.kept.remove(r)
		}
		c.noteShed(s, r.key, r.origin(), notes)
	}
	s.publishLocked()
	return freed
}

// noteShed counts and reports that the value of key, of s, was dropped. Must be
// called with s.mu held.
func (c *Cache[K, V]) noteShed(s *shard[K, V], key K, origin *Origin, notes *[]note[K]) {
	s.stats.Shed++
	c.noteDropped(notes, Event[K]{Kind: EventShed, Key: key, Origin: origin})
}
