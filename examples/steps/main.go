// Steps is an order of three steps, each of which must happen once. Every step is a Do of its own
// inside the Do of the order: when one fails, the retry of the order replays the steps that are
// done and goes on where it stopped.
//
//	go run ./examples/steps
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/idemflight/idemflight"
)

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "steps:", err)
		os.Exit(1)
	}
}

// shop is the world that the steps change, and the cache that guards it.
type shop struct {
	cache *idemflight.Cache[idemflight.Key, string]
	out   io.Writer

	carrierDown bool
	done        map[string]int // how often each step had its effect
}

// order takes the order with the given ID: charge, reserve, ship.
func (s *shop) order(ctx context.Context, customer, id string) (string, error) {
	r, err := s.cache.DoResult(ctx, idemflight.Key{Scope: customer, ID: id},
		func(ctx context.Context) (string, error) {
			// First thing: the order has no effect but those of its steps, and each step's key guards its
			// own. So whichever of their errors comes back from here, the order may be tried again.
			// Without this line any of them would hold the order.
			idemflight.NoEffect(ctx)

			for _, step := range []struct {
				name string
				do   func(context.Context) (string, error)
			}{{"charge", s.charge}, {"reserve", s.reserve}, {"ship", s.ship}} {
				key := idemflight.Key{Scope: customer, ID: id + "/" + step.name}
				r, err := s.cache.DoResult(ctx, key, step.do)
				s.report("  "+step.name, r, err)
				if err != nil {
					return "", fmt.Errorf("%s: %w", step.name, err)
				}
			}
			return "order complete", nil
		})
	s.report("order", r, err)
	return r.Value, err
}

func (s *shop) charge(ctx context.Context) (string, error) { return s.effect(ctx, "charge", "$40") }
func (s *shop) reserve(ctx context.Context) (string, error) {
	return s.effect(ctx, "reserve", "shelf 7")
}

func (s *shop) ship(ctx context.Context) (string, error) {
	idemflight.NoEffect(ctx)
	if s.carrierDown {
		return "", errors.New("the carrier is down") // before any effect: the step may be tried again
	}
	return s.effect(ctx, "ship", "parcel 1")
}

// effect stands for the call that must not happen twice.
func (s *shop) effect(ctx context.Context, step, receipt string) (string, error) {
	idemflight.NoEffect(ctx)
	if err := idemflight.BeginEffect(ctx); err != nil {
		return "", err
	}
	s.done[step]++
	return receipt, nil
}

func (s *shop) report(what string, r idemflight.Result[string], err error) {
	answer := r.Value
	if err != nil {
		answer = "failed: " + err.Error()
	}
	fmt.Fprintf(s.out, "%-9s  %-8v  %s\n", what, r.Source, answer)
}

func run(out io.Writer) error {
	cache, err := idemflight.New(idemflight.Options[idemflight.Key, string]{})
	if err != nil {
		return err
	}
	s := &shop{cache: cache, out: out, done: make(map[string]int)}

	fmt.Fprintln(out, "The first try, with the carrier down:")
	s.carrierDown = true
	if _, err := s.order(context.Background(), "ann", "order-1"); err == nil {
		return errors.New("the order went through without the carrier")
	}

	fmt.Fprintln(out, "\nThe retry, with the carrier up again:")
	s.carrierDown = false
	if _, err := s.order(context.Background(), "ann", "order-1"); err != nil {
		return err
	}

	fmt.Fprintln(out, "\nA duplicate, later:")
	if _, err := s.order(context.Background(), "ann", "order-1"); err != nil {
		return err
	}

	for _, step := range []string{"charge", "reserve", "ship"} {
		if n := s.done[step]; n != 1 {
			return fmt.Errorf("%s happened %d times, not once", step, n)
		}
	}
	fmt.Fprintln(out, "\nEach step happened once.")
	return nil
}
