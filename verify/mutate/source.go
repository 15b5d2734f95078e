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
	target
	path, dir string
	goName    string // of its package clause
	files     []*file
	suites    []listed // the packages whose tests are asked
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

// abs returns where f is.
func (f *file) abs() string { return filepath.Join(f.pkg.dir, filepath.Base(f.path)) }

func (f *file) offset(p token.Pos) int { return f.pkg.set.Position(p).Offset }

// text returns the source of n.
func (f *file) text(n ast.Node) string { return string(f.source[f.offset(n.Pos()):f.offset(n.End())]) }

// listed is what go list says of a package.
type listed struct {
	ImportPath, Name, Dir, Export string
	GoFiles, EmbedFiles, Deps     []string
}

// in reports whether l is part of the library, whose root is given, and if so where.
func (l listed) in(root string) (folder string, ok bool) {
	folder, err := filepath.Rel(root, l.Dir)
	return folder, err == nil && filepath.IsLocal(folder)
}

func goList(dir string, args ...string) ([]listed, error) {
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Name,Dir,Export,GoFiles,EmbedFiles,Deps"}, args...)...)
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

// load parses and checks the package of t; root is the library's.
func load(root string, t target) (*pkg, error) {
	p := &pkg{target: t, dir: filepath.Join(root, t.name), set: token.NewFileSet()}
	folders := slices.Concat([]string{p.dir}, p.suiteDirs(root))
	deps, err := goList(filepath.Join(root, t.module), slices.Concat([]string{"-export", "-deps"}, folders, guardImports)...)
	if err != nil {
		return nil, err
	}
	exports, byDir := map[string]string{}, map[string]listed{}
	for _, d := range deps {
		exports[d.ImportPath], byDir[d.Dir] = d.Export, d
	}
	for _, dir := range p.suiteDirs(root) {
		p.suites = append(p.suites, byDir[dir])
	}
	l := byDir[p.dir]
	p.path, p.goName = l.ImportPath, l.Name
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
		return nil, fmt.Errorf("%s as it is: %w", t, err)
	}
	return p, nil
}

// suiteDirs returns where the packages are whose tests are asked.
func (t target) suiteDirs(root string) []string {
	var dirs []string
	for _, s := range t.suites {
		dirs = append(dirs, filepath.Join(root, s))
	}
	return dirs
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
