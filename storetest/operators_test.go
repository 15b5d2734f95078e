package storetest_test

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
	"github.com/idemflight/idemflight/storetest"
)

// Promises 43 and 44: operators, Restore and Close.

// Promise 43: Operators act on the store, and of several that settle the same key, in whatever
// process, one succeeds. Restore and Load write through.
func TestPromise43_OperatorsActOnTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		_, err := a.Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		_, err = b.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.ErrorContains(t, err, "fn did not say whether an effect had begun")
		require.ErrorContains(t, err, "boom")
		e, ok, err := b.Lookup(bg, theKey)
		require.True(t, ok && err == nil)
		require.Equal(t, idemflight.Held, e.State)
		require.EqualError(t, e.Err, "boom")
		var seen []string
		require.NoError(t, b.Unsettled(bg, func(key string, e idemflight.Entry[int]) bool {
			seen = append(seen, key+" "+e.State.String())
			return true
		}))
		require.Equal(t, []string{"key held"}, seen)
		require.Error(t, b.Resolve(bg, theKey, 1, errBoom), "still unknown")
		require.NoError(t, b.Resolve(bg, theKey, 4, nil))
		require.ErrorIs(t, a.Resolve(bg, theKey, 5, nil), idemflight.ErrNotHeld)
		require.Equal(t, 4, must(a.Do(bg, theKey, mustNotRun(t))))
		was, err := a.Forget(bg, theKey)
		require.True(t, was && err == nil)
		was, err = a.Forget(bg, theKey)
		require.False(t, was)
		require.NoError(t, err)
		_, ok, err = b.Lookup(bg, theKey)
		require.False(t, ok)
		require.NoError(t, err)
		m.Fail("Read", storetest.Before, 1<<30)
		_, _, err = b.Lookup(bg, theKey)
		require.ErrorIs(t, err, idemflight.ErrStore)
		require.ErrorIs(t, b.Resolve(bg, theKey, 1, nil), idemflight.ErrStore)
		_, err = b.Forget(bg, theKey)
		require.ErrorIs(t, err, idemflight.ErrStore)
	})
}

func TestPromise43_ReconcileOfCallsAndOperators(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		var find func() (int, error)
		var asked atomic.Int64
		with := func(o *options) {
			o.Reconcile = func(_ context.Context, key string, held idemflight.Entry[int]) (int, error) {
				asked.Add(1)
				require.Equal(t, theKey, key)
				require.Equal(t, idemflight.Held, held.State)
				require.EqualError(t, held.Err, "boom")
				return find()
			}
		}
		a, b := over(t, m, with, always), over(t, m, with, always)
		_, err := a.Reconcile(bg, theKey)
		require.ErrorIs(t, err, idemflight.ErrNotHeld)
		_, err = a.Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)

		find = func() (int, error) { return 0, errors.New("bank is down") }
		for range 3 { // one asks, the others pause
			_, err = b.Do(bg, theKey, mustNotRun(t))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			require.ErrorContains(t, err, "Reconcile learned nothing: bank is down")
		}
		require.EqualValues(t, 1, asked.Load())
		e, err := b.Reconcile(bg, theKey) // an operator does not
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.Equal(t, idemflight.Held, e.State)
		require.EqualError(t, e.Err, "boom", "held as it was")
		require.EqualValues(t, 2, asked.Load())
		time.Sleep(time.Second)

		find = func() (int, error) { return 6, nil }
		res, err := b.DoResult(bg, theKey, mustNotRun(t))
		require.NoError(t, err)
		require.Equal(t, 6, res.Value)
		require.Equal(t, idemflight.Reconciled, res.Source)
		require.Equal(t, 6, must(a.Do(bg, theKey, mustNotRun(t))))
		require.EqualValues(t, 3, asked.Load())

		_, err = a.Forget(bg, theKey)
		require.NoError(t, err)
		_, err = a.Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		find = func() (int, error) { return 0, idemflight.Retryable(errBoom) }
		e, err = a.Reconcile(bg, theKey)
		require.NoError(t, err)
		require.Equal(t, idemflight.Absent, e.State)
		require.Equal(t, 3, must(a.Do(bg, theKey, returns(3, nil))))

		_, err = a.Forget(bg, theKey)
		require.NoError(t, err)
		_, err = a.Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		begins := m.Asked("Begin")
		require.Equal(t, 4, must(b.Do(bg, theKey, returns(4, nil))), "fn follows")
		require.Equal(t, begins+1, m.Asked("Begin"), "what follows Reconcile is begun")
		for _, c := range []*cache{a, b} {
			require.Zero(t, c.Stats().InFlight)
		}
	})
}

func TestPromise43_RestoreWritesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := idemflight.MustNew(options{})
		require.Equal(t, 7, must(old.Do(bg, theKey, returns(7, nil))))
		_, err := old.Do(bg, "held", returns(0, errBoom))
		require.Error(t, err)
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		for key, e := range old.All() {
			require.NoError(t, a.Restore(bg, key, e))
			require.Error(t, a.Restore(bg, key, e), "twice")
		}
		require.Equal(t, 7, must(b.Do(bg, theKey, mustNotRun(t))))
		_, err = b.Do(bg, "held", mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.ErrorContains(t, err, "boom")
		require.ErrorContains(t, a.Save(io.Discard), "Save of a cache with a Store")
	})
}

// Promise 44: Close waits for the executions of its own process, and not for those of others. Save
// is an error: the store has everything.
func TestPromise44_CloseWaitsForExecutionsHereAndNotElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		fn, runs, release := blocked(7, nil)
		led := start(a, bg, fn)
		<-runs
		watches := start(b, bg, mustNotRun(t))
		synctest.Wait()
		require.NoError(t, b.Close(bg), "nothing runs there")
		closed := make(chan error, 1)
		go func() { closed <- a.Close(bg) }()
		synctest.Wait()
		require.Empty(t, closed)
		close(release)
		require.NoError(t, <-closed)
		require.NoError(t, (<-led).err)
		require.NoError(t, (<-watches).err, "joins go on")
		_, err := a.Do(bg, "new", mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrClosed)
	})
}

func TestPromise43_OperatorsClaimWithThePayloadOfTheHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m, always, func(o *options) {
			o.Reconcile = func(context.Context, string, idemflight.Entry[int]) (int, error) { return 6, nil }
		})
		for want, settle := range map[int]func() error{
			4: func() error { return b.Resolve(bg, theKey, 4, nil) },
			6: func() error { _, err := b.Reconcile(bg, theKey); return err },
		} {
			_, err := a.Do(bg, theKey, returns(0, errBoom), payload)
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			require.NoError(t, settle())
			require.Equal(t, want, must(a.Do(bg, theKey, mustNotRun(t), payload)))
			_, err = b.Do(bg, theKey, mustNotRun(t))
			require.ErrorIs(t, err, idemflight.ErrKeyReused)
			_, err = a.Forget(bg, theKey)
			require.NoError(t, err)
		}
	})
}

func TestPromise43_WhatAnOperatorCannotRecordStaysHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		_, err := a.Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		m.Fail("Settle", storetest.Before, -1)
		require.ErrorIs(t, b.Resolve(bg, theKey, 4, nil), idemflight.ErrStore)
		m.Fail("Settle", storetest.Before, 0)
		time.Sleep(time.Minute)
		e, ok, err := a.Lookup(bg, theKey)
		require.True(t, ok && err == nil)
		require.Equal(t, idemflight.Held, e.State)
		require.EqualError(t, e.Err, "boom")
		m.Fail("Unsettled", storetest.Before, 1)
		err = a.Unsettled(bg, func(string, idemflight.Entry[int]) bool { return true })
		require.ErrorIs(t, err, idemflight.ErrStore)
	})
}

func TestPromise43_AnOperatorWhoLeavesHasResolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		_, err := a.Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		ctx, cancel := context.WithCancel(bg)
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Claim" && when == storetest.After {
				cancel()
			}
			return nil
		})
		require.NoError(t, b.Resolve(ctx, theKey, 4, nil))
		require.Equal(t, 4, must(a.Do(bg, theKey, mustNotRun(t))))
	})
}

// held returns a cache with Reconcile, over a Memory in which theKey is held.
func held(t *testing.T, m *storetest.Memory, reconcile func() (int, error)) *cache {
	t.Helper()
	c := over(t, m, func(o *options) {
		o.Reconcile = func(context.Context, string, idemflight.Entry[int]) (int, error) { return reconcile() }
	})
	_, err := over(t, m).Do(bg, theKey, returns(0, errBoom))
	require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
	return c
}

func TestPromise43_AnOperatorWhoLeavesAfterReconcileHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := held(t, m, func() (int, error) { return 6, nil })
		ctx, cancel := context.WithCancel(bg)
		m.Hook(func(ctx context.Context, _ storetest.When, verb string, _ idemflight.Claim) error {
			if verb != "Read" {
				return nil
			}
			cancel()
			return ctx.Err()
		})
		_, err := a.Reconcile(ctx, theKey)
		require.ErrorIs(t, err, idemflight.ErrCallerLeft)
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, idemflight.ErrStore, "there is nothing wrong with it")
		m.Hook(nil)
		require.Equal(t, 6, must(a.Do(bg, theKey, mustNotRun(t))), "it was found out")
	})
}

func TestPromise43_FnDoesNotFollowAReconcileUnlessThatIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := held(t, m, func() (int, error) { return 0, idemflight.Retryable(errBoom) })
		m.Fail("Begin", storetest.Before, -1)
		_, err := a.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		m.Fail("Begin", storetest.Before, 0)
		_, err = over(t, m).Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "held still")
	})
}

func TestPromise43_FnDoesNotFollowAReconcileThatWasReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		answers := make(chan struct{})
		a := held(t, m, func() (int, error) {
			<-answers
			return 0, idemflight.Retryable(errBoom)
		})
		late := slow(t, m, a, mustNotRun(t))
		require.NoError(t, over(t, m).Resolve(bg, theKey, 6, nil))
		close(answers)
		got := <-late
		require.NoError(t, got.err)
		require.Equal(t, 6, got.res.Value, "it looks again")
	})
}

// It looks, and has no effect to guard, also when its claim is another's.
func TestPromise12_BeginEffectInAReconcileThatWasReplacedReturnsNil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		began := make(chan error, 1)
		a := over(t, m, func(o *options) {
			o.Reconcile = func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
				<-ctx.Done()
				require.Equal(t, idemflight.ErrClaimLost, context.Cause(ctx))
				began <- idemflight.BeginEffect(ctx)
				return 0, errBoom
			}
		})
		_, err := over(t, m).Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		late := slow(t, m, a, mustNotRun(t))
		require.NoError(t, over(t, m).Resolve(bg, theKey, 6, nil))
		require.NoError(t, <-began)
		<-late
	})
}

// An operator whose claim was replaced while Reconcile ran has resolved nothing.
func TestPromise43_AReconcileThatWasReplacedHasResolvedNothing(t *testing.T) {
	for name, replaced := range map[string]bool{"replaced": true, "not": false} {
		synctest.Test(t, func(t *testing.T) {
			m, answers := storetest.Mem(), make(chan struct{})
			resolved := 0
			c := over(t, m, func(o *options) {
				o.Reconcile = func(context.Context, string, idemflight.Entry[int]) (int, error) {
					<-answers
					return 0, idemflight.Retryable(errBoom)
				}
				o.Observer = func(_ context.Context, e idemflight.Event[string]) {
					if e.Kind == idemflight.EventResolved {
						resolved++
					}
				}
			})
			_, err := over(t, m).Do(bg, theKey, returns(0, errBoom))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			asked := firstClaim(m)
			entry := make(chan idemflight.Entry[int])
			go func() {
				e, err := c.Reconcile(bg, theKey)
				require.NoError(t, err)
				entry <- e
			}()
			synctest.Wait()
			m.Hook(nil)
			if replaced {
				require.True(t, m.Kill(<-asked))
				require.NoError(t, over(t, m).Resolve(bg, theKey, 6, nil))
			}
			close(answers)
			e := <-entry
			require.Equal(t, map[bool]int{true: 6, false: 0}[replaced], e.Value, name)
			require.Equal(t, map[bool]int{true: 0, false: 1}[replaced], resolved, "%s: EventResolved", name)
		})
	}
}

func TestPromise43_NobodysFnIsBegunAfterAReconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		answers := make(chan struct{})
		a := held(t, m, func() (int, error) {
			<-answers
			return 0, idemflight.Retryable(errBoom)
		})
		ctx, cancel := context.WithCancel(bg)
		left := start(a, ctx, mustNotRun(t))
		synctest.Wait()
		cancel()
		require.ErrorIs(t, (<-left).err, idemflight.ErrCallerLeft)
		close(answers)
		synctest.Wait()
		require.Zero(t, m.Asked("Begin"))
		require.Equal(t, 5, must(over(t, m).Do(bg, theKey, returns(5, nil))), "released")
	})
}

func TestPromise43_RestoreKeepsPayloadAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := idemflight.MustNew(options{})
		require.Equal(t, 7, must(old.Do(bg, theKey, returns(7, nil), payload, idemflight.WithTTL(time.Hour))))
		time.Sleep(20 * time.Minute)
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		for key, e := range old.All() {
			require.NoError(t, a.Restore(bg, key, e))
		}
		_, err := b.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrKeyReused)
		res, err := b.DoResult(bg, theKey, mustNotRun(t), payload)
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().Add(40*time.Minute), res.ExpiresAt, time.Second)
	})
}

// Until the store has answered, fn may run here.
func TestPromise44_CloseWaitsForTheStoresAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		asking := make(chan struct{})
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if verb == "Claim" && when == storetest.Before {
				<-asking
			}
			return nil
		})
		fn, runs, release := blocked(7, nil)
		led := start(a, bg, fn)
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- a.Close(bg) }()
		synctest.Wait()
		require.Empty(t, closed)
		close(asking)
		<-runs
		synctest.Wait()
		require.Empty(t, closed, "fn runs")
		close(release)
		require.NoError(t, <-closed)
		require.Equal(t, 7, (<-led).res.Value)
	})
}

// A Forget whose answer was lost has forgotten all the same, and is not tried on what came after.
func TestPromise43_AForgetWhoseAnswerWasLostCountsOnce(t *testing.T) {
	for name, meanwhile := range map[string]bool{"nothing came": false, "another outcome came": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := storetest.Mem()
				var told atomic.Int64
				a, b := over(t, m, func(o *options) {
					o.Observer = func(_ context.Context, e idemflight.Event[string]) {
						if e.Kind == idemflight.EventForgotten {
							told.Add(1)
						}
					}
				}), over(t, m)
				require.Equal(t, 1, must(a.Do(bg, theKey, returns(1, nil))))
				m.Fail("Forget", storetest.After, 1)
				first := true
				m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
					if verb == "Forget" && when == storetest.After && first {
						first = false
						if meanwhile {
							require.Equal(t, 2, must(b.Do(bg, theKey, returns(2, nil))))
						}
					}
					return nil
				})
				was, err := a.Forget(bg, theKey)
				require.NoError(t, err)
				require.True(t, was)
				require.EqualValues(t, 1, told.Load())
				if meanwhile {
					require.Equal(t, 2, must(a.Do(bg, theKey, mustNotRun(t))), "it was not meant")
				} else {
					require.Equal(t, 3, must(a.Do(bg, theKey, returns(3, nil))))
				}
			})
		})
	}
}

// If the store could not be asked to forget what is in flight, the outcome is retained, and everybody is told so.
func TestPromise43_AForgetThatFailedForgetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		fn, runs, release := blocked(7, nil)
		answered := start(a, bg, fn)
		<-runs
		m.Fail("Forget", storetest.Before, -1)
		_, err := a.Forget(bg, theKey)
		require.ErrorIs(t, err, idemflight.ErrStore)
		m.Fail("Forget", storetest.Before, 0)
		close(release)
		got := <-answered
		require.NoError(t, got.err)
		require.False(t, got.res.ExpiresAt.IsZero(), "it is retained")
		require.EqualValues(t, 1, a.Stats().Retains)
		require.Zero(t, a.Stats().Releases)
		require.Zero(t, a.Len(), "but no copy is")
		require.Equal(t, 7, must(a.Do(bg, theKey, mustNotRun(t))))
	})
}

// wordy is a store that adds a word to every error, those of the function it was given included.
type wordy struct{ *storetest.Memory }

func (s wordy) Unsettled(ctx context.Context, f func(string, idemflight.Standing) error) error {
	if err := s.Memory.Unsettled(ctx, f); err != nil {
		return fmt.Errorf("wordy: %w", err)
	}
	return nil
}

// To stop early is no failure, whatever the store makes of it.
func TestPromise43_UnsettledMayBeLeftEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := over(t, wordy{storetest.Mem()})
		_, err := c.Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.NoError(t, c.Unsettled(bg, func(string, idemflight.Entry[int]) bool { return false }))
		require.Zero(t, c.Stats().StoreErrors)
	})
}

// A key that cannot be hashed is said to be that by every method.
func TestPromise21_AKeyThatCannotBeHashedWithAStore(t *testing.T) {
	reconcile := func(context.Context, any, idemflight.Entry[int]) (int, error) { return 0, errBoom }
	c := idemflight.MustNew(idemflight.Options[any, int]{Store: storetest.Mem(), Reconcile: reconcile, Codec: idemflight.Codec[any, int]{
		EncodeKey: func(any) (string, error) { return "", nil },
		DecodeKey: func(string) (any, error) { return nil, nil },
	}})
	for name, do := range map[string]func(key any){
		"Lookup":    func(key any) { _, _, _ = c.Lookup(bg, key) },
		"Forget":    func(key any) { _, _ = c.Forget(bg, key) },
		"Resolve":   func(key any) { _ = c.Resolve(bg, key, 1, nil) },
		"Reconcile": func(key any) { _, _ = c.Reconcile(bg, key) },
	} {
		func() {
			defer func() { require.Contains(t, fmt.Sprint(recover()), "cannot be hashed", name) }()
			do([]int{1})
		}()
	}
}
