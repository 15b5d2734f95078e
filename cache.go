package idemflight

import (
	"context"
	"hash/maphash"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemflight/idemflight/internal/yield"
)

// Cache makes operations happen once per key. Make one with [New] for each kind of operation and
// share it: all methods are safe for concurrent use, and an empty one takes some 50 KB. It needs no
// goroutine of its own; one that is dropped without [Cache.Close] is garbage once its entries have
// expired.
//
// Most callers want [Cache.Do]. [Cache.DoResult] also tells where the outcome comes from; [Wrap]
// makes an ordinary function once-only.
type Cache[K comparable, V any] struct {
	opts   Options[K, V] // with defaults filled in
	traits keyTraits
	seed   maphash.Seed // of this cache, so that keys cannot be chosen to meet in one shard
	clock

	shards []shard[K, V]
	edges  edges

	places atomic.Int64  // in flight + kept; at most MaxEntries
	seq    atomic.Uint32 // of the last turn
	weight atomic.Int64  // sum of the weights of retained outcomes; at most MaxWeight
	closed atomic.Bool   // set once; a claim reads it under its shard's mu

	reclaimer reclaimer
	hot       hotTable[K, V]

	invalidKeys, hookPanics atomic.Uint64
}

// shard is a part of the cache. A key is always of the same shard.
type shard[K comparable, V any] struct {
	// mu guards everything below, and the guarded fields of the flights in pending. It is never
	// held while user code runs: fn, Reconcile, Classify, Weigh, Observer, and the methods of
	// contexts and errors. No other lock is taken under it, but for the other shards' by atOneMoment,
	// in order. (Hashing and comparing keys is the runtime's; a key that cannot be hashed panics before
	// mu is taken.)
	mu      sync.Mutex
	pending map[K]*flight[K, V] // never a key that is also kept
	kept    kept[K, V]
	waiters int // joined callers of all of pending
	peak    int // the most flights since pending was made
	ballot  ballot
	stats   Stats // of calls, executions and upkeep; the rest is counted on demand

	edges *edges   // of all shards
	index int      // of this one among them
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
		opts:   opts,
		traits: traitsOf[K](),
		seed:   maphash.MakeSeed(),
		clock:  clock{start: time.Now()},
		shards: make([]shard[K, V], n),
		edges:  newEdges(n),
	}
	c.reclaimer.next.Store(int64(forever))
	unhot := func(key K, f found[K, V]) { c.hot.drop(c.hash(key), f) }
	for i := range c.shards {
		c.shards[i].edges, c.shards[i].index = &c.edges, i
		c.shards[i].kept.ttl, c.shards[i].kept.unhot = opts.TTL, unhot
		c.shards[i].publishLocked() // nobody else has c yet
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

// minShards and maxShards bound the number of shards. A search for room reads the edges of all.
var minShards, maxShards = 64, 128

// tableFill is how many entries a table of a Go map should hold: it has 1,024 slots, and when 896
// are taken it splits into two that are half empty. Hashing spreads 800 to at most 880 or so.
const tableFill = 800

// shardCount returns enough shards that goroutines seldom meet at one lock; and, from 64 on, such
// that each will hold a power of two of full tables when the cache is full: 81 of 16 by default.
// (Measured: 26 bytes per entry less than with 64 shards.)
func shardCount(maxEntries int) int {
	n := max(4*runtime.GOMAXPROCS(0), min(maxEntries/1024, minShards))
	if full := maxEntries / tableFill; full >= n && n >= minShards {
		for full/2 >= n {
			full /= 2
		}
		n = full
	}
	return min(n, maxEntries, maxShards)
}

// hash returns the hash of key. It panics, with a message that names the type, if key is an interface
// that holds something unhashable.
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

// Do returns the outcome of fn for key, for which fn runs at most once at a time and not again
// while its outcome is kept: the package documentation has the table. fn gets a context with the values of
// ctx but neither its cancellation nor its deadline (see Options.ExecTimeout): the work goes on
// when the caller leaves. So fn may outlive the caller and must capture nothing that the caller
// closes, reuses or reads afterwards; [Inline] is the alternative.
//
// The value is shared by all callers for the whole TTL: treat it as immutable. fn's error comes
// back as fn returned it, without its marker ([Final], [Retryable], [Unknown]). Other errors:
// [ErrOutcomeUnknown] around fn's error, [ErrLeft] as soon as ctx ends (the outcome wins if both
// are there), [ErrInFlight], [ErrKeyReused], [ErrValueShed], [ErrFull], [ErrClosed],
// [ErrReentrant], [ErrInvalidKey]. If fn panics, the leader panics with a *[PanicError] and joined
// callers get it in their error; on runtime.Goexit they get [ErrGoexit].
//
// A nil ctx, a nil fn and an unhashable key panic. A replay takes at most one shard lock and
// allocates nothing, but for one small allocation when its key becomes one of the hottest, which are replayed
// without a lock. A first execution takes three allocations; two more and a goroutine if ctx can end
// and [Inline] was not given.
func (c *Cache[K, V]) Do(ctx context.Context, key K, fn func(context.Context) (V, error), opts ...CallOption) (V, error) {
	mustCall(ctx, fn == nil)
	o := readOptions(opts)
	hash := c.hash(key)
	var seen looked[K, V]
	r := c.lookHot(hash, key, &o)
	if r.record == nil {
		r = c.lookLocked(hash, key, &o, &seen)
	}
	switch {
	case r.record != nil:
		if c.opts.Observer != nil {
			c.observeReplayed(ctx, key, r)
		}
		return r.value, r.err()
	case seen.flight != nil:
		f := seen.flight
		waits, err := c.joined(ctx, seen.shard, f, o.maxWait)
		if waits { // this is wait, for which the stack might have to grow
			select {
			case <-f.done:
			case <-ctx.Done():
				err = c.depart(ctx, seen.shard, f, true, false)
			}
		}
		if err != nil {
			return *new(V), err
		}
		return f.outcome.value, f.outcome.err
	}
	return c.callValue(ctx, seen.shard, key, fn, &o, seen.puts)
}

// DoResult is [Cache.Do] that also tells where the outcome comes from and how long it is kept.
func (c *Cache[K, V]) DoResult(ctx context.Context, key K, fn func(context.Context) (V, error), opts ...CallOption) (Result[V], error) {
	mustCall(ctx, fn == nil)
	o := readOptions(opts)
	hash := c.hash(key)
	var res Result[V]
	var seen looked[K, V]
	r := c.lookHot(hash, key, &o)
	if r.record == nil {
		r = c.lookLocked(hash, key, &o, &seen)
	}
	switch {
	case r.record != nil:
		c.result(r, &res)
		if c.opts.Observer != nil {
			c.observeReplayed(ctx, key, r)
		}
		return res, r.err()
	case seen.flight != nil:
		f := seen.flight
		waits, err := c.joined(ctx, seen.shard, f, o.maxWait)
		if waits {
			err = c.wait(ctx, seen.shard, f, false)
		}
		if err != nil {
			return res, err
		}
		return f.outcome.result(&c.clock, Joined), f.outcome.err
	}
	return c.call(ctx, seen.shard, key, fn, &o, seen.puts)
}

func mustCall(ctx context.Context, nilFn bool) {
	if ctx == nil {
		panic("idemflight: Do called with a nil context")
	}
	if nilFn {
		panic("idemflight: Do called with a nil fn")
	}
}

// looked is what a call found at its first look, if that was not its answer. The look asks ctx
// nothing: what can only be decided with ctx is left to call.
type looked[K comparable, V any] struct {
	shard  *shard[K, V]  // of the key
	flight *flight[K, V] // the call has joined this one
	puts   uint32        // else: how many records shard had been given when key was not among them
}

// lookHot returns the retained outcome of key if it can be replayed without a lock.
func (c *Cache[K, V]) lookHot(hash uint64, key K, o *callOptions) found[K, V] {
	yield.At("look")
	r := c.hot.get(hash, key)
	if r.record == nil || r.fingerprint() != o.fp || r.expired(c.now()) {
		return found[K, V]{}
	}
	yield.At("hot: replayed")
	r.use()
	c.hot.count()
	return r
}

// lookLocked returns the retained outcome of key if it is to be replayed. Else it joins the flight of
// key, if that can be decided here, and tells in seen what call has to know.
func (c *Cache[K, V]) lookLocked(hash uint64, key K, o *callOptions, seen *looked[K, V]) found[K, V] {
	s := c.shardOf(hash)
	yield.At("look: lock")
	s.mu.Lock()
	seen.shard, seen.puts = s, s.kept.puts
	r := s.kept.get(key)
	switch {
	case r.record == nil:
		if f := s.pending[key]; f != nil && f.fingerprint == o.fp && o.maxWait > 0 && c.opts.MaxWaiters == 0 {
			s.joinLocked(f)
			seen.flight = f
		}
	case r.state() != Retained || r.fingerprint() != o.fp ||
		r.expired(c.now()): // the clock is read last: what is replayed is not expired
		seen.puts-- // call has to look again
		r = found[K, V]{}
	default:
		if r.flags.Load()&replayed != 0 {
			c.hot.vote(&s.ballot, hash, key, r)
		}
		r.use()
		s.stats.Replayed++
	}
	s.mu.Unlock()
	return r
}

// Forget drops what is kept of key, held or not, so that the next call runs fn, and reports whether
// there was anything. On a key in flight it returns true: the flight's callers get its outcome,
// which is then not retained, though it is held if it turns out unknown; callers that arrive before
// the flight ends still join it. An effect that may have taken place can take place again once a held
// key is forgotten: [Cache.Resolve] is for what someone found out.
func (c *Cache[K, V]) Forget(key K) bool {
	s := c.shardOf(c.hash(key))
	var notes []note[K]
	yield.At("forget")
	s.mu.Lock()
	r := c.liveLocked(s, key, &notes)
	f := s.pending[key]
	switch {
	case r.record != nil:
		c.giveBack()
		c.removeLocked(s, key, r)
	case f != nil:
		f.forgotten = true
	}
	s.mu.Unlock()
	c.disarm()
	c.emit(notes)
	return r.record != nil || f != nil
}

// liveLocked returns the unexpired record of key, or nothing; an expired one it drops.
func (c *Cache[K, V]) liveLocked(s *shard[K, V], key K, notes *[]note[K]) found[K, V] {
	f := s.kept.get(key)
	if f.record == nil || !f.expired(c.now()) {
		return f
	}
	c.giveBack()
	c.expireLocked(s, key, f, notes)
	return found[K, V]{}
}

// Close refuses new executions ([ErrClosed]), those of Reconcile included, and waits until none is
// in flight or ctx ends, whose cause it then returns. Flights that have begun, joins and replays go
// on, also afterwards; what expires then is dropped by the next call that meets it. With nothing in
// flight it returns nil whatever ctx is. From inside an execution it closes and returns
// [ErrReentrant] without waiting. Calling it again is safe, and waits again. A nil ctx panics.
//
// Events of flights that ended may still be told when Close returns.
//
// For a planned restart: Close, then [Cache.All], exit; [Cache.Restore], then listen.
func (c *Cache[K, V]) Close(ctx context.Context) error {
	if ctx == nil {
		panic("idemflight: Close called with a nil context")
	}
	within := executionOf(ctx)
	yield.At("close")
	c.closed.Store(true)
	yield.At("close: stop")
	c.reclaimer.halt(true)
	yield.At("close: look")

	// A claim that did not see closed was made under its shard's mu and so is found here.
	var inFlight []chan struct{}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for _, f := range s.pending {
			if f.done == nil {
				f.done = make(chan struct{})
			}
			inFlight = append(inFlight, f.done)
		}
		s.mu.Unlock()
	}
	if within.running(&c.clock) {
		return ErrReentrant
	}
	for _, done := range inFlight {
		select {
		case <-done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
