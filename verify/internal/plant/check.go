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
	"os"
	"os/exec"
	"strings"
)

// Checker asks the front end of the compiler whether edited source is Go: a fault that does not
// compile proves nothing. It takes some 50 ms for a package, where to build it takes seconds.
type Checker struct {
	set     *token.FileSet
	imports types.Importer
}

// NewChecker returns a Checker for the packages of the module in dir.
func NewChecker(dir string) (*Checker, error) {
	cmd := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}", "./...")
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

// Check returns the first error in the source of p, the texts of edited standing in for its files.
func (c *Checker) Check(p *Package, edited map[string][]byte) error {
	var files []*ast.File
	for _, f := range p.files {
		text := f.source
		if changed, ok := edited[f.path]; ok {
			text = changed
		}
		syntax, err := parser.ParseFile(c.set, f.path, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, syntax)
	}
	config := types.Config{Importer: c.imports}
	_, err := config.Check(p.dir, c.set, files, nil)
	return err
}
