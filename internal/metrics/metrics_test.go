package metrics

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/storetest"
)

// valuesOf returns what the table reads, by metric and attribute.
func valuesOf(r *Reading) map[string]float64 {
	all := map[string]float64{}
	for _, m := range Table {
		for _, v := range m.Values {
			if x, known := v.Of(r); known {
				all[m.Name+" "+v.Attribute] = x
			}
		}
	}
	return all
}

// TestTable: each number of Stats under its own name.
func TestTable(t *testing.T) {
	now := time.Now()
	got := valuesOf(&Reading{MaxEntries: 100, MaxWeight: 101, at: now,
		oldest: oldest{inFlight: now.Add(-102 * time.Second), held: now.Add(-103 * time.Second)},
		Stats: idemflight.Stats{
			Executed: 1, Joined: 2, Replayed: 3, Reconciled: 4, KeyReused: 5, NotWaited: 6, OutcomeUnknown: 7, ValueShed: 8,
			Full: 9, Closed: 10, Reentrant: 11, InvalidKey: 12, CallerLeft: 13, StoreFailed: 14, Retains: 15, Releases: 16,
			Holds: 17, Panics: 18, Evicted: 19, Expired: 20, Shed: 21, HookPanics: 22, InFlight: 23, Waiters: 24,
			Entries: 75, Held: 25, Weight: 26,
		}})
	require.Equal(t, map[string]float64{
		"idemflight.calls executed": 1, "idemflight.calls joined": 2, "idemflight.calls replayed": 3,
		"idemflight.calls reconciled": 4, "idemflight.calls key_reused": 5, "idemflight.calls in_flight": 6,
		"idemflight.calls outcome_unknown": 7, "idemflight.calls value_shed": 8, "idemflight.calls full": 9,
		"idemflight.calls closed": 10, "idemflight.calls reentrant": 11, "idemflight.calls invalid_key": 12,
		"idemflight.calls caller_left": 13, "idemflight.calls store_failed": 14,
		"idemflight.executions retain": 15, "idemflight.executions release": 16, "idemflight.executions hold": 17,
		"idemflight.execution.panics ": 18,
		"idemflight.removals evicted":  19, "idemflight.removals expired": 20, "idemflight.removals shed": 21,
		"idemflight.hook.panics ":        22,
		"idemflight.key.usage in_flight": 23, "idemflight.waiters ": 24,
		"idemflight.key.usage done": 50, "idemflight.key.usage held": 25,
		"idemflight.weight.usage ": 26, "idemflight.key.limit ": 100, "idemflight.weight.limit ": 101,
		"idemflight.unsettled.age in_flight": 102, "idemflight.unsettled.age held": 103,
	}, got)
}

// TestReader_AsksOnce for the Stats, and for keys only where there are some.
func TestReader_AsksOnce(t *testing.T) {
	stats, looks := 0, 0
	var now idemflight.Stats
	r := Reader{
		stats: func() idemflight.Stats { stats++; return now },
		unsettled: func(context.Context, func(idemflight.State, time.Time) bool) error {
			looks++
			return nil
		},
	}
	valuesOf(r.Read())
	require.Equal(t, [2]int{1, 0}, [2]int{stats, looks})
	now.Held = 1
	valuesOf(r.Read())
	require.Equal(t, [2]int{2, 1}, [2]int{stats, looks})
}

// TestReader_StopsAtTheOldest: of a hundred thousand held keys, the first is looked up.
func TestReader_StopsAtTheOldest(t *testing.T) {
	told := 0
	r := Reader{
		stats: func() idemflight.Stats { return idemflight.Stats{Held: 3, InFlight: 1} },
		unsettled: func(_ context.Context, each func(idemflight.State, time.Time) bool) error {
			for _, s := range []idemflight.State{idemflight.Held, idemflight.Held, idemflight.InFlight, idemflight.Held} {
				told++
				if !each(s, time.Now()) {
					break
				}
			}
			return nil
		},
	}
	r.Read()
	require.Equal(t, 3, told)
}

// TestReader_LooksForATwentiethOfTheTime: where there are very many keys, the scrapes in between tell of the last look,
// as of now.
func TestReader_LooksForATwentiethOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks, started := 0, time.Now()
		r := Reader{
			stats: func() idemflight.Stats { return idemflight.Stats{Held: 1} },
			unsettled: func(_ context.Context, each func(idemflight.State, time.Time) bool) error {
				looks++
				time.Sleep(time.Second)
				each(idemflight.Held, started)
				return nil
			},
		}
		for range 50 {
			age := valuesOf(r.Read())["idemflight.unsettled.age held"]
			require.Equal(t, time.Since(started).Seconds(), age)
			time.Sleep(time.Second)
		}
		require.Equal(t, 3, looks)
	})
}

// TestReader_GoexitOfAStore: the next look comes all the same.
func TestReader_GoexitOfAStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		r := Reader{
			stored: true,
			stats:  func() idemflight.Stats { return idemflight.Stats{} },
			unsettled: func(context.Context, func(idemflight.State, time.Time) bool) error {
				looks++
				runtime.Goexit()
				return nil
			},
		}
		for range 3 {
			r.Read()
			synctest.Wait()
			time.Sleep(LookEvery)
		}
		require.Equal(t, 3, looks)
	})
}

// TestResult_IsTheCountThatMoves: a call's result, as its event tells it, is what Stats counts it under. One call at
// least of every kind there is.
func TestResult_IsTheCountThatMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		results := map[string]float64{}
		observer := func(_ context.Context, e idemflight.Event[string]) {
			mu.Lock()
			defer mu.Unlock()
			if e.Kind <= idemflight.EventCallerLeft {
				results["idemflight.calls "+Result(e.Kind, e.Err)]++
			}
		}
		store := storetest.Mem()
		cache := func(o idemflight.Options[string, string]) *idemflight.Cache[string, string] {
			o.Observer = observer
			return idemflight.MustNew(o)
		}
		bank := cache(idemflight.Options[string, string]{MaxEntries: 3, MaxWeight: 3, Weigh: func(_, v string) int64 { return int64(len(v)) }})
		asks := cache(idemflight.Options[string, string]{Reconcile: func(context.Context, string, idemflight.Entry[string]) (string, error) { return "found", nil }})
		shared := cache(idemflight.Options[string, string]{Store: store})
		ctx, lost := context.Background(), errors.New("lost")
		left, cancel := context.WithCancel(ctx)
		cancel()
		fn := func(value string, err error) func(context.Context) (string, error) {
			return func(context.Context) (string, error) { time.Sleep(time.Second); return value, err }
		}

		_, _ = bank.Do(ctx, "a", fn("ok", nil))
		_, _ = bank.Do(ctx, "a", fn("ok", nil))
		_, _ = bank.Do(ctx, "a", fn("ok", nil), idemflight.WithFingerprint(idemflight.Fingerprint{1}))
		_, _ = bank.Do(ctx, "b", fn("heavy", nil))
		_, _ = bank.Do(ctx, "b", fn("heavy", nil)) // shed
		_, _ = bank.Do(ctx, "c", fn("", lost))
		_, _ = bank.Do(ctx, "c", fn("", lost)) // outcome unknown
		_, _ = bank.Do(ctx, "d", fn("", nil))  // full
		_, _ = bank.Do(ctx, "", fn("", nil))
		_, _ = bank.Do(left, "d", fn("", nil))
		require.NoError(t, bank.Close(ctx))
		_, _ = bank.Do(ctx, "e", fn("", nil))

		go func() { _, _ = asks.Do(ctx, "a", fn("", lost)) }()
		synctest.Wait()
		go func() { _, _ = asks.Do(ctx, "a", fn("", nil)) }() // joined, and the outcome is unknown
		_, _ = asks.Do(ctx, "a", fn("", nil), idemflight.WithMaxWait(idemflight.NoWait))
		_, _ = asks.Do(ctx, "a", fn("", nil), idemflight.WithMaxWait(time.Millisecond))
		time.Sleep(time.Minute)
		_, _ = asks.Do(ctx, "a", fn("", nil)) // reconciled
		_, _ = asks.Do(ctx, "b", func(ctx context.Context) (string, error) { return asks.Do(ctx, "b", fn("", nil)) })

		_, _ = shared.Do(ctx, "a", fn("ok", nil))
		store.Fail("Settle", storetest.Before, -1)
		_, _ = shared.Do(ctx, "c", fn("ok", nil))
		_, err := shared.Do(ctx, "c", fn("ok", nil)) // outcome unknown, since the store has not recorded it
		require.ErrorIs(t, err, idemflight.ErrStore)
		store.Fail("Settle", storetest.Before, 0)
		store.Fail("Claim", storetest.Before, -1)
		_, _ = shared.Do(ctx, "b", fn("ok", nil))

		synctest.Wait()
		counts := map[string]float64{}
		for _, c := range []*idemflight.Cache[string, string]{bank, asks, shared} {
			for name, n := range valuesOf(NewReader(c).Read()) {
				if n > 0 && strings.HasPrefix(name, "idemflight.calls ") {
					counts[name] += n
				}
			}
		}
		require.Equal(t, counts, results)
		require.Len(t, results, len(Table[0].Values), "every result there is")
		time.Sleep(time.Hour)
	})
}
