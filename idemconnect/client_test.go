package idemconnect_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemconnect"
)

// keysSeen is an interceptor of a server that notes the keys that arrive.
type keysSeen struct {
	mu   sync.Mutex
	keys []string
}

func (k *keysSeen) note(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		info, _ := connect.CallInfoForServerContext(ctx)
		k.mu.Lock()
		k.keys = append(k.keys, strings.Join(info.RequestHeader().Values("idempotency-key"), "+"))
		k.mu.Unlock()
		return next(ctx, spec, stream)
	}
}

func (k *keysSeen) take() (keys []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	keys, k.keys = k.keys, nil
	return keys
}

func sends(opts idemconnect.ClientOptions) []connect.ClientInterceptor {
	return []connect.ClientInterceptor{idemconnect.Client(opts)}
}

func TestClient_SendsTheKey(t *testing.T) {
	var seen keysSeen
	s := serve(t, idemconnect.Options{}, func(ctx context.Context, _ string) (string, error) {
		key, _ := idemconnect.KeyFrom(ctx)
		return key.ID, nil
	}, seen.note)
	for _, opts := range protocols {
		plain := s.clientWith(t, sends(idemconnect.ClientOptions{}), opts...)
		require.Empty(t, plain.call(t.Context(), "", "pay").Body, "it makes none unless told")
		for _, key := range []string{"k1", `"k1`, `a"\b`, `"k"`} {
			ctx := idemconnect.WithKey(t.Context(), key)
			require.Equal(t, key, plain.call(ctx, "", key).Body)
			require.True(t, plain.call(ctx, "", key).replayed())
		}
		require.Equal(t, "header", plain.call(idemconnect.WithKey(t.Context(), "context"), "header", "pay").Body)
	}

	made := 0
	makes := s.clientWith(t, sends(idemconnect.ClientOptions{Generate: func(_ context.Context, procedure string) string {
		if strings.HasSuffix(procedure, "Pay") {
			made++
			return fmt.Sprint("made-", made)
		}
		return ""
	}}))
	require.Equal(t, "made-1", makes.call(t.Context(), "", "pay").Body)
	require.Equal(t, "made-2", makes.call(t.Context(), "", "pay").Body)
	require.Equal(t, "context", makes.call(idemconnect.WithKey(t.Context(), "context"), "", "pay").Body)
	require.Equal(t, 2, made)
	seen.take()
	require.NoError(t, makes.callWith(t.Context(), nil, "Refund", "pay").Err)
	require.Equal(t, []string{""}, seen.take(), "Generate made none")
}

func TestClient_SendsNoKeyWithStreamsAndReads(t *testing.T) {
	var seen keysSeen
	s := serve(t, idemconnect.Options{}, receipt, seen.note)
	c := s.clientWith(t, sends(idemconnect.ClientOptions{Generate: func(context.Context, string) string { return "made" }}), connecthttp.WithHTTPGet())
	ctx := idemconnect.WithKey(t.Context(), "k")
	require.NoError(t, c.callWith(ctx, nil, "Balance", "ann").Err)
	stream, err := c.CallServerStream(ctx, specOf("Watch"), text("rent"))
	require.NoError(t, err)
	require.NoError(t, receiveAll(stream))
	require.Equal(t, []string{"", ""}, seen.take())
}

func TestClient_SendsNothingWithABadKey(t *testing.T) {
	var seen keysSeen
	s := serve(t, idemconnect.Options{}, receipt, seen.note)
	bad := s.clientWith(t, sends(idemconnect.ClientOptions{Generate: func(context.Context, string) string { return "a b" }}))
	require.Equal(t, connect.CodeInvalidArgument, bad.call(t.Context(), "", "pay").code())
	require.Equal(t, connect.CodeInvalidArgument, bad.call(idemconnect.WithKey(t.Context(), ""), "", "pay").code())
	require.Equal(t, connect.CodeInvalidArgument, bad.call(t.Context(), `"k`, "pay").code())
	require.Empty(t, seen.take())
}

// A caller may use its CallInfo for several calls: its header must not be left with the key of the first.
func TestClient_LeavesTheCallersHeaderAsItWas(t *testing.T) {
	var seen keysSeen
	s := serve(t, idemconnect.Options{}, receipt, seen.note)
	refuses := func(connect.ClientFunc) connect.ClientFunc {
		return func(context.Context, connect.Spec) (connect.ClientStream, error) { return nil, errors.New("no stream") }
	}
	for _, c := range []*client{
		s.clientWith(t, sends(idemconnect.ClientOptions{})),
		s.clientWith(t, sends(idemconnect.ClientOptions{}), connecthttp.WithGRPC()),
		s.inProcess(sends(idemconnect.ClientOptions{})...),
		s.inProcess(append(sends(idemconnect.ClientOptions{}), refuses)...),
	} {
		ctx, info := connect.NewClientContext(t.Context())
		for _, key := range []string{"first", "second"} {
			_ = c.CallUnary(idemconnect.WithKey(ctx, key), specOf("Pay"), text("pay"), text(""))
			require.Zero(t, info.RequestHeader().Len())
		}
	}
	require.Equal(t, []string{"first", "second", "first", "second", "first", "second"}, seen.take())
}

// In process, the context of a handler comes from its client's.
func TestInProcess_AServerDoesNotInheritKeys(t *testing.T) {
	var seen keysSeen
	behind := newServer(keysOf(t, idemconnect.Options{}), func(ctx context.Context, _ string) (string, error) {
		if key, ok := idemconnect.KeyFrom(ctx); ok {
			return "", connect.NewError(connect.CodeInternal, "it has the key "+key.ID)
		}
		return "receipt", nil
	}, seen.note)
	defer behind.keys.Cache().Close(t.Context())
	bank := behind.inProcess(sends(idemconnect.ClientOptions{})...)

	keys := keysOf(t, idemconnect.Options{})
	defer keys.Cache().Close(t.Context())
	front := newServer(keys, func(ctx context.Context, _ string) (string, error) {
		got := bank.call(ctx, "", "pay")
		return got.Body, got.Err
	}, keys.Server()).inProcess(sends(idemconnect.ClientOptions{})...)
	got := front.call(idemconnect.WithKey(t.Context(), "k"), "", "pay")
	require.NoError(t, got.Err)
	require.Equal(t, "receipt", got.Body)
	require.Equal(t, []string{""}, seen.take(), "no key was sent on")
}

// own is an error as the interceptor answers it.
func own(code connect.Code, domain, reason string) error {
	detail, err := connectproto.NewErrorDetail(&errdetails.ErrorInfo{Domain: domain, Reason: reason})
	if err != nil {
		panic(err)
	}
	return connect.NewError(code, "no").WithDetail(detail).WithRemote()
}

// endless wraps itself.
type endless struct{}

func (*endless) Error() string   { return "endless" }
func (e *endless) Unwrap() error { return e }

func TestClassifyError(t *testing.T) {
	require.Equal(t, idemflight.Retain, idemconnect.ClassifyError(nil))
	for code, want := range dispositions {
		if code == success {
			continue
		}
		if code == connect.CodeInvalidArgument {
			want = idemflight.Release // to fn it is no answer to its caller
		}
		err := connect.NewError(code, "no")
		require.Equal(t, want, idemconnect.ClassifyError(err), code)
		require.Equal(t, want, idemconnect.ClassifyError(fmt.Errorf("charging: %w", err)), code)
		require.Equal(t, want, idemflight.ClassifyLenient(err), "the core knows it by its shape: %v", code)
	}
	unknown, full := own(connect.CodeFailedPrecondition, "idemflight", "OUTCOME_UNKNOWN"), own(connect.CodeUnavailable, "idemflight", "FULL")
	notFound := connect.NewError(connect.CodeNotFound, "no")
	for _, tt := range []struct {
		err  error
		want idemflight.Disposition
	}{
		{unknown, idemflight.Hold},
		{own(connect.CodeFailedPrecondition, "idemflight", "ANSWER_UNAVAILABLE"), idemflight.Hold},
		{own(connect.CodeUnavailable, "idemflight", "IN_FLIGHT"), idemflight.Hold},
		{own(connect.CodeAborted, "idemflight", "IN_FLIGHT"), idemflight.Hold}, // whatever the code
		{own(connect.CodeDeadlineExceeded, "idemflight", "LEFT"), idemflight.Hold},
		{full, idemflight.Release},
		{own(connect.CodeUnavailable, "idemflight", "CLOSED"), idemflight.Release},
		{own(connect.CodeUnavailable, "idemflight", "STORE"), idemflight.Release},
		{own(connect.CodeInvalidArgument, "idemflight", "KEY_REUSED"), idemflight.Release},
		{own(connect.CodeUnavailable, "elsewhere", "FULL"), idemflight.Hold},
		{own(connect.CodeFailedPrecondition, "elsewhere", "OUTCOME_UNKNOWN"), idemflight.Release},
		{fmt.Errorf("charging: %w", unknown), idemflight.Hold},
		{errors.Join(notFound, unknown), idemflight.Hold},
		{errors.Join(unknown, notFound), idemflight.Hold},
		{errors.Join(full, nil, notFound), idemflight.Release},
		{errors.Join(full, context.DeadlineExceeded), idemflight.Hold},
		{context.Canceled, idemflight.Hold},
		{errors.New("out of paper"), idemflight.Release},
		{(*connect.Error)(nil), idemflight.Release},
		{new(endless), idemflight.Hold},
	} {
		require.Equal(t, tt.want, idemconnect.ClassifyError(tt.err), "%T %+v", tt.err, tt.err)
	}
}

// A service behind a service, both with keys: what the first one tells of its key counts for the key of the second.
func TestClassifyError_OfAServiceWithKeys(t *testing.T) {
	behind := serve(t, idemconnect.Options{}, fails(connect.NewError(connect.CodeInternal, "oops")))
	orders := idemflight.MustNew(idemflight.Options[string, string]{Classify: idemconnect.ClassifyError})
	defer orders.Close(t.Context())
	for protocol, opts := range protocols {
		bank, key := behind.clientWith(t, sends(idemconnect.ClientOptions{}), opts...), strings.ReplaceAll(protocol, " ", "-")
		bank.call(t.Context(), key, "pay") // by somebody else, and its outcome is unknown
		_, err := orders.Do(t.Context(), key, func(ctx context.Context) (string, error) {
			got := bank.call(idemconnect.WithKey(ctx, key), "", "pay")
			return got.Body, got.Err
		})
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.Equal(t, connect.CodeFailedPrecondition, connect.CodeOf(err))
	}
}
