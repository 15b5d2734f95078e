package redisstore_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/redisstore"
)

func TestMain(m *testing.M) {
	redis.SetLogger(quiet{}) // it tells of each connection that a test ends
	if name := os.Getenv(workerName); name != "" {
		worker(name)
	}
	goleak.VerifyTestMain(m)
}

type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

const (
	lease   = 30 * time.Second      // long enough to last for a test
	short   = 30 * time.Millisecond // a lease that a test waits for
	hold    = time.Hour
	enough  = 20 * time.Second // for what is expected to take no time at all
	forever = time.Duration(-1)
)

// address is that of the Redis which the tests ask: IDEMFLIGHT_REDIS, or the usual one.
func address() string {
	if at := os.Getenv("IDEMFLIGHT_REDIS"); at != "" {
		return at
	}
	return "127.0.0.1:6379"
}

// missing skips the test, or fails it where servers are required.
func missing(t testing.TB, what string, err error) {
	t.Helper()
	if os.Getenv("IDEMFLIGHT_SERVERS") == "required" {
		t.Fatalf("IDEMFLIGHT_SERVERS=required, and there is no %s: %v", what, err)
	}
	t.Skipf("skipped: no %s: %v", what, err)
}

// shared is a client of the Redis that is there.
func shared(t testing.TB) *redis.Client {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address(), time.Second)
	if err != nil {
		missing(t, "Redis at "+address(), err)
	}
	require.NoError(t, conn.Close())
	return client(t, address())
}

func client(t testing.TB, addr string) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// server starts a Redis of the test's own, with these directives, and returns its address.
func server(t *testing.T, directives ...string) string {
	t.Helper()
	return start(t, nil, append([]string{"--save", ""}, directives...)...)
}

// start runs redis-server on a port of its own until the test ends, with a configuration file or none.
func start(t *testing.T, file []string, directives ...string) string {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		missing(t, "redis-server to start", err)
	}
	for {
		addr, port := freePort(t)
		own := []string{"--bind", "127.0.0.1", "--port", port, "--dir", t.TempDir()}
		cmd := exec.Command(binary, slices.Concat(file, own, directives)...)
		require.NoError(t, cmd.Start())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = cmd.Wait() }()
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			<-ended
		})
		c := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, DialerRetries: 1})
		defer c.Close()
		mine := fmt.Sprintf("process_id:%d\r\n", cmd.Process.Pid)
		var lost bool // the port, to somebody else
		await(t, "redis-server answers", func() bool {
			select {
			case <-ended:
				lost = true
			default:
			}
			return lost || strings.Contains(c.Info(t.Context(), "server").Val(), mine)
		})
		if !lost {
			return addr
		}
	}
}

// kill ends a server that start started, as kill -9 does.
func kill(t *testing.T, c *redis.Client) {
	t.Helper()
	_, rest, _ := strings.Cut(c.Info(t.Context(), "server").Val(), "process_id:")
	id, _, _ := strings.Cut(rest, "\r")
	pid, err := strconv.Atoi(id)
	require.NoError(t, err)
	process, err := os.FindProcess(pid)
	require.NoError(t, err)
	require.NoError(t, process.Kill())
	await(t, "the server is gone", func() bool { return c.Ping(t.Context()).Err() != nil })
}

// freePort returns an address where nobody listens. Its port has room above it for that of a cluster's bus.
func freePort(t *testing.T) (addr, port string) {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		at := l.Addr().(*net.TCPAddr)
		require.NoError(t, l.Close())
		if at.Port+10_000 < 1<<16 {
			return at.String(), strconv.Itoa(at.Port)
		}
	}
}

// open opens a store of the test's own, whose keys are gone after it.
func open(t testing.TB, c redis.UniversalClient) *redisstore.Store {
	t.Helper()
	s, err := redisstore.Open(t.Context(), c, nameFor(t, c), redisstore.Options{})
	require.NoError(t, err)
	return s
}

// nameFor returns a name for a store of the test's own, whose keys are gone after it.
func nameFor(t testing.TB, c redis.UniversalClient) string {
	name := uniqueName()
	t.Cleanup(func() {
		ctx := context.Background()
		keys, err := c.Keys(ctx, name+":*").Result()
		require.NoError(t, err)
		for _, key := range keys {
			require.NoError(t, c.Del(ctx, key).Err())
		}
	})
	return name
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
func claim(t testing.TB, s *redisstore.Store, r idemflight.ClaimRequest) idemflight.Claim {
	t.Helper()
	x, err := s.Claim(t.Context(), r)
	require.NoError(t, err)
	require.True(t, x.Granted, "the claim is granted; got %+v", x)
	return r.Claim
}

func readOf(t testing.TB, s *redisstore.Store, key string) idemflight.Standing {
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
