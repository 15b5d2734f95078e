package idemflight_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/yield"
)

// The vocabulary of the tests: what most of them use, by one name each. A helper that one chapter
// alone needs stands in its file.

type (
	cache   = idemflight.Cache[string, int]
	options = idemflight.Options[string, int]
	intFn   = func(context.Context) (int, error)

	nameKey  struct{} // a key of context values, of a type of its own
	otherKey struct{} // and another
)

// theKey is the key of a test that needs no more than one.
const theKey = "k"

// reconcilePause is for how long after a Reconcile that learned nothing calls on that hold do not ask again.
const reconcilePause = time.Second

// fewEntries is MaxEntries where a test makes thousands of caches: a small one is made quickly.
const fewEntries = 16

var bg = context.Background()

var (
	errBoom   = errors.New("boom")
	errEnough = errors.New("the caller had enough")
)

// keyNo returns the i-th of many keys.
func keyNo(i int) string { return "key-" + strconv.Itoa(i) }

// fingerprint returns the fingerprint of the n-th of many payloads.
func fingerprint(n int) idemflight.Fingerprint { return idemflight.FingerprintOf([]byte{byte(n)}) }

// dead returns a context that has ended with this cause.
func dead(cause error) context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	return ctx
}

// Fns

// returns is an fn that returns at once.
func returns[V any](v V, err error) func(context.Context) (V, error) {
	return func(context.Context) (V, error) { return v, err }
}

// returnsAfter is an fn that takes d, deaf to its context.
func returnsAfter(d time.Duration, v int, err error) intFn {
	return func(context.Context) (int, error) { time.Sleep(d); return v, err }
}

// one is an fn that captures nothing, and so costs its caller no allocation.
func one(context.Context) (int, error) { return 1, nil }

// neverRuns is an fn that must not run.
func neverRuns(t *testing.T) intFn { return neverRunsAs[int](t) }

// neverRunsAs is neverRuns for other values.
func neverRunsAs[V any](t *testing.T) func(context.Context) (V, error) {
	return func(context.Context) (V, error) {
		t.Error("fn ran for a key for which it must not run now")
		return *new(V), idemflight.Retryable(errors.New("fn ran, which it must not"))
	}
}

// goexits is an fn that ends by runtime.Goexit.
func goexits(context.Context) (int, error) {
	runtime.Goexit()
	return 1, nil // never reached: no caller may see these
}

// gate holds fn up until the test opens it. The end of the test opens it too, so that a failed
// requirement is reported instead of the goroutines that it left blocked.
type gate struct {
	once sync.Once
	ch   chan struct{}
}

func newGate(t *testing.T) *gate {
	g := &gate{ch: make(chan struct{})}
	t.Cleanup(g.open)
	return g
}

func (g *gate) open() { g.once.Do(func() { close(g.ch) }) }
func (g *gate) wait() { <-g.ch }

// work is an fn that waits at its gate, and counts how often and how many at a time it ran.
// Several keys may share one, and Reconcile may be one, so that two executions of any kind beside
// each other show in peak.
type work struct {
	*gate
	runs, running, peak atomic.Int64
}

func newWork(t *testing.T) *work { return &work{gate: newGate(t)} }

func (w *work) enter() {
	w.runs.Add(1)
	n := w.running.Add(1)
	for p := w.peak.Load(); n > p && !w.peak.CompareAndSwap(p, n); p = w.peak.Load() {
	}
}

func (w *work) leave() { w.running.Add(-1) }

// returns is the fn: it does not look at its context.
func (w *work) returns(v int, err error) intFn {
	return func(context.Context) (int, error) {
		w.enter()
		defer w.leave()
		w.wait()
		return v, err
	}
}

// Calls

// pending is one call on a goroutine of its own, and how it ended. The fields may be read once
// done is closed.
type pending[V any] struct {
	done     chan struct{}
	began    time.Time
	ended    time.Time
	res      idemflight.Result[V]
	err      error
	panicked any  // what the call panicked with
	exited   bool // the call ended its goroutine by runtime.Goexit
}

// start calls DoResult on a goroutine of its own.
func start[K comparable, V any](c *idemflight.Cache[K, V], ctx context.Context, key K,
	fn func(context.Context) (V, error), opts ...idemflight.CallOption) *pending[V] {
	return startCall(func() (idemflight.Result[V], error) { return c.DoResult(ctx, key, fn, opts...) })
}

// startCall is start for any other way to call.
func startCall[V any](do func() (idemflight.Result[V], error)) *pending[V] {
	call := &pending[V]{done: make(chan struct{}), began: time.Now()}
	go func() {
		returned := false
		defer func() {
			call.panicked = recover()
			call.exited = call.panicked == nil && !returned
			call.ended = time.Now()
			close(call.done)
		}()
		call.res, call.err = do()
		returned = true
	}()
	return call
}

// returned reports whether the call has ended, however it did.
func (call *pending[V]) returned() bool {
	select {
	case <-call.done:
		return true
	default:
		return false
	}
}

func (call *pending[V]) took() time.Duration { return call.ended.Sub(call.began) }

// got requires that the call has ended with the outcome (v, nil) from source.
func (call *pending[V]) got(t *testing.T, source idemflight.Source, v V) {
	t.Helper()
	require.True(t, call.returned(), "the call must have returned with the outcome")
	require.Nil(t, call.panicked, "the call must not panic")
	require.False(t, call.exited, "the call must not exit its goroutine")
	require.NoError(t, call.err, "the call must get the outcome")
	require.Equal(t, v, call.res.Value, "the value of the outcome")
	require.Equal(t, source, call.res.Source, "where the outcome comes from")
}

// left requires that the call has ended because its own context did, with this cause.
func (call *pending[V]) left(t *testing.T, ctx context.Context, cause error) {
	t.Helper()
	require.True(t, call.returned(), "the call must return as soon as its own context ends")
	require.Nil(t, call.panicked, "the call must not panic")
	require.ErrorIs(t, call.err, idemflight.ErrCallerLeft, "a caller whose context ended gets ErrCallerLeft")
	require.ErrorIs(t, call.err, cause, "ErrCallerLeft wraps the cause of the context")
	require.ErrorIs(t, call.err, ctx.Err(), "ErrCallerLeft wraps the context's own error")
	require.NotErrorIs(t, call.err, idemflight.ErrInFlight, "leaving is not being refused")
	require.NotErrorIs(t, call.err, idemflight.ErrOutcomeUnknown, "leaving does not hold the key")
	require.Equal(t, idemflight.NoOutcome, call.res.Source, "no outcome was obtained")
	require.Zero(t, call.res.Value, "no outcome was obtained, so no value either")
}

// refused requires that the call has ended with ErrInFlight, after it waited for took.
func (call *pending[V]) refused(t *testing.T, took time.Duration) {
	t.Helper()
	require.True(t, call.returned(), "a caller that may not wait any longer returns")
	require.ErrorIs(t, call.err, idemflight.ErrInFlight,
		"a caller that may not wait (any longer) gets ErrInFlight")
	require.NotErrorIs(t, call.err, idemflight.ErrCallerLeft, "its own context has not ended")
	require.Zero(t, call.res, "no outcome was obtained")
	require.Equal(t, took, call.took(), "how long the call waited")
}

// leaders are the ways to call: they decide where fn runs, and must not decide anything else.
var leaders = []struct {
	name  string
	ctx   func() (context.Context, context.CancelFunc)
	opts  []idemflight.CallOption
	stays bool // the leader cannot leave
}{
	{"background", func() (context.Context, context.CancelFunc) { return context.Background(), func() {} }, nil, true},
	{"cancel", func() (context.Context, context.CancelFunc) { return context.WithCancel(context.Background()) }, nil, false},
	{"deadline", func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), 3*time.Second)
	}, nil, false},
	{"inline", func() (context.Context, context.CancelFunc) { return context.WithCancel(context.Background()) }, []idemflight.CallOption{idemflight.Inline()}, true},
	{"inline background", func() (context.Context, context.CancelFunc) { return context.Background(), func() {} }, []idemflight.CallOption{idemflight.Inline()}, true},
}

// eachLeader runs test in a bubble for each way to call.
func eachLeader(t *testing.T, test func(t *testing.T, ctx context.Context, cancel context.CancelFunc, opts []idemflight.CallOption)) {
	for _, l := range leaders {
		t.Run(l.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := l.ctx()
				defer cancel()
				test(t, ctx, cancel, l.opts)
			})
		})
	}
}

// executes calls Do and expects that fn runs, returning v.
func executes(t *testing.T, c *cache, key string, v int, opts ...idemflight.CallOption) idemflight.Result[int] {
	t.Helper()
	r, err := c.DoResult(bg, key, returns(v, nil), opts...)
	require.NoError(t, err, "fn of %q was to run", key)
	require.Equal(t, idemflight.Executed, r.Source, "fn of %q was to run", key)
	require.Equal(t, v, r.Value)
	return r
}

// hold leaves key held with errBoom, at once.
func hold(t *testing.T, c *cache, key string, opts ...idemflight.CallOption) {
	t.Helper()
	_, err := c.Do(bg, key, returns(0, idemflight.Unknown(errBoom)), opts...)
	require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
	require.ErrorIs(t, err, errBoom)
}

// holdAfterASecond leaves key held with errBoom, by a flight of one second.
func holdAfterASecond(t *testing.T, c *cache, key string, opts ...idemflight.CallOption) {
	t.Helper()
	_, err := c.Do(t.Context(), key, returnsAfter(time.Second, 7, idemflight.Unknown(errBoom)), opts...)
	require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "the flight that leaves %q held", key)
}

// replays uses key, which must be retained without an error, and returns its value.
func replays(t *testing.T, c *cache, key string) int {
	t.Helper()
	v, err := c.Do(dead(context.Canceled), key, neverRuns(t))
	require.NoError(t, err, "%q was to be replayed", key)
	return v
}

// fly starts a flight of key, and returns what ends it and gives what its leader got. In bubbles
// only.
func fly(t *testing.T, c *cache, key string, opts ...idemflight.CallOption) func(v int, err error) (idemflight.Result[int], error) {
	t.Helper()
	type outcome struct {
		v   int
		err error
	}
	end := make(chan outcome)
	leader := start(c, bg, key, func(context.Context) (int, error) {
		o := <-end
		return o.v, o.err
	}, opts...)
	synctest.Wait()
	e, ok := lookup(c, key)
	require.True(t, ok, "%q is in flight", key)
	require.Equal(t, idemflight.InFlight, e.State, "%q is in flight", key)
	return func(v int, err error) (idemflight.Result[int], error) {
		end <- outcome{v, err}
		<-leader.done
		return leader.res, leader.err
	}
}

// Records

// entries returns what All shows.
func entries[K comparable, V any](c *idemflight.Cache[K, V]) map[K]idemflight.Entry[V] {
	m := map[K]idemflight.Entry[V]{}
	for k, e := range c.All() {
		m[k] = e
	}
	return m
}

// retainedEntry is a retained entry that ends at expires and began an hour before that.
func retainedEntry(v int, expires time.Time) idemflight.Entry[int] {
	return idemflight.Entry[int]{State: idemflight.Retained, Value: v,
		StartedAt: expires.Add(-time.Hour), CompletedAt: expires.Add(-time.Hour), ExpiresAt: expires}
}

// requireState requires that the keys are kept in this state.
func requireState(t *testing.T, c *cache, s idemflight.State, keys ...string) {
	t.Helper()
	for _, k := range keys {
		e, ok := lookup(c, k)
		require.True(t, ok, "%q is kept", k)
		require.Equal(t, s, e.State, "state of %q", k)
	}
}

// dispositionOf reads from the record what became of the outcome of key.
func dispositionOf(t *testing.T, c *cache, key string) idemflight.Disposition {
	t.Helper()
	e, ok := lookup(c, key)
	switch {
	case !ok:
		return idemflight.Release
	case e.State == idemflight.Retained:
		return idemflight.Retain
	case e.State == idemflight.Held:
		return idemflight.Hold
	}
	require.FailNow(t, "the key must be absent, retained or held", "it is %v", e.State)
	return -1
}

// tooHeavy is a value that Weigh in weighted makes too heavy for MaxWeight 10; every other value
// weighs itself.
const tooHeavy = 1000

func weighted(o options) options {
	o.MaxWeight = 10
	o.Weigh = func(_ string, v int) int64 { return int64(v) }
	return o
}

// shedding makes a cache with MaxWeight 10 whose values weigh themselves.
func shedding(o options) (*cache, *eventLog[string]) {
	log := &eventLog[string]{}
	o.Observer = log.observe
	return idemflight.MustNew(weighted(o)), log
}

// reclaimDelay returns how long after its expiry a record may still be there.
func reclaimDelay(ttl time.Duration) time.Duration { return max(time.Second, ttl/8) }

// object is a value whose collection a test can see.
type object [64]byte

// Events and counters

// eventLog is an Observer that remembers.
type eventLog[K comparable] struct {
	mu  sync.Mutex
	all []loggedEvent[K]
}

type loggedEvent[K comparable] struct {
	idemflight.Event[K]
	ctx context.Context
	at  time.Time
}

func (l *eventLog[K]) observe(ctx context.Context, e idemflight.Event[K]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, loggedEvent[K]{e, ctx, time.Now()})
}

// seen returns the events of the given kinds so far, of all kinds if none is given.
func (l *eventLog[K]) seen(kinds ...idemflight.EventKind) []loggedEvent[K] {
	l.mu.Lock()
	defer l.mu.Unlock()
	var some []loggedEvent[K]
	for _, s := range l.all {
		wanted := len(kinds) == 0
		for _, k := range kinds {
			wanted = wanted || s.Kind == k
		}
		if wanted {
			some = append(some, s)
		}
	}
	return some
}

// of is seen without the contexts and times.
func (l *eventLog[K]) of(kinds ...idemflight.EventKind) []idemflight.Event[K] {
	var some []idemflight.Event[K]
	for _, s := range l.seen(kinds...) {
		some = append(some, s.Event)
	}
	return some
}

func (l *eventLog[K]) keys(kind idemflight.EventKind) []K {
	var some []K
	for _, s := range l.seen(kind) {
		some = append(some, s.Key)
	}
	return some
}

func (l *eventLog[K]) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = nil
}

var (
	callKinds = []idemflight.EventKind{idemflight.EventExecuted, idemflight.EventJoined, idemflight.EventReplayed,
		idemflight.EventReconciled, idemflight.EventRejected, idemflight.EventCallerLeft}
	upkeepKinds = []idemflight.EventKind{idemflight.EventEvicted, idemflight.EventExpired, idemflight.EventShed, idemflight.EventPanicked}
)

// callCounts returns the Stats of calls that are not zero.
func callCounts(s idemflight.Stats) map[string]uint64 {
	m := map[string]uint64{"Executed": s.Executed, "Joined": s.Joined, "Replayed": s.Replayed, "Reconciled": s.Reconciled,
		"KeyReused": s.KeyReused, "NotWaited": s.NotWaited, "OutcomeUnknown": s.OutcomeUnknown, "ValueShed": s.ValueShed, "Full": s.Full,
		"Closed": s.Closed, "Reentrant": s.Reentrant, "InvalidKey": s.InvalidKey, "Left": s.CallerLeft}
	for k, n := range m {
		if n == 0 {
			delete(m, k)
		}
	}
	return m
}

// sumOfCalls is the number of calls that s counts.
func sumOfCalls(s idemflight.Stats) (sum uint64) {
	for _, n := range callCounts(s) {
		sum += n
	}
	return sum
}

// Errors

// plainError is an error with nothing but a text.
type plainError struct{ text string }

func (e *plainError) Error() string { return e.text }

// sliceError is an error that cannot be compared: == on two of them panics.
type sliceError []string

func (e sliceError) Error() string { return fmt.Sprint([]string(e)) }

// timeoutError is an error with a Timeout method around another error.
type timeoutError struct {
	timeout bool
	err     error
}

func (e *timeoutError) Error() string { return "slow" }
func (e *timeoutError) Timeout() bool { return e.timeout }
func (e *timeoutError) Unwrap() error { return e.err }

// The runtime

// panicOf returns what f panics with, nil if it does not.
func panicOf(f func()) (v any) {
	defer func() { v = recover() }()
	f()
	return nil
}

// goroutineID is the identity of the calling goroutine, as the runtime prints it.
func goroutineID() string {
	var buf [64]byte
	header, _, _ := bytes.Cut(buf[:runtime.Stack(buf[:], false)], []byte(" ["))
	return string(header)
}

// goroutines counts the goroutines of the bubble of the caller. It reads the stacks, for which
// the world stops: runtime.NumGoroutine may still count one that is just about to be gone, and
// those of other tests.
func goroutines(t *testing.T) int {
	buf := make([]byte, 1<<16)
	for n := runtime.Stack(buf, true); n == len(buf); n = runtime.Stack(buf, true) {
		buf = make([]byte, 4*len(buf))
	}
	buf = bytes.TrimRight(buf, "\x00")
	header, _, _ := bytes.Cut(buf, []byte("\n"))
	_, bubble, ok := strings.Cut(string(header), ", ")
	require.True(t, ok && strings.HasPrefix(bubble, "synctest bubble "),
		"goroutines counts in a bubble only, called from %q", header)
	return bytes.Count(buf, []byte(", "+bubble))
}

// processGoroutines counts those of the process; one that is just exiting gets the time to do so: its thread may have lost
// its processor, and 10,000 turns of others, a millisecond, were once in fifty times not enough. It waits in turns since time
// stands still in a bubble.
func processGoroutines(want int) int {
	for range 10_000_000 { // some seconds
		if runtime.NumGoroutine() <= want {
			break
		}
		runtime.Gosched()
	}
	return runtime.NumGoroutine()
}

// soon waits for done in real time. A lock that is held where it must not be shows as a test that
// fails here, long before the whole run times out.
func soon(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		t.Fatalf("%s: still not done after 30 s", what)
	}
}

// onYield calls at when the library comes to a point, until the test ends. Only goroutines of the
// test's own bubble count, whose time is not ours: one of an earlier test may still be on its way.
func onYield(t *testing.T, at func(point string)) {
	require.Less(t, time.Now().Year(), 2020, "only for what runs in a bubble")
	yield.Hook(func(point string) {
		if time.Now().Year() < 2020 {
			at(point)
		}
	})
	t.Cleanup(func() { yield.Hook(nil) })
}

// Operators' verbs whose error cannot be, or says no more than that nothing was done.

func lookup[K comparable, V any](c *idemflight.Cache[K, V], key K) (idemflight.Entry[V], bool) {
	e, ok, err := c.Lookup(bg, key)
	must(err)
	return e, ok
}

func forget[K comparable, V any](c *idemflight.Cache[K, V], key K) bool {
	did, err := c.Forget(bg, key)
	must(err)
	return did
}

// resolve reports whether Resolve acted.
func resolve[K comparable, V any](c *idemflight.Cache[K, V], key K, value V, err error) bool {
	return c.Resolve(bg, key, value, err) == nil
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
