package idemconnect_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemconnect"
)

func TestNew_NamesEveryBadField(t *testing.T) {
	_, err := idemconnect.New(idemconnect.Options{MetadataKey: "grpc-key", MaxRequestBytes: -1})
	for _, field := range []string{"Scope", "MetadataKey", "MaxRequestBytes"} {
		require.ErrorContains(t, err, "idemconnect: Options."+field)
	}
	require.Panics(t, func() { idemconnect.Client(idemconnect.ClientOptions{MetadataKey: "connect-key"}) })
	keys, err := idemconnect.New(idemconnect.Options{Scope: idemconnect.SharedScope, MetadataKey: "X-Key.1_2"})
	require.NoError(t, err)
	require.NoError(t, keys.Cache().Close(t.Context()))
}

func TestKeys(t *testing.T) {
	s := serve(t, idemconnect.Options{Require: true}, func(ctx context.Context, _ string) (string, error) {
		key, ok := idemconnect.KeyFrom(ctx)
		if !ok || key.Scope != "shared" {
			return "", errors.New("no key")
		}
		return key.ID, nil
	})
	c := s.client(t)
	for sent, want := range map[string]string{"k1": "k1", `"k1"`: "k1", `"a\"b\\c"`: `a"b\c`} {
		require.Equal(t, want, c.call(t.Context(), sent, "pay").Body)
	}
	for _, sent := range []string{`"`, `"k";a=1`, "a b", strings.Repeat("k", 256)} {
		requireProblem(t, c.call(t.Context(), sent, "pay"), connect.CodeInvalidArgument, "MALFORMED_KEY", false)
	}
	empty := c.callWith(t.Context(), map[string]string{"Idempotency-Key": ""}, "Pay", "pay")
	requireProblem(t, empty, connect.CodeInvalidArgument, "MALFORMED_KEY", false)
	requireProblem(t, c.call(t.Context(), "", "pay"), connect.CodeInvalidArgument, "MISSING_KEY", false)

	ctx, info := connect.NewClientContext(t.Context())
	info.RequestHeader().SetValues("idempotency-key", []string{"a", "b"})
	several := answer{Err: c.CallUnary(ctx, specOf("Pay"), text("pay"), text("")), Trailer: info.ResponseTrailer()}
	requireProblem(t, several, connect.CodeInvalidArgument, "MALFORMED_KEY", false)
}

func TestWithoutAKey_CallsPassUntouched(t *testing.T) {
	s := serve(t, idemconnect.Options{
		Scope:   func(context.Context, string) (string, error) { return "", errors.New("not asked") },
		Covered: func(connect.Spec) bool { panic("not asked") },
	}, func(ctx context.Context, _ string) (string, error) {
		if _, ok := idemconnect.KeyFrom(ctx); ok {
			return "", errors.New("a key")
		}
		return "receipt", nil
	})
	c := s.client(t)
	for range 2 {
		got := c.call(t.Context(), "", "pay")
		require.NoError(t, got.Err)
		require.False(t, got.replayed())
	}
	require.EqualValues(t, 2, s.runs.Load())
}

func TestWithoutAServer_ThereAreNoKeys(t *testing.T) {
	ran := false
	next := func(context.Context, connect.Spec, connect.ServerStream) error { ran = true; return nil }
	for _, required := range []bool{false, true} {
		keys := keysOf(t, idemconnect.Options{Require: required})
		defer keys.Cache().Close(t.Context())
		ran = false
		err := keys.Server()(next)(t.Context(), specOf("Pay"), nil)
		require.Equal(t, !required, ran)
		require.Equal(t, required, err != nil)
	}
}

func TestMetadataKey_OfOnesOwn(t *testing.T) {
	s := serve(t, idemconnect.Options{MetadataKey: "X-Intent", Require: true}, receipt)
	c := s.clientWith(t, []connect.ClientInterceptor{idemconnect.Client(idemconnect.ClientOptions{MetadataKey: "x-intent"})})
	ctx := idemconnect.WithKey(t.Context(), "k")
	require.NoError(t, c.call(ctx, "", "pay").Err)
	require.True(t, c.callWith(t.Context(), map[string]string{"X-INTENT": "k"}, "Pay", "pay").replayed())
	require.Equal(t, "MISSING_KEY", c.call(t.Context(), "k", "pay").reason(), "the default is none")
}

func TestAnotherPayloadOrMethod_IsRefused(t *testing.T) {
	s := serve(t, idemconnect.Options{}, receipt)
	c := s.client(t)
	require.NoError(t, c.call(t.Context(), "k", "pay").Err)
	requireProblem(t, c.call(t.Context(), "k", "pay twice"), connect.CodeInvalidArgument, "KEY_REUSED", false)
	refund := c.callWith(t.Context(), map[string]string{"idempotency-key": "k"}, "Refund", "pay")
	requireProblem(t, refund, connect.CodeInvalidArgument, "KEY_REUSED", false)
	require.EqualValues(t, 1, s.runs.Load())
}

func TestFingerprint_OfOnesOwn(t *testing.T) {
	s := serve(t, idemconnect.Options{Fingerprint: func(procedure string, req proto.Message) idemflight.Fingerprint {
		return idemflight.FingerprintOf([]byte(procedure), []byte(req.(*wrapperspb.StringValue).Value[:1]))
	}}, receipt)
	c := s.client(t)
	require.NoError(t, c.call(t.Context(), "k", "pay").Err)
	require.True(t, c.call(t.Context(), "k", "p").replayed())
	require.Equal(t, "KEY_REUSED", c.call(t.Context(), "k", "q").reason())
	require.Equal(t, "KEY_REUSED", c.callWith(t.Context(), map[string]string{"idempotency-key": "k"}, "Refund", "pay").reason())
}

func TestMaxRequestBytes(t *testing.T) {
	s := serve(t, idemconnect.Options{MaxRequestBytes: 100}, receipt)
	for _, opts := range protocols {
		c := s.client(t, opts...)
		require.NoError(t, c.call(t.Context(), "k", strings.Repeat("x", 98)).Err, "100 bytes in wire form, in whatever form it is sent")
		requireProblem(t, c.call(t.Context(), "large", strings.Repeat("x", 99)), connect.CodeInvalidArgument, "REQUEST_TOO_LARGE", false)
		require.NoError(t, c.call(t.Context(), "", strings.Repeat("x", 99)).Err, "without a key it passes")
	}
	require.EqualValues(t, 1+len(protocols), s.runs.Load())
}

func TestScope(t *testing.T) {
	s := serve(t, idemconnect.Options{Scope: func(ctx context.Context, procedure string) (string, error) {
		info, _ := connect.CallInfoForServerContext(ctx)
		switch user := info.RequestHeader().Get("user"); {
		case procedure != "/bank.Payments/Pay":
			return "", errors.New("which method is this?")
		case user == "busy":
			return "", connect.NewError(connect.CodeUnavailable, "secret").WithRemote()
		case user == "bad":
			return "", connect.NewError(connect.CodePermissionDenied, "secret")
		case user == "unknown":
			return "", errors.New("secret")
		default:
			return user, nil
		}
	}}, receipt)
	c := s.client(t)
	as := func(user string) answer {
		return c.callWith(t.Context(), map[string]string{"idempotency-key": "k", "user": user}, "Pay", "pay")
	}
	require.False(t, as("ann").replayed())
	require.False(t, as("bob").replayed(), "scopes do not meet")
	require.True(t, as("ann").replayed())
	for user, want := range map[string]connect.Code{"": connect.CodeUnauthenticated, "unknown": connect.CodeUnauthenticated,
		"busy": connect.CodeUnavailable, "bad": connect.CodePermissionDenied} {
		got := as(user)
		requireProblem(t, got, want, "SCOPE", user == "busy")
		require.NotContains(t, got.Err.Error(), "secret")
	}
	require.EqualValues(t, 2, s.runs.Load())
}

func TestCovered_NeverWithoutSideEffects(t *testing.T) {
	s := serve(t, idemconnect.Options{Require: true, Covered: func(spec connect.Spec) bool {
		if spec.Procedure == "/bank.Payments/Balance" {
			t.Error("it is asked about a method without side effects")
		}
		return spec.Procedure == "/bank.Payments/Pay"
	}}, receipt)
	for name, opts := range map[string][]connecthttp.Option{"GET": {connecthttp.WithHTTPGet()}, "POST": nil} {
		c := s.client(t, opts...)
		for _, header := range []map[string]string{nil, {"idempotency-key": "balance"}} {
			for range 2 {
				got := c.callWith(t.Context(), header, "Balance", "ann")
				require.NoError(t, got.Err, name)
				require.False(t, got.replayed(), name)
			}
		}
	}
	require.EqualValues(t, 8, s.runs.Load())

	c := s.client(t)
	require.NoError(t, c.callWith(t.Context(), nil, "Refund", "pay").Err)
	require.Equal(t, "MISSING_KEY", c.callWith(t.Context(), nil, "Pay", "pay").reason())
	require.NoError(t, c.watch(t, "k"), "a stream that is not covered")
	require.EqualValues(t, 1, s.streamed.Load())
}

func TestStreams_WithoutAKeyPassEvenWithRequire(t *testing.T) {
	s := serve(t, idemconnect.Options{Require: true}, receipt)
	require.NoError(t, s.client(t).watch(t, ""))
	requireProblem(t, answer{Err: s.client(t).watch(t, "k")}, connect.CodeInvalidArgument, "STREAMING", false)
	require.EqualValues(t, 1, s.streamed.Load())
}

func TestMethods_ThatAreNotProtobuf(t *testing.T) {
	keys := keysOf(t, idemconnect.Options{})
	s := newServer(keys, receipt, keys.Server())
	spec := connect.Spec{Procedure: "/bank.Other/None"}
	s.server.Register(connect.Method{Spec: spec, Handler: func(context.Context, connect.Spec, connect.ServerStream) error {
		t.Error("the handler runs")
		return nil
	}})
	s.listen(t)
	ctx, info := connect.NewClientContext(t.Context())
	info.RequestHeader().Set("idempotency-key", "k")
	err := s.client(t).CallUnary(ctx, spec, text("pay"), text(""))
	requireProblem(t, answer{Err: err}, connect.CodeUnimplemented, "UNSUPPORTED", false)
}

// A server made of descriptors alone, with no generated code linked in.
func TestMessages_WithoutGeneratedCode(t *testing.T) {
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("dynamic.proto"), Package: new("dynamic"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: new("Order"), Field: []*descriptorpb.FieldDescriptorProto{{
			Name: new("amount"), JsonName: new("amount"), Number: new(int32(1)), Type: descriptorpb.FieldDescriptorProto_TYPE_INT64.Enum(),
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}}}},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: new("Orders"), Method: []*descriptorpb.MethodDescriptorProto{{
			Name: new("Place"), InputType: new(".dynamic.Order"), OutputType: new(".dynamic.Order")}}}},
	}, nil)
	require.NoError(t, err)
	order := file.Messages().Get(0)
	spec := connect.Spec{Procedure: "/dynamic.Orders/Place", Schema: file.Services().Get(0).Methods().Get(0)}
	keys := keysOf(t, idemconnect.Options{})
	s := newServer(keys, receipt, keys.Server())
	s.server.Register(connect.Method{Spec: spec, Handler: func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
		s.runs.Add(1)
		req := dynamicpb.NewMessage(order)
		if err := stream.Receive(req); err != nil {
			return err
		}
		return stream.Send(req)
	}})
	s.listen(t)
	for range 2 {
		ctx, info := connect.NewClientContext(t.Context())
		info.RequestHeader().Set("idempotency-key", "k")
		req, resp := dynamicpb.NewMessage(order), dynamicpb.NewMessage(order)
		require.NoError(t, proto.Unmarshal([]byte{8, 100}, req))
		require.NoError(t, s.client(t).CallUnary(ctx, spec, req, resp))
		require.True(t, proto.Equal(req, resp))
	}
	require.EqualValues(t, 1, s.runs.Load())
}

func TestRequests_ThatCannotBeReadRunNothing(t *testing.T) {
	known := true
	s := serve(t, idemconnect.Options{Scope: func(context.Context, string) (string, error) {
		if !known {
			return "", nil
		}
		return "shared", nil
	}}, receipt)
	post := func(body string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.http.URL+"/bank.Payments/Pay", strings.NewReader(body))
		require.NoError(t, err)
		req.Header = http.Header{"Content-Type": {"application/json"}, "Idempotency-Key": {"k"}}
		resp, err := s.http.Client().Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		if resp.Header.Get("Trailer-Idempotent-Replayed") != "" {
			data = append(data, " again"...)
		}
		return resp.StatusCode, string(data)
	}
	status, _ := post("{")
	require.Equal(t, http.StatusBadRequest, status)
	require.Equal(t, idemflight.Absent, s.entry(t, "k").State)
	known = false
	status, _ = post("{")
	require.Equal(t, http.StatusUnauthorized, status, "for a client that Scope refuses it is not even read")
	require.Zero(t, s.runs.Load())

	known = true
	for _, want := range []string{`"receipt"`, `"receipt" again`} {
		status, body := post(`"pay"`)
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, want, body)
	}
}
