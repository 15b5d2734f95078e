package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// session is the library with its mutants, and what earlier runs found.
type session struct {
	root    string
	pkgs    []*pkg
	mutants []*mutant
	state   *state
	sources map[string]string // hashes, by package, of it and of what it imports of the library
	tests   map[string]string // and of the tests that are asked
}

// lister says which mutants gremlins has: askGremlins, but for tests.
type lister func(ctx context.Context, root string) (gremlinsReport, error)

// newSession reads the packages that tests names, those that others import first, and lists mutants.
func newSession(ctx context.Context, root, stateDir string, ask lister, tests ...string) (*session, error) {
	pkgs, err := load(root, tests...)
	if err != nil {
		return nil, err
	}
	s := &session{root: root, pkgs: pkgs, sources: map[string]string{}, tests: map[string]string{}}
	if s.state, err = openState(stateDir); err != nil {
		return nil, err
	}
	var before, after []byte
	for _, p := range pkgs {
		before = append(before, p.sourcesHash()...)
		s.sources[p.test] = digest(before)
	}
	for i := len(pkgs) - 1; i >= 0; i-- {
		h, err := pkgs[i].testsHash()
		if err != nil {
			return nil, err
		}
		after = append(after, h...)
		s.tests[pkgs[i].test] = digest(after)
	}
	listed, err := cached(filepath.Join(stateDir, "gremlins-"+digest(before)+".json"), func() (gremlinsReport, error) {
		say("gremlins lists its mutants")
		return ask(ctx, root)
	})
	if err != nil {
		return nil, err
	}
	return s, s.mutate(listed)
}

// mutate lists the mutants and finds out which of them compile.
func (s *session) mutate(listed gremlinsReport) error {
	if err := addGremlins(s.pkgs, listed); err != nil {
		return err
	}
	addDeletions(s.pkgs)
	s.mutants = number(s.pkgs)
	for _, p := range s.pkgs {
		if err := p.treat(); err != nil {
			return err
		}
	}
	return nil
}

// bench compiles and measures the suites, if no earlier run did so with the same source and tests.
func (s *session) bench(ctx context.Context, workers int) (*bench, error) {
	b := &bench{root: s.root, pkgs: s.pkgs, patience: time.Second, kills: map[string]int{}}
	edited := overlay(s.root, s.pkgs)
	var all []byte
	for _, p := range s.pkgs {
		all = append(all, p.guards()...)
		for _, f := range p.files {
			all = append(all, edited[filepath.Join(s.root, f.path)]...)
		}
	}
	now := digest(all, []byte(s.tests[s.pkgs[0].test]))
	dir := filepath.Join(s.state.dir, "suites-"+now)
	if old, err := filepath.Glob(filepath.Join(s.state.dir, "suites-*")); err == nil {
		for _, o := range old {
			if o != dir { // they are large
				_ = os.RemoveAll(o)
			}
		}
	}
	for i, p := range s.pkgs {
		name := fmt.Sprintf("%d_%s", i, p.name)
		prog, err := cached(filepath.Join(dir, name+".json"), func() (*program, error) {
			say("%s: compiling the suite with its guards", p.test)
			prog, err := compile(ctx, p, s.root, dir, name, edited)
			if err != nil {
				return nil, err
			}
			say("%s: measuring which test meets which mutant", p.test)
			return prog, prog.measure(ctx, workers, func(int, int) {})
		})
		if err != nil {
			return nil, err
		}
		if len(prog.Fails) > 0 {
			say("%s: bear no guards, and are asked without: %v", p.test, prog.Fails)
		}
		b.programs = append(b.programs, prog)
	}
	return b, nil
}

// run tries the chosen mutants, but for those whose results are known. The results come in their
// order; those there are come with the error, if any.
func (s *session) run(ctx context.Context, chosen []*mutant, workers int, verbose bool) ([]result, error) {
	results := make([]result, len(chosen))
	var todo []int
	for i, m := range chosen {
		if r, ok := s.state.known(m, s.sources[m.Pkg], s.tests[m.Pkg]); ok {
			results[i] = r
		} else {
			todo = append(todo, i)
		}
	}
	var err error
	if len(todo) > 0 {
		say("%d mutants, %d of them known from before", len(chosen), len(chosen)-len(todo))
		err = s.try(ctx, chosen, todo, results, workers, verbose)
	}
	var done []result
	for _, r := range results {
		if r.Verdict != "" {
			done = append(done, r)
		}
	}
	return done, err
}

func (s *session) try(ctx context.Context, chosen []*mutant, todo []int, results []result, workers int, verbose bool) error {
	b, err := s.bench(ctx, workers)
	if err != nil {
		return err
	}
	done := 0
	return parallel(ctx, workers, len(todo), func(n int) error {
		m := chosen[todo[n]]
		r, err := b.judge(ctx, m)
		if err != nil {
			return fmt.Errorf("%s:%d %s: %w", m.File, m.Line, m.name(), err)
		}
		results[todo[n]] = r
		if verbose || r.Verdict == survived || r.Verdict == timedOut {
			say("%s", r.line())
		}
		return s.state.keep(r, s.sources[m.Pkg], s.tests[m.Pkg])
	}, func() {
		if done++; done%50 == 0 {
			say("%d of %d", done, len(todo))
		}
	})
}

// cached returns what is in file, else what get returns, which it puts there.
func cached[T any](file string, get func() (T, error)) (T, error) {
	var v T
	if text, err := os.ReadFile(file); err == nil && json.Unmarshal(text, &v) == nil {
		return v, nil
	}
	v, err := get()
	if err != nil {
		return v, err
	}
	text, err := json.Marshal(v)
	if err != nil {
		return v, err
	}
	return v, os.WriteFile(file, text, 0o600)
}
