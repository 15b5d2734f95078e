package fiberpay_test

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
	"github.com/stretchr/testify/require"

	fiberpay "github.com/idemflight/idemflight/examples/recipes/fiber"
	"github.com/idemflight/idemflight/examples/recipes/internal/paytest"
	"github.com/idemflight/idemflight/idemhttp"
	"github.com/idemflight/idemflight/idemtest"
	"github.com/idemflight/idemflight/storetest"
)

func TestMain(m *testing.M) {
	// With its first answer fasthttp starts a goroutine for the header Date, which would never leave a bubble.
	_, err := fiber.New().Test(httptest.NewRequest(http.MethodGet, "/", nil))
	if err != nil {
		panic(err)
	}
	m.Run()
}

// overFasthttp sends a request through the server of fasthttp, and so through its buffers.
func overFasthttp(app *fiber.App) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		res, err := app.Test(r, fiber.TestConfig{Timeout: 0})
		if err != nil {
			panic(err)
		}
		defer res.Body.Close()
		maps.Copy(w.Header(), res.Header)
		w.WriteHeader(res.StatusCode)
		_, _ = io.Copy(w, res.Body)
	})
}

func open(t *testing.T, bank *idemtest.Bank) *fiber.App {
	app, err := fiberpay.New(bank, nil)
	require.NoError(t, err)
	return app
}

func TestPayments(t *testing.T) {
	paytest.Run(t, func(t *testing.T, bank *idemtest.Bank) paytest.Pay {
		return paytest.HTTP(overFasthttp(open(t, bank)))
	})
}

// TestTheAdaptorKeepsAnEmptyAnswer: why the middleware of idemhttp cannot be used.
func TestTheAdaptorKeepsAnEmptyAnswer(t *testing.T) {
	keys, err := idemhttp.New(idemhttp.Options{Scope: idemhttp.SharedScope})
	require.NoError(t, err)
	app := fiber.New()
	app.Post("/payments", adaptor.HTTPMiddleware(keys.Handler), func(c fiber.Ctx) error {
		return c.Status(http.StatusCreated).SendString("paid")
	})
	pay := paytest.HTTP(overFasthttp(app))
	rent := paytest.Payment{Key: "rent", Amount: 900}
	require.Equal(t, paytest.Answer{Status: http.StatusCreated, Body: "paid"}, pay(t.Context(), rent))
	require.Equal(t, paytest.Answer{Status: http.StatusOK}, pay(t.Context(), rent))
}

// TestADeadlineEndsTheWaitAndNotTheWork: fn outlives its request, and the retry is told what came of it.
func TestADeadlineEndsTheWaitAndNotTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bank idemtest.Bank
		app := fiber.New()
		app.Use(func(c fiber.Ctx) error {
			ctx, cancel := context.WithTimeout(c.Context(), time.Second)
			defer cancel()
			c.SetContext(ctx)
			return c.Next()
		})
		app.Use(open(t, &bank))
		pay := paytest.HTTP(overFasthttp(app))
		rent := paytest.Payment{Account: paytest.Ann, Key: "rent", Amount: 900}

		bank.Script("ann/rent", idemtest.Slow(1500*time.Millisecond))
		require.Equal(t, http.StatusServiceUnavailable, pay(t.Context(), rent).Status, "after a second")
		require.Equal(t, http.StatusCreated, pay(t.Context(), rent).Status, "half a second later")
		bank.RequireOnce(t, "ann/rent")
	})
}

// TestRefusalsOverAStore: another process replays them, from the text that the store has.
func TestRefusalsOverAStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bank idemtest.Bank
		bank.Script("ann/rent", idemtest.Decline)
		store := storetest.Mem()
		for range 2 {
			app, err := fiberpay.New(&bank, store)
			require.NoError(t, err)
			pay := paytest.HTTP(overFasthttp(app))
			require.Equal(t, http.StatusPaymentRequired, pay(t.Context(), paytest.Payment{Account: paytest.Ann, Key: "rent", Amount: 900}).Status)
			require.Equal(t, http.StatusUnprocessableEntity, pay(t.Context(), paytest.Payment{Account: paytest.Ann, Key: "none"}).Status)
		}
	})
}

// TestRepliesAreMarked: as idemhttp marks them, and as it says when to send a request again.
func TestRepliesAreMarked(t *testing.T) {
	var bank idemtest.Bank
	bank.Script("ann/rent", idemtest.Refuse)
	server := overFasthttp(open(t, &bank))
	post := func() http.Header {
		r := httptest.NewRequest(http.MethodPost, "/payments", strings.NewReader(`{"amount": 900}`))
		r.SetBasicAuth("ann", "secret")
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", "rent")
		w := httptest.NewRecorder()
		server.ServeHTTP(w, r)
		return w.Header()
	}
	require.Equal(t, "1", post().Get("Retry-After"), "the bank could not be reached")
	require.Empty(t, post().Get("Idempotent-Replayed"))
	require.Equal(t, "true", post().Get("Idempotent-Replayed"))
}
