package idemgrpc_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemgrpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handler is the UnaryCall of a server: it gets the text of the request and answers with one.
type handler func(ctx context.Context, body string) (string, error)

// service is a real server's, with a handler.
type service struct {
	pb.UnimplementedTestServiceServer
	handler  handler
	runs     atomic.Int64
	streamed atomic.Int64
}

func (s *service) UnaryCall(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	s.runs.Add(1)
	body, err := s.handler(ctx, string(req.GetPayload().GetBody()))
	if err != nil {
		return nil, err
	}
	return &pb.SimpleResponse{Username: body}, nil
}

func (s *service) EmptyCall(context.Context, *pb.Empty) (*pb.Empty, error) {
	s.runs.Add(1)
	return new(pb.Empty), nil
}

func (s *service) StreamingInputCall(stream grpc.ClientStreamingServer[pb.StreamingInputCallRequest, pb.StreamingInputCallResponse]) error {
	s.streamed.Add(1)
	return stream.SendAndClose(new(pb.StreamingInputCallResponse))
}

// server is a server that has the interceptor of opts, and listens.
type server struct {
	*service
	keys *idemgrpc.Interceptor
	grpc *grpc.Server
	addr string
}

func keysOf(t testing.TB, opts idemgrpc.Options) *idemgrpc.Interceptor {
	t.Helper()
	if opts.Scope == nil {
		opts.Scope = idemgrpc.SharedScope
	}
	keys, err := idemgrpc.New(opts)
	require.NoError(t, err)
	return keys
}

// serve starts a server; outer and inner are what else is in its chain.
func serve(t testing.TB, opts idemgrpc.Options, h handler, around ...grpc.UnaryServerInterceptor) *server {
	t.Helper()
	keys := keysOf(t, opts)
	return serveChain(t, keys, h, append(around, keys.Unary())...)
}

func serveChain(t testing.TB, keys *idemgrpc.Interceptor, h handler, chain ...grpc.UnaryServerInterceptor) *server {
	t.Helper()
	s := &server{service: &service{handler: h}, keys: keys}
	s.grpc = grpc.NewServer(grpc.ChainUnaryInterceptor(chain...), grpc.ChainStreamInterceptor(keys.Stream()))
	pb.RegisterTestServiceServer(s.grpc, s.service)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.addr = l.Addr().String()
	var served sync.WaitGroup
	served.Go(func() { _ = s.grpc.Serve(l) })
	t.Cleanup(func() {
		s.grpc.GracefulStop()
		served.Wait()
		keys.Cache().Close(context.Background())
	})
	return s
}

// client connects to s. The connection ends before the server does.
func (s *server) client(t testing.TB, opts ...grpc.DialOption) *client {
	t.Helper()
	conn, err := grpc.NewClient(s.addr, append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return &client{pb.NewTestServiceClient(conn)}
}

type client struct{ pb.TestServiceClient }

// answer is what a client gets.
type answer struct {
	Body            string
	Err             error
	Header, Trailer metadata.MD
}

func (a answer) code() codes.Code { return status.Code(a.Err) }
func (a answer) replayed() bool   { return len(a.Trailer[idemgrpc.ReplayTrailer]) > 0 }

// reason returns the reason of a problem; "" if it is none.
func (a answer) reason() string {
	for _, d := range status.Convert(a.Err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.Domain == idemgrpc.Domain {
			return info.Reason
		}
	}
	return ""
}

// retryable reports whether the answer has a RetryInfo.
func (a answer) retryable() bool {
	for _, d := range status.Convert(a.Err).Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok && info.RetryDelay.AsDuration() > 0 {
			return true
		}
	}
	return false
}

// call sends body, with key unless that is "".
func (c *client) call(ctx context.Context, key, body string, opts ...grpc.CallOption) (a answer) {
	if key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "idempotency-key", key)
	}
	resp, err := c.UnaryCall(ctx, &pb.SimpleRequest{Payload: &pb.Payload{Body: []byte(body)}},
		append(opts, grpc.Header(&a.Header), grpc.Trailer(&a.Trailer))...)
	a.Body, a.Err = resp.GetUsername(), err
	return a
}

// async calls on a goroutine of its own.
func (c *client) async(ctx context.Context, key, body string) <-chan answer {
	got := make(chan answer, 1)
	go func() { got <- c.call(ctx, key, body) }()
	return got
}

// until waits for what another goroutine or process does, and no channel tells.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not happen in 10 s that %s", what)
		}
	}
}

// waiters waits until so many calls wait for another's answer.
func (s *server) waiters(t testing.TB, n int) {
	t.Helper()
	until(t, "duplicates wait", func() bool { return s.keys.Cache().Stats().Waiters == n })
}

// gate is a handler that says that it has begun, and ends when it is let.
func gate(body string) (h handler, begun <-chan struct{}, release func()) {
	begins, released := make(chan struct{}, 100), make(chan struct{})
	return func(context.Context, string) (string, error) {
		begins <- struct{}{}
		<-released
		return body, nil
	}, begins, sync.OnceFunc(func() { close(released) })
}

func sharedKey(id string) idemflight.Key { return idemflight.Key{Scope: "shared", ID: id} }

// state returns where a key stands.
func (s *server) state(t testing.TB, id string) idemflight.State {
	t.Helper()
	e, _, err := s.keys.Cache().Lookup(t.Context(), sharedKey(id))
	require.NoError(t, err)
	return e.State
}

func receipt(context.Context, string) (string, error) { return "receipt", nil }

// direct is a call that comes to the interceptor without a network, for bubbles with their own time.
type direct struct{ trailer metadata.MD }

func (d *direct) Method() string               { return pb.TestService_UnaryCall_FullMethodName }
func (d *direct) SetHeader(metadata.MD) error  { return nil }
func (d *direct) SendHeader(metadata.MD) error { return nil }
func (d *direct) SetTrailer(md metadata.MD) error {
	d.trailer = metadata.Join(d.trailer, md)
	return nil
}

// callDirectly sends a call to keys and h.
func callDirectly(ctx context.Context, keys *idemgrpc.Interceptor, key string, h handler) answer {
	var d direct
	ctx = metadata.NewIncomingContext(grpc.NewContextWithServerTransportStream(ctx, &d), metadata.Pairs("idempotency-key", key))
	s := &service{handler: h}
	resp, err := keys.Unary()(ctx, new(pb.SimpleRequest), &grpc.UnaryServerInfo{FullMethod: d.Method()},
		func(ctx context.Context, req any) (any, error) { return s.UnaryCall(ctx, req.(*pb.SimpleRequest)) })
	m, _ := resp.(*pb.SimpleResponse)
	return answer{Body: m.GetUsername(), Err: err, Trailer: d.trailer}
}
