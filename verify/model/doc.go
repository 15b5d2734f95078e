// Package model checks the cache against a plain reference, written from the contract alone: a map
// with deadlines, and flights beside it. Random programs of calls with every outcome, callers that
// wait, leave and call from inside of executions, Forget, Resolve, Reconcile (the option and the method),
// Restore, Save and Load (of streams that were cut or changed, too), planned restarts, Close and time, often
// exactly to a deadline, run in a bubble whose clock the test owns. After each step all that can be seen must
// agree: who returned with what and when, which executions began, every event, and, when the program looks,
// Lookup, All, Unsettled, Len and every counter of Stats.
//
// Where the contract leaves a choice, the cache makes it and the reference checks that it was
// allowed: whom to evict or shed, whose fn runs when those who wait look again, and when to reclaim what
// has expired, within its bound.
//
//	go test ./model                                           # quick
//	go test ./model -run Agrees -timeout 0 -rapid.checks=200000
//	go test ./model -run XXX -fuzz Fuzz -fuzztime 10m -fuzzminimizetime 1x
//
// What it cannot show: what depends on how goroutines interleave within a step. A program lets
// everything come to rest between two steps, but for one that ends an execution and a caller's
// context at once.
package model
