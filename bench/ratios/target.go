package main

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
)

// target is one row of the table.
type target struct {
	name string
	peer string // "" if there is none
	unit string // of what is measured
	by   comparison

	// goal is what is to be reached, beyond what would be better still. A target without a goal is
	// shown and not counted.
	goal, beyond limit

	// lay prepares a measurement with so many goroutines that call. See callers.
	lay     func(goroutines int) contest
	callers crowd

	slow bool // one round takes a second or more: a third of the rounds will do
}

// contest is a target that is ready. theirs is nil where there is no peer.
type contest struct {
	ours, theirs func() float64 // each measures once
	done         func()         // tidies up; may be nil
	aside        func() string  // said at the end of the row; may be nil
}

// comparison is what of a round is held against the limits.
type comparison int

const (
	ratio comparison = iota // ours ÷ theirs
	extra                   // ours − theirs, in the unit
	alone                   // ours, in the unit
)

func (c comparison) of(ours, theirs float64) float64 {
	switch c {
	case ratio:
		return ours / theirs
	case extra:
		return ours - theirs
	}
	return ours
}

// crowd is how many goroutines call.
type crowd int

const (
	fixed      crowd = iota // a number that belongs to the row: lay ignores what it is given
	single                  // one; -procs also tries many
	onePerCore              // one for each; -procs also tries many
)

func (c crowd) goroutines() int {
	if c == onePerCore {
		return runtime.GOMAXPROCS(0)
	}
	return 1
}

// limit is a bound of a figure. The zero limit is none.
type limit struct {
	relation string // "≤", "=", or "" for none
	value    float64
}

func atMost(value float64) limit  { return limit{"≤", value} }
func exactly(value float64) limit { return limit{"=", value} }

// holds reports whether value keeps to the limit; nothing keeps to none.
func (l limit) holds(value float64) bool {
	switch l.relation {
	case "≤":
		return value <= l.value
	case "=":
		return value == l.value
	}
	return false
}

// figure returns which of the rounds' values is judged: the median, or, where the limit is an exact
// value, the one that is furthest from it.
func (l limit) figure(values []float64) float64 {
	if l.relation != "=" {
		return median(values)
	}
	return slices.MaxFunc(values, func(a, b float64) int {
		return int(math.Copysign(1, math.Abs(a-l.value)-math.Abs(b-l.value)))
	})
}

// verdict is what is said of a figure.
type verdict string

const (
	met    verdict = "met"
	missed verdict = "NOT MET"
	beyond verdict = "beyond"
	shown  verdict = "shown, not counted"
)

func judge(value float64, goal, better limit) verdict {
	switch {
	case goal == limit{}:
		return shown
	case !goal.holds(value):
		return missed
	case better.holds(value):
		return beyond
	}
	return met
}

// tally counts verdicts.
type tally map[verdict]int

// counted is how many of the verdicts are about a goal.
func (t tally) counted() int { return t[met] + t[beyond] + t[missed] }

func (t tally) String() string {
	text := fmt.Sprintf("%d of %d met", t[met]+t[beyond], t.counted())
	if t[beyond] > 0 {
		text += fmt.Sprintf(", %d of them beyond", t[beyond])
	}
	if t[shown] > 0 {
		text += fmt.Sprintf("; %d shown, not counted", t[shown])
	}
	return text
}

// result is a target that was measured, one value of each kind per round.
type result struct {
	target
	ours, theirs, values []float64
	aside                string
}

// measure runs the rounds, changing who begins.
func (t target) measure(rounds int) result {
	c := t.lay(t.callers.goroutines())
	if c.done != nil {
		defer c.done()
	}
	r := result{target: t}
	for round := range t.roundsOf(rounds) {
		var ours, theirs float64
		once := []func(){func() { ours = c.ours() }}
		if c.theirs != nil {
			once = append(once, func() { theirs = c.theirs() })
		}
		if round%2 == 1 {
			slices.Reverse(once)
		}
		for _, f := range once {
			f()
		}
		r.ours, r.theirs = append(r.ours, ours), append(r.theirs, theirs)
		r.values = append(r.values, t.by.of(ours, theirs))
	}
	if c.aside != nil {
		r.aside = c.aside()
	}
	return r
}

func (t target) roundsOf(rounds int) int {
	if t.slow {
		return (rounds + 2) / 3
	}
	return rounds
}

func (r result) verdict() verdict { return judge(r.goal.figure(r.values), r.goal, r.beyond) }

const columns = "what\tours\ttheirs\tpeer\tratio\tmin..max\tgoal\tbeyond\tverdict"

// row returns the result under the columns, divided by tabs.
func (r result) row() string {
	value := r.goal.figure(r.values)
	ours, theirs, compared := format(median(r.ours), r.unit), format(median(r.theirs), r.unit), ""
	low, high := r.write(slices.Min(r.values)), r.write(slices.Max(r.values))
	if r.by == alone {
		ours, theirs = format(value, r.unit), ""
	} else {
		compared = r.write(value)
	}
	cells := []string{r.name, ours, theirs, r.peer, compared, low + ".." + high,
		r.bound(r.goal), r.bound(r.beyond), string(r.verdict())}
	if r.aside != "" {
		cells[len(cells)-1] += "; " + r.aside
	}
	return strings.Join(cells, "\t")
}

// write writes a value that is compared, without its unit.
func (t target) write(value float64) string {
	switch t.by {
	case ratio:
		return fmt.Sprintf("%.2f", value)
	case extra:
		return signed(value, "")
	}
	return format(value, "")
}

func (t target) bound(l limit) string {
	switch {
	case l == limit{}:
		return ""
	case t.by == ratio:
		return fmt.Sprintf("%s %.2f", l.relation, l.value)
	case t.by == extra:
		return l.relation + " " + signed(l.value, t.unit)
	}
	return l.relation + " " + format(l.value, t.unit)
}

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// format writes v with about three digits.
func format(v float64, unit string) string {
	digits := 0
	if math.Abs(v) < 100 && v != math.Trunc(v) {
		digits = 2
	}
	return strings.TrimSpace(fmt.Sprintf("%.*f %s", digits, v, unit))
}

// signed writes v as what comes on top.
func signed(v float64, unit string) string {
	if v < 0 {
		return format(v, unit)
	}
	return "+" + format(v, unit)
}
