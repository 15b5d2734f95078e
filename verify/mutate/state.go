package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// state is what an earlier run left behind: a later one goes on from there.
type state struct {
	dir     string
	now     hashes
	mu      sync.Mutex
	results map[string]record // by the mutant's name; the latest
	file    *os.File
}

// hashes are of what a result holds for.
type hashes struct {
	Sources string `json:"sources"` // all of the library that the package is compiled with, itself too
	Tests   string `json:"tests"`   // what else of it the suites are compiled with: tests, storetest
}

// record is a result, and what it holds for.
type record struct {
	result
	hashes
}

// openState opens the state in dir, an empty one where there is none.
func openState(dir string, now hashes) (*state, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &state{dir: dir, now: now, results: map[string]record{}}
	var err error
	s.file, err = os.OpenFile(filepath.Join(dir, "results.jsonl"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(s.file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r record
		if json.Unmarshal(lines.Bytes(), &r) == nil { // the last line may have been cut off
			s.results[r.name()] = r
		}
	}
	return s, lines.Err()
}

// known returns an earlier result of m that still holds. Any edit of the library makes all results of
// it void. A mutant that was noticed stays so when only tests change, since tests are hardly ever taken
// away; for one that survived there may be a new one.
func (s *state) known(m *mutant) (result, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.results[m.name()]
	if !ok || r.Sources != s.now.Sources || r.Tests != s.now.Tests && r.Verdict == survived {
		return result{}, false
	}
	r.mutant = *m
	return r.result, true
}

func (s *state) keep(r result) error {
	text, err := json.Marshal(record{r, s.now})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err = s.file.Write(append(text, '\n'))
	return err
}

// digest returns a hash of texts and of the Go version.
func digest(texts ...[]byte) string {
	h := sha256.New()
	h.Write([]byte(runtime.Version()))
	for _, text := range texts {
		sum := sha256.Sum256(text)
		h.Write(sum[:])
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// code returns what source compiles to: it without comments and layout, so that a result holds when a
// comment is improved.
func code(source []byte) (tokens []byte) {
	var s scanner.Scanner
	s.Init(token.NewFileSet().AddFile("", -1, len(source)), source, nil, 0)
	for {
		_, tok, text := s.Scan()
		if tok == token.EOF {
			return tokens
		}
		if !tok.IsLiteral() {
			text = tok.String()
		}
		tokens = append(append(tokens, text...), '\n')
	}
}

// hash returns the hashes of p; root is the library's.
func hash(root string, p *pkg) (hashes, error) {
	all, err := goList(filepath.Join(root, p.module), slices.Concat([]string{"-deps", "-test"}, []string{p.dir}, p.suiteDirs(root))...)
	if err != nil {
		return hashes{}, err
	}
	compiled := map[string]bool{p.path: true}
	for _, l := range all {
		if l.ImportPath == p.path {
			for _, path := range l.Deps {
				compiled[path] = true
			}
		}
	}
	var sources, tests [][]byte
	seen := map[string]bool{}
	for _, l := range all {
		folder, ok := l.in(root)
		if !ok {
			continue
		}
		path, _, _ := strings.Cut(l.ImportPath, " ") // "p [p.test]" is p once more, with its tests
		for _, name := range slices.Concat(l.GoFiles, l.EmbedFiles) {
			file := filepath.Join(l.Dir, name)
			if filepath.IsAbs(name) || seen[file] { // absolute: go test wrote it
				continue
			}
			seen[file] = true
			text, err := os.ReadFile(file)
			if err != nil {
				return hashes{}, err
			}
			of := &tests
			if compiled[path] && !strings.HasSuffix(name, "_test.go") {
				of = &sources
				if filepath.Ext(name) == ".go" {
					text = code(text)
				}
			}
			*of = append(*of, []byte(filepath.Join(folder, name)), text)
		}
	}
	return hashes{digest(sources...), digest(tests...)}, nil
}
