// Package stripehook books the payments that Stripe's webhooks report, each once
// (github.com/stripe/stripe-go/v82/webhook).
//
// The key is the event's ID, which every delivery of it has; the signature is checked before the ID is believed. There
// is no fingerprint of the body: pending_webhooks counts down between deliveries, and two endpoints get the event
// in an api_version each. The signature's timestamp is new each time, too: it guards against a replay by others
// (after 5 minutes, ConstructEvent's tolerance), and not against Stripe's own redelivery.
//
// Stripe reads the status and nothing else:
//
//	Done              200
//	Later             503: it is delivered again, in minutes at first, then hours
//	Unknown           503: Reconcile looks into the books at each delivery; an alert on Stats.Held calls a person
//	a bad signature   400
//
// How long can an event come again? By itself up to 3 days, by hand from the Dashboard up to 15, with Stripe's command
// line up to 30 (docs.stripe.com/webhooks). So a TTL of 31 days; deploys lie between, so the cache needs a Store.
//
// Traps. ConstructEvent refuses events of another release train of the API than stripe-go's: give the endpoint the
// version of the library, or each delivery is a 400. Events come in no certain order. Stripe may make two events for
// one change, and the page that a customer returns to may report the same payment: what must happen once per payment,
// whoever reports it, is a Do of its own inside, with the payment's ID as its key. Answer soon: a delivery that waits
// long counts as failed, hence WithMaxWait.
package stripehook

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/stripe/stripe-go/v82"
	"github.com/stripe/stripe-go/v82/webhook"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/examples/recipes/payment"
	"github.com/idemflight/idemflight/idemtest"
)

// Hook is the endpoint.
type Hook struct {
	secret string
	books  payment.Bank
	events *idemflight.Cache[idemflight.Key, idemtest.Receipt]
	log    *slog.Logger
}

// Options of a [Hook].
type Options struct {
	Secret string       // of the endpoint: whsec_…
	Books  payment.Bank // where payments are booked. In the tests an idemtest.Bank
	Store  idemflight.Store
	Log    *slog.Logger
}

// New returns a Hook, or the cache's error about the options.
func New(o Options) (*Hook, error) {
	h := &Hook{secret: o.Secret, books: o.Books, log: o.Log}
	var err error
	h.events, err = idemflight.New(idemflight.Options[idemflight.Key, idemtest.Receipt]{
		TTL:              31 * 24 * time.Hour,
		HoldTTL:          -1, // until somebody has found out
		EffectsAnnounced: true,
		Reconcile:        h.findOut,
		Store:            o.Store,
	})
	return h, err
}

// ServeHTTP takes one delivery of an event.
func (h *Hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, "the body ended early, or is too large", http.StatusBadRequest)
		return
	}
	event, err := webhook.ConstructEvent(body, r.Header.Get("Stripe-Signature"), h.secret)
	if err != nil {
		http.Error(w, "not a signed event", http.StatusBadRequest)
		return
	}
	if event.Type != stripe.EventTypePaymentIntentSucceeded {
		return // 200: nothing to do
	}
	fate, err := h.handle(r.Context(), event)
	if fate != payment.Done {
		h.log.WarnContext(r.Context(), "an event will have to come again", "event", event.ID, "fate", fate, "error", err)
		http.Error(w, "not yet", http.StatusServiceUnavailable)
	}
}

// handle books the payment of an event, once.
func (h *Hook) handle(ctx context.Context, event stripe.Event) (payment.Fate, error) {
	result, err := h.events.DoResult(ctx, idemflight.Key{Scope: "stripe", ID: event.ID}, func(ctx context.Context) (idemtest.Receipt, error) {
		var intent stripe.PaymentIntent
		if err := json.Unmarshal(event.Data.Raw, &intent); err != nil {
			return idemtest.Receipt{}, err // nothing has begun: a later version of this program may read it
		}
		if err := idemflight.BeginEffect(ctx); err != nil {
			return idemtest.Receipt{}, err
		}
		return h.books.Charge(ctx, event.ID, int(intent.Amount))
	}, idemflight.WithMaxWait(5*time.Second))
	return payment.FateOf(result, err), err
}

// findOut looks into the books for an event whose outcome is unknown, when it is delivered again.
func (h *Hook) findOut(ctx context.Context, key idemflight.Key, _ idemflight.Entry[idemtest.Receipt]) (idemtest.Receipt, error) {
	receipt, err := h.books.Find(ctx, key.ID)
	if errors.Is(err, idemtest.ErrNotFound) {
		err = idemflight.Retryable(err) // not booked
	}
	return receipt, err
}
