package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/idemflight/idemflight/bench/internal/figures"
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

func (rep *report) environment() string { return figures.Environment(rep.Date) }

func (rep *report) harnessPerCall() string {
	if rep.Harness == 0 {
		return none
	}
	return figures.Nanoseconds(1e9 / rep.Harness)
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
	t := newTable(fmt.Sprintf("What happens to duplicates: %d callers race for each of %d fresh keys, and a leader is cancelled. * = keeps nothing.",
		rivals.Racers, rep.config.contractKeys),
		"", "ran twice", "a cancelled leader", "the others get", "a waiter", "runs per key", "version")
	for _, r := range rep.Rivals {
		if c := r.Contract; c == nil {
			t.AppendRow([]any{r.Name, none, none, none, none, none, r.Version})
		} else {
			t.AppendRow([]any{r.Name, twice(r), c.Leader(), c.Others, leaves(c.WaiterLeaves), fmt.Sprintf("%.3f", c.Executions), r.Version})
		}
	}
	return t
}

// twice tells how many keys ran more than once. Who keeps nothing runs them again for callers that
// come late, which a star says.
func twice(r *rivalReport) string {
	s := fmt.Sprint(r.Contract.Twice)
	if !r.Keeps {
		s += " *"
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
		"", "calls/s", "runs per key", "heap/entry", "allocs/call", "B/call", "min … max")
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
		return []any{r.Name, none, none, heap, none, none, none}
	}
	s := at.CallsPerSecond
	return []any{
		r.Name, figures.Count(s.Median), fmt.Sprintf("%.3f", at.Executions), heap,
		fmt.Sprintf("%.2f", at.AllocsPerCall.Median), fmt.Sprintf("%.0f", at.BytesPerCall.Median),
		figures.Count(s.Min) + " … " + figures.Count(s.Max),
	}
}

func (rep *report) latencyTable(p point) titled {
	t := newTable("Latency by kind of call, p50 / p99 / p99.9: "+p.String()+".", "", "replayed", "executed", "joined", "all")
	for _, r := range rep.Rivals {
		if at := r.at(p); at != nil {
			t.AppendRow([]any{r.Name, at.Replayed, at.Executed, at.Joined, at.All})
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
	s := figures.Nanoseconds(*l.P50)
	for _, v := range []*float64{l.P99, l.P999} {
		if s += " / "; v == nil {
			s += none
		} else {
			s += figures.Nanoseconds(*v)
		}
	}
	return s
}
