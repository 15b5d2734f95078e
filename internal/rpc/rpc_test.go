package rpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/rpc"
)

// What needs a server is tested where there is one, in idemgrpc and idemconnect.

func TestParseKey(t *testing.T) {
	long := strings.Repeat("k", 255)
	for value, want := range map[string]string{"k1": "k1", `"k1"`: "k1", `"a\"b\\c"`: `a"b\c`, `a"b`: `a"b`, long: long, "~!": "~!"} {
		key, err := rpc.ParseKey([]string{value})
		require.NoError(t, err, value)
		require.Equal(t, want, key)
	}
	for _, value := range []string{"", `""`, `"`, `"k`, `"k";a=1`, `"k\x"`, `"k\`, long + "k", "a b", "\x7f"} {
		_, err := rpc.ParseKey([]string{value})
		require.Error(t, err, value)
	}
	_, err := rpc.ParseKey(nil)
	require.Equal(t, rpc.ErrKeyMissing, err)
	_, err = rpc.ParseKey([]string{"a", "b"})
	require.Error(t, err)
}

func TestKeyValue_NamesItself(t *testing.T) {
	for _, key := range []string{"k", `"k`, `"k"`, `a"\b`, `"a\"`, `\`} {
		read, err := rpc.ParseKey([]string{rpc.KeyValue(key)})
		require.NoError(t, err, key)
		require.Equal(t, key, read)
	}
}

func TestKeyToSend(t *testing.T) {
	makes := func() string { return "made" }
	ctx := rpc.WithKey(t.Context(), "context")
	for _, tt := range []struct {
		ctx      context.Context
		sent     []string
		generate func() string
		want     string
	}{
		{t.Context(), nil, nil, ""},
		{t.Context(), nil, makes, "made"},
		{t.Context(), nil, func() string { return "" }, ""},
		{ctx, nil, makes, "context"},
		{ctx, []string{"metadata"}, makes, ""},
		{rpc.WithoutKey(ctx), nil, makes, "made"},
		{rpc.WithoutKey(t.Context()), nil, nil, ""},
	} {
		key, err := rpc.KeyToSend(tt.ctx, tt.sent, tt.generate)
		require.NoError(t, err)
		require.Equal(t, tt.want, key)
	}
	for _, bad := range []func() (string, error){
		func() (string, error) { return rpc.KeyToSend(ctx, []string{"a b"}, nil) },
		func() (string, error) { return rpc.KeyToSend(rpc.WithKey(t.Context(), ""), nil, makes) },
		func() (string, error) { return rpc.KeyToSend(t.Context(), nil, func() string { return "a b" }) },
	} {
		_, err := bad()
		require.Error(t, err)
	}
}

func TestMetadataKey(t *testing.T) {
	for name, want := range map[string]string{"": "idempotency-key", "X-Key.1_2": "x-key.1_2", "contents": "contents"} {
		lower, why := rpc.MetadataKey(name)
		require.Empty(t, why)
		require.Equal(t, want, lower)
	}
	for _, name := range []string{"a b", "ä", "key-bin", "Grpc-Status", "Connect-Key", "trailer-key", "te", "content-type", "User-Agent", ":path"} {
		_, why := rpc.MetadataKey(name)
		require.NotEmpty(t, why, name)
	}
}

func TestReplays(t *testing.T) {
	for name, want := range map[string]bool{
		"Location": true, "location": true, "X-Rate": true, "ratelimits": true,
		"Set-Cookie": false, "set-cookie": false, "RateLimit-Limit": false, "X-RateLimit-Reset": false,
		"Access-Control-Allow-Origin": false, rpc.ReplayTrailer: false, "Idempotent-Replayed": false,
	} {
		require.Equal(t, want, rpc.Replays(name), name)
	}
}

func TestMetadata_AsJSONKeepsBytes(t *testing.T) {
	m := rpc.Metadata{"a": {"1", ""}, "b-bin": {"\xff\x00"}}
	data, err := json.Marshal(rpc.Record{Header: m})
	require.NoError(t, err)
	require.NotContains(t, string(data), "trailer")
	var read rpc.Record
	require.NoError(t, json.Unmarshal(data, &read))
	require.Equal(t, m, read.Header)
	require.Empty(t, read.Trailer)
}

func TestAnswers(t *testing.T) {
	answers := rpc.Answers[*int]{CanSend: func(*int) bool { return true }}
	inner := fmt.Errorf("fn failed: %w", idemflight.ErrFull)
	require.False(t, rpc.IsAnswer(inner, idemflight.ErrFull))
	require.True(t, rpc.IsAnswer(idemflight.ErrFull, idemflight.ErrFull))
	require.Equal(t, "FAILED", answers.Problem(t.Context(), idemflight.Result[*int]{}, errors.New("none")).Reason)
	full := answers.Problem(t.Context(), idemflight.Result[*int]{}, fmt.Errorf("of 5 places: %w", idemflight.ErrFull))
	require.Equal(t, "FULL", full.Reason)
	require.Positive(t, full.Retry)
	require.Nil(t, answers.Problem(t.Context(), idemflight.Result[*int]{Source: idemflight.Replayed, Value: new(int)}, nil))
}

func TestUnmarked_TakesOffMarkersAlone(t *testing.T) {
	oops := errors.New("oops")
	require.Equal(t, oops, rpc.Unmarked(idemflight.Final(idemflight.Retryable(oops))))
	own := &status{oops}
	require.Equal(t, error(own), rpc.Unmarked(idemflight.Final(own)))
}

// status reads like its cause.
type status struct{ cause error }

func (s *status) Error() string { return s.cause.Error() }
func (s *status) Unwrap() error { return s.cause }

// reason is a status with the reason of a problem.
type reason string

func (r reason) Error() string { return string(r) }

func reasonOf(err error) (string, bool) {
	r, is := err.(reason)
	return string(r), is
}

// older is a multi-error from before errors.Join, whose Unwrap shows the last one only.
type older []error

func (e older) Error() string          { return "several" }
func (e older) Unwrap() error          { return e[len(e)-1] }
func (e older) WrappedErrors() []error { return e }

// joined joins itself.
type joined struct{}

func (joined) Error() string   { return "joined" }
func (joined) Unwrap() []error { return []error{joined{}, joined{}} }

func TestClassifyError_LooksAtEveryAttempt(t *testing.T) {
	full, unknown := reason("FULL"), reason("OUTCOME_UNKNOWN")
	for name, tt := range map[string]struct {
		err  error
		want idemflight.Disposition
	}{
		"one that ran nothing":             {full, idemflight.Release},
		"wrapped":                          {fmt.Errorf("pay: %w", full), idemflight.Release},
		"a deadline, then nothing ran":     {older{context.DeadlineExceeded, full}, idemflight.Hold},
		"unknown, then nothing ran":        {older{unknown, full}, idemflight.Hold},
		"nothing ran, twice":               {older{full, full}, idemflight.Release},
		"joined":                           {errors.Join(full, unknown), idemflight.Hold},
		"an error without end":             {joined{}, idemflight.Hold},
		"an error without end, and others": {errors.Join(full, joined{}), idemflight.Hold},
	} {
		require.Equal(t, tt.want, rpc.ClassifyError(tt.err, reasonOf), name)
	}
}

// A classifier that panics leaves it open whether to run again, but for what the handler has marked.
func TestJudge_AMarkerDecidesBeforeAPanic(t *testing.T) {
	panics := func() idemflight.Disposition { panic("oops") }
	declined := errors.New("declined")
	for name, tt := range map[string]struct {
		err  error
		want idemflight.State
	}{
		"Final":     {idemflight.Final(declined), idemflight.Retained},
		"Retryable": {idemflight.Retryable(declined), idemflight.Absent},
		"no marker": {declined, idemflight.Held},
	} {
		c := idemflight.MustNew(idemflight.Options[string, int]{})
		_, err := c.Do(t.Context(), "k", func(context.Context) (int, error) { return 0, rpc.Judge(tt.err, panics) })
		require.ErrorIs(t, err, declined, name)
		require.ErrorContains(t, err, "oops", name)
		e, _, err := c.Lookup(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, tt.want, e.State, name)
	}
}
