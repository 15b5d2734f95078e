package idemflight_test

import (
	"context"
	"errors"
	"math/bits"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/singleflight"

	"github.com/idemflight/idemflight"
)

func checkReplayAllocs[K comparable](t *testing.T, name string, key K) {
	t.Helper()
	events := 0
	for _, o := range []struct {
		name string
		opts idemflight.Options[K, int]
	}{
		{"plain", idemflight.Options[K, int]{}},
		{"everything", idemflight.Options[K, int]{
			MaxEntries: 100, MaxWeight: 100, Weigh: func(K, int) int64 { return 1 }, HoldTTL: -1, MaxWaiters: 1,
			Classify:  idemflight.ClassifyLenient,
			Reconcile: func(context.Context, K, idemflight.Entry[int]) (int, error) { return 0, nil },
			Observer:  func(context.Context, idemflight.Event[K]) { events++ },
		}},
	} {
		t.Run(name+"/"+o.name, func(t *testing.T) {
			c := idemflight.MustNew(o.opts)
			ctx, cancel := context.WithCancel(bg)
			defer cancel()
			fp := fingerprint(1)
			fn := func(context.Context) (int, error) { return 7, nil }
			check := func(how string, call func() (int, error)) {
				v, err := call() // the execution
				require.NoError(t, err)
				require.Equal(t, 7, v)
				require.Zero(t, testing.AllocsPerRun(200, func() { v, err = call() }),
					"allocations of a replay by %s", how)
				require.NoError(t, err)
				require.Equal(t, 7, v)
				require.True(t, forget(c, key))
			}
			check("Do", func() (int, error) { return c.Do(bg, key, fn) })
			check("Do with a context that can end", func() (int, error) { return c.Do(ctx, key, fn) })
			check("Do with every option", func() (int, error) {
				return c.Do(ctx, key, fn, idemflight.WithFingerprint(fp), idemflight.WithTTL(time.Hour), idemflight.WithMaxWait(time.Second), idemflight.Inline())
			})
			check("DoResult with every option", func() (int, error) {
				r, err := c.DoResult(ctx, key, fn, idemflight.Inline(), idemflight.WithMaxWait(idemflight.NoWait), idemflight.WithTTL(time.Hour), idemflight.WithFingerprint(fp))
				return r.Value, err
			})
			type request struct {
				body []byte
				n    int
			}
			req := request{body: []byte("a payload of some length"), n: 7}
			wrapped := idemflight.Wrap(c, func(r request) (K, idemflight.Fingerprint, error) {
				return key, idemflight.FingerprintOf(r.body), nil
			}, func(_ context.Context, r request) (int, error) { return r.n, nil },
				idemflight.WithTTL(time.Hour), idemflight.WithMaxWait(time.Second), idemflight.Inline(), idemflight.WithFingerprint(fp))
			check("Wrap with everything", func() (int, error) { return wrapped(ctx, req) })
			bare := idemflight.Wrap(c, func(request) (K, idemflight.Fingerprint, error) { return key, idemflight.Fingerprint{}, nil },
				func(_ context.Context, r request) (int, error) { return r.n, nil })
			check("Wrap", func() (int, error) { return bare(bg, req) })
			ptr := idemflight.Wrap(c, func(*request) (K, idemflight.Fingerprint, error) { return key, fp, nil },
				func(_ context.Context, r *request) (int, error) { return r.n, nil })
			check("Wrap of a pointer", func() (int, error) { return ptr(ctx, &req) })
		})
	}
	require.Positive(t, events, "the Observer was told")
}

// Promise 27: A replay allocates nothing, through Do and through Wrap.
func TestPromise27_AReplayAllocatesNothing(t *testing.T) {
	type pair struct {
		A string
		B int
	}
	checkReplayAllocs(t, "string", "a key")
	checkReplayAllocs(t, "int", 7)
	checkReplayAllocs(t, "Key", idemflight.Key{Scope: "customer", ID: "0e8fdc1a"})
	checkReplayAllocs(t, "struct", pair{"a", 1})
	checkReplayAllocs(t, "pointer", new(int))
	checkReplayAllocs(t, "float", 1.5)
	checkReplayAllocs(t, "interface of a string", any("a key"))
	checkReplayAllocs(t, "interface of a struct", any(pair{"a", 1}))
}

func TestPromise27_AReplayedErrorAllocatesNothing(t *testing.T) {
	c := idemflight.MustNew(options{})
	fn := func(context.Context) (int, error) { return 1, idemflight.Final(errBoom) }
	var err error
	require.Zero(t, testing.AllocsPerRun(200, func() { _, err = c.Do(bg, "k", fn) }),
		"allocations of the replay of an error")
	require.True(t, err == errBoom, "the error as fn gave it, got %v", err)
}

// A replay moves its key in the order of use: among many, that must not allocate either.
func TestPromise27_AReplayAmongManyAllocatesNothing(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: 10_000, MinRetention: -1})
	fn := func(context.Context) (int, error) { return 7, nil }
	for i := range 3000 {
		_, _ = c.Do(bg, i, fn)
	}
	i := 0
	require.Zero(t, testing.AllocsPerRun(400, func() {
		_, _ = c.Do(bg, 2500+i%400, fn)
		i++
	}))
	require.EqualValues(t, 3000, c.Stats().Executed, "these were replays")
}

func TestPromise27_ACapturingClosureCostsItsCallerOne(t *testing.T) {
	c := idemflight.MustNew(options{})
	n := 0
	got := testing.AllocsPerRun(200, func() {
		n++
		m := n
		_, _ = c.Do(bg, "k", func(context.Context) (int, error) { return m, nil }, idemflight.WithFingerprint(fingerprint(1)), idemflight.WithTTL(time.Hour))
	})
	require.LessOrEqual(t, got, 1.0, "allocations of a replay with a closure that captures")
}

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

// TestFloorFirstExecutionAllocates: a first execution takes two allocations, and two more if its
// caller can leave; and one more if the key has text, which the cache copies.
func TestFloorFirstExecutionAllocates(t *testing.T) {
	if bits.UintSize == 32 {
		t.Skip("skipped: the floors are those of 64-bit systems")
	}
	var numbers [firstExecutions]int
	var named [firstExecutions]idemflight.Key
	texts := bmKeys(firstExecutions)
	for i := range numbers {
		numbers[i] = i
		named[i] = idemflight.Key{Scope: texts[i], ID: texts[i]}
	}
	t.Run("int", func(t *testing.T) { floorFirstExecution(t, 0, numbers[:]) })
	t.Run("string", func(t *testing.T) { floorFirstExecution(t, 1, texts) })
	t.Run("Key", func(t *testing.T) { floorFirstExecution(t, 1, named[:]) })
}

const firstExecutions = 10_001

// beginsOne captures nothing, as one does.
func beginsOne(ctx context.Context) (int, error) { return 1, idemflight.BeginEffect(ctx) }

// floorFirstExecution measures the first executions of the keys, which are firstExecutions. The copy of
// a key may take so many allocations.
func floorFirstExecution[K comparable](t *testing.T, copied float64, keys []K) {
	leavable, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, tc := range []struct {
		name string
		most float64
		do   func(c *idemflight.Cache[K, int], key K) (int, error)
	}{
		{"background", 2, func(c *idemflight.Cache[K, int], key K) (int, error) {
			return c.Do(context.Background(), key, one)
		}},
		{"inline", 2, func(c *idemflight.Cache[K, int], key K) (int, error) {
			return c.Do(leavable, key, one, idemflight.Inline())
		}},
		{"begins an effect", 2, func(c *idemflight.Cache[K, int], key K) (int, error) {
			return c.Do(context.Background(), key, beginsOne)
		}},
		{"can leave", 4, func(c *idemflight.Cache[K, int], key K) (int, error) {
			return c.Do(leavable, key, one)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cache := idemflight.MustNew(idemflight.Options[K, int]{})
			defer cache.Close(context.Background())
			next := 0
			// The mean of many, rounded down: the tables grow now and then, which is no one call's.
			allocs := testing.AllocsPerRun(len(keys)-1, func() {
				if v, err := tc.do(cache, keys[next]); v != 1 || err != nil {
					t.Errorf("first execution = %d, %v; want 1, nil", v, err)
				}
				next++
			})
			require.LessOrEqual(t, allocs, tc.most+copied, "allocations of a first execution")
			require.EqualValues(t, len(keys), cache.Stats().Executed,
				"all calls were to be first executions")
			t.Logf("%v allocations", allocs)
		})
	}
}

// TestFloorJoinedCallerCostsNoGoroutine: callers that join a flight, and may leave it, wait on
// their own goroutines.
func TestFloorJoinedCallerCostsNoGoroutine(t *testing.T) {
	const callers = 1000
	synctest.Test(t, func(t *testing.T) {
		cache := idemflight.MustNew(options{})
		require.Equal(t, callers, goroutinesOf(t, callers, func(ctx context.Context, fn intFn) (int, error) {
			return cache.Do(ctx, "key", fn, idemflight.WithMaxWait(time.Hour))
		}), "goroutines of %d joined callers, their own included", callers)
	})

	// The counting works: a caller that leaves with the help of a goroutine shows.
	synctest.Test(t, func(t *testing.T) {
		var group singleflight.Group
		require.Equal(t, 2*callers, goroutinesOf(t, callers, func(ctx context.Context, fn intFn) (int, error) {
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
func goroutinesOf(t *testing.T, n int, do func(context.Context, intFn) (int, error)) int {
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
			require.LessOrEqual(t, r.ratio(), 1.0,
				"time of a replay in proportion to singleflight and expirable")
		})
	}
}

// BenchmarkBytesPerEntry fills a cache of default size with a million keys in the form of a UUID
// and small values, and reports the heap that each retained entry costs, the key's own 48 bytes
// left out: the caller has that string anyway.
func BenchmarkBytesPerEntry(b *testing.B) {
	const n = 1_000_000
	keys := make([]string, n)
	for i := range keys {
		keys[i] = idemflight.NewID()
	}
	fn := func(context.Context) (int, error) { return 1, nil }
	for b.Loop() {
		before := heapInUse()
		c := idemflight.MustNew(options{})
		for _, key := range keys {
			_, _ = c.Do(context.Background(), key, fn)
		}
		b.ReportMetric(float64(heapInUse()-before)/n, "bytes/entry")
		runtime.KeepAlive(c)
	}
	runtime.KeepAlive(keys)
}
