package rivals

import (
	"context"

	"github.com/hashicorp/golang-lru/v2/expirable"
	"golang.org/x/sync/singleflight"
)

func singleflightLRURival[V any]() Rival[V] {
	return Rival[V]{
		Name: "singleflight+lru", Module: "github.com/hashicorp/golang-lru/v2",
		Keeps: true, Expires: true, Bounded: true, Errors: true,
		Lacks: "nobody can leave; its clean-up goroutine cannot be stopped; the second look is up to you",
		Open:  openSingleflightLRU[V],
	}
}

// singleflightLRU is what many write by hand: singleflight in front of golang-lru's expirable.
type singleflightLRU[V any] struct {
	load  func(context.Context, string) (V, error)
	group singleflight.Group
	kept  *expirable.LRU[string, V]
}

// openSingleflightLRU gives no TTL: expirable then takes ten years and a look at the clock costs
// the same, but it starts no goroutine, which could not be stopped and would disturb the others.
func openSingleflightLRU[V any](o Options[V]) Store[V] {
	return &singleflightLRU[V]{load: o.Load, kept: expirable.NewLRU[string, V](o.Capacity, nil, 0)}
}

func (s *singleflightLRU[V]) Do(ctx context.Context, key string) (V, error) {
	if v, ok := s.kept.Get(key); ok {
		return v, nil
	}
	return s.fly(ctx, key)
}

func (s *singleflightLRU[V]) fly(ctx context.Context, key string) (V, error) {
	v, err, _ := s.group.Do(key, func() (any, error) {
		// The second look: without it, a caller who missed just before a flight ended runs again.
		if v, ok := s.kept.Get(key); ok {
			return v, nil
		}
		v, err := s.load(ctx, key)
		if err == nil {
			s.kept.Add(key, v)
		}
		return v, err
	})
	return v.(V), err
}

func (s *singleflightLRU[V]) Close() {}
