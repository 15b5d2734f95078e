package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/idemflight/idemflight"
	"golang.org/x/sync/semaphore"
)

// bankSlots is how many calls may be at the bank at once, whatever the clients do.
const bankSlots = 64

// maxWait is how long a duplicate waits for the payment under way: less than clients and proxies
// commonly do, so that they get an answer and not a broken connection.
const maxWait = 30 * time.Second

// shop is the payment service: the bank, the service's own database, and between the clients and
// both of them the cache that makes an order happen once.
type shop struct {
	bank     *bank
	db       *database
	atBank   *semaphore.Weighted
	payments *idemflight.Cache[idemflight.Key, payment]
	log      *slog.Logger
}

// order is the body of a request.
type order struct {
	Cents int    `json:"cents"`
	Card  string `json:"card"`
}

// payment is the outcome of an order. All who ask for it share one, so it is never changed.
type payment struct {
	ID       string `json:"id"`
	Customer string `json:"customer"`
	Cents    int    `json:"cents"`
}

// shopOptions is what a shop may do differently from the next. The zero value is fine.
type shopOptions struct {
	ttl      time.Duration // 0 = a day
	log      *slog.Logger  // nil = nowhere
	observer func(context.Context, idemflight.Event[idemflight.Key])
}

func newShop(b *bank, db *database, opts shopOptions) (*shop, error) {
	s := &shop{bank: b, db: db, atBank: semaphore.NewWeighted(bankSlots), log: opts.log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	s.payments, err = idemflight.New(idemflight.Options[idemflight.Key, payment]{
		TTL: opts.ttl,
		// A payment of unknown outcome does not become harmless with time: hold its key until
		// Reconcile has found out, however long that takes.
		HoldTTL:     -1,
		Reconcile:   s.reconcile,
		ExecTimeout: time.Minute,
		Observer:    opts.observer,
	})
	return s, err
}

// handler returns the service's endpoints.
func (s *shop) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /payments", s.pay)
	return s.recovered(mux)
}

// pay is POST /payments: an order is charged once, however often it arrives.
func (s *shop) pay(w http.ResponseWriter, r *http.Request) {
	key, o, body, ok := s.read(w, r)
	if !ok {
		return
	}
	// The function may outlive this request: a client that hangs up does not stop a payment. So it
	// uses key and o, which are its own, and nothing that belongs to r, whose body is closed when
	// the handler returns. What a duplicate brings is compared by the fingerprint instead.
	res, err := s.payments.DoResult(r.Context(), key,
		func(ctx context.Context) (payment, error) { return s.charge(ctx, key, o) },
		idemflight.WithFingerprint(idemflight.FingerprintOf(body)), idemflight.WithMaxWait(maxWait))
	s.answer(w, res, err)
}

// charge carries out an order. It runs once per key at any moment, and tells the cache where money
// can be taken, so that the cache knows after any failure whether a retry may run it again.
func (s *shop) charge(ctx context.Context, key idemflight.Key, o order) (payment, error) {
	// So far nothing has begun: whatever fails before BeginEffect, a panic included, a retry may run.
	idemflight.NoEffect(ctx)
	if err := s.db.CheckCustomer(key.Scope); err != nil {
		return payment{}, err
	}
	if err := s.atBank.Acquire(ctx, 1); err != nil {
		return payment{}, err
	}
	defer s.atBank.Release(1)

	if err := idemflight.BeginEffect(ctx); err != nil {
		return payment{}, err // too late to begin, say: ctx has ended
	}
	booked, err := s.bank.Charge(ctx, reference(key), o.Card, o.Cents)
	switch {
	case errors.Is(err, errDeclined):
		return payment{}, idemflight.Final(err) // an answer like any other: to be replayed
	case errors.Is(err, errBankDown):
		idemflight.NoEffect(ctx) // refused at the door: a retry may run
		return payment{}, err
	case err != nil:
		return payment{}, err // charged or not: the key is held, no retry runs
	}
	p := payment{ID: booked.ID, Customer: key.Scope, Cents: booked.Cents}
	if err := s.db.Save(p); err != nil {
		return payment{}, err // the money is taken: the key is held, no retry charges again
	}
	return p, nil
}

// reconcile finds out what became of a payment whose key is held: the bank's books know. It runs
// when a client asks again, in place of charge, and finishes what charge could not.
func (s *shop) reconcile(
	_ context.Context, key idemflight.Key, held idemflight.Entry[payment],
) (payment, error) {
	s.log.Info("asking the bank", "key", key, "why", held.Err)
	booked, err := s.bank.Find(reference(key))
	switch {
	case errors.Is(err, errNotBooked):
		return payment{}, idemflight.Retryable(err) // nothing was taken: charge runs now
	case err != nil:
		return payment{}, err // still unknown: the next request asks again
	}
	p := payment{ID: booked.ID, Customer: key.Scope, Cents: booked.Cents}
	if err := s.db.Save(p); err != nil {
		return payment{}, err
	}
	return p, nil
}

// payUnguarded is the same endpoint without the cache: what the cache is there to replace.
func (s *shop) payUnguarded(w http.ResponseWriter, r *http.Request) {
	key, o, _, ok := s.read(w, r)
	if !ok {
		return
	}
	if err := s.atBank.Acquire(r.Context(), 1); err != nil {
		s.answer(w, idemflight.Result[payment]{}, err)
		return
	}
	defer s.atBank.Release(1)
	booked, err := s.bank.Charge(r.Context(), reference(key), o.Card, o.Cents)
	p := payment{ID: booked.ID, Customer: key.Scope, Cents: booked.Cents}
	if err == nil {
		err = s.db.Save(p)
	}
	s.answer(w, idemflight.Result[payment]{Value: p, Source: idemflight.Executed}, err)
}

// reference is what the bank knows an order by. Escaped, since the parts come from clients: no
// customer can choose an ID that makes the reference of another.
func reference(key idemflight.Key) string {
	return url.PathEscape(key.Scope) + "/" + url.PathEscape(key.ID)
}

// read returns the key and the order of a request, and the body they came in; not ok means that it
// has answered. A missing key needs no check here: the cache refuses it.
func (s *shop) read(
	w http.ResponseWriter, r *http.Request,
) (key idemflight.Key, o order, body []byte, ok bool) {
	// In place of authentication. The customer is the key's scope: it must not be the client's to
	// choose, or customers could meet in one key.
	customer := r.Header.Get("X-Customer")
	if customer == "" {
		refuse(w, http.StatusUnauthorized, "no customer", errors.New("header X-Customer is missing"))
		return key, o, nil, false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
	if err == nil {
		err = json.Unmarshal(body, &o)
	}
	if err == nil && (o.Cents <= 0 || o.Card == "") {
		err = errors.New("an order needs cents > 0 and a card")
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "bad order", err)
		return key, o, nil, false
	}
	return idemflight.Key{Scope: customer, ID: r.Header.Get("Idempotency-Key")}, o, body, true
}

// refusals is how errors are told to a client; the first that fits counts. The cache's own come
// first: ErrOutcomeUnknown wraps what led to it, which is not an answer.
var refusals = []struct {
	is     error
	status int
	code   string
	retry  bool // the same request, with the same key, may get another answer later
}{
	{idemflight.ErrOutcomeUnknown, http.StatusConflict, "unknown", true},
	{idemflight.ErrInFlight, http.StatusConflict, "in flight", true},
	{idemflight.ErrKeyReused, http.StatusUnprocessableEntity, "key reused", false},
	{idemflight.ErrInvalidKey, http.StatusBadRequest, "no key", false},
	{idemflight.ErrFull, http.StatusServiceUnavailable, "full", true},
	{idemflight.ErrClosed, http.StatusServiceUnavailable, "closing", true},
	{idemflight.ErrLeft, http.StatusServiceUnavailable, "left", true},
	{errDeclined, http.StatusPaymentRequired, "declined", false},
	{errBankDown, http.StatusServiceUnavailable, "bank down", true},
	{errDatabase, http.StatusServiceUnavailable, "database down", true},
}

// answer tells the client how its order went.
func (s *shop) answer(w http.ResponseWriter, res idemflight.Result[payment], err error) {
	// A payment and a declined card are answers to the order, which a duplicate gets again. All
	// else says why there is none.
	answered := err == nil || errors.Is(err, errDeclined)
	if answered && res.Source != idemflight.Executed {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	if err == nil {
		reply(w, http.StatusCreated, res.Value)
		return
	}
	for _, known := range refusals {
		if errors.Is(err, known.is) {
			if known.retry {
				w.Header().Set("Retry-After", "1")
			}
			refuse(w, known.status, known.code, err)
			return
		}
	}
	s.log.Error("payment failed", "err", err)
	refuse(w, http.StatusInternalServerError, "internal error", errors.New("see the log"))
}

// refusal is the body of an answer that is no payment.
type refusal struct {
	Error  string `json:"error"`
	Detail string `json:"detail"`
}

func refuse(w http.ResponseWriter, status int, code string, err error) {
	reply(w, status, refusal{code, err.Error()})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// An error here means that the client is gone. The outcome is kept; it will ask again.
	_ = json.NewEncoder(w).Encode(body)
}

// recovered answers 500 when a handler panics. A panic inside charge comes out of DoResult as a
// *idemflight.PanicError, with the stack of where it happened; the key has been settled by then.
func (s *shop) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch v := recover(); v {
			case nil:
			case http.ErrAbortHandler:
				panic(v)
			default:
				s.log.Error("handler panicked", "panic", v)
				refuse(w, http.StatusInternalServerError, "panic", errors.New("see the log"))
			}
		}()
		next.ServeHTTP(w, r)
	})
}
