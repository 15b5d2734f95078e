package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/yield"
)

// intCache makes a cache of one shard that keeps the keys from 1 to n.
func intCache(t testing.TB, n int) *idemflight.Cache[int, int] {
	t.Cleanup(idemflight.LimitShards(1))
	t.Cleanup(idemflight.LimitHash(64)) // those of one hash are visited at once, whatever there are
	c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: max(2*n, 1<<20)})
	for key := range n {
		_, err := c.Do(bg, key+1, one)
		require.NoError(t, err)
	}
	return c
}

// The table changes while All is under way: what is there all the time is seen once, nothing is seen twice.
func TestAll_SeesEachKeyOnceWhileTheTableGrowsAndShrinks(t *testing.T) {
	oneGoroutine(t)
	const stable = 2000
	sizes := 0
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		c := intCache(t, stable)
		var others []int
		next := stable + 1
		change := func() { // by up to twice the table, or away with most of it
			if rnd.IntN(2) == 0 {
				for range rnd.IntN(2 * stable) {
					_, err := c.Do(bg, next, one)
					require.NoError(t, err)
					others, next = append(others, next), next+1
				}
				return
			}
			rnd.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
			keep := rnd.IntN(len(others) + 1)
			for _, key := range others[keep:] {
				require.True(t, forget(c, key))
			}
			others = others[:keep]
		}
		for range rnd.IntN(3) {
			change()
		}
		seen, before := map[int]int{}, c.Buckets()
		for key, e := range c.All() {
			require.Equal(t, idemflight.Retained, e.State)
			seen[key]++
			require.Equal(t, 1, seen[key], "seed %d: %d is seen once", seed, key)
			if rnd.IntN(200) == 0 {
				change()
				if c.Buckets() != before {
					sizes, before = sizes+1, c.Buckets()
				}
			}
		}
		for key := 1; key <= stable; key++ {
			require.Equal(t, 1, seen[key], "seed %d: %d was there all the time", seed, key)
		}
		require.NoError(t, c.CheckInvariants())
	}
	require.Greater(t, sizes, 200, "how often the table had changed meanwhile")
}

// A key that is removed and comes again while All is under way is not seen twice; one that was removed before
// its turn is not seen at all.
func TestAll_LooksEachKeyUpWhenItsTurnComes(t *testing.T) {
	const n = 3000
	c := intCache(t, n)
	seen := map[int]bool{}
	gone := map[int]bool{}
	for key := range c.All() {
		require.False(t, seen[key], "%d is seen twice", key)
		require.False(t, gone[key], "%d is not there", key)
		seen[key] = true
		forget(c, key)
		_, err := c.Do(bg, key, one)
		require.NoError(t, err)
		if other := key%n + 1; !seen[other] {
			gone[other] = forget(c, other) || gone[other]
		}
	}
	require.Len(t, seen, n-len(gone))
}

// A held key is in flight while Reconcile is asked about it, and held again: it is there all the time.
func TestAll_SeesEachHeldKeyOnceWhileReconcileComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer idemflight.LimitShards(1)()
		const n = 1500
		end := make(chan struct{})
		c := idemflight.MustNew(idemflight.Options[int, int]{
			Reconcile: func(context.Context, int, idemflight.Entry[int]) (int, error) { <-end; return 0, errBoom },
		})
		for key := range n {
			_, _ = c.Do(bg, key+1, returns(0, idemflight.Unknown(errBoom)))
		}
		rnd := rand.New(rand.NewPCG(1, 1))
		flying := map[int]bool{}
		seen, states := map[int]int{}, map[idemflight.State]int{}
		for key, e := range c.All() {
			seen[key]++
			states[e.State]++
			if rnd.IntN(100) > 0 {
				continue
			}
			for range len(flying) { // all come back
				end <- struct{}{}
			}
			clear(flying)
			time.Sleep(2 * time.Second) // after one that learned nothing it is not asked at once
			synctest.Wait()
			ctx, leave := context.WithCancel(bg)
			for range 300 {
				other := 1 + rnd.IntN(n)
				start(c, ctx, other, neverRunsAs[int](t))
				flying[other] = true
			}
			synctest.Wait()
			leave()
			synctest.Wait()
		}
		for key := 1; key <= n; key++ {
			require.Equal(t, 1, seen[key], "%d was there all the time", key)
		}
		require.Greater(t, states[idemflight.InFlight], n/20)
		require.Greater(t, states[idemflight.Held], n/20)
		close(end)
	})
}

// holds calls use, which visits all of c, and returns how many keys it collects in each hold of the lock.
func holds(t testing.TB, use func()) (keys []int, took []time.Duration) {
	defer yield.Hook(nil)
	var began time.Time
	yield.Hook(func(point string) {
		switch point {
		case "all":
			keys, began = append(keys, 0), time.Now()
		case "lookup":
			if keys[len(keys)-1]++; keys[len(keys)-1] == 1 {
				took = append(took, time.Since(began))
			}
		}
	})
	use()
	require.NotEmpty(t, keys, "the seam is in force")
	return keys, took
}

// All visits a part of a shard at a time: calls that need the shard do not wait for the rest.
func TestAll_HoldsALockForSomeHundredKeysAtATime(t *testing.T) {
	const n = 20_000
	c := intCache(t, n)
	keys, took := holds(t, func() { require.Len(t, entries(c), n) })
	require.Greater(t, len(keys), n/160)
	require.LessOrEqual(t, slices.Max(keys), 160, "128, and what else is in the last bucket")

	slices.Sort(took)
	t.Logf("half of the holds took less than %v, 99 in 100 less than %v", took[len(took)/2], took[len(took)*99/100])
}

// A walk lets go of the lock as soon as it has noted so many keys, and those beside the last of them.
func TestAll_LetsGoOfTheLockAfterSomeKeys(t *testing.T) {
	defer idemflight.LimitShards(1)()
	c := idemflight.MustNew(options{MaxEntries: 20_000})
	for i := range 20_000 {
		executes(t, c, keyNo(i), i)
	}
	walked := 0
	c.WalkKeys(func(keys, last int) {
		walked += keys
		require.Less(t, keys-last, idemflight.KeysAtOnce)
		require.True(t, keys >= idemflight.KeysAtOnce || walked == 20_000, "%d keys, and more to come", keys)
	})
	require.Equal(t, 20_000, walked)
}

func TestAll_StopsWhenTheLoopDoes(t *testing.T) {
	c := intCache(t, 1000)
	for n := range 1000 {
		seen := 0
		for range c.All() {
			if seen++; seen > n {
				break
			}
		}
		require.Equal(t, n+1, seen)
	}
	require.Empty(t, entries(idemflight.MustNew(options{})))
}

// Keys in flight are seen, too, those with one hash and those of the same position as others alike.
func TestAll_SeesKeysInFlight(t *testing.T) {
	for _, bits := range []int{64, 3, 1} {
		synctest.Test(t, func(t *testing.T) {
			defer idemflight.LimitHash(bits)()
			c := idemflight.MustNew(options{})
			end := make(chan struct{})
			for i := range 600 {
				if i%2 == 0 {
					executes(t, c, keyNo(i), i)
					continue
				}
				start(c, bg, keyNo(i), func(context.Context) (int, error) { <-end; return 0, errors.New("released") })
			}
			synctest.Wait()
			seen := map[string]int{}
			for key := range c.All() {
				seen[key]++
			}
			require.Len(t, seen, 600)
			for key, times := range seen {
				require.Equal(t, 1, times, key)
			}
			close(end)
		})
	}
}

// BenchmarkAll_Hold tells how long All holds the lock of a shard with a million entries.
func BenchmarkAll_Hold(b *testing.B) {
	c := intCache(b, 1_000_000)
	var all []time.Duration
	for b.Loop() {
		_, took := holds(b, func() {
			for range c.All() {
			}
		})
		all = append(all, took...)
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2]), "ns/hold")
	b.ReportMetric(float64(all[len(all)*99/100]), "ns/hold99")
	b.ReportMetric(float64(all[len(all)-1]), "ns/max")
}

// unsettled is one key as Unsettled gives it.
type unsettled struct {
	key   string
	entry idemflight.Entry[int]
}

func allUnsettled(t *testing.T, c *cache) (all []unsettled) {
	t.Helper()
	require.NoError(t, c.Unsettled(dead(errEnough), func(key string, e idemflight.Entry[int]) bool { // ctx is not asked
		all = append(all, unsettled{key, e})
		return true
	}))
	return all
}

// requireOldestFirst requires that Unsettled gives these keys, in this order.
func requireOldestFirst(t *testing.T, c *cache, keys []string) {
	t.Helper()
	var got []string
	last := time.Time{}
	for _, u := range allUnsettled(t, c) {
		got = append(got, u.key)
		require.False(t, u.entry.StartedAt.Before(last), "%q started at %v, the one before at %v", u.key, u.entry.StartedAt, last)
		last = u.entry.StartedAt
	}
	require.Equal(t, keys, got, "the oldest first")
}

// What is in flight or held, for whatever reason, and nothing else.
func TestUnsettled_IsAllThatIsInFlightOrHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(weighted(options{Reconcile: answers(1, nil)}))
		gate := newGate(t)
		require.Empty(t, allUnsettled(t, c), "of an empty cache")
		for i := range 200 {
			executes(t, c, fmt.Sprint("retained-", i), 0)
		}
		executes(t, c, "shed", tooHeavy)
		hold(t, c, "reconciling")
		operate(c, bg, "reconciling")
		for i := range 20 {
			hold(t, c, fmt.Sprint("held-", i))
			_, _ = c.Do(bg, fmt.Sprint("silent-", i), returns(0, errBoom))
			start(c, bg, fmt.Sprint("flying-", i), func(context.Context) (int, error) { gate.wait(); return 1, nil })
			require.NoError(t, c.Restore(bg, fmt.Sprint("restored-", i), idemflight.Entry[int]{State: idemflight.Held, Err: errBoom}))
			require.NoError(t, c.Restore(bg, fmt.Sprint("interrupted-", i), idemflight.Entry[int]{State: idemflight.InFlight}))
		}
		synctest.Wait()
		want := map[string]idemflight.Entry[int]{}
		for k, e := range c.All() {
			if e.State == idemflight.Held || e.State == idemflight.InFlight {
				want[k] = e
			}
		}
		require.Len(t, want, 101)
		got := map[string]idemflight.Entry[int]{}
		for _, u := range allUnsettled(t, c) {
			require.NotContains(t, got, u.key, "each key once")
			got[u.key] = u.entry
		}
		require.Equal(t, want, got, "each with its entry")

		// No lock is held while it runs, and each key is looked up when its turn comes.
		seen := 0
		require.NoError(t, c.Unsettled(bg, func(key string, _ idemflight.Entry[int]) bool {
			seen++
			for k := range want {
				if k != key && k[:4] == "held" {
					forget(c, k)
				}
			}
			c.Stats()
			return true
		}))
		require.LessOrEqual(t, seen, 82, "one that has settled by then is left out")
		require.GreaterOrEqual(t, seen, 81)
		gate.open()
		time.Sleep(time.Minute)
		synctest.Wait()
	})
}

func TestUnsettled_StopsWhenTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		for i := range 20 {
			hold(t, c, keyNo(i))
			time.Sleep(time.Second)
		}
		for stop := range 20 {
			var got []string
			require.NoError(t, c.Unsettled(bg, func(key string, _ idemflight.Entry[int]) bool {
				got = append(got, key)
				return len(got) <= stop
			}))
			require.Len(t, got, stop+1, "it stops when it is told to")
			for i, key := range got {
				require.Equal(t, keyNo(i), key, "the oldest first")
			}
		}
	})
}

// By when their executions started, which is not when they ended, held and in flight together.
func TestUnsettled_OldestFirst(t *testing.T) {
	for range 5 {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{})
			gate := newGate(t)
			var want []string
			for i := range 50 {
				want = append(want, keyNo(i))
				took := time.Duration(rand.Int64N(int64(4 * time.Second)))
				if i%3 == 0 {
					start(c, bg, keyNo(i), func(context.Context) (int, error) { gate.wait(); return 1, nil })
				} else {
					start(c, bg, keyNo(i), returnsAfter(took, 1, errBoom))
				}
				time.Sleep(time.Second / 8)
			}
			time.Sleep(time.Minute)
			requireOldestFirst(t, c, want)
			gate.open()
			synctest.Wait()
		})
	}
}

// The same of executions that took longer than a record has room for.
func TestUnsettled_OldestFirstAlsoAfterLongExecutions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{ExecTimeout: -1})
		var want []string
		for i := range 20 {
			want = append(want, keyNo(i))
			took := time.Duration(rand.Int64N(int64(time.Minute)))
			if i%2 == 0 {
				took += 5 * time.Second
			}
			start(c, bg, keyNo(i), returnsAfter(took, 1, errBoom))
			time.Sleep(time.Second)
		}
		time.Sleep(time.Hour)
		requireOldestFirst(t, c, want)
	})
}

// The same of keys that were restored, whose executions started in another process, in whatever order they
// come, with and without an end, beside younger ones of this process.
func TestUnsettled_OldestFirstAlsoOfRestoredKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		now := time.Now()
		want := make([]string, 30)
		for _, i := range rand.Perm(20) {
			want[i] = keyNo(i)
			began := now.Add(time.Duration(i-20) * time.Hour)
			e := idemflight.Entry[int]{State: idemflight.Held, Err: errBoom, StartedAt: began, CompletedAt: began.Add(time.Duration(rand.Int64N(int64(time.Minute))))}
			switch i % 3 {
			case 0:
				e.ExpiresAt = now.Add(time.Hour)
			case 1:
				e = idemflight.Entry[int]{State: idemflight.InFlight, StartedAt: began}
			}
			require.NoError(t, c.Restore(bg, keyNo(i), e))
		}
		for i := 20; i < len(want); i++ {
			want[i] = keyNo(i)
			time.Sleep(time.Second)
			hold(t, c, keyNo(i))
		}
		requireOldestFirst(t, c, want)
	})
}
