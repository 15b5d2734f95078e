// Package fix has errors to be marked, and imports idemflight by another name.
package fix

import (
	"context"
	"errors"
	"fmt"

	once "github.com/idemflight/idemflight"
)

var payments = once.MustNew(once.Options[string, string]{})

var errAmount = errors.New("no amount")

func pay(ctx context.Context, amount int, check error) (string, error) {
	return payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		if amount == 0 {
			return "", errAmount // want `this error holds the key`
		}
		if err := check; err != nil {
			return "", fmt.Errorf("check: %w", err) // want `this error holds the key`
		}
		return "", once.BeginEffect(ctx)
	})
}
