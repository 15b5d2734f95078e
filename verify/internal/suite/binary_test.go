package suite

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A test that takes longer than it may is noticed then, not when the whole suite should have ended.
func TestATestThatHangsIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := 0
		out := output{
			patience: func(test string) time.Duration {
				return map[string]time.Duration{"TestA": 2 * time.Second, "TestB": time.Second}[test]
			},
			hangs: func() { hung++ },
		}
		says := func(text string, then time.Duration) int {
			_, err := io.Copy(&out, struct{ io.Reader }{strings.NewReader(text)}) // as package os/exec does it
			require.NoError(t, err)
			time.Sleep(then)
			synctest.Wait()
			return hung
		}
		require.Zero(t, says("=== RUN   TestA\n=== RUN   TestA/1\n", 1900*time.Millisecond))
		require.Zero(t, says("    --- PASS: TestA/1 (1.90s)\n--- PASS: TestA (1.90s)\nsomething else\n", time.Hour), "nothing runs")
		require.Zero(t, says("=== RU", time.Hour), "half a line")
		require.Zero(t, says("N   TestB\n", 900*time.Millisecond))
		require.Equal(t, 1, says("=== RUN   TestB/sub\n", 100*time.Millisecond), "what is in it does not give it more time")
		require.Equal(t, "=== RUN   TestA\n=== RUN   TestA/1\n    --- PASS: TestA/1 (1.90s)\n--- PASS: TestA (1.90s)\nsomething else\n=== RUN   TestB\n=== RUN   TestB/sub\n", out.said.String())
	})
}
