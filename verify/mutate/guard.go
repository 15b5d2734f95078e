package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"slices"
	"strings"
)

// To compile the core's suite takes half a minute, to run the tests that meet a line a fraction of a
// second. So all mutants are compiled into one program, each behind a guard that asks for its number,
// and the environment says which is alive: a statement s becomes
//
//	if !mutant_on(7) { s }
//
// and a condition a < b, which may turn into a <= b and into a >= b,
//
//	(mutant_on(8) != (mutant_less(9, a, b)))
//
// A guarded operator evaluates its operands as often, and in the same order, as it did, or as its
// mutant does.

// guardImports are what guardSource imports.
var guardImports = []string{"cmp", "os", "strconv", "sync/atomic", "syscall"}

// guardSource is added to each mutated package, under its name.
const guardSource = `package %s

import (
	"cmp"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
)

// The number of the mutant that is alive; 0 none, -1 none and all that are met are noted.
var mutant_alive, mutant_notes = func() (int, int) {
	alive, _ := strconv.Atoi(os.Getenv("MUTANT"))
	if alive >= 0 {
		return alive, -1
	}
	notes, err := syscall.Open(os.Getenv("MUTANTS_MET"), syscall.O_WRONLY|syscall.O_APPEND|syscall.O_CREAT, 0o600)
	if err != nil {
		panic(err)
	}
	return alive, notes
}()

var mutant_met [1 << 16]atomic.Bool

func mutant_on(n int) bool { return n == mutant_alive || mutant_alive < 0 && mutant_note(n) }

//go:noinline
func mutant_note(n int) bool {
	if !mutant_met[n].Swap(true) {
		_, _ = syscall.Write(mutant_notes, []byte(strconv.Itoa(n)+"\n"))
	}
	return false
}

type mutant_integer interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr
}

type mutant_number interface { mutant_integer | ~float32 | ~float64 }

func mutant_less[T cmp.Ordered](n int, a, b T) bool { if mutant_on(n) { return a <= b }; return a < b }
func mutant_lessEqual[T cmp.Ordered](n int, a, b T) bool { if mutant_on(n) { return a < b }; return a <= b }
func mutant_greater[T cmp.Ordered](n int, a, b T) bool { if mutant_on(n) { return a >= b }; return a > b }
func mutant_greaterEqual[T cmp.Ordered](n int, a, b T) bool { if mutant_on(n) { return a > b }; return a >= b }

func mutant_add[T mutant_number](n int, a, b T) T { if mutant_on(n) { return a - b }; return a + b }
func mutant_sub[T mutant_number](n int, a, b T) T { if mutant_on(n) { return a + b }; return a - b }
func mutant_mul[T mutant_number](n int, a, b T) T { if mutant_on(n) { return a / b }; return a * b }
func mutant_quo[T mutant_number](n int, a, b T) T { if mutant_on(n) { return a * b }; return a / b }
func mutant_rem[T mutant_integer](n int, a, b T) T { if mutant_on(n) { return a * b }; return a %% b }
func mutant_and[T mutant_integer](n int, a, b T) T { if mutant_on(n) { return a | b }; return a & b }
func mutant_or[T mutant_integer](n int, a, b T) T { if mutant_on(n) { return a & b }; return a | b }
func mutant_xor[T mutant_integer](n int, a, b T) T { if mutant_on(n) { return a & b }; return a ^ b }
func mutant_andNot[T mutant_integer](n int, a, b T) T { if mutant_on(n) { return a & b }; return a &^ b }
func mutant_shl[T, S mutant_integer](n int, a T, b S) T { if mutant_on(n) { return a >> b }; return a << b }
func mutant_shr[T, S mutant_integer](n int, a T, b S) T { if mutant_on(n) { return a << b }; return a >> b }
func mutant_neg[T mutant_number](n int, a T) T { if mutant_on(n) { return +a }; return -a }

// A nil channel never comes.
func mutant_chan[C any](n int, c C) C { if mutant_on(n) { var never C; return never }; return c }
`

const guardFile = "mutant_guards.go"

// guardedOps names the function that stands for an operator one of whose mutants changes it.
var guardedOps = map[token.Token]string{
	token.LSS: "less", token.LEQ: "lessEqual", token.GTR: "greater", token.GEQ: "greaterEqual",
	token.ADD: "add", token.SUB: "sub", token.MUL: "mul", token.QUO: "quo", token.REM: "rem",
	token.AND: "and", token.OR: "or", token.XOR: "xor", token.AND_NOT: "andNot", token.SHL: "shl", token.SHR: "shr",
}

// guard returns the text of f with the mutants that in selects behind guards.
func (f *file) guard(in func(*mutant) bool) []byte {
	g := guards{f, in}
	return []byte(g.between(0, len(f.source), nil))
}

type guards struct {
	f  *file
	in func(*mutant) bool
}

// between renders a piece of the source; self is the site that is being rendered itself.
func (g guards) between(from, to int, self *site) string {
	var b strings.Builder
	done := from
	for _, s := range g.f.sites {
		if s == self || s.from < done || s.to > to {
			continue
		}
		if text, ok := g.site(s); ok {
			b.Write(g.f.source[done:s.from])
			b.WriteString(text)
			done = s.to
		}
	}
	b.Write(g.f.source[done:to])
	return b.String()
}

func (g guards) node(n ast.Node, self *site) string {
	return g.between(g.f.offset(n.Pos()), g.f.offset(n.End()), self)
}

// site renders s; not ok: none of its mutants is asked for.
func (g guards) site(s *site) (text string, ok bool) {
	deleted := 0
	byToken := map[token.Token]int{}
	for _, m := range s.mutants {
		switch {
		case !g.in(m):
		case m.to == token.ILLEGAL:
			deleted = m.ID
		default:
			byToken[m.to] = m.ID
		}
	}
	if deleted == 0 && len(byToken) == 0 {
		return "", false
	}
	whole := g.between(s.from, s.to, s)
	switch n := s.node.(type) {
	case *ast.BinaryExpr:
		return g.binary(n, s, byToken), true
	case *ast.UnaryExpr:
		if n.Op == token.SUB && deleted == 0 {
			return fmt.Sprintf("mutant_neg(%d, %s)", byToken[token.ADD], g.node(n.X, s)), true
		}
	case *ast.AssignStmt:
		for _, to := range slices.Sorted(maps.Keys(byToken)) { // the same text in each run
			id := byToken[to]
			whole = fmt.Sprintf("if mutant_on(%d) { %s %s %s } else { %s }", id, g.node(n.Lhs[0], s), to, g.node(n.Rhs[0], s), whole)
		}
	case *ast.IncDecStmt:
		for to, id := range byToken {
			whole = fmt.Sprintf("if mutant_on(%d) { %s%s } else { %s }", id, g.node(n.X, s), to, whole)
		}
	case *ast.BranchStmt:
		for to, id := range byToken {
			label := ""
			if n.Label != nil {
				label = n.Label.Name
			}
			whole = fmt.Sprintf("if mutant_on(%d) { %s %s } else { %s }", id, to, label, whole)
		}
	}
	if _, ok := s.node.(ast.Expr); ok { // the channel of a case
		return fmt.Sprintf("mutant_chan(%d, %s)", deleted, whole), true
	}
	if deleted != 0 {
		whole = fmt.Sprintf("if !mutant_on(%d) { %s }", deleted, whole)
	}
	return whole, true
}

func (g guards) binary(n *ast.BinaryExpr, s *site, byToken map[token.Token]int) string {
	x, y := g.node(n.X, s), g.node(n.Y, s)
	if n.Op == token.LAND || n.Op == token.LOR {
		// By De Morgan a || b is !(!a && !b), and != by a guard negates where the mutant is alive.
		for _, id := range byToken {
			return fmt.Sprintf("(mutant_on(%[1]d) != ((mutant_on(%[1]d) != (%[2]s)) %[3]s (mutant_on(%[1]d) != (%[4]s))))", id, x, n.Op, y)
		}
	}
	negated, text := 0, fmt.Sprintf("(%s) %s (%s)", x, n.Op, y)
	for to, id := range byToken {
		if to == negation[n.Op] {
			negated = id
		} else {
			text = fmt.Sprintf("mutant_%s(%d, %s, %s)", guardedOps[n.Op], id, x, y)
		}
	}
	if negated != 0 {
		text = fmt.Sprintf("(mutant_on(%d) != (%s))", negated, text)
	}
	return text
}

var negation = gremlinTokens["CONDITIONALS_NEGATION"]

// alone returns the text of m's file with m in it, and nothing else.
func (m *mutant) alone() []byte {
	f, s := m.site.file, m.site
	from, to, text := s.from, s.to, m.to.String()
	if m.to != token.ILLEGAL {
		pos, old := tokenOf(s.node)
		from = f.offset(pos)
		to = from + len(old.String())
	} else {
		text = ""
	}
	return []byte(string(f.source[:from]) + text + string(f.source[to:]))
}
