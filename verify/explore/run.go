package explore

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// result is what exploring a scenario came to.
type result struct {
	Scenario  string        `json:"scenario"`
	Doc       string        `json:"doc"`
	Schedules int           `json:"schedules"`      // different ones
	All       bool          `json:"all"`            // there are no more
	Bound     int           `json:"bound"`          // else: those with fewer interruptions were all run
	Dice      int           `json:"dice,omitempty"` // how often one was run again, since a select had chosen otherwise
	Longest   int           `json:"longest"`        // steps
	Took      time.Duration `json:"took"`
	Passed    bool          `json:"passed"` // the point that some schedule has to pass, if the scenario names one
	Violation string        `json:"violation,omitempty"`
	Choices   string        `json:"choices,omitempty"`
}

// explore runs the schedules of sc: all, or, where these are more than most, first those that never
// interrupt a thread that could go on, then those that do so once, twice, …, until most is reached.
func (sc *scenario) explore(t *testing.T, most int) result {
	res := sc.exploreBound(t, most, -1)
	if res.All || res.Violation != "" {
		return res
	}
	took, passed := res.Took, res.Passed
	for bound, sum := 0, 0; ; bound++ {
		res = sc.exploreBound(t, most-sum, bound)
		took += res.Took
		sum += res.Schedules
		passed = passed || res.Passed
		res.Schedules, res.Took, res.Passed = sum, took, passed
		if res.Violation != "" || sum >= most {
			return res
		}
	}
}

// exploreBound runs the schedules with bound interruptions, up to most of them; with any number if
// bound is negative.
func (sc *scenario) exploreBound(t *testing.T, most, bound int) (res result) {
	began := time.Now()
	res = result{Scenario: sc.name, Doc: sc.doc, Bound: bound}
	defer func() { res.Took = time.Since(began) }()
	var picks []choice
	for more := true; more; {
		var r ran
		for range 100 { // a select that finds several channels ready throws dice
			if r = sc.run(t, plan{picks, bound}, nil); !errors.Is(r.wrong, errOtherwise) {
				break
			}
			res.Dice++
		}
		res.Passed = res.Passed || r.passed
		res.Longest = max(res.Longest, r.steps)
		if r.wrong != nil {
			res.Schedules++
			res.Violation, res.Choices = r.wrong.Error(), printChoices(r.made)
			return res
		}
		if bound < 0 || r.interruptions == bound { // with fewer it has been run before
			if res.Schedules >= most {
				return res
			}
			res.Schedules++
		}
		picks, more = next(r.made)
	}
	res.All = bound < 0
	return res
}

func printChoices(made []choice) string {
	text := make([]string, len(made))
	for i, c := range made {
		text[i] = strconv.Itoa(c.pick)
	}
	return strings.Join(text, ",")
}

func parseChoices(text string) (picks []choice, err error) {
	if text == "" {
		return nil, nil
	}
	for field := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("a list of choices is numbers with commas in between, not %q", text)
		}
		picks = append(picks, choice{pick: n})
	}
	return picks, nil
}
