package idemflight

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/idemflight/idemflight/internal/yield"
)

// Unsettled calls each for every key in flight or held, in the order in which their executions started,
// until it returns false: what an operator looks at. No lock is held while it runs. Each key is looked up
// when its turn comes: one that has settled by then is left out, and one that becomes unsettled meanwhile
// may be. The error is nil, and ctx is not asked.
//
// Cost: sorting them, a few words and a Lookup for each, however many outcomes are retained. A shard's
// lock is held while pointers to its flights and held records are copied: some 10 µs for a thousand.
func (c *Cache[K, V]) Unsettled(_ context.Context, each func(K, Entry[V]) bool) error {
	type started struct {
		key K
		at  time.Duration
	}
	var all []started
	for i := range c.shards {
		flying, held := c.shards[i].unsettled()
		for _, f := range flying {
			all = append(all, started{f.key, f.startedAt})
		}
		for _, r := range held {
			all = append(all, started{r.key, r.more.done - time.Duration(r.took)})
		}
	}
	slices.SortStableFunc(all, func(a, b started) int { return cmp.Compare(a.at, b.at) })
	for _, s := range all {
		e, _ := c.lookup(s.key)
		if (e.State == InFlight || e.State == Held) && !each(s.key, e) {
			break
		}
	}
	return nil
}

// unsettled returns what is in flight and held in s. What it reads of them was written before they could
// be seen.
func (s *shard[K, V]) unsettled() (flying []*flight[K, V], held []*record[K, V]) {
	yield.At("unsettled")
	s.mu.Lock()
	defer s.mu.Unlock()
	flying = make([]*flight[K, V], 0, s.flights.len)
	for f := range s.flights.each {
		flying = append(flying, f)
	}
	held = s.kept.spare.AppendTo(s.kept.held.AppendTo(make([]*record[K, V], 0, s.kept.holds())))
	return flying, held
}
