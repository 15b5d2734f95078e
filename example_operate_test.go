package idemflight_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/idemflight/idemflight"
)

// Lookup looks without touching: no use is counted, nothing runs.
func ExampleCache_Lookup() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	_, _ = cache.Do(ctx, "paid", func(context.Context) (string, error) { return "receipt 1", nil })
	_, _ = cache.Do(ctx, "lost", func(context.Context) (string, error) { return "", idemflight.Unknown(errConnectionLost) })

	for _, key := range []string{"paid", "lost", "never seen"} {
		e, ok, _ := cache.Lookup(ctx, key)
		fmt.Printf("%s: %t %v %q %v\n", key, ok, e.State, e.Value, e.Err)
	}
	// Output:
	// paid: true retained "receipt 1" <nil>
	// lost: true held "" connection lost
	// never seen: false absent "" <nil>
}

// No lock is held while the loop body runs: it may call the cache.
func ExampleCache_All() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, int]{})
	for i, key := range []string{"a", "b", "c"} {
		_, _ = cache.Do(ctx, key, func(context.Context) (int, error) { return i, nil })
	}
	for key, e := range cache.All() {
		if e.Value > 0 {
			_, _ = cache.Forget(ctx, key)
		}
		fmt.Println(key, e.State, e.Value)
	}
	fmt.Println("left:", cache.Len())
	// Unordered output:
	// a retained 0
	// b retained 1
	// c retained 2
	// left: 1
}

// Forget makes the next call run fn again. It is the user's word against the record: for a held
// key, which may have had its effect, Resolve is the careful way.
func ExampleCache_Forget() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	remind := func(context.Context) (string, error) {
		fmt.Println("reminder sent")
		return "", nil
	}
	_, _ = cache.Do(ctx, "invoice-1", remind)
	_, _ = cache.Do(ctx, "invoice-1", remind)
	fmt.Println(cache.Forget(ctx, "invoice-1"))
	fmt.Println(cache.Forget(ctx, "invoice-1"))
	_, _ = cache.Do(ctx, "invoice-1", remind)
	// Output:
	// reminder sent
	// true <nil>
	// false <nil>
	// reminder sent
}

// Counts of calls by how they ended, of executions by what became of them, and the present state.
func ExampleCache_Stats() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	paid := func(context.Context) (string, error) { return "receipt", nil }
	down := func(context.Context) (string, error) { return "", idemflight.Retryable(errDown) }
	lost := func(context.Context) (string, error) { return "", idemflight.Unknown(errConnectionLost) }

	_, _ = cache.Do(ctx, "rent", paid)
	_, _ = cache.Do(ctx, "rent", paid)
	_, _ = cache.Do(ctx, "phone", down)
	_, _ = cache.Do(ctx, "food", lost)
	_, _ = cache.Do(ctx, "food", lost)

	s := cache.Stats()
	fmt.Println("calls:", s.Executed, "executed,", s.Replayed, "replayed,", s.OutcomeUnknown, "met a held key")
	fmt.Println("executions:", s.Retains, "retained,", s.Releases, "released,", s.Holds, "held")
	fmt.Println("now:", s.Entries, "entries,", s.Held, "of them held,", s.InFlight, "in flight")
	// Output:
	// calls: 3 executed, 1 replayed, 1 met a held key
	// executions: 1 retained, 1 released, 1 held
	// now: 2 entries, 1 of them held, 0 in flight
}

// Held keys wait for a person, flights that do not end for a debugger. Run this every minute or so.
func Example_alert() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	_, _ = cache.Do(ctx, "rent", func(context.Context) (string, error) { return "", idemflight.Unknown(errConnectionLost) })
	begun, end, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = cache.Do(ctx, "phone", func(context.Context) (string, error) {
			close(begun)
			<-end
			return "", nil
		})
	}()
	<-begun
	const tooLong = 0 * time.Second // in real life a minute, or whatever no execution should take

	_ = cache.Unsettled(ctx, func(key string, e idemflight.Entry[string]) bool {
		if e.State == idemflight.Held || time.Since(e.StartedAt) >= tooLong {
			fmt.Println("alert:", key, e.State, e.Err)
		}
		return true
	})

	close(end)
	<-ended
	// Output:
	// alert: rent held connection lost
	// alert: phone in_flight <nil>
}

// An Observer sees every event, on the goroutine it concerns: it must be quick, and it may be
// called by many at once. Here it would count for a metrics endpoint.
func ExampleOptions_observer() {
	ctx := context.Background()
	calls := make(map[string]int) // with callers on several goroutines: an atomic per kind
	cache := idemflight.MustNew(idemflight.Options[string, string]{
		Observer: func(_ context.Context, e idemflight.Event[string]) { calls[e.Kind.String()]++ },
	})
	for range 3 {
		_, _ = cache.Do(ctx, "order-1", func(context.Context) (string, error) { return "", nil })
	}
	_, _ = cache.Do(ctx, "", func(context.Context) (string, error) { return "", nil })
	fmt.Println(calls)
	// Output: map[executed:1 rejected:1 replayed:2]
}

// Each call in a line, what somebody should look at as a warning.
func ExampleLogEvents() {
	ctx := context.Background()
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "took" { // differ from run to run
				return slog.Attr{}
			}
			return a
		},
	}))
	cache := idemflight.MustNew(idemflight.Options[string, string]{
		Observer: idemflight.LogEvents[string](logger),
	})
	bank := &exampleBank{trouble: errDown}
	for range 3 {
		_, _ = cache.Do(ctx, "order-1", func(ctx context.Context) (string, error) { return bank.pay(ctx, "order-1") })
	}
	// Output:
	// level=DEBUG msg="idemflight: executed, not kept" event=executed key=order-1 disposition=release err="bank is down"
	// level=DEBUG msg="idemflight: executed" event=executed key=order-1 disposition=retain
	// level=DEBUG msg="idemflight: replayed" event=replayed key=order-1
}
