package main

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"time"
)

// result is what exploring a configuration came to.
type result struct {
	states int  // worlds that differ
	depth  int  // steps to the last of them, by the shortest way
	all    bool // there are no more
	took   time.Duration
	broken [numberInvariants]trace // the shortest; empty: holds

	records [numberStates]bool // states of the record that occurred
	places  [numberPlaces]bool // places where a caller stood
}

// note notes what occurs in a world.
func (r *result) note(w *world) {
	r.records[w.record.state] = true
	for i := range w.callers {
		r.places[w.callers[i].at] = true
	}
}

// violations returns the invariants that are broken.
func (r *result) violations() (broken []invariant) {
	for which, t := range r.broken {
		if t != nil {
			broken = append(broken, invariant(which))
		}
	}
	return broken
}

// trace is how to get to a world: the number of the step to make, from the first world on.
type trace []uint16

// explore visits all worlds, breadth first, so that a trace is a shortest one, up to most of them. It does not go
// on from a world that breaks an invariant; with first it ends there.
//
// What it has seen it keeps as a hash of 64 bits: with ten million worlds the chance that any two share one, so
// that one would go unseen, is one in 300,000.
func explore(cfg *config, most int, first bool) (res result) {
	began := time.Now()
	defer func() { res.took = time.Since(began) }()
	type reached struct {
		parent int32
		step   uint16
	}
	type open struct {
		world
		index int32
	}
	seed := maphash.MakeSeed()
	seen := map[uint64]struct{}{}
	ways := []reached{{-1, 0}}
	level := []open{{}}
	seen[maphash.Comparable(seed, world{})] = struct{}{}

	way := func(index int32, last uint16) trace {
		t := trace{last}
		for ; index > 0; index = ways[index].parent {
			t = append(t, ways[index].step)
		}
		slices.Reverse(t)
		return t
	}
	for ; len(level) > 0; res.depth++ {
		var next []open
		for i := range level {
			here := &level[i]
			var step uint16
			s := stepper{cfg: cfg}
			s.visit = func(w *world, broken invariant) {
				this := step
				step++
				if broken != none {
					if res.broken[broken] == nil {
						res.broken[broken] = way(here.index, this)
					}
					return
				}
				w.normalize()
				hash := maphash.Comparable(seed, *w)
				if _, ok := seen[hash]; ok {
					return
				}
				seen[hash] = struct{}{}
				res.note(w)
				next = append(next, open{*w, int32(len(ways))})
				ways = append(ways, reached{here.index, this})
			}
			s.steps(&here.world)
			if res.states = len(ways); res.states >= most || first && len(res.violations()) > 0 {
				return res
			}
		}
		level = next
	}
	res.depth--
	res.all = true
	return res
}

// print writes the steps of a trace, and what the engine keeps after each.
func (t trace) print(cfg *config) string {
	var b strings.Builder
	var w world
	s := stepper{cfg: cfg, tracing: true, letters: [maxCallers]string{"A", "B", "C", "D"}, known: map[claimID]string{}}
	made := 0 // claim IDs that have a name
	for i, want := range t {
		var step uint16
		var taken world
		var words, kept string
		var names map[claimID]string
		s.nextName = fmt.Sprintf("#%d", made+1)
		s.visit = func(next *world, _ invariant) {
			if step == want {
				taken, words, names, kept = *next, s.words, s.names, s.describe(&next.record)
			}
			step++
		}
		s.steps(&w)
		w = taken
		to := w.normalize()
		clear(s.known)
		for id, name := range names {
			if to.claims[id] != 0 {
				s.known[to.claims[id]] = name
			}
			if name == s.nextName {
				made++
			}
		}
		letters := s.letters
		for old, now := range to.callers {
			s.letters[now] = letters[old]
		}
		fmt.Fprintf(&b, "%4d  %-80s [%s]\n", i+1, words, kept)
	}
	return b.String()
}
