package main

import (
	"fmt"
	"strings"
)

// config is what is explored: so many callers at once, so many late requests at once, and so on. Calls, deaths,
// pauses, lost requests, lost answers, and arrivals of a late request have no bound.
type config struct {
	callers   int   // at once; each may be followed by others
	late      int   // requests that are late at once
	drops     uint8 // how often Forget, TTL or HoldTTL may end a life of the key
	announced bool  // EffectsAnnounced
	reconcile bool  // there is Options.Reconcile
	operators bool  // a caller may be an operator: Resolve, Cache.Reconcile
	forgets   bool  // users call Forget; without it only time ends lives
	relaxed   bool  // RelaxedClaims: a crash of the engine may lose the last claim, if nothing was written since
	fn        fnKind
	bank      bankKind
	without   rules
	looksFor  invariant // none: all
}

type fnKind uint8

const (
	begins      fnKind = iota // calls BeginEffect before its effect
	settlesInTx               // its effect is in a transaction in which it calls SettleTx
	plain                     // has an effect, and says nothing before
)

type bankKind uint8

const (
	patient  bankKind = iota // Retryable is answered only when no effect can arrive any more
	hasty                    // Retryable is answered when no effect is to be seen: what follows is the gap of promise 32
	deadline                 // Retryable is answered when the bank takes no effect any more of what began at StartedAt
)

// String names a configuration by what it has.
func (c *config) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d callers", [...]string{"begin", "tx", "plain"}[c.fn], c.callers)
	say := func(text string, is bool) {
		if is {
			b.WriteString(", " + text)
		}
	}
	say(fmt.Sprintf("%d late", c.late), c.late > 0)
	say("not announced", !c.announced)
	say("no Reconcile", !c.reconcile)
	say("operators", c.operators)
	say([...]string{"", "hasty bank", "bank's deadline"}[c.bank], c.bank != patient)
	say("RelaxedClaims", c.relaxed)
	say(fmt.Sprintf("%d ends", c.drops), c.drops > 0)
	say("Forget", c.forgets)
	return b.String()
}

func (c *config) unannounced() { c.announced = false }

// quick are the configurations that CI explores.
var quick = []config{
	with(announcedBegin, late(1)),
	with(announcedBegin, operators, forgets),
	with(announcedBegin, relaxed),
	with(announcedBegin, func(c *config) { c.bank = deadline }),
	with(announcedBegin, func(c *config) { c.bank = hasty }),
	with(announcedBegin, (*config).unannounced, late(1)),
	with(announcedTx, late(1), forgets),
	with(announcedTx, operators, forgets),
	with(announcedTx, (*config).unannounced, operators, forgets),
	with(silent, operators, forgets),
	with(silent, noReconcile, late(1), forgets),
}

// long are explored by hand.
var long = []config{
	with(announcedBegin, late(1), forgets),
	with(announcedBegin, late(1), operators),
	with(announcedBegin, late(2)),
	with(announcedBegin, late(1), relaxed),
	with(announcedBegin, callers(3)),
	with(announcedBegin, operators, relaxed, forgets),
	with(announcedBegin, late(1), func(c *config) { c.bank = deadline }),
	with(announcedBegin, late(1), func(c *config) { c.bank = hasty }),
	with(announcedBegin, noReconcile, late(2), forgets),
	with(announcedBegin, (*config).unannounced, late(1), operators),
	with(announcedBegin, (*config).unannounced, late(2)),
	with(announcedTx, callers(3), late(1)),
	with(announcedTx, late(2), forgets),
	with(announcedTx, (*config).unannounced, late(1), operators, forgets),
	with(silent, late(1), operators),
	with(silent, late(2)),
	with(silent, callers(3)),
	with(silent, noReconcile, callers(3), late(2)),
}

func operators(c *config)           { c.operators = true }
func relaxed(c *config)             { c.relaxed = true }
func noReconcile(c *config)         { c.reconcile = false }
func callers(n int) func(c *config) { return func(c *config) { c.callers = n } }
