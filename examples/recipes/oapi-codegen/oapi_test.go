package oapipay_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight/examples/recipes/internal/paytest"
	oapipay "github.com/idemflight/idemflight/examples/recipes/oapi-codegen"
	"github.com/idemflight/idemflight/idemtest"
)

func TestPayments(t *testing.T) {
	paytest.Run(t, func(t *testing.T, bank *idemtest.Bank) paytest.Pay {
		server, err := oapipay.New(bank)
		require.NoError(t, err)
		return paytest.HTTP(server)
	})
}
