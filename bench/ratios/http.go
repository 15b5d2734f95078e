package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"

	"github.com/idemflight/idemflight/idemhttp"
)

// payment is a request's body, of 128 bytes.
const payment = `{"amount":100,"currency":"EUR","source":"tok_4f6e","description":` +
	`"one hundred and twenty-eight bytes of a payment, near enough"}`

// requests is the context of all requests in process. It can end, as a server's can.
var requests, _ = context.WithCancel(background)

// bare answers with 1 KiB of JSON.
var bare = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer)
})

var answer = bytes.Repeat([]byte("x"), 1<<10)

func newMiddleware() *idemhttp.Middleware {
	m, err := idemhttp.New(idemhttp.Options{Scope: idemhttp.SharedScope})
	if err != nil {
		panic(err)
	}
	return m
}

func closeMiddleware(m *idemhttp.Middleware) { _ = m.Cache().Close(background) }

// discard is a ResponseWriter that costs nothing.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

// serve has h answer a request that is made anew, as a server does, and returns the header.
func serve(h http.Handler, key string) http.Header {
	w := discard{make(http.Header, 4)}
	r := &http.Request{
		Method: http.MethodPost, ProtoMajor: 1, ProtoMinor: 1,
		URL: &url.URL{Path: "/payments"}, Header: http.Header{"Idempotency-Key": {key}},
		Body: io.NopCloser(strings.NewReader(payment)), ContentLength: int64(len(payment)),
	}
	h.ServeHTTP(&w, r.WithContext(requests))
	return w.header
}

// microseconds makes a measurement in ns one in µs.
func microseconds(ns func() float64) func() float64 {
	return func() float64 { return ns() / 1e3 }
}

// httpReplay compares requests whose answer is kept with the same without the middleware.
func httpReplay(goroutines int) contest {
	m := newMiddleware()
	key := someKeys()[0]
	timed := func(h http.Handler) func() float64 {
		serve(h, key)
		calls := max(1024, 16*goroutines)
		return microseconds(perCall(calls, func() {
			divide(calls, goroutines, func(from, to int) {
				for range to - from {
					serve(h, key)
				}
			})
		}))
	}
	return contest{
		ours: timed(m.Handler(bare)), theirs: timed(bare), done: func() { closeMiddleware(m) },
	}
}

// httpLoopback is httpReplay over connections that are kept alive.
func httpLoopback(goroutines int) contest {
	m := newMiddleware()
	covered, plain := httptest.NewServer(m.Handler(bare)), httptest.NewServer(bare)
	transport := &http.Transport{MaxIdleConnsPerHost: goroutines}
	client := &http.Client{Transport: transport}
	key := someKeys()[0]
	timed := func(address string) func() float64 {
		send(client, address, key)
		calls := max(64, 4*goroutines)
		return microseconds(perCall(calls, func() {
			divide(calls, goroutines, func(from, to int) {
				for range to - from {
					send(client, address, key)
				}
			})
		}))
	}
	return contest{
		ours: timed(covered.URL), theirs: timed(plain.URL),
		done: func() {
			transport.CloseIdleConnections()
			covered.Close()
			plain.Close()
			closeMiddleware(m)
		},
	}
}

// send sends a request and reads its answer, whose header it returns. It panics if there is none.
func send(client *http.Client, address, key string) http.Header {
	r, err := http.NewRequest(http.MethodPost, address+"/payments", strings.NewReader(payment))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Idempotency-Key", key)
	a, err := client.Do(r)
	if err != nil {
		panic(err)
	}
	defer a.Body.Close()
	n, err := io.Copy(io.Discard, a.Body)
	if n != int64(len(answer)) || err != nil {
		panic(fmt.Sprintf("an answer of %d bytes, %s, %v", n, a.Status, err))
	}
	return a.Header
}

// freshRequests are the keys of first requests, each in a store that ends with all of them.
func freshRequests() []string { return someKeys()[:spread/4] }

func openMiddleware() (do func(key string), shut func()) {
	m := newMiddleware()
	h := m.Handler(bare)
	return func(key string) { serve(h, key) }, func() { closeMiddleware(m) }
}

func openBare() (do func(key string), shut func()) {
	return func(key string) { serve(bare, key) }, func() {}
}

// httpFirst compares requests with fresh keys with the same without the middleware.
func httpFirst(goroutines int) contest {
	return contest{
		ours:   microseconds(first(freshRequests(), goroutines, openMiddleware)),
		theirs: microseconds(first(freshRequests(), goroutines, openBare)),
	}
}

func httpFirstAllocs() contest {
	counted := func(open opener) func() float64 {
		return func() float64 {
			do, shut := open()
			defer shut()
			list := freshRequests()
			// Rounded down: the fraction is the growth of the tables.
			return math.Floor(allocations(len(list), func() {
				for _, key := range list {
					do(key)
				}
			}))
		}
	}
	return contest{ours: counted(openMiddleware), theirs: counted(openBare)}
}
