package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// meddlers is all that can happen to a key, or to its cache, while an execution of the key runs.
// leave ends the context of the leader.
var meddlers = []struct {
	name string
	do   func(t *testing.T, c *cache, leave func())
}{
	{"forgotten", func(t *testing.T, c *cache, _ func()) {
		require.True(t, forget(c, theKey), "Forget of a key in flight")
		require.True(t, forget(c, theKey), "and again: it is still in flight")
	}},
	{"evicted", func(t *testing.T, c *cache, _ func()) {
		for i := range 100 { // MaxEntries is 8
			_, err := c.Do(context.Background(), "other "+strconv.Itoa(i), returns(i, nil))
			if !errors.Is(err, idemflight.ErrClosed) { // by an earlier meddler
				require.NoError(t, err, "an outcome that is kept makes room, not the flight")
			}
		}
	}},
	{"expired", func(*testing.T, *cache, func()) { time.Sleep(time.Hour) }}, // every duration of the cache is below
	{"left", func(_ *testing.T, _ *cache, leave func()) {
		leave()
		synctest.Wait()
	}},
	{"resolved", func(t *testing.T, c *cache, _ func()) {
		for _, err := range []error{nil, idemflight.Final(errBoom), idemflight.Retryable(errBoom), errBoom} {
			require.False(t, resolve(c, theKey, 7, err),
				"Resolve(%v) acts on held keys only, and this one is in flight", err)
		}
	}},
	{"restored", func(t *testing.T, c *cache, _ func()) {
		for _, state := range []idemflight.State{idemflight.InFlight, idemflight.Retained, idemflight.Held, idemflight.Shed} {
			now := time.Now()
			require.Error(t, c.Restore(bg, theKey, idemflight.Entry[int]{
				State: state, Value: 7, StartedAt: now.Add(-1), CompletedAt: now, ExpiresAt: now.Add(time.Hour),
			}), "Restore(%v) wants an absent key, and this one is in flight", state)
		}
	}},
	{"closed", func(t *testing.T, c *cache, _ func()) {
		require.ErrorIs(t, c.Close(dead(errEnough)), errEnough,
			"Close waits for the flight until its context ends")
		_, err := c.Do(context.Background(), "new", neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrClosed, "a new execution after Close")
	}},
}

// whileMeddling runs test once for everything that can happen meanwhile, and once for all of it.
func whileMeddling(t *testing.T, test func(t *testing.T, meddle func(t *testing.T, c *cache, leave func()))) {
	for _, m := range meddlers {
		t.Run(m.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, m.do) })
		})
	}
	t.Run("all of it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			test(t, func(t *testing.T, c *cache, leave func()) {
				for _, m := range meddlers {
					m.do(t, c, leave)
				}
			})
		})
	})
}

// Promise 1: At most one execution runs per key at any moment, whatever is forgotten, evicted,
// expired, left, resolved, restored or closed meanwhile; Reconcile counts as an execution of its
// key.
func TestPromise01_AtMostOneExecutionPerKeyWhateverHappensMeanwhile(t *testing.T) {
	whileMeddling(t, func(t *testing.T, meddle func(*testing.T, *cache, func())) {
		c := idemflight.MustNew(options{TTL: time.Minute, ExecTimeout: time.Second, MaxEntries: 8, MinRetention: -1})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		work := newWork(t)
		leader := start(c, ctx, theKey, work.returns(1, nil))
		synctest.Wait()

		meddle(t, c, cancel)
		e, ok := lookup(c, theKey)
		require.True(t, ok, "the key is still known")
		require.Equal(t, idemflight.InFlight, e.State, "the key is still in flight")

		second := start(c, context.Background(), theKey, work.returns(2, nil))
		third := start(c, t.Context(), theKey, work.returns(3, nil), idemflight.Inline())
		synctest.Wait()
		require.EqualValues(t, 1, work.runs.Load(),
			"callers that arrive before the flight ends join it, whatever happened meanwhile")
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
	// meddled with in both of its executions. If the leader has left by then, it is the fn of one who
	// waited that runs, in a flight of its own; and none at all, if the cache is closed.
	whileMeddling(t, func(t *testing.T, meddle func(*testing.T, *cache, func())) {
		asking, working := newWork(t), newWork(t)
		c := idemflight.MustNew(options{TTL: time.Minute, ExecTimeout: time.Second, MaxEntries: 8, MinRetention: -1,
			Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
				return asking.returns(0, idemflight.Retryable(errBoom))(ctx)
			}})
		_, err := c.Do(context.Background(), theKey, returns(0, idemflight.Unknown(errBoom)))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "the key is held")

		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		leader := start(c, ctx, theKey, working.returns(1, nil))
		synctest.Wait()
		require.EqualValues(t, 1, asking.running.Load(),
			"Reconcile runs when a call meets a held key")
		meddle(t, c, cancel)
		left := leader.returned()
		_, err = c.Do(context.Background(), "another", returns(0, idemflight.Retryable(errBoom)))
		closed := errors.Is(err, idemflight.ErrClosed)
		second := start(c, context.Background(), theKey, working.returns(2, nil))
		synctest.Wait()
		require.EqualValues(t, 1, asking.runs.Load(),
			"a caller that comes while Reconcile runs joins")
		require.Zero(t, working.runs.Load(), "fn does not run beside Reconcile")

		asking.open()
		synctest.Wait()
		if left && closed {
			require.True(t, second.returned(), "who waited looks again")
			require.ErrorIs(t, second.err, idemflight.ErrClosed)
			require.Zero(t, working.runs.Load(), "the fn of a leader that has left does not start")
			_, ok := lookup(c, theKey)
			require.False(t, ok, "the key is released")
			return
		}
		require.EqualValues(t, 1, working.running.Load(),
			"an fn runs once Reconcile found that nothing took place")
		meddle(t, c, cancel)
		third := start(c, context.Background(), theKey, working.returns(3, nil))
		synctest.Wait()
		require.EqualValues(t, 1, asking.runs.Load(), "Reconcile does not run beside fn")
		require.EqualValues(t, 1, working.runs.Load(), "fn does not run beside itself")

		working.open()
		synctest.Wait()
		require.True(t, leader.returned(), "the leader is not stranded")
		if left {
			second.got(t, idemflight.Executed, 2)
			third.got(t, idemflight.Joined, 2)
		} else {
			second.got(t, idemflight.Joined, 1)
			third.got(t, idemflight.Joined, 1)
		}
		require.EqualValues(t, 1, asking.runs.Load(), "runs of Reconcile")
		require.EqualValues(t, 1, working.runs.Load(), "runs of fn")
	})
}

func TestPromise01_OtherKeysAreNotHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		work := newWork(t)
		for i := range 100 {
			start(c, t.Context(), strconv.Itoa(i), work.returns(i, nil))
		}
		synctest.Wait()
		require.EqualValues(t, 100, work.running.Load(),
			"executions of different keys run beside each other")
		require.Equal(t, 100, c.Stats().InFlight, "Stats.InFlight")
		work.open()
	})
}

func TestPromise02_WhileAnOutcomeIsKeptFnDoesNotRun(t *testing.T) {
	for name, kept := range map[string]struct {
		fn     intFn
		source idemflight.Source
		want   error
		state  idemflight.State
	}{
		"success":         {returns(1, nil), idemflight.Replayed, nil, idemflight.Retained},
		"zero value":      {returns(0, nil), idemflight.Replayed, nil, idemflight.Retained},
		"final":           {returns(1, idemflight.Final(errBoom)), idemflight.Replayed, errBoom, idemflight.Retained},
		"unknown":         {returns(1, idemflight.Unknown(errBoom)), idemflight.Replayed, idemflight.ErrOutcomeUnknown, idemflight.Held},
		"panic":           {func(context.Context) (int, error) { panic(errBoom) }, idemflight.Replayed, idemflight.ErrOutcomeUnknown, idemflight.Held},
		"Goexit":          {goexits, idemflight.Replayed, idemflight.ErrOutcomeUnknown, idemflight.Held},
		"too heavy: shed": {returns(1000, nil), idemflight.NoOutcome, idemflight.ErrValueShed, idemflight.Shed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{TTL: time.Minute, MaxWeight: 10, Weigh: func(_ string, v int) int64 { return int64(v) }})
				start(c, t.Context(), theKey, kept.fn)
				synctest.Wait()
				for i, opts := range [][]idemflight.CallOption{
					nil, {idemflight.Inline()}, {idemflight.WithMaxWait(idemflight.NoWait)}, {idemflight.WithTTL(0)}, {idemflight.WithTTL(time.Nanosecond)}, nil,
				} {
					for _, ctx := range []context.Context{context.Background(), t.Context(), dead(errEnough)} {
						_, err := c.Do(ctx, theKey, neverRuns(t), opts...)
						if kept.want == nil {
							require.NoError(t, err, "call %d after a success", i)
						} else {
							require.ErrorIs(t, err, kept.want, "call %d", i)
						}
						e, ok := lookup(c, theKey)
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
			var c *cache
			c = idemflight.MustNew(options{Observer: func(_ context.Context, ev idemflight.Event[string]) {
				e, ok := lookup(c, theKey)
				if !ok || e.State != idemflight.Retained {
					t.Errorf("an observer that sees %v must find the outcome kept, found %v", ev.Kind, e.State)
				}
			}})
			work := newWork(t)
			var calls sync.WaitGroup
			for i := range 10 {
				calls.Go(func() {
					ctx := t.Context()
					if i%2 == 0 {
						ctx = context.Background()
					}
					if v, err := c.Do(ctx, theKey, work.returns(1, nil)); v != 1 || err != nil {
						t.Errorf("a caller of the flight got (%v, %v), want (1, nil)", v, err)
					}
					if r, err := c.DoResult(ctx, theKey, neverRuns(t)); r.Value != 1 || r.Source != idemflight.Replayed || err != nil {
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
	for name, end := range map[string]error{"success": nil, "error": errBoom, "panic": nil, "final": idemflight.Final(errBoom)} {
		t.Run(name, func(t *testing.T) {
			eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				var c *cache
				asked := 0
				look := func(hook string) {
					asked++
					e, ok := lookup(c, theKey)
					require.True(t, ok, "%s is asked while the key is in flight", hook)
					require.Equal(t, idemflight.InFlight, e.State,
						"%s is asked while the key is in flight", hook)
					_, err := c.Do(context.Background(), theKey, neverRuns(t), idemflight.WithMaxWait(idemflight.NoWait))
					require.ErrorIs(t, err, idemflight.ErrInFlight,
						"%s is asked while the key is in flight", hook)
				}
				c = idemflight.MustNew(options{
					MaxWeight: 10, Weigh: func(string, int) int64 { look("Weigh"); return 1 },
					Classify: func(error) idemflight.Disposition { look("Classify"); return idemflight.Retain },
				})
				call := start(c, ctx, theKey, func(context.Context) (int, error) {
					if name == "panic" {
						panic(errBoom)
					}
					return 1, end
				}, opts...)
				synctest.Wait()
				require.True(t, call.returned())
				require.NotZero(t, asked, "a hook must have been asked")
				e, ok := lookup(c, theKey)
				require.True(t, ok)
				require.Equal(t, idemflight.Retained, e.State)
			})
		})
	}
}

func TestPromise02_WhatIsReleasedRunsAgainOncePerCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		runs := 0
		for range 5 {
			_, err := c.Do(t.Context(), theKey, func(context.Context) (int, error) { runs++; return 0, idemflight.Retryable(errBoom) })
			require.ErrorIs(t, err, errBoom)
		}
		require.Equal(t, 5, runs, "a retryable error keeps nothing, and each call runs fn once")
	})
}

// An outcome stored between a call's first look and its next is replayed like any: with the error
// that is kept, reported as a replay, and the replay saves it from the next eviction.
func TestDo_ReplaysOutcomeStoredBetweenItsTwoLooks(t *testing.T) {
	for name, ends := range map[string]error{"value": nil, "final": errBoom} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &eventLog[string]{}
				c := idemflight.MustNew(options{MaxEntries: 2, MinRetention: -1, Observer: log.observe})
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
				_, ok := lookup(c, "k")
				require.True(t, ok, "k was replayed, b was not")
			})
		})
	}
}

// A call that found nothing looks again if anything was inserted meanwhile, small records and full
// ones.
func TestDo_FindsOutcomeStoredBetweenItsTwoLooks(t *testing.T) {
	defer idemflight.LimitShards(1)()
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		came := false
		onYield(t, func(point string) {
			if point == "meet" && !came {
				came = true
				executes(t, c, "k", 1)
				executes(t, c, "full", 1, idemflight.WithFingerprint(fingerprint(1)))
			}
		})
		require.Equal(t, 1, replays(t, c, "k"))
		require.True(t, came, "the seam")
	})
}

// callAllMethods calls every method of c, from inside an execution of theKey.
func callAllMethods(t *testing.T, c *cache, ctx context.Context) {
	if _, err := c.Do(ctx, theKey, neverRuns(t)); !errors.Is(err, idemflight.ErrReentrant) {
		t.Errorf("Do for the key itself: want ErrReentrant, got %v", err)
	}
	if e, ok := lookup(c, theKey); !ok || e.State != idemflight.InFlight {
		t.Errorf("Lookup of the key itself: want it in flight, got %v, %v", e.State, ok)
	}
	seen := false
	for k := range c.All() {
		seen = seen || k == theKey
		c.Len()
	}
	if !seen {
		t.Error("All must show the key that is in flight")
	}
	if s := c.Stats(); s.InFlight == 0 {
		t.Error("Stats must show the key that is in flight")
	}
	c.Len()
	forget(c, "nobody")
	resolve(c, theKey, 1, nil)
	_ = c.Restore(bg, "restored", idemflight.Entry[int]{State: idemflight.Retained, CompletedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)})
}

// Promise 3: fn runs with no lock of the library held, so it may call Do for other keys.
func TestPromise03_FnRunsWithNoLockHeld(t *testing.T) {
	for name, ctx := range map[string]context.Context{"own goroutine": context.Background(), "other goroutine": t.Context()} {
		for _, opts := range [][]idemflight.CallOption{nil, {idemflight.Inline()}} {
			t.Run(fmt.Sprintf("%s, %d options", name, len(opts)), func(t *testing.T) {
				var c *cache
				c = idemflight.MustNew(options{
					Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
						callAllMethods(t, c, ctx)
						return 0, idemflight.Retryable(errBoom)
					}})
				call := start(c, ctx, theKey, func(ctx context.Context) (int, error) {
					callAllMethods(t, c, ctx)
					return 0, idemflight.Unknown(errBoom)
				}, opts...)
				soon(t, call.done, "fn that calls every method")
				require.ErrorIs(t, call.err, idemflight.ErrOutcomeUnknown, "the key is held")

				call = start(c, ctx, theKey, func(ctx context.Context) (int, error) {
					callAllMethods(t, c, ctx)
					forget(c, theKey)
					if err := c.Close(ctx); !errors.Is(err, idemflight.ErrReentrant) {
						t.Errorf("Close from inside an execution: want ErrReentrant, got %v", err)
					}
					return 1, nil
				}, opts...)
				soon(t, call.done, "Reconcile and fn that call every method")
				require.NoError(t, call.err)
				require.Equal(t, 1, call.res.Value)
			})
		}
	}
}

func TestPromise03_FnMayCallDoForOtherKeysOfAnyShard(t *testing.T) {
	for name, ctx := range map[string]context.Context{"own goroutine": context.Background(), "other goroutine": t.Context()} {
		t.Run(name, func(t *testing.T) {
			c := idemflight.MustNew(options{})
			call := start(c, ctx, theKey, func(ctx context.Context) (int, error) {
				for i := range 2000 {
					if v, err := c.Do(ctx, strconv.Itoa(i), returns(i, nil)); v != i || err != nil {
						return 0, fmt.Errorf("inner call %d got (%d, %w)", i, v, err)
					}
				}
				return 1, nil
			})
			soon(t, call.done, "fn that calls Do for 2000 keys")
			call.got(t, idemflight.Executed, 1)

			var down func(ctx context.Context, depth int) (int, error)
			down = func(ctx context.Context, depth int) (int, error) {
				if depth == 200 {
					return depth, nil
				}
				return c.Do(ctx, "depth "+strconv.Itoa(depth), func(ctx context.Context) (int, error) { return down(ctx, depth+1) })
			}
			call = start(c, ctx, "top", func(ctx context.Context) (int, error) { return down(ctx, 0) })
			soon(t, call.done, "200 executions inside each other")
			call.got(t, idemflight.Executed, 200)
		})
	}
}

func TestPromise03_NobodyElseWaitsForALockWhileFnRuns(t *testing.T) {
	c := idemflight.MustNew(options{})
	work := newWork(t)
	leader := start(c, t.Context(), theKey, work.returns(1, nil))
	joined := start(c, t.Context(), theKey, work.returns(2, nil))
	own := start(c, context.Background(), "own goroutine", work.returns(1, nil))
	others := make(chan struct{})
	go func() {
		defer close(others)
		for i := range 2000 {
			_, _ = c.Do(t.Context(), strconv.Itoa(i), returns(i, nil))
		}
		lookup(c, theKey)
		forget(c, theKey)
		c.Stats()
	}()
	soon(t, others, "calls on other keys while two executions run")
	work.open()
	soon(t, leader.done, "the leader")
	soon(t, joined.done, "the joined caller")
	soon(t, own.done, "the leader on its own goroutine")
}

// Flights whose keys have one hash are told apart: each is found, joined and ended on its own,
// however many there are and in whatever order they end.
func TestFlights_OfOneHashAreToldApart(t *testing.T) {
	defer idemflight.LimitShards(1)()
	defer idemflight.LimitHash(4)()
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		const n = 40
		var ends []func(int, error) (idemflight.Result[int], error)
		var joined []*pending[int]
		for i := range n {
			ends = append(ends, fly(t, c, keyNo(i)))
		}
		for i := range n {
			joined = append(joined, start(c, bg, keyNo(i), neverRuns(t)))
		}
		synctest.Wait()
		require.Equal(t, n, c.Stats().Waiters)
		for i := range n {
			i = i * 7 % n
			_, err := ends[i](i, nil)
			require.NoError(t, err)
			synctest.Wait()
			joined[i].got(t, idemflight.Joined, i)
			require.NoError(t, c.CheckInvariants())
		}
	})
}
