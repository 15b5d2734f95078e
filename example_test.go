package idemflight_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/idemflight/idemflight"
)

// exampleBank stands for any service that must not be asked twice for one thing. What it fails with
// tells whether it did the thing.
type exampleBank struct {
	trouble error // of the next charge
	booked  map[string]string
}

var (
	errExDeclined = errors.New("card declined")   // the bank's answer
	errExDown     = errors.New("bank is down")    // nothing was sent
	errExLost     = errors.New("connection lost") // sent, but no answer came: booked or not?
)

// charge books the payment named by id, once or more often: it does not look.
func (b *exampleBank) charge(ctx context.Context, id string) (receipt string, err error) {
	err, b.trouble = b.trouble, nil
	if err != nil && err != errExLost {
		return "", err
	}
	receipt = "receipt " + strconv.Itoa(len(b.booked)+1)
	if b.booked == nil {
		b.booked = make(map[string]string)
	}
	b.booked[id] = receipt
	if err != nil {
		return "", err
	}
	return receipt, nil
}

// pay is an fn as it should be; the examples about something else use it. What it does, Example,
// ExampleBeginEffect, ExampleNoEffect and ExampleFinal show.
func (b *exampleBank) pay(ctx context.Context, id string) (receipt string, err error) {
	if err := idemflight.BeginEffect(ctx); err != nil {
		return "", err
	}
	receipt, err = b.charge(ctx, id)
	switch {
	case errors.Is(err, errExDeclined):
		err = idemflight.Final(err)
	case errors.Is(err, errExDown):
		idemflight.NoEffect(ctx)
	}
	return receipt, err
}

// A payment that is guarded as it should be. The key comes from the client, made once per intent
// and sent with every retry; BeginEffect stands right before the call that must not happen twice.
func Example() {
	ctx := context.Background()
	payments := idemflight.MustNew(idemflight.Options[idemflight.Key, string]{})
	bank := new(exampleBank)

	pay := func(ctx context.Context, customer, id string) (string, error) {
		key := idemflight.Key{Scope: customer, ID: id}
		return payments.Do(ctx, key, func(ctx context.Context) (string, error) {
			if err := idemflight.BeginEffect(ctx); err != nil {
				return "", err
			}
			receipt, err := bank.charge(ctx, customer+"/"+id) // the ID alone may also be another customer's
			switch {
			case errors.Is(err, errExDeclined):
				err = idemflight.Final(err) // a real answer: replayed like a receipt
			case errors.Is(err, errExDown):
				idemflight.NoEffect(ctx) // certainly not booked: a retry may try again
			}
			return receipt, err
		})
	}

	bank.trouble = errExDown
	for try := 1; try <= 3; try++ { // the second charges, the third does not again
		receipt, err := pay(ctx, "ann", "rent-may")
		fmt.Printf("may, try %d: %q, %v\n", try, receipt, err)
	}

	bank.trouble = errExLost
	for try := 1; try <= 2; try++ { // the second does not charge again, as long as nobody knows
		_, err := pay(ctx, "ann", "rent-june")
		fmt.Printf("june, try %d: unknown: %t\n", try, errors.Is(err, idemflight.ErrOutcomeUnknown))
	}
	// Output:
	// may, try 1: "", bank is down
	// may, try 2: "receipt 1", <nil>
	// may, try 3: "receipt 1", <nil>
	// june, try 1: unknown: true
	// june, try 2: unknown: true
}

// The error names every bad field at once.
func ExampleNew() {
	_, err := idemflight.New(idemflight.Options[string, []byte]{
		TTL:        -time.Hour,
		MaxWaiters: -1,
	})
	fmt.Println(err)

	_, err = idemflight.New(idemflight.Options[string, []byte]{
		TTL:        24 * time.Hour, // longer than any client retries
		MaxEntries: 2_000_000,      // more than new keys per day
		MaxWeight:  256 << 20,      // bytes of values, as Weigh counts them
		Weigh:      func(key string, value []byte) int64 { return int64(len(key) + len(value)) },
	})
	fmt.Println(err)
	// Output:
	// idemflight: Options.TTL is -1h0m0s: must not be negative (0 means DefaultTTL)
	// idemflight: Options.MaxWaiters is -1: must not be negative (0 means no bound)
	// <nil>
}

// fn may outlive its caller, who leaves when its own context ends. So it captures values, such as
// the address here, and nothing that the caller closes, reuses or reads afterwards: no request, no
// body, no buffer, no variable of the caller that fn would assign to.
func ExampleCache_Do() {
	ctx := context.Background()
	welcomed := idemflight.MustNew(idemflight.Options[string, string]{})

	welcome := func(ctx context.Context, address string) (string, error) {
		return welcomed.Do(ctx, address, func(ctx context.Context) (string, error) {
			if err := idemflight.BeginEffect(ctx); err != nil {
				return "", err
			}
			fmt.Println("mail to", address)
			return "welcome, " + address, nil
		})
	}
	fmt.Println(welcome(ctx, "ann@example.com"))
	fmt.Println(welcome(ctx, "ann@example.com"))
	// Output:
	// mail to ann@example.com
	// welcome, ann@example.com <nil>
	// welcome, ann@example.com <nil>
}

// DoResult also tells where the outcome comes from, and how long it is kept.
func ExampleCache_DoResult() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, int]{TTL: time.Hour})
	answer := func(context.Context) (int, error) { return 42, nil }

	for range 2 {
		r, err := cache.DoResult(ctx, "question", answer)
		fmt.Println(r.Value, err, r.Source, "kept for", r.ExpiresAt.Sub(r.CompletedAt))
	}
	// Output:
	// 42 <nil> executed kept for 1h0m0s
	// 42 <nil> replayed kept for 1h0m0s
}

// An ordinary function becomes once-only, and its callers go on calling a function. A replay through
// it allocates nothing.
func ExampleWrap() {
	type order struct {
		customer, id string
		cents        int
	}
	cache := idemflight.MustNew(idemflight.Options[idemflight.Key, string]{})
	book := func(ctx context.Context, o order) (string, error) {
		if err := idemflight.BeginEffect(ctx); err != nil {
			return "", err
		}
		return fmt.Sprintf("booked %d", o.cents), nil
	}
	bookOnce := idemflight.Wrap(cache,
		func(o order) (idemflight.Key, idemflight.Fingerprint, error) {
			payload := idemflight.FingerprintOf(strconv.AppendInt(nil, int64(o.cents), 10))
			return idemflight.Key{Scope: o.customer, ID: o.id}, payload, nil
		}, book)

	ctx := context.Background()
	fmt.Println(bookOnce(ctx, order{"ann", "o-1", 100}))
	fmt.Println(bookOnce(ctx, order{"ann", "o-1", 100}))
	_, err := bookOnce(ctx, order{"ann", "o-1", 999})
	fmt.Println(errors.Is(err, idemflight.ErrKeyReused))
	// Output:
	// booked 100 <nil>
	// booked 100 <nil>
	// true
}

// Two customers may choose the same ID: they do not meet. A missing part is a missing header, say,
// and must not become the key that everybody shares.
func ExampleKey() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[idemflight.Key, string]{})
	pay := func(customer, id string) (string, error) {
		return cache.Do(ctx, idemflight.Key{Scope: customer, ID: id},
			func(context.Context) (string, error) { return "paid by " + customer, nil })
	}
	fmt.Println(pay("ann", "1"))
	fmt.Println(pay("bob", "1"))
	_, err := pay("bob", "")
	fmt.Println(errors.Is(err, idemflight.ErrInvalidKey))
	// Output:
	// paid by ann <nil>
	// paid by bob <nil>
	// true
}

// The client makes the ID once per intent, before the retry loop. One made inside the loop would
// make each attempt a payment of its own.
func ExampleNewID() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	bank := &exampleBank{trouble: errExDown}

	id := idemflight.NewID()
	for attempt := 1; attempt <= 3; attempt++ {
		receipt, err := cache.Do(ctx, id, func(ctx context.Context) (string, error) {
			return bank.pay(ctx, id)
		})
		fmt.Printf("attempt %d: %s %v\n", attempt, receipt, err)
	}
	fmt.Println("length", len(id))
	// Output:
	// attempt 1:  bank is down
	// attempt 2: receipt 1 <nil>
	// attempt 3: receipt 1 <nil>
	// length 36
}

// From BeginEffect on, a failure is "unknown" and not "try again": not even one that looks harmless,
// such as that of the own database after the money was taken.
func ExampleBeginEffect() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	bank := new(exampleBank)
	databaseFull := errors.New("disk full")

	pay := func(ctx context.Context) (string, error) {
		if err := idemflight.BeginEffect(ctx); err != nil {
			return "", err // too late, or nothing guards the call: do not begin
		}
		if _, err := bank.charge(ctx, "order-1"); err != nil {
			return "", err
		}
		return "", databaseFull
	}
	for range 2 {
		_, err := cache.Do(ctx, "order-1", pay)
		fmt.Println(errors.Is(err, idemflight.ErrOutcomeUnknown), errors.Is(err, databaseFull))
	}
	fmt.Println("charges:", len(bank.booked))

	_, err := pay(ctx) // forgot the cache
	fmt.Println(errors.Is(err, idemflight.ErrNotExecuting))
	// Output:
	// true true
	// true true
	// charges: 1
	// true
}

// NoEffect takes BeginEffect back where the failure is certain to have had no effect.
func ExampleNoEffect() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	bank := &exampleBank{trouble: errExDown}

	pay := func(ctx context.Context) (string, error) {
		if err := idemflight.BeginEffect(ctx); err != nil {
			return "", err
		}
		receipt, err := bank.charge(ctx, "order-1")
		if errors.Is(err, errExDown) {
			idemflight.NoEffect(ctx)
		}
		return receipt, err
	}
	fmt.Println(cache.Do(ctx, "order-1", pay))
	fmt.Println(cache.Do(ctx, "order-1", pay))
	// Output:
	//  bank is down
	// receipt 1 <nil>
}

// A real answer is replayed, be it a refusal: the card is not tried again.
func ExampleFinal() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	bank := &exampleBank{trouble: errExDeclined}

	pay := func(ctx context.Context) (string, error) {
		if err := idemflight.BeginEffect(ctx); err != nil {
			return "", err
		}
		receipt, err := bank.charge(ctx, "order-1")
		if errors.Is(err, errExDeclined) {
			err = idemflight.Final(err)
		}
		return receipt, err
	}
	for range 2 {
		_, err := cache.Do(ctx, "order-1", pay)
		fmt.Println(err, err == errExDeclined) // callers get the error that was marked
	}
	// Output:
	// card declined true
	// card declined true
}

// Retryable means: certainly no effect, so the next call runs fn again. It is also how a value is
// returned that must not be kept.
func ExampleRetryable() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	pending := errors.New("still pending")

	polls := 0
	poll := func(context.Context) (string, error) {
		if polls++; polls < 3 {
			return fmt.Sprintf("%d of 3 done", polls), idemflight.Retryable(pending)
		}
		return "complete", nil
	}
	for range 4 {
		fmt.Println(cache.Do(ctx, "job-1", poll))
	}
	// Output:
	// 1 of 3 done still pending
	// 2 of 3 done still pending
	// complete <nil>
	// complete <nil>
}

// Unknown holds the key: fn does not run again until someone finds out what became of it. It is for
// errors that are known to be ambiguous; after BeginEffect, every error without a marker is.
func ExampleUnknown() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	bank := &exampleBank{trouble: errExLost}

	pay := func(ctx context.Context) (string, error) {
		receipt, err := bank.charge(ctx, "order-1")
		if errors.Is(err, errExLost) {
			err = idemflight.Unknown(err)
		}
		return receipt, err
	}
	for range 2 {
		_, err := cache.Do(ctx, "order-1", pay)
		fmt.Println(errors.Is(err, idemflight.ErrOutcomeUnknown), errors.Is(err, errExLost))
	}
	fmt.Println("charges:", len(bank.booked))
	// Output:
	// true true
	// true true
	// charges: 1
}

// What becomes of an error about which fn said nothing. No classifier can know: an operation that
// matters calls BeginEffect.
func ExampleClassifyDefault() {
	for _, err := range []error{
		errors.New("not found"),
		&net.OpError{Op: "dial", Err: errors.New("connection refused")},
		&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded},
		context.DeadlineExceeded,
		idemflight.Final(errors.New("card declined")),
		nil,
	} {
		fmt.Printf("%-7v  %v\n", idemflight.ClassifyDefault(err), err)
	}
	// Output:
	// release  not found
	// release  dial: connection refused
	// hold     read: i/o timeout
	// hold     context deadline exceeded
	// retain   card declined
	// retain   <nil>
}

// A Classify of one's own knows the errors of one's own, and leaves the others to the default. It is
// asked only where fn said nothing about its effect: here, where there is none.
func ExampleOptions_classify() {
	ctx := context.Background()
	noSuchAccount := errors.New("no such account")
	cache := idemflight.MustNew(idemflight.Options[string, string]{
		Classify: func(err error) idemflight.Disposition {
			if errors.Is(err, noSuchAccount) {
				return idemflight.Retain // a real answer
			}
			return idemflight.ClassifyDefault(err)
		},
	})
	verify := func(context.Context) (string, error) {
		fmt.Println("verifying")
		return "", noSuchAccount
	}
	for range 2 {
		_, err := cache.Do(ctx, "account-1", verify)
		fmt.Println(err)
	}
	// Output:
	// verifying
	// no such account
	// no such account
}

// Reconcile turns "unknown" from a dead end into an answer: it asks the bank. Here the answer to
// one charge was lost after the bank had booked it; the other never got there.
func ExampleOptions_reconcile() {
	ctx := context.Background()
	bank := new(exampleBank)
	cache := idemflight.MustNew(idemflight.Options[string, string]{
		Reconcile: func(ctx context.Context, key string, held idemflight.Entry[string]) (string, error) {
			fmt.Printf("  asking about %s: %v\n", key, held.Err)
			if receipt, ok := bank.booked[key]; ok {
				return receipt, nil // it took place: retained, fn does not run
			}
			return "", idemflight.Retryable(errors.New("not booked")) // it did not: fn runs
		},
	})
	pay := func(id string) {
		r, err := cache.DoResult(ctx, id, func(ctx context.Context) (string, error) {
			return bank.pay(ctx, id)
		})
		if errors.Is(err, idemflight.ErrOutcomeUnknown) {
			fmt.Println(id, "unknown")
			return
		}
		fmt.Println(id, r.Value, r.Source)
	}

	bank.trouble = errExLost // after it was booked
	pay("rent")
	pay("rent")
	bank.trouble = errors.New("timeout") // before it was
	pay("phone")
	pay("phone")
	// Output:
	// rent unknown
	//   asking about rent: connection lost
	// rent receipt 1 reconciled
	// phone unknown
	//   asking about phone: timeout
	// phone receipt 2 executed
}

// A person who has found out settles a held key by hand.
func ExampleCache_Resolve() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	pay := func(context.Context) (string, error) { return "", idemflight.Unknown(errExLost) }
	for _, id := range []string{"rent", "phone", "food"} {
		_, _ = cache.Do(ctx, id, pay)
	}

	// The bank's statement shows the rent but not the phone bill; the food is still unclear.
	fmt.Println(cache.Resolve("rent", "receipt 7", nil))
	fmt.Println(cache.Resolve("phone", "", idemflight.Retryable(errors.New("not booked"))))
	fmt.Println(cache.Resolve("food", "", errors.New("statement not there yet")))

	payNow := func(context.Context) (string, error) { return "receipt 8", nil }
	fmt.Println(cache.Do(ctx, "rent", payNow))
	fmt.Println(cache.Do(ctx, "phone", payNow))
	_, err := cache.Do(ctx, "food", payNow)
	fmt.Println(errors.Is(err, idemflight.ErrOutcomeUnknown))
	// Output:
	// true
	// true
	// false
	// receipt 7 <nil>
	// receipt 8 <nil>
	// true
}

// The fingerprint tells a retry from the same key used for something else.
func ExampleWithFingerprint() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	pay := func(body string) (string, error) {
		return cache.Do(ctx, "key-1",
			func(context.Context) (string, error) { return "paid " + body, nil },
			idemflight.WithFingerprint(idemflight.FingerprintOf([]byte(body))))
	}
	fmt.Println(pay("40 EUR to Bob"))
	fmt.Println(pay("40 EUR to Bob"))
	_, err := pay("90 EUR to Bob")
	fmt.Println(errors.Is(err, idemflight.ErrKeyReused))
	// Output:
	// paid 40 EUR to Bob <nil>
	// paid 40 EUR to Bob <nil>
	// true
}

// Where one part ends and the next begins counts, too.
func ExampleFingerprintOf() {
	a := idemflight.FingerprintOf([]byte("POST"), []byte("/pay"), []byte(`{"cents":40}`))
	b := idemflight.FingerprintOf([]byte("POST"), []byte("/pay"), []byte(`{"cents":40}`))
	c := idemflight.FingerprintOf([]byte("POST"), []byte("/pay{"), []byte(`"cents":40}`))
	fmt.Println(a == b, a == c)
	// Output: true false
}

// One outcome is kept longer than the others; another one only shared with who waits for it.
func ExampleWithTTL() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, int]{TTL: time.Hour})
	runs := 0
	count := func(context.Context) (int, error) { runs++; return runs, nil }

	r, _ := cache.DoResult(ctx, "long", count, idemflight.WithTTL(72*time.Hour))
	fmt.Println(r.Value, r.ExpiresAt.Sub(r.CompletedAt))
	for range 2 {
		r, _ = cache.DoResult(ctx, "not kept", count, idemflight.WithTTL(0))
		fmt.Println(r.Value, r.ExpiresAt.IsZero())
	}
	// Output:
	// 1 72h0m0s
	// 2 true
	// 3 true
}

// A caller that cannot wait says so, and retries the same key later. The flight goes on.
func ExampleWithMaxWait() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	begun, bankAnswers := make(chan struct{}), make(chan struct{})
	slow := func(context.Context) (string, error) {
		close(begun)
		<-bankAnswers
		return "receipt 1", nil
	}
	go func() { _, _ = cache.Do(ctx, "order-1", slow) }()
	<-begun

	_, err := cache.Do(ctx, "order-1", slow, idemflight.WithMaxWait(idemflight.NoWait))
	fmt.Println(errors.Is(err, idemflight.ErrInFlight))

	close(bankAnswers)
	fmt.Println(cache.Do(ctx, "order-1", slow, idemflight.WithMaxWait(time.Minute)))
	// Output:
	// true
	// receipt 1 <nil>
}

// The buffer is the caller's and is used again for the next message, so the call has to stay until
// fn is through with it, also if the context ends before.
func ExampleInline() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})

	var buf bytes.Buffer
	for _, text := range []string{"first", "second", "first"} {
		buf.Reset()
		buf.WriteString(text)
		id := buf.String() // a copy: the cache keeps it
		fmt.Println(cache.Do(ctx, id, func(context.Context) (string, error) {
			fmt.Printf("handling %s\n", buf.Bytes())
			return "done", nil
		}, idemflight.Inline()))
	}
	// Output:
	// handling first
	// done <nil>
	// handling second
	// done <nil>
	// done <nil>
}

// Lookup looks without touching: no use is counted, nothing runs.
func ExampleCache_Lookup() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	_, _ = cache.Do(ctx, "paid", func(context.Context) (string, error) { return "receipt 1", nil })
	_, _ = cache.Do(ctx, "lost", func(context.Context) (string, error) { return "", idemflight.Unknown(errExLost) })

	for _, key := range []string{"paid", "lost", "never seen"} {
		e, ok := cache.Lookup(key)
		fmt.Printf("%s: %t %v %q %v\n", key, ok, e.State, e.Value, e.Err)
	}
	// Output:
	// paid: true retained "receipt 1" <nil>
	// lost: true held "" connection lost
	// never seen: false absent "" <nil>
}

// No lock is held while the loop body runs: it may call the cache.
func ExampleCache_All() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, int]{})
	for i, key := range []string{"a", "b", "c"} {
		_, _ = cache.Do(ctx, key, func(context.Context) (int, error) { return i, nil })
	}
	for key, e := range cache.All() {
		if e.Value > 0 {
			cache.Forget(key)
		}
		fmt.Println(key, e.State, e.Value)
	}
	fmt.Println("left:", cache.Len())
	// Unordered output:
	// a retained 0
	// b retained 1
	// c retained 2
	// left: 1
}

// Forget makes the next call run fn again. It is the user's word against the record: for a held key,
// which may have had its effect, Resolve is the careful way.
func ExampleCache_Forget() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	remind := func(context.Context) (string, error) {
		fmt.Println("reminder sent")
		return "", nil
	}
	_, _ = cache.Do(ctx, "invoice-1", remind)
	_, _ = cache.Do(ctx, "invoice-1", remind)
	fmt.Println(cache.Forget("invoice-1"), cache.Forget("invoice-1"))
	_, _ = cache.Do(ctx, "invoice-1", remind)
	// Output:
	// reminder sent
	// true false
	// reminder sent
}

// Counts of calls by how they ended, of executions by what became of them, and the present state.
func ExampleCache_Stats() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	paid := func(context.Context) (string, error) { return "receipt", nil }
	down := func(context.Context) (string, error) { return "", idemflight.Retryable(errExDown) }
	lost := func(context.Context) (string, error) { return "", idemflight.Unknown(errExLost) }

	_, _ = cache.Do(ctx, "rent", paid)
	_, _ = cache.Do(ctx, "rent", paid)
	_, _ = cache.Do(ctx, "phone", down)
	_, _ = cache.Do(ctx, "food", lost)
	_, _ = cache.Do(ctx, "food", lost)

	s := cache.Stats()
	fmt.Println("calls:", s.Executed, "executed,", s.Replayed, "replayed,", s.OutcomeUnknown, "met a held key")
	fmt.Println("executions:", s.Retains, "retained,", s.Releases, "released,", s.Holds, "held")
	fmt.Println("now:", s.Entries, "entries,", s.Held, "of them held,", s.InFlight, "in flight")
	// Output:
	// calls: 3 executed, 1 replayed, 1 met a held key
	// executions: 1 retained, 1 released, 1 held
	// now: 2 entries, 1 of them held, 0 in flight
}

// Held keys wait for a person, flights that do not end for a debugger. Run this every minute or so.
func Example_alert() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	_, _ = cache.Do(ctx, "rent", func(context.Context) (string, error) { return "", idemflight.Unknown(errExLost) })
	begun, end, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = cache.Do(ctx, "phone", func(context.Context) (string, error) {
			close(begun)
			<-end
			return "", nil
		})
	}()
	<-begun
	const tooLong = 0 * time.Second // in real life a minute, or whatever no execution should take

	if s := cache.Stats(); s.Held+s.InFlight > 0 { // else spare the walk over all entries
		for key, e := range cache.All() {
			if e.State == idemflight.Held || e.State == idemflight.InFlight && time.Since(e.StartedAt) >= tooLong {
				fmt.Println("alert:", key, e.State, e.Err)
			}
		}
	}

	close(end)
	<-ended
	// Unordered output:
	// alert: rent held connection lost
	// alert: phone in flight <nil>
}

// An Observer is told every event, on the goroutine it concerns: it must be quick, and it may be
// called by many at once. Here it would count for a metrics endpoint.
func ExampleOptions_observer() {
	ctx := context.Background()
	calls := make(map[string]int) // with callers on several goroutines: an atomic per kind
	cache := idemflight.MustNew(idemflight.Options[string, string]{
		Observer: func(_ context.Context, e idemflight.Event[string]) { calls[e.Kind.String()]++ },
	})
	for range 3 {
		_, _ = cache.Do(ctx, "order-1", func(context.Context) (string, error) { return "", nil })
	}
	_, _ = cache.Do(ctx, "", func(context.Context) (string, error) { return "", nil })
	fmt.Println(calls)
	// Output: map[executed:1 rejected:1 replayed:2]
}

// Each call in a line, what somebody should look at as a warning.
func ExampleLogEvents() {
	ctx := context.Background()
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "took" { // differ from run to run
				return slog.Attr{}
			}
			return a
		},
	}))
	cache := idemflight.MustNew(idemflight.Options[string, string]{
		Observer: idemflight.LogEvents[string](logger),
	})
	bank := &exampleBank{trouble: errExDown}
	for range 3 {
		_, _ = cache.Do(ctx, "order-1", func(ctx context.Context) (string, error) { return bank.pay(ctx, "order-1") })
	}
	// Output:
	// level=INFO msg=idemflight event=executed key=order-1 disposition=release err="bank is down"
	// level=INFO msg=idemflight event=executed key=order-1 disposition=retain
	// level=INFO msg=idemflight event=replayed key=order-1
}

// Close refuses new executions and waits for those in flight. What is kept is replayed still.
func ExampleCache_Close() {
	ctx := context.Background()
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	pay := func(context.Context) (string, error) { return "paid", nil }
	_, _ = cache.Do(ctx, "rent", pay)

	// A deadline, because an execution may take long: then its key is still in flight, in All too.
	grace, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	fmt.Println(cache.Close(grace))

	fmt.Println(cache.Do(ctx, "rent", pay))
	_, err := cache.Do(ctx, "phone", pay)
	fmt.Println(errors.Is(err, idemflight.ErrClosed))
	// Output:
	// <nil>
	// paid <nil>
	// true
}

// A planned restart: Close, All, exit; Restore, listen. What was still in flight comes back as held:
// the old process may have had its effect, so somebody has to find out, as after a lost answer.
func ExampleCache_Restore() {
	ctx := context.Background()
	type saved struct {
		Key   string
		Entry idemflight.Entry[string]
		Err   string // an encoding cannot keep an error, only what it says
	}
	pay := func(context.Context) (string, error) { return "receipt", nil }

	// The old process, with one payment done and one that takes too long.
	old := idemflight.MustNew(idemflight.Options[string, string]{})
	_, _ = old.Do(ctx, "rent", pay)
	begun, end, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = old.Do(ctx, "phone", func(context.Context) (string, error) {
			close(begun)
			<-end
			return "", nil
		})
	}()
	<-begun
	grace, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	fmt.Println("close:", old.Close(grace))

	var file bytes.Buffer
	out := json.NewEncoder(&file)
	for key, e := range old.All() {
		s := saved{Key: key, Entry: e}
		if e.Err != nil {
			s.Err, s.Entry.Err = e.Err.Error(), nil
		}
		if err := out.Encode(s); err != nil {
			fmt.Println(err)
		}
	}
	close(end) // the process exits
	<-ended

	// The new process, before it listens.
	cache := idemflight.MustNew(idemflight.Options[string, string]{})
	for in := json.NewDecoder(&file); in.More(); {
		var s saved
		if err := in.Decode(&s); err != nil {
			fmt.Println(err)
			break
		}
		if s.Err != "" {
			s.Entry.Err = errors.New(s.Err)
		}
		if err := cache.Restore(s.Key, s.Entry); err != nil {
			fmt.Println(err) // expired meanwhile, say
		}
	}

	fmt.Println(cache.Do(ctx, "rent", pay))
	_, err := cache.Do(ctx, "phone", pay)
	fmt.Println(errors.Is(err, idemflight.ErrOutcomeUnknown), errors.Is(err, idemflight.ErrInterrupted))
	// Output:
	// close: context deadline exceeded
	// receipt <nil>
	// true true
}
