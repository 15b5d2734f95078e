package idemvet

import (
	"go/ast"
	"go/types"

	"golang.org/x/tools/go/analysis"
)

// Effect finds calls of BeginEffect and NoEffect with a context that is not that of fn.
var Effect = &analysis.Analyzer{
	Name: "idemeffect",
	Doc: `find BeginEffect and NoEffect with a context that is not that of fn

BeginEffect and NoEffect tell the execution that their context belongs to: that of the innermost fn, if they are
given its context or one derived from it. With the context of the caller they tell another execution, or none.`,
	URL:      page + "idemeffect",
	Requires: []*analysis.Analyzer{calls},
	Run:      runEffect,
}

func runEffect(pass *analysis.Pass) (any, error) {
	c := pass.ResultOf[calls].(*code)
	for _, cur := range c.said {
		call := cur.Node().(*ast.CallExpr)
		if len(call.Args) != 1 {
			continue
		}
		from := c.ancestryOf(call.Args[0])
		fn := c.fnAround(cur)
		switch {
		case from.none:
			pass.ReportRangef(call.Args[0], "this context belongs to no execution: use the one that fn is given")
		case fn != nil && from.first != nil && isCaptured(from.first, fn) && !c.isSetIn(from.first, fn):
			pass.ReportRangef(call.Args[0], "this context is not that of the fn around it: use the one that fn is given")
		}
	}
	return nil, nil
}

// isSetIn reports whether fn may set v, a variable from outside.
func (c *code) isSetIn(v *types.Var, fn *ast.FuncLit) bool {
	for _, from := range c.sources[v] {
		if from == nil || fn.Pos() <= from.Pos() && from.Pos() < fn.End() {
			return true
		}
	}
	return false
}
