// Command protocol explores a model of the store's protocol: one key, an engine, some processes, and messages that
// are lost, come twice or come late. It visits every world that they can get into, and looks whether the protocol
// keeps its word in each.
//
//	go run ./protocol                           the configurations of CI
//	go run ./protocol -long -most 20000000      larger ones, up to so many worlds each
//	go run ./protocol -rules                    what the rules are, and what the absence of each brings back
//	go run ./protocol -without own-ids          the shortest way there, step by step
//	go run ./protocol -callers 3 -late 1 -fn tx -most 5000000   a configuration of your own: -h
//
// # Data flow
//
// A world (world.go) is what the engine keeps for the key, the requests that are late, and where each caller stands.
// From the first, empty world explore (explore.go) visits breadth first all that one step leads to: a caller asks
// a verb, or hears, or dies, a late request acts, a lease ends, an effect takes place (step.go, in the order of
// section 4's table in the design). A verb is an atomic step of the engine (engine.go). Beside that a world has the
// truth: whose effect took place, or may. No verb looks at it; the invariants (invariants.go) compare. For a
// world that breaks one explore knows the shortest way, and tells it in words. A rule of the protocol
// (rules.go) is asked for by name where it acts; taken away, it must bring its hole back, or the model is blind there.
//
// # What is modelled
//
// Claim with IDs of its own, Replaces and From; Begin, of BeginEffect and after a Reconcile that answered
// Retryable; Settle with all dispositions, repeated, and offered again after its callers were told ErrStore; SettleTx, with
// the row lock and a COMMIT in doubt; Renew; Forget by claim; GiveBack; Reconcile, which finds the effect, or
// answers Retryable, or learns nothing; Resolve and Cache.Reconcile; closed rows, and that they are swept; leases, TTL
// and HoldTTL that end at any time; RelaxedClaims. A request may be lost before or after it acted, its caller
// may repeat it or give up, and a copy of it may be late and act as often as it likes. Owners die, or pause
// for ever so long: any caller may do its next step at any time. A caller stands for a call with its flight, or for what
// a process owes to one that has ended; as processes share nothing, it does not matter which are in one.
//
// There is no bound on calls, deaths, pauses, losses; callers, late requests, and lives of the key (which Forget, TTL and
// HoldTTL end) are bounded by the configuration. Worlds that differ in names alone are one.
//
// # What is left out
//
// The gap of promise 32: a patient bank's Reconcile, or operator, answers Retryable only when no effect can arrive
// any more, and nothing is excused; a hasty one does so when it sees none (at most twice in a life of the key),
// and the effects that were under way then, and no others, are not counted as second ones. Forget and HoldTTL of a
// held key end a life of the key: an effect of the old life is not a second one of the new. Promise 33: an engine
// that loses what it acknowledged, but for RelaxedClaims. Then: an outcome that a late Claim and a late Settle
// bring back after Forget or expiry and another's claim, and a Release that says so although its effect was of
// such an earlier life (the design admits them: no second effect); what it costs in waiting: needless holds,
// leases that must end, whether anything ends at all; fingerprints; final errors apart from successes; the local
// layer and LocalTTL; values that do not decode; how long times are (any lease may end before any answer).
//
// Two rules are in no document yet: same-grant and held-durable. The model found what they are for.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() {
	var own config
	var (
		isLong  = flag.Bool("long", false, "explore the larger configurations")
		most    = flag.Int("most", 3_000_000, "worlds of a configuration; larger ones are cut")
		list    = flag.Bool("rules", false, "list the rules")
		without = flag.String("without", "", "take these rules away, separated by commas; with no other flag in the configuration where its hole shows")
		looks   = flag.String("invariant", "", "look for this one only")
		jobs    = flag.Int("j", runtime.NumCPU(), "configurations at once")
	)
	flag.IntVar(&own.callers, "callers", 0, "explore this configuration: callers at once (1 to 4)")
	flag.IntVar(&own.late, "late", 0, "late requests at once (0 to 3)")
	ends := flag.Uint("ends", 0, "how often Forget, TTL or HoldTTL may end a life of the key")
	fn := flag.String("fn", "begin", "begin: calls BeginEffect; tx: SettleTx; plain: neither")
	bank := flag.String("bank", "patient", "when Reconcile answers Retryable. patient: no effect can arrive; hasty: none is seen; deadline: what began at StartedAt can have none any more")
	silent := flag.Bool("unannounced", false, "without EffectsAnnounced")
	noRec := flag.Bool("no-reconcile", false, "without Options.Reconcile")
	flag.BoolVar(&own.operators, "operators", false, "there are operators")
	flag.BoolVar(&own.forgets, "forget", false, "users call Forget (with -ends)")
	flag.BoolVar(&own.relaxed, "relaxed", false, "RelaxedClaims")
	flag.Parse()

	own.drops, own.announced, own.reconcile = uint8(*ends), !*silent, !*noRec
	own.fn = fnKind(choose("fn", *fn, "begin", "tx", "plain"))
	own.bank = bankKind(choose("bank", *bank, "patient", "hasty", "deadline"))
	var taken []rule
	for name := range strings.SplitSeq(*without, ",") {
		if name != "" {
			taken = append(taken, rule(choose("without", name, ruleNames()...)))
		}
	}
	if *looks != "" {
		own.looksFor = invariant(choose("invariant", *looks, invariantNames()...))
	}

	explored := quick
	switch {
	case *list:
		printRules()
		return
	case own.callers > 0:
		explored = []config{own}
	case len(taken) > 0:
		explored = nil
		for _, r := range taken {
			explored = append(explored, protocolRules[r].in)
			explored[len(explored)-1].looksFor = max(own.looksFor, protocolRules[r].breaks)
		}
	case *isLong:
		explored = long
	}
	if own.callers > maxCallers || own.late > maxLate {
		fmt.Fprintf(os.Stderr, "at most %d callers and %d late requests\n", maxCallers, maxLate)
		os.Exit(2)
	}
	for i := range explored {
		for _, r := range taken {
			explored[i].without |= 1 << r
		}
	}
	if run(explored, *most, *jobs) {
		os.Exit(1)
	}
}

// run explores configurations and prints what each came to as soon as it is known. It reports whether an invariant
// is broken.
func run(explored []config, most, jobs int) bool {
	began := time.Now()
	var waits sync.WaitGroup
	var mu sync.Mutex // guards what follows, and the output
	total := 0
	var broken [numberInvariants]int
	places := make(chan struct{}, jobs)
	for i := range explored {
		cfg := &explored[i]
		waits.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			r := explore(cfg, most, cfg.without != 0)

			mu.Lock()
			defer mu.Unlock()
			all := "all"
			if !r.all {
				all = "cut"
			}
			total += r.states
			fmt.Printf("%-70s %10d worlds, %s, depth %d, %v\n", cfg, r.states, all, r.depth, r.took.Round(time.Millisecond))
			for _, which := range r.violations() {
				broken[which]++
				fmt.Printf("%s is broken: %s\n%s", invariants[which].name, invariants[which].says, r.broken[which].print(cfg))
			}
		})
	}
	waits.Wait()

	fmt.Printf("\n%d worlds of %d configurations, %v\n", total, len(explored), time.Since(began).Round(time.Second))
	violated := false
	for which := none + 1; which < numberInvariants; which++ {
		if !slices.ContainsFunc(explored, func(cfg config) bool { return cfg.looksFor == none || cfg.looksFor == which }) {
			continue
		}
		holds := "holds in all"
		if broken[which] > 0 {
			holds = fmt.Sprintf("BROKEN in %d", broken[which])
			violated = true
		}
		fmt.Printf("%-15s %s: %s\n", invariants[which].name, holds, invariants[which].says)
	}
	return violated
}

func printRules() {
	for i := range protocolRules {
		r := &protocolRules[i]
		breaks := "no hole"
		if r.breaks != none {
			breaks = invariants[r.breaks].name
		}
		fmt.Printf("%-22s %s\n%22s without: %s (%s; %s)\n", r.name, r.says, "", r.hole, breaks, r.in.String())
	}
}

func ruleNames() (names []string) {
	for i := range protocolRules {
		names = append(names, protocolRules[i].name)
	}
	return names
}

func invariantNames() (names []string) {
	for i := range invariants {
		names = append(names, invariants[i].name)
	}
	return names
}

// choose returns the place of a value of a flag among those that there are.
func choose(flagName, value string, names ...string) int {
	for i, name := range names {
		if name == value && name != "" {
			return i
		}
	}
	fmt.Fprintf(os.Stderr, "-%s: there is no %q, only %s\n", flagName, value, strings.Join(names, ", "))
	os.Exit(2)
	return 0
}
