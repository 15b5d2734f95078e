//go:build !race

package idemhttp_test

import (
	"fmt"
	"io"
	"math/bits"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight/idemhttp"
)

// What a request allocates beyond the bare handler's must not grow. Allocations are counted and
// cannot flake (the race detector makes a pool lose what it is given, so not under it).
func TestFloorAllocations(t *testing.T) {
	if bits.UintSize == 32 {
		t.Skip("skipped: the floors are those of 64-bit systems")
	}
	const runs = 200
	request := func(h http.Handler, bodies ...string) float64 {
		return testing.AllocsPerRun(runs, func() {
			for _, body := range bodies {
				serveOne(h, fmt.Sprint(len(body)), "", body)
			}
		})
	}
	plain := handler(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["X-A"] = []string{"1"}
		w.Header()["X-B"] = []string{"1", "2"}
		w.Write([]byte("done"))
	})
	of := func(n int) string { return strings.Repeat("b", n) }
	for name, c := range map[string]struct {
		bodies []string
		most   float64
	}{
		"small":            {[]string{of(100)}, 2},
		"medium":           {[]string{of(4 << 10)}, 2},
		"small and medium": {[]string{of(100), of(1000)}, 4},
		"200 KiB":          {[]string{of(200 << 10)}, 4},
	} {
		t.Run("replay/"+name, func(t *testing.T) {
			h := newMiddleware(t, idemhttp.Options{}).Handler(plain)
			for _, body := range c.bodies {
				serveOne(h, fmt.Sprint(len(body)), "", body)
			}
			bare := request(handler(func(http.ResponseWriter, *http.Request) {}), c.bodies...)
			require.LessOrEqual(t, request(h, c.bodies...)-bare, c.most, "allocations")
		})
	}

	piece := []byte(of(256))
	failing := func(write func(http.ResponseWriter)) handler {
		return func(w http.ResponseWriter, _ *http.Request) { // not stored, so each time anew
			w.WriteHeader(http.StatusNotImplemented)
			write(w)
		}
	}
	length := []string{"1024"}
	source := strings.NewReader("")
	for name, c := range map[string]struct { // one of each is the cache's own copy of the key
		h    handler
		most float64
	}{
		"nothing": {failing(func(http.ResponseWriter) {}), 9},
		"declared": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Length"] = length
			failing(func(w http.ResponseWriter) {
				for range 4 {
					w.Write(piece)
				}
			})(w, nil)
		}, 14}, // one for the record's own copy of the header's strings
		"pieces": {failing(func(w http.ResponseWriter) {
			for range 256 {
				w.Write(piece)
			}
		}), 20},
		"copied": {failing(func(w http.ResponseWriter) {
			source.Reset("copied")
			io.Copy(w, struct{ io.Reader }{source})
		}), 13},
	} {
		t.Run("execution/"+name, func(t *testing.T) {
			h := newMiddleware(t, idemhttp.Options{}).Handler(c.h)
			require.LessOrEqual(t, request(h, "body")-request(c.h, "body"), c.most, "allocations")
		})
	}
}

// An answer is kept for long, so without the room that it was given while it grew: what the docs
// say of memory counts on that.
func TestFloorMemoryOfAKeptAnswer(t *testing.T) {
	const keys, size = 100, 26 << 10 // a little over 24 KiB, where the room has doubled to 48
	h := newMiddleware(t, idemhttp.Options{}).Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
		for range size / 256 {
			_, _ = w.Write(make([]byte, 256))
		}
	}))
	serveOne(h, "first", "", "")
	before := heap()
	for i := range keys {
		serveOne(h, fmt.Sprint(i), "", "")
	}
	require.Less(t, (heap()-before)/keys, int64(size*5/4), "bytes for each answer")
	require.Equal(t, http.StatusOK, serveOne(h, "0", "", ""), "and it is kept until here")
}

// heap returns the bytes that are in use.
func heap() int64 {
	runtime.GC()
	runtime.GC() // pools let go at the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What an answer weighs is what it takes: with a quarter KiB for each key, the bound that the docs of
// DefaultCacheOptions promise.
func TestFloorAnAnswerWeighsWhatItTakes(t *testing.T) {
	if bits.UintSize == 32 {
		t.Skip("skipped: the floors are those of 64-bit systems")
	}
	for name, c := range map[string]struct{ headers, body, keys int }{
		"nothing": {0, 0, 10_000}, "three headers": {3, 0, 10_000}, "nine": {9, 0, 10_000}, "forty": {40, 100, 5_000},
		"1 KiB": {2, 1 << 10, 10_000}, "5,000 bytes": {3, 5_000, 1_000}, "33,000 bytes": {1, 33_000, 1_000},
	} {
		m := newMiddleware(t, idemhttp.Options{})
		h := m.Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
			for i := range c.headers {
				w.Header().Set(fmt.Sprint("X-Header-", i), fmt.Sprint("value ", i))
			}
			_, _ = w.Write(make([]byte, c.body))
		}))
		serveOne(h, "first", "", "")
		before, weight := heap(), m.Cache().Stats().Weight
		for i := range c.keys {
			serveOne(h, fmt.Sprintf("%036d", i), "", "")
		}
		takes, weighs := (heap()-before)/int64(c.keys), (m.Cache().Stats().Weight-weight)/int64(c.keys)
		require.LessOrEqual(t, takes, weighs+400, "%s: bytes of a key, which weighs %d", name, weighs)
		require.GreaterOrEqual(t, takes, weighs, "%s: no more than it takes", name)
	}
}

// Nothing of what the strings of a header were cut from is kept alive.
func TestFloorARecordKeepsNothingElseAlive(t *testing.T) {
	const keys, size = 40, 1 << 20
	cut := func() string { return strings.Repeat("X", size)[:10] }
	for name, c := range map[string]struct {
		outer string
		late  bool
	}{
		"headers": {}, "middleware outside sets some": {outer: strings.Repeat("o", size)}, "trailers": {late: true},
	} {
		m := newMiddleware(t, idemhttp.Options{})
		inner := m.Handler(handler(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()[cut()] = []string{"value", cut()}
			w.Header().Set("Trailer", "X-Sum")
			w.WriteHeader(http.StatusCreated)
			if c.late {
				w.Header().Set("X-Sum", cut())
				w.Header()[http.TrailerPrefix+cut()] = []string{cut()}
			}
		}))
		h := handler(func(w http.ResponseWriter, r *http.Request) {
			if c.outer != "" {
				w.Header().Set("X-Outer", strings.Clone(c.outer))
			}
			inner.ServeHTTP(w, r)
		})
		serveOne(h, "first", "", "")
		before := heap()
		for i := range keys {
			serveOne(h, strconv.Itoa(i), "", "")
		}
		require.Less(t, (heap()-before)/keys, int64(10<<10), "bytes for each answer: %s", name)
		require.Equal(t, http.StatusCreated, serveOne(h, "0", "", ""), "and it is kept until here")
	}
}

// What Scope cuts from a request line keeps nothing else of it alive.
func TestFloorScopeDoesNotKeepTheRequestAlive(t *testing.T) {
	const keys, size = 40, 500_000
	m := newMiddleware(t, idemhttp.Options{Scope: func(r *http.Request) (string, error) { return r.RequestURI[1:3], nil }})
	h := m.Handler(handler(func(http.ResponseWriter, *http.Request) {}))
	before := heap()
	for i := range keys {
		r := post(strconv.Itoa(i), "")
		r.RequestURI = "/42/" + strings.Repeat("x", size)
		require.Equal(t, http.StatusOK, call(h, r).Status)
	}
	require.Less(t, (heap()-before)/keys, int64(size/10), "bytes for each key")
	require.Equal(t, keys, m.Cache().Len(), "and they are kept until here")
}

// A body of unknown length waits in about the room that it needs.
func TestFloorMemoryOfAWaitingBody(t *testing.T) {
	const waiting, size = 20, 600 << 10
	release := make(chan struct{})
	m := newMiddleware(t, idemhttp.Options{})
	h := m.Handler(handler(func(http.ResponseWriter, *http.Request) { <-release }))
	var all sync.WaitGroup
	before := heap()
	for range waiting + 1 {
		all.Go(func() {
			r := benchRequest("k", "", "")
			r.Body, r.ContentLength = io.NopCloser(io.LimitReader(zeros{}, size)), -1
			h.ServeHTTP(&discard{h: make(http.Header)}, r)
		})
	}
	until(t, "all wait", waiters(m, "k", waiting))
	took := (heap() - before) / (waiting + 1)
	close(release)
	all.Wait()
	require.Less(t, took, int64(size*4/3), "bytes for each request")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
