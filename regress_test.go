package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// Faults that the library once had, each under the name of its scenario.

// Restored records that had expired left a shard's edge behind that pointed to nothing, and a new
// key looked for room there for ever.
func TestRestoredRecordsThatExpiredLeaveNoTrace(t *testing.T) {
	for name, reclaim := range map[string]func(*idemflight.Cache[string, int]){
		"by the timer": func(*idemflight.Cache[string, int]) { time.Sleep(2 * time.Second); synctest.Wait() },
		"by Len":       func(c *idemflight.Cache[string, int]) { time.Sleep(20 * time.Millisecond); c.Len() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(idemflight.Options[string, int]{
					MaxEntries: 2, Protect: -1, MaxWeight: 10, Weigh: func(string, int) int64 { return 6 },
				})
				now := time.Now()
				for _, key := range []string{"a", "b"} {
					require.NoError(t, c.Restore(key, idemflight.Entry[int]{
						State: idemflight.Retained, CompletedAt: now.Add(-time.Minute), ExpiresAt: now.Add(10 * time.Millisecond),
					}))
				}
				reclaim(c)
				require.NoError(t, c.CheckInvariants())
				release := make(chan struct{})
				for _, key := range []string{"c", "d"} {
					go func() {
						_, _ = c.Do(bg, key, func(context.Context) (int, error) { <-release; return 1, nil })
					}()
				}
				synctest.Wait()
				_, err := c.Do(bg, "e", one)
				require.ErrorIs(t, err, idemflight.ErrFull)
				close(release) // both settle, though only one of them fits MaxWeight
				synctest.Wait()
				require.EqualValues(t, 6, c.Stats().Weight)
			})
		})
	}
}

// The leader told what it had evicted before it flew, and an Observer that then called the cache
// waited for a flight that waited for the Observer.
func TestObserverOfUpkeepMayWaitForTheFlight(t *testing.T) {
	for name, option := range map[string][]idemflight.CallOption{"leaving": nil, "inline": {idemflight.Inline()}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c *idemflight.Cache[string, int]
				var told int
				c = idemflight.MustNew(idemflight.Options[string, int]{
					TTL: time.Minute, MaxEntries: 1, Protect: -1,
					Observer: func(_ context.Context, e idemflight.Event[string]) {
						if e.Kind == idemflight.EventExpired || e.Kind == idemflight.EventEvicted {
							told++
							v, err := c.Do(bg, "b", one)
							require.NoError(t, err)
							require.Equal(t, 2, v, "the Observer joins the flight, or gets its outcome")
						}
					},
				})
				ctx, cancel := context.WithCancel(bg)
				defer cancel()
				_, err := c.Do(ctx, "a", one)
				require.NoError(t, err)
				v, err := c.Do(ctx, "b", func(context.Context) (int, error) { return 2, nil }, option...)
				require.NoError(t, err)
				require.Equal(t, 2, v)
				require.Equal(t, 1, told, "the eviction was told before the call returned")
			})
		})
	}
}

// BeginEffect answered nil between the count of the effects and the end of the context.
func TestBeginEffectIsRefusedOnceItIsNotCounted(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[int, int]{
		Classify: func(error) idemflight.Disposition { return idemflight.Release },
	})
	for i := 1; i <= 2000; i++ {
		begun := make(chan error, 1)
		var spinning atomic.Bool
		_, err := c.Do(bg, i, func(ctx context.Context) (int, error) {
			for range 50 { // contexts that take time to cancel
				_, cancel := context.WithCancel(ctx)
				defer func() { _ = cancel }()
			}
			go func() {
				spinning.Store(true)
				for range i % 500 {
					spinning.Load()
				}
				begun <- idemflight.BeginEffect(ctx)
			}()
			for !spinning.Load() {
				runtime.Gosched()
			}
			return 0, errors.New("failed")
		})
		if <-begun == nil {
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "an effect was allowed, so the key must be held")
		}
	}
}

// A scan for room that was overtaken found nothing, though there was always an outcome to evict.
func TestNoErrFullWhileThereIsSomethingToEvict(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: 8, Protect: -1})
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 10_000 {
				if _, err := c.Do(bg, 1+i*4+worker, one); err != nil {
					t.Errorf("a new key got %v with at most 4 of 8 places in flight", err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// An outcome that Weigh had kept from being put in stood in front of younger ones and hid from Protect.
func TestProtectFindsAnOutcomeThatASlowHookDelayed(t *testing.T) {
	defer idemflight.LimitShards(1)()
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[string, int]{
			Protect: 45 * time.Minute, MaxEntries: 2, MaxWeight: 100,
			Weigh: func(key string, _ int) int64 {
				if key == "slow" {
					time.Sleep(time.Hour)
				}
				return 1
			},
		})
		go func() { _, _ = c.Do(bg, "slow", one) }()
		time.Sleep(30 * time.Minute)
		_, err := c.Do(bg, "young", one)
		require.NoError(t, err)
		time.Sleep(31 * time.Minute)
		_, err = c.Do(bg, "new", one)
		require.NoError(t, err, "the slow one completed 61 minutes ago and gives its place")
		_, ok := c.Lookup("young")
		require.True(t, ok, "the young one is protected")
	})
}

// Each late record set the timer anew, half a second from then.
func TestLateRecordsDoNotPutReclaimingOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		gone := map[string]time.Duration{}
		var mu sync.Mutex
		slow := map[string]time.Duration{"b": 7400 * time.Millisecond, "c": 7850 * time.Millisecond}
		c := idemflight.MustNew(idemflight.Options[string, int]{
			MaxWeight: 100,
			Weigh:     func(key string, _ int) int64 { time.Sleep(slow[key]); return 1 },
			Observer: func(_ context.Context, e idemflight.Event[string]) {
				if e.Kind == idemflight.EventExpired {
					mu.Lock()
					defer mu.Unlock()
					gone[e.Key] = time.Since(start)
				}
			},
		})
		_, _ = c.Do(bg, "a", one, idemflight.WithTTL(8*time.Second))
		time.Sleep(time.Second)
		go func() { _, _ = c.Do(bg, "b", one, idemflight.WithTTL(6900*time.Millisecond)) }()
		go func() { _, _ = c.Do(bg, "c", one, idemflight.WithTTL(6800*time.Millisecond)) }()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		require.LessOrEqual(t, gone["a"], 9*time.Second, "a expired at 8 s and must be gone a second later: %v", gone)
	})
}

// Forget of the last key stopped the timer that a key put in meanwhile relied on.
func TestForgettingTheLastKeyLeavesTheTimerToTheNext(t *testing.T) {
	for range 300 {
		synctest.Test(t, func(t *testing.T) {
			var expired atomic.Int32
			c := idemflight.MustNew(idemflight.Options[string, int]{
				TTL: time.Minute,
				Observer: func(_ context.Context, e idemflight.Event[string]) {
					if e.Kind == idemflight.EventExpired {
						expired.Add(1)
					}
				},
			})
			_, _ = c.Do(bg, "a", one)
			time.Sleep(time.Second)
			go func() { _, _ = c.Do(bg, "b", one) }()
			go c.Forget("a")
			time.Sleep(time.Hour)
			synctest.Wait()
			require.EqualValues(t, 1, expired.Load(), "b is reclaimed without further calls")
			require.Zero(t, c.Len())
		})
	}
}

// timeoutTree is a timeout that joins nothing.
type timeoutTree struct{ parts []error }

func (timeoutTree) Error() string     { return "timeout" }
func (timeoutTree) Timeout() bool     { return true }
func (e timeoutTree) Unwrap() []error { return e.parts }

func TestATimeoutThatJoinsNothingIsAmbiguous(t *testing.T) {
	require.Equal(t, idemflight.Hold, idemflight.ClassifyDefault(timeoutTree{}))
	require.Equal(t, idemflight.Hold, idemflight.ClassifyDefault(timeoutTree{[]error{nil}}))
	require.Equal(t, idemflight.Hold, idemflight.ClassifyDefault(timeoutTree{[]error{errors.New("plain")}}))
}

// endedContext is a context of the user's own with an error of its own.
type endedContext struct {
	context.Context
	done chan struct{}
	err  error
}

func (c endedContext) Done() <-chan struct{} { return c.done }
func (c endedContext) Err() error            { return c.err }

func TestAMarkerInAContextsErrDoesNotLeak(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[string, int]{})
	ended := endedContext{bg, make(chan struct{}), idemflight.Final(errors.New("gone"))}
	close(ended.done)
	runs := 0
	for range 2 {
		_, err := c.Do(bg, "outer", func(context.Context) (int, error) {
			runs++
			return c.Do(ended, "inner", one)
		})
		require.ErrorIs(t, err, idemflight.ErrLeft)
	}
	require.Equal(t, 2, runs, "ErrLeft of the inner call releases the outer key")
}

func TestAnInterfaceKeyThatHoldsAKeyWithoutScopeIsInvalid(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[any, int]{})
	_, err := c.Do(bg, idemflight.Key{ID: "1"}, one)
	require.ErrorIs(t, err, idemflight.ErrInvalidKey)
	_, err = c.Do(bg, idemflight.Key{Scope: "s", ID: "1"}, one)
	require.NoError(t, err)
}

// Without a String method fmt read the fields of fn's context, below its lock.
func TestFnsContextCanBePrinted(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[string, int]{})
	var wg sync.WaitGroup
	_, _ = c.Do(bg, "k", func(ctx context.Context) (int, error) {
		wg.Go(func() { _, cancel := context.WithCancel(ctx); cancel() })
		require.NotEmpty(t, fmt.Sprintf("%v %+v", ctx, ctx))
		return 1, nil
	})
	wg.Wait()
}

// A record that had expired before it was put in, Weigh having taken longer than its TTL, set the
// timer for 292 years: nothing was reclaimed after it. Found by the explorer, scenario expiry-keys/2.
func TestTimerOutlivesARecordThatComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var expired atomic.Int64
		c := idemflight.MustNew(idemflight.Options[string, int]{TTL: time.Minute, MaxWeight: 10,
			Weigh: func(key string, _ int) int64 {
				if key == "late" {
					time.Sleep(2 * time.Minute)
				}
				return 1
			},
			Observer: func(_ context.Context, e idemflight.Event[string]) {
				if e.Kind == idemflight.EventExpired {
					expired.Add(1)
				}
			}})
		for n, key := range []string{"late", "other"} {
			_, err := c.Do(context.Background(), key, func(context.Context) (int, error) { return 1, nil })
			require.NoError(t, err)
			time.Sleep(time.Hour)
			require.EqualValues(t, n+1, expired.Load(), "%s must have been reclaimed by the timer", key)
		}
	})
}

// Of an execution longer than 4 s, leader and replay were told wall times some nanoseconds apart: the
// wall and the monotonic clock are not read at one instant.
func TestSlowExecutionHasTheSameTimesForAll(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[string, int]{})
	for range 1000 {
		kept, told := c.TimesOfSlow("k")
		require.Equal(t, told, kept)
	}
}

// At the very deadline fn's context has ended by it, also for who first looks when fn has returned.
func TestExecTimeoutReachedExactlyIsADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[string, int]{ExecTimeout: time.Second})
		var fnCtx context.Context
		_, err := c.Do(context.Background(), "k", func(ctx context.Context) (int, error) {
			fnCtx = ctx
			time.Sleep(time.Second)
			return 1, nil
		})
		require.NoError(t, err)
		require.Equal(t, context.DeadlineExceeded, fnCtx.Err())
	})
}

// Once the wall clock had been set, every record was a full one, for as long as the process lived; and
// what had been kept before told Restore an outdated ExpiresAt.
func TestSettingTheWallClockMovesWhatIsToldAndNothingElse(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[string, int]{TTL: time.Hour})
	do := func(key string) idemflight.Result[int] {
		res, err := c.DoResult(context.Background(), key, func(context.Context) (int, error) { return 1, nil })
		require.NoError(t, err)
		return res
	}
	do("before")
	for n, seconds := range []int{7200, -14400, 120} {
		c.SetWallClock(seconds)
		res := do("after " + strconv.Itoa(n))
		now := time.Now().Round(0)
		require.WithinDuration(t, now, res.CompletedAt.Round(0), time.Minute, "the clock set by %d s", seconds)
		require.WithinDuration(t, now.Add(time.Hour), res.ExpiresAt.Round(0), time.Minute)
		e, _ := c.Lookup("before")
		require.WithinDuration(t, now.Add(time.Hour), e.ExpiresAt.Round(0), time.Minute, "what Restore would be given")
		require.Equal(t, n+2, c.Small(), "small records")
		require.Equal(t, idemflight.Replayed, do("before").Source, "the deadline must not have moved")
	}
}
