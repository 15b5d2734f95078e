package idemflight_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// TestBooksBalanceAfterAnything lets goroutines do everything to few keys at once, with TTLs so
// short that records expire under everybody's hands, and then audits the books: places, weight,
// order, edges, and one event and one count for each call.
func TestBooksBalanceAfterAnything(t *testing.T) {
	rounds := 400
	if raceEnabled || testing.Short() {
		rounds = 100
	}
	for name, opts := range map[string]idemflight.Options[int, int]{
		"plain":     {MaxEntries: 8, MinRetention: -1},
		"protected": {MaxEntries: 16, MinRetention: 50 * time.Microsecond},
		"roomy":     {MaxEntries: 80, MinRetention: -1},
	} {
		for _, reconcile := range []bool{false, true} {
			if reconcile {
				name += ", reconciled"
			}
			t.Run(name, func(t *testing.T) { balanceBooks(t, opts, reconcile, rounds) })
		}
	}
}

func balanceBooks(t *testing.T, opts idemflight.Options[int, int], reconcile bool, rounds int) {
	const keys, workers = 64, 6
	var events, calls, overlaps atomic.Int64
	var running [keys]atomic.Int32

	opts.TTL, opts.HoldTTL, opts.MaxWaiters = 300*time.Microsecond, 200*time.Microsecond, 2
	opts.MaxWeight = 20
	opts.Weigh = func(_, v int) int64 {
		if v%37 == 0 {
			panic("Weigh")
		}
		return int64(v % 23)
	}
	opts.Classify = func(error) idemflight.Disposition {
		d := idemflight.Disposition(rand.IntN(5))
		if d == 4 {
			panic("Classify")
		}
		return d
	}
	opts.Observer = func(_ context.Context, e idemflight.Event[int]) {
		if e.Kind <= idemflight.EventCallerLeft {
			events.Add(1)
		}
	}
	run := func(ctx context.Context, k int) (int, error) {
		if running[k].Add(1) != 1 {
			overlaps.Add(1)
		}
		defer running[k].Add(-1)
		for range rand.IntN(40) {
			runtime.Gosched()
		}
		v := rand.IntN(100)
		switch rand.IntN(12) {
		case 0:
			return v, idemflight.Final(errors.New("final"))
		case 1:
			return v, idemflight.Retryable(errors.New("retryable"))
		case 2, 3:
			return v, idemflight.Unknown(errors.New("unknown"))
		case 4:
			return v, errors.New("unmarked")
		case 5:
			_ = idemflight.BeginEffect(ctx)
			return v, errors.New("after the effect")
		case 6:
			idemflight.NoEffect(ctx)
			return v, errors.New("before the effect")
		case 7:
			panic("fn")
		case 8:
			if rand.IntN(4) == 0 {
				runtime.Goexit()
			}
		}
		return v, nil
	}
	if reconcile {
		opts.Reconcile = func(ctx context.Context, k int, _ idemflight.Entry[int]) (int, error) { return run(ctx, k) }
	}
	c := idemflight.MustNew(opts)

	anything := func() {
		k := rand.IntN(keys)
		switch rand.IntN(20) {
		case 0:
			forget(c, k)
			return
		case 1, 2:
			resolve(c, k, rand.IntN(100), []error{
				nil, idemflight.Final(errors.New("final")), idemflight.Retryable(errors.New("retryable")), errors.New("unmarked"),
			}[rand.IntN(4)])
			return
		case 3, 4:
			now := time.Now()
			_ = c.Restore(bg, k, idemflight.Entry[int]{
				State: idemflight.State(1 + rand.IntN(4)), Value: rand.IntN(100),
				CompletedAt: now.Add(-time.Duration(rand.IntN(300_000))), ExpiresAt: now.Add(time.Duration(rand.IntN(300_000))),
			})
			return
		case 5:
			if s := c.Stats(); s.InFlight+s.Entries > opts.MaxEntries || s.Weight > opts.MaxWeight {
				t.Errorf("beyond MaxEntries %d or MaxWeight %d at one moment: %+v", opts.MaxEntries, opts.MaxWeight, s)
			}
			return
		}
		ctx, cancel := context.Background(), func() {}
		switch rand.IntN(4) {
		case 0:
			ctx, cancel = context.WithTimeout(ctx, time.Duration(rand.IntN(20_000)))
		case 1:
			ctx, cancel = context.WithCancel(ctx)
		}
		defer cancel()
		var options []idemflight.CallOption
		switch rand.IntN(6) {
		case 0:
			options = append(options, idemflight.Inline())
		case 1:
			options = append(options, idemflight.WithTTL(time.Duration(rand.IntN(3)*100_000)))
		case 2:
			options = append(options, idemflight.WithMaxWait(time.Duration(rand.IntN(10_000))))
		}
		calls.Add(1)
		defer func() { _ = recover() }() // the leader of a panicking fn panics
		_, _ = c.DoResult(ctx, k, func(ctx context.Context) (int, error) { return run(ctx, k) }, options...)
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range rounds {
				var batch sync.WaitGroup
				batch.Go(func() { // a goroutine of its own, for fn's Goexit ends it
					for range 50 {
						anything()
					}
				})
				batch.Wait()
			}
		})
	}
	wg.Wait()
	require.NoError(t, c.Close(context.Background()), "no flight is left behind")

	require.NoError(t, c.CheckInvariants())
	s := c.Stats()
	require.Zero(t, overlaps.Load(), "two executions of one key ran at once")
	require.Zero(t, s.InFlight+s.Waiters, "nobody is left waiting")
	require.EqualValues(t, calls.Load(), events.Load(), "each call causes one call event")
	require.EqualValues(t, calls.Load(), sumOfCalls(s), "each call counts once: %+v", s)
}
