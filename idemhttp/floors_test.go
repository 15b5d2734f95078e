//go:build !race

package idemhttp_test

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight/idemhttp"
)

// What a request allocates beyond the bare handler's must not grow. Allocations are counted and
// cannot flake (the race detector makes a pool lose what it is given, so not under it).
func TestFloorAllocations(t *testing.T) {
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
	for name, c := range map[string]struct {
		h    handler
		most float64
	}{
		"nothing": {failing(func(http.ResponseWriter) {}), 8},
		"declared": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Length"] = length
			failing(func(w http.ResponseWriter) {
				for range 4 {
					w.Write(piece)
				}
			})(w, nil)
		}, 13}, // one for the record's own copy of the header's strings
		"pieces": {failing(func(w http.ResponseWriter) {
			for range 256 {
				w.Write(piece)
			}
		}), 19},
		"copied": {failing(func(w http.ResponseWriter) {
			source.Reset("copied")
			io.Copy(w, struct{ io.Reader }{source})
		}), 12},
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
	heap := func() int64 {
		runtime.GC()
		runtime.GC() // pools let go at the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	serveOne(h, "first", "", "")
	before := heap()
	for i := range keys {
		serveOne(h, fmt.Sprint(i), "", "")
	}
	require.Less(t, (heap()-before)/keys, int64(size*5/4), "bytes for each answer")
	require.Equal(t, http.StatusOK, serveOne(h, "0", "", ""), "and it is kept until here")
}
