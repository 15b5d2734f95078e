package idemgrpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/idemflight/idemflight"
)

// Domain is that of the ErrorInfo in every status that the interceptor answers itself.
const Domain = "idemflight"

// problem is an answer of the interceptor itself. It never tells a client anything of another's call.
type problem struct {
	code   codes.Code
	reason string // of the ErrorInfo
	text   string
	retry  time.Duration // of the RetryInfo; 0: to send the same call again does not help
}

// Flights last seconds; room and a restarted server take longer.
const retrySoon, retryLater = time.Second, 10 * time.Second

var (
	problemMissingKey = problem{codes.InvalidArgument, "MISSING_KEY",
		"this method requires an idempotency key: make one per operation, and send it with every attempt", 0}
	problemMalformedKey = problem{codes.InvalidArgument, "MALFORMED_KEY", "idempotency key malformed", 0}
	problemStreaming    = problem{codes.InvalidArgument, "STREAMING",
		"a stream cannot be replayed, so it takes no idempotency key", 0}
	problemRequestTooLarge = problem{codes.InvalidArgument, "REQUEST_TOO_LARGE",
		"a request with an idempotency key must be smaller: the operation was not run", 0}
	problemUnsupported = problem{codes.Unimplemented, "UNSUPPORTED",
		"the messages of this method are not protobuf, so it takes no idempotency key", 0}
	problemScope = problem{codes.Unauthenticated, "SCOPE",
		"it could not be determined whose idempotency key this is, so the operation was not run", 0}
	problemKeyReused = problem{codes.InvalidArgument, "KEY_REUSED",
		"idempotency key already used with a different request payload", 0}
	problemInFlight = problem{codes.Unavailable, "IN_FLIGHT",
		"the first call with this idempotency key is still being processed: send the same call with the same key again later", retrySoon}
	problemUnknown = problem{codes.FailedPrecondition, "OUTCOME_UNKNOWN",
		"outcome unknown: the operation may or may not have taken place, and is not run again; find out before sending it with a new key", 0}
	problemAskAgain = problem{codes.Unavailable, "OUTCOME_UNKNOWN",
		"outcome unknown: the operation may or may not have taken place; send the same call with the same key again later: the server finds out", retrySoon}
	problemUnavailable = problem{codes.FailedPrecondition, "ANSWER_UNAVAILABLE",
		"answer no longer available: the operation is done, and is not run again, but its answer was not kept", 0}
	problemFull = problem{codes.Unavailable, "FULL",
		"no room for a new idempotency key now, so the operation was not run: send the same call with the same key again later", retryLater}
	problemClosed = problem{codes.Unavailable, "CLOSED",
		"the server is about to stop, so the operation was not run: send the same call with the same key again later", retryLater}
	problemStore = problem{codes.Unavailable, "STORE",
		"whether this idempotency key was used before could not be determined, so the operation was not run: send the same call with the same key again later", retryLater}
	problemLeft = problem{codes.Canceled, "LEFT",
		"the call ended before the answer was there: send the same call with the same key again", 0}
	problemFailed = problem{codes.Unavailable, "FAILED",
		"the call with this idempotency key ended without an answer, and nothing was kept: send the same call with the same key again", retrySoon}
)

// answers of the cache, and the problem that each is.
var answers = []struct {
	err error
	*problem
}{
	{idemflight.ErrKeyReused, &problemKeyReused},
	{idemflight.ErrInFlight, &problemInFlight},
	{idemflight.ErrOutcomeUnknown, &problemUnknown},
	{idemflight.ErrValueShed, &problemUnavailable},
	{idemflight.ErrFull, &problemFull},
	{idemflight.ErrClosed, &problemClosed},
	{idemflight.ErrStore, &problemStore},
	{idemflight.ErrCallerLeft, &problemLeft},
}

// problemOf returns the problem of a call that got no outcome. The cache's answer is the outermost in err:
// what it wraps may be the answer of another call.
func (i *Interceptor) problemOf(ctx context.Context, err error) problem {
	for ; err != nil; err = errors.Unwrap(err) {
		for _, answer := range answers {
			if !isAnswer(err, answer.err) {
				continue
			}
			switch p := *answer.problem; p.reason {
			case problemUnknown.reason:
				return i.unknown()
			case problemLeft.reason:
				p.code = status.FromContextError(ctx.Err()).Code()
				return p
			default:
				return p
			}
		}
	}
	return problemFailed
}

// unknown is the problem of a held key. If the cache can find out, to send the call again makes it ask again.
func (i *Interceptor) unknown() problem {
	if i.reconciles {
		return problemAskAgain
	}
	return problemUnknown
}

// isAnswer reports whether err is the answer of the cache called sentinel. Unlike errors.Is it does not look
// at the cause within: an outcome that is unknown may be so because of such an answer of another call, and
// is still unknown.
func isAnswer(err, sentinel error) bool {
	if err == sentinel {
		return true
	}
	e, ok := err.(interface{ Is(error) bool })
	return ok && e.Is(sentinel)
}

// refused returns p as the problem of a call for which Scope returned err: with the code that err carries,
// otherwise that of p.
func (p problem) refused(err error) *problem {
	if s, ok := status.FromError(err); ok && s.Code() != codes.OK {
		p.code = s.Code()
	}
	if p.code == codes.Unavailable || p.code == codes.ResourceExhausted {
		p.retry = retryLater
	}
	return &p
}

// err returns p as the error that an interceptor returns. It has no header, so that retryPolicy may retry.
func (p problem) err() error {
	s := status.New(p.code, "idemflight: "+p.text)
	info := &errdetails.ErrorInfo{Reason: p.reason, Domain: Domain}
	detailed, err := s.WithDetails(info)
	if p.retry > 0 {
		detailed, err = s.WithDetails(info, &errdetails.RetryInfo{RetryDelay: durationpb.New(p.retry)})
	}
	if err != nil {
		return s.Err()
	}
	return detailed.Err()
}
