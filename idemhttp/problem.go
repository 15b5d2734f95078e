package idemhttp

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/idemflight/idemflight"
)

// Problem is an answer of the middleware itself: what RFC 9457 calls a problem, and for the server
// the cause. It never tells a client anything of another's request.
type Problem struct {
	Status    int
	Type      string // a URI for each kind of problem: see the package documentation
	Title     string // of the kind
	Detail    string // for the client's developer: what to do
	Retryable bool   // the same request with the same key, sent again later, can succeed
	Err       error  // the cause, not for the client: wraps the sentinel of package idemflight, or is Scope's own
}

// problemBase precedes the names of the kinds. It leads to a page that explains them.
const problemBase = "https://github.com/idemflight/idemflight#problem-"

// kind is what problems of one type have in common.
type kind struct {
	name, title, detail string
	status              int
	retryAfter          int // seconds; 0: not retryable
}

// Flights last seconds; room and a restarted server take longer.
const soon, later = 1, 10

var (
	missingKey = kind{"missing-key", "Idempotency key missing",
		"This operation requires an idempotency key: make one per operation, and send it in the header with every attempt.", 400, 0}
	malformedKey = kind{"malformed-key", "Idempotency key malformed",
		"An idempotency key has 1 to 255 bytes of visible ASCII, raw or as a quoted string without parameters, in one header line.", 400, 0}
	noScope = kind{"scope", "Client not identified",
		"It could not be determined whose idempotency key this is, so the operation was not run.", 401, 0}
	unreadableBody = kind{"unreadable-body", "Request body unreadable",
		"The request body ended early or could not be read, so the operation was not run.", 400, 0}
	bodyTooLarge = kind{"body-too-large", "Request body too large",
		"A request with an idempotency key must have a smaller body. The operation was not run.", 413, 0}
	keyReused = kind{"key-reused", "Idempotency key reused",
		"Idempotency key already used with a different request payload", 422, 0}
	inFlight = kind{"in-flight", "Request in flight",
		"The first request with this idempotency key is still being processed. Send the same request with the same key again later.", 409, soon}
	outcomeUnknown = kind{"outcome-unknown", "Outcome unknown",
		"outcome unknown: the operation may or may not have taken place, and is not run again. Find out before sending it with a new key.", 409, 0}
	unavailable = kind{"answer-unavailable", "Answer no longer available",
		"answer no longer available: the operation is done, and is not run again, but its answer was not kept.", 409, 0}
	unrecorded = kind{"answer-unrecorded", "Answer not recorded",
		"The request that this one waited for has got an answer that was too large to share. Send the same request with the same key again.", 409, soon}
	full = kind{"full", "Too many idempotency keys",
		"There is no room for a new idempotency key now, so the operation was not run. Send the same request with the same key again later.", 503, later}
	closed = kind{"closed", "Shutting down",
		"The server is about to stop, so the operation was not run. Send the same request with the same key again later.", 503, later}
	left = kind{"left", "Waiting ended",
		"The request ended before the answer was there. Send the same request with the same key again.", 503, soon}
	failed = kind{"failed", "No answer",
		"The request with this idempotency key ended without an answer.", 500, 0}
)

// kindOf returns the kind of problem of a call that got no outcome.
func kindOf(err error) kind {
	for _, k := range []struct {
		err error
		kind
	}{
		{idemflight.ErrKeyReused, keyReused},
		{idemflight.ErrInFlight, inFlight},
		{idemflight.ErrOutcomeUnknown, outcomeUnknown},
		{idemflight.ErrValueShed, unavailable},
		{idemflight.ErrFull, full},
		{idemflight.ErrClosed, closed},
		{idemflight.ErrCallerLeft, left},
	} {
		if means(err, k.err) {
			return k.kind
		}
	}
	return failed
}

// means reports whether err is the answer of the cache called sentinel. Unlike errors.Is it does
// not look at the cause within: an outcome that is unknown may be so because of such an answer of
// another call, and is still unknown.
func means(err, sentinel error) bool {
	if err == sentinel {
		return true
	}
	e, ok := err.(interface{ Is(error) bool })
	return ok && e.Is(sentinel)
}

// problem answers with a problem of kind k.
func (m *Middleware) problem(w http.ResponseWriter, r *http.Request, k kind, err error) {
	h := w.Header()
	deleteFold(h, m.opts.ReplayHeader)
	deleteFold(h, "Content-Length") // middleware outside may have set them, in whatever case
	deleteFold(h, "Cache-Control")
	deleteFold(h, "Retry-After")
	h["Cache-Control"] = []string{"no-store"}
	if k.retryAfter > 0 {
		h["Retry-After"] = []string{strconv.Itoa(k.retryAfter)}
	}
	m.opts.Problem(w, r, Problem{
		Status: k.status, Type: problemBase + k.name, Title: k.title, Detail: k.detail,
		Retryable: k.retryAfter > 0, Err: err,
	})
}

// writeProblem is the Options.Problem if none is given.
func writeProblem(w http.ResponseWriter, _ *http.Request, p Problem) {
	body, _ := json.Marshal(struct { // of strings, a number and a bool: cannot fail
		Type      string `json:"type"`
		Title     string `json:"title"`
		Status    int    `json:"status"`
		Detail    string `json:"detail"`
		Retryable bool   `json:"retryable"`
	}{p.Type, p.Title, p.Status, p.Detail, p.Retryable})
	w.Header()["Content-Type"] = []string{"application/problem+json"}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}
