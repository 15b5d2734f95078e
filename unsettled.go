package idemflight

import (
	"context"
	"slices"
	"time"

	"github.com/idemflight/idemflight/internal/order"
	"github.com/idemflight/idemflight/internal/yield"
)

// Unsettled calls each for every key in flight or held, in the order in which their executions
// started, until it returns false: this is what an operator looks at. No lock is held while each
// runs. A key is looked up when its turn comes: one that has settled by then is left out, and one
// that becomes unsettled meanwhile may be left out. Without a Store the error is nil, and ctx is
// not consulted. With one, it goes through the keys of all processes, in the store's order. Then
// the error is [ErrStore]: the store failed, or some of its keys and records cannot be decoded
// (each was called for the rest).
//
// Cost: sorting the keys, and a few words and a Lookup for each, however many outcomes are
// retained. The lock of a shard is held while its flights and held records are noted: some 50 µs
// for a thousand. With a Store: what its Unsettled costs.
func (c *Cache[K, V]) Unsettled(ctx context.Context, each func(K, Entry[V]) bool) error {
	mustHave(ctx, "Unsettled")
	if c.keeper != nil {
		return c.unsettledStored(ctx, each)
	}
	var all []started[K]
	c.syncWall()
	for i := range c.shards {
		all = c.noteUnsettled(all, &c.shards[i])
	}
	slices.SortStableFunc(all, func(a, b started[K]) int { return a.at.Compare(b.at) })
	for _, s := range all {
		e, _ := c.lookup(s.key)
		if (e.State == InFlight || e.State == Held) && !each(s.key, e) {
			break
		}
	}
	return nil
}

// started is a key and when its execution started.
type started[K comparable] struct {
	key K
	at  time.Time
}

// noteUnsettled appends what is in flight and held in s.
func (c *Cache[K, V]) noteUnsettled(all []started[K], s *shard[K, V]) []started[K] {
	yield.At("unsettled")
	s.mu.Lock()
	defer s.mu.Unlock()
	all = slices.Grow(all, s.flights.len+s.kept.holds())
	for f := range s.flights.each {
		all = append(all, started[K]{f.key, c.wall(f.startedAt)})
	}
	for _, q := range []*order.Queue[record[K, V]]{&s.kept.held, &s.kept.spare} {
		for r := range q.All {
			at := c.wall(r.more.done - time.Duration(r.took))
			if t := r.more.times; t != nil { // restored, say, or it took long
				at = t.as(c.ahead.Load()).started
			}
			all = append(all, started[K]{r.key, at})
		}
	}
	return all
}
