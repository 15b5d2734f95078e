package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/idemflight/idemflight"
)

// From BeginEffect on, a failure is "unknown" and not "try again": not even one that looks
// harmless, such as that of the own database after the money was taken.
func ExampleBeginEffect() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	bank := new(exampleBank)
	databaseFull := errors.New("disk full")

	pay := func(ctx context.Context) (string, error) {
		idemflight.NoEffect(ctx)
		if err := idemflight.BeginEffect(ctx); err != nil {
			return "", err // too late, or nothing guards the call: do not begin
		}
		if _, err := bank.charge(ctx, "order-1"); err != nil {
			return "", err
		}
		return "", databaseFull
	}
	for range 2 {
		_, err := cache.Do(ctx, "order-1", pay)
		fmt.Println(errors.Is(err, idemflight.ErrOutcomeUnknown), errors.Is(err, databaseFull))
	}
	fmt.Println("charges:", len(bank.booked))

	_, err := pay(ctx) // forgot the cache
	fmt.Println(errors.Is(err, idemflight.ErrNotExecuting))
	// Output:
	// true true
	// true true
	// charges: 1
	// true
}

// NoEffect says at the top of fn that nothing has begun, and later takes BeginEffect back where the
// failure is certain to have had no effect.
func ExampleNoEffect() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	bank := &exampleBank{trouble: errDown}

	pay := func(ctx context.Context) (string, error) {
		idemflight.NoEffect(ctx)
		if err := idemflight.BeginEffect(ctx); err != nil {
			return "", err
		}
		receipt, err := bank.charge(ctx, "order-1")
		if errors.Is(err, errDown) {
			idemflight.NoEffect(ctx)
		}
		return receipt, err
	}
	fmt.Println(cache.Do(ctx, "order-1", pay))
	fmt.Println(cache.Do(ctx, "order-1", pay))
	// Output:
	//  bank is down
	// receipt 1 <nil>
}

// A real answer is replayed, be it a refusal: the card is not tried again.
func ExampleFinal() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	bank := &exampleBank{trouble: errDeclined}

	pay := func(ctx context.Context) (string, error) {
		idemflight.NoEffect(ctx)
		if err := idemflight.BeginEffect(ctx); err != nil {
			return "", err
		}
		receipt, err := bank.charge(ctx, "order-1")
		if errors.Is(err, errDeclined) {
			err = idemflight.Final(err)
		}
		return receipt, err
	}
	for range 2 {
		_, err := cache.Do(ctx, "order-1", pay)
		fmt.Println(err, err == errDeclined) // callers get the error that was marked
	}
	// Output:
	// card declined true
	// card declined true
}

// Retryable means: certainly no effect, so the next call runs fn again. It is also how a value is
// returned that must not be kept.
func ExampleRetryable() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	pending := errors.New("still pending")

	polls := 0
	poll := func(context.Context) (string, error) {
		if polls++; polls < 3 {
			return fmt.Sprintf("%d of 3 done", polls), idemflight.Retryable(pending)
		}
		return "complete", nil
	}
	for range 4 {
		fmt.Println(cache.Do(ctx, "job-1", poll))
	}
	// Output:
	// 1 of 3 done still pending
	// 2 of 3 done still pending
	// complete <nil>
	// complete <nil>
}

// Unknown holds the key: fn does not run again until someone finds out what became of it. It is for
// errors that are known to be ambiguous; after BeginEffect, every error without a marker is.
func ExampleUnknown() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	bank := &exampleBank{trouble: errConnectionLost}

	pay := func(ctx context.Context) (string, error) {
		receipt, err := bank.charge(ctx, "order-1")
		if errors.Is(err, errConnectionLost) {
			err = idemflight.Unknown(err)
		}
		return receipt, err
	}
	for range 2 {
		_, err := cache.Do(ctx, "order-1", pay)
		fmt.Println(errors.Is(err, idemflight.ErrOutcomeUnknown), errors.Is(err, errConnectionLost))
	}
	fmt.Println("charges:", len(bank.booked))
	// Output:
	// true true
	// true true
	// charges: 1
}

// What becomes of an error about which fn said nothing. No classifier can know: an operation that
// matters calls BeginEffect.
func ExampleClassifyLenient() {
	for _, err := range []error{
		errors.New("not found"),
		&net.OpError{Op: "dial", Err: errors.New("connection refused")},
		&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded},
		context.DeadlineExceeded,
		idemflight.Final(errors.New("card declined")),
		nil,
	} {
		fmt.Printf("%-7v  %v\n", idemflight.ClassifyLenient(err), err)
	}
	// Output:
	// release  not found
	// release  dial: connection refused
	// hold     read: i/o timeout
	// hold     context deadline exceeded
	// retain   card declined
	// retain   <nil>
}

// A Classify of one's own knows the errors of one's own, and leaves the others to ClassifyLenient. It
// is asked only where fn said nothing about its effect: here, where there is none. Without one the key
// is held.
func ExampleOptions_classify() {
	ctx := context.Background()
	noSuchAccount := errors.New("no such account")
	cache := idemflight.MustNew(idemflight.Options[string, string]{
		Classify: func(err error) idemflight.Disposition {
			if errors.Is(err, noSuchAccount) {
				return idemflight.Retain // a real answer
			}
			return idemflight.ClassifyLenient(err)
		},
	})
	verify := func(context.Context) (string, error) {
		fmt.Println("verifying")
		return "", noSuchAccount
	}
	for range 2 {
		_, err := cache.Do(ctx, "account-1", verify)
		fmt.Println(err)
	}
	// Output:
	// verifying
	// no such account
	// no such account
}

// Every fn of this cache calls BeginEffect before its effect. So one that has not has had none, whatever
// it fails with, and is run again.
func ExampleOptions_effectsAnnounced() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{EffectsAnnounced: true})
	bank := new(exampleBank)
	noStock := errors.New("out of stock")

	buy := func(stock int) (string, error) {
		return cache.Do(ctx, "order-1", func(ctx context.Context) (string, error) {
			if stock == 0 {
				return "", noStock
			}
			if err := idemflight.BeginEffect(ctx); err != nil {
				return "", err
			}
			return bank.charge(ctx, "order-1")
		})
	}
	fmt.Println(buy(0))
	fmt.Println(buy(3))
	fmt.Println(buy(3))
	// Output:
	//  out of stock
	// receipt 1 <nil>
	// receipt 1 <nil>
}
