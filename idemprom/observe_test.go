package idemprom_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// after is an fn that takes some time.
func after(d time.Duration, value string, err error) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		select {
		case <-time.After(d):
			return value, err
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// TestObserve_Executions: by disposition, each for as long as it ran; also where the leader has left, and where an
// operator has Reconcile asked.
func TestObserve_Executions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := newCache(t, options{Reconcile: func(context.Context, string, idemflight.Entry[string]) (string, error) {
			time.Sleep(64 * time.Second)
			return "found", nil
		}})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		_, _ = c.Do(ctx, "a", after(1*time.Second, "receipt", nil))
		_, _ = c.Do(ctx, "a", after(1*time.Second, "receipt", nil)) // a replay takes no time
		_, _ = c.Do(ctx, "b", after(2*time.Second, "", idemflight.Retryable(errLost)))
		_, _ = c.Do(ctx, "c", after(4*time.Second, "", idemflight.Unknown(errLost)))
		_, _ = c.Do(ctx, "d", after(8*time.Second, "", idemflight.Unknown(errLost)))
		_, err := c.Do(ctx, "c", returns("", nil)) // Reconcile, for a caller
		require.NoError(t, err)
		_, err = c.Reconcile(ctx, "d")
		require.NoError(t, err)
		_, _ = c.Do(ctx, "e", returns("", idemflight.Unknown(errLost)))
		require.NoError(t, c.Resolve(ctx, "e", "found by hand", nil)) // is no execution
		time.AfterFunc(time.Second, cancel)
		_, err = c.Do(ctx, "f", after(16*time.Second, "receipt", nil))
		require.ErrorIs(t, err, idemflight.ErrCallerLeft)
		time.Sleep(time.Minute)

		fs := gather(t, r)
		for disposition, want := range map[string][2]float64{"retain": {4, 1 + 64 + 64 + 16}, "release": {1, 2}, "hold": {3, 4 + 8 + 0}} {
			count, sum := fs.observed(t, "idemflight_execution_duration_seconds", disposition)
			require.Equal(t, want, [2]float64{float64(count), sum}, "executions and their seconds: %s", disposition)
		}
	})
}

// TestObserve_Waits: joined callers, and those who waited and got nothing. Who did not wait is not among them.
func TestObserve_Waits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := newCache(t, options{})
		ctx := context.Background()
		go func() { _, _ = c.Do(ctx, "a", after(time.Minute, "receipt", nil)) }()
		synctest.Wait()
		time.Sleep(time.Second)
		go func() { _, _ = c.Do(ctx, "a", returns("", nil)) }() // joins, for 59 s
		go func() {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			_, _ = c.Do(ctx, "a", returns("", nil)) // leaves after 2 s
		}()
		go func() {
			_, _ = c.Do(ctx, "a", returns("", nil), idemflight.WithMaxWait(4*time.Second)) // rejected after 4 s
		}()
		_, err := c.Do(ctx, "a", returns("", nil), idemflight.WithMaxWait(idemflight.NoWait))
		require.ErrorIs(t, err, idemflight.ErrInFlight)
		over, cancel := context.WithCancel(ctx)
		cancel()
		_, err = c.Do(over, "b", returns("", nil))
		require.ErrorIs(t, err, idemflight.ErrCallerLeft)
		synctest.Wait()
		fs := gather(t, r)
		require.Equal(t, 3.0, fs.value(t, "idemflight_waiters", ""))
		require.Equal(t, 1.0, fs.value(t, "idemflight_key_usage", "in_flight"))
		time.Sleep(time.Hour)

		fs = gather(t, r)
		for result, seconds := range map[string]float64{"joined": 59, "left": 2, "rejected": 4} {
			count, sum := fs.observed(t, "idemflight_wait_duration_seconds", result)
			require.Equal(t, uint64(1), count, "waits: %s", result)
			require.InDelta(t, seconds, sum, 1e-9, "their seconds: %s", result)
		}
		require.Equal(t, 2.0, fs.value(t, "idemflight_calls_total", "in_flight"))
		require.Equal(t, 2.0, fs.value(t, "idemflight_calls_total", "caller_left"))
	})
}

// TestObserve_AllocatesNothing for a replay, nor for an execution and a wait.
func TestObserve_AllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	observe := observer()
	for _, kind := range []idemflight.EventKind{idemflight.EventReplayed, idemflight.EventExecuted, idemflight.EventJoined} {
		e := idemflight.Event[string]{Kind: kind, Key: "key", Took: time.Second}
		require.Zero(t, testing.AllocsPerRun(1000, func() { observe(context.Background(), e) }), kind)
	}
}
