// Package humapay is idemflight with huma: the middleware of idemhttp before single operations, in a few lines.
//
//   - [Once] is for humago, huma over net/http. For humachi it is the same with that package's Unwrap and NewContext.
//     With the adapters for echo, gin and fiber see the recipes for those: there, too, the answer has to be seen.
//   - It goes on the context that huma has (ctx.Context()), so that what huma's own middleware outside has set by
//     huma.WithValue, such as the account, reaches Scope and the handler.
//   - Authentication stands before it: with api.UseMiddleware, which is outside of an operation's Middlewares.
//   - huma validates inside: its 422 for a body that does not fit the schema is an answer, and replayed. Nothing has
//     begun by then, but the handler has not said so either: an answer of 5xx from a resolver is held.
//   - The header is a field of the input, to have it in the OpenAPI document. It is not marked as required: that is
//     checked inside, and Require answers before.
//   - Errors of huma and of idemhttp are both problem documents (RFC 9457).
//   - A handler returns its answer, and huma writes it, all inside: nothing is special about errors. An error that is
//     no huma.StatusError is a 500.
package humapay

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
	"github.com/idemflight/idemflight/idemtest"
)

// Once returns keys as middleware of huma.
func Once(keys *idemhttp.Middleware) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(ctx)
		keys.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next(humago.NewContext(ctx.Operation(), r, w))
		})).ServeHTTP(w, r.WithContext(ctx.Context()))
	}
}

// New returns a server of payments, charged at bank.
func New(bank *idemtest.Bank) (http.Handler, error) {
	keys, err := idemhttp.New(idemhttp.Options{Scope: account, Require: true})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	api := humago.New(mux, huma.DefaultConfig("Payments", "1.0.0"))
	api.UseMiddleware(authenticate(api))
	huma.Register(api, huma.Operation{
		OperationID:   "pay",
		Method:        http.MethodPost,
		Path:          "/payments",
		DefaultStatus: http.StatusCreated,
		Middlewares:   huma.Middlewares{Once(keys)},
	}, server{bank}.pay)
	return mux, nil
}

// accountKey is where the request's context has the account.
type accountKey struct{}

func authenticate(api huma.API) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		r, _ := humago.Unwrap(ctx)
		name, password, _ := r.BasicAuth()
		if password != "secret" { // stands for your own check
			_ = huma.WriteErr(api, ctx, http.StatusUnauthorized, "who are you?")
			return
		}
		next(huma.WithValue(ctx, accountKey{}, name))
	}
}

// account tells whose key it is.
func account(r *http.Request) (string, error) {
	name, _ := r.Context().Value(accountKey{}).(string)
	return name, nil // none is answered 401
}

type server struct {
	bank *idemtest.Bank // stands for your bank's client
}

type order struct {
	Key  string `header:"Idempotency-Key" doc:"One for each payment, and the same each time that it is sent."`
	Body struct {
		Amount int `json:"amount" minimum:"1"`
	}
}

type receipt struct{ Body idemtest.Receipt }

func (s server) pay(ctx context.Context, o *order) (*receipt, error) {
	idemflight.NoEffect(ctx) // nothing has begun yet: what fails before the bank runs again

	if err := idemflight.BeginEffect(ctx); err != nil { // from here on, a failure is "unknown"
		return nil, huma.Error503ServiceUnavailable("too late")
	}
	key, _ := idemhttp.KeyFrom(ctx) // with its scope; o.Key is what the client sent
	booked, err := s.bank.Charge(ctx, key.String(), o.Body.Amount)
	switch {
	case errors.Is(err, idemtest.ErrDeclined):
		return nil, huma.Error402PaymentRequired("declined") // a real answer: replayed
	case errors.Is(err, idemtest.ErrRefused):
		idemflight.NoEffect(ctx) // certainly not charged: the next attempt may try again
		return nil, huma.Error503ServiceUnavailable("the bank cannot be reached")
	case err != nil:
		return nil, huma.Error502BadGateway("the bank does not answer") // charged or not: held
	}
	return &receipt{booked}, nil
}
