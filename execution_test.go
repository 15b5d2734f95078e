package idemflight_test

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/idemflight/idemflight"
)

// Promise 4: fn's context carries the leader's values, but neither its cancellation nor its
// deadline: it ends when fn returns, or ExecTimeout after fn started. If the leader leaves, fn runs
// to its end.
func TestPromise04_ContextCarriesTheLeadersValues(t *testing.T) {
	underTrace(t, promise04ContextCarriesTheLeadersValues)
}

func promise04ContextCarriesTheLeadersValues(t *testing.T) {
	eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
		c := newTraced(options{})
		gate := newGate(t)
		inner := newTraced(idemflight.Options[int, string]{})
		leader := start(c, context.WithValue(ctx, nameKey{}, "leader"), theKey, func(ctx context.Context) (int, error) {
			gate.wait()
			require.Equal(t, "leader", ctx.Value(nameKey{}), "fn sees the values of the leader")
			require.Nil(t, ctx.Value("nobody set this"), "a value that the leader does not have")
			child, cancel := context.WithCancel(ctx)
			defer cancel()
			require.Equal(t, "leader", child.Value(nameKey{}), "derived contexts see them too")
			v, err := inner.Do(context.WithValue(ctx, otherKey{}, "inner"), 1, func(ctx context.Context) (string, error) {
				return ctx.Value(nameKey{}).(string) + "+" + ctx.Value(otherKey{}).(string), nil
			})
			require.NoError(t, err)
			require.Equal(t, "leader+inner", v,
				"executions inside see the values of all around them")
			return 1, nil
		}, opts...)
		synctest.Wait()
		joined := start(c, context.WithValue(t.Context(), nameKey{}, "joined"), theKey, neverRuns(t))
		synctest.Wait()
		gate.open()
		synctest.Wait()
		leader.got(t, idemflight.Executed, 1)
		joined.got(t, idemflight.Joined, 1)
	})
}

// requireAlive requires that ctx, and what derives from it, has not ended. It leaves nothing
// behind.
func requireAlive(t *testing.T, ctx context.Context, when string) {
	synctest.Wait()
	require.NoError(t, ctx.Err(), "fn's context must not have ended %s", when)
	require.NoError(t, context.Cause(ctx), "fn's context must have no cause %s", when)
	require.NoError(t, context.Cause(context.WithValue(ctx, otherKey{}, 1)),
		"nor what derives from it without a cancellation of its own, %s", when)
	select {
	case <-ctx.Done():
		t.Errorf("Done of fn's context must be open %s", when)
	default:
	}
	child, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { t.Errorf("AfterFunc of fn's context must not run %s", when) })
	defer stop()
	synctest.Wait()
	require.NoError(t, child.Err(), "a context derived from fn's must not have ended %s", when)
	require.NoError(t, context.Cause(child),
		"a context derived from fn's must have no cause %s", when)
}

func TestPromise04_ContextHasNotTheLeadersCancellation(t *testing.T) {
	underTrace(t, promise04ContextHasNotTheLeadersCancellation)
}

func promise04ContextHasNotTheLeadersCancellation(t *testing.T) {
	for _, looked := range []bool{false, true} {
		t.Run(fmt.Sprintf("looked before: %v", looked), func(t *testing.T) {
			eachLeader(t, func(t *testing.T, ctx context.Context, cancel context.CancelFunc, opts []idemflight.CallOption) {
				c := newTraced(options{})
				// The innermost cancellation is not the only one around.
				ctx, outer := context.WithCancelCause(ctx)
				ctx, inner := context.WithTimeoutCause(context.WithValue(ctx, nameKey{}, 1), 10*time.Second, errEnough)
				defer inner()
				var child context.Context
				call := start(c, ctx, theKey, func(ctx context.Context) (int, error) {
					if looked {
						requireAlive(t, ctx, "before the leader's ends")
						var stop context.CancelFunc
						child, stop = context.WithCancel(ctx)
						defer stop()
					}
					inner()
					requireAlive(t, ctx, "after the leader's innermost was cancelled")
					outer(errEnough)
					requireAlive(t, ctx, "after the leader's outer one was cancelled")
					cancel()
					requireAlive(t, ctx, "after the leader's outermost was cancelled")
					time.Sleep(time.Minute)
					requireAlive(t, ctx, "after every deadline of the leader's")
					if looked {
						require.NoError(t, child.Err(),
							"a context derived before must live on, too")
						require.NoError(t, context.Cause(child),
							"a context derived before must live on, too")
					}
					return 1, nil
				}, opts...)
				time.Sleep(2 * time.Minute)
				require.True(t, call.returned(), "the call must have ended by now")
				e, _ := lookup(c, theKey)
				require.Equal(t, idemflight.Retained, e.State, "the execution ran to its end")
			})
		})
	}
}

func TestPromise04_ContextHasNotTheLeadersDeadline(t *testing.T) {
	underTrace(t, promise04ContextHasNotTheLeadersDeadline)
}

func promise04ContextHasNotTheLeadersDeadline(t *testing.T) {
	for _, timeout := range []time.Duration{0, -1, time.Second, time.Hour, math.MaxInt64} {
		t.Run(timeout.String(), func(t *testing.T) {
			eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := newTraced(options{ExecTimeout: timeout})
				time.Sleep(time.Second)
				over := make(chan struct{})
				start(c, ctx, theKey, func(ctx context.Context) (int, error) {
					defer close(over)
					began := time.Now()
					for _, ctx := range []context.Context{ctx, context.WithValue(ctx, nameKey{}, 1)} {
						deadline, ok := ctx.Deadline()
						switch timeout {
						case 0:
							require.True(t, ok && deadline.Equal(began.Add(idemflight.DefaultExecTimeout)), "the deadline is DefaultExecTimeout after the start of fn, got %v, %v", deadline.Sub(began), ok)
						case -1:
							require.False(t, ok, "a negative ExecTimeout means no deadline, got %v", deadline.Sub(began))
						case math.MaxInt64:
							require.True(t, !ok || deadline.After(began.Add(100*365*24*time.Hour)),
								"a huge ExecTimeout must not overflow, got %v", deadline.Sub(began))
						default:
							require.True(t, ok && deadline.Equal(began.Add(timeout)), "the deadline is ExecTimeout after the start of fn, got %v, %v", deadline.Sub(began), ok)
						}
					}
					if timeout == -1 || timeout == math.MaxInt64 {
						time.Sleep(1000 * time.Hour)
						requireAlive(t, ctx, "after a thousand hours without ExecTimeout")
					}
					return 1, nil
				}, opts...)
				<-over
			})
		})
	}
}

func TestPromise04_ContextEndsWhenFnReturns(t *testing.T) {
	underTrace(t, promise04ContextEndsWhenFnReturns)
}

func promise04ContextEndsWhenFnReturns(t *testing.T) {
	looks := map[string]func(ctx context.Context){
		"nobody looked":  func(context.Context) {},
		"Done":           func(ctx context.Context) { ctx.Done() },
		"Err":            func(ctx context.Context) { _ = ctx.Err() },
		"Cause":          func(ctx context.Context) { _ = context.Cause(ctx) },
		"BeginEffect":    func(ctx context.Context) { _ = idemflight.BeginEffect(ctx) },
		"derived before": nil, // below
	}
	ends := map[string]intFn{
		"value":  returns(1, nil),
		"error":  returns(0, errBoom),
		"panic":  func(context.Context) (int, error) { panic(errBoom) },
		"Goexit": goexits,
	}
	for how, end := range ends {
		for looked, look := range looks {
			t.Run(how+", "+looked, func(t *testing.T) {
				eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
					c := newTraced(options{})
					var fnCtx, child, valued context.Context
					afterFunc := 0
					call := start(c, ctx, theKey, func(ctx context.Context) (int, error) {
						fnCtx = ctx
						if look != nil {
							look(ctx)
						} else {
							// They must end without their cancel.
							var cancel [2]context.CancelFunc
							child, cancel[0] = context.WithTimeout(ctx, time.Hour)
							valued, cancel[1] = context.WithCancel(context.WithValue(ctx, nameKey{}, 1))
							context.AfterFunc(ctx, func() { afterFunc++ })
							t.Cleanup(func() { cancel[0](); cancel[1]() })
						}
						return end(ctx)
					}, opts...)
					synctest.Wait()
					require.True(t, call.returned(), "the call ends with fn")

					select {
					case <-fnCtx.Done():
					default:
						require.Fail(t, "Done of fn's context must be closed once fn has returned")
					}
					require.Equal(t, context.Canceled, fnCtx.Err(),
						"fn's context is cancelled, it did not time out")
					require.ErrorIs(t, context.Cause(fnCtx), context.Canceled,
						"the cause goes with it")
					late, cancel := context.WithCancel(fnCtx)
					defer cancel()
					require.Error(t, late.Err(),
						"what is derived afterwards has ended from the start")
					require.Error(t, context.Cause(context.WithValue(fnCtx, nameKey{}, 1)),
						"and under a value")
					if look == nil {
						require.Equal(t, context.Canceled, child.Err(),
							"a context derived before ends with it, and did not time out")
						require.Equal(t, context.Canceled, valued.Err(), "also under a value")
						require.Equal(t, 1, afterFunc, "AfterFunc runs when fn has returned")
					}
					time.Sleep(time.Hour)
					require.Equal(t, context.Canceled, fnCtx.Err(),
						"why it ended does not change when ExecTimeout passes")
					require.ErrorIs(t, context.Cause(fnCtx), context.Canceled,
						"why it ended does not change when ExecTimeout passes")
				})
			})
		}
	}
}

func TestPromise04_WhyItEndedIsNotTheLeadersCause(t *testing.T) {
	underTrace(t, promise04WhyItEndedIsNotTheLeadersCause)
}

func promise04WhyItEndedIsNotTheLeadersCause(t *testing.T) {
	for _, looked := range []bool{false, true} {
		for _, timeout := range []time.Duration{time.Minute, time.Hour} {
			t.Run(fmt.Sprintf("looked: %v, ExecTimeout %v", looked, timeout), func(t *testing.T) {
				eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
					c := newTraced(options{ExecTimeout: timeout})
					ctx, cancel := context.WithCancelCause(ctx)
					causes := func(ctx context.Context, want error) {
						for _, ctx := range []context.Context{ctx, context.WithValue(ctx, nameKey{}, 1)} {
							require.Equal(t, want, ctx.Err(), "why fn's context ended")
							require.Equal(t, want, context.Cause(ctx),
								"why fn's context ended, not the leader's")
						}
					}
					var fnCtx context.Context
					start(c, ctx, theKey, func(ctx context.Context) (int, error) {
						fnCtx = ctx
						if looked {
							ctx.Done()
						}
						cancel(errEnough)
						if timeout == time.Minute {
							time.Sleep(timeout)
							synctest.Wait()
							causes(ctx, context.DeadlineExceeded)
						}
						return 1, nil
					}, opts...)
					time.Sleep(2 * time.Minute)
					synctest.Wait()
					if timeout == time.Minute {
						causes(fnCtx, context.DeadlineExceeded)
					} else {
						causes(fnCtx, context.Canceled)
						time.Sleep(timeout)
						causes(fnCtx, context.Canceled) // Done has not been asked for, but it had ended before
					}
				})
			})
		}
	}
}

func TestPromise04_ContextHasEndedBeforeAnybodyIsToldTheOutcome(t *testing.T) {
	underTrace(t, promise04ContextHasEndedBeforeAnybodyIsToldTheOutcome)
}

func promise04ContextHasEndedBeforeAnybodyIsToldTheOutcome(t *testing.T) {
	for name, end := range map[string]error{"success": nil, "error": errBoom} {
		t.Run(name, func(t *testing.T) {
			eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				var fnCtx context.Context
				var told atomic.Int32
				ended := func(who string) {
					told.Add(1)
					require.Equal(t, context.Canceled, fnCtx.Err(),
						"fn's context must have ended when fn has returned, and so before %s", who)
				}
				c := newTraced(options{
					Classify:  func(error) idemflight.Disposition { ended("Classify"); return idemflight.Retain },
					MaxWeight: 10, Weigh: func(string, int) int64 { ended("Weigh"); return 1 },
					Observer: func(context.Context, idemflight.Event[string]) { ended("Observer") },
				})
				_, err := c.Do(ctx, theKey, func(ctx context.Context) (int, error) { fnCtx = ctx; return 1, end }, opts...)
				require.Equal(t, end, err)
				ended("the leader")
				require.GreaterOrEqual(t, told.Load(), int32(3), "the hooks must have been called")
			})
		})
	}
}

func TestPromise04_ContextEndsExecTimeoutAfterFnStarted(t *testing.T) {
	underTrace(t, promise04ContextEndsExecTimeoutAfterFnStarted)
}

func promise04ContextEndsExecTimeoutAfterFnStarted(t *testing.T) {
	const timeout = 10 * time.Second
	ended := func(t *testing.T, ctx context.Context, who string) {
		synctest.Wait()
		select {
		case <-ctx.Done():
		default:
			require.Fail(t, "not done", "%s must be done at ExecTimeout", who)
		}
		require.Equal(t, context.DeadlineExceeded, ctx.Err(), "%s: Err at ExecTimeout", who)
		require.ErrorIs(t, context.Cause(ctx), context.DeadlineExceeded,
			"%s: Cause at ExecTimeout", who)
	}
	for name, look := range map[string]func(t *testing.T, ctx context.Context){
		"wait for Done": func(t *testing.T, ctx context.Context) { <-ctx.Done() },
		"look at Done late": func(t *testing.T, ctx context.Context) {
			time.Sleep(timeout - 1)
			<-ctx.Done()
		},
		"ask Err only": func(t *testing.T, ctx context.Context) {
			time.Sleep(timeout - 1)
			require.NoError(t, ctx.Err(), "a nanosecond before ExecTimeout")
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			require.Equal(t, context.DeadlineExceeded, ctx.Err(),
				"ExecTimeout has passed, though nobody looked at Done")
		},
		"ask Err first when it is over": func(t *testing.T, ctx context.Context) {
			time.Sleep(timeout)
			synctest.Wait()
			require.Equal(t, context.DeadlineExceeded, ctx.Err(),
				"ExecTimeout has passed, though nobody looked before")
		},
		"ask Cause only": func(t *testing.T, ctx context.Context) {
			time.Sleep(timeout - 1)
			require.NoError(t, context.Cause(ctx), "a nanosecond before ExecTimeout")
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			require.ErrorIs(t, context.Cause(ctx), context.DeadlineExceeded,
				"ExecTimeout has passed, though nobody looked at Done")
		},
		"ask Cause first when it is over": func(t *testing.T, ctx context.Context) {
			time.Sleep(timeout)
			synctest.Wait()
			require.ErrorIs(t, context.Cause(ctx), context.DeadlineExceeded,
				"ExecTimeout has passed, though nobody looked before")
		},
		"ask Cause under a value first": func(t *testing.T, ctx context.Context) {
			time.Sleep(timeout)
			synctest.Wait()
			require.ErrorIs(t, context.Cause(context.WithValue(ctx, nameKey{}, 1)), context.DeadlineExceeded, "ExecTimeout has passed, though nobody looked before")
		},
		"Done first when it is over": func(t *testing.T, ctx context.Context) {
			time.Sleep(timeout)
			synctest.Wait()
			<-ctx.Done()
		},
		"derived, cancel": func(t *testing.T, ctx context.Context) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			<-ctx.Done()
			ended(t, ctx, "a derived context")
		},
		"derived, longer timeout": func(t *testing.T, ctx context.Context) {
			ctx, cancel := context.WithTimeoutCause(ctx, time.Hour, errBoom)
			defer cancel()
			<-ctx.Done()
			ended(t, ctx, "a derived context")
			require.NotErrorIs(t, context.Cause(ctx), errBoom,
				"it was not its own timeout that passed")
		},
		"derived under a value, late": func(t *testing.T, ctx context.Context) {
			time.Sleep(timeout / 2)
			ctx, cancel := context.WithCancel(context.WithValue(ctx, nameKey{}, 1))
			defer cancel()
			<-ctx.Done()
			ended(t, ctx, "a derived context")
		},
		"derived when it is over": func(t *testing.T, ctx context.Context) {
			time.Sleep(timeout)
			synctest.Wait()
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			ended(t, ctx, "a context derived when it is over")
		},
		"AfterFunc": func(t *testing.T, ctx context.Context) {
			ran := make(chan struct{})
			context.AfterFunc(ctx, func() { close(ran) })
			<-ran
		},
		"errgroup": func(t *testing.T, ctx context.Context) {
			group, ctx := errgroup.WithContext(ctx)
			for range 10 {
				group.Go(func() error { <-ctx.Done(); return ctx.Err() })
			}
			require.Equal(t, context.DeadlineExceeded, group.Wait(),
				"what waits on a derived context ends with fn's")
		},
		"inner call that leads": func(t *testing.T, ctx context.Context) {
			gate := newGate(t)
			_, err := newTraced(options{}).Do(ctx, "inner", func(context.Context) (int, error) { gate.wait(); return 1, nil })
			require.ErrorIs(t, err, idemflight.ErrCallerLeft,
				"an inner call leaves when fn's context ends")
			require.ErrorIs(t, err, context.DeadlineExceeded,
				"an inner call leaves when fn's context ends")
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := newTraced(options{ExecTimeout: timeout})
				time.Sleep(time.Second)
				call := start(c, ctx, theKey, func(ctx context.Context) (int, error) {
					began := time.Now()
					look(t, ctx)
					require.Equal(t, timeout, time.Since(began),
						"fn's context ends ExecTimeout after fn started")
					ended(t, ctx, "fn's context")
					return 1, nil
				}, opts...)
				time.Sleep(time.Minute)
				require.True(t, call.returned() && call.panicked == nil && !call.exited,
					"the call must have returned")
			})
		})
	}
}

func TestPromise04_TheTimerCostsNothingUnlessSomeoneLooks(t *testing.T) {
	underTrace(t, promise04TheTimerCostsNothingUnlessSomeoneLooks)
}

func promise04TheTimerCostsNothingUnlessSomeoneLooks(t *testing.T) {
	c := newTraced(options{})
	var fnCtx context.Context
	cost := func(look func(context.Context)) float64 {
		// Nothing is kept, so that no table grows beneath the measurement.
		fn := func(ctx context.Context) (int, error) { look(ctx); return 0, errReleased }
		return testing.AllocsPerRun(500, func() { _, _ = c.Do(context.Background(), theKey, fn) })
	}
	alone := cost(func(ctx context.Context) { fnCtx = ctx })
	asked := cost(func(ctx context.Context) { fnCtx = ctx; _ = ctx.Err(); _, _ = ctx.Deadline(); ctx.Value(nameKey{}) })
	looked := cost(func(ctx context.Context) { fnCtx = ctx; ctx.Done() })
	// A timer, and the channel of Done.
	require.GreaterOrEqual(t, looked, alone+2, "allocations of an execution that looks at Done, against one that does not: the timer must be armed by the look")
	require.GreaterOrEqual(t, looked, asked+2, "the same, against one that asks for Err, Deadline and a value: none of them is to arm the timer")
	require.Error(t, fnCtx.Err())
}

// errReleased is made once, so that it does not count among what an execution allocates.
var errReleased = idemflight.Retryable(errBoom)

func TestPromise04_DerivedContextsCostNoGoroutine(t *testing.T) {
	underTrace(t, promise04DerivedContextsCostNoGoroutine)
}

func promise04DerivedContextsCostNoGoroutine(t *testing.T) {
	const many = 500
	for name, derive := range map[string]func(ctx context.Context, i int) context.CancelFunc{
		"WithCancel": func(ctx context.Context, _ int) context.CancelFunc {
			_, cancel := context.WithCancel(ctx)
			return cancel
		},
		"WithTimeout": func(ctx context.Context, _ int) context.CancelFunc {
			_, cancel := context.WithTimeout(ctx, time.Hour)
			return cancel
		},
		"WithCancelCause": func(ctx context.Context, _ int) context.CancelFunc {
			_, cancel := context.WithCancelCause(ctx)
			return func() { cancel(errEnough) }
		},
		"WithCancel under WithValue": func(ctx context.Context, i int) context.CancelFunc {
			_, cancel := context.WithCancel(context.WithValue(ctx, nameKey{}, i))
			return cancel
		},
		"WithCancel under WithCancel": func(ctx context.Context, i int) context.CancelFunc {
			ctx, outer := context.WithCancel(context.WithValue(ctx, nameKey{}, i))
			_, cancel := context.WithCancel(ctx)
			return func() { cancel(); outer() }
		},
		"AfterFunc": func(ctx context.Context, _ int) context.CancelFunc {
			stop := context.AfterFunc(ctx, func() {})
			return func() { stop() }
		},
		"AfterFunc under WithValue": func(ctx context.Context, i int) context.CancelFunc {
			stop := context.AfterFunc(context.WithValue(ctx, nameKey{}, i), func() {})
			return func() { stop() }
		},
	} {
		for _, timeout := range []time.Duration{0, -1} {
			t.Run(fmt.Sprintf("%s, ExecTimeout %d", name, timeout), func(t *testing.T) {
				eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
					c := newTraced(options{ExecTimeout: timeout})
					other := newTraced(idemflight.Options[int, string]{ExecTimeout: timeout})
					own := goroutines(t)
					test := func(ctx context.Context) {
						synctest.Wait()
						before := goroutines(t)
						cancels := make([]context.CancelFunc, many)
						for i := range cancels {
							cancels[i] = derive(ctx, i)
						}
						synctest.Wait()
						require.Equal(t, before, goroutines(t),
							"goroutines after deriving %d contexts from fn's", many)
						for _, cancel := range cancels[:many/2] {
							cancel() // the others must go with fn's context
						}
					}
					call := start(c, ctx, theKey, func(ctx context.Context) (int, error) {
						test(ctx)
						_, err := other.Do(ctx, 1, func(ctx context.Context) (string, error) { test(ctx); return "", nil })
						return 1, err
					}, opts...)
					<-call.done
					synctest.Wait()
					call.got(t, idemflight.Executed, 1)
					require.Equal(t, own, goroutines(t),
						"goroutines of the bubble when all is over: those of the test")
				})
			})
		}
	}
}

func TestPromise04_TheLeaderLeavingDoesNotStopTheWork(t *testing.T) {
	underTrace(t, promise04TheLeaderLeavingDoesNotStopTheWork)
}

func promise04TheLeaderLeavingDoesNotStopTheWork(t *testing.T) {
	for name, end := range map[string]struct {
		fn    intFn
		state idemflight.State // 0: released
		value int
		err   error
	}{
		"success":   {returns(1, nil), idemflight.Retained, 1, nil},
		"final":     {returns(1, idemflight.Final(errBoom)), idemflight.Retained, 1, errBoom},
		"unmarked":  {returns(1, errBoom), idemflight.Held, 0, errBoom},
		"no effect": {func(ctx context.Context) (int, error) { idemflight.NoEffect(ctx); return 1, errBoom }, 0, 0, nil},
		"retryable": {returns(1, idemflight.Retryable(errBoom)), 0, 0, nil},
		"unknown":   {returns(1, idemflight.Unknown(errBoom)), idemflight.Held, 0, errBoom},
		"effect": {func(ctx context.Context) (int, error) {
			if err := idemflight.BeginEffect(ctx); err != nil {
				return 0, idemflight.Final(err) // wrong: fn's context is alive
			}
			return 1, errBoom
		}, idemflight.Held, 0, errBoom},
		"panic":  {func(context.Context) (int, error) { panic(errBoom) }, idemflight.Held, 0, errBoom},
		"Goexit": {goexits, idemflight.Held, 0, idemflight.ErrGoexit},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTraced(options{ExecTimeout: time.Hour})
				ctx, cancel := context.WithCancelCause(context.Background())
				call := start(c, ctx, theKey, func(ctx context.Context) (int, error) {
					time.Sleep(time.Minute)
					requireAlive(t, ctx, "though the leader has left")
					return end.fn(ctx)
				})
				time.Sleep(time.Second)
				cancel(errEnough)
				synctest.Wait()
				call.left(t, ctx, errEnough)
				e, ok := lookup(c, theKey)
				require.True(t, ok, "the execution goes on")
				require.Equal(t, idemflight.InFlight, e.State, "the execution goes on")

				time.Sleep(time.Minute)
				e, ok = lookup(c, theKey)
				require.Equal(t, end.state != 0, ok,
					"the outcome is settled as if the leader were there")
				require.Equal(t, end.state, e.State,
					"the outcome is settled as if the leader were there")
				require.Equal(t, end.value, e.Value, "the value that is kept")
				if end.err != nil {
					require.ErrorIs(t, e.Err, end.err, "the error that is kept")
				} else {
					require.NoError(t, e.Err, "the error that is kept")
				}
			})
		})
	}
}

func TestPromise04_WhatIsKeptDoesNotKeepTheContext(t *testing.T) {
	underTrace(t, promise04WhatIsKeptDoesNotKeepTheContext)
}

func promise04WhatIsKeptDoesNotKeepTheContext(t *testing.T) {
	type payload struct{ _ [1024]byte }
	// A stopped timer may linger in the runtime: a test that looks does so without one.
	for look, c := range map[bool]*cache{false: newTraced(options{}), true: newTraced(options{ExecTimeout: -1})} {
		for name, end := range map[string]error{"success": nil, "final": idemflight.Final(errBoom), "unknown": idemflight.Unknown(errBoom), "retryable": errReleased} {
			value := func() weak.Pointer[payload] {
				p := new(payload)
				_, _ = c.Do(context.WithValue(t.Context(), nameKey{}, p), name, func(ctx context.Context) (int, error) {
					if look {
						ctx.Done()
					}
					return 1, end
				})
				return weak.Make(p)
			}()
			// The goroutine that ran fn may still be on its way out.
			for i := 0; i < 1000 && value.Value() != nil; i++ {
				runtime.GC()
			}
			require.Nil(t, value.Value(), "%s, fn looked: %v: a value of the leader's context must be garbage once the execution has ended", name, look)
		}
		runtime.KeepAlive(c)
	}
}

// Promise 5: An execution stays in flight until fn really returns, even if fn ignores its context.
func TestPromise05_AnExecutionStaysInFlightUntilFnReallyReturns(t *testing.T) {
	eachLeader(t, func(t *testing.T, ctx context.Context, cancel context.CancelFunc, opts []idemflight.CallOption) {
		c := idemflight.MustNew(options{ExecTimeout: time.Second, TTL: 2 * time.Second, HoldTTL: 2 * time.Second, MaxEntries: 8})
		began := time.Now()
		var fnCtx context.Context
		leader := start(c, ctx, theKey, func(ctx context.Context) (int, error) {
			fnCtx = ctx
			time.Sleep(time.Hour) // looks at nothing
			return 1, nil
		}, opts...)
		synctest.Wait()
		cancel()
		synctest.Wait()

		for minute := range 59 {
			time.Sleep(time.Minute)
			require.Error(t, fnCtx.Err(), "ExecTimeout has passed")
			e, ok := lookup(c, theKey)
			require.True(t, ok, "in flight after %d minutes", minute+1)
			require.Equal(t, idemflight.InFlight, e.State,
				"fn has not returned after %d minutes", minute+1)
			require.True(t, e.StartedAt.Equal(began), "it is still the first execution")
			require.Equal(t, 1, c.Stats().InFlight, "Stats.InFlight")
			require.Zero(t, c.Len(), "nothing is kept yet")
			_, err := c.Do(t.Context(), theKey, neverRuns(t), idemflight.WithMaxWait(time.Second))
			require.ErrorIs(t, err, idemflight.ErrInFlight, "after %d minutes", minute+1)
		}
		joined := start(c, t.Context(), theKey, neverRuns(t))
		closed := make(chan error, 1)
		go func() { closed <- c.Close(t.Context()) }()
		synctest.Wait()
		require.False(t, joined.returned(), "fn has not returned, so there is no outcome")
		require.Empty(t, closed, "Close waits for fn to return")

		time.Sleep(time.Until(began.Add(time.Hour)))
		synctest.Wait()
		joined.got(t, idemflight.Joined, 1)
		require.True(t, leader.returned())
		require.NoError(t, <-closed)
		e, _ := lookup(c, theKey)
		require.Equal(t, idemflight.Retained, e.State, "success is success, however late")
		require.True(t, e.CompletedAt.Equal(began.Add(time.Hour)),
			"it was completed when fn returned")
	})
}

// ExecTimeout counts from the start of what runs, however long its goroutine took to get there.
func TestExecTimeout_CountsFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var left time.Duration
		see := func(ctx context.Context) {
			d, ok := ctx.Deadline()
			require.True(t, ok)
			left = time.Until(d)
		}
		c := idemflight.MustNew(options{ExecTimeout: time.Minute, Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
			see(ctx)
			return 1, nil
		}})
		time.Sleep(time.Second)
		onYield(t, func(point string) {
			if point == "execute" {
				time.Sleep(time.Second)
			}
		})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		_, err := c.Do(ctx, theKey, func(ctx context.Context) (int, error) { see(ctx); return 0, idemflight.Unknown(errBoom) })
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.Equal(t, time.Minute, left, "of fn")
		left = 0
		_, err = c.Do(context.Background(), theKey, neverRuns(t))
		require.NoError(t, err)
		require.Equal(t, time.Minute, left, "of Reconcile")
	})
}

// Once: at the very deadline fn's context had not ended by it for a caller that first looked
// after fn had returned.
func TestExecTimeout_ReachedExactlyIsADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{ExecTimeout: time.Second})
		var fnCtx context.Context
		_, err := c.Do(context.Background(), "k", func(ctx context.Context) (int, error) {
			fnCtx = ctx
			time.Sleep(time.Second)
			return 1, nil
		})
		require.NoError(t, err)
		require.Equal(t, context.DeadlineExceeded, fnCtx.Err())
	})
}

// Once: fn's context had no String method, and fmt read its fields beneath its lock.
func TestFnsContext_CanBePrinted(t *testing.T) {
	c := idemflight.MustNew(options{})
	var wg sync.WaitGroup
	_, _ = c.Do(bg, "k", func(ctx context.Context) (int, error) {
		wg.Go(func() { _, cancel := context.WithCancel(ctx); cancel() })
		require.NotEmpty(t, fmt.Sprintf("%v %+v", ctx, ctx))
		return 1, nil
	})
	wg.Wait()
}

// Promise 6: A call of Do from inside the execution of the same key, at any depth, gets
// ErrReentrant instead of waiting for itself.
func TestPromise06_DoFromInsideItsOwnExecutionIsReentrant(t *testing.T) {
	again := func(t *testing.T, c *cache, ctx context.Context, opts ...idemflight.CallOption) {
		began := time.Now()
		r, err := c.DoResult(ctx, theKey, neverRuns(t), opts...)
		require.ErrorIs(t, err, idemflight.ErrReentrant, "a call that would wait for itself")
		require.NotErrorIs(t, err, idemflight.ErrCallerLeft, "being re-entrant comes first")
		require.NotErrorIs(t, err, idemflight.ErrInFlight, "being re-entrant comes first")
		require.NotErrorIs(t, err, idemflight.ErrKeyReused, "being re-entrant comes first")
		require.Zero(t, r, "no outcome was obtained")
		require.Zero(t, time.Since(began), "it returns at once, without waiting")
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
			require.ErrorIs(t, err, idemflight.ErrReentrant,
				"Do from inside fn that runs after Reconcile, in its flight")
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
		require.False(t, joined.returned(),
			"a context of an earlier execution of the key waits for the present one like any other")
		work.open()
		synctest.Wait()
		leader.got(t, idemflight.Executed, 1)
		joined.got(t, idemflight.Joined, 1)

		replayed := start(c, old, theKey, neverRuns(t))
		synctest.Wait()
		replayed.got(t, idemflight.Replayed, 1)

		forget(c, theKey)
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
			require.ErrorIs(t, err, idemflight.ErrCallerLeft)
			return 1, nil
		})
		require.NoError(t, err)
		gate.open()
		synctest.Wait()
		require.Equal(t, idemflight.Replayed, inner.Source,
			"the outer execution is over, its outcome is replayed to the inner one")
		require.Equal(t, 1, inner.Value)
	})
}

func TestPromise06_ItIsSeenThroughTheContextOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		v, err := c.Do(t.Context(), theKey, func(context.Context) (int, error) {
			_, err := c.Do(context.Background(), theKey, neverRuns(t), idemflight.WithMaxWait(time.Second))
			require.ErrorIs(t, err, idemflight.ErrInFlight,
				"without fn's context the call is one like any other")
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
				require.ErrorIs(t, err, idemflight.ErrCallerLeft,
					"the wait ends with the context of the caller")
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
