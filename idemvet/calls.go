package idemvet

import (
	"go/ast"
	"go/types"
	"iter"
	"reflect"
	"slices"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/inspect"
	"golang.org/x/tools/go/ast/inspector"
	"golang.org/x/tools/go/types/typeutil"
)

// core is the import path of package idemflight.
const core = "github.com/idemflight/idemflight"

// calls finds in a package what the other analyzers look at. It reports nothing.
var calls = &analysis.Analyzer{
	Name:       "idemcalls",
	Doc:        "find the calls of idemflight, for other analyzers",
	Requires:   []*analysis.Analyzer{inspect.Analyzer},
	ResultType: reflect.TypeFor[*code](),
	Run:        func(pass *analysis.Pass) (any, error) { return read(pass), nil },
}

// code is what the analyzers know about a package.
type code struct {
	pkg  *types.Package
	info *types.Info
	all  *inspector.Inspector

	once     []*onceCall           // calls of Do, DoResult and Wrap
	said     []inspector.Cursor    // calls of BeginEffect and NoEffect
	fns      map[*ast.FuncLit]bool // the literals among the fns of once
	sources  sources
	speakers map[*types.Func]bool // see speakersOf
}

// onceCall is a call of Cache.Do, Cache.DoResult or Wrap.
type onceCall struct {
	cur   inspector.Cursor // at the *ast.CallExpr
	cache ast.Expr
	ctx   ast.Expr     // nil: Wrap
	key   ast.Expr     // with Wrap, the function that makes it
	fn    *ast.FuncLit // nil: written elsewhere
	stays bool         // the caller waits for fn, whatever happens to ctx; or might, as far as can be seen
}

func read(pass *analysis.Pass) *code {
	c := &code{
		pkg:  pass.Pkg,
		info: pass.TypesInfo,
		all:  pass.ResultOf[inspect.Analyzer].(*inspector.Inspector),
		fns:  make(map[*ast.FuncLit]bool),
	}
	for cur := range c.all.Root().Preorder((*ast.CallExpr)(nil)) {
		call := cur.Node().(*ast.CallExpr)
		f := typeutil.StaticCallee(c.info, call)
		switch {
		case f == nil || f.Pkg() == nil || f.Pkg().Path() != core:
		case f.Signature().Recv() != nil && (f.Name() == "Do" || f.Name() == "DoResult"):
			if sel, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr); ok && len(call.Args) >= 3 {
				c.once = append(c.once, &onceCall{cur: cur, cache: sel.X, ctx: call.Args[0], key: call.Args[1]})
			}
		case isFunc(f, "Wrap"):
			if len(call.Args) >= 3 {
				c.once = append(c.once, &onceCall{cur: cur, cache: call.Args[0], key: call.Args[1]})
			}
		case isFunc(f, "BeginEffect", "NoEffect"):
			c.said = append(c.said, cur)
		}
	}
	if c.once == nil && c.said == nil {
		return c
	}
	c.sources = sourcesOf(c.info, c.all.Root())
	for _, o := range c.once {
		if o.fn = c.literal(o.call().Args[2]); o.fn != nil {
			c.fns[o.fn] = true
		}
		o.stays = o.ctx != nil && c.ancestryOf(o.ctx).endless || c.mayBeInline(o)
	}
	c.speakers = c.speakersOf()
	return c
}

func (o *onceCall) call() *ast.CallExpr { return o.cur.Node().(*ast.CallExpr) }

// mayBeInline reports whether one of o's options is Inline, or is not written in the call. Of several in a slice, the
// slice is the one.
func (c *code) mayBeInline(o *onceCall) bool {
	return slices.ContainsFunc(o.call().Args[3:], func(option ast.Expr) bool {
		return !c.isCallTo(option, "WithFingerprint", "WithTTL", "WithMaxWait")
	})
}

// fnAround returns the innermost fn that cur is in, or nil.
func (c *code) fnAround(cur inspector.Cursor) *ast.FuncLit {
	for lit := range cur.Enclosing((*ast.FuncLit)(nil)) {
		if fn := lit.Node().(*ast.FuncLit); c.fns[fn] {
			return fn
		}
	}
	return nil
}

// captured yields each use in fn of a variable of a function around it.
func (c *code) captured(fn *ast.FuncLit) iter.Seq2[inspector.Cursor, *types.Var] {
	return func(yield func(inspector.Cursor, *types.Var) bool) {
		body, _ := c.all.Root().FindNode(fn)
		for cur := range body.Preorder((*ast.Ident)(nil)) {
			v, ok := c.info.Uses[cur.Node().(*ast.Ident)].(*types.Var)
			if ok && isCaptured(v, fn) && !yield(cur, v) {
				return
			}
		}
	}
}

func isCaptured(v *types.Var, fn *ast.FuncLit) bool {
	return v.Kind() != types.PackageVar && !v.IsField() && !within(v, fn)
}

// isTest reports whether n is in the file of a test.
func isTest(pass *analysis.Pass, n ast.Node) bool {
	return strings.HasSuffix(pass.Fset.File(n.Pos()).Name(), "_test.go")
}

func within(v *types.Var, n ast.Node) bool { return n.Pos() <= v.Pos() && v.Pos() < n.End() }

// isCallTo reports whether e calls one of these functions of package idemflight.
func (c *code) isCallTo(e ast.Expr, names ...string) bool {
	call, ok := ast.Unparen(e).(*ast.CallExpr)
	if !ok {
		return false
	}
	f := typeutil.StaticCallee(c.info, call)
	return f != nil && isFunc(f, names...)
}

// isFunc reports whether f is one of these functions of package idemflight.
func isFunc(f *types.Func, names ...string) bool {
	return f.Pkg() != nil && f.Pkg().Path() == core && f.Signature().Recv() == nil && slices.Contains(names, f.Name())
}

// isType reports whether t, or what it points to, is the named type.
func isType(t types.Type, path, name string) bool {
	n, ok := deref(t).(*types.Named)
	return ok && n.Obj().Pkg() != nil && n.Obj().Pkg().Path() == path && n.Obj().Name() == name
}

// deref returns what t points to, or t, and no alias of it.
func deref(t types.Type) types.Type {
	if p, ok := types.Unalias(t).(*types.Pointer); ok {
		t = p.Elem()
	}
	return types.Unalias(t)
}
