package idemhttp

import (
	"fmt"
	"net/http"
	"time"

	"github.com/idemflight/idemflight"
)

// Response is the answer of a handler as it is remembered. It is shared by all who get it: treat it
// as immutable. Names in Header and Trailer are canonical. A name without values in Header stands
// for a header that must be absent: one that middleware outside sets and the handler removed, or a
// Content-Type that the first client did not see.
type Response struct {
	Status          int // 0 counts as 200
	Header, Trailer http.Header
	Body            []byte
	BodyOmitted     bool // the body was larger than MaxResponseBytes and is not remembered
}

// ClassifyStatus is the Options.Classify if none is given. It retains what is a real answer: 2xx,
// 3xx, and 4xx but for those that a later request with the same payload may well get over: 401,
// 403, 404, 405, 407, 408, 409, 421, 423, 425, 429. These, 1xx, 5xx and anything above are
// released.
func ClassifyStatus(r *Response) idemflight.Disposition {
	switch r.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
		http.StatusMethodNotAllowed, http.StatusProxyAuthRequired, http.StatusRequestTimeout,
		http.StatusConflict, http.StatusMisdirectedRequest, http.StatusLocked, http.StatusTooEarly,
		http.StatusTooManyRequests:
		return idemflight.Release
	}
	if r.Status >= 200 && r.Status <= 499 {
		return idemflight.Retain
	}
	return idemflight.Release
}

// statusError is an answer that is not to be stored, as the cache sees it. It bears no marker, so
// that what the handler said about its effect, or the cache's own Classify, decides.
type statusError struct{ status int }

func (e *statusError) Error() string {
	return fmt.Sprintf("idemhttp: the handler answered %d, which is not stored", e.status)
}

// StatusCode is the status of the answer, for a Classify of the cache.
func (e *statusError) StatusCode() int { return e.status }

// outcome returns what the handler's answer is to the cache.
func (m *Middleware) outcome(resp *Response) (*Response, error) {
	disposition, err := m.classify(resp)
	if err != nil {
		return resp, idemflight.Unknown(err)
	}
	switch disposition {
	case idemflight.Retain:
		return resp, nil
	case idemflight.Release:
		return resp, &statusError{resp.Status}
	default:
		return resp, idemflight.Unknown(&statusError{resp.Status})
	}
}

// classify asks Options.Classify. If that panics, the answer is there all the same, and its client
// gets it; but whether to run again is not known.
func (m *Middleware) classify(resp *Response) (d idemflight.Disposition, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("idemhttp: Options.Classify panicked: %v", v)
		}
	}()
	return m.opts.Classify(resp), nil
}

// DefaultCacheOptions returns the options of the cache that New makes if none is given: outcomes
// for 24 hours, 1,048,576 keys, 256 MiB of answers, the last hour protected. Change what you need
// and give MustNew the rest. The arithmetic:
//
//   - Rate. 1,048,576 keys in 24 hours are 12 new keys a second. Above that, answers older than an
//     hour are evicted, least recently used first, and 291 new keys a second fill the place within
//     the protected hour: from then on new keys get 503 (Full) until some of them are an hour old.
//   - Bodies. 256 MiB over 1,048,576 keys are 256 bytes each; with answers of 1 KiB bodies begin to
//     be shed, least recently used first, at 262,144 keys: three a second over 24 hours. A shed key
//     answers 409 and still does not run.
//   - Memory. A key costs about a quarter KiB beside what is weighed, and another half KiB (header
//     map and Response) as long as its answer is not shed: a full cache of 1 KiB answers has
//     262,144 of these at 1.75 KiB and 786,432 shed ones at a quarter KiB, 0.6 GiB in all; one of tiny
//     answers is at most 1 GiB. On top, each request in progress holds its body
//     (MaxRequestBytes), and one that executes its answer (MaxResponseBytes): 1,000 of the largest
//     size are 2 GiB. Waiting duplicates are requests in progress: MaxWaiters bounds them per key.
//   - One scope against another. Places and weight are shared. A client that sends 291 new keys a
//     second locks the others out in an hour, but never makes anything run twice within MinRetention; one
//     whose answers have 1 MiB sheds everybody's bodies with 256 requests. So put a rate limit per
//     scope in front of the middleware (a limit of 10 a second is 36,000 keys in the protected
//     hour, 3% of the places), and a cache of its own behind routes with large answers.
//
// Held keys and requests in flight are never evicted.
func DefaultCacheOptions() idemflight.Options[idemflight.Key, *Response] {
	return idemflight.Options[idemflight.Key, *Response]{
		TTL:          24 * time.Hour,
		MaxEntries:   1 << 20,
		MinRetention: time.Hour,
		MaxWeight:    256 << 20,
		Weigh:        weigh,
	}
}

// weigh counts the bytes of an answer and of its key.
func weigh(key idemflight.Key, r *Response) int64 {
	n := len(key.Scope) + len(key.ID)
	if r == nil {
		return int64(n)
	}
	n += len(r.Body)
	for _, h := range []http.Header{r.Header, r.Trailer} {
		for name, values := range h {
			n += len(name)
			for _, v := range values {
				n += len(v)
			}
		}
	}
	return int64(n)
}
