package redisstore_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/redisstore"
	"github.com/idemflight/idemflight/storetest"
)

const slots = 16384 // of a cluster

// cluster starts one of three masters, and returns a client of it.
func cluster(t *testing.T, directives ...string) *redis.ClusterClient {
	t.Helper()
	const masters = 3
	var addrs []string
	var nodes []*redis.Client
	for range masters {
		addr := server(t, append(directives, "--cluster-enabled", "yes", "--cluster-node-timeout", "60000")...)
		addrs = append(addrs, addr)
		nodes = append(nodes, client(t, addr))
	}
	for i, node := range nodes {
		require.NoError(t, node.ClusterAddSlotsRange(t.Context(), i*slots/masters, (i+1)*slots/masters-1).Err())
		require.NoError(t, node.Do(t.Context(), "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err())
		host, port, err := net.SplitHostPort(addrs[0])
		require.NoError(t, err)
		require.NoError(t, node.ClusterMeet(t.Context(), host, port).Err())
	}
	for _, node := range nodes {
		await(t, "the cluster is whole", func() bool {
			info := node.ClusterInfo(t.Context()).Val()
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprintf("cluster_size:%d", masters))
		})
	}
	c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs})
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// clusterOf returns a client of a cluster with these masters, of which each has a part of the slots.
func clusterOf(t *testing.T, addrs ...string) *redis.ClusterClient {
	c := redis.NewClusterClient(&redis.ClusterOptions{ClusterSlots: func(context.Context) (all []redis.ClusterSlot, err error) {
		for i, addr := range addrs {
			all = append(all, redis.ClusterSlot{
				Start: i * slots / len(addrs), End: (i+1)*slots/len(addrs) - 1, Nodes: []redis.ClusterNode{{Addr: addr}},
			})
		}
		return all, nil
	}})
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// TestUnsettled_TellsOfAKeyOnce: of one that two masters return, as while its slot moves.
func TestUnsettled_TellsOfAKeyOnce(t *testing.T) {
	addr := server(t)
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	s := open(t, clusterOf(t, addr, "localhost:"+port)) // one engine, twice
	claim(t, s, request("in flight"))
	settled(t, s, claim(t, s, request("held")), idemflight.Settlement{Disposition: idemflight.Hold, TTL: hold})
	claim(t, s, request("damaged"))
	engine := client(t, addr)
	damaged, err := engine.Keys(t.Context(), "*damaged*").Result()
	require.NoError(t, err)
	require.Len(t, damaged, 1)
	require.NoError(t, engine.HSet(t.Context(), damaged[0], "st", "none").Err())

	var told []string
	want := []string{"in flight", "held"}
	err = s.Unsettled(t.Context(), func(key string, _ idemflight.Standing) error {
		if told = append(told, key); len(told) == 2 { // the next page has these beside what is known
			for i := range 20 {
				want = append(want, fmt.Sprint("later ", i))
				claim(t, s, request(want[len(want)-1]))
			}
		}
		return nil
	})
	require.ElementsMatch(t, want, told)
	require.Equal(t, 1, strings.Count(fmt.Sprint(err), `key "damaged"`), "%v", err)
}

func TestOpen_OfAClusterWithoutMasters(t *testing.T) {
	_, err := redisstore.Open(t.Context(), clusterOf(t), "name", redisstore.Options{})
	require.ErrorContains(t, err, "the cluster has no masters")
}

// TestCluster: all that a store does, its keys spread over three masters.
func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: starts a cluster")
	}
	c := cluster(t)
	store := func(t *testing.T) *redisstore.Store {
		s, err := redisstore.Open(t.Context(), c, "name", redisstore.Options{})
		require.NoError(t, err)
		return s
	}

	t.Run("keys are any bytes, and where the engine says", func(t *testing.T) {
		keysAreAnyBytes(t, store(t))
		for _, key := range keys {
			engine := "name:{" + key + "}"
			slot, err := c.ClusterKeySlot(t.Context(), engine).Result()
			require.NoError(t, err)
			there, err := c.ClusterCountKeysInSlot(t.Context(), int(slot)).Result()
			require.NoError(t, err)
			require.NotZero(t, there, "keys in the slot of %q", engine)
		}
	})
	t.Run("renew and watch over all masters", func(t *testing.T) {
		s := store(t)
		var claims []idemflight.Claim
		for i := range 100 {
			claims = append(claims, claim(t, s, request(fmt.Sprintf("spread %d", i))))
		}
		var mu sync.Mutex // guards on
		on := map[string]bool{}
		require.NoError(t, c.ForEachMaster(t.Context(), func(ctx context.Context, engine *redis.Client) error {
			n, err := engine.DBSize(ctx).Result()
			if n > 0 {
				mu.Lock()
				defer mu.Unlock()
				on[engine.Options().Addr] = true
			}
			return err
		}))
		require.Len(t, on, 3, "masters that have keys")
		settled(t, s, claims[7], idemflight.Settlement{})
		lost, err := s.Renew(t.Context(), claims, lease)
		require.NoError(t, err)
		require.Equal(t, []idemflight.ClaimID{claims[7].ID}, lost)
		done := make(chan error)
		for _, c := range claims {
			go func() { done <- s.Watch(t.Context(), c) }()
		}
		require.NoError(t, <-done, "of the one that was settled")
		for _, c := range claims {
			require.NoError(t, s.GiveBack(t.Context(), c))
		}
		for range len(claims) - 1 {
			require.NoError(t, <-done)
		}
	})
	t.Run("says what the weakest master is", func(t *testing.T) {
		require.NoError(t, c.ForEachMaster(t.Context(), func(ctx context.Context, engine *redis.Client) error {
			return engine.ConfigSet(ctx, "appendonly", "yes").Err()
		}))
		require.Equal(t, redisstore.PersistedEachSecond, store(t).Persistence())
		one, err := c.MasterForKey(t.Context(), "key")
		require.NoError(t, err)
		require.NoError(t, one.ConfigSet(t.Context(), "appendonly", "no").Err())
		require.Equal(t, redisstore.NeverPersisted, store(t).Persistence())
		require.NoError(t, one.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err())
		_, err = redisstore.Open(t.Context(), c, "name", redisstore.Options{})
		require.ErrorContains(t, err, "evicts", "one master is enough")
		require.NoError(t, one.ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err())
	})
	storetest.Run(t, func(t *testing.T) idemflight.Store { return store(t) })
}

// TestSentinel: the client that asks Sentinel who the master is.
func TestSentinel(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: starts a Sentinel")
	}
	master := server(t)
	host, port, err := net.SplitHostPort(master)
	require.NoError(t, err)
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, "sentinel monitor main %s %s 1\n", host, port), 0o600))
	sentinel := start(t, []string{config}, "--sentinel")
	c := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "main", SentinelAddrs: []string{sentinel}})
	defer c.Close()

	s, err := redisstore.Open(t.Context(), c, "name", redisstore.Options{})
	require.NoError(t, err)
	mine := claim(t, s, request("key"))
	require.NoError(t, s.Begin(t.Context(), mine, lease))
	settled(t, s, mine, idemflight.Settlement{Disposition: idemflight.Retain, Value: []byte("v"), TTL: time.Hour})
	require.Equal(t, "v", string(readOf(t, s, "key").Value))
}
