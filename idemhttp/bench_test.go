package idemhttp_test

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
)

// discard is a ResponseWriter that costs nothing, so that what is measured is ours.
type discard struct {
	h      http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

// benchHandler answers with size bytes of JSON, in so many writes.
func benchHandler(size, writes int) http.Handler {
	body := jsonBody(size)
	return handler(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for piece := range slices.Chunk(body, size/writes) {
			_, _ = w.Write(piece)
		}
	})
}

// benchMiddleware keeps no more than a few keys of the benchmark: b.N is no size of a cache.
func benchMiddleware(b *testing.B) *idemhttp.Middleware {
	opts := idemhttp.DefaultCacheOptions()
	opts.MaxEntries, opts.MinRetention, opts.MaxWeight = 1<<14, -1, 16<<20
	return newMiddleware(b, idemhttp.Options{Cache: idemflight.MustNew(opts)})
}

// benchShapes are the requests and answers: a payment, the same with a query, large ones, and a large answer in
// many pieces.
var benchShapes = []struct {
	name, query, payload string
	answer, writes       int
}{
	{"1KiB", "", benchPayload, 1 << 10, 1},
	{"query", "page=2&account=a%20b&limit=50&account=c", benchPayload, 1 << 10, 1},
	{"64KiB", "", strings.Repeat("x", 64<<10), 64 << 10, 1},
	{"1MiB", "", strings.Repeat("x", 1<<20), 1 << 10, 1},
	{"pieces", "", benchPayload, 64 << 10, 64},
}

const benchPayload = `{"amount":100,"currency":"EUR","source":"tok_4f6e","description":"one hundred and twenty-eight bytes of a payment, more or less"}`

// request is made anew for each iteration, as a server does; its cost is the same for all.
func benchRequest(key, query, payload string) *http.Request {
	return &http.Request{
		Method: http.MethodPost, ProtoMajor: 1, ProtoMinor: 1,
		URL: &url.URL{Path: "/payments", RawQuery: query}, Header: http.Header{"Idempotency-Key": {key}},
		Body: body{strings.NewReader(payload)}, ContentLength: int64(len(payload)),
	}
}

type body struct{ *strings.Reader }

func (body) Close() error { return nil }

func serveOne(h http.Handler, key, query, payload string) int {
	d := discard{h: make(http.Header, 4)}
	h.ServeHTTP(&d, benchRequest(key, query, payload))
	return d.status
}

// BenchmarkHandler is the handler's side alone, without a network.
func BenchmarkHandler(b *testing.B) {
	for _, shape := range benchShapes {
		one := func(h http.Handler, key string) { serveOne(h, key, shape.query, shape.payload) }
		b.Run("bare/"+shape.name, func(b *testing.B) {
			h := benchHandler(shape.answer, shape.writes)
			b.ReportAllocs()
			for b.Loop() {
				one(h, "key")
			}
		})
		b.Run("first/"+shape.name, func(b *testing.B) {
			h := benchMiddleware(b).Handler(benchHandler(shape.answer, shape.writes))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n++
				one(h, strconv.Itoa(n))
			}
		})
		b.Run("replay/"+shape.name, func(b *testing.B) {
			h := benchMiddleware(b).Handler(benchHandler(shape.answer, shape.writes))
			one(h, "key")
			b.ReportAllocs()
			for b.Loop() {
				one(h, "key")
			}
		})
	}
}

// BenchmarkServer is the same over loopback, connection kept alive.
func BenchmarkServer(b *testing.B) {
	run := func(b *testing.B, h http.Handler, key func(int) string) {
		s := serve(b, "HTTP/1.1", h)
		send := func(n int) {
			r := s.request(b, b.Context(), key(n), strings.NewReader(benchPayload))
			if a := s.send(b, r); a.Status != 200 {
				b.Fatalf("status %d", a.Status)
			}
		}
		send(0)
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			n++
			send(n)
		}
	}
	same := func(int) string { return "key" }
	b.Run("bare", func(b *testing.B) { run(b, benchHandler(1<<10, 1), same) })
	b.Run("first", func(b *testing.B) { run(b, benchMiddleware(b).Handler(benchHandler(1<<10, 1)), strconv.Itoa) })
	b.Run("replay", func(b *testing.B) { run(b, benchMiddleware(b).Handler(benchHandler(1<<10, 1)), same) })
}

// BenchmarkStorm is 100 duplicates of a new key at once: one executes once the others have joined.
// An operation is one of the 100 requests.
func BenchmarkStorm(b *testing.B) {
	const width = 100
	m := benchMiddleware(b)
	inner := benchHandler(1<<10, 1)
	h := m.Handler(handler(func(w http.ResponseWriter, r *http.Request) {
		key, _ := idemhttp.KeyFrom(r.Context())
		until(b, "all others wait", func() bool { e, _ := lookup(m.Cache(), key); return e.Waiters == width-1 })
		inner.ServeHTTP(w, r)
	}))
	b.ReportAllocs()
	for n := 0; n < b.N; n += width {
		var all sync.WaitGroup
		for range width {
			all.Go(func() { serveOne(h, strconv.Itoa(n), "", benchPayload) })
		}
		all.Wait()
	}
}
