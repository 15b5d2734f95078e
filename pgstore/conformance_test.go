package pgstore

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/record"
	"github.com/idemflight/idemflight/storetest"
)

func TestStore(t *testing.T) {
	f := newStore(t, fast)
	storetest.Run(t, func(t *testing.T) idemflight.Store { return open(t, f.pool, Options{}) })
}

// TestStore_LikeTheStateMachine does the same random verbs in the database and on a [record.Record], and
// compares all answers. Time goes by whole minutes, by moving the row's times; the durations below, and two of
// them together, are none, so that what the test itself takes is not seen.
func TestStore_LikeTheStateMachine(t *testing.T) {
	f := newStore(t, fast)
	const lease, hold, ttl, unseen = 30*time.Minute + 20*time.Second, 50*time.Minute + 20*time.Second, 40*time.Minute + 20*time.Second, 5 * time.Second
	sequences, steps := 100, 40
	if testing.Short() {
		sequences = 30
	}
	seen := map[string]int{} // what happened, so that the test shows what it tests
	for n := range sequences {
		seed := rand.Uint64()
		rnd := rand.New(rand.NewPCG(seed, 0))
		key := fmt.Sprint("key ", n)
		var r record.Record
		at := record.At{Now: (24 * time.Hour).Nanoseconds()}
		var ids []idemflight.ClaimID
		var log []string
		anID := func() idemflight.ClaimID { // the latest most often
			if len(ids) == 0 {
				return newID()
			}
			return ids[max(0, len(ids)-1-rnd.IntN(6)/4*rnd.IntN(4))]
		}
		same := func(want, got idemflight.Standing, what string) {
			t.Helper()
			for now, x := range map[time.Time]*idemflight.Standing{time.Unix(0, at.Now): &want, time.Now(): &got} {
				x.ExpiresIn = x.ExpiresIn.Round(2 * unseen)
				for _, at := range []*time.Time{&x.StartedAt, &x.CompletedAt} {
					if !at.IsZero() {
						*at = time.Unix(0, 0).Add(at.Sub(now).Round(2 * unseen)).UTC()
					}
				}
			}
			if want.Granted { // not promised: what is left of the hold that is to be reconciled
				want.ExpiresIn = got.ExpiresIn
			}
			require.Equal(t, want, got, "seed %d, %s after %v", seed, what, log)
		}
		started := time.Now()
		for range steps {
			c := idemflight.Claim{Key: key, ID: anID()}
			verb := []string{"claim", "claim", "claim", "begin", "settle", "settle", "renew", "give back", "forget", "time", "time", "time"}[rnd.IntN(12)]
			log = append(log, verb)
			switch verb {
			case "claim":
				q := idemflight.ClaimRequest{
					Claim: c, Lease: lease, HoldTTL: hold, EffectsAnnounced: rnd.IntN(2) == 0, Reconcile: rnd.IntN(2) == 0,
					Fingerprint: idemflight.Fingerprint{byte(rnd.IntN(5) / 4)},
				}
				if rnd.IntN(5) > 0 {
					q.ID = newID()
					ids = append(ids, q.ID)
				}
				if x := record.Read(r, at); x.State != idemflight.Absent && rnd.IntN(4) > 0 {
					q.Replaces, q.From = x.ID, x.State
				}
				if rnd.IntN(4) == 0 {
					q.HoldTTL = -1
				}
				next, want := record.Claim(r, q, at)
				got, err := f.Claim(f.ctx(), q)
				require.NoError(t, err)
				same(want, got, fmt.Sprintf("%s %+v", verb, q))
				r = next
				log[len(log)-1] += fmt.Sprintf(" %+v", got)
				seen[fmt.Sprint(verb, " ", got.Granted, " ", got.State)]++
			case "begin":
				next, want := record.Begin(r, c, lease, at)
				require.Equal(t, want, f.Begin(f.ctx(), c, lease), "seed %d, %s after %v", seed, verb, log)
				r = next
				seen[fmt.Sprint(verb, " ", want == nil)]++
			case "settle":
				s := idemflight.Settlement{Disposition: idemflight.Disposition(rnd.IntN(3)), Value: random(3), TTL: ttl}
				switch rnd.IntN(5) {
				case 0:
					s.TTL = 0
				case 1:
					s.Value, s.Err = nil, []byte{}
				}
				next, want, wantErr := record.Settle(r, c, s, at)
				got, err := f.Settle(f.ctx(), c, s)
				require.Equal(t, wantErr, err, "seed %d, %s after %v", seed, verb, log)
				same(want, got, verb)
				r = next
				seen[fmt.Sprint(verb, " ", s.Disposition, " ", got.State, " ", err == nil)]++
			case "renew":
				next, owned := record.Renew(r, c, lease, at)
				lost, err := f.Renew(f.ctx(), []idemflight.Claim{c}, lease)
				require.NoError(t, err)
				require.Equal(t, owned, len(lost) == 0, "seed %d, %s after %v", seed, verb, log)
				r = next
			case "give back":
				r = record.GiveBack(r, c, at)
				require.NoError(t, f.GiveBack(f.ctx(), c))
			case "forget":
				next, want := record.Forget(r, c, at)
				got, err := f.Forget(f.ctx(), c)
				require.NoError(t, err)
				require.Equal(t, want, got, "seed %d, %s after %v", seed, verb, log)
				r = next
				seen[fmt.Sprint(verb, " ", got)]++
			case "time":
				d := time.Duration(1+rnd.IntN(25)) * time.Minute
				at.Now += int64(d)
				f.exec(`update idemflight set leased = leased - $2 * interval '1us', started = started - $2 * interval '1us',
					completed = completed - $2 * interval '1us', kept = kept - $2 * interval '1us',
					expires = case when expires = 'epoch' then expires else expires - $2 * interval '1us' end where key = $1`, []byte(key), d.Microseconds())
			}
			same(record.Read(r, at), f.read(key), "Read")
			if time.Since(started) > unseen/2 { // of a server that is so slow nothing can be said
				break
			}
		}
	}
	t.Log(seen)
	for _, must := range []string{"claim true absent", "claim true held", "claim false retained", "begin true", "forget true"} {
		require.NotZero(t, seen[must], "how often the random verbs met: %s", must)
	}
}
