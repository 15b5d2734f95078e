package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
)

// noCollapse is by what a figure may be worse at a higher GOMAXPROCS than at the first of -procs.
const noCollapse = 1.3

// raised is a target that was measured at two values of GOMAXPROCS: ours alone, with ours.
type raised struct {
	target
	setting string    // how many goroutines, if that is not what the row has anyway
	procs   [2]int    // the first of -procs, and another
	low     []float64 // at the first, one figure per round
	high    []float64 // at the other
	aside   string    // of the other
}

// raised measures each target at each of c.procs, as it is and with many goroutines per processor.
// Those without a goal are left out: they show a peer, and ours is the same as in another row.
func (c config) raised(chosen []target, say func(string)) []raised {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var all []raised
	for _, t := range chosen {
		if t.goal == (limit{}) {
			continue
		}
		say(t.name)
		all = append(all, c.raise(t, 0)...)
		if t.callers == fixed {
			continue
		}
		for _, n := range c.perCore {
			say(fmt.Sprintf("%s, %d goroutines per processor", t.name, n))
			all = append(all, c.raise(t, n)...)
		}
	}
	return all
}

// raise measures t with so many goroutines per processor; 0 = as the row is. The values of
// GOMAXPROCS take turns in each round. A cache is made at the value that it is measured at, since
// New asks for it.
func (c config) raise(t target, perCore int) []raised {
	contests := make([]contest, len(c.procs))
	for i, procs := range c.procs {
		runtime.GOMAXPROCS(procs)
		goroutines := t.callers.goroutines()
		if perCore > 0 {
			goroutines = perCore * procs
		}
		contests[i] = t.lay(goroutines)
		if contests[i].done != nil {
			defer contests[i].done()
		}
	}
	figures := make([][]float64, len(c.procs))
	turns := make([]int, len(c.procs))
	for i := range turns {
		turns[i] = i
	}
	for range t.roundsOf(c.rounds) {
		for _, i := range turns {
			runtime.GOMAXPROCS(c.procs[i])
			figures[i] = append(figures[i], contests[i].ours())
		}
		slices.Reverse(turns)
	}

	var all []raised
	for i := 1; i < len(c.procs); i++ {
		r := raised{target: t, procs: [2]int{c.procs[0], c.procs[i]}, low: figures[0], high: figures[i]}
		if perCore > 0 {
			r.setting = fmt.Sprintf(", %d goroutines per processor", perCore)
		}
		if contests[i].aside != nil {
			r.aside = contests[i].aside()
		}
		all = append(all, r)
	}
	return all
}

// values returns what is held against the limit: by which factor each round was worse.
func (r raised) values() []float64 {
	values := make([]float64, len(r.low))
	for i := range values {
		if values[i] = r.high[i] / r.low[i]; r.high[i] == r.low[i] {
			values[i] = 1 // none and none, too
		}
	}
	return values
}

// verdict is by the factor. A row whose limit is absolute has to keep to that limit at any
// GOMAXPROCS instead: a factor says nothing of the longest of all pauses, and too little of runs
// per key.
func (r raised) verdict() verdict {
	if r.by == alone {
		return judge(r.goal.figure(r.high), r.goal, limit{})
	}
	return judge(median(r.values()), atMost(noCollapse), limit{})
}

const raisedColumns = "what\tGOMAXPROCS\tlow\thigh\tratio\tmin..max\tgoal\tverdict"

// row returns the result under the columns, divided by tabs.
func (r raised) row() string {
	values := r.values()
	goal := fmt.Sprintf("≤ %.2f", noCollapse)
	if r.by == alone {
		goal = r.bound(r.goal)
	}
	cells := []string{
		r.name + r.setting, fmt.Sprintf("%d, %d", r.procs[0], r.procs[1]),
		format(r.goal.figure(r.low), r.unit), format(r.goal.figure(r.high), r.unit),
		fmt.Sprintf("%.2f", median(values)),
		fmt.Sprintf("%.2f..%.2f", slices.Min(values), slices.Max(values)), goal, string(r.verdict()),
	}
	if r.aside != "" {
		cells[len(cells)-1] += "; " + r.aside
	}
	return strings.Join(cells, "\t")
}
