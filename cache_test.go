package idemflight_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

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
		"largest": {TTL: math.MaxInt64, HoldTTL: math.MaxInt64, MaxEntries: math.MaxInt, MinRetention: math.MaxInt64,
			MaxWeight: math.MaxInt64, Weigh: weigh, ExecTimeout: math.MaxInt64, MaxWaiters: math.MaxInt},
		"smallest": {TTL: 1, HoldTTL: 1, MaxEntries: 1, MinRetention: 1, MaxWeight: 1, Weigh: weigh, ExecTimeout: 1, MaxWaiters: 1},
		"negative": {HoldTTL: math.MinInt64, MinRetention: math.MinInt64, ExecTimeout: math.MinInt64},
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

// The number of shards goes by the cores and by the size, so that the tables of a full cache are
// full.
func TestShards_GoByCoresAndSize(t *testing.T) {
	if os.Getenv("IDEMFLIGHT_SHARDS") != "" {
		t.Skip("another number is asked for")
	}
	for _, tt := range []struct{ cores, maxEntries, want int }{
		{1, 1, 1},
		{1, 3, 3},
		{1, 1_000, 4},
		{2, 1_000, 8},
		{1, 20_000, 19},
		{1, 60_000, 58},
		{1, 65_536, 64},
		{1, 1 << 30, 64},
		{24, 65_536, 96},
		{24, 1 << 30, 96},
		{64, 1 << 20, 128},
		{64, 100, 100},
	} {
		before := runtime.GOMAXPROCS(tt.cores)
		c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: tt.maxEntries})
		runtime.GOMAXPROCS(before)
		require.Equal(t, tt.want, c.Shards(), "%d entries, %d cores", tt.maxEntries, tt.cores)
	}
}

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
				require.Regexp(t, call.say, fmt.Sprint(v),
					"%s with %s panics with a clear message", form, name)
			}
		}
		for name, ask := range map[string]func(){
			"Lookup": func() { lookup(c, any([]int{1})) },
			"Forget": func() { forget(c, any([]int{1})) },
		} {
			require.NotNil(t, panicOf(ask), "%s with an unhashable key panics", name)
		}
		require.Equal(t, idemflight.Stats{}, c.Stats(), "such a call counts nowhere")
		require.Empty(t, log.all, "such a call is no event")

		v, err := c.Do(bg, any("k"), returns(1, nil))
		require.NoError(t, err, "the key stays usable")
		require.Equal(t, 1, v)
		require.NotNil(t, panicOf(func() { _, _ = c.Do(bg, any("k"), nil) }),
			"a nil fn panics also where a replay would not need it")
		require.NotNil(t, panicOf(func() { _, _ = c.Do(noContext, any("k"), returns(1, nil)) }),
			"a nil ctx panics also where a replay would not need it")
		v, err = c.Do(bg, any("k"), returns(2, nil))
		require.NoError(t, err)
		require.Equal(t, 1, v, "and its outcome is untouched")
	})
}

func TestNilAndUnhashableArguments_PanicAtTheCall(t *testing.T) {
	type anyCache = idemflight.Cache[any, int]
	type composite struct{ of any }
	type fn = func(context.Context) (int, error)
	run := returns(1, nil)
	for name, bad := range map[string]struct {
		ctx  context.Context
		key  any
		fn   fn
		says []string
	}{
		"nil ctx":                   {nil, theKey, run, []string{"nil", "ctx|context"}},
		"nil fn":                    {context.Background(), theKey, nil, []string{"nil", "fn"}},
		"nil fn, dead ctx":          {dead(errEnough), theKey, nil, []string{"nil", "fn"}},
		"slice":                     {context.Background(), []int{1}, run, []string{"unhashable|not hashable|hash"}},
		"map":                       {context.Background(), map[string]int{}, run, []string{"unhashable|not hashable|hash"}},
		"func":                      {context.Background(), func() {}, run, []string{"unhashable|not hashable|hash"}},
		"slice in a struct":         {context.Background(), composite{[]int{1}}, run, []string{"unhashable|not hashable|hash"}},
		"slice in an array":         {context.Background(), [2]any{1, []int{1}}, run, []string{"unhashable|not hashable|hash"}},
		"slice in a struct, nested": {context.Background(), composite{composite{[]int{1}}}, run, []string{"unhashable|not hashable|hash"}},
	} {
		for state, put := range map[string]func(c *anyCache, gate *gate){
			"absent": func(*anyCache, *gate) {},
			"in flight": func(c *anyCache, gate *gate) {
				start(c, context.Background(), any(theKey), func(context.Context) (int, error) { gate.wait(); return 1, nil })
			},
			"retained": func(c *anyCache, _ *gate) { start(c, context.Background(), any(theKey), run) },
			"held": func(c *anyCache, _ *gate) {
				start(c, context.Background(), any(theKey), returns(0, idemflight.Unknown(errBoom)))
			},
		} {
			for _, closed := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, closed %v", name, state, closed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						events := 0
						c := idemflight.MustNew(idemflight.Options[any, int]{MaxEntries: 8, Observer: func(context.Context, idemflight.Event[any]) { events++ }})
						gate := newGate(t)
						put(c, gate)
						synctest.Wait()
						if closed {
							_ = c.Close(dead(errEnough))
						}
						before, told := c.Stats(), events
						wrapped := idemflight.Wrap(c, func(any) (any, idemflight.Fingerprint, error) { return bad.key, idemflight.Fingerprint{}, nil },
							func(context.Context, any) (int, error) { return 1, nil })
						for _, opts := range [][]idemflight.CallOption{nil, {idemflight.Inline()}, {idemflight.WithMaxWait(idemflight.NoWait)}, {idemflight.WithFingerprint(idemflight.Fingerprint{1})}} {
							for way, call := range map[string]func(){
								"Do":       func() { _, _ = c.Do(bad.ctx, bad.key, bad.fn, opts...) },
								"DoResult": func() { _, _ = c.DoResult(bad.ctx, bad.key, bad.fn, opts...) },
								"Wrap": func() {
									if bad.fn == nil { // Wrap has a test of its own for that
										panic("idemflight: nil fn")
									}
									_, _ = wrapped(bad.ctx, 1)
								},
							} {
								said := fmt.Sprint(panicOf(call))
								require.Regexp(t, "^idemflight: ", said,
									"%s must panic at the call, and say which method does", way)
								for _, word := range bad.says {
									require.Regexp(t, "(?i)"+word, said, "the message must say what is wrong with the call of %s", way)
								}
							}
						}
						require.Equal(t, before, c.Stats(),
							"such a call counts nowhere, and leaves nothing behind")
						require.Equal(t, told, events, "such a call is no event")

						// The key stays usable.
						gate.open()
						synctest.Wait()
						v, err := c.Do(context.Background(), theKey, run)
						switch {
						case state == "held":
							require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
						case closed && state == "absent":
							require.ErrorIs(t, err, idemflight.ErrClosed)
						default:
							require.NoError(t, err)
							require.Equal(t, 1, v)
						}
					})
				})
			}
		}
	}
}

func TestUnhashableKeys_LeaveNoLockHeldInOtherMethods(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[any, int]{})
	key := any([]int{1})
	now := time.Now()
	for name, call := range map[string]func(){
		"Lookup":  func() { lookup(c, key) },
		"Forget":  func() { forget(c, key) },
		"Resolve": func() { resolve(c, key, 1, nil) },
		"Restore": func() {
			_ = c.Restore(bg, key, idemflight.Entry[int]{State: idemflight.Retained, CompletedAt: now, ExpiresAt: now.Add(time.Hour)})
		},
	} {
		require.Regexp(t, `^idemflight: key of type \[\]int cannot be hashed`, fmt.Sprint(panicOf(call)), "%s with an unhashable key must panic", name)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 1000 {
			_, _ = c.Do(t.Context(), i+1, returns(1, nil))
		}
		c.Stats()
	}()
	soon(t, done, "calls after such panics")
}

// The panic names the missing argument at the call, before anything trips over it later.
func TestNilArguments_PanicMessageNamesThem(t *testing.T) {
	var none context.Context
	c := idemflight.MustNew(options{})
	key := func(string) (string, idemflight.Fingerprint, error) { return "", idemflight.Fingerprint{}, nil }
	fn := func(context.Context, string) (int, error) { return 1, nil }
	for want, call := range map[string]func(){
		"Cache must be made by New":              func() { _, _ = new(cache).Do(context.Background(), theKey, returns(1, nil)) },
		"Close called with a nil context":        func() { _ = c.Close(none) },
		"Forget called with a nil context":       func() { _, _ = c.Forget(none, theKey) },
		"Lookup called with a nil context":       func() { _, _, _ = c.Lookup(none, theKey) },
		"Resolve called with a nil context":      func() { _ = c.Resolve(none, theKey, 1, nil) },
		"Restore called with a nil context":      func() { _ = c.Restore(none, theKey, idemflight.Entry[int]{}) },
		"Unsettled called with a nil context":    func() { _ = c.Unsettled(none, nil) },
		"Wrap called with a nil Cache":           func() { idemflight.Wrap(nil, key, fn) },
		"Wrap called with a nil key function":    func() { idemflight.Wrap(c, nil, fn) },
		"Wrap called with a nil fn":              func() { idemflight.Wrap[string](c, key, nil) },
		"a call through Wrap with a nil context": func() { _, _ = idemflight.Wrap(c, key, fn)(none, "") },
		"Do called with a nil context":           func() { _, _ = c.Do(none, theKey, returns(1, nil)) },
		"Do called with a nil fn":                func() { _, _ = c.Do(context.Background(), theKey, nil) },
	} {
		require.Equal(t, "idemflight: "+want, fmt.Sprint(panicOf(call)))
	}
	require.Equal(t, idemflight.Stats{}, c.Stats())
}

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
			require.Equal(t, "mine", ctx.Value(ctxKey{}),
				"fn gets a context with the caller's values")
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
		e, _ := lookup(c, "a")
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
			return fmt.Sprintf("%x", f[:]), f, nil
		}, func(context.Context, idemflight.Fingerprint) (int, error) { return 1, nil }, idemflight.WithFingerprint(fingerprint(1)))
		for _, from := range []idemflight.Fingerprint{{}, fingerprint(2)} {
			_, err := f(bg, from)
			require.NoError(t, err)
			want := from
			if from == (idemflight.Fingerprint{}) {
				want = fingerprint(1)
			}
			e, ok := lookup(c, fmt.Sprintf("%x", from[:]))
			require.True(t, ok)
			require.Equal(t, want, e.Fingerprint,
				"key gave %x, the option %x", from, fingerprint(1))
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
	opts[0] = idemflight.WithTTL(0) // their caller's own, from here on: else fn's outcomes would not be kept
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
		e, _ := lookup(c, i)
		_, want, _ := key(i)
		require.Equal(t, want, e.Fingerprint, "key %d has its own fingerprint", i)
	}
}

func TestStrings_NameEveryValueAndSurviveOthers(t *testing.T) {
	check := func(kind string, named []fmt.Stringer, others []fmt.Stringer) {
		seen := map[string]bool{}
		for _, s := range append(named, others...) {
			require.NotEmpty(t, s.String(), "a %s has a name", kind)
			require.False(t, seen[s.String()], "%s %q names two values", kind, s)
			seen[s.String()] = true
		}
	}
	check("Source", []fmt.Stringer{idemflight.NoOutcome, idemflight.Executed, idemflight.Joined, idemflight.Replayed, idemflight.Reconciled},
		[]fmt.Stringer{idemflight.Source(-1), idemflight.Source(99)})
	check("State", []fmt.Stringer{idemflight.InFlight, idemflight.Retained, idemflight.Held, idemflight.Shed},
		[]fmt.Stringer{idemflight.State(-1), idemflight.State(99)})
	check("Disposition", []fmt.Stringer{idemflight.Release, idemflight.Retain, idemflight.Hold},
		[]fmt.Stringer{idemflight.Disposition(-1), idemflight.Disposition(99)})
	check("EventKind", []fmt.Stringer{idemflight.EventExecuted, idemflight.EventJoined, idemflight.EventReplayed, idemflight.EventReconciled,
		idemflight.EventRejected, idemflight.EventCallerLeft, idemflight.EventFinished, idemflight.EventEvicted, idemflight.EventExpired,
		idemflight.EventShed, idemflight.EventPanicked, idemflight.EventForgotten, idemflight.EventResolved, idemflight.EventStore,
		idemflight.EventUnannounced}, []fmt.Stringer{idemflight.EventKind(-1), idemflight.EventKind(99)})
}

// A number that is no value of the type must not panic where it is printed.
func TestStrings_OfInvalidValuesDoNotPanic(t *testing.T) {
	require.Equal(t, "idemflight.Source(5)", idemflight.Source(5).String())
	require.Equal(t, "idemflight.Source(-1)", idemflight.Source(-1).String())
	require.Equal(t, "idemflight.State(5)", idemflight.State(5).String())
	require.Equal(t, "idemflight.Disposition(3)", idemflight.Disposition(3).String())
	require.Equal(t, "idemflight.EventKind(15)", idemflight.EventKind(15).String())
}
