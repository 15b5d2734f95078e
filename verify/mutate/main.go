// Command mutate changes the library in small ways, one at a time, and asks its ordinary test suites
// each time: at least one test must fail.
//
//	go run -C verify ./mutate                       the core and idemhttp; goes on where it was interrupted
//	go run -C verify ./mutate -package ./boltstore  another package: targets.go has them
//	go run -C verify ./mutate -sample 100           some of each package, in a few minutes
//	go run -C verify ./mutate -run 'ttl.go|Do'      those whose file or declaration matches
//	go run -C verify ./mutate -list                 what there is
//
// The mutants are those that gremlins lists, and one for each statement that can be deleted, which
// gremlins does not do. The source is never touched: mutants are put in place with the go command's
// -overlay, most of them in one program (guard.go says how).
//
// It exits with 1 if a mutant survives, or makes a suite hang, without a known reason, if the list of
// reasons is out of date, or if less than 97 % of what is killed or survives is killed; and with 2 if it cannot work.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/idemflight/idemflight/verify/internal/suite"
)

func main() {
	var (
		names   = flag.String("package", ".,./idemhttp", fmt.Sprintf("what to mutate, with commas between: of %v", targets))
		pattern = flag.String("run", "", "only mutants whose file:declaration matches this regular expression")
		sample  = flag.Int("sample", 0, "only so many of them, chosen by chance")
		seed    = flag.Uint64("seed", 1, "of the choice")
		list    = flag.Bool("list", false, "print the mutants, run nothing")
		fresh   = flag.Bool("fresh", false, "forget earlier results")
		met     = flag.Bool("met", false, "ask only the tests that come by a mutant when none is alive: which do may be the scheduler's choice, but who survives costs seconds, not a minute")
		most    = flag.Duration("most", 0, "ask only tests that take no longer than this (0: all): who survives them may not survive all")
		verbose = flag.Bool("v", false, "print a line for each mutant, not only for those that are not killed")
		workers = flag.Int("workers", max(1, runtime.NumCPU()), "how many suites run at once")
		dir     = flag.String("state", "", "where results are kept for the next run (default: in the user's cache)")
		root    = flag.String("dir", "", "the library's root (default: as go.mod has it)")
		file    = flag.String("json", "", "also write the reports to this file")
	)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	re, err := regexp.Compile(*pattern)
	if err != nil {
		fail(fmt.Errorf("-run: %w", err))
	}
	chosen, err := chooseTargets(*names)
	if err != nil {
		fail(err)
	}
	if *root == "" {
		if *root, err = suite.LibraryDir(); err != nil {
			fail(err)
		}
	}
	if *dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			fail(err)
		}
		*dir = filepath.Join(cache, "idemflight-mutate")
	}
	good, reports := true, []report(nil)
	for _, t := range chosen {
		s, err := newSession(ctx, *root, *dir, t, askGremlins)
		if err != nil {
			fail(err)
		}
		s.metOnly, s.most = *met, *most
		mutants := choose(s.mutants, re, *sample, *seed)
		if *list {
			for _, m := range mutants {
				fmt.Printf("%s:%d\t%s%s\n", m.File, m.Line, m.name(), map[treatment]string{alone: " (compiled alone)", notViable: " (not viable)"}[m.how])
			}
			continue
		}
		if *fresh {
			clear(s.state.results)
		}
		results, err := s.run(ctx, mutants, *workers, *verbose)
		if err != nil && ctx.Err() == nil {
			fail(err)
		}
		rep := newReport(t.name, results, s.mutants, equivalent)
		rep.print(os.Stdout)
		reports = append(reports, rep)
		if good = good && rep.good() && err == nil; err != nil { // interrupted
			break
		}
	}
	if *file != "" {
		if err := write(reports, *file); err != nil {
			fail(err)
		}
	}
	if !good {
		os.Exit(1)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "mutate:", err)
	os.Exit(2)
}

// choose returns the mutants that match, at most sample of them if that is not 0.
func choose(all []*mutant, re *regexp.Regexp, sample int, seed uint64) []*mutant {
	var chosen []*mutant
	for _, m := range all {
		if re.MatchString(m.File + ":" + m.Decl) {
			chosen = append(chosen, m)
		}
	}
	if sample > 0 && sample < len(chosen) {
		random := rand.New(rand.NewPCG(seed, 0))
		random.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
		chosen = chosen[:sample]
		slices.SortFunc(chosen, func(a, b *mutant) int { return a.ID - b.ID })
	}
	return chosen
}

// say prints how far it is, for who waits.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// line tells what became of a mutant.
func (r result) line() string {
	text := fmt.Sprintf("%-10s %5.1f s  %s:%d  %s", r.Verdict, r.Seconds, r.File, r.Line, r.name())
	for _, more := range []string{r.By, r.Detail} {
		if more != "" {
			text += "\n\t" + strings.TrimSpace(more)
		}
	}
	return text
}
