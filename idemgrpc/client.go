package idemgrpc

import (
	"context"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/rpc"
)

// ClientOptions configures [UnaryClient]. The zero value sends the keys of [WithKey].
type ClientOptions struct {
	// MetadataKey is where the key is sent, in whatever case. "" = "idempotency-key".
	MetadataKey string

	// Generate makes the key of a call that has none, such as idemflight.NewID does; "" = none. It is asked
	// once per call that comes to the interceptor: gRPC's own retries are below and send the same key. An
	// interceptor that retries must be below, too; above, each of its attempts would get a key of its own,
	// which protects nothing. It must be safe for concurrent use. nil = calls without a key stay without.
	Generate func(ctx context.Context, fullMethod string) string
}

// WithKey returns a context whose unary calls [UnaryClient] sends with key: raw, not quoted. The key belongs to
// the intent, so make it outside of the retry loop, and for one method.
func WithKey(ctx context.Context, key string) context.Context {
	return rpc.WithKey(ctx, key)
}

// UnaryClient returns the client's side, for grpc.WithChainUnaryInterceptor: it sends each call with one key,
// over gRPC's own retries. The key is the one that the outgoing metadata already has, else the one of the
// context ([WithKey]), else Generate's, else there is none. A key that is not valid is an error of code
// InvalidArgument, and nothing is sent. It panics if the MetadataKey cannot be one. Safe for concurrent use.
func UnaryClient(opts ClientOptions) grpc.UnaryClientInterceptor {
	name, why := rpc.MetadataKey(opts.MetadataKey)
	if why != "" {
		panic(fmt.Sprintf("idemgrpc: ClientOptions.MetadataKey is %q: %s", opts.MetadataKey, why))
	}
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, callOpts ...grpc.CallOption) error {
		key, err := opts.key(ctx, name, method)
		if err != nil {
			return status.Errorf(codes.InvalidArgument, "idemgrpc: nothing was sent: %v", err)
		}
		if key != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, name, rpc.KeyValue(key))
		}
		return invoker(ctx, method, req, reply, cc, callOpts...)
	}
}

// key returns the key that has to be added to a call; "" is none.
func (o *ClientOptions) key(ctx context.Context, name, method string) (string, error) {
	var generate func() string
	if o.Generate != nil {
		generate = func() string { return o.Generate(ctx, method) }
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	return rpc.KeyToSend(ctx, md.Get(name), generate)
}

// ClassifyError is an Options.Classify for a cache whose fn does one thing, and calls a gRPC service for it. It
// is [idemflight.ClassifyLenient], which goes by the code, but that it reads what the interceptor of such a
// service says: OUTCOME_UNKNOWN, ANSWER_UNAVAILABLE and IN_FLIGHT are held, whatever their code, and FULL, CLOSED
// and STORE, which ran nothing, released.
//
// A client that retries, by retryPolicy too, returns the error of its last attempt, which says nothing about an
// earlier one. So let fn send the same key each time it runs: one made of its own key, not a new one.
func ClassifyError(err error) idemflight.Disposition {
	return rpc.ClassifyError(err, reasonOf)
}

// reasonOf returns the reason of a status of the interceptor's own, and whether err is a status at all.
func reasonOf(err error) (reason string, is bool) {
	e, is := err.(interface{ GRPCStatus() *status.Status })
	if !is {
		return "", false
	}
	for _, detail := range e.GRPCStatus().Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == Domain {
			return info.GetReason(), true
		}
	}
	return "", true
}
