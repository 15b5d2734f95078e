package redisstore_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/redisstore"
)

// fields are those of a hash, by the numbers that FuzzHash has for them.
var fields = []string{"id", "st", "leased", "lease", "hold", "expires", "started", "completed", "fp", "announced", "forgotten", "val", "err"}

// hashOf returns a hash made of script: three bytes for a field, its kind of value, and which.
func hashOf(script []byte, text string) map[string]any {
	hash := map[string]any{}
	for ; len(script) >= 3; script = script[3:] {
		n := int64(int8(script[2]))
		var value string
		switch script[1] % 6 {
		case 0:
			value = text
		case 1:
			value = strings.Repeat("i", int(script[2])%20)
		case 2:
			value = string("cbrhxg"[script[2]%6])
		case 3:
			value = strconv.FormatInt(n, 10)
		case 4: // about now
			value = strconv.FormatInt(time.Now().UnixMicro()+n*int64(time.Hour/time.Microsecond), 10)
		case 5:
			value = []string{"nan", "inf", "-inf", "1e300", "-1e300", "0x10", "9007199254740993", " 1 "}[script[2]%8]
		}
		hash[fields[int(script[0])%len(fields)]] = value
	}
	return hash
}

// FuzzHash asks a store about a hash that no verb has written. Each verb answers, with an error that names the key or
// with a Standing that can be; what is damaged stays as it is; and Unsettled tells of the others.
func FuzzHash(f *testing.F) {
	whole := []byte{0, 1, 16, 8, 1, 16, 3, 3, 100, 4, 3, 100, 6, 4, 0} // id, fp, lease, hold, started
	for verb, state := range []byte("cbrhxg?") {
		for _, more := range [][]byte{{}, {2, 4, 1}, {2, 4, 255}, {5, 4, 1}, {5, 3, 255}, {5, 3, 0}, {5, 4, 1, 2, 4, 1}, {9, 3, 1}, {2, 5, 0}, {5, 5, 1}, {3, 5, 3}, {5, 4, 1, 0, 1, 15}, {5, 4, 1, 8, 1, 17}} {
			script := append(append([]byte{}, whole...), append([]byte{1, 2, byte(verb)}, more...)...)
			f.Add(script, string(state), byte(verb))
			f.Add(script, "", byte(len(script)))
			f.Add(append(script, 1, 0, 0), string(state), byte(verb))
		}
	}
	c := shared(f)
	name := nameFor(f, c)
	s, err := redisstore.Open(f.Context(), c, name, redisstore.Options{})
	require.NoError(f, err)
	good := claim(f, s, idemflight.ClaimRequest{Claim: idemflight.Claim{Key: "good", ID: newID()}, Lease: 24 * time.Hour, HoldTTL: forever})
	f.Fuzz(func(t *testing.T, script []byte, text string, verb byte) {
		at := name + ":{bad}"
		require.NoError(t, c.Del(t.Context(), at).Err())
		if hash := hashOf(script, text); len(hash) > 0 {
			require.NoError(t, c.HSet(t.Context(), at, hash).Err())
		} else if text != "" {
			require.NoError(t, c.Set(t.Context(), at, text, 0).Err())
		}
		checkRecord(t, s, c.HGetAll(t.Context(), at), int(verb))
		checkOthers(t, s, good.Key)
	})
}

// checkRecord asks s for the record of the key "bad", which is this hash, before and after one of the verbs.
func checkRecord(t *testing.T, s *redisstore.Store, hash *redis.MapStringStringCmd, verb int) {
	t.Helper()
	mine := idemflight.Claim{Key: "bad"}
	copy(mine.ID[:], hash.Val()["id"])
	seen, broken := s.Read(t.Context(), "bad")
	checkAnswer(t, seen, broken)
	if hash.Err() != nil {
		require.Error(t, broken, "what is no hash is no record")
	}
	if seen.State != idemflight.Absent {
		require.Equal(t, hash.Val()["id"], string(seen.ID[:]), "an ID is told whole")
		require.Equal(t, hash.Val()["fp"], string(seen.Fingerprint[:]), "a fingerprint is told whole")
	}

	r := request("bad")
	takes := func(from idemflight.State, reconcile bool) (idemflight.Standing, error) {
		r.Replaces, r.From, r.Reconcile, r.Fingerprint = mine.ID, from, reconcile, seen.Fingerprint
		return s.Claim(t.Context(), r)
	}
	verbs := []func() (idemflight.Standing, error){
		func() (idemflight.Standing, error) { return s.Claim(t.Context(), r) },
		func() (idemflight.Standing, error) { return takes(idemflight.InFlight, false) },
		func() (idemflight.Standing, error) { return takes(idemflight.Held, true) },
		func() (idemflight.Standing, error) {
			return s.Settle(t.Context(), mine, idemflight.Settlement{Disposition: idemflight.Retain, TTL: hold})
		},
		func() (idemflight.Standing, error) {
			return s.Settle(t.Context(), mine, idemflight.Settlement{Disposition: idemflight.Hold, TTL: hold})
		},
		func() (idemflight.Standing, error) { return s.Settle(t.Context(), mine, idemflight.Settlement{}) },
		func() (x idemflight.Standing, err error) { return x, s.Begin(t.Context(), mine, lease) },
		func() (x idemflight.Standing, err error) { return x, s.GiveBack(t.Context(), mine) },
		func() (x idemflight.Standing, err error) { _, err = s.Forget(t.Context(), mine); return x, err },
		func() (x idemflight.Standing, err error) {
			_, err = s.Renew(t.Context(), []idemflight.Claim{mine}, lease)
			return x, err
		},
	}
	got, err := verbs[verb%len(verbs)]()
	checkAnswer(t, got, err)
	after, stillBroken := s.Read(t.Context(), "bad")
	checkAnswer(t, after, stillBroken)
	if broken != nil {
		require.Error(t, err, "%v: no verb takes what cannot be read for anything", hash.Val())
		require.Error(t, stillBroken, "%v: no verb repairs it", hash.Val())
	}
}

// checkAnswer fails for an answer that can be neither an error about the record nor what a record reads as.
func checkAnswer(t *testing.T, x idemflight.Standing, err error) {
	t.Helper()
	switch {
	case errors.Is(err, idemflight.ErrClaimLost):
	case err != nil:
		require.ErrorContains(t, err, `"bad"`, "which record it is")
	default:
		require.GreaterOrEqual(t, x.ExpiresIn, forever, "%+v", x)
		require.True(t, x.State == idemflight.Absent || x.ID != idemflight.ClaimID{}, "%+v", x)
	}
}

// checkOthers fails if the key of that name is not told of, beside the key "bad".
func checkOthers(t *testing.T, s *redisstore.Store, other string) {
	t.Helper()
	told := map[string]bool{}
	err := s.Unsettled(t.Context(), func(key string, x idemflight.Standing) error {
		told[key] = true
		return nil
	})
	checkAnswer(t, idemflight.Standing{}, err)
	require.True(t, told[other], "one record hides another: %v", err)
}
