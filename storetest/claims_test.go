package storetest_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/storetest"
)

// Promises 28 to 34: claims, leases, takeovers, and who asks.

// Promise 28: With a Store, promises 1, 2, 13, 15, 22 and 23 hold for all processes that share it,
// as far as promises 29 to 33 say. Without one, nothing changes.
func TestPromise28_AnotherProcessReplays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		res, err := a.DoResult(bg, theKey, returns(7, nil))
		require.NoError(t, err)
		require.Equal(t, idemflight.Executed, res.Source)
		res, err = b.DoResult(bg, theKey, mustNotRun(t))
		require.NoError(t, err)
		require.Equal(t, 7, res.Value)
		require.Equal(t, idemflight.Replayed, res.Source)
		require.WithinDuration(t, time.Now().Add(24*time.Hour), res.ExpiresAt, time.Second)
		asked := m.Asked("Claim")
		res, err = b.DoResult(bg, theKey, mustNotRun(t))
		require.NoError(t, err)
		require.Equal(t, 7, res.Value)
		require.WithinDuration(t, time.Now().Add(24*time.Hour), res.ExpiresAt, time.Second)
		require.Equal(t, asked, m.Asked("Claim"), "a replay from memory asks nobody")
		_, err = b.Do(bg, theKey, mustNotRun(t), idemflight.WithFingerprint(idemflight.FingerprintOf([]byte("x"))))
		require.ErrorIs(t, err, idemflight.ErrKeyReused)
		time.Sleep(24 * time.Hour)
		require.Equal(t, 1, must(a.Do(bg, theKey, returns(1, nil))), "expired everywhere")
		require.Equal(t, 1, must(b.Do(bg, theKey, mustNotRun(t))))
	})
}

func TestPromise28_FinalErrorsAndFingerprintsCross(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		fp := idemflight.WithFingerprint(idemflight.FingerprintOf([]byte("payload")))
		declined := errors.New("declined")
		_, err := a.Do(bg, theKey, returns(3, idemflight.Final(declined)), fp)
		require.Equal(t, declined, err, "fn's own in its process")
		_, err = b.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrKeyReused)
		v, err := b.Do(bg, theKey, mustNotRun(t), fp)
		require.EqualError(t, err, "declined")
		require.IsType(t, &idemflight.StoredError{}, err)
		require.Equal(t, 3, v)
	})
}

// Promise 29: The engine has recorded the claim before fn runs, and the outcome before any caller
// gets it. A verb whose answer was lost is repeated.
func TestPromise29_TheClaimIsRecordedBeforeFnAndTheOutcomeBeforeCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		settling := make(chan struct{})
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Settle" && when == storetest.Before {
				<-settling
			}
			return nil
		})
		ran := false
		answered := start(a, bg, func(context.Context) (int, error) {
			ran = true
			require.Equal(t, 1, m.Asked("Claim"))
			e, ok, err := a.Lookup(bg, theKey)
			require.True(t, ok && err == nil && e.State == idemflight.InFlight)
			return 7, nil
		})
		synctest.Wait()
		require.True(t, ran)
		require.Empty(t, answered, "the outcome is not recorded yet")
		close(settling)
		require.Equal(t, 7, (<-answered).res.Value)
	})
}

func TestPromise29_LostAnswersAreAskedForAgain(t *testing.T) {
	for _, verb := range []string{"Claim", "Begin", "Settle"} {
		for _, when := range []storetest.When{storetest.Before, storetest.After} {
			t.Run(verb+" "+when.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := storetest.Mem()
					a := over(t, m)
					m.Fail(verb, when, 2)
					var n atomic.Int64
					v, err := a.Do(bg, theKey, func(ctx context.Context) (int, error) {
						require.NoError(t, idemflight.BeginEffect(ctx))
						return counted(&n, 7)(ctx)
					})
					require.NoError(t, err)
					require.Equal(t, 7, v)
					require.EqualValues(t, 1, n.Load())
					require.EqualValues(t, 2, a.Stats().StoreErrors)
					require.Equal(t, 7, must(over(t, m).Do(bg, theKey, mustNotRun(t))))
				})
			})
		}
	}
}

// Promise 31: When a process dies, the keys it had in flight are free again where effects are
// announced and none had begun; all others are held. A process that was merely slow, and was not
// replaced, settles late.
func TestPromise31_WhatADeadOwnerLeaves(t *testing.T) {
	for name, tc := range map[string]struct {
		announced, begins bool
		held              bool
	}{
		"announced, nothing begun": {true, false, false},
		"announced and begun":      {true, true, true},
		"not announced":            {false, false, true},
		"begun":                    {false, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := storetest.Mem()
				with := func(o *options) { o.EffectsAnnounced = tc.announced }
				dead, b := over(t, m, with), over(t, m, with)
				runs, die := firstClaim(m), make(chan struct{})
				answered := start(dead, bg, func(ctx context.Context) (int, error) {
					if tc.begins {
						require.NoError(t, idemflight.BeginEffect(ctx))
					}
					<-die
					return 0, idemflight.Retryable(errBoom)
				})
				id := <-runs
				synctest.Wait()
				require.True(t, m.Kill(id))
				v, err := b.Do(bg, theKey, returns(9, nil))
				if tc.held {
					require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
					require.ErrorIs(t, err, idemflight.ErrInterrupted)
				} else {
					require.NoError(t, err)
					require.Equal(t, 9, v)
				}
				close(die)
				late := <-answered
				require.ErrorIs(t, late.err, errBoom)
				if !tc.held { // taken over: nothing had begun, and there is nothing to record
					require.NotErrorIs(t, late.err, idemflight.ErrOutcomeUnknown)
					require.Equal(t, 9, must(dead.Do(bg, theKey, mustNotRun(t))))
				} else { // nobody took it over: the late owner has released it
					require.Equal(t, 5, must(b.Do(bg, theKey, returns(5, nil))))
				}
			})
		})
	}
}

// Promise 30: An execution whose claim was taken over can neither begin an effect nor settle. The
// leases of long executions are renewed.
func TestPromise30_WhoWasReplacedNeitherBeginsNorSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		late, b := over(t, m, announced), over(t, m, announced)
		ids := firstClaim(m)
		wakes := make(chan struct{})
		var begun, cause error
		answered := start(late, bg, func(ctx context.Context) (int, error) {
			<-wakes
			begun = idemflight.BeginEffect(ctx)
			<-ctx.Done() // with the next heartbeat
			cause = context.Cause(ctx)
			require.ErrorIs(t, idemflight.BeginEffect(ctx), idemflight.ErrClaimLost)
			return 1, nil
		})
		id := <-ids
		synctest.Wait()
		require.True(t, m.Kill(id))
		require.Equal(t, 2, must(b.Do(bg, theKey, returns(2, nil))))
		close(wakes)
		got := <-answered
		require.ErrorIs(t, begun, idemflight.ErrClaimLost)
		require.Equal(t, idemflight.ErrClaimLost, cause)
		require.ErrorIs(t, got.err, idemflight.ErrOutcomeUnknown)
		require.ErrorIs(t, got.err, idemflight.ErrClaimLost)
		require.Equal(t, 1, got.res.Value, "fn's value beside it")
		require.Equal(t, 2, must(late.Do(bg, theKey, mustNotRun(t))))
	})
}

// Without EffectsAnnounced, too, who was refused has begun nothing.
func TestPromise30_WhoWasReplacedBeforeItBeganKnowsThatNothingHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		late, b := over(t, m), over(t, m)
		ids := firstClaim(m)
		answered := start(late, bg, func(ctx context.Context) (int, error) {
			<-ctx.Done() // with the next heartbeat
			require.ErrorIs(t, idemflight.BeginEffect(ctx), idemflight.ErrClaimLost)
			return 0, errBoom
		})
		id := <-ids
		synctest.Wait()
		require.True(t, m.Kill(id))
		require.NoError(t, b.Resolve(bg, theKey, 5, nil))
		got := <-answered
		require.ErrorIs(t, got.err, errBoom)
		require.NotErrorIs(t, got.err, idemflight.ErrOutcomeUnknown)
	})
}

// A heartbeat learns that the claim is lost, and ends fn's context, while BeginEffect asks the store.
func TestPromise30_BeginEffectSaysThatTheClaimIsLostAlsoIfAHeartbeatIsQuicker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		late, b := over(t, m, announced), over(t, m, announced)
		asks := make(chan idemflight.ClaimID)
		m.Hook(func(ctx context.Context, when storetest.When, verb string, c idemflight.Claim) error {
			if verb != "Begin" {
				return nil
			}
			asks <- c.ID
			<-ctx.Done()
			return ctx.Err()
		})
		answered := start(late, bg, func(ctx context.Context) (int, error) {
			time.Sleep(late.Options().Lease/3 - time.Second) // the next heartbeat comes before BeginEffect gives up
			return 1, idemflight.BeginEffect(ctx)
		})
		require.True(t, m.Kill(<-asks))
		require.Equal(t, 2, must(b.Do(bg, theKey, returns(2, nil))))
		got := <-answered
		require.ErrorIs(t, got.err, idemflight.ErrClaimLost)
		require.NotErrorIs(t, got.err, idemflight.ErrStore)
		require.NotErrorIs(t, got.err, idemflight.ErrOutcomeUnknown, "nothing has begun")
	})
}

func TestPromise30_LongExecutionsAreRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m, announced), over(t, m, announced)
		fn, runs, release := blocked(7, nil)
		answered := start(a, bg, fn)
		<-runs
		time.Sleep(10 * time.Minute)
		_, err := b.Do(bg, theKey, mustNotRun(t), idemflight.WithMaxWait(time.Second))
		require.ErrorIs(t, err, idemflight.ErrInFlight)
		close(release)
		require.NoError(t, (<-answered).err)
		asked := m.Asked("Renew")
		require.Greater(t, asked, 10)
		time.Sleep(time.Hour)
		require.Equal(t, asked, m.Asked("Renew"), "none at rest")
	})
}

// One renewal that hangs costs no lease, whenever the execution began.
func TestPromise30_ARenewalThatHangsCostsNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m, announced), over(t, m, announced)
		fn, runs, release := blocked(1, nil)
		other := make(chan error, 1)
		go func() { // arms the timer
			_, err := a.Do(bg, "other", fn)
			other <- err
		}()
		<-runs
		time.Sleep(50 * time.Millisecond)
		fn, runs, done := blocked(7, nil)
		answered := start(a, bg, func(ctx context.Context) (int, error) {
			require.NoError(t, idemflight.BeginEffect(ctx))
			return fn(ctx)
		})
		<-runs
		renewals := 0
		m.Hook(func(ctx context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb != "Renew" || when != storetest.Before {
				return nil
			}
			if renewals++; renewals == 2 {
				<-ctx.Done()
				return ctx.Err()
			}
			time.Sleep(45 * time.Millisecond) // the way to the store
			return nil
		})
		for range 20 {
			time.Sleep(5 * time.Second)
			_, err := b.Do(bg, theKey, mustNotRun(t), idemflight.WithMaxWait(idemflight.NoWait))
			require.ErrorIs(t, err, idemflight.ErrInFlight)
		}
		close(release)
		close(done)
		require.NoError(t, <-other)
		require.NoError(t, (<-answered).err)
		require.Greater(t, renewals, 2)
	})
}

// Promise 34: In one process, one call per key asks the store and the others join it; a replay from
// memory never asks.
func TestPromise34_OneCallPerKeyAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		var n atomic.Int64
		var calls sync.WaitGroup
		for range 100 {
			calls.Go(func() {
				v, err := a.Do(bg, theKey, func(ctx context.Context) (int, error) {
					require.NoError(t, idemflight.BeginEffect(ctx))
					n.Add(1)
					time.Sleep(time.Second)
					return 7, nil
				})
				require.NoError(t, err)
				require.Equal(t, 7, v)
			})
		}
		calls.Wait()
		require.EqualValues(t, 1, n.Load())
		require.Equal(t, []int{1, 1, 1, 0}, []int{m.Asked("Claim"), m.Asked("Begin"), m.Asked("Settle"), m.Asked("Read")})
	})
}

// A repeat of a Claim may be granted although the first grant, whose answer was lost, is over long since.
func TestPromise30_AGrantThatComesTooLateIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m, func(o *options) { o.Lease = time.Second })
		var ids []idemflight.ClaimID
		m.Hook(func(_ context.Context, when storetest.When, verb string, c idemflight.Claim) error {
			if verb == "Claim" && when == storetest.After {
				ids = append(ids, c.ID)
				if len(ids) == 1 {
					time.Sleep(time.Second)
				}
			}
			return nil
		})
		require.Equal(t, 7, must(a.Do(bg, theKey, func(ctx context.Context) (int, error) {
			c, _, err := idemflight.Settling(ctx, 7, nil)
			require.NoError(t, err)
			require.NotEqual(t, ids[0], c.ID)
			return 7, nil
		})))
		time.Sleep(time.Minute)
	})
}

func TestPromise28_AnotherPayloadIsReusedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		fn, runs, release := blocked(0, errBoom)
		led := start(a, bg, fn, payload)
		<-runs
		_, err := b.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrKeyReused, "in flight: at once")
		close(release)
		require.ErrorIs(t, (<-led).err, idemflight.ErrOutcomeUnknown)
		_, err = b.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrKeyReused, "held")
		_, err = b.Do(bg, theKey, mustNotRun(t), payload)
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
	})
}

func TestPromise29_HowLongAVerbIsRepeated(t *testing.T) {
	for verb, upTo := range map[string]time.Duration{"Claim": 5 * time.Second, "Begin": 5 * time.Second, "Settle": 30 * time.Second} {
		t.Run(verb, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := storetest.Mem()
				m.Fail(verb, storetest.Before, -1)
				began := time.Now()
				_, err := over(t, m).Do(bg, theKey, func(ctx context.Context) (int, error) { return 1, idemflight.BeginEffect(ctx) })
				require.ErrorIs(t, err, idemflight.ErrStore)
				require.Equal(t, upTo, time.Since(began))
			})
		})
	}
}

func TestPromise29_ARepeatedSettleIsTheOutcomeThatWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		m.Fail("Settle", storetest.After, 1)
		_, err := over(t, m).Do(bg, theKey, returns(3, idemflight.Final(errBoom)))
		require.Equal(t, errBoom, err, "fn's own")
	})
}

// The outcome is recorded, though the leader's context has ended.
func TestPromise29_TheOutcomeOfWhoseContextHasEndedIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		ctx, cancel := context.WithCancel(bg)
		v, err := a.Do(ctx, theKey, func(context.Context) (int, error) {
			cancel()
			return 7, nil
		}, idemflight.Inline())
		require.NoError(t, err)
		require.Equal(t, 7, v)
		require.Equal(t, 7, must(b.Do(bg, theKey, mustNotRun(t))))
	})
}

func TestPromise30_ALeaseThatIsNotRenewedEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		m.Fail("Renew", storetest.Before, -1)
		a, b := over(t, m, announced), over(t, m, announced)
		fn, runs, release := blocked(1, nil)
		late := start(a, bg, fn)
		<-runs
		began := time.Now()
		require.Equal(t, 2, must(b.Do(bg, theKey, returns(2, nil))), "it has watched")
		require.Equal(t, 30*time.Second, time.Since(began))
		close(release)
		require.ErrorIs(t, (<-late).err, idemflight.ErrClaimLost)
	})
}

// renewals is a Memory that notes which keys were renewed.
type renewals struct {
	*storetest.Memory
	mu sync.Mutex
	of [][]string
}

func (r *renewals) Renew(ctx context.Context, cs []idemflight.Claim, lease time.Duration) ([]idemflight.ClaimID, error) {
	var keys []string
	for _, c := range cs {
		keys = append(keys, c.Key)
	}
	slices.Sort(keys)
	r.mu.Lock()
	r.of = append(r.of, keys)
	r.mu.Unlock()
	return r.Memory.Renew(ctx, cs, lease)
}

func (r *renewals) seen() [][]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.of)
}

func TestPromise30_OneCallRenewsAllThatRunLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &renewals{Memory: storetest.Mem()}
		a := over(t, m)
		release := make(chan struct{})
		var calls sync.WaitGroup
		run := func(key string) {
			calls.Go(func() {
				_, err := a.Do(bg, key, func(context.Context) (int, error) { <-release; return 1, nil })
				require.NoError(t, err)
			})
		}
		run("a")
		run("b")
		time.Sleep(5 * time.Second)
		run("younger")
		time.Sleep(6 * time.Second)
		synctest.Wait()
		require.Equal(t, [][]string{{"a", "b"}}, m.seen())
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, [][]string{{"a", "b"}, {"a", "b", "younger"}}, m.seen())
		close(release)
		calls.Wait()
	})
}

func TestPromise30_WhoKnowsThatItWasReplacedAsksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m, announced), over(t, m, announced)
		var last context.Context
		late := slow(t, m, a, func(ctx context.Context) (int, error) {
			last = ctx
			<-ctx.Done()
			m.Fail("Begin", storetest.Before, -1)
			require.ErrorIs(t, idemflight.BeginEffect(ctx), idemflight.ErrClaimLost)
			require.Zero(t, m.Asked("Begin"))
			_, _, err := idemflight.Settling(ctx, 1, nil)
			require.ErrorIs(t, err, idemflight.ErrClaimLost)
			return 0, err
		})
		require.Equal(t, 2, must(b.Do(bg, theKey, returns(2, nil))))
		got := <-late
		require.ErrorIs(t, got.err, idemflight.ErrClaimLost)
		require.NotErrorIs(t, got.err, idemflight.ErrOutcomeUnknown, "nothing has begun")
		require.ErrorIs(t, idemflight.BeginEffect(last), idemflight.ErrClaimLost, "fn has returned, and that is still why")
	})
}

func TestPromise30_EachRequestHasAnIDOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m, announced), over(t, m, announced)
		fn, _, release := blocked(0, idemflight.Retryable(errBoom))
		late := slow(t, m, a, fn)
		asked := map[idemflight.ClaimID]int{}
		m.Hook(func(_ context.Context, when storetest.When, verb string, c idemflight.Claim) error {
			if verb == "Claim" && when == storetest.Before {
				asked[c.ID]++
			}
			return nil
		})
		require.Equal(t, 2, must(b.Do(bg, theKey, returns(2, nil))))
		require.Len(t, asked, 2, "what is in the way, and the takeover")
		close(release)
		<-late
	})
}

func TestPromise31_ATakeoverBringsItsOwnPayload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m, announced), over(t, m, announced)
		fn, _, release := blocked(0, idemflight.Retryable(errBoom))
		late := slow(t, m, a, fn)
		require.Equal(t, 2, must(b.Do(bg, theKey, returns(2, nil), payload)))
		close(release)
		<-late
		_, err := over(t, m).Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrKeyReused)
		require.Equal(t, 2, must(over(t, m).Do(bg, theKey, mustNotRun(t), payload)))
	})
}

func TestPromise31_TheHoldOfADeadOwnerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		m.Fail("Renew", storetest.Before, -1)
		a, b := over(t, m, func(o *options) { o.HoldTTL = time.Hour }), over(t, m)
		fn, _, release := blocked(1, nil)
		late := slow(t, m, a, fn)
		time.Sleep(time.Hour - time.Nanosecond)
		_, err := b.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		time.Sleep(time.Nanosecond)
		require.Equal(t, 2, must(b.Do(bg, theKey, returns(2, nil))))
		close(release)
		require.ErrorIs(t, (<-late).err, idemflight.ErrClaimLost)
	})
}

func TestPromise31_WhoIsSlowAndWasNotReplacedGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		m.Fail("Renew", storetest.Before, -1)
		a, b := over(t, m, func(o *options) { o.ExecTimeout = time.Hour }), over(t, m)
		late := start(a, bg, func(ctx context.Context) (int, error) {
			time.Sleep(40 * time.Second)
			require.NoError(t, idemflight.BeginEffect(ctx))
			time.Sleep(40 * time.Second)
			return 7, nil
		})
		for range 2 {
			time.Sleep(37 * time.Second)
			_, err := b.Do(bg, theKey, mustNotRun(t))
			require.ErrorIs(t, err, idemflight.ErrInterrupted)
		}
		require.NoError(t, (<-late).err)
		require.Equal(t, 7, must(b.Do(bg, theKey, mustNotRun(t))), "held becomes retained")
	})
}

func TestPromise34_EachBeginEffectAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		_, err := over(t, m).Do(bg, theKey, func(ctx context.Context) (int, error) {
			for range 3 {
				require.NoError(t, idemflight.BeginEffect(ctx))
			}
			return 7, nil
		})
		require.NoError(t, err)
		require.Equal(t, 3, m.Asked("Begin"))
	})
}

// BeginEffect with a context that does not end with fn's says so too, and does not ask.
func TestPromise30_BeginEffectOfALostClaimWithADetachedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		late, b := over(t, m, announced), over(t, m, announced)
		ids := firstClaim(m)
		var begun error
		asked := 0
		answered := start(late, bg, func(ctx context.Context) (int, error) {
			<-ctx.Done() // with a heartbeat, since it was replaced
			asked = m.Asked("Begin")
			begun = idemflight.BeginEffect(context.WithoutCancel(ctx))
			return 0, begun
		})
		id := <-ids
		synctest.Wait()
		require.True(t, m.Kill(id))
		require.Equal(t, 2, must(b.Do(bg, theKey, returns(2, nil))))
		got := <-answered
		require.ErrorIs(t, begun, idemflight.ErrClaimLost)
		require.ErrorIs(t, got.err, idemflight.ErrClaimLost)
		require.NotErrorIs(t, got.err, idemflight.ErrOutcomeUnknown, "nothing had begun")
		require.Equal(t, asked, m.Asked("Begin"))
	})
}
