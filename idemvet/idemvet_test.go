package idemvet_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/analysistest"

	"github.com/idemflight/idemflight/idemvet"
)

// testdata is a module that takes idemflight from this repository.
func testdata() string { return analysistest.TestData() }

func TestContext(t *testing.T) { analysistest.Run(t, testdata(), idemvet.Context, "./context") }

func TestCapture(t *testing.T) { analysistest.Run(t, testdata(), idemvet.Capture, "./capture") }

func TestKey(t *testing.T) { analysistest.Run(t, testdata(), idemvet.Key, "./key") }

func TestKeyLocal(t *testing.T) {
	with(t, idemvet.Key, "local")
	analysistest.Run(t, testdata(), idemvet.Key, "./keylocal")
}

func TestBegin(t *testing.T) { analysistest.Run(t, testdata(), idemvet.Begin, "./begin") }

func TestBeginMissing(t *testing.T) {
	with(t, idemvet.Begin, "missing")
	analysistest.Run(t, testdata(), idemvet.Begin, "./beginmissing")
}

func TestEffect(t *testing.T) { analysistest.Run(t, testdata(), idemvet.Effect, "./effect") }

func TestMark(t *testing.T) {
	analysistest.RunWithSuggestedFixes(t, testdata(), idemvet.Mark, "./mark", "./mark/named")
}

// with sets a flag of an analyzer for one test.
func with(t *testing.T, a *analysis.Analyzer, flag string) {
	require.NoError(t, a.Flags.Set(flag, "true"))
	t.Cleanup(func() { require.NoError(t, a.Flags.Set(flag, "false")) })
}

// Drivers refuse analyzers that are not valid.
func TestAnalyzersAreValid(t *testing.T) {
	require.NoError(t, analysis.Validate(idemvet.Analyzers))
}
