package idemflight

import (
	"context"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
)

// ClassifyLenient is the Classify that [Options] uses if none is given. It holds what is ambiguous
// and releases every other error, so that a transient failure never burns the key. No classifier
// can know: an operation that matters calls [BeginEffect].
//
// It reads a chain of errors from the outside in, and the first of these decides:
//
//   - *[PanicError], [ErrGoexit]: Hold.
//   - *[url.Error]: Release if its Op is neither Get nor Head and a dial or DNS error is in it:
//     nothing was sent. (A GET may be the redirect that followed the effect.) Else Hold. A POST
//     that is answered by a redirect to a host that cannot be reached looks like one that was never
//     sent, since Op is that of the first request: call BeginEffect.
//   - another error of this package, the answer of an inner Do whose key guards itself: Release.
//   - *[net.OpError] with Op "dial", *[net.DNSError]: Release.
//
// Unless one of these stands deeper, it holds the end of a context, Timeout() true, [io.EOF],
// [io.ErrUnexpectedEOF], [net.ErrClosed], and a connection reset, aborted or broken. Of joined
// errors each is judged alone, and Hold wins. Markers are followed if there are any ([Final]:
// Retain), and nil is Retain.
func ClassifyLenient(err error) Disposition {
	if err == nil {
		return Retain
	}
	if d, found := markedAs(err, classify); found {
		return d
	}
	return classify(err)
}

// classify is ClassifyLenient without regard to markers, which are no part of a chain's meaning
// once they have been heeded.
func classify(err error) Disposition { return classifyChain(err, false) }

// classifyChain judges err; ambiguous tells that something further out is ambiguous.
func classifyChain(err error, ambiguous bool) Disposition {
	for err != nil {
		if d, decided := decide(err); decided {
			return d
		}
		ambiguous = ambiguous || isAmbiguous(err)
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			d, parts := Release, 0
			for _, part := range e.Unwrap() {
				if part != nil {
					d, parts = max(d, classifyChain(part, ambiguous)), parts+1
				}
			}
			if parts > 0 {
				return d
			}
			err = nil
		default:
			err = nil
		}
	}
	if ambiguous {
		return Hold
	}
	return Release
}

// decide looks at err itself, not at what it wraps, except for what a *url.Error encloses.
func decide(err error) (d Disposition, decided bool) {
	switch e := err.(type) {
	case *PanicError:
		return Hold, true
	case *unknownError, *leftError:
		return Release, true
	case *url.Error:
		reads := strings.EqualFold(e.Op, "Get") || strings.EqualFold(e.Op, "Head")
		if !reads && neverSent(e.Err) {
			return Release, true
		}
		return Hold, true
	}
	if err == ErrGoexit {
		return Hold, true
	}
	if slices.Contains(ownSentinels, err) || noConnection(err) {
		return Release, true
	}
	return 0, false
}

// noConnection reports whether err itself says that no connection came about.
func noConnection(err error) bool {
	switch e := err.(type) {
	case *net.OpError:
		return e.Op == "dial"
	case *net.DNSError:
		return true
	}
	return false
}

// neverSent reports whether a dial or DNS error is anywhere in err.
func neverSent(err error) bool {
	if err == nil {
		return false
	}
	if noConnection(err) {
		return true
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return neverSent(e.Unwrap())
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(e.Unwrap(), neverSent)
	}
	return false
}

// isAmbiguous reports whether err itself, not what it wraps, may come after the effect.
func isAmbiguous(err error) bool {
	if t, ok := err.(interface{ Timeout() bool }); ok && t.Timeout() {
		return true
	}
	for _, sentinel := range ambiguous {
		if sameError(err, sentinel) {
			return true
		}
	}
	return false
}

// sameError is errors.Is without the unwrapping: err is target, or says so itself.
func sameError(err, target error) bool {
	if e, ok := err.(interface{ Is(error) bool }); ok && e.Is(target) {
		return true
	}
	return err == target
}

var ambiguous = append([]error{
	context.Canceled, context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
}, connectionLost...)
