package idemhttp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
)

// sent is a Base that keeps what it was given.
type sent struct{ requests []*http.Request }

func (s *sent) RoundTrip(r *http.Request) (*http.Response, error) {
	s.requests = append(s.requests, r)
	return &http.Response{StatusCode: 200, Body: http.NoBody, Request: r}, nil
}

func TestTransportPutsTheKey(t *testing.T) {
	background := context.Background()
	made := func(*http.Request) string { return "made" }
	for name, c := range map[string]struct {
		method   string
		ctx      context.Context
		header   http.Header
		generate func(*http.Request) string
		want     []string // nil: none
		bad      bool
	}{
		"header":              {"POST", idemhttp.WithKey(background, "ctx"), http.Header{"Idempotency-Key": {"mine"}}, made, []string{`"mine"`}, false},
		"header, quoted":      {"POST", background, http.Header{"Idempotency-Key": {`"mi\\ne"`}}, made, []string{`"mi\\ne"`}, false},
		"header, odd case":    {"POST", background, http.Header{"idempotency-KEY": {"mine"}}, made, []string{`"mine"`}, false},
		"context":             {"PATCH", idemhttp.WithKey(background, `c"t\x`), nil, made, []string{`"c\"t\\x"`}, false},
		"generated":           {"post", background, nil, made, []string{`"made"`}, false},
		"patch in any case":   {"pAtCh", background, nil, made, []string{`"made"`}, false},
		"none":                {"POST", background, nil, nil, nil, false},
		"PUT":                 {"PUT", idemhttp.WithKey(background, "ctx"), nil, made, []string{`"ctx"`}, false},
		"DELETE":              {"DELETE", background, http.Header{"Idempotency-Key": {"mine"}}, made, []string{`"mine"`}, false},
		"a method of its own": {"CHARGE", background, nil, made, []string{`"made"`}, false},
		"HEAD":                {"HEAD", idemhttp.WithKey(background, "ctx"), nil, made, nil, false},
		"OPTIONS":             {"OPTIONS", idemhttp.WithKey(background, "ctx"), nil, made, nil, false},
		"TRACE":               {"TRACE", idemhttp.WithKey(background, "ctx"), nil, made, nil, false},
		"GET":                 {"", idemhttp.WithKey(background, "ctx"), nil, made, nil, false},
		"header empty":        {"POST", idemhttp.WithKey(background, "ctx"), http.Header{"Idempotency-Key": {""}}, made, nil, true},
		"header without any":  {"POST", idemhttp.WithKey(background, "ctx"), http.Header{"Idempotency-Key": {}}, made, []string{`"ctx"`}, false},
		"header twice":        {"POST", background, http.Header{"Idempotency-Key": {"a", "b"}}, made, nil, true},
		"two cases":           {"POST", background, http.Header{"Idempotency-Key": {"a"}, "idempotency-key": {"a"}}, made, nil, true},
		"header bad":          {"POST", background, http.Header{"Idempotency-Key": {"a b"}}, made, nil, true},
		"context empty":       {"POST", idemhttp.WithKey(background, ""), nil, made, nil, true},
		"context bad":         {"POST", idemhttp.WithKey(background, "ä"), nil, made, nil, true},
		"context long":        {"POST", idemhttp.WithKey(background, longest+"k"), nil, made, nil, true},
		"context longest":     {"POST", idemhttp.WithKey(background, longest), nil, made, []string{`"` + longest + `"`}, false},
		"generated empty":     {"POST", background, nil, func(*http.Request) string { return "" }, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			base := &sent{}
			body := &closing{Reader: strings.NewReader("x")}
			r, err := http.NewRequestWithContext(c.ctx, c.method, "http://x/", body)
			require.NoError(t, err)
			r.Header = c.header
			before := c.header.Clone()
			tr := &idemhttp.Transport{Base: base, Generate: c.generate}
			_, err = tr.RoundTrip(r)
			require.Equal(t, before, r.Header, "the caller's request does not change")
			if c.bad {
				require.Error(t, err)
				require.Empty(t, base.requests, "nothing is sent")
				require.True(t, body.closed, "and the body is closed")
				return
			}
			require.NoError(t, err)
			require.Len(t, base.requests, 1, "no retries of its own")
			require.Equal(t, c.want, base.requests[0].Header["Idempotency-Key"])
			if c.want != nil {
				require.Len(t, base.requests[0].Header, 1, "one header line in one case")
			}
		})
	}
}

type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error { c.closed = true; return nil }

func TestTransportHeaderName(t *testing.T) {
	base := &sent{}
	tr := &idemhttp.Transport{Base: base, HeaderName: "x-key"}
	r, _ := http.NewRequestWithContext(idemhttp.WithKey(t.Context(), "k"), "POST", "http://x/", nil)
	_, err := tr.RoundTrip(r)
	require.NoError(t, err)
	require.Equal(t, []string{`"k"`}, base.requests[0].Header["X-Key"])
}

// retrying is a Base that retries, and keeps the body for that: every attempt carries the same key.
type retrying struct{ base http.RoundTripper }

func (r retrying) RoundTrip(req *http.Request) (res *http.Response, err error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	for range 3 {
		req.Body = io.NopCloser(bytes.NewReader(body))
		res, err = r.base.RoundTrip(req)
		if err == nil && res.StatusCode < 500 {
			break
		}
		if err == nil {
			res.Body.Close()
		}
	}
	return res, err
}

func TestRetriesCarryTheSameKey(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		var attempts, ran counter
		m := newMiddleware(t, idemhttp.Options{Require: true})
		h := m.Handler(handler(func(w http.ResponseWriter, _ *http.Request) { ran.add(); io.WriteString(w, "done") }))
		var keys sync.Map // a connection that is dropped synchronizes nothing
		s := serve(t, protocol, handler(func(w http.ResponseWriter, r *http.Request) {
			keys.Store(r.Header.Get("Idempotency-Key"), true)
			h.ServeHTTP(w, r)
			if attempts.add() < 3 {
				panic(http.ErrAbortHandler) // the answer is lost on its way
			}
		}))
		made := 0
		client := &http.Client{Transport: &idemhttp.Transport{Base: retrying{s.client.Transport}, Generate: func(*http.Request) string { made++; return "made" }}}
		res, err := client.Post(s.URL, "", strings.NewReader("body"))
		require.NoError(t, err)
		require.Equal(t, "done", read(res).Body)
		require.Equal(t, 1, made, "one key for all attempts")
		different := 0
		keys.Range(func(any, any) bool { different++; return true })
		require.Equal(t, 1, different, "keys that were sent")
		require.Equal(t, 1, ran.count())
		client.CloseIdleConnections()
	})
}

// What the docs warn of: net/http takes the header as leave to send a request again by itself, when
// a connection that it reuses dies. Through Transport it does not: the one attempt's error comes out.
func TestNetHTTPResendsByItselfButNotThroughTransport(t *testing.T) {
	for _, body := range []string{"body", ""} {
		for _, method := range []string{"POST", "PUT"} {
			attempts := func(t *testing.T, wrap func(http.RoundTripper) http.RoundTripper) (int, error) {
				var n counter
				s := serve(t, "HTTP/1.1", handler(func(_ http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					if n.add() > 1 {
						panic(http.ErrAbortHandler) // after the effect
					}
				}))
				s.client.Transport = wrap(s.client.Transport)
				defer s.client.CloseIdleConnections()
				s.post(t, "warms-the-connection", "")
				var payload io.Reader
				if body != "" {
					payload = strings.NewReader(body)
				}
				r := s.request(t, idemhttp.WithKey(t.Context(), "k"), "k", payload)
				r.Method = method
				res, err := s.client.Do(r)
				if err == nil {
					res.Body.Close()
				}
				return n.count() - 1, err
			}
			n, err := attempts(t, func(base http.RoundTripper) http.RoundTripper { return base })
			require.Error(t, err)
			require.Greater(t, n, 1, "%s with body %q, without Transport", method, body)
			n, err = attempts(t, func(base http.RoundTripper) http.RoundTripper { return &idemhttp.Transport{Base: base} })
			require.Error(t, err)
			require.Equal(t, 1, n, "%s with body %q, through Transport", method, body)
		}
	}
}

// Whether it put the key there or found it: what Base gets cannot be sent again by net/http, and what
// it gets of a request without key, or of a safe one, is the request itself.
func TestWhatBaseGetsCannotBeSentAgain(t *testing.T) {
	var base sent
	tr := &idemhttp.Transport{Base: &base}
	for name, c := range map[string]struct {
		method string
		body   io.Reader
		key    string
		once   bool
	}{
		"put there":       {"POST", strings.NewReader("x"), "", true},
		"borne":           {"POST", strings.NewReader("x"), "mine", true},
		"borne, as sent":  {"POST", strings.NewReader("x"), `"mine"`, true},
		"no body":         {"DELETE", nil, "", true},
		"empty body":      {"POST", http.NoBody, `"mine"`, true},
		"safe with a key": {"GET", nil, "mine", false},
	} {
		r, err := http.NewRequestWithContext(idemhttp.WithKey(t.Context(), "k"), c.method, "http://x/", c.body)
		require.NoError(t, err)
		if c.key != "" {
			r.Header.Set("Idempotency-Key", c.key)
		}
		before := *r
		base.requests = nil
		_, err = tr.RoundTrip(r)
		require.NoError(t, err)
		require.True(t, (before.GetBody == nil) == (r.GetBody == nil) && before.Body == r.Body, "%s: the caller's request does not change", name)
		got := base.requests[0]
		if !c.once {
			require.Same(t, r, got, name)
			continue
		}
		require.Nil(t, got.GetBody, name)
		require.True(t, got.Body != nil && got.Body != http.NoBody, "%s: a body", name)
		sent, err := io.ReadAll(got.Body)
		require.NoError(t, err)
		require.Equal(t, r.ContentLength, int64(len(sent)), "%s: the same bytes", name)
	}
	r, err := http.NewRequest("POST", "http://x/", strings.NewReader("x"))
	require.NoError(t, err)
	_, err = tr.RoundTrip(r)
	require.NoError(t, err)
	require.Same(t, r, base.requests[len(base.requests)-1], "without a key")
}

// Generate sees the request whose key it makes.
// A server may read a method without regard to case; a key on what is safe would be in vain.
func TestSafeMethodsBearNoKeyInAnyCase(t *testing.T) {
	for method, bears := range map[string]bool{"": false, "GET": false, "get": false, "Head": false, "options": false, "trace": false, "post": true, "QUERY": true} {
		var base sent
		r, err := http.NewRequestWithContext(idemhttp.WithKey(t.Context(), "k"), "POST", "http://x", nil)
		require.NoError(t, err)
		r.Method = method
		_, err = (&idemhttp.Transport{Base: &base}).RoundTrip(r)
		require.NoError(t, err)
		require.Equal(t, bears, base.requests[0].Header.Get("Idempotency-Key") != "", method)
	}
}

func TestGenerateSeesTheRequest(t *testing.T) {
	var base sent
	tr := &idemhttp.Transport{Base: &base, Generate: func(r *http.Request) string {
		if r.URL.Path == "/search" {
			return ""
		}
		return "of" + strings.ReplaceAll(r.URL.Path, "/", "-")
	}}
	for path, want := range map[string][]string{"/search": nil, "/pay": {`"of-pay"`}} {
		base.requests = nil
		r, err := http.NewRequest("POST", "http://x"+path, nil)
		require.NoError(t, err)
		_, err = tr.RoundTrip(r)
		require.NoError(t, err)
		require.Equal(t, want, base.requests[0].Header["Idempotency-Key"], path)
	}
}

func TestTransportErrorsAreTheBases(t *testing.T) {
	tr := &idemhttp.Transport{Base: failing{}}
	r, _ := http.NewRequestWithContext(idemhttp.WithKey(t.Context(), "k"), "POST", "http://x/", nil)
	_, err := tr.RoundTrip(r)
	require.True(t, errors.Is(err, errBoom))
	tr.CloseIdleConnections() // of a Base that has no such thing
}

type failing struct{}

func (failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, errBoom }

// countingFailing is a network that is down.
type countingFailing struct{ sent int }

func (c *countingFailing) RoundTrip(*http.Request) (*http.Response, error) {
	c.sent++
	return nil, errBoom
}

// Once: no test noticed the planted fault that Transport sent a failed request again. Retrying is
// the business of the caller: Transport itself sends once.
func TestTransportSendsOnce(t *testing.T) {
	var base countingFailing
	r := httptest.NewRequest(http.MethodPost, "http://memory/payments", http.NoBody)
	r = r.WithContext(idemhttp.WithKey(r.Context(), "k"))
	_, err := (&idemhttp.Transport{Base: &base}).RoundTrip(r)
	require.ErrorIs(t, err, errBoom)
	require.Equal(t, 1, base.sent, "requests that were sent")
}

// idle is a network whose connections can be closed.
type idle struct {
	countingFailing
	closed int
}

func (i *idle) CloseIdleConnections() { i.closed++ }

// Once: no test noticed the planted fault that CloseIdleConnections was not passed on to the
// base, or to http.DefaultTransport where there is none.
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

// A server that requires keys of all that is not safe, and a client that has one in its context.
func TestKeysOfAllMethodsThatAreNotSafe(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		var ran counter
		s := serve(t, protocol, newMiddleware(t, idemhttp.Options{Methods: []string{"POST", "PUT", "PATCH", "DELETE"}, Require: true}).
			Handler(handler(func(w http.ResponseWriter, _ *http.Request) { ran.add(); w.WriteHeader(204) })))
		s.client.Transport = &idemhttp.Transport{Base: s.client.Transport}
		for i, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
			for attempt := range 2 {
				r, err := http.NewRequestWithContext(idemhttp.WithKey(t.Context(), method), method, s.URL, nil)
				require.NoError(t, err)
				a := s.send(t, r)
				require.Equal(t, 204, a.Status, method)
				require.Equal(t, attempt > 0, a.replayed(), method)
			}
			require.Equal(t, i+1, ran.count(), method)
		}
		s.client.CloseIdleConnections()
	})
}

// A reused connection dies after the charge, inside another execution, and the bank is gone: one
// attempt, and a key that is held.
func TestALostConnectionInsideAnExecutionIsUnknown(t *testing.T) {
	var charges counter
	var bank *server
	bank = serve(t, "HTTP/1.1", handler(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ping" {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		charges.add()
		_ = bank.Listener.Close()
		panic(http.ErrAbortHandler)
	}))
	bank.client.Transport = &idemhttp.Transport{Base: bank.client.Transport}
	res, err := bank.client.Get(bank.URL + "/ping")
	require.NoError(t, err)
	res.Body.Close()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	_, err = cache.Do(t.Context(), "order", func(ctx context.Context) (string, error) {
		r, err := http.NewRequestWithContext(idemhttp.WithKey(ctx, "k"), "POST", bank.URL+"/charge", strings.NewReader("100"))
		if err != nil {
			return "", err
		}
		res, err := bank.client.Do(r)
		if err != nil {
			return "", err
		}
		return "receipt", res.Body.Close()
	})
	require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
	require.Equal(t, 1, charges.count(), "attempts")
	bank.client.CloseIdleConnections()
}
