package main

import (
	"bytes"
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
	for _, args := range [][]string{{"-rounds", "0"}, {"-rounds", "x"}, {"-run", "("}, {"-run", "no such target"}, {"-nope"}, {"stray"}} {
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

func TestMissIsTold(t *testing.T) {
	value := 3.0
	miss := target{name: "x", unit: "ns", most: 2, lay: func() contest {
		return contest{ours: func() float64 { return value }}
	}}
	line, met := miss.measure(3)
	require.False(t, met)
	require.Contains(t, line, "NOT MET")
	value = 2
	_, met = miss.measure(3)
	require.True(t, met, "at most")
	miss.less = true
	_, met = miss.measure(3)
	require.False(t, met, "less than")
}
