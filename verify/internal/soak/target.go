package soak

import (
	"context"
	"iter"
	"math"
	"strconv"

	"github.com/idemflight/idemflight"
)

type (
	entry  = idemflight.Entry[*value]
	result = idemflight.Result[*value]
	fnOf   = func(context.Context) (*value, error)
)

// target is what a round drives: the cache, or one with a planted fault.
type target[K comparable] interface {
	call(ctx context.Context, by way, key K, fn fnOf, opts ...idemflight.CallOption) (result, error)
	Lookup(key K) (entry, bool, error)
	All() iter.Seq2[K, entry]
	Forget(key K) (bool, error)
	Resolve(key K, v *value, err error) error
	Reconcile(ctx context.Context, key K) (entry, error)
	Restore(key K, e entry) error
	Len() int
	Stats() idemflight.Stats
	Close(ctx context.Context) error
}

// cache is the library's.
type cache[K comparable] struct{ *idemflight.Cache[K, *value] }

func newCache[K comparable](o idemflight.Options[K, *value]) target[K] {
	return cache[K]{idemflight.MustNew(o)}
}

func (c cache[K]) Lookup(key K) (entry, bool, error) {
	return c.Cache.Lookup(context.Background(), key)
}

func (c cache[K]) Forget(key K) (bool, error) {
	return c.Cache.Forget(context.Background(), key)
}

func (c cache[K]) Resolve(key K, v *value, err error) error {
	return c.Cache.Resolve(context.Background(), key, v, err)
}

func (c cache[K]) Restore(key K, e entry) error {
	return c.Cache.Restore(context.Background(), key, e)
}

// call calls by one of three methods. Only DoResult tells the Source.
func (c cache[K]) call(ctx context.Context, by way, key K, fn fnOf, opts ...idemflight.CallOption) (res result, err error) {
	switch by {
	case byDo:
		res.Value, err = c.Do(ctx, key, fn, opts...)
	case byWrap:
		wrapped := idemflight.Wrap(c.Cache,
			func(key K) (K, idemflight.Fingerprint, error) { return key, idemflight.Fingerprint{}, nil },
			func(ctx context.Context, _ K) (*value, error) { return fn(ctx) }, opts...)
		res.Value, err = wrapped(ctx, key)
	default:
		res, err = c.DoResult(ctx, key, fn, opts...)
	}
	return res, err
}

// codec turns numbers into keys and back.
type codec[K comparable] struct {
	key     func(int) K
	num     func(K) int
	invalid []K
}

var (
	ints   = codec[int]{func(n int) int { return n }, func(k int) int { return k }, nil}
	floats = codec[float64]{func(n int) float64 { return float64(n) }, func(k float64) int { return int(k) }, []float64{math.NaN()}}
	texts  = codec[string]{strconv.Itoa, atoi, []string{""}}
	keys   = codec[idemflight.Key]{
		func(n int) idemflight.Key {
			return idemflight.Key{Scope: "account " + strconv.Itoa(n%7), ID: strconv.Itoa(n)}
		},
		func(k idemflight.Key) int { return atoi(k.ID) },
		[]idemflight.Key{{}, {Scope: "account"}, {ID: "1"}},
	}
)

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
