package pgstore

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// TestStatementsAndRowsAgree writes rows of every kind and asks the statements and row.standing what they
// read as: a claim that one took for free and the other did not would never be answered.
func TestStatementsAndRowsAgree(t *testing.T) {
	f := newStore(t)
	past, future := "clock_timestamp() - interval '1h'", "clock_timestamp() + interval '1h'"
	open, closed := []string{past, future}, []string{"null"}
	n := 0
	write := func(state string, leased, expires []string) {
		for _, leased := range leased {
			for _, expires := range expires {
				for _, hold := range []string{"null", "'1m'", "'10h'"} {
					for _, announced := range []bool{true, false} {
						n++
						f.exec(fmt.Sprintf(`insert into idemflight (ns, key, claim, state, announced, forgotten, fingerprint, lease, hold, leased, started, expires)
							values ('test', $1, $2, '%s', %v, false, $3, '1m', %s, %s, clock_timestamp(), %s)`, state, announced, hold, leased, expires),
							fmt.Appendf(nil, "%04d", n), random(16), make([]byte, 16))
					}
				}
			}
		}
	}
	f.exec("set synchronous_commit = off")
	write("c", open, []string{"null"})
	write("b", open, []string{"null"})
	write("h", append(open, closed...), []string{"null", past, future})
	write("h", closed, []string{"'epoch'"})
	write("r", closed, []string{past, future, "'epoch'"})
	write("x", closed, []string{"'epoch'"})
	write("d", closed, []string{"'epoch'"})
	rows, err := f.pool.Query(f.ctx(), "select key, "+columns+", "+absent+", "+held+" from idemflight t order by key")
	require.NoError(t, err)
	defer rows.Close()
	seen := map[idemflight.State]int{}
	for rows.Next() {
		var x row
		var key []byte
		var absent, held bool
		require.NoError(t, x.scan(tail{rows, []any{&absent, &held}}, &key))
		reads := x.standing().State
		seen[reads]++
		require.Equal(t, reads == idemflight.Absent, absent, "row %s, %c: %+v", key, x.state, x)
		require.Equal(t, reads == idemflight.Held, held, "row %s, %c: %+v", key, x.state, x)
	}
	require.NoError(t, rows.Err())
	for _, state := range []idemflight.State{idemflight.Absent, idemflight.InFlight, idemflight.Retained, idemflight.Held} {
		require.NotZero(t, seen[state], "rows that read as %v", state)
	}
}

// tail scans more columns after those that its caller wants.
type tail struct {
	pgx.Row
	more []any
}

func (r tail) Scan(dest ...any) error { return r.Row.Scan(append(dest, r.more...)...) }

// TestReplayWritesAndLocksNothing claims keys that are retained or in flight, while somebody else has
// locked their rows, and looks for a transaction ID: one is given to whoever writes or locks.
func TestReplayWritesAndLocksNothing(t *testing.T) {
	f := newStore(t)
	kept, flying, closed := f.claimed(), f.claimed(), f.claimed()
	f.settles(kept, retain("value"))
	f.settles(closed, idemflight.Settlement{})

	locker, err := f.pool.Begin(f.ctx())
	require.NoError(t, err)
	defer locker.Rollback(f.ctx()) //nolint:errcheck
	_, err = locker.Exec(f.ctx(), "select from idemflight where key = any($1) for update", [][]byte{[]byte(kept.Key), []byte(flying.Key)})
	require.NoError(t, err)

	for c, wrote := range map[idemflight.Claim]bool{kept: false, flying: false, closed: true} {
		r := request(c.Key)
		require.NoError(t, pgx.BeginFunc(f.ctx(), f.pool, func(tx pgx.Tx) error {
			var id *string
			_, err := tx.Exec(f.ctx(), f.sql.claim, f.name, []byte(r.Key), r.ID[:], true, r.Fingerprint[:], micros(r.Lease), endless(r.HoldTTL))
			require.NoError(t, err)
			require.NoError(t, tx.QueryRow(f.ctx(), "select pg_current_xact_id_if_assigned()::text").Scan(&id))
			require.Equal(t, wrote, id != nil, "a transaction ID was assigned by the claim of what reads as %v", f.read(c.Key).State)
			return nil
		}))
	}
	got, err := f.Claim(f.ctx(), request(kept.Key))
	require.NoError(t, err)
	require.Equal(t, "value", string(got.Value), "the answer while the row is locked")
}

// TestBeginAndRenewTouchNoIndex counts the updates that stayed on their page, where pages have room enough.
func TestBeginAndRenewTouchNoIndex(t *testing.T) {
	f := newStore(t)
	f.exec("alter table idemflight set (fillfactor = 10)")
	const n = 100
	cs := make([]idemflight.Claim, n)
	for i := range cs {
		cs[i] = f.claimed()
	}
	for _, c := range cs {
		require.NoError(t, f.Begin(f.ctx(), c, 2*request("").Lease))
	}
	lost, err := f.Renew(f.ctx(), cs, 3*request("").Lease)
	require.NoError(t, err)
	require.Empty(t, lost)

	// A transaction sees its own counts, others only later.
	var updates, hot int
	waitUntil(t, "the server counts the updates", func() bool {
		require.NoError(t, f.pool.QueryRow(f.ctx(), `select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables
			where relid = 'idemflight'::regclass`).Scan(&updates, &hot))
		return updates == 2*n
	})
	require.Equal(t, updates, hot, "HOT updates: a new version of the row on its page, and no index written")
}
