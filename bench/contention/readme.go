package main

import (
	"fmt"
	"strings"

	"github.com/idemflight/idemflight/bench/internal/readme"
)

// writeReadme replaces the section: a chart, the tables, and what they were measured with.
func (rep *report) writeReadme(file, charts string) error {
	picture := readme.Picture{
		Dir: charts, Name: throughputChart + rep.suffix(rep.Main[0]),
		Alt: "Calls per second, " + percent(rep.Main[0].Duplicates) + " duplicates, against the number of goroutines",
	}
	shown, err := picture.For(file)
	if err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString(shown)
	for _, t := range []titled{rep.contractTable(), rep.speedTable(rep.Main[0]), rep.latencyTable(rep.Main[0])} {
		fmt.Fprintf(&b, "\n%s\n\n%s\n", t.title, t.RenderMarkdown())
	}
	fmt.Fprintf(&b, "\nMeasured with `%s` on %s; versions: %s.\n", rep.Command, rep.environment(), rep.versions())
	return readme.Tables.Replace(file, b.String())
}

func (rep *report) versions() string {
	var all []string
	for _, r := range rep.Rivals {
		if strings.HasPrefix(r.Version, "v") {
			all = append(all, r.Name+" "+r.Version)
		}
	}
	return strings.Join(all, ", ")
}

type setting struct{ Name, Value string }

// settings says what the flags were, given or not.
func (rep *report) settings() []setting {
	c := rep.config
	return []setting{
		{"One measurement", fmt.Sprintf("%v without a clock for throughput and allocations, then as long with each call timed", c.duration)},
		{"Rounds", fmt.Sprintf("%d; in each, all rivals take turns in random order; the median counts, latencies are of all rounds together", rep.Rounds)},
		{"A duplicate", fmt.Sprintf("is of one of the %d latest keys, %s", c.keys, c.skew)},
		{"fn", fmt.Sprintf("takes %v and makes %d bytes", c.work, c.value)},
		{"Callers", map[bool]string{true: "have contexts that can end, as those of requests", false: "have contexts that cannot end"}[c.leave]},
		{"Took", rep.Took.String()},
	}
}
