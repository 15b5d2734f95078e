package main

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets that are an eighth of an octave wide: a quantile is off by
// 6 % at most, and counting costs a few ns.
type histogram struct {
	buckets [64 * perOctave]uint32
	n       int
}

const perOctave = 8

func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(uint64(max(d, 0)))]++
	h.n++
}

func bucketOf(ns uint64) int {
	if ns < perOctave {
		return int(ns)
	}
	octave := bits.Len64(ns) - 1 // at least 3
	return (octave-2)*perOctave + int(ns>>(octave-3))&(perOctave-1)
}

// middleOf returns the middle of a bucket, in ns.
func middleOf(bucket int) float64 {
	if bucket < perOctave {
		return float64(bucket)
	}
	octave := bucket/perOctave + 2
	width := float64(uint64(1) << (octave - 3))
	return float64(uint64(1)<<octave) + (float64(bucket%perOctave)+0.5)*width
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
	h.n += other.n
}

// quantile returns the q quantile in ns, or nil if fewer than ten calls lie beyond it: that would
// be an anecdote.
func (h *histogram) quantile(q float64) *float64 {
	if float64(h.n)*(1-q) < 10 {
		return nil
	}
	rank, seen := int(q*float64(h.n)), 0
	for i, n := range h.buckets {
		if seen += int(n); seen > rank {
			v := middleOf(i)
			return &v
		}
	}
	return nil
}
