package main

// config is what a model explores: so many callers at once, so many late requests at once, and so on. Calls,
// deaths, pauses, lost requests and lost answers have no bound.
type config struct {
	name      string
	callers   int   // at once; each may be followed by others
	late      int   // requests that are late at once
	drops     uint8 // how often Forget, TTL or HoldTTL may end a life of the key
	announced bool  // EffectsAnnounced
	reconcile bool  // there is Options.Reconcile
	operators bool  // a caller may be an operator: Resolve, Cache.Reconcile
	forgets   bool  // users call Forget
	relaxed   bool  // RelaxedClaims: a claim that began nothing may be lost by a crash of the engine
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
