package idemhttp_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
)

const reusedDetail = "Idempotency key already used with a different request payload"

func TestKeyReused(t *testing.T) {
	var problem idemhttp.Problem
	m := newMiddleware(t, idemhttp.Options{KeyReusedStatus: 409, Problem: func(_ http.ResponseWriter, _ *http.Request, p idemhttp.Problem) { problem = p }})
	call(m.Handler(handler(func(http.ResponseWriter, *http.Request) {})), post("k", "one"))
	call(m.Handler(handler(func(http.ResponseWriter, *http.Request) { panic("ran") })), post("k", "two"))
	require.Equal(t, 409, problem.Status, "KeyReusedStatus")
	require.ErrorIs(t, problem.Err, idemflight.ErrKeyReused)

	// After: whatever the record says.
	states := map[string]handler{
		"retained": func(http.ResponseWriter, *http.Request) {},
		"omitted":  func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "too large") },
		"held": func(w http.ResponseWriter, r *http.Request) {
			must(idemflight.BeginEffect(r.Context()))
			w.WriteHeader(500)
		},
	}
	for name, h := range states {
		h := newMiddleware(t, idemhttp.Options{MaxResponseBytes: 3}).Handler(h)
		call(h, post("k", "one"))
		p := requireProblem(t, call(h, post("k", "two")), 422, "key-reused", false)
		require.Equal(t, reusedDetail, p.Detail, name)
	}
}

// In flight another payload is refused at once, before any wait.
func TestKeyReusedInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := inMemory(newMiddleware(t, idemhttp.Options{}).Handler(handler(func(http.ResponseWriter, *http.Request) { <-release })))
		defer b.stop()
		first := b.async(t.Context(), "k", "one")
		synctest.Wait()
		before := time.Now()
		a, err := b.post(t.Context(), "k", "two")
		require.NoError(t, err)
		requireProblem(t, a, 422, "key-reused", false)
		require.Zero(t, time.Since(before), "waited for %v", time.Since(before))
		close(release)
		require.Equal(t, 200, (<-first).Status)
	})
}

func TestDuplicateWaitsUpToMaxWait(t *testing.T) {
	for _, c := range []struct{ option, waits time.Duration }{
		{0, 30 * time.Second}, {time.Minute, time.Minute}, {idemflight.NoWait, 0}, {-time.Hour, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			b := inMemory(newMiddleware(t, idemhttp.Options{MaxWait: c.option}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
				<-release
				io.WriteString(w, "done")
			})))
			defer b.stop()
			first := b.async(t.Context(), "k", "")
			synctest.Wait()
			before := time.Now()
			a, err := b.post(t.Context(), "k", "")
			require.NoError(t, err)
			requireProblem(t, a, 409, "in-flight", true)
			require.Equal(t, c.waits, time.Since(before), "MaxWait %v", c.option)

			var patient <-chan answer
			if c.waits > 0 {
				patient = b.async(t.Context(), "k", "")
				time.Sleep(c.waits - 1)
			}
			close(release)
			require.False(t, (<-first).replayed(), "never on the executing one")
			if patient != nil {
				a := <-patient
				require.Equal(t, "done", a.Body, "the same answer")
				require.True(t, a.replayed(), "marked")
			}
		})
	}
}

func TestMaxWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := idemhttp.DefaultCacheOptions()
		opts.MaxWaiters = 1
		release := make(chan struct{})
		b := inMemory(newMiddleware(t, idemhttp.Options{Cache: idemflight.MustNew(opts)}).Handler(handler(func(http.ResponseWriter, *http.Request) { <-release })))
		defer b.stop()
		first := b.async(t.Context(), "k", "")
		synctest.Wait()
		second := b.async(t.Context(), "k", "")
		synctest.Wait()
		a, err := b.post(t.Context(), "k", "")
		require.NoError(t, err)
		requireProblem(t, a, 409, "in-flight", true)
		close(release)
		require.Equal(t, 200, (<-first).Status)
		require.Equal(t, 200, (<-second).Status)
	})
}

// A deadline of middleware outside ends the wait, and somebody still reads the answer.
func TestDuplicateWhoseContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var problem error
		m := newMiddleware(t, idemhttp.Options{})
		h := m.Handler(handler(func(http.ResponseWriter, *http.Request) { <-release }))
		outer := handler(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), time.Second)
			defer cancel()
			h.ServeHTTP(w, r.WithContext(ctx))
		})
		b := inMemory(outer)
		defer b.stop()
		first := b.async(t.Context(), "k", "")
		synctest.Wait()
		a, err := b.post(t.Context(), "k", "")
		require.NoError(t, err, "%v", problem)
		requireProblem(t, a, 503, "left", true)
		time.Sleep(time.Hour)
		close(release)
		require.Equal(t, 200, (<-first).Status, "the deadline is not the executing request's")
	})
}

// A duplicate that hangs up while it waits leaves no waiter behind.
func TestDuplicateThatHangsUp(t *testing.T) {
	release := make(chan struct{})
	m := newMiddleware(t, idemhttp.Options{})
	s := serve(t, "HTTP/1.1", m.Handler(handler(func(w http.ResponseWriter, _ *http.Request) { <-release; io.WriteString(w, "done") })))
	first, second := dial(t, s), dial(t, s)
	first.write(keyed("k", ""))
	until(t, "the first executes", func() bool { return m.Cache().Stats().InFlight == 1 })
	second.write(keyed("k", ""))
	until(t, "the second waits", waiters(m, "k", 1))
	second.hangUp()
	until(t, "it has left", waiters(m, "k", 0))
	require.Equal(t, uint64(1), m.Cache().Stats().Left)
	close(release)
	require.Equal(t, "done", first.read().Body)
}

// The client of the executing request hangs up before the answer: the work goes on, the retry gets
// the answer.
func TestExecutingClientHangsUp(t *testing.T) {
	var ran counter
	m := newMiddleware(t, idemhttp.Options{})
	s := serve(t, "HTTP/1.1", watched(m.Handler(handler(func(w http.ResponseWriter, r *http.Request) {
		<-clientGone(r)
		require.NoError(t, r.Context().Err(), "the handler's context goes on")
		ran.add()
		n, err := io.WriteString(w, "done")
		require.Equal(t, 4, n)
		require.NoError(t, err)
	}))))
	c := dial(t, s)
	c.write(keyed("k", "body"))
	until(t, "it executes", func() bool { return m.Cache().Stats().InFlight == 1 })
	c.hangUp()
	until(t, "it has ended", func() bool { return m.Cache().Stats().Executed == 1 })
	a := s.post(t, "k", "body")
	require.Equal(t, "done", a.Body)
	require.True(t, a.replayed())
	require.Equal(t, 1, ran.count())
}

// It hangs up when the answer is streaming already: Write and Flush report success, and recording
// goes on.
func TestClientGoneWhileStreaming(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		m := newMiddleware(t, idemhttp.Options{})
		chunk := strings.Repeat("c", 10_000)
		s := serve(t, protocol, watched(m.Handler(handler(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "first,")
			w.(http.Flusher).Flush()
			<-clientGone(r)
			for range 20 { // far more than any buffer on the way
				n, err := io.WriteString(w, chunk)
				require.Equal(t, len(chunk), n)
				require.NoError(t, err)
				require.NoError(t, http.NewResponseController(w).Flush())
			}
			n, err := io.Copy(w, strings.NewReader(chunk))
			require.NoError(t, err)
			require.Equal(t, int64(len(chunk)), n)
		}))))
		ctx, cancel := context.WithCancel(t.Context())
		res, err := s.client.Do(s.request(t, ctx, "k", nil))
		require.NoError(t, err)
		_, err = io.ReadFull(res.Body, make([]byte, 6))
		require.NoError(t, err, "the first bytes come before the rest is written")
		cancel()
		res.Body.Close()
		until(t, "it has ended", func() bool { return m.Cache().Stats().Executed == 1 })
		a := s.post(t, "k", "")
		require.True(t, a.replayed())
		require.Equal(t, "first,"+strings.Repeat(chunk, 21), a.Body)
	})
}

// A client that reads slowly does not keep the others waiting: the outcome is there before the
// answer has gone out.
func TestSlowReaderKeepsNobodyWaiting(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{MaxResponseBytes: 9 << 20})
	body := strings.Repeat("x", 8<<20) // more than a socket takes
	s := serve(t, "HTTP/1.1", m.Handler(handler(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) })))
	slow := dial(t, s)
	slow.write(keyed("k", ""))
	until(t, "the outcome is kept", func() bool { return m.Cache().Len() == 1 })
	require.Equal(t, body, s.post(t, "k", "").Body)
	require.Equal(t, body, slow.read().Body, "and it still gets all of it")
}

// One connection, several requests sent before any answer is read.
func TestPipelinedDuplicates(t *testing.T) {
	var ran counter
	m := newMiddleware(t, idemhttp.Options{})
	s := serve(t, "HTTP/1.1", m.Handler(handler(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, ran.add(), " "); io.Copy(w, r.Body) })))
	c := dial(t, s)
	c.write(keyed("a", "1") + keyed("b", "2") + keyed("a", "1") + keyed("a", "3") + keyed("b", "2"))
	require.Equal(t, "1 1", c.read().Body)
	require.Equal(t, "2 2", c.read().Body)
	a := c.read()
	require.Equal(t, "1 1", a.Body)
	require.True(t, a.replayed())
	requireProblem(t, c.read(), 422, "key-reused", false)
	require.Equal(t, "2 2", c.read().Body)
}

// A request that comes in pieces is one request.
func TestClientThatPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := inMemory(newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })))
		defer b.stop()
		c, err := b.pipes.dial(t.Context(), "", "")
		require.NoError(t, err)
		defer c.Close()
		for _, part := range []string{"POST / HTTP/1.1\r\nHost: x\r\nIdempotency", "-Key: k\r\nContent-Length: 6\r\n\r\nab", "cd", "ef"} {
			time.Sleep(time.Hour)
			_, err := c.Write([]byte(part))
			require.NoError(t, err)
		}
		buf := make([]byte, 1000)
		n, err := c.Read(buf)
		require.NoError(t, err)
		require.True(t, strings.HasSuffix(string(buf[:n]), "abcdef"), "%q", buf[:n])
	})
}

// 1,000 duplicates at once: one execution, 1,000 identical answers, 999 of them marked.
func TestThousandConcurrentDuplicates(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		const n = 1000
		var ran counter
		m := newMiddleware(t, idemhttp.Options{MaxWait: time.Hour})
		body := string(jsonBody(1024))
		s := serve(t, protocol, m.Handler(handler(func(w http.ResponseWriter, r *http.Request) {
			if _, covered := idemhttp.KeyFrom(r.Context()); !covered {
				return
			}
			ran.add()
			until(t, "all others wait", waiters(m, "k", n-1))
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-A", "1")
			w.WriteHeader(201)
			io.WriteString(w, body)
		})))
		s.post(t, "", "") // so that HTTP/2 has its connection
		answers := make([]answer, n)
		var all sync.WaitGroup
		for i := range answers {
			all.Go(func() { answers[i] = s.post(t, "k", "payload") })
		}
		all.Wait()
		require.Equal(t, 1, ran.count(), "executions")
		marked := 0
		for _, a := range answers {
			if a.replayed() {
				marked++
			}
			a.Header.Del("Idempotent-Replayed")
			require.Equal(t, answer{Status: 201, Body: body, Header: http.Header{
				"Content-Type": {"application/json"}, "X-A": {"1"}, "Content-Length": {"1024"},
			}}, a, "every answer")
		}
		require.Equal(t, n-1, marked, "all but one are marked")
		require.True(t, s.post(t, "k", "payload").replayed(), "and who comes later")
	})
}

func TestReplayedUntilTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ran counter
		b := inMemory(newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, ran.add()) })))
		defer b.stop()
		get := func() answer {
			a, err := b.post(t.Context(), "k", "")
			require.NoError(t, err)
			return a
		}
		require.Equal(t, "1", get().Body)
		time.Sleep(day - 1)
		require.Equal(t, "1", get().Body, "24 hours from completion")
		time.Sleep(time.Nanosecond)
		a := get()
		require.Equal(t, "2", a.Body, "the instant itself counts as expired")
		require.False(t, a.replayed())
	})
}

var neverReplayed = []string{
	"Set-Cookie", "sEt-cookIe2", "WWW-Authenticate", "Proxy-Authenticate", "Connection", "Keep-Alive", "TE", "Upgrade", "Proxy-Connection",
	"X-Named", "Date", "Age", "Server-Timing", "RateLimit", "ratelimit-policy", "RateLimit-Limit", "X-RateLimit-Remaining", "x-ratelimit-reset", "Retry-After",
	"X-Request-ID", "traceparent", "Access-Control-Allow-Origin", "ACCESS-CONTROL-EXPOSE-HEADERS",
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
	require.NotEmpty(t, call(h, post("k", "")).Header.Get("Set-Cookie"), "the first client gets them")
	check(t, withoutPrefixed(call(h, post("k", ""))))

	// What comes by Resolve, Reconcile and Restore has been through no recorder.
	resp := &idemhttp.Response{Status: 200, Header: http.Header{}, Trailer: http.Header{}}
	set(resp.Header, "")
	for _, name := range neverReplayed {
		resp.Trailer[name] = []string{"secret"}
	}
	resp.Trailer["kept"] = []string{"1"}
	resp.Header["idempotent-replayed"] = []string{"false"}
	t.Run("Restore", func(t *testing.T) {
		require.NoError(t, m.Cache().Restore(sharedKey("restored"), idemflight.Entry[*idemhttp.Response]{
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
		require.True(t, m.Cache().Resolve(sharedKey("resolved"), resp, nil))
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
		require.True(t, m.Cache().Resolve(sharedKey(key), &idemhttp.Response{
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

// A trailer that is never replayed is not, also where middleware outside announces one of that name.
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
			require.Equal(t, "handler", a.Header.Get("X-Changed"), "answer %d: as it stood at WriteHeader", i)
			require.Equal(t, []string{"Origin", "Accept"}, a.Header["Vary"], "answer %d: added to", i)
			require.NotContains(t, a.Header, "X-Removed", "answer %d: removed", i)
			require.Equal(t, "handler", a.Header.Get("X-New"))
			require.Equal(t, i > 0, a.replayed())
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
				require.Equal(t, []string{"true"}, canon(again.Header)["Idempotent-Replayed"], "replayed")
				require.Empty(t, again.Trailer.Get("Idempotent-Replayed"))
			}
			requireProblem(t, s.post(t, "k0", "other"), 422, "key-reused", false)
			requireProblem(t, s.post(t, "bad key", "other"), 400, "malformed-key", false)
		}
		s := serve(t, protocol, newMiddleware(t, idemhttp.Options{ReplayHeader: "x-again", HeaderName: "x-key"}).Handler(handler(func(http.ResponseWriter, *http.Request) {})))
		for i := range 2 {
			r := s.request(t, t.Context(), "", nil)
			r.Header.Set("X-Key", "k")
			require.Equal(t, i == 1, s.send(t, r).Header.Get("X-Again") == "true", "names of one's own")
		}
	})
}

// gzipped is compression as people write it: it encodes for who accepts it.
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
				require.Equal(t, accept == "gzip", a.Header.Get("Content-Encoding") == "gzip", "outside, each gets what it accepts")
				require.Equal(t, i > 0, a.replayed())
			}
			inside := serve(t, protocol, newMiddleware(t, idemhttp.Options{}).Handler(gzipped(page)))
			for i, accept := range []string{"gzip", "identity", "gzip"} {
				a := send(inside, accept)
				require.Equal(t, "gzip", a.Header.Get("Content-Encoding"), "inside, the first client's encoding is replayed")
				require.Equal(t, i > 0, a.replayed())
			}
		}
	})
}
