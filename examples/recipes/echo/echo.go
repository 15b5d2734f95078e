// Package echopay is idemflight with echo (v4): the middleware of idemhttp before one route, in a few lines that
// take the place of echo.WrapMiddleware.
//
// WrapMiddleware cannot be right. An echo handler returns its error, which echo writes when all middleware has
// returned. By then that of idemhttp has seen an empty 200, and answers the first client and every retry with it. [Once]
// has the error written while the answer is still recorded.
//
//   - Authentication stands before Once, and tells the account by the request's context, for that is where Scope looks.
//   - Recover stands before it too: a panic is then judged as one. Log and metrics there see every request, and
//     middleware behind Once only those that run.
//   - NoEffect and BeginEffect want c.Request().Context() as it is behind Once, which changes the request.
//   - Once returns no error, the answer has been written: middleware outside finds the status in c.Response().
//   - Rate limits, body limits and compression stand outside.
//
// keys.Handler(e) around all of echo is right as well. Scope then has to authenticate by itself.
package echopay

import (
	"context"
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
	"github.com/idemflight/idemflight/idemtest"
)

// Once returns keys as middleware of echo.
func Once(keys *idemhttp.Middleware) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			outer, request := c.Response(), c.Request()
			defer func() { // after a panic, too: Recover is to answer outside
				c.SetResponse(outer)
				c.SetRequest(request)
			}()
			keys.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c.SetResponse(echo.NewResponse(w, c.Echo()))
				c.SetRequest(r)
				if err := next(c); err != nil {
					c.Error(err) // now, while the answer is being recorded
				}
			})).ServeHTTP(outer, request)
			return nil
		}
	}
}

// New returns a server of payments, charged at bank.
func New(bank *idemtest.Bank) (*echo.Echo, error) {
	keys, err := idemhttp.New(idemhttp.Options{Scope: account, Require: true})
	if err != nil {
		return nil, err
	}
	e := echo.New()
	e.Use(middleware.Recover())
	e.POST("/payments", server{bank}.pay, middleware.BasicAuth(authenticate), Once(keys))
	return e, nil
}

// accountKey is where the request's context has the account.
type accountKey struct{}

func authenticate(name, password string, c echo.Context) (bool, error) {
	if password != "secret" { // stands for your own check
		return false, nil
	}
	r := c.Request()
	c.SetRequest(r.WithContext(context.WithValue(r.Context(), accountKey{}, name)))
	return true, nil
}

// account tells whose key it is.
func account(r *http.Request) (string, error) {
	name, _ := r.Context().Value(accountKey{}).(string)
	return name, nil // none is answered 401
}

type server struct {
	bank *idemtest.Bank // stands for your bank's client
}

func (s server) pay(c echo.Context) error {
	ctx := c.Request().Context()
	idemflight.NoEffect(ctx) // nothing has begun yet: what fails before the bank runs again

	var order struct {
		Amount int `json:"amount"`
	}
	if err := c.Bind(&order); err != nil {
		return err
	}
	if order.Amount <= 0 {
		return echo.NewHTTPError(http.StatusUnprocessableEntity, "no such amount") // a real answer: replayed
	}
	if err := idemflight.BeginEffect(ctx); err != nil { // from here on, a failure is "unknown"
		return echo.NewHTTPError(http.StatusServiceUnavailable, "too late")
	}
	key, _ := idemhttp.KeyFrom(ctx) // there is one: Require
	receipt, err := s.bank.Charge(ctx, key.String(), order.Amount)
	switch {
	case errors.Is(err, idemtest.ErrDeclined):
		return echo.NewHTTPError(http.StatusPaymentRequired, "declined") // a real answer, too
	case errors.Is(err, idemtest.ErrRefused):
		idemflight.NoEffect(ctx) // certainly not charged: the next attempt may try again
		return echo.NewHTTPError(http.StatusServiceUnavailable, "the bank cannot be reached")
	case err != nil:
		return echo.NewHTTPError(http.StatusBadGateway, "the bank does not answer") // charged or not: held
	}
	return c.JSON(http.StatusCreated, receipt)
}
