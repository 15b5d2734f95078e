// Browser serves the page with sample data, for the tests in this folder: see run. It prints the address, and ends
// when its standard input does.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/ideminspect"
	"github.com/idemflight/idemflight/storetest"
)

type (
	key   = idemflight.Key
	cache = idemflight.Cache[key, string]
)

func main() {
	log.SetFlags(0)
	log.SetOutput(io.Discard) // of each action
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("http://%s\n", l.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Fprintln(os.Stderr, http.Serve(l, handler()))
}

// handler serves pages, and what the tests need to change them.
func handler() http.Handler {
	mux := http.NewServeMux()
	operator := func(*http.Request) (string, error) { return "nora", nil }
	writes := ideminspect.Options{Write: true, Actor: operator}
	text := ideminspect.View[key, string]{
		Value:      func(v string) string { return v },
		ParseValue: func(v string) (string, error) { return strings.TrimSpace(v), nil },
		TraceURL:   func(o idemflight.Origin) string { return fmt.Sprintf("https://traces.example/%x", o.TraceID) },
	}

	payments := newCache(idemflight.Options[key, string]{HoldTTL: -1, Reconcile: reconcile})
	hold(payments, "ann", "5f0c11d2-8a41-4f0e-9c5e-3d1f6b7a2c90", 7*time.Hour+12*time.Minute, "the bank did not answer in time")
	hold(payments, "ben", "c41d09aa-1f6e-47d3-8b4c-6f0e2a917d55", 44*time.Minute, "502 Bad Gateway: upstream closed the connection")
	hold(payments, "ann", "a9e0f3b7-77c2-4d0a-b1de-0c5f4e3d2b1a", 95*time.Second, "context deadline exceeded")
	go traffic(payments)
	fly(payments, "eva", "0b7f2c64-5d1e-4c3a-9f8b-7a6d5e4c3b2a", 3)
	fly(payments, "ben", "d2c1b0a9-3e4f-4a5b-8c6d-1e2f3a4b5c6d", 0)

	refunds := newCache(idemflight.Options[key, string]{Store: &aged{storetest.Mem(), 3*time.Minute + 7*time.Second}, Reconcile: reconcile})
	fly(refunds, "eva", "e7d6c5b4-a392-4817-b6f5-e4d3c2b1a098", 1)

	page := newPage(writes)
	ideminspect.Add(page, "payments", payments, text)
	ideminspect.Add(page, "refunds", refunds, text)
	ideminspect.Add(page, "mails", newCache(idemflight.Options[key, string]{}), ideminspect.View[key, string]{})
	var down atomic.Bool
	mux.HandleFunc("/page", func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		page.ServeHTTP(w, r)
	})

	reads := newPage(ideminspect.Options{})
	ideminspect.Add(reads, "payments", payments, ideminspect.View[key, string]{})
	mux.Handle("/readonly", reads)

	quiet := newPage(writes)
	ideminspect.Add(quiet, "mails", newCache(idemflight.Options[key, string]{}), text)
	mux.Handle("/quiet", quiet)

	// What clients send may be anything, and so may what servers answer.
	hostile := newCache(idemflight.Options[key, string]{HoldTTL: -1, Reconcile: reconcile})
	for i, bad := range []string{
		`<script>document.title="hacked"</script>`, `"><img src=x onerror=document.title="hacked">`, "\u202etxet desrever",
		strings.Repeat("long", 500), "line\nbreak\x00\xff", `javascript:document.title="hacked"`, "{{.}}</textarea></title>",
	} {
		hold(hostile, bad, fmt.Sprint(i, bad), time.Duration(i+1)*100*time.Hour, bad)
	}
	all := newPage(writes)
	shown := text
	shown.Key = func(k key) string { return k.Scope + "/" + k.ID }
	ideminspect.Add(all, `<b>host"ile</b>`, hostile, shown)
	mux.Handle("/hostile", all)

	many := newCache(idemflight.Options[key, string]{})
	for i := range 250 {
		hold(many, "ann", fmt.Sprintf("%03d-8a41-4f0e-9c5e", i), time.Duration(i)*time.Minute, "the bank did not answer in time")
	}
	crowd := newPage(ideminspect.Options{})
	ideminspect.Add(crowd, "many", many, ideminspect.View[key, string]{})
	mux.Handle("/many", crowd)

	mux.HandleFunc("POST /control", func(w http.ResponseWriter, r *http.Request) {
		k := key{Scope: r.FormValue("scope"), ID: r.FormValue("id")}
		switch r.FormValue("do") {
		case "hold":
			hold(payments, k.Scope, k.ID, time.Minute, r.FormValue("error"))
		case "settle":
			_ = payments.Resolve(r.Context(), k, "settled elsewhere", nil)
		case "state":
			e, _, _ := payments.Lookup(r.Context(), k)
			fmt.Fprintf(w, "%v %v %v", e.State, e.Value, e.Err)
		case "down":
			down.Store(r.FormValue("is") == "true")
		}
	})
	return mux
}

func newCache(opts idemflight.Options[key, string]) *cache { return idemflight.MustNew(opts) }

func newPage(opts ideminspect.Options) *ideminspect.Page {
	p, err := ideminspect.New(opts)
	must(err)
	return p
}

// reconcile finds out what an ID says about itself.
func reconcile(_ context.Context, k key, _ idemflight.Entry[string]) (string, error) {
	switch {
	case strings.HasPrefix(k.ID, "booked"):
		return "receipt 7", nil
	case strings.HasPrefix(k.ID, "never"):
		return "", idemflight.Retryable(errors.New("the bank has no such booking"))
	}
	return "", errors.New("the bank is still down")
}

// hold puts a held key into a cache, as if it had been so for some time.
func hold(c *cache, scope, id string, ago time.Duration, why string) {
	ended := time.Now().Add(-ago)
	e := idemflight.Entry[string]{
		State: idemflight.Held, Err: errors.New(why), StartedAt: ended.Add(-900 * time.Millisecond), CompletedAt: ended,
		Fingerprint: idemflight.FingerprintOf([]byte(id)),
	}
	must(c.Restore(context.Background(), key{Scope: scope, ID: id}, e))
}

// fly puts an execution into a cache that does not end, with callers that wait for it.
func fly(c *cache, scope, id string, waiters int) {
	running := make(chan struct{})
	call := func() {
		_, _ = c.Do(context.Background(), key{Scope: scope, ID: id}, func(context.Context) (string, error) {
			close(running)
			select {}
		}, idemflight.WithFingerprint(idemflight.FingerprintOf([]byte(id))))
	}
	go call()
	<-running
	for range waiters {
		go call()
	}
}

// traffic is calls that end well, most of them duplicates, and a few that do not.
func traffic(c *cache) {
	for i := 0; ; i++ {
		k := key{Scope: "zoe", ID: fmt.Sprintf("%04d-order", i/3)}
		payload := idemflight.FingerprintOf([]byte{byte(i / 50 * 50 / 3)}) // now and then another than before
		_, _ = c.Do(context.Background(), k, func(context.Context) (string, error) { return "receipt", nil }, idemflight.WithFingerprint(payload))
		time.Sleep(20 * time.Millisecond)
	}
}

// aged is a Store of which all has begun some time ago.
type aged struct {
	*storetest.Memory
	by time.Duration
}

func (s *aged) Read(ctx context.Context, key string) (idemflight.Standing, error) {
	x, err := s.Memory.Read(ctx, key)
	x.StartedAt = x.StartedAt.Add(-s.by)
	return x, err
}

func (s *aged) Unsettled(ctx context.Context, f func(string, idemflight.Standing) error) error {
	return s.Memory.Unsettled(ctx, func(key string, x idemflight.Standing) error {
		x.StartedAt = x.StartedAt.Add(-s.by)
		return f(key, x)
	})
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
