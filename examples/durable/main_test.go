package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if os.Getenv(childKey) != "" {
		main()
	}
	os.Exit(m.Run())
}

// TestSituations: each ends as it must, and in the same file a second time.
func TestSituations(t *testing.T) {
	data := filepath.Join(t.TempDir(), "keys")
	for range 2 {
		var out strings.Builder
		require.NoError(t, play(&out, data), "%s", &out)
		require.Contains(t, out.String(), "Nobody was charged twice")
		for line := range strings.Lines(out.String()) {
			require.LessOrEqual(t, len(strings.TrimSuffix(line, "\n")), 80, "columns of %q", line)
		}
	}
}

// TestADoubleChargeFails plants what play must see.
func TestADoubleChargeFails(t *testing.T) {
	all := situations
	defer func() { situations = all }()
	situations = []situation{{"keys in memory", afterCharge, memory, "executed", 1}}
	var out strings.Builder
	require.ErrorContains(t, play(&out, filepath.Join(t.TempDir(), "keys")), "2 charges and executed, where 1 and executed are right")
	require.Contains(t, out.String(), "FAIL")
}

func TestFileOfSomethingElse(t *testing.T) {
	data := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, os.WriteFile(data, []byte("a letter to ann"), 0o600))
	require.Error(t, play(t.Output(), data))
	letter, err := os.ReadFile(data)
	require.NoError(t, err)
	require.Equal(t, "a letter to ann", string(letter))
}
