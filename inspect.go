package idemflight

import (
	"iter"

	"github.com/idemflight/idemflight/internal/yield"
)

// Lookup returns what the cache knows of key, in flight or kept, and whether there is anything. It
// counts no use and changes no order. Cost: one shard lock.
func (c *Cache[K, V]) Lookup(key K) (Entry[V], bool) {
	s := c.shardOf(c.hash(key))
	yield.At("lookup")
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.kept.get(key); r.record != nil && !r.expired(c.now()) {
		return c.entry(r), true
	}
	if f := s.pending[key]; f != nil {
		return Entry[V]{State: InFlight, Fingerprint: f.fingerprint, Waiters: int(f.waiters), StartedAt: c.wall(f.startedAt)}, true
	}
	return Entry[V]{}, false
}

// All iterates over the keys in flight and kept, in no order. No lock is held while the loop body
// runs, which may call the cache. Each key is looked up when its turn comes: what has gone by then
// is left out, and what comes while the loop runs may or may not be seen. No key is seen twice. Cost:
// a copy of the keys of one shard at a time, and a Lookup for each.
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
	return s.kept.keys(keys)
}

// timesOf returns the times of f, a record, in wall time.
func (c *Cache[K, V]) timesOf(f found[K, V]) times {
	if f.full != nil {
		return f.full.timesOf(&c.clock)
	}
	return f.record.timesOf(&c.clock, f.deadline-c.opts.TTL)
}

// entry returns f, a record, as Lookup shows it.
func (c *Cache[K, V]) entry(f found[K, V]) Entry[V] {
	t := c.timesOf(f)
	return Entry[V]{
		State: f.state(), Value: f.value, Err: f.err(), Fingerprint: f.fingerprint(),
		StartedAt: t.started, CompletedAt: t.completed, ExpiresAt: t.expires,
	}
}

// result sets res to f, retained, as a call that replays it sees it.
//
//go:noinline
func (c *Cache[K, V]) result(f found[K, V], res *Result[V]) {
	t := c.timesOf(f)
	*res = Result[V]{Value: f.value, Source: Replayed, CompletedAt: t.completed, ExpiresAt: t.expires}
}

// Stats are counts since the cache was made, and its state at the moment of the call.
type Stats struct {
	// Calls of Do, by how they ended; once all have returned, the sum is the number of calls.
	Executed       uint64 // led the flight, and fn ran
	Joined         uint64 // got the outcome of a flight they did not start
	Replayed       uint64 // got a retained outcome, and fn did not run
	Reconciled     uint64 // led the flight, and Reconcile found it out
	KeyReused      uint64 // ErrKeyReused
	NotWaited      uint64 // ErrInFlight
	OutcomeUnknown uint64 // met a held key, and nobody found out: ErrOutcomeUnknown. The calls after which it was held are Executed and Joined: see Holds
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
	Entries  int   // kept and unexpired; with InFlight at most MaxEntries
	Held     int   // of these, held
	Weight   int64 // of retained outcomes
}

// Len returns the number of keys kept and unexpired, which is Stats().Entries. Cost: as of Stats.
func (c *Cache[K, V]) Len() (n int) {
	c.atOneMoment(func(s *shard[K, V]) { n += s.kept.len() })
	return n
}

// Stats returns counts and the present state, all of one moment; but InvalidKey, HookPanics and those
// replays that took no lock are read just before. It visits each shard and drops what has expired.
// Cost: the locks of all shards at once, which stops nearly every call for some microseconds. It is
// meant for a metrics scrape, not for each request.
func (c *Cache[K, V]) Stats() Stats {
	sum := Stats{Replayed: c.hot.counted(), InvalidKey: c.invalidKeys.Load(), HookPanics: c.hookPanics.Load()}
	c.atOneMoment(func(s *shard[K, V]) {
		sum.add(&s.stats)
		sum.InFlight += len(s.pending)
		sum.Waiters += s.waiters
		sum.Entries += s.kept.len()
		sum.Held += s.kept.held
		sum.Weight = c.weight.Load()
	})
	return sum
}

// atOneMoment calls read for each shard with the locks of all held, and nothing expired in them. It
// alone takes more than one lock of a shard: always in their order, so that two who do so do not
// wait for each other.
func (c *Cache[K, V]) atOneMoment(read func(*shard[K, V])) {
	c.reclaimAll()
	for i := range c.shards {
		c.shards[i].mu.Lock()
	}
	for i := range c.shards {
		read(&c.shards[i])
	}
	for i := range c.shards {
		c.shards[i].mu.Unlock()
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
