package idemgrpc

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/idemflight/idemflight"
)

// Response is the answer of a handler as it is remembered. It is shared by all who get it: treat it as
// immutable. What a Reconcile returns is replayed in the same way.
type Response struct {
	Message         proto.Message  // nil beside a Status other than OK
	Status          *status.Status // nil: OK
	Header, Trailer metadata.MD
}

// ClassifyStatus is the Options.Classify if none is given.
//
//	Retain   OK, InvalidArgument: an answer to this payload
//	Hold     Canceled, Unknown, DeadlineExceeded, ResourceExhausted, Internal, Unavailable, DataLoss:
//	         they travel up from the handler's own calls, or come after the work
//	Release  the rest: another call with the same payload may well get over them
func ClassifyStatus(s *status.Status) idemflight.Disposition {
	switch s.Code() {
	case codes.OK, codes.InvalidArgument:
		return idemflight.Retain
	case codes.NotFound, codes.AlreadyExists, codes.PermissionDenied, codes.FailedPrecondition, codes.Aborted,
		codes.OutOfRange, codes.Unimplemented, codes.Unauthenticated:
		return idemflight.Release
	}
	return idemflight.Hold // numbers that gRPC does not have among them
}

// answer answers a call that did not execute.
func (i *Interceptor) answer(ctx context.Context, res idemflight.Result[*Response], err error) (any, error) {
	resp := res.Value
	switch {
	case res.Source == idemflight.NoOutcome:
		return nil, i.problemOf(ctx, err).err()
	case res.Source == idemflight.Joined && isAnswer(err, idemflight.ErrOutcomeUnknown): // the flight left the key held
		return nil, i.unknown().err()
	case resp == nil && res.ExpiresAt.IsZero(): // a panic, say, and released
		return nil, problemFailed.err()
	case resp == nil || resp.Message == nil && resp.Status.Code() == codes.OK:
		return nil, problemUnavailable.err()
	}
	header, trailer := replayed(resp.Header), replayed(resp.Trailer)
	trailer.Set(ReplayTrailer, "true")
	send(ctx, header, trailer)
	if resp.Status.Code() != codes.OK {
		return nil, resp.Status.Err()
	}
	return proto.Clone(resp.Message), nil
}

// send gives the call header and trailer to be sent with its answer. It fails only for a call that is answered
// already, or is none of a gRPC server.
func send(ctx context.Context, header, trailer metadata.MD) {
	_ = grpc.SetHeader(ctx, header)
	_ = grpc.SetTrailer(ctx, trailer)
}

// neverReplayed is the metadata that belongs to one exchange: credentials and challenges, the time, limits
// and tracing of that call, and when to retry it.
var neverReplayed = map[string]bool{
	"set-cookie":             true,
	"www-authenticate":       true,
	"proxy-authenticate":     true,
	"date":                   true,
	"age":                    true,
	"server-timing":          true,
	"ratelimit":              true,
	"retry-after":            true,
	"grpc-retry-pushback-ms": true,
	"x-request-id":           true,
	"x-correlation-id":       true,
	"traceparent":            true,
	"tracestate":             true,
	"baggage":                true,
	"grpc-trace-bin":         true,
	"via":                    true,
	"cf-ray":                 true,
	ReplayTrailer:            true,
}

// replayed returns a copy of recorded metadata, without what belongs to the first call alone.
func replayed(md metadata.MD) metadata.MD {
	md = md.Copy()
	maps.DeleteFunc(md, func(name string, _ []string) bool {
		name = strings.ToLower(name)
		return neverReplayed[name] || strings.HasPrefix(name, "ratelimit-") || strings.HasPrefix(name, "x-ratelimit-")
	})
	return md
}

// recorder is the stream of an executing handler: it keeps header and trailer until the answer is there.
type recorder struct {
	method string

	// mu guards what follows: a handler may leave goroutines behind.
	mu              sync.Mutex
	header, trailer metadata.MD
	sent, over      bool
}

var errTooLate = errors.New("idemgrpc: metadata that comes too late: it has been sent, or the handler has returned")

// Method returns the full name of the method.
func (r *recorder) Method() string { return r.method }

// SetHeader adds to the header.
func (r *recorder) SetHeader(md metadata.MD) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sent || r.over {
		return errTooLate
	}
	r.header = metadata.Join(r.header, md)
	return nil
}

// SendHeader adds to the header, which nothing can be added to afterwards. It is sent with the answer: before
// that nobody knows whether this will be the answer.
func (r *recorder) SendHeader(md metadata.MD) error {
	err := r.SetHeader(md)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = true
	return err
}

// SetTrailer adds to the trailer.
func (r *recorder) SetTrailer(md metadata.MD) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return errTooLate
	}
	r.trailer = metadata.Join(r.trailer, md)
	return nil
}

// finish ends the recording, and returns what was recorded, which does not change any more.
func (r *recorder) finish() (header, trailer metadata.MD) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.over = true
		delete(r.header, ReplayTrailer) // passed on from a service that the handler called, say
		delete(r.trailer, ReplayTrailer)
	}
	return r.header, r.trailer
}
