package idemhttp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
)

type handler = http.HandlerFunc

// quiet swallows what servers log about handlers that misbehave on purpose.
var quiet = log.New(io.Discard, "", 0)

// newMiddleware returns a middleware with opts; SharedScope if they have no Scope.
func newMiddleware(t testing.TB, opts idemhttp.Options) *idemhttp.Middleware {
	t.Helper()
	if opts.Scope == nil {
		opts.Scope = idemhttp.SharedScope
	}
	m, err := idemhttp.New(opts)
	require.NoError(t, err, "options of the test")
	return m
}

// sharedKey is the cache's key for what a client under SharedScope sends.
func sharedKey(id string) idemflight.Key {
	scope, _ := idemhttp.SharedScope(nil)
	return idemflight.Key{Scope: scope, ID: id}
}

// answer is what a client sees. Date is left out: it is the clock's.
type answer struct {
	Status          int
	Header, Trailer http.Header
	Body            string
	Err             string // of reading the body
}

func (a answer) replayed() bool { return a.Header.Get("Idempotent-Replayed") == "true" }

// problem is a's problem document.
func (a answer) problem(t testing.TB) (p problemDocument) {
	t.Helper()
	require.Equal(t, "application/problem+json", a.Header.Get("Content-Type"),
		"a problem document, not %d %q", a.Status, a.Body)
	require.NoError(t, json.Unmarshal([]byte(a.Body), &p), "problem document %q", a.Body)
	return p
}

type problemDocument struct {
	Type, Title, Detail string
	Status              int
	Retryable           *bool
}

func (p problemDocument) kind() string {
	return strings.TrimPrefix(p.Type, "https://github.com/idemflight/idemflight/blob/main/docs/http.md#problem-")
}

// requireProblem asserts all that is true of each problem document, and its kind.
func requireProblem(t testing.TB, a answer, status int, kind string, retryable bool) problemDocument {
	t.Helper()
	p := a.problem(t)
	require.Equal(t, kind, p.kind(), "kind of problem in %q", a.Body)
	require.Equal(t, status, a.Status, "status of the answer: %q", a.Body)
	require.Equal(t, status, p.Status, "status in the document")
	require.NotEmpty(t, p.Title, "title")
	require.NotEmpty(t, p.Detail, "detail")
	require.NotNil(t, p.Retryable, "the member retryable is always there")
	require.Equal(t, retryable, *p.Retryable, "retryable of %s", kind)
	require.Equal(t, "no-store", a.Header.Get("Cache-Control"), "Cache-Control of a problem")
	require.Equal(t, retryable, a.Header.Get("Retry-After") != "",
		"Retry-After exactly if retryable: %q", a.Header)
	require.NotContains(t, a.Header, "Idempotent-Replayed", "never on problems")
	return p
}

// read reads res to its end.
func read(res *http.Response) answer {
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	a := answer{Status: res.StatusCode, Header: res.Header.Clone(), Trailer: res.Trailer.Clone(), Body: string(body)}
	if err != nil {
		a.Err = "body broken off"
	}
	a.Header.Del("Date")
	if len(a.Trailer) == 0 {
		a.Trailer = nil
	}
	return a
}

// call is one request with a key, through h and back, without a network.
func call(h http.Handler, r *http.Request) answer {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return read(w.Result())
}

// post is a POST with a key ("": none) and a body.
func post(key, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/payments", strings.NewReader(body))
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	return r
}

// server is a real one on loopback.
type server struct {
	*httptest.Server
	client *http.Client
}

var protocols = []string{"HTTP/1.1", "HTTP/2.0"}

// serve starts a server for h that speaks protocol and is closed with the test.
func serve(t testing.TB, protocol string, h http.Handler) *server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = quiet
	if protocol == "HTTP/2.0" {
		s.EnableHTTP2 = true
		s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 2000} // all on one connection
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	client := s.Client()
	client.Transport.(*http.Transport).DisableCompression = true
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &server{s, client}
}

// request returns a POST to s with a key ("": none).
func (s *server) request(t testing.TB, ctx context.Context, key string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/payments", body)
	require.NoError(t, err, "request")
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	return r
}

// post sends a POST with a key and returns the answer.
func (s *server) post(t testing.TB, key, body string) answer {
	t.Helper()
	return s.send(t, s.request(t, t.Context(), key, strings.NewReader(body)))
}

func (s *server) send(t testing.TB, r *http.Request) answer {
	t.Helper()
	res, err := s.client.Do(r)
	require.NoError(t, err, "answer to %s %s", r.Method, r.URL)
	return read(res)
}

// eachProtocol runs test with a server of each protocol.
func eachProtocol(t *testing.T, test func(t *testing.T, protocol string)) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) { test(t, protocol) })
	}
}

// until yields to others until cond holds. Nothing is asserted about how long that takes.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for !cond() {
		if t.Context().Err() != nil {
			t.Fatalf("test ended while waiting until %s", what)
		}
		runtime.Gosched()
	}
}

// waiters reports whether n callers have joined the flight of key.
func waiters(m *idemhttp.Middleware, key string, n int) func() bool {
	return func() bool {
		e, _ := lookup(m.Cache(), sharedKey(key))
		return e.Waiters == n
	}
}

// counter is a handler that counts its executions.
type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) add() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

func (c *counter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// pipes is a listener whose connections are in memory, so that time may be fake.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "pipe"} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// bubble is a server in memory for a synctest bubble.
type bubble struct {
	http   *http.Server
	client *http.Client
	pipes  *pipes
}

// inMemory serves h; call stop before the bubble ends.
func inMemory(h http.Handler) *bubble {
	return serverInMemory(&http.Server{Handler: h, ErrorLog: quiet})
}

// serverInMemory is inMemory with a server of the caller's own.
func serverInMemory(s *http.Server) *bubble {
	p := newPipes()
	b := &bubble{
		http: s,
		// On a connection of its own nothing is sent twice: see TestNetHTTPResendsByItself.
		client: &http.Client{Transport: &http.Transport{DialContext: p.dial, DisableCompression: true, DisableKeepAlives: true}},
		pipes:  p,
	}
	go func() { _ = b.http.Serve(p) }()
	return b
}

func (b *bubble) stop() {
	b.client.CloseIdleConnections()
	_ = b.http.Close()
}

func (b *bubble) post(ctx context.Context, key, body string) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://memory/payments", strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Idempotency-Key", key)
	res, err := b.client.Do(r)
	if err != nil {
		return answer{}, err
	}
	return read(res), nil
}

// async is post on a goroutine of its own.
func (b *bubble) async(ctx context.Context, key, body string) <-chan answer {
	c := make(chan answer, 1)
	go func() {
		a, err := b.post(ctx, key, body)
		if err != nil {
			a.Err = err.Error()
		}
		c <- a
	}()
	return c
}

// coded is an error with a status.
type coded int

func (c coded) Error() string   { return "coded" }
func (c coded) StatusCode() int { return int(c) }

var errBoom = errors.New("boom")

func jsonBody(n int) []byte {
	return append(append([]byte(`{"id":"`), bytes.Repeat([]byte("x"), n-9)...), `"}`...)
}

const day = 24 * time.Hour

// answersOfACache are errors that a handler or Reconcile may get from another call of a cache and
// return; they say nothing about the call at hand.
var answersOfACache = []error{
	idemflight.ErrReentrant, idemflight.ErrKeyReused, idemflight.ErrInFlight, idemflight.ErrFull,
	idemflight.ErrClosed, idemflight.ErrCallerLeft, idemflight.ErrValueShed,
}

// lookup is Cache.Lookup without a Store, whose error cannot be.
func lookup(c *idemflight.Cache[idemflight.Key, *idemhttp.Response], key idemflight.Key) (idemflight.Entry[*idemhttp.Response], bool) {
	e, ok, err := c.Lookup(context.Background(), key)
	if err != nil {
		panic(err)
	}
	return e, ok
}

// resolve reports whether Resolve acted.
func resolve(c *idemflight.Cache[idemflight.Key, *idemhttp.Response], key idemflight.Key, r *idemhttp.Response, err error) bool {
	return c.Resolve(context.Background(), key, r, err) == nil
}
