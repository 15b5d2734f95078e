package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/idemflight/idemflight/bench/internal/figures"
	"github.com/idemflight/idemflight/bench/internal/readme"
)

// costs are the rows of the table in the README, and which targets they show.
var costs = []struct{ what, target string }{
	{"a replay", "replay, spread over 65,536 keys, 1 goroutine"},
	{"a joined duplicate", "storm of 10,000 callers that can leave"},
	{"a first execution (resenje keeps nothing)", "first execution, context can end"},
	{"a replay by the HTTP middleware", "HTTP replay of 1 KiB, in process"},
	{"a kept entry", "memory per retained entry of 1,000,000"},
}

func isCost(t target) bool {
	for _, row := range costs {
		if row.target == t.name {
			return true
		}
	}
	return false
}

// contractChart is drawn by contention, with -svg charts, and shown above the table of costs.
var contractChart = readme.Picture{
	Dir: "charts", Name: "contract",
	Alt: "Which libraries run an operation twice, and what becomes of it when the caller that began it is cancelled",
}

// costFiles returns those of the files that have a section for the costs.
func costFiles(files string) ([]string, error) {
	if files == "" {
		return nil, nil
	}
	chart := filepath.Join(contractChart.Dir, contractChart.Name+"-light.svg")
	if _, err := os.Stat(chart); err != nil {
		return nil, fmt.Errorf("there is no %s: contention draws it", chart)
	}
	return readme.Cost.Among(strings.Split(files, ","))
}

// writeCosts writes what was measured into each of c's files.
func (c config) writeCosts(measured []result) error {
	for _, file := range c.readmes {
		picture, err := contractChart.For(file)
		if err != nil {
			return err
		}
		if err := readme.Cost.Replace(file, picture+"\n"+c.costTable(measured)); err != nil {
			return err
		}
	}
	return nil
}

// costTable returns the medians of what was measured, and what it was measured with.
func (c config) costTable(measured []result) string {
	var b strings.Builder
	b.WriteString("| | costs | beside it |\n| --- | ---: | ---: |\n")
	for _, row := range costs {
		for _, r := range measured {
			if r.name == row.target {
				fmt.Fprintf(&b, "| %s | %s | %s: %s |\n",
					row.what, amount(median(r.ours), r.unit), r.peer, amount(median(r.theirs), r.unit))
			}
		}
	}
	fmt.Fprintf(&b, "\nMedians of `%s` on %s; %s.\n",
		strings.Join(append([]string{"go run -C bench ./ratios"}, c.args...), " "),
		figures.Environment(time.Now()), versions("otter", "resenje"))
	return b.String()
}

var inNanoseconds = map[string]float64{"ns": 1, "ns/caller": 1, "µs": 1e3}

// amount writes v for people, with two or three digits.
func amount(v float64, unit string) string {
	if scale, isTime := inNanoseconds[unit]; isTime {
		return figures.Nanoseconds(v * scale)
	}
	return fmt.Sprintf("%.0f %s", v, unit)
}
