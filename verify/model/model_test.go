package model

import (
	"flag"
	"os"
	"testing"

	"pgregory.net/rapid"
)

// checks and steps are how much the quick run does: rapid's flags -rapid.checks and -rapid.steps say otherwise.
const checks, steps = "3000", "60"

func TestMain(m *testing.M) {
	_ = flag.Set("rapid.checks", checks)
	_ = flag.Set("rapid.steps", steps)
	os.Exit(m.Run())
}

// agrees runs one program in a bubble.
func agrees(fresh func(options) target) func(*rapid.T) {
	return func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			if err := run(t, fresh); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestCacheAgreesWithTheContract runs random programs.
func TestCacheAgreesWithTheContract(t *testing.T) { rapid.Check(t, agrees(newCache)) }

// FuzzCacheAgreesWithTheContract lets the fuzzer choose the programs. testdata/fuzz keeps some that
// go far.
func FuzzCacheAgreesWithTheContract(f *testing.F) { f.Fuzz(rapid.MakeFuzz(agrees(newCache))) }
