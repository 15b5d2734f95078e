package idemhttp_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
)

// Faults that the middleware once had, each under the name of its scenario.

// answersOfACache are errors that a handler or Reconcile may get from another call of a cache and
// return; they say nothing about the call at hand.
var answersOfACache = []error{
	idemflight.ErrReentrant, idemflight.ErrKeyReused, idemflight.ErrInFlight, idemflight.ErrFull,
	idemflight.ErrClosed, idemflight.ErrLeft, idemflight.ErrValueShed,
}

// A held key whose cause was ErrReentrant was taken for a middleware mounted twice, and its handler
// ran again, unguarded; other causes told the client to take a new key.
func TestAnUnknownOutcomeStaysUnknownWhateverCausedIt(t *testing.T) {
	for _, cause := range answersOfACache {
		t.Run(cause.Error(), func(t *testing.T) {
			var runs counter
			h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(_ http.ResponseWriter, r *http.Request) {
				runs.add()
				_ = idemflight.BeginEffect(r.Context())
				panic(fmt.Errorf("inner: %w", cause))
			}))
			require.Panics(t, func() { call(h, post("k", "x")) }, "the executing request")
			for range 2 {
				requireProblem(t, call(h, post("k", "x")), http.StatusConflict, "outcome-unknown", false)
			}
			require.Equal(t, 1, runs.count(), "executions of a held key")
		})
	}
}

func TestAReconcileThatLearnsNothingNeverRunsTheHandler(t *testing.T) {
	for _, cause := range answersOfACache {
		t.Run(cause.Error(), func(t *testing.T) {
			opts := idemhttp.DefaultCacheOptions()
			opts.Reconcile = func(context.Context, idemflight.Key, idemflight.Entry[*idemhttp.Response]) (*idemhttp.Response, error) {
				return nil, fmt.Errorf("inner: %w", cause)
			}
			var runs counter
			h := newMiddleware(t, idemhttp.Options{Cache: idemflight.MustNew(opts)}).Handler(handler(func(w http.ResponseWriter, r *http.Request) {
				runs.add()
				_ = idemflight.BeginEffect(r.Context())
				w.WriteHeader(http.StatusBadGateway)
			}))
			require.Equal(t, http.StatusBadGateway, call(h, post("k", "x")).Status)
			for range 2 {
				requireProblem(t, call(h, post("k", "x")), http.StatusConflict, "outcome-unknown", false)
			}
			require.Equal(t, 1, runs.count(), "executions of a held key")
		})
	}
}

// A duplicate of a flight that was released after such an error was told that its outcome is unknown.
func TestADuplicateOfAReleasedFlightMayRetryWhateverTheErrorWraps(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{})
	release := make(chan struct{})
	h := m.Handler(handler(func(_ http.ResponseWriter, r *http.Request) {
		idemflight.NoEffect(r.Context())
		<-release
		panic(fmt.Errorf("inner: %w", idemflight.ErrOutcomeUnknown))
	}))
	led := make(chan struct{})
	go func() {
		defer close(led)
		defer func() { _ = recover() }()
		h.ServeHTTP(httptest.NewRecorder(), post("k", "x"))
	}()
	until(t, "the first is in flight", func() bool { return m.Cache().Stats().InFlight == 1 })
	joined := make(chan answer, 1)
	go func() { joined <- call(h, post("k", "x")) }()
	until(t, "the duplicate waits", waiters(m, "k", 1))
	close(release)
	requireProblem(t, <-joined, http.StatusInternalServerError, "failed", true)
	<-led
	require.Zero(t, m.Cache().Len(), "nothing is kept")
}

// Why a client's context ended was taken for what the cache had answered.
func TestARequestThatEndedHasLeftWhateverItsCause(t *testing.T) {
	for _, cause := range slices.Concat(answersOfACache, []error{idemflight.ErrOutcomeUnknown}) {
		t.Run(cause.Error(), func(t *testing.T) {
			h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(http.ResponseWriter, *http.Request) {
				t.Error("a request that has ended must not execute")
			}))
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(cause)
			requireProblem(t, call(h, post("k", "x").WithContext(ctx)), http.StatusServiceUnavailable, "left", true)
		})
	}
}

// deferring is middleware outside that sends its header with the first bytes, as those do that
// compress, and has changed it until then.
type deferring struct {
	http.ResponseWriter
	code int
	sent bool
}

func (d *deferring) WriteHeader(code int) {
	if d.code == 0 {
		d.code = code
		d.Header().Set("X-Outside", "1")
		d.Header().Del("Content-Length")
	}
}

func (d *deferring) Write(p []byte) (int, error) {
	if d.code == 0 {
		d.WriteHeader(http.StatusOK)
	}
	if !d.sent {
		d.sent = true
		d.ResponseWriter.WriteHeader(d.code)
		p = append([]byte("transformed: "), p...)
		n, err := d.ResponseWriter.Write(p)
		return max(n-len("transformed: "), 0), err
	}
	return d.ResponseWriter.Write(p)
}

// Such middleware found the handler's later headers in place of its own.
func TestMiddlewareOutsideMaySendItsHeaderWithTheBody(t *testing.T) {
	odd := handler(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("Content-Length", "2")
		w.Header().Set("X-Stays", "early")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, "ok")
		w.Header().Set("X-Stays", "late")
		w.Header().Set("X-Sum", "42")
	})
	outside := func(next http.Handler) http.Handler {
		return handler(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(&deferring{ResponseWriter: w}, r) })
	}
	eachProtocol(t, func(t *testing.T, protocol string) {
		bare := serve(t, protocol, outside(odd)).post(t, "", "x")
		covered := serve(t, protocol, outside(newMiddleware(t, idemhttp.Options{}).Handler(odd)))
		first := covered.post(t, "k", "x")
		require.Equal(t, "1", first.Header.Get("X-Outside"))
		require.Equal(t, "early", first.Header.Get("X-Stays"))
		require.Equal(t, bare, first, "what the first client gets without and with the middleware")
	})
}

// Mounted twice, the inner one hid the form and the pattern from the server and from middleware outside.
func TestMountedTwiceNoFormFilesAreLeft(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Setenv("TMP", dir)
	m := newMiddleware(t, idemhttp.Options{})
	inner := http.NewServeMux()
	inner.HandleFunc("POST /payments", func(_ http.ResponseWriter, r *http.Request) {
		require.NoError(t, r.ParseMultipartForm(1), "the form")
		files, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, files, 1, "files of the form while it is read")
	})
	var pattern string
	s := serve(t, "HTTP/1.1", handler(func(w http.ResponseWriter, r *http.Request) {
		m.Handler(m.Handler(inner)).ServeHTTP(w, r)
		pattern = r.Pattern
	}))
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	file, err := form.CreateFormFile("file", "name")
	require.NoError(t, err)
	_, _ = file.Write(bytes.Repeat([]byte("x"), 100_000))
	require.NoError(t, form.Close())
	r := s.request(t, t.Context(), "k", &body)
	r.Header.Set("Content-Type", form.FormDataContentType())
	require.Equal(t, http.StatusOK, s.send(t, r).Status)
	s.Close() // it has cleaned up by then
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, files, "files of the form that are left")
	require.Equal(t, "POST /payments", pattern, "what middleware outside sees")
}

// A Content-Length that net/http had dropped came back on the replay, and cost it its trailers.
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

// Middleware outside may have set Retry-After in a case of its own.
func TestNoRetryAfterIsLeftOnAProblemThatIsFinal(t *testing.T) {
	h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(http.ResponseWriter, *http.Request) {}))
	w := httptest.NewRecorder()
	w.Header()["retry-after"] = []string{"9"}
	w.Header()["cache-control"] = []string{"public"}
	h.ServeHTTP(w, post(strings.Repeat("x", 256), "x"))
	for name, values := range w.Header() {
		if strings.EqualFold(name, "Retry-After") {
			t.Errorf("%s: %q on a problem that is not retryable", name, values)
		}
		if strings.EqualFold(name, "Cache-Control") {
			require.Equal(t, []string{"no-store"}, values)
		}
	}
}

// A header that middleware outside had set under an odd name came back beside the one that the
// handler had made of it, or although the handler had removed it.
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
			require.Equal(t, first, s.post(t, "k", "").Header["X-Odd"], "the retry, compared to the first client")
		})
	}
}

// A header of middleware outside that the handler announced as a trailer and took back, or gave back,
// was a trailer of the replay all the same, or with the wrong value.
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

// A trailer of middleware outside that is never replayed was taken away from the replay, or one that
// its own writer had removed or set for the first request alone came to be the handler's.
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

// What has the prefix of a trailer and no values is no trailer, and takes none back.
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

// Over HTTP/2 an answer whose only trailer has no value never ends: one that was announced and taken
// back does not come back as one, though this time nothing is announced.
func TestATrailerThatWasTakenBackIsNotAnnouncedByItsPrefix(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{})
	require.NoError(t, m.Cache().Restore(sharedKey("k"), idemflight.Entry[*idemhttp.Response]{
		State: idemflight.Retained, Value: &idemhttp.Response{Trailer: http.Header{"X-Sum": nil}}, Fingerprint: idemhttp.DefaultFingerprint(post("", ""), nil),
		CompletedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
	}))
	w := httptest.NewRecorder()
	m.Handler(handler(func(http.ResponseWriter, *http.Request) { t.Error("runs again") })).ServeHTTP(w, post("k", ""))
	require.Equal(t, http.Header{"Idempotent-Replayed": {"true"}}, w.Header())
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
