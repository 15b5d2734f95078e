package idemgrpc

import (
	"context"
	"errors"
	"maps"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/rpc"
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
	return rpc.Classify(uint32(s.Code()))
}

// complete reports whether there is something to send in r.
func (r *Response) complete() bool { return r.Message != nil || r.Status.Code() != codes.OK }

// answer answers a call that did not execute.
func (i *Interceptor) answer(ctx context.Context, res idemflight.Result[*Response], err error) (any, error) {
	if p := i.answers.Problem(ctx, res, err); p != nil {
		return nil, problem(*p)
	}
	resp := res.Value
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

// replayed returns a copy of recorded metadata, without what belongs to the first call alone.
func replayed(md metadata.MD) metadata.MD {
	md = md.Copy()
	maps.DeleteFunc(md, func(name string, _ []string) bool {
		return !rpc.Replays(name)
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
