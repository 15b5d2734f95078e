package chipay_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	chipay "github.com/idemflight/idemflight/examples/recipes/chi"
	"github.com/idemflight/idemflight/examples/recipes/internal/paytest"
	"github.com/idemflight/idemflight/idemtest"
)

func TestPayments(t *testing.T) {
	paytest.Run(t, func(t *testing.T, bank *idemtest.Bank) paytest.Pay {
		server, err := chipay.New(bank)
		require.NoError(t, err)
		return paytest.HTTP(server)
	})
}
