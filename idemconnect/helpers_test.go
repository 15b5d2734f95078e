package idemconnect_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectinprocess"
	"connectrpc.com/connect/v2/connectproto"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemconnect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// payments is a service as a .proto file would describe it; its messages are texts.
var payments = func() protoreflect.ServiceDescriptor {
	text := new(".google.protobuf.StringValue")
	method := func(name string, options *descriptorpb.MethodOptions) *descriptorpb.MethodDescriptorProto {
		return &descriptorpb.MethodDescriptorProto{Name: &name, InputType: text, OutputType: text, Options: options}
	}
	watch := method("Watch", nil)
	watch.ServerStreaming = new(true)
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("bank.proto"), Package: new("bank"), Dependency: []string{"google/protobuf/wrappers.proto"},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: new("Payments"), Method: []*descriptorpb.MethodDescriptorProto{
			method("Pay", nil), method("Refund", nil), watch,
			method("Balance", &descriptorpb.MethodOptions{IdempotencyLevel: descriptorpb.MethodOptions_NO_SIDE_EFFECTS.Enum()}),
		}}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		panic(err)
	}
	return file.Services().ByName("Payments")
}()

// specOf returns what generated code would have about a method.
func specOf(method protoreflect.Name) connect.Spec {
	d := payments.Methods().ByName(method)
	spec := connect.Spec{Schema: d, Procedure: "/bank.Payments/" + string(method)}
	if d.IsStreamingServer() {
		spec.StreamType = connect.StreamTypeServer
	}
	if method == "Balance" {
		spec.IdempotencyLevel = connect.IdempotencyNoSideEffects
	}
	return spec
}

// handler gets the text of a request and answers with one.
type handler func(ctx context.Context, body string) (string, error)

// server has the service, with one handler for its methods.
type server struct {
	keys     *idemconnect.Interceptor
	http     *httptest.Server
	server   *connect.Server
	runs     atomic.Int64
	streamed atomic.Int64
}

func keysOf(t testing.TB, opts idemconnect.Options) *idemconnect.Interceptor {
	t.Helper()
	if opts.Scope == nil {
		opts.Scope = idemconnect.SharedScope
	}
	keys, err := idemconnect.New(opts)
	require.NoError(t, err)
	return keys
}

// newServer makes a server that does not listen.
func newServer(keys *idemconnect.Interceptor, h handler, chain ...connect.ServerInterceptor) *server {
	s := &server{keys: keys, server: connect.NewServer(chain...)}
	unary := func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
		s.runs.Add(1)
		req := new(wrapperspb.StringValue)
		if err := stream.Receive(req); err != nil {
			return err
		}
		body, err := h(ctx, req.Value)
		if err != nil {
			return err
		}
		return stream.Send(wrapperspb.String(body))
	}
	watch := func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
		s.streamed.Add(1)
		return stream.Send(wrapperspb.String("watched"))
	}
	for _, method := range []protoreflect.Name{"Pay", "Refund", "Balance"} {
		s.server.Register(connect.Method{Spec: specOf(method), Handler: unary})
	}
	s.server.Register(connect.Method{Spec: specOf("Watch"), Handler: watch})
	return s
}

// serve starts a server; around is what else is in its chain, outside.
func serve(t testing.TB, opts idemconnect.Options, h handler, around ...connect.ServerInterceptor) *server {
	t.Helper()
	keys := keysOf(t, opts)
	s := newServer(keys, h, append(around, keys.Server())...)
	s.listen(t)
	return s
}

// listen serves HTTP/1.1 and, which gRPC needs, HTTP/2 without TLS.
func (s *server) listen(t testing.TB) {
	mux := http.NewServeMux()
	connecthttp.Mount(mux, s.server)
	s.http = httptest.NewUnstartedServer(mux)
	s.http.Config.Protocols = new(http.Protocols)
	s.http.Config.Protocols.SetHTTP1(true)
	s.http.Config.Protocols.SetUnencryptedHTTP2(true)
	s.http.Start()
	t.Cleanup(func() {
		s.http.Close()
		s.keys.Cache().Close(context.Background())
	})
}

// protocols are the ways in which clients call.
var protocols = map[string][]connecthttp.Option{
	"connect":      nil,
	"connect JSON": {connecthttp.WithProtoJSON()},
	"gRPC":         {connecthttp.WithGRPC()},
	"gRPC JSON":    {connecthttp.WithGRPC(), connecthttp.WithProtoJSON()},
	"gRPC-Web":     {connecthttp.WithGRPCWeb()},
}

type client struct {
	*connect.Client
	transport *http.Transport
}

// client connects to s over HTTP/2, with what the options say.
func (s *server) client(t testing.TB, opts ...connecthttp.Option) *client {
	t.Helper()
	return s.clientWith(t, nil, opts...)
}

// clientWith has interceptors, too.
func (s *server) clientWith(t testing.TB, interceptors []connect.ClientInterceptor, opts ...connecthttp.Option) *client {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &client{connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: transport}, s.http.URL, opts...), interceptors...), transport}
}

// inProcess calls s without a network, for bubbles with their own time.
func (s *server) inProcess(interceptors ...connect.ClientInterceptor) *client {
	return &client{Client: connect.NewClient(connectinprocess.New(s.server), interceptors...)}
}

// answer is what a client gets.
type answer struct {
	Body            string
	Err             error
	Header, Trailer *connect.Header
}

// code returns the code; 0 is success.
func (a answer) code() connect.Code {
	if a.Err == nil {
		return 0
	}
	return connect.CodeOf(a.Err)
}

func (a answer) replayed() bool { return a.Trailer.Get(idemconnect.ReplayTrailer) == "true" }

// message returns the text that came with the code.
func (a answer) message() string { return errorIn(a.Err).Message() }

func errorIn(err error) *connect.Error {
	var e *connect.Error
	if !errors.As(err, &e) {
		return connect.NewError(connect.CodeUnknown, "")
	}
	return e
}

// details returns the details of an error.
func details(err error) (all []proto.Message) {
	for _, d := range errorIn(err).Details() {
		m, err := connectproto.UnmarshalErrorDetail(d)
		if err != nil {
			panic(err)
		}
		all = append(all, m)
	}
	return all
}

// reason returns the reason of a problem; "" if it is none.
func (a answer) reason() string {
	for _, d := range details(a.Err) {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.Domain == idemconnect.Domain {
			return info.Reason
		}
	}
	return ""
}

// retryable reports whether the answer has a RetryInfo.
func (a answer) retryable() bool {
	for _, d := range details(a.Err) {
		if info, ok := d.(*errdetails.RetryInfo); ok && info.RetryDelay.AsDuration() > 0 {
			return true
		}
	}
	return false
}

// call pays, with key unless that is "".
func (c *client) call(ctx context.Context, key, body string) answer {
	header := map[string]string{}
	if key != "" {
		header["idempotency-key"] = key
	}
	return c.callWith(ctx, header, "Pay", body)
}

// callWith calls a method with a header.
func (c *client) callWith(ctx context.Context, header map[string]string, method protoreflect.Name, body string) answer {
	ctx, info := connect.NewClientContext(ctx)
	for name, value := range header {
		info.RequestHeader().Set(name, value)
	}
	resp := new(wrapperspb.StringValue)
	err := c.CallUnary(ctx, specOf(method), wrapperspb.String(body), resp)
	return answer{resp.Value, err, info.ResponseHeader(), info.ResponseTrailer()}
}

// async calls on a goroutine of its own.
func (c *client) async(ctx context.Context, key, body string) <-chan answer {
	got := make(chan answer, 1)
	go func() { got <- c.call(ctx, key, body) }()
	return got
}

// until waits for what another goroutine does, and no channel tells.
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

// gate is a handler that says that it has begun, and then answers as h does when it is let.
func gate(h handler) (gated handler, begun <-chan struct{}, release func()) {
	begins, released := make(chan struct{}, 100), make(chan struct{})
	return func(ctx context.Context, body string) (string, error) {
		begins <- struct{}{}
		<-released
		return h(ctx, body)
	}, begins, sync.OnceFunc(func() { close(released) })
}

func receipt(context.Context, string) (string, error) { return "receipt", nil }

// fails is a handler that answers with an error.
func fails(err error) handler {
	return func(context.Context, string) (string, error) { return "", err }
}

func sharedKey(id string) idemflight.Key { return idemflight.Key{Scope: "shared", ID: id} }

// entry returns what is kept of a key.
func (s *server) entry(t testing.TB, id string) idemflight.Entry[*idemconnect.Response] {
	t.Helper()
	e, _, err := s.keys.Cache().Lookup(t.Context(), sharedKey(id))
	require.NoError(t, err)
	return e
}

type cacheOptions = idemflight.Options[idemflight.Key, *idemconnect.Response]

// cacheOf makes a cache of changed defaults.
func cacheOf(change func(*cacheOptions)) *idemflight.Cache[idemflight.Key, *idemconnect.Response] {
	o := idemconnect.DefaultCacheOptions()
	change(&o)
	return idemflight.MustNew(o)
}

func requireProblem(t testing.TB, got answer, code connect.Code, reason string, retryable bool) {
	t.Helper()
	require.Equal(t, code, got.code())
	require.Equal(t, reason, got.reason())
	require.Equal(t, retryable, got.retryable())
	require.False(t, got.replayed())
}

func text(body string) *wrapperspb.StringValue { return wrapperspb.String(body) }

// receiveAll reads a stream to its end, and returns what else ended it.
func receiveAll(stream connect.ClientStream) error {
	for {
		if err := stream.Receive(new(wrapperspb.StringValue)); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
