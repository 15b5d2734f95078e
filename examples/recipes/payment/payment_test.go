package payment_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/examples/recipes/payment"
	"github.com/idemflight/idemflight/idemtest"
	"github.com/idemflight/idemflight/storetest"
)

const (
	rent     = `{"customer":"ann","id":"rent","cents":900}`
	rentKey  = "ann/rent"
	moreRent = `{"customer":"ann","id":"rent","cents":1000}`
)

// delivery is one delivery of a message, and what Take must say about it.
type delivery struct {
	message string
	fate    payment.Fate
	err     error // nil: none
}

func TestFates(t *testing.T) {
	for name, test := range map[string]struct {
		script     []idemtest.Step
		deliveries []delivery
		charges    int
	}{
		"taken, and told again": {
			nil, []delivery{{rent, payment.Done, nil}, {rent, payment.Done, nil}}, 1,
		},
		"a real answer is told again": {
			[]idemtest.Step{idemtest.Decline},
			[]delivery{{rent, payment.Done, idemtest.ErrDeclined}, {rent, payment.Done, idemtest.ErrDeclined}}, 0,
		},
		"certainly not charged: tried again": {
			[]idemtest.Step{idemtest.Refuse},
			[]delivery{{rent, payment.Later, idemtest.ErrRefused}, {rent, payment.Done, nil}}, 1,
		},
		"the answer is lost: found out": {
			[]idemtest.Step{idemtest.LoseAnswer},
			[]delivery{{rent, payment.Unknown, idemflight.ErrOutcomeUnknown}, {rent, payment.Done, nil}}, 1,
		},
		"the request is lost: found out, and charged": {
			[]idemtest.Step{idemtest.LoseRequest},
			[]delivery{{rent, payment.Unknown, idemflight.ErrOutcomeUnknown}, {rent, payment.Done, nil}}, 1,
		},
		"another payment under the same ID": {
			nil, []delivery{{rent, payment.Done, nil}, {moreRent, payment.Rejected, idemflight.ErrKeyReused}}, 1,
		},
		"an amount that is none": {
			nil, []delivery{{`{"customer":"ann","id":"rent"}`, payment.Done, payment.ErrNoAmount}}, 0,
		},
		"no ID": {
			nil, []delivery{{`{"customer":"ann","cents":900}`, payment.Rejected, idemflight.ErrInvalidKey}}, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var bank idemtest.Bank
				bank.Script(rentKey, test.script...)
				s := open(t, payment.Options{Bank: &bank})
				for i, d := range test.deliveries {
					fate, err := s.Take(t.Context(), []byte(d.message))
					require.Equal(t, d.fate, fate, "delivery %d: %v", i, err)
					require.ErrorIs(t, err, d.err)
				}
				require.Len(t, bank.Books()[rentKey], test.charges)
			})
		})
	}
}

func TestAnUnreadableMessageIsRejected(t *testing.T) {
	fate, err := open(t, payment.Options{}).Take(t.Context(), []byte("rent, please"))
	require.Equal(t, payment.Rejected, fate)
	require.Error(t, err)
}

// TestABankThatDoesNotSay: the payment is held, and never taken again by guess.
func TestABankThatDoesNotSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bank idemtest.Bank
		bank.Script(rentKey, idemtest.LoseAnswer)
		s := open(t, payment.Options{Bank: silent{&bank}})
		for range 3 {
			fate, err := s.Take(t.Context(), []byte(rent))
			require.Equal(t, payment.Unknown, fate, "%v", err)
			time.Sleep(30 * 24 * time.Hour)
		}
		bank.RequireOnce(t, rentKey)
	})
}

// silent is a bank that cannot say what it has booked.
type silent struct{ *idemtest.Bank }

func (silent) Find(context.Context, string) (idemtest.Receipt, error) {
	return idemtest.Receipt{}, errors.New("the bank is closed")
}

func TestADuplicateDoesNotWaitForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bank idemtest.Bank
		bank.Script(rentKey, idemtest.Slow(time.Minute))
		s := open(t, payment.Options{Bank: &bank, MaxWait: time.Second})
		fates := make(chan payment.Fate, 1)
		go func() {
			fate, _ := s.Take(context.Background(), []byte(rent))
			fates <- fate
		}()
		synctest.Wait()
		began := time.Now()
		fate, err := s.Take(t.Context(), []byte(rent))
		require.Equal(t, payment.Later, fate)
		require.ErrorIs(t, err, idemflight.ErrInFlight)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, payment.Done, <-fates)
		bank.RequireOnce(t, rentKey)
	})
}

// TestAConsumerThatStops leaves the message to its next delivery, while the payment is taken all the same.
func TestAConsumerThatStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bank idemtest.Bank
		ctx, stop := context.WithCancel(t.Context())
		bank.Script(rentKey, idemtest.OK.During(func(context.Context) { stop() }))
		s := open(t, payment.Options{Bank: &bank})
		fate, err := s.Take(ctx, []byte(rent))
		if fate != payment.Done { // whoever sees both, the end of ctx and the receipt, takes the receipt
			require.Equal(t, payment.Later, fate)
			require.ErrorIs(t, err, idemflight.ErrCallerLeft)
		}
		require.NoError(t, s.Close(t.Context()))
		bank.RequireOnce(t, rentKey)
	})
}

// TestRestart: the broker redelivers what the consumer had not acknowledged when it crashed.
func TestRestart(t *testing.T) {
	for name, test := range map[string]struct {
		store   idemflight.Store
		charges int
	}{
		"with a Store":    {storetest.Mem(), 1},
		"in memory alone": {nil, 2},
	} {
		t.Run(name, func(t *testing.T) {
			var bank idemtest.Bank
			for range 2 { // processes, of which the first dies before it has acknowledged
				fate, err := open(t, payment.Options{Bank: &bank, Store: test.store}).Take(t.Context(), []byte(rent))
				require.NoError(t, err)
				require.Equal(t, payment.Done, fate)
			}
			require.Len(t, bank.Books()[rentKey], test.charges)
		})
	}
}

func open(t *testing.T, o payment.Options) *payment.Service {
	o.TTL = 8 * 24 * time.Hour
	s, err := payment.New(o)
	require.NoError(t, err)
	return s
}
