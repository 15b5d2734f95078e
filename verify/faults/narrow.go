package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/idemflight/idemflight/verify/internal/plant"
)

// Compiling the core's suite, which has a Cache of every sort of key, takes longer than running it.
// So the tests that are tried first are compiled without the others: narrow cuts out of the test
// files the declarations that they do without.

// declaration is one at the top level of a test file.
type declaration struct {
	from, to int             // where in the file it stands
	uses     map[string]bool // names in it
	needed   bool
}

type testFile struct {
	path    string
	source  []byte
	decls   []*declaration
	imports []*ast.ImportSpec
	offset  func(token.Pos) int
}

// narrow returns, by path, the test files of dir reduced to what the tests that match pattern need.
func narrow(dir, pattern string) (map[string][]byte, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return nil, err
	}
	var files []*testFile
	var queue []*declaration
	declared := map[string][]*declaration{} // by name, of a type its methods too; several also where build tags choose
	need := func(d *declaration) {
		if !d.needed {
			d.needed = true
			queue = append(queue, d)
		}
	}
	for _, path := range paths {
		file, err := readTestFile(path, func(name string, d *declaration) {
			declared[name] = append(declared[name], d)
			isTest := strings.HasPrefix(name, "Test") && re.MatchString(name)
			if isTest || name == "TestMain" || name == "init" || name == "_" {
				need(d)
			}
		})
		if err != nil {
			return nil, err
		}
		if file != nil {
			files = append(files, file)
		}
	}
	for len(queue) > 0 {
		d := queue[0]
		queue = queue[1:]
		for name := range d.uses {
			for _, other := range declared[name] {
				need(other)
			}
		}
	}
	reduced := map[string][]byte{}
	for _, file := range files {
		reduced[file.path] = file.reduce()
	}
	return reduced, nil
}

// readTestFile calls declares for every name that path declares at its top level. It returns nil
// for a file of the library's own package: seams, which the tests call by the library's name.
func readTestFile(path string, declares func(string, *declaration)) (*testFile, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	set := token.NewFileSet()
	syntax, err := parser.ParseFile(set, path, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(syntax.Name.Name, "_test") {
		return nil, nil
	}
	file := &testFile{path: path, source: source, imports: syntax.Imports}
	file.offset = func(p token.Pos) int { return set.Position(p).Offset }
	for _, decl := range syntax.Decls {
		d := &declaration{from: file.offset(decl.Pos()), to: file.offset(decl.End()), uses: namesIn(decl)}
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if decl.Doc != nil { // may be a directive
				d.from = file.offset(decl.Doc.Pos())
			}
			name := decl.Name.Name
			if decl.Recv != nil {
				name = typeName(decl.Recv.List[0].Type)
			}
			declares(name, d)
		case *ast.GenDecl:
			if decl.Tok == token.IMPORT {
				continue
			}
			for _, spec := range decl.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					declares(s.Name.Name, d)
				case *ast.ValueSpec:
					for _, name := range s.Names {
						declares(name.Name, d)
					}
				}
			}
		}
		file.decls = append(file.decls, d)
	}
	return file, nil
}

// typeName returns the name of a receiver's type.
func typeName(t ast.Expr) string {
	name := ""
	ast.Inspect(t, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && name == "" {
			name = id.Name
		}
		return name == ""
	})
	return name
}

// namesIn returns the names that n uses, but for those behind a dot: packages and variables, not
// what is selected of them.
func namesIn(n ast.Node) map[string]bool {
	names := map[string]bool{}
	var visit func(ast.Node) bool
	visit = func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			ast.Inspect(n.X, visit)
			return false
		case *ast.Ident:
			names[n.Name] = true
		}
		return true
	}
	ast.Inspect(n, visit)
	return names
}

// reduce returns the file without what is not needed, every line where it was.
func (file *testFile) reduce() []byte {
	out := bytes.Clone(file.source)
	used := map[string]bool{}
	for _, d := range file.decls {
		if !d.needed {
			blank(out[d.from:d.to])
			continue
		}
		for name := range d.uses {
			used[name] = true
		}
	}
	for i := len(file.imports) - 1; i >= 0; i-- { // from the last, since they grow
		spec := file.imports[i]
		at := file.offset(spec.Pos())
		if spec.Name == nil && !used[plant.ImportedName(spec)] {
			out = append(out[:at], append([]byte("_ "), out[at:]...)...)
		} else if spec.Name != nil && !used[spec.Name.Name] {
			blank(out[at:file.offset(spec.Path.Pos())])
			out[at] = '_'
		}
	}
	return out
}

func blank(text []byte) {
	for i := range text {
		if text[i] != '\n' {
			text[i] = ' '
		}
	}
}
