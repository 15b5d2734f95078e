package idemtest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemtest"
)

// shop is the code under test: it takes a payment once per customer and ID.
type shop struct {
	bank  bank
	cache *idemflight.Cache[idemflight.Key, idemtest.Receipt]
}

// bank is what the shop needs of one: in production a client, in tests idemtest.Bank.
type bank interface {
	Charge(ctx context.Context, key string, amount int) (idemtest.Receipt, error)
	Find(ctx context.Context, key string) (idemtest.Receipt, error)
}

// newShop returns a shop that keeps its keys in store, if that is not nil.
func newShop(b bank, store idemflight.Store) *shop {
	s := &shop{bank: b}
	s.cache = idemflight.MustNew(idemflight.Options[idemflight.Key, idemtest.Receipt]{
		TTL:              24 * time.Hour,
		EffectsAnnounced: true,
		Reconcile:        s.findOut,
		Store:            store,
	})
	return s
}

func (s *shop) pay(ctx context.Context, customer, id string, amount int) (idemtest.Receipt, error) {
	key := idemflight.Key{Scope: customer, ID: id}
	return s.cache.Do(ctx, key, func(ctx context.Context) (idemtest.Receipt, error) {
		if err := idemflight.BeginEffect(ctx); err != nil {
			return idemtest.Receipt{}, err
		}
		receipt, err := s.bank.Charge(ctx, key.String(), amount)
		switch {
		case errors.Is(err, idemtest.ErrDeclined):
			err = idemflight.Final(err) // a real answer
		case errors.Is(err, idemtest.ErrRefused):
			idemflight.NoEffect(ctx) // certainly not charged
		}
		return receipt, err
	})
}

// findOut is the shop's Reconcile.
func (s *shop) findOut(ctx context.Context, key idemflight.Key, _ idemflight.Entry[idemtest.Receipt]) (idemtest.Receipt, error) {
	receipt, err := s.bank.Find(ctx, key.String())
	if errors.Is(err, idemtest.ErrNotFound) {
		err = idemflight.Retryable(err) // not charged: pay's fn runs
	}
	return receipt, err
}

// The bank takes the money, and its answer is lost. Then a hundred clients try again at once.
func Example() {
	ctx := context.Background()
	var bank idemtest.Bank
	s := newShop(&bank, nil)
	bank.Script("ann/rent", idemtest.LoseAnswer)

	_, err := s.pay(ctx, "ann", "rent", 900)
	fmt.Println("unknown:", errors.Is(err, idemflight.ErrOutcomeUnknown))

	rs := idemtest.Storm(nil, 100, func(ctx context.Context, _ int) (idemtest.Receipt, error) {
		return s.pay(ctx, "ann", "rent", 900)
	})
	fmt.Println(rs[0].Value.ID, rs[0].Err)
	fmt.Println(idemtest.CheckSame(rs), bank.CheckOnce("ann/rent"))
	// Output:
	// unknown: true
	// pay-1 <nil>
	// <nil> <nil>
}

// A check that fails tells what happened to the key. This shop charges again whatever the error was.
func ExampleBank_CheckOnce() {
	ctx := context.Background()
	var bank idemtest.Bank
	bank.Script("rent", idemtest.LoseAnswer)
	for {
		if _, err := bank.Charge(ctx, "rent", 900); err == nil {
			break
		}
	}
	err := bank.CheckOnce("rent")
	fmt.Println(withoutTimes(err))
	// Output:
	// idemtest: "rent" was charged 2 times, and should have been once. Since …:
	// 	charge 1   arrives: amount 900, plays LoseAnswer
	// 	charge 1   books pay-1
	// 	charge 1   caller gets "idemtest: no answer: read tcp: i/o timeout"
	// 	charge 2   arrives: amount 900, plays OK
	// 	charge 2   books pay-2, CHARGED 2 TIMES
	// 	charge 2   caller gets pay-2
}

// A day's TTL, in no time: the same payment is taken once within it, and again after it.
func TestExampleADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bank idemtest.Bank
		s := newShop(&bank, nil)
		pay := func(ctx context.Context, _ int) (idemtest.Receipt, error) { return s.pay(ctx, "ann", "rent", 900) }
		bank.Script("ann/rent", idemtest.Slow(time.Minute))

		rs := idemtest.Storm(t, 100, pay) // 99 join the one that is at the bank
		require.NoError(t, rs[0].Err)
		idemtest.RequireSame(t, rs)

		time.Sleep(24*time.Hour - time.Nanosecond)
		_, err := pay(t.Context(), 0)
		require.NoError(t, err)
		bank.RequireOnce(t, "ann/rent")

		time.Sleep(time.Nanosecond)
		_, err = pay(t.Context(), 0)
		require.NoError(t, err)
		require.Len(t, bank.Books()["ann/rent"], 2, "after the TTL it is a new payment")
	})
}
