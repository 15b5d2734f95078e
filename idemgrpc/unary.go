package idemgrpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/rpc"
)

// ReplayTrailer is "true" in the trailer of every answer of a handler that was not executed for this
// call, and of no other. It is no header, since a client that has got headers does not retry any more.
const ReplayTrailer = rpc.ReplayTrailer

// Unary returns the interceptor for grpc.ChainUnaryInterceptor. Authentication belongs outside of it, so
// that Scope finds the account; what is to see each execution, and not the replays, inside.
//
// The executing call runs the handler on its own goroutine. The context that the handler gets has the
// values of the call's, but neither its cancellation nor its deadline: it ends at the cache's ExecTimeout
// and when the handler returns, so that a client that gives up neither stops the work nor loses its
// answer. GracefulStop waits for it all the same. It is the context for [idemflight.BeginEffect] and
// [idemflight.NoEffect].
func (i *Interceptor) Unary() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		values := md[i.opts.MetadataKey]
		if len(values) == 0 && !i.opts.Require || !i.covers(info.FullMethod) {
			return handler(ctx, req)
		}
		key, err := rpc.ParseKey(values)
		if err != nil {
			return nil, problem(rpc.BadKey(err))
		}
		scope, err := i.opts.Scope(ctx, info.FullMethod)
		if err != nil || scope == "" {
			return nil, problem(badScope(err))
		}
		m, ok := req.(proto.Message)
		if !ok {
			return nil, problem(rpc.Unsupported)
		}
		if proto.Size(m) > i.opts.MaxRequestBytes {
			return nil, problem(rpc.RequestTooLarge)
		}
		fp, err := i.fingerprint(info.FullMethod, m)
		if err != nil {
			return nil, problem(rpc.Unsupported)
		}
		c := call{i: i, ctx: ctx, method: info.FullMethod, handler: handler, key: idemflight.Key{Scope: scope, ID: key}, req: m}
		return c.once(fp)
	}
}

// Stream returns the interceptor for grpc.ChainStreamInterceptor. It refuses a stream that has a key, since a
// stream cannot be replayed, and nothing would guard it; others pass untouched.
func (i *Interceptor) Stream() grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if md, _ := metadata.FromIncomingContext(stream.Context()); len(md[i.opts.MetadataKey]) > 0 {
			return problem(rpc.Streaming)
		}
		return handler(srv, stream)
	}
}

func (i *Interceptor) fingerprint(fullMethod string, req proto.Message) (idemflight.Fingerprint, error) {
	if i.opts.Fingerprint != nil {
		return i.opts.Fingerprint(fullMethod, req), nil
	}
	wire, err := deterministic.Marshal(req)
	return idemflight.FingerprintOf([]byte(fullMethod), wire), err
}

// A call is a covered call with a key on its way through the cache.
type call struct {
	i       *Interceptor
	ctx     context.Context
	method  string
	handler grpc.UnaryHandler
	key     idemflight.Key
	req     proto.Message

	// Of the call that executes.
	rec     *recorder // nil: it does not
	message any       // what the handler returned
	err     error     // without markers
}

// once makes the one call of the cache, and answers.
func (c *call) once(fp idemflight.Fingerprint) (any, error) {
	defer rpc.Repanic(func() bool { return c.rec != nil })
	res, err := c.i.opts.Cache.DoResult(c.ctx, c.key, c.execute,
		idemflight.WithFingerprint(fp), idemflight.WithMaxWait(c.i.opts.MaxWait), idemflight.Inline())
	switch {
	case c.rec != nil: // whatever it means to the cache, its client gets it
		header, trailer := c.rec.finish()
		send(c.ctx, header, trailer)
		return c.message, c.err
	case res.Source == idemflight.NoOutcome && rpc.IsAnswer(err, idemflight.ErrReentrant):
		return c.handler(c.ctx, c.req) // chained twice: the outer one sees to it
	}
	return c.i.answer(c.ctx, res, err)
}

// execute runs the handler and returns what its answer is to the cache.
func (c *call) execute(ctx context.Context) (*Response, error) {
	c.rec = &recorder{method: c.method}
	ctx = grpc.NewContextWithServerTransportStream(context.WithValue(ctx, handlerKey{}, c.key), c.rec)
	message, err := c.handler(ctx, c.req)
	resp := new(Response)
	resp.Header, resp.Trailer = c.rec.finish()
	if err == nil {
		c.message = message
		if m, ok := message.(proto.Message); ok {
			resp.Message = proto.Clone(m) // outer interceptors may change theirs
		}
		return resp, nil
	}
	c.err = rpc.Unmarked(err)
	resp.Status = statusOf(c.err)
	return resp, rpc.Judge(err, func() idemflight.Disposition { return c.i.opts.Classify(resp.Status) })
}

// statusOf returns the status that a gRPC server sends for err.
func statusOf(err error) *status.Status {
	if s, ok := status.FromError(err); ok {
		return s
	}
	return status.FromContextError(err)
}
