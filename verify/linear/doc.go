// Package linear checks histories recorded from real goroutines and real time, in two ways.
//
// Narrow histories, of at most 8 clients a key, are explained in full: porcupine looks for an order
// of all that happened to a key in which each call gives the answer of a key that is absent, in
// flight, retained or held. An execution is two ops, the claim before fn begins and what settles it
// after fn has ended; an eviction is an op too, told by the Observer; time counts by the interval
// in which a deadline must lie. If porcupine cannot tell in time, the test fails.
//
// Wide histories, of a thousand goroutines, are too wide for that. An oracle sorts the executions
// of each key: no two overlap, none begins while an outcome is kept, and whoever got an outcome
// got that of an execution of its key that could give it at that time.
//
//	go test ./linear                                              # quick
//	go test ./linear -timeout 0 -args -histories=3000 -wide=25    # long: ten million calls
//
// What it cannot show: what did not happen on this machine (its processors, its memory order), and
// what it does not record: Reconcile, Restore, weight, and whether ErrFull was right.
package linear
