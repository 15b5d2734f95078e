package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight/verify/internal/suite"
)

// sample returns a session with a small nested module of its own whose suite is testdata/tests. What
// gremlins says of it was recorded: testdata/gremlins.json.
func sample(t *testing.T, tests, state string) *session {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "sample")
	require.NoError(t, os.Mkdir(dir, 0o700))
	for to, from := range map[string]string{"sample.go": "sample.go", "sample_test.go": tests} {
		text, err := os.ReadFile(filepath.Join("testdata", from))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, to), text, 0o600))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module github.com/idemflight/idemflight/sample\n\ngo 1.26\n"), 0o600))
	nested := target{"./sample", "./sample", []string{"./sample"}}
	s, err := newSession(t.Context(), root, state, nested, func(context.Context, string, target) (listed gremlinsReport, err error) {
		text, err := os.ReadFile(filepath.Join("testdata", "gremlins.json"))
		if err != nil {
			return listed, err
		}
		return listed, json.Unmarshal(text, &listed)
	})
	require.NoError(t, err)
	return s
}

func byName(all []result) map[string]result {
	found := map[string]result{}
	for _, r := range all {
		found[r.name()] = r
	}
	return found
}

// To leave out what adds zero: no test can tell.
var harmless = []explained{{"./sample", "zero is added", []string{"(*Box).Sum: delete branch: continue"}}}

func TestAGoodSuiteKillsAllMutants(t *testing.T) {
	state := t.TempDir()
	s := sample(t, "good_test.go", state)
	results, err := s.run(t.Context(), s.mutants, 2, false)
	require.NoError(t, err)
	for name, want := range map[string]verdict{
		"const most: arithmetic base: 2 + 1":                      killed, // compiled alone
		"(*Box).Sum: increment decrement: i++":                    killed, // so is this
		"(*Box).Put: conditionals boundary: len(b.all) >= most":   killed,
		"(*Box).Put: delete call: b.mu.Lock()":                    killed,
		"(*Box).Put: delete defer: defer b.mu.Unlock()":           timedOut,
		"(*Box).Put: delete call: close(b.full)":                  killed,
		"(*Box).Full: delete case: b.full":                        killed,
		"(*Box).Sum: invert loopctrl: continue":                   killed,
		"(*Box).Sum: delete branch: continue":                     survived,
		"New: invert bitwise: &Box{full: make(chan struct{})}":    doesNotBuild,
		`Name: arithmetic base: "box " + s`:                       doesNotBuild,
		"(*Box).Sum: arithmetic base: -sum":                       killed,
		"(*Box).Sum: invert assignments: sum += b.all[i]":         killed,
		"(*Box).Sum: remove self assignments: sum += b.all[i]":    killed,
		"(*Box).Put: invert logical: n < 0 || len(b.all) >= most": killed,
		"(*Box).Put: delete assignment: b.all = append(b.all, n)": killed,
		"(*Box).Sum: conditionals negation: b.all[i] == 0":        killed,
		"(*Box).Put: conditionals negation: len(b.all) == most":   killed,
		"(*Box).Sum: conditionals boundary: i < len(b.all)":       killed,
		"(*Box).Sum: delete assignment: sum += b.all[i]":          killed,
		"(*Box).Sum: conditionals negation: i < len(b.all)":       killed,
		"(*Box).Put: conditionals boundary: n < 0":                killed,
		"(*Box).Put: conditionals negation: n < 0":                killed,
		"(*Box).Put: conditionals negation: len(b.all) >= most":   killed,
		"(*Box).Sum: arithmetic base: -(-sum)":                    killed,
	} {
		r, ok := byName(results)[name]
		require.True(t, ok, "no mutant is called %s", name)
		require.Equal(t, want, r.Verdict, "%s: %s %s", name, r.By, r.Detail)
	}
	require.Len(t, results, 25, "no other mutants")

	r := newReport("./sample", results, s.mutants, harmless)
	require.True(t, r.Total.Killed == 21 && r.Total.TimedOut == 1 && r.Total.NotViable == 2 && r.Total.Equivalent == 1, "%+v", r.Total)
	require.Zero(t, r.Total.Unexplained)

	// The next run knows all that.
	again := sample(t, "good_test.go", state)
	results, err = again.run(t.Context(), again.mutants, 1, false)
	require.NoError(t, err)
	require.Len(t, results, 25)
	require.Equal(t, r.Total, newReport("./sample", results, again.mutants, harmless).Total)

	// With other tests, what survived is asked again.
	lax := sample(t, "lax_test.go", state)
	for _, m := range lax.mutants {
		_, known := lax.state.known(m)
		require.Equal(t, byName(results)[m.name()].Verdict != survived, known, m.name())
	}
	lax.state.now.Sources = "others"
	for _, m := range lax.mutants {
		_, known := lax.state.known(m)
		require.False(t, known, "of another source: %s", m.name())
	}
}

func TestALaxSuiteLetsMutantsLive(t *testing.T) {
	s := sample(t, "lax_test.go", t.TempDir())
	chosen := choose(s.mutants, regexp.MustCompile(`Put|Name`), 0, 1)
	results, err := s.run(t.Context(), chosen, 2, false)
	require.NoError(t, err)
	for name, want := range map[string]verdict{
		"(*Box).Put: delete call: close(b.full)":                  survived,
		"(*Box).Put: conditionals boundary: n < 0":                survived,
		"(*Box).Put: delete defer: defer b.mu.Unlock()":           survived,
		"(*Box).Put: delete assignment: b.all = append(b.all, n)": killed,
	} {
		require.Equal(t, want, byName(results)[name].Verdict, name)
	}
	r := newReport("./sample", results, s.mutants, harmless)
	require.False(t, r.good())
	require.Positive(t, r.Left)
	var out bytes.Buffer
	r.print(&out)
	require.Contains(t, out.String(), "delete call: close(b.full)\n\tNOT EXPLAINED")
}

// A reason for a mutant that is killed, or that there is not, is out of date.
func TestStaleReasons(t *testing.T) {
	m := &mutant{Decl: "F", Kind: "delete call", Text: "f()"}
	list := []explained{{".", "why not", []string{m.name(), "G: delete call: g()"}}, {"./other", "of another package", []string{m.name()}}}
	dead := newReport(".", []result{{mutant: *m, Verdict: killed}}, []*mutant{m}, list)
	require.Equal(t, []string{"F: delete call: f(): killed", "G: delete call: g(): no such mutant"}, dead.Stale)
	require.False(t, dead.good())
	alive := newReport(".", []result{{mutant: *m, Verdict: survived}}, []*mutant{m}, list[:1])
	require.Equal(t, 1, alive.Total.Equivalent)
	require.Equal(t, "why not", alive.Survived[0].Reason)
	hangs := newReport(".", []result{{mutant: *m, Verdict: timedOut}}, []*mutant{m}, nil)
	require.Equal(t, 1, hangs.Total.Unexplained, "it hangs, and nobody knows where")
}

// The guards must mean the same as the mutants they stand for.
func TestOfASourceOnlyTheCodeCounts(t *testing.T) {
	const source = "package p\n\n// old\nfunc f() string { return \"a\" }\n"
	same := "package p\n\nfunc f() string {\n\t// new\n\treturn \"a\" // and newer\n}\n"
	require.NotEqual(t, code([]byte(source)), code([]byte("package p\n\nfunc f() string { return \"b\" }\n")))
	require.NotEqual(t, code([]byte(source)), code([]byte("package p\n\nfunc g() string { return \"a\" }\n")))
	require.Equal(t, string(code([]byte("package p\n\nfunc f() string {\n\treturn \"a\"\n}\n"))), string(code([]byte(same))))
}

func TestGuards(t *testing.T) {
	s := sample(t, "good_test.go", t.TempDir())
	f := s.pkg.files[0]
	only := func(name string) string {
		return string(f.guard(func(m *mutant) bool { return m.name() == name }))
	}
	require.Equal(t, string(f.source), only("none"))
	for range 10 { // what was compiled is found again by its text
		require.Equal(t, string(f.guard(isGuarded)), string(f.guard(isGuarded)))
	}
	for _, m := range s.mutants {
		m.ID = 7
	}
	for name, want := range map[string]string{
		"(*Box).Put: delete call: close(b.full)":                  "if !mutant_on(7) { close(b.full) }",
		"(*Box).Full: delete case: b.full":                        "case <-mutant_chan(7, b.full):",
		"(*Box).Put: conditionals boundary: n < 0":                "if mutant_less(7, n, 0) ||",
		"(*Box).Put: conditionals negation: n < 0":                "if (mutant_on(7) != ((n) < (0))) ||",
		"(*Box).Put: invert logical: n < 0 || len(b.all) >= most": "if (mutant_on(7) != ((mutant_on(7) != (n < 0)) || (mutant_on(7) != (len(b.all) >= most)))) {",
		"(*Box).Sum: remove self assignments: sum += b.all[i]":    "if mutant_on(7) { sum = b.all[i] } else { sum += b.all[i] }",
		"(*Box).Sum: invert loopctrl: continue":                   "if mutant_on(7) { break  } else { continue }",
	} {
		require.Contains(t, only(name), want)
	}
	m := s.mutants[0]
	require.Equal(t, "const most: arithmetic base: 2 + 1", m.name())
	require.Contains(t, string(m.alone()), "const most = 2 - 1\n")
}

func TestWhereItHangs(t *testing.T) {
	heads := []string{
		"panic: test timed out after 2s\n\trunning tests:\n\t\tTestIt/a (2.00s)\n\n",
		"=== RUN   TestIt/a\nSIGQUIT: quit\nPC=0x1 m=0 sigcode=0\n\n",
	}
	const lib = "github.com/idemflight/idemflight"
	for name, c := range map[string]struct{ out, by, want string }{
		"a lock":     {"goroutine 7 [sync.Mutex.Lock, 1 minutes]:\nsync.(*Mutex).Lock(...)\n" + lib + ".(*Cache[...]).Do(0x1)\n", "TestIt/a (hangs)", "sync.Mutex.Lock in (*Cache).Do"},
		"a loop":     {"goroutine 7 [runnable, synctest bubble 3]:\n" + lib + ".mutant_on(...)\n" + lib + "/internal/record.after(0x1)\n", "TestIt/a (hangs)", "runnable in after"},
		"the test":   {"goroutine 7 [chan receive]:\n" + lib + "/boltstore_test.TestIt.func1()\n", "TestIt/a (hangs)", "chan receive in TestIt.func1"},
		"who knows?": {"goroutine 7 [IO wait]:\nnet.(*conn).Read(0x1)\n", "TestIt/a (hangs)", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, head := range heads {
				e := suite.Ended{Out: []byte("=== RUN   TestOther\n" + head + c.out)}
				e.Read()
				require.True(t, e.Hung)
				require.Equal(t, c.by, e.CaughtBy)
				require.Equal(t, c.want, whereItHangs(string(e.Out)))
			}
		})
	}
}
