package idemhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
)

func TestNewNamesEveryBadField(t *testing.T) {
	_, err := idemhttp.New(idemhttp.Options{
		HeaderName: "no header", ReplayHeader: "nor:this", Methods: []string{"POST", "get"},
		MaxRequestBytes: -1, MaxResponseBytes: -2, KeyReusedStatus: 500,
	})
	for _, field := range []string{"Scope", "HeaderName", "ReplayHeader", "Methods", "MaxRequestBytes", "MaxResponseBytes", "KeyReusedStatus"} {
		require.ErrorContains(t, err, "Options."+field, "every bad field is named")
	}
	_, err = idemhttp.New(idemhttp.Options{
		Scope: idemhttp.SharedScope, HeaderName: "X-Key", Key: func(*http.Request, []byte) (string, error) { return "", nil },
	})
	require.ErrorContains(t, err, "Options.HeaderName", "Key tells where the key is")
	for _, safe := range []string{"GET", "head", "Options", "TRACE"} {
		_, err := idemhttp.New(idemhttp.Options{Scope: idemhttp.SharedScope, Methods: []string{safe}})
		require.ErrorContains(t, err, "Methods", "%s is safe", safe)
		_, err = idemhttp.New(idemhttp.Options{Scope: idemhttp.SharedScope, Methods: []string{"POST", "not " + safe}})
		require.ErrorContains(t, err, "Methods", "no method has a space in it")
	}
	for _, status := range []int{399, 500, -1} {
		_, err := idemhttp.New(idemhttp.Options{Scope: idemhttp.SharedScope, KeyReusedStatus: status})
		require.ErrorContains(t, err, "KeyReusedStatus", "status %d", status)
	}
	for _, status := range []int{0, 400, 499} {
		_, err := idemhttp.New(idemhttp.Options{Scope: idemhttp.SharedScope, KeyReusedStatus: status, MaxWait: idemflight.NoWait, Methods: []string{"PUT", "DELETE"}})
		require.NoError(t, err, "status %d", status)
	}
	require.Panics(t, func() { newMiddleware(t, idemhttp.Options{}).Handler(nil) },
		"a nil handler is noticed when it is mounted")
}

// Once: no test noticed the planted fault that New let a size of -1 pass.
func TestNewRefusesTheFirstSizeBelowZero(t *testing.T) {
	_, err := idemhttp.New(idemhttp.Options{Scope: idemhttp.SharedScope, MaxRequestBytes: -1})
	require.ErrorContains(t, err, "Options.MaxRequestBytes is -1")
	_, err = idemhttp.New(idemhttp.Options{Scope: idemhttp.SharedScope, MaxResponseBytes: -1})
	require.ErrorContains(t, err, "Options.MaxResponseBytes is -1")
}

// Once: no test noticed the planted fault that New took some byte for one that a token may have,
// or the other way round.
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

// Each step of the order is taken only if those before it are satisfied.
func TestOrderOfChecks(t *testing.T) {
	var steps []string
	step := func(name string) { steps = append(steps, name) }
	var scopeErr error
	h := newMiddleware(t, idemhttp.Options{
		Scope:           func(*http.Request) (string, error) { step("scope"); return "me", scopeErr },
		Fingerprint:     func(*http.Request, []byte) idemflight.Fingerprint { step("cache"); return idemflight.Fingerprint{} },
		MaxRequestBytes: 3,
	}).Handler(handler(func(http.ResponseWriter, *http.Request) { step("handler") }))
	send := func(key, body string, err error) (answer, []string) {
		steps, scopeErr = nil, err
		return call(h, post(key, body)), steps
	}

	a, got := send("bad key", "too large", errBoom)
	requireProblem(t, a, 400, "malformed-key", false)
	require.Empty(t, got, "after a bad key nothing is asked")
	a, got = send("k", "too large", errBoom)
	requireProblem(t, a, 401, "scope", false)
	require.Equal(t, []string{"scope"}, got, "before a scope no body is read")
	a, got = send("k", "too large", nil)
	requireProblem(t, a, 413, "body-too-large", false)
	require.Equal(t, []string{"scope"}, got, "before the body is read nothing runs")
	_, got = send("k", "ok", nil)
	require.Equal(t, []string{"scope", "cache", "handler"}, got, "all in order")
}

var (
	longest  = strings.Repeat("k", 255)
	keyCases = []struct{ value, key string }{ // key "": 400
		{"abc", "abc"}, {`"abc"`, "abc"}, {"8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"},
		{"!", "!"}, {"~", "~"}, {`a"b`, `a"b`}, {`"a\"b"`, `a"b`}, {`a\b`, `a\b`}, {`"a\\b"`, `a\b`}, {`a"`, `a"`}, {"a;b=1", "a;b=1"}, {"a,b", "a,b"},
		{longest, longest}, {`"` + longest + `"`, longest}, {`"\"` + longest[1:] + `"`, `"` + longest[1:]},
		{"", ""}, {`""`, ""}, {`"`, ""}, {`"abc`, ""}, {`"abc\`, ""}, {`"abc\"`, ""}, {`"a\bc"`, ""}, {`"a"b"`, ""}, {`"a";b=1`, ""}, {`"a" `, ""}, {`"a\"b"x`, ""}, {`"a\"b";c=1`, ""}, {`"a", "b"`, ""},
		{longest + "k", ""}, {`"` + longest + `k"`, ""}, {`"\"` + longest + `"`, ""}, {strings.Repeat("x", 1<<16), ""},
		{"a b", ""}, {`"a b"`, ""}, {"a\tb", ""}, {"a\x00b", ""}, {"a\x7fb", ""}, {"schlüssel", ""}, {"\"\xff\"", ""}, {" a", ""}, {"a ", ""},
	}
)

func TestKeySyntax(t *testing.T) {
	var got idemflight.Key
	h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(_ http.ResponseWriter, r *http.Request) {
		got, _ = idemhttp.KeyFrom(r.Context())
	}))
	for _, c := range keyCases {
		got = idemflight.Key{}
		r := post("", "")
		r.Header["Idempotency-Key"] = []string{c.value}
		a := call(h, r)
		if c.key == "" {
			requireProblem(t, a, 400, "malformed-key", false)
			require.Zero(t, got, "handler ran for key %q", c.value)
			continue
		}
		require.Equal(t, 200, a.Status, "key %q: %s", c.value, a.Body)
		if !a.replayed() {
			require.Equal(t, sharedKey(c.key), got, "key %q", c.value)
		}
	}
	r := post("a", "")
	r.Header.Add("Idempotency-Key", "a")
	requireProblem(t, call(h, r), 400, "malformed-key", false)
}

func TestBothFormsNameTheSameKey(t *testing.T) {
	var ran counter
	h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(http.ResponseWriter, *http.Request) { ran.add() }))
	call(h, post(`a"\b`, ""))
	require.True(t, call(h, post(`"a\"\\b"`, "")).replayed(), "the quoted form is the same key")
	require.Equal(t, 1, ran.count(), "executions")
}

// Once: no test noticed the planted fault that keys were compared without regard to case.
func TestKeysThatDifferInCaseAreTwo(t *testing.T) {
	var ran counter
	h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(http.ResponseWriter, *http.Request) { ran.add() }))
	for _, key := range []string{"order-a", "Order-A", `"ORDER-A"`} {
		require.False(t, call(h, post(key, "")).replayed(), "a key is opaque: %s", key)
	}
	require.Equal(t, 3, ran.count(), "executions")
}

func TestMissingKey(t *testing.T) {
	ok := handler(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(202) })
	require.Equal(t, 202, call(newMiddleware(t, idemhttp.Options{}).Handler(ok), post("", "")).Status, "without Require it passes")
	h := newMiddleware(t, idemhttp.Options{Require: true}).Handler(ok)
	requireProblem(t, call(h, post("", "")), 400, "missing-key", false)
	require.Equal(t, 202, call(h, httptest.NewRequest("GET", "/", nil)).Status,
		"a GET needs no key")
}

// The very same writer and request, body unread, Scope not called.
func TestUncoveredRequestsPassUntouched(t *testing.T) {
	for name, r := range map[string]*http.Request{
		"no key": post("", "body"),
		"GET":    func() *http.Request { r := post("k", "body"); r.Method = "GET"; return r }(),
		"PUT":    func() *http.Request { r := post("k", "body"); r.Method = "PUT"; return r }(),
	} {
		var w http.ResponseWriter = httptest.NewRecorder()
		ran := false
		newMiddleware(t, idemhttp.Options{
			Scope: func(*http.Request) (string, error) { panic("Scope called") },
		}).Handler(handler(func(gotW http.ResponseWriter, gotR *http.Request) {
			ran = true
			require.Same(t, r, gotR, "%s: the same request", name)
			require.True(t, w == gotW, "%s: the same writer", name)
			_, ok := idemhttp.KeyFrom(gotR.Context())
			require.False(t, ok, "%s: not covered, no key", name)
			body, err := io.ReadAll(gotR.Body)
			require.NoError(t, err)
			require.Equal(t, "body", string(body), "%s: body unread", name)
		})).ServeHTTP(w, r)
		require.True(t, ran, "%s: handler ran", name)
	}
}

func TestMethodsCompareWithoutCase(t *testing.T) {
	var ran counter
	h := newMiddleware(t, idemhttp.Options{Methods: []string{"put"}}).Handler(handler(func(http.ResponseWriter, *http.Request) { ran.add() }))
	for range 2 {
		r := post("k", "")
		r.Method = "PUT"
		call(h, r)
	}
	require.Equal(t, 1, ran.count(), "PUT is covered by put")
	lower := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(http.ResponseWriter, *http.Request) { ran.add() }))
	for range 2 {
		r := post("k", "")
		r.Method = "patch"
		call(lower, r)
	}
	require.Equal(t, 2, ran.count(), "patch is covered by PATCH")
}

// Once: no test noticed the planted fault that Methods could be changed after New, through the
// slice that New was given.
func TestMethodsAreThoseAtNew(t *testing.T) {
	methods := []string{"PUT"}
	h := newMiddleware(t, idemhttp.Options{Methods: methods, Require: true}).Handler(handler(func(http.ResponseWriter, *http.Request) {}))
	methods[0] = "DELETE"
	for method, status := range map[string]int{"PUT": http.StatusBadRequest, "DELETE": http.StatusOK} {
		require.Equal(t, status, call(h, httptest.NewRequest(method, "/", nil)).Status,
			"%s without a key", method)
	}
}

func TestScope(t *testing.T) {
	var ran counter
	var scope string
	var scopeErr error
	var problem idemhttp.Problem
	m := newMiddleware(t, idemhttp.Options{
		Scope:   func(*http.Request) (string, error) { return scope, scopeErr },
		Problem: func(w http.ResponseWriter, _ *http.Request, p idemhttp.Problem) { problem = p; w.WriteHeader(p.Status) },
	})
	h := m.Handler(handler(func(w http.ResponseWriter, r *http.Request) {
		key, _ := idemhttp.KeyFrom(r.Context())
		ran.add()
		fmt.Fprint(w, key.Scope)
	}))
	for _, c := range []struct {
		scope  string
		err    error
		status int
	}{
		{"me", coded(429), 429}, {"", nil, 401}, {"", errBoom, 401}, {"me", errBoom, 401}, {"me", coded(403), 403}, {"me", fmt.Errorf("x: %w", coded(503)), 503},
		{"me", coded(399), 401}, {"me", coded(600), 401}, {"me", coded(200), 401}, {"", coded(599), 599}, {"", coded(400), 400}, {"me", coded(500), 500},
	} {
		scope, scopeErr = c.scope, c.err
		require.Equal(t, c.status, call(h, post("k", "")).Status,
			"scope %q, error %v", c.scope, c.err)
		require.Equal(t, c.status == 429 || c.status >= 500, problem.Retryable, "status %d", c.status)
		if c.err != nil {
			require.ErrorIs(t, problem.Err, c.err, "Scope's own error")
		} else {
			require.Error(t, problem.Err, "an empty scope has an error too")
		}
	}
	require.Zero(t, ran.count(), "a failing scope runs nothing")
	require.Zero(t, m.Cache().Len(), "and keeps nothing")

	for _, scope = range []string{"a", "b", "a"} {
		scopeErr = nil
		require.Equal(t, scope, call(h, post("k", "")).Body,
			"one customer never sees another's answer")
	}
	require.Equal(t, 2, ran.count(), "the same key of two customers is two keys")
	shared, err := idemhttp.SharedScope(post("k", ""))
	require.NoError(t, err)
	require.NotEmpty(t, shared, "SharedScope returns a constant that is not empty")
}

func TestDefaultFingerprint(t *testing.T) {
	of := func(method, target, body string) idemflight.Fingerprint {
		r := httptest.NewRequest("POST", "/", nil)
		r.Method = method
		path, query, _ := strings.Cut(target, "?")
		r.URL.Path, r.URL.RawQuery = path, query
		r.RequestURI = "" // as a request that no server has read
		if strings.Contains(path, "%") {
			r.URL.RawPath = path
			r.URL.Path = strings.ReplaceAll(path, "%2F", "/")
		}
		return idemhttp.DefaultFingerprint(r, []byte(body))
	}
	base := of("POST", "/p?a=1&b=2&a=3", "body")
	require.NotZero(t, base)
	require.Equal(t, base, of("POST", "/p?b=2&a=1&a=3", "body"), "sorted by name")
	require.Equal(t, base, of("POST", "/p?%61=1&b=%32&&a=3", "body"),
		"names and values as they parse")
	for _, other := range []idemflight.Fingerprint{
		of("PATCH", "/p?a=1&b=2&a=3", "body"), of("POST", "/q?a=1&b=2&a=3", "body"), of("POST", "/p?a=3&b=2&a=1", "body"),
		of("POST", "/p?a=1&b=2", "body"), of("POST", "/p?a=1&b=2&a=3", "bodY"), of("POST", "/p", "body"),
	} {
		require.NotEqual(t, base, other, "each part counts, and the order within one name")
	}
	require.NotEqual(t, of("POST", "/a%2Fb", ""), of("POST", "/a/b", ""), "the escaped path counts")
	require.NotEqual(t, of("POST", "/p?a=1", ""), of("POST", "/pa=1", ""), "length-prefixed")
	require.NotEqual(t, of("POST", "/p", "?x"), of("POST", "/p?x", ""), "length-prefixed")
	require.NotEqual(t, of("POSTa", "/b", ""), of("POST", "a/b", ""), "length-prefixed")
	seen := map[idemflight.Fingerprint]string{}
	for _, query := range []string{"a=%zz", "a=%yy", "a=%25zz", "a=1;b=2", "a=1&b=2", "a=1%3Bb=2", "a=%zz&b=1", "", "%", "%25", "a=b=c", "a=b%26c", "a=b&c"} {
		f := of("POST", "/p?"+query, "")
		require.NotContains(t, seen, f,
			"%q and %q: what does not parse counts as sent", query, seen[f])
		seen[f] = query
	}
	require.Equal(t, of("POST", "/p?a=%zz&b=1&c=2", ""), of("POST", "/p?c=2&b=1&a=%zz", ""),
		"the rest is sorted all the same")
}

// Once: no test noticed the planted fault that the default fingerprint was one of another text.
// That text does not change: fingerprints outlive the process (Restore).
func TestDefaultFingerprintIsForGood(t *testing.T) {
	for sent, text := range map[string]string{
		"": "", "a": "a=", "b=2&a=%31&b=1": "a=1&b=2&b=1", "a=%20&b=+": "a=+&b=+",
		"%zz": "%zz", "%zz&a=1": "a=1&%zz", "%zz&b;c": "%zz&b;c", "%zz&a=1&b;c": "a=1&%zz&b;c", "&&a=1&": "a=1",
	} {
		r := post("k", "")
		r.URL.RawQuery = sent
		r.Header.Set("Content-Type", "text/x; a=B")
		require.Equal(t, idemflight.FingerprintOf([]byte("POST"), []byte("/payments"), []byte(text), []byte("text/x; a=B"), []byte("body")),
			idemhttp.DefaultFingerprint(r, []byte("body")), "query %q", sent)
	}
	for line, path := range map[string]string{
		"/a/b": "/a/b", "/a/b/": "/a/b", "//a//b//?x": "/a/b", "/": "/", "//": "/", "/a/../b/./": "/a/../b/.", "/%2F/a%20b": "/%2F/a%20b",
		"http://host/a//b/?x=/y": "/a/b", "http://host": "/", "http:///a": "/a", "http://host?x": "/", "HTTPS://host:1//": "/", "*": "*", "/to/http://host/b": "/to/http:/host/b",
	} {
		r := post("k", "")
		r.RequestURI = line
		r.URL.Path = "/behind/a/prefix" // StripPrefix leaves the request line alone
		require.Equal(t, idemflight.FingerprintOf([]byte("POST"), []byte(path), nil, nil, nil),
			idemhttp.DefaultFingerprint(r, nil), "request line %q", line)
	}
}

// A proxy cleans the path, or a mux redirects to the canonical one: the payload is the same. Two mounts
// behind StripPrefix are two operations, and the same bytes of another type are another payload.
func TestWhatIsAnotherPayload(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{})
	h := m.Handler(status(200))
	mux := http.NewServeMux()
	for _, mount := range []string{"/eu", "/us"} {
		mux.Handle(mount+"/", http.StripPrefix(mount, h))
	}
	send := func(key, target, contentType string) answer {
		r := httptest.NewRequest(http.MethodPost, target, strings.NewReader("1"))
		r.Header.Set("Idempotency-Key", key)
		r.Header.Set("Content-Type", contentType)
		return call(mux, r)
	}
	require.False(t, send("k", "/eu/pay", "text/x").replayed())
	require.True(t, send("k", "/eu/pay/", "text/x").replayed(), "a slash at the end is the same payload")
	requireProblem(t, send("k", "/us/pay", "text/x"), 422, "key-reused", false)
	requireProblem(t, send("k", "/eu/pay", "text/X"), 422, "key-reused", false)
	requireProblem(t, send("k", "/eu/pay?a=1", "text/x"), 422, "key-reused", false)
}

func TestZeroFingerprintMeansNoCheck(t *testing.T) {
	h := newMiddleware(t, idemhttp.Options{
		Fingerprint: func(*http.Request, []byte) idemflight.Fingerprint { return idemflight.Fingerprint{} },
	}).Handler(handler(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	require.Equal(t, "one", call(h, post("k", "one")).Body)
	require.Equal(t, "one", call(h, post("k", "two")).Body, "another payload is not told apart")
}

func TestBodyIsHandedOverWhole(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		type seen struct {
			body    string
			length  int64
			te      []string
			trailer http.Header
		}
		got := make(chan seen, 1)
		s := serve(t, protocol, newMiddleware(t, idemhttp.Options{MaxRequestBytes: 100_000}).Handler(handler(func(_ http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			got <- seen{string(body), r.ContentLength, r.TransferEncoding, r.Trailer}
		})))
		for i, size := range []int{0, 1, 511, 512, 513, 65536, 65537, 100_000} {
			want := strings.Repeat("b", size)
			require.Equal(t, 200, s.post(t, fmt.Sprint("length", i), want).Status, "%d bytes", size)
			require.Equal(t, seen{want, int64(size), nil, nil}, <-got,
				"%d bytes with Content-Length", size)
			chunked := s.request(t, t.Context(), fmt.Sprint("chunked", i), io.MultiReader(strings.NewReader(want)))
			require.Equal(t, 200, s.send(t, chunked).Status, "%d bytes", size)
			require.Equal(t, seen{want, int64(size), nil, nil}, <-got, "%d bytes without", size)
		}
		r := s.request(t, t.Context(), "trailer", io.MultiReader(strings.NewReader("b")))
		r.Trailer = http.Header{"X-Sum": {"1"}}
		s.send(t, r)
		require.Equal(t, "1", (<-got).trailer.Get("X-Sum"), "trailers of the request")
		requireProblem(t, s.post(t, "large", strings.Repeat("b", 100_001)), 413, "body-too-large", false)
		requireProblem(t, s.send(t, s.request(t, t.Context(), "large", io.MultiReader(strings.NewReader(strings.Repeat("b", 100_001))))), 413, "body-too-large", false)
	})
}

// Once: no test noticed the planted fault that a request without a body was handed over with an
// empty one.
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

// thrifty is a body that takes an empty buffer for a fault of its reader.
type thrifty struct{ io.Reader }

func (t thrifty) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, errBoom
	}
	return t.Reader.Read(p)
}

// Once: no test noticed the planted fault that a body longer than its Content-Length was cut.
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

func TestABodyIsNobodyElses(t *testing.T) {
	send := func(h http.Handler, key string, i int) { call(h, post(key+strconv.Itoa(i), strings.Repeat(key, 2000))) }
	const rounds = 20 // a pool may lose what it is given

	// Another's request comes right after one that executed, and right after one that was replayed.
	later := func(t *testing.T, m *idemhttp.Middleware, mount func(http.Handler) http.Handler) {
		var bodies []io.Reader
		h := mount(handler(func(_ http.ResponseWriter, r *http.Request) { bodies = append(bodies, r.Body) }))
		for i := range rounds {
			for range 2 {
				for _, key := range []string{"a", "b", "c"} {
					send(h, key, i)
				}
			}
		}
		require.Len(t, bodies, 3*rounds, "each executed once")
		require.Equal(t, uint64(3*rounds), m.Cache().Stats().Replayed, "and was replayed once")
		for i, body := range bodies {
			read, err := io.ReadAll(body)
			require.NoError(t, err)
			require.Equal(t, strings.Repeat("abc"[i%3:i%3+1], 2000), string(read), "body %d", i)
		}
	}
	t.Run("that the handler reads later", func(t *testing.T) {
		m := newMiddleware(t, idemhttp.Options{})
		later(t, m, m.Handler)
	})
	t.Run("that the handler reads later, mounted twice", func(t *testing.T) {
		m := newMiddleware(t, idemhttp.Options{})
		later(t, m, func(h http.Handler) http.Handler { return m.Handler(m.Handler(h)) })
	})
	t.Run("that the fingerprint keeps", func(t *testing.T) {
		var bodies [][]byte
		m := newMiddleware(t, idemhttp.Options{Fingerprint: func(r *http.Request, body []byte) idemflight.Fingerprint {
			bodies = append(bodies, body)
			return idemhttp.DefaultFingerprint(r, body)
		}})
		h := m.Handler(handler(func(http.ResponseWriter, *http.Request) {}))
		for i := range rounds {
			for _, key := range []string{"a", "b", "c"} {
				send(h, key, 0)
				send(h, key, i)
			}
		}
		for i, body := range bodies {
			require.Equal(t, strings.Repeat("abc"[i/2%3:i/2%3+1], 2000), string(body), "body %d", i)
		}
	})
}

// A limit of middleware outside is a limit too.
func TestMaxBytesErrorIs413(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{})
	h := http.MaxBytesHandler(m.Handler(handler(func(http.ResponseWriter, *http.Request) { panic("ran") })), 3)
	r := post("k", "four")
	r.ContentLength = -1
	requireProblem(t, call(h, r), 413, "body-too-large", false)
	require.Zero(t, m.Cache().Len(), "nothing recorded")
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

func TestUnreadableBodyRunsAndKeepsNothing(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{})
	h := m.Handler(handler(func(http.ResponseWriter, *http.Request) { panic("ran") }))
	for _, err := range []error{io.ErrUnexpectedEOF, errBoom, context.DeadlineExceeded} {
		r := httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader("some"), failingReader{err}))
		r.Header.Set("Idempotency-Key", "k")
		requireProblem(t, call(h, r), 400, "unreadable-body", false)
	}
	require.Zero(t, m.Cache().Len(), "nothing recorded")
	require.Zero(t, m.Cache().Stats().Executed, "nothing ran")
}

// A client announces more than it sends: over a real connection, the handler never runs.
func TestContentLengthThatLies(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{})
	s := serve(t, "HTTP/1.1", m.Handler(handler(func(http.ResponseWriter, *http.Request) { panic("ran") })))
	c := dial(t, s)
	c.write("POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nContent-Length: 10\r\n\r\nfour")
	require.NoError(t, c.CloseWrite(), "the client has no more to send")
	requireProblem(t, c.read(), 400, "unreadable-body", false)
	require.Zero(t, m.Cache().Stats().Executed, "nothing ran")
	require.Zero(t, m.Cache().Len(), "nothing kept")
}

func TestContextOfTheHandler(t *testing.T) {
	type userKey struct{}
	ctx, cancel := context.WithDeadline(context.WithValue(context.Background(), userKey{}, "u"), time.Now().Add(time.Hour))
	cache := idemhttp.DefaultCacheOptions()
	cache.ExecTimeout = 2 * time.Hour
	var handlers context.Context
	h := newMiddleware(t, idemhttp.Options{Cache: idemflight.MustNew(cache)}).Handler(handler(func(w http.ResponseWriter, r *http.Request) {
		handlers = r.Context()
		require.Equal(t, "u", handlers.Value(userKey{}), "the request's values")
		deadline, ok := handlers.Deadline()
		require.True(t, ok)
		require.Greater(t, time.Until(deadline), 90*time.Minute,
			"the cache's ExecTimeout, not the outer deadline")
		cancel()
		require.NoError(t, handlers.Err(), "not the request's cancellation")
		require.NoError(t, idemflight.BeginEffect(handlers), "BeginEffect knows the context")
		idemflight.NoEffect(handlers)
	}))
	require.Equal(t, 200, call(h, post("k", "").WithContext(ctx)).Status)
	require.ErrorIs(t, handlers.Err(), context.Canceled, "it ends when the handler returns")
	require.True(t, errors.Is(context.Cause(handlers), context.Canceled))
}

// As ordinary middleware inside and outside of ServeMux.
func TestServeMuxPatterns(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{})
	show := handler(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Pattern, " ", r.PathValue("id")) })
	inside := http.NewServeMux()
	inside.Handle("POST /pay/{id}", m.Handler(show))
	r := post("k", "")
	r.URL.Path = "/pay/7"
	require.Equal(t, "POST /pay/{id} 7", call(inside, r).Body, "inside the mux")

	outside := http.NewServeMux()
	outside.Handle("POST /pay/{id}", show)
	r = post("k2", "")
	r.URL.Path = "/pay/8"
	require.Equal(t, "POST /pay/{id} 8", call(m.Handler(outside), r).Body, "outside the mux")
	require.Equal(t, "POST /pay/{id}", r.Pattern, "what logs requests further out sees the pattern")
}

// Contexts derived from a handler's are recognised by the standard library: they cost no goroutine.
func TestHandlerContext_DerivedContextsCostNoGoroutine(t *testing.T) {
	ran := false
	h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, r *http.Request) {
		ran = true
		before := runtime.NumGoroutine()
		for range 100 {
			_, cancel := context.WithCancel(r.Context())
			defer cancel()
		}
		require.Less(t, runtime.NumGoroutine(), before+50, "goroutines of 100 derived contexts")
		key, ok := idemhttp.KeyFrom(r.Context())
		require.True(t, ok)
		require.Equal(t, "derived", key.ID)
	}))
	_ = serveOne(h, "derived", "", "")
	require.True(t, ran)
}

// Options.Key: method, Scope, body, Key; a keyless request is read and checked too.
func TestOrderOfChecksWithAKeyOfOnesOwn(t *testing.T) {
	var steps []string
	step := func(name string) { steps = append(steps, name) }
	var scopeErr, keyErr error
	var id string
	for _, required := range []bool{false, true} {
		h := newMiddleware(t, idemhttp.Options{
			Scope: func(*http.Request) (string, error) { step("scope"); return "me", scopeErr },
			Key: func(r *http.Request, body []byte) (string, error) {
				step("key")
				require.Equal(t, "ok", string(body))
				return id, keyErr
			},
			Require: required, MaxRequestBytes: 3,
		}).Handler(handler(func(w http.ResponseWriter, r *http.Request) {
			step("handler")
			body, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			require.Equal(t, "ok", string(body), "put back")
			require.Equal(t, int64(2), r.ContentLength)
			key, _ := idemhttp.KeyFrom(r.Context())
			require.Equal(t, id, key.ID)
		}))
		send := func(key, body string, errs ...error) (answer, []string) {
			steps, id, scopeErr, keyErr = nil, key, nil, nil
			if len(errs) > 0 {
				scopeErr = errs[0]
			}
			if len(errs) > 1 {
				keyErr = errs[1]
			}
			r := post("", body)
			r.Header.Set("Idempotency-Key", "not looked at")
			return call(h, r), steps
		}

		a, got := send("", "too large", errBoom)
		requireProblem(t, a, 401, "scope", false)
		require.Equal(t, []string{"scope"}, got)
		a, got = send("", "too large")
		requireProblem(t, a, 413, "body-too-large", false)
		require.Equal(t, []string{"scope"}, got, "even if it has no key")
		a, _ = send("k", "ok", nil, errBoom)
		requireProblem(t, a, 400, "malformed-key", false)
		require.Contains(t, a.problem(t).Detail, "could not be determined", "not malformed: it is not known")
		a, _ = send("k", "ok", nil, coded(401))
		requireProblem(t, a, 401, "malformed-key", false)
		a, got = send("k", "ok", nil, coded(503))
		requireProblem(t, a, 503, "malformed-key", true)
		require.Equal(t, []string{"scope", "key"}, got, "nothing runs")
		for _, bad := range []string{"a b", "ä", longest + "k"} {
			a, _ = send(bad, "ok")
			requireProblem(t, a, 400, "malformed-key", false)
		}
		a, got = send("", "ok")
		if required {
			requireProblem(t, a, 400, "missing-key", false)
		} else {
			require.Equal(t, []string{"scope", "key", "handler"}, got, "goes on")
			send("", "ok")
			require.Equal(t, []string{"scope", "key", "handler"}, steps, "each time")
		}
		for i, quoted := range []string{`"k"`, `"k"`, "k"} {
			a, _ = send(quoted, "ok")
			require.Equal(t, i == 1, a.replayed(), "taken as it is: quotes are part of it")
		}
	}
}

// Whatever comes in the body of a redelivery, an event is its id: Key and Fingerprint say so.
func TestAWebhookIsItsEvent(t *testing.T) {
	var ran counter
	event := func(_ *http.Request, body []byte) (string, error) {
		id, _, found := strings.Cut(string(body), ";attempt=")
		if !found {
			return "", errBoom
		}
		return id, nil
	}
	h := newMiddleware(t, idemhttp.Options{Key: event, Fingerprint: func(r *http.Request, body []byte) idemflight.Fingerprint {
		id, _ := event(r, body)
		return idemflight.FingerprintOf([]byte(id))
	}}).Handler(handler(func(w http.ResponseWriter, r *http.Request) { ran.add(); copyAll(w, r.Body) }))
	for attempt := range 3 {
		a := call(h, post("", fmt.Sprint("evt_1;attempt=", attempt)))
		require.Equal(t, "evt_1;attempt=0", a.Body)
		require.Equal(t, attempt > 0, a.replayed())
	}
	requireProblem(t, call(h, post("", "no event")), 400, "malformed-key", false)
	require.Equal(t, 1, ran.count())
}

// A Key may keep the body that it was given: it is nobody else's.
func TestABodyThatKeyKeepsIsNobodyElses(t *testing.T) {
	var bodies [][]byte
	h := newMiddleware(t, idemhttp.Options{Key: func(_ *http.Request, body []byte) (string, error) {
		bodies = append(bodies, body)
		return string(body[:1]), nil
	}}).Handler(handler(func(http.ResponseWriter, *http.Request) {}))
	for range 20 {
		for _, key := range []string{"a", "b", "c"} {
			call(h, post("", strings.Repeat(key, 2000)))
		}
	}
	for i, body := range bodies {
		require.Equal(t, strings.Repeat("abc"[i%3:i%3+1], 2000), string(body), "body %d", i)
	}
}

// Key may read a form from the request, and the handler finds it there all the same.
func TestAKeyInAFormField(t *testing.T) {
	h := newMiddleware(t, idemhttp.Options{Key: func(r *http.Request, _ []byte) (string, error) {
		return r.PostFormValue("nonce"), nil
	}}).Handler(handler(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.PostFormValue("amount")) }))
	for i := range 2 {
		r := post("", "nonce=n1&amount=5")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		a := call(h, r)
		require.Equal(t, "5", a.Body)
		require.Equal(t, i > 0, a.replayed())
	}
	r := post("", "amount=6")
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	require.Equal(t, "6", call(h, r).Body, "without the field")
}

// Files of a form that Key parses are removed when it has its key, since no server knows of them; but not those of a form
// that was parsed before, which the handler finds.
func TestFilesOfAFormThatKeyParses(t *testing.T) {
	files := t.TempDir()
	t.Setenv("TMPDIR", files)
	t.Setenv("TMP", files)
	list := func() []os.DirEntry {
		entries, err := os.ReadDir(files)
		require.NoError(t, err)
		return entries
	}
	send := func(key string) *http.Request {
		r := post(key, "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\ncontent\r\n--b--\r\n")
		r.Header.Set("Content-Type", "multipart/form-data; boundary=b")
		return r
	}
	h := newMiddleware(t, idemhttp.Options{Key: func(r *http.Request, _ []byte) (string, error) {
		if r.MultipartForm == nil {
			require.NoError(t, r.ParseMultipartForm(0))
		}
		require.Len(t, list(), 1)
		return r.Header.Get("Idempotency-Key"), nil
	}}).Handler(handler(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, len(list())) }))
	require.Equal(t, "0", call(h, send("parsed-by-Key")).Body, "files when the handler begins")

	r := send("parsed-before")
	require.NoError(t, r.ParseMultipartForm(0))
	require.Equal(t, "1", call(h, r).Body, "files when the handler begins")
	require.NoError(t, r.MultipartForm.RemoveAll())
}
