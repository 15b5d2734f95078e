package pgxtable

import (
	"context"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemtest"
	"github.com/idemflight/idemflight/pgstore"
)

const enough = 20 * time.Second // for what is expected to take no time at all

var (
	rent  = idemflight.Key{Scope: "ann", ID: "rent"}
	bread = idemflight.Key{Scope: "ann", ID: "bread"}
)

func TestDuplicatesInTwoProcesses(t *testing.T) {
	d := newDatabase(t)
	processes := []*Shop{d.shop(t), d.shop(t)}
	outcomes := idemtest.Storm(t, 20, func(ctx context.Context, i int) (Purchase, error) {
		return processes[i%2].Buy(ctx, rent, 900)
	})
	require.NoError(t, outcomes[0].Err)
	idemtest.RequireSame(t, outcomes)
	require.Equal(t, []int64{900}, d.rows(t))
}

func TestARestart(t *testing.T) {
	d := newDatabase(t)
	first, err := d.shop(t).Buy(t.Context(), rent, 900)
	require.NoError(t, err)
	again, err := d.shop(t).Buy(t.Context(), rent, 900)
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.Equal(t, []int64{900}, d.rows(t))
}

// TestRowAndRecordAreOfOneTransaction: xmin is the transaction that wrote a row as it is.
func TestRowAndRecordAreOfOneTransaction(t *testing.T) {
	d := newDatabase(t)
	_, err := d.shop(t).Buy(t.Context(), rent, 900)
	require.NoError(t, err)
	var one bool
	require.NoError(t, d.pool(t).QueryRow(within(t), `select purchase.xmin = idemflight.xmin from purchase, idemflight`).Scan(&one))
	require.True(t, one)
}

// TestATransactionThatFails leaves neither a row nor a record, whether the insert fails or the commit after SettleTx.
func TestATransactionThatFails(t *testing.T) {
	for name, deferral := range map[string]string{
		"at the insert": "",
		"at the commit": " deferrable initially deferred",
	} {
		t.Run(name, func(t *testing.T) {
			d := newDatabase(t)
			d.exec(t, `alter table purchase add constraint once unique (customer)`+deferral)
			shop := d.shop(t)
			_, err := shop.Buy(t.Context(), bread, 2)
			require.NoError(t, err)

			_, err = shop.Buy(t.Context(), rent, 900)
			require.ErrorContains(t, err, "23505")
			require.NotErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			require.Equal(t, []int64{2}, d.rows(t))

			d.exec(t, `alter table purchase drop constraint once`)
			_, err = d.shop(t).Buy(t.Context(), rent, 900) // another process looks into the store
			require.NoError(t, err)
			require.Equal(t, []int64{2, 900}, d.rows(t))
		})
	}
}

// TestARefusal is recorded although its transaction was rolled back, and another process replays it.
func TestARefusal(t *testing.T) {
	d := newDatabase(t)
	_, err := d.shop(t).Buy(t.Context(), rent, 0)
	require.ErrorIs(t, err, ErrNoAmount)
	_, err = d.shop(t).Buy(t.Context(), rent, 0)
	require.ErrorIs(t, err, ErrNoAmount)
	_, err = d.shop(t).Buy(t.Context(), rent, 900)
	require.ErrorIs(t, err, idemflight.ErrKeyReused, "there is a record")
	require.Empty(t, d.rows(t))
}

func TestAnotherPurchaseUnderTheSameKey(t *testing.T) {
	d := newDatabase(t)
	_, err := d.shop(t).Buy(t.Context(), rent, 900)
	require.NoError(t, err)
	_, err = d.shop(t).Buy(t.Context(), rent, 1000)
	require.ErrorIs(t, err, idemflight.ErrKeyReused)
	require.Equal(t, []int64{900}, d.rows(t))
}

// database is a schema of its own for each test.
type database struct{ config *pgxpool.Config }

// newDatabase skips the test if no server answers, or fails it where servers are required.
func newDatabase(t *testing.T) *database {
	dsn := os.Getenv("IDEMFLIGHT_POSTGRES")
	if dsn == "" {
		dsn = "postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable"
	}
	config, err := pgxpool.ParseConfig(dsn)
	require.NoError(t, err, "IDEMFLIGHT_POSTGRES")
	d := &database{config}
	requireServer(t, net.JoinHostPort(config.ConnConfig.Host, strconv.Itoa(int(config.ConnConfig.Port))))

	schema := "idemflight_recipes_" + idemflight.NewID()[:8]
	d.exec(t, "create schema "+schema)
	t.Cleanup(func() { d.exec(t, "drop schema "+schema+" cascade") })
	config.ConnConfig.RuntimeParams["search_path"] = schema
	d.exec(t, Schema)
	require.NoError(t, pgstore.Migrate(within(t), d.pool(t)))
	return d
}

func requireServer(t *testing.T, addr string) {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		require.NoError(t, conn.Close())
		return
	}
	if os.Getenv("IDEMFLIGHT_SERVERS") == "required" {
		t.Fatalf("IDEMFLIGHT_SERVERS=required, and there is no PostgreSQL at %s: %v", addr, err)
	}
	t.Skipf("there is no PostgreSQL at %s: %v", addr, err)
}

// shop is a process.
func (d *database) shop(t *testing.T) *Shop {
	shop, err := New(within(t), d.pool(t), d.pool(t))
	require.NoError(t, err)
	return shop
}

func (d *database) pool(t *testing.T) *pgxpool.Pool {
	pool, err := pgxpool.NewWithConfig(within(t), d.config.Copy())
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func (d *database) exec(t *testing.T, sql string) {
	pool, err := pgxpool.NewWithConfig(within(t), d.config.Copy())
	require.NoError(t, err)
	defer pool.Close()
	_, err = pool.Exec(within(t), sql)
	require.NoError(t, err)
}

// rows returns the amounts of all purchases.
func (d *database) rows(t *testing.T) []int64 {
	rows, err := d.pool(t).Query(within(t), `select cents from purchase order by id`)
	require.NoError(t, err)
	cents, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	require.NoError(t, err)
	return cents
}

// within is also for what comes after the test.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), enough)
	t.Cleanup(cancel)
	return ctx
}
