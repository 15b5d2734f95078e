package main

import (
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// gremlins, at a pinned version, says where in the source it would change a token, and in which way
// (its -dry-run). It does not run the tests: it would compile a suite for every mutant.
const gremlins = "github.com/go-gremlins/gremlins/cmd/gremlins@v0.6.0"

// The ways that gremlins leaves out unless it is told not to.
var gremlinsArgs = []string{
	"unleash", ".", "--dry-run", "--silent", "--invert-assignments", "--invert-bitwise", "--invert-bwassign",
	"--invert-logical", "--invert-loopctrl", "--remove-self-assignments", "--output",
}

// gremlinTokens is what gremlins makes of a token, by the kind of mutant: mappings.go of its engine.
var gremlinTokens = map[string]map[token.Token]token.Token{
	"ARITHMETIC_BASE": {
		token.ADD: token.SUB, token.SUB: token.ADD, token.MUL: token.QUO, token.QUO: token.MUL, token.REM: token.MUL,
	},
	"CONDITIONALS_BOUNDARY": {
		token.GEQ: token.GTR, token.GTR: token.GEQ, token.LEQ: token.LSS, token.LSS: token.LEQ,
	},
	"CONDITIONALS_NEGATION": {
		token.EQL: token.NEQ, token.NEQ: token.EQL, token.GEQ: token.LSS, token.LSS: token.GEQ, token.GTR: token.LEQ, token.LEQ: token.GTR,
	},
	"INCREMENT_DECREMENT": {token.DEC: token.INC, token.INC: token.DEC},
	"INVERT_ASSIGNMENTS": {
		token.ADD_ASSIGN: token.SUB_ASSIGN, token.SUB_ASSIGN: token.ADD_ASSIGN,
		token.MUL_ASSIGN: token.QUO_ASSIGN, token.QUO_ASSIGN: token.MUL_ASSIGN, token.REM_ASSIGN: token.REM_ASSIGN,
	},
	"INVERT_BITWISE": {
		token.AND: token.OR, token.OR: token.AND, token.XOR: token.AND, token.AND_NOT: token.AND, token.SHL: token.SHR, token.SHR: token.SHL,
	},
	"INVERT_BWASSIGN": {
		token.AND_ASSIGN: token.OR_ASSIGN, token.OR_ASSIGN: token.AND_ASSIGN, token.XOR_ASSIGN: token.AND_ASSIGN,
		token.AND_NOT_ASSIGN: token.AND_ASSIGN, token.SHL_ASSIGN: token.SHR_ASSIGN, token.SHR_ASSIGN: token.SHL_ASSIGN,
	},
	"INVERT_LOGICAL":   {token.LAND: token.LOR, token.LOR: token.LAND},
	"INVERT_LOOPCTRL":  {token.BREAK: token.CONTINUE, token.CONTINUE: token.BREAK},
	"INVERT_NEGATIVES": {token.SUB: token.ADD},
	"REMOVE_SELF_ASSIGNMENTS": {
		token.ADD_ASSIGN: token.ASSIGN, token.SUB_ASSIGN: token.ASSIGN, token.MUL_ASSIGN: token.ASSIGN, token.QUO_ASSIGN: token.ASSIGN,
		token.REM_ASSIGN: token.ASSIGN, token.AND_ASSIGN: token.ASSIGN, token.OR_ASSIGN: token.ASSIGN, token.XOR_ASSIGN: token.ASSIGN,
		token.AND_NOT_ASSIGN: token.ASSIGN, token.SHL_ASSIGN: token.ASSIGN, token.SHR_ASSIGN: token.ASSIGN,
	},
}

// gremlinsReport is what gremlins writes.
type gremlinsReport struct {
	Files []struct {
		FileName  string `json:"file_name"`
		Mutations []struct {
			Type         string `json:"type"`
			Line, Column int
		} `json:"mutations"`
	} `json:"files"`
}

// askGremlins lists the mutants of t, and more. gremlins measures first what the tests cover, which
// takes long; here the runner measures that itself, so gremlins gets a copy without them.
func askGremlins(ctx context.Context, root string, t target) (gremlinsReport, error) {
	var report gremlinsReport
	dir, err := os.MkdirTemp("", "gremlins-")
	if err != nil {
		return report, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	deps, err := goList(filepath.Join(root, t.module), "-deps", filepath.Join(root, t.name))
	if err != nil {
		return report, err
	}
	needed := []string{"go.mod", "go.sum"} // a nested module is replaced by the root's
	if t.module != "." {
		needed = append(needed, filepath.Join(t.module, "go.mod"), filepath.Join(t.module, "go.sum"))
	}
	for _, l := range deps {
		if folder, ok := l.in(root); ok {
			for _, name := range slices.Concat(l.GoFiles, l.EmbedFiles) {
				needed = append(needed, filepath.Join(folder, name))
			}
		}
	}
	for _, path := range needed {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return report, err
		}
		to := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return report, err
		}
		if err := os.WriteFile(to, text, 0o600); err != nil {
			return report, err
		}
	}
	out := filepath.Join(dir, "report.json")
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"run", gremlins}, gremlinsArgs...), out)...)
	cmd.Dir = filepath.Join(dir, t.module)
	if text, err := cmd.CombinedOutput(); err != nil {
		return report, fmt.Errorf("gremlins: %w\n%s", err, text)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		return report, err
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return report, err
	}
	for i := range report.Files { // below the module
		report.Files[i].FileName = filepath.Join(t.module, report.Files[i].FileName)
	}
	return report, nil
}

// addGremlins adds to the sites of p what report lists. Other packages, and files that this system does
// not build, are left out.
func addGremlins(p *pkg, report gremlinsReport) error {
	type place struct{ line, column int }
	listed := map[string]map[place][]string{}
	for _, f := range report.Files {
		kinds := map[place][]string{}
		for _, m := range f.Mutations {
			kinds[place{m.Line, m.Column}] = append(kinds[place{m.Line, m.Column}], m.Type)
		}
		listed[filepath.ToSlash(f.FileName)] = kinds
	}
	for _, f := range p.files {
		kinds := listed[f.path]
		f.within(func(n ast.Node, parents []ast.Node, decl string) {
			pos, old := tokenOf(n)
			if !pos.IsValid() {
				return
			}
			at := p.set.Position(pos)
			here := place{at.Line, at.Column}
			seen := map[token.Token]bool{old: true} // several kinds may come to the same
			slices.Sort(kinds[here])                // for one name in each run
			for _, kind := range kinds[here] {
				if to, ok := gremlinTokens[kind][old]; ok && !seen[to] {
					seen[to] = true
					f.add(n, parents, mutant{Decl: decl, Kind: strings.ToLower(strings.ReplaceAll(kind, "_", " ")), to: to})
				}
			}
			delete(kinds, here)
		})
		for at, kinds := range kinds {
			return fmt.Errorf("gremlins lists %v at %s:%d:%d, where no token is that it could mean", kinds, f.path, at.line, at.column)
		}
	}
	return nil
}

// tokenOf returns the token of n that gremlins may change.
func tokenOf(n ast.Node) (token.Pos, token.Token) {
	switch n := n.(type) {
	case *ast.AssignStmt:
		return n.TokPos, n.Tok
	case *ast.BinaryExpr:
		return n.OpPos, n.Op
	case *ast.BranchStmt:
		return n.TokPos, n.Tok
	case *ast.IncDecStmt:
		return n.TokPos, n.Tok
	case *ast.UnaryExpr:
		return n.OpPos, n.Op
	}
	return token.NoPos, token.ILLEGAL
}
