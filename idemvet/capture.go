package idemvet

import (
	"go/ast"
	"go/types"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/ast/inspector"
	"golang.org/x/tools/go/types/typeutil"
)

// Capture finds an fn that uses what its caller closes, reuses or reads once it has left.
var Capture = &analysis.Analyzer{
	Name: "idemcapture",
	Doc: `find an fn that uses what its caller closes, reuses or reads

Without Inline fn may outlive its caller, which leaves when its context ends. After that a request, its body, an
uploaded file and a response are net/http's, or another request's; a transaction is rolled back; and a named
result is read while fn sets it. Copy what fn needs, open the transaction in fn, return the value from fn;
or give Inline() to the call.`,
	URL:      page + "idemcapture",
	Requires: []*analysis.Analyzer{calls},
	Run:      runCapture,
}

func runCapture(pass *analysis.Pass) (any, error) {
	c := pass.ResultOf[calls].(*code)
	type use struct {
		fn *ast.FuncLit
		v  *types.Var
	}
	reported := make(map[use]bool)
	for _, o := range c.once {
		if o.fn == nil || o.stays {
			continue
		}
		for cur, v := range c.captured(o.fn) {
			what := c.lent(cur, v)
			if what == "" || reported[use{o.fn, v}] {
				continue
			}
			reported[use{o.fn, v}] = true
			pass.ReportRangef(cur.Node(), "fn may outlive its caller, and must not use %s, %s: copy what it needs, or call with Inline()", v.Name(), what)
		}
	}
	return nil, nil
}

// lent says what the captured variable v has that its owner takes back, or "". cur is where fn uses it.
func (c *code) lent(cur inspector.Cursor, v *types.Var) string {
	switch {
	case v.Kind() == types.ResultVar:
		return "a result of the function around it"
	case isContext(v.Type()): // idemcontext's business
		return ""
	case c.isBody(v):
		return "the body of a request"
	}
	if _, ok := contextOf(cur); ok && isType(v.Type(), "net/http", "Request") { // idemcontext's, too
		return ""
	}
	for _, l := range lentTypes {
		if l.is(v.Type()) && (v.Kind() == types.ParamVar || !l.parameter) {
			return l.what
		}
	}
	return ""
}

// lentType is a type whose values belong to somebody who closes or reuses them.
type lentType struct {
	path, name string // of any major version
	what       string
	parameter  bool // only as a parameter: else it may be one's own, such as a request to be sent
}

var lentTypes = []lentType{
	{"net/http", "Request", "a request", true},
	{"net/http", "ResponseWriter", "a response", true},
	{"mime/multipart", "File", "an uploaded file", false},
	{"mime/multipart", "FileHeader", "an uploaded file", true},
	{"mime/multipart", "Form", "a form with files", true},
	{"mime/multipart", "Part", "a part of a request's body", false},
	{"mime/multipart", "Reader", "the body of a request", false},
	{"database/sql", "Tx", "a transaction of its caller", false},
	{"github.com/jackc/pgx", "Tx", "a transaction of its caller", false},
	{"github.com/gin-gonic/gin", "Context", "a context that gin reuses", true},
	{"github.com/labstack/echo", "Context", "a context that echo reuses", true},
	{"github.com/gofiber/fiber", "Ctx", "a context that fiber reuses", true},
}

func (l lentType) is(t types.Type) bool {
	n, ok := deref(t).(*types.Named)
	return ok && n.Obj().Name() == l.name && n.Obj().Pkg() != nil && withoutVersion(n.Obj().Pkg().Path()) == l.path
}

// withoutVersion returns an import path without the major version at its end.
func withoutVersion(path string) string {
	i := strings.LastIndex(path, "/v")
	if i < 0 || i+2 == len(path) || strings.Trim(path[i+2:], "0123456789") != "" {
		return path
	}
	return path[:i]
}

// bodyReaders are functions whose result reads from one of their arguments, and no more than that.
var bodyReaders = map[string]bool{
	"net/http.MaxBytesReader": true, "io.LimitReader": true, "io.NopCloser": true, "io.TeeReader": true,
	"bufio.NewReader": true, "encoding/json.NewDecoder": true, "encoding/xml.NewDecoder": true, "encoding/csv.NewReader": true,
}

// isBody reports whether the variable v is set to a request's Body, or to a reader of one.
func (c *code) isBody(v *types.Var) bool {
	for _, from := range c.sources[v] {
		if from != nil && c.readsBody(from) {
			return true
		}
	}
	return false
}

func (c *code) readsBody(e ast.Expr) bool {
	switch e := ast.Unparen(e).(type) {
	case *ast.SelectorExpr:
		r := variable(c.info, e.X)
		return e.Sel.Name == "Body" && r != nil && r.Kind() == types.ParamVar && isType(r.Type(), "net/http", "Request")
	case *ast.CallExpr:
		f := typeutil.StaticCallee(c.info, e)
		if f == nil || !bodyReaders[f.FullName()] {
			return false
		}
		for _, arg := range e.Args {
			if c.readsBody(arg) {
				return true
			}
		}
	}
	return false
}
