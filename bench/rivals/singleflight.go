package rivals

import (
	"context"

	"golang.org/x/sync/singleflight"
)

func singleflightRival[V any]() Rival[V] {
	return Rival[V]{
		Name: "singleflight", Module: "golang.org/x/sync",
		Errors: true,
		Lacks:  "keeps nothing: a duplicate that comes later runs again; Do cannot be left",
		Open:   openSingleflight[V],
	}
}

// singleflightStore uses Do, which is faster than DoChan; with DoChan a caller could leave.
type singleflightStore[V any] struct {
	load  func(context.Context, string) (V, error)
	group singleflight.Group
}

func openSingleflight[V any](o Options[V]) Store[V] { return &singleflightStore[V]{load: o.Load} }

func (s *singleflightStore[V]) Do(ctx context.Context, key string) (V, error) {
	v, err, _ := s.group.Do(key, func() (any, error) { return s.load(ctx, key) })
	return v.(V), err
}

func (s *singleflightStore[V]) Close() {}
