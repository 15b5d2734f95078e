package clients

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

var netHTTP = client{name: "net/http", rows: []row{
	{
		what: "POST, connection refused", effect: none, says: "connect: connection refused", want: idemflight.Release,
		fail: func(t *testing.T) error { return post(t, http.Client{}, "http://"+refuses(t)) },
	}, {
		what: "POST, no such host", effect: none, says: "no such host", want: idemflight.Release,
		fail: func(t *testing.T) error {
			tr := transport(t)
			tr.DialContext = (&net.Dialer{Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, knowsNobody(t))
			}}}).DialContext
			return post(t, http.Client{Transport: tr}, "http://bank.example./")
		},
	}, {
		what: "POST, the server hangs up without an answer", effect: possible, says: "EOF", want: idemflight.Hold,
		fail: func(t *testing.T) error { return post(t, http.Client{}, hangsUp(t)) },
	}, {
		what: "POST, Client.Timeout before the answer", effect: possible, says: "Client.Timeout exceeded while awaiting headers", want: idemflight.Hold,
		fail: func(t *testing.T) error { return post(t, http.Client{Timeout: hung}, "http://"+silent(t)) },
	}, {
		what: "POST, the context is cancelled", effect: possible, says: "context canceled", want: idemflight.Hold,
		fail: func(t *testing.T) error {
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(hung, cancel)
			req, err := http.NewRequestWithContext(ctx, "POST", "http://"+silent(t), strings.NewReader("charge"))
			require.NoError(t, err)
			_, err = http.DefaultClient.Do(req) //nolint:bodyclose // it fails
			return err
		},
	}, {
		what: "POST, the answer breaks off", effect: done, says: "unexpected EOF", want: idemflight.Hold,
		fail: func(t *testing.T) error {
			return readAll(t, http.Client{}, serves(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "100")
				_, _ = io.WriteString(w, "charged")
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}))
		},
	}, {
		what: "POST over HTTP/2, the stream is reset before the answer", effect: possible, says: "stream error: stream ID 1; INTERNAL_ERROR; received from peer", want: idemflight.Hold,
		fail: func(t *testing.T) error {
			s := http2Server(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
			return post(t, *s.Client(), s.URL)
		},
	}, {
		what: "POST over HTTP/2, the stream is reset while the answer is read", effect: done, says: "stream error: stream ID 1; INTERNAL_ERROR; received from peer", want: idemflight.Release,
		remark: unknowable + ": the error has a type of net/http's own, and says no more than its text.",
		fail: func(t *testing.T) error {
			s := http2Server(t, func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "charged")
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			})
			return readAll(t, *s.Client(), s.URL)
		},
	}, {
		what: "POST, redirected to a host that refuses", effect: possible, says: "connect: connection refused", want: idemflight.Release,
		remark: unknowable + ": the error bears the method of the first request, and the dial error of the last. Do not follow redirects of a POST (`CheckRedirect`).",
		fail: func(t *testing.T) error {
			return post(t, http.Client{}, answers(t, http.StatusSeeOther, http.Header{"Location": {"http://" + refuses(t)}}, ""))
		},
	}, {
		what: "POST with an Idempotency-Key, sent again by net/http on a dead connection, then refused", effect: possible, says: "connect: connection refused", want: idemflight.Release,
		remark: unknowable + ": net/http resends a request that bears this header, and returns the last error. `idemhttp.Transport` prevents it.",
		fail:   resent,
	}, {
		what: "POST, an answer 500 of which fn makes an error", effect: possible, says: "500 Internal Server Error", want: idemflight.Release,
		remark: unknowable + ": to net/http an answer is no error, and fn's own says what fn makes it say: `Unknown(err)`.",
		fail: func(t *testing.T) error {
			resp, err := http.Post(answers(t, http.StatusInternalServerError, nil, ""), "text/plain", nil)
			require.NoError(t, err)
			_ = resp.Body.Close()
			return errors.New(resp.Status)
		},
	}, {
		what: "POST, a certificate that is not trusted", effect: none, says: "certificate", want: idemflight.Hold,
		remark: "Held in vain: nothing was sent, and the error does not say so.",
		fail: func(t *testing.T) error {
			s := httptest.NewUnstartedServer(http.NotFoundHandler())
			s.Config.ErrorLog = quiet
			s.StartTLS()
			t.Cleanup(s.Close)
			return post(t, http.Client{Transport: transport(t)}, s.URL)
		},
	}, {
		what: "GET, connection refused", effect: none, says: "connect: connection refused", want: idemflight.Hold,
		remark: "It may be the redirect that followed the effect. A GET that has none calls NoEffect.",
		fail: func(t *testing.T) error {
			_, err := http.Get("http://" + refuses(t)) //nolint:bodyclose // it fails
			return err
		},
	}, {
		what: "RoundTrip itself, the server hangs up", effect: possible, says: "EOF", want: idemflight.Hold,
		fail: func(t *testing.T) error {
			req, err := http.NewRequest("POST", hangsUp(t), strings.NewReader("charge"))
			require.NoError(t, err)
			_, err = transport(t).RoundTrip(req) //nolint:bodyclose // it fails
			return err
		},
	}, {
		what: "RoundTrip itself, over HTTP/2, the stream is reset", effect: possible, says: "stream error: stream ID 1; INTERNAL_ERROR; received from peer", want: idemflight.Release,
		remark: unknowable + ": without the `*url.Error` that http.Client adds there is no type to go by.",
		fail: func(t *testing.T) error {
			s := http2Server(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
			req, err := http.NewRequest("POST", s.URL, nil)
			require.NoError(t, err)
			_, err = s.Client().Transport.RoundTrip(req) //nolint:bodyclose // it fails
			return err
		},
	},
}}

func post(t *testing.T, c http.Client, url string) error {
	if c.Transport == nil {
		c.Transport = transport(t)
	}
	resp, err := c.Post(url, "text/plain", strings.NewReader("charge"))
	if err == nil {
		_ = resp.Body.Close()
	}
	return err
}

// readAll posts, and returns what goes wrong while the answer is read.
func readAll(t *testing.T, c http.Client, url string) error {
	if c.Transport == nil {
		c.Transport = transport(t)
	}
	resp, err := c.Post(url, "text/plain", strings.NewReader("charge"))
	require.NoError(t, err, "the answer has begun")
	defer resp.Body.Close()
	_, err = io.ReadAll(resp.Body)
	return err
}

func http2Server(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	s := httptest.NewUnstartedServer(handler)
	s.EnableHTTP2 = true
	s.Config.ErrorLog = quiet
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// resent has net/http send a POST twice: first on a connection that was used before and dies, then
// on one that cannot be made.
func resent(t *testing.T) error {
	var l net.Listener
	ready := make(chan struct{})
	l = listens(t, func(c net.Conn) {
		<-ready
		readRequest(c)
		fmt.Fprint(c, "HTTP/1.1 204 No Content\r\n\r\n")
		readRequest(c)
		_ = l.Close()
	})
	close(ready)
	c := http.Client{Transport: transport(t)}
	url := "http://" + l.Addr().String()
	require.NoError(t, post(t, c, url), "now there is a connection to use again")
	req, err := http.NewRequest("POST", url, strings.NewReader("charge"))
	require.NoError(t, err)
	req.Header.Set("Idempotency-Key", `"k"`)
	_, err = c.Do(req) //nolint:bodyclose // it fails
	return err
}

// knowsNobody is a name server that has never heard of the name.
func knowsNobody(t *testing.T) string {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		query := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(query)
			if err != nil {
				return
			}
			if n < 12 {
				continue
			}
			query[2], query[3] = 0x84, 0x03 // an authoritative answer: no such name
			query[10], query[11] = 0, 0     // no additional records
			question := 12
			for question < n && query[question] != 0 {
				question++
			}
			_, _ = conn.WriteTo(query[:min(n, question+5)], from)
		}
	}()
	return conn.LocalAddr().String()
}
