package idemhttp_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
)

// What the suite once did not notice: each test is named after what a planted fault broke.

func TestKeysThatDifferInCaseAreTwo(t *testing.T) {
	var ran counter
	h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(http.ResponseWriter, *http.Request) { ran.add() }))
	for _, key := range []string{"order-a", "Order-A", `"ORDER-A"`} {
		require.False(t, call(h, post(key, "")).replayed(), "a key is opaque: %s", key)
	}
	require.Equal(t, 3, ran.count(), "executions")
}

func TestNewRefusesTheFirstSizeBelowZero(t *testing.T) {
	_, err := idemhttp.New(idemhttp.Options{Scope: idemhttp.SharedScope, MaxRequestBytes: -1})
	require.ErrorContains(t, err, "Options.MaxRequestBytes is -1")
	_, err = idemhttp.New(idemhttp.Options{Scope: idemhttp.SharedScope, MaxResponseBytes: -1})
	require.ErrorContains(t, err, "Options.MaxResponseBytes is -1")
}

// Not only an answered request is one call of the cache, a refused one is too.
func TestARefusedRequestIsOneCallOfTheCache(t *testing.T) {
	opts := idemhttp.DefaultCacheOptions()
	var events []idemflight.EventKind
	opts.Observer = func(_ context.Context, e idemflight.Event[idemflight.Key]) { events = append(events, e.Kind) }
	m := newMiddleware(t, idemhttp.Options{Cache: idemflight.MustNew(opts)})
	h := m.Handler(handler(func(w http.ResponseWriter, r *http.Request) {
		must(idemflight.BeginEffect(r.Context()))
		w.WriteHeader(http.StatusBadGateway)
	}))
	call(h, post("k", "x"))
	events = nil
	requireProblem(t, call(h, post("k", "y")), http.StatusUnprocessableEntity, "key-reused", false)
	requireProblem(t, call(h, post("k", "x")), http.StatusConflict, "outcome-unknown", false)
	require.NoError(t, m.Cache().Close(t.Context()))
	requireProblem(t, call(h, post("new", "x")), http.StatusServiceUnavailable, "closed", true)
	require.Equal(t, []idemflight.EventKind{idemflight.EventRejected, idemflight.EventRejected, idemflight.EventRejected}, events)
}

// broken is a writer whose client has gone.
type broken struct{ http.ResponseWriter }

func (broken) Write([]byte) (int, error) { return 0, errors.New("the client has gone") }
func (broken) FlushError() error         { return errors.New("the client has gone") }

// However the handler writes it, the answer is recorded to its end.
func TestAnAnswerThatNobodyReadsIsRecorded(t *testing.T) {
	h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
		require.NoError(t, http.NewResponseController(w).Flush(), "Flush reports success")
		n, err := w.Write([]byte("bytes,"))
		require.NoError(t, err, "Write reports success")
		require.Equal(t, 6, n)
		_, err = io.WriteString(w, "text,")
		require.NoError(t, err, "WriteString reports success")
		_, err = io.Copy(w, io.LimitReader(strings.NewReader("copied"), 6))
		require.NoError(t, err, "io.Copy reports success")
	}))
	h.ServeHTTP(broken{httptest.NewRecorder()}, post("k", ""))
	a := call(h, post("k", ""))
	require.True(t, a.replayed())
	require.Equal(t, "bytes,text,copied", a.Body)
}

// countingFailing is a network that is down.
type countingFailing struct{ sent int }

func (c *countingFailing) RoundTrip(*http.Request) (*http.Response, error) {
	c.sent++
	return nil, errBoom
}

// Every attempt is the business of who retries: Transport itself sends once.
func TestTransportSendsOnce(t *testing.T) {
	var base countingFailing
	r := httptest.NewRequest(http.MethodPost, "http://memory/payments", http.NoBody)
	r = r.WithContext(idemhttp.WithKey(r.Context(), "k"))
	_, err := (&idemhttp.Transport{Base: &base}).RoundTrip(r)
	require.ErrorIs(t, err, errBoom)
	require.Equal(t, 1, base.sent, "requests that were sent")
}
