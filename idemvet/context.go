package idemvet

import (
	"go/ast"
	"go/types"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/ast/edge"
	"golang.org/x/tools/go/ast/inspector"
)

// Context finds an fn that uses the context of its caller.
var Context = &analysis.Analyzer{
	Name: "idemcontext",
	Doc: `find an fn that uses the context of its caller

The caller may leave as soon as its context ends, and fn goes on for the others: with the caller's context it
would fail for all of them. That is also true with Inline. Use the context that fn is given, which has the
same values.`,
	URL:      page + "idemcontext",
	Requires: []*analysis.Analyzer{calls},
	Run:      runContext,
}

func runContext(pass *analysis.Pass) (any, error) {
	c := pass.ResultOf[calls].(*code)
	reported := make(map[*ast.Ident]bool) // by the check of an fn around this one
	for _, o := range c.once {
		if o.fn == nil || o.ctx == nil {
			continue
		}
		callers := c.ancestryOf(o.ctx).vars
		for cur, v := range c.captured(o.fn) {
			id := cur.Node().(*ast.Ident)
			if reported[id] || !c.handsOn(cur, v, callers) {
				continue
			}
			reported[id] = true
			pass.ReportRangef(id, "fn uses the context of its caller, which may end before fn does: use the one that fn is given")
		}
	}
	return nil, nil
}

// handsOn reports whether fn uses one of the callers' contexts at cur, where v stands, which it captures.
func (c *code) handsOn(cur inspector.Cursor, v *types.Var, callers map[*types.Var]bool) bool {
	ctx := cur
	if !isContext(v.Type()) {
		var ok bool
		if ctx, ok = contextOf(cur); !ok {
			return false
		}
	}
	if c.isSaying(outsideParens(ctx)) { // which idemeffect reports
		return false
	}
	for a := range c.ancestryOf(ctx.Node().(ast.Expr)).vars {
		if callers[a] {
			return true
		}
	}
	return false
}

// contextOf returns the call x.Context(), if cur is at that x.
func contextOf(cur inspector.Cursor) (call inspector.Cursor, ok bool) {
	sel, ok := cur.Parent().Node().(*ast.SelectorExpr)
	call = cur.Parent().Parent()
	return call, ok && sel.Sel.Name == "Context" && cur.Parent().ParentEdgeKind() == edge.CallExpr_Fun
}

// outsideParens returns the first node around cur that is not a pair of parentheses.
func outsideParens(cur inspector.Cursor) ast.Node {
	for {
		cur = cur.Parent()
		if _, ok := cur.Node().(*ast.ParenExpr); !ok {
			return cur.Node()
		}
	}
}

// isSaying reports whether n is a call of BeginEffect or NoEffect.
func (c *code) isSaying(n ast.Node) bool {
	e, ok := n.(ast.Expr)
	return ok && c.isCallTo(e, "BeginEffect", "NoEffect")
}
