package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/idemflight/idemflight/verify/internal/suite"
)

// program is a package's compiled suite.
type program struct {
	Package string
	Binary  suite.Binary
	Tests   []*test       // that pass without a mutant, the quickest first
	Fails   []string      // those that fail though no mutant is alive: guards cost too much for them
	Takes   time.Duration // all of it
}

// test is one at the top level.
type test struct {
	Name  string
	Takes time.Duration // alone
	Meets []int         // the mutants that it comes by
}

// compile compiles the suite of l with edited in place, into dir.
func (p *pkg) compile(ctx context.Context, l listed, dir string, edited map[string][]byte) (*program, error) {
	binary, err := suite.Compile(ctx, p.dir, l.ImportPath, l.Dir, dir, edited)
	if err != nil {
		return nil, err
	}
	return &program{Package: l.ImportPath, Binary: binary}, nil
}

// ended is how a run of a suite went.
type ended struct {
	suite.Ended
	waits string // where the goroutines are of a suite that hangs
}

// run runs tests, those of names if there are any, with the mutant of that number alive; may says how
// long one, or all, may take that else takes so long.
func (p *program) run(ctx context.Context, alive int, names []string, may func(takes time.Duration) time.Duration, more ...string) (ended, error) {
	var args []string
	if len(names) > 0 {
		args = append(args, "-test.run=^("+strings.Join(names, "|")+")$")
	}
	if len(p.Fails) > 0 {
		args = append(args, "-test.skip=^("+strings.Join(p.Fails, "|")+")$")
	}
	b := p.Binary
	b.Patience = func(test string) time.Duration { return may(p.takes([]string{test})) }
	e, err := b.Run(ctx, may(p.takes(names)), []string{"MUTANT=" + strconv.Itoa(alive)}, append(args, more...)...)
	if err != nil || !e.Hung {
		return ended{Ended: e}, err
	}
	return ended{e, whereItHangs(string(e.Out))}, nil
}

var (
	goroutineLine = regexp.MustCompile(`^goroutine \d+(?: gp=\S+ m=\S+(?: mp=\S+)?)? \[([^\],]+)`)
	frameLine     = regexp.MustCompile(`^` + regexp.QuoteMeta(suite.Library) + `(?:/[a-z/]+)?(_test)?\.(\S+)\(`)
)

// whereItHangs tells from the stacks of a suite that timed out what goes on in the library: a goroutine
// that runs does not come to its end, one that waits does so in vain. Where there is none, the tests
// wait for what does not happen.
func whereItHangs(out string) string {
	var own, tests []string
	state := ""
	for line := range strings.Lines(out) {
		if m := goroutineLine.FindStringSubmatch(line); m != nil {
			state = m[1]
		} else if m := frameLine.FindStringSubmatch(line); m != nil && state != "" && !strings.HasPrefix(m[2], "mutant_") {
			where := state + " in " + strings.ReplaceAll(m[2], "[...]", "")
			if m[1] == "" {
				own = append(own, where)
			} else {
				tests = append(tests, where)
			}
			state = "" // the innermost function tells
		}
	}
	if len(own) == 0 {
		own = tests
	}
	slices.Sort(own)
	own = slices.Compact(own)
	const enough = 4
	if n := len(own); n > enough {
		own = append(own[:enough], fmt.Sprintf("%d more", n-enough))
	}
	return strings.Join(own, "; ")
}

// takes returns how long the tests of names take, all of them if there are none or none is known.
func (p *program) takes(names []string) time.Duration {
	var sum time.Duration
	for _, t := range p.Tests {
		if slices.Contains(names, t.Name) {
			sum += t.Takes
		}
	}
	return cmp.Or(sum, p.Takes)
}

// measure finds out what the suite does with no mutant alive: which tests fail, how long each takes,
// and which mutants each of them meets.
func (p *program) measure(ctx context.Context, workers int, told func(done, of int)) error {
	// What guards cost may be too much for a test that counts allocations.
	first, err := p.run(ctx, 0, nil, func(time.Duration) time.Duration { return 10 * time.Minute }, "-test.failfast=false")
	if err != nil {
		return err
	}
	p.Takes = first.Took
	names, fails := first.TopLevel()
	p.Fails = fails
	if len(names) == 0 || len(p.Fails) > len(names)/20 {
		return fmt.Errorf("the suite of %s with guards fails, so that it can prove nothing:\n%s", p.Package, suite.LastLines(string(first.Out), 30))
	}
	if !first.Passed && len(p.Fails) == 0 {
		return fmt.Errorf("the suite of %s with guards fails, but no test of it:\n%s", p.Package, suite.LastLines(string(first.Out), 30))
	}
	p.Tests = make([]*test, len(names))
	done := 0
	err = parallel(ctx, workers, len(names), func(i int) error {
		t, err := p.meets(ctx, names[i])
		p.Tests[i] = t
		return err
	}, func() { done++; told(done, len(names)) })
	if err != nil {
		return err
	}
	slices.SortStableFunc(p.Tests, func(a, b *test) int { return cmp.Compare(a.Takes, b.Takes) })
	return nil
}

// meets runs one test alone and notes the mutants that it comes by.
func (p *program) meets(ctx context.Context, name string) (*test, error) {
	notes, err := os.CreateTemp("", "met-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = notes.Close(); _ = os.Remove(notes.Name()) }()
	cmd := exec.CommandContext(ctx, p.Binary.Path, "-test.short", "-test.timeout=2m", "-test.run=^"+name+"$")
	cmd.Dir = p.Binary.Dir
	cmd.Env = append(os.Environ(), "MUTANT=-1", "MUTANTS_MET="+notes.Name())
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s fails when it runs alone: %w\n%s", name, err, suite.LastLines(string(out), 20))
	}
	t := &test{Name: name, Takes: time.Since(start)}
	for s := bufio.NewScanner(notes); s.Scan(); {
		n, err := strconv.Atoi(s.Text())
		if err != nil {
			return nil, err
		}
		t.Meets = append(t.Meets, n)
	}
	return t, nil
}
