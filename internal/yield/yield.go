// Package yield marks the points at which another goroutine may come in between: the steps outside
// of critical sections, and the atomic steps that readers without a lock can see. A model checker
// stops the library there and decides which goroutine goes on (see verify/explore); in production
// a point costs the look at a nil pointer.
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

// Locked begins the names of points in the critical section of a shard: until the goroutine there
// goes on, only those can that take no lock.
const Locked = "locked: "

// At is a point. Unless its name begins with Locked, it must not be called with a lock held.
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
