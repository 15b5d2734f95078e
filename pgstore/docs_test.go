package pgstore

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// TestDocs_WhatIsHeldBySQL runs the query of docs/stores.md: it finds what Unsettled tells as held.
func TestDocs_WhatIsHeldBySQL(t *testing.T) {
	docs, err := os.ReadFile("../docs/stores.md")
	require.NoError(t, err)
	_, query, found := strings.Cut(string(docs), "```sql\n")
	require.True(t, found, "a block of SQL in docs/stores.md")
	query, _, _ = strings.Cut(query, "```")
	require.Contains(t, query, "ns = 'payments'")
	query = strings.ReplaceAll(query, "ns = 'payments'", "ns = 'test'")

	f := newStore(t)
	claims := func(key string, announced bool, hold time.Duration) idemflight.Claim {
		r := request(key)
		r.EffectsAnnounced, r.HoldTTL = announced, hold
		return f.claims(r)
	}
	begins := func(c idemflight.Claim) idemflight.Claim {
		require.NoError(t, f.Begin(f.ctx(), c, time.Minute))
		return c
	}
	held := idemflight.Settlement{Disposition: idemflight.Hold, Err: []byte("=1,some.name\nno answer:\nat all"), TTL: time.Hour}
	endless := held
	endless.TTL = -1

	f.settles(claims("held", true, time.Hour), held)
	f.settles(claims("held without end", true, time.Hour), endless)
	f.leaseOver(begins(claims("dead, begun", true, time.Hour)))
	f.leaseOver(begins(claims("dead, begun, without end", true, -1)))
	f.leaseOver(claims("dead, not announced", false, time.Hour))
	f.settles(claims("\xff\x00", true, time.Hour), held)

	f.leaseOver(claims("dead, announced", true, time.Hour))
	f.leaseOver(begins(claims("dead, its hold over", true, 0)))
	claims("in flight", false, time.Hour)
	begins(claims("in flight, begun", true, time.Hour))
	f.settles(claims("retained", true, time.Hour), retain("value"))
	f.settles(claims("released", true, time.Hour), idemflight.Settlement{})
	forgotten := claims("forgotten", true, time.Hour)
	f.settles(forgotten, held)
	was, err := f.Forget(f.ctx(), forgotten)
	require.NoError(t, err)
	require.True(t, was)
	reconciled := claims("being reconciled", true, time.Hour)
	f.settles(reconciled, held)
	again := idemflight.ClaimRequest{Claim: idemflight.Claim{Key: "being reconciled", ID: newID()}, Lease: time.Minute,
		HoldTTL: time.Hour, Reconcile: true, Replaces: reconciled.ID, From: idemflight.Held}
	got, err := f.Claim(f.ctx(), again)
	require.NoError(t, err)
	require.True(t, got.Granted)

	rows, err := f.pool.Query(f.ctx(), query)
	require.NoError(t, err)
	why, until := map[string]string{}, map[string]bool{}
	var key, reason string
	var started, since time.Time
	var end *time.Time
	_, err = pgx.ForEachRow(rows, []any{&key, &started, &since, &end, &reason}, func() error {
		why[key], until[key] = reason, end != nil
		require.WithinDuration(t, time.Now(), since, time.Minute)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, map[string]string{
		"held": "no answer:\nat all", "held without end": "no answer:\nat all", `\377\000`: "no answer:\nat all",
		"dead, begun": "its process died", "dead, begun, without end": "its process died", "dead, not announced": "its process died",
	}, why)
	require.Equal(t, map[string]bool{"held": true, "held without end": false, `\377\000`: true,
		"dead, begun": true, "dead, begun, without end": false, "dead, not announced": true}, until)

	told := 0
	require.NoError(t, f.Unsettled(f.ctx(), func(_ string, s idemflight.Standing) error {
		if s.State == idemflight.Held {
			told++
		}
		return nil
	}))
	require.Equal(t, len(why), told, "what Unsettled tells as held")
}

// TestDocs_Rights: the rights that docs/stores.md names are enough, those of SettleTx as well.
func TestDocs_Rights(t *testing.T) {
	f := newStore(t)
	as := func(role string, rights ...string) *pgxpool.Pool {
		role = f.schema + "_" + role
		f.exec("create role " + role)
		t.Cleanup(func() { f.exec("drop owned by " + role); f.exec("drop role " + role) })
		for _, right := range append(rights, "usage on schema "+f.schema) {
			f.exec("grant " + right + " to " + role)
		}
		return newPool(t, f.schema, func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["role"] = role })
	}
	// A connection that listens has the role, too.
	stores := fixture{t: t, schema: f.schema, Store: open(t, as("store", "select, insert, update, delete on idemflight, idemflight_watched",
		"select on idemflight_schema"), Options{})}
	settling := as("settling", "select, update on idemflight", "select on idemflight_watched")

	c := stores.claimed()
	answer := stores.watch(f.ctx(), c)
	waitUntil(t, "the claim is marked", func() bool { return f.marked(c) })
	require.NoError(t, stores.Begin(f.ctx(), c, time.Minute))
	fixture{Store: stores.Store, t: t, pool: settling}.settlesInTx(c)
	require.NoError(t, <-answer)
	_, err := stores.Sweep(f.ctx(), 10)
	require.NoError(t, err)
	require.Equal(t, "value", string(stores.read(c.Key).Value))
}
