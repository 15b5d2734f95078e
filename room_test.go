package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// The number of shards goes by the cores and by the size, so that the tables of a full cache are full.
func TestNumberOfShards(t *testing.T) {
	if os.Getenv("IDEMFLIGHT_SHARDS") != "" {
		t.Skip("another number is asked for")
	}
	for _, tt := range []struct{ cores, maxEntries, want int }{
		{1, 1, 1},
		{1, 3, 3},
		{1, 1_000, 4},
		{2, 1_000, 8},
		{1, 20_000, 19},
		{1, 60_000, 58},
		{1, 65_536, 81},
		{1, 102_399, 127},
		{1, 102_400, 64},
		{1, 1 << 30, 81},
		{24, 65_536, 96},
		{24, 90_000, 112},
		{24, 1 << 30, 128},
		{64, 1 << 20, 128},
		{64, 100, 100},
	} {
		before := runtime.GOMAXPROCS(tt.cores)
		c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: tt.maxEntries})
		runtime.GOMAXPROCS(before)
		require.Equal(t, tt.want, c.Shards(), "%d entries, %d cores", tt.maxEntries, tt.cores)
	}
}

// Where the clock stands still, numbers tell what came before the search for room: the replayed ones
// get their second chance.
func TestPromise19_ASecondChanceWithinOneInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{MaxEntries: 2, Protect: -1})
		executes(t, c, "a", 1)
		replays(t, c, "a")
		executes(t, c, "b", 1)
		executes(t, c, "c", 1)
		requireState(t, c, idemflight.Retained, "a", "c")
	})
}

// A value that is shed leaves its key to be evicted when its turn comes, not before: also its second
// chance stays.
func TestPromise19_AShedOutcomeKeepsItsSecondChance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(weighted(options{MaxEntries: 4, Protect: -1}))
		executes(t, c, "a", 6)
		executes(t, c, "b", 0)
		replays(t, c, "a")
		executes(t, c, "x", 7) // a has to go for it
		requireState(t, c, idemflight.Shed, "a")
		executes(t, c, "c", 0)
		executes(t, c, "d", 0) // one too many
		requireState(t, c, idemflight.Shed, "a")
		_, ok := c.Lookup("b")
		require.False(t, ok, "b was never replayed")
	})
}

// A replay saves a value once.
func TestPromise20_ASecondChanceIsUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(weighted(options{}))
		executes(t, c, "a", 5)
		executes(t, c, "b", 5)
		replays(t, c, "a")
		executes(t, c, "c", 5)
		requireState(t, c, idemflight.Shed, "b")
		executes(t, c, "d", 5)
		requireState(t, c, idemflight.Shed, "a")
		requireState(t, c, idemflight.Retained, "c", "d")
	})
}

// Before a value is shed, what has expired goes.
func TestPromise20_TheExpiredGoFirst(t *testing.T) {
	defer idemflight.LimitShards(1)()
	synctest.Test(t, func(t *testing.T) {
		c, log := shedding(options{TTL: time.Minute})
		executes(t, c, "a", 5, idemflight.WithTTL(time.Second))
		executes(t, c, "b", 5)
		time.Sleep(time.Second)
		executes(t, c, "c", 5)
		require.Equal(t, []string{"a"}, log.keys(idemflight.EventExpired))
		requireState(t, c, idemflight.Retained, "b", "c")
	})
}

// What has expired makes room also if another call drops it between the look and the lock: nothing is
// evicted for a place that is free.
func TestPromise18_ThePlaceOfWhatExpiredIsThereWhoeverDropsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{MaxEntries: 2, Protect: -1})
		executes(t, c, "kept", 1)
		executes(t, c, "expires", 1, idemflight.WithTTL(time.Second))
		time.Sleep(time.Second)
		dropped := false
		onYield(t, func(point string) {
			if point == "reclaim" && !dropped {
				dropped = true
				require.False(t, c.Forget("expires"))
			}
		})
		executes(t, c, "new", 1)
		require.True(t, dropped, "the seam")
		_, ok := c.Lookup("kept")
		require.True(t, ok)
		require.Zero(t, c.Stats().Evicted)
	})
}

// Outcomes of one instant are small records, as those of different ones are.
func TestOutcomesOfOneInstantAreSmall(t *testing.T) {
	defer idemflight.LimitShards(1)()
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		for i := range 10 {
			executes(t, c, keyNo(i), i)
		}
		require.Equal(t, 10, c.Small())
	})
}

// An outcome that comes between a call's first look and its next is a replay like any: with the error
// that is kept, told as one, and it saves the outcome from the next eviction.
func TestAnOutcomeThatComesBetweenTwoLooksIsReplayed(t *testing.T) {
	for name, ends := range map[string]error{"value": nil, "final": errBoom} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &eventLog[string]{}
				c := idemflight.MustNew(options{MaxEntries: 2, Protect: -1, Observer: log.observe})
				came := false
				onYield(t, func(point string) {
					if point == "meet" && !came {
						came = true
						_, err := c.Do(bg, "k", func(context.Context) (int, error) { return 1, idemflight.Final(ends) })
						require.ErrorIs(t, err, ends)
					}
				})
				v, err := c.Do(bg, "k", neverRuns(t))
				require.True(t, came, "the seam")
				require.Equal(t, 1, v)
				require.True(t, err == ends, "the error that is kept, got %v", err)
				require.Equal(t, []string{"k"}, log.keys(idemflight.EventReplayed))
				require.EqualValues(t, 1, c.Stats().Replayed)
				executes(t, c, "b", 1)
				executes(t, c, "c", 1)
				_, ok := c.Lookup("k")
				require.True(t, ok, "k was replayed, b was not")
			})
		})
	}
}

// A call that has evicted another key for its own, and finds that held when it comes back, asks
// Reconcile: the eviction is told all the same.
func TestPromise19_AnEvictionForAKeyThatIsHeldMeanwhileIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(options{MaxEntries: 1, Protect: -1, Observer: log.observe,
			Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) { return 7, nil }})
		executes(t, c, "a", 1)
		meets, came := 0, false
		onYield(t, func(point string) {
			if point != "meet" || came {
				return
			}
			if meets++; meets == 2 { // of k: there is room now
				came = true
				hold(t, c, "k")
			}
		})
		r, err := c.DoResult(bg, "k", neverRuns(t))
		require.NoError(t, err)
		require.True(t, came, "the seam")
		require.Equal(t, idemflight.Reconciled, r.Source)
		require.Equal(t, []string{"a"}, log.keys(idemflight.EventEvicted))
	})
}

// A leader that leaves, and one whose Reconcile learned nothing, are told how long they waited.
func TestWhoLedIsToldHowLongItTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var took [idemflight.EventPanicked + 1]time.Duration
		c := idemflight.MustNew(options{
			Observer: func(_ context.Context, e idemflight.Event[string]) { took[e.Kind] = e.Took },
			Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
				time.Sleep(3 * time.Second)
				return 0, idemflight.Unknown(errBoom)
			},
		})
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(bg, 2*time.Second)
		defer cancel()
		_, err := c.Do(ctx, "k", func(context.Context) (int, error) { time.Sleep(time.Hour); return 0, idemflight.Unknown(errBoom) })
		require.ErrorIs(t, err, idemflight.ErrLeft)
		require.Equal(t, 2*time.Second, took[idemflight.EventLeft])
		time.Sleep(time.Hour)
		_, err = c.Do(bg, "k", neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.Equal(t, 3*time.Second, took[idemflight.EventRejected])
	})
}

// panickingContext panics when it is asked.
type panickingContext struct {
	context.Context
	ask string
}

func (c panickingContext) Err() error {
	if c.ask == "Err" {
		panic("bad context")
	}
	return c.Context.Err()
}

func (c panickingContext) Value(key any) any {
	if c.ask == "Value" {
		panic("bad context")
	}
	return c.Context.Value(key)
}

// A context that panics takes its caller with it, and no other: nobody is counted as waiting for ever.
func TestAContextThatPanicsLeavesTheFlight(t *testing.T) {
	for _, ask := range []string{"Err", "Value"} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{})
			end := fly(t, c, "k")
			require.Equal(t, "bad context", panicOf(func() { _, _ = c.Do(panickingContext{bg, ask}, "k", neverRuns(t)) }))
			require.Zero(t, c.Stats().Waiters, ask)
			_, err := end(1, nil)
			require.NoError(t, err)
			require.Equal(t, 1, replays(t, c, "k"))
			require.NoError(t, c.CheckInvariants())
		})
	}
}

// The timer

// Flights that end after Close leave their outcomes to be replayed, and no timer.
func TestPromise24_NoTimerIsSetAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fired atomic.Int64
		onYield(t, func(point string) {
			if point == "fired" {
				fired.Add(1)
			}
		})
		c := idemflight.MustNew(options{TTL: time.Minute})
		end := fly(t, c, "k")
		require.Error(t, c.Close(dead(context.Canceled)))
		_, err := end(1, nil)
		require.NoError(t, err)
		require.Equal(t, 1, replays(t, c, "k"))
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Zero(t, fired.Load())
		require.Zero(t, c.Len())
	})
}

// What expires within half a second goes at once, the last of it at its very deadline: in batches, and
// the timer wakes the process no more often than that.
func TestPromise17_OneTimerForAllThatExpireMeanwhile(t *testing.T) {
	defer idemflight.LimitShards(1)()
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		var fired, reclaims atomic.Int64
		onYield(t, func(point string) {
			switch point {
			case "fired":
				fired.Add(1)
			case "reclaim":
				reclaims.Add(1)
			}
		})
		c := idemflight.MustNew(idemflight.Options[int, int]{TTL: time.Minute})
		for i := range n {
			_, err := c.Do(bg, i+1, returns(i, nil))
			require.NoError(t, err)
			if i == n-2 {
				time.Sleep(time.Second / 2)
			}
		}
		time.Sleep(time.Minute) // the deadline of the last
		synctest.Wait()
		require.EqualValues(t, 1, fired.Load())
		require.EqualValues(t, 4, reclaims.Load(), "batches of 256")
		require.Zero(t, c.Len())
		time.Sleep(time.Hour)
		require.EqualValues(t, 1, fired.Load())
	})
}

// disarm stops the timer of an empty cache. A record that comes right before it does, and was content
// with when the timer was set to fire, is reclaimed all the same.
func TestPromise17_ARecordThatComesWhileTheTimerIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(options{TTL: time.Hour, Observer: log.observe})
		var came atomic.Int64
		onYield(t, func(point string) {
			if point == "disarm: stop" && came.Add(1) == 1 {
				executes(t, c, "b", 1, idemflight.WithTTL(2*time.Hour))
			}
		})
		executes(t, c, "a", 1)
		require.True(t, c.Forget("a"))
		require.EqualValues(t, 1, came.Load(), "the seam")
		time.Sleep(2*time.Hour + time.Second)
		synctest.Wait()
		require.Equal(t, []string{"b"}, log.keys(idemflight.EventExpired))
	})
}

// The timer fires and sets itself for what expires next. If that goes right then, it stays empty.
func TestPromise17_ARecordThatGoesWhileTheTimerIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{TTL: time.Hour})
		var fired, went atomic.Int64
		onYield(t, func(point string) {
			switch point {
			case "fired":
				fired.Add(1)
			case "arm":
				if fired.Load() == 1 && went.Add(1) == 1 {
					c.Forget("b")
				}
			}
		})
		executes(t, c, "a", 1, idemflight.WithTTL(time.Minute))
		executes(t, c, "b", 1)
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		require.Positive(t, went.Load(), "the seam")
		require.Zero(t, c.Len())
		require.EqualValues(t, 1, fired.Load())
	})
}

// Restore

// Room that comes while Restore looks for it is found, as it is by Do.
func TestPromise24_RestoreFindsRoomThatHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{MaxEntries: 2, Protect: -1})
		require.NoError(t, c.Restore("held", idemflight.Entry[int]{State: idemflight.Held}))
		end := fly(t, c, "other")
		looks := 0
		onYield(t, func(point string) {
			if point == "restore" {
				if looks++; looks == 2 { // after the search, which found nothing that may go
					_, err := end(1, nil)
					require.NoError(t, err)
				}
			}
		})
		require.NoError(t, c.Restore("k", retainedEntry(7, time.Now().Add(time.Hour))))
		require.GreaterOrEqual(t, looks, 2, "the seam")
		require.Equal(t, 7, replays(t, c, "k"))
	})
}

// panickingError panics when it is looked into.
type panickingError struct{}

func (panickingError) Error() string { return "bad error" }
func (panickingError) Unwrap() error { panic("bad error") }

func TestPromise24_RestoreTellsTimesAndErrorsAsTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{HoldTTL: time.Hour})
		start := time.Now()
		time.Sleep(time.Minute)
		require.ErrorContains(t, c.Restore("late", retainedEntry(1, start)), "expired 1m0s ago")

		require.NoError(t, c.Restore("k", idemflight.Entry[int]{State: idemflight.InFlight, StartedAt: start}))
		e, ok := c.Lookup("k")
		require.True(t, ok)
		require.Equal(t, [3]time.Duration{0, time.Minute, 61 * time.Minute},
			[3]time.Duration{e.StartedAt.Sub(start), e.CompletedAt.Sub(start), e.ExpiresAt.Sub(start)}, "interrupted now, and held from now on")

		bad := fmt.Errorf("kept: %w", panickingError{})
		require.NoError(t, c.Restore("bad", idemflight.Entry[int]{State: idemflight.Held, Err: bad}))
		e, _ = c.Lookup("bad")
		require.Error(t, e.Err, "an error that cannot be looked into is kept all the same")
		require.Equal(t, bad.Error(), e.Err.Error())
		_, err := c.Do(bg, "bad", neverRuns(t))
		require.True(t, errors.Is(err, idemflight.ErrOutcomeUnknown), "%v", err)
	})
}

// What is shed first is known across shards, also when the value that was first has just gone and was
// first in nothing else.
func TestPromise20_TheNextValueIsKnownWhenTheFirstIsForgotten(t *testing.T) {
	defer idemflight.LimitShards(1)()
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(weighted(options{}))
		executes(t, c, "a", 0)
		time.Sleep(time.Second)
		executes(t, c, "b", 5)
		time.Sleep(time.Second)
		executes(t, c, "c", 5)
		require.True(t, c.Forget("b"))
		require.NoError(t, c.CheckInvariants())
	})
}
