package pgstore

import (
	"context"
	"os"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/storetest"
)

// workerSchema names, in the environment, the schema that this program, as a worker of TestProcesses, uses.
const workerSchema = "PGSTORE_WORKER"

func worker(schema string) {
	storetest.Worker(func() (idemflight.Store, error) {
		config, err := pgxpool.ParseConfig(dsn())
		if err != nil {
			return nil, err
		}
		config.ConnConfig.RuntimeParams["search_path"] = schema
		config.MaxConns = 8
		pool, err := pgxpool.NewWithConfig(context.Background(), config)
		if err != nil {
			return nil, err
		}
		return Open(context.Background(), pool, "test", Options{})
	})
}

// TestProcesses kills processes that share a database.
func TestProcesses(t *testing.T) {
	schema := newSchema(t)
	require.NoError(t, Migrate(within(t, enough), newPool(t, schema)))
	t.Setenv(workerSchema, schema)
	storetest.RunProcesses(t, os.Args[0])
}
