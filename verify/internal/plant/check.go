package plant

import (
	"bytes"
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
	"slices"
	"strings"
)

// Checker asks the front end of the compiler whether edited source is Go: a fault that does not
// compile proves nothing. It takes some 50 ms for a package, where to build it takes seconds.
type Checker struct {
	set     *token.FileSet
	imports types.Importer
}

// NewChecker returns a Checker for the packages of the module in dir. What edits import beside that
// which those import is named by more.
func NewChecker(dir string, more ...string) (*Checker, error) {
	args := []string{"list", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}", "./..."}
	cmd := exec.Command("go", append(args, more...)...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.String())
	}
	exports := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), "\t")
		exports[path] = file
	}
	set := token.NewFileSet()
	return &Checker{set, importer.ForCompiler(set, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})}, nil
}

// Check returns the first error in the source of p, the texts of edited standing in for its files or
// being new ones.
func (c *Checker) Check(p *Package, edited map[string][]byte) error {
	edited = maps.Clone(edited)
	var files []*ast.File
	add := func(path string, text []byte) error {
		syntax, err := parser.ParseFile(c.set, path, text, parser.SkipObjectResolution)
		files = append(files, syntax)
		return err
	}
	for _, f := range p.files {
		text := f.source
		if changed, ok := edited[f.path]; ok {
			text = changed
			delete(edited, f.path)
		}
		if err := add(f.path, text); err != nil {
			return err
		}
	}
	for _, path := range slices.Sorted(maps.Keys(edited)) {
		if err := add(path, edited[path]); err != nil {
			return err
		}
	}
	config := types.Config{Importer: c.imports}
	_, err := config.Check(p.dir, c.set, files, nil)
	return err
}
