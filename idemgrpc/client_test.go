package idemgrpc_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemgrpc"
)

// keysSeen is an interceptor of a server that notes the keys that arrive.
type keysSeen struct {
	mu   sync.Mutex
	keys []string
}

func (k *keysSeen) note(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	k.mu.Lock()
	k.keys = append(k.keys, strings.Join(md["idempotency-key"], "+"))
	k.mu.Unlock()
	return handler(ctx, req)
}

func (k *keysSeen) take() (keys []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	keys, k.keys = k.keys, nil
	return keys
}

func sends(opts idemgrpc.ClientOptions) grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(idemgrpc.UnaryClient(opts))
}

func TestUnaryClient_SendsTheKey(t *testing.T) {
	var seen keysSeen
	s := serve(t, idemgrpc.Options{}, func(ctx context.Context, _ string) (string, error) {
		key, _ := idemgrpc.KeyFrom(ctx)
		return key.ID, nil
	}, seen.note)
	plain := s.client(t, sends(idemgrpc.ClientOptions{}))
	require.Empty(t, plain.call(t.Context(), "", "pay").Body, "it makes none unless told")
	for _, key := range []string{"k1", `"k1`, `a"\b`, `"k"`, `"a\"`} {
		ctx := idemgrpc.WithKey(t.Context(), key)
		require.Equal(t, key, plain.call(ctx, "", key).Body)
		require.True(t, plain.call(ctx, "", key).replayed())
	}
	require.Equal(t, "metadata", plain.call(idemgrpc.WithKey(t.Context(), "context"), "metadata", "pay").Body)

	n := 0
	makes := s.client(t, sends(idemgrpc.ClientOptions{Generate: func(_ context.Context, method string) string {
		n++
		if strings.HasSuffix(method, "UnaryCall") {
			return fmt.Sprint("made-", n)
		}
		return ""
	}}))
	require.Equal(t, "made-1", makes.call(t.Context(), "", "pay").Body)
	require.Equal(t, "made-2", makes.call(t.Context(), "", "pay").Body)
	require.Equal(t, "context", makes.call(idemgrpc.WithKey(t.Context(), "context"), "", "pay").Body)
	require.Equal(t, 2, n)
	_, err := makes.EmptyCall(t.Context(), nil)
	require.NoError(t, err)
	keys := seen.take()
	require.Empty(t, keys[len(keys)-1], "Generate made none")
}

func TestUnaryClient_SendsNothingWithABadKey(t *testing.T) {
	var seen keysSeen
	s := serve(t, idemgrpc.Options{}, receipt, seen.note)
	bad := s.client(t, sends(idemgrpc.ClientOptions{Generate: func(context.Context, string) string { return "a b" }}))
	require.Equal(t, codes.InvalidArgument, bad.call(t.Context(), "", "pay").code())
	require.Equal(t, codes.InvalidArgument, bad.call(idemgrpc.WithKey(t.Context(), ""), "", "pay").code())
	require.Equal(t, codes.InvalidArgument, bad.call(t.Context(), `"k`, "pay").code())
	require.Equal(t, codes.InvalidArgument, bad.call(metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", "a"), "b", "pay").code())
	require.Empty(t, seen.take())
}

func TestUnaryClient_OneKeyOverGRPCsOwnRetries(t *testing.T) {
	var seen keysSeen
	var s *server
	s = serve(t, idemgrpc.Options{}, func(ctx context.Context, _ string) (string, error) {
		idemflight.NoEffect(ctx)
		if s.runs.Load() < 3 {
			return "", status.Error(codes.Unavailable, "not yet")
		}
		return "receipt", nil
	}, seen.note)
	makes := sends(idemgrpc.ClientOptions{Generate: func(context.Context, string) string { return idemflight.NewID() }})
	got := s.client(t, grpc.WithDefaultServiceConfig(retryPolicy), makes).call(t.Context(), "", "pay")
	require.NoError(t, got.Err)
	keys := seen.take()
	require.Len(t, keys, 3)
	require.Equal(t, keys[0], keys[1])
	require.Equal(t, keys[0], keys[2])
	require.NotEmpty(t, keys[0])

	// A retry interceptor above one that makes keys makes a key per attempt; with WithKey it does not.
	retries := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		_ = invoke(ctx, method, req, reply, cc, opts...)
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	above := s.client(t, grpc.WithChainUnaryInterceptor(retries), makes)
	above.call(t.Context(), "", "pay")
	keys = seen.take()
	require.NotEqual(t, keys[0], keys[1])
	above.call(idemgrpc.WithKey(t.Context(), "k"), "", "pay")
	require.Equal(t, []string{"k", "k"}, seen.take())
}

func TestUnaryClient_MetadataKeyOfOnesOwn(t *testing.T) {
	s := serve(t, idemgrpc.Options{MetadataKey: "X-Intent", Require: true}, receipt)
	c := s.client(t, sends(idemgrpc.ClientOptions{MetadataKey: "X-Intent"}))
	require.NoError(t, c.call(idemgrpc.WithKey(t.Context(), "k"), "", "pay").Err)
}

// own is a status as the interceptor answers it.
func own(code codes.Code, domain, reason string) error {
	s, err := status.New(code, "no").WithDetails(&errdetails.ErrorInfo{Domain: domain, Reason: reason})
	if err != nil {
		panic(err)
	}
	return s.Err()
}

// endless wraps itself.
type endless struct{}

func (*endless) Error() string   { return "endless" }
func (e *endless) Unwrap() error { return e }

func TestClassifyError(t *testing.T) {
	require.Equal(t, idemflight.Retain, idemgrpc.ClassifyError(nil))
	for code, want := range dispositions {
		if code == codes.OK {
			continue
		}
		if code == codes.InvalidArgument {
			want = idemflight.Release // to fn it is no answer to its caller
		}
		require.Equal(t, want, idemgrpc.ClassifyError(status.Error(code, "no")), code)
		require.Equal(t, want, idemgrpc.ClassifyError(fmt.Errorf("charging: %w", status.Error(code, "no"))), code)
	}
	unknown, full := own(codes.FailedPrecondition, "idemflight", "OUTCOME_UNKNOWN"), own(codes.Unavailable, "idemflight", "FULL")
	for _, tt := range []struct {
		err  error
		want idemflight.Disposition
	}{
		{unknown, idemflight.Hold},
		{own(codes.FailedPrecondition, "idemflight", "ANSWER_UNAVAILABLE"), idemflight.Hold},
		{own(codes.Unavailable, "idemflight", "IN_FLIGHT"), idemflight.Hold},
		{own(codes.DeadlineExceeded, "idemflight", "LEFT"), idemflight.Hold},
		{full, idemflight.Release},
		{own(codes.Unavailable, "idemflight", "CLOSED"), idemflight.Release},
		{own(codes.Unavailable, "idemflight", "STORE"), idemflight.Release},
		{own(codes.InvalidArgument, "idemflight", "KEY_REUSED"), idemflight.Release},
		{own(codes.Unavailable, "elsewhere", "FULL"), idemflight.Hold},
		{own(codes.FailedPrecondition, "elsewhere", "OUTCOME_UNKNOWN"), idemflight.Release},
		{fmt.Errorf("charging: %w", unknown), idemflight.Hold},
		{errors.Join(status.Error(codes.NotFound, "no"), unknown), idemflight.Hold},
		{errors.Join(unknown, status.Error(codes.NotFound, "no")), idemflight.Hold},
		{errors.Join(full, nil, status.Error(codes.NotFound, "no")), idemflight.Release},
		{errors.Join(full, context.DeadlineExceeded), idemflight.Hold},
		{context.Canceled, idemflight.Hold},
		{errors.New("out of paper"), idemflight.Release},
		{new(endless), idemflight.Hold},
	} {
		require.Equal(t, tt.want, idemgrpc.ClassifyError(tt.err), "%v", tt.err)
	}
}

// A service behind a service, both with keys: what the first one tells of its key counts for the key of the second.
func TestClassifyError_OfAServiceWithKeys(t *testing.T) {
	behind := serve(t, idemgrpc.Options{}, func(context.Context, string) (string, error) { return "", status.Error(codes.Internal, "oops") })
	bank := behind.client(t, sends(idemgrpc.ClientOptions{}))
	orders := idemflight.MustNew(idemflight.Options[string, string]{Classify: idemgrpc.ClassifyError})
	defer orders.Close(t.Context())
	bank.call(t.Context(), "order-1", "pay") // by somebody else, and its outcome is unknown
	_, err := orders.Do(t.Context(), "order-1", func(ctx context.Context) (string, error) {
		got := bank.call(idemgrpc.WithKey(ctx, "order-1"), "", "pay")
		return got.Body, got.Err
	})
	require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
}
