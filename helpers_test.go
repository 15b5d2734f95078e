package idemflight_test

import (
	"bytes"
	"context"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

type (
	flCache   = idemflight.Cache[string, int]
	flOptions = idemflight.Options[string, int]
	flFn      = func(context.Context) (int, error)
)

// flKey is the key that these tests are about when one is enough.
const flKey = "k"

// flGate holds fn up until the test opens it. The end of the test opens it too, so that a failed
// requirement is reported instead of the goroutines that it left blocked.
type flGate struct {
	once sync.Once
	ch   chan struct{}
}

func flNewGate(t *testing.T) *flGate {
	g := &flGate{ch: make(chan struct{})}
	t.Cleanup(g.open)
	return g
}

func (g *flGate) open() { g.once.Do(func() { close(g.ch) }) }
func (g *flGate) wait() { <-g.ch }

// flWork is an fn that waits at its gate, and counts how often and how many at a time it ran.
// Several keys may share one, and Reconcile may be one, so that two executions of any kind beside
// each other show in peak.
type flWork struct {
	*flGate
	runs, running, peak atomic.Int64
}

func flNewWork(t *testing.T) *flWork { return &flWork{flGate: flNewGate(t)} }

func (w *flWork) enter() {
	w.runs.Add(1)
	n := w.running.Add(1)
	for p := w.peak.Load(); n > p && !w.peak.CompareAndSwap(p, n); p = w.peak.Load() {
	}
}

func (w *flWork) leave() { w.running.Add(-1) }

// returns is the fn: it does not look at its context.
func (w *flWork) returns(v int, err error) flFn {
	return func(context.Context) (int, error) {
		w.enter()
		defer w.leave()
		w.wait()
		return v, err
	}
}

// flCall is one call on a goroutine of its own, and how it ended. The fields may be read once
// done is closed.
type flCall[V any] struct {
	done     chan struct{}
	began    time.Time
	ended    time.Time
	res      idemflight.Result[V]
	err      error
	panicked any  // what the call panicked with
	exited   bool // the call ended its goroutine by runtime.Goexit
}

func flGo[K comparable, V any](c *idemflight.Cache[K, V], ctx context.Context, key K, fn func(context.Context) (V, error), opts ...idemflight.CallOption) *flCall[V] {
	call := &flCall[V]{done: make(chan struct{}), began: time.Now()}
	go func() {
		returned := false
		defer func() {
			call.panicked = recover()
			call.exited = call.panicked == nil && !returned
			call.ended = time.Now()
			close(call.done)
		}()
		call.res, call.err = c.DoResult(ctx, key, fn, opts...)
		returned = true
	}()
	return call
}

// returned reports whether the call has ended, however it did.
func (call *flCall[V]) returned() bool {
	select {
	case <-call.done:
		return true
	default:
		return false
	}
}

func (call *flCall[V]) took() time.Duration { return call.ended.Sub(call.began) }

// got requires that the call has ended with the outcome (v, nil) from source.
func (call *flCall[V]) got(t *testing.T, source idemflight.Source, v V) {
	t.Helper()
	require.True(t, call.returned(), "the call must have returned with the outcome")
	require.Nil(t, call.panicked, "the call must not panic")
	require.False(t, call.exited, "the call must not exit its goroutine")
	require.NoError(t, call.err, "the call must get the outcome")
	require.Equal(t, v, call.res.Value, "the value of the outcome")
	require.Equal(t, source, call.res.Source, "where the outcome comes from")
}

// left requires that the call has ended because its own context did, with this cause.
func (call *flCall[V]) left(t *testing.T, ctx context.Context, cause error) {
	t.Helper()
	require.True(t, call.returned(), "the call must return as soon as its own context ends")
	require.Nil(t, call.panicked, "the call must not panic")
	require.ErrorIs(t, call.err, idemflight.ErrLeft, "whose context ended gets ErrLeft")
	require.ErrorIs(t, call.err, cause, "ErrLeft wraps the cause of the context")
	require.ErrorIs(t, call.err, ctx.Err(), "ErrLeft wraps the context's own error")
	require.NotErrorIs(t, call.err, idemflight.ErrInFlight, "leaving is not being refused")
	require.NotErrorIs(t, call.err, idemflight.ErrOutcomeUnknown, "leaving does not hold the key")
	require.Equal(t, idemflight.None, call.res.Source, "no outcome was obtained")
	require.Zero(t, call.res.Value, "no outcome was obtained, so no value either")
}

// flReturns is an fn that returns at once.
func flReturns[V any](v V, err error) func(context.Context) (V, error) {
	return func(context.Context) (V, error) { return v, err }
}

// flNever is an fn that must not run.
func flNever[V any](t *testing.T) func(context.Context) (V, error) {
	return func(context.Context) (V, error) {
		t.Error("fn ran for a key for which it must not run now")
		var v V
		return v, nil
	}
}

// flGoexits is an fn that ends by runtime.Goexit.
func flGoexits(context.Context) (int, error) {
	runtime.Goexit()
	return 1, nil // never reached: nobody may see these
}

// flCancelled is a context that was dead on arrival, and its cause.
func flCancelled(cause error) context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	return ctx
}

// flGoroutine is the identity of the calling goroutine, as the runtime prints it.
func flGoroutine() string {
	var buf [64]byte
	header, _, _ := bytes.Cut(buf[:runtime.Stack(buf[:], false)], []byte(" ["))
	return string(header)
}

// flGoroutines counts the goroutines of the bubble of the caller. It reads the stacks, for which
// the world stops: runtime.NumGoroutine may still count one that is just about to be gone.
func flGoroutines(t *testing.T) int {
	buf := make([]byte, 1<<16)
	for n := runtime.Stack(buf, true); n == len(buf); n = runtime.Stack(buf, true) {
		buf = make([]byte, 4*len(buf))
	}
	buf = bytes.TrimRight(buf, "\x00")
	header, _, _ := bytes.Cut(buf, []byte("\n"))
	_, bubble, ok := strings.Cut(string(header), ", ")
	require.True(t, ok && strings.HasPrefix(bubble, "synctest bubble "), "flGoroutines counts in a bubble only, called from %q", header)
	return bytes.Count(buf, []byte(", "+bubble))
}

// flSoon waits for done in real time. A lock that is held where it must not be shows as a test
// that fails here, long before the whole run times out.
func flSoon(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		t.Fatalf("%s: still not done after 30 s", what)
	}
}

// flCalls is the number of calls that s counts.
func flCalls(s idemflight.Stats) uint64 {
	return s.Executed + s.Joined + s.Replayed + s.Reconciled + s.KeyReused + s.NotWaited + s.OutcomeUnknown +
		s.ValueShed + s.Full + s.Closed + s.Reentrant + s.InvalidKey + s.Left
}
