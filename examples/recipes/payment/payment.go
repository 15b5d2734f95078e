// Package payment is what the broker recipes share: a service that takes each payment once, however many messages ask
// for it, and a [Fate], which says what its outcome means for the message. Read it first. Each recipe then shows the
// way from a message of its broker to [Service.Take], and from a Fate to the broker's verbs.
//
// The key is the payment's own ID. The producer makes it once per intent, before its first attempt to send, and
// writes it into the message. The broker's numbers (offset, stream sequence, message ID, receipt handle) are no keys:
// each names one copy of the message, or one delivery of it. A producer that does not hear the broker's answer sends
// again, and so makes another copy with another number.
//
// Most redeliveries follow a crash of the consumer. So the keys must outlive the process: give the cache a Store. In
// memory alone it stops only the duplicates that arrive while the process lives.
//
// The TTL must be longer than the same payment can come again, redelivered by the broker or sent again by the
// producer. Each recipe says how long that is for its broker.
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

// fingerprint covers what the key does not: the same ID with another amount is a mistake of the producer.
func (o Order) fingerprint() idemflight.Fingerprint {
	return idemflight.FingerprintOf(strconv.AppendInt(nil, int64(o.Cents), 10))
}

// ErrNoAmount refuses an order without an amount.
var ErrNoAmount = errors.New("payment: the amount must be above 0")

// Bank is the effect. In production it is your bank's client, in the tests an idemtest.Bank.
type Bank interface {
	Charge(ctx context.Context, key string, cents int) (idemtest.Receipt, error)
	Find(ctx context.Context, key string) (idemtest.Receipt, error)
}

// Options of a [Service].
type Options struct {
	Bank  Bank
	Store idemflight.Store // nil = memory alone, which forgets the payments in a restart

	// TTL is how long a payment is remembered. Make it longer than the payment's message can come again.
	TTL time.Duration

	// MaxWait is how long a duplicate waits for the first one, or for findOut. Make it shorter than the broker waits
	// for an acknowledgement. 0 = 10 s.
	MaxWait time.Duration
}

// Service takes payments. It is safe for concurrent use.
type Service struct {
	bank    Bank
	cache   *idemflight.Cache[idemflight.Key, idemtest.Receipt]
	maxWait time.Duration
}

// New returns a Service, or an error that names the bad options.
func New(o Options) (*Service, error) {
	s := &Service{bank: o.Bank, maxWait: cmp.Or(o.MaxWait, 10*time.Second)}
	var err error
	s.cache, err = idemflight.New(idemflight.Options[idemflight.Key, idemtest.Receipt]{
		TTL:              o.TTL,
		HoldTTL:          -1, // it is money: hold an unknown payment until somebody has found out
		EffectsAnnounced: true,
		Reconcile:        s.findOut,
		Store:            o.Store,
	})
	return s, err
}

// Close waits for the payments in flight. Call it after the consumer has stopped, before the process exits.
func (s *Service) Close(ctx context.Context) error { return s.cache.Close(ctx) }

// Take takes the payment that a message asks for, once, and returns what to do with the message. The error says why;
// a message that is [Done] has an error, too, if the payment was refused.
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

// charge runs once per payment, and may outlive its caller. In a cache without EffectsAnnounced it would begin with
// idemflight.NoEffect(ctx).
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

// Reconcile asks the bank about a held payment now. It is for whoever works through the messages set aside.
func (s *Service) Reconcile(ctx context.Context, key idemflight.Key) error {
	_, err := s.cache.Reconcile(ctx, key)
	return err
}

// findOut asks the bank what became of a held payment, when the next message asks for that payment. ErrNotFound must
// mean that no charge can still arrive: docs/stores.md says why.
func (s *Service) findOut(ctx context.Context, key idemflight.Key, _ idemflight.Entry[idemtest.Receipt]) (idemtest.Receipt, error) {
	receipt, err := s.bank.Find(ctx, key.String())
	if errors.Is(err, idemtest.ErrNotFound) {
		err = idemflight.Retryable(err) // not charged: charge runs
	}
	return receipt, err
}
