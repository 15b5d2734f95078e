package redisstore_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/redisstore"
)

// keys that could be taken for a part of what is around them.
var keys = []string{"", "plain", "}", "{", "{}", "a}b", "}a{", "a{b}c", "\x00", "\xff\xfe", "a\r\nb", "*", strings.Repeat("k", redisstore.MaxKey)}

func TestKeys_AreAnyBytes(t *testing.T) { keysAreAnyBytes(t, open(t, shared(t))) }

func keysAreAnyBytes(t *testing.T, s *redisstore.Store) {
	claims := map[string]idemflight.Claim{}
	for _, key := range keys {
		claims[key] = claim(t, s, request(key))
		require.NoError(t, s.Begin(t.Context(), claims[key], lease), "Begin of %q", key)
	}
	told := map[string]idemflight.ClaimID{}
	require.NoError(t, s.Unsettled(t.Context(), func(key string, x idemflight.Standing) error {
		require.NotContains(t, told, key, "no key is told twice")
		told[key] = x.ID
		return nil
	}))
	require.Len(t, told, len(keys), "keys told by Unsettled")
	for _, key := range keys {
		require.Equal(t, claims[key].ID, told[key], "Unsettled of %q", key)
		settled(t, s, claims[key], idemflight.Settlement{Disposition: idemflight.Retain, Value: []byte(key), TTL: hold})
	}
	for _, key := range keys {
		require.Equal(t, key, string(readOf(t, s, key).Value), "the value of %q", key)
	}
}

func TestKeys_TooLong(t *testing.T) {
	s := open(t, shared(t))
	c := idemflight.Claim{Key: strings.Repeat("k", redisstore.MaxKey+1), ID: newID()}
	for verb, ask := range map[string]func() error{
		"Claim": func() error {
			_, err := s.Claim(t.Context(), idemflight.ClaimRequest{Claim: c, Lease: lease, HoldTTL: hold})
			return err
		},
		"Begin":    func() error { return s.Begin(t.Context(), c, lease) },
		"Settle":   func() error { _, err := s.Settle(t.Context(), c, idemflight.Settlement{}); return err },
		"Read":     func() error { _, err := s.Read(t.Context(), c.Key); return err },
		"Watch":    func() error { return s.Watch(t.Context(), c) },
		"Forget":   func() error { _, err := s.Forget(t.Context(), c); return err },
		"GiveBack": func() error { return s.GiveBack(t.Context(), c) },
	} {
		require.ErrorIs(t, ask(), idemflight.ErrInvalidKey, verb)
	}
}

// TestTime_AnyDuration: from the shortest to the longest, and negative ones.
func TestTime_AnyDuration(t *testing.T) {
	s := open(t, shared(t))
	for _, d := range []time.Duration{time.Hour, 365 * 24 * time.Hour, 250 * 365 * 24 * time.Hour, math.MaxInt64} {
		name := d.String()
		c := claim(t, s, idemflight.ClaimRequest{Claim: idemflight.Claim{Key: "lease " + name, ID: newID()}, Lease: d, HoldTTL: d})
		require.InDelta(t, d, readOf(t, s, c.Key).ExpiresIn, float64(enough), "what is left of a lease of %v", d)
		require.NoError(t, s.Begin(t.Context(), c, d))
		_, err := s.Renew(t.Context(), []idemflight.Claim{c}, d)
		require.NoError(t, err)
		require.InDelta(t, d, readOf(t, s, c.Key).ExpiresIn, float64(enough), "what is left of a renewed lease of %v", d)

		for _, what := range []idemflight.Disposition{idemflight.Retain, idemflight.Hold} {
			c := claim(t, s, request(what.String()+name))
			settled(t, s, c, idemflight.Settlement{Disposition: what, TTL: d})
			x := readOf(t, s, c.Key)
			require.InDelta(t, d, x.ExpiresIn, float64(enough), "what is left of a TTL of %v", d)
			require.Positive(t, x.ExpiresIn)
		}
	}

	short := claim(t, s, request("short"))
	settled(t, s, short, idemflight.Settlement{Disposition: idemflight.Retain, Value: []byte("v"), TTL: 1})
	await(t, "a TTL of 1 ns is over", func() bool { return readOf(t, s, "short").State == idemflight.Absent })
	for _, d := range []time.Duration{0, -1, -time.Hour, math.MinInt64} {
		c := claim(t, s, request("retained for "+d.String()))
		settled(t, s, c, idemflight.Settlement{Disposition: idemflight.Retain, Value: []byte("v"), TTL: d})
		require.Equal(t, idemflight.Standing{}, readOf(t, s, c.Key), "retained for %v", d)
	}
	for _, d := range []time.Duration{-1, -time.Hour, math.MinInt64} {
		held := claim(t, s, request("held for "+d.String()))
		settled(t, s, held, idemflight.Settlement{Disposition: idemflight.Hold, TTL: d})
		require.Equal(t, forever, readOf(t, s, held.Key).ExpiresIn, "held for %v", d)

		r := request("dead for " + d.String())
		r.EffectsAnnounced, r.Lease, r.HoldTTL = false, 1, d
		claim(t, s, r)
		await(t, "a lease of 1 ns is over", func() bool { return readOf(t, s, r.Key).State == idemflight.Held })
		require.Equal(t, forever, readOf(t, s, r.Key).ExpiresIn, "HoldTTL of %v", d)
	}
}

// TestTime_IsTheEngines: times are told as the engine's clock has them, to the microsecond.
func TestTime_IsTheEngines(t *testing.T) {
	c := shared(t)
	s := open(t, c)
	engine := func() time.Time {
		now, err := c.Time(t.Context()).Result()
		require.NoError(t, err)
		return now
	}
	before := engine()
	mine := claim(t, s, request("key"))
	between := engine()
	settled(t, s, mine, idemflight.Settlement{Disposition: idemflight.Retain, TTL: hold})
	after := engine()
	x := readOf(t, s, "key")
	require.False(t, x.StartedAt.Before(before) || x.StartedAt.After(between), "StartedAt %v", x.StartedAt)
	require.False(t, x.CompletedAt.Before(between) || x.CompletedAt.After(after), "CompletedAt %v", x.CompletedAt)
}

// TestTime_EngineDropsWhatIsOver: the engine's own expiry follows each state, never before the record reads as
// absent, and a lease after it. What is held without end has none.
func TestTime_EngineDropsWhatIsOver(t *testing.T) {
	c := shared(t)
	name := nameFor(t, c)
	s, err := redisstore.Open(t.Context(), c, name, redisstore.Options{})
	require.NoError(t, err)
	r := request("key")
	key := name + ":{key}"
	expires := func(want time.Duration, after string) {
		t.Helper()
		ttl, err := c.PTTL(t.Context(), key).Result()
		require.NoError(t, err)
		if want < 0 {
			require.Equal(t, time.Duration(-1), ttl, "PTTL %s", after)
			return
		}
		require.InDelta(t, want, ttl, float64(enough), "PTTL %s", after)
		require.LessOrEqual(t, ttl, want+time.Millisecond, "PTTL %s", after)
	}
	over := func(id idemflight.ClaimID, hold time.Duration) idemflight.ClaimRequest {
		r := r
		r.ID, r.Replaces, r.From, r.Reconcile, r.HoldTTL = newID(), id, idemflight.Held, true, hold
		return r
	}

	claim(t, s, r)
	expires(lease+hold+lease, "in flight")
	require.NoError(t, s.Begin(t.Context(), r.Claim, 2*lease))
	expires(2*lease+hold+lease, "begun")
	_, err = s.Renew(t.Context(), []idemflight.Claim{r.Claim}, 3*lease)
	require.NoError(t, err)
	expires(3*lease+hold+lease, "renewed")
	settled(t, s, r.Claim, idemflight.Settlement{Disposition: idemflight.Hold, TTL: 2 * hold})
	expires(2*hold+lease, "held")
	again := over(r.ID, forever)
	claim(t, s, again)
	expires(2*hold+lease, "reconciling what is held for a time")
	require.NoError(t, s.Begin(t.Context(), again.Claim, lease))
	expires(forever, "begun, to be held without end")
	settled(t, s, again.Claim, idemflight.Settlement{Disposition: idemflight.Hold, TTL: forever})
	expires(forever, "held without end")
	last := over(again.ID, hold)
	claim(t, s, last)
	expires(forever, "reconciling what is held without end")
	require.NoError(t, s.GiveBack(t.Context(), last.Claim))
	expires(forever, "given back")
	last = over(last.ID, hold)
	claim(t, s, last)
	settled(t, s, last.Claim, idemflight.Settlement{Disposition: idemflight.Retain, TTL: hold})
	expires(hold+lease, "retained")
	found, err := s.Forget(t.Context(), last.Claim)
	require.NoError(t, err)
	require.True(t, found)
	expires(lease, "forgotten")

	r = request("key")
	r.HoldTTL = forever
	claim(t, s, r)
	expires(forever, "in flight, to be held without end")
	settled(t, s, r.Claim, idemflight.Settlement{})
	expires(lease, "released")

	r = request("key")
	r.Lease = 1
	claim(t, s, r)
	settled(t, s, r.Claim, idemflight.Settlement{})
	ttl, err := c.PTTL(t.Context(), key).Result()
	require.NoError(t, err)
	require.Positive(t, ttl, "a closed row is kept for a while, however short the lease")
}

// TestDamaged_IsAnErrorAndStays: an effect may have taken place under a record that cannot be read, so that no verb
// takes its key for free, and none repairs it. Each field that is damaged, or gone, is enough.
func TestDamaged_IsAnErrorAndStays(t *testing.T) {
	c := shared(t)
	name := nameFor(t, c)
	s, err := redisstore.Open(t.Context(), c, name, redisstore.Options{})
	require.NoError(t, err)
	for state, write := range map[string]func(key string) idemflight.Claim{
		"begun": func(key string) idemflight.Claim {
			mine := claim(t, s, request(key))
			require.NoError(t, s.Begin(t.Context(), mine, lease))
			return mine
		},
		"retained": func(key string) idemflight.Claim {
			mine := claim(t, s, request(key))
			settled(t, s, mine, idemflight.Settlement{Disposition: idemflight.Retain, Value: []byte("v"), TTL: hold})
			return mine
		},
	} {
		for what, damage := range map[string]func(at string) error{
			"no id":                 func(at string) error { return c.HDel(t.Context(), at, "id").Err() },
			"a short id":            func(at string) error { return c.HSet(t.Context(), at, "id", "short").Err() },
			"no fingerprint":        func(at string) error { return c.HDel(t.Context(), at, "fp").Err() },
			"no state":              func(at string) error { return c.HDel(t.Context(), at, "st").Err() },
			"an unknown state":      func(at string) error { return c.HSet(t.Context(), at, "st", "?").Err() },
			"no lease":              func(at string) error { return c.HDel(t.Context(), at, "lease").Err() },
			"a lease of a word":     func(at string) error { return c.HSet(t.Context(), at, "lease", "long").Err() },
			"an end beyond numbers": func(at string) error { return c.HSet(t.Context(), at, "hold", "1e300").Err() },
			"neither open nor closed": func(at string) error {
				return c.HDel(t.Context(), at, "leased", "expires").Err()
			},
		} {
			what = state + ", " + what
			mine := write(what)
			at := name + ":{" + what + "}"
			require.NoError(t, damage(at))
			before := c.HGetAll(t.Context(), at).Val()
			require.NotEmpty(t, before, "the record is where the test damages it")
			for verb, ask := range map[string]func() error{
				"Claim": func() error { _, err := s.Claim(t.Context(), request(what)); return err },
				"Claim to replace": func() error {
					r := request(what)
					r.Replaces, r.From = mine.ID, idemflight.InFlight
					_, err := s.Claim(t.Context(), r)
					return err
				},
				"Claim to reconcile": func() error {
					r := request(what)
					r.Replaces, r.From, r.Reconcile = mine.ID, idemflight.Held, true
					_, err := s.Claim(t.Context(), r)
					return err
				},
				"Begin":    func() error { return s.Begin(t.Context(), mine, lease) },
				"Settle":   func() error { _, err := s.Settle(t.Context(), mine, idemflight.Settlement{}); return err },
				"Read":     func() error { _, err := s.Read(t.Context(), what); return err },
				"Forget":   func() error { _, err := s.Forget(t.Context(), mine); return err },
				"GiveBack": func() error { return s.GiveBack(t.Context(), mine) },
				"Renew":    func() error { _, err := s.Renew(t.Context(), []idemflight.Claim{mine}, lease); return err },
				"Unsettled": func() error {
					return s.Unsettled(t.Context(), func(string, idemflight.Standing) error { return nil })
				},
			} {
				err := ask()
				require.ErrorContains(t, err, `redisstore: key "`+what+`": DAMAGED`, "%s: %s", what, verb)
				require.NotErrorIs(t, err, idemflight.ErrClaimLost, "%s: %s", what, verb)
				require.Equal(t, before, c.HGetAll(t.Context(), at).Val(), "%s: %s leaves the record as it is", what, verb)
			}
			require.NoError(t, c.Del(t.Context(), at).Err())
		}
	}
}

// TestSettle_NilIsNotEmpty: and a value of a megabyte comes back.
func TestSettle_NilIsNotEmpty(t *testing.T) {
	s := open(t, shared(t))
	for name, end := range map[string]idemflight.Settlement{
		"nil":    {},
		"empty":  {Value: []byte{}, Err: []byte{}},
		"value":  {Value: []byte("\x00\xffv")},
		"error":  {Err: []byte("\r\n")},
		"long":   {Value: make([]byte, 1<<20), Err: make([]byte, 1<<16)},
		"number": {Value: []byte("1e300"), Err: []byte("-0")},
	} {
		end.Disposition, end.TTL = idemflight.Retain, hold
		c := claim(t, s, request(name))
		settled(t, s, c, end)
		x := readOf(t, s, name)
		require.Equal(t, end.Value, x.Value, "value, %s", name)
		require.Equal(t, end.Err, x.Err, "error, %s", name)
		again := settled(t, s, c, end)
		require.Equal(t, end.Value, again.Value, "value of a repeat, %s", name)
		require.Equal(t, end.Err, again.Err, "error of a repeat, %s", name)
	}
}

// TestScripts_Flushed: an engine that was restarted, or a master that was a replica, knows no script.
func TestScripts_Flushed(t *testing.T) {
	c := client(t, server(t))
	s := open(t, c)
	flush := func() { require.NoError(t, c.ScriptFlush(t.Context()).Err()) }

	var mine []idemflight.Claim
	for _, key := range []string{"a", "b", "c"} {
		flush()
		mine = append(mine, claim(t, s, request(key)))
	}
	flush()
	require.NoError(t, s.Begin(t.Context(), mine[0], lease))
	flush()
	lost, err := s.Renew(t.Context(), append(mine, idemflight.Claim{Key: "d", ID: newID()}), lease)
	require.NoError(t, err)
	require.Len(t, lost, 1)
	flush()
	told := 0
	require.NoError(t, s.Unsettled(t.Context(), func(string, idemflight.Standing) error { told++; return nil }))
	require.Equal(t, 3, told)
	flush()
	settled(t, s, mine[0], idemflight.Settlement{Disposition: idemflight.Retain, TTL: hold})
	flush()
	require.NoError(t, s.Watch(t.Context(), mine[0]))
	flush()
	require.Equal(t, idemflight.Retained, readOf(t, s, "a").State)
	flush()
	require.NoError(t, s.GiveBack(t.Context(), mine[1]))
	flush()
	found, err := s.Forget(t.Context(), mine[0])
	require.NoError(t, err)
	require.True(t, found)
}

// TestPersistedAlways_OutlivesTheEngine: what was acknowledged is there after kill -9.
func TestPersistedAlways_OutlivesTheEngine(t *testing.T) {
	directives := []string{"--dir", t.TempDir(), "--appendonly", "yes", "--appendfsync", "always"}
	first := client(t, server(t, directives...))
	s, err := redisstore.Open(t.Context(), first, "name", redisstore.Options{})
	require.NoError(t, err)
	require.Equal(t, redisstore.PersistedAlways, s.Persistence())
	claimed, begun, kept := claim(t, s, request("claimed")), claim(t, s, request("begun")), claim(t, s, request("kept"))
	require.NoError(t, s.Begin(t.Context(), begun, lease))
	end := idemflight.Settlement{Disposition: idemflight.Retain, Value: []byte("v"), TTL: hold}
	settled(t, s, kept, end)
	kill(t, first)

	s, err = redisstore.Open(t.Context(), client(t, server(t, directives...)), "name", redisstore.Options{})
	require.NoError(t, err)
	require.NoError(t, s.Begin(t.Context(), claimed, lease))
	require.True(t, readOf(t, s, "begun").Begun)
	settled(t, s, begun, end)
	require.Equal(t, "v", string(readOf(t, s, "kept").Value))
	require.Equal(t, idemflight.Retained, settled(t, s, kept, end).State, "of a Settle whose answer was lost")
}

// TestContext_EndsAVerb: soon, though the engine does not answer and the client would go on waiting.
func TestContext_EndsAVerb(t *testing.T) {
	c := redis.NewClient(&redis.Options{Addr: server(t), ReadTimeout: time.Hour, MaxRetries: -1})
	s, err := redisstore.Open(t.Context(), c, "name", redisstore.Options{})
	require.NoError(t, err)
	mine := claim(t, s, request("key"))
	require.NoError(t, c.Do(t.Context(), "CLIENT", "PAUSE", time.Hour.Milliseconds(), "ALL").Err())
	defer c.Close() // its connections, and with them what still waits for an answer

	for verb, ask := range map[string]func(context.Context) error{
		"Claim":  func(ctx context.Context) error { _, err := s.Claim(ctx, request("other")); return err },
		"Begin":  func(ctx context.Context) error { return s.Begin(ctx, mine, lease) },
		"Settle": func(ctx context.Context) error { _, err := s.Settle(ctx, mine, idemflight.Settlement{}); return err },
		"Renew": func(ctx context.Context) error {
			lost, err := s.Renew(ctx, []idemflight.Claim{mine}, lease)
			require.Empty(t, lost)
			return err
		},
		"Read":      func(ctx context.Context) error { _, err := s.Read(ctx, "key"); return err },
		"Watch":     func(ctx context.Context) error { return s.Watch(ctx, mine) },
		"Forget":    func(ctx context.Context) error { _, err := s.Forget(ctx, mine); return err },
		"GiveBack":  func(ctx context.Context) error { return s.GiveBack(ctx, mine) },
		"Unsettled": func(ctx context.Context) error { return s.Unsettled(ctx, nil) },
		"Open": func(ctx context.Context) error {
			_, err := redisstore.Open(ctx, c, "name", redisstore.Options{})
			return err
		},
	} {
		// The cause of the context is no answer of the store.
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(short, func() { cancel(idemflight.ErrClaimLost) })
		start := time.Now()
		err := ask(ctx)
		require.ErrorIs(t, err, context.Canceled, verb)
		require.NotErrorIs(t, err, idemflight.ErrClaimLost, verb)
		require.Less(t, time.Since(start), enough, verb)
		require.ErrorIs(t, ask(ctx), context.Canceled, "%s, of a context that has ended", verb)
	}
}

// TestUnsettled_ScansAll: over more than a page, among keys of others, and stops when it is told.
func TestUnsettled_ScansAll(t *testing.T) {
	c := client(t, server(t))
	const many = 2_500
	stores := map[string]*redisstore.Store{}
	for _, name := range []string{"a*", "a[b]", `a\`, "a?", "ab", "a"} {
		s, err := redisstore.Open(t.Context(), c, name, redisstore.Options{})
		require.NoError(t, err)
		claim(t, s, request(name))
		stores[name] = s
	}
	require.NoError(t, c.Set(t.Context(), "foreign", "1", 0).Err())
	for name, s := range stores {
		var told []string
		require.NoError(t, s.Unsettled(t.Context(), func(key string, _ idemflight.Standing) error { told = append(told, key); return nil }))
		require.Equal(t, []string{name}, told, "of the store %q", name)
	}

	s := open(t, c)
	for i := range many {
		r := request(strings.Repeat("k", i%20) + time.Duration(i).String())
		claim(t, s, r)
		if i%2 == 0 {
			settled(t, s, r.Claim, idemflight.Settlement{Disposition: idemflight.Retain, Value: []byte("v"), TTL: hold})
		}
	}
	told := map[string]bool{}
	require.NoError(t, s.Unsettled(t.Context(), func(key string, x idemflight.Standing) error {
		require.Equal(t, idemflight.InFlight, x.State)
		told[key] = true
		return nil
	}))
	require.Len(t, told, many/2)

	enough, calls := errors.New("enough"), 0
	require.ErrorIs(t, s.Unsettled(t.Context(), func(string, idemflight.Standing) error { calls++; return enough }), enough)
	require.Equal(t, 1, calls, "calls of f after it has said that it is enough")
}
