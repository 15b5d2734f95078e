package main

import (
	"fmt"
	"math"

	"gonum.org/v1/plot"
)

// charts returns those of all main points.
func (rep *report) charts() []chart {
	var all []chart
	for _, main := range rep.Main {
		suffix := ""
		if len(rep.Main) > 1 {
			suffix = fmt.Sprintf("-procs%d", main.Procs)
		}
		all = append(all, rep.chartsOf(main, suffix)...)
	}
	return append(all, rep.heapChart())
}

func (rep *report) chartsOf(main point, suffix string) []chart {
	var byGoroutines, byDuplicates []point
	var goroutineNames, shareNames []string
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
		return chart{name + suffix, title, about, func(t theme) *plot.Plot {
			return t.lines(title, along, places, rep.series(points, of), format)
		}}
	}
	return []chart{
		lines("throughput-goroutines", "Calls per second, "+shares, along,
			"Higher is better. The bars on idemflight are the slowest and the fastest round.",
			goroutineNames, byGoroutines, throughput, count),
		lines("p99-goroutines", "99 of 100 calls took at most, "+shares, along,
			"Lower is better. With more goroutines than processors it is the scheduler that is measured.",
			goroutineNames, byGoroutines, p99, nanoseconds),
		lines("throughput-duplicates", "Calls per second, "+goroutines, alongShares,
			"Higher is better. At 0 % every call is a first execution, further right more are replays.",
			shareNames, byDuplicates, throughput, count),
		lines("p99-duplicates", "99 of 100 calls took at most, "+goroutines, alongShares,
			"Lower is better.",
			shareNames, byDuplicates, p99, nanoseconds),
		{"executions" + suffix, "How often fn ran per key", "1.000 is the point: who is above it, in another colour, ran an operation again that had been done. " + main.String() + ".",
			func(t theme) *plot.Plot {
				return t.bars("How often fn ran per key", goroutines+", "+shares, rep.series([]point{main}, executions), 1.0004,
					func(v float64) string { return fmt.Sprintf("%.3f", v) })
			}},
	}
}

func (rep *report) heapChart() chart {
	title := "Heap per retained entry"
	about := "Lower is better: a 36-byte key (its own bytes not counted) and an int. A dash: keeps nothing."
	return chart{"heap", title, about, func(t theme) *plot.Plot {
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
