package main

import (
	"fmt"
	"image/color"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/idemflight/idemflight/bench/rivals"
)

// contractChart shows what this library is for: which rivals run an operation twice, and what each
// does to the work and to the other callers when the leader is cancelled.
func (rep *report) contractChart() chart {
	title := "What becomes of duplicates"
	about := fmt.Sprintf("%d callers race for each fresh key; then a leader is cancelled while others wait.", rivals.Racers)
	rows := rep.verdicts()
	height := headHeight + vg.Length(len(rows))*rowHeight + footHeight
	return chart{name: "contract", title: title, about: about, height: height, draw: func(t theme) drawing {
		return matrix{theme: t, title: title, keys: rep.config.contractKeys, rows: rows}
	}}
}

// verdict is what was seen of one rival, as its row of the matrix says it.
type verdict struct {
	name   string
	ours   bool
	seen   bool // else it was not checked, and the rest says nothing
	twice  int  // keys that ran more than once
	count  string
	work   answer // what becomes of it when its leader is cancelled
	others answer // what the other callers get then
}

// answer is what stands in a cell, and whether it is what one would wish.
type answer struct {
	text string
	good bool
}

func (rep *report) verdicts() []verdict {
	var all []verdict
	for i, r := range rep.Rivals {
		v := verdict{name: r.Name, ours: rep.number(i) < ours}
		if c := r.Contract; c != nil {
			v.seen, v.twice, v.count = true, c.Twice, twice(r)
			v.work = workOf(c)
			v.others = answer{string(c.Others), c.Others == rivals.OthersValue}
		}
		all = append(all, v)
	}
	return all
}

func workOf(c *rivals.Contract) answer {
	switch {
	case c.WorkGoesOn:
		return answer{"goes on", true}
	case c.Others == rivals.OthersAgain:
		return answer{"runs again", false}
	}
	return answer{"cancelled", false}
}

// matrix draws the verdicts, a row each.
type matrix struct {
	theme
	title string
	keys  int
	rows  []verdict
}

// Where columns begin, and how far rows are apart.
const (
	nameColumn   = vg.Length(4)
	twiceColumn  = vg.Length(122)
	workColumn   = vg.Length(196)
	othersColumn = vg.Length(286)
	longestBar   = vg.Length(28)
	markWidth    = vg.Length(14)
	below        = vg.Length(2) // how far marks stand below the middle of a line, at that of its small letters
	headHeight   = vg.Length(78)
	rowHeight    = vg.Length(21)
	footHeight   = vg.Length(26)
)

// Draw draws the matrix from the top of the canvas.
func (m matrix) Draw(c draw.Canvas) {
	top := c.Max.Y
	title := labelStyle(m.ink)
	title.Font.Size, title.XAlign = fontSize+1, draw.XCenter
	c.FillText(title, vg.Point{X: c.Center().X, Y: top - 10}, m.title)
	m.write(c, vg.Point{X: twiceColumn, Y: top - 35}, "ran twice,")
	m.write(c, vg.Point{X: workColumn, Y: top - 35}, "if the leader is cancelled,")
	m.write(c, vg.Point{X: twiceColumn, Y: top - 50}, fmt.Sprintf("of %d", m.keys))
	m.write(c, vg.Point{X: workColumn, Y: top - 50}, "its work")
	m.write(c, vg.Point{X: othersColumn, Y: top - 50}, "others get")
	c.StrokeLine2(draw.LineStyle{Color: m.faint, Width: 1}, nameColumn, top-63, c.Max.X, top-63)

	most := m.keys / 20 // few look few, even if no rival has more
	for _, row := range m.rows {
		most = max(most, row.twice)
	}
	for i, row := range m.rows {
		m.drawRow(c, top-headHeight-vg.Length(i)*rowHeight, row, longestBar/vg.Length(max(1, most)))
	}
	m.write(c, vg.Point{X: nameColumn, Y: c.Min.Y + 8}, "* keeps nothing: a late duplicate runs again")
}

// drawRow draws a row whose middle is at y, and whose bar is perKey long for each key that ran twice.
func (m matrix) drawRow(c draw.Canvas, y vg.Length, row verdict, perKey vg.Length) {
	name := labelStyle(m.ink)
	if row.ours {
		name = labelStyle(m.ours)
		name.Font.Weight = bold
	}
	c.FillText(name, vg.Point{X: nameColumn, Y: y}, row.name)
	if !row.seen {
		for _, x := range []vg.Length{twiceColumn, workColumn, othersColumn} {
			m.write(c, vg.Point{X: x, Y: y}, none)
		}
		return
	}
	m.drawTwice(c, vg.Point{X: twiceColumn, Y: y}, row, perKey)
	m.drawAnswer(c, vg.Point{X: workColumn, Y: y}, row.work)
	m.drawAnswer(c, vg.Point{X: othersColumn, Y: y}, row.others)
}

func (m matrix) drawTwice(c draw.Canvas, at vg.Point, row verdict, perKey vg.Length) {
	if row.twice == 0 {
		m.drawAnswer(c, at, answer{row.count, true})
		return
	}
	length := max(2, vg.Length(row.twice)*perKey)
	left, right, low, high := at.X, at.X+length, at.Y-below-5, at.Y-below+5
	c.FillPolygon(m.bad, []vg.Point{{X: left, Y: low}, {X: right, Y: low}, {X: right, Y: high}, {X: left, Y: high}})
	m.write(c, vg.Point{X: max(right+4, at.X+markWidth), Y: at.Y}, row.count)
}

// drawAnswer draws a tick or a cross and, behind it, the text.
func (m matrix) drawAnswer(c draw.Canvas, at vg.Point, a answer) {
	point := func(x, y vg.Length) vg.Point { return vg.Point{X: at.X + x, Y: at.Y - below + y} }
	if a.good {
		c.StrokeLines(stroke(m.good), []vg.Point{point(1, 0), point(4, -4), point(10, 4)})
	} else {
		c.StrokeLines(stroke(m.bad), []vg.Point{point(1, -4), point(9, 4)}, []vg.Point{point(1, 4), point(9, -4)})
	}
	m.write(c, vg.Point{X: at.X + markWidth, Y: at.Y}, a.text)
}

func stroke(c color.Color) draw.LineStyle { return draw.LineStyle{Color: c, Width: 2} }

func (m matrix) write(c draw.Canvas, at vg.Point, what string) {
	c.FillText(labelStyle(m.ink), at, what)
}
