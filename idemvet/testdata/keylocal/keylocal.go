// Package keylocal has keys in local variables, with and without a retry that could use them.
package keylocal

import (
	"context"

	"github.com/idemflight/idemflight"
)

var (
	texts = idemflight.MustNew(idemflight.Options[string, string]{})
	keys  = idemflight.MustNew(idemflight.Options[idemflight.Key, string]{})
)

func pay(context.Context) (string, error) { return "", nil }

func usedUp(ctx context.Context) {
	id := idemflight.NewID() // want `no retry can use this key, which guards nothing: take it from the client`
	texts.Do(ctx, id, pay)

	id2 := idemflight.NewID() // want `no retry can use this key`
	key := idemflight.Key{Scope: "ann", ID: id2}
	keys.Do(ctx, key, pay)

	texts.Do(ctx, idemflight.NewID(), pay) // want `a key that is made in the call`
}

func usedAgain(ctx context.Context) (string, error) {
	twice := idemflight.NewID()
	texts.Do(ctx, twice, pay)
	texts.Do(ctx, twice, pay)

	retried := idemflight.NewID()
	for range 3 {
		texts.Do(ctx, retried, pay)
	}

	called := idemflight.NewID()
	try := func() (string, error) { return texts.Do(ctx, called, pay) }
	try()
	try()

	changed := idemflight.NewID()
	changed = "order-1"
	texts.Do(ctx, changed, pay)

	returned := idemflight.NewID()
	_, err := texts.Do(ctx, returned, pay)
	return returned, err
}

// Each order has a key of its own.
func batch(ctx context.Context, orders []string) {
	for range orders {
		key := idemflight.NewID()
		texts.Do(ctx, key, pay)
	}
}

func inFunction(ctx context.Context) {
	func() {
		key := idemflight.NewID() // want `no retry can use this key`
		texts.Do(ctx, key, pay)
	}()
}
