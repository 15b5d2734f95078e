package main

import (
	"context"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/idemflight/idemflight/verify/internal/plant"
	"github.com/idemflight/idemflight/verify/internal/suite"
)

// To compile a suite takes longer than to run it. So all faults of a suite are compiled into one
// program, each behind a guard (plant.ApplyGuarded), and the environment says which is alive. What
// cannot be guarded is tried alone. Some tests bear no guards: they are left out of the program, and asked
// alone about what it does not find.

// guardSource is added to each package that has guards, under its name.
const guardSource = `package %s

import (
	"os"
	"strconv"
)

// The number of the fault that is alive; 0 none.
var fault_alive, _ = strconv.Atoi(os.Getenv("FAULT_ALIVE"))
`

// guardImports are what guardSource imports.
var guardImports = []string{"os", "strconv"}

const guardFile = "fault_guards.go"

// question is a suite: a package, and the module in which the go command runs. Both are folders,
// relative to the library's root.
type question struct{ module, pkg string }

// path returns the package as the go command takes it in its module.
func (q question) path() string {
	path, err := filepath.Rel(q.module, q.pkg)
	if err != nil {
		return q.pkg // the go command will say what is wrong
	}
	return "./" + filepath.ToSlash(path)
}

func (f fault) question() question { return question{f.module(), f.suite()} }

// program is a suite with faults behind guards.
type program struct {
	binary suite.Binary
	alive  map[string]int // the numbers of its faults, by their names
	quick  []string       // tests that take little
	fails  []string       // tests that bear no guards

	mu      sync.Mutex
	checker *plant.Checker
}

// prepare compiles the programs of all suites that chosen ask, into dir. They have all faults there
// are, whatever is chosen, so that the go command can find much of them in its cache.
func (b bench) prepare(ctx context.Context, all, chosen []fault, dir string) (map[question]*program, error) {
	programs := map[question]*program{}
	checkers := map[string]*plant.Checker{}
	for _, f := range chosen {
		q := f.question()
		if programs[q] != nil {
			continue
		}
		var err error
		if checkers[q.module] == nil {
			if checkers[q.module], err = plant.NewChecker(filepath.Join(b.dir, q.module), guardImports...); err != nil {
				return nil, err
			}
		}
		asked := slices.DeleteFunc(slices.Clone(all), func(o fault) bool { return o.question() != q })
		p := &program{alive: map[string]int{}, checker: checkers[q.module]}
		edited, err := b.guard(p, asked)
		if err != nil {
			return nil, err
		}
		say("%s: compiling its suite with %d of %d faults behind guards", q.pkg, len(p.alive), len(asked))
		to := filepath.Join(dir, fmt.Sprint(len(programs)))
		p.binary, err = suite.Compile(ctx, filepath.Join(b.dir, q.module), q.path(), filepath.Join(b.dir, q.pkg), to, edited)
		if err != nil {
			return nil, err
		}
		if err := b.soundProgram(ctx, p, q); err != nil {
			return nil, err
		}
		programs[q] = p
	}
	return programs, nil
}

// guard numbers those of faults that can be guarded and returns the texts of files that have them.
func (b bench) guard(p *program, faults []fault) (map[string][]byte, error) {
	edited := map[string][]byte{}
	byDir := map[string][]plant.Guarded{}
	for i, f := range faults {
		p.alive[f.name] = i + 1
		byDir[f.dir()] = append(byDir[f.dir()], plant.Guarded{Edit: f.edit(), Guard: fmt.Sprintf("fault_alive == %d", i+1)})
	}
	refused := map[string]bool{} // by guard
	for folder, edits := range byDir {
		texts, err := guardPackage(filepath.Join(b.dir, folder), p.checker, edits, refused)
		if err != nil {
			return nil, err
		}
		maps.Copy(edited, texts)
	}
	maps.DeleteFunc(p.alive, func(_ string, n int) bool { return refused[fmt.Sprintf("fault_alive == %d", n)] })
	return edited, nil
}

// guardPackage puts edits behind guards in the package in dir, but for those that it adds to refused.
func guardPackage(dir string, checker *plant.Checker, edits []plant.Guarded, refused map[string]bool) (map[string][]byte, error) {
	refuse := func(e plant.Guarded) bool { refused[e.Guard] = true; return true }
	source, err := plant.Load(dir)
	if err != nil { // there is no such package, and each fault says so when it is tried
		for _, e := range edits {
			refuse(e)
		}
		return nil, nil
	}
	guards, err := guardsFor(dir)
	if err != nil {
		return nil, err
	}
	if err := checker.Check(source, map[string][]byte{filepath.Join(dir, guardFile): guards}); err != nil {
		return nil, fmt.Errorf("bug: with no guard: %w", err)
	}
	apply := func(edits ...plant.Guarded) (map[string][]byte, error) {
		texts, err := source.ApplyGuarded(edits...)
		if err != nil {
			return nil, err
		}
		texts[filepath.Join(dir, guardFile)] = guards
		return texts, checker.Check(source, texts)
	}
	edits = slices.DeleteFunc(edits, func(e plant.Guarded) bool {
		_, err := source.ApplyGuarded(e)
		return err != nil && refuse(e)
	})
	if len(edits) == 0 {
		return nil, nil
	}
	texts, err := apply(edits...)
	if err == nil {
		return texts, nil
	}
	// Most declarations compile with all their guards; in the others each is asked for.
	fits := map[string]bool{}
	edits = slices.DeleteFunc(edits, func(e plant.Guarded) bool {
		fit, known := fits[e.In]
		if !known {
			_, err := apply(slices.DeleteFunc(slices.Clone(edits), func(o plant.Guarded) bool { return o.In != e.In })...)
			fit = err == nil
			fits[e.In] = fit
		}
		if fit {
			return false
		}
		_, err := apply(e)
		return err != nil && refuse(e)
	})
	if len(edits) == 0 {
		return nil, nil
	}
	if texts, err = apply(edits...); err != nil {
		return nil, fmt.Errorf("bug: with all guards: %w", err)
	}
	return texts, nil
}

// guardsFor returns what is added to the package in dir.
func guardsFor(dir string) ([]byte, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		syntax, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.PackageClauseOnly)
		if err != nil {
			return nil, err
		}
		return fmt.Appendf(nil, guardSource, syntax.Name.Name), nil
	}
	return nil, errors.New(dir + " has no Go source")
}

// soundProgram is sound for a suite with guards: no fault being alive, it must pass. Tests that do not,
// guards cost too much for them, must pass without any.
func (b bench) soundProgram(ctx context.Context, p *program, q question) error {
	e, err := p.binary.Run(ctx, 10*time.Minute, nil, "-test.failfast=false")
	if err != nil {
		return err
	}
	passed, failed := e.TopLevel()
	if len(passed) == 0 || !e.Passed && len(failed) == 0 {
		return fmt.Errorf("the suite of %s with guards fails without a fault, so that it can prove nothing:\n%s", q.pkg, suite.LastLines(string(e.Out), 20))
	}
	p.quick = e.Quick(100 * time.Millisecond)
	if p.fails = failed; len(failed) == 0 {
		return nil
	}
	pattern := exactly(failed)
	if t, err := b.ask(ctx, q, nil, pattern); err != nil {
		return err
	} else if !t.passed || t.ran == 0 {
		return fmt.Errorf("the suite of %s fails without a fault, so that it can prove nothing:\n%s", q.pkg, t.text)
	}
	say("%s: bear no guards, and are asked alone: %v", q.pkg, failed)
	return nil
}

// exactly returns the pattern of the tests of names.
func exactly(names []string) string { return "^(" + strings.Join(names, "|") + ")$" }

// tryGuarded asks the program, in which f has a guard: the first tests, those that take little, and all
// others. It returns misfit if f is to be tried alone, since the program does not know.
func (b bench) tryGuarded(ctx context.Context, p *program, f fault) (v verdict, caughtBy string) {
	if !p.compiles(b, f) {
		return misfit, ""
	}
	type tests struct {
		run     string
		skip    []string
		timeout time.Duration
	}
	inTurn := []tests{{"", slices.Concat(p.quick, p.fails), 5 * b.timeout}}
	if len(p.quick) > 0 {
		inTurn = slices.Insert(inTurn, 0, tests{exactly(p.quick), nil, b.timeout})
	}
	if first := f.firstTests(); first != "" {
		inTurn = slices.Insert(inTurn, 0, tests{first, p.fails, b.timeout / 3}) // they are few
	}
	for i, these := range inTurn {
		args := []string{"-test.run=" + these.run}
		if len(these.skip) > 0 {
			args = append(args, "-test.skip="+exactly(these.skip))
		}
		e, err := p.binary.Run(ctx, these.timeout, []string{fmt.Sprintf("FAULT_ALIVE=%d", p.alive[f.name])}, args...)
		switch {
		case e.CaughtBy != "":
			return found, e.CaughtBy
		case err != nil || !e.Passed || e.Ran == 0 && i == 0 && f.firstTests() != "": // for example, a hint that is none
			return misfit, ""
		}
	}
	return survived, ""
}

// compiles reports whether f does so alone: what follows a guard may make up for a return that is missing.
func (p *program) compiles(b bench, f fault) bool {
	source, err := b.source(f)
	if err != nil {
		return false
	}
	edited, err := source.Apply(f.edit())
	if err != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.checker.Check(source, edited) == nil
}

// say prints how far it is, for who waits.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
