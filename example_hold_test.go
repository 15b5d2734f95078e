package idemflight_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/idemflight/idemflight"
)

// Reconcile turns "unknown" from a dead end into an answer: it asks the bank. Here the answer to
// one charge was lost after the bank had booked it; the other never got there.
func ExampleOptions_reconcile() {
	ctx := context.Background()
	bank := new(exampleBank)
	cache := idemflight.MustNew(idemflight.Options[string, string]{
		Reconcile: func(ctx context.Context, key string, held idemflight.Entry[string]) (string, error) {
			fmt.Printf("  asking about %s: %v\n", key, held.Err)
			if receipt, ok := bank.booked[key]; ok {
				return receipt, nil // it took place: retained, fn does not run
			}
			return "", idemflight.Retryable(errors.New("not booked")) // it did not: fn runs
		},
	})
	pay := func(id string) {
		r, err := cache.DoResult(ctx, id, func(ctx context.Context) (string, error) {
			return bank.pay(ctx, id)
		})
		if errors.Is(err, idemflight.ErrOutcomeUnknown) {
			fmt.Println(id, "unknown")
			return
		}
		fmt.Println(id, r.Value, r.Source)
	}

	bank.trouble = errConnectionLost // after it was booked
	pay("rent")
	pay("rent")
	bank.trouble = errors.New("timeout") // before it was
	pay("phone")
	pay("phone")
	// Output:
	// rent unknown
	//   asking about rent: connection lost
	// rent receipt 1 reconciled
	// phone unknown
	//   asking about phone: timeout
	// phone receipt 2 executed
}

// An operator that has found out settles a held key by hand.
func ExampleCache_Resolve() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	pay := func(context.Context) (string, error) { return "", idemflight.Unknown(errConnectionLost) }
	for _, id := range []string{"rent", "phone", "food"} {
		_, _ = cache.Do(ctx, id, pay)
	}

	// The bank's statement shows the rent but not the phone bill; the food is still unclear.
	fmt.Println(cache.Resolve(ctx, "rent", "receipt 7", nil))
	fmt.Println(cache.Resolve(ctx, "phone", "", idemflight.Retryable(errors.New("not booked"))))
	fmt.Println(cache.Resolve(ctx, "food", "", errors.New("statement not there yet")))

	payNow := func(context.Context) (string, error) { return "receipt 8", nil }
	fmt.Println(cache.Do(ctx, "rent", payNow))
	fmt.Println(cache.Do(ctx, "phone", payNow))
	_, err := cache.Do(ctx, "food", payNow)
	fmt.Println(errors.Is(err, idemflight.ErrOutcomeUnknown))
	// Output:
	// <nil>
	// <nil>
	// idemflight: Resolve needs nil, Final(err) or Retryable(err), the key stays held: statement not there yet
	// receipt 7 <nil>
	// receipt 8 <nil>
	// true
}

// An operator asks the bank about a held key now, without waiting for its client to come back.
func ExampleCache_Reconcile() {
	ctx := context.Background()
	bank := &exampleBank{trouble: errConnectionLost}
	cache := idemflight.MustNew(idemflight.Options[string, string]{
		Reconcile: func(_ context.Context, key string, _ idemflight.Entry[string]) (string, error) {
			if receipt, ok := bank.booked[key]; ok {
				return receipt, nil
			}
			return "", idemflight.Retryable(errors.New("not booked"))
		},
	})
	_, _ = cache.Do(ctx, "rent", func(ctx context.Context) (string, error) { return bank.pay(ctx, "rent") })

	e, err := cache.Reconcile(ctx, "rent")
	fmt.Println(e.State, e.Value, err)
	_, err = cache.Reconcile(ctx, "rent")
	fmt.Println(err)
	// Output:
	// retained receipt 1 <nil>
	// idemflight: key is not held: it is retained
}

// What an operator looks at: held keys, and flights that take long, the oldest first.
func ExampleCache_Unsettled() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	_, _ = cache.Do(ctx, "paid", func(context.Context) (string, error) { return "receipt", nil })
	_, _ = cache.Do(ctx, "lost", func(context.Context) (string, error) { return "", idemflight.Unknown(errConnectionLost) })
	_ = cache.Unsettled(ctx, func(key string, e idemflight.Entry[string]) bool {
		fmt.Println(key, e.State, e.Err)
		return true
	})
	// Output: lost held connection lost
}
