package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// program is this one, as the go command knows it.
const program = "github.com/idemflight/idemflight/examples/payments"

// playDurable plays what happens to payments when their process is killed, with keys in a file. It is a program of
// its own, examples/durable, since the file needs bbolt, which this module does not depend on.
func playDurable(ctx context.Context, data string, stdout, stderr io.Writer) error {
	data, err := filepath.Abs(data) // the other program runs in a folder of its own
	if err != nil {
		return err
	}
	folder, err := durableFolder(ctx)
	if err != nil {
		return fmt.Errorf("-data plays examples/durable, by the go command: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "run", "-C", folder, ".", "-data", data)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd.Run()
}

// durableFolder finds examples/durable beside this program's source.
func durableFolder(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", program).Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		text, _, _ := strings.Cut(strings.TrimSpace(string(failed.Stderr)), "\n")
		return "", fmt.Errorf("start it in a clone of the repository: %s", text)
	}
	if err != nil {
		return "", err
	}
	folder := filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), "durable")
	if _, err := os.Stat(filepath.Join(folder, "go.mod")); err != nil {
		return "", fmt.Errorf("start it in a clone of the repository: %w", err)
	}
	return folder, nil
}
