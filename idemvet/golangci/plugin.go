// Package golangci is a module plugin of golangci-lint that runs the analyzers of package idemvet. The page
// docs/vet.md in the repository says how to build a golangci-lint with it.
package golangci

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/golangci/plugin-module-register/register"
	"golang.org/x/tools/go/analysis"

	"github.com/idemflight/idemflight/idemvet"
)

func init() { register.Plugin("idemvet", New) }

// Settings are those of the linter, in linters.settings.custom.idemvet.settings.
type Settings struct {
	Disable []string `json:"disable"` // names of analyzers that shall not run
	Local   bool     `json:"local"`   // as -idemkey.local
	Missing bool     `json:"missing"` // as -idembegin.missing
}

// New makes the linter from its settings. An unknown setting and an unknown analyzer are errors.
func New(settings any) (register.LinterPlugin, error) {
	s, err := register.DecodeSettings[Settings](settings)
	if err != nil {
		return nil, fmt.Errorf("idemvet: %w", err)
	}
	for _, name := range s.Disable {
		if !slices.ContainsFunc(idemvet.Analyzers, func(a *analysis.Analyzer) bool { return a.Name == name }) {
			return nil, fmt.Errorf("idemvet: disable: there is no analyzer %q", name)
		}
	}
	return linter{s}, nil
}

type linter struct{ settings Settings }

// BuildAnalyzers returns the analyzers, with their flags set. These are one for all linters of a process, of which
// golangci-lint makes one.
func (l linter) BuildAnalyzers() ([]*analysis.Analyzer, error) {
	err := errors.Join(
		idemvet.Key.Flags.Set("local", strconv.FormatBool(l.settings.Local)),
		idemvet.Begin.Flags.Set("missing", strconv.FormatBool(l.settings.Missing)),
	)
	return slices.DeleteFunc(slices.Clone(idemvet.Analyzers), func(a *analysis.Analyzer) bool {
		return slices.Contains(l.settings.Disable, a.Name)
	}), err
}

// GetLoadMode says that the analyzers need types.
func (linter) GetLoadMode() string { return register.LoadModeTypesInfo }
