package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/idemflight/idemflight"
)

// exampleBank stands for any service that must not be asked twice for one thing. What it fails with
// tells whether it did the thing.
type exampleBank struct {
	trouble error // of the next charge
	booked  map[string]string
}

// charge books the payment named by id, once or more often: it does not look.
func (b *exampleBank) charge(ctx context.Context, id string) (receipt string, err error) {
	err, b.trouble = b.trouble, nil
	if err != nil && err != errConnectionLost {
		return "", err
	}
	receipt = "receipt " + strconv.Itoa(len(b.booked)+1)
	if b.booked == nil {
		b.booked = make(map[string]string)
	}
	b.booked[id] = receipt
	if err != nil {
		return "", err
	}
	return receipt, nil
}

// pay is an fn as it should be; the examples about something else use it. What it does, Example,
// ExampleBeginEffect, ExampleNoEffect and ExampleFinal show.
func (b *exampleBank) pay(ctx context.Context, id string) (receipt string, err error) {
	idemflight.NoEffect(ctx)
	if err := idemflight.BeginEffect(ctx); err != nil {
		return "", err
	}
	receipt, err = b.charge(ctx, id)
	switch {
	case errors.Is(err, errDeclined):
		err = idemflight.Final(err)
	case errors.Is(err, errDown):
		idemflight.NoEffect(ctx)
	}
	return receipt, err
}

var (
	errDeclined       = errors.New("card declined")   // the bank's answer
	errDown           = errors.New("bank is down")    // nothing was sent
	errConnectionLost = errors.New("connection lost") // sent, but no answer came: booked or not?
)

// A payment that is guarded as it should be. The key comes from the client, made once per intent
// and sent with every retry. NoEffect stands at the top of fn, BeginEffect right before the call that
// must not happen twice.
func Example() {
	ctx := context.Background()
	payments := idemflight.MustNew(idemflight.Options[idemflight.Key, string]{})
	bank := new(exampleBank)

	pay := func(ctx context.Context, customer, id string) (string, error) {
		key := idemflight.Key{Scope: customer, ID: id}
		return payments.Do(ctx, key, func(ctx context.Context) (string, error) {
			idemflight.NoEffect(ctx) // up to here nothing has begun: a failure may be tried again
			if err := idemflight.BeginEffect(ctx); err != nil {
				return "", err
			}
			receipt, err := bank.charge(ctx, customer+"/"+id) // the ID alone may also be another customer's
			switch {
			case errors.Is(err, errDeclined):
				err = idemflight.Final(err) // a real answer: replayed like a receipt
			case errors.Is(err, errDown):
				idemflight.NoEffect(ctx) // certainly not booked: a retry may try again
			}
			return receipt, err
		})
	}

	bank.trouble = errDown
	for try := 1; try <= 3; try++ { // the second charges, the third does not again
		receipt, err := pay(ctx, "ann", "rent-may")
		fmt.Printf("may, try %d: %q, %v\n", try, receipt, err)
	}

	bank.trouble = errConnectionLost
	for try := 1; try <= 2; try++ { // the second does not charge again, as long as the outcome is unknown
		_, err := pay(ctx, "ann", "rent-june")
		fmt.Printf("june, try %d: unknown: %t\n", try, errors.Is(err, idemflight.ErrOutcomeUnknown))
	}
	// Output:
	// may, try 1: "", bank is down
	// may, try 2: "receipt 1", <nil>
	// may, try 3: "receipt 1", <nil>
	// june, try 1: unknown: true
	// june, try 2: unknown: true
}

// The error names every bad field at once.
func ExampleNew() {
	_, err := idemflight.New(idemflight.Options[string, []byte]{
		TTL:        -time.Hour,
		MaxWaiters: -1,
	})
	fmt.Println(err)

	_, err = idemflight.New(idemflight.Options[string, []byte]{
		TTL:        24 * time.Hour, // longer than any client retries
		MaxEntries: 2_000_000,      // more than new keys per day
		MaxWeight:  256 << 20,      // bytes of values, as Weigh counts them
		Weigh:      func(key string, value []byte) int64 { return int64(len(key) + len(value)) },
	})
	fmt.Println(err)
	// Output:
	// idemflight: Options.TTL is -1h0m0s: must not be negative (0 means DefaultTTL)
	// idemflight: Options.MaxWaiters is -1: must not be negative (0 means no bound)
	// <nil>
}

// fn may outlive its caller, which leaves when its own context ends. So it captures values, such as
// the address here, and nothing that the caller closes, reuses or reads afterwards: no request, no
// body, no buffer, no variable of the caller that fn would assign to.
func ExampleCache_Do() {
	ctx := context.Background()
	welcomed := idemflight.MustNew(idemflight.Options[string, string]{})

	welcome := func(ctx context.Context, address string) (string, error) {
		return welcomed.Do(ctx, address, func(ctx context.Context) (string, error) {
			idemflight.NoEffect(ctx)
			if err := idemflight.BeginEffect(ctx); err != nil {
				return "", err
			}
			fmt.Println("mail to", address)
			return "welcome, " + address, nil
		})
	}
	fmt.Println(welcome(ctx, "ann@example.com"))
	fmt.Println(welcome(ctx, "ann@example.com"))
	// Output:
	// mail to ann@example.com
	// welcome, ann@example.com <nil>
	// welcome, ann@example.com <nil>
}

// DoResult also tells where the outcome comes from, and how long it is kept.
func ExampleCache_DoResult() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, int]{TTL: time.Hour})
	answer := func(context.Context) (int, error) { return 42, nil }

	for range 2 {
		r, err := cache.DoResult(ctx, "question", answer)
		fmt.Println(r.Value, err, r.Source, "kept for", r.ExpiresAt.Sub(r.CompletedAt))
	}
	// Output:
	// 42 <nil> executed kept for 1h0m0s
	// 42 <nil> replayed kept for 1h0m0s
}

// An ordinary function becomes once-only, and its callers go on calling a function. A replay
// through it allocates nothing.
func ExampleWrap() {
	type order struct {
		customer, id string
		cents        int
	}
	cache := idemflight.MustNew(idemflight.Options[idemflight.Key, string]{})
	book := func(ctx context.Context, o order) (string, error) {
		idemflight.NoEffect(ctx)
		if err := idemflight.BeginEffect(ctx); err != nil {
			return "", err
		}
		return fmt.Sprintf("booked %d", o.cents), nil
	}
	bookOnce := idemflight.Wrap(cache,
		func(o order) (idemflight.Key, idemflight.Fingerprint, error) {
			payload := idemflight.FingerprintOf(strconv.AppendInt(nil, int64(o.cents), 10))
			return idemflight.Key{Scope: o.customer, ID: o.id}, payload, nil
		}, book)

	ctx := context.Background()
	fmt.Println(bookOnce(ctx, order{"ann", "o-1", 100}))
	fmt.Println(bookOnce(ctx, order{"ann", "o-1", 100}))
	_, err := bookOnce(ctx, order{"ann", "o-1", 999})
	fmt.Println(errors.Is(err, idemflight.ErrKeyReused))
	// Output:
	// booked 100 <nil>
	// booked 100 <nil>
	// true
}

// Two customers may choose the same ID: they do not meet. A missing part is a missing header, say,
// and must not become the key that everybody shares.
func ExampleKey() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[idemflight.Key, string]{})
	pay := func(customer, id string) (string, error) {
		return cache.Do(ctx, idemflight.Key{Scope: customer, ID: id},
			func(context.Context) (string, error) { return "paid by " + customer, nil })
	}
	fmt.Println(pay("ann", "1"))
	fmt.Println(pay("bob", "1"))
	_, err := pay("bob", "")
	fmt.Println(errors.Is(err, idemflight.ErrInvalidKey))
	// Output:
	// paid by ann <nil>
	// paid by bob <nil>
	// true
}

// The client makes the ID once per intent, before the retry loop. One made inside the loop would
// make each attempt a payment of its own.
func ExampleNewID() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	bank := &exampleBank{trouble: errDown}

	id := idemflight.NewID()
	for attempt := 1; attempt <= 3; attempt++ {
		receipt, err := cache.Do(ctx, id, func(ctx context.Context) (string, error) {
			return bank.pay(ctx, id)
		})
		fmt.Printf("attempt %d: %s %v\n", attempt, receipt, err)
	}
	fmt.Println("length", len(id))
	// Output:
	// attempt 1:  bank is down
	// attempt 2: receipt 1 <nil>
	// attempt 3: receipt 1 <nil>
	// length 36
}

// The fingerprint tells a retry from the same key used for something else.
func ExampleWithFingerprint() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	pay := func(body string) (string, error) {
		return cache.Do(ctx, "key-1",
			func(context.Context) (string, error) { return "paid " + body, nil },
			idemflight.WithFingerprint(idemflight.FingerprintOf([]byte(body))))
	}
	fmt.Println(pay("40 EUR to Bob"))
	fmt.Println(pay("40 EUR to Bob"))
	_, err := pay("90 EUR to Bob")
	fmt.Println(errors.Is(err, idemflight.ErrKeyReused))
	// Output:
	// paid 40 EUR to Bob <nil>
	// paid 40 EUR to Bob <nil>
	// true
}

// Where one part ends and the next begins counts, too.
func ExampleFingerprintOf() {
	a := idemflight.FingerprintOf([]byte("POST"), []byte("/pay"), []byte(`{"cents":40}`))
	b := idemflight.FingerprintOf([]byte("POST"), []byte("/pay"), []byte(`{"cents":40}`))
	c := idemflight.FingerprintOf([]byte("POST"), []byte("/pay{"), []byte(`"cents":40}`))
	fmt.Println(a == b, a == c)
	// Output: true false
}
