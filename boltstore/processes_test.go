package boltstore_test

import (
	"os"
	"testing"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/boltstore"
	"github.com/idemflight/idemflight/storetest"
)

// workerFile names, in the environment, the file that this program, as a worker of TestProcesses, opens.
const workerFile = "BOLTSTORE_WORKER"

func worker(path string) {
	storetest.Worker(func() (idemflight.Store, error) {
		d, err := boltstore.Open(path, boltstore.Options{})
		if err != nil {
			return nil, err
		}
		return d.Store("payments")
	})
}

// TestProcesses kills processes that use a file, one after the other.
func TestProcesses(t *testing.T) {
	t.Setenv(workerFile, newPath(t))
	storetest.RunProcesses(t, os.Args[0])
}
