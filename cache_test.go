package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// New

func TestNew_NamesEveryBadField(t *testing.T) {
	weigh := func(string, int) int64 { return 1 }
	cases := []struct {
		name string
		opts options
		want []string
	}{
		{"TTL", options{TTL: -5 * time.Second}, []string{"TTL", "-5s"}},
		{"TTL by a nanosecond", options{TTL: -1}, []string{"TTL", "-1ns"}},
		{"MaxEntries", options{MaxEntries: -7}, []string{"MaxEntries", "-7"}},
		{"MaxWeight", options{MaxWeight: -8, Weigh: weigh}, []string{"MaxWeight", "-8"}},
		{"MaxWaiters", options{MaxWaiters: -9}, []string{"MaxWaiters", "-9"}},
		{"MaxWeight without Weigh", options{MaxWeight: 1234}, []string{"MaxWeight", "1234", "Weigh"}},
		{"Weigh without MaxWeight", options{Weigh: weigh}, []string{"MaxWeight", "Weigh"}},
		{"all at once", options{TTL: -5 * time.Second, MaxEntries: -7, MaxWeight: -8, MaxWaiters: -9},
			[]string{"TTL", "-5s", "MaxEntries", "-7", "MaxWeight", "-8", "MaxWaiters", "-9"}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c, err := idemflight.New(tc.opts)
			require.Error(t, err)
			require.Nil(t, c, "no cache beside an error")
			for _, w := range tc.want {
				require.ErrorContains(t, err, w)
			}
			v := panicOf(func() { idemflight.MustNew(tc.opts) })
			require.NotNil(t, v, "MustNew panics where New errs")
			for _, w := range tc.want {
				require.Contains(t, fmt.Sprint(v), w, "what MustNew panics with")
			}
		})
	}
}

func TestNew_TakesEveryGoodExtreme(t *testing.T) {
	weigh := func(string, int) int64 { return 1 }
	for name, o := range map[string]options{
		"the zero value": {},
		"largest": {TTL: math.MaxInt64, HoldTTL: math.MaxInt64, MaxEntries: math.MaxInt, Protect: math.MaxInt64,
			MaxWeight: math.MaxInt64, Weigh: weigh, ExecTimeout: math.MaxInt64, MaxWaiters: math.MaxInt},
		"smallest": {TTL: 1, HoldTTL: 1, MaxEntries: 1, Protect: 1, MaxWeight: 1, Weigh: weigh, ExecTimeout: 1, MaxWaiters: 1},
		"negative": {HoldTTL: math.MinInt64, Protect: math.MinInt64, ExecTimeout: math.MinInt64},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, err := idemflight.New(o)
				require.NoError(t, err)
				executes(t, c, "k", 1)
				require.Equal(t, 1, replays(t, c, "k"))
			})
		})
	}
}

// Mistakes of the programmer

func TestMisuse_PanicsBeforeAnythingIsTouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[any]{}
		c := idemflight.MustNew(idemflight.Options[any, int]{Observer: log.observe})
		var noContext context.Context
		calls := map[string]struct {
			key any
			ctx context.Context
			fn  func(context.Context) (int, error)
			say string // what the message must speak of
		}{
			"nil ctx":             {"k", noContext, neverRuns(t), `(?i)nil.*(ctx|context)|(ctx|context).*nil`},
			"nil fn":              {"k", bg, nil, `(?i)nil.*(fn|func)|(fn|func).*nil`},
			"slice key":           {[]int{1}, bg, neverRuns(t), `(?i)hash|comparable`},
			"map key":             {map[int]int{}, bg, neverRuns(t), `(?i)hash|comparable`},
			"func key":            {func() {}, bg, neverRuns(t), `(?i)hash|comparable`},
			"array of interfaces": {[1]any{[]int{}}, bg, neverRuns(t), `(?i)hash|comparable`},
			"struct with a slice": {struct{ x any }{[]int{}}, bg, neverRuns(t), `(?i)hash|comparable`},
		}
		for name, call := range calls {
			for form, do := range map[string]func(){
				"Do":        func() { _, _ = c.Do(call.ctx, call.key, call.fn) },
				"DoResult":  func() { _, _ = c.DoResult(call.ctx, call.key, call.fn) },
				"Do inline": func() { _, _ = c.Do(call.ctx, call.key, call.fn, idemflight.Inline()) },
			} {
				v := panicOf(do)
				require.NotNil(t, v, "%s with %s panics", form, name)
				require.Regexp(t, call.say, fmt.Sprint(v), "%s with %s panics with a clear message", form, name)
			}
		}
		for name, ask := range map[string]func(){
			"Lookup": func() { c.Lookup([]int{1}) },
			"Forget": func() { c.Forget([]int{1}) },
		} {
			require.NotNil(t, panicOf(ask), "%s with an unhashable key panics", name)
		}
		require.Equal(t, idemflight.Stats{}, c.Stats(), "such a call counts nowhere")
		require.Empty(t, log.all, "such a call is no event")

		v, err := c.Do(bg, any("k"), returns(1, nil))
		require.NoError(t, err, "the key stays usable")
		require.Equal(t, 1, v)
		require.NotNil(t, panicOf(func() { _, _ = c.Do(bg, any("k"), nil) }), "a nil fn panics also where a replay would not need it")
		require.NotNil(t, panicOf(func() { _, _ = c.Do(noContext, any("k"), returns(1, nil)) }), "a nil ctx panics also where a replay would not need it")
		v, err = c.Do(bg, any("k"), returns(2, nil))
		require.NoError(t, err)
		require.Equal(t, 1, v, "and its outcome is untouched")
	})
}

// Forget

func TestPromise23_ForgetDropsWhatIsKept(t *testing.T) {
	for _, s := range keptStates {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &eventLog[string]{}
				c := idemflight.MustNew(weighted(options{MaxEntries: 1, TTL: time.Minute, Protect: time.Minute, Observer: log.observe}))
				require.False(t, c.Forget("k"), "nothing there")
				s.put(t, c)
				require.False(t, c.Forget("other"))
				require.True(t, c.Forget("k"))
				require.False(t, c.Forget("k"), "nothing there any more")
				_, ok := c.Lookup("k")
				require.False(t, ok)
				st := c.Stats()
				require.Zero(t, st.Entries+st.Held+int(st.Weight)+c.Len(), "place, hold and weight are given back: %+v", st)
				executes(t, c, "k", 2, idemflight.WithFingerprint(fingerprint(2)))
				time.Sleep(time.Minute + reclaimDelay(time.Minute))
				synctest.Wait()
				require.Len(t, log.of(idemflight.EventExpired), 1, "what was forgotten does not expire later")
			})
		})
	}
}

func TestPromise23_ForgetInFlight(t *testing.T) {
	cases := []struct {
		name string
		err  error // what fn returns
		want error
		held bool
	}{
		{"success", nil, nil, false},
		{"final", idemflight.Final(errBoom), errBoom, false},
		{"retryable", idemflight.Retryable(errBoom), errBoom, false},
		{"unknown is held all the same", idemflight.Unknown(errBoom), idemflight.ErrOutcomeUnknown, true},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &eventLog[string]{}
				c := idemflight.MustNew(weighted(options{MaxEntries: 1, Observer: log.observe}))
				end := fly(t, c, "k")
				var wg sync.WaitGroup
				join := func() {
					wg.Go(func() {
						r, err := c.DoResult(bg, "k", neverRuns(t))
						if !errors.Is(err, tc.want) || r.Value != 7 || r.Source != idemflight.Joined {
							t.Errorf("a joined caller got (%d, %v) by %v, expected (7, %v) by joined", r.Value, err, r.Source, tc.want)
						}
					})
					synctest.Wait()
				}
				join()
				require.True(t, c.Forget("k"), "on a key in flight")
				join() // arriving after Forget, before the end
				require.True(t, c.Forget("k"), "it is still in flight")
				e, ok := c.Lookup("k")
				require.True(t, ok)
				require.Equal(t, idemflight.InFlight, e.State)
				require.Equal(t, 2, e.Waiters)
				_, err := c.Do(bg, "k", neverRuns(t), idemflight.WithFingerprint(fingerprint(1)))
				require.ErrorIs(t, err, idemflight.ErrKeyReused)
				_, err = c.Do(bg, "other", neverRuns(t))
				require.ErrorIs(t, err, idemflight.ErrFull, "its place is still taken")

				r, err := end(7, tc.err)
				require.ErrorIs(t, err, tc.want)
				require.Equal(t, 7, r.Value)
				wg.Wait()
				e, ok = c.Lookup("k")
				require.Equal(t, tc.held, ok)
				st := c.Stats()
				if tc.held {
					require.Equal(t, idemflight.Held, e.State)
					require.True(t, r.ExpiresAt.Equal(e.ExpiresAt))
					require.EqualValues(t, 1, st.Holds)
				} else {
					require.Zero(t, r.ExpiresAt, "the outcome is not kept")
					require.Equal(t, idemflight.Release, log.of(idemflight.EventExecuted)[0].Disposition)
					require.EqualValues(t, 1, st.Releases)
					executes(t, c, "k", 9)
					require.Zero(t, c.Stats().Evicted, "its place was given back")
				}
				require.Zero(t, st.Retains)
			})
		})
	}
}

func TestPromise23_ForgetDuringReconcile(t *testing.T) {
	cases := []struct {
		name  string
		finds error
		held  bool
		want  error
		runs  bool
	}{
		{name: "what it finds is not retained", finds: nil},
		{name: "final neither", finds: idemflight.Final(errBoom), want: errBoom},
		{name: "finding nothing holds again", finds: errBoom, held: true, want: idemflight.ErrOutcomeUnknown},
		{name: "no effect: fn runs and is not retained", finds: idemflight.Retryable(errBoom), runs: true},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gate := make(chan struct{})
				c := idemflight.MustNew(options{Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
					<-gate
					return 3, tc.finds
				}})
				hold(t, c, "k")
				done := make(chan error, 1)
				ran := false
				go func() {
					_, err := c.Do(bg, "k", func(context.Context) (int, error) { ran = true; return 4, nil })
					done <- err
				}()
				synctest.Wait()
				require.True(t, c.Forget("k"))
				close(gate)
				err := <-done
				require.ErrorIs(t, err, tc.want)
				require.Equal(t, tc.runs, ran, "whether fn ran")
				e, ok := c.Lookup("k")
				require.Equal(t, tc.held, ok, "what is kept: %+v", e)
				if tc.held {
					require.Equal(t, idemflight.Held, e.State)
				}
			})
		})
	}
}

// The Observer of the first leader's end starts the next execution of the key at the very moment
// when nothing is kept any more, and before the first call has returned.
func TestPromise23_AFlightLeavesWhatCameAfterItAlone(t *testing.T) {
	ways := map[string]struct {
		fn   func(context.Context) (int, error)
		opts []idemflight.CallOption
		want error
	}{
		"released":   {returns(0, idemflight.Retryable(errBoom)), nil, errBoom},
		"WithTTL(0)": {returns(1, nil), []idemflight.CallOption{idemflight.WithTTL(0)}, nil},
		"forgotten":  {nil, nil, nil},
	}
	for name, w := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c *cache
				var nested atomic.Bool
				c = idemflight.MustNew(options{Observer: func(_ context.Context, e idemflight.Event[string]) {
					if e.Kind == idemflight.EventExecuted && nested.CompareAndSwap(false, true) {
						executes(t, c, "k", 2)
					}
				}})
				fn := w.fn
				if fn == nil {
					fn = func(context.Context) (int, error) { c.Forget("k"); return 1, nil }
				}
				_, err := c.Do(bg, "k", fn, w.opts...)
				require.ErrorIs(t, err, w.want)
				require.True(t, nested.Load())
				synctest.Wait()
				require.Equal(t, 2, replays(t, c, "k"), "the end of the first flight must not touch the second's outcome")
				require.Equal(t, 1, c.Len())
				require.Zero(t, c.Stats().InFlight)
			})
		})
	}
}

// Wrap

func TestWrap_IsOneCallOfDo(t *testing.T) {
	type request struct{ id, body string }
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		c := idemflight.MustNew(options{TTL: time.Hour, Observer: log.observe})
		type ctxKey struct{}
		ctx := context.WithValue(bg, ctxKey{}, "mine")
		runs := 0
		charge := idemflight.Wrap(c, func(r request) (string, idemflight.Fingerprint, error) {
			return r.id, idemflight.FingerprintOf([]byte(r.body)), nil
		}, func(ctx context.Context, r request) (int, error) {
			runs++
			require.Equal(t, "mine", ctx.Value(ctxKey{}), "fn gets a context with the caller's values")
			require.NoError(t, idemflight.BeginEffect(ctx), "fn gets the execution's context")
			return len(r.body), nil
		}, idemflight.WithTTL(time.Minute))

		for range 3 {
			v, err := charge(ctx, request{"a", "four"})
			require.NoError(t, err)
			require.Equal(t, 4, v, "fn gets the argument")
		}
		require.Equal(t, 1, runs)
		_, err := charge(ctx, request{"a", "other"})
		require.ErrorIs(t, err, idemflight.ErrKeyReused, "the fingerprint from key counts")
		v, err := charge(ctx, request{"b", "other"})
		require.NoError(t, err)
		require.Equal(t, 5, v)
		_, err = charge(ctx, request{"", "x"})
		require.ErrorIs(t, err, idemflight.ErrInvalidKey)
		e, _ := c.Lookup("a")
		require.Equal(t, time.Minute, e.ExpiresAt.Sub(e.CompletedAt), "the options count")
		require.Equal(t, map[string]uint64{"Executed": 2, "Replayed": 2, "KeyReused": 1, "InvalidKey": 1}, callCounts(c.Stats()))
		require.Len(t, log.of(callKinds...), 6)
		time.Sleep(time.Minute)
		_, err = charge(ctx, request{"a", "other"})
		require.NoError(t, err)
		require.Equal(t, 3, runs)
	})
}

func TestWrap_AnErrorFromKeyIsNoCall(t *testing.T) {
	log := &eventLog[string]{}
	c := idemflight.MustNew(options{Observer: log.observe})
	f := idemflight.Wrap(c, func(int) (string, idemflight.Fingerprint, error) { return "k", fingerprint(1), errBoom },
		func(context.Context, int) (int, error) { t.Error("fn ran"); return 1, nil })
	v, err := f(bg, 1)
	require.True(t, err == errBoom, "the error from key as it is, got %v", err)
	require.Zero(t, v)
	require.Equal(t, idemflight.Stats{}, c.Stats(), "it is no call")
	require.Empty(t, log.all)
}

func TestWrap_AZeroFingerprintLeavesTheOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{})
		f := idemflight.Wrap(c, func(f idemflight.Fingerprint) (string, idemflight.Fingerprint, error) {
			return fmt.Sprintf("%x", f), f, nil
		}, func(context.Context, idemflight.Fingerprint) (int, error) { return 1, nil }, idemflight.WithFingerprint(fingerprint(1)))
		for _, from := range []idemflight.Fingerprint{{}, fingerprint(2)} {
			_, err := f(bg, from)
			require.NoError(t, err)
			want := from
			if from == (idemflight.Fingerprint{}) {
				want = fingerprint(1)
			}
			e, ok := c.Lookup(fmt.Sprintf("%x", from))
			require.True(t, ok)
			require.Equal(t, want, e.Fingerprint, "key gave %x, the option %x", from, fingerprint(1))
		}
	})
}

// Callers of one wrapped function must not write into each other's options, nor those of two that
// were given one slice with room to spare.
func TestWrap_CallsDoNotShareTheirOptions(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[int, int]{})
	opts := make([]idemflight.CallOption, 0, 8)
	opts = append(opts, idemflight.WithTTL(time.Hour))
	key := func(i int) (int, idemflight.Fingerprint, error) {
		return i, idemflight.FingerprintOf([]byte{byte(i), byte(i >> 8)}), nil
	}
	fn := func(_ context.Context, i int) (int, error) { return i, nil }
	fs := []func(context.Context, int) (int, error){idemflight.Wrap(c, key, fn, opts...), idemflight.Wrap(c, key, fn, opts...)}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				v, err := fs[(g+i)%2](bg, i)
				if err != nil || v != i {
					t.Errorf("call %d got (%d, %v), expected its own value", i, v, err)
					return
				}
			}
		})
	}
	wg.Wait()
	for i := range 500 {
		e, _ := c.Lookup(i)
		_, want, _ := key(i)
		require.Equal(t, want, e.Fingerprint, "key %d has its own fingerprint", i)
	}
}

// Allocation

func checkReplayAllocs[K comparable](t *testing.T, name string, key K) {
	t.Helper()
	events := 0
	for _, o := range []struct {
		name string
		opts idemflight.Options[K, int]
	}{
		{"plain", idemflight.Options[K, int]{}},
		{"everything", idemflight.Options[K, int]{
			MaxEntries: 100, MaxWeight: 100, Weigh: func(K, int) int64 { return 1 }, HoldTTL: -1, MaxWaiters: 1,
			Classify:  idemflight.ClassifyDefault,
			Reconcile: func(context.Context, K, idemflight.Entry[int]) (int, error) { return 0, nil },
			Observer:  func(context.Context, idemflight.Event[K]) { events++ },
		}},
	} {
		t.Run(name+"/"+o.name, func(t *testing.T) {
			c := idemflight.MustNew(o.opts)
			ctx, cancel := context.WithCancel(bg)
			defer cancel()
			fp := fingerprint(1)
			fn := func(context.Context) (int, error) { return 7, nil }
			check := func(how string, call func() (int, error)) {
				v, err := call() // the execution
				require.NoError(t, err)
				require.Equal(t, 7, v)
				require.Zero(t, testing.AllocsPerRun(200, func() { v, err = call() }), "allocations of a replay by %s", how)
				require.NoError(t, err)
				require.Equal(t, 7, v)
				require.True(t, c.Forget(key))
			}
			check("Do", func() (int, error) { return c.Do(bg, key, fn) })
			check("Do with a context that can end", func() (int, error) { return c.Do(ctx, key, fn) })
			check("Do with every option", func() (int, error) {
				return c.Do(ctx, key, fn, idemflight.WithFingerprint(fp), idemflight.WithTTL(time.Hour), idemflight.WithMaxWait(time.Second), idemflight.Inline())
			})
			check("DoResult with every option", func() (int, error) {
				r, err := c.DoResult(ctx, key, fn, idemflight.Inline(), idemflight.WithMaxWait(idemflight.NoWait), idemflight.WithTTL(time.Hour), idemflight.WithFingerprint(fp))
				return r.Value, err
			})
			type request struct {
				body []byte
				n    int
			}
			req := request{body: []byte("a payload of some length"), n: 7}
			wrapped := idemflight.Wrap(c, func(r request) (K, idemflight.Fingerprint, error) {
				return key, idemflight.FingerprintOf(r.body), nil
			}, func(_ context.Context, r request) (int, error) { return r.n, nil },
				idemflight.WithTTL(time.Hour), idemflight.WithMaxWait(time.Second), idemflight.Inline(), idemflight.WithFingerprint(fp))
			check("Wrap with everything", func() (int, error) { return wrapped(ctx, req) })
			bare := idemflight.Wrap(c, func(request) (K, idemflight.Fingerprint, error) { return key, idemflight.Fingerprint{}, nil },
				func(_ context.Context, r request) (int, error) { return r.n, nil })
			check("Wrap", func() (int, error) { return bare(bg, req) })
			ptr := idemflight.Wrap(c, func(*request) (K, idemflight.Fingerprint, error) { return key, fp, nil },
				func(_ context.Context, r *request) (int, error) { return r.n, nil })
			check("Wrap of a pointer", func() (int, error) { return ptr(ctx, &req) })
		})
	}
	require.Positive(t, events, "the Observer was told")
}

func TestPromise27_AReplayAllocatesNothing(t *testing.T) {
	type pair struct {
		A string
		B int
	}
	checkReplayAllocs(t, "string", "a key")
	checkReplayAllocs(t, "int", 7)
	checkReplayAllocs(t, "Key", idemflight.Key{Scope: "customer", ID: "0e8fdc1a"})
	checkReplayAllocs(t, "struct", pair{"a", 1})
	checkReplayAllocs(t, "pointer", new(int))
	checkReplayAllocs(t, "float", 1.5)
	checkReplayAllocs(t, "interface of a string", any("a key"))
	checkReplayAllocs(t, "interface of a struct", any(pair{"a", 1}))
}

func TestPromise27_AReplayedErrorAllocatesNothing(t *testing.T) {
	c := idemflight.MustNew(options{})
	fn := func(context.Context) (int, error) { return 1, idemflight.Final(errBoom) }
	var err error
	require.Zero(t, testing.AllocsPerRun(200, func() { _, err = c.Do(bg, "k", fn) }), "allocations of the replay of an error")
	require.True(t, err == errBoom, "the error as fn gave it, got %v", err)
}

// A replay moves its key in the order of use: among many, that must not allocate either.
func TestPromise27_AReplayAmongManyAllocatesNothing(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: 10_000, Protect: -1})
	fn := func(context.Context) (int, error) { return 7, nil }
	for i := range 3000 {
		_, _ = c.Do(bg, i, fn)
	}
	i := 0
	require.Zero(t, testing.AllocsPerRun(400, func() {
		_, _ = c.Do(bg, 2500+i%400, fn)
		i++
	}))
	require.EqualValues(t, 3000, c.Stats().Executed, "these were replays")
}

func TestPromise27_ACapturingClosureCostsItsCallerOne(t *testing.T) {
	c := idemflight.MustNew(options{})
	n := 0
	got := testing.AllocsPerRun(200, func() {
		n++
		m := n
		_, _ = c.Do(bg, "k", func(context.Context) (int, error) { return m, nil }, idemflight.WithFingerprint(fingerprint(1)), idemflight.WithTTL(time.Hour))
	})
	require.LessOrEqual(t, got, 1.0, "allocations of a replay with a closure that captures")
}
