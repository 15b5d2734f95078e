package idemgrpc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/verdict"
)

// ReplayTrailer is "true" in the trailer of every answer of a handler that was not executed for this
// call, and of no other. It is no header, since a client that has got headers does not retry any more.
const ReplayTrailer = "idempotent-replayed"

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
		c := call{i: i, ctx: ctx, method: info.FullMethod, handler: handler}
		var p *problem
		if c.key.ID, p = i.keyOf(values); p != nil {
			return nil, p.err()
		}
		if c.key.Scope, p = i.scopeOf(ctx, info.FullMethod); p != nil {
			return nil, p.err()
		}
		var ok bool
		if c.req, ok = req.(proto.Message); !ok {
			return nil, problemUnsupported.err()
		}
		if proto.Size(c.req) > i.opts.MaxRequestBytes {
			return nil, problemRequestTooLarge.err()
		}
		fp, err := i.fingerprint(info.FullMethod, c.req)
		if err != nil {
			return nil, problemUnsupported.err()
		}
		return c.once(fp)
	}
}

// Stream returns the interceptor for grpc.ChainStreamInterceptor. It refuses a stream that has a key, since a
// stream cannot be replayed, and nothing would guard it; others pass untouched.
func (i *Interceptor) Stream() grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if md, _ := metadata.FromIncomingContext(stream.Context()); len(md[i.opts.MetadataKey]) > 0 {
			return problemStreaming.err()
		}
		return handler(srv, stream)
	}
}

func (i *Interceptor) keyOf(values []string) (string, *problem) {
	key, err := parseKey(values)
	switch err {
	case nil:
		return key, nil
	case errKeyMissing:
		return "", &problemMissingKey
	}
	p := problemMalformedKey
	p.text += ": " + err.Error()
	return "", &p
}

func (i *Interceptor) scopeOf(ctx context.Context, fullMethod string) (string, *problem) {
	scope, err := i.opts.Scope(ctx, fullMethod)
	if err == nil && scope != "" {
		return scope, nil
	}
	return "", problemScope.refused(err)
}

func (i *Interceptor) fingerprint(fullMethod string, req proto.Message) (idemflight.Fingerprint, error) {
	if i.opts.Fingerprint != nil {
		return i.opts.Fingerprint(fullMethod, req), nil
	}
	wire, err := proto.MarshalOptions{Deterministic: true, AllowPartial: true}.Marshal(req)
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
	defer func() {
		// The cache has wrapped the handler's panic; recovery outside is to see its own. The handler's
		// frames, which are on the stack now, stay there until that recovery returns.
		if v := recover(); v != nil {
			if p, ok := v.(*idemflight.PanicError); ok && c.rec != nil {
				v = p.Value
			}
			panic(v)
		}
	}()
	res, err := c.i.opts.Cache.DoResult(c.ctx, c.key, c.execute,
		idemflight.WithFingerprint(fp), idemflight.WithMaxWait(c.i.opts.MaxWait), idemflight.Inline())
	switch {
	case c.rec != nil: // whatever it means to the cache, its client gets it
		header, trailer := c.rec.finish()
		send(c.ctx, header, trailer)
		return c.message, c.err
	case res.Source == idemflight.NoOutcome && isAnswer(err, idemflight.ErrReentrant):
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
	c.err = unmarked(err)
	resp.Status = statusOf(c.err)
	return resp, c.i.judge(resp.Status, err)
}

// judge returns err with a verdict, for a handler that said nothing about its effect. A marker in err
// comes before it, and so does what the handler said.
func (i *Interceptor) judge(s *status.Status, err error) error {
	d, failed := i.classify(s)
	if failed != nil {
		err = errors.Join(err, failed)
	}
	return &verdict.Error{Err: err, Retain: d == idemflight.Retain, Hold: d != idemflight.Release}
}

// classify asks Options.Classify. If that panics, the answer is there all the same, and its client gets
// it; but whether to run again is not known.
func (i *Interceptor) classify(s *status.Status) (d idemflight.Disposition, err error) {
	defer func() {
		if v := recover(); v != nil {
			d, err = idemflight.Hold, fmt.Errorf("idemgrpc: Options.Classify panicked: %v", v)
		}
	}()
	return i.opts.Classify(s), nil
}

// unmarked returns err without the markers around it. They speak to the cache alone, and would hide the status of
// the error inside from status.FromError, or get into its text.
func unmarked(err error) error {
	for {
		m, ok := err.(verdict.Marker)
		if !ok {
			return err
		}
		err = m.Unwrap()
	}
}

// statusOf returns the status that a gRPC server sends for err.
func statusOf(err error) *status.Status {
	if s, ok := status.FromError(err); ok {
		return s
	}
	return status.FromContextError(err)
}
