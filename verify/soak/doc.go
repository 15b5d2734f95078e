// Command soak runs the library under everything at once, for a while, and looks for what should not
// be:
//
//	go run -C verify ./soak                          ten minutes
//	go run -C verify ./soak -for 1h -json FILE       longer; the report as JSON too
//	go run -C verify ./soak -seed S                  the same rounds again
//	go run -C verify ./soak -seed S -round N         one of them, over and over
//	go run -C verify ./soak -quick                   half a minute of small rounds
//	go run -C verify ./soak -store memory            only rounds in which caches share a Store
//	go run -C verify/soak/stores . -store Redis      … that of a real engine: also bbolt, PostgreSQL
//
// It is a row of rounds. A round draws from the seed what it does: its options (see mix), how many
// goroutines and keys, and what each goroutine asks for, call by call; the mix is replayed by the seed,
// the way the goroutines meet is not. Most rounds drive a Cache: all outcomes, panics and Goexits, in
// fn, in Reconcile and in hooks; callers that leave; calls from inside fn, re-entrant ones, and from
// the Observer; TTLs from nanoseconds up; capacity, weight, MinRetention; Forget, Resolve, Lookup; Close
// while all this goes on, and a planned restart (All, Restore); GOMAXPROCS changes under it. Others
// drive idemhttp in a real server, with clients that hang up.
//
// And others drive two or three caches, as processes that share a Store, of which some verbs fail, before
// they act or after: each call and each operator asks any of them. One is closed while the others go on, and
// another may take its place. In some rounds nothing gets from one process to the store for longer than a
// lease, executions last longer than a lease, or, in memory, owners are made to look dead.
//
// A round is checked three times over. While it runs: the error of each call must be one that its
// options allow, places and weight stay within their bounds, and no call lasts for ever. When it is
// over: the interval oracle looks at what every call saw (package interval), the counters must be
// what was counted outside. And when it is drained, by Forget, by waiting or by dropping the cache:
// goroutines, heap, values and what fn captured must be gone.
//
// With a Store an execution must run under a claim of its key, and no claim may be left at the end. Where a
// lease has ended, two executions may meet, and a hold may be seen where none was meant: of these keys it asks
// that no second effect follows one that is known of, and that answers are of the key. It does not ask whether
// a flight was there that a caller did not wait for, nor which call brought the other payload; and what a
// joined caller gets may be a second old.
//
// It exits with 1 on any violation, each with the flags that replay its round, and with 2 on bad
// flags. A goroutine that hangs ends the run: it cannot be drained.
package main
