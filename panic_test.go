package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// flBlowUp is named in the stack of its panic.
//
//go:noinline
func flBlowUp(v any) { panic(v) }

func flPanics(v any) flFn {
	return func(context.Context) (int, error) {
		flBlowUp(v)
		return 1, nil
	}
}

// flPanicOf requires that v is a *PanicError with this value and the stack of flBlowUp.
func flPanicOf(t *testing.T, v any, value any) *idemflight.PanicError {
	t.Helper()
	p, ok := v.(*idemflight.PanicError)
	require.True(t, ok, "must be a *PanicError, is %T: %v", v, v)
	require.Equal(t, value, p.Value, "PanicError.Value is what fn panicked with")
	require.Contains(t, string(p.Stack), "flBlowUp", "PanicError.Stack is that of the goroutine that panicked")
	require.Contains(t, p.Error(), fmt.Sprint(value), "Error shows the value")
	require.Contains(t, p.Error(), "flBlowUp", "Error shows the stack")
	return p
}

func TestPromise14_TheLeaderPanicsWithPanicError(t *testing.T) {
	for name, value := range map[string]any{
		"string":        "text",
		"number":        42,
		"error":         errFlBoom,
		"wrapped error": fmt.Errorf("wrapped: %w", errFlBoom),
		"final":         idemflight.Final(errFlBoom),
		"uncomparable":  []int{1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(flOptions{})
				leader := flGo(c, ctx, flKey, flPanics(value), opts...)
				synctest.Wait()
				require.True(t, leader.returned())
				require.False(t, leader.exited, "the leader panics, it does not exit")
				p := flPanicOf(t, leader.panicked, value)
				if err, ok := value.(error); ok {
					require.Equal(t, err, p.Unwrap(), "Unwrap gives the value if it is an error")
					require.ErrorIs(t, p, errFlBoom)
				} else {
					require.NoError(t, p.Unwrap(), "Unwrap gives nil if the value is no error")
				}
			})
		})
	}
}

func TestPromise14_PanicsOfTheRuntime(t *testing.T) {
	for name, end := range map[string]struct {
		fn    flFn
		value any
	}{
		"nil":         {func(context.Context) (int, error) { panic(nil) }, new(runtime.PanicNilError)},
		"index":       {func(context.Context) (int, error) { var none []int; return none[len(none)], nil }, runtime.Error(nil)},
		"nil pointer": {func(context.Context) (int, error) { var p *int; return *p, nil }, runtime.Error(nil)},
	} {
		t.Run(name, func(t *testing.T) {
			flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(flOptions{})
				leader := flGo(c, ctx, flKey, end.fn, opts...)
				synctest.Wait()
				p, ok := leader.panicked.(*idemflight.PanicError)
				require.True(t, ok, "must be a *PanicError, is %T", leader.panicked)
				if end.value != nil {
					require.IsType(t, end.value, p.Value, "PanicError.Value")
				}
				var re runtime.Error
				require.ErrorAs(t, p, &re, "the error of the runtime is behind it")
				_, err := c.Do(t.Context(), flKey, flNever[int](t))
				require.ErrorAs(t, err, &re, "and behind the error of who comes later")
			})
		})
	}
}

// flSays are what fn may have said about its effect before it ends badly, with what then becomes of
// the key by default.
var flSays = map[string]struct {
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
	for name, says := range flSays {
		t.Run(name, func(t *testing.T) {
			flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				c := idemflight.MustNew(flOptions{})
				gate := flNewGate(t)
				leader := flGo(c, ctx, flKey, func(ctx context.Context) (int, error) {
					says.say(t, ctx)
					gate.wait()
					flBlowUp(errFlBoom)
					return 1, nil
				}, opts...)
				synctest.Wait()
				var joined []*flCall[int]
				for _, ctx := range []context.Context{context.Background(), t.Context()} {
					joined = append(joined, flGo(c, ctx, flKey, flNever[int](t)), flGo(c, ctx, flKey, flNever[int](t), idemflight.Inline()))
				}
				synctest.Wait()
				gate.open()
				synctest.Wait()
				p := flPanicOf(t, leader.panicked, errFlBoom)
				for _, call := range joined {
					require.True(t, call.returned(), "nobody hangs")
					require.Nil(t, call.panicked, "only the leader panics")
					require.Zero(t, call.res.Value, "fn returned no value")
					require.Equal(t, idemflight.Joined, call.res.Source)
					var got *idemflight.PanicError
					require.ErrorAs(t, call.err, &got, "joined callers get *PanicError in their error")
					require.Same(t, p, got, "all callers get the same *PanicError")
					require.ErrorIs(t, call.err, errFlBoom, "what fn panicked with is behind it")
					require.Equal(t, says.held, errors.Is(call.err, idemflight.ErrOutcomeUnknown), "is ErrOutcomeUnknown: %v", call.err)
				}
				later := flGo(c, t.Context(), flKey, func(context.Context) (int, error) {
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
				require.ErrorIs(t, later.err, errFlBoom, "later callers get what was panicked with as well")
			})
		})
	}
}

func TestPromise14_TheProcessSurvivesWhenAllHaveLeft(t *testing.T) {
	for name, end := range map[string]flFn{"panic": flPanics(errFlBoom), "Goexit": flGoexits} {
		for joining := range 3 {
			t.Run(fmt.Sprintf("%s, %d joined", name, joining), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := idemflight.MustNew(flOptions{MaxEntries: 1})
					own := flGoroutines(t)
					gate := flNewGate(t)
					ctx, cancel := context.WithCancelCause(context.Background())
					calls := []*flCall[int]{flGo(c, ctx, flKey, func(ctx context.Context) (int, error) { gate.wait(); return end(ctx) })}
					synctest.Wait()
					for range joining {
						calls = append(calls, flGo(c, ctx, flKey, flNever[int](t)))
					}
					synctest.Wait()
					cancel(errFlCause)
					synctest.Wait()
					for _, call := range calls {
						call.left(t, ctx, errFlCause)
					}
					gate.open()
					synctest.Wait()
					require.Equal(t, own, flGoroutines(t), "goroutines when all is over")
					s := c.Stats()
					require.Zero(t, s.InFlight, "the flight has ended")
					require.EqualValues(t, 1, s.Panics, "Stats.Panics")
					_, err := c.Do(t.Context(), flKey, flNever[int](t))
					require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "the key is held")
				})
			})
		}
	}
}

func TestPromise14_WhenTheLeaderHasLeftJoinedCallersGetIt(t *testing.T) {
	for name, end := range map[string]flFn{"panic": flPanics(errFlBoom), "Goexit": flGoexits} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(flOptions{})
				gate := flNewGate(t)
				ctx, cancel := context.WithCancelCause(context.Background())
				leader := flGo(c, ctx, flKey, func(ctx context.Context) (int, error) { gate.wait(); return end(ctx) })
				synctest.Wait()
				joined := flGo(c, t.Context(), flKey, flNever[int](t))
				synctest.Wait()
				cancel(errFlCause)
				synctest.Wait()
				leader.left(t, ctx, errFlCause)
				gate.open()
				synctest.Wait()
				require.True(t, joined.returned(), "nobody hangs")
				require.Nil(t, joined.panicked, "only a leader re-panics")
				require.False(t, joined.exited, "only a leader exits")
				require.ErrorIs(t, joined.err, idemflight.ErrOutcomeUnknown)
				if name == "panic" {
					require.ErrorIs(t, joined.err, errFlBoom)
				} else {
					require.ErrorIs(t, joined.err, idemflight.ErrGoexit)
				}
			})
		})
	}
}

func TestPromise14_Goexit(t *testing.T) {
	for name, says := range flSays {
		for _, l := range flLeaders {
			t.Run(name+", "+l.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := idemflight.MustNew(flOptions{})
					gate := flNewGate(t)
					ctx, cancel := l.ctx()
					defer cancel()
					leader := flGo(c, ctx, flKey, func(ctx context.Context) (int, error) {
						says.say(t, ctx)
						gate.wait()
						return flGoexits(ctx)
					}, l.opts...)
					synctest.Wait()
					joined := []*flCall[int]{
						flGo(c, t.Context(), flKey, flNever[int](t)),
						flGo(c, context.Background(), flKey, flNever[int](t)),
						flGo(c, t.Context(), flKey, flNever[int](t), idemflight.Inline()),
					}
					synctest.Wait()
					gate.open()
					synctest.Wait()
					require.True(t, leader.returned(), "nobody hangs")
					require.Nil(t, leader.panicked, "Goexit is no panic")
					require.Equal(t, l.stays, leader.exited, "the leader's goroutine exits exactly if fn ran on it")
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
					_, ok := c.Lookup(flKey)
					require.Equal(t, says.held, ok, "whether the key is held")
				})
			})
		}
	}
}

func TestPromise14_NobodyHangsOrSeesZeroNil(t *testing.T) {
	for name, end := range map[string]flFn{
		"panic":     flPanics(errFlBoom),
		"panic nil": func(context.Context) (int, error) { panic(nil) },
		"Goexit":    flGoexits,
		"Goexit in a deferred function while panicking": func(ctx context.Context) (int, error) {
			defer runtime.Goexit()
			panic(errFlBoom)
		},
		"panic in a deferred function while exiting": func(ctx context.Context) (int, error) {
			defer func() { panic(errFlBoom) }()
			return flGoexits(ctx)
		},
		"panic in a deferred function while exiting, recovered": func(ctx context.Context) (int, error) {
			defer func() {
				defer func() { _ = recover() }()
				panic(errFlBoom)
			}()
			return flGoexits(ctx)
		},
		"second panic in a deferred function": func(context.Context) (int, error) {
			defer func() { panic("second") }()
			panic(errFlBoom)
		},
	} {
		for said, says := range flSays {
			t.Run(name+", "+said, func(t *testing.T) {
				flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
					c := idemflight.MustNew(flOptions{})
					own := flGoroutines(t)
					gate := flNewGate(t)
					calls := []*flCall[int]{flGo(c, ctx, flKey, func(ctx context.Context) (int, error) {
						says.say(t, ctx)
						gate.wait()
						return end(ctx)
					}, opts...)}
					synctest.Wait()
					calls = append(calls, flGo(c, t.Context(), flKey, flNever[int](t)), flGo(c, context.Background(), flKey, flNever[int](t)))
					synctest.Wait()
					gate.open()
					synctest.Wait()
					for i, call := range calls {
						require.True(t, call.returned(), "call %d must not hang", i)
						require.False(t, call.panicked == nil && !call.exited && call.err == nil, "call %d must not see (zero, nil)", i)
						require.False(t, i > 0 && (call.panicked != nil || call.exited), "joined caller %d gets an error, it does not panic or exit", i)
					}
					require.Equal(t, own, flGoroutines(t), "goroutines when all is over")
					require.Zero(t, c.Stats().InFlight, "Stats.InFlight")
					require.EqualValues(t, 1, c.Stats().Panics, "Stats.Panics")
					e, ok := c.Lookup(flKey)
					require.Equal(t, says.held, ok && e.State == idemflight.Held, "whether the key is held")
					if !says.held {
						v, err := c.Do(t.Context(), flKey, flReturns(2, nil))
						require.NoError(t, err, "the key is free")
						require.Equal(t, 2, v)
					} else {
						_, err := c.Do(t.Context(), flKey, flNever[int](t))
						require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
					}
				})
			})
		}
	}
}

func TestPromise14_InsideEachOther(t *testing.T) {
	flEachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
		c := idemflight.MustNew(flOptions{})
		leader := flGo(c, ctx, "outer", func(ctx context.Context) (int, error) {
			return c.Do(ctx, "inner", flPanics(errFlBoom))
		}, opts...)
		synctest.Wait()
		outer, ok := leader.panicked.(*idemflight.PanicError)
		require.True(t, ok, "the panic of an inner fn reaches the outer leader as a *PanicError, got %T", leader.panicked)
		require.ErrorIs(t, outer, errFlBoom, "what it panicked with is behind it")
		require.Contains(t, outer.Error(), "flBlowUp", "and the stack of where it panicked")

		// The inner fn runs on the goroutine of the outer one, which then exits as well.
		leader = flGo(c, ctx, "outer 2", func(ctx context.Context) (int, error) {
			_, _ = c.Do(ctx, "inner 2", flGoexits, idemflight.Inline())
			return 1, nil
		}, opts...)
		synctest.Wait()
		require.True(t, leader.returned())
		require.True(t, leader.exited || errors.Is(leader.err, idemflight.ErrGoexit), "Goexit of an inner fn on the same goroutine ends the outer one as well, got %v", leader.err)
		require.Zero(t, c.Stats().InFlight, "all flights have ended")
	})
}

// flHooked is a cache whose hooks end badly, with a record of what its observer was told.
type flHooked struct {
	*flCache
	mu     sync.Mutex
	events []idemflight.Event[string]
}

func (h *flHooked) told(kind idemflight.EventKind) (found []idemflight.Event[string]) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ev := range h.events {
		if ev.Kind == kind {
			found = append(found, ev)
		}
	}
	return found
}

func flNewHooked(opts flOptions) *flHooked {
	h := new(flHooked)
	opts.Observer = func(_ context.Context, ev idemflight.Event[string]) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.events = append(h.events, ev)
	}
	h.flCache = idemflight.MustNew(opts)
	return h
}

// flNoLockHeld requires that every key of c can still be used.
func flNoLockHeld(t *testing.T, c *flCache) {
	for i := range 100 {
		_, err := c.Do(t.Context(), "fresh "+strconv.Itoa(i), flReturns(1, nil))
		require.NoError(t, err)
	}
	c.Len()
	c.Stats()
	for key := range c.All() {
		c.Lookup(key)
		c.Forget(key)
	}
	c.Resolve(flKey, 1, nil)
}

func TestPromise14_APanicInClassifyHolds(t *testing.T) {
	for name, classify := range map[string]func(error) idemflight.Disposition{
		"panic":  func(error) idemflight.Disposition { panic("classify") },
		"Goexit": func(error) idemflight.Disposition { runtime.Goexit(); return idemflight.Release },
	} {
		for ending, end := range map[string]struct {
			fn   flFn
			want error
		}{
			"error":  {flReturns(7, errFlBoom), errFlBoom},
			"panic":  {flPanics(errFlBoom), errFlBoom},
			"Goexit": {flGoexits, idemflight.ErrGoexit},
		} {
			for _, l := range flLeaders {
				t.Run(fmt.Sprintf("%s after %s, %s", name, ending, l.name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						h := flNewHooked(flOptions{Classify: classify})
						c := h.flCache
						gate := flNewGate(t)
						ctx, cancel := l.ctx()
						defer cancel()
						leader := flGo(c, ctx, flKey, func(ctx context.Context) (int, error) { gate.wait(); return end.fn(ctx) }, l.opts...)
						synctest.Wait()
						joined := flGo(c, t.Context(), flKey, flNever[int](t))
						synctest.Wait()
						gate.open()
						synctest.Wait()
						require.True(t, leader.returned() && joined.returned(), "no caller hangs")
						require.Nil(t, joined.panicked)
						require.ErrorIs(t, joined.err, idemflight.ErrOutcomeUnknown, "the flight ends as a Hold")
						require.ErrorIs(t, joined.err, end.want, "what fn ended with is behind it")
						switch {
						case ending == "panic" && leader.exited, name == "Goexit" && leader.exited:
							require.True(t, l.stays && name == "Goexit", "only a Goexit on its own goroutine cannot be kept from the leader")
						case ending == "panic":
							flPanicOf(t, leader.panicked, errFlBoom)
						case ending == "Goexit" && l.stays:
							require.True(t, leader.exited, "the leader exits with fn")
						default:
							require.Nil(t, leader.panicked, "a panic in Classify is not the leader's")
							require.ErrorIs(t, leader.err, idemflight.ErrOutcomeUnknown)
							require.ErrorIs(t, leader.err, end.want)
							if ending == "error" {
								require.Equal(t, 7, leader.res.Value, "fn's value")
								require.Equal(t, 7, joined.res.Value, "fn's value")
							}
						}
						e, ok := c.Lookup(flKey)
						require.True(t, ok)
						require.Equal(t, idemflight.Held, e.State)
						require.EqualValues(t, 1, c.Stats().HookPanics, "Stats.HookPanics")
						events := h.told(idemflight.EventPanicked)
						require.Len(t, events, 1, "EventPanicked")
						require.Equal(t, flKey, events[0].Key)
						require.Error(t, events[0].Err)
						if name == "panic" {
							var p *idemflight.PanicError
							require.ErrorAs(t, events[0].Err, &p)
							require.Equal(t, "classify", p.Value)
						}
						require.Zero(t, c.Stats().InFlight)
						flNoLockHeld(t, c)
					})
				})
			}
		}
	}
}

func TestPromise14_AfterAPanicInWeighTheOutcomeWeighsZero(t *testing.T) {
	for name, weigh := range map[string]func(){"panic": func() { panic("weigh") }, "Goexit": runtime.Goexit} {
		for _, l := range flLeaders {
			t.Run(name+", "+l.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := flNewHooked(flOptions{MaxWeight: 10, Weigh: func(_ string, v int) int64 {
						if v == 1000 {
							weigh()
						}
						return int64(v)
					}})
					c := h.flCache
					_, err := c.Do(t.Context(), "before", flReturns(5, nil))
					require.NoError(t, err)
					gate := flNewGate(t)
					ctx, cancel := l.ctx()
					defer cancel()
					leader := flGo(c, ctx, flKey, func(context.Context) (int, error) { gate.wait(); return 1000, nil }, l.opts...)
					synctest.Wait()
					joined := flGo(c, t.Context(), flKey, flNever[int](t))
					synctest.Wait()
					gate.open()
					synctest.Wait()
					joined.got(t, idemflight.Joined, 1000)
					require.True(t, leader.returned(), "no caller hangs")
					if name == "panic" || !l.stays {
						leader.got(t, idemflight.Executed, 1000)
					}
					s := c.Stats()
					require.EqualValues(t, 5, s.Weight, "Stats.Weight: the outcome weighs 0, the other one still 5")
					require.Zero(t, s.Shed, "nothing is shed for it")
					require.EqualValues(t, 1, s.HookPanics, "Stats.HookPanics")
					events := h.told(idemflight.EventPanicked)
					require.Len(t, events, 1, "EventPanicked")
					require.Equal(t, flKey, events[0].Key)
					later := flGo(c, t.Context(), flKey, flNever[int](t))
					synctest.Wait()
					later.got(t, idemflight.Replayed, 1000)
					flNoLockHeld(t, c)
				})
			})
		}
	}
}

func TestPromise14_APanicInObserverIsContained(t *testing.T) {
	for name, observe := range map[string]func(){"panic": func() { panic("observer") }, "Goexit": runtime.Goexit} {
		for ending, fn := range map[string]flFn{"value": flReturns(1, nil), "panic": flPanics(errFlBoom)} {
			for _, l := range flLeaders {
				t.Run(fmt.Sprintf("%s after %s, %s", name, ending, l.name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						bad := true
						c := idemflight.MustNew(flOptions{Observer: func(context.Context, idemflight.Event[string]) {
							if bad {
								observe()
							}
						}})
						gate := flNewGate(t)
						ctx, cancel := l.ctx()
						defer cancel()
						leader := flGo(c, ctx, flKey, func(ctx context.Context) (int, error) { gate.wait(); return fn(ctx) }, l.opts...)
						synctest.Wait()
						joined := flGo(c, t.Context(), flKey, flNever[int](t))
						leaving, leave := context.WithCancelCause(context.Background())
						left := flGo(c, leaving, flKey, flNever[int](t))
						refused := flGo(c, t.Context(), flKey, flNever[int](t), idemflight.WithMaxWait(idemflight.NoWait))
						synctest.Wait()
						leave(errFlCause)
						synctest.Wait()
						gate.open()
						synctest.Wait()
						later := flGo(c, t.Context(), flKey, flNever[int](t))
						synctest.Wait()
						require.EqualValues(t, 5, c.Stats().HookPanics, "Stats.HookPanics: the observer was told of five calls")
						bad = false
						for i, call := range []*flCall[int]{leader, joined, left, refused, later} {
							require.True(t, call.returned(), "call %d must not hang", i)
							require.False(t, name == "panic" && call.exited, "call %d must not exit", i)
						}
						if name == "panic" {
							left.left(t, leaving, errFlCause)
							refused.refused(t, 0)
							if ending == "value" {
								leader.got(t, idemflight.Executed, 1)
								joined.got(t, idemflight.Joined, 1)
								later.got(t, idemflight.Replayed, 1)
							} else {
								flPanicOf(t, leader.panicked, errFlBoom)
								require.ErrorIs(t, joined.err, errFlBoom)
								require.ErrorIs(t, later.err, errFlBoom)
							}
						}
						s := c.Stats()
						require.EqualValues(t, 5, flCalls(s), "each call counts once all the same")
						require.Zero(t, s.InFlight+s.Waiters)
						_, ok := c.Lookup(flKey)
						require.True(t, ok, "the outcome is kept")
						flNoLockHeld(t, c)
					})
				})
			}
		}
	}
}
