package rivals

import (
	"context"
	"time"

	"github.com/viccon/sturdyc"
)

func sturdycRival[V any]() Rival[V] {
	return Rival[V]{
		Name: "sturdyc", Module: "github.com/viccon/sturdyc",
		Keeps: true, Expires: true, Bounded: true, Errors: true,
		Lacks: "nobody can leave; the leader's cancellation stops the work for all; a full shard drops a tenth of itself at once",
		Open:  openSturdyc[V],
	}
}

type sturdycStore[V any] struct {
	load  func(context.Context, string) (V, error)
	cache *sturdyc.Client[V]
}

// openSturdyc takes the shards and the percentage of the README's first example, and turns the
// background job off, which the README recommends when capacity is not exceeded: it cannot be
// stopped, and would disturb the others.
func openSturdyc[V any](o Options[V]) Store[V] {
	const shards, evictionPercentage = 10, 10
	ttl := o.TTL
	if ttl <= 0 {
		ttl = 24 * time.Hour // it has no "forever"
	}
	return &sturdycStore[V]{o.Load, sturdyc.New[V](o.Capacity, shards, ttl, evictionPercentage, sturdyc.WithNoContinuousEvictions())}
}

func (s *sturdycStore[V]) Do(ctx context.Context, key string) (V, error) {
	return s.cache.GetOrFetch(ctx, key, func(ctx context.Context) (V, error) { return s.load(ctx, key) })
}

func (s *sturdycStore[V]) Close() {}
