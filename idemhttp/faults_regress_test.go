package idemhttp_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
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

func TestMethodsAreThoseAtNew(t *testing.T) {
	methods := []string{"PUT"}
	h := newMiddleware(t, idemhttp.Options{Methods: methods, Require: true}).Handler(handler(func(http.ResponseWriter, *http.Request) {}))
	methods[0] = "DELETE"
	for method, status := range map[string]int{"PUT": http.StatusBadRequest, "DELETE": http.StatusOK} {
		require.Equal(t, status, call(h, httptest.NewRequest(method, "/", nil)).Status, "%s without a key", method)
	}
}

func TestNamesOfHeadersAreTokens(t *testing.T) {
	const others = "!#$%&'*+-.^_`|~"
	for c := range 256 {
		name := string([]byte{byte(c)})
		_, err := idemhttp.New(idemhttp.Options{Scope: idemhttp.SharedScope, HeaderName: name, Methods: []string{name}})
		if '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || strings.Contains(others, name) {
			require.NoError(t, err, "%q may be a name", name)
			continue
		}
		require.ErrorContains(t, err, "Options.HeaderName", "%q", name)
		require.ErrorContains(t, err, "Options.Methods", "%q", name)
	}
}

// What the default fingerprint is of does not change: fingerprints outlive the process (Restore).
func TestDefaultFingerprintIsForGood(t *testing.T) {
	for sent, text := range map[string]string{
		"": "", "a": "a=", "b=2&a=%31&b=1": "a=1&b=2&b=1", "a=%20&b=+": "a=+&b=+",
		"%zz": "%zz", "%zz&a=1": "a=1&%zz", "%zz&b;c": "%zz&b;c", "%zz&a=1&b;c": "a=1&%zz&b;c", "&&a=1&": "a=1",
	} {
		r := post("k", "")
		r.URL.RawQuery = sent
		require.Equal(t, idemflight.FingerprintOf([]byte("POST"), []byte("/payments"), []byte(text), []byte("body")),
			idemhttp.DefaultFingerprint(r, []byte("body")), "query %q", sent)
	}
}

func TestARequestWithoutBodyIsHandedOverWithout(t *testing.T) {
	h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, http.NoBody, r.Body)
		w.WriteHeader(http.StatusCreated)
	}))
	for key, body := range map[string]io.ReadCloser{"nil": nil, "none": http.NoBody, "empty": io.NopCloser(strings.NewReader(""))} {
		r := post(key, "")
		r.Body = body
		require.Equal(t, http.StatusCreated, call(h, r).Status, key)
	}
}

// thrifty is a body that takes an empty buffer for a fault of who reads it.
type thrifty struct{ io.Reader }

func (t thrifty) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, errBoom
	}
	return t.Reader.Read(p)
}

// Middleware outside may have decompressed it.
func TestABodyLongerThanItsContentLengthIsHandedOverWhole(t *testing.T) {
	h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, r *http.Request) { copyAll(w, r.Body) }))
	for _, size := range []int{4, 5, 1000, 100_000} {
		body := strings.Repeat("b", size)
		r := httptest.NewRequest(http.MethodPost, "/", thrifty{strings.NewReader(body)})
		r.Header.Set("Idempotency-Key", strconv.Itoa(size))
		r.ContentLength = 3
		require.Equal(t, body, call(h, r).Body, "%d bytes", size)
	}
}

// Also where the writer would not mind: the fault is the handler's, and is to be seen there.
func TestAnInvalidStatusPanicsInTheHandler(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{Classify: func(*idemhttp.Response) idemflight.Disposition { return idemflight.Retain }})
	h := m.Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
		for _, status := range []int{-1, 0, 99, 1000} {
			require.Panics(t, func() { w.WriteHeader(status) }, "status %d", status)
		}
		for _, status := range []int{100, 999} {
			require.NotPanics(t, func() { w.WriteHeader(status) }, "status %d", status)
		}
	}))
	for range 2 {
		d := discard{h: make(http.Header)}
		h.ServeHTTP(&d, post("k", ""))
		require.Equal(t, 999, d.status, "the first final one, also replayed")
	}
}

func TestSwitchingProtocolsIsNoFinalStatusOfHTTP2(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{})
	r := post("k", "")
	r.ProtoMajor = 2
	m.Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusSwitchingProtocols)
		w.WriteHeader(http.StatusCreated)
	})).ServeHTTP(&discard{h: make(http.Header)}, r)
	e, _ := m.Cache().Lookup(sharedKey("k"))
	require.Equal(t, http.StatusCreated, e.Value.Status)
}

// restless is middleware outside that changes the header when it is written.
type restless struct{ http.ResponseWriter }

func (s restless) WriteHeader(status int) {
	h := s.Header()
	h.Set("X-Added", "outside")
	h.Set("X-Changed", "outside")
	h.Del("X-Removed")
	s.ResponseWriter.WriteHeader(status)
}

func (s restless) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func TestHeadersChangedAfterWriteHeaderAreFoundAgain(t *testing.T) {
	for name, begin := range map[string]func(http.ResponseWriter){
		"flushed":   func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
		"too large": func(w http.ResponseWriter) { io.WriteString(w, "large") },
	} {
		t.Run(name, func(t *testing.T) {
			inner := newMiddleware(t, idemhttp.Options{MaxResponseBytes: 3}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
				h := w.Header()
				h.Set("X-Changed", "in time")
				h.Set("X-Removed", "in time")
				w.WriteHeader(http.StatusOK)
				h.Set("X-Late", "handler")
				h.Set("X-Taken-Back", "handler")
				begin(w)
				require.Equal(t, "handler", w.Header().Get("X-Late"), "what the handler has set itself")
				h.Del("X-Taken-Back")
				io.WriteString(w, "x")
				require.NotContains(t, w.Header(), "X-Taken-Back", "what the handler has deleted itself")
			}))
			w := httptest.NewRecorder()
			inner.ServeHTTP(restless{w}, post("k", ""))
			require.Equal(t, http.Header{"X-Added": {"outside"}, "X-Changed": {"outside"}, "X-Late": {"handler"}}, w.Header(),
				"what middleware outside finds: what it has changed stays")
		})
	}
}

// counting is middleware outside that begins the body at the first Write, as those do that compress.
type counting struct {
	http.ResponseWriter
	writes int
}

func (c *counting) Write(p []byte) (int, error) { c.writes++; return c.ResponseWriter.Write(p) }
func (c *counting) FlushError() error           { return nil }

func TestAnAnswerWithoutBodyIsSentWithoutWrite(t *testing.T) {
	inner := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
		must(http.NewResponseController(w).Flush())
	}))
	for _, who := range []string{"executing", "replayed"} {
		c := &counting{ResponseWriter: httptest.NewRecorder()}
		inner.ServeHTTP(c, post("k", ""))
		require.Zero(t, c.writes, who)
	}
}

func TestADeclaredLengthOfNothingIsReplayed(t *testing.T) {
	h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "0") }))
	for range 2 {
		require.Equal(t, "0", call(h, post("k", "")).Header.Get("Content-Length"))
	}
}

func TestTrailersAreAnnouncedAgainButForThoseNeverReplayed(t *testing.T) {
	for key, c := range map[string]struct{ first, again []string }{
		"all":  {[]string{"x-sum,X-Other"}, []string{"x-sum,X-Other"}},
		"some": {[]string{"x-sum, Set-Cookie ,X-Other", "Set-Cookie"}, []string{"X-Sum, X-Other"}},
		"none": {[]string{"Set-Cookie"}, nil},
	} {
		h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) { w.Header()["Trailer"] = c.first }))
		require.Equal(t, c.first, call(h, post(key, "")).Header["Trailer"], key)
		require.Equal(t, c.again, call(h, post(key, "")).Header["Trailer"], key)
	}
}

// idle is a network whose connections can be closed.
type idle struct {
	countingFailing
	closed int
}

func (i *idle) CloseIdleConnections() { i.closed++ }

func TestCloseIdleConnectionsIsTheBases(t *testing.T) {
	base, usual := new(idle), new(idle)
	was := http.DefaultTransport
	http.DefaultTransport = usual
	defer func() { http.DefaultTransport = was }()
	(&http.Client{Transport: &idemhttp.Transport{Base: base}}).CloseIdleConnections()
	require.Equal(t, []int{1, 0}, []int{base.closed, usual.closed})
	(&http.Client{Transport: &idemhttp.Transport{}}).CloseIdleConnections()
	require.Equal(t, []int{1, 1}, []int{base.closed, usual.closed})
	(&http.Client{Transport: &idemhttp.Transport{Base: failing{}}}).CloseIdleConnections()
}
