// Command demo runs the payments example and draws what it prints as docs/demo-light.svg and docs/demo-dark.svg, the
// README's first picture:
//
//	go run ./docs/demo
//
// It is run from the root of a clone. Nothing of the picture is written by hand.
package main

import (
	"bytes"
	"fmt"
	"html/template"
	"os"
	"os/exec"
	"strings"
)

const (
	command = "go run ./examples/payments"
	// Of a monospaced font of 13 px, drawn at a fixed advance whatever font the reader has.
	advance, leading, margin = 7.8, 17.0, 16.0
	columns                  = 80
)

type theme struct {
	File                                       string
	Background, Border, Text, Faint, Good, Bad string
}

var themes = []theme{
	{"docs/demo-light.svg", "#ffffff", "#d1d9e0", "#1f2328", "#59636e", "#1a7f37", "#d1242f"},
	{"docs/demo-dark.svg", "#0d1117", "#3d444d", "#f0f6fc", "#9198a1", "#3fb950", "#f85149"},
}

// Each text is stretched to the columns that it takes, so that the table is straight in every font.
var picture = template.Must(template.New("").Parse(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{.Width}} {{.Height}}" role="img" aria-label="The output of {{.Command}}">
<rect x=".5" y=".5" width="{{.InnerWidth}}" height="{{.InnerHeight}}" rx="6" fill="{{.Background}}" stroke="{{.Border}}"/>
<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="13">
{{range .Runs}}<text x="{{.X}}" y="{{.Y}}" fill="{{.Fill}}" textLength="{{.Length}}" lengthAdjust="spacingAndGlyphs">{{.Text}}</text>
{{end}}</g>
</svg>
`))

// run is a piece of a line in one colour.
type run struct {
	X, Y, Length string
	Fill, Text   string
}

func main() {
	if err := draw(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func draw() error {
	name, args, _ := strings.Cut(command, " ")
	demo := exec.Command(name, strings.Fields(args)...)
	demo.Stderr = os.Stderr
	out, err := demo.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	lines := append([]string{"$ " + command, ""}, strings.Split(strings.TrimRight(string(out), "\n"), "\n")...)
	for _, t := range themes {
		svg, err := t.render(lines)
		if err != nil {
			return err
		}
		if err := os.WriteFile(t.File, svg, 0o644); err != nil {
			return err
		}
		fmt.Println(t.File)
	}
	return nil
}

func (t theme) render(lines []string) ([]byte, error) {
	width, height := 2*margin+columns*advance, 2*margin+float64(len(lines))*leading
	data := struct {
		theme
		Command, Width, Height, InnerWidth, InnerHeight string
		Runs                                            []run
	}{theme: t, Command: command, Width: number(width), Height: number(height), InnerWidth: number(width - 1), InnerHeight: number(height - 1)}
	for i, line := range lines {
		data.Runs = append(data.Runs, t.runs(line, margin+float64(i+1)*leading-4)...)
	}
	var b bytes.Buffer
	err := picture.Execute(&b, data)
	return b.Bytes(), err
}

// runs colours the mark that a situation's line begins with, the prompt and the head of the table.
func (t theme) runs(line string, y float64) []run {
	piece := func(from, to int, fill string) run {
		text := line[from:to]
		from += len(text) - len(strings.TrimLeft(text, " "))
		text = strings.TrimSpace(text)
		length := number(float64(len(text)) * advance)
		// XML would make one space of several.
		return run{number(margin + float64(from)*advance), number(y), length, fill, strings.ReplaceAll(text, " ", "\u00a0")}
	}
	switch {
	case strings.TrimSpace(line) == "":
		return nil
	case strings.HasPrefix(line, " ok "):
		return []run{piece(0, 4, t.Good), piece(4, len(line), t.Text)}
	case strings.HasPrefix(line, " !! "):
		return []run{piece(0, 4, t.Bad), piece(4, len(line), t.Text)}
	case strings.HasPrefix(line, "$ "), strings.Contains(line, "situation  "):
		return []run{piece(0, len(line), t.Faint)}
	}
	return []run{piece(0, len(line), t.Text)}
}

func number(f float64) string { return fmt.Sprintf("%.1f", f) }
