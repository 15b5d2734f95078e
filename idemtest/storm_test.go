package idemtest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemtest"
)

// TestStorm: each call has a number and a context of its own, and none waits for another.
func TestStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 50
		var there atomic.Int32
		contexts := make([]context.Context, n)
		start := time.Now()
		rs := idemtest.Storm(t, n, func(ctx context.Context, i int) (int, error) {
			there.Add(1)
			contexts[i] = ctx
			require.NoError(t, ctx.Err())
			time.Sleep(time.Second)
			require.EqualValues(t, n, there.Load(), "who have called meanwhile")
			if i == 7 {
				return 0, errors.New("seven")
			}
			return i, nil
		})
		require.Equal(t, time.Second, time.Since(start), "all at once")
		require.Len(t, rs, n)
		for i, r := range rs {
			require.ErrorIs(t, contexts[i].Err(), context.Canceled, "after its call")
			require.NotSame(t, contexts[i], contexts[(i+1)%n])
			if i == 7 {
				require.EqualError(t, r.Err, "seven")
				continue
			}
			require.Equal(t, idemtest.Outcome[int]{Value: i}, r)
		}
	})
}

// TestStormContextIsTheTests: its values, and its end.
func TestStormContextIsTheTests(t *testing.T) {
	type name struct{}
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), name{}, "ann"))
	cancel()
	rs := idemtest.Storm(ofContext{t, ctx}, 1, func(ctx context.Context, _ int) (any, error) { return ctx.Value(name{}), ctx.Err() })
	require.Equal(t, "ann", rs[0].Value)
	require.ErrorIs(t, rs[0].Err, context.Canceled)
}

type ofContext struct {
	testing.TB
	ctx context.Context
}

func (t ofContext) Context() context.Context { return t.ctx }

// TestStormLetsAllGoAtOnce: before the first calls, all are there. (So many that the first would begin long before the
// last is made.)
func TestStormLetsAllGoAtOnce(t *testing.T) {
	const n = 5000
	before := runtime.NumGoroutine()
	var once sync.Once
	idemtest.Storm(t, n, func(context.Context, int) (int, error) {
		once.Do(func() { require.Greater(t, runtime.NumGoroutine(), before+n*9/10, "goroutines at the first call") })
		return 0, nil
	})
}

// TestStormSurvivesAnything: a panic and a Goexit are outcomes, and nobody waits for ever.
func TestStormSurvivesAnything(t *testing.T) {
	rs := idemtest.Storm(t, 4, func(_ context.Context, i int) (int, error) {
		switch i {
		case 0:
			panic("zero")
		case 1:
			runtime.Goexit()
		case 2:
			panic(nil)
		}
		return i, nil
	})
	require.Equal(t, "zero", rs[0].Panic)
	require.NoError(t, rs[0].Err)
	require.ErrorIs(t, rs[1].Err, idemflight.ErrGoexit)
	require.Nil(t, rs[1].Panic)
	require.IsType(t, new(runtime.PanicNilError), rs[2].Panic)
	require.Equal(t, idemtest.Outcome[int]{Value: 3}, rs[3])
}

func TestStormOfNobody(t *testing.T) {
	call := func(context.Context, int) (int, error) { return 0, nil }
	require.EqualError(t, try(t, func(t testing.TB) { idemtest.Storm(t, 0, call) }).failed, "idemtest: a Storm of 0 callers")
	require.PanicsWithValue(t, "idemtest: a Storm of -1 callers", func() { idemtest.Storm(nil, -1, call) })
}

// TestRequireSame: what is the same, and what it says if it is not.
func TestRequireSame(t *testing.T) {
	type o = idemtest.Outcome[string]
	unknown := func(text string) error { return fmt.Errorf("%w: %s", idemflight.ErrOutcomeUnknown, text) }
	for _, tc := range []struct {
		rs   []o
		says string // "" = they are the same
	}{
		{nil, "idemtest: there are no outcomes to compare"},
		{[]o{{Value: "a"}}, ""},
		{[]o{{Value: "a"}, {Value: "a"}}, ""},
		{[]o{{Value: "a"}, {Value: "b"}, {Value: "a"}, {Value: "a", Err: errors.New("no")}},
			"idemtest: not all callers (4) were told the same:\n\t2x, first by caller 0: a\n\t1x, first by caller 1: b\n\t1x, first by caller 3: a, error \"no\""},
		{[]o{{Err: errors.New("no")}, {Err: fmt.Errorf("n%s", "o")}}, ""},
		{[]o{{Err: errors.New("no")}, {Err: errors.New("never")}},
			"idemtest: not all callers (2) were told the same:\n\t1x, first by caller 0: error \"no\"\n\t1x, first by caller 1: error \"never\""},
		{[]o{{Err: unknown("until")}, {Err: unknown("since, until")}}, ""},
		{[]o{{Err: unknown("until")}, {Err: idemflight.ErrInFlight}},
			"idemtest: not all callers (2) were told the same:\n\t1x, first by caller 0: error \"" + idemflight.ErrOutcomeUnknown.Error() + ": until\"\n\t1x, first by caller 1: error \"" + idemflight.ErrInFlight.Error() + "\""},
		{[]o{{Panic: "oh"}}, "idemtest: not all callers (1) were told the same:\n\t1x, first by caller 0: panic: oh"},
		{[]o{{}, {Panic: "oh"}}, "idemtest: not all callers (2) were told the same:\n\t1x, first by caller 0: \n\t1x, first by caller 1: panic: oh"},
		{[]o{{Value: "1"}, {Value: "2"}, {Value: "3"}, {Value: "4"}, {Value: "5"}, {Value: "6"}, {Value: "7"}},
			"idemtest: not all callers (7) were told the same:\n\t1x, first by caller 0: 1\n\t1x, first by caller 1: 2\n\t1x, first by caller 2: 3\n\t1x, first by caller 3: 4\n\t1x, first by caller 4: 5\n\t2x something else"},
	} {
		failed := try(t, func(t testing.TB) { idemtest.RequireSame(t, tc.rs) }).failed
		if tc.says == "" {
			require.NoError(t, failed)
		} else {
			require.EqualError(t, failed, tc.says)
		}
		require.Equal(t, failed == nil, idemtest.CheckSame(tc.rs) == nil)
	}
}

// TestStormOnACache: what the package is for. Without the cache the same storm is found out.
func TestStormOnACache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bank idemtest.Bank
		s := newShop(&bank, nil)
		bank.Script("ann/rent", idemtest.Slow(time.Second))
		rs := idemtest.Storm(t, 500, func(ctx context.Context, _ int) (idemtest.Receipt, error) {
			return s.pay(ctx, "ann", "rent", 900)
		})
		idemtest.RequireSame(t, rs)
		bank.RequireOnce(t, "ann/rent")
		require.EqualValues(t, 499, s.cache.Stats().Joined)

		var bare idemtest.Bank
		rs = idemtest.Storm(t, 500, func(ctx context.Context, _ int) (idemtest.Receipt, error) {
			return bare.Charge(ctx, "ann/rent", 900)
		})
		require.Error(t, idemtest.CheckSame(rs))
		require.ErrorContains(t, bare.CheckAtMostOnce(), "was charged 500 times")
	})
}
