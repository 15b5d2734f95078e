package idemvet_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/analysistest"

	"github.com/idemflight/idemflight/idemvet"
)

// all runs all analyzers at once. So packages are loaded once, and a test of one analyzer, which has a package of
// its name, is one of the others, too: that they are silent about it.
var all = &analysis.Analyzer{
	Name:     "all",
	Doc:      "run all analyzers",
	Requires: idemvet.Analyzers[0].Requires,
	Run: func(pass *analysis.Pass) (any, error) {
		for _, a := range idemvet.Analyzers {
			if _, err := a.Run(pass); err != nil {
				return nil, err
			}
		}
		return nil, nil
	},
}

// The module in testdata takes idemflight from this repository. What is expected stands in its code.
func TestAnalyzers(t *testing.T) {
	analysistest.Run(t, analysistest.TestData(), all,
		"./context", "./capture", "./key", "./begin", "./effect", "./mark")
}

func TestFlags(t *testing.T) {
	set(t, idemvet.Key, "local")
	set(t, idemvet.Begin, "missing")
	analysistest.Run(t, analysistest.TestData(), all, "./keylocal", "./beginmissing")
}

func set(t *testing.T, a *analysis.Analyzer, flag string) {
	require.NoError(t, a.Flags.Set(flag, "true"))
	t.Cleanup(func() { require.NoError(t, a.Flags.Set(flag, "false")) })
}

func TestFix(t *testing.T) {
	analysistest.RunWithSuggestedFixes(t, analysistest.TestData(), idemvet.Mark, "./fix")
}

func TestDriversAcceptTheAnalyzers(t *testing.T) {
	require.NoError(t, analysis.Validate(idemvet.Analyzers))
	for _, a := range idemvet.Analyzers {
		require.Equal(t, idemvet.Analyzers[0].Requires, a.Requires, "%s: test all of them as all does", a.Name)
	}
}
