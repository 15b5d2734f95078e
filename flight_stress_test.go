package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// scale is n, or as much of it as there is time for.
func scale(n int) int {
	if testing.Short() {
		n /= 5
	}
	if raceEnabled {
		n /= 10
	}
	return n
}

// Promise 2: While an outcome is kept, fn does not run for its key, and a fresh key runs fn exactly
// once, however many callers race for it.
func TestPromise02_AFreshKeyRunsFnExactlyOnceUnderRacingCallers(t *testing.T) {
	const callers = 200
	keys := scale(10_000)
	for _, l := range leaders {
		if l.name != "background" && l.name != "cancel" {
			continue // the two of them are all the ways there are for fn to run
		}
		t.Run(l.name, func(t *testing.T) {
			c := idemflight.MustNew(options{})
			runs := make([]atomic.Int32, keys)
			var calls sync.WaitGroup
			start := make(chan struct{})
			for range callers {
				calls.Go(func() {
					ctx, cancel := l.ctx()
					defer cancel()
					<-start
					// All go through the keys in the same order, so that they meet at each of them.
					for i := range keys {
						v, err := c.Do(ctx, strconv.Itoa(i), func(context.Context) (int, error) {
							runs[i].Add(1)
							return i, nil
						}, l.opts...)
						if v != i || err != nil {
							t.Errorf("key %d: got (%d, %v), want (%d, nil)", i, v, err, i)
							return
						}
					}
				})
			}
			close(start)
			calls.Wait()
			for i := range keys {
				require.EqualValues(t, 1, runs[i].Load(), "runs of fn for key %d", i)
			}
			s := c.Stats()
			require.EqualValues(t, keys, s.Executed, "Stats.Executed")
			require.EqualValues(t, callers*keys, s.Executed+s.Joined+s.Replayed, "every call got the outcome")
		})
	}
}

// Unlike those of the test above, the callers of a key do not wait: they ask again and again, so that
// one of them is likely to get in at the moment at which the flight ends and its outcome is kept.
func TestPromise02_NoWindowBetweenInFlightAndKept(t *testing.T) {
	const callers = 3
	c := idemflight.MustNew(options{})
	keys := scale(20_000)
	var arrived, runs atomic.Int64
	var calls sync.WaitGroup
	for range callers {
		calls.Go(func() {
			for i := range keys {
				key := strconv.Itoa(i)
				fn := func(context.Context) (int, error) {
					runs.Add(1)
					for range 10 { // let the others come
						lookup(c, theKey)
					}
					return i, nil
				}
				for arrived.Add(1); arrived.Load() < int64(callers*(i+1)); {
					runtime.Gosched()
				}
				for err := idemflight.ErrInFlight; err != nil; {
					var v int
					v, err = c.Do(context.Background(), key, fn, idemflight.WithMaxWait(idemflight.NoWait))
					if err != nil && !errors.Is(err, idemflight.ErrInFlight) || err == nil && v != i {
						t.Errorf("key %d: got (%d, %v)", i, v, err)
						err = nil
					}
				}
			}
		})
	}
	calls.Wait()
	require.EqualValues(t, keys, runs.Load(), "runs of fn for %d keys", keys)
}

// Everything that can happen to three keys happens to them, at random and at once; whatever it is,
// no two executions of one key may run beside each other.
func TestPromise01_AtMostOneExecutionPerKeyUnderStress(t *testing.T) {
	const goroutines, keys = 8, 3
	var running [keys]atomic.Int32
	var runs atomic.Int64
	execution := func(key string) (int, error) {
		k := int(key[0] - 'a')
		if n := running[k].Add(1); n != 1 {
			t.Errorf("%d executions of key %q run at the same moment", n, key)
		}
		defer running[k].Add(-1)
		runs.Add(1)
		for range rand.IntN(20) {
			runtime.Gosched()
		}
		switch rand.IntN(9) {
		case 0:
			return 0, errBoom
		case 1:
			return 0, idemflight.Final(errBoom)
		case 2:
			return 0, idemflight.Retryable(errBoom)
		case 3, 4:
			return 0, idemflight.Unknown(errBoom)
		case 5:
			panic(errBoom)
		case 6:
			runtime.Goexit()
		}
		return k, nil
	}
	opts := options{
		TTL: 50 * time.Microsecond, HoldTTL: 200 * time.Microsecond, ExecTimeout: 10 * time.Microsecond,
		MaxEntries: 8, MinRetention: -1, MaxWaiters: 4, MaxWeight: 4, Weigh: func(_ string, v int) int64 { return int64(v) },
		Reconcile: func(_ context.Context, key string, _ idemflight.Entry[int]) (int, error) { return execution(key) },
	}
	for range 4 { // Close ends each
		c := idemflight.MustNew(opts)
		act := func() {
			// A panic of fn ends here, and its Goexit with this goroutine.
			defer func() { _ = recover() }()
			key := string(rune('a' + rand.IntN(keys)))
			fn := func(ctx context.Context) (int, error) {
				if rand.IntN(4) == 0 {
					ctx.Done()
					_ = idemflight.BeginEffect(ctx)
				}
				return execution(key)
			}
			switch rand.IntN(16) {
			case 0:
				forget(c, key)
			case 1:
				resolve(c, key, 1, []error{nil, idemflight.Retryable(errBoom), idemflight.Final(errBoom), errBoom}[rand.IntN(4)])
			case 2:
				now := time.Now()
				_ = c.Restore(bg, key, idemflight.Entry[int]{
					State: []idemflight.State{idemflight.Retained, idemflight.Held, idemflight.Shed, idemflight.InFlight}[rand.IntN(4)],
					Err:   nil, StartedAt: now, CompletedAt: now, ExpiresAt: now.Add(time.Millisecond),
				})
			case 3:
				_, _ = c.Do(context.Background(), strconv.Itoa(rand.IntN(1000)), returns(0, nil))
			case 4, 5, 6:
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(50))*time.Microsecond)
				defer cancel()
				_, _ = c.Do(ctx, key, fn)
			case 7:
				_, _ = c.Do(dead(errEnough), key, fn)
			case 8:
				_, _ = c.Do(context.Background(), key, fn)
			case 9:
				_, _ = c.Do(t.Context(), key, fn, idemflight.Inline(), idemflight.WithTTL(0))
			case 10:
				_, _ = c.Do(t.Context(), key, fn, idemflight.WithMaxWait(time.Duration(rand.IntN(20))*time.Microsecond))
			case 11:
				c.Stats()
				lookup(c, key)
				for range c.All() {
					runtime.Gosched()
				}
			default:
				_, _ = c.Do(t.Context(), key, fn)
			}
		}
		var acting sync.WaitGroup
		for range goroutines {
			acting.Go(func() {
				for range scale(20_000) / 4 {
					one := make(chan struct{})
					go func() {
						defer close(one)
						act()
					}()
					<-one
				}
			})
		}
		acting.Wait()
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			_ = c.Close(context.Background())
		}()
		soon(t, closed, "Close, which waits for what is still in flight")
		s := c.Stats()
		require.Zero(t, s.InFlight+s.Waiters, "nothing is in flight after Close")
		require.NoError(t, c.CheckInvariants(), "the books of the cache after all that")
	}
	require.NotZero(t, runs.Load())
}

// Promise 26: fn's return happens before every return that shares its outcome, in the sense of the
// Go memory model.
//
// The plain writes of fn and the plain reads of the callers are a data race, which the race
// detector reports, unless fn's return happens before theirs.
func TestPromise26_FnsReturnHappensBeforeEveryReturnThatSharesItsOutcome(t *testing.T) {
	type thing struct {
		n    int
		more map[string]int
	}
	for name, end := range map[string]func(i int) error{
		"value":   func(int) error { return nil },
		"final":   func(i int) error { return idemflight.Final(&plainError{strconv.Itoa(i)}) },
		"release": func(i int) error { return &plainError{strconv.Itoa(i)} },
		"hold":    func(i int) error { return idemflight.Unknown(&plainError{strconv.Itoa(i)}) },
		"panic":   func(i int) error { panic(&plainError{strconv.Itoa(i)}) },
	} {
		for _, l := range leaders {
			if l.name == "deadline" {
				continue // in real time, which may be long on a busy machine
			}
			t.Run(name+", "+l.name, func(t *testing.T) {
				c := idemflight.MustNew(idemflight.Options[int, *thing]{})
				for i := range scale(300) {
					var written int // by fn, which does not return it
					var calls sync.WaitGroup
					start := make(chan struct{})
					for caller := range 6 {
						ctx, cancel := l.ctx()
						opts := l.opts
						if caller >= 3 { // these do not join: they may get a replay first of all
							opts = append([]idemflight.CallOption{idemflight.WithMaxWait(idemflight.NoWait)}, opts...)
						}
						calls.Go(func() {
							defer cancel()
							<-start
							err := idemflight.ErrInFlight
							var v *thing
							var ran bool
							for errors.Is(err, idemflight.ErrInFlight) {
								v, err = catch(func() (*thing, error) {
									return c.Do(ctx, i+1, func(context.Context) (*thing, error) {
										ran = true
										if name == "release" && written != 0 {
											return nil, errBoom // a later execution: nobody else may be reading what it writes
										}
										one := new(thing)
										one.n = i
										one.more = map[string]int{"i": i}
										written = i + 1
										return one, end(i)
									}, opts...)
								})
							}
							if errors.Is(err, errBoom) {
								return
							}
							if written != i+1 {
								t.Errorf("a caller that got (%v, %v) must see what fn wrote, sees %d (ran it itself: %v)", v, err, written, ran)
							}
							if v != nil && (v.n != i || v.more["i"] != i) {
								t.Errorf("a caller must see the whole value, sees %v", *v)
							}
							var plain *plainError
							if name != "value" && (!errors.As(err, &plain) || plain.text != strconv.Itoa(i)) {
								t.Errorf("a caller must see the whole error, sees %v", err)
							}
						})
					}
					close(start)
					calls.Wait()
				}
			})
		}
	}
}

// catch gives a panic of call as an error.
func catch[V any](call func() (V, error)) (v V, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case error:
			err = p
		default:
			err = fmt.Errorf("%v", p)
		}
	}()
	return call()
}
