// Package payment is what the recipes for brokers have in common: a payment that is taken once per ID, whichever
// message asks for it and how often, and what its outcome means for the message. Read it first. Each recipe is then
// the way from a message of its broker to [Service.Take], and from a [Fate] to the broker's verbs.
//
// The key is the payment's own ID. Its producer makes it once per intent, before the first attempt to send, and
// writes it into the message. What the broker numbers (offset, stream sequence, message ID, receipt handle) cannot be
// the key: it names one copy of the message, or one delivery of it. A producer that did not hear the broker's answer
// sends again, and that is another copy with another number.
//
// A broker delivers again above all after its consumer has crashed. So the keys must outlive the process: give the
// cache a Store. In memory alone it stops the duplicates that arrive while the process lives.
//
// The TTL must be longer than the broker can deliver the message again, or its producer send it again. Each recipe
// says how long that is for its broker.
package payment

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemtest"
)

// Order is what a message asks for, as JSON.
type Order struct {
	Customer string `json:"customer"`
	ID       string `json:"id"`
	Cents    int    `json:"cents"`
}

// Key names the payment, for our own cache and for the bank.
func (o Order) Key() idemflight.Key { return idemflight.Key{Scope: o.Customer, ID: o.ID} }

// fingerprint is of what the key does not say: the same ID with another amount is a mistake of the producer.
func (o Order) fingerprint() idemflight.Fingerprint {
	return idemflight.FingerprintOf(strconv.AppendInt(nil, int64(o.Cents), 10))
}

// ErrNoAmount: an order that no delivery will make a good one.
var ErrNoAmount = errors.New("payment: the amount must be above 0")

// Bank is the effect. In production it is your bank's client, in the tests an idemtest.Bank.
type Bank interface {
	Charge(ctx context.Context, key string, cents int) (idemtest.Receipt, error)
	Find(ctx context.Context, key string) (idemtest.Receipt, error)
}

// Options of a [Service].
type Options struct {
	Bank  Bank
	Store idemflight.Store // nil = memory alone, which does not survive a restart

	// TTL is how long a payment is remembered: longer than its message can come again.
	TTL time.Duration

	// MaxWait is how long Take waits for the same payment to be taken elsewhere, or for the bank to be asked about
	// it. It must be shorter than the broker waits for an acknowledgement. 0 = 10 s.
	MaxWait time.Duration
}

// Service takes payments. It is safe for concurrent use.
type Service struct {
	bank    Bank
	cache   *idemflight.Cache[idemflight.Key, idemtest.Receipt]
	maxWait time.Duration
}

// New returns a Service, or the cache's error about the options.
func New(o Options) (*Service, error) {
	s := &Service{bank: o.Bank, maxWait: cmp.Or(o.MaxWait, 10*time.Second)}
	var err error
	s.cache, err = idemflight.New(idemflight.Options[idemflight.Key, idemtest.Receipt]{
		TTL:              o.TTL,
		HoldTTL:          -1, // this is money: held until somebody has found out
		EffectsAnnounced: true,
		Reconcile:        s.findOut,
		Store:            o.Store,
	})
	return s, err
}

// Close waits for the payments under way: call it after the consumer has stopped, before the process exits.
func (s *Service) Close(ctx context.Context) error { return s.cache.Close(ctx) }

// Take takes the payment that a message asks for, once, and says what is to become of the message. The error says
// why; a message that is [Done] has one, too, if the answer is no.
func (s *Service) Take(ctx context.Context, message []byte) (Fate, error) {
	var o Order
	if err := json.Unmarshal(message, &o); err != nil {
		return Rejected, fmt.Errorf("payment: not an order: %w", err)
	}
	result, err := s.cache.DoResult(ctx, o.Key(), func(ctx context.Context) (idemtest.Receipt, error) {
		return s.charge(ctx, o)
	}, idemflight.WithFingerprint(o.fingerprint()), idemflight.WithMaxWait(s.maxWait))
	return FateOf(result, err), err
}

// charge is what happens once. It may outlive the delivery of its message.
//
// In a cache without EffectsAnnounced it would begin with idemflight.NoEffect(ctx).
func (s *Service) charge(ctx context.Context, o Order) (idemtest.Receipt, error) {
	if o.Cents <= 0 {
		return idemtest.Receipt{}, idemflight.Final(ErrNoAmount) // a real answer
	}
	// From here on a failure is "unknown", not "try again".
	if err := idemflight.BeginEffect(ctx); err != nil {
		return idemtest.Receipt{}, err
	}
	receipt, err := s.bank.Charge(ctx, o.Key().String(), o.Cents)
	switch {
	case errors.Is(err, idemtest.ErrDeclined):
		err = idemflight.Final(err) // another one
	case errors.Is(err, idemtest.ErrRefused):
		idemflight.NoEffect(ctx) // certainly not charged: the next delivery tries again
	}
	return receipt, err
}

// Reconcile asks the bank now about a payment that is held: for a person who works off what was set aside.
func (s *Service) Reconcile(ctx context.Context, key idemflight.Key) error {
	_, err := s.cache.Reconcile(ctx, key)
	return err
}

// findOut asks the bank about a payment whose outcome is unknown, when the next delivery asks for it.
func (s *Service) findOut(ctx context.Context, key idemflight.Key, _ idemflight.Entry[idemtest.Receipt]) (idemtest.Receipt, error) {
	receipt, err := s.bank.Find(ctx, key.String())
	if errors.Is(err, idemtest.ErrNotFound) {
		err = idemflight.Retryable(err) // not charged: charge runs
	}
	return receipt, err
}
