// Command figures runs every proof and writes what they show, with date, commit and machine, between the
// marks <!-- proof:begin --> and <!-- proof:end --> of the files it is given:
//
//	go run -C verify ./figures README.md                      # the long runs: some three hours on a quiet machine
//	go run -C verify ./figures -only 'model|fuzz' README.md   # only these; the other rows stay as they are
//	go run -C verify ./figures -quick                         # the quick ones, printed
//
// A proof that fails leaves its row as it was; then it exits with 1.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	beginMark = "<!-- proof:begin -->"
	endMark   = "<!-- proof:end -->"
)

func main() {
	quick := flag.Bool("quick", false, "the quick runs")
	only := flag.String("only", "", "only proofs whose name matches this regular expression")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "-only:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *quick, pattern, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// row is what one proof shows.
type row struct{ shows, faults, command string }

// proofs in the order of the table.
var proofs = []struct {
	name string
	run  func(ctx context.Context, dir string, quick bool) (row, error)
}{
	{"schedules", explored},
	{"model", modelled},
	{"linearizability", narrow},
	{"intervals", wide},
	{"protocol", protocol},
	{"soak", soaked},
	{"soak of stores", soakedStores},
	{"storms", stormed},
	{"nginx in front", fronted},
	{"planted faults", planted},
	{"mutation", mutated},
	{"fuzzing", fuzzed},
}

func run(ctx context.Context, quick bool, only *regexp.Regexp, files []string) error {
	for _, file := range files { // before hours have gone
		if _, _, _, err := cut(file); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "figures")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	lines := map[string]string{} // of the table, by the name of the proof
	var failed []error
	for _, proof := range proofs {
		if !only.MatchString(proof.name) {
			continue
		}
		began := time.Now()
		r, err := proof.run(ctx, dir, quick)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", proof.name, err))
			continue
		}
		line := fmt.Sprintf("| %s | %s | %s | `%s` | %s, %v, %s |", proof.name, r.shows, cmp.Or(r.faults, "–"), r.command,
			began.Format(time.DateOnly), time.Since(began).Round(time.Second), commit(ctx))
		fmt.Fprintln(os.Stderr, time.Now().Format(time.TimeOnly), line)
		lines[proof.name] = line
		for _, file := range files { // now, should a later one be interrupted; the other rows stay
			before, block, after, err := cut(file)
			if err != nil {
				return err
			}
			kept := linesOf(block)
			kept[proof.name] = line
			if err := os.WriteFile(file, []byte(before+table(kept, quick)+after), 0o666); err != nil {
				return err
			}
		}
	}
	if len(files) == 0 {
		fmt.Print(table(lines, quick))
	}
	return errors.Join(failed...)
}

// linesOf returns the lines of a table that table wrote, by the name of the proof.
func linesOf(block string) map[string]string {
	lines := map[string]string{}
	for line := range strings.Lines(block) {
		line = strings.TrimSpace(line)
		for _, proof := range proofs {
			if strings.HasPrefix(line, "| "+proof.name+" |") {
				lines[proof.name] = line
			}
		}
	}
	return lines
}

// commit names the version of the source.
func commit(ctx context.Context) string {
	id, err := exec.CommandContext(ctx, "git", "describe", "--always", "--exclude=*").Output()
	if err != nil {
		return "no commit"
	}
	changed := exec.CommandContext(ctx, "git", "diff", "--quiet", "HEAD", "--", "../*.go", "*.go").Run() != nil
	if changed {
		return strings.TrimSpace(string(id)) + " and changes"
	}
	return strings.TrimSpace(string(id))
}

func explored(ctx context.Context, dir string, quick bool) (row, error) {
	file := filepath.Join(dir, "explore.json")
	args := []string{"test", "./explore", "-count=1", "-timeout=0", "-v", "-args", "-json=" + file}
	command := "go test ./explore"
	if !quick {
		args, command = append(args, "-long"), "go test ./explore -timeout 0 -args -long"
	}
	out, err := goCommand(ctx, args...)
	if err != nil {
		return row{}, err
	}
	var sum struct {
		Schedules, Violations int
		Scenarios             []struct{ All bool }
	}
	if err := readJSON(file, &sum); err != nil {
		return row{}, err
	}
	all := 0
	for _, s := range sum.Scenarios {
		if s.All {
			all++
		}
	}
	return row{
		fmt.Sprintf("%s of %d scenarios (of %d, all there are), %d violations", grouped(sum.Schedules), len(sum.Scenarios), all, sum.Violations),
		match(out, `(\d+ of \d+) faults found`), command,
	}, nil
}

func modelled(ctx context.Context, _ string, quick bool) (row, error) {
	programs, command := 8000, "go test ./model"
	args := []string{"test", "./model", "-count=1", "-timeout=0", "-v"}
	if !quick {
		programs = 200_000
		command = fmt.Sprintf("go test ./model -timeout 0 -run Agrees -rapid.checks=%d", programs)
		more := append(args[:len(args):len(args)], "-run=Agrees", fmt.Sprintf("-rapid.checks=%d", programs))
		if _, err := goCommand(ctx, more...); err != nil {
			return row{}, err
		}
	}
	out, err := goCommand(ctx, args...)
	if err != nil {
		return row{}, err
	}
	return row{grouped(programs) + " random programs, 0 disagreements", subtests(out, "Fault"), command}, nil
}

func narrow(ctx context.Context, _ string, quick bool) (row, error) {
	n := 100
	if !quick {
		n = 3000
	}
	out, err := goCommand(ctx, "test", "./linear", "-count=1", "-timeout=0", "-v", "-run=Narrow|Porcupine", "-args", fmt.Sprintf("-histories=%d", n))
	if err != nil {
		return row{}, err
	}
	kinds := strings.Count(out, "--- PASS: TestNarrow") - 1
	return row{
		grouped(n*kinds) + " recorded histories of 8 clients, all explained", subtests(out, "Porcupine"),
		fmt.Sprintf("go test ./linear -timeout 0 -run Narrow -args -histories=%d", n),
	}, nil
}

func wide(ctx context.Context, _ string, quick bool) (row, error) {
	n := 1
	if !quick {
		n = 25
	}
	out, err := goCommand(ctx, "test", "./linear", "-count=1", "-timeout=0", "-v", "-run=Wide|Oracle", "-args", fmt.Sprintf("-wide=%d", n))
	if err != nil {
		return row{}, err
	}
	calls := 0
	for _, m := range regexp.MustCompile(`(\d+) calls by \d+ goroutines`).FindAllStringSubmatch(out, -1) {
		k, _ := strconv.Atoi(m[1])
		calls += k
	}
	return row{
		grouped(calls) + " calls by 1,024 goroutines, 0 violations", subtests(out, "Oracle"),
		fmt.Sprintf("go test ./linear -timeout 0 -run Wide -args -wide=%d", n),
	}, nil
}

func protocol(ctx context.Context, _ string, quick bool) (row, error) {
	args, command := []string{"run", "./protocol"}, "go run ./protocol"
	if !quick {
		args, command = append(args, "-long", "-most=1500000"), "go run ./protocol -long -most 1500000"
	}
	out, err := goCommand(ctx, args...)
	if err != nil {
		return row{}, err
	}
	all := strings.Count(out, " worlds, all,")
	worlds, _ := strconv.Atoi(match(out, `(\d+) worlds of \d+ configurations`))
	configurations := match(out, `\d+ worlds of (\d+) configurations`)
	if out, err = goCommand(ctx, "test", "./protocol", "-count=1", "-v", "-run=Faults"); err != nil {
		return row{}, err
	}
	return row{
		fmt.Sprintf("%s worlds of %s configurations of the store's protocol (of %d, all there are), 0 violations", grouped(worlds), configurations, all),
		fmt.Sprintf("%d of %d", strings.Count(out, " is broken: "), strings.Count(out, " is broken: ")), command,
	}, nil
}

func soaked(ctx context.Context, dir string, quick bool) (row, error) {
	file, command := filepath.Join(dir, "soak.json"), "go run ./soak -for 10m"
	args := []string{"run", "./soak", "-json=" + file}
	if quick {
		args, command = append(args, "-quick"), "go run ./soak -quick"
	} else {
		args = append(args, "-for=10m")
	}
	if _, err := goCommand(ctx, args...); err != nil {
		return row{}, err
	}
	var sum struct {
		Seed              uint64
		Rounds, WebRounds int
		Calls, Executions int
		Violations        []any
	}
	if err := readJSON(file, &sum); err != nil {
		return row{}, err
	}
	out, err := goCommand(ctx, "test", "./internal/soak", "-count=1", "-v", "-run=Planted")
	if err != nil {
		return row{}, err
	}
	return row{
		fmt.Sprintf("%s calls and %s executions in %s rounds of all options (%d over HTTP), %d violations; -seed %d",
			grouped(sum.Calls), grouped(sum.Executions), grouped(sum.Rounds), sum.WebRounds, len(sum.Violations), sum.Seed),
		subtests(out, "Planted"), command,
	}, nil
}

// soakedStores soaks caches that share a store, each sort of store for five minutes, all at once.
func soakedStores(ctx context.Context, dir string, quick bool) (row, error) {
	how := "-for=5m"
	if quick {
		how = "-quick"
	}
	stores := []string{"memory", "bbolt", "PostgreSQL", "Redis"}
	shows := make([]string, len(stores))
	err := atOnce(len(stores), func(i int) error {
		store := stores[i]
		file := filepath.Join(dir, "soak-"+store+".json")
		args := []string{"run", "-C", "soak/stores", ".", how, "-store=" + store, "-json=" + file}
		if store == "memory" {
			args = []string{"run", "./soak", how, "-store=" + store, "-json=" + file}
		}
		if _, err := goCommand(ctx, args...); err != nil {
			return err
		}
		var sum struct {
			Rounds, Calls, Executions int
			Violations                []any
		}
		err := readJSON(file, &sum)
		shows[i] = fmt.Sprintf("%s: %s calls and %s executions in %d rounds, %d violations",
			store, grouped(sum.Calls), grouped(sum.Executions), sum.Rounds, len(sum.Violations))
		return err
	})
	if err != nil {
		return row{}, fmt.Errorf("%w\nwhat ended well: %q", err, shows)
	}
	out, err := goCommand(ctx, "test", "./internal/soak", "-count=1", "-v", "-run=OfStores")
	if err != nil {
		return row{}, err
	}
	return row{strings.Join(shows, "; "), subtests(out, "Planted"), "go run -C soak/stores . " + strings.ReplaceAll(how, "=", " ") + " -store NAME"}, nil
}

func planted(ctx context.Context, dir string, quick bool) (row, error) {
	file, command := filepath.Join(dir, "faults.json"), "go run ./faults"
	args := []string{"run", "./faults", "-json=" + file, fmt.Sprintf("-j=%d", runtime.NumCPU())}
	if quick {
		args, command = append(args, "-quick"), "go run ./faults -quick"
	}
	if _, err := goCommand(ctx, args...); err != nil {
		return row{}, err
	}
	var results []struct{ Verdict, Promise string }
	if err := readJSON(file, &results); err != nil {
		return row{}, err
	}
	found, promises := 0, map[string]bool{}
	for _, r := range results {
		promises[r.Promise] = true
		if r.Verdict == "found" {
			found++
		}
	}
	return row{
		fmt.Sprintf("at least one for each of %d things that can cost money: the promises, the lines about idemhttp, the packages around, the stores", len(promises)),
		fmt.Sprintf("%d of %d", found, len(results)), command,
	}, nil
}

// stormed kills processes and the engines that they share. What is found here is what must be: effects that come
// twice where nothing prevents it.
func stormed(ctx context.Context, _ string, quick bool) (row, error) {
	command := "./storms"
	if quick {
		command = "IDEMFLIGHT_KILLS=20 ./storms"
	}
	out, err := shell(ctx, command)
	if err != nil {
		return row{}, err
	}
	var shows, faults []string
	for _, part := range strings.Split(out, "\n== ")[1:] {
		name, text, _ := strings.Cut(part, "\n")
		storms := stormLine.FindAllStringSubmatch(text, -1)
		ledger := ledgerLine.FindAllStringSubmatch(text, -1)
		switch {
		case len(storms) == 2:
			s, control := storms[0], storms[1]
			shows = append(shows, fmt.Sprintf("%s %s and %s of %s, %s (%s), %s", name, s[5], s[6], grouped(number(s[4])), s[1], s[2], s[3]))
			faults = append(faults, fmt.Sprintf("%s %s of %s", name, control[5], grouped(number(control[4]))))
		case len(ledger) == 2:
			s, control := ledger[0], ledger[1]
			shows = append(shows, fmt.Sprintf("transfers with SettleTx made twice: %s of %s, %s", s[3], grouped(number(s[1])), s[2]))
			faults = append(faults, fmt.Sprintf("transfers with the record apart, %s of %s", control[3], grouped(number(control[1]))))
		default:
			return row{}, fmt.Errorf("the storm of %s does not say what it did:\n%s", name, text)
		}
	}
	return row{
		"keys with two effects and with a wrong answer, kills (those after a pause longer than the lease), restarts of the engine: " + strings.Join(shows, "; "),
		"two effects without BeginEffect: " + strings.Join(faults, "; "), command,
	}, nil
}

var (
	stormLine  = regexp.MustCompile(`(\d+) kills, (\d+) after a pause longer than a lease, (\d+) restarts of the engine, .*, (\d+) keys, \d+ answers: (\d+) keys with two effects, (\d+) with wrong answers`)
	ledgerLine = regexp.MustCompile(`(?m)^\S.* (\d+) +(\d+) +(\d+)$`)
)

// fronted has nginx send requests again, to servers that are restarted and killed.
func fronted(ctx context.Context, _ string, quick bool) (row, error) {
	command := "go run -C front . -for 2m"
	if quick {
		command = "go run -C front . -for 10s"
	}
	out, err := shell(ctx, command)
	if err != nil {
		return row{}, err
	}
	// orders, requests, resent by nginx, restarts, charges, charged twice, not charged, two answers, no receipt
	modes := regexp.MustCompile(`(?m)^\| (\w[^|]*) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|`).FindAllStringSubmatch(out, -1)
	if len(modes) != 3 {
		return row{}, fmt.Errorf("not three storms:\n%s", out)
	}
	var shows []string
	for _, m := range modes[:2] {
		shows = append(shows, fmt.Sprintf("%s: %s orders, %s requests resent, %s restarts, %s charges, %s charged twice", m[1], m[2], m[4], m[5], m[6], m[7]))
	}
	return row{strings.Join(shows, "; "), fmt.Sprintf("without idemhttp %s of %s orders", modes[2][7], modes[2][2]), command}, nil
}

func mutated(ctx context.Context, dir string, quick bool) (row, error) {
	const all = ".,./idemhttp,./internal/record,./boltstore,./pgstore,./redisstore"
	file, command := filepath.Join(dir, "mutate.json"), "go run ./mutate -package "+all
	args := []string{"run", "./mutate", "-json=" + file, "-package=" + all}
	if quick {
		args, command = append(args, "-sample=10"), command+" -sample 10"
	}
	if _, err := goCommand(ctx, args...); err != nil {
		return row{}, err
	}
	var reports []struct {
		Package string
		Total   struct {
			Mutants, Killed, Equivalent int
			NotViable                   int `json:"not_viable"`
			TimedOut                    int `json:"timed_out"`
		}
	}
	if err := readJSON(file, &reports); err != nil {
		return row{}, err
	}
	var viable, killed, equivalent, hang int
	var each []string
	for _, r := range reports {
		asked := r.Total.Mutants - r.Total.NotViable - r.Total.TimedOut
		each = append(each, fmt.Sprintf("%s %.1f %%", cmp.Or(strings.TrimPrefix(r.Package, "./"), "?"), 100*float64(r.Total.Killed)/float64(max(1, asked))))
		viable += r.Total.Mutants - r.Total.NotViable
		killed += r.Total.Killed
		equivalent += r.Total.Equivalent
		hang += r.Total.TimedOut
	}
	return row{
		fmt.Sprintf("%s mutants that compile: %s killed, %d survive, each with its reason; beside them %d make a suite hang. Killed of each package: %s",
			grouped(viable), grouped(killed), equivalent, hang, strings.Join(each, ", ")),
		fmt.Sprintf("%s of %s", grouped(killed), grouped(viable-hang)), command,
	}, nil
}

// fuzzed runs the fuzz targets, all at once, for so long each.
func fuzzed(ctx context.Context, _ string, quick bool) (row, error) {
	each := 20 * time.Minute
	if quick {
		each = 10 * time.Second
	}
	targets := []struct{ dir, pkg, name string }{
		{"..", "./idemhttp", "FuzzKey"},
		{"..", "./idemhttp", "FuzzRecorder"},
		{"..", "./ideminspect", "FuzzPage"},
		{"..", ".", "FuzzLogEvents"},
		{"..", ".", "FuzzLoad"},
		{"..", "./storetest", "FuzzCodec"},
		{"..", "./internal/record", "FuzzDecode"},
		{"..", "./internal/rpc", "FuzzParseKey"},
		{"../pgstore", ".", "FuzzRow"},
		{"../redisstore", ".", "FuzzHash"},
		{".", "./model", "FuzzCacheAgreesWithTheContract"},
	}
	list := make([]string, len(targets))
	err := atOnce(len(targets), func(i int) error {
		t := targets[i]
		out, err := goCommand(ctx, "-C", t.dir, "test", t.pkg, "-run=^$", "-fuzz=^"+t.name+"$", "-fuzztime="+each.String(),
			"-fuzzminimizetime=1x", "-parallel=1", "-timeout=0")
		if err != nil {
			return err
		}
		all := regexp.MustCompile(`execs: (\d+)`).FindAllStringSubmatch(out, -1)
		if len(all) == 0 {
			return fmt.Errorf("%s says nothing of how often it ran", t.name)
		}
		execs, err := strconv.Atoi(all[len(all)-1][1])
		list[i] = fmt.Sprintf("%s %s", t.name, grouped(execs))
		return err
	})
	if err != nil {
		return row{}, fmt.Errorf("%w\nwhat ended well: %q", err, list)
	}
	return row{
		fmt.Sprintf("%v each, all at once, runs without a find: %s", each, strings.Join(list, ", ")), "",
		fmt.Sprintf("go test DIR -fuzz NAME -fuzztime %v -fuzzminimizetime 1x -parallel 1", each),
	}, nil
}

// atOnce calls f for each i below n, all at once, waits for all, and returns what all say.
func atOnce(n int, f func(i int) error) error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// goCommand runs the go command in this module and returns what it printed.
func goCommand(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "IDEMFLIGHT_SERVERS=required") // what is skipped shows nothing
	if err := cmd.Run(); err != nil {
		text := out.String()
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, text[max(0, len(text)-4000):])
	}
	return out.String(), nil
}

// shell runs a command in this module and returns what it printed.
func shell(ctx context.Context, command string) (string, error) {
	out, err := exec.CommandContext(ctx, "bash", "-c", command).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", command, err, out[max(0, len(out)-4000):])
	}
	return string(out), nil
}

func readJSON(file string, into any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

func match(text, pattern string) string {
	if m := regexp.MustCompile(pattern).FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// subtests says how many subtests of the tests whose names contain name passed, of how many.
func subtests(out, name string) string {
	passed := len(regexp.MustCompile(`(?m)^    --- PASS: Test\w*`+name+`\w*/`).FindAllString(out, -1))
	failed := len(regexp.MustCompile(`(?m)^    --- (?:FAIL|SKIP): Test\w*`+name+`\w*/`).FindAllString(out, -1))
	if passed+failed == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d", passed, passed+failed)
}

func table(lines map[string]string, quick bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, %s/%s, %d processors%s. Commands in verify/; the last column is when, how long and on which commit.\n\n", runtime.Version(),
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), processor())
	if quick {
		b.WriteString("(the quick runs)\n\n")
	}
	b.WriteString("| proof | shows | planted faults found | command | run |\n|---|---|---|---|---|\n")
	for _, proof := range proofs {
		if line := lines[proof.name]; line != "" {
			fmt.Fprintln(&b, line)
		}
	}
	return b.String()
}

// processor names the processor where that is easily found.
func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	if name := match(string(text), `model name\s*:\s*(.*)`); name != "" {
		return " (" + strings.TrimSpace(name) + ")"
	}
	return ""
}

// cut returns what is before, between and after the marks of file, the marks being outside.
func cut(file string) (before, block, after string, err error) {
	whole, err := os.ReadFile(file)
	if err != nil {
		return "", "", "", err
	}
	before, rest, ok1 := strings.Cut(string(whole), beginMark)
	block, after, ok2 := strings.Cut(rest, endMark)
	if !ok1 || !ok2 {
		return "", "", "", errors.New(file + " has no " + beginMark + " … " + endMark)
	}
	return before + beginMark, block, endMark + after, nil
}

func number(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}

// grouped returns n with a comma before each three digits.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
