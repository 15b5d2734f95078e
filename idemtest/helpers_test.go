package idemtest_test

import (
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"testing"
)

// withoutTimes returns the text of err without what differs from run to run.
func withoutTimes(err error) string {
	text := regexp.MustCompile(`Since [-0-9]+ [:.0-9]+Z`).ReplaceAllString(err.Error(), "Since …")
	return regexp.MustCompile(`(?m)^\t\+\S+ +`).ReplaceAllString(text, "\t")
}

// fakeTB is a test that may fail.
type fakeTB struct {
	testing.TB
	failed  error
	logged  string
	helpers int
}

func (f *fakeTB) Helper() { f.helpers++ }

func (f *fakeTB) Fatal(args ...any) {
	f.failed = errors.New(fmt.Sprint(args...))
	runtime.Goexit()
}

func (f *fakeTB) Fatalf(format string, args ...any) { f.Fatal(fmt.Sprintf(format, args...)) }

func (f *fakeTB) Logf(format string, args ...any) { f.logged += fmt.Sprintf(format, args...) + "\n" }

// try runs check, which may end its test.
func try(t *testing.T, check func(testing.TB)) *fakeTB {
	t.Helper()
	f := &fakeTB{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		check(f)
	}()
	<-done
	if f.helpers == 0 {
		t.Error("a check must call t.Helper")
	}
	return f
}
