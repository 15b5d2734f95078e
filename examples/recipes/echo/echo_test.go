package echopay_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	echopay "github.com/idemflight/idemflight/examples/recipes/echo"
	"github.com/idemflight/idemflight/examples/recipes/internal/paytest"
	"github.com/idemflight/idemflight/idemhttp"
	"github.com/idemflight/idemflight/idemtest"
)

func TestPayments(t *testing.T) {
	paytest.Run(t, func(t *testing.T, bank *idemtest.Bank) paytest.Pay {
		server, err := echopay.New(bank)
		require.NoError(t, err)
		server.Logger.SetOutput(t.Output()) // Recover logs a stack
		return paytest.HTTP(server)
	})
}

// TestMiddlewareOutsideSeesWhatIsSent: what Once changes in echo's context is put back.
func TestMiddlewareOutsideSeesWhatIsSent(t *testing.T) {
	keys, err := idemhttp.New(idemhttp.Options{Scope: idemhttp.SharedScope})
	require.NoError(t, err)
	e := echo.New()
	var statuses []int
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			request := c.Request()
			require.NoError(t, next(c))
			require.Same(t, request, c.Request())
			statuses = append(statuses, c.Response().Status)
			return nil
		}
	})
	runs := 0
	e.POST("/payments", func(echo.Context) error {
		runs++
		return echo.NewHTTPError(http.StatusPaymentRequired, "declined")
	}, echopay.Once(keys))

	for range 2 {
		r := httptest.NewRequest(http.MethodPost, "/payments", nil)
		r.Header.Set("Idempotency-Key", "rent")
		require.Equal(t, http.StatusPaymentRequired, paytest.Send(e, r).Status)
	}
	require.Equal(t, 1, runs)
	require.Equal(t, []int{http.StatusPaymentRequired, http.StatusPaymentRequired}, statuses)
}

// TestWrapMiddlewareLosesTheError: why Once is there. Not even the first client hears of it.
func TestWrapMiddlewareLosesTheError(t *testing.T) {
	keys, err := idemhttp.New(idemhttp.Options{Scope: idemhttp.SharedScope})
	require.NoError(t, err)
	e := echo.New()
	e.POST("/payments", func(echo.Context) error {
		return echo.NewHTTPError(http.StatusPaymentRequired, "declined")
	}, echo.WrapMiddleware(keys.Handler))

	var statuses []int
	for range 2 {
		r := httptest.NewRequest(http.MethodPost, "/payments", nil)
		r.Header.Set("Idempotency-Key", "rent")
		statuses = append(statuses, paytest.Send(e, r).Status)
	}
	require.Equal(t, []int{http.StatusOK, http.StatusOK}, statuses)
}
