// Package figures writes numbers as people read them, and tells which machine they are of.
package figures

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"time"
)

// Nanoseconds writes a time with two or three digits.
func Nanoseconds(ns float64) string {
	d := time.Duration(ns)
	switch {
	case d < time.Microsecond:
		return fmt.Sprintf("%.0f ns", ns)
	case d < time.Millisecond:
		return digits(ns/1e3) + " µs"
	case d < time.Second:
		return digits(ns/1e6) + " ms"
	}
	return digits(ns/1e9) + " s"
}

// Count writes a number with two or three digits.
func Count(n float64) string {
	switch {
	case n >= 1e6:
		return digits(n/1e6) + " M"
	case n >= 1e3:
		return digits(n/1e3) + " k"
	}
	return digits(n)
}

func digits(v float64) string {
	if v < 10 && v != math.Trunc(v) {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// Environment says what numbers are worth nothing without: machine, Go version and date.
func Environment(date time.Time) string {
	return fmt.Sprintf("%s, %s, %s", Machine(), runtime.Version(), date.Format(time.DateOnly))
}

// Machine names the processor where the system tells, and how many of them there are.
func Machine() string {
	model := runtime.GOARCH
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d cores, %s/%s", model, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
}
