package idemgrpc_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemgrpc"
)

// recoveryOf is recovery outside of the interceptor, which keeps the first thing that it sees.
func recoveryOf(first *any) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (_ any, err error) {
		defer func() {
			if v := recover(); v != nil {
				*first, err = v, status.Error(codes.Internal, "recovered")
			}
		}()
		return handler(ctx, req)
	}
}

func TestPanics_ReachRecoveryOutsideAndHoldTheKey(t *testing.T) {
	var seen any
	oops := errors.New("oops")
	begun, release := make(chan struct{}, 1), make(chan struct{})
	s := serve(t, idemgrpc.Options{}, func(context.Context, string) (string, error) {
		begun <- struct{}{}
		<-release
		panic(oops)
	}, recoveryOf(&seen))
	c := s.client(t)
	executing := c.async(t.Context(), "k", "pay")
	<-begun
	waiting := c.async(t.Context(), "k", "pay")
	s.waiters(t, 1)
	close(release)
	require.Equal(t, codes.Internal, (<-executing).code())
	require.Equal(t, "OUTCOME_UNKNOWN", (<-waiting).reason())
	require.Equal(t, "OUTCOME_UNKNOWN", c.call(t.Context(), "k", "pay").reason())
	require.Same(t, oops, seen)
	require.EqualValues(t, 1, s.runs.Load())
}

func TestPanics_BeforeAnEffectRunAgain(t *testing.T) {
	var seen any
	begun, release := make(chan struct{}, 2), make(chan struct{})
	s := serve(t, idemgrpc.Options{}, func(ctx context.Context, _ string) (string, error) {
		idemflight.NoEffect(ctx)
		begun <- struct{}{}
		<-release
		panic("oops")
	}, recoveryOf(&seen))
	c := s.client(t)
	executing := c.async(t.Context(), "k", "pay")
	<-begun
	waiting := c.async(t.Context(), "k", "pay")
	s.waiters(t, 1)
	close(release)
	require.Equal(t, codes.Internal, (<-executing).code())
	failed := <-waiting
	require.Equal(t, codes.Unavailable, failed.code())
	require.Equal(t, "FAILED", failed.reason())
	require.True(t, failed.retryable())
	require.Equal(t, "oops", seen)
	require.Equal(t, codes.Internal, c.call(t.Context(), "k", "pay").code(), "it runs again")
	require.EqualValues(t, 2, s.runs.Load())
}

func TestPanics_OfScopeAndOthersAreTheServers(t *testing.T) {
	var seen any
	s := serve(t, idemgrpc.Options{Scope: func(context.Context, string) (string, error) { panic("scope") }}, receipt, recoveryOf(&seen))
	require.Equal(t, codes.Internal, s.client(t).call(t.Context(), "k", "pay").code())
	require.Equal(t, "scope", seen)
}

func TestChainedTwice_TheOuterOneSeesToIt(t *testing.T) {
	keys := keysOf(t, idemgrpc.Options{})
	s := serveChain(t, keys, func(ctx context.Context, _ string) (string, error) { return "receipt", idemflight.BeginEffect(ctx) }, keys.Unary(), keys.Unary())
	c := s.client(t)
	require.NoError(t, c.call(t.Context(), "k", "pay").Err)
	require.True(t, c.call(t.Context(), "k", "pay").replayed())
	require.EqualValues(t, 1, s.runs.Load())
}

// cacheOf makes a cache of changed defaults.
func cacheOf(change func(*idemflight.Options[idemflight.Key, *idemgrpc.Response])) *idemflight.Cache[idemflight.Key, *idemgrpc.Response] {
	o := idemgrpc.DefaultCacheOptions()
	change(&o)
	return idemflight.MustNew(o)
}

func requireProblem(t *testing.T, got answer, code codes.Code, reason string, retryable bool) {
	t.Helper()
	require.Equal(t, code, got.code())
	require.Equal(t, reason, got.reason())
	require.Equal(t, retryable, got.retryable())
	require.False(t, got.replayed())
	require.Empty(t, got.Header["idempotent-replayed"], "no header, so that retryPolicy may retry")
}

func TestProblems_InFlightFullAndClosed(t *testing.T) {
	h, begun, release := gate("receipt")
	defer release()
	s := serve(t, idemgrpc.Options{MaxWait: -1, Cache: cacheOf(func(o *idemflight.Options[idemflight.Key, *idemgrpc.Response]) { o.MaxEntries = 1 })}, h)
	c := s.client(t)
	executing := c.async(t.Context(), "k", "pay")
	<-begun
	requireProblem(t, c.call(t.Context(), "k", "pay"), codes.Unavailable, "IN_FLIGHT", true)
	requireProblem(t, c.call(t.Context(), "another", "pay"), codes.Unavailable, "FULL", true)
	release()
	require.NoError(t, (<-executing).Err)
	require.NoError(t, s.keys.Cache().Close(t.Context()))
	requireProblem(t, c.call(t.Context(), "third", "pay"), codes.Unavailable, "CLOSED", true)
	require.EqualValues(t, 1, s.runs.Load())
}

func TestProblems_OfAnAnswerThatWasShed(t *testing.T) {
	s := serve(t, idemgrpc.Options{Cache: cacheOf(func(o *idemflight.Options[idemflight.Key, *idemgrpc.Response]) { o.MaxWeight = 600 })},
		func(_ context.Context, body string) (string, error) { return string(make([]byte, 100)) + body, nil })
	c := s.client(t)
	require.NoError(t, c.call(t.Context(), "k", "pay").Err)
	require.True(t, c.call(t.Context(), "k", "pay").replayed())
	require.NoError(t, c.call(t.Context(), "another", "pay").Err)
	shed := c.call(t.Context(), "k", "pay")
	if shed.replayed() { // it had its second chance
		shed = c.call(t.Context(), "another", "pay")
	}
	requireProblem(t, shed, codes.FailedPrecondition, "ANSWER_UNAVAILABLE", false)
	require.EqualValues(t, 2, s.runs.Load())
}

// An error of a call that the handler made, to a service that has keys too, is no answer of this cache.
func TestProblems_OfAnInnerCacheAreTheHandlersOwn(t *testing.T) {
	s := serve(t, idemgrpc.Options{}, func(context.Context, string) (string, error) { return "", idemflight.ErrKeyReused })
	c := s.client(t)
	require.Equal(t, codes.Unknown, c.call(t.Context(), "k", "pay").code())
	requireProblem(t, c.call(t.Context(), "k", "pay"), codes.FailedPrecondition, "OUTCOME_UNKNOWN", false)
}

func TestDefaultCacheOptions_WeighAnAnswer(t *testing.T) {
	weigh := idemgrpc.DefaultCacheOptions().Weigh
	key := sharedKey("k")
	light := weigh(key, &idemgrpc.Response{Message: new(pb.SimpleResponse)})
	require.Less(t, weigh(key, nil), light)
	for _, heavy := range []*idemgrpc.Response{
		{Message: &pb.SimpleResponse{Username: strings.Repeat("x", 1000)}},
		{Status: status.New(codes.InvalidArgument, strings.Repeat("x", 1000))},
		{Header: metadata.Pairs("x", strings.Repeat("x", 1000))},
		{Trailer: metadata.Pairs("x", strings.Repeat("x", 1000))},
	} {
		require.Greater(t, weigh(key, heavy), int64(1000))
	}
}
