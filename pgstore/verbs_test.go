package pgstore

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// TestExecModes goes through the verbs in every way in which pgx can send statements, by a pool of one
// connection.
func TestExecModes(t *testing.T) {
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
		pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			f := newStore(t, func(c *pgxpool.Config) {
				c.MaxConns = 1
				c.ConnConfig.DefaultQueryExecMode = mode
			})
			r := request("\x00\xff'\\")
			r.Fingerprint = idemflight.FingerprintOf([]byte("payload"))
			r.HoldTTL = -1
			c := f.claims(r)
			require.NoError(t, f.Begin(f.ctx(), c, time.Minute))
			lost, err := f.Renew(f.ctx(), []idemflight.Claim{c, {Key: c.Key, ID: newID()}}, time.Hour)
			require.NoError(t, err)
			require.Len(t, lost, 1)
			seen := f.read(c.Key)
			require.Equal(t, idemflight.InFlight, seen.State)
			require.True(t, seen.Begun)
			require.InDelta(t, time.Hour, seen.ExpiresIn, float64(time.Minute))

			f.leaseOver(c)
			seen = f.read(c.Key)
			require.Equal(t, idemflight.Held, seen.State)
			require.Equal(t, time.Duration(-1), seen.ExpiresIn, "what is held without end")
			require.NoError(t, f.Watch(f.ctx(), c))

			again := request(c.Key)
			again.Fingerprint, again.Reconcile, again.Replaces, again.From = r.Fingerprint, true, c.ID, idemflight.Held
			got, err := f.Claim(f.ctx(), again)
			require.NoError(t, err)
			require.True(t, got.Granted)
			require.Equal(t, idemflight.Held, got.State)
			require.Equal(t, seen.CompletedAt, got.CompletedAt, "the end of the lease of who died")

			require.Zero(t, f.settles(again.Claim, idemflight.Settlement{Disposition: idemflight.Retain, Value: []byte{}, TTL: time.Hour}))
			seen = f.read(c.Key)
			require.Equal(t, idemflight.Retained, seen.State)
			require.NotNil(t, seen.Value, "an empty value")
			require.Nil(t, seen.Err)
			require.Equal(t, r.Fingerprint, seen.Fingerprint)

			_, err = f.Settle(f.ctx(), c, retain("late"))
			require.ErrorIs(t, err, idemflight.ErrClaimLost)
			gone, err := f.Forget(f.ctx(), again.Claim)
			require.NoError(t, err)
			require.True(t, gone)
			require.Zero(t, f.read(c.Key))

			next := request(c.Key)
			f.claims(next)
			require.NoError(t, f.GiveBack(f.ctx(), next.Claim))
			require.Zero(t, f.read(c.Key))
			next = request(c.Key)
			f.claims(next)
			require.NoError(t, f.Unsettled(f.ctx(), func(key string, s idemflight.Standing) error {
				require.Equal(t, c.Key, key)
				require.Equal(t, f.read(key).ID, s.ID, "f may ask the store, also if the pool has one connection")
				return nil
			}))
			f.leaseOver(next.Claim)
			over := request(c.Key)
			over.Replaces, over.From = next.ID, idemflight.InFlight
			f.claims(over)
			require.Zero(t, f.settles(over.Claim, idemflight.Settlement{}))
			n, err := f.Sweep(f.ctx(), 10)
			require.NoError(t, err)
			require.Zero(t, n, "a closed row is kept for a lease")
		})
	}
}
