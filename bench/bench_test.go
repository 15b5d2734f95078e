// Package bench_test measures single kinds of calls, for benchstat:
//
//	go test -run '^$' -bench . -count 10 -cpu 1,2 . | tee new.txt
//	benchstat -col /impl new.txt
//
// ./contention measures what users meet: all kinds at once. With -short what takes a million
// entries takes a twentieth of them.
package bench_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Yiling-J/theine-go"
	"github.com/maypok86/otter/v2"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/bench/internal/keys"
	"github.com/idemflight/idemflight/bench/rivals"
)

const (
	some    = 1 << 16 // more than the processor's nearer caches hold
	callers = 10_000  // of a storm
	ttl     = time.Hour
)

var (
	background = context.Background()

	// manyKeys are shared by all: one that needs fewer takes the first.
	manyKeys = sync.OnceValue(func() []string { return keys.New(1 << 20) })

	orderOf = map[int]func() []int32{
		1:         func() []int32 { return []int32{0} },
		some:      sync.OnceValue(func() []int32 { return keys.Shuffled(some) }),
		1_000_000: sync.OnceValue(func() []int32 { return keys.Shuffled(1_000_000) }),
	}
)

func one(context.Context, string) (int, error) { return 1, nil }

func options(capacity int) rivals.Options[int] {
	return rivals.Options[int]{Capacity: capacity, TTL: ttl, Load: one}
}

// each runs bench for all rivals to whom it means something.
func each(b *testing.B, fits func(rivals.Rival[int]) bool, bench func(*testing.B, rivals.Rival[int])) {
	for _, r := range rivals.All[int]() {
		if fits(r) {
			b.Run("impl="+r.Name, func(b *testing.B) { bench(b, r) })
		}
	}
}

func every(rivals.Rival[int]) bool     { return true }
func keeps(r rivals.Rival[int]) bool   { return r.Keeps }
func bounded(r rivals.Rival[int]) bool { return r.Keeps && r.Bounded }

// million is how many a benchmark of a million takes.
func million() int {
	if testing.Short() {
		return 50_000
	}
	return 1_000_000
}

func call(b *testing.B, s rivals.Store[int], ctx context.Context, key string) {
	if v, err := s.Do(ctx, key); v != 1 || err != nil {
		b.Errorf("Do = %d, %v; want 1, nil", v, err)
	}
}

func BenchmarkReplayHot(b *testing.B) {
	each(b, keeps, func(b *testing.B, r rivals.Rival[int]) { replay(b, r, 1) })
}

func BenchmarkReplaySpread65536(b *testing.B) {
	each(b, keeps, func(b *testing.B, r rivals.Rival[int]) { replay(b, r, some) })
}

func BenchmarkReplaySpreadMillion(b *testing.B) {
	n := 1_000_000
	if testing.Short() {
		n = some
	}
	each(b, keeps, func(b *testing.B, r rivals.Rival[int]) { replay(b, r, n) })
}

// replay calls n kept keys in an order that is not that of insertion.
func replay(b *testing.B, r rivals.Rival[int], n int) {
	list, order := manyKeys()[:n], orderOf[n]()
	s := r.Open(options(2 * max(n, 1024)))
	defer s.Close()
	for _, key := range list {
		call(b, s, background, key)
	}
	runtime.GC()
	var workers atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		i := int(workers.Add(1)) * 7919 % n // each starts elsewhere
		for pb.Next() {
			call(b, s, background, list[order[i]])
			if i++; i == n {
				i = 0
			}
		}
	})
}

func BenchmarkFirst(b *testing.B) {
	each(b, every, func(b *testing.B, r rivals.Rival[int]) { first(b, r, background) })
}

// BenchmarkFirstCancellable differs only for those that let a caller leave.
func BenchmarkFirstCancellable(b *testing.B) {
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	each(b, every, func(b *testing.B, r rivals.Rival[int]) { first(b, r, ctx) })
}

// first executes fresh keys, one after the other, in stores that end with 65,536.
func first(b *testing.B, r rivals.Rival[int], ctx context.Context) {
	list := manyKeys()[:some]
	s := r.Open(options(2 * some))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i == len(list) {
			b.StopTimer()
			s.Close()
			s, i = r.Open(options(2*some)), 0
			b.StartTimer()
		}
		call(b, s, ctx, list[i])
		i++
	}
	s.Close()
}

// BenchmarkStorm sends 10,000 callers with contexts that can end to one fresh key, whose execution
// ends when all have come. Their goroutines are part of the time. Most rivals ignore the contexts.
func BenchmarkStorm(b *testing.B) {
	ctxs := make([]context.Context, callers)
	for i := range ctxs {
		ctx, cancel := context.WithCancel(background)
		defer cancel()
		ctx.Done() // has been asked for before, by a server
		ctxs[i] = ctx
	}
	list := manyKeys()
	each(b, every, func(b *testing.B, r rivals.Rival[int]) {
		var coming, calling sync.WaitGroup
		s := r.Open(rivals.Options[int]{Capacity: 2 * some, TTL: ttl, Load: func(context.Context, string) (int, error) {
			coming.Wait()
			return 1, nil
		}})
		defer s.Close()
		b.ReportAllocs()
		storms := 0
		for b.Loop() {
			key := list[storms&(len(list)-1)]
			storms++
			coming.Add(callers)
			for _, ctx := range ctxs {
				calling.Go(func() {
					coming.Done()
					call(b, s, ctx, key)
				})
			}
			calling.Wait()
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(storms*callers), "ns/caller")
	})
}

// BenchmarkMixed makes nine duplicates in ten, each of one of the latest keys, the later the likelier.
func BenchmarkMixed(b *testing.B) {
	const back = 10_000
	random := rand.New(rand.NewPCG(7, 8))
	zipf := rand.NewZipf(random, 1.1, 1, back-1)
	draws := make([]int64, 1<<16)
	for i := range draws {
		if draws[i] = -1; random.Float64() < 0.9 {
			draws[i] = int64(zipf.Uint64())
		}
	}
	list := manyKeys()
	each(b, every, func(b *testing.B, r rivals.Rival[int]) {
		s := r.Open(options(len(list) / 2)) // so that a key is fresh again after a turn through the list
		defer s.Close()
		for _, key := range list[:back] {
			call(b, s, background, key)
		}
		var head, workers atomic.Int64
		head.Store(back)
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for i := int(workers.Add(1)) * 7919; pb.Next(); i++ {
				var n int64
				if d := draws[i&(len(draws)-1)]; d < 0 {
					n = head.Add(1) - 1
				} else {
					n = head.Load() - 1 - d
				}
				call(b, s, background, list[n&int64(len(list)-1)])
			}
		})
	})
}

func BenchmarkInsertAtCapacity(b *testing.B) {
	each(b, bounded, func(b *testing.B, r rivals.Rival[int]) {
		s := r.Open(options(some))
		defer s.Close()
		insert(b, func(key string) { call(b, s, background, key) })
	})
}

// insert fills a store of 65,536 and inserts keys that it has not got, or no longer.
func insert(b *testing.B, do func(key string)) {
	list := manyKeys()
	for _, key := range list[:2*some] {
		do(key)
	}
	runtime.GC()
	b.ReportAllocs()
	b.ResetTimer()
	i := 2 * some
	for b.Loop() {
		do(list[i&(len(list)-1)])
		i++
	}
}

// BenchmarkInsertSteadyExpiry inserts at capacity with TTLs from 1 ms to 1 s in random order, so
// that entries expire all the time. Only those with a TTL per entry can.
func BenchmarkInsertSteadyExpiry(b *testing.B) {
	ttls := make([]time.Duration, 1024)
	for i, n := range keys.Shuffled(len(ttls)) {
		ttls[i] = time.Millisecond * time.Duration(1+int(n)*999/len(ttls))
	}
	ttlOf := func(key string) time.Duration { return ttls[keys.Number(key)&(len(ttls)-1)] }
	b.Run("impl=idemflight", func(b *testing.B) {
		c := idemflight.MustNew(idemflight.Options[string, int]{MaxEntries: some, MinRetention: -1})
		defer c.Close(background)
		fn := func(context.Context) (int, error) { return 1, nil }
		insert(b, func(key string) { _, _ = c.Do(background, key, fn, idemflight.WithTTL(ttlOf(key))) })
	})
	b.Run("impl=otter", func(b *testing.B) {
		c := otter.Must(&otter.Options[string, int]{MaximumSize: some,
			ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, int]) time.Duration { return ttlOf(e.Key) })})
		defer c.StopAllGoroutines()
		load := otter.LoaderFunc[string, int](one)
		insert(b, func(key string) { _, _ = c.Get(background, key, load) })
	})
	b.Run("impl=theine", func(b *testing.B) {
		c, err := theine.NewBuilder[string, int](some).Loading(func(_ context.Context, key string) (theine.Loaded[int], error) {
			return theine.Loaded[int]{Value: 1, Cost: 1, TTL: ttlOf(key)}, nil
		}).Build()
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		insert(b, func(key string) { _, _ = c.Get(background, key) })
	})
}

// BenchmarkHeapPerEntry reports the heap per retained entry, the key's own bytes left out: they
// are the caller's.
func BenchmarkHeapPerEntry(b *testing.B) {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // frees what finalizers and pools held in the first
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	list := manyKeys()[:million()]
	each(b, keeps, func(b *testing.B, r rivals.Rival[int]) {
		var perEntry float64
		for b.Loop() {
			before := heap()
			s := r.Open(options(len(list) + len(list)/4)) // some divide it among shards
			for _, key := range list {
				call(b, s, background, key)
			}
			perEntry = float64(heap()-before) / float64(len(list))
			s.Close()
		}
		b.ReportMetric(perEntry, "B/entry")
		b.ReportMetric(0, "ns/op") // of filling: of no interest
	})
}

// BenchmarkMillionExpire lets a million entries expire at one moment and reports the longest that
// a replay of another key took in the second around it, and of the second before as what the
// machine does to a replay anyway.
func BenchmarkMillionExpire(b *testing.B) {
	list := manyKeys()[:million()]
	var ttlNow time.Duration // of what is inserted at the moment
	measure := func(b *testing.B, do func(key string)) {
		var longest, before time.Duration
		for b.Loop() {
			expiry := time.Now().Add(time.Duration(len(list)) * 5 * time.Microsecond) // filling takes less
			for _, key := range list {
				ttlNow = time.Until(expiry)
				do(key)
			}
			ttlNow = ttl
			do("hot")
			runtime.GC()
			before = max(before, longestPause(do, time.Until(expiry)-100*time.Millisecond))
			longest = max(longest, longestPause(do, time.Second))
		}
		b.ReportMetric(float64(longest)/1e6, "ms-pause")
		b.ReportMetric(float64(before)/1e6, "ms-pause-before")
		b.ReportMetric(0, "ns/op")
	}
	b.Run("impl=idemflight", func(b *testing.B) {
		c := idemflight.MustNew(idemflight.Options[string, int]{MaxEntries: 2 * len(list), MinRetention: -1})
		defer c.Close(background)
		fn := func(context.Context) (int, error) { return 1, nil }
		measure(b, func(key string) { _, _ = c.Do(background, key, fn, idemflight.WithTTL(ttlNow)) })
	})
	b.Run("impl=otter", func(b *testing.B) {
		c := otter.Must(&otter.Options[string, int]{MaximumSize: 2 * len(list),
			ExpiryCalculator: otter.ExpiryWritingFunc(func(otter.Entry[string, int]) time.Duration { return ttlNow })})
		defer c.StopAllGoroutines()
		load := otter.LoaderFunc[string, int](one)
		measure(b, func(key string) { _, _ = c.Get(background, key, load) })
	})
}

func longestPause(do func(string), during time.Duration) (longest time.Duration) {
	start := time.Now()
	for last := start; last.Sub(start) < during; {
		do("hot")
		now := time.Now()
		longest, last = max(longest, now.Sub(last)), now
	}
	return longest
}
