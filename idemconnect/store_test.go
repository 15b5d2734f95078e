package idemconnect_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemconnect"
	"github.com/idemflight/idemflight/storetest"
)

// process is a server over m, as another process would have it.
func process(t *testing.T, m idemflight.Store, h handler) *server {
	return serve(t, idemconnect.Options{Cache: cacheOf(func(o *cacheOptions) { o.Store = m })}, h)
}

// neverRuns is a handler that must not run.
func neverRuns(t *testing.T) handler {
	return func(context.Context, string) (string, error) { t.Error("the handler runs"); return "", nil }
}

func TestStore_AnotherServerReplays(t *testing.T) {
	m := storetest.Mem()
	a, b := process(t, m, everything), process(t, m, neverRuns(t))
	ca, cb := a.client(t), b.client(t)
	for key, body := range map[string]string{"ok": "rent", "refused": "nothing"} {
		first := ca.call(t.Context(), key, body)
		for range 2 { // from the store, and from memory
			again := cb.call(t.Context(), key, body)
			require.True(t, again.replayed())
			require.Equal(t, first.Body, again.Body)
			require.Equal(t, first.code(), again.code())
			require.Equal(t, first.message(), again.message())
			require.Equal(t, errorIn(first.Err).Details(), errorIn(again.Err).Details())
			require.Equal(t, []string{"/payments/" + body}, again.Header.Values("location"))
			require.Equal(t, []string{"1", "2"}, again.Trailer.Values("checksum"))
		}
		requireProblem(t, cb.call(t.Context(), key, "another"), connect.CodeInvalidArgument, "KEY_REUSED", false)
	}
}

func TestStore_ThatCannotBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		m.Fail("Claim", storetest.Before, -1)
		keys := keysOf(t, idemconnect.Options{Cache: cacheOf(func(o *cacheOptions) { o.Store = m })})
		defer keys.Cache().Close(t.Context())
		s := newServer(keys, receipt, keys.Server())
		c := s.inProcess()
		requireProblem(t, c.call(t.Context(), "k", "pay"), connect.CodeUnavailable, "STORE", true)
		require.Zero(t, s.runs.Load())

		m.Fail("Claim", storetest.Before, 0)
		m.Fail("Settle", storetest.Before, -1)
		require.NoError(t, c.call(t.Context(), "k", "pay").Err, "the executing call has its answer")
		requireProblem(t, c.call(t.Context(), "k", "pay"), connect.CodeFailedPrecondition, "OUTCOME_UNKNOWN", false)
		require.EqualValues(t, 1, s.runs.Load())
		m.Fail("Settle", storetest.Before, 0)
	})
}

func TestCodec_WritesWhatAnAnswerHas(t *testing.T) {
	codec := idemconnect.Codec()
	unknown := new(emptypb.Empty)
	require.NoError(t, proto.Unmarshal([]byte{0xfa, 0x3f, 1, 'x'}, unknown)) // a field that this version does not know
	detail, err := connectproto.NewErrorDetail(wrapperspb.Int64(7))
	require.NoError(t, err)
	refused := connect.NewError(connect.CodeInvalidArgument, "no").WithDetail(detail)
	for name, r := range map[string]*idemconnect.Response{
		"nil":            nil,
		"empty":          {},
		"message":        {Message: text("receipt")},
		"empty message":  {Message: new(emptypb.Empty)},
		"unknown fields": {Message: unknown},
		"error":          {Err: refused, Header: map[string][]string{"A": {"1", ""}, "B": {"\xff"}}, Trailer: map[string][]string{"C": {"3"}}},
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
			require.Equal(t, r.Err, read.Err)
			require.Equal(t, r.Header, read.Header)
			require.Equal(t, r.Trailer, read.Trailer)
			again, err := codec.EncodeValue(read)
			require.NoError(t, err)
			require.Equal(t, data, again)
		})
	}
	for _, bad := range []string{"", "{", `{"type":"type.googleapis.com/not.Linked"}`,
		`{"type":"type.googleapis.com/google.protobuf.StringValue","message":"/w=="}`, `{"status":"/w=="}`} {
		_, err := codec.DecodeValue([]byte(bad))
		require.Error(t, err, bad)
	}
}

func TestCodec_AMessageThatIsNotLinkedInIsNotRunAgain(t *testing.T) {
	m := storetest.Mem()
	require.NoError(t, process(t, m, receipt).client(t).call(t.Context(), "k", "pay").Err)
	codec := idemconnect.Codec()
	codec.DecodeValue = func([]byte) (*idemconnect.Response, error) { return nil, errors.New("not linked in") }
	b := serve(t, idemconnect.Options{Cache: cacheOf(func(o *cacheOptions) { o.Store, o.Codec = m, codec })}, neverRuns(t))
	requireProblem(t, b.client(t).call(t.Context(), "k", "pay"), connect.CodeUnavailable, "STORE", true)
}

// What is kept outlives a restart without a Store, too.
func TestCodec_SavesAndLoads(t *testing.T) {
	a := serve(t, idemconnect.Options{}, receipt)
	require.NoError(t, a.client(t).call(t.Context(), "k", "pay").Err)
	file := new(bytes.Buffer)
	require.NoError(t, a.keys.Cache().Save(file))
	b := serve(t, idemconnect.Options{}, neverRuns(t))
	_, err := b.keys.Cache().Load(t.Context(), file)
	require.NoError(t, err)
	got := b.client(t).call(t.Context(), "k", "pay")
	require.True(t, got.replayed())
	require.Equal(t, "receipt", got.Body)
}
