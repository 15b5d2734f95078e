package idemhttp_test

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
)

// An answer is buffered up to MaxResponseBytes; from the first Flush on, or past that size, it
// passes through.
func TestBufferedUntilFlushOrPastTheSize(t *testing.T) {
	w := httptest.NewRecorder()
	h := newMiddleware(t, idemhttp.Options{MaxResponseBytes: 10}).Handler(handler(func(rw http.ResponseWriter, r *http.Request) {
		rw.WriteHeader(201)
		io.WriteString(rw, "12345")
		io.WriteString(rw, "67890")
		require.Empty(t, w.Body.String(), "buffered as long as it fits")
		if r.ContentLength > 0 {
			rw.(http.Flusher).Flush()
			require.True(t, w.Flushed)
			require.Equal(t, "1234567890", w.Body.String(), "all there is, at the first Flush")
		}
		io.WriteString(rw, "x")
		require.Equal(t, "1234567890x", w.Body.String(),
			"past the size, or flushed, it passes through")
		require.Equal(t, 201, w.Code)
	}))
	h.ServeHTTP(w, post("size", ""))
	w = httptest.NewRecorder()
	h.ServeHTTP(w, post("flush", "b"))
}

// The client sees what is flushed while the handler still works, and so it does without Flush once
// the answer is too large to wait.
func TestStreamingReachesTheClient(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		seen := make(chan struct{})
		s := serve(t, protocol, newMiddleware(t, idemhttp.Options{MaxResponseBytes: 100}).Handler(handler(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "start")
			if r.ContentLength > 0 {
				w.(http.Flusher).Flush()
			} else {
				io.WriteString(w, strings.Repeat("x", 100_000)) // past net/http's own buffers too
			}
			<-seen
			io.WriteString(w, "end")
		})))
		for i, body := range []string{"flush", ""} {
			res, err := s.client.Do(s.request(t, t.Context(), fmt.Sprint("k", i), strings.NewReader(body)))
			require.NoError(t, err)
			start := make([]byte, 5)
			_, err = io.ReadFull(res.Body, start)
			require.NoError(t, err)
			require.Equal(t, "start", string(start), "seen while the handler works")
			seen <- struct{}{}
			require.True(t, strings.HasSuffix(read(res).Body, "end"))
		}
	})
}

// A handler that ignores its context stays in flight; one that listens to it hears of ExecTimeout,
// and after that no effect may begin.
func TestExecTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMiddleware(t, idemhttp.Options{})
		b := inMemory(m.Handler(handler(func(w http.ResponseWriter, r *http.Request) {
			before := time.Now()
			<-r.Context().Done()
			require.Equal(t, idemflight.DefaultExecTimeout, time.Since(before))
			require.Error(t, idemflight.BeginEffect(r.Context()), "too late to begin")
			time.Sleep(time.Hour)
			w.WriteHeader(503)
		})))
		defer b.stop()
		first := b.async(t.Context(), "k", "")
		time.Sleep(30 * time.Minute)
		require.Equal(t, 1, m.Cache().Stats().InFlight, "in flight until the handler returns")
		require.Equal(t, 503, (<-first).Status)
		require.Zero(t, m.Cache().Len(), "nothing has begun: released")
	})
}

// A write deadline that the handler sets is the connection's: the first client is cut off, the
// retry gets all of it.
func TestWriteDeadlineOfTheHandler(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{})
	s := serve(t, "HTTP/1.1", m.Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
		c := http.NewResponseController(w)
		require.NoError(t, c.SetWriteDeadline(time.Unix(1, 0)))
		io.WriteString(w, "late")
		require.NoError(t, c.Flush(), "whether anybody reads is not the handler's business")
		n, err := io.WriteString(w, "r")
		require.Equal(t, 1, n)
		require.NoError(t, err)
	})))
	res, err := s.client.Do(s.request(t, t.Context(), "k", http.NoBody))
	if err == nil {
		require.NotEqual(t, "later", read(res).Body, "the deadline had passed")
	}
	a := s.post(t, "k", "")
	require.Equal(t, "later", a.Body)
	require.True(t, a.replayed())
}

// A timeout outside cuts off its client, not the handler: the retry gets the answer.
func TestTimeoutHandlerOutside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ran counter
		m := newMiddleware(t, idemhttp.Options{})
		b := inMemory(http.TimeoutHandler(m.Handler(handler(func(w http.ResponseWriter, r *http.Request) {
			ran.add()
			time.Sleep(10 * time.Second)
			require.NoError(t, r.Context().Err())
			w.Header().Set("X-A", "1")
			n, err := io.WriteString(w, "done")
			require.Equal(t, 4, n)
			require.NoError(t, err, "nobody reads, which is not the handler's business")
		})), time.Second, "timeout outside"))
		defer b.stop()
		for range 2 { // the second joins, and is cut off too
			a, err := b.post(t.Context(), "k", "")
			require.NoError(t, err)
			require.Equal(t, 503, a.Status)
			require.Equal(t, "timeout outside", a.Body)
		}
		time.Sleep(time.Minute)
		a, err := b.post(t.Context(), "k", "")
		require.NoError(t, err)
		require.Equal(t, "done", a.Body)
		require.Equal(t, "1", a.Header.Get("X-A"))
		require.True(t, a.replayed())
		require.Equal(t, 1, ran.count())
	})
}

// A length that is claimed costs no memory.
func TestHugeDeclaredLength(t *testing.T) {
	h := newMiddleware(t, idemhttp.Options{MaxResponseBytes: math.MaxInt64, MaxRequestBytes: math.MaxInt64}).Handler(handler(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(int64(1)<<50))
		io.Copy(w, r.Body)
	}))
	r := post("k", "few")
	r.ContentLength = 1 << 50
	require.Equal(t, "few", call(h, r).Body)
	require.Equal(t, "few", call(h, post("k", "few")).Body)
}
