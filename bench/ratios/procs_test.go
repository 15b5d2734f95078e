package main

import (
	"math"
	"regexp"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// atProcs is a target whose figure depends on GOMAXPROCS alone.
func atProcs(by comparison, figure func(procs int) float64) target {
	return target{name: "x", unit: "ns", by: by, goal: atMost(1), lay: func(int) contest {
		return contest{ours: func() float64 { return figure(runtime.GOMAXPROCS(0)) }}
	}}
}

func ignore(string) {}

func TestCollapseIsTold(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	c := config{rounds: 3, procs: []int{2, 8}}
	for _, at := range []struct {
		eight float64
		want  verdict
	}{{131, missed}, {130, met}, {100, met}, {1, met}} {
		x := atProcs(ratio, func(procs int) float64 {
			return map[int]float64{2: 100, 8: at.eight}[procs]
		})
		all := c.raised([]target{x}, ignore)
		require.Len(t, all, 1)
		require.Equal(t, at.want, all[0].verdict(), "%v", at.eight)
	}
	require.Equal(t, before, runtime.GOMAXPROCS(0), "as it was")
}

func TestAbsoluteLimitsHoldAtAnyProcs(t *testing.T) {
	c := config{rounds: 1, procs: []int{2, 8}}
	pause := atProcs(alone, func(procs int) float64 { return 0.2 * float64(procs) })
	pause.goal = atMost(2)
	r := c.raised([]target{pause}, ignore)[0]
	require.Equal(t, met, r.verdict(), "four times as long, and short")
	pause.goal = atMost(1.5)
	require.Equal(t, missed, c.raised([]target{pause}, ignore)[0].verdict())

	none := atProcs(alone, func(int) float64 { return 0 })
	none.goal = atMost(0)
	r = c.raised([]target{none}, ignore)[0]
	require.Equal(t, met, r.verdict())
	require.Equal(t, "x\t2, 8\t0 ns\t0 ns\t1.00\t1.00..1.00\t≤ 0 ns\tmet", r.row())
}

func TestRaisedRowsTakeTurnsAndGoroutines(t *testing.T) {
	var laid, measured [][2]int // GOMAXPROCS and goroutines
	x := target{name: "x", goal: atMost(1), callers: onePerCore, lay: func(goroutines int) contest {
		laid = append(laid, [2]int{runtime.GOMAXPROCS(0), goroutines})
		return contest{ours: func() float64 {
			measured = append(measured, [2]int{runtime.GOMAXPROCS(0), goroutines})
			return 1
		}}
	}}
	c := config{rounds: 2, procs: []int{2, 8}, perCore: []int{16}}
	all := c.raised([]target{x}, ignore)
	require.Len(t, all, 2)
	require.Equal(t, [][2]int{{2, 2}, {8, 8}, {2, 32}, {8, 128}}, laid)
	require.Equal(t, [][2]int{
		{2, 2}, {8, 8}, {8, 8}, {2, 2},
		{2, 32}, {8, 128}, {8, 128}, {2, 32},
	}, measured)
	require.Contains(t, all[1].row(), "x, 16 goroutines per processor\t2, 8\t")

	x.callers = fixed
	require.Len(t, c.raised([]target{x}, ignore), 1, "its number is its own")
	x.goal = limit{}
	require.Empty(t, c.raised([]target{x}, ignore), "shown beside a peer alone")
}

func TestMoreThanTwoProcsAreComparedWithTheFirst(t *testing.T) {
	c := config{rounds: 1, procs: []int{1, 2, 3}, only: regexp.MustCompile("")}
	all := c.raised([]target{atProcs(ratio, func(procs int) float64 {
		return math.Pow(1.2, float64(procs))
	})}, ignore)
	require.Len(t, all, 2)
	require.Equal(t, met, all[0].verdict())
	require.Equal(t, missed, all[1].verdict())
}

func TestProcsFromTheCommandLine(t *testing.T) {
	code, out, _ := runRatios("-procs", "1,2", "-per-core", "4", "-rounds", "1", "-strict",
		"-run", "replay, allocations|runs per fresh key")
	require.Zero(t, code, out)
	require.Contains(t, out, "GOMAXPROCS 1 2")
	require.Contains(t, out, "runs per fresh key, 16 racing callers, 4 goroutines per processor")
	require.Contains(t, out, "4 of 4 met")
}
