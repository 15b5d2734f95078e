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

type (
	ttCache   = idemflight.Cache[string, int]
	ttOptions = idemflight.Options[string, int]
)

var (
	ttBg  = context.Background()
	errTT = errors.New("the bank's own words")
)

// ttDead returns a context that has ended.
func ttDead() context.Context {
	ctx, cancel := context.WithCancel(ttBg)
	cancel()
	return ctx
}

func ttFp(n int) idemflight.Fingerprint { return idemflight.FingerprintOf([]byte{byte(n)}) }

func ttValue(v int) func(context.Context) (int, error) {
	return func(context.Context) (int, error) { return v, nil }
}

func ttFail(err error) func(context.Context) (int, error) {
	return func(context.Context) (int, error) { return 0, err }
}

func ttNever(t *testing.T) func(context.Context) (int, error) {
	return func(context.Context) (int, error) {
		t.Error("fn ran, expected that it does not")
		return -1, idemflight.Retryable(errors.New("fn ran, expected that it does not"))
	}
}

// ttRuns calls Do and expects that fn runs, returning v.
func ttRuns(t *testing.T, c *ttCache, key string, v int, opts ...idemflight.CallOption) idemflight.Result[int] {
	t.Helper()
	r, err := c.DoResult(ttBg, key, ttValue(v), opts...)
	require.NoError(t, err, "fn of %q was to run", key)
	require.Equal(t, idemflight.Executed, r.Source, "fn of %q was to run", key)
	require.Equal(t, v, r.Value)
	return r
}

// ttHold leaves key held with errTT.
func ttHold(t *testing.T, c *ttCache, key string, opts ...idemflight.CallOption) {
	t.Helper()
	_, err := c.Do(ttBg, key, ttFail(idemflight.Unknown(errTT)), opts...)
	require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
	require.ErrorIs(t, err, errTT)
}

// ttReplay uses key, which must be retained without an error, and returns its value.
func ttReplay(t *testing.T, c *ttCache, key string) int {
	t.Helper()
	v, err := c.Do(ttDead(), key, ttNever(t))
	require.NoError(t, err, "%q was to be replayed", key)
	return v
}

// ttFly starts a flight of key, and returns what ends it and gives what its leader got. In bubbles
// only.
func ttFly(t *testing.T, c *ttCache, key string, opts ...idemflight.CallOption) func(v int, err error) (idemflight.Result[int], error) {
	t.Helper()
	type outcome struct {
		v   int
		err error
	}
	type answer struct {
		r   idemflight.Result[int]
		err error
	}
	gate, got := make(chan outcome), make(chan answer, 1)
	go func() {
		r, err := c.DoResult(ttBg, key, func(context.Context) (int, error) {
			o := <-gate
			return o.v, o.err
		}, opts...)
		got <- answer{r, err}
	}()
	synctest.Wait()
	e, ok := c.Lookup(key)
	require.True(t, ok, "%q is in flight", key)
	require.Equal(t, idemflight.InFlight, e.State, "%q is in flight", key)
	return func(v int, err error) (idemflight.Result[int], error) {
		gate <- outcome{v, err}
		a := <-got
		return a.r, a.err
	}
}

func ttAll[K comparable, V any](c *idemflight.Cache[K, V]) map[K]idemflight.Entry[V] {
	m := map[K]idemflight.Entry[V]{}
	for k, e := range c.All() {
		m[k] = e
	}
	return m
}

// ttEntry is a retained entry that ends at expires and began an hour before that.
func ttEntry(v int, expires time.Time) idemflight.Entry[int] {
	return idemflight.Entry[int]{State: idemflight.Retained, Value: v,
		StartedAt: expires.Add(-time.Hour), CompletedAt: expires.Add(-time.Hour), ExpiresAt: expires}
}

// ttLog is an Observer that remembers.
type ttLog[K comparable] struct {
	mu  sync.Mutex
	all []ttSeen[K]
}

type ttSeen[K comparable] struct {
	idemflight.Event[K]
	ctx context.Context
	at  time.Time
}

func (l *ttLog[K]) observe(ctx context.Context, e idemflight.Event[K]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, ttSeen[K]{e, ctx, time.Now()})
}

func (l *ttLog[K]) seen(kinds ...idemflight.EventKind) []ttSeen[K] {
	l.mu.Lock()
	defer l.mu.Unlock()
	var some []ttSeen[K]
	for _, s := range l.all {
		for _, k := range kinds {
			if s.Kind == k {
				some = append(some, s)
			}
		}
	}
	return some
}

func (l *ttLog[K]) of(kinds ...idemflight.EventKind) []idemflight.Event[K] {
	var some []idemflight.Event[K]
	for _, s := range l.seen(kinds...) {
		some = append(some, s.Event)
	}
	return some
}

func (l *ttLog[K]) keys(kind idemflight.EventKind) []K {
	var some []K
	for _, s := range l.seen(kind) {
		some = append(some, s.Key)
	}
	return some
}

func (l *ttLog[K]) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = nil
}

var (
	ttCallKinds = []idemflight.EventKind{idemflight.EventExecuted, idemflight.EventJoined, idemflight.EventReplayed,
		idemflight.EventReconciled, idemflight.EventRejected, idemflight.EventLeft}
	ttUpkeepKinds = []idemflight.EventKind{idemflight.EventEvicted, idemflight.EventExpired, idemflight.EventShed, idemflight.EventPanicked}
)

// ttCalls returns the Stats of calls that are not zero.
func ttCalls(s idemflight.Stats) map[string]uint64 {
	m := map[string]uint64{"Executed": s.Executed, "Joined": s.Joined, "Replayed": s.Replayed, "Reconciled": s.Reconciled,
		"KeyReused": s.KeyReused, "NotWaited": s.NotWaited, "OutcomeUnknown": s.OutcomeUnknown, "ValueShed": s.ValueShed, "Full": s.Full,
		"Closed": s.Closed, "Reentrant": s.Reentrant, "InvalidKey": s.InvalidKey, "Left": s.Left}
	for k, n := range m {
		if n == 0 {
			delete(m, k)
		}
	}
	return m
}

func ttSum(s idemflight.Stats) (sum uint64) {
	for _, n := range ttCalls(s) {
		sum += n
	}
	return sum
}

// ttPanics returns what f panics with, nil if it does not.
func ttPanics(f func()) (v any) {
	defer func() { v = recover() }()
	f()
	return nil
}

// New

func TestNew_NamesEveryBadField(t *testing.T) {
	weigh := func(string, int) int64 { return 1 }
	cases := []struct {
		name string
		opts ttOptions
		want []string
	}{
		{"TTL", ttOptions{TTL: -5 * time.Second}, []string{"TTL", "-5s"}},
		{"TTL by a nanosecond", ttOptions{TTL: -1}, []string{"TTL", "-1ns"}},
		{"MaxEntries", ttOptions{MaxEntries: -7}, []string{"MaxEntries", "-7"}},
		{"MaxWeight", ttOptions{MaxWeight: -8, Weigh: weigh}, []string{"MaxWeight", "-8"}},
		{"MaxWaiters", ttOptions{MaxWaiters: -9}, []string{"MaxWaiters", "-9"}},
		{"MaxWeight without Weigh", ttOptions{MaxWeight: 1234}, []string{"MaxWeight", "1234", "Weigh"}},
		{"Weigh without MaxWeight", ttOptions{Weigh: weigh}, []string{"MaxWeight", "Weigh"}},
		{"all at once", ttOptions{TTL: -5 * time.Second, MaxEntries: -7, MaxWeight: -8, MaxWaiters: -9},
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
			v := ttPanics(func() { idemflight.MustNew(tc.opts) })
			require.NotNil(t, v, "MustNew panics where New errs")
			for _, w := range tc.want {
				require.Contains(t, fmt.Sprint(v), w, "what MustNew panics with")
			}
		})
	}
}

func TestNew_TakesEveryGoodExtreme(t *testing.T) {
	weigh := func(string, int) int64 { return 1 }
	for name, o := range map[string]ttOptions{
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
				ttRuns(t, c, "k", 1)
				require.Equal(t, 1, ttReplay(t, c, "k"))
			})
		})
	}
}

// Mistakes of the programmer

func TestMisuse_PanicsBeforeAnythingIsTouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ttLog[any]{}
		c := idemflight.MustNew(idemflight.Options[any, int]{Observer: log.observe})
		var noContext context.Context
		calls := map[string]struct {
			key any
			ctx context.Context
			fn  func(context.Context) (int, error)
			say string // what the message must speak of
		}{
			"nil ctx":             {"k", noContext, ttNever(t), `(?i)nil.*(ctx|context)|(ctx|context).*nil`},
			"nil fn":              {"k", ttBg, nil, `(?i)nil.*(fn|func)|(fn|func).*nil`},
			"slice key":           {[]int{1}, ttBg, ttNever(t), `(?i)hash|comparable`},
			"map key":             {map[int]int{}, ttBg, ttNever(t), `(?i)hash|comparable`},
			"func key":            {func() {}, ttBg, ttNever(t), `(?i)hash|comparable`},
			"array of interfaces": {[1]any{[]int{}}, ttBg, ttNever(t), `(?i)hash|comparable`},
			"struct with a slice": {struct{ x any }{[]int{}}, ttBg, ttNever(t), `(?i)hash|comparable`},
		}
		for name, call := range calls {
			for form, do := range map[string]func(){
				"Do":        func() { _, _ = c.Do(call.ctx, call.key, call.fn) },
				"DoResult":  func() { _, _ = c.DoResult(call.ctx, call.key, call.fn) },
				"Do inline": func() { _, _ = c.Do(call.ctx, call.key, call.fn, idemflight.Inline()) },
			} {
				v := ttPanics(do)
				require.NotNil(t, v, "%s with %s panics", form, name)
				require.Regexp(t, call.say, fmt.Sprint(v), "%s with %s panics with a clear message", form, name)
			}
		}
		for name, ask := range map[string]func(){
			"Lookup": func() { c.Lookup([]int{1}) },
			"Forget": func() { c.Forget([]int{1}) },
		} {
			require.NotNil(t, ttPanics(ask), "%s with an unhashable key panics", name)
		}
		require.Equal(t, idemflight.Stats{}, c.Stats(), "such a call counts nowhere")
		require.Empty(t, log.all, "such a call is no event")

		v, err := c.Do(ttBg, any("k"), ttValue(1))
		require.NoError(t, err, "the key stays usable")
		require.Equal(t, 1, v)
		require.NotNil(t, ttPanics(func() { _, _ = c.Do(ttBg, any("k"), nil) }), "a nil fn panics also where a replay would not need it")
		require.NotNil(t, ttPanics(func() { _, _ = c.Do(noContext, any("k"), ttValue(1)) }), "a nil ctx panics also where a replay would not need it")
		v, err = c.Do(ttBg, any("k"), ttValue(2))
		require.NoError(t, err)
		require.Equal(t, 1, v, "and its outcome is untouched")
	})
}

// Forget

func TestPromise23_ForgetDropsWhatIsKept(t *testing.T) {
	for _, s := range ttStates {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &ttLog[string]{}
				c := idemflight.MustNew(ttWeighted(ttOptions{MaxEntries: 1, TTL: time.Minute, Protect: time.Minute, Observer: log.observe}))
				require.False(t, c.Forget("k"), "nothing there")
				s.put(t, c)
				require.False(t, c.Forget("other"))
				require.True(t, c.Forget("k"))
				require.False(t, c.Forget("k"), "nothing there any more")
				_, ok := c.Lookup("k")
				require.False(t, ok)
				st := c.Stats()
				require.Zero(t, st.Entries+st.Held+int(st.Weight)+c.Len(), "place, hold and weight are given back: %+v", st)
				ttRuns(t, c, "k", 2, idemflight.WithFingerprint(ttFp(2)))
				time.Sleep(time.Minute + ttLate(time.Minute))
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
		{"final", idemflight.Final(errTT), errTT, false},
		{"retryable", idemflight.Retryable(errTT), errTT, false},
		{"unknown is held all the same", idemflight.Unknown(errTT), idemflight.ErrOutcomeUnknown, true},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &ttLog[string]{}
				c := idemflight.MustNew(ttWeighted(ttOptions{MaxEntries: 1, Observer: log.observe}))
				end := ttFly(t, c, "k")
				var wg sync.WaitGroup
				join := func() {
					wg.Go(func() {
						r, err := c.DoResult(ttBg, "k", ttNever(t))
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
				_, err := c.Do(ttBg, "k", ttNever(t), idemflight.WithFingerprint(ttFp(1)))
				require.ErrorIs(t, err, idemflight.ErrKeyReused)
				_, err = c.Do(ttBg, "other", ttNever(t))
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
					ttRuns(t, c, "k", 9)
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
		{name: "final neither", finds: idemflight.Final(errTT), want: errTT},
		{name: "finding nothing holds again", finds: errTT, held: true, want: idemflight.ErrOutcomeUnknown},
		{name: "no effect: fn runs and is not retained", finds: idemflight.Retryable(errTT), runs: true},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gate := make(chan struct{})
				c := idemflight.MustNew(ttOptions{Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
					<-gate
					return 3, tc.finds
				}})
				ttHold(t, c, "k")
				done := make(chan error, 1)
				ran := false
				go func() {
					_, err := c.Do(ttBg, "k", func(context.Context) (int, error) { ran = true; return 4, nil })
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
		"released":   {ttFail(idemflight.Retryable(errTT)), nil, errTT},
		"WithTTL(0)": {ttValue(1), []idemflight.CallOption{idemflight.WithTTL(0)}, nil},
		"forgotten":  {nil, nil, nil},
	}
	for name, w := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c *ttCache
				var nested atomic.Bool
				c = idemflight.MustNew(ttOptions{Observer: func(_ context.Context, e idemflight.Event[string]) {
					if e.Kind == idemflight.EventExecuted && nested.CompareAndSwap(false, true) {
						ttRuns(t, c, "k", 2)
					}
				}})
				fn := w.fn
				if fn == nil {
					fn = func(context.Context) (int, error) { c.Forget("k"); return 1, nil }
				}
				_, err := c.Do(ttBg, "k", fn, w.opts...)
				require.ErrorIs(t, err, w.want)
				require.True(t, nested.Load())
				synctest.Wait()
				require.Equal(t, 2, ttReplay(t, c, "k"), "the end of the first flight must not touch the second's outcome")
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
		log := &ttLog[string]{}
		c := idemflight.MustNew(ttOptions{TTL: time.Hour, Observer: log.observe})
		type ctxKey struct{}
		ctx := context.WithValue(ttBg, ctxKey{}, "mine")
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
		require.Equal(t, map[string]uint64{"Executed": 2, "Replayed": 2, "KeyReused": 1, "InvalidKey": 1}, ttCalls(c.Stats()))
		require.Len(t, log.of(ttCallKinds...), 6)
		time.Sleep(time.Minute)
		_, err = charge(ctx, request{"a", "other"})
		require.NoError(t, err)
		require.Equal(t, 3, runs)
	})
}

func TestWrap_AnErrorFromKeyIsNoCall(t *testing.T) {
	log := &ttLog[string]{}
	c := idemflight.MustNew(ttOptions{Observer: log.observe})
	f := idemflight.Wrap(c, func(int) (string, idemflight.Fingerprint, error) { return "k", ttFp(1), errTT },
		func(context.Context, int) (int, error) { t.Error("fn ran"); return 1, nil })
	v, err := f(ttBg, 1)
	require.True(t, err == errTT, "the error from key as it is, got %v", err)
	require.Zero(t, v)
	require.Equal(t, idemflight.Stats{}, c.Stats(), "it is no call")
	require.Empty(t, log.all)
}

func TestWrap_AZeroFingerprintLeavesTheOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(ttOptions{})
		f := idemflight.Wrap(c, func(f idemflight.Fingerprint) (string, idemflight.Fingerprint, error) {
			return fmt.Sprintf("%x", f), f, nil
		}, func(context.Context, idemflight.Fingerprint) (int, error) { return 1, nil }, idemflight.WithFingerprint(ttFp(1)))
		for _, from := range []idemflight.Fingerprint{{}, ttFp(2)} {
			_, err := f(ttBg, from)
			require.NoError(t, err)
			want := from
			if from == (idemflight.Fingerprint{}) {
				want = ttFp(1)
			}
			e, ok := c.Lookup(fmt.Sprintf("%x", from))
			require.True(t, ok)
			require.Equal(t, want, e.Fingerprint, "key gave %x, the option %x", from, ttFp(1))
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
				v, err := fs[(g+i)%2](ttBg, i)
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

func ttReplayAllocs[K comparable](t *testing.T, name string, key K) {
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
			ctx, cancel := context.WithCancel(ttBg)
			defer cancel()
			fp := ttFp(1)
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
			check("Do", func() (int, error) { return c.Do(ttBg, key, fn) })
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
			check("Wrap", func() (int, error) { return bare(ttBg, req) })
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
	ttReplayAllocs(t, "string", "a key")
	ttReplayAllocs(t, "int", 7)
	ttReplayAllocs(t, "Key", idemflight.Key{Scope: "customer", ID: "0e8fdc1a"})
	ttReplayAllocs(t, "struct", pair{"a", 1})
	ttReplayAllocs(t, "pointer", new(int))
	ttReplayAllocs(t, "float", 1.5)
	ttReplayAllocs(t, "interface of a string", any("a key"))
	ttReplayAllocs(t, "interface of a struct", any(pair{"a", 1}))
}

func TestPromise27_AReplayedErrorAllocatesNothing(t *testing.T) {
	c := idemflight.MustNew(ttOptions{})
	fn := func(context.Context) (int, error) { return 1, idemflight.Final(errTT) }
	var err error
	require.Zero(t, testing.AllocsPerRun(200, func() { _, err = c.Do(ttBg, "k", fn) }), "allocations of the replay of an error")
	require.True(t, err == errTT, "the error as fn gave it, got %v", err)
}

// A replay moves its key in the order of use: among many, that must not allocate either.
func TestPromise27_AReplayAmongManyAllocatesNothing(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[int, int]{MaxEntries: 10_000, Protect: -1})
	fn := func(context.Context) (int, error) { return 7, nil }
	for i := range 3000 {
		_, _ = c.Do(ttBg, i, fn)
	}
	i := 0
	require.Zero(t, testing.AllocsPerRun(400, func() {
		_, _ = c.Do(ttBg, 2500+i%400, fn)
		i++
	}))
	require.EqualValues(t, 3000, c.Stats().Executed, "these were replays")
}

func TestPromise27_ACapturingClosureCostsItsCallerOne(t *testing.T) {
	c := idemflight.MustNew(ttOptions{})
	n := 0
	got := testing.AllocsPerRun(200, func() {
		n++
		m := n
		_, _ = c.Do(ttBg, "k", func(context.Context) (int, error) { return m, nil }, idemflight.WithFingerprint(ttFp(1)), idemflight.WithTTL(time.Hour))
	})
	require.LessOrEqual(t, got, 1.0, "allocations of a replay with a closure that captures")
}
