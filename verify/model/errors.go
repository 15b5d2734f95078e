package model

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"

	"pgregory.net/rapid"

	"github.com/idemflight/idemflight"
)

// An errSpec is an error described by how it is made, so that the reference can judge it by the
// contract's words without looking into the error.
type errSpec struct {
	form form
	d    idemflight.Disposition // of a marker; of a tag, what the custom Classify says
	kids []*errSpec
	err  error // as fn returns it

	// Of a leaf: what ClassifyLenient says of it.
	class   idemflight.Disposition
	network bool // a dial or DNS error
	tagged  bool
}

type form int

const (
	leaf form = iota
	marker
	wrapping
	slow    // a wrapper that says Timeout() true
	urlPost // *url.Error, Op "Post"
	urlGet
	joining
)

// sayPanic is a tag's disposition that makes the custom Classify panic.
const sayPanic idemflight.Disposition = 99

// tagError tells the custom Classify what to say.
type tagError struct{ d idemflight.Disposition }

func (t *tagError) Error() string { return fmt.Sprintf("tag %d", int(t.d)) }

type slowError struct{ err error }

func (e *slowError) Error() string { return "slow: " + e.err.Error() }
func (e *slowError) Unwrap() error { return e.err }
func (e *slowError) Timeout() bool { return true }

// customClassify is the Classify of the configurations that have one.
func customClassify(err error) idemflight.Disposition {
	if t := (*tagError)(nil); errors.As(err, &t) {
		if t.d == sayPanic {
			panic("Classify")
		}
		return t.d
	}
	if p := (*idemflight.PanicError)(nil); errors.As(err, &p) {
		return idemflight.Retain
	}
	return idemflight.Release
}

var leaves = []errSpec{
	{err: nil, class: idemflight.Release}, // a plain error, made anew each time
	{err: nil, class: idemflight.Release, tagged: true},
	{err: io.EOF, class: idemflight.Hold},
	{err: io.ErrUnexpectedEOF, class: idemflight.Hold},
	{err: net.ErrClosed, class: idemflight.Hold},
	{err: context.Canceled, class: idemflight.Hold},
	{err: context.DeadlineExceeded, class: idemflight.Hold},
	{err: syscall.ECONNRESET, class: idemflight.Hold},
	{err: syscall.EPIPE, class: idemflight.Hold},
	{err: &net.OpError{Op: "dial", Err: syscall.ETIMEDOUT}, class: idemflight.Release, network: true},
	{err: &net.DNSError{Err: "no such host", IsTimeout: true}, class: idemflight.Release, network: true},
	{err: idemflight.ErrInFlight, class: idemflight.Release},
	{err: idemflight.ErrOutcomeUnknown, class: idemflight.Hold},
	{err: idemflight.ErrCallerLeft, class: idemflight.Release},
	{err: idemflight.ErrGoexit, class: idemflight.Hold},
	{err: &idemflight.PanicError{Value: idemflight.Final(errors.New("marked within a panic"))}, class: idemflight.Hold},
}

// drawErr draws an error of some depth.
func drawErr(t *rapid.T, depth int, underJoin bool) *errSpec {
	forms := []form{leaf, leaf, marker, marker, wrapping, joining, slow, urlPost, urlGet}
	if depth == 0 {
		forms = forms[:2]
	}
	s := &errSpec{form: rapid.SampledFrom(forms).Draw(t, "form")}
	chain := func() error { // of what stands around a chain without a join
		s.kids = []*errSpec{drawErr(t, depth-1, underJoin)}
		if s.kids[0].joins() && s.form != wrapping && s.form != marker {
			s.form = wrapping // how a classifier reads these around a join is nobody's promise
		}
		return s.kids[0].err
	}
	switch s.form {
	case leaf:
		*s = rapid.SampledFrom(leaves).Draw(t, "leaf")
		switch {
		case s.tagged:
			says := []idemflight.Disposition{idemflight.Release, idemflight.Retain, idemflight.Hold, 7, -1, sayPanic}
			if underJoin {
				says = says[:5]
			}
			s.d = rapid.SampledFrom(says).Draw(t, "says")
			s.err = &tagError{s.d}
		case s.err == nil:
			s.err = errors.New("plain")
		}
	case marker:
		s.d = rapid.SampledFrom([]idemflight.Disposition{idemflight.Release, idemflight.Retain, idemflight.Hold}).Draw(t, "marker")
		err := chain()
		switch s.d {
		case idemflight.Release:
			s.err = idemflight.Retryable(err)
		case idemflight.Retain:
			s.err = idemflight.Final(err)
		case idemflight.Hold:
			s.err = idemflight.Unknown(err)
		}
	case joining:
		var errs []error
		for range rapid.IntRange(1, 3).Draw(t, "parts") {
			kid := drawErr(t, depth-1, true)
			s.kids = append(s.kids, kid)
			errs = append(errs, kid.err)
		}
		s.err = errors.Join(errs...)
	default:
		err := chain()
		switch s.form {
		case wrapping:
			s.err = fmt.Errorf("wrapped: %w", err)
		case slow:
			s.err = &slowError{err}
		case urlPost:
			s.err = &url.Error{Op: "Post", URL: "/", Err: err}
		case urlGet:
			s.err = &url.Error{Op: "Get", URL: "/", Err: err}
		}
	}
	return s
}

func (s *errSpec) any(is func(*errSpec) bool) bool {
	if is(s) {
		return true
	}
	for _, kid := range s.kids {
		if kid.any(is) {
			return true
		}
	}
	return false
}

func (s *errSpec) joins() bool { return s.any(func(s *errSpec) bool { return s.form == joining }) }
func (s *errSpec) marks() bool { return s.any(func(s *errSpec) bool { return s.form == marker }) }

// marked returns what the markers of s decide (promise 11); plain judges an unmarked part of a join
// some other part of which is marked.
func (s *errSpec) marked(plain func(*errSpec) idemflight.Disposition) (d idemflight.Disposition, found bool) {
	switch s.form {
	case leaf:
		return 0, false
	case marker:
		return s.d, true
	case joining:
		if !s.marks() {
			return 0, false
		}
		for _, kid := range s.kids {
			part, ok := kid.marked(plain)
			if !ok {
				part = plain(kid)
			}
			d = max(d, part) // Hold beats Retain beats Release
		}
		return d, true
	}
	return s.kids[0].marked(plain)
}

// byLenient is what ClassifyLenient says of s, its markers left out (promise 12): from the outside in, the
// first that speaks decides.
func (s *errSpec) byLenient() (d idemflight.Disposition) {
	switch s.form {
	case leaf:
		return s.class
	case slow:
		return idemflight.Hold
	case urlPost, urlGet:
		if s.form == urlPost && s.any(func(s *errSpec) bool { return s.network }) {
			return idemflight.Release
		}
		return idemflight.Hold
	case joining:
		for _, kid := range s.kids {
			d = max(d, kid.byLenient())
		}
		return d
	}
	return s.kids[0].byLenient()
}

// byCustom is what customClassify says of s: panics where it does.
func (s *errSpec) byCustom() (d idemflight.Disposition, panics bool) {
	d, found := idemflight.Release, false
	s.any(func(s *errSpec) bool { // in the order of errors.As
		if !found && s.tagged {
			d, found = s.d, true
		}
		return found
	})
	switch {
	case !found && s.any(func(s *errSpec) bool { _, ok := s.err.(*idemflight.PanicError); return s.form == leaf && ok }):
		return idemflight.Retain, false
	case d == sayPanic:
		return idemflight.Hold, true
	case d < idemflight.Release || d > idemflight.Hold:
		return idemflight.Hold, false
	}
	return d, false
}

// cause is what an outcome's error must be, as the reference knows it. A nil cause is no error.
type cause struct {
	spec     *errSpec // returned by fn
	panicked any      // fn panicked with it
	goexit   bool
	sentinel error  // put there by the library
	read     *cause // this, written by Save and read again by Load
}

// original says what is wrong with got as the error that records, Reconcile and callers get of an
// outcome that is not unknown.
func (c *cause) original(got error) string {
	if c == nil {
		if got != nil {
			return fmt.Sprintf("error %v where none was expected", got)
		}
		return ""
	}
	if got == nil {
		return "no error where one was expected"
	}
	switch {
	case c.goexit:
		if got != idemflight.ErrGoexit {
			return fmt.Sprintf("error %v instead of ErrGoexit", got)
		}
	case c.sentinel != nil:
		if got != c.sentinel {
			return fmt.Sprintf("error %v instead of %v", got, c.sentinel)
		}
	case c.panicked != nil:
		p, ok := got.(*idemflight.PanicError)
		if !ok || p.Value != c.panicked {
			return fmt.Sprintf("error %v instead of a *PanicError", got)
		}
		return stackless(p)
	case c.read != nil:
		return c.read.readAgain(got)
	default:
		return c.spec.unmarked(got)
	}
	return ""
}

// unmarked says what is wrong with got as s without its markers.
func (s *errSpec) unmarked(got error) string {
	for s.form == marker {
		s = s.kids[0]
	}
	if !s.marks() && got != s.err {
		return fmt.Sprintf("error %#v is not fn's own, %#v", got, s.err)
	}
	if got.Error() != s.err.Error() {
		return fmt.Sprintf("error says %q instead of %q", got, s.err)
	}
	if wrong := s.reached(got); wrong != "" {
		return wrong
	}
	if said := idemflight.ClassifyLenient(got); said != s.byLenient() {
		return fmt.Sprintf("a marker is left in %q: classified %v instead of %v", got, said, s.byLenient())
	}
	return ""
}

// reached says which leaf of s errors.Is does not find in got.
func (s *errSpec) reached(got error) string {
	if s.form == leaf && !errors.Is(got, s.err) {
		return fmt.Sprintf("errors.Is does not find %v in %v", s.err, got)
	}
	for _, kid := range s.kids {
		if wrong := kid.reached(got); wrong != "" {
			return wrong
		}
	}
	return ""
}

// unknown says what is wrong with got as ErrOutcomeUnknown around c.
func (c *cause) unknown(got error) string {
	if !errors.Is(got, idemflight.ErrOutcomeUnknown) {
		return fmt.Sprintf("error %v is not ErrOutcomeUnknown", got)
	}
	switch {
	case c == nil:
		return ""
	case c.goexit && !errors.Is(got, idemflight.ErrGoexit):
		return fmt.Sprintf("ErrGoexit is not in %v", got)
	case c.sentinel != nil && !errors.Is(got, c.sentinel):
		return fmt.Sprintf("%v is not in %v", c.sentinel, got)
	case c.panicked != nil:
		p := (*idemflight.PanicError)(nil)
		if !errors.As(got, &p) || p.Value != c.panicked {
			return fmt.Sprintf("the panic is not in %v", got)
		}
		return stackless(p)
	case c.read != nil:
		return c.read.named(got)
	case c.spec != nil:
		return c.spec.reached(got)
	}
	return ""
}

// stackless says what is wrong with p as what others than the leader get: only that panics with a stack.
func stackless(p *idemflight.PanicError) string {
	if len(p.Stack) > 0 {
		return fmt.Sprintf("the error for a panic with %v bears its stack, as only the leader's does", p.Value)
	}
	return ""
}

// notLearned says what is wrong with got as the answer to who waited for a Reconcile that learned nothing
// but c, or came a moment after.
func (c *cause) notLearned(got error) string {
	if wrong := c.unknown(got); wrong != "" {
		return wrong
	}
	if !strings.Contains(got.Error(), "Reconcile learned nothing") {
		return fmt.Sprintf("%q does not say that Reconcile learned nothing", got)
	}
	return ""
}
