package idemvet

import (
	"go/ast"
	"go/types"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/ast/inspector"
	"golang.org/x/tools/go/types/typeutil"
)

// Begin finds calls of BeginEffect whose error is ignored, and with -idembegin.missing some that are missing.
var Begin = &analysis.Analyzer{
	Name: "idembegin",
	Doc: `find calls of BeginEffect whose error is ignored

An error says that the effect must not begin: it would come too late, or nothing guards it. In a test, the blank
identifier is taken for a decision: _ = idemflight.BeginEffect(ctx).

With -idembegin.missing the check also reports an fn that sends something by an http.Client, database/sql, pgx
or a gRPC connection without having called BeginEffect.`,
	URL:      page + "idembegin",
	Requires: []*analysis.Analyzer{calls},
	Run:      runBegin,
}

var beginMissing bool

func init() {
	Begin.Flags.BoolVar(&beginMissing, "missing", false, "also report an fn that sends something without BeginEffect")
}

func runBegin(pass *analysis.Pass) (any, error) {
	c := pass.ResultOf[calls].(*code)
	for _, cur := range c.said {
		if c.isCallTo(cur.Node().(ast.Expr), "BeginEffect") && isIgnored(cur, isTest(pass, cur.Node())) {
			pass.ReportRangef(cur.Node(), "the error of BeginEffect is ignored: it says that the effect must not begin")
		}
	}
	if !beginMissing {
		return nil, nil
	}
	for _, o := range c.once {
		if o.fn == nil {
			continue
		}
		if sent := c.unannounced(o.fn); sent != nil {
			pass.ReportRangef(sent, "fn sends something without having called BeginEffect")
		}
	}
	return nil, nil
}

// isIgnored reports whether the one result of the call at cur goes nowhere. The blank identifier may be enough.
func isIgnored(cur inspector.Cursor, blankHeeds bool) bool {
	at := cur.ParentEdgeIndex()
	switch n := cur.Parent().Node().(type) {
	case *ast.ExprStmt, *ast.DeferStmt, *ast.GoStmt:
		return true
	case *ast.AssignStmt:
		return isBlank(n.Lhs[at]) && !blankHeeds
	case *ast.ValueSpec:
		return isBlank(n.Names[at]) && !blankHeeds
	case *ast.ParenExpr:
		return isIgnored(cur.Parent(), blankHeeds)
	}
	return false
}

func isBlank(e ast.Expr) bool {
	id, ok := ast.Unparen(e).(*ast.Ident)
	return ok && id.Name == "_"
}

// sends are functions whose calls are effects more often than not, and not hidden in a client of a service.
var sends = map[string]bool{
	"net/http.Post": true, "net/http.PostForm": true,
	"(*net/http.Client).Do": true, "(*net/http.Client).Post": true, "(*net/http.Client).PostForm": true,
	"(*database/sql.DB).Exec": true, "(*database/sql.DB).ExecContext": true,
	"(*database/sql.Tx).Exec": true, "(*database/sql.Tx).ExecContext": true,
	"(*database/sql.Conn).ExecContext": true,
	"(*database/sql.Stmt).Exec":        true, "(*database/sql.Stmt).ExecContext": true,
	"(github.com/jackc/pgx/v5.Tx).Exec": true, "(*github.com/jackc/pgx/v5.Conn).Exec": true,
	"(*github.com/jackc/pgx/v5/pgxpool.Pool).Exec": true,
	"(*google.golang.org/grpc.ClientConn).Invoke":  true, "(google.golang.org/grpc.ClientConnInterface).Invoke": true,
}

// unannounced returns the first call in fn that sends something, or nil if fn calls BeginEffect or something
// that does.
func (c *code) unannounced(fn *ast.FuncLit) (sent *ast.CallExpr) {
	for call := range c.callsIn(fn.Body) {
		f, _ := typeutil.Callee(c.info, call).(*types.Func)
		switch {
		case f == nil || isFunc(f, "NoEffect", "Final", "Retryable", "Unknown"):
		case c.speaks(f):
			return nil
		case sent == nil && c.isSent(call):
			sent = call
		}
	}
	return sent
}

// isSent reports whether call sends something.
func (c *code) isSent(call *ast.CallExpr) bool {
	f, ok := typeutil.Callee(c.info, call).(*types.Func)
	return ok && sends[f.FullName()]
}
