package idemvet

import (
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"slices"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/types/typeutil"
)

// Key finds keys that are made in the call itself, and with -idemkey.local those made right before it.
var Key = &analysis.Analyzer{
	Name: "idemkey",
	Doc: `find keys that are made in the call itself

A key that is made in the call is another one at each call: a retry is a new operation, and nothing is guarded. It
comes from the client, made once per intent, outside of the retry loop. Tests, which retry nothing, may use any key.

With -idemkey.local the check also reports a key in a local variable that is used in the one call and nowhere else, and in
no loop.`,
	URL:      page + "idemkey",
	Requires: []*analysis.Analyzer{calls},
	Run:      runKey,
}

var keyLocal bool

func init() {
	Key.Flags.BoolVar(&keyLocal, "local", false, "also report a key in a local variable that one call uses, in no loop")
}

func runKey(pass *analysis.Pass) (any, error) {
	c := pass.ResultOf[calls].(*code)
	for _, o := range c.once {
		if isTest(pass, o.call()) {
			continue
		}
		for _, key := range c.keysOf(o) {
			if made := c.made(key, nil); made != nil {
				pass.ReportRangef(made, "a key that is made in the call is another one at each retry, and guards nothing: take it from the client")
			} else if keyLocal {
				if made := c.made(key, func(id *ast.Ident) ast.Expr { return c.usedUpBy(o, id) }); made != nil {
					pass.ReportRangef(made, "no retry can use this key, which guards nothing: take it from the client")
				}
			}
		}
	}
	return nil, nil
}

// keysOf returns the expressions that make the key of o: with Wrap, what the function for it returns.
func (c *code) keysOf(o *onceCall) (keys []ast.Expr) {
	if o.ctx != nil {
		return []ast.Expr{o.key}
	}
	maker := c.literal(o.key)
	if maker == nil {
		return nil
	}
	ast.Inspect(maker.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.ReturnStmt:
			if len(n.Results) == 3 {
				keys = append(keys, n.Results[0])
			}
		}
		return true
	})
	return keys
}

// made returns the call in e that makes e another value each time, or nil. local says what else to look at for a
// variable, or nil.
func (c *code) made(e ast.Expr, local func(*ast.Ident) ast.Expr) *ast.CallExpr {
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		if local != nil {
			if from := local(e); from != nil {
				return c.made(from, local)
			}
		}
	case *ast.UnaryExpr:
		return c.made(e.X, local)
	case *ast.BinaryExpr:
		if e.Op == token.ADD {
			return c.firstMade([]ast.Expr{e.X, e.Y}, local)
		}
	case *ast.SliceExpr:
		return c.made(e.X, local)
	case *ast.KeyValueExpr:
		return c.made(e.Value, local)
	case *ast.CompositeLit:
		return c.firstMade(e.Elts, local)
	case *ast.CallExpr:
		if c.info.Types[e.Fun].IsType() { // a conversion
			return c.firstMade(e.Args, local)
		}
		f := typeutil.StaticCallee(c.info, e)
		switch {
		case f == nil || f.Pkg() == nil:
		case isFresh(f):
			return e
		case f.Signature().Recv() != nil && c.keepsReceiver(f, e.Args):
			if sel, ok := ast.Unparen(e.Fun).(*ast.SelectorExpr); ok {
				return c.made(sel.X, local)
			}
		case keepsArgs(f):
			return c.firstMade(e.Args, local)
		}
	}
	return nil
}

func (c *code) firstMade(es []ast.Expr, local func(*ast.Ident) ast.Expr) *ast.CallExpr {
	for _, e := range es {
		if made := c.made(e, local); made != nil {
			return made
		}
	}
	return nil
}

// fresh are functions that return another value each time, by package. Those of uuid that hash a name do not.
var fresh = map[string][]string{
	core:                           {"NewID"},
	"github.com/google/uuid":       {"New", "NewString", "NewRandom", "NewUUID", "NewV6", "NewV7"},
	"github.com/gofrs/uuid":        {"NewV1", "NewV4", "NewV6", "NewV7"},
	"github.com/satori/go.uuid":    {"NewV1", "NewV4"},
	"github.com/hashicorp/go-uuid": {"GenerateUUID"},
	"github.com/oklog/ulid":        {"Make", "New", "MustNew", "MustNewDefault"},
	"github.com/rs/xid":            {"New"},
	"github.com/segmentio/ksuid":   {"New", "NewRandom"},
	"crypto/rand":                  {"Text", "Int", "Prime"},
	"math/rand":                    {"Int", "Int31", "Int32", "Int63", "Int64", "Uint32", "Uint64"}, // those with a bound may pick one key of many
	"time":                         {"Now"},
}

func isFresh(f *types.Func) bool {
	return f.Signature().Recv() == nil && slices.Contains(fresh[withoutVersion(f.Pkg().Path())], f.Name())
}

// keepsReceiver reports whether what the method f returns is as fresh as its receiver. A day, say, is not.
func (c *code) keepsReceiver(f *types.Func, args []ast.Expr) bool {
	path := withoutVersion(f.Pkg().Path())
	if path != "time" {
		return fresh[path] != nil
	}
	switch f.Name() {
	case "Format":
		layout := c.info.Types[args[0]].Value
		return layout != nil && layout.Kind() == constant.String && strings.Contains(constant.StringVal(layout), "05") // seconds
	case "String", "GoString", "Unix", "UnixMilli", "UnixMicro", "UnixNano", "UTC", "Local", "In", "Add":
		return true
	}
	return false
}

// keepsArgs reports whether what f returns is as fresh as its arguments. An unknown function may do with them what it
// likes, for example take them only where the client has sent no key.
func keepsArgs(f *types.Func) bool {
	switch f.Pkg().Path() {
	case "fmt", "strconv", "strings", "encoding/hex", "encoding/base64":
		return true
	}
	return f.Name() == "Must" && fresh[withoutVersion(f.Pkg().Path())] != nil
}

// usedUpBy returns what the local variable id is set to, if the call o uses it, and nothing else does, and neither is
// in a loop or in a function that the other is not in. Otherwise it returns nil.
func (c *code) usedUpBy(o *onceCall, id *ast.Ident) ast.Expr {
	from, v := c.only(id), variable(c.info, id)
	if from == nil || c.uses(v) != 1 {
		return nil
	}
	for around := range o.cur.Enclosing((*ast.ForStmt)(nil), (*ast.RangeStmt)(nil), (*ast.FuncLit)(nil)) {
		if _, isFunc := around.Node().(*ast.FuncLit); isFunc && within(v, around.Node()) {
			break
		}
		return nil
	}
	return from
}

func (c *code) uses(v *types.Var) (n int) {
	for _, used := range c.info.Uses {
		if used == v {
			n++
		}
	}
	return n
}
