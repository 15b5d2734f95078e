package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/idemflight/idemflight/bench/internal/readme"
	"github.com/idemflight/idemflight/bench/rivals"
)

// config is what the flags say.
type config struct {
	args []string

	duration   time.Duration
	goroutines []int
	keys       int
	duplicates []float64
	skew       string
	work       time.Duration
	value      int
	procs      []int
	rivals     []rivals.Rival[[]byte]
	rounds     int
	leave      bool

	json, html, svg string
	readmes         []string // to write the tables into

	// Not flags of their own: smaller with -quick.
	contractKeys, heapEntries int
}

const (
	maxKeys       = 1_000_000
	maxGoroutines = 10_000
	maxValue      = 1 << 20
)

// parse returns the config, or an error that fits into one line. With -h it prints the usage.
func parse(args []string, out io.Writer) (*config, error) {
	c := &config{args: args, contractKeys: 2000, heapEntries: 200_000}
	flags := flag.NewFlagSet("contention", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.DurationVar(&c.duration, "duration", 100*time.Millisecond, "of one measurement")
	goroutines := flags.String("goroutines", "1,8,32,128", "how many call at once, a list; each takes 90 KiB")
	flags.IntVar(&c.keys, "keys", 10_000, "a duplicate is of one of so many latest keys")
	duplicates := flags.String("duplicates", "0,0.5,0.9,0.99", "share of calls that are duplicates, a list")
	flags.StringVar(&c.skew, "skew", "zipf", "which key a duplicate is of: zipf (the later the likelier) or uniform")
	flags.DurationVar(&c.work, "work", 0, "how long fn takes: it sleeps, or spins below 100µs")
	flags.IntVar(&c.value, "value", 16, "bytes of the value that fn makes")
	procs := flags.String("procs", strconv.Itoa(runtime.GOMAXPROCS(0)), "GOMAXPROCS, a list")
	names := flags.String("rivals", "all", "which, a list: "+strings.Join(rivalNames(), ", "))
	flags.IntVar(&c.rounds, "rounds", 3, "all rivals take turns in each; the median counts")
	flags.BoolVar(&c.leave, "leave", true, "callers have a context that can end, as those of requests")
	flags.StringVar(&c.json, "json", "", "write all numbers to this file")
	flags.StringVar(&c.html, "html", "", "write a page with charts to this file")
	flags.StringVar(&c.svg, "svg", "", "write the charts into this directory")
	readmes := flags.String("readme", "", "write the tables into those of these files, a list, that have their marks; needs -svg")
	quick := flags.Bool("quick", false, "a first impression in a few seconds")

	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(out, "Usage: go run -C bench ./contention [flags]")
		flags.SetOutput(out)
		flags.PrintDefaults()
		return nil, err
	}
	if err != nil {
		return nil, errors.New(strings.ReplaceAll(err.Error(), "\n", " "))
	}
	if *quick {
		c.quicken(flags, goroutines, duplicates)
	}

	var errs [4]error
	c.goroutines, errs[0] = list("goroutines", *goroutines, whole(1, maxGoroutines))
	c.duplicates, errs[1] = list("duplicates", *duplicates, share)
	c.procs, errs[2] = list("procs", *procs, whole(1, 4096))
	c.rivals, errs[3] = chosen(*names)
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	if *readmes != "" {
		if c.readmes, err = readme.Tables.Among(strings.Split(*readmes, ",")); err != nil {
			return nil, fmt.Errorf("-readme: %w", err)
		}
	}
	return c, c.check(flags.Args())
}

// quicken makes smaller what was not given.
func (c *config) quicken(flags *flag.FlagSet, goroutines, duplicates *string) {
	given := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	small := func(name string, set func()) {
		if !given[name] {
			set()
		}
	}
	small("duration", func() { c.duration = 10 * time.Millisecond })
	small("goroutines", func() { *goroutines = "1,32" })
	small("duplicates", func() { *duplicates = "0.5,0.9" })
	small("rounds", func() { c.rounds = 2 })
	c.contractKeys, c.heapEntries = 500, 50_000
}

func (c *config) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case c.duration <= 0 || c.duration > time.Minute:
		return fmt.Errorf("-duration is %v: must be above 0 and at most 1m", c.duration)
	case c.keys < 1 || c.keys > maxKeys:
		return fmt.Errorf("-keys is %d: must be from 1 to %d", c.keys, maxKeys)
	case c.skew != "uniform" && c.skew != "zipf":
		return fmt.Errorf("-skew is %q: must be uniform or zipf", c.skew)
	case c.work < 0 || c.work > time.Second:
		return fmt.Errorf("-work is %v: must be from 0 to 1s", c.work)
	case c.value < 0 || c.value > maxValue:
		return fmt.Errorf("-value is %d: must be from 0 to %d bytes", c.value, maxValue)
	case c.rounds < 1 || c.rounds > 1000:
		return fmt.Errorf("-rounds is %d: must be from 1 to 1000", c.rounds)
	case len(c.readmes) > 0 && c.svg == "":
		return errors.New("-readme needs -svg: the section shows a chart")
	}
	for _, path := range []string{c.json, c.html} { // rather now than after a minute of measuring
		if path == "" {
			continue
		}
		if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
			return fmt.Errorf("cannot write %s: there is no folder %s", path, filepath.Dir(path))
		}
	}
	if c.svg != "" {
		if err := os.MkdirAll(c.svg, 0o755); err != nil {
			return fmt.Errorf("-svg: %w", err)
		}
	}
	return nil
}

// list reads values that are separated by commas.
func list[T comparable](name, s string, read func(string) (T, error)) ([]T, error) {
	var values []T
	seen := make(map[T]bool)
	for field := range strings.SplitSeq(s, ",") {
		v, err := read(strings.TrimSpace(field))
		if err != nil {
			return nil, fmt.Errorf("-%s: %q %w", name, strings.TrimSpace(field), err)
		}
		if !seen[v] {
			seen[v] = true
			values = append(values, v)
		}
	}
	return values, nil
}

func whole(from, to int) func(string) (int, error) {
	return func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < from || n > to {
			return 0, fmt.Errorf("is not a whole number from %d to %d", from, to)
		}
		return n, nil
	}
}

func share(s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= 0 && v <= 1) {
		return 0, errors.New("is not a share from 0 to 1")
	}
	return v, nil
}

func rivalNames() (names []string) {
	for _, r := range rivals.All[[]byte]() {
		names = append(names, r.Name)
	}
	return names
}

func chosen(names string) ([]rivals.Rival[[]byte], error) {
	if names == "all" {
		return rivals.All[[]byte](), nil
	}
	wanted := strings.Split(names, ",")
	for i := range wanted {
		wanted[i] = strings.TrimSpace(wanted[i])
	}
	found, unknown := rivals.Named[[]byte](wanted)
	if len(unknown) > 0 {
		return nil, fmt.Errorf("-rivals: there is no %q, only %s", unknown[0], strings.Join(rivalNames(), ", "))
	}
	return found, nil
}

// main returns the point that the table is about: the most goroutines, and nine duplicates in ten
// or what is nearest.
func (c *config) main(procs int) point {
	p := point{Procs: procs, Goroutines: c.goroutines[0], Duplicates: c.duplicates[0]}
	for _, n := range c.goroutines {
		p.Goroutines = max(p.Goroutines, n)
	}
	for _, d := range c.duplicates {
		if abs(d-0.9) < abs(p.Duplicates-0.9) {
			p.Duplicates = d
		}
	}
	return p
}

// points returns what is measured: from the main point, along goroutines and along duplicates.
func (c *config) points() []point {
	var points []point
	for _, procs := range c.procs {
		main := c.main(procs)
		for _, n := range c.goroutines {
			points = append(points, point{procs, n, main.Duplicates})
		}
		for _, d := range c.duplicates {
			if d != main.Duplicates {
				points = append(points, point{procs, main.Goroutines, d})
			}
		}
	}
	return points
}

// total returns the number of steps: contracts, heaps, and the measurements of all rounds.
func (c *config) total() int {
	return 2*len(c.rivals) + c.rounds*len(c.points())*len(c.rivals)
}

func abs(x float64) float64 { return max(x, -x) }
