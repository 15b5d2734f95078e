package idemflight_test

import (
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemflight/idemflight"
)

// raceEnabled: the race detector makes everything some ten times slower, so stress tests do less.
var raceEnabled = false // race_test.go

// oneGoroutine skips a long test in which only one goroutine calls, where the race detector has nothing to see.
func oneGoroutine(t *testing.T) {
	t.Helper()
	if raceEnabled {
		t.Skip("only one goroutine calls: without the race detector this test says as much, in a tenth of the time")
	}
}

// TestMain fails the run if a goroutine outlives the tests. With IDEMFLIGHT_SHARDS=N in the
// environment, every cache of the suite has at most N shards, and with IDEMFLIGHT_HASHBITS=N its
// keys have at most 2^N hashes; TestShardSeam and TestHashSeam show that it is so.
func TestMain(m *testing.M) {
	if n, err := strconv.Atoi(os.Getenv("IDEMFLIGHT_SHARDS")); err == nil {
		idemflight.LimitShards(n) // for the whole run
	}
	if n, err := strconv.Atoi(os.Getenv("IDEMFLIGHT_HASHBITS")); err == nil {
		idemflight.LimitHash(n)
	}
	goleak.VerifyTestMain(m)
}

// TestShardSeam asserts that IDEMFLIGHT_SHARDS is in force, and that without it a big cache is
// spread over more than one shard, so that the two runs of the suite really differ.
func TestShardSeam(t *testing.T) {
	shards := idemflight.MustNew(options{}).Shards()
	if n, err := strconv.Atoi(os.Getenv("IDEMFLIGHT_SHARDS")); err == nil {
		require.Equal(t, n, shards,
			"shards of a cache with default options under IDEMFLIGHT_SHARDS=%d", n)
		return
	}
	require.Greater(t, shards, 1, "shards of a cache with default options")

	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for procs, want := range map[int]int{1: 64, 16: 64, 20: 80, 32: 128, 64: 128} {
		runtime.GOMAXPROCS(procs)
		require.Equal(t, want, idemflight.MustNew(options{}).Shards(),
			"shards on %d cores", procs)
	}
}

// TestHashSeam asserts that IDEMFLIGHT_HASHBITS is in force, and that without it keys which collide
// under one seed do not under another: an attacker cannot choose keys that meet in one shard.
func TestHashSeam(t *testing.T) {
	c, other := idemflight.MustNew(idemflight.Options[int, int]{}), idemflight.MustNew(idemflight.Options[int, int]{})
	keys := make([]int, 10_000)
	for i := range keys {
		keys[i] = i + 1
	}
	if n, err := strconv.Atoi(os.Getenv("IDEMFLIGHT_HASHBITS")); err == nil {
		require.Equal(t, 1<<n, c.Hashes(keys...),
			"hashes of 10,000 keys under IDEMFLIGHT_HASHBITS=%d", n)
		return
	}
	require.Equal(t, len(keys), c.Hashes(keys...))
	if c.Shards() == 1 {
		return
	}
	var together []int // in the first shard of c
	for _, key := range keys {
		if c.ShardOf(key) == 0 {
			together = append(together, key)
		}
	}
	require.Greater(t, len(together), 50)
	spread := map[int]bool{}
	for _, key := range together {
		spread[other.ShardOf(key)] = true
	}
	require.Greater(t, len(spread), other.Shards()/4,
		"shards of the other cache that the same keys are in")
}
