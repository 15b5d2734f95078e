package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tiny is what all runs of the tests begin with.
var tiny = []string{"-quick", "-duration", "1ms", "-goroutines", "1,4", "-keys", "100", "-rounds", "1"}

func runTool(ctx context.Context, args ...string) (code int, out, errOut string) {
	var o, e bytes.Buffer
	code = run(ctx, args, &o, &e, false)
	return code, o.String(), e.String()
}

func TestBadFlagsAreOneLine(t *testing.T) {
	for _, args := range [][]string{
		{"-duration", "-1s"}, {"-duration", "0"}, {"-duration", "soon"}, {"-duration", "2h"},
		{"-goroutines", "0"}, {"-goroutines", "1,,2"}, {"-goroutines", "many"}, {"-goroutines", ""},
		{"-keys", "0"}, {"-keys", "-5"}, {"-keys", "9999999"},
		{"-duplicates", "1.1"}, {"-duplicates", "-0.1"}, {"-duplicates", "NaN"}, {"-duplicates", "0.5;0.9"},
		{"-skew", "pareto"}, {"-work", "-1ms"}, {"-value", "-1"}, {"-procs", "0"},
		{"-rivals", "nobody"}, {"-rivals", ""}, {"-rounds", "0"},
		{"-html", "no/such/folder/x.html"}, {"-json", "no/such/folder/x.json"},
		{"-readme", "README.md"}, {"-readme", "no-such-file", "-svg", t.TempDir()},
		{"-unknown"}, {"stray"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			code, out, errOut := runTool(t.Context(), args...)
			require.Equal(t, badUsage, code)
			require.Empty(t, out)
			require.Regexp(t, `^contention: [^\n]+\n$`, errOut)
		})
	}
}

func TestHelp(t *testing.T) {
	_, err := parse([]string{"-h"}, io.Discard)
	require.True(t, errors.Is(err, flag.ErrHelp))
	code, out, errOut := runTool(t.Context(), "-h")
	require.Zero(t, code)
	require.Empty(t, errOut)
	for _, name := range []string{"duration", "goroutines", "keys", "duplicates", "skew", "work", "value", "procs", "rivals", "rounds", "json", "html", "svg", "quick"} {
		require.Contains(t, out, "-"+name)
	}
}

func TestAllFilesAreWritten(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	const begin, end = "<!-- bench:begin -->", "<!-- bench:end -->"
	require.NoError(t, os.WriteFile(at("README.md"), []byte("before\n"+begin+"\nold\n"+end+"\nafter\n"), 0o600))
	require.NoError(t, os.WriteFile(at("other.md"), []byte("other"), 0o600))
	code, out, errOut := runTool(t.Context(), append(tiny,
		"-rivals", "idemflight,singleflight", "-json", at("out.json"), "-html", at("out.html"),
		"-svg", at("charts"), "-readme", at("other.md")+","+at("README.md"))...)
	require.Zero(t, code, errOut)
	require.Contains(t, out, "idemflight")

	text, err := os.ReadFile(at("out.json"))
	require.NoError(t, err)
	var rep report
	require.NoError(t, json.Unmarshal(text, &rep))
	require.Len(t, rep.Rivals, 2)
	for _, r := range rep.Rivals {
		require.Len(t, r.Points, 3, "two numbers of goroutines, and one more share of duplicates")
		for _, p := range r.Points {
			require.Positive(t, p.CallsPerSecond.Median)
			require.Zero(t, p.Errors)
			if r.Name == "idemflight" {
				require.Equal(t, 1.0, p.Executions, "of each key fn runs once")
			}
		}
		require.Equal(t, r.Name == "idemflight", r.HeapPerEntry != nil, "who keeps nothing has a dash")
	}

	html, err := os.ReadFile(at("out.html"))
	require.NoError(t, err)
	require.Equal(t, 14, strings.Count(string(html), "<svg "), "seven charts, light and dark")
	for _, link := range []string{"src=", "href=\"http", "url(http", "@import"} {
		require.NotContains(t, string(html), link, "the page must need nothing else")
	}

	readme, err := os.ReadFile(at("README.md"))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(readme), "before\n"+begin+"\n<picture>"))
	require.True(t, strings.HasSuffix(string(readme), end+"\nafter\n"))
	require.NotContains(t, string(readme), "old")
	require.Contains(t, string(readme), `src="charts/throughput-goroutines-light.svg"`)
	for _, name := range []string{"throughput-goroutines", "contract"} {
		require.FileExists(t, at("charts/"+name+"-light.svg"))
		require.FileExists(t, at("charts/"+name+"-dark.svg"))
	}
	other, err := os.ReadFile(at("other.md"))
	require.NoError(t, err)
	require.Equal(t, "other", string(other))
}

func TestInterruptPrintsWhatThereIs(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c, err := parse(append(tiny, "-rivals", "idemflight", "-rounds", "1000"), io.Discard)
	require.NoError(t, err)
	rep := measureAll(ctx, c, stopAfter{new(int), 20, cancel})
	require.True(t, rep.Interrupted)
	require.Less(t, rep.Rounds, 1000)
	require.NotEmpty(t, rep.Rivals[0].Points)
	var out bytes.Buffer
	require.NoError(t, c.write(rep, &out))
	require.Contains(t, out.String(), "Interrupted")
}

func TestInterruptedBeforeAnything(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	code, out, _ := runTool(ctx, append(tiny, "-html", filepath.Join(dir, "out.html"), "-svg", dir)...)
	require.Equal(t, interrupted, code)
	require.Contains(t, out, none)
}

// stopAfter is Ctrl-C after so many steps.
type stopAfter struct {
	done  *int
	after int
	stop  func()
}

func (s stopAfter) step(string) {
	if *s.done++; *s.done == s.after {
		s.stop()
	}
}

func (stopAfter) finish() {}

func TestKindOf(t *testing.T) {
	var u use
	require.Equal(t, replayed, (&u).kindOf(0, 0), "nothing ran meanwhile")

	u.started.Store(1) // ran while both of them called
	require.Equal(t, executed, u.kindOf(0, 0), "the first to return counts as the one that ran it")
	require.Equal(t, joined, u.kindOf(0, 0))
	require.Equal(t, joined, u.kindOf(0, 1), "it was running when the call came")

	u.finished.Store(1)
	require.Equal(t, replayed, u.kindOf(1, 1))
}

func TestQuantiles(t *testing.T) {
	even, odd := newLatencies(), newLatencies() // of two callers
	for i := 1; i <= 100_000; i++ {
		if i%2 == 0 {
			even.add(executed, time.Duration(i))
		} else {
			odd.add(replayed, time.Duration(i))
		}
	}
	sum := newLatencies()
	sum.merge(even)
	sum.merge(odd)
	require.EqualValues(t, 50_000, sum[executed].TotalCount())
	require.EqualValues(t, 50_000, sum[replayed].TotalCount())
	all := sum.all()
	require.EqualValues(t, 100_000, all.TotalCount())
	for _, q := range []float64{0.5, 0.99, 0.999} {
		require.InEpsilon(t, q*100_000, *quantile(all, q), 0.01)
	}
	require.NotNil(t, quantile(all, 0.9998), "twenty calls beyond it")
	require.Nil(t, quantile(all, 0.99991), "nine")
}

func TestEveryDurationCounts(t *testing.T) {
	l := newLatencies()
	for d := time.Duration(1); d < longest; d = d*9/8 + 1 {
		one := newLatencies()
		for range 20 { // of which ten lie beyond the median
			one.add(joined, d)
		}
		require.InEpsilon(t, float64(d), *quantile(one[joined], 0.5), 0.01)
		l.merge(one)
	}
	before := l[joined].TotalCount()
	for _, d := range []time.Duration{-1, 0, longest, longest + 1, 1<<63 - 1} {
		l.add(joined, d)
	}
	require.Equal(t, before+5, l[joined].TotalCount(), "none is lost, however odd")
	require.InEpsilon(t, float64(longest), float64(l[joined].Max()), 0.01)
}

func TestPercent(t *testing.T) {
	require.Equal(t, "90 %", percent(0.9))
	require.Equal(t, "99.5 %", percent(0.995))
	require.Equal(t, "0 %", percent(0))
	require.Equal(t, "100 %", percent(1))
}

func TestLabelsDoNotMeet(t *testing.T) {
	var all []series
	for _, name := range rivalNames() {
		all = append(all, series{name: name, values: []float64{1000}})
	}
	places := spreadOut(all, 100, 10_000)
	require.Len(t, places, len(all))
	seen := make(map[float64]bool)
	for _, y := range places {
		require.False(t, seen[y])
		require.True(t, y >= 99 && y <= 10_001, "within the chart: %f", y)
		seen[y] = true
	}
}
