package main

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress tells how far the measuring is.
type progress interface {
	step(what string)
	finish()
}

func newProgress(out io.Writer, terminal bool, total int) progress {
	if !terminal {
		return &lines{out: out, total: total, began: time.Now(), last: time.Now()}
	}
	return bar{progressbar.NewOptions(total,
		progressbar.OptionSetWriter(out),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish())}
}

type bar struct{ *progressbar.ProgressBar }

func (b bar) step(what string) {
	b.Describe(fmt.Sprintf("%-14s", what))
	_ = b.Add(1)
}

func (b bar) finish() { _ = b.Clear() }

// lines writes a line now and then, where a bar would fill a log.
type lines struct {
	out         io.Writer
	done, total int
	began, last time.Time
}

const betweenLines = 5 * time.Second

func (l *lines) step(what string) {
	l.done++
	now := time.Now()
	if now.Sub(l.last) < betweenLines {
		return
	}
	l.last = now
	left := time.Duration(float64(now.Sub(l.began)) / float64(l.done) * float64(l.total-l.done))
	fmt.Fprintf(l.out, "%s: %d of %d, about %v left\n", what, l.done, l.total, left.Round(time.Second))
}

func (l *lines) finish() {}
