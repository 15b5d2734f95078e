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
	"sync"
)

// state is what an earlier run left behind: a later one goes on from there.
type state struct {
	dir     string
	mu      sync.Mutex
	results map[string]record // by the mutant's package and name; the latest
	file    *os.File
}

// record is a result, and what it holds for.
type record struct {
	result
	Sources string `json:"sources"` // hash of all that is compiled into the library
	Tests   string `json:"tests"`   // hash of the tests
}

// openState opens the state in dir, an empty one where there is none.
func openState(dir string) (*state, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &state{dir: dir, results: map[string]record{}}
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
			s.results[r.Pkg+" "+r.name()] = r
		}
	}
	return s, lines.Err()
}

// known returns an earlier result of m that still holds. Any edit of the library makes all results of
// it void. A mutant that was noticed stays so when only tests change, since tests are hardly ever taken
// away; for one that survived there may be a new one.
func (s *state) known(m *mutant, sources, tests string) (result, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.results[m.Pkg+" "+m.name()]
	if !ok || r.Sources != sources || r.Tests != tests && r.Verdict == survived {
		return result{}, false
	}
	r.mutant = *m
	return r.result, true
}

func (s *state) keep(r result, sources, tests string) error {
	text, err := json.Marshal(record{r, sources, tests})
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

// sourcesHash and testsHash tell whether a result of p still holds.
func (p *pkg) sourcesHash() string {
	texts := [][]byte{[]byte(p.path)}
	for _, f := range p.files {
		texts = append(texts, []byte(f.path), code(f.source))
	}
	return digest(texts...)
}

func (p *pkg) testsHash() (string, error) {
	texts := [][]byte{[]byte(p.path)}
	for _, name := range p.tests {
		text, err := os.ReadFile(filepath.Join(p.dir, name))
		if err != nil {
			return "", err
		}
		texts = append(texts, []byte(name), text)
	}
	return digest(texts...), nil
}
