package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/idemflight/idemflight"
)

var (
	flBoom  = errors.New("boom")
	flCause = errors.New("the caller had enough")
)

// flMeddling is all that can happen to a key, or to its cache, while an execution of the key runs.
// leave ends the context of the leader.
var flMeddling = []struct {
	name string
	do   func(t *testing.T, c *flCache, leave func())
}{
	{"forgotten", func(t *testing.T, c *flCache, _ func()) {
		require.True(t, c.Forget(flKey), "Forget of a key in flight")
		require.True(t, c.Forget(flKey), "and again: it is still in flight")
	}},
	{"evicted", func(t *testing.T, c *flCache, _ func()) {
		for i := range 100 { // MaxEntries is 8
			_, err := c.Do(context.Background(), "other "+strconv.Itoa(i), flReturns(i, nil))
			if !errors.Is(err, idemflight.ErrClosed) { // by an earlier meddler
				require.NoError(t, err, "an outcome that is kept makes room, not the flight")
			}
		}
	}},
	{"expired", func(*testing.T, *flCache, func()) { time.Sleep(time.Hour) }}, // every duration of the cache is below
	{"left", func(_ *testing.T, _ *flCache, leave func()) {
		leave()
		synctest.Wait()
	}},
	{"resolved", func(t *testing.T, c *flCache, _ func()) {
		for _, err := range []error{nil, idemflight.Final(flBoom), idemflight.Retryable(flBoom), flBoom} {
			require.False(t, c.Resolve(flKey, 7, err), "Resolve(%v) acts on held keys only, and this one is in flight", err)
		}
	}},
	{"restored", func(t *testing.T, c *flCache, _ func()) {
		for _, state := range []idemflight.State{idemflight.InFlight, idemflight.Retained, idemflight.Held, idemflight.Shed} {
			now := time.Now()
			require.Error(t, c.Restore(flKey, idemflight.Entry[int]{
				State: state, Value: 7, StartedAt: now.Add(-1), CompletedAt: now, ExpiresAt: now.Add(time.Hour),
			}), "Restore(%v) wants an absent key, and this one is in flight", state)
		}
	}},
	{"closed", func(t *testing.T, c *flCache, _ func()) {
		require.ErrorIs(t, c.Close(flCancelled(flCause)), flCause, "Close waits for the flight until its context ends")
		_, err := c.Do(context.Background(), "new", flNever[int](t))
		require.ErrorIs(t, err, idemflight.ErrClosed, "a new execution after Close")
	}},
}

// flMeddle runs test once for everything that can happen meanwhile, and once for all of it.
func flMeddle(t *testing.T, test func(t *testing.T, meddle func(t *testing.T, c *flCache, leave func()))) {
	for _, m := range flMeddling {
		t.Run(m.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, m.do) })
		})
	}
	t.Run("all of it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			test(t, func(t *testing.T, c *flCache, leave func()) {
				for _, m := range flMeddling {
					m.do(t, c, leave)
				}
			})
		})
	})
}

func TestPromise01_AtMostOneExecutionPerKeyWhateverHappensMeanwhile(t *testing.T) {
	flMeddle(t, func(t *testing.T, meddle func(*testing.T, *flCache, func())) {
		c := idemflight.MustNew(flOptions{TTL: time.Minute, ExecTimeout: time.Second, MaxEntries: 8, Protect: -1})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		work := flNewWork(t)
		leader := flGo(c, ctx, flKey, work.returns(1, nil))
		synctest.Wait()

		meddle(t, c, cancel)
		e, ok := c.Lookup(flKey)
		require.True(t, ok, "the key is still known")
		require.Equal(t, idemflight.InFlight, e.State, "the key is still in flight")

		second := flGo(c, context.Background(), flKey, work.returns(2, nil))
		third := flGo(c, t.Context(), flKey, work.returns(3, nil), idemflight.Inline())
		synctest.Wait()
		require.EqualValues(t, 1, work.runs.Load(), "callers that arrive before the flight ends join it, whatever happened meanwhile")
		require.False(t, second.returned(), "a joined caller waits for the outcome")
		work.open()
		synctest.Wait()
		second.got(t, idemflight.Joined, 1)
		third.got(t, idemflight.Joined, 1)
		require.True(t, leader.returned(), "the leader is not stranded")
		require.EqualValues(t, 1, work.peak.Load(), "executions of one key at a time")
	})
}

func TestPromise01_ReconcileCountsAsAnExecution(t *testing.T) {
	// Reconcile finds that it did not take place, and fn runs in the same flight: the key is
	// meddled with in both of its executions.
	flMeddle(t, func(t *testing.T, meddle func(*testing.T, *flCache, func())) {
		asking, working := flNewWork(t), flNewWork(t)
		c := idemflight.MustNew(flOptions{TTL: time.Minute, ExecTimeout: time.Second, MaxEntries: 8, Protect: -1,
			Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
				return asking.returns(0, idemflight.Retryable(flBoom))(ctx)
			}})
		_, err := c.Do(context.Background(), flKey, flReturns(0, idemflight.Unknown(flBoom)))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "the key is held")

		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		leader := flGo(c, ctx, flKey, working.returns(1, nil))
		synctest.Wait()
		require.EqualValues(t, 1, asking.running.Load(), "Reconcile runs when a call meets a held key")
		meddle(t, c, cancel)
		second := flGo(c, context.Background(), flKey, working.returns(2, nil))
		synctest.Wait()
		require.EqualValues(t, 1, asking.runs.Load(), "a caller that comes while Reconcile runs joins")
		require.Zero(t, working.runs.Load(), "fn does not run beside Reconcile")

		asking.open()
		synctest.Wait()
		require.EqualValues(t, 1, working.running.Load(), "fn runs once Reconcile found that nothing took place")
		meddle(t, c, cancel)
		third := flGo(c, context.Background(), flKey, working.returns(3, nil))
		synctest.Wait()
		require.EqualValues(t, 1, asking.runs.Load(), "Reconcile does not run beside fn")
		require.EqualValues(t, 1, working.runs.Load(), "fn does not run beside itself")

		working.open()
		synctest.Wait()
		require.True(t, leader.returned(), "the leader is not stranded")
		second.got(t, idemflight.Joined, 1)
		third.got(t, idemflight.Joined, 1)
		require.EqualValues(t, 1, asking.runs.Load(), "runs of Reconcile")
		require.EqualValues(t, 1, working.runs.Load(), "runs of fn")
	})
}

func TestPromise01_OtherKeysAreNotHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(flOptions{})
		work := flNewWork(t)
		for i := range 100 {
			flGo(c, t.Context(), strconv.Itoa(i), work.returns(i, nil))
		}
		synctest.Wait()
		require.EqualValues(t, 100, work.running.Load(), "executions of different keys run beside each other")
		require.Equal(t, 100, c.Stats().InFlight, "Stats.InFlight")
		work.open()
	})
}

func TestPromise02_WhileAnOutcomeIsKeptFnDoesNotRun(t *testing.T) {
	for name, kept := range map[string]struct {
		fn     flFn
		source idemflight.Source
		want   error
		state  idemflight.State
	}{
		"success":         {flReturns(1, nil), idemflight.Replayed, nil, idemflight.Retained},
		"zero value":      {flReturns(0, nil), idemflight.Replayed, nil, idemflight.Retained},
		"final":           {flReturns(1, idemflight.Final(flBoom)), idemflight.Replayed, flBoom, idemflight.Retained},
		"unknown":         {flReturns(1, idemflight.Unknown(flBoom)), idemflight.Replayed, idemflight.ErrOutcomeUnknown, idemflight.Held},
		"panic":           {func(context.Context) (int, error) { panic(flBoom) }, idemflight.Replayed, idemflight.ErrOutcomeUnknown, idemflight.Held},
		"Goexit":          {flGoexits, idemflight.Replayed, idemflight.ErrOutcomeUnknown, idemflight.Held},
		"too heavy: shed": {flReturns(1000, nil), idemflight.None, idemflight.ErrValueShed, idemflight.Shed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(flOptions{TTL: time.Minute, MaxWeight: 10, Weigh: func(_ string, v int) int64 { return int64(v) }})
				flGo(c, t.Context(), flKey, kept.fn)
				synctest.Wait()
				for i, opts := range [][]idemflight.CallOption{
					nil, {idemflight.Inline()}, {idemflight.WithMaxWait(idemflight.NoWait)}, {idemflight.WithTTL(0)}, {idemflight.WithTTL(time.Nanosecond)}, nil,
				} {
					for _, ctx := range []context.Context{context.Background(), t.Context(), flCancelled(flCause)} {
						_, err := c.Do(ctx, flKey, flNever[int](t), opts...)
						if kept.want == nil {
							require.NoError(t, err, "call %d after a success", i)
						} else {
							require.ErrorIs(t, err, kept.want, "call %d", i)
						}
						e, ok := c.Lookup(flKey)
						require.True(t, ok, "still kept after call %d", i)
						require.Equal(t, kept.state, e.State, "state after call %d", i)
					}
					time.Sleep(9 * time.Second) // 54 s in all
				}
			})
		})
	}
}

func TestPromise02_WhoHasTheOutcomeAndCallsAgainGetsAReplay(t *testing.T) {
	// Every caller of a flight calls again at once, the moment it has its answer: by then the
	// outcome must be kept.
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			var c *flCache
			c = idemflight.MustNew(flOptions{Observer: func(_ context.Context, ev idemflight.Event[string]) {
				e, ok := c.Lookup(flKey)
				if !ok || e.State != idemflight.Retained {
					t.Errorf("an observer that is told of %v must find the outcome kept, found %v", ev.Kind, e.State)
				}
			}})
			work := flNewWork(t)
			var calls sync.WaitGroup
			for i := range 10 {
				calls.Go(func() {
					ctx := t.Context()
					if i%2 == 0 {
						ctx = context.Background()
					}
					if v, err := c.Do(ctx, flKey, work.returns(1, nil)); v != 1 || err != nil {
						t.Errorf("a caller of the flight got (%v, %v), want (1, nil)", v, err)
					}
					if r, err := c.DoResult(ctx, flKey, flNever[int](t)); r.Value != 1 || r.Source != idemflight.Replayed || err != nil {
						t.Errorf("the second call got (%v, %v), want 1, Replayed", r, err)
					}
				})
			}
			synctest.Wait()
			work.open()
			calls.Wait()
			require.EqualValues(t, 1, work.runs.Load(), "runs of fn")
		})
	}
}

func TestPromise02_TheKeyIsInFlightWhileItsOutcomeIsJudged(t *testing.T) {
	for name, end := range map[string]error{"success": nil, "error": flBoom, "panic": nil, "final": idemflight.Final(flBoom)} {
		t.Run(name, func(t *testing.T) {
			flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				var c *flCache
				asked := 0
				look := func(hook string) {
					asked++
					e, ok := c.Lookup(flKey)
					require.True(t, ok, "%s is asked while the key is in flight", hook)
					require.Equal(t, idemflight.InFlight, e.State, "%s is asked while the key is in flight", hook)
					_, err := c.Do(context.Background(), flKey, flNever[int](t), idemflight.WithMaxWait(idemflight.NoWait))
					require.ErrorIs(t, err, idemflight.ErrInFlight, "%s is asked while the key is in flight", hook)
				}
				c = idemflight.MustNew(flOptions{
					MaxWeight: 10, Weigh: func(string, int) int64 { look("Weigh"); return 1 },
					Classify: func(error) idemflight.Disposition { look("Classify"); return idemflight.Retain },
				})
				call := flGo(c, ctx, flKey, func(context.Context) (int, error) {
					if name == "panic" {
						panic(flBoom)
					}
					return 1, end
				}, opts...)
				synctest.Wait()
				require.True(t, call.returned())
				require.NotZero(t, asked, "a hook must have been asked")
				e, ok := c.Lookup(flKey)
				require.True(t, ok)
				require.Equal(t, idemflight.Retained, e.State)
			})
		})
	}
}

func TestPromise02_WhatIsReleasedRunsAgainOncePerCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(flOptions{})
		runs := 0
		for range 5 {
			_, err := c.Do(t.Context(), flKey, func(context.Context) (int, error) { runs++; return 0, idemflight.Retryable(flBoom) })
			require.ErrorIs(t, err, flBoom)
		}
		require.Equal(t, 5, runs, "a retryable error keeps nothing, and each call runs fn once")
	})
}

// flAllMethods calls every method of c, from inside an execution of flKey.
func flAllMethods(t *testing.T, c *flCache, ctx context.Context) {
	if _, err := c.Do(ctx, flKey, flNever[int](t)); !errors.Is(err, idemflight.ErrReentrant) {
		t.Errorf("Do for the key itself: want ErrReentrant, got %v", err)
	}
	if e, ok := c.Lookup(flKey); !ok || e.State != idemflight.InFlight {
		t.Errorf("Lookup of the key itself: want it in flight, got %v, %v", e.State, ok)
	}
	seen := false
	for k := range c.All() {
		seen = seen || k == flKey
		c.Len()
	}
	if !seen {
		t.Error("All must show the key that is in flight")
	}
	if s := c.Stats(); s.InFlight == 0 {
		t.Error("Stats must show the key that is in flight")
	}
	c.Len()
	c.Forget("nobody")
	c.Resolve(flKey, 1, nil)
	_ = c.Restore("restored", idemflight.Entry[int]{State: idemflight.Retained, CompletedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)})
}

func TestPromise03_FnRunsWithNoLockHeld(t *testing.T) {
	for name, ctx := range map[string]context.Context{"own goroutine": context.Background(), "other goroutine": t.Context()} {
		for _, opts := range [][]idemflight.CallOption{nil, {idemflight.Inline()}} {
			t.Run(fmt.Sprintf("%s, %d options", name, len(opts)), func(t *testing.T) {
				var c *flCache
				c = idemflight.MustNew(flOptions{
					Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
						flAllMethods(t, c, ctx)
						return 0, idemflight.Retryable(flBoom)
					}})
				call := flGo(c, ctx, flKey, func(ctx context.Context) (int, error) {
					flAllMethods(t, c, ctx)
					return 0, idemflight.Unknown(flBoom)
				}, opts...)
				flSoon(t, call.done, "fn that calls every method")
				require.ErrorIs(t, call.err, idemflight.ErrOutcomeUnknown, "the key is held")

				call = flGo(c, ctx, flKey, func(ctx context.Context) (int, error) {
					flAllMethods(t, c, ctx)
					c.Forget(flKey)
					if err := c.Close(ctx); !errors.Is(err, idemflight.ErrReentrant) {
						t.Errorf("Close from inside an execution: want ErrReentrant, got %v", err)
					}
					return 1, nil
				}, opts...)
				flSoon(t, call.done, "Reconcile and fn that call every method")
				require.NoError(t, call.err)
				require.Equal(t, 1, call.res.Value)
			})
		}
	}
}

func TestPromise03_FnMayCallDoForOtherKeysOfAnyShard(t *testing.T) {
	for name, ctx := range map[string]context.Context{"own goroutine": context.Background(), "other goroutine": t.Context()} {
		t.Run(name, func(t *testing.T) {
			c := idemflight.MustNew(flOptions{})
			call := flGo(c, ctx, flKey, func(ctx context.Context) (int, error) {
				for i := range 2000 {
					if v, err := c.Do(ctx, strconv.Itoa(i), flReturns(i, nil)); v != i || err != nil {
						return 0, fmt.Errorf("inner call %d got (%d, %w)", i, v, err)
					}
				}
				return 1, nil
			})
			flSoon(t, call.done, "fn that calls Do for 2000 keys")
			call.got(t, idemflight.Executed, 1)

			var down func(ctx context.Context, depth int) (int, error)
			down = func(ctx context.Context, depth int) (int, error) {
				if depth == 200 {
					return depth, nil
				}
				return c.Do(ctx, "depth "+strconv.Itoa(depth), func(ctx context.Context) (int, error) { return down(ctx, depth+1) })
			}
			call = flGo(c, ctx, "top", func(ctx context.Context) (int, error) { return down(ctx, 0) })
			flSoon(t, call.done, "200 executions inside each other")
			call.got(t, idemflight.Executed, 200)
		})
	}
}

func TestPromise03_NobodyElseWaitsForALockWhileFnRuns(t *testing.T) {
	c := idemflight.MustNew(flOptions{})
	work := flNewWork(t)
	leader := flGo(c, t.Context(), flKey, work.returns(1, nil))
	joined := flGo(c, t.Context(), flKey, work.returns(2, nil))
	own := flGo(c, context.Background(), "own goroutine", work.returns(1, nil))
	others := make(chan struct{})
	go func() {
		defer close(others)
		for i := range 2000 {
			_, _ = c.Do(t.Context(), strconv.Itoa(i), flReturns(i, nil))
		}
		c.Lookup(flKey)
		c.Forget(flKey)
		c.Stats()
	}()
	flSoon(t, others, "calls on other keys while two executions run")
	work.open()
	flSoon(t, leader.done, "the leader")
	flSoon(t, joined.done, "the joined caller")
	flSoon(t, own.done, "the leader on its own goroutine")
}

type flName struct{} // a key of context values, of a type of its own

// flLeaders are the ways to call: they decide where fn runs, and must not decide anything else.
var flLeaders = []struct {
	name  string
	ctx   func() (context.Context, context.CancelFunc)
	opts  []idemflight.CallOption
	stays bool // the leader cannot leave
}{
	{"background", func() (context.Context, context.CancelFunc) { return context.Background(), func() {} }, nil, true},
	{"cancel", func() (context.Context, context.CancelFunc) { return context.WithCancel(context.Background()) }, nil, false},
	{"deadline", func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), 3*time.Second)
	}, nil, false},
	{"inline", func() (context.Context, context.CancelFunc) { return context.WithCancel(context.Background()) }, []idemflight.CallOption{idemflight.Inline()}, true},
	{"inline background", func() (context.Context, context.CancelFunc) { return context.Background(), func() {} }, []idemflight.CallOption{idemflight.Inline()}, true},
}

// flEachLeader runs test in a bubble for each way to call. It is to give do its fn; do returns when
// the leader's call has returned, panicked or exited.
func flEachLeader(t *testing.T, test func(t *testing.T, ctx context.Context, cancel context.CancelFunc, opts []idemflight.CallOption)) {
	for _, l := range flLeaders {
		t.Run(l.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := l.ctx()
				defer cancel()
				test(t, ctx, cancel, l.opts)
			})
		})
	}
}

func TestPromise04_ContextCarriesTheLeadersValues(t *testing.T) {
	flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
		c := idemflight.MustNew(flOptions{})
		gate := flNewGate(t)
		inner := idemflight.MustNew(idemflight.Options[int, string]{})
		leader := flGo(c, context.WithValue(ctx, flName{}, "leader"), flKey, func(ctx context.Context) (int, error) {
			gate.wait()
			require.Equal(t, "leader", ctx.Value(flName{}), "fn sees the values of the leader")
			require.Nil(t, ctx.Value("nobody set this"), "a value that the leader does not have")
			child, cancel := context.WithCancel(ctx)
			defer cancel()
			require.Equal(t, "leader", child.Value(flName{}), "derived contexts see them too")
			v, err := inner.Do(context.WithValue(ctx, flKey, "inner"), 1, func(ctx context.Context) (string, error) {
				return ctx.Value(flName{}).(string) + "+" + ctx.Value(flKey).(string), nil
			})
			require.NoError(t, err)
			require.Equal(t, "leader+inner", v, "executions inside see the values of all around them")
			return 1, nil
		}, opts...)
		synctest.Wait()
		joined := flGo(c, context.WithValue(t.Context(), flName{}, "joined"), flKey, flNever[int](t))
		synctest.Wait()
		gate.open()
		synctest.Wait()
		leader.got(t, idemflight.Executed, 1)
		joined.got(t, idemflight.Joined, 1)
	})
}

// flAlive requires that ctx, and what derives from it, has not ended. It leaves nothing behind.
func flAlive(t *testing.T, ctx context.Context, when string) {
	synctest.Wait()
	require.NoError(t, ctx.Err(), "fn's context must not have ended %s", when)
	require.NoError(t, context.Cause(ctx), "fn's context must have no cause %s", when)
	require.NoError(t, context.Cause(context.WithValue(ctx, flKey, 1)), "nor what derives from it without a cancellation of its own, %s", when)
	select {
	case <-ctx.Done():
		t.Errorf("Done of fn's context must be open %s", when)
	default:
	}
	child, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { t.Errorf("AfterFunc of fn's context must not run %s", when) })
	defer stop()
	synctest.Wait()
	require.NoError(t, child.Err(), "a context derived from fn's must not have ended %s", when)
	require.NoError(t, context.Cause(child), "a context derived from fn's must have no cause %s", when)
}

func TestPromise04_ContextHasNotTheLeadersCancellation(t *testing.T) {
	for _, looked := range []bool{false, true} {
		t.Run(fmt.Sprintf("looked before: %v", looked), func(t *testing.T) {
			flEachLeader(t, func(t *testing.T, ctx context.Context, cancel context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(flOptions{})
				// The innermost cancellation is not the only one around.
				ctx, outer := context.WithCancelCause(ctx)
				ctx, inner := context.WithTimeoutCause(context.WithValue(ctx, flName{}, 1), 10*time.Second, flCause)
				defer inner()
				var child context.Context
				call := flGo(c, ctx, flKey, func(ctx context.Context) (int, error) {
					if looked {
						flAlive(t, ctx, "before the leader's ends")
						var stop context.CancelFunc
						child, stop = context.WithCancel(ctx)
						defer stop()
					}
					inner()
					flAlive(t, ctx, "after the leader's innermost was cancelled")
					outer(flCause)
					flAlive(t, ctx, "after the leader's outer one was cancelled")
					cancel()
					flAlive(t, ctx, "after the leader's outermost was cancelled")
					time.Sleep(time.Minute)
					flAlive(t, ctx, "after every deadline of the leader's")
					if looked {
						require.NoError(t, child.Err(), "a context derived before must live on, too")
						require.NoError(t, context.Cause(child), "a context derived before must live on, too")
					}
					return 1, nil
				}, opts...)
				time.Sleep(2 * time.Minute)
				require.True(t, call.returned(), "the call must have ended by now")
				e, _ := c.Lookup(flKey)
				require.Equal(t, idemflight.Retained, e.State, "the execution ran to its end")
			})
		})
	}
}

func TestPromise04_ContextHasNotTheLeadersDeadline(t *testing.T) {
	for _, timeout := range []time.Duration{0, -1, time.Second, time.Hour, math.MaxInt64} {
		t.Run(timeout.String(), func(t *testing.T) {
			flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(flOptions{ExecTimeout: timeout})
				time.Sleep(time.Second)
				over := make(chan struct{})
				flGo(c, ctx, flKey, func(ctx context.Context) (int, error) {
					defer close(over)
					began := time.Now()
					for _, ctx := range []context.Context{ctx, context.WithValue(ctx, flName{}, 1)} {
						deadline, ok := ctx.Deadline()
						switch timeout {
						case 0:
							require.True(t, ok && deadline.Equal(began.Add(idemflight.DefaultExecTimeout)), "the deadline is DefaultExecTimeout after the start of fn, got %v, %v", deadline.Sub(began), ok)
						case -1:
							require.False(t, ok, "a negative ExecTimeout means no deadline, got %v", deadline.Sub(began))
						case math.MaxInt64:
							require.True(t, !ok || deadline.After(began.Add(100*365*24*time.Hour)), "a huge ExecTimeout must not overflow, got %v", deadline.Sub(began))
						default:
							require.True(t, ok && deadline.Equal(began.Add(timeout)), "the deadline is ExecTimeout after the start of fn, got %v, %v", deadline.Sub(began), ok)
						}
					}
					if timeout == -1 || timeout == math.MaxInt64 {
						time.Sleep(1000 * time.Hour)
						flAlive(t, ctx, "after a thousand hours without ExecTimeout")
					}
					return 1, nil
				}, opts...)
				<-over
			})
		})
	}
}

func TestPromise04_ContextEndsWhenFnReturns(t *testing.T) {
	looks := map[string]func(ctx context.Context){
		"nobody looked":  func(context.Context) {},
		"Done":           func(ctx context.Context) { ctx.Done() },
		"Err":            func(ctx context.Context) { _ = ctx.Err() },
		"Cause":          func(ctx context.Context) { _ = context.Cause(ctx) },
		"BeginEffect":    func(ctx context.Context) { _ = idemflight.BeginEffect(ctx) },
		"derived before": nil, // below
	}
	ends := map[string]flFn{
		"value":  flReturns(1, nil),
		"error":  flReturns(0, flBoom),
		"panic":  func(context.Context) (int, error) { panic(flBoom) },
		"Goexit": flGoexits,
	}
	for how, end := range ends {
		for looked, look := range looks {
			t.Run(how+", "+looked, func(t *testing.T) {
				flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
					c := idemflight.MustNew(flOptions{})
					var fnCtx, child, valued context.Context
					afterFunc := 0
					call := flGo(c, ctx, flKey, func(ctx context.Context) (int, error) {
						fnCtx = ctx
						if look != nil {
							look(ctx)
						} else {
							// They must end without their cancel.
							var cancel [2]context.CancelFunc
							child, cancel[0] = context.WithTimeout(ctx, time.Hour)
							valued, cancel[1] = context.WithCancel(context.WithValue(ctx, flName{}, 1))
							context.AfterFunc(ctx, func() { afterFunc++ })
							t.Cleanup(func() { cancel[0](); cancel[1]() })
						}
						return end(ctx)
					}, opts...)
					synctest.Wait()
					require.True(t, call.returned(), "the call ends with fn")

					select {
					case <-fnCtx.Done():
					default:
						require.Fail(t, "Done of fn's context must be closed once fn has returned")
					}
					require.Equal(t, context.Canceled, fnCtx.Err(), "fn's context is cancelled, it did not time out")
					require.ErrorIs(t, context.Cause(fnCtx), context.Canceled, "the cause goes with it")
					late, cancel := context.WithCancel(fnCtx)
					defer cancel()
					require.Error(t, late.Err(), "what is derived afterwards has ended from the start")
					require.Error(t, context.Cause(context.WithValue(fnCtx, flName{}, 1)), "and under a value")
					if look == nil {
						require.Equal(t, context.Canceled, child.Err(), "a context derived before ends with it, and did not time out")
						require.Equal(t, context.Canceled, valued.Err(), "also under a value")
						require.Equal(t, 1, afterFunc, "AfterFunc runs when fn has returned")
					}
					time.Sleep(time.Hour)
					require.Equal(t, context.Canceled, fnCtx.Err(), "why it ended does not change when ExecTimeout passes")
					require.ErrorIs(t, context.Cause(fnCtx), context.Canceled, "why it ended does not change when ExecTimeout passes")
				})
			})
		}
	}
}

func TestPromise04_WhyItEndedIsNotTheLeadersCause(t *testing.T) {
	for _, looked := range []bool{false, true} {
		for _, timeout := range []time.Duration{time.Minute, time.Hour} {
			t.Run(fmt.Sprintf("looked: %v, ExecTimeout %v", looked, timeout), func(t *testing.T) {
				flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
					c := idemflight.MustNew(flOptions{ExecTimeout: timeout})
					ctx, cancel := context.WithCancelCause(ctx)
					causes := func(ctx context.Context, want error) {
						for _, ctx := range []context.Context{ctx, context.WithValue(ctx, flName{}, 1)} {
							require.Equal(t, want, ctx.Err(), "why fn's context ended")
							require.Equal(t, want, context.Cause(ctx), "why fn's context ended, not the leader's")
						}
					}
					var fnCtx context.Context
					flGo(c, ctx, flKey, func(ctx context.Context) (int, error) {
						fnCtx = ctx
						if looked {
							ctx.Done()
						}
						cancel(flCause)
						if timeout == time.Minute {
							time.Sleep(timeout)
							synctest.Wait()
							causes(ctx, context.DeadlineExceeded)
						}
						return 1, nil
					}, opts...)
					time.Sleep(2 * time.Minute)
					synctest.Wait()
					if timeout == time.Minute {
						causes(fnCtx, context.DeadlineExceeded)
					} else {
						causes(fnCtx, context.Canceled)
					}
				})
			})
		}
	}
}

func TestPromise04_ContextHasEndedBeforeAnyCallerGetsTheOutcome(t *testing.T) {
	flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
		c := idemflight.MustNew(flOptions{})
		var fnCtx context.Context
		_, err := c.Do(ctx, flKey, func(ctx context.Context) (int, error) { fnCtx = ctx; return 1, nil }, opts...)
		require.NoError(t, err)
		require.Error(t, fnCtx.Err(), "fn's context must have ended when the leader has the outcome")
	})
}

func TestPromise04_ContextEndsExecTimeoutAfterFnStarted(t *testing.T) {
	const timeout = 10 * time.Second
	ended := func(t *testing.T, ctx context.Context, who string) {
		synctest.Wait()
		select {
		case <-ctx.Done():
		default:
			require.Fail(t, "not done", "%s must be done at ExecTimeout", who)
		}
		require.Equal(t, context.DeadlineExceeded, ctx.Err(), "%s: Err at ExecTimeout", who)
		require.ErrorIs(t, context.Cause(ctx), context.DeadlineExceeded, "%s: Cause at ExecTimeout", who)
	}
	for name, look := range map[string]func(t *testing.T, ctx context.Context){
		"wait for Done": func(t *testing.T, ctx context.Context) { <-ctx.Done() },
		"look at Done late": func(t *testing.T, ctx context.Context) {
			time.Sleep(timeout - 1)
			<-ctx.Done()
		},
		"ask Err only": func(t *testing.T, ctx context.Context) {
			time.Sleep(timeout - 1)
			require.NoError(t, ctx.Err(), "a nanosecond before ExecTimeout")
			time.Sleep(1)
			synctest.Wait()
			require.Equal(t, context.DeadlineExceeded, ctx.Err(), "ExecTimeout has passed, though nobody looked at Done")
		},
		"ask Err first when it is over": func(t *testing.T, ctx context.Context) {
			time.Sleep(timeout)
			synctest.Wait()
			require.Equal(t, context.DeadlineExceeded, ctx.Err(), "ExecTimeout has passed, though nobody looked before")
		},
		"ask Cause only": func(t *testing.T, ctx context.Context) {
			time.Sleep(timeout - 1)
			require.NoError(t, context.Cause(ctx), "a nanosecond before ExecTimeout")
			time.Sleep(1)
			synctest.Wait()
			require.ErrorIs(t, context.Cause(ctx), context.DeadlineExceeded, "ExecTimeout has passed, though nobody looked at Done")
		},
		"ask Cause first when it is over": func(t *testing.T, ctx context.Context) {
			time.Sleep(timeout)
			synctest.Wait()
			require.ErrorIs(t, context.Cause(ctx), context.DeadlineExceeded, "ExecTimeout has passed, though nobody looked before")
		},
		"ask Cause under a value first": func(t *testing.T, ctx context.Context) {
			time.Sleep(timeout)
			synctest.Wait()
			require.ErrorIs(t, context.Cause(context.WithValue(ctx, flName{}, 1)), context.DeadlineExceeded, "ExecTimeout has passed, though nobody looked before")
		},
		"Done first when it is over": func(t *testing.T, ctx context.Context) {
			time.Sleep(timeout)
			synctest.Wait()
			<-ctx.Done()
		},
		"derived, cancel": func(t *testing.T, ctx context.Context) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			<-ctx.Done()
			ended(t, ctx, "a derived context")
		},
		"derived, longer timeout": func(t *testing.T, ctx context.Context) {
			ctx, cancel := context.WithTimeoutCause(ctx, time.Hour, flBoom)
			defer cancel()
			<-ctx.Done()
			ended(t, ctx, "a derived context")
			require.NotErrorIs(t, context.Cause(ctx), flBoom, "it was not its own timeout that passed")
		},
		"derived under a value, late": func(t *testing.T, ctx context.Context) {
			time.Sleep(timeout / 2)
			ctx, cancel := context.WithCancel(context.WithValue(ctx, flName{}, 1))
			defer cancel()
			<-ctx.Done()
			ended(t, ctx, "a derived context")
		},
		"derived when it is over": func(t *testing.T, ctx context.Context) {
			time.Sleep(timeout)
			synctest.Wait()
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			ended(t, ctx, "a context derived when it is over")
		},
		"AfterFunc": func(t *testing.T, ctx context.Context) {
			ran := make(chan struct{})
			context.AfterFunc(ctx, func() { close(ran) })
			<-ran
		},
		"errgroup": func(t *testing.T, ctx context.Context) {
			group, ctx := errgroup.WithContext(ctx)
			for range 10 {
				group.Go(func() error { <-ctx.Done(); return ctx.Err() })
			}
			require.Equal(t, context.DeadlineExceeded, group.Wait(), "what waits on a derived context ends with fn's")
		},
		"inner call that leads": func(t *testing.T, ctx context.Context) {
			gate := flNewGate(t)
			_, err := idemflight.MustNew(flOptions{}).Do(ctx, "inner", func(context.Context) (int, error) { gate.wait(); return 1, nil })
			require.ErrorIs(t, err, idemflight.ErrLeft, "an inner call leaves when fn's context ends")
			require.ErrorIs(t, err, context.DeadlineExceeded, "an inner call leaves when fn's context ends")
		},
	} {
		t.Run(name, func(t *testing.T) {
			flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(flOptions{ExecTimeout: timeout})
				time.Sleep(time.Second)
				call := flGo(c, ctx, flKey, func(ctx context.Context) (int, error) {
					began := time.Now()
					look(t, ctx)
					require.Equal(t, timeout, time.Since(began), "fn's context ends ExecTimeout after fn started")
					ended(t, ctx, "fn's context")
					return 1, nil
				}, opts...)
				time.Sleep(time.Minute)
				require.True(t, call.returned() && call.panicked == nil && !call.exited, "the call must have returned")
			})
		})
	}
}

func TestPromise04_TheTimerCostsNothingUnlessSomeoneLooks(t *testing.T) {
	c := idemflight.MustNew(flOptions{})
	var fnCtx context.Context
	cost := func(look func(context.Context)) float64 {
		// Nothing is kept, so that no table grows beneath the measurement.
		fn := func(ctx context.Context) (int, error) { look(ctx); return 0, flReleased }
		return testing.AllocsPerRun(500, func() { _, _ = c.Do(context.Background(), flKey, fn) })
	}
	alone := cost(func(ctx context.Context) { fnCtx = ctx })
	asked := cost(func(ctx context.Context) { fnCtx = ctx; _ = ctx.Err(); _, _ = ctx.Deadline(); ctx.Value(flName{}) })
	looked := cost(func(ctx context.Context) { fnCtx = ctx; ctx.Done() })
	// A timer, and the channel of Done.
	require.GreaterOrEqual(t, looked, alone+2, "allocations of an execution that looks at Done, against one that does not: the timer must be armed by the look")
	require.GreaterOrEqual(t, looked, asked+2, "the same, against one that asks for Err, Deadline and a value: none of them is to arm the timer")
	require.Error(t, fnCtx.Err())
}

// flReleased is made once, so that it does not count among what an execution allocates.
var flReleased = idemflight.Retryable(flBoom)

func TestPromise04_DerivedContextsCostNoGoroutine(t *testing.T) {
	const many = 500
	for name, derive := range map[string]func(ctx context.Context, i int) context.CancelFunc{
		"WithCancel": func(ctx context.Context, _ int) context.CancelFunc {
			_, cancel := context.WithCancel(ctx)
			return cancel
		},
		"WithTimeout": func(ctx context.Context, _ int) context.CancelFunc {
			_, cancel := context.WithTimeout(ctx, time.Hour)
			return cancel
		},
		"WithCancelCause": func(ctx context.Context, _ int) context.CancelFunc {
			_, cancel := context.WithCancelCause(ctx)
			return func() { cancel(flCause) }
		},
		"WithCancel under WithValue": func(ctx context.Context, i int) context.CancelFunc {
			_, cancel := context.WithCancel(context.WithValue(ctx, flName{}, i))
			return cancel
		},
		"WithCancel under WithCancel": func(ctx context.Context, i int) context.CancelFunc {
			ctx, outer := context.WithCancel(context.WithValue(ctx, flName{}, i))
			_, cancel := context.WithCancel(ctx)
			return func() { cancel(); outer() }
		},
		"AfterFunc": func(ctx context.Context, _ int) context.CancelFunc {
			stop := context.AfterFunc(ctx, func() {})
			return func() { stop() }
		},
		"AfterFunc under WithValue": func(ctx context.Context, i int) context.CancelFunc {
			stop := context.AfterFunc(context.WithValue(ctx, flName{}, i), func() {})
			return func() { stop() }
		},
	} {
		for _, timeout := range []time.Duration{0, -1} {
			t.Run(fmt.Sprintf("%s, ExecTimeout %d", name, timeout), func(t *testing.T) {
				flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
					c := idemflight.MustNew(flOptions{ExecTimeout: timeout})
					other := idemflight.MustNew(idemflight.Options[int, string]{ExecTimeout: timeout})
					own := flGoroutines(t)
					test := func(ctx context.Context) {
						synctest.Wait()
						before := flGoroutines(t)
						cancels := make([]context.CancelFunc, many)
						for i := range cancels {
							cancels[i] = derive(ctx, i)
						}
						synctest.Wait()
						require.Equal(t, before, flGoroutines(t), "goroutines after deriving %d contexts from fn's", many)
						for _, cancel := range cancels[:many/2] {
							cancel() // the others must go with fn's context
						}
					}
					call := flGo(c, ctx, flKey, func(ctx context.Context) (int, error) {
						test(ctx)
						_, err := other.Do(ctx, 1, func(ctx context.Context) (string, error) { test(ctx); return "", nil })
						return 1, err
					}, opts...)
					<-call.done
					synctest.Wait()
					call.got(t, idemflight.Executed, 1)
					require.Equal(t, own, flGoroutines(t), "goroutines of the bubble when all is over: those of the test")
				})
			})
		}
	}
}

func TestPromise04_TheLeaderLeavingDoesNotStopTheWork(t *testing.T) {
	for name, end := range map[string]struct {
		fn    flFn
		state idemflight.State // 0: released
		value int
		err   error
	}{
		"success":   {flReturns(1, nil), idemflight.Retained, 1, nil},
		"final":     {flReturns(1, idemflight.Final(flBoom)), idemflight.Retained, 1, flBoom},
		"unmarked":  {flReturns(1, flBoom), 0, 0, nil},
		"retryable": {flReturns(1, idemflight.Retryable(flBoom)), 0, 0, nil},
		"unknown":   {flReturns(1, idemflight.Unknown(flBoom)), idemflight.Held, 0, flBoom},
		"effect": {func(ctx context.Context) (int, error) {
			if err := idemflight.BeginEffect(ctx); err != nil {
				return 0, idemflight.Final(err) // wrong: fn's context is alive
			}
			return 1, flBoom
		}, idemflight.Held, 0, flBoom},
		"panic":  {func(context.Context) (int, error) { panic(flBoom) }, idemflight.Held, 0, flBoom},
		"Goexit": {flGoexits, idemflight.Held, 0, idemflight.ErrGoexit},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(flOptions{ExecTimeout: time.Hour})
				ctx, cancel := context.WithCancelCause(context.Background())
				call := flGo(c, ctx, flKey, func(ctx context.Context) (int, error) {
					time.Sleep(time.Minute)
					flAlive(t, ctx, "though the leader has left")
					return end.fn(ctx)
				})
				time.Sleep(time.Second)
				cancel(flCause)
				synctest.Wait()
				call.left(t, ctx, flCause)
				e, ok := c.Lookup(flKey)
				require.True(t, ok, "the execution goes on")
				require.Equal(t, idemflight.InFlight, e.State, "the execution goes on")

				time.Sleep(time.Minute)
				e, ok = c.Lookup(flKey)
				require.Equal(t, end.state != 0, ok, "the outcome is settled as if the leader were there")
				require.Equal(t, end.state, e.State, "the outcome is settled as if the leader were there")
				require.Equal(t, end.value, e.Value, "the value that is kept")
				if end.err != nil {
					require.ErrorIs(t, e.Err, end.err, "the error that is kept")
				} else {
					require.NoError(t, e.Err, "the error that is kept")
				}
			})
		})
	}
}

func TestPromise04_WhatIsKeptDoesNotKeepTheContext(t *testing.T) {
	type payload struct{ _ [1024]byte }
	// A stopped timer may linger in the runtime: whoever looks does so without one.
	for look, c := range map[bool]*flCache{false: idemflight.MustNew(flOptions{}), true: idemflight.MustNew(flOptions{ExecTimeout: -1})} {
		for name, end := range map[string]error{"success": nil, "final": idemflight.Final(flBoom), "unknown": idemflight.Unknown(flBoom), "retryable": flReleased} {
			value := func() weak.Pointer[payload] {
				p := new(payload)
				_, _ = c.Do(context.WithValue(t.Context(), flName{}, p), name, func(ctx context.Context) (int, error) {
					if look {
						ctx.Done()
					}
					return 1, end
				})
				return weak.Make(p)
			}()
			// The goroutine that ran fn may still be on its way out.
			for i := 0; i < 1000 && value.Value() != nil; i++ {
				runtime.GC()
			}
			require.Nil(t, value.Value(), "%s, fn looked: %v: a value of the leader's context must be garbage once the execution has ended", name, look)
		}
		runtime.KeepAlive(c)
	}
}

func TestPromise05_AnExecutionStaysInFlightUntilFnReallyReturns(t *testing.T) {
	flEachLeader(t, func(t *testing.T, ctx context.Context, cancel context.CancelFunc, opts []idemflight.CallOption) {
		c := idemflight.MustNew(flOptions{ExecTimeout: time.Second, TTL: 2 * time.Second, HoldTTL: 2 * time.Second, MaxEntries: 8})
		began := time.Now()
		var fnCtx context.Context
		leader := flGo(c, ctx, flKey, func(ctx context.Context) (int, error) {
			fnCtx = ctx
			time.Sleep(time.Hour) // looks at nothing
			return 1, nil
		}, opts...)
		synctest.Wait()
		cancel()
		synctest.Wait()

		for minute := range 59 {
			time.Sleep(time.Minute)
			require.Error(t, fnCtx.Err(), "ExecTimeout has passed")
			e, ok := c.Lookup(flKey)
			require.True(t, ok, "in flight after %d minutes", minute+1)
			require.Equal(t, idemflight.InFlight, e.State, "fn has not returned after %d minutes", minute+1)
			require.True(t, e.StartedAt.Equal(began), "it is still the first execution")
			require.Equal(t, 1, c.Stats().InFlight, "Stats.InFlight")
			require.Zero(t, c.Len(), "nothing is kept yet")
			_, err := c.Do(t.Context(), flKey, flNever[int](t), idemflight.WithMaxWait(time.Second))
			require.ErrorIs(t, err, idemflight.ErrInFlight, "after %d minutes", minute+1)
		}
		joined := flGo(c, t.Context(), flKey, flNever[int](t))
		closed := make(chan error, 1)
		go func() { closed <- c.Close(t.Context()) }()
		synctest.Wait()
		require.False(t, joined.returned(), "fn has not returned, so there is no outcome")
		require.Empty(t, closed, "Close waits for fn to return")

		time.Sleep(began.Add(time.Hour).Sub(time.Now()))
		synctest.Wait()
		joined.got(t, idemflight.Joined, 1)
		require.True(t, leader.returned())
		require.NoError(t, <-closed)
		e, _ := c.Lookup(flKey)
		require.Equal(t, idemflight.Retained, e.State, "success is success, however late")
		require.True(t, e.CompletedAt.Equal(began.Add(time.Hour)), "it was completed when fn returned")
	})
}

func TestPromise06_DoFromInsideItsOwnExecutionIsReentrant(t *testing.T) {
	type cache = flCache
	again := func(t *testing.T, c *cache, ctx context.Context, opts ...idemflight.CallOption) {
		began := time.Now()
		r, err := c.DoResult(ctx, flKey, flNever[int](t), opts...)
		require.ErrorIs(t, err, idemflight.ErrReentrant, "a call that would wait for itself")
		require.NotErrorIs(t, err, idemflight.ErrLeft, "being re-entrant comes first")
		require.NotErrorIs(t, err, idemflight.ErrInFlight, "being re-entrant comes first")
		require.NotErrorIs(t, err, idemflight.ErrKeyReused, "being re-entrant comes first")
		require.Zero(t, r, "no outcome was obtained")
		require.Zero(t, time.Since(began), "it is told at once, without waiting")
	}
	for name, inside := range map[string]func(t *testing.T, c *cache, ctx context.Context){
		"fn's own context": func(t *testing.T, c *cache, ctx context.Context) { again(t, c, ctx) },
		"twice":            func(t *testing.T, c *cache, ctx context.Context) { again(t, c, ctx); again(t, c, ctx) },
		"Inline":           func(t *testing.T, c *cache, ctx context.Context) { again(t, c, ctx, idemflight.Inline()) },
		"NoWait": func(t *testing.T, c *cache, ctx context.Context) {
			again(t, c, ctx, idemflight.WithMaxWait(idemflight.NoWait))
		},
		"MaxWait": func(t *testing.T, c *cache, ctx context.Context) {
			again(t, c, ctx, idemflight.WithMaxWait(time.Second))
		},
		"other fingerprint": func(t *testing.T, c *cache, ctx context.Context) {
			again(t, c, ctx, idemflight.WithFingerprint(idemflight.Fingerprint{1}))
		},
		"value": func(t *testing.T, c *cache, ctx context.Context) {
			again(t, c, context.WithValue(ctx, flName{}, 1))
		},
		"cancel": func(t *testing.T, c *cache, ctx context.Context) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			again(t, c, ctx)
		},
		"cancelled": func(t *testing.T, c *cache, ctx context.Context) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			again(t, c, ctx)
		},
		"without cancel": func(t *testing.T, c *cache, ctx context.Context) { again(t, c, context.WithoutCancel(ctx)) },
		"a context type of the user's": func(t *testing.T, c *cache, ctx context.Context) {
			again(t, c, struct{ context.Context }{ctx})
		},
		"after ExecTimeout": func(t *testing.T, c *cache, ctx context.Context) {
			time.Sleep(time.Minute)
			again(t, c, ctx)
		},
		"another goroutine": func(t *testing.T, c *cache, ctx context.Context) {
			var group errgroup.Group
			for range 3 {
				group.Go(func() error { again(t, c, ctx); return nil })
			}
			_ = group.Wait()
		},
		"from an execution of another key": func(t *testing.T, c *cache, ctx context.Context) {
			_, err := c.Do(ctx, "other", func(ctx context.Context) (int, error) {
				again(t, c, ctx)
				return 1, nil
			})
			require.NoError(t, err)
		},
		"through WithoutCancel of another execution": func(t *testing.T, c *cache, ctx context.Context) {
			_, err := c.Do(context.WithoutCancel(ctx), "other", func(ctx context.Context) (int, error) {
				again(t, c, context.WithoutCancel(ctx))
				return 1, nil
			}, idemflight.Inline())
			require.NoError(t, err)
		},
		"ten deep, in other caches": func(t *testing.T, c *cache, ctx context.Context) {
			strings := idemflight.MustNew(idemflight.Options[int, string]{})
			var down func(ctx context.Context, depth int) (string, error)
			down = func(ctx context.Context, depth int) (string, error) {
				again(t, c, ctx)
				if depth == 10 {
					return "deep", nil
				}
				if depth%2 == 0 {
					_, err := c.Do(ctx, "depth "+strconv.Itoa(depth), func(ctx context.Context) (int, error) {
						_, err := down(context.WithValue(ctx, flName{}, depth), depth+1)
						return depth, err
					})
					return "", err
				}
				return strings.Do(ctx, depth, func(ctx context.Context) (string, error) { return down(ctx, depth+1) })
			}
			_, err := down(ctx, 0)
			require.NoError(t, err)
		},
		"from Reconcile of another cache": func(t *testing.T, c *cache, ctx context.Context) {
			other := idemflight.MustNew(flOptions{Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
				again(t, c, ctx)
				return 1, nil
			}})
			_, err := other.Do(ctx, flKey, flReturns(0, idemflight.Unknown(flBoom)))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			v, err := other.Do(ctx, flKey, flNever[int](t))
			require.NoError(t, err)
			require.Equal(t, 1, v)
		},
	} {
		t.Run(name, func(t *testing.T) {
			flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(flOptions{ExecTimeout: 2 * time.Second})
				ran := false
				call := flGo(c, ctx, flKey, func(ctx context.Context) (int, error) {
					inside(t, c, ctx)
					ran = true
					return 1, nil
				}, opts...)
				time.Sleep(time.Hour)
				synctest.Wait()
				require.True(t, call.returned() && ran, "nobody waits for itself")
				v, err := c.Do(t.Context(), flKey, flNever[int](t))
				require.NoError(t, err, "the execution goes on and ends as if it had not asked")
				require.Equal(t, 1, v, "the execution goes on and ends as if it had not asked")
				require.NotZero(t, c.Stats().Reentrant, "Stats.Reentrant")
			})
		})
	}
}

func TestPromise06_ReconcileIsAnExecutionOfItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c *flCache
		c = idemflight.MustNew(flOptions{Reconcile: func(ctx context.Context, key string, _ idemflight.Entry[int]) (int, error) {
			_, err := c.Do(ctx, key, flNever[int](t))
			require.ErrorIs(t, err, idemflight.ErrReentrant, "Do from inside Reconcile of the key")
			return 0, idemflight.Retryable(flBoom)
		}})
		_, err := c.Do(t.Context(), flKey, flReturns(0, idemflight.Unknown(flBoom)))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		v, err := c.Do(t.Context(), flKey, func(ctx context.Context) (int, error) {
			_, err := c.Do(ctx, flKey, flNever[int](t))
			require.ErrorIs(t, err, idemflight.ErrReentrant, "Do from inside fn that runs after Reconcile, in its flight")
			return 1, nil
		})
		require.NoError(t, err)
		require.Equal(t, 1, v)
		require.EqualValues(t, 2, c.Stats().Reentrant, "Stats.Reentrant")
	})
}

func TestPromise06_OnlyTheRunningExecutionItselfCounts(t *testing.T) {
	flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
		c := idemflight.MustNew(flOptions{})
		var old context.Context
		_, err := c.Do(ctx, flKey, func(ctx context.Context) (int, error) {
			old = context.WithoutCancel(ctx)
			v, err := idemflight.MustNew(flOptions{}).Do(ctx, flKey, flReturns(7, nil))
			require.NoError(t, err, "the same key of another cache is another key")
			require.Equal(t, 7, v)
			return 0, idemflight.Retryable(flBoom)
		}, opts...)
		require.ErrorIs(t, err, flBoom)

		// The execution that old belongs to is over: from here on old is nothing special.
		work := flNewWork(t)
		leader := flGo(c, ctx, flKey, work.returns(1, nil), opts...)
		synctest.Wait()
		joined := flGo(c, old, flKey, flNever[int](t))
		synctest.Wait()
		require.False(t, joined.returned(), "a context of an earlier execution of the key waits for the present one like any other")
		work.open()
		synctest.Wait()
		leader.got(t, idemflight.Executed, 1)
		joined.got(t, idemflight.Joined, 1)

		replayed := flGo(c, old, flKey, flNever[int](t))
		synctest.Wait()
		replayed.got(t, idemflight.Replayed, 1)

		c.Forget(flKey)
		next := flGo(c, old, flKey, func(ctx context.Context) (int, error) {
			_, err := c.Do(ctx, flKey, flNever[int](t))
			require.ErrorIs(t, err, idemflight.ErrReentrant, "an execution started with a context of an earlier one of the key is itself an execution")
			return 2, nil
		}, opts...)
		synctest.Wait()
		next.got(t, idemflight.Executed, 2)
	})
}

func TestPromise06_WhatOutlivesTheExecutionIsNoLongerInsideIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(flOptions{ExecTimeout: time.Second})
		gate := flNewGate(t)
		var inner idemflight.Result[int]
		_, err := c.Do(t.Context(), flKey, func(ctx context.Context) (int, error) {
			ctx, cancel := context.WithCancel(ctx)
			cancel2 := time.AfterFunc(time.Millisecond, cancel)
			defer cancel2.Stop()
			_, err := c.Do(ctx, "inner", func(ctx context.Context) (int, error) {
				gate.wait() // its caller leaves, and then the outer execution ends
				var err error
				inner, err = c.DoResult(ctx, flKey, flNever[int](t))
				return 2, err
			})
			require.ErrorIs(t, err, idemflight.ErrLeft)
			return 1, nil
		})
		require.NoError(t, err)
		gate.open()
		synctest.Wait()
		require.Equal(t, idemflight.Replayed, inner.Source, "the outer execution is over, its outcome is replayed to the inner one")
		require.Equal(t, 1, inner.Value)
	})
}

func TestPromise06_ItIsSeenThroughTheContextOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(flOptions{})
		v, err := c.Do(t.Context(), flKey, func(context.Context) (int, error) {
			_, err := c.Do(context.Background(), flKey, flNever[int](t), idemflight.WithMaxWait(time.Second))
			require.ErrorIs(t, err, idemflight.ErrInFlight, "without fn's context the call is one like any other")
			return 1, nil
		})
		require.NoError(t, err)
		require.Equal(t, 1, v)
	})
}

func TestPromise06_TwoThatWaitForEachOtherEndWithTheirContexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(flOptions{ExecTimeout: 10 * time.Second})
		waitFor := func(key string) flFn {
			return func(ctx context.Context) (int, error) {
				time.Sleep(time.Second) // until both are in flight
				_, err := c.Do(ctx, key, flNever[int](t))
				require.ErrorIs(t, err, idemflight.ErrLeft, "the wait ends with the context of the caller")
				require.NotErrorIs(t, err, idemflight.ErrReentrant, "this is not detected")
				return 0, err
			}
		}
		a := flGo(c, context.Background(), "a", waitFor("b"))
		b := flGo(c, context.Background(), "b", waitFor("a"))
		time.Sleep(9 * time.Second)
		synctest.Wait()
		require.False(t, a.returned() || b.returned(), "both wait until ExecTimeout")
		time.Sleep(time.Second)
		synctest.Wait()
		require.True(t, a.returned() && b.returned(), "ExecTimeout ends it")
		require.Equal(t, 10*time.Second, a.took())
		require.Equal(t, 10*time.Second, b.took())
	})
}

// flContext is a context of the user's own, which the context package knows nothing about.
type flContext struct {
	context.Context // Background: values and deadline
	done            chan struct{}
}

func flNewContext() (context.Context, context.CancelFunc) {
	c := &flContext{Context: context.Background(), done: make(chan struct{})}
	return c, sync.OnceFunc(func() { close(c.done) })
}

func (c *flContext) Done() <-chan struct{} { return c.done }
func (c *flContext) Err() error {
	select {
	case <-c.done:
		return flHungUp
	default:
		return nil
	}
}

var flHungUp = errors.New("the client hung up")

// flEndings are contexts that end two seconds from now.
var flEndings = map[string]struct {
	begin func(t *testing.T) context.Context
	cause error
}{
	"cancelled": {func(*testing.T) context.Context {
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(2*time.Second, cancel)
		return ctx
	}, context.Canceled},
	"cancelled with a cause": {func(*testing.T) context.Context {
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(2*time.Second, func() { cancel(flCause) })
		return ctx
	}, flCause},
	"parent cancelled with a cause": {func(t *testing.T) context.Context {
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(2*time.Second, func() { cancel(flCause) })
		ctx, child := context.WithTimeout(context.WithValue(ctx, flName{}, 1), time.Hour)
		t.Cleanup(child)
		return ctx
	}, flCause},
	"deadline": {func(t *testing.T) context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		t.Cleanup(cancel)
		return ctx
	}, context.DeadlineExceeded},
	"deadline with a cause": {func(t *testing.T) context.Context {
		ctx, cancel := context.WithTimeoutCause(context.Background(), 2*time.Second, flCause)
		t.Cleanup(cancel)
		return ctx
	}, flCause},
	"a context type of the user's": {func(*testing.T) context.Context {
		ctx, end := flNewContext()
		time.AfterFunc(2*time.Second, end)
		return ctx
	}, flHungUp},
}

func TestPromise07_CallersLeaveOnTheirOwnContext(t *testing.T) {
	for name, ending := range flEndings {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(flOptions{})
				work := flNewWork(t)
				leaderCtx := ending.begin(t)
				leader := flGo(c, leaderCtx, flKey, work.returns(1, nil))
				synctest.Wait()
				time.Sleep(time.Second)
				joinedCtx := ending.begin(t)
				joined := []*flCall[int]{
					flGo(c, joinedCtx, flKey, flNever[int](t)),
					flGo(c, joinedCtx, flKey, flNever[int](t), idemflight.WithMaxWait(time.Hour)),
					// Inline is about leading: who joins with it leaves like everybody.
					flGo(c, joinedCtx, flKey, flNever[int](t), idemflight.Inline()),
				}
				time.Sleep(2*time.Second - 1)
				leader.left(t, leaderCtx, ending.cause)
				require.Equal(t, 2*time.Second, leader.took(), "the leader leaves when its context ends")
				for _, call := range joined {
					require.False(t, call.returned(), "a joined caller whose context lives stays, also when the leader has left")
				}
				time.Sleep(1)
				synctest.Wait()
				for _, call := range joined {
					call.left(t, joinedCtx, ending.cause)
					require.Equal(t, 2*time.Second, call.took(), "a joined caller leaves when its context ends")
				}
				require.Zero(t, c.Stats().Waiters, "nobody waits any more")
				require.EqualValues(t, 4, c.Stats().Left, "Stats.Left")

				retry := flGo(c, t.Context(), flKey, flNever[int](t))
				synctest.Wait()
				work.open()
				synctest.Wait()
				retry.got(t, idemflight.Joined, 1)
				retry = flGo(c, t.Context(), flKey, flNever[int](t))
				synctest.Wait()
				retry.got(t, idemflight.Replayed, 1)
			})
		})
	}
}

func TestPromise07_OthersAreNotAffected(t *testing.T) {
	// Of a leader and four joined callers each subset leaves, in order; the others get the outcome.
	for leaving := range 1 << 5 {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(flOptions{})
			work := flNewWork(t)
			var calls [5]*flCall[int]
			var ctxs [5]context.Context
			var cancels [5]context.CancelCauseFunc
			for i := range calls {
				ctxs[i], cancels[i] = context.WithCancelCause(t.Context())
				calls[i] = flGo(c, ctxs[i], flKey, work.returns(i, nil))
				synctest.Wait() // the first one leads
			}
			stay := 5
			for i := range calls {
				if leaving&(1<<i) != 0 {
					stay--
					cancels[i](flCause)
					synctest.Wait()
					calls[i].left(t, ctxs[i], flCause)
				}
			}
			e, ok := c.Lookup(flKey)
			require.True(t, ok, "the key stays in flight when some of %05b leave", leaving)
			require.Equal(t, idemflight.InFlight, e.State)
			late := flGo(c, t.Context(), flKey, work.returns(7, nil))
			synctest.Wait()
			require.EqualValues(t, 1, work.runs.Load(), "who comes after some of %05b have left joins", leaving)
			work.open()
			synctest.Wait()
			for i := range calls {
				if leaving&(1<<i) == 0 {
					source := idemflight.Joined
					if i == 0 {
						source = idemflight.Executed
					}
					calls[i].got(t, source, 0)
				}
			}
			late.got(t, idemflight.Joined, 0)
			for _, cancel := range cancels {
				cancel(nil)
			}
		})
	}
}

func TestPromise07_NoGoroutinePerCaller(t *testing.T) {
	const many = 100
	for name, newContext := range map[string]func() (context.Context, context.CancelFunc){
		"cancel": func() (context.Context, context.CancelFunc) { return context.WithCancel(context.Background()) },
		"deadline": func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), time.Hour)
		},
		"a context type of the user's": flNewContext,
	} {
		for _, opts := range [][]idemflight.CallOption{nil, {idemflight.WithMaxWait(time.Minute)}} {
			t.Run(fmt.Sprintf("%s, %d options", name, len(opts)), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := idemflight.MustNew(flOptions{})
					own := flGoroutines(t)
					work := flNewWork(t)
					ctx, leave := newContext()
					leader := flGo(c, ctx, flKey, work.returns(1, nil))
					synctest.Wait()
					require.LessOrEqual(t, flGoroutines(t), own+2, "goroutines with a flight: the caller's and at most one more")
					flying := flGoroutines(t)

					var joined []*flCall[int]
					var cancels []context.CancelFunc
					for range many {
						ctx, cancel := newContext()
						cancels = append(cancels, cancel)
						joined = append(joined, flGo(c, ctx, flKey, flNever[int](t), opts...))
					}
					synctest.Wait()
					require.Equal(t, many, c.Stats().Waiters, "Stats.Waiters")
					require.Equal(t, flying+many, flGoroutines(t), "goroutines with %d joined callers: their own", many)

					for _, cancel := range cancels[:many/2] {
						cancel()
					}
					synctest.Wait()
					require.Equal(t, flying+many/2, flGoroutines(t), "goroutines after %d have left", many/2)
					leave()
					synctest.Wait()
					require.True(t, leader.returned())
					require.Equal(t, flying-1+many/2, flGoroutines(t), "goroutines after the leader has left, too")
					for _, cancel := range cancels {
						cancel()
					}
					synctest.Wait()
					require.Equal(t, own+1, flGoroutines(t), "goroutines after all have left: that of fn")
					work.open()
					synctest.Wait()
					require.Equal(t, own, flGoroutines(t), "goroutines after the flight")
					for _, call := range joined {
						require.ErrorIs(t, call.err, idemflight.ErrLeft)
					}
				})
			})
		}
	}
}

func TestPromise07_WhoCannotLeaveRunsFnOnItsOwnGoroutine(t *testing.T) {
	cancellable, cancel := context.WithCancel(context.Background())
	defer cancel()
	user, end := flNewContext()
	defer end()
	for name, call := range map[string]struct {
		ctx  context.Context
		opts []idemflight.CallOption
	}{
		"background":                         {ctx: context.Background()},
		"value":                              {ctx: context.WithValue(context.Background(), flName{}, 1)},
		"without cancel":                     {ctx: context.WithoutCancel(cancellable)},
		"user's type, cannot end":            {ctx: struct{ context.Context }{context.Background()}},
		"inline background":                  {context.Background(), []idemflight.CallOption{idemflight.Inline()}},
		"inline":                             {cancellable, []idemflight.CallOption{idemflight.Inline()}},
		"inline, other options beside":       {cancellable, []idemflight.CallOption{idemflight.WithTTL(time.Hour), idemflight.Inline(), idemflight.WithMaxWait(1)}},
		"inline, a context type of the user": {user, []idemflight.CallOption{idemflight.Inline()}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(flOptions{})
				before, me := flGoroutines(t), flGoroutine()
				v, err := c.Do(call.ctx, flKey, func(context.Context) (int, error) {
					require.Equal(t, me, flGoroutine(), "fn runs on the goroutine of the call")
					time.Sleep(time.Second)
					require.Equal(t, before, flGoroutines(t), "there is no other goroutine")
					return 1, nil
				}, call.opts...)
				require.NoError(t, err)
				require.Equal(t, 1, v)
			})
		})
	}
}

func TestPromise07_AnInlineLeaderStays(t *testing.T) {
	for name, ending := range flEndings {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(flOptions{})
				ctx := ending.begin(t)
				work := flNewWork(t)
				leader := flGo(c, ctx, flKey, work.returns(1, nil), idemflight.Inline())
				time.Sleep(time.Hour)
				require.Error(t, ctx.Err(), "the leader's context has ended")
				require.False(t, leader.returned(), "with Inline the call stays until fn returns")
				work.open()
				synctest.Wait()
				leader.got(t, idemflight.Executed, 1)
			})
		})
	}
}

func TestPromise07_WhoAskedReconcileLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := flNewWork(t)
		c := idemflight.MustNew(flOptions{Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
			return work.returns(1, nil)(ctx)
		}})
		_, err := c.Do(t.Context(), flKey, flReturns(0, idemflight.Unknown(flBoom)))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		ctx, cancel := context.WithCancelCause(context.Background())
		leader := flGo(c, ctx, flKey, flNever[int](t))
		synctest.Wait()
		joined := flGo(c, ctx, flKey, flNever[int](t))
		stays := flGo(c, t.Context(), flKey, flNever[int](t))
		synctest.Wait()
		cancel(flCause)
		synctest.Wait()
		leader.left(t, ctx, flCause)
		joined.left(t, ctx, flCause)
		work.open()
		synctest.Wait()
		stays.got(t, idemflight.Joined, 1)
	})
}

func TestPromise08_WithADeadContextARetainedOutcomeIsStillReplayed(t *testing.T) {
	expired, cancel := context.WithDeadline(context.Background(), time.Unix(1, 0))
	defer cancel()
	user, end := flNewContext()
	end()
	for name, ctx := range map[string]context.Context{"cancelled": flCancelled(flCause), "expired": expired, "a context type of the user's": user} {
		for _, opts := range [][]idemflight.CallOption{nil, {idemflight.Inline()}, {idemflight.WithMaxWait(idemflight.NoWait)}} {
			t.Run(fmt.Sprintf("%s, %v", name, opts), func(t *testing.T) {
				c := idemflight.MustNew(flOptions{MaxWeight: 10, Weigh: func(_ string, v int) int64 { return int64(v) }})
				for key, kept := range map[string]struct {
					value int
					err   error
					want  error
				}{
					"success": {1, nil, nil},
					"final":   {2, idemflight.Final(flBoom), flBoom},
					"held":    {0, idemflight.Unknown(flBoom), idemflight.ErrOutcomeUnknown},
					"shed":    {0, nil, idemflight.ErrValueShed},
				} {
					weight := kept.value
					if key == "shed" {
						weight = 1000
					}
					_, _ = c.Do(context.Background(), key, flReturns(weight, kept.err))
					for range 20 { // a select would take either
						r, err := c.DoResult(ctx, key, flNever[int](t), opts...)
						require.NotErrorIs(t, err, idemflight.ErrLeft, "%s: what is kept is answered, the context does not matter", key)
						if kept.want == nil {
							require.NoError(t, err, key)
						} else {
							require.ErrorIs(t, err, kept.want, key)
						}
						require.Equal(t, kept.value, r.Value, key)
					}
				}
			})
		}
	}
}

func TestPromise08_WithADeadContextFnIsNeverStarted(t *testing.T) {
	for name, ending := range flEndings {
		for _, opts := range [][]idemflight.CallOption{nil, {idemflight.Inline()}, {idemflight.WithMaxWait(idemflight.NoWait)}} {
			t.Run(fmt.Sprintf("%s, %v", name, opts), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := idemflight.MustNew(flOptions{MaxEntries: 1})
					ctx := ending.begin(t)
					time.Sleep(2 * time.Second)
					synctest.Wait()
					for i := range 20 {
						call := flGo(c, ctx, strconv.Itoa(i), flNever[int](t), opts...)
						synctest.Wait()
						call.left(t, ctx, ending.cause)
						_, ok := c.Lookup(strconv.Itoa(i))
						require.False(t, ok, "the key stays absent")
					}
					s := c.Stats()
					require.Zero(t, s.InFlight+s.Entries, "nothing is in flight or kept")
					require.EqualValues(t, 20, s.Left, "Stats.Left")

					// The one place is free, and the key is as good as new.
					call := flGo(c, t.Context(), "0", flReturns(1, nil))
					synctest.Wait()
					call.got(t, idemflight.Executed, 1)
				})
			})
		}
	}
}

func TestPromise08_WithADeadContextNobodyWaitsForAFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(flOptions{})
		work := flNewWork(t)
		leader := flGo(c, t.Context(), flKey, work.returns(1, nil))
		synctest.Wait()
		ctx := flCancelled(flCause)
		for range 20 {
			for _, opts := range [][]idemflight.CallOption{nil, {idemflight.Inline()}, {idemflight.WithMaxWait(time.Hour)}, {idemflight.WithMaxWait(idemflight.NoWait)}} {
				dead := flGo(c, ctx, flKey, flNever[int](t), opts...)
				synctest.Wait()
				dead.left(t, ctx, flCause)
			}
		}
		require.Zero(t, c.Stats().Waiters, "Stats.Waiters")
		work.open()
		synctest.Wait()
		leader.got(t, idemflight.Executed, 1)
	})
}

// flLateContext makes a caller look up late: from its later looks at Done on, the first skip of
// them apart, it waits at the gate. So a test can have both the outcome and the end of the context
// there when the caller is about to wait for either, whoever is scheduled first.
type flLateContext struct {
	context.Context
	skip int
	gate *flGate
}

func (c *flLateContext) Done() <-chan struct{} {
	if c.skip--; c.skip < 0 {
		c.gate.wait()
	}
	return c.Context.Done()
}

func TestPromise08_IfBothAreThereTheOutcomeWins(t *testing.T) {
	for _, skip := range []int{0, 1, 2, 3} {
		for range 50 { // a select takes either
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(flOptions{})
				work := flNewWork(t)
				gate := flNewGate(t)
				ctx, cancel := context.WithCancelCause(context.Background())
				defer cancel(nil)
				leads := t.Context()
				if skip > 0 { // the first look is whether it can end at all
					leads = &flLateContext{ctx, skip, gate}
				}
				leader := flGo(c, leads, flKey, work.returns(1, nil))
				synctest.Wait()
				joined := flGo(c, &flLateContext{ctx, skip, gate}, flKey, flNever[int](t))
				patient := flGo(c, &flLateContext{ctx, skip, gate}, flKey, flNever[int](t), idemflight.WithMaxWait(time.Hour))
				synctest.Wait()
				work.open()
				synctest.Wait()
				cancel(flCause)
				gate.open()
				synctest.Wait()
				leader.got(t, idemflight.Executed, 1)
				for _, call := range []*flCall[int]{joined, patient} {
					require.True(t, call.returned(), "the call must have returned")
					require.NoError(t, call.err, "the outcome was there before the context ended")
					require.Equal(t, 1, call.res.Value)
				}
			})
		}
	}
}

// flSliceError is an error that == panics on.
type flSliceError []string

func (e flSliceError) Error() string { return fmt.Sprint([]string(e)) }

func TestPromise09_AllCallersGetTheSameValueAndTheSameError(t *testing.T) {
	type thing struct{ n int }
	one := &thing{1}
	plain := &flPlainError{"declined"}
	for name, end := range map[string]struct {
		value *thing
		err   error
		want  error
		kept  bool
	}{
		"success":        {one, nil, nil, true},
		"nil, nil":       {nil, nil, nil, true},
		"unmarked":       {one, plain, plain, false},
		"final":          {one, idemflight.Final(plain), plain, true},
		"retryable":      {one, idemflight.Retryable(plain), plain, false},
		"nil, unmarked":  {nil, plain, plain, false},
		"nil, final":     {nil, idemflight.Final(plain), plain, true},
		"marked by kind": {one, idemflight.Final(flSliceError{"a"}), flSliceError{"a"}, true},
		"plain slice":    {one, flSliceError{"a"}, flSliceError{"a"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(idemflight.Options[string, *thing]{})
				gate := flNewGate(t)
				calls := []*flCall[*thing]{flGo(c, ctx, flKey, func(context.Context) (*thing, error) {
					gate.wait()
					return end.value, end.err
				}, opts...)}
				synctest.Wait()
				calls = append(calls,
					flGo(c, t.Context(), flKey, flNever[*thing](t)),
					flGo(c, context.Background(), flKey, flNever[*thing](t)),
					flGo(c, t.Context(), flKey, flNever[*thing](t), idemflight.Inline()),
					flGo(c, t.Context(), flKey, flNever[*thing](t), idemflight.WithMaxWait(time.Hour)))
				synctest.Wait()
				gate.open()
				synctest.Wait()
				if end.kept {
					calls = append(calls, flGo(c, t.Context(), flKey, flNever[*thing](t)), flGo(c, flCancelled(flCause), flKey, flNever[*thing](t)))
					synctest.Wait()
				}
				for i, call := range calls {
					require.True(t, call.returned() && call.panicked == nil && !call.exited, "call %d must have returned", i)
					require.Equal(t, []idemflight.Source{idemflight.Executed, idemflight.Joined, idemflight.Joined, idemflight.Joined, idemflight.Joined, idemflight.Replayed, idemflight.Replayed}[i], call.res.Source, "source of call %d", i)
					if end.value == nil {
						require.Nil(t, call.res.Value, "value of call %d", i)
					} else {
						require.Same(t, end.value, call.res.Value, "every caller gets the very value that fn returned, call %d did not", i)
					}
					require.IsType(t, end.want, call.err, "every caller gets the very error that fn returned or marked, call %d did not", i)
					require.Equal(t, end.want, call.err, "every caller gets the very error that fn returned or marked, call %d did not", i)
					if end.want == error(plain) {
						require.Same(t, plain, call.err, "every caller gets the very error that fn returned or marked, call %d did not", i)
					}
				}
			})
		})
	}
}

type flPlainError struct{ text string }

func (e *flPlainError) Error() string { return e.text }

func TestPromise09_ValueIsReturnedWithAnError(t *testing.T) {
	for name, end := range map[string]struct {
		err      error
		replayed bool
		held     bool
	}{
		"unmarked":  {flBoom, false, false},
		"retryable": {idemflight.Retryable(flBoom), false, false},
		"final":     {idemflight.Final(flBoom), true, false},
		"unknown":   {idemflight.Unknown(flBoom), false, true},
		"ambiguous": {fmt.Errorf("%w: %w", flBoom, context.DeadlineExceeded), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(flOptions{})
				work := flNewWork(t)
				leader := flGo(c, ctx, flKey, work.returns(7, end.err), opts...)
				synctest.Wait()
				joined := flGo(c, t.Context(), flKey, flNever[int](t))
				synctest.Wait()
				work.open()
				synctest.Wait()
				for _, call := range []*flCall[int]{leader, joined} {
					require.ErrorIs(t, call.err, flBoom)
					require.Equal(t, end.held, errors.Is(call.err, idemflight.ErrOutcomeUnknown), "is ErrOutcomeUnknown: %v", call.err)
					require.Equal(t, 7, call.res.Value, "the callers of the flight get fn's value, also with an error")
				}
				require.Equal(t, idemflight.Executed, leader.res.Source)
				require.Equal(t, idemflight.Joined, joined.res.Source)
				if end.replayed {
					v, err := c.Do(t.Context(), flKey, flNever[int](t))
					require.ErrorIs(t, err, flBoom)
					require.Equal(t, 7, v, "the value is part of the outcome that is replayed")
				}
				if end.held {
					v, err := c.Do(t.Context(), flKey, flNever[int](t))
					require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
					require.ErrorIs(t, err, flBoom)
					require.Zero(t, v, "a held key keeps no value")
				}
			})
		})
	}
}

// flValue requires that v, a zero or nil value, is executed, joined and replayed like any other.
func flValue[V any](t *testing.T, name string, v V) {
	t.Run(name, func(t *testing.T) {
		flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
			c := idemflight.MustNew(idemflight.Options[string, V]{})
			gate := flNewGate(t)
			calls := []*flCall[V]{flGo(c, ctx, flKey, func(context.Context) (V, error) { gate.wait(); return v, nil }, opts...)}
			synctest.Wait()
			calls = append(calls, flGo(c, t.Context(), flKey, flNever[V](t)))
			synctest.Wait()
			gate.open()
			synctest.Wait()
			calls = append(calls, flGo(c, t.Context(), flKey, flNever[V](t)))
			synctest.Wait()
			for i, call := range calls {
				call.got(t, []idemflight.Source{idemflight.Executed, idemflight.Joined, idemflight.Replayed}[i], v)
			}
			e, ok := c.Lookup(flKey)
			require.True(t, ok)
			require.Equal(t, idemflight.Retained, e.State, "it is kept like any value")
			require.Equal(t, 1, c.Len(), "it is kept like any value")
		})
	})
}

func TestPromise09_ZeroAndNilValuesAreValues(t *testing.T) {
	flValue(t, "0", 0)
	flValue(t, "empty string", "")
	flValue(t, "false", false)
	flValue(t, "no fields", struct{}{})
	flValue(t, "nil pointer", (*int)(nil))
	flValue(t, "nil slice", []int(nil))
	flValue(t, "nil map", map[string]int(nil))
	flValue(t, "nil channel", (chan int)(nil))
	flValue(t, "nil interface", any(nil))
	flValue(t, "nil error as a value", error(nil))
	flValue(t, "nil pointer in an interface", any((*int)(nil)))
}

func TestPromise09_VIsSharedForTheWholeTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[string, []int]{TTL: time.Hour})
		one := []int{1, 2, 3}
		for range 6 {
			v, err := c.Do(t.Context(), flKey, flReturns(one, nil))
			require.NoError(t, err)
			require.Same(t, &one[0], &v[0], "the value is shared, not copied")
			time.Sleep(9 * time.Minute)
		}
	})
}

func TestPromise09_AFlightThatAllHaveLeftStillSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(flOptions{MaxEntries: 1})
		work := flNewWork(t)
		ctx, cancel := context.WithCancelCause(context.Background())
		var calls []*flCall[int]
		for range 5 {
			calls = append(calls, flGo(c, ctx, flKey, work.returns(0, nil)))
		}
		synctest.Wait()
		cancel(flCause)
		synctest.Wait()
		for _, call := range calls {
			call.left(t, ctx, flCause)
		}
		require.Equal(t, 1, c.Stats().InFlight, "the flight goes on with nobody")
		work.open()
		synctest.Wait()
		s := c.Stats()
		require.Zero(t, s.InFlight, "Stats.InFlight")
		require.EqualValues(t, 1, s.Retains, "Stats.Retains")
		retry := flGo(c, t.Context(), flKey, flNever[int](t))
		synctest.Wait()
		retry.got(t, idemflight.Replayed, 0)
	})
}

// refused requires that the call has ended with ErrInFlight, after it waited for took.
func (call *flCall[V]) refused(t *testing.T, took time.Duration) {
	t.Helper()
	require.True(t, call.returned(), "who may not wait any longer returns")
	require.ErrorIs(t, call.err, idemflight.ErrInFlight, "who may not wait (any longer) gets ErrInFlight")
	require.NotErrorIs(t, call.err, idemflight.ErrLeft, "its own context has not ended")
	require.Zero(t, call.res, "no outcome was obtained")
	require.Equal(t, took, call.took(), "how long the call waited")
}

func TestPromise10_MaxWaitIsExact(t *testing.T) {
	for _, wait := range []time.Duration{1, time.Millisecond, time.Second, time.Hour, 1000 * time.Hour} {
		t.Run(wait.String(), func(t *testing.T) {
			flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(flOptions{})
				work := flNewWork(t)
				leader := flGo(c, ctx, flKey, work.returns(1, nil), opts...)
				time.Sleep(time.Second)
				flying := flGoroutines(t)
				var calls []*flCall[int]
				for _, ctx := range []context.Context{context.Background(), t.Context()} {
					calls = append(calls,
						flGo(c, ctx, flKey, flNever[int](t), idemflight.WithMaxWait(wait)),
						flGo(c, ctx, flKey, flNever[int](t), idemflight.Inline(), idemflight.WithMaxWait(wait)))
				}
				stays := flGo(c, t.Context(), flKey, flNever[int](t))
				synctest.Wait()
				if wait < 2*time.Second { // until then the leader with a deadline is there
					require.Equal(t, flying+5, flGoroutines(t), "goroutines: waiting for a limited time needs none")
				}
				time.Sleep(wait - 1)
				for _, call := range calls {
					require.False(t, call.returned(), "a nanosecond before its MaxWait a call waits")
				}
				time.Sleep(1)
				synctest.Wait()
				for _, call := range calls {
					call.refused(t, wait)
				}
				require.Equal(t, 1, c.Stats().Waiters, "Stats.Waiters")
				require.EqualValues(t, 4, c.Stats().NotWaited, "Stats.NotWaited")

				time.Sleep(time.Hour)
				require.Equal(t, 1, c.Stats().InFlight, "the flight goes on")
				work.open()
				synctest.Wait()
				require.True(t, leader.returned())
				stays.got(t, idemflight.Joined, 1)
			})
		})
	}
}

func TestPromise10_NoWaitDoesNotWaitAtAll(t *testing.T) {
	for _, wait := range []time.Duration{idemflight.NoWait, 0, -1, -time.Hour, math.MinInt64} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(flOptions{})
			work := flNewWork(t)
			leader := flGo(c, t.Context(), flKey, work.returns(1, nil))
			synctest.Wait()
			for _, ctx := range []context.Context{context.Background(), t.Context()} {
				call := flGo(c, ctx, flKey, flNever[int](t), idemflight.WithMaxWait(wait))
				synctest.Wait()
				call.refused(t, 0)
			}
			require.Zero(t, c.Stats().Waiters, "who does not wait is no waiter")
			work.open()
			synctest.Wait()
			leader.got(t, idemflight.Executed, 1)
			call := flGo(c, t.Context(), flKey, flNever[int](t), idemflight.WithMaxWait(wait))
			synctest.Wait()
			call.got(t, idemflight.Replayed, 1) // a replay needs no waiting
		})
	}
}

func TestPromise10_AnOutcomeWithinMaxWaitIsShared(t *testing.T) {
	for _, wait := range []time.Duration{time.Second + 1, time.Hour, math.MaxInt64} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(flOptions{})
			work := flNewWork(t)
			flGo(c, t.Context(), flKey, work.returns(1, nil))
			synctest.Wait()
			joined := flGo(c, t.Context(), flKey, flNever[int](t), idemflight.WithMaxWait(wait))
			time.Sleep(time.Second)
			work.open()
			synctest.Wait()
			joined.got(t, idemflight.Joined, 1)
			require.Equal(t, time.Second, joined.took(), "it does not wait longer than it has to")
		})
	}
}

func TestPromise10_WhicheverEndsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(flOptions{})
		work := flNewWork(t)
		flGo(c, t.Context(), flKey, work.returns(1, nil))
		synctest.Wait()
		ctx, cancel := context.WithTimeoutCause(context.Background(), 2*time.Second, flCause)
		defer cancel()
		first := flGo(c, ctx, flKey, flNever[int](t), idemflight.WithMaxWait(time.Second))
		second := flGo(c, ctx, flKey, flNever[int](t), idemflight.WithMaxWait(3*time.Second))
		time.Sleep(time.Hour)
		first.refused(t, time.Second)
		second.left(t, ctx, flCause)
		require.Equal(t, 2*time.Second, second.took())
	})
}

func TestPromise10_ALeaderIsNeverBounded(t *testing.T) {
	for _, wait := range []time.Duration{idemflight.NoWait, 0, 1, time.Second} {
		t.Run(wait.String(), func(t *testing.T) {
			for _, l := range flLeaders {
				if l.name == "deadline" {
					continue // it leaves, for a reason of its own
				}
				t.Run(l.name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						finding := flNewWork(t)
						c := idemflight.MustNew(flOptions{MaxWaiters: 1, Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
							return finding.returns(2, nil)(ctx)
						}})
						ctx, cancel := l.ctx()
						defer cancel()
						opts := append([]idemflight.CallOption{idemflight.WithMaxWait(wait)}, l.opts...)
						work := flNewWork(t)
						leader := flGo(c, ctx, flKey, work.returns(1, idemflight.Unknown(flBoom)), opts...)
						time.Sleep(time.Minute)
						require.False(t, leader.returned(), "MaxWait is about the flights of others")
						work.open()
						synctest.Wait()
						require.ErrorIs(t, leader.err, idemflight.ErrOutcomeUnknown)

						leader = flGo(c, ctx, flKey, flNever[int](t), opts...)
						time.Sleep(time.Minute)
						require.False(t, leader.returned(), "who asks Reconcile leads its flight")
						finding.open()
						synctest.Wait()
						leader.got(t, idemflight.Reconciled, 2)
					})
				})
			}
		})
	}
}

func TestPromise10_MaxWaitersBoundsJoinedCallersPerFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(flOptions{MaxWaiters: 3})
		work, otherWork := flNewWork(t), flNewWork(t)
		leaderCtx, leave := context.WithCancelCause(context.Background())
		leader := flGo(c, leaderCtx, flKey, work.returns(1, nil))
		synctest.Wait()
		ctx, cancel := context.WithCancelCause(context.Background())
		joined := []*flCall[int]{
			flGo(c, ctx, flKey, flNever[int](t)),
			flGo(c, t.Context(), flKey, flNever[int](t), idemflight.WithMaxWait(time.Minute)),
			flGo(c, context.Background(), flKey, flNever[int](t)),
		}
		synctest.Wait()
		full := func(why string) {
			t.Helper()
			for _, opts := range [][]idemflight.CallOption{nil, {idemflight.WithMaxWait(time.Hour)}, {idemflight.Inline()}} {
				call := flGo(c, t.Context(), flKey, flNever[int](t), opts...)
				synctest.Wait()
				require.True(t, call.returned(), "one more than MaxWaiters is refused at once: %s", why)
				call.refused(t, 0)
			}
			require.Equal(t, 3, c.Stats().Waiters, "waiters, the refused not among them: %s", why)
		}
		full("the leader does not count, three joined do")

		leave(flCause)
		synctest.Wait()
		leader.left(t, leaderCtx, flCause)
		full("the leader that left makes no place, it had none")

		cancel(flCause)
		synctest.Wait()
		joined[0].left(t, ctx, flCause)
		require.Equal(t, 2, c.Stats().Waiters)
		joined[0] = flGo(c, t.Context(), flKey, flNever[int](t))
		synctest.Wait()
		require.False(t, joined[0].returned(), "who left makes place for another")
		full("whose context ended was replaced")

		time.Sleep(time.Minute)
		synctest.Wait()
		joined[1].refused(t, time.Minute)
		joined[1] = flGo(c, t.Context(), flKey, flNever[int](t))
		synctest.Wait()
		require.False(t, joined[1].returned(), "whose MaxWait has passed makes place for another")
		full("whose MaxWait has passed was replaced")

		// Another flight has waiters of its own.
		others := []*flCall[int]{flGo(c, t.Context(), "other", otherWork.returns(1, nil))}
		synctest.Wait()
		for range 3 {
			others = append(others, flGo(c, t.Context(), "other", flNever[int](t)))
		}
		synctest.Wait()
		for _, call := range others {
			require.False(t, call.returned(), "MaxWaiters is per flight")
		}
		otherWork.open()
		work.open()
		synctest.Wait()
		for _, call := range append(joined, others[1:]...) {
			call.got(t, idemflight.Joined, 1)
		}
		for range 10 {
			call := flGo(c, t.Context(), flKey, flNever[int](t))
			synctest.Wait()
			call.got(t, idemflight.Replayed, 1) // replays are not bounded
		}
	})
}

func TestPromise10_WithoutMaxWaitersThereIsNoBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(flOptions{})
		work := flNewWork(t)
		flGo(c, t.Context(), flKey, work.returns(1, nil))
		synctest.Wait()
		var joined []*flCall[int]
		for range 1000 {
			joined = append(joined, flGo(c, t.Context(), flKey, flNever[int](t)))
		}
		synctest.Wait()
		e, _ := c.Lookup(flKey)
		require.Equal(t, 1000, e.Waiters, "Entry.Waiters")
		work.open()
		synctest.Wait()
		for _, call := range joined {
			call.got(t, idemflight.Joined, 1)
		}
	})
}

// flBlowUp is named in the stack of its panic.
//
//go:noinline
func flBlowUp(v any) { panic(v) }

func flPanics(v any) flFn {
	return func(context.Context) (int, error) {
		flBlowUp(v)
		return 1, nil
	}
}

// flPanicOf requires that v is a *PanicError with this value and the stack of flBlowUp.
func flPanicOf(t *testing.T, v any, value any) *idemflight.PanicError {
	t.Helper()
	p, ok := v.(*idemflight.PanicError)
	require.True(t, ok, "must be a *PanicError, is %T: %v", v, v)
	require.Equal(t, value, p.Value, "PanicError.Value is what fn panicked with")
	require.Contains(t, string(p.Stack), "flBlowUp", "PanicError.Stack is that of the goroutine that panicked")
	require.Contains(t, p.Error(), fmt.Sprint(value), "Error shows the value")
	require.Contains(t, p.Error(), "flBlowUp", "Error shows the stack")
	return p
}

func TestPromise14_TheLeaderPanicsWithPanicError(t *testing.T) {
	for name, value := range map[string]any{
		"string":        "text",
		"number":        42,
		"error":         flBoom,
		"wrapped error": fmt.Errorf("wrapped: %w", flBoom),
		"final":         idemflight.Final(flBoom),
		"uncomparable":  []int{1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(flOptions{})
				leader := flGo(c, ctx, flKey, flPanics(value), opts...)
				synctest.Wait()
				require.True(t, leader.returned())
				require.False(t, leader.exited, "the leader panics, it does not exit")
				p := flPanicOf(t, leader.panicked, value)
				if err, ok := value.(error); ok {
					require.Equal(t, err, p.Unwrap(), "Unwrap gives the value if it is an error")
					require.ErrorIs(t, p, flBoom)
				} else {
					require.NoError(t, p.Unwrap(), "Unwrap gives nil if the value is no error")
				}
			})
		})
	}
}

func TestPromise14_PanicsOfTheRuntime(t *testing.T) {
	for name, end := range map[string]struct {
		fn    flFn
		value any
	}{
		"nil":         {func(context.Context) (int, error) { panic(nil) }, new(runtime.PanicNilError)},
		"nil map":     {func(context.Context) (int, error) { var m map[int]int; m[1] = 1; return 1, nil }, runtime.Error(nil)},
		"nil pointer": {func(context.Context) (int, error) { var p *int; return *p, nil }, runtime.Error(nil)},
	} {
		t.Run(name, func(t *testing.T) {
			flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(flOptions{})
				leader := flGo(c, ctx, flKey, end.fn, opts...)
				synctest.Wait()
				p, ok := leader.panicked.(*idemflight.PanicError)
				require.True(t, ok, "must be a *PanicError, is %T", leader.panicked)
				if end.value != nil {
					require.IsType(t, end.value, p.Value, "PanicError.Value")
				}
				var re runtime.Error
				require.ErrorAs(t, p, &re, "the error of the runtime is behind it")
				_, err := c.Do(t.Context(), flKey, flNever[int](t))
				require.ErrorAs(t, err, &re, "and behind the error of who comes later")
			})
		})
	}
}

// flSays are what fn may have said about its effect before it ends badly, with what then becomes of
// the key by default.
var flSays = map[string]struct {
	say  func(t *testing.T, ctx context.Context)
	held bool
}{
	"nothing said": {func(*testing.T, context.Context) {}, true},
	"an effect has begun": {func(t *testing.T, ctx context.Context) {
		require.NoError(t, idemflight.BeginEffect(ctx))
	}, true},
	"none has begun": {func(_ *testing.T, ctx context.Context) { idemflight.NoEffect(ctx) }, false},
}

func TestPromise14_JoinedCallersGetThePanicInTheirError(t *testing.T) {
	for name, says := range flSays {
		t.Run(name, func(t *testing.T) {
			flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(flOptions{})
				gate := flNewGate(t)
				leader := flGo(c, ctx, flKey, func(ctx context.Context) (int, error) {
					says.say(t, ctx)
					gate.wait()
					flBlowUp(flBoom)
					return 1, nil
				}, opts...)
				synctest.Wait()
				var joined []*flCall[int]
				for _, ctx := range []context.Context{context.Background(), t.Context()} {
					joined = append(joined, flGo(c, ctx, flKey, flNever[int](t)), flGo(c, ctx, flKey, flNever[int](t), idemflight.Inline()))
				}
				synctest.Wait()
				gate.open()
				synctest.Wait()
				p := flPanicOf(t, leader.panicked, flBoom)
				for _, call := range joined {
					require.True(t, call.returned(), "nobody hangs")
					require.Nil(t, call.panicked, "only the leader panics")
					require.Zero(t, call.res.Value, "fn returned no value")
					require.Equal(t, idemflight.Joined, call.res.Source)
					var got *idemflight.PanicError
					require.ErrorAs(t, call.err, &got, "joined callers get *PanicError in their error")
					require.Same(t, p, got, "all callers get the same *PanicError")
					require.ErrorIs(t, call.err, flBoom, "what fn panicked with is behind it")
					require.Equal(t, says.held, errors.Is(call.err, idemflight.ErrOutcomeUnknown), "is ErrOutcomeUnknown: %v", call.err)
				}
				later := flGo(c, t.Context(), flKey, func(context.Context) (int, error) {
					require.False(t, says.held, "fn must not run while the key is held")
					return 2, nil
				})
				synctest.Wait()
				if !says.held {
					later.got(t, idemflight.Executed, 2)
					return
				}
				require.Nil(t, later.panicked, "the panic is re-panicked in its flight only")
				require.ErrorIs(t, later.err, idemflight.ErrOutcomeUnknown)
				require.ErrorIs(t, later.err, flBoom, "later callers get what was panicked with as well")
			})
		})
	}
}

func TestPromise14_TheProcessSurvivesWhenAllHaveLeft(t *testing.T) {
	for name, end := range map[string]flFn{"panic": flPanics(flBoom), "Goexit": flGoexits} {
		for joining := range 3 {
			t.Run(fmt.Sprintf("%s, %d joined", name, joining), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := idemflight.MustNew(flOptions{MaxEntries: 1})
					own := flGoroutines(t)
					gate := flNewGate(t)
					ctx, cancel := context.WithCancelCause(context.Background())
					calls := []*flCall[int]{flGo(c, ctx, flKey, func(ctx context.Context) (int, error) { gate.wait(); return end(ctx) })}
					synctest.Wait()
					for range joining {
						calls = append(calls, flGo(c, ctx, flKey, flNever[int](t)))
					}
					synctest.Wait()
					cancel(flCause)
					synctest.Wait()
					for _, call := range calls {
						call.left(t, ctx, flCause)
					}
					gate.open()
					synctest.Wait()
					require.Equal(t, own, flGoroutines(t), "goroutines when all is over")
					s := c.Stats()
					require.Zero(t, s.InFlight, "the flight has ended")
					require.EqualValues(t, 1, s.Panics, "Stats.Panics")
					_, err := c.Do(t.Context(), flKey, flNever[int](t))
					require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "the key is held")
				})
			})
		}
	}
}

func TestPromise14_WhenTheLeaderHasLeftJoinedCallersGetIt(t *testing.T) {
	for name, end := range map[string]flFn{"panic": flPanics(flBoom), "Goexit": flGoexits} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(flOptions{})
				gate := flNewGate(t)
				ctx, cancel := context.WithCancelCause(context.Background())
				leader := flGo(c, ctx, flKey, func(ctx context.Context) (int, error) { gate.wait(); return end(ctx) })
				synctest.Wait()
				joined := flGo(c, t.Context(), flKey, flNever[int](t))
				synctest.Wait()
				cancel(flCause)
				synctest.Wait()
				leader.left(t, ctx, flCause)
				gate.open()
				synctest.Wait()
				require.True(t, joined.returned(), "nobody hangs")
				require.Nil(t, joined.panicked, "only a leader re-panics")
				require.False(t, joined.exited, "only a leader exits")
				require.ErrorIs(t, joined.err, idemflight.ErrOutcomeUnknown)
				if name == "panic" {
					require.ErrorIs(t, joined.err, flBoom)
				} else {
					require.ErrorIs(t, joined.err, idemflight.ErrGoexit)
				}
			})
		})
	}
}

func TestPromise14_Goexit(t *testing.T) {
	for name, says := range flSays {
		for _, l := range flLeaders {
			t.Run(name+", "+l.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := idemflight.MustNew(flOptions{})
					gate := flNewGate(t)
					ctx, cancel := l.ctx()
					defer cancel()
					leader := flGo(c, ctx, flKey, func(ctx context.Context) (int, error) {
						says.say(t, ctx)
						gate.wait()
						return flGoexits(ctx)
					}, l.opts...)
					synctest.Wait()
					joined := []*flCall[int]{
						flGo(c, t.Context(), flKey, flNever[int](t)),
						flGo(c, context.Background(), flKey, flNever[int](t)),
						flGo(c, t.Context(), flKey, flNever[int](t), idemflight.Inline()),
					}
					synctest.Wait()
					gate.open()
					synctest.Wait()
					require.True(t, leader.returned(), "nobody hangs")
					require.Nil(t, leader.panicked, "Goexit is no panic")
					require.Equal(t, l.stays, leader.exited, "the leader's goroutine exits exactly if fn ran on it")
					if !l.stays {
						joined = append(joined, leader)
					}
					for _, call := range joined {
						require.True(t, call.returned(), "nobody hangs")
						require.Nil(t, call.panicked, "Goexit is no panic")
						require.False(t, call.exited, "only the goroutine that fn ran on exits")
						require.ErrorIs(t, call.err, idemflight.ErrGoexit, "callers get ErrGoexit")
						require.Equal(t, says.held, errors.Is(call.err, idemflight.ErrOutcomeUnknown), "is ErrOutcomeUnknown: %v", call.err)
						require.Zero(t, call.res.Value, "fn returned no value")
					}
					s := c.Stats()
					require.EqualValues(t, 1, s.Panics, "Stats.Panics counts Goexit")
					require.EqualValues(t, 1, s.Executed, "the leader's call counts as executed")
					_, ok := c.Lookup(flKey)
					require.Equal(t, says.held, ok, "whether the key is held")
				})
			})
		}
	}
}

func TestPromise14_NobodyHangsOrSeesZeroNil(t *testing.T) {
	for name, end := range map[string]flFn{
		"panic":     flPanics(flBoom),
		"panic nil": func(context.Context) (int, error) { panic(nil) },
		"Goexit":    flGoexits,
		"Goexit in a deferred function while panicking": func(ctx context.Context) (int, error) {
			defer runtime.Goexit()
			panic(flBoom)
		},
		"panic in a deferred function while exiting": func(ctx context.Context) (int, error) {
			defer func() { panic(flBoom) }()
			return flGoexits(ctx)
		},
		"panic in a deferred function while exiting, recovered": func(ctx context.Context) (int, error) {
			defer func() {
				defer func() { _ = recover() }()
				panic(flBoom)
			}()
			return flGoexits(ctx)
		},
		"second panic in a deferred function": func(context.Context) (int, error) {
			defer func() { panic("second") }()
			panic(flBoom)
		},
	} {
		for said, says := range flSays {
			t.Run(name+", "+said, func(t *testing.T) {
				flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
					c := idemflight.MustNew(flOptions{})
					own := flGoroutines(t)
					gate := flNewGate(t)
					calls := []*flCall[int]{flGo(c, ctx, flKey, func(ctx context.Context) (int, error) {
						says.say(t, ctx)
						gate.wait()
						return end(ctx)
					}, opts...)}
					synctest.Wait()
					calls = append(calls, flGo(c, t.Context(), flKey, flNever[int](t)), flGo(c, context.Background(), flKey, flNever[int](t)))
					synctest.Wait()
					gate.open()
					synctest.Wait()
					for i, call := range calls {
						require.True(t, call.returned(), "call %d must not hang", i)
						require.False(t, call.panicked == nil && !call.exited && call.err == nil, "call %d must not see (zero, nil)", i)
						require.False(t, i > 0 && (call.panicked != nil || call.exited), "joined caller %d gets an error, it does not panic or exit", i)
					}
					require.Equal(t, own, flGoroutines(t), "goroutines when all is over")
					require.Zero(t, c.Stats().InFlight, "Stats.InFlight")
					require.EqualValues(t, 1, c.Stats().Panics, "Stats.Panics")
					e, ok := c.Lookup(flKey)
					require.Equal(t, says.held, ok && e.State == idemflight.Held, "whether the key is held")
					if !says.held {
						v, err := c.Do(t.Context(), flKey, flReturns(2, nil))
						require.NoError(t, err, "the key is free")
						require.Equal(t, 2, v)
					} else {
						_, err := c.Do(t.Context(), flKey, flNever[int](t))
						require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
					}
				})
			})
		}
	}
}

func TestPromise14_InsideEachOther(t *testing.T) {
	flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
		c := idemflight.MustNew(flOptions{})
		leader := flGo(c, ctx, "outer", func(ctx context.Context) (int, error) {
			return c.Do(ctx, "inner", flPanics(flBoom))
		}, opts...)
		synctest.Wait()
		outer, ok := leader.panicked.(*idemflight.PanicError)
		require.True(t, ok, "the panic of an inner fn reaches the outer leader as a *PanicError, got %T", leader.panicked)
		require.ErrorIs(t, outer, flBoom, "what it panicked with is behind it")
		require.Contains(t, outer.Error(), "flBlowUp", "and the stack of where it panicked")

		// The inner fn runs on the goroutine of the outer one, which then exits as well.
		leader = flGo(c, ctx, "outer 2", func(ctx context.Context) (int, error) {
			_, _ = c.Do(ctx, "inner 2", flGoexits, idemflight.Inline())
			return 1, nil
		}, opts...)
		synctest.Wait()
		require.True(t, leader.returned())
		require.True(t, leader.exited || errors.Is(leader.err, idemflight.ErrGoexit), "Goexit of an inner fn on the same goroutine ends the outer one as well, got %v", leader.err)
		require.Zero(t, c.Stats().InFlight, "all flights have ended")
	})
}

// flHooked is a cache whose hooks end badly, with a record of what its observer was told.
type flHooked struct {
	*flCache
	mu     sync.Mutex
	events []idemflight.Event[string]
}

func (h *flHooked) told(kind idemflight.EventKind) (found []idemflight.Event[string]) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ev := range h.events {
		if ev.Kind == kind {
			found = append(found, ev)
		}
	}
	return found
}

func flNewHooked(opts flOptions) *flHooked {
	h := new(flHooked)
	opts.Observer = func(_ context.Context, ev idemflight.Event[string]) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.events = append(h.events, ev)
	}
	h.flCache = idemflight.MustNew(opts)
	return h
}

// flNoLockHeld requires that every key of c can still be used.
func flNoLockHeld(t *testing.T, c *flCache) {
	for i := range 100 {
		_, err := c.Do(t.Context(), "fresh "+strconv.Itoa(i), flReturns(1, nil))
		require.NoError(t, err)
	}
	c.Len()
	c.Stats()
	for key := range c.All() {
		c.Lookup(key)
		c.Forget(key)
	}
	c.Resolve(flKey, 1, nil)
}

func TestPromise14_APanicInClassifyHolds(t *testing.T) {
	for name, classify := range map[string]func(error) idemflight.Disposition{
		"panic":  func(error) idemflight.Disposition { panic("classify") },
		"Goexit": func(error) idemflight.Disposition { runtime.Goexit(); return idemflight.Release },
	} {
		for ending, end := range map[string]struct {
			fn   flFn
			want error
		}{
			"error":  {flReturns(7, flBoom), flBoom},
			"panic":  {flPanics(flBoom), flBoom},
			"Goexit": {flGoexits, idemflight.ErrGoexit},
		} {
			for _, l := range flLeaders {
				t.Run(fmt.Sprintf("%s after %s, %s", name, ending, l.name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						h := flNewHooked(flOptions{Classify: classify})
						c := h.flCache
						gate := flNewGate(t)
						ctx, cancel := l.ctx()
						defer cancel()
						leader := flGo(c, ctx, flKey, func(ctx context.Context) (int, error) { gate.wait(); return end.fn(ctx) }, l.opts...)
						synctest.Wait()
						joined := flGo(c, t.Context(), flKey, flNever[int](t))
						synctest.Wait()
						gate.open()
						synctest.Wait()
						require.True(t, leader.returned() && joined.returned(), "no caller hangs")
						require.Nil(t, joined.panicked)
						require.ErrorIs(t, joined.err, idemflight.ErrOutcomeUnknown, "the flight ends as a Hold")
						require.ErrorIs(t, joined.err, end.want, "what fn ended with is behind it")
						switch {
						case ending == "panic" && leader.exited, name == "Goexit" && leader.exited:
							require.True(t, l.stays && name == "Goexit", "only a Goexit on its own goroutine cannot be kept from the leader")
						case ending == "panic":
							flPanicOf(t, leader.panicked, flBoom)
						case ending == "Goexit" && l.stays:
							require.True(t, leader.exited, "the leader exits with fn")
						default:
							require.Nil(t, leader.panicked, "a panic in Classify is not the leader's")
							require.ErrorIs(t, leader.err, idemflight.ErrOutcomeUnknown)
							require.ErrorIs(t, leader.err, end.want)
							if ending == "error" {
								require.Equal(t, 7, leader.res.Value, "fn's value")
								require.Equal(t, 7, joined.res.Value, "fn's value")
							}
						}
						e, ok := c.Lookup(flKey)
						require.True(t, ok)
						require.Equal(t, idemflight.Held, e.State)
						require.EqualValues(t, 1, c.Stats().HookPanics, "Stats.HookPanics")
						events := h.told(idemflight.EventPanicked)
						require.Len(t, events, 1, "EventPanicked")
						require.Equal(t, flKey, events[0].Key)
						require.Error(t, events[0].Err)
						if name == "panic" {
							var p *idemflight.PanicError
							require.ErrorAs(t, events[0].Err, &p)
							require.Equal(t, "classify", p.Value)
						}
						require.Zero(t, c.Stats().InFlight)
						flNoLockHeld(t, c)
					})
				})
			}
		}
	}
}

func TestPromise14_AfterAPanicInWeighTheOutcomeWeighsZero(t *testing.T) {
	for name, weigh := range map[string]func(){"panic": func() { panic("weigh") }, "Goexit": runtime.Goexit} {
		for _, l := range flLeaders {
			t.Run(name+", "+l.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := flNewHooked(flOptions{MaxWeight: 10, Weigh: func(_ string, v int) int64 {
						if v == 1000 {
							weigh()
						}
						return int64(v)
					}})
					c := h.flCache
					_, err := c.Do(t.Context(), "before", flReturns(5, nil))
					require.NoError(t, err)
					gate := flNewGate(t)
					ctx, cancel := l.ctx()
					defer cancel()
					leader := flGo(c, ctx, flKey, func(context.Context) (int, error) { gate.wait(); return 1000, nil }, l.opts...)
					synctest.Wait()
					joined := flGo(c, t.Context(), flKey, flNever[int](t))
					synctest.Wait()
					gate.open()
					synctest.Wait()
					joined.got(t, idemflight.Joined, 1000)
					require.True(t, leader.returned(), "no caller hangs")
					if name == "panic" || !l.stays {
						leader.got(t, idemflight.Executed, 1000)
					}
					s := c.Stats()
					require.EqualValues(t, 5, s.Weight, "Stats.Weight: the outcome weighs 0, the other one still 5")
					require.Zero(t, s.Shed, "nothing is shed for it")
					require.EqualValues(t, 1, s.HookPanics, "Stats.HookPanics")
					events := h.told(idemflight.EventPanicked)
					require.Len(t, events, 1, "EventPanicked")
					require.Equal(t, flKey, events[0].Key)
					later := flGo(c, t.Context(), flKey, flNever[int](t))
					synctest.Wait()
					later.got(t, idemflight.Replayed, 1000)
					flNoLockHeld(t, c)
				})
			})
		}
	}
}

func TestPromise14_APanicInObserverIsContained(t *testing.T) {
	for name, observe := range map[string]func(){"panic": func() { panic("observer") }, "Goexit": runtime.Goexit} {
		for ending, fn := range map[string]flFn{"value": flReturns(1, nil), "panic": flPanics(flBoom)} {
			for _, l := range flLeaders {
				t.Run(fmt.Sprintf("%s after %s, %s", name, ending, l.name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						bad := true
						c := idemflight.MustNew(flOptions{Observer: func(context.Context, idemflight.Event[string]) {
							if bad {
								observe()
							}
						}})
						gate := flNewGate(t)
						ctx, cancel := l.ctx()
						defer cancel()
						leader := flGo(c, ctx, flKey, func(ctx context.Context) (int, error) { gate.wait(); return fn(ctx) }, l.opts...)
						synctest.Wait()
						joined := flGo(c, t.Context(), flKey, flNever[int](t))
						leaving, leave := context.WithCancelCause(context.Background())
						left := flGo(c, leaving, flKey, flNever[int](t))
						refused := flGo(c, t.Context(), flKey, flNever[int](t), idemflight.WithMaxWait(idemflight.NoWait))
						synctest.Wait()
						leave(flCause)
						synctest.Wait()
						gate.open()
						synctest.Wait()
						later := flGo(c, t.Context(), flKey, flNever[int](t))
						synctest.Wait()
						require.EqualValues(t, 5, c.Stats().HookPanics, "Stats.HookPanics: the observer was told of five calls")
						bad = false
						for i, call := range []*flCall[int]{leader, joined, left, refused, later} {
							require.True(t, call.returned(), "call %d must not hang", i)
							require.False(t, name == "panic" && call.exited, "call %d must not exit", i)
						}
						if name == "panic" {
							left.left(t, leaving, flCause)
							refused.refused(t, 0)
							if ending == "value" {
								leader.got(t, idemflight.Executed, 1)
								joined.got(t, idemflight.Joined, 1)
								later.got(t, idemflight.Replayed, 1)
							} else {
								flPanicOf(t, leader.panicked, flBoom)
								require.ErrorIs(t, joined.err, flBoom)
								require.ErrorIs(t, later.err, flBoom)
							}
						}
						s := c.Stats()
						require.EqualValues(t, 5, flCalls(s), "each call counts once all the same")
						require.Zero(t, s.InFlight+s.Waiters)
						_, ok := c.Lookup(flKey)
						require.True(t, ok, "the outcome is kept")
						flNoLockHeld(t, c)
					})
				})
			}
		}
	}
}

func TestNilAndUnhashableArgumentsPanicAtTheCall(t *testing.T) {
	type anyCache = idemflight.Cache[any, int]
	type composite struct{ of any }
	type fn = func(context.Context) (int, error)
	run := flReturns(1, nil)
	for name, bad := range map[string]struct {
		ctx  context.Context
		key  any
		fn   fn
		says []string
	}{
		"nil ctx":                   {nil, flKey, run, []string{"nil", "ctx|context"}},
		"nil fn":                    {context.Background(), flKey, nil, []string{"nil", "fn"}},
		"nil fn, dead ctx":          {flCancelled(flCause), flKey, nil, []string{"nil", "fn"}},
		"slice":                     {context.Background(), []int{1}, run, []string{"unhashable|not hashable|hash"}},
		"map":                       {context.Background(), map[string]int{}, run, []string{"unhashable|not hashable|hash"}},
		"func":                      {context.Background(), func() {}, run, []string{"unhashable|not hashable|hash"}},
		"slice in a struct":         {context.Background(), composite{[]int{1}}, run, []string{"unhashable|not hashable|hash"}},
		"slice in an array":         {context.Background(), [2]any{1, []int{1}}, run, []string{"unhashable|not hashable|hash"}},
		"slice in a struct, nested": {context.Background(), composite{composite{[]int{1}}}, run, []string{"unhashable|not hashable|hash"}},
	} {
		for state, put := range map[string]func(c *anyCache, gate *flGate){
			"absent": func(*anyCache, *flGate) {},
			"in flight": func(c *anyCache, gate *flGate) {
				flGo(c, context.Background(), any(flKey), func(context.Context) (int, error) { gate.wait(); return 1, nil })
			},
			"retained": func(c *anyCache, _ *flGate) { flGo(c, context.Background(), any(flKey), run) },
			"held": func(c *anyCache, _ *flGate) {
				flGo(c, context.Background(), any(flKey), flReturns(0, idemflight.Unknown(flBoom)))
			},
		} {
			for _, closed := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, closed %v", name, state, closed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						events := 0
						c := idemflight.MustNew(idemflight.Options[any, int]{MaxEntries: 8, Observer: func(context.Context, idemflight.Event[any]) { events++ }})
						gate := flNewGate(t)
						put(c, gate)
						synctest.Wait()
						if closed {
							_ = c.Close(flCancelled(flCause))
						}
						before, told := c.Stats(), events
						wrapped := idemflight.Wrap(c, func(any) (any, idemflight.Fingerprint, error) { return bad.key, idemflight.Fingerprint{}, nil },
							func(context.Context, any) (int, error) { return 1, nil })
						for _, opts := range [][]idemflight.CallOption{nil, {idemflight.Inline()}, {idemflight.WithMaxWait(idemflight.NoWait)}, {idemflight.WithFingerprint(idemflight.Fingerprint{1})}} {
							for way, call := range map[string]func(){
								"Do":       func() { _, _ = c.Do(bad.ctx, bad.key, bad.fn, opts...) },
								"DoResult": func() { _, _ = c.DoResult(bad.ctx, bad.key, bad.fn, opts...) },
								"Wrap": func() {
									if bad.fn == nil { // Wrap has a test of its own for that
										panic("nil fn")
									}
									_, _ = wrapped(bad.ctx, 1)
								},
							} {
								said := flPanicText(call)
								require.NotEmpty(t, said, "%s must panic at the call", way)
								for _, word := range bad.says {
									require.Regexp(t, "(?i)"+word, said, "the message must say what is wrong with the call of %s", way)
								}
							}
						}
						require.Equal(t, before, c.Stats(), "such a call counts nowhere, and leaves nothing behind")
						require.Equal(t, told, events, "such a call is no event")

						// The key stays usable.
						gate.open()
						synctest.Wait()
						v, err := c.Do(context.Background(), flKey, run)
						switch {
						case state == "held":
							require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
						case closed && state == "absent":
							require.ErrorIs(t, err, idemflight.ErrClosed)
						default:
							require.NoError(t, err)
							require.Equal(t, 1, v)
						}
					})
				})
			}
		}
	}
}

// flPanicText runs call and returns what it panicked with, as text.
func flPanicText(call func()) (text string) {
	defer func() {
		if v := recover(); v != nil {
			text = fmt.Sprint(v)
		}
	}()
	call()
	return ""
}

func TestUnhashableKeysLeaveNoLockHeldInOtherMethods(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[any, int]{})
	key := any([]int{1})
	now := time.Now()
	for name, call := range map[string]func(){
		"Lookup":  func() { c.Lookup(key) },
		"Forget":  func() { c.Forget(key) },
		"Resolve": func() { c.Resolve(key, 1, nil) },
		"Restore": func() {
			_ = c.Restore(key, idemflight.Entry[int]{State: idemflight.Retained, CompletedAt: now, ExpiresAt: now.Add(time.Hour)})
		},
	} {
		require.NotEmpty(t, flPanicText(call), "%s with an unhashable key must panic", name)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 1000 {
			_, _ = c.Do(t.Context(), i+1, flReturns(1, nil))
		}
		c.Stats()
	}()
	flSoon(t, done, "calls after such panics")
}
