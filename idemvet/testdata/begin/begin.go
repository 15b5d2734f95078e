// Package begin has calls of BeginEffect whose error is ignored, and others.
package begin

import (
	"context"
	"errors"
	"net/http"

	"github.com/idemflight/idemflight"
)

func ignored(ctx context.Context) {
	idemflight.BeginEffect(ctx)                       // want `the error of BeginEffect is ignored: it says that the effect must not begin`
	(idemflight.BeginEffect(ctx))                     // want `the error of BeginEffect is ignored`
	_ = idemflight.BeginEffect(ctx)                   // want `the error of BeginEffect is ignored`
	var _ = idemflight.BeginEffect(ctx)               // want `the error of BeginEffect is ignored`
	err, _ := error(nil), idemflight.BeginEffect(ctx) // want `the error of BeginEffect is ignored`
	_, _ = errors.New(""), err
	go idemflight.BeginEffect(ctx)    // want `the error of BeginEffect is ignored`
	defer idemflight.BeginEffect(ctx) // want `the error of BeginEffect is ignored`
}

func heeded(ctx context.Context) error {
	if err := idemflight.BeginEffect(ctx); err != nil {
		return err
	}
	if idemflight.BeginEffect(ctx) != nil {
		return nil
	}
	_, err := 1, idemflight.BeginEffect(ctx)
	if err != nil {
		return err
	}
	idemflight.NoEffect(ctx)
	return idemflight.BeginEffect(ctx)
}

var payments = idemflight.MustNew(idemflight.Options[string, *http.Response]{})

// Only with -idembegin.missing: see package beginmissing.
func missing(ctx context.Context, c *http.Client) {
	payments.Do(ctx, "key", func(ctx context.Context) (*http.Response, error) { return c.Post("/", "", nil) })
}
