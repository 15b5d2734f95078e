package main

import (
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHTTPRowsAreReplaysAndFirstExecutions(t *testing.T) {
	require.Len(t, payment, 128)
	m := newMiddleware()
	defer closeMiddleware(m)
	h := m.Handler(bare)
	require.Empty(t, serve(h, "key").Get("Idempotent-Replayed"))
	require.Equal(t, "true", serve(h, "key").Get("Idempotent-Replayed"))
	require.Empty(t, serve(h, "another").Get("Idempotent-Replayed"))
	require.Equal(t, 2, m.Cache().Len())

	s := httptest.NewServer(h)
	defer s.Close()
	require.Equal(t, "true", send(s.Client(), s.URL, "key").Get("Idempotent-Replayed"))
	require.Empty(t, send(s.Client(), s.URL, "third").Get("Idempotent-Replayed"))
}
