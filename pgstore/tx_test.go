package pgstore

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// settleIn settles c in tx, as SettleTx does once the core has told it what and how.
func (f fixture) settleIn(tx pgx.Tx, c idemflight.Claim, s idemflight.Settlement) error {
	return f.settleTx(c, s, func(args ...any) (int64, error) {
		tag, err := tx.Exec(f.ctx(), f.sql.settle, args...)
		return tag.RowsAffected(), err
	})
}

// begin begins a transaction that is rolled back at the latest when the test ends.
func (f fixture) begin() pgx.Tx {
	f.t.Helper()
	tx, err := f.pool.Begin(f.ctx())
	require.NoError(f.t, err)
	f.t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

// waitsForLock waits until n statements on f's table wait for a lock.
func (f fixture) waitsForLock(n int) {
	f.t.Helper()
	waitUntil(f.t, "a statement waits for the locked row", func() bool {
		var waiting int
		require.NoError(f.t, f.pool.QueryRow(f.ctx(), `select count(*) from pg_stat_activity a where wait_event_type = 'Lock'
			and exists (select from pg_locks l where l.pid = a.pid and relation = 'idemflight'::regclass)`).Scan(&waiting))
		return waiting == n
	})
}

func TestSettleTx_OutsideOfAnExecution(t *testing.T) {
	f := newStore(t)
	require.ErrorIs(t, f.SettleTx(f.ctx(), f.begin(), "value", nil), idemflight.ErrNotExecuting)
	db := stdlib.OpenDBFromPool(f.pool)
	defer db.Close()
	tx, err := db.BeginTx(f.ctx(), nil)
	require.NoError(t, err)
	defer tx.Rollback() //nolint:errcheck
	require.ErrorIs(t, f.SettleSQLTx(f.ctx(), tx, "value", nil), idemflight.ErrNotExecuting)
}

func TestSettleTx_CommitsWithTheEffect(t *testing.T) {
	f := newStore(t)
	f.exec("create table effects (id bytea primary key)")
	for commits, want := range map[bool]idemflight.State{true: idemflight.Retained, false: idemflight.InFlight} {
		c := f.claimed()
		tx := f.begin()
		_, err := tx.Exec(f.ctx(), "insert into effects values ($1)", []byte(c.Key))
		require.NoError(t, err)
		require.NoError(t, f.settleIn(tx, c, retain("value")))
		require.Equal(t, idemflight.InFlight, f.read(c.Key).State, "before the transaction ends")
		if commits {
			require.NoError(t, tx.Commit(f.ctx()))
		} else {
			require.NoError(t, tx.Rollback(f.ctx()))
		}
		require.Equal(t, want, f.read(c.Key).State, "commits: %v", commits)

		// What the core does next, with what fn returned.
		got := f.settles(c, idemflight.Settlement{Disposition: idemflight.Hold, Err: []byte("no answer to commit"), TTL: time.Hour})
		if commits {
			require.Equal(t, idemflight.Retained, got.State, "the outcome that counts")
			require.Equal(t, "value", string(got.Value))
			require.Nil(t, got.Err)
			require.InDelta(t, time.Hour, got.ExpiresIn, float64(time.Minute))
		} else {
			require.Zero(t, got)
			require.Equal(t, idemflight.Held, f.read(c.Key).State)
		}
	}
}

func TestSettleSQLTx_CommitsWithTheEffect(t *testing.T) {
	f := newStore(t)
	db := stdlib.OpenDBFromPool(f.pool)
	defer db.Close()
	c := f.claimed()
	for _, s := range []idemflight.Settlement{
		{Disposition: idemflight.Retain, Value: []byte{}, TTL: time.Hour},
		{Disposition: idemflight.Retain, Value: []byte("late"), Err: []byte{}, TTL: time.Hour},
	} {
		tx, err := db.BeginTx(f.ctx(), nil)
		require.NoError(t, err)
		err = f.settleTx(c, s, func(args ...any) (int64, error) {
			res, err := tx.ExecContext(f.ctx(), f.sql.settle, args...)
			if err != nil {
				return 0, err
			}
			return res.RowsAffected()
		})
		if s.Err == nil {
			require.NoError(t, err)
			require.NoError(t, tx.Commit())
		} else {
			require.ErrorIs(t, err, idemflight.ErrClaimLost)
			require.NoError(t, tx.Rollback())
		}
	}
	seen := f.read(c.Key)
	require.Equal(t, []byte{}, seen.Value)
	require.Nil(t, seen.Err)
}

// TestSettle_InAnExecution settles where users do, in fn, in transactions of both kinds. A transaction that is over is
// an error of the server's, or of the driver's, and no lost claim.
func TestSettle_InAnExecution(t *testing.T) {
	f := newStore(t)
	db := stdlib.OpenDBFromPool(f.pool)
	defer db.Close()
	cache, err := idemflight.New(idemflight.Options[string, string]{Store: f.Store})
	require.NoError(t, err)
	defer func() { require.NoError(t, cache.Close(f.ctx())) }()

	type transaction struct {
		settle        func(ctx context.Context, value string) error
		commit, leave func() error
	}
	for kind, begin := range map[string]func() transaction{
		"pgx": func() transaction {
			tx := f.begin()
			return transaction{
				func(ctx context.Context, value string) error { return f.SettleTx(ctx, tx, value, nil) },
				func() error { return tx.Commit(f.ctx()) }, func() error { return tx.Rollback(f.ctx()) },
			}
		},
		"database/sql": func() transaction {
			tx, err := db.BeginTx(f.ctx(), nil)
			require.NoError(t, err)
			return transaction{
				func(ctx context.Context, value string) error { return f.SettleSQLTx(ctx, tx, value, nil) },
				tx.Commit, tx.Rollback,
			}
		},
	} {
		v, err := cache.Do(f.ctx(), kind, func(ctx context.Context) (string, error) {
			over := begin()
			require.NoError(t, over.leave())
			err := over.settle(ctx, "late")
			require.Error(t, err, kind)
			require.NotErrorIs(t, err, idemflight.ErrClaimLost, kind)

			tx := begin()
			require.NoError(t, tx.settle(ctx, "paid"), kind)
			require.NoError(t, tx.commit(), kind)
			require.Equal(t, idemflight.Retained, f.read(kind).State, "%s: it is recorded with the commit", kind)

			again := begin()
			require.ErrorIs(t, again.settle(ctx, "paid twice"), idemflight.ErrClaimLost, "%s: what is settled is settled", kind)
			require.NoError(t, again.leave())
			return "paid", nil
		})
		require.NoError(t, err, kind)
		require.Equal(t, "paid", v, kind)
		require.Equal(t, "paid", string(f.read(kind).Value), kind)
	}
}

func TestSettleTx_Refuses(t *testing.T) {
	f := newStore(t)
	tx := f.begin()
	for text, s := range map[string]idemflight.Settlement{
		"TTL above 0":          {Disposition: idemflight.Retain},
		"and not a release":    {Disposition: idemflight.Release},
		"and not a hold":       {Disposition: idemflight.Hold, TTL: time.Hour},
		"above 0, not -1ns":    {Disposition: idemflight.Retain, TTL: -1},
		"a success or a final": {Disposition: idemflight.Release, TTL: time.Hour},
	} {
		c := f.claimed()
		require.ErrorContains(t, f.settleIn(tx, c, s), text)
	}
	require.ErrorIs(t, f.settleIn(tx, idemflight.Claim{Key: "nothing", ID: newID()}, retain("value")), idemflight.ErrClaimLost)
}

// TestSettleTx_AgainstATakeover: of a late owner that settles in a transaction and of who takes its claim
// over, the first to lock the row decides; the other waits for it.
func TestSettleTx_AgainstATakeover(t *testing.T) {
	f := newStore(t)
	for commits, granted := range map[bool]bool{true: false, false: true} {
		c := f.claimed()
		f.leaseOver(c)
		tx := f.begin()
		require.NoError(t, f.settleIn(tx, c, retain("value")))

		r := request(c.Key)
		r.Replaces, r.From = c.ID, idemflight.InFlight
		answer := make(chan idemflight.Standing)
		go func() {
			got, err := f.Claim(f.ctx(), r)
			if err != nil {
				t.Error(err)
			}
			answer <- got
		}()
		f.waitsForLock(1)
		if commits {
			require.NoError(t, tx.Commit(f.ctx()))
		} else {
			require.NoError(t, tx.Rollback(f.ctx()))
		}
		got := <-answer
		require.Equal(t, granted, got.Granted, "the takeover is granted exactly if the owner rolls back")
		if commits {
			require.Equal(t, "value", string(got.Value))
			continue
		}
		tx = f.begin()
		require.ErrorIs(t, f.settleIn(tx, c, retain("value")), idemflight.ErrClaimLost)
	}
}

// TestSettle_WaitsForTheTransaction: the answer to a commit was lost, and the server has not decided yet.
func TestSettle_WaitsForTheTransaction(t *testing.T) {
	f := newStore(t)
	c := f.claimed()
	tx := f.begin()
	require.NoError(t, f.settleIn(tx, c, retain("value")))

	ctx, cancel := context.WithCancel(f.ctx())
	refused := make(chan error)
	go func() {
		_, err := f.Settle(ctx, c, idemflight.Settlement{})
		refused <- err
	}()
	f.waitsForLock(1)
	cancel()
	require.ErrorIs(t, <-refused, context.Canceled, "who cannot wait any longer")
	f.waitsForLock(0)

	answer := make(chan idemflight.Standing)
	go func() { answer <- f.settles(c, idemflight.Settlement{}) }()
	f.waitsForLock(1)
	require.NoError(t, tx.Commit(f.ctx()))
	got := <-answer
	require.Equal(t, idemflight.Retained, got.State)
	require.Equal(t, "value", string(got.Value))
}

// TestRenew_DoesNotWait renews many claims while one of them is locked, which is alive, and not lost.
func TestRenew_DoesNotWait(t *testing.T) {
	f := newStore(t)
	locked, free, gone := f.claimed(), f.claimed(), f.claimed()
	tx := f.begin()
	require.NoError(t, f.settleIn(tx, locked, retain("value")))
	f.settles(gone, idemflight.Settlement{})
	absent := idemflight.Claim{Key: "absent", ID: newID()}

	lost, err := f.Renew(f.ctx(), []idemflight.Claim{locked, free, gone, absent}, time.Hour)
	require.NoError(t, err)
	require.ElementsMatch(t, []idemflight.ClaimID{gone.ID, absent.ID}, lost)
	require.Greater(t, f.read(free.Key).ExpiresIn, 59*time.Minute)
	require.Less(t, f.read(locked.Key).ExpiresIn, 2*time.Minute)

	require.NoError(t, tx.Commit(f.ctx()))
	lost, err = f.Renew(f.ctx(), []idemflight.Claim{locked}, time.Hour)
	require.NoError(t, err)
	require.Equal(t, []idemflight.ClaimID{locked.ID}, lost, "it is closed")
}

// TestSettleTx_Forgotten: a mark of Forget that came before, and a Forget that comes after.
func TestSettleTx_Forgotten(t *testing.T) {
	f := newStore(t)
	for _, before := range []bool{true, false} {
		c := f.claimed()
		forget := func() {
			was, err := f.Forget(f.ctx(), c)
			require.NoError(t, err)
			require.True(t, was)
		}
		if before {
			forget()
		}
		tx := f.begin()
		require.NoError(t, f.settleIn(tx, c, retain("value")))
		require.NoError(t, tx.Commit(f.ctx()))
		if !before {
			forget()
		}
		require.Zero(t, f.read(c.Key), "forgotten before: %v", before)
		got := f.settles(c, idemflight.Settlement{})
		require.Equal(t, "value", string(got.Value), "what the owner's callers are told")
		require.Equal(t, idemflight.Retained, got.State)
		require.True(t, got.Forgotten)
		require.Zero(t, got.ExpiresIn)

		late, err := f.Claim(f.ctx(), idemflight.ClaimRequest{Claim: c, Lease: time.Minute})
		require.NoError(t, err)
		require.False(t, late.Granted, "a late duplicate of its claim")
	}
}

// TestSettleTx_OtherSearchPath settles by a connection that would find another table, or none.
func TestSettleTx_OtherSearchPath(t *testing.T) {
	f := newStore(t)
	c := f.claimed()
	tx := f.begin()
	_, err := tx.Exec(f.ctx(), "set local search_path = pg_catalog")
	require.NoError(t, err)
	require.NoError(t, f.settleIn(tx, c, retain("value")))
	require.NoError(t, tx.Commit(f.ctx()))
	require.Equal(t, idemflight.Retained, f.read(c.Key).State)
}

// TestSettleTx_RepeatableRead: a heartbeat after the transaction's snapshot makes it fail, rolled back.
func TestSettleTx_RepeatableRead(t *testing.T) {
	f := newStore(t)
	c := f.claimed()
	tx, err := f.pool.BeginTx(f.ctx(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	require.NoError(t, err)
	defer tx.Rollback(f.ctx()) //nolint:errcheck
	_, err = tx.Exec(f.ctx(), "select from idemflight")
	require.NoError(t, err)
	_, err = f.Renew(f.ctx(), []idemflight.Claim{c}, time.Hour)
	require.NoError(t, err)
	err = f.settleIn(tx, c, retain("value"))
	var state interface{ SQLState() string }
	require.True(t, errors.As(err, &state), "%v", err)
	require.Equal(t, "40001", state.SQLState())
}
