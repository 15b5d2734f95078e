package idemflight_test

import (
	"bytes"
	"cmp"
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// traceKey is of a value that Trace adds.
type traceKey struct{}

// traceNow is how Trace derives contexts in the caches that newTraced makes; nil: they have no Trace.
var traceNow func(context.Context) context.Context

// underTrace runs a test without Trace, and with some that do what they may, or must not.
func underTrace(t *testing.T, test func(*testing.T)) {
	for name, trace := range map[string]func(context.Context) context.Context{
		"no Trace": nil,
		"a value":  func(ctx context.Context) context.Context { return context.WithValue(ctx, traceKey{}, "traced") },
		"nothing":  func(ctx context.Context) context.Context { return ctx },
		"nil":      func(context.Context) context.Context { return nil },
		"another context": func(context.Context) context.Context {
			return context.WithValue(context.Background(), nameKey{}, "foreign")
		},
		"a panic": func(context.Context) context.Context { panic("no trace today") },
	} {
		t.Run(name, func(t *testing.T) {
			traceNow = trace
			defer func() { traceNow = nil }()
			test(t)
		})
	}
}

func newTraced[K comparable, V any](opts idemflight.Options[K, V]) *idemflight.Cache[K, V] {
	if derive := traceNow; derive != nil {
		opts.Trace = func(ctx context.Context, _ K, _ bool) (context.Context, idemflight.Origin, func(idemflight.Event[K])) {
			return derive(ctx), originNo(1), nil
		}
	}
	return idemflight.MustNew(opts)
}

func originNo(n byte) idemflight.Origin {
	return idemflight.Origin{TraceID: [16]byte{15: n}, SpanID: [8]byte{7: n}, Sampled: n%2 == 1}
}

// tracer is a Trace that numbers executions, from 1, and remembers what it was told.
type tracer struct {
	mu      sync.Mutex // an end may come after the call has returned
	started []bool     // whether it was Reconcile
	ends    []idemflight.Event[string]
	between func() // called before each end is noted
}

func (tr *tracer) trace(ctx context.Context, _ string, reconciles bool) (context.Context, idemflight.Origin, func(idemflight.Event[string])) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.started = append(tr.started, reconciles)
	n := byte(len(tr.started))
	return context.WithValue(ctx, traceKey{}, n), originNo(n), func(e idemflight.Event[string]) {
		if tr.between != nil {
			tr.between()
		}
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.ends = append(tr.ends, e)
	}
}

// count returns how many executions have started.
func (tr *tracer) count() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.started)
}

func requireOrigin(t *testing.T, n byte, o *idemflight.Origin, where string) {
	t.Helper()
	require.NotNil(t, o, "%s has no origin", where)
	require.Equal(t, originNo(n), *o, "the origin of %s", where)
}

func TestTrace_TellsOfEveryExecution(t *testing.T) {
	for how, tt := range map[string]struct {
		fn   func(context.Context) (int, error)
		want idemflight.Disposition
	}{
		"success":   {returns(1, nil), idemflight.Retain},
		"final":     {returns(0, idemflight.Final(errBoom)), idemflight.Retain},
		"retryable": {returns(0, errReleased), idemflight.Release},
		"unknown":   {returns(0, errBoom), idemflight.Hold},
		"panic":     {func(context.Context) (int, error) { panic("boom") }, idemflight.Hold},
		"goexit":    {func(context.Context) (int, error) { runtime.Goexit(); return 0, nil }, idemflight.Hold},
	} {
		t.Run(how, func(t *testing.T) {
			eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				tr, log := &tracer{}, &eventLog[string]{}
				c := idemflight.MustNew(options{Trace: tr.trace, Observer: log.observe})
				tr.between = func() { require.Zero(t, c.Stats().InFlight, "the flight has settled when Trace hears of its end") }
				call := start(c, context.WithValue(ctx, nameKey{}, "leader"), "k", func(ctx context.Context) (int, error) {
					require.Equal(t, byte(1), ctx.Value(traceKey{}), "fn sees what Trace has added")
					require.Equal(t, "leader", ctx.Value(nameKey{}))
					return tt.fn(ctx)
				}, opts...)
				<-call.done
				synctest.Wait()
				require.Equal(t, []bool{false}, tr.started)
				require.Len(t, tr.ends, 1)
				end := tr.ends[0]
				require.Equal(t, idemflight.EventExecuted, end.Kind)
				require.Equal(t, tt.want, end.Disposition)
				require.Equal(t, "k", end.Key)
				require.True(t, end.Led)
				requireOrigin(t, 1, end.Origin, "the event that Trace gets")
				told := log.of(idemflight.EventExecuted)
				require.Len(t, told, 1)
				require.True(t, told[0].Led)
				require.Equal(t, end.Err, told[0].Err)
				requireOrigin(t, 1, told[0].Origin, "EventExecuted")
			})
		})
	}
}

// TestTrace_WhoeverMeetsTheKeyHearsOfTheRun: in flight, kept and held.
func TestTrace_WhoeverMeetsTheKeyHearsOfTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, log := &tracer{}, &eventLog[string]{}
		c := idemflight.MustNew(options{Trace: tr.trace, Observer: log.observe, MaxWaiters: 1, TTL: time.Hour, HoldTTL: time.Hour})
		gate := newGate(t)
		leader := start(c, t.Context(), "k", func(context.Context) (int, error) { gate.wait(); return 1, nil })
		synctest.Wait()
		joined := start(c, t.Context(), "k", neverRuns(t))
		synctest.Wait()
		_, err := c.Do(t.Context(), "k", neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrInFlight)
		_, err = c.Do(t.Context(), "k", neverRuns(t), idemflight.WithFingerprint(fingerprint(1)))
		require.ErrorIs(t, err, idemflight.ErrKeyReused)
		e, _ := lookup(c, "k")
		requireOrigin(t, 1, e.Origin, "the entry in flight")
		gate.open()
		synctest.Wait()
		leader.got(t, idemflight.Executed, 1)
		joined.got(t, idemflight.Joined, 1)
		r, err := c.DoResult(t.Context(), "k", neverRuns(t))
		require.NoError(t, err)
		requireOrigin(t, 1, r.Origin, "a result that is replayed")
		e, _ = lookup(c, "k")
		requireOrigin(t, 1, e.Origin, "the entry that is kept")
		for _, r := range []idemflight.Result[int]{leader.res, joined.res} {
			requireOrigin(t, 1, r.Origin, "the result of a flight")
		}
		for _, e := range log.of() {
			requireOrigin(t, 1, e.Origin, e.Kind.String())
			require.Equal(t, e.Kind == idemflight.EventExecuted, e.Led, "%v: Led", e.Kind)
		}
		require.Len(t, log.of(), 5)

		// A leader and a joined caller that leave.
		ctx, leave := context.WithCancel(t.Context())
		gate = newGate(t)
		start(c, ctx, "left", func(context.Context) (int, error) { gate.wait(); return 1, nil })
		synctest.Wait()
		start(c, ctx, "left", neverRuns(t))
		synctest.Wait()
		leave()
		synctest.Wait()
		gone := log.of(idemflight.EventCallerLeft)
		require.Len(t, gone, 2)
		require.True(t, gone[0].Led != gone[1].Led, "one of them was the leader")
		gate.open()
		synctest.Wait()
		finished := log.of(idemflight.EventFinished)
		require.Len(t, finished, 1)
		require.False(t, finished[0].Led)
		for _, e := range append(gone, finished...) {
			requireOrigin(t, 2, e.Origin, e.Kind.String())
		}
		require.False(t, tr.ends[1].Led, "its leader has left")

		hold(t, c, "held")
		_, err = c.Do(t.Context(), "held", neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		rejected := log.of(idemflight.EventRejected)
		requireOrigin(t, 3, rejected[len(rejected)-1].Origin, "a rejection for what is held")
		require.NoError(t, c.Resolve(t.Context(), "held", 7, nil))
		e, _ = lookup(c, "held")
		requireOrigin(t, 3, e.Origin, "what was resolved")
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		for _, e := range log.of(idemflight.EventExpired) {
			require.NotNil(t, e.Origin, "%q has expired", e.Key)
		}
	})
}

// TestTrace_ReconcileAndFnAreTwoExecutions, and the outcome is that of the last.
func TestTrace_HearsHowLongAnExecutionTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &tracer{}
		c := idemflight.MustNew(options{Trace: tr.trace})
		time.Sleep(time.Minute)
		_, err := c.Do(bg, "k", returnsAfter(time.Second, 1, nil))
		require.NoError(t, err)
		require.Len(t, tr.ends, 1)
		require.Equal(t, time.Second, tr.ends[0].Took)
	})
}

func TestTrace_FlightsHaveEachItsOwnOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &tracer{}
		c := idemflight.MustNew(options{Trace: tr.trace})
		a, b := fly(t, c, "a"), fly(t, c, "b")
		for n, key := range []string{"a", "b"} {
			e, ok := lookup(c, key)
			require.True(t, ok)
			requireOrigin(t, byte(1+n), e.Origin, key)
		}
		for n, end := range []func(int, error) (idemflight.Result[int], error){a, b} {
			r, err := end(1, nil)
			require.NoError(t, err)
			requireOrigin(t, byte(1+n), r.Origin, "the outcome")
		}
	})
}

func TestTrace_ReconcileAndFnAreTwoExecutions(t *testing.T) {
	eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
		tr, log := &tracer{}, &eventLog[string]{}
		answer := error(errBoom)
		c := idemflight.MustNew(options{Trace: tr.trace, Observer: log.observe, Reconcile: func(ctx context.Context, _ string, held idemflight.Entry[int]) (int, error) {
			require.Equal(t, byte(tr.count()), ctx.Value(traceKey{}), "Reconcile sees what Trace has added")
			requireOrigin(t, 1, held.Origin, "what Reconcile is asked about")
			return 0, answer
		}})
		hold(t, c, "k")
		time.Sleep(time.Second) // one leader's context lasts for three
		_, err := c.Do(ctx, "k", neverRuns(t), opts...)
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		synctest.Wait()
		require.Equal(t, idemflight.Hold, tr.ends[1].Disposition)
		e, _ := lookup(c, "k")
		requireOrigin(t, 1, e.Origin, "what is held still")

		time.Sleep(time.Second) // one leader's context lasts for three
		answer = errReleased
		_, err = c.Do(ctx, "k", returns(9, nil), opts...)
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, []bool{false, true, true, false}, tr.started)
		require.Len(t, tr.ends, 4)
		slices.SortFunc(tr.ends, func(a, b idemflight.Event[string]) int { // fn may end before Reconcile's end is told
			return cmp.Compare(a.Origin.SpanID[7], b.Origin.SpanID[7])
		})
		for i, e := range tr.ends {
			requireOrigin(t, byte(i+1), e.Origin, "an end")
		}
		require.Equal(t, idemflight.EventReconciled, tr.ends[2].Kind)
		require.Equal(t, idemflight.Release, tr.ends[2].Disposition)
		require.ErrorIs(t, tr.ends[2].Err, errBoom)
		require.True(t, tr.ends[2].Led)
		require.Equal(t, idemflight.EventExecuted, tr.ends[3].Kind)
		e, _ = lookup(c, "k")
		requireOrigin(t, 4, e.Origin, "the outcome of fn")
		executed := log.of(idemflight.EventExecuted)
		requireOrigin(t, 4, executed[len(executed)-1].Origin, "EventExecuted of fn")
	})
}

// TestTrace_ItsContextsEndIsTheExecutions: what Trace derives has no end of its own.
func TestTrace_ItsContextsEndIsTheExecutions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for how, derive := range map[string]func(context.Context) context.Context{
			"canceled": func(ctx context.Context) context.Context {
				ctx, cancel := context.WithCancel(context.WithValue(ctx, traceKey{}, "traced"))
				cancel()
				return ctx
			},
			"without cancel": func(ctx context.Context) context.Context {
				return context.WithoutCancel(context.WithValue(ctx, traceKey{}, "traced"))
			},
			"deadline": func(ctx context.Context) context.Context {
				ctx, cancel := context.WithTimeout(context.WithValue(ctx, traceKey{}, "traced"), time.Second)
				t.Cleanup(cancel)
				return ctx
			},
		} {
			traceNow = derive
			c := newTraced(options{ExecTimeout: time.Minute})
			traceNow = nil
			var fnCtx context.Context
			_, err := c.Do(t.Context(), how, func(ctx context.Context) (int, error) {
				fnCtx = ctx
				require.Equal(t, "traced", ctx.Value(traceKey{}), how)
				time.Sleep(30 * time.Second)
				requireAlive(t, ctx, how)
				deadline, ok := ctx.Deadline()
				require.True(t, ok)
				require.Equal(t, 30*time.Second, time.Until(deadline), how)
				require.NoError(t, idemflight.BeginEffect(ctx))
				return 0, errBoom
			})
			require.ErrorContains(t, err, "after BeginEffect", how)
			require.ErrorIs(t, fnCtx.Err(), context.Canceled, how)
			require.ErrorIs(t, idemflight.BeginEffect(fnCtx), context.Canceled, how)
		}
	})
}

// TestTrace_Hostile: whatever it does, fn runs and says what it says.
func TestTrace_Hostile(t *testing.T) {
	type uncomparable struct {
		context.Context
		_ []int
	}
	type trace = func(context.Context, string, bool) (context.Context, idemflight.Origin, func(idemflight.Event[string]))
	for how, tt := range map[string]struct {
		trace  trace
		panics uint64
	}{
		"panics": {func(context.Context, string, bool) (_ context.Context, _ idemflight.Origin, _ func(idemflight.Event[string])) {
			panic("boom")
		}, 1},
		"returns nothing": {func(context.Context, string, bool) (_ context.Context, _ idemflight.Origin, _ func(idemflight.Event[string])) {
			return
		}, 0},
		"a context of its own": {func(context.Context, string, bool) (_ context.Context, _ idemflight.Origin, _ func(idemflight.Event[string])) {
			return hostileContext{}, originNo(1), nil
		}, 1},
		"not to be compared": {func(ctx context.Context, _ string, _ bool) (context.Context, idemflight.Origin, func(idemflight.Event[string])) {
			return uncomparable{Context: ctx}, originNo(1), nil
		}, 0},
		"panics at the end": {func(ctx context.Context, _ string, _ bool) (context.Context, idemflight.Origin, func(idemflight.Event[string])) {
			return ctx, originNo(1), func(idemflight.Event[string]) { panic("boom") }
		}, 1},
		"exits at the end": {func(ctx context.Context, _ string, _ bool) (context.Context, idemflight.Origin, func(idemflight.Event[string])) {
			return ctx, originNo(1), func(idemflight.Event[string]) { runtime.Goexit() }
		}, 1},
		"that of another cache": {func(context.Context, string, bool) (_ context.Context, _ idemflight.Origin, _ func(idemflight.Event[string])) {
			return otherExecution(), originNo(1), nil
		}, 0},
	} {
		t.Run(how, func(t *testing.T) {
			eachLeader(t, func(t *testing.T, ctx context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
				log := &eventLog[string]{}
				c := idemflight.MustNew(options{Trace: tt.trace, Observer: log.observe})
				call := start(c, ctx, "k", func(ctx context.Context) (int, error) {
					require.NoError(t, idemflight.BeginEffect(ctx))
					return 0, errBoom
				}, opts...)
				<-call.done
				synctest.Wait()
				e, ok := lookup(c, "k")
				require.True(t, ok)
				require.Equal(t, idemflight.Held, e.State, "BeginEffect has counted")
				require.Equal(t, tt.panics, c.Stats().HookPanics)
				require.Len(t, log.of(idemflight.EventPanicked), int(tt.panics))
				require.NoError(t, c.CheckInvariants())
			})
		})
	}
}

// hostileContext panics whatever it is asked.
type hostileContext struct{}

func (hostileContext) Deadline() (time.Time, bool) { panic("Deadline") }
func (hostileContext) Done() <-chan struct{}       { panic("Done") }
func (hostileContext) Err() error                  { panic("Err") }
func (hostileContext) Value(any) any               { panic("Value") }

// otherExecution returns the context of an execution, of another cache.
func otherExecution() (other context.Context) {
	_, _ = idemflight.MustNew(options{}).Do(bg, "other", func(ctx context.Context) (int, error) {
		other = ctx
		return 0, nil
	})
	return other
}

// TestSave_KeepsTheOrigin of what is retained, held and in flight.
func TestSave_KeepsTheOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &tracer{}
		c := idemflight.MustNew(options{Trace: tr.trace})
		executes(t, c, "retained", 1)
		_, err := c.Do(t.Context(), "final", returns(0, idemflight.Final(errBoom)))
		require.Error(t, err)
		hold(t, c, "held")
		gate := newGate(t)
		flying := start(c, t.Context(), "in flight", func(context.Context) (int, error) { gate.wait(); return 1, nil })
		synctest.Wait()
		var stream bytes.Buffer
		require.NoError(t, c.Save(&stream))
		gate.open()
		<-flying.done

		next := idemflight.MustNew(options{})
		_, err = next.Load(t.Context(), &stream)
		require.NoError(t, err)
		for n, key := range []string{"retained", "final", "held", "in flight"} {
			e, ok := lookup(next, key)
			require.True(t, ok)
			requireOrigin(t, byte(n+1), e.Origin, key)
		}
		r, err := next.DoResult(t.Context(), "retained", neverRuns(t))
		require.NoError(t, err)
		requireOrigin(t, 1, r.Origin, "a replay after a restart")
	})
}

func TestOrigin_Text(t *testing.T) {
	o := idemflight.Origin{TraceID: [16]byte{0: 0xab, 15: 1}, SpanID: [8]byte{0: 0xcd, 7: 2}, Sampled: true}
	const text = "00-ab000000000000000000000000000001-cd00000000000002-01"
	got, err := o.MarshalText()
	require.NoError(t, err)
	require.Equal(t, text, string(got))
	var read idemflight.Origin
	require.NoError(t, read.UnmarshalText(got))
	require.Equal(t, o, read)
	for _, bad := range []string{"", "00", text + "0", "01" + text[2:], text[:53] + "02", "00-AB" + text[5:], text[:35] + "x" + text[36:], text[:3] + "zz" + text[5:]} {
		require.ErrorContains(t, read.UnmarshalText([]byte(bad)), "no origin", "%q", bad)
		require.Equal(t, o, read, "nothing changes")
	}
}

// What Trace adds to fn's context is in that of the events of an execution, which come in fn's.
func TestTrace_EventsOfAnExecutionHaveTheContextOfFn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type span struct{}
		var got []idemflight.EventKind
		c := idemflight.MustNew(options{
			EffectsAnnounced: true,
			Trace: func(ctx context.Context, _ string, _ bool) (context.Context, idemflight.Origin, func(idemflight.Event[string])) {
				return context.WithValue(ctx, span{}, true), idemflight.Origin{}, nil
			},
			Observer: func(ctx context.Context, e idemflight.Event[string]) {
				if ctx.Value(span{}) != nil {
					got = append(got, e.Kind)
				}
			},
		})
		ctx, leave := context.WithCancel(bg)
		gate := newGate(t)
		start(c, ctx, "k", func(context.Context) (int, error) { gate.wait(); return 1, nil })
		synctest.Wait()
		leave()
		synctest.Wait()
		gate.open()
		synctest.Wait()
		require.Equal(t, []idemflight.EventKind{idemflight.EventUnannounced, idemflight.EventFinished}, got)
	})
}
