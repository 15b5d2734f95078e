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

// To have been replayed once is no right to stay for ever: what is no longer in use gives way to what
// comes after it, however approximate the recency.
func TestWhatIsNoLongerInUseGivesWay(t *testing.T) {
	const places = 64
	c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: places, Protect: -1})
	put := func(key int) {
		fn := func(context.Context) (int, error) { return key, nil }
		_, err := c.Do(context.Background(), key, fn, idemflight.WithFingerprint(idemflight.FingerprintOf(nil)))
		require.NoError(t, err)
	}
	for range 2 { // the second time is a replay
		for key := range places {
			put(key + 1)
		}
	}
	for key := range 4 * places {
		put(1_000_000 + key)
	}
	for key := range places {
		_, kept := c.Lookup(key + 1)
		require.False(t, kept, "key %d was last used %d new keys ago", key+1, 4*places)
	}
}

// A call that looked for room in vain looks at its key once more: another call had it in flight by
// then. The yield point makes the other come exactly in between.
func TestNoErrFullForAKeyThatIsInFlightMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[string, int]{MaxEntries: 1})
		end := make(chan struct{})
		go func() {
			_, _ = c.Do(context.Background(), "other", func(context.Context) (int, error) {
				<-end
				return 0, idemflight.Retryable(errors.New("no effect"))
			})
		}()
		synctest.Wait()
		came := false
		onYield(t, func(point string) {
			if point != "looked for room" || came {
				return
			}
			came = true
			close(end) // the place is free
			synctest.Wait()
			go func() {
				_, _ = c.Do(context.Background(), "k", func(context.Context) (int, error) { time.Sleep(time.Minute); return 1, nil })
			}()
			synctest.Wait()
		})
		defer func() {
			synctest.Wait()
		}()
		r, err := c.DoResult(context.Background(), "k", func(context.Context) (int, error) { return 2, nil })
		require.True(t, came, "the seam: nobody came in between")
		require.NoError(t, err, "the key is in flight, so there is something to wait for")
		require.Equal(t, idemflight.Joined, r.Source)
		require.Equal(t, 1, r.Value)
	})
}

// Do, DoResult and what Wrap returns share a flight's outcome alike: the very error of fn, its value
// beside it, and also what is not kept.
func TestJoinedCallersOfEveryFormGetTheSame(t *testing.T) {
	errFn := errors.New("fn's own")
	for name, end := range map[string]struct {
		err  error
		opts []idemflight.CallOption
	}{
		"value":                {nil, nil},
		"value that is shared": {nil, []idemflight.CallOption{idemflight.WithTTL(0)}},
		"final":                {idemflight.Final(errFn), nil},
		"released":             {idemflight.Retryable(errFn), nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(idemflight.Options[string, int]{})
				fn := func(context.Context) (int, error) { time.Sleep(time.Second); return 7, end.err }
				wrapped := idemflight.Wrap(c, func(key string) (string, idemflight.Fingerprint, error) { return key, idemflight.Fingerprint{}, nil },
					func(ctx context.Context, _ string) (int, error) { return fn(ctx) }, end.opts...)
				type answer struct {
					v   int
					err error
				}
				answers := make(chan answer, 4)
				for _, call := range []func() (int, error){
					func() (int, error) { return c.Do(context.Background(), "k", fn, end.opts...) }, // leads
					func() (int, error) { return c.Do(context.Background(), "k", fn, end.opts...) },
					func() (int, error) {
						r, err := c.DoResult(context.Background(), "k", fn, end.opts...)
						return r.Value, err
					},
					func() (int, error) { return wrapped(context.Background(), "k") },
				} {
					go func() {
						v, err := call()
						answers <- answer{v, err}
					}()
					synctest.Wait()
				}
				for range 4 {
					a := <-answers
					require.Equal(t, 7, a.v, "the value, beside an error too")
					if end.err == nil {
						require.NoError(t, a.err)
					} else {
						require.True(t, a.err == errFn, "fn's own error, not %#v", a.err)
					}
				}
				s := c.Stats()
				require.Equal(t, [2]uint64{1, 3}, [2]uint64{s.Executed, s.Joined}, "Executed and Joined")
			})
		})
	}
}

// The same for room that came meanwhile: an outcome that may go is evicted, whenever it came.
func TestNoErrFullWhileSomethingThatMayGoHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[string, int]{MaxEntries: 1, Protect: -1})
		end := make(chan struct{})
		go func() {
			_, _ = c.Do(context.Background(), "other", func(context.Context) (int, error) { <-end; return 1, nil })
		}()
		synctest.Wait()
		looks := 0
		onYield(t, func(point string) {
			if point == "meet" {
				if looks++; looks == 2 { // after the search, which found nothing that may go
					close(end)
					synctest.Wait()
				}
			}
		})
		defer func() {
			synctest.Wait()
		}()
		v, err := c.Do(context.Background(), "k", func(context.Context) (int, error) { return 2, nil })
		require.GreaterOrEqual(t, looks, 2, "the seam: nothing came in between")
		require.NoError(t, err, "what has come may be evicted")
		require.Equal(t, 2, v)
	})
}

// Close waits for the last of many flights, in whatever order they end.
func TestCloseWaitsForTheLastOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const flights = 256
		c := idemflight.MustNew(idemflight.Options[int, int]{})
		for i := range flights {
			go func() {
				_, _ = c.Do(context.Background(), i+1, func(context.Context) (int, error) {
					time.Sleep(time.Duration(i+1) * time.Second)
					return i, nil
				})
			}()
		}
		synctest.Wait()
		start := time.Now()
		require.NoError(t, c.Close(context.Background()))
		require.Equal(t, flights*time.Second, time.Since(start), "when Close returns")
		require.Zero(t, c.Stats().InFlight)
	})
}
