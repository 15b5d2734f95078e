package main

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemflight/idemflight/bench/rivals"
)

// sample is what one measurement found.
type sample struct {
	perSecond      float64
	allocs, bytes  float64 // per call
	runs, distinct int
	errors         int
	latency        *latencies
}

const ttl = time.Hour // of every rival that has one: none expires while it is measured

// measure opens r, fills it, and lets callers loose on it twice: once without a clock, for
// throughput and allocations, and once with each call timed, for latency.
func measure(ctx context.Context, c *config, w *workload, r rivals.Rival[[]byte], p point) sample {
	w.reset()
	// Twice what can come, since some divide their bound among shards: nobody has to evict.
	s := r.Open(rivals.Options[[]byte]{Capacity: 2 * len(w.keys), TTL: ttl, Load: w.load})
	defer s.Close()
	work := w.work
	w.work = 0 // filling is not measured
	for _, key := range w.keys[:c.keys] {
		_, _ = s.Do(context.Background(), key)
	}
	w.work = work
	w.head.Store(int64(c.keys))
	runtime.GC()

	found := sample{latency: newLatencies()}
	half := (len(w.keys) + c.keys) / 2 // of the fresh keys are for the first pass
	untimed := pass{workload: w, duration: c.duration, leave: c.leave, store: s, point: p, limit: int64(half)}
	untimed.run(ctx)
	found.perSecond = float64(untimed.calls) / untimed.took.Seconds()
	if untimed.calls > 0 {
		found.allocs = float64(untimed.mallocs) / float64(untimed.calls)
		found.bytes = float64(untimed.allocated) / float64(untimed.calls)
	}

	timed := pass{workload: w, duration: c.duration, leave: c.leave, store: s, point: p, limit: int64(len(w.keys)), latency: found.latency}
	timed.run(ctx)
	found.errors = untimed.errors + timed.errors
	found.runs, found.distinct = w.executions()
	return found
}

// pass lets p's goroutines call for the duration, or until the fresh keys below limit are drawn.
type pass struct {
	*workload
	duration time.Duration
	leave    bool
	store    rivals.Store[[]byte]
	point    point
	limit    int64

	latency *latencies // nil: calls are not timed

	stop  atomic.Bool
	calls int
	took  time.Duration

	errors             int
	mallocs, allocated uint64
}

// caller is one goroutine's share of a pass.
type caller struct {
	*pass
	ctx     context.Context
	draws   []int32
	next    int
	calls   int
	errors  int
	latency *latencies // nil: calls are not timed
}

func (p *pass) run(ctx context.Context) {
	if p.head.Load() >= p.limit {
		return
	}
	callers := make([]*caller, p.point.Goroutines)
	gate := make(chan struct{})
	var ready, all sync.WaitGroup
	for i := range callers {
		// Not of ctx: Ctrl-C ends the measurement between two calls, and shall not be measured itself.
		own, cancel := context.Background(), context.CancelFunc(func() {})
		if p.leave {
			own, cancel = context.WithCancel(own)
			own.Done() // has been asked for before, by a server
		}
		defer cancel()
		draws := p.draws[p.point.Duplicates]
		callers[i] = &caller{pass: p, ctx: own, draws: draws, next: i * len(draws) / len(callers)}
		if p.latency != nil {
			callers[i].latency = newLatencies()
		}
		ready.Add(1)
		all.Go(func() {
			ready.Done()
			<-gate
			callers[i].call()
		})
	}
	ready.Wait()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	timer := time.AfterFunc(p.duration, func() { p.stop.Store(true) })
	defer timer.Stop()
	defer context.AfterFunc(ctx, func() { p.stop.Store(true) })()
	start := time.Now()
	close(gate)
	all.Wait()
	p.took = time.Since(start)
	runtime.ReadMemStats(&after)
	p.mallocs, p.allocated = after.Mallocs-before.Mallocs, after.TotalAlloc-before.TotalAlloc
	for _, c := range callers {
		p.calls += c.calls
		p.errors += c.errors
		if p.latency != nil {
			p.latency.merge(c.latency)
		}
	}
	if head := p.head.Load(); head > p.limit {
		p.head.Store(p.limit) // draws beyond it were no calls
	}
}

func (c *caller) call() {
	if c.latency != nil {
		c.timed()
		return
	}
	for again := true; again; again = !c.stop.Load() { // once at least, however busy the machine
		n, ok := c.draw()
		if !ok {
			return
		}
		if _, err := c.store.Do(c.ctx, c.keys[n]); err != nil {
			c.errors++
		}
		c.calls++
	}
}

func (c *caller) timed() {
	for again := true; again; again = !c.stop.Load() {
		n, ok := c.draw()
		if !ok {
			return
		}
		u := &c.uses[n]
		finished, started := u.finished.Load(), u.started.Load()
		start := time.Now()
		_, err := c.store.Do(c.ctx, c.keys[n])
		took := time.Since(start)
		if err != nil {
			c.errors++
		}
		c.latency.add(u.kindOf(finished, started), took)
		c.calls++
	}
}

// draw returns the number of the next key to call, or false if there are no fresh ones left.
func (c *caller) draw() (int64, bool) {
	back := c.draws[c.next&(drawTable-1)]
	c.next++
	if back != fresh {
		return c.head.Load() - 1 - int64(back), true
	}
	n := c.head.Add(1) - 1
	return n, n < c.limit
}
