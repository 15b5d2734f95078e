package idemflight

import (
	"iter"
)

// Lookup returns what the cache knows of key, in flight or kept, and whether there is anything. It
// counts no use and changes no order. Cost: one shard lock.
func (c *Cache[K, V]) Lookup(key K) (Entry[V], bool) {
	s := c.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.kept.get(key); r != nil && !r.expired(c.now()) {
		return r.entry(), true
	}
	if f := s.pending[key]; f != nil {
		return Entry[V]{State: InFlight, Fingerprint: f.fingerprint, Waiters: f.waiters, StartedAt: f.startedAt}, true
	}
	return Entry[V]{}, false
}

// All iterates over the keys in flight and kept, in no order. No lock is held while the loop body
// runs, which may call the cache. Each key is looked up when its turn comes: what has gone by then
// is left out, and what comes while the loop runs may be. Cost: a copy of the keys of one shard at
// a time, and a Lookup for each.
func (c *Cache[K, V]) All() iter.Seq2[K, Entry[V]] {
	return func(yield func(K, Entry[V]) bool) {
		for i := range c.shards {
			for _, key := range c.shards[i].keys() {
				if e, ok := c.Lookup(key); ok && !yield(key, e) {
					return
				}
			}
		}
	}
}

func (s *shard[K, V]) keys() []K {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]K, 0, s.kept.len()+len(s.pending))
	for key := range s.pending {
		keys = append(keys, key)
	}
	for key := range s.kept.records {
		keys = append(keys, key)
	}
	return keys
}

// Stats are counts since the cache was made, and its state at one moment of each shard.
type Stats struct {
	// Calls of Do, by how they ended; once all have returned, the sum is the number of calls.
	Executed       uint64 // led the flight, and fn ran
	Joined         uint64 // got the outcome of a flight they did not start
	Replayed       uint64 // got a kept outcome
	Reconciled     uint64 // led the flight, and Reconcile found it out
	KeyReused      uint64 // ErrKeyReused
	NotWaited      uint64 // ErrInFlight
	OutcomeUnknown uint64 // met a held key: ErrOutcomeUnknown
	ValueShed      uint64 // ErrValueShed
	Full           uint64 // ErrFull
	Closed         uint64 // ErrClosed
	Reentrant      uint64 // ErrReentrant
	InvalidKey     uint64 // ErrInvalidKey
	Left           uint64 // ErrLeft

	// Executions of fn and of Reconcile that ended, by what became of the outcome.
	Retains, Releases, Holds uint64
	Panics                   uint64 // those of them that ended by panic or runtime.Goexit

	// Upkeep.
	Evicted    uint64 // unexpired outcomes dropped for capacity
	Expired    uint64 // records that expired, once they are reclaimed
	Shed       uint64 // values dropped for weight
	HookPanics uint64 // panics and Goexits of Classify, Weigh and Observer, and of the methods of errors they are asked about

	// Now.
	InFlight int   // flights
	Waiters  int   // joined callers that wait
	Entries  int   // kept and unexpired; at any moment at most MaxEntries with InFlight
	Held     int   // of these, held
	Weight   int64 // of retained outcomes
}

// Len returns the number of keys kept and unexpired. Like [Cache.Stats] it visits each shard and
// drops what has expired.
func (c *Cache[K, V]) Len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		c.visit(s)
		n += s.kept.len()
		s.mu.Unlock()
	}
	return n
}

// Stats returns counts and the present state. Each shard is read at a moment of its own. Cost: one
// lock per shard, some microseconds in all; call it when scraped, not per request.
func (c *Cache[K, V]) Stats() Stats {
	sum := Stats{InvalidKey: c.invalidKeys.Load(), HookPanics: c.hookPanics.Load()}
	for i := range c.shards {
		s := &c.shards[i]
		c.visit(s)
		sum.add(&s.stats)
		sum.InFlight += len(s.pending)
		sum.Waiters += s.waiters
		sum.Entries += s.kept.len()
		sum.Held += s.kept.held
		s.mu.Unlock()
	}
	sum.Weight = c.weight.Load()
	return sum
}

// visit locks s.mu with nothing expired in s.
func (c *Cache[K, V]) visit(s *shard[K, V]) {
	for {
		now := c.now()
		if s.edge.due.Load() <= int64(now) {
			c.reclaimShard(s, now)
		}
		s.mu.Lock()
		if r := s.kept.firstDue(); r == nil || !r.expired(c.now()) {
			return
		}
		s.mu.Unlock()
	}
}

func (sum *Stats) add(s *Stats) {
	sum.Executed += s.Executed
	sum.Joined += s.Joined
	sum.Replayed += s.Replayed
	sum.Reconciled += s.Reconciled
	sum.KeyReused += s.KeyReused
	sum.NotWaited += s.NotWaited
	sum.OutcomeUnknown += s.OutcomeUnknown
	sum.ValueShed += s.ValueShed
	sum.Full += s.Full
	sum.Closed += s.Closed
	sum.Reentrant += s.Reentrant
	sum.Left += s.Left
	sum.Retains += s.Retains
	sum.Releases += s.Releases
	sum.Holds += s.Holds
	sum.Panics += s.Panics
	sum.Evicted += s.Evicted
	sum.Expired += s.Expired
	sum.Shed += s.Shed
}
