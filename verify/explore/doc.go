// Package explore runs small scenarios of the library under every schedule there is.
//
// The library marks the places where another goroutine may come in between (internal/yield); in
// production nobody is asked there. Here, inside a testing/synctest bubble, each such point parks
// its goroutine. The driver waits until none can go on by itself, looks at the cache, picks one of
// the parked ones, lets it go to its next point, and so on until all have ended. What it
// picked is a list of choices; the next schedule is the one in which the last choice that had an
// alternative is made differently. So all are visited, depth first, and each can be run again from
// its list:
//
//	go test ./explore -run 'Explore/forget/3$' -v -args -choices=0,2,1
//
// Time stands still unless a schedule lets it pass, which is one of the choices.
//
// After every step the oracle compares what the cache shows of each key with what it showed before:
// a key may only take the ways of the contract's drawing, for a reason that is there. At the end
// every answer must be one that was true at some moment of its call, and the books must balance.
//
// Some points lie inside a critical section, between two steps that a goroutine without the lock can
// see: while one is parked there, only those go on that need no lock (see scheduler).
//
// Where two processes share a store (see stored), the verbs of the store are points, too, whether one
// fails is a choice, and the oracle follows the record in the store instead.
//
// What it assumes: between two points a goroutine meets nobody. That holds since whatever is shared
// lies in one critical section between two points, or is a single atomic step; the race detector,
// which the ordinary suites run under, is what finds the memory that is neither. A look into the
// table and a search for room are several atomic steps, and count as one. What it cannot see: orders
// of memory that are not sequentially consistent, more goroutines than a scenario has, and what two
// that hold the locks of different shards do half-way.
package explore
