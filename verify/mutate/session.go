package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// session is a package with its mutants, and what earlier runs found.
type session struct {
	root    string // the library's
	pkg     *pkg
	mutants []*mutant
	state   *state
	metOnly bool
	most    time.Duration // see -most
}

// lister says which mutants gremlins has: askGremlins, but for tests.
type lister func(ctx context.Context, root string, t target) (gremlinsReport, error)

// newSession reads the package of t and lists its mutants; states is where each package has its own.
func newSession(ctx context.Context, root, states string, t target, ask lister) (*session, error) {
	p, err := load(root, t)
	if err != nil {
		return nil, err
	}
	now, err := hash(root, p)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(states, t.folder())
	s := &session{root: root, pkg: p}
	if s.state, err = openState(dir, now); err != nil {
		return nil, err
	}
	listed, err := cached(filepath.Join(dir, "gremlins-"+now.Sources+".json"), func() (gremlinsReport, error) {
		say("%s: gremlins lists its mutants", t)
		return ask(ctx, root, t)
	})
	if err != nil {
		return nil, err
	}
	return s, s.mutate(listed)
}

// mutate lists the mutants and finds out which of them compile.
func (s *session) mutate(listed gremlinsReport) error {
	if err := addGremlins(s.pkg, listed); err != nil {
		return err
	}
	addDeletions(s.pkg)
	s.mutants = number(s.pkg)
	return s.pkg.treat()
}

// bench compiles and measures the suites, if no earlier run did so with the same source and tests.
func (s *session) bench(ctx context.Context, workers int) (*bench, error) {
	b := &bench{pkg: s.pkg, patience: time.Second, metOnly: s.metOnly, most: s.most, kills: map[string]int{}}
	edited := s.pkg.overlay()
	var all []byte
	for _, path := range slices.Sorted(maps.Keys(edited)) {
		all = append(all, edited[path]...)
	}
	now := digest(all, []byte(s.state.now.Sources), []byte(s.state.now.Tests))
	dir := filepath.Join(s.state.dir, "suites-"+now)
	if old, err := filepath.Glob(filepath.Join(s.state.dir, "suites-*")); err == nil {
		for _, o := range old {
			if o != dir { // they are large
				_ = os.RemoveAll(o)
			}
		}
	}
	for i, l := range s.pkg.suites {
		name := fmt.Sprintf("%d_%s", i, l.Name)
		prog, err := cached(filepath.Join(dir, name+".json"), func() (*program, error) {
			say("%s: compiling the suite with its guards", l.ImportPath)
			prog, err := s.pkg.compile(ctx, l, filepath.Join(dir, name), edited)
			if err != nil {
				return nil, err
			}
			say("%s: measuring which test meets which mutant", l.ImportPath)
			return prog, prog.measure(ctx, workers, func(int, int) {})
		})
		if err != nil {
			return nil, err
		}
		if len(prog.Fails) > 0 {
			say("%s: bear no guards, and are asked without: %v", l.ImportPath, prog.Fails)
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
		if r, ok := s.state.known(m); ok {
			results[i] = r
		} else {
			todo = append(todo, i)
		}
	}
	var err error
	if len(todo) > 0 {
		say("%s: %d mutants, %d of them known from before", s.pkg, len(chosen), len(chosen)-len(todo))
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
		return s.state.keep(r)
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
