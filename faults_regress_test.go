package idemflight_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"

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

// A client that tried several addresses joins what it met: if one of them is that it could not dial,
// a POST was not sent.
func TestADialErrorAmongJoinedOnesMeansNotSent(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: errors.New("refused")}
	joined := errors.Join(errors.New("proxy"), dial)
	require.Equal(t, idemflight.Release, idemflight.ClassifyDefault(&url.Error{Op: "Post", Err: joined}))
	require.Equal(t, idemflight.Hold, idemflight.ClassifyDefault(&url.Error{Op: "Get", Err: joined}), "a GET may be the redirect that followed the effect")
	require.Equal(t, idemflight.Hold, idemflight.ClassifyDefault(&url.Error{Op: "Post", Err: errors.Join(errors.New("proxy"), errors.New("other"))}))
}

// The table of what is in flight goes too when the last flight of a burst has ended: a Go map never
// shrinks by itself.
func TestTheTableOfFlightsGoesWithABurst(t *testing.T) {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	type key [16]int64
	const n = 5_000
	c := idemflight.MustNew(idemflight.Options[key, int]{})
	before := heap()
	var most int64
	var fly func(i int64) // one flight within the other, so that n are in flight at once
	fly = func(i int64) {
		_, _ = c.Do(context.Background(), key{i}, func(context.Context) (int, error) {
			if i == n {
				most = heap() - before
			} else {
				fly(i + 1)
			}
			return 0, idemflight.Retryable(errors.New("nothing is kept"))
		})
	}
	fly(1)
	require.Greater(t, most, int64(n*128), "the measure itself: %d keys must show in the heap", n)
	require.Less(t, heap()-before, int64(n*64), "of %d bytes in flight almost nothing may stay, tables included", most)
	runtime.KeepAlive(c)
}

// All callers are told when an outcome expires that has a TTL of its own, the flight's included.
func TestExpiresAtOfATTLOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[string, int]{TTL: time.Hour, HoldTTL: -1})
		fn := func(context.Context) (int, error) { time.Sleep(time.Second); return 1, nil }
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
			require.True(t, want.Equal(r.ExpiresAt), "%v: expires at %v, want %v", r.Source, r.ExpiresAt, want)
		}
		held, err := c.DoResult(context.Background(), "held", func(context.Context) (int, error) {
			return 0, idemflight.Unknown(errors.New("no answer"))
		})
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.Zero(t, held.ExpiresAt, "what is held without end")
	})
}

// What is forgotten or resolved need not expire first: with the last key its timer goes, which would
// keep an abandoned cache alive for the rest of the TTL.
func TestAnAbandonedCacheWithoutKeysIsCollectedSoon(t *testing.T) {
	type cache = idemflight.Cache[string, int]
	for name, use := range map[string]func(t *testing.T, c *cache){
		"forgotten": func(t *testing.T, c *cache) {
			_, err := c.Do(context.Background(), "k", func(context.Context) (int, error) { return 1, nil })
			require.NoError(t, err)
			require.True(t, c.Forget("k"))
		},
		"resolved: no effect": func(t *testing.T, c *cache) {
			_, err := c.Do(context.Background(), "k", func(context.Context) (int, error) { return 0, idemflight.Unknown(errors.New("lost")) })
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			require.True(t, c.Resolve("k", 0, idemflight.Retryable(errors.New("no effect"))))
		},
		"closed": func(t *testing.T, c *cache) {
			_, err := c.Do(context.Background(), "k", func(context.Context) (int, error) { return 1, nil })
			require.NoError(t, err)
			require.NoError(t, c.Close(t.Context()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				made := func() weak.Pointer[cache] {
					c := idemflight.MustNew(idemflight.Options[string, int]{TTL: time.Hour})
					use(t, c)
					return weak.Make(c)
				}()
				time.Sleep(time.Second) // far from an hour; the runtime lets go of a stopped timer when it looks at others
				runtime.GC()
				require.True(t, made.Value() == nil, "no timer keeps it alive")
			})
		})
	}
}
