package idemflight_test

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
)

// Promise 23: Forget drops what is kept. A flight goes on, and its outcome is not retained, unless
// it turns out unknown: then the key is held all the same.
func TestPromise23_ForgetDropsWhatIsKept(t *testing.T) {
	for _, s := range keptStates {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &eventLog[string]{}
				c := idemflight.MustNew(weighted(options{MaxEntries: 1, TTL: time.Minute, MinRetention: time.Minute, Observer: log.observe}))
				require.False(t, forget(c, "k"), "nothing there")
				s.put(t, c)
				require.False(t, forget(c, "other"))
				require.True(t, forget(c, "k"))
				require.False(t, forget(c, "k"), "nothing there any more")
				_, ok := lookup(c, "k")
				require.False(t, ok)
				st := c.Stats()
				require.Zero(t, st.Entries+st.Held+int(st.Weight)+c.Len(),
					"place, hold and weight are given back: %+v", st)
				executes(t, c, "k", 2, idemflight.WithFingerprint(fingerprint(2)))
				time.Sleep(time.Minute + reclaimDelay(time.Minute))
				synctest.Wait()
				require.Len(t, log.of(idemflight.EventExpired), 1,
					"what was forgotten does not expire later")
			})
		})
	}
}

func TestPromise23_ForgetInFlight(t *testing.T) {
	cases := []struct {
		name string
		err  error // what fn returns
		want error
		held bool
	}{
		{"success", nil, nil, false},
		{"final", idemflight.Final(errBoom), errBoom, false},
		{"retryable", idemflight.Retryable(errBoom), errBoom, false},
		{"unknown is held all the same", idemflight.Unknown(errBoom), idemflight.ErrOutcomeUnknown, true},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &eventLog[string]{}
				c := idemflight.MustNew(weighted(options{MaxEntries: 1, Observer: log.observe}))
				end := fly(t, c, "k")
				var wg sync.WaitGroup
				join := func() {
					wg.Go(func() {
						r, err := c.DoResult(bg, "k", neverRuns(t))
						if !errors.Is(err, tc.want) || r.Value != 7 || r.Source != idemflight.Joined {
							t.Errorf("a joined caller got (%d, %v) by %v, expected (7, %v) by joined", r.Value, err, r.Source, tc.want)
						}
					})
					synctest.Wait()
				}
				join()
				require.True(t, forget(c, "k"), "on a key in flight")
				join() // arriving after Forget, before the end
				require.True(t, forget(c, "k"), "it is still in flight")
				e, ok := lookup(c, "k")
				require.True(t, ok)
				require.Equal(t, idemflight.InFlight, e.State)
				require.Equal(t, 2, e.Waiters)
				_, err := c.Do(bg, "k", neverRuns(t), idemflight.WithFingerprint(fingerprint(1)))
				require.ErrorIs(t, err, idemflight.ErrKeyReused)
				_, err = c.Do(bg, "other", neverRuns(t))
				require.ErrorIs(t, err, idemflight.ErrFull, "its place is still taken")

				r, err := end(7, tc.err)
				require.ErrorIs(t, err, tc.want)
				require.Equal(t, 7, r.Value)
				wg.Wait()
				e, ok = lookup(c, "k")
				require.Equal(t, tc.held, ok)
				st := c.Stats()
				if tc.held {
					require.Equal(t, idemflight.Held, e.State)
					require.True(t, r.ExpiresAt.Equal(e.ExpiresAt))
					require.EqualValues(t, 1, st.Holds)
				} else {
					require.Zero(t, r.ExpiresAt, "the outcome is not kept")
					require.Equal(t, idemflight.Release, log.of(idemflight.EventExecuted)[0].Disposition)
					require.EqualValues(t, 1, st.Releases)
					executes(t, c, "k", 9)
					require.Zero(t, c.Stats().Evicted, "its place was given back")
				}
				require.Zero(t, st.Retains)
			})
		})
	}
}

func TestPromise23_ForgetDuringReconcile(t *testing.T) {
	cases := []struct {
		name  string
		finds error
		held  bool
		want  error
		runs  bool
	}{
		{name: "what it finds is not retained", finds: nil},
		{name: "final neither", finds: idemflight.Final(errBoom), want: errBoom},
		{name: "finding nothing holds again", finds: errBoom, held: true, want: idemflight.ErrOutcomeUnknown},
		{name: "no effect: fn runs and is not retained", finds: idemflight.Retryable(errBoom), runs: true},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gate := make(chan struct{})
				c := idemflight.MustNew(options{Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
					<-gate
					return 3, tc.finds
				}})
				hold(t, c, "k")
				done := make(chan error, 1)
				ran := false
				go func() {
					_, err := c.Do(bg, "k", func(context.Context) (int, error) { ran = true; return 4, nil })
					done <- err
				}()
				synctest.Wait()
				require.True(t, forget(c, "k"))
				close(gate)
				err := <-done
				require.ErrorIs(t, err, tc.want)
				require.Equal(t, tc.runs, ran, "whether fn ran")
				e, ok := lookup(c, "k")
				require.Equal(t, tc.held, ok, "what is kept: %+v", e)
				if tc.held {
					require.Equal(t, idemflight.Held, e.State)
				}
			})
		})
	}
}

// The Observer of the first leader's end starts the next execution of the key at the very moment
// when nothing is kept any more, and before the first call has returned.
func TestPromise23_AFlightLeavesWhatCameAfterItAlone(t *testing.T) {
	ways := map[string]struct {
		fn   func(context.Context) (int, error)
		opts []idemflight.CallOption
		want error
	}{
		"released":   {returns(0, idemflight.Retryable(errBoom)), nil, errBoom},
		"WithTTL(0)": {returns(1, nil), []idemflight.CallOption{idemflight.WithTTL(0)}, nil},
		"forgotten":  {nil, nil, nil},
	}
	for name, w := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c *cache
				var nested atomic.Bool
				c = idemflight.MustNew(options{Observer: func(_ context.Context, e idemflight.Event[string]) {
					if e.Kind == idemflight.EventExecuted && nested.CompareAndSwap(false, true) {
						executes(t, c, "k", 2)
					}
				}})
				fn := w.fn
				if fn == nil {
					fn = func(context.Context) (int, error) { forget(c, "k"); return 1, nil }
				}
				_, err := c.Do(bg, "k", fn, w.opts...)
				require.ErrorIs(t, err, w.want)
				require.True(t, nested.Load())
				synctest.Wait()
				require.Equal(t, 2, replays(t, c, "k"),
					"the end of the first flight must not touch the second's outcome")
				require.Equal(t, 1, c.Len())
				require.Zero(t, c.Stats().InFlight)
			})
		})
	}
}

// Promise 24: Close refuses new executions and waits for those in flight. Save and Load, or All and
// Restore, carry the keys over a planned restart; what was interrupted is held.
func TestPromise24_NewExecutionsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{TTL: time.Minute, Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
			t.Error("Reconcile ran, expected that it is refused")
			return 0, nil
		}})
		executes(t, c, "expiring", 1)
		time.Sleep(30 * time.Second)
		hold(t, c, "held")
		executes(t, c, "forgotten", 2)
		executes(t, c, "kept", 3)
		require.NoError(t, c.Close(bg))
		time.Sleep(30 * time.Second)
		require.True(t, forget(c, "forgotten"), "what needs no execution goes on")
		for _, k := range []string{"new", "expiring", "forgotten"} {
			for _, opts := range [][]idemflight.CallOption{nil, {idemflight.Inline()}, {idemflight.WithTTL(0)}} {
				r, err := c.DoResult(bg, k, neverRuns(t), opts...)
				require.ErrorIs(t, err, idemflight.ErrClosed, "a new execution of %q", k)
				require.Zero(t, r)
			}
		}
		_, err := c.Do(bg, "held", neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown,
			"Reconcile's execution is refused, the key is still held")
		require.ErrorIs(t, err, errBoom)
		require.NotErrorIs(t, err, idemflight.ErrClosed)
		require.Equal(t, 3, replays(t, c, "kept"), "replays go on")
		require.True(t, resolve(c, "held", 4, nil))
		require.Equal(t, 4, replays(t, c, "held"))
		require.EqualValues(t, 9, c.Stats().Closed)
		require.Equal(t, 2, c.Len())
	})
}

func TestPromise24_FlightsAndJoinsGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		end := fly(t, c, "k")
		closed := make(chan error, 1)
		go func() { closed <- c.Close(bg) }()
		synctest.Wait()
		_, err := c.Do(bg, "new", neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrClosed,
			"refused from the moment of Close on, not of its return")
		joined := make(chan idemflight.Result[int], 1)
		go func() {
			r, err := c.DoResult(bg, "k", neverRuns(t))
			if err != nil {
				t.Errorf("a call that joins after Close got %v, expected the outcome", err)
			}
			joined <- r
		}()
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Empty(t, closed, "Close waits while an execution is in flight")
		r, err := end(5, nil)
		require.NoError(t, err)
		require.False(t, r.ExpiresAt.IsZero(), "the outcome is kept as usual")
		require.Equal(t, 5, (<-joined).Value)
		require.NoError(t, <-closed)
		require.Equal(t, 5, replays(t, c, "k"))
	})
}

// A flight that has begun goes on to its end, even from Reconcile to fn.
func TestPromise24_AFlightGoesOnFromReconcileToFn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		c := idemflight.MustNew(options{Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
			<-gate
			return 0, idemflight.Retryable(errBoom)
		}})
		hold(t, c, "k")
		done := make(chan idemflight.Result[int], 1)
		go func() {
			r, err := c.DoResult(bg, "k", returnsAfter(time.Minute, 6, nil))
			if err != nil {
				t.Errorf("the leader got %v, expected fn's value", err)
			}
			done <- r
		}()
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- c.Close(bg) }()
		synctest.Wait()
		close(gate)
		time.Sleep(30 * time.Second)
		require.Empty(t, closed, "fn runs in the flight that Close waits for")
		time.Sleep(30 * time.Second)
		require.NoError(t, <-closed)
		r := <-done
		require.Equal(t, 6, r.Value)
		require.Equal(t, idemflight.Executed, r.Source)
	})
}

func TestPromise24_CloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("shutdown deadline")
		c := idemflight.MustNew(options{})
		// Two flights; the leader of one has left, and fn ignores its context.
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		_, err := c.Do(ctx, "left", returnsAfter(time.Minute, 1, nil))
		require.ErrorIs(t, err, idemflight.ErrCallerLeft)
		go func() {
			_, _ = c.Do(bg, "inline", returnsAfter(2*time.Minute, 2, nil), idemflight.Inline())
		}()
		synctest.Wait()
		start := time.Now()

		canceled, cancelCause := context.WithCancelCause(bg)
		cancelCause(cause)
		err = c.Close(canceled)
		require.ErrorIs(t, err, cause, "Close answers with context.Cause")
		require.True(t, time.Now().Equal(start))
		require.ErrorIs(t, c.Close(dead(context.Canceled)), context.Canceled)
		timeout, cancel2 := context.WithTimeoutCause(bg, time.Second, cause)
		defer cancel2()
		require.ErrorIs(t, c.Close(timeout), cause)
		require.Equal(t, time.Second, time.Since(start), "it waits until its context ends")

		var wg sync.WaitGroup
		for range 3 { // calling it again is safe, at the same time too
			wg.Go(func() {
				if err := c.Close(bg); err != nil {
					t.Errorf("Close got %v, expected nil", err)
				}
				if took := time.Since(start); took != 2*time.Minute {
					t.Errorf("Close returned after %v, expected when the last execution ended, 2m0s", took)
				}
			})
		}
		wg.Wait()
		require.NoError(t, c.Close(bg))
		require.Equal(t, 1, replays(t, c, "left"))
		require.Equal(t, 2, replays(t, c, "inline"))
	})
}

// Once: no test noticed the planted fault that Close waited for one of many flights, and not for
// the last.
func TestClose_WaitsForTheLastOfMany(t *testing.T) {
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

func TestPromise24_WithNothingInFlightCloseIsNilWhateverTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 20 { // no coin may be tossed
			c := idemflight.MustNew(options{})
			require.NoError(t, c.Close(dead(context.Canceled)), "a cache never used")
			require.NoError(t, c.Close(dead(context.Canceled)), "again")
			c = idemflight.MustNew(options{})
			executes(t, c, "k", 1)
			hold(t, c, "h")
			require.NoError(t, c.Close(dead(context.Canceled)), "kept keys are not in flight")
			require.NoError(t, c.Close(bg))
			_, err := c.Do(bg, "new", neverRuns(t))
			require.ErrorIs(t, err, idemflight.ErrClosed)
		}
	})
}

func TestPromise24_CloseFromInsideAnExecution(t *testing.T) {
	ways := map[string]func(ctx context.Context, c *cache) error{
		"fn's context": func(ctx context.Context, c *cache) error { return c.Close(ctx) },
		"a derived context, ended": func(ctx context.Context, c *cache) error {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return c.Close(ctx)
		},
		"another goroutine of fn": func(ctx context.Context, c *cache) error {
			got := make(chan error)
			go func() { got <- c.Close(ctx) }()
			return <-got
		},
		"an inner execution": func(ctx context.Context, c *cache) error {
			v, err := c.DoResult(ctx, "inner", func(ctx context.Context) (int, error) { return 0, idemflight.Final(c.Close(ctx)) })
			_ = v
			return err
		},
		"an inner execution of another cache": func(ctx context.Context, c *cache) error {
			_, err := idemflight.MustNew(options{}).Do(ctx, "inner", func(ctx context.Context) (int, error) { return 0, idemflight.Final(c.Close(ctx)) })
			return err
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{})
				start := time.Now()
				_, err := c.Do(bg, "k", func(ctx context.Context) (int, error) {
					require.ErrorIs(t, way(ctx, c), idemflight.ErrReentrant,
						"waiting would be for itself")
					_, err := c.Do(bg, "new", neverRuns(t))
					require.ErrorIs(t, err, idemflight.ErrClosed, "it closes all the same")
					return 1, nil
				})
				require.NoError(t, err)
				require.True(t, time.Now().Equal(start), "without waiting")
				require.NoError(t, c.Close(bg))
			})
		})
	}
	t.Run("Reconcile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var c *cache
			c = idemflight.MustNew(options{Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
				return 3, idemflight.Final(c.Close(ctx))
			}})
			hold(t, c, "k")
			_, err := c.Do(bg, "k", neverRuns(t))
			require.ErrorIs(t, err, idemflight.ErrReentrant)
		})
	})
	t.Run("an execution of another cache waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, other := idemflight.MustNew(options{}), idemflight.MustNew(options{})
			end := fly(t, c, "k")
			go func() {
				time.Sleep(time.Minute)
				_, _ = end(1, nil)
			}()
			start := time.Now()
			_, err := other.Do(bg, "k", func(ctx context.Context) (int, error) { return 0, c.Close(context.WithoutCancel(ctx)) })
			require.NoError(t, err, "no execution of this cache is around the call")
			require.Equal(t, time.Minute, time.Since(start))
		})
	})
}

func TestPromise24_TimersStop(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			log := &eventLog[string]{}
			c := idemflight.MustNew(options{TTL: time.Minute, HoldTTL: time.Minute, Observer: log.observe})
			executes(t, c, "a", 1)
			hold(t, c, "b")
			if late { // an outcome settled after Close arms none either
				end := fly(t, c, "late")
				require.ErrorIs(t, c.Close(dead(context.Canceled)), context.Canceled)
				_, err := end(1, nil)
				require.NoError(t, err)
			}
			require.NoError(t, c.Close(bg))
			time.Sleep(24 * time.Hour)
			synctest.Wait()
			require.Empty(t, log.of(idemflight.EventExpired),
				"no timer rings after Close: expired memory waits for the next call")
			_, ok := lookup(c, "a")
			require.False(t, ok, "expired is expired all the same")
			require.Zero(t, c.Len())
			_, err := c.Do(bg, "b", neverRuns(t))
			require.ErrorIs(t, err, idemflight.ErrClosed)
		})
	}
}

// Flights that end after Close leave their outcomes to be replayed, and no timer.
func TestPromise24_NoTimerIsSetAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fired atomic.Int64
		onYield(t, func(point string) {
			if point == "fired" {
				fired.Add(1)
			}
		})
		c := idemflight.MustNew(options{TTL: time.Minute})
		end := fly(t, c, "k")
		require.Error(t, c.Close(dead(context.Canceled)))
		_, err := end(1, nil)
		require.NoError(t, err)
		require.Equal(t, 1, replays(t, c, "k"))
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Zero(t, fired.Load())
		require.Zero(t, c.Len())
	})
}
