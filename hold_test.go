package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// saidNothing is why a key is held whose fn failed without a word, and what to write.
const saidNothing = "fn did not say whether an effect had begun (if none: return Retryable(err), or Final(err) for a real answer, or call NoEffect(ctx) first)"

// Promise 13: A held key answers every caller with ErrOutcomeUnknown, and says why, until Resolve
// or Reconcile settles it or HoldTTL passes. After Reconcile, fn never starts for a caller that has
// left.
func TestPromise13_HoldIsErrOutcomeUnknownForEveryone(t *testing.T) {
	for name, end := range map[string]struct {
		fn       intFn
		original error
		classify func(error) idemflight.Disposition
		why      string
	}{
		"Unknown": {fn: returns(7, idemflight.Unknown(errBoom)), original: errBoom, why: "fn's error is marked Unknown"},
		"BeginEffect": {fn: func(ctx context.Context) (int, error) {
			_ = idemflight.BeginEffect(ctx)
			return 7, errBoom
		}, original: errBoom, why: "fn failed after BeginEffect"},
		"said nothing": {fn: returns(7, errBoom), original: errBoom, why: saidNothing},
		"Classify":     {fn: returns(7, io.ErrUnexpectedEOF), original: io.ErrUnexpectedEOF, classify: idemflight.ClassifyLenient, why: saidNothing},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{Classify: end.classify})
			fp := idemflight.FingerprintOf([]byte("payload"))
			fn := func(ctx context.Context) (int, error) {
				time.Sleep(time.Second)
				return end.fn(ctx)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			began := time.Now()
			leader := start(c, ctx, theKey, fn, idemflight.WithFingerprint(fp))
			synctest.Wait()
			joined := start(c, ctx, theKey, neverRuns(t), idemflight.WithFingerprint(fp))
			time.Sleep(time.Second)
			synctest.Wait()
			for who, call := range map[string]*pending[int]{"leader": leader, "joined": joined} {
				require.True(t, call.returned(), "%s, %s must have its answer", name, who)
				require.ErrorIs(t, call.err, idemflight.ErrOutcomeUnknown, "%s, %s", name, who)
				require.ErrorIs(t, call.err, end.original, "%s, %s: must wrap the original", name, who)
				require.EqualError(t, call.err, "idemflight: outcome unknown, key held until 2000-01-08 00:00:01Z: "+end.why+": "+end.original.Error(),
					"%s, %s: since now needs no saying", name, who)
				require.Equal(t, 7, call.res.Value,
					"%s, %s: callers of the flight get fn's value too", name, who)
			}
			require.Equal(t, idemflight.Executed, leader.res.Source,
				"a held outcome is one that was obtained")
			require.Equal(t, idemflight.Joined, joined.res.Source,
				"a held outcome is one that was obtained")

			time.Sleep(time.Minute)
			res, err := c.DoResult(ctx, theKey, neverRuns(t), idemflight.WithFingerprint(fp))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "%s: a later call", name)
			require.ErrorIs(t, err, end.original, "%s: a later call's error must wrap the original", name)
			require.EqualError(t, err, "idemflight: outcome unknown, key held since 2000-01-01 00:00:01Z until 2000-01-08 00:00:01Z: "+end.why+": "+end.original.Error(),
				"%s: a later call is told since when, too", name)
			require.Zero(t, res.Value, "%s: a held key keeps no value", name)
			require.Equal(t, idemflight.NoOutcome, res.Source,
				"%s: a later call obtains no outcome", name)
			_, err = c.Do(ctx, theKey, neverRuns(t))
			require.ErrorIs(t, err, idemflight.ErrKeyReused,
				"%s: the held key keeps its fingerprint", name)

			e, ok := lookup(c, theKey)
			require.True(t, ok, "%s: the key must be held", name)
			require.True(t, e.Err == end.original, "%s: Entry.Err is the original, got %v", name, e.Err)
			require.NotErrorIs(t, e.Err, idemflight.ErrOutcomeUnknown,
				"%s: Entry.Err is the original", name)
			e.Err = nil
			require.Equal(t, idemflight.Entry[int]{
				State: idemflight.Held, Fingerprint: fp, StartedAt: e.StartedAt, CompletedAt: e.CompletedAt, ExpiresAt: e.ExpiresAt,
			}, e, "%s: the held entry", name)
			require.True(t, began.Equal(e.StartedAt),
				"%s: StartedAt, want %v, got %v", name, began, e.StartedAt)
			require.True(t, began.Add(time.Second).Equal(e.CompletedAt),
				"%s: CompletedAt, got %v", name, e.CompletedAt)
			require.True(t, began.Add(time.Second).Add(idemflight.DefaultHoldTTL).Equal(e.ExpiresAt),
				"%s: ExpiresAt, got %v", name, e.ExpiresAt)

			s := c.Stats()
			require.Equal(t, idemflight.Stats{Executed: 1, Joined: 1, OutcomeUnknown: 1, KeyReused: 1, Holds: 1, Entries: 1, Held: 1}, s, "%s: Stats", name)
		})
	}
}

func TestPromise13_ReleaseSharesTheErrorAndTheNextCallRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{EffectsAnnounced: true})
		failed := errors.New("transient")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		leader := start(c, ctx, theKey, func(context.Context) (int, error) { time.Sleep(time.Second); return 7, failed })
		synctest.Wait()
		joined := start(c, ctx, theKey, neverRuns(t))
		time.Sleep(time.Second)
		synctest.Wait()
		for _, call := range []*pending[int]{leader, joined} {
			require.True(t, call.err == failed,
				"callers of a released flight share fn's own error, got %#v", call.err)
			require.Equal(t, 7, call.res.Value, "and fn's value")
			require.True(t, call.res.ExpiresAt.IsZero(), "ExpiresAt of an outcome that is not kept")
			require.True(t, call.res.CompletedAt.Equal(time.Now()),
				"CompletedAt of an outcome that is not kept")
		}
		res, err := c.DoResult(ctx, theKey, func(ctx context.Context) (int, error) { return 8, idemflight.BeginEffect(ctx) })
		require.NoError(t, err, "the next call runs")
		require.Equal(t, 8, res.Value)
		require.Equal(t, idemflight.Executed, res.Source)
	})
}

func TestPromise13_ResolveSettlesAHeldKey(t *testing.T) {
	declined := errors.New("declined")
	for name, r := range map[string]struct {
		err     error
		settles bool
		want    idemflight.Disposition
		replay  error
	}{
		"nil":               {nil, true, idemflight.Retain, nil},
		"Final":             {idemflight.Final(declined), true, idemflight.Retain, declined},
		"wrapped Final":     {fmt.Errorf("by hand: %w", idemflight.Final(declined)), true, idemflight.Retain, declined},
		"Final(nil)":        {idemflight.Final(nil), true, idemflight.Retain, nil},
		"Retryable":         {idemflight.Retryable(declined), true, idemflight.Release, nil},
		"wrapped Retryable": {fmt.Errorf("by hand: %w", idemflight.Retryable(declined)), true, idemflight.Release, nil},
		"unmarked":          {declined, false, idemflight.Hold, nil},
		"Unknown":           {idemflight.Unknown(declined), false, idemflight.Hold, nil},
		"Unknown of Final":  {idemflight.Unknown(idemflight.Final(declined)), false, idemflight.Hold, nil},
		"Final of Unknown":  {idemflight.Final(idemflight.Unknown(declined)), true, idemflight.Retain, declined},
		"panic with Final":  {&idemflight.PanicError{Value: idemflight.Final(declined)}, false, idemflight.Hold, nil},
		"what is released":  {idemflight.ErrFull, false, idemflight.Hold, nil}, // by Classify, which is not asked
		"joined markers":    {errors.Join(idemflight.Retryable(io.EOF), idemflight.Final(declined)), true, idemflight.Retain, declined},
		"Final, unmarked":   {errors.Join(idemflight.Final(declined), declined), false, idemflight.Hold, nil},
		"unmarked, Retry":   {errors.Join(declined, idemflight.Retryable(declined)), false, idemflight.Hold, nil},
	} {
		for _, holdTTL := range []time.Duration{0, -1, time.Minute} {
			synctest.Test(t, func(t *testing.T) {
				events := &eventLog[string]{}
				const ttl = 3 * time.Hour
				c := idemflight.MustNew(options{MaxEntries: 1, TTL: ttl, HoldTTL: holdTTL, Observer: events.observe,
					Classify: func(error) idemflight.Disposition {
						t.Error("Classify must not be asked by Resolve")
						return idemflight.Retain
					}})
				fp := idemflight.FingerprintOf([]byte("payload"))
				// The TTL of the call that left the key held is not that of what an operator finds.
				holdAfterASecond(t, c, theKey, idemflight.WithFingerprint(fp), idemflight.WithTTL(time.Second))
				before, _ := lookup(c, theKey)
				stats, told := c.Stats(), len(events.of())
				time.Sleep(30 * time.Second)

				require.Equal(t, r.settles, resolve(c, theKey, 42, r.err),
					"%s: whether Resolve settled it", name)
				require.Equal(t, r.want, dispositionOf(t, c, theKey),
					"%s: what became of the key", name)
				if r.settles {
					told++
				}
				require.Len(t, events.of(), told, "%s: Resolve is told when it acted", name)
				after, _ := lookup(c, theKey)
				s := c.Stats()
				switch r.want {
				case idemflight.Hold:
					require.Equal(t, before, after, "%s: the entry must stay held as it was", name)
					require.Equal(t, stats, s, "%s: Stats must not change", name)
				case idemflight.Release:
					require.Zero(t, s.Entries+s.Held+c.Len(), "%s: nothing is kept", name)
				case idemflight.Retain:
					require.Equal(t, [2]int{1, 0}, [2]int{s.Entries, s.Held},
						"%s: Stats.Entries and Held", name)
					require.Equal(t, fp, after.Fingerprint,
						"%s: the fingerprint must be kept", name)
					require.Equal(t, 42, after.Value, "%s: the value Resolve was given", name)
					require.True(t, after.CompletedAt.Equal(time.Now()),
						"%s: settled now, got %v", name, after.CompletedAt)
					require.True(t, after.ExpiresAt.Equal(time.Now().Add(ttl)),
						"%s: Options.TTL from now, got %v", name, after.ExpiresAt)
					require.False(t, resolve(c, theKey, 43, nil),
						"%s: a second operator must not act", name)
					_, err := c.Do(t.Context(), theKey, neverRuns(t))
					require.ErrorIs(t, err, idemflight.ErrKeyReused,
						"%s: a call without the fingerprint", name)
					time.Sleep(ttl - time.Nanosecond)
					res, err := c.DoResult(t.Context(), theKey, neverRuns(t), idemflight.WithFingerprint(fp))
					require.Equal(t, 42, res.Value, "%s: replayed value", name)
					require.Equal(t, idemflight.Replayed, res.Source,
						"%s: source of the replay", name)
					if r.replay == nil {
						require.NoError(t, err, "%s: replayed error", name)
					} else {
						require.ErrorIs(t, err, r.replay, "%s: replayed error", name)
						require.Equal(t, r.err.Error(), err.Error(),
							"%s: text of the replayed error", name)
						require.True(t, after.Err == err, "%s: Entry.Err is what is replayed", name)
						requireNoMarker(t, err, name+", replayed after Resolve")
					}
					if name == "Final" {
						require.True(t, err == declined,
							"the replay must give the marked error itself, got %#v", err)
					}
					time.Sleep(time.Nanosecond)
					_, ok := lookup(c, theKey)
					require.False(t, ok, "%s: must have expired", name)
				}
				if r.want != idemflight.Hold {
					v, err := c.Do(t.Context(), theKey, returns(99, nil))
					require.NoError(t, err, "%s: the next call runs", name)
					require.Equal(t, 99, v, "%s: the next call runs", name)
				}
			})
		}
	}
}

func TestPromise13_ResolveActsOnHeldKeysOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{HoldTTL: time.Hour, MaxWeight: 10, Weigh: func(_ string, v int) int64 { return int64(v) }})
		_, err := c.Do(t.Context(), "retained", returns(1, nil))
		require.NoError(t, err)
		_, err = c.Do(t.Context(), "shed", returns(11, nil))
		require.NoError(t, err)
		holdAfterASecond(t, c, "expired")
		time.Sleep(time.Hour)
		flying := start(c, t.Context(), "in flight", returnsAfter(time.Minute, 1, nil))
		synctest.Wait()
		for _, how := range []error{nil, idemflight.Final(errBoom), idemflight.Retryable(errBoom), idemflight.Unknown(errBoom), errBoom} {
			for _, key := range []string{"absent", "retained", "shed", "in flight", "expired", ""} {
				before, was := lookup(c, key)
				require.False(t, resolve(c, key, 5, how),
					"Resolve of a key that is not held: %q, %v", key, how)
				after, is := lookup(c, key)
				require.Equal(t, was, is, "whether %q is there must not change", key)
				require.Equal(t, before, after, "the entry of %q must not change", key)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 1, flying.res.Value, "the flight must end as if nobody had resolved")
	})
}

func TestPromise13_OfTwoOperatorsOneActs(t *testing.T) {
	c := idemflight.MustNew(options{})
	for round := range 200 {
		key := fmt.Sprint("key ", round)
		_, _ = c.Do(context.Background(), key, returns(0, idemflight.Unknown(errBoom)))
		const operators = 4
		var acted, winner atomic.Int64
		start, done := make(chan struct{}), make(chan struct{}, operators)
		for i := range operators {
			go func() {
				<-start
				if resolve(c, key, i+1, nil) {
					acted.Add(1)
					winner.Store(int64(i + 1))
				}
				done <- struct{}{}
			}()
		}
		close(start)
		for range operators {
			<-done
		}
		require.Equal(t, int64(1), acted.Load(), "operators told that they settled %s", key)
		v, err := c.Do(context.Background(), key, neverRuns(t))
		require.NoError(t, err)
		require.Equal(t, winner.Load(), int64(v),
			"the value must be that of the operator that was told so")
	}
}

// Weigh runs without a lock, in the middle of a Resolve: whatever happens to the key meanwhile, the
// operator that is too late neither acts nor hears that it did.
func TestPromise13_ResolveThatIsOvertakenDoesNotAct(t *testing.T) {
	for name, meanwhile := range map[string]func(*cache) (acted bool){
		"resolved": func(c *cache) bool { return resolve(c, theKey, 2, nil) },
		"found":    func(c *cache) bool { return resolve(c, theKey, 2, idemflight.Final(errTeapot)) },
		"reconciled": func(c *cache) bool {
			v, err := c.Do(context.Background(), theKey, returns(-1, nil))
			return v == 2 && err == nil
		},
		"released and run again": func(c *cache) bool {
			acted := resolve(c, theKey, 0, idemflight.Retryable(errBoom))
			_, _ = c.Do(context.Background(), theKey, returns(2, nil))
			return acted
		},
		"forgotten and run again": func(c *cache) bool {
			acted := forget(c, theKey)
			_, _ = c.Do(context.Background(), theKey, returns(2, nil))
			return acted
		},
		"forgotten and held again": func(c *cache) bool {
			acted := forget(c, theKey)
			_, _ = c.Do(context.Background(), theKey, returns(2, idemflight.Unknown(errTeapot)))
			return acted
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			var c *cache
			acted, overtaken := false, false
			c = idemflight.MustNew(options{
				MaxEntries: 2, MaxWeight: 10,
				Weigh: func(_ string, v int) int64 {
					if v == 1 && !overtaken {
						overtaken = true
						acted = meanwhile(c)
					}
					return int64(v)
				},
				Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) { return 2, nil },
			})
			holdAfterASecond(t, c, theKey)
			first := resolve(c, theKey, 1, nil)
			require.True(t, overtaken,
				"%s: Weigh must be asked about what Resolve brings, with no lock held", name)
			require.True(t, acted, "%s: the operator in between acts", name)
			e, ok := lookup(c, theKey)
			require.True(t, ok, "%s: the key is kept", name)
			if name == "forgotten and held again" { // a hold that either may settle, but not both
				require.Equal(t, first, e.State == idemflight.Retained,
					"%s: Resolve must say what it did", name)
				return
			}
			require.False(t, first, "%s: the operator that was too late must be told so", name)
			require.Equal(t, idemflight.Retained, e.State, "%s: what came in between counts", name)
			require.Equal(t, 2, e.Value, "%s: what came in between counts", name)
			s := c.Stats()
			require.Equal(t, [3]int{1, 0, 2}, [3]int{s.Entries, s.Held, int(s.Weight)},
				"%s: Entries, Held, Weight", name)
			_, err := c.Do(t.Context(), "other", returns(3, nil))
			require.NoError(t, err, "%s: the other place must be free", name)
		})
	}
}

func TestPromise13_ResolveDoesNotActWhileReconcileRuns(t *testing.T) {
	for _, learned := range []error{nil, errors.New("still unknown")} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{
				Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
					time.Sleep(time.Minute)
					return 9, learned
				},
			})
			holdAfterASecond(t, c, theKey)
			call := start(c, t.Context(), theKey, neverRuns(t))
			synctest.Wait()
			e, _ := lookup(c, theKey)
			require.Equal(t, idemflight.InFlight, e.State,
				"a reconciliation is an execution of its key")
			for _, how := range []error{nil, idemflight.Final(errBoom), idemflight.Retryable(errBoom)} {
				require.False(t, resolve(c, theKey, 5, how), "Resolve while Reconcile runs")
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			require.True(t, call.returned())
			if learned == nil {
				require.Equal(t, 9, call.res.Value,
					"what Reconcile found must count, not what Resolve said")
				require.False(t, resolve(c, theKey, 5, nil), "nothing is held any more")
			} else {
				require.ErrorIs(t, call.err, learned)
				require.True(t, resolve(c, theKey, 5, nil), "held again, Resolve acts")
			}
		})
	}
}

func TestPromise13_WithoutReconcileAHeldKeyNeverRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{TTL: time.Minute, HoldTTL: time.Hour})
		holdAfterASecond(t, c, theKey)
		for range 10 {
			_, err := c.Do(t.Context(), theKey, neverRuns(t), idemflight.Inline())
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			require.ErrorIs(t, err, errBoom, "must wrap the original")
			time.Sleep(6*time.Minute - time.Nanosecond)
		}
		time.Sleep(10 * time.Nanosecond) // HoldTTL is over
		v, err := c.Do(t.Context(), theKey, returns(8, nil))
		require.NoError(t, err, "after HoldTTL the next call runs")
		require.Equal(t, 8, v)
	})
}

// Forgetting a value must not forget an unknown, in Reconcile's flight as in fn's.
func TestPromise13_ForgottenInFlightAHoldIsHeldAllTheSame(t *testing.T) {
	for name, r := range map[string]struct {
		err  error
		want idemflight.Disposition
		src  idemflight.Source
	}{
		"found":           {nil, idemflight.Release, idemflight.Reconciled},
		"found, Final":    {idemflight.Final(errBoom), idemflight.Release, idemflight.Reconciled},
		"learned nothing": {errors.New("no answer"), idemflight.Hold, idemflight.NoOutcome},
		"Retryable":       {idemflight.Retryable(errBoom), idemflight.Release, idemflight.Executed},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{
				Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
					time.Sleep(time.Minute)
					return 9, r.err
				},
			})
			flying := start(c, t.Context(), theKey, returnsAfter(time.Second, 7, idemflight.Unknown(errBoom)))
			synctest.Wait()
			require.True(t, forget(c, theKey), "Forget of a key in flight")
			time.Sleep(time.Second)
			synctest.Wait()
			require.ErrorIs(t, flying.err, idemflight.ErrOutcomeUnknown)
			require.Equal(t, idemflight.Hold, dispositionOf(t, c, theKey),
				"a Hold is held all the same")
			before, _ := lookup(c, theKey)

			leader := start(c, t.Context(), theKey, returns(9, nil))
			synctest.Wait()
			require.True(t, forget(c, theKey), "Forget while Reconcile runs")
			late := start(c, t.Context(), theKey, neverRuns(t))
			time.Sleep(time.Minute)
			synctest.Wait()
			require.Equal(t, r.src, leader.res.Source, "%s: the leader's source", name)
			require.Equal(t, r.want, dispositionOf(t, c, theKey),
				"%s: after Forget while Reconcile ran", name)
			if r.want == idemflight.Hold {
				after, _ := lookup(c, theKey)
				require.Equal(t, before.Err, after.Err, "%s: held again as it was", name)
				return
			}
			require.Equal(t, 9, leader.res.Value, "%s: its callers get the outcome", name)
			require.Equal(t, 9, late.res.Value, "%s: a caller after Forget still joins", name)
			require.True(t, leader.res.ExpiresAt.IsZero(),
				"%s: ExpiresAt of what is not retained", name)
			require.Zero(t, c.Len(), "%s: nothing is kept", name)
		})
	}
}

// Once: Reconcile ran, learned nothing and held the key again while Resolve was weighing; the key was
// said not to be held.
func TestResolve_ActsOnAKeyThatWasHeldAgainMeanwhile(t *testing.T) {
	var c *cache
	asked := false
	c = idemflight.MustNew(options{
		HoldTTL: -1, MaxWeight: 100,
		Weigh: func(string, int) int64 {
			if !asked {
				asked = true
				_, err := c.Do(t.Context(), "k", one)
				require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			}
			return 1
		},
		Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
			return 0, errors.New("the bank is down")
		},
	})
	_, err := c.Do(t.Context(), "k", returns(0, idemflight.Unknown(errors.New("timeout"))))
	require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
	require.True(t, resolve(c, "k", 7, nil))
	require.True(t, asked)
	e, _ := lookup(c, "k")
	require.Equal(t, idemflight.Retained, e.State)
	require.NoError(t, c.CheckInvariants())
}

// One that was forgotten, and held anew by another execution, is not what the operator has found out.
func TestResolve_LeavesAloneWhatWasHeldByAnotherExecution(t *testing.T) {
	var c *cache
	asked := false
	c = idemflight.MustNew(options{
		HoldTTL: -1, MaxWeight: 100,
		Weigh: func(string, int) int64 {
			if !asked {
				asked = true
				require.True(t, forget(c, "k"))
				_, err := c.Do(t.Context(), "k", returns(0, idemflight.Unknown(errors.New("again"))))
				require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			}
			return 1
		},
	})
	_, err := c.Do(t.Context(), "k", returns(0, idemflight.Unknown(errors.New("timeout"))))
	require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
	require.False(t, resolve(c, "k", 7, nil))
	e, _ := lookup(c, "k")
	require.Equal(t, idemflight.Held, e.State)
	require.NoError(t, c.CheckInvariants())
}

// The error of a held key says why it is held, since when and until when.
func TestPromise13_ErrOutcomeUnknownSaysWhy(t *testing.T) {
	const panicText = "idemflight: panic: boom (raised at panic_test.go:%d, in github.com/idemflight/idemflight_test.blowUp)"
	at := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	do := func(fn intFn) func(t *testing.T, c *cache) {
		return func(t *testing.T, c *cache) { _ = panicOf(func() { _, _ = c.Do(bg, theKey, fn) }) }
	}
	restore := func(e idemflight.Entry[int]) func(t *testing.T, c *cache) {
		return func(t *testing.T, c *cache) { require.NoError(t, c.Restore(bg, theKey, e)) }
	}
	for name, held := range map[string]struct {
		opts  options
		put   func(t *testing.T, c *cache)
		until string
		why   string
	}{
		"said nothing": {put: do(returns(0, errBoom)), why: saidNothing + ": boom"},
		"said nothing, exited": {put: func(t *testing.T, c *cache) { _, _ = c.Do(t.Context(), theKey, goexits) },
			why: saidNothing + ": " + idemflight.ErrGoexit.Error()},
		"said nothing, where Classify holds it": {opts: options{Classify: func(error) idemflight.Disposition { return idemflight.Hold }},
			put: do(returns(0, errBoom)), why: saidNothing + ": boom"},
		"said nothing of a part": {put: do(returns(0, errors.Join(idemflight.Retryable(errBoom), io.EOF))),
			why: "a part of fn's error has no marker, and fn did not say whether an effect had begun: boom\nEOF"},
		"panicked": {put: do(panics(errBoom)),
			why: "fn panicked and had not said whether an effect had begun (if none: call NoEffect(ctx) first): " + fmt.Sprintf(panicText, blowUpLine)},
		"failed after BeginEffect": {put: do(func(ctx context.Context) (int, error) { _ = idemflight.BeginEffect(ctx); return 0, errBoom }),
			why: "fn failed after BeginEffect: boom"},
		"panicked after BeginEffect": {put: do(func(ctx context.Context) (int, error) {
			_ = idemflight.BeginEffect(ctx)
			blowUp(errBoom)
			return 0, nil
		}), why: "fn panicked after BeginEffect: " + fmt.Sprintf(panicText, blowUpLine)},
		"marked": {put: do(returns(0, fmt.Errorf("charge: %w", idemflight.Unknown(errBoom)))), why: "fn's error is marked Unknown: charge: boom"},
		"marked, after BeginEffect": {put: do(func(ctx context.Context) (int, error) {
			_ = idemflight.BeginEffect(ctx)
			return 0, idemflight.Unknown(errBoom)
		}), why: "fn's error is marked Unknown: boom"},
		"marked in part": {put: do(returns(0, errors.Join(idemflight.Unknown(errBoom), io.EOF))), why: "fn's error is marked Unknown: boom\nEOF"},
		"interrupted": {put: restore(idemflight.Entry[int]{State: idemflight.InFlight, StartedAt: at}),
			why: "its execution was interrupted: " + idemflight.ErrInterrupted.Error()},
		"restored": {put: restore(idemflight.Entry[int]{State: idemflight.Held, Err: errBoom, StartedAt: at, CompletedAt: at, ExpiresAt: at.Add(7 * 24 * time.Hour)}),
			why: "it was held when it was restored: boom"},
		"restored without an error": {put: restore(idemflight.Entry[int]{State: idemflight.Held, StartedAt: at, CompletedAt: at, ExpiresAt: at.Add(7 * 24 * time.Hour)}),
			why: "it was held when it was restored"},
		"restored without end": {put: restore(idemflight.Entry[int]{State: idemflight.Held, Err: errBoom, StartedAt: at, CompletedAt: at}),
			until: "resolved or forgotten", why: "it was held when it was restored: boom"},
		"without end": {opts: options{HoldTTL: -1}, put: do(returns(0, idemflight.Unknown(errBoom))),
			until: "resolved or forgotten", why: "fn's error is marked Unknown: boom"},
		"Reconcile learned nothing": {opts: options{Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) { return 0, errNoAnswer }},
			put: func(t *testing.T, c *cache) { hold(t, c, theKey) }, why: "Reconcile learned nothing: the bank does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(held.opts)
				held.put(t, c)
				until := held.until
				if until == "" {
					until = "2000-01-08 00:00:00Z"
				}
				for range 2 {
					_, err := c.Do(bg, theKey, neverRuns(t))
					require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
					require.EqualError(t, err, "idemflight: outcome unknown, key held since 2000-01-01 00:00:00Z until "+until+": "+held.why)
				}
			})
		})
	}
}
