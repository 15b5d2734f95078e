// Package named imports idemflight by another name.
package named

import (
	"context"
	"errors"

	once "github.com/idemflight/idemflight"
)

var payments = once.MustNew(once.Options[string, string]{})

func pay(ctx context.Context, amount int) (string, error) {
	return payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		if amount == 0 {
			return "", errors.New("no amount") // want `this error holds the key`
		}
		return "", once.BeginEffect(ctx)
	})
}
