package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
)

// The table is 80 columns wide: mark, situation, sent, charges, answers.
const (
	width        = 80
	rowFormat    = " %-4s %-31s%5s %7s  %s"
	indent       = "      "
	answersWidth = width - (1 + 4 + 1 + 31 + 5 + 1 + 7 + 2)
)

// row is how a situation ended.
type row struct {
	name          string
	sent, charges int
	answers       string
	wrong         []string // what did not end as it must
	chargedTwice  bool
	lesson        bool   // what happens without the library: it proves nothing about it
	note          string // for below the table
}

// table prints rows as they come, and on a terminal what is being played.
type table struct {
	out      io.Writer
	terminal bool
	colour   bool
	start    time.Time

	rows, requests int
	failed, twice  bool
	stopped        bool
	pending        bool // the line that playing wrote stands
	lessons, notes []string
}

func newTable(out io.Writer) *table {
	terminal := isTerminal(out)
	return &table{
		out:      out,
		terminal: terminal,
		colour:   terminal && os.Getenv("NO_COLOR") == "",
		start:    time.Now(),
	}
}

// isTerminal reports whether out is a terminal that knows escape sequences.
func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	if runtime.GOOS == "windows" && os.Getenv("WT_SESSION") == "" {
		return false // an old console, which would show the sequences
	}
	return os.Getenv("TERM") != "dumb"
}

const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

func (t *table) paint(style, text string) string {
	if !t.colour {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

func (t *table) println(lines ...string) {
	t.clear()
	for _, line := range lines {
		fmt.Fprintln(t.out, line)
	}
}

// clear takes away the line that playing wrote.
func (t *table) clear() {
	if t.pending {
		fmt.Fprint(t.out, "\r\x1b[K")
		t.pending = false
	}
}

func (t *table) header() {
	t.println(t.paint(bold, fmt.Sprintf(rowFormat, "", "situation", "sent", "charges", "answers")))
}

// playing tells what is being played, until the next line is printed. Not a terminal: nothing, the
// rows themselves show how far it is.
func (t *table) playing(i, n int, name string) {
	if t.terminal {
		t.clear()
		t.pending = true
		fmt.Fprint(t.out, t.paint(dim, fmt.Sprintf(" .... %-31s [%d of %d]", name, i, n)))
	}
}

func (t *table) row(r row) {
	mark, style := "ok", green
	switch {
	case len(r.wrong) > 0:
		mark, style = "FAIL", red
		t.failed = true
	case r.lesson && r.charges > 1:
		mark, style = "!!", yellow
		t.lessons = append(t.lessons, fmt.Sprintf(
			"Without the library the same %d requests charged one card %d times.", r.sent, r.charges))
	}
	t.rows++
	t.requests += r.sent
	t.twice = t.twice || r.chargedTwice
	if r.note != "" {
		t.notes = append(t.notes, r.note)
	}

	answers := wrap(r.answers, ", ", answersWidth)
	line := fmt.Sprintf(rowFormat, mark, r.name, fmt.Sprint(r.sent), fmt.Sprint(r.charges), answers[0])
	// Painted after it was laid out: the sequences would count as columns.
	t.println(strings.Replace(line, mark, t.paint(style, mark), 1))
	for _, more := range answers[1:] {
		t.println(strings.Repeat(" ", width-answersWidth) + more)
	}
	for _, wrong := range r.wrong {
		for _, line := range wrap(wrong, " ", width-len(indent)) {
			t.println(indent + t.paint(red, line))
		}
	}
}

// interrupted ends the table after some of n situations.
func (t *table) interrupted(n int) {
	t.stopped = true
	t.println("", fmt.Sprintf("Interrupted after %d of %d situations.", t.rows, n))
}

func (t *table) summary() {
	t.println("")
	if len(t.notes) > 0 {
		t.println(t.notes...)
		t.println("")
	}
	verdict := t.paint(green, "Nobody was charged twice")
	switch {
	case t.twice:
		verdict = t.paint(red, "SOMEBODY WAS CHARGED TWICE")
	case t.failed:
		verdict = t.paint(red, "Nobody was charged twice, but not all ended as it must")
	}
	t.println(fmt.Sprintf("%s: %d situations, %d requests, %.1f s.",
		verdict, t.rows, t.requests, time.Since(t.start).Seconds()))
	t.println(t.lessons...)
}

// exitCode returns what the program is to exit with. A failure tells more than an interruption.
func (t *table) exitCode() int {
	switch {
	case t.failed:
		return exitFailed
	case t.stopped:
		return exitInterrupted
	}
	return 0
}

// wrap cuts text into lines of at most n columns at separators, which stay at the line's end as far
// as they can be seen. There is at least one line.
func wrap(text, separator string, n int) []string {
	var lines []string
	line := ""
	for part := range strings.SplitAfterSeq(text, separator) {
		if line != "" && len(line)+len(strings.TrimRight(part, " ")) > n {
			lines = append(lines, strings.TrimRight(line, " "))
			line = ""
		}
		line += part
	}
	return append(lines, strings.TrimRight(line, " "))
}
