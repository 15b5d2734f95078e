package plant

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// pkg writes files, the texts by their names, and loads them as a package.
func pkg(t *testing.T, files map[string]string) *Package {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("package toy\n\n"+text), 0o600))
	}
	p, err := Load(dir)
	require.NoError(t, err)
	return p
}

// one returns the package of one file, toy.go.
func one(t *testing.T, text string) *Package {
	t.Helper()
	return pkg(t, map[string]string{"toy.go": text})
}

// applied returns the texts of the files that edits change, by their names. They are still Go.
func applied(t *testing.T, p *Package, edits ...Edit) map[string]string {
	t.Helper()
	edited, err := p.Apply(edits...)
	require.NoError(t, err)
	texts := map[string]string{}
	for path, text := range edited {
		_, err := parser.ParseFile(token.NewFileSet(), path, text, 0)
		require.NoError(t, err, "%s", text)
		texts[filepath.Base(path)] = strings.TrimPrefix(string(text), "package toy\n\n")
	}
	return texts
}

const abs = `func Abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}
`

var wrong = Edit{In: "Abs", Old: "return -n", New: "return n + 1"}

func TestApply_ReplacesTheTextOnly(t *testing.T) {
	require.Equal(t, map[string]string{"toy.go": strings.Replace(abs, "return -n", "return n + 1", 1)}, applied(t, one(t, abs), wrong))
}

func TestApply_FindsAFunctionInWhateverFile(t *testing.T) {
	for _, name := range []string{"toy.go", "moved.go"} {
		files := map[string]string{"other.go": "func Other(n int) int { return -n }\n", name: abs}
		edited := applied(t, pkg(t, files), wrong)
		require.Len(t, edited, 1, "only the file of the function")
		require.Contains(t, edited[name], "return n + 1")
	}
}

func TestApply_IgnoresWhatIsNotBuiltHere(t *testing.T) {
	elsewhere := "windows"
	if runtime.GOOS == elsewhere {
		elsewhere = "plan9"
	}
	files := map[string]string{"toy.go": abs, "toy_" + elsewhere + ".go": abs, "toy_test.go": abs}
	require.Contains(t, applied(t, pkg(t, files), wrong), "toy.go")

	_, err := pkg(t, map[string]string{"toy.go": abs, "toy_" + runtime.GOOS + ".go": abs}).Apply(wrong)
	require.ErrorContains(t, err, "Abs is declared 2 times")
}

func TestApply_DoesNotMindHowTheSourceIsLaidOut(t *testing.T) {
	for name, text := range map[string]string{
		"indented":  "func f() {\n\tif true {\n\t\t\tg( 1,2 )\n\t\t\th()\n\t}\n}\n",
		"one line":  "func f() { g(1, 2); h() }\n",
		"wrapped":   "func f() {\n\tg(1,\n\t\t2)\n\n\th()\n}\n",
		"commented": "func f() {\n\tg(1 /* g(1, 2) */, 2) // h()\n\t// g(1, 2); h()\n\th()\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			for _, old := range []string{"g(1, 2); h()", "g(1,2)\n\t\t\th()\n", "g(1, 2) // why\nh()"} {
				edited := applied(t, one(t, text), Edit{In: "f", Old: old, New: "here()"})["toy.go"]
				require.Equal(t, 1, strings.Count(edited, "here()"))
				before, after, _ := strings.Cut(edited, "here()")
				require.NotContains(t, before, "g(")
				require.NotContains(t, after, "h()")
			}
		})
	}
}

func TestApply_ComparesWholeTokens(t *testing.T) {
	p := one(t, "func f(wait, waiters int) string {\n\tif waiters == 0 {\n\t\treturn \"wait == 0\"\n\t}\n\tif wait == 0 {\n\t}\n\treturn \"\"\n}\n")
	edited := applied(t, p, Edit{In: "f", Old: "wait == 0", New: "false"})["toy.go"]
	require.Contains(t, edited, "if false {")
	require.Contains(t, edited, "waiters == 0")
	require.Contains(t, edited, `"wait == 0"`)
}

func TestApply_NamesDeclarations(t *testing.T) {
	text := `import "sync"

type (
	pair[K comparable, V any] struct {
		mark int
		mu   sync.Mutex
	}
	box[V any] struct{ mark string }
)

type alone struct{ mark bool }

func (p *pair[K, V]) pointer() (mark int8)  { return }
func (p pair[K, V]) value() (mark int16)    { return }
func (b *box[V]) pointer() (mark int32)     { return }
func (b box[_]) value() (mark int64)        { return }
func (*alone) pointer() (mark uint8)        { return }
func (alone) value() (mark uint16)          { return }
func generic[T any]() (mark uint32)         { return }

var variable, another struct{ mark uint64 }

const (
	first  = "mark" + "1"
	second = "mark" + "2"
)
`
	for in, want := range map[string]string{
		"(*pair).pointer": "int8", "pair.value": "int16", "(*box).pointer": "int32", "box.value": "int64",
		"(*alone).pointer": "uint8", "alone.value": "uint16", "generic": "uint32",
		"pair": "int\n", "box": "string", "alone": "bool", "variable": "uint64", "another": "uint64",
	} {
		edited := applied(t, one(t, text), Edit{In: in, Old: "mark", New: "planted"})["toy.go"]
		require.Regexp(t, `planted +`+want, edited, in)
	}
	edited := applied(t, one(t, text), Edit{In: "second", Old: `"mark"`, New: `"planted"`})["toy.go"]
	require.Contains(t, edited, `second = "planted" + "2"`)
	edited = applied(t, one(t, text), Edit{In: "alone", Old: "type alone", New: "type renamed"})["toy.go"]
	require.Contains(t, edited, "type renamed struct")
}

func TestApply_WithoutOldTextBeginsTheBody(t *testing.T) {
	edit := Edit{In: "f", New: "if true { return }"}
	for _, text := range []string{"func f() {\n\tg()\n}\n", "func f() { g() }\n", "func f() {}\n", "func f() { // why\n\tg()\n}\n"} {
		edited := applied(t, one(t, text), edit)["toy.go"]
		require.True(t, strings.HasPrefix(edited, "func f() { if true { return };"), edited)
	}
	for name, e := range map[string]Edit{
		"a type has no body":  {In: "T", New: "return"},
		"a stub has no body":  {In: "stub", New: "return"},
		"nothing to put in":   {In: "f"},
		"comments are no old": {In: "f", Old: "// g()", New: "return"},
	} {
		_, err := one(t, "type T struct{}\n\nfunc stub()\n\nfunc f() {}\n").Apply(e)
		require.Error(t, err, name)
	}
}

func TestApply_SaysWhyAnEditDoesNotFit(t *testing.T) {
	p := pkg(t, map[string]string{
		"toy.go": "type T[K any] struct{}\n\nfunc (t *T[K]) f(n int) int {\n\tn++\n\tif n > 1 {\n\t\tn++\n\t}\n\treturn n\n}\n",
		"two.go": "func g(n int) int { n--; return n }\n\nfunc (t T[K]) h(n int) {\n\tn--\n}\n",
	})
	for name, c := range map[string]struct {
		edit Edit
		want string
	}{
		"ambiguous":           {Edit{"(*T).f", "n++", ""}, `(*T).f has this 2 times, want once: "n++": at toy.go:6, toy.go:8`},
		"somewhere else":      {Edit{"(*T).f", "n--", ""}, `(*T).f (toy.go:5) has this 0 times, want once: "n--"; "n--" is in T.h (two.go:6), g (two.go:3)`},
		"nowhere":             {Edit{"g", "n += 2", ""}, `g (two.go:3) has this 0 times, want once: "n += 2"; nothing in the package has "n += 2"`},
		"no such declaration": {Edit{"gone", "n--", ""}, `; "n--" is in T.h (two.go:6), g (two.go:3)`},
		"another receiver":    {Edit{"T.f", "n > 1", ""}, `; there is (*T).f; "n > 1" is in (*T).f (toy.go:7)`},
		"a type parameter":    {Edit{"(*T[K]).f", "n > 1", ""}, "there is (*T).f"},
		"nothing changes":     {Edit{"g", "n--", " n --\n"}, "g: the edit changes nothing"},
		"old is no Go":        {Edit{"g", "\"n", ""}, "g: old text: "},
		"new is no Go":        {Edit{"g", "n--", "'"}, "g: new text: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := p.Apply(c.edit)
			require.ErrorContains(t, err, c.want)
		})
	}
	_, err := p.Apply()
	require.ErrorContains(t, err, "no edit")
}

func TestApply_SeveralEditsAtOnce(t *testing.T) {
	p := pkg(t, map[string]string{"toy.go": abs, "two.go": "var limit = 7\n"})
	edited := applied(t, p,
		Edit{In: "Abs", Old: "return n", New: "return 0"},
		Edit{In: "limit", Old: "7", New: "8"},
		Edit{In: "Abs", Old: "n < 0", New: "n < 1"},
		Edit{In: "Abs", New: "n++"})
	require.Equal(t, map[string]string{
		"toy.go": "func Abs(n int) int { n++; \n\tif n < 1 {\n\t\treturn -n\n\t}\n\treturn 0\n}\n",
		"two.go": "var limit = 8\n",
	}, edited)

	_, err := p.Apply(wrong, Edit{In: "Abs", Old: "n < 0 { return", New: "n < 0 { return 1 +"})
	require.ErrorContains(t, err, "two edits of Abs overlap")
	_, err = p.Apply(wrong, Edit{In: "limit", Old: "9", New: "8"})
	require.ErrorContains(t, err, "limit (two.go:3) has this 0 times")
}

func TestApply_LeavesWhatFollowsOnItsLine(t *testing.T) {
	text := "func f() string {\n\tg(\n\t\t1,\n\t)\n\tg(2)\n\ts := `a\nb`\n\treturn s // here\n}\n"
	line := func(edits ...Edit) int {
		before, _, found := strings.Cut(applied(t, one(t, text), edits...)["toy.go"], "// here")
		require.True(t, found)
		return strings.Count(before, "\n")
	}
	asItIs := line(Edit{In: "f", Old: "2", New: "3"})
	require.Equal(t, asItIs, line(Edit{In: "f", Old: "g(1,); g(2)", New: ""}))
	longer := Edit{In: "f", Old: "s :=", New: "g(\n3)\ns :="}
	require.Equal(t, asItIs+2, line(longer), "more lines than before")
	longer.Old, longer.New = "1", "1,\n2"
	require.Equal(t, asItIs, line(longer, Edit{In: "f", Old: ") g(2)", New: "); g(3)"}), "an edit makes up for one before")

	// A line that would have to grow within a raw string stays as it is.
	edited := applied(t, one(t, text), Edit{In: "f", Old: "g(1,); g(2); s :=", New: "s :="})["toy.go"]
	require.Contains(t, edited, "`a\nb`")
}

func TestApply_KeepsImportsInOrder(t *testing.T) {
	p := pkg(t, map[string]string{
		"toy.go": "import (\n\t\"math\"\n\tnum \"strconv\"\n\t\"example.org/toy/v2\"\n)\n\nfunc f(time struct{ n int }) string {\n\ttoy.Do(time.n)\n\treturn num.Itoa(math.MaxInt8)\n}\n",
		"two.go": "import (\n\t\"os\"\n\t\"time\"\n)\n\nfunc g() int {\n\ttime.Sleep(1)\n\treturn os.Getpid()\n}\n",
	})
	for name, c := range map[string]struct {
		edit       Edit
		want, keep string
	}{
		"one loses its use":         {Edit{"f", "math.MaxInt8", "1"}, "\t_ \"math\"\n", "\tnum \"strconv\"\n"},
		"one with a name":           {Edit{"f", "num.Itoa(math.MaxInt8)", `""`}, "\t_ \"strconv\"\n", "\t_ \"math\"\n"},
		"one with a version":        {Edit{"f", "toy.Do(time.n)", ""}, "\t_ \"example.org/toy/v2\"\n", "\t\"math\"\n"},
		"one of another file":       {Edit{"f", "math.MaxInt8", "math.MaxInt8 + os.Getpid()"}, "; import os \"os\"\n", "\t\"math\"\n"},
		"a variable like a package": {Edit{"f", "time.n", "time.n + 1"}, "package toy\n\nimport (", "\t\"math\"\n"},
	} {
		t.Run(name, func(t *testing.T) {
			edited, err := p.Apply(c.edit)
			require.NoError(t, err)
			for _, text := range edited {
				require.Contains(t, string(text), c.want)
				require.Contains(t, string(text), c.keep)
				_, err := parser.ParseFile(token.NewFileSet(), "toy.go", text, 0)
				require.NoError(t, err)
			}
		})
	}
}

func TestChecker_TellsWhatDoesNotCompile(t *testing.T) {
	p := pkg(t, map[string]string{"go.mod": "", "toy.go": abs, "two.go": "import \"strings\"\n\nfunc up(s string) string { return strings.ToUpper(s) }\n"})
	require.NoError(t, os.WriteFile(filepath.Join(p.dir, "go.mod"), []byte("module toy\n\ngo 1.26\n"), 0o600))
	checker, err := NewChecker(p.dir)
	require.NoError(t, err)
	check := func(e Edit) error {
		edited, err := p.Apply(e)
		require.NoError(t, err)
		return checker.Check(p, edited)
	}
	require.NoError(t, checker.Check(p, nil))
	require.NoError(t, check(wrong))
	require.NoError(t, check(Edit{"up", "strings.ToUpper(s)", "s"}), "an import without a use")
	require.NoError(t, check(Edit{"Abs", "", `_ = strings.ToUpper("a")`}), "a package that another file imports")
	require.ErrorContains(t, check(Edit{"Abs", "return -n", "return minus(n)"}), "toy.go:5:10: undefined: minus")
	require.ErrorContains(t, check(Edit{"Abs", "return -n", "return -n }"}), "toy.go:")

	_, err = NewChecker(filepath.Join(p.dir, "gone"))
	require.ErrorContains(t, err, "go list")
}

func TestLoad_WantsGoSource(t *testing.T) {
	_, err := Load(t.TempDir())
	require.ErrorContains(t, err, "has no Go source")
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "toy.go"), []byte("package toy\n\nfunc {"), 0o600))
	_, err = Load(dir)
	require.ErrorContains(t, err, "toy.go:3")
}
