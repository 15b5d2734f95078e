package idemflight

import (
	"context"
	"hash/maphash"
	"math/bits"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemflight/idemflight/internal/yield"
)

// Cache makes operations happen once per key. Make one with [New] for each kind of operation and
// share it: all methods are safe for concurrent use, and an empty cache takes some 40 KB. It needs
// no goroutine of its own; a cache that is dropped without [Cache.Close] is garbage once its
// entries have expired.
//
// Most callers want [Cache.Do]. [Cache.DoResult] also tells where the outcome came from; [Wrap]
// makes an ordinary function once-only.
type Cache[K comparable, V any] struct {
	opts   Options[K, V] // with defaults filled in
	traits keyTraits
	seed   maphash.Seed // of this cache, so that keys cannot be chosen to meet in one shard
	clock
	env    env           // of every execution, without a Store
	keeper *keeper[K, V] // nil without a Store

	shards []shard[K, V]
	heads  []head // of each shard

	places       atomic.Int64  // in flight + kept; at most MaxEntries
	seq          atomic.Uint32 // the number of the last insertion
	chances      atomic.Uint32 // the number of the last second chance
	weight       atomic.Int64  // of retained outcomes and what the newcomer that sheds has; at most MaxWeight
	shedding     chan struct{} // a semaphore of one, held by the newcomer that sheds
	minRetention time.Duration // 0: none; forever: nothing is evicted
	closed       atomic.Bool   // set once; a claim reads it with its shard's mu held

	reclaimer reclaimer
	replays   counter // replays that took no lock

	invalidKeys, hookPanics atomic.Uint64
}

// shard is a part of the cache. A key always belongs to the same shard.
type shard[K comparable, V any] struct {
	// mu guards everything below, and the guarded fields of flights and records, except that the
	// table of kept is read without it. It is never held while user code runs: fn, Reconcile,
	// Classify, Weigh, Observer, and the methods of contexts and errors. No other lock is taken
	// under it, except the other shards' by atOneMoment, in order. (Hashing and comparing keys is
	// the runtime's; a key that cannot be hashed panics before mu is taken.)
	mu      sync.Mutex
	flights flights[K, V] // never one of a key that is also kept
	kept    kept[K, V]
	waiters int   // joined callers of all flights
	stats   Stats // of calls, executions and upkeep; the rest is counted on demand

	head  *head    // what other shards' searches see of this one
	index int      // of this shard among all
	_     [64]byte // keeps the next shard's mu off the cache line of what this one writes
}

// New returns a cache, or an error that names every bad field of opts with its value. It starts no
// goroutine.
func New[K comparable, V any](opts Options[K, V]) (*Cache[K, V], error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	n := shardCount(opts.MaxEntries)
	c := &Cache[K, V]{
		opts:         opts,
		minRetention: opts.minRetention(),
		traits:       traitsOf(reflect.TypeFor[K]()),
		seed:         maphash.MakeSeed(),
		clock:        clock{start: time.Now()},
		shards:       make([]shard[K, V], n),
		heads:        make([]head, n),

		shedding: make(chan struct{}, 1),
		replays:  newCounter(),
	}
	c.env.clock = &c.clock
	if opts.Store != nil {
		c.keeper = newKeeper(c)
	}
	c.reclaimer.next.Store(int64(forever))
	for i := range c.shards {
		s := &c.shards[i]
		s.head, s.index = &c.heads[i], i
		s.kept.init(opts.TTL)
		s.publishLocked() // nobody else has c yet
	}
	return c, nil
}

// MustNew is [New] for options that are known to be good; it panics with New's error.
func MustNew[K comparable, V any](opts Options[K, V]) *Cache[K, V] {
	c, err := New(opts)
	if err != nil {
		panic(err)
	}
	return c
}

// minShards and maxShards bound the number of shards. A search for room reads the heads of all.
var minShards, maxShards = 64, 128

// shardCount returns enough shards that goroutines seldom meet at one lock.
func shardCount(maxEntries int) int {
	n := max(4*runtime.GOMAXPROCS(0), min(maxEntries/1024, minShards))
	return min(n, maxEntries, maxShards)
}

// hash returns the hash of key. It panics, with a message that names the type, if key is an
// interface that holds something unhashable.
func (c *Cache[K, V]) hash(key K) uint64 {
	if len(c.shards) == 0 {
		panic("idemflight: Cache must be made by New")
	}
	if c.traits.dynamic {
		return hashDynamic(c.seed, key) & hashMask
	}
	return maphash.Comparable(c.seed, key) & hashMask
}

// hashMask is what tests make hashes collide with.
var hashMask = ^uint64(0)

// shardOf returns the shard of the keys with the given hash.
func (c *Cache[K, V]) shardOf(hash uint64) *shard[K, V] {
	i, _ := bits.Mul64(hash, uint64(len(c.shards)))
	return &c.shards[i]
}

// Forget drops what is kept under key, held or not, so that the next call runs fn, and reports
// whether there was anything. For a key in flight it returns true: the flight's callers, and
// callers that arrive before it ends, get its outcome, which is then not retained, though it is
// held if it turns out unknown. Once a held key is forgotten, an effect that may have taken place
// can take place again: if someone has found out, use [Cache.Resolve].
//
// Without a Store the error is nil, and it costs one shard lock. With one it acts for all
// processes, though another process may replay its copy for up to LocalTTL, and it costs two round
// trips. The error is [ErrStore] (the key may or may not have been forgotten), or [ErrInvalidKey]
// for a key that cannot be encoded.
func (c *Cache[K, V]) Forget(ctx context.Context, key K) (bool, error) {
	mustHave(ctx, "Forget")
	hash := c.hash(key)
	s := c.shardOf(hash)
	var notes []note[K]
	var err error
	was := c.drop(s, hash, key, &notes)
	if c.keeper != nil {
		was, err = c.forgetStored(ctx, key)
		c.drop(s, hash, key, &notes) // a copy that was made meanwhile
	}
	if was {
		c.noteIn(ctx, &notes, Event[K]{Kind: EventForgotten, Key: key})
	}
	c.emit(notes)
	return was, err
}

// drop drops what is kept under key, or marks its flight as forgotten, and reports whether
// there was anything.
func (c *Cache[K, V]) drop(s *shard[K, V], hash uint64, key K, notes *[]note[K]) bool {
	yield.At("forget")
	s.mu.Lock()
	r := c.liveLocked(s, hash, key, notes)
	f := s.flights.get(hash, key)
	switch {
	case r != nil:
		c.returnPlace()
		c.removeLocked(s, r)
	case f != nil:
		f.forgotten = true
	}
	s.mu.Unlock()
	c.disarm()
	return r != nil || f != nil
}

// Close refuses new executions ([ErrClosed]), those of Reconcile included, and waits until none is
// in flight, or until ctx ends, whose cause it then returns. Flights that have begun go on, and
// calls still join them and get replays, even afterwards; a record that expires after Close is
// dropped by the next call that meets it. With nothing in flight it returns nil even if ctx has
// ended. From inside an execution it closes the cache and returns [ErrReentrant] without waiting.
// Calling it again is safe, and waits again. A nil ctx panics.
//
// Events of flights that have ended may still be delivered after Close has returned. With a Store,
// Close neither closes the store nor waits for executions in other processes; an outcome that the
// store has not taken is offered to it again only as long as the process lives.
//
// For a planned restart: Close, [Cache.Save], exit; then [Cache.Load], listen.
func (c *Cache[K, V]) Close(ctx context.Context) error {
	mustHave(ctx, "Close")
	within := executionOf(ctx)
	yield.At("close")
	c.closed.Store(true)
	yield.At("close: stop")
	c.reclaimer.stop()
	yield.At("close: look")

	// A claim that did not see closed was made under its shard's mu and so is found here.
	inFlight, undecided := c.ends()
	if within.running(&c.clock) {
		return ErrReentrant
	}
	for len(inFlight)+len(undecided) > 0 {
		for _, end := range append(undecided, inFlight...) {
			select {
			case <-end:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if len(undecided) == 0 {
			break
		}
		inFlight, undecided = c.ends()
	}
	return nil
}

// ends returns the channels that are closed when the flights end; and, with a Store, for flights of
// which it is not known yet whether their keys are in flight, the channels that are closed once it
// is. Flights that wait for another process are left out.
func (c *Cache[K, V]) ends() (inFlight, undecided []chan struct{}) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for f := range s.flights.each {
			switch {
			case f.undecided():
				undecided = append(undecided, f.asks.claiming.decided)
				continue
			case f.asks != nil && f.asks.claiming != nil && f.asks.claiming.watches:
				continue
			case f.done == nil:
				f.done = make(chan struct{})
			}
			inFlight = append(inFlight, f.done)
		}
		s.mu.Unlock()
	}
	return inFlight, undecided
}
