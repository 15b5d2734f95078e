package idemflight_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// A small record has room for 32 bits of what its execution took. Whatever that was, and whatever the
// record is, its times are told to the nanosecond.
func TestTheTimesOfAnExecutionHoweverLongItTook(t *testing.T) {
	for _, took := range []time.Duration{0, 1, time.Second, 1<<32 - 1, 1 << 32, time.Minute, time.Hour} {
		for name, opts := range map[string][]idemflight.CallOption{
			"small": nil,
			"full":  {idemflight.WithFingerprint(fingerprint(1))},
		} {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{})
				time.Sleep(time.Second) // the cache is not as old as the execution
				start := time.Now()
				_, err := c.Do(bg, "k", func(context.Context) (int, error) { time.Sleep(took); return 1, nil }, opts...)
				require.NoError(t, err)
				end := time.Now()
				time.Sleep(time.Minute)
				e, ok := c.Lookup("k")
				require.True(t, ok)
				require.Equal(t, [3]time.Duration{0, took, took + idemflight.DefaultTTL},
					[3]time.Duration{e.StartedAt.Sub(start), e.CompletedAt.Sub(start), e.ExpiresAt.Sub(start)}, "%s record, %v: start, end and expiry", name, took)
				require.Equal(t, took, end.Sub(start))
				require.Equal(t, name == "small" && took < 1<<32, c.Small() == 1, "%s record, %v: small", name, took)
			})
		}
	}
}

// What is resolved by hand began when it was held, in this process or in the one before; it counts from now.
func TestResolvedKeysTellWhenTheirExecutionStarted(t *testing.T) {
	for name, hold := range map[string]func(t *testing.T, c *cache){
		"held here": func(t *testing.T, c *cache) {
			_, err := c.Do(bg, "k", func(context.Context) (int, error) { time.Sleep(time.Second); return 0, idemflight.Unknown(errBoom) })
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		},
		"restored": func(t *testing.T, c *cache) {
			now := time.Now()
			require.NoError(t, c.Restore("k", idemflight.Entry[int]{State: idemflight.Held, Err: errBoom,
				StartedAt: now, CompletedAt: now.Add(time.Second), ExpiresAt: now.Add(time.Hour)}))
			time.Sleep(time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{TTL: time.Minute, HoldTTL: time.Hour})
				time.Sleep(time.Second)
				start := time.Now()
				hold(t, c)
				time.Sleep(8 * time.Second)
				require.True(t, c.Resolve("k", 7, nil))
				e, ok := c.Lookup("k")
				require.True(t, ok)
				require.Equal(t, [3]time.Duration{0, 9 * time.Second, 69 * time.Second},
					[3]time.Duration{e.StartedAt.Sub(start), e.CompletedAt.Sub(start), e.ExpiresAt.Sub(start)}, "start, end and expiry")
			})
		})
	}
}

// The answer of Resolve may expire before the hold would have: it is reclaimed in its own time.
func TestPromise17_WhatWasResolvedIsReclaimedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(options{TTL: time.Minute, HoldTTL: time.Hour, Observer: log.observe})
		hold(t, c, "k")
		require.True(t, c.Resolve("k", 7, nil))
		time.Sleep(time.Minute + reclaimDelay(time.Minute))
		synctest.Wait()
		require.Equal(t, []string{"k"}, log.keys(idemflight.EventExpired))
	})
}

// A key that was kept, and armed the timer, may become a flight that keeps nothing. The cache is empty
// then, and so is the timer.
func TestPromise17_AFlightThatKeepsNothingLeavesNoTimerBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{TTL: time.Hour, Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
			return 0, idemflight.Retryable(errBoom) // there was no effect
		}})
		var fired atomic.Int64
		onYield(t, func(point string) {
			if point == "fired" {
				fired.Add(1)
			}
		})
		hold(t, c, "k")
		_, err := c.Do(bg, "k", returns(0, idemflight.Retryable(errBoom)))
		require.ErrorIs(t, err, errBoom)
		require.Zero(t, c.Len())
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		require.Zero(t, fired.Load(), "how often the timer of an empty cache fired")
	})
}

// A joined caller that is slow to return, here since its Observer is, keeps the leader's fn and what
// that refers to alive no longer than the flight did.
func TestWhoWaitedDoesNotKeepFnAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used weak.Pointer[object]
		collected := make(chan bool, 1)
		c := idemflight.MustNew(options{Observer: func(_ context.Context, e idemflight.Event[string]) {
			if e.Kind == idemflight.EventJoined {
				synctest.Wait() // the flight has landed, and its goroutine has ended
				runtime.GC()
				collected <- used.Value() == nil
			}
		}})
		ctx, leave := context.WithCancel(bg)
		left := make(chan struct{})
		go func() {
			defer close(left)
			thing := &object{}
			used = weak.Make(thing)
			_, err := c.Do(ctx, "k", func(context.Context) (int, error) {
				time.Sleep(time.Second)
				return int(thing[0]), nil
			})
			require.ErrorIs(t, err, idemflight.ErrLeft)
		}()
		synctest.Wait()
		go func() { _, _ = c.Do(bg, "k", neverRuns(t)) }()
		synctest.Wait()
		leave()
		<-left
		require.True(t, <-collected, "what fn refers to is garbage")
	})
}
