package idemvet

import (
	"go/ast"
	"go/token"
	"go/types"

	"golang.org/x/tools/go/ast/inspector"
	"golang.org/x/tools/go/types/typeutil"
)

// sources tells what a package sets its variables and fields to: an expression for each time, which is a call if
// that has several results, and nil where it cannot be told. The arguments of parameters are not among them.
type sources map[*types.Var][]ast.Expr

func sourcesOf(info *types.Info, root inspector.Cursor) sources {
	s := make(sources)
	set := func(to, from ast.Expr) {
		if v := variable(info, to); v != nil {
			s[v] = append(s[v], from)
		}
	}
	for cur := range root.Preorder((*ast.AssignStmt)(nil), (*ast.ValueSpec)(nil), (*ast.CompositeLit)(nil),
		(*ast.RangeStmt)(nil), (*ast.UnaryExpr)(nil)) {
		switch n := cur.Node().(type) {
		case *ast.AssignStmt:
			for i, to := range n.Lhs {
				set(to, nth(n.Rhs, i))
			}
		case *ast.ValueSpec:
			if n.Values == nil {
				continue
			}
			for i, name := range n.Names {
				set(name, nth(n.Values, i))
			}
		case *ast.CompositeLit:
			fields, ok := deref(info.TypeOf(n)).Underlying().(*types.Struct) // it is a pointer in []*T{{}}
			if !ok {
				continue
			}
			for i, element := range n.Elts {
				if pair, ok := element.(*ast.KeyValueExpr); ok {
					set(pair.Key, pair.Value)
				} else {
					field := fields.Field(i).Origin()
					s[field] = append(s[field], element)
				}
			}
		case *ast.RangeStmt:
			for _, to := range []ast.Expr{n.Key, n.Value} {
				if to != nil {
					set(to, nil)
				}
			}
		case *ast.UnaryExpr:
			if n.Op == token.AND { // so it may be set through the pointer
				set(n.X, nil)
			}
		}
	}
	return s
}

// nth returns the expression that the i-th of several variables is set to.
func nth(from []ast.Expr, i int) ast.Expr {
	if len(from) == 1 {
		return from[0]
	}
	return from[i]
}

// variable returns the variable or field that e names, or nil.
func variable(info *types.Info, e ast.Expr) *types.Var {
	var id *ast.Ident
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		id = e
	case *ast.SelectorExpr:
		id = e.Sel
	default:
		return nil
	}
	v, ok := info.ObjectOf(id).(*types.Var)
	if !ok {
		return nil
	}
	return v.Origin()
}

// only returns what the variable that e names is set to, if that is so once; otherwise nil.
func (c *code) only(e ast.Expr) ast.Expr {
	v := variable(c.info, e)
	if v == nil || len(c.sources[v]) != 1 || v.Kind() != types.LocalVar && (v.Kind() != types.PackageVar || v.Exported()) {
		return nil
	}
	return c.sources[v][0]
}

// literal returns the function literal that e is, or that the variable e is set to, or nil.
func (c *code) literal(e ast.Expr) *ast.FuncLit {
	if from := c.only(e); from != nil {
		e = from
	}
	fn, _ := ast.Unparen(e).(*ast.FuncLit)
	return fn
}

// ancestry is where a context comes from, as far as can be seen.
type ancestry struct {
	vars    map[*types.Var]bool // that hold it and those it is derived from; the last may be the request whose it is
	first   *types.Var          // of these, the one that it all begins with
	none    bool                // it begins with context.Background or TODO
	endless bool                // it never ends
}

// ancestryOf follows ctx through variables that are set once, and through calls that derive contexts: those
// that take one first and return one, such as context.WithTimeout, and the Start of a tracer.
func (c *code) ancestryOf(ctx ast.Expr) ancestry {
	a := ancestry{vars: make(map[*types.Var]bool)}
	endsAs := true // it ends exactly when what is looked at does
	for ctx != nil {
		call, ok := ast.Unparen(ctx).(*ast.CallExpr)
		if !ok {
			v := variable(c.info, ctx)
			if v == nil || a.vars[v] {
				return a
			}
			a.vars[v], a.first = true, v
			ctx = c.only(ctx)
			continue
		}
		if r := c.requestOf(call); r != nil {
			a.vars[r], a.first = true, r
			return a
		}
		f := typeutil.StaticCallee(c.info, call)
		name := ""
		if f != nil && f.Pkg() != nil && f.Pkg().Path() == "context" {
			name = f.Name()
		}
		switch {
		case name == "Background" || name == "TODO":
			a.none, a.endless = true, a.endless || endsAs
			return a
		case !c.derives(call):
			return a
		case name == "WithoutCancel":
			a.endless = a.endless || endsAs
		case name != "WithValue":
			endsAs = false
		}
		ctx = call.Args[0]
	}
	return a
}

// requestOf returns the variable r of a call r.Context(), if r is an *http.Request.
func (c *code) requestOf(call *ast.CallExpr) *types.Var {
	sel, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != "Context" {
		return nil
	}
	if r := variable(c.info, sel.X); r != nil && !r.IsField() && isType(r.Type(), "net/http", "Request") {
		return r
	}
	return nil
}

// derives reports whether call makes a context from that in its first argument.
func (c *code) derives(call *ast.CallExpr) bool {
	if len(call.Args) == 0 || !isContext(c.info.TypeOf(call.Args[0])) {
		return false
	}
	switch t := c.info.TypeOf(call).(type) {
	case *types.Tuple:
		for v := range t.Variables() {
			if isContext(v.Type()) {
				return true
			}
		}
		return false
	default:
		return isContext(t)
	}
}

func isContext(t types.Type) bool { return isType(t, "context", "Context") }
