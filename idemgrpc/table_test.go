package idemgrpc_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemgrpc"
)

// dispositions are what a handler that said nothing gets, by the code that it answers with.
var dispositions = map[codes.Code]idemflight.Disposition{
	codes.OK:                 idemflight.Retain,
	codes.InvalidArgument:    idemflight.Retain,
	codes.Canceled:           idemflight.Hold,
	codes.Unknown:            idemflight.Hold,
	codes.DeadlineExceeded:   idemflight.Hold,
	codes.ResourceExhausted:  idemflight.Hold,
	codes.Internal:           idemflight.Hold,
	codes.Unavailable:        idemflight.Hold,
	codes.DataLoss:           idemflight.Hold,
	codes.NotFound:           idemflight.Release,
	codes.AlreadyExists:      idemflight.Release,
	codes.PermissionDenied:   idemflight.Release,
	codes.FailedPrecondition: idemflight.Release,
	codes.Aborted:            idemflight.Release,
	codes.OutOfRange:         idemflight.Release,
	codes.Unimplemented:      idemflight.Release,
	codes.Unauthenticated:    idemflight.Release,
}

// What handlers say, and what becomes of an error of theirs then; nil: it goes by the code.
var sayings = []struct {
	name  string
	say   func(context.Context)
	fails *idemflight.Disposition
}{
	{"said nothing", func(context.Context) {}, nil},
	{"BeginEffect", func(ctx context.Context) { _ = idemflight.BeginEffect(ctx) }, new(idemflight.Hold)},
	{"NoEffect", func(ctx context.Context) { idemflight.NoEffect(ctx) }, new(idemflight.Release)},
}

func TestTable_CodesAndWhatTheHandlerSaid(t *testing.T) {
	require.Len(t, dispositions, 17, "all the codes of gRPC")
	var code codes.Code
	var say func(context.Context)
	s := serve(t, idemgrpc.Options{}, func(ctx context.Context, _ string) (string, error) {
		say(ctx)
		return "receipt", status.Error(code, "the bank says so")
	})
	c := s.client(t)
	for code = range codes.Code(17) {
		for _, saying := range sayings {
			t.Run(fmt.Sprint(code, " ", saying.name), func(t *testing.T) {
				say = saying.say
				want := dispositions[code]
				if code != codes.OK && saying.fails != nil {
					want = *saying.fails
				}
				requireBecomes(t, s, c, code, want)
			})
		}
	}
}

// requireBecomes requires that the answer, of this code, gets this disposition.
func requireBecomes(t *testing.T, s *server, c *client, code codes.Code, want idemflight.Disposition) {
	t.Helper()
	before, key := s.runs.Load(), t.Name()
	first := c.call(t.Context(), key, "pay")
	require.Equal(t, code, first.code())
	require.False(t, first.replayed())
	require.Empty(t, first.reason(), "the executing call gets the handler's answer")
	if code != codes.OK {
		require.Equal(t, "the bank says so", status.Convert(first.Err).Message())
	}

	again := c.call(t.Context(), key, "pay")
	ran := s.runs.Load() - before
	switch state := s.state(t, key); want {
	case idemflight.Retain:
		require.Equal(t, idemflight.Retained, state)
		require.EqualValues(t, 1, ran)
		require.Equal(t, code, again.code())
		require.True(t, again.replayed())
		require.Equal(t, first.Body, again.Body)
		require.Equal(t, status.Convert(first.Err).Message(), status.Convert(again.Err).Message())
	case idemflight.Release:
		require.Equal(t, idemflight.Absent, state)
		require.EqualValues(t, 2, ran)
		require.Equal(t, code, again.code())
		require.False(t, again.replayed())
	case idemflight.Hold:
		require.Equal(t, idemflight.Held, state)
		require.EqualValues(t, 1, ran)
		require.Equal(t, codes.FailedPrecondition, again.code())
		require.Equal(t, "OUTCOME_UNKNOWN", again.reason())
		require.False(t, again.replayed())
	}
}

func TestMarkers_DecideBeforeAllElse(t *testing.T) {
	for name, tt := range map[string]struct {
		mark func(error) error
		want idemflight.Disposition
	}{
		"Final":     {idemflight.Final, idemflight.Retain},
		"Retryable": {idemflight.Retryable, idemflight.Release},
		"Unknown":   {idemflight.Unknown, idemflight.Hold},
	} {
		for _, saying := range sayings {
			t.Run(name+" "+saying.name, func(t *testing.T) {
				s := serve(t, idemgrpc.Options{}, func(ctx context.Context, _ string) (string, error) {
					saying.say(ctx)
					return "", tt.mark(status.Error(codes.FailedPrecondition, "the bank says so"))
				})
				requireBecomes(t, s, s.client(t), codes.FailedPrecondition, tt.want)
			})
		}
	}
}

// coded gives an error a code, and keeps its text.
type coded struct {
	error
	code codes.Code
}

func (c coded) Unwrap() error              { return c.error }
func (c coded) GRPCStatus() *status.Status { return status.New(c.code, c.Error()) }

func TestTable_AnErrorThatBringsItsStatus(t *testing.T) {
	for name, err := range map[string]error{
		"bare":   coded{errors.New("the bank says so"), codes.NotFound},
		"marked": idemflight.Retryable(coded{errors.New("the bank says so"), codes.NotFound}),
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, idemgrpc.Options{}, func(context.Context, string) (string, error) { return "", err })
			requireBecomes(t, s, s.client(t), codes.NotFound, idemflight.Release)
		})
	}
}

func TestClassify_OfOnesOwn(t *testing.T) {
	for name, tt := range map[string]struct {
		classify func(*status.Status) idemflight.Disposition
		want     idemflight.Disposition
	}{
		"retains":        {func(*status.Status) idemflight.Disposition { return idemflight.Retain }, idemflight.Retain},
		"releases":       {func(*status.Status) idemflight.Disposition { return idemflight.Release }, idemflight.Release},
		"holds":          {func(*status.Status) idemflight.Disposition { return idemflight.Hold }, idemflight.Hold},
		"says nonsense":  {func(*status.Status) idemflight.Disposition { return 7 }, idemflight.Hold},
		"panics":         {func(*status.Status) idemflight.Disposition { panic("oops") }, idemflight.Hold},
		"sees the code":  {func(s *status.Status) idemflight.Disposition { return sees(s, codes.Aborted) }, idemflight.Retain},
		"sees the words": {func(s *status.Status) idemflight.Disposition { return says(s, "the bank says so") }, idemflight.Retain},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, idemgrpc.Options{Classify: tt.classify}, func(context.Context, string) (string, error) {
				return "", status.Error(codes.Aborted, "the bank says so")
			})
			requireBecomes(t, s, s.client(t), codes.Aborted, tt.want)
		})
	}
}

func sees(s *status.Status, code codes.Code) idemflight.Disposition {
	if s.Code() == code {
		return idemflight.Retain
	}
	return idemflight.Hold
}

func says(s *status.Status, text string) idemflight.Disposition {
	if s.Message() == text {
		return idemflight.Retain
	}
	return idemflight.Hold
}

func TestEffectsAnnounced_IsNoEffect(t *testing.T) {
	o := idemgrpc.DefaultCacheOptions()
	o.EffectsAnnounced = true
	s := serve(t, idemgrpc.Options{Cache: idemflight.MustNew(o)}, func(context.Context, string) (string, error) {
		return "", status.Error(codes.Internal, "the bank says so")
	})
	requireBecomes(t, s, s.client(t), codes.Internal, idemflight.Release)
}

func TestPlainErrors_AreWhatAServerMakesOfThem(t *testing.T) {
	s := serve(t, idemgrpc.Options{Classify: func(s *status.Status) idemflight.Disposition {
		if s.Code() == codes.DeadlineExceeded {
			return idemflight.Retain
		}
		return idemgrpc.ClassifyStatus(s)
	}}, func(_ context.Context, body string) (string, error) {
		if body == "late" {
			return "", context.DeadlineExceeded
		}
		return "", fmt.Errorf("charging: %w", status.Error(codes.NotFound, "no such account"))
	})
	c := s.client(t)
	late := c.call(t.Context(), "late", "late")
	require.Equal(t, codes.DeadlineExceeded, late.code())
	again := c.call(t.Context(), "late", "late")
	require.Equal(t, codes.DeadlineExceeded, again.code())
	require.True(t, again.replayed())
	wrapped := c.call(t.Context(), "wrapped", "wrapped")
	require.Equal(t, codes.NotFound, wrapped.code())
	require.ErrorContains(t, wrapped.Err, "charging: ")
	require.Equal(t, idemflight.Absent, s.state(t, "wrapped"))
}
