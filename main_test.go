package idemflight_test

import (
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemflight/idemflight"
)

// TestMain fails the run if a goroutine outlives the tests. With IDEMFLIGHT_SHARDS=N in the
// environment, every cache of the suite has at most N shards; TestShardSeam shows that it has.
func TestMain(m *testing.M) {
	if n, err := strconv.Atoi(os.Getenv("IDEMFLIGHT_SHARDS")); err == nil {
		idemflight.LimitShards(n) // for the whole run
	}
	goleak.VerifyTestMain(m)
}

// TestShardSeam asserts that IDEMFLIGHT_SHARDS is in force, and that without it a big cache is
// spread over more than one shard, so that the two runs of the suite really differ.
func TestShardSeam(t *testing.T) {
	shards := idemflight.MustNew(idemflight.Options[string, int]{}).Shards()
	if n, err := strconv.Atoi(os.Getenv("IDEMFLIGHT_SHARDS")); err == nil {
		require.Equal(t, n, shards, "shards of a cache with default options under IDEMFLIGHT_SHARDS=%d", n)
		return
	}
	require.Greater(t, shards, 1, "shards of a cache with default options")
}
