package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	// So that go test takes no result of TestList from its cache when the source has changed.
	_ "github.com/idemflight/idemflight/idemhttp"
	_ "github.com/idemflight/idemflight/storetest"
	"github.com/idemflight/idemflight/verify/internal/plant"
	"github.com/idemflight/idemflight/verify/internal/suite"
)

// toy is a library of its own with a suite, so that the runner is tried in seconds.
func toy(t *testing.T) bench {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module toy\n\ngo 1.26\n",
		"toy.go": `package toy

// Abs returns the distance of n from zero.
func Abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}
`,
		"seam_test.go": "package toy\n\nfunc Seam() int { return 3 }\n",
		"toy_test.go": `package toy_test

import (
	"fmt"
	"testing"

	"toy"
)

type wanted int

func (w wanted) of(n int) bool { return toy.Abs(n) == int(w) }

func TestPromise01_Positive(t *testing.T) {
	if !wanted(3).of(toy.Seam()) {
		t.Fatal("of 3")
	}
}

//go:noinline
func name(n int) string { return fmt.Sprint(n) }

func TestNegative(t *testing.T) {
	for _, n := range []int{-1, -2} {
		t.Run(name(n), func(t *testing.T) {
			if !wanted(-n).of(n) {
				t.Errorf("of %d", n)
			}
		})
	}
}
`,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return bench{dir: dir, timeout: 2 * time.Second}
}

func planted(old, new string) fault {
	return fault{name: "planted", promise: "1", in: "Abs", old: old, new: new}
}

func TestAFaultIsFound(t *testing.T) {
	b := toy(t)
	for name, c := range map[string]struct {
		fault    fault
		caughtBy string
	}{
		"by the promise's own tests": {planted("return n", "return n + 1"), "TestPromise01_Positive"},
		"by the rest of the suite":   {planted("return -n", "return n"), "TestNegative/-1"},
		"as it panics":               {planted("return -n", "panic(n)"), "TestNegative/-1 (panic)"},
		"as it hangs":                {planted("return -n", "select {}"), "TestNegative/-1 (hangs)"},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.try(t.Context(), c.fault)
			require.Equal(t, found, r.Verdict, r.Detail)
			require.Equal(t, c.caughtBy, r.CaughtBy)
		})
	}
}

// What the first tests do without is not compiled: the rest of it stays where it was.
func TestNarrow(t *testing.T) {
	b := toy(t)
	files, err := narrow(b.dir, "^TestPromise01_")
	require.NoError(t, err)
	require.Len(t, files, 1, "the seam is the library's own and stays as it is")
	before, err := os.ReadFile(filepath.Join(b.dir, "toy_test.go"))
	require.NoError(t, err)
	text := string(files[filepath.Join(b.dir, "toy_test.go")])
	for _, kept := range []string{"TestPromise01_Positive", "type wanted int", "of(n int) bool", "_ \"fmt\"", "\"toy\""} {
		require.Contains(t, text, kept)
	}
	for _, gone := range []string{"TestNegative", "func name", "go:noinline"} {
		require.NotContains(t, text, gone)
	}
	require.Equal(t, bytes.Count(before, []byte("\n")), strings.Count(text, "\n"), "lines stay where they were")
}

// What is no fault must not count as found.
func TestWhatIsNoFaultIsToldApart(t *testing.T) {
	b := toy(t)
	misled := planted("return -n", "return n")
	misled.hint = "TestThatDoesNotExist"
	for name, c := range map[string]struct {
		fault fault
		want  verdict
	}{
		"harmless":                {planted("return -n", "return 0 - n"), survived},
		"not in the source":       {planted("return 2*n", "return n"), misfit},
		"more than once":          {planted("return", "panic(1)"), misfit},
		"without an edit":         {planted("return -n", "return -n"), misfit},
		"hint that names no test": {misled, misfit},
		"does not compile":        {planted("return -n", "return minus(n)"), broken},
		"no such declaration":     {fault{promise: "1", in: "Gone", old: "a", new: "b"}, misfit},
		"no such package":         {fault{promise: "key", in: "Abs", old: "return n", new: "return 0"}, misfit},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.try(t.Context(), c.fault)
			require.Equal(t, c.want, r.Verdict, "caught by %q: %s", r.CaughtBy, r.Detail)
			require.NotEmpty(t, r.Detail, "what to do about it")
			var out bytes.Buffer
			require.False(t, summarize(&out, []result{r}, 1), "makes the run fail")
			require.Contains(t, out.String(), "0 of 1 found")
		})
	}
}

func TestCheckNamesEveryFaultThatDoesNotFit(t *testing.T) {
	b := toy(t)
	fits, gone, broken := planted("return -n", "return n"), planted("return 2*n", "return n"), planted("return -n", "return minus(n)")
	fits.name, gone.name, broken.name = "fits", "gone", "broken"
	require.NoError(t, b.check([]fault{fits}))
	err := b.check([]fault{gone, fits, broken})
	require.ErrorContains(t, err, "gone: Abs (toy.go:4) has this 0 times")
	require.ErrorContains(t, err, "broken: ")
	require.ErrorContains(t, err, "toy.go:6:10: undefined: minus")
	require.NotContains(t, err.Error(), "fits")
}

func TestAnUnsoundSuiteProvesNothing(t *testing.T) {
	b := toy(t)
	faults := []fault{planted("return -n", "return n")}
	require.NoError(t, b.sound(t.Context(), faults))
	path := filepath.Join(b.dir, "toy_test.go")
	require.NoError(t, os.WriteFile(path, []byte("package toy\n\nimport \"testing\"\n\nfunc TestIt(t *testing.T) { t.Fail() }\n"), 0o600))
	require.ErrorContains(t, b.sound(t.Context(), faults), "fails without a fault")
	require.NoError(t, os.WriteFile(path, []byte("package toy\n"), 0o600))
	require.Error(t, b.sound(t.Context(), faults), "a suite without tests")
}

func TestAnInterruptedRunTellsWhatItHas(t *testing.T) {
	b := toy(t)
	ctx, cancel := context.WithCancel(t.Context())
	faults := []fault{planted("return -n", "return n"), planted("return -n", "return n"), planted("return -n", "return n")}
	results := b.tryAll(ctx, faults, 1, func(result) { cancel() })
	require.Len(t, results, 1, "what was tried")
	var out bytes.Buffer
	require.False(t, summarize(&out, results, len(faults)), "an interrupted run is no success")
	require.Contains(t, out.String(), "1 of 3 found; interrupted, 2 not tried")
}

// The list fits the source as it is, and leaves no promise out.
func TestList(t *testing.T) {
	dir, err := suite.LibraryDir()
	require.NoError(t, err)
	sources := map[string]*plant.Package{}
	for _, f := range allFaults() {
		if sources[f.dir()] == nil {
			sources[f.dir()], err = plant.Load(filepath.Join(dir, f.dir()))
			require.NoError(t, err)
		}
	}
	names, promises := map[string]bool{}, map[string]bool{}
	var promisesOfCore []string
	sample := 0
	for _, f := range allFaults() {
		require.False(t, names[f.name], "two faults are called %s", f.name)
		names[f.name], promises[f.promise] = true, true
		require.NotEmpty(t, f.sentence, "%s: what does it break?", f.name)
		_, err := sources[f.dir()].Apply(f.edit())
		assert.NoError(t, err, "%s", f.name)
		if f.text != "" {
			assert.Equal(t, 1, inFiles(t, filepath.Join(dir, f.dir()), f.text), "%s: how often %q is in the package", f.name, f.text)
		}
		if f.quick {
			sample++
		}
	}
	for _, line := range linesOfHTTP {
		require.True(t, promises[line], "no fault for idemhttp's %q", line)
		delete(promises, line)
	}
	require.True(t, promises[around], "no fault for Trace and Origin")
	delete(promises, around)
	for _, pkg := range packagesAround {
		require.True(t, promises[pkg], "no fault for %s", pkg)
		delete(promises, pkg)
	}
	for n := range 27 {
		promisesOfCore = append(promisesOfCore, strconv.Itoa(n+1))
	}
	for _, number := range slices.Concat(promisesOfCore, promisesOfStores) {
		require.True(t, promises[number], "no fault for promise %s", number)
		delete(promises, number)
	}
	require.Empty(t, promises, "promises that the contract does not know")
	require.NotZero(t, sample, "-quick would try nothing")
}

// inFiles returns how often text is in the sources of a package, its scripts included.
func inFiles(t *testing.T, dir, text string) (n int) {
	t.Helper()
	for _, pattern := range []string{"*.go", "*/*.lua"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		require.NoError(t, err)
		for _, path := range paths {
			source, err := os.ReadFile(path)
			require.NoError(t, err)
			if !strings.HasSuffix(path, "_test.go") {
				n += strings.Count(string(source), text)
			}
		}
	}
	return n
}
