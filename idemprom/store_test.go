package idemprom_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemprom"
	"github.com/idemflight/idemflight/storetest"
)

// TestMeasureStore_IsAStore: what is measured keeps all the promises of a Store.
func TestMeasureStore_IsAStore(t *testing.T) {
	m, d := storetest.Mem(), idemprom.NewDurations("payments")
	storetest.Run(t, func(*testing.T) idemflight.Store { return idemprom.MeasureStore(m, d) })
}

func TestMeasureStore_OfNoneIsNone(t *testing.T) {
	require.Nil(t, idemprom.MeasureStore(nil, idemprom.NewDurations("payments")))
}

// TestMeasureStore_EachVerb under its own name, for as long as it took.
func TestMeasureStore_EachVerb(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := storetest.Mem(), idemprom.NewDurations("payments")
		seconds := map[string]int{"Claim": 1, "Begin": 2, "Settle": 3, "Renew": 4, "Watch": 5, "Read": 6, "GiveBack": 7, "Forget": 8, "Unsettled": 9}
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if when == storetest.Before {
				time.Sleep(time.Duration(seconds[verb]) * time.Second)
			}
			return nil
		})
		s := idemprom.MeasureStore(m, d)
		ctx := context.Background()
		c := idemflight.Claim{Key: "key", ID: idemflight.ClaimID{1}}
		got, err := s.Claim(ctx, idemflight.ClaimRequest{Claim: c, Lease: time.Hour, HoldTTL: time.Hour})
		require.NoError(t, err)
		require.True(t, got.Granted)
		require.NoError(t, s.Begin(ctx, c, time.Hour))
		lost, err := s.Renew(ctx, []idemflight.Claim{c, {Key: "other"}}, time.Hour)
		require.NoError(t, err)
		require.Len(t, lost, 1)
		require.NoError(t, s.Watch(ctx, idemflight.Claim{Key: "nobody's"}))
		found := 0
		require.NoError(t, s.Unsettled(ctx, func(string, idemflight.Standing) error { found++; return nil }))
		require.Equal(t, 1, found)
		_, err = s.Settle(ctx, c, idemflight.Settlement{Disposition: idemflight.Retain, Value: []byte("value"), TTL: time.Hour})
		require.NoError(t, err)
		got, err = s.Read(ctx, "key")
		require.NoError(t, err)
		require.Equal(t, "value", string(got.Value))
		require.NoError(t, s.GiveBack(ctx, c))
		was, err := s.Forget(ctx, c)
		require.NoError(t, err)
		require.True(t, was)

		r := registryOf(d)
		names := map[string]string{"Claim": "claim", "Begin": "begin", "Settle": "settle", "Renew": "renew", "Watch": "watch",
			"Read": "read", "GiveBack": "give_back", "Forget": "forget", "Unsettled": "unsettled"}
		for verb, name := range names {
			count, sum := gather(t, r).observed(t, "idemflight_store_duration_seconds", name)
			require.Equal(t, uint64(1), count, verb)
			require.Equal(t, float64(seconds[verb]), sum, verb)
			require.Zero(t, gather(t, r).value(t, "idemflight_store_errors_total", name), verb)
		}
	})
}

// TestMeasureStore_Errors are failures of the store, not its answers, nor what its caller broke off.
func TestMeasureStore_Errors(t *testing.T) {
	m, d := storetest.Mem(), idemprom.NewDurations("payments")
	s, r := idemprom.MeasureStore(m, d), registryOf(d)
	errorsOf := func(verb string) float64 { return gather(t, r).value(t, "idemflight_store_errors_total", verb) }
	ctx := context.Background()
	c := idemflight.Claim{Key: "key", ID: idemflight.ClaimID{1}}

	m.Fail("Claim", storetest.After, 2)
	for range 3 {
		_, _ = s.Claim(ctx, idemflight.ClaimRequest{Claim: c, Lease: time.Hour, HoldTTL: time.Hour})
	}
	require.Equal(t, 2.0, errorsOf("claim"))

	require.ErrorIs(t, s.Begin(ctx, idemflight.Claim{Key: "key"}, time.Hour), idemflight.ErrClaimLost)
	require.Zero(t, errorsOf("begin"), "ErrClaimLost is an answer")
	m.Hook(func(context.Context, storetest.When, string, idemflight.Claim) error { return idemflight.ErrInvalidKey })
	_, err := s.Read(ctx, "key")
	require.ErrorIs(t, err, idemflight.ErrInvalidKey)
	require.Zero(t, errorsOf("read"), "ErrInvalidKey is an answer")

	m.Hook(nil)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, s.Watch(gone, c), context.Canceled)
	require.Zero(t, errorsOf("watch"), "its caller has gone")
	late, cancel := context.WithTimeout(ctx, 0)
	defer cancel()
	require.ErrorIs(t, s.Watch(late, c), context.DeadlineExceeded)
	require.Equal(t, 1.0, errorsOf("watch"), "the store was too slow")

	enough := errors.New("enough")
	require.Equal(t, enough, s.Unsettled(ctx, func(string, idemflight.Standing) error { return enough }))
	require.Zero(t, errorsOf("unsettled"), "it was ended by whom it told")
	require.Panics(t, func() { _ = s.Unsettled(ctx, func(string, idemflight.Standing) error { panic("theirs") }) })
	require.Zero(t, errorsOf("unsettled"), "it is not the store that panics")
	m.Fail("Unsettled", storetest.After, 1)
	require.ErrorIs(t, s.Unsettled(ctx, func(string, idemflight.Standing) error { return nil }), storetest.ErrFailed)
	require.Equal(t, 1.0, errorsOf("unsettled"))

	m.Hook(func(context.Context, storetest.When, string, idemflight.Claim) error { panic("the store's") })
	require.Panics(t, func() { _, _ = s.Forget(ctx, c) })
	require.Equal(t, 1.0, errorsOf("forget"), "a store that panics has failed")
	count, _ := gather(t, r).observed(t, "idemflight_store_duration_seconds", "forget")
	require.Equal(t, uint64(1), count)
}

// TestMeasureStore_SettlesInATransactionOfItsOwn: what a store can do beside the verbs, it does with the claims of a
// cache that has the measured one.
func TestMeasureStore_SettlesInATransactionOfItsOwn(t *testing.T) {
	m := storetest.Mem()
	c, r := newCache(t, options{Store: m})
	got, err := c.Do(context.Background(), "key", func(ctx context.Context) (string, error) {
		claim, settlement, err := idemflight.Settling(ctx, "receipt", nil)
		if err == nil {
			_, err = m.Settle(ctx, claim, settlement)
		}
		return "receipt", err
	})
	require.NoError(t, err)
	require.Equal(t, "receipt", got)
	count, _ := gather(t, r).observed(t, "idemflight_store_duration_seconds", "settle")
	require.Equal(t, uint64(1), count, "the cache's own, which finds the outcome that counts")
}
