package idemflight

import (
	"context"
	"iter"

	"github.com/idemflight/idemflight/internal/yield"
)

// Lookup returns what the cache knows of key, in flight or kept, and whether there is anything. It
// counts no use and changes no order. Cost: one shard lock.
func (c *Cache[K, V]) Lookup(_ context.Context, key K) (Entry[V], bool, error) {
	e, ok := c.lookup(key)
	return e, ok, nil
}

func (c *Cache[K, V]) lookup(key K) (Entry[V], bool) {
	hash := c.hash(key)
	s := c.shardOf(hash)
	yield.At("lookup")
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.kept.get(hash, key); r != nil && !r.expired(c.now()) {
		return c.entry(r), true
	}
	if f := s.flights.get(hash, key); f != nil {
		c.nowAndWall()
		started := c.wall(f.startedAt)
		return Entry[V]{State: InFlight, Fingerprint: f.fingerprint, Waiters: int(f.waiters), StartedAt: started}, true
	}
	return Entry[V]{}, false
}

// All iterates over the keys in flight and kept, in no order. No lock is held while the loop body
// runs, which may call the cache. Each key is looked up when its turn comes: one that has been
// removed by then is left out, and one that is inserted while the loop runs may or may not be seen.
// No key is seen twice. Cost:
// a copy of the keys of one shard at a time, and a Lookup for each.
func (c *Cache[K, V]) All() iter.Seq2[K, Entry[V]] {
	return func(visit func(K, Entry[V]) bool) {
		for i := range c.shards {
			for _, key := range c.shards[i].keys() {
				if e, ok := c.lookup(key); ok && !visit(key, e) {
					return
				}
			}
		}
	}
}

// keys returns the keys of all flights and records of s.
func (s *shard[K, V]) keys() []K {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]K, 0, s.kept.len()+s.flights.len)
	for f := range s.flights.each {
		keys = append(keys, f.key)
	}
	for r := range s.kept.table.all {
		keys = append(keys, r.key)
	}
	return keys
}
