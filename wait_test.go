package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// Promise 9: All callers of a flight get the same value and the same error; zero and nil are values
// like any other.
func TestPromise09_AllCallersGetTheSameValueAndTheSameError(t *testing.T) {
	type thing struct{ n int }
	one := &thing{1}
	plain := &plainError{"declined"}
	for name, end := range map[string]struct {
		value *thing
		err   error
		want  error
		kept  bool
		none  bool // fn says that nothing has begun
	}{
		"success":        {value: one, kept: true},
		"nil, nil":       {kept: true},
		"unmarked":       {value: one, err: plain, want: plain, none: true},
		"final":          {value: one, err: idemflight.Final(plain), want: plain, kept: true},
		"retryable":      {value: one, err: idemflight.Retryable(plain), want: plain},
		"nil, unmarked":  {err: plain, want: plain, none: true},
		"nil, final":     {err: idemflight.Final(plain), want: plain, kept: true},
		"marked by kind": {value: one, err: idemflight.Final(sliceError{"a"}), want: sliceError{"a"}, kept: true},
		"plain slice":    {value: one, err: sliceError{"a"}, want: sliceError{"a"}, none: true},
	} {
		t.Run(name, func(t *testing.T) {
			eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(idemflight.Options[int, *thing]{})
				gate := newGate(t)
				calls := []*pending[*thing]{start(c, ctx, 1, func(ctx context.Context) (*thing, error) {
					gate.wait()
					if end.none {
						idemflight.NoEffect(ctx)
					}
					return end.value, end.err
				}, opts...)}
				synctest.Wait()
				calls = append(calls,
					start(c, t.Context(), 1, neverRunsAs[*thing](t)),
					start(c, context.Background(), 1, neverRunsAs[*thing](t)),
					start(c, t.Context(), 1, neverRunsAs[*thing](t), idemflight.Inline()),
					start(c, t.Context(), 1, neverRunsAs[*thing](t), idemflight.WithMaxWait(time.Hour)))
				synctest.Wait()
				gate.open()
				synctest.Wait()
				if end.kept {
					calls = append(calls, start(c, t.Context(), 1, neverRunsAs[*thing](t)), start(c, dead(errEnough), 1, neverRunsAs[*thing](t)))
					synctest.Wait()
				}
				for i, call := range calls {
					require.True(t, call.returned() && call.panicked == nil && !call.exited,
						"call %d must have returned", i)
					require.Equal(t, []idemflight.Source{idemflight.Executed, idemflight.Joined, idemflight.Joined, idemflight.Joined, idemflight.Joined, idemflight.Replayed, idemflight.Replayed}[i], call.res.Source, "source of call %d", i)
					if end.value == nil {
						require.Nil(t, call.res.Value, "value of call %d", i)
					} else {
						require.Same(t, end.value, call.res.Value,
							"every caller gets the very value that fn returned, call %d did not", i)
					}
					require.IsType(t, end.want, call.err, "every caller gets the very error that fn returned or marked, call %d did not", i)
					require.Equal(t, end.want, call.err, "every caller gets the very error that fn returned or marked, call %d did not", i)
					if end.want == error(plain) {
						require.Same(t, plain, call.err, "every caller gets the very error that fn returned or marked, call %d did not", i)
					}
				}
			})
		})
	}
}

func TestPromise09_ValueIsReturnedWithAnError(t *testing.T) {
	for name, end := range map[string]struct {
		err      error
		replayed bool
		held     bool
	}{
		"unmarked":  {errBoom, false, true},
		"retryable": {idemflight.Retryable(errBoom), false, false},
		"final":     {idemflight.Final(errBoom), true, false},
		"unknown":   {idemflight.Unknown(errBoom), false, true},
		"ambiguous": {fmt.Errorf("%w: %w", errBoom, context.DeadlineExceeded), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(options{})
				work := newWork(t)
				leader := start(c, ctx, theKey, work.returns(7, end.err), opts...)
				synctest.Wait()
				joined := start(c, t.Context(), theKey, neverRuns(t))
				synctest.Wait()
				work.open()
				synctest.Wait()
				for _, call := range []*pending[int]{leader, joined} {
					require.ErrorIs(t, call.err, errBoom)
					require.Equal(t, end.held, errors.Is(call.err, idemflight.ErrOutcomeUnknown),
						"is ErrOutcomeUnknown: %v", call.err)
					require.Equal(t, 7, call.res.Value,
						"the callers of the flight get fn's value, also with an error")
				}
				require.Equal(t, idemflight.Executed, leader.res.Source)
				require.Equal(t, idemflight.Joined, joined.res.Source)
				if end.replayed {
					v, err := c.Do(t.Context(), theKey, neverRuns(t))
					require.ErrorIs(t, err, errBoom)
					require.Equal(t, 7, v, "the value is part of the outcome that is replayed")
				}
				if end.held {
					v, err := c.Do(t.Context(), theKey, neverRuns(t))
					require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
					require.ErrorIs(t, err, errBoom)
					require.Zero(t, v, "a held key keeps no value")
				}
			})
		})
	}
}

// checkValue requires that v, a zero or nil value, is executed, joined and replayed like any other. (Each type is a
// Cache to compile, so there is one of each sort.)
func checkValue[V any](t *testing.T, name string, v V) {
	t.Run(name, func(t *testing.T) {
		eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
			c := idemflight.MustNew(idemflight.Options[int, V]{})
			gate := newGate(t)
			calls := []*pending[V]{start(c, ctx, 1, func(context.Context) (V, error) { gate.wait(); return v, nil }, opts...)}
			synctest.Wait()
			calls = append(calls, start(c, t.Context(), 1, neverRunsAs[V](t)))
			synctest.Wait()
			gate.open()
			synctest.Wait()
			calls = append(calls, start(c, t.Context(), 1, neverRunsAs[V](t)))
			synctest.Wait()
			for i, call := range calls {
				call.got(t, []idemflight.Source{idemflight.Executed, idemflight.Joined, idemflight.Replayed}[i], v)
			}
			e, ok := lookup(c, 1)
			require.True(t, ok)
			require.Equal(t, idemflight.Retained, e.State, "it is kept like any value")
			require.Equal(t, 1, c.Len(), "it is kept like any value")
		})
	})
}

func TestPromise09_ZeroAndNilValuesAreValues(t *testing.T) {
	checkValue(t, "0", 0)
	checkValue(t, "empty string", "")
	checkValue(t, "no fields", struct{}{})
	checkValue(t, "nil pointer", (*int)(nil))
	checkValue(t, "nil slice", []byte(nil))
	checkValue(t, "nil interface", any(nil))
	checkValue(t, "nil map in an interface", any(map[string]int(nil)))
	checkValue(t, "nil pointer in an interface", any((*int)(nil)))
}

func TestPromise09_VIsSharedForTheWholeTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[int, []byte]{TTL: time.Hour})
		one := []byte{1, 2, 3}
		for range 6 {
			v, err := c.Do(t.Context(), 1, returns(one, nil))
			require.NoError(t, err)
			require.Same(t, &one[0], &v[0], "the value is shared, not copied")
			time.Sleep(9 * time.Minute)
		}
	})
}

func TestPromise09_AFlightThatAllHaveLeftStillSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{MaxEntries: 1})
		work := newWork(t)
		ctx, cancel := context.WithCancelCause(context.Background())
		var calls []*pending[int]
		for range 5 {
			calls = append(calls, start(c, ctx, theKey, work.returns(0, nil)))
		}
		synctest.Wait()
		cancel(errEnough)
		synctest.Wait()
		for _, call := range calls {
			call.left(t, ctx, errEnough)
		}
		require.Equal(t, 1, c.Stats().InFlight, "the flight goes on with nobody")
		work.open()
		synctest.Wait()
		s := c.Stats()
		require.Zero(t, s.InFlight, "Stats.InFlight")
		require.EqualValues(t, 1, s.Retains, "Stats.Retains")
		retry := start(c, t.Context(), theKey, neverRuns(t))
		synctest.Wait()
		retry.got(t, idemflight.Replayed, 0)
	})
}

// Once: no test noticed the planted fault that callers which joined through Do or Wrap got
// another error than DoResult's. They share a flight's outcome alike: the very error of fn, its
// value beside it, even of an outcome that is not kept.
func TestJoinedCallers_OfEveryFormGetTheSame(t *testing.T) {
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
				c := idemflight.MustNew(options{})
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
				require.Equal(t, [2]uint64{1, 3}, [2]uint64{s.Executed, s.Joined},
					"Executed and Joined")
			})
		})
	}
}

// Promise 10: WithMaxWait limits how long a caller waits, and MaxWaiters how many wait; beyond that
// the call gets ErrInFlight. Neither stops a leader whose fn runs.
func TestPromise10_MaxWaitIsExact(t *testing.T) {
	for _, wait := range []time.Duration{1, time.Millisecond, time.Second, time.Hour, 1000 * time.Hour} {
		t.Run(wait.String(), func(t *testing.T) {
			eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(options{})
				work := newWork(t)
				leader := start(c, ctx, theKey, work.returns(1, nil), opts...)
				time.Sleep(time.Second)
				flying := goroutines(t)
				var calls []*pending[int]
				for _, ctx := range []context.Context{context.Background(), t.Context()} {
					calls = append(calls,
						start(c, ctx, theKey, neverRuns(t), idemflight.WithMaxWait(wait)),
						start(c, ctx, theKey, neverRuns(t), idemflight.Inline(), idemflight.WithMaxWait(wait)))
				}
				stays := start(c, t.Context(), theKey, neverRuns(t))
				synctest.Wait()
				if wait < 2*time.Second { // until then the leader with a deadline is there
					require.Equal(t, flying+5, goroutines(t),
						"goroutines: waiting for a limited time needs none")
				}
				time.Sleep(wait - 1)
				for _, call := range calls {
					require.False(t, call.returned(),
						"a nanosecond before its MaxWait a call waits")
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				for _, call := range calls {
					call.refused(t, wait)
				}
				require.Equal(t, 1, c.Stats().Waiters, "Stats.Waiters")
				require.EqualValues(t, 4, c.Stats().NotWaited, "Stats.NotWaited")

				time.Sleep(time.Hour)
				require.Equal(t, 1, c.Stats().InFlight, "the flight goes on")
				work.open()
				synctest.Wait()
				require.True(t, leader.returned())
				stays.got(t, idemflight.Joined, 1)
			})
		})
	}
}

func TestPromise10_NoWaitDoesNotWaitAtAll(t *testing.T) {
	for _, wait := range []time.Duration{idemflight.NoWait, 0, -1, -time.Hour, math.MinInt64} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{})
			work := newWork(t)
			leader := start(c, t.Context(), theKey, work.returns(1, nil))
			synctest.Wait()
			for _, ctx := range []context.Context{context.Background(), t.Context()} {
				call := start(c, ctx, theKey, neverRuns(t), idemflight.WithMaxWait(wait))
				synctest.Wait()
				call.refused(t, 0)
			}
			require.Zero(t, c.Stats().Waiters, "a caller that does not wait is no waiter")
			work.open()
			synctest.Wait()
			leader.got(t, idemflight.Executed, 1)
			call := start(c, t.Context(), theKey, neverRuns(t), idemflight.WithMaxWait(wait))
			synctest.Wait()
			call.got(t, idemflight.Replayed, 1) // a replay needs no waiting
		})
	}
}

func TestPromise10_AnOutcomeWithinMaxWaitIsShared(t *testing.T) {
	for _, wait := range []time.Duration{time.Second + 1, time.Hour, math.MaxInt64} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{})
			work := newWork(t)
			start(c, t.Context(), theKey, work.returns(1, nil))
			synctest.Wait()
			joined := start(c, t.Context(), theKey, neverRuns(t), idemflight.WithMaxWait(wait))
			time.Sleep(time.Second)
			work.open()
			synctest.Wait()
			joined.got(t, idemflight.Joined, 1)
			require.Equal(t, time.Second, joined.took(), "it does not wait longer than it has to")
		})
	}
}

func TestPromise10_WhicheverEndsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		work := newWork(t)
		start(c, t.Context(), theKey, work.returns(1, nil))
		synctest.Wait()
		ctx, cancel := context.WithTimeoutCause(context.Background(), 2*time.Second, errEnough)
		defer cancel()
		first := start(c, ctx, theKey, neverRuns(t), idemflight.WithMaxWait(time.Second))
		second := start(c, ctx, theKey, neverRuns(t), idemflight.WithMaxWait(3*time.Second))
		time.Sleep(time.Hour)
		first.refused(t, time.Second)
		second.left(t, ctx, errEnough)
		require.Equal(t, 2*time.Second, second.took())
	})
}

func TestPromise10_MaxWaitBindsTheLeaderWhileReconcileRunsAndNotWhileItsFnRuns(t *testing.T) {
	for _, wait := range []time.Duration{idemflight.NoWait, 0, 1, time.Second} {
		t.Run(wait.String(), func(t *testing.T) {
			for _, l := range leaders {
				if l.name == "deadline" {
					continue // it leaves, for a reason of its own
				}
				t.Run(l.name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						finding := newWork(t)
						c := idemflight.MustNew(options{MaxWaiters: 1, Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
							return finding.returns(2, idemflight.Retryable(errBoom))(ctx)
						}})
						ctx, cancel := l.ctx()
						defer cancel()
						opts := append([]idemflight.CallOption{idemflight.WithMaxWait(wait)}, l.opts...)
						work := newWork(t)
						leader := start(c, ctx, theKey, work.returns(1, idemflight.Unknown(errBoom)), opts...)
						time.Sleep(time.Minute)
						require.False(t, leader.returned(),
							"MaxWait is about the flights of others")
						work.open()
						synctest.Wait()
						require.ErrorIs(t, leader.err, idemflight.ErrOutcomeUnknown)

						leader = start(c, ctx, theKey, neverRuns(t), opts...)
						time.Sleep(time.Minute)
						synctest.Wait()
						leader.refused(t, max(wait, 0))
						require.EqualValues(t, 1, finding.running.Load(), "it started Reconcile all the same, which goes on")
						require.EqualValues(t, 1, c.Stats().NotWaited)

						// One that has not waited for long when Reconcile answers leads on with its fn, unbounded.
						finding.open()
						synctest.Wait()
						_, ok := lookup(c, theKey)
						require.False(t, ok, "Reconcile found that there was no effect, and the caller was told ErrInFlight")
						if wait < time.Second {
							return
						}
						hold(t, c, theKey)
						finding, work = newWork(t), newWork(t)
						leader = start(c, ctx, theKey, work.returns(3, nil), opts...)
						time.Sleep(wait - 1)
						finding.open()
						time.Sleep(time.Minute)
						synctest.Wait()
						require.False(t, leader.returned(), "MaxWait does not bind a leader whose fn runs")
						work.open()
						synctest.Wait()
						leader.got(t, idemflight.Executed, 3)
					})
				})
			}
		})
	}
}

func TestPromise10_MaxWaitersBoundsJoinedCallersPerFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{MaxWaiters: 3})
		work, otherWork := newWork(t), newWork(t)
		leaderCtx, leave := context.WithCancelCause(context.Background())
		leader := start(c, leaderCtx, theKey, work.returns(1, nil))
		synctest.Wait()
		ctx, cancel := context.WithCancelCause(context.Background())
		joined := []*pending[int]{
			start(c, ctx, theKey, neverRuns(t)),
			start(c, t.Context(), theKey, neverRuns(t), idemflight.WithMaxWait(time.Minute)),
			start(c, context.Background(), theKey, neverRuns(t)),
		}
		synctest.Wait()
		full := func(why string) {
			t.Helper()
			for _, opts := range [][]idemflight.CallOption{nil, {idemflight.WithMaxWait(time.Hour)}, {idemflight.Inline()}} {
				call := start(c, t.Context(), theKey, neverRuns(t), opts...)
				synctest.Wait()
				require.True(t, call.returned(),
					"one more than MaxWaiters is refused at once: %s", why)
				call.refused(t, 0)
			}
			require.Equal(t, 3, c.Stats().Waiters, "waiters, the refused not among them: %s", why)
		}
		full("the leader does not count, three joined do")

		leave(errEnough)
		synctest.Wait()
		leader.left(t, leaderCtx, errEnough)
		full("the leader that left makes no place, it had none")

		cancel(errEnough)
		synctest.Wait()
		joined[0].left(t, ctx, errEnough)
		require.Equal(t, 2, c.Stats().Waiters)
		joined[0] = start(c, t.Context(), theKey, neverRuns(t))
		synctest.Wait()
		require.False(t, joined[0].returned(), "a caller that left makes place for another")
		full("whose context ended was replaced")

		time.Sleep(time.Minute)
		synctest.Wait()
		joined[1].refused(t, time.Minute)
		joined[1] = start(c, t.Context(), theKey, neverRuns(t))
		synctest.Wait()
		require.False(t, joined[1].returned(), "whose MaxWait has passed makes place for another")
		full("whose MaxWait has passed was replaced")

		// Another flight has waiters of its own.
		others := []*pending[int]{start(c, t.Context(), "other", otherWork.returns(1, nil))}
		synctest.Wait()
		for range 3 {
			others = append(others, start(c, t.Context(), "other", neverRuns(t)))
		}
		synctest.Wait()
		for _, call := range others {
			require.False(t, call.returned(), "MaxWaiters is per flight")
		}
		otherWork.open()
		work.open()
		synctest.Wait()
		for _, call := range append(joined, others[1:]...) {
			call.got(t, idemflight.Joined, 1)
		}
		for range 10 {
			call := start(c, t.Context(), theKey, neverRuns(t))
			synctest.Wait()
			call.got(t, idemflight.Replayed, 1) // replays are not bounded
		}
	})
}

func TestPromise10_WithoutMaxWaitersThereIsNoBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		work := newWork(t)
		start(c, t.Context(), theKey, work.returns(1, nil))
		synctest.Wait()
		var joined []*pending[int]
		for range 1000 {
			joined = append(joined, start(c, t.Context(), theKey, neverRuns(t)))
		}
		synctest.Wait()
		e, _ := lookup(c, theKey)
		require.Equal(t, 1000, e.Waiters, "Entry.Waiters")
		work.open()
		synctest.Wait()
		for _, call := range joined {
			call.got(t, idemflight.Joined, 1)
		}
	})
}

// A caller that does not wait is never counted among those that do: it has nothing to leave.
func TestNoWait_JoinsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		left := 0
		onYield(t, func(point string) {
			if point == "leave" {
				left++
			}
		})
		end := fly(t, c, theKey)
		for _, d := range []time.Duration{0, idemflight.NoWait} {
			_, err := c.Do(context.Background(), theKey, neverRuns(t), idemflight.WithMaxWait(d))
			require.ErrorIs(t, err, idemflight.ErrInFlight)
		}
		require.Zero(t, left)
		_, err := c.Do(context.Background(), theKey, neverRuns(t), idemflight.WithMaxWait(time.Second))
		require.ErrorIs(t, err, idemflight.ErrInFlight)
		require.Equal(t, 1, left, "the seam: a caller that waits leaves")
		_, err = end(1, nil)
		require.NoError(t, err)
	})
}

// With MaxWaiters a caller joins at its second look: there, too, it leaves with its context, and
// gets the flight's error.
func TestJoinedCaller_UnderMaxWaitersLeavesAndGetsTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{MaxWaiters: 2})
		end := fly(t, c, "k")
		ctx, cancel := context.WithCancel(bg)
		leaves, stays := start(c, ctx, "k", neverRuns(t)), start(c, bg, "k", neverRuns(t))
		synctest.Wait()
		cancel()
		synctest.Wait()
		leaves.left(t, ctx, context.Canceled)
		_, err := end(7, idemflight.Retryable(errBoom))
		require.ErrorIs(t, err, errBoom)
		synctest.Wait()
		require.ErrorIs(t, stays.err, errBoom)
		require.Equal(t, 7, stays.res.Value)
	})
}

// ErrInFlight says why the call may not wait.
func TestPromise10_ErrInFlightSaysWhy(t *testing.T) {
	for _, reconciling := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{MaxWaiters: 1, Reconcile: answers(1, nil)})
			says := func(call *pending[int], why string) {
				t.Helper()
				require.ErrorIs(t, call.err, idemflight.ErrInFlight)
				require.EqualError(t, call.err, idemflight.ErrInFlight.Error()+": "+why)
			}
			if reconciling { // who asks Reconcile waits, too
				hold(t, c, "asks, and may not wait")
				hold(t, c, "asks, and may wait for a second")
				for key, wait := range map[string]time.Duration{"asks, and may not wait": idemflight.NoWait, "asks, and may wait for a second": time.Second} {
					call := start(c, bg, key, neverRuns(t), idemflight.WithMaxWait(wait))
					time.Sleep(time.Second)
					synctest.Wait()
					if wait > 0 {
						says(call, "its MaxWait ran out")
					}
					call.refused(t, max(wait, 0))
				}
				hold(t, c, theKey)
			}
			start(c, bg, theKey, returnsAfter(time.Minute, 1, nil))
			synctest.Wait()
			call := func(opts ...idemflight.CallOption) *pending[int] {
				call := start(c, bg, theKey, neverRuns(t), opts...)
				synctest.Wait()
				return call
			}
			says(call(idemflight.WithMaxWait(idemflight.NoWait)), "it must not wait at all (NoWait)")
			says(call(idemflight.WithMaxWait(0)), "it must not wait at all (NoWait)")
			waits := call(idemflight.WithMaxWait(time.Second))
			says(call(), "MaxWaiters wait already")
			says(call(idemflight.WithMaxWait(time.Second)), "MaxWaiters wait already")
			time.Sleep(time.Second)
			synctest.Wait()
			says(waits, "its MaxWait ran out")
			time.Sleep(time.Hour) // until all has ended
		})
	}
}

// A caller that waited for a Reconcile and looks at its key again has no more time for that: its MaxWait
// counts from its call.
func TestPromise10_MaxWaitOfWhoLooksAgainCountsFromItsCall(t *testing.T) {
	for name, first := range map[string]func(t *testing.T, c *cache){
		"an operator's": func(_ *testing.T, c *cache) { operate(c, bg, theKey) },
		"of a caller that left": func(t *testing.T, c *cache) {
			start(c, bg, theKey, neverRuns(t), idemflight.WithMaxWait(time.Nanosecond))
		},
	} {
		for how, more := range map[string][]idemflight.CallOption{"": nil, ", Inline": {idemflight.Inline()}} {
			t.Run(name+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const maxWait = 90 * time.Second // Reconcile takes 60 of them
					c := idemflight.MustNew(options{Reconcile: answers(0, idemflight.Retryable(errNoPayment))})
					hold(t, c, theKey)
					first(t, c)
					synctest.Wait()
					var calls []*pending[int]
					for range 4 {
						calls = append(calls, start(c, t.Context(), theKey, returnsAfter(time.Hour, 7, nil), append(more, idemflight.WithMaxWait(maxWait))...))
						time.Sleep(time.Second)
					}
					time.Sleep(2 * time.Hour)
					synctest.Wait()
					led := 0
					for _, call := range calls {
						if call.err == nil {
							call.got(t, idemflight.Executed, 7)
							led++
							continue
						}
						call.refused(t, maxWait)
					}
					require.Equal(t, 1, led, "one leads, whose fn MaxWait does not bind")
					require.Zero(t, c.Stats().Waiters)
				})
			})
		}
	}
}
