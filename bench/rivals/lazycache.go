package rivals

import (
	"context"

	"github.com/bep/lazycache"
)

func lazycacheRival[V any]() Rival[V] {
	return Rival[V]{
		Name: "lazycache", Module: "github.com/bep/lazycache",
		Keeps: true, Bounded: true, Errors: true,
		Lacks: "no TTL, no contexts: nobody can leave; what is in flight can be evicted and then runs again",
		Open:  openLazycache[V],
	}
}

type lazycacheStore[V any] struct {
	load  func(context.Context, string) (V, error)
	cache *lazycache.Cache[string, V]
}

func openLazycache[V any](o Options[V]) Store[V] {
	return &lazycacheStore[V]{o.Load, lazycache.New(lazycache.Options[string, V]{MaxEntries: o.Capacity})}
}

func (s *lazycacheStore[V]) Do(ctx context.Context, key string) (V, error) {
	v, _, err := s.cache.GetOrCreate(key, func(key string) (V, error) { return s.load(ctx, key) })
	return v, err
}

func (s *lazycacheStore[V]) Close() {}
