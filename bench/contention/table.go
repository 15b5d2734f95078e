package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/idemflight/idemflight/bench/rivals"
)

const none = "–" // a rival does not have it, or there was too little to tell

// print writes the tables, for a terminal.
func (rep *report) print(out io.Writer) {
	fmt.Fprintf(out, "%s\n%s\n", rep.environment(), rep.Command)
	if rep.Interrupted {
		fmt.Fprintf(out, "Interrupted: %d of %d rounds were completed.\n", rep.Rounds, rep.config.rounds)
	}
	for _, t := range rep.tables() {
		fmt.Fprintf(out, "\n%s\n%s\n", t.title, t.Render())
	}
	if rep.Harness > 0 {
		fmt.Fprintf(out, "\nThe measuring itself takes %s of each call.\n", rep.harnessPerCall())
	}
}

// environment is what numbers without it are worth nothing.
func (rep *report) environment() string {
	return fmt.Sprintf("%s, %s, %s", rep.Machine, rep.Go, rep.Date.Format("2006-01-02"))
}

func (rep *report) harnessPerCall() string {
	if rep.Harness == 0 {
		return none
	}
	return nanoseconds(1e9 / rep.Harness)
}

// titled is a table with what it is about.
type titled struct {
	table.Writer
	title string
}

func newTable(title string, header ...any) titled {
	t := titled{table.NewWriter(), title}
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	t.Style().Options.SeparateColumns = false
	t.Style().Options.DrawBorder = false
	t.AppendHeader(header)
	var columns []table.ColumnConfig
	for i := range header {
		if i > 0 {
			columns = append(columns, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
		}
	}
	t.SetColumnConfigs(columns)
	return t
}

// tables returns all: what happens to duplicates, and for each main point speed and latency.
func (rep *report) tables() []titled {
	tables := []titled{rep.contractTable()}
	for _, p := range rep.Main {
		tables = append(tables, rep.speedTable(p), rep.latencyTable(p))
	}
	return tables
}

func (rep *report) contractTable() titled {
	t := newTable(fmt.Sprintf("What happens to duplicates: %d callers race for a fresh key, and a leader is cancelled.", rivals.Racers),
		"", "version", "runs per fresh key", "ran twice", "a cancelled leader", "the others get", "a waiter")
	for _, r := range rep.Rivals {
		row := []any{r.Name, r.Version}
		if c := r.Contract; c == nil {
			row = append(row, none, none, none, none, none)
		} else {
			row = append(row, fmt.Sprintf("%.3f", c.Executions), twice(r), c.Leader(), string(c.Others), leaves(c.WaiterLeaves))
		}
		t.AppendRow(row)
	}
	return t
}

func twice(r *rivalReport) string {
	s := fmt.Sprintf("%d of %d", r.Contract.Twice, r.Contract.Keys)
	if !r.Keeps {
		s += ", keeps nothing"
	}
	return s
}

func leaves(b bool) string {
	if b {
		return "can leave"
	}
	return "stays"
}

func (p point) String() string {
	return fmt.Sprintf("%d goroutines, %s duplicates, GOMAXPROCS %d", p.Goroutines, percent(p.Duplicates), p.Procs)
}

func percent(share float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", share*100), "0"), ".") + " %"
}

func (rep *report) speedTable(p point) titled {
	t := newTable("Speed and space: "+p.String()+".",
		"", "calls/s", "min … max", "runs per key", "allocs/call", "B/call", "heap/entry")
	for _, r := range rep.Rivals {
		t.AppendRow(speedRow(r, p))
	}
	return t
}

func speedRow(r *rivalReport, p point) []any {
	heap := none
	if r.HeapPerEntry != nil {
		heap = fmt.Sprintf("%.0f B", *r.HeapPerEntry)
	}
	at := r.at(p)
	if at == nil {
		return []any{r.Name, none, none, none, none, none, heap}
	}
	s := at.CallsPerSecond
	return []any{
		r.Name, count(s.Median), count(s.Min) + " … " + count(s.Max), fmt.Sprintf("%.3f", at.Executions),
		fmt.Sprintf("%.2f", at.AllocsPerCall.Median), fmt.Sprintf("%.0f", at.BytesPerCall.Median), heap,
	}
}

func (rep *report) latencyTable(p point) titled {
	t := newTable("Latency by kind of call, p50 / p99 / p99.9: "+p.String()+".", "", "executed", "joined", "replayed", "all")
	for _, r := range rep.Rivals {
		if at := r.at(p); at != nil {
			t.AppendRow([]any{r.Name, at.Executed, at.Joined, at.Replayed, at.All})
		} else {
			t.AppendRow([]any{r.Name, none, none, none, none})
		}
	}
	return t
}

func (l latency) String() string {
	if l.P50 == nil {
		return none
	}
	s := nanoseconds(*l.P50)
	for _, v := range []*float64{l.P99, l.P999} {
		if s += " / "; v == nil {
			s += none
		} else {
			s += nanoseconds(*v)
		}
	}
	return s
}

// nanoseconds writes a time with two or three digits.
func nanoseconds(ns float64) string {
	d := time.Duration(ns)
	switch {
	case d < time.Microsecond:
		return fmt.Sprintf("%.0f ns", ns)
	case d < time.Millisecond:
		return digits(ns/1e3) + " µs"
	case d < time.Second:
		return digits(ns/1e6) + " ms"
	}
	return digits(ns/1e9) + " s"
}

// count writes a number with two or three digits.
func count(n float64) string {
	switch {
	case n >= 1e6:
		return digits(n/1e6) + " M"
	case n >= 1e3:
		return digits(n/1e3) + " k"
	}
	return digits(n)
}

func digits(v float64) string {
	if v < 10 && v != math.Trunc(v) {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}
