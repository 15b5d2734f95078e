package idemflight

import (
	"errors"
	"slices"
)

// Final marks err as a real answer (the card was declined): it is retained and replayed like a
// value. Final(nil) is nil. A marker works through wrapping and among joined errors (Hold beats
// Retain beats Release). It speaks only to the cache whose fn returned it, and callers do not see
// it: they get err itself.
func Final(err error) error { return mark(err, Retain) }

// Retryable says that fn, which failed with err, certainly had no effect: nothing is kept and the
// next call runs fn again, even after [BeginEffect]. Retryable(nil) is nil. To return a value that
// must not be kept, return it together with Retryable(err).
func Retryable(err error) error { return mark(err, Release) }

// Unknown says that after err the effect may or may not have taken place: the key is held, and
// callers get [ErrOutcomeUnknown] around err. Unknown(nil) is nil.
func Unknown(err error) error { return mark(err, Hold) }

func mark(err error, d Disposition) error {
	if err == nil {
		return nil
	}
	return &marked{err, d}
}

// marked is an error with a marker.
type marked struct {
	err error
	d   Disposition
}

func (m *marked) Error() string { return m.err.Error() }
func (m *marked) Unwrap() error { return m.err }
func (m *marked) Marker()       {} // see verdict.Marker

// unmarked is an error as fn returned it, with markers somewhere inside that have been heeded
// already. [errors.Is] and [errors.As] see through it; the search for markers ends at it.
type unmarked struct{ err error }

func (u *unmarked) Error() string { return u.err.Error() }
func (u *unmarked) Unwrap() error { return u.err }

// markedAs returns the disposition that the markers in err decide: the outermost of a chain wins,
// and among joined errors Hold beats Retain beats Release. If some of the joined errors bear a
// marker, plain judges each of the others. found is false if there is no marker at all. An error
// without end is held: there may be a marker further in.
func markedAs(err error, plain func(error) Disposition) (d Disposition, found bool) {
	w := walk{left: maxErrors}
	return w.markedAs(err, plain)
}

func (w *walk) markedAs(err error, plain func(error) Disposition) (d Disposition, found bool) {
	for err != nil {
		if w.tooLong() {
			return Hold, true
		}
		switch e := err.(type) {
		case *marked:
			return e.d, true
		case *PanicError, *unmarked:
			return Release, false
		}
		parts, one := inside(err)
		if one == nil {
			return w.joinedAs(parts, plain)
		}
		err = one
	}
	return Release, false
}

func (w *walk) joinedAs(errs []error, plain func(error) Disposition) (d Disposition, found bool) {
	var rest []error // asked only if another bears a marker
	for _, err := range errs {
		if err == nil {
			continue
		}
		if part, ok := w.markedAs(err, plain); ok {
			d, found = strongest(d, part), true
		} else {
			rest = append(rest, err)
		}
	}
	if found {
		for _, err := range rest {
			d = strongest(d, plain(err))
		}
	}
	return d, found
}

// inside returns what err wraps: one error, or those that it joins. Multi-errors from before
// errors.Join list theirs by WrappedErrors. Many have an Unwrap beside it, which shows the last one
// only, or a chain whose members hide behind Is and As: then the list is what counts.
func inside(err error) (parts []error, one error) {
	if e, ok := err.(interface{ WrappedErrors() []error }); ok {
		if parts := e.WrappedErrors(); slices.ContainsFunc(parts, isError) {
			return parts, nil
		}
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return nil, e.Unwrap()
	case interface{ Unwrap() []error }:
		return e.Unwrap(), nil
	}
	return nil, nil
}

func isError(err error) bool { return err != nil }

// walk bounds a walk through what an error wraps. One that wraps itself, or makes up another one
// each time it is asked, has no end, and a flight whose error is judged forever would never settle.
type walk struct{ left int }

// maxErrors is how many errors within one are looked at: more than anybody joins, and a matter of
// milliseconds.
const maxErrors = 10_000

// tooLong counts one more error and reports whether that is more than are looked at.
func (w *walk) tooLong() bool {
	w.left--
	return w.left < 0
}

// finite returns err or, if err has no end, an error with its text only: errors.Is and
// errors.As would not return.
func finite(err error) error {
	if endless(err) {
		return errors.New(err.Error())
	}
	return err
}

// endless reports whether err wraps more errors than are looked at. It looks at
// what errors.Is does.
func endless(err error) bool {
	w := walk{left: maxErrors}
	return w.endless(err)
}

func (w *walk) endless(err error) bool {
	for err != nil {
		if w.tooLong() {
			return true
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			return slices.ContainsFunc(e.Unwrap(), w.endless)
		default:
			return false
		}
	}
	return false
}

// strongest returns what wins among joined errors. Release < Retain < Hold, and what is none of
// the three is Hold.
func strongest(a, b Disposition) Disposition { return max(a, sane(b)) }

func sane(d Disposition) Disposition {
	if d < Release || d > Hold {
		return Hold
	}
	return d
}

// unmark returns err so that no marker of it is seen again: the error that was marked, or one that
// hides the markers deeper inside.
func unmark(err error) error {
	for {
		m, ok := err.(*marked)
		if !ok {
			break
		}
		err = m.err
	}
	if _, found := markedAs(err, always(Release)); found {
		return &unmarked{err}
	}
	return err
}

// always returns a classifier that has one answer.
func always(d Disposition) func(error) Disposition { return func(error) Disposition { return d } }
