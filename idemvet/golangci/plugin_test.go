package golangci_test

import (
	"testing"

	"github.com/golangci/plugin-module-register/register"
	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/analysis"

	_ "github.com/idemflight/idemflight/idemvet/golangci"

	"github.com/idemflight/idemflight/idemvet"
)

// settings are what golangci-lint reads from its configuration.
type settings = map[string]any

func linter(t *testing.T, s any) register.LinterPlugin {
	newPlugin, err := register.GetPlugin("idemvet")
	require.NoError(t, err)
	l, err := newPlugin(s)
	require.NoError(t, err)
	return l
}

func TestAllAnalyzersRunUnlessDisabled(t *testing.T) {
	got, err := linter(t, nil).BuildAnalyzers()
	require.NoError(t, err)
	require.Equal(t, idemvet.Analyzers, got)

	got, err = linter(t, settings{"disable": []any{"idemkey", "idemmark"}}).BuildAnalyzers()
	require.NoError(t, err)
	require.Equal(t, []*analysis.Analyzer{idemvet.Context, idemvet.Capture, idemvet.Begin, idemvet.Effect}, got)
	require.Len(t, idemvet.Analyzers, 6, "those of the package stay as they are")
}

func TestSettingsAreFlags(t *testing.T) {
	flags := func(s any) [2]string {
		_, err := linter(t, s).BuildAnalyzers()
		require.NoError(t, err)
		return [2]string{idemvet.Key.Flags.Lookup("local").Value.String(), idemvet.Begin.Flags.Lookup("missing").Value.String()}
	}
	require.Equal(t, [2]string{"true", "false"}, flags(settings{"local": true}))
	require.Equal(t, [2]string{"false", "true"}, flags(settings{"missing": true}))
	require.Equal(t, [2]string{"false", "false"}, flags(nil))
}

func TestWrongSettingsAreErrors(t *testing.T) {
	newPlugin, err := register.GetPlugin("idemvet")
	require.NoError(t, err)
	_, err = newPlugin(settings{"disable": []any{"idemkeys"}})
	require.EqualError(t, err, `idemvet: disable: there is no analyzer "idemkeys"`)
	_, err = newPlugin(settings{"locals": true})
	require.ErrorContains(t, err, `unknown field "locals"`)
}

func TestTypesAreLoaded(t *testing.T) {
	require.Equal(t, register.LoadModeTypesInfo, linter(t, nil).GetLoadMode())
}
