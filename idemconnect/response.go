package idemconnect

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"os"
	"slices"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/rpc"
)

// Response is the answer of a handler as it is remembered. It is shared by all who get it: treat it as
// immutable. What a Reconcile returns is replayed in the same way.
type Response struct {
	Message         proto.Message  // nil beside an Err
	Err             *connect.Error // nil: none. As clients see it: without cause
	Header, Trailer http.Header    // what the handler has set
}

// complete reports whether there is something to send in r.
func (r *Response) complete() bool { return r.Message != nil || r.Err != nil }

// ClassifyCode is the Options.Classify if none is given. It goes by the code:
//
//	Retain   CodeInvalidArgument: an answer to this payload
//	Hold     CodeCanceled, CodeUnknown, CodeDeadlineExceeded, CodeResourceExhausted, CodeInternal,
//	         CodeUnavailable, CodeDataLoss: they travel up from the handler's own calls, or come after the
//	         work
//	Release  the rest: another call with the same payload may well get over them
func ClassifyCode(err *connect.Error) idemflight.Disposition { return rpc.Classify(uint32(err.Code())) }

// errorIn returns Connect's error in err, nil if there is none.
func errorIn(err error) *connect.Error {
	e, _ := errors.AsType[*connect.Error](err)
	return e
}

// asSent returns what a server sends for err: of an error that the handler has not made itself, by
// connect.NewError, the code at most.
func asSent(err error) *connect.Error {
	e := errorIn(err)
	switch {
	case e != nil && e.IsRemote():
		return connect.NewError(connect.CodeInternal, "")
	case e != nil:
		return authored(e)
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, "")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, "")
	}
	return connect.NewError(connect.CodeUnknown, "")
}

// authored returns a copy of what of e is sent, as an error of this server's own.
func authored(e *connect.Error) *connect.Error {
	own := connect.NewError(e.Code(), e.Message())
	for _, d := range e.Details() {
		detail := *d
		own = own.WithDetail(&detail)
	}
	return own
}

// copied returns a copy of h, whose values do not change with it.
func copied(h *connect.Header) http.Header {
	out := make(http.Header, h.Len())
	for name, values := range h.All() {
		out[name] = slices.Clone(values)
	}
	return out
}

// changed returns a copy of h without what is as it was before the handler ran: an interceptor outside has set it,
// for its own call.
func changed(h *connect.Header, before http.Header) http.Header {
	out := copied(h)
	maps.DeleteFunc(out, func(name string, values []string) bool {
		was, known := before[name]
		return known && slices.Equal(values, was)
	})
	return out
}

// replay sets in h what was recorded, without what belongs to the first call alone.
func replay(h *connect.Header, recorded http.Header) {
	for name, values := range recorded {
		if rpc.Replays(name) {
			h.SetValues(name, slices.Clone(values))
		}
	}
}
