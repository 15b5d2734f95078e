package storetest_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/storetest"
)

// Promises 35 to 37: who waits, here and for another process.

// Promise 35: A caller that waits for an execution in another process waits like one that joined,
// and gets its outcome. After a release, one of those that wait runs its own fn.
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
		for _, noWait := range []time.Duration{idemflight.NoWait, 0} {
			_, err := b.Do(bg, theKey, mustNotRun(t), idemflight.WithMaxWait(noWait))
			require.ErrorIs(t, err, idemflight.ErrInFlight)
			synctest.Wait()
			require.Zero(t, b.Stats().InFlight, "the only caller may not wait: nobody watches")
		}
		_, err := b.Do(bg, theKey, mustNotRun(t), idemflight.WithMaxWait(time.Second), idemflight.Inline())
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

// Promise 36: A call with another payload, made while the store is being asked about its key, waits
// for that answer and then looks again.
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

// Promise 37: A released outcome is seen only by callers of the same process that had joined.
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
