package rpc

import (
	"slices"

	"github.com/idemflight/idemflight"
)

// The codes that gRPC and Connect share.
const (
	success = iota
	canceled
	unknownCode
	invalidArgument
	deadlineExceeded
	notFound
	alreadyExists
	permissionDenied
	resourceExhausted
	failedPrecondition
	aborted
	outOfRange
	unimplemented
	internal
	unavailable
	dataLoss
	unauthenticated
)

// Classify judges the code of an answer whose handler said nothing.
//
//	Retain   success, invalid argument: an answer to this payload
//	Release  what another call with the same payload may well get over
//	Hold     the rest: they travel up from the handler's own calls, or come after the work; and numbers that
//	         are no codes
func Classify(code uint32) idemflight.Disposition {
	switch code {
	case success, invalidArgument:
		return idemflight.Retain
	case notFound, alreadyExists, permissionDenied, failedPrecondition, aborted, outOfRange, unimplemented, unauthenticated:
		return idemflight.Release
	}
	return idemflight.Hold
}

// ClassifyError judges an error of fn that called a service with keys. It is idemflight.ClassifyLenient, but for
// what an interceptor of such a service says itself. reasonOf returns the reason of the ErrorInfo with [Domain]
// in err, "" if it has none, and reports whether err itself, not what it wraps, is a status.
func ClassifyError(err error, reasonOf func(error) (reason string, isStatus bool)) idemflight.Disposition {
	w := walk{reasonOf: reasonOf, left: 1000}
	return w.classify(err)
}

// walk goes through what an error wraps, and does not go on forever in one that wraps itself: it holds that, as
// idemflight.ClassifyLenient does.
type walk struct {
	reasonOf func(error) (reason string, isStatus bool)
	left     int
}

func (w *walk) classify(err error) idemflight.Disposition {
	for inside := err; inside != nil; {
		if w.left--; w.left < 0 {
			return idemflight.Hold
		}
		if reason, isStatus := w.reasonOf(inside); isStatus {
			if d, known := dispositions[reason]; known {
				return d
			}
			break
		}
		// First: many have an Unwrap beside it, which shows the last error only, or a chain that hides the others.
		if e, ok := inside.(interface{ WrappedErrors() []error }); ok {
			if parts := e.WrappedErrors(); slices.ContainsFunc(parts, isError) {
				return w.classifyJoined(parts)
			}
		}
		switch e := inside.(type) {
		case interface{ Unwrap() error }:
			inside = e.Unwrap()
		case interface{ Unwrap() []error }:
			return w.classifyJoined(e.Unwrap())
		default:
			inside = nil
		}
	}
	return idemflight.ClassifyLenient(err)
}

func isError(err error) bool { return err != nil }

func (w *walk) classifyJoined(errs []error) idemflight.Disposition {
	d := idemflight.Release
	for _, err := range errs {
		if err != nil {
			d = max(d, w.classify(err))
		}
	}
	return d
}

// dispositions are what a problem says of the operation. Those of the problems that are not here go by their code.
var dispositions = map[string]idemflight.Disposition{
	unknown.Reason:           idemflight.Hold,
	answerUnavailable.Reason: idemflight.Hold,
	inFlight.Reason:          idemflight.Hold,
	full.Reason:              idemflight.Release,
	closed.Reason:            idemflight.Release,
	store.Reason:             idemflight.Release,
}
