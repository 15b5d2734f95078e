package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const errorsPage = "docs/errors.md"

// checkErrors reports an error for each sentinel of errors.go that the page about errors does not explain in
// a section of its own, with the text that a log shows.
func checkErrors(root fs.FS) error {
	page, err := fs.ReadFile(root, errorsPage)
	if err != nil {
		return err
	}
	file, err := parse(root, "errors.go")
	if err != nil {
		return err
	}
	var bad []error
	texts := sentinels(file)
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		if !strings.Contains(string(page), "\n### "+name+"\n") {
			bad = append(bad, fmt.Errorf("%s has no section about %s", errorsPage, name))
		}
		if !strings.Contains(string(page), texts[name]) {
			bad = append(bad, fmt.Errorf("%s does not have the text of %s: %s", errorsPage, name, texts[name]))
		}
	}
	return errors.Join(bad...)
}

// sentinels returns the exported variables of file that errors.New makes, with their texts.
func sentinels(file *ast.File) map[string]string {
	found := map[string]string{}
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 || !spec.Names[0].IsExported() {
			return true
		}
		if call, ok := spec.Values[0].(*ast.CallExpr); ok && len(call.Args) == 1 {
			if text, ok := call.Args[0].(*ast.BasicLit); ok && text.Kind == token.STRING {
				found[spec.Names[0].Name], _ = strconv.Unquote(text.Value)
			}
		}
		return true
	})
	return found
}

var (
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	anchor   = regexp.MustCompile(`<a id="([^"]+)">`)
	fenced   = regexp.MustCompile("(?ms)^```.*?^```")
	tag      = regexp.MustCompile(`<[^>]*>`)
	unslugly = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// checkLinks reports an error for each link of a page to a file of the repository, or to a heading in one,
// that does not exist.
func checkLinks(root fs.FS) error {
	var bad []error
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == "node_modules":
			return fs.SkipDir
		case entry.IsDir() || path.Ext(name) != ".md":
			return nil
		}
		page, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		for _, found := range link.FindAllStringSubmatch(string(fenced.ReplaceAll(page, nil)), -1) {
			if strings.Contains(found[1], "://") || strings.HasPrefix(found[1], "mailto:") {
				continue
			}
			if err := checkLink(root, name, found[1]); err != nil {
				bad = append(bad, fmt.Errorf("%s: %w", name, err))
			}
		}
		return nil
	})
	return errors.Join(append(bad, err)...)
}

func checkLink(root fs.FS, page, target string) error {
	name, id, hasID := strings.Cut(target, "#")
	if name == "" {
		name = page
	} else {
		name = path.Join(path.Dir(page), name)
	}
	if _, err := fs.Stat(root, name); err != nil {
		return fmt.Errorf("the link to %s leads nowhere", target)
	}
	if !hasID || path.Ext(name) != ".md" {
		return nil
	}
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return err
	}
	if !slices.Contains(anchors(string(fenced.ReplaceAll(text, nil))), id) {
		return fmt.Errorf("%s has no heading or anchor #%s", name, id)
	}
	return nil
}

// anchors returns what a link may have after its # to lead to a place in page, as GitHub has it. (It numbers
// headings of the same name, which these pages do not have.)
func anchors(page string) []string {
	var ids []string
	for _, found := range heading.FindAllStringSubmatch(page, -1) {
		text := unslugly.ReplaceAllString(strings.ToLower(tag.ReplaceAllString(found[1], "")), "")
		ids = append(ids, strings.ReplaceAll(strings.TrimSpace(text), " ", "-"))
	}
	for _, found := range anchor.FindAllStringSubmatch(page, -1) {
		ids = append(ids, found[1])
	}
	return ids
}
