package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// userContext is a context of the user's own, which the context package knows nothing about.
type userContext struct {
	context.Context // Background: values and deadline
	done            chan struct{}
}

func (c *userContext) Done() <-chan struct{} { return c.done }

func (c *userContext) Err() error {
	select {
	case <-c.done:
		return errHungUp
	default:
		return nil
	}
}

func newUserContext() (context.Context, context.CancelFunc) {
	c := &userContext{Context: context.Background(), done: make(chan struct{})}
	return c, sync.OnceFunc(func() { close(c.done) })
}

var errHungUp = errors.New("the client hung up")

// endings are contexts that end two seconds from now.
var endings = map[string]struct {
	begin func(t *testing.T) context.Context
	cause error
}{
	"cancelled": {func(*testing.T) context.Context {
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(2*time.Second, cancel)
		return ctx
	}, context.Canceled},
	"cancelled with a cause": {func(*testing.T) context.Context {
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(2*time.Second, func() { cancel(errEnough) })
		return ctx
	}, errEnough},
	"parent cancelled with a cause": {func(t *testing.T) context.Context {
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(2*time.Second, func() { cancel(errEnough) })
		ctx, child := context.WithTimeout(context.WithValue(ctx, nameKey{}, 1), time.Hour)
		t.Cleanup(child)
		return ctx
	}, errEnough},
	"deadline": {func(t *testing.T) context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		t.Cleanup(cancel)
		return ctx
	}, context.DeadlineExceeded},
	"deadline with a cause": {func(t *testing.T) context.Context {
		ctx, cancel := context.WithTimeoutCause(context.Background(), 2*time.Second, errEnough)
		t.Cleanup(cancel)
		return ctx
	}, errEnough},
	"a context type of the user's": {func(*testing.T) context.Context {
		ctx, end := newUserContext()
		time.AfterFunc(2*time.Second, end)
		return ctx
	}, errHungUp},
}

// Promise 7: Every caller returns as soon as its own context ends, with ErrCallerLeft, and nobody
// else is affected. Only a leader that runs fn on its own goroutine stays until fn returns.
func TestPromise07_CallersLeaveOnTheirOwnContext(t *testing.T) {
	for name, ending := range endings {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{})
				work := newWork(t)
				leaderCtx := ending.begin(t)
				leader := start(c, leaderCtx, theKey, work.returns(1, nil))
				synctest.Wait()
				time.Sleep(time.Second)
				joinedCtx := ending.begin(t)
				joined := []*pending[int]{
					start(c, joinedCtx, theKey, neverRuns(t)),
					start(c, joinedCtx, theKey, neverRuns(t), idemflight.WithMaxWait(time.Hour)),
					// Inline is about leading: a caller that joins with it leaves like any other.
					start(c, joinedCtx, theKey, neverRuns(t), idemflight.Inline()),
				}
				time.Sleep(2*time.Second - 1)
				leader.left(t, leaderCtx, ending.cause)
				require.Equal(t, 2*time.Second, leader.took(),
					"the leader leaves when its context ends")
				for _, call := range joined {
					require.False(t, call.returned(),
						"a joined caller whose context lives stays, also when the leader has left")
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				for _, call := range joined {
					call.left(t, joinedCtx, ending.cause)
					require.Equal(t, 2*time.Second, call.took(),
						"a joined caller leaves when its context ends")
				}
				require.Zero(t, c.Stats().Waiters, "nobody waits any more")
				require.EqualValues(t, 4, c.Stats().CallerLeft, "Stats.CallerLeft")

				retry := start(c, t.Context(), theKey, neverRuns(t))
				synctest.Wait()
				work.open()
				synctest.Wait()
				retry.got(t, idemflight.Joined, 1)
				retry = start(c, t.Context(), theKey, neverRuns(t))
				synctest.Wait()
				retry.got(t, idemflight.Replayed, 1)
			})
		})
	}
}

func TestPromise07_OthersAreNotAffected(t *testing.T) {
	// Of a leader and four joined callers each subset leaves, in order; the others get the outcome.
	for leaving := range 1 << 5 {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{})
			work := newWork(t)
			var calls [5]*pending[int]
			var ctxs [5]context.Context
			var cancels [5]context.CancelCauseFunc
			for i := range calls {
				ctxs[i], cancels[i] = context.WithCancelCause(t.Context())
				calls[i] = start(c, ctxs[i], theKey, work.returns(i, nil))
				synctest.Wait() // the first one leads
			}
			stay := 5
			for i := range calls {
				if leaving&(1<<i) != 0 {
					stay--
					cancels[i](errEnough)
					synctest.Wait()
					calls[i].left(t, ctxs[i], errEnough)
				}
			}
			e, ok := lookup(c, theKey)
			require.True(t, ok, "the key stays in flight when some of %05b leave", leaving)
			require.Equal(t, idemflight.InFlight, e.State)
			late := start(c, t.Context(), theKey, work.returns(7, nil))
			synctest.Wait()
			require.EqualValues(t, 1, work.runs.Load(),
				"a caller after some of %05b have left joins", leaving)
			work.open()
			synctest.Wait()
			for i := range calls {
				if leaving&(1<<i) == 0 {
					source := idemflight.Joined
					if i == 0 {
						source = idemflight.Executed
					}
					calls[i].got(t, source, 0)
				}
			}
			late.got(t, idemflight.Joined, 0)
			for _, cancel := range cancels {
				cancel(nil)
			}
		})
	}
}

func TestPromise07_NoGoroutinePerCaller(t *testing.T) {
	const many = 100
	for name, newContext := range map[string]func() (context.Context, context.CancelFunc){
		"cancel": func() (context.Context, context.CancelFunc) { return context.WithCancel(context.Background()) },
		"deadline": func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), time.Hour)
		},
		"a context type of the user's": newUserContext,
	} {
		for _, opts := range [][]idemflight.CallOption{nil, {idemflight.WithMaxWait(time.Minute)}} {
			t.Run(fmt.Sprintf("%s, %d options", name, len(opts)), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := idemflight.MustNew(options{})
					own := goroutines(t)
					work := newWork(t)
					ctx, leave := newContext()
					leader := start(c, ctx, theKey, work.returns(1, nil))
					synctest.Wait()
					require.LessOrEqual(t, goroutines(t), own+2,
						"goroutines with a flight: the caller's and at most one more")
					flying := goroutines(t)

					var joined []*pending[int]
					var cancels []context.CancelFunc
					for range many {
						ctx, cancel := newContext()
						cancels = append(cancels, cancel)
						joined = append(joined, start(c, ctx, theKey, neverRuns(t), opts...))
					}
					synctest.Wait()
					require.Equal(t, many, c.Stats().Waiters, "Stats.Waiters")
					require.Equal(t, flying+many, goroutines(t),
						"goroutines with %d joined callers: their own", many)

					for _, cancel := range cancels[:many/2] {
						cancel()
					}
					synctest.Wait()
					require.Equal(t, flying+many/2, goroutines(t),
						"goroutines after %d have left", many/2)
					leave()
					synctest.Wait()
					require.True(t, leader.returned())
					require.Equal(t, flying-1+many/2, goroutines(t),
						"goroutines after the leader has left, too")
					for _, cancel := range cancels {
						cancel()
					}
					synctest.Wait()
					require.Equal(t, own+1, goroutines(t),
						"goroutines after all have left: that of fn")
					work.open()
					synctest.Wait()
					require.Equal(t, own, goroutines(t), "goroutines after the flight")
					for _, call := range joined {
						require.ErrorIs(t, call.err, idemflight.ErrCallerLeft)
					}
				})
			})
		}
	}
}

func TestPromise07_WhoCannotLeaveRunsFnOnItsOwnGoroutine(t *testing.T) {
	cancellable, cancel := context.WithCancel(context.Background())
	defer cancel()
	user, end := newUserContext()
	defer end()
	for name, call := range map[string]struct {
		ctx  context.Context
		opts []idemflight.CallOption
	}{
		"background":                         {ctx: context.Background()},
		"value":                              {ctx: context.WithValue(context.Background(), nameKey{}, 1)},
		"without cancel":                     {ctx: context.WithoutCancel(cancellable)},
		"user's type, cannot end":            {ctx: struct{ context.Context }{context.Background()}},
		"inline background":                  {context.Background(), []idemflight.CallOption{idemflight.Inline()}},
		"inline":                             {cancellable, []idemflight.CallOption{idemflight.Inline()}},
		"inline, other options beside":       {cancellable, []idemflight.CallOption{idemflight.WithTTL(time.Hour), idemflight.Inline(), idemflight.WithMaxWait(1)}},
		"inline, a context type of the user": {user, []idemflight.CallOption{idemflight.Inline()}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{})
				before, me := goroutines(t), goroutineID()
				v, err := c.Do(call.ctx, theKey, func(context.Context) (int, error) {
					require.Equal(t, me, goroutineID(), "fn runs on the goroutine of the call")
					time.Sleep(time.Second)
					require.Equal(t, before, goroutines(t), "there is no other goroutine")
					return 1, nil
				}, call.opts...)
				require.NoError(t, err)
				require.Equal(t, 1, v)
			})
		})
	}
}

func TestPromise07_AnInlineLeaderStays(t *testing.T) {
	for name, ending := range endings {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{})
				ctx := ending.begin(t)
				work := newWork(t)
				leader := start(c, ctx, theKey, work.returns(1, nil), idemflight.Inline())
				time.Sleep(time.Hour)
				require.Error(t, ctx.Err(), "the leader's context has ended")
				require.False(t, leader.returned(), "with Inline the call stays until fn returns")
				work.open()
				synctest.Wait()
				leader.got(t, idemflight.Executed, 1)
			})
		})
	}
}

func TestPromise07_WhoAskedReconcileLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := newWork(t)
		c := idemflight.MustNew(options{Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
			return work.returns(1, nil)(ctx)
		}})
		_, err := c.Do(t.Context(), theKey, returns(0, idemflight.Unknown(errBoom)))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		ctx, cancel := context.WithCancelCause(context.Background())
		leader := start(c, ctx, theKey, neverRuns(t))
		synctest.Wait()
		joined := start(c, ctx, theKey, neverRuns(t))
		stays := start(c, t.Context(), theKey, neverRuns(t))
		synctest.Wait()
		cancel(errEnough)
		synctest.Wait()
		leader.left(t, ctx, errEnough)
		joined.left(t, ctx, errEnough)
		work.open()
		synctest.Wait()
		stays.got(t, idemflight.Joined, 1)
	})
}

// A caller that waits and leaves gets ErrCallerLeft, whichever way it called.
func TestPromise07_WhoJoinedAndLeavesIsToldInEveryForm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		slow := returnsAfter(time.Minute, 1, nil)
		wrapped := idemflight.Wrap(c, func(key string) (string, idemflight.Fingerprint, error) { return key, idemflight.Fingerprint{}, nil },
			func(ctx context.Context, _ string) (int, error) { return slow(ctx) })
		go func() { _, _ = c.Do(context.Background(), "k", slow) }()
		for name, call := range map[string]func(context.Context) (int, error){
			"Do":   func(ctx context.Context) (int, error) { return c.Do(ctx, "k", slow) },
			"Wrap": func(ctx context.Context) (int, error) { return wrapped(ctx, "k") },
			"DoResult": func(ctx context.Context) (int, error) {
				res, err := c.DoResult(ctx, "k", slow)
				return res.Value, err
			},
		} {
			synctest.Wait()
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			v, err := call(ctx)
			cancel()
			require.Zero(t, v, name)
			require.ErrorIs(t, err, idemflight.ErrCallerLeft, name)
			require.ErrorIs(t, err, context.DeadlineExceeded, name)
		}
		time.Sleep(time.Minute) // until the flight has ended
	})
}

// Once: no test noticed the planted fault that a joined caller which waited no longer, or left,
// ended the context of an fn that heeds it.
func TestJoinedCaller_ThatGivesUpDoesNotEndTheFlight(t *testing.T) {
	for name, join := range map[string]struct {
		timeout time.Duration
		opts    []idemflight.CallOption
		err     error
	}{
		"MaxWait":             {time.Hour, []idemflight.CallOption{idemflight.WithMaxWait(time.Second)}, idemflight.ErrInFlight},
		"its context's end":   {time.Second, nil, idemflight.ErrCallerLeft},
		"not waiting at all":  {time.Hour, []idemflight.CallOption{idemflight.WithMaxWait(idemflight.NoWait)}, idemflight.ErrInFlight},
		"another fingerprint": {time.Hour, []idemflight.CallOption{idemflight.WithFingerprint(idemflight.FingerprintOf(nil))}, idemflight.ErrKeyReused},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{})
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
				_, err := c.Do(ctx, "k", returns(2, nil), join.opts...)
				require.ErrorIs(t, err, join.err)
				require.NoError(t, <-led, "fn's context has not ended")
			})
		})
	}
}

// panickingContext panics when it is asked.
type panickingContext struct {
	context.Context
	ask string
}

func (c panickingContext) Err() error {
	if c.ask == "Err" {
		panic("bad context")
	}
	return c.Context.Err()
}

func (c panickingContext) Value(key any) any {
	if c.ask == "Value" {
		panic("bad context")
	}
	return c.Context.Value(key)
}

// A context that panics takes its caller with it, and no other: no caller is counted as waiting
// forever.
func TestPanickingContext_LeavesTheFlight(t *testing.T) {
	for _, ask := range []string{"Err", "Value"} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{})
			end := fly(t, c, "k")
			require.Equal(t, "bad context", panicOf(func() { _, _ = c.Do(panickingContext{bg, ask}, "k", neverRuns(t)) }))
			require.Zero(t, c.Stats().Waiters, ask)
			_, err := end(1, nil)
			require.NoError(t, err)
			require.Equal(t, 1, replays(t, c, "k"))
			require.NoError(t, c.CheckInvariants())
		})
	}
}

// Promise 8: If the outcome and the end of the caller's context are both there, the outcome wins. A
// context that is dead on arrival still gets a replay, and never starts fn.
func TestPromise08_WithADeadContextARetainedOutcomeIsStillReplayed(t *testing.T) {
	expired, cancel := context.WithDeadline(context.Background(), time.Unix(1, 0))
	defer cancel()
	user, end := newUserContext()
	end()
	for name, ctx := range map[string]context.Context{"cancelled": dead(errEnough), "expired": expired, "a context type of the user's": user} {
		for _, opts := range [][]idemflight.CallOption{nil, {idemflight.Inline()}, {idemflight.WithMaxWait(idemflight.NoWait)}} {
			t.Run(fmt.Sprintf("%s, %v", name, opts), func(t *testing.T) {
				c := idemflight.MustNew(options{MaxWeight: 10, Weigh: func(_ string, v int) int64 { return int64(v) }})
				for key, kept := range map[string]struct {
					value int
					err   error
					want  error
				}{
					"success": {1, nil, nil},
					"final":   {2, idemflight.Final(errBoom), errBoom},
					"held":    {0, idemflight.Unknown(errBoom), idemflight.ErrOutcomeUnknown},
					"shed":    {0, nil, idemflight.ErrValueShed},
				} {
					weight := kept.value
					if key == "shed" {
						weight = 1000
					}
					_, _ = c.Do(context.Background(), key, returns(weight, kept.err))
					for range 20 { // a select would take either
						r, err := c.DoResult(ctx, key, neverRuns(t), opts...)
						require.NotErrorIs(t, err, idemflight.ErrCallerLeft,
							"%s: what is kept is answered, the context does not matter", key)
						if kept.want == nil {
							require.NoError(t, err, key)
						} else {
							require.ErrorIs(t, err, kept.want, key)
						}
						require.Equal(t, kept.value, r.Value, key)
					}
				}
			})
		}
	}
}

func TestPromise08_WithADeadContextFnIsNeverStarted(t *testing.T) {
	for name, ending := range endings {
		for _, opts := range [][]idemflight.CallOption{nil, {idemflight.Inline()}, {idemflight.WithMaxWait(idemflight.NoWait)}} {
			t.Run(fmt.Sprintf("%s, %v", name, opts), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := idemflight.MustNew(options{MaxEntries: 1})
					ctx := ending.begin(t)
					time.Sleep(2 * time.Second)
					synctest.Wait()
					for i := range 20 {
						call := start(c, ctx, strconv.Itoa(i), neverRuns(t), opts...)
						synctest.Wait()
						call.left(t, ctx, ending.cause)
						_, ok := lookup(c, strconv.Itoa(i))
						require.False(t, ok, "the key stays absent")
					}
					s := c.Stats()
					require.Zero(t, s.InFlight+s.Entries, "nothing is in flight or kept")
					require.EqualValues(t, 20, s.CallerLeft, "Stats.CallerLeft")

					// The one place is free, and the key is as good as new.
					call := start(c, t.Context(), "0", returns(1, nil))
					synctest.Wait()
					call.got(t, idemflight.Executed, 1)
				})
			})
		}
	}
}

func TestPromise08_WithADeadContextNobodyWaitsForAFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		work := newWork(t)
		leader := start(c, t.Context(), theKey, work.returns(1, nil))
		synctest.Wait()
		ctx := dead(errEnough)
		for range 20 {
			for _, opts := range [][]idemflight.CallOption{nil, {idemflight.Inline()}, {idemflight.WithMaxWait(time.Hour)}, {idemflight.WithMaxWait(idemflight.NoWait)}} {
				call := start(c, ctx, theKey, neverRuns(t), opts...)
				synctest.Wait()
				call.left(t, ctx, errEnough)
			}
		}
		require.Zero(t, c.Stats().Waiters, "Stats.Waiters")
		work.open()
		synctest.Wait()
		leader.got(t, idemflight.Executed, 1)
	})
}

// lateContext makes a caller look up late: from its later looks at Done on, the first skip of
// them apart, it waits at the gate. So a test can have both the outcome and the end of the context
// there when the caller is about to wait for either, whichever is scheduled first.
type lateContext struct {
	context.Context
	skip int
	gate *gate
}

func (c *lateContext) Done() <-chan struct{} {
	if c.skip--; c.skip < 0 {
		c.gate.wait()
	}
	return c.Context.Done()
}

func TestPromise08_IfBothAreThereTheOutcomeWins(t *testing.T) {
	for _, skip := range []int{0, 1, 2, 3} {
		for range 50 { // a select takes either
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{})
				work := newWork(t)
				gate := newGate(t)
				ctx, cancel := context.WithCancelCause(context.Background())
				defer cancel(nil)
				leads := t.Context()
				if skip > 0 { // the first look is whether it can end at all
					leads = &lateContext{ctx, skip, gate}
				}
				leader := start(c, leads, theKey, work.returns(1, nil))
				synctest.Wait()
				joined := start(c, &lateContext{ctx, skip, gate}, theKey, neverRuns(t))
				patient := start(c, &lateContext{ctx, skip, gate}, theKey, neverRuns(t), idemflight.WithMaxWait(time.Hour))
				synctest.Wait()
				work.open()
				synctest.Wait()
				cancel(errEnough)
				gate.open()
				synctest.Wait()
				leader.got(t, idemflight.Executed, 1)
				for _, call := range []*pending[int]{joined, patient} {
					require.True(t, call.returned(), "the call must have returned")
					require.NoError(t, call.err, "the outcome was there before the context ended")
					require.Equal(t, 1, call.res.Value)
				}
			})
		}
	}
}

// Once: no test noticed the planted fault that Do, unlike DoResult, did not replay for a caller
// whose context had ended.
func TestDo_ReplaysThoughTheContextHasEnded(t *testing.T) {
	c := idemflight.MustNew(options{})
	fn := returns(7, nil)
	_, err := c.Do(t.Context(), "k", fn)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	v, err := c.Do(ctx, "k", fn)
	require.NoError(t, err, "a retained outcome is replayed all the same")
	require.Equal(t, 7, v)
	_, err = c.Do(ctx, "other", fn)
	require.ErrorIs(t, err, idemflight.ErrCallerLeft, "where nothing is kept, fn is not started")
}

// nilCause is an error whose methods do not bear a nil pointer.
type nilCause struct{ inner error }

func (e *nilCause) Error() string { return e.inner.Error() }
func (e *nilCause) Unwrap() error { return e.inner }

// standing is where a caller stands whose context is odd.
type standing struct {
	held, flying bool // what it meets
	opts         []idemflight.CallOption
	operator     bool // it calls Cache.Reconcile
}

var standings = map[string]standing{
	"leads":                               {},
	"leads inline":                        {opts: []idemflight.CallOption{idemflight.Inline()}},
	"joins":                               {flying: true},
	"joins inline":                        {flying: true, opts: []idemflight.CallOption{idemflight.Inline()}},
	"joins for a while":                   {flying: true, opts: []idemflight.CallOption{idemflight.WithMaxWait(time.Hour)}},
	"asks Reconcile":                      {held: true},
	"asks Reconcile inline":               {held: true, opts: []idemflight.CallOption{idemflight.Inline()}},
	"joins Reconcile":                     {held: true, flying: true},
	"joins Reconcile inline":              {held: true, flying: true, opts: []idemflight.CallOption{idemflight.Inline()}},
	"asks Reconcile, an operator":         {held: true, operator: true},
	"joins Reconcile, as an operator":     {held: true, flying: true, operator: true},
	"joins Reconcile, may hardly wait":    {held: true, flying: true, opts: []idemflight.CallOption{idemflight.WithMaxWait(time.Nanosecond)}},
	"asks Reconcile, and may hardly wait": {held: true, opts: []idemflight.CallOption{idemflight.WithMaxWait(time.Nanosecond)}},
}

// call makes the call with ctx, to a key whose flight takes a minute, and requires that it leaves nobody
// behind: the flight lands, bystanders get its outcome, and no count stays. Reconcile ends with answer.
func (s standing) call(t *testing.T, what string, ctx context.Context, answer error) (call *pending[int]) {
	t.Helper()
	c := idemflight.MustNew(options{MaxEntries: 1, Reconcile: answers(1, answer)})
	slow := returnsAfter(time.Minute, 1, nil)
	if s.held {
		hold(t, c, theKey)
	}
	if s.flying {
		start(c, bg, theKey, slow)
		synctest.Wait()
	}
	call = startCall(func() (idemflight.Result[int], error) {
		if s.operator {
			_, err := c.Reconcile(ctx, theKey)
			return idemflight.Result[int]{}, err
		}
		return c.DoResult(ctx, theKey, slow, s.opts...)
	})
	for range 2 {
		synctest.Wait()
		if call.returned() {
			e, _ := lookup(c, theKey)
			require.Zero(t, e.Waiters, "%s: nobody waits any more", what)
			require.Zero(t, c.Stats().Waiters, "%s: nobody waits any more", what)
		}
		time.Sleep(2 * time.Second)
	}
	bystander := start(c, t.Context(), theKey, slow) // who runs fn if there is no flight
	time.Sleep(time.Hour)
	synctest.Wait()
	require.True(t, call.returned(), "%s: the call returns", what)
	require.True(t, bystander.returned(), "%s: nobody else hangs", what)
	require.NoError(t, bystander.err, "%s: others get the outcome", what)
	require.Equal(t, 1, bystander.res.Value, "%s: others get the outcome", what)
	now := c.Stats()
	require.Zero(t, now.InFlight+now.Waiters+now.Held, "%s: no count is left behind: %+v", what, now)
	require.Equal(t, 1, replays(t, c, theKey), "%s: the flight has landed", what)
	require.NoError(t, c.CheckInvariants(), what)
	require.NoError(t, c.Close(bg), "%s: Close has nobody to wait for", what)
	return call
}

// answersToAll are answers of Reconcile after which others get an outcome.
var answersToAll = map[string]error{"found": nil, "no effect": idemflight.Retryable(errNoPayment)}

// The context ends with a cause that is a typed nil: the caller is answered as with any other cause, and
// the library does not panic.
func TestPromise07_ACauseThatIsATypedNil(t *testing.T) {
	for name, s := range standings {
		for _, after := range []time.Duration{0, time.Second} {
			for answer, err := range answersToAll {
				what := fmt.Sprintf("%s, %s, ended after %v", name, answer, after)
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithCancelCause(bg)
					end := func() { cancel((*nilCause)(nil)) }
					if after == 0 {
						end()
					} else {
						time.AfterFunc(after, end)
					}
					call := s.call(t, what, ctx, err)
					require.Nil(t, call.panicked, "%s: the library must not panic", what)
					switch {
					case name == "leads inline" && after > 0: // it stays for fn
						require.NoError(t, call.err, what)
						return
					case errors.Is(call.err, idemflight.ErrInFlight) && len(s.opts) > 0:
						return // so did its time
					case s.held && !s.flying && !s.operator && after == 0: // it answers as without Reconcile
						require.ErrorIs(t, call.err, idemflight.ErrOutcomeUnknown, what)
						return
					}
					require.ErrorIs(t, call.err, idemflight.ErrCallerLeft, "%s: its own context ended", what)
					require.ErrorIs(t, call.err, context.Canceled, "%s: it wraps the context's own error", what)
					require.Contains(t, call.err.Error(), "*idemflight_test.nilCause", "%s: and says what its cause was", what)
				})
			}
		}
	}
}

// oddContext is a context that panics at one of its methods, from some call of that on.
type oddContext struct {
	context.Context
	method string
	bears  *atomic.Int64 // so many calls
}

func (c oddContext) at(method string) {
	if method == c.method && c.bears.Add(-1) < 0 {
		panic("odd context")
	}
}

func (c oddContext) Done() <-chan struct{} { c.at("Done"); return c.Context.Done() }
func (c oddContext) Err() error            { c.at("Err"); return c.Context.Err() }
func (c oddContext) Value(key any) any     { c.at("Value"); return c.Context.Value(key) }

// A context panics when it is asked, at once or later. Its caller gets its own panic, if anything, and
// everybody else gets the outcome.
func TestPromise07_AContextThatPanicsTakesItsCallerAndNoOther(t *testing.T) {
	for name, s := range standings {
		for _, method := range []string{"Done", "Err", "Value"} {
			t.Run(name+", "+method, func(t *testing.T) {
				panicked := false
				for i := range 2 * 4 {
					bears, answer := int64(i/2), map[bool]error{true: nil, false: idemflight.Retryable(errNoPayment)}[i%2 == 0]
					synctest.Test(t, func(t *testing.T) {
						ctx, cancel := context.WithCancelCause(bg)
						time.AfterFunc(time.Second, func() { cancel(errEnough) })
						odd := oddContext{ctx, method, new(atomic.Int64)}
						odd.bears.Store(bears)
						call := s.call(t, fmt.Sprintf("%s panics after %d calls", method, bears), odd, answer)
						if call.panicked != nil {
							panicked = true
							require.Equal(t, "odd context", call.panicked, "no other panic than the caller's own")
							return
						}
						if call.err != nil && !errors.Is(call.err, idemflight.ErrInFlight) && !errors.Is(call.err, idemflight.ErrOutcomeUnknown) {
							require.ErrorIs(t, call.err, idemflight.ErrCallerLeft)
						}
					})
				}
				require.True(t, panicked || method == "Done" && name == "leads inline",
					"a method that is asked must have panicked, or this test tests nothing")
			})
		}
	}
}

// pooledContext is a context that its framework gives to the next request once this one is over.
type pooledContext struct {
	context.Context
	user *atomic.Value
}

func (c pooledContext) Value(key any) any {
	if key == (nameKey{}) {
		return c.user.Load()
	}
	return c.Context.Value(key)
}

// With Inline, fn ends before its caller returns, so it may use what the caller then gives back to
// a pool.
func TestPromise07_APooledContextWithInline(t *testing.T) {
	for _, held := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{Reconcile: answers(0, idemflight.Retryable(errNoPayment))})
			if held {
				hold(t, c, theKey)
			}
			request, hangUp := context.WithCancel(bg)
			user := new(atomic.Value)
			user.Store("alice")
			call := startCall(func() (idemflight.Result[int], error) {
				defer user.Store("bob") // the framework has given the context to the next request
				return c.DoResult(pooledContext{request, user}, theKey, func(ctx context.Context) (int, error) {
					hangUp()
					time.Sleep(time.Second)
					if u := ctx.Value(nameKey{}); u != "alice" {
						t.Errorf("alice's operation runs as %v", u)
					}
					return 1, nil
				}, idemflight.Inline())
			})
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			call.got(t, idemflight.Executed, 1)
		})
	}
}
