package idemflight_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/idemflight/idemflight"
)

// One outcome is kept longer than the others; another is only shared with the callers that wait for
// it.
func ExampleWithTTL() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, int]{TTL: time.Hour})
	runs := 0
	count := func(context.Context) (int, error) { runs++; return runs, nil }

	r, _ := cache.DoResult(ctx, "long", count, idemflight.WithTTL(72*time.Hour))
	fmt.Println(r.Value, r.ExpiresAt.Sub(r.CompletedAt))
	for range 2 {
		r, _ = cache.DoResult(ctx, "not kept", count, idemflight.WithTTL(0))
		fmt.Println(r.Value, r.ExpiresAt.IsZero())
	}
	// Output:
	// 1 72h0m0s
	// 2 true
	// 3 true
}

// A caller that cannot wait says so, and retries the same key later. The flight goes on.
func ExampleWithMaxWait() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	begun, bankAnswers := make(chan struct{}), make(chan struct{})
	slow := func(context.Context) (string, error) {
		close(begun)
		<-bankAnswers
		return "receipt 1", nil
	}
	go func() { _, _ = cache.Do(ctx, "order-1", slow) }()
	<-begun

	_, err := cache.Do(ctx, "order-1", slow, idemflight.WithMaxWait(idemflight.NoWait))
	fmt.Println(errors.Is(err, idemflight.ErrInFlight))

	close(bankAnswers)
	fmt.Println(cache.Do(ctx, "order-1", slow, idemflight.WithMaxWait(time.Minute)))
	// Output:
	// true
	// receipt 1 <nil>
}

// The buffer is the caller's and is used again for the next message, so the call has to stay until
// fn is through with it, even if the context ends before.
func ExampleInline() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})

	var buf bytes.Buffer
	for _, text := range []string{"first", "second", "first"} {
		buf.Reset()
		buf.WriteString(text)
		id := buf.String() // a copy: the cache keeps it
		fmt.Println(cache.Do(ctx, id, func(context.Context) (string, error) {
			fmt.Printf("handling %s\n", buf.Bytes())
			return "done", nil
		}, idemflight.Inline()))
	}
	// Output:
	// handling first
	// done <nil>
	// handling second
	// done <nil>
	// done <nil>
}
