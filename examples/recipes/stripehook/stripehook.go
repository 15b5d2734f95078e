// Package stripehook books the payments that Stripe reports by webhook, each once
// (github.com/stripe/stripe-go/v82/webhook).
//
// The key is the event's ID, which is the same in every delivery. Verify the signature before you believe the ID. Do
// not fingerprint the body: pending_webhooks changes from delivery to delivery, and api_version from endpoint to
// endpoint. The signature's timestamp changes, too: it stops strangers who replay a request after 5 minutes
// (ConstructEvent's tolerance), but not Stripe's own redeliveries.
//
// Stripe reads the status and nothing else:
//
//	Done              200
//	Later             503: Stripe delivers it again, with growing delays
//	Unknown           503: each delivery asks Reconcile; have the age of the oldest held event
//	                  (idemprom, Cache.Unsettled) page somebody
//	a bad signature   400
//
// An event can come again for 3 days by Stripe's own retries, for 15 from the Dashboard and for 30 by its CLI
// (docs.stripe.com/webhooks). So the TTL is 31 days. There will be restarts in that time: set a Store.
//
// Traps. ConstructEvent refuses events of another API release than stripe-go's: give the endpoint the library's
// version, or every delivery is a 400. Events arrive in any order. Stripe may send two events about one change, and the
// page that the customer returns to may report the same payment: what must happen once per payment, whoever reports it,
// needs a Do of its own, with the payment's ID as its key. Answer soon, hence WithMaxWait: a slow delivery counts as
// failed.
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
	Books  payment.Bank // where payments are booked; in the tests an idemtest.Bank
	Store  idemflight.Store
	Log    *slog.Logger
}

// New returns a Hook, or an error that names the bad options.
func New(o Options) (*Hook, error) {
	h := &Hook{secret: o.Secret, books: o.Books, log: o.Log}
	var err error
	h.events, err = idemflight.New(idemflight.Options[idemflight.Key, idemtest.Receipt]{
		TTL:              31 * 24 * time.Hour,
		HoldTTL:          -1, // hold an unknown event until somebody has found out
		EffectsAnnounced: true,
		Reconcile:        h.findOut,
		Store:            o.Store,
	})
	return h, err
}

// ServeHTTP handles one delivery of an event.
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
		h.log.WarnContext(r.Context(), "the event will have to come again", "event", event.ID, "fate", fate, "error", err)
		http.Error(w, "not yet", http.StatusServiceUnavailable)
	}
}

// handle books the payment of an event, once.
func (h *Hook) handle(ctx context.Context, event stripe.Event) (payment.Fate, error) {
	result, err := h.events.DoResult(ctx, idemflight.Key{Scope: "stripe", ID: event.ID}, func(ctx context.Context) (idemtest.Receipt, error) {
		var intent stripe.PaymentIntent
		if err := json.Unmarshal(event.Data.Raw, &intent); err != nil {
			return idemtest.Receipt{}, err // nothing has begun: a later version of this program may understand it
		}
		if err := idemflight.BeginEffect(ctx); err != nil {
			return idemtest.Receipt{}, err
		}
		return h.books.Charge(ctx, event.ID, int(intent.Amount))
	}, idemflight.WithMaxWait(5*time.Second))
	return payment.FateOf(result, err), err
}

// findOut looks a held event up in the books, when it is delivered again.
func (h *Hook) findOut(ctx context.Context, key idemflight.Key, _ idemflight.Entry[idemtest.Receipt]) (idemtest.Receipt, error) {
	receipt, err := h.books.Find(ctx, key.ID)
	if errors.Is(err, idemtest.ErrNotFound) {
		err = idemflight.Retryable(err) // not booked
	}
	return receipt, err
}
