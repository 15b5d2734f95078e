package idemconnect

import (
	"context"
	"fmt"

	"connectrpc.com/connect/v2"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/rpc"
)

// ClientOptions configures [Client]. The zero value sends the keys of [WithKey].
type ClientOptions struct {
	// MetadataKey is the request header that the key is sent in, in whatever case. "" = "idempotency-key".
	MetadataKey string

	// Generate makes the key of a call that has none, such as idemflight.NewID does; "" = none. It is asked
	// once per call that comes to the interceptor: what retries above it would get a key per attempt, which
	// protects nothing. It must be safe for concurrent use. nil = calls without a key stay without.
	Generate func(ctx context.Context, procedure string) string
}

// WithKey returns a context whose unary calls [Client] sends with key: raw, not quoted. The key belongs to
// the intent, so make it outside of the retry loop, and for one method. A server that is called in the same
// process does not inherit it for calls of its own.
func WithKey(ctx context.Context, key string) context.Context { return rpc.WithKey(ctx, key) }

// Client returns the client's side, for connect.NewClient: it sends each unary call with one key, but for methods
// with the option idempotency_level = NO_SIDE_EFFECTS, which take none. The key is the one that the request header
// of the call already has, else the one of the context ([WithKey]), else Generate's, else there is none. A key that
// is not valid is an error of CodeInvalidArgument, and nothing is sent. It panics if the MetadataKey cannot be one.
// Safe for concurrent use.
func Client(opts ClientOptions) connect.ClientInterceptor {
	name, why := rpc.MetadataKey(opts.MetadataKey)
	if why != "" {
		panic(fmt.Sprintf("idemconnect: ClientOptions.MetadataKey is %q: %s", opts.MetadataKey, why))
	}
	return func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			inner := rpc.WithoutKey(ctx)
			info, ok := connect.CallInfoForClientContext(ctx)
			if !ok || spec.StreamType != connect.StreamTypeUnary || spec.IdempotencyLevel == connect.IdempotencyNoSideEffects {
				return next(inner, spec)
			}
			header := info.RequestHeader()
			key, err := rpc.KeyToSend(ctx, header.Values(name), opts.generate(ctx, spec))
			if err != nil {
				return nil, connect.Errorf(connect.CodeInvalidArgument, "idemconnect: nothing was sent: %v", err)
			}
			if key == "" {
				return next(inner, spec)
			}
			header.Set(name, rpc.KeyValue(key))
			stream, err := next(inner, spec)
			if err != nil {
				header.Delete(name)
				return nil, err
			}
			return &keyed{ClientStream: stream, header: header, name: name}, nil
		}
	}
}

// generate returns what makes the key of a call, nil if nothing does.
func (o *ClientOptions) generate(ctx context.Context, spec connect.Spec) func() string {
	if o.Generate == nil {
		return nil
	}
	return func() string { return o.Generate(ctx, spec.Procedure) }
}

// keyed is the stream of a call to whose header a key was added. The header is its caller's, who may use it for
// another call (connect.NewClientContext): that one is another intent.
type keyed struct {
	connect.ClientStream
	header *connect.Header
	name   string
}

// Close ends the call, as that of a unary one always does.
func (s *keyed) Close() error {
	s.header.Delete(s.name)
	return s.ClientStream.Close()
}

// ClassifyError is an Options.Classify for a cache whose fn does one thing, and calls a Connect service for it. It
// is [idemflight.ClassifyLenient], which goes by the code, but that it reads what the interceptor of such a
// service says: OUTCOME_UNKNOWN, ANSWER_UNAVAILABLE and IN_FLIGHT are held, whatever their code, and FULL, CLOSED
// and STORE, which ran nothing, released.
//
// A client that retries returns the error of its last attempt, which says nothing about an earlier one. So let fn
// send the same key each time it runs: one made of its own key, not a new one.
func ClassifyError(err error) idemflight.Disposition { return rpc.ClassifyError(err, reasonOf) }
