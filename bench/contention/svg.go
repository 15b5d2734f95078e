package main

import (
	"bytes"
	"cmp"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// theme is the colours of one background. The background itself is transparent.
type theme struct {
	name       string
	ink, faint color.Color // text, and the grid
	ours, good color.Color
	others     [6]color.Color // told apart by the colour-blind too; shapes and dashes help
	plain, bad color.Color    // bars of the others
}

var themes = []theme{
	{
		name: "light", ink: rgb(0x1f2328), faint: rgb(0xd8dee4), ours: rgb(0xc94a00), good: rgb(0x00734f), plain: rgb(0x8c959f), bad: rgb(0x9e2a6b),
		others: [6]color.Color{rgb(0x0062a3), rgb(0x00734f), rgb(0xa3407c), rgb(0x5b4fb8), rgb(0x7a5900), rgb(0x57606a)},
	},
	{
		name: "dark", ink: rgb(0xe6edf3), faint: rgb(0x3d444d), ours: rgb(0xff8b4d), good: rgb(0x4cc38a), plain: rgb(0x6e7681), bad: rgb(0xf29bc7),
		others: [6]color.Color{rgb(0x6cb6ff), rgb(0x4cc38a), rgb(0xf29bc7), rgb(0xb9aeff), rgb(0xe3b341), rgb(0xadb6c0)},
	},
}

func rgb(v uint32) color.Color {
	return color.NRGBA{R: uint8(v >> 16), G: uint8(v >> 8), B: uint8(v), A: 255}
}

// A phone that is 390 pixels wide leaves 358 or more to a chart, in which the text is 11 pixels high.
const (
	chartWidth  = vg.Length(385)
	chartHeight = vg.Length(340)
	fontSize    = vg.Length(12)
)

// chart is a picture that is drawn once per theme.
type chart struct {
	name  string // of its file
	title string
	about string // what to see, below it

	height vg.Length // 0: chartHeight
	draw   func(theme) drawing
}

// drawing is a plot, or what is drawn by hand.
type drawing interface{ Draw(draw.Canvas) }

// ours is how many of the rivals are this library: plain, and inline.
const ours = 2

// series is what one rival contributes to a chart. A missing value is NaN.
type series struct {
	name      string
	number    int // of the rival, which decides on the colour
	values    []float64
	low, high []float64 // over the rounds; may be nil
}

func (t theme) newPlot(title string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	style := func(s *text.Style, size vg.Length) {
		s.Font, s.Color = fontOf(size), t.ink
	}
	p.Title.Text = title
	p.Title.Padding = 6
	style(&p.Title.TextStyle, fontSize+1)
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		style(&a.Label.TextStyle, fontSize)
		style(&a.Tick.Label, fontSize)
		a.Label.Padding = 4
		a.LineStyle.Color, a.Tick.LineStyle.Color = t.faint, t.faint
		a.LineStyle.Width, a.Tick.LineStyle.Width = 0.75, 0.75
	}
	return p
}

func fontOf(size vg.Length) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
}

// bold is the weight of this library's name.
const bold = 2

// labelStyle is that of what is written right of a point, at its height.
func labelStyle(c color.Color) text.Style {
	return text.Style{Color: c, Font: fontOf(fontSize), YAlign: draw.YCenter, Handler: plot.DefaultTextHandler}
}

func (t theme) colorOf(number int) color.Color {
	if number < ours {
		return t.ours
	}
	return t.others[(number-ours)%len(t.others)]
}

var shapes = []draw.GlyphDrawer{
	draw.CircleGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}, draw.RingGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{}, draw.PlusGlyph{}, draw.CrossGlyph{},
}

// lines draws one line per rival over places that are as far apart as their names are, with a
// logarithmic scale and each line's name at its end. format writes the values of the scale.
func (t theme) lines(title, along string, places []string, all []series, format func(float64) string) *plot.Plot {
	p := t.newPlot(title)
	p.X.Label.Text = along
	last := float64(len(places) - 1)
	var ticks plot.ConstantTicks
	for i, name := range places {
		ticks = append(ticks, plot.Tick{Value: float64(i), Label: name})
	}
	p.X.Tick.Marker = ticks
	p.Y.Scale = plot.LogScale{}

	low, high := math.Inf(1), math.Inf(-1)
	for _, s := range all {
		shown := s.values
		if s.number == 0 {
			shown = slices.Concat(s.values, s.low, s.high)
		}
		for _, v := range shown {
			if v > 0 {
				low, high = min(low, v), max(high, v)
			}
		}
	}
	if low > high {
		low, high = 1, 10 // nothing was measured
	}
	low, high = low/1.25, high*1.25
	p.Y.Tick.Marker = decades{format, high/low < 50}
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = nil, t.faint
	grid.Horizontal.Width = 0.5
	p.Add(grid)

	labels := spreadOut(all, low, high)
	for _, s := range slices.Backward(all) { // ours last, over the others
		var points plotter.XYs
		for i, v := range s.values {
			if v > 0 {
				points = append(points, plotter.XY{X: float64(i), Y: v})
			}
		}
		if len(points) == 0 {
			continue
		}
		line, glyphs, err := plotter.NewLinePoints(points)
		if err != nil {
			continue // a value that is no number: nothing to draw
		}
		c := t.colorOf(s.number)
		line.Color, glyphs.Color = c, c
		line.Width, glyphs.Radius = 1.2, 2.6
		glyphs.Shape = shapes[s.number%len(shapes)]
		if s.number == 1 || s.number >= ours+len(t.others) {
			line.Dashes = []vg.Length{4, 2}
		}
		if s.number == 0 {
			line.Width, glyphs.Radius = 3, 4
			if s.low != nil {
				p.Add(t.rounds(s))
			}
		}
		p.Add(line, glyphs)

		// From the end of the line to its name.
		end := points[len(points)-1]
		at := labels[s.name]
		gap := max(last, 1) * 0.06
		lead, err := plotter.NewLine(plotter.XYs{end, {X: last + gap, Y: at}})
		if err != nil {
			continue
		}
		lead.Color, lead.Width = c, 0.5
		name, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{{X: last + gap, Y: at}}, Labels: []string{s.name}})
		if err != nil {
			continue
		}
		name.Offset.X = 3
		name.TextStyle[0] = labelStyle(c)
		if s.number == 0 {
			name.TextStyle[0].Font.Weight = bold
		}
		p.Add(lead, name)
	}
	p.X.Min, p.X.Max = 0, last+max(last, 1)*0.6 // room for the names
	p.Y.Min, p.Y.Max = low, high
	return p
}

// rounds draws from the slowest to the fastest round.
func (t theme) rounds(s series) plot.Plotter {
	var points plotter.XYs
	var errs plotter.YErrors
	for i, v := range s.values {
		if v > 0 {
			points = append(points, plotter.XY{X: float64(i), Y: v})
			errs = append(errs, struct{ Low, High float64 }{min(v-s.low[i], v*0.999), s.high[i] - v})
		}
	}
	bars, err := plotter.NewYErrorBars(struct {
		plotter.XYs
		plotter.YErrors
	}{points, errs})
	if err != nil {
		return plotter.NewGlyphBoxes() // draws nothing
	}
	bars.Color, bars.Width, bars.CapWidth = t.ours, 1, 6
	return bars
}

// spreadOut returns where the name of each series stands: at the end of its line, or as near as
// the other names allow.
func spreadOut(all []series, low, high float64) map[string]float64 {
	type label struct {
		name string
		at   float64 // log
	}
	var labels []label
	for _, s := range all {
		for _, v := range slices.Backward(s.values) {
			if v > 0 {
				labels = append(labels, label{s.name, math.Log(v)})
				break
			}
		}
	}
	slices.SortFunc(labels, func(a, b label) int { return int(math.Copysign(1, a.at-b.at)) })
	const plotHeight = float64(chartHeight - 75) // without title and axis
	gap := float64(fontSize) * 1.2 / plotHeight * math.Log(high/low)
	for range 200 { // push apart, a little at a time
		for i := 1; i < len(labels); i++ {
			if d := gap - (labels[i].at - labels[i-1].at); d > 0 {
				labels[i-1].at -= d / 2
				labels[i].at += d / 2
			}
		}
		if len(labels) > 0 {
			labels[0].at = max(labels[0].at, math.Log(low))
			labels[len(labels)-1].at = min(labels[len(labels)-1].at, math.Log(high))
		}
	}
	places := make(map[string]float64)
	for _, l := range labels {
		places[l.name] = math.Exp(l.at)
	}
	return places
}

// decades marks 1, 10, 100, and 2 and 5 between if the range is small.
type decades struct {
	format func(float64) string
	fine   bool
}

func (d decades) Ticks(low, high float64) (ticks []plot.Tick) {
	for exp := math.Floor(math.Log10(low)); exp <= math.Log10(high); exp++ {
		for _, m := range []float64{1, 2, 5} {
			v := m * math.Pow(10, exp)
			if v >= low && v <= high && (m == 1 || d.fine) {
				ticks = append(ticks, plot.Tick{Value: v, Label: d.format(v)})
			}
		}
	}
	return ticks
}

// bars draws a bar per rival, ours on top, with its value written behind it. Those above bad, if it
// is not 0, stand out.
func (t theme) bars(title, along string, all []series, bad float64, format func(float64) string) *plot.Plot {
	p := t.newPlot(title)
	p.X.Label.Text = along
	p.X.Min = 0
	p.X.Tick.Marker = plot.ConstantTicks{}
	p.X.LineStyle.Width = 0
	p.Y.LineStyle.Width, p.Y.Tick.LineStyle.Width, p.Y.Tick.Length = 0, 0, 0
	p.Y.Padding = 14 // the reader's font may be wider
	var names plot.ConstantTicks
	highest := 0.0
	for i, s := range all {
		row := float64(len(all) - 1 - i)
		names = append(names, plot.Tick{Value: row, Label: s.name})
		v, label := s.values[0], none
		if v > 0 {
			label = format(v)
			highest = max(highest, v)
		} else {
			v = 0
		}
		bar, err := plotter.NewBarChart(plotter.Values{v}, 13)
		if err != nil {
			continue
		}
		bar.Horizontal, bar.XMin, bar.LineStyle.Width = true, row, 0
		switch {
		case s.number < ours:
			bar.Color = t.ours
		case bad > 0 && v > bad:
			bar.Color = t.bad
		default:
			bar.Color = t.plain
		}
		written, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{{X: v, Y: row}}, Labels: []string{label}})
		if err != nil {
			continue
		}
		written.Offset = vg.Point{X: 5, Y: 2}
		written.TextStyle[0] = labelStyle(t.ink)
		p.Add(bar, written)
	}
	p.Y.Tick.Marker = names
	p.Y.Min, p.Y.Max = -0.6, float64(len(all))-0.4
	p.X.Min, p.X.Max = 0, max(highest, 1e-9)*1.22
	return p
}

// render returns the SVG of c in t.
func (c chart) render(t theme) (string, error) {
	canvas := vgsvg.New(chartWidth, cmp.Or(c.height, chartHeight))
	c.draw(t).Draw(draw.Crop(draw.New(canvas), 4, -4, 4, -6))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return "", err
	}
	svg := b.String()
	svg = svg[strings.Index(svg, "<svg"):] // less the XML header, which HTML does not want
	// Fonts of the same widths that readers have.
	svg = strings.ReplaceAll(svg, "font-family:Liberation Sans", "font-family:Arial,Helvetica,'Liberation Sans',sans-serif")
	return strings.Replace(svg, "<svg ", fmt.Sprintf(`<svg role="img" aria-label="%s" `, c.title), 1), nil
}

// writeCharts writes each chart in each theme into dir.
func (rep *report) writeCharts(dir string) error {
	for _, c := range rep.charts() {
		for _, t := range themes {
			svg, err := c.render(t)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, c.file(t)), []byte(svg), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c chart) file(t theme) string { return c.name + "-" + t.name + ".svg" }
