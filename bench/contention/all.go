package main

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"github.com/idemflight/idemflight/bench/internal/keys"
	"github.com/idemflight/idemflight/bench/rivals"
)

// measureAll measures all there is, in rounds in which all rivals take turns, so that whatever else
// the machine does meets all alike. If ctx ends it returns what it has.
func measureAll(ctx context.Context, c *config, bar progress) *report {
	defer bar.finish()
	began := time.Now()
	rep := newReport(c)
	ints := rivals.All[int]()
	byName := func(name string) rivals.Rival[int] {
		return ints[slices.IndexFunc(ints, func(r rivals.Rival[int]) bool { return r.Name == name })]
	}

	contractKeys := keys.New(c.contractKeys)
	for i, r := range c.rivals {
		if ctx.Err() != nil {
			break
		}
		contract := rivals.Check(byName(r.Name), contractKeys)
		rep.Rivals[i].Contract = &contract
		bar.step("contract check")
	}

	w := newWorkload(c)
	for i, r := range c.rivals {
		if ctx.Err() != nil {
			break
		}
		if r.Keeps {
			rep.Rivals[i].HeapPerEntry = heapPerEntry(byName(r.Name), w.keys[:c.heapEntries])
		}
		bar.step("heap per entry")
	}

	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	order := make([]int, len(c.rivals))
	for i := range order {
		order[i] = i
	}
	for round := range c.rounds {
		for _, p := range c.points() {
			runtime.GOMAXPROCS(p.Procs)
			rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			for _, i := range order {
				if ctx.Err() != nil {
					rep.finish(round, true, began)
					return rep
				}
				s := measure(ctx, c, w, c.rivals[i], p)
				if ctx.Err() == nil { // else it was cut short
					rep.Rivals[i].add(p, s)
				}
				bar.step("calls")
			}
		}
	}
	rep.Harness = measure(ctx, c, w, harness, c.main(c.procs[0])).perSecond
	rep.finish(c.rounds, ctx.Err() != nil, began)
	return rep
}

// harness is no rival: it shows what the measuring itself takes of each call.
var harness = rivals.Rival[[]byte]{Open: func(rivals.Options[[]byte]) rivals.Store[[]byte] { return nothing{} }}

type nothing struct{}

func (nothing) Do(context.Context, string) ([]byte, error) { return nil, nil }
func (nothing) Close()                                     {}

// heapPerEntry returns the bytes of heap that an entry takes whose value is an int. The bytes of
// its key are not among them: they are the caller's, whoever keeps the entry.
func heapPerEntry(r rivals.Rival[int], list []string) *float64 {
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // frees what finalizers and pools held in the first
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	before := heap()
	s := r.Open(rivals.Options[int]{
		Capacity: len(list) + len(list)/4, TTL: ttl, // some divide it among shards
		Load: func(context.Context, string) (int, error) { return 1, nil },
	})
	defer s.Close()
	for _, key := range list {
		_, _ = s.Do(context.Background(), key)
	}
	time.Sleep(10 * time.Millisecond) // lets background work catch up
	perEntry := (heap() - before) / float64(len(list))
	runtime.KeepAlive(s)
	return &perEntry
}
