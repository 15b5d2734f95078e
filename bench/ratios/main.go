// Command ratios measures this library against the peer that is nearest in each respect, both in
// one process and taking turns, and prints by which factor they differ and whether that meets the
// goal. What is slow about the machine at the moment is slow for both.
//
//	go run -C bench ./ratios -run hot
//
// With -procs it holds this library against itself, with GOMAXPROCS raised:
//
//	go run -C bench ./ratios -procs 2,8
//
// With -readme it writes what a call costs into the root README:
//
//	go run -C bench ./ratios -rounds 11 -readme ../README.md
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/idemflight/idemflight/bench/rivals"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// config is what the flags say.
type config struct {
	args    []string
	rounds  int
	only    *regexp.Regexp
	strict  bool
	list    bool
	procs   []int    // values of GOMAXPROCS to compare; empty = compare with peers
	perCore []int    // goroutines per processor, beside the rows as they are
	readmes []string // to write the table of costs into
}

// parse reads the flags. Of -h it writes the usage to out and returns flag.ErrHelp.
func parse(args []string, out io.Writer) (config, error) {
	flags := flag.NewFlagSet("ratios", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	c := config{args: args}
	flags.IntVar(&c.rounds, "rounds", 7, "rounds; the median counts")
	pattern := flags.String("run", "", "only targets whose name matches this regular expression")
	flags.BoolVar(&c.strict, "strict", false, "exit with 1 if a goal that counts is not met")
	flags.BoolVar(&c.list, "list", false, "print the targets and measure nothing")
	procs := flags.String("procs", "",
		"compare this library with itself at these values of GOMAXPROCS, such as 2,8")
	perCore := flags.String("per-core", "16,64",
		"with -procs: goroutines per processor, beside the rows as they are")
	readmes := flags.String("readme", "",
		"measure only the rows of a README's table of costs, and write it into those of these files, a list, that have its marks")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(out, "Usage: go run -C bench ./ratios [flags]")
		flags.SetOutput(out)
		flags.PrintDefaults()
		return c, err
	case err != nil:
		return c, err
	case flags.NArg() > 0:
		return c, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case c.rounds < 1:
		return c, fmt.Errorf("-rounds is %d: must be at least 1", c.rounds)
	}
	if c.only, err = regexp.Compile(*pattern); err != nil {
		return c, fmt.Errorf("-run: %w", err)
	}
	if c.procs, err = numbers(*procs); err != nil {
		return c, fmt.Errorf("-procs: %w", err)
	}
	if len(c.procs) == 1 {
		return c, fmt.Errorf("-procs is %s: one value compares with nothing", *procs)
	}
	if c.perCore, err = numbers(*perCore); err != nil {
		return c, fmt.Errorf("-per-core: %w", err)
	}
	if len(c.procs) > 0 && *readmes != "" {
		return c, errors.New("-readme shows peers, and -procs measures none")
	}
	if c.readmes, err = costFiles(*readmes); err != nil {
		return c, fmt.Errorf("-readme: %w", err)
	}
	return c, nil
}

// numbers reads a list with commas. "" is the empty list.
func numbers(list string) ([]int, error) {
	if list == "" {
		return nil, nil
	}
	var all []int
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is not a number from 1", text)
		}
		all = append(all, n)
	}
	return all, nil
}

func run(args []string, out, errOut io.Writer) int {
	c, err := parse(args, out)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(errOut, "ratios:", err)
		return 2
	}
	chosen := slices.DeleteFunc(targets(), func(t target) bool {
		return !c.only.MatchString(t.name) || len(c.readmes) > 0 && !isCost(t)
	})
	if len(chosen) == 0 {
		fmt.Fprintf(errOut, "ratios: no target matches %q: see -list\n", c.only)
		return 2
	}
	if c.list {
		for _, t := range chosen {
			fmt.Fprintln(out, t.name)
		}
		return 0
	}

	c.header(out)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	say := func(what string) { fmt.Fprintf(errOut, "%s %s\n", time.Now().Format(time.TimeOnly), what) }
	verdicts := tally{}
	var measured []result
	if len(c.procs) > 0 {
		fmt.Fprintln(table, raisedColumns)
		for _, r := range c.raised(chosen, say) {
			fmt.Fprintln(table, r.row())
			verdicts[r.verdict()]++
		}
	} else {
		fmt.Fprintln(table, columns)
		for _, t := range chosen {
			say(t.name)
			r := t.measure(c.rounds)
			measured = append(measured, r)
			fmt.Fprintln(table, r.row())
			verdicts[r.verdict()]++
		}
	}
	table.Flush()
	fmt.Fprintf(out, "\n%v\n", verdicts)
	if err := c.writeCosts(measured); err != nil {
		fmt.Fprintln(errOut, "ratios:", err)
		return 1
	}
	if c.strict && verdicts[missed] > 0 {
		return 1
	}
	return 0
}

// header says what is measured with.
func (c config) header(out io.Writer) {
	procs := strconv.Itoa(runtime.GOMAXPROCS(0))
	if len(c.procs) > 0 {
		procs = strings.Trim(fmt.Sprint(c.procs), "[]")
	}
	fmt.Fprintf(out, "%s %s/%s, %d processors, GOMAXPROCS %s, %d rounds, %s\n\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), procs, c.rounds,
		versions("singleflight", "resenje", "otter"))
}

// versions lists the rivals with their versions.
func versions(names ...string) string {
	found, _ := rivals.Named[int](names)
	var all []string
	for _, r := range found {
		all = append(all, r.Name+" "+r.Version())
	}
	return strings.Join(all, ", ")
}
