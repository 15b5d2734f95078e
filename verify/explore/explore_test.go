package explore

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/idemflight/idemflight/internal/yield"
	"github.com/stretchr/testify/require"
)

var (
	long     = flag.Bool("long", false, "explore for minutes: every schedule of two actors, up to 100,000 of three and 20,000 of four; plant every fault")
	most     = flag.Int("most", 0, "the most schedules of a scenario (0 = as the scenario and -long have it)")
	choices  = flag.String("choices", "", "run one schedule, of the scenario that -run names, and print its steps")
	jsonFile = flag.String("json", "", "write the results of the scenarios to this file")
	child    = flag.String("child", "", "explore this one scenario in this process (what TestExplore runs)")
)

const resultMark = "RESULT "

// TestExplore explores all scenarios, each in a process of its own: the points of the library have
// one hook for all, and a process that has one scenario can use one core.
func TestExplore(t *testing.T) {
	if *child != "" {
		exploreHere(t, *child)
		return
	}
	if isSet("choices") {
		replay(t)
		return
	}
	var mu sync.Mutex
	var results []result
	began := time.Now()
	t.Cleanup(func() { report(t, results, time.Since(began)) })
	for i := range scenarios {
		sc := &scenarios[i]
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			res, err := exploreChild(t, os.Args[0], sc.name, sc.most(*long))
			require.NoError(t, err)
			mu.Lock()
			defer mu.Unlock()
			results = append(results, res)
			if res.Violation != "" {
				t.Fatalf("%s\nRun it again: go test ./explore -run '^TestExplore$/^%s$' -v -args -choices=%s",
					res.Violation, strings.ReplaceAll(res.Scenario, "/", "$/^"), res.Choices)
			}
			require.Positive(t, res.Schedules)
			require.True(t, res.Passed, "no schedule passes %q", sc.through)
		})
	}
}

// most returns how many schedules of sc are run at most.
func (sc *scenario) most(long bool) int {
	switch n := sc.callers(); {
	case *most > 0:
		return *most
	case testing.Short():
		return 200
	case !long && n == 2:
		return 4000
	case !long:
		return 2000
	case n == 2:
		return 1 << 30
	case n == 3:
		return 100_000
	default:
		return 20_000
	}
}

func isSet(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// exploreChild explores a scenario in a process of its own, which runs the given test binary. An
// error is what that process said before it ended without a result: a stranded caller ends it.
func exploreChild(t *testing.T, binary, name string, most int) (res result, err error) {
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestExplore$", "-test.timeout=0", "-child="+name, fmt.Sprintf("-most=%d", most))
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=400")
	out, err := cmd.CombinedOutput()
	for line := range bytes.Lines(out) {
		if text, ok := bytes.CutPrefix(line, []byte(resultMark)); ok {
			return res, json.Unmarshal(text, &res)
		}
	}
	return res, fmt.Errorf("the process that explores %s ended: %v\n%s", name, err, out[:min(len(out), 4000)])
}

func exploreHere(t *testing.T, name string) {
	sc := find(t, name)
	text, err := json.Marshal(sc.explore(t, sc.most(*long)))
	require.NoError(t, err)
	fmt.Printf("%s%s\n", resultMark, text)
}

func find(t *testing.T, name string) *scenario {
	i := slices.IndexFunc(scenarios, func(sc scenario) bool { return sc.name == name })
	require.GreaterOrEqual(t, i, 0, "there is no scenario %s", name)
	return &scenarios[i]
}

// replay runs one schedule of each scenario that -run names.
func replay(t *testing.T) {
	picks, err := parseChoices(*choices)
	require.NoError(t, err)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for i := range scenarios {
		sc := &scenarios[i]
		t.Run(sc.name, func(t *testing.T) {
			r := sc.run(t, plan{picks, -1}, t.Logf)
			require.NoError(t, r.wrong)
		})
	}
}

// report prints what was explored, and writes it to -json.
func report(t *testing.T, results []result, took time.Duration) {
	if len(results) == 0 {
		return
	}
	slices.SortFunc(results, func(a, b result) int { return order(a.Scenario) - order(b.Scenario) })
	var text strings.Builder
	sum := summary{Took: took, Scenarios: results}
	fmt.Fprintf(&text, "| scenario | callers | schedules | |\n|---|---:|---:|---|\n")
	for _, r := range results {
		name, n, _ := strings.Cut(r.Scenario, "/")
		how := "all"
		if !r.All {
			how = fmt.Sprintf("all with at most %d interruptions, and more", r.Bound-1)
		}
		fmt.Fprintf(&text, "| %s: %s | %s | %d | %s |\n", name, r.Doc, n, r.Schedules, how)
		sum.Schedules += r.Schedules
		if r.Violation != "" {
			sum.Violations++
		}
	}
	fmt.Fprintf(&text, "\n%d schedules of %d scenarios in %v, %d violations\n", sum.Schedules, len(results), took.Round(time.Second), sum.Violations)
	t.Log("\n" + text.String())
	if *jsonFile != "" {
		out, err := json.MarshalIndent(sum, "", "\t")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(*jsonFile, append(out, '\n'), 0o666))
	}
}

// summary is what -json writes.
type summary struct {
	Schedules  int           `json:"schedules"`
	Violations int           `json:"violations"`
	Took       time.Duration `json:"took"`
	Scenarios  []result      `json:"scenarios"`
}

func order(name string) int {
	return slices.IndexFunc(scenarios, func(sc scenario) bool { return sc.name == name })
}

// Each actor and each goroutine of the library must be told from the others: by labels, which cost
// nothing, as well as by the numbers of goroutines, which are certain.
func TestLabelsTellGoroutinesApart(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer func() { alwaysCompareGoroutines = false }()
	for _, name := range []string{"do/3", "do-stays/3", "reconcile-inline/3", "expiry-keys/2", "reentrant/3", "store-operator/4"} {
		sc := find(t, name)
		alwaysCompareGoroutines = false
		byLabel := sc.explore(t, 300)
		alwaysCompareGoroutines = true
		byNumber := sc.explore(t, 300)
		byLabel.Took, byNumber.Took = 0, 0
		require.Equal(t, byNumber, byLabel)
		require.Empty(t, byLabel.Violation)
	}
}

// The same choices give the same schedule, and every schedule is run once.
func TestSchedulesAreDeterministicAndDifferent(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, name := range []string{"do/3", "evict-spread/2", "expiry-keys/2", "close/3", "store-outage/2"} {
		sc := find(t, name)
		seen := map[string]bool{}
		var picks []choice
		for more, n := true, 0; more && n < 300; n++ {
			once, twice := &strings.Builder{}, &strings.Builder{}
			r := sc.run(t, plan{picks, -1}, stepsTo(once))
			sc.run(t, plan{r.made, -1}, stepsTo(twice))
			require.NoError(t, r.wrong)
			require.Equal(t, once.String(), twice.String())
			require.False(t, seen[once.String()], "twice:\n%s", once)
			seen[once.String()] = true
			picks, more = next(r.made)
		}
	}
}

// stepsTo writes the steps of a schedule, and not the answers: which of two callers that were woken
// together has its answer first is nobody's choice.
func stepsTo(b *strings.Builder) func(string, ...any) {
	return func(format string, args ...any) {
		if format == stepFormat {
			fmt.Fprintf(b, format+"\n", args...)
		}
	}
}

// Scenarios say which keys share a shard, and the keys are chosen by the cache's seed: a flight of
// each must be found in the shard it is meant for.
func TestKeysLieWhereTheyShould(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, spread := range []bool{true, false} {
			sc := &scenario{keys: 3, spread: spread, options: entries(2, -1)}
			w := newWorld(sc, nil)
			w.finals = true
			for k := range key(3) {
				_, _ = w.cache.Do(t.Context(), w.keys[k], func(context.Context) (int, error) {
					want := 0
					if spread {
						want = int(k) % 2
					}
					require.Equal(t, want, shardInFlight(w.cache), "key %v, spread: %v", k, spread)
					return 0, nil
				})
			}
		}
	})
}

// The tables of the scenarios that make them grow and shrink are at the edge.
func TestTablesAreAtTheEdge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, name := range []string{"grow/2", "grow-directory/2", "shrink/2", "shrink-directory/2"} {
			sc := find(t, name)
			w := newWorld(sc, nil)
			w.finals = true
			sc.prepare(w)
			before := bucketsOf(w.cache)
			want := before + 1
			if strings.HasPrefix(name, "shrink") {
				want = before - 1
				_, _ = w.cache.Forget(t.Context(), w.keys[keyB])
			} else {
				w.prepares(keyB, 1, nil)
			}
			require.Equal(t, want, bucketsOf(w.cache), name)
			require.EqualValues(t, min(before, want), sc.bucket, "in %s A does not move", name)
		}
	})
}

// The points are there: without them every scenario has one schedule, and nothing is explored.
func TestTheLibraryStopsAtItsPoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := map[string]bool{}
		yield.Hook(func(p string) { seen[p] = true })
		defer yield.Hook(nil)
		w := newWorld(find(t, "shrink/2"), nil)
		w.finals = true
		shrinksOn(10)(w)
		w.prepares(keyA, 1, nil)
		_, _ = w.cache.Forget(t.Context(), w.keys[keyB])
		for _, p := range []string{
			"look: lock", "meet", "execute", "settle", "settled", "arm", "disarm", "look: found", "look: not expired",
			"locked: put", "locked: gone", "locked: grow", "locked: shrink",
		} {
			require.True(t, seen[p], "the library does not stop at %q", p)
		}
	})
}
