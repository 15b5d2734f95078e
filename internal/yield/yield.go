// Package yield marks the points at which another goroutine may come in between: the steps outside
// of critical sections, and between the atomic steps of what takes no lock. A model checker stops
// the library there and decides who goes on (see verify/explore); in production a point costs the
// look at a nil function.
package yield

// Hook is called at every point with its name. It must be set before the first call of a cache and
// not while one is under way; nil, as in production, means that nobody is asked.
var Hook func(point string)

// At is a point. It must not be called with a lock held.
func At(point string) {
	if Hook != nil {
		stop(point)
	}
}

// stop is apart so that At is inlined.
//
//go:noinline
func stop(point string) { Hook(point) }
