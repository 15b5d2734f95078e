package idemtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Bank is an effect that can be counted. Charge takes money as often as it is called: it
// is the business of the code under test to call it once. What goes wrong is scripted
// per key, call by call.
//
// The zero Bank is ready, and must not be copied once it is in use. All methods are safe
// for concurrent use.
type Bank struct {
	mu     sync.Mutex // guards what follows; never held while a call waits, or a function of the user runs
	pages  map[string]*page
	calls  map[*charge]bool // of Charge that have not returned
	booked int              // charges of all keys
}

// page is what the bank knows of a key.
type page struct {
	script   []Step // of the next calls of Charge
	calls    int    // of Charge
	working  int    // orders that are neither booked nor turned down yet
	receipts []Receipt
	history  history
}

// Receipt is money taken.
type Receipt struct {
	ID     string // of this charge, and of no other of this Bank
	Key    string
	Amount int
}

// Script sets how the next calls of Charge under key go, one step each, after the steps that
// were set before. Calls after the last step are [OK]. A retry of the code under test is a
// call like any other.
func (b *Bank) Script(key string, steps ...Step) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.pageLocked(key)
	p.script = append(p.script, steps...)
}

func (b *Bank) pageLocked(key string) *page {
	p := b.pages[key]
	if p == nil {
		if b.pages == nil {
			b.pages = make(map[string]*page)
		}
		p = new(page)
		b.pages[key] = p
	}
	return p
}

// Charge takes money once more, if its step does; the table at [Step] says what it returns. If the
// step says so, it waits, at most until ctx ends. If ctx has ended already, nothing is sent: no
// money is taken and no step is played.
func (b *Bank) Charge(ctx context.Context, key string, amount int) (r Receipt, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := b.arrive(ctx, cancel, key, amount)
	if c == nil {
		return Receipt{}, fmt.Errorf("idemtest: nothing was sent: %w", ended(ctx))
	}
	returned := false
	defer func() { c.leave(returned, r, err) }()
	r, err = c.play(ctx)
	returned = true
	return r, err
}

// charge is one call of Charge.
type charge struct {
	bank   *Bank
	page   *page
	key    string
	amount int
	number int // of the calls under this key
	step   Step
	hangUp context.CancelCauseFunc
	done   bool // the order is booked or turned down; guarded by bank.mu
}

// arrive notes the order, and takes the step for it. It returns nil if ctx has ended.
func (b *Bank) arrive(ctx context.Context, hangUp context.CancelCauseFunc, key string, amount int) *charge {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.pageLocked(key)
	p.calls++
	c := &charge{bank: b, page: p, key: key, amount: amount, number: p.calls, hangUp: hangUp}
	if ctx.Err() != nil {
		c.noteLocked("is not sent: %v", ended(ctx))
		return nil
	}
	if len(p.script) > 0 {
		c.step, p.script = p.script[0], p.script[1:]
	}
	p.working++
	if b.calls == nil {
		b.calls = make(map[*charge]bool)
	}
	b.calls[c] = true
	c.noteLocked("arrives: amount %d, plays %v", amount, c.step)
	return c
}

// play is the step.
func (c *charge) play(ctx context.Context) (Receipt, error) {
	if d := c.step.during; d != nil {
		d.f(ctx)
	}
	switch c.step.end {
	case declines:
		c.turnDown("declines")
		if ctx.Err() != nil {
			return Receipt{}, noAnswer(ended(ctx))
		}
		return Receipt{}, ErrDeclined
	case refuses:
		c.turnDown("refuses")
		return Receipt{}, fmt.Errorf("%w: %w", ErrRefused, onTheWire("dial", errConnRefused))
	case losesRequest:
		c.turnDown("never reaches the bank")
		return Receipt{}, timedOut()
	case panicsBefore:
		c.turnDown("never reaches the bank")
		panic(fmt.Sprintf("idemtest: PanicBefore, as scripted for %q", c.key))
	}
	r := c.book()
	switch c.step.end {
	case losesAnswer:
		return Receipt{}, timedOut()
	case resets:
		return Receipt{}, noAnswer(onTheWire("read", errReset))
	case hangs:
		<-ctx.Done()
	case panicsAfter:
		panic(fmt.Sprintf("idemtest: PanicAfter, as scripted for %q", c.key))
	}
	if ctx.Err() != nil { // whoever asked has left; the order is with the bank all the same
		return Receipt{}, noAnswer(ended(ctx))
	}
	return r, nil
}

// book takes the money and ends the work on the order in one step: Find never sees an order that is
// neither and yet will be booked.
func (c *charge) book() Receipt {
	c.bank.mu.Lock()
	defer c.bank.mu.Unlock()
	c.doneLocked()
	c.bank.booked++
	r := Receipt{ID: fmt.Sprintf("pay-%d", c.bank.booked), Key: c.key, Amount: c.amount}
	c.page.receipts = append(c.page.receipts, r)
	if n := len(c.page.receipts); n > 1 {
		c.noteLocked("books %s, CHARGED %d TIMES", r.ID, n)
	} else {
		c.noteLocked("books %s", r.ID)
	}
	return r
}

func (c *charge) turnDown(how string) {
	c.bank.mu.Lock()
	defer c.bank.mu.Unlock()
	c.doneLocked()
	c.noteLocked("%s", how)
}

func (c *charge) doneLocked() {
	if !c.done {
		c.done = true
		c.page.working--
	}
}

// leave notes what the caller gets. A call that is ended by a function of the user before it is
// booked never will be.
func (c *charge) leave(returned bool, r Receipt, err error) {
	c.bank.mu.Lock()
	defer c.bank.mu.Unlock()
	c.doneLocked()
	delete(c.bank.calls, c)
	switch {
	case !returned:
		c.noteLocked("ends by panic or Goexit")
	case err != nil:
		c.noteLocked("caller gets %q", err)
	default:
		c.noteLocked("caller gets %s", r.ID)
	}
}

func (c *charge) noteLocked(format string, args ...any) {
	c.page.history.note(fmt.Sprintf("charge %d", c.number), fmt.Sprintf(format, args...))
}

// Find returns what was booked last under key. [ErrNotFound] is a definite no, as far as orders
// have arrived; [ErrPending] says that an order has arrived that is neither booked nor turned
// down. So a Reconcile may answer Retryable to the first, but not to the second. If ctx has ended,
// Find returns its error.
func (b *Bank) Find(ctx context.Context, key string) (Receipt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.pageLocked(key)
	r, err := p.find(ctx)
	if err != nil {
		p.history.note("find", err.Error())
	} else {
		p.history.note("find", r.ID)
	}
	return r, err
}

func (p *page) find(ctx context.Context) (Receipt, error) {
	switch n := len(p.receipts); {
	case ctx.Err() != nil:
		return Receipt{}, fmt.Errorf("idemtest: the bank was not asked: %w", ended(ctx))
	case p.working > 0:
		return Receipt{}, ErrPending
	case n == 0:
		return Receipt{}, ErrNotFound
	default:
		return p.receipts[n-1], nil
	}
}

// Books returns a copy of all that was booked, by key, in the order of the charges.
func (b *Bank) Books() map[string][]Receipt {
	b.mu.Lock()
	defer b.mu.Unlock()
	books := make(map[string][]Receipt)
	for key, p := range b.pages {
		if len(p.receipts) > 0 {
			books[key] = slices.Clone(p.receipts)
		}
	}
	return books
}

// errOver is why calls end with the test.
var errOver = errors.New("idemtest: the test is over")

// hangUp ends the calls that wait.
func (b *Bank) hangUp() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.calls {
		c.hangUp(errOver)
	}
}

// history is what happened to a key, in order.
type history struct {
	events  []event // the first, and the last
	skipped int     // between them
}

type event struct {
	at         time.Time
	who, whats string
}

// keepFirst and keepLast bound a history, so that a storm of thousands can be read: how it
// began, and how it ended.
const keepFirst, keepLast = 30, 20

func (h *history) note(who, what string) {
	if len(h.events) == keepFirst+keepLast {
		h.events = slices.Delete(h.events, keepFirst, keepFirst+1)
		h.skipped++
	}
	h.events = append(h.events, event{time.Now(), who, what})
}

// keysLocked returns the keys that Charge was called with, sorted.
func (b *Bank) keysLocked() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(b.pages)), func(key string) bool { return b.pages[key].calls == 0 })
}
