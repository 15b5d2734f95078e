package idemflight

import (
	"context"
	"iter"

	"github.com/idemflight/idemflight/internal/yield"
)

// Lookup returns what the cache knows of key, in flight or kept, and whether there is anything. It
// counts no use and changes no order. Without a Store the error is nil, ctx is not consulted, and
// it costs one shard lock. With one it asks the store, in one round trip, for up to 5 s or until
// ctx ends; the error is [ErrStore], or [ErrInvalidKey] for a key that cannot be encoded.
func (c *Cache[K, V]) Lookup(ctx context.Context, key K) (Entry[V], bool, error) {
	mustHave(ctx, "Lookup")
	if c.keeper != nil {
		return c.lookupStored(ctx, key)
	}
	e, ok := c.lookup(key)
	return e, ok, nil
}

func (c *Cache[K, V]) lookup(key K) (Entry[V], bool) {
	e, _, ok := c.look(key)
	return e, ok
}

// look is lookup that also returns why the key is held, if it is.
func (c *Cache[K, V]) look(key K) (e Entry[V], held why, ok bool) {
	hash := c.hash(key)
	s := c.shardOf(hash)
	yield.At("lookup")
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.kept.get(hash, key); r != nil && !r.expired(c.now()) {
		if r.state() == Held {
			held = r.more.why
		}
		return c.entry(r), held, true
	}
	if f := s.flights.get(hash, key); f != nil {
		c.syncWall()
		started := c.wall(f.startedAt)
		e := Entry[V]{State: InFlight, Fingerprint: f.fingerprint, Waiters: int(f.waiters), Origin: f.origin(), StartedAt: started}
		return e, held, true
	}
	return Entry[V]{}, held, false
}

// All iterates over the keys in flight and kept, in no order. No lock is held while the loop body
// runs, which may call the cache, and none for more than some 100 µs, however much is kept. Each
// key is looked up when its turn comes: one that has been removed by then is left out, and one that
// is inserted while the loop runs may or may not be seen. One that is there all the time is seen,
// and no key is seen twice. Cost: a Lookup for each key, and a shard lock for each hundred.
func (c *Cache[K, V]) All() iter.Seq2[K, Entry[V]] {
	return func(visit func(K, Entry[V]) bool) {
		for key := range c.keys {
			if e, ok := c.lookup(key); ok && !visit(key, e) {
				return
			}
		}
	}
}

// keys visits the keys of all flights and records, some at a time: it calls visit without a lock.
func (c *Cache[K, V]) keys(visit func(K) bool) {
	some := make([]K, 0, keysAtOnce+slots)
	for i := range c.shards {
		for at := uint64(0); at < positions; {
			yield.At("all")
			some, at = c.shards[i].keysFrom(some[:0], at)
			for _, key := range some {
				if !visit(key) {
					return
				}
			}
		}
	}
}

// keysAtOnce is how far keysFrom goes with the lock held: some 20 µs, measured with a
// million entries in one shard. (There are not many empty buckets on the way, or the table
// would have shrunk.)
const keysAtOnce = 128

// keysFrom appends the keys of s from position at on, and returns the position up to which it came.
// (See [table.scan]. A flight has a position by its hash, too: a key that goes from held to in
// flight and back keeps its own. All flights are looked through each time; a shard has few.)
func (s *shard[K, V]) keysFrom(keys []K, at uint64) ([]K, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := at
	for at < positions && len(keys) < keysAtOnce {
		at = s.kept.table.scan(at, func(r *record[K, V]) { keys = append(keys, r.key) })
	}
	for f := range s.flights.each {
		if p := position(uint32(f.hash)); from <= p && p < at {
			keys = append(keys, f.key)
		}
	}
	return keys, at
}
