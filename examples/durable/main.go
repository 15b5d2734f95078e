// Durable takes payments by a process that is killed in the middle of one, and started again: nobody is
// charged twice. The keys are in a file, by boltstore.
//
//	go run -C examples/durable .             keys in a file of its own, removed at the end
//	go run -C examples/durable . -data FILE  keys in FILE, the bank's books in FILE.bank; both stay
//
// The part to start from is pay, and open and reconcile below it. situations.go is the world around them: it
// kills and starts the process that pays, and reads the bank's books.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/boltstore"
)

// pay charges a card once per key, whenever the process dies.
func (s *shop) pay(ctx context.Context, key string, cents int) (idemflight.Result[receipt], error) {
	return s.keys.DoResult(ctx, key, func(ctx context.Context) (receipt, error) {
		s.reach(beforeEffect)
		// That something is about to happen is on the disk before it does. Whoever finds that asks the bank.
		if err := idemflight.BeginEffect(ctx); err != nil {
			return receipt{}, err
		}
		s.reach(beforeCharge)
		r, err := s.bank.charge(key, cents)
		s.reach(afterCharge)
		return r, err
	})
}

// shop is what the process has.
type shop struct {
	file  *boltstore.DB // nil: the keys are in memory
	keys  *idemflight.Cache[string, receipt]
	bank  bank
	reach func(spot)
}

type receipt struct {
	Charge int // in the bank's books
	Cents  int
}

// open opens the file, which one process at a time can, and makes the cache whose keys are in it.
func (s *shop) open(path string, asksBank bool) (err error) {
	if s.file, err = boltstore.Open(path, boltstore.Options{}); err != nil {
		return err
	}
	payments, err := s.file.Store("payments") // one name for each kind of operation
	if err != nil {
		return err
	}
	o := idemflight.Options[string, receipt]{
		Store:            payments,
		EffectsAnnounced: true, // pay calls BeginEffect: a process that dies before has charged nobody
		HoldTTL:          -1,   // a payment of unknown outcome does not become harmless with time
	}
	if asksBank {
		o.Reconcile = s.reconcile
	}
	s.keys, err = idemflight.New(o)
	return err
}

// reconcile finds out what became of a payment that was begun and not recorded. The bank of this demo is sure
// that a charge it does not find will not come any more; of a real one find out, or give it the key.
func (s *shop) reconcile(_ context.Context, key string, _ idemflight.Entry[receipt]) (receipt, error) {
	r, err := s.bank.find(key)
	if errors.Is(err, errNoCharge) {
		return receipt{}, idemflight.Retryable(err) // pay runs now
	}
	return r, err
}

func main() {
	if os.Getenv(childKey) != "" {
		exit(child(context.Background()))
	}
	data := flag.String("data", "", "keep the keys in `FILE`, and the books of the bank in FILE.bank")
	flag.Parse()
	if flag.NArg() > 0 {
		exit(fmt.Errorf("unexpected argument %q (-h explains)", flag.Arg(0)))
	}
	if *data == "" {
		folder, err := os.MkdirTemp("", "durable")
		if err != nil {
			exit(err)
		}
		*data = filepath.Join(folder, "keys")
		err = play(os.Stdout, *data)
		exit(errors.Join(err, os.RemoveAll(folder)))
	}
	exit(play(os.Stdout, *data))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "durable: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}
