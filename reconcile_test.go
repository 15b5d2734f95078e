package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// reconcileArgs is what one run of Reconcile was given.
type reconcileArgs struct {
	key       string
	entry     idemflight.Entry[int]
	value     any
	goroutine string
}

func TestPromise13_ReconcileIsSingleFlightAndGivesWhatItFoundToAll(t *testing.T) {
	declined := errors.New("declined")
	for name, r := range map[string]struct {
		err  error
		want error
	}{
		"nil":           {nil, nil},
		"Final":         {idemflight.Final(declined), declined},
		"wrapped Final": {fmt.Errorf("found: %w", idemflight.Final(declined)), declined},
		"joined Final":  {errors.Join(idemflight.Final(declined), idemflight.Retryable(io.EOF)), declined},
	} {
		for _, how := range []string{"can leave", "cannot leave", "Inline"} {
			synctest.Test(t, func(t *testing.T) {
				what := name + ", leader " + how
				var seen []reconcileArgs
				running := 0
				events := &eventLog[string]{}
				c := idemflight.MustNew(options{
					TTL: time.Hour, HoldTTL: 24 * time.Hour, Observer: events.observe,
					Reconcile: func(ctx context.Context, key string, held idemflight.Entry[int]) (int, error) {
						running++
						if running != 1 {
							t.Errorf("%s: Reconcile must be single-flight, %d run", what, running)
						}
						seen = append(seen, reconcileArgs{key, held, ctx.Value(nameKey{}), goroutineID()})
						if ctx.Err() != nil {
							t.Errorf("%s: Reconcile's context has ended: %v", what, ctx.Err())
						}
						time.Sleep(time.Minute)
						running--
						return 9, r.err
					},
				})
				fp := idemflight.FingerprintOf([]byte("payload"))
				holdAfterASecond(t, c, theKey, idemflight.WithFingerprint(fp))
				held, _ := lookup(c, theKey)
				time.Sleep(time.Minute)

				base := context.Background()
				if how == "can leave" {
					base = t.Context()
				}
				opts := []idemflight.CallOption{idemflight.WithFingerprint(fp), idemflight.WithMaxWait(time.Minute + 1)}
				if how == "Inline" {
					opts = append(opts, idemflight.Inline())
				}
				var goroutine string
				leader := startCall(func() (idemflight.Result[int], error) {
					goroutine = goroutineID()
					return c.DoResult(context.WithValue(base, nameKey{}, "asks"), theKey, neverRuns(t), opts...)
				})
				synctest.Wait()
				require.False(t, leader.returned(),
					"%s: Reconcile answers within its MaxWait", what)
				var joined []*pending[int]
				for range 2 {
					joined = append(joined, start(c, context.WithValue(t.Context(), nameKey{}, "joins"), theKey, neverRuns(t), idemflight.WithFingerprint(fp)))
				}
				synctest.Wait()
				s := c.Stats()
				require.Equal(t, [4]int{1, 2, 0, 0}, [4]int{s.InFlight, s.Waiters, s.Held, c.Len()},
					"%s: InFlight, Waiters, Held, Len while Reconcile runs", what)
				_, err := c.Do(t.Context(), theKey, neverRuns(t))
				require.ErrorIs(t, err, idemflight.ErrKeyReused,
					"%s: the fingerprint of the held entry goes on to count", what)
				time.Sleep(time.Minute)
				synctest.Wait()

				require.Len(t, seen, 1, "%s: runs of Reconcile", what)
				require.Equal(t, theKey, seen[0].key, "%s: the key Reconcile gets", what)
				require.Equal(t, held, seen[0].entry,
					"%s: Reconcile must get the entry that was held", what)
				require.Equal(t, "asks", seen[0].value,
					"%s: Reconcile's context must carry the values of the call that asks", what)
				require.NotEqual(t, goroutine, seen[0].goroutine,
					"%s: Reconcile must not run on a caller's goroutine", what)
				for i, call := range append(joined, leader) {
					require.True(t, call.returned(), "%s: caller %d must have its answer", what, i)
					require.Equal(t, 9, call.res.Value,
						"%s: what Reconcile found, caller %d", what, i)
					require.True(t, call.res.CompletedAt.Equal(time.Now()),
						"%s: CompletedAt, caller %d", what, i)
					require.True(t, call.res.ExpiresAt.Equal(time.Now().Add(time.Hour)),
						"%s: ExpiresAt, caller %d", what, i)
					if r.want == nil {
						require.NoError(t, call.err, "%s, caller %d", what, i)
						continue
					}
					require.ErrorIs(t, call.err, r.want, "%s, caller %d", what, i)
					require.NotErrorIs(t, call.err, idemflight.ErrOutcomeUnknown,
						"%s, caller %d: it is known now", what, i)
					requireNoMarker(t, call.err, what)
					if name == "Final" {
						require.True(t, call.err == r.want, "%s, caller %d: must get the marked error itself, got %#v", what, i, call.err)
					}
				}
				require.Equal(t, idemflight.Reconciled, leader.res.Source,
					"%s: the leader's source", what)
				require.Equal(t, idemflight.Joined, joined[0].res.Source,
					"%s: a joined caller's source", what)
				require.Equal(t, idemflight.Joined, joined[1].res.Source,
					"%s: a joined caller's source", what)

				res, err := c.DoResult(t.Context(), theKey, neverRuns(t), idemflight.WithFingerprint(fp))
				require.True(t, err == leader.err, "%s: the replay's error, got %#v", what, err)
				require.Equal(t, idemflight.Replayed, res.Source,
					"%s: afterwards it is retained", what)
				require.Equal(t, 9, res.Value, "%s: replayed value", what)
				e, _ := lookup(c, theKey)
				require.Equal(t, fp, e.Fingerprint, "%s: the fingerprint is kept", what)

				require.Equal(t, idemflight.Stats{
					Executed: 1, Reconciled: 1, Joined: 2, Replayed: 1, KeyReused: 1, Holds: 1, Retains: 1, Entries: 1,
				}, c.Stats(), "%s: Stats", what)
				told := events.of(idemflight.EventReconciled)
				require.Len(t, told, 1, "%s: EventReconciled", what)
				require.Equal(t, idemflight.Event[string]{
					Kind: idemflight.EventReconciled, Key: theKey, Err: leader.err, Took: time.Minute, Waiters: 2, Disposition: idemflight.Retain, Led: true,
				}, told[0], "%s: EventReconciled", what)
				require.Len(t, events.of(idemflight.EventJoined), 2, "%s: EventJoined", what)
				require.Len(t, events.of(), 6,
					"%s: all events: of the flight that held, 3 callers, 1 reused, 1 replay", what)
			})
		}
	}
}

func TestPromise13_RetryableFromReconcileRunsFnInTheSameFlight(t *testing.T) {
	for _, how := range []string{"can leave", "Inline"} {
		for name, f := range map[string]struct {
			err  error
			want idemflight.Disposition
		}{
			"success":   {nil, idemflight.Retain},
			"transient": {errors.New("transient"), idemflight.Release}, // after NoEffect
			"ambiguous": {io.EOF, idemflight.Hold},                     // said nothing
			"Final":     {idemflight.Final(errors.New("declined")), idemflight.Retain},
		} {
			synctest.Test(t, func(t *testing.T) {
				what := fmt.Sprintf("fn after Reconcile: %s, leader %s", name, how)
				var reconciling, executing int
				var fnOn string
				events := &eventLog[string]{}
				c := idemflight.MustNew(options{
					MaxEntries: 1, ExecTimeout: time.Minute, HoldTTL: -1, Observer: events.observe,
					Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
						reconciling++
						_ = idemflight.BeginEffect(ctx)
						time.Sleep(50 * time.Second)
						return 1, idemflight.Retryable(errors.New("the bank knows nothing of it"))
					},
				})
				holdAfterASecond(t, c, theKey)
				began := time.Now()
				fn := func(ctx context.Context) (int, error) {
					executing++
					fnOn = goroutineID()
					if v := ctx.Value(nameKey{}); v != "asks" {
						t.Errorf("%s: fn's context must carry the leader's values, got %v", what, v)
					}
					time.Sleep(59 * time.Second)
					if err := idemflight.BeginEffect(ctx); err != nil {
						t.Errorf("%s: fn has an ExecTimeout of its own, after 59s of 60 BeginEffect: %v", what, err)
					}
					idemflight.NoEffect(ctx)
					<-ctx.Done()
					if ran := time.Since(began); ran != 110*time.Second {
						t.Errorf("%s: fn's context must end ExecTimeout after fn started, 50s+60s; it ended after %v", what, ran)
					}
					return 8, f.err
				}
				if name == "ambiguous" { // BeginEffect and NoEffect would release it
					fn = func(context.Context) (int, error) {
						executing++
						fnOn = goroutineID()
						time.Sleep(60 * time.Second)
						return 8, f.err
					}
				}
				opts := []idemflight.CallOption{idemflight.WithTTL(2 * time.Hour)}
				if how == "Inline" {
					opts = append(opts, idemflight.Inline())
				}
				var callerOn string
				ctx, cancel := context.WithCancel(context.WithValue(t.Context(), nameKey{}, "asks"))
				defer cancel()
				leader := startCall(func() (idemflight.Result[int], error) {
					callerOn = goroutineID()
					return c.DoResult(ctx, theKey, fn, opts...)
				})
				synctest.Wait()
				early := start(c, t.Context(), theKey, neverRuns(t)) // joins while Reconcile runs
				time.Sleep(55 * time.Second)
				synctest.Wait()
				require.Equal(t, 1, executing, "%s: fn must run now", what)
				e, ok := lookup(c, theKey)
				require.True(t, ok)
				require.Equal(t, idemflight.InFlight, e.State, "%s: it is the same flight", what)
				require.False(t, early.returned(),
					"%s: a caller that joined while Reconcile ran waits for fn", what)
				require.False(t, resolve(c, theKey, 5, nil),
					"%s: nothing is held while fn runs", what)
				late := start(c, t.Context(), theKey, neverRuns(t)) // joins while fn runs
				time.Sleep(55 * time.Second)
				synctest.Wait()

				require.Equal(t, [2]int{1, 1}, [2]int{reconciling, executing},
					"%s: runs of Reconcile and fn", what)
				if how == "Inline" {
					require.Equal(t, callerOn, fnOn,
						"%s: fn must run on the calling goroutine", what)
				}
				for who, call := range map[string]*pending[int]{"leader": leader, "early": early, "late": late} {
					require.True(t, call.returned(), "%s: %s must have its answer", what, who)
					require.Equal(t, 8, call.res.Value, "%s: %s gets fn's value", what, who)
					require.Equal(t, f.want == idemflight.Hold, errors.Is(call.err, idemflight.ErrOutcomeUnknown), "%s: %s got %v", what, who, call.err)
					require.Equal(t, f.err == nil, call.err == nil,
						"%s: %s got %v", what, who, call.err)
					if f.want == idemflight.Retain {
						require.True(t, call.res.ExpiresAt.Equal(time.Now().Add(2*time.Hour)), "%s: %s: the leader's TTL counts, got %v", what, who, call.res.ExpiresAt)
					}
				}
				require.Equal(t, idemflight.Executed, leader.res.Source,
					"%s: the leader's source", what)
				require.Equal(t, idemflight.Joined, early.res.Source,
					"%s: source of a caller that joined while Reconcile ran", what)
				require.Equal(t, f.want, dispositionOf(t, c, theKey),
					"%s: fn's outcome is settled as usual", what)

				want := idemflight.Stats{Executed: 2, Joined: 2, Holds: 1, Releases: 1}
				switch f.want {
				case idemflight.Retain:
					want.Retains, want.Entries = 1, 1
				case idemflight.Release:
					want.Releases++
				case idemflight.Hold:
					want.Holds, want.Entries, want.Held = 2, 1, 1
					e, _ := lookup(c, theKey)
					require.ErrorIs(t, e.Err, f.err, "%s: held anew, with fn's error", what)
					require.True(t, e.CompletedAt.Equal(time.Now()),
						"%s: held anew, from fn's end", what)
				}
				require.Equal(t, want, c.Stats(), "%s: Stats", what)
				told := events.of(idemflight.EventExecuted)
				require.Len(t, told, 2,
					"%s: EventExecuted of the flight that held and of this one", what)
				require.Equal(t, f.want, told[1].Disposition,
					"%s: Disposition of the last execution", what)
				require.Empty(t, events.of(idemflight.EventReconciled, idemflight.EventRejected, idemflight.EventFinished), "%s: no other call events", what)
			})
		}
	}
}

// Inline concerns fn alone: while Reconcile runs, on another goroutine, an inline leader can leave
// like any caller, and its fn then never starts. Once fn runs, the leader stays.
func TestPromise13_InlineLeaderLeavesReconcileAndStaysForFn(t *testing.T) {
	for _, leaves := range []bool{true, false} {
		for answer, end := range map[string]error{"no effect": idemflight.Retryable(errBoom), "found": nil, "no answer": errBoom} {
			synctest.Test(t, func(t *testing.T) {
				what := fmt.Sprintf("%s, the context ends while Reconcile runs: %v", answer, leaves)
				c := idemflight.MustNew(options{
					Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
						time.Sleep(time.Minute)
						if ctx.Err() != nil {
							t.Errorf("%s: Reconcile's context must not end with the caller's: %v", what, ctx.Err())
						}
						return 7, end
					},
				})
				holdAfterASecond(t, c, theKey)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				work := newWork(t)
				var callerOn, fnOn string
				leader := startCall(func() (idemflight.Result[int], error) {
					callerOn = goroutineID()
					return c.DoResult(ctx, theKey, func(ctx context.Context) (int, error) {
						fnOn = goroutineID()
						return work.returns(8, nil)(ctx)
					}, idemflight.Inline())
				})
				synctest.Wait()
				time.Sleep(time.Second)
				if leaves {
					cancel(errEnough)
					synctest.Wait()
					leader.left(t, ctx, errEnough)
					require.Equal(t, time.Second, leader.took(), "%s: it leaves at once", what)
					e, _ := lookup(c, theKey)
					require.Equal(t, idemflight.InFlight, e.State, "%s: Reconcile goes on", what)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if leaves || answer != "no effect" {
					require.True(t, leader.returned(), what)
					require.Zero(t, work.runs.Load(), "%s: fn must not run", what)
					require.Equal(t, map[string]idemflight.Disposition{"no effect": idemflight.Release, "found": idemflight.Retain, "no answer": idemflight.Hold}[answer],
						dispositionOf(t, c, theKey), "%s: the answer is settled as if the leader were there", what)
					return
				}
				require.EqualValues(t, 1, work.running.Load(), "%s: its fn runs", what)
				cancel(errEnough)
				synctest.Wait()
				require.False(t, leader.returned(), "%s: the leader stays until its fn returns", what)
				work.open()
				synctest.Wait()
				leader.got(t, idemflight.Executed, 8)
				require.Equal(t, callerOn, fnOn, "%s: fn must run on the calling goroutine", what)
			})
		}
	}
}

func TestPromise13_ReconcileThatLearnsNothingHoldsAgainAsItWas(t *testing.T) {
	answer := errors.New("the bank does not answer")
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	isPanic := func(value any) func(error) bool {
		return func(err error) bool {
			var p *idemflight.PanicError
			return errors.As(err, &p) && (value == nil || p.Value == value) && len(p.Stack) == 0
		}
	}
	for name, r := range map[string]struct {
		end    func() (int, error)
		want   func(error) bool
		panics uint64
	}{
		"unmarked":         {func() (int, error) { return 0, answer }, is(answer), 0},
		"Unknown":          {func() (int, error) { return 0, idemflight.Unknown(answer) }, is(answer), 0},
		"Unknown(Final)":   {func() (int, error) { return 0, idemflight.Unknown(idemflight.Final(answer)) }, is(answer), 0},
		"what is released": {func() (int, error) { return 0, fmt.Errorf("x: %w", idemflight.ErrFull) }, is(idemflight.ErrFull), 0},
		"join, unmarked part": {func() (int, error) {
			return 0, errors.Join(idemflight.Final(answer), errors.New("harmless"))
		}, is(answer), 0},
		"join, Retryable and unmarked": {func() (int, error) {
			return 0, errors.Join(idemflight.Retryable(answer), errors.New("harmless"))
		}, is(answer), 0},
		"error with a marked panic": {func() (int, error) {
			return 0, &idemflight.PanicError{Value: idemflight.Retryable(answer), Stack: []byte("s")}
		}, is(answer), 0},
		"panic":             {func() (int, error) { panic("boom") }, isPanic("boom"), 1},
		"panic(error)":      {func() (int, error) { panic(answer) }, is(answer), 1},
		"panic(marked)":     {func() (int, error) { panic(idemflight.Retryable(answer)) }, isPanic(nil), 1},
		"panic(nil)":        {func() (int, error) { panic(nil) }, isPanic(nil), 1}, //nolint:govet
		"Goexit":            {func() (int, error) { runtime.Goexit(); return 0, nil }, is(idemflight.ErrGoexit), 1},
		"runtime panic":     {func() (int, error) { var none []int; return none[len(none)], nil }, isPanic(nil), 1},
		"own ErrReentrant":  {func() (int, error) { return 0, idemflight.ErrReentrant }, is(idemflight.ErrReentrant), 0},
		"context's own end": {func() (int, error) { return 0, context.DeadlineExceeded }, is(context.DeadlineExceeded), 0},
	} {
		for _, holdTTL := range []time.Duration{2 * time.Hour, -1} {
			for _, how := range []string{"can leave", "cannot leave", "Inline"} {
				synctest.Test(t, func(t *testing.T) {
					what := fmt.Sprintf("Reconcile: %s, HoldTTL %v, leader %s", name, holdTTL, how)
					events := &eventLog[string]{}
					runs := 0
					c := idemflight.MustNew(options{
						TTL: time.Hour, HoldTTL: holdTTL, Observer: events.observe,
						Classify: func(error) idemflight.Disposition {
							t.Errorf("%s: only markers count in Reconcile, Classify must not be asked", what)
							return idemflight.Release
						},
						Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
							runs++
							time.Sleep(time.Minute)
							return r.end()
						},
					})
					fp := idemflight.FingerprintOf([]byte("payload"))
					holdAfterASecond(t, c, theKey, idemflight.WithFingerprint(fp))
					before, _ := lookup(c, theKey)
					require.Equal(t, holdTTL < 0, before.ExpiresAt.IsZero(),
						"ExpiresAt under HoldTTL %v", holdTTL)
					for round := 1; round <= 2; round++ {
						time.Sleep(90 * time.Minute) // twice this is longer than HoldTTL: the hold starts anew
						ctx := context.Background()
						opts := []idemflight.CallOption{idemflight.WithFingerprint(fp), idemflight.WithTTL(time.Second)}
						switch how {
						case "can leave":
							ctx = t.Context()
						case "Inline":
							opts = append(opts, idemflight.Inline())
						}
						leader := start(c, ctx, theKey, neverRuns(t), opts...)
						synctest.Wait()
						joined := start(c, t.Context(), theKey, neverRuns(t), idemflight.WithFingerprint(fp))
						time.Sleep(time.Minute)
						synctest.Wait()
						for who, call := range map[string]*pending[int]{"leader": leader, "joined": joined} {
							require.True(t, call.returned(),
								"%s: %s must have its answer", what, who)
							require.Nil(t, call.panicked,
								"%s: the panic must not reach the %s", what, who)
							require.False(t, call.exited,
								"%s: the Goexit must not reach the %s", what, who)
							require.ErrorIs(t, call.err, idemflight.ErrOutcomeUnknown,
								"%s: %s", what, who)
							require.True(t, r.want(call.err),
								"%s: %s: must wrap the new error, got %v", what, who, call.err)
							require.Equal(t, idemflight.NoOutcome, call.res.Source,
								"%s: %s obtained no outcome", what, who)
							if round == 1 && who == "joined" { // both get the same; once is enough
								requireNoMarker(t, call.err, what+": "+who)
							}
						}
						require.Equal(t, round, runs, "%s: runs of Reconcile", what)
						after, _ := lookup(c, theKey)
						want := before
						if holdTTL > 0 {
							require.True(t, after.ExpiresAt.Equal(time.Now().Add(holdTTL)),
								"%s: HoldTTL anew, got %v", what, after.ExpiresAt)
							want.ExpiresAt = after.ExpiresAt
						}
						require.Equal(t, want, after,
							"%s: held again as it was: error, times, fingerprint", what)
						n := uint64(round)
						require.Equal(t, idemflight.Stats{
							Executed: 1, OutcomeUnknown: 2 * n, Holds: 1 + n, Panics: n * r.panics, Entries: 1, Held: 1,
						}, c.Stats(), "%s: Stats", what)
						rejected := events.of(idemflight.EventRejected)
						require.Len(t, rejected, 2*round, "%s: calls whose Reconcile learned nothing are EventRejected, the joined ones too", what)
						for _, ev := range rejected {
							require.ErrorIs(t, ev.Err, idemflight.ErrOutcomeUnknown,
								"%s: Event.Err", what)
							require.True(t, r.want(ev.Err),
								"%s: Event.Err is what the call returned, got %v", what, ev.Err)
						}
						require.Len(t, events.of(), 1+2*round, "%s: all events", what)
					}
					if holdTTL > 0 {
						time.Sleep(holdTTL)
						_, ok := lookup(c, theKey)
						require.False(t, ok, "%s: the hold must have expired", what)
						require.Zero(t, c.Len(), "%s: Len", what)
					}
				})
			}
		}
	}
}

func TestPromise13_LeadersTTLCountsForAReconciledOutcomeAndZeroDoesNot(t *testing.T) {
	for name, c := range map[string]struct {
		opts []idemflight.CallOption
		want time.Duration
	}{
		"none":               {nil, time.Hour},
		"WithTTL(3h)":        {[]idemflight.CallOption{idemflight.WithTTL(3 * time.Hour)}, 3 * time.Hour},
		"WithTTL(1s)":        {[]idemflight.CallOption{idemflight.WithTTL(time.Second)}, time.Second},
		"WithTTL(0)":         {[]idemflight.CallOption{idemflight.WithTTL(0)}, time.Hour},
		"WithTTL(-1), as 0":  {[]idemflight.CallOption{idemflight.WithTTL(-1)}, time.Hour},
		"WithTTL(0), Inline": {[]idemflight.CallOption{idemflight.WithTTL(0), idemflight.Inline()}, time.Hour},
	} {
		for _, found := range []error{nil, idemflight.Final(errors.New("declined"))} {
			synctest.Test(t, func(t *testing.T) {
				cache := idemflight.MustNew(options{
					TTL: time.Hour, HoldTTL: -1,
					Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
						time.Sleep(time.Minute)
						return 9, found
					},
				})
				holdAfterASecond(t, cache, theKey)
				leader := start(cache, t.Context(), theKey, neverRuns(t), c.opts...)
				synctest.Wait()
				joined := start(cache, t.Context(), theKey, neverRuns(t), idemflight.WithTTL(30*time.Hour)) // not the leader
				time.Sleep(time.Minute)
				synctest.Wait()
				for _, call := range []*pending[int]{leader, joined} {
					require.True(t, call.res.ExpiresAt.Equal(time.Now().Add(c.want)), "%s: ExpiresAt, want in %v, got in %v", name, c.want, time.Until(call.res.ExpiresAt))
				}
				time.Sleep(c.want - time.Nanosecond)
				res, _ := cache.DoResult(t.Context(), theKey, neverRuns(t))
				require.Equal(t, idemflight.Replayed, res.Source,
					"%s: replayed until its TTL", name)
				time.Sleep(time.Nanosecond)
				_, ok := lookup(cache, theKey)
				require.False(t, ok, "%s: expired", name)
			})
		}
	}

	// For the fn that follows a Retryable, WithTTL(0) means what it always means.
	synctest.Test(t, func(t *testing.T) {
		cache := idemflight.MustNew(options{
			Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
				return 9, idemflight.Retryable(errBoom)
			},
		})
		holdAfterASecond(t, cache, theKey)
		v, err := cache.Do(t.Context(), theKey, returns(8, nil), idemflight.WithTTL(0))
		require.NoError(t, err)
		require.Equal(t, 8, v)
		require.Zero(t, cache.Len(), "fn's outcome under WithTTL(0)")
	})
}

// A held key answers as without Reconcile to a caller that could not lead an execution.
func TestPromise13_NoReconcileForAnEndedContextOrAClosedCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{
			Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
				t.Error("Reconcile must not run")
				return 9, nil
			},
		})
		holdAfterASecond(t, c, theKey)
		dead, cancel := context.WithCancel(t.Context())
		cancel()
		for _, opts := range [][]idemflight.CallOption{nil, {idemflight.Inline()}} {
			res, err := c.DoResult(dead, theKey, neverRuns(t), opts...)
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "own context ended")
			require.ErrorIs(t, err, errBoom, "own context ended: the original")
			require.Equal(t, idemflight.NoOutcome, res.Source)
		}
		require.NoError(t, c.Close(t.Context()))
		_, err := c.Do(t.Context(), theKey, neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "closed")
		require.NotErrorIs(t, err, idemflight.ErrClosed, "closed")
		require.Equal(t, idemflight.Stats{Executed: 1, OutcomeUnknown: 3, Holds: 1, Entries: 1, Held: 1}, c.Stats(), "Stats")
		require.True(t, resolve(c, theKey, 5, nil), "by hand it can be settled after Close, too")
	})
}

func TestPromise13_ReconcileGoesOnWhenAllHaveLeft(t *testing.T) {
	for name, r := range map[string]struct {
		err   error
		want  idemflight.Disposition
		stats idemflight.Stats
	}{
		"found":           {nil, idemflight.Retain, idemflight.Stats{Retains: 1, Entries: 1}},
		"learned nothing": {errors.New("no answer"), idemflight.Hold, idemflight.Stats{Holds: 1, Entries: 1, Held: 1}},
		"Retryable":       {idemflight.Retryable(errBoom), idemflight.Release, idemflight.Stats{Releases: 1}},
	} {
		for how, leave := range map[string][]idemflight.CallOption{
			"their contexts ended": nil,
			"their MaxWait ran":    {idemflight.WithMaxWait(time.Second)},
			"they may not wait":    {idemflight.WithMaxWait(idemflight.NoWait)},
			"Inline":               {idemflight.Inline()},
		} {
			synctest.Test(t, func(t *testing.T) {
				what := name + ", " + how
				events := &eventLog[string]{}
				c := idemflight.MustNew(options{
					Observer: events.observe,
					Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
						time.Sleep(time.Minute)
						if ctx.Err() != nil {
							t.Errorf("%s: Reconcile's context must not end with its caller's: %v", what, ctx.Err())
						}
						return 9, r.err
					},
				})
				holdAfterASecond(t, c, theKey)
				ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), nameKey{}, "leader's"), time.Second+1)
				defer cancel()
				leader := start(c, ctx, theKey, neverRuns(t), leave...)
				synctest.Wait()
				joined := start(c, ctx, theKey, neverRuns(t), leave...)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				kind, left := idemflight.EventCallerLeft, idemflight.ErrCallerLeft
				if leave != nil && how != "Inline" {
					kind, left = idemflight.EventRejected, idemflight.ErrInFlight
				}
				for _, call := range []*pending[int]{leader, joined} {
					require.True(t, call.returned(), "%s: must have left at once", what)
					require.ErrorIs(t, call.err, left, what)
					require.Zero(t, call.res, "%s: no outcome was obtained", what)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				require.Equal(t, r.want, dispositionOf(t, c, theKey),
					"%s: the answer is settled as usual, and fn never starts for one who has left", what)
				want := r.stats
				want.Executed, want.Holds = 1, want.Holds+1
				if kind == idemflight.EventRejected {
					want.NotWaited = 2
				} else {
					want.CallerLeft = 2
				}
				require.Equal(t, want, c.Stats(), "%s: Stats", what)
				finished := events.seen(idemflight.EventFinished)
				require.Len(t, finished, 1, "%s: one EventFinished, for the last execution", what)
				require.Equal(t, r.want, finished[0].Disposition, "%s: EventFinished", what)
				require.Equal(t, time.Minute, finished[0].Took, "%s: EventFinished", what)
				require.Equal(t, "leader's", finished[0].ctx.Value(nameKey{}), "%s: EventFinished has the context of the execution", what)
				require.Len(t, events.of(kind), 2, "%s: the callers' events", what)
				require.Len(t, events.of(), 4, "%s: all events", what)
				if r.want == idemflight.Release {
					executes(t, c, theKey, 5)
				}
			})
		}
	}
}

func TestPromise13_ReconcileHasExecTimeoutAsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{
			ExecTimeout: time.Minute,
			Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
				<-ctx.Done()
				return 9, ctx.Err()
			},
		})
		holdAfterASecond(t, c, theKey)
		start := time.Now()
		_, err := c.Do(context.Background(), theKey, neverRuns(t))
		require.Equal(t, time.Minute, time.Since(start),
			"Reconcile's context must end ExecTimeout after its start")
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestPromise13_ReconcileIsAnExecutionOfItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c *cache
		c = idemflight.MustNew(options{
			Reconcile: func(ctx context.Context, key string, _ idemflight.Entry[int]) (int, error) {
				_, err := c.Do(ctx, key, neverRuns(t))
				if !errors.Is(err, idemflight.ErrReentrant) {
					t.Errorf("Do for the same key from inside Reconcile must return ErrReentrant, got %v", err)
				}
				_, err = c.Do(context.Background(), key, neverRuns(t), idemflight.WithMaxWait(idemflight.NoWait))
				if !errors.Is(err, idemflight.ErrInFlight) {
					t.Errorf("a caller that may not wait must get ErrInFlight while Reconcile runs, got %v", err)
				}
				v, err := c.Do(ctx, "other", returns(3, nil))
				if v != 3 || err != nil {
					t.Errorf("Do for another key from inside Reconcile: %v, %v", v, err)
				}
				return 9, nil
			},
		})
		holdAfterASecond(t, c, theKey)
		v, err := c.Do(t.Context(), theKey, neverRuns(t))
		require.NoError(t, err)
		require.Equal(t, 9, v)
		require.Equal(t, uint64(1), c.Stats().Reentrant, "Stats.Reentrant")
	})
}

// What an operator or Reconcile brings is an outcome like any other: it is weighed, and what was
// held until then weighed nothing.
func TestPromise13_WhatIsFoundIsWeighedLikeAnyOutcome(t *testing.T) {
	for name, settle := range map[string]func(*testing.T, *cache){
		"Resolve": func(t *testing.T, c *cache) {
			require.True(t, resolve(c, theKey, 5, nil), "Resolve of a held key")
		},
		"Reconcile": func(t *testing.T, c *cache) {
			v, err := c.Do(t.Context(), theKey, neverRuns(t))
			require.NoError(t, err)
			require.Equal(t, 5, v)
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{
				MaxWeight: 10, Weigh: func(_ string, v int) int64 { return int64(v) },
				Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) { return 5, nil },
			})
			_, err := c.Do(t.Context(), "older", returns(6, nil))
			require.NoError(t, err)
			holdAfterASecond(t, c, theKey)
			require.Equal(t, int64(6), c.Stats().Weight, "%s: what is held weighs nothing", name)
			settle(t, c)
			require.Equal(t, int64(5), c.Stats().Weight,
				"%s: the older value must have been shed for it", name)
			_, err = c.Do(t.Context(), "older", neverRuns(t))
			require.ErrorIs(t, err, idemflight.ErrValueShed, "%s: the older key", name)
			v, err := c.Do(t.Context(), theKey, neverRuns(t))
			require.NoError(t, err, "%s: what was found", name)
			require.Equal(t, 5, v, "%s: what was found", name)
		})
	}
}

// A bank that is down is not asked by every retry: for a second after it failed to answer, calls
// get the error it gave then, without waiting.
func TestPromise13_ReconcileIsAskedOnceASecond(t *testing.T) {
	for name, took := range map[string]time.Duration{"at once": 0, "after a minute": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &eventLog[string]{}
				var asked []time.Time
				c := idemflight.MustNew(options{Observer: log.observe, Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
					time.Sleep(took)
					asked = append(asked, time.Now()) // when it answers
					return 9, fmt.Errorf("attempt %d: %w", len(asked), errNoAnswer)
				}})
				fp := idemflight.WithFingerprint(fingerprint(1))
				holdAfterASecond(t, c, theKey, fp)
				log.clear()
				const calls = 40
				for i := range calls {
					began := time.Now()
					res, err := c.DoResult(bg, theKey, neverRuns(t), fp, idemflight.WithMaxWait(time.Hour))
					require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "call %d", i)
					require.ErrorIs(t, err, errNoAnswer, "call %d is told Reconcile's error", i)
					require.NotErrorIs(t, err, errBoom, "call %d is told Reconcile's error", i)
					require.Contains(t, err.Error(), fmt.Sprintf(": Reconcile learned nothing: attempt %d: ", len(asked)), "call %d is told the last one", i)
					require.Zero(t, res, "call %d obtained no outcome", i)
					if i%4 != 0 {
						require.Zero(t, time.Since(began), "call %d must not wait", i)
					}
					require.Len(t, asked, i/4+1, "call %d: every fourth asks, the first after a second has passed", i)
					_, err = c.Do(bg, theKey, neverRuns(t))
					require.ErrorIs(t, err, idemflight.ErrKeyReused, "the fingerprint comes first")
					if i%4 == 3 { // 1 ns less than a second has passed
						time.Sleep(time.Nanosecond)
					} else {
						time.Sleep(time.Second / 3)
					}
				}
				for i := range asked[1:] {
					require.Equal(t, took+time.Second, asked[i+1].Sub(asked[i]), "the second counts from the answer")
				}
				require.EqualValues(t, calls, c.Stats().OutcomeUnknown, "all count alike")
				require.EqualValues(t, 1+calls/4, c.Stats().Holds, "executions that held")
				told := log.of(idemflight.EventRejected)
				require.Len(t, told, 2*calls, "all are told alike")
				for i := range calls {
					require.ErrorIs(t, told[2*i].Err, errNoAnswer, "the event has the error of the call")
					if i%4 != 0 {
						require.Zero(t, told[2*i].Took, "it did not wait")
					}
				}
			})
		})
	}
}

// The pause belongs to one hold: Reconcile is still asked about other keys, and about a new hold of
// the same key.
func TestPromise13_ThePauseIsOfOneHold(t *testing.T) {
	for name, settle := range map[string]func(t *testing.T, c *cache){
		"resolved": func(t *testing.T, c *cache) {
			require.NoError(t, c.Resolve(bg, theKey, 0, idemflight.Retryable(errBoom)))
		},
		"forgotten": func(t *testing.T, c *cache) { require.True(t, forget(c, theKey)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := map[string]int{}
				c := idemflight.MustNew(options{Reconcile: func(_ context.Context, key string, _ idemflight.Entry[int]) (int, error) {
					asked[key]++
					return 9, errNoAnswer
				}})
				ask := func(key string) {
					_, err := c.Do(bg, key, neverRuns(t))
					require.ErrorIs(t, err, errNoAnswer)
				}
				hold(t, c, theKey)
				hold(t, c, "other")
				ask(theKey)
				ask(theKey)
				ask("other")
				ask("other")
				require.Equal(t, map[string]int{theKey: 1, "other": 1}, asked, "each is asked about once")
				settle(t, c)
				hold(t, c, theKey)
				ask(theKey)
				ask(theKey)
				ask("other")
				require.Equal(t, map[string]int{theKey: 2, "other": 1}, asked, "a new hold asks at once, and once")
			})
		})
	}
}

// An operator does not obey the pause, and begins one.
func TestPromise13_AnOperatorBeginsThePauseAndDoesNotObeyIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		c := idemflight.MustNew(options{Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
			asked++
			return 9, fmt.Errorf("attempt %d: %w", asked, errNoAnswer)
		}})
		hold(t, c, theKey)
		for i := range 3 {
			_, err := c.Reconcile(bg, theKey)
			require.ErrorIs(t, err, errNoAnswer)
			require.Equal(t, i+1, asked, "an operator asks though nothing was learned a moment ago")
			time.Sleep(time.Second / 2)
		}
		call := func() error {
			_, err := c.Do(bg, theKey, neverRuns(t))
			require.ErrorIs(t, err, errNoAnswer)
			return err
		}
		require.ErrorContains(t, call(), "attempt 3: ", "calls are told what the operator was told")
		require.Equal(t, 3, asked, "for a second after the operator's, no call asks")
		time.Sleep(time.Second/2 - 1)
		require.ErrorContains(t, call(), "attempt 3: ")
		time.Sleep(time.Nanosecond)
		require.ErrorContains(t, call(), "attempt 4: ", "then one does")
		_, err := c.Reconcile(bg, theKey)
		require.ErrorContains(t, err, "attempt 5: ", "an operator asks in the pause that a call began, too")
		require.Equal(t, 5, asked)
	})
}

// During the pause every call is answered as if there were no Reconcile.
func TestPromise13_InThePauseNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) { panic(errNoAnswer) }})
		hold(t, c, theKey)
		_, err := c.Do(bg, theKey, neverRuns(t))
		require.ErrorIs(t, err, errNoAnswer)
		for _, ctx := range []context.Context{bg, dead(errEnough)} {
			for _, opts := range [][]idemflight.CallOption{nil, {idemflight.Inline()}, {idemflight.WithMaxWait(idemflight.NoWait)}} {
				_, err := c.Do(ctx, theKey, neverRuns(t), opts...)
				require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
				require.NotErrorIs(t, err, idemflight.ErrInFlight)
				p, ok := errors.AsType[*idemflight.PanicError](err)
				require.True(t, ok, "the error is that with which Reconcile ended, got %v", err)
				require.Equal(t, errNoAnswer, p.Value)
				require.Empty(t, p.Stack, "what is kept of a panic has no stack")
			}
		}
		require.EqualValues(t, 1, c.Stats().Panics, "Reconcile ran once")
		require.NoError(t, c.Close(bg))
		_, err = c.Do(bg, theKey, neverRuns(t))
		require.ErrorIs(t, err, errNoAnswer, "closed, in the pause")
		time.Sleep(time.Second)
		_, err = c.Do(bg, theKey, neverRuns(t))
		require.ErrorIs(t, err, errBoom, "closed, after the pause: the error that left it unknown")
		require.NotErrorIs(t, err, errNoAnswer)
	})
}

// A restored key that is held again ends anew, too.
func TestPromise16_ARestoredHoldCountsAnewAfterReconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{HoldTTL: time.Hour, Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
			return 0, errBoom
		}})
		began := time.Now()
		require.NoError(t, c.Restore(bg, theKey, idemflight.Entry[int]{State: idemflight.Held, Err: errBoom,
			StartedAt: began, CompletedAt: began, ExpiresAt: began.Add(time.Minute)}))
		time.Sleep(time.Second)
		_, err := c.Do(bg, theKey, neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		e, ok := lookup(c, theKey)
		require.True(t, ok)
		require.True(t, e.StartedAt.Equal(began))
		require.True(t, e.ExpiresAt.Equal(began.Add(time.Hour+time.Second)), "%v", e.ExpiresAt.Sub(began))
	})
}
