package idemflight_test

import (
	"context"
	"errors"
	"fmt"
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

// Promise 18: MaxEntries is exact: it limits what is in flight and kept together, across all
// shards, and no place is ever lost.
func TestPromise18_PlacesAreExact(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 8, 9, 64, 65, 300} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{MaxEntries: n, MinRetention: -1})
				for i := range 3*n + 5 {
					executes(t, c, keyNo(i), i)
					require.Equal(t, min(i+1, n), c.Len(), "kept after %d new keys", i+1)
					require.EqualValues(t, max(0, i+1-n), c.Stats().Evicted,
						"evicted after %d new keys", i+1)
				}
				require.Len(t, entries(c), n)
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
				c := idemflight.MustNew(weighted(options{MaxEntries: n, MinRetention: idemflight.DefaultTTL}))
				var ends []func(int, error) (idemflight.Result[int], error)
				var flying []string
				for i := range n {
					k := keyNo(i)
					switch i % 4 {
					case 0:
						ends, flying = append(ends, fly(t, c, k)), append(flying, k)
					case 1:
						executes(t, c, k, 0)
					case 2:
						executes(t, c, k, tooHeavy)
					case 3:
						hold(t, c, k)
					}
				}
				full := func() {
					t.Helper()
					_, err := c.Do(bg, "one more", neverRuns(t))
					require.ErrorIs(t, err, idemflight.ErrFull, "%d places are taken", n)
					require.ErrorIs(t, c.Restore(bg, "one more", retainedEntry(1, time.Now().Add(time.Hour))), idemflight.ErrFull)
					_, ok := lookup(c, "one more")
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
				require.True(t, forget(c, flying[0]))
				executes(t, c, "one more", 1)
				require.Zero(t, c.Stats().Evicted)
			})
		})
	}
}

func TestPromise18_APlaceIsTakenBeforeFnRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(options{MaxEntries: 1, MinRetention: -1, Observer: log.observe})
		executes(t, c, "old", 1)
		_, err := c.Do(bg, "new", func(context.Context) (int, error) {
			_, ok := lookup(c, "old")
			require.False(t, ok, "the old outcome has given its place by the time fn runs")
			st := c.Stats()
			require.Equal(t, 1, st.InFlight+st.Entries, "in flight + kept while fn runs")
			require.EqualValues(t, 1, st.Evicted)
			require.Len(t, entries(c), 1)
			_, err := c.Do(bg, "third", neverRuns(t))
			require.ErrorIs(t, err, idemflight.ErrFull)
			return 2, nil
		})
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, []string{"old"}, log.keys(idemflight.EventEvicted))
		require.Equal(t, 2, replays(t, c, "new"))
	})
}

func TestPromise18_ThePlacePassesOn(t *testing.T) {
	t.Run("from the flight to what is kept", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{MaxEntries: 1, TTL: time.Hour, MinRetention: time.Hour})
			executes(t, c, "k", 1)
			require.Equal(t, 1, replays(t, c, "k"))
			require.Zero(t, c.Stats().Evicted)
		})
	})
	for name, finds := range map[string]error{"found": nil, "found final": idemflight.Final(errBoom), "still unknown": errBoom} {
		t.Run("from a held key to its Reconcile and on: "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c *cache
				c = idemflight.MustNew(options{MaxEntries: 2, MinRetention: idemflight.DefaultTTL, Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
					_, err := c.Do(bg, "other", neverRuns(t))
					require.ErrorIs(t, err, idemflight.ErrFull,
						"the place of the held key is its Reconcile's")
					st := c.Stats()
					require.Equal(t, 1, st.InFlight)
					require.Equal(t, 1, st.Entries,
						"what is in flight is not kept at the same time")
					require.Equal(t, 1, c.Len())
					return 3, finds
				}})
				hold(t, c, "k")
				hold(t, c, "k2")
				_, err := c.Do(bg, "k", neverRuns(t))
				require.NotErrorIs(t, err, idemflight.ErrFull,
					"a Reconcile needs no other place than that of its key")
				_, err = c.Do(bg, "other", neverRuns(t))
				require.ErrorIs(t, err, idemflight.ErrFull)
				require.Equal(t, 2, c.Len())
				require.True(t, forget(c, "k"))
				executes(t, c, "other", 1)
			})
		})
	}
	t.Run("from a held key to its Reconcile to fn", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{MaxEntries: 1, MinRetention: idemflight.DefaultTTL, Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
				return 0, idemflight.Retryable(errBoom)
			}})
			hold(t, c, "k")
			_, err := c.Do(bg, "k", func(context.Context) (int, error) {
				_, err := c.Do(bg, "other", neverRuns(t))
				require.ErrorIs(t, err, idemflight.ErrFull)
				return 0, idemflight.Retryable(errBoom)
			})
			require.ErrorIs(t, err, errBoom)
			executes(t, c, "other", 1)
		})
	})
	t.Run("from an expired record to the new flight of its key", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			log := &eventLog[string]{}
			c := idemflight.MustNew(options{MaxEntries: 2, MinRetention: idemflight.DefaultTTL, Observer: log.observe})
			executes(t, c, "k", 1, idemflight.WithTTL(time.Second))
			hold(t, c, "held")
			time.Sleep(time.Second)
			_, err := c.Do(bg, "k", func(context.Context) (int, error) {
				_, err := c.Do(bg, "other", neverRuns(t))
				require.ErrorIs(t, err, idemflight.ErrFull)
				return 2, nil
			})
			require.NoError(t, err,
				"an expired record's own place serves the new flight of its key")
			synctest.Wait()
			require.Equal(t, []string{"k"}, log.keys(idemflight.EventExpired))
			require.Empty(t, log.of(idemflight.EventEvicted))
		})
	})
	t.Run("from a held key to what Resolve makes of it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{MaxEntries: 1, MinRetention: idemflight.DefaultTTL})
			hold(t, c, "k")
			require.True(t, resolve(c, "k", 1, nil))
			_, err := c.Do(bg, "other", neverRuns(t))
			require.ErrorIs(t, err, idemflight.ErrFull)
			holdAgain := func() { require.True(t, forget(c, "k")); hold(t, c, "k") }
			holdAgain()
			require.True(t, resolve(c, "k", 0, idemflight.Retryable(errBoom)))
			executes(t, c, "other", 1)
		})
	})
}

func TestPromise18_ThePlaceIsGivenBackWhenNothingIsKept(t *testing.T) {
	ways := map[string]func(t *testing.T, c *cache){
		"Retryable": func(t *testing.T, c *cache) {
			_, err := c.Do(bg, "k", returns(0, idemflight.Retryable(errBoom)))
			require.ErrorIs(t, err, errBoom)
		},
		"NoEffect and an error without marker": func(t *testing.T, c *cache) {
			_, err := c.Do(bg, "k", func(ctx context.Context) (int, error) { idemflight.NoEffect(ctx); return 0, errBoom })
			require.True(t, err == errBoom, "a released error is fn's own, got %v", err)
		},
		"NoEffect and a panic": func(t *testing.T, c *cache) {
			require.NotNil(t, panicOf(func() {
				_, _ = c.Do(bg, "k", func(ctx context.Context) (int, error) { idemflight.NoEffect(ctx); panic("x") })
			}))
		},
		"NoEffect and Goexit": func(t *testing.T, c *cache) {
			go func() {
				_, _ = c.Do(bg, "k", func(ctx context.Context) (int, error) { idemflight.NoEffect(ctx); runtime.Goexit(); return 0, nil })
			}()
			synctest.Wait()
		},
		"WithTTL(0)": func(t *testing.T, c *cache) { executes(t, c, "k", 1, idemflight.WithTTL(0)) },
		"WithTTL(0) and Final": func(_ *testing.T, c *cache) {
			_, _ = c.Do(bg, "k", returns(0, idemflight.Final(errBoom)), idemflight.WithTTL(0))
		},
		"WithTTL(0), too heavy": func(t *testing.T, c *cache) {
			executes(t, c, "k", tooHeavy, idemflight.WithTTL(0))
			require.Zero(t, c.Stats().Shed, "what is not to be retained is not shed")
		},
		"Forget in flight": func(t *testing.T, c *cache) {
			end := fly(t, c, "k")
			require.True(t, forget(c, "k"))
			_, err := end(1, nil)
			require.NoError(t, err)
		},
		"its leader left": func(t *testing.T, c *cache) {
			ctx, cancel := context.WithTimeout(bg, time.Second)
			defer cancel()
			_, err := c.Do(ctx, "k", returnsAfter(time.Minute, 0, idemflight.Retryable(errBoom)))
			require.ErrorIs(t, err, idemflight.ErrCallerLeft)
			time.Sleep(time.Minute)
			synctest.Wait()
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &eventLog[string]{}
				c := idemflight.MustNew(weighted(options{MaxEntries: 1, MinRetention: idemflight.DefaultTTL, Observer: log.observe}))
				for range 3 {
					way(t, c)
					require.Zero(t, c.Len(), "nothing is kept")
					require.Empty(t, entries(c))
				}
				ends := log.of(idemflight.EventExecuted, idemflight.EventFinished)
				require.Len(t, ends, 3)
				for _, e := range ends {
					require.Equal(t, idemflight.Release, e.Disposition,
						"of an outcome that is not kept")
				}
				st := c.Stats()
				require.EqualValues(t, 3, st.Releases)
				require.Zero(t, st.Retains+st.Holds)
				executes(t, c, "other", 1)
				require.Zero(t, c.Stats().Evicted)
				_, err := c.Do(bg, "k", neverRuns(t))
				require.ErrorIs(t, err, idemflight.ErrFull, "and it was given back once only")
			})
		})
	}
}

// The expired ones lie anywhere: in every shard, used last or never, held, shed or retained,
// inserted before and after those that live. With one of them left no key may get ErrFull, and no
// living outcome may go.
func TestPromise18_ExpiredEntriesCountAsFree(t *testing.T) {
	for _, n := range []int{2, 3, 8, 64, 1000} {
		for name, protect := range map[string]time.Duration{"plain": -1, "protected": idemflight.DefaultTTL} {
			t.Run(fmt.Sprintf("%d/%s", n, name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					log := &eventLog[string]{}
					c := idemflight.MustNew(weighted(options{MaxEntries: n, MinRetention: protect, HoldTTL: time.Second, Observer: log.observe}))
					rng := rand.New(rand.NewPCG(18, uint64(n)))
					dying := map[string]bool{}
					for i, p := range rng.Perm(n) {
						k := keyNo(i)
						if p < (n+1)/2 {
							dying[k] = true
							switch p % 3 {
							case 0:
								hold(t, c, k)
							case 1:
								executes(t, c, k, 0, idemflight.WithTTL(time.Second))
							case 2:
								executes(t, c, k, tooHeavy, idemflight.WithTTL(time.Second))
							}
						} else {
							executes(t, c, k, 0)
						}
					}
					for k := range dying { // used last
						_, _ = c.Do(bg, k, neverRuns(t))
					}
					time.Sleep(time.Second) // to the instant: no timer has had to ring
					for i := range len(dying) {
						executes(t, c, fmt.Sprint("new", i), 0)
					}
					synctest.Wait()
					require.Empty(t, log.keys(idemflight.EventEvicted),
						"nothing is evicted while an expired entry could give its place")
					for i := range n {
						_, ok := lookup(c, keyNo(i))
						require.Equal(t, !dying[keyNo(i)], ok,
							"those that live stay, those that have expired go")
					}
					require.Len(t, log.of(idemflight.EventExpired), len(dying), "each expires once")
					require.Equal(t, n, c.Len())
					_, err := c.Do(bg, "one more", returns(0, idemflight.Retryable(errBoom)))
					if protect < 0 {
						require.ErrorIs(t, err, errBoom)
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
				c := idemflight.MustNew(options{MaxEntries: n, MinRetention: -1})
				var ends []func(int, error) (idemflight.Result[int], error)
				for i := range n - 1 {
					ends = append(ends, fly(t, c, fmt.Sprint("flying", i)))
				}
				for i := range 5 * n {
					executes(t, c, keyNo(i), i)
				}
				require.Equal(t, n-1, c.Stats().InFlight)
				for i, end := range ends {
					e, ok := lookup(c, fmt.Sprint("flying", i))
					require.True(t, ok)
					require.Equal(t, idemflight.InFlight, e.State)
					r, err := end(i, nil)
					require.NoError(t, err)
					require.Equal(t, i, r.Value)
					require.Equal(t, i, replays(t, c, fmt.Sprint("flying", i)))
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
			c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: 1, MinRetention: protect})
			for round := 1; round <= 1500; round++ {
				var runs atomic.Int32
				var wg sync.WaitGroup
				start := make(chan struct{})
				for range 4 {
					wg.Go(func() {
						<-start
						v, err := c.Do(bg, round, func(context.Context) (int, error) { runs.Add(1); return round, nil })
						if err != nil || v != round {
							t.Errorf("round %d: got (%d, %v), expected the outcome: the key is in flight or kept", round, v, err)
						}
					})
				}
				close(start)
				wg.Wait()
				require.EqualValues(t, 1, runs.Load(), "executions in round %d", round)
				if protect > 0 {
					require.True(t, forget(c, round))
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
	c = idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: n, MinRetention: -1, TTL: time.Hour, MaxWeight: 20,
		Weigh: func(_, v int) int64 { return int64(v % 9) },
		Observer: func(_ context.Context, e idemflight.Event[int]) {
			if e.Kind == idemflight.EventEvicted {
				evicted.Add(1)
			}
		},
		Reconcile: func(_ context.Context, k int, _ idemflight.Entry[int]) (int, error) {
			return 1, []error{nil, errBoom, idemflight.Retryable(errBoom), idemflight.Final(errBoom)}[k%4]
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
						return 0, idemflight.Retryable(errBoom)
					case 1:
						return 0, idemflight.Unknown(errBoom)
					case 2:
						return 3, idemflight.Final(errBoom)
					case 3:
						idemflight.NoEffect(ctx)
						panic("released")
					case 4:
						panic("held")
					case 5:
						forget(c, k)
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
					forget(c, k)
				case 7:
					resolve(c, k, 1, []error{nil, idemflight.Retryable(errBoom)}[k%2])
				case 8:
					_ = c.Restore(bg, k, retainedEntry(k, time.Now().Add(time.Hour)))
				default:
					_ = panicOf(func() { _, _ = c.Do(bg, k, fn, opts...) })
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
	for k := range entries(c) {
		forget(c, k) // false for one that has expired since
	}
	st = c.Stats()
	require.Zero(t, st.Entries+st.Held+int(st.Weight), "nothing is left: %+v", st)

	gate := make(chan struct{})
	for i := range n {
		started := make(chan struct{})
		wg.Go(func() {
			_, err := c.Do(bg, 1000+i, func(context.Context) (int, error) { close(started); <-gate; return 1, nil })
			if err != nil {
				t.Errorf("flight %d of %d got %v, expected a place: all are free", i+1, n, err)
				close(started)
			}
		})
		<-started
	}
	_, err := c.Do(bg, 2000, returns(1, nil))
	close(gate)
	wg.Wait()
	require.ErrorIs(t, err, idemflight.ErrFull, "flight %d of %d", n+1, n)
}

func TestPromise18_LenAndStatsAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(weighted(options{TTL: time.Hour, HoldTTL: time.Minute}))
		agree := func(kept, held, flying int, weight int64) {
			t.Helper()
			for range 2 {
				st := c.Stats()
				require.Equal(t, []int{kept, held, flying}, []int{st.Entries, st.Held, st.InFlight},
					"entries, held, in flight")
				require.Equal(t, weight, st.Weight)
				require.Equal(t, kept, c.Len())
				require.Len(t, entries(c), kept+flying)
			}
		}
		agree(0, 0, 0, 0)
		executes(t, c, "a", 2)
		executes(t, c, "b", 3, idemflight.WithTTL(time.Second))
		hold(t, c, "h")
		executes(t, c, "s", tooHeavy)
		agree(4, 1, 0, 5)
		end := fly(t, c, "f")
		agree(4, 1, 1, 5)
		time.Sleep(time.Second)
		agree(3, 1, 1, 2)
		_, _ = end(4, nil)
		agree(4, 1, 0, 6)
		require.True(t, resolve(c, "h", 1, nil))
		agree(4, 0, 0, 7)
		require.True(t, forget(c, "a"))
		agree(3, 0, 0, 5)
		time.Sleep(time.Hour)
		agree(0, 0, 0, 0)
	})
}

// An expired record makes room even if another call drops it between the look and the lock: nothing
// is evicted for a place that is free.
func TestPromise18_ThePlaceOfWhatExpiredIsThereWhoeverDropsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{MaxEntries: 2, MinRetention: -1})
		executes(t, c, "kept", 1)
		executes(t, c, "expires", 1, idemflight.WithTTL(time.Second))
		time.Sleep(time.Second)
		dropped := false
		onYield(t, func(point string) {
			if point == "reclaim" && !dropped {
				dropped = true
				require.False(t, forget(c, "expires"))
			}
		})
		executes(t, c, "new", 1)
		require.True(t, dropped, "the seam")
		_, ok := lookup(c, "kept")
		require.True(t, ok)
		require.Zero(t, c.Stats().Evicted)
	})
}

// Once: no test noticed the planted fault that a call which looked for room in vain did not look
// at its key once more, though another call had it in flight by then. The yield point makes the
// other come exactly in between.
func TestErrFull_NotForAKeyThatIsInFlightMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{MaxEntries: 1})
		end := make(chan struct{})
		go func() {
			_, _ = c.Do(context.Background(), "other", func(context.Context) (int, error) {
				<-end
				return 0, idemflight.Retryable(errors.New("no effect"))
			})
		}()
		synctest.Wait()
		came := false
		onYield(t, func(point string) {
			if point != "looked for room" || came {
				return
			}
			came = true
			close(end) // the place is free
			synctest.Wait()
			go func() {
				_, _ = c.Do(context.Background(), "k", returnsAfter(time.Minute, 1, nil))
			}()
			synctest.Wait()
		})
		defer func() {
			synctest.Wait()
		}()
		r, err := c.DoResult(context.Background(), "k", returns(2, nil))
		require.True(t, came, "the seam: nobody came in between")
		require.NoError(t, err, "the key is in flight, so there is something to wait for")
		require.Equal(t, idemflight.Joined, r.Source)
		require.Equal(t, 1, r.Value)
	})
}

// Once: no test noticed the planted fault that a call got ErrFull though an outcome had been
// inserted meanwhile that it could evict.
func TestErrFull_NotWhenAnEvictableOutcomeWasInsertedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{MaxEntries: 1, MinRetention: -1})
		end := make(chan struct{})
		go func() {
			_, _ = c.Do(context.Background(), "other", func(context.Context) (int, error) { <-end; return 1, nil })
		}()
		synctest.Wait()
		looks := 0
		onYield(t, func(point string) {
			if point == "meet" {
				if looks++; looks == 2 { // after the search, which found nothing that may go
					close(end)
					synctest.Wait()
				}
			}
		})
		defer func() {
			synctest.Wait()
		}()
		v, err := c.Do(context.Background(), "k", returns(2, nil))
		require.GreaterOrEqual(t, looks, 2, "the seam: nothing came in between")
		require.NoError(t, err, "what has come may be evicted")
		require.Equal(t, 2, v)
	})
}

// Once: a search for room that was overtaken found nothing, though there was always an outcome to
// evict.
func TestErrFull_NotWhileThereIsSomethingToEvict(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: 8, MinRetention: -1})
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
