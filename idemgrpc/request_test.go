package idemgrpc_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemgrpc"
)

func TestNew_NamesEveryBadField(t *testing.T) {
	_, err := idemgrpc.New(idemgrpc.Options{MetadataKey: "grpc-key", MaxRequestBytes: -1})
	for _, field := range []string{"Scope", "MetadataKey", "MaxRequestBytes"} {
		require.ErrorContains(t, err, "idemgrpc: Options."+field)
	}
	for _, name := range []string{"a b", "ä", "key-bin", "Grpc-Status", "te", "content-type", "user-agent", ":path"} {
		_, err := idemgrpc.New(idemgrpc.Options{Scope: idemgrpc.SharedScope, MetadataKey: name})
		require.ErrorContains(t, err, "idemgrpc: Options.MetadataKey", name)
		require.Panics(t, func() { idemgrpc.UnaryClient(idemgrpc.ClientOptions{MetadataKey: name}) }, name)
	}
	keys, err := idemgrpc.New(idemgrpc.Options{Scope: idemgrpc.SharedScope, MetadataKey: "X-Key.1_2"})
	require.NoError(t, err)
	require.NotNil(t, keys.Cache())
	require.NoError(t, keys.Cache().Close(t.Context()))
}

func TestKeys(t *testing.T) {
	long := strings.Repeat("k", 255)
	s := serve(t, idemgrpc.Options{Require: true}, func(ctx context.Context, _ string) (string, error) {
		key, ok := idemgrpc.KeyFrom(ctx)
		if !ok || key.Scope != "shared" {
			return "", errors.New("no key")
		}
		return key.ID, nil
	})
	c := s.client(t)
	for sent, want := range map[string]string{"k1": "k1", `"k1"`: "k1", `"a\"b\\c"`: `a"b\c`, `a"b`: `a"b`, long: long, "~!": "~!"} {
		got := c.call(t.Context(), sent, "pay")
		require.NoError(t, got.Err, sent)
		require.Equal(t, want, got.Body)
	}
	for _, sent := range []string{`""`, `"`, `"k`, `"k";a=1`, `"k\x"`, `"k\`, long + "k", "a b"} {
		got := c.call(t.Context(), sent, "pay")
		require.Equal(t, codes.InvalidArgument, got.code(), sent)
		require.Equal(t, "MALFORMED_KEY", got.reason(), sent)
		require.False(t, got.retryable())
	}
	several := c.call(metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", "a"), "b", "pay")
	require.Equal(t, "MALFORMED_KEY", several.reason())
	empty := c.call(metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", ""), "", "pay")
	require.Equal(t, "MALFORMED_KEY", empty.reason())
	missing := c.call(t.Context(), "", "pay")
	require.Equal(t, codes.InvalidArgument, missing.code())
	require.Equal(t, "MISSING_KEY", missing.reason())
}

func TestWithoutAKey_CallsPassUntouched(t *testing.T) {
	s := serve(t, idemgrpc.Options{Scope: func(context.Context, string) (string, error) { return "", errors.New("not asked") }},
		func(ctx context.Context, _ string) (string, error) {
			if _, ok := idemgrpc.KeyFrom(ctx); ok {
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

func TestMetadataKey_OfOnesOwn(t *testing.T) {
	s := serve(t, idemgrpc.Options{MetadataKey: "X-Intent"}, receipt)
	c := s.client(t)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-intent", "k")
	c.call(ctx, "", "pay")
	require.True(t, c.call(ctx, "", "pay").replayed())
	require.False(t, c.call(t.Context(), "k", "pay").replayed(), "the default is none")
}

func TestAnotherPayloadOrMethod_IsRefused(t *testing.T) {
	s := serve(t, idemgrpc.Options{}, receipt)
	c := s.client(t)
	require.NoError(t, c.call(t.Context(), "k", "pay").Err)
	reused := c.call(t.Context(), "k", "pay twice")
	require.Equal(t, codes.InvalidArgument, reused.code())
	require.Equal(t, "KEY_REUSED", reused.reason())
	require.False(t, reused.retryable())
	ctx := metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", "empty")
	_, err := c.UnaryCall(ctx, new(pb.SimpleRequest))
	require.NoError(t, err)
	_, err = c.EmptyCall(ctx, new(pb.Empty))
	require.Equal(t, "KEY_REUSED", answer{Err: err}.reason(), "the method counts")
	require.EqualValues(t, 2, s.runs.Load())
}

// A client may be newer than the server: what it asks for then is in fields that the server does not know.
func TestAnotherPayloadOrMethod_UnknownFieldsCount(t *testing.T) {
	s := serve(t, idemgrpc.Options{}, receipt)
	c := s.client(t)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", "k")
	req := new(pb.SimpleRequest)
	_, err := c.UnaryCall(ctx, req)
	require.NoError(t, err)
	req.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 2))
	_, err = c.UnaryCall(ctx, req)
	require.Equal(t, "KEY_REUSED", answer{Err: err}.reason())
	require.EqualValues(t, 1, s.runs.Load())
}

func TestFingerprint_OfOnesOwn(t *testing.T) {
	s := serve(t, idemgrpc.Options{Fingerprint: func(method string, req proto.Message) idemflight.Fingerprint {
		body := req.(*pb.SimpleRequest).Payload.Body
		return idemflight.FingerprintOf([]byte(method), body[:1])
	}}, receipt)
	c := s.client(t)
	require.NoError(t, c.call(t.Context(), "k", "pay").Err)
	require.True(t, c.call(t.Context(), "k", "p").replayed())
	require.Equal(t, "KEY_REUSED", c.call(t.Context(), "k", "q").reason())
}

func TestMaxRequestBytes(t *testing.T) {
	s := serve(t, idemgrpc.Options{MaxRequestBytes: 100}, receipt)
	c := s.client(t)
	require.NoError(t, c.call(t.Context(), "k", strings.Repeat("x", 90)).Err)
	large := c.call(t.Context(), "large", strings.Repeat("x", 101))
	require.Equal(t, codes.InvalidArgument, large.code())
	require.Equal(t, "REQUEST_TOO_LARGE", large.reason())
	require.NoError(t, c.call(t.Context(), "", strings.Repeat("x", 101)).Err, "without a key it passes")
	require.EqualValues(t, 2, s.runs.Load())
}

func TestScope(t *testing.T) {
	s := serve(t, idemgrpc.Options{Scope: func(ctx context.Context, method string) (string, error) {
		if method != pb.TestService_UnaryCall_FullMethodName {
			return "", errors.New("which method is this?")
		}
		md, _ := metadata.FromIncomingContext(ctx)
		switch user := md.Get("user"); {
		case len(user) == 0:
			return "", errors.New("secret")
		case user[0] == "busy":
			return "", status.Error(codes.Unavailable, "secret")
		case user[0] == "bad":
			return "", status.Error(codes.PermissionDenied, "secret")
		default:
			return user[0], nil
		}
	}}, receipt)
	c := s.client(t)
	as := func(user string) answer {
		return c.call(metadata.AppendToOutgoingContext(t.Context(), "user", user), "k", "pay")
	}
	require.False(t, as("ann").replayed())
	require.False(t, as("bob").replayed(), "scopes do not meet")
	require.True(t, as("ann").replayed())

	for user, want := range map[string]codes.Code{"": codes.Unauthenticated, "busy": codes.Unavailable, "bad": codes.PermissionDenied} {
		got := as(user)
		require.Equal(t, want, got.code(), user)
		require.Equal(t, "SCOPE", got.reason(), user)
		require.Equal(t, user == "busy", got.retryable(), user)
	}
	nobody := c.call(t.Context(), "k", "pay")
	require.Equal(t, codes.Unauthenticated, nobody.code())
	require.NotContains(t, nobody.Err.Error(), "secret")
	require.EqualValues(t, 2, s.runs.Load())
}

func TestStreams_WithAKeyAreRefused(t *testing.T) {
	s := serve(t, idemgrpc.Options{Require: true}, receipt)
	c := s.client(t)
	stream := func(ctx context.Context) error {
		stream, err := c.StreamingInputCall(ctx)
		require.NoError(t, err)
		_, err = stream.CloseAndRecv()
		return err
	}
	require.NoError(t, stream(t.Context()), "without a key, even with Require")
	err := stream(metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", "k"))
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	require.Equal(t, "STREAMING", answer{Err: err}.reason())
	require.EqualValues(t, 1, s.streamed.Load())
}

func TestMessagesThatAreNotProtobuf(t *testing.T) {
	keys := keysOf(t, idemgrpc.Options{})
	defer keys.Cache().Close(t.Context())
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("idempotency-key", "k"))
	info := &grpc.UnaryServerInfo{FullMethod: "/bank.Bank/Charge"}
	ran := 0
	handler := func(context.Context, any) (any, error) { ran++; return "receipt", nil }
	_, err := keys.Unary()(ctx, "pay", info, handler)
	require.Equal(t, "UNSUPPORTED", answer{Err: err}.reason())
	require.Zero(t, ran)
	got, err := keys.Unary()(ctx, wrapperspb.String("pay"), info, handler)
	require.NoError(t, err)
	require.Equal(t, "receipt", got, "the executing call gets it")
	_, err = keys.Unary()(ctx, wrapperspb.String("pay"), info, handler)
	require.Equal(t, "ANSWER_UNAVAILABLE", answer{Err: err}.reason())
	require.Equal(t, 1, ran)
}

// bank is a service whose methods have each of the idempotency levels.
func bank(t *testing.T) {
	method := func(name string, level *descriptorpb.MethodOptions_IdempotencyLevel) *descriptorpb.MethodDescriptorProto {
		m := &descriptorpb.MethodDescriptorProto{Name: &name, InputType: new(".google.protobuf.StringValue"), OutputType: new(".google.protobuf.StringValue")}
		if level != nil {
			m.Options = &descriptorpb.MethodOptions{IdempotencyLevel: level}
		}
		return m
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("idemgrpc_test/bank.proto"), Package: new("bank"), Dependency: []string{"google/protobuf/wrappers.proto"},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: new("Bank"), Method: []*descriptorpb.MethodDescriptorProto{
			method("Charge", nil),
			method("Set", descriptorpb.MethodOptions_IDEMPOTENT.Enum()),
			method("Balance", descriptorpb.MethodOptions_NO_SIDE_EFFECTS.Enum()),
		}}},
	}, protoregistry.GlobalFiles)
	require.NoError(t, err)
	if _, err := protoregistry.GlobalFiles.FindFileByPath(file.Path()); err != nil {
		require.NoError(t, protoregistry.GlobalFiles.RegisterFile(file))
	}
}

func TestCovered(t *testing.T) {
	bank(t)
	asked := map[protoreflect.FullName]int{}
	for name, tt := range map[string]struct {
		covered func(protoreflect.MethodDescriptor) bool
		want    map[string]bool
	}{
		"by default": {nil, map[string]bool{"/bank.Bank/Charge": true, "/bank.Bank/Set": true, "/bank.Bank/Balance": false, "/bank.Other/None": true, "/bank.Bank": true}},
		"of one's own": {func(m protoreflect.MethodDescriptor) bool {
			asked[m.FullName()]++
			return m.Name() == "Balance"
		}, map[string]bool{"/bank.Bank/Charge": false, "/bank.Bank/Set": false, "/bank.Bank/Balance": true, "/bank.Other/None": true}},
	} {
		t.Run(name, func(t *testing.T) {
			keys := keysOf(t, idemgrpc.Options{Covered: tt.covered, Require: true})
			defer keys.Cache().Close(t.Context())
			for method, want := range tt.want {
				for range 2 {
					ran := false
					_, err := keys.Unary()(t.Context(), wrapperspb.String("pay"), &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) {
						ran = true
						return wrapperspb.String("receipt"), nil
					})
					require.Equal(t, want, err != nil, method)
					require.Equal(t, !want, ran, method)
				}
			}
		})
	}
	require.Equal(t, map[protoreflect.FullName]int{"bank.Bank.Charge": 1, "bank.Bank.Set": 1, "bank.Bank.Balance": 1}, asked)
}
