package main

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/idemflight/idemflight/bench/internal/keys"
)

// point is one place in the space that is measured.
type point struct {
	Procs      int
	Goroutines int
	Duplicates float64 // share of calls
}

// minKeys are enough for a measurement of default length. One that runs out of fresh keys ends early.
const minKeys = 1 << 20

// workload is what all rivals are given. A call is of the next fresh key, or it is a duplicate of
// one of the latest keys: retries come soon. Draws are made beforehand, so that a call costs a look
// into a table.
type workload struct {
	work  time.Duration
	value int

	keys []string
	uses []use // of each key

	draws map[float64][]int32 // by share of duplicates

	head atomic.Int64 // keys below it have been drawn
}

// use counts executions of one key. It is how a call is told to have executed, joined or replayed,
// alike for all rivals and without their help.
type use struct {
	started, finished atomic.Uint32
	claimed           atomic.Uint32 // the last execution that a call has been counted as executed for
}

const (
	drawTable = 1 << 16
	fresh     = -1 // draw: the next key; else how far back
)

func newWorkload(c *config) *workload {
	w := &workload{work: c.work, value: c.value, draws: make(map[float64][]int32)}
	w.keys = keys.New(max(minKeys, 4*c.keys))
	w.uses = make([]use, len(w.keys))
	random := rand.New(rand.NewPCG(5, 6))
	back := func() int32 { return random.Int32N(int32(c.keys)) }
	if c.skew == "zipf" {
		zipf := rand.NewZipf(random, 1.1, 1, uint64(c.keys-1))
		back = func() int32 { return int32(zipf.Uint64()) }
	}
	for _, share := range c.duplicates {
		table := make([]int32, drawTable)
		for i := range table {
			if table[i] = fresh; random.Float64() < share {
				table[i] = back()
			}
		}
		w.draws[share] = table
	}
	return w
}

// reset forgets all executions. The first draw finds the keys below head kept.
func (w *workload) reset() {
	for i := range w.uses[:min(int(w.head.Load())+1, len(w.uses))] {
		u := &w.uses[i]
		u.started.Store(0)
		u.finished.Store(0)
		u.claimed.Store(0)
	}
	w.head.Store(0)
}

// load is fn.
func (w *workload) load(_ context.Context, key string) ([]byte, error) {
	u := &w.uses[keys.Number(key)]
	u.started.Add(1)
	defer u.finished.Add(1)
	switch {
	case w.work >= 100*time.Microsecond:
		time.Sleep(w.work)
	case w.work > 0:
		for start := time.Now(); time.Since(start) < w.work; {
		}
	}
	return make([]byte, w.value), nil
}

// executions returns how often fn has run, and for how many keys.
func (w *workload) executions() (runs, distinct int) {
	for i := range w.uses[:min(int(w.head.Load()), len(w.uses))] {
		n := int(w.uses[i].started.Load())
		runs += n
		if n > 0 {
			distinct++
		}
	}
	return runs, distinct
}

// kind is what a call turned out to be.
type kind int

const (
	executed kind = iota // an execution of its key began while it ran, and it is the first to return
	joined               // another such call, or one that met an execution that had begun before
	replayed             // no execution was near
	kinds
)

// kindOf tells, after a call, what it was. started and finished were read before it, finished first.
func (u *use) kindOf(finished, started uint32) kind {
	now := u.started.Load()
	if now > started {
		for {
			claimed := u.claimed.Load()
			if claimed >= now {
				return joined
			}
			if u.claimed.CompareAndSwap(claimed, now) {
				return executed
			}
		}
	}
	if started > finished {
		return joined
	}
	return replayed
}
