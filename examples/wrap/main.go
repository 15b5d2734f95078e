// Wrap makes an ordinary function once-only: the key and the fingerprint come from its argument,
// and callers go on calling a function.
//
//	go run ./examples/wrap
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/idemflight/idemflight"
)

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "wrap:", err)
		os.Exit(1)
	}
}

// Transfer is a request. Its RequestID is the client's: made once per intent and sent again with
// every retry.
type Transfer struct {
	Account, RequestID string
	To                 string
	Cents              int64
}

// ledger is what must not be written to twice.
type ledger struct {
	mu     sync.Mutex
	booked []Transfer
}

// book is the ordinary function. What makes it safe to wrap is that it says what its errors mean.
func (l *ledger) book(ctx context.Context, t Transfer) (receipt string, err error) {
	idemflight.NoEffect(ctx) // so far nothing has begun
	if t.Cents > 100_000 {
		return "", idemflight.Final(errors.New("over the limit")) // a real answer, so it is replayed
	}
	// From here on the money may have moved: should anything below fail, nobody moves it again.
	if err := idemflight.BeginEffect(ctx); err != nil {
		return "", err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.booked = append(l.booked, t)
	return fmt.Sprintf("receipt %d", len(l.booked)), nil
}

var errNoRequestID = errors.New("a transfer needs a request ID")

// keyOf tells whose transfer it is and which, and what a retry must repeat to be one.
func keyOf(t Transfer) (idemflight.Key, idemflight.Fingerprint, error) {
	if t.RequestID == "" {
		return idemflight.Key{}, idemflight.Fingerprint{}, errNoRequestID
	}
	payload := idemflight.FingerprintOf([]byte(t.To), strconv.AppendInt(nil, t.Cents, 10))
	return idemflight.Key{Scope: t.Account, ID: t.RequestID}, payload, nil
}

func run(out io.Writer) error {
	cache, err := idemflight.New(idemflight.Options[idemflight.Key, string]{})
	if err != nil {
		return err
	}
	books := new(ledger)
	transfer := idemflight.Wrap(cache, keyOf, books.book)

	rent := Transfer{Account: "ann", RequestID: "r-1", To: "landlord", Cents: 80_000}
	var impatient errgroup.Group // clicks ten times: nine join the flight of the first, or find it done
	for range 10 {
		impatient.Go(func() error {
			_, err := transfer(context.Background(), rent)
			return err
		})
	}
	if err := impatient.Wait(); err != nil {
		return err
	}

	for _, call := range []struct {
		what string
		t    Transfer
	}{
		{"the same once more", rent},
		{"other amount, same ID", Transfer{"ann", "r-1", "landlord", 90_000}},
		{"bob's, same ID", Transfer{"bob", "r-1", "landlord", 80_000}},
		{"next month's rent", Transfer{"ann", "r-2", "landlord", 80_000}},
		{"a boat", Transfer{"ann", "r-3", "boatyard", 5_000_000}},
		{"the boat again", Transfer{"ann", "r-3", "boatyard", 5_000_000}},
		{"no request ID", Transfer{"ann", "", "landlord", 80_000}},
	} {
		answer, err := transfer(context.Background(), call.t)
		if err != nil {
			answer = err.Error()
		}
		fmt.Fprintf(out, "%-21s  %s\n", call.what, answer)
	}

	fmt.Fprintf(out, "\n17 requests, %d transfers booked\n", len(books.booked))
	if len(books.booked) != 3 {
		return fmt.Errorf("3 transfers were meant, %d are booked", len(books.booked))
	}
	return nil
}
