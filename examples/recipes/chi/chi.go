// Package chipay is idemflight with chi: the middleware of idemhttp is chi's kind of middleware, and goes before one
// route, a group or all of them.
//
//   - Authentication stands outside, so that Scope finds an account. Scope may read a parameter of the path where the
//     route is known already: behind r.With, r.Group and r.Route, and not with Use on the outermost router.
//   - Recoverer stands outside too. Its 500 after a panic is for that one client, and the panic itself is judged: held
//     after BeginEffect. Inside, the 500 is judged in its place, in the same way.
//   - Timeout stands inside. Outside, its deadline ends the waiting of duplicates, and does not reach the handler, whose
//     context ends at ExecTimeout of the cache.
//   - Compress, Throttle and CORS stand outside, CORS with Idempotency-Key among its AllowedHeaders.
//   - Leave out routes that log in (cookies are not replayed), and those that upgrade the connection.
package chipay

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
	"github.com/idemflight/idemflight/idemtest"
)

// New returns a server of payments, charged at bank.
func New(bank *idemtest.Bank) (http.Handler, error) {
	keys, err := idemhttp.New(idemhttp.Options{Scope: account, Require: true})
	if err != nil {
		return nil, err
	}
	r := chi.NewRouter()
	r.Use(middleware.Recoverer)
	r.Use(middleware.BasicAuth("payments", map[string]string{"ann": "secret", "bob": "secret"}))
	r.With(keys.Handler).Post("/payments", server{bank}.pay)
	return r, nil
}

// account tells whose key it is. BasicAuth has checked the password.
func account(r *http.Request) (string, error) {
	name, _, _ := r.BasicAuth()
	return name, nil
}

type server struct {
	bank *idemtest.Bank // stands for your bank's client
}

func (s server) pay(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	idemflight.NoEffect(ctx) // nothing has begun yet: what fails before the bank runs again

	var order struct{ Amount int }
	if err := json.NewDecoder(r.Body).Decode(&order); err != nil || order.Amount <= 0 {
		http.Error(w, "no such amount", http.StatusUnprocessableEntity) // a real answer: replayed
		return
	}
	if err := idemflight.BeginEffect(ctx); err != nil { // from here on, a failure is "unknown"
		http.Error(w, "too late", http.StatusServiceUnavailable)
		return
	}
	key, _ := idemhttp.KeyFrom(ctx) // there is one: Require
	receipt, err := s.bank.Charge(ctx, key.String(), order.Amount)
	switch {
	case errors.Is(err, idemtest.ErrDeclined):
		http.Error(w, "declined", http.StatusPaymentRequired) // a real answer, too
	case errors.Is(err, idemtest.ErrRefused):
		idemflight.NoEffect(ctx) // certainly not charged: the next attempt may try again
		http.Error(w, "the bank cannot be reached", http.StatusServiceUnavailable)
	case err != nil:
		http.Error(w, "the bank does not answer", http.StatusBadGateway) // charged or not: held
	default:
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(receipt)
	}
}
