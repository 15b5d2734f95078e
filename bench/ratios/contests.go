package main

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
	xsync "golang.org/x/sync/singleflight"
	"resenje.org/singleflight"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/bench/internal/keys"
	"github.com/idemflight/idemflight/bench/rivals"
)

const (
	spread  = 1 << 16 // keys of a spread replay, and of the stores that are filled
	callers = 10_000  // of a storm

	ttl    = 24 * time.Hour
	aRound = 60 * time.Millisecond // how long one measurement is to take
)

var (
	background = context.Background()

	someKeys = sync.OnceValue(func() []string { return keys.New(spread) })

	numericKeys = sync.OnceValue(func() []uint64 {
		list := make([]uint64, spread)
		for i, n := range keys.Shuffled(spread) {
			list[i] = uint64(n) << 20
		}
		return list
	})

	// walk is the order in which the spread keys are called: random, and not that of insertion.
	walk = sync.OnceValue(func() []int32 { return keys.Shuffled(spread) })
)

func fn(context.Context) (int, error) { return 1, nil }

// loader is fn for otter, boxed once, as one would keep it.
var loader otter.Loader[string, int] = otter.LoaderFunc[string, int](
	func(context.Context, string) (int, error) { return 1, nil })

// newOurs returns a cache as plain LRU: otter protects nothing.
func newOurs(capacity int) *idemflight.Cache[string, int] { return newOursOf[string](capacity) }

func newOursOf[K comparable](capacity int) *idemflight.Cache[K, int] {
	return idemflight.MustNew(idemflight.Options[K, int]{MaxEntries: capacity, TTL: ttl, MinRetention: -1})
}

// newOtter returns otter with what ours has too: a bound, and a TTL from completion.
func newOtter(capacity int) *otter.Cache[string, int] {
	return otter.Must(&otter.Options[string, int]{
		MaximumSize: capacity, ExpiryCalculator: otter.ExpiryWriting[string, int](ttl),
	})
}

func closeOurs(c *idemflight.Cache[string, int]) { _ = c.Close(background) }

// perCall returns a function that runs pass as often as a round takes and returns the ns per call.
// pass makes so many calls; those of several goroutines count as if one had made them all. The
// first round begins with finding out how often that is, which warms up as well.
func perCall(calls int, pass func()) func() float64 {
	passes := 0
	return func() float64 {
		if passes == 0 {
			passes = inARound(pass)
		}
		runtime.GC()
		start := time.Now()
		for range passes {
			pass()
		}
		return float64(time.Since(start)) / float64(passes*calls)
	}
}

// inARound finds out how often pass must run to take a round.
func inARound(pass func()) int {
	pass() // warm
	for passes := 1; ; passes *= 2 {
		start := time.Now()
		for range passes {
			pass()
		}
		if took := time.Since(start); took >= aRound/4 {
			return max(1, int(float64(passes)*float64(aRound)/float64(took)))
		}
	}
}

// divide has so many goroutines run body on a part each of the numbers below n.
func divide(n, goroutines int, body func(from, to int)) {
	if goroutines == 1 {
		body(0, n)
		return
	}
	var all sync.WaitGroup
	for i := range goroutines {
		all.Go(func() { body(i*n/goroutines, (i+1)*n/goroutines) })
	}
	all.Wait()
}

// replay times calls on n keys that are kept, by so many goroutines.
func replay(n, goroutines int) contest {
	list, order := someKeys()[:n], walk()
	ours, theirs := newOurs(2*spread), newOtter(2*spread)
	for _, key := range list {
		_, _ = ours.Do(background, key, fn)
		_, _ = theirs.Get(background, key, loader)
	}
	theirs.CleanUp()
	mask := n - 1                           // n is a power of two
	each := 8 * spread / max(8, goroutines) // calls of a goroutine: all keys, unless there are many
	timed := func(do func(key string)) func() float64 {
		return perCall(goroutines*each, func() {
			divide(spread, goroutines, func(start, _ int) { // each starts to walk elsewhere
				for i := range each {
					do(list[int(order[(start+i)&(spread-1)])&mask])
				}
			})
		})
	}
	return contest{
		ours:   timed(func(key string) { _, _ = ours.Do(background, key, fn) }),
		theirs: timed(func(key string) { _, _ = theirs.Get(background, key, loader) }),
		done:   func() { closeOurs(ours); theirs.StopAllGoroutines() },
	}
}

// allocations returns how many a call of pass makes, which makes calls calls.
func allocations(calls int, pass func()) float64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	pass()
	runtime.ReadMemStats(&after)
	return float64(int(float64(after.Mallocs-before.Mallocs)/float64(calls)*100)) / 100
}

// A replayer replays key, allocating if it must.
type replayer func(c *idemflight.Cache[string, int]) func(key string)

var payloadPrint = idemflight.FingerprintOf([]byte("payload"))

func byDo(c *idemflight.Cache[string, int]) func(key string) {
	return func(key string) {
		_, _ = c.Do(background, key, fn,
			idemflight.WithFingerprint(payloadPrint), idemflight.WithMaxWait(time.Minute))
	}
}

func byWrap(c *idemflight.Cache[string, int]) func(key string) {
	f := idemflight.Wrap(c,
		func(key string) (string, idemflight.Fingerprint, error) { return key, payloadPrint, nil },
		func(context.Context, string) (int, error) { return 1, nil })
	return func(key string) { _, _ = f(background, key) }
}

func replayAllocs(by replayer) contest {
	c := newOurs(spread)
	do := by(c)
	list := someKeys()[:1024]
	pass := func() {
		for range 64 {
			for _, key := range list {
				do(key)
			}
		}
	}
	pass()
	return contest{
		ours: func() float64 { return allocations(64*len(list), pass) },
		done: func() { closeOurs(c) },
	}
}

// opener opens a store that is empty.
type opener func() (do func(key string), shut func())

// first times first executions, by so many goroutines, in a store that was empty and ends with all
// of list. Opening and closing the store is not timed.
func first(list []string, goroutines int, open opener) func() float64 {
	return func() float64 {
		var took time.Duration
		calls := 0
		for took < aRound {
			do, shut := open()
			runtime.GC()
			start := time.Now()
			divide(len(list), goroutines, func(from, to int) {
				for _, key := range list[from:to] {
					do(key)
				}
			})
			took += time.Since(start)
			calls += len(list)
			shut()
		}
		return float64(took) / float64(calls)
	}
}

func openOurs(ctx context.Context) opener {
	return func() (func(string), func()) {
		c := newOurs(2 * spread)
		return func(key string) { _, _ = c.Do(ctx, key, fn) }, func() { closeOurs(c) }
	}
}

func firstByOtter(goroutines int) contest {
	return contest{
		ours: first(someKeys(), goroutines, openOurs(background)),
		theirs: first(someKeys(), goroutines, func() (func(string), func()) {
			c := newOtter(2 * spread)
			return func(key string) { _, _ = c.Get(background, key, loader) },
				func() { c.StopAllGoroutines() }
		}),
	}
}

// firstAllocs counts the allocations of first executions of the keys.
func firstAllocs[K comparable](ctx context.Context, list []K) contest {
	return contest{ours: func() float64 {
		c := newOursOf[K](2 * spread)
		defer func() { _ = c.Close(background) }()
		// Rounded down, as testing does: the fraction is the growth of the tables.
		return math.Floor(allocations(len(list), func() {
			for _, key := range list {
				_, _ = c.Do(ctx, key, fn)
			}
		}))
	}}
}

// firstByResenje compares with what keeps nothing, but hands the work to a goroutine as ours does,
// so that the caller can leave.
func firstByResenje(goroutines int) contest {
	ctx, cancel := context.WithCancel(background)
	return contest{
		ours: first(someKeys(), goroutines, openOurs(ctx)),
		theirs: first(someKeys(), goroutines, func() (func(string), func()) {
			var g singleflight.Group[string, int]
			return func(key string) { _, _, _ = g.Do(ctx, key, fn) }, func() {}
		}),
		done: cancel,
	}
}

// racing counts the runs of fn for fresh keys that so many goroutines call at once, at least 16.
func racing(goroutines int) contest {
	const fresh = 2000
	ours := rivals.All[int]()[0]
	keys, twice := 0, 0
	return contest{
		ours: func() float64 {
			perKey, n := rivals.Race(ours, someKeys()[:fresh], max(rivals.Racers, goroutines))
			keys, twice = keys+fresh, twice+n
			return perKey
		},
		aside: func() string { return fmt.Sprintf("%d of %d keys ran more than once", twice, keys) },
	}
}

// stormDo is a call of one caller of a storm, on a fresh key.
type stormDo func(ctx context.Context, key string, fn func(context.Context) (int, error)) (int, error)

func stormResenje() stormDo {
	var g singleflight.Group[string, int]
	return func(ctx context.Context, key string, fn func(context.Context) (int, error)) (int, error) {
		v, _, err := g.Do(ctx, key, fn)
		return v, err
	}
}

func stormSingleflight() stormDo {
	var g xsync.Group
	return func(ctx context.Context, key string, fn func(context.Context) (int, error)) (int, error) {
		v, err, _ := g.Do(key, func() (any, error) { return fn(ctx) })
		return v.(int), err
	}
}

// storm sends 10,000 callers at once to one fresh key, each with a context of its own that can end.
// The execution ends when all have come, so nearly all join it; their goroutines are part of the time.
func storm(peer func() stormDo) contest {
	ctxs := make([]context.Context, callers)
	var cancels []context.CancelFunc
	for i := range ctxs {
		ctx, cancel := context.WithCancel(background)
		ctx.Done() // has been asked for before, by a server
		ctxs[i], cancels = ctx, append(cancels, cancel)
	}
	list := someKeys()
	timed := func(do stormDo) func() float64 {
		next := 0
		return perCall(callers, func() {
			key := list[next&(spread-1)]
			next++
			var coming, calling sync.WaitGroup
			coming.Add(callers)
			work := func(context.Context) (int, error) {
				coming.Wait()
				return 1, nil
			}
			for _, ctx := range ctxs {
				calling.Go(func() {
					coming.Done()
					_, _ = do(ctx, key, work)
				})
			}
			calling.Wait()
		})
	}
	c := newOurs(2 * spread)
	return contest{
		ours: timed(func(ctx context.Context, key string, fn func(context.Context) (int, error)) (int, error) {
			return c.Do(ctx, key, fn)
		}),
		theirs: timed(peer()),
		done: func() {
			closeOurs(c)
			for _, cancel := range cancels {
				cancel()
			}
		},
	}
}

// manyKeys are enough that the insertions of a round are all of keys that are not kept.
var manyKeys = sync.OnceValue(func() []string { return keys.New(16 * spread) })

// inserting fills a store and returns how to time insertions of fresh keys into it, by so many
// goroutines. do inserts the nth of manyKeys.
func inserting(goroutines int, do func(n int)) func() float64 {
	const calls = spread / 4
	next := 0
	pass := func() {
		divide(calls, goroutines, func(from, to int) {
			for n := from; n < to; n++ {
				do(next + n)
			}
		})
		next = (next + calls) % len(manyKeys())
	}
	for range 8 { // twice the capacity
		pass()
	}
	return perCall(calls, pass)
}

func insertByOtter(goroutines int) contest {
	ours, theirs, list := newOurs(spread), newOtter(spread), manyKeys()
	return contest{
		ours:   inserting(goroutines, func(n int) { _, _ = ours.Do(background, list[n], fn) }),
		theirs: inserting(goroutines, func(n int) { _, _ = theirs.Get(background, list[n], loader) }),
		done:   func() { closeOurs(ours); theirs.StopAllGoroutines() },
	}
}

// insertByExpiry compares insertion at capacity with itself, where TTLs between 1 ms and 1 s make
// entries expire all the time, in an order that is not that of insertion.
func insertByExpiry(goroutines int) contest {
	ttls := make([]time.Duration, 1024)
	for i, n := range keys.Shuffled(len(ttls)) {
		ttls[i] = time.Millisecond * time.Duration(1+n*999/int32(len(ttls)))
	}
	plain, mixed, list := newOurs(spread), newOurs(spread), manyKeys()
	return contest{
		ours: inserting(goroutines, func(n int) {
			_, _ = mixed.Do(background, list[n], fn, idemflight.WithTTL(ttls[n&(len(ttls)-1)]))
		}),
		theirs: inserting(goroutines, func(n int) { _, _ = plain.Do(background, list[n], fn) }),
		done:   func() { closeOurs(plain); closeOurs(mixed) },
	}
}
