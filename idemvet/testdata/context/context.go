// Package context has fns that use the context of their caller, and others that do not.
package context

import (
	"context"
	"net/http"
	"time"

	"github.com/idemflight/idemflight"
)

type receipt struct{}

var payments = idemflight.MustNew(idemflight.Options[string, receipt]{})

func charge(ctx context.Context) (receipt, error) { return receipt{}, ctx.Err() }

type tracer struct{}

func (tracer) Start(ctx context.Context, name string) (context.Context, func()) {
	return ctx, func() {}
}

func callers(ctx context.Context, key string) {
	payments.Do(ctx, key, func(context.Context) (receipt, error) {
		return charge(ctx) // want `fn uses the context of its caller, which may end before fn does: use the one that fn is given`
	})
	payments.DoResult(ctx, key, func(context.Context) (receipt, error) {
		return charge(ctx) // want `fn uses the context of its caller`
	})
	payments.Do(ctx, key, func(context.Context) (receipt, error) {
		return charge(ctx) // want `fn uses the context of its caller`
	}, idemflight.Inline())
	payments.Do((ctx), key, func(c context.Context) (receipt, error) {
		go func() {
			<-ctx.Done() // want `fn uses the context of its caller`
		}()
		return charge(c)
	})
}

func ofFn(ctx context.Context, key string) {
	payments.Do(ctx, key, charge)
	payments.Do(ctx, key, func(ctx context.Context) (receipt, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return charge(ctx)
	})
}

func derivedBefore(ctx context.Context, key string) {
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	payments.Do(short, key, func(context.Context) (receipt, error) {
		return charge(ctx) // want `fn uses the context of its caller`
	})
	payments.Do(ctx, key, func(context.Context) (receipt, error) {
		return charge(short) // want `fn uses the context of its caller`
	})
	traced, end := tracer{}.Start(ctx, "pay")
	defer end()
	payments.Do(ctx, key, func(context.Context) (receipt, error) {
		return charge(traced) // want `fn uses the context of its caller`
	})
	ctx, cancel2 := context.WithCancel(ctx)
	defer cancel2()
	payments.Do(ctx, key, func(context.Context) (receipt, error) {
		return charge(ctx) // want `fn uses the context of its caller`
	})
}

func ofRequest(w http.ResponseWriter, r *http.Request) {
	payments.Do(r.Context(), "key", func(context.Context) (receipt, error) {
		return charge(r.Context()) // want `fn uses the context of its caller`
	})
	ctx := r.Context()
	payments.Do(ctx, "key", func(context.Context) (receipt, error) {
		return charge(r.Context()) // want `fn uses the context of its caller`
	})
	payments.Do(r.Context(), "key", func(context.Context) (receipt, error) {
		return charge(ctx) // want `fn uses the context of its caller`
	})
}

func inVariable(ctx context.Context, key string) {
	fn := func(context.Context) (receipt, error) {
		return charge(ctx) // want `fn uses the context of its caller`
	}
	payments.Do(ctx, key, fn)
	payments.Do(ctx, key+"2", fn)

	either := func(context.Context) (receipt, error) { return charge(ctx) } // set twice: not looked at
	if key == "" {
		either = charge
	}
	payments.Do(ctx, key, either)
}

// The inner fn has two contexts around it, and neither is its own.
func nested(ctx context.Context, key string) {
	payments.Do(ctx, key, func(outer context.Context) (receipt, error) {
		return payments.Do(outer, key+"/1", func(context.Context) (receipt, error) {
			if _, err := charge(ctx); err != nil { // want `fn uses the context of its caller`
				return receipt{}, err
			}
			return charge(outer) // want `fn uses the context of its caller`
		})
	})
}

// server has a context of its own, which ends when it shuts down.
type server struct{ life context.Context }

// serve stops its work on purpose: life is not its caller's.
func (s server) serve(life context.Context, done context.Context) func(context.Context) {
	return func(ctx context.Context) {
		payments.Do(ctx, "key", func(ctx context.Context) (receipt, error) {
			if life.Err() != nil || s.life.Err() != nil {
				return receipt{}, idemflight.Retryable(life.Err())
			}
			return charge(ctx)
		})
	}
}

// A Wrap has no caller yet.
func wrapped(ctx context.Context) func(context.Context, string) (receipt, error) {
	return idemflight.Wrap(payments, func(key string) (string, idemflight.Fingerprint, error) {
		return key, idemflight.Fingerprint{}, nil
	}, func(own context.Context, _ string) (receipt, error) {
		if ctx.Err() != nil {
			return receipt{}, idemflight.Retryable(ctx.Err())
		}
		return charge(own)
	})
}

// once has a method of the same name.
type once struct{}

func (once) Do(ctx context.Context, key string, fn func(context.Context) (receipt, error)) {}

func another(ctx context.Context) {
	once{}.Do(ctx, "key", func(context.Context) (receipt, error) { return charge(ctx) })
}

// shop has the methods of its cache.
type shop[V any] struct {
	*idemflight.Cache[string, V]
}

func (s shop[V]) pay(ctx context.Context, fn func(context.Context) (V, error)) (V, error) {
	return s.Do(ctx, "key", func(context.Context) (V, error) {
		return fn(ctx) // want `fn uses the context of its caller`
	})
}

// A loop of variables that lead to each other.
func circle(key string) {
	var a, b context.Context
	a = context.WithValue(b, key, 1)
	b = context.WithValue(a, key, 1)
	payments.Do(a, key, func(context.Context) (receipt, error) {
		return charge(b) // want `fn uses the context of its caller`
	})
}
