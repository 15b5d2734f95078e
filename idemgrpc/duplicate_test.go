package idemgrpc_test

import (
	"context"
	"net"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemgrpc"
)

func TestStorm_OfDuplicatesRunsOnce(t *testing.T) {
	h, begun, release := gate("receipt")
	defer release()
	const each = 30
	s := serve(t, idemgrpc.Options{}, h)
	var answers []<-chan answer
	for range 3 {
		c := s.client(t)
		for range each {
			answers = append(answers, c.async(t.Context(), "k", "pay"))
		}
	}
	<-begun
	s.waiters(t, 3*each-1)
	release()
	marked := 0
	for _, got := range answers {
		a := <-got
		require.NoError(t, a.Err)
		require.Equal(t, "receipt", a.Body)
		if a.replayed() {
			marked++
		}
	}
	require.EqualValues(t, 1, s.runs.Load())
	require.Equal(t, 3*each-1, marked, "all but the executing one are marked")
}

// attempts counts the attempts that arrive at a server.
type attempts struct{ first, again atomic.Int64 }

func (a *attempts) count(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if md, _ := metadata.FromIncomingContext(ctx); len(md["grpc-previous-rpc-attempts"]) > 0 {
		a.again.Add(1)
	} else {
		a.first.Add(1)
	}
	return handler(ctx, req)
}

const retryPolicy = `{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.01s",
	"maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`

func TestRetryPolicy_RetriesWhatIsRetryableUnasked(t *testing.T) {
	h, begun, release := gate("receipt")
	defer release()
	var n attempts
	s := serve(t, idemgrpc.Options{MaxWait: idemflight.NoWait}, h, n.count)
	executing := s.client(t).async(t.Context(), "k", "pay")
	<-begun
	retrying := s.client(t, grpc.WithDefaultServiceConfig(retryPolicy)).async(t.Context(), "k", "pay")
	until(t, "it is retried", func() bool { return n.again.Load() > 0 })
	release()
	require.NoError(t, (<-executing).Err)
	got := <-retrying
	require.NoError(t, got.Err)
	require.Equal(t, "receipt", got.Body)
	require.True(t, got.replayed())
	require.EqualValues(t, 1, s.runs.Load())
}

func TestRetryPolicy_OfAHandlersUnavailable(t *testing.T) {
	for name, tt := range map[string]struct {
		say  func(context.Context)
		runs int64
		code codes.Code
	}{
		"said nothing": {func(context.Context) {}, 1, codes.FailedPrecondition},
		"BeginEffect":  {func(ctx context.Context) { _ = idemflight.BeginEffect(ctx) }, 1, codes.FailedPrecondition},
		"NoEffect":     {func(ctx context.Context) { idemflight.NoEffect(ctx) }, 3, codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			var s *server
			s = serve(t, idemgrpc.Options{}, func(ctx context.Context, _ string) (string, error) {
				tt.say(ctx)
				if s.runs.Load() == 3 {
					return "receipt", nil
				}
				return "", status.Error(codes.Unavailable, "the bank is down")
			})
			got := s.client(t, grpc.WithDefaultServiceConfig(retryPolicy)).call(t.Context(), "k", "pay")
			require.Equal(t, tt.code, got.code())
			require.Equal(t, tt.runs, s.runs.Load())
			if tt.code != codes.OK {
				require.Equal(t, "OUTCOME_UNKNOWN", got.reason())
			}
		})
	}
}

// grpc-go does not hedge. Clients in other languages do: they send copies of a call at once, with one key, which is a
// storm.
func TestHedging_IsNotDoneByThisClient(t *testing.T) {
	h, begun, release := gate("receipt")
	defer release()
	var n attempts
	s := serve(t, idemgrpc.Options{}, h, n.count)
	c := s.client(t, grpc.WithDefaultServiceConfig(`{"methodConfig": [{"name": [{}], "hedgingPolicy": {"maxAttempts": 3, "hedgingDelay": "0s"}}]}`))
	got := c.async(t.Context(), "k", "pay")
	<-begun
	release()
	require.NoError(t, (<-got).Err)
	require.EqualValues(t, 1, n.first.Load())
	require.Zero(t, n.again.Load())
}

func TestDeadline_OfTheClientDoesNotEndTheWork(t *testing.T) {
	contexts, release := make(chan context.Context, 1), make(chan struct{})
	s := serve(t, idemgrpc.Options{}, func(ctx context.Context, _ string) (string, error) {
		contexts <- ctx
		<-release
		return "receipt", ctx.Err()
	})
	c := s.client(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	impatient := c.async(ctx, "k", "pay")
	handlers := <-contexts
	cancel()
	require.Equal(t, codes.Canceled, (<-impatient).code())
	require.NoError(t, handlers.Err())
	deadline, ok := handlers.Deadline()
	require.True(t, ok)
	require.Less(t, time.Until(deadline), 10*time.Minute, "it is that of the cache's ExecTimeout")

	retry := c.async(t.Context(), "k", "pay")
	s.waiters(t, 1)
	close(release)
	got := <-retry
	require.NoError(t, got.Err)
	require.Equal(t, "receipt", got.Body)
	require.True(t, got.replayed())
	require.EqualValues(t, 1, s.runs.Load())
	require.Error(t, handlers.Err(), "it ends with the handler")
}

func TestDeadline_OfADuplicateThatWaits(t *testing.T) {
	h, begun, release := gate("receipt")
	defer release()
	left := make(chan error, 1)
	s := serve(t, idemgrpc.Options{}, h, func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if md, _ := metadata.FromIncomingContext(ctx); len(md["late"]) > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			resp, err := handler(ctx, req)
			left <- err
			return resp, err
		}
		return handler(ctx, req)
	})
	c := s.client(t)
	executing := c.async(t.Context(), "k", "pay")
	<-begun
	got := c.call(metadata.AppendToOutgoingContext(t.Context(), "late", "1"), "k", "pay")
	require.Equal(t, codes.DeadlineExceeded, got.code())
	require.Equal(t, "LEFT", got.reason())
	require.Error(t, <-left)
	release()
	require.NoError(t, (<-executing).Err)
}

func TestGracefulStop_WaitsForAnExecution(t *testing.T) {
	for _, gone := range []bool{false, true} {
		h, begun, release := gate("receipt")
		defer release()
		var stack atomic.Value
		s := serve(t, idemgrpc.Options{}, func(ctx context.Context, body string) (string, error) {
			stack.Store(string(debug.Stack()))
			return h(ctx, body)
		})
		c := s.client(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		executing := c.async(ctx, "k", "pay")
		<-begun
		require.Contains(t, stack.Load(), "grpc.(*Server).", "it runs on the server's goroutine")
		if gone {
			cancel()
			require.Equal(t, codes.Canceled, (<-executing).code())
		}
		stopped := make(chan struct{})
		go func() { s.grpc.GracefulStop(); close(stopped) }()
		until(t, "the server accepts nobody", func() bool {
			conn, err := net.Dial("tcp", s.addr)
			if err == nil {
				_ = conn.Close()
			}
			return err != nil
		})
		select {
		case <-stopped:
			t.Fatal("it has stopped, and an execution runs")
		default:
		}
		release()
		<-stopped
		if !gone {
			got := <-executing
			require.NoError(t, got.Err)
			require.Equal(t, "receipt", got.Body)
		}
		require.Equal(t, idemflight.Retained, s.state(t, "k"))
	}
}

func TestAReleasedAnswer_IsSharedByThoseWhoWait(t *testing.T) {
	begun, release := make(chan struct{}, 1), make(chan struct{})
	s := serve(t, idemgrpc.Options{}, func(context.Context, string) (string, error) {
		begun <- struct{}{}
		<-release
		return "", status.Error(codes.NotFound, "no such account")
	})
	c := s.client(t)
	executing := c.async(t.Context(), "k", "pay")
	<-begun
	waiting := c.async(t.Context(), "k", "pay")
	s.waiters(t, 1)
	close(release)
	require.Equal(t, codes.NotFound, (<-executing).code())
	got := <-waiting
	require.Equal(t, codes.NotFound, got.code())
	require.Equal(t, "no such account", status.Convert(got.Err).Message())
	require.True(t, got.replayed())
}

func TestAHeldKey_IsUnknownToThoseWhoWait(t *testing.T) {
	begun, release := make(chan struct{}, 1), make(chan struct{})
	s := serve(t, idemgrpc.Options{}, func(context.Context, string) (string, error) {
		begun <- struct{}{}
		<-release
		return "", status.Error(codes.Internal, "oops")
	})
	c := s.client(t)
	executing := c.async(t.Context(), "k", "pay")
	<-begun
	waiting := c.async(t.Context(), "k", "pay")
	s.waiters(t, 1)
	close(release)
	require.Equal(t, codes.Internal, (<-executing).code())
	got := <-waiting
	require.Equal(t, codes.FailedPrecondition, got.code())
	require.Equal(t, "OUTCOME_UNKNOWN", got.reason())
	require.False(t, got.retryable())
	require.False(t, got.replayed())
}
