package metrics

import (
	"context"
	"errors"
	"time"

	"github.com/idemflight/idemflight"
)

// Verbs are the verbs of a Store, by the numbers that a measured one tells.
var Verbs = []string{"claim", "begin", "settle", "renew", "watch", "read", "give_back", "forget", "unsettled"}

const (
	claim = iota
	begin
	settle
	renew
	watch
	read
	giveBack
	forget
	unsettled
)

// Measured is a Store that tells how long each verb took, and whether it failed. ErrClaimLost and ErrInvalidKey
// are answers, and a verb that ended because its caller left has not failed either. Only Unsettled allocates.
type Measured struct {
	Store idemflight.Store
	Told  func(ctx context.Context, verb int, took time.Duration, failed bool)
}

// errPanicked stands for the answer until there is one.
var errPanicked = errors.New("the store panicked, or called runtime.Goexit")

// ask asks the store, and tells about it.
func (m *Measured) ask(ctx context.Context, verb int, ask func() error) (err error) {
	began := time.Now()
	defer func() { m.Told(ctx, verb, time.Since(began), failed(ctx, err)) }()
	err = errPanicked
	err = ask()
	return err
}

func failed(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() != context.Canceled &&
		!errors.Is(err, idemflight.ErrClaimLost) && !errors.Is(err, idemflight.ErrInvalidKey)
}

func (m *Measured) Claim(ctx context.Context, r idemflight.ClaimRequest) (x idemflight.Standing, err error) {
	err = m.ask(ctx, claim, func() (err error) { x, err = m.Store.Claim(ctx, r); return err })
	return x, err
}

func (m *Measured) Begin(ctx context.Context, c idemflight.Claim, lease time.Duration) error {
	return m.ask(ctx, begin, func() error { return m.Store.Begin(ctx, c, lease) })
}

func (m *Measured) Settle(ctx context.Context, c idemflight.Claim, s idemflight.Settlement) (x idemflight.Standing, err error) {
	err = m.ask(ctx, settle, func() (err error) { x, err = m.Store.Settle(ctx, c, s); return err })
	return x, err
}

func (m *Measured) Renew(ctx context.Context, cs []idemflight.Claim, lease time.Duration) (lost []idemflight.ClaimID, err error) {
	err = m.ask(ctx, renew, func() (err error) { lost, err = m.Store.Renew(ctx, cs, lease); return err })
	return lost, err
}

func (m *Measured) Watch(ctx context.Context, c idemflight.Claim) error {
	return m.ask(ctx, watch, func() error { return m.Store.Watch(ctx, c) })
}

func (m *Measured) Read(ctx context.Context, key string) (x idemflight.Standing, err error) {
	err = m.ask(ctx, read, func() (err error) { x, err = m.Store.Read(ctx, key); return err })
	return x, err
}

func (m *Measured) GiveBack(ctx context.Context, c idemflight.Claim) error {
	return m.ask(ctx, giveBack, func() error { return m.Store.GiveBack(ctx, c) })
}

func (m *Measured) Forget(ctx context.Context, c idemflight.Claim) (was bool, err error) {
	err = m.ask(ctx, forget, func() (err error) { was, err = m.Store.Forget(ctx, c); return err })
	return was, err
}

// Unsettled is no failure if f ended it.
func (m *Measured) Unsettled(ctx context.Context, f func(key string, s idemflight.Standing) error) (err error) {
	began, byStore := time.Now(), true
	defer func() { m.Told(ctx, unsettled, time.Since(began), byStore && failed(ctx, err)) }()
	err = errPanicked
	err = m.Store.Unsettled(ctx, func(key string, s idemflight.Standing) error {
		byStore = false // also if f panics
		err := f(key, s)
		byStore = err == nil
		return err
	})
	return err
}
