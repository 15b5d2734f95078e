package clients

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

var write = flag.Bool("write", false, "write the table of docs/classify.md anew")

// document shows the rows as a table, between the marks.
const (
	document = "../../docs/classify.md"
	begin    = "<!-- clients:begin -->\n"
	end      = "<!-- clients:end -->\n"
)

// effect is what the test knows about a situation, and the client does not: whether the operation
// was carried out, or may have been.
type effect string

const (
	none     effect = "no"
	possible effect = "maybe"
	done     effect = "yes"
)

// unknowable begins the remark of a row whose key is released although the effect may be there.
const unknowable = "No classifier can know"

// row is one way in which a client fails.
type row struct {
	what   string // what happened, in words
	effect effect
	says   string // the error's text, or the part of it that does not change
	want   idemflight.Disposition
	remark string

	fail func(t *testing.T) error // makes the client fail, and returns its error as it is
	is   func(error) bool         // optional: that it is the error it should be
}

// client is the rows of one client.
type client struct {
	name   string
	module string // "" for the standard library
	rows   []row
}

// table is every client, in the order of the document.
var table = []client{
	netHTTP, grpcClient, connectClient, pgxClient, mysqlClient, natsClient, kafkaClient, awsClient, stripeClient,
	retryableHTTP, retryGo, multiError,
}

func TestClassifyLenientOfRealErrors(t *testing.T) {
	for _, c := range table {
		t.Run(c.name, func(t *testing.T) {
			for _, r := range c.rows {
				t.Run(r.what, func(t *testing.T) {
					t.Parallel()
					err := r.fail(t)
					require.Error(t, err, "the client must fail")
					t.Logf("%v: %s", err, chain(err))
					require.Contains(t, err.Error(), strings.ReplaceAll(r.says, "`", ""), "another failure than the one that was meant: %s", chain(err))
					if r.is != nil {
						require.True(t, r.is(err), "another error than the one that was meant: %s", chain(err))
					}
					require.Equal(t, r.want, idemflight.ClassifyLenient(err), "ClassifyLenient of %s", chain(err))
					require.Equal(t, r.want, idemflight.ClassifyLenient(fmt.Errorf("charge: %w", err)), "wrapped by fn, as usual: %s", chain(err))
				})
			}
		})
	}
}

// chain is the types of the errors within err, from the outside in.
func chain(err error) string {
	s := fmt.Sprintf("%T", err)
	var parts []error
	switch e := err.(type) {
	case interface{ WrappedErrors() []error }:
		parts = e.WrappedErrors()
	case interface{ Unwrap() []error }:
		parts = e.Unwrap()
	default:
		if inner := errors.Unwrap(err); inner != nil {
			return s + " > " + chain(inner)
		}
		return fmt.Sprintf("%s %q", s, err.Error())
	}
	var inner []string
	for _, part := range parts {
		inner = append(inner, chain(part))
	}
	return s + " > [" + strings.Join(inner, ", ") + "]"
}

// The table must not promise what cannot be: a key that is released although the effect is there, or
// may be, is said to be one.
func TestTableSaysWhereTheAnswerIsUnsafe(t *testing.T) {
	for _, c := range table {
		for _, r := range c.rows {
			unsafe := r.want == idemflight.Release && r.effect != none
			require.Equal(t, unsafe, strings.HasPrefix(r.remark, unknowable), "%s, %s: a remark says %q exactly where the answer is unsafe", c.name, r.what, unknowable)
			if r.want == idemflight.Hold && r.effect == none {
				require.NotEmpty(t, r.remark, "%s, %s: a key that is held in vain deserves a remark", c.name, r.what)
			}
			require.NotContains(t, r.what+r.says+r.remark, "|", "%s, %s: breaks the table", c.name, r.what)
		}
		require.True(t, slices.ContainsFunc(c.rows, func(r row) bool { return r.want == idemflight.Hold }), "%s: a row that is held", c.name)
	}
}

func TestTableIsThatOfTheDocument(t *testing.T) {
	text, err := os.ReadFile(document)
	require.NoError(t, err)
	got, err := shown(string(text))
	require.NoError(t, err)
	want := render(table)
	if *write {
		require.NoError(t, os.WriteFile(document, []byte(strings.Replace(string(text), begin+got+end, begin+want+end, 1)), 0o666))
		return
	}
	require.Equal(t, want, got, "docs/classify.md shows other rows: go test . -run TestTable -args -write")
}

// The comparison must see every column of every row, or the document may say what is not so.
func TestTableThatDiffersIsNoticed(t *testing.T) {
	original := render(table)
	for i := range table {
		for j := range table[i].rows {
			for name, change := range map[string]func(*row){
				"what":   func(r *row) { r.what += "!" },
				"effect": func(r *row) { r.effect += "!" },
				"says":   func(r *row) { r.says += "!" },
				"want":   func(r *row) { r.want = (r.want + 1) % 3 },
				"remark": func(r *row) { r.remark += "!" },
			} {
				changed := slices.Clone(table)
				changed[i].rows = slices.Clone(changed[i].rows)
				change(&changed[i].rows[j])
				require.NotEqual(t, original, render(changed), "%s, row %d: %s", table[i].name, j, name)
			}
		}
	}
	for name, text := range map[string]string{"no marks": "# x\n", "no end": begin, "two tables": begin + end + begin + end} {
		_, err := shown(text)
		require.Error(t, err, name)
	}
}

// shown returns the table in the document's text.
func shown(text string) (string, error) {
	if strings.Count(text, begin) != 1 || strings.Count(text, end) != 1 {
		return "", errors.New("the document must have each of the two marks once")
	}
	_, rest, _ := strings.Cut(text, begin)
	tableText, _, ok := strings.Cut(rest, end)
	if !ok {
		return "", errors.New("the marks are in the wrong order")
	}
	return tableText, nil
}

// render returns the table as the document shows it.
func render(clients []client) string {
	var b strings.Builder
	for _, c := range clients {
		fmt.Fprintf(&b, "\n### %s\n\n", c.name)
		if c.module != "" {
			fmt.Fprintf(&b, "`%s`\n\n", c.module)
		}
		b.WriteString("| what happened | effect? | the error says | ClassifyLenient | remark |\n|---|---|---|---|---|\n")
		for _, r := range c.rows {
			answer := r.want.String()
			if r.want == idemflight.Release && r.effect != none {
				answer = "**" + answer + "**"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.what, r.effect, r.says, answer, r.remark)
		}
	}
	b.WriteString("\n")
	return b.String()
}
