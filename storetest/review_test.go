package storetest_test

import (
	"context"
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
