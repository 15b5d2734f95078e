package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A promise is stated once, by a comment in a test file that begins with "Promise 7: " (up to its first
// empty line), and held by the tests whose names begin with TestPromise07_.
type promise struct {
	sentence string
	tests    map[string][]string // by file, in the order of the file, without TestPromise07_
}

var (
	statement  = regexp.MustCompile(`^Promise (\d+): `)
	testName   = regexp.MustCompile(`^TestPromise(\d\d)_(.+)$`)
	docsFile   = regexp.MustCompile(`docs/([\w-]+\.md)(#[\w-]+)?`)
	otherTrees = []string{"bench", "verify", "testdata"} // which test the tests
)

// collect reads the promises from the test files below root. Its error names all that is wrong with them.
func collect(root fs.FS) ([]promise, error) {
	var bad []error
	found := map[int]*promise{}
	at := func(number string) *promise {
		n, _ := strconv.Atoi(number)
		if found[n] == nil {
			found[n] = &promise{tests: map[string][]string{}}
		}
		return found[n]
	}
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (slices.Contains(otherTrees, entry.Name()) || len(entry.Name()) > 1 && entry.Name()[0] == '.'):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, "_test.go"):
			return nil
		}
		file, err := parse(root, name)
		if err != nil {
			return err
		}
		for _, comment := range file.Comments {
			text, _, _ := strings.Cut(comment.Text(), "\n\n")
			number := statement.FindStringSubmatch(text)
			if number == nil {
				continue
			}
			p := at(number[1])
			if p.sentence != "" {
				bad = append(bad, fmt.Errorf("%s: promise %s is stated a second time", name, number[1]))
			}
			p.sentence = strings.Join(strings.Fields(strings.TrimPrefix(text, number[0])), " ")
		}
		for _, declaration := range file.Decls {
			if test, ok := declaration.(*ast.FuncDecl); ok {
				if parts := testName.FindStringSubmatch(test.Name.Name); parts != nil {
					p := at(parts[1])
					p.tests[name] = append(p.tests[name], parts[2])
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	promises := make([]promise, 0, len(found))
	for n := range len(found) {
		p := found[n+1]
		switch {
		case p == nil:
			bad = append(bad, fmt.Errorf("there is no promise %d, but a later one", n+1))
			continue
		case p.sentence == "":
			bad = append(bad, fmt.Errorf("promise %d is not stated: its first test wants a comment that begins with \"Promise %d: \"", n+1, n+1))
		case !strings.HasSuffix(p.sentence, "."):
			bad = append(bad, fmt.Errorf("promise %d is not a sentence: it ends in %q", n+1, p.sentence[len(p.sentence)-1:]))
		case len(p.tests) == 0 && !docsFile.MatchString(p.sentence):
			bad = append(bad, fmt.Errorf("promise %d has no test, and names no page that says why", n+1))
		}
		promises = append(promises, *p)
	}
	return promises, errors.Join(bad...)
}

func parse(root fs.FS, name string) (*ast.File, error) {
	source, err := fs.ReadFile(root, name)
	if err != nil {
		return nil, err
	}
	return parser.ParseFile(token.NewFileSet(), name, source, parser.ParseComments|parser.SkipObjectResolution)
}

const head = `<!-- Written by go run ./internal/docs, from the comments of the tests: change the sentences there. -->

# Promises

What the library promises, and the tests that hold it to its word. Their names are short for
` + "`TestPromise07_…`" + `: ` + "`go test -run TestPromise07 .`" + ` runs those of promise 7 that are in the root, and
` + "`go test -run TestPromise31 ./storetest`" + ` those of promise 31. For each promise a fault was planted in the library, which
these tests must notice: [verify/README.md](../verify/README.md). The words, such as flight, held and retained, are
explained in the [package documentation](../doc.go).

The packages around the core promise what their documentation says, and test it beside it: for
[idemhttp](http.md) that is ` + "`go test ./idemhttp`" + `.
`

// chapters are the headings, by the promise that each begins with.
var chapters = map[int]string{
	1: "Execution", 7: "Callers", 11: "Outcomes", 15: "Time", 18: "Bounds", 22: "Payloads", 23: "Lifecycle and sight",
	28: "With a Store", 34: "With a Store: callers", 40: "With a Store: time and memory",
}

// render returns the page.
func render(promises []promise) []byte {
	var page bytes.Buffer
	page.WriteString(head)
	for i, p := range promises {
		if chapter := chapters[i+1]; chapter != "" {
			fmt.Fprintf(&page, "\n## %s\n", chapter)
		}
		fmt.Fprintf(&page, "\n### Promise %d\n\n%s\n", i+1, docsFile.ReplaceAllString(p.sentence, "[docs/$1]($1$2)"))
		for j, name := range slices.Sorted(maps.Keys(p.tests)) {
			if j == 0 {
				page.WriteByte('\n')
			}
			fmt.Fprintf(&page, "- [%s](%s): %s\n", name, path.Join("..", name), strings.Join(p.tests[name], ", "))
		}
	}
	return page.Bytes()
}
