// Package verdict lets the packages around the core say what is to become of an outcome, where the
// handler that they ran said nothing about its effect.
package verdict

// Error is an error of fn that brings its own verdict: unless BeginEffect or NoEffect was called, or
// the cache is EffectsAnnounced, it is retained if Retain is set, else Hold decides whether the key is held or
// released, and the cache's Classify is not asked. It must be the very error that fn returns.
type Error struct {
	Err    error
	Retain bool
	Hold   bool
}

// Marker is what Final, Retryable and Unknown return, for packages that must look at the error inside.
type Marker interface {
	error
	Unwrap() error
	Marker()
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }
