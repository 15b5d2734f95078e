package suite

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Binary is a compiled suite.
type Binary struct {
	Path string
	Dir  string // where it runs

	// Patience, if not nil, is how long a test at the top level may take before the suite is ended as
	// one that hangs. Without it only the suite as a whole has a limit.
	Patience func(test string) time.Duration `json:"-"`
}

// memory bounds the address space of a suite, in KiB: what is broken may allocate without end.
const memory = 8 << 20

// Compile compiles the suite of the package pkg with edited in place, into the folder to. The package's
// own folder is dir, and the go command runs in module.
func Compile(ctx context.Context, module, pkg, dir, to string, edited map[string][]byte) (Binary, error) {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return Binary{}, err
	}
	replace, err := Overlay(to, edited)
	if err != nil {
		return Binary{}, err
	}
	b := Binary{Path: filepath.Join(to, "suite.test"), Dir: dir}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", replace, "-o", b.Path, pkg)
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		return Binary{}, fmt.Errorf("%s does not compile: %w\n%s", pkg, err, LastLines(string(out), 20))
	}
	return b, nil
}

// Ended is how a run of a suite went.
type Ended struct {
	Passed, Hung bool
	Ran          int    // tests that started
	CaughtBy     string // the test that failed, and how if not by an assertion
	Out          []byte
	Took         time.Duration
}

// Run runs the suite for at most timeout, up to the first test that fails, with env in its environment
// beside this program's. The error is that of ctx.
func (b Binary) Run(ctx context.Context, timeout time.Duration, env []string, args ...string) (Ended, error) {
	all := []string{
		"-c", `ulimit -v "$0"; exec "$@"`, strconv.Itoa(memory), b.Path,
		"-test.short", "-test.failfast", "-test.v", "-test.timeout=" + timeout.Round(time.Millisecond).String(),
	}
	// A suite that does not end by itself, or in which the timer does not fire any more, is ended.
	limited, stop := context.WithTimeout(ctx, timeout+5*time.Second)
	defer stop()
	cmd := exec.CommandContext(limited, "sh", append(all, args...)...)
	cmd.Dir, cmd.WaitDelay = b.Dir, 2*time.Second
	cmd.Env = append(append(os.Environ(), "GOTRACEBACK=all"), env...)
	out := output{patience: b.Patience, hangs: func() { // its stacks tell where
		_ = cmd.Process.Signal(syscall.SIGQUIT)
		time.AfterFunc(5*time.Second, stop)
	}}
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	err := cmd.Run()
	out.watch("")
	if ctx.Err() != nil {
		return Ended{}, ctx.Err()
	}
	e := Ended{Passed: err == nil, Out: out.said.Bytes(), Took: time.Since(start)}
	e.Read()
	e.Hung = e.Hung || !e.Passed && limited.Err() != nil
	return e, nil
}

// output collects what a suite says, and notices a test that does not come to its end.
type output struct {
	said     bytes.Buffer // no embedded one: io.Copy would fill it by its ReadFrom, and nobody would look
	patience func(test string) time.Duration
	hangs    func()
	seen     int         // up to where lines have been looked at
	limit    *time.Timer // of the test that runs; nil if there is none
}

// Write is called by one goroutine, since standard output and error are the same writer.
func (o *output) Write(p []byte) (int, error) {
	n, err := o.said.Write(p)
	if o.patience == nil {
		return n, err
	}
	for {
		line, _, whole := bytes.Cut(o.said.Bytes()[o.seen:], []byte("\n"))
		if !whole {
			return n, err
		}
		o.seen += len(line) + 1
		if m := startLine.FindSubmatch(line); m != nil && string(m[1]) == "RUN" && !bytes.Contains(m[2], []byte("/")) {
			o.watch(string(m[2]))
		} else if m := endLine.FindSubmatch(line); m != nil && !bytes.Contains(m[2], []byte("/")) {
			o.watch("")
		}
	}
}

// watch notes that a test begins or, if it has no name, that none runs.
func (o *output) watch(test string) {
	if o.limit != nil {
		o.limit.Stop()
		o.limit = nil
	}
	if test != "" {
		o.limit = time.AfterFunc(o.patience(test), o.hangs)
	}
}

// Unclear reports whether the suite ended in a way that tells nothing.
func (e *Ended) Unclear() bool { return !e.Passed && !e.Hung && e.CaughtBy == "" }

var (
	startLine = regexp.MustCompile(`^=== (RUN|CONT|NAME)\s+(\S+)`)
	hungLine  = regexp.MustCompile(`^\t\t(\w\S*) \(`) // below "running tests:"
	endLine   = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+)(?: \((\S+)\))?`)
)

// Read reads from the output how many tests ran and, if the suite did not pass, which of them noticed.
func (e *Ended) Read() {
	running, failed, how := "", "", ""
	for line := range strings.Lines(string(e.Out)) {
		if m := startLine.FindStringSubmatch(line); m != nil {
			running = m[2]
			if m[1] == "RUN" {
				e.Ran++
			}
		} else if m := endLine.FindStringSubmatch(line); m != nil && m[1] == "FAIL" {
			failed = m[2] // the innermost is told last
		}
		if m := hungLine.FindStringSubmatch(line); m != nil && e.Hung {
			running = m[1]
		}
		if h := HowItEnded(line); h != "" && how == "" && !e.Passed {
			how = h
			e.Hung = h == "hangs"
		}
	}
	by := failed
	if how != "" && how != "goroutine left behind" {
		by = cmp.Or(running, failed)
	}
	e.CaughtBy = strings.TrimSpace(by)
	if how != "" {
		e.CaughtBy = strings.TrimSpace(e.CaughtBy + " (" + how + ")")
	}
}

// TopLevel returns the tests at the top level that passed, and those that failed.
func (e *Ended) TopLevel() (passed, failed []string) {
	for line := range strings.Lines(string(e.Out)) {
		m := endLine.FindStringSubmatch(line)
		switch {
		case m == nil || strings.Contains(m[2], "/"):
		case m[1] == "PASS":
			passed = append(passed, m[2])
		case m[1] == "FAIL":
			failed = append(failed, m[2])
		}
	}
	return passed, failed
}

// Quick returns the tests at the top level that passed and took less than most.
func (e *Ended) Quick(most time.Duration) (names []string) {
	for line := range strings.Lines(string(e.Out)) {
		m := endLine.FindStringSubmatch(line)
		if m == nil || m[1] != "PASS" || strings.Contains(m[2], "/") {
			continue
		}
		if took, err := time.ParseDuration(m[3]); err == nil && took < most {
			names = append(names, m[2])
		}
	}
	return names
}
