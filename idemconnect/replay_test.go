package idemconnect_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemconnect"
)

// around is an interceptor that runs before, and after, what is inside of it.
func around(before, after func(*connect.CallInfo)) connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			info, _ := connect.CallInfoForServerContext(ctx)
			before(info)
			err := next(ctx, spec, stream)
			after(info)
			return err
		}
	}
}

func nothing(*connect.CallInfo) {}

func TestReplay_IsWithoutWhatBelongsToTheFirstCall(t *testing.T) {
	s := serve(t, idemconnect.Options{}, func(ctx context.Context, _ string) (string, error) {
		info, _ := connect.CallInfoForServerContext(ctx)
		for _, name := range []string{"set-cookie", "x-request-id", "traceparent", "ratelimit-limit", "access-control-allow-origin", "kept"} {
			info.ResponseHeader().Set(name, "1")
			info.ResponseTrailer().Set(name, "2")
		}
		info.ResponseHeader().Set(idemconnect.ReplayTrailer, "true") // of a service that was called, say
		info.ResponseTrailer().Set(idemconnect.ReplayTrailer, "true")
		return "receipt", nil
	})
	c := s.client(t)
	first, again := c.call(t.Context(), "k", "pay"), c.call(t.Context(), "k", "pay")
	require.Equal(t, "1", first.Header.Get("set-cookie"))
	require.Equal(t, "2", first.Trailer.Get("x-request-id"))
	require.False(t, first.replayed(), "a mark of the handler's does not count")
	require.False(t, first.Header.Has(idemconnect.ReplayTrailer))

	require.True(t, again.replayed())
	for _, name := range []string{"set-cookie", "x-request-id", "traceparent", "ratelimit-limit", "access-control-allow-origin"} {
		require.False(t, again.Header.Has(name), name)
		require.False(t, again.Trailer.Has(name), name)
	}
	require.Equal(t, []string{"1"}, again.Header.Values("kept"))
	require.Equal(t, []string{"2"}, again.Trailer.Values("kept"))
	kept := s.entry(t, "k").Value
	require.Equal(t, "1", kept.Header.Get("set-cookie"), "what is kept does not change")
	require.Empty(t, kept.Trailer.Get(idemconnect.ReplayTrailer))
}

func TestReplay_LeavesWhatInterceptorsOutsideSet(t *testing.T) {
	calls := 0
	s := serve(t, idemconnect.Options{}, func(ctx context.Context, _ string) (string, error) {
		info, _ := connect.CallInfoForServerContext(ctx)
		info.ResponseHeader().Set("location", "/payments/1")
		info.ResponseHeader().Add("changed", "by the handler")
		return "receipt", nil
	}, around(func(info *connect.CallInfo) {
		calls++
		info.ResponseHeader().Set("served", fmt.Sprint(calls))
		info.ResponseHeader().Set("changed", fmt.Sprint(calls))
		info.ResponseTrailer().Set("served", fmt.Sprint("call ", calls))
	}, nothing))
	c := s.client(t)
	c.call(t.Context(), "k", "pay")
	again := c.call(t.Context(), "k", "pay")
	require.Equal(t, []string{"2"}, again.Header.Values("served"))
	require.Equal(t, []string{"call 2"}, again.Trailer.Values("served"))
	require.Equal(t, []string{"/payments/1"}, again.Header.Values("location"))
	require.Equal(t, []string{"1", "by the handler"}, again.Header.Values("changed"))
}

func TestReplay_MetadataIsCopiedForEachAnswer(t *testing.T) {
	s := serve(t, idemconnect.Options{}, func(ctx context.Context, _ string) (string, error) {
		info, _ := connect.CallInfoForServerContext(ctx)
		info.ResponseHeader().Set("location", "/payments/1")
		info.ResponseTrailer().Set("checksum", "1")
		return "receipt", nil
	}, around(nothing, func(info *connect.CallInfo) {
		info.ResponseHeader().Values("location")[0] += " for this client"
		info.ResponseTrailer().Values("checksum")[0] += " for this client"
	}))
	c := s.inProcess()
	for range 3 {
		got := c.call(t.Context(), "k", "pay")
		require.Equal(t, "/payments/1 for this client", got.Header.Get("location"))
		require.Equal(t, "1 for this client", got.Trailer.Get("checksum"))
	}
}

// changes is an interceptor outside that changes each answer's message.
type changes struct {
	connect.ServerStream
	seen *[]*wrapperspb.StringValue
}

func (c *changes) Send(msg any) error {
	m := msg.(*wrapperspb.StringValue)
	m.Value += " for this client"
	*c.seen = append(*c.seen, m)
	return c.ServerStream.Send(m)
}

func TestMessages_AreCopiedForEachAnswer(t *testing.T) {
	var seen []*wrapperspb.StringValue
	keys := keysOf(t, idemconnect.Options{})
	s := newServer(keys, receipt, func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			return next(ctx, spec, &changes{stream, &seen})
		}
	}, keys.Server(), func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			return next(ctx, spec, &reuses{stream})
		}
	})
	s.listen(t)
	c := s.client(t)
	for range 3 {
		require.Equal(t, "receipt for this client", c.call(t.Context(), "k", "pay").Body)
	}
	require.NotSame(t, seen[0], seen[1])
	require.NotSame(t, seen[1], seen[2])
	require.Equal(t, "receipt", s.entry(t, "k").Value.Message.(*wrapperspb.StringValue).Value)
}

// reuses is an interceptor inside that has a message back in its pool once it is sent.
type reuses struct{ connect.ServerStream }

func (r *reuses) Send(msg any) error {
	err := r.ServerStream.Send(msg)
	msg.(*wrapperspb.StringValue).Value = "of another call"
	return err
}

func TestStream_OfAnExecutingHandler(t *testing.T) {
	var first, second, end error
	keys := keysOf(t, idemconnect.Options{})
	s := &server{keys: keys, server: connect.NewServer(keys.Server())}
	s.server.Register(connect.Method{Spec: specOf("Pay"), Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
		req := text("not empty")
		if err := stream.Receive(req); err != nil {
			return err
		}
		end = stream.Receive(req)
		if err := stream.SendHeaders(); err != nil {
			return err
		}
		info, _ := connect.CallInfoForServerContext(ctx)
		info.ResponseHeader().Set("late", "not for a unary call")
		first, second = stream.Send(text(req.Value)), stream.Send(text("again"))
		return nil
	}})
	s.listen(t)
	for range 2 {
		got := s.client(t).call(t.Context(), "k", "")
		require.NoError(t, got.Err)
		require.Empty(t, got.Body, "the request is read into an empty message")
		require.Equal(t, "not for a unary call", got.Header.Get("late"))
	}
	require.ErrorIs(t, end, io.EOF)
	require.NoError(t, first)
	require.Error(t, second)
}

// A Reconcile may know of an answer, and others are told to ask again until it does.
func TestReconcile_MakesAnUnknownOutcomeRetryable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known, asked := false, connect.Code(0)
		keys := keysOf(t, idemconnect.Options{Cache: cacheOf(func(o *cacheOptions) {
			o.Reconcile = func(_ context.Context, _ idemflight.Key, held idemflight.Entry[*idemconnect.Response]) (*idemconnect.Response, error) {
				asked = connect.CodeOf(held.Err)
				if !known {
					return nil, errors.New("the bank is down")
				}
				return &idemconnect.Response{Message: text("receipt"), Trailer: map[string][]string{"found": {"out"}}}, nil
			}
		})})
		defer keys.Cache().Close(t.Context())
		s := newServer(keys, fails(connect.NewError(connect.CodeDataLoss, "oops")), keys.Server())
		c := s.inProcess()
		require.Equal(t, connect.CodeDataLoss, c.call(t.Context(), "k", "pay").code())
		requireProblem(t, c.call(t.Context(), "k", "pay"), connect.CodeUnavailable, "OUTCOME_UNKNOWN", true)
		require.Equal(t, connect.CodeDataLoss, asked, "Reconcile is told the code")

		known = true
		time.Sleep(2 * time.Second) // it is not asked again at once
		for range 2 {
			got := c.call(t.Context(), "k", "pay")
			require.NoError(t, got.Err)
			require.Equal(t, "receipt", got.Body)
			require.Equal(t, []string{"out"}, got.Trailer.Values("found"))
			require.True(t, got.replayed())
		}
		require.EqualValues(t, 1, s.runs.Load())
	})
}

func TestExpiry_RunsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := keysOf(t, idemconnect.Options{})
		defer keys.Cache().Close(t.Context())
		c := newServer(keys, receipt, keys.Server()).inProcess()
		require.False(t, c.call(t.Context(), "k", "pay").replayed())
		time.Sleep(24*time.Hour - time.Second)
		require.True(t, c.call(t.Context(), "k", "pay").replayed())
		time.Sleep(2 * time.Second)
		require.False(t, c.call(t.Context(), "k", "pay").replayed())
	})
}

func TestMaxWait_IsHalfAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := keysOf(t, idemconnect.Options{})
		defer keys.Cache().Close(t.Context())
		h, begun, release := gate(receipt)
		c := newServer(keys, h, keys.Server()).inProcess()
		executing := c.async(t.Context(), "k", "pay")
		<-begun
		start := time.Now()
		requireProblem(t, c.call(t.Context(), "k", "pay"), connect.CodeUnavailable, "IN_FLIGHT", true)
		require.Equal(t, 30*time.Second, time.Since(start))
		release()
		require.NoError(t, (<-executing).Err)
	})
}
