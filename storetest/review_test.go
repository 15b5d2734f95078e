package storetest_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/storetest"
)

// What a review of the layer over the Store has found.

// hooked has h called before each call of a verb.
func hooked(m *storetest.Memory, at storetest.When, verb string, h func(context.Context)) {
	m.Hook(func(ctx context.Context, when storetest.When, v string, _ idemflight.Claim) error {
		if when == at && v == verb {
			h(ctx)
		}
		return nil
	})
}

func unknown(context.Context, string, idemflight.Entry[int]) (int, error) { return 0, errBoom }

// atRest fails the test unless nothing is in flight in c, once all that was started has ended.
func atRest(t *testing.T, c *cache) {
	t.Helper()
	s := c.Stats()
	require.Zero(t, s.InFlight+s.Waiters, "in flight and waiting")
	require.Equal(t, s.Entries, c.Len())
}

var fingerprintX = idemflight.WithFingerprint(idemflight.FingerprintOf([]byte("x")))

// A call that meets a Cache.Reconcile which asks the store still is told nothing about holds.
func TestPromise36_ACallDoesNotJoinAnOperatorWhoAsksStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m, func(o *options) { o.Reconcile = unknown })
		asking := make(chan struct{})
		hooked(m, storetest.Before, "Read", func(context.Context) { <-asking })
		operated := make(chan error, 1)
		go func() {
			_, err := a.Reconcile(bg, theKey)
			operated <- err
		}()
		synctest.Wait()
		called := start(a, bg, returns(7, nil))
		dead, cancel := context.WithCancel(bg)
		cancel()
		_, err := a.Do(dead, theKey, mustNotRun(t), fingerprintX)
		require.ErrorIs(t, err, idemflight.ErrCallerLeft)
		require.NotErrorIs(t, err, idemflight.ErrKeyReused)
		synctest.Wait()
		close(asking)
		require.ErrorIs(t, <-operated, idemflight.ErrNotHeld)
		got := <-called
		require.NoError(t, got.err)
		require.Equal(t, 7, got.res.Value)
		require.EqualValues(t, 1, a.Stats().Executed)
		atRest(t, a)
	})
}

func TestPromise22_AnOperatorsReconcileDoesNotMixPayloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		_, err := over(t, m).Do(bg, theKey, returns(0, errBoom), fingerprintX)
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		a := over(t, m, func(o *options) {
			o.Reconcile = func(context.Context, string, idemflight.Entry[int]) (int, error) { return 7, nil }
		})
		asking := make(chan struct{})
		hooked(m, storetest.Before, "Read", func(context.Context) { <-asking })
		operated := make(chan error, 1)
		go func() {
			_, err := a.Reconcile(bg, theKey)
			operated <- err
		}()
		synctest.Wait()
		called := start(a, bg, mustNotRun(t)) // without a fingerprint: another payload
		synctest.Wait()
		close(asking)
		require.NoError(t, <-operated)
		require.ErrorIs(t, (<-called).err, idemflight.ErrKeyReused)
		atRest(t, a)
	})
}

// An operator who leaves while the store is asked (under -race).
func TestPromise26_AnOperatorThatLeavesRacesWithNothing(t *testing.T) {
	m := storetest.Mem()
	_, err := over(t, m).Do(bg, theKey, returns(0, errBoom))
	require.Error(t, err)
	a := over(t, m, func(o *options) {
		o.Reconcile = func(context.Context, string, idemflight.Entry[int]) (int, error) { return 7, nil }
	})
	ctx, cancel := context.WithCancel(bg)
	m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
		if verb == "Read" && when == storetest.Before {
			time.Sleep(20 * time.Millisecond)
		}
		if verb == "Claim" && when == storetest.After {
			time.Sleep(20 * time.Millisecond)
		}
		return nil
	})
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err = a.Reconcile(ctx, theKey)
	require.ErrorIs(t, err, idemflight.ErrCallerLeft)
	require.NoError(t, a.Close(bg))
	time.Sleep(50 * time.Millisecond)
}

// Two refusals at the same time: nothing has begun.
func TestPromise38_ConcurrentRefusalsCountAsNothingBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		m.Fail("Begin", storetest.Before, -1)
		_, err := a.Do(bg, theKey, func(ctx context.Context) (int, error) {
			var begins sync.WaitGroup
			for range 3 {
				begins.Go(func() { require.ErrorIs(t, idemflight.BeginEffect(ctx), idemflight.ErrStore) })
			}
			begins.Wait()
			return 0, errBoom
		})
		require.Equal(t, errBoom, err, "released")
	})
}

// One is refused while another, granted meanwhile, is taken back by NoEffect.
func TestPromise38_ARefusalDoesNotUseUpAnothersNoEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		var n atomic.Int64
		m.Hook(func(ctx context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Begin" && when == storetest.Before && n.Add(1) == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		for _, taken := range []bool{true, false} {
			n.Store(0)
			_, err := a.Do(bg, theKey, func(ctx context.Context) (int, error) {
				refused := make(chan struct{})
				go func() {
					defer close(refused)
					require.ErrorIs(t, idemflight.BeginEffect(ctx), idemflight.ErrStore)
				}()
				synctest.Wait()
				require.NoError(t, idemflight.BeginEffect(ctx))
				if taken {
					idemflight.NoEffect(ctx)
				}
				<-refused
				return 0, errBoom
			})
			require.ErrorIs(t, err, errBoom)
			require.Equal(t, !taken, errors.Is(err, idemflight.ErrOutcomeUnknown))
		}
	})
}

// fn has returned while the store was asked: the effect must not begin.
func TestPromise12_BeginEffectRefusesOnceFnHasReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		asking := make(chan struct{})
		hooked(m, storetest.Before, "Begin", func(context.Context) { <-asking })
		began := make(chan error, 1)
		_, err := a.Do(bg, theKey, func(ctx context.Context) (int, error) {
			go func() { began <- idemflight.BeginEffect(ctx) }()
			synctest.Wait()
			return 0, errBoom
		})
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "it might have begun")
		close(asking)
		require.Error(t, <-began)
	})
}

// Who asks an execution's context for its end, once that is over, does not take it from the one that follows.
func TestPromise30_FnAfterReconcileHearsThatItsClaimIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		_, err := over(t, m).Do(bg, theKey, returns(0, errBoom))
		require.Error(t, err)
		var reconciles context.Context
		a := over(t, m, func(o *options) {
			o.Reconcile = func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
				reconciles = ctx
				return 0, idemflight.Retryable(errBoom)
			}
		})
		b := over(t, m, func(o *options) {
			o.Reconcile = func(context.Context, string, idemflight.Entry[int]) (int, error) { return 9, nil }
		})
		ids := make(chan idemflight.ClaimID, 10)
		m.Hook(func(_ context.Context, when storetest.When, verb string, c idemflight.Claim) error {
			if verb == "Begin" && when == storetest.After {
				ids <- c.ID
			}
			return nil
		})
		var cause error
		led := start(a, bg, func(ctx context.Context) (int, error) {
			done := ctx.Done()
			<-reconciles.Done()
			select {
			case <-done:
				cause = context.Cause(ctx)
			case <-time.After(time.Minute):
			}
			return 1, nil
		})
		id := <-ids
		synctest.Wait()
		require.True(t, m.Kill(id))
		require.Equal(t, 9, must(b.Do(bg, theKey, mustNotRun(t))))
		require.ErrorIs(t, (<-led).err, idemflight.ErrClaimLost)
		require.Equal(t, idemflight.ErrClaimLost, cause)
	})
}

// Goexit, wherever user code may call it: nobody is stranded.
func TestPromise14_GoexitStrandsNobody(t *testing.T) {
	exit := func() { runtime.Goexit() }
	held := func(t *testing.T, m *storetest.Memory) {
		_, err := over(t, m).Do(bg, theKey, returns(0, errBoom))
		require.Error(t, err)
	}
	kept := func(t *testing.T, m *storetest.Memory) {
		require.Equal(t, 5, must(over(t, m).Do(bg, theKey, returns(5, nil))))
	}
	verb := func(name string) func(*storetest.Memory, *options) {
		return func(m *storetest.Memory, _ *options) {
			var once sync.Once
			hooked(m, storetest.Before, name, func(context.Context) { once.Do(exit) })
		}
	}
	observer := func(name string) func(*storetest.Memory, *options) {
		return func(m *storetest.Memory, o *options) {
			m.Fail(name, storetest.Before, 1)
			o.Observer = func(_ context.Context, e idemflight.Event[string]) {
				if e.Kind == idemflight.EventStore {
					exit()
				}
			}
		}
	}
	noEffect := func(_ *storetest.Memory, o *options) {
		o.Reconcile = func(context.Context, string, idemflight.Entry[int]) (int, error) {
			return 0, idemflight.Retryable(errBoom)
		}
	}
	found := func(_ *storetest.Memory, o *options) {
		o.Reconcile = func(context.Context, string, idemflight.Entry[int]) (int, error) { return 3, nil }
	}
	elsewhere := func(t *testing.T, m *storetest.Memory) {
		led := start(over(t, m), bg, func(context.Context) (int, error) {
			time.Sleep(time.Second)
			return 5, nil
		})
		synctest.Wait()
		_ = led
	}
	for name, tc := range map[string]struct {
		before func(*testing.T, *storetest.Memory)
		with   []func(*storetest.Memory, *options)
		want   []error // any of them; nil is no error
	}{
		"Claim":               {nil, []func(*storetest.Memory, *options){verb("Claim")}, []error{idemflight.ErrStore}},
		"Observer at Claim":   {nil, []func(*storetest.Memory, *options){observer("Claim")}, []error{idemflight.ErrStore}},
		"Settle":              {nil, []func(*storetest.Memory, *options){verb("Settle")}, []error{idemflight.ErrOutcomeUnknown}},
		"Observer at Settle":  {nil, []func(*storetest.Memory, *options){observer("Settle")}, []error{idemflight.ErrOutcomeUnknown}},
		"Watch":               {elsewhere, []func(*storetest.Memory, *options){verb("Watch")}, []error{idemflight.ErrStore}},
		"Read after Watch":    {elsewhere, []func(*storetest.Memory, *options){verb("Read")}, []error{idemflight.ErrStore}},
		"Begin":               {held, []func(*storetest.Memory, *options){noEffect, verb("Begin")}, []error{idemflight.ErrOutcomeUnknown}},
		"Observer at Begin":   {held, []func(*storetest.Memory, *options){noEffect, observer("Begin")}, []error{idemflight.ErrOutcomeUnknown}},
		"Settle of Reconcile": {held, []func(*storetest.Memory, *options){found, verb("Settle")}, []error{idemflight.ErrOutcomeUnknown}},
		"EncodeKey": {nil, []func(*storetest.Memory, *options){func(_ *storetest.Memory, o *options) {
			o.Codec.EncodeKey = func(string) (string, error) { exit(); return "", nil }
			o.Codec.DecodeKey = func(s string) (string, error) { return s, nil }
		}}, []error{idemflight.ErrStore}},
		"EncodeValue": {nil, []func(*storetest.Memory, *options){func(_ *storetest.Memory, o *options) {
			o.Codec.EncodeValue = func(int) ([]byte, error) { exit(); return nil, nil }
			o.Codec.DecodeValue = func([]byte) (int, error) { return 0, nil }
		}}, []error{idemflight.ErrOutcomeUnknown}},
		"DecodeValue": {kept, []func(*storetest.Memory, *options){func(_ *storetest.Memory, o *options) {
			o.Codec.EncodeValue = func(int) ([]byte, error) { return nil, nil }
			o.Codec.DecodeValue = func([]byte) (int, error) { exit(); return 0, nil }
		}}, []error{idemflight.ErrStore}},
		"Weigh of another's": {kept, []func(*storetest.Memory, *options){func(_ *storetest.Memory, o *options) {
			o.MaxWeight, o.Weigh = 10, func(string, int) int64 { exit(); return 1 }
		}}, []error{nil}},
	} {
		for how, opts := range map[string][]idemflight.CallOption{"": nil, ", inline": {idemflight.Inline()}} {
			t.Run(name+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := storetest.Mem()
					if tc.before != nil {
						tc.before(t, m)
					}
					a := over(t, m, func(o *options) {
						for _, with := range tc.with {
							with(m, o)
						}
					})
					ctx, cancel := context.WithTimeout(bg, time.Hour)
					defer cancel()
					exited := make(chan struct{})
					var led answer
					go func() {
						defer close(exited)
						led.err = errExited
						led.res, led.err = a.DoResult(ctx, theKey, returns(7, nil), opts...)
					}()
					joined := start(a, ctx, returns(7, nil))
					<-exited
					got := <-joined
					for _, err := range []error{led.err, got.err} {
						require.NotErrorIs(t, err, idemflight.ErrCallerLeft, "stranded")
					}
					asIs := false // of whoever came first
					for _, err := range []error{led.err, got.err} {
						for _, want := range tc.want {
							asIs = asIs || err == want || want != nil && errors.Is(err, want)
						}
					}
					require.True(t, asIs || led.err == errExited, "%v, %v", led.err, got.err)
					time.Sleep(10 * time.Minute)
					m.Hook(nil)
					atRest(t, a)
					require.NoError(t, a.Close(bg))
					asked := m.Asked("Renew") + m.Asked("Settle") + m.Asked("GiveBack")
					time.Sleep(time.Hour)
					require.Equal(t, asked, m.Asked("Renew")+m.Asked("Settle")+m.Asked("GiveBack"), "a timer at rest")
				})
			})
		}
	}
}

var errExited = errors.New("the goroutine exited")

// A store that is down for long leaves the process neither a list without end, nor an event for each entry.
func TestPromise44_ClaimsToBeGivenBackDoNotFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m, func(o *options) { o.MaxEntries = 1000 })
		m.Fail("Claim", storetest.Before, -1)
		m.Fail("GiveBack", storetest.Before, -1)
		var calls sync.WaitGroup
		for i := range 500 {
			calls.Go(func() {
				_, err := a.Do(bg, string(rune('a'+i)), mustNotRun(t))
				require.ErrorIs(t, err, idemflight.ErrStore)
			})
		}
		calls.Wait()
		before := m.Asked("GiveBack")
		time.Sleep(time.Minute)
		require.Less(t, m.Asked("GiveBack")-before, 100)
		m.Fail("Claim", storetest.Before, 0)
		m.Fail("GiveBack", storetest.Before, 0)
		time.Sleep(time.Minute)
		require.GreaterOrEqual(t, m.Asked("GiveBack"), 500, "all of them in the end")
		asked := m.Asked("GiveBack")
		time.Sleep(time.Hour)
		require.Equal(t, asked, m.Asked("GiveBack"))
	})
}

// The outcome that SettleTx has recorded ends when its record does, however long fn goes on.
func TestPromise40_ACopyOfWhatSettlingRecordedEndsWithTheRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		began := time.Now()
		res, err := a.DoResult(bg, theKey, func(ctx context.Context) (int, error) {
			c, s, err := idemflight.Settling(ctx, 7, nil)
			require.NoError(t, err)
			_, err = m.Settle(ctx, c, s)
			require.NoError(t, err)
			time.Sleep(6 * time.Second)
			return 7, nil
		}, idemflight.WithTTL(10*time.Second))
		require.NoError(t, err)
		require.Equal(t, 7, res.Value)
		require.Equal(t, 10*time.Second, res.ExpiresAt.Sub(began))
		time.Sleep(4 * time.Second)
		require.Equal(t, 8, must(b.Do(bg, theKey, returns(8, nil))), "it has expired")
		require.Equal(t, 8, must(a.Do(bg, theKey, mustNotRun(t))), "here, too")
	})
}

func TestPromise20_AnAdoptedOutcomeIsWeighed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m, func(o *options) {
			o.MaxWeight, o.Weigh = 100, func(_ string, v int) int64 { return int64(v) }
		})
		_, err := a.Do(bg, theKey, func(ctx context.Context) (int, error) {
			c, s, err := idemflight.Settling(ctx, 7, nil)
			require.NoError(t, err)
			_, err = m.Settle(ctx, c, s)
			require.NoError(t, err)
			return 0, errBoom
		})
		require.NoError(t, err)
		require.EqualValues(t, 7, a.Stats().Weight)
	})
}

// The text says how long the key is held, not how long the lease would be.
func TestErrorsOfAHoldThatIsRecordedSayUntilWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m, func(o *options) {
			o.Codec.EncodeValue = func(int) ([]byte, error) { return nil, errBoom }
			o.Codec.DecodeValue = func([]byte) (int, error) { return 0, errBoom }
		})
		_, err := a.Do(bg, theKey, returns(7, nil))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.ErrorContains(t, err, "key held until "+time.Now().Add(7*24*time.Hour).UTC().Format("2006-01-02 15:04:05Z"))
	})
}

// What is forgotten here is not replayed here, even if a call asked the store meanwhile.
func TestPromise41_NoCopyIsMadeWhileAForgetIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		require.Equal(t, 7, must(a.Do(bg, theKey, returns(7, nil))))
		hooked(m, storetest.Before, "Forget", func(context.Context) {
			require.Equal(t, 7, must(a.Do(bg, theKey, mustNotRun(t))), "it is not forgotten yet")
		})
		was, err := a.Forget(bg, theKey)
		require.True(t, was && err == nil)
		require.Equal(t, 8, must(a.Do(bg, theKey, returns(8, nil))))
	})
}

// The same if the store has answered before, and the outcome lands after.
func TestPromise41_NoCopyIsMadeOfAnAnswerFromBeforeAForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		require.Equal(t, 7, must(over(t, m).Do(bg, theKey, returns(7, nil))))
		a := over(t, m)
		answered, land := make(chan struct{}), make(chan struct{})
		var once sync.Once
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			switch {
			case verb == "Claim" && when == storetest.After:
				once.Do(func() {
					close(answered)
					<-land
				})
			}
			return nil
		})
		var before <-chan answer
		m2 := start(a, bg, mustNotRun(t))
		before = m2
		<-answered
		was, err := a.Forget(bg, theKey)
		require.True(t, was && err == nil)
		close(land)
		require.Equal(t, 7, (<-before).res.Value)
		require.Equal(t, 8, must(a.Do(bg, theKey, returns(8, nil))))
	})
}

// A Forget that came while the store was asked says nothing about the execution that follows.
func TestPromise23_AForgetBeforeTheGrantDoesNotHideTheOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		asking := make(chan struct{})
		hooked(m, storetest.Before, "Claim", func(context.Context) { <-asking })
		called := start(a, bg, returns(7, nil))
		synctest.Wait()
		was, err := a.Forget(bg, theKey)
		require.False(t, was)
		require.NoError(t, err)
		close(asking)
		got := <-called
		require.NoError(t, got.err)
		require.False(t, got.res.ExpiresAt.IsZero(), "the store keeps it")
		require.EqualValues(t, 1, a.Stats().Retains)
		asked := m.Asked("Claim")
		require.Equal(t, 7, must(a.Do(bg, theKey, mustNotRun(t))))
		require.Equal(t, asked, m.Asked("Claim"), "replayed from memory")
	})
}

// One renewal that hangs must not cost the lease.
func TestPromise30_ARenewalThatHangsIsMadeUpFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m, announced), over(t, m, announced)
		var n atomic.Int64
		m.Hook(func(ctx context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Renew" && when == storetest.Before && n.Add(1) == 2 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		earlier := make(chan struct{})
		go func() { _, _ = a.Do(bg, "another", func(context.Context) (int, error) { <-earlier; return 1, nil }) }()
		time.Sleep(time.Second) // so that the heartbeats are those of the other one
		fn, runs, release := blocked(7, nil)
		led := start(a, bg, fn)
		<-runs
		for range 100 {
			time.Sleep(999 * time.Millisecond)
			_, err := b.Do(bg, theKey, mustNotRun(t), idemflight.WithMaxWait(idemflight.NoWait))
			require.ErrorIs(t, err, idemflight.ErrInFlight)
		}
		close(release)
		close(earlier)
		require.NoError(t, (<-led).err)
	})
}

// A leader that may not wait, and whose context ends at the same moment, is one call.
func TestPromise25_ANoWaitLeaderThatLeavesCountsOnce(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	m := storetest.Mem()
	fn, runs, release := blocked(7, nil)
	led := start(over(t, m), bg, fn)
	<-runs
	for range 100 {
		var rejected, left atomic.Int64
		b := over(t, m, func(o *options) {
			o.Observer = func(_ context.Context, e idemflight.Event[string]) {
				switch e.Kind {
				case idemflight.EventRejected:
					rejected.Add(1)
				case idemflight.EventCallerLeft:
					left.Add(1)
				}
			}
		})
		ctx, cancel := context.WithCancel(bg)
		hooked(m, storetest.After, "Claim", func(context.Context) { cancel() })
		_, err := b.Do(ctx, theKey, mustNotRun(t), idemflight.WithMaxWait(idemflight.NoWait))
		require.Error(t, err)
		s := b.Stats()
		require.EqualValues(t, 1, s.NotWaited+s.CallerLeft, "counts")
		require.Equal(t, []int64{int64(s.NotWaited), int64(s.CallerLeft)}, []int64{rejected.Load(), left.Load()})
		require.Equal(t, s.CallerLeft == 1, errors.Is(err, idemflight.ErrCallerLeft))
	}
	m.Hook(nil)
	close(release)
	<-led
}

// A key that is kept is not in flight because another call asks the store about it.
func TestPromise10_NoWaitIsNotToldInFlightWhileTheStoreIsAsked(t *testing.T) {
	for _, noWait := range []time.Duration{idemflight.NoWait, 0} {
		synctest.Test(t, func(t *testing.T) {
			m := storetest.Mem()
			require.Equal(t, 7, must(over(t, m).Do(bg, theKey, returns(7, nil))))
			a := over(t, m)
			asking := make(chan struct{})
			hooked(m, storetest.Before, "Claim", func(context.Context) { <-asking })
			first := start(a, bg, mustNotRun(t))
			synctest.Wait()
			second := start(a, bg, mustNotRun(t), idemflight.WithMaxWait(noWait))
			synctest.Wait()
			close(asking)
			require.NoError(t, (<-first).err)
			got := <-second
			require.NoError(t, got.err)
			require.Equal(t, 7, got.res.Value)
		})
	}
}

// A panic of the caller's own function is the caller's.
func TestUnsettledLetsThePanicOfItsCallerThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		_, err := a.Do(bg, theKey, returns(0, errBoom))
		require.Error(t, err)
		require.PanicsWithValue(t, "mine", func() {
			_ = a.Unsettled(bg, func(string, idemflight.Entry[int]) bool { panic("mine") })
		})
		require.Zero(t, a.Stats().StoreErrors)
	})
}

// One key that cannot be read does not hide the others.
func TestUnsettledGoesOnAfterAKeyWhoseDecodingPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		for _, key := range []string{"bad", "good"} {
			_, err := over(t, m).Do(bg, key, returns(0, errBoom))
			require.Error(t, err)
		}
		a := over(t, m, func(o *options) {
			o.Codec.EncodeKey = func(s string) (string, error) { return s, nil }
			o.Codec.DecodeKey = func(s string) (string, error) {
				if s == "bad" {
					panic("bug")
				}
				return s, nil
			}
		})
		var seen []string
		err := a.Unsettled(bg, func(key string, _ idemflight.Entry[int]) bool {
			seen = append(seen, key)
			return true
		})
		require.Equal(t, []string{"good"}, seen)
		require.ErrorContains(t, err, `"bad"`)
	})
}

// A Restore that the store did not take can be repeated.
func TestRestoreGivesBackWhatItCouldNotWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		m.Fail("Settle", storetest.Before, -1)
		e := idemflight.Entry[int]{State: idemflight.Retained, Value: 7, CompletedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
		require.ErrorIs(t, a.Restore(bg, theKey, e), idemflight.ErrStore)
		m.Fail("Settle", storetest.Before, 0)
		time.Sleep(11 * time.Second)
		require.NoError(t, a.Restore(bg, theKey, e))
		require.Equal(t, 7, must(a.Do(bg, theKey, mustNotRun(t))))
	})
}

// An error of the store whose methods panic.
type hostile struct{}

func (*hostile) Error() string { panic("hostile") }
func (*hostile) Is(error) bool { panic("hostile") }
func (*hostile) Unwrap() error { panic("hostile") }

func TestAStoreWhoseErrorsPanic(t *testing.T) {
	for _, verb := range []string{"Claim", "Settle"} {
		synctest.Test(t, func(t *testing.T) {
			m := storetest.Mem()
			a := over(t, m)
			m.Hook(func(_ context.Context, when storetest.When, v string, _ idemflight.Claim) error {
				if v == verb && when == storetest.Before {
					return &hostile{}
				}
				return nil
			})
			_, err := a.Do(bg, theKey, returns(7, nil))
			require.True(t, errors.Is(err, idemflight.ErrStore))
			require.NotEmpty(t, err.Error())
			m.Hook(nil)
			time.Sleep(time.Hour)
			atRest(t, a)
		})
	}
}

// Callers of all kinds, operators and a store that fails, in any order: every call is one event and one count, nobody
// hangs, and nothing is left.
func TestPromise25_AnythingGoes(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) { anythingGoes(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func anythingGoes(t *testing.T, r *rand.Rand) {
	m := storetest.Mem()
	var mu sync.Mutex // guards r and ids
	n := func(most int) int {
		mu.Lock()
		defer mu.Unlock()
		return r.IntN(most)
	}
	var ids []idemflight.ClaimID
	m.Hook(func(ctx context.Context, when storetest.When, verb string, c idemflight.Claim) error {
		if verb == "Claim" {
			mu.Lock()
			ids = append(ids, c.ID)
			mu.Unlock()
		}
		switch n(20) {
		case 0:
			return errBoom
		case 1:
			panic("the driver's bug")
		case 2:
			time.Sleep(time.Duration(n(3000)) * time.Millisecond)
		case 3:
			runtime.Gosched()
		}
		return nil
	})
	type process struct {
		*cache
		calls, events atomic.Int64
	}
	var all []*process
	for i := range 3 {
		p := &process{}
		p.cache = over(t, m, func(o *options) {
			o.Lease, o.EffectsAnnounced, o.MaxEntries = time.Duration(1+n(10))*time.Second, n(2) == 0, 3
			if o.LocalTTL = time.Duration(n(5)-1) * time.Second; i > 0 {
				o.Reconcile = func(context.Context, string, idemflight.Entry[int]) (int, error) {
					time.Sleep(time.Duration(n(2000)) * time.Millisecond)
					switch n(5) {
					case 0:
						return 0, errBoom
					case 1:
						panic("boom")
					case 2, 3:
						return 0, idemflight.Retryable(errBoom)
					}
					return 5, nil
				}
			}
			o.Observer = func(_ context.Context, e idemflight.Event[string]) {
				switch e.Kind {
				case idemflight.EventExecuted, idemflight.EventJoined, idemflight.EventReplayed, idemflight.EventReconciled,
					idemflight.EventRejected, idemflight.EventCallerLeft:
					p.events.Add(1)
				}
			}
		})
		all = append(all, p)
	}
	var calls sync.WaitGroup
	for range 150 {
		calls.Go(func() {
			time.Sleep(time.Duration(n(60_000)) * time.Millisecond)
			p, key := all[n(3)], []string{"a", "b", "c", "d"}[n(4)]
			ctx, cancel := bg, func() {}
			if n(2) == 0 {
				ctx, cancel = context.WithTimeout(bg, time.Duration(n(6000))*time.Millisecond)
			}
			defer cancel()
			switch n(12) {
			case 0:
				_, _ = p.Forget(ctx, key)
				return
			case 1:
				_ = p.Resolve(ctx, key, 3, nil)
				return
			case 2:
				if p != all[0] {
					_, _ = p.Reconcile(ctx, key)
				}
				return
			case 3:
				mu.Lock()
				id := idemflight.ClaimID{}
				if len(ids) > 0 {
					id = ids[len(ids)-1]
				}
				mu.Unlock()
				m.Kill(id)
				return
			}
			var opts []idemflight.CallOption
			for _, o := range []idemflight.CallOption{
				idemflight.Inline(), idemflight.WithMaxWait(idemflight.NoWait), idemflight.WithMaxWait(time.Second),
				idemflight.WithTTL(0), idemflight.WithTTL(3 * time.Second), fingerprintX,
			} {
				if n(5) == 0 {
					opts = append(opts, o)
				}
			}
			p.calls.Add(1)
			defer func() { _ = recover() }()
			_, _ = p.DoResult(ctx, key, func(ctx context.Context) (int, error) {
				if n(2) == 0 {
					if err := idemflight.BeginEffect(ctx); err != nil {
						return 0, err
					}
				}
				select {
				case <-ctx.Done():
				case <-time.After(time.Duration(n(8000)) * time.Millisecond):
				}
				switch n(8) {
				case 0:
					panic("boom")
				case 1:
					runtime.Goexit()
				case 2:
					return 1, errBoom
				case 3:
					return 1, idemflight.Final(errBoom)
				case 4:
					return 1, idemflight.Retryable(errBoom)
				case 5:
					c, s, err := idemflight.Settling(ctx, 4, nil)
					if err == nil {
						_, err = m.Settle(ctx, c, s)
					}
					return 4, err
				}
				return 2, nil
			}, opts...)
		})
	}
	calls.Wait()
	m.Hook(nil)
	time.Sleep(time.Hour)
	for _, p := range all {
		atRest(t, p.cache)
		s := p.Stats()
		require.EqualValues(t, p.calls.Load(), s.Executed+s.Joined+s.Replayed+s.Reconciled+s.KeyReused+s.NotWaited+
			s.OutcomeUnknown+s.ValueShed+s.Full+s.Closed+s.Reentrant+s.InvalidKey+s.CallerLeft+s.StoreFailed, "counts")
		require.Equal(t, p.calls.Load(), p.events.Load(), "events")
		require.NoError(t, p.Close(bg))
	}
	asked := m.Asked("Renew") + m.Asked("GiveBack") + m.Asked("Settle")
	time.Sleep(time.Hour)
	require.Equal(t, asked, m.Asked("Renew")+m.Asked("GiveBack")+m.Asked("Settle"), "no timer")
}

// A store that takes its time to record an outcome does not make its owner look dead.
func TestPromise30_LeasesAreRenewedUntilTheOutcomeIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		hooked(m, storetest.Before, "Settle", func(context.Context) { time.Sleep(25 * time.Second) })
		led := start(a, bg, func(context.Context) (int, error) {
			time.Sleep(19 * time.Second)
			return 7, nil
		})
		for range 43 {
			time.Sleep(time.Second)
			_, err := b.Do(bg, theKey, mustNotRun(t), idemflight.WithMaxWait(idemflight.NoWait))
			require.ErrorIs(t, err, idemflight.ErrInFlight)
		}
		require.NoError(t, (<-led).err)
		time.Sleep(time.Minute)
		asked := m.Asked("Renew")
		time.Sleep(time.Hour)
		require.Equal(t, asked, m.Asked("Renew"))
	})
}

func TestPromise43_WithADeadContextTheStoreIsNotAsked(t *testing.T) {
	m := storetest.Mem()
	a := over(t, m)
	ctx, cancel := context.WithCancel(bg)
	cancel()
	_, _, err := a.Lookup(ctx, theKey)
	require.ErrorIs(t, err, idemflight.ErrStore)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, m.Asked("Read"))
	require.Zero(t, a.Stats().StoreErrors)
}
