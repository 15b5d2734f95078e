package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/idemflight/idemflight/verify/internal/plant"
	"github.com/idemflight/idemflight/verify/internal/suite"
)

// fault is a small edit of the library's source that breaks one sentence of its contract.
type fault struct {
	name     string
	promise  string // a number, a line of idemhttp's part of the contract, or a package around the core
	sentence string // what does not hold any more
	pkg      string // where in the module the package is that has it, if not the one whose suite is asked
	in       string // the declaration that is changed: see plant.Edit
	old, new string // old must occur exactly once in it
	text     string // of SQL or Lua that new replaces: it must be in the package's files exactly once
	hint     string // -run pattern of the tests that are tried first, if not those named after the promise
	quick    bool   // one of the sample that -quick runs
}

// suite returns the package whose ordinary tests are to fail.
func (f fault) suite() string {
	switch {
	case slices.Contains(linesOfHTTP, f.promise):
		return "./idemhttp"
	case f.ofStores():
		return "./storetest"
	case slices.Contains(packagesAround, f.promise):
		return "./" + f.promise
	}
	return "."
}

// module returns where the go.mod is by which that package's tests are compiled.
func (f fault) module() string {
	if slices.Contains(modulesAround, f.promise) {
		return f.promise
	}
	return "."
}

// ofStores reports whether f breaks a promise that the core keeps and storetest tests.
func (f fault) ofStores() bool { return slices.Contains(promisesOfStores, f.promise) }

// dir returns the package that f changes, which may be one that its suite tests from outside.
func (f fault) dir() string {
	if f.pkg == "" && f.ofStores() {
		return "."
	}
	return cmp.Or(f.pkg, f.suite())
}

// edit returns what f does to the source of that package.
func (f fault) edit() plant.Edit { return plant.Edit{In: f.in, Old: f.old, New: f.new} }

// firstTests returns the pattern of the tests that most likely find f; "" = the whole suite at once.
func (f fault) firstTests() string {
	if n, err := strconv.Atoi(f.promise); err == nil && f.hint == "" {
		return fmt.Sprintf("^TestPromise%02d_", n)
	}
	return f.hint
}

// verdict is what became of a fault.
type verdict string

const (
	found     verdict = "found"
	survived  verdict = "SURVIVED"           // the whole suite passes: a test is missing
	misfit    verdict = "DOES NOT APPLY"     // the old text is not in its declaration exactly once, or the hint matches no test
	broken    verdict = "DOES NOT COMPILE"   // which proves nothing about the tests
	undecided verdict = "could not be tried" // the go command failed in another way, or was interrupted
)

// result is the outcome of one fault.
type result struct {
	Name     string  `json:"name"`
	Promise  string  `json:"promise"`
	Sentence string  `json:"sentence"`
	In       string  `json:"in"`
	Verdict  verdict `json:"verdict"`
	CaughtBy string  `json:"caught_by,omitempty"` // the first test that failed, and how if not by an assertion
	Detail   string  `json:"detail,omitempty"`    // for all but found
	Alone    bool    `json:"alone,omitempty"`     // it had a program of its own
	Seconds  float64 `json:"seconds"`
}

// bench is the library whose suites are asked.
type bench struct {
	dir      string        // the library's root
	timeout  time.Duration // of a run of some tests, five times that of all: a fault that makes a test hang is caught by it
	programs map[question]*program
}

// try plants f and asks the suite: first the tests that hint names, then all. What has a guard is asked
// of the program, and alone of those tests that the program is without.
func (b bench) try(ctx context.Context, f fault) result {
	start := time.Now()
	r := result{Name: f.name, Promise: f.promise, Sentence: f.sentence, In: f.in, Verdict: misfit}
	alone := slices.Compact([]string{f.firstTests(), ""})
	if p := b.programs[f.question()]; p != nil && p.alive[f.name] != 0 {
		if r.Verdict, r.CaughtBy = b.tryGuarded(ctx, p, f); r.Verdict == survived && len(p.fails) > 0 {
			alone, r.Verdict = []string{exactly(p.fails)}, misfit
		}
	}
	switch {
	case r.Verdict == survived:
		r.Detail = b.nobodyFails(f)
	case r.Verdict != found:
		r.Alone = true
		r.Verdict, r.CaughtBy, r.Detail = b.judge(ctx, f, alone)
	}
	r.Seconds = time.Since(start).Seconds()
	return r
}

func (b bench) nobodyFails(f fault) string { return "the whole suite of " + f.suite() + " passes" }

// judge asks the tests of these patterns, in turn, about f alone.
func (b bench) judge(ctx context.Context, f fault, patterns []string) (v verdict, caughtBy, detail string) {
	planted, err := b.plant(f)
	if err != nil {
		return misfit, "", err.Error()
	}
	for _, pattern := range patterns {
		t, err := b.ask(ctx, f.question(), planted, pattern)
		if err != nil {
			return undecided, "", err.Error()
		}
		switch {
		case ctx.Err() != nil:
			return undecided, "", "interrupted"
		case t.buildFailed:
			return broken, "", t.text
		case t.passed && t.ran == 0:
			return misfit, "", fmt.Sprintf("no test matches the hint %q", pattern)
		case t.passed:
			continue
		case t.caughtBy == "":
			return undecided, "", t.text
		}
		return found, t.caughtBy, ""
	}
	return survived, "", b.nobodyFails(f)
}

// source returns the package that f changes.
func (b bench) source(f fault) (*plant.Package, error) {
	return plant.Load(filepath.Join(b.dir, f.dir()))
}

// plant returns the files that f changes, by their paths, with the fault in them.
func (b bench) plant(f fault) (map[string][]byte, error) {
	source, err := b.source(f)
	if err != nil {
		return nil, err
	}
	return source.Apply(f.edit())
}

// ask runs the tests of q that match pattern with planted, the files that have a fault, in place of
// those of the library. It does so with the go command's -overlay, so that the source itself stays
// as it is.
func (b bench) ask(ctx context.Context, q question, planted map[string][]byte, pattern string) (testRun, error) {
	dir, err := os.MkdirTemp("", "fault-")
	if err != nil {
		return testRun{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	edited := map[string][]byte{}
	if pattern == "" {
		b.timeout *= 5 // on a busy machine a suite that takes long hangs no more than another
	} else {
		b.timeout /= 3 // they are few
		if edited, err = narrow(filepath.Join(b.dir, q.pkg), pattern); err != nil {
			return testRun{}, err
		}
	}
	maps.Copy(edited, planted)
	overlay, err := suite.Overlay(dir, edited)
	if err != nil {
		return testRun{}, err
	}
	return b.goTest(ctx, overlay, pattern, q), nil
}

// testRun is what one go test said.
type testRun struct {
	passed, buildFailed bool
	ran                 int    // tests that started
	caughtBy            string // "" if nothing says that a test failed
	text                string // its last lines
}

// goTest runs the tests of q that match pattern, up to the first that fails.
func (b bench) goTest(ctx context.Context, overlay, pattern string, q question) testRun {
	args := []string{"test", "-json", "-short", "-vet=off", "-failfast", "-timeout", b.timeout.String()}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	if pattern != "" {
		args = append(args, "-run", pattern)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, q.path())...)
	cmd.Dir = filepath.Join(b.dir, q.module)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	t := readEvents(out)
	t.passed = err == nil
	return t
}

// readEvents reads the output of go test -json.
func readEvents(out []byte) testRun {
	var t testRun
	var failed, running []string
	var text strings.Builder
	how := ""
	for line := range bytes.Lines(out) {
		var e struct{ Action, Test, Output string }
		if json.Unmarshal(line, &e) != nil {
			text.Write(line) // of the go command itself
			continue
		}
		text.WriteString(e.Output)
		switch e.Action {
		case "build-fail":
			t.buildFailed = true
		case "run":
			t.ran++
			running = append(running, e.Test)
		case "fail":
			if e.Test != "" {
				failed = append(failed, e.Test)
			}
			fallthrough
		case "pass", "skip":
			running = slices.DeleteFunc(running, func(test string) bool { return test == e.Test })
		case "output":
			how = cmp.Or(how, suite.HowItEnded(e.Output))
		}
	}
	// A subtest is told before its parent, and starts after it; a test that hangs is not told at all.
	if len(failed) > 0 {
		t.caughtBy = failed[0]
	} else if how != "" && len(running) > 0 {
		t.caughtBy = running[len(running)-1]
	}
	if how != "" {
		t.caughtBy = strings.TrimSpace(t.caughtBy + " (" + how + ")")
	}
	t.text = suite.LastLines(text.String(), 12)
	return t
}
