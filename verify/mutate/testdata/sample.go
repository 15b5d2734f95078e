// Package sample is mutated by the test of the command.
package sample

import "sync"

const most = 2 + 1

// Box holds at most three numbers.
type Box struct {
	mu   sync.Mutex
	all  []int
	full chan struct{}
}

// New returns an empty Box.
func New() *Box { return &Box{full: make(chan struct{})} }

// Put puts n in; it reports whether there was room.
func (b *Box) Put(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n < 0 || len(b.all) >= most {
		return false
	}
	b.all = append(b.all, n)
	if len(b.all) == most {
		close(b.full)
	}
	return true
}

// Full reports whether there is no room.
func (b *Box) Full() bool {
	select {
	case <-b.full:
		return true
	default:
		return false
	}
}

// Sum returns the sum of all numbers from the first to the last.
func (b *Box) Sum() int {
	sum := 0
	for i := 0; i < len(b.all); i++ {
		if b.all[i] == 0 {
			continue
		}
		sum += b.all[i]
	}
	return -(-sum)
}

// Name is a text, which cannot be subtracted from.
func Name(s string) string { return "box " + s }
