package idemflight_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/idemflight/idemflight"
)

// Close refuses new executions and waits for those in flight. Kept outcomes are still replayed.
func ExampleCache_Close() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	pay := func(context.Context) (string, error) { return "paid", nil }
	_, _ = cache.Do(ctx, "rent", pay)

	// A deadline, because an execution may take long: then its key is still in flight, in All too.
	grace, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	fmt.Println(cache.Close(grace))

	fmt.Println(cache.Do(ctx, "rent", pay))
	_, err := cache.Do(ctx, "phone", pay)
	fmt.Println(errors.Is(err, idemflight.ErrClosed))
	// Output:
	// <nil>
	// paid <nil>
	// true
}

// A planned restart: Close, All, exit; Restore, listen. What was still in flight comes back as
// held: the old process may have had its effect, so somebody has to find out, as after a lost
// answer.
func ExampleCache_Restore() {
	ctx := context.Background()
	type saved struct {
		Key   string
		Entry idemflight.Entry[string]
		Err   string // an encoding cannot keep an error, only what it says
	}
	pay := func(context.Context) (string, error) { return "receipt", nil }

	// The old process, with one payment done and one that takes too long.
	old := idemflight.MustNew(idemflight.Options[string, string]{})
	_, _ = old.Do(ctx, "rent", pay)
	begun, end, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = old.Do(ctx, "phone", func(context.Context) (string, error) {
			close(begun)
			<-end
			return "", nil
		})
	}()
	<-begun
	grace, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	fmt.Println("close:", old.Close(grace))

	var file bytes.Buffer
	out := json.NewEncoder(&file)
	for key, e := range old.All() {
		s := saved{Key: key, Entry: e}
		if e.Err != nil {
			s.Err, s.Entry.Err = e.Err.Error(), nil
		}
		if err := out.Encode(s); err != nil {
			fmt.Println(err)
		}
	}
	close(end) // the process exits
	<-ended

	// The new process, before it listens.
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	for in := json.NewDecoder(&file); in.More(); {
		var s saved
		if err := in.Decode(&s); err != nil {
			fmt.Println(err)
			break
		}
		if s.Err != "" {
			s.Entry.Err = errors.New(s.Err)
		}
		if err := cache.Restore(context.Background(), s.Key, s.Entry); err != nil {
			fmt.Println(err) // expired meanwhile, say
		}
	}

	fmt.Println(cache.Do(ctx, "rent", pay))
	_, err := cache.Do(ctx, "phone", pay)
	fmt.Println(errors.Is(err, idemflight.ErrOutcomeUnknown), errors.Is(err, idemflight.ErrInterrupted))
	// Output:
	// close: context deadline exceeded
	// receipt <nil>
	// true true
}
