package clients

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v82"

	"github.com/idemflight/idemflight"
)

var stripeClient = client{name: "Stripe", module: "github.com/stripe/stripe-go/v82", rows: []row{
	{
		what: "connection refused", effect: none, says: "connect: connection refused", want: idemflight.Release,
		fail: func(t *testing.T) error { return charge(t, within(t, enough), "http://"+refuses(t), 0) },
	}, {
		what: "the server hangs up without an answer", effect: possible, says: "EOF", want: idemflight.Hold,
		fail: func(t *testing.T) error { return charge(t, within(t, enough), hangsUp(t), 0) },
	}, {
		what: "the server hangs up at the first attempt, and refuses the next", effect: possible, says: "connect: connection refused", want: idemflight.Release,
		remark: unknowable + ": the client retries (`MaxNetworkRetries`, 2 if you set nothing) and keeps the last error. It sends the same Idempotency-Key each time: make that the key of Do, and Stripe itself runs it once.",
		fail:   func(t *testing.T) error { return charge(t, within(t, enough), hangsUpAndIsGone(t), 1) },
	}, {
		what: "deadline of the context", effect: possible, says: "context deadline exceeded", want: idemflight.Hold,
		fail: func(t *testing.T) error { return charge(t, within(t, hung), "http://"+silent(t), 0) },
	},
	stripeAnswer("the card is declined", http.StatusPaymentRequired, stripe.ErrorTypeCard, none, "A real answer: `Final(err)`."),
	stripeAnswer("the request is not valid", http.StatusBadRequest, stripe.ErrorTypeInvalidRequest, none, ""),
	stripeAnswer("the key was used with other parameters", http.StatusBadRequest, stripe.ErrorTypeIdempotency, none, ""),
	stripeAnswer("the rate limit", http.StatusTooManyRequests, stripe.ErrorTypeInvalidRequest, none, ""),
	stripeAnswer("a failure at Stripe", http.StatusInternalServerError, stripe.ErrorTypeAPI, possible, unknowable+": `*stripe.Error` has the status in a field. Map it yourself: `Unknown(err)` for 409 and 5xx."),
}}

// stripeAnswer is the row of a request that is answered with an error.
func stripeAnswer(what string, status int, kind stripe.ErrorType, e effect, remark string) row {
	return row{
		what: what + " (" + http.StatusText(status) + ")", effect: e, says: "`\"type\":\"" + string(kind) + "\"`", want: idemflight.Release, remark: remark,
		is: func(err error) bool {
			e, ok := errors.AsType[*stripe.Error](err)
			return ok && e.HTTPStatusCode == status && e.Type == kind
		},
		fail: func(t *testing.T) error {
			return charge(t, within(t, enough), answers(t, status, nil, `{"error":{"type":"`+string(kind)+`","message":"no"}}`), 0)
		},
	}
}

func charge(t *testing.T, ctx context.Context, url string, retries int64) error {
	backends := stripe.NewBackendsWithConfig(&stripe.BackendConfig{
		URL: &url, MaxNetworkRetries: &retries, HTTPClient: &http.Client{Transport: transport(t), Timeout: time.Minute},
		LeveledLogger: &stripe.LeveledLogger{Level: stripe.LevelNull},
	})
	_, err := stripe.NewClient("sk_test_123", stripe.WithBackends(backends)).V1PaymentIntents.Create(ctx, &stripe.PaymentIntentCreateParams{
		Amount: stripe.Int64(100), Currency: stripe.String("eur"),
	})
	return err
}
