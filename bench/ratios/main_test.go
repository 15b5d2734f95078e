package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func runRatios(args ...string) (code int, out, errOut string) {
	var o, e bytes.Buffer
	code = run(args, &o, &e)
	return code, o.String(), e.String()
}

func TestBadFlagsAreOneLine(t *testing.T) {
	for _, args := range [][]string{
		{"-rounds", "0"}, {"-rounds", "x"}, {"-run", "("}, {"-run", "no such target"},
		{"-nope"}, {"stray"},
		{"-readme", "no-such-file"}, {"-readme", "README.md", "-procs", "2,8"},
		{"-procs", "2"}, {"-procs", "2,x"}, {"-procs", "0,2"}, {"-per-core", "16,"},
	} {
		code, out, errOut := runRatios(args...)
		require.Equal(t, 2, code, "%v", args)
		require.Empty(t, out)
		require.Regexp(t, `^ratios: [^\n]+\n$`, errOut)
	}
}

func TestReplaysDoNotAllocate(t *testing.T) {
	code, out, _ := runRatios("-rounds", "1", "-strict", "-run", "replay, allocations")
	require.Zero(t, code, out)
	require.Contains(t, out, "2 of 2 met")
}

func TestEachTargetIsListed(t *testing.T) {
	code, out, _ := runRatios("-list")
	require.Zero(t, code)
	require.Equal(t, len(targets()), strings.Count(out, "\n"))
}

func TestMedian(t *testing.T) {
	require.Equal(t, 2.0, median([]float64{3, 1, 2}))
	require.Equal(t, 2.5, median([]float64{4, 1, 2, 3}))
}

// planted is a target with values that are known.
func planted(by comparison, ours, theirs float64) target {
	return target{name: "x", peer: "y", unit: "ns", by: by, lay: func(int) contest {
		return contest{
			ours:   func() float64 { return ours },
			theirs: func() float64 { return theirs },
		}
	}}
}

func TestMissIsTold(t *testing.T) {
	for _, c := range []struct {
		ours float64
		want verdict
	}{{3.01, missed}, {3, met}, {2.01, met}, {2, beyond}, {1, beyond}} {
		x := planted(alone, c.ours, 0)
		x.goal, x.beyond = atMost(3), atMost(2)
		r := x.measure(3)
		require.Equal(t, c.want, r.verdict(), "%v", c.ours)
		require.True(t, strings.HasSuffix(r.row(), "\t≤ 3 ns\t≤ 2 ns\t"+string(c.want)), r.row())
	}
}

func TestGoalWithoutBeyondIsJustMet(t *testing.T) {
	x := planted(alone, 0, 0)
	x.goal = atMost(0)
	require.Equal(t, met, x.measure(1).verdict())
	x.goal = exactly(0)
	require.Equal(t, met, x.measure(1).verdict())
}

func TestWithoutGoalIsShownAndNotCounted(t *testing.T) {
	r := planted(ratio, 1000, 1).measure(1)
	require.Equal(t, shown, r.verdict())
	require.Contains(t, r.row(), "\t1000.00\t")
	require.Zero(t, tally{shown: 3}.counted())
}

func TestPeerIsDividedOrTakenAway(t *testing.T) {
	x := planted(ratio, 6, 4)
	x.goal, x.beyond = atMost(1.5), atMost(1.25)
	r := x.measure(2)
	require.Equal(t, met, r.verdict())
	require.Equal(t, "x\t6 ns\t4 ns\ty\t1.50\t1.50..1.50\t≤ 1.50\t≤ 1.25\tmet", r.row())

	x = planted(extra, 6, 4)
	x.goal, x.beyond = atMost(1.5), atMost(1)
	r = x.measure(2)
	require.Equal(t, missed, r.verdict())
	require.Equal(t, "x\t6 ns\t4 ns\ty\t+2\t+2..+2\t≤ +1.50 ns\t≤ +1 ns\tNOT MET", r.row())
	r = planted(extra, 3, 4).with(x.goal, x.beyond).measure(1)
	require.Equal(t, beyond, r.verdict(), "less than the peer")
}

func (t target) with(goal, beyond limit) target {
	t.goal, t.beyond = goal, beyond
	return t
}

// One round in which a key ran twice is a miss, whatever the median.
func TestExactGoalIsOfEachRound(t *testing.T) {
	for _, odd := range []float64{1.0005, 0.9995} {
		values := []float64{1, odd, 1, 1, 1}
		round := 0
		x := target{unit: "runs", by: alone, goal: exactly(1), lay: func(int) contest {
			return contest{ours: func() float64 { round++; return values[round-1] }}
		}}
		require.Equal(t, missed, x.measure(5).verdict())
	}
	require.Equal(t, met, planted(alone, 1, 0).with(exactly(1), limit{}).measure(5).verdict())
}

func TestRoundsBeginInTurns(t *testing.T) {
	var order string
	target{lay: func(int) contest {
		return contest{
			ours:   func() float64 { order += "o"; return 1 },
			theirs: func() float64 { order += "t"; return 1 },
		}
	}}.measure(3)
	require.Equal(t, "ottoot", order)
}

func TestTally(t *testing.T) {
	require.Equal(t, "3 of 4 met, 1 of them beyond; 2 shown, not counted",
		tally{met: 2, beyond: 1, missed: 1, shown: 2}.String())
	require.Equal(t, "1 of 1 met", tally{met: 1}.String())
}

// Whoever changes a goal changes it here, too: what is promised is written down once more.
func TestGoals(t *testing.T) {
	var text strings.Builder
	for _, x := range targets() {
		fmt.Fprintf(&text, "%s | %s | %s\n", x.name, x.bound(x.goal), x.bound(x.beyond))
	}
	require.Equal(t, `
replay, hot key, 1 goroutine | ≤ 0.75 | ≤ 0.65
replay, hot key, all cores | ≤ 0.85 | ≤ 0.75
replay, spread over 65,536 keys, 1 goroutine | ≤ 0.95 | ≤ 0.90
replay, spread over 65,536 keys, all cores | ≤ 1.10 | ≤ 1.05
replay, allocations of Do with options | ≤ 0 allocs |`+" "+`
replay, allocations through Wrap | ≤ 0 allocs |`+" "+`
first execution, context cannot end | ≤ 0.65 | ≤ 0.55
first execution, context cannot end, allocations, numeric key | ≤ 2 allocs |`+" "+`
first execution, context cannot end, allocations, string key | ≤ 3 allocs |`+" "+`
first execution, context can end | ≤ 2.00 | ≤ 1.60
first execution, context can end, allocations, numeric key | ≤ 4 allocs |`+" "+`
storm of 10,000 callers that can leave | ≤ 1.00 | ≤ 0.90
storm of 10,000 callers that can leave (peer's cannot) |  |`+" "+`
insert at capacity | ≤ 1.00 | ≤ 0.75
insert at capacity, mixed TTLs and steady expiry | ≤ 2.00 |`+" "+`
memory per retained entry of 1,000,000 | ≤ 1.00 | ≤ 0.85
longest pause of a replay while 1,000,000 entries expire at once | ≤ 2 ms | ≤ 0.50 ms
forced collection while 1,000,000 entries are kept | ≤ 1.40 | ≤ 1.10
HTTP replay of 1 KiB, in process | ≤ +5 µs | ≤ +1 µs
HTTP replay of 1 KiB, over loopback | ≤ 1.25 | ≤ 1.05
HTTP first execution, in process | ≤ +6 µs | ≤ +4 µs
HTTP first execution, in process, allocations | ≤ +12 allocs | ≤ +8 allocs
runs per fresh key, 16 racing callers | = 1 runs |`+" "+`
`, "\n"+text.String())
}
