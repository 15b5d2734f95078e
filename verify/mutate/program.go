package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	Dir     string // where it runs
	Binary  string
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

// memory bounds the address space of a suite, in KiB: a mutant may allocate without end.
const memory = 8 << 20

// compile compiles the suite of l with edited in place, into dir.
func (p *pkg) compile(ctx context.Context, l listed, dir string, edited map[string][]byte) (*program, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	replace, err := suite.Overlay(dir, edited)
	if err != nil {
		return nil, err
	}
	prog := &program{Package: l.ImportPath, Dir: l.Dir, Binary: filepath.Join(dir, "suite.test")}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", replace, "-o", prog.Binary, l.ImportPath)
	cmd.Dir = p.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s does not compile: %w\n%s", l.ImportPath, err, suite.LastLines(string(out), 20))
	}
	return prog, nil
}

// ended is how a run of a suite went.
type ended struct {
	passed, hung bool
	caughtBy     string // the test that failed, and how if not by an assertion
	waits        string // where the goroutines are of a suite that hangs
	out          []byte
	took         time.Duration
}

// run runs tests, those of names if there are any, with the mutant of that number alive.
func (p *program) run(ctx context.Context, alive int, names []string, timeout time.Duration, more ...string) (ended, error) {
	args := []string{
		"-c", `ulimit -v "$0"; exec "$@"`, strconv.Itoa(memory), p.Binary,
		"-test.short", "-test.failfast", "-test.v", "-test.timeout=" + timeout.Round(time.Millisecond).String(),
	}
	if len(names) > 0 {
		args = append(args, "-test.run=^("+strings.Join(names, "|")+")$")
	}
	if len(p.Fails) > 0 {
		args = append(args, "-test.skip=^("+strings.Join(p.Fails, "|")+")$")
	}
	// A suite that does not end by itself, or in which the timer does not fire any more, is ended.
	limited, stop := context.WithTimeout(ctx, timeout+5*time.Second)
	defer stop()
	cmd := exec.CommandContext(limited, "sh", append(args, more...)...)
	cmd.Dir, cmd.WaitDelay = p.Dir, 2*time.Second
	cmd.Env = append(os.Environ(), "MUTANT="+strconv.Itoa(alive), "GOTRACEBACK=all")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	err := cmd.Run()
	if ctx.Err() != nil {
		return ended{}, ctx.Err()
	}
	e := ended{passed: err == nil, out: out.Bytes(), took: time.Since(start)}
	if !e.passed {
		e.read()
		e.hung = e.hung || limited.Err() != nil
	}
	return e, nil
}

// unclear reports whether the suite ended in a way that tells nothing.
func (e *ended) unclear() bool { return !e.passed && !e.hung && e.caughtBy == "" }

var (
	startLine = regexp.MustCompile(`^=== (?:RUN|CONT|NAME)\s+(\S+)`)
	hungLine  = regexp.MustCompile(`^\t\t(\w\S*) \(`) // below "running tests:"
	endLine   = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+)`)
)

// read reads who noticed the mutant from the output.
func (e *ended) read() {
	running, failed, how := "", "", ""
	for line := range strings.Lines(string(e.out)) {
		if m := startLine.FindStringSubmatch(line); m != nil {
			running = m[1]
		} else if m := endLine.FindStringSubmatch(line); m != nil && m[1] == "FAIL" {
			failed = m[2] // the innermost is told last
		}
		if m := hungLine.FindStringSubmatch(line); m != nil && e.hung {
			running = m[1]
		}
		if h := suite.HowItEnded(line); h != "" && how == "" {
			how = h
			e.hung = h == "hangs"
		}
	}
	by := failed
	if how != "" && how != "goroutine left behind" {
		by = cmp.Or(running, failed)
	}
	e.caughtBy = strings.TrimSpace(by)
	if how != "" {
		e.caughtBy = strings.TrimSpace(e.caughtBy + " (" + how + ")")
	}
	if e.hung {
		e.waits = whereItHangs(string(e.out))
	}
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

// takes returns how long the tests of names take, all of them if there are none.
func (p *program) takes(names []string) time.Duration {
	if len(names) == 0 {
		return p.Takes
	}
	var sum time.Duration
	for _, t := range p.Tests {
		if slices.Contains(names, t.Name) {
			sum += t.Takes
		}
	}
	return sum
}

// measure finds out what the suite does with no mutant alive: which tests fail, how long each takes,
// and which mutants each of them meets.
func (p *program) measure(ctx context.Context, workers int, told func(done, of int)) error {
	// What guards cost may be too much for a test that counts allocations.
	first, err := p.run(ctx, 0, nil, 10*time.Minute, "-test.failfast=false")
	if err != nil {
		return err
	}
	p.Takes = first.took
	var names []string
	for line := range strings.Lines(string(first.out)) {
		if m := endLine.FindStringSubmatch(line); m != nil && !strings.Contains(m[2], "/") {
			switch m[1] {
			case "PASS":
				names = append(names, m[2])
			case "FAIL":
				p.Fails = append(p.Fails, m[2])
			}
		}
	}
	if len(names) == 0 || len(p.Fails) > len(names)/20 {
		return fmt.Errorf("the suite of %s with guards fails, so that it can prove nothing:\n%s", p.Package, suite.LastLines(string(first.out), 30))
	}
	if !first.passed && len(p.Fails) == 0 {
		return fmt.Errorf("the suite of %s with guards fails, but no test of it:\n%s", p.Package, suite.LastLines(string(first.out), 30))
	}
	p.Tests = make([]*test, len(names))
	done := 0
	err = parallel(ctx, workers, len(names), func(i int) error {
		t, err := p.meets(ctx, names[i])
		p.Tests[i] = t
		return err
	}, func() { done++; told(done, len(names)) })
	slices.SortStableFunc(p.Tests, func(a, b *test) int { return cmp.Compare(a.Takes, b.Takes) })
	return err
}

// meets runs one test alone and notes the mutants that it comes by.
func (p *program) meets(ctx context.Context, name string) (*test, error) {
	notes, err := os.CreateTemp("", "met-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = notes.Close(); _ = os.Remove(notes.Name()) }()
	cmd := exec.CommandContext(ctx, p.Binary, "-test.short", "-test.timeout=2m", "-test.run=^"+name+"$")
	cmd.Dir = p.Dir
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
