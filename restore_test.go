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

func TestAll_ShowsWhatIsKeptAndInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(weighted(options{TTL: time.Hour, HoldTTL: 2 * time.Hour}))
		start := time.Now()
		by := idemflight.WithFingerprint
		_, err := c.Do(bg, "final", returnsAfter(time.Second, 3, idemflight.Final(errBoom)), by(fingerprint(1)))
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
			require.True(t, w.StartedAt.Equal(g.StartedAt),
				"StartedAt of %s: %v", k, g.StartedAt.Sub(start))
			require.True(t, w.CompletedAt.Equal(g.CompletedAt),
				"CompletedAt of %s: %v", k, g.CompletedAt.Sub(start))
			require.True(t, w.ExpiresAt.Equal(g.ExpiresAt),
				"ExpiresAt of %s: %v", k, g.ExpiresAt.Sub(start))
			l, ok := lookup(c, k)
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
			require.True(t, forget(c, k))
			executes(t, c, fmt.Sprint("new", seen), seen, idemflight.WithTTL(0))
			lookup(c, k)
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
				c := idemflight.MustNew(weighted(options{MaxEntries: 2, MinRetention: idemflight.DefaultTTL, Observer: log.observe}))
				var after func()
				if tc.arrange != nil {
					after = tc.arrange(t, c)
				}
				before, had := lookup(c, tc.key)
				calls := sumOfCalls(c.Stats())
				err := c.Restore(bg, tc.key, tc.entry())
				synctest.Wait()
				require.Equal(t, calls, sumOfCalls(c.Stats()), "Restore is no call")
				if tc.is == nil && tc.says == "" {
					require.NoError(t, err)
					_, ok := lookup(c, tc.key)
					require.True(t, ok)
					return
				}
				require.Error(t, err)
				if tc.is != nil {
					require.ErrorIs(t, err, tc.is)
				} else {
					require.Regexp(t, regexp.MustCompile(tc.says), err.Error(),
						"the error says which of the conditions was not met")
				}
				for _, other := range []error{idemflight.ErrInvalidKey, idemflight.ErrFull, idemflight.ErrClosed} {
					require.Equal(t, other == tc.is, errors.Is(err, other),
						"%v is no %v", err, other)
				}
				now, has := lookup(c, tc.key)
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
	require.NotEqual(t, said["no state"], said["retained without ExpiresAt"],
		"different faults, different words")
	require.NotEqual(t, said["a retained key"], said["no state"],
		"different faults, different words")
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
			require.NoError(t, c.Restore(bg, k, e), k)
		}
		require.Empty(t, log.all, "Restore emits nothing of its own")
		require.Equal(t, idemflight.Stats{Entries: 6, Held: 2}, c.Stats())
		for k, e := range given {
			got, ok := lookup(c, k)
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
			require.NoError(t, c.Restore(bg, s.String(), e))
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
				require.NoError(t, c.Restore(bg, "k", idemflight.Entry[int]{State: idemflight.InFlight, Value: 3, Waiters: 4, Fingerprint: fingerprint(1), StartedAt: time.Now().Add(-time.Hour)}))
				e, ok := lookup(c, "k")
				require.True(t, ok)
				require.Equal(t, idemflight.Held, e.State)
				require.ErrorIs(t, e.Err, idemflight.ErrInterrupted)
				require.Equal(t, fingerprint(1), e.Fingerprint)
				require.Zero(t, e.Waiters)
				require.Zero(t, e.Value, "a held key keeps no value")
				require.Equal(t, 1, c.Stats().Held)
				want := map[time.Duration]time.Duration{0: idemflight.DefaultHoldTTL, time.Hour: time.Hour}[hold]
				if hold < 0 {
					require.Zero(t, e.ExpiresAt, "held without end")
					want = 1000 * time.Hour
				} else {
					require.True(t, e.ExpiresAt.Equal(time.Now().Add(want)),
						"held for HoldTTL from now, got %v", time.Until(e.ExpiresAt))
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
				require.NoError(t, c.Restore(bg, "k", idemflight.Entry[int]{State: idemflight.InFlight}))
				v, err := c.Do(bg, "k", neverRuns(t))
				require.NoError(t, err, "Reconcile finds out about it")
				require.Equal(t, 8, v)
				require.Equal(t, idemflight.Held, held.State)
				require.ErrorIs(t, held.Err, idemflight.ErrInterrupted)
				require.NoError(t, c.Restore(bg, "k2", idemflight.Entry[int]{State: idemflight.InFlight}))
				require.True(t, resolve(c, "k2", 1, nil), "so does an operator")
			})
		})
	}
}

func TestPromise24_RestoreEvictsAndShedsLikeANewKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(weighted(options{MaxEntries: 2, MinRetention: -1, Observer: log.observe}))
		executes(t, c, "a", 1)
		executes(t, c, "b", 1)
		log.clear()
		later := time.Now().Add(time.Hour)
		require.NoError(t, c.Restore(bg, "c", retainedEntry(9, later)))
		synctest.Wait()
		require.Len(t, log.keys(idemflight.EventEvicted), 1, "it evicts like a new key")
		require.EqualValues(t, 1, c.Stats().Evicted)
		require.NoError(t, c.Restore(bg, "d", retainedEntry(5, later)))
		synctest.Wait()
		require.Len(t, log.keys(idemflight.EventEvicted), 2)
		require.Contains(t, append(log.keys(idemflight.EventShed), log.keys(idemflight.EventEvicted)...), "c", "9 and 5 do not fit together")
		for _, s := range log.seen(upkeepKinds...) {
			require.Equal(t, context.Background(), s.ctx,
				"upkeep is reported with the Background context")
		}
		require.Empty(t, log.of(callKinds...), "Restore is no call")
		require.LessOrEqual(t, c.Stats().Weight, int64(10))

		require.NoError(t, c.Restore(bg, "heavy", retainedEntry(11, later)))
		requireState(t, c, idemflight.Shed, "heavy")
		require.Contains(t, log.keys(idemflight.EventShed), "heavy",
			"one too heavy is shed at once")
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
			require.NoError(t, fresh.Restore(bg, k, e))
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
			require.Equal(t, old.Len()+1, fresh.Len(),
				"both expire the same keys at the same time, after %d h", passed)
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
		wg.Go(func() { <-start; restored = c.Restore(bg, k, retainedEntry(-k, time.Now().Add(time.Hour))) })
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

// Restore, like Do, finds room that appears while it looks for it.
func TestPromise24_RestoreFindsRoomThatHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{MaxEntries: 2, MinRetention: -1})
		require.NoError(t, c.Restore(bg, "held", idemflight.Entry[int]{State: idemflight.Held}))
		end := fly(t, c, "other")
		looks := 0
		onYield(t, func(point string) {
			if point == "restore" {
				if looks++; looks == 2 { // after the search, which found nothing that may go
					_, err := end(1, nil)
					require.NoError(t, err)
				}
			}
		})
		require.NoError(t, c.Restore(bg, "k", retainedEntry(7, time.Now().Add(time.Hour))))
		require.GreaterOrEqual(t, looks, 2, "the seam")
		require.Equal(t, 7, replays(t, c, "k"))
	})
}

// panickingError panics when it is looked into.
type panickingError struct{}

func (panickingError) Error() string { return "bad error" }
func (panickingError) Unwrap() error { panic("bad error") }

func TestPromise24_RestoreTellsTimesAndErrorsAsTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{HoldTTL: time.Hour})
		start := time.Now()
		time.Sleep(time.Minute)
		err := c.Restore(bg, "late", retainedEntry(1, start))
		require.ErrorIs(t, err, idemflight.ErrExpired)
		require.ErrorContains(t, err, "expired, 1m0s ago")

		require.NoError(t, c.Restore(bg, "k", idemflight.Entry[int]{State: idemflight.InFlight, StartedAt: start}))
		e, ok := lookup(c, "k")
		require.True(t, ok)
		require.Equal(t, [3]time.Duration{0, time.Minute, 61 * time.Minute},
			[3]time.Duration{e.StartedAt.Sub(start), e.CompletedAt.Sub(start), e.ExpiresAt.Sub(start)}, "interrupted now, and held from now on")

		bad := fmt.Errorf("kept: %w", panickingError{})
		require.NoError(t, c.Restore(bg, "bad", idemflight.Entry[int]{State: idemflight.Held, Err: bad}))
		e, _ = lookup(c, "bad")
		require.Error(t, e.Err, "an error that cannot be looked into is kept all the same")
		require.Equal(t, bad.Error(), e.Err.Error())
		_, err = c.Do(bg, "bad", neverRuns(t))
		require.True(t, errors.Is(err, idemflight.ErrOutcomeUnknown), "%v", err)
	})
}

// A Restore that is refused because its key came meanwhile has shed nothing for it.
func TestRestore_ThatIsRefusedShedsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(weighted(options{}))
		executes(t, c, "kept", 6)
		came := false
		onYield(t, func(point string) {
			if point == "settle" && !came {
				came = true
				executes(t, c, "k", 0)
			}
		})
		require.ErrorContains(t, c.Restore(bg, "k", retainedEntry(6, time.Now().Add(time.Hour))), "kept already")
		require.True(t, came, "the seam")
		requireState(t, c, idemflight.Retained, "kept", "k")
	})
}
