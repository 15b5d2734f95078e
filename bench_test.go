package idemflight_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/golang-lru/v2/expirable"
	"golang.org/x/sync/singleflight"

	"github.com/idemflight/idemflight"
)

// BenchmarkDo is one table of workloads × implementations, with names that benchstat can turn:
//
//	go test -run '^$' -bench Do -count 10 . | tee new.txt
//	benchstat -col /impl new.txt
func BenchmarkDo(b *testing.B) {
	for _, w := range bmWorkloads {
		b.Run("work="+w.name, func(b *testing.B) {
			for _, impl := range bmImplementations {
				if w.keeps && !impl.keeps || w.leaves && !impl.leaves {
					continue // the workload means nothing to it
				}
				b.Run("impl="+impl.name, func(b *testing.B) { w.run(b, impl) })
			}
		})
	}
}

// BenchmarkReplayRatio reports how long a replay takes in proportion to one of singleflight in
// front of expirable: below 1 is faster. TestFloorReplayTime is the same as a test.
func BenchmarkReplayRatio(b *testing.B) {
	for _, r := range bmRaces() {
		b.Run(r.name(), func(b *testing.B) {
			r.line(b)
			for b.Loop() {
				r.round()
			}
			b.ReportMetric(r.ratio(), "x-expirable")
			b.ReportMetric(0, "ns/op") // of a round: of no interest
		})
	}
}

type (
	bmFn = func(context.Context) (int, error)

	// bmStore is what one implementation makes of a key and a function.
	bmStore struct {
		do    func(ctx context.Context, key string, fn bmFn) (int, error)
		close func()
	}

	bmImplementation struct {
		name string

		keeps  bool // remembers what it has done
		leaves bool // lets a caller go when its context ends

		// open returns an empty store. bound is how many keys it is to keep, if it can be told.
		open func(bound int) bmStore
	}

	bmWorkload struct {
		name string

		keeps, leaves bool // means something only to implementations that do

		run func(b *testing.B, impl bmImplementation)
	}
)

var bmImplementations = []bmImplementation{
	{"idemflight", true, true, bmOpenIdemflight},
	{"mutex-map", true, false, bmOpenMutexMap},
	{"singleflight", false, false, bmOpenSingleflight},
	{"singleflight-expirable", true, false, bmOpenExpirable},
}

// bmOpenIdemflight returns this library. MinRetention is off because none of the others has it.
func bmOpenIdemflight(bound int) bmStore {
	c := idemflight.MustNew(idemflight.Options[string, int]{MaxEntries: bound, MinRetention: -1})
	return bmStore{
		do: func(ctx context.Context, key string, fn bmFn) (int, error) { return c.Do(ctx, key, fn) },
		// Else its timer would keep every store of a run in memory.
		close: func() { _ = c.Close(context.Background()) },
	}
}

// bmOpenMutexMap returns the floor: what must be paid for once per key and nothing else. No TTL, no
// bound, and fn runs under the lock, so that all keys wait for each other.
func bmOpenMutexMap(int) bmStore {
	var mu sync.Mutex
	done := make(map[string]int)
	return bmStore{
		do: func(ctx context.Context, key string, fn bmFn) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			if v, ok := done[key]; ok {
				return v, nil
			}
			v, err := fn(ctx)
			if err == nil {
				done[key] = v
			}
			return v, err
		},
		close: func() {},
	}
}

// bmOpenSingleflight returns x/sync/singleflight alone.
func bmOpenSingleflight(int) bmStore {
	var group singleflight.Group
	return bmStore{
		do: func(ctx context.Context, key string, fn bmFn) (int, error) {
			v, err, _ := group.Do(key, func() (any, error) { return fn(ctx) })
			return v.(int), err
		},
		close: func() {},
	}
}

// bmOpenExpirable returns what many write by hand: singleflight in front of golang-lru's expirable.
// The second look at the LRU closes the window in which a caller finds the key in neither.
func bmOpenExpirable(bound int) bmStore {
	// A TTL of 0 is ten years in expirable and costs a replay what any TTL does. Any other starts a
	// goroutine that cannot be stopped, which would outlive the benchmark.
	kept := expirable.NewLRU[string, int](bound, nil, 0)
	var group singleflight.Group
	return bmStore{
		do: func(ctx context.Context, key string, fn bmFn) (int, error) {
			if v, ok := kept.Get(key); ok {
				return v, nil
			}
			v, err, _ := group.Do(key, func() (any, error) {
				if v, ok := kept.Get(key); ok {
					return v, nil
				}
				v, err := fn(ctx)
				if err == nil {
					kept.Add(key, v)
				}
				return v, err
			})
			return v.(int), err
		},
		close: func() {},
	}
}

const (
	bmManyKeys = 1 << 16 // with what is kept of them, more than the processor's nearer caches hold
	bmCallers  = 10_000  // of a storm

	bmInsertEvery = 16 // replays: one new payment, say, for so many duplicates and status queries
)

// bmKeys returns n keys in the form that clients send.
func bmKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = idemflight.NewID()
	}
	return keys
}

// bmSetKeys are those of a benchmark's first insertions, bmFreshKeys others; made once, because a
// benchmark is called again and again. If the fresh ones come a second time, then an LRU of as many
// has dropped them meanwhile.
var (
	bmSetKeys   = sync.OnceValue(func() []string { return bmKeys(bmManyKeys) })
	bmFreshKeys = sync.OnceValue(func() []string { return bmKeys(4 * bmManyKeys) })
)

// bmWalk is a way through keys that does not follow the order in which they came, as duplicates do
// not: xorshift. Each worker starts elsewhere, so that they do not walk in step.
type bmWalk uint64

func bmWalkOf(worker int64) bmWalk { return bmWalk(worker) * 0x9E3779B97F4A7C15 }

// next returns one of keys, whose number must be a power of two.
func (w *bmWalk) next(keys []string) string {
	*w ^= *w << 13
	*w ^= *w >> 7
	*w ^= *w << 17
	return keys[int(*w)&(len(keys)-1)]
}

// bmOpenWith returns a store that keeps keys, and closes it when the benchmark ends.
func bmOpenWith(b testing.TB, impl bmImplementation, bound int, keys []string) bmStore {
	s := impl.open(bound)
	b.Cleanup(s.close)
	for _, key := range keys {
		if _, err := s.do(context.Background(), key, one); err != nil {
			b.Fatalf("first execution of %s: %v", key, err)
		}
	}
	return s
}

var bmWorkloads = []bmWorkload{
	{"replay-hot", true, false, func(b *testing.B, impl bmImplementation) { bmReplay(b, impl, 1) }},
	{"replay-65536", true, false, func(b *testing.B, impl bmImplementation) { bmReplay(b, impl, bmManyKeys) }},
	{"replay-while-inserting", true, false, bmReplayWhileInserting},
	{"first", false, false, func(b *testing.B, impl bmImplementation) { bmFirst(context.Background(), b, impl) }},
	{"first-cancellable", false, true, func(b *testing.B, impl bmImplementation) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		bmFirst(ctx, b, impl)
	}},
	{"storm", false, false, bmStorm},
}

// bmReplay replays n keys on every processor.
func bmReplay(b *testing.B, impl bmImplementation, n int) {
	keys := bmSetKeys()[:n]
	s := bmOpenWith(b, impl, 2*bmManyKeys, keys)
	var workers atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) { bmReplayLoop(b, pb, s, keys, workers.Add(1), nil) })
}

// bmReplayLoop asks, if insert is not nil, for an insertion after every bmInsertEvery replays.
func bmReplayLoop(b *testing.B, pb *testing.PB, s bmStore, keys []string, worker int64, insert chan<- struct{}) {
	ctx, walk := context.Background(), bmWalkOf(worker)
	for n := 1; pb.Next(); n++ {
		if v, err := s.do(ctx, walk.next(keys), one); v != 1 || err != nil {
			b.Errorf("replay = %d, %v; want 1, nil", v, err)
			return
		}
		if insert != nil && n%bmInsertEvery == 0 {
			select {
			case insert <- struct{}{}:
			default: // the inserter is behind, and a replay does not wait for it
			}
		}
	}
}

// bmReplayWhileInserting replays 65,536 keys while one more goroutine inserts fresh ones: one for
// so many replays, or each implementation would bear a load of its own making. inserts/op tells
// whether it kept pace. Allocations are those of the insertions.
func bmReplayWhileInserting(b *testing.B, impl bmImplementation) {
	keys, fresh := bmSetKeys(), bmFreshKeys()
	s := bmOpenWith(b, impl, len(fresh), keys)
	insert := make(chan struct{}, 1024)
	inserted := 0
	var workers atomic.Int64
	var inserter sync.WaitGroup
	b.ResetTimer()
	inserter.Go(func() {
		for range insert {
			if v, err := s.do(context.Background(), fresh[inserted%len(fresh)], one); v != 1 || err != nil {
				b.Errorf("insertion = %d, %v; want 1, nil", v, err)
			}
			inserted++
		}
	})
	b.RunParallel(func(pb *testing.PB) { bmReplayLoop(b, pb, s, keys, workers.Add(1), insert) })
	close(insert)
	inserter.Wait()
	b.ReportMetric(float64(inserted)/float64(b.N), "inserts/op")
}

// bmFirst executes fresh keys, one after the other, in a store that holds 65,536 at most.
func bmFirst(ctx context.Context, b *testing.B, impl bmImplementation) {
	keys := bmSetKeys()
	s := impl.open(2 * bmManyKeys)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i == len(keys) { // all used: go on with an empty store
			b.StopTimer()
			s.close()
			s, i = impl.open(2*bmManyKeys), 0
			b.StartTimer()
		}
		if v, err := s.do(ctx, keys[i], one); v != 1 || err != nil {
			b.Fatalf("first execution = %d, %v; want 1, nil", v, err)
		}
		i++
	}
	s.close()
}

// bmStorm sends 10,000 callers at once to one fresh key, each with a context of its own that can
// end, as requests have. The execution ends when all have come, so nearly all join it; their
// goroutines are part of the time.
func bmStorm(b *testing.B, impl bmImplementation) {
	s := impl.open(2 * bmManyKeys)
	defer s.close()
	ctxs := make([]context.Context, bmCallers)
	for i := range ctxs {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		ctx.Done() // has been asked for before, by a server
		ctxs[i] = ctx
	}
	storm := func(key string) {
		var coming, calling sync.WaitGroup
		coming.Add(bmCallers)
		fn := func(context.Context) (int, error) {
			coming.Wait()
			return 1, nil
		}
		for _, ctx := range ctxs {
			calling.Go(func() {
				coming.Done()
				if v, err := s.do(ctx, key, fn); v != 1 || err != nil {
					b.Errorf("call = %d, %v; want 1, nil", v, err)
				}
			})
		}
		calling.Wait()
	}
	storm("first") // makes the goroutines that the runtime uses again, and is charged to nobody
	b.ReportAllocs()
	storms := 0
	for b.Loop() {
		storms++
		storm(strconv.Itoa(storms))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(storms*bmCallers), "ns/caller")
}

// bmRace lets replays of this library and of singleflight in front of expirable take turns, so that
// whatever else the machine does meets both.
type bmRace struct {
	keys, callers int

	ours, theirs   bmStore
	took, theyTook []time.Duration // of the rounds
}

// bmRaces returns the races that are run: few keys and many, a caller alone and one per processor.
func bmRaces() []*bmRace {
	var races []*bmRace
	for _, keys := range []int{1, bmManyKeys} {
		for _, callers := range slices.Compact([]int{1, runtime.GOMAXPROCS(0)}) {
			races = append(races, &bmRace{keys: keys, callers: callers})
		}
	}
	return races
}

func (r *bmRace) name() string { return fmt.Sprintf("keys=%d/callers=%d", r.keys, r.callers) }

// line makes ready for round.
func (r *bmRace) line(b testing.TB) {
	keys := bmSetKeys()[:r.keys]
	r.ours = bmOpenWith(b, bmImplementations[0], 2*bmManyKeys, keys)
	r.theirs = bmOpenWith(b, bmImplementations[3], 2*bmManyKeys, keys)
	r.took, r.theyTook = nil, nil
}

// round times as many replays of one and of the other, on the same walk, and changes who begins.
func (r *bmRace) round() {
	n := len(r.took)
	if n%2 == 0 {
		r.took = append(r.took, r.time(r.ours, n))
		r.theyTook = append(r.theyTook, r.time(r.theirs, n))
	} else {
		r.theyTook = append(r.theyTook, r.time(r.theirs, n))
		r.took = append(r.took, r.time(r.ours, n))
	}
}

func (r *bmRace) time(s bmStore, round int) time.Duration {
	keys := bmSetKeys()[:r.keys]
	var calling sync.WaitGroup
	start := time.Now()
	for caller := range r.callers {
		calling.Go(func() {
			ctx, walk := context.Background(), bmWalkOf(int64(1+round*r.callers+caller))
			for range bmManyKeys {
				_, _ = s.do(ctx, walk.next(keys), one)
			}
		})
	}
	calling.Wait()
	return time.Since(start)
}

// ratio returns the median round of this library in proportion to that of the other.
func (r *bmRace) ratio() float64 { return float64(bmMedian(r.took)) / float64(bmMedian(r.theyTook)) }

func bmMedian(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}
