package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// Promise 17: What has expired becomes garbage without further calls. No goroutine exists while
// nothing runs, and a cache that is dropped without Close is collected.
func TestPromise17_ExpiredRecordsGoWithoutFurtherCalls(t *testing.T) {
	for _, ttl := range []time.Duration{1, time.Millisecond, time.Second, 7 * time.Second, 8*time.Second + 1, 80 * time.Second, 24 * time.Hour, 300 * 24 * time.Hour} {
		for _, n := range []int{1, 500} {
			t.Run(fmt.Sprintf("%v/%d", ttl, n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					log := &eventLog[string]{}
					c := idemflight.MustNew(options{TTL: ttl, HoldTTL: ttl, Observer: log.observe})
					for i := range n {
						if i%2 == 0 {
							executes(t, c, keyNo(i), i)
						} else {
							hold(t, c, keyNo(i))
						}
					}
					time.Sleep(ttl + reclaimDelay(ttl))
					synctest.Wait()
					require.Len(t, log.of(idemflight.EventExpired), n, "expired records told within max(1 s, TTL/8) after their expiry, without a call")
					runtime.KeepAlive(c)
				})
			})
		}
	}
}

// Deadlines come in every order: when they fall the timer must be set to fire earlier, when they
// rise it must be armed again.
func TestPromise17_EachByItsOwnTTL(t *testing.T) {
	const n = 400
	orders := map[string]func(i int) time.Duration{
		"rising":   func(i int) time.Duration { return time.Duration(i+1) * 100 * time.Millisecond },
		"falling":  func(i int) time.Duration { return time.Duration(n-i) * 100 * time.Millisecond },
		"shuffled": func(i int) time.Duration { return time.Duration(i*37%n+1) * time.Second },
		"far apart": func(i int) time.Duration {
			return []time.Duration{24 * time.Hour, time.Second, time.Hour, time.Millisecond, 1}[i%5]
		},
	}
	for name, ttlOf := range orders {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &eventLog[string]{}
				c := idemflight.MustNew(options{Observer: log.observe})
				deadline, longest := map[string]time.Time{}, time.Duration(0)
				ttl := map[string]time.Duration{}
				for i := range n {
					k, d := keyNo(i), ttlOf(i)
					deadline[k] = executes(t, c, k, i, idemflight.WithTTL(d)).ExpiresAt
					ttl[k], longest = d, max(longest, d)
					if name != "far apart" {
						time.Sleep(13 * time.Millisecond)
					}
				}
				time.Sleep(longest + reclaimDelay(longest))
				synctest.Wait()
				seen := log.seen(idemflight.EventExpired)
				require.Len(t, seen, n, "every record expires once")
				for _, s := range seen {
					late := s.at.Sub(deadline[s.Key])
					require.GreaterOrEqual(t, late, time.Duration(0),
						"%s with TTL %v reclaimed before its deadline", s.Key, ttl[s.Key])
					require.LessOrEqual(t, late, reclaimDelay(ttl[s.Key]),
						"%s with TTL %v reclaimed too long after its deadline", s.Key, ttl[s.Key])
				}
				runtime.KeepAlive(c)
			})
		})
	}
}

// A record's own TTL is that of the option it came with: HoldTTL, WithTTL, what Restore brought.
func TestPromise17_OfEveryOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(weighted(options{TTL: 24 * time.Hour, HoldTTL: 10 * time.Second, Observer: log.observe}))
		var ends []time.Duration // after now, with the slack of each
		add := func(left, own time.Duration) { ends = append(ends, left+reclaimDelay(own)) }

		hold(t, c, "held")
		add(10*time.Second, 10*time.Second)
		executes(t, c, "shed", tooHeavy, idemflight.WithTTL(30*time.Second))
		add(30*time.Second, 30*time.Second)
		now := time.Now()
		e := retainedEntry(1, now.Add(40*time.Second))
		e.CompletedAt = now.Add(-40 * time.Second)
		require.NoError(t, c.Restore(bg, "restored", e))
		add(40*time.Second, 80*time.Second)
		hold(t, c, "resolved")
		require.True(t, resolve(c, "resolved", 1, nil))
		add(24*time.Hour, 24*time.Hour)

		for i, d := range ends {
			time.Sleep(time.Until(now.Add(d)))
			synctest.Wait()
			require.Len(t, log.of(idemflight.EventExpired), i+1,
				"expired %v after the start: %v", d, log.of(idemflight.EventExpired))
		}
		runtime.KeepAlive(c)
	})
}

// The answer of Resolve may expire before the hold would have: it is reclaimed in its own time.
func TestPromise17_WhatWasResolvedIsReclaimedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(options{TTL: time.Minute, HoldTTL: time.Hour, Observer: log.observe})
		hold(t, c, "k")
		require.True(t, resolve(c, "k", 7, nil))
		time.Sleep(time.Minute + reclaimDelay(time.Minute))
		synctest.Wait()
		require.Equal(t, []string{"k"}, log.keys(idemflight.EventExpired))
	})
}

type objectError [64]byte

func (*objectError) Error() string { return "thing" }

func TestPromise17_KeysValuesAndErrorsBecomeGarbage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = time.Minute
		c := idemflight.MustNew(idemflight.Options[*object, *object]{TTL: ttl, HoldTTL: ttl})
		const n = 64
		var keys, values [n]weak.Pointer[object]
		var errs [n]weak.Pointer[objectError]
		func() {
			for i := range n {
				k, v, e := &object{}, &object{}, &objectError{}
				keys[i], values[i], errs[i] = weak.Make(k), weak.Make(v), weak.Make(e)
				_, _ = c.Do(bg, k, func(context.Context) (*object, error) {
					switch i % 3 {
					case 0:
						return v, idemflight.Final(e)
					case 1:
						return v, idemflight.Unknown(e)
					}
					return v, nil
				})
			}
		}()
		runtime.GC()
		for i := range n {
			require.NotNil(t, keys[i].Value(), "key %d is kept", i)
			require.Equal(t, i%3 != 1, values[i].Value() != nil,
				"value %d is kept unless the key is held, which keeps no value", i)
			require.Equal(t, i%3 != 2, errs[i].Value() != nil, "error %d is kept", i)
		}
		time.Sleep(ttl + reclaimDelay(ttl))
		synctest.Wait()
		runtime.GC()
		for i := range n {
			require.Nil(t, keys[i].Value(), "key %d is garbage after its expiry", i)
			require.Nil(t, values[i].Value(), "value %d is garbage after its expiry", i)
			require.Nil(t, errs[i].Value(), "error %d is garbage after its expiry", i)
		}
		runtime.KeepAlive(c)
	})
}

// A value that is no longer kept is garbage at once, even while its key is remembered.
func TestPromise17_NothingKeepsAValueThatIsShedEvictedForgottenOrReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[int, *object]{MinRetention: -1, MaxEntries: 4, MaxWeight: 10,
			Weigh: func(k int, _ *object) int64 { return map[int]int64{1: 11}[k] }})
		do := func(k int, opts ...idemflight.CallOption) weak.Pointer[object] {
			v := &object{}
			_, err := c.Do(bg, k, func(context.Context) (*object, error) { return v, nil }, opts...)
			require.NoError(t, err)
			return weak.Make(v)
		}
		gone := map[string]weak.Pointer[object]{
			"shed":     do(1),
			"released": do(2, idemflight.WithTTL(0)),
			"forgot":   do(3),
			"evicted":  do(4),
		}
		require.True(t, forget(c, 3))
		for k := range 4 {
			do(100 + k)
		}
		runtime.GC()
		for name, v := range gone {
			require.Nil(t, v.Value(), "the value that was %s", name)
		}
		runtime.KeepAlive(c)
	})
}

// A joined caller that is slow to return, here because its Observer is, does not keep the leader's
// fn and what that refers to alive longer than the flight did.
func TestJoinedCaller_DoesNotKeepFnAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used weak.Pointer[object]
		collected := make(chan bool, 1)
		c := idemflight.MustNew(options{Observer: func(_ context.Context, e idemflight.Event[string]) {
			if e.Kind == idemflight.EventJoined {
				synctest.Wait() // the flight has landed, and its goroutine has ended
				runtime.GC()
				collected <- used.Value() == nil
			}
		}})
		ctx, leave := context.WithCancel(bg)
		left := make(chan struct{})
		go func() {
			defer close(left)
			thing := &object{}
			used = weak.Make(thing)
			_, err := c.Do(ctx, "k", func(context.Context) (int, error) {
				time.Sleep(time.Second)
				return int(thing[0]), nil
			})
			require.ErrorIs(t, err, idemflight.ErrCallerLeft)
		}()
		synctest.Wait()
		go func() { _, _ = c.Do(bg, "k", neverRuns(t)) }()
		synctest.Wait()
		leave()
		<-left
		require.True(t, <-collected, "what fn refers to is garbage")
	})
}

// Once: a joined caller held on to its own fn, and to what that refers to, as long as it waited.
func TestJoinedCaller_DoesNotKeepItsOwnFnAlive(t *testing.T) {
	for name, maxWaiters := range map[string]int{"at the first look": 0, "at the second": 10} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{MaxWaiters: maxWaiters})
				end := make(chan struct{})
				go func() {
					_, _ = c.Do(bg, "k", func(context.Context) (int, error) { <-end; return 1, nil })
				}()
				synctest.Wait()
				var captured weak.Pointer[object]
				go func() {
					thing := &object{}
					captured = weak.Make(thing)
					_, _ = c.Do(bg, "k", func(context.Context) (int, error) { return int(thing[0]), nil })
				}()
				synctest.Wait()
				require.Equal(t, 1, c.Stats().Waiters)
				runtime.GC()
				require.Nil(t, captured.Value(), "what the fn of the joined caller refers to is garbage")
				close(end)
			})
		})
	}
}

func TestPromise17_TablesGoWhenTheShardEmpties(t *testing.T) {
	oneGoroutine(t)
	ways := map[string]func(c *idemflight.Cache[int, *object], n int){
		"expired": func(*idemflight.Cache[int, *object], int) {
			time.Sleep(time.Minute + reclaimDelay(time.Minute))
			synctest.Wait()
		},
		"forgotten": func(c *idemflight.Cache[int, *object], n int) {
			for i := range n {
				forget(c, i+1)
			}
		},
	}
	records := map[string][]idemflight.CallOption{"small": nil, "full": {idemflight.WithFingerprint(fingerprint(1))}}
	for name, empty := range ways {
		for record, opts := range records {
			t.Run(name+"/"+record, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := idemflight.MustNew(idemflight.Options[int, *object]{TTL: time.Minute})
					before := heapInUse()
					const n = 20_000
					for i := range n {
						_, _ = c.Do(bg, i+1, func(context.Context) (*object, error) { return new(object), nil }, opts...)
					}
					full := heapInUse() - before
					require.Greater(t, full, int64(n*64),
						"the measure itself: %d values must show in the heap", n)
					empty(c, n)
					left := heapInUse() - before
					require.Less(t, left, full/10, "of %d bytes for %d keys almost nothing may stay when all are %s, tables included", full, n, name)
					runtime.KeepAlive(c)
				})
			})
		}
	}
}

// Once: no test noticed the planted fault that the table of flights outlived the last flight of a
// burst: a Go map never shrinks by itself.
func TestFlights_TheirTableIsFreedAfterABurst(t *testing.T) {
	type key [16]int64
	const n = 5_000
	c := idemflight.MustNew(idemflight.Options[key, int]{})
	before := heapInUse()
	var most int64
	var fly func(i int64) // one flight within the other, so that n are in flight at once
	fly = func(i int64) {
		_, _ = c.Do(context.Background(), key{i}, func(context.Context) (int, error) {
			if i == n {
				most = heapInUse() - before
			} else {
				fly(i + 1)
			}
			return 0, idemflight.Retryable(errors.New("nothing is kept"))
		})
	}
	fly(1)
	require.Greater(t, most, int64(n*128), "the measure itself: %d keys must show in the heap", n)
	require.Less(t, heapInUse()-before, int64(n*64),
		"of %d bytes in flight almost nothing may stay, tables included", most)
	runtime.KeepAlive(c)
}

func TestPromise17_NoGoroutineWhileNothingRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := runtime.NumGoroutine()
		c := idemflight.MustNew(options{TTL: time.Hour, HoldTTL: time.Hour, Observer: func(context.Context, idemflight.Event[string]) {},
			Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) { return 0, errBoom }})
		require.LessOrEqual(t, processGoroutines(before), before, "New starts no goroutine")

		ctx, cancel := context.WithCancel(bg)
		_, err := c.Do(ctx, "k", returns(1, nil))
		require.NoError(t, err)
		hold(t, c, "held")
		_, err = c.Do(ctx, "held", neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		_, err = c.Do(ctx, "looked", func(ctx context.Context) (int, error) {
			derived, stop := context.WithTimeout(ctx, time.Hour)
			defer stop()
			_ = derived.Done()
			return 1, nil
		})
		require.NoError(t, err)
		end := fly(t, c, "joined")
		go func() { _, _ = c.Do(ctx, "joined", neverRuns(t)) }()
		synctest.Wait()
		_, err = end(1, nil)
		require.NoError(t, err)
		synctest.Wait()
		require.LessOrEqual(t, processGoroutines(before), before,
			"none when idle, with four keys kept and contexts not yet ended")
		cancel()
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		require.LessOrEqual(t, processGoroutines(before), before,
			"none while waiting for the expiry")
		time.Sleep(10 * time.Hour)
		synctest.Wait()
		require.LessOrEqual(t, processGoroutines(before), before,
			"none after everything has expired")
		runtime.KeepAlive(c)
	})
}

func TestPromise17_AnAbandonedCacheIsCollected(t *testing.T) {
	uses := map[string]func(t *testing.T, c *cache){
		"unused":   func(*testing.T, *cache) {},
		"retained": func(t *testing.T, c *cache) { executes(t, c, "k", 1) },
		"held":     func(t *testing.T, c *cache) { hold(t, c, "k") },
		"shed":     func(t *testing.T, c *cache) { executes(t, c, "k", tooHeavy) },
		"many": func(t *testing.T, c *cache) {
			for i := range 500 {
				executes(t, c, keyNo(i), 0, idemflight.WithTTL(time.Duration(i)*100*time.Millisecond))
			}
		},
		"its fn armed the ExecTimeout": func(t *testing.T, c *cache) {
			_, err := c.Do(bg, "k", func(ctx context.Context) (int, error) { _ = ctx.Done(); return 1, nil })
			require.NoError(t, err)
		},
		"its leader left": func(t *testing.T, c *cache) {
			ctx, cancel := context.WithTimeout(bg, time.Second)
			defer cancel()
			_, err := c.Do(ctx, "k", returnsAfter(2*time.Second, 1, nil))
			require.ErrorIs(t, err, idemflight.ErrCallerLeft)
		},
		"its outcome was reclaimed by a call": func(t *testing.T, c *cache) {
			executes(t, c, "k", 1)
			time.Sleep(time.Minute)
			require.Zero(t, c.Len())
			require.Zero(t, c.Stats().Entries)
		},
	}
	for name, use := range uses {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				made := func() weak.Pointer[cache] {
					c := idemflight.MustNew(weighted(options{TTL: time.Minute, HoldTTL: time.Minute, ExecTimeout: time.Hour}))
					use(t, c)
					return weak.Make(c)
				}()
				if name != "unused" {
					time.Sleep(time.Minute + 2*time.Second + reclaimDelay(time.Minute))
				}
				synctest.Wait()
				runtime.GC()
				require.Nil(t, made.Value(),
					"an abandoned cache is garbage once its entries have expired")
			})
		})
	}
}

// Once: no test noticed the planted fault that the timer outlived the last key, forgotten or
// resolved before it expired, and kept an abandoned cache alive for the rest of the TTL.
func TestAbandonedCache_WithoutKeysIsCollectedSoon(t *testing.T) {
	for name, use := range map[string]func(t *testing.T, c *cache){
		"forgotten": func(t *testing.T, c *cache) {
			_, err := c.Do(context.Background(), "k", returns(1, nil))
			require.NoError(t, err)
			require.True(t, forget(c, "k"))
		},
		"resolved: no effect": func(t *testing.T, c *cache) {
			_, err := c.Do(context.Background(), "k", returns(0, idemflight.Unknown(errors.New("lost"))))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			require.True(t, resolve(c, "k", 0, idemflight.Retryable(errors.New("no effect"))))
		},
		"closed": func(t *testing.T, c *cache) {
			_, err := c.Do(context.Background(), "k", returns(1, nil))
			require.NoError(t, err)
			require.NoError(t, c.Close(t.Context()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				made := func() weak.Pointer[cache] {
					c := idemflight.MustNew(options{TTL: time.Hour})
					use(t, c)
					return weak.Make(c)
				}()
				time.Sleep(time.Second) // far from an hour; the runtime lets go of a stopped timer when it looks at others
				runtime.GC()
				require.True(t, made.Value() == nil, "no timer keeps it alive")
			})
		})
	}
}

// Records that expire within half a second are removed at once, the last of them at its very
// deadline: in batches, and the timer wakes the process no more often than that.
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
		require.EqualValues(t, 16, reclaims.Load(), "batches of 64")
		require.Zero(t, c.Len())
		time.Sleep(time.Hour)
		require.EqualValues(t, 1, fired.Load())
	})
}

// disarm stops the timer of an empty cache. A record inserted right before it does, for which
// the timer was set early enough, is reclaimed all the same.
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
		require.True(t, forget(c, "a"))
		require.EqualValues(t, 1, came.Load(), "the seam")
		time.Sleep(2*time.Hour + time.Second)
		synctest.Wait()
		require.Equal(t, []string{"b"}, log.keys(idemflight.EventExpired))
	})
}

// The timer fires and sets itself for the next record to expire. If that is removed right then, the
// cache stays empty, and the timer unset.
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
					forget(c, "b")
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

// A key that was kept, and armed the timer, may become a flight that keeps nothing. The cache is
// empty then, and so is the timer.
func TestPromise17_AFlightThatKeepsNothingLeavesNoTimerBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{TTL: time.Hour, Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
			return 0, idemflight.Retryable(errBoom) // there was no effect
		}})
		var fired atomic.Int64
		onYield(t, func(point string) {
			if point == "fired" {
				fired.Add(1)
			}
		})
		hold(t, c, "k")
		_, err := c.Do(bg, "k", returns(0, idemflight.Retryable(errBoom)))
		require.ErrorIs(t, err, errBoom)
		require.Zero(t, c.Len())
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		require.Zero(t, fired.Load(), "how often the timer of an empty cache fired")
	})
}

// A Restore that is refused may be the last to give a place back: then it stops the timer, as all
// do that may leave the cache empty.
func TestPromise17_ARefusedRestoreLeavesNoTimerBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		executes(t, c, "a", 1) // arms the timer
		var end func(int, error) (idemflight.Result[int], error)
		fired, settles := 0, 0
		onYield(t, func(point string) {
			switch point {
			case "settle": // of Restore, which has its place
				if settles++; settles == 1 {
					require.True(t, forget(c, "a"))
					end = fly(t, c, "k")
				}
			case "restore: refused":
				_, err := end(0, idemflight.Retryable(errBoom))
				require.ErrorIs(t, err, errBoom)
			case "fired":
				fired++
			}
		})
		err := c.Restore(bg, "k", retainedEntry(1, time.Now().Add(time.Hour)))
		require.ErrorContains(t, err, "in flight")
		require.Equal(t, 2, settles, "the seam: Restore and a flight that came in between")
		require.Zero(t, c.Len())
		time.Sleep(2 * idemflight.DefaultTTL)
		synctest.Wait()
		require.Zero(t, fired, "how often the timer of an empty cache fired")

		executes(t, c, "b", 1)
		time.Sleep(2 * idemflight.DefaultTTL)
		synctest.Wait()
		require.NotZero(t, fired, "the seam: the timer is seen to fire")
	})
}

// Once: restored records that had expired left a shard's edge behind that pointed to nothing, and
// a new key looked for room there indefinitely.
func TestRestored_ExpiredRecordsLeaveNoTrace(t *testing.T) {
	for name, reclaim := range map[string]func(*cache){
		"by the timer": func(*cache) { time.Sleep(2 * time.Second); synctest.Wait() },
		"by Len":       func(c *cache) { time.Sleep(20 * time.Millisecond); c.Len() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{
					MaxEntries: 2, MinRetention: -1, MaxWeight: 10, Weigh: func(string, int) int64 { return 6 },
				})
				now := time.Now()
				for _, key := range []string{"a", "b"} {
					require.NoError(t, c.Restore(bg, key, idemflight.Entry[int]{
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

// Once: each record inserted late set the timer anew, half a second from then.
func TestReclaiming_IsNotPutOffByLateRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		gone := map[string]time.Duration{}
		var mu sync.Mutex
		slow := map[string]time.Duration{"b": 7400 * time.Millisecond, "c": 7850 * time.Millisecond}
		c := idemflight.MustNew(options{
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
		require.LessOrEqual(t, gone["a"], 9*time.Second,
			"a expired at 8 s and must be gone a second later: %v", gone)
	})
}

// Once: a record that had expired before it was inserted, Weigh having taken longer than its TTL,
// set the timer for 292 years: nothing was reclaimed after it. Found by the explorer, scenario
// expiry-keys/2.
func TestReclaiming_GoesOnAfterARecordInsertedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var expired atomic.Int64
		c := idemflight.MustNew(options{TTL: time.Minute, MaxWeight: 10,
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
			_, err := c.Do(context.Background(), key, returns(1, nil))
			require.NoError(t, err)
			time.Sleep(time.Hour)
			require.EqualValues(t, n+1, expired.Load(),
				"%s must have been reclaimed by the timer", key)
		}
	})
}

// Once: Forget of the last key stopped the timer on which a key inserted meanwhile relied.
func TestForget_OfTheLastKeyLeavesTheTimerToTheNext(t *testing.T) {
	for range 300 {
		synctest.Test(t, func(t *testing.T) {
			var expired atomic.Int32
			c := idemflight.MustNew(options{
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
			go forget(c, "a")
			time.Sleep(time.Hour)
			synctest.Wait()
			require.EqualValues(t, 1, expired.Load(), "b is reclaimed without further calls")
			require.Zero(t, c.Len())
		})
	}
}

// The table of flights is freed after a burst: in one shard, where it is large enough to be seen.
func TestFlights_TheirTableIsFreedInOneShard(t *testing.T) {
	defer idemflight.LimitShards(1)()
	const n = 10_000
	c := idemflight.MustNew(idemflight.Options[int, int]{})
	before := heapInUse()
	var fly func(i int) // one flight within the other, so that n are in flight at once
	fly = func(i int) {
		_, _ = c.Do(bg, i, func(context.Context) (int, error) {
			if i < n {
				fly(i + 1)
			}
			return 0, idemflight.Retryable(errBoom)
		})
	}
	fly(1)
	require.Less(t, heapInUse()-before, int64(n*8), "bytes that are left after %d flights", n)
	runtime.KeepAlive(c)
}
