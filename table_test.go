package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/yield"
)

// replayedWithoutLock replays key and asserts that it took no lock.
func replayedWithoutLock[V any](t *testing.T, c *idemflight.Cache[string, V], key string, opts ...idemflight.CallOption) {
	t.Helper()
	before := c.LockFreeReplays()
	r, _ := c.DoResult(context.Background(), key, func(context.Context) (V, error) {
		t.Errorf("%s ran again", key)
		return *new(V), nil
	}, opts...)
	require.Equal(t, idemflight.Replayed, r.Source)
	require.EqualValues(t, 1, c.LockFreeReplays()-before, "replays of %s that took no lock", key)
}

// What leaves the table is not replayed any more, in whatever way it leaves.
func TestReplay_NeverOfWhatHasLeft(t *testing.T) {
	ctx := context.Background()
	type cache = *idemflight.Cache[string, int]
	for name, leaves := range map[string]struct {
		opts idemflight.Options[string, int]
		call []idemflight.CallOption
		err  error
		how  func(t *testing.T, c cache)
		want error // of the next call; nil: it runs fn
	}{
		"forgotten": {how: func(t *testing.T, c cache) { require.True(t, forget(c, "k")) }},
		"forgotten, a final error": {err: idemflight.Final(errors.New("declined")),
			how: func(t *testing.T, c cache) { require.True(t, forget(c, "k")) }},
		"expired": {opts: idemflight.Options[string, int]{TTL: time.Minute},
			how: func(t *testing.T, c cache) { time.Sleep(time.Minute) }},
		"expired, its own TTL": {call: []idemflight.CallOption{idemflight.WithTTL(time.Second)},
			how: func(t *testing.T, c cache) { time.Sleep(time.Second) }},
		"expired, before the timer": {opts: idemflight.Options[string, int]{TTL: time.Hour},
			how: func(t *testing.T, c cache) {
				require.NoError(t, c.Close(ctx)) // no timer
				time.Sleep(time.Hour)
			}, want: idemflight.ErrClosed},
		"evicted": {opts: idemflight.Options[string, int]{MaxEntries: 4, MinRetention: -1},
			how: func(t *testing.T, c cache) {
				for i := range 9 { // twice around: the second chance has gone
					_, err := c.Do(ctx, fmt.Sprint(i), one)
					require.NoError(t, err)
				}
			}},
		"shed": {opts: idemflight.Options[string, int]{MaxWeight: 10, Weigh: func(_ string, v int) int64 { return int64(v) }},
			how: func(t *testing.T, c cache) {
				for i := range 3 {
					_, err := c.Do(ctx, fmt.Sprint(i), func(context.Context) (int, error) { return 9, nil })
					require.NoError(t, err)
				}
			}, want: idemflight.ErrValueShed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(leaves.opts)
				_, err := c.Do(ctx, "k", func(context.Context) (int, error) { return 7, leaves.err }, leaves.call...)
				require.Equal(t, leaves.err == nil, err == nil)
				replayedWithoutLock(t, c, "k")
				require.NoError(t, c.CheckInvariants())

				leaves.how(t, c)
				ran := false
				_, err = c.Do(ctx, "k", func(context.Context) (int, error) { ran = true; return 8, nil })
				require.ErrorIs(t, err, leaves.want)
				require.Equal(t, leaves.want == nil, ran)
				require.NoError(t, c.CheckInvariants())
			})
		})
	}
}

// Without a lock, too, the fingerprint is compared, options are heeded, and each replay is counted and
// reported.
func TestReplay_WithoutALockIsLikeAnyOther(t *testing.T) {
	ctx := context.Background()
	fp := idemflight.FingerprintOf([]byte("a"))
	var reported atomic.Uint64
	c := idemflight.MustNew(idemflight.Options[string, int]{Observer: func(_ context.Context, e idemflight.Event[string]) {
		if e.Kind == idemflight.EventReplayed && e.Key == "k" {
			reported.Add(1)
		}
	}})
	first, err := c.DoResult(ctx, "k", one, idemflight.WithFingerprint(fp))
	require.NoError(t, err)
	replayedWithoutLock(t, c, "k", idemflight.WithFingerprint(fp))

	_, err = c.Do(ctx, "k", one)
	require.ErrorIs(t, err, idemflight.ErrKeyReused)
	again, err := c.DoResult(ctx, "k", one, idemflight.WithFingerprint(fp))
	require.NoError(t, err)
	first.Source = idemflight.Replayed
	require.Equal(t, first, again)

	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				_, _ = c.Do(ctx, "k", one, idemflight.WithFingerprint(fp))
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1+1+8000, c.Stats().Replayed)
	require.EqualValues(t, 1+1+8000, reported.Load())
}

// A key counts as used although no replay of it takes a lock: it survives a scan.
func TestPromise19_AReplayWithoutALockCountsAsUse(t *testing.T) {
	ctx := context.Background()
	c := idemflight.MustNew(idemflight.Options[string, int]{MaxEntries: 64, MinRetention: -1})
	_, _ = c.Do(ctx, "k", one)
	for i := range 6400 {
		_, err := c.Do(ctx, fmt.Sprint(i), one)
		require.NoError(t, err)
		if i%16 == 0 {
			replayedWithoutLock(t, c, "k")
		}
	}
	require.NoError(t, c.CheckInvariants())
}

// While a key is forgotten and made again, no call gets a value from before the last Forget that had
// returned when the call began.
func TestReplay_RacesWithForget(t *testing.T) {
	ctx := context.Background()
	c := idemflight.MustNew(idemflight.Options[string, int]{})
	var made, forgotten atomic.Int64
	fn := func(context.Context) (int, error) { return int(made.Add(1)), nil }
	var wg sync.WaitGroup
	var stop atomic.Bool
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				least := forgotten.Load()
				v, err := c.Do(ctx, "k", fn)
				if err != nil || int64(v) <= least {
					t.Errorf("got %d (%v), although all up to %d had been forgotten", v, err, least)
					return
				}
			}
		})
	}
	rounds := 3000
	if raceEnabled {
		rounds = 500
	}
	for range rounds {
		for range 30 {
			_, _ = c.Do(ctx, "k", fn)
		}
		upTo := made.Load()
		forget(c, "k")
		forgotten.Store(upTo - 1) // upTo itself may have been in flight
	}
	stop.Store(true)
	wg.Wait()
	require.Positive(t, c.LockFreeReplays())
	require.NoError(t, c.CheckInvariants())
}

// The numbers of insertions wrap: where time stands still they alone make the order.
func TestTurnsWrap(t *testing.T) {
	for _, start := range []uint32{1<<32 - 30, 1<<31 - 30} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: 16, MinRetention: -1})
			time.Sleep(time.Second)
			c.StartTurns(start)
			call := func(key int) {
				r, err := c.DoResult(context.Background(), key, one)
				require.NoError(t, err)
				if key <= 8 && c.Stats().Evicted > 0 {
					require.Equal(t, idemflight.Replayed, r.Source, "%d is replayed twice in 4 insertions", key)
				}
			}
			for n := range 200 {
				call(1000 + n)
				for key := 1; key <= 8; key++ {
					if key%2 == n%2 {
						call(key)
					}
				}
				require.NoError(t, c.CheckInvariants())
			}
		})
	}
}

// Keys come and go at random, while the tables grow and shrink: each is found exactly while it is kept.
func TestTable_FindsExactlyWhatIsKept(t *testing.T) {
	for name, bits := range map[string]int{"hashes as they are": 64, "hashes of two bits": 2} {
		t.Run(name, func(t *testing.T) {
			defer idemflight.LimitHash(bits)()
			ctx := context.Background()
			c := idemflight.MustNew(idemflight.Options[int, int]{})
			random := rand.New(rand.NewPCG(1, 2))
			kept := map[int]bool{}
			check := func(upTo int) {
				for key := 1; key <= upTo; key++ {
					_, ok := lookup(c, key)
					require.Equal(t, kept[key], ok, "key %d", key)
				}
				require.Equal(t, len(kept), c.Len())
				require.NoError(t, c.CheckInvariants())
			}
			sizes := []int{10, 3000, 100, 1000, 1, 5000, 0}
			if raceEnabled {
				sizes = []int{10, 1000, 1, 0}
			}
			for _, size := range sizes {
				for len(kept) != size {
					key := 1 + random.IntN(8000)
					switch grows := len(kept) < size; {
					case grows && !kept[key]:
						_, err := c.Do(ctx, key, one)
						require.NoError(t, err)
						kept[key] = true
					case !grows && kept[key]:
						require.True(t, forget(c, key))
						delete(kept, key)
					}
				}
				check(8000)
			}
		})
	}
}

// A kept key is replayed at every moment, also while the table that it is in grows and shrinks.
func TestTable_KeepsWhatIsKeptWhileItGrowsAndShrinks(t *testing.T) {
	defer idemflight.LimitShards(1)()
	ctx := context.Background()
	c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: 100_000})
	const stay = 50
	for key := 1; key <= stay; key++ {
		_, err := c.Do(ctx, key, one)
		require.NoError(t, err)
	}
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for key := 1; !stop.Load(); key = key%stay + 1 {
				v, err := c.Do(ctx, key, func(context.Context) (int, error) {
					t.Errorf("key %d ran again, although it is kept", key)
					return 0, nil
				})
				if v != 1 || err != nil {
					t.Errorf("key %d answers %d, %v", key, v, err)
					return
				}
			}
		})
	}
	for range 20 {
		for key := 1000; key < 3000; key++ {
			_, _ = c.Do(ctx, key, one)
		}
		for key := 1000; key < 3000; key++ {
			forget(c, key)
		}
	}
	stop.Store(true)
	readers.Wait()
	require.NoError(t, c.CheckInvariants())
}

// measuresHeap skips a test of many keys and of the memory that they take where that means nothing.
func measuresHeap(t *testing.T) {
	switch {
	case os.Getenv("IDEMFLIGHT_HASHBITS") != "":
		t.Skip("few hashes make one long chain")
	case raceEnabled:
		t.Skip("the race detector takes memory and time of its own; what runs at once is tested elsewhere")
	}
}

// heapInUse returns the bytes in use once there is no more to collect: what earlier tests have left goes in
// several rounds, with cleanups between them.
func heapInUse() int64 {
	least := int64(math.MaxInt64)
	for same := 0; same < 3; same++ {
		runtime.GC()
		runtime.Gosched()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		now := int64(m.HeapAlloc)
		if now < least-least/1000 {
			same = 0
		}
		least = min(least, now)
	}
	return least
}

// heapOf returns the heap that build's cache takes.
func heapOf(build func() *idemflight.Cache[int, int]) int64 {
	before := heapInUse()
	c := build()
	after := heapInUse()
	runtime.KeepAlive(c)
	return after - before
}

// After a burst the tables shrink to what is left, though the cache is never empty and calls go on.
func TestPromise17_TablesShrinkUnderTraffic(t *testing.T) {
	measuresHeap(t)
	const burst, live = 300_000, 6000
	ctx := context.Background()
	opts := idemflight.Options[int, int]{MaxEntries: burst}
	after := heapOf(func() *idemflight.Cache[int, int] {
		c := idemflight.MustNew(opts)
		for key := 1; key <= burst; key++ {
			_, _ = c.Do(ctx, key, one)
		}
		for key := 1; key <= burst; key++ { // forgotten in order, while others come in
			if key > live {
				forget(c, key)
			}
			if key%50 == 0 {
				_, _ = c.Do(ctx, -key, one)
				forget(c, -key)
			}
		}
		require.Equal(t, live, c.Len())
		require.Less(t, c.Buckets(), live+100*c.Shards(), "at 4 records a bucket, at least a quarter full")
		require.NoError(t, c.CheckInvariants())
		return c
	})
	fresh := heapOf(func() *idemflight.Cache[int, int] {
		c := idemflight.MustNew(opts)
		for key := 1; key <= live; key++ {
			_, _ = c.Do(ctx, key, one)
		}
		return c
	})
	require.Less(t, after, 2*fresh, "bytes after a burst, of %d without one", fresh)
}

// Keys come and go while their number stays the same: the memory does, too.
func TestPromise17_MemoryStaysTheSameWhenKeysComeAndGo(t *testing.T) {
	measuresHeap(t)
	const n = 20_000
	ctx := context.Background()
	grown := func(turnovers int) int64 {
		return heapOf(func() *idemflight.Cache[int, int] {
			c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: n, MinRetention: -1})
			for key := 1; key <= n*(1+turnovers); key++ {
				_, _ = c.Do(ctx, key, one)
			}
			require.Equal(t, n, c.Len())
			require.NoError(t, c.CheckInvariants())
			return c
		})
	}
	once := grown(0)
	require.Less(t, grown(40), once*11/10, "bytes after 40 turnovers, %d after none", once)
}

// Most keys are forgotten soon after: those that stay cost hardly more than they would alone.
func TestPromise17_WhatIsForgottenSoonLeavesNoGaps(t *testing.T) {
	measuresHeap(t)
	const n = 20_000
	ctx := context.Background()
	with := func(forgotten int) int64 {
		return heapOf(func() *idemflight.Cache[int, int] {
			c := idemflight.MustNew(idemflight.Options[int, int]{})
			for key := 1; key <= n; key++ {
				_, _ = c.Do(ctx, key, one)
				for i := range forgotten {
					_, _ = c.Do(ctx, -1-i, one)
				}
				for i := range forgotten {
					forget(c, -1-i)
				}
			}
			require.Equal(t, n, c.Len())
			return c
		})
	}
	alone := with(0)
	require.Less(t, with(20), alone*5/4, "bytes with 20 forgotten for each, %d without", alone)
}

// Outcomes in order lie in line, those with a fingerprint, an error and a weight too: that is the way
// of HTTP answers. What is out of order does not.
func TestRetained_LieInLineIfTheyCompleteInOrder(t *testing.T) {
	defer idemflight.LimitShards(1)()
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := idemflight.MustNew(idemflight.Options[int, int]{
			TTL: time.Hour, MaxWeight: 1 << 20, Weigh: func(_, v int) int64 { return int64(v) },
		})
		for key := 1; key <= 100; key++ {
			time.Sleep(time.Duration(key % 2))
			err := error(nil)
			if key%3 == 0 {
				err = idemflight.Final(errors.New("declined"))
			}
			_, _ = c.Do(ctx, key, func(context.Context) (int, error) { return key, err },
				idemflight.WithFingerprint(idemflight.FingerprintOf([]byte{byte(key)})))
		}
		require.Equal(t, 100, c.InLine())
		require.Zero(t, c.Small(), "each of them has something special")
		_, _ = c.Do(ctx, 101, one, idemflight.WithTTL(time.Minute))
		_, _ = c.Do(ctx, 102, func(context.Context) (int, error) { return 0, idemflight.Retryable(errors.New("x")) }, idemflight.Inline())
		require.Equal(t, 100, c.InLine(), "one has a TTL of its own")
		require.NoError(t, c.CheckInvariants())
		time.Sleep(time.Hour + time.Second)
		synctest.Wait()
		require.Zero(t, c.Stats().Entries)
		require.NoError(t, c.CheckInvariants())
	})
}

// A heavy newcomer keeps what it has shed for, however many light ones come in meanwhile: one comes
// each time it is about to shed.
func TestPromise20_AHeavyNewcomerIsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		const all = 64
		c := idemflight.MustNew(idemflight.Options[int, int]{
			MaxWeight: all, Weigh: func(_, v int) int64 { return int64(v) },
		})
		for key := 1; key <= all; key++ {
			_, _ = c.Do(ctx, key, one)
		}
		var lights sync.WaitGroup
		var came atomic.Int64 // a light one may be at the point when the hook goes
		yield.Hook(func(point string) {
			if point != "shed" || came.Load() == 10*all || c.Stats().Entries > all+int(came.Load()) {
				return
			}
			key := 1000 + int(came.Add(1))
			lights.Go(func() { _, _ = c.Do(ctx, key, one) })
			synctest.Wait() // it has taken what was free, or waits for its turn
		})
		defer yield.Hook(nil)
		_, err := c.Do(ctx, -1, func(context.Context) (int, error) { return all / 2, nil })
		yield.Hook(nil)
		require.NoError(t, err)
		e, ok := lookup(c, -1)
		require.True(t, ok)
		require.Equal(t, idemflight.Retained, e.State)
		// One may have come when it had its weight, and this goroutine did not know it yet.
		require.LessOrEqual(t, came.Load(), int64(all/2+2), "light ones that came before the heavy one had its weight")
		lights.Wait()
		require.LessOrEqual(t, c.Stats().Weight, int64(all))
		require.NoError(t, c.CheckInvariants())
	})
}

// From some size on, the first outcome found is evicted that is old enough. What is replayed as often
// as promise 19 wants it survives all the same.
func TestPromise19_HalfOfALargeCacheSurvivesAScan(t *testing.T) {
	oneGoroutine(t)
	const most = 8192 // room, and so half of it hot, each replayed once in a quarter of it
	ctx := context.Background()
	c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: most, MinRetention: -1})
	next := most
	for key := 1; key <= most/2; key++ {
		_, _ = c.Do(ctx, key, one)
	}
	for round := range 24 {
		for range most / 4 {
			next++
			_, err := c.Do(ctx, next, one)
			require.NoError(t, err)
		}
		for key := 1; key <= most/2; key++ {
			r, err := c.DoResult(ctx, key, one)
			require.NoError(t, err)
			require.Equal(t, idemflight.Replayed, r.Source, "key %d in round %d", key, round)
		}
	}
	require.NoError(t, c.CheckInvariants())
}

// Keys of different types behind one interface have hashes of their own, as any others do.
func TestHashesOfDynamicKeysDiffer(t *testing.T) {
	if os.Getenv("IDEMFLIGHT_HASHBITS") != "" {
		t.Skip("few hashes are asked for")
	}
	c := idemflight.MustNew(idemflight.Options[any, int]{})
	require.Equal(t, 4, c.Hashes("a", "b", 1, [2]string{"a", "b"}))
}

// A search gives each outcome one second chance, however often all of them are replayed meanwhile.
func TestSearch_EndsThoughEverythingIsReplayedMeanwhile(t *testing.T) {
	for name, tt := range map[string]struct {
		opts  idemflight.Options[int, int]
		point string
	}{
		"for room":   {idemflight.Options[int, int]{MaxEntries: 8, MinRetention: -1}, "looked for room"},
		"for weight": {idemflight.Options[int, int]{MaxWeight: 8, Weigh: func(int, int) int64 { return 1 }}, "shed"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(tt.opts)
				for key := 1; key <= 8; key++ {
					_, _ = c.Do(t.Context(), key, one)
				}
				looks := 0
				yield.Hook(func(point string) {
					if point == tt.point {
						looks++
						for key := 1; key <= 8; key++ {
							_, _ = c.Do(t.Context(), key, one)
						}
					}
				})
				defer yield.Hook(nil)
				_, err := c.Do(t.Context(), 9, one)
				yield.Hook(nil)
				require.NoError(t, err)
				require.LessOrEqual(t, looks, 9, "looks: a second chance for each of 8, and the end")
				require.NoError(t, c.CheckInvariants())
			})
		})
	}
}

// A record that leaves after a call has found it without a lock is not replayed any more: Forget has
// returned, the value is shed.
func TestReplay_NotOfWhatLeavesOnceItIsFound(t *testing.T) {
	for name, tt := range map[string]struct {
		leaves func(t *testing.T, c *cache)
		want   error
	}{
		"forgotten": {func(t *testing.T, c *cache) { require.True(t, forget(c, "k")) }, nil},
		"shed":      {func(t *testing.T, c *cache) { executes(t, c, "other", 7) }, idemflight.ErrValueShed},
	} {
		for _, at := range []string{"look: found", "look: not expired"} {
			t.Run(name+"/"+at, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := idemflight.MustNew(weighted(options{}))
					executes(t, c, "k", 6)
					came, ran := false, false
					onYield(t, func(point string) {
						if point == at && !came {
							came = true
							tt.leaves(t, c)
						}
					})
					_, err := c.Do(bg, "k", func(context.Context) (int, error) { ran = true; return 5, nil })
					require.True(t, came, "the seam")
					require.ErrorIs(t, err, tt.want)
					require.Equal(t, tt.want == nil, ran)
				})
			})
		}
	}
}

// After a burst next to nothing is left of what was needed for it, in line or out of order.
func TestPromise17_TablesShrinkToAFew(t *testing.T) {
	measuresHeap(t)
	const burst, live = 300_000, 600
	for name, opts := range map[string][]idemflight.CallOption{"in line": nil, "out of order": {idemflight.WithTTL(time.Hour)}} {
		t.Run(name, func(t *testing.T) {
			build := func(first int) func() *idemflight.Cache[int, int] {
				return func() *idemflight.Cache[int, int] {
					c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: burst})
					for key := 1; key <= first; key++ {
						_, _ = c.Do(bg, key, one, opts...)
					}
					for key := live + 1; key <= first; key++ {
						forget(c, key)
					}
					require.Equal(t, live, c.Len())
					require.NoError(t, c.CheckInvariants())
					return c
				}
			}
			after, fresh := heapOf(build(burst)), heapOf(build(live))
			require.Less(t, after, 2*fresh, "bytes after a burst, of %d without one", fresh)
		})
	}
}

// A shard that has emptied takes no more than one that was never used.
func TestPromise17_NothingIsLeftOfAShardThatEmpties(t *testing.T) {
	measuresHeap(t)
	const caches, keys = 16, 10_000
	var all []*idemflight.Cache[int, int]
	for range caches {
		all = append(all, idemflight.MustNew(idemflight.Options[int, int]{}))
	}
	before := heapInUse()
	for _, c := range all {
		for key := range keys {
			_, _ = c.Do(bg, key+1, one)
		}
		for key := range keys {
			forget(c, key+1)
		}
	}
	left := heapInUse() - before
	shards := int64(caches * all[0].Shards())
	require.Less(t, left/shards, int64(400), fmt.Sprintf("bytes left per shard, of %d", shards))
	runtime.KeepAlive(all)
}

// A table has no more buckets than it needs, nor a directory with much more room than that: as many as promised in
// table.go, on the way up and down.
func TestTable_GrowsAndShrinksAsItSays(t *testing.T) {
	defer idemflight.LimitShards(1)()
	const most = 400
	c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: 2 * most})
	directory := func(buckets, before int) int {
		segments := (buckets + 7) / 8
		if segments <= before && 4*segments >= before {
			return before
		}
		return max(1, 2*segments-1)
	}
	room := 0
	for i := 1; i <= most; i++ {
		_, err := c.Do(bg, i, one)
		require.NoError(t, err)
		require.Equal(t, (i+3)/4, c.Buckets(), "%d records", i)
		room = directory(c.Buckets(), room)
		require.Equal(t, room, c.Directory(), "%d buckets", c.Buckets())
	}
	require.NoError(t, c.CheckInvariants())
	for n := most - 1; n > 0; n-- {
		require.True(t, forget(c, n+1))
		require.Equal(t, max(8, min(most/4, n)), c.Buckets(), "%d records", n)
		room = directory(c.Buckets(), room)
		require.Equal(t, room, c.Directory(), "%d buckets", c.Buckets())
		if n%16 == 0 {
			require.NoError(t, c.CheckInvariants())
		}
	}
	require.True(t, forget(c, 1))
	require.Zero(t, c.Buckets())
	_, err := c.Do(bg, 1, one)
	require.NoError(t, err)
	require.True(t, forget(c, 1))
	require.Equal(t, 1, c.Buckets(), "the only bucket stays")
}

// A walk that was interrupted goes on at a position that may be in the midst of a bucket by now.
func TestTable_AWalkFindsWhatIsThereFromAnyPosition(t *testing.T) {
	defer idemflight.LimitShards(1)()
	c := idemflight.MustNew(idemflight.Options[int, int]{})
	for i := 1; i <= 150; i++ {
		_, err := c.Do(bg, i, one)
		require.NoError(t, err)
		for _, parts := range []uint64{1, 2, 8, 64, 256} {
			for part := range parts {
				found, there := c.KeysFrom(part * (1 << 32 / parts))
				slices.Sort(found)
				slices.Sort(there)
				require.Equal(t, there, found, "%d records, part %d of %d", i, part, parts)
			}
		}
	}
}

// The map of the flights is made anew once it is nearly empty, and not before.
func TestFlights_AreLetGoOfWhenFewAreLeft(t *testing.T) {
	defer idemflight.LimitShards(1)()
	for most, peak := range map[int]int{20: 5, 8: 8} { // of 8 at most the map stays as it is
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{})
			var ends []func(int, error) (idemflight.Result[int], error)
			for i := range most {
				ends = append(ends, fly(t, c, keyNo(i)))
			}
			for i, end := range ends {
				_, err := end(1, nil)
				require.NoError(t, err)
				want, left := most, most-1-i
				if left <= most/4 {
					want = peak
				}
				require.Equal(t, want, c.PeakOfFlights(), "%d of %d are left", left, most)
				require.NoError(t, c.CheckInvariants())
			}
		})
	}
}

func TestReplays_AreCountedInSomeStripesForEachCore(t *testing.T) {
	for cores, want := range map[int]int{1: 16, 4: 16, 5: 32, 9: 64} {
		before := runtime.GOMAXPROCS(cores)
		require.Equal(t, want, idemflight.MustNew(options{}).Stripes(), "%d cores", cores)
		runtime.GOMAXPROCS(before)
	}
}

// Replays on several goroutines do not all write to one cache line.
func TestReplays_AreCountedInSeveralStripes(t *testing.T) {
	c := idemflight.MustNew(options{})
	executes(t, c, "k", 1)
	const goroutines = 200 // all alive at once, so that each has its own stack
	var replayed, ended sync.WaitGroup
	replayed.Add(goroutines)
	for range goroutines {
		ended.Go(func() {
			v, err := c.Do(bg, "k", neverRuns(t))
			replayed.Done()
			replayed.Wait()
			assert.NoError(t, err)
			assert.Equal(t, 1, v)
		})
	}
	ended.Wait()
	require.EqualValues(t, goroutines, c.Stats().Replayed)
	require.Greater(t, c.StripesInUse(), 3, "of %d", c.Stripes())
}

// A caller that joins does so at its first look.
func TestJoin_TakesOneLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		end := fly(t, c, "k")
		meets := 0
		onYield(t, func(point string) {
			if point == "meet" {
				meets++
			}
		})
		call := start(c, bg, "k", neverRuns(t))
		synctest.Wait()
		require.Zero(t, meets)
		_, err := end(1, nil)
		require.NoError(t, err)
		synctest.Wait()
		call.got(t, idemflight.Joined, 1)
	})
}

// What a record has room for stays in it: an execution of up to 4.3 s, to the nanosecond.
func TestRecord_HowLongAnExecutionTookFitsOrNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for took, small := range map[time.Duration]int{math.MaxUint32: 1, math.MaxUint32 + 1: 0} {
			c := idemflight.MustNew(options{})
			_, err := c.Do(bg, "k", returnsAfter(took, 1, nil))
			require.NoError(t, err)
			require.Equal(t, small, c.Small(), "%d ns", took)
			e, _ := lookup(c, "k")
			require.Equal(t, took, e.CompletedAt.Sub(e.StartedAt))
		}
	})
}
