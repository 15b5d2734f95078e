package redisstore_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/redisstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	lease    = 30 * time.Second      // long enough to last for a test
	short    = 30 * time.Millisecond // a lease that a test waits for
	hold     = time.Hour
	enough   = 20 * time.Second // for what is expected to take no time at all
	withoutN = time.Duration(-1)
)

// address is that of the Redis which the tests ask: IDEMFLIGHT_REDIS, or the usual one.
func address() string {
	if at := os.Getenv("IDEMFLIGHT_REDIS"); at != "" {
		return at
	}
	return "127.0.0.1:6379"
}

// missing skips the test, or fails it where servers are required.
func missing(t *testing.T, what string, err error) {
	t.Helper()
	if os.Getenv("IDEMFLIGHT_SERVERS") == "required" {
		t.Fatalf("IDEMFLIGHT_SERVERS=required, and there is no %s: %v", what, err)
	}
	t.Skipf("skipped: no %s: %v", what, err)
}

// shared is a client of the Redis that is there.
func shared(t *testing.T) *redis.Client {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address(), time.Second)
	if err != nil {
		missing(t, "Redis at "+address(), err)
	}
	require.NoError(t, conn.Close())
	return client(t, address())
}

func client(t *testing.T, addr string) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// server starts a Redis of the test's own, with these directives, and returns its address.
func server(t *testing.T, directives ...string) string {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		missing(t, "redis-server to start", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	require.NoError(t, l.Close())
	args := append([]string{"--bind", "127.0.0.1", "--port", port, "--dir", t.TempDir(), "--save", ""}, directives...)
	cmd := exec.Command(binary, args...)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	await(t, "redis-server answers", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return addr
}

// open opens a store of the test's own, whose keys are gone after it.
func open(t *testing.T, c redis.UniversalClient) *redisstore.Store {
	t.Helper()
	name := uniqueName()
	s, err := redisstore.Open(t.Context(), c, name, redisstore.Options{})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx := context.Background()
		keys, err := c.Keys(ctx, name+":*").Result() // of a cluster: of all its engines
		require.NoError(t, err)
		for _, key := range keys {
			require.NoError(t, c.Del(ctx, key).Err())
		}
	})
	return s
}

func uniqueName() string { return "idem_r_" + rand.Text() }

// await waits until ready says so.
func await(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for deadline := time.Now().Add(enough); !ready(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v until %s", enough, what)
		}
	}
}

var ids atomic.Uint32

// newID returns an ID that was never used before.
func newID() (id idemflight.ClaimID) {
	n := ids.Add(1)
	id = idemflight.ClaimID{15: 1, 0: byte(n), 1: byte(n >> 8), 2: byte(n >> 16)}
	return id
}

// request asks for a claim of key, announced, with an ID of its own.
func request(key string) idemflight.ClaimRequest {
	return idemflight.ClaimRequest{Claim: idemflight.Claim{Key: key, ID: newID()}, Lease: lease, HoldTTL: hold, EffectsAnnounced: true}
}

// claim claims key, and fails the test if that is not granted.
func claim(t *testing.T, s *redisstore.Store, r idemflight.ClaimRequest) idemflight.Claim {
	t.Helper()
	x, err := s.Claim(t.Context(), r)
	require.NoError(t, err)
	require.True(t, x.Granted, "the claim is granted; got %+v", x)
	return r.Claim
}

func readOf(t *testing.T, s *redisstore.Store, key string) idemflight.Standing {
	t.Helper()
	x, err := s.Read(t.Context(), key)
	require.NoError(t, err)
	return x
}

func settled(t *testing.T, s *redisstore.Store, c idemflight.Claim, end idemflight.Settlement) idemflight.Standing {
	t.Helper()
	x, err := s.Settle(t.Context(), c, end)
	require.NoError(t, err)
	return x
}
