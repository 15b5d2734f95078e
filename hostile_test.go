package idemflight_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// What hooks, contexts and errors that misbehave, and callers in a hurry, must not bring about.

// The Observer ends the goroutine of an inline leader that is about to wait for Reconcile. The
// leader is needed for fn, so the Observer gets the pending events only once Reconcile has
// answered.
func TestPromise14_AnObserverThatExitsLeavesNoFlightBehind(t *testing.T) {
	for _, inline := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			second := false
			c := idemflight.MustNew(options{MaxEntries: 1, MinRetention: -1,
				Observer: func(_ context.Context, e idemflight.Event[string]) {
					if e.Kind == idemflight.EventEvicted && second {
						runtime.Goexit()
					}
				},
				Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
					return 0, idemflight.Retryable(errBoom)
				}})
			executes(t, c, "a", 1)
			meets := 0
			onYield(t, func(point string) {
				if point != "meet" {
					return
				}
				if meets++; meets == 2 { // the first call has evicted a, and looks again
					hold(t, c, theKey)
					second = true
				}
			})
			opts := []idemflight.CallOption{}
			if inline {
				opts = append(opts, idemflight.Inline())
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = c.Do(bg, theKey, returns(1, nil), opts...)
			}()
			<-done
			synctest.Wait()
			require.NoError(t, c.Close(dead(context.Canceled)), "nothing is in flight")
			require.Zero(t, c.Stats().InFlight)
			require.NoError(t, c.CheckInvariants())
		})
	}
}

// A call that may not wait never gets an answer of Reconcile, however quick that is.
func TestPromise10_NoWaitNeverWaitsForReconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
			return 0, idemflight.Retryable(errBoom)
		}})
		for i := range 500 {
			hold(t, c, keyNo(i))
			_, err := c.Do(bg, keyNo(i), neverRuns(t), idemflight.WithMaxWait(idemflight.NoWait))
			require.ErrorIs(t, err, idemflight.ErrInFlight)
			synctest.Wait()
			_, there := lookup(c, keyNo(i))
			require.False(t, there, "Reconcile was asked, and has released the key")
		}
	})
}

// selfish is an error that wraps itself.
type selfish struct{}

func (e *selfish) Error() string { return "selfish" }
func (e *selfish) Unwrap() error { return e }

func TestPromise07_ACauseWithoutEndKeepsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		_, err := c.Do(dead(&selfish{}), theKey, neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrCallerLeft)
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, errBoom, "and errors.Is ends")
		require.Contains(t, err.Error(), "selfish")
	})
}

// The outer fn panics with the panic of an inner call: what others get of it, and what is kept, has no
// stack at any depth.
func TestPromise14_ThePanicOfAnInnerCallIsKeptWithoutItsStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		v := panicOf(func() {
			_, _ = c.Do(bg, "outer", func(ctx context.Context) (int, error) {
				return c.Do(ctx, "inner", func(context.Context) (int, error) { panic("boom") })
			})
		})
		require.Contains(t, fmt.Sprint(v), "goroutine ", "the leader's has the stack")
		e, _ := lookup(c, "outer")
		require.NotContains(t, e.Err.Error(), "goroutine ")
		require.Contains(t, e.Err.Error(), "boom")
		inner, ok := e.Err.(*idemflight.PanicError).Value.(*idemflight.PanicError)
		require.True(t, ok)
		require.Empty(t, inner.Stack)
	})
}

// While an operator's Resolve waits in Weigh, the key is forgotten and held anew.
func TestPromise13_ResolveOfAKeyThatIsHeldAnewSaysSo(t *testing.T) {
	var c *cache
	c = idemflight.MustNew(options{MaxWeight: 10, Weigh: func(string, int) int64 {
		forget(c, theKey)
		hold(t, c, theKey)
		return 1
	}})
	hold(t, c, theKey)
	err := c.Resolve(bg, theKey, 1, nil)
	require.ErrorIs(t, err, idemflight.ErrNotHeld)
	require.Contains(t, err.Error(), "held anew")
}

// What Options returned is its caller's.
func TestOptions_AreACopy(t *testing.T) {
	given := map[string]error{"boom": errBoom}
	c := idemflight.MustNew(options{Codec: idemflight.Codec[string, int]{Sentinels: given}})
	given["enough"] = nil
	c.Options().Codec.Sentinels["enough"] = nil
	require.NoError(t, c.Save(io.Discard))
	_, err := idemflight.New(c.Options())
	require.NoError(t, err)
}

// Several streams in one file are read one after the other through one bufio.Reader, however small.
func TestLoad_OneAfterTheOther(t *testing.T) {
	var file bytes.Buffer
	for i := range 3 {
		c := idemflight.MustNew(options{})
		executes(t, c, keyNo(i), i)
		require.NoError(t, c.Save(&file))
	}
	r, c := bufio.NewReaderSize(&file, 16), idemflight.MustNew(options{})
	for range 3 {
		_, err := c.Load(bg, r)
		require.NoError(t, err)
	}
	require.Equal(t, 3, c.Len())
}
