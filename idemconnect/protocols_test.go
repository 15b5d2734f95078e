package idemconnect_test

import (
	"context"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemconnect"
)

// everything is a handler with a situation for each text.
func everything(ctx context.Context, body string) (string, error) {
	info, _ := connect.CallInfoForServerContext(ctx)
	info.ResponseHeader().Set("location", "/payments/"+body)
	info.ResponseTrailer().Add("checksum", "1")
	info.ResponseTrailer().Add("checksum", "2")
	idemflight.NoEffect(ctx)
	switch body {
	case "nothing":
		detail, err := connectproto.NewErrorDetail(&errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "amount"}}})
		if err != nil {
			return "", err
		}
		return "", idemflight.Final(connect.NewError(connect.CodeFailedPrecondition, "nothing to pay").WithDetail(detail))
	case "early":
		return "", connect.NewError(connect.CodeUnavailable, "not yet")
	}
	if err := idemflight.BeginEffect(ctx); err != nil {
		return "", err
	}
	if body == "lost" {
		return "", connect.NewError(connect.CodeInternal, "the bank does not answer")
	}
	return "receipt for " + body, nil
}

func TestProtocols_TheMainSituations(t *testing.T) {
	for name, opts := range protocols {
		t.Run(name, func(t *testing.T) {
			s := serve(t, idemconnect.Options{}, everything)
			c := s.client(t, opts...)

			// Success and a final error are replayed: message, code, details, header and trailer.
			for key, body := range map[string]string{"ok": "rent", "refused": "nothing"} {
				first, again := c.call(t.Context(), key, body), c.call(t.Context(), key, body)
				require.False(t, first.replayed())
				require.True(t, again.replayed())
				for _, got := range []answer{first, again} {
					require.Equal(t, []string{"/payments/" + body}, got.Header.Values("location"))
					require.Equal(t, []string{"1", "2"}, got.Trailer.Values("checksum"))
				}
				require.Equal(t, first.Body, again.Body)
				require.Equal(t, first.code(), again.code())
				require.Equal(t, errorIn(first.Err).Details(), errorIn(again.Err).Details())
				requireProblem(t, c.call(t.Context(), key, "another"), connect.CodeInvalidArgument, "KEY_REUSED", false)
			}
			refused := c.call(t.Context(), "refused", "nothing")
			require.Equal(t, connect.CodeFailedPrecondition, refused.code())
			require.Equal(t, "nothing to pay", refused.message())
			require.Len(t, details(refused.Err), 1)
			require.Equal(t, "receipt for rent", c.call(t.Context(), "ok", "rent").Body)
			require.EqualValues(t, 2, s.runs.Load())

			// What failed before the effect runs again, after it never.
			for range 2 {
				early := c.call(t.Context(), "early", "early")
				require.Equal(t, connect.CodeUnavailable, early.code())
				require.False(t, early.replayed())
			}
			require.EqualValues(t, 4, s.runs.Load())
			require.Equal(t, connect.CodeInternal, c.call(t.Context(), "lost", "lost").code())
			requireProblem(t, c.call(t.Context(), "lost", "lost"), connect.CodeFailedPrecondition, "OUTCOME_UNKNOWN", false)
			require.EqualValues(t, 5, s.runs.Load())

			// Without a key, and with one on a stream.
			require.False(t, c.call(t.Context(), "", "rent").replayed())
			require.False(t, c.call(t.Context(), "", "rent").replayed())
			require.NoError(t, c.watch(t, ""))
			requireProblem(t, answer{Err: c.watch(t, "k")}, connect.CodeInvalidArgument, "STREAMING", false)
			require.EqualValues(t, 1, s.streamed.Load())
		})
	}
}

// watch calls the stream and reads it to its end.
func (c *client) watch(t testing.TB, key string) error {
	t.Helper()
	ctx, info := connect.NewClientContext(t.Context())
	if key != "" {
		info.RequestHeader().Set("idempotency-key", key)
	}
	stream, err := c.CallServerStream(ctx, specOf("Watch"), text("rent"))
	require.NoError(t, err)
	defer stream.Close()
	return receiveAll(stream)
}

func TestProtocols_ARetryMayComeByAnotherOne(t *testing.T) {
	s := serve(t, idemconnect.Options{}, everything)
	require.False(t, s.client(t).call(t.Context(), "k", "rent").replayed())
	for name, opts := range protocols {
		got := s.client(t, opts...).call(t.Context(), "k", "rent")
		require.NoError(t, got.Err, name)
		require.Equal(t, "receipt for rent", got.Body, name)
		require.True(t, got.replayed(), name)
	}
	require.EqualValues(t, 1, s.runs.Load())
}
