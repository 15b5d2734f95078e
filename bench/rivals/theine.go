package rivals

import (
	"context"

	"github.com/Yiling-J/theine-go"
)

func theineRival[V any]() Rival[V] {
	return Rival[V]{
		Name: "theine", Module: "github.com/Yiling-J/theine-go",
		Keeps: true, Expires: true, Bounded: true, Errors: true,
		Lacks: "nobody can leave; the loader runs with a shard locked: it must not use the cache, and other keys wait",
		Open:  openTheine[V],
	}
}

type theineStore[V any] struct {
	*theine.LoadingCache[string, V]
}

func openTheine[V any](o Options[V]) Store[V] {
	c, err := theine.NewBuilder[string, V](int64(o.Capacity)).Loading(
		func(ctx context.Context, key string) (theine.Loaded[V], error) {
			v, err := o.Load(ctx, key)
			return theine.Loaded[V]{Value: v, Cost: 1, TTL: o.TTL}, err
		}).Build()
	if err != nil {
		panic(err) // only for a capacity below 1
	}
	return theineStore[V]{c}
}

func (s theineStore[V]) Do(ctx context.Context, key string) (V, error) { return s.Get(ctx, key) }
