package idemconnect

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/rpc"
)

// ReplayTrailer is "true" in the trailer of every answer of a handler that was not executed for this
// call, and of no other. Connect sends it as the header Trailer-Idempotent-Replayed; in every protocol it is
// where clients of package idemgrpc find it.
const ReplayTrailer = "Idempotent-Replayed"

// Server returns the interceptor for connect.NewServer. Authentication belongs outside of it, so that Scope
// finds the account; what is to see each execution, and not the replays, inside. A stream that has a key is
// refused, since it cannot be replayed, and nothing would guard it.
//
// The executing call runs the handler on its own goroutine. The context that the handler gets has the
// values of the call's, but neither its cancellation nor its deadline: it ends at the cache's ExecTimeout
// and when the handler returns, so that a client that gives up neither stops the work nor loses its
// answer. After Shutdown of an http.Server, which over HTTP/2 does not wait for a handler whose client has gone,
// Cache.Close waits for it. It is the context for [idemflight.BeginEffect] and [idemflight.NoEffect].
func (i *Interceptor) Server() connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			info, ok := connect.CallInfoForServerContext(ctx)
			if !ok {
				info = new(connect.CallInfo) // not by a connect.Server: without metadata
			}
			values := info.RequestHeader().Values(i.opts.MetadataKey)
			isUnary := spec.StreamType == connect.StreamTypeUnary
			required := i.opts.Require && isUnary
			switch {
			case len(values) == 0 && !required || !i.covers(spec):
				return next(ctx, spec, stream)
			case !isUnary:
				return problem(rpc.Streaming)
			}
			c := call{i: i, ctx: ctx, spec: spec, info: info, next: next, stream: stream}
			fp, err := c.read(values)
			if err != nil {
				return err
			}
			return c.once(fp)
		}
	}
}

// A call is a covered call on its way through the cache.
type call struct {
	i      *Interceptor
	ctx    context.Context
	spec   connect.Spec
	info   *connect.CallInfo
	next   connect.ServerFunc
	stream connect.ServerStream
	key    idemflight.Key
	wire   []byte // the request

	// Of the call that executes.
	resp *Response // nil: it does not
	err  error     // what the handler returned, without markers
}

// read finds out the key, its scope and the request, what costs nothing first: nothing is decoded for a client
// that Scope refuses.
func (c *call) read(values []string) (fp idemflight.Fingerprint, err error) {
	opts := &c.i.opts
	if c.key.ID, err = rpc.ParseKey(values); err != nil {
		return fp, problem(rpc.BadKey(err))
	}
	if c.key.Scope, err = opts.Scope(c.ctx, c.spec.Procedure); err != nil || c.key.Scope == "" {
		return fp, problem(badScope(err))
	}
	method, ok := c.spec.Schema.(protoreflect.MethodDescriptor)
	if !ok {
		return fp, problem(rpc.Unsupported)
	}
	req := newMessage(method.Input())
	if err := c.stream.Receive(req); err != nil {
		return fp, err
	}
	if c.wire, err = deterministic.Marshal(req); err != nil {
		return fp, problem(rpc.Unsupported)
	}
	if len(c.wire) > opts.MaxRequestBytes {
		return fp, problem(rpc.RequestTooLarge)
	}
	if opts.Fingerprint != nil {
		return opts.Fingerprint(c.spec.Procedure, req), nil
	}
	return idemflight.FingerprintOf([]byte(c.spec.Procedure), c.wire), nil
}

// newMessage returns an empty message: of the type that is linked in, if there is one.
func newMessage(d protoreflect.MessageDescriptor) proto.Message {
	if linked, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName()); err == nil {
		return linked.New().Interface()
	}
	return dynamicpb.NewMessage(d)
}

// once makes the one call of the cache, and answers.
func (c *call) once(fp idemflight.Fingerprint) error {
	opts := &c.i.opts
	defer rpc.Repanic(func() bool { return c.resp != nil })
	res, err := opts.Cache.DoResult(c.ctx, c.key, c.execute,
		idemflight.WithFingerprint(fp), idemflight.WithMaxWait(opts.MaxWait), idemflight.Inline())
	switch {
	case c.resp != nil: // whatever it means to the cache, its client gets it
		return c.send(c.resp.Message, c.err)
	case res.Source == idemflight.NoOutcome && rpc.IsAnswer(err, idemflight.ErrReentrant):
		// Chained twice: the outer one sees to it.
		return c.next(c.ctx, c.spec, &received{ServerStream: c.stream, wire: c.wire})
	}
	return c.answer(res, err)
}

// execute runs the handler and returns what its answer is to the cache.
func (c *call) execute(ctx context.Context) (*Response, error) {
	c.resp = new(Response)
	ctx = context.WithValue(ctx, handlerKey{}, handled{c.key, c.info})
	header, trailer := copied(c.info.ResponseHeader()), copied(c.info.ResponseTrailer())
	rec := recorder{received: received{wire: c.wire}}
	err := c.next(ctx, c.spec, &rec)
	c.info.ResponseHeader().Delete(ReplayTrailer) // passed on from a service that the handler called, say
	c.info.ResponseTrailer().Delete(ReplayTrailer)
	c.resp.Header = changed(c.info.ResponseHeader(), header)
	c.resp.Trailer = changed(c.info.ResponseTrailer(), trailer)
	if err == nil {
		c.resp.Message = rec.sent
		return c.resp, nil
	}
	c.err = rpc.Unmarked(err)
	c.resp.Err = asSent(c.err)
	return c.resp, rpc.Judge(err, func() idemflight.Disposition { return c.i.opts.Classify(c.resp.Err) })
}

// answer answers a call that did not execute.
func (c *call) answer(res idemflight.Result[*Response], err error) error {
	if p := c.i.answers.Problem(c.ctx, res, err); p != nil {
		return problem(*p)
	}
	resp := res.Value
	replay(c.info.ResponseHeader(), resp.Header)
	replay(c.info.ResponseTrailer(), resp.Trailer)
	c.info.ResponseTrailer().Set(ReplayTrailer, "true")
	if resp.Err != nil {
		return authored(resp.Err)
	}
	return c.send(resp.Message, nil)
}

// send sends a copy of m, which interceptors outside may change, or returns err.
func (c *call) send(m proto.Message, err error) error {
	if err != nil || m == nil {
		return err
	}
	return c.stream.Send(proto.Clone(m))
}

var (
	errNotProtobuf = errors.New("idemconnect: a message that is not protobuf")
	errSentTwice   = errors.New("idemconnect: a unary method sends one message")
)

// received is a stream whose one request has been read already.
type received struct {
	connect.ServerStream
	wire []byte
	over bool
}

func (s *received) Receive(msg any) error {
	if s.over {
		return io.EOF
	}
	s.over = true
	m, ok := msg.(proto.Message)
	if !ok {
		return errNotProtobuf
	}
	return partial.Unmarshal(s.wire, m)
}

// recorder is the stream of an executing handler. It keeps the answer: before the handler has returned nobody
// knows whether this will be it.
type recorder struct {
	received
	sent proto.Message
}

// SendHeaders does nothing, as for every unary call: the header goes with the answer.
func (r *recorder) SendHeaders() error { return nil }

// Send records a copy of msg, since the handler may use it again.
func (r *recorder) Send(msg any) error {
	m, ok := msg.(proto.Message)
	switch {
	case !ok:
		return errNotProtobuf
	case r.sent != nil:
		return errSentTwice
	}
	r.sent = proto.Clone(m)
	return nil
}

type handlerKey struct{}

// handled is what the context of a handler has.
type handled struct {
	key  idemflight.Key
	info *connect.CallInfo
}

// KeyFrom returns the key of the call that a covered handler serves, from its context, and reports
// whether there is one. Give both its parts to the bank, as one reference, so that the bank too can tell
// a retry: the ID alone may also be another customer's.
func KeyFrom(ctx context.Context) (idemflight.Key, bool) {
	h, ok := ctx.Value(handlerKey{}).(handled)
	if info, _ := connect.CallInfoForServerContext(ctx); !ok || info != h.info {
		return idemflight.Key{}, false // of the call that came before this one in the same process, say
	}
	return h.key, true
}
