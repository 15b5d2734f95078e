package rivals

import (
	"context"
	"errors"

	"github.com/jellydator/ttlcache/v3"
)

func ttlcacheRival[V any]() Rival[V] {
	return Rival[V]{
		Name: "ttlcache", Module: "github.com/jellydator/ttlcache/v3",
		Keeps: true, Expires: true, Bounded: true,
		Lacks: "its loader gets no context and returns no error; nobody can leave",
		Open:  openTTLCache[V],
	}
}

type ttlcacheStore[V any] struct{ cache *ttlcache.Cache[string, V] }

var errNothingLoaded = errors.New("ttlcache: the loader returned nothing")

// openTTLCache turns touching off, because a replay extends no TTL with the others either.
func openTTLCache[V any](o Options[V]) Store[V] {
	load := ttlcache.LoaderFunc[string, V](func(c *ttlcache.Cache[string, V], key string) *ttlcache.Item[string, V] {
		v, err := o.Load(context.Background(), key)
		if err != nil {
			return nil
		}
		return c.Set(key, v, ttlcache.DefaultTTL)
	})
	c := ttlcache.New(
		ttlcache.WithCapacity[string, V](uint64(o.Capacity)),
		ttlcache.WithTTL[string, V](o.TTL),
		ttlcache.WithDisableTouchOnHit[string, V](),
		ttlcache.WithLoader[string, V](ttlcache.NewSuppressedLoader[string, V](load, nil)),
	)
	go c.Start()
	return ttlcacheStore[V]{c}
}

func (s ttlcacheStore[V]) Do(_ context.Context, key string) (V, error) {
	if item := s.cache.Get(key); item != nil {
		return item.Value(), nil
	}
	var zero V
	return zero, errNothingLoaded
}

func (s ttlcacheStore[V]) Close() { s.cache.Stop() }
