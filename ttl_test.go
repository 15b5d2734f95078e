package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/storetest"
)

// Promise 15: A TTL counts from completion, on the monotonic clock; at its deadline the outcome is
// gone, in every method alike.
func TestPromise15_TTLCountsFromCompletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{TTL: time.Minute})
		start := time.Now()
		r, err := c.DoResult(bg, "k", func(context.Context) (int, error) {
			time.Sleep(40 * time.Second)
			return 1, nil
		})
		require.NoError(t, err)
		require.True(t, r.CompletedAt.Equal(start.Add(40*time.Second)), "CompletedAt is the end of the execution, got %v after its start", r.CompletedAt.Sub(start))
		require.True(t, r.ExpiresAt.Equal(start.Add(100*time.Second)),
			"the TTL counts from completion, got %v after the start", r.ExpiresAt.Sub(start))

		time.Sleep(time.Minute - 1)
		require.Equal(t, 1, replays(t, c, "k"), "99.999999999 s after the start of an execution of 40 s the TTL of a minute is not over")
		time.Sleep(time.Nanosecond)
		executes(t, c, "k", 2)
	})
}

func TestPromise15_ReplaysDoNotExtendIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{TTL: time.Minute})
		first := executes(t, c, "k", 1)
		for range 59 {
			time.Sleep(time.Second)
			r, err := c.DoResult(bg, "k", neverRuns(t))
			require.NoError(t, err)
			require.Equal(t, idemflight.Replayed, r.Source)
			require.True(t, r.ExpiresAt.Equal(first.ExpiresAt), "a replay must not move ExpiresAt")
			require.True(t, r.CompletedAt.Equal(first.CompletedAt),
				"a replay must not move CompletedAt")
		}
		time.Sleep(time.Second)
		executes(t, c, "k", 2)
	})
}

// keptStates are the ways for key "k" to be kept until stateTTL from now, and what Do answers then.
const stateTTL = 10 * time.Second

var keptStates = []struct {
	name  string
	state idemflight.State
	err   error
	put   func(t *testing.T, c *cache)
}{
	{"retained", idemflight.Retained, nil, func(t *testing.T, c *cache) { executes(t, c, "k", 1, idemflight.WithFingerprint(fingerprint(1))) }},
	{"held", idemflight.Held, idemflight.ErrOutcomeUnknown, func(t *testing.T, c *cache) {
		hold(t, c, "k", idemflight.WithFingerprint(fingerprint(1)))
	}},
	{"shed", idemflight.Shed, idemflight.ErrValueShed, func(t *testing.T, c *cache) {
		executes(t, c, "k", tooHeavy, idemflight.WithFingerprint(fingerprint(1)))
	}},
}

// Every method is asked on a cache of its own, since one that reclaims would hide the fault of the
// next.
func TestPromise15_TheInstantItselfIsExpiredInEveryMethod(t *testing.T) {
	asks := []struct {
		name string
		ask  func(t *testing.T, c *cache, log *eventLog[string], s idemflight.State, wantErr error, alive bool)
	}{
		{"Do", func(t *testing.T, c *cache, _ *eventLog[string], _ idemflight.State, wantErr error, alive bool) {
			ran := false
			v, err := c.Do(bg, "k", func(context.Context) (int, error) { ran = true; return 2, nil }, idemflight.WithFingerprint(fingerprint(1)))
			require.Equal(t, !alive, ran, "fn runs exactly when the record has expired")
			switch {
			case !alive:
				require.NoError(t, err)
				require.Equal(t, 2, v)
			case wantErr != nil:
				require.ErrorIs(t, err, wantErr)
			default:
				require.NoError(t, err)
				require.Equal(t, 1, v)
			}
		}},
		{"Do with a dead context", func(t *testing.T, c *cache, _ *eventLog[string], _ idemflight.State, wantErr error, alive bool) {
			_, err := c.Do(dead(context.Canceled), "k", neverRuns(t), idemflight.WithFingerprint(fingerprint(1)))
			if !alive {
				wantErr = idemflight.ErrCallerLeft
			}
			require.ErrorIs(t, err, wantErr)
		}},
		{"Do with another fingerprint", func(t *testing.T, c *cache, _ *eventLog[string], _ idemflight.State, _ error, alive bool) {
			_, err := c.Do(bg, "k", returns(2, nil), idemflight.WithFingerprint(fingerprint(2)))
			if alive {
				require.ErrorIs(t, err, idemflight.ErrKeyReused)
			} else {
				require.NoError(t, err, "after expiry any fingerprint is welcome")
			}
		}},
		{"Lookup", func(t *testing.T, c *cache, _ *eventLog[string], s idemflight.State, _ error, alive bool) {
			e, ok := lookup(c, "k")
			require.Equal(t, alive, ok)
			if alive {
				require.Equal(t, s, e.State)
			} else {
				require.Zero(t, e, "the entry of an expired key")
			}
		}},
		{"All", func(t *testing.T, c *cache, _ *eventLog[string], _ idemflight.State, _ error, alive bool) {
			require.Equal(t, alive, len(entries(c)) == 1,
				"All yields the key exactly while it is unexpired")
		}},
		{"Len", func(t *testing.T, c *cache, _ *eventLog[string], _ idemflight.State, _ error, alive bool) {
			require.Equal(t, alive, c.Len() == 1, "Len is %d", c.Len())
		}},
		{"Stats", func(t *testing.T, c *cache, _ *eventLog[string], s idemflight.State, _ error, alive bool) {
			st := c.Stats()
			require.Equal(t, alive, st.Entries == 1, "Stats.Entries is %d", st.Entries)
			require.Equal(t, alive && s == idemflight.Held, st.Held == 1,
				"Stats.Held is %d", st.Held)
			require.Equal(t, alive && s == idemflight.Retained, st.Weight == 1,
				"Stats.Weight is %d", st.Weight)
		}},
		{"Forget", func(t *testing.T, c *cache, _ *eventLog[string], _ idemflight.State, _ error, alive bool) {
			require.Equal(t, alive, forget(c, "k"))
		}},
		{"Resolve", func(t *testing.T, c *cache, _ *eventLog[string], s idemflight.State, _ error, alive bool) {
			require.Equal(t, alive && s == idemflight.Held, resolve(c, "k", 1, nil))
		}},
		{"Restore", func(t *testing.T, c *cache, _ *eventLog[string], _ idemflight.State, _ error, alive bool) {
			err := c.Restore(bg, "k", retainedEntry(2, time.Now().Add(time.Hour)))
			require.Equal(t, alive, err != nil, "Restore wants an absent key; it answered %v", err)
		}},
		{"Restore of an entry with that deadline", func(t *testing.T, c *cache, _ *eventLog[string], s idemflight.State, _ error, alive bool) {
			var e idemflight.Entry[int]
			for _, e = range entries(c) {
			}
			if e.State == 0 { // expired: no method shows it any more
				e = retainedEntry(1, time.Now())
			}
			fresh := idemflight.MustNew(options{})
			require.Equal(t, alive, fresh.Restore(bg, "k", e) == nil)
		}},
		{"a new key when full", func(t *testing.T, c *cache, log *eventLog[string], s idemflight.State, _ error, alive bool) {
			_, err := c.Do(bg, "new", returns(2, nil))
			synctest.Wait()
			switch {
			case !alive:
				require.NoError(t, err, "an expired record counts as free")
				require.Empty(t, log.of(idemflight.EventEvicted), "what has expired is not evicted")
				require.Len(t, log.of(idemflight.EventExpired), 1)
			case s == idemflight.Held:
				require.ErrorIs(t, err, idemflight.ErrFull, "held keys are never evicted")
			default:
				require.NoError(t, err)
				require.Len(t, log.of(idemflight.EventEvicted), 1,
					"an unexpired outcome that goes is evicted")
				require.Empty(t, log.of(idemflight.EventExpired))
			}
		}},
	}
	for _, s := range keptStates {
		for _, offset := range []time.Duration{-1, 0, 1} {
			for _, a := range asks {
				t.Run(fmt.Sprintf("%s/%+dns/%s", s.name, offset, a.name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						log := &eventLog[string]{}
						c := idemflight.MustNew(weighted(options{TTL: stateTTL, HoldTTL: stateTTL, MaxEntries: 1, MinRetention: -1, Observer: log.observe}))
						s.put(t, c)
						time.Sleep(stateTTL + offset)
						a.ask(t, c, log, s.state, s.err, offset < 0)
					})
				})
			}
		}
	}
}

func TestPromise15_ReconcileIsNotAskedAtTheInstant(t *testing.T) {
	for _, offset := range []time.Duration{-1, 0, 1} {
		t.Run(fmt.Sprintf("%+dns", offset), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{TTL: stateTTL, HoldTTL: stateTTL, Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) { return 7, nil }})
				hold(t, c, "k")
				time.Sleep(stateTTL + offset)
				r, err := c.DoResult(bg, "k", returns(2, nil))
				require.NoError(t, err)
				if offset < 0 {
					require.Equal(t, idemflight.Reconciled, r.Source,
						"the key is held for another nanosecond")
					require.Equal(t, 7, r.Value)
				} else {
					require.Equal(t, idemflight.Executed, r.Source,
						"an expired hold is not reconciled, fn runs")
					require.Equal(t, 2, r.Value)
				}
			})
		})
	}
}

func TestPromise15_TTLOfANanosecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{TTL: 1})
		executes(t, c, "k", 1)
		require.Equal(t, 1, replays(t, c, "k"), "no time has passed")
		time.Sleep(time.Nanosecond)
		executes(t, c, "k", 2)
	})
}

func TestPromise15_ExpiresAtTellsTheDeadlineEverywhere(t *testing.T) {
	for _, s := range keptStates {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(weighted(options{TTL: stateTTL, HoldTTL: stateTTL}))
				s.put(t, c)
				done := time.Now()
				time.Sleep(time.Second)
				e, ok := lookup(c, "k")
				require.True(t, ok)
				require.True(t, e.CompletedAt.Equal(done), "Entry.CompletedAt")
				require.True(t, e.ExpiresAt.Equal(done.Add(stateTTL)),
					"Entry.ExpiresAt is completion plus TTL, got %v", e.ExpiresAt.Sub(done))
				require.Equal(t, e, entries(c)["k"], "All shows what Lookup shows")
				r, err := c.DoResult(bg, "k", neverRuns(t), idemflight.WithFingerprint(fingerprint(1)))
				if s.err != nil {
					require.ErrorIs(t, err, s.err)
					require.Equal(t, idemflight.NoOutcome, r.Source, "no outcome was obtained")
					return
				}
				require.True(t, r.ExpiresAt.Equal(done.Add(stateTTL)),
					"Result.ExpiresAt of a replay")
			})
		})
	}
}

// Once: no test noticed the planted fault that callers, those of the flight included, were given
// the ExpiresAt of Options.TTL for an outcome with a TTL of its own.
func TestExpiresAt_OfATTLOfItsOwnIsTheSameForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{TTL: time.Hour, HoldTTL: -1})
		fn := returnsAfter(time.Second, 1, nil)
		want := time.Now().Add(time.Second + time.Minute)
		joined := make(chan idemflight.Result[int], 1)
		go func() {
			time.Sleep(time.Millisecond)
			r, _ := c.DoResult(context.Background(), "k", fn)
			joined <- r
		}()
		led, err := c.DoResult(context.Background(), "k", fn, idemflight.WithTTL(time.Minute))
		require.NoError(t, err)
		replayed, err := c.DoResult(context.Background(), "k", fn)
		require.NoError(t, err)
		for _, r := range []idemflight.Result[int]{led, <-joined, replayed} {
			require.True(t, want.Equal(r.ExpiresAt),
				"%v: expires at %v, want %v", r.Source, r.ExpiresAt, want)
		}
		held, err := c.DoResult(context.Background(), "held", func(context.Context) (int, error) {
			return 0, idemflight.Unknown(errors.New("no answer"))
		})
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.Zero(t, held.ExpiresAt, "what is held without end")
	})
}

func TestPromise15_HugeTTLsDoNotOverflow(t *testing.T) {
	const year = 365 * 24 * time.Hour
	huge := []time.Duration{math.MaxInt64, math.MaxInt64 - 1, math.MaxInt64/8*7 + 1}
	for _, d := range huge {
		for _, uptime := range []time.Duration{0, 1, 2 * year} { // now + TTL overflows only some time after New
			ways := []struct {
				name string
				opts options
				put  func(t *testing.T, c *cache)
				err  error
			}{
				{"TTL", options{TTL: d}, func(t *testing.T, c *cache) { executes(t, c, "k", 1) }, nil},
				{"WithTTL", options{}, func(t *testing.T, c *cache) { executes(t, c, "k", 1, idemflight.WithTTL(d)) }, nil},
				{"HoldTTL", options{HoldTTL: d}, func(t *testing.T, c *cache) { hold(t, c, "k") }, idemflight.ErrOutcomeUnknown},
				{"TTL for a hold", options{TTL: d}, func(t *testing.T, c *cache) { hold(t, c, "k") }, idemflight.ErrOutcomeUnknown},
				{"Restore", options{}, func(t *testing.T, c *cache) {
					require.NoError(t, c.Restore(bg, "k", retainedEntry(1, time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC))))
				}, nil},
				{"Resolve", options{TTL: d}, func(t *testing.T, c *cache) {
					hold(t, c, "k")
					require.True(t, resolve(c, "k", 1, nil))
				}, nil},
			}
			for _, w := range ways {
				t.Run(fmt.Sprintf("%s/%d/%v", w.name, d, uptime), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						c := idemflight.MustNew(w.opts)
						time.Sleep(uptime)
						w.put(t, c)
						for range 3 {
							e, ok := lookup(c, "k")
							require.True(t, ok, "kept %v after completion, with a TTL of %v", time.Since(e.CompletedAt), d)
							require.False(t, e.ExpiresAt.Before(time.Now()),
								"ExpiresAt %v lies in the future", e.ExpiresAt)
							_, err := c.Do(bg, "k", neverRuns(t))
							require.ErrorIs(t, err, w.err)
							require.Equal(t, 1, c.Len())
							time.Sleep(60 * year)
						}
						require.Len(t, entries(c), 1)
					})
				})
			}
		}
	}
}

// A TTL that ends after all that the clock can tell is reported as it is, to every caller.
func TestExpiresAt_OfAHugeTTLIsTheSameForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{TTL: math.MaxInt64})
		do := func() idemflight.Result[int] {
			res, err := c.DoResult(context.Background(), "k", returnsAfter(time.Second, 1, nil))
			require.NoError(t, err)
			return res
		}
		joined := make(chan idemflight.Result[int])
		go func() { time.Sleep(time.Millisecond); joined <- do() }()
		for _, res := range []idemflight.Result[int]{do(), <-joined, do()} {
			require.Equal(t, time.Duration(math.MaxInt64), res.ExpiresAt.Sub(res.CompletedAt), res.Source)
		}
	})
}

// With a MinRetention that overflows, either everything is protected or nothing is.
func TestPromise15_HugeProtectDoesNotOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{TTL: math.MaxInt64, MinRetention: math.MaxInt64 - 1, MaxEntries: 1})
		time.Sleep(time.Hour)
		executes(t, c, "k", 1)
		time.Sleep(24 * time.Hour)
		_, err := c.Do(bg, "new", neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrFull)
	})
}

func TestPromise15_NegativeTTLs(t *testing.T) {
	_, err := idemflight.New(options{TTL: -1})
	require.ErrorContains(t, err, "TTL", "a negative TTL is an error from New")

	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		for _, d := range []time.Duration{-1, math.MinInt64} {
			r := executes(t, c, "k", 1, idemflight.WithTTL(d))
			require.Zero(t, r.ExpiresAt, "WithTTL(%d) means 0: nothing is kept", d)
			require.Zero(t, c.Len(), "WithTTL(%d) means 0: nothing is kept", d)
		}
	})
}

func TestPromise15_NegativeHoldTTLHoldsWithoutEnd(t *testing.T) {
	for _, d := range []time.Duration{-1, math.MinInt64} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{TTL: time.Second, HoldTTL: d})
			hold(t, c, "k")
			for range 3 {
				e, ok := lookup(c, "k")
				require.True(t, ok, "HoldTTL %d holds without end", d)
				require.Equal(t, idemflight.Held, e.State)
				require.Zero(t, e.ExpiresAt, "no end is no ExpiresAt")
				require.Zero(t, entries(c)["k"].ExpiresAt, "no end is no ExpiresAt")
				_, err := c.Do(bg, "k", neverRuns(t))
				require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
				require.Equal(t, 1, c.Stats().Held)
				time.Sleep(50 * 365 * 24 * time.Hour)
			}
			require.True(t, resolve(c, "k", 1, nil), "until it is resolved")
			require.Equal(t, 1, replays(t, c, "k"))
			time.Sleep(time.Second)
			hold(t, c, "k")
			require.True(t, forget(c, "k"), "or forgotten")
		})
	}
}

func TestPromise15_HoldTTL(t *testing.T) {
	cases := []struct {
		name      string
		ttl, hold time.Duration
		want      time.Duration
	}{
		{"0 is seven days", 0, 0, 7 * 24 * time.Hour},
		{"0 is seven days, also with a short TTL", time.Minute, 0, idemflight.DefaultHoldTTL},
		{"0 is a TTL of seven days", idemflight.DefaultHoldTTL, 0, idemflight.DefaultHoldTTL},
		{"0 is at least TTL", 30 * 24 * time.Hour, 0, 30 * 24 * time.Hour},
		{"0 is at least TTL, by a nanosecond", idemflight.DefaultHoldTTL + 1, 0, idemflight.DefaultHoldTTL + 1},
		{"longer than TTL", time.Minute, time.Hour, time.Hour},
		{"shorter than TTL", time.Minute, time.Second, time.Second},
		{"tiny", time.Minute, 1, 1},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{TTL: tc.ttl, HoldTTL: tc.hold})
				hold(t, c, "k")
				e, ok := lookup(c, "k")
				require.True(t, ok)
				require.Equal(t, tc.want, e.ExpiresAt.Sub(e.CompletedAt),
					"how long the key is to be held")
				time.Sleep(tc.want - 1)
				_, err := c.Do(bg, "k", neverRuns(t))
				require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
				time.Sleep(time.Nanosecond)
				executes(t, c, "k", 1)
			})
		})
	}
}

func TestPromise15_DefaultTTLIsADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		executes(t, c, "k", 1)
		time.Sleep(24*time.Hour - 1)
		require.Equal(t, 1, replays(t, c, "k"))
		time.Sleep(time.Nanosecond)
		executes(t, c, "k", 2)
	})
}

// Each record expires by its own TTL, whatever was used or inserted before or after it.
func TestPromise15_MixedTTLsExpireOnTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 300
		c := idemflight.MustNew(options{MaxEntries: n})
		ttls := rand.New(rand.NewPCG(15, 1)).Perm(n)
		for i, s := range ttls {
			executes(t, c, keyNo(i), i, idemflight.WithTTL(time.Duration(s+1)*time.Minute))
		}
		for passed := 1; passed <= n; passed++ {
			time.Sleep(time.Minute)
			require.Equal(t, n-passed, c.Len(), "unexpired after %d minutes", passed)
			for i := passed % 7; i < n; i += 7 {
				_, ok := lookup(c, keyNo(i))
				require.Equal(t, ttls[i]+1 > passed, ok,
					"key with a TTL of %d min after %d min", ttls[i]+1, passed)
			}
		}
	})
}

// A small record has room for 32 bits of what its execution took. Whatever that was, and whatever
// the record is, its times are reported to the nanosecond.
func TestLookup_TimesOfLongExecutions(t *testing.T) {
	for _, took := range []time.Duration{0, 1, time.Second, 1<<32 - 1, 1 << 32, time.Minute, time.Hour} {
		for name, opts := range map[string][]idemflight.CallOption{
			"small": nil,
			"full":  {idemflight.WithFingerprint(fingerprint(1))},
		} {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{})
				time.Sleep(time.Second) // the cache is not as old as the execution
				start := time.Now()
				_, err := c.Do(bg, "k", func(context.Context) (int, error) { time.Sleep(took); return 1, nil }, opts...)
				require.NoError(t, err)
				end := time.Now()
				time.Sleep(time.Minute)
				e, ok := lookup(c, "k")
				require.True(t, ok)
				require.Equal(t, [3]time.Duration{0, took, took + idemflight.DefaultTTL},
					[3]time.Duration{e.StartedAt.Sub(start), e.CompletedAt.Sub(start), e.ExpiresAt.Sub(start)}, "%s record, %v: start, end and expiry", name, took)
				require.Equal(t, took, end.Sub(start))
				require.Equal(t, name == "small" && took < 1<<32, c.Small() == 1,
					"%s record, %v: small", name, took)
			})
		}
	}
}

// Once: of an execution longer than 4 s, leader and replay got wall times some nanoseconds apart:
// the wall clock and the monotonic clock are not read at one instant.
func TestResult_TimesOfSlowExecutionsAreTheSameForAll(t *testing.T) {
	c := idemflight.MustNew(options{})
	for range 1000 {
		kept, told := c.TimesOfSlow("k")
		require.Equal(t, told, kept)
	}
}

// A key resolved by hand has the start of the execution that left it held, in this process or in
// the one before; its TTL counts from now.
func TestLookup_ResolvedKeysTellWhenTheirExecutionStarted(t *testing.T) {
	for name, hold := range map[string]func(t *testing.T, c *cache){
		"held here": func(t *testing.T, c *cache) {
			_, err := c.Do(bg, "k", returnsAfter(time.Second, 0, idemflight.Unknown(errBoom)))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		},
		"restored": func(t *testing.T, c *cache) {
			now := time.Now()
			require.NoError(t, c.Restore(bg, "k", idemflight.Entry[int]{State: idemflight.Held, Err: errBoom,
				StartedAt: now, CompletedAt: now.Add(time.Second), ExpiresAt: now.Add(time.Hour)}))
			time.Sleep(time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{TTL: time.Minute, HoldTTL: time.Hour})
				time.Sleep(time.Second)
				start := time.Now()
				hold(t, c)
				time.Sleep(8 * time.Second)
				require.True(t, resolve(c, "k", 7, nil))
				e, ok := lookup(c, "k")
				require.True(t, ok)
				require.Equal(t, [3]time.Duration{0, 9 * time.Second, 69 * time.Second},
					[3]time.Duration{e.StartedAt.Sub(start), e.CompletedAt.Sub(start), e.ExpiresAt.Sub(start)}, "start, end and expiry")
			})
		})
	}
}

// Once: after the wall clock had been set, every record was a full one, as long as the process
// lived; and an outcome kept before gave Restore an outdated ExpiresAt.
func TestSettingTheWallClock_MovesReportedTimesOnly(t *testing.T) {
	c := idemflight.MustNew(options{TTL: time.Hour, ExecTimeout: time.Hour})
	do := func(key string) idemflight.Result[int] {
		res, err := c.DoResult(context.Background(), key, func(ctx context.Context) (int, error) {
			deadline, ok := ctx.Deadline()
			require.True(t, ok)
			require.WithinDuration(t, time.Now().Round(0).Add(time.Hour), deadline.Round(0), time.Minute, "fn's deadline")
			return 1, nil
		})
		require.NoError(t, err)
		return res
	}
	do("before")
	restored := retainedEntry(1, time.Now().Add(time.Hour))
	require.NoError(t, c.Restore(bg, "restored", restored))
	moved := time.Duration(0)
	for n, seconds := range []int{7200, -14400, 120} {
		c.SetWallClock(seconds)
		moved += time.Duration(seconds) * time.Second
		res := do("after " + strconv.Itoa(n))
		now := time.Now().Round(0)
		require.WithinDuration(t, now, res.CompletedAt.Round(0), time.Minute,
			"the clock set by %d s", seconds)
		require.WithinDuration(t, now.Add(time.Hour), res.ExpiresAt.Round(0), time.Minute)
		e, _ := lookup(c, "before")
		require.WithinDuration(t, now.Add(time.Hour), e.ExpiresAt.Round(0), time.Minute,
			"what Restore would be given")
		e, _ = lookup(c, "restored")
		for _, at := range [][2]time.Time{{restored.StartedAt, e.StartedAt}, {restored.CompletedAt, e.CompletedAt}, {restored.ExpiresAt, e.ExpiresAt}} {
			require.WithinDuration(t, at[0].Round(0).Add(moved), at[1].Round(0), time.Minute,
				"the times of a restored key move with the clock")
		}
		require.Equal(t, n+2, c.Small(), "small records")
		require.Equal(t, idemflight.Replayed, do("before").Source,
			"the deadline must not have moved")
	}
}

// untilOf returns until when a key is held, as the text of an error has it.
func untilOf(t *testing.T, err error) time.Time {
	t.Helper()
	text := regexp.MustCompile(`until (\S+ \S+Z)`).FindStringSubmatch(err.Error())
	require.Len(t, text, 2, "%v", err)
	until, bad := time.Parse("2006-01-02 15:04:05Z", text[1])
	require.NoError(t, bad)
	return until
}

// The same for who looks at a key first after the clock was set, in flight or kept, here or in a Store.
func TestSettingTheWallClock_IsNoticedWhereTimesAreTold(t *testing.T) {
	c := idemflight.MustNew(options{TTL: time.Hour})
	stored := idemflight.MustNew(options{TTL: time.Hour, Store: storetest.Mem(), LocalTTL: -1})
	executes(t, c, "kept", 1)
	executes(t, stored, "kept", 1)
	runs, end, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		_, err := c.Do(bg, "flies", func(context.Context) (int, error) {
			close(runs)
			<-end
			return 1, nil
		})
		ended <- err
	}()
	<-runs
	requireNow := func(at, want time.Time) {
		t.Helper()
		require.WithinDuration(t, want, at.Round(0), time.Minute)
	}
	for n, seconds := range []int{7200, -14400} {
		now := time.Now().Round(0)
		c.SetWallClock(seconds)
		stored.SetWallClock(seconds)
		e, _ := lookup(stored, "kept")
		requireNow(e.ExpiresAt, now.Add(time.Hour))
		e, _ = lookup(c, "kept")
		requireNow(e.ExpiresAt, now.Add(time.Hour))
		c.SetWallClock(-seconds)
		lookup(c, "kept")
		c.SetWallClock(seconds)
		e, _ = lookup(c, "flies")
		requireNow(e.StartedAt, now)
		c.SetWallClock(-seconds)
		lookup(c, "kept")
		c.SetWallClock(seconds)
		require.NoError(t, c.Unsettled(bg, func(key string, e idemflight.Entry[int]) bool {
			require.Equal(t, "flies", key)
			requireNow(e.StartedAt, now)
			return true
		}))
		c.SetWallClock(-seconds)
		lookup(c, "kept")
		c.SetWallClock(seconds)
		for _, c := range []*cache{c, stored} {
			_, err := c.Do(bg, "held "+keyNo(n), returns(0, errBoom))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			requireNow(untilOf(t, err), now.Add(7*24*time.Hour))
			require.True(t, forget(c, "held "+keyNo(n)))
		}
		require.NoError(t, c.Restore(bg, keyNo(n), retainedEntry(1, now.Add(time.Hour))))
	}
	c.SetWallClock(60 * 60)
	now := time.Now().Round(0)
	e, _ := lookup(c, keyNo(0)) // the clock was set back by four hours since, and forward by one
	requireNow(e.ExpiresAt, now.Add(-2*time.Hour))
	e, _ = lookup(c, keyNo(1))
	requireNow(e.ExpiresAt, now.Add(2*time.Hour))
	close(end)
	require.NoError(t, <-ended)
}

// A hold with times of its own, which Reconcile learned nothing about, moves with the clock once.
func TestSettingTheWallClock_MovesAHoldOnce(t *testing.T) {
	c := idemflight.MustNew(options{Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) { return 0, errBoom }})
	began := time.Now().Round(0)
	require.NoError(t, c.Restore(bg, theKey, idemflight.Entry[int]{State: idemflight.Held, Err: errBoom, StartedAt: began, CompletedAt: began}))
	c.SetWallClock(7200)
	_, err := c.Do(bg, theKey, neverRuns(t))
	require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
	e, ok := lookup(c, theKey)
	require.True(t, ok)
	require.WithinDuration(t, began.Add(2*time.Hour), e.StartedAt.Round(0), time.Minute)
}

// Outcomes of one instant are small records, as those of different ones are.
func TestRecords_OfOneInstantAreSmall(t *testing.T) {
	defer idemflight.LimitShards(1)()
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		for i := range 10 {
			executes(t, c, keyNo(i), i)
		}
		require.Equal(t, 10, c.Small())
	})
}

// Promise 16: Nothing expires in flight, and callers that joined get the outcome however short its
// TTL. WithTTL(0) shares the outcome with them and retains nothing.
func TestPromise16_InFlightNothingExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{TTL: 1, HoldTTL: 1, ExecTimeout: time.Second})
		end := fly(t, c, "k")
		for range 24 {
			time.Sleep(time.Hour)
			e, ok := lookup(c, "k")
			require.True(t, ok, "a flight does not expire")
			require.Equal(t, idemflight.InFlight, e.State)
			require.Zero(t, e.ExpiresAt, "a flight has no deadline")
			require.Zero(t, e.CompletedAt, "a flight is not complete")
			require.Len(t, entries(c), 1)
			_, err := c.Do(bg, "k", neverRuns(t), idemflight.WithMaxWait(idemflight.NoWait))
			require.ErrorIs(t, err, idemflight.ErrInFlight)
		}
		r, err := end(1, nil)
		require.NoError(t, err)
		require.Equal(t, 1, r.Value)
		require.Equal(t, time.Duration(1), r.ExpiresAt.Sub(r.CompletedAt))
	})
}

func TestPromise16_AHoldDoesNotExpireWhileItIsReconciled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		still := errors.New("still unknown")
		c := idemflight.MustNew(options{HoldTTL: time.Minute, ExecTimeout: -1, Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
			time.Sleep(time.Hour)
			return 0, still
		}})
		hold(t, c, "k")
		time.Sleep(time.Minute - 1)
		go func() { _, _ = c.Do(bg, "k", neverRuns(t)) }()
		time.Sleep(30 * time.Minute)
		_, err := c.Do(bg, "k", neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.ErrorIs(t, err, still)
		e, ok := lookup(c, "k")
		require.True(t, ok, "held again")
		require.True(t, e.ExpiresAt.Equal(time.Now().Add(time.Minute)), "HoldTTL counts anew from the end of Reconcile, got %v from now", time.Until(e.ExpiresAt))
	})
}

func TestPromise16_JoinedCallersGetTheOutcomeHoweverShortTheTTL(t *testing.T) {
	ways := map[string]struct {
		opts options
		call []idemflight.CallOption
	}{
		"TTL of 1 ns":     {options{TTL: 1}, nil},
		"WithTTL of 1 ns": {options{}, []idemflight.CallOption{idemflight.WithTTL(1)}},
		"WithTTL(0)":      {options{}, []idemflight.CallOption{idemflight.WithTTL(0)}},
		"WithTTL(-1)":     {options{}, []idemflight.CallOption{idemflight.WithTTL(-1)}},
		"shed at once":    {weighted(options{TTL: 1}), nil},
		"full and plain":  {options{TTL: 1, MaxEntries: 1, MinRetention: -1}, nil},
	}
	for name, w := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(w.opts)
				end := fly(t, c, "k", w.call...)
				const n = 20
				var wg sync.WaitGroup
				for range n {
					wg.Go(func() {
						r, err := c.DoResult(bg, "k", neverRuns(t))
						if err != nil || r.Value != tooHeavy || r.Source != idemflight.Joined {
							t.Errorf("a joined caller got (%d, %v) by %v, expected the flight's value and Joined", r.Value, err, r.Source)
						}
					})
				}
				synctest.Wait()
				time.Sleep(time.Hour)
				r, err := end(tooHeavy, nil)
				require.NoError(t, err)
				require.Equal(t, tooHeavy, r.Value)
				wg.Wait()
				time.Sleep(time.Nanosecond)
				require.Zero(t, c.Len(), "after its TTL nothing is kept")
				executes(t, c, "k", 2)
			})
		})
	}
}

func TestPromise16_WithTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(options{TTL: time.Minute, HoldTTL: time.Minute, Observer: log.observe})

		r := executes(t, c, "zero", 1, idemflight.WithTTL(0))
		require.Zero(t, r.ExpiresAt, "the outcome is not kept")
		require.False(t, r.CompletedAt.IsZero(), "it is complete all the same")
		require.Zero(t, c.Len(), "WithTTL(0) retains nothing")
		require.Equal(t, idemflight.Release, log.of(idemflight.EventExecuted)[0].Disposition,
			"of an outcome that is not retained")
		executes(t, c, "zero", 2, idemflight.WithTTL(0))

		_, err := c.Do(bg, "final", returns(0, idemflight.Final(errBoom)), idemflight.WithTTL(0))
		require.ErrorIs(t, err, errBoom)
		require.Zero(t, c.Len(), "WithTTL(0) retains no final error either")

		hold(t, c, "hold", idemflight.WithTTL(0))
		e, ok := lookup(c, "hold")
		require.True(t, ok, "WithTTL(0) does not affect a hold")
		require.Equal(t, time.Minute, e.ExpiresAt.Sub(e.CompletedAt), "a hold lasts HoldTTL")
		hold(t, c, "hold2", idemflight.WithTTL(time.Second))
		e, _ = lookup(c, "hold2")
		require.Equal(t, time.Minute, e.ExpiresAt.Sub(e.CompletedAt),
			"a hold lasts HoldTTL, not the WithTTL of a retained outcome")

		r = executes(t, c, "long", 1, idemflight.WithTTL(time.Hour))
		require.Equal(t, time.Hour, r.ExpiresAt.Sub(r.CompletedAt),
			"WithTTL may be longer than Options.TTL")
		r = executes(t, c, "short", 1, idemflight.WithTTL(time.Second))
		require.Equal(t, time.Second, r.ExpiresAt.Sub(r.CompletedAt),
			"WithTTL may be shorter than Options.TTL")
		time.Sleep(time.Second)
		executes(t, c, "short", 2)
		time.Sleep(time.Hour - time.Second - 1)
		require.Equal(t, 1, replays(t, c, "long"))
	})
}

func TestPromise16_TheLeadersTTLCounts(t *testing.T) {
	for _, leader := range []time.Duration{0, time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{TTL: time.Minute})
			end := fly(t, c, "k", idemflight.WithTTL(leader))
			go func() { _, _ = c.Do(bg, "k", neverRuns(t), idemflight.WithTTL(10*time.Minute)) }()
			synctest.Wait()
			r, err := end(1, nil)
			require.NoError(t, err)
			if leader == 0 {
				require.Zero(t, c.Len(), "the leader's WithTTL(0) counts, not the joined caller's")
				return
			}
			require.Equal(t, leader, r.ExpiresAt.Sub(r.CompletedAt),
				"the leader's WithTTL counts, not the joined caller's")
			_, err = c.Do(bg, "k", neverRuns(t), idemflight.WithTTL(0))
			require.NoError(t, err)
			require.Equal(t, 1, c.Len(), "a replaying caller's WithTTL changes nothing")
		})
	}
}

// When an outcome with a TTL of its own completed is told alike to its leader, to a replay and by Lookup.
func TestResult_CompletedAtWithATTLOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{TTL: time.Hour})
		first, err := c.DoResult(bg, "k", returnsAfter(time.Second, 1, nil), idemflight.WithTTL(time.Minute))
		require.NoError(t, err)
		time.Sleep(time.Second)
		again, err := c.DoResult(bg, "k", neverRuns(t))
		require.NoError(t, err)
		require.Equal(t, first.CompletedAt, again.CompletedAt)
		require.Equal(t, first.ExpiresAt, again.ExpiresAt)
		e, _ := lookup(c, "k")
		require.Equal(t, first.CompletedAt, e.CompletedAt)
	})
}

// A cache that is empty has no timer that runs, nor one that refers to it.
func TestPromise17_NoTimerIsSetWhereNothingIsKept(t *testing.T) {
	c := idemflight.MustNew(options{TTL: time.Hour})
	executes(t, c, "k", 1)
	require.True(t, forget(c, "k"))
	stopped, free := c.TimerAtRest()
	require.True(t, stopped)
	require.True(t, free)
}

// No heartbeat is to come once the store has taken the outcome that was offered to it again.
func TestPromise44_NoHeartbeatIsSetWhereNothingIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		c := idemflight.MustNew(options{Store: m, MaxEntries: fewEntries})
		m.Fail("Settle", storetest.Before, 1<<30)
		_, err := c.Do(bg, "k", one)
		require.ErrorIs(t, err, idemflight.ErrStore)
		require.False(t, c.HeartbeatAtRest())
		m.Fail("Settle", storetest.Before, 0)
		for asked := m.Asked("Settle"); m.Asked("Settle") == asked; synctest.Wait() {
			time.Sleep(time.Second)
		}
		require.True(t, c.HeartbeatAtRest())
	})
}
