// Package yield marks the points at which another goroutine may come in between: the steps outside
// of critical sections, and between the atomic steps of what takes no lock. A model checker stops
// the library there and decides who goes on (see verify/explore); in production a point costs the
// look at a nil pointer.
package yield

import "sync/atomic"

var hook atomic.Pointer[func(point string)]

// Hook has f called at every point with its name, on the goroutine that comes there; nil, as in
// production, means that nobody is asked. Goroutines that are under way may notice late.
func Hook(f func(point string)) {
	if f == nil {
		hook.Store(nil)
		return
	}
	hook.Store(&f)
}

// At is a point. It must not be called with a lock held.
func At(point string) {
	if hook.Load() != nil {
		stop(point)
	}
}

// stop is apart so that At is inlined.
//
//go:noinline
func stop(point string) {
	if f := hook.Load(); f != nil {
		(*f)(point)
	}
}
