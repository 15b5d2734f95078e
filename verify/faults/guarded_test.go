package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const guardedSource = `package toy

import "errors"

const limit = 3

type box struct{ n int }

func Recovered(n int) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("recovered")
		}
	}()
	if n > limit {
		panic(n)
	}
	return nil
}

var Noted int

func Note(n int) {
	Noted = n // why
}

func Next(n int) (next int, err error) {
	if n < 0 {
		return
	}
	n, more := n+1, 0
	return n + more, nil
}

func Until(n int) (sum int) {
loop:
	for {
		for i := range n {
			if sum += i; sum > 3 {
				break loop
			}
		}
		break
	}
	return sum
}

func Size() int { return len(make([]int, 1, 2)) + box{}.n }

func Twice[T int | string](v T) T { return v + v }
`

const guardedTests = `package toy_test

import (
	"testing"

	"toy"
)

func TestPromise01_Recovered(t *testing.T) {
	if toy.Recovered(2) != nil || toy.Recovered(4) == nil || toy.Recovered(4).Error() != "recovered" {
		t.Fatal("wrong")
	}
}

func TestNote(t *testing.T) {
	if toy.Note(4); toy.Noted != 4 {
		t.Fatal("not noted")
	}
}

func TestNext(t *testing.T) {
	if n, _ := toy.Next(1); n != 2 {
		t.Fatal(n)
	}
	if n, err := toy.Next(-1); n != 0 || err != nil {
		t.Fatal(n, err)
	}
}

func TestUntil(t *testing.T) {
	if n := toy.Until(4); n != 6 {
		t.Fatal(n)
	}
}

func TestSize(t *testing.T) {
	if toy.Size() != 1 || toy.Twice("a") != "aa" {
		t.Fatal("wrong")
	}
}

// What a guard in Note costs is too much.
func TestCost(t *testing.T) {
	if n := testing.AllocsPerRun(10, func() { toy.Note(1) }); n != 0 {
		t.Fatal(n)
	}
}
`

// All faults of a suite are in one program; what cannot be there, or is not found there, is tried alone.
func TestFaultsBehindGuards(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module toy\n\ngo 1.26\n", "toy.go": guardedSource, "toy_test.go": guardedTests,
		"time.go": "package toy\n\nimport \"time\"\n\nfunc Later() { time.Sleep(1) }\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	b := bench{dir: dir, timeout: 6 * time.Second}
	cases := []struct {
		in, old, new string
		guarded      bool
		want         verdict
		caughtBy     string
	}{
		{"Recovered", "if recover() != nil", "if false", true, found, "TestPromise01_Recovered (panic)"},
		{"Recovered", `err = errors.New("recovered")`, "_ = 0", true, found, "TestPromise01_Recovered"},
		{"Recovered", "n > limit", "n >= limit", true, survived, ""},
		{"Recovered", "return nil", "", true, broken, ""}, // behind a guard, the function's own return follows
		{"Recovered", "n int", "n int8", false, survived, ""},
		{"Note", "Noted = n", "", true, found, "TestNote"},
		{"Note", "Noted = n", "Noted = n; Escaped = &n", false, broken, ""},
		{"Note", "Noted = n", "Noted = n; p := &n; go func() { _ = *p }()", true, found, "TestCost"},
		{"Note", "", "time.Sleep(time.Hour)", true, found, "TestNote (hangs)"},
		{"Next", "n+1", "n+2", false, found, "TestNext"},
		{"Until", "sum > 3", "sum > 2", false, found, "TestUntil"},
		{"Size", "1, 2", "2", true, found, "TestSize"},
		{"Twice", "v + v", "v", true, found, "TestSize"},
		{"limit", "3", "9", false, found, "TestPromise01_Recovered"},
		{"box", "n int", "n int8", false, broken, ""},
		{"Size", "len(make([]int, 3))", "3", false, misfit, ""},
	}
	var faults []fault
	for i, c := range cases {
		faults = append(faults, fault{name: string(rune('a' + i)), promise: "1", in: c.in, old: c.old, new: c.new})
	}
	programs, err := b.prepare(t.Context(), faults, faults, t.TempDir())
	require.NoError(t, err)
	p := programs[question{".", "."}]
	b.programs = programs
	for i, r := range b.tryAll(t.Context(), faults, 2, func(result) {}) {
		c := cases[i]
		require.Equal(t, c.guarded, p.alive[r.Name] != 0, "%+v", c)
		require.Equal(t, c.want, r.Verdict, "%+v: %s", c, r.Detail)
		require.Equal(t, c.caughtBy, r.CaughtBy, "%+v", c)
		require.Equal(t, !c.guarded || c.want != found || c.caughtBy == "TestCost", r.Alone, "%+v", c)
	}

	failing := "package toy\n\nimport \"testing\"\n\nfunc TestIt(t *testing.T) { t.Fail() }\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "it_test.go"), []byte(failing), 0o600))
	_, err = b.prepare(context.Background(), faults, faults, t.TempDir())
	require.ErrorContains(t, err, "fails without a fault")
}
