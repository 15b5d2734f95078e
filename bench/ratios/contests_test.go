package main

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDivide(t *testing.T) {
	for _, goroutines := range []int{1, 3, 16, 100} {
		var seen [50]atomic.Int32
		divide(len(seen), goroutines, func(from, to int) {
			for i := from; i < to; i++ {
				seen[i].Add(1)
			}
		})
		for i := range seen {
			require.EqualValues(t, 1, seen[i].Load(), "%d of %d", i, goroutines)
		}
	}
}
