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
		Open:  func(o Options[V]) Store[V] { return openIdemflight(o) },
	}
}

// inlineRival is this library as all the others but resenje are: the leader runs Load itself, which
// saves a goroutine for each execution, and stays until it is done.
func inlineRival[V any]() Rival[V] {
	r := idemflightRival[V]()
	r.Name = "idemflight-inline"
	r.Lacks = "idemflight with the option Inline: the leader runs fn itself and cannot leave"
	r.Open = func(o Options[V]) Store[V] { return openIdemflight(o, idemflight.Inline()) }
	return r
}

type idemflightStore[V any] struct {
	cache *idemflight.Cache[string, V]
	do    func(context.Context, string) (V, error)
}

// openIdemflight turns MinRetention off: plain LRU, as none of the others protects what is recent.
func openIdemflight[V any](o Options[V], opts ...idemflight.CallOption) Store[V] {
	c := idemflight.MustNew(idemflight.Options[string, V]{MaxEntries: o.Capacity, TTL: o.TTL, MinRetention: -1})
	key := func(key string) (string, idemflight.Fingerprint, error) { return key, idemflight.Fingerprint{}, nil }
	return &idemflightStore[V]{c, idemflight.Wrap(c, key, o.Load, opts...)}
}

func (s *idemflightStore[V]) Do(ctx context.Context, key string) (V, error) { return s.do(ctx, key) }

func (s *idemflightStore[V]) Close() { _ = s.cache.Close(context.Background()) }
