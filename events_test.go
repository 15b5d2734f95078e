package idemflight_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// wantedEvent is what a test expects of an event: err is one that Event.Err is, nil for none.
type wantedEvent struct {
	kind    idemflight.EventKind
	err     error
	took    time.Duration
	waiters int
	disp    idemflight.Disposition
}

func (w wantedEvent) check(t *testing.T, e idemflight.Event[string]) {
	t.Helper()
	require.Equal(t, w.kind, e.Kind, "kind of %+v", e)
	require.Equal(t, "k", e.Key, "key of the %v event", e.Kind)
	if w.err == nil {
		require.NoError(t, e.Err, "of the %v event", e.Kind)
	} else {
		require.ErrorIs(t, e.Err, w.err, "of the %v event", e.Kind)
	}
	require.Equal(t, w.took, e.Took, "Took of the %v event", e.Kind)
	switch e.Kind {
	case idemflight.EventExecuted, idemflight.EventReconciled, idemflight.EventFinished:
		require.Equal(t, w.waiters, e.Waiters, "Waiters of the %v event", e.Kind)
		require.Equal(t, w.disp, e.Disposition, "Disposition of the %v event", e.Kind)
	}
}

// probe is an fn that leaves nothing behind, should it run.
func probe(context.Context) (int, error) { return 0, idemflight.Retryable(errBoom) }

// Promise 25: Every call emits exactly one call event and is counted exactly once. Evictions,
// expiry and other upkeep have events, too, and an Observer may call the cache.
//
// Every way a call can end, each on a cache of its own, for key "k". The calls of arrange do not
// count.
func TestPromise25_OneEventAndOneCountPerCall(t *testing.T) {
	const s = time.Second
	type calls = map[string]uint64
	type reconcile = func(context.Context, string, idemflight.Entry[int]) (int, error)
	held := func(t *testing.T, c *cache) { hold(t, c, "k") }
	boom := errors.New("boom")
	finds := func(d time.Duration, v int, err error) reconcile {
		return func(context.Context, string, idemflight.Entry[int]) (int, error) { time.Sleep(d); return v, err }
	}
	do := func(fn func(context.Context) (int, error), opts ...idemflight.CallOption) func(t *testing.T, c *cache) {
		return func(t *testing.T, c *cache) { _, _ = c.Do(bg, "k", fn, opts...) }
	}
	// joined adds n callers that join a second after the leader has begun.
	joined := func(n int, lead func(t *testing.T, c *cache), opts ...idemflight.CallOption) func(t *testing.T, c *cache) {
		return func(t *testing.T, c *cache) {
			for range n {
				go func() {
					time.Sleep(s)
					_, _ = c.Do(bg, "k", neverRuns(t), opts...)
				}()
			}
			lead(t, c)
		}
	}
	leave := func(after time.Duration, fn func(context.Context) (int, error), opts ...idemflight.CallOption) func(t *testing.T, c *cache) {
		return func(t *testing.T, c *cache) {
			ctx, cancel := context.WithTimeout(bg, after)
			defer cancel()
			_, err := c.Do(ctx, "k", fn, opts...)
			require.ErrorIs(t, err, idemflight.ErrCallerLeft)
		}
	}
	panicking := func(lead func(t *testing.T, c *cache)) func(t *testing.T, c *cache) {
		return func(t *testing.T, c *cache) {
			require.NotNil(t, panicOf(func() { lead(t, c) }), "the leader re-panics")
		}
	}
	exiting := func(lead func(t *testing.T, c *cache)) func(t *testing.T, c *cache) {
		return func(t *testing.T, c *cache) { go lead(t, c) }
	}

	cases := []struct {
		name    string
		opts    options
		arrange func(t *testing.T, c *cache)
		call    func(t *testing.T, c *cache)
		told    []wantedEvent // in the order of their kinds, and of Took
		counts  calls
		ends    calls // Retains, Releases, Holds, Panics
	}{
		{name: "executed", call: do(returnsAfter(3*s, 1, nil)), told: []wantedEvent{{idemflight.EventExecuted, nil, 3 * s, 0, idemflight.Retain}},
			counts: calls{"Executed": 1}, ends: calls{"Retains": 1}},
		{name: "executed inline", call: do(returnsAfter(3*s, 1, nil), idemflight.Inline()), told: []wantedEvent{{idemflight.EventExecuted, nil, 3 * s, 0, idemflight.Retain}},
			counts: calls{"Executed": 1}, ends: calls{"Retains": 1}},
		{name: "executed, nothing kept", call: do(returnsAfter(3*s, 1, nil), idemflight.WithTTL(0)), told: []wantedEvent{{idemflight.EventExecuted, nil, 3 * s, 0, idemflight.Release}},
			counts: calls{"Executed": 1}, ends: calls{"Releases": 1}},
		{name: "executed, final", call: do(returnsAfter(3*s, 1, idemflight.Final(boom))), told: []wantedEvent{{idemflight.EventExecuted, boom, 3 * s, 0, idemflight.Retain}},
			counts: calls{"Executed": 1}, ends: calls{"Retains": 1}},
		{name: "executed, retryable", call: do(returnsAfter(3*s, 1, idemflight.Retryable(boom))), told: []wantedEvent{{idemflight.EventExecuted, boom, 3 * s, 0, idemflight.Release}},
			counts: calls{"Executed": 1}, ends: calls{"Releases": 1}},
		{name: "executed, unknown", call: do(returnsAfter(3*s, 1, idemflight.Unknown(boom))), told: []wantedEvent{{idemflight.EventExecuted, idemflight.ErrOutcomeUnknown, 3 * s, 0, idemflight.Hold}},
			counts: calls{"Executed": 1}, ends: calls{"Holds": 1}},
		{name: "executed, said nothing", call: do(returnsAfter(3*s, 1, boom)), told: []wantedEvent{{idemflight.EventExecuted, idemflight.ErrOutcomeUnknown, 3 * s, 0, idemflight.Hold}},
			counts: calls{"Executed": 1}, ends: calls{"Holds": 1}},
		{name: "executed, said nothing, where all announce", opts: options{EffectsAnnounced: true}, call: do(returnsAfter(3*s, 1, boom)),
			told:   []wantedEvent{{idemflight.EventExecuted, boom, 3 * s, 0, idemflight.Release}},
			counts: calls{"Executed": 1}, ends: calls{"Releases": 1}},
		{name: "executed, forgotten", call: func(t *testing.T, c *cache) {
			do(func(context.Context) (int, error) { forget(c, "k"); return 1, nil })(t, c)
		}, told: []wantedEvent{{idemflight.EventExecuted, nil, 0, 0, idemflight.Release}}, counts: calls{"Executed": 1}, ends: calls{"Releases": 1}},
		{name: "executed, panicked", call: panicking(do(func(context.Context) (int, error) { time.Sleep(s); panic(boom) })),
			told: []wantedEvent{{idemflight.EventExecuted, boom, s, 0, idemflight.Hold}}, counts: calls{"Executed": 1}, ends: calls{"Holds": 1, "Panics": 1}},
		{name: "executed elsewhere, panicked", call: panicking(func(_ *testing.T, c *cache) {
			ctx, cancel := context.WithCancel(bg)
			defer cancel()
			_, _ = c.Do(ctx, "k", func(context.Context) (int, error) { time.Sleep(s); panic(boom) })
		}), told: []wantedEvent{{idemflight.EventExecuted, boom, s, 0, idemflight.Hold}}, counts: calls{"Executed": 1}, ends: calls{"Holds": 1, "Panics": 1}},
		{name: "executed, exited", call: exiting(do(func(context.Context) (int, error) { time.Sleep(s); runtime.Goexit(); return 0, nil })),
			told: []wantedEvent{{idemflight.EventExecuted, idemflight.ErrGoexit, s, 0, idemflight.Hold}}, counts: calls{"Executed": 1}, ends: calls{"Holds": 1, "Panics": 1}},
		{name: "executed elsewhere, exited", call: func(t *testing.T, c *cache) {
			ctx, cancel := context.WithCancel(bg)
			defer cancel()
			_, err := c.Do(ctx, "k", func(context.Context) (int, error) { time.Sleep(s); runtime.Goexit(); return 0, nil })
			require.ErrorIs(t, err, idemflight.ErrGoexit)
		}, told: []wantedEvent{{idemflight.EventExecuted, idemflight.ErrGoexit, s, 0, idemflight.Hold}}, counts: calls{"Executed": 1}, ends: calls{"Holds": 1, "Panics": 1}},
		{name: "executed, panicked, nothing begun", call: panicking(do(func(ctx context.Context) (int, error) { idemflight.NoEffect(ctx); panic(boom) })),
			told: []wantedEvent{{idemflight.EventExecuted, boom, 0, 0, idemflight.Release}}, counts: calls{"Executed": 1}, ends: calls{"Releases": 1, "Panics": 1}},

		{name: "joined", call: joined(2, do(returnsAfter(3*s, 1, nil))), told: []wantedEvent{{idemflight.EventExecuted, nil, 3 * s, 2, idemflight.Retain},
			{kind: idemflight.EventJoined, took: 2 * s}, {kind: idemflight.EventJoined, took: 2 * s}}, counts: calls{"Executed": 1, "Joined": 2}, ends: calls{"Retains": 1}},
		{name: "joined, retryable", call: joined(1, do(returnsAfter(3*s, 1, idemflight.Retryable(boom)))), told: []wantedEvent{{idemflight.EventExecuted, boom, 3 * s, 1, idemflight.Release},
			{kind: idemflight.EventJoined, err: boom, took: 2 * s}}, counts: calls{"Executed": 1, "Joined": 1}, ends: calls{"Releases": 1}},
		{name: "joined, unknown", call: joined(1, do(returnsAfter(3*s, 1, idemflight.Unknown(boom)))), told: []wantedEvent{{idemflight.EventExecuted, idemflight.ErrOutcomeUnknown, 3 * s, 1, idemflight.Hold},
			{kind: idemflight.EventJoined, err: idemflight.ErrOutcomeUnknown, took: 2 * s}}, counts: calls{"Executed": 1, "Joined": 1}, ends: calls{"Holds": 1}},
		{name: "joined, panicked", call: joined(1, panicking(do(func(context.Context) (int, error) { time.Sleep(3 * s); panic(boom) }))),
			told:   []wantedEvent{{idemflight.EventExecuted, boom, 3 * s, 1, idemflight.Hold}, {kind: idemflight.EventJoined, err: boom, took: 2 * s}},
			counts: calls{"Executed": 1, "Joined": 1}, ends: calls{"Holds": 1, "Panics": 1}},

		{name: "replayed", arrange: func(t *testing.T, c *cache) { executes(t, c, "k", 1) }, call: do(probe), told: []wantedEvent{{kind: idemflight.EventReplayed}}, counts: calls{"Replayed": 1}},
		{name: "replayed, final", arrange: do(returns(0, idemflight.Final(boom))), call: do(probe), told: []wantedEvent{{kind: idemflight.EventReplayed, err: boom}}, counts: calls{"Replayed": 1}},

		{name: "reconciled", opts: options{Reconcile: finds(3*s, 7, nil)}, arrange: held, call: joined(1, do(probe)),
			told:   []wantedEvent{{kind: idemflight.EventJoined, took: 2 * s}, {idemflight.EventReconciled, nil, 3 * s, 1, idemflight.Retain}},
			counts: calls{"Reconciled": 1, "Joined": 1}, ends: calls{"Retains": 1}},
		{name: "reconciled, final", opts: options{Reconcile: finds(3*s, 7, idemflight.Final(boom))}, arrange: held, call: do(probe),
			told:   []wantedEvent{{idemflight.EventReconciled, boom, 3 * s, 0, idemflight.Retain}},
			counts: calls{"Reconciled": 1}, ends: calls{"Retains": 1}},
		{name: "reconciled, forgotten", opts: options{Reconcile: finds(3*s, 7, nil)}, arrange: held, call: func(t *testing.T, c *cache) {
			go func() { time.Sleep(s); forget(c, "k") }()
			do(probe)(t, c)
		}, told: []wantedEvent{{idemflight.EventReconciled, nil, 3 * s, 0, idemflight.Release}}, counts: calls{"Reconciled": 1}, ends: calls{"Releases": 1}},
		{name: "reconciled: no effect, then executed", opts: options{Reconcile: finds(3*s, 7, idemflight.Retryable(boom))}, arrange: held, call: joined(1, do(returnsAfter(2*s, 1, nil))),
			told:   []wantedEvent{{idemflight.EventExecuted, nil, 2 * s, 1, idemflight.Retain}, {kind: idemflight.EventJoined, took: 4 * s}},
			counts: calls{"Executed": 1, "Joined": 1}, ends: calls{"Releases": 1, "Retains": 1}},
		{name: "reconciled: learned nothing", opts: options{Reconcile: finds(3*s, 7, boom)}, arrange: held, call: joined(1, do(probe)),
			told: []wantedEvent{{kind: idemflight.EventRejected, err: idemflight.ErrOutcomeUnknown, took: 2 * s},
				{kind: idemflight.EventRejected, err: idemflight.ErrOutcomeUnknown, took: 3 * s}},
			counts: calls{"OutcomeUnknown": 2}, ends: calls{"Holds": 1}},
		{name: "reconciled: panicked", opts: options{Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) { panic(boom) }}, arrange: held, call: do(probe),
			told:   []wantedEvent{{kind: idemflight.EventRejected, err: boom}},
			counts: calls{"OutcomeUnknown": 1}, ends: calls{"Holds": 1, "Panics": 1}},
		{name: "reconciled: exited", opts: options{Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) { runtime.Goexit(); return 0, nil }}, arrange: held, call: do(probe),
			told:   []wantedEvent{{kind: idemflight.EventRejected, err: idemflight.ErrOutcomeUnknown}},
			counts: calls{"OutcomeUnknown": 1}, ends: calls{"Holds": 1, "Panics": 1}},

		{name: "rejected: reused", arrange: held, call: do(probe, idemflight.WithFingerprint(fingerprint(1))), told: []wantedEvent{{kind: idemflight.EventRejected, err: idemflight.ErrKeyReused}}, counts: calls{"KeyReused": 1}},
		{name: "rejected: reused in flight", call: joined(1, do(returnsAfter(3*s, 1, nil)), idemflight.WithFingerprint(fingerprint(1))),
			told:   []wantedEvent{{idemflight.EventExecuted, nil, 3 * s, 0, idemflight.Retain}, {kind: idemflight.EventRejected, err: idemflight.ErrKeyReused}},
			counts: calls{"Executed": 1, "KeyReused": 1}, ends: calls{"Retains": 1}},
		{name: "rejected: no wait", call: joined(1, do(returnsAfter(3*s, 1, nil)), idemflight.WithMaxWait(idemflight.NoWait)),
			told:   []wantedEvent{{idemflight.EventExecuted, nil, 3 * s, 0, idemflight.Retain}, {kind: idemflight.EventRejected, err: idemflight.ErrInFlight}},
			counts: calls{"Executed": 1, "NotWaited": 1}, ends: calls{"Retains": 1}},
		{name: "rejected: waited long enough", call: joined(1, do(returnsAfter(5*s, 1, nil)), idemflight.WithMaxWait(2*s)),
			told:   []wantedEvent{{idemflight.EventExecuted, nil, 5 * s, 0, idemflight.Retain}, {kind: idemflight.EventRejected, err: idemflight.ErrInFlight, took: 2 * s}},
			counts: calls{"Executed": 1, "NotWaited": 1}, ends: calls{"Retains": 1}},
		{name: "rejected: too many wait", opts: options{MaxWaiters: 1}, call: joined(2, do(returnsAfter(3*s, 1, nil))),
			told:   []wantedEvent{{idemflight.EventExecuted, nil, 3 * s, 1, idemflight.Retain}, {kind: idemflight.EventJoined, took: 2 * s}, {kind: idemflight.EventRejected, err: idemflight.ErrInFlight}},
			counts: calls{"Executed": 1, "Joined": 1, "NotWaited": 1}, ends: calls{"Retains": 1}},
		{name: "rejected: held", arrange: held, call: do(probe), told: []wantedEvent{{kind: idemflight.EventRejected, err: idemflight.ErrOutcomeUnknown}}, counts: calls{"OutcomeUnknown": 1}},
		{name: "rejected: shed", arrange: func(t *testing.T, c *cache) { executes(t, c, "k", tooHeavy) }, call: do(probe),
			told: []wantedEvent{{kind: idemflight.EventRejected, err: idemflight.ErrValueShed}}, counts: calls{"ValueShed": 1}},
		{name: "rejected: full", opts: options{MaxEntries: 1}, arrange: func(t *testing.T, c *cache) { hold(t, c, "other") }, call: do(probe),
			told: []wantedEvent{{kind: idemflight.EventRejected, err: idemflight.ErrFull}}, counts: calls{"Full": 1}},
		{name: "rejected: closed", arrange: func(t *testing.T, c *cache) { require.NoError(t, c.Close(bg)) }, call: do(probe),
			told: []wantedEvent{{kind: idemflight.EventRejected, err: idemflight.ErrClosed}}, counts: calls{"Closed": 1}},
		{name: "rejected: re-entrant", call: func(t *testing.T, c *cache) {
			do(func(ctx context.Context) (int, error) { return c.Do(ctx, "k", probe) })(t, c)
		}, told: []wantedEvent{{idemflight.EventExecuted, idemflight.ErrReentrant, 0, 0, idemflight.Hold}, {kind: idemflight.EventRejected, err: idemflight.ErrReentrant}},
			counts: calls{"Executed": 1, "Reentrant": 1}, ends: calls{"Holds": 1}},
		{name: "rejected: re-entrant, said to be harmless", opts: options{Classify: idemflight.ClassifyLenient}, call: func(t *testing.T, c *cache) {
			do(func(ctx context.Context) (int, error) { return c.Do(ctx, "k", probe) })(t, c)
		}, told: []wantedEvent{{idemflight.EventExecuted, idemflight.ErrReentrant, 0, 0, idemflight.Release}, {kind: idemflight.EventRejected, err: idemflight.ErrReentrant}},
			counts: calls{"Executed": 1, "Reentrant": 1}, ends: calls{"Releases": 1}},
		{name: "rejected: held, in the pause after a Reconcile", opts: options{Reconcile: finds(0, 7, boom)}, arrange: func(t *testing.T, c *cache) {
			hold(t, c, "k")
			_, err := c.Do(bg, "k", probe)
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		}, call: do(probe), told: []wantedEvent{{kind: idemflight.EventRejected, err: boom}}, counts: calls{"OutcomeUnknown": 1}},
		{name: "rejected: the leader may not wait for Reconcile", opts: options{Reconcile: finds(5*s, 7, nil)}, arrange: held, call: do(probe, idemflight.WithMaxWait(idemflight.NoWait)),
			told:   []wantedEvent{{kind: idemflight.EventRejected, err: idemflight.ErrInFlight}, {idemflight.EventFinished, nil, 5 * s, 0, idemflight.Retain}},
			counts: calls{"NotWaited": 1}, ends: calls{"Retains": 1}},
		{name: "rejected: the leader waited long enough for Reconcile", opts: options{Reconcile: finds(5*s, 7, boom)}, arrange: held, call: do(probe, idemflight.WithMaxWait(2*s), idemflight.Inline()),
			told: []wantedEvent{{kind: idemflight.EventRejected, err: idemflight.ErrInFlight, took: 2 * s},
				{idemflight.EventFinished, idemflight.ErrOutcomeUnknown, 5 * s, 0, idemflight.Hold}},
			counts: calls{"NotWaited": 1}, ends: calls{"Holds": 1}},

		{name: "left: dead on arrival", call: func(_ *testing.T, c *cache) { _, _ = c.Do(dead(context.Canceled), "k", probe) }, told: []wantedEvent{{kind: idemflight.EventCallerLeft, err: idemflight.ErrCallerLeft}}, counts: calls{"Left": 1}},
		{name: "left: dead on arrival in flight", call: func(t *testing.T, c *cache) {
			do(func(context.Context) (int, error) { _, _ = c.Do(dead(context.Canceled), "k", probe); return 1, nil })(t, c)
		}, told: []wantedEvent{{idemflight.EventExecuted, nil, 0, 0, idemflight.Retain}, {kind: idemflight.EventCallerLeft, err: idemflight.ErrCallerLeft}},
			counts: calls{"Executed": 1, "Left": 1}, ends: calls{"Retains": 1}},
		{name: "left: joined", call: func(t *testing.T, c *cache) {
			go do(returnsAfter(3*s, 1, nil))(t, c)
			synctest.Wait()
			leave(s, probe)(t, c)
		}, told: []wantedEvent{{idemflight.EventExecuted, nil, 3 * s, 0, idemflight.Retain}, {kind: idemflight.EventCallerLeft, err: context.DeadlineExceeded, took: s}},
			counts: calls{"Executed": 1, "Left": 1}, ends: calls{"Retains": 1}},
		{name: "left: the leader, then finished", call: joined(2, leave(2*s, returnsAfter(5*s, 1, nil))),
			told: []wantedEvent{{kind: idemflight.EventJoined, took: 4 * s}, {kind: idemflight.EventJoined, took: 4 * s},
				{kind: idemflight.EventCallerLeft, err: idemflight.ErrCallerLeft, took: 2 * s}, {idemflight.EventFinished, nil, 5 * s, 2, idemflight.Retain}},
			counts: calls{"Joined": 2, "Left": 1}, ends: calls{"Retains": 1}},
		{name: "left: everybody, then a panic", call: leave(2*s, func(context.Context) (int, error) { time.Sleep(5 * s); panic(boom) }),
			told:   []wantedEvent{{kind: idemflight.EventCallerLeft, err: idemflight.ErrCallerLeft, took: 2 * s}, {idemflight.EventFinished, boom, 5 * s, 0, idemflight.Hold}},
			counts: calls{"Left": 1}, ends: calls{"Holds": 1, "Panics": 1}},
		{name: "left: the leader, then unknown", call: leave(2*s, returnsAfter(5*s, 1, idemflight.Unknown(boom))),
			told:   []wantedEvent{{kind: idemflight.EventCallerLeft, err: idemflight.ErrCallerLeft, took: 2 * s}, {idemflight.EventFinished, idemflight.ErrOutcomeUnknown, 5 * s, 0, idemflight.Hold}},
			counts: calls{"Left": 1}, ends: calls{"Holds": 1}},
		{name: "left: the leader of a Reconcile that finds out", opts: options{Reconcile: finds(5*s, 7, nil)}, arrange: held, call: leave(2*s, probe),
			told:   []wantedEvent{{kind: idemflight.EventCallerLeft, err: idemflight.ErrCallerLeft, took: 2 * s}, {idemflight.EventFinished, nil, 5 * s, 0, idemflight.Retain}},
			counts: calls{"Left": 1}, ends: calls{"Retains": 1}},
		{name: "left: the leader of a Reconcile that learns nothing", opts: options{Reconcile: finds(5*s, 7, boom)}, arrange: held, call: joined(1, leave(2*s, probe)),
			told: []wantedEvent{{kind: idemflight.EventRejected, err: idemflight.ErrOutcomeUnknown, took: 4 * s}, {kind: idemflight.EventCallerLeft, err: idemflight.ErrCallerLeft, took: 2 * s},
				{idemflight.EventFinished, idemflight.ErrOutcomeUnknown, 5 * s, 1, idemflight.Hold}},
			counts: calls{"Left": 1, "OutcomeUnknown": 1}, ends: calls{"Holds": 1}},
		{name: "left: the leader of a Reconcile, so no fn follows", opts: options{Reconcile: finds(5*s, 7, idemflight.Retryable(boom))}, arrange: held, call: leave(2*s, neverRuns(t)),
			told:   []wantedEvent{{kind: idemflight.EventCallerLeft, err: idemflight.ErrCallerLeft, took: 2 * s}, {idemflight.EventFinished, boom, 5 * s, 0, idemflight.Release}},
			counts: calls{"Left": 1}, ends: calls{"Releases": 1}},
		{name: "left: the Inline leader of a Reconcile", opts: options{Reconcile: finds(5*s, 7, idemflight.Retryable(boom))}, arrange: held, call: leave(2*s, neverRuns(t), idemflight.Inline()),
			told:   []wantedEvent{{kind: idemflight.EventCallerLeft, err: idemflight.ErrCallerLeft, took: 2 * s}, {idemflight.EventFinished, boom, 5 * s, 0, idemflight.Release}},
			counts: calls{"Left": 1}, ends: calls{"Releases": 1}},
		{name: "left: the leader of a Reconcile, then the fn of one who waited", opts: options{Reconcile: finds(5*s, 7, idemflight.Retryable(boom))}, arrange: held, call: func(t *testing.T, c *cache) {
			go func() {
				time.Sleep(s)
				_, _ = c.Do(bg, "k", returnsAfter(4*s, 1, nil))
			}()
			leave(2*s, neverRuns(t))(t, c)
		}, told: []wantedEvent{{idemflight.EventExecuted, nil, 4 * s, 0, idemflight.Retain},
			{kind: idemflight.EventCallerLeft, err: idemflight.ErrCallerLeft, took: 2 * s}, {idemflight.EventFinished, boom, 5 * s, 1, idemflight.Release}},
			counts: calls{"Left": 1, "Executed": 1}, ends: calls{"Releases": 1, "Retains": 1}},
		{name: "left: the leader of a Reconcile, then the fn of one with a MaxWait", opts: options{Reconcile: finds(5*s, 7, idemflight.Retryable(boom))}, arrange: held, call: func(t *testing.T, c *cache) {
			go func() {
				time.Sleep(s)
				_, _ = c.Do(bg, "k", returnsAfter(4*s, 1, nil), idemflight.WithMaxWait(5*s), idemflight.WithTTL(0)) // not bounded as it leads
			}()
			leave(2*s, neverRuns(t))(t, c)
		}, told: []wantedEvent{{idemflight.EventExecuted, nil, 4 * s, 0, idemflight.Release},
			{kind: idemflight.EventCallerLeft, err: idemflight.ErrCallerLeft, took: 2 * s}, {idemflight.EventFinished, boom, 5 * s, 1, idemflight.Release}},
			counts: calls{"Left": 1, "Executed": 1}, ends: calls{"Releases": 2}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &eventLog[string]{}
				o := weighted(tc.opts)
				o.Observer = log.observe
				c := idemflight.MustNew(o)
				if tc.arrange != nil {
					tc.arrange(t, c)
				}
				synctest.Wait()
				log.clear()
				before := c.Stats()

				tc.call(t, c)
				time.Sleep(time.Minute)
				synctest.Wait()

				kinds := append(append([]idemflight.EventKind{}, callKinds...), idemflight.EventFinished)
				var got []idemflight.Event[string]
				for _, k := range kinds {
					some := log.of(k)
					slices.SortStableFunc(some, func(a, b idemflight.Event[string]) int { return cmp.Compare(a.Took, b.Took) })
					got = append(got, some...)
				}
				require.Len(t, got, len(tc.told), "events: %v", got)
				for i, w := range tc.told {
					w.check(t, got[i])
				}
				require.Empty(t, log.of(upkeepKinds...))

				after := c.Stats()
				counted := callCounts(after)
				for k, n := range callCounts(before) {
					if counted[k] -= n; counted[k] == 0 {
						delete(counted, k)
					}
				}
				require.Equal(t, tc.counts, counted, "how Stats counts the calls")
				ends := calls{"Retains": after.Retains - before.Retains, "Releases": after.Releases - before.Releases,
					"Holds": after.Holds - before.Holds, "Panics": after.Panics - before.Panics}
				for k, n := range ends {
					require.Equal(t, tc.ends[k], n, "Stats.%s", k)
				}
				require.Zero(t, after.InFlight)
				require.Zero(t, after.Waiters)
			})
		})
	}
}

func TestPromise25_AnInvalidKeyIsToldToo(t *testing.T) {
	log := &eventLog[string]{}
	c := idemflight.MustNew(options{Observer: log.observe})
	_, err := c.Do(bg, "", neverRuns(t))
	require.ErrorIs(t, err, idemflight.ErrInvalidKey)
	require.Len(t, log.all, 1)
	require.Equal(t, idemflight.EventRejected, log.all[0].Kind)
	require.ErrorIs(t, log.all[0].Err, idemflight.ErrInvalidKey)
	require.Equal(t, map[string]uint64{"InvalidKey": 1}, callCounts(c.Stats()))
}

// Event.Err is what the call returned, not what the record keeps, which is fn's own error.
func TestPromise25_TheErrorOfTheCallAndThatOfTheRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		var saw error
		c := idemflight.MustNew(options{Observer: log.observe, Reconcile: func(_ context.Context, _ string, e idemflight.Entry[int]) (int, error) {
			saw = e.Err
			return 0, errors.New("still unknown")
		}})
		_, err := c.Do(bg, "k", returns(0, idemflight.Unknown(errBoom)))
		require.Equal(t, err, log.all[0].Err, "Event.Err is the error that the call returned")
		e, _ := lookup(c, "k")
		require.True(t, e.Err == errBoom, "Entry.Err is the original, got %v", e.Err)
		_, err = c.Do(bg, "k", neverRuns(t))
		require.True(t, saw == errBoom, "what Reconcile sees is the original, got %v", saw)
		require.Equal(t, err, log.all[1].Err)
		ctx, cancel := context.WithCancel(bg)
		cancel()
		_, err = c.Do(ctx, "other", neverRuns(t))
		require.Equal(t, err, log.all[2].Err)
	})
}

// The Observer gets the context of the caller that the event is about, with that caller's values.
func TestPromise25_TheContextOfEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type who struct{}
		as := func(name string) context.Context { return context.WithValue(bg, who{}, name) }
		log := &eventLog[string]{}
		c := idemflight.MustNew(options{TTL: time.Minute, MaxEntries: 2, MinRetention: -1, MaxWeight: 10, Observer: log.observe,
			Weigh: func(_ string, v int) int64 {
				if v == 13 {
					panic("weigh")
				}
				return int64(v)
			}})
		told := func(kind idemflight.EventKind, want ...any) {
			t.Helper()
			synctest.Wait()
			var got []any
			for _, s := range log.seen(kind) {
				got = append(got, s.ctx.Value(who{}))
				if want[0] == nil {
					require.Equal(t, context.Background(), s.ctx,
						"upkeep is reported with the Background context")
				}
			}
			require.ElementsMatch(t, want, got, "whose context the %v events have", kind)
			log.clear()
		}
		go func() {
			time.Sleep(time.Second)
			_, _ = c.Do(as("joiner"), "k", neverRuns(t))
		}()
		_, _ = c.Do(as("leader"), "k", returnsAfter(2*time.Second, 1, nil))
		synctest.Wait()
		joined := log.seen(idemflight.EventJoined)
		require.Len(t, joined, 1)
		require.Equal(t, "joiner", joined[0].ctx.Value(who{}))
		told(idemflight.EventExecuted, "leader")
		_, _ = c.Do(as("replayer"), "k", neverRuns(t))
		told(idemflight.EventReplayed, "replayer")
		_, _ = c.Do(as("other"), "k", neverRuns(t), idemflight.WithFingerprint(fingerprint(1)))
		told(idemflight.EventRejected, "other")
		ctx, cancel := context.WithTimeout(as("leaver"), time.Second)
		defer cancel()
		_, _ = c.Do(ctx, "k2", returnsAfter(2*time.Second, 1, nil))
		left := log.seen(idemflight.EventCallerLeft)
		require.Len(t, left, 1)
		require.Equal(t, "leaver", left[0].ctx.Value(who{}))
		time.Sleep(time.Second)
		synctest.Wait()
		finished := log.seen(idemflight.EventFinished)
		require.Len(t, finished, 1)
		require.NotErrorIs(t, context.Cause(finished[0].ctx), context.DeadlineExceeded,
			"fn's context has not the leader's end")
		told(idemflight.EventFinished, "leaver")

		_, _ = c.Do(as("evictor"), "k3", returns(1, nil))
		told(idemflight.EventEvicted, nil)
		_, _ = c.Do(as("shedder"), "k4", returns(11, nil))
		told(idemflight.EventShed, nil)
		_, _ = c.Do(as("weigher"), "k5", returns(13, nil))
		require.Len(t, log.seen(idemflight.EventPanicked), 1)
		_, _ = c.Do(as("brief"), "k6", returns(1, nil), idemflight.WithTTL(1))
		time.Sleep(time.Nanosecond)
		log.clear()
		_, _ = c.Do(as("overwriter"), "k6", returns(1, nil))
		told(idemflight.EventExpired, nil)
		did, err := c.Forget(as("forgetter"), "k6")
		require.NoError(t, err)
		require.True(t, did)
		told(idemflight.EventForgotten, "forgetter")
		hold(t, c, "k7")
		require.NoError(t, c.Resolve(as("resolver"), "k7", 1, nil))
		told(idemflight.EventResolved, "resolver")
		time.Sleep(time.Hour)
		synctest.Wait()
		for _, s := range log.seen(idemflight.EventExpired) {
			require.Equal(t, context.Background(), s.ctx)
		}
	})
}

// The events of a leader that leaves, and of one whose Reconcile learned nothing, say how long it
// waited.
func TestEvents_TookOfALeaderThatLeftOrLearnedNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var took [idemflight.EventPanicked + 1]time.Duration
		c := idemflight.MustNew(options{
			Observer: func(_ context.Context, e idemflight.Event[string]) { took[e.Kind] = e.Took },
			Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
				time.Sleep(3 * time.Second)
				return 0, idemflight.Unknown(errBoom)
			},
		})
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(bg, 2*time.Second)
		defer cancel()
		_, err := c.Do(ctx, "k", returnsAfter(time.Hour, 0, idemflight.Unknown(errBoom)))
		require.ErrorIs(t, err, idemflight.ErrCallerLeft)
		require.Equal(t, 2*time.Second, took[idemflight.EventCallerLeft])
		time.Sleep(time.Hour)
		_, err = c.Do(bg, "k", neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.Equal(t, 3*time.Second, took[idemflight.EventRejected])
	})
}

// A record that expires is reported once, whatever comes across it: the timer, a call for its key,
// a call that needs its place, a method that counts.
func TestPromise25_EachExpiredRecordIsToldOnce(t *testing.T) {
	finders := map[string]func(t *testing.T, c *cache){
		"timer": func(*testing.T, *cache) {},
		"Do": func(t *testing.T, c *cache) {
			executes(t, c, "retained", 9)
			executes(t, c, "held", 9)
			executes(t, c, "shed", 9)
		},
		"a new key": func(t *testing.T, c *cache) {
			executes(t, c, "n1", 1)
			executes(t, c, "n2", 1)
			executes(t, c, "n3", 1)
		},
		"Restore": func(t *testing.T, c *cache) {
			require.NoError(t, c.Restore(bg, "held", retainedEntry(1, time.Now().Add(time.Hour))))
		},
		"Len":        func(_ *testing.T, c *cache) { c.Len(); c.Len() },
		"Stats":      func(_ *testing.T, c *cache) { c.Stats() },
		"Lookup":     func(_ *testing.T, c *cache) { lookup(c, "held") },
		"All":        func(_ *testing.T, c *cache) { entries(c) },
		"Forget":     func(t *testing.T, c *cache) { require.False(t, forget(c, "held")) },
		"Resolve":    func(t *testing.T, c *cache) { require.False(t, resolve(c, "held", 1, nil)) },
		"dead calls": func(_ *testing.T, c *cache) { _, _ = c.Do(dead(context.Canceled), "held", probe) },
		"closed": func(t *testing.T, c *cache) {
			end := fly(t, c, "held")
			_, _ = end(0, idemflight.Retryable(errBoom))
		},
	}
	for name, find := range finders {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &eventLog[string]{}
				c := idemflight.MustNew(weighted(options{TTL: time.Minute, HoldTTL: time.Minute, MaxEntries: 3, MinRetention: time.Minute, Observer: log.observe}))
				executes(t, c, "retained", 1)
				hold(t, c, "held")
				executes(t, c, "shed", tooHeavy)
				time.Sleep(time.Minute)
				find(t, c)
				if name != "Do" && name != "a new key" && name != "Restore" {
					time.Sleep(reclaimDelay(time.Minute))
				}
				synctest.Wait()
				told := log.of(idemflight.EventExpired)
				seen := map[string]int{}
				for _, e := range told {
					seen[e.Key]++
					if e.Key == "held" {
						require.ErrorIs(t, e.Err, idemflight.ErrOutcomeUnknown,
							"a held key has expired")
					} else {
						require.NoError(t, e.Err, "%s has expired", e.Key)
					}
				}
				if name == "Restore" {
					require.Equal(t, 1, seen["held"])
					time.Sleep(2 * time.Hour)
					synctest.Wait()
					require.Len(t, log.of(idemflight.EventExpired), 4,
						"three, and the restored one")
					return
				}
				require.Equal(t, map[string]int{"retained": 1, "held": 1, "shed": 1}, seen,
					"expired records that were told")
				require.EqualValues(t, 3, c.Stats().Expired)
				require.Empty(t, log.of(idemflight.EventEvicted))
			})
		})
	}
}

// A caller that waits for a Reconcile, and then for another caller that leads, waited for both.
func TestPromise25_TookOfACallThatLooksAgainIsAllItWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(options{Observer: log.observe, Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
			time.Sleep(5 * time.Second)
			return 0, idemflight.Retryable(errBoom)
		}})
		time.Sleep(time.Minute) // from now on no time of the cache is 0
		hold(t, c, theKey)
		go func() { _, _ = c.Reconcile(bg, theKey) }()
		synctest.Wait()
		for range 2 {
			start(c, bg, theKey, returnsAfter(4*time.Second, 1, nil))
		}
		time.Sleep(10 * time.Second)
		took := map[idemflight.EventKind]time.Duration{}
		for _, e := range log.seen() {
			took[e.Kind] = e.Took
		}
		require.Equal(t, 9*time.Second, took[idemflight.EventJoined], "what the caller that joined waited in all")
		require.Equal(t, 4*time.Second, took[idemflight.EventExecuted], "what the execution took")
	})
}

// It has waited, and then is refused.
func TestPromise25_TookOfACallThatIsRefusedAfterAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(options{Observer: log.observe, Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
			time.Sleep(5 * time.Second)
			return 0, idemflight.Retryable(errBoom)
		}})
		time.Sleep(time.Minute)
		hold(t, c, theKey)
		go func() { _, _ = c.Reconcile(bg, theKey) }()
		synctest.Wait()
		call := start(c, bg, theKey, neverRuns(t))
		time.Sleep(time.Second)
		require.NoError(t, c.Close(bg))
		<-call.done
		require.ErrorIs(t, call.err, idemflight.ErrClosed)
		told := log.of(idemflight.EventRejected)
		require.Len(t, told, 1)
		require.Equal(t, 5*time.Second, told[0].Took)
	})
}

func TestPromise25_OperatorsAreNoCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(weighted(options{Observer: log.observe}))
		executes(t, c, "a", 1)
		executes(t, c, "s", tooHeavy)
		hold(t, c, "h1")
		hold(t, c, "h2")
		hold(t, c, "h3")
		before := c.Stats()
		log.clear()
		require.True(t, forget(c, "a"))
		require.True(t, forget(c, "s"))
		require.True(t, forget(c, "h1"))
		require.False(t, forget(c, "h1"))
		require.True(t, resolve(c, "h2", 1, nil))
		require.True(t, resolve(c, "h3", 1, idemflight.Retryable(errBoom)))
		require.False(t, resolve(c, "h2", 1, nil))
		require.NoError(t, c.Restore(bg, "r", retainedEntry(1, time.Now().Add(time.Hour))))
		require.Error(t, c.Restore(bg, "r", retainedEntry(1, time.Now().Add(time.Hour))))
		synctest.Wait()
		var told []string
		for _, e := range log.all {
			told = append(told, fmt.Sprint(e.Kind, " ", e.Key, " ", e.Disposition))
		}
		require.Equal(t, []string{"forgotten a release", "forgotten s release", "forgotten h1 release", "resolved h2 retain",
			"resolved h3 release"}, told, "an event for each that acted")
		after := c.Stats()
		require.Equal(t, callCounts(before), callCounts(after), "none of them is a call")
		require.Equal(t, []uint64{before.Retains, before.Releases, before.Holds}, []uint64{after.Retains, after.Releases, after.Holds}, "nor an execution")
	})
}

func TestPromise25_ObserversMayCallTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c *cache
		var told sync.Map
		var nested atomic.Bool // an Observer sees the events of its own calls, too
		c = idemflight.MustNew(options{TTL: time.Minute, MaxEntries: 3, MinRetention: -1, MaxWeight: 10,
			Weigh: func(k string, v int) int64 {
				if v == 13 {
					panic("weigh")
				}
				return int64(v)
			},
			Observer: func(ctx context.Context, e idemflight.Event[string]) {
				told.Store(e.Kind, true)
				if !nested.CompareAndSwap(false, true) {
					return
				}
				defer nested.Store(false)
				c.Stats()
				c.Len()
				entries(c)
				lookup(c, e.Key)
				resolve(c, e.Key, 1, nil)
				inner := e.Key + " of a call by the Observer"
				_, _ = c.Do(bg, inner, returns(0, nil))
				_, _ = c.Do(bg, e.Key, probe, idemflight.WithMaxWait(idemflight.NoWait), idemflight.WithFingerprint(fingerprint(200)))
				forget(c, inner)
				_ = c.Restore(bg, inner, retainedEntry(0, time.Now().Add(time.Second)))
				forget(c, inner)
			}})
		end := fly(t, c, "k")
		go func() { _, _ = c.Do(bg, "k", neverRuns(t)) }()
		synctest.Wait()
		_, _ = end(1, nil)
		_, _ = c.Do(bg, "k", probe)
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		_, _ = c.Do(ctx, "left", returnsAfter(2*time.Second, 1, nil))
		_, _ = c.Do(bg, "", probe)
		for i := range 10 {
			executes(t, c, keyNo(i), 6)
		}
		executes(t, c, "heavy", 11)
		executes(t, c, "weigh", 13)
		time.Sleep(time.Hour)
		synctest.Wait()
		for _, k := range append(append([]idemflight.EventKind{idemflight.EventFinished}, upkeepKinds...), callKinds...) {
			if _, ok := told.Load(k); !ok && k != idemflight.EventReconciled {
				t.Errorf("the test itself: no %v event", k)
			}
		}
		require.Zero(t, c.Stats().InFlight)
	})
}

// Once: the leader reported what it had evicted before its flight began, and an Observer that
// then called the cache waited for a flight that waited for the Observer.
func TestObserver_OfUpkeepMayWaitForTheFlight(t *testing.T) {
	for name, option := range map[string][]idemflight.CallOption{"leaving": nil, "inline": {idemflight.Inline()}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c *cache
				var told int
				c = idemflight.MustNew(options{
					TTL: time.Minute, MaxEntries: 1, MinRetention: -1,
					Observer: func(_ context.Context, e idemflight.Event[string]) {
						if e.Kind == idemflight.EventExpired || e.Kind == idemflight.EventEvicted {
							told++
							v, err := c.Do(bg, "b", one)
							require.NoError(t, err)
							require.Equal(t, 2, v,
								"the Observer joins the flight, or gets its outcome")
						}
					},
				})
				ctx, cancel := context.WithCancel(bg)
				defer cancel()
				_, err := c.Do(ctx, "a", one)
				require.NoError(t, err)
				v, err := c.Do(ctx, "b", returns(2, nil), option...)
				require.NoError(t, err)
				require.Equal(t, 2, v)
				require.Equal(t, 1, told, "the eviction was told before the call returned")
			})
		})
	}
}

func TestPromise25_AFailingObserverIsContained(t *testing.T) {
	for name, fail := range map[string]func(){"panic": func() { panic("observer") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var failing atomic.Bool
				var told atomic.Int32
				failing.Store(true)
				c := idemflight.MustNew(weighted(options{TTL: time.Minute, MaxEntries: 4, MinRetention: -1, Observer: func(context.Context, idemflight.Event[string]) {
					told.Add(1)
					if failing.Load() {
						fail()
					}
				}}))
				var answered atomic.Int32
				ask := func(n int, call func()) { // on a goroutine of its own, which a Goexit may take along
					t.Helper()
					before := answered.Load()
					for range n {
						go func() { call(); answered.Add(1) }()
					}
					synctest.Wait()
					time.Sleep(10 * time.Second)
					synctest.Wait()
					if name == "panic" {
						require.Equal(t, before+int32(n), answered.Load(), "every call returns")
					}
				}
				ok := func(v int, want int, err error) {
					if err != nil || v != want {
						t.Errorf("got (%d, %v), expected (%d, nil): an Observer's failure is not the caller's", v, err, want)
					}
				}
				ask(3, func() {
					v, err := c.Do(bg, "k", returnsAfter(time.Second, 1, nil))
					ok(v, 1, err)
				})
				ask(1, func() {
					v, err := c.Do(bg, "k", probe)
					ok(v, 1, err)
				})
				ask(1, func() {
					ctx, cancel := context.WithTimeout(bg, time.Second)
					defer cancel()
					_, _ = c.Do(ctx, "left", returnsAfter(2*time.Second, 2, nil))
				})
				ask(1, func() { _, _ = c.Do(bg, "", probe) })
				for i := range 6 {
					ask(1, func() {
						v, err := c.Do(bg, keyNo(i), returns(i, nil))
						ok(v, i, err)
					})
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				st := c.Stats()
				require.EqualValues(t, told.Load(), st.HookPanics, "each failure is counted")
				require.EqualValues(t, 12, st.HookPanics-st.Evicted-st.Expired-st.Shed-1,
					"each event was told: one per call, those of upkeep, one Finished; %+v", st)
				require.Zero(t, st.Panics)
				require.Zero(t, st.InFlight)
				require.Zero(t, st.Waiters)
				failing.Store(false)
				executes(t, c, "k", 9)
				require.Equal(t, 9, replays(t, c, "k"))
			})
		})
	}
}

// Without failing hooks the calls in Stats, the call events and the calls are one number, and so
// are the executions and their dispositions.
func TestPromise25_TheSumIsTheNumberOfCalls(t *testing.T) {
	var told [16]atomic.Uint64
	var c *idemflight.Cache[int, int]
	var executions, panics, calls atomic.Uint64
	c = idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: 20, MinRetention: -1, TTL: time.Hour, HoldTTL: 50 * time.Microsecond, MaxWaiters: 2, MaxWeight: 30,
		Weigh:    func(_, v int) int64 { return int64(v) },
		Observer: func(_ context.Context, e idemflight.Event[int]) { told[e.Kind].Add(1) },
		Reconcile: func(_ context.Context, k int, _ idemflight.Entry[int]) (int, error) {
			executions.Add(1)
			if k%5 == 0 {
				panics.Add(1)
				panic("reconcile")
			}
			return 1, []error{nil, errBoom, idemflight.Retryable(errBoom)}[k%3]
		}})
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(25, uint64(g)))
			for range 800 {
				k, how, v := rng.IntN(40), rng.IntN(16), rng.IntN(40) // fn may outlive the call, and so asks rng nothing
				ctx, cancel := context.WithCancel(bg)
				fn := func(ctx context.Context) (int, error) {
					executions.Add(1)
					if how%2 == 0 {
						runtime.Gosched()
					}
					switch how {
					case 0, 1:
						return 0, idemflight.Unknown(errBoom)
					case 2:
						return 0, idemflight.Retryable(errBoom)
					case 3:
						panics.Add(1)
						panic("fn")
					case 4:
						cancel()
					case 5:
						calls.Add(1)
						return c.Do(ctx, k, probe)
					}
					return v, nil
				}
				var opts []idemflight.CallOption
				switch how {
				case 6:
					opts = append(opts, idemflight.WithMaxWait(idemflight.NoWait))
				case 7:
					opts = append(opts, idemflight.WithFingerprint(fingerprint(1)))
				case 8:
					opts = append(opts, idemflight.WithTTL(0))
				case 9:
					opts = append(opts, idemflight.Inline())
				case 10:
					cancel()
				}
				calls.Add(1)
				_ = panicOf(func() { _, _ = c.Do(ctx, k, fn, opts...) })
				cancel()
			}
		})
	}
	wg.Wait()
	require.NoError(t, c.Close(bg))
	calls.Add(1)
	_, err := c.Do(bg, 99_999, probe)
	require.ErrorIs(t, err, idemflight.ErrClosed)
	require.NoError(t, c.Close(bg))

	st := c.Stats()
	for range 1_000_000 { // a timer that was reclaiming, and a flight whose callers have left, tell what they have counted
		if st.Expired == told[idemflight.EventExpired].Load() && st.Shed == told[idemflight.EventShed].Load() {
			break
		}
		runtime.Gosched()
		st = c.Stats()
	}
	require.Equal(t, calls.Load(), sumOfCalls(st),
		"the sum of the calls in Stats is the number of calls: %+v", st)
	sum := uint64(0)
	for _, k := range callKinds {
		sum += told[k].Load()
	}
	require.Equal(t, calls.Load(), sum, "call events")
	require.Equal(t, st.Executed, told[idemflight.EventExecuted].Load())
	require.Equal(t, st.Joined, told[idemflight.EventJoined].Load())
	require.Equal(t, st.Replayed, told[idemflight.EventReplayed].Load())
	require.Equal(t, st.Reconciled, told[idemflight.EventReconciled].Load())
	require.Equal(t, st.CallerLeft, told[idemflight.EventCallerLeft].Load())
	require.Equal(t, executions.Load(), st.Retains+st.Releases+st.Holds, "executions that ended")
	require.Equal(t, panics.Load(), st.Panics)
	require.Equal(t, st.Evicted, told[idemflight.EventEvicted].Load())
	require.Equal(t, st.Expired, told[idemflight.EventExpired].Load())
	require.Equal(t, st.Shed, told[idemflight.EventShed].Load())
	require.Zero(t, st.InFlight)
	require.Zero(t, st.Waiters)
	require.Zero(t, st.HookPanics)
	for name, n := range map[string]uint64{"Executed": st.Executed, "Replayed": st.Replayed, "KeyReused": st.KeyReused,
		"Left": st.CallerLeft, "Reentrant": st.Reentrant, "Evicted": st.Evicted, "Shed": st.Shed} {
		require.Positive(t, n, "the test itself: Stats.%s", name)
	}
}

// A caller that left is told as that, whatever ended its context: here the ErrInFlight of another call.
func TestPromise25_ACallerThatLeftIsToldAsThat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(options{Observer: log.observe})
		end := fly(t, c, theKey)
		ctx, cancel := context.WithCancelCause(bg)
		joined := start(c, ctx, theKey, neverRuns(t))
		synctest.Wait()
		cancel(fmt.Errorf("another item: %w", idemflight.ErrInFlight))
		<-joined.done
		require.ErrorIs(t, joined.err, idemflight.ErrCallerLeft)
		require.Len(t, log.of(idemflight.EventCallerLeft), 1)
		require.Empty(t, log.of(idemflight.EventRejected))
		require.EqualValues(t, 1, c.Stats().CallerLeft)
		_, _ = end(1, nil)
	})
}

func TestStats_Now(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
			time.Sleep(time.Second)
			return 1, nil
		}})
		require.Equal(t, idemflight.Stats{}, c.Stats())
		end := fly(t, c, "k")
		ctx, cancel := context.WithCancel(bg)
		for range 3 {
			go func() { _, _ = c.Do(ctx, "k", neverRuns(t)) }()
			go func() { _, _ = c.Do(bg, "k", neverRuns(t)) }()
		}
		synctest.Wait()
		require.Equal(t, idemflight.Stats{InFlight: 1, Waiters: 6}, c.Stats())
		cancel()
		synctest.Wait()
		require.Equal(t, idemflight.Stats{InFlight: 1, Waiters: 3, CallerLeft: 3}, c.Stats())
		hold(t, c, "h")
		require.Equal(t, idemflight.Stats{InFlight: 1, Waiters: 3, CallerLeft: 3, Executed: 1, Holds: 1, Entries: 1, Held: 1}, c.Stats())
		go func() { _, _ = c.Do(bg, "h", neverRuns(t)) }()
		synctest.Wait()
		require.Equal(t, idemflight.Stats{InFlight: 2, Waiters: 3, CallerLeft: 3, Executed: 1, Holds: 1}, c.Stats(), "a held key whose Reconcile runs is in flight")
		_, _ = end(1, nil)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, idemflight.Stats{CallerLeft: 3, Executed: 2, Joined: 3, Reconciled: 1, Holds: 1, Retains: 2, Entries: 2}, c.Stats())
	})
}
