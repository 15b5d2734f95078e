// Package suite is what the commands share that break the library on purpose and ask its ordinary
// test suites whether they notice: where the source is, how an edit is put in its place, and how the
// tests ended.
package suite

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Library is the module that is broken.
const Library = "github.com/idemflight/idemflight"

// LibraryDir returns where the library's source is, as this module's go.mod has it.
func LibraryDir() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", Library).Output()
	if err != nil {
		return "", fmt.Errorf("the library is not found; run with go run -C verify: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Overlay writes edited, the texts of files by their paths, into dir and returns the file for the go
// command's -overlay that puts them in place: the source itself stays as it is. A path need not exist.
func Overlay(dir string, edited map[string][]byte) (string, error) {
	replace := map[string]string{}
	for path, text := range edited {
		// Two packages may have files of one name.
		replace[path] = filepath.Join(dir, fmt.Sprintf("%d_%s", len(replace), filepath.Base(path)))
		if err := os.WriteFile(replace[path], text, 0o600); err != nil {
			return "", err
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, text, 0o600)
}

// HowItEnded tells from a line of output how the tests ended, if not by an assertion.
func HowItEnded(line string) string {
	switch {
	case strings.HasPrefix(line, "panic: test timed out"), strings.HasPrefix(line, "SIGQUIT: quit"):
		return "hangs"
	case strings.HasPrefix(line, "panic: deadlock: main bubble goroutine"), strings.HasPrefix(line, "fatal error: all goroutines are asleep"):
		return "deadlock"
	case strings.HasPrefix(line, "panic: "):
		return "panic"
	case strings.HasPrefix(line, "fatal error: "):
		return strings.TrimSpace(line)
	case strings.Contains(line, "goleak: Errors"):
		return "goroutine left behind"
	}
	return ""
}

// LastLines returns the last n lines of s.
func LastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
