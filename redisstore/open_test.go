package redisstore_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/redisstore"
)

// TestOpen_RefusesAnEngineThatEvicts: whatever its limit, which can be set at any time.
func TestOpen_RefusesAnEngineThatEvicts(t *testing.T) {
	c := client(t, server(t))
	for _, policy := range []string{"allkeys-lru", "allkeys-random", "volatile-ttl", "volatile-lfu"} {
		for _, limit := range []string{"0", "100mb"} {
			require.NoError(t, c.ConfigSet(t.Context(), "maxmemory-policy", policy).Err())
			require.NoError(t, c.ConfigSet(t.Context(), "maxmemory", limit).Err())
			for _, vouched := range []bool{false, true} {
				_, err := redisstore.Open(t.Context(), c, "name", redisstore.Options{NoEviction: vouched})
				require.ErrorContains(t, err, "maxmemory-policy is "+policy)
			}
		}
	}
	require.NoError(t, c.ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err())
	_, err := redisstore.Open(t.Context(), c, "name", redisstore.Options{})
	require.NoError(t, err, "of an engine with a limit that does not evict")
}

// TestOpen_EngineThatSaysLittle: INFO alone is enough, as managed engines have it; of one that forbids both, the
// user vouches.
func TestOpen_EngineThatSaysLittle(t *testing.T) {
	addr := server(t, "--appendonly", "yes")
	admin := client(t, addr)
	as := func(user string, rules ...any) *redis.Client {
		require.NoError(t, admin.Do(t.Context(), append([]any{"ACL", "SETUSER", user, "on", ">secret", "~*", "&*", "+@all"}, rules...)...).Err())
		c := redis.NewClient(&redis.Options{Addr: addr, Username: user, Password: "secret"})
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		return c
	}

	managed := as("managed", "-config")
	s, err := redisstore.Open(t.Context(), managed, "name", redisstore.Options{})
	require.NoError(t, err, "INFO says what its policy is")
	require.Equal(t, redisstore.PersistenceUnknown, s.Persistence(), "INFO does not say what appendfsync is")

	silent := as("silent", "-config", "-info")
	_, err = redisstore.Open(t.Context(), silent, "name", redisstore.Options{})
	require.ErrorContains(t, err, "set Options.NoEviction")
	require.ErrorContains(t, err, "NOPERM", "why it did not say")
	s, err = redisstore.Open(t.Context(), silent, "name", redisstore.Options{NoEviction: true})
	require.NoError(t, err)
	require.Equal(t, redisstore.PersistenceUnknown, s.Persistence())

	least := as("least", "-@all", "+evalsha", "+eval", "+time", "+hmget", "+hset", "+hdel", "+persist", "+pexpireat", "+scan", "+info",
		"resetkeys", "~name:{*")
	s, err = redisstore.Open(t.Context(), least, "name", redisstore.Options{})
	require.NoError(t, err, "of a user who may do no more than the package doc says")
	for _, ttl := range []time.Duration{hold, forever} {
		r := request("key")
		r.HoldTTL = ttl
		claim(t, s, r)
		require.NoError(t, s.Begin(t.Context(), r.Claim, lease))
		require.NoError(t, s.Unsettled(t.Context(), func(string, idemflight.Standing) error { return nil }))
		settled(t, s, r.Claim, idemflight.Settlement{})
	}

	useless := as("useless", "-config", "-info", "-evalsha", "-eval")
	_, err = redisstore.Open(t.Context(), useless, "name", redisstore.Options{NoEviction: true})
	require.ErrorContains(t, err, "NOPERM", "Open shows that scripts run")

	_, err = redisstore.Open(t.Context(), as("blind", "-hmget"), "name", redisstore.Options{})
	require.ErrorContains(t, err, "can't run this command", "what the user may not do is no damage of a record")
	require.NotContains(t, err.Error(), "DAMAGED")
}

func TestOpen_SaysHowTheEnginePersists(t *testing.T) {
	c := client(t, server(t))
	for want, config := range map[redisstore.Persistence][2]string{
		redisstore.NeverPersisted:      {"no", "always"},
		redisstore.PersistedLater:      {"yes", "no"},
		redisstore.PersistedEachSecond: {"yes", "everysec"},
		redisstore.PersistedAlways:     {"yes", "always"},
	} {
		require.NoError(t, c.ConfigSet(t.Context(), "appendonly", config[0]).Err())
		require.NoError(t, c.ConfigSet(t.Context(), "appendfsync", config[1]).Err())
		s, err := redisstore.Open(t.Context(), c, "name", redisstore.Options{})
		require.NoError(t, err)
		require.Equal(t, want, s.Persistence(), "appendonly %s, appendfsync %s", config[0], config[1])
	}
	require.Equal(t, "appendfsync always", redisstore.PersistedAlways.String())
	require.Equal(t, "unknown", redisstore.Persistence(0).String())
}

func TestOpen_Refuses(t *testing.T) {
	c := shared(t)
	for _, name := range []string{"", "{", "a}b", "{a}"} {
		_, err := redisstore.Open(t.Context(), c, name, redisstore.Options{})
		require.ErrorContains(t, err, "name", "of the name %q", name)
	}
	_, err := redisstore.Open(t.Context(), nil, "name", redisstore.Options{})
	require.ErrorContains(t, err, "no client")

	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": address()}})
	defer ring.Close()
	_, err = redisstore.Open(t.Context(), ring, "name", redisstore.Options{})
	require.ErrorContains(t, err, "Ring")

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = redisstore.Open(ended, c, "name", redisstore.Options{})
	require.ErrorIs(t, err, context.Canceled)

	gone := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, DialerRetries: 1})
	defer gone.Close()
	for _, o := range []redisstore.Options{{}, {NoEviction: true}} {
		_, err = redisstore.Open(t.Context(), gone, "name", o)
		require.ErrorContains(t, err, "refused")
		require.NotContains(t, err.Error(), "evict", "it has not answered, and not declined")
	}
}

// TestFullEngine: one that has reached maxmemory refuses claims, but not what it has once admitted.
func TestFullEngine(t *testing.T) {
	c := client(t, server(t, "--maxmemory", "100mb"))
	s := open(t, c)
	var open []idemflight.Claim
	for _, key := range []string{"retained", "held", "released", "dropped"} {
		open = append(open, claim(t, s, request(key)))
	}
	require.NoError(t, c.ConfigSet(t.Context(), "maxmemory", "1").Err())

	_, err := s.Claim(t.Context(), request("refused"))
	require.ErrorContains(t, err, "OOM")
	require.Equal(t, idemflight.Standing{}, readOf(t, s, "refused"))
	require.Zero(t, c.Exists(t.Context(), "refused").Val(), "nothing is left of a claim that was refused")

	for _, c := range open {
		require.NoError(t, s.Begin(t.Context(), c, lease))
	}
	lost, err := s.Renew(t.Context(), open, lease)
	require.NoError(t, err)
	require.Empty(t, lost)
	value := make([]byte, 1<<20)
	settled(t, s, open[0], idemflight.Settlement{Disposition: idemflight.Retain, Value: value, TTL: hold})
	settled(t, s, open[1], idemflight.Settlement{Disposition: idemflight.Hold, Err: []byte("why"), TTL: forever})
	settled(t, s, open[2], idemflight.Settlement{})
	require.Len(t, readOf(t, s, "retained").Value, len(value))
	require.Equal(t, idemflight.Held, readOf(t, s, "held").State)
}
