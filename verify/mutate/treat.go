package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"path/filepath"
)

// treat finds out for each mutant of p whether it compiles, and behind a guard or alone, by asking the
// compiler's front end. A deletion that leaves a variable unused counts as viable: the guard uses it.
func (p *pkg) treat() error {
	for _, f := range p.files {
		if p.accepts(f, isGuardable) {
			f.each(func(m *mutant) {
				if !isGuardable(m) {
					m.how = p.treatAlone(m)
				}
			})
			continue
		}
		// Most declarations are accepted as a whole; in the others each mutant is asked for.
		fits := map[string]bool{}
		f.each(func(m *mutant) {
			fit, known := fits[m.Decl]
			if !known {
				fit = p.accepts(f, func(o *mutant) bool { return o.Decl == m.Decl && isGuardable(o) })
				fits[m.Decl] = fit
			}
			if !isGuardable(m) || !fit && !p.accepts(f, func(o *mutant) bool { return o == m }) {
				m.how = p.treatAlone(m)
			}
		})
	}
	for _, f := range p.files {
		if err := p.checkGuards(f, isGuarded); err != nil {
			return fmt.Errorf("bug: with all its guards: %w", err)
		}
	}
	return nil
}

func (p *pkg) treatAlone(m *mutant) treatment {
	if p.check(map[string][]byte{m.File: m.alone()}, nil) != nil {
		return notViable
	}
	return alone
}

// accepts reports whether f compiles with the mutants that in selects behind guards.
func (p *pkg) accepts(f *file, in func(*mutant) bool) bool {
	return p.checkGuards(f, in) == nil
}

func (p *pkg) checkGuards(f *file, in func(*mutant) bool) error {
	return p.check(map[string][]byte{f.path: f.guard(in), guardFile: p.guards()}, nil)
}

// guards returns what is added to the package for its guards.
func (p *pkg) guards() []byte { return fmt.Appendf(nil, guardSource, p.goName) }

func (f *file) each(visit func(*mutant)) {
	for _, s := range f.sites {
		for _, m := range s.mutants {
			visit(m)
		}
	}
}

func isGuarded(m *mutant) bool { return m.how == guarded }

// isGuardable reports whether guard knows how to put m behind one that does the same as m alone.
func isGuardable(m *mutant) bool {
	switch n := m.site.node.(type) {
	case *ast.UnaryExpr:
		return n.Op == token.SUB || m.to == token.ILLEGAL
	case *ast.BinaryExpr: // !(a < b) is not a >= b if one is not a number
		b, ok := m.site.file.pkg.info.TypeOf(n.X).Underlying().(*types.Basic)
		return !ok || b.Info()&types.IsFloat == 0
	}
	return true
}

// overlay returns the sources of p, by their paths, with all guarded mutants in them.
func (p *pkg) overlay() map[string][]byte {
	edited := map[string][]byte{filepath.Join(p.dir, guardFile): p.guards()}
	for _, f := range p.files {
		edited[f.abs()] = f.guard(isGuarded)
	}
	return edited
}
