package rpc

import (
	"context"
	"errors"
	"time"

	"github.com/idemflight/idemflight"
)

// Domain is that of the ErrorInfo in every status that an interceptor answers itself.
const Domain = "idemflight"

// Problem is an answer of an interceptor itself. It never tells a client anything of another's call.
type Problem struct {
	Code   uint32
	Reason string        // of the ErrorInfo
	Text   string        // of the status, see Message
	Retry  time.Duration // of the RetryInfo; 0: to send the same call again does not help
}

// Message returns the text of the status.
func (p *Problem) Message() string { return Domain + ": " + p.Text }

// Flights last seconds; room and a restarted server take longer.
const retrySoon, retryLater = time.Second, 10 * time.Second

// The problems of a call before it comes to the cache.
var (
	MissingKey = Problem{invalidArgument, "MISSING_KEY",
		"this method requires an idempotency key: make one per operation, and send it with every attempt", 0}
	Streaming = Problem{invalidArgument, "STREAMING",
		"a stream cannot be replayed, so it takes no idempotency key", 0}
	RequestTooLarge = Problem{invalidArgument, "REQUEST_TOO_LARGE",
		"a request with an idempotency key must be smaller: the operation was not run", 0}
	Unsupported = Problem{unimplemented, "UNSUPPORTED",
		"the messages of this method are not protobuf, so it takes no idempotency key", 0}
	malformedKey = Problem{invalidArgument, "MALFORMED_KEY", "idempotency key malformed", 0}
	scope        = Problem{unauthenticated, "SCOPE",
		"it could not be determined whose idempotency key this is, so the operation was not run", 0}
)

// The problems of a call that the cache has no answer for.
var (
	keyReused = Problem{invalidArgument, "KEY_REUSED",
		"idempotency key already used with a different request payload", 0}
	inFlight = Problem{unavailable, "IN_FLIGHT",
		"the first call with this idempotency key is still being processed: send the same call with the same key again later", retrySoon}
	unknown = Problem{failedPrecondition, "OUTCOME_UNKNOWN",
		"outcome unknown: the operation may or may not have taken place, and is not run again; find out before sending it with a new key", 0}
	askAgain = Problem{unavailable, "OUTCOME_UNKNOWN",
		"outcome unknown: the operation may or may not have taken place; send the same call with the same key again later: the server finds out", retrySoon}
	answerUnavailable = Problem{failedPrecondition, "ANSWER_UNAVAILABLE",
		"answer no longer available: the operation is done, and is not run again, but its answer was not kept", 0}
	full = Problem{unavailable, "FULL",
		"no room for a new idempotency key now, so the operation was not run: send the same call with the same key again later", retryLater}
	closed = Problem{unavailable, "CLOSED",
		"the server is about to stop, so the operation was not run: send the same call with the same key again later", retryLater}
	store = Problem{unavailable, "STORE",
		"whether this idempotency key was used before could not be determined, so the operation was not run: send the same call with the same key again later", retryLater}
	left = Problem{canceled, "LEFT",
		"the call ended before the answer was there: send the same call with the same key again", 0}
	failed = Problem{unavailable, "FAILED",
		"the call with this idempotency key ended without an answer, and nothing was kept: send the same call with the same key again", retrySoon}
)

// answers of the cache, and the problem that each is.
var answers = []struct {
	err error
	*Problem
}{
	{idemflight.ErrKeyReused, &keyReused},
	{idemflight.ErrInFlight, &inFlight},
	{idemflight.ErrOutcomeUnknown, &unknown},
	{idemflight.ErrValueShed, &answerUnavailable},
	{idemflight.ErrFull, &full},
	{idemflight.ErrClosed, &closed},
	{idemflight.ErrStore, &store},
	{idemflight.ErrCallerLeft, &left},
}

// BadKey returns the problem of a call for whose key ParseKey returned err.
func BadKey(err error) Problem {
	if err == ErrKeyMissing {
		return MissingKey
	}
	p := malformedKey
	p.Text += ": " + err.Error()
	return p
}

// BadScope returns the problem of a call for which Scope failed; code is that of its error, 0 if it has none.
func BadScope(code uint32) Problem {
	p := scope
	if code != success {
		p.Code = code
	}
	if p.Code == unavailable || p.Code == resourceExhausted {
		p.Retry = retryLater
	}
	return p
}

// Answers are those of a cache to calls that do not execute. R is a pointer to what is recorded.
type Answers[R comparable] struct {
	Reconciles bool         // the cache has a Reconcile: to send a call of a held key again makes it find out
	CanSend    func(R) bool // there is an answer in what was recorded, which is not nil
}

// Problem returns what is to be answered instead of res.Value, or nil if that can be replayed.
func (a Answers[R]) Problem(ctx context.Context, res idemflight.Result[R], err error) *Problem {
	var none R
	switch {
	case res.Source == idemflight.NoOutcome:
		return a.withoutOutcome(ctx, err)
	case res.Source == idemflight.Joined && IsAnswer(err, idemflight.ErrOutcomeUnknown): // the flight left the key held
		return a.unknown()
	case res.Value == none && res.ExpiresAt.IsZero(): // a panic, say, and released
		return &failed
	case res.Value == none || !a.CanSend(res.Value):
		return &answerUnavailable
	}
	return nil
}

// withoutOutcome is the problem of a call that got no outcome. The cache's answer is the outermost in err:
// what it wraps may be the answer of another call.
func (a Answers[R]) withoutOutcome(ctx context.Context, err error) *Problem {
	for ; err != nil; err = errors.Unwrap(err) {
		for _, answer := range answers {
			if !IsAnswer(err, answer.err) {
				continue
			}
			switch answer.Problem {
			case &unknown:
				return a.unknown()
			case &left:
				return leftBy(ctx)
			}
			return answer.Problem
		}
	}
	return &failed
}

// unknown is the problem of a held key.
func (a Answers[R]) unknown() *Problem {
	if a.Reconciles {
		return &askAgain
	}
	return &unknown
}

// leftBy is the problem of a call whose context ended.
func leftBy(ctx context.Context) *Problem {
	p := left
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		p.Code = deadlineExceeded
	}
	return &p
}

// IsAnswer reports whether err is the answer of the cache called sentinel. Unlike errors.Is it does not look
// at the cause within: an outcome that is unknown may be so because of such an answer of another call, and
// is still unknown.
func IsAnswer(err, sentinel error) bool {
	if err == sentinel {
		return true
	}
	e, ok := err.(interface{ Is(error) bool })
	return ok && e.Is(sentinel)
}
