package idemtest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// RequireOnce ends the test unless each of the keys was charged exactly once, and prints the
// history of each key for which this is not so. Without keys, it checks all that Charge was called
// with, which must be at least one.
//
// Calls that are still at the bank, because of [Hang] for example, end with the test: goroutines
// must not outlive a testing/synctest bubble, in which no time passes any more by then.
func (b *Bank) RequireOnce(t testing.TB, keys ...string) {
	t.Helper()
	b.endWith(t)
	must(t, b.CheckOnce(keys...))
}

// CheckOnce is [Bank.RequireOnce] without a test: it returns what is wrong.
func (b *Bank) CheckOnce(keys ...string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(keys) == 0 {
		keys = b.keysLocked()
	}
	if len(keys) == 0 {
		return errors.New("idemtest: nothing was charged: Charge was not called")
	}
	return b.checkLocked(keys, func(charges int) bool { return charges == 1 }, "once")
}

// RequireAtMostOnce ends the test if a key was charged more than once, and prints the histories.
func (b *Bank) RequireAtMostOnce(t testing.TB) {
	t.Helper()
	b.endWith(t)
	must(t, b.CheckAtMostOnce())
}

// CheckAtMostOnce is [Bank.RequireAtMostOnce] without a test: it returns what is wrong.
func (b *Bank) CheckAtMostOnce() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.checkLocked(b.keysLocked(), func(charges int) bool { return charges <= 1 }, "once at most")
}

// endWith has the calls that wait end with the test.
func (b *Bank) endWith(t testing.TB) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.calls) > 0 {
		t.Cleanup(b.hangUp)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// shownKeys is of how many keys a check prints the history.
const shownKeys = 5

func (b *Bank) checkLocked(keys []string, good func(charges int) bool, want string) error {
	var text strings.Builder
	wrong := 0
	for _, key := range keys {
		p := b.pages[key]
		if p == nil {
			p = new(page)
		}
		if good(len(p.receipts)) {
			continue
		}
		if wrong++; wrong <= shownKeys {
			p.tell(&text, key, want)
		}
	}
	switch {
	case wrong == 0:
		return nil
	case wrong > shownKeys:
		fmt.Fprintf(&text, "\nidemtest: and %d more of %d keys", wrong-shownKeys, len(keys))
	}
	return errors.New(strings.TrimPrefix(text.String(), "\n"))
}

// tell writes what happened to a key, a line for each event.
func (p *page) tell(text *strings.Builder, key, want string) {
	times := fmt.Sprintf("%d times", len(p.receipts))
	switch len(p.receipts) {
	case 0:
		times = "not at all"
	case 1:
		times = "once"
	}
	fmt.Fprintf(text, "\nidemtest: %q was charged %s, and should have been %s.", key, times, want)
	if p.working > 0 {
		fmt.Fprintf(text, " Under way still: %d.", p.working)
	}
	events := p.history.events
	if len(events) == 0 {
		text.WriteString(" Nobody asked the bank about it.")
		return
	}
	first := events[0].at
	fmt.Fprintf(text, " Since %s:", first.UTC().Format("2006-01-02 15:04:05.000Z"))
	for i, e := range events {
		if i == keepFirst && p.history.skipped > 0 {
			fmt.Fprintf(text, "\n\t… %d more …", p.history.skipped)
		}
		fmt.Fprintf(text, "\n\t%-10s %-10s %s", "+"+e.at.Sub(first).Round(time.Microsecond).String(), e.who, e.whats)
	}
}
