package readme_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight/bench/internal/readme"
)

func write(t *testing.T, file, text string) string {
	t.Helper()
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(text)
}

func TestReplaceLeavesTheRest(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "README.md"), `between <!-- cost:begin -->
and <!-- cost:end -->
<!-- cost:begin -->
old

<!-- cost:end -->
<!-- bench:begin -->
<!-- bench:end -->
bottom
<!-- cost:end -->`)
	want := `between <!-- cost:begin -->
and <!-- cost:end -->
<!-- cost:begin -->
new
<!-- cost:end -->
<!-- bench:begin -->
tables
<!-- bench:end -->
bottom
<!-- cost:end -->`
	require.NoError(t, readme.Cost.Replace(file, "\nnew\n\n"))
	require.NoError(t, readme.Tables.Replace(file, "tables"))
	require.Equal(t, want, read(t, file))
	require.NoError(t, readme.Cost.Replace(file, "new"))
	require.Equal(t, want, read(t, file), "written twice is as written once")
}

func TestOnlyFilesWithTheMarks(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string { return write(t, filepath.Join(dir, name), text) }
	both := file("both", "<!-- bench:begin -->\n<!-- bench:end -->\n<!-- cost:begin -->\n<!-- cost:end -->")
	tables := file("tables", "<!-- bench:begin -->\n<!-- bench:end -->\n")
	open := file("open", "<!-- cost:begin -->\n")
	reversed := file("reversed", "<!-- cost:end -->\n<!-- cost:begin -->\n")
	prose := file("prose", "it begins with <!-- cost:begin -->\nand ends with\n<!-- cost:end --> or so\n")
	all := []string{both, tables, open, reversed, prose}

	found, err := readme.Cost.Among(all)
	require.NoError(t, err)
	require.Equal(t, []string{both}, found)
	found, err = readme.Tables.Among(all)
	require.NoError(t, err)
	require.Equal(t, []string{both, tables}, found)

	_, err = readme.Cost.Among(all[1:])
	require.ErrorContains(t, err, "no lines <!-- cost:begin --> and <!-- cost:end --> in ")
	_, err = readme.Cost.Among([]string{both, filepath.Join(dir, "nowhere")})
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, readme.Cost.Replace(open, "new"), "has lost its section")
	require.Equal(t, "<!-- cost:begin -->\n", read(t, open))
}

func TestWayToThePicture(t *testing.T) {
	bench := filepath.Join(t.TempDir(), "bench")
	require.NoError(t, os.Mkdir(bench, 0o755))
	t.Chdir(bench) // as go run -C bench does
	picture := readme.Picture{Dir: "charts", Name: "x", Alt: "what it shows"}
	for file, want := range map[string]string{"../README.md": "bench/charts/x", "README.md": "charts/x"} {
		text, err := picture.For(file)
		require.NoError(t, err)
		require.Contains(t, text, `srcset="`+want+`-dark.svg"`)
		require.Contains(t, text, `<img alt="what it shows" src="`+want+`-light.svg"`)
	}
}
