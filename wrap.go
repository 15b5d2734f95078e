package idemflight

import "context"

// Wrap returns fn made once-only: a call of it has the semantics of [Cache.Do] with the key and the
// fingerprint that key finds in the argument. An error from key is returned as it is and counts as
// no call. A zero Fingerprint from key leaves the one of opts, if any. A replay through it
// allocates nothing. Nil c, key or fn panic at once.
func Wrap[A any, K comparable, V any](c *Cache[K, V], key func(A) (K, Fingerprint, error),
	fn func(context.Context, A) (V, error), opts ...CallOption) func(context.Context, A) (V, error) {
	switch {
	case c == nil:
		panic("idemflight: Wrap called with a nil Cache")
	case key == nil:
		panic("idemflight: Wrap called with a nil key function")
	case fn == nil:
		panic("idemflight: Wrap called with a nil fn")
	}
	shared := readOptions(opts)
	return func(ctx context.Context, arg A) (V, error) {
		mustCall(ctx, false)
		o := shared
		k, fp, err := key(arg)
		if err != nil {
			return *new(V), err
		}
		if fp != (Fingerprint{}) {
			o.fp = fp
		}
		var found looked[K, V]
		v, err := c.look(ctx, c.hash(k), k, &o, nil, &found)
		switch f := found.flight; {
		case found.replayed: // before the closure is made, which allocates
			return v, err
		case f != nil:
			if err := c.joined(ctx, found.shard, f, o.maxWait); err != nil {
				return v, err
			}
			return f.outcome.value, f.outcome.err
		}
		return c.callValue(ctx, found.shard, k, func(ctx context.Context) (V, error) { return fn(ctx, arg) }, &o, found.puts)
	}
}
