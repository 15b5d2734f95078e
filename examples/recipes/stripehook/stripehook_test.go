package stripehook

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/stripe/stripe-go/v82"
	"github.com/stripe/stripe-go/v82/webhook"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemtest"
	"github.com/idemflight/idemflight/storetest"
)

const secret = "whsec_test"

func TestARedeliveryDiffersInAllButTheEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var books idemtest.Bank
		h := newHook(t, &books, nil)

		first := signed(body("evt_1", 2))
		require.Equal(t, http.StatusOK, deliver(t.Context(), h, first.Payload, first.Header))
		time.Sleep(30 * 24 * time.Hour) // the last day on which it can be sent again, by hand
		again := signed(body("evt_1", 1))
		require.NotEqual(t, first.Payload, again.Payload)
		require.NotEqual(t, first.Header, again.Header)
		require.Equal(t, http.StatusOK, deliver(t.Context(), h, again.Payload, again.Header))
		books.RequireOnce(t, "evt_1")
		require.Equal(t, 900, books.Books()["evt_1"][0].Amount)
	})
}

func TestDeliveriesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var books idemtest.Bank
		books.Script("evt_1", idemtest.Slow(time.Second))
		h := newHook(t, &books, nil)
		statuses := idemtest.Storm(t, 20, func(ctx context.Context, i int) (int, error) {
			s := signed(body("evt_1", i))
			return deliver(ctx, h, s.Payload, s.Header), nil
		})
		idemtest.RequireSame(t, statuses)
		require.Equal(t, http.StatusOK, statuses[0].Value)
		books.RequireOnce(t, "evt_1")
	})
}

func TestADeliveryDoesNotWaitForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var books idemtest.Bank
		books.Script("evt_1", idemtest.Slow(time.Minute))
		h := newHook(t, &books, nil)
		first := make(chan int, 1)
		go func() { first <- send(h, "evt_1") }()
		synctest.Wait()
		began := time.Now()
		require.Equal(t, http.StatusServiceUnavailable, send(h, "evt_1"))
		require.Equal(t, 5*time.Second, time.Since(began))
		require.Equal(t, http.StatusOK, <-first)
		books.RequireOnce(t, "evt_1")
	})
}

// TestARestart: Stripe delivers again what got no answer, for days.
func TestARestart(t *testing.T) {
	var books idemtest.Bank
	store := storetest.Mem()
	for range 2 { // processes, of which the first dies before its answer has arrived
		require.Equal(t, http.StatusOK, send(newHook(t, &books, store), "evt_1"))
	}
	books.RequireOnce(t, "evt_1")
}

func TestWhatStripeIsTold(t *testing.T) {
	for name, test := range map[string]struct {
		step     idemtest.Step
		statuses [2]int
	}{
		"certainly not booked: tried again":           {idemtest.Refuse, [2]int{503, 200}},
		"the answer is lost: found out":               {idemtest.LoseAnswer, [2]int{503, 200}},
		"the request is lost: found out, then booked": {idemtest.LoseRequest, [2]int{503, 200}},
		"booked": {idemtest.OK, [2]int{200, 200}},
	} {
		t.Run(name, func(t *testing.T) {
			var books idemtest.Bank
			books.Script("evt_1", test.step)
			h := newHook(t, &books, nil)
			require.Equal(t, test.statuses, [2]int{send(h, "evt_1"), send(h, "evt_1")})
			books.RequireOnce(t, "evt_1")
		})
	}
}

// TestTheSignatureIsCheckedFirst: nobody else can use up an event's ID.
func TestTheSignatureIsCheckedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var books idemtest.Bank
		h := newHook(t, &books, nil)
		s := signed(body("evt_1", 1))
		require.Equal(t, http.StatusBadRequest, deliver(t.Context(), h, body("evt_1", 9), s.Header), "another body")
		time.Sleep(6 * time.Minute)
		require.Equal(t, http.StatusBadRequest, deliver(t.Context(), h, s.Payload, s.Header), "too late")
		require.Empty(t, books.Books())
		require.Equal(t, http.StatusOK, send(h, "evt_1"))
		books.RequireOnce(t, "evt_1")
	})
}

func TestOtherEvents(t *testing.T) {
	var books idemtest.Bank
	h := newHook(t, &books, nil)
	require.Equal(t, http.StatusOK, send(h, "evt_1"))
	require.Equal(t, http.StatusOK, send(h, "evt_2"), "the same again is another event")
	books.RequireOnce(t, "evt_1", "evt_2")

	s := signed([]byte(strings.Replace(string(body("evt_3", 1)), "succeeded", "created", 1)))
	require.Equal(t, http.StatusOK, deliver(t.Context(), h, s.Payload, s.Header), "nothing to do")
	require.NotContains(t, books.Books(), "evt_3")
}

func newHook(t *testing.T, books *idemtest.Bank, store idemflight.Store) *Hook {
	h, err := New(Options{Secret: secret, Books: books, Store: store, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return h
}

// body is an event as Stripe sends it, while so many endpoints have yet to acknowledge it.
func body(id string, pending int) []byte {
	return fmt.Appendf(nil, `{"id": %q, "object": "event", "api_version": %q, "created": 1760000000,
		"pending_webhooks": %d, "type": "payment_intent.succeeded",
		"data": {"object": {"id": "pi_1", "object": "payment_intent", "amount": 900}}}`, id, stripe.APIVersion, pending)
}

// signed signs an event now, as Stripe signs each delivery.
func signed(event []byte) *webhook.SignedPayload {
	return webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: event, Secret: secret})
}

func send(h http.Handler, id string) (status int) {
	s := signed(body(id, 1))
	return deliver(context.Background(), h, s.Payload, s.Header)
}

func deliver(ctx context.Context, h http.Handler, event []byte, signature string) (status int) {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/stripe", strings.NewReader(string(event)))
	r.Header.Set("Stripe-Signature", signature)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}
