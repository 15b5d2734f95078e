package pgstore

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

func TestMigrate_TwiceAndByMany(t *testing.T) {
	schema := newSchema(t)
	var wg sync.WaitGroup
	for range 4 { // as many processes: each with a pool of its own
		pool := newPool(t, schema)
		wg.Go(func() {
			for range 2 {
				if err := Migrate(within(t, enough), pool); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	f := fixture{Store: open(t, newPool(t, schema), Options{}), t: t}
	f.claimed()
	var versions []int
	require.NoError(t, f.Store.pool.QueryRow(f.ctx(), "select array_agg(version order by version) from idemflight_schema").Scan(&versions))
	require.Equal(t, []int{1, 2}, versions)
}

// TestMigrate_WritesOnlyWhatIsMissing: a role that may not create tables starts with those that an operator has made.
func TestMigrate_WritesOnlyWhatIsMissing(t *testing.T) {
	readOnly := func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on" }
	schema := newSchema(t)
	pool := newPool(t, schema, readOnly)
	require.ErrorContains(t, Migrate(within(t, enough), pool), "pgstore: migrating to version 2 of the schema: ")
	require.NoError(t, Migrate(within(t, enough), newPool(t, schema)))
	require.NoError(t, Migrate(within(t, enough), pool), "nothing is missing")
}

// TestMigrate_FromVersion1: what was written under the first version stays, and is served under the last.
func TestMigrate_FromVersion1(t *testing.T) {
	pool := newPool(t, newSchema(t))
	_, err := pool.Exec(within(t, enough), schemaUpTo(1))
	require.NoError(t, err)
	old := fixture{Store: &Store{pool: pool, name: "test", sql: statementsFor(tables{rows: "idemflight"})}, t: t}
	c := old.claimed() // a statement of the first version's

	_, err = Open(within(t, enough), pool, "test", Options{})
	require.ErrorContains(t, err, "version 1, and this package needs 2")
	require.NoError(t, Migrate(within(t, enough), pool))
	f := fixture{Store: open(t, pool, Options{}), t: t}
	require.Equal(t, c.ID, f.read(c.Key).ID)
	f.settles(c, retain("value"))
	require.Equal(t, "value", string(f.read(c.Key).Value))
}

// TestSchema_ByHand runs what Schema returns as psql would, twice, and before and after Migrate.
func TestSchema_ByHand(t *testing.T) {
	pool := newPool(t, newSchema(t))
	for range 2 {
		_, err := pool.Exec(within(t, enough), Schema())
		require.NoError(t, err)
		require.NoError(t, Migrate(within(t, enough), pool))
	}
	open(t, pool, Options{})
}

func TestSchema_Psql(t *testing.T) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Skip("skipped: there is no psql")
	}
	schema := newSchema(t)
	for range 2 {
		cmd := exec.CommandContext(within(t, enough), psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", dsn())
		cmd.Env = append(os.Environ(), "PGOPTIONS=-c search_path="+schema)
		cmd.Stdin = strings.NewReader(Schema())
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	open(t, newPool(t, schema), Options{})
}

func TestOpen_Refuses(t *testing.T) {
	pool := newPool(t, newSchema(t))
	_, err := Open(within(t, enough), pool, "test", Options{})
	require.ErrorContains(t, err, "pgstore.Migrate")
	require.ErrorContains(t, err, "pgstore.Schema")

	require.NoError(t, Migrate(within(t, enough), pool))
	exec := func(sql string) {
		_, err := pool.Exec(within(t, enough), sql)
		require.NoError(t, err)
	}
	exec("update idemflight_schema set version = version - 1")
	_, err = Open(within(t, enough), pool, "test", Options{})
	require.ErrorContains(t, err, "version 1, and this package needs 2")
	require.ErrorContains(t, err, "pgstore.Migrate")
	require.NoError(t, Migrate(within(t, enough), pool), "what is there already stays")
	open(t, pool, Options{})

	exec("insert into idemflight_schema values (1000)")
	require.NoError(t, Migrate(within(t, enough), pool), "a newer version only adds")
	open(t, pool, Options{})

	for _, name := range []string{"", "\x00", "\xff", strings.Repeat("n", maxName+1)} {
		_, err := Open(within(t, enough), pool, name, Options{})
		require.ErrorContains(t, err, "1 to 200 bytes")
	}
	dead, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = Open(dead, pool, "test", Options{})
	require.ErrorIs(t, err, context.Canceled)
}
