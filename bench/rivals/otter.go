package rivals

import (
	"context"

	"github.com/maypok86/otter/v2"
)

func otterRival[V any]() Rival[V] {
	return Rival[V]{
		Name: "otter", Module: "github.com/maypok86/otter/v2",
		Keeps: true, Expires: true, Bounded: true, Errors: true,
		Lacks: "the leader cannot leave, and its cancellation stops the work for all",
		Open:  openOtter[V],
	}
}

type otterStore[V any] struct {
	load  otter.Loader[string, V]
	cache *otter.Cache[string, V]
}

func openOtter[V any](o Options[V]) Store[V] {
	opts := &otter.Options[string, V]{MaximumSize: o.Capacity}
	if o.TTL > 0 {
		opts.ExpiryCalculator = otter.ExpiryWriting[string, V](o.TTL)
	}
	return &otterStore[V]{otter.LoaderFunc[string, V](o.Load), otter.Must(opts)}
}

func (s *otterStore[V]) Do(ctx context.Context, key string) (V, error) {
	return s.cache.Get(ctx, key, s.load)
}

func (s *otterStore[V]) Close() { s.cache.StopAllGoroutines() }
