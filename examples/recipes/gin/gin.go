// Package ginpay is idemflight with gin: an engine for what runs once, and gin.WrapH to reach it from the other.
//
// The middleware of idemhttp has to see the answer, and a gin handler writes to gin's own writer, which no net/http
// middleware among gin's can replace: adapters that call c.Next from within an http.Handler keep an empty 200. A second
// engine gets the middleware's writer as its own. Where Scope can authenticate by itself, keys.Handler(engine) around
// all of one engine is simpler.
//
//   - The outer engine authenticates, and tells the account by the request's context (c.Set does not reach Scope).
//   - There is no gin.Recovery. It takes a panic with a reset connection or a broken pipe for a client that has gone, be it
//     the bank's, and leaves an empty 200: in the inner engine that would be replayed, in the outer one it tells the first
//     client that all is well. net/http recovers too, and closes the connection: the client asks again, with its key.
//   - NoEffect and BeginEffect want c.Request.Context(). With c itself BeginEffect is refused, and NoEffect says
//     nothing, unless the engine has ContextWithFallback.
//   - The inner engine routes again, and its handlers find the path's parameters: register the whole path there.
//   - What is set for an engine, such as trusted proxies, is to be set for both.
package ginpay

import (
	"context"
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
	"github.com/idemflight/idemflight/idemtest"
)

// New returns a server of payments, charged at bank.
func New(bank *idemtest.Bank) (*gin.Engine, error) {
	keys, err := idemhttp.New(idemhttp.Options{Scope: account, Require: true})
	if err != nil {
		return nil, err
	}
	once := gin.New() // what runs once
	once.POST("/payments", server{bank}.pay)

	engine := gin.New()
	engine.Use(gin.BasicAuth(gin.Accounts{"ann": "secret", "bob": "secret"}), tellAccount)
	engine.POST("/payments", gin.WrapH(keys.Handler(once)))
	return engine, nil
}

// accountKey is where the request's context has the account.
type accountKey struct{}

// tellAccount tells those behind it whom BasicAuth has authenticated.
func tellAccount(c *gin.Context) {
	ctx := context.WithValue(c.Request.Context(), accountKey{}, c.GetString(gin.AuthUserKey))
	c.Request = c.Request.WithContext(ctx)
}

// account tells whose key it is.
func account(r *http.Request) (string, error) {
	name, _ := r.Context().Value(accountKey{}).(string)
	return name, nil // none is answered 401
}

type server struct {
	bank *idemtest.Bank // stands for your bank's client
}

func (s server) pay(c *gin.Context) {
	ctx := c.Request.Context() // and not c
	idemflight.NoEffect(ctx)   // nothing has begun yet: what fails before the bank runs again

	var order struct {
		Amount int `binding:"gt=0"`
	}
	if err := c.ShouldBindJSON(&order); err != nil {
		c.JSON(http.StatusUnprocessableEntity, gin.H{"error": "no such amount"}) // a real answer: replayed
		return
	}
	if err := idemflight.BeginEffect(ctx); err != nil { // from here on, a failure is "unknown"
		c.JSON(http.StatusServiceUnavailable, gin.H{"error": "too late"})
		return
	}
	key, _ := idemhttp.KeyFrom(ctx) // there is one: Require
	receipt, err := s.bank.Charge(ctx, key.String(), order.Amount)
	switch {
	case errors.Is(err, idemtest.ErrDeclined):
		c.JSON(http.StatusPaymentRequired, gin.H{"error": "declined"}) // a real answer, too
	case errors.Is(err, idemtest.ErrRefused):
		idemflight.NoEffect(ctx) // certainly not charged: the next attempt may try again
		c.JSON(http.StatusServiceUnavailable, gin.H{"error": "the bank cannot be reached"})
	case err != nil:
		c.JSON(http.StatusBadGateway, gin.H{"error": "the bank does not answer"}) // charged or not: held
	default:
		c.JSON(http.StatusCreated, receipt)
	}
}
