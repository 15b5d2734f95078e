package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
)

// counts are those of one kind of mutants.
type counts struct {
	Kind        string `json:"kind"`
	Mutants     int    `json:"mutants"`
	NotViable   int    `json:"not_viable"`
	Killed      int    `json:"killed"`
	TimedOut    int    `json:"timed_out"`
	Equivalent  int    `json:"equivalent"` // survived, with a reason in the list
	Unexplained int    `json:"unexplained"`
}

func (c *counts) add(o counts) {
	c.Mutants += o.Mutants
	c.NotViable += o.NotViable
	c.Killed += o.Killed
	c.TimedOut += o.TimedOut
	c.Equivalent += o.Equivalent
	c.Unexplained += o.Unexplained
}

func (c counts) viable() int { return c.Mutants - c.NotViable }

// share is how much was killed of what was killed or survived, in percent: what gremlins calls the
// efficacy of a suite. What timed out is noticed too, since a suite that hangs does not pass; but by
// nothing that says what is wrong, so that it is on neither side.
func (c counts) share() float64 {
	return 100 * float64(c.Killed) / float64(max(1, c.viable()-c.TimedOut))
}

// report is what a run shows of one package.
type report struct {
	Package  string   `json:"package"`
	Total    counts   `json:"total"`
	Kinds    []counts `json:"kinds"`
	Share    float64  `json:"share"` // see counts.share
	Left     int      `json:"left"`  // mutants that were not tried: a sample, or interrupted
	Survived []told   `json:"survived"`
	TimedOut []told   `json:"timed_out"`
	Stale    []string `json:"stale,omitempty"` // of the list of equivalent mutants: those that are none
}

// told is a mutant that the report names.
type told struct {
	result
	Reason string `json:"reason,omitempty"`
}

// least is the least share that is good, in percent.
const least = 97

// newReport sums up the results of the package of that name; all are the mutants that there are.
func newReport(name string, results []result, all []*mutant, list []explained) report {
	r := report{Package: name}
	list = slices.DeleteFunc(slices.Clone(list), func(e explained) bool { return e.pkg != name })
	verdicts := map[string]verdict{}
	for _, res := range results {
		verdicts[res.name()] = res.Verdict
		i := slices.IndexFunc(r.Kinds, func(c counts) bool { return c.Kind == res.Kind })
		if i < 0 {
			i = len(r.Kinds)
			r.Kinds = append(r.Kinds, counts{Kind: res.Kind})
		}
		c := counts{Mutants: 1}
		reason := reasonFor(list, &res.mutant)
		switch res.Verdict {
		case killed:
			c.Killed = 1
		case doesNotBuild:
			c.NotViable = 1
		case survived:
			r.Survived = append(r.Survived, told{res, reason})
			if reason != "" {
				c.Equivalent = 1
			} else {
				c.Unexplained = 1
			}
		case timedOut:
			c.TimedOut = 1
			if reason == "" {
				reason = res.Detail
			}
			if reason == "" {
				c.Unexplained = 1
			}
			r.TimedOut = append(r.TimedOut, told{res, reason})
		}
		r.Kinds[i].add(c)
		r.Total.add(c)
	}
	r.Share, r.Left = r.Total.share(), len(all)-len(results)
	exist := map[string]bool{}
	for _, m := range all {
		exist[m.name()] = true
	}
	for _, e := range list {
		for _, name := range e.names {
			if v := verdicts[name]; !exist[name] {
				r.Stale = append(r.Stale, name+": no such mutant")
			} else if v == killed || v == doesNotBuild {
				r.Stale = append(r.Stale, name+": "+string(v))
			}
		}
	}
	return r
}

// good reports whether nothing is left to explain.
func (r report) good() bool {
	return r.Total.Unexplained == 0 && len(r.Stale) == 0 && (r.Left > 0 || r.Share >= least)
}

func (r report) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s:\n", r.Package)
	fmt.Fprintln(t, "mutants\tnot viable\tkilled\ttimed out\tequivalent\tunexplained\tkilled\t  kind")
	row := func(c counts) {
		fmt.Fprintf(t, "%d\t%d\t%d\t%d\t%d\t%d\t%.1f %%\t  %s\n",
			c.Mutants, c.NotViable, c.Killed, c.TimedOut, c.Equivalent, c.Unexplained, c.share(), c.Kind)
	}
	for _, c := range r.Kinds {
		row(c)
	}
	r.Total.Kind = "all"
	row(r.Total)
	_ = t.Flush()
	list := func(title string, all []told) {
		if len(all) > 0 {
			fmt.Fprintf(w, "\n%s:\n", title)
		}
		for _, m := range all {
			reason := m.Reason
			if reason == "" {
				reason = "NOT EXPLAINED"
			}
			fmt.Fprintf(w, "%s:%d  %s\n\t%s\n", m.File, m.Line, m.name(), reason)
		}
	}
	list("survived", r.Survived)
	list("timed out", r.TimedOut)
	if len(r.Stale) > 0 {
		fmt.Fprintln(w, "\nin the list of equivalent mutants, but not equivalent:")
		for _, s := range r.Stale {
			fmt.Fprintln(w, s)
		}
	}
	if r.Left > 0 {
		fmt.Fprintf(w, "\n%d mutants were not tried\n", r.Left)
	}
}

func write(reports []report, path string) error {
	text, err := json.MarshalIndent(reports, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
