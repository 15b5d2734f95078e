package idemgrpc_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemgrpc"
)

func TestReplay_HasHeaderTrailerAndDetails(t *testing.T) {
	s := serve(t, idemgrpc.Options{}, func(ctx context.Context, body string) (string, error) {
		_ = grpc.SetHeader(ctx, metadata.Pairs("location", "/payments/1", "bytes-bin", "\x00\xff"))
		if err := grpc.SendHeader(ctx, metadata.Pairs("location", "/payments/2")); err != nil {
			return "", err
		}
		if err := grpc.SetHeader(ctx, metadata.Pairs("late", "1")); err == nil {
			return "", status.Error(codes.Internal, "a header after SendHeader")
		}
		_ = grpc.SetTrailer(ctx, metadata.Pairs("checksum", "1", idemgrpc.ReplayTrailer, "true"))
		if method, ok := grpc.Method(ctx); !ok || method != pb.TestService_UnaryCall_FullMethodName {
			return "", status.Error(codes.Internal, "no method")
		}
		if body == "" {
			refused, err := status.New(codes.InvalidArgument, "nothing to pay").WithDetails(&errdetails.BadRequest{})
			if err != nil {
				return "", err
			}
			return "", refused.Err()
		}
		return "receipt", nil
	})
	c := s.client(t)
	for key, body := range map[string]string{"ok": "pay", "refused": ""} {
		t.Run(key, func(t *testing.T) {
			first := c.call(t.Context(), key, body)
			require.Equal(t, []string{"/payments/1", "/payments/2"}, first.Header["location"])
			require.Equal(t, []string{"\x00\xff"}, first.Header["bytes-bin"])
			require.Equal(t, []string{"1"}, first.Trailer["checksum"])
			require.False(t, first.replayed(), "a mark of the handler's does not count")
			for range 2 {
				again := c.call(t.Context(), key, body)
				require.True(t, again.replayed())
				require.Equal(t, first.Body, again.Body)
				require.True(t, proto.Equal(status.Convert(first.Err).Proto(), status.Convert(again.Err).Proto()), "details included")
				require.Equal(t, first.Header, again.Header)
				delete(again.Trailer, idemgrpc.ReplayTrailer)
				require.Equal(t, first.Trailer, again.Trailer)
			}
		})
	}
}

func TestReplay_IsWithoutWhatBelongsToTheFirstCall(t *testing.T) {
	s := serve(t, idemgrpc.Options{}, func(ctx context.Context, _ string) (string, error) {
		md := metadata.Pairs("set-cookie", "session=ann", "x-request-id", "1", "traceparent", "00-1", "ratelimit-limit", "9", "kept", "1")
		_ = grpc.SetHeader(ctx, md)
		_ = grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "10", "x-ratelimit-reset", "9", "kept", "2"))
		return "receipt", nil
	})
	c := s.client(t)
	first := c.call(t.Context(), "k", "pay")
	require.Equal(t, []string{"session=ann"}, first.Header["set-cookie"])
	require.Equal(t, []string{"9"}, first.Trailer["x-ratelimit-reset"])
	again := c.call(t.Context(), "k", "pay")
	require.Equal(t, metadata.MD{"content-type": first.Header["content-type"], "kept": {"1"}}, again.Header)
	require.Equal(t, metadata.MD{"kept": {"2"}, idemgrpc.ReplayTrailer: {"true"}}, again.Trailer)
	e, _, err := s.keys.Cache().Lookup(t.Context(), sharedKey("k"))
	require.NoError(t, err)
	require.Equal(t, []string{"session=ann"}, e.Value.Header["set-cookie"], "what is kept does not change")
	require.Empty(t, e.Value.Trailer[idemgrpc.ReplayTrailer])
}

func TestReplay_OfMuchMetadata(t *testing.T) {
	big := strings.Repeat("x", 64<<10)
	s := serve(t, idemgrpc.Options{}, func(ctx context.Context, _ string) (string, error) {
		for n := range 8 {
			_ = grpc.SetHeader(ctx, metadata.Pairs(fmt.Sprint("header-", n), big))
			_ = grpc.SetTrailer(ctx, metadata.Pairs(fmt.Sprint("trailer-", n), big))
		}
		return "receipt", nil
	})
	small := s.client(t, grpc.WithMaxHeaderListSize(8<<10)).call(t.Context(), "k", "pay")
	require.Error(t, small.Err, "this client does not accept so much")
	for range 2 {
		got := s.client(t).call(t.Context(), "k", "pay")
		require.NoError(t, got.Err)
		require.True(t, got.replayed())
		for n := range 8 {
			require.Equal(t, []string{big}, got.Header[fmt.Sprint("header-", n)])
			require.Equal(t, []string{big}, got.Trailer[fmt.Sprint("trailer-", n)])
		}
	}
	require.EqualValues(t, 1, s.runs.Load())
}

func TestMessages_AreClonedForEachAnswer(t *testing.T) {
	var seen []*pb.SimpleResponse
	s := serve(t, idemgrpc.Options{}, receipt, func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		resp, err := handler(ctx, req)
		if m, ok := resp.(*pb.SimpleResponse); ok {
			seen = append(seen, m)
			m.Username += " for this client"
		}
		return resp, err
	})
	c := s.client(t)
	for range 3 {
		require.Equal(t, "receipt for this client", c.call(t.Context(), "k", "pay").Body)
	}
	require.NotSame(t, seen[0], seen[1])
	require.NotSame(t, seen[1], seen[2])
	e, _, err := s.keys.Cache().Lookup(t.Context(), sharedKey("k"))
	require.NoError(t, err)
	require.Equal(t, "receipt", e.Value.Message.(*pb.SimpleResponse).Username)
}

func TestMetadata_IsCopiedForEachAnswer(t *testing.T) {
	md := metadata.Pairs("location", "/payments/1")
	s := serve(t, idemgrpc.Options{}, func(ctx context.Context, _ string) (string, error) {
		_ = grpc.SetHeader(ctx, md)
		return "receipt", nil
	})
	c := s.client(t)
	c.call(t.Context(), "k", "pay")
	md["location"][0] = "changed"
	require.Equal(t, []string{"/payments/1"}, c.call(t.Context(), "k", "pay").Header["location"])
}

func TestMetadata_ThatComesTooLateIsRefused(t *testing.T) {
	var late context.Context
	s := serve(t, idemgrpc.Options{}, func(ctx context.Context, _ string) (string, error) {
		late = ctx
		return "receipt", nil
	})
	c := s.client(t)
	require.NoError(t, c.call(t.Context(), "k", "pay").Err)
	require.Error(t, grpc.SetHeader(late, metadata.Pairs("late", "1")))
	require.Error(t, grpc.SendHeader(late, metadata.Pairs("late", "1")))
	require.Error(t, grpc.SetTrailer(late, metadata.Pairs("late", "1")))
	again := c.call(t.Context(), "k", "pay")
	require.Empty(t, again.Header["late"])
	require.Empty(t, again.Trailer["late"])
}

// A Reconcile may know of an answer, and others are told to ask again until it does.
func TestReconcile_MakesAnUnknownOutcomeRetryable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known, asked, runs := false, codes.OK, 0
		keys := keysOf(t, idemgrpc.Options{Cache: cacheOf(func(o *idemflight.Options[idemflight.Key, *idemgrpc.Response]) {
			o.Reconcile = func(_ context.Context, _ idemflight.Key, held idemflight.Entry[*idemgrpc.Response]) (*idemgrpc.Response, error) {
				asked = status.Code(held.Err)
				if !known {
					return nil, status.Error(codes.Unavailable, "the bank is down")
				}
				return &idemgrpc.Response{Message: &pb.SimpleResponse{Username: "receipt"}, Trailer: metadata.Pairs("found", "out")}, nil
			}
		})})
		defer keys.Cache().Close(t.Context())
		fails := func(context.Context, string) (string, error) { runs++; return "", status.Error(codes.DataLoss, "oops") }
		require.Equal(t, codes.DataLoss, callDirectly(t.Context(), keys, "k", fails).code())
		requireProblem(t, callDirectly(t.Context(), keys, "k", fails), codes.Unavailable, "OUTCOME_UNKNOWN", true)
		require.Equal(t, codes.DataLoss, asked, "Reconcile is told the status")

		known = true
		time.Sleep(2 * time.Second) // it is not asked again at once
		for range 2 {
			got := callDirectly(t.Context(), keys, "k", fails)
			require.NoError(t, got.Err)
			require.Equal(t, "receipt", got.Body)
			require.Equal(t, []string{"out"}, got.Trailer["found"])
			require.True(t, got.replayed())
		}
		require.Equal(t, 1, runs)
	})
}

func TestExpiry_RunsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := keysOf(t, idemgrpc.Options{})
		defer keys.Cache().Close(t.Context())
		require.False(t, callDirectly(t.Context(), keys, "k", receipt).replayed())
		time.Sleep(24*time.Hour - time.Second)
		require.True(t, callDirectly(t.Context(), keys, "k", receipt).replayed())
		time.Sleep(2 * time.Second)
		require.False(t, callDirectly(t.Context(), keys, "k", receipt).replayed())
	})
}

func TestMaxWait_IsHalfAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := keysOf(t, idemgrpc.Options{})
		defer keys.Cache().Close(t.Context())
		h, begun, release := gate("receipt")
		executing := make(chan answer, 1)
		go func() { executing <- callDirectly(t.Context(), keys, "k", h) }()
		<-begun
		start := time.Now()
		requireProblem(t, callDirectly(t.Context(), keys, "k", h), codes.Unavailable, "IN_FLIGHT", true)
		require.Equal(t, 30*time.Second, time.Since(start))
		release()
		require.NoError(t, (<-executing).Err)
	})
}

func TestAnswersThatCannotBeSent(t *testing.T) {
	s := serve(t, idemgrpc.Options{}, func(context.Context, string) (string, error) { return "", status.Error(codes.Internal, "oops") })
	c := s.client(t)
	for key, resolved := range map[string]*idemgrpc.Response{"nil": nil, "empty": {}, "status alone": {Status: status.New(codes.OK, "")}} {
		key = strings.ReplaceAll(key, " ", "-")
		c.call(t.Context(), key, "pay")
		require.NoError(t, s.keys.Cache().Resolve(t.Context(), sharedKey(key), resolved, nil))
		got := c.call(t.Context(), key, "pay")
		require.Equal(t, codes.FailedPrecondition, got.code(), key)
		require.Equal(t, "ANSWER_UNAVAILABLE", got.reason(), key)
	}
	require.NoError(t, func() error {
		c.call(t.Context(), "declined", "pay")
		return s.keys.Cache().Resolve(t.Context(), sharedKey("declined"), &idemgrpc.Response{Status: status.New(codes.Aborted, "declined")}, nil)
	}())
	require.Equal(t, codes.Aborted, c.call(t.Context(), "declined", "pay").code())
}
