// Command ratios measures this library against the peer that is nearest in each respect, both in
// one process and taking turns, and prints by which factor they differ and whether that meets the
// target. What is slow about the machine at the moment is slow for both.
//
//	go run -C bench ./ratios -run hot
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/idemflight/idemflight/bench/rivals"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// target is one line of the table.
type target struct {
	name string
	peer string  // "" = the limit is absolute
	unit string  // of what is measured
	most float64 // ours by the peer's, or ours
	less bool    // than most, rather than at most

	// lay prepares and returns how ours and the peer's are measured once, and how to tidy up.
	lay func() contest

	slow bool // one round takes a second or more: a third of the rounds will do
}

// contest is a target that is ready. theirs is nil where the limit is absolute.
type contest struct {
	ours, theirs func() float64
	done         func()
	aside        func() string // said at the end of the line; may be nil
}

func run(args []string, out, errOut io.Writer) int {
	flags := flag.NewFlagSet("ratios", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	rounds := flags.Int("rounds", 7, "rounds; the median counts")
	pattern := flags.String("run", "", "only targets whose name matches this regular expression")
	strict := flags.Bool("strict", false, "exit with 1 if a target is not met")
	list := flags.Bool("list", false, "print the targets and measure nothing")
	err := flags.Parse(args)
	only, badPattern := regexp.Compile(*pattern)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(out, "Usage: go run -C bench ./ratios [flags]")
		flags.SetOutput(out)
		flags.PrintDefaults()
		return 0
	case err != nil:
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case badPattern != nil:
		err = fmt.Errorf("-run: %w", badPattern)
	case *rounds < 1:
		err = fmt.Errorf("-rounds is %d: must be at least 1", *rounds)
	}
	if err != nil {
		fmt.Fprintln(errOut, "ratios:", err)
		return 2
	}

	chosen := slices.DeleteFunc(targets(), func(t target) bool { return !only.MatchString(t.name) })
	if len(chosen) == 0 {
		fmt.Fprintf(errOut, "ratios: no target matches %q: see -list\n", *pattern)
		return 2
	}
	if *list {
		for _, t := range chosen {
			fmt.Fprintln(out, t.name)
		}
		return 0
	}

	fmt.Fprintf(out, "%s %s/%s, GOMAXPROCS %d, %d rounds", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), *rounds)
	for _, r := range rivals.All[int]() {
		if slices.Contains([]string{"otter", "resenje", "singleflight"}, r.Name) {
			fmt.Fprintf(out, ", %s %s", r.Name, r.Version())
		}
	}
	fmt.Fprintf(out, "\n\n")
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "what\tours\ttheirs\tpeer\tratio\tmin..max\ttarget\t")
	missed := 0
	for _, t := range chosen {
		fmt.Fprintf(errOut, "%s %s\n", time.Now().Format(time.TimeOnly), t.name)
		line, met := t.measure(*rounds)
		fmt.Fprintln(table, line)
		if !met {
			missed++
		}
	}
	table.Flush()
	fmt.Fprintf(out, "\n%d of %d met\n", len(chosen)-missed, len(chosen))
	if missed > 0 && *strict {
		return 1
	}
	return 0
}

// measure runs the rounds, changing who begins, and returns a line of the table.
func (t target) measure(rounds int) (line string, met bool) {
	c := t.lay()
	if c.done != nil {
		defer c.done()
	}
	if t.slow {
		rounds = (rounds + 2) / 3
	}
	var ours, theirs, ratios []float64
	for round := range rounds {
		var us, them float64
		once := []func(){
			func() { us = c.ours() },
			func() {
				if c.theirs != nil {
					them = c.theirs()
				}
			},
		}
		if round%2 == 1 {
			slices.Reverse(once)
		}
		for _, f := range once {
			f()
		}
		ours, theirs = append(ours, us), append(theirs, them)
		if c.theirs != nil {
			ratios = append(ratios, us/them)
		} else {
			ratios = append(ratios, us)
		}
	}

	value := median(ratios)
	met = value <= t.most
	relation := "≤"
	if t.less {
		met, relation = value < t.most, "<"
	}
	verdict := "met"
	if !met {
		verdict = "NOT MET"
	}
	if c.aside != nil {
		verdict += ", " + c.aside()
	}
	low, high := slices.Min(ratios), slices.Max(ratios)
	if c.theirs == nil {
		return fmt.Sprintf("%s\t%s\t\t\t\t%s..%s\t%s %s\t%s", t.name, format(value, t.unit),
			format(low, ""), format(high, ""), relation, format(t.most, t.unit), verdict), met
	}
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%.2f\t%.2f..%.2f\t%s %.2f\t%s", t.name, format(median(ours), t.unit),
		format(median(theirs), t.unit), t.peer, value, low, high, relation, t.most, verdict), met
}

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// format writes v with about three digits.
func format(v float64, unit string) string {
	digits := 0
	if v < 100 && v != math.Trunc(v) {
		digits = 2
	}
	return strings.TrimSpace(fmt.Sprintf("%.*f %s", digits, v, unit))
}
