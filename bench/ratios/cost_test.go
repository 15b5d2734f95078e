package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

func TestCostsAreFiveRowsInFewWords(t *testing.T) {
	var measured []result // all targets, as if in three rounds
	for _, x := range targets() {
		measured = append(measured, result{target: x, ours: []float64{900, 1, 1234}, theirs: []float64{2000, 7, 3}})
	}
	text := config{args: []string{"-rounds", "11", "-readme", "../README.md"}}.costTable(measured)
	words := strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || r == '|' })
	require.Less(t, len(words), 90)
	lines := strings.Split(text, "\n")
	require.Equal(t, []string{
		"| a replay | 900 ns | otter: 7 ns |",
		"| a joined duplicate | 900 ns | resenje: 7 ns |",
		"| a first execution (resenje keeps nothing) | 900 ns | resenje: 7 ns |",
		"| a replay by the HTTP middleware | 900 µs | bare handler: 7 µs |",
		"| a kept entry | 900 B | otter: 7 B |",
	}, lines[2:7])
	require.Regexp(t, "^Medians of `go run -C bench ./ratios -rounds 11 -readme ../README.md` on .+, go1.+, 20..-..-..; resenje v.+, otter v.+\\.$", lines[8])
}

func TestAmounts(t *testing.T) {
	require.Equal(t, "54 ns", amount(53.7, "ns"))
	require.Equal(t, "1.6 µs", amount(1612, "ns/caller"))
	require.Equal(t, "2.6 µs", amount(2.61, "µs"))
	require.Equal(t, "141 B", amount(140.6, "B"))
}

// The rows that the section shows are measured, no others, and written where it is.
func TestReadmeGetsTheCosts(t *testing.T) {
	t.Chdir(t.TempDir())
	const other = "<!-- bench:begin -->\n<!-- bench:end -->\n"
	require.NoError(t, os.Mkdir("charts", 0o755))
	require.NoError(t, os.WriteFile("README.md", []byte("before\n<!-- cost:begin -->\n<!-- cost:end -->\nafter\n"), 0o600))
	require.NoError(t, os.WriteFile("other.md", []byte(other), 0o600))
	args := []string{"-rounds", "1", "-run", "replay", "-readme", "README.md,other.md"}

	code, _, errOut := runRatios(args...)
	require.Equal(t, 2, code)
	require.Equal(t, "ratios: -readme: there is no charts/contract-light.svg: contention draws it\n", filepath.ToSlash(errOut))

	require.NoError(t, os.WriteFile("charts/contract-light.svg", nil, 0o600))
	code, out, errOut := runRatios(args...)
	require.Zero(t, code, errOut)
	require.Contains(t, out, " of 2 met")
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	require.Regexp(t, `^before\n<!-- cost:begin -->\n<picture>\n[^|]+charts/contract-light.svg[^|]+`+
		`\n\| \| costs \|.*\n.*\n\| a replay \| .* .s \|.*\n\| a replay by the HTTP middleware \| .* µs \|.*\n`+
		`\nMedians of .*\n<!-- cost:end -->\nafter\n$`, string(text))
	text, err = os.ReadFile("other.md")
	require.NoError(t, err)
	require.Equal(t, other, string(text))
}
