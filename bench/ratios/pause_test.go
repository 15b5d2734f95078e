package main

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPauseMeasuresExpiry(t *testing.T) {
	c := pause(20_000)
	figure := c.ours()
	require.False(t, math.IsInf(figure, 1), "all expired")
	require.Positive(t, figure)
	require.Regexp(t, `^before expiry: [0-9.]+ ms; (left out: |nothing left out: )`, c.aside())
}

// A replay during which the thread was preempted is left out, any other counts.
func TestPauseLeavesOutOnlyPreemptions(t *testing.T) {
	const slow = time.Millisecond
	count, interrupts := int64(0), int64(1)
	w := watch{keys: []string{"a", "b"}, preempted: func() int64 { return count }}
	w.replay = func(string) {
		time.Sleep(slow)
		count += interrupts
	}
	over := func(time.Time) bool { return true }
	longest, out := w.longest(over)
	require.Zero(t, longest)
	require.Positive(t, out.replays)
	require.GreaterOrEqual(t, out.longest, slow)

	interrupts = 0
	longest, out = w.longest(over)
	require.Zero(t, out)
	require.GreaterOrEqual(t, longest, slow)
}

func TestWhatWasLeftOutIsSaid(t *testing.T) {
	sum := leftOut{}.and(leftOut{1, 2 * time.Millisecond}).and(leftOut{2, time.Millisecond})
	require.Equal(t, leftOut{3, 2 * time.Millisecond}, sum)
	if preemptionsAreTold {
		require.Contains(t, sum.String(), "left out: 3 replays")
		require.Contains(t, sum.String(), "longest 2 ms")
		require.Equal(t, "left out: none", leftOut{}.String())
	} else {
		require.Contains(t, leftOut{}.String(), "does not tell")
	}
}
