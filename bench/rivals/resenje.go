package rivals

import (
	"context"

	"resenje.org/singleflight"
)

func resenjeRival[V any]() Rival[V] {
	return Rival[V]{
		Name: "resenje", Module: "resenje.org/singleflight",
		Errors: true,
		Lacks:  "keeps nothing: a duplicate that comes later runs again; when all callers have left, the work is cancelled",
		Open:   openResenje[V],
	}
}

type resenjeStore[V any] struct {
	load  func(context.Context, string) (V, error)
	group singleflight.Group[string, V]
}

func openResenje[V any](o Options[V]) Store[V] { return &resenjeStore[V]{load: o.Load} }

func (s *resenjeStore[V]) Do(ctx context.Context, key string) (V, error) {
	v, _, err := s.group.Do(ctx, key, func(ctx context.Context) (V, error) { return s.load(ctx, key) })
	return v, err
}

func (s *resenjeStore[V]) Close() {}
