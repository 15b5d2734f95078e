package idemflight_test

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/idemflight/idemflight"
)

func TestPromise06_DoFromInsideItsOwnExecutionIsReentrant(t *testing.T) {
	again := func(t *testing.T, c *cache, ctx context.Context, opts ...idemflight.CallOption) {
		began := time.Now()
		r, err := c.DoResult(ctx, theKey, neverRuns(t), opts...)
		require.ErrorIs(t, err, idemflight.ErrReentrant, "a call that would wait for itself")
		require.NotErrorIs(t, err, idemflight.ErrLeft, "being re-entrant comes first")
		require.NotErrorIs(t, err, idemflight.ErrInFlight, "being re-entrant comes first")
		require.NotErrorIs(t, err, idemflight.ErrKeyReused, "being re-entrant comes first")
		require.Zero(t, r, "no outcome was obtained")
		require.Zero(t, time.Since(began), "it is told at once, without waiting")
	}
	for name, inside := range map[string]func(t *testing.T, c *cache, ctx context.Context){
		"fn's own context": func(t *testing.T, c *cache, ctx context.Context) { again(t, c, ctx) },
		"twice":            func(t *testing.T, c *cache, ctx context.Context) { again(t, c, ctx); again(t, c, ctx) },
		"Inline":           func(t *testing.T, c *cache, ctx context.Context) { again(t, c, ctx, idemflight.Inline()) },
		"NoWait": func(t *testing.T, c *cache, ctx context.Context) {
			again(t, c, ctx, idemflight.WithMaxWait(idemflight.NoWait))
		},
		"MaxWait": func(t *testing.T, c *cache, ctx context.Context) {
			again(t, c, ctx, idemflight.WithMaxWait(time.Second))
		},
		"other fingerprint": func(t *testing.T, c *cache, ctx context.Context) {
			again(t, c, ctx, idemflight.WithFingerprint(idemflight.Fingerprint{1}))
		},
		"value": func(t *testing.T, c *cache, ctx context.Context) {
			again(t, c, context.WithValue(ctx, nameKey{}, 1))
		},
		"cancel": func(t *testing.T, c *cache, ctx context.Context) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			again(t, c, ctx)
		},
		"cancelled": func(t *testing.T, c *cache, ctx context.Context) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			again(t, c, ctx)
		},
		"without cancel": func(t *testing.T, c *cache, ctx context.Context) { again(t, c, context.WithoutCancel(ctx)) },
		"a context type of the user's": func(t *testing.T, c *cache, ctx context.Context) {
			again(t, c, struct{ context.Context }{ctx})
		},
		"after ExecTimeout": func(t *testing.T, c *cache, ctx context.Context) {
			time.Sleep(time.Minute)
			again(t, c, ctx)
		},
		"another goroutine": func(t *testing.T, c *cache, ctx context.Context) {
			var group errgroup.Group
			for range 3 {
				group.Go(func() error { again(t, c, ctx); return nil })
			}
			_ = group.Wait()
		},
		"from an execution of another key": func(t *testing.T, c *cache, ctx context.Context) {
			_, err := c.Do(ctx, "other", func(ctx context.Context) (int, error) {
				again(t, c, ctx)
				return 1, nil
			})
			require.NoError(t, err)
		},
		"through WithoutCancel of another execution": func(t *testing.T, c *cache, ctx context.Context) {
			_, err := c.Do(context.WithoutCancel(ctx), "other", func(ctx context.Context) (int, error) {
				again(t, c, context.WithoutCancel(ctx))
				return 1, nil
			}, idemflight.Inline())
			require.NoError(t, err)
		},
		"ten deep, in other caches": func(t *testing.T, c *cache, ctx context.Context) {
			strings := idemflight.MustNew(idemflight.Options[int, string]{})
			var down func(ctx context.Context, depth int) (string, error)
			down = func(ctx context.Context, depth int) (string, error) {
				again(t, c, ctx)
				if depth == 10 {
					return "deep", nil
				}
				if depth%2 == 0 {
					_, err := c.Do(ctx, "depth "+strconv.Itoa(depth), func(ctx context.Context) (int, error) {
						_, err := down(context.WithValue(ctx, nameKey{}, depth), depth+1)
						return depth, err
					})
					return "", err
				}
				return strings.Do(ctx, depth, func(ctx context.Context) (string, error) { return down(ctx, depth+1) })
			}
			_, err := down(ctx, 0)
			require.NoError(t, err)
		},
		"from Reconcile of another cache": func(t *testing.T, c *cache, ctx context.Context) {
			other := idemflight.MustNew(options{Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
				again(t, c, ctx)
				return 1, nil
			}})
			_, err := other.Do(ctx, theKey, returns(0, idemflight.Unknown(errBoom)))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			v, err := other.Do(ctx, theKey, neverRuns(t))
			require.NoError(t, err)
			require.Equal(t, 1, v)
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(options{ExecTimeout: 2 * time.Second})
				ran := false
				call := start(c, ctx, theKey, func(ctx context.Context) (int, error) {
					inside(t, c, ctx)
					ran = true
					return 1, nil
				}, opts...)
				time.Sleep(time.Hour)
				synctest.Wait()
				require.True(t, call.returned() && ran, "nobody waits for itself")
				v, err := c.Do(t.Context(), theKey, neverRuns(t))
				require.NoError(t, err, "the execution goes on and ends as if it had not asked")
				require.Equal(t, 1, v, "the execution goes on and ends as if it had not asked")
				require.NotZero(t, c.Stats().Reentrant, "Stats.Reentrant")
			})
		})
	}
}

func TestPromise06_ReconcileIsAnExecutionOfItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c *cache
		c = idemflight.MustNew(options{Reconcile: func(ctx context.Context, key string, _ idemflight.Entry[int]) (int, error) {
			_, err := c.Do(ctx, key, neverRuns(t))
			require.ErrorIs(t, err, idemflight.ErrReentrant, "Do from inside Reconcile of the key")
			return 0, idemflight.Retryable(errBoom)
		}})
		_, err := c.Do(t.Context(), theKey, returns(0, idemflight.Unknown(errBoom)))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		v, err := c.Do(t.Context(), theKey, func(ctx context.Context) (int, error) {
			_, err := c.Do(ctx, theKey, neverRuns(t))
			require.ErrorIs(t, err, idemflight.ErrReentrant, "Do from inside fn that runs after Reconcile, in its flight")
			return 1, nil
		})
		require.NoError(t, err)
		require.Equal(t, 1, v)
		require.EqualValues(t, 2, c.Stats().Reentrant, "Stats.Reentrant")
	})
}

func TestPromise06_OnlyTheRunningExecutionItselfCounts(t *testing.T) {
	eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
		c := idemflight.MustNew(options{})
		var old context.Context
		_, err := c.Do(ctx, theKey, func(ctx context.Context) (int, error) {
			old = context.WithoutCancel(ctx)
			v, err := idemflight.MustNew(options{}).Do(ctx, theKey, returns(7, nil))
			require.NoError(t, err, "the same key of another cache is another key")
			require.Equal(t, 7, v)
			return 0, idemflight.Retryable(errBoom)
		}, opts...)
		require.ErrorIs(t, err, errBoom)

		// The execution that old belongs to is over: from here on old is nothing special.
		work := newWork(t)
		leader := start(c, ctx, theKey, work.returns(1, nil), opts...)
		synctest.Wait()
		joined := start(c, old, theKey, neverRuns(t))
		synctest.Wait()
		require.False(t, joined.returned(), "a context of an earlier execution of the key waits for the present one like any other")
		work.open()
		synctest.Wait()
		leader.got(t, idemflight.Executed, 1)
		joined.got(t, idemflight.Joined, 1)

		replayed := start(c, old, theKey, neverRuns(t))
		synctest.Wait()
		replayed.got(t, idemflight.Replayed, 1)

		c.Forget(theKey)
		next := start(c, old, theKey, func(ctx context.Context) (int, error) {
			_, err := c.Do(ctx, theKey, neverRuns(t))
			require.ErrorIs(t, err, idemflight.ErrReentrant, "an execution started with a context of an earlier one of the key is itself an execution")
			return 2, nil
		}, opts...)
		synctest.Wait()
		next.got(t, idemflight.Executed, 2)
	})
}

func TestPromise06_WhatOutlivesTheExecutionIsNoLongerInsideIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{ExecTimeout: time.Second})
		gate := newGate(t)
		var inner idemflight.Result[int]
		_, err := c.Do(t.Context(), theKey, func(ctx context.Context) (int, error) {
			ctx, cancel := context.WithCancel(ctx)
			cancel2 := time.AfterFunc(time.Millisecond, cancel)
			defer cancel2.Stop()
			_, err := c.Do(ctx, "inner", func(ctx context.Context) (int, error) {
				gate.wait() // its caller leaves, and then the outer execution ends
				var err error
				inner, err = c.DoResult(ctx, theKey, neverRuns(t))
				return 2, err
			})
			require.ErrorIs(t, err, idemflight.ErrLeft)
			return 1, nil
		})
		require.NoError(t, err)
		gate.open()
		synctest.Wait()
		require.Equal(t, idemflight.Replayed, inner.Source, "the outer execution is over, its outcome is replayed to the inner one")
		require.Equal(t, 1, inner.Value)
	})
}

func TestPromise06_ItIsSeenThroughTheContextOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		v, err := c.Do(t.Context(), theKey, func(context.Context) (int, error) {
			_, err := c.Do(context.Background(), theKey, neverRuns(t), idemflight.WithMaxWait(time.Second))
			require.ErrorIs(t, err, idemflight.ErrInFlight, "without fn's context the call is one like any other")
			return 1, nil
		})
		require.NoError(t, err)
		require.Equal(t, 1, v)
	})
}

func TestPromise06_TwoThatWaitForEachOtherEndWithTheirContexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{ExecTimeout: 10 * time.Second})
		waitFor := func(key string) intFn {
			return func(ctx context.Context) (int, error) {
				time.Sleep(time.Second) // until both are in flight
				_, err := c.Do(ctx, key, neverRuns(t))
				require.ErrorIs(t, err, idemflight.ErrLeft, "the wait ends with the context of the caller")
				require.NotErrorIs(t, err, idemflight.ErrReentrant, "this is not detected")
				return 0, err
			}
		}
		a := start(c, context.Background(), "a", waitFor("b"))
		b := start(c, context.Background(), "b", waitFor("a"))
		time.Sleep(9 * time.Second)
		synctest.Wait()
		require.False(t, a.returned() || b.returned(), "both wait until ExecTimeout")
		time.Sleep(time.Second)
		synctest.Wait()
		require.True(t, a.returned() && b.returned(), "ExecTimeout ends it")
		require.Equal(t, 10*time.Second, a.took())
		require.Equal(t, 10*time.Second, b.took())
	})
}
