package pgstore

import (
	"bytes"
	"errors"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// writes is a row as FuzzRow writes it, of the key "bad".
type writes struct {
	id, fingerprint []byte
	state           string
	at, lasts       time.Duration // from now to each time that is not null; the length of lease and hold
	setup           byte
}

// Bits of a setup.
const (
	leased      = 1 << iota // leased is not null
	completed               // … and so on
	expires                 //
	holds                   //
	isAnnounced             //
	isForgotten             //
	isEndless               // the times are infinite
)

func (w writes) has(bit byte) bool { return w.setup&bit != 0 }

// insert writes the row, and reports whether the server can hold it.
func (w writes) insert(s fixture) bool {
	orNull := func(bit byte, d time.Duration) any {
		if !w.has(bit) {
			return nil
		}
		return d.Microseconds()
	}
	s.exec("delete from idemflight where key = 'bad'")
	_, err := s.pool.Exec(s.ctx(), `
		with q as (select now() as now, interval '1us' as us, $12::bool as endless)
		insert into idemflight (ns, key, claim, state, fingerprint, announced, forgotten, lease, hold, started, leased, completed, expires)
		select 'test', 'bad', $1::bytea, $2::text::"char", $3::bytea, $4::bool, $5::bool, $6::bigint * us, $7::bigint * us, now + $8::bigint * us,
			case when endless and $9::bigint is not null then 'infinity' else now + $9::bigint * us end,
			case when endless and $10::bigint is not null then 'infinity' else now + $10::bigint * us end,
			case when endless and $11::bigint is not null then 'infinity' else now + $11::bigint * us end
		from q`, w.id, w.state, w.fingerprint, w.has(isAnnounced), w.has(isForgotten), w.lasts.Microseconds(), orNull(holds, w.lasts),
		w.at.Microseconds(), orNull(leased, w.at), orNull(completed, w.at), orNull(expires, w.at), w.has(isEndless))
	return err == nil
}

// whole reports whether a verb may have written the row.
func (w writes) whole() bool {
	ended := w.has(expires) && w.at <= 0
	fits := map[string]bool{
		"c": w.has(leased), "b": w.has(leased), "r": !w.has(leased), "h": true, "x": !w.has(leased) && ended, "d": !w.has(leased) && ended,
	}
	endless := w.has(isEndless) && w.has(leased|completed|expires)
	return len(w.id) == 16 && len(w.fingerprint) == 16 && fits[w.state] && !endless
}

// FuzzRow asks a store about a row that no verb has written. That is an error which names the key, for it alone; and
// a row that a verb may have written is none.
func FuzzRow(f *testing.F) {
	for verb, state := range []string{"c", "b", "r", "h", "x", "d", "", "?", "\x00", "é", "rc"} {
		for i, setup := range []byte{0, leased, leased | holds | isAnnounced, leased | expires, expires | completed, expires | isEndless, isForgotten} {
			at := time.Hour * time.Duration((i+verb)%3-1)
			f.Add(state, 16, 16, setup, int64(at), int64(time.Hour), byte(verb+i))
		}
		f.Add(state, verb, 16, byte(leased), int64(-1), int64(1), byte(verb))
		f.Add(state, 16, 2*verb, byte(expires), int64(1<<62), int64(-1), byte(verb))
	}
	f.Add("é", 0, 16, byte(completed|expires), int64(0), int64(time.Hour), byte(3)) // reads as absent
	shared := newStore(f, fast)
	good := shared.claims(request("good")) // behind the key "bad"
	shared.settles(good, idemflight.Settlement{Disposition: idemflight.Hold, TTL: -1})
	f.Fuzz(func(t *testing.T, state string, idSize, fingerprintSize int, setup byte, at, lasts int64, verb byte) {
		s := shared
		s.t = t
		_, size := utf8.DecodeRuneInString(state)
		state = state[:size] // the server takes no more of it for a "char"
		w := writes{
			id: bytes.Repeat([]byte{1}, int(uint(idSize)%40)), fingerprint: bytes.Repeat([]byte{2}, int(uint(fingerprintSize)%40)),
			state: state, setup: setup, at: time.Duration(at), lasts: time.Duration(lasts),
		}
		if w.at > 0 { // long enough to be there until it is read
			w.at = max(w.at, time.Hour)
		}
		if w.insert(s) {
			s.checkRow(w, good.Key, int(verb))
		}
	})
}

// checkRow asks for the row of w, before and after one of the verbs.
func (f fixture) checkRow(w writes, other string, verb int) {
	f.t.Helper()
	claim := idemflight.Claim{Key: "bad"}
	if copy(claim.ID[:], w.id) == 0 {
		claim.ID = newID() // no claim has none
	}
	seen, err := f.Read(f.ctx(), "bad")
	f.checkAnswer(seen, err)
	if _, refused := errors.AsType[*pgconn.PgError](err); !refused {
		require.Equal(f.t, w.whole(), err == nil, "%+v: %+v %v", w, seen, err)
	}

	r := request("bad")
	takes := func(from idemflight.State, reconcile bool) (idemflight.Standing, error) {
		r.Replaces, r.From, r.Reconcile, r.Fingerprint = claim.ID, from, reconcile, seen.Fingerprint
		return f.Claim(f.ctx(), r)
	}
	verbs := []func() (idemflight.Standing, error){
		func() (idemflight.Standing, error) { return f.Claim(f.ctx(), r) },
		func() (idemflight.Standing, error) { return takes(idemflight.InFlight, false) },
		func() (idemflight.Standing, error) { return takes(idemflight.Held, true) },
		func() (idemflight.Standing, error) {
			return f.Claim(f.ctx(), idemflight.ClaimRequest{Claim: claim, Lease: time.Minute})
		},
		func() (idemflight.Standing, error) { return f.Settle(f.ctx(), claim, retain("v")) },
		func() (idemflight.Standing, error) {
			return f.Settle(f.ctx(), claim, idemflight.Settlement{Disposition: idemflight.Hold, TTL: time.Hour})
		},
		func() (x idemflight.Standing, err error) { return x, f.Begin(f.ctx(), claim, time.Minute) },
		func() (x idemflight.Standing, err error) { return x, f.GiveBack(f.ctx(), claim) },
		func() (x idemflight.Standing, err error) { _, err = f.Forget(f.ctx(), claim); return x, err },
		func() (x idemflight.Standing, err error) {
			_, err = f.Renew(f.ctx(), []idemflight.Claim{claim}, time.Minute)
			return x, err
		},
	}
	f.checkAnswer(verbs[verb%len(verbs)]())
	f.checkAnswer(f.Read(f.ctx(), "bad"))

	told := map[string]bool{}
	err = f.Unsettled(f.ctx(), func(key string, x idemflight.Standing) error {
		told[key] = true
		f.checkAnswer(x, nil)
		return nil
	})
	f.checkAnswer(idemflight.Standing{}, err)
	if _, refused := errors.AsType[*pgconn.PgError](err); !refused {
		require.True(f.t, told[other], "one row hides another: %+v: %v", w, err)
	}
}

// checkAnswer fails for an answer that can be neither an error about the row nor what a row reads as.
func (f fixture) checkAnswer(seen idemflight.Standing, err error) {
	f.t.Helper()
	_, refused := errors.AsType[*pgconn.PgError](err) // the server cannot compute a time, say
	switch {
	case refused, errors.Is(err, idemflight.ErrClaimLost):
	case err != nil:
		require.ErrorContains(f.t, err, `"bad"`)
	default:
		require.GreaterOrEqual(f.t, seen.ExpiresIn, time.Duration(-1), "%+v", seen)
		require.True(f.t, seen.State == idemflight.Absent || seen.ID != idemflight.ClaimID{}, "%+v", seen)
	}
}
