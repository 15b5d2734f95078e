package plant

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
)

// Guarded is an edit that is in force only while a condition holds, so that one program can have many.
type Guarded struct {
	Edit
	Guard string // the condition, in Go
}

// ApplyGuarded is Apply for edits behind guards. A function gets, in front of its own body, one with
// each edit:
//
//	if guard { the body with the edit }
//
// It stands there, and is not called, so that what it defers, recovers and names as a result is what it
// would be without a guard. An edit that does not keep to the body of a function has no such place, nor
// has one where the body would mean something else within a block: see hides. Whether the rest is Go,
// a Checker tells.
func (p *Package) ApplyGuarded(edits ...Guarded) (map[string][]byte, error) {
	bodies := map[*file]map[int]string{} // to be inserted, by offset
	for _, e := range edits {
		at, err := p.find(e.Edit)
		if err != nil {
			return nil, err
		}
		body, err := at.guardable()
		if err != nil {
			return nil, err
		}
		if !at.decl.results {
			body += "\nreturn"
		}
		if bodies[at.file] == nil {
			bodies[at.file] = map[int]string{}
		}
		bodies[at.file][at.decl.body] += fmt.Sprintf(" if %s {%s\n}; ", e.Guard, body)
	}
	edited := map[string][]byte{}
	for f, of := range bodies {
		var text []byte
		copied := 0
		for _, at := range slices.Sorted(maps.Keys(of)) {
			text = append(append(text, f.source[copied:at]...), of[at]...)
			copied = at
		}
		text = append(text, f.source[copied:]...)
		var err error
		if edited[f.path], err = p.importing(f, text); err != nil {
			return nil, err
		}
	}
	return edited, nil
}

// guardable returns the text of the function's body with the edit, or why it may not stand in a block.
func (at place) guardable() (string, error) {
	d := at.decl
	end := d.to - 1 // the closing brace
	if d.body < 0 || at.from < d.body || at.to > end {
		return "", fmt.Errorf("%s: the edit does not keep to the body of a function", d.name)
	}
	replacement := at.New
	if at.Old == "" {
		replacement = " " + replacement + "; "
	}
	body := string(d.source[d.body:at.from]) + replacement + string(d.source[at.to:end])
	syntax, err := parser.ParseFile(token.NewFileSet(), "", "package p\n"+string(d.source[d.from:d.body])+body+"\n}", parser.SkipObjectResolution)
	if err != nil {
		return "", fmt.Errorf("%s: %w", d.name, err)
	}
	if len(syntax.Decls) != 1 {
		return "", fmt.Errorf("%s: the edit ends the function", d.name)
	}
	if name := hides(syntax.Decls[0].(*ast.FuncDecl)); name != "" {
		return "", fmt.Errorf("%s: within a block, it would declare another %s", d.name, name)
	}
	return body, nil
}

// hides returns the name of a parameter or result to which fn's body assigns with := next to a new
// variable. Such an assignment within a block would declare a variable of that name.
func hides(fn *ast.FuncDecl) string {
	names := map[string]bool{}
	for _, list := range []*ast.FieldList{fn.Recv, fn.Type.Params, fn.Type.Results} {
		if list == nil {
			continue
		}
		for _, field := range list.List {
			for _, name := range field.Names {
				names[name.Name] = name.Name != "_"
			}
		}
	}
	for _, s := range fn.Body.List {
		for labeled, ok := s.(*ast.LabeledStmt); ok; labeled, ok = s.(*ast.LabeledStmt) {
			s = labeled.Stmt
		}
		assign, ok := s.(*ast.AssignStmt)
		if !ok || assign.Tok != token.DEFINE {
			continue
		}
		for _, left := range assign.Lhs {
			if name, ok := left.(*ast.Ident); ok && names[name.Name] {
				return name.Name
			}
		}
	}
	return ""
}
