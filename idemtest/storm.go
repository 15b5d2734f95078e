package idemtest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/idemflight/idemflight"
)

// Outcome is how a call of a [Storm] ended.
type Outcome[V any] struct {
	Value V
	Err   error // [idemflight.ErrGoexit] if it ended by runtime.Goexit, as by t.FailNow
	Panic any   // what it panicked with, or nil
}

// Storm makes n calls at once and returns their outcomes, by i, once all have returned. Each call
// runs on a goroutine of its own, which waits until all are ready, and has a context of its own,
// derived from t.Context(), which ends when the call has returned, like the context of a request. A
// panic is an Outcome. Storm itself neither sleeps nor gives up: in a testing/synctest bubble, a
// call that never returns is a deadlock, which ends the test; elsewhere, give it a deadline.
//
// Outside of tests, t may be nil. An n below 1 ends the test or, if t is nil, panics.
func Storm[V any](t testing.TB, n int, call func(ctx context.Context, i int) (V, error)) []Outcome[V] {
	base := context.Background()
	if t != nil {
		t.Helper()
		base = t.Context()
	}
	if n < 1 {
		problem := fmt.Sprintf("idemtest: a Storm of %d callers", n)
		if t == nil {
			panic(problem)
		}
		t.Fatal(problem)
		return nil
	}
	outcomes := make([]Outcome[V], n)
	start := make(chan struct{})
	var ready, callers sync.WaitGroup
	ready.Add(n)
	for i := range n {
		callers.Go(func() {
			ctx, cancel := context.WithCancel(base)
			defer cancel()
			ready.Done()
			<-start
			outcomes[i].become(func() (V, error) { return call(ctx, i) })
		})
	}
	ready.Wait()
	close(start)
	callers.Wait()
	return outcomes
}

// become calls, and notes how that ends, in whatever way it does.
func (o *Outcome[V]) become(call func() (V, error)) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if o.Panic = recover(); o.Panic == nil {
			o.Err = idemflight.ErrGoexit
		}
	}()
	o.Value, o.Err = call()
	returned = true
}

// String returns the outcome on one line.
func (o Outcome[V]) String() string {
	switch {
	case o.Panic != nil:
		return fmt.Sprintf("panic: %v", o.Panic)
	case o.Err != nil && reflect.ValueOf(&o.Value).Elem().IsZero():
		return fmt.Sprintf("error %q", o.Err)
	case o.Err != nil:
		return fmt.Sprintf("%+v, error %q", o.Value, o.Err)
	}
	return fmt.Sprintf("%+v", o.Value)
}

// same reports whether two callers were told the same.
func same[V comparable](a, b Outcome[V]) bool {
	return a.Panic == nil && b.Panic == nil && a.Value == b.Value && sameError(a.Err, b.Err)
}

func sameError(a, b error) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	// Of a held key the error says to the callers of the flight and to later ones the
	// same in other words.
	unknown := errors.Is(a, idemflight.ErrOutcomeUnknown) && errors.Is(b, idemflight.ErrOutcomeUnknown)
	return unknown || a.Error() == b.Error()
}

// RequireSame ends the test unless there are outcomes and all of them are the same: equal
// values, and errors that are all nil, all of the same text, or all
// [idemflight.ErrOutcomeUnknown]. A panic is never the same. Whether the outcome is the right
// one is for the test to check, for any one of them.
func RequireSame[V comparable](t testing.TB, rs []Outcome[V]) {
	t.Helper()
	must(t, CheckSame(rs))
}

// shownOutcomes is how many different outcomes a check prints.
const shownOutcomes = 5

// CheckSame is [RequireSame] without a test: it returns what is wrong.
func CheckSame[V comparable](rs []Outcome[V]) error {
	if len(rs) == 0 {
		return errors.New("idemtest: there are no outcomes to compare")
	}
	type group struct{ first, count int }
	groups := []group{}
	others := 0
outcomes:
	for i, r := range rs {
		for g := range groups {
			if same(rs[groups[g].first], r) {
				groups[g].count++
				continue outcomes
			}
		}
		if len(groups) == shownOutcomes {
			others++
			continue
		}
		groups = append(groups, group{i, 1})
	}
	if len(groups) == 1 && rs[0].Panic == nil {
		return nil
	}
	var text strings.Builder
	fmt.Fprintf(&text, "idemtest: not all callers (%d) were told the same:", len(rs))
	for _, g := range groups {
		fmt.Fprintf(&text, "\n\t%dx, first by caller %d: %v", g.count, g.first, rs[g.first])
	}
	if others > 0 {
		fmt.Fprintf(&text, "\n\t%dx something else", others)
	}
	return errors.New(text.String())
}
