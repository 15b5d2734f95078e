// Package plant puts faults into the source of a package. A fault names the declaration that it
// changes and the text there that it replaces, so that it outlives most changes of the source: the
// declaration may move to another file, and the text may be wrapped, indented and commented anew.
package plant

import (
	"bytes"
	"errors"
	"fmt"
	"go/token"
	"slices"
	"strings"
)

// Edit replaces a piece of a declaration.
type Edit struct {
	// In names a declaration at the top level: "Do", "(*Cache).settle", "Options.withDefaults", or
	// that of a type, variable or constant. A receiver is written without type parameters.
	In string

	// Old occurs exactly once in the declaration, from its keyword (in a group: its name) to its end.
	// White space, comments and semicolons do not count; tokens are compared, so that "waiters" is
	// not found in "s.waiters2". If Old is empty, New is put before the first statement of a function.
	Old, New string
}

// Apply returns the texts of the files that edits change, by their paths. Every edit goes by the
// source as it is, not by what another made of it; two may not overlap. Whatever follows the line of
// an edit keeps its line number, unless New has more lines than Old. What the package imports in any
// file may be used in all, and an import may lose its last use.
func (p *Package) Apply(edits ...Edit) (map[string][]byte, error) {
	if len(edits) == 0 {
		return nil, errors.New("no edit")
	}
	places := map[*file][]place{}
	for _, e := range edits {
		at, err := p.find(e)
		if err != nil {
			return nil, err
		}
		places[at.file] = append(places[at.file], at)
	}
	edited := map[string][]byte{}
	for f, of := range places {
		text, err := f.splice(of)
		if err != nil {
			return nil, err
		}
		if edited[f.path], err = p.importing(f, text); err != nil {
			return nil, err
		}
	}
	return edited, nil
}

// place is where an edit applies.
type place struct {
	Edit
	*file
	decl     declaration
	from, to int // offsets in the file
}

// find returns the only place of e.
func (p *Package) find(e Edit) (place, error) {
	named := p.declared[e.In]
	if len(named) != 1 {
		return place{}, p.misnamed(e)
	}
	d := named[0]
	at := place{Edit: e, file: d.file, decl: d, from: d.body, to: d.body}
	old, err := scan([]byte(e.Old))
	if err != nil {
		return place{}, fmt.Errorf("%s: old text: %w", e.In, err)
	}
	replacement, err := scan([]byte(e.New))
	switch {
	case err != nil:
		return place{}, fmt.Errorf("%s: new text: %w", e.In, err)
	case slices.EqualFunc(old, replacement, lexeme.equal):
		return place{}, fmt.Errorf("%s: the edit changes nothing: %q", e.In, e.Old)
	case len(old) == 0 && e.Old != "":
		return place{}, fmt.Errorf("%s: old text without a token: %q", e.In, e.Old)
	case len(old) == 0 && d.body < 0:
		return place{}, fmt.Errorf("%s: an edit without old text is for functions with a body", e.In)
	case len(old) == 0:
		return at, nil
	}
	found := occurrences(d.lexemes(), old)
	if len(found) != 1 {
		return place{}, p.misplaced(e, found)
	}
	at.from, at.to = found[0].from, found[0].to
	return at, nil
}

// splice returns the text of the file with the edits at places done.
func (f *file) splice(places []place) ([]byte, error) {
	slices.SortFunc(places, func(a, b place) int { return a.from - b.from })
	var text []byte
	copied, lines := 0, 0 // lines that the text so far has fewer than the source
	catchUp := func(to int) {
		if eol := f.endOfLine(copied); lines > 0 && 0 <= eol && eol < to {
			text = append(text, f.source[copied:eol]...)
			text = append(text, strings.Repeat("\n", lines)...)
			copied, lines = eol, 0
		}
		text = append(text, f.source[copied:to]...)
	}
	for i, at := range places {
		if at.from < copied {
			return nil, fmt.Errorf("two edits of %s overlap: %q and %q", at.decl.name, places[i-1].Old, at.Old)
		}
		catchUp(at.from)
		replacement := at.New
		if at.Old == "" {
			replacement = " " + replacement + "; "
		}
		text = append(text, replacement...)
		copied = at.to
		lines += bytes.Count(f.source[at.from:at.to], []byte("\n")) - strings.Count(replacement, "\n")
	}
	catchUp(len(f.source))
	return text, nil
}

// endOfLine returns where the line ends in which offset is, or -1 if a raw string goes on there.
func (f *file) endOfLine(offset int) int {
	eol := bytes.IndexByte(f.source[offset:], '\n')
	if eol < 0 {
		return -1
	}
	eol += offset
	if slices.ContainsFunc(f.lexemes, func(l lexeme) bool { return l.from <= eol && eol < l.to }) {
		return -1
	}
	return eol
}

// misnamed tells why there is no declaration for e, and where else its old text is.
func (p *Package) misnamed(e Edit) error {
	if n := len(p.declared[e.In]); n > 1 {
		return fmt.Errorf("%s is declared %d times in %s", e.In, n, p.dir)
	}
	var alike []string
	for name := range p.declared {
		if lastName(name) == lastName(e.In) {
			alike = append(alike, name)
		}
	}
	slices.Sort(alike)
	hint := ""
	if len(alike) > 0 {
		hint = "; there is " + strings.Join(alike, ", ")
	}
	return fmt.Errorf("%s is not declared in %s%s; %s", e.In, p.dir, hint, p.elsewhere(e))
}

// misplaced tells how often the old text of e, which is not there once, is in its declaration.
func (p *Package) misplaced(e Edit, found []lexeme) error {
	d := p.declared[e.In][0]
	if len(found) == 0 {
		return fmt.Errorf("%s (%s) has this 0 times, want once: %q; %s", e.In, d.position(d.from), e.Old, p.elsewhere(e))
	}
	var where []string
	for _, at := range found {
		where = append(where, d.position(at.from))
	}
	return fmt.Errorf("%s has this %d times, want once: %q: at %s", e.In, len(found), e.Old, strings.Join(where, ", "))
}

// elsewhere tells in which other declarations the old text of e is.
func (p *Package) elsewhere(e Edit) string {
	old, err := scan([]byte(e.Old))
	if err != nil || len(old) == 0 {
		return "it has no old text that could be looked for elsewhere"
	}
	var where []string
	for name, named := range p.declared {
		for _, d := range named {
			for _, at := range occurrences(d.lexemes(), old) {
				where = append(where, fmt.Sprintf("%s (%s)", name, d.position(at.from)))
			}
		}
	}
	if len(where) == 0 {
		return fmt.Sprintf("nothing in the package has %q", e.Old)
	}
	slices.Sort(where)
	if n := len(where); n > 5 {
		where = append(where[:5], fmt.Sprintf("and %d more", n-5))
	}
	return fmt.Sprintf("%q is in %s", e.Old, strings.Join(where, ", "))
}

func lastName(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// occurrences returns where wanted occurs in text.
func occurrences(text, wanted []lexeme) []lexeme {
	var found []lexeme
	for i := range len(text) - len(wanted) + 1 {
		if run := text[i : i+len(wanted)]; slices.EqualFunc(run, wanted, lexeme.equal) {
			found = append(found, lexeme{from: run[0].from, to: run[len(run)-1].to})
		}
	}
	return found
}

// lexeme is a token that counts, or a run of them, and where it is.
type lexeme struct {
	token    token.Token
	text     string // of names and literals
	from, to int
}

func (l lexeme) equal(o lexeme) bool { return l.token == o.token && l.text == o.text }
