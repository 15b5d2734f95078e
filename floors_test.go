package idemflight_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/singleflight"

	"github.com/idemflight/idemflight"
)

// What the benchmarks must never fall below, as tests. Allocations and goroutines are counted and
// cannot flake; a time can, so its floor is asked for with IDEMFLIGHT_FLOORS=1.

// TestFloorReplayAllocates: a replay allocates nothing.
func TestFloorReplayAllocates(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	key := idemflight.Key{Scope: "ann", ID: idemflight.NewID()}
	payload := idemflight.FingerprintOf([]byte("payload"))
	cache := idemflight.MustNew(idemflight.Options[idemflight.Key, int]{})
	const runs = 1000

	replay := func() {
		v, err := cache.Do(ctx, key, one, idemflight.WithFingerprint(payload),
			idemflight.WithMaxWait(time.Second), idemflight.WithTTL(time.Hour), idemflight.Inline())
		if v != 1 || err != nil {
			t.Errorf("replay = %d, %v; want 1, nil", v, err)
		}
	}
	require.Zero(t, testing.AllocsPerRun(runs, replay), "allocations of a replay with every option")

	declined := errors.New("declined")
	refusal := idemflight.Key{Scope: "ann", ID: idemflight.NewID()}
	decline := func(context.Context) (int, error) { return 0, idemflight.Final(declined) }
	require.Zero(t, testing.AllocsPerRun(runs, func() {
		if _, err := cache.Do(ctx, refusal, decline); err != declined {
			t.Errorf("replay of an error = %v, want %v", err, declined)
		}
	}), "allocations of a replay of an error")

	type request struct {
		key   idemflight.Key
		cents int
	}
	pay := idemflight.Wrap(cache,
		func(r request) (idemflight.Key, idemflight.Fingerprint, error) { return r.key, payload, nil },
		func(_ context.Context, r request) (int, error) { return r.cents, nil })
	r := request{key: idemflight.Key{Scope: "bob", ID: idemflight.NewID()}, cents: 100}
	require.Zero(t, testing.AllocsPerRun(runs, func() {
		if v, err := pay(ctx, r); v != 100 || err != nil {
			t.Errorf("replay through Wrap = %d, %v; want 100, nil", v, err)
		}
	}), "allocations of a replay through Wrap")
	require.EqualValues(t, 3, cache.Stats().Executed, "all but the first calls were to be replays")

	// The counting works: an fn that captures a variable costs its caller one allocation.
	captured := 0
	require.EqualValues(t, 1, testing.AllocsPerRun(runs, func() {
		captured++
		v := captured
		_, _ = cache.Do(ctx, key, func(context.Context) (int, error) { return v, nil }, idemflight.WithFingerprint(payload))
	}), "allocations of a replay with an fn that captures")
}

// TestFloorFirstExecutionAllocates: a first execution takes three allocations, and two more if its
// caller can leave.
func TestFloorFirstExecutionAllocates(t *testing.T) {
	const runs = 10_000
	leavable, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, tc := range []struct {
		name string
		most float64
		do   func(c *idemflight.Cache[string, int], key string) (int, error)
	}{
		{"background", 3, func(c *idemflight.Cache[string, int], key string) (int, error) {
			return c.Do(context.Background(), key, one)
		}},
		{"inline", 3, func(c *idemflight.Cache[string, int], key string) (int, error) {
			return c.Do(leavable, key, one, idemflight.Inline())
		}},
		{"begins an effect", 3, func(c *idemflight.Cache[string, int], key string) (int, error) {
			return c.Do(context.Background(), key, func(ctx context.Context) (int, error) {
				return 1, idemflight.BeginEffect(ctx)
			})
		}},
		{"can leave", 5, func(c *idemflight.Cache[string, int], key string) (int, error) {
			return c.Do(leavable, key, one)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cache := idemflight.MustNew(idemflight.Options[string, int]{})
			defer cache.Close(context.Background())
			keys := bmKeys(runs + 1)
			next := 0
			// The mean of many, rounded down: the tables grow now and then, which is no one call's.
			allocs := testing.AllocsPerRun(runs, func() {
				if v, err := tc.do(cache, keys[next]); v != 1 || err != nil {
					t.Errorf("first execution = %d, %v; want 1, nil", v, err)
				}
				next++
			})
			require.LessOrEqual(t, allocs, tc.most, "allocations of a first execution")
			require.EqualValues(t, runs+1, cache.Stats().Executed, "all calls were to be first executions")
			t.Logf("%v allocations", allocs)
		})
	}
}

// TestFloorJoinedCallerCostsNoGoroutine: callers that join a flight, and may leave it, wait on their
// own goroutines.
func TestFloorJoinedCallerCostsNoGoroutine(t *testing.T) {
	const callers = 1000
	synctest.Test(t, func(t *testing.T) {
		cache := idemflight.MustNew(idemflight.Options[string, int]{})
		require.Equal(t, callers, goroutinesOf(t, callers, func(ctx context.Context, fn bmFn) (int, error) {
			return cache.Do(ctx, "key", fn, idemflight.WithMaxWait(time.Hour))
		}), "goroutines of %d joined callers, their own included", callers)
	})

	// The counting works: a caller that leaves with the help of a goroutine shows.
	synctest.Test(t, func(t *testing.T) {
		var group singleflight.Group
		require.Equal(t, 2*callers, goroutinesOf(t, callers, func(ctx context.Context, fn bmFn) (int, error) {
			done := make(chan int, 1)
			go func() {
				v, _, _ := group.Do("key", func() (any, error) { return fn(ctx) })
				done <- v.(int)
			}()
			select {
			case v := <-done:
				return v, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}), "goroutines of %d callers with a helper each", callers)
	})
}

// goroutinesOf returns how many goroutines the bubble has more when n more callers wait for a
// flight. Their contexts can end, and each has one of its own, as requests have.
func goroutinesOf(t *testing.T, n int, do func(context.Context, bmFn) (int, error)) int {
	end := make(chan struct{})
	fn := func(context.Context) (int, error) {
		<-end
		return 1, nil
	}
	call := func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		if v, err := do(ctx, fn); v != 1 || err != nil {
			t.Errorf("call = %d, %v; want 1, nil", v, err)
		}
	}
	go call() // leads
	synctest.Wait()
	before := goroutines(t)
	for range n {
		go call()
	}
	synctest.Wait()
	grown := goroutines(t) - before
	close(end)
	synctest.Wait()
	return grown
}

// TestFloorReplayTime: a replay is not slower than singleflight in front of expirable.
func TestFloorReplayTime(t *testing.T) {
	if os.Getenv("IDEMFLIGHT_FLOORS") != "1" {
		t.Skip("times depend on the machine and its load: IDEMFLIGHT_FLOORS=1 to ask")
	}
	const rounds = 21
	for _, r := range bmRaces() {
		t.Run(r.name(), func(t *testing.T) {
			r.line(t)
			for range rounds {
				r.round()
			}
			t.Logf("%.2f of the time of singleflight and expirable", r.ratio())
			require.LessOrEqual(t, r.ratio(), 1.0, "time of a replay in proportion to singleflight and expirable")
		})
	}
}
