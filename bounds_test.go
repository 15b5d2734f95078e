package idemflight_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// Places

func TestPromise18_PlacesAreExact(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 8, 9, 64, 65, 300} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(ttOptions{MaxEntries: n, Protect: -1})
				for i := range 3*n + 5 {
					ttRuns(t, c, ttKey(i), i)
					require.Equal(t, min(i+1, n), c.Len(), "kept after %d new keys", i+1)
					require.EqualValues(t, max(0, i+1-n), c.Stats().Evicted, "evicted after %d new keys", i+1)
				}
				require.Len(t, ttAll(c), n)
				require.Equal(t, n, c.Stats().Entries)
			})
		})
	}
}

// Every way to take a place counts toward one number: flights, retained, shed and held keys.
func TestPromise18_InFlightAndKeptTogether(t *testing.T) {
	for _, n := range []int{4, 5, 100, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(ttWeighted(ttOptions{MaxEntries: n, Protect: idemflight.DefaultTTL}))
				var ends []func(int, error) (idemflight.Result[int], error)
				var flying []string
				for i := range n {
					k := ttKey(i)
					switch i % 4 {
					case 0:
						ends, flying = append(ends, ttFly(t, c, k)), append(flying, k)
					case 1:
						ttRuns(t, c, k, 0)
					case 2:
						ttRuns(t, c, k, ttHeavy)
					case 3:
						ttHold(t, c, k)
					}
				}
				full := func() {
					t.Helper()
					_, err := c.Do(ttBg, "one more", ttNever(t))
					require.ErrorIs(t, err, idemflight.ErrFull, "%d places are taken", n)
					require.ErrorIs(t, c.Restore("one more", ttEntry(1, time.Now().Add(time.Hour))), idemflight.ErrFull)
					_, ok := c.Lookup("one more")
					require.False(t, ok)
				}
				full()
				st := c.Stats()
				require.Equal(t, n, st.InFlight+st.Entries)
				require.Equal(t, len(ends), st.InFlight)
				for i, end := range ends {
					_, err := end(0, nil)
					require.NoError(t, err)
					if i%11 == 0 {
						full()
					}
				}
				require.Equal(t, n, c.Len())
				require.True(t, c.Forget(flying[0]))
				ttRuns(t, c, "one more", 1)
				require.Zero(t, c.Stats().Evicted)
			})
		})
	}
}

func TestPromise18_APlaceIsTakenBeforeFnRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ttLog[string]{}
		c := idemflight.MustNew(ttOptions{MaxEntries: 1, Protect: -1, Observer: log.observe})
		ttRuns(t, c, "old", 1)
		_, err := c.Do(ttBg, "new", func(context.Context) (int, error) {
			_, ok := c.Lookup("old")
			require.False(t, ok, "the old outcome has given its place by the time fn runs")
			st := c.Stats()
			require.Equal(t, 1, st.InFlight+st.Entries, "in flight + kept while fn runs")
			require.EqualValues(t, 1, st.Evicted)
			require.Len(t, ttAll(c), 1)
			_, err := c.Do(ttBg, "third", ttNever(t))
			require.ErrorIs(t, err, idemflight.ErrFull)
			return 2, nil
		})
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, []string{"old"}, log.keys(idemflight.EventEvicted))
		require.Equal(t, 2, ttReplay(t, c, "new"))
	})
}

func TestPromise18_ThePlacePassesOn(t *testing.T) {
	t.Run("from the flight to what is kept", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(ttOptions{MaxEntries: 1, TTL: time.Hour, Protect: time.Hour})
			ttRuns(t, c, "k", 1)
			require.Equal(t, 1, ttReplay(t, c, "k"))
			require.Zero(t, c.Stats().Evicted)
		})
	})
	for name, finds := range map[string]error{"found": nil, "found final": idemflight.Final(errTT), "still unknown": errTT} {
		t.Run("from a held key to its Reconcile and on: "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c *ttCache
				c = idemflight.MustNew(ttOptions{MaxEntries: 2, Protect: idemflight.DefaultTTL, Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
					_, err := c.Do(ttBg, "other", ttNever(t))
					require.ErrorIs(t, err, idemflight.ErrFull, "the place of the held key is its Reconcile's")
					st := c.Stats()
					require.Equal(t, 1, st.InFlight)
					require.Equal(t, 1, st.Entries, "what is in flight is not kept at the same time")
					require.Equal(t, 1, c.Len())
					return 3, finds
				}})
				ttHold(t, c, "k")
				ttHold(t, c, "k2")
				_, err := c.Do(ttBg, "k", ttNever(t))
				require.NotErrorIs(t, err, idemflight.ErrFull, "a Reconcile needs no other place than that of its key")
				_, err = c.Do(ttBg, "other", ttNever(t))
				require.ErrorIs(t, err, idemflight.ErrFull)
				require.Equal(t, 2, c.Len())
				require.True(t, c.Forget("k"))
				ttRuns(t, c, "other", 1)
			})
		})
	}
	t.Run("from a held key to its Reconcile to fn", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(ttOptions{MaxEntries: 1, Protect: idemflight.DefaultTTL, Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
				return 0, idemflight.Retryable(errTT)
			}})
			ttHold(t, c, "k")
			_, err := c.Do(ttBg, "k", func(context.Context) (int, error) {
				_, err := c.Do(ttBg, "other", ttNever(t))
				require.ErrorIs(t, err, idemflight.ErrFull)
				return 0, idemflight.Retryable(errTT)
			})
			require.ErrorIs(t, err, errTT)
			ttRuns(t, c, "other", 1)
		})
	})
	t.Run("from an expired record to the new flight of its key", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			log := &ttLog[string]{}
			c := idemflight.MustNew(ttOptions{MaxEntries: 2, Protect: idemflight.DefaultTTL, Observer: log.observe})
			ttRuns(t, c, "k", 1, idemflight.WithTTL(time.Second))
			ttHold(t, c, "held")
			time.Sleep(time.Second)
			_, err := c.Do(ttBg, "k", func(context.Context) (int, error) {
				_, err := c.Do(ttBg, "other", ttNever(t))
				require.ErrorIs(t, err, idemflight.ErrFull)
				return 2, nil
			})
			require.NoError(t, err, "an expired record's own place serves the new flight of its key")
			synctest.Wait()
			require.Equal(t, []string{"k"}, log.keys(idemflight.EventExpired))
			require.Empty(t, log.of(idemflight.EventEvicted))
		})
	})
	t.Run("from a held key to what Resolve makes of it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(ttOptions{MaxEntries: 1, Protect: idemflight.DefaultTTL})
			ttHold(t, c, "k")
			require.True(t, c.Resolve("k", 1, nil))
			_, err := c.Do(ttBg, "other", ttNever(t))
			require.ErrorIs(t, err, idemflight.ErrFull)
			ttHold2 := func() { require.True(t, c.Forget("k")); ttHold(t, c, "k") }
			ttHold2()
			require.True(t, c.Resolve("k", 0, idemflight.Retryable(errTT)))
			ttRuns(t, c, "other", 1)
		})
	})
}

func TestPromise18_ThePlaceIsGivenBackWhenNothingIsKept(t *testing.T) {
	ways := map[string]func(t *testing.T, c *ttCache){
		"Retryable": func(t *testing.T, c *ttCache) {
			_, err := c.Do(ttBg, "k", ttFail(idemflight.Retryable(errTT)))
			require.ErrorIs(t, err, errTT)
		},
		"an error without marker": func(t *testing.T, c *ttCache) {
			_, err := c.Do(ttBg, "k", ttFail(errTT))
			require.ErrorIs(t, err, errTT)
		},
		"NoEffect and a panic": func(t *testing.T, c *ttCache) {
			require.NotNil(t, ttPanics(func() {
				_, _ = c.Do(ttBg, "k", func(ctx context.Context) (int, error) { idemflight.NoEffect(ctx); panic("x") })
			}))
		},
		"NoEffect and Goexit": func(t *testing.T, c *ttCache) {
			go func() {
				_, _ = c.Do(ttBg, "k", func(ctx context.Context) (int, error) { idemflight.NoEffect(ctx); runtime.Goexit(); return 0, nil })
			}()
			synctest.Wait()
		},
		"WithTTL(0)": func(t *testing.T, c *ttCache) { ttRuns(t, c, "k", 1, idemflight.WithTTL(0)) },
		"WithTTL(0) and Final": func(_ *testing.T, c *ttCache) {
			_, _ = c.Do(ttBg, "k", ttFail(idemflight.Final(errTT)), idemflight.WithTTL(0))
		},
		"WithTTL(0), too heavy": func(t *testing.T, c *ttCache) {
			ttRuns(t, c, "k", ttHeavy, idemflight.WithTTL(0))
			require.Zero(t, c.Stats().Shed, "what is not to be retained is not shed")
		},
		"Forget in flight": func(t *testing.T, c *ttCache) {
			end := ttFly(t, c, "k")
			require.True(t, c.Forget("k"))
			_, err := end(1, nil)
			require.NoError(t, err)
		},
		"its leader left": func(t *testing.T, c *ttCache) {
			ctx, cancel := context.WithTimeout(ttBg, time.Second)
			defer cancel()
			_, err := c.Do(ctx, "k", func(context.Context) (int, error) { time.Sleep(time.Minute); return 0, idemflight.Retryable(errTT) })
			require.ErrorIs(t, err, idemflight.ErrLeft)
			time.Sleep(time.Minute)
			synctest.Wait()
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &ttLog[string]{}
				c := idemflight.MustNew(ttWeighted(ttOptions{MaxEntries: 1, Protect: idemflight.DefaultTTL, Observer: log.observe}))
				for range 3 {
					way(t, c)
					require.Zero(t, c.Len(), "nothing is kept")
					require.Empty(t, ttAll(c))
				}
				ends := log.of(idemflight.EventExecuted, idemflight.EventFinished)
				require.Len(t, ends, 3)
				for _, e := range ends {
					require.Equal(t, idemflight.Release, e.Disposition, "of an outcome that is not kept")
				}
				st := c.Stats()
				require.EqualValues(t, 3, st.Releases)
				require.Zero(t, st.Retains+st.Holds)
				ttRuns(t, c, "other", 1)
				require.Zero(t, c.Stats().Evicted)
				_, err := c.Do(ttBg, "k", ttNever(t))
				require.ErrorIs(t, err, idemflight.ErrFull, "and it was given back once only")
			})
		})
	}
}

// The expired ones lie anywhere: in every shard, used last or never, held, shed or retained, put in
// before and after those that live. With one of them left no key may get ErrFull, and no living
// outcome may go.
func TestPromise18_ExpiredEntriesCountAsFree(t *testing.T) {
	for _, n := range []int{2, 3, 8, 64, 1000} {
		for name, protect := range map[string]time.Duration{"plain": -1, "protected": idemflight.DefaultTTL} {
			t.Run(fmt.Sprintf("%d/%s", n, name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					log := &ttLog[string]{}
					c := idemflight.MustNew(ttWeighted(ttOptions{MaxEntries: n, Protect: protect, HoldTTL: time.Second, Observer: log.observe}))
					rng := rand.New(rand.NewPCG(18, uint64(n)))
					dying := map[string]bool{}
					for i, p := range rng.Perm(n) {
						k := ttKey(i)
						if p < (n+1)/2 {
							dying[k] = true
							switch p % 3 {
							case 0:
								ttHold(t, c, k)
							case 1:
								ttRuns(t, c, k, 0, idemflight.WithTTL(time.Second))
							case 2:
								ttRuns(t, c, k, ttHeavy, idemflight.WithTTL(time.Second))
							}
						} else {
							ttRuns(t, c, k, 0)
						}
					}
					for k := range dying { // used last
						_, _ = c.Do(ttBg, k, ttNever(t))
					}
					time.Sleep(time.Second) // to the instant: no timer has had to ring
					for i := range len(dying) {
						ttRuns(t, c, fmt.Sprint("new", i), 0)
					}
					synctest.Wait()
					require.Empty(t, log.keys(idemflight.EventEvicted), "nothing is evicted while an expired entry could give its place")
					for i := range n {
						_, ok := c.Lookup(ttKey(i))
						require.Equal(t, !dying[ttKey(i)], ok, "those that live stay, those that have expired go")
					}
					require.Len(t, log.of(idemflight.EventExpired), len(dying), "each expires once")
					require.Equal(t, n, c.Len())
					_, err := c.Do(ttBg, "one more", ttFail(idemflight.Retryable(errTT)))
					if protect < 0 {
						require.ErrorIs(t, err, errTT)
						require.EqualValues(t, 1, c.Stats().Evicted, "now nothing is free")
					} else {
						require.ErrorIs(t, err, idemflight.ErrFull, "now nothing is free")
					}
				})
			})
		}
	}
}

func TestPromise18_InFlightKeysAreNeverEvicted(t *testing.T) {
	for _, n := range []int{2, 8, 100} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(ttOptions{MaxEntries: n, Protect: -1})
				var ends []func(int, error) (idemflight.Result[int], error)
				for i := range n - 1 {
					ends = append(ends, ttFly(t, c, fmt.Sprint("flying", i)))
				}
				for i := range 5 * n {
					ttRuns(t, c, ttKey(i), i)
				}
				require.Equal(t, n-1, c.Stats().InFlight)
				for i, end := range ends {
					e, ok := c.Lookup(fmt.Sprint("flying", i))
					require.True(t, ok)
					require.Equal(t, idemflight.InFlight, e.State)
					r, err := end(i, nil)
					require.NoError(t, err)
					require.Equal(t, i, r.Value)
					require.Equal(t, i, ttReplay(t, c, fmt.Sprint("flying", i)))
				}
			})
		})
	}
}

// Many callers race for a fresh key and the only place: one takes both, and for the others the key
// is there, however they are scheduled.
func TestPromise18_ACallWithoutAPlaceLooksAtItsKeyAgain(t *testing.T) {
	for name, protect := range map[string]time.Duration{"protected": idemflight.DefaultTTL, "plain": -1} {
		t.Run(name, func(t *testing.T) {
			c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: 1, Protect: protect})
			for round := 1; round <= 1500; round++ {
				var runs atomic.Int32
				var wg sync.WaitGroup
				start := make(chan struct{})
				for range 4 {
					wg.Go(func() {
						<-start
						v, err := c.Do(ttBg, round, func(context.Context) (int, error) { runs.Add(1); return round, nil })
						if err != nil || v != round {
							t.Errorf("round %d: got (%d, %v), expected the outcome: the key is in flight or kept", round, v, err)
						}
					})
				}
				close(start)
				wg.Wait()
				require.EqualValues(t, 1, runs.Load(), "executions in round %d", round)
				if protect > 0 {
					require.True(t, c.Forget(round))
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}

// After every kind of end, in any mixture, racing, all places can be taken again: none was lost,
// none was given back twice.
func TestPromise18_NoPlaceIsLostOrWon(t *testing.T) {
	const n = 12
	var evicted atomic.Int64
	var c *idemflight.Cache[int, int]
	var running, most atomic.Int64
	c = idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: n, Protect: -1, TTL: time.Hour, MaxWeight: 20,
		Weigh: func(_, v int) int64 { return int64(v % 9) },
		Observer: func(_ context.Context, e idemflight.Event[int]) {
			if e.Kind == idemflight.EventEvicted {
				evicted.Add(1)
			}
		},
		Reconcile: func(_ context.Context, k int, _ idemflight.Entry[int]) (int, error) {
			return 1, []error{nil, errTT, idemflight.Retryable(errTT), idemflight.Final(errTT)}[k%4]
		}})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(18, uint64(g)))
			for range 1500 {
				k := 1 + rng.IntN(3*n)
				how := rng.IntN(12)
				fn := func(ctx context.Context) (int, error) {
					now := running.Add(1)
					defer running.Add(-1)
					for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
					}
					if how%3 == 0 {
						runtime.Gosched()
					}
					switch how {
					case 0:
						return 0, idemflight.Retryable(errTT)
					case 1:
						return 0, idemflight.Unknown(errTT)
					case 2:
						return 3, idemflight.Final(errTT)
					case 3:
						idemflight.NoEffect(ctx)
						panic("released")
					case 4:
						panic("held")
					case 5:
						c.Forget(k)
					}
					return rng.IntN(30), nil
				}
				var opts []idemflight.CallOption
				switch rng.IntN(4) {
				case 0:
					opts = append(opts, idemflight.WithTTL(0))
				case 1:
					opts = append(opts, idemflight.WithTTL(time.Duration(rng.IntN(100))*time.Microsecond))
				}
				switch how {
				case 6:
					c.Forget(k)
				case 7:
					c.Resolve(k, 1, []error{nil, idemflight.Retryable(errTT)}[k%2])
				case 8:
					_ = c.Restore(k, ttEntry(k, time.Now().Add(time.Hour)))
				default:
					_ = ttPanics(func() { _, _ = c.Do(ttBg, k, fn, opts...) })
				}
			}
		})
	}
	wg.Wait()
	require.LessOrEqual(t, most.Load(), int64(n), "executions at one time")
	st := c.Stats()
	require.LessOrEqual(t, st.Entries, n)
	require.EqualValues(t, evicted.Load(), st.Evicted, "every eviction is an event and counted")
	require.Zero(t, st.InFlight)
	require.Zero(t, st.Waiters)
	require.LessOrEqual(t, st.Weight, int64(20))
	for k := range ttAll(c) {
		c.Forget(k) // false for one that has expired since
	}
	st = c.Stats()
	require.Zero(t, st.Entries+st.Held+int(st.Weight), "nothing is left: %+v", st)

	gate := make(chan struct{})
	for i := range n {
		started := make(chan struct{})
		wg.Go(func() {
			_, err := c.Do(ttBg, 1000+i, func(context.Context) (int, error) { close(started); <-gate; return 1, nil })
			if err != nil {
				t.Errorf("flight %d of %d got %v, expected a place: all are free", i+1, n, err)
				close(started)
			}
		})
		<-started
	}
	_, err := c.Do(ttBg, 2000, func(context.Context) (int, error) { return 1, nil })
	close(gate)
	wg.Wait()
	require.ErrorIs(t, err, idemflight.ErrFull, "flight %d of %d", n+1, n)
}

func TestPromise18_LenAndStatsAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(ttWeighted(ttOptions{TTL: time.Hour, HoldTTL: time.Minute}))
		agree := func(entries, held, flying int, weight int64) {
			t.Helper()
			for range 2 {
				st := c.Stats()
				require.Equal(t, []int{entries, held, flying}, []int{st.Entries, st.Held, st.InFlight}, "entries, held, in flight")
				require.Equal(t, weight, st.Weight)
				require.Equal(t, entries, c.Len())
				require.Len(t, ttAll(c), entries+flying)
			}
		}
		agree(0, 0, 0, 0)
		ttRuns(t, c, "a", 2)
		ttRuns(t, c, "b", 3, idemflight.WithTTL(time.Second))
		ttHold(t, c, "h")
		ttRuns(t, c, "s", ttHeavy)
		agree(4, 1, 0, 5)
		end := ttFly(t, c, "f")
		agree(4, 1, 1, 5)
		time.Sleep(time.Second)
		agree(3, 1, 1, 2)
		_, _ = end(4, nil)
		agree(4, 1, 0, 6)
		require.True(t, c.Resolve("h", 1, nil))
		agree(4, 0, 0, 7)
		require.True(t, c.Forget("a"))
		agree(3, 0, 0, 5)
		time.Sleep(time.Hour)
		agree(0, 0, 0, 0)
	})
}

// Eviction

func TestPromise19_RetainedAndShedGiveWayHeldDoNot(t *testing.T) {
	for _, s := range ttStates {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &ttLog[string]{}
				c := idemflight.MustNew(ttWeighted(ttOptions{MaxEntries: 1, Protect: -1, Observer: log.observe}))
				s.put(t, c)
				ran := false
				r, err := c.DoResult(ttBg, "new", func(context.Context) (int, error) { ran = true; return 2, nil })
				synctest.Wait()
				if s.state == idemflight.Held {
					require.ErrorIs(t, err, idemflight.ErrFull, "held keys are never evicted")
					require.False(t, ran, "fn does not run without a place")
					require.Equal(t, idemflight.None, r.Source)
					require.Empty(t, log.of(idemflight.EventEvicted))
					require.Equal(t, 1, c.Stats().Held)
					require.EqualValues(t, 1, c.Stats().Full)
					return
				}
				require.NoError(t, err)
				require.Equal(t, []string{"k"}, log.keys(idemflight.EventEvicted))
				require.EqualValues(t, 1, c.Stats().Evicted)
				_, ok := c.Lookup("k")
				require.False(t, ok)
				require.EqualValues(t, 2, c.Stats().Weight, "the weight of what is evicted goes with it")
			})
		})
	}
}

// What is evicted is told with its key, once, and counted, however many there are.
func TestPromise19_EveryEvictionIsAnEventAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ttLog[string]{}
		c := idemflight.MustNew(ttOptions{MaxEntries: 50, Protect: -1, Observer: log.observe})
		const n = 500
		for i := range n {
			ttRuns(t, c, ttKey(i), i)
		}
		evicted := log.keys(idemflight.EventEvicted)
		require.Len(t, evicted, n-50)
		require.EqualValues(t, n-50, c.Stats().Evicted)
		for _, k := range evicted {
			_, ok := c.Lookup(k)
			require.False(t, ok, "%s was told as evicted", k)
		}
		slices.Sort(evicted)
		require.Len(t, slices.Compact(evicted), n-50, "each is told once")
	})
}

// ttRecency scans c with new keys while it uses the m/2 keys of a set as seldom as the promise
// allows, or as often as it can, and expects that they survive.
func ttRecency(t *testing.T, c *idemflight.Cache[int, int], m, scan int, rhythm string) {
	t.Helper()
	next := 1_000_000
	insert := func(k int) {
		v, err := c.Do(ttBg, k, func(context.Context) (int, error) { return k, nil })
		require.NoError(t, err)
		require.Equal(t, k, v)
	}
	for range m + m/2 { // a cache that is full of what nobody asks for again
		insert(next)
		next++
	}
	gap := max(1, m/4)
	type member struct{ key, used int }
	var set []member
	inserted := 0
	use := func(i int) {
		v, err := c.Do(ttDead(), set[i].key, ttProbe)
		require.NoError(t, err, "key %d of a set of %d, last used %d insertions ago, %d being a quarter of %d, insertion %d", i, len(set), inserted-set[i].used, gap, m, inserted)
		require.Equal(t, set[i].key, v)
		set[i].used = inserted
	}
	step := func(k int) {
		insert(k)
		inserted++
		for i := range set {
			age := inserted - set[i].used
			switch rhythm {
			case "late":
				if age >= gap {
					use(i)
				}
			case "together":
				if inserted%gap == 0 {
					use(i)
				}
			case "spread":
				if age > 0 && inserted%gap == i%gap {
					use(i)
				}
			case "often":
				use(i)
			}
		}
	}
	for i := range m / 2 {
		step(i + 1)
		set = append(set, member{i + 1, inserted})
		if rhythm == "together" || rhythm == "spread" { // their first gap would else be longer
			use(i)
		}
	}
	for range scan {
		step(next)
		next++
	}
}

// ttProbe is an fn that leaves nothing behind, should it run.
func ttProbe(context.Context) (int, error) { return 0, idemflight.Retryable(errTT) }

// Which shard a key falls into differs from cache to cache, so the small ones are tried often.
func TestPromise19_ASetInUseSurvivesAScan(t *testing.T) {
	for _, tc := range []struct{ m, caches, scan int }{
		{8, 30, 150}, {9, 30, 150}, {10, 10, 150}, {11, 10, 150}, {13, 10, 150}, {16, 10, 150}, {17, 10, 150}, {32, 5, 200}, {33, 5, 200},
		{64, 3, 300}, {65, 3, 300}, {127, 2, 500}, {1000, 1, 2000}, {5000, 1, 5000},
	} {
		for _, rhythm := range []string{"late", "together", "spread", "often"} {
			if rhythm == "often" && tc.m > 64 || rhythm == "together" && tc.m > 1000 {
				continue
			}
			t.Run(fmt.Sprintf("%d/%s", tc.m, rhythm), func(t *testing.T) {
				for range tc.caches {
					c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: tc.m, Protect: -1})
					ttRecency(t, c, tc.m, tc.scan, rhythm)
				}
			})
		}
	}
}

// Held and in-flight keys reduce M, to less than the smallest MaxEntries too.
func TestPromise19_ASetInUseSurvivesBesideHeldAndFlying(t *testing.T) {
	for _, tc := range []struct{ entries, held, flying, caches int }{
		{8, 2, 2, 20}, {8, 4, 0, 20}, {8, 0, 4, 20}, {12, 4, 0, 10}, {16, 0, 8, 10}, {64, 48, 8, 5}, {64, 0, 56, 5}, {64, 56, 0, 5},
		{1000, 900, 20, 1}, {1000, 984, 8, 2}, {5000, 4900, 0, 1}, {5000, 4984, 8, 1},
	} {
		m := tc.entries - tc.held - tc.flying
		for _, rhythm := range []string{"late", "together", "spread"} {
			t.Run(fmt.Sprintf("%d of %d/%s", m, tc.entries, rhythm), func(t *testing.T) {
				for range tc.caches {
					c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: tc.entries, Protect: -1})
					for i := range tc.held {
						_, err := c.Do(ttBg, -1-i, func(context.Context) (int, error) { return 0, idemflight.Unknown(errTT) })
						require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
					}
					gate := make(chan struct{})
					var started, ended sync.WaitGroup
					for i := range tc.flying {
						started.Add(1)
						ended.Go(func() {
							_, _ = c.Do(ttBg, -100_000-i, func(context.Context) (int, error) { started.Done(); <-gate; return 0, nil })
						})
					}
					started.Wait()
					ttRecency(t, c, m, 10*m+100, rhythm)
					require.Equal(t, tc.held, c.Stats().Held)
					require.Equal(t, tc.flying, c.Stats().InFlight)
					close(gate)
					ended.Wait()
				}
			})
		}
	}
}

// Protect

func TestPromise19_Protect(t *testing.T) {
	cases := []struct {
		name         string
		ttl, protect time.Duration
		with         []idemflight.CallOption
		want         time.Duration // how long an outcome is safe; negative: until it expires
	}{
		{"by default an hour", 24 * time.Hour, 0, nil, time.Hour},
		{"by default an hour of the default TTL", 0, 0, nil, time.Hour},
		{"by default half of a TTL of two hours", 2 * time.Hour, 0, nil, time.Hour},
		{"by default half of a TTL of an hour", time.Hour, 0, nil, 30 * time.Minute},
		{"by default half of the TTL of the options", time.Hour, 0, []idemflight.CallOption{idemflight.WithTTL(100 * time.Hour)}, 30 * time.Minute},
		{"negative is none", time.Hour, -1, nil, 0},
		{"very negative is none", time.Hour, math.MinInt64, nil, 0},
		{"given", time.Hour, 10 * time.Minute, nil, 10 * time.Minute},
		{"a nanosecond", time.Hour, 1, nil, 1},
		{"longer than the default", 24 * time.Hour, 23 * time.Hour, nil, 23 * time.Hour},
		{"just under TTL", time.Hour, time.Hour - 1, nil, time.Hour - 1},
		{"TTL", time.Hour, time.Hour, nil, -1},
		{"over TTL", time.Hour, 2 * time.Hour, nil, -1},
		{"TTL, of an outcome that lives longer", time.Hour, time.Hour, []idemflight.CallOption{idemflight.WithTTL(100 * time.Hour)}, -1},
		{"over TTL, of an outcome that lives longer", time.Hour, 2 * time.Hour, []idemflight.CallOption{idemflight.WithTTL(100 * time.Hour)}, -1},
		{"huge", time.Hour, math.MaxInt64, nil, -1},
	}
	for _, tc := range cases {
		for _, n := range []int{1, 40} {
			t.Run(fmt.Sprintf("%s/%d", tc.name, n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					log := &ttLog[string]{}
					c := idemflight.MustNew(ttOptions{TTL: tc.ttl, Protect: tc.protect, MaxEntries: n, Observer: log.observe})
					var r idemflight.Result[int]
					var err error
					for i := range n {
						// An execution of some length: the protection counts from completion.
						r, err = c.DoResult(ttBg, ttKey(i), func(context.Context) (int, error) {
							if i == 0 {
								time.Sleep(5 * time.Minute)
							}
							return i, nil
						}, tc.with...)
						require.NoError(t, err)
					}
					safe := tc.want
					if safe < 0 {
						safe = r.ExpiresAt.Sub(r.CompletedAt)
					}
					if safe > 0 {
						time.Sleep(safe - 1)
						_, err := c.Do(ttBg, "new", ttNever(t))
						require.ErrorIs(t, err, idemflight.ErrFull, "%v less 1 ns after completion, with a TTL of %v and Protect %v", safe, tc.ttl, tc.protect)
						time.Sleep(1)
					}
					ttRuns(t, c, "new", 1)
					synctest.Wait()
					if tc.want < 0 {
						require.Empty(t, log.of(idemflight.EventEvicted), "nothing is evicted, the place came from one that had expired")
					} else {
						require.Len(t, log.of(idemflight.EventEvicted), 1, "%v after completion", safe)
					}
				})
			})
		}
	}
}

// Only completion counts: replays move no outcome back under protection.
func TestPromise19_ReplaysDoNotProtect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(ttOptions{TTL: time.Hour, Protect: 10 * time.Minute, MaxEntries: 1})
		ttRuns(t, c, "k", 1)
		for range 10 {
			time.Sleep(time.Minute)
			require.Equal(t, 1, ttReplay(t, c, "k"))
		}
		ttRuns(t, c, "new", 2)
	})
}

// Among outcomes never replayed the one that Protect lets go is found wherever it lies: each
// completes at another time, and they are let go one by one.
func TestPromise19_TheOneThatProtectLetsGoIsFound(t *testing.T) {
	const protect = 10 * time.Hour
	now := func(ago time.Duration) idemflight.Entry[int] { // completed so long ago
		e := ttEntry(1, time.Now().Add(200*time.Hour))
		e.CompletedAt = time.Now().Add(-ago)
		e.StartedAt = e.CompletedAt
		return e
	}
	// What the cache is filled with: n outcomes, of which none is unprotected before a minute has
	// passed, and then one more with each minute, in the order of their numbers.
	age := func(n, i int) time.Duration { return protect - time.Duration(i+1)*time.Minute }
	fills := map[string]func(t *testing.T, c *ttCache, n int){
		"completed in order": func(t *testing.T, c *ttCache, n int) {
			for i := range n {
				ttRuns(t, c, ttKey(i), i)
				time.Sleep(time.Minute)
			}
			time.Sleep(protect - time.Duration(n)*time.Minute - time.Minute)
			time.Sleep(time.Minute) // the first is at its boundary one minute earlier than below
		},
		"restored oldest first": func(t *testing.T, c *ttCache, n int) {
			for i := range n {
				require.NoError(t, c.Restore(ttKey(i), now(age(n, i))))
			}
			time.Sleep(time.Minute)
		},
		"restored newest first": func(t *testing.T, c *ttCache, n int) {
			for i := n - 1; i >= 0; i-- {
				require.NoError(t, c.Restore(ttKey(i), now(age(n, i))))
			}
			time.Sleep(time.Minute)
		},
		"restored in any order": func(t *testing.T, c *ttCache, n int) {
			for _, i := range rand.New(rand.NewPCG(19, uint64(n))).Perm(n) {
				e := now(age(n, i))
				if i%3 == 0 {
					e.State, e.Value = idemflight.Shed, 0
				}
				require.NoError(t, c.Restore(ttKey(i), e))
			}
			time.Sleep(time.Minute)
		},
		"executed and restored": func(t *testing.T, c *ttCache, n int) {
			for i := n - 1; i >= 0; i-- { // the youngest are executed, before the older come back
				if i >= n/2 {
					continue
				}
				require.NoError(t, c.Restore(ttKey(i), now(age(n, i))))
			}
			for i := n / 2; i < n; i++ {
				ttRuns(t, c, ttKey(i), i)
			}
			time.Sleep(time.Minute)
		},
	}
	for name, fill := range fills {
		for _, n := range []int{1, 2, 8, 64, 300} {
			t.Run(fmt.Sprintf("%s/%d", name, n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					log := &ttLog[string]{}
					c := idemflight.MustNew(ttOptions{TTL: 200 * time.Hour, Protect: protect, MaxEntries: n, Observer: log.observe})
					fill(t, c, n)
					let := n
					if name == "executed and restored" {
						let = n / 2
					}
					for i := range let {
						r, err := c.DoResult(ttBg, fmt.Sprint("new", i), ttValue(i))
						require.NoError(t, err, "the %d-th of %d is the one that Protect lets go", i, n)
						require.Equal(t, idemflight.Executed, r.Source)
						synctest.Wait()
						evicted := log.keys(idemflight.EventEvicted)
						require.Equal(t, ttKey(i), evicted[len(evicted)-1], "the only one that Protect lets go")
						if n <= 64 || i%50 == 0 {
							_, err = c.Do(ttBg, "one too many", ttNever(t))
							require.ErrorIs(t, err, idemflight.ErrFull, "all others are protected")
						}
						time.Sleep(time.Minute)
					}
				})
			})
		}
	}
}

// Replayed outcomes that are protected do not hide the one that was never replayed.
func TestPromise19_TheOneIsFoundAmongReplayedOnes(t *testing.T) {
	for _, n := range []int{2, 8, 64, 500} {
		for _, at := range []string{"first", "middle", "last"} {
			t.Run(fmt.Sprintf("%d/%s", n, at), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					log := &ttLog[string]{}
					c := idemflight.MustNew(ttOptions{TTL: 20 * time.Hour, Protect: 10 * time.Hour, MaxEntries: n, Observer: log.observe})
					old := map[string]int{"first": 0, "middle": n / 2, "last": n - 1}[at]
					for i := range n {
						if i == old {
							e := ttEntry(1, time.Now().Add(time.Hour))
							e.CompletedAt = time.Now().Add(-11 * time.Hour)
							require.NoError(t, c.Restore(ttKey(i), e))
							continue
						}
						ttRuns(t, c, ttKey(i), i)
						for range 3 {
							require.Equal(t, i, ttReplay(t, c, ttKey(i)))
						}
					}
					ttRuns(t, c, "new", 1)
					synctest.Wait()
					require.Equal(t, []string{ttKey(old)}, log.keys(idemflight.EventEvicted))
					_, err := c.Do(ttBg, "one too many", ttNever(t))
					require.ErrorIs(t, err, idemflight.ErrFull)
				})
			})
		}
	}
}

// A completes first and is put in last, since Weigh takes its time over it: the order in which
// outcomes are put in is not that of their completion. Which of the two shares A's shard differs.
func TestPromise19_TheOneIsFoundHoweverLateItWasPutIn(t *testing.T) {
	for _, slow := range []time.Duration{time.Millisecond, 99 * time.Millisecond, time.Second} {
		t.Run(fmt.Sprint(slow), func(t *testing.T) {
			for range 8 {
				synctest.Test(t, func(t *testing.T) {
					c := idemflight.MustNew(ttOptions{TTL: 20 * time.Hour, Protect: time.Hour, MaxEntries: 4, MaxWeight: 1, Weigh: func(k string, _ int) int64 {
						if k == "A" {
							time.Sleep(slow)
						}
						return 0
					}})
					go func() { _, _ = c.Do(ttBg, "A", ttValue(1)) }()
					time.Sleep(slow / 2)
					for i := range 3 {
						ttRuns(t, c, ttKey(i), i)
					}
					time.Sleep(time.Hour - slow/2)
					synctest.Wait()
					ttRuns(t, c, "new", 2)
					_, ok := c.Lookup("A")
					require.False(t, ok, "A completed an hour ago, the others later")
				})
			}
		})
	}
}
