package idemgrpc_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemgrpc"
	"github.com/idemflight/idemflight/storetest"
)

// process is a server over m, as another process would have it.
func process(t *testing.T, m idemflight.Store, h handler) *server {
	return serve(t, idemgrpc.Options{Cache: cacheOf(func(o *idemflight.Options[idemflight.Key, *idemgrpc.Response]) { o.Store = m })}, h)
}

// wire is a codec that shows a client the bytes that it is sent.
type wire struct{ bytes *[]byte }

func (wire) Name() string                  { return "proto" }
func (wire) Marshal(m any) ([]byte, error) { return proto.Marshal(m.(proto.Message)) }
func (w wire) Unmarshal(b []byte, m any) error {
	*w.bytes = append([]byte(nil), b...)
	return proto.Unmarshal(b, m.(proto.Message))
}

func TestStore_AnotherServerReplaysByteForByte(t *testing.T) {
	m := storetest.Mem()
	a := process(t, m, func(ctx context.Context, body string) (string, error) {
		_ = grpc.SetHeader(ctx, metadata.Pairs("location", "/payments/1", "bytes-bin", "\x00\xff"))
		_ = grpc.SetTrailer(ctx, metadata.Pairs("checksum", "1"))
		if body == "" {
			refused, err := status.New(codes.InvalidArgument, "nothing to pay").WithDetails(&errdetails.BadRequest{
				FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "payload"}}})
			if err != nil {
				return "", err
			}
			return "", refused.Err()
		}
		return "receipt", nil
	})
	b := process(t, m, func(context.Context, string) (string, error) { t.Error("the handler runs"); return "", nil })
	ca, cb := a.client(t), b.client(t)
	for key, body := range map[string]string{"ok": "pay", "refused": ""} {
		var sent, replayed []byte
		first := ca.call(t.Context(), key, body, grpc.ForceCodec(wire{&sent}))
		require.Equal(t, body == "", first.Err != nil)
		for range 2 { // from the store, and from memory
			again := cb.call(t.Context(), key, body, grpc.ForceCodec(wire{&replayed}))
			require.True(t, again.replayed())
			require.Equal(t, sent, replayed)
			require.True(t, proto.Equal(status.Convert(first.Err).Proto(), status.Convert(again.Err).Proto()))
			require.Equal(t, first.Header, again.Header)
			delete(again.Trailer, idemgrpc.ReplayTrailer)
			require.Equal(t, first.Trailer, again.Trailer)
		}
		requireProblem(t, cb.call(t.Context(), key, "another"), codes.InvalidArgument, "KEY_REUSED", false)
	}
}

func TestStore_ACallInFlightElsewhereIsWaitedFor(t *testing.T) {
	m := storetest.Mem()
	h, begun, release := gate("receipt")
	defer release()
	a := process(t, m, h)
	b := process(t, m, func(context.Context, string) (string, error) { t.Error("the handler runs"); return "", nil })
	executing := a.client(t).async(t.Context(), "k", "pay")
	<-begun
	waiting := b.client(t).async(t.Context(), "k", "pay")
	until(t, "the other server watches", func() bool { return m.Asked("Watch") > 0 })
	release()
	require.NoError(t, (<-executing).Err)
	got := <-waiting
	require.NoError(t, got.Err)
	require.Equal(t, "receipt", got.Body)
	require.True(t, got.replayed())
}

func TestStore_ThatCannotBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		m.Fail("Claim", storetest.Before, -1)
		keys := keysOf(t, idemgrpc.Options{Cache: cacheOf(func(o *idemflight.Options[idemflight.Key, *idemgrpc.Response]) { o.Store = m })})
		defer keys.Cache().Close(t.Context())
		ran := 0
		h := func(context.Context, string) (string, error) { ran++; return "receipt", nil }
		requireProblem(t, callDirectly(t.Context(), keys, "k", h), codes.Unavailable, "STORE", true)
		require.Zero(t, ran)

		m.Fail("Claim", storetest.Before, 0)
		m.Fail("Settle", storetest.Before, -1)
		require.NoError(t, callDirectly(t.Context(), keys, "k", h).Err, "the executing call has its answer")
		requireProblem(t, callDirectly(t.Context(), keys, "k", h), codes.FailedPrecondition, "OUTCOME_UNKNOWN", false)
		require.Equal(t, 1, ran)
		m.Fail("Settle", storetest.Before, 0)
	})
}

func TestCodec_WritesWhatAnAnswerHas(t *testing.T) {
	codec := idemgrpc.Codec()
	unknown := new(pb.SimpleResponse)
	require.NoError(t, proto.Unmarshal([]byte{0xfa, 0x3f, 1, 'x'}, unknown)) // a field that this version does not know
	refused, err := status.New(codes.InvalidArgument, "no").WithDetails(wrapperspb.Int64(7))
	require.NoError(t, err)
	for name, r := range map[string]*idemgrpc.Response{
		"nil":            nil,
		"empty":          {},
		"message":        {Message: &pb.SimpleResponse{Username: "receipt"}},
		"empty message":  {Message: new(pb.Empty)},
		"unknown fields": {Message: unknown},
		"status":         {Status: refused, Header: metadata.Pairs("a", "1", "a", "", "b-bin", "\xff"), Trailer: metadata.Pairs("c", "3")},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := codec.EncodeValue(r)
			require.NoError(t, err)
			read, err := codec.DecodeValue(data)
			require.NoError(t, err)
			if r == nil {
				require.Nil(t, read)
				return
			}
			require.True(t, proto.Equal(r.Message, read.Message))
			require.Equal(t, r.Status.Code(), read.Status.Code())
			require.True(t, proto.Equal(r.Status.Proto(), read.Status.Proto()))
			require.Equal(t, r.Header, read.Header)
			require.Equal(t, r.Trailer, read.Trailer)
			again, err := codec.EncodeValue(read)
			require.NoError(t, err)
			require.Equal(t, data, again)
		})
	}
	for _, bad := range []string{"", "{", `{"type":"type.googleapis.com/not.Linked"}`, `{"type":"type.googleapis.com/grpc.testing.SimpleResponse","message":"/w=="}`, `{"status":"/w=="}`} {
		_, err := codec.DecodeValue([]byte(bad))
		require.Error(t, err, bad)
	}
}

func TestCodec_AMessageThatIsNotLinkedInIsNotRunAgain(t *testing.T) {
	m := storetest.Mem()
	a := process(t, m, receipt)
	require.NoError(t, a.client(t).call(t.Context(), "k", "pay").Err)
	codec := idemgrpc.Codec()
	codec.DecodeValue = func([]byte) (*idemgrpc.Response, error) { return nil, errors.New("not linked in") }
	b := serve(t, idemgrpc.Options{Cache: cacheOf(func(o *idemflight.Options[idemflight.Key, *idemgrpc.Response]) { o.Store, o.Codec = m, codec })}, receipt)
	requireProblem(t, b.client(t).call(t.Context(), "k", "pay"), codes.Unavailable, "STORE", true)
	require.Zero(t, b.runs.Load())
}

// What is kept outlives a restart without a Store, too.
func TestCodec_SavesAndLoads(t *testing.T) {
	a := serve(t, idemgrpc.Options{}, receipt)
	require.NoError(t, a.client(t).call(t.Context(), "k", "pay").Err)
	file := new(bytes.Buffer)
	require.NoError(t, a.keys.Cache().Save(file))
	b := serve(t, idemgrpc.Options{}, receipt)
	_, err := b.keys.Cache().Load(t.Context(), file)
	require.NoError(t, err)
	got := b.client(t).call(t.Context(), "k", "pay")
	require.True(t, got.replayed())
	require.Equal(t, "receipt", got.Body)
}
