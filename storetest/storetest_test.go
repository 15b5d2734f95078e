package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemflight/idemflight"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryFails(t *testing.T) {
	ctx := t.Context()
	m := Mem()
	r := request()
	m.Fail("Claim", Before, 1)
	_, err := m.Claim(ctx, r)
	require.ErrorIs(t, err, ErrFailed)
	x, err := m.Read(ctx, r.Key)
	require.NoError(t, err)
	require.Equal(t, idemflight.Absent, x.State, "a verb that fails before it acts does not act")

	m.Fail("Claim", After, 2)
	for range 2 {
		x, err = m.Claim(ctx, r)
		require.ErrorIs(t, err, ErrFailed)
		require.Zero(t, x, "no answer beside an error")
	}
	x, err = m.Claim(ctx, r)
	require.NoError(t, err)
	require.True(t, x.Granted, "a verb whose answer was lost is repeated, and answered as the first time")
	require.Equal(t, 4, m.Asked("Claim"))

	m.Fail("Begin", After, -1)
	for range 10 {
		require.ErrorIs(t, m.Begin(ctx, r.Claim, lease), ErrFailed)
	}
	m.Fail("Begin", After, 0)
	require.NoError(t, m.Begin(ctx, r.Claim, lease))
	require.Panics(t, func() { m.Fail("Clam", Before, 1) })
	require.Panics(t, func() { m.Asked("Clam") })
}

// TestMemoryVerbs asserts that each verb goes through the hook, and can be made to fail, by its name.
func TestMemoryVerbs(t *testing.T) {
	ctx := t.Context()
	m := Mem()
	r := request()
	verbs := map[string]func() error{
		"Claim":     func() error { _, err := m.Claim(ctx, r); return err },
		"Begin":     func() error { return m.Begin(ctx, r.Claim, lease) },
		"Renew":     func() error { _, err := m.Renew(ctx, []idemflight.Claim{r.Claim}, lease); return err },
		"Settle":    func() error { _, err := m.Settle(ctx, r.Claim, retain); return err },
		"Watch":     func() error { return m.Watch(ctx, r.Claim) },
		"Read":      func() error { _, err := m.Read(ctx, r.Key); return err },
		"GiveBack":  func() error { return m.GiveBack(ctx, r.Claim) },
		"Unsettled": func() error { return m.Unsettled(ctx, func(string, idemflight.Standing) error { return nil }) },
		"Forget":    func() error { _, err := m.Forget(ctx, r.Claim); return err },
	}
	for _, verb := range []string{"Claim", "Begin", "Renew", "Settle", "Watch", "Read", "GiveBack", "Unsettled", "Forget"} {
		var seen []string
		m.Hook(func(_ context.Context, when When, verb string, _ idemflight.Claim) error {
			seen = append(seen, fmt.Sprint(when, " ", verb))
			return nil
		})
		for _, when := range []When{Before, After} {
			m.Fail(verb, when, 1)
			require.ErrorIs(t, verbs[verb](), ErrFailed, "%s, %v", verb, when)
		}
		m.Hook(nil)
		require.NoError(t, verbs[verb](), verb)
		require.Equal(t, []string{"before " + verb, "before " + verb, "after " + verb}, seen)
		require.Equal(t, 3, m.Asked(verb))
		delete(verbs, verb)
	}
	require.Empty(t, verbs)
	require.Len(t, Verbs, 9)
}

func TestMemoryHookStopsAVerb(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		m := Mem()
		r := request()
		goOn := make(chan struct{})
		m.Hook(func(_ context.Context, when When, verb string, c idemflight.Claim) error {
			if verb == "Claim" && when == After && c == r.Claim {
				<-goOn
			}
			return nil
		})
		answered := make(chan idemflight.Standing)
		go func() {
			x, err := m.Claim(ctx, r)
			require.NoError(t, err)
			answered <- x
		}()
		synctest.Wait()
		x, err := m.Read(ctx, r.Key)
		require.NoError(t, err)
		require.Equal(t, idemflight.InFlight, x.State, "it has acted, and waits with the answer")
		close(goOn)
		require.True(t, (<-answered).Granted)

		refused := errors.New("refused")
		m.Hook(func(context.Context, When, string, idemflight.Claim) error { return refused })
		require.Equal(t, refused, m.Begin(ctx, r.Claim, lease))
		m.Hook(nil)
		require.NoError(t, m.Begin(ctx, r.Claim, lease))
	})
}

func TestMemoryInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		m := Mem()
		r := request()
		_, err := m.Claim(ctx, r)
		require.NoError(t, err)
		start := time.Now()
		require.NoError(t, m.Watch(ctx, r.Claim))
		require.Equal(t, lease, time.Since(start), "Watch ends with the lease")
		x, err := m.Read(ctx, r.Key)
		require.NoError(t, err)
		require.Equal(t, idemflight.Held, x.State)
		time.Sleep(long)
		x, err = m.Read(ctx, r.Key)
		require.NoError(t, err)
		require.Zero(t, x, "after its HoldTTL")
	})
}

func TestMemoryKill(t *testing.T) {
	ctx := t.Context()
	m := Mem()
	r := request()
	require.False(t, m.Kill(r.ID), "Kill of a claim that is nowhere")
	_, err := m.Claim(ctx, r)
	require.NoError(t, err)
	require.True(t, m.Kill(r.ID))
	require.NoError(t, m.Watch(ctx, r.Claim))
	x, err := m.Read(ctx, r.Key)
	require.NoError(t, err)
	require.Equal(t, idemflight.Held, x.State, "its owner is dead at once")
	_, err = m.Settle(ctx, r.Claim, retain)
	require.NoError(t, err, "a late owner that nobody has replaced settles")
	require.False(t, m.Kill(r.ID), "Kill of what is settled")
}

// TestMemoryKillAll: who was alive is dead for good, who comes after is not.
func TestMemoryKillAll(t *testing.T) {
	ctx := t.Context()
	m := Mem()
	claimed, begun, settled := request(), request(), request()
	claimed.EffectsAnnounced = true
	for _, r := range []idemflight.ClaimRequest{claimed, begun, settled} {
		_, err := m.Claim(ctx, r)
		require.NoError(t, err)
	}
	require.NoError(t, m.Begin(ctx, begun.Claim, lease))
	_, err := m.Settle(ctx, settled.Claim, retain)
	require.NoError(t, err)
	m.KillAll()

	require.ErrorIs(t, m.Begin(ctx, claimed.Claim, lease), idemflight.ErrClaimLost)
	_, err = m.Settle(ctx, begun.Claim, retain)
	require.ErrorIs(t, err, idemflight.ErrClaimLost)
	lost, err := m.Renew(ctx, []idemflight.Claim{claimed.Claim, begun.Claim}, lease)
	require.NoError(t, err)
	require.Len(t, lost, 2)
	require.NoError(t, m.GiveBack(ctx, claimed.Claim))
	for _, tc := range []struct {
		key   string
		state idemflight.State
	}{{claimed.Key, idemflight.InFlight}, {begun.Key, idemflight.Held}, {settled.Key, idemflight.Retained}} {
		x, err := m.Read(ctx, tc.key)
		require.NoError(t, err)
		require.Equal(t, tc.state, x.State)
		require.Equal(t, tc.state == idemflight.InFlight, x.ExpiresIn == 0, "the lease is over of what had not begun")
	}

	next := request()
	next.Key, next.EffectsAnnounced = claimed.Key, true
	next.Replaces, next.From = claimed.ID, idemflight.InFlight
	x, err := m.Claim(ctx, next)
	require.NoError(t, err)
	require.True(t, x.Granted, "it can be taken over")
	require.NoError(t, m.Begin(ctx, next.Claim, lease))
	_, err = m.Settle(ctx, next.Claim, retain)
	require.NoError(t, err)
}

type payment struct {
	ID     string
	Amount int
	Note   string `json:"-"`
}

func TestCheckCodec(t *testing.T) {
	declined := errors.New("declined")
	c := idemflight.Codec[string, *payment]{
		EncodeValue: func(p *payment) ([]byte, error) { return json.Marshal(p) },
		DecodeValue: func(b []byte) (p *payment, err error) { return p, json.Unmarshal(b, &p) },
		Sentinels:   map[string]error{"declined": declined},
	}
	CheckCodec(t, c, []*payment{nil, {ID: "a", Amount: 7}},
		[]error{nil, declined, fmt.Errorf("card: %w", declined), idemflight.ErrExpired, context.Canceled, errors.Join(io.EOF, declined)})

	failures, notes := checkCodec(c, []*payment{{Note: "lost"}}, []error{io.EOF, fmt.Errorf("%w, %w", io.EOF, declined)})
	require.Len(t, failures, 2)
	require.Contains(t, failures[0], "values[0]")
	require.Contains(t, failures[0], "lost")
	require.Contains(t, failures[1], "errs[0] (EOF) comes back as a text alone")
	require.Len(t, notes, 3, "parts that are not found: %q", notes)

	failures, _ = checkCodec(idemflight.Codec[string, string]{}, []string{"\xff\x00"}, nil)
	require.Empty(t, failures)
	failures, _ = checkCodec(idemflight.Codec[string, any]{}, []any{1}, nil)
	require.Len(t, failures, 1, "a V that cannot be written without a Codec")
	bad := c
	bad.DecodeValue = func([]byte) (*payment, error) { panic("bad") }
	failures, _ = checkCodec(bad, []*payment{{}}, nil)
	require.Len(t, failures, 1)
	require.Contains(t, failures[0], "does not come back")
}
