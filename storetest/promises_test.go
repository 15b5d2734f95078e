package storetest_test

import (
	"context"
	"errors"
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
		_, err = b.Do(bg, theKey, mustNotRun(t), idemflight.WithMaxWait(idemflight.NoWait))
		require.ErrorIs(t, err, idemflight.ErrInFlight, "an orphan")
		time.Sleep(10 * time.Second)
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
		require.ErrorContains(t, a.Save(nil), "Save of a cache with a Store")
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
