package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/idemflight/idemflight/idemtest"
)

// Test cards, as payment providers have them.
const (
	cardGood     = "visa"
	cardDeclined = "declined" // refused every time
	cardTimeout  = "timeout"  // charged, but the bank's answer never arrives
)

// What a call to the bank can end with, besides success.
var (
	errDeclined  = idemtest.ErrDeclined // a real answer
	errBankDown  = idemtest.ErrRefused  // it certainly did nothing
	errNotBooked = idemtest.ErrNotFound // and will not be, if nothing more arrives
)

// booking is money taken from a customer.
type booking = idemtest.Receipt

// bank is a bank as services meet them: slow, down at times, and without any protection against
// duplicates. Its books charge a card as often as they are told to, and offer a look at them.
type bank struct {
	latency  time.Duration // of a charge
	failures float64       // share of the charges that fail by chance
	books    idemtest.Bank

	mu       sync.Mutex // guards what follows
	next     script[idemtest.Step]
	downNext int // looks at the books that are to fail
	holds    []*hold
}

func newBank(latency time.Duration, failures float64) *bank {
	return &bank{latency: latency, failures: failures}
}

// Charge takes money from a card. The reference is the caller's own; the bank books under it, as
// often as it is asked to. Without an answer the card may be charged.
func (b *bank) Charge(ctx context.Context, reference, card string, cents int) (booking, error) {
	b.books.Script(reference, b.step(card))
	return b.books.Charge(ctx, reference, cents)
}

// step is how the next call goes.
func (b *bank) step(card string) idemtest.Step {
	b.mu.Lock()
	defer b.mu.Unlock()
	step := b.next.pop()
	switch {
	case card == cardTimeout:
		step = idemtest.LoseAnswer
	case step == idemtest.OK && rand.Float64() < b.failures:
		step = []idemtest.Step{idemtest.Refuse, idemtest.LoseAnswer, idemtest.LoseRequest}[rand.N(3)]
	}
	switch {
	case step == idemtest.Refuse:
		return step // at once
	case card == cardDeclined:
		step = idemtest.Decline
	}
	var held *hold
	if len(b.holds) > 0 {
		held, b.holds = b.holds[0], b.holds[1:]
	}
	return step.During(func(ctx context.Context) {
		if held != nil {
			close(held.arrived)
			_ = wait(ctx, held.released)
		}
		_ = sleep(ctx, b.latency)
	})
}

// Find returns what the bank booked last under a reference; errNotBooked is a definite no.
func (b *bank) Find(ctx context.Context, reference string) (booking, error) {
	b.mu.Lock()
	down := b.downNext > 0
	if down {
		b.downNext--
	}
	b.mu.Unlock()
	if down {
		return booking{}, errBankDown // which says nothing about the order
	}
	return b.books.Find(ctx, reference)
}

// Charges returns how many bookings there are, and the most under one reference.
func (b *bank) Charges() (total, most int) {
	for _, booked := range b.books.Books() {
		total += len(booked)
		most = max(most, len(booked))
	}
	return total, most
}

// FailNext makes the next calls go wrong, a step each.
func (b *bank) FailNext(steps ...idemtest.Step) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next = append(b.next, steps...)
}

// FailNextFind makes the next look at the books fail.
func (b *bank) FailNextFind() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.downNext++
}

// hold is a call that the bank takes its time over.
type hold struct {
	arrived, released chan struct{}
}

// HoldNext keeps the next call waiting: arrived is closed once the bank has the order, and release
// lets it go on. release may be called more than once.
func (b *bank) HoldNext() (arrived <-chan struct{}, release func()) {
	h := &hold{arrived: make(chan struct{}), released: make(chan struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holds = append(b.holds, h)
	return h.arrived, sync.OnceFunc(func() { close(h.released) })
}

// database is the service's own: it outlives a restart of the service, and fails on demand.
type database struct {
	mu       sync.Mutex // guards what follows
	payments []payment
	onLook   script[databaseFault]
	onSave   script[databaseFault]
}

type databaseFault int

const (
	databaseDown   databaseFault = iota + 1
	databasePanics               // a bug in its driver
)

var errDatabase = errors.New("the database is down")

// CheckCustomer returns an error if the customer cannot be looked up.
func (d *database) CheckCustomer(string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.onLook.pop().do()
}

// Save stores a payment. Saving it again changes nothing.
func (d *database) Save(p payment) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.onSave.pop().do(); err != nil {
		return err
	}
	if !slices.Contains(d.payments, p) {
		d.payments = append(d.payments, p)
	}
	return nil
}

func (d *database) FailNextLook(f databaseFault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.onLook = append(d.onLook, f)
}

func (d *database) FailNextSave(f databaseFault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.onSave = append(d.onSave, f)
}

func (f databaseFault) do() error {
	switch f {
	case databaseDown:
		return errDatabase
	case databasePanics:
		panic("index out of range in the database driver")
	}
	return nil
}

// script is what the next calls are to do; zero values, and what follows the end, are normal.
type script[F comparable] []F

func (s *script[F]) pop() (next F) {
	if len(*s) > 0 {
		next, *s = (*s)[0], (*s)[1:]
	}
	return next
}
