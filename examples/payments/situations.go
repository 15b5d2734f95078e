package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/idemflight/idemflight/idemtest"
)

const (
	shortTTL   = 200 * time.Millisecond // of the situation that outlasts it
	retryAfter = time.Second            // as the answers about an unknown outcome say
	stopGrace  = 10 * time.Second       // for what is under way when a situation ends
	stopAtOnce = 20 * time.Millisecond  // for what is under way when the restart comes

	anyCharges = -1 // of a situation whose bank fails by chance
)

// situation is something that goes wrong with payments, and how it is to end.
type situation struct {
	name    string
	world   worldOptions
	play    func(ctx context.Context, w *world) error // an error: it could not be played
	charges int                                       // that the bank is to book
	answers string                                    // that the clients are to see; "" = any
	perKey  int                                       // charges for one key that are in order; 0 = 1
	note    string                                    // for below the table
}

// situations returns all of them, in the order they are played in.
func situations(cfg config) []situation {
	n := cfg.duplicates
	storm := situation{
		name:    fmt.Sprintf("%d duplicates at once", n),
		play:    playStorm,
		charges: 1,
		answers: join("201", times(n-1, "201 replayed")),
	}
	if cfg.failures > 0 {
		// How often the bank fails is chance, and so are the answers. What is not is checked all
		// the same: nobody is charged twice.
		storm.world.failures, storm.charges, storm.answers = cfg.failures, anyCharges, ""
	}
	return []situation{
		storm,
		{
			name:    "answer lost, then retry",
			play:    playHangUp,
			charges: 1,
			answers: "hung up, 201 replayed",
		},
		{
			name: "same key, another amount",
			play: func(ctx context.Context, w *world) error {
				r := newRequest("ann")
				w.pay(ctx, r)
				other := r
				other.order.Cents *= 2
				w.pay(ctx, other)
				return nil
			},
			charges: 1,
			answers: "201, 422 key-reused",
		},
		{
			name: "no key at all",
			play: func(ctx context.Context, w *world) error {
				r := newRequest("ann")
				r.key.ID = ""
				w.pay(ctx, r)
				return nil
			},
			charges: 0,
			answers: "400 missing-key",
		},
		twice("bank down, then retry", "503 bank down, 201", func(w *world) {
			w.bank.FailNext(idemtest.Refuse)
		}),
		{
			name: "card declined, then retry",
			play: func(ctx context.Context, w *world) error {
				r := newRequest("ann")
				r.order.Card = cardDeclined
				w.payAgain(ctx, r, 2)
				return nil
			},
			charges: 0,
			answers: "402 declined, 402 replayed",
		},
		twice("bank timed out, had booked", "504 unknown, 201 replayed", func(w *world) {
			w.bank.FailNext(idemtest.LoseAnswer)
		}),
		twice("bank timed out, had not booked", "504 unknown, 201", func(w *world) {
			w.bank.FailNext(idemtest.LoseRequest)
		}),
		{
			name:    "bank down when asked about it",
			play:    playBankDownWhenAsked,
			charges: 1,
			answers: "504 unknown, 2x 409 outcome-unknown, 201 replayed",
		},
		twice("500 before the charge, retry", "500 database down, 201", func(w *world) {
			w.db.FailNextLook(databaseDown)
		}),
		twice("500 after the charge, retry", "500 unknown, 201 replayed", func(w *world) {
			w.db.FailNextSave(databaseDown)
		}),
		{
			name: "two customers, same key",
			play: func(ctx context.Context, w *world) error {
				ann := newRequest("ann")
				bob := ann
				bob.key.Scope = "bob"
				w.pay(ctx, ann)
				w.pay(ctx, bob)
				return nil
			},
			charges: 2,
			answers: "2x 201",
		},
		twice("panic before the charge, retry", "500 panic, 201", func(w *world) {
			w.db.FailNextLook(databasePanics)
		}),
		twice("panic after the charge, retry", "500 panic, 201 replayed", func(w *world) {
			w.db.FailNextSave(databasePanics)
		}),
		{
			name:  "retry after the TTL *",
			world: worldOptions{ttl: shortTTL},
			play: func(ctx context.Context, w *world) error {
				r := newRequest("ann")
				w.pay(ctx, r)
				if err := sleep(ctx, shortTTL+10*time.Millisecond); err != nil {
					return err
				}
				w.pay(ctx, r)
				return nil
			},
			charges: 2,
			answers: "2x 201",
			perKey:  2,
			note:    "* Forgotten by then: one charge in each TTL is in order (a day by default).",
		},
		{
			name:    "restart between two payments",
			play:    playRestart,
			charges: 2,
			answers: "201, cut off, 201 replayed, 409 outcome-unknown, 201 replayed",
		},
		{
			name:    fmt.Sprintf("%d duplicates, no library", n),
			world:   worldOptions{unguarded: true},
			play:    playStorm,
			charges: n,
			answers: times(n, "201"),
			perKey:  n,
		},
	}
}

// twice is a situation in which something fails once and the client asks once more: one charge.
func twice(name, answers string, fail func(*world)) situation {
	return situation{
		name: name,
		play: func(ctx context.Context, w *world) error {
			fail(w)
			w.payAgain(ctx, newRequest("ann"), 2)
			return nil
		},
		charges: 1,
		answers: answers,
	}
}

// playStorm: very many requests for one and the same payment at once.
func playStorm(ctx context.Context, w *world) error {
	return w.storm(ctx, newRequest("ann"), w.cfg.duplicates)
}

// playHangUp: the client hangs up while the bank is at work, and asks again.
func playHangUp(ctx context.Context, w *world) error {
	r := newRequest("ann")
	arrived, release := w.bank.HoldNext()
	defer release()

	impatient, hangUp := context.WithCancel(ctx)
	defer hangUp()
	gone := w.payInBackground(impatient, r)
	if err := wait(ctx, arrived); err != nil {
		return err
	}
	hangUp()
	<-gone
	release()
	w.pay(ctx, r)
	return nil
}

// playBankDownWhenAsked: the bank has booked, its answer is lost, and it is down when it is asked what
// became of the order. It is asked once in a second, however often the client asks.
func playBankDownWhenAsked(ctx context.Context, w *world) error {
	r := newRequest("ann")
	w.bank.FailNext(idemtest.LoseAnswer)
	w.bank.FailNextFind()
	w.payAgain(ctx, r, 3)
	if err := sleep(ctx, retryAfter); err != nil {
		return err
	}
	w.pay(ctx, r)
	return nil
}

// playRestart: one payment is done and another one is with the bank when the service must restart.
// Its keys go through a file.
func playRestart(ctx context.Context, w *world) error {
	dir, err := os.MkdirTemp("", "payments")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	keys := filepath.Join(dir, "keys")

	done, running := newRequest("ann"), newRequest("bob")
	w.pay(ctx, done)
	arrived, release := w.bank.HoldNext()
	defer release()
	cutOff := w.payInBackground(ctx, running)
	if err := wait(ctx, arrived); err != nil {
		return err
	}

	old := w.srv
	grace, cancel := context.WithTimeout(ctx, stopAtOnce)
	defer cancel()
	if err := old.stop(grace); err == nil {
		return errors.New("the old service stopped as if no payment were running")
	}
	<-cutOff
	if err := old.shop.saveKeys(keys); err != nil {
		return err
	}
	// The old process is gone, as far as anybody can tell: it listens no more, and what it learns
	// from now on is in no file.

	if err := w.open(worldOptions{}, keys); err != nil {
		return err
	}
	w.pay(ctx, done)
	w.pay(ctx, running) // the bank is still at work: unknown
	release()
	if err := old.shop.cache.Close(ctx); err != nil { // wait until it has booked
		return err
	}
	if err := sleep(ctx, retryAfter); err != nil {
		return err
	}
	w.pay(ctx, running)
	return nil
}

// run plays the situation in a world of its own and judges how it ended.
func (s situation) run(ctx context.Context, cfg config) row {
	r := row{name: s.name, note: s.note, lesson: s.world.unguarded}
	w, err := newWorld(cfg, s.world)
	if err != nil {
		r.wrong = append(r.wrong, err.Error())
		return r
	}
	// Generous: a situation that hangs is to fail, not to hang the program.
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second+time.Duration(cfg.duplicates)*cfg.latency)
	defer cancel()
	err = s.play(ctx, w)
	w.background.Wait()
	stopping, cancelStop := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancelStop()
	err = errors.Join(err, w.srv.stop(stopping))

	r.sent, r.answers = w.sent, w.seen()
	s.judge(&r, w, err)
	return r
}

// judge fills in what the bank booked, and what about it is wrong.
func (s situation) judge(r *row, w *world, err error) {
	var most int
	r.charges, most = w.bank.Charges()
	perKey := max(s.perKey, 1)
	if most > perKey {
		r.chargedTwice = true
		r.wrong = append(r.wrong, fmt.Sprintf("CHARGED TWICE: %d charges for one key", most))
	}
	if err != nil {
		r.wrong = append(r.wrong, err.Error())
	}
	if s.charges != anyCharges && r.charges != s.charges {
		r.wrong = append(r.wrong, fmt.Sprintf("expected charges: %d", s.charges))
	}
	if s.answers != "" && r.answers != s.answers {
		r.wrong = append(r.wrong, "expected "+s.answers)
		if w.trouble != nil {
			r.wrong = append(r.wrong, w.trouble.Error())
		}
	}
	for key, payments := range w.paid {
		if len(payments) > perKey {
			r.wrong = append(r.wrong,
				fmt.Sprintf("%s was told of %d payments for one key", key.Scope, len(payments)))
		}
	}
}

// sleep waits for a while, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	return wait(ctx, t.C)
}

// wait waits for a channel, or returns why ctx ended.
func wait[T any](ctx context.Context, c <-chan T) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// join is strings.Join without what is empty.
func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}
