package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// pkg is a package whose source is mutated, parsed.
type pkg struct {
	path, dir string
	library   string // the path of the first package, which is the module's
	name      string
	test      string // how go test is told of it: "." or "./idemhttp"
	files     []*file
	tests     []string // the names of its test files
	set       *token.FileSet
	imports   types.Importer
	info      types.Info
}

// file is one that this system builds, and no test.
type file struct {
	pkg    *pkg
	path   string // "ttl.go", "idemhttp/key.go": relative to the library's root
	source []byte
	syntax *ast.File
	sites  []*site // in the order of the source, the outer before the inner
}

func (f *file) offset(p token.Pos) int { return f.pkg.set.Position(p).Offset }

// text returns the source of n.
func (f *file) text(n ast.Node) string { return string(f.source[f.offset(n.Pos()):f.offset(n.End())]) }

// listed is what go list says of a package.
type listed struct {
	ImportPath, Name, Dir, Export string
	GoFiles, TestGoFiles          []string
	XTestGoFiles                  []string
}

func goList(dir string, args ...string) ([]listed, error) {
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Name,Dir,Export,GoFiles,TestGoFiles,XTestGoFiles"}, args...)...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.String())
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		if err := d.Decode(&l); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
}

// load parses and checks the packages that tests names ("." and "./idemhttp"), below root.
func load(root string, tests ...string) ([]*pkg, error) {
	deps, err := goList(root, slices.Concat([]string{"-export", "-deps"}, tests, guardImports)...)
	if err != nil {
		return nil, err
	}
	exports, byDir := map[string]string{}, map[string]listed{}
	for _, d := range deps {
		exports[d.ImportPath], byDir[d.Dir] = d.Export, d
	}
	var pkgs []*pkg
	for _, test := range tests {
		l := byDir[filepath.Join(root, test)]
		p := &pkg{path: l.ImportPath, dir: l.Dir, name: l.Name, test: test, set: token.NewFileSet()}
		if p.library = p.path; len(pkgs) > 0 {
			p.library = pkgs[0].path
		}
		p.tests = slices.Concat(l.TestGoFiles, l.XTestGoFiles)
		p.imports = importer.ForCompiler(p.set, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
		for _, name := range l.GoFiles {
			path := filepath.Join(l.Dir, name)
			source, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			syntax, err := parser.ParseFile(p.set, path, source, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			shown, err := filepath.Rel(root, path)
			if err != nil {
				return nil, err
			}
			p.files = append(p.files, &file{pkg: p, path: filepath.ToSlash(shown), source: source, syntax: syntax})
		}
		p.info = types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
		if err := p.check(nil, &p.info); err != nil {
			return nil, fmt.Errorf("%s as it is: %w", test, err)
		}
		pkgs = append(pkgs, p)
	}
	return pkgs, nil
}

// check returns the first error that the compiler's front end has with the package, edited having
// the texts of files, by their paths, that stand in for others or are new.
func (p *pkg) check(edited map[string][]byte, info *types.Info) error {
	edited = maps.Clone(edited)
	var files []*ast.File
	for _, f := range p.files {
		syntax := f.syntax
		if text, ok := edited[f.path]; ok {
			var err error
			if syntax, err = parser.ParseFile(p.set, f.path, text, parser.SkipObjectResolution); err != nil {
				return err
			}
			delete(edited, f.path)
		}
		files = append(files, syntax)
	}
	for _, name := range slices.Sorted(maps.Keys(edited)) {
		syntax, err := parser.ParseFile(p.set, name, edited[name], parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, syntax)
	}
	conf := types.Config{Importer: p.imports}
	_, err := conf.Check(p.path, p.set, files, info)
	return err
}

// within calls visit for each node of f with what it stands in, the outermost first, and the name of
// the declaration at the top level.
func (f *file) within(visit func(n ast.Node, parents []ast.Node, decl string)) {
	for _, d := range f.syntax.Decls {
		var parents []ast.Node
		name := declName(d)
		ast.Inspect(d, func(n ast.Node) bool {
			if n == nil {
				parents = parents[:len(parents)-1]
				return true
			}
			visit(n, parents, name)
			parents = append(parents, n)
			return true
		})
	}
}

// declName names a declaration: "New", "(*Cache).Do", "const hotSlots".
func declName(d ast.Decl) string {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			return d.Name.Name
		}
		recv := types.ExprString(d.Recv.List[0].Type)
		if i := strings.IndexByte(recv, '['); i >= 0 {
			recv = recv[:i]
		}
		if strings.HasPrefix(recv, "*") {
			recv = "(" + recv + ")"
		}
		return recv + "." + d.Name.Name
	case *ast.GenDecl:
		if len(d.Specs) > 0 {
			switch s := d.Specs[0].(type) {
			case *ast.ValueSpec:
				return d.Tok.String() + " " + s.Names[0].Name
			case *ast.TypeSpec:
				return "type " + s.Name.Name
			}
		}
	}
	return ""
}
