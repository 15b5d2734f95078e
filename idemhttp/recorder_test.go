package idemhttp_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
)

const limit = 10_000 // MaxResponseBytes of the differential test

var (
	text   = strings.Repeat("plain text. ", 40)
	html   = "<!DOCTYPE html><html><body>" + strings.Repeat("<p>x</p>", 100)
	medium = strings.Repeat("m", 6000)
	large  = strings.Repeat("l", 3*limit)
)

// oddHandlers do what handlers do, and what they should not. Of each the client must see the same
// with and without the middleware, and a retry must see it again.
var oddHandlers = []struct {
	name    string
	h       handler
	omitted bool   // not replayed: too large
	only    string // a protocol whose bare writer can do it
}{
	{name: "nothing written", h: func(http.ResponseWriter, *http.Request) {}},
	{name: "only a header", h: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-A", "1") }},
	{name: "status only", h: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201) }},
	{name: "status 299", h: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(299) }},
	{name: "empty write", h: func(w http.ResponseWriter, _ *http.Request) { w.Write(nil); w.WriteHeader(500) }},
	{name: "text sniffed", h: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }},
	{name: "html sniffed", h: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, html) }},
	{name: "html sniffed over writes", h: func(w http.ResponseWriter, _ *http.Request) {
		for _, c := range html {
			w.Write([]byte(string(c)))
		}
	}},
	{name: "type set", h: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-mine")
		io.WriteString(w, html)
	}},
	{name: "type suppressed", h: func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		io.WriteString(w, html)
	}},
	{name: "encoding set, type not sniffed", h: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "mine")
		io.WriteString(w, html)
	}},
	{name: "flush first: no type", h: func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
		io.WriteString(w, html)
	}},
	{name: "flush after a few bytes: type of those", h: func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "<!D")
		w.(http.Flusher).Flush()
		io.WriteString(w, html)
	}},
	{name: "flush last", h: func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, text)
		w.(http.Flusher).Flush()
	}},
	{name: "flush after status", h: func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(202)
		w.(http.Flusher).Flush()
		w.(http.Flusher).Flush()
	}},
	{name: "flush of nothing", h: func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() }},
	{name: "flush through the controller", h: func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "a")
		must(http.NewResponseController(w).Flush())
		io.WriteString(w, "b")
	}},
	{name: "medium", h: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, medium) }},
	{name: "medium twice", omitted: true, h: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, medium); io.WriteString(w, medium) }},
	{name: "exactly the limit", h: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, large[:limit]) }},
	{name: "one past the limit", omitted: true, h: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, large[:limit]); io.WriteString(w, "x") }},
	{name: "few bytes, then large: sniffed over both", omitted: true, h: func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "<!DOCTYPE ")
		io.WriteString(w, "html>"+large)
	}},
	{name: "large", omitted: true, h: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, large) }},
	{name: "large, flushed before", omitted: true, h: func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "x")
		w.(http.Flusher).Flush()
		io.WriteString(w, large)
		io.WriteString(w, "y")
	}},
	{name: "medium, flushed before", h: func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
		io.WriteString(w, medium)
		io.WriteString(w, "y")
	}},
	{name: "copied", h: func(w http.ResponseWriter, _ *http.Request) { copyAll(w, io.MultiReader(strings.NewReader(medium))) }},
	{name: "copied from a WriterTo", h: func(w http.ResponseWriter, _ *http.Request) { copyAll(w, strings.NewReader(medium)) }},
	{name: "copied from a file", h: func(w http.ResponseWriter, _ *http.Request) {
		f, err := os.Open("recorder_test.go")
		must(err)
		defer f.Close()
		copyAll(w, io.LimitReader(f, 5000))
	}},
	{name: "copied after a write", h: func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "first ")
		copyAll(w, io.MultiReader(strings.NewReader(medium)))
	}},
	{name: "copied, large", omitted: true, h: func(w http.ResponseWriter, _ *http.Request) { copyAll(w, io.MultiReader(strings.NewReader(large))) }},
	{name: "copied from what fails", h: func(w http.ResponseWriter, _ *http.Request) {
		_, err := io.Copy(w, io.MultiReader(strings.NewReader(text), failingReader{errBoom}))
		if !errors.Is(err, errBoom) {
			panic(err)
		}
	}},
	{name: "ReaderFrom", only: "HTTP/1.1", h: func(w http.ResponseWriter, _ *http.Request) {
		to := w.(io.ReaderFrom)
		n, err := to.ReadFrom(strings.NewReader(text))
		if err != nil || n != int64(len(text)) {
			panic(fmt.Sprint(n, err))
		}
	}},
	{name: "StringWriter", h: func(w http.ResponseWriter, _ *http.Request) { w.(io.StringWriter).WriteString(text) }},
	{name: "ServeContent", h: func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "x.txt", time.Unix(1e9, 0), strings.NewReader(medium))
	}},
	{name: "Redirect", h: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusSeeOther) }},
	{name: "Error", h: func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusUnprocessableEntity) }},
	{name: "WriteHeader twice", h: func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(201)
		w.WriteHeader(500)
		io.WriteString(w, "x")
		w.WriteHeader(502)
	}},
	{name: "invalid status", h: func(w http.ResponseWriter, _ *http.Request) {
		defer func() {
			if recover() == nil {
				panic("no panic")
			}
			w.WriteHeader(299)
		}()
		w.WriteHeader(99)
	}},
	{name: "late headers", h: func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("X-A", "in time")
		h["X-C"] = []string{"in", "time"}
		w.WriteHeader(200)
		h.Set("X-A", "late")
		h.Set("X-B", "late")
		h["X-C"][0] = "late"
		io.WriteString(w, text)
		h.Del("X-A")
	}},
	{name: "late headers, then flush", h: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-A", "in time")
		io.WriteString(w, text)
		w.Header().Set("X-A", "late")
		w.(http.Flusher).Flush()
		w.Header().Set("X-B", "late")
		io.WriteString(w, text)
	}},
	{name: "headers in odd cases", h: func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["x-odd"] = []string{"1"}
		w.Header()["X-Odd"] = []string{"2"}
		w.Header()["X-ODD"] = []string{"3"}
		w.Header()["x-ODD"] = []string{"4"}
		w.Header()["ETAG"] = []string{`"e"`}
		w.WriteHeader(200)
	}},
	{name: "header splitting", h: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-A", "1\r\nX-Evil: 1")
		io.WriteString(w, text)
	}},
	{name: "huge header", h: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-A", strings.Repeat("a", 100_000))
		io.WriteString(w, text)
	}},
	{name: "204", h: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }},
	{name: "write after 204", h: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-A", "1")
		w.WriteHeader(204)
		if _, err := io.WriteString(w, "x"); err != http.ErrBodyNotAllowed {
			panic(err)
		}
	}},
	{name: "write after 304", h: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Etag", `"e"`)
		w.Header().Set("Content-Type", "text/x")
		w.WriteHeader(304)
		if _, err := io.Copy(w, strings.NewReader("x")); err != http.ErrBodyNotAllowed {
			panic(err)
		}
		w.(http.Flusher).Flush()
	}},
	{name: "1xx", h: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(103)
		w.Header().Set("Link", "</script.js>")
		w.WriteHeader(102)
		w.Header().Del("Link")
		w.WriteHeader(201)
		w.WriteHeader(103)
		io.WriteString(w, "x")
	}},
	{name: "1xx only", h: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(103) }},
	{name: "length right", h: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(medium)))
		io.WriteString(w, medium[:1])
		io.WriteString(w, medium[1:])
	}},
	{name: "length 0", h: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "0") }},
	{name: "length 0 exceeded", only: "HTTP/1.1", h: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "0")
		if n, err := io.WriteString(w, "x"); err != http.ErrContentLength || n != 0 {
			panic("no error")
		}
	}},
	{name: "length invalid", h: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "many")
		w.Write(nil)
	}},
	// The writer of HTTP/2 notices later, and sends what it should not.
	{name: "length exceeded by a second write", only: "HTTP/1.1", h: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5")
		io.WriteString(w, "whole")
		if n, err := io.WriteString(w, "more"); err == nil || n != 0 {
			panic("no error")
		}
		if _, err := io.WriteString(w, "m"); err == nil {
			panic("no error")
		}
	}},
	{name: "declared trailers", h: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum, X-Never")
		w.Header().Add("Trailer", "x-odd")
		io.WriteString(w, text)
		w.Header().Set("X-Sum", "1")
		w.Header().Set("X-Odd", "2")
		w.Header().Set("X-Late", "not declared")
	}},
	{name: "declared trailer that was a header, and taken back", h: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Sum", "header")
		io.WriteString(w, text)
		w.Header().Del("X-Sum")
	}},
	{name: "declared trailer, declared again", h: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum, X-Other, X-Sum")
		io.WriteString(w, text)
		w.Header().Set("X-Sum", "1")
		w.Header().Set("X-Other", "2")
	}},
	{name: "declared trailers, flushed", h: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		io.WriteString(w, text)
		w.Header().Set("X-Sum", "1")
	}},
	{name: "prefixed trailers", h: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(http.TrailerPrefix+"X-Early", "0")
		io.WriteString(w, text)
		w.Header().Set(http.TrailerPrefix+"X-Sum", "1")
		w.Header().Add(http.TrailerPrefix+"X-Sum", "2")
	}},
	{name: "prefixed trailers, large", omitted: true, h: func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, large)
		w.Header().Set(http.TrailerPrefix+"X-Sum", "1")
	}},
	{name: "prefixed trailers, no body", h: func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	}},
	{name: "deadlines", h: func(w http.ResponseWriter, _ *http.Request) {
		c := http.NewResponseController(w)
		must(c.SetReadDeadline(time.Now().Add(time.Hour)))
		must(c.SetWriteDeadline(time.Now().Add(time.Hour)))
		must(c.EnableFullDuplex())
		io.WriteString(w, text)
	}},
	{name: "body read first", h: func(w http.ResponseWriter, r *http.Request) { copyAll(w, r.Body) }},
	{name: "body read last", h: func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		copyAll(w, r.Body)
	}},
	{name: "body closed", h: func(w http.ResponseWriter, r *http.Request) { must(r.Body.Close()); io.WriteString(w, text) }},
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func copyAll(w io.Writer, r io.Reader) {
	_, err := io.Copy(w, r)
	must(err)
}

// seen is what a client sees, 1xx answers included.
type seen struct {
	answer
	early []string
}

func (s *server) see(t testing.TB, key string) (got seen) {
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			got.early = append(got.early, fmt.Sprint(code, header))
			return nil
		},
	})
	got.answer = s.send(t, s.request(t, ctx, key, strings.NewReader("request body")))
	return got
}

// unframed takes off how the body's end is marked, which may differ.
func (s seen) unframed() seen {
	s.Header = s.Header.Clone()
	if s.Status != 304 { // there it says something of the resource
		s.Header.Del("Content-Length")
	}
	return s
}

func TestClientSeesNoDifference(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		for _, c := range oddHandlers {
			if c.only != "" && c.only != protocol {
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				m := newMiddleware(t, idemhttp.Options{MaxResponseBytes: limit})
				bare := serve(t, protocol, c.h).see(t, "k")
				s := serve(t, protocol, m.Handler(c.h))
				first := s.see(t, "k")
				require.Equal(t, bare.unframed(), first.unframed(),
					"the first client, compared to the bare handler")

				again := s.see(t, "k")
				if c.omitted {
					requireProblem(t, again.answer, 409, "answer-unavailable", false)
					return
				}
				require.True(t, again.replayed(), "marked: %d %q", again.Status, again.Body)
				again.Header.Del("Idempotent-Replayed")
				first.early = nil // 1xx are no answers
				again.Header, first.Header = canon(again.Header), canon(first.Header)
				require.Equal(t, first.unframed(), again.unframed(),
					"the retry, compared to the first client")
			})
		}
	})
}

func canon(h http.Header) http.Header {
	out := make(http.Header)
	for name, values := range h {
		for _, v := range values {
			out.Add(name, v)
		}
	}
	return out
}

// Fewer bytes than declared: the first client sees it broken off, as without the middleware; the
// record holds what was written.
func TestTooFewBytes(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		h := handler(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "few")
		})
		bare := serve(t, protocol, h).post(t, "k", "")
		s := serve(t, protocol, newMiddleware(t, idemhttp.Options{}).Handler(h))
		first := s.post(t, "k", "")
		require.Equal(t, bare, first)
		require.NotEmpty(t, first.Err, "broken off")
		again := s.post(t, "k", "")
		require.Equal(t, "few", again.Body)
		require.Empty(t, again.Err)
		require.Equal(t, "3", again.Header.Get("Content-Length"), "recomputed")
	})
}

func TestWriteBeyondContentLength(t *testing.T) {
	for _, flush := range []bool{false, true} {
		m := newMiddleware(t, idemhttp.Options{})
		h := m.Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "4")
			io.WriteString(w, "fo")
			if flush {
				w.(http.Flusher).Flush()
			}
			n, err := io.WriteString(w, "urteen")
			require.Zero(t, n)
			require.ErrorIs(t, err, http.ErrContentLength)
			_, err = w.Write([]byte("u"))
			require.ErrorIs(t, err, http.ErrContentLength, "what was too much stays too much")
		}))
		call(h, post("k", ""))
		e, _ := lookup(m.Cache(), sharedKey("k"))
		require.Equal(t, "fo", string(e.Value.Body), "the Write that failed records nothing")
	}
}

func TestNoHijackerIsReachable(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		s := serve(t, protocol, newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
			for inner := w; inner != nil; {
				_, ok := inner.(http.Hijacker)
				require.False(t, ok, "%T hijacks", inner)
				u, ok := inner.(interface{ Unwrap() http.ResponseWriter })
				if !ok {
					break
				}
				inner = u.Unwrap()
			}
			_, _, err := http.NewResponseController(w).Hijack()
			require.ErrorIs(t, err, http.ErrNotSupported)
			io.WriteString(w, "ok")
		})))
		require.Equal(t, "ok", s.post(t, "k", "").Body)
	})
}

// plain is a writer that can do nothing but write.
type plain struct{ http.ResponseWriter }

func TestWriterThatCannotFlush(t *testing.T) {
	h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
		_, ok := w.(http.Flusher)
		require.False(t, ok, "no Flusher where there was none")
		io.WriteString(w, "a")
		c := http.NewResponseController(w)
		require.ErrorIs(t, c.Flush(), http.ErrNotSupported)
		require.ErrorIs(t, c.SetWriteDeadline(time.Now()), http.ErrNotSupported)
		require.ErrorIs(t, c.SetReadDeadline(time.Now()), http.ErrNotSupported)
		require.ErrorIs(t, c.EnableFullDuplex(), http.ErrNotSupported)
		io.WriteString(w, "b")
	}))
	a := call(handler(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(plain{w}, r) }), post("k", ""))
	require.Equal(t, "ab", a.Body)
}

// halfFlusher promises to flush, and finds out that nothing behind it does.
type halfFlusher struct{ http.ResponseWriter }

func (halfFlusher) FlushError() error { return fmt.Errorf("x: %w", http.ErrNotSupported) }

func TestFlushThatTurnsOutNotSupportedLosesNothing(t *testing.T) {
	h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "a")
		require.ErrorIs(t, http.NewResponseController(w).Flush(), http.ErrNotSupported)
		io.WriteString(w, "b")
	}))
	a := call(handler(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(halfFlusher{w}, r) }), post("k", ""))
	require.Equal(t, "ab", a.Body)
}

func TestCloseNotifierNeverFires(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{})
	s := serve(t, "HTTP/1.1", watched(m.Handler(handler(func(w http.ResponseWriter, r *http.Request) {
		gone := w.(interface{ CloseNotify() <-chan bool }).CloseNotify()
		require.NotNil(t, gone)
		<-clientGone(r)
		select {
		case <-gone:
			t.Error("told the handler that its client left")
		default:
		}
	}))))
	c := dial(t, s)
	c.write(keyed("k", ""))
	until(t, "the request executes", func() bool { return m.Cache().Stats().InFlight == 1 })
	c.hangUp()
	until(t, "it has ended", func() bool { return m.Cache().Stats().Executed == 1 })
}

// What outer middleware writes after the handler wrote nothing reaches the client as it would
// without: the trap of echo's WrapMiddleware, which the docs name.
func TestNothingWrittenLeavesTheWriterUntouched(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{})
	inner := m.Handler(handler(func(http.ResponseWriter, *http.Request) {}))
	outer := handler(func(w http.ResponseWriter, r *http.Request) {
		inner.ServeHTTP(w, r)
		w.WriteHeader(502)
	})
	require.Equal(t, 502, call(outer, post("k", "")).Status)
	e, _ := lookup(m.Cache(), sharedKey("k"))
	require.Equal(t, 200, e.Value.Status, "the trap: an empty 200 is kept")
}

func TestRecordIsOfItsOwn(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{})
	values := []string{"one"}
	var late http.ResponseWriter
	inner := m.Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["X-A"] = values
		io.WriteString(w, "body")
		late = w
	}))
	outer := handler(func(w http.ResponseWriter, r *http.Request) {
		inner.ServeHTTP(w, r)
		for _, v := range w.Header() { // middleware that is free with what is not its own
			for i := range v {
				v[i] = "spoiled"
			}
		}
		w.Header()["X-A"] = append(w.Header()["X-A"], "more")
	})
	call(outer, post("k", ""))
	values[0] = "reused"
	late.Write([]byte(" of somebody who has kept the writer"))
	for range 3 {
		a := call(outer, post("k", ""))
		require.Equal(t, []string{"one"}, a.Header["X-A"])
		require.Equal(t, "body", a.Body)
	}
}

// spoiler is middleware outside that, when the header is written, changes values in place.
type spoiler struct{ http.ResponseWriter }

func (s spoiler) WriteHeader(status int) {
	s.ResponseWriter.WriteHeader(status)
	for _, values := range s.Header() {
		for i := range values {
			values[i] = "spoiled"
		}
	}
}

func TestRecordedHeaderIsOfItsOwn(t *testing.T) {
	h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-A", "1")
		w.WriteHeader(200)
		w.Header().Set("X-B", "late")
	}))
	call(handler(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(spoiler{w}, r) }), post("k", ""))
	require.Equal(t, "1", call(h, post("k", "")).Header.Get("X-A"))
}

// Trailers of middleware outside are each request's own, too.
func TestTrailersOfOuterMiddleware(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		var n counter
		m := newMiddleware(t, idemhttp.Options{})
		inner := m.Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Add("Trailer", "x-handler")
			io.WriteString(w, "body")
			w.Header().Set("X-Handler", "1")
			w.Header()[http.TrailerPrefix+"x-odd"] = []string{"2"}
		}))
		s := serve(t, protocol, handler(func(w http.ResponseWriter, r *http.Request) {
			id := fmt.Sprint(n.add())
			w.Header().Set("Trailer", "X-Before, X-After")
			w.Header().Set("X-Before", id)
			w.Header().Set(http.TrailerPrefix+"X-Prefixed", id)
			inner.ServeHTTP(w, r)
			w.Header().Set("X-After", id)
		}))
		for i := range 3 {
			id := fmt.Sprint(i + 1)
			require.Equal(t, http.Header{
				"X-Before": {id}, "X-Prefixed": {id}, "X-After": {id}, "X-Handler": {"1"}, "X-Odd": {"2"},
			}, canon(s.post(t, "k", "").Trailer), "answer %d", i)
		}
		e, _ := lookup(m.Cache(), sharedKey("k"))
		require.Equal(t, http.Header{"X-Handler": {"1"}, "X-Odd": {"2"}}, e.Value.Trailer,
			"the record has the handler's")
	})
}

// What Classify is shown, and the record has, is what the client sees.
func TestResponseIsWhatWasSent(t *testing.T) {
	var got *idemhttp.Response
	m := newMiddleware(t, idemhttp.Options{MaxResponseBytes: 100, Classify: func(r *idemhttp.Response) idemflight.Disposition {
		got = r
		return idemhttp.ClassifyStatus(r)
	}})
	outer := func(h handler) http.Handler {
		inner := m.Handler(h)
		return handler(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Idempotent-Replayed", "outer")
			w.Header().Set("X-Outer", "1")
			inner.ServeHTTP(w, r)
		})
	}
	call(outer(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "<!DOCTYPE ")
		io.WriteString(w, "html>"+large)
	}), post("large", ""))
	require.Equal(t, &idemhttp.Response{Status: 200, Header: http.Header{"Content-Type": {"text/html; charset=utf-8"}}, BodyOmitted: true}, got)
	call(outer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201); io.WriteString(w, "x") }), post("small", ""))
	require.Equal(t, &idemhttp.Response{Status: 201, Header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}}, Body: []byte("x")}, got)
	call(outer(func(http.ResponseWriter, *http.Request) {}), post("nothing", ""))
	require.Equal(t, &idemhttp.Response{Status: 200, Header: http.Header{}}, got)
	call(outer(func(w http.ResponseWriter, _ *http.Request) { w.Header()["x-odd"] = []string{"1"} }), post("odd", ""))
	require.Equal(t, &idemhttp.Response{Status: 200, Header: http.Header{"X-Odd": {"1"}}}, got,
		"names are canonical")
	call(outer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(http.TrailerPrefix+"X-Sum", "1")
		w.Header().Set(http.TrailerPrefix+"Idempotent-Replayed", "handler")
	}), post("trailer", ""))
	require.Equal(t, &idemhttp.Response{Status: 200, Header: http.Header{}, Trailer: http.Header{"X-Sum": {"1"}}}, got, "a trailer is no header")

	w := httptest.NewRecorder()
	outer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(101) }).ServeHTTP(w, post("101", ""))
	require.Equal(t, 101, w.Code, "a final status of HTTP/1")
	require.Equal(t, 101, got.Status)
	e, _ := lookup(m.Cache(), sharedKey("101"))
	require.Equal(t, idemflight.Held, e.State, "and not stored")
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

// Once: middleware that sends its header with the first bytes found the handler's later headers
// in place of its own.
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

// Once: no test noticed the planted fault that the handler's changes after WriteHeader were lost
// once the answer passed through.
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
				require.Equal(t, "handler", w.Header().Get("X-Late"),
					"what the handler has set itself")
				h.Del("X-Taken-Back")
				io.WriteString(w, "x")
				require.NotContains(t, w.Header(), "X-Taken-Back",
					"what the handler has deleted itself")
			}))
			w := httptest.NewRecorder()
			inner.ServeHTTP(restless{w}, post("k", ""))
			require.Equal(t, http.Header{"X-Added": {"outside"}, "X-Changed": {"outside"}, "X-Late": {"handler"}}, w.Header(),
				"what middleware outside finds: what it has changed stays")
		})
	}
}

// counting is middleware outside that begins the body at the first Write, as those do that
// compress.
type counting struct {
	http.ResponseWriter
	writes int
}

func (c *counting) Write(p []byte) (int, error) { c.writes++; return c.ResponseWriter.Write(p) }
func (c *counting) FlushError() error           { return nil }

// Once: no test noticed the planted fault that an answer without a body was sent with an empty
// Write.
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

// Once: no test noticed the planted fault that an invalid status did not panic if the writer
// would not mind. The fault is the handler's, and is to be seen there.
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

// Once: no test noticed the planted fault that over HTTP/2 a 101 was taken for the final status.
func TestSwitchingProtocolsIsNoFinalStatusOfHTTP2(t *testing.T) {
	m := newMiddleware(t, idemhttp.Options{})
	r := post("k", "")
	r.ProtoMajor = 2
	m.Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusSwitchingProtocols)
		w.WriteHeader(http.StatusCreated)
	})).ServeHTTP(&discard{h: make(http.Header)}, r)
	e, _ := lookup(m.Cache(), sharedKey("k"))
	require.Equal(t, http.StatusCreated, e.Value.Status)
}

// As net/http says it, with the place in the handler, also where net/http's own helpers are between.
func TestASecondWriteHeaderIsLoggedByTheServer(t *testing.T) {
	var mu sync.Mutex
	var lines []string
	twice := handler(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(201)
		w.WriteHeader(500)
		http.Error(w, "too late", http.StatusBadGateway)
	})
	logged := func(h http.Handler) []string {
		s := httptest.NewUnstartedServer(h)
		s.Config.ErrorLog = log.New(writer(func(p []byte) {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, string(p))
		}), "", 0)
		s.Start()
		lines = nil
		r, err := http.NewRequest("POST", s.URL, nil)
		require.NoError(t, err)
		r.Header.Set("Idempotency-Key", "k")
		res, err := s.Client().Do(r)
		require.NoError(t, err)
		require.Equal(t, 201, read(res).Status)
		s.Close()
		return lines
	}
	bare := logged(twice)
	require.Len(t, bare, 2)
	require.Contains(t, bare[1], "superfluous")
	require.Equal(t, bare, logged(newMiddleware(t, idemhttp.Options{}).Handler(twice)))
	call(newMiddleware(t, idemhttp.Options{}).Handler(twice), post("k", "")) // without a server there is no log
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }
