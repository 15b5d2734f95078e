package soak

import (
	"context"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"
)

// soak is a row of rounds.
type soak struct {
	program  string
	engine   *Engine // only rounds with a Store, in this one; nil: all kinds
	seed     uint64
	only     int // the round to repeat; negative: all of them
	lasts    time.Duration
	scale    int // percent
	patience time.Duration
	progress io.Writer

	other func(n int) (mix, outcome) // in place of round, if not nil
}

// report is what a soak shows.
type report struct {
	Date, GoVersion, System string
	Processors              int
	Seed                    uint64
	Seconds                 float64
	Engine                  string // if all rounds are with a Store
	Rounds, WebRounds       int
	StoredRounds            int
	Restarts                int
	Calls, Executions       uint64
	CallsPerSecond          int
	MostGoroutines          int
	MostHeap                uint64
	GoroutinesLeft          int
	HeapGrowth              int64
	Answers                 map[string]uint64
	NotExercised            []string
	Violations              []violation
}

// violation is what a round has found.
type violation struct {
	Round  int
	Replay string // the command
	Mix    string
	Wrong  string
}

// answers are the kinds that a soak must have met: those that the contract names.
var answers = []string{
	"executed", "joined", "replayed", "reconciled", "retained", "released", "held", "evicted", "expired", "shed",
	"ErrKeyReused", "ErrInFlight", "ErrOutcomeUnknown", "ErrValueShed", "ErrFull", "ErrClosed", "ErrReentrant", "ErrInvalidKey",
	"ErrCallerLeft", "ErrInterrupted", "a hook panics", "an effect is not announced", "an operator asks Reconcile", "the leader panics", "a joined caller gets *PanicError",
	"a joined caller gets ErrGoexit", "fn's Goexit ends its leader",
}

// storedAnswers are those that a soak must have met of rounds with a Store.
var storedAnswers = []string{
	"executed", "joined", "replayed", "reconciled", "retained", "released", "held", "ErrKeyReused", "ErrInFlight", "ErrOutcomeUnknown", "ErrFull",
	"ErrClosed", "ErrReentrant", "ErrInvalidKey", "ErrCallerLeft", "ErrStore", "a hook panics", "a verb fails", "keys of which a lease has ended",
	"an operator asks Reconcile", "the leader panics", "a joined caller gets *PanicError",
}

// heapTolerance is by how much the heap may have grown when a round is drained: what the runtime and
// net/http keep for themselves is some hundred KiB.
const heapTolerance = 4 << 20

// enough violations end a soak early.
const enough = 20

// round runs round number n.
func (s soak) round(n int) (mix, outcome) {
	m := drawMix(s.seed, n, s.scale)
	engine := memory
	if s.engine != nil {
		engine = *s.engine
		m = drawStoredMix(s.seed, n, s.scale)
	}
	switch {
	case m.Stored && m.KeyType == "int":
		return m, stored(m, ints, s.patience, engine, newCache[int])
	case m.Stored && m.KeyType == "string":
		return m, stored(m, texts, s.patience, engine, newCache[string])
	case m.Stored:
		return m, stored(m, keys, s.patience, engine, newCache)
	case m.Web:
		return m, web(m, s.patience, nil)
	case m.KeyType == "int":
		return m, core(m, ints, s.patience, newCache[int])
	case m.KeyType == "float":
		return m, core(m, floats, s.patience, newCache[float64])
	case m.KeyType == "string":
		return m, core(m, texts, s.patience, newCache[string])
	}
	return m, core(m, keys, s.patience, newCache)
}

// run runs rounds until the time is over, ctx ends, or something hangs.
func (s soak) run(ctx context.Context) report {
	r := report{
		Date: time.Now().Format(time.DateTime), GoVersion: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH,
		Processors: runtime.NumCPU(), Seed: s.seed, Answers: map[string]uint64{},
	}
	wanted := slices.Concat(answers, webAnswers, storedAnswers)
	if s.engine != nil {
		r.Engine, wanted = s.engine.Name, storedAnswers
	}
	fmt.Fprintf(s.progress, "soak: -seed %d, for %v\n", s.seed, s.lasts)
	began, told, goroutines, before := time.Now(), time.Now(), runtime.NumGoroutine(), liveHeap()
	for n := 0; time.Since(began) < s.lasts && ctx.Err() == nil; n++ {
		number := n
		if s.only >= 0 {
			number = s.only
		}
		round := s.round
		if s.other != nil {
			round = s.other
		}
		m, out := round(number)
		r.add(m, out, s.replay(m))
		if r.HeapGrowth = growth(before, s.patience); r.HeapGrowth > heapTolerance && !out.stuck {
			r.fail(m, s.replay(m), fmt.Sprintf("the heap has grown by %d bytes since the first round", r.HeapGrowth))
			before += uint64(r.HeapGrowth) // told once
		}
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			fmt.Fprintf(s.progress, "%6v  %d rounds, %d calls, %d executions, %d violations; goroutines %d (most %d), heap %d MiB (most %d)\n",
				time.Since(began).Round(time.Second), r.Rounds, r.Calls, r.Executions, len(r.Violations),
				runtime.NumGoroutine(), r.MostGoroutines, heap()>>20, r.MostHeap>>20)
		}
		if out.stuck || len(r.Violations) >= enough {
			break
		}
	}
	r.GoroutinesLeft = runtime.NumGoroutine() - goroutines
	r.Seconds = time.Since(began).Seconds()
	r.CallsPerSecond = int(float64(r.Calls) / r.Seconds)
	for _, kind := range wanted {
		if r.Answers[kind] == 0 {
			r.NotExercised = append(r.NotExercised, kind)
		}
	}
	return r
}

// growth returns by how much the heap has grown, once it has come down or patience has ended: timers
// of a cache that is dropped refer to it for up to a second.
func growth(before uint64, patience time.Duration) (n int64) {
	end := time.Now().Add(min(patience, 5*time.Second))
	for n = int64(liveHeap()) - int64(before); n > heapTolerance && time.Now().Before(end); n = int64(liveHeap()) - int64(before) {
		time.Sleep(50 * time.Millisecond)
	}
	return n
}

// replay is the command that plays the round again.
func (s soak) replay(m mix) string {
	store := ""
	if s.engine != nil {
		store = " -store " + s.engine.Name
	}
	return fmt.Sprintf("%s%s -seed %d -round %d", s.program, store, m.Seed, m.Round)
}

func (r *report) add(m mix, out outcome, replay string) {
	r.Rounds++
	if m.Web {
		r.WebRounds++
	}
	if m.Stored {
		r.StoredRounds++
	}
	r.Restarts += out.restarts
	r.Calls += out.calls
	r.Executions += out.executions
	r.MostGoroutines, r.MostHeap = max(r.MostGoroutines, out.goroutines), max(r.MostHeap, out.heap)
	for kind, n := range out.seen {
		r.Answers[kind] += n
	}
	for _, wrong := range out.wrong {
		r.fail(m, replay, wrong)
	}
}

func (r *report) fail(m mix, replay, wrong string) {
	r.Violations = append(r.Violations, violation{m.Round, replay, m.String(), wrong})
}

// text is the report for people.
func (r report) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s, %s, %d processors, seed %d, %.0f s\n", r.Date, r.GoVersion, r.System, r.Processors, r.Seed, r.Seconds)
	if r.Engine != "" {
		fmt.Fprintf(&b, "with a Store in %s\n", r.Engine)
	}
	fmt.Fprintf(&b, "%d rounds (%d over HTTP, %d with a Store, %d with a restart), %d calls (%d a second), %d executions\n",
		r.Rounds, r.WebRounds, r.StoredRounds, r.Restarts, r.Calls, r.CallsPerSecond, r.Executions)
	fmt.Fprintf(&b, "at most %d goroutines and %d MiB; afterwards %d goroutines more than before, and %d KiB\n",
		r.MostGoroutines, r.MostHeap>>20, r.GoroutinesLeft, r.HeapGrowth>>10)
	for _, kind := range slices.Sorted(maps.Keys(r.Answers)) {
		fmt.Fprintf(&b, "%12d  %s\n", r.Answers[kind], kind)
	}
	if len(r.NotExercised) > 0 {
		fmt.Fprintf(&b, "not exercised: %s\n", strings.Join(r.NotExercised, "; "))
	}
	for _, v := range r.Violations {
		fmt.Fprintf(&b, "\nviolation: %s\n%s\n%s\n", v.Replay, v.Mix, v.Wrong)
	}
	fmt.Fprintf(&b, "%d violations\n", len(r.Violations))
	return b.String()
}
