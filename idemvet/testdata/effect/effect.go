// Package effect calls BeginEffect and NoEffect with contexts of all kinds.
package effect

import (
	"context"
	"net/http"
	"time"

	"github.com/idemflight/idemflight"
)

var payments = idemflight.MustNew(idemflight.Options[string, string]{})

func callers(ctx context.Context, r *http.Request) {
	payments.Do(ctx, "key", func(own context.Context) (string, error) {
		idemflight.NoEffect(ctx)                 // want `this context is not that of the fn around it: use the one that fn is given`
		return "", idemflight.BeginEffect((ctx)) // want `this context is not that of the fn around it`
	})
	payments.Do(ctx, "key", func(context.Context) (string, error) {
		ctx := r.Context()
		idemflight.NoEffect(r.Context())       // want `this context is not that of the fn around it`
		return "", idemflight.BeginEffect(ctx) // want `this context is not that of the fn around it`
	}, idemflight.Inline())
	payments.Do(ctx, "key", func(context.Context) (string, error) {
		short, cancel := context.WithTimeout(ctx, time.Second) // want `fn uses the context of its caller`
		defer cancel()
		return "", idemflight.BeginEffect(short) // want `this context is not that of the fn around it`
	})
	idemflight.Wrap(payments, func(k string) (string, idemflight.Fingerprint, error) { return k, idemflight.Fingerprint{}, nil },
		func(context.Context, string) (string, error) {
			return "", idemflight.BeginEffect(ctx) // want `this context is not that of the fn around it`
		})
}

func request(r *http.Request) {
	payments.Do(r.Context(), "key", func(context.Context) (string, error) {
		return "", idemflight.BeginEffect((r.Context())) // want `this context is not that of the fn around it`
	})
}

func ofFn(ctx context.Context) {
	var kept, either context.Context
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		idemflight.NoEffect(ctx)
		short, cancel := context.WithTimeout(context.WithValue(ctx, "a", 1), time.Second)
		defer cancel()
		kept, either = short, ctx
		if kept.Err() == nil {
			either = kept
		}
		idemflight.NoEffect(kept)
		idemflight.NoEffect(either)
		func() {
			idemflight.NoEffect(context.WithoutCancel(short))
		}()
		each(ctx, func(ctx context.Context) {
			idemflight.NoEffect(ctx)
		})
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		return "", idemflight.BeginEffect(ctx)
	})
}

func each(ctx context.Context, do func(context.Context)) { do(ctx) }

func nested(ctx context.Context) {
	payments.Do(ctx, "key", func(outer context.Context) (string, error) {
		idemflight.NoEffect(outer)
		return payments.Do(outer, "key/1", func(inner context.Context) (string, error) {
			idemflight.NoEffect(outer) // want `this context is not that of the fn around it`
			return "", idemflight.BeginEffect(inner)
		})
	})
}

func none(ctx context.Context) {
	idemflight.NoEffect(context.Background()) // want `this context belongs to no execution: use the one that fn is given`
	background, cancel := context.WithCancel(context.TODO())
	defer cancel()
	idemflight.NoEffect(background) // want `this context belongs to no execution`
}

// What is not written in the call, and an ordinary function, may have any context.
func unknown(ctx context.Context, s struct{ ctx context.Context }) error {
	payments.Do(ctx, "key", func(context.Context) (string, error) {
		return "", idemflight.BeginEffect(s.ctx)
	})
	later := func(context.Context) (string, error) { return "", idemflight.BeginEffect(ctx) }
	_ = later
	return idemflight.BeginEffect(ctx)
}
