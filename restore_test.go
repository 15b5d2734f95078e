package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// Close

func TestPromise24_NewExecutionsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{TTL: time.Minute, Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
			t.Error("Reconcile ran, expected that it is refused")
			return 0, nil
		}})
		executes(t, c, "expiring", 1)
		time.Sleep(30 * time.Second)
		hold(t, c, "held")
		executes(t, c, "forgotten", 2)
		executes(t, c, "kept", 3)
		require.NoError(t, c.Close(bg))
		time.Sleep(30 * time.Second)
		require.True(t, c.Forget("forgotten"), "what needs no execution goes on")
		for _, k := range []string{"new", "expiring", "forgotten"} {
			for _, opts := range [][]idemflight.CallOption{nil, {idemflight.Inline()}, {idemflight.WithTTL(0)}} {
				r, err := c.DoResult(bg, k, neverRuns(t), opts...)
				require.ErrorIs(t, err, idemflight.ErrClosed, "a new execution of %q", k)
				require.Zero(t, r)
			}
		}
		_, err := c.Do(bg, "held", neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "Reconcile's execution is refused, the key is still held")
		require.ErrorIs(t, err, errBoom)
		require.NotErrorIs(t, err, idemflight.ErrClosed)
		require.Equal(t, 3, replays(t, c, "kept"), "replays go on")
		require.True(t, c.Resolve("held", 4, nil))
		require.Equal(t, 4, replays(t, c, "held"))
		require.EqualValues(t, 9, c.Stats().Closed)
		require.Equal(t, 2, c.Len())
	})
}

func TestPromise24_FlightsAndJoinsGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		end := fly(t, c, "k")
		closed := make(chan error, 1)
		go func() { closed <- c.Close(bg) }()
		synctest.Wait()
		_, err := c.Do(bg, "new", neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrClosed, "refused from the moment of Close on, not of its return")
		joined := make(chan idemflight.Result[int], 1)
		go func() {
			r, err := c.DoResult(bg, "k", neverRuns(t))
			if err != nil {
				t.Errorf("a call that joins after Close got %v, expected the outcome", err)
			}
			joined <- r
		}()
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Empty(t, closed, "Close waits while an execution is in flight")
		r, err := end(5, nil)
		require.NoError(t, err)
		require.False(t, r.ExpiresAt.IsZero(), "the outcome is kept as usual")
		require.Equal(t, 5, (<-joined).Value)
		require.NoError(t, <-closed)
		require.Equal(t, 5, replays(t, c, "k"))
	})
}

// A flight that has begun goes on to its end, also from Reconcile to fn.
func TestPromise24_AFlightGoesOnFromReconcileToFn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		c := idemflight.MustNew(options{Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
			<-gate
			return 0, idemflight.Retryable(errBoom)
		}})
		hold(t, c, "k")
		done := make(chan idemflight.Result[int], 1)
		go func() {
			r, err := c.DoResult(bg, "k", func(context.Context) (int, error) { time.Sleep(time.Minute); return 6, nil })
			if err != nil {
				t.Errorf("the leader got %v, expected fn's value", err)
			}
			done <- r
		}()
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- c.Close(bg) }()
		synctest.Wait()
		close(gate)
		time.Sleep(30 * time.Second)
		require.Empty(t, closed, "fn runs in the flight that Close waits for")
		time.Sleep(30 * time.Second)
		require.NoError(t, <-closed)
		r := <-done
		require.Equal(t, 6, r.Value)
		require.Equal(t, idemflight.Executed, r.Source)
	})
}

func TestPromise24_CloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("shutdown deadline")
		c := idemflight.MustNew(options{})
		// Two flights; the leader of one has left, and fn ignores its context.
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		_, err := c.Do(ctx, "left", func(context.Context) (int, error) { time.Sleep(time.Minute); return 1, nil })
		require.ErrorIs(t, err, idemflight.ErrLeft)
		go func() {
			_, _ = c.Do(bg, "inline", func(context.Context) (int, error) { time.Sleep(2 * time.Minute); return 2, nil }, idemflight.Inline())
		}()
		synctest.Wait()
		start := time.Now()

		canceled, cancelCause := context.WithCancelCause(bg)
		cancelCause(cause)
		err = c.Close(canceled)
		require.ErrorIs(t, err, cause, "Close answers with context.Cause")
		require.True(t, time.Now().Equal(start))
		require.ErrorIs(t, c.Close(dead(context.Canceled)), context.Canceled)
		timeout, cancel2 := context.WithTimeoutCause(bg, time.Second, cause)
		defer cancel2()
		require.ErrorIs(t, c.Close(timeout), cause)
		require.Equal(t, time.Second, time.Since(start), "it waits until its context ends")

		var wg sync.WaitGroup
		for range 3 { // calling it again is safe, at the same time too
			wg.Go(func() {
				if err := c.Close(bg); err != nil {
					t.Errorf("Close got %v, expected nil", err)
				}
				if took := time.Since(start); took != 2*time.Minute {
					t.Errorf("Close returned after %v, expected when the last execution ended, 2m0s", took)
				}
			})
		}
		wg.Wait()
		require.NoError(t, c.Close(bg))
		require.Equal(t, 1, replays(t, c, "left"))
		require.Equal(t, 2, replays(t, c, "inline"))
	})
}

func TestPromise24_WithNothingInFlightCloseIsNilWhateverTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 20 { // no coin may be tossed
			c := idemflight.MustNew(options{})
			require.NoError(t, c.Close(dead(context.Canceled)), "a cache never used")
			require.NoError(t, c.Close(dead(context.Canceled)), "again")
			c = idemflight.MustNew(options{})
			executes(t, c, "k", 1)
			hold(t, c, "h")
			require.NoError(t, c.Close(dead(context.Canceled)), "kept keys are not in flight")
			require.NoError(t, c.Close(bg))
			_, err := c.Do(bg, "new", neverRuns(t))
			require.ErrorIs(t, err, idemflight.ErrClosed)
		}
	})
}

func TestPromise24_CloseFromInsideAnExecution(t *testing.T) {
	ways := map[string]func(ctx context.Context, c *cache) error{
		"fn's context": func(ctx context.Context, c *cache) error { return c.Close(ctx) },
		"a derived context, ended": func(ctx context.Context, c *cache) error {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return c.Close(ctx)
		},
		"another goroutine of fn": func(ctx context.Context, c *cache) error {
			got := make(chan error)
			go func() { got <- c.Close(ctx) }()
			return <-got
		},
		"an inner execution": func(ctx context.Context, c *cache) error {
			v, err := c.DoResult(ctx, "inner", func(ctx context.Context) (int, error) { return 0, idemflight.Final(c.Close(ctx)) })
			_ = v
			return err
		},
		"an inner execution of another cache": func(ctx context.Context, c *cache) error {
			_, err := idemflight.MustNew(options{}).Do(ctx, "inner", func(ctx context.Context) (int, error) { return 0, idemflight.Final(c.Close(ctx)) })
			return err
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{})
				start := time.Now()
				_, err := c.Do(bg, "k", func(ctx context.Context) (int, error) {
					require.ErrorIs(t, way(ctx, c), idemflight.ErrReentrant, "waiting would be for itself")
					_, err := c.Do(bg, "new", neverRuns(t))
					require.ErrorIs(t, err, idemflight.ErrClosed, "it closes all the same")
					return 1, nil
				})
				require.NoError(t, err)
				require.True(t, time.Now().Equal(start), "without waiting")
				require.NoError(t, c.Close(bg))
			})
		})
	}
	t.Run("Reconcile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var c *cache
			c = idemflight.MustNew(options{Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
				return 3, idemflight.Final(c.Close(ctx))
			}})
			hold(t, c, "k")
			_, err := c.Do(bg, "k", neverRuns(t))
			require.ErrorIs(t, err, idemflight.ErrReentrant)
		})
	})
	t.Run("an execution of another cache waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, other := idemflight.MustNew(options{}), idemflight.MustNew(options{})
			end := fly(t, c, "k")
			go func() {
				time.Sleep(time.Minute)
				_, _ = end(1, nil)
			}()
			start := time.Now()
			_, err := other.Do(bg, "k", func(ctx context.Context) (int, error) { return 0, c.Close(context.WithoutCancel(ctx)) })
			require.NoError(t, err, "no execution of this cache is around the call")
			require.Equal(t, time.Minute, time.Since(start))
		})
	})
}

func TestPromise24_TimersStop(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			log := &eventLog[string]{}
			c := idemflight.MustNew(options{TTL: time.Minute, Observer: log.observe})
			executes(t, c, "a", 1)
			hold(t, c, "b")
			if late { // an outcome that comes after Close arms none either
				end := fly(t, c, "late")
				require.ErrorIs(t, c.Close(dead(context.Canceled)), context.Canceled)
				_, err := end(1, nil)
				require.NoError(t, err)
			}
			require.NoError(t, c.Close(bg))
			time.Sleep(24 * time.Hour)
			synctest.Wait()
			require.Empty(t, log.of(idemflight.EventExpired), "no timer rings after Close: expired memory waits for the next call")
			_, ok := c.Lookup("a")
			require.False(t, ok, "expired is expired all the same")
			require.Zero(t, c.Len())
			_, err := c.Do(bg, "b", neverRuns(t))
			require.ErrorIs(t, err, idemflight.ErrClosed)
		})
	}
}

// All

func TestAll_ShowsWhatIsKeptAndInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(weighted(options{TTL: time.Hour, HoldTTL: 2 * time.Hour}))
		start := time.Now()
		by := idemflight.WithFingerprint
		_, err := c.Do(bg, "final", func(context.Context) (int, error) { time.Sleep(time.Second); return 3, idemflight.Final(errBoom) }, by(fingerprint(1)))
		require.ErrorIs(t, err, errBoom)
		end := fly(t, c, "flying", by(fingerprint(2)))
		for range 3 {
			go func() { _, _ = c.Do(bg, "flying", neverRuns(t), by(fingerprint(2))) }()
		}
		time.Sleep(time.Second)
		hold(t, c, "held", by(fingerprint(3)))
		executes(t, c, "shed", tooHeavy, by(fingerprint(4)))
		executes(t, c, "gone", 1, idemflight.WithTTL(1))
		executes(t, c, "zero", 0, by(fingerprint(5)))
		time.Sleep(time.Nanosecond)
		at := func(d time.Duration) time.Time { return start.Add(d) }
		want := map[string]idemflight.Entry[int]{
			"final":  {State: idemflight.Retained, Value: 3, Err: errBoom, Fingerprint: fingerprint(1), StartedAt: at(0), CompletedAt: at(time.Second), ExpiresAt: at(time.Hour + time.Second)},
			"flying": {State: idemflight.InFlight, Fingerprint: fingerprint(2), Waiters: 3, StartedAt: at(time.Second)},
			"held":   {State: idemflight.Held, Err: errBoom, Fingerprint: fingerprint(3), StartedAt: at(2 * time.Second), CompletedAt: at(2 * time.Second), ExpiresAt: at(2*time.Hour + 2*time.Second)},
			"shed":   {State: idemflight.Shed, Fingerprint: fingerprint(4), StartedAt: at(2 * time.Second), CompletedAt: at(2 * time.Second), ExpiresAt: at(time.Hour + 2*time.Second)},
			"zero":   {State: idemflight.Retained, Fingerprint: fingerprint(5), StartedAt: at(2 * time.Second), CompletedAt: at(2 * time.Second), ExpiresAt: at(time.Hour + 2*time.Second)},
		}
		got := map[string]idemflight.Entry[int]{}
		for k, e := range c.All() {
			_, twice := got[k]
			require.False(t, twice, "%s came twice", k)
			got[k] = e
		}
		require.Len(t, got, len(want))
		for k, w := range want {
			g := got[k]
			require.True(t, w.StartedAt.Equal(g.StartedAt), "StartedAt of %s: %v", k, g.StartedAt.Sub(start))
			require.True(t, w.CompletedAt.Equal(g.CompletedAt), "CompletedAt of %s: %v", k, g.CompletedAt.Sub(start))
			require.True(t, w.ExpiresAt.Equal(g.ExpiresAt), "ExpiresAt of %s: %v", k, g.ExpiresAt.Sub(start))
			l, ok := c.Lookup(k)
			require.True(t, ok)
			require.Equal(t, g, l, "Lookup shows what All shows")
			w.StartedAt, w.CompletedAt, w.ExpiresAt = g.StartedAt, g.CompletedAt, g.ExpiresAt
			require.Equal(t, w, g, "entry of %s", k)
		}
		require.Zero(t, callCounts(c.Stats())["Replayed"], "no use is counted")
		_, err = end(1, nil)
		require.NoError(t, err)
		synctest.Wait()
	})
}

func TestAll_HoldsNoLockAndStopsWhenTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{MaxEntries: 1000})
		for i := range 300 {
			executes(t, c, keyNo(i), i)
		}
		n := 0
		for range c.All() {
			if n++; n == 10 {
				break
			}
		}
		require.Equal(t, 10, n)
		seen := 0
		all := c.All()
		for k, e := range all { // the body may do whatever it likes, to every shard
			seen++
			require.Equal(t, k, keyNo(e.Value))
			require.True(t, c.Forget(k))
			executes(t, c, fmt.Sprint("new", seen), seen, idemflight.WithTTL(0))
			c.Lookup(k)
			if seen%100 == 0 {
				c.Len()
				c.Stats()
				for range c.All() {
				}
			}
		}
		require.Equal(t, 300, seen, "each key that was there all the time comes once")
		require.Zero(t, c.Len())
		for range all { // a second run sees what is there then
			t.Error("nothing is left")
		}
	})
}

// Restore

func TestPromise24_RestoreSaysWhatIsWrong(t *testing.T) {
	good := func() idemflight.Entry[int] { return retainedEntry(1, time.Now().Add(time.Hour)) }
	with := func(change func(e *idemflight.Entry[int])) idemflight.Entry[int] {
		e := good()
		change(&e)
		return e
	}
	state := func(s idemflight.State) func(e *idemflight.Entry[int]) {
		return func(e *idemflight.Entry[int]) { e.State = s }
	}
	cases := []struct {
		name    string
		arrange func(t *testing.T, c *cache) func()
		key     string
		entry   func() idemflight.Entry[int]
		is      error
		says    string
	}{
		{name: "an invalid key", key: "", entry: good, is: idemflight.ErrInvalidKey},
		{name: "an invalid key in flight", key: "", entry: func() idemflight.Entry[int] { return with(state(idemflight.InFlight)) }, is: idemflight.ErrInvalidKey},
		{name: "a closed cache", arrange: func(t *testing.T, c *cache) func() { require.NoError(t, c.Close(bg)); return nil }, key: "k", entry: good, is: idemflight.ErrClosed},
		{name: "a closed cache, in flight", arrange: func(t *testing.T, c *cache) func() { require.NoError(t, c.Close(bg)); return nil }, key: "k",
			entry: func() idemflight.Entry[int] { return with(state(idemflight.InFlight)) }, is: idemflight.ErrClosed},
		{name: "no room", arrange: func(t *testing.T, c *cache) func() { hold(t, c, "a"); hold(t, c, "b"); return nil }, key: "k", entry: good, is: idemflight.ErrFull},
		{name: "no room, held", arrange: func(t *testing.T, c *cache) func() { executes(t, c, "a", 1); executes(t, c, "b", 1); return nil }, key: "k",
			entry: func() idemflight.Entry[int] { return with(state(idemflight.Held)) }, is: idemflight.ErrFull},
		{name: "a retained key", arrange: func(t *testing.T, c *cache) func() { executes(t, c, "k", 5); return nil }, key: "k", entry: good, says: `(?i)absent|kept|retained|exists|present|already`},
		{name: "a held key", arrange: func(t *testing.T, c *cache) func() { hold(t, c, "k"); return nil }, key: "k", entry: good, says: `(?i)absent|kept|held|exists|present|already`},
		{name: "a shed key", arrange: func(t *testing.T, c *cache) func() { executes(t, c, "k", tooHeavy); return nil }, key: "k", entry: good, says: `(?i)absent|kept|shed|exists|present|already`},
		{name: "a key in flight", arrange: func(t *testing.T, c *cache) func() {
			end := fly(t, c, "k")
			return func() { _, _ = end(5, nil) }
		}, key: "k", entry: good, says: `(?i)absent|in.?flight|exists|present|already`},
		{name: "no state", key: "k", entry: func() idemflight.Entry[int] { return with(state(0)) }, says: `(?i)state`},
		{name: "an unknown state", key: "k", entry: func() idemflight.Entry[int] { return with(state(99)) }, says: `(?i)state`},
		{name: "a negative state", key: "k", entry: func() idemflight.Entry[int] { return with(state(-1)) }, says: `(?i)state`},
		{name: "retained without ExpiresAt", key: "k", entry: func() idemflight.Entry[int] {
			return with(func(e *idemflight.Entry[int]) { e.ExpiresAt = time.Time{} })
		}, says: `(?i)expire`},
		{name: "shed without ExpiresAt", key: "k", entry: func() idemflight.Entry[int] {
			return with(func(e *idemflight.Entry[int]) { e.State, e.ExpiresAt = idemflight.Shed, time.Time{} })
		}, says: `(?i)expire`},
		{name: "retained, expired now", key: "k", entry: func() idemflight.Entry[int] { return retainedEntry(1, time.Now()) }, says: `(?i)expire`},
		{name: "retained, expired long ago", key: "k", entry: func() idemflight.Entry[int] { return retainedEntry(1, time.Now().Add(-time.Hour)) }, says: `(?i)expire`},
		{name: "held, expired now", key: "k", entry: func() idemflight.Entry[int] {
			return with(func(e *idemflight.Entry[int]) { e.State, e.ExpiresAt = idemflight.Held, time.Now() })
		}, says: `(?i)expire`},
		{name: "shed, expired now", key: "k", entry: func() idemflight.Entry[int] {
			return with(func(e *idemflight.Entry[int]) { e.State, e.ExpiresAt = idemflight.Shed, time.Now() })
		}, says: `(?i)expire`},
		{name: "good", key: "k", entry: good},
		{name: "good by a nanosecond", key: "k", entry: func() idemflight.Entry[int] { return retainedEntry(1, time.Now().Add(1)) }},
		{name: "held without ExpiresAt", key: "k", entry: func() idemflight.Entry[int] {
			return with(func(e *idemflight.Entry[int]) { e.State, e.ExpiresAt = idemflight.Held, time.Time{} })
		}},
		{name: "in flight with nothing else", key: "k", entry: func() idemflight.Entry[int] { return idemflight.Entry[int]{State: idemflight.InFlight} }},
		{name: "over an expired record", arrange: func(t *testing.T, c *cache) func() {
			executes(t, c, "k", 5, idemflight.WithTTL(1))
			time.Sleep(time.Nanosecond)
			return nil
		}, key: "k", entry: good},
	}
	said := map[string]string{}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &eventLog[string]{}
				c := idemflight.MustNew(weighted(options{MaxEntries: 2, Protect: idemflight.DefaultTTL, Observer: log.observe}))
				var after func()
				if tc.arrange != nil {
					after = tc.arrange(t, c)
				}
				before, had := c.Lookup(tc.key)
				calls := sumOfCalls(c.Stats())
				err := c.Restore(tc.key, tc.entry())
				synctest.Wait()
				require.Equal(t, calls, sumOfCalls(c.Stats()), "Restore is no call")
				if tc.is == nil && tc.says == "" {
					require.NoError(t, err)
					_, ok := c.Lookup(tc.key)
					require.True(t, ok)
					return
				}
				require.Error(t, err)
				if tc.is != nil {
					require.ErrorIs(t, err, tc.is)
				} else {
					require.Regexp(t, regexp.MustCompile(tc.says), err.Error(), "the error says which of the conditions was not met")
				}
				for _, other := range []error{idemflight.ErrInvalidKey, idemflight.ErrFull, idemflight.ErrClosed} {
					require.Equal(t, other == tc.is, errors.Is(err, other), "%v is no %v", err, other)
				}
				now, has := c.Lookup(tc.key)
				require.Equal(t, had, has)
				require.Equal(t, before, now, "a refused Restore changes nothing")
				said[tc.name] = err.Error()
				if after != nil {
					after()
					require.Equal(t, 5, replays(t, c, "k"))
				}
			})
		})
	}
	require.NotEqual(t, said["no state"], said["retained without ExpiresAt"], "different faults, different words")
	require.NotEqual(t, said["a retained key"], said["no state"], "different faults, different words")
}

func TestPromise24_RestoreKeepsTheEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(options{TTL: 5 * time.Minute, HoldTTL: 7 * time.Minute, Observer: log.observe})
		now := time.Now().Round(0) // no monotonic reading, as after a file
		base := idemflight.Entry[int]{Fingerprint: fingerprint(1), StartedAt: now.Add(-40 * time.Minute), CompletedAt: now.Add(-30 * time.Minute), ExpiresAt: now.Add(30 * time.Minute)}
		entry := func(s idemflight.State, v int, err error) idemflight.Entry[int] {
			e := base
			e.State, e.Value, e.Err = s, v, err
			return e
		}
		given := map[string]idemflight.Entry[int]{
			"value": entry(idemflight.Retained, 4, nil),
			"zero":  entry(idemflight.Retained, 0, nil),
			"final": entry(idemflight.Retained, 5, errBoom),
			"held":  entry(idemflight.Held, 0, errBoom),
			"mute":  entry(idemflight.Held, 0, nil),
			"shed":  entry(idemflight.Shed, 0, nil),
		}
		for k, e := range given {
			require.NoError(t, c.Restore(k, e), k)
		}
		require.Empty(t, log.all, "Restore emits nothing of its own")
		require.Equal(t, idemflight.Stats{Entries: 6, Held: 2}, c.Stats())
		for k, e := range given {
			got, ok := c.Lookup(k)
			require.True(t, ok)
			require.True(t, got.StartedAt.Equal(e.StartedAt), "StartedAt of %s", k)
			require.True(t, got.CompletedAt.Equal(e.CompletedAt), "CompletedAt of %s", k)
			require.True(t, got.ExpiresAt.Equal(e.ExpiresAt), "ExpiresAt of %s", k)
			got.StartedAt, got.CompletedAt, got.ExpiresAt = e.StartedAt, e.CompletedAt, e.ExpiresAt
			require.Equal(t, e, got, "entry of %s", k)
		}
		ask := func(k string) (idemflight.Result[int], error) {
			return c.DoResult(bg, k, neverRuns(t), idemflight.WithFingerprint(fingerprint(1)))
		}
		time.Sleep(30*time.Minute - 1)
		for k, e := range given {
			_, err := c.Do(bg, k, neverRuns(t))
			require.ErrorIs(t, err, idemflight.ErrKeyReused, "the fingerprint came along")
			r, err := ask(k)
			switch e.State {
			case idemflight.Retained:
				require.Equal(t, e.Err, err)
				require.Equal(t, e.Value, r.Value)
				require.Equal(t, idemflight.Replayed, r.Source)
				require.True(t, r.CompletedAt.Equal(e.CompletedAt))
				require.True(t, r.ExpiresAt.Equal(e.ExpiresAt))
			case idemflight.Held:
				require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
				if e.Err != nil {
					require.ErrorIs(t, err, e.Err)
				}
			case idemflight.Shed:
				require.ErrorIs(t, err, idemflight.ErrValueShed)
			}
		}
		time.Sleep(time.Nanosecond)
		for k := range given {
			executes(t, c, k, 9)
		}
		synctest.Wait()
		require.Len(t, log.of(idemflight.EventExpired), len(given))
	})
}

// A restored outcome's own TTL is ExpiresAt − CompletedAt, which its memory may be late by an
// eighth of; no other TTL of the cache matters.
func TestPromise24_ARestoredRecordGoesByItsOwnTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(options{TTL: 1000 * time.Hour, HoldTTL: 2000 * time.Hour, Observer: log.observe})
		for _, s := range []idemflight.State{idemflight.Retained, idemflight.Held, idemflight.Shed} {
			e := retainedEntry(0, time.Now().Add(20*time.Second))
			e.State, e.CompletedAt = s, time.Now().Add(-20*time.Second)
			require.NoError(t, c.Restore(s.String(), e))
		}
		time.Sleep(20*time.Second + reclaimDelay(40*time.Second))
		synctest.Wait()
		require.Len(t, log.of(idemflight.EventExpired), 3)
		for _, s := range log.seen(idemflight.EventExpired) {
			require.Equal(t, s.Key == idemflight.Held.String(), errors.Is(s.Err, idemflight.ErrOutcomeUnknown), "Err of the expiry of %s is ErrOutcomeUnknown if it was held", s.Key)
		}
	})
}

func TestPromise24_WhatWasInFlightBecomesHeld(t *testing.T) {
	for _, hold := range []time.Duration{0, time.Hour, -1} {
		t.Run(fmt.Sprint(hold), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var held idemflight.Entry[int]
				c := idemflight.MustNew(options{TTL: time.Minute, HoldTTL: hold})
				require.NoError(t, c.Restore("k", idemflight.Entry[int]{State: idemflight.InFlight, Value: 3, Waiters: 4, Fingerprint: fingerprint(1), StartedAt: time.Now().Add(-time.Hour)}))
				e, ok := c.Lookup("k")
				require.True(t, ok)
				require.Equal(t, idemflight.Held, e.State)
				require.ErrorIs(t, e.Err, idemflight.ErrInterrupted)
				require.Equal(t, fingerprint(1), e.Fingerprint)
				require.Zero(t, e.Waiters)
				require.Zero(t, e.Value, "a held key keeps no value")
				require.Equal(t, 1, c.Stats().Held)
				want := map[time.Duration]time.Duration{0: time.Minute, time.Hour: time.Hour}[hold]
				if hold < 0 {
					require.Zero(t, e.ExpiresAt, "held without end")
					want = 1000 * time.Hour
				} else {
					require.True(t, e.ExpiresAt.Equal(time.Now().Add(want)), "held for HoldTTL from now, got %v", time.Until(e.ExpiresAt))
				}
				time.Sleep(want - 1)
				_, err := c.Do(bg, "k", neverRuns(t), idemflight.WithFingerprint(fingerprint(1)))
				require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
				require.ErrorIs(t, err, idemflight.ErrInterrupted)
				time.Sleep(time.Nanosecond)
				if hold >= 0 {
					executes(t, c, "k", 1)
				}

				c = idemflight.MustNew(options{Reconcile: func(_ context.Context, _ string, e idemflight.Entry[int]) (int, error) { held = e; return 8, nil }})
				require.NoError(t, c.Restore("k", idemflight.Entry[int]{State: idemflight.InFlight}))
				v, err := c.Do(bg, "k", neverRuns(t))
				require.NoError(t, err, "Reconcile finds out about it")
				require.Equal(t, 8, v)
				require.Equal(t, idemflight.Held, held.State)
				require.ErrorIs(t, held.Err, idemflight.ErrInterrupted)
				require.NoError(t, c.Restore("k2", idemflight.Entry[int]{State: idemflight.InFlight}))
				require.True(t, c.Resolve("k2", 1, nil), "so does an operator")
			})
		})
	}
}

func TestPromise24_RestoreEvictsAndShedsLikeANewKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(weighted(options{MaxEntries: 2, Protect: -1, Observer: log.observe}))
		executes(t, c, "a", 1)
		executes(t, c, "b", 1)
		log.clear()
		later := time.Now().Add(time.Hour)
		require.NoError(t, c.Restore("c", retainedEntry(9, later)))
		synctest.Wait()
		require.Len(t, log.keys(idemflight.EventEvicted), 1, "it evicts like a new key")
		require.EqualValues(t, 1, c.Stats().Evicted)
		require.NoError(t, c.Restore("d", retainedEntry(5, later)))
		synctest.Wait()
		require.Len(t, log.keys(idemflight.EventEvicted), 2)
		require.Contains(t, append(log.keys(idemflight.EventShed), log.keys(idemflight.EventEvicted)...), "c", "9 and 5 do not fit together")
		for _, s := range log.seen(upkeepKinds...) {
			require.Equal(t, context.Background(), s.ctx, "upkeep is told with the Background context")
		}
		require.Empty(t, log.of(callKinds...), "Restore is no call")
		require.LessOrEqual(t, c.Stats().Weight, int64(10))

		require.NoError(t, c.Restore("heavy", retainedEntry(11, later)))
		requireState(t, c, idemflight.Shed, "heavy")
		require.Contains(t, log.keys(idemflight.EventShed), "heavy", "one too heavy is shed at once")
		require.Equal(t, 2, c.Len())
	})
}

// The whole way: a process in full swing is closed, saved and read back by the next.
func TestPromise24_ARoundTripKeepsEveryKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := idemflight.MustNew(weighted(options{HoldTTL: -1}))
		rng := rand.New(rand.NewPCG(24, 24))
		ran := map[string]bool{}
		for i := range 200 {
			k := keyNo(i)
			ran[k] = true
			opts := []idemflight.CallOption{idemflight.WithFingerprint(fingerprint(i % 3)), idemflight.WithTTL(time.Duration(rng.IntN(100)) * time.Hour)}
			switch i % 4 {
			case 0:
				_, _ = old.Do(bg, k, returns(0, nil), opts...)
			case 1:
				_, _ = old.Do(bg, k, returns(0, idemflight.Final(errBoom)), opts...)
			case 2:
				_, _ = old.Do(bg, k, returns(0, idemflight.Unknown(errBoom)), opts...)
			case 3:
				_, _ = old.Do(bg, k, returns(tooHeavy, nil), opts...)
			}
			time.Sleep(time.Minute)
		}
		end := fly(t, old, "flying")
		require.ErrorIs(t, old.Close(dead(context.Canceled)), context.Canceled)

		saved := entries(old)
		fresh := idemflight.MustNew(weighted(options{HoldTTL: -1}))
		for k, e := range saved {
			// What a file keeps of a time.
			e.StartedAt, e.CompletedAt, e.ExpiresAt = e.StartedAt.Round(0), e.CompletedAt.Round(0), e.ExpiresAt.Round(0)
			require.NoError(t, fresh.Restore(k, e))
		}
		back := entries(fresh)
		require.Len(t, back, len(saved))
		for k, e := range saved {
			g := back[k]
			if k == "flying" {
				require.Equal(t, idemflight.Held, g.State)
				continue
			}
			require.True(t, g.StartedAt.Equal(e.StartedAt) && g.CompletedAt.Equal(e.CompletedAt) && g.ExpiresAt.Equal(e.ExpiresAt), "times of %s", k)
			g.StartedAt, g.CompletedAt, g.ExpiresAt = e.StartedAt, e.CompletedAt, e.ExpiresAt
			require.Equal(t, e, g)
		}
		for passed := 0; passed < 100; passed += 9 {
			require.Equal(t, old.Len()+1, fresh.Len(), "both expire the same keys at the same time, after %d h", passed)
			time.Sleep(9 * time.Hour)
		}
		_, err := end(1, nil)
		require.NoError(t, err)
	})
}

// A key restored while callers race for it: either the entry or an execution comes first, and the
// other one meets it.
func TestPromise24_RestoreRaces(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[int, int]{})
	for k := 1; k <= 500; k++ {
		var wg sync.WaitGroup
		start := make(chan struct{})
		var restored error
		var got [2]int
		wg.Go(func() { <-start; restored = c.Restore(k, retainedEntry(-k, time.Now().Add(time.Hour))) })
		for i := range got {
			wg.Go(func() {
				<-start
				got[i], _ = c.Do(bg, k, func(context.Context) (int, error) { return k, nil })
			})
		}
		close(start)
		wg.Wait()
		want := -k
		if restored != nil {
			want = k
		}
		require.Equal(t, [2]int{want, want}, got, "round %d: Restore answered %v", k, restored)
	}
}

// A Restore that is refused may be the last to give a place back: then it stops the timer, as all do
// who may leave the cache empty.
func TestPromise17_ARefusedRestoreLeavesNoTimerBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		executes(t, c, "a", 1) // arms the timer
		var end func(int, error) (idemflight.Result[int], error)
		fired, settles := 0, 0
		onYield(t, func(point string) {
			switch point {
			case "settle": // of Restore, which has its place
				if settles++; settles == 1 {
					require.True(t, c.Forget("a"))
					end = fly(t, c, "k")
				}
			case "restore: refused":
				_, err := end(0, idemflight.Retryable(errBoom))
				require.ErrorIs(t, err, errBoom)
			case "fired":
				fired++
			}
		})
		err := c.Restore("k", retainedEntry(1, time.Now().Add(time.Hour)))
		require.ErrorContains(t, err, "in flight")
		require.Equal(t, 2, settles, "the seam: Restore and a flight that came in between")
		require.Zero(t, c.Len())
		time.Sleep(2 * idemflight.DefaultTTL)
		synctest.Wait()
		require.Zero(t, fired, "how often the timer of an empty cache fired")

		executes(t, c, "b", 1)
		time.Sleep(2 * idemflight.DefaultTTL)
		synctest.Wait()
		require.NotZero(t, fired, "the seam: the timer is seen to fire")
	})
}
