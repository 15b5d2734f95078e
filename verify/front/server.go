package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
	"github.com/idemflight/idemflight/pgstore"
)

// serverConfig is the variable of the environment that makes this program a server: a config, as JSON.
const serverConfig = "IDEMFLIGHT_FRONT_SERVER"

type config struct {
	Addr, DSN, Schema string
	Bare              bool // without idemhttp
}

const (
	execTimeout = 2 * time.Second
	lease       = 2 * time.Second      // so that clients do not wait long for the dead; the default is 30s
	hang        = 3 * proxyTimeout / 2 // of a handler: nginx does not wait for so long
	patience    = 20 * time.Second     // with what is under way when a server stops
)

// serve is a server process, until SIGTERM. It prints a line once it listens.
func serve(text string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var c config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	db, err := connect(ctx, c.DSN, c.Schema)
	if err != nil {
		return err
	}
	defer db.Close()
	handler := shop{bank{db}}
	if c.Bare {
		return listenAndServe(ctx, c.Addr, bare(handler))
	}
	own, err := connect(ctx, c.DSN, c.Schema)
	if err != nil {
		return err
	}
	defer own.Close()
	store, err := pgstore.Open(ctx, own, "orders", pgstore.Options{})
	if err != nil {
		return err
	}
	keys, err := guard(handler.bank, store)
	if err != nil {
		return err
	}
	err = listenAndServe(ctx, c.Addr, keys.Handler(handler))
	closing, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return errors.Join(err, keys.Cache().Close(closing))
}

// listenAndServe serves orders until ctx ends. Then it listens no more, and answers what has begun.
func listenAndServe(ctx context.Context, addr string, orders http.Handler) error {
	mux := http.NewServeMux()
	mux.Handle("POST /orders/{order}", orders)
	web := &http.Server{Handler: mux}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println("listens")
	ended := make(chan error, 1)
	go func() { ended <- web.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return web.Shutdown(closing)
}

// guard returns the middleware under test.
func guard(b bank, store idemflight.Store) (*idemhttp.Middleware, error) {
	o := idemhttp.DefaultCacheOptions()
	o.Store, o.Lease, o.ExecTimeout = store, lease, execTimeout
	o.EffectsAnnounced = true
	o.Reconcile = b.reconcile
	cache, err := idemflight.New(o)
	if err != nil {
		return nil, err
	}
	return idemhttp.New(idemhttp.Options{Scope: idemhttp.SharedScope, Require: true, Cache: cache})
}

// reconcile finds out what became of a held order.
func (b bank) reconcile(ctx context.Context, key idemflight.Key, held idemflight.Entry[*idemhttp.Response]) (*idemhttp.Response, error) {
	// Once it is over, the bank refuses what is still on its way (see charge). The second is for the time between the
	// claim and fn; all clocks are those of one machine. The clock is read before the bank is asked: what the bank
	// does not know by then will not come.
	over := time.Since(held.StartedAt) > execTimeout+time.Second
	r, err := b.find(ctx, key.ID)
	switch {
	case errors.Is(err, errNotCharged) && over:
		return nil, idemflight.Retryable(err)
	case err != nil:
		return nil, err // held: the charge may be under way
	}
	header := http.Header{"Content-Type": {"application/json"}}
	return &idemhttp.Response{Status: http.StatusCreated, Header: header, Body: r.body()}, nil
}

// bare gives its handler the context that idemhttp would, and nothing else.
func bare(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), execTimeout)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// fate is what goes wrong in an execution of the handler.
type fate int

const (
	allWell     fate = iota
	refuses          // before the effect
	fails            // after BeginEffect, without an effect
	hangsBefore      // for longer than nginx waits
	hangsAfter
	failsAfter // the charge was made, and the answer is 500
	breaksOff  // the charge was made, and there is no answer
	fates
)

// drawFate lets one execution in four go wrong.
func drawFate() fate {
	if rand.N(4) > 0 {
		return allWell
	}
	return 1 + rand.N(fates-1)
}

// shop is the handler, which charges an order.
type shop struct{ bank bank }

func (s shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, fate := r.Context(), drawFate()
	if fate == refuses {
		http.Error(w, "too busy", http.StatusServiceUnavailable)
		return
	}
	if err := idemflight.BeginEffect(ctx); err != nil && !errors.Is(err, idemflight.ErrNotExecuting) { // bare: nothing guards it
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	switch fate {
	case fails:
		http.Error(w, "out of order", http.StatusInternalServerError)
		return
	case hangsBefore:
		time.Sleep(hang)
	}
	receipt, err := s.bank.charge(ctx, r.PathValue("order"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	switch fate {
	case hangsAfter:
		time.Sleep(hang)
	case failsAfter:
		http.Error(w, "out of paper", http.StatusInternalServerError)
		return
	case breaksOff:
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(receipt.body()) // to a client that may have gone
}
