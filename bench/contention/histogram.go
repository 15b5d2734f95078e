package main

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// longest is what a longer call counts as. No measurement takes more.
const longest = time.Minute

// latencies counts how long calls took, by kind, to two digits: what is read is off by 1 % at most.
// It is 90 KiB.
type latencies [kinds]*hdrhistogram.Histogram

func newLatencies() *latencies {
	l := new(latencies)
	for k := range l {
		l[k] = newHistogram()
	}
	return l
}

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(longest), 2) }

func (l *latencies) add(k kind, took time.Duration) {
	_ = l[k].RecordValue(int64(min(max(took, 0), longest))) // which is in its range
}

func (l *latencies) merge(other *latencies) {
	for k, h := range other {
		l[k].Merge(h)
	}
}

// all returns the calls of every kind.
func (l *latencies) all() *hdrhistogram.Histogram {
	sum := newHistogram()
	for _, h := range l {
		sum.Merge(h)
	}
	return sum
}

// quantile returns the q quantile in ns, or nil if fewer than ten calls lie beyond it: that would
// be an anecdote.
func quantile(h *hdrhistogram.Histogram, q float64) *float64 {
	if float64(h.TotalCount())*(1-q) < 10 {
		return nil
	}
	v := float64(h.ValueAtPercentile(100 * q))
	return &v
}
