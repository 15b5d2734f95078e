package model

import (
	"flag"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// checks and steps are how many programs the quick run makes, and how long on average; the flags
// -rapid.checks and -rapid.steps say otherwise.
const checks, steps = "8000", "60"

func TestMain(m *testing.M) {
	_ = flag.Set("rapid.checks", checks)
	_ = flag.Set("rapid.steps", steps)
	os.Exit(m.Run())
}

// agrees runs one program in a bubble, and hands on what each reference has counted.
func agrees(counted func(*reference)) func(*rapid.T) {
	return func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			processes, err := run(t, newCache)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range processes {
				counted(m)
			}
		})
	}
}

// TestCacheAgreesWithTheContract runs random programs, which must between them have done everything
// that is counted.
func TestCacheAgreesWithTheContract(t *testing.T) {
	sums := map[string]uint64{}
	rapid.Check(t, agrees(func(m *reference) {
		sums["lookedAgain"] += uint64(m.lookedAgain)
		sums["lastResorts"] += uint64(m.lastResorts)
		sums["paused"] += uint64(m.paused)
		sums["learned"] += uint64(m.learned)
		sums["restored"] += uint64(m.loaded.Restored)
		sums["interrupted"] += uint64(m.loaded.Interrupted)
		sums["expiredMeanwhile"] += uint64(m.loaded.Expired)
		sums["refused"] += uint64(m.loaded.Refused)
		sums["unwritten"] += uint64(m.unwritten)
		sums["damaged"] += uint64(m.damaged)
		v := reflect.ValueOf(m.stats)
		for i := range v.NumField() {
			if f := v.Field(i); f.Kind() == reflect.Uint64 {
				sums[v.Type().Field(i).Name] += f.Uint()
			}
		}
	}))
	delete(sums, "StoreFailed") // the model has no Store
	delete(sums, "StoreErrors")
	for name, sum := range sums {
		require.NotZero(t, sum, "no program has come to %s", name)
	}
	t.Logf("counted in all: %v", sums)
}

// FuzzCacheAgreesWithTheContract lets the fuzzer choose how programs begin; how they go on is the
// same for all, so that none ends for want of choices. testdata/fuzz keeps some that go far. Give it
// -fuzzminimizetime=1x: where chance decides who is evicted, minimizing is slow.
func FuzzCacheAgreesWithTheContract(f *testing.F) {
	program := rapid.MakeFuzz(agrees(func(*reference) {}))
	rest := make([]byte, 1<<17)
	_, _ = rand.NewChaCha8([32]byte{}).Read(rest)
	f.Fuzz(func(t *testing.T, beginning []byte) { program(t, slices.Concat(beginning, rest)) })
}
