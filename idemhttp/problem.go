package idemhttp

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/idemflight/idemflight"
)

// Problem is an answer of the middleware itself: what RFC 9457 calls a problem, and its cause,
// which is for the server. It never tells a client anything about another client's request.
type Problem struct {
	Status    int
	Type      string // a URI for each kind of problem: see the package documentation
	Title     string // of the kind
	Detail    string // for the client's developer: what to do
	Retryable bool   // the same request with the same key, sent again later, can succeed
	Err       error  // the cause, not for the client: wraps a sentinel of package idemflight, or is what Scope or Key returned
}

// problemBase precedes the names of the kinds: the page there has a section about each.
const problemBase = "https://github.com/idemflight/idemflight/blob/main/docs/http.md#problem-"

// kind is what problems of one type have in common.
type kind struct {
	id                  kindID
	name, title, detail string
	status              int
	retryAfter          int // seconds; 0: not retryable
}

// Flights last seconds; room and a restarted server take longer.
const retrySoon, retryLater = 1, 10

// kindID numbers the kinds, for their counters.
type kindID int

const (
	idMissingKey kindID = iota
	idMalformedKey
	idScope
	idUnreadableBody
	idBodyTooLarge
	idKeyReused
	idInFlight
	idOutcomeUnknown
	idUnavailable
	idUnrecorded
	idFull
	idClosed
	idStore
	idLeft
	idFailed
	kinds // how many there are
)

var (
	problemMissingKey = kind{idMissingKey, "missing-key", "Idempotency key missing",
		"This operation requires an idempotency key: make one per operation, and send it with every attempt.", 400, 0}
	problemMalformedKey = kind{idMalformedKey, "malformed-key", "Idempotency key malformed",
		"An idempotency key has 1 to 255 bytes of visible ASCII; in a header it comes in one line, raw or as a quoted string without parameters.", 400, 0}
	problemScope = kind{idScope, "scope", "Client not identified",
		"It could not be determined whose idempotency key this is, so the operation was not run.", 401, 0}
	problemUnreadableBody = kind{idUnreadableBody, "unreadable-body", "Request body unreadable",
		"The request body ended early or could not be read, so the operation was not run.", 400, 0}
	problemBodyTooLarge = kind{idBodyTooLarge, "body-too-large", "Request body too large",
		"A request with an idempotency key must have a smaller body. The operation was not run.", 413, 0}
	problemKeyReused = kind{idKeyReused, "key-reused", "Idempotency key reused",
		"Idempotency key already used with a different request payload", 422, 0}
	problemInFlight = kind{idInFlight, "in-flight", "Request in flight",
		"The first request with this idempotency key is still being processed. Send the same request with the same key again later.", 409, retrySoon}
	problemOutcomeUnknown = kind{idOutcomeUnknown, "outcome-unknown", "Outcome unknown",
		"outcome unknown: the operation may or may not have taken place, and is not run again. Find out before sending it with a new key.", 409, 0}
	problemUnavailable = kind{idUnavailable, "answer-unavailable", "Answer no longer available",
		"answer no longer available: the operation is done, and is not run again, but its answer was not kept.", 409, 0}
	problemUnrecorded = kind{idUnrecorded, "answer-unrecorded", "Answer not recorded",
		"The request that this one waited for has got an answer that was too large to share. Send the same request with the same key again.", 409, retrySoon}
	problemFull = kind{idFull, "full", "Too many idempotency keys",
		"There is no room for a new idempotency key now, so the operation was not run. Send the same request with the same key again later.", 503, retryLater}
	problemClosed = kind{idClosed, "closed", "Shutting down",
		"The server is about to stop, so the operation was not run. Send the same request with the same key again later.", 503, retryLater}
	problemStore = kind{idStore, "store", "Store unavailable",
		"Whether this idempotency key was used before could not be determined, so the operation was not run. Send the same request with the same key again later.", 503, retryLater}
	problemLeft = kind{idLeft, "left", "Waiting ended",
		"The request ended before the answer was there. Send the same request with the same key again.", 503, retrySoon}
	problemFailed = kind{idFailed, "failed", "No answer",
		"The request with this idempotency key ended without an answer.", 500, 0}
)

// What differs from case to case within a kind.
const (
	detailKeyFailed = "The idempotency key of this request could not be determined, so the operation was not run."
	detailAskAgain  = "outcome unknown: the operation may or may not have taken place. Send the same request with the same key again later: the server finds out."
)

// answers of the cache, and the kind of problem that each is.
var answers = []struct {
	err error
	*kind
}{
	{idemflight.ErrKeyReused, &problemKeyReused},
	{idemflight.ErrInFlight, &problemInFlight},
	{idemflight.ErrOutcomeUnknown, &problemOutcomeUnknown},
	{idemflight.ErrValueShed, &problemUnavailable},
	{idemflight.ErrFull, &problemFull},
	{idemflight.ErrClosed, &problemClosed},
	{idemflight.ErrStore, &problemStore},
	{idemflight.ErrCallerLeft, &problemLeft},
}

// kindOf returns the kind of problem of a call that got no outcome. The cache's answer is the
// outermost in err: what it wraps may be the answer of another call.
func (m *Middleware) kindOf(err error) kind {
	for ; err != nil; err = unwrapped(err) {
		for _, answer := range answers {
			if !isAnswer(err, answer.err) {
				continue
			}
			switch k := *answer.kind; k.id {
			case idKeyReused:
				k.status = m.opts.KeyReusedStatus
				return k
			case idOutcomeUnknown:
				return m.unknown()
			default:
				return k
			}
		}
	}
	return problemFailed
}

func unwrapped(err error) error {
	if e, ok := err.(interface{ Unwrap() error }); ok {
		return e.Unwrap()
	}
	return nil
}

// unknown is the problem of a held key. If the cache can find out, to send the request again
// makes it ask again.
func (m *Middleware) unknown() kind {
	k := problemOutcomeUnknown
	if m.reconciles {
		k.detail, k.retryAfter = detailAskAgain, retrySoon
	}
	return k
}

// isAnswer reports whether err is the answer of the cache called sentinel. Unlike errors.Is it does
// not look at the cause within: an outcome that is unknown may be so because of such an answer of
// another call, and is still unknown.
func isAnswer(err, sentinel error) bool {
	if err == sentinel {
		return true
	}
	e, ok := err.(interface{ Is(error) bool })
	return ok && e.Is(sentinel)
}

// refused returns k as the problem of a request for which Scope or Key returned err: with the
// status that err carries, otherwise that of k.
func (k kind) refused(err error) kind {
	k.status = statusOf(err, k.status)
	if k.status == http.StatusTooManyRequests || k.status >= 500 {
		k.retryAfter = retryLater
	}
	return k
}

// problem answers with a problem of kind k.
func (m *Middleware) problem(w http.ResponseWriter, r *http.Request, k kind, err error) {
	m.problems[k.id].Add(1)
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

// WriteProblem answers with p as problem+json (RFC 9457) with the member "retryable". The
// middleware does so if there is no Options.Problem; an Options.Problem that changes or
// adds something may call it. Headers that are set already stay, among them Retry-After
// and Cache-Control, except that Retry-After is set or removed if p.Retryable was
// changed. p.Err is not sent.
func WriteProblem(w http.ResponseWriter, _ *http.Request, p Problem) {
	body, _ := json.Marshal(struct { // of strings, a number and a bool: cannot fail
		Type      string `json:"type"`
		Title     string `json:"title"`
		Status    int    `json:"status"`
		Detail    string `json:"detail"`
		Retryable bool   `json:"retryable"`
	}{p.Type, p.Title, p.Status, p.Detail, p.Retryable})
	h := w.Header()
	switch _, says := h["Retry-After"]; {
	case says && !p.Retryable:
		delete(h, "Retry-After")
	case !says && p.Retryable:
		h["Retry-After"] = []string{strconv.Itoa(retrySoon)}
	}
	h["Content-Type"] = []string{"application/problem+json"}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}
