package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// blowUp is named in the stack of its panic.
//
//go:noinline
func blowUp(v any) { panic(v) }

const blowUpLine = 21 // of this file, where blowUp panics

func panics(v any) intFn {
	return func(context.Context) (int, error) {
		blowUp(v)
		return 1, nil
	}
}

// requirePanic requires that v is a *PanicError with this value and the stack of blowUp.
func requirePanic(t *testing.T, v any, value any) *idemflight.PanicError {
	t.Helper()
	p, ok := v.(*idemflight.PanicError)
	require.True(t, ok, "must be a *PanicError, is %T: %v", v, v)
	require.Equal(t, value, p.Value, "PanicError.Value is what fn panicked with")
	require.Contains(t, string(p.Stack), "blowUp",
		"PanicError.Stack is that of the goroutine that panicked")
	require.Contains(t, p.Error(), fmt.Sprint(value), "Error shows the value")
	require.Contains(t, p.Error(), "blowUp", "Error shows the stack")
	return p
}

// requireWithoutStack requires that p, which a joined caller got or which is kept, says about the panic what
// the leader's says, except the stack: that is not to be kept, nor logged by each of many callers.
func requireWithoutStack(t *testing.T, leaders, p *idemflight.PanicError) {
	t.Helper()
	require.NotSame(t, leaders, p, "only the leader's has the stack")
	require.Empty(t, p.Stack, "only the leader's has the stack")
	require.Equal(t, leaders.Value, p.Value)
	text := fmt.Sprintf("idemflight: panic: %v (raised at panic_test.go:%d, in github.com/idemflight/idemflight_test.blowUp)", p.Value, blowUpLine)
	require.Equal(t, text, p.Error(), "one line: the value, and where it was raised")
	for _, format := range []string{"%v", "%+v", "%s"} {
		require.Equal(t, text, fmt.Sprintf(format, p), "%s: there is no stack to show", format)
	}
	require.Equal(t, strconv.Quote(text), fmt.Sprintf("%q", p))
}

// Promise 14: A panic in fn reaches the leader as a panic, with fn's frames on the stack, and
// joined callers as an error. Goexit strands nobody, and hooks that panic are contained.
func TestPromise14_TheLeaderPanicsWithPanicError(t *testing.T) {
	for name, value := range map[string]any{
		"string":        "text",
		"number":        42,
		"error":         errBoom,
		"wrapped error": fmt.Errorf("wrapped: %w", errBoom),
		"final":         idemflight.Final(errBoom),
		"uncomparable":  []int{1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(options{})
				leader := start(c, ctx, theKey, panics(value), opts...)
				synctest.Wait()
				require.True(t, leader.returned())
				require.False(t, leader.exited, "the leader panics, it does not exit")
				p := requirePanic(t, leader.panicked, value)
				if err, ok := value.(error); ok {
					require.Equal(t, err, p.Unwrap(), "Unwrap gives the value if it is an error")
					require.ErrorIs(t, p, errBoom)
				} else {
					require.NoError(t, p.Unwrap(), "Unwrap gives nil if the value is no error")
				}
			})
		})
	}
}

func TestPromise14_PanicsOfTheRuntime(t *testing.T) {
	for name, end := range map[string]struct {
		fn    intFn
		value any
	}{
		"nil":         {func(context.Context) (int, error) { panic(nil) }, new(runtime.PanicNilError)},
		"index":       {func(context.Context) (int, error) { var none []int; return none[len(none)], nil }, runtime.Error(nil)},
		"nil pointer": {func(context.Context) (int, error) { var p *int; return *p, nil }, runtime.Error(nil)},
	} {
		t.Run(name, func(t *testing.T) {
			eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(options{})
				leader := start(c, ctx, theKey, end.fn, opts...)
				synctest.Wait()
				p, ok := leader.panicked.(*idemflight.PanicError)
				require.True(t, ok, "must be a *PanicError, is %T", leader.panicked)
				if end.value != nil {
					require.IsType(t, end.value, p.Value, "PanicError.Value")
				}
				var re runtime.Error
				require.ErrorAs(t, p, &re, "the error of the runtime is behind it")
				_, err := c.Do(t.Context(), theKey, neverRuns(t))
				require.ErrorAs(t, err, &re, "and behind the error of later callers")
			})
		})
	}
}

// effectSays are what fn may have said about its effect before it ends badly, with what then
// becomes of the key by default.
var effectSays = map[string]struct {
	say  func(t *testing.T, ctx context.Context)
	held bool
}{
	"nothing said": {func(*testing.T, context.Context) {}, true},
	"an effect has begun": {func(t *testing.T, ctx context.Context) {
		require.NoError(t, idemflight.BeginEffect(ctx))
	}, true},
	"none has begun": {func(_ *testing.T, ctx context.Context) { idemflight.NoEffect(ctx) }, false},
}

func TestPromise14_JoinedCallersGetThePanicInTheirError(t *testing.T) {
	for name, says := range effectSays {
		t.Run(name, func(t *testing.T) {
			eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(options{})
				gate := newGate(t)
				leader := start(c, ctx, theKey, func(ctx context.Context) (int, error) {
					says.say(t, ctx)
					gate.wait()
					blowUp(errBoom)
					return 1, nil
				}, opts...)
				synctest.Wait()
				var joined []*pending[int]
				for _, ctx := range []context.Context{context.Background(), t.Context()} {
					joined = append(joined, start(c, ctx, theKey, neverRuns(t)), start(c, ctx, theKey, neverRuns(t), idemflight.Inline()))
				}
				synctest.Wait()
				gate.open()
				synctest.Wait()
				p := requirePanic(t, leader.panicked, errBoom)
				var first *idemflight.PanicError
				for i, call := range joined {
					require.True(t, call.returned(), "nobody hangs")
					require.Nil(t, call.panicked, "only the leader panics")
					require.Zero(t, call.res.Value, "fn returned no value")
					require.Equal(t, idemflight.Joined, call.res.Source)
					var got *idemflight.PanicError
					require.ErrorAs(t, call.err, &got,
						"joined callers get *PanicError in their error")
					requireWithoutStack(t, p, got)
					if i > 0 {
						require.Same(t, first, got, "all joined callers get the same *PanicError")
					}
					first = got
					require.ErrorIs(t, call.err, errBoom, "what fn panicked with is behind it")
					require.Equal(t, says.held, errors.Is(call.err, idemflight.ErrOutcomeUnknown),
						"is ErrOutcomeUnknown: %v", call.err)
				}
				later := start(c, t.Context(), theKey, func(context.Context) (int, error) {
					require.False(t, says.held, "fn must not run while the key is held")
					return 2, nil
				})
				synctest.Wait()
				if !says.held {
					later.got(t, idemflight.Executed, 2)
					return
				}
				require.Nil(t, later.panicked, "the panic is re-panicked in its flight only")
				require.ErrorIs(t, later.err, idemflight.ErrOutcomeUnknown)
				require.ErrorIs(t, later.err, errBoom,
					"later callers get what was panicked with as well")
				var kept *idemflight.PanicError
				require.ErrorAs(t, later.err, &kept)
				requireWithoutStack(t, p, kept)
				e, _ := lookup(c, theKey)
				require.ErrorAs(t, e.Err, &kept, "Entry.Err")
				requireWithoutStack(t, p, kept)
			})
		})
	}
}

func TestPromise14_TheProcessSurvivesWhenAllHaveLeft(t *testing.T) {
	for name, end := range map[string]intFn{"panic": panics(errBoom), "Goexit": goexits} {
		for joining := range 3 {
			t.Run(fmt.Sprintf("%s, %d joined", name, joining), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := idemflight.MustNew(options{MaxEntries: 1})
					own := goroutines(t)
					gate := newGate(t)
					ctx, cancel := context.WithCancelCause(context.Background())
					calls := []*pending[int]{start(c, ctx, theKey, func(ctx context.Context) (int, error) { gate.wait(); return end(ctx) })}
					synctest.Wait()
					for range joining {
						calls = append(calls, start(c, ctx, theKey, neverRuns(t)))
					}
					synctest.Wait()
					cancel(errEnough)
					synctest.Wait()
					for _, call := range calls {
						call.left(t, ctx, errEnough)
					}
					gate.open()
					synctest.Wait()
					require.Equal(t, own, goroutines(t), "goroutines when all is over")
					s := c.Stats()
					require.Zero(t, s.InFlight, "the flight has ended")
					require.EqualValues(t, 1, s.Panics, "Stats.Panics")
					_, err := c.Do(t.Context(), theKey, neverRuns(t))
					require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "the key is held")
				})
			})
		}
	}
}

func TestPromise14_WhenTheLeaderHasLeftJoinedCallersGetIt(t *testing.T) {
	for name, end := range map[string]intFn{"panic": panics(errBoom), "Goexit": goexits} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{})
				gate := newGate(t)
				ctx, cancel := context.WithCancelCause(context.Background())
				leader := start(c, ctx, theKey, func(ctx context.Context) (int, error) { gate.wait(); return end(ctx) })
				synctest.Wait()
				joined := start(c, t.Context(), theKey, neverRuns(t))
				synctest.Wait()
				cancel(errEnough)
				synctest.Wait()
				leader.left(t, ctx, errEnough)
				gate.open()
				synctest.Wait()
				require.True(t, joined.returned(), "nobody hangs")
				require.Nil(t, joined.panicked, "only a leader re-panics")
				require.False(t, joined.exited, "only a leader exits")
				require.ErrorIs(t, joined.err, idemflight.ErrOutcomeUnknown)
				if name == "panic" {
					require.ErrorIs(t, joined.err, errBoom)
				} else {
					require.ErrorIs(t, joined.err, idemflight.ErrGoexit)
				}
			})
		})
	}
}

func TestPromise14_Goexit(t *testing.T) {
	for name, says := range effectSays {
		for _, l := range leaders {
			t.Run(name+", "+l.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := idemflight.MustNew(options{})
					gate := newGate(t)
					ctx, cancel := l.ctx()
					defer cancel()
					leader := start(c, ctx, theKey, func(ctx context.Context) (int, error) {
						says.say(t, ctx)
						gate.wait()
						return goexits(ctx)
					}, l.opts...)
					synctest.Wait()
					joined := []*pending[int]{
						start(c, t.Context(), theKey, neverRuns(t)),
						start(c, context.Background(), theKey, neverRuns(t)),
						start(c, t.Context(), theKey, neverRuns(t), idemflight.Inline()),
					}
					synctest.Wait()
					gate.open()
					synctest.Wait()
					require.True(t, leader.returned(), "nobody hangs")
					require.Nil(t, leader.panicked, "Goexit is no panic")
					require.Equal(t, l.stays, leader.exited,
						"the leader's goroutine exits exactly if fn ran on it")
					if !l.stays {
						joined = append(joined, leader)
					}
					for _, call := range joined {
						require.True(t, call.returned(), "nobody hangs")
						require.Nil(t, call.panicked, "Goexit is no panic")
						require.False(t, call.exited, "only the goroutine that fn ran on exits")
						require.ErrorIs(t, call.err, idemflight.ErrGoexit, "callers get ErrGoexit")
						require.Equal(t, says.held, errors.Is(call.err, idemflight.ErrOutcomeUnknown), "is ErrOutcomeUnknown: %v", call.err)
						require.Zero(t, call.res.Value, "fn returned no value")
					}
					s := c.Stats()
					require.EqualValues(t, 1, s.Panics, "Stats.Panics counts Goexit")
					require.EqualValues(t, 1, s.Executed, "the leader's call counts as executed")
					_, ok := lookup(c, theKey)
					require.Equal(t, says.held, ok, "whether the key is held")
				})
			})
		}
	}
}

func TestPromise14_NobodyHangsOrSeesZeroNil(t *testing.T) {
	for name, end := range map[string]intFn{
		"panic":     panics(errBoom),
		"panic nil": func(context.Context) (int, error) { panic(nil) },
		"Goexit":    goexits,
		"Goexit in a deferred function while panicking": func(ctx context.Context) (int, error) {
			defer runtime.Goexit()
			panic(errBoom)
		},
		"panic in a deferred function while exiting": func(ctx context.Context) (int, error) {
			defer func() { panic(errBoom) }()
			return goexits(ctx)
		},
		"panic in a deferred function while exiting, recovered": func(ctx context.Context) (int, error) {
			defer func() {
				defer func() { _ = recover() }()
				panic(errBoom)
			}()
			return goexits(ctx)
		},
		"second panic in a deferred function": func(context.Context) (int, error) {
			defer func() { panic("second") }()
			panic(errBoom)
		},
	} {
		for said, says := range effectSays {
			t.Run(name+", "+said, func(t *testing.T) {
				eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
					c := idemflight.MustNew(options{})
					own := goroutines(t)
					gate := newGate(t)
					calls := []*pending[int]{start(c, ctx, theKey, func(ctx context.Context) (int, error) {
						says.say(t, ctx)
						gate.wait()
						return end(ctx)
					}, opts...)}
					synctest.Wait()
					calls = append(calls, start(c, t.Context(), theKey, neverRuns(t)), start(c, context.Background(), theKey, neverRuns(t)))
					synctest.Wait()
					gate.open()
					synctest.Wait()
					for i, call := range calls {
						require.True(t, call.returned(), "call %d must not hang", i)
						require.False(t, call.panicked == nil && !call.exited && call.err == nil,
							"call %d must not see (zero, nil)", i)
						require.False(t, i > 0 && (call.panicked != nil || call.exited),
							"joined caller %d gets an error, it does not panic or exit", i)
					}
					require.Equal(t, own, goroutines(t), "goroutines when all is over")
					require.Zero(t, c.Stats().InFlight, "Stats.InFlight")
					require.EqualValues(t, 1, c.Stats().Panics, "Stats.Panics")
					e, ok := lookup(c, theKey)
					require.Equal(t, says.held, ok && e.State == idemflight.Held,
						"whether the key is held")
					if !says.held {
						v, err := c.Do(t.Context(), theKey, returns(2, nil))
						require.NoError(t, err, "the key is free")
						require.Equal(t, 2, v)
					} else {
						_, err := c.Do(t.Context(), theKey, neverRuns(t))
						require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
					}
				})
			})
		}
	}
}

func TestPromise14_InsideEachOther(t *testing.T) {
	eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
		c := idemflight.MustNew(options{})
		leader := start(c, ctx, "outer", func(ctx context.Context) (int, error) {
			return c.Do(ctx, "inner", panics(errBoom))
		}, opts...)
		synctest.Wait()
		outer, ok := leader.panicked.(*idemflight.PanicError)
		require.True(t, ok, "the panic of an inner fn reaches the outer leader as a *PanicError, got %T", leader.panicked)
		require.ErrorIs(t, outer, errBoom, "what it panicked with is behind it")
		require.Contains(t, outer.Error(), "blowUp", "and the stack of where it panicked")

		// The inner fn runs on the goroutine of the outer one, which then exits as well.
		leader = start(c, ctx, "outer 2", func(ctx context.Context) (int, error) {
			_, _ = c.Do(ctx, "inner 2", goexits, idemflight.Inline())
			return 1, nil
		}, opts...)
		synctest.Wait()
		require.True(t, leader.returned())
		require.True(t, leader.exited || errors.Is(leader.err, idemflight.ErrGoexit), "Goexit of an inner fn on the same goroutine ends the outer one as well, got %v", leader.err)
		require.Zero(t, c.Stats().InFlight, "all flights have ended")
	})
}

// hookedCache is a cache whose hooks end badly, with a record of what its Observer saw.
type hookedCache struct {
	*cache
	eventLog[string]
}

func newHookedCache(opts options) *hookedCache {
	h := new(hookedCache)
	opts.Observer = h.observe
	h.cache = idemflight.MustNew(opts)
	return h
}

// requireNoLockHeld requires that every key of c can still be used.
func requireNoLockHeld(t *testing.T, c *cache) {
	for i := range 100 {
		_, err := c.Do(t.Context(), "fresh "+strconv.Itoa(i), returns(1, nil))
		require.NoError(t, err)
	}
	c.Len()
	c.Stats()
	for key := range c.All() {
		lookup(c, key)
		forget(c, key)
	}
	resolve(c, theKey, 1, nil)
}

func TestPromise14_APanicInClassifyHolds(t *testing.T) {
	for name, classify := range map[string]func(error) idemflight.Disposition{
		"panic":  func(error) idemflight.Disposition { panic("classify") },
		"Goexit": func(error) idemflight.Disposition { runtime.Goexit(); return idemflight.Release },
	} {
		for ending, end := range map[string]struct {
			fn   intFn
			want error
		}{
			"error":  {returns(7, errBoom), errBoom},
			"panic":  {panics(errBoom), errBoom},
			"Goexit": {goexits, idemflight.ErrGoexit},
		} {
			for _, l := range leaders {
				t.Run(fmt.Sprintf("%s after %s, %s", name, ending, l.name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						h := newHookedCache(options{Classify: classify})
						c := h.cache
						gate := newGate(t)
						ctx, cancel := l.ctx()
						defer cancel()
						leader := start(c, ctx, theKey, func(ctx context.Context) (int, error) { gate.wait(); return end.fn(ctx) }, l.opts...)
						synctest.Wait()
						joined := start(c, t.Context(), theKey, neverRuns(t))
						synctest.Wait()
						gate.open()
						synctest.Wait()
						require.True(t, leader.returned() && joined.returned(), "no caller hangs")
						require.Nil(t, joined.panicked)
						require.ErrorIs(t, joined.err, idemflight.ErrOutcomeUnknown,
							"the flight ends as a Hold")
						require.ErrorIs(t, joined.err, end.want, "what fn ended with is behind it")
						switch {
						case ending == "panic" && leader.exited, name == "Goexit" && leader.exited:
							require.True(t, l.stays && name == "Goexit",
								"only a Goexit on its own goroutine cannot be kept from the leader")
						case ending == "panic":
							requirePanic(t, leader.panicked, errBoom)
						case ending == "Goexit" && l.stays:
							require.True(t, leader.exited, "the leader exits with fn")
						default:
							require.Nil(t, leader.panicked,
								"a panic in Classify is not the leader's")
							require.ErrorIs(t, leader.err, idemflight.ErrOutcomeUnknown)
							require.ErrorIs(t, leader.err, end.want)
							if ending == "error" {
								require.Equal(t, 7, leader.res.Value, "fn's value")
								require.Equal(t, 7, joined.res.Value, "fn's value")
							}
						}
						e, ok := lookup(c, theKey)
						require.True(t, ok)
						require.Equal(t, idemflight.Held, e.State)
						require.EqualValues(t, 1, c.Stats().HookPanics, "Stats.HookPanics")
						events := h.of(idemflight.EventPanicked)
						require.Len(t, events, 1, "EventPanicked")
						require.Equal(t, theKey, events[0].Key)
						require.Error(t, events[0].Err)
						if name == "panic" {
							var p *idemflight.PanicError
							require.ErrorAs(t, events[0].Err, &p)
							require.Equal(t, "classify", p.Value)
						}
						require.Zero(t, c.Stats().InFlight)
						requireNoLockHeld(t, c)
					})
				})
			}
		}
	}
}

func TestPromise14_AfterAPanicInWeighTheOutcomeWeighsZero(t *testing.T) {
	for name, weigh := range map[string]func(){"panic": func() { panic("weigh") }, "Goexit": runtime.Goexit} {
		for _, l := range leaders {
			t.Run(name+", "+l.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHookedCache(options{MaxWeight: 10, Weigh: func(_ string, v int) int64 {
						if v == 1000 {
							weigh()
						}
						return int64(v)
					}})
					c := h.cache
					_, err := c.Do(t.Context(), "before", returns(5, nil))
					require.NoError(t, err)
					gate := newGate(t)
					ctx, cancel := l.ctx()
					defer cancel()
					leader := start(c, ctx, theKey, func(context.Context) (int, error) { gate.wait(); return 1000, nil }, l.opts...)
					synctest.Wait()
					joined := start(c, t.Context(), theKey, neverRuns(t))
					synctest.Wait()
					gate.open()
					synctest.Wait()
					joined.got(t, idemflight.Joined, 1000)
					require.True(t, leader.returned(), "no caller hangs")
					if name == "panic" || !l.stays {
						leader.got(t, idemflight.Executed, 1000)
					}
					s := c.Stats()
					require.EqualValues(t, 5, s.Weight,
						"Stats.Weight: the outcome weighs 0, the other one still 5")
					require.Zero(t, s.Shed, "nothing is shed for it")
					require.EqualValues(t, 1, s.HookPanics, "Stats.HookPanics")
					events := h.of(idemflight.EventPanicked)
					require.Len(t, events, 1, "EventPanicked")
					require.Equal(t, theKey, events[0].Key)
					later := start(c, t.Context(), theKey, neverRuns(t))
					synctest.Wait()
					later.got(t, idemflight.Replayed, 1000)
					requireNoLockHeld(t, c)
				})
			})
		}
	}
}

func TestPromise14_APanicInObserverIsContained(t *testing.T) {
	for name, observe := range map[string]func(){"panic": func() { panic("observer") }, "Goexit": runtime.Goexit} {
		for ending, fn := range map[string]intFn{"value": returns(1, nil), "panic": panics(errBoom)} {
			for _, l := range leaders {
				t.Run(fmt.Sprintf("%s after %s, %s", name, ending, l.name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						bad := true
						c := idemflight.MustNew(options{Observer: func(context.Context, idemflight.Event[string]) {
							if bad {
								observe()
							}
						}})
						gate := newGate(t)
						ctx, cancel := l.ctx()
						defer cancel()
						leader := start(c, ctx, theKey, func(ctx context.Context) (int, error) { gate.wait(); return fn(ctx) }, l.opts...)
						synctest.Wait()
						joined := start(c, t.Context(), theKey, neverRuns(t))
						leaving, leave := context.WithCancelCause(context.Background())
						left := start(c, leaving, theKey, neverRuns(t))
						refused := start(c, t.Context(), theKey, neverRuns(t), idemflight.WithMaxWait(idemflight.NoWait))
						synctest.Wait()
						leave(errEnough)
						synctest.Wait()
						gate.open()
						synctest.Wait()
						later := start(c, t.Context(), theKey, neverRuns(t))
						synctest.Wait()
						require.EqualValues(t, 5, c.Stats().HookPanics,
							"Stats.HookPanics: the observer was told of five calls")
						bad = false
						for i, call := range []*pending[int]{leader, joined, left, refused, later} {
							require.True(t, call.returned(), "call %d must not hang", i)
							require.False(t, name == "panic" && call.exited,
								"call %d must not exit", i)
						}
						if name == "panic" {
							left.left(t, leaving, errEnough)
							refused.refused(t, 0)
							if ending == "value" {
								leader.got(t, idemflight.Executed, 1)
								joined.got(t, idemflight.Joined, 1)
								later.got(t, idemflight.Replayed, 1)
							} else {
								requirePanic(t, leader.panicked, errBoom)
								require.ErrorIs(t, joined.err, errBoom)
								require.ErrorIs(t, later.err, errBoom)
							}
						}
						s := c.Stats()
						require.EqualValues(t, 5, sumOfCalls(s),
							"each call counts once all the same")
						require.Zero(t, s.InFlight+s.Waiters)
						_, ok := lookup(c, theKey)
						require.True(t, ok, "the outcome is kept")
						requireNoLockHeld(t, c)
					})
				})
			}
		}
	}
}

// Whoever recovers a panic of fn outside of the call, on the goroutine on which fn ran, finds fn's frames
// on the stack: middleware that logs debug.Stack shows where it happened.
func TestPromise14_FnsFramesAreOnTheStackOfWhoRecovers(t *testing.T) {
	inline := []idemflight.CallOption{idemflight.Inline()}
	for name, call := range map[string]struct {
		canEnd, held bool
		opts         []idemflight.CallOption
		elsewhere    bool // fn runs on a goroutine of its own
	}{
		"Inline":                                     {canEnd: true, opts: inline},
		"Inline, a context that never ends":          {opts: inline},
		"a context that never ends":                  {},
		"Inline, after Reconcile":                    {canEnd: true, held: true, opts: inline},
		"a context that never ends, after Reconcile": {held: true},
		"a context that can end":                     {canEnd: true, elsewhere: true},
		"a context that can end, after Reconcile":    {canEnd: true, held: true, elsewhere: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{Reconcile: answers(0, idemflight.Retryable(errNoPayment))})
				if call.held {
					hold(t, c, theKey)
				}
				ctx := bg
				if call.canEnd {
					ctx = t.Context()
				}
				var stack string
				recovered := func() (v any) {
					defer func() {
						stack = string(debug.Stack())
						v = recover()
					}()
					_, _ = c.Do(ctx, theKey, panics(errBoom), call.opts...)
					return nil
				}()
				p := requirePanic(t, recovered, errBoom)
				if call.elsewhere {
					require.NotContains(t, stack, "blowUp", "fn ran elsewhere: its frames are in Stack only")
				} else {
					require.Contains(t, stack, "idemflight_test.blowUp", "fn's frames are still on the stack")
					require.Contains(t, stack, fmt.Sprintf("panic_test.go:%d", blowUpLine), "and say where it happened")
				}
				require.Contains(t, p.Error(), fmt.Sprintf("idemflight: panic: boom (raised at panic_test.go:%d, in ", blowUpLine),
					"the leader's error says first where it was raised")
				for _, format := range []string{"%v", "%+v", "%s"} {
					require.Equal(t, p.Error(), fmt.Sprintf(format, p), "%s shows the stack, once", format)
				}
				require.Zero(t, c.Stats().InFlight, "the flight has landed")
				requireState(t, c, idemflight.Held, theKey)
			})
		})
	}
}

// A panic that nobody raises again says in one line where it was raised; %+v shows the stack, if it has one.
func TestPromise14_APanicThatIsContainedSaysWhereItWasRaised(t *testing.T) {
	h := newHookedCache(options{Classify: func(error) idemflight.Disposition { blowUp("classify"); return idemflight.Hold }})
	_, err := h.Do(bg, theKey, returns(0, errBoom))
	require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
	told := h.of(idemflight.EventPanicked)
	require.Len(t, told, 1)
	p, ok := told[0].Err.(*idemflight.PanicError)
	require.True(t, ok, "Err of EventPanicked is a *PanicError, got %T", told[0].Err)
	line := fmt.Sprintf("idemflight: panic: classify (raised at panic_test.go:%d, in github.com/idemflight/idemflight_test.blowUp)", blowUpLine)
	require.Equal(t, line, p.Error(), "one line: the value, and where it was raised")
	require.Equal(t, line, fmt.Sprintf("%v", p))
	require.Equal(t, line, fmt.Sprintf("%s", p)) //nolint:gosimple // the verb is what is tested
	require.Equal(t, strconv.Quote(line), fmt.Sprintf("%q", p))
	require.Equal(t, line+"\n\n"+string(p.Stack), fmt.Sprintf("%+v", p), "%%+v shows the stack, too")
	require.Contains(t, string(p.Stack), "blowUp")
}

// What an fn panics with may be a nil *PanicError, and whoever recovers may take the stack away.
func TestPromise14_PanicErrorsWithoutInsides(t *testing.T) {
	c := idemflight.MustNew(options{})
	p := requirePanic(t, panicOf(func() { _, _ = c.Do(bg, "k", panics((*idemflight.PanicError)(nil))) }), (*idemflight.PanicError)(nil))
	_, err := c.Do(bg, "k", neverRuns(t))
	require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
	kept, ok := errors.AsType[*idemflight.PanicError](err)
	require.True(t, ok)
	require.Nil(t, kept.Value)
	require.Contains(t, p.Error(), "\n\n")
	p.Stack = nil
	require.NotContains(t, p.Error(), "\n")
}
