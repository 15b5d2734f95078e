package plant

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/scanner"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Package is the source of a package, without its tests, as this system builds it.
type Package struct {
	dir      string
	files    []*file
	declared map[string][]declaration // by the name that an Edit gives
	imported map[string]string        // quoted paths, by the names under which files have them
}

// file is one file of a package.
type file struct {
	path    string
	source  []byte
	lexemes []lexeme
	syntax  *ast.File
	set     *token.FileSet
}

// declaration is one at the top level of a file.
type declaration struct {
	*file
	name           string
	from, to, body int  // offsets; body is just behind the brace that opens a function's, or -1
	results        bool // whether it is a function that returns something
}

// Load reads the package in dir.
func Load(dir string) (*Package, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	p := &Package{dir: dir, declared: map[string][]declaration{}, imported: map[string]string{}}
	for _, path := range paths {
		name := filepath.Base(path)
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		if built, err := build.Default.MatchFile(dir, name); err != nil {
			return nil, err
		} else if !built {
			continue
		}
		if err := p.read(path); err != nil {
			return nil, err
		}
	}
	if len(p.declared) == 0 {
		return nil, fmt.Errorf("%s has no Go source", dir)
	}
	return p, nil
}

func (p *Package) read(path string) error {
	source, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f := &file{path: path, source: source, set: token.NewFileSet()}
	if f.syntax, err = parser.ParseFile(f.set, path, source, parser.SkipObjectResolution); err != nil {
		return err
	}
	for _, spec := range f.syntax.Imports {
		p.imported[ImportedName(spec)] = spec.Path.Value
	}
	if f.lexemes, err = scan(source); err != nil {
		return err
	}
	p.files = append(p.files, f)
	declare := func(name string, n ast.Node) declaration {
		return declaration{file: f, name: name, from: f.offset(n.Pos()), to: f.offset(n.End()), body: -1}
	}
	for _, decl := range f.syntax.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			d := declare(nameOf(decl), decl)
			d.results = decl.Type.Results != nil
			if decl.Body != nil {
				d.body = f.offset(decl.Body.Lbrace) + 1
			}
			p.declared[d.name] = append(p.declared[d.name], d)
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				var n ast.Node = spec
				if !decl.Lparen.IsValid() {
					n = decl
				}
				for _, name := range namesOf(spec) {
					p.declared[name] = append(p.declared[name], declare(name, n))
				}
			}
		}
	}
	return nil
}

// nameOf returns "Do" or "(*Cache).settle".
func nameOf(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return fn.Name.Name
	}
	t := fn.Recv.List[0].Type
	star, pointer := t.(*ast.StarExpr)
	if pointer {
		t = star.X
	}
	switch generic := t.(type) {
	case *ast.IndexExpr:
		t = generic.X
	case *ast.IndexListExpr:
		t = generic.X
	}
	receiver := t.(*ast.Ident).Name
	if pointer {
		receiver = "(*" + receiver + ")"
	}
	return receiver + "." + fn.Name.Name
}

// namesOf returns the names that spec declares; imports have none.
func namesOf(spec ast.Spec) (names []string) {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		names = append(names, spec.Name.Name)
	case *ast.ValueSpec:
		for _, name := range spec.Names {
			names = append(names, name.Name)
		}
	}
	return names
}

func (f *file) offset(p token.Pos) int { return f.set.Position(p).Offset }

// position returns "call.go:17".
func (f *file) position(offset int) string {
	return fmt.Sprintf("%s:%d", filepath.Base(f.path), 1+strings.Count(string(f.source[:offset]), "\n"))
}

// lexemes returns those of the declaration.
func (d declaration) lexemes() []lexeme {
	all := d.file.lexemes
	from := sort.Search(len(all), func(i int) bool { return all[i].from >= d.from })
	to := sort.Search(len(all), func(i int) bool { return all[i].from >= d.to })
	return all[from:to]
}

// importing returns text, which has been made of f, with the imports that it needs.
func (p *Package) importing(f *file, text []byte) ([]byte, error) {
	all, err := scan(text)
	if err != nil {
		return nil, err
	}
	before, now := selected(f.lexemes), selected(all)
	for _, spec := range slices.Backward(f.syntax.Imports) { // from the last, since they grow
		name := ImportedName(spec)
		if before[name] && !now[name] {
			text = slices.Replace(text, f.offset(spec.Pos()), f.offset(spec.Path.Pos()), []byte("_ ")...)
		}
	}
	for name := range now {
		if path, ok := p.imported[name]; ok && !before[name] {
			text = slices.Insert(text, f.offset(f.syntax.Name.End()), []byte(fmt.Sprintf("; import %s %s", name, path))...)
		}
	}
	return text, nil
}

// selected returns the names of which something is selected: those of packages are among them.
func selected(all []lexeme) map[string]bool {
	names := map[string]bool{}
	for i, l := range all {
		isFirst := i == 0 || all[i-1].token != token.PERIOD
		if l.token == token.IDENT && isFirst && i+1 < len(all) && all[i+1].token == token.PERIOD {
			names[l.text] = true
		}
	}
	return names
}

// ImportedName returns the name under which a file has the package that spec imports: if spec gives
// none, the last element of the path that is no version, less "go-", as it is for all that the library imports.
func ImportedName(spec *ast.ImportSpec) string {
	if spec.Name != nil {
		return spec.Name.Name
	}
	imported, _ := strconv.Unquote(spec.Path.Value)
	name := path.Base(imported)
	if strings.HasPrefix(name, "v") && strings.Trim(name[1:], "0123456789") == "" {
		name = path.Base(path.Dir(imported))
	}
	return strings.TrimPrefix(name, "go-")
}

// scan returns the tokens of text but for comments and semicolons, which may be newlines as well.
func scan(text []byte) ([]lexeme, error) {
	set := token.NewFileSet()
	f := set.AddFile("", -1, len(text))
	var s scanner.Scanner
	var wrong scanner.ErrorList
	s.Init(f, text, wrong.Add, 0)
	var all []lexeme
	for {
		pos, tok, literal := s.Scan()
		switch tok {
		case token.EOF:
			return all, wrong.Err()
		case token.SEMICOLON:
			continue
		}
		from := f.Offset(pos)
		l := lexeme{token: tok, from: from, to: from + len(tok.String())}
		if literal != "" {
			l.text, l.to = literal, from+len(literal)
		}
		all = append(all, l)
	}
}
