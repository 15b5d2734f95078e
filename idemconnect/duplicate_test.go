package idemconnect_test

import (
	"context"
	"net"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemconnect"
)

func TestStorm_OfDuplicatesRunsOnce(t *testing.T) {
	h, begun, release := gate(receipt)
	defer release()
	const each = 20
	s := serve(t, idemconnect.Options{}, h)
	var answers []<-chan answer
	for _, opts := range protocols {
		c := s.client(t, opts...)
		for range each {
			answers = append(answers, c.async(t.Context(), "k", "pay"))
		}
	}
	<-begun
	s.waiters(t, len(answers)-1)
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
	require.Equal(t, len(answers)-1, marked, "all but the executing one are marked")
}

func TestDeadline_OfTheClientDoesNotEndTheWork(t *testing.T) {
	contexts, release := make(chan context.Context, 1), make(chan struct{})
	s := serve(t, idemconnect.Options{}, func(ctx context.Context, _ string) (string, error) {
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
	require.Equal(t, connect.CodeCanceled, (<-impatient).code())
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
	for code, within := range map[connect.Code]func(context.Context) (context.Context, context.CancelFunc){
		connect.CodeDeadlineExceeded: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Millisecond)
		},
		connect.CodeCanceled: func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx, cancel
		},
	} {
		h, begun, release := gate(receipt)
		defer release()
		s := serve(t, idemconnect.Options{}, h, func(next connect.ServerFunc) connect.ServerFunc {
			return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
				if info, _ := connect.CallInfoForServerContext(ctx); info.RequestHeader().Has("late") {
					late, cancel := within(ctx)
					defer cancel()
					ctx = late
				}
				return next(ctx, spec, stream)
			}
		})
		c := s.client(t)
		executing := c.async(t.Context(), "k", "pay")
		<-begun
		got := c.callWith(t.Context(), map[string]string{"idempotency-key": "k", "late": "1"}, "Pay", "pay")
		requireProblem(t, got, code, "LEFT", false)
		release()
		require.NoError(t, (<-executing).Err)
	}
}

func TestShutdown_WaitsForAnExecution(t *testing.T) {
	for name, tt := range map[string]struct{ http1, gone bool }{
		"HTTP/1.1":              {http1: true},
		"HTTP/1.1, client gone": {http1: true, gone: true},
		"HTTP/2":                {},
	} {
		t.Run(name, func(t *testing.T) {
			h, begun, release := gate(receipt)
			defer release()
			var stack atomic.Value
			s := serve(t, idemconnect.Options{}, func(ctx context.Context, body string) (string, error) {
				stack.Store(string(debug.Stack()))
				return h(ctx, body)
			})
			c := s.client(t)
			c.transport.Protocols.SetHTTP1(tt.http1)
			c.transport.Protocols.SetUnencryptedHTTP2(!tt.http1)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			executing := c.async(ctx, "k", "pay")
			<-begun
			require.Contains(t, stack.Load(), "net/http.", "it runs on the server's goroutine")
			if tt.gone {
				cancel()
				require.Equal(t, connect.CodeCanceled, (<-executing).code())
			}
			stopped := make(chan error, 1)
			go func() { stopped <- s.http.Config.Shutdown(context.Background()) }()
			until(t, "the server accepts nobody", s.isDeaf)
			select {
			case <-stopped:
				t.Fatal("it has stopped, and an execution runs")
			default:
			}
			release()
			require.NoError(t, <-stopped)
			if !tt.gone {
				require.Equal(t, "receipt", (<-executing).Body)
			}
			require.Equal(t, idemflight.Retained, s.entry(t, "k").State)
		})
	}
}

// Over HTTP/2, net/http forgets a handler whose client has gone. The cache does not.
func TestShutdown_OverHTTP2WithoutItsClientIsFollowedByClose(t *testing.T) {
	h, begun, release := gate(receipt)
	defer release()
	s := serve(t, idemconnect.Options{}, h)
	ctx, cancel := context.WithCancel(t.Context())
	executing := s.client(t, connecthttp.WithGRPC()).async(ctx, "k", "pay")
	<-begun
	cancel()
	require.Equal(t, connect.CodeCanceled, (<-executing).code())
	require.NoError(t, s.http.Config.Shutdown(t.Context()))

	require.ErrorIs(t, s.keys.Cache().Close(ctx), context.Canceled, "the execution runs")
	release()
	require.NoError(t, s.keys.Cache().Close(t.Context()))
	require.Equal(t, idemflight.Retained, s.entry(t, "k").State)
}

// isDeaf reports whether s does not listen any more.
func (s *server) isDeaf() bool {
	conn, err := net.Dial("tcp", s.http.Listener.Addr().String())
	if err == nil {
		_ = conn.Close()
	}
	return err != nil
}

// What those who wait get of an outcome that is not kept.
func TestWaiting_ForAnOutcomeThatIsNotKept(t *testing.T) {
	for name, tt := range map[string]struct {
		err     error
		require func(t *testing.T, got answer)
	}{
		"released: the answer": {connect.NewError(connect.CodeNotFound, "no such account"), func(t *testing.T, got answer) {
			require.Equal(t, connect.CodeNotFound, got.code())
			require.Equal(t, "no such account", got.message())
			require.True(t, got.replayed())
		}},
		"held: that it is unknown": {connect.NewError(connect.CodeInternal, "oops"), func(t *testing.T, got answer) {
			requireProblem(t, got, connect.CodeFailedPrecondition, "OUTCOME_UNKNOWN", false)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h, begun, release := gate(fails(tt.err))
			s := serve(t, idemconnect.Options{}, h)
			c := s.client(t)
			executing := c.async(t.Context(), "k", "pay")
			<-begun
			waiting := c.async(t.Context(), "k", "pay")
			s.waiters(t, 1)
			release()
			require.Equal(t, connect.CodeOf(tt.err), (<-executing).code())
			tt.require(t, <-waiting)
		})
	}
}
