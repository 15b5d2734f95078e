package idemflight

import "context"

// Wrap returns fn made once-only: a call of it has the semantics of [Cache.Do] with the key and the
// fingerprint that the function key returns for the argument. An error from key is returned as it
// is and counts as no call. A zero Fingerprint from key leaves the one of opts, if any. A replay
// through it allocates no more than one of Do. Nil c, key or fn panic at once.
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
		if ctx == nil {
			panic("idemflight: a call through Wrap with a nil context")
		}
		o := shared
		k, fp, err := key(arg)
		if err != nil {
			return *new(V), err
		}
		if fp != (Fingerprint{}) {
			o.fp = fp
		}
		hash := c.hash(k)
		var seen looked[K, V]
		r := c.lookHot(hash, k, &o)
		if r.record == nil {
			r = c.lookLocked(hash, k, &o, &seen)
		}
		switch {
		case r.record != nil: // before the closure is made, which allocates
			if c.opts.Observer != nil {
				c.observeReplayed(ctx, k, r)
			}
			return r.value, r.err()
		case seen.flight != nil:
			f := seen.flight
			waits, err := c.joined(ctx, seen.shard, f, o.maxWait)
			if waits { // as in Do
				select {
				case <-f.done:
				case <-ctx.Done():
					err = c.depart(ctx, seen.shard, f, true, false)
				}
			}
			if err != nil {
				return *new(V), err
			}
			return f.outcome.value, f.outcome.err
		}
		return c.callValue(ctx, seen.shard, k, func(ctx context.Context) (V, error) { return fn(ctx, arg) }, &o, seen.puts)
	}
}
