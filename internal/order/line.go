package order

import (
	"math"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Line has records in the order in which they were added. golang-lru keeps the order, of runs of
// records: that costs some ten bytes for each record, and one pointer that a garbage collection
// follows. A run goes when all of its records have: one that is left of many costs as much as they
// did. The zero value is an empty line.
//
// All methods take constant time, amortized.
type Line[R any] struct {
	runs *simplelru.LRU[uint32, *run[R]] // by number
	last *run[R]
	peak int // the most runs since runs was made
}

// run is records that were added one after the other. A record's place is the number of its run and,
// in the lower bits, its index there.
type run[R any] struct {
	number  uint32
	left    int  // how many of records are not nil
	from    int  // before this one all are nil
	records []*R // nil where one was removed
}

const (
	runBits   = 6
	runLen    = 1 << runBits
	maxNumber = 1<<(32-runBits) - 1

	firstRun = 8  // the length of the first run: most lines stay short
	manyRuns = 64 // as few are not worth a smaller table
)

// Add appends r and returns its place.
func (l *Line[R]) Add(r *R) (place uint32) {
	in := l.last
	switch {
	case in == nil:
		l.runs = newRuns[R]()
		in = l.addRun(0, firstRun)
	case len(in.records) == cap(in.records):
		in = l.addRun(in.number+1, runLen)
	}
	in.records = append(in.records, r)
	in.left++
	return in.number<<runBits | uint32(len(in.records)-1)
}

func (l *Line[R]) addRun(number uint32, size int) *run[R] {
	for number &= maxNumber; l.runs.Contains(number); number = (number + 1) & maxNumber { // wrapped
	}
	l.last = &run[R]{number: number, records: make([]*R, 0, size)}
	l.runs.Add(number, l.last)
	l.peak = max(l.peak, l.runs.Len())
	return l.last
}

func newRuns[R any]() *simplelru.LRU[uint32, *run[R]] {
	runs, _ := simplelru.NewLRU[uint32, *run[R]](math.MaxInt, nil) // fails only for a size below 1
	return runs
}

// at returns the run of place; most calls are about the oldest.
func (l *Line[R]) at(place uint32) *run[R] {
	number, oldest, _ := l.runs.GetOldest()
	if number == place>>runBits {
		return oldest
	}
	in, _ := l.runs.Peek(place >> runBits)
	return in
}

// Replace puts r at place, where another record is.
func (l *Line[R]) Replace(place uint32, r *R) { l.at(place).records[place%runLen] = r }

// Remove takes out the record at place.
func (l *Line[R]) Remove(place uint32) {
	in := l.at(place)
	in.records[place%runLen] = nil
	in.left--
	switch {
	case in == l.last: // what is free at its end is given again
		for n := len(in.records); n > 0 && in.records[n-1] == nil; n-- {
			in.records = in.records[:n-1]
		}
		in.from = min(in.from, len(in.records))
	case in.left == 0:
		l.runs.Remove(in.number)
	}
	if in.left == 0 {
		l.trim()
	}
}

// trim lets go of tables that are far too large for the runs that are left.
func (l *Line[R]) trim() {
	switch n := l.runs.Len(); {
	case n == 1 && l.last.left == 0 && cap(l.last.records) > firstRun:
		*l = Line[R]{}
	case l.peak > manyRuns && n < l.peak/sparse:
		runs := newRuns[R]()
		for _, number := range l.runs.Keys() { // from the oldest
			in, _ := l.runs.Peek(number)
			runs.Add(number, in)
		}
		l.runs, l.peak = runs, n
	}
}

// First returns the record that was added first, or nil.
func (l *Line[R]) First() *R {
	if l.runs == nil {
		return nil
	}
	_, in, _ := l.runs.GetOldest()
	if in.left == 0 {
		return nil
	}
	for in.records[in.from] == nil {
		in.from++
	}
	return in.records[in.from]
}

// All yields the records and their places in order.
func (l *Line[R]) All(yield func(place uint32, r *R) bool) {
	if l.runs == nil {
		return
	}
	for _, in := range l.runs.Values() { // from the oldest
		for i, r := range in.records {
			if r != nil && !yield(in.number<<runBits|uint32(i), r) {
				return
			}
		}
	}
}
