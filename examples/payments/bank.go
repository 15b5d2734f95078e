package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Test cards, as payment providers have them.
const (
	cardGood     = "visa"
	cardDeclined = "declined" // refused every time
	cardTimeout  = "timeout"  // charged, but the bank's answer never arrives
)

// What a call to the bank can end with, besides success.
var (
	errDeclined   = errors.New("the card was declined")                  // a real answer
	errBankDown   = errors.New("the bank does not take orders now")      // it certainly did nothing
	errNoAnswer   = errors.New("the bank did not answer in time")        // it may have charged the card
	errNotBooked  = errors.New("the bank has no such booking")           // and will not make one any more
	errProcessing = errors.New("the bank is still working on the order") // "not yet" is not "no"
)

// bank is a bank as services meet them: slow, down at times, and without any protection against
// duplicates. It charges a card as often as it is told to. What it offers is a look at its books.
type bank struct {
	latency  time.Duration // of a charge
	failures float64       // share of the charges that fail by chance

	mu      sync.Mutex           // guards what follows; never held while a call waits
	books   map[string][]booking // by the reference of the order
	working map[string]int       // calls that have not ended, by reference
	next    script[bankFault]
	onFind  script[bankFault]
	holds   []*hold
}

// booking is money taken from a customer.
type booking struct {
	ID    string
	Cents int
}

// bankFault is how a call goes wrong.
type bankFault int

const (
	bankDown     bankFault = iota + 1 // refused, nothing booked
	answerLost                        // booked, and the answer lost on its way back
	requestLost                       // not booked, which looks just the same from outside
	bankFaultEnd                      // one past the last
)

func newBank(latency time.Duration, failures float64) *bank {
	return &bank{
		latency:  latency,
		failures: failures,
		books:    make(map[string][]booking),
		working:  make(map[string]int),
	}
}

// Charge takes money from a card. The reference is the caller's own; the bank books under it, as
// often as it is asked to. Without an answer (errNoAnswer, or ctx ended) the card may be charged.
func (b *bank) Charge(ctx context.Context, reference, card string, cents int) (booking, error) {
	fault, held := b.begin(reference, card)
	if fault == bankDown {
		b.end(reference)
		return booking{}, errBankDown
	}
	if held != nil {
		close(held.arrived)
		select {
		case <-held.released:
		case <-ctx.Done():
		}
	}
	wait := time.NewTimer(b.latency)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
		// Who asked waits no longer. The order is with the bank all the same.
		b.book(reference, cents)
		return booking{}, fmt.Errorf("%w: %w", errNoAnswer, context.Cause(ctx))
	}
	switch {
	case card == cardDeclined:
		b.end(reference)
		return booking{}, errDeclined
	case fault == requestLost:
		b.end(reference)
		return booking{}, errNoAnswer
	case fault == answerLost:
		b.book(reference, cents)
		return booking{}, errNoAnswer
	}
	return b.book(reference, cents), nil
}

// Find returns what the bank booked last under a reference; errNotBooked is a definite no.
func (b *bank) Find(reference string) (booking, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.onFind.pop() == bankDown {
		return booking{}, errBankDown // which says nothing about the order
	}
	if b.working[reference] > 0 {
		return booking{}, errProcessing
	}
	booked := b.books[reference]
	if len(booked) == 0 {
		return booking{}, errNotBooked
	}
	return booked[len(booked)-1], nil
}

func (b *bank) begin(reference, card string) (bankFault, *hold) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.working[reference]++
	fault := b.next.pop()
	switch {
	case card == cardTimeout:
		fault = answerLost
	case fault == 0 && rand.Float64() < b.failures:
		fault = bankDown + rand.N(bankFaultEnd-bankDown)
	}
	if len(b.holds) == 0 {
		return fault, nil
	}
	held := b.holds[0]
	b.holds = b.holds[1:]
	return fault, held
}

// book writes the booking and ends the call in one step, so that Find never sees an order that is
// neither being worked on nor booked and yet will be.
func (b *bank) book(reference string, cents int) booking {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.endLocked(reference)
	n := 1
	for _, booked := range b.books {
		n += len(booked)
	}
	bk := booking{ID: fmt.Sprintf("pay-%d", n), Cents: cents}
	b.books[reference] = append(b.books[reference], bk)
	return bk
}

func (b *bank) end(reference string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.endLocked(reference)
}

func (b *bank) endLocked(reference string) {
	if b.working[reference]--; b.working[reference] == 0 {
		delete(b.working, reference)
	}
}

// Charges returns how many bookings there are, and the most under one reference.
func (b *bank) Charges() (total, most int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, booked := range b.books {
		total += len(booked)
		most = max(most, len(booked))
	}
	return total, most
}

// FailNext makes the next calls go wrong, one fault each.
func (b *bank) FailNext(faults ...bankFault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next = append(b.next, faults...)
}

// FailNextFind makes the next look at the books fail.
func (b *bank) FailNextFind() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.onFind = append(b.onFind, bankDown)
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
type script[F ~int] []F

func (s *script[F]) pop() F {
	if len(*s) == 0 {
		return 0
	}
	f := (*s)[0]
	*s = (*s)[1:]
	return f
}
