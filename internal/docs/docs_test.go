package main

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// repository returns one with the given files: name, text, name, text.
func repository(files ...string) fstest.MapFS {
	tree := fstest.MapFS{}
	for i := 0; i < len(files); i += 2 {
		tree[files[i]] = &fstest.MapFile{Data: []byte(files[i+1])}
	}
	return tree
}

func TestCollect_FindsSentencesAndTests(t *testing.T) {
	promises, err := collect(repository(
		"a_test.go", `package a

// Promise 1: One, in two
// lines.
//
// How it is tested.
func TestPromise01_A(t *testing.T) {}

func TestPromise01_B(t *testing.T) {}

func TestPromise1_WrongName(t *testing.T) {}
`,
		"deep/b_test.go", `package b

// Promise 2: Why not, says docs/why.md#not.

func TestPromise01_C(t *testing.T) {}
`,
		"verify/c_test.go", "package c\n\nfunc TestPromise01_Planted(t *testing.T) {}\n",
		".hidden/d_test.go", "no Go",
		"e.go", "package e\n\nfunc TestPromise01_NoTest() {}\n",
	))
	require.NoError(t, err)
	require.Equal(t, []promise{
		{"One, in two lines.", map[string][]string{"a_test.go": {"A", "B"}, "deep/b_test.go": {"C"}}},
		{"Why not, says docs/why.md#not.", map[string][]string{}},
	}, promises)

	page := string(render(promises))
	require.Contains(t, page, "\n## Execution\n\n### Promise 1\n\nOne, in two lines.\n\n"+
		"- [a_test.go](../a_test.go): A, B\n- [deep/b_test.go](../deep/b_test.go): C\n")
	require.Contains(t, page, "\n### Promise 2\n\nWhy not, says [docs/why.md](why.md#not).\n")
}

func TestCollect_NamesAllThatIsWrong(t *testing.T) {
	const stated = "// Promise 1: One.\nfunc TestPromise01_A(t *testing.T) {}\n"
	for _, c := range []struct{ source, want string }{
		{stated + "// Promise 1: One.\nfunc TestPromise01_B(t *testing.T) {}\n", "promise 1 is stated a second time"},
		{stated + "func TestPromise02_B(t *testing.T) {}\n", "promise 2 is not stated"},
		{stated + "// Promise 3: Three.\nfunc TestPromise03_B(t *testing.T) {}\n", "there is no promise 2"},
		{stated + "// Promise 2: Two\nfunc TestPromise02_B(t *testing.T) {}\n", "promise 2 is not a sentence"},
		{stated + "// Promise 2: Two.\nfunc TestTwo(t *testing.T) {}\n", "promise 2 has no test"},
	} {
		_, err := collect(repository("a_test.go", "package a\n\n"+c.source))
		require.ErrorContains(t, err, c.want)
	}
}

func TestCheckErrors_WantsASectionAndTheTextOfEach(t *testing.T) {
	const source = `package a

var (
	ErrA = errors.New("a: it is full")
	errB = errors.New("b: nobody sees it")
)
`
	for page, want := range map[string]string{
		"# Errors\n\n### ErrA\n\na: it is full\n": "",
		"# Errors\n\nErrA: a: it is full\n":       "no section about ErrA",
		"# Errors\n\n### ErrA\n\na: it is open\n": "does not have the text of ErrA: a: it is full",
	} {
		err := checkErrors(repository("errors.go", source, errorsPage, page))
		if want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, want)
	}
}

func TestCheckLinks_FindsThoseThatLeadNowhere(t *testing.T) {
	const other = "# The `first` one: why?\n\n## <a id=\"here\"></a>And the second\n\n```\n# no heading\n```\n"
	for _, c := range []struct{ link, want string }{
		{"docs/b.md", ""},
		{"docs/b.md#the-first-one-why", ""},
		{"docs/b.md#here", ""},
		{"docs/b.md#and-the-second", ""},
		{"#own-heading", ""},
		{"code.go", ""},
		{"https://example.com/nowhere", ""},
		{"b.md", "README.md: the link to b.md leads nowhere"},
		{"docs/b.md#no-heading", "README.md: docs/b.md has no heading or anchor #no-heading"},
		{"#here", "README.md: README.md has no heading or anchor #here"},
	} {
		err := checkLinks(repository("README.md", "# Own heading\n\n[x]("+c.link+")\n", "docs/b.md", other, "code.go", ""))
		if c.want == "" {
			require.NoError(t, err)
			continue
		}
		require.EqualError(t, err, c.want)
	}
}
