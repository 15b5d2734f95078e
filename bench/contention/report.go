package main

import (
	"encoding/json"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/idemflight/idemflight/bench/internal/figures"
	"github.com/idemflight/idemflight/bench/rivals"
)

// report is all that was measured, in the form of -json. A nil pointer is what a rival does not
// have or what was not measured.
type report struct {
	Command     string
	Date        time.Time
	Took        time.Duration
	Machine     string
	Go          string
	Rounds      int  // that were completed
	Interrupted bool // before all was measured
	Harness     float64
	Main        []point // what the table is about, one for each GOMAXPROCS
	Points      []point
	Rivals      []*rivalReport

	config *config
}

type rivalReport struct {
	Name, Version, Lacks string
	Keeps                bool
	Contract             *rivals.Contract
	HeapPerEntry         *float64
	Points               []*pointReport
}

// pointReport is what a rival did at one point, over all rounds.
type pointReport struct {
	point
	CallsPerSecond                  spread
	AllocsPerCall, BytesPerCall     spread
	Executions                      float64 // per distinct key
	Errors                          int
	Executed, Joined, Replayed, All latency

	perSecond, allocs, bytes []float64
	runs, distinct           int
	latencies                *latencies
}

type spread struct{ Median, Min, Max float64 }

// latency is in ns.
type latency struct {
	Calls          int
	P50, P99, P999 *float64
}

func newReport(c *config) *report {
	rep := &report{
		Command: strings.Join(append([]string{"go run -C bench ./contention"}, c.args...), " "),
		Date:    time.Now(), Machine: figures.Machine(), Go: runtime.Version(),
		Points: c.points(), config: c,
	}
	for _, procs := range c.procs {
		rep.Main = append(rep.Main, c.main(procs))
	}
	for _, r := range c.rivals {
		rep.Rivals = append(rep.Rivals, &rivalReport{Name: r.Name, Version: r.Version(), Lacks: r.Lacks, Keeps: r.Keeps})
	}
	return rep
}

func (r *rivalReport) at(p point) *pointReport {
	for _, at := range r.Points {
		if at.point == p {
			return at
		}
	}
	return nil
}

func (r *rivalReport) add(p point, s sample) {
	at := r.at(p)
	if at == nil {
		at = &pointReport{point: p, latencies: newLatencies()}
		r.Points = append(r.Points, at)
	}
	at.perSecond = append(at.perSecond, s.perSecond)
	at.allocs = append(at.allocs, s.allocs)
	at.bytes = append(at.bytes, s.bytes)
	at.runs += s.runs
	at.distinct += s.distinct
	at.Errors += s.errors
	at.latencies.merge(s.latency)
}

// finish computes what depends on all rounds.
func (rep *report) finish(rounds int, interrupted bool, began time.Time) {
	rep.Rounds, rep.Interrupted = rounds, interrupted
	rep.Took = time.Since(began).Round(time.Second)
	for _, r := range rep.Rivals {
		for _, at := range r.Points {
			at.CallsPerSecond = spreadOf(at.perSecond)
			at.AllocsPerCall, at.BytesPerCall = spreadOf(at.allocs), spreadOf(at.bytes)
			at.Executions = float64(at.runs) / float64(max(1, at.distinct))
			kinds := at.latencies
			at.Executed, at.Joined = latencyOf(kinds[executed]), latencyOf(kinds[joined])
			at.Replayed, at.All = latencyOf(kinds[replayed]), latencyOf(kinds.all())
		}
	}
}

func spreadOf(values []float64) spread {
	v := slices.Sorted(slices.Values(values))
	return spread{Median: (v[(len(v)-1)/2] + v[len(v)/2]) / 2, Min: v[0], Max: v[len(v)-1]}
}

func latencyOf(h *hdrhistogram.Histogram) latency {
	return latency{int(h.TotalCount()), quantile(h, 0.5), quantile(h, 0.99), quantile(h, 0.999)}
}

// write prints the tables and writes the files that were asked for.
func (c *config) write(rep *report, out io.Writer) error {
	rep.print(out)
	if c.json != "" {
		text, err := json.MarshalIndent(rep, "", "\t")
		if err != nil {
			return err
		}
		if err := os.WriteFile(c.json, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if c.html != "" {
		if err := rep.writeHTML(c.html); err != nil {
			return err
		}
	}
	if c.svg != "" {
		if err := rep.writeCharts(c.svg); err != nil {
			return err
		}
	}
	for _, file := range c.readmes {
		if err := rep.writeReadme(file, c.svg); err != nil {
			return err
		}
	}
	return nil
}
