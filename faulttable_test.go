package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// The fault table: every way for fn to end × what it said about its effect × the callers that wait.
// The expected end is computed from the contract's table alone, and compared whole: what every
// caller got, what the next call does, every counter, every call event.

const (
	fnTime      = 10 * time.Second // fn's work before it ends in its way
	execTimeout = time.Minute
)

var (
	errFailed   = errors.New("failed")
	errRefused  = &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	errPanicked = errors.New("panicked")
)

// fault is a way for fn to end.
type fault struct {
	name  string
	end   func(ctx context.Context, c *cache) (int, error)
	took  time.Duration          // from fn's start
	value int                    // fn's value
	is    error                  // what its error is; nil = success
	same  bool                   // is is the very error that callers get of a release or a retain
	plain idemflight.Disposition // where no effect was spoken of and ClassifyLenient is asked
	fixed bool                   // success or a marker: plain whatever was said
	// how it ended if it did not return
	panics, exits bool
	// its other deeds
	reenters, forgets, closes bool
}

var faults = []fault{
	{name: "success", took: fnTime, value: 7, plain: idemflight.Retain, fixed: true,
		end: func(context.Context, *cache) (int, error) { return 7, nil }},
	{name: "error", took: fnTime, value: 7, is: errFailed, same: true, plain: idemflight.Release,
		end: func(context.Context, *cache) (int, error) { return 7, errFailed }},
	{name: "Final", took: fnTime, value: 7, is: errFailed, same: true, plain: idemflight.Retain, fixed: true,
		end: func(context.Context, *cache) (int, error) {
			return 7, idemflight.Final(errFailed)
		}},
	{name: "Retryable", took: fnTime, value: 7, is: errFailed, same: true, plain: idemflight.Release, fixed: true,
		end: func(context.Context, *cache) (int, error) {
			return 7, idemflight.Retryable(errFailed)
		}},
	{name: "Unknown", took: fnTime, value: 7, is: errFailed, plain: idemflight.Hold, fixed: true,
		end: func(context.Context, *cache) (int, error) {
			return 7, idemflight.Unknown(errFailed)
		}},
	{name: "timeout", took: execTimeout, is: context.DeadlineExceeded, plain: idemflight.Hold,
		end: func(ctx context.Context, _ *cache) (int, error) {
			<-ctx.Done()
			return 0, fmt.Errorf("bank: %w", ctx.Err())
		}},
	{name: "dial error", took: fnTime, is: errRefused, same: true, plain: idemflight.Release,
		end: func(context.Context, *cache) (int, error) { return 0, errRefused }},
	{name: "panic(value)", took: fnTime, plain: idemflight.Hold, panics: true,
		end: func(context.Context, *cache) (int, error) { panic("boom") }},
	{name: "panic(error)", took: fnTime, is: errPanicked, plain: idemflight.Hold, panics: true,
		end: func(context.Context, *cache) (int, error) { panic(errPanicked) }},
	{name: "panic(marked error)", took: fnTime, is: errPanicked, plain: idemflight.Hold, panics: true,
		end: func(context.Context, *cache) (int, error) {
			panic(idemflight.Retryable(errPanicked))
		}},
	{name: "Goexit", took: fnTime, is: idemflight.ErrGoexit, plain: idemflight.Hold, exits: true,
		end: func(context.Context, *cache) (int, error) { runtime.Goexit(); return 7, nil }},
	{name: "ctx ended", took: fnTime, is: context.Canceled, plain: idemflight.Hold,
		end: func(ctx context.Context, _ *cache) (int, error) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return 0, fmt.Errorf("bank: %w", ctx.Err())
		}},
	{name: "slow", took: 3 * execTimeout, value: 7, plain: idemflight.Retain, fixed: true,
		end: func(context.Context, *cache) (int, error) {
			time.Sleep(3*execTimeout - fnTime) // deaf to its context
			return 7, nil
		}},
	{name: "slow, then error", took: 3 * execTimeout, value: 7, is: errFailed, same: true, plain: idemflight.Hold, // since the time was over
		end: func(context.Context, *cache) (int, error) {
			time.Sleep(3*execTimeout - fnTime)
			return 7, errFailed
		}},
	{name: "re-entrant", took: fnTime, is: idemflight.ErrReentrant, plain: idemflight.Release, reenters: true,
		end: func(ctx context.Context, c *cache) (int, error) {
			v, err := c.Do(context.WithValue(ctx, nameKey{}, 1), theKey, returns(1, nil))
			return v, fmt.Errorf("again: %w", err)
		}},
	{name: "Forget inside", took: fnTime, value: 7, plain: idemflight.Retain, fixed: true, forgets: true,
		end: func(_ context.Context, c *cache) (int, error) {
			if !forget(c, theKey) {
				return 0, errors.New("Forget of a key in flight must return true")
			}
			return 7, nil
		}},
	{name: "Forget inside, then error", took: fnTime, value: 7, is: errFailed, same: true, plain: idemflight.Release, forgets: true,
		end: func(_ context.Context, c *cache) (int, error) {
			forget(c, theKey)
			return 7, errFailed
		}},
	{name: "Close inside", took: fnTime, value: 7, plain: idemflight.Retain, fixed: true, closes: true,
		end: func(ctx context.Context, c *cache) (int, error) {
			if err := c.Close(ctx); !errors.Is(err, idemflight.ErrReentrant) {
				return 0, fmt.Errorf("Close inside fn must return ErrReentrant, got %v", err)
			}
			return 7, nil
		}},
	{name: "Close inside, then error", took: fnTime, value: 7, is: errFailed, same: true, plain: idemflight.Release, closes: true,
		end: func(ctx context.Context, c *cache) (int, error) {
			_ = c.Close(ctx)
			return 7, errFailed
		}},
}

// saying is what fn says about its effect before it ends, in a cache of its kind.
type saying struct {
	name      string
	say       func(context.Context)
	lenient   bool // Options.Classify is ClassifyLenient
	announced bool // Options.EffectsAnnounced
	silent    bool // it says nothing
	want      idemflight.Disposition
	ask       bool // ClassifyLenient decides
}

var sayings = []saying{
	{name: "said nothing", say: func(context.Context) {}, silent: true, want: idemflight.Hold},
	{name: "said nothing, ClassifyLenient", say: func(context.Context) {}, silent: true, lenient: true, ask: true},
	{name: "said nothing, EffectsAnnounced", say: func(context.Context) {}, silent: true, announced: true, want: idemflight.Release},
	{name: "said nothing, both", say: func(context.Context) {}, silent: true, announced: true, lenient: true, want: idemflight.Release},
	{name: "after BeginEffect", say: beginEffect, want: idemflight.Hold},
	{name: "after BeginEffect, both", say: beginEffect, announced: true, lenient: true, want: idemflight.Hold},
	{name: "after NoEffect", say: idemflight.NoEffect, want: idemflight.Release},
	{name: "after NoEffect, ClassifyLenient", say: idemflight.NoEffect, lenient: true, want: idemflight.Release},
	{name: "after both", say: func(ctx context.Context) { beginEffect(ctx); idemflight.NoEffect(ctx) }, want: idemflight.Release},
}

func beginEffect(ctx context.Context) { _ = idemflight.BeginEffect(ctx) }

// becomes is what the contract makes of the fault.
func (f fault) becomes(s saying) idemflight.Disposition {
	d := f.plain
	if !f.fixed && !s.ask {
		d = s.want
	}
	if f.forgets && d == idemflight.Retain {
		return idemflight.Release
	}
	return d
}

// scene is the callers that are there while fn runs.
type scene struct {
	name       string
	joined     int
	leaderGone bool
	gone       int // of the joined ones
	own        bool
	inline     bool // the leader is Inline, and so are the joined ones, to whom it means nothing
	full       bool // MaxEntries is 1
}

var scenes = []scene{
	{name: "leader alone"},
	{name: "leader alone, which cannot leave", own: true},
	{name: "with joined callers", joined: 2},
	{name: "joined caller gone", joined: 2, gone: 1},
	{name: "leader gone", joined: 2, leaderGone: true},
	{name: "leader gone, which was alone", leaderGone: true},
	{name: "all gone", joined: 2, gone: 2, leaderGone: true},
	{name: "Inline", joined: 2, own: true, inline: true},
	{name: "Inline, ctx ends", joined: 2, gone: 2, own: true, inline: true, leaderGone: true},
	{name: "at capacity", joined: 1, full: true},
	{name: "at capacity, leader gone", full: true, leaderGone: true},
}

// requirePlaces asserts that in flight + kept is what it must be, as Len and Stats tell it.
func requirePlaces(t *testing.T, c *cache, inFlight, kept, held int, what string) {
	t.Helper()
	s := c.Stats()
	require.Equal(t, [4]int{inFlight, kept, kept, held}, [4]int{s.InFlight, s.Entries, c.Len(), s.Held}, "%s: InFlight, Entries, Len, Held", what)
	n := 0
	for range c.All() {
		n++
	}
	require.Equal(t, inFlight+kept, n, "%s: All shows what is in flight and what is kept", what)
}

func TestPromise12_FaultTable(t *testing.T) {
	for _, f := range faults {
		for _, s := range sayings {
			for _, scene := range scenes {
				t.Run(fmt.Sprintf("%s/%s/%s", f.name, s.name, scene.name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { playFault(t, f, s, scene, false) })
				})
			}
		}
	}
}

// The same for an fn that runs in the flight of a Reconcile that said Retryable: nothing may
// differ.
func TestPromise13_FaultTableOfFnAfterReconcile(t *testing.T) {
	for _, f := range faults {
		for _, s := range sayings {
			for _, scene := range scenes {
				t.Run(fmt.Sprintf("%s/%s/%s", f.name, s.name, scene.name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { playFault(t, f, s, scene, true) })
				})
			}
		}
	}
}

func playFault(t *testing.T, f fault, s saying, scene scene, reconciled bool) {
	want := f.becomes(s)
	events := &eventLog[string]{}
	opts := options{MaxEntries: fewEntries, ExecTimeout: execTimeout, EffectsAnnounced: s.announced, Observer: events.observe}
	if s.lenient {
		opts.Classify = idemflight.ClassifyLenient
	}
	if scene.full {
		opts.MaxEntries = 1
	}
	reconciles := 0
	if reconciled {
		opts.Reconcile = func(ctx context.Context, _ string, held idemflight.Entry[int]) (int, error) {
			_ = idemflight.BeginEffect(ctx) // which must not count for fn
			if reconciles++; reconciles == 1 {
				return 3, idemflight.Retryable(errors.New("the bank knows nothing of it"))
			}
			return 3, held.Err // learned nothing
		}
	}
	unannounced := s.announced && s.silent && f.is == nil && !f.panics
	c := idemflight.MustNew(opts)
	var calls, running, runs int
	var before idemflight.Stats
	if reconciled {
		holdAfterASecond(t, c, theKey)
		calls++
		before = idemflight.Stats{Executed: 1, Holds: 1, Releases: 1}
	}
	fn := func(ctx context.Context) (int, error) {
		runs++
		running++
		defer func() { running-- }()
		if running != 1 {
			t.Errorf("at most one execution of a key must run, %d do", running)
		}
		s.say(ctx)
		if f.name != "timeout" { // which waits for its context alone
			time.Sleep(fnTime)
		}
		return f.end(ctx, c)
	}
	call := func(ctx context.Context, key string, fn intFn, opts ...idemflight.CallOption) *pending[int] {
		calls++
		return start(c, ctx, key, fn, opts...)
	}

	// The callers arrive.
	began := time.Now()
	var callOpts []idemflight.CallOption
	if scene.inline {
		callOpts = append(callOpts, idemflight.Inline())
	}
	leaderCtx, leaderLeaves := context.WithCancel(context.Background())
	defer leaderLeaves()
	if scene.own && !scene.leaderGone {
		leaderCtx = context.Background()
	}
	leader := call(leaderCtx, theKey, fn, callOpts...)
	synctest.Wait()
	var stay, leave []*pending[int]
	joinedCtx, joinedLeave := context.WithCancel(context.Background())
	defer joinedLeave()
	for i := range scene.joined {
		if i < scene.gone {
			leave = append(leave, call(joinedCtx, theKey, fn, callOpts...))
		} else {
			stay = append(stay, call(context.Background(), theKey, fn, callOpts...))
		}
	}
	synctest.Wait()
	require.Equal(t, 1, runs, "fn must run once, for the leader")
	requirePlaces(t, c, 1, 0, 0, "in flight")
	require.Equal(t, scene.joined, c.Stats().Waiters, "Stats.Waiters in flight")
	e, ok := lookup(c, theKey)
	require.True(t, ok, "Lookup in flight")
	require.Equal(t, [2]int{int(idemflight.InFlight), scene.joined}, [2]int{int(e.State), e.Waiters}, "state and waiters in flight")

	if scene.full {
		other := call(context.Background(), "other", neverRuns(t))
		synctest.Wait()
		require.ErrorIs(t, other.err, idemflight.ErrFull, "the flight's key has the only place")
	}

	// Some leave.
	time.Sleep(time.Second)
	leaderLeft := scene.leaderGone && !scene.inline
	if scene.leaderGone {
		leaderLeaves()
	}
	joinedLeave()
	synctest.Wait()
	require.Equal(t, leaderLeft, leader.returned(), "whether the leader has left")
	if leaderLeft {
		leave = append(leave, leader)
	} else {
		stay = append(stay, leader)
	}
	for _, gone := range leave {
		require.True(t, gone.returned(), "a caller that leaves must return at once")
		require.ErrorIs(t, gone.err, idemflight.ErrCallerLeft, "a caller that left")
		require.ErrorIs(t, gone.err, context.Canceled, "a caller that left: its context's error")
		require.Zero(t, gone.res, "a caller that left obtained nothing")
	}
	require.Equal(t, len(stay)-map[bool]int{true: 0, false: 1}[leaderLeft], c.Stats().Waiters,
		"Stats.Waiters after some left")
	requirePlaces(t, c, 1, 0, 0, "in flight, after some left")
	require.Equal(t, 1, runs, "leaving must not start another execution")
	time.Sleep(f.took - time.Since(began) - time.Nanosecond)
	synctest.Wait()
	requirePlaces(t, c, 1, 0, 0, "in flight until fn really returns")

	// What everybody gets.
	time.Sleep(2 * time.Nanosecond)
	synctest.Wait()
	for i, caller := range stay {
		who := fmt.Sprintf("joined caller %d", i)
		if caller == leader {
			who = "the leader"
		}
		require.True(t, caller.returned(), "%s must not be stranded", who)
		switch {
		case f.panics && caller == leader:
			p, ok := caller.panicked.(*idemflight.PanicError)
			require.True(t, ok, "the leader must panic with a *PanicError, got %v", caller.panicked)
			require.NotEmpty(t, p.Stack, "PanicError.Stack")
			require.Contains(t, p.Error(), string(p.Stack), "what nobody recovers shows its stack")
			continue
		case f.exits && caller == leader && scene.own:
			require.True(t, caller.exited, "fn ran on the leader's goroutine, which must exit")
			continue
		}
		require.Nil(t, caller.panicked, "%s must not panic", who)
		require.False(t, caller.exited, "%s must not exit", who)
		checkFaultError(t, f, want, caller.err, who)
		require.Equal(t, f.value, caller.res.Value, "%s: fn's value", who)
		source := idemflight.Joined
		if caller == leader {
			source = idemflight.Executed
		}
		require.Equal(t, source, caller.res.Source, "%s: Source", who)
		require.False(t, caller.res.CompletedAt.IsZero(), "%s: CompletedAt", who)
		require.Equal(t, want == idemflight.Release, caller.res.ExpiresAt.IsZero(),
			"%s: ExpiresAt is zero exactly when nothing is kept", who)
	}
	require.Equal(t, 1, runs, "executions of the flight")
	require.Zero(t, running, "nothing runs any more")

	// What is left, before the next call.
	require.Equal(t, want, dispositionOf(t, c, theKey), "what became of the key")
	kept, held := 1, 0
	wantStats := before
	wantStats.Joined, wantStats.CallerLeft = uint64(len(stay)), uint64(len(leave))
	if !leaderLeft {
		wantStats.Executed++
		wantStats.Joined--
	}
	switch want {
	case idemflight.Retain:
		wantStats.Retains++
	case idemflight.Hold:
		held = 1
		wantStats.Holds++
	case idemflight.Release:
		kept = 0
		wantStats.Releases++
	}
	if f.panics || f.exits {
		wantStats.Panics = 1
	}
	if f.reenters {
		wantStats.Reentrant = 1
		calls++
	}
	if scene.full {
		wantStats.Full = 1
	}
	if unannounced {
		wantStats.Unannounced = 1
	}
	wantStats.Entries, wantStats.Held = kept, held
	require.Equal(t, wantStats, c.Stats(), "Stats after the flight")
	requirePlaces(t, c, 0, kept, held, "after the flight")
	require.NoError(t, c.CheckInvariants(), "after the flight")

	if scene.full {
		other := call(context.Background(), "other", returns(1, idemflight.Retryable(errFailed)))
		synctest.Wait()
		switch {
		case kept == 1: // held, or protected since it is young
			wantStats.Full++
			if f.closes {
				wantStats.Full--
				wantStats.Closed++
			}
			require.True(t, errors.Is(other.err, idemflight.ErrFull) || f.closes && errors.Is(other.err, idemflight.ErrClosed), "another key while the only place is taken: got %v", other.err)
		case f.closes:
			wantStats.Closed++
			require.ErrorIs(t, other.err, idemflight.ErrClosed, "another key after Close")
		default:
			wantStats.Executed++
			wantStats.Releases++
			require.True(t, other.err == errFailed,
				"the place must have been given back: another key got %v", other.err)
		}
	}

	// What the next call does.
	next := call(context.Background(), theKey, func(ctx context.Context) (int, error) { runs++; return 99, idemflight.BeginEffect(ctx) })
	synctest.Wait()
	require.True(t, next.returned(), "the next call must not hang")
	switch {
	case want == idemflight.Retain:
		wantStats.Replayed++
		require.Equal(t, 1, runs, "the next call must not run fn")
		require.Equal(t, idemflight.Replayed, next.res.Source, "the next call's source")
		require.Equal(t, f.value, next.res.Value, "the next call's value")
		checkFaultError(t, f, want, next.err, "the next call")
	case want == idemflight.Hold:
		wantStats.OutcomeUnknown++
		if reconciled && !f.closes { // Reconcile was asked once more, and held again
			wantStats.Holds++
			require.Equal(t, 2, reconciles, "runs of Reconcile")
		}
		require.Equal(t, 1, runs, "the next call must not run fn")
		require.Equal(t, idemflight.NoOutcome, next.res.Source, "the next call's source")
		require.Zero(t, next.res.Value, "the next call's value")
		checkFaultError(t, f, want, next.err, "the next call")
	case f.closes:
		wantStats.Closed++
		require.Equal(t, 1, runs, "the next call must not run fn")
		require.ErrorIs(t, next.err, idemflight.ErrClosed, "the next call")
	default:
		wantStats.Executed++
		wantStats.Retains++
		wantStats.Entries = 1
		require.NoError(t, next.err, "the next call runs")
		require.Equal(t, 2, runs, "the next call must run fn")
		require.Equal(t, 99, next.res.Value, "the next call's value")
		require.Equal(t, idemflight.Executed, next.res.Source, "the next call's source")
	}
	require.Equal(t, wantStats, c.Stats(), "Stats after the next call")
	require.Equal(t, uint64(calls), sumOfCalls(c.Stats()),
		"the sum of the counters of calls must be the number of calls")

	// Each call has one event, and a flight whose leader left has one more.
	require.Len(t, events.of(idemflight.EventExecuted, idemflight.EventJoined, idemflight.EventReplayed, idemflight.EventReconciled,
		idemflight.EventRejected, idemflight.EventCallerLeft), calls, "call events")
	finished := events.of(idemflight.EventFinished)
	require.Len(t, finished, map[bool]int{true: 1, false: 0}[leaderLeft],
		"EventFinished exactly when the leader left")
	for _, ev := range finished {
		require.Equal(t, want, ev.Disposition, "Disposition of EventFinished")
		require.Equal(t, f.took, ev.Took, "Took of EventFinished")
		checkFaultError(t, f, want, ev.Err, "Event.Err of EventFinished")
	}
	for _, ev := range events.of(idemflight.EventExecuted) {
		if ev.Key == theKey && ev.Took == f.took {
			require.Equal(t, want, ev.Disposition, "Disposition of EventExecuted")
			if !f.panics && !f.exits { // otherwise the call returned no error
				checkFaultError(t, f, want, ev.Err, "Event.Err of EventExecuted")
			}
		}
	}
	for _, ev := range events.of(idemflight.EventJoined) {
		checkFaultError(t, f, want, ev.Err, "Event.Err of EventJoined")
	}
	require.Empty(t, events.of(idemflight.EventEvicted, idemflight.EventExpired, idemflight.EventShed, idemflight.EventPanicked), "no upkeep was due")
	require.Equal(t, unannounced, len(events.of(idemflight.EventUnannounced)) == 1,
		"EventUnannounced for a success without a word where all fns announce their effects")
}

// checkFaultError checks the error of a caller that obtained the outcome of f, or met it held.
func checkFaultError(t *testing.T, f fault, want idemflight.Disposition, err error, who string) {
	t.Helper()
	require.Equal(t, want == idemflight.Hold, errors.Is(err, idemflight.ErrOutcomeUnknown),
		"%s: ErrOutcomeUnknown exactly when held, got %v", who, err)
	var p *idemflight.PanicError
	require.Equal(t, f.panics, errors.As(err, &p),
		"%s: a *PanicError exactly after a panic, got %v", who, err)
	if f.panics {
		require.Empty(t, p.Stack, "%s: the stack is the leader's alone", who)
		require.Contains(t, p.Error(), "raised at faulttable_test.go:", "%s", who)
		require.NotContains(t, err.Error(), "\n", "%s: one line", who)
	}
	switch {
	case f.is != nil:
		require.ErrorIs(t, err, f.is, "%s: must wrap fn's error", who)
		require.True(t, !f.same || want == idemflight.Hold || err == f.is,
			"%s: must get fn's own error, got %#v", who, err)
	case f.panics:
		require.Equal(t, "boom", p.Value, "%s: PanicError.Value", who)
	default:
		require.NoError(t, err, who)
	}
}

// A context that is dead on arrival starts nothing, however fn would have ended.
func TestPromise12_FaultTableDeadOnArrival(t *testing.T) {
	for _, f := range faults {
		for _, inline := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{})
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				var opts []idemflight.CallOption
				if inline {
					opts = append(opts, idemflight.Inline())
				}
				call := start(c, ctx, theKey, func(ctx context.Context) (int, error) {
					t.Errorf("%s: fn must not run", f.name)
					return f.end(ctx, c)
				}, opts...)
				synctest.Wait()
				require.ErrorIs(t, call.err, idemflight.ErrCallerLeft, f.name)
				require.Equal(t, idemflight.Stats{CallerLeft: 1}, c.Stats(), "%s: Stats", f.name)
			})
		}
	}
}

// The same with Reconcile in fn's place: every way for it to end × the callers that wait. All of them may
// leave, the Inline leader too; and where the leader has left, its fn does not follow: those who wait
// look again.
func TestPromise13_ReconcileFaultTable(t *testing.T) {
	type found struct {
		name   string
		end    func(ctx context.Context, c *cache) (int, error)
		took   time.Duration
		want   idemflight.Disposition
		is     error
		panics bool
		reent  bool
		closes bool
	}
	always := func(v int, err error) func(context.Context, *cache) (int, error) {
		return func(context.Context, *cache) (int, error) { return v, err }
	}
	const Release, Retain, Hold = idemflight.Release, idemflight.Retain, idemflight.Hold
	for _, f := range []found{
		{name: "success", took: fnTime, want: Retain, end: always(9, nil)},
		{name: "Final", took: fnTime, want: Retain, is: errFailed, end: always(9, idemflight.Final(errFailed))},
		{name: "Retryable", took: fnTime, want: Release, end: always(9, idemflight.Retryable(errFailed))},
		{name: "error", took: fnTime, want: Hold, is: errFailed, end: always(9, errFailed)},
		{name: "Unknown", took: fnTime, want: Hold, is: errFailed, end: always(9, idemflight.Unknown(errFailed))},
		{name: "dial error", took: fnTime, want: Hold, is: errRefused, end: always(9, errRefused)},
		{name: "timeout", took: execTimeout, want: Hold, is: context.DeadlineExceeded,
			end: func(ctx context.Context, _ *cache) (int, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			}},
		{name: "panic", took: fnTime, want: Hold, is: errPanicked, panics: true,
			end: func(context.Context, *cache) (int, error) { panic(errPanicked) }},
		{name: "Goexit", took: fnTime, want: Hold, is: idemflight.ErrGoexit, panics: true,
			end: func(context.Context, *cache) (int, error) { runtime.Goexit(); return 9, nil }},
		{name: "slow", took: 3 * execTimeout, want: Retain,
			end: func(context.Context, *cache) (int, error) {
				time.Sleep(3*execTimeout - fnTime)
				return 9, nil
			}},
		{name: "re-entrant", took: fnTime, want: Hold, is: idemflight.ErrReentrant, reent: true,
			end: func(ctx context.Context, c *cache) (int, error) {
				return c.Do(ctx, theKey, returns(1, nil))
			}},
		{name: "Close inside", took: fnTime, want: Retain, closes: true,
			end: func(ctx context.Context, c *cache) (int, error) {
				if err := c.Close(ctx); !errors.Is(err, idemflight.ErrReentrant) {
					return 0, fmt.Errorf("Close inside Reconcile must return ErrReentrant, got %v", err)
				}
				return 9, nil
			}},
		// The flight has begun, so it goes on: the execution of fn is a part of it.
		{name: "Close inside, then Retryable", took: fnTime, want: Release, closes: true,
			end: func(ctx context.Context, c *cache) (int, error) {
				_ = c.Close(ctx)
				return 9, idemflight.Retryable(errFailed)
			}},
	} {
		for _, scene := range scenes {
			t.Run(f.name+"/"+scene.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					events := &eventLog[string]{}
					var c *cache
					var running, reconciled, runs int
					opts := options{MaxEntries: fewEntries, ExecTimeout: execTimeout, Observer: events.observe,
						Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
							reconciled++
							running++
							defer func() { running-- }()
							if running != 1 {
								t.Errorf("at most one execution of a key must run, %d do", running)
							}
							if f.name != "timeout" {
								time.Sleep(fnTime)
							}
							return f.end(ctx, c)
						}}
					if scene.full {
						opts.MaxEntries = 1
					}
					c = idemflight.MustNew(opts)
					holdAfterASecond(t, c, theKey)
					calls := 1
					fn := func(context.Context) (int, error) {
						runs++
						running++
						defer func() { running-- }()
						if running != 1 {
							t.Errorf("at most one execution of a key must run, %d do", running)
						}
						time.Sleep(fnTime)
						return 8, nil
					}
					call := func(ctx context.Context, key string) *pending[int] {
						calls++
						var opts []idemflight.CallOption
						if scene.inline {
							opts = append(opts, idemflight.Inline())
						}
						return start(c, ctx, key, fn, opts...)
					}
					leaderCtx, leaderLeaves := context.WithCancel(context.Background())
					defer leaderLeaves()
					if scene.own && !scene.leaderGone {
						leaderCtx = context.Background()
					}
					began := time.Now()
					leader := call(leaderCtx, theKey)
					synctest.Wait()
					joinedCtx, joinedLeave := context.WithCancel(context.Background())
					defer joinedLeave()
					var stay, leave []*pending[int]
					for i := range scene.joined {
						if i < scene.gone {
							leave = append(leave, call(joinedCtx, theKey))
						} else {
							stay = append(stay, call(context.Background(), theKey))
						}
					}
					synctest.Wait()
					requirePlaces(t, c, 1, 0, 0, "while Reconcile runs")
					want := idemflight.Stats{Executed: 1, Holds: 1}
					if scene.full {
						other := call(context.Background(), "other")
						synctest.Wait()
						require.ErrorIs(t, other.err, idemflight.ErrFull,
							"the held key's place is its Reconcile's")
						want.Full++
					}
					time.Sleep(time.Second)
					leaderLeft := scene.leaderGone // whoever it is
					if leaderLeft {
						leaderLeaves()
						leave = append(leave, leader)
					} else {
						stay = append(stay, leader)
					}
					joinedLeave()
					synctest.Wait()
					for _, gone := range leave {
						require.True(t, gone.returned(), "a caller that leaves must return at once")
						require.ErrorIs(t, gone.err, idemflight.ErrCallerLeft, "a caller that left")
						require.ErrorIs(t, gone.err, context.Canceled, "a caller that left: its context's error")
						require.Zero(t, gone.res, "a caller that left obtained nothing")
						want.CallerLeft++
					}
					// Whose fn runs, if any, after a Retryable.
					follows := f.want == Release && !leaderLeft
					again := f.want == Release && leaderLeft && len(stay) > 0 && !f.closes
					total := f.took
					if follows || again {
						total += fnTime
					}
					time.Sleep(total - time.Since(began) - time.Nanosecond)
					synctest.Wait()
					requirePlaces(t, c, 1, 0, 0, "until the flight ends")
					time.Sleep(2 * time.Nanosecond)
					synctest.Wait()

					require.Equal(t, 1, reconciled, "runs of Reconcile")
					became := f.want
					value, source := 9, idemflight.Reconciled
					switch {
					case follows:
						value, source, became = 8, idemflight.Executed, Retain
						require.Equal(t, 1, runs, "fn must run in the same flight")
					case again:
						value, became = 8, Retain
						require.Equal(t, 1, runs, "the fn of one of those who waited must run")
					default:
						require.Zero(t, runs, "fn must not run")
					}
					executed := 0
					for i, caller := range stay {
						who, src := fmt.Sprintf("joined caller %d", i), idemflight.Joined
						if caller == leader {
							who, src = "the leader", source
						}
						require.True(t, caller.returned(), "%s must not be stranded", who)
						require.Nil(t, caller.panicked, "%s must not panic", who)
						require.False(t, caller.exited, "%s must not exit", who)
						if again && caller.res.Source == idemflight.Executed {
							executed++
							src = idemflight.Executed
						}
						switch {
						case f.want == Release && leaderLeft && f.closes:
							require.ErrorIs(t, caller.err, idemflight.ErrClosed, "%s looks again, and the cache is closed", who)
							want.Closed++
							continue
						case f.is != nil:
							require.ErrorIs(t, caller.err, f.is, who)
						default:
							require.NoError(t, caller.err, who)
						}
						require.Equal(t, f.want == Hold, errors.Is(caller.err, idemflight.ErrOutcomeUnknown), "%s: ErrOutcomeUnknown exactly when held again, got %v", who, caller.err)
						if f.want == Hold {
							want.OutcomeUnknown++
							require.Equal(t, idemflight.NoOutcome, caller.res.Source, "%s: Source", who)
							continue
						}
						require.Equal(t, value, caller.res.Value, "%s: Value", who)
						require.Equal(t, src, caller.res.Source, "%s: Source", who)
						switch src {
						case idemflight.Joined:
							want.Joined++
						case idemflight.Reconciled:
							want.Reconciled++
						default:
							want.Executed++
						}
					}
					require.Equal(t, again, executed == 1, "one of those who look again leads, %d did", executed)
					kept, held := 1, 0
					switch f.want {
					case Retain:
						want.Retains++
					case Release:
						want.Releases++
						if follows || again {
							want.Retains++
						} else {
							kept = 0
						}
					case Hold:
						want.Holds++
						held = 1
					}
					if f.panics {
						want.Panics++
					}
					if f.reent {
						want.Reentrant++
						calls++
					}
					want.Entries, want.Held = kept, held
					require.Equal(t, became, dispositionOf(t, c, theKey), "what became of the key")
					require.Equal(t, want, c.Stats(), "Stats after the flight")
					require.Equal(t, uint64(calls), sumOfCalls(c.Stats()),
						"the sum of the counters of calls must be the number of calls")
					requirePlaces(t, c, 0, kept, held, "after the flight")
					require.NoError(t, c.CheckInvariants(), "after the flight")

					// Reconcile runs once per call that meets the key held, unless it has just learned
					// nothing, and never for one that is not.
					if f.want == Hold {
						inPause := call(context.Background(), theKey)
						synctest.Wait()
						require.True(t, inPause.returned(), "a call in the pause must not hang")
						require.Equal(t, 1, reconciled, "a call in the pause must not ask Reconcile")
						require.ErrorIs(t, inPause.err, idemflight.ErrOutcomeUnknown, "a call in the pause")
						require.ErrorIs(t, inPause.err, f.is, "a call in the pause gets what the last Reconcile said")
						time.Sleep(reconcilePause)
					}
					next := call(context.Background(), theKey)
					time.Sleep(time.Hour)
					synctest.Wait()
					require.True(t, next.returned(), "the next call must not hang")
					switch {
					case f.want == Hold:
						require.Equal(t, 2, reconciled, "the next call must ask Reconcile again")
						require.ErrorIs(t, next.err, idemflight.ErrOutcomeUnknown, "the next call")
					case kept == 0 && f.closes:
						require.ErrorIs(t, next.err, idemflight.ErrClosed, "the next call")
						require.Zero(t, runs)
					case kept == 0:
						require.Equal(t, 1, reconciled, "the next call must not ask Reconcile")
						require.Equal(t, 1, runs, "the next call must run its fn")
						require.Equal(t, idemflight.Executed, next.res.Source, "the next call's source")
					default:
						require.Equal(t, 1, reconciled, "the next call must not ask Reconcile")
						require.Equal(t, idemflight.Replayed, next.res.Source,
							"the next call's source")
						require.Equal(t, value, next.res.Value, "the next call's value")
					}
					if f.reent {
						calls++
					}
					require.Len(t, events.of(idemflight.EventExecuted, idemflight.EventJoined, idemflight.EventReplayed, idemflight.EventReconciled,
						idemflight.EventRejected, idemflight.EventCallerLeft), calls, "call events")
					finished := events.of(idemflight.EventFinished)
					require.Len(t, finished, map[bool]int{true: 1, false: 0}[leaderLeft],
						"EventFinished exactly when the leader left")
					for _, ev := range finished {
						require.Equal(t, f.want, ev.Disposition, "Disposition of EventFinished, of the flight that the leader left")
						require.Equal(t, f.took, ev.Took, "Took of EventFinished")
					}
				})
			})
		}
	}
}
