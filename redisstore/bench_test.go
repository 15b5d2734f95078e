package redisstore_test

import (
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/redisstore"
)

// BenchmarkStore measures the engine at IDEMFLIGHT_REDIS as it is: what the store's verbs cost that make a first
// execution (Claim, Settle), one with BeginEffect (Begin between them), and a replay in a process that has not
// got the outcome in memory (a Claim that is refused). How the engine persists is in the name.
func BenchmarkStore(b *testing.B) {
	c := redis.NewClient(&redis.Options{Addr: address()})
	defer c.Close()
	name := uniqueName()
	s, err := redisstore.Open(b.Context(), c, name, redisstore.Options{})
	if err != nil {
		b.Skipf("skipped: no Redis at %s: %v", address(), err)
	}
	value := []byte(`{"id":"ch_1NqXXXXXXXXXXXXXXXXXXXXX","amount":100}`)
	var n atomic.Int64
	ask := func(b *testing.B) idemflight.Claim {
		r := request("order/" + strconv.FormatInt(n.Add(1), 10))
		x, err := s.Claim(b.Context(), r)
		require.NoError(b, err)
		require.True(b, x.Granted)
		return r.Claim
	}
	settle := func(b *testing.B, c idemflight.Claim) {
		_, err := s.Settle(b.Context(), c, idemflight.Settlement{Disposition: idemflight.Retain, Value: value, TTL: enough})
		require.NoError(b, err)
	}
	b.Run(s.Persistence().String()+"/first", func(b *testing.B) {
		for b.Loop() {
			settle(b, ask(b))
		}
	})
	b.Run(s.Persistence().String()+"/first-by-16", func(b *testing.B) {
		b.SetParallelism(max(1, 16/runtime.GOMAXPROCS(0)))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				settle(b, ask(b))
			}
		})
	})
	b.Run(s.Persistence().String()+"/first+begin", func(b *testing.B) {
		for b.Loop() {
			c := ask(b)
			require.NoError(b, s.Begin(b.Context(), c, lease))
			settle(b, c)
		}
	})
	b.Run(s.Persistence().String()+"/replay", func(b *testing.B) {
		kept := ask(b)
		_, err := s.Settle(b.Context(), kept, idemflight.Settlement{Disposition: idemflight.Retain, Value: value, TTL: hold})
		require.NoError(b, err)
		for b.Loop() {
			x, err := s.Claim(b.Context(), request(kept.Key))
			require.NoError(b, err)
			require.Equal(b, idemflight.Retained, x.State)
		}
		require.NoError(b, c.Del(b.Context(), name+":{"+kept.Key+"}").Err())
	})
}
