package fiberpay_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gofiber/fiber/v3"
	"github.com/stretchr/testify/require"

	fiberpay "github.com/idemflight/idemflight/examples/recipes/fiber"
	"github.com/idemflight/idemflight/examples/recipes/internal/paytest"
	"github.com/idemflight/idemflight/idemtest"
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
		w.WriteHeader(res.StatusCode)
		_, _ = io.Copy(w, res.Body)
	})
}

func TestPayments(t *testing.T) {
	paytest.Run(t, func(t *testing.T, bank *idemtest.Bank) paytest.Pay {
		app, err := fiberpay.New(bank)
		require.NoError(t, err)
		return paytest.HTTP(overFasthttp(app))
	})
}
