package idemhttp_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
)

var neverReplayed = []string{
	"Set-Cookie", "sEt-cookIe2", "WWW-Authenticate", "Proxy-Authenticate", "Connection", "Keep-Alive", "TE", "Upgrade", "Proxy-Connection",
	"X-Named", "Date", "Age", "Server-Timing", "RateLimit", "ratelimit-policy", "RateLimit-Limit", "X-RateLimit-Remaining", "x-ratelimit-reset", "Retry-After",
	"X-Request-ID", "X-Correlation-ID", "traceparent", "tracestate", "baggage", "Via", "CF-Ray", "Access-Control-Allow-Origin", "ACCESS-CONTROL-EXPOSE-HEADERS",
}

func TestNeverReplayedHeaders(t *testing.T) {
	set := func(h http.Header, prefix string) {
		for _, name := range neverReplayed {
			h[prefix+name] = []string{"secret"}
		}
		h["Connection"] = []string{"x-named, close"}
		h[prefix+"Kept"] = []string{"1"}
	}
	check := func(t *testing.T, a answer) {
		require.True(t, a.replayed())
		require.Equal(t, http.Header{"Kept": {"1"}, "Idempotent-Replayed": {"true"}}, a.Header)
		require.Equal(t, http.Header{"Kept": {"1"}}, a.Trailer)
	}
	m := newMiddleware(t, idemhttp.Options{})
	h := m.Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
		set(w.Header(), "")
		w.WriteHeader(200)
		set(w.Header(), http.TrailerPrefix)
	}))
	require.NotEmpty(t, call(h, post("k", "")).Header.Get("Set-Cookie"),
		"the first client gets them")
	check(t, withoutPrefixed(call(h, post("k", ""))))

	// A response from Resolve, Reconcile or Restore has been through no recorder.
	resp := &idemhttp.Response{Status: 200, Header: http.Header{}, Trailer: http.Header{}}
	set(resp.Header, "")
	for _, name := range neverReplayed {
		resp.Trailer[name] = []string{"secret"}
	}
	resp.Trailer["kept"] = []string{"1"}
	resp.Header["idempotent-replayed"] = []string{"false"}
	t.Run("Restore", func(t *testing.T) {
		require.NoError(t, m.Cache().Restore(context.Background(), sharedKey("restored"), idemflight.Entry[*idemhttp.Response]{
			State: idemflight.Retained, Value: resp, Fingerprint: idemhttp.DefaultFingerprint(post("", ""), nil),
			CompletedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
		}))
		check(t, withoutPrefixed(call(h, post("restored", ""))))
	})
	held := m.Handler(handler(func(w http.ResponseWriter, r *http.Request) {
		must(idemflight.BeginEffect(r.Context()))
		w.WriteHeader(500)
	}))
	t.Run("Resolve", func(t *testing.T) {
		call(held, post("resolved", ""))
		require.True(t, resolve(m.Cache(), sharedKey("resolved"), resp, nil))
		check(t, withoutPrefixed(call(h, post("resolved", ""))))
	})
	t.Run("Reconcile", func(t *testing.T) {
		opts := idemhttp.DefaultCacheOptions()
		opts.Reconcile = func(context.Context, idemflight.Key, idemflight.Entry[*idemhttp.Response]) (*idemhttp.Response, error) {
			return resp, nil
		}
		held := newMiddleware(t, idemhttp.Options{Cache: idemflight.MustNew(opts)}).Handler(handler(func(w http.ResponseWriter, r *http.Request) {
			must(idemflight.BeginEffect(r.Context()))
			w.WriteHeader(500)
		}))
		require.Equal(t, 500, call(held, post("k", "")).Status)
		for range 2 {
			check(t, withoutPrefixed(call(held, post("k", ""))))
		}
	})
}

// A declared Content-Length is recomputed from the body there is, and an answer that may have none
// gets none, whoever retained it.
func TestContentLengthIsRecomputed(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{})
	h := m.Handler(handler(func(w http.ResponseWriter, r *http.Request) {
		must(idemflight.BeginEffect(r.Context()))
		w.WriteHeader(500)
	}))
	for _, c := range []struct {
		status int
		body   string
		want   string
		wants  []string
	}{
		{200, medium, medium, []string{"6000"}}, {200, "", "", []string{"0"}}, {204, "x", "", nil}, {304, "x", "", nil},
	} {
		key := fmt.Sprintf("%d-%d", c.status, len(c.body))
		call(h, post(key, ""))
		require.True(t, resolve(m.Cache(), sharedKey(key), &idemhttp.Response{
			Status: c.status, Body: []byte(c.body), Header: http.Header{"content-length": {"123"}},
		}, nil))
		a := call(handler(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "77")
			h.ServeHTTP(w, r)
		}), post(key, ""))
		require.Equal(t, c.status, a.Status)
		require.Equal(t, c.want, a.Body)
		require.Equal(t, c.wants, a.Header["Content-Length"], "status %d", c.status)
	}
}

// Once: no test noticed the planted fault that a declared Content-Length of 0 was not replayed.
func TestADeclaredLengthOfNothingIsReplayed(t *testing.T) {
	h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "0") }))
	for range 2 {
		require.Equal(t, "0", call(h, post("k", "")).Header.Get("Content-Length"))
	}
}

// Once: a Content-Length that net/http had dropped came back on the replay, and cost it its
// trailers.
func TestAnInvalidContentLengthDeclaresNothing(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		s := serve(t, protocol, newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			w.Header().Set("Content-Length", "many")
			_, _ = io.WriteString(w, "ok")
			w.Header().Set("X-Sum", "42")
		})))
		first, again := s.post(t, "k", "x"), s.post(t, "k", "x")
		require.True(t, again.replayed())
		require.Equal(t, "42", first.Trailer.Get("X-Sum"))
		require.Equal(t, first.Trailer, again.Trailer, "trailers of the replay")
		require.Equal(t, first.Body, again.Body)
	})
}

// A trailer that is never replayed is not, even where middleware outside announces one of that
// name.
func TestNeverReplayedTrailerAnnouncedOutside(t *testing.T) {
	inner := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "x")
		w.Header().Set("Set-Cookie", "secret")
		w.Header().Set("X-Sum", "1")
	}))
	s := serve(t, "HTTP/1.1", handler(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Set-Cookie, X-Sum")
		inner.ServeHTTP(w, r)
	}))
	require.Equal(t, "secret", s.post(t, "k", "").Trailer.Get("Set-Cookie"))
	a := s.post(t, "k", "")
	require.Empty(t, a.Trailer.Get("Set-Cookie"))
	require.Equal(t, "1", a.Trailer.Get("X-Sum"))
}

// withoutPrefixed takes off what httptest's recorder shows of trailers among the headers.
func withoutPrefixed(a answer) answer {
	for name := range a.Header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			delete(a.Header, name)
		}
	}
	return a
}

// Once: no test noticed the planted fault that the replay announced trailers that are never
// replayed.
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

// Once: no test covered a header with the prefix of a trailer and without values: it is no
// trailer, and takes none back.
func TestAPrefixedTrailerWithoutValuesIsNone(t *testing.T) {
	inner := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(http.TrailerPrefix+"X-Outer", "handler")
		_, _ = io.WriteString(w, "x")
		w.Header()[http.TrailerPrefix+"X-Outer"] = nil
	}))
	s := serve(t, "HTTP/1.1", handler(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Outer")
		w.Header().Set("X-Outer", "outer")
		inner.ServeHTTP(w, r)
	}))
	first, again := s.post(t, "k", ""), s.post(t, "k", "")
	require.Equal(t, http.Header{"X-Outer": {"outer"}}, first.Trailer)
	require.Equal(t, first.Trailer, again.Trailer)
}

// Once: no test covered a trailer that was announced and taken back. Over HTTP/2 an answer whose
// only trailer has no value never ends: such a trailer does not come back as one, though this
// time nothing is announced.
func TestATrailerThatWasTakenBackIsNotAnnouncedByItsPrefix(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{})
	require.NoError(t, m.Cache().Restore(context.Background(), sharedKey("k"), idemflight.Entry[*idemhttp.Response]{
		State: idemflight.Retained, Value: &idemhttp.Response{Trailer: http.Header{"X-Sum": nil}}, Fingerprint: idemhttp.DefaultFingerprint(post("", ""), nil),
		CompletedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
	}))
	w := httptest.NewRecorder()
	m.Handler(handler(func(http.ResponseWriter, *http.Request) { t.Error("runs again") })).ServeHTTP(w, post("k", ""))
	require.Equal(t, http.Header{"Idempotent-Replayed": {"true"}}, w.Header())
}

// Told by value: what outer middleware set and the handler left alone is each request's own.
func TestHeadersOfOuterMiddleware(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		var n counter
		m := newMiddleware(t, idemhttp.Options{})
		inner := m.Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			h.Set("X-Changed", "handler")
			h.Add("Vary", "Accept")
			h.Del("X-Removed")
			h["X-Same"] = []string{h.Get("X-Same")}
			h.Set("X-New", "handler")
			io.WriteString(w, "body")
			h.Set("X-Own", "late")
			h.Set("X-Changed", "late")
		}))
		s := serve(t, protocol, handler(func(w http.ResponseWriter, r *http.Request) {
			id := fmt.Sprint("outer ", n.add())
			for _, name := range []string{"X-Own", "X-Changed", "X-Removed", "X-Same"} {
				w.Header().Set(name, id)
			}
			w.Header().Set("Vary", "Origin")
			inner.ServeHTTP(w, r)
		}))
		for i := range 3 {
			a := s.post(t, "k", "")
			id := fmt.Sprint("outer ", i+1)
			require.Equal(t, id, a.Header.Get("X-Own"), "answer %d: left alone", i)
			require.Equal(t, id, a.Header.Get("X-Same"), "answer %d: set to the value it had", i)
			require.Equal(t, "handler", a.Header.Get("X-Changed"),
				"answer %d: as it stood at WriteHeader", i)
			require.Equal(t, []string{"Origin", "Accept"}, a.Header["Vary"],
				"answer %d: added to", i)
			require.NotContains(t, a.Header, "X-Removed", "answer %d: removed", i)
			require.Equal(t, "handler", a.Header.Get("X-New"))
			require.Equal(t, i > 0, a.replayed())
		}
	})
}

// Once: a header that middleware outside had set under an odd name came back beside the one that
// the handler had made of it, or although the handler had removed it.
func TestAHeaderOfAnOddNameIsReplayedAsTheHandlerLeftIt(t *testing.T) {
	for name, change := range map[string]func(http.Header){
		"changed": func(h http.Header) { h["x-odd"] = []string{"handler"} },
		"added":   func(h http.Header) { h["X-Odd"] = []string{"handler"} },
		"removed": func(h http.Header) { delete(h, "x-odd") },
		"left":    func(http.Header) {},
	} {
		t.Run(name, func(t *testing.T) {
			inner := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
				change(w.Header())
				_, _ = io.WriteString(w, "x")
			}))
			s := serve(t, "HTTP/1.1", handler(func(w http.ResponseWriter, r *http.Request) {
				w.Header()["x-odd"] = []string{"outer"}
				inner.ServeHTTP(w, r)
			}))
			first := s.post(t, "k", "").Header["X-Odd"]
			require.Equal(t, first, s.post(t, "k", "").Header["X-Odd"],
				"the retry, compared to the first client")
		})
	}
}

// Once: a header of middleware outside that the handler announced as a trailer and took back, or
// gave back, was a trailer of the replay all the same, or had the wrong value there.
func TestAHeaderFromOutsideIsTheTrailerThatTheHandlerMadeOfIt(t *testing.T) {
	changes := map[string]func(http.Header){
		"left":    func(http.Header) {},
		"changed": func(h http.Header) { h.Set("X-Outer", "handler") },
		"removed": func(h http.Header) { h.Del("X-Outer") },
		"reset":   func(h http.Header) { h.Set("X-Outer", "outer") },
	}
	eachProtocol(t, func(t *testing.T, protocol string) {
		for before, early := range changes {
			for after, late := range changes {
				inner := handler(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Trailer", "X-Outer, X-Sum")
					early(w.Header())
					_, _ = io.WriteString(w, "x")
					late(w.Header())
					w.Header().Set("X-Sum", "1")
				})
				outside := func(next http.Handler) http.Handler {
					return handler(func(w http.ResponseWriter, r *http.Request) {
						w.Header().Set("X-Outer", "outer")
						next.ServeHTTP(w, r)
					})
				}
				of := fmt.Sprintf("%s before the header was sent, %s after", before, after)
				bare := serve(t, protocol, outside(inner)).post(t, "", "x")
				covered := serve(t, protocol, outside(newMiddleware(t, idemhttp.Options{}).Handler(inner)))
				first, again := covered.post(t, "k", "x"), covered.post(t, "k", "x")
				require.Equal(t, bare.Trailer, first.Trailer, of)
				require.Equal(t, bare.Trailer, again.Trailer, "replay, %s", of)
				require.Equal(t, bare.Header["X-Outer"], again.Header["X-Outer"], "replay, %s", of)
			}
		}
	})
}

// onHeader is a writer of middleware outside that changes the header when it is written.
type onHeader struct {
	http.ResponseWriter
	do func(http.Header)
}

func (w *onHeader) WriteHeader(status int) {
	w.do(w.Header())
	w.ResponseWriter.WriteHeader(status)
}

func (w *onHeader) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Once: a trailer of middleware outside that is never replayed was taken away from the replay, or
// one that its own writer had removed or set for the first request alone became the handler's.
func TestTrailersFromOutsideAreEachRequestsOwn(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		for name, c := range map[string]struct {
			trailer string
			late    func(http.Header)
			writes  func(h http.Header, request string)
		}{
			"one that is never replayed, added to":   {"Server-Timing", func(h http.Header) { h.Add("Server-Timing", "handler") }, func(http.Header, string) {}},
			"one that is never replayed, taken back": {"Server-Timing", func(h http.Header) { h.Del("Server-Timing") }, func(http.Header, string) {}},
			"one that the first request goes without": {"X-Outer", func(http.Header) {}, func(h http.Header, request string) {
				if request == "1" {
					h.Del("X-Outer")
				}
			}},
			"one that is set with the header": {"X-Outer", func(http.Header) {}, func(h http.Header, request string) { h.Set("X-Outer", request) }},
		} {
			for size, body := range map[string]string{"empty": "", "small": "x", "large": strings.Repeat("x", 10_000)} {
				inner := newMiddleware(t, idemhttp.Options{MaxResponseBytes: 20_000}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader(200)
					_, _ = io.WriteString(w, body)
					if size == "large" {
						_ = http.NewResponseController(w).Flush()
					}
					c.late(w.Header())
				}))
				request := 0
				s := serve(t, protocol, handler(func(w http.ResponseWriter, r *http.Request) {
					request++
					own := fmt.Sprint(request)
					w.Header().Set("Trailer", c.trailer)
					w.Header().Set(c.trailer, own)
					inner.ServeHTTP(&onHeader{ResponseWriter: w, do: func(h http.Header) { c.writes(h, own) }}, r)
				}))
				s.post(t, "k", "x")
				again := s.post(t, "k", "x")
				require.True(t, again.replayed())
				require.Equal(t, "2", again.Trailer.Get(c.trailer), "%s, %s body", name, size)
			}
		}
	})
}

// The replay header is the middleware's alone.
func TestReplayHeader(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		for _, name := range []string{"Idempotent-Replayed", "idempotent-replayed", "IDEMPOTENT-replayed"} {
			inner := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, r *http.Request) {
				w.Header()[name] = []string{"handler"}
				if r.ContentLength > 0 {
					w.WriteHeader(103)
					w.Header()[name] = []string{"handler"}
					w.Header()["Trailer"] = []string{name}
					w.WriteHeader(200)
					w.Header()["Idempotent-Replayed"] = []string{"trailer"}
					w.Header()[http.TrailerPrefix+name] = []string{"trailer"}
				}
			}))
			s := serve(t, protocol, handler(func(w http.ResponseWriter, r *http.Request) {
				w.Header()[name] = []string{"outer"}
				inner.ServeHTTP(w, r)
			}))
			for i, body := range []string{"", "b"} {
				got := s.see(t, fmt.Sprint("executed", i)) // with a body
				require.NotContains(t, canon(got.Header), "Idempotent-Replayed", "executed")
				require.Empty(t, got.Trailer.Get("Idempotent-Replayed"), "executed")
				require.NotContains(t, fmt.Sprint(got.early), "handler", "1xx of the executed")
				first := s.post(t, fmt.Sprint("k", i), body)
				require.NotContains(t, canon(first.Header), "Idempotent-Replayed", "executed")
				again := s.post(t, fmt.Sprint("k", i), body)
				require.Equal(t, []string{"true"}, canon(again.Header)["Idempotent-Replayed"],
					"replayed")
				require.Empty(t, again.Trailer.Get("Idempotent-Replayed"))
			}
			requireProblem(t, s.post(t, "k0", "other"), 422, "key-reused", false)
			requireProblem(t, s.post(t, "bad key", "other"), 400, "malformed-key", false)
		}
		s := serve(t, protocol, newMiddleware(t, idemhttp.Options{ReplayHeader: "x-again", HeaderName: "x-key"}).Handler(handler(func(http.ResponseWriter, *http.Request) {})))
		for i := range 2 {
			r := s.request(t, t.Context(), "", nil)
			r.Header.Set("X-Key", "k")
			require.Equal(t, i == 1, s.send(t, r).Header.Get("X-Again") == "true",
				"names of one's own")
		}
	})
}

// gzipped is compression as people write it: it encodes for clients that accept it.
func gzipped(next http.Handler) http.Handler {
	return handler(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Accept-Encoding")
		if r.Header.Get("Accept-Encoding") != "gzip" {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer z.Close()
		next.ServeHTTP(gzipWriter{w, z}, r)
	})
}

type gzipWriter struct {
	http.ResponseWriter
	z io.Writer
}

func (g gzipWriter) WriteHeader(status int) {
	g.Header().Del("Content-Length")
	g.ResponseWriter.WriteHeader(status)
}

func (g gzipWriter) Write(p []byte) (int, error) { return g.z.Write(p) }

func TestCompressionOutsideAndInside(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		for _, declares := range []bool{false, true} {
			body := strings.Repeat("compressible ", 1000)
			page := handler(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/plain")
				if declares {
					w.Header().Set("Content-Length", fmt.Sprint(len(body)))
				}
				io.WriteString(w, body)
			})
			send := func(s *server, accept string) answer {
				r := s.request(t, t.Context(), "k", nil)
				r.Header.Set("Accept-Encoding", accept)
				a := s.send(t, r)
				if a.Header.Get("Content-Encoding") == "gzip" {
					z, err := gzip.NewReader(strings.NewReader(a.Body))
					require.NoError(t, err, "the bytes match the encoding")
					var plain bytes.Buffer
					_, err = io.Copy(&plain, z)
					require.NoError(t, err)
					a.Body = plain.String()
				}
				require.Equal(t, body, a.Body)
				require.Equal(t, "text/plain", a.Header.Get("Content-Type"))
				return a
			}
			outside := serve(t, protocol, gzipped(newMiddleware(t, idemhttp.Options{}).Handler(page)))
			for i, accept := range []string{"gzip", "identity", "gzip"} {
				a := send(outside, accept)
				require.Equal(t, accept == "gzip", a.Header.Get("Content-Encoding") == "gzip",
					"outside, each gets what it accepts")
				require.Equal(t, i > 0, a.replayed())
			}
			inside := serve(t, protocol, newMiddleware(t, idemhttp.Options{}).Handler(gzipped(page)))
			for i, accept := range []string{"gzip", "identity", "gzip"} {
				a := send(inside, accept)
				require.Equal(t, "gzip", a.Header.Get("Content-Encoding"),
					"inside, the first client's encoding is replayed")
				require.Equal(t, i > 0, a.replayed())
			}
		}
	})
}

// Of a 202 it tells when the work will be done, and is part of the answer.
func TestRetryAfterIsReplayedOfA202Alone(t *testing.T) {
	for code, want := range map[int]string{200: "", 201: "", 202: "7", 303: "", 422: ""} {
		h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(code)
		}))
		require.Equal(t, "7", call(h, post("k", "")).Header.Get("Retry-After"), "%d, the first client", code)
		a := call(h, post("k", ""))
		require.True(t, a.replayed())
		require.Equal(t, want, a.Header.Get("Retry-After"), "%d, the retry", code)
	}
}
