package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

func TestPromise13_HoldIsErrOutcomeUnknownForEveryone(t *testing.T) {
	for name, end := range map[string]struct {
		fn   intFn
		want func(error) bool
	}{
		"Unknown": {func(context.Context) (int, error) { return 7, idemflight.Unknown(errBoom) }, func(err error) bool { return errors.Is(err, errBoom) }},
		"BeginEffect": {func(ctx context.Context) (int, error) {
			_ = idemflight.BeginEffect(ctx)
			return 7, errBoom
		}, func(err error) bool { return errors.Is(err, errBoom) }},
		"Classify": {func(context.Context) (int, error) { return 7, io.ErrUnexpectedEOF }, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(idemflight.Options[string, int]{})
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
				require.True(t, end.want(call.err), "%s, %s: must wrap the original, got %v", name, who, call.err)
				require.Equal(t, 7, call.res.Value, "%s, %s: callers of the flight get fn's value too", name, who)
			}
			require.Equal(t, idemflight.Executed, leader.res.Source, "a held outcome is one that was obtained")
			require.Equal(t, idemflight.Joined, joined.res.Source, "a held outcome is one that was obtained")

			time.Sleep(time.Minute)
			res, err := c.DoResult(ctx, theKey, neverRuns(t), idemflight.WithFingerprint(fp))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "%s: a later call", name)
			require.True(t, end.want(err), "%s: a later call's error must wrap the original, got %v", name, err)
			require.Zero(t, res.Value, "%s: a held key keeps no value", name)
			require.Equal(t, idemflight.None, res.Source, "%s: a later call obtains no outcome", name)
			_, err = c.Do(ctx, theKey, neverRuns(t))
			require.ErrorIs(t, err, idemflight.ErrKeyReused, "%s: the held key keeps its fingerprint", name)

			e, ok := c.Lookup(theKey)
			require.True(t, ok, "%s: the key must be held", name)
			require.True(t, end.want(e.Err), "%s: Entry.Err is the original, got %v", name, e.Err)
			require.NotErrorIs(t, e.Err, idemflight.ErrOutcomeUnknown, "%s: Entry.Err is the original", name)
			e.Err = nil
			require.Equal(t, idemflight.Entry[int]{
				State: idemflight.Held, Fingerprint: fp, StartedAt: e.StartedAt, CompletedAt: e.CompletedAt, ExpiresAt: e.ExpiresAt,
			}, e, "%s: the held entry", name)
			require.True(t, began.Equal(e.StartedAt), "%s: StartedAt, want %v, got %v", name, began, e.StartedAt)
			require.True(t, began.Add(time.Second).Equal(e.CompletedAt), "%s: CompletedAt, got %v", name, e.CompletedAt)
			require.True(t, began.Add(time.Second).Add(idemflight.DefaultTTL).Equal(e.ExpiresAt), "%s: ExpiresAt, got %v", name, e.ExpiresAt)

			s := c.Stats()
			require.Equal(t, idemflight.Stats{Executed: 1, Joined: 1, OutcomeUnknown: 1, KeyReused: 1, Holds: 1, Entries: 1, Held: 1}, s, "%s: Stats", name)
		})
	}
}

func TestPromise13_ReleaseSharesTheErrorAndTheNextCallRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[string, int]{})
		failed := errors.New("transient")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		leader := start(c, ctx, theKey, func(context.Context) (int, error) { time.Sleep(time.Second); return 7, failed })
		synctest.Wait()
		joined := start(c, ctx, theKey, neverRuns(t))
		time.Sleep(time.Second)
		synctest.Wait()
		for _, call := range []*pending[int]{leader, joined} {
			require.True(t, call.err == failed, "callers of a released flight share fn's own error, got %#v", call.err)
			require.Equal(t, 7, call.res.Value, "and fn's value")
			require.True(t, call.res.ExpiresAt.IsZero(), "ExpiresAt of an outcome that is not kept")
			require.True(t, call.res.CompletedAt.Equal(time.Now()), "CompletedAt of an outcome that is not kept")
		}
		res, err := c.DoResult(ctx, theKey, returns(8, nil))
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
				c := idemflight.MustNew(idemflight.Options[string, int]{MaxEntries: 1, TTL: ttl, HoldTTL: holdTTL, Observer: events.observe,
					Classify: func(error) idemflight.Disposition {
						t.Error("Classify must not be asked by Resolve")
						return idemflight.Retain
					}})
				fp := idemflight.FingerprintOf([]byte("payload"))
				// The TTL of the call that left the key held is not that of what an operator finds.
				holdAfterASecond(t, c, theKey, idemflight.WithFingerprint(fp), idemflight.WithTTL(time.Second))
				before, _ := c.Lookup(theKey)
				stats, told := c.Stats(), len(events.of())
				time.Sleep(30 * time.Second)

				require.Equal(t, r.settles, c.Resolve(theKey, 42, r.err), "%s: whether Resolve settled it", name)
				require.Equal(t, r.want, dispositionOf(t, c, theKey), "%s: what became of the key", name)
				require.Len(t, events.of(), told, "%s: Resolve must emit nothing of its own", name)
				after, _ := c.Lookup(theKey)
				s := c.Stats()
				switch r.want {
				case idemflight.Hold:
					require.Equal(t, before, after, "%s: the entry must stay held as it was", name)
					require.Equal(t, stats, s, "%s: Stats must not change", name)
				case idemflight.Release:
					require.Zero(t, s.Entries+s.Held+c.Len(), "%s: nothing is kept", name)
				case idemflight.Retain:
					require.Equal(t, [2]int{1, 0}, [2]int{s.Entries, s.Held}, "%s: Stats.Entries and Held", name)
					require.Equal(t, fp, after.Fingerprint, "%s: the fingerprint must be kept", name)
					require.Equal(t, 42, after.Value, "%s: the value Resolve was given", name)
					require.True(t, after.CompletedAt.Equal(time.Now()), "%s: settled now, got %v", name, after.CompletedAt)
					require.True(t, after.ExpiresAt.Equal(time.Now().Add(ttl)), "%s: Options.TTL from now, got %v", name, after.ExpiresAt)
					require.False(t, c.Resolve(theKey, 43, nil), "%s: a second operator must not act", name)
					_, err := c.Do(t.Context(), theKey, neverRuns(t))
					require.ErrorIs(t, err, idemflight.ErrKeyReused, "%s: a call without the fingerprint", name)
					time.Sleep(ttl - time.Nanosecond)
					res, err := c.DoResult(t.Context(), theKey, neverRuns(t), idemflight.WithFingerprint(fp))
					require.Equal(t, 42, res.Value, "%s: replayed value", name)
					require.Equal(t, idemflight.Replayed, res.Source, "%s: source of the replay", name)
					if r.replay == nil {
						require.NoError(t, err, "%s: replayed error", name)
					} else {
						require.ErrorIs(t, err, r.replay, "%s: replayed error", name)
						require.Equal(t, r.err.Error(), err.Error(), "%s: text of the replayed error", name)
						require.True(t, after.Err == err, "%s: Entry.Err is what is replayed", name)
						requireNoMarker(t, err, name+", replayed after Resolve")
					}
					if name == "Final" {
						require.True(t, err == declined, "the replay must give the marked error itself, got %#v", err)
					}
					time.Sleep(time.Nanosecond)
					_, ok := c.Lookup(theKey)
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
		c := idemflight.MustNew(idemflight.Options[string, int]{HoldTTL: time.Hour, MaxWeight: 10, Weigh: func(_ string, v int) int64 { return int64(v) }})
		_, err := c.Do(t.Context(), "retained", returns(1, nil))
		require.NoError(t, err)
		_, err = c.Do(t.Context(), "shed", returns(11, nil))
		require.NoError(t, err)
		holdAfterASecond(t, c, "expired")
		time.Sleep(time.Hour)
		flying := start(c, t.Context(), "in flight", func(context.Context) (int, error) { time.Sleep(time.Minute); return 1, nil })
		synctest.Wait()
		for _, how := range []error{nil, idemflight.Final(errBoom), idemflight.Retryable(errBoom), idemflight.Unknown(errBoom), errBoom} {
			for _, key := range []string{"absent", "retained", "shed", "in flight", "expired", ""} {
				before, was := c.Lookup(key)
				require.False(t, c.Resolve(key, 5, how), "Resolve of a key that is not held: %q, %v", key, how)
				after, is := c.Lookup(key)
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
	c := idemflight.MustNew(idemflight.Options[string, int]{})
	for round := range 200 {
		key := fmt.Sprint("key ", round)
		_, _ = c.Do(context.Background(), key, returns(0, idemflight.Unknown(errBoom)))
		const operators = 4
		var acted, winner atomic.Int64
		start, done := make(chan struct{}), make(chan struct{}, operators)
		for i := range operators {
			go func() {
				<-start
				if c.Resolve(key, i+1, nil) {
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
		require.Equal(t, winner.Load(), int64(v), "the value must be that of the operator who was told so")
	}
}

// Weigh runs without a lock, in the middle of a Resolve: whatever happens to the key meanwhile, the
// operator who comes too late neither acts nor is told so.
func TestPromise13_ResolveThatIsOvertakenDoesNotAct(t *testing.T) {
	for name, meanwhile := range map[string]func(*idemflight.Cache[string, int]) (acted bool){
		"resolved": func(c *idemflight.Cache[string, int]) bool { return c.Resolve(theKey, 2, nil) },
		"found":    func(c *idemflight.Cache[string, int]) bool { return c.Resolve(theKey, 2, idemflight.Final(errTeapot)) },
		"reconciled": func(c *idemflight.Cache[string, int]) bool {
			v, err := c.Do(context.Background(), theKey, returns(-1, nil))
			return v == 2 && err == nil
		},
		"released and run again": func(c *idemflight.Cache[string, int]) bool {
			acted := c.Resolve(theKey, 0, idemflight.Retryable(errBoom))
			_, _ = c.Do(context.Background(), theKey, returns(2, nil))
			return acted
		},
		"forgotten and run again": func(c *idemflight.Cache[string, int]) bool {
			acted := c.Forget(theKey)
			_, _ = c.Do(context.Background(), theKey, returns(2, nil))
			return acted
		},
		"forgotten and held again": func(c *idemflight.Cache[string, int]) bool {
			acted := c.Forget(theKey)
			_, _ = c.Do(context.Background(), theKey, returns(2, idemflight.Unknown(errTeapot)))
			return acted
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			var c *idemflight.Cache[string, int]
			acted, overtaken := false, false
			c = idemflight.MustNew(idemflight.Options[string, int]{
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
			first := c.Resolve(theKey, 1, nil)
			require.True(t, overtaken, "%s: Weigh must be asked about what Resolve brings, with no lock held", name)
			require.True(t, acted, "%s: who came in between acts", name)
			e, ok := c.Lookup(theKey)
			require.True(t, ok, "%s: the key is kept", name)
			if name == "forgotten and held again" { // a hold that either may settle, but not both
				require.Equal(t, first, e.State == idemflight.Retained, "%s: Resolve must say what it did", name)
				return
			}
			require.False(t, first, "%s: the operator who came too late must be told so", name)
			require.Equal(t, idemflight.Retained, e.State, "%s: what came in between counts", name)
			require.Equal(t, 2, e.Value, "%s: what came in between counts", name)
			s := c.Stats()
			require.Equal(t, [3]int{1, 0, 2}, [3]int{s.Entries, s.Held, int(s.Weight)}, "%s: Entries, Held, Weight", name)
			_, err := c.Do(t.Context(), "other", returns(3, nil))
			require.NoError(t, err, "%s: the other place must be free", name)
		})
	}
}

func TestPromise13_ResolveDoesNotActWhileReconcileRuns(t *testing.T) {
	for _, learned := range []error{nil, errors.New("still unknown")} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(idemflight.Options[string, int]{
				Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
					time.Sleep(time.Minute)
					return 9, learned
				},
			})
			holdAfterASecond(t, c, theKey)
			call := start(c, t.Context(), theKey, neverRuns(t))
			synctest.Wait()
			e, _ := c.Lookup(theKey)
			require.Equal(t, idemflight.InFlight, e.State, "a reconciliation is an execution of its key")
			for _, how := range []error{nil, idemflight.Final(errBoom), idemflight.Retryable(errBoom)} {
				require.False(t, c.Resolve(theKey, 5, how), "Resolve while Reconcile runs")
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			require.True(t, call.returned())
			if learned == nil {
				require.Equal(t, 9, call.res.Value, "what Reconcile found must count, not what Resolve said")
				require.False(t, c.Resolve(theKey, 5, nil), "nothing is held any more")
			} else {
				require.ErrorIs(t, call.err, learned)
				require.True(t, c.Resolve(theKey, 5, nil), "held again, Resolve acts")
			}
		})
	}
}

func TestPromise13_WithoutReconcileAHeldKeyNeverRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[string, int]{TTL: time.Minute, HoldTTL: time.Hour})
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
				c := idemflight.MustNew(idemflight.Options[string, int]{
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
				held, _ := c.Lookup(theKey)
				time.Sleep(time.Minute)

				base := context.Background()
				if how == "can leave" {
					base = t.Context()
				}
				opts := []idemflight.CallOption{idemflight.WithFingerprint(fp), idemflight.WithMaxWait(idemflight.NoWait)}
				if how == "Inline" {
					opts = append(opts, idemflight.Inline())
				}
				var goroutine string
				leader := startCall(func() (idemflight.Result[int], error) {
					goroutine = goroutineID()
					return c.DoResult(context.WithValue(base, nameKey{}, "asks"), theKey, neverRuns(t), opts...)
				})
				synctest.Wait()
				require.False(t, leader.returned(), "%s: WithMaxWait never binds the one who leads", what)
				var joined []*pending[int]
				for range 2 {
					joined = append(joined, start(c, context.WithValue(t.Context(), nameKey{}, "joins"), theKey, neverRuns(t), idemflight.WithFingerprint(fp)))
				}
				synctest.Wait()
				s := c.Stats()
				require.Equal(t, [4]int{1, 2, 0, 0}, [4]int{s.InFlight, s.Waiters, s.Held, c.Len()}, "%s: InFlight, Waiters, Held, Len while Reconcile runs", what)
				_, err := c.Do(t.Context(), theKey, neverRuns(t))
				require.ErrorIs(t, err, idemflight.ErrKeyReused, "%s: the fingerprint of the held entry goes on to count", what)
				time.Sleep(time.Minute)
				synctest.Wait()

				require.Len(t, seen, 1, "%s: runs of Reconcile", what)
				require.Equal(t, theKey, seen[0].key, "%s: the key Reconcile gets", what)
				require.Equal(t, held, seen[0].entry, "%s: Reconcile must get the entry that was held", what)
				require.Equal(t, "asks", seen[0].value, "%s: Reconcile's context must carry the values of the call that asks", what)
				require.NotEqual(t, goroutine, seen[0].goroutine, "%s: Reconcile must not run on a caller's goroutine", what)
				for i, call := range append(joined, leader) {
					require.True(t, call.returned(), "%s: caller %d must have its answer", what, i)
					require.Equal(t, 9, call.res.Value, "%s: what Reconcile found, caller %d", what, i)
					require.True(t, call.res.CompletedAt.Equal(time.Now()), "%s: CompletedAt, caller %d", what, i)
					require.True(t, call.res.ExpiresAt.Equal(time.Now().Add(time.Hour)), "%s: ExpiresAt, caller %d", what, i)
					if r.want == nil {
						require.NoError(t, call.err, "%s, caller %d", what, i)
						continue
					}
					require.ErrorIs(t, call.err, r.want, "%s, caller %d", what, i)
					require.NotErrorIs(t, call.err, idemflight.ErrOutcomeUnknown, "%s, caller %d: it is known now", what, i)
					requireNoMarker(t, call.err, what)
					if name == "Final" {
						require.True(t, call.err == r.want, "%s, caller %d: must get the marked error itself, got %#v", what, i, call.err)
					}
				}
				require.Equal(t, idemflight.Reconciled, leader.res.Source, "%s: the leader's source", what)
				require.Equal(t, idemflight.Joined, joined[0].res.Source, "%s: a joined caller's source", what)
				require.Equal(t, idemflight.Joined, joined[1].res.Source, "%s: a joined caller's source", what)

				res, err := c.DoResult(t.Context(), theKey, neverRuns(t), idemflight.WithFingerprint(fp))
				require.True(t, err == leader.err, "%s: the replay's error, got %#v", what, err)
				require.Equal(t, idemflight.Replayed, res.Source, "%s: afterwards it is retained", what)
				require.Equal(t, 9, res.Value, "%s: replayed value", what)
				e, _ := c.Lookup(theKey)
				require.Equal(t, fp, e.Fingerprint, "%s: the fingerprint is kept", what)

				require.Equal(t, idemflight.Stats{
					Executed: 1, Reconciled: 1, Joined: 2, Replayed: 1, KeyReused: 1, Holds: 1, Retains: 1, Entries: 1,
				}, c.Stats(), "%s: Stats", what)
				told := events.of(idemflight.EventReconciled)
				require.Len(t, told, 1, "%s: EventReconciled", what)
				require.Equal(t, idemflight.Event[string]{
					Kind: idemflight.EventReconciled, Key: theKey, Err: leader.err, Took: time.Minute, Waiters: 2, Disposition: idemflight.Retain,
				}, told[0], "%s: EventReconciled", what)
				require.Len(t, events.of(idemflight.EventJoined), 2, "%s: EventJoined", what)
				require.Len(t, events.of(), 6, "%s: all events: of the flight that held, 3 callers, 1 reused, 1 replay", what)
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
			"transient": {errors.New("transient"), idemflight.Release},
			"ambiguous": {io.EOF, idemflight.Hold},
			"Final":     {idemflight.Final(errors.New("declined")), idemflight.Retain},
		} {
			synctest.Test(t, func(t *testing.T) {
				what := fmt.Sprintf("fn after Reconcile: %s, leader %s", name, how)
				var reconciling, executing int
				var fnOn string
				events := &eventLog[string]{}
				c := idemflight.MustNew(idemflight.Options[string, int]{
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
				e, ok := c.Lookup(theKey)
				require.True(t, ok)
				require.Equal(t, idemflight.InFlight, e.State, "%s: it is the same flight", what)
				require.False(t, early.returned(), "%s: who joined while Reconcile ran waits for fn", what)
				require.False(t, c.Resolve(theKey, 5, nil), "%s: nothing is held while fn runs", what)
				late := start(c, t.Context(), theKey, neverRuns(t)) // joins while fn runs
				time.Sleep(55 * time.Second)
				synctest.Wait()

				require.Equal(t, [2]int{1, 1}, [2]int{reconciling, executing}, "%s: runs of Reconcile and fn", what)
				if how == "Inline" {
					require.Equal(t, callerOn, fnOn, "%s: fn must run on the calling goroutine", what)
				}
				for who, call := range map[string]*pending[int]{"leader": leader, "early": early, "late": late} {
					require.True(t, call.returned(), "%s: %s must have its answer", what, who)
					require.Equal(t, 8, call.res.Value, "%s: %s gets fn's value", what, who)
					require.Equal(t, f.want == idemflight.Hold, errors.Is(call.err, idemflight.ErrOutcomeUnknown), "%s: %s got %v", what, who, call.err)
					require.Equal(t, f.err == nil, call.err == nil, "%s: %s got %v", what, who, call.err)
					if f.want == idemflight.Retain {
						require.True(t, call.res.ExpiresAt.Equal(time.Now().Add(2*time.Hour)), "%s: %s: the leader's TTL counts, got %v", what, who, call.res.ExpiresAt)
					}
				}
				require.Equal(t, idemflight.Executed, leader.res.Source, "%s: the leader's source", what)
				require.Equal(t, idemflight.Joined, early.res.Source, "%s: source of who joined while Reconcile ran", what)
				require.Equal(t, f.want, dispositionOf(t, c, theKey), "%s: fn's outcome is settled as usual", what)

				want := idemflight.Stats{Executed: 2, Joined: 2, Holds: 1, Releases: 1}
				switch f.want {
				case idemflight.Retain:
					want.Retains, want.Entries = 1, 1
				case idemflight.Release:
					want.Releases++
				case idemflight.Hold:
					want.Holds, want.Entries, want.Held = 2, 1, 1
					e, _ := c.Lookup(theKey)
					require.ErrorIs(t, e.Err, f.err, "%s: held anew, with fn's error", what)
					require.True(t, e.CompletedAt.Equal(time.Now()), "%s: held anew, from fn's end", what)
				}
				require.Equal(t, want, c.Stats(), "%s: Stats", what)
				told := events.of(idemflight.EventExecuted)
				require.Len(t, told, 2, "%s: EventExecuted of the flight that held and of this one", what)
				require.Equal(t, f.want, told[1].Disposition, "%s: Disposition of the last execution", what)
				require.Empty(t, events.of(idemflight.EventReconciled, idemflight.EventRejected, idemflight.EventFinished), "%s: no other call events", what)
			})
		}
	}
}

// An Inline leader stays, though its context ends while Reconcile runs on another goroutine: it
// must be there for fn.
func TestPromise13_InlineLeaderStaysThroughReconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[string, int]{
			Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
				time.Sleep(time.Minute)
				if ctx.Err() != nil {
					t.Errorf("Reconcile's context must not end with the caller's: %v", ctx.Err())
				}
				return 0, idemflight.Retryable(errBoom)
			},
		})
		holdAfterASecond(t, c, theKey)
		ctx, cancel := context.WithCancel(t.Context())
		var callerOn, fnOn string
		leader := startCall(func() (idemflight.Result[int], error) {
			callerOn = goroutineID()
			return c.DoResult(ctx, theKey, func(context.Context) (int, error) { fnOn = goroutineID(); return 8, nil }, idemflight.Inline())
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		require.False(t, leader.returned(), "an Inline leader must stay")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.NoError(t, leader.err, "the outcome wins over the ended context")
		require.Equal(t, 8, leader.res.Value)
		require.Equal(t, callerOn, fnOn, "fn must run on the calling goroutine")
	})
}

func TestPromise13_ReconcileThatLearnsNothingHoldsAgainAsItWas(t *testing.T) {
	answer := errors.New("the bank does not answer")
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	isPanic := func(value any) func(error) bool {
		return func(err error) bool {
			var p *idemflight.PanicError
			return errors.As(err, &p) && (value == nil || p.Value == value) && len(p.Stack) > 0
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
					c := idemflight.MustNew(idemflight.Options[string, int]{
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
					before, _ := c.Lookup(theKey)
					require.Equal(t, holdTTL < 0, before.ExpiresAt.IsZero(), "ExpiresAt under HoldTTL %v", holdTTL)
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
							require.True(t, call.returned(), "%s: %s must have its answer", what, who)
							require.Nil(t, call.panicked, "%s: the panic must not reach the %s", what, who)
							require.False(t, call.exited, "%s: the Goexit must not reach the %s", what, who)
							require.ErrorIs(t, call.err, idemflight.ErrOutcomeUnknown, "%s: %s", what, who)
							require.True(t, r.want(call.err), "%s: %s: must wrap the new error, got %v", what, who, call.err)
							require.Equal(t, idemflight.None, call.res.Source, "%s: %s obtained no outcome", what, who)
							if round == 1 && who == "joined" { // both get the same; once is enough
								requireNoMarker(t, call.err, what+": "+who)
							}
						}
						require.Equal(t, round, runs, "%s: runs of Reconcile", what)
						after, _ := c.Lookup(theKey)
						want := before
						if holdTTL > 0 {
							require.True(t, after.ExpiresAt.Equal(time.Now().Add(holdTTL)), "%s: HoldTTL anew, got %v", what, after.ExpiresAt)
							want.ExpiresAt = after.ExpiresAt
						}
						require.Equal(t, want, after, "%s: held again as it was: error, times, fingerprint", what)
						n := uint64(round)
						require.Equal(t, idemflight.Stats{
							Executed: 1, OutcomeUnknown: 2 * n, Holds: 1 + n, Panics: n * r.panics, Entries: 1, Held: 1,
						}, c.Stats(), "%s: Stats", what)
						rejected := events.of(idemflight.EventRejected)
						require.Len(t, rejected, 2*round, "%s: calls whose Reconcile learned nothing are EventRejected, the joined ones too", what)
						for _, ev := range rejected {
							require.ErrorIs(t, ev.Err, idemflight.ErrOutcomeUnknown, "%s: Event.Err", what)
							require.True(t, r.want(ev.Err), "%s: Event.Err is what the call returned, got %v", what, ev.Err)
						}
						require.Len(t, events.of(), 1+2*round, "%s: all events", what)
					}
					if holdTTL > 0 {
						time.Sleep(holdTTL)
						_, ok := c.Lookup(theKey)
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
				cache := idemflight.MustNew(idemflight.Options[string, int]{
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
				require.Equal(t, idemflight.Replayed, res.Source, "%s: replayed until its TTL", name)
				time.Sleep(time.Nanosecond)
				_, ok := cache.Lookup(theKey)
				require.False(t, ok, "%s: expired", name)
			})
		}
	}

	// For the fn that follows a Retryable, WithTTL(0) means what it always means.
	synctest.Test(t, func(t *testing.T) {
		cache := idemflight.MustNew(idemflight.Options[string, int]{
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

// A held key answers as without Reconcile to who could not lead an execution.
func TestPromise13_NoReconcileForAnEndedContextOrAClosedCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[string, int]{
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
			require.Equal(t, idemflight.None, res.Source)
		}
		require.NoError(t, c.Close(t.Context()))
		_, err := c.Do(t.Context(), theKey, neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "closed")
		require.NotErrorIs(t, err, idemflight.ErrClosed, "closed")
		require.Equal(t, idemflight.Stats{Executed: 1, OutcomeUnknown: 3, Holds: 1, Entries: 1, Held: 1}, c.Stats(), "Stats")
		require.True(t, c.Resolve(theKey, 5, nil), "by hand it can be settled after Close, too")
	})
}

func TestPromise13_ReconcileGoesOnWhenAllHaveLeft(t *testing.T) {
	for name, r := range map[string]struct {
		err   error
		fnEnd error
		want  idemflight.Disposition
		runs  int
		stats idemflight.Stats
	}{
		"found":           {nil, nil, idemflight.Retain, 0, idemflight.Stats{Retains: 1, Entries: 1}},
		"learned nothing": {errors.New("no answer"), nil, idemflight.Hold, 0, idemflight.Stats{Holds: 1, Entries: 1, Held: 1}},
		"Retryable":       {idemflight.Retryable(errBoom), nil, idemflight.Retain, 1, idemflight.Stats{Releases: 1, Retains: 1, Entries: 1}},
		"and fn fails":    {idemflight.Retryable(errBoom), errors.New("transient"), idemflight.Release, 1, idemflight.Stats{Releases: 2}},
	} {
		synctest.Test(t, func(t *testing.T) {
			events := &eventLog[string]{}
			c := idemflight.MustNew(idemflight.Options[string, int]{
				Observer: events.observe,
				Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
					time.Sleep(time.Minute)
					if ctx.Err() != nil {
						t.Errorf("%s: Reconcile's context must not end with its caller's: %v", name, ctx.Err())
					}
					return 9, r.err
				},
			})
			holdAfterASecond(t, c, theKey)
			ctx, cancel := context.WithCancel(t.Context())
			runs := 0
			leader := start(c, ctx, theKey, func(ctx context.Context) (int, error) {
				runs++
				time.Sleep(time.Minute)
				if ctx.Err() != nil {
					t.Errorf("%s: fn's context must not end with its caller's: %v", name, ctx.Err())
				}
				return 9, r.fnEnd
			})
			synctest.Wait()
			joined := start(c, ctx, theKey, neverRuns(t))
			synctest.Wait()
			cancel()
			synctest.Wait()
			for _, call := range []*pending[int]{leader, joined} {
				require.True(t, call.returned(), "%s: must have left at once", name)
				require.ErrorIs(t, call.err, idemflight.ErrLeft, "%s", name)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			require.Equal(t, r.runs, runs, "%s: runs of fn", name)
			require.Equal(t, r.want, dispositionOf(t, c, theKey), "%s: the outcome is settled as usual", name)
			want := r.stats
			want.Executed, want.Left, want.Holds = 1, 2, want.Holds+1
			require.Equal(t, want, c.Stats(), "%s: Stats", name)
			finished := events.of(idemflight.EventFinished)
			require.Len(t, finished, 1, "%s: one EventFinished, for the last execution", name)
			require.Equal(t, r.want, finished[0].Disposition, "%s: EventFinished", name)
			require.Len(t, events.of(idemflight.EventLeft), 2, "%s: EventLeft", name)
			require.Len(t, events.of(), 4, "%s: all events", name)
		})
	}
}

func TestPromise13_ReconcileHasExecTimeoutAsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[string, int]{
			ExecTimeout: time.Minute,
			Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
				<-ctx.Done()
				return 9, ctx.Err()
			},
		})
		holdAfterASecond(t, c, theKey)
		start := time.Now()
		_, err := c.Do(context.Background(), theKey, neverRuns(t))
		require.Equal(t, time.Minute, time.Since(start), "Reconcile's context must end ExecTimeout after its start")
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestPromise13_ReconcileIsAnExecutionOfItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c *idemflight.Cache[string, int]
		c = idemflight.MustNew(idemflight.Options[string, int]{
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

// Forgetting a value must not forget an unknown, in Reconcile's flight as in fn's.
func TestPromise13_ForgottenInFlightAHoldIsHeldAllTheSame(t *testing.T) {
	for name, r := range map[string]struct {
		err  error
		want idemflight.Disposition
		src  idemflight.Source
	}{
		"found":           {nil, idemflight.Release, idemflight.Reconciled},
		"found, Final":    {idemflight.Final(errBoom), idemflight.Release, idemflight.Reconciled},
		"learned nothing": {errors.New("no answer"), idemflight.Hold, idemflight.None},
		"Retryable":       {idemflight.Retryable(errBoom), idemflight.Release, idemflight.Executed},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(idemflight.Options[string, int]{
				Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
					time.Sleep(time.Minute)
					return 9, r.err
				},
			})
			flying := start(c, t.Context(), theKey, func(context.Context) (int, error) { time.Sleep(time.Second); return 7, idemflight.Unknown(errBoom) })
			synctest.Wait()
			require.True(t, c.Forget(theKey), "Forget of a key in flight")
			time.Sleep(time.Second)
			synctest.Wait()
			require.ErrorIs(t, flying.err, idemflight.ErrOutcomeUnknown)
			require.Equal(t, idemflight.Hold, dispositionOf(t, c, theKey), "a Hold is held all the same")
			before, _ := c.Lookup(theKey)

			leader := start(c, t.Context(), theKey, returns(9, nil))
			synctest.Wait()
			require.True(t, c.Forget(theKey), "Forget while Reconcile runs")
			late := start(c, t.Context(), theKey, neverRuns(t))
			time.Sleep(time.Minute)
			synctest.Wait()
			require.Equal(t, r.src, leader.res.Source, "%s: the leader's source", name)
			require.Equal(t, r.want, dispositionOf(t, c, theKey), "%s: after Forget while Reconcile ran", name)
			if r.want == idemflight.Hold {
				after, _ := c.Lookup(theKey)
				require.Equal(t, before.Err, after.Err, "%s: held again as it was", name)
				return
			}
			require.Equal(t, 9, leader.res.Value, "%s: its callers get the outcome", name)
			require.Equal(t, 9, late.res.Value, "%s: who came after Forget still joins", name)
			require.True(t, leader.res.ExpiresAt.IsZero(), "%s: ExpiresAt of what is not retained", name)
			require.Zero(t, c.Len(), "%s: nothing is kept", name)
		})
	}
}

// What an operator or Reconcile brings is an outcome like any other: it is weighed, and what was
// held until then weighed nothing.
func TestPromise13_WhatIsFoundIsWeighedLikeAnyOutcome(t *testing.T) {
	for name, settle := range map[string]func(*testing.T, *idemflight.Cache[string, int]){
		"Resolve": func(t *testing.T, c *idemflight.Cache[string, int]) {
			require.True(t, c.Resolve(theKey, 5, nil), "Resolve of a held key")
		},
		"Reconcile": func(t *testing.T, c *idemflight.Cache[string, int]) {
			v, err := c.Do(t.Context(), theKey, neverRuns(t))
			require.NoError(t, err)
			require.Equal(t, 5, v)
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(idemflight.Options[string, int]{
				MaxWeight: 10, Weigh: func(_ string, v int) int64 { return int64(v) },
				Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) { return 5, nil },
			})
			_, err := c.Do(t.Context(), "older", returns(6, nil))
			require.NoError(t, err)
			holdAfterASecond(t, c, theKey)
			require.Equal(t, int64(6), c.Stats().Weight, "%s: what is held weighs nothing", name)
			settle(t, c)
			require.Equal(t, int64(5), c.Stats().Weight, "%s: the older value must have been shed for it", name)
			_, err = c.Do(t.Context(), "older", neverRuns(t))
			require.ErrorIs(t, err, idemflight.ErrValueShed, "%s: the older key", name)
			v, err := c.Do(t.Context(), theKey, neverRuns(t))
			require.NoError(t, err, "%s: what was found", name)
			require.Equal(t, 5, v, "%s: what was found", name)
		})
	}
}
