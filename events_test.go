package idemflight_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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

// ttTold is what a test expects of an event: err is one that Event.Err is, nil for none.
type ttTold struct {
	kind    idemflight.EventKind
	err     error
	took    time.Duration
	waiters int
	disp    idemflight.Disposition
}

func (w ttTold) check(t *testing.T, e idemflight.Event[string]) {
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

func ttSlow(d time.Duration, v int, err error) func(context.Context) (int, error) {
	return func(context.Context) (int, error) { time.Sleep(d); return v, err }
}

// The ways for calls to end. Each is asked on a cache of its own, for key "k"; arrange's calls do
// not count.
func TestPromise25_OneEventAndOneCountPerCall(t *testing.T) {
	const s = time.Second
	type calls = map[string]uint64
	type reconcile = func(context.Context, string, idemflight.Entry[int]) (int, error)
	hold := func(t *testing.T, c *ttCache) { ttHold(t, c, "k") }
	boom := errors.New("boom")
	finds := func(d time.Duration, v int, err error) reconcile {
		return func(context.Context, string, idemflight.Entry[int]) (int, error) { time.Sleep(d); return v, err }
	}
	do := func(fn func(context.Context) (int, error), opts ...idemflight.CallOption) func(t *testing.T, c *ttCache) {
		return func(t *testing.T, c *ttCache) { _, _ = c.Do(ttBg, "k", fn, opts...) }
	}
	// joined adds n callers that join a second after the leader has begun.
	joined := func(n int, lead func(t *testing.T, c *ttCache), opts ...idemflight.CallOption) func(t *testing.T, c *ttCache) {
		return func(t *testing.T, c *ttCache) {
			for range n {
				go func() {
					time.Sleep(s)
					_, _ = c.Do(ttBg, "k", ttNever(t), opts...)
				}()
			}
			lead(t, c)
		}
	}
	leave := func(after time.Duration, fn func(context.Context) (int, error)) func(t *testing.T, c *ttCache) {
		return func(t *testing.T, c *ttCache) {
			ctx, cancel := context.WithTimeout(ttBg, after)
			defer cancel()
			_, err := c.Do(ctx, "k", fn)
			require.ErrorIs(t, err, idemflight.ErrLeft)
		}
	}
	panicking := func(lead func(t *testing.T, c *ttCache)) func(t *testing.T, c *ttCache) {
		return func(t *testing.T, c *ttCache) {
			require.NotNil(t, ttPanics(func() { lead(t, c) }), "the leader re-panics")
		}
	}
	exiting := func(lead func(t *testing.T, c *ttCache)) func(t *testing.T, c *ttCache) {
		return func(t *testing.T, c *ttCache) { go lead(t, c) }
	}

	cases := []struct {
		name    string
		opts    ttOptions
		arrange func(t *testing.T, c *ttCache)
		call    func(t *testing.T, c *ttCache)
		told    []ttTold // in the order of their kinds, and of Took
		counts  calls
		ends    calls // Retains, Releases, Holds, Panics
	}{
		{name: "executed", call: do(ttSlow(3*s, 1, nil)), told: []ttTold{{idemflight.EventExecuted, nil, 3 * s, 0, idemflight.Retain}},
			counts: calls{"Executed": 1}, ends: calls{"Retains": 1}},
		{name: "executed inline", call: do(ttSlow(3*s, 1, nil), idemflight.Inline()), told: []ttTold{{idemflight.EventExecuted, nil, 3 * s, 0, idemflight.Retain}},
			counts: calls{"Executed": 1}, ends: calls{"Retains": 1}},
		{name: "executed, nothing kept", call: do(ttSlow(3*s, 1, nil), idemflight.WithTTL(0)), told: []ttTold{{idemflight.EventExecuted, nil, 3 * s, 0, idemflight.Release}},
			counts: calls{"Executed": 1}, ends: calls{"Releases": 1}},
		{name: "executed, final", call: do(ttSlow(3*s, 1, idemflight.Final(boom))), told: []ttTold{{idemflight.EventExecuted, boom, 3 * s, 0, idemflight.Retain}},
			counts: calls{"Executed": 1}, ends: calls{"Retains": 1}},
		{name: "executed, retryable", call: do(ttSlow(3*s, 1, idemflight.Retryable(boom))), told: []ttTold{{idemflight.EventExecuted, boom, 3 * s, 0, idemflight.Release}},
			counts: calls{"Executed": 1}, ends: calls{"Releases": 1}},
		{name: "executed, unknown", call: do(ttSlow(3*s, 1, idemflight.Unknown(boom))), told: []ttTold{{idemflight.EventExecuted, idemflight.ErrOutcomeUnknown, 3 * s, 0, idemflight.Hold}},
			counts: calls{"Executed": 1}, ends: calls{"Holds": 1}},
		{name: "executed, forgotten", call: func(t *testing.T, c *ttCache) {
			do(func(context.Context) (int, error) { c.Forget("k"); return 1, nil })(t, c)
		}, told: []ttTold{{idemflight.EventExecuted, nil, 0, 0, idemflight.Release}}, counts: calls{"Executed": 1}, ends: calls{"Releases": 1}},
		{name: "executed, panicked", call: panicking(do(func(context.Context) (int, error) { time.Sleep(s); panic(boom) })),
			told: []ttTold{{idemflight.EventExecuted, boom, s, 0, idemflight.Hold}}, counts: calls{"Executed": 1}, ends: calls{"Holds": 1, "Panics": 1}},
		{name: "executed elsewhere, panicked", call: panicking(func(_ *testing.T, c *ttCache) {
			ctx, cancel := context.WithCancel(ttBg)
			defer cancel()
			_, _ = c.Do(ctx, "k", func(context.Context) (int, error) { time.Sleep(s); panic(boom) })
		}), told: []ttTold{{idemflight.EventExecuted, boom, s, 0, idemflight.Hold}}, counts: calls{"Executed": 1}, ends: calls{"Holds": 1, "Panics": 1}},
		{name: "executed, exited", call: exiting(do(func(context.Context) (int, error) { time.Sleep(s); runtime.Goexit(); return 0, nil })),
			told: []ttTold{{idemflight.EventExecuted, idemflight.ErrGoexit, s, 0, idemflight.Hold}}, counts: calls{"Executed": 1}, ends: calls{"Holds": 1, "Panics": 1}},
		{name: "executed elsewhere, exited", call: func(t *testing.T, c *ttCache) {
			ctx, cancel := context.WithCancel(ttBg)
			defer cancel()
			_, err := c.Do(ctx, "k", func(context.Context) (int, error) { time.Sleep(s); runtime.Goexit(); return 0, nil })
			require.ErrorIs(t, err, idemflight.ErrGoexit)
		}, told: []ttTold{{idemflight.EventExecuted, idemflight.ErrGoexit, s, 0, idemflight.Hold}}, counts: calls{"Executed": 1}, ends: calls{"Holds": 1, "Panics": 1}},
		{name: "executed, panicked, nothing begun", call: panicking(do(func(ctx context.Context) (int, error) { idemflight.NoEffect(ctx); panic(boom) })),
			told: []ttTold{{idemflight.EventExecuted, boom, 0, 0, idemflight.Release}}, counts: calls{"Executed": 1}, ends: calls{"Releases": 1, "Panics": 1}},

		{name: "joined", call: joined(2, do(ttSlow(3*s, 1, nil))), told: []ttTold{{idemflight.EventExecuted, nil, 3 * s, 2, idemflight.Retain},
			{kind: idemflight.EventJoined, took: 2 * s}, {kind: idemflight.EventJoined, took: 2 * s}}, counts: calls{"Executed": 1, "Joined": 2}, ends: calls{"Retains": 1}},
		{name: "joined, retryable", call: joined(1, do(ttSlow(3*s, 1, idemflight.Retryable(boom)))), told: []ttTold{{idemflight.EventExecuted, boom, 3 * s, 1, idemflight.Release},
			{kind: idemflight.EventJoined, err: boom, took: 2 * s}}, counts: calls{"Executed": 1, "Joined": 1}, ends: calls{"Releases": 1}},
		{name: "joined, unknown", call: joined(1, do(ttSlow(3*s, 1, idemflight.Unknown(boom)))), told: []ttTold{{idemflight.EventExecuted, idemflight.ErrOutcomeUnknown, 3 * s, 1, idemflight.Hold},
			{kind: idemflight.EventJoined, err: idemflight.ErrOutcomeUnknown, took: 2 * s}}, counts: calls{"Executed": 1, "Joined": 1}, ends: calls{"Holds": 1}},
		{name: "joined, panicked", call: joined(1, panicking(do(func(context.Context) (int, error) { time.Sleep(3 * s); panic(boom) }))),
			told:   []ttTold{{idemflight.EventExecuted, boom, 3 * s, 1, idemflight.Hold}, {kind: idemflight.EventJoined, err: boom, took: 2 * s}},
			counts: calls{"Executed": 1, "Joined": 1}, ends: calls{"Holds": 1, "Panics": 1}},

		{name: "replayed", arrange: func(t *testing.T, c *ttCache) { ttRuns(t, c, "k", 1) }, call: do(ttProbe), told: []ttTold{{kind: idemflight.EventReplayed}}, counts: calls{"Replayed": 1}},
		{name: "replayed, final", arrange: do(ttFail(idemflight.Final(boom))), call: do(ttProbe), told: []ttTold{{kind: idemflight.EventReplayed, err: boom}}, counts: calls{"Replayed": 1}},

		{name: "reconciled", opts: ttOptions{Reconcile: finds(3*s, 7, nil)}, arrange: hold, call: joined(1, do(ttProbe)),
			told:   []ttTold{{kind: idemflight.EventJoined, took: 2 * s}, {idemflight.EventReconciled, nil, 3 * s, 1, idemflight.Retain}},
			counts: calls{"Reconciled": 1, "Joined": 1}, ends: calls{"Retains": 1}},
		{name: "reconciled, final", opts: ttOptions{Reconcile: finds(3*s, 7, idemflight.Final(boom))}, arrange: hold, call: do(ttProbe),
			told:   []ttTold{{idemflight.EventReconciled, boom, 3 * s, 0, idemflight.Retain}},
			counts: calls{"Reconciled": 1}, ends: calls{"Retains": 1}},
		{name: "reconciled, forgotten", opts: ttOptions{Reconcile: finds(3*s, 7, nil)}, arrange: hold, call: func(t *testing.T, c *ttCache) {
			go func() { time.Sleep(s); c.Forget("k") }()
			do(ttProbe)(t, c)
		}, told: []ttTold{{idemflight.EventReconciled, nil, 3 * s, 0, idemflight.Release}}, counts: calls{"Reconciled": 1}, ends: calls{"Releases": 1}},
		{name: "reconciled: no effect, then executed", opts: ttOptions{Reconcile: finds(3*s, 7, idemflight.Retryable(boom))}, arrange: hold, call: joined(1, do(ttSlow(2*s, 1, nil))),
			told:   []ttTold{{idemflight.EventExecuted, nil, 2 * s, 1, idemflight.Retain}, {kind: idemflight.EventJoined, took: 4 * s}},
			counts: calls{"Executed": 1, "Joined": 1}, ends: calls{"Releases": 1, "Retains": 1}},
		{name: "reconciled: learned nothing", opts: ttOptions{Reconcile: finds(3*s, 7, boom)}, arrange: hold, call: joined(1, do(ttProbe)),
			told: []ttTold{{kind: idemflight.EventRejected, err: idemflight.ErrOutcomeUnknown, took: 2 * s},
				{kind: idemflight.EventRejected, err: idemflight.ErrOutcomeUnknown, took: 3 * s}},
			counts: calls{"OutcomeUnknown": 2}, ends: calls{"Holds": 1}},
		{name: "reconciled: panicked", opts: ttOptions{Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) { panic(boom) }}, arrange: hold, call: do(ttProbe),
			told:   []ttTold{{kind: idemflight.EventRejected, err: boom}},
			counts: calls{"OutcomeUnknown": 1}, ends: calls{"Holds": 1, "Panics": 1}},
		{name: "reconciled: exited", opts: ttOptions{Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) { runtime.Goexit(); return 0, nil }}, arrange: hold, call: do(ttProbe),
			told:   []ttTold{{kind: idemflight.EventRejected, err: idemflight.ErrOutcomeUnknown}},
			counts: calls{"OutcomeUnknown": 1}, ends: calls{"Holds": 1, "Panics": 1}},

		{name: "rejected: reused", arrange: hold, call: do(ttProbe, idemflight.WithFingerprint(ttFp(1))), told: []ttTold{{kind: idemflight.EventRejected, err: idemflight.ErrKeyReused}}, counts: calls{"KeyReused": 1}},
		{name: "rejected: reused in flight", call: joined(1, do(ttSlow(3*s, 1, nil)), idemflight.WithFingerprint(ttFp(1))),
			told:   []ttTold{{idemflight.EventExecuted, nil, 3 * s, 0, idemflight.Retain}, {kind: idemflight.EventRejected, err: idemflight.ErrKeyReused}},
			counts: calls{"Executed": 1, "KeyReused": 1}, ends: calls{"Retains": 1}},
		{name: "rejected: no wait", call: joined(1, do(ttSlow(3*s, 1, nil)), idemflight.WithMaxWait(idemflight.NoWait)),
			told:   []ttTold{{idemflight.EventExecuted, nil, 3 * s, 0, idemflight.Retain}, {kind: idemflight.EventRejected, err: idemflight.ErrInFlight}},
			counts: calls{"Executed": 1, "NotWaited": 1}, ends: calls{"Retains": 1}},
		{name: "rejected: waited long enough", call: joined(1, do(ttSlow(5*s, 1, nil)), idemflight.WithMaxWait(2*s)),
			told:   []ttTold{{idemflight.EventExecuted, nil, 5 * s, 0, idemflight.Retain}, {kind: idemflight.EventRejected, err: idemflight.ErrInFlight, took: 2 * s}},
			counts: calls{"Executed": 1, "NotWaited": 1}, ends: calls{"Retains": 1}},
		{name: "rejected: too many wait", opts: ttOptions{MaxWaiters: 1}, call: joined(2, do(ttSlow(3*s, 1, nil))),
			told:   []ttTold{{idemflight.EventExecuted, nil, 3 * s, 1, idemflight.Retain}, {kind: idemflight.EventJoined, took: 2 * s}, {kind: idemflight.EventRejected, err: idemflight.ErrInFlight}},
			counts: calls{"Executed": 1, "Joined": 1, "NotWaited": 1}, ends: calls{"Retains": 1}},
		{name: "rejected: held", arrange: hold, call: do(ttProbe), told: []ttTold{{kind: idemflight.EventRejected, err: idemflight.ErrOutcomeUnknown}}, counts: calls{"OutcomeUnknown": 1}},
		{name: "rejected: shed", arrange: func(t *testing.T, c *ttCache) { ttRuns(t, c, "k", ttHeavy) }, call: do(ttProbe),
			told: []ttTold{{kind: idemflight.EventRejected, err: idemflight.ErrValueShed}}, counts: calls{"ValueShed": 1}},
		{name: "rejected: full", opts: ttOptions{MaxEntries: 1}, arrange: func(t *testing.T, c *ttCache) { ttHold(t, c, "other") }, call: do(ttProbe),
			told: []ttTold{{kind: idemflight.EventRejected, err: idemflight.ErrFull}}, counts: calls{"Full": 1}},
		{name: "rejected: closed", arrange: func(t *testing.T, c *ttCache) { require.NoError(t, c.Close(ttBg)) }, call: do(ttProbe),
			told: []ttTold{{kind: idemflight.EventRejected, err: idemflight.ErrClosed}}, counts: calls{"Closed": 1}},
		{name: "rejected: re-entrant", call: func(t *testing.T, c *ttCache) {
			do(func(ctx context.Context) (int, error) { return c.Do(ctx, "k", ttProbe) })(t, c)
		}, told: []ttTold{{idemflight.EventExecuted, idemflight.ErrReentrant, 0, 0, idemflight.Release}, {kind: idemflight.EventRejected, err: idemflight.ErrReentrant}},
			counts: calls{"Executed": 1, "Reentrant": 1}, ends: calls{"Releases": 1}},

		{name: "left: dead on arrival", call: func(_ *testing.T, c *ttCache) { _, _ = c.Do(ttDead(), "k", ttProbe) }, told: []ttTold{{kind: idemflight.EventLeft, err: idemflight.ErrLeft}}, counts: calls{"Left": 1}},
		{name: "left: dead on arrival in flight", call: func(t *testing.T, c *ttCache) {
			do(func(context.Context) (int, error) { _, _ = c.Do(ttDead(), "k", ttProbe); return 1, nil })(t, c)
		}, told: []ttTold{{idemflight.EventExecuted, nil, 0, 0, idemflight.Retain}, {kind: idemflight.EventLeft, err: idemflight.ErrLeft}},
			counts: calls{"Executed": 1, "Left": 1}, ends: calls{"Retains": 1}},
		{name: "left: joined", call: func(t *testing.T, c *ttCache) {
			go do(ttSlow(3*s, 1, nil))(t, c)
			synctest.Wait()
			leave(s, ttProbe)(t, c)
		}, told: []ttTold{{idemflight.EventExecuted, nil, 3 * s, 0, idemflight.Retain}, {kind: idemflight.EventLeft, err: context.DeadlineExceeded, took: s}},
			counts: calls{"Executed": 1, "Left": 1}, ends: calls{"Retains": 1}},
		{name: "left: the leader, then finished", call: joined(2, leave(2*s, ttSlow(5*s, 1, nil))),
			told: []ttTold{{kind: idemflight.EventJoined, took: 4 * s}, {kind: idemflight.EventJoined, took: 4 * s},
				{kind: idemflight.EventLeft, err: idemflight.ErrLeft, took: 2 * s}, {idemflight.EventFinished, nil, 5 * s, 2, idemflight.Retain}},
			counts: calls{"Joined": 2, "Left": 1}, ends: calls{"Retains": 1}},
		{name: "left: everybody, then a panic", call: leave(2*s, func(context.Context) (int, error) { time.Sleep(5 * s); panic(boom) }),
			told:   []ttTold{{kind: idemflight.EventLeft, err: idemflight.ErrLeft, took: 2 * s}, {idemflight.EventFinished, boom, 5 * s, 0, idemflight.Hold}},
			counts: calls{"Left": 1}, ends: calls{"Holds": 1, "Panics": 1}},
		{name: "left: the leader, then unknown", call: leave(2*s, ttSlow(5*s, 1, idemflight.Unknown(boom))),
			told:   []ttTold{{kind: idemflight.EventLeft, err: idemflight.ErrLeft, took: 2 * s}, {idemflight.EventFinished, idemflight.ErrOutcomeUnknown, 5 * s, 0, idemflight.Hold}},
			counts: calls{"Left": 1}, ends: calls{"Holds": 1}},
		{name: "left: the leader of a Reconcile that finds out", opts: ttOptions{Reconcile: finds(5*s, 7, nil)}, arrange: hold, call: leave(2*s, ttProbe),
			told:   []ttTold{{kind: idemflight.EventLeft, err: idemflight.ErrLeft, took: 2 * s}, {idemflight.EventFinished, nil, 5 * s, 0, idemflight.Retain}},
			counts: calls{"Left": 1}, ends: calls{"Retains": 1}},
		{name: "left: the leader of a Reconcile that learns nothing", opts: ttOptions{Reconcile: finds(5*s, 7, boom)}, arrange: hold, call: joined(1, leave(2*s, ttProbe)),
			told: []ttTold{{kind: idemflight.EventRejected, err: idemflight.ErrOutcomeUnknown, took: 4 * s}, {kind: idemflight.EventLeft, err: idemflight.ErrLeft, took: 2 * s},
				{idemflight.EventFinished, idemflight.ErrOutcomeUnknown, 5 * s, 1, idemflight.Hold}},
			counts: calls{"Left": 1, "OutcomeUnknown": 1}, ends: calls{"Holds": 1}},
		{name: "left: the leader of a Reconcile, then fn", opts: ttOptions{Reconcile: finds(5*s, 7, idemflight.Retryable(boom))}, arrange: hold, call: leave(2*s, ttSlow(4*s, 1, nil)),
			told:   []ttTold{{kind: idemflight.EventLeft, err: idemflight.ErrLeft, took: 2 * s}, {idemflight.EventFinished, nil, 4 * s, 0, idemflight.Retain}},
			counts: calls{"Left": 1}, ends: calls{"Releases": 1, "Retains": 1}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &ttLog[string]{}
				o := ttWeighted(tc.opts)
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

				kinds := append(append([]idemflight.EventKind{}, ttCallKinds...), idemflight.EventFinished)
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
				require.Empty(t, log.of(ttUpkeepKinds...))

				after := c.Stats()
				counted := ttCalls(after)
				for k, n := range ttCalls(before) {
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
	log := &ttLog[string]{}
	c := idemflight.MustNew(ttOptions{Observer: log.observe})
	_, err := c.Do(ttBg, "", ttNever(t))
	require.ErrorIs(t, err, idemflight.ErrInvalidKey)
	require.Len(t, log.all, 1)
	require.Equal(t, idemflight.EventRejected, log.all[0].Kind)
	require.ErrorIs(t, log.all[0].Err, idemflight.ErrInvalidKey)
	require.Equal(t, map[string]uint64{"InvalidKey": 1}, ttCalls(c.Stats()))
}

// Event.Err is what the call returned, not what the record keeps, which is fn's own error.
func TestPromise25_TheErrorOfTheCallAndThatOfTheRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ttLog[string]{}
		var saw error
		c := idemflight.MustNew(ttOptions{Observer: log.observe, Reconcile: func(_ context.Context, _ string, e idemflight.Entry[int]) (int, error) {
			saw = e.Err
			return 0, errors.New("still unknown")
		}})
		_, err := c.Do(ttBg, "k", ttFail(idemflight.Unknown(errTT)))
		require.Equal(t, err, log.all[0].Err, "Event.Err is the error that the call returned")
		e, _ := c.Lookup("k")
		require.True(t, e.Err == errTT, "Entry.Err is the original, got %v", e.Err)
		_, err = c.Do(ttBg, "k", ttNever(t))
		require.True(t, saw == errTT, "what Reconcile sees is the original, got %v", saw)
		require.Equal(t, err, log.all[1].Err)
		ctx, cancel := context.WithCancel(ttBg)
		cancel()
		_, err = c.Do(ctx, "other", ttNever(t))
		require.Equal(t, err, log.all[2].Err)
	})
}

// The Observer gets the context of the caller it concerns: its values tell.
func TestPromise25_TheContextOfEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type who struct{}
		as := func(name string) context.Context { return context.WithValue(ttBg, who{}, name) }
		log := &ttLog[string]{}
		c := idemflight.MustNew(ttOptions{TTL: time.Minute, MaxEntries: 2, Protect: -1, MaxWeight: 10, Observer: log.observe,
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
					require.Equal(t, context.Background(), s.ctx, "upkeep is told with the Background context")
				}
			}
			require.ElementsMatch(t, want, got, "whose context the %v events have", kind)
			log.clear()
		}
		go func() {
			time.Sleep(time.Second)
			_, _ = c.Do(as("joiner"), "k", ttNever(t))
		}()
		_, _ = c.Do(as("leader"), "k", ttSlow(2*time.Second, 1, nil))
		synctest.Wait()
		joined := log.seen(idemflight.EventJoined)
		require.Len(t, joined, 1)
		require.Equal(t, "joiner", joined[0].ctx.Value(who{}))
		told(idemflight.EventExecuted, "leader")
		_, _ = c.Do(as("replayer"), "k", ttNever(t))
		told(idemflight.EventReplayed, "replayer")
		_, _ = c.Do(as("other"), "k", ttNever(t), idemflight.WithFingerprint(ttFp(1)))
		told(idemflight.EventRejected, "other")
		ctx, cancel := context.WithTimeout(as("leaver"), time.Second)
		defer cancel()
		_, _ = c.Do(ctx, "k2", ttSlow(2*time.Second, 1, nil))
		left := log.seen(idemflight.EventLeft)
		require.Len(t, left, 1)
		require.Equal(t, "leaver", left[0].ctx.Value(who{}))
		time.Sleep(time.Second)
		synctest.Wait()
		finished := log.seen(idemflight.EventFinished)
		require.Len(t, finished, 1)
		require.NotErrorIs(t, context.Cause(finished[0].ctx), context.DeadlineExceeded, "fn's context has not the leader's end")
		told(idemflight.EventFinished, "leaver")

		_, _ = c.Do(as("evictor"), "k3", ttValue(1))
		told(idemflight.EventEvicted, nil)
		_, _ = c.Do(as("shedder"), "k4", ttValue(11))
		told(idemflight.EventShed, nil)
		_, _ = c.Do(as("weigher"), "k5", ttValue(13))
		require.Len(t, log.seen(idemflight.EventPanicked), 1)
		_, _ = c.Do(as("brief"), "k6", ttValue(1), idemflight.WithTTL(1))
		time.Sleep(time.Nanosecond)
		log.clear()
		_, _ = c.Do(as("overwriter"), "k6", ttValue(1))
		told(idemflight.EventExpired, nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		for _, s := range log.seen(idemflight.EventExpired) {
			require.Equal(t, context.Background(), s.ctx)
		}
	})
}

// Each record expires in one event, whoever finds it: a timer, a call for its key, one for its
// place, a method that counts.
func TestPromise25_EachExpiredRecordIsToldOnce(t *testing.T) {
	finders := map[string]func(t *testing.T, c *ttCache){
		"timer": func(*testing.T, *ttCache) {},
		"Do": func(t *testing.T, c *ttCache) {
			ttRuns(t, c, "retained", 9)
			ttRuns(t, c, "held", 9)
			ttRuns(t, c, "shed", 9)
		},
		"a new key": func(t *testing.T, c *ttCache) { ttRuns(t, c, "n1", 1); ttRuns(t, c, "n2", 1); ttRuns(t, c, "n3", 1) },
		"Restore": func(t *testing.T, c *ttCache) {
			require.NoError(t, c.Restore("held", ttEntry(1, time.Now().Add(time.Hour))))
		},
		"Len":        func(_ *testing.T, c *ttCache) { c.Len(); c.Len() },
		"Stats":      func(_ *testing.T, c *ttCache) { c.Stats() },
		"Lookup":     func(_ *testing.T, c *ttCache) { c.Lookup("held") },
		"All":        func(_ *testing.T, c *ttCache) { ttAll(c) },
		"Forget":     func(t *testing.T, c *ttCache) { require.False(t, c.Forget("held")) },
		"Resolve":    func(t *testing.T, c *ttCache) { require.False(t, c.Resolve("held", 1, nil)) },
		"dead calls": func(_ *testing.T, c *ttCache) { _, _ = c.Do(ttDead(), "held", ttProbe) },
		"closed": func(t *testing.T, c *ttCache) {
			end := ttFly(t, c, "held")
			_, _ = end(0, idemflight.Retryable(errTT))
		},
	}
	for name, find := range finders {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &ttLog[string]{}
				c := idemflight.MustNew(ttWeighted(ttOptions{TTL: time.Minute, MaxEntries: 3, Protect: time.Minute, Observer: log.observe}))
				ttRuns(t, c, "retained", 1)
				ttHold(t, c, "held")
				ttRuns(t, c, "shed", ttHeavy)
				time.Sleep(time.Minute)
				find(t, c)
				if name != "Do" && name != "a new key" && name != "Restore" {
					time.Sleep(ttLate(time.Minute))
				}
				synctest.Wait()
				told := log.of(idemflight.EventExpired)
				seen := map[string]int{}
				for _, e := range told {
					seen[e.Key]++
					if e.Key == "held" {
						require.ErrorIs(t, e.Err, idemflight.ErrOutcomeUnknown, "a held key has expired")
					} else {
						require.NoError(t, e.Err, "%s has expired", e.Key)
					}
				}
				if name == "Restore" {
					require.Equal(t, 1, seen["held"])
					time.Sleep(2 * time.Hour)
					synctest.Wait()
					require.Len(t, log.of(idemflight.EventExpired), 4, "three, and the restored one")
					return
				}
				require.Equal(t, map[string]int{"retained": 1, "held": 1, "shed": 1}, seen, "expired records that were told")
				require.EqualValues(t, 3, c.Stats().Expired)
				require.Empty(t, log.of(idemflight.EventEvicted))
			})
		})
	}
}

func TestPromise25_ForgetResolveAndRestoreEmitNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ttLog[string]{}
		c := idemflight.MustNew(ttWeighted(ttOptions{Observer: log.observe}))
		ttRuns(t, c, "a", 1)
		ttRuns(t, c, "s", ttHeavy)
		ttHold(t, c, "h1")
		ttHold(t, c, "h2")
		ttHold(t, c, "h3")
		before := c.Stats()
		log.clear()
		require.True(t, c.Forget("a"))
		require.True(t, c.Forget("s"))
		require.True(t, c.Forget("h1"))
		require.False(t, c.Forget("h1"))
		require.True(t, c.Resolve("h2", 1, nil))
		require.True(t, c.Resolve("h3", 1, idemflight.Retryable(errTT)))
		require.False(t, c.Resolve("h2", 1, nil))
		require.NoError(t, c.Restore("r", ttEntry(1, time.Now().Add(time.Hour))))
		require.Error(t, c.Restore("r", ttEntry(1, time.Now().Add(time.Hour))))
		synctest.Wait()
		require.Empty(t, log.all)
		after := c.Stats()
		require.Equal(t, ttCalls(before), ttCalls(after), "none of them is a call")
		require.Equal(t, []uint64{before.Retains, before.Releases, before.Holds}, []uint64{after.Retains, after.Releases, after.Holds}, "nor an execution")
	})
}

func TestPromise25_ObserversMayCallTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c *ttCache
		var told sync.Map
		var nested atomic.Bool // what an Observer does is told to it, too
		c = idemflight.MustNew(ttOptions{TTL: time.Minute, MaxEntries: 3, Protect: -1, MaxWeight: 10,
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
				ttAll(c)
				c.Lookup(e.Key)
				c.Resolve(e.Key, 1, nil)
				inner := e.Key + " of a call by the Observer"
				_, _ = c.Do(ttBg, inner, ttValue(0))
				_, _ = c.Do(ttBg, e.Key, ttProbe, idemflight.WithMaxWait(idemflight.NoWait), idemflight.WithFingerprint(ttFp(200)))
				c.Forget(inner)
				_ = c.Restore(inner, ttEntry(0, time.Now().Add(time.Second)))
				c.Forget(inner)
			}})
		end := ttFly(t, c, "k")
		go func() { _, _ = c.Do(ttBg, "k", ttNever(t)) }()
		synctest.Wait()
		_, _ = end(1, nil)
		_, _ = c.Do(ttBg, "k", ttProbe)
		ctx, cancel := context.WithTimeout(ttBg, time.Second)
		defer cancel()
		_, _ = c.Do(ctx, "left", ttSlow(2*time.Second, 1, nil))
		_, _ = c.Do(ttBg, "", ttProbe)
		for i := range 10 {
			ttRuns(t, c, ttKey(i), 6)
		}
		ttRuns(t, c, "heavy", 11)
		ttRuns(t, c, "weigh", 13)
		time.Sleep(time.Hour)
		synctest.Wait()
		for _, k := range append(append([]idemflight.EventKind{idemflight.EventFinished}, ttUpkeepKinds...), ttCallKinds...) {
			if _, ok := told.Load(k); !ok && k != idemflight.EventReconciled {
				t.Errorf("the test itself: no %v event", k)
			}
		}
		require.Zero(t, c.Stats().InFlight)
	})
}

func TestPromise25_AFailingObserverIsContained(t *testing.T) {
	for name, fail := range map[string]func(){"panic": func() { panic("observer") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var failing atomic.Bool
				var told atomic.Int32
				failing.Store(true)
				c := idemflight.MustNew(ttWeighted(ttOptions{TTL: time.Minute, MaxEntries: 4, Protect: -1, Observer: func(context.Context, idemflight.Event[string]) {
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
					v, err := c.Do(ttBg, "k", ttSlow(time.Second, 1, nil))
					ok(v, 1, err)
				})
				ask(1, func() {
					v, err := c.Do(ttBg, "k", ttProbe)
					ok(v, 1, err)
				})
				ask(1, func() {
					ctx, cancel := context.WithTimeout(ttBg, time.Second)
					defer cancel()
					_, _ = c.Do(ctx, "left", ttSlow(2*time.Second, 2, nil))
				})
				ask(1, func() { _, _ = c.Do(ttBg, "", ttProbe) })
				for i := range 6 {
					ask(1, func() {
						v, err := c.Do(ttBg, ttKey(i), ttValue(i))
						ok(v, i, err)
					})
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				st := c.Stats()
				require.EqualValues(t, told.Load(), st.HookPanics, "each failure is counted")
				require.EqualValues(t, 12, st.HookPanics-st.Evicted-st.Expired-st.Shed-1, "each event was told: one per call, those of upkeep, one Finished; %+v", st)
				require.Zero(t, st.Panics)
				require.Zero(t, st.InFlight)
				require.Zero(t, st.Waiters)
				failing.Store(false)
				ttRuns(t, c, "k", 9)
				require.Equal(t, 9, ttReplay(t, c, "k"))
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
	c = idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: 20, Protect: -1, TTL: time.Hour, HoldTTL: 50 * time.Microsecond, MaxWaiters: 2, MaxWeight: 30,
		Weigh:    func(_, v int) int64 { return int64(v) },
		Observer: func(_ context.Context, e idemflight.Event[int]) { told[e.Kind].Add(1) },
		Reconcile: func(_ context.Context, k int, _ idemflight.Entry[int]) (int, error) {
			executions.Add(1)
			if k%5 == 0 {
				panics.Add(1)
				panic("reconcile")
			}
			return 1, []error{nil, errTT, idemflight.Retryable(errTT)}[k%3]
		}})
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(25, uint64(g)))
			for range 800 {
				k, how, v := rng.IntN(40), rng.IntN(16), rng.IntN(40) // fn may outlive the call, and so asks rng nothing
				ctx, cancel := context.WithCancel(ttBg)
				fn := func(ctx context.Context) (int, error) {
					executions.Add(1)
					if how%2 == 0 {
						runtime.Gosched()
					}
					switch how {
					case 0, 1:
						return 0, idemflight.Unknown(errTT)
					case 2:
						return 0, idemflight.Retryable(errTT)
					case 3:
						panics.Add(1)
						panic("fn")
					case 4:
						cancel()
					case 5:
						calls.Add(1)
						return c.Do(ctx, k, ttProbe)
					}
					return v, nil
				}
				var opts []idemflight.CallOption
				switch how {
				case 6:
					opts = append(opts, idemflight.WithMaxWait(idemflight.NoWait))
				case 7:
					opts = append(opts, idemflight.WithFingerprint(ttFp(1)))
				case 8:
					opts = append(opts, idemflight.WithTTL(0))
				case 9:
					opts = append(opts, idemflight.Inline())
				case 10:
					cancel()
				}
				calls.Add(1)
				_ = ttPanics(func() { _, _ = c.Do(ctx, k, fn, opts...) })
				cancel()
			}
		})
	}
	wg.Wait()
	require.NoError(t, c.Close(ttBg))
	calls.Add(1)
	_, err := c.Do(ttBg, 99_999, ttProbe)
	require.ErrorIs(t, err, idemflight.ErrClosed)
	require.NoError(t, c.Close(ttBg))

	st := c.Stats()
	for range 1_000_000 { // a timer that was reclaiming, and a flight whose callers have left, tell what they have counted
		if st.Expired == told[idemflight.EventExpired].Load() && st.Shed == told[idemflight.EventShed].Load() {
			break
		}
		runtime.Gosched()
		st = c.Stats()
	}
	require.Equal(t, calls.Load(), ttSum(st), "the sum of the calls in Stats is the number of calls: %+v", st)
	sum := uint64(0)
	for _, k := range ttCallKinds {
		sum += told[k].Load()
	}
	require.Equal(t, calls.Load(), sum, "call events")
	require.Equal(t, st.Executed, told[idemflight.EventExecuted].Load())
	require.Equal(t, st.Joined, told[idemflight.EventJoined].Load())
	require.Equal(t, st.Replayed, told[idemflight.EventReplayed].Load())
	require.Equal(t, st.Reconciled, told[idemflight.EventReconciled].Load())
	require.Equal(t, st.Left, told[idemflight.EventLeft].Load())
	require.Equal(t, executions.Load(), st.Retains+st.Releases+st.Holds, "executions that ended")
	require.Equal(t, panics.Load(), st.Panics)
	require.Equal(t, st.Evicted, told[idemflight.EventEvicted].Load())
	require.Equal(t, st.Expired, told[idemflight.EventExpired].Load())
	require.Equal(t, st.Shed, told[idemflight.EventShed].Load())
	require.Zero(t, st.InFlight)
	require.Zero(t, st.Waiters)
	require.Zero(t, st.HookPanics)
	for name, n := range map[string]uint64{"Executed": st.Executed, "Replayed": st.Replayed, "KeyReused": st.KeyReused,
		"Left": st.Left, "Reentrant": st.Reentrant, "Evicted": st.Evicted, "Shed": st.Shed} {
		require.Positive(t, n, "the test itself: Stats.%s", name)
	}
}

func TestStats_Now(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(ttOptions{Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
			time.Sleep(time.Second)
			return 1, nil
		}})
		require.Equal(t, idemflight.Stats{}, c.Stats())
		end := ttFly(t, c, "k")
		ctx, cancel := context.WithCancel(ttBg)
		for range 3 {
			go func() { _, _ = c.Do(ctx, "k", ttNever(t)) }()
			go func() { _, _ = c.Do(ttBg, "k", ttNever(t)) }()
		}
		synctest.Wait()
		require.Equal(t, idemflight.Stats{InFlight: 1, Waiters: 6}, c.Stats())
		cancel()
		synctest.Wait()
		require.Equal(t, idemflight.Stats{InFlight: 1, Waiters: 3, Left: 3}, c.Stats())
		ttHold(t, c, "h")
		require.Equal(t, idemflight.Stats{InFlight: 1, Waiters: 3, Left: 3, Executed: 1, Holds: 1, Entries: 1, Held: 1}, c.Stats())
		go func() { _, _ = c.Do(ttBg, "h", ttNever(t)) }()
		synctest.Wait()
		require.Equal(t, idemflight.Stats{InFlight: 2, Waiters: 3, Left: 3, Executed: 1, Holds: 1}, c.Stats(), "a held key whose Reconcile runs is in flight")
		_, _ = end(1, nil)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, idemflight.Stats{Left: 3, Executed: 2, Joined: 3, Reconciled: 1, Holds: 1, Retains: 2, Entries: 2}, c.Stats())
	})
}

// LogEvents

func TestLogEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug - 100}))
		c := idemflight.MustNew(ttOptions{Observer: idemflight.LogEvents[string](l)})
		ttRuns(t, c, "a", 1)
		ttReplay(t, c, "a")
		ttHold(t, c, "b")
		_, _ = c.Do(ttBg, "b", ttNever(t))
		_, _ = c.Do(ttDead(), "c", ttNever(t))
		want := [][2]string{{"executed", "a"}, {"replayed", "a"}, {"executed", "b"}, {"rejected", "b"}, {"left", "c"}}
		lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
		require.Len(t, lines, len(want), "one record per event:\n%s", out.String())
		for i, line := range lines {
			var rec map[string]any
			require.NoError(t, json.Unmarshal(line, &rec))
			require.Equal(t, want[i][0], rec["event"], "the kind is under event")
			require.Equal(t, want[i][1], rec["key"], "the key is under key")
			require.NotContains(t, string(line), "!BADKEY")
		}
		require.Contains(t, string(lines[3]), errTT.Error(), "why a call was rejected is told")
		require.Equal(t, idemflight.EventExecuted.String(), want[0][0], "as String says it")
	})
}

func TestLogEvents_LevelAndFields(t *testing.T) {
	type fields = map[string]any
	for name, tt := range map[string]struct {
		e     idemflight.Event[string]
		level string
		want  fields // beside event and key
	}{
		"executed": {idemflight.Event[string]{Kind: idemflight.EventExecuted, Took: time.Second, Waiters: 2, Disposition: idemflight.Retain},
			"INFO", fields{"took": 1e9, "waiters": 2., "disposition": "retain"}},
		"held":     {idemflight.Event[string]{Kind: idemflight.EventFinished, Disposition: idemflight.Hold, Err: errTT}, "WARN", fields{"disposition": "hold", "err": errTT.Error()}},
		"replayed": {idemflight.Event[string]{Kind: idemflight.EventReplayed}, "INFO", fields{}},
		"rejected": {idemflight.Event[string]{Kind: idemflight.EventRejected, Err: errTT}, "WARN", fields{"err": errTT.Error()}},
		"expired":  {idemflight.Event[string]{Kind: idemflight.EventExpired}, "INFO", fields{}},
		"a hold that expired": {idemflight.Event[string]{Kind: idemflight.EventExpired, Err: errTT},
			"WARN", fields{"err": errTT.Error()}},
	} {
		for _, asDefault := range []bool{false, true} {
			var out bytes.Buffer
			logger := slog.New(slog.NewJSONHandler(&out, nil))
			if asDefault {
				before := slog.Default()
				slog.SetDefault(logger)
				defer slog.SetDefault(before)
				logger = nil
			}
			tt.e.Key = "k"
			idemflight.LogEvents[string](logger)(ttBg, tt.e)
			want := fields{"level": tt.level, "msg": "idemflight", "event": tt.e.Kind.String(), "key": "k"}
			maps.Copy(want, tt.want)
			var got fields
			require.NoError(t, json.Unmarshal(out.Bytes(), &got), "%s, of the default logger %v", name, asDefault)
			delete(got, "time")
			require.Equal(t, want, got, "%s, of the default logger %v", name, asDefault)
		}
	}
}

func TestLogEvents_EveryKindOfEvent(t *testing.T) {
	var out bytes.Buffer
	observe := idemflight.LogEvents[idemflight.Key](slog.New(slog.NewJSONHandler(&out, nil)))
	for k := idemflight.EventExecuted; k <= idemflight.EventPanicked; k++ {
		for _, err := range []error{nil, errTT, fmt.Errorf("x: %w", idemflight.ErrOutcomeUnknown), &idemflight.PanicError{Value: "v"}} {
			out.Reset()
			observe(ttBg, idemflight.Event[idemflight.Key]{Kind: k, Key: idemflight.Key{Scope: "s", ID: "i"}, Err: err, Took: time.Second, Waiters: 2, Disposition: idemflight.Hold})
			var rec map[string]any
			require.NoError(t, json.Unmarshal(out.Bytes(), &rec), "one record for %v", k)
			require.Equal(t, k.String(), rec["event"])
			require.Equal(t, map[string]any{"Scope": "s", "ID": "i"}, rec["key"])
		}
	}
}
