package idemconnect_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemconnect"
)

// recoveryOf is recovery outside of the interceptor, which keeps the first thing that it sees.
func recoveryOf(first *any) connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) (err error) {
			defer func() {
				if v := recover(); v != nil {
					*first, err = v, connect.NewError(connect.CodeInternal, "recovered")
				}
			}()
			return next(ctx, spec, stream)
		}
	}
}

func TestPanics_ReachRecoveryOutside(t *testing.T) {
	oops := errors.New("oops")
	for _, tt := range []struct {
		name      string
		say       func(context.Context)
		waiting   string
		code      connect.Code
		retryable bool
		runs      int64 // after one more call
	}{
		{"held", func(context.Context) {}, "OUTCOME_UNKNOWN", connect.CodeFailedPrecondition, false, 1},
		{"before an effect", func(ctx context.Context) { idemflight.NoEffect(ctx) }, "FAILED", connect.CodeUnavailable, true, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var seen any
			h, begun, release := gate(func(ctx context.Context, _ string) (string, error) { tt.say(ctx); panic(oops) })
			s := serve(t, idemconnect.Options{}, h, recoveryOf(&seen))
			c := s.client(t)
			executing := c.async(t.Context(), "k", "pay")
			<-begun
			waiting := c.async(t.Context(), "k", "pay")
			s.waiters(t, 1)
			release()
			require.Equal(t, "recovered", (<-executing).message())
			requireProblem(t, <-waiting, tt.code, tt.waiting, tt.retryable)
			require.Same(t, oops, seen)
			c.call(t.Context(), "k", "pay")
			require.Equal(t, tt.runs, s.runs.Load())
		})
	}
}

func TestPanics_OfScopeAreTheServers(t *testing.T) {
	var seen any
	s := serve(t, idemconnect.Options{Scope: func(context.Context, string) (string, error) { panic("scope") }}, receipt, recoveryOf(&seen))
	require.Equal(t, "recovered", s.client(t).call(t.Context(), "k", "pay").message())
	require.Equal(t, "scope", seen)
}

func TestChainedTwice_TheOuterOneSeesToIt(t *testing.T) {
	keys := keysOf(t, idemconnect.Options{})
	s := newServer(keys, func(ctx context.Context, body string) (string, error) {
		return "receipt for " + body, idemflight.BeginEffect(ctx)
	}, keys.Server(), keys.Server())
	s.listen(t)
	c := s.client(t)
	require.Equal(t, "receipt for rent", c.call(t.Context(), "k", "rent").Body)
	require.True(t, c.call(t.Context(), "k", "rent").replayed())
	require.EqualValues(t, 1, s.runs.Load())
}

func TestProblems_InFlightFullAndClosed(t *testing.T) {
	h, begun, release := gate(receipt)
	defer release()
	s := serve(t, idemconnect.Options{MaxWait: -1, Cache: cacheOf(func(o *cacheOptions) { o.MaxEntries = 1 })}, h)
	c := s.client(t)
	executing := c.async(t.Context(), "k", "pay")
	<-begun
	for _, opts := range protocols {
		requireProblem(t, s.client(t, opts...).call(t.Context(), "k", "pay"), connect.CodeUnavailable, "IN_FLIGHT", true)
	}
	requireProblem(t, c.call(t.Context(), "another", "pay"), connect.CodeUnavailable, "FULL", true)
	release()
	require.NoError(t, (<-executing).Err)
	require.NoError(t, s.keys.Cache().Close(t.Context()))
	requireProblem(t, c.call(t.Context(), "third", "pay"), connect.CodeUnavailable, "CLOSED", true)
	require.EqualValues(t, 1, s.runs.Load())
}

func TestProblems_OfAnswersThatCannotBeSent(t *testing.T) {
	s := serve(t, idemconnect.Options{}, fails(connect.NewError(connect.CodeInternal, "oops")))
	c := s.client(t)
	for key, resolved := range map[string]*idemconnect.Response{"nil": nil, "empty": {}} {
		c.call(t.Context(), key, "pay")
		require.NoError(t, s.keys.Cache().Resolve(t.Context(), sharedKey(key), resolved, nil))
		requireProblem(t, c.call(t.Context(), key, "pay"), connect.CodeFailedPrecondition, "ANSWER_UNAVAILABLE", false)
	}
	// The bank's word, as its client has it, is this server's own once somebody says that it is the answer.
	declined := connect.NewError(connect.CodeAborted, "declined").WithRemote()
	c.call(t.Context(), "declined", "pay")
	require.NoError(t, s.keys.Cache().Resolve(t.Context(), sharedKey("declined"), &idemconnect.Response{Err: declined}, nil))
	got := c.call(t.Context(), "declined", "pay")
	require.Equal(t, connect.CodeAborted, got.code())
	require.Equal(t, "declined", got.message())
}

// An error of a call that the handler made, to a service that has keys too, is no answer of this cache.
func TestProblems_OfAnInnerCacheAreTheHandlersOwn(t *testing.T) {
	s := serve(t, idemconnect.Options{}, fails(idemflight.ErrKeyReused))
	c := s.client(t)
	require.Equal(t, connect.CodeUnknown, c.call(t.Context(), "k", "pay").code())
	requireProblem(t, c.call(t.Context(), "k", "pay"), connect.CodeFailedPrecondition, "OUTCOME_UNKNOWN", false)
}

func TestDefaultCacheOptions_WeighAnAnswer(t *testing.T) {
	weigh := idemconnect.DefaultCacheOptions().Weigh
	key, long := sharedKey("k"), strings.Repeat("x", 1000)
	light := weigh(key, &idemconnect.Response{Message: new(emptypb.Empty)})
	require.Less(t, weigh(key, nil), light)
	for _, heavy := range []*idemconnect.Response{
		{Message: text(long)},
		{Err: connect.NewError(connect.CodeInvalidArgument, long)},
		{Header: map[string][]string{"X": {long}}},
		{Trailer: map[string][]string{"X": {long}}},
	} {
		require.Greater(t, weigh(key, heavy), int64(1000))
	}
}
