package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// Promise 20: Beyond MaxWeight the least recently used values are shed. Their keys are remembered:
// they answer ErrValueShed, and fn does not run.
func TestPromise20_TheLeastRecentlyUsedValuesAreShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, log := shedding(options{TTL: time.Minute})
		executes(t, c, "a", 4)
		r := executes(t, c, "b", 3)
		executes(t, c, "c", 3)
		require.Empty(t, log.of(idemflight.EventShed),
			"a weight of exactly MaxWeight sheds nothing")
		require.EqualValues(t, 10, c.Stats().Weight)
		require.Equal(t, 4, replays(t, c, "a"))

		executes(t, c, "d", 1) // one over: b is the least recently used
		synctest.Wait()
		require.Equal(t, []string{"b"}, log.keys(idemflight.EventShed))
		require.EqualValues(t, 8, c.Stats().Weight)
		require.EqualValues(t, 1, c.Stats().Shed)
		requireState(t, c, idemflight.Retained, "a", "c", "d")
		e, ok := lookup(c, "b")
		require.True(t, ok, "what is shed is still kept")
		require.Equal(t, idemflight.Shed, e.State)
		require.Zero(t, e.Value)
		require.True(t, e.ExpiresAt.Equal(r.ExpiresAt))
		require.True(t, e.CompletedAt.Equal(r.CompletedAt))
		require.Equal(t, 4, c.Len())

		for range 3 {
			time.Sleep(10 * time.Second)
			r, err := c.DoResult(bg, "b", neverRuns(t))
			require.ErrorIs(t, err, idemflight.ErrValueShed)
			require.Zero(t, r, "no outcome was obtained")
		}
		require.EqualValues(t, 3, c.Stats().ValueShed)
		time.Sleep(30*time.Second - 1)
		_, err := c.Do(bg, "b", neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrValueShed, "until it expires")
		time.Sleep(time.Nanosecond)
		executes(t, c, "b", 5)
	})
}

func TestPromise20_ShedUntilEvictedOrForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, log := shedding(options{MaxEntries: 1, MinRetention: -1})
		executes(t, c, "a", tooHeavy)
		executes(t, c, "b", 1)
		synctest.Wait()
		require.Equal(t, []string{"a"}, log.keys(idemflight.EventEvicted))
		executes(t, c, "a", tooHeavy)
		require.True(t, forget(c, "a"))
		executes(t, c, "a", 1)
	})
}

func TestPromise20_OneTooHeavyHurtsNoOther(t *testing.T) {
	for _, w := range []int{10, 11, tooHeavy, math.MaxInt} {
		t.Run(fmt.Sprint(w), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, log := shedding(options{})
				others := []string{"a", "b", "c"}
				for _, k := range others {
					executes(t, c, k, 2)
				}
				end := fly(t, c, "heavy")
				var wg sync.WaitGroup
				wg.Go(func() {
					r, err := c.DoResult(bg, "heavy", neverRuns(t))
					if err != nil || r.Value != w || r.Source != idemflight.Joined {
						t.Errorf("a joined caller got (%d, %v) by %v, expected the value", r.Value, err, r.Source)
					}
				})
				synctest.Wait()
				r, err := end(w, nil)
				require.NoError(t, err)
				require.Equal(t, w, r.Value, "it is returned to its callers")
				require.Equal(t, idemflight.Executed, r.Source)
				wg.Wait()
				synctest.Wait()
				require.Equal(t, idemflight.Retain, log.of(idemflight.EventExecuted)[3].Disposition,
					"a shed outcome is kept")
				if w == 10 { // it fits, alone
					requireState(t, c, idemflight.Retained, "heavy")
					requireState(t, c, idemflight.Shed, others...)
					require.EqualValues(t, 10, c.Stats().Weight)
					return
				}
				require.False(t, r.ExpiresAt.IsZero(), "a shed outcome is kept")
				require.Equal(t, []string{"heavy"}, log.keys(idemflight.EventShed),
					"it alone is shed, at once")
				requireState(t, c, idemflight.Shed, "heavy")
				requireState(t, c, idemflight.Retained, others...)
				require.EqualValues(t, 6, c.Stats().Weight)
				_, err = c.Do(bg, "heavy", neverRuns(t))
				require.ErrorIs(t, err, idemflight.ErrValueShed)
			})
		})
	}
}

// Each alone: the least of all would overflow, and undo what another did.
func TestPromise20_AWeightBelow0CountsAs0(t *testing.T) {
	for _, below := range []int{-1, -5, math.MinInt} {
		synctest.Test(t, func(t *testing.T) {
			c, log := shedding(options{})
			executes(t, c, "ten", 10)
			executes(t, c, "minus", below)
			require.EqualValues(t, 10, c.Stats().Weight)
			require.Empty(t, log.of(idemflight.EventShed))
			executes(t, c, "one", 1)
			require.Equal(t, []string{"ten"}, log.keys(idemflight.EventShed),
				"a weight of %d makes no room", below)
			require.EqualValues(t, 1, c.Stats().Weight)
			require.True(t, forget(c, "minus"))
			require.EqualValues(t, 1, c.Stats().Weight, "and takes none with it")
			require.NoError(t, c.CheckInvariants())
		})
	}
}

func TestPromise20_HugeWeightsDoNotOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		weights := []int64{math.MaxInt64, math.MaxInt64, 1, math.MaxInt64 - 1, 2}
		c := idemflight.MustNew(options{MaxWeight: math.MaxInt64, Weigh: func(_ string, v int) int64 { return weights[v] }})
		for i := range weights {
			executes(t, c, keyNo(i), i)
			sum := int64(0)
			for _, e := range entries(c) {
				if e.State == idemflight.Retained {
					sum += weights[e.Value]
				}
			}
			require.GreaterOrEqual(t, sum, int64(0), "the sum over what is retained")
			require.Equal(t, sum, c.Stats().Weight)
			requireState(t, c, idemflight.Retained, keyNo(i))
		}
		requireState(t, c, idemflight.Shed, keyNo(0), keyNo(1))
	})
}

func TestPromise20_SheddingPassesOverTheNewcomerAndTheWeightless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, log := shedding(options{})
		for i := range 20 {
			executes(t, c, fmt.Sprint("old", i), 0)
		}
		executes(t, c, "a", 6)
		for i := range 20 {
			executes(t, c, fmt.Sprint("mid", i), 0)
		}
		executes(t, c, "b", 4)
		executes(t, c, "new", 9)
		synctest.Wait()
		require.ElementsMatch(t, []string{"a", "b"}, log.keys(idemflight.EventShed))
		requireState(t, c, idemflight.Retained, "new")
		for i := range 20 {
			requireState(t, c, idemflight.Retained, fmt.Sprint("old", i), fmt.Sprint("mid", i))
		}
		require.EqualValues(t, 9, c.Stats().Weight)
		executes(t, c, "weightless", 0)
		require.Len(t, log.of(idemflight.EventShed), 2, "a newcomer without weight sheds nothing")
	})
}

// Weight is taken before it is certain that the newcomer stays: what turns out not to be kept gives it back.
func TestPromise20_ANewcomerThatIsNotKeptWeighsNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		insert    func(c *cache) error
		meanwhile func(c *cache)
		fails     bool
	}{
		"forgotten": {
			func(c *cache) error { _, err := c.Do(bg, "new", returns(10, nil)); return err },
			func(c *cache) { forget(c, "new") },
			false,
		},
		"restored, and there already": {
			func(c *cache) error { return c.Restore(bg, "new", retainedEntry(10, time.Now().Add(time.Hour))) },
			func(c *cache) { executes(t, c, "new", 0) },
			true,
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, _ := shedding(options{})
			executes(t, c, "old", 9)
			taken := 0
			onYield(t, func(point string) {
				if point == "weight: taken" {
					taken++
					tt.meanwhile(c)
				}
			})
			require.Equal(t, tt.fails, tt.insert(c) != nil, name)
			synctest.Wait()
			require.Equal(t, 1, taken, name)
			require.Zero(t, c.Stats().Weight, name)
			require.NoError(t, c.CheckInvariants(), name)
		})
	}
}

func TestPromise20_ProtectDoesNotProtectFromIt(t *testing.T) {
	for _, protect := range []time.Duration{0, time.Hour, math.MaxInt64} {
		synctest.Test(t, func(t *testing.T) {
			c, log := shedding(options{TTL: time.Hour, MinRetention: protect})
			executes(t, c, "a", 10)
			executes(t, c, "b", 10)
			require.Equal(t, []string{"a"}, log.keys(idemflight.EventShed),
				"with MinRetention %v", protect)
		})
	}
}

// An outcome that has expired at this very instant is not retained any more, so it pushes none out.
func TestPromise20_TheExpiredWeighNothing(t *testing.T) {
	for _, n := range []int{1, 5} {
		synctest.Test(t, func(t *testing.T) {
			c, log := shedding(options{})
			executes(t, c, "lives", 4)
			for i := range n {
				executes(t, c, keyNo(i), 5/n, idemflight.WithTTL(time.Second))
			}
			executes(t, c, "lives too", 1)
			time.Sleep(time.Second)
			executes(t, c, "new", 5)
			synctest.Wait()
			require.Empty(t, log.keys(idemflight.EventShed),
				"with %d expired ones gone, 4 + 1 + 5 are MaxWeight", n)
			requireState(t, c, idemflight.Retained, "lives", "lives too", "new")
			require.EqualValues(t, 10, c.Stats().Weight)
		})
	}
}

// The sum is exact whatever leaves: shards have no budget of their own, nothing is shed while it
// all fits, and nothing more than needed when it does not.
func TestPromise20_TheSumIsExact(t *testing.T) {
	for _, n := range []int{8, 64, 300} {
		t.Run(fmt.Sprintf("%d of weight 1", n), func(t *testing.T) {
			c := idemflight.MustNew(options{MaxWeight: int64(n), Weigh: func(string, int) int64 { return 1 }})
			for i := range n {
				executes(t, c, keyNo(i), i)
			}
			require.EqualValues(t, n, c.Stats().Weight)
			require.Zero(t, c.Stats().Shed, "%d outcomes of weight 1 fit %d", n, n)
			for i := range n {
				executes(t, c, keyNo(n+i), i)
				require.EqualValues(t, i+1, c.Stats().Shed, "each further one sheds one")
				require.EqualValues(t, n, c.Stats().Weight)
			}
		})
	}
	t.Run("any mixture", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			const limit = 1000
			log := &eventLog[string]{}
			c := idemflight.MustNew(options{MaxWeight: limit, MaxEntries: 60, MinRetention: -1, HoldTTL: time.Minute, Observer: log.observe,
				Weigh: func(_ string, v int) int64 { return int64(v) }})
			rng := rand.New(rand.NewPCG(20, 20))
			weight := map[string]int{}
			for i := range 1500 {
				before := c.Stats().Weight
				log.clear()
				added := 0
				k := keyNo(rng.IntN(120))
				switch rng.IntN(10) {
				case 0:
					forget(c, k)
				case 1:
					time.Sleep(time.Duration(rng.IntN(20)) * time.Second)
					before = 0 // some have expired
				case 2:
					_, _ = c.Do(bg, k, returns(0, idemflight.Unknown(errBoom)))
				case 3:
					if w := rng.IntN(100); resolve(c, k, w, nil) {
						added, weight[k] = w, w
					}
				case 4:
					w := rng.IntN(100)
					if c.Restore(bg, k, retainedEntry(w, time.Now().Add(time.Minute))) == nil {
						added, weight[k] = w, w
					}
				default:
					w := rng.IntN(100)
					if i%50 == 0 {
						w = limit + rng.IntN(2)
					}
					r, err := c.DoResult(bg, k, returns(w, nil), idemflight.WithTTL(time.Duration(1+rng.IntN(300))*time.Second))
					if err == nil && r.Source == idemflight.Executed {
						added, weight[k] = w, w
					}
				}
				synctest.Wait()
				sum := int64(0)
				for _, e := range entries(c) {
					sum += int64(e.Value)
				}
				st := c.Stats()
				require.Equal(t, sum, st.Weight, "the sum over what is retained, step %d", i)
				require.LessOrEqual(t, st.Weight, int64(limit), "step %d", i)
				require.LessOrEqual(t, st.Entries, 60)
				shed := log.keys(idemflight.EventShed)
				if before+int64(added) <= limit {
					require.Empty(t, shed, "step %d: %d + %d fit %d", i, before, added, limit)
				} else if len(shed) > 0 && added <= limit {
					require.Greater(t, st.Weight+int64(weight[shed[len(shed)-1]]), int64(limit),
						"step %d: the last value shed had to go", i)
				}
			}
			require.Positive(t, c.Stats().Shed, "the test itself: something was shed")
			require.Positive(t, c.Stats().Evicted, "the test itself: something was evicted")
		})
	})
}

func TestPromise20_WhatIsWeighed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []int
		c := idemflight.MustNew(options{MaxWeight: 1000, Weigh: func(_ string, v int) int64 { asked = append(asked, v); return int64(v) },
			Reconcile: func(_ context.Context, k string, _ idemflight.Entry[int]) (int, error) {
				return 5, map[string]error{"reconciled": nil, "not": errBoom}[k]
			}})
		weighed := func(what string, want []int, weight int64) {
			t.Helper()
			synctest.Wait()
			require.Equal(t, want, asked, "Weigh is asked for: %s", what)
			require.Equal(t, weight, c.Stats().Weight, what)
			asked = nil
		}
		executes(t, c, "a", 1)
		weighed("a success", []int{1}, 1)
		_, err := c.Do(bg, "final", returns(2, idemflight.Final(errBoom)))
		require.ErrorIs(t, err, errBoom)
		weighed("a final error, with its value", []int{2}, 3)
		_, _ = c.Do(bg, "a", neverRuns(t))
		weighed("no replay", nil, 3)
		_, _ = c.Do(bg, "released", returns(3, idemflight.Retryable(errBoom)))
		weighed("nothing that is released", nil, 3)
		executes(t, c, "zero", 3, idemflight.WithTTL(0))
		weighed("nothing that is not to be retained", nil, 3)
		_, _ = c.Do(bg, "reconciled", returns(4, idemflight.Unknown(errBoom)))
		_, _ = c.Do(bg, "not", returns(4, idemflight.Unknown(errBoom)))
		_, _ = c.Do(bg, "resolved", returns(4, idemflight.Unknown(errBoom)))
		weighed("nothing that is held", nil, 3)
		_, err = c.Do(bg, "not", neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		weighed("nothing that is held again", nil, 3)
		_, err = c.Do(bg, "reconciled", neverRuns(t))
		require.NoError(t, err)
		weighed("what Reconcile found", []int{5}, 8)
		require.True(t, resolve(c, "resolved", 6, nil))
		weighed("what was resolved", []int{6}, 14)
		e := retainedEntry(7, time.Now().Add(time.Minute))
		require.NoError(t, c.Restore(bg, "restored", e))
		weighed("what was restored", []int{7}, 21)
		e.State = idemflight.Held
		require.NoError(t, c.Restore(bg, "restored held", e))
		e.State = idemflight.Shed
		require.NoError(t, c.Restore(bg, "restored shed", e))
		weighed("nothing restored that is held or shed", nil, 21)
	})
}

func TestPromise20_WhatResolveAndReconcileBringIsBoundToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(weighted(options{Observer: log.observe,
			Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) { return 9, nil }}))
		hold(t, c, "h1")
		hold(t, c, "h2")
		hold(t, c, "h3")
		require.True(t, resolve(c, "h1", 8, nil))
		requireState(t, c, idemflight.Retained, "h1")
		v, err := c.Do(bg, "h2", neverRuns(t))
		require.NoError(t, err)
		require.Equal(t, 9, v)
		synctest.Wait()
		require.Equal(t, []string{"h1"}, log.keys(idemflight.EventShed))
		require.True(t, resolve(c, "h3", 11, nil))
		requireState(t, c, idemflight.Shed, "h1", "h3")
		requireState(t, c, idemflight.Retained, "h2")
		require.EqualValues(t, 9, c.Stats().Weight)
	})
}

func TestPromise20_WeighRunsWithoutLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c *cache
		c = idemflight.MustNew(options{MaxWeight: 10, Weigh: func(k string, v int) int64 {
			if k != "k" {
				return 1
			}
			lookup(c, k)
			c.Len()
			c.Stats()
			for i := range 50 { // keys of every shard
				_, _ = c.Do(bg, keyNo(i), returns(i, nil))
				forget(c, keyNo(i))
			}
			return 1
		}})
		executes(t, c, "k", 1)
		require.Equal(t, 1, replays(t, c, "k"))
	})
}

func TestPromise20_WeighThatFailsWeighs0(t *testing.T) {
	boom := errors.New("boom")
	for name, fail := range map[string]func(){"panic": func() { panic(boom) }, "Goexit": runtime.Goexit} {
		for _, leads := range []string{"on its own goroutine", "inline", "elsewhere"} {
			t.Run(name+" "+leads, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					log := &eventLog[string]{}
					c := idemflight.MustNew(options{MaxWeight: 10, Observer: log.observe, Weigh: func(k string, v int) int64 {
						if k == "k" {
							fail()
						}
						return int64(v)
					}})
					executes(t, c, "full", 10)
					ctx, opts := bg, []idemflight.CallOption(nil)
					switch leads {
					case "inline":
						opts = append(opts, idemflight.Inline())
					case "elsewhere":
						var cancel context.CancelFunc
						ctx, cancel = context.WithCancel(ctx)
						defer cancel()
					}
					var joined, led atomic.Int32
					gate := make(chan struct{})
					go func() {
						v, err := c.Do(ctx, "k", func(context.Context) (int, error) { <-gate; return 5, nil }, opts...)
						if err == nil && v == 5 {
							led.Add(1)
						}
					}()
					synctest.Wait()
					for range 3 {
						go func() {
							v, err := c.Do(bg, "k", neverRuns(t))
							if err == nil && v == 5 {
								joined.Add(1)
							}
						}()
					}
					synctest.Wait()
					close(gate)
					synctest.Wait()
					require.EqualValues(t, 3, joined.Load(), "joined callers get the outcome")
					if name == "panic" || leads == "elsewhere" { // a Goexit takes the caller's goroutine with it
						require.EqualValues(t, 1, led.Load(), "the leader gets the outcome")
					}
					require.Equal(t, 5, replays(t, c, "k"), "it is retained")
					st := c.Stats()
					require.EqualValues(t, 10, st.Weight, "it weighs 0")
					require.EqualValues(t, 1, st.HookPanics)
					require.Zero(t, st.Panics, "no execution panicked")
					require.Zero(t, st.InFlight)
					require.Zero(t, st.Shed)
					told := log.of(idemflight.EventPanicked)
					require.Len(t, told, 1)
					require.Equal(t, "k", told[0].Key)
					if name == "panic" {
						var p *idemflight.PanicError
						require.ErrorAs(t, told[0].Err, &p)
						require.Equal(t, boom, p.Value)
						require.ErrorIs(t, told[0].Err, boom)
					} else {
						require.ErrorIs(t, told[0].Err, idemflight.ErrGoexit)
					}
					require.True(t, forget(c, "k"), "no lock is held")
				})
			})
		}
	}
}

func TestPromise20_MaxWeightAndWeighComeTogether(t *testing.T) {
	weigh := func(string, int) int64 { return 1 }
	_, err := idemflight.New(options{MaxWeight: 1})
	require.Error(t, err, "MaxWeight without Weigh")
	_, err = idemflight.New(options{Weigh: weigh})
	require.Error(t, err, "Weigh without MaxWeight")
	_, err = idemflight.New(options{MaxWeight: 1, Weigh: weigh})
	require.NoError(t, err)
}

// M is what fits MaxWeight; there are places for far more keys, or for a few times as many.
func TestPromise20_ASetInUseKeepsItsValuesInAScan(t *testing.T) {
	oneGoroutine(t)
	for _, tc := range []struct{ m, caches, scan int }{
		{8, 20, 150}, {9, 20, 150}, {13, 10, 150}, {16, 10, 150}, {33, 3, 200}, {64, 2, 300}, {1000, 1, 1000}, {5000, 1, 600},
	} {
		for _, weight := range []int64{1, 7} {
			for _, entries := range []int{0, 3 * tc.m} {
				for _, rhythm := range []string{"late", "spread"} {
					t.Run(fmt.Sprintf("%d of %d/%d places/%s", tc.m, weight, entries, rhythm), func(t *testing.T) {
						caches := tc.caches
						if entries == 0 { // a cache for a million keys costs something to make
							caches = max(1, caches/5)
						}
						for range caches {
							c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: entries, MinRetention: -1,
								MaxWeight: weight*int64(tc.m) + weight - 1, Weigh: func(int, int) int64 { return weight }})
							checkRecency(t, c, tc.m, tc.scan, rhythm)
							require.Positive(t, c.Stats().Shed, "the test itself: the scan sheds")
						}
					})
				}
			}
		}
	}
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

// Expired records are removed before a value is shed.
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

// The value to shed first is known across shards, even when the former first one has just been
// removed and was first in nothing else.
func TestPromise20_TheNextValueIsKnownWhenTheFirstIsForgotten(t *testing.T) {
	defer idemflight.LimitShards(1)()
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(weighted(options{}))
		executes(t, c, "a", 0)
		time.Sleep(time.Second)
		executes(t, c, "b", 5)
		time.Sleep(time.Second)
		executes(t, c, "c", 5)
		require.True(t, forget(c, "b"))
		require.NoError(t, c.CheckInvariants())
	})
}

// Once: values were shed for an outcome that nobody wanted any more.
func TestPromise20_NothingIsShedForWhatIsNotRetained(t *testing.T) {
	for name, ends := range map[string]func(c *cache) error{
		"forgotten while it is weighed": func(c *cache) error {
			_, err := c.Do(context.Background(), "new", returns(8, nil))
			return err
		},
		"forgotten while its resolution is weighed": func(c *cache) error {
			_, err := c.Do(context.Background(), "new", returns(8, idemflight.Unknown(errors.New("timeout"))))
			if errors.Is(err, idemflight.ErrOutcomeUnknown) && !resolve(c, "new", 8, nil) {
				return nil
			}
			return errors.New("it was resolved, though it was forgotten")
		},
	} {
		t.Run(name, func(t *testing.T) {
			var c *cache
			c = idemflight.MustNew(options{MaxWeight: 10, Weigh: func(key string, v int) int64 {
				if key == "new" {
					forget(c, "new")
				}
				return int64(v)
			}})
			for i := range 10 {
				_, err := c.Do(context.Background(), fmt.Sprint("old", i), one)
				require.NoError(t, err)
			}
			require.NoError(t, ends(c))
			require.Zero(t, c.Stats().Shed)
			require.EqualValues(t, 10, c.Stats().Weight)
			require.NoError(t, c.CheckInvariants())
		})
	}
}

// An outcome that was weighed, and forgotten before it was retained, weighs nothing: its weight is
// given back, except for a value too heavy by itself, for which none was taken.
func TestPromise20_TheSumIsExactIfForgottenOnceWeighed(t *testing.T) {
	for name, v := range map[string]int{"light": 6, "too heavy": tooHeavy} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(weighted(options{}))
				came := false
				onYield(t, func(point string) {
					if point == "settle" && !came {
						came = true
						require.True(t, forget(c, "k"))
					}
				})
				_, err := c.Do(bg, "k", returns(v, nil))
				require.NoError(t, err)
				require.True(t, came, "the seam")
				require.Zero(t, c.Stats().Entries)
				require.NoError(t, c.CheckInvariants())
			})
		})
	}
}

// A Restore that is refused after it took its weight gives it back.
func TestPromise20_TheSumIsExactIfRestoreIsRefusedOnceWeighed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(weighted(options{}))
		came := false
		onYield(t, func(point string) {
			if point == "settle" && !came {
				came = true
				executes(t, c, "k", 2)
			}
		})
		require.Error(t, c.Restore(bg, "k", retainedEntry(6, time.Now().Add(time.Minute))))
		require.True(t, came, "the seam")
		require.EqualValues(t, 2, c.Stats().Weight)
		require.NoError(t, c.CheckInvariants())
	})
}
