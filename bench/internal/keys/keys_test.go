package keys_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight/bench/internal/keys"
)

func TestKeysAreDistinctAndNumbered(t *testing.T) {
	list := keys.New(5000)
	seen := make(map[string]bool)
	for i, key := range list {
		require.Len(t, key, 36)
		require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$`, key)
		require.Equal(t, i, keys.Number(key))
		require.False(t, seen[key])
		seen[key] = true
	}
}

func TestShuffledIsAPermutation(t *testing.T) {
	order := keys.Shuffled(1000)
	require.False(t, slices.IsSorted(order))
	slices.Sort(order)
	for i, n := range order {
		require.EqualValues(t, i, n)
	}
}
