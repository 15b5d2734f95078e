package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// What is between these two lines of the README is this program's.
const (
	beginMark = "<!-- bench:begin -->"
	endMark   = "<!-- bench:end -->"
)

// splitReadme returns what comes before and after the section, marks included.
func splitReadme(path string) (before, after string, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", "", fmt.Errorf("-readme: %w", err)
	}
	before, rest, ok := strings.Cut(string(text), beginMark)
	_, after, found := strings.Cut(rest, endMark)
	if !ok || !found {
		return "", "", fmt.Errorf("-readme: %s has no %s … %s", path, beginMark, endMark)
	}
	return before + beginMark, endMark + after, nil
}

// writeReadme replaces the section: the chart, the tables, and what they were measured with.
func (rep *report) writeReadme(path, charts string) error {
	before, after, err := splitReadme(path)
	if err != nil {
		return err
	}
	dir, err := chartsFrom(path, charts)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, c := range rep.charts()[:1] {
		image := func(t theme) string { return filepath.ToSlash(filepath.Join(dir, c.file(t))) }
		fmt.Fprintf(&b, "\n<picture>\n<source media=\"(prefers-color-scheme: dark)\" srcset=\"%s\">\n<img alt=\"%s\" src=\"%s\" width=\"600\">\n</picture>\n",
			image(themes[1]), c.title+", against the number of goroutines", image(themes[0]))
	}
	for _, t := range append([]titled{rep.contractTable()}, rep.speedTable(rep.Main[0]), rep.latencyTable(rep.Main[0])) {
		fmt.Fprintf(&b, "\n%s\n\n%s\n", t.title, t.RenderMarkdown())
	}
	fmt.Fprintf(&b, "\nMeasured with `%s` on %s; versions: %s.\n", rep.Command, rep.environment(), rep.versions())
	return os.WriteFile(path, []byte(before+b.String()+after), 0o644)
}

// chartsFrom returns the way from the README's folder to that of the charts.
func chartsFrom(readme, charts string) (string, error) {
	from, err := filepath.Abs(filepath.Dir(readme))
	if err != nil {
		return "", err
	}
	to, err := filepath.Abs(charts)
	if err != nil {
		return "", err
	}
	return filepath.Rel(from, to)
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
