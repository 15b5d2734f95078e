package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// verdict is what became of a mutant.
type verdict string

const (
	killed       verdict = "killed"
	survived     verdict = "SURVIVED"
	timedOut     verdict = "timed out" // also when it was given three times as long
	doesNotBuild verdict = "not viable"
)

// result is the outcome of one mutant.
type result struct {
	mutant
	Verdict verdict `json:"verdict"`
	By      string  `json:"by,omitempty"`     // the test that noticed it
	Detail  string  `json:"detail,omitempty"` // where the goroutines of a suite that hangs are
	Seconds float64 `json:"seconds"`
}

// bench asks the suites.
type bench struct {
	pkg      *pkg
	programs []*program    // the suites, in the order in which they are asked
	patience time.Duration // beside five times what a test, and a suite, takes when no mutant is alive
	metOnly  bool          // the whole suites are not asked: see -met
	most     time.Duration // tests that take longer are not asked, unless it is 0: see -most

	mu    sync.Mutex
	kills map[string]int // by test
}

const (
	few       = 12 // tests that are asked at once, at first
	mostHangs = 3  // after so many, no others are asked
)

// judge asks the tests that meet m, those most likely to notice it first; then, since which line a
// test meets may be the scheduler's choice, the whole suites.
func (b *bench) judge(ctx context.Context, m *mutant) (result, error) {
	start := time.Now()
	r := result{mutant: *m, Verdict: doesNotBuild}
	var err error
	switch m.how {
	case guarded:
		r.Verdict, r.By, r.Detail, err = b.askGuarded(ctx, m)
	case alone:
		r.Verdict, r.By, r.Detail, err = b.askAlone(ctx, m, false)
	}
	r.Seconds = time.Since(start).Seconds()
	return r, err
}

func (b *bench) askGuarded(ctx context.Context, m *mutant) (verdict, string, string, error) {
	for _, p := range b.programs {
		first, rest := b.order(p, m.ID)
		for _, names := range [][]string{first, rest} {
			if len(names) == 0 {
				continue
			}
			if v, by, detail, err := b.ask(ctx, p, m.ID, names, slices.Concat(first, rest)); err != nil || v != survived {
				return v, by, detail, err
			}
		}
	}
	if b.metOnly || b.most > 0 {
		return survived, "", "", nil
	}
	fails := 0
	for _, p := range b.programs {
		if v, by, detail, err := b.ask(ctx, p, m.ID, nil, nil); err != nil || v != survived {
			return v, by, detail, err
		}
		fails += len(p.Fails)
	}
	if fails > 0 { // the tests that bear no guards have not been asked yet
		return b.askAlone(ctx, m, true)
	}
	return survived, "", "", nil
}

// askAlone compiles m without any guard, and asks all tests, or only those that bear no guards.
func (b *bench) askAlone(ctx context.Context, m *mutant, onlyFails bool) (verdict, string, string, error) {
	dir, err := os.MkdirTemp("", "mutant-")
	if err != nil {
		return "", "", "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for i, behind := range b.programs {
		names := behind.Fails
		if onlyFails && len(names) == 0 {
			continue
		} else if !onlyFails {
			names = b.brief(behind)
		}
		p, err := b.pkg.compile(ctx, b.pkg.suites[i], dir, map[string][]byte{m.site.file.abs(): m.alone()})
		if err != nil {
			if ctx.Err() == nil && i == 0 {
				return doesNotBuild, "", "", nil
			}
			return "", "", "", err
		}
		p.Tests, p.Takes = behind.Tests, behind.Takes
		if v, by, detail, err := b.ask(ctx, p, 0, names, nil); err != nil || v != survived {
			return v, by, detail, err
		}
	}
	return survived, "", "", nil
}

// ask runs the tests of names, all of them if there are none. Where one hangs, another may say what is
// wrong: some of others are asked then, without it.
func (b *bench) ask(ctx context.Context, p *program, alive int, names, others []string) (verdict, string, string, error) {
	var hung []string
	first, unclear := ended{}, 0
	for {
		e, err := p.run(ctx, alive, names, b.may)
		switch {
		case err != nil:
			return "", "", "", err
		case e.Unclear() && unclear < 3: // the runtime's last words and a test's fell into one line
			unclear++
			continue
		case e.Passed && len(hung) == 0:
			return survived, "", "", nil
		case !e.Passed && !e.Hung:
			v, by, err := b.killed(p, e)
			return v, by, "", err
		case e.Hung:
			if len(hung) == 0 {
				first = e
			}
			hung = append(hung, top(e.CaughtBy))
		}
		names = slices.DeleteFunc(slices.Clone(others), func(name string) bool { return slices.Contains(hung, name) })
		names = names[:min(few, len(names))]
		if e.Passed || len(names) == 0 || len(hung) >= mostHangs || top(e.CaughtBy) == "" {
			break
		}
	}
	// Or was the machine busy?
	var again []string
	if name := top(first.CaughtBy); name != "" {
		again = []string{name}
	}
	e, err := p.run(ctx, alive, again, func(takes time.Duration) time.Duration { return 3 * b.may(takes) })
	switch {
	case err != nil:
		return "", "", "", err
	case e.Passed:
		return survived, "", "", nil
	case e.Hung:
		return timedOut, e.CaughtBy, e.waits, nil
	}
	v, by, err := b.killed(p, e)
	return v, by, "", err
}

func (b *bench) may(takes time.Duration) time.Duration { return b.patience + 5*takes }

func (b *bench) killed(p *program, e ended) (verdict, string, error) {
	if e.Unclear() {
		return "", "", fmt.Errorf("the suite of %s ended in a way that tells nothing:\n%s", p.Package, e.Out)
	}
	b.mu.Lock()
	b.kills[top(e.CaughtBy)]++
	b.mu.Unlock()
	return killed, e.CaughtBy, nil
}

// top returns the name of the test at the top level that by, of which a result tells, belongs to.
func top(by string) string {
	name, _, _ := strings.Cut(by, " ")
	name, _, _ = strings.Cut(name, "/")
	if strings.HasPrefix(name, "(") {
		return ""
	}
	return name
}

func (b *bench) mayAsk(t *test) bool { return b.most == 0 || t.Takes <= b.most }

// brief returns the tests of p that may be asked, nil for all of them.
func (b *bench) brief(p *program) (names []string) {
	if b.most == 0 {
		return nil
	}
	for _, t := range p.Tests {
		if b.mayAsk(t) {
			names = append(names, t.Name)
		}
	}
	return names
}

// order returns the tests that meet a mutant: some that together take little, those that have killed
// the most for the time they take, and all others.
func (b *bench) order(p *program, id int) (first, rest []string) {
	const little = 300 * time.Millisecond
	var meets []*test
	for _, t := range p.Tests {
		if slices.Contains(t.Meets, id) && b.mayAsk(t) {
			meets = append(meets, t)
		}
	}
	b.mu.Lock()
	worth := func(t *test) float64 { return float64(1+b.kills[t.Name]) / t.Takes.Seconds() }
	slices.SortStableFunc(meets, func(x, y *test) int { return cmp.Compare(worth(y), worth(x)) })
	b.mu.Unlock()
	var takes time.Duration
	for i, t := range meets {
		if takes += t.Takes; i > 0 && (takes > little || i >= few) {
			rest = append(rest, t.Name)
		} else {
			first = append(first, t.Name)
		}
	}
	return first, rest
}

// parallel calls do for 0 … n-1, workers at once, until one fails; told after each, one at a time.
func parallel(ctx context.Context, workers, n int, do func(int) error, told func()) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := make(chan int)
	for range max(1, workers) {
		wg.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					stop(err)
					return
				}
				mu.Lock()
				told()
				mu.Unlock()
			}
		})
	}
	for i := range n {
		select {
		case next <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}
