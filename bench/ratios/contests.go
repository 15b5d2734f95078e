package main

import (
	"context"
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
	xsync "golang.org/x/sync/singleflight"
	"resenje.org/singleflight"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/bench/internal/keys"
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

	// walk is the order in which the spread keys are called: random, and not that of insertion.
	walk = sync.OnceValue(func() []int32 { return keys.Shuffled(spread) })
)

func fn(context.Context) (int, error) { return 1, nil }

// loader is fn for otter, boxed once, as one would keep it.
var loader otter.Loader[string, int] = otter.LoaderFunc[string, int](func(context.Context, string) (int, error) { return 1, nil })

// newOurs returns a cache as plain LRU: otter protects nothing.
func newOurs(capacity int) *idemflight.Cache[string, int] {
	return idemflight.MustNew(idemflight.Options[string, int]{MaxEntries: capacity, TTL: ttl, Protect: -1})
}

// newOtter returns otter with what ours has too: a bound, and a TTL from completion.
func newOtter(capacity int) *otter.Cache[string, int] {
	return otter.Must(&otter.Options[string, int]{
		MaximumSize: capacity, ExpiryCalculator: otter.ExpiryWriting[string, int](ttl),
	})
}

func closeOurs(c *idemflight.Cache[string, int]) { _ = c.Close(background) }

// perCall finds out how often pass must run to take a round, and returns a function that times so
// many and returns ns per call. pass makes calls calls.
func perCall(calls int, pass func()) func() float64 {
	pass() // warm
	passes := 1
	for {
		start := time.Now()
		for range passes {
			pass()
		}
		took := time.Since(start)
		if took >= aRound/4 {
			passes = max(1, int(float64(passes)*float64(aRound)/float64(took)))
			break
		}
		passes *= 2
	}
	return func() float64 {
		runtime.GC()
		start := time.Now()
		for range passes {
			pass()
		}
		return float64(time.Since(start)) / float64(passes*calls)
	}
}

// onEach runs body on n goroutines, each with a place of its own to start walking from.
func onEach(n int, body func(start int)) {
	if n == 1 {
		body(0)
		return
	}
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { body(i * spread / n) })
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
	mask := n - 1 // n is a power of two
	return contest{
		ours: perCall(spread, func() {
			onEach(goroutines, func(start int) {
				for i := range spread {
					_, _ = ours.Do(background, list[int(order[(start+i)&(spread-1)])&mask], fn)
				}
			})
		}),
		theirs: perCall(spread, func() {
			onEach(goroutines, func(start int) {
				for i := range spread {
					_, _ = theirs.Get(background, list[int(order[(start+i)&(spread-1)])&mask], loader)
				}
			})
		}),
		done: func() { closeOurs(ours); theirs.StopAllGoroutines() },
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

func replayAllocs(wrapped bool) func() contest {
	return func() contest {
		c := newOurs(spread)
		fp := idemflight.FingerprintOf([]byte("payload"))
		do := func(key string) {
			_, _ = c.Do(background, key, fn, idemflight.WithFingerprint(fp), idemflight.WithMaxWait(time.Minute))
		}
		if wrapped {
			f := idemflight.Wrap(c,
				func(key string) (string, idemflight.Fingerprint, error) { return key, fp, nil },
				func(context.Context, string) (int, error) { return 1, nil })
			do = func(key string) { _, _ = f(background, key) }
		}
		list := someKeys()[:1024]
		pass := func() {
			for range 64 {
				for _, key := range list {
					do(key)
				}
			}
		}
		pass()
		return contest{ours: func() float64 { return allocations(64*len(list), pass) }, done: func() { closeOurs(c) }}
	}
}

// first times first executions in a store that was empty and ends with 65,536 keys. Opening and
// closing the store is not timed.
func first(open func() (do func(key string), shut func())) func() float64 {
	list := someKeys()
	return func() float64 {
		var took time.Duration
		calls := 0
		for took < aRound {
			do, shut := open()
			runtime.GC()
			start := time.Now()
			for _, key := range list {
				do(key)
			}
			took += time.Since(start)
			calls += len(list)
			shut()
		}
		return float64(took) / float64(calls)
	}
}

func openOurs(ctx context.Context) func() (func(string), func()) {
	return func() (func(string), func()) {
		c := newOurs(2 * spread)
		return func(key string) { _, _ = c.Do(ctx, key, fn) }, func() { closeOurs(c) }
	}
}

func firstByOtter() contest {
	return contest{
		ours: first(openOurs(background)),
		theirs: first(func() (func(string), func()) {
			c := newOtter(2 * spread)
			return func(key string) { _, _ = c.Get(background, key, loader) }, func() { c.StopAllGoroutines() }
		}),
	}
}

func firstAllocs() contest {
	return contest{ours: func() float64 {
		do, shut := openOurs(background)()
		defer shut()
		// Rounded down, as testing does: the fraction is the growth of the tables.
		return math.Floor(allocations(spread, func() {
			for _, key := range someKeys() {
				do(key)
			}
		}))
	}}
}

// firstByResenje compares with what keeps nothing, but hands the work to a goroutine as ours does,
// so that the caller can leave.
func firstByResenje() contest {
	ctx, cancel := context.WithCancel(background)
	return contest{
		ours: first(openOurs(ctx)),
		theirs: first(func() (func(string), func()) {
			var g singleflight.Group[string, int]
			return func(key string) { _, _, _ = g.Do(ctx, key, fn) }, func() {}
		}),
		done: cancel,
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

// inserting fills a store and returns how to time insertions of fresh keys into it, one goroutine.
func inserting(do func(key string)) func() float64 {
	list, next := manyKeys(), 0
	pass := func() {
		for range spread / 4 {
			do(list[next])
			next = (next + 1) % len(list)
		}
	}
	for range 8 { // twice the capacity
		pass()
	}
	return perCall(spread/4, pass)
}

func insertByOtter() contest {
	ours, theirs := newOurs(spread), newOtter(spread)
	return contest{
		ours:   inserting(func(key string) { _, _ = ours.Do(background, key, fn) }),
		theirs: inserting(func(key string) { _, _ = theirs.Get(background, key, loader) }),
		done:   func() { closeOurs(ours); theirs.StopAllGoroutines() },
	}
}

// insertByExpiry compares insertion at capacity with itself, where TTLs between 1 ms and 1 s make
// entries expire all the time, in an order that is not that of insertion.
func insertByExpiry() contest {
	ttls := make([]time.Duration, 1024)
	for i, n := range keys.Shuffled(len(ttls)) {
		ttls[i] = time.Millisecond * time.Duration(1+n*999/int32(len(ttls)))
	}
	plain, mixed := newOurs(spread), newOurs(spread)
	next := 0
	return contest{
		ours: inserting(func(key string) {
			next++
			_, _ = mixed.Do(background, key, fn, idemflight.WithTTL(ttls[next&(len(ttls)-1)]))
		}),
		theirs: inserting(func(key string) { _, _ = plain.Do(background, key, fn) }),
		done:   func() { closeOurs(plain); closeOurs(mixed) },
	}
}
