package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// Promise 19: When the cache is full, the least recently used outcome gives way, unless
// MinRetention protects it: then the new key gets ErrFull. Flights are never evicted, and a held
// key only as a last resort, if its fn had said nothing about its effect.
func TestPromise19_RetainedAndShedGiveWayHeldDoNot(t *testing.T) {
	for _, s := range keptStates {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &eventLog[string]{}
				c := idemflight.MustNew(weighted(options{MaxEntries: 1, MinRetention: -1, Observer: log.observe}))
				s.put(t, c)
				ran := false
				r, err := c.DoResult(bg, "new", func(context.Context) (int, error) { ran = true; return 2, nil })
				synctest.Wait()
				if s.state == idemflight.Held {
					require.ErrorIs(t, err, idemflight.ErrFull, "held keys are never evicted")
					require.False(t, ran, "fn does not run without a place")
					require.Equal(t, idemflight.NoOutcome, r.Source)
					require.Empty(t, log.of(idemflight.EventEvicted))
					require.Equal(t, 1, c.Stats().Held)
					require.EqualValues(t, 1, c.Stats().Full)
					return
				}
				require.NoError(t, err)
				require.Equal(t, []string{"k"}, log.keys(idemflight.EventEvicted))
				require.EqualValues(t, 1, c.Stats().Evicted)
				_, ok := lookup(c, "k")
				require.False(t, ok)
				require.EqualValues(t, 2, c.Stats().Weight,
					"the weight of what is evicted goes with it")
			})
		})
	}
}

// Each eviction is reported with its key, once, and counted, however many there are.
func TestPromise19_EveryEvictionIsAnEventAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(options{MaxEntries: 50, MinRetention: -1, Observer: log.observe})
		const n = 500
		for i := range n {
			executes(t, c, keyNo(i), i)
		}
		evicted := log.keys(idemflight.EventEvicted)
		require.Len(t, evicted, n-50)
		require.EqualValues(t, n-50, c.Stats().Evicted)
		for _, k := range evicted {
			_, ok := lookup(c, k)
			require.False(t, ok, "%s was told as evicted", k)
		}
		slices.Sort(evicted)
		require.Len(t, slices.Compact(evicted), n-50, "each is reported once")
	})
}

// checkRecency scans c with new keys while it uses the m/2 keys of a set as seldom as the promise
// allows, or as often as it can, and expects that they survive.
func checkRecency(t *testing.T, c *idemflight.Cache[int, int], m, scan int, rhythm string) {
	t.Helper()
	next := 1_000_000
	insert := func(k int) {
		v, err := c.Do(bg, k, func(context.Context) (int, error) { return k, nil })
		require.NoError(t, err)
		require.Equal(t, k, v)
	}
	for range m + m/2 { // a cache full of keys that no caller asks for again
		insert(next)
		next++
	}
	gap := max(1, m/4)
	type member struct{ key, used int }
	var set []member
	inserted := 0
	use := func(i int) {
		v, err := c.Do(dead(context.Canceled), set[i].key, probe)
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
		if rhythm == "together" || rhythm == "spread" { // otherwise their first gap would be longer
			use(i)
		}
	}
	for range scan {
		step(next)
		next++
	}
}

// Which shard a key falls into differs from cache to cache, so the small ones are tried often.
func TestPromise19_ASetInUseSurvivesAScan(t *testing.T) {
	oneGoroutine(t)
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
					c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: tc.m, MinRetention: -1})
					checkRecency(t, c, tc.m, tc.scan, rhythm)
				}
			})
		}
	}
}

// Held and in-flight keys reduce M, to less than the smallest MaxEntries too.
func TestPromise19_ASetInUseSurvivesBesideHeldAndFlying(t *testing.T) {
	oneGoroutine(t)
	for _, tc := range []struct{ entries, held, flying, caches int }{
		{8, 2, 2, 20}, {8, 4, 0, 20}, {8, 0, 4, 20}, {12, 4, 0, 10}, {16, 0, 8, 10}, {64, 48, 8, 5}, {64, 0, 56, 5}, {64, 56, 0, 5},
		{1000, 900, 20, 1}, {1000, 984, 8, 2}, {5000, 4900, 0, 1}, {5000, 4984, 8, 1},
	} {
		m := tc.entries - tc.held - tc.flying
		for _, rhythm := range []string{"late", "together", "spread"} {
			t.Run(fmt.Sprintf("%d of %d/%s", m, tc.entries, rhythm), func(t *testing.T) {
				for range tc.caches {
					c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: tc.entries, MinRetention: -1})
					for i := range tc.held {
						_, err := c.Do(bg, -1-i, returns(0, idemflight.Unknown(errBoom)))
						require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
					}
					gate := make(chan struct{})
					var started, ended sync.WaitGroup
					for i := range tc.flying {
						started.Add(1)
						ended.Go(func() {
							_, _ = c.Do(bg, -100_000-i, func(context.Context) (int, error) { started.Done(); <-gate; return 0, nil })
						})
					}
					started.Wait()
					checkRecency(t, c, m, 10*m+100, rhythm)
					require.Equal(t, tc.held, c.Stats().Held)
					require.Equal(t, tc.flying, c.Stats().InFlight)
					close(gate)
					ended.Wait()
				}
			})
		}
	}
}

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
					log := &eventLog[string]{}
					c := idemflight.MustNew(options{TTL: tc.ttl, MinRetention: tc.protect, MaxEntries: n, Observer: log.observe})
					var r idemflight.Result[int]
					var err error
					for i := range n {
						// An execution of some length: the protection counts from completion.
						r, err = c.DoResult(bg, keyNo(i), func(context.Context) (int, error) {
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
						_, err := c.Do(bg, "new", neverRuns(t))
						require.ErrorIs(t, err, idemflight.ErrFull, "%v less 1 ns after completion, with a TTL of %v and MinRetention %v", safe, tc.ttl, tc.protect)
						time.Sleep(time.Nanosecond)
					}
					executes(t, c, "new", 1)
					synctest.Wait()
					if tc.want < 0 {
						require.Empty(t, log.of(idemflight.EventEvicted),
							"nothing is evicted, the place came from one that had expired")
					} else {
						require.Len(t, log.of(idemflight.EventEvicted), 1,
							"%v after completion", safe)
					}
				})
			})
		}
	}
}

// Only completion counts: replays move no outcome back under protection.
func TestPromise19_ReplaysDoNotProtect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{TTL: time.Hour, MinRetention: 10 * time.Minute, MaxEntries: 1})
		executes(t, c, "k", 1)
		for range 10 {
			time.Sleep(time.Minute)
			require.Equal(t, 1, replays(t, c, "k"))
		}
		executes(t, c, "new", 2)
	})
}

// Nor does a second chance: what MinRetention let go before goes by its last use, and not before
// another that was used less recently.
func TestPromise19_SecondChancesDoNotProtect(t *testing.T) {
	defer idemflight.LimitShards(1)()
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{TTL: time.Hour, MinRetention: time.Minute, MaxEntries: 3})
		old := []string{"a", "b", "c"}
		for i, k := range old {
			executes(t, c, k, i)
		}
		time.Sleep(time.Minute)
		for _, k := range old {
			replays(t, c, k)
		}
		executes(t, c, "new", 3) // each gets its second chance, and then a goes
		time.Sleep(time.Second)
		replays(t, c, "b")
		executes(t, c, "newer", 4)
		_, kept := lookup(c, "c")
		require.False(t, kept, "the least recently used goes")
		requireState(t, c, idemflight.Retained, "b", "new", "newer")
	})
}

// Among outcomes never replayed the one that MinRetention lets go is found wherever it lies: each
// completes at another time, and they are let go one by one.
func TestPromise19_TheOneThatProtectLetsGoIsFound(t *testing.T) {
	const protect = 10 * time.Hour
	now := func(ago time.Duration) idemflight.Entry[int] { // completed so long ago
		e := retainedEntry(1, time.Now().Add(200*time.Hour))
		e.CompletedAt = time.Now().Add(-ago)
		e.StartedAt = e.CompletedAt
		return e
	}
	// What the cache is filled with: n outcomes, of which none is unprotected before a minute has
	// passed, and then one more with each minute, in the order of their numbers.
	age := func(n, i int) time.Duration { return protect - time.Duration(i+1)*time.Minute }
	fills := map[string]func(t *testing.T, c *cache, n int){
		"completed in order": func(t *testing.T, c *cache, n int) {
			for i := range n {
				executes(t, c, keyNo(i), i)
				time.Sleep(time.Minute)
			}
			time.Sleep(protect - time.Duration(n)*time.Minute - time.Minute)
			time.Sleep(time.Minute) // the first is at its boundary one minute earlier than below
		},
		"restored oldest first": func(t *testing.T, c *cache, n int) {
			for i := range n {
				require.NoError(t, c.Restore(bg, keyNo(i), now(age(n, i))))
			}
			time.Sleep(time.Minute)
		},
		"restored newest first": func(t *testing.T, c *cache, n int) {
			for i := n - 1; i >= 0; i-- {
				require.NoError(t, c.Restore(bg, keyNo(i), now(age(n, i))))
			}
			time.Sleep(time.Minute)
		},
		"restored in any order": func(t *testing.T, c *cache, n int) {
			for _, i := range rand.New(rand.NewPCG(19, uint64(n))).Perm(n) {
				e := now(age(n, i))
				if i%3 == 0 {
					e.State, e.Value = idemflight.Shed, 0
				}
				require.NoError(t, c.Restore(bg, keyNo(i), e))
			}
			time.Sleep(time.Minute)
		},
		"executed and restored": func(t *testing.T, c *cache, n int) {
			for i := n - 1; i >= 0; i-- { // the youngest are executed, before the older come back
				if i >= n/2 {
					continue
				}
				require.NoError(t, c.Restore(bg, keyNo(i), now(age(n, i))))
			}
			for i := n / 2; i < n; i++ {
				executes(t, c, keyNo(i), i)
			}
			time.Sleep(time.Minute)
		},
	}
	for name, fill := range fills {
		for _, n := range []int{1, 2, 8, 64, 300} {
			t.Run(fmt.Sprintf("%s/%d", name, n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					log := &eventLog[string]{}
					c := idemflight.MustNew(options{TTL: 200 * time.Hour, MinRetention: protect, MaxEntries: n, Observer: log.observe})
					fill(t, c, n)
					let := n
					if name == "executed and restored" {
						let = n / 2
					}
					for i := range let {
						r, err := c.DoResult(bg, fmt.Sprint("new", i), returns(i, nil))
						require.NoError(t, err,
							"the %d-th of %d is the one that MinRetention lets go", i, n)
						require.Equal(t, idemflight.Executed, r.Source)
						synctest.Wait()
						evicted := log.keys(idemflight.EventEvicted)
						require.Equal(t, keyNo(i), evicted[len(evicted)-1],
							"the only one that MinRetention lets go")
						if n <= 64 || i%50 == 0 {
							_, err = c.Do(bg, "one too many", neverRuns(t))
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
					log := &eventLog[string]{}
					c := idemflight.MustNew(options{TTL: 20 * time.Hour, MinRetention: 10 * time.Hour, MaxEntries: n, Observer: log.observe})
					old := map[string]int{"first": 0, "middle": n / 2, "last": n - 1}[at]
					for i := range n {
						if i == old {
							e := retainedEntry(1, time.Now().Add(time.Hour))
							e.CompletedAt = time.Now().Add(-11 * time.Hour)
							require.NoError(t, c.Restore(bg, keyNo(i), e))
							continue
						}
						executes(t, c, keyNo(i), i)
						for range 3 {
							require.Equal(t, i, replays(t, c, keyNo(i)))
						}
					}
					executes(t, c, "new", 1)
					synctest.Wait()
					require.Equal(t, []string{keyNo(old)}, log.keys(idemflight.EventEvicted))
					_, err := c.Do(bg, "one too many", neverRuns(t))
					require.ErrorIs(t, err, idemflight.ErrFull)
				})
			})
		}
	}
}

// A completes first and is inserted last, since Weigh takes its time over it: outcomes are not
// inserted in the order of their completion. Which of the two shares A's shard differs.
func TestPromise19_TheOneIsFoundHoweverLateItWasPutIn(t *testing.T) {
	for _, slow := range []time.Duration{time.Millisecond, 99 * time.Millisecond, time.Second} {
		t.Run(fmt.Sprint(slow), func(t *testing.T) {
			for range 8 {
				synctest.Test(t, func(t *testing.T) {
					c := idemflight.MustNew(options{TTL: 20 * time.Hour, MinRetention: time.Hour, MaxEntries: 4, MaxWeight: 1, Weigh: func(k string, _ int) int64 {
						if k == "A" {
							time.Sleep(slow)
						}
						return 0
					}})
					go func() { _, _ = c.Do(bg, "A", returns(1, nil)) }()
					time.Sleep(slow / 2)
					for i := range 3 {
						executes(t, c, keyNo(i), i)
					}
					time.Sleep(time.Hour - slow/2)
					synctest.Wait()
					executes(t, c, "new", 2)
					_, ok := lookup(c, "A")
					require.False(t, ok, "A completed an hour ago, the others later")
				})
			}
		})
	}
}

// Once: an outcome that Weigh had kept from being inserted stood in front of younger ones and hid
// from MinRetention.
func TestProtect_FindsAnOutcomeThatASlowHookDelayed(t *testing.T) {
	defer idemflight.LimitShards(1)()
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{
			MinRetention: 45 * time.Minute, MaxEntries: 2, MaxWeight: 100,
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
		_, ok := lookup(c, "young")
		require.True(t, ok, "the young one is protected")
	})
}

// An outcome that was replayed had its second chance, and stands behind a young one that MinRetention
// protects. It goes all the same: before a new key is refused, and before what is held is given up.
func TestPromise19_WhatHadItsSecondChanceGoesBeforeTheLastResort(t *testing.T) {
	for name, silent := range map[string]bool{"ErrFull": false, "the last resort": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				defer idemflight.LimitShards(1)()
				c := idemflight.MustNew(options{TTL: time.Minute, MinRetention: 30 * time.Second, HoldTTL: time.Hour, MaxEntries: 3})
				_, _ = c.Do(bg, "held", func(ctx context.Context) (int, error) {
					if !silent {
						_ = idemflight.BeginEffect(ctx)
					}
					return 0, errBoom
				})
				executes(t, c, "replayed", 1)
				time.Sleep(30 * time.Second)
				executes(t, c, "young", 2)
				replays(t, c, "replayed")
				executes(t, c, "new", 3)
				_, kept := lookup(c, "replayed")
				require.False(t, kept, "MinRetention lets it go")
				e, _ := lookup(c, "held")
				require.Equal(t, idemflight.Held, e.State, "an unknown is given up only when no outcome may go")
				_, kept = lookup(c, "young")
				require.True(t, kept, "MinRetention protects it")
				require.NoError(t, c.CheckInvariants())
			})
		})
	}
}

// Where the clock stands still, numbers tell which replays were before the search for room: their
// records get the second chance.
func TestPromise19_ASecondChanceWithinOneInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{MaxEntries: 2, MinRetention: -1})
		executes(t, c, "a", 1)
		replays(t, c, "a")
		executes(t, c, "b", 1)
		executes(t, c, "c", 1)
		requireState(t, c, idemflight.Retained, "a", "c")
	})
}

// What leads one queue of its shard and not the other is a head of the shard all the same.
func TestEviction_TheNextMovesUpWhenTheFirstIsForgotten(t *testing.T) {
	defer idemflight.LimitShards(1)()
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{MaxEntries: 3, MinRetention: -1})
		executes(t, c, "first", 1, idemflight.WithTTL(3*time.Hour))
		executes(t, c, "next", 1, idemflight.WithTTL(2*time.Hour))
		executes(t, c, "last", 1, idemflight.WithTTL(time.Hour))
		require.True(t, forget(c, "first"))
		require.NoError(t, c.CheckInvariants())
		require.True(t, forget(c, "last"))
		require.NoError(t, c.CheckInvariants())
		requireState(t, c, idemflight.Retained, "next")
	})
}

// Two searches with no insertion in between: who was replayed since the first gets another chance in the second.
func TestPromise19_ASecondChanceAfterASearchThatInsertedNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{MaxEntries: 3, MinRetention: -1})
		executes(t, c, "a", 1)
		executes(t, c, "b", 1)
		executes(t, c, "unused", 1)
		replays(t, c, "a")
		replays(t, c, "b")
		_, err := c.Do(bg, "released", returns(0, idemflight.Retryable(errBoom)))
		require.ErrorIs(t, err, errBoom)
		requireState(t, c, idemflight.Retained, "a", "b")
		require.Equal(t, 2, c.Len(), "it took the place of the unused one")
		replays(t, c, "a")
		end := fly(t, c, "flies") // in that place
		executes(t, c, "new", 1)
		requireState(t, c, idemflight.Retained, "a", "new")
		_, err = end(1, nil)
		require.NoError(t, err)
	})
}

// To have the hash of the key that needs the room does not protect another key.
func TestPromise19_KeysOfOneHashGiveWay(t *testing.T) {
	defer idemflight.LimitHash(0)()
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{MaxEntries: 1, MinRetention: -1})
		executes(t, c, "a", 1)
		executes(t, c, "b", 1)
		requireState(t, c, idemflight.Retained, "b")
	})
}

// A value that is shed leaves its key to be evicted in its turn, not before: even its second chance
// stays.
func TestPromise19_AShedOutcomeKeepsItsSecondChance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(weighted(options{MaxEntries: 4, MinRetention: -1}))
		executes(t, c, "a", 6)
		executes(t, c, "b", 0)
		replays(t, c, "a")
		executes(t, c, "x", 7) // a has to go for it
		requireState(t, c, idemflight.Shed, "a")
		executes(t, c, "c", 0)
		executes(t, c, "d", 0) // one too many
		requireState(t, c, idemflight.Shed, "a")
		_, ok := lookup(c, "b")
		require.False(t, ok, "b was never replayed")
	})
}

// Once: no test noticed the planted fault that an outcome replayed once stayed forever. However
// approximate the recency, an outcome that is no longer in use gives way to those inserted after
// it.
func TestEviction_OutcomesNoLongerInUseGiveWay(t *testing.T) {
	const places = 64
	c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: places, MinRetention: -1})
	put := func(key int) {
		fn := func(context.Context) (int, error) { return key, nil }
		_, err := c.Do(context.Background(), key, fn, idemflight.WithFingerprint(idemflight.FingerprintOf(nil)))
		require.NoError(t, err)
	}
	for range 2 { // the second time is a replay
		for key := range places {
			put(key + 1)
		}
	}
	for key := range 4 * places {
		put(1_000_000 + key)
	}
	for key := range places {
		_, kept := lookup(c, key+1)
		require.False(t, kept, "key %d was last used %d new keys ago", key+1, 4*places)
	}
}

// A call that has evicted another key for its own, and then finds its own held, asks Reconcile: the
// eviction is reported all the same.
func TestPromise19_AnEvictionForAKeyThatIsHeldMeanwhileIsTold(t *testing.T) {
	for _, found := range []error{nil, idemflight.Retryable(errBoom)} {
		synctest.Test(t, func(t *testing.T) {
			log := &eventLog[string]{}
			c := idemflight.MustNew(options{MaxEntries: 1, MinRetention: -1, Observer: log.observe,
				Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) { return 7, found }})
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
			source, fn := idemflight.Reconciled, neverRuns(t)
			if found != nil { // then fn follows
				source, fn = idemflight.Executed, one
			}
			r, err := c.DoResult(bg, "k", fn)
			require.NoError(t, err)
			require.True(t, came, "the seam")
			require.Equal(t, source, r.Source)
			require.Equal(t, []string{"a"}, log.keys(idemflight.EventEvicted))
		})
	}
}

// A call that has evicted another key for its own, joins an operator's Reconcile and then runs fn: it tells of the
// eviction once.
func TestPromise19_AnEvictionIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(options{MaxEntries: 1, MinRetention: -1, Observer: log.observe,
			Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
				time.Sleep(time.Second)
				return 0, idemflight.Retryable(errBoom)
			}})
		executes(t, c, "a", 1)
		meets, came := 0, false
		onYield(t, func(point string) {
			if point != "meet" || came {
				return
			}
			if meets++; meets == 2 { // of k: there is room now
				came = true
				hold(t, c, "k")
				go func() { _, _ = c.Reconcile(bg, "k") }()
				synctest.Wait()
			}
		})
		call := start(c, bg, "k", one)
		<-call.done
		require.NoError(t, call.err)
		require.True(t, came, "the seam")
		require.Equal(t, []string{"a"}, log.keys(idemflight.EventEvicted))
	})
}

// Once: where the clock stood still, second chances had no order among shards.
func TestPromise19_SecondChancesOfOneInstantHaveAnOrder(t *testing.T) {
	for range 10 { // other seeds spread the keys otherwise
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(idemflight.Options[int, int]{
				MaxEntries: 8, MinRetention: -1, MaxWeight: 6, Weigh: func(int, int) int64 { return 1 },
			})
			for round := range 2 { // the second replays all
				for key := 1; key <= 8; key++ {
					_, _ = c.Do(t.Context(), key, one)
					time.Sleep(time.Duration(1-round) * time.Second)
				}
			}
			_, _ = c.Do(t.Context(), 9, one) // all get their second chance
			_, ok := lookup(c, 1)
			require.False(t, ok, "the one that got its chance first goes first")
			e, _ := lookup(c, 3) // 1 and 2 were shed for 7 and 8
			require.Equal(t, idemflight.Shed, e.State, "the value that got its chance first goes first")
			require.NoError(t, c.CheckInvariants())
		})
	}
}

// What was inserted for a key while a call looked for room for it is not evicted for that call.
func TestEviction_NeverOfTheKeyThatNeedsTheRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{MaxEntries: 1, MinRetention: -1})
		executes(t, c, "other", 1)
		came := false
		onYield(t, func(point string) {
			if point == "look for room" && !came {
				came = true
				executes(t, c, "k", 2)
			}
		})
		v, err := c.Do(bg, "k", neverRuns(t))
		require.True(t, came, "the seam")
		require.NoError(t, err)
		require.Equal(t, 2, v)
		require.EqualValues(t, 1, c.Stats().Evicted)
	})
}

// inShards returns keys of the shards of c that it names, in order.
func inShards(c *cache, shards ...int) (keys []string) {
	for i := 0; len(keys) < len(shards); i++ {
		if c.ShardOf(keyNo(i)) == shards[len(keys)] {
			keys = append(keys, keyNo(i))
		}
	}
	return keys
}

// If the outcome that was to go has gone meanwhile, what has come to its place does not go for it,
// but that which is the least recently used now.
func TestEviction_NotOfWhatCameToThePlaceOfTheOneFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{MaxEntries: 2, MinRetention: -1})
		if c.Shards() < 2 {
			t.Skip("one shard is asked for")
		}
		k := inShards(c, 0, 1, 0, 1)
		oldest, older, newest, caller := k[0], k[1], k[2], k[3]
		executes(t, c, oldest, 1)
		time.Sleep(time.Second)
		executes(t, c, older, 1)
		time.Sleep(time.Second)
		came := false
		onYield(t, func(point string) {
			if point == "looked for room" && !came {
				came = true
				require.True(t, forget(c, oldest))
				executes(t, c, newest, 1)
			}
		})
		executes(t, c, caller, 1)
		require.True(t, came, "the seam")
		requireState(t, c, idemflight.Retained, newest, caller)
	})
}

// Nor does what has come to its place if MinRetention forbids it, however many were inserted since.
func TestProtect_OfWhatCameToThePlaceOfTheOneFound(t *testing.T) {
	const most = 1 << 12 // from here on, the first that is old enough goes
	defer idemflight.LimitShards(1)()
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: most, MinRetention: time.Hour})
		_, err := c.Do(bg, 1, one)
		require.NoError(t, err)
		time.Sleep(time.Hour)
		for key := 2; key <= most; key++ {
			_, err := c.Do(bg, key, one)
			require.NoError(t, err)
		}
		came := false
		onYield(t, func(point string) {
			if point == "looked for room" && !came {
				came = true
				require.True(t, forget(c, 1))
			}
		})
		_, err = c.Do(bg, -1, one)
		require.NoError(t, err)
		require.True(t, came, "the seam")
		_, ok := lookup(c, 2)
		require.True(t, ok, "the next in line is protected")
		require.Zero(t, c.Stats().Evicted)
	})
}

// The outcomes in use may all be in one shard, and the search for room may begin there each time: they
// survive all the same.
func TestPromise19_HalfOfALargeCacheSurvivesInOneShard(t *testing.T) {
	oneGoroutine(t)
	const most = 1 << 12
	defer idemflight.LimitShards(2)()
	c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: most, MinRetention: -1})
	require.Equal(t, 2, c.Shards()) // also where one is asked for
	next := [2]int{}
	key := func(shard int) int { // the next one of that shard
		for next[shard]++; c.ShardOf(next[shard]) != shard; next[shard]++ {
		}
		return next[shard]
	}
	var used []int
	for range most / 2 {
		used = append(used, key(1))
	}
	use := func() {
		for _, key := range used {
			_, err := c.Do(bg, key, one)
			require.NoError(t, err)
		}
	}
	use()
	for round := range 12 {
		for range most / 4 {
			_, err := c.Do(bg, key(0), one) // looks for room in shard 1 first
			require.NoError(t, err)
		}
		for _, key := range used {
			_, ok := lookup(c, key)
			require.True(t, ok, "key %d in round %d", key, round)
		}
		use()
	}
	require.NoError(t, c.CheckInvariants())
}

// silences are the ways for a key to be held though its fn said nothing, and otherHolds the others.
var (
	silences = map[string]func(t *testing.T, c *cache){
		"said nothing": func(_ *testing.T, c *cache) { _, _ = c.Do(bg, theKey, returns(0, errBoom)) },
		"said nothing, too late": func(_ *testing.T, c *cache) {
			_, _ = c.Do(bg, theKey, func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
		},
		"panicked": func(_ *testing.T, c *cache) { _ = panicOf(func() { _, _ = c.Do(bg, theKey, panics(errBoom)) }) },
		"exited":   func(t *testing.T, c *cache) { _, _ = c.Do(t.Context(), theKey, goexits) },
		"held by Classify": func(_ *testing.T, c *cache) {
			_, _ = c.Do(bg, theKey, returns(0, fmt.Errorf("classified: %w", context.DeadlineExceeded)))
		},
		"Classify panicked": func(_ *testing.T, c *cache) { _, _ = c.Do(bg, theKey, returns(0, errClassifyPanics)) },
	}
	otherHolds = map[string]func(t *testing.T, c *cache){
		"marked Unknown": func(t *testing.T, c *cache) { hold(t, c, theKey) },
		"a part is marked": func(_ *testing.T, c *cache) {
			_, _ = c.Do(bg, theKey, returns(0, errors.Join(idemflight.Retryable(errBoom), io.ErrUnexpectedEOF)))
		},
		"an effect has begun": func(_ *testing.T, c *cache) {
			_, _ = c.Do(bg, theKey, func(ctx context.Context) (int, error) { _ = idemflight.BeginEffect(ctx); return 0, errBoom })
		},
		"an effect has begun, panicked": func(_ *testing.T, c *cache) {
			_ = panicOf(func() {
				_, _ = c.Do(bg, theKey, func(ctx context.Context) (int, error) { _ = idemflight.BeginEffect(ctx); panic(errBoom) })
			})
		},
		"restored": func(t *testing.T, c *cache) {
			now := time.Now()
			require.NoError(t, c.Restore(bg, theKey, idemflight.Entry[int]{State: idemflight.Held, Err: errBoom, StartedAt: now, CompletedAt: now, ExpiresAt: now.Add(7 * 24 * time.Hour)}))
		},
		"interrupted": func(t *testing.T, c *cache) {
			require.NoError(t, c.Restore(bg, theKey, idemflight.Entry[int]{State: idemflight.InFlight, StartedAt: time.Now()}))
		},
	}
	errClassifyPanics = errors.New("at this one Classify panics")
)

// classifySilence is a Classify that holds all, which is what having none does, except that it panics at one.
func classifySilence(err error) idemflight.Disposition {
	if errors.Is(err, errClassifyPanics) {
		panic(err)
	}
	return idemflight.Hold
}

// The last resort is a key that is held only because fn said nothing, once it is older than
// MinRetention.
func TestPromise19_TheLastResortIsWhatFnSaidNothingOf(t *testing.T) {
	check := func(t *testing.T, put func(t *testing.T, c *cache), goes bool) {
		for name, o := range map[string]options{
			"":                            {},
			", Classify":                  {Classify: classifySilence},
			", Reconcile learned nothing": {Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) { return 0, errNoAnswer }},
		} {
			synctest.Test(t, func(t *testing.T) {
				log := &eventLog[string]{}
				o.MaxEntries, o.MinRetention, o.Observer = 1, time.Minute, log.observe
				c := idemflight.MustNew(o)
				put(t, c)
				e, _ := lookup(c, theKey)
				require.Equal(t, idemflight.Held, e.State, "the key must be held%s", name)
				time.Sleep(time.Minute - 1)
				if o.Reconcile != nil {
					_, err := c.Reconcile(bg, theKey)
					require.ErrorIs(t, err, errNoAnswer, "it is held again as it was, its age included")
				}
				_, err := c.Do(bg, "new", neverRuns(t))
				require.ErrorIs(t, err, idemflight.ErrFull, "no key goes that is younger than MinRetention%s", name)
				require.ErrorIs(t, c.Restore(bg, "new", retainedEntry(1, time.Now().Add(time.Hour))), idemflight.ErrFull, "Restore evicts like a new key")
				time.Sleep(time.Nanosecond)
				log.clear()
				if !goes {
					time.Sleep(6 * 24 * time.Hour)
					_, err := c.Do(bg, "new", neverRuns(t))
					require.ErrorIs(t, err, idemflight.ErrFull, "what may have had its effect stays, however old%s", name)
					requireState(t, c, idemflight.Held, theKey)
					require.Zero(t, c.Stats().Evicted, "nothing was evicted%s", name)
					return
				}
				executes(t, c, "new", 1)
				_, ok := lookup(c, theKey)
				require.False(t, ok, "the key made room%s", name)
				evicted := log.seen(idemflight.EventEvicted)
				require.Len(t, evicted, 1, "the eviction is told%s", name)
				require.Equal(t, idemflight.Event[string]{Kind: idemflight.EventEvicted, Key: theKey, Err: idemflight.ErrOutcomeUnknown}, evicted[0].Event,
					"and that nobody had found out%s", name)
				require.Equal(t, context.Background(), evicted[0].ctx, "it is upkeep")
				s := c.Stats()
				require.EqualValues(t, 1, s.Evicted, "and counted%s", name)
				require.Zero(t, s.Held)
				require.NoError(t, c.CheckInvariants())
			})
		}
	}
	for name, put := range silences {
		t.Run(name, func(t *testing.T) { check(t, put, true) })
	}
	for name, put := range otherHolds {
		t.Run(name, func(t *testing.T) { check(t, put, false) })
	}
}

// The key that was held first goes first, whatever shard it is in; keys that must stay are passed
// over.
func TestPromise19_TheLastResortGoesOldestFirst(t *testing.T) {
	const silent, staying = 12, 4
	for range 5 { // which shard a key falls into differs
		synctest.Test(t, func(t *testing.T) {
			log := &eventLog[string]{}
			c := idemflight.MustNew(options{MaxEntries: silent + staying, MinRetention: time.Hour, Observer: log.observe})
			took := rand.Perm(silent) // they end in another order than they began
			order := make([]string, silent)
			for i, d := range took {
				order[d] = keyNo(i)
				start(c, bg, keyNo(i), returnsAfter(time.Duration(d+1)*time.Second, 0, errBoom))
				synctest.Wait()
				if i < staying {
					hold(t, c, fmt.Sprint("stays-", i))
				}
			}
			time.Sleep(silent*time.Second + time.Hour)
			for i := range silent {
				executes(t, c, fmt.Sprint("new-", i), i)
				require.Equal(t, order[:i+1], log.keys(idemflight.EventEvicted), "the oldest go first")
			}
			_, err := c.Do(bg, "one more", neverRuns(t))
			require.ErrorIs(t, err, idemflight.ErrFull, "the others stay")
			require.Equal(t, staying, c.Stats().Held, "the others stay")
			require.NoError(t, c.CheckInvariants())
		})
	}
}

// No held key goes while an outcome may, be it younger or in use.
func TestPromise19_NoLastResortWhileAnOutcomeMayGo(t *testing.T) {
	for _, protect := range []time.Duration{-1, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			log := &eventLog[string]{}
			c := idemflight.MustNew(weighted(options{MaxEntries: 3, MinRetention: protect, Observer: log.observe}))
			_, err := c.Do(bg, theKey, returns(0, errBoom))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			time.Sleep(time.Hour)
			executes(t, c, "shed", tooHeavy)
			executes(t, c, "in use", 1)
			time.Sleep(time.Minute)
			if protect < 0 { // with MinRetention one that was replayed may hide behind a young one
				require.Equal(t, 1, replays(t, c, "in use"))
			}
			log.clear()
			executes(t, c, "new-1", 1)
			executes(t, c, "new-2", 1)
			require.Len(t, log.keys(idemflight.EventEvicted), 2, "MinRetention %v", protect)
			require.NotContains(t, log.keys(idemflight.EventEvicted), theKey, "outcomes go first, MinRetention %v", protect)
			requireState(t, c, idemflight.Held, theKey)
			executes(t, c, "new-3", 1)
			if protect < 0 { // new-1 may go at once
				requireState(t, c, idemflight.Held, theKey)
				return
			}
			require.Equal(t, theKey, log.keys(idemflight.EventEvicted)[2], "when no outcome may go, it is the key's turn")
		})
	}
}

// Without MinRetention, a key that is held only because fn said nothing goes at once, if all keys
// are held.
func TestPromise19_TheLastResortWithoutMinRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{MaxEntries: 2, MinRetention: -1})
		hold(t, c, "stays")
		_, err := c.Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		executes(t, c, "new", 1)
		requireState(t, c, idemflight.Held, "stays")
		require.Equal(t, 1, c.Stats().Held)
	})
}

// With a MinRetention of TTL or more nothing is evicted, held keys of any kind included.
func TestPromise19_NoLastResortIfNothingIsEvicted(t *testing.T) {
	for _, protect := range []time.Duration{time.Hour, time.Hour + 1, math.MaxInt64} {
		for name, put := range silences {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{MaxEntries: 1, TTL: time.Hour, MinRetention: protect})
				put(t, c)
				time.Sleep(6 * 24 * time.Hour)
				_, err := c.Do(bg, "new", neverRuns(t))
				require.ErrorIs(t, err, idemflight.ErrFull, "%s, MinRetention %v of a TTL of an hour", name, protect)
				requireState(t, c, idemflight.Held, theKey)
			})
		}
	}
}

// A call does not evict its own key to make room for itself.
func TestPromise19_TheLastResortIsNotTheKeyItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{MaxEntries: 1, MinRetention: time.Minute})
		_, _ = c.Do(bg, theKey, returns(0, errBoom))
		time.Sleep(time.Hour)
		_, err := c.Do(bg, theKey, neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "it is held")
		requireState(t, c, idemflight.Held, theKey)
	})
}

// ErrFull says what takes the places.
func TestPromise19_ErrFullSaysWhatTakesThePlaces(t *testing.T) {
	for _, n := range []struct{ flying, held, silent, young int }{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}, {2, 1, 3, 4}, {3, 5, 0, 40}} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{MaxEntries: n.flying + n.held + n.silent + n.young})
			gate := newGate(t)
			for i := range n.flying {
				start(c, bg, fmt.Sprint("flying-", i), func(context.Context) (int, error) { gate.wait(); return 1, nil })
			}
			synctest.Wait()
			for i := range n.held {
				hold(t, c, fmt.Sprint("held-", i))
			}
			for i := range n.silent {
				_, _ = c.Do(bg, fmt.Sprint("silent-", i), returns(0, errBoom))
			}
			for i := range n.young {
				executes(t, c, fmt.Sprint("young-", i), i)
			}
			want := fmt.Sprintf("%v: of %d places %d are in flight, %d held, and %d too young to go (MinRetention)",
				idemflight.ErrFull, c.Options().MaxEntries, n.flying, n.held+n.silent, n.young)
			_, err := c.Do(bg, "new", neverRuns(t))
			require.ErrorIs(t, err, idemflight.ErrFull)
			require.EqualError(t, err, want)
			err = c.Restore(bg, "new", retainedEntry(1, time.Now().Add(time.Hour)))
			require.ErrorIs(t, err, idemflight.ErrFull)
			require.EqualError(t, err, want, "of Restore")
		})
	}
}
