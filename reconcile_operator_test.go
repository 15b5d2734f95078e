package idemflight_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

type intReconcile = func(context.Context, string, idemflight.Entry[int]) (int, error)

var (
	errNoAnswer  = errors.New("the bank does not answer")
	errNoPayment = errors.New("no such payment")
)

// answers is a Reconcile that takes a minute.
func answers(v int, err error) intReconcile {
	return func(context.Context, string, idemflight.Entry[int]) (int, error) {
		time.Sleep(time.Minute)
		return v, err
	}
}

// operate calls Cache.Reconcile on a goroutine of its own: the value of its result is the entry.
func operate(c *cache, ctx context.Context, key string) *pending[idemflight.Entry[int]] {
	return startCall(func() (idemflight.Result[idemflight.Entry[int]], error) {
		e, err := c.Reconcile(ctx, key)
		return idemflight.Result[idemflight.Entry[int]]{Value: e}, err
	})
}

// An operator asks about a held key, and gets the entry as it now is. No call was made, so no
// caller hears of it. It is an execution like any other, and one event reports what became of the
// key.
func TestPromise13_AnOperatorReconcilesAHeldKey(t *testing.T) {
	for name, answer := range map[string]struct {
		reconcile   intReconcile
		state       idemflight.State
		disposition idemflight.Disposition
		found       error // retained with the value
		learned     error // that nothing is known
		panics      uint64
	}{
		"found":     {reconcile: answers(9, nil), state: idemflight.Retained, disposition: idemflight.Retain},
		"Final":     {reconcile: answers(9, idemflight.Final(errDeclined)), state: idemflight.Retained, disposition: idemflight.Retain, found: errDeclined},
		"Retryable": {reconcile: answers(9, idemflight.Retryable(errNoPayment)), state: idemflight.Absent, disposition: idemflight.Release},
		"unmarked":  {reconcile: answers(9, errNoAnswer), state: idemflight.Held, disposition: idemflight.Hold, learned: errNoAnswer},
		"Unknown":   {reconcile: answers(9, idemflight.Unknown(errNoAnswer)), state: idemflight.Held, disposition: idemflight.Hold, learned: errNoAnswer},
		"panic": {reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
			time.Sleep(time.Minute)
			panic(errNoAnswer)
		},
			state: idemflight.Held, disposition: idemflight.Hold, learned: errNoAnswer, panics: 1},
		"Goexit": {reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
			time.Sleep(time.Minute)
			runtime.Goexit()
			return 9, nil
		}, state: idemflight.Held, disposition: idemflight.Hold, learned: idemflight.ErrGoexit, panics: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var seen []reconcileArgs
				log := &eventLog[string]{}
				c := idemflight.MustNew(options{
					TTL: time.Hour, HoldTTL: 24 * time.Hour, MaxEntries: 1, Observer: log.observe,
					Reconcile: func(ctx context.Context, key string, held idemflight.Entry[int]) (int, error) {
						seen = append(seen, reconcileArgs{key, held, ctx.Value(nameKey{}), goroutineID()})
						return answer.reconcile(ctx, key, held)
					},
				})
				fp := fingerprint(1)
				holdAfterASecond(t, c, theKey, idemflight.WithFingerprint(fp))
				before, _ := lookup(c, theKey)
				time.Sleep(time.Hour)
				log.clear()

				began, me := time.Now(), goroutineID()
				entry, err := c.Reconcile(context.WithValue(t.Context(), nameKey{}, "operator"), theKey)
				require.Equal(t, time.Minute, time.Since(began), "it returns as soon as Reconcile has answered")
				now, _ := lookup(c, theKey)
				require.Equal(t, now, entry, "the entry as it is now")
				require.Equal(t, answer.state, entry.State, "what the key is now")

				require.Len(t, seen, 1, "Options.Reconcile is asked once")
				require.NotEqual(t, me, seen[0].goroutine, "Options.Reconcile never runs on a caller's goroutine")
				require.Equal(t, reconcileArgs{theKey, before, "operator", seen[0].goroutine}, seen[0],
					"Options.Reconcile gets the key, the entry that was held, and the values of the operator's context")

				want := idemflight.Stats{Executed: 1, Holds: 1, Panics: answer.panics}
				switch answer.disposition {
				case idemflight.Retain:
					require.NoError(t, err, "the key is settled")
					require.Equal(t, idemflight.Entry[int]{
						State: idemflight.Retained, Value: 9, Err: answer.found, Fingerprint: fp,
						StartedAt: entry.StartedAt, CompletedAt: entry.CompletedAt, ExpiresAt: entry.ExpiresAt,
					}, entry, "what was found is retained, with the fingerprint that the key had")
					require.True(t, entry.ExpiresAt.Equal(time.Now().Add(time.Hour)), "for Options.TTL from now, got %v", entry.ExpiresAt)
					want.Retains, want.Entries = 1, 1
				case idemflight.Release:
					require.NoError(t, err, "the key is settled")
					require.Zero(t, entry, "nothing is kept")
					want.Releases = 1
				case idemflight.Hold:
					require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "it is held still")
					require.ErrorIs(t, err, answer.learned, "and the error says why")
					require.Contains(t, err.Error(), ": Reconcile learned nothing: ", "and the error says why")
					require.Contains(t, err.Error(), "held since 2000-01-01 00:00:01Z until 2000-01-02 01:01:01Z", "since when, and until when")
					requireNoMarker(t, err, name)
					again := before
					again.ExpiresAt = entry.ExpiresAt
					require.Equal(t, again, entry, "it is held as it was")
					require.True(t, entry.ExpiresAt.Equal(time.Now().Add(24*time.Hour)), "but its HoldTTL begins anew, got %v", entry.ExpiresAt)
					want.Holds, want.Entries, want.Held = 2, 1, 1
				}
				require.Equal(t, want, c.Stats(), "Stats: it counts among executions, and not among calls")

				require.Len(t, log.of(), 1, "one event")
				told := log.seen(idemflight.EventResolved)
				require.Len(t, told, 1, "EventResolved")
				require.Equal(t, answer.disposition, told[0].Disposition, "EventResolved says what became of the key")
				require.Equal(t, theKey, told[0].Key, "EventResolved says of which key")
				require.Equal(t, "operator", told[0].ctx.Value(nameKey{}), "EventResolved has the operator's context")
				switch answer.disposition {
				case idemflight.Hold:
					require.Equal(t, err, told[0].Err, "EventResolved has the error that the operator got")
				case idemflight.Retain:
					require.Equal(t, answer.found, told[0].Err, "EventResolved has the error that was found")
				}
				require.NoError(t, c.CheckInvariants())

				if answer.disposition == idemflight.Release {
					executes(t, c, theKey, 5, idemflight.WithFingerprint(fingerprint(2)))
				}
			})
		})
	}
}

// An operator's Reconcile and that of a call are one execution: the second to ask joins, and all
// get the answer.
func TestPromise13_OperatorsAndCallsAskTogether(t *testing.T) {
	for name, answer := range map[string]struct {
		err   error
		state idemflight.State
	}{
		"found":           {nil, idemflight.Retained},
		"no effect":       {idemflight.Retryable(errNoPayment), idemflight.InFlight},
		"learned nothing": {errNoAnswer, idemflight.Held},
	} {
		for _, first := range []string{"operator", "call"} {
			t.Run(name+", first "+first, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					asked := 0
					log := &eventLog[string]{}
					c := idemflight.MustNew(options{Observer: log.observe, Reconcile: func(ctx context.Context, key string, held idemflight.Entry[int]) (int, error) {
						asked++
						return answers(9, answer.err)(ctx, key, held)
					}})
					fp := idemflight.WithFingerprint(fingerprint(1))
					holdAfterASecond(t, c, theKey, fp)
					log.clear()
					var operators []*pending[idemflight.Entry[int]]
					if first == "operator" {
						operators = append(operators, operate(c, context.WithValue(bg, nameKey{}, "leads"), theKey))
						synctest.Wait()
					}
					client := start(c, t.Context(), theKey, returnsAfter(time.Second, 5, nil), fp)
					synctest.Wait()
					for range 2 {
						operators = append(operators, operate(c, bg, theKey))
						synctest.Wait()
					}
					time.Sleep(time.Minute)
					synctest.Wait()
					require.Equal(t, 1, asked, "Reconcile is asked once for all")
					for _, op := range operators {
						require.True(t, op.returned(), "an operator returns when Reconcile has answered, whether fn runs then or not")
						require.Equal(t, time.Minute, op.took(), "an operator returns when Reconcile has answered")
						if answer.state == idemflight.Held {
							require.ErrorIs(t, op.err, idemflight.ErrOutcomeUnknown, "nothing was learned")
							require.ErrorIs(t, op.err, errNoAnswer, "nothing was learned")
							require.Equal(t, idemflight.Held, op.res.Value.State, "it is held still")
							continue
						}
						require.NoError(t, op.err, "the key is held no longer")
						if answer.state == idemflight.InFlight && op.res.Value.State == idemflight.Absent && first == "operator" {
							continue // the client is about to look again
						}
						require.Equal(t, answer.state, op.res.Value.State, "the entry as it then is")
					}
					time.Sleep(time.Second)
					synctest.Wait()
					counts := map[string]uint64{"Executed": 1}
					switch {
					case name == "no effect":
						client.got(t, idemflight.Executed, 5)
						counts["Executed"] = 2
					case name == "learned nothing":
						require.ErrorIs(t, client.err, idemflight.ErrOutcomeUnknown, "nothing was learned")
						require.ErrorIs(t, client.err, errNoAnswer, "nothing was learned")
						require.Zero(t, client.res, "no outcome was obtained")
						counts["OutcomeUnknown"] = 1
					case first == "operator":
						client.got(t, idemflight.Joined, 9)
						counts["Joined"] = 1
					default:
						client.got(t, idemflight.Reconciled, 9)
						counts["Reconciled"] = 1
					}
					require.Equal(t, counts, callCounts(c.Stats()), "only calls count as calls")
					require.Len(t, log.of(callKinds...), 1, "one event tells of the one call")
					told := log.seen(idemflight.EventResolved, idemflight.EventFinished)
					if first == "call" {
						require.Empty(t, told, "the operators did not act: the call asked")
						return
					}
					require.Len(t, told, 1, "one event tells what the one operator did who asked")
					require.Equal(t, idemflight.EventResolved, told[0].Kind)
					require.Equal(t, "leads", told[0].ctx.Value(nameKey{}), "in the context of that operator")
					require.Equal(t, 1, told[0].Waiters, "the client waited for it")
				})
			})
		}
	}
}

// Reconcile finds that there was no effect, and there is no fn to run: the callers that wait look
// at the key again. One of them leads, with its own fn, and the others get its outcome.
func TestPromise13_WhoWaitsLooksAgainAndOneLeadsWithItsOwnFn(t *testing.T) {
	for name, ask := range map[string]func(t *testing.T, c *cache){
		"an operator asks": func(_ *testing.T, c *cache) { operate(c, bg, theKey) },
		"an operator who leaves asks": func(t *testing.T, c *cache) {
			ctx, cancel := context.WithTimeout(bg, time.Second)
			t.Cleanup(cancel)
			operate(c, ctx, theKey)
		},
		"a caller that leaves asks": func(t *testing.T, c *cache) {
			ctx, cancel := context.WithTimeout(bg, time.Second)
			t.Cleanup(cancel)
			start(c, ctx, theKey, neverRuns(t))
		},
		"a caller with Inline that leaves asks": func(t *testing.T, c *cache) {
			ctx, cancel := context.WithTimeout(bg, time.Second)
			t.Cleanup(cancel)
			start(c, ctx, theKey, neverRuns(t), idemflight.Inline())
		},
		"a caller that may not wait asks": func(t *testing.T, c *cache) {
			start(c, bg, theKey, neverRuns(t), idemflight.WithMaxWait(idemflight.NoWait))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &eventLog[string]{}
				c := idemflight.MustNew(options{MaxEntries: 1, Observer: log.observe, Reconcile: answers(9, idemflight.Retryable(errNoPayment))})
				holdAfterASecond(t, c, theKey)
				log.clear()
				ask(t, c)
				synctest.Wait()
				time.Sleep(2 * time.Second)

				var runs, running atomic.Int64
				var clients []*pending[int]
				var ran [6]context.Context // the contexts of the fns that ran
				for i, opts := range [][]idemflight.CallOption{nil, {idemflight.Inline()}, {idemflight.WithMaxWait(time.Hour)}, {idemflight.WithTTL(0)}, nil, nil} {
					clients = append(clients, start(c, context.WithValue(t.Context(), nameKey{}, i), theKey, func(ctx context.Context) (int, error) {
						ran[i] = ctx
						runs.Add(1)
						if n := running.Add(1); n > 1 {
							t.Errorf("%d executions beside each other", n)
						}
						defer running.Add(-1)
						if v := ctx.Value(nameKey{}); v != i {
							t.Errorf("fn of client %d must get the values of client %d, got %v", i, i, v)
						}
						time.Sleep(time.Second)
						return 100 + i, nil
					}, opts...))
				}
				leaving, cancel := context.WithCancelCause(bg)
				left := start(c, leaving, theKey, neverRuns(t))
				refused := start(c, bg, theKey, neverRuns(t), idemflight.WithMaxWait(idemflight.NoWait))
				synctest.Wait()
				cancel(errEnough)
				synctest.Wait()
				left.left(t, leaving, errEnough)
				refused.refused(t, 0)

				time.Sleep(2 * time.Minute)
				synctest.Wait()
				require.EqualValues(t, 1, runs.Load(), "exactly one fn runs")
				leads := 0
				for ran[leads] == nil {
					leads++
				}
				for i, client := range clients {
					source := idemflight.Joined
					if i == leads {
						source = idemflight.Executed
					}
					client.got(t, source, 100+leads)
				}
				s := c.Stats()
				require.EqualValues(t, []uint64{2, 5}, []uint64{s.Executed, s.Joined}, "who looks again counts once, by how it ended")
				require.Zero(t, s.InFlight+s.Waiters, "nobody is left behind")
				executed := log.seen(idemflight.EventExecuted)
				require.Len(t, executed, 1, "one event for each call")
				require.Equal(t, leads, executed[0].ctx.Value(nameKey{}), "in the context of the one that led")
				require.Len(t, log.seen(idemflight.EventJoined), 5, "one event for each call")
				told := log.of(idemflight.EventFinished, idemflight.EventResolved)
				require.Len(t, told, 1, "one event tells how the flight of Reconcile ended")
				require.Equal(t, idemflight.Release, told[0].Disposition, "there was no effect")
				require.Equal(t, 6, told[0].Waiters, "six waited for it")
				require.NoError(t, c.CheckInvariants())
			})
		})
	}
}

// An operator's context ends like that of any caller. Reconcile goes on, and what became of the key is
// told once, in the context of the operator that asked.
func TestPromise13_AnOperatorLeaves(t *testing.T) {
	t.Run("dead on arrival", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			log := &eventLog[string]{}
			c := idemflight.MustNew(options{Observer: log.observe, Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
				t.Error("Reconcile must not be started for an operator whose context has ended")
				return 9, nil
			}})
			holdAfterASecond(t, c, theKey)
			before, _ := lookup(c, theKey)
			log.clear()
			ctx := dead(idemflight.Final(errEnough))
			op := operate(c, ctx, theKey)
			synctest.Wait()
			op.left(t, ctx, errEnough)
			requireNoMarker(t, op.err, "a marked cause")
			after, _ := lookup(c, theKey)
			require.Equal(t, before, after, "the key stays held as it was")
			require.Empty(t, log.of(), "nothing was done, so nothing is told")
			require.Equal(t, idemflight.Stats{Executed: 1, Holds: 1, Entries: 1, Held: 1}, c.Stats(), "Stats")
		})
	})
	for name, answer := range map[string]struct {
		err         error
		disposition idemflight.Disposition
	}{
		"found":           {nil, idemflight.Retain},
		"no effect":       {idemflight.Retryable(errNoPayment), idemflight.Release},
		"learned nothing": {errNoAnswer, idemflight.Hold},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &eventLog[string]{}
				c := idemflight.MustNew(options{Observer: log.observe, Reconcile: func(ctx context.Context, key string, held idemflight.Entry[int]) (int, error) {
					v, err := answers(9, answer.err)(ctx, key, held)
					if ctx.Err() != nil {
						t.Errorf("Reconcile's context must not end with the operator's: %v", ctx.Err())
					}
					return v, err
				}})
				holdAfterASecond(t, c, theKey)
				log.clear()
				ctx, cancel := context.WithCancelCause(context.WithValue(bg, nameKey{}, "asked"))
				asked := operate(c, ctx, theKey)
				synctest.Wait()
				joined := operate(c, ctx, theKey)
				time.Sleep(time.Second)
				require.False(t, asked.returned() || joined.returned(), "Reconcile has not answered")
				cancel(errEnough)
				synctest.Wait()
				asked.left(t, ctx, errEnough)
				joined.left(t, ctx, errEnough)
				require.Equal(t, time.Second, asked.took(), "an operator returns as soon as its context ends")
				requireState(t, c, idemflight.InFlight, theKey)
				require.Empty(t, log.of(), "nothing has become of the key yet")
				late := operate(c, ctx, theKey)
				synctest.Wait()
				late.left(t, ctx, errEnough)

				time.Sleep(time.Hour)
				require.Equal(t, answer.disposition, dispositionOf(t, c, theKey), "Reconcile's answer is settled as usual")
				told := log.seen()
				require.Len(t, told, 1, "one event, though all have left")
				require.Equal(t, idemflight.EventResolved, told[0].Kind)
				require.Equal(t, answer.disposition, told[0].Disposition, "EventResolved says what became of the key")
				require.Equal(t, "asked", told[0].ctx.Value(nameKey{}), "EventResolved has the operator's context")
				require.Equal(t, time.Minute, told[0].Took, "how long Reconcile took")
				require.Zero(t, c.Stats().CallerLeft, "an operator is no call")
			})
		})
	}
}

// The operator's context ends in the very moment in which Reconcile answers: the operator gets the one or
// the other, and what became of the key is told once.
func TestPromise13_AnOperatorLeavesAsReconcileAnswers(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			log := &eventLog[string]{}
			ctx, cancel := context.WithCancelCause(bg)
			c := idemflight.MustNew(options{Observer: log.observe, Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
				cancel(errEnough)
				return 9, nil
			}})
			hold(t, c, theKey)
			op := operate(c, ctx, theKey)
			synctest.Wait()
			if op.err != nil {
				op.left(t, ctx, errEnough)
			} else {
				require.Equal(t, 9, op.res.Value.Value, "the operator gets what was found")
			}
			require.Equal(t, 9, replays(t, c, theKey), "what was found is retained")
			require.Len(t, log.of(idemflight.EventResolved), 1, "one EventResolved")
		})
	}
}

// An operator asks by mistake about a key that is not held: the error says what the key is.
func TestPromise13_AnOperatorReconcilesHeldKeysOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		answer := idemflight.Retryable(errNoPayment)
		c := idemflight.MustNew(weighted(options{TTL: time.Hour, HoldTTL: time.Hour, Observer: log.observe, Reconcile: func(_ context.Context, key string, _ idemflight.Entry[int]) (int, error) {
			if key != "found no effect" {
				t.Errorf("Reconcile must not be asked about %q", key)
			}
			return 9, answer
		}}))
		executes(t, c, "retained", 5)
		executes(t, c, "shed", tooHeavy)
		gate := newGate(t)
		start(c, bg, "flying", func(context.Context) (int, error) { gate.wait(); return 1, nil })
		hold(t, c, "found no effect")
		start(c, bg, "found no effect", func(context.Context) (int, error) { gate.wait(); return 1, nil })
		synctest.Wait()
		log.clear()
		counts := callCounts(c.Stats())
		notHeld := func(key, is string) {
			t.Helper()
			for _, ctx := range []context.Context{bg, dead(errEnough)} {
				e, err := c.Reconcile(ctx, key)
				require.ErrorIs(t, err, idemflight.ErrNotHeld, "%q is not held", key)
				require.EqualError(t, err, "idemflight: key is not held: it is "+is, "the error says what it is")
				require.Zero(t, e, "no entry for %q", key)
			}
		}
		notHeld("retained", "retained")
		notHeld("shed", "shed")
		notHeld("flying", "in_flight")
		notHeld("found no effect", "in_flight")
		notHeld("never seen", "absent")
		notHeld("", "absent")
		require.Equal(t, counts, callCounts(c.Stats()), "an operator is no call")
		require.Empty(t, log.of(), "nothing was done, so nothing is told")
		gate.open()
		synctest.Wait()

		hold(t, c, "expired")
		time.Sleep(time.Hour - 1)
		requireState(t, c, idemflight.Held, "expired")
		time.Sleep(time.Nanosecond)
		log.clear()
		notHeld("expired", "absent")
		require.Equal(t, []string{"expired"}, log.keys(idemflight.EventExpired), "the record that has expired is told")
		require.NoError(t, c.CheckInvariants())
	})
}

func TestPromise13_AnOperatorIsRefusedByAClosedCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		asked := 0
		c := idemflight.MustNew(options{Observer: log.observe, Reconcile: func(ctx context.Context, key string, held idemflight.Entry[int]) (int, error) {
			asked++
			return answers(9, nil)(ctx, key, held)
		}})
		hold(t, c, theKey)
		hold(t, c, "other")
		executes(t, c, "retained", 1)
		running := operate(c, bg, theKey)
		synctest.Wait()
		began := time.Now()
		closed := make(chan error, 1)
		go func() { closed <- c.Close(bg) }()
		synctest.Wait()
		log.clear()

		e, err := c.Reconcile(bg, "other")
		require.ErrorIs(t, err, idemflight.ErrClosed, "Reconcile is an execution: a closed cache starts none")
		require.Zero(t, e)
		requireState(t, c, idemflight.Held, "other")
		require.Empty(t, log.of(), "nothing was done, so nothing is told")
		_, err = c.Reconcile(bg, "retained")
		require.ErrorIs(t, err, idemflight.ErrNotHeld, "what the key is comes first")
		joined := operate(c, bg, theKey)

		require.NoError(t, <-closed)
		require.Equal(t, time.Minute, time.Since(began), "Close waits for the operator's Reconcile")
		synctest.Wait()
		for _, op := range []*pending[idemflight.Entry[int]]{running, joined} {
			require.NoError(t, op.err, "one that had begun goes on, and may be joined")
			require.Equal(t, 9, op.res.Value.Value, "one that had begun goes on, and may be joined")
		}
		require.Equal(t, 1, asked)
	})
}

func TestPromise06_AnOperatorsReconcileIsAnExecutionOfItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c *cache
		c = idemflight.MustNew(options{Reconcile: func(ctx context.Context, key string, _ idemflight.Entry[int]) (int, error) {
			if key != theKey {
				return 3, nil
			}
			e, err := c.Reconcile(ctx, key)
			if err != idemflight.ErrReentrant || e != (idemflight.Entry[int]{}) {
				t.Errorf("from inside the Reconcile of the key: want ErrReentrant, got %+v, %v", e, err)
			}
			if _, err := c.Do(ctx, key, neverRuns(t)); err != idemflight.ErrReentrant {
				t.Errorf("a call from inside the Reconcile of the key: want ErrReentrant, got %v", err)
			}
			if err := c.Resolve(ctx, key, 1, nil); !errors.Is(err, idemflight.ErrNotHeld) {
				t.Errorf("Resolve while Reconcile runs: want ErrNotHeld, got %v", err)
			}
			if err := c.Close(ctx); err != idemflight.ErrReentrant {
				t.Errorf("Close from inside: want ErrReentrant, got %v", err)
			}
			return 9, nil
		}})
		hold(t, c, theKey)
		hold(t, c, "other")
		_, err := c.Do(bg, "outer", func(ctx context.Context) (int, error) {
			if _, err := c.Reconcile(ctx, "outer"); !errors.Is(err, idemflight.ErrNotHeld) {
				t.Errorf("from inside fn the key is in flight: want ErrNotHeld, got %v", err)
			}
			e, err := c.Reconcile(ctx, "other")
			if e.Value != 3 || err != nil {
				t.Errorf("from inside an execution of another key: want what was found, got %+v, %v", e, err)
			}
			return 1, nil
		})
		require.NoError(t, err)
		e, err := c.Reconcile(bg, theKey)
		require.NoError(t, err)
		require.Equal(t, 9, e.Value)
	})
}

func TestPromise13_AnOperatorNeedsOptionsReconcile(t *testing.T) {
	c := idemflight.MustNew(options{})
	hold(t, c, theKey)
	for _, key := range []string{theKey, "absent"} {
		e, err := c.Reconcile(bg, key)
		require.EqualError(t, err, "idemflight: Cache.Reconcile needs Options.Reconcile, which is nil")
		require.Zero(t, e)
	}
	requireState(t, c, idemflight.Held, theKey)
	var none context.Context
	require.Equal(t, "idemflight: Reconcile called with a nil context", panicOf(func() { _, _ = c.Reconcile(none, theKey) }))
}

// Forget while an operator's Reconcile runs: what it finds is not retained, finding nothing holds again.
func TestPromise23_ForgetDuringAnOperatorsReconcile(t *testing.T) {
	for name, answer := range map[string]struct {
		err         error
		disposition idemflight.Disposition
	}{
		"found":           {nil, idemflight.Release},
		"Final":           {idemflight.Final(errDeclined), idemflight.Release},
		"no effect":       {idemflight.Retryable(errNoPayment), idemflight.Release},
		"learned nothing": {errNoAnswer, idemflight.Hold},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &eventLog[string]{}
				c := idemflight.MustNew(options{Observer: log.observe, Reconcile: answers(9, answer.err)})
				hold(t, c, theKey)
				op := operate(c, bg, theKey)
				synctest.Wait()
				require.True(t, forget(c, theKey), "a key in flight can be forgotten")
				time.Sleep(time.Minute)
				synctest.Wait()
				require.Equal(t, answer.disposition == idemflight.Hold, errors.Is(op.err, idemflight.ErrOutcomeUnknown), "the operator got %v", op.err)
				require.Equal(t, answer.disposition, dispositionOf(t, c, theKey), "what became of the key")
				told := log.of(idemflight.EventResolved)
				require.Len(t, told, 1)
				require.Equal(t, answer.disposition, told[0].Disposition, "EventResolved says so")
				require.NoError(t, c.CheckInvariants())
			})
		})
	}
}
