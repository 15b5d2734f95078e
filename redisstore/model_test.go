package redisstore_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/record"
	"github.com/idemflight/idemflight/redisstore"
)

// pair is a record twice: in the engine, and as the state machine in Go has it. The latter has a clock of its
// own, which moves by step with each verb; so durations are an hour, which never passes, or next to nothing.
type pair struct {
	*testing.T
	store *redisstore.Store
	key   string
	model record.Record
	now   int64
	log   strings.Builder
	times map[time.Time]time.Time // of the model, as the engine has them
}

const step = int64(time.Millisecond)

func (p *pair) at() record.At {
	p.now += step
	return record.At{Now: p.now}
}

// same asserts that both tell the same of the record.
func (p *pair) same(want, got idemflight.Standing) {
	p.Helper()
	for _, at := range [][2]time.Time{{want.StartedAt, got.StartedAt}, {want.CompletedAt, got.CompletedAt}} {
		if known, ok := p.times[at[0]]; ok {
			require.Equal(p, known, at[1], "the engine has another time for one of the same moment\n%s", &p.log)
		}
		p.times[at[0]] = at[1]
	}
	sign := func(d time.Duration) int { return cmp.Compare(d, 0) }
	require.Equal(p, sign(want.ExpiresIn), sign(got.ExpiresIn), "sign of ExpiresIn\n%s", &p.log)
	want.StartedAt, want.CompletedAt, want.ExpiresIn = got.StartedAt, got.CompletedAt, got.ExpiresIn
	require.Equal(p, want, got, "\n%s", &p.log)
}

// claim asserts that both answer a request in the same way.
func (p *pair) claim(r idemflight.ClaimRequest) idemflight.Standing {
	p.Helper()
	fmt.Fprintf(&p.log, "Claim %x replaces %x from %v, reconcile %v, announced %v, hold %v, %x\n",
		r.ID[:3], r.Replaces[:3], r.From, r.Reconcile, r.EffectsAnnounced, r.HoldTTL, r.Fingerprint[:1])
	got, err := p.store.Claim(p.Context(), r)
	require.NoError(p, err)
	var want idemflight.Standing
	p.model, want = record.Claim(p.model, r, p.at())
	if want.Granted && want.State == idemflight.Absent { // nothing more is promised
		require.True(p, got.Granted && got.State == idemflight.Absent && got.ID == want.ID, "granted, got %+v\n%s", got, &p.log)
		return got
	}
	if want.Granted {
		got.ExpiresIn = want.ExpiresIn // is that of the lease or of the hold
	}
	p.same(want, got)
	return got
}

// settle asserts that both settle, and answer, in the same way.
func (p *pair) settle(c idemflight.Claim, end idemflight.Settlement) {
	p.Helper()
	fmt.Fprintf(&p.log, "Settle %x %v %q %q for %v\n", c.ID[:3], end.Disposition, end.Value, end.Err, end.TTL)
	got, err := p.store.Settle(p.Context(), c, end)
	repeat := p.model.ID == c.ID && p.model.Settled
	var want idemflight.Standing
	var wanted error
	p.model, want, wanted = record.Settle(p.model, c, end, p.at())
	require.Equal(p, wanted, err, "error\n%s", &p.log)
	if repeat { // of what was released or forgotten the engine keeps less
		require.Equal(p, want.State, got.State, "the state that counts\n%s", &p.log)
		if want.State == idemflight.Retained {
			require.Equal(p, want.Value, got.Value, "the value that counts\n%s", &p.log)
			require.Equal(p, want.Err, got.Err, "the error that counts\n%s", &p.log)
		}
		return
	}
	require.Equal(p, want, got, "answer\n%s", &p.log)
}

func pick[T any](from ...T) T { return from[rand.IntN(len(from))] }

// TestVerbs_AgreeWithTheStateMachine: any verbs in any order, late and repeated ones among them, do to a record what
// internal/record says.
func TestVerbs_AgreeWithTheStateMachine(t *testing.T) {
	s := open(t, shared(t))
	records := 400
	if testing.Short() {
		records = 50
	}
	seen := map[string]int{}
	for n := range records {
		p := &pair{T: t, store: s, key: fmt.Sprint(n), now: int64(time.Hour), times: map[time.Time]time.Time{{}: {}}}
		var requests []idemflight.ClaimRequest
		for range 40 {
			c := idemflight.Claim{Key: p.key, ID: newID()}
			switch {
			case len(requests) > 0 && rand.IntN(3) == 0: // of any execution, often late
				c = pick(requests...).Claim
			case p.model.State != record.Absent:
				c.ID = p.model.ID
			}
			switch verb := rand.IntN(10); verb {
			default:
				r := request(p.key)
				r.Fingerprint[0] = pick[byte](1, 1, 1, 2)
				r.EffectsAnnounced = pick(true, false)
				r.HoldTTL = pick(hold, hold, forever, 0)
				if rand.IntN(3) > 0 {
					r.Replaces, r.From, r.Reconcile = c.ID, pick(idemflight.InFlight, idemflight.Held, idemflight.Held), pick(true, true, false)
				}
				if len(requests) > 0 && rand.IntN(4) == 0 {
					r = pick(requests...)
				}
				requests = append(requests, r)
				p.claim(r)
			case 0:
				fmt.Fprintf(&p.log, "Begin %x\n", c.ID[:3])
				err := s.Begin(t.Context(), c, lease)
				var want error
				p.model, want = record.Begin(p.model, c, lease, p.at())
				require.Equal(t, want, err, "\n%s", &p.log)
			case 1, 2:
				p.settle(c, idemflight.Settlement{
					Disposition: pick(idemflight.Retain, idemflight.Retain, idemflight.Hold, idemflight.Release), TTL: pick(hold, hold, 1, 0, forever),
					Value: pick(nil, []byte{}, []byte("v")), Err: pick(nil, []byte{}, []byte("e")),
				})
			case 3, 4:
				d := pick(lease, 0, 0)
				fmt.Fprintf(&p.log, "Renew %x for %v\n", c.ID[:3], d)
				lost, err := s.Renew(t.Context(), []idemflight.Claim{c}, d)
				require.NoError(t, err)
				var owned bool
				p.model, owned = record.Renew(p.model, c, d, p.at())
				require.Equal(t, owned, len(lost) == 0, "\n%s", &p.log)
			case 5:
				fmt.Fprintf(&p.log, "GiveBack %x\n", c.ID[:3])
				require.NoError(t, s.GiveBack(t.Context(), c))
				p.model = record.GiveBack(p.model, c, p.at())
			case 6:
				fmt.Fprintf(&p.log, "Forget %x\n", c.ID[:3])
				found, err := s.Forget(t.Context(), c)
				require.NoError(t, err)
				var want bool
				p.model, want = record.Forget(p.model, c, p.at())
				require.Equal(t, want, found, "\n%s", &p.log)
			}
			want := record.Read(p.model, p.at())
			p.same(want, readOf(t, s, p.key))
			seen[fmt.Sprintf("%v, record %d", want.State, p.model.State)]++
		}
	}
	t.Logf("states that verbs found: %v", seen)
	require.GreaterOrEqual(t, len(seen), 10, "states that verbs found")
}
