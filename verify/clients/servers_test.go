package clients

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	hung   = 100 * time.Millisecond // how long a client waits for an answer that does not come
	enough = 20 * time.Second       // for what is expected to take no time at all
)

// quiet is the log of servers that fail on purpose.
var quiet = log.New(io.Discard, "", 0)

// requireServer skips the test if nobody listens at addr, or fails it where servers are required.
func requireServer(t *testing.T, name, addr string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		_ = conn.Close()
		return
	}
	if os.Getenv("IDEMFLIGHT_SERVERS") == "required" {
		t.Fatalf("IDEMFLIGHT_SERVERS=required, and there is no %s at %s: %v", name, addr, err)
	}
	t.Skipf("there is no %s at %s: %v", name, addr, err)
}

// within is a context with a deadline, that ends with the test.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// refuses is an address at which nobody listens (any more).
func refuses(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

// listens serves each connection to a new listener with serve, which closes it.
func listens(t *testing.T, serve func(net.Conn)) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return l
}

// silent reads whatever comes, and says nothing.
func silent(t *testing.T) string {
	return listens(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }).Addr().String()
}

// hangsUp reads an HTTP request and closes the connection, as a server does that dies after its work.
func hangsUp(t *testing.T) string {
	return "http://" + listens(t, readRequest).Addr().String()
}

// hangsUpAndIsGone hangs up on the first request, and does not listen any more when it does.
func hangsUpAndIsGone(t *testing.T) string {
	var l net.Listener
	ready := make(chan struct{})
	l = listens(t, func(c net.Conn) {
		<-ready
		readRequest(c)
		_ = l.Close()
	})
	close(ready)
	return "http://" + l.Addr().String()
}

func readRequest(c net.Conn) {
	req, err := http.ReadRequest(bufio.NewReader(c))
	if err == nil {
		_, _ = io.Copy(io.Discard, req.Body)
	}
}

// serves starts an HTTP server.
func serves(t *testing.T, handler http.HandlerFunc) string {
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.URL
}

// answers is a server that gives every request the same answer.
func answers(t *testing.T, status int, header http.Header, body string) string {
	return serves(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for name, values := range header {
			w.Header()[name] = values
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// transport is an HTTP transport of the test's own.
func transport(t *testing.T) *http.Transport {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func containsFold(b []byte, word string) bool {
	return bytes.Contains(bytes.ToLower(b), []byte(word))
}
