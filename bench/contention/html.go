package main

import (
	_ "embed"
	"html/template"
	"os"
	"strings"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

type figure struct {
	Title, About string
	Light, Dark  template.HTML
}

// writeHTML writes one page that needs nothing else.
func (rep *report) writeHTML(path string) error {
	var figures []figure
	for _, c := range rep.charts() {
		f := figure{Title: c.title, About: c.about}
		for _, t := range themes {
			svg, err := c.render(t)
			if err != nil {
				return err
			}
			if t.name == "light" {
				f.Light = template.HTML(svg)
			} else {
				f.Dark = template.HTML(svg)
			}
		}
		figures = append(figures, f)
	}
	type tableHTML struct {
		Title string
		Table template.HTML
	}
	var tables []tableHTML
	for _, t := range rep.tables() {
		t.Style().HTML.CSSClass = ""
		tables = append(tables, tableHTML{t.title, template.HTML(t.RenderHTML())})
	}
	var b strings.Builder
	err := page.Execute(&b, map[string]any{
		"Report": rep, "Environment": rep.environment(), "Harness": rep.harnessPerCall(),
		"Figures": figures, "Tables": tables, "Config": rep.settings(),
	})
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
