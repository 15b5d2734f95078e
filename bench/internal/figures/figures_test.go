package figures_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight/bench/internal/figures"
)

func TestNumbersForPeople(t *testing.T) {
	for ns, want := range map[float64]string{3: "3 ns", 999: "999 ns", 1500: "1.5 µs", 25_000: "25 µs", 3e6: "3 ms", 2.5e9: "2.5 s"} {
		require.Equal(t, want, figures.Nanoseconds(ns))
	}
	for n, want := range map[float64]string{0: "0", 999: "999", 1500: "1.5 k", 12e6: "12 M"} {
		require.Equal(t, want, figures.Count(n))
	}
}
