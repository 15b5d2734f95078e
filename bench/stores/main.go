// Command stores measures what Do costs over each store, beside its engine alone: as many statements that are
// made durable, without this library. Both take turns, in one process. It prints the table of docs/stores.md.
//
//	go run -C bench/stores .
//
// It asks PostgreSQL at IDEMFLIGHT_POSTGRES (127.0.0.1:5432, user postgres) and Redis at IDEMFLIGHT_REDIS
// (127.0.0.1:6379), and writes bbolt's files into -dir, whose disk counts. An engine that does not answer is
// skipped.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

const callers = 16 // of the second half of the table

// A contest is one row: one call with this library, and what it is held against.
type contest struct {
	name   string
	ours   func(ctx context.Context, n int) error // n is another one at each call
	bare   func(ctx context.Context, n int) error
	shared func(ctx context.Context, n int) error // bare by several callers, where the engine has a way for that
}

// An engine has contests once it is opened.
type engine struct {
	name string
	open func(ctx context.Context, dir string) (contests []contest, shut func(), err error)
}

func run(args []string, out, errOut io.Writer) int {
	flags := flag.NewFlagSet("stores", flag.ContinueOnError)
	flags.SetOutput(errOut)
	rounds := flags.Int("rounds", 7, "rounds; the median counts")
	each := flags.Duration("time", 500*time.Millisecond, "how long one measurement takes")
	pattern := flags.String("run", "", "only rows that match this regular expression, such as 'PostgreSQL first'")
	dir := flags.String("dir", "", "where bbolt's files are written; empty: the folder for temporary files")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	only, err := regexp.Compile(*pattern)
	switch {
	case err != nil:
		err = fmt.Errorf("-run: %w", err)
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case *rounds < 1:
		err = fmt.Errorf("-rounds is %d: must be at least 1", *rounds)
	case *each <= 0:
		err = fmt.Errorf("-time is %v: must be above 0", *each)
	}
	if err != nil {
		fmt.Fprintln(errOut, "stores:", err)
		return 2
	}

	ctx := context.Background()
	fmt.Fprintf(out, "%s %s/%s, %d processors, %d rounds of %v\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), *rounds, *each)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "\tone caller, µs\tengine alone\tratio\t%d callers, per s\tengine alone\tratio\t\n", callers)
	status := 0
	for _, e := range engines {
		contests, shut, err := e.open(ctx, *dir)
		if err != nil {
			fmt.Fprintf(errOut, "skipped: %s: %v\n", e.name, err)
			continue
		}
		for _, c := range contests {
			if name := e.name + " " + c.name; only.MatchString(name) {
				fmt.Fprintln(errOut, time.Now().Format(time.TimeOnly), name)
				row, err := c.measure(ctx, *rounds, *each)
				if err != nil {
					fmt.Fprintf(errOut, "stores: %s: %v\n", name, err)
					status = 1
				}
				fmt.Fprintf(table, "%s\t%s\t\n", name, row)
			}
		}
		shut()
	}
	table.Flush()
	return status
}

// measure returns a row of the table, without its name.
func (c contest) measure(ctx context.Context, rounds int, each time.Duration) (row string, err error) {
	var next atomic.Int64
	// perSecond has so many callers call f for a while.
	perSecond := func(callers int, f func(context.Context, int) error) float64 {
		var all sync.WaitGroup
		var calls atomic.Int64
		var failed atomic.Pointer[error]
		start := time.Now()
		for range callers {
			all.Go(func() {
				for failed.Load() == nil && time.Since(start) < each {
					if e := f(ctx, int(next.Add(1))); e != nil {
						failed.Store(&e)
					}
					calls.Add(1)
				}
			})
		}
		all.Wait()
		if e := failed.Load(); e != nil {
			err = *e
		}
		return float64(calls.Load()) / time.Since(start).Seconds()
	}
	var alone, together, aloneRatio, togetherRatio, bareAlone, bareTogether []float64
	for round := range rounds + 1 {
		shared := c.shared
		if shared == nil {
			shared = c.bare
		}
		o1, b1 := perSecond(1, c.ours), perSecond(1, c.bare)
		o16, b16 := perSecond(callers, c.ours), perSecond(callers, shared)
		if err != nil {
			return "", err
		}
		if round == 0 {
			continue // warms up
		}
		alone, bareAlone, aloneRatio = append(alone, 1e6/o1), append(bareAlone, 1e6/b1), append(aloneRatio, b1/o1)
		together, bareTogether, togetherRatio = append(together, o16), append(bareTogether, b16), append(togetherRatio, b16/o16)
	}
	return fmt.Sprintf("%s\t%s\t%.2f\t%.0f\t%.0f\t%.2f", micros(median(alone)), micros(median(bareAlone)), median(aloneRatio),
		median(together), median(bareTogether), median(togetherRatio)), nil
}

func micros(x float64) string {
	if x < 10 {
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.0f", x)
}

func median[T cmp.Ordered](all []T) T {
	slices.Sort(all)
	return all[len(all)/2]
}
