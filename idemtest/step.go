package idemtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// Step says how one call of [Bank.Charge] goes. The zero Step is [OK].
//
//	step         money taken  the caller gets
//	OK           yes          a Receipt
//	Decline      no           ErrDeclined: a real answer, and final
//	Refuse       no           ErrRefused: it certainly did nothing
//	LoseRequest  no           ErrNoAnswer, with a timeout
//	LoseAnswer   yes          ErrNoAnswer, with a timeout: no client can tell it from LoseRequest
//	Reset        yes          ErrNoAnswer, with a connection reset
//	Hang         yes, first   ErrNoAnswer, once ctx ends, or the test (see Bank.RequireOnce): not before
//	PanicBefore  no           a panic
//	PanicAfter   yes          a panic
//	Slow(d)      yes          a Receipt, after d
//
// Whenever no answer comes, the money is taken, except after LoseRequest: so code that then
// charges again is caught.
type Step struct {
	end    ending
	during *during
}

type ending int

const (
	answers ending = iota
	declines
	refuses
	losesRequest
	losesAnswer
	resets
	hangs
	panicsBefore
	panicsAfter
)

var endings = [...]string{
	"OK", "Decline", "Refuse", "LoseRequest", "LoseAnswer", "Reset", "Hang", "PanicBefore", "PanicAfter",
}

// during is what happens while the bank works on an order.
type during struct {
	name string
	f    func(context.Context)
}

// The steps: see the table at [Step].
var (
	OK          = Step{end: answers}
	Decline     = Step{end: declines}
	Refuse      = Step{end: refuses}
	LoseRequest = Step{end: losesRequest}
	LoseAnswer  = Step{end: losesAnswer}
	Reset       = Step{end: resets}
	Hang        = Step{end: hangs}
	PanicBefore = Step{end: panicsBefore}
	PanicAfter  = Step{end: panicsAfter}
)

// Slow is [OK] after the time d, which passes in no time in a testing/synctest bubble. A caller
// whose ctx ends before that gets [ErrNoAnswer] at once, and its money is taken all the same: the
// bank has the order.
func Slow(d time.Duration) Step {
	return Step{during: &during{fmt.Sprintf("Slow(%v)", d), func(ctx context.Context) {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}}}
}

// During returns a Step that calls f while the bank works on the order, and then goes on as s. f
// may tell the test that the order has arrived, and keep it there: that is for tests outside of
// testing/synctest, where [Slow] would take real time. If ctx has ended when f returns, the caller
// has left: if s takes money, it is taken, and nobody gets the answer.
func (s Step) During(f func(ctx context.Context)) Step {
	s.during = &during{s.String() + ", During", f}
	return s
}

// String returns the name of the step, as in the table at [Step].
func (s Step) String() string {
	switch {
	case s.during != nil:
		return s.during.name
	case s.end < 0 || int(s.end) >= len(endings):
		return fmt.Sprintf("Step(%d)", s.end)
	}
	return endings[s.end]
}

// Errors of [Bank]. Those that are no answer also wrap what the client of a real bank would see,
// for errors.Is and errors.As, and for classifiers such as [idemflight.ClassifyLenient].
var (
	ErrDeclined = errors.New("idemtest: the card was declined")      // a real answer, and final
	ErrRefused  = errors.New("idemtest: the bank cannot be reached") // nothing was sent: certainly not charged
	ErrNoAnswer = errors.New("idemtest: no answer")                  // charged or not: nobody knows
	ErrNotFound = errors.New("idemtest: no such charge")             // of Find: a definite no
	ErrPending  = errors.New("idemtest: the charge is under way")    // of Find: "not yet" is not "no"
)

func noAnswer(cause error) error { return fmt.Errorf("%w: %w", ErrNoAnswer, cause) }

func timedOut() error { return noAnswer(onTheWire("read", os.ErrDeadlineExceeded)) }

func onTheWire(op string, err error) error { return &net.OpError{Op: op, Net: "tcp", Err: err} }

// ended returns why ctx ended, also as ctx.Err().
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); !errors.Is(cause, ctx.Err()) {
		return fmt.Errorf("%w: %w", ctx.Err(), cause)
	}
	return ctx.Err()
}
