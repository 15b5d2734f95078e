package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// Promise 12: Without a marker, an error, a panic or a Goexit is held if an effect has begun, and
// released if none has. If fn said neither, Classify decides; without Classify the key is held.
// BeginEffect refuses once it is too late.
func TestPromise12_EffectCountDecidesUnmarkedErrorPanicAndGoexit(t *testing.T) {
	failed := errors.New("failed")
	const B, N = true, false // BeginEffect, NoEffect
	for name, c := range map[string]struct {
		calls []bool
		want  idemflight.Disposition
	}{
		"begun":                        {[]bool{B}, idemflight.Hold},
		"begun twice":                  {[]bool{B, B}, idemflight.Hold},
		"begun and taken back":         {[]bool{B, N}, idemflight.Release},
		"one of two taken back":        {[]bool{B, B, N}, idemflight.Hold},
		"one of two, said twice":       {[]bool{B, B, N, N}, idemflight.Hold}, // by the client library and by its caller
		"one of two, said thrice":      {[]bool{B, B, N, N, N}, idemflight.Hold},
		"two in turn, said twice each": {[]bool{B, N, N, B, N, N}, idemflight.Release},
		"the later two of three":       {[]bool{B, B, N, B, N}, idemflight.Hold},
		"said first, begun, refused":   {[]bool{N, B, N}, idemflight.Release},
		"taken back and begun again":   {[]bool{B, N, B}, idemflight.Hold},
		"each taken back":              {[]bool{B, N, B, N}, idemflight.Release},
		"nothing begun":                {[]bool{N}, idemflight.Release},
		"nothing begun, said twice":    {[]bool{N, N}, idemflight.Release},
		"nothing begun, then begun":    {[]bool{N, B}, idemflight.Hold},
		"an early NoEffect saves none": {[]bool{N, N, N, B}, idemflight.Hold},
		"a late NoEffect saves none":   {[]bool{B, N, N, N, B}, idemflight.Hold},
	} {
		for how, end := range map[string]func() (int, error){
			"error":  func() (int, error) { return 0, failed },
			"panic":  func() (int, error) { panic("failed") },
			"Goexit": func() (int, error) { runtime.Goexit(); return 0, nil },
		} {
			// Whatever Classify would say, it is not asked: the opposite of what is wanted shows it.
			for _, says := range dispositions {
				synctest.Test(t, func(t *testing.T) {
					asked := 0
					cache := idemflight.MustNew(options{
						MaxEntries: fewEntries, Classify: func(error) idemflight.Disposition { asked++; return says },
					})
					start(cache, t.Context(), theKey, func(ctx context.Context) (int, error) {
						for _, begin := range c.calls {
							if !begin {
								idemflight.NoEffect(ctx)
								continue
							}
							if err := idemflight.BeginEffect(ctx); err != nil {
								t.Errorf("%s: BeginEffect must return nil while fn runs, got %v", name, err)
							}
						}
						return end()
					})
					synctest.Wait()
					require.Equal(t, c.want, dispositionOf(t, cache, theKey),
						"%s, then %s", name, how)
					require.Zero(t, asked, "%s, then %s: Classify must not be asked", name, how)
				})
			}
		}
	}
}

// Effects that are too many to be counted have begun all the same, and NoEffect cannot know whether it refers to the last.
func TestPromise12_MoreEffectsThanCanBeCounted(t *testing.T) {
	c := idemflight.MustNew(options{})
	_, err := c.Do(bg, theKey, func(ctx context.Context) (int, error) {
		idemflight.SetEffects(ctx, math.MaxInt32-2)
		for _, want := range []int32{math.MaxInt32 - 1, math.MaxInt32, math.MaxInt32} {
			require.NoError(t, idemflight.BeginEffect(ctx))
			require.Equal(t, want, idemflight.Effects(ctx))
		}
		idemflight.NoEffect(ctx)
		require.EqualValues(t, math.MaxInt32, idemflight.Effects(ctx))
		return 0, errBoom
	})
	require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
}

func TestPromise12_BeginEffectRefusesAfterExecTimeout(t *testing.T) {
	looks := map[string]func(context.Context){
		"timer never armed": func(context.Context) {},
		"Done was asked":    func(ctx context.Context) { _ = ctx.Done() },
		"context derived": func(ctx context.Context) {
			_, cancel := context.WithCancel(ctx)
			cancel()
		},
	}
	for look, arm := range looks {
		for timeout, opt := range map[time.Duration]time.Duration{time.Minute: time.Minute, idemflight.DefaultExecTimeout: 0} {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{ExecTimeout: opt})
				_, err := c.Do(t.Context(), theKey, func(ctx context.Context) (int, error) {
					arm(ctx)
					time.Sleep(timeout - time.Nanosecond)
					if err := idemflight.BeginEffect(ctx); err != nil {
						t.Errorf("%s: BeginEffect a nanosecond before ExecTimeout must return nil, got %v", look, err)
					}
					idemflight.NoEffect(ctx)
					time.Sleep(2 * time.Nanosecond)
					err := idemflight.BeginEffect(ctx)
					if !errors.Is(err, context.DeadlineExceeded) || err != context.Cause(ctx) {
						t.Errorf("%s: BeginEffect after ExecTimeout must refuse with the cause of fn's context, got %v, cause %v", look, err, context.Cause(ctx))
					}
					return 0, err
				})
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.NotErrorIs(t, err, idemflight.ErrOutcomeUnknown,
					"%s: nothing has begun", look)
			})
		}
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{ExecTimeout: -1})
			_, err := c.Do(t.Context(), theKey, func(ctx context.Context) (int, error) {
				arm(ctx)
				time.Sleep(1000 * time.Hour)
				return 7, idemflight.BeginEffect(ctx)
			})
			require.NoError(t, err,
				"%s: with a negative ExecTimeout BeginEffect never refuses while fn runs", look)
		})
	}
}

// At the very instant of the deadline two goroutines wake: fn, and the one that ends its context.
// Whichever comes first, it is too late.
func TestPromise12_BeginEffectRefusesWhileTheTimerIsLate(t *testing.T) {
	var late int // how often fn was first
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{ExecTimeout: time.Minute})
			_, err := c.Do(t.Context(), theKey, func(ctx context.Context) (int, error) {
				wake := time.After(time.Minute)
				ended := ctx.Done()
				<-wake
				select {
				case <-ended:
				default:
					late++
				}
				err := idemflight.BeginEffect(ctx)
				if err != context.DeadlineExceeded {
					t.Errorf("BeginEffect at the deadline must refuse with it, got %v", err)
				}
				return 0, err
			})
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NotErrorIs(t, err, idemflight.ErrOutcomeUnknown, "nothing has begun")
		})
	}
	t.Logf("fn was first in %d of 200", late)
}

// Once fn has returned, BeginEffect still says why it is too late: fn has returned, or ExecTimeout had
// passed before.
func TestPromise12_BeginEffectAfterAnOverdueFnTellsTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{ExecTimeout: time.Minute})
		for _, tt := range []struct {
			takes time.Duration
			want  error
		}{{time.Second, context.Canceled}, {time.Hour, context.DeadlineExceeded}} {
			var ctx context.Context
			_, err := c.Do(t.Context(), tt.takes.String(), func(inner context.Context) (int, error) {
				ctx = inner
				time.Sleep(tt.takes)
				return 1, nil
			})
			require.NoError(t, err)
			require.Equal(t, tt.want, idemflight.BeginEffect(ctx), "fn took %v", tt.takes)
			require.Equal(t, tt.want, context.Cause(ctx))
		}
	})
}

func TestPromise12_RefusedBeginEffectReleases(t *testing.T) {
	const B, N, R = 'B', 'N', 'R' // BeginEffect, NoEffect, a BeginEffect that is refused
	for calls, want := range map[string]idemflight.Disposition{
		"R":     idemflight.Release,
		"RR":    idemflight.Release,
		"NR":    idemflight.Release,
		"BNR":   idemflight.Release,
		"BR":    idemflight.Hold, // what began before is out there
		"BRN":   idemflight.Release,
		"BBRN":  idemflight.Hold,
		"BRR":   idemflight.Hold, // two refusals take nothing back
		"RN":    idemflight.Release,
		"NBRR":  idemflight.Hold,
		"BNBR":  idemflight.Hold,
		"BBRNN": idemflight.Hold, // the second NoEffect without a BeginEffect in between does nothing
		"BBNRN": idemflight.Hold, // and one that is refused is not in between
		"BRNN":  idemflight.Release,
		"RRN":   idemflight.Release,
	} {
		for how, end := range map[string]func(error) (int, error){
			"refusal returned": func(err error) (int, error) { return 0, err },
			"other error":      func(error) (int, error) { return 0, io.EOF },
			"panic":            func(error) (int, error) { panic("boom") },
			"Goexit":           func(error) (int, error) { runtime.Goexit(); return 0, nil },
		} {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				c := idemflight.MustNew(options{
					ExecTimeout: time.Minute,
					Classify:    func(error) idemflight.Disposition { asked++; return idemflight.Retain },
				})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				start(c, ctx, theKey, func(ctx context.Context) (int, error) {
					var refused error
					for _, call := range calls {
						switch call {
						case B:
							if err := idemflight.BeginEffect(ctx); err != nil {
								t.Errorf("%s: BeginEffect before the timeout: %v", calls, err)
							}
						case N:
							idemflight.NoEffect(ctx)
						case R:
							time.Sleep(2 * time.Minute)
							if refused = idemflight.BeginEffect(ctx); refused == nil {
								t.Errorf("%s: BeginEffect after the timeout must refuse", calls)
							}
						}
					}
					return end(refused)
				})
				time.Sleep(time.Hour)
				synctest.Wait()
				require.Equal(t, want, dispositionOf(t, c, theKey),
					"%s (B begin, N no effect, R refused), then %s", calls, how)
				require.Zero(t, asked, "%s, then %s: a refusal takes part like NoEffect, Classify must not be asked", calls, how)
			})
		}
	}
}

func TestPromise12_SuccessIsRetainedWhateverBeginEffectSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{ExecTimeout: time.Minute})
		v, err := c.Do(t.Context(), theKey, func(ctx context.Context) (int, error) {
			time.Sleep(time.Hour)
			if idemflight.BeginEffect(ctx) == nil {
				t.Error("BeginEffect after ExecTimeout must refuse")
			}
			return 7, nil
		})
		require.NoError(t, err)
		require.Equal(t, 7, v)
		require.Equal(t, idemflight.Retain, dispositionOf(t, c, theKey),
			"a nil error after a refusal")
	})
}

func TestPromise12_BeginEffectRefusesOnceFnHasReturned(t *testing.T) {
	for _, timeout := range []time.Duration{0, -1} {
		for name, derive := range map[string]func(context.Context) context.Context{
			"fn's own":      func(ctx context.Context) context.Context { return ctx },
			"WithValue":     func(ctx context.Context) context.Context { return context.WithValue(ctx, nameKey{}, 1) },
			"WithoutCancel": func(ctx context.Context) context.Context { return context.WithoutCancel(ctx) },
		} {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{ExecTimeout: timeout})
				var fnCtx context.Context
				_, err := c.Do(t.Context(), theKey, func(ctx context.Context) (int, error) {
					fnCtx = ctx
					return 0, idemflight.Retryable(errors.New("transient"))
				})
				require.Error(t, err)
				refused := idemflight.BeginEffect(derive(fnCtx))
				require.Error(t, refused, "%s: BeginEffect after fn has returned", name)
				require.Equal(t, context.Cause(fnCtx), refused,
					"%s: must be the cause of fn's context", name)
				require.NotErrorIs(t, refused, idemflight.ErrNotExecuting,
					"%s: the context does belong to an execution", name)
				require.Equal(t, idemflight.Release, dispositionOf(t, c, theKey),
					"%s: nothing is kept of a late BeginEffect", name)

				// What the leftovers of one execution say must not reach the next one of its key.
				next := start(c, t.Context(), theKey, func(ctx context.Context) (int, error) {
					if err := idemflight.BeginEffect(ctx); err != nil {
						t.Errorf("%s: the new execution may begin: %v", name, err)
					}
					time.Sleep(time.Second)
					return 0, errors.New("failed")
				})
				synctest.Wait()
				idemflight.NoEffect(derive(fnCtx))
				require.Error(t, idemflight.BeginEffect(derive(fnCtx)),
					"%s: refused while the next execution runs, too", name)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				require.ErrorIs(t, next.err, idemflight.ErrOutcomeUnknown,
					"%s: NoEffect of an execution that is over must do nothing to the next", name)
				idemflight.NoEffect(derive(fnCtx))
				require.Equal(t, idemflight.Hold, dispositionOf(t, c, theKey),
					"%s: nor to what is held", name)
			})
		}
	}
}

// Once: BeginEffect answered nil between the count of the effects and the end of the context.
func TestBeginEffect_IsRefusedOnceEffectsAreNoLongerCounted(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[int, int]{
		Classify: func(error) idemflight.Disposition { return idemflight.Release },
	})
	for i := 1; i <= 2000; i++ {
		begun := make(chan error, 1)
		var spinning atomic.Bool
		_, err := c.Do(bg, i, func(ctx context.Context) (int, error) {
			for range 50 { // contexts that take time to cancel
				_, cancel := context.WithCancel(ctx)
				defer func() { _ = cancel }()
			}
			go func() {
				spinning.Store(true)
				for range i % 500 {
					spinning.Load()
				}
				begun <- idemflight.BeginEffect(ctx)
			}()
			for !spinning.Load() {
				runtime.Gosched()
			}
			return 0, errors.New("failed")
		})
		if <-begun == nil {
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown,
				"an effect was allowed, so the key must be held")
		}
	}
}

func TestPromise12_ErrNotExecutingOutsideOfAnyExecution(t *testing.T) {
	c := idemflight.MustNew(options{})
	asked := 0
	classify := idemflight.MustNew(options{Classify: func(error) idemflight.Disposition { asked++; return idemflight.Retain }})
	caller := context.WithValue(context.Background(), nameKey{}, "caller's")
	for name, ctx := range map[string]context.Context{"Background": context.Background(), "the caller's": caller, "a test's": t.Context()} {
		require.ErrorIs(t, idemflight.BeginEffect(ctx), idemflight.ErrNotExecuting, "%s", name)
		require.NotPanics(t, func() { idemflight.NoEffect(ctx) }, "NoEffect with %s", name)
		// Not even while an execution runs that this context started: it is not the one fn was given.
		_, _ = c.Do(caller, theKey, func(fnCtx context.Context) (int, error) {
			if err := idemflight.BeginEffect(fnCtx); err != nil {
				t.Errorf("%s: BeginEffect with fn's context: %v", name, err)
			}
			if err := idemflight.BeginEffect(ctx); !errors.Is(err, idemflight.ErrNotExecuting) {
				t.Errorf("%s inside fn: want ErrNotExecuting, got %v", name, err)
			}
			idemflight.NoEffect(ctx)
			return 0, errors.New("failed")
		})
		require.Equal(t, idemflight.Hold, dispositionOf(t, c, theKey),
			"%s: NoEffect with it must do nothing", name)
		forget(c, theKey)

		asked = 0
		_, _ = classify.Do(caller, theKey, func(context.Context) (int, error) {
			idemflight.NoEffect(ctx)
			return 0, idemflight.BeginEffect(ctx)
		})
		require.Equal(t, 1, asked,
			"%s: with a context of no execution fn said neither, so Classify is asked", name)
		forget(classify, theKey)
	}
}

func TestPromise12_BothWorkFromAnyGoroutineWhileFnRuns(t *testing.T) {
	const workers, rounds = 4, 250
	none := func(context.Context) error { return nil }
	for name, tc := range map[string]struct {
		inTurn bool // an effect begins when the one before was taken back
		extra  func(context.Context) error
		want   idemflight.Disposition
	}{
		"in turn, all taken back":          {true, none, idemflight.Release},
		"in turn, one left":                {true, idemflight.BeginEffect, idemflight.Hold},
		"at the same time, all taken back": {false, none, idemflight.Hold}, // they cannot be told apart
	} {
		asked := 0
		c := idemflight.MustNew(options{Classify: func(error) idemflight.Disposition { asked++; return idemflight.Retain }})
		_, err := c.Do(context.Background(), theKey, func(ctx context.Context) (int, error) {
			var wg sync.WaitGroup
			var turn sync.Mutex
			begin := func() {
				if err := idemflight.BeginEffect(ctx); err != nil {
					t.Errorf("%s: BeginEffect: %v", name, err)
				}
			}
			for range workers {
				wg.Go(func() {
					for range rounds {
						if tc.inTurn {
							turn.Lock()
							begin()
							idemflight.NoEffect(ctx)
							turn.Unlock()
						} else {
							begin()
						}
					}
					if !tc.inTurn {
						for range rounds {
							idemflight.NoEffect(ctx)
						}
					}
				})
			}
			if err := tc.extra(ctx); err != nil {
				t.Errorf("%s: BeginEffect: %v", name, err)
			}
			wg.Wait()
			return 0, errors.New("failed")
		})
		require.Error(t, err)
		require.Equal(t, tc.want, dispositionOf(t, c, theKey), "%d goroutines, %s", workers, name)
		require.Zero(t, asked, "%s: Classify must not be asked", name)
	}
}

func TestPromise12_DerivedContextsCountForTheirExecution(t *testing.T) {
	for name, derive := range map[string]func(context.Context) context.Context{
		"value": func(ctx context.Context) context.Context { return context.WithValue(ctx, nameKey{}, 1) },
		"timeout": func(ctx context.Context) context.Context {
			d, c := context.WithTimeout(ctx, time.Hour)
			_ = c
			return d
		}, //nolint:govet
		"own end": func(ctx context.Context) context.Context { d, c := context.WithCancel(ctx); c(); return d },
	} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{})
			_, err := c.Do(t.Context(), theKey, func(ctx context.Context) (int, error) {
				if err := idemflight.BeginEffect(derive(ctx)); err != nil {
					t.Errorf("%s: fn runs and its time is not up, so the effect may begin; got %v", name, err)
				}
				return 0, errors.New("failed")
			})
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown,
				"%s: BeginEffect with a context derived from fn's must count", name)
			_, err = c.Do(t.Context(), "other", func(ctx context.Context) (int, error) {
				_ = idemflight.BeginEffect(ctx)
				idemflight.NoEffect(derive(ctx))
				return 0, io.EOF
			})
			require.NotErrorIs(t, err, idemflight.ErrOutcomeUnknown,
				"%s: NoEffect with a context derived from fn's must count", name)
		})
	}
}

func TestPromise12_OfNestedExecutionsTheInnermostCounts(t *testing.T) {
	for _, same := range []bool{true, false} {
		for name, c := range map[string]struct {
			inner        func(innerCtx, outerCtx context.Context)
			after        func(innerCtx, outerCtx context.Context)
			innerD       idemflight.Disposition
			outerD       idemflight.Disposition
			classifyAsks int // for inner and outer together
		}{
			"inner begins":             {inner: func(i, _ context.Context) { _ = idemflight.BeginEffect(i) }, innerD: idemflight.Hold, outerD: idemflight.Retain, classifyAsks: 1},
			"inner has none":           {inner: func(i, _ context.Context) { idemflight.NoEffect(i) }, innerD: idemflight.Release, outerD: idemflight.Retain, classifyAsks: 1},
			"outer's context in inner": {inner: func(_, o context.Context) { _ = idemflight.BeginEffect(o) }, innerD: idemflight.Retain, outerD: idemflight.Hold, classifyAsks: 1},
			"inner takes nothing back from outer": {
				inner:  func(i, o context.Context) { _ = idemflight.BeginEffect(o); idemflight.NoEffect(i) },
				innerD: idemflight.Release, outerD: idemflight.Hold,
			},
			"inner's context afterwards": {
				inner: func(context.Context, context.Context) {},
				after: func(i, o context.Context) {
					if idemflight.BeginEffect(i) == nil {
						panic("BeginEffect with the context of an inner execution that is over must refuse")
					}
					idemflight.NoEffect(i)
				},
				innerD: idemflight.Retain, outerD: idemflight.Retain, classifyAsks: 2,
			},
		} {
			what := fmt.Sprintf("%s, one cache %v", name, same)
			asked := 0
			opts := options{Classify: func(error) idemflight.Disposition { asked++; return idemflight.Retain }}
			outer := idemflight.MustNew(opts)
			inner := outer
			if !same {
				inner = idemflight.MustNew(opts)
			}
			_, err := outer.Do(context.Background(), "outer", func(outerCtx context.Context) (int, error) {
				var innerCtx context.Context
				_, _ = inner.Do(context.WithValue(outerCtx, nameKey{}, 1), "inner", func(ctx context.Context) (int, error) {
					innerCtx = ctx
					c.inner(ctx, outerCtx)
					return 0, errors.New("inner failed")
				})
				if c.after != nil {
					c.after(innerCtx, outerCtx)
				}
				return 0, errors.New("outer failed")
			})
			require.Error(t, err)
			require.Equal(t, c.innerD, dispositionOf(t, inner, "inner"), "%s: the inner key", what)
			require.Equal(t, c.outerD, dispositionOf(t, outer, "outer"), "%s: the outer key", what)
			require.Equal(t, c.classifyAsks, asked, "%s: calls of Classify", what)
		}
	}
}

// In Reconcile, which is an execution too and the innermost one, neither counts: not for what the
// key becomes, not for the fn that follows, and not for an execution around it.
func TestPromise12_InReconcileBeginEffectReturnsNilAndNeitherCounts(t *testing.T) {
	for _, effect := range effects {
		synctest.Test(t, func(t *testing.T) {
			asked := 0
			answer := errors.New("still unknown")
			c := idemflight.MustNew(options{
				Classify: func(error) idemflight.Disposition { asked++; return idemflight.Release },
				Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
					if err := idemflight.BeginEffect(ctx); err != nil {
						t.Errorf("BeginEffect in Reconcile must return nil, got %v", err)
					}
					idemflight.NoEffect(ctx)
					effect.say(ctx)
					return 0, answer
				},
			})
			_, err := c.Do(t.Context(), theKey, returns(0, idemflight.Unknown(errors.New("lost"))))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)

			_, err = c.Do(t.Context(), theKey, neverRuns(t))
			require.ErrorIs(t, err, answer, "%s in Reconcile", effect.name)
			require.Equal(t, idemflight.Hold, dispositionOf(t, c, theKey),
				"%s in Reconcile must not count: an unmarked error holds again", effect.name)
			require.Zero(t, asked, "Classify is not for Reconcile")

			// Around it an execution that began nothing itself.
			time.Sleep(reconcilePause)
			_, err = c.Do(t.Context(), "outer", func(ctx context.Context) (int, error) {
				_, err := c.Do(ctx, theKey, neverRuns(t))
				return 0, err
			})
			require.ErrorIs(t, err, answer)
			require.Equal(t, 1, asked, "%s in Reconcile must not count for the execution around it, whose Classify is asked", effect.name)

			time.Sleep(reconcilePause)
			answer = idemflight.Retryable(errors.New("it did not take place"))
			_, err = c.Do(t.Context(), theKey, returns(0, io.EOF))
			require.ErrorIs(t, err, io.EOF)
			require.Equal(t, 2, asked, "%s in Reconcile must not count for the fn that follows, whose Classify is asked", effect.name)
			require.Equal(t, idemflight.Release, dispositionOf(t, c, theKey),
				"Classify released it")
		})
	}
}

// It means nothing there, so it is not refused there either: not even when the time is up.
func TestPromise12_InReconcileBeginEffectReturnsNilWhenItsTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{
			ExecTimeout: time.Minute,
			Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
				time.Sleep(time.Hour)
				if err := idemflight.BeginEffect(ctx); err != nil {
					t.Errorf("BeginEffect in Reconcile must return nil, got %v", err)
				}
				return 9, nil
			},
		})
		_, err := c.Do(t.Context(), theKey, returns(0, idemflight.Unknown(errors.New("lost"))))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		v, err := c.Do(t.Context(), theKey, neverRuns(t))
		require.NoError(t, err)
		require.Equal(t, 9, v, "what Reconcile found, late or not")
	})
}

// On an EffectsAnnounced cache, an fn that succeeds and has announced nothing forgot to. An event
// says so, before a crash shows it; the outcome is retained as usual.
func TestPromise12_AnEffectThatNobodyAnnouncedIsTold(t *testing.T) {
	for name, run := range map[string]struct {
		fn     intFn
		silent bool // the cache is not EffectsAnnounced
		told   bool
	}{
		"nothing":     {fn: returns(1, nil), told: true},
		"BeginEffect": {fn: func(ctx context.Context) (int, error) { return 1, idemflight.BeginEffect(ctx) }},
		"NoEffect":    {fn: func(ctx context.Context) (int, error) { idemflight.NoEffect(ctx); return 1, nil }},
		"both": {fn: func(ctx context.Context) (int, error) {
			_ = idemflight.BeginEffect(ctx)
			idemflight.NoEffect(ctx)
			return 1, nil
		}},
		"BeginEffect, with a context of no execution": {fn: func(context.Context) (int, error) {
			_ = idemflight.BeginEffect(bg)
			return 1, nil
		}, told: true},
		"nothing, no success":      {fn: returns(1, idemflight.Final(errBoom))},
		"nothing, exited":          {fn: goexits},
		"nothing, with no promise": {fn: returns(1, nil), silent: true},
	} {
		t.Run(name, func(t *testing.T) {
			eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				log := &eventLog[string]{}
				c := idemflight.MustNew(options{EffectsAnnounced: !run.silent, Observer: log.observe})
				start(c, context.WithValue(ctx, nameKey{}, "leader's"), theKey, run.fn, opts...)
				synctest.Wait()
				told := log.seen(idemflight.EventUnannounced)
				if !run.told {
					require.Empty(t, told, "nothing is wrong")
					require.Zero(t, c.Stats().Unannounced)
					return
				}
				require.Len(t, told, 1, "it is told once")
				require.Equal(t, idemflight.Event[string]{Kind: idemflight.EventUnannounced, Key: theKey}, told[0].Event)
				require.Equal(t, "leader's", told[0].ctx.Value(nameKey{}), "in fn's context")
				require.ErrorIs(t, idemflight.BeginEffect(told[0].ctx), context.Canceled, "in fn's context, which has ended")
				require.EqualValues(t, 1, c.Stats().Unannounced)
				require.Equal(t, 1, replays(t, c, theKey), "it is retained as ever")
				require.EqualValues(t, 1, c.Stats().Unannounced, "a replay is no execution")
			})
		})
	}
}

// What Reconcile finds needs no announcement.
func TestPromise12_ReconcileAnnouncesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(options{EffectsAnnounced: true, Reconcile: answers(1, nil), Observer: log.observe})
		hold(t, c, theKey)
		_, err := c.Do(bg, theKey, neverRuns(t))
		require.NoError(t, err)
		synctest.Wait()
		require.Empty(t, log.seen(idemflight.EventUnannounced))
		require.Zero(t, c.Stats().Unannounced)
	})
}
