// Command faults plants a fault for every promise of the library's contract, one at a time, and
// asks the ordinary test suites: each must fail.
//
//	go run -C verify ./faults                    all of them
//	go run -C verify ./faults -quick             a sample, in about a minute
//	go run -C verify ./faults -promise 7         those of promise 7
//	go run -C verify ./faults -run 'ttl|expire'  by name
//	go run -C verify ./faults -list              what there is
//	go run -C verify ./faults -check             do they fit the source, and compile? Half a minute
//	go run -C verify ./faults -alone             each in a program of its own, which takes far longer
//
// All faults of a suite are compiled into one program, each behind a guard, and the environment says
// which is alive (guarded.go says how). A fault that cannot stand behind one, or that the program does
// not find, is compiled alone.
//
// It exits with 1 if a fault survives (a test is missing), does not apply or does not compile (the
// list is out of date), and with 2 if the suites fail without any fault. It never touches the
// source: faults are planted with the go command's -overlay.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/idemflight/idemflight/verify/internal/plant"
	"github.com/idemflight/idemflight/verify/internal/suite"
)

func main() {
	var (
		pattern = flag.String("run", "", "only faults whose name matches this regular expression")
		promise = flag.String("promise", "", "only faults of this promise: a number, a line of idemhttp, or a package around the core (see -list)")
		list    = flag.Bool("list", false, "print the faults, run nothing")
		check   = flag.Bool("check", false, "only tell which faults do not apply to the source or do not compile, run nothing")
		quick   = flag.Bool("quick", false, "only a fixed sample")
		jobs    = flag.Int("j", max(1, runtime.NumCPU()/2), "how many at once")
		alone   = flag.Bool("alone", false, "compile each fault alone, and none behind guards")
		timeout = flag.Duration("timeout", time.Minute, "of a run of some tests, five times that of all; a fault that makes it hang is caught by it")
		report  = flag.String("json", "", "also write the results to this file")
	)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	re, err := regexp.Compile(*pattern)
	if err != nil {
		fail("-run: %v", err)
	}
	faults := slices.DeleteFunc(allFaults(), func(f fault) bool {
		return !re.MatchString(f.name) || *promise != "" && f.promise != *promise || *quick && !f.quick
	})
	if len(faults) == 0 {
		fail("no fault is asked for; see -list")
	}
	if *list {
		printList(os.Stdout, faults)
		return
	}
	dir, err := suite.LibraryDir()
	if err != nil {
		fail("%v", err)
	}
	b := bench{dir: dir, timeout: *timeout}
	if *check {
		if err := b.check(faults); err != nil {
			fail("%v", err)
		}
		fmt.Printf("%d faults apply and compile\n", len(faults))
		return
	}
	results, err := b.run(ctx, faults, *alone, *jobs)
	if err != nil {
		fail("%v", err)
	}
	good := summarize(os.Stdout, results, len(faults))
	if *report != "" {
		if err := writeReport(*report, results); err != nil {
			fail("%v", err)
		}
	}
	if !good {
		os.Exit(1)
	}
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "faults: "+format+"\n", args...)
	os.Exit(2)
}

// worthIt is how many faults of a suite are worth a program that has all of that suite.
const worthIt = 20

// run tries faults, jobs at once: if alone, each in a program of its own. So are those that are few of their suite.
func (b bench) run(ctx context.Context, faults []fault, alone bool, jobs int) ([]result, error) {
	asked := map[question]int{}
	for _, f := range faults {
		asked[f.question()]++
	}
	var one, many []fault
	for _, f := range faults {
		if alone || asked[f.question()] < worthIt {
			one = append(one, f)
		} else {
			many = append(many, f)
		}
	}
	if err := b.sound(ctx, one); err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("", "faults-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	if b.programs, err = b.prepare(ctx, allFaults(), many, scratch); err != nil {
		return nil, err
	}
	return b.tryAll(ctx, faults, jobs, printer(os.Stdout, faults)), nil
}

// check returns an error that names every fault that does not apply to the source or does not compile.
func (b bench) check(faults []fault) error {
	checkers := map[string]*plant.Checker{} // by module
	var wrong []error
	for _, f := range faults {
		source, err := b.source(f)
		if err != nil {
			return err
		}
		module := b.moduleOf(f.dir())
		if checkers[module] == nil {
			if checkers[module], err = plant.NewChecker(module); err != nil {
				return err
			}
		}
		edited, err := source.Apply(f.edit())
		if err == nil {
			err = checkers[module].Check(source, edited)
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", f.name, err))
		}
	}
	return errors.Join(wrong...)
}

// moduleOf returns the root of the module that has the package pkg.
func (b bench) moduleOf(pkg string) string {
	for dir := filepath.Join(b.dir, pkg); dir != b.dir; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	return b.dir
}

func allFaults() []fault { return slices.Concat(coreFaults, httpFaults, storeFaults, aroundFaults) }

// sound returns an error if a suite that is to be asked fails without any fault: it would "find"
// them all.
func (b bench) sound(ctx context.Context, faults []fault) error {
	b.timeout *= 5 // see ask
	var asked []question
	for _, f := range faults {
		if !slices.Contains(asked, f.question()) {
			asked = append(asked, f.question())
		}
	}
	for _, q := range asked {
		if t := b.goTest(ctx, "", "", q); !t.passed || t.ran == 0 {
			return fmt.Errorf("the suite of %s fails without a fault, so that it can prove nothing:\n%s", q.pkg, t.text)
		}
	}
	return nil
}

// tryAll tries faults, jobs at once, until ctx ends. told is called for each as it is done, one at
// a time; the results come in the order of faults.
func (b bench) tryAll(ctx context.Context, faults []fault, jobs int, told func(result)) []result {
	var (
		mu      sync.Mutex
		wg      sync.WaitGroup
		results = make([]result, len(faults))
		next    = make(chan int)
	)
	for range max(1, jobs) {
		wg.Go(func() {
			for i := range next {
				r := b.try(ctx, faults[i])
				if ctx.Err() != nil {
					continue
				}
				mu.Lock()
				results[i] = r
				told(r)
				mu.Unlock()
			}
		})
	}
	for i := range faults {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	wg.Wait()
	return slices.DeleteFunc(results, func(r result) bool { return r.Name == "" })
}

// printer returns what prints a row of the table for each result.
func printer(w io.Writer, faults []fault) func(result) {
	name, promise := len("fault"), len("promise")
	for _, f := range faults {
		name, promise = max(name, len(f.name)), max(promise, len(f.promise))
	}
	row := func(a, b, c, d string) { fmt.Fprintf(w, "%-*s  %-*s  %7s  %s\n", name, a, promise, b, c, d) }
	row("fault", "promise", "seconds", "found by")
	return func(r result) {
		by := r.CaughtBy
		if r.Verdict != found {
			by = fmt.Sprintf("%s: %s", r.Verdict, r.Detail)
		}
		row(r.Name, r.Promise, fmt.Sprintf("%.1f", r.Seconds), by)
	}
}

// summarize prints how many were found, and tells the others again; it reports whether there are
// none.
func summarize(w io.Writer, results []result, planted int) bool {
	n := 0
	for _, r := range results {
		if r.Verdict == found {
			n++
			continue
		}
		fmt.Fprintf(w, "\n%s: %s (promise %s: %s)\n\t%s\n", r.Verdict, r.Name, r.Promise, r.Sentence, strings.ReplaceAll(r.Detail, "\n", "\n\t"))
	}
	fmt.Fprintf(w, "\n%d of %d found", n, planted)
	if len(results) < planted {
		fmt.Fprintf(w, "; interrupted, %d not tried", planted-len(results))
	}
	fmt.Fprintln(w)
	return n == planted
}

func printList(w io.Writer, faults []fault) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "fault\tpromise\tin\tbreaks")
	for _, f := range faults {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", f.name, f.promise, f.in, f.sentence)
	}
	_ = t.Flush()
}

func writeReport(path string, results []result) error {
	text, err := json.MarshalIndent(results, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
