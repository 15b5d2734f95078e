// Package readme replaces sections of README files by what was measured.
package readme

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Section is the name of a section. It stands between two lines, <!-- NAME:begin --> and
// <!-- NAME:end -->; the rest of a file is somebody else's.
type Section string

const (
	Tables Section = "bench" // what contention measured
	Cost   Section = "cost"  // what ratios measured, in short
)

// Among returns those of the files that have the section. None, or a file that cannot be read, is an
// error: better now than after minutes of measuring.
func (s Section) Among(files []string) ([]string, error) {
	var found []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if _, _, ok := s.find(string(text)); ok {
			found = append(found, file)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no lines <!-- %s:begin --> and <!-- %s:end --> in %s", s, s, strings.Join(files, ", "))
	}
	return found, nil
}

// Replace makes text the section's.
func (s Section) Replace(file, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	from, to, ok := s.find(string(old))
	if !ok {
		return fmt.Errorf("%s has lost its section %q", file, s)
	}
	return os.WriteFile(file, []byte(string(old[:from])+strings.TrimSpace(text)+"\n"+string(old[to:])), 0o644)
}

// find returns where the section lies in text, without its marks. A mark inside a line is none: it
// is prose about marks.
func (s Section) find(text string) (from, to int, ok bool) {
	name := regexp.QuoteMeta(string(s))
	lines := regexp.MustCompile("(?ms)^<!-- " + name + ":begin -->\n(.*?)^<!-- " + name + ":end -->$")
	if at := lines.FindStringSubmatchIndex(text); at != nil {
		return at[2], at[3], true
	}
	return 0, 0, false
}

// Picture is a chart in a README, light or dark as the reader's page is.
type Picture struct {
	Dir, Name string // Dir/Name-light.svg and Dir/Name-dark.svg
	Alt       string
}

// For returns the Markdown that shows p in file.
func (p Picture) For(file string) (string, error) {
	dir, err := way(filepath.Dir(file), p.Dir)
	if err != nil {
		return "", err
	}
	image := filepath.ToSlash(filepath.Join(dir, p.Name))
	return fmt.Sprintf("<picture>\n<source media=\"(prefers-color-scheme: dark)\" srcset=\"%s-dark.svg\">\n"+
		"<img alt=\"%s\" src=\"%s-light.svg\" width=\"600\">\n</picture>\n", image, p.Alt, image), nil
}

// way returns how to get from one folder to another.
func way(from, to string) (string, error) {
	from, err := filepath.Abs(from)
	if err != nil {
		return "", err
	}
	to, err = filepath.Abs(to)
	if err != nil {
		return "", err
	}
	return filepath.Rel(from, to)
}
