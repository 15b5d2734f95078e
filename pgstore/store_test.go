package pgstore

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

func TestKeys(t *testing.T) {
	f := newStore(t)
	for _, key := range []string{"", "\x00", "\xff\xfe", strings.Repeat("k", maxKey), "' or 1=1 --", "\\x00"} {
		r := request(key)
		f.claims(r)
		require.Equal(t, r.ID, f.read(key).ID, "%q", key)
	}
	keys := map[string]bool{}
	require.NoError(t, f.Unsettled(f.ctx(), func(key string, _ idemflight.Standing) error { keys[key] = true; return nil }))
	require.Len(t, keys, 6)

	long := strings.Repeat("k", maxKey+1)
	_, err := f.Claim(f.ctx(), request(long))
	require.ErrorIs(t, err, idemflight.ErrInvalidKey)
	require.ErrorContains(t, err, "1024 bytes")
	_, err = f.Read(f.ctx(), long)
	require.ErrorIs(t, err, idemflight.ErrInvalidKey)

	// Random bytes, which do not compress, beside the longest name: the index has room for them.
	s, err := Open(f.ctx(), f.pool, strings.Repeat("n", maxName), Options{})
	require.NoError(t, err)
	got, err := s.Claim(f.ctx(), request(string(random(maxKey))))
	require.NoError(t, err)
	require.True(t, got.Granted)
}

func TestNames(t *testing.T) {
	f := newStore(t)
	other, err := Open(f.ctx(), f.pool, "other", Options{})
	require.NoError(t, err)
	c := f.claimed()
	seen, err := other.Read(f.ctx(), c.Key)
	require.NoError(t, err)
	require.Zero(t, seen, "a key of another name")
	require.ErrorIs(t, other.Begin(f.ctx(), c, time.Minute), idemflight.ErrClaimLost)
	require.NoError(t, other.Unsettled(f.ctx(), func(key string, _ idemflight.Standing) error { t.Error(key); return nil }))
}

// TestUnsettled_Pages goes through more keys than one page has, while f settles half of what it is told of.
func TestUnsettled_Pages(t *testing.T) {
	f := newStore(t, fast, func(c *pgxpool.Config) { c.MaxConns = 1 })
	const n = 2*page + 1
	require.Zero(t, page%2)
	for range n {
		f.claimed()
	}
	f.settles(f.claimed(), retain("value"))
	seen := map[string]bool{}
	require.NoError(t, f.Unsettled(f.ctx(), func(key string, s idemflight.Standing) error {
		require.False(t, seen[key], "told twice")
		seen[key] = true
		if len(seen)%2 == 1 { // not the last of a page
			f.settles(idemflight.Claim{Key: key, ID: s.ID}, idemflight.Settlement{})
		}
		return nil
	}))
	require.Len(t, seen, n)
}

// TestRelaxedClaims has a trigger note how each verb commits.
func TestRelaxedClaims(t *testing.T) {
	f := newStore(t)
	f.exec(`create table commits (n serial, how text);
		create function note() returns trigger language plpgsql as $$ begin
			insert into commits (how) values (current_setting('synchronous_commit')); return new;
		end $$;
		create trigger note after insert or update on idemflight for each row execute function note()`)
	f.Store = open(t, f.pool, Options{RelaxedClaims: true, Sweep: -1})

	c := f.claimed()                                                  // off
	require.NoError(t, f.Begin(f.ctx(), c, time.Minute))              // on
	f.settles(c, idemflight.Settlement{Disposition: idemflight.Hold}) // on; expired at once
	f.claims(request(c.Key))                                          // off, over the old row
	f.settles(f.claimed(), idemflight.Settlement{Disposition: idemflight.Hold, TTL: time.Hour})
	var held idemflight.Claim
	require.NoError(t, f.Unsettled(f.ctx(), func(key string, s idemflight.Standing) error {
		if s.State == idemflight.Held {
			held = idemflight.Claim{Key: key, ID: s.ID}
		}
		return nil
	}))
	r := request(held.Key)
	r.Reconcile, r.Replaces, r.From = true, held.ID, idemflight.Held
	f.claims(r) // on

	var commits []string
	require.NoError(t, f.pool.QueryRow(f.ctx(), "select array_agg(how order by n) from commits").Scan(&commits))
	require.Equal(t, []string{"off", "on", "on", "off", "off", "on", "on"}, commits)

	r = request("unannounced")
	r.EffectsAnnounced = false
	_, err := f.Claim(f.ctx(), r)
	require.ErrorContains(t, err, "EffectsAnnounced")
	require.NotErrorIs(t, err, idemflight.ErrClaimLost)
	require.Zero(t, f.read(r.Key))
}

func TestSweep(t *testing.T) {
	f := newStore(t)
	rows := func() (n int) {
		t.Helper()
		require.NoError(t, f.pool.QueryRow(f.ctx(), "select count(*) from idemflight").Scan(&n))
		return n
	}
	sweeps := func(limit, want int, why string) {
		t.Helper()
		n, err := f.Sweep(f.ctx(), limit)
		require.NoError(t, err)
		require.Equal(t, want, n, why)
	}
	later := func(hours int) { // as if so much time had gone by
		f.exec(`update idemflight set leased = leased - $1 * interval '1h', expires = case when expires = 'epoch' then expires else expires - $1 * interval '1h' end,
			kept = kept - $1 * interval '1h'`, hours)
	}

	endless := request("held without end")
	endless.HoldTTL = -1
	f.claims(endless)
	busy := f.claimed() // renewed for longer than its HoldTTL
	retained, held, released, dead := f.claimed(), f.claimed(), f.claimed(), f.claimed()
	f.settles(retained, retain("value"))
	f.settles(held, idemflight.Settlement{Disposition: idemflight.Hold, TTL: time.Hour})
	f.settles(released, idemflight.Settlement{})
	require.Equal(t, 6, rows())

	sweeps(10, 0, "everything is young")
	f.exec("update idemflight set kept = clock_timestamp() where key = $1", []byte(released.Key))
	sweeps(10, 1, "a closed row, a lease after it closed")

	later(2)
	_, err := f.Renew(f.ctx(), []idemflight.Claim{busy}, time.Minute)
	require.NoError(t, err)
	tx := f.begin()
	_, err = tx.Exec(f.ctx(), "select from idemflight where key = $1 for update", []byte(retained.Key))
	require.NoError(t, err)
	sweeps(1, 1, "no more than the limit")
	sweeps(10, 1, "what is locked is left alone")
	require.NoError(t, tx.Rollback(f.ctx()))
	sweeps(10, 1, "what was locked")
	require.Equal(t, 2, rows())
	require.Zero(t, f.read(dead.Key))
	require.Equal(t, idemflight.InFlight, f.read(busy.Key).State)
	require.Equal(t, idemflight.InFlight, f.read(endless.Key).State, "announced, and its lease is over")
}

// TestSweep_ByItself claims until the store sweeps.
func TestSweep_ByItself(t *testing.T) {
	for o, sweeps := range map[Options]bool{{}: true, {Sweep: time.Hour}: true, {Sweep: -1}: false} {
		f := newStore(t, fast)
		f.Store = open(t, f.pool, o)
		old := f.claimed()
		f.settles(old, idemflight.Settlement{})
		f.exec("update idemflight set kept = clock_timestamp()")
		gone := func() (gone bool) {
			require.NoError(t, f.pool.QueryRow(f.ctx(), "select not exists (select from idemflight where key = $1)", []byte(old.Key)).Scan(&gone))
			return gone
		}
		f.sweeping.claims.Store(sweepEvery - 2)
		f.claimed()
		require.False(t, f.sweeping.busy.Load())
		require.False(t, gone())
		f.claimed()
		if sweeps {
			waitUntil(t, "the row is swept", gone)
			waitUntil(t, "the sweep ends", func() bool { return !f.sweeping.busy.Load() })
		}
		require.Equal(t, sweeps, gone(), "%+v", o)
	}
}

// TestSweep_NotTooOften: of the sweeps that claims would start, only those that Options.Sweep has room for begin.
func TestSweep_NotTooOften(t *testing.T) {
	f := newStore(t, fast)
	f.Store = open(t, f.pool, Options{Sweep: time.Hour})
	claimsEnough := func() {
		f.sweeping.claims.Store(sweepEvery - 1)
		f.claimed()
		waitUntil(t, "a sweep that has begun ends", func() bool { return !f.sweeping.busy.Load() })
	}
	claimsEnough()
	began := f.sweeping.last.Load()
	require.InDelta(t, time.Now().UnixNano(), began, float64(enough), "the first sweep has begun")
	claimsEnough()
	require.Equal(t, began, f.sweeping.last.Load(), "an hour has not gone by")

	long := time.Now().Add(-2 * time.Hour).UnixNano()
	f.sweeping.last.Store(long)
	f.sweeping.busy.Store(true)
	f.sweeping.claims.Store(sweepEvery - 1)
	f.claimed()
	require.Equal(t, long, f.sweeping.last.Load(), "another is under way")
	f.sweeping.busy.Store(false)
	claimsEnough()
	require.Less(t, long, f.sweeping.last.Load(), "two hours have gone by")
}

// TestDamaged_IsAnErrorAndStays: an effect may have taken place under a row that cannot be read, so that nothing
// takes its key for free; and it hides no other.
func TestDamaged_IsAnErrorAndStays(t *testing.T) {
	f := newStore(t)
	for what, damage := range map[string]string{
		"its claim has 5 bytes":           "claim = 'short'",
		"its fingerprint has 5 bytes":     "fingerprint = 'short'",
		`its state is "?"`:                "state = '?'",
		`its state is "b", and it is op`:  "leased = null",
		`its state is "r", and it is op`:  "state = 'r'",
		`its state is "x", and it has no`: "state = 'x', leased = null, expires = null",
		"it has a time that is infinite":  "leased = 'infinity'",
	} {
		bad, good := request("a"), request("b") // in the order of Unsettled
		f.claims(bad)
		f.claims(good)
		require.NoError(t, f.Begin(f.ctx(), bad.Claim, time.Minute))
		f.exec("update idemflight set " + damage + " where key = 'a'")
		row := func() (text string) {
			require.NoError(t, f.pool.QueryRow(f.ctx(), "select idemflight::text from idemflight where key = 'a'").Scan(&text))
			return text
		}
		before := row()

		says := func(verb string, err error) {
			t.Helper()
			require.ErrorContains(t, err, `pgstore: the row of key "a" is damaged: `+what, verb)
			require.Equal(t, before, row(), "%s: %s leaves the row as it is", what, verb)
		}
		_, err := f.Read(f.ctx(), "a")
		says("Read", err)
		_, err = f.Claim(f.ctx(), request("a"))
		says("Claim", err)
		var told []string
		err = f.Unsettled(f.ctx(), func(key string, _ idemflight.Standing) error { told = append(told, key); return nil })
		if strings.Contains(damage, "leased = null") {
			require.NoError(t, err, "%s: what is not open is not looked at", what)
		} else {
			says("Unsettled", err)
		}
		require.Equal(t, []string{"b"}, told, "%s: it hides no other", what)
		f.exec("delete from idemflight")
	}
}
