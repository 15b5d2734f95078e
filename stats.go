package idemflight

import (
	"math/bits"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// Stats are counts since the cache was made, and its state at the moment of the call.
type Stats struct {
	// Calls of Do, by how they ended; once all have returned, the sum is the number of calls.
	Executed       uint64 // led the flight, and fn ran
	Joined         uint64 // got the outcome of a flight they did not start
	Replayed       uint64 // got a retained outcome, and fn did not run
	Reconciled     uint64 // led the flight, and Reconcile found it out
	KeyReused      uint64 // ErrKeyReused
	NotWaited      uint64 // ErrInFlight
	OutcomeUnknown uint64 // met a held key, and nobody found out (calls that made it so: see Holds)
	ValueShed      uint64 // ErrValueShed
	Full           uint64 // ErrFull
	Closed         uint64 // ErrClosed
	Reentrant      uint64 // ErrReentrant
	InvalidKey     uint64 // ErrInvalidKey
	CallerLeft     uint64 // ErrCallerLeft
	StoreFailed    uint64 // ErrStore

	// Executions of fn and of Reconcile that ended, by what became of the outcome.
	Retains, Releases, Holds uint64
	Panics                   uint64 // those of them that ended by panic or runtime.Goexit

	// Upkeep. With a Store the first three are about copies, of which nothing is lost.
	Evicted     uint64 // unexpired outcomes dropped for capacity
	Expired     uint64 // records that expired, once they are reclaimed
	Shed        uint64 // values dropped for weight
	Unannounced uint64 // with EffectsAnnounced: succeeded without BeginEffect, NoEffect or SettleTx
	StoreErrors uint64 // attempts to ask the Store that failed
	HookPanics  uint64 // panics and Goexits of Classify, Weigh, Trace, Observer, Codec, and errors' methods

	// Now.
	InFlight int   // flights
	Waiters  int   // joined callers that wait
	Entries  int   // kept and unexpired; with InFlight at most MaxEntries
	Held     int   // of these, held; 0 with a Store, which keeps them: see Unsettled
	Weight   int64 // of retained outcomes
}

// Len returns the number of keys kept and unexpired, which is Stats().Entries. Cost: as for Stats.
func (c *Cache[K, V]) Len() (n int) {
	c.atOneMoment(func(s *shard[K, V]) { n += s.kept.len() })
	return n
}

// Stats returns counts and the present state, all of one moment; except that InvalidKey, HookPanics
// and the replays that took no lock are read just before. It visits each shard and drops what has
// expired. Cost: the locks of all shards at once, which stops every call except replays for some
// microseconds. It is meant for a metrics scrape, not for each request.
func (c *Cache[K, V]) Stats() Stats {
	sum := Stats{Replayed: c.replays.sum()}
	sum.InvalidKey, sum.HookPanics = c.invalidKeys.Load(), c.hookPanics.Load()
	if c.keeper != nil {
		sum.StoreErrors = c.keeper.failures.Load()
	}
	c.atOneMoment(func(s *shard[K, V]) {
		sum.add(&s.stats)
		sum.InFlight += s.flights.len
		sum.Waiters += s.waiters
		sum.Entries += s.kept.len()
		sum.Held += s.kept.holds()
		sum.Weight += s.kept.weight
	})
	return sum
}

// atOneMoment calls read for each shard with the locks of all held, and nothing expired in them. It
// alone takes more than one lock of a shard: always in their order, so that two goroutines that do
// so do not wait for each other.
func (c *Cache[K, V]) atOneMoment(read func(*shard[K, V])) {
	c.reclaimAll()
	for i := range c.shards {
		c.shards[i].mu.Lock()
	}
	for i := range c.shards {
		read(&c.shards[i])
	}
	for i := range c.shards {
		c.shards[i].mu.Unlock()
	}
}

func (sum *Stats) add(s *Stats) {
	sum.Executed += s.Executed
	sum.Joined += s.Joined
	sum.Replayed += s.Replayed
	sum.Reconciled += s.Reconciled
	sum.KeyReused += s.KeyReused
	sum.NotWaited += s.NotWaited
	sum.OutcomeUnknown += s.OutcomeUnknown
	sum.ValueShed += s.ValueShed
	sum.Full += s.Full
	sum.Closed += s.Closed
	sum.Reentrant += s.Reentrant
	sum.CallerLeft += s.CallerLeft
	sum.InvalidKey += s.InvalidKey
	sum.StoreFailed += s.StoreFailed
	sum.Retains += s.Retains
	sum.Releases += s.Releases
	sum.Holds += s.Holds
	sum.Panics += s.Panics
	sum.Evicted += s.Evicted
	sum.Expired += s.Expired
	sum.Shed += s.Shed
	sum.Unannounced += s.Unannounced
}

// counter counts in stripes, each on a cache line of its own, so that cores which count at the same
// time do not wait for each other.
type counter struct {
	stripes []stripe // a power of two of them
	shift   uint8    // of a hash of 64 bits, to the number of a stripe
}

type stripe struct {
	n atomic.Uint64
	_ [56]byte
}

// minStripes is enough for a few cores: two goroutines that share a stripe cost each other
// some 50 ns a replay.
const minStripes = 16

// newCounter returns a counter with some stripes for each core.
func newCounter() counter {
	n := bits.Len(uint(max(minStripes, 4*runtime.GOMAXPROCS(0)) - 1))
	return counter{make([]stripe, 1<<n), uint8(64 - n)}
}

// count counts one. Goroutines have stacks, and so mostly stripes, of their own.
func (t *counter) count() {
	var here byte
	stack := uint64(uintptr(unsafe.Pointer(&here))) >> 11      // 2 KiB, the least that a stack takes
	t.stripes[stack*0x9E3779B97F4A7C15>>(t.shift&63)].n.Add(1) // golden section, the upper bits
}

func (t *counter) sum() (n uint64) {
	for i := range t.stripes {
		n += t.stripes[i].n.Load()
	}
	return n
}
