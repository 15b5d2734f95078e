package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
	"golang.org/x/sync/semaphore"
)

// bankSlots is how many calls may be at the bank at once, whatever the clients do.
const bankSlots = 64

// shop is the payment service: the bank, the service's own database, and between the clients and
// both of them the keys that make an order happen once.
type shop struct {
	bank   *bank
	db     *database
	atBank *semaphore.Weighted
	cache  *idemflight.Cache[idemflight.Key, *idemhttp.Response] // the answers, by key
	keys   *idemhttp.Middleware
	log    *log.Logger
}

// order is the body of a request.
type order struct {
	Cents int    `json:"cents"`
	Card  string `json:"card"`
}

// payment is the body of the answer to an order that was charged.
type payment struct {
	ID       string `json:"id"`
	Customer string `json:"customer"`
	Cents    int    `json:"cents"`
}

// shopOptions is what a shop may do differently from the next. The zero value is fine.
type shopOptions struct {
	ttl      time.Duration // 0 = a day
	log      *log.Logger   // nil = nowhere
	observer func(context.Context, idemflight.Event[idemflight.Key])
}

func newShop(b *bank, db *database, opts shopOptions) (*shop, error) {
	s := &shop{bank: b, db: db, atBank: semaphore.NewWeighted(bankSlots), log: opts.log}
	if s.log == nil {
		s.log = log.New(io.Discard, "", 0)
	}
	o := idemhttp.DefaultCacheOptions()
	if opts.ttl > 0 {
		o.TTL = opts.ttl
	}
	// A payment of unknown outcome does not become harmless with time: hold its key until Reconcile
	// has found out, however long that takes.
	o.HoldTTL = -1
	o.Reconcile = s.reconcile
	// Each waiting duplicate costs its connection, and its body: the default allows a hundred. Here as
	// many may wait as a storm can have.
	o.MaxWaiters = maxDuplicates
	o.ExecTimeout = time.Minute
	o.Observer = opts.observer
	var err error
	if s.cache, err = idemflight.New(o); err != nil {
		return nil, err
	}
	s.keys, err = idemhttp.New(idemhttp.Options{
		Scope:   customer,
		Cache:   s.cache,
		Require: true, // an order without a key could not be told from its own retry
	})
	return s, err
}

// customer returns who sends a request, in place of authentication. A key counts within its
// customer: who that is must not be the client's to choose, or customers could meet in one key.
func customer(r *http.Request) (string, error) {
	c := r.Header.Get("X-Customer")
	if c == "" {
		return "", errors.New("header X-Customer is missing") // answered with 401
	}
	return c, nil
}

// handler returns the service's endpoints.
func (s *shop) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /payments", s.keys.Handler(http.HandlerFunc(s.pay)))
	return s.recovered(mux)
}

// pay is POST /payments, an ordinary handler: that it runs once per key, and that duplicates get
// its answer, is the business of s.keys. Its own is to say when money can be taken, so that after
// any failure it is known whether a retry may run. The status does the rest: 201,
// 400 and 402 are answers that a retry gets again, 5xx are not.
func (s *shop) pay(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context() // a client that hangs up does not end it
	// So far nothing has begun: whatever fails before BeginEffect, a panic included, a retry may run.
	idemflight.NoEffect(ctx)
	var o order
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil || o.Cents <= 0 || o.Card == "" {
		http.Error(w, "bad order: it needs cents > 0 and a card", http.StatusBadRequest)
		return
	}
	key, _ := idemhttp.KeyFrom(ctx) // there is one: it is required
	if err := s.db.CheckCustomer(key.Scope); err != nil {
		s.fail(w, http.StatusInternalServerError, "database down", err) // before the effect: a retry runs
		return
	}
	if err := s.atBank.Acquire(ctx, 1); err != nil {
		s.fail(w, http.StatusServiceUnavailable, "too busy", err)
		return
	}
	defer s.atBank.Release(1)

	if err := idemflight.BeginEffect(ctx); err != nil { // ctx has ended, say
		s.fail(w, http.StatusServiceUnavailable, "too late", err)
		return
	}
	booked, err := s.bank.Charge(ctx, reference(key), o.Card, o.Cents)
	switch {
	case errors.Is(err, errDeclined):
		http.Error(w, "declined", http.StatusPaymentRequired)
		return
	case errors.Is(err, errBankDown):
		idemflight.NoEffect(ctx) // refused at the door: a retry may run
		s.fail(w, http.StatusServiceUnavailable, "bank down", err)
		return
	case err != nil: // charged or not: the key is held, no retry runs
		s.fail(w, http.StatusGatewayTimeout, "unknown", err)
		return
	}
	answer, err := s.record(key, booked)
	if err != nil { // the money is taken: the key is held, no retry charges again
		s.fail(w, http.StatusInternalServerError, "unknown", err)
		return
	}
	reply(w, answer)
}

// fail answers that something went wrong, which may be over when the client asks again.
func (s *shop) fail(w http.ResponseWriter, status int, what string, err error) {
	s.log.Printf("%d %s: %v", status, what, err)
	http.Error(w, what+": ask again with the same key", status)
}

// reconcile finds out what became of a payment whose key is held: the bank's books know. It runs
// when a client asks again, in place of pay, and finishes what pay could not.
func (s *shop) reconcile(
	ctx context.Context, key idemflight.Key, _ idemflight.Entry[*idemhttp.Response],
) (*idemhttp.Response, error) {
	booked, err := s.bank.Find(ctx, reference(key)) // at most once a second for a key, however many ask
	switch {
	case errors.Is(err, errNotBooked):
		return nil, idemflight.Retryable(err) // nothing was taken: pay runs now
	case err != nil:
		return nil, err // still unknown: 409, and a request after the Retry-After asks again
	}
	return s.record(key, booked)
}

// record saves a payment that the bank has booked, and returns the answer to its order: the same,
// whether pay or reconcile learns of it.
func (s *shop) record(key idemflight.Key, b booking) (*idemhttp.Response, error) {
	p := payment{ID: b.ID, Customer: key.Scope, Cents: b.Amount}
	if err := s.db.Save(p); err != nil {
		return nil, err
	}
	return created(p)
}

// created returns the answer to the order that became p.
func created(p payment) (*idemhttp.Response, error) {
	body, err := json.Marshal(p)
	return &idemhttp.Response{
		Status: http.StatusCreated,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   body,
	}, err
}

// reply sends an answer. That the client is gone is no error: it will ask again.
func reply(w http.ResponseWriter, answer *idemhttp.Response) {
	maps.Copy(w.Header(), answer.Header)
	w.WriteHeader(answer.Status)
	_, _ = w.Write(answer.Body)
}

// payUnguarded is pay without the library: what it is there to replace.
func (s *shop) payUnguarded(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	key := idemflight.Key{Scope: r.Header.Get("X-Customer"), ID: r.Header.Get("Idempotency-Key")}
	var o order
	err := json.NewDecoder(r.Body).Decode(&o)
	if err == nil {
		err = s.atBank.Acquire(ctx, 1)
	}
	if err != nil {
		s.fail(w, http.StatusServiceUnavailable, "not ordered", err)
		return
	}
	defer s.atBank.Release(1)
	booked, err := s.bank.Charge(ctx, reference(key), o.Card, o.Cents)
	var answer *idemhttp.Response
	if err == nil {
		answer, err = s.record(key, booked)
	}
	if err != nil {
		s.fail(w, http.StatusBadGateway, "failed", err)
		return
	}
	reply(w, answer)
}

// reference is what the bank knows an order by. Escaped, since the parts come from clients: no
// customer can choose an ID that makes the reference of another.
func reference(key idemflight.Key) string {
	return url.PathEscape(key.Scope) + "/" + url.PathEscape(key.ID)
}

// recovered answers 500 when a handler panics. By then idemhttp has settled the key, and lets the
// panic pass as it was, with the frames of the handler still on the stack: debug.Stack shows them here.
func (s *shop) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch v := recover(); v {
			case nil:
			case http.ErrAbortHandler:
				panic(v)
			default:
				s.log.Printf("panic: %v", v)
				http.Error(w, "panic: ask again with the same key", http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}
