package rivals

import (
	"context"

	"github.com/idemflight/idemflight"
)

func idemflightRival[V any]() Rival[V] {
	return Rival[V]{
		Name: "idemflight", Module: "github.com/idemflight/idemflight",
		Keeps: true, Expires: true, Bounded: true, Errors: true,
		Lacks: "no refresh ahead of expiry, no admission policy: an operation is not a lookup",
		Open:  openIdemflight[V],
	}
}

type idemflightStore[V any] struct {
	cache *idemflight.Cache[string, V]
	do    func(context.Context, string) (V, error)
}

// openIdemflight turns Protect off: plain LRU, as none of the others protects what is recent.
func openIdemflight[V any](o Options[V]) Store[V] {
	c := idemflight.MustNew(idemflight.Options[string, V]{MaxEntries: o.Capacity, TTL: o.TTL, Protect: -1})
	key := func(key string) (string, idemflight.Fingerprint, error) { return key, idemflight.Fingerprint{}, nil }
	return &idemflightStore[V]{c, idemflight.Wrap(c, key, o.Load)}
}

func (s *idemflightStore[V]) Do(ctx context.Context, key string) (V, error) { return s.do(ctx, key) }

func (s *idemflightStore[V]) Close() { _ = s.cache.Close(context.Background()) }
