package idemvet

import (
	"go/ast"
	"go/types"
	"iter"
	"slices"
	"strings"

	"golang.org/x/tools/go/types/typeutil"
)

// words are what fn says to its cache: about its effect, and about an error.
var words = []string{"BeginEffect", "NoEffect", "Final", "Retryable", "Unknown"}

// speakersOf returns the functions of a package that say a word, or call one that does.
func (c *code) speakersOf() map[*types.Func]bool {
	speakers := make(map[*types.Func]bool)
	callers := make(map[*types.Func][]*types.Func)
	var found []*types.Func
	for cur := range c.all.Root().Preorder((*ast.FuncDecl)(nil)) {
		decl := cur.Node().(*ast.FuncDecl)
		caller, ok := c.info.Defs[decl.Name].(*types.Func)
		if !ok || decl.Body == nil {
			continue
		}
		for call := range c.callsIn(decl.Body) {
			f := typeutil.StaticCallee(c.info, call)
			if f == nil {
				continue
			}
			callers[f.Origin()] = append(callers[f.Origin()], caller)
			if isWord(f) {
				found = append(found, f.Origin())
			}
		}
	}
	for len(found) > 0 {
		f := found[0]
		found = found[1:]
		for _, caller := range callers[f] {
			if !speakers[caller] {
				speakers[caller] = true
				found = append(found, caller)
			}
		}
	}
	return speakers
}

// callsIn yields the calls in n, but not those in the fn of another call.
func (c *code) callsIn(n ast.Node) iter.Seq[*ast.CallExpr] {
	return func(yield func(*ast.CallExpr) bool) {
		stopped := false
		ast.Inspect(n, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncLit:
				return !c.fns[n] && !stopped
			case *ast.CallExpr:
				stopped = stopped || !yield(n)
			}
			return !stopped
		})
	}
}

// isWord reports whether f says something to the cache whose fn calls it: one of the words, or that of another
// package of idemflight, such as pgstore.Store.SettleTx.
func isWord(f *types.Func) bool {
	return isFunc(f, words...) || f.Pkg() != nil && strings.HasPrefix(f.Pkg().Path(), core+"/")
}

// speaks reports whether f certainly says a word.
func (c *code) speaks(f *types.Func) bool { return isWord(f) || c.speakers[f.Origin()] }

// speaksIn reports whether a call in e certainly says a word.
func (c *code) speaksIn(e ast.Expr) bool {
	for call := range c.callsIn(e) {
		if f := typeutil.StaticCallee(c.info, call); f != nil && c.speaks(f) {
			return true
		}
	}
	return false
}

// maySpeak reports whether call, as far as can be seen, may say a word.
func (c *code) maySpeak(call *ast.CallExpr) bool {
	if _, ok := ast.Unparen(call.Fun).(*ast.FuncLit); ok { // the calls in it are looked at, too
		return false
	}
	if c.info.Types[call.Fun].IsType() || c.info.Types[call.Fun].IsBuiltin() {
		return false
	}
	f, ok := typeutil.Callee(c.info, call).(*types.Func)
	switch {
	case !ok: // in a variable
		return true
	case c.speaks(f):
		return true
	case f.Pkg() == nil || f.Pkg().Path() == core || c.isStandard(f.Pkg()):
		return false
	default: // the function of another package, or a method of an interface
		recv := f.Signature().Recv()
		return f.Pkg() != c.pkg || recv != nil && types.IsInterface(recv.Type())
	}
}

// isStandard reports whether p is a package of the standard library. Those have no dot in the first part of their
// path; modules without one are those of the user.
func (c *code) isStandard(p *types.Package) bool {
	first, _, _ := strings.Cut(p.Path(), "/")
	own, _, _ := strings.Cut(c.pkg.Path(), "/")
	return !strings.Contains(first, ".") && first != own
}

var harmless = []string{"bytes", "context", "errors", "fmt", "log", "log/slog", "maps", "math", "slices", "sort", "strconv", "strings", "time", "unicode", "unicode/utf8"}

// isHarmless reports whether call certainly has no effect that matters.
func (c *code) isHarmless(call *ast.CallExpr) bool {
	if c.info.Types[call.Fun].IsType() || c.info.Types[call.Fun].IsBuiltin() {
		return true
	}
	f, ok := typeutil.Callee(c.info, call).(*types.Func)
	return ok && (f.Pkg() == nil || slices.Contains(harmless, f.Pkg().Path()))
}
