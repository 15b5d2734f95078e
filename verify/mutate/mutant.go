package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// mutant is one small change of the source.
type mutant struct {
	ID   int    `json:"-"` // from 1, in the order of the source
	File string `json:"file"`
	Line int    `json:"line"`
	Decl string `json:"in"`   // "(*Cache).Do"
	Kind string `json:"kind"` // "conditionals boundary", "delete call"
	Text string `json:"text"` // what is changed or deleted, on one line

	to   token.Token // what the token becomes; ILLEGAL: the statement is deleted
	site *site
	how  treatment
}

// treatment is how a mutant is compiled.
type treatment int

const (
	guarded   treatment = iota // with most others into one program that is told which of them is alive
	alone                      // a constant, say, which no guard can change
	notViable                  // does not compile
)

// name tells m from all others of its package, and stays when lines move.
func (m *mutant) name() string { return fmt.Sprintf("%s: %s: %s", m.Decl, m.Kind, m.Text) }

// site is a piece of the source that mutants change.
type site struct {
	file     *file
	node     ast.Node
	from, to int  // offsets
	inList   bool // a statement in a list of statements, so that another kind of statement can stand for it
	mutants  []*mutant
}

// add adds m, which changes n.
func (f *file) add(n ast.Node, parents []ast.Node, m mutant) {
	s := &site{file: f, node: n, from: f.offset(n.Pos()), to: f.offset(n.End()), inList: inList(n, parents)}
	i, ok := slices.BinarySearchFunc(f.sites, s, compareSites)
	if ok {
		s = f.sites[i]
	} else {
		f.sites = slices.Insert(f.sites, i, s)
	}
	m.File, m.Line, m.site = f.path, f.pkg.set.Position(n.Pos()).Line, s
	if pos, _ := tokenOf(n); m.to != token.ILLEGAL && pos.IsValid() {
		m.Line = f.pkg.set.Position(pos).Line
	}
	m.Text = oneLine(f.text(n))
	s.mutants = append(s.mutants, &m)
}

// compareSites: the outer comes before the inner.
func compareSites(a, b *site) int {
	if a.from != b.from {
		return a.from - b.from
	}
	return b.to - a.to
}

// oneLine returns the beginning of s, on one line.
func oneLine(s string) string {
	const most = 90
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return s
}

// inList reports whether n is a statement in a list of statements.
func inList(n ast.Node, parents []ast.Node) bool {
	stmt, ok := n.(ast.Stmt)
	if !ok || len(parents) == 0 {
		return false
	}
	switch p := parents[len(parents)-1].(type) {
	case *ast.BlockStmt:
		return true
	case *ast.CaseClause:
		return true
	case *ast.CommClause:
		return p.Comm != stmt
	}
	return false
}

// addDeletions adds for each statement that does something, and that the rest compiles without, a
// mutant that deletes it; and for each case of a select one in which it never comes.
func addDeletions(p *pkg) {
	for _, f := range p.files {
		f.within(func(n ast.Node, parents []ast.Node, decl string) {
			if clause, ok := n.(*ast.CommClause); ok && channelOf(clause) != nil {
				f.add(channelOf(clause), parents, mutant{Decl: decl, Kind: "delete case"})
			}
			if inList(n, parents) {
				if kind := f.deletable(n); kind != "" {
					f.add(n, parents, mutant{Decl: decl, Kind: "delete " + kind})
				}
			}
		})
	}
}

// deletable says what kind of statement n is, "" for those that are never deleted: a declaration
// (what it declares is missing), a return, a block (its statements are deleted one by one).
func (f *file) deletable(n ast.Node) string {
	switch n := n.(type) {
	case *ast.ExprStmt:
		if call, ok := n.X.(*ast.CallExpr); ok {
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "yield" {
					return "" // the points of verify/explore do nothing in production
				}
			}
			return "call"
		}
		return "receive"
	case *ast.AssignStmt:
		if n.Tok == token.DEFINE {
			return ""
		}
		for _, x := range n.Lhs {
			if id, ok := x.(*ast.Ident); !ok || id.Name != "_" {
				return "assignment"
			}
		}
		if _, ok := n.Rhs[0].(*ast.CallExpr); ok {
			return "call"
		}
	case *ast.IncDecStmt:
		return "assignment"
	case *ast.SendStmt:
		return "send"
	case *ast.DeferStmt:
		return "defer"
	case *ast.GoStmt:
		return "go"
	case *ast.BranchStmt:
		if n.Tok == token.BREAK || n.Tok == token.CONTINUE {
			return "branch"
		}
	}
	return ""
}

// channelOf returns the channel that a case of a select waits on, nil for default.
func channelOf(clause *ast.CommClause) ast.Expr {
	receive := func(x ast.Expr) ast.Expr {
		if u, ok := ast.Unparen(x).(*ast.UnaryExpr); ok && u.Op == token.ARROW {
			return u.X
		}
		return nil
	}
	switch c := clause.Comm.(type) {
	case *ast.SendStmt:
		return c.Chan
	case *ast.ExprStmt:
		return receive(c.X)
	case *ast.AssignStmt:
		return receive(c.Rhs[0])
	}
	return nil
}

// number returns all mutants of p, numbered and each with a name of its own.
func number(p *pkg) []*mutant {
	var all []*mutant
	times := map[string]int{}
	for _, f := range p.files {
		f.each(func(m *mutant) {
			name := m.name()
			if times[name]++; times[name] > 1 {
				m.Text += fmt.Sprintf(" #%d", times[name])
			}
			all = append(all, m)
			m.ID = len(all)
		})
	}
	return all
}
