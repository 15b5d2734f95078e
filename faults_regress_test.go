package idemflight_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// What the suite once did not notice: each test is named after what a planted fault broke.

// Do and DoResult replay alike when the caller's context has ended.
func TestDoReplaysThoughTheContextHasEnded(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[string, int]{})
	fn := func(context.Context) (int, error) { return 7, nil }
	_, err := c.Do(t.Context(), "k", fn)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	v, err := c.Do(ctx, "k", fn)
	require.NoError(t, err, "a retained outcome is replayed all the same")
	require.Equal(t, 7, v)
	_, err = c.Do(ctx, "other", fn)
	require.ErrorIs(t, err, idemflight.ErrLeft, "where nothing is kept, fn is not started")
}

// A joined caller that waits no longer, or has left, does not end the context of an fn that heeds it.
func TestTheFlightGoesOnWhenAJoinedCallerDoesNot(t *testing.T) {
	for name, join := range map[string]struct {
		timeout time.Duration
		opts    []idemflight.CallOption
		err     error
	}{
		"MaxWait":             {time.Hour, []idemflight.CallOption{idemflight.WithMaxWait(time.Second)}, idemflight.ErrInFlight},
		"its context's end":   {time.Second, nil, idemflight.ErrLeft},
		"not waiting at all":  {time.Hour, []idemflight.CallOption{idemflight.WithMaxWait(idemflight.NoWait)}, idemflight.ErrInFlight},
		"another fingerprint": {time.Hour, []idemflight.CallOption{idemflight.WithFingerprint(idemflight.FingerprintOf(nil))}, idemflight.ErrKeyReused},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(idemflight.Options[string, int]{})
				led := make(chan error, 1)
				go func() {
					_, err := c.Do(context.Background(), "k", func(ctx context.Context) (int, error) {
						select {
						case <-ctx.Done():
							return 0, ctx.Err()
						case <-time.After(time.Minute):
							return 1, nil
						}
					})
					led <- err
				}()
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), join.timeout)
				defer cancel()
				_, err := c.Do(ctx, "k", func(context.Context) (int, error) { return 2, nil }, join.opts...)
				require.ErrorIs(t, err, join.err)
				require.NoError(t, <-led, "fn's context has not ended")
			})
		})
	}
}
