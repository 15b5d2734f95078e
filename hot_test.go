package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// hotten replays key until that needs no lock any more, and asserts that it is so.
func hotten[V any](t *testing.T, c *idemflight.Cache[string, V], key string, opts ...idemflight.CallOption) {
	t.Helper()
	for range 100 {
		r, _ := c.DoResult(context.Background(), key, func(context.Context) (V, error) {
			t.Errorf("%s ran again", key)
			return *new(V), nil
		}, opts...)
		require.Equal(t, idemflight.Replayed, r.Source)
	}
	require.Contains(t, c.HotKeys(), key, "the fast path must be in force")
}

// What leaves the cache leaves the fast path with it, in whatever way it goes.
func TestHotOutcomeIsNeverReplayedOnceItIsGone(t *testing.T) {
	ctx := context.Background()
	type cache = *idemflight.Cache[string, int]
	for name, goes := range map[string]struct {
		opts idemflight.Options[string, int]
		call []idemflight.CallOption
		err  error
		go_  func(t *testing.T, c cache)
		want error // of the next call; nil: it runs fn
	}{
		"forgotten": {go_: func(t *testing.T, c cache) { require.True(t, c.Forget("k")) }},
		"forgotten, a final error": {err: idemflight.Final(errors.New("declined")),
			go_: func(t *testing.T, c cache) { require.True(t, c.Forget("k")) }},
		"expired": {opts: idemflight.Options[string, int]{TTL: time.Minute},
			go_: func(t *testing.T, c cache) { time.Sleep(time.Minute) }},
		"expired, its own TTL": {call: []idemflight.CallOption{idemflight.WithTTL(time.Second)},
			go_: func(t *testing.T, c cache) { time.Sleep(time.Second) }},
		"expired, before the timer": {opts: idemflight.Options[string, int]{TTL: time.Hour},
			go_: func(t *testing.T, c cache) {
				require.NoError(t, c.Close(ctx)) // no timer
				time.Sleep(time.Hour)
			}, want: idemflight.ErrClosed},
		"evicted": {opts: idemflight.Options[string, int]{MaxEntries: 4, Protect: -1},
			go_: func(t *testing.T, c cache) {
				for i := range 9 { // twice around: the second chance has gone
					_, err := c.Do(ctx, fmt.Sprint(i), func(context.Context) (int, error) { return i, nil })
					require.NoError(t, err)
				}
			}},
		"shed": {opts: idemflight.Options[string, int]{MaxWeight: 10, Weigh: func(_ string, v int) int64 { return int64(v) }},
			go_: func(t *testing.T, c cache) {
				for i := range 3 {
					_, err := c.Do(ctx, fmt.Sprint(i), func(context.Context) (int, error) { return 9, nil })
					require.NoError(t, err)
				}
			}, want: idemflight.ErrValueShed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(goes.opts)
				_, err := c.Do(ctx, "k", func(context.Context) (int, error) { return 7, goes.err }, goes.call...)
				require.Equal(t, goes.err == nil, err == nil)
				hotten(t, c, "k")
				require.NoError(t, c.CheckInvariants())

				goes.go_(t, c)
				ran := false
				_, err = c.Do(ctx, "k", func(context.Context) (int, error) { ran = true; return 8, nil })
				require.ErrorIs(t, err, goes.want)
				require.Equal(t, goes.want == nil, ran)
				require.NoError(t, c.CheckInvariants())
			})
		})
	}
}

// Through the fast path too, the fingerprint is compared, options are heeded, and each replay is
// counted and told.
func TestHotReplayIsAReplayLikeAnyOther(t *testing.T) {
	ctx := context.Background()
	fp := idemflight.FingerprintOf([]byte("a"))
	var told atomic.Uint64
	c := idemflight.MustNew(idemflight.Options[string, string]{Observer: func(_ context.Context, e idemflight.Event[string]) {
		if e.Kind == idemflight.EventReplayed && e.Key == "k" {
			told.Add(1)
		}
	}})
	first, err := c.DoResult(ctx, "k", func(context.Context) (string, error) { return "v", nil }, idemflight.WithFingerprint(fp))
	require.NoError(t, err)
	hotten(t, c, "k", idemflight.WithFingerprint(fp))

	_, err = c.Do(ctx, "k", func(context.Context) (string, error) { return "", nil })
	require.ErrorIs(t, err, idemflight.ErrKeyReused)
	again, err := c.DoResult(ctx, "k", func(context.Context) (string, error) { return "", nil }, idemflight.WithFingerprint(fp))
	require.NoError(t, err)
	first.Source = idemflight.Replayed
	require.Equal(t, first, again)

	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				_, _ = c.Do(ctx, "k", func(context.Context) (string, error) { return "", nil }, idemflight.WithFingerprint(fp))
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 100+1+8000, c.Stats().Replayed)
	require.EqualValues(t, 100+1+8000, told.Load())
}

// A hot key counts as used: it survives a scan although no replay of it takes the lock.
func TestHotReplayCountsForTheOrder(t *testing.T) {
	ctx := context.Background()
	c := idemflight.MustNew(idemflight.Options[string, int]{MaxEntries: 64, Protect: -1})
	fn := func(context.Context) (int, error) { return 1, nil }
	_, _ = c.Do(ctx, "k", fn)
	hotten(t, c, "k")
	for i := range 6400 {
		_, err := c.Do(ctx, fmt.Sprint(i), fn)
		require.NoError(t, err)
		if i%16 == 0 {
			r, err := c.DoResult(ctx, "k", fn)
			require.NoError(t, err)
			require.Equal(t, idemflight.Replayed, r.Source, "after %d insertions", i)
		}
	}
	require.NoError(t, c.CheckInvariants())
}

// Keys that are all replayed alike do not take turns in the fast path, which would allocate.
func TestHotTableIsForTheHottest(t *testing.T) {
	if os.Getenv("IDEMFLIGHT_HASHBITS") != "" {
		t.Skip("keys of one hash vote together")
	}
	ctx := context.Background()
	c := idemflight.MustNew(idemflight.Options[int, int]{})
	fn := func(context.Context) (int, error) { return 1, nil }
	const many = 50_000
	for i := 1; i <= many; i++ {
		_, _ = c.Do(ctx, i, fn)
	}
	for range 4 {
		for i := 1; i <= many; i++ {
			_, _ = c.Do(ctx, i, fn)
		}
	}
	require.Empty(t, c.HotKeys(), "nobody was hotter than others")
	for i := 1; i <= 16; i++ {
		for range 300 { // more than a slot that is taken needs
			_, _ = c.Do(ctx, i, fn)
		}
	}
	require.NotEmpty(t, c.HotKeys())
	for i := 1; i <= many; i++ {
		require.True(t, c.Forget(i))
	}
	require.Empty(t, c.HotKeys())
	require.NoError(t, c.CheckInvariants())
}

// While a key is forgotten and made again, nobody is told a value from before the last Forget that
// had returned when the call began.
func TestHotReplayRacesWithForget(t *testing.T) {
	ctx := context.Background()
	c := idemflight.MustNew(idemflight.Options[string, int64]{})
	var made, forgotten atomic.Int64
	fn := func(context.Context) (int64, error) { return made.Add(1), nil }
	var wg sync.WaitGroup
	var stop atomic.Bool
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				least := forgotten.Load()
				v, err := c.Do(ctx, "k", fn)
				if err != nil || v <= least {
					t.Errorf("got %d (%v), although all up to %d had been forgotten", v, err, least)
					return
				}
			}
		})
	}
	hot := 0
	for range 3000 {
		for range 30 {
			_, _ = c.Do(ctx, "k", fn)
		}
		if slices.Contains(c.HotKeys(), "k") {
			hot++
		}
		upTo := made.Load()
		c.Forget("k")
		forgotten.Store(upTo - 1) // upTo itself may have been in flight
	}
	stop.Store(true)
	wg.Wait()
	require.Positive(t, hot, "the fast path must be in force")
	require.NoError(t, c.CheckInvariants())
}

// The numbers of turns wrap: where time stands still they alone make the order.
func TestTurnsWrap(t *testing.T) {
	for _, start := range []uint32{1<<24 - 30, 1<<32 - 30, 1<<23 - 30} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: 16, Protect: -1})
			time.Sleep(time.Second)
			c.StartTurns(start)
			replay := func(key int) {
				r, err := c.DoResult(context.Background(), key, func(context.Context) (int, error) { return key, nil })
				require.NoError(t, err)
				if key <= 8 && c.Stats().Evicted > 0 {
					require.Equal(t, idemflight.Replayed, r.Source, "%d is replayed twice in 4 insertions", key)
				}
			}
			for n := range 200 {
				replay(1000 + n)
				for key := 1; key <= 8; key++ {
					if key%2 == n%2 {
						replay(key)
					}
				}
				require.NoError(t, c.CheckInvariants())
			}
		})
	}
}

// A slot goes to a rival that is replayed often, once nobody replays what is in it.
func TestHotSlotOfAColdKeyGoesToARival(t *testing.T) {
	defer idemflight.LimitHash(8)() // so that all meet in one slot
	ctx := context.Background()
	c := idemflight.MustNew(idemflight.Options[string, int]{})
	fn := func(context.Context) (int, error) { return 1, nil }
	old, rival := "old", "rival"
	for c.Hashes(old, rival) < 2 {
		rival += "!"
	}
	for _, key := range []string{old, rival} {
		_, _ = c.Do(ctx, key, fn)
	}
	hotten(t, c, old)
	for range 100 {
		_, _ = c.Do(ctx, rival, fn)
	}
	require.Equal(t, []string{old}, c.HotKeys(), "not at once: two that meet would take turns, and allocate")
	for range 300 {
		_, _ = c.Do(ctx, rival, fn)
	}
	require.Equal(t, []string{rival}, c.HotKeys())
	require.NoError(t, c.CheckInvariants())
}

// hotRivals returns a cache of keys that are kept and share one slot of the hot table and one ballot.
func hotRivals(t *testing.T, keys ...string) *idemflight.Cache[string, int] {
	t.Cleanup(idemflight.LimitHash(8))
	t.Cleanup(idemflight.LimitShards(1))
	c := idemflight.MustNew(idemflight.Options[string, int]{})
	for c.Hashes(keys...) < len(keys) { // other seeds spread them otherwise
		c = idemflight.MustNew(idemflight.Options[string, int]{})
	}
	hotReplay(c, keys...) // makes them
	return c
}

func hotReplay(c *idemflight.Cache[string, int], keys ...string) {
	for _, key := range keys {
		_, _ = c.Do(context.Background(), key, func(context.Context) (int, error) { return 1, nil })
	}
}

// A key in the hot table is replayed without a lock, and counted all the same.
func TestHotKeysAreReplayedWithoutALock(t *testing.T) {
	c := hotRivals(t, "a")
	hotten(t, c, "a")
	before, all := c.HotReplays(), c.Stats().Replayed
	for range 100 {
		hotReplay(c, "a")
	}
	require.EqualValues(t, 100, c.HotReplays()-before)
	require.EqualValues(t, 100, c.Stats().Replayed-all)
}

// Who is replayed keeps the slot, however often a rival is.
func TestHotSlotStaysWithWhoIsReplayed(t *testing.T) {
	c := hotRivals(t, "a", "b")
	hotten(t, c, "a")
	for range 100 {
		for range 10 {
			hotReplay(c, "b")
		}
		hotReplay(c, "a")
	}
	require.Equal(t, []string{"a"}, c.HotKeys())
}

// The vote: who has more than half of the replays gets the slot, whoever led before; of keys that are
// replayed in turn, none does.
func TestHotSlotGoesToTheMajority(t *testing.T) {
	c := hotRivals(t, "a", "b")
	for range 6 {
		hotReplay(c, "a")
	}
	for range 30 {
		hotReplay(c, "b")
	}
	require.Equal(t, []string{"b"}, c.HotKeys(), "30 replays after 6 of another")

	c = hotRivals(t, "a", "b")
	for range 40 {
		hotReplay(c, "a", "a", "b")
	}
	require.Equal(t, []string{"a"}, c.HotKeys(), "two of three replays")

	c = hotRivals(t, "a", "b")
	for range 1000 {
		hotReplay(c, "a", "b")
	}
	require.Empty(t, c.HotKeys(), "half of the replays each")
}

// Who was deposed and is forgotten does not take the slot of the one that came after it.
func TestHotSlotStaysWhenAFormerKeyGoes(t *testing.T) {
	c := hotRivals(t, "a", "b")
	hotten(t, c, "a")
	for range 500 {
		hotReplay(c, "b")
	}
	require.Equal(t, []string{"b"}, c.HotKeys())
	require.True(t, c.Forget("a"))
	require.Equal(t, []string{"b"}, c.HotKeys())
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

// The first replay is no vote, and eight votes are enough: nine replays that take the shard's lock.
func TestHotSlotIsFilledAfterSoManyReplays(t *testing.T) {
	c := hotRivals(t, "a")
	for range 9 {
		hotReplay(c, "a")
	}
	require.Empty(t, c.HotKeys())
	hotReplay(c, "a")
	require.Equal(t, []string{"a"}, c.HotKeys())
}
