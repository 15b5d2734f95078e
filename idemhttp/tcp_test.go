package idemhttp_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// conn is a bare TCP client: what it writes is what is sent, and it hangs up when it wants to.
type conn struct {
	*net.TCPConn
	t testing.TB
	r *bufio.Reader
}

func dial(t testing.TB, s *server) *conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	require.NoError(t, err, "dial")
	t.Cleanup(func() { c.Close() })
	return &conn{c.(*net.TCPConn), t, bufio.NewReader(c)}
}

func (c *conn) write(s string) {
	c.t.Helper()
	_, err := c.Write([]byte(s))
	require.NoError(c.t, err, "write to the server")
}

// read reads the next answer to a POST.
func (c *conn) read() answer {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, &http.Request{Method: "POST"})
	require.NoError(c.t, err, "answer of the server")
	return read(res)
}

// hangUp ends the connection the hard way, as a client does that dies.
func (c *conn) hangUp() {
	c.t.Helper()
	require.NoError(c.t, c.SetLinger(0))
	require.NoError(c.t, c.Close())
}

// keyed is a request with a key as it stands on the wire.
func keyed(key, body string) string {
	return fmt.Sprintf("POST /payments HTTP/1.1\r\nHost: x\r\nIdempotency-Key: %s\r\nContent-Length: %d\r\n\r\n%s", key, len(body), body)
}

type goneKey struct{}

// watched lets a covered handler wait for its client to leave, which its own context does not tell.
func watched(next http.Handler) http.Handler {
	return handler(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), goneKey{}, r.Context().Done())))
	})
}

func clientGone(r *http.Request) <-chan struct{} {
	return r.Context().Value(goneKey{}).(<-chan struct{})
}
