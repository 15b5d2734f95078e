package idemconnect_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemconnect"
)

// success is the code of no error: Connect has no constant for it.
const success connect.Code = 0

// dispositions are what a handler that said nothing gets, by the code that it answers with.
var dispositions = map[connect.Code]idemflight.Disposition{
	success:                        idemflight.Retain,
	connect.CodeInvalidArgument:    idemflight.Retain,
	connect.CodeCanceled:           idemflight.Hold,
	connect.CodeUnknown:            idemflight.Hold,
	connect.CodeDeadlineExceeded:   idemflight.Hold,
	connect.CodeResourceExhausted:  idemflight.Hold,
	connect.CodeInternal:           idemflight.Hold,
	connect.CodeUnavailable:        idemflight.Hold,
	connect.CodeDataLoss:           idemflight.Hold,
	connect.CodeNotFound:           idemflight.Release,
	connect.CodeAlreadyExists:      idemflight.Release,
	connect.CodePermissionDenied:   idemflight.Release,
	connect.CodeFailedPrecondition: idemflight.Release,
	connect.CodeAborted:            idemflight.Release,
	connect.CodeOutOfRange:         idemflight.Release,
	connect.CodeUnimplemented:      idemflight.Release,
	connect.CodeUnauthenticated:    idemflight.Release,
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
	require.Len(t, dispositions, 17, "all the codes, and success")
	var code connect.Code
	var say func(context.Context)
	s := serve(t, idemconnect.Options{}, func(ctx context.Context, _ string) (string, error) {
		say(ctx)
		if code == success {
			return "receipt", nil
		}
		return "", connect.NewError(code, "the bank says so")
	})
	c := s.client(t)
	for code = range connect.Code(17) {
		for _, saying := range sayings {
			t.Run(fmt.Sprint(code, " ", saying.name), func(t *testing.T) {
				say = saying.say
				want := dispositions[code]
				if code != success && saying.fails != nil {
					want = *saying.fails
				}
				requireBecomes(t, s, c, want)
			})
		}
	}
}

// requireBecomes requires that what the handler answers gets this disposition.
func requireBecomes(t *testing.T, s *server, c *client, want idemflight.Disposition) {
	t.Helper()
	before, key := s.runs.Load(), t.Name()
	first := c.call(t.Context(), key, "pay")
	require.False(t, first.replayed())
	require.Empty(t, first.reason(), "the executing call gets the handler's answer")

	again := c.call(t.Context(), key, "pay")
	ran := s.runs.Load() - before
	if want == idemflight.Hold {
		require.Equal(t, idemflight.Held, s.entry(t, key).State)
		require.EqualValues(t, 1, ran)
		requireProblem(t, again, connect.CodeFailedPrecondition, "OUTCOME_UNKNOWN", false)
		return
	}
	require.Equal(t, first.code(), again.code())
	require.Equal(t, first.message(), again.message())
	require.Equal(t, first.Body, again.Body)
	if want == idemflight.Retain {
		require.Equal(t, idemflight.Retained, s.entry(t, key).State)
		require.EqualValues(t, 1, ran)
		require.True(t, again.replayed())
	} else {
		require.Equal(t, idemflight.Absent, s.entry(t, key).State)
		require.EqualValues(t, 2, ran)
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
				s := serve(t, idemconnect.Options{}, func(ctx context.Context, _ string) (string, error) {
					saying.say(ctx)
					return "", tt.mark(connect.NewError(connect.CodeFailedPrecondition, "the bank says so"))
				})
				requireBecomes(t, s, s.client(t), tt.want)
			})
		}
	}
}

// An error that a handler made of another service's reads like that, and is still its own.
func TestMarkers_AreTakenOffTheErrorThatTheyMark(t *testing.T) {
	behind := connect.NewError(connect.CodeNotFound, "no such account").WithRemote()
	own := connect.NewError(connect.CodeNotFound, "no such account").WithCause(behind)
	var outside error
	s := serve(t, idemconnect.Options{}, fails(idemflight.Final(own)), func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			outside = next(ctx, spec, stream)
			return outside
		}
	})
	c := s.client(t)
	require.Equal(t, connect.CodeNotFound, c.call(t.Context(), "k", "pay").code())
	require.Same(t, own, outside)
	again := c.call(t.Context(), "k", "pay")
	require.Equal(t, "no such account", again.message())
	require.True(t, again.replayed())
}

func TestClassify_OfOnesOwn(t *testing.T) {
	retainsIf := func(is func(*connect.Error) bool) func(*connect.Error) idemflight.Disposition {
		return func(e *connect.Error) idemflight.Disposition {
			if is(e) {
				return idemflight.Retain
			}
			return idemflight.Hold
		}
	}
	for name, tt := range map[string]struct {
		classify func(*connect.Error) idemflight.Disposition
		want     idemflight.Disposition
	}{
		"retains":        {func(*connect.Error) idemflight.Disposition { return idemflight.Retain }, idemflight.Retain},
		"releases":       {func(*connect.Error) idemflight.Disposition { return idemflight.Release }, idemflight.Release},
		"holds":          {func(*connect.Error) idemflight.Disposition { return idemflight.Hold }, idemflight.Hold},
		"says nonsense":  {func(*connect.Error) idemflight.Disposition { return 7 }, idemflight.Hold},
		"panics":         {func(*connect.Error) idemflight.Disposition { panic("oops") }, idemflight.Hold},
		"sees the code":  {retainsIf(func(e *connect.Error) bool { return e.Code() == connect.CodeAborted }), idemflight.Retain},
		"sees the words": {retainsIf(func(e *connect.Error) bool { return e.Message() == "the bank says so" }), idemflight.Retain},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, idemconnect.Options{Classify: tt.classify}, fails(connect.NewError(connect.CodeAborted, "the bank says so")))
			requireBecomes(t, s, s.client(t), tt.want)
		})
	}
}

func TestEffectsAnnounced_IsNoEffect(t *testing.T) {
	s := serve(t, idemconnect.Options{Cache: cacheOf(func(o *cacheOptions) { o.EffectsAnnounced = true })},
		fails(connect.NewError(connect.CodeInternal, "the bank says so")))
	requireBecomes(t, s, s.client(t), idemflight.Release)
}

// A replay tells no more of an error than the server told of it the first time.
func TestErrors_AreReplayedAsTheServerSendsThem(t *testing.T) {
	secret := errors.New("secret")
	for name, tt := range map[string]struct {
		err  error
		code connect.Code
		says string
	}{
		"plain":            {secret, connect.CodeUnknown, ""},
		"deadline":         {fmt.Errorf("charging: %w", context.DeadlineExceeded), connect.CodeDeadlineExceeded, ""},
		"canceled":         {context.Canceled, connect.CodeCanceled, ""},
		"another server's": {connect.NewError(connect.CodeNotFound, "secret").WithRemote(), connect.CodeInternal, ""},
		"wrapped":          {fmt.Errorf("charging: %w", connect.NewError(connect.CodeAborted, "declined")), connect.CodeAborted, "declined"},
		"with a cause":     {connect.NewError(connect.CodeAborted, "declined").WithCause(secret), connect.CodeAborted, "declined"},
	} {
		for protocol, opts := range protocols {
			t.Run(name+" "+protocol, func(t *testing.T) {
				s := serve(t, idemconnect.Options{}, fails(idemflight.Final(tt.err)))
				c := s.client(t, opts...)
				for _, got := range []answer{c.call(t.Context(), "k", "pay"), c.call(t.Context(), "k", "pay")} {
					require.Equal(t, tt.code, got.code())
					require.Equal(t, tt.says, got.message())
				}
				require.EqualValues(t, 1, s.runs.Load())
				kept := s.entry(t, "k").Value.Err
				require.Equal(t, tt.code, kept.Code())
				require.NoError(t, errors.Unwrap(kept), "without the cause")
			})
		}
	}
}
