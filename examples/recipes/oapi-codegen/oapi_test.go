package oapipay_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight/examples/recipes/internal/paytest"
	oapipay "github.com/idemflight/idemflight/examples/recipes/oapi-codegen"
	"github.com/idemflight/idemflight/idemhttp"
	"github.com/idemflight/idemflight/idemtest"
)

// forgetful forgets to answer.
type forgetful struct{ runs int }

func (f *forgetful) Pay(context.Context, oapipay.PayRequestObject) (oapipay.PayResponseObject, error) {
	f.runs++
	return nil, nil
}

// TestNoAnswerIsAnEmptyOne: what to look out for.
func TestNoAnswerIsAnEmptyOne(t *testing.T) {
	keys, err := idemhttp.New(idemhttp.Options{Scope: idemhttp.SharedScope})
	require.NoError(t, err)
	var f forgetful
	pay := paytest.HTTP(keys.Handler(oapipay.Handler(oapipay.NewStrictHandler(&f, nil))))
	rent := paytest.Payment{Key: "rent", Amount: 900}
	require.Equal(t, paytest.Answer{Status: http.StatusOK}, pay(t.Context(), rent))
	require.Equal(t, paytest.Answer{Status: http.StatusOK}, pay(t.Context(), rent))
	require.Equal(t, 1, f.runs)
}

func TestPayments(t *testing.T) {
	paytest.Run(t, func(t *testing.T, bank *idemtest.Bank) paytest.Pay {
		server, err := oapipay.New(bank)
		require.NoError(t, err)
		return paytest.HTTP(server)
	})
}
