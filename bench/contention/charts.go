package main

import (
	"fmt"
	"math"

	"github.com/idemflight/idemflight/bench/internal/figures"
)

// throughputChart is the one that the README shows.
const throughputChart = "throughput-goroutines"

// charts returns them all: what this library is for, and for each main point what it costs.
func (rep *report) charts() []chart {
	all := []chart{rep.contractChart()}
	for _, main := range rep.Main {
		all = append(all, rep.chartsOf(main)...)
	}
	return append(all, rep.heapChart())
}

// suffix tells the files of one main point from those of the others.
func (rep *report) suffix(main point) string {
	if len(rep.Main) == 1 {
		return ""
	}
	return fmt.Sprintf("-procs%d", main.Procs)
}

func (rep *report) chartsOf(main point) []chart {
	var byGoroutines, byDuplicates []point
	var goroutineNames, shareNames []string
	suffix := rep.suffix(main)
	for _, n := range rep.config.goroutines {
		byGoroutines = append(byGoroutines, point{main.Procs, n, main.Duplicates})
		goroutineNames = append(goroutineNames, fmt.Sprint(n))
	}
	for _, d := range rep.config.duplicates {
		byDuplicates = append(byDuplicates, point{main.Procs, main.Goroutines, d})
		shareNames = append(shareNames, percent(d))
	}
	shares, goroutines := percent(main.Duplicates)+" duplicates", fmt.Sprintf("%d goroutines", main.Goroutines)
	along := fmt.Sprintf("goroutines (GOMAXPROCS %d)", main.Procs)
	alongShares := fmt.Sprintf("calls that are duplicates (GOMAXPROCS %d)", main.Procs)

	lines := func(name, title, along, about string, places []string, points []point, of func(*pointReport) (value, low, high float64), format func(float64) string) chart {
		return chart{name: name + suffix, title: title, about: about, draw: func(t theme) drawing {
			return t.lines(title, along, places, rep.series(points, of), format)
		}}
	}
	return []chart{
		lines(throughputChart, "Calls per second, "+shares, along,
			"Higher is better. The bars on idemflight are the slowest and the fastest round.",
			goroutineNames, byGoroutines, throughput, figures.Count),
		lines("p99-goroutines", "99 of 100 calls took at most, "+shares, along,
			"Lower is better. With more goroutines than processors it is the scheduler that is measured.",
			goroutineNames, byGoroutines, p99, figures.Nanoseconds),
		lines("throughput-duplicates", "Calls per second, "+goroutines, alongShares,
			"Higher is better. At 0 % every call is a first execution, further right more are replays.",
			shareNames, byDuplicates, throughput, figures.Count),
		lines("p99-duplicates", "99 of 100 calls took at most, "+goroutines, alongShares,
			"Lower is better.",
			shareNames, byDuplicates, p99, figures.Nanoseconds),
		rep.executionsChart(main),
	}
}

func (rep *report) executionsChart(main point) chart {
	title := "How often fn ran per key"
	about := "1.000 is the point: who is above it, in another colour, ran an operation again that had been done. " + main.String() + "."
	along := fmt.Sprintf("%d goroutines, %s duplicates", main.Goroutines, percent(main.Duplicates))
	return chart{name: "executions" + rep.suffix(main), title: title, about: about, draw: func(t theme) drawing {
		return t.bars(title, along, rep.series([]point{main}, executions), 1.0004,
			func(v float64) string { return fmt.Sprintf("%.3f", v) })
	}}
}

func (rep *report) heapChart() chart {
	title := "Heap per retained entry"
	about := "Lower is better: a 36-byte key (its own bytes not counted) and an int. A dash: keeps nothing."
	return chart{name: "heap", title: title, about: about, draw: func(t theme) drawing {
		var all []series
		for i, r := range rep.Rivals {
			v := math.NaN()
			if r.HeapPerEntry != nil {
				v = *r.HeapPerEntry
			}
			all = append(all, series{name: r.Name, number: rep.number(i), values: []float64{v}})
		}
		return t.bars(title, "bytes", all, 0, func(v float64) string { return fmt.Sprintf("%.0f B", v) })
	}}
}

// number keeps the colours the same, whichever rivals were chosen: 0 is this library.
func (rep *report) number(i int) int {
	for n, name := range rivalNames() {
		if name == rep.Rivals[i].Name {
			return n
		}
	}
	return i
}

func (rep *report) series(points []point, of func(*pointReport) (value, low, high float64)) []series {
	var all []series
	for i, r := range rep.Rivals {
		s := series{name: r.Name, number: rep.number(i)}
		for _, p := range points {
			value, low, high := math.NaN(), math.NaN(), math.NaN()
			if at := r.at(p); at != nil {
				value, low, high = of(at)
			}
			s.values, s.low, s.high = append(s.values, value), append(s.low, low), append(s.high, high)
		}
		all = append(all, s)
	}
	return all
}

func throughput(at *pointReport) (value, low, high float64) {
	s := at.CallsPerSecond
	return s.Median, s.Min, s.Max
}

func p99(at *pointReport) (value, low, high float64) {
	if at.All.P99 == nil {
		return math.NaN(), math.NaN(), math.NaN()
	}
	return *at.All.P99, *at.All.P99, *at.All.P99
}

func executions(at *pointReport) (value, low, high float64) {
	return at.Executions, at.Executions, at.Executions
}
