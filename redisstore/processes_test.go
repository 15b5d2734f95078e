package redisstore_test

import (
	"context"
	"os"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/redisstore"
	"github.com/idemflight/idemflight/storetest"
)

// workerName has, in the environment, the name of the store that this program, as a worker of TestProcesses,
// opens.
const workerName = "REDISSTORE_WORKER"

func worker(name string) {
	storetest.Worker(func() (idemflight.Store, error) {
		c := redis.NewClient(&redis.Options{Addr: address()})
		return redisstore.Open(context.Background(), c, name, redisstore.Options{})
	})
}

// TestProcesses kills processes that share an engine.
func TestProcesses(t *testing.T) {
	t.Setenv(workerName, nameFor(t, shared(t)))
	storetest.RunProcesses(t, os.Args[0])
}
