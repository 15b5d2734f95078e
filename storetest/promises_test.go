package storetest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// The promises 28 to 44, of a cache over a Store: two caches over one Memory are two processes.

type (
	cache   = idemflight.Cache[string, int]
	options = idemflight.Options[string, int]
)

var (
	bg      = context.Background()
	errBoom = errors.New("boom")
)

const theKey = "key"

// over returns a cache over m, as another process would have it.
func over(t *testing.T, m idemflight.Store, change ...func(*options)) *cache {
	t.Helper()
	o := options{Store: m, Lease: 30 * time.Second}
	for _, change := range change {
		change(&o)
	}
	return idemflight.MustNew(o)
}

func announced(o *options) { o.EffectsAnnounced = true }

func always(o *options) { o.LocalTTL = -1 }

func returns(v int, err error) func(context.Context) (int, error) {
	return func(context.Context) (int, error) { return v, err }
}

func mustNotRun(t *testing.T) func(context.Context) (int, error) {
	return func(context.Context) (int, error) {
		t.Error("fn runs")
		return 0, nil
	}
}

// counted returns an fn that counts its runs and returns v.
func counted(n *atomic.Int64, v int) func(context.Context) (int, error) {
	return func(context.Context) (int, error) {
		n.Add(1)
		return v, nil
	}
}

// blocked returns an fn that tells that it runs, and then waits for release.
func blocked(v int, err error) (fn func(context.Context) (int, error), runs, release chan struct{}) {
	runs, release = make(chan struct{}), make(chan struct{})
	return func(context.Context) (int, error) {
		close(runs)
		<-release
		return v, err
	}, runs, release
}

type answer struct {
	res idemflight.Result[int]
	err error
}

// start calls DoResult on a goroutine of its own.
func start(c *cache, ctx context.Context, fn func(context.Context) (int, error), opts ...idemflight.CallOption) <-chan answer {
	answered := make(chan answer, 1)
	go func() {
		res, err := c.DoResult(ctx, theKey, fn, opts...)
		answered <- answer{res, err}
	}()
	return answered
}

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

func must(v int, err error) int {
	if err != nil {
		panic(err)
	}
	return v
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
				runs, die := make(chan idemflight.ClaimID, 1), make(chan struct{})
				m.Hook(func(_ context.Context, when storetest.When, verb string, c idemflight.Claim) error {
					if verb == "Claim" && when == storetest.After {
						select {
						case runs <- c.ID:
						default:
						}
					}
					return nil
				})
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

func TestPromise30_WhoWasReplacedNeitherBeginsNorSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		late, b := over(t, m, announced), over(t, m, announced)
		ids := make(chan idemflight.ClaimID, 1)
		m.Hook(func(_ context.Context, when storetest.When, verb string, c idemflight.Claim) error {
			if verb == "Claim" && when == storetest.After {
				select {
				case ids <- c.ID:
				default:
				}
			}
			return nil
		})
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

func TestPromise35_AWatchIsAJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		fn, runs, release := blocked(7, nil)
		led := start(a, bg, fn)
		<-runs
		first := start(b, bg, mustNotRun(t))
		synctest.Wait()
		second := start(b, bg, mustNotRun(t))
		other := start(b, bg, mustNotRun(t), idemflight.WithFingerprint(idemflight.FingerprintOf([]byte("x"))))
		notWaited := start(b, bg, mustNotRun(t), idemflight.WithMaxWait(idemflight.NoWait))
		waited := start(b, bg, mustNotRun(t), idemflight.WithMaxWait(time.Second))
		ctx, cancel := context.WithCancel(bg)
		left := start(b, ctx, mustNotRun(t))
		synctest.Wait()
		require.ErrorIs(t, (<-other).err, idemflight.ErrKeyReused, "at once")
		require.ErrorIs(t, (<-notWaited).err, idemflight.ErrInFlight, "at once")
		require.ErrorIs(t, (<-waited).err, idemflight.ErrInFlight)
		cancel()
		require.ErrorIs(t, (<-left).err, idemflight.ErrCallerLeft)
		close(release)
		require.Equal(t, idemflight.Executed, (<-led).res.Source)
		for _, answered := range []<-chan answer{first, second} {
			got := <-answered
			require.NoError(t, got.err)
			require.Equal(t, 7, got.res.Value)
			require.Equal(t, idemflight.Joined, got.res.Source)
		}
		s := b.Stats()
		require.EqualValues(t, [...]uint64{2, 1, 2, 1, 0}, [...]uint64{s.Joined, s.KeyReused, s.NotWaited, s.CallerLeft, s.Executed})
		require.Zero(t, s.InFlight+s.Waiters)
	})
}

func TestPromise35_TheFirstOfItsProcessMayNotWaitEither(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		fn, runs, release := blocked(7, nil)
		led := start(a, bg, fn)
		<-runs
		_, err := b.Do(bg, theKey, mustNotRun(t), idemflight.WithMaxWait(idemflight.NoWait))
		require.ErrorIs(t, err, idemflight.ErrInFlight)
		_, err = b.Do(bg, theKey, mustNotRun(t), idemflight.WithMaxWait(time.Second), idemflight.Inline())
		require.ErrorIs(t, err, idemflight.ErrInFlight)
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		_, err = b.Do(ctx, theKey, mustNotRun(t), idemflight.Inline())
		require.ErrorIs(t, err, idemflight.ErrCallerLeft)
		synctest.Wait()
		require.Zero(t, b.Stats().InFlight, "nobody waits: the watch has ended")
		close(release)
		<-led
	})
}

func TestPromise35_AfterAReleaseOneWhoWatchedLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		fn, runs, release := blocked(0, idemflight.Retryable(errBoom))
		led := start(a, bg, fn)
		<-runs
		var n atomic.Int64
		ctx, cancel := context.WithCancel(bg)
		left := start(b, ctx, mustNotRun(t))
		synctest.Wait()
		var watch []<-chan answer
		for range 5 {
			watch = append(watch, start(b, bg, counted(&n, 9)))
		}
		synctest.Wait()
		cancel()
		require.ErrorIs(t, (<-left).err, idemflight.ErrCallerLeft)
		close(release)
		require.Equal(t, errBoom, (<-led).err)
		for _, answered := range watch {
			got := <-answered
			require.NoError(t, got.err)
			require.Equal(t, 9, got.res.Value)
		}
		require.EqualValues(t, 1, n.Load())
	})
}

func TestPromise36_AnotherPayloadWaitsForTheStoresAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		x := idemflight.WithFingerprint(idemflight.FingerprintOf([]byte("x")))
		require.Equal(t, 7, must(over(t, m).Do(bg, theKey, returns(7, nil), x)))
		a := over(t, m)
		asking := make(chan struct{})
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Claim" && when == storetest.Before {
				<-asking
			}
			return nil
		})
		reused := start(a, bg, mustNotRun(t))
		synctest.Wait()
		replays := start(a, bg, mustNotRun(t), x)
		ctx, cancel := context.WithCancel(bg)
		left := start(a, ctx, mustNotRun(t), x)
		synctest.Wait()
		require.Empty(t, replays, "the flight may turn out to be none")
		cancel()
		require.ErrorIs(t, (<-left).err, idemflight.ErrKeyReused, "a flight whose payload differs is in the way")
		close(asking)
		require.ErrorIs(t, (<-reused).err, idemflight.ErrKeyReused)
		got := <-replays
		require.NoError(t, got.err)
		require.Equal(t, idemflight.Replayed, got.res.Source)
	})
}

func TestPromise37_WhatWasReleasedOnlyJoinedCallersOfTheProcessAreTold(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		opts []idemflight.CallOption
	}{
		"released": {err: idemflight.Retryable(errBoom)}, "TTL 0": {opts: []idemflight.CallOption{idemflight.WithTTL(0)}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := storetest.Mem()
				a, b := over(t, m), over(t, m)
				fn, runs, release := blocked(7, tc.err)
				led := start(a, bg, fn, tc.opts...)
				<-runs
				joined := start(a, bg, mustNotRun(t))
				elsewhere := start(b, bg, returns(8, nil))
				synctest.Wait()
				close(release)
				first := <-led
				got := <-joined
				require.Equal(t, first.err, got.err)
				require.Equal(t, 7, got.res.Value)
				require.Equal(t, 8, (<-elsewhere).res.Value, "it looks again, and leads")
			})
		})
	}
}

func TestPromise38_WithoutTheStoreFnDoesNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		var told atomic.Int64
		a := over(t, m, func(o *options) {
			o.Observer = func(_ context.Context, e idemflight.Event[string]) {
				if e.Kind == idemflight.EventStore {
					told.Add(1)
				}
			}
		})
		require.Equal(t, 1, must(a.Do(bg, "kept", returns(1, nil))))
		m.Fail("Claim", storetest.Before, 1<<30)
		_, err := a.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrStore)
		require.NotErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		s := a.Stats()
		require.EqualValues(t, 1, s.StoreFailed)
		require.NotZero(t, s.StoreErrors)
		require.EqualValues(t, s.StoreErrors, told.Load())
		require.Zero(t, s.InFlight)
		require.Equal(t, 1, must(a.Do(bg, "kept", mustNotRun(t))), "what is in memory is replayed")
		m.Fail("Claim", storetest.Before, 0)
		require.Equal(t, 2, must(a.Do(bg, theKey, returns(2, nil))))
		time.Sleep(time.Minute) // and no heartbeat is left
	})
}

func TestPromise38_AClaimWithoutAnAnswerIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		m.Fail("Claim", storetest.After, 1<<30)
		_, err := a.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrStore)
		m.Fail("Claim", storetest.After, 0)
		m.Fail("GiveBack", storetest.Before, 1)
		for range 2 {
			_, err = b.Do(bg, theKey, mustNotRun(t), idemflight.WithMaxWait(idemflight.NoWait))
			require.ErrorIs(t, err, idemflight.ErrInFlight, "an orphan")
			time.Sleep(10*time.Second + time.Nanosecond)
		}
		require.Equal(t, 2, must(b.Do(bg, theKey, returns(2, nil))), "the heartbeat has given it back")
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

func TestPromise38_BeginEffectIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		m.Fail("Begin", storetest.Before, 1<<30)
		_, err := a.Do(bg, theKey, func(ctx context.Context) (int, error) {
			err := idemflight.BeginEffect(ctx)
			require.ErrorIs(t, err, idemflight.ErrStore)
			return 0, err
		})
		require.ErrorIs(t, err, idemflight.ErrStore)
		require.NotErrorIs(t, err, idemflight.ErrOutcomeUnknown, "nothing has begun")
		m.Fail("Begin", storetest.Before, 0)
		require.Equal(t, 2, must(over(t, m).Do(bg, theKey, returns(2, nil))), "released")
	})
}

func TestPromise38_WhatTheStoreDidNotTakeIsHeldAndOfferedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		m.Fail("Settle", storetest.Before, 1<<30)
		v, err := a.Do(bg, theKey, returns(7, nil))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.ErrorIs(t, err, idemflight.ErrStore)
		require.ErrorContains(t, err, "its outcome was not recorded by the store")
		require.Equal(t, 7, v)
		_, err = a.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "its own later calls")
		require.ErrorIs(t, err, idemflight.ErrStore)
		_, err = a.Do(bg, theKey, mustNotRun(t), idemflight.WithFingerprint(idemflight.FingerprintOf([]byte("x"))))
		require.ErrorIs(t, err, idemflight.ErrKeyReused)
		time.Sleep(time.Minute)
		_, err = b.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "the lease has ended")
		m.Fail("Settle", storetest.Before, 0)
		time.Sleep(time.Minute)
		require.Equal(t, 7, must(b.Do(bg, theKey, mustNotRun(t))))
		require.Equal(t, 7, must(a.Do(bg, theKey, mustNotRun(t))))
	})
}

func TestPromise39_TheEnginesOutcomeCounts(t *testing.T) {
	for _, committed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			m := storetest.Mem()
			a := over(t, m)
			ctx, cancel := context.WithCancel(bg)
			defer cancel()
			v, err := a.Do(ctx, theKey, func(ctx context.Context) (int, error) {
				c, s, err := idemflight.Settling(ctx, 7, nil)
				require.NoError(t, err)
				if committed {
					_, err = m.Settle(ctx, c, s)
					require.NoError(t, err)
				}
				return 0, errors.New("the answer to the commit was lost")
			})
			if !committed {
				require.EqualError(t, err, "the answer to the commit was lost")
				require.Equal(t, 5, must(over(t, m).Do(bg, theKey, returns(5, nil))), "released: it did nothing")
				return
			}
			require.NoError(t, err)
			require.Equal(t, 7, v)
			require.Equal(t, 7, must(over(t, m).Do(bg, theKey, mustNotRun(t))))
		})
	}
}

func TestPromise39_SettlingWantsWhatCanBeKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, err := idemflight.Settling(bg, 7, nil)
		require.ErrorIs(t, err, idemflight.ErrNotExecuting)
		_, err = idemflight.MustNew(options{}).Do(bg, theKey, func(ctx context.Context) (int, error) {
			_, _, err := idemflight.Settling(ctx, 7, nil)
			return 0, idemflight.Retryable(err)
		})
		require.ErrorIs(t, err, idemflight.ErrNotExecuting)
		a := over(t, storetest.Mem())
		_, err = a.Do(bg, theKey, func(ctx context.Context) (int, error) {
			_, _, err := idemflight.Settling(ctx, "text", nil)
			require.ErrorContains(t, err, "a value of type string, and the cache has int")
			_, _, err = idemflight.Settling(ctx, 7, errBoom)
			require.ErrorContains(t, err, "must be nil or Final(err)")
			_, s, err := idemflight.Settling(ctx, 7, idemflight.Final(errBoom))
			require.NoError(t, err)
			require.Equal(t, idemflight.Settlement{Disposition: idemflight.Retain, Value: []byte("7"), Err: []byte("\nboom"), TTL: 24 * time.Hour}, s)
			return 0, errBoom
		})
		require.Equal(t, errBoom, err, "Settling counts as NoEffect at the top")
	})
}

// However long the answer is under way, a copy ends before the record.
func TestPromise40_ACopyNeverOutlivesItsRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		brief := idemflight.WithTTL(10 * time.Second)
		require.Equal(t, 7, must(over(t, m).Do(bg, theKey, returns(7, nil), brief)))
		b := over(t, m)
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Claim" && when == storetest.After {
				time.Sleep(4 * time.Second)
			}
			return nil
		})
		require.Equal(t, 7, must(b.Do(bg, theKey, mustNotRun(t))))
		time.Sleep(6*time.Second - time.Nanosecond)
		require.Equal(t, 1, b.Len())
		time.Sleep(time.Nanosecond)
		require.Zero(t, b.Len())
		m.Hook(nil)
		require.Equal(t, 8, must(b.Do(bg, theKey, returns(8, nil))))
	})
}

func TestPromise41_TheLocalCopyEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		require.Equal(t, 7, must(a.Do(bg, theKey, returns(7, nil))))
		require.Equal(t, 7, must(b.Do(bg, theKey, mustNotRun(t))))
		was, err := a.Forget(bg, theKey)
		require.True(t, was && err == nil)
		require.Equal(t, 7, must(b.Do(bg, theKey, mustNotRun(t))), "for up to LocalTTL")
		time.Sleep(time.Minute)
		require.Equal(t, 8, must(b.Do(bg, theKey, returns(8, nil))))
		eager := over(t, m, always)
		require.Equal(t, 8, must(eager.Do(bg, theKey, mustNotRun(t))))
		_, err = a.Forget(bg, theKey)
		require.NoError(t, err)
		require.Equal(t, 9, must(eager.Do(bg, theKey, returns(9, nil))), "it always asks")
		require.Zero(t, eager.Len())
	})
}

func TestPromise42_MemoryHoldsCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m, func(o *options) {
			o.MaxEntries, o.MaxWeight, o.Weigh = 4, 5, func(string, int) int64 { return 2 }
			o.Observer = func(_ context.Context, e idemflight.Event[string]) {
				require.NotContains(t, []idemflight.EventKind{idemflight.EventEvicted, idemflight.EventShed, idemflight.EventExpired}, e.Kind)
			}
		})
		for i := range 100 {
			require.Equal(t, i, must(a.Do(bg, string(rune('a'+i)), returns(i, nil))))
			require.LessOrEqual(t, a.Len(), 2)
			require.LessOrEqual(t, a.Stats().Weight, int64(5))
		}
		for i := range 100 {
			require.Equal(t, i, must(a.Do(bg, string(rune('a'+i)), mustNotRun(t))))
		}
		var flying []<-chan answer
		release := make(chan struct{})
		for i := range 4 {
			answered := make(chan answer, 1)
			go func() {
				v, err := a.Do(bg, "flies "+string(rune('a'+i)), func(context.Context) (int, error) { <-release; return i, nil })
				answered <- answer{idemflight.Result[int]{Value: v}, err}
			}()
			flying = append(flying, answered)
		}
		synctest.Wait()
		_, err := a.Do(bg, "one too many", mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrFull)
		close(release)
		for _, answered := range flying {
			require.NoError(t, (<-answered).err)
		}
	})
}

func TestPromise43_OperatorsActOnTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		_, err := a.Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		_, err = b.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.ErrorContains(t, err, "fn did not say whether an effect had begun")
		require.ErrorContains(t, err, "boom")
		e, ok, err := b.Lookup(bg, theKey)
		require.True(t, ok && err == nil)
		require.Equal(t, idemflight.Held, e.State)
		require.EqualError(t, e.Err, "boom")
		var seen []string
		require.NoError(t, b.Unsettled(bg, func(key string, e idemflight.Entry[int]) bool {
			seen = append(seen, key+" "+e.State.String())
			return true
		}))
		require.Equal(t, []string{"key held"}, seen)
		require.Error(t, b.Resolve(bg, theKey, 1, errBoom), "still unknown")
		require.NoError(t, b.Resolve(bg, theKey, 4, nil))
		require.ErrorIs(t, a.Resolve(bg, theKey, 5, nil), idemflight.ErrNotHeld)
		require.Equal(t, 4, must(a.Do(bg, theKey, mustNotRun(t))))
		was, err := a.Forget(bg, theKey)
		require.True(t, was && err == nil)
		was, err = a.Forget(bg, theKey)
		require.False(t, was)
		require.NoError(t, err)
		_, ok, err = b.Lookup(bg, theKey)
		require.False(t, ok)
		require.NoError(t, err)
		m.Fail("Read", storetest.Before, 1<<30)
		_, _, err = b.Lookup(bg, theKey)
		require.ErrorIs(t, err, idemflight.ErrStore)
		require.ErrorIs(t, b.Resolve(bg, theKey, 1, nil), idemflight.ErrStore)
		_, err = b.Forget(bg, theKey)
		require.ErrorIs(t, err, idemflight.ErrStore)
	})
}

func TestPromise43_ReconcileOfCallsAndOperators(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		var find func() (int, error)
		var asked atomic.Int64
		with := func(o *options) {
			o.Reconcile = func(_ context.Context, key string, held idemflight.Entry[int]) (int, error) {
				asked.Add(1)
				require.Equal(t, theKey, key)
				require.Equal(t, idemflight.Held, held.State)
				require.EqualError(t, held.Err, "boom")
				return find()
			}
		}
		a, b := over(t, m, with, always), over(t, m, with, always)
		_, err := a.Reconcile(bg, theKey)
		require.ErrorIs(t, err, idemflight.ErrNotHeld)
		_, err = a.Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)

		find = func() (int, error) { return 0, errors.New("bank is down") }
		for range 3 { // one asks, the others pause
			_, err = b.Do(bg, theKey, mustNotRun(t))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			require.ErrorContains(t, err, "Reconcile learned nothing: bank is down")
		}
		require.EqualValues(t, 1, asked.Load())
		e, err := b.Reconcile(bg, theKey) // an operator does not
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.Equal(t, idemflight.Held, e.State)
		require.EqualError(t, e.Err, "boom", "held as it was")
		require.EqualValues(t, 2, asked.Load())
		time.Sleep(time.Second)

		find = func() (int, error) { return 6, nil }
		res, err := b.DoResult(bg, theKey, mustNotRun(t))
		require.NoError(t, err)
		require.Equal(t, 6, res.Value)
		require.Equal(t, idemflight.Reconciled, res.Source)
		require.Equal(t, 6, must(a.Do(bg, theKey, mustNotRun(t))))
		require.EqualValues(t, 3, asked.Load())

		_, err = a.Forget(bg, theKey)
		require.NoError(t, err)
		_, err = a.Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		find = func() (int, error) { return 0, idemflight.Retryable(errBoom) }
		e, err = a.Reconcile(bg, theKey)
		require.NoError(t, err)
		require.Equal(t, idemflight.Absent, e.State)
		require.Equal(t, 3, must(a.Do(bg, theKey, returns(3, nil))))

		_, err = a.Forget(bg, theKey)
		require.NoError(t, err)
		_, err = a.Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		begins := m.Asked("Begin")
		require.Equal(t, 4, must(b.Do(bg, theKey, returns(4, nil))), "fn follows")
		require.Equal(t, begins+1, m.Asked("Begin"), "what follows Reconcile is begun")
		for _, c := range []*cache{a, b} {
			require.Zero(t, c.Stats().InFlight)
		}
	})
}

func TestPromise43_RestoreWritesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := idemflight.MustNew(options{})
		require.Equal(t, 7, must(old.Do(bg, theKey, returns(7, nil))))
		_, err := old.Do(bg, "held", returns(0, errBoom))
		require.Error(t, err)
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		for key, e := range old.All() {
			require.NoError(t, a.Restore(bg, key, e))
			require.Error(t, a.Restore(bg, key, e), "twice")
		}
		require.Equal(t, 7, must(b.Do(bg, theKey, mustNotRun(t))))
		_, err = b.Do(bg, "held", mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.ErrorContains(t, err, "boom")
		require.ErrorContains(t, a.Save(io.Discard), "Save of a cache with a Store")
	})
}

func TestPromise44_CloseWaitsForExecutionsHereAndNotElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		fn, runs, release := blocked(7, nil)
		led := start(a, bg, fn)
		<-runs
		watches := start(b, bg, mustNotRun(t))
		synctest.Wait()
		require.NoError(t, b.Close(bg), "nothing runs there")
		closed := make(chan error, 1)
		go func() { closed <- a.Close(bg) }()
		synctest.Wait()
		require.Empty(t, closed)
		close(release)
		require.NoError(t, <-closed)
		require.NoError(t, (<-led).err)
		require.NoError(t, (<-watches).err, "joins go on")
		_, err := a.Do(bg, "new", mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrClosed)
	})
}

// slow calls c for theKey, and ends the lease once fn, or Reconcile, waits: the owner is thought dead.
func slow(t *testing.T, m *storetest.Memory, c *cache, fn func(context.Context) (int, error)) <-chan answer {
	t.Helper()
	var last idemflight.ClaimID
	m.Hook(func(_ context.Context, when storetest.When, verb string, c idemflight.Claim) error {
		if verb == "Claim" && when == storetest.After {
			last = c.ID
		}
		return nil
	})
	answered := start(c, bg, fn)
	synctest.Wait()
	m.Hook(nil)
	require.True(t, m.Kill(last))
	return answered
}

var payload = idemflight.WithFingerprint(idemflight.FingerprintOf([]byte("payload")))

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
		late := slow(t, m, a, func(ctx context.Context) (int, error) {
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

func TestPromise35_AWatchEndsWithAHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		fn, runs, release := blocked(0, errBoom)
		led := start(a, bg, fn)
		<-runs
		watches := start(b, bg, mustNotRun(t))
		synctest.Wait()
		close(release)
		require.ErrorIs(t, (<-led).err, idemflight.ErrOutcomeUnknown)
		require.ErrorIs(t, (<-watches).err, idemflight.ErrOutcomeUnknown)
	})
}

// The key is released, and another process is quicker, with another payload.
func TestPromise35_AWatchTellsNoOutcomeOfAnotherPayload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b, quicker := over(t, m), over(t, m), over(t, m)
		fn, runs, release := blocked(0, idemflight.Retryable(errBoom))
		led := start(a, bg, fn)
		<-runs
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Watch" && when == storetest.After {
				m.Hook(nil)
				require.Equal(t, 9, must(quicker.Do(bg, theKey, returns(9, nil), payload)))
			}
			return nil
		})
		watches := start(b, bg, mustNotRun(t))
		synctest.Wait()
		close(release)
		require.Equal(t, errBoom, (<-led).err)
		require.ErrorIs(t, (<-watches).err, idemflight.ErrKeyReused)
	})
}

func TestPromise35_AWatchThatFailsGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		m.Fail("Watch", storetest.Before, 5)
		a, b := over(t, m), over(t, m)
		fn, runs, release := blocked(7, nil)
		led := start(a, bg, fn)
		<-runs
		watches := start(b, bg, mustNotRun(t))
		time.Sleep(10 * time.Second)
		close(release)
		require.NoError(t, (<-led).err)
		require.Equal(t, 7, (<-watches).res.Value)
		require.EqualValues(t, 5, b.Stats().StoreErrors)
	})
}

func TestPromise36_OnceFnRunsAnotherPayloadIsReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		asking := make(chan struct{})
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Claim" && when == storetest.Before {
				<-asking
			}
			return nil
		})
		ctx, cancel := context.WithCancel(bg)
		defer cancel()
		fn, runs, release := blocked(7, nil)
		led := start(a, ctx, fn)
		synctest.Wait()
		reused := start(a, bg, mustNotRun(t), payload)
		synctest.Wait()
		close(asking)
		<-runs
		require.ErrorIs(t, (<-reused).err, idemflight.ErrKeyReused, "at once")
		close(release)
		require.NoError(t, (<-led).err)
	})
}

func TestPromise38_AKeyThatTheStoreDoesNotTakeIsInvalid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		m.Hook(func(context.Context, storetest.When, string, idemflight.Claim) error {
			return fmt.Errorf("%w: too long", idemflight.ErrInvalidKey)
		})
		_, err := a.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrInvalidKey)
		require.NotErrorIs(t, err, idemflight.ErrStore)
		require.Equal(t, 1, m.Asked("Claim"), "it is an answer")
		require.EqualValues(t, 1, a.Stats().InvalidKey)
	})
}

func TestPromise38_BeginEffectWaitsNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		m.Fail("Begin", storetest.Before, -1)
		_, err := over(t, m).Do(bg, theKey, func(ctx context.Context) (int, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			began := time.Now()
			err := idemflight.BeginEffect(ctx)
			require.Equal(t, time.Second, time.Since(began))
			return 0, err
		})
		require.ErrorIs(t, err, idemflight.ErrStore)
	})
}

// inconsistent is a store that grants nothing of what it says is absent.
type inconsistent struct{ *storetest.Memory }

func (inconsistent) Claim(context.Context, idemflight.ClaimRequest) (idemflight.Standing, error) {
	return idemflight.Standing{}, nil
}

func TestPromise38_AStoreThatContradictsItselfStrandsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := over(t, inconsistent{storetest.Mem()}).Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrStore)
	})
}

func TestPromise38_WhatCannotBeReadDoesNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		texts := idemflight.MustNew(idemflight.Options[string, string]{Store: m})
		_, err := texts.Do(bg, theKey, func(context.Context) (string, error) { return "text", nil })
		require.NoError(t, err)
		_, err = over(t, m).Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrStore)
	})
}

func TestPromise38_WhatCannotBeEncoded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m, func(o *options) {
			o.Codec.EncodeKey = func(key string) (string, error) {
				if key != theKey {
					return "", errBoom
				}
				return key, nil
			}
			o.Codec.DecodeKey = func(key string) (string, error) { return key, nil }
			o.Codec.EncodeValue = func(int) ([]byte, error) { return nil, errBoom }
			o.Codec.DecodeValue = func([]byte) (int, error) { return 0, nil }
		}), over(t, m)
		v, err := a.Do(bg, theKey, returns(7, nil))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "its effect is done")
		require.ErrorIs(t, err, errBoom)
		require.Equal(t, 7, v)
		_, err = b.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		_, err = a.Do(bg, "another", mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrInvalidKey)
		require.ErrorIs(t, err, errBoom)
	})
}

func TestPromise38_WhatWasLostIsUnknownUnlessNothingHadBegun(t *testing.T) {
	settles := func(ctx context.Context) error {
		_, _, err := idemflight.Settling(ctx, 1, nil)
		return err
	}
	for name, tc := range map[string]struct {
		does            func(context.Context) error
		returns         error
		begins, unknown bool
	}{
		"nothing begun":                  {does: func(context.Context) error { return nil }, returns: errBoom},
		"begun":                          {does: idemflight.BeginEffect, returns: errBoom, begins: true, unknown: true},
		"perhaps settled":                {does: settles, returns: errBoom, unknown: true},
		"not settled, the store says so": {does: settles, returns: idemflight.ErrClaimLost},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := storetest.Mem()
				a, b := over(t, m, announced), over(t, m, announced)
				wakes := make(chan struct{})
				late := slow(t, m, a, func(ctx context.Context) (int, error) {
					require.NoError(t, tc.does(ctx))
					<-wakes
					return 0, idemflight.Retryable(tc.returns)
				})
				if tc.begins {
					require.NoError(t, b.Resolve(bg, theKey, 2, nil))
				} else {
					require.Equal(t, 2, must(b.Do(bg, theKey, returns(2, nil))))
				}
				close(wakes)
				got := <-late
				require.ErrorIs(t, got.err, tc.returns)
				require.Equal(t, tc.unknown, errors.Is(got.err, idemflight.ErrOutcomeUnknown))
				if tc.unknown {
					require.ErrorIs(t, got.err, idemflight.ErrClaimLost)
				}
			})
		})
	}
}

// Its transaction has closed the claim: the heartbeat finds it lost.
func TestPromise39_WhoHasSettledIsNotStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		var last context.Context
		v, err := over(t, m).Do(bg, theKey, func(ctx context.Context) (int, error) {
			last = ctx
			c, s, err := idemflight.Settling(ctx, 7, nil)
			require.NoError(t, err)
			_, err = m.Settle(ctx, c, s)
			require.NoError(t, err)
			select {
			case <-ctx.Done():
				t.Error(context.Cause(ctx))
			case <-time.After(20 * time.Second):
			}
			return 0, errBoom
		})
		require.NoError(t, err)
		require.Equal(t, 7, v)
		_, _, err = idemflight.Settling(last, 7, nil)
		require.ErrorIs(t, err, idemflight.ErrNotExecuting, "fn has returned")
	})
}

func TestPromise40_NorDoesTheOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Settle" && when == storetest.After {
				time.Sleep(4 * time.Second)
			}
			return nil
		})
		require.Equal(t, 7, must(a.Do(bg, theKey, returns(7, nil), idemflight.WithTTL(10*time.Second))))
		time.Sleep(6*time.Second - time.Nanosecond)
		require.Equal(t, 1, a.Len())
		time.Sleep(time.Nanosecond)
		require.Zero(t, a.Len())
	})
}

func TestPromise40_NorDoesThatOfAWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		fn, runs, release := blocked(7, nil)
		led := start(a, bg, fn, idemflight.WithTTL(10*time.Second))
		<-runs
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Read" && when == storetest.After {
				time.Sleep(4 * time.Second)
			}
			return nil
		})
		watches := start(b, bg, mustNotRun(t))
		synctest.Wait()
		close(release)
		require.NoError(t, (<-led).err)
		require.Equal(t, 7, (<-watches).res.Value)
		time.Sleep(6*time.Second - time.Nanosecond)
		require.Equal(t, 1, b.Len())
		time.Sleep(time.Nanosecond)
		require.Zero(t, b.Len())
	})
}

func TestPromise41_TheOwnersCopyEndsAsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		require.Equal(t, 7, must(a.Do(bg, theKey, returns(7, nil))))
		was, err := b.Forget(bg, theKey)
		require.True(t, was && err == nil)
		require.Equal(t, 7, must(a.Do(bg, theKey, mustNotRun(t))), "for up to LocalTTL")
		time.Sleep(time.Minute)
		require.Equal(t, 8, must(a.Do(bg, theKey, returns(8, nil))))
		was, err = a.Forget(bg, theKey)
		require.True(t, was && err == nil)
		require.Equal(t, 9, must(a.Do(bg, theKey, returns(9, nil))), "at once where it was forgotten")
	})
}

func TestPromise41_WhatIsForgottenInFlightIsNotCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		fn, runs, release := blocked(7, nil)
		led := start(a, bg, fn)
		<-runs
		was, err := b.Forget(bg, theKey)
		require.True(t, was && err == nil)
		close(release)
		require.Equal(t, 7, (<-led).res.Value)
		require.Equal(t, 8, must(a.Do(bg, theKey, returns(8, nil))), "it was forgotten elsewhere")

		told := make(chan struct{})
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Claim" && when == storetest.After {
				<-told
			}
			return nil
		})
		replays := start(b, bg, mustNotRun(t))
		synctest.Wait()
		was, err = b.Forget(bg, theKey)
		require.True(t, was && err == nil)
		close(told)
		require.Equal(t, 8, (<-replays).res.Value)
		require.Equal(t, 9, must(b.Do(bg, theKey, returns(9, nil))), "it was forgotten here, while the store was asked")
	})
}

func TestPromise42_WhatIsNotCopiedLeavesItsPlace(t *testing.T) {
	for name, change := range map[string]func(*options){
		"always asked": func(o *options) { o.LocalTTL, o.MaxWeight, o.Weigh = -1, 5, func(string, int) int64 { return 2 } },
		"too heavy":    func(o *options) { o.MaxWeight, o.Weigh = 1, func(string, int) int64 { return 2 } },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := storetest.Mem()
				few := func(o *options) { o.MaxEntries = 2 }
				a, b := over(t, m, change, few), over(t, m, change, few)
				for i := range 5 {
					key, held := string(rune('a'+i)), string(rune('A'+i))
					require.Equal(t, i, must(a.Do(bg, key, returns(i, nil))))
					_, err := a.Do(bg, held, returns(0, errBoom))
					require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
					for _, c := range []*cache{a, b} {
						require.Equal(t, i, must(c.Do(bg, key, mustNotRun(t))))
						_, err := c.Do(bg, held, mustNotRun(t))
						require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
						require.Zero(t, c.Len())
						require.Zero(t, c.Stats().Weight)
					}
				}
			})
		})
	}
}

func TestPromise43_OperatorsClaimWithThePayloadOfTheHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m, always, func(o *options) {
			o.Reconcile = func(context.Context, string, idemflight.Entry[int]) (int, error) { return 6, nil }
		})
		for want, settle := range map[int]func() error{
			4: func() error { return b.Resolve(bg, theKey, 4, nil) },
			6: func() error { _, err := b.Reconcile(bg, theKey); return err },
		} {
			_, err := a.Do(bg, theKey, returns(0, errBoom), payload)
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			require.NoError(t, settle())
			require.Equal(t, want, must(a.Do(bg, theKey, mustNotRun(t), payload)))
			_, err = b.Do(bg, theKey, mustNotRun(t))
			require.ErrorIs(t, err, idemflight.ErrKeyReused)
			_, err = a.Forget(bg, theKey)
			require.NoError(t, err)
		}
	})
}

func TestPromise43_WhatAnOperatorCannotRecordStaysHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		_, err := a.Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		m.Fail("Settle", storetest.Before, -1)
		require.ErrorIs(t, b.Resolve(bg, theKey, 4, nil), idemflight.ErrStore)
		m.Fail("Settle", storetest.Before, 0)
		time.Sleep(time.Minute)
		e, ok, err := a.Lookup(bg, theKey)
		require.True(t, ok && err == nil)
		require.Equal(t, idemflight.Held, e.State)
		require.EqualError(t, e.Err, "boom")
		m.Fail("Unsettled", storetest.Before, 1)
		err = a.Unsettled(bg, func(string, idemflight.Entry[int]) bool { return true })
		require.ErrorIs(t, err, idemflight.ErrStore)
	})
}

func TestPromise43_AnOperatorWhoLeavesHasResolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		_, err := a.Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		ctx, cancel := context.WithCancel(bg)
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Claim" && when == storetest.After {
				cancel()
			}
			return nil
		})
		require.NoError(t, b.Resolve(ctx, theKey, 4, nil))
		require.Equal(t, 4, must(a.Do(bg, theKey, mustNotRun(t))))
	})
}

// held returns a cache with Reconcile, over a Memory in which theKey is held.
func held(t *testing.T, m *storetest.Memory, reconcile func() (int, error)) *cache {
	t.Helper()
	c := over(t, m, func(o *options) {
		o.Reconcile = func(context.Context, string, idemflight.Entry[int]) (int, error) { return reconcile() }
	})
	_, err := over(t, m).Do(bg, theKey, returns(0, errBoom))
	require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
	return c
}

func TestPromise43_FnDoesNotFollowAReconcileUnlessThatIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := held(t, m, func() (int, error) { return 0, idemflight.Retryable(errBoom) })
		m.Fail("Begin", storetest.Before, -1)
		_, err := a.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		m.Fail("Begin", storetest.Before, 0)
		_, err = over(t, m).Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "held still")
	})
}

func TestPromise43_FnDoesNotFollowAReconcileThatWasReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		answers := make(chan struct{})
		a := held(t, m, func() (int, error) {
			<-answers
			return 0, idemflight.Retryable(errBoom)
		})
		late := slow(t, m, a, mustNotRun(t))
		require.NoError(t, over(t, m).Resolve(bg, theKey, 6, nil))
		close(answers)
		got := <-late
		require.NoError(t, got.err)
		require.Equal(t, 6, got.res.Value, "it looks again")
	})
}

func TestPromise43_NobodysFnIsBegunAfterAReconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		answers := make(chan struct{})
		a := held(t, m, func() (int, error) {
			<-answers
			return 0, idemflight.Retryable(errBoom)
		})
		ctx, cancel := context.WithCancel(bg)
		left := start(a, ctx, mustNotRun(t))
		synctest.Wait()
		cancel()
		require.ErrorIs(t, (<-left).err, idemflight.ErrCallerLeft)
		close(answers)
		synctest.Wait()
		require.Zero(t, m.Asked("Begin"))
		require.Equal(t, 5, must(over(t, m).Do(bg, theKey, returns(5, nil))), "released")
	})
}

func TestPromise43_RestoreKeepsPayloadAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := idemflight.MustNew(options{})
		require.Equal(t, 7, must(old.Do(bg, theKey, returns(7, nil), payload, idemflight.WithTTL(time.Hour))))
		time.Sleep(20 * time.Minute)
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		for key, e := range old.All() {
			require.NoError(t, a.Restore(bg, key, e))
		}
		_, err := b.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrKeyReused)
		res, err := b.DoResult(bg, theKey, mustNotRun(t), payload)
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().Add(40*time.Minute), res.ExpiresAt, time.Second)
	})
}

// Until the store has answered, fn may run here.
func TestPromise44_CloseWaitsForTheStoresAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		asking := make(chan struct{})
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Claim" && when == storetest.Before {
				<-asking
			}
			return nil
		})
		fn, runs, release := blocked(7, nil)
		led := start(a, bg, fn)
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- a.Close(bg) }()
		synctest.Wait()
		require.Empty(t, closed)
		close(asking)
		<-runs
		synctest.Wait()
		require.Empty(t, closed, "fn runs")
		close(release)
		require.NoError(t, <-closed)
		require.Equal(t, 7, (<-led).res.Value)
	})
}

func TestNewWithAStoreNamesBadOptions(t *testing.T) {
	_, err := idemflight.New(options{Lease: time.Minute, LocalTTL: time.Minute})
	require.ErrorContains(t, err, "Options.Lease")
	require.ErrorContains(t, err, "Options.LocalTTL")
	_, err = idemflight.New(options{Store: storetest.Mem(), Lease: time.Millisecond})
	require.ErrorContains(t, err, "Options.Lease is 1ms: must be at least 1s")
	_, err = idemflight.New(idemflight.Options[struct{ A int }, error]{Store: storetest.Mem()})
	require.ErrorContains(t, err, "Options.Codec.EncodeKey")
	require.ErrorContains(t, err, "Options.Codec.EncodeValue")
	o := over(t, storetest.Mem(), func(o *options) { o.Lease = 0 }).Options()
	require.Equal(t, []time.Duration{30 * time.Second, time.Minute}, []time.Duration{o.Lease, o.LocalTTL})
}

func TestPromise25_EveryCallOverAStoreIsOneEventAndOneCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		var mu sync.Mutex
		events := map[idemflight.EventKind]int{}
		a := over(t, m)
		b := over(t, m, func(o *options) {
			o.Observer = func(_ context.Context, e idemflight.Event[string]) {
				mu.Lock()
				defer mu.Unlock()
				events[e.Kind]++
			}
		})
		fn, runs, release := blocked(7, nil)
		led := start(a, bg, fn)
		<-runs
		x := idemflight.WithFingerprint(idemflight.FingerprintOf([]byte("x")))
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		calls := []<-chan answer{
			start(b, bg, mustNotRun(t)), start(b, bg, mustNotRun(t)), start(b, bg, mustNotRun(t), x),
			start(b, ctx, mustNotRun(t)), start(b, bg, mustNotRun(t), idemflight.WithMaxWait(time.Millisecond)),
		}
		time.Sleep(2 * time.Second)
		close(release)
		<-led
		for _, c := range calls {
			<-c
		}
		require.Equal(t, 7, must(b.Do(bg, theKey, mustNotRun(t))))
		m.Fail("Claim", storetest.Before, 1<<30)
		_, err := b.Do(bg, "other", mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrStore)
		s := b.Stats()
		require.EqualValues(t, 7, s.Joined+s.Replayed+s.KeyReused+s.CallerLeft+s.NotWaited+s.StoreFailed+s.Executed)
		delete(events, idemflight.EventStore)
		require.Equal(t, map[idemflight.EventKind]int{
			idemflight.EventJoined: 2, idemflight.EventRejected: 3, idemflight.EventCallerLeft: 1, idemflight.EventReplayed: 1,
		}, events)
	})
}

// The store's own goroutines and panics are no reason to strand anybody.
func TestAStoreThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		times := 0
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if times++; times < 3 && when == storetest.Before {
				panic("the driver's bug")
			}
			return nil
		})
		require.Equal(t, 7, must(a.Do(bg, theKey, returns(7, nil))))
		require.NotZero(t, a.Stats().StoreErrors)
	})
}

func TestPanicsOverAStore(t *testing.T) {
	for name, inline := range map[string][]idemflight.CallOption{"inline": {idemflight.Inline()}, "on a goroutine": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := storetest.Mem()
				a, b := over(t, m), over(t, m)
				ctx, cancel := context.WithCancel(bg)
				defer cancel()
				require.Panics(t, func() {
					_, _ = a.Do(ctx, theKey, func(context.Context) (int, error) { panic("boom") }, inline...)
				})
				_, err := b.Do(bg, theKey, mustNotRun(t))
				require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
				require.ErrorContains(t, err, "fn panicked and had not said whether an effect had begun")
				require.Zero(t, a.Stats().InFlight)
			})
		})
	}
}

func TestALeaderThatLeavesWhileTheStoreIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		asking := make(chan struct{})
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Claim" && when == storetest.Before {
				<-asking
			}
			return nil
		})
		ctx, cancel := context.WithCancel(bg)
		led := start(a, ctx, mustNotRun(t))
		synctest.Wait()
		joined := start(a, bg, returns(8, nil))
		synctest.Wait()
		cancel()
		require.ErrorIs(t, (<-led).err, idemflight.ErrCallerLeft)
		m.Hook(nil)
		close(asking)
		got := <-joined
		require.NoError(t, got.err)
		require.Equal(t, 8, got.res.Value)
		require.Equal(t, idemflight.Executed, got.res.Source, "it looked again, and led")
		require.Equal(t, 8, must(b.Do(bg, theKey, mustNotRun(t))))
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
		ids := make(chan idemflight.ClaimID, 1)
		m.Hook(func(_ context.Context, when storetest.When, verb string, c idemflight.Claim) error {
			if verb == "Claim" && when == storetest.After {
				select {
				case ids <- c.ID:
				default:
				}
			}
			return nil
		})
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
