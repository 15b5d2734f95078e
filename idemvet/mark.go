package idemvet

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/ast/edge"
	"golang.org/x/tools/go/cfg"
	"golang.org/x/tools/go/types/typeutil"
)

// Mark finds errors before BeginEffect that hold their key, although nothing has begun.
var Mark = &analysis.Analyzer{
	Name: "idemmark",
	Doc: `find errors before BeginEffect that hold their key, although nothing has begun

An error of an fn that has said nothing about its effect holds the key, in a cache without Classify and
EffectsAnnounced. So call NoEffect first thing in fn, or mark the error: Retryable lets fn run again, Final is a
real answer.

The check looks at an fn that calls BeginEffect, and reports an error that it returns before that, and before
anything that might have said a word: a function of another package, or one in an interface or a variable.`,
	URL:      page + "idemmark",
	Requires: []*analysis.Analyzer{calls},
	Run:      runMark,
}

func runMark(pass *analysis.Pass) (any, error) {
	c := pass.ResultOf[calls].(*code)
	reported := make(map[*ast.FuncLit]bool)
	for _, o := range c.once {
		if o.fn == nil || reported[o.fn] || !c.judgesNothing(o.cache) {
			continue
		}
		reported[o.fn] = true
		begin := c.beginIn(o.fn.Body)
		if begin == nil {
			continue
		}
		for _, ret := range c.beforeBegin(o.fn) {
			err := ret.Results[1]
			if !c.isPlainError(err) {
				continue
			}
			pass.Report(analysis.Diagnostic{
				Pos: err.Pos(), End: err.End(),
				Message: "this error holds the key, although nothing has begun: mark it, or call NoEffect first thing in fn",
				SuggestedFixes: []analysis.SuggestedFix{{
					Message: "Mark the error as Retryable: the next call runs fn again",
					TextEdits: []analysis.TextEdit{
						{Pos: err.Pos(), End: err.Pos(), NewText: []byte(asQualified(begin, "Retryable") + "(")},
						{Pos: err.End(), End: err.End(), NewText: []byte(")")},
					},
				}},
			})
		}
	}
	return nil, nil
}

// asQualified returns name with the package name that call has before its own.
func asQualified(call *ast.CallExpr, name string) string {
	if sel, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr); ok {
		return fmt.Sprintf("%s.%s", sel.X, name)
	}
	return name
}

// beginIn returns a call of BeginEffect in n, or nil.
func (c *code) beginIn(n ast.Node) *ast.CallExpr {
	for call := range c.callsIn(n) {
		if c.isCallTo(call, "BeginEffect") {
			return call
		}
	}
	return nil
}

// beforeBegin returns the return statements of fn that certainly come before any effect and any word: on each path to
// them nothing has spoken, and from where the path turns away from BeginEffect nothing else has been done.
func (c *code) beforeBegin(fn *ast.FuncLit) (returns []*ast.ReturnStmt) {
	graph := cfg.New(fn.Body, func(call *ast.CallExpr) bool { return !c.isPanic(call) })
	before := make(map[*cfg.Block][]*cfg.Block)
	after := make(map[*cfg.Block][]*cfg.Block)
	var begins, doubtful []*cfg.Block
	for _, b := range graph.Blocks {
		after[b] = b.Succs
		for _, next := range b.Succs {
			before[next] = append(before[next], b)
		}
		for _, n := range b.Nodes {
			if c.beginIn(n) != nil {
				begins = append(begins, b)
			}
		}
	}
	leads := reached(begins, before)
	for _, b := range graph.Blocks {
		if c.isDoubtful(b, leads[b]) {
			doubtful = append(doubtful, b)
		}
	}
	inDoubt := reached(doubtful, after)
	for _, b := range graph.Blocks {
		if ret := b.Return(); b.Live && !inDoubt[b] && ret != nil && len(ret.Results) == 2 {
			returns = append(returns, ret)
		}
	}
	return returns
}

// isDoubtful reports whether something is called in b after which it is not certain any more that an error holds
// the key, and wrongly so. A block that leads to BeginEffect should have no effect, since that announces it, and must
// not call what may say a word.
func (c *code) isDoubtful(b *cfg.Block, leads bool) bool {
	for _, n := range b.Nodes {
		for call := range c.callsIn(n) {
			if leads && (c.maySpeak(call) || c.isSent(call)) || !leads && !c.isHarmless(call) {
				return true
			}
		}
	}
	return false
}

// reached returns from, and all that can be reached from there by way of next.
func reached(from []*cfg.Block, next map[*cfg.Block][]*cfg.Block) map[*cfg.Block]bool {
	all := make(map[*cfg.Block]bool)
	for len(from) > 0 {
		b := from[0]
		from = from[1:]
		if !all[b] {
			all[b] = true
			from = append(from, next[b]...)
		}
	}
	return all
}

func (c *code) isPanic(call *ast.CallExpr) bool {
	f, ok := typeutil.Callee(c.info, call).(*types.Builtin)
	return ok && f.Name() == "panic"
}

// isPlainError reports whether err, in a return statement, is certainly an error, and has no marker.
func (c *code) isPlainError(err ast.Expr) bool {
	switch e := ast.Unparen(err).(type) {
	case *ast.CompositeLit:
		return true
	case *ast.UnaryExpr:
		return e.Op == token.AND // &MyError{}
	case *ast.CallExpr:
		f := typeutil.StaticCallee(c.info, e)
		return f != nil && (f.FullName() == "errors.New" || f.FullName() == "fmt.Errorf")
	case *ast.Ident, *ast.SelectorExpr:
		v := variable(c.info, e)
		return v != nil && !c.isMarked(v) && (v.Kind() == types.PackageVar || c.isTested(err, v))
	}
	return false
}

// isMarked reports whether v, an error, may be set to one with a marker.
func (c *code) isMarked(v *types.Var) bool {
	for _, from := range c.sources[v] {
		if from == nil || !c.isCallTo(from, "BeginEffect") && c.speaksIn(from) {
			return true
		}
	}
	return false
}

// isTested reports whether v is certainly not nil where it is used: in an if, or in a case, that asks.
func (c *code) isTested(use ast.Expr, v *types.Var) bool {
	cur, _ := c.all.Root().FindNode(use)
	for ; ; cur = cur.Parent() {
		switch n := cur.Parent().Node().(type) {
		case *ast.FuncLit:
			return false
		case *ast.IfStmt:
			if cur.ParentEdgeKind() == edge.IfStmt_Body && c.saysError(n.Cond, v) {
				return true
			}
		case *ast.CaseClause:
			if cur.ParentEdgeKind() == edge.CaseClause_Body && len(n.List) == 1 && c.saysError(n.List[0], v) {
				return true
			}
		}
	}
}

// saysError reports whether v is not nil if the condition is true.
func (c *code) saysError(condition ast.Expr, v *types.Var) bool {
	switch e := ast.Unparen(condition).(type) {
	case *ast.BinaryExpr:
		return e.Op == token.LAND && (c.saysError(e.X, v) || c.saysError(e.Y, v)) ||
			e.Op == token.NEQ && variable(c.info, e.X) == v && c.info.Types[e.Y].IsNil()
	case *ast.CallExpr:
		f := typeutil.StaticCallee(c.info, e)
		return f != nil && f.FullName() == "errors.Is" && variable(c.info, e.Args[0]) == v
	}
	return false
}

// judgesNothing reports whether the cache that e names certainly has neither Classify nor EffectsAnnounced: it is
// in a variable, or in a field of which no other package knows, and this package sets that to nothing else.
func (c *code) judgesNothing(e ast.Expr) bool {
	v := variable(c.info, e)
	if v == nil || v.Pkg() != c.pkg || v.IsField() && v.Exported() || v.Kind() == types.ParamVar || len(c.sources[v]) == 0 {
		return false
	}
	for _, from := range c.sources[v] {
		if from == nil || !c.isCallTo(from, "New", "MustNew") || !c.hasNoJudge(ast.Unparen(from).(*ast.CallExpr).Args[0]) {
			return false
		}
	}
	return true
}

// hasNoJudge reports whether the options are written here, without Classify and EffectsAnnounced.
func (c *code) hasNoJudge(options ast.Expr) bool {
	lit, ok := ast.Unparen(options).(*ast.CompositeLit)
	if !ok {
		return false
	}
	for _, element := range lit.Elts {
		pair, ok := element.(*ast.KeyValueExpr)
		if !ok {
			return false
		}
		switch pair.Key.(*ast.Ident).Name {
		case "Classify", "EffectsAnnounced":
			return false
		}
	}
	return true
}
