package idemflight_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

func TestFingerprintOf_TellsPartsApart(t *testing.T) {
	b := func(parts ...string) (bs [][]byte) {
		for _, p := range parts {
			bs = append(bs, []byte(p))
		}
		return bs
	}
	different := [][][]byte{b(), b(""), b("", ""), b("", "", ""), b("ab", "c"), b("a", "bc"), b("abc"), b("", "abc"), b("abc", ""), b("c", "ab"),
		b("\x00"), b("\x00\x00"), b("\x00", ""), b(string(make([]byte, 256))), b(string(make([]byte, 8))), b(string(make([]byte, 7)), "")}
	seen := map[idemflight.Fingerprint]int{}
	for i, parts := range different {
		f := idemflight.FingerprintOf(parts...)
		require.NotZero(t, f, "a fingerprint of something is not none")
		require.Equal(t, f, idemflight.FingerprintOf(parts...),
			"the same parts, the same fingerprint")
		if j, ok := seen[f]; ok {
			t.Errorf("%q and %q have one fingerprint, expected two", different[j], parts)
		}
		seen[f] = i
	}
	require.Equal(t, idemflight.FingerprintOf(nil), idemflight.FingerprintOf([]byte{}),
		"a nil part is an empty part")
}

// Promise 22: A call whose fingerprint differs gets ErrKeyReused at once, and the record stays
// untouched.
func TestPromise22_AnotherFingerprintIsRefusedAtOnce(t *testing.T) {
	pairs := []struct {
		name         string
		first, other idemflight.Fingerprint
		same         bool
	}{
		{"none and none", idemflight.Fingerprint{}, idemflight.Fingerprint{}, true},
		{"one and the same", fingerprint(1), fingerprint(1), true},
		{"one and another", fingerprint(1), fingerprint(2), false},
		{"one and none", fingerprint(1), idemflight.Fingerprint{}, false},
		{"none and one", idemflight.Fingerprint{}, fingerprint(1), false},
		{"all but the last bit", idemflight.Fingerprint{15: 2}, idemflight.Fingerprint{15: 3}, false},
		{"all but the first bit", idemflight.Fingerprint{0: 0x80}, idemflight.Fingerprint{1: 0x80}, false},
	}
	for _, p := range pairs {
		t.Run(p.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(weighted(options{}))
				call := func(key string) error {
					start := time.Now()
					_, err := c.Do(bg, key, neverRuns(t), idemflight.WithFingerprint(p.other))
					if !p.same {
						require.True(t, time.Now().Equal(start), "a refusal takes no time")
					}
					return err
				}
				want := func(otherwise error) error {
					if p.same {
						return otherwise
					}
					return idemflight.ErrKeyReused
				}
				by := idemflight.WithFingerprint(p.first)
				executes(t, c, "retained", 1, by)
				executes(t, c, "shed", tooHeavy, by)
				hold(t, c, "held", by)
				require.ErrorIs(t, call("retained"), want(nil))
				require.ErrorIs(t, call("shed"), want(idemflight.ErrValueShed))
				require.ErrorIs(t, call("held"), want(idemflight.ErrOutcomeUnknown))

				end := fly(t, c, "flying", by)
				go func() {
					time.Sleep(time.Hour)
					_, _ = end(1, nil)
				}()
				require.ErrorIs(t, call("flying"), want(nil), "while in flight, before any wait")

				for _, k := range []string{"retained", "shed", "held", "flying"} {
					e, ok := lookup(c, k)
					require.True(t, ok)
					require.Equal(t, p.first, e.Fingerprint,
						"the record keeps the fingerprint of the flight's leader")
				}
				time.Sleep(time.Hour)
			})
		})
	}
}

func TestPromise22_TheRecordStaysUntouched(t *testing.T) {
	for _, s := range keptStates {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(weighted(options{TTL: stateTTL, HoldTTL: stateTTL}))
				s.put(t, c)
				before, _ := lookup(c, "k")
				for _, other := range []idemflight.Fingerprint{{}, fingerprint(2)} {
					time.Sleep(time.Second)
					_, err := c.Do(bg, "k", neverRuns(t), idemflight.WithFingerprint(other), idemflight.WithTTL(time.Hour))
					require.ErrorIs(t, err, idemflight.ErrKeyReused)
					after, ok := lookup(c, "k")
					require.True(t, ok)
					require.Equal(t, before, after)
				}
				time.Sleep(stateTTL - 2*time.Second)
				require.Zero(t, c.Len(), "its TTL was not touched")
			})
		})
	}
}

// Neither a refused call nor a Lookup is a use: a key that only those two touch is evicted by a
// scan as if none had been. A replayed one of the same age survives, so that the test could fail.
func TestPromise22_TheOrderStaysUntouched(t *testing.T) {
	touches := map[string]func(t *testing.T, c *cache){
		"refused": func(t *testing.T, c *cache) {
			_, err := c.Do(bg, "touched", returns(0, idemflight.Retryable(errBoom)), idemflight.WithFingerprint(fingerprint(9)))
			if !errors.Is(err, errBoom) { // evicted already
				require.ErrorIs(t, err, idemflight.ErrKeyReused)
			}
		},
		"looked up": func(_ *testing.T, c *cache) { lookup(c, "touched") },
		"in All":    func(_ *testing.T, c *cache) { entries(c) },
		"refused by Restore": func(t *testing.T, c *cache) {
			if _, ok := lookup(c, "touched"); ok {
				require.Error(t, c.Restore(bg, "touched", retainedEntry(3, time.Now().Add(time.Hour))))
			}
		},
		"not resolved": func(t *testing.T, c *cache) { require.False(t, resolve(c, "touched", 1, nil)) },
	}
	for name, touch := range touches {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const m = 8
				c := idemflight.MustNew(options{MaxEntries: m, MinRetention: -1})
				executes(t, c, "touched", 1)
				executes(t, c, "replayed", 2)
				for i := range 40 * m {
					touch(t, c)
					require.Equal(t, 2, replays(t, c, "replayed"))
					executes(t, c, keyNo(i), i)
				}
				_, ok := lookup(c, "touched")
				require.False(t, ok, "a key that was only %s was not used and must give way to %d newer ones", name, 40*m)
			})
		})
	}
}

func TestPromise22_AfterReleaseOrExpiryAnyIsWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{TTL: time.Minute})
		_, err := c.Do(bg, "k", returns(0, idemflight.Retryable(errBoom)), idemflight.WithFingerprint(fingerprint(1)))
		require.ErrorIs(t, err, errBoom)
		executes(t, c, "k", 2, idemflight.WithFingerprint(fingerprint(2)))
		time.Sleep(time.Minute)
		executes(t, c, "k", 3)
		require.True(t, forget(c, "k"))
		executes(t, c, "k", 4, idemflight.WithFingerprint(fingerprint(4)))
		e, _ := lookup(c, "k")
		require.Equal(t, fingerprint(4), e.Fingerprint)
	})
}

// What a call meets first decides it: each case fulfils the conditions of all that come after its
// own as well.
func TestPromise22_TheOrderOfDecisions(t *testing.T) {
	reconcile := func(context.Context, string, idemflight.Entry[int]) (int, error) {
		panic("Reconcile ran, expected that it does not")
	}
	other, same := idemflight.WithFingerprint(fingerprint(2)), idemflight.WithFingerprint(fingerprint(1))
	noWait := idemflight.WithMaxWait(idemflight.NoWait)
	closed := func(t *testing.T, c *cache) {
		if err := c.Close(dead(context.Canceled)); err != nil {
			require.ErrorIs(t, err, context.Canceled)
		}
	}
	put := func(name string) func(t *testing.T, c *cache) {
		for _, s := range keptStates {
			if s.name == name {
				return s.put
			}
		}
		panic(name)
	}
	// Everything that could stand in the way does: closed, full, the caller's context ended, no wait.
	cases := []struct {
		name    string
		opts    options
		arrange func(t *testing.T, c *cache)
		flying  bool // key k
		inside  bool // the call comes from inside that flight
		closed  bool
		dead    bool
		key     string
		call    []idemflight.CallOption
		want    error
		counts  string
	}{
		{name: "invalid key before everything", closed: true, dead: true, key: "", call: []idemflight.CallOption{other, noWait}, want: idemflight.ErrInvalidKey, counts: "InvalidKey"},

		{name: "retained, other fingerprint, before replayed", arrange: put("retained"), closed: true, dead: true, key: "k", call: []idemflight.CallOption{other, noWait}, want: idemflight.ErrKeyReused, counts: "KeyReused"},
		{name: "held, other fingerprint, before held", arrange: put("held"), closed: true, dead: true, key: "k", call: []idemflight.CallOption{other, noWait}, want: idemflight.ErrKeyReused, counts: "KeyReused"},
		{name: "held, other fingerprint, before Reconcile", opts: options{Reconcile: reconcile}, arrange: put("held"), key: "k", call: []idemflight.CallOption{other}, want: idemflight.ErrKeyReused, counts: "KeyReused"},
		{name: "shed, other fingerprint, before shed", arrange: put("shed"), closed: true, dead: true, key: "k", call: []idemflight.CallOption{other, noWait}, want: idemflight.ErrKeyReused, counts: "KeyReused"},
		{name: "retained before own context and closed", arrange: put("retained"), closed: true, dead: true, key: "k", call: []idemflight.CallOption{same, noWait}, want: nil, counts: "Replayed"},
		{name: "held before own context and closed", arrange: put("held"), closed: true, dead: true, key: "k", call: []idemflight.CallOption{same, noWait}, want: idemflight.ErrOutcomeUnknown, counts: "OutcomeUnknown"},
		{name: "shed before own context and closed", arrange: put("shed"), closed: true, dead: true, key: "k", call: []idemflight.CallOption{same, noWait}, want: idemflight.ErrValueShed, counts: "ValueShed"},
		{name: "held with Reconcile, own context ended", opts: options{Reconcile: reconcile}, arrange: put("held"), dead: true, key: "k", call: []idemflight.CallOption{same}, want: idemflight.ErrOutcomeUnknown, counts: "OutcomeUnknown"},
		{name: "held with Reconcile, closed", opts: options{Reconcile: reconcile}, arrange: put("held"), closed: true, key: "k", call: []idemflight.CallOption{same}, want: idemflight.ErrOutcomeUnknown, counts: "OutcomeUnknown"},
		{name: "held with Reconcile, both", opts: options{Reconcile: reconcile}, arrange: put("held"), closed: true, dead: true, key: "k", call: []idemflight.CallOption{same}, want: idemflight.ErrOutcomeUnknown, counts: "OutcomeUnknown"},

		{name: "in flight: re-entrant before other fingerprint", flying: true, inside: true, closed: true, dead: true, key: "k", call: []idemflight.CallOption{other, noWait}, want: idemflight.ErrReentrant, counts: "Reentrant"},
		{name: "in flight: re-entrant before own context", flying: true, inside: true, closed: true, dead: true, key: "k", call: []idemflight.CallOption{same, noWait}, want: idemflight.ErrReentrant, counts: "Reentrant"},
		{name: "in flight: other fingerprint before own context", flying: true, closed: true, dead: true, key: "k", call: []idemflight.CallOption{other, noWait}, want: idemflight.ErrKeyReused, counts: "KeyReused"},
		{name: "in flight: other fingerprint before no wait", flying: true, closed: true, key: "k", call: []idemflight.CallOption{other, noWait}, want: idemflight.ErrKeyReused, counts: "KeyReused"},
		{name: "in flight: own context before no wait", flying: true, closed: true, dead: true, key: "k", call: []idemflight.CallOption{same, noWait}, want: idemflight.ErrCallerLeft, counts: "Left"},
		{name: "in flight: no wait, not closed", flying: true, closed: true, key: "k", call: []idemflight.CallOption{same, noWait}, want: idemflight.ErrInFlight, counts: "NotWaited"},

		{name: "nothing: own context before closed and full", arrange: put("retained"), closed: true, dead: true, key: "new", want: idemflight.ErrCallerLeft, counts: "Left"},
		{name: "nothing: own context before full", arrange: put("retained"), dead: true, key: "new", want: idemflight.ErrCallerLeft, counts: "Left"},
		{name: "nothing: closed before full", arrange: put("retained"), closed: true, key: "new", want: idemflight.ErrClosed, counts: "Closed"},
		{name: "nothing: full", arrange: put("retained"), key: "new", want: idemflight.ErrFull, counts: "Full"},
		{name: "nothing: full of a flight", flying: true, key: "new", want: idemflight.ErrFull, counts: "Full"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &eventLog[string]{}
				o := weighted(tc.opts)
				o.MaxEntries, o.MinRetention, o.TTL, o.Observer = 1, idemflight.DefaultTTL, idemflight.DefaultTTL, log.observe
				c := idemflight.MustNew(o)
				if tc.arrange != nil {
					tc.arrange(t, c)
				}
				ask := func(ctx context.Context) {
					if tc.closed {
						_ = c.Close(dead(context.Canceled))
					}
					if tc.dead {
						var cancel context.CancelFunc
						ctx, cancel = context.WithCancel(ctx)
						cancel()
					}
					log.clear()
					before, start := c.Stats(), time.Now()
					r, err := c.DoResult(ctx, tc.key, neverRuns(t), tc.call...)
					require.ErrorIs(t, err, tc.want)
					if tc.want == nil {
						require.Equal(t, idemflight.Replayed, r.Source)
					} else {
						require.Equal(t, idemflight.NoOutcome, r.Source, "no outcome was obtained")
					}
					require.True(t, time.Now().Equal(start), "the answer needs no waiting")
					counted := callCounts(c.Stats())
					for k, n := range callCounts(before) {
						if counted[k] -= n; counted[k] == 0 {
							delete(counted, k)
						}
					}
					require.Equal(t, map[string]uint64{tc.counts: 1}, counted,
						"how Stats counts the call")
					require.Len(t, log.of(callKinds...), 1, "one call, one event")
				}
				switch {
				case tc.inside:
					_, err := c.Do(bg, "k", func(ctx context.Context) (int, error) { ask(ctx); return 1, nil }, same)
					require.NoError(t, err)
				case tc.flying:
					end := fly(t, c, "k", same)
					ask(bg)
					_, err := end(1, nil)
					require.NoError(t, err)
				default:
					ask(bg)
				}
				closed(t, c)
			})
		})
	}
}

// A held key that its Reconcile settles in the same flight is in flight for a second caller.
func TestPromise22_AFlightOfReconcileIsAFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		c := idemflight.MustNew(options{Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
			<-gate
			return 3, nil
		}})
		hold(t, c, "k", idemflight.WithFingerprint(fingerprint(1)))
		go func() { _, _ = c.Do(bg, "k", neverRuns(t), idemflight.WithFingerprint(fingerprint(1))) }()
		synctest.Wait()
		_, err := c.Do(bg, "k", neverRuns(t), idemflight.WithFingerprint(fingerprint(2)))
		require.ErrorIs(t, err, idemflight.ErrKeyReused)
		_, err = c.Do(dead(context.Canceled), "k", neverRuns(t), idemflight.WithFingerprint(fingerprint(1)))
		require.ErrorIs(t, err, idemflight.ErrCallerLeft)
		_, err = c.Do(bg, "k", neverRuns(t), idemflight.WithFingerprint(fingerprint(1)), idemflight.WithMaxWait(0))
		require.ErrorIs(t, err, idemflight.ErrInFlight)
		e, ok := lookup(c, "k")
		require.True(t, ok)
		require.Equal(t, idemflight.InFlight, e.State)
		require.Equal(t, fingerprint(1), e.Fingerprint)
		close(gate)
		synctest.Wait()
		e, _ = lookup(c, "k")
		require.Equal(t, idemflight.Retained, e.State)
		require.Equal(t, fingerprint(1), e.Fingerprint,
			"what Reconcile found keeps the fingerprint")
	})
}

// A call that found its key kept, but not for its own payload, looks again. Whatever else was
// inserted by then, it finds the key; and a call with the payload of the record is a replay.
func TestErrKeyReused_ThenRightPayloadReplays(t *testing.T) {
	defer idemflight.LimitShards(1)()
	for others := range 4 {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(options{})
			executes(t, c, "k", 1)
			came := false
			onYield(t, func(point string) {
				if point == "meet" && !came {
					came = true
					for i := range others {
						executes(t, c, keyNo(i), 1)
					}
				}
			})
			_, err := c.Do(bg, "k", neverRuns(t), idemflight.WithFingerprint(fingerprint(1)))
			require.True(t, came, "the seam")
			require.ErrorIs(t, err, idemflight.ErrKeyReused, "%d others came", others)
			require.Equal(t, 1, replays(t, c, "k"), "the right payload")
		})
	}
}
