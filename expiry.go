package idemflight

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemflight/idemflight/internal/yield"
)

// Expired records are reclaimed by the call that comes across them, and by one timer per cache,
// which runs only while something is to expire. A timer costs no goroutine until it fires.

const (
	// reclaimDelay is how long after the first expiry the timer fires: once for all that expire
	// meanwhile, so that steady expiry wakes an idle process at most twice a second. Promised is
	// within 1 s.
	reclaimDelay = time.Second / 2

	// reclaimBatch is how many records are reclaimed under one hold of a shard's lock: some 10 µs,
	// so that a million that expire at once do not keep a first execution waiting. (A replay waits
	// for no lock.)
	reclaimBatch = 64
)

// reclaimer is the timer. mu guards it: taken with no other lock held, and none is taken under it.
type reclaimer struct {
	mu      sync.Mutex
	timer   *time.Timer
	calls   *callee      // what the timer refers to
	reclaim func()       // that of the cache
	next    atomic.Int64 // the deadline that the timer was set for; forever if it is stopped
	stopped bool         // by Close
}

// callee is all that the timer refers to: the cache while the timer is set, nothing while it is
// stopped. For the runtime may keep a timer that was stopped until the time at which it would have
// fired.
type callee struct{ reclaim atomic.Pointer[func()] }

func (to *callee) fire() {
	if reclaim := to.reclaim.Load(); reclaim != nil {
		(*reclaim)()
	}
}

// arm makes the timer fire in time for deadline. Must be called without a lock, after the record
// was published.
func (c *Cache[K, V]) arm(deadline time.Duration) {
	t := &c.reclaimer
	yield.At("arm")
	if int64(deadline) >= t.next.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped || int64(deadline) >= t.next.Load() {
		return
	}
	t.next.Store(int64(deadline))
	// Relative to the deadline even if it has passed; otherwise every late insertion would postpone
	// the timer.
	d := min(deadline-c.now(), forever-reclaimDelay) + reclaimDelay
	if t.timer != nil {
		t.calls.reclaim.Store(&t.reclaim)
		t.timer.Reset(d)
		return
	}
	t.reclaim, t.calls = c.reclaim, new(callee)
	t.calls.reclaim.Store(&t.reclaim)
	t.timer = time.AfterFunc(d, t.calls.fire)
}

// disarm stops the timer if nothing is kept any more, so that it does not keep an abandoned cache
// alive. Must be called without a lock, after what may have dropped the last record.
//
// A record that is inserted meanwhile may have found the timer set early enough just before it was
// stopped. So disarm writes first and then looks at the places again, while the record has its
// place first and then looks at the timer: one of the two sees the other.
func (c *Cache[K, V]) disarm() {
	t := &c.reclaimer
	yield.At("disarm")
	if c.places.Load() > 0 || t.next.Load() == int64(forever) {
		return
	}
	yield.At("disarm: stop")
	t.pause()
	yield.At("disarmed")
	if c.places.Load() > 0 {
		c.rearm()
	}
}

// pause stops the timer, if it has not fired, until the next arm.
func (t *reclaimer) pause() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next.Store(int64(forever))
	if t.timer != nil {
		t.timer.Stop()
		t.calls.reclaim.Store(nil)
	}
}

// stop stops the timer for good.
func (t *reclaimer) stop() {
	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
	t.pause()
}

// reclaim is what the timer runs: it drops what has expired, shard by shard, and sets the timer for
// what expires next.
func (c *Cache[K, V]) reclaim() {
	// From here on a new record arms the timer itself. One that is published before its shard's
	// turn is found there or by rearm; one published after it, or while rearm looks, has armed it.
	yield.At("fired")
	c.reclaimer.pause()
	defer c.rearm() // even if the Observer calls runtime.Goexit
	c.reclaimAll()
}

// reclaimAll drops all that has expired by now. Must be called without a lock.
func (c *Cache[K, V]) reclaimAll() {
	now := c.now()
	for i := range c.heads {
		if c.heads[i].due.Load() <= int64(now) {
			c.reclaimShard(&c.shards[i], now)
		}
	}
}

// rearm sets the timer for what expires next, or stops it if nothing is kept.
func (c *Cache[K, V]) rearm() {
	next := int64(forever)
	yield.At("rearm")
	for i := range c.heads {
		next = min(next, c.heads[i].due.Load())
	}
	c.arm(time.Duration(next))
	c.disarm()
}

// reclaimShard drops all that has expired in s at now. Must be called without a lock.
func (c *Cache[K, V]) reclaimShard(s *shard[K, V], now time.Duration) {
	for n := reclaimBatch; n == reclaimBatch; {
		var notes []note[K]
		n = c.reclaimSome(s, now, &notes)
		c.emit(notes)
	}
}

// reclaimSome drops up to reclaimBatch expired records of s and returns how many. Must be called
// without a lock.
func (c *Cache[K, V]) reclaimSome(s *shard[K, V], now time.Duration, notes *[]note[K]) (n int) {
	yield.At("reclaim")
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; n < reclaimBatch; n++ {
		r := s.kept.firstDue()
		if r == nil || !r.expired(now) {
			break
		}
		c.returnPlace()
		c.expireLocked(s, r, notes)
	}
	return n
}

// expireLocked drops r, which has expired; its place has been returned or passes on.
func (c *Cache[K, V]) expireLocked(s *shard[K, V], r *record[K, V], notes *[]note[K]) {
	e := Event[K]{Kind: EventExpired, Key: r.key, Origin: r.origin()}
	if r.state() == Held {
		e.Err = ErrOutcomeUnknown
	}
	c.removeLocked(s, r)
	s.stats.Expired++
	c.noteDropped(notes, e)
}
