package redisstore_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/redisstore"
	"github.com/idemflight/idemflight/storetest"
)

// TestStore runs the tests that every Store must pass.
func TestStore(t *testing.T) {
	c := shared(t)
	name := nameFor(t, c)
	storetest.Run(t, func(t *testing.T) idemflight.Store {
		s, err := redisstore.Open(t.Context(), c, name, redisstore.Options{})
		require.NoError(t, err)
		return s
	})
}
