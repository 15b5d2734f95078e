package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
)

// testFile is what narrow knows of one test file.
type testFile struct {
	path     string
	inside   bool     // of the library's own package: seams, which the others call by its name
	declares []string // top-level names
	uses     map[string]bool
}

// narrow returns the test files of dir that the tests which match pattern do without. Compiling the
// core's suite, which has a Cache of every sort of key, takes longer than running it; most faults
// need one file of it and the helpers.
func narrow(dir, pattern string) (unneeded []string, err error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return nil, err
	}
	declaredIn := map[string][]int{} // several, where build tags choose
	var files []testFile
	var queue []int
	needed := map[int]bool{}
	need := func(i int) {
		if !needed[i] {
			needed[i] = true
			queue = append(queue, i)
		}
	}
	for i, path := range paths {
		file, err := readTestFile(path)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
		if file.inside {
			need(i)
		}
		for _, name := range file.declares {
			declaredIn[name] = append(declaredIn[name], i)
			if name == "TestMain" || strings.HasPrefix(name, "Test") && re.MatchString(name) {
				need(i)
			}
		}
	}
	for len(queue) > 0 {
		file := files[queue[0]]
		queue = queue[1:]
		for name := range file.uses {
			for _, i := range declaredIn[name] {
				need(i)
			}
		}
	}
	for i, file := range files {
		if !needed[i] {
			unneeded = append(unneeded, file.path)
		}
	}
	return unneeded, nil
}

func readTestFile(path string) (testFile, error) {
	syntax, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return testFile{}, err
	}
	file := testFile{path: path, inside: !strings.HasSuffix(syntax.Name.Name, "_test"), uses: map[string]bool{}}
	for _, decl := range syntax.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				file.declares = append(file.declares, d.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					file.declares = append(file.declares, s.Name.Name)
				case *ast.ValueSpec:
					for _, name := range s.Names {
						file.declares = append(file.declares, name.Name)
					}
				}
			}
		}
	}
	ast.Inspect(syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			ast.Inspect(n.X, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok {
					file.uses[id.Name] = true
				}
				return true
			})
			return false
		case *ast.Ident:
			file.uses[n.Name] = true
		}
		return true
	})
	return file, nil
}
