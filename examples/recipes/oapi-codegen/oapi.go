// Package oapipay is idemflight with a strict server of oapi-codegen: the middleware of idemhttp is one of the generated
// server's Middlewares, which stand around every operation.
//
//   - It cannot be a StrictMiddlewareFunc. Those return the answer as a value, which is written only after them, so that
//     the middleware of idemhttp would see nothing of it.
//   - Middlewares apply to all operations. GET passes untouched, and without Require so does what bears no key. To leave
//     out an operation, a login say, a middleware around keys.Handler looks at r.Pattern.
//   - The last of Middlewares is the outermost: authentication comes after keys.Handler in the list.
//   - A header that the document requires is checked outside of Middlewares. A missing key is answered by the generated
//     code then, with a 400 all the same. Do not give it a format such as uuid: clients may send it in quotes.
//   - All statuses that a handler means are answers in the document. An error from the handler is a 500, whose text goes
//     to the client, and after BeginEffect it holds the key.
//   - A handler that returns nil and no error writes nothing. That is an empty 200, and would be replayed.
//   - The body is decoded inside, before the handler. Its 400 is an answer, and replayed.
package oapipay

import (
	"context"
	"errors"
	"net/http"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
	"github.com/idemflight/idemflight/idemtest"
)

//go:generate go run github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2 -config oapi-codegen.yaml openapi.yaml

// New returns a server of payments, charged at bank.
func New(bank *idemtest.Bank) (http.Handler, error) {
	keys, err := idemhttp.New(idemhttp.Options{Scope: account, Require: true})
	if err != nil {
		return nil, err
	}
	strict := NewStrictHandler(server{bank}, nil)
	return HandlerWithOptions(strict, StdHTTPServerOptions{
		Middlewares: []MiddlewareFunc{keys.Handler, authenticate}, // the last is the outermost
	}), nil
}

// accountKey is where the request's context has the account.
type accountKey struct{}

func authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, password, _ := r.BasicAuth()
		if password != "secret" { // stands for your own check
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), accountKey{}, name)))
	})
}

// account tells whose key it is.
func account(r *http.Request) (string, error) {
	name, _ := r.Context().Value(accountKey{}).(string)
	return name, nil // none is answered 401
}

type server struct {
	bank *idemtest.Bank // stands for your bank's client
}

// Pay is the operation pay of the document.
func (s server) Pay(ctx context.Context, order PayRequestObject) (PayResponseObject, error) {
	idemflight.NoEffect(ctx) // nothing has begun yet: what fails before the bank runs again

	if order.Body.Amount <= 0 {
		return Pay422Response{}, nil // a real answer: replayed
	}
	if err := idemflight.BeginEffect(ctx); err != nil { // from here on, a failure is "unknown"
		return Pay503Response{}, nil
	}
	key, _ := idemhttp.KeyFrom(ctx) // with its scope; order.Params has what the client sent
	receipt, err := s.bank.Charge(ctx, key.String(), order.Body.Amount)
	switch {
	case errors.Is(err, idemtest.ErrDeclined):
		return Pay402Response{}, nil // a real answer, too
	case errors.Is(err, idemtest.ErrRefused):
		idemflight.NoEffect(ctx) // certainly not charged: the next attempt may try again
		return Pay503Response{}, nil
	case err != nil:
		return Pay502Response{}, nil // charged or not: held
	}
	return Pay201JSONResponse{Id: receipt.ID, Amount: receipt.Amount}, nil
}
