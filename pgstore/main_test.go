package pgstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemflight/idemflight"
)

func TestMain(m *testing.M) {
	if schema := os.Getenv(workerSchema); schema != "" {
		worker(schema)
	}
	goleak.VerifyTestMain(m)
}

const enough = 20 * time.Second // for what is expected to take no time at all

// dsn is the server that the tests ask, each in a schema of its own.
func dsn() string {
	if s := os.Getenv("IDEMFLIGHT_POSTGRES"); s != "" {
		return s
	}
	return "postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable"
}

// within is a context with a deadline, that ends with the test.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// random returns n random bytes.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func newID() idemflight.ClaimID { return idemflight.ClaimID(random(16)) }

// newSchema returns the name of a new, empty schema, which is dropped when the test ends. The test is
// skipped if no server answers, and fails where servers are required.
func newSchema(t testing.TB) string {
	t.Helper()
	config, err := pgx.ParseConfig(dsn())
	require.NoError(t, err, "IDEMFLIGHT_POSTGRES")
	conn, err := pgx.ConnectConfig(within(t, enough), config)
	if err != nil {
		addr := net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
		if os.Getenv("IDEMFLIGHT_SERVERS") == "required" {
			t.Fatalf("IDEMFLIGHT_SERVERS=required, and there is no PostgreSQL at %s: %v", addr, err)
		}
		t.Skipf("skipped: no PostgreSQL at %s: %v", addr, err)
	}
	schema := "idem_pg_" + hex.EncodeToString(random(6))
	_, err = conn.Exec(within(t, enough), "create schema "+schema)
	require.NoError(t, err)
	require.NoError(t, conn.Close(within(t, enough)))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), enough)
		defer cancel()
		conn, err := pgx.ConnectConfig(ctx, config) // the server may have been restarted meanwhile
		require.NoError(t, err)
		_, err = conn.Exec(ctx, "drop schema "+schema+" cascade")
		require.NoError(t, err, "dropping the schema of the test")
		require.NoError(t, conn.Close(ctx))
	})
	return schema
}

// newPool returns a pool of connections to schema.
func newPool(t testing.TB, schema string, change ...func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(dsn())
	require.NoError(t, err)
	config.ConnConfig.RuntimeParams["search_path"] = schema
	config.ConnConfig.RuntimeParams["application_name"] = schema
	config.MaxConns = 8
	for _, c := range change {
		c(config)
	}
	pool, err := pgxpool.NewWithConfig(within(t, enough), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// fixture is a store in a schema of its own.
type fixture struct {
	*Store
	t      testing.TB
	pool   *pgxpool.Pool
	schema string
}

func newStore(t testing.TB, change ...func(*pgxpool.Config)) fixture {
	t.Helper()
	schema := newSchema(t)
	pool := newPool(t, schema, change...)
	require.NoError(t, Migrate(within(t, enough), pool))
	return fixture{Store: open(t, pool, Options{Sweep: -1}), t: t, pool: pool, schema: schema}
}

func open(t testing.TB, pool *pgxpool.Pool, o Options) *Store {
	t.Helper()
	s, err := Open(within(t, enough), pool, "test", o)
	require.NoError(t, err)
	return s
}

// ctx is the context of one verb.
func (f fixture) ctx() context.Context { return within(f.t, enough) }

func request(key string) idemflight.ClaimRequest {
	return idemflight.ClaimRequest{Claim: idemflight.Claim{Key: key, ID: newID()}, Lease: time.Minute, HoldTTL: time.Hour, EffectsAnnounced: true}
}

// claimed claims a new key.
func (f fixture) claimed() idemflight.Claim {
	f.t.Helper()
	return f.claims(request(string(random(8))))
}

func (f fixture) claims(r idemflight.ClaimRequest) idemflight.Claim {
	f.t.Helper()
	got, err := f.Claim(f.ctx(), r)
	require.NoError(f.t, err)
	require.True(f.t, got.Granted, "claim of a key that is free: %+v", got)
	return r.Claim
}

func (f fixture) read(key string) idemflight.Standing {
	f.t.Helper()
	got, err := f.Read(f.ctx(), key)
	require.NoError(f.t, err)
	return got
}

func (f fixture) settles(c idemflight.Claim, s idemflight.Settlement) idemflight.Standing {
	f.t.Helper()
	got, err := f.Settle(f.ctx(), c, s)
	require.NoError(f.t, err)
	return got
}

// exec runs sql as a user would.
func (f fixture) exec(sql string, args ...any) {
	f.t.Helper()
	_, err := f.pool.Exec(f.ctx(), sql, args...)
	require.NoError(f.t, err, "%s", sql)
}

// leaseOver lets the lease of c be over.
func (f fixture) leaseOver(c idemflight.Claim) {
	f.t.Helper()
	f.exec("update idemflight set leased = clock_timestamp() - interval '1s' where key = $1 and claim = $2", []byte(c.Key), c.ID[:])
}

// waitUntil waits until cond is true.
func waitUntil(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for start := time.Now(); !cond(); time.Sleep(time.Millisecond) {
		require.Less(t, time.Since(start), enough, "waited for: %s", what)
	}
}

func retain(value string) idemflight.Settlement {
	return idemflight.Settlement{Disposition: idemflight.Retain, Value: []byte(value), TTL: time.Hour}
}
