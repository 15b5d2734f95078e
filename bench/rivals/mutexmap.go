package rivals

import (
	"context"
	"sync"
)

func mutexMapRival[V any]() Rival[V] {
	return Rival[V]{
		Name:  "mutex-map",
		Keeps: true, Errors: true,
		Lacks: "no TTL, no bound: it grows until it is thrown away; nobody can leave; errors stay forever",
		Open:  openMutexMap[V],
	}
}

// mutexMap is the floor: a map of sync.OnceValues, what must be paid for once per key and nothing
// else. The lock is not held while Load runs.
type mutexMap[V any] struct {
	load func(context.Context, string) (V, error)

	mu   sync.Mutex
	done map[string]func() (V, error)
}

func openMutexMap[V any](o Options[V]) Store[V] {
	return &mutexMap[V]{load: o.Load, done: make(map[string]func() (V, error))}
}

func (s *mutexMap[V]) Do(ctx context.Context, key string) (V, error) {
	s.mu.Lock()
	once, ok := s.done[key]
	if !ok {
		once = s.once(ctx, key)
		s.done[key] = once
	}
	s.mu.Unlock()
	return once()
}

// once is a function of its own so that a replay does not pay for what the closure captures.
func (s *mutexMap[V]) once(ctx context.Context, key string) func() (V, error) {
	return sync.OnceValues(func() (V, error) { return s.load(ctx, key) })
}

func (s *mutexMap[V]) Close() {}
