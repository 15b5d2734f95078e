package idemhttp

import (
	"fmt"
	"net/http"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/verdict"
)

// Response is the answer of a handler as it is remembered. Everyone who gets it shares it: treat it
// as immutable. Names in Header and Trailer are canonical. A name without values in Header stands
// for a header that must be absent: one that outer middleware sets and the handler removed, or a
// Content-Type that the first client did not see.
type Response struct {
	Status          int // 0 counts as 200
	Header, Trailer http.Header
	Body            []byte
	BodyOmitted     bool // the body was larger than MaxResponseBytes and is not remembered
}

// ClassifyStatus is what Options.Classify is by default.
//
//	Retain   2xx, 3xx and 4xx, except those below: real answers
//	Release  307 308, 401 403 404 405 406 407 409 412 415 417 421 423 424 425 426 428 429 431,
//	         501 505: another request with the same payload may well get over them
//	Hold     the rest, among them 408 499 500 502 503 504 and 1xx: http.TimeoutHandler, gateways and
//	         handlers that failed half-way may send them after the effect, too
//
// Release and Hold count if the handler said nothing about its effect.
func ClassifyStatus(r *Response) idemflight.Disposition {
	switch r.Status {
	case http.StatusRequestTimeout, 499: // a client that closed its request, as gateways have it
		return idemflight.Hold
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect,
		http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
		http.StatusNotAcceptable, http.StatusProxyAuthRequired, http.StatusConflict,
		http.StatusPreconditionFailed, http.StatusUnsupportedMediaType, http.StatusExpectationFailed,
		http.StatusMisdirectedRequest, http.StatusLocked, http.StatusFailedDependency,
		http.StatusTooEarly, http.StatusUpgradeRequired, http.StatusPreconditionRequired,
		http.StatusTooManyRequests, http.StatusRequestHeaderFieldsTooLarge,
		http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return idemflight.Release
	}
	if r.Status >= 200 && r.Status <= 499 {
		return idemflight.Retain
	}
	return idemflight.Hold
}

// statusError is an answer that is not stored, as callers and the cache's Reconcile see it.
type statusError struct{ status int }

func (e *statusError) Error() string {
	return fmt.Sprintf("idemhttp: the handler answered %d, which is not stored", e.status)
}

// StatusCode is the status of the answer, for a Reconcile that looks at what left the key held.
func (e *statusError) StatusCode() int { return e.status }

// outcome returns what the handler's answer is to the cache. Its error bears no marker: what the
// handler said about its effect comes before the verdict in it.
func (m *Middleware) outcome(resp *Response) (*Response, error) {
	disposition, err := m.classify(resp)
	if disposition == idemflight.Retain && err == nil {
		return resp, nil
	}
	hold := disposition != idemflight.Release
	if err != nil {
		return resp, &verdict.Error{Err: err, Hold: hold}
	}
	both := new(struct { // in one allocation
		verdict.Error
		statusError
	})
	both.status = resp.Status
	both.Err, both.Hold = &both.statusError, hold
	return resp, &both.Error
}

// classify asks Options.Classify. If that panics, the answer is there all the same, and its client
// gets it; but whether to run again is not known.
func (m *Middleware) classify(resp *Response) (d idemflight.Disposition, err error) {
	defer func() {
		if v := recover(); v != nil {
			d, err = idemflight.Hold, fmt.Errorf("idemhttp: Options.Classify panicked: %v", v)
		}
	}()
	return m.opts.Classify(resp), nil
}
