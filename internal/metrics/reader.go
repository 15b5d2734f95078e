package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/idemflight/idemflight"
)

// Bounds of the looks for the oldest keys: all of them take at most a LookShare-th of the time, and those into a store
// come once every LookEvery at most, and may take LookTimeout.
const (
	LookEvery   = time.Minute
	LookTimeout = 10 * time.Second
	LookShare   = 20
)

// Reading is what a cache says at one moment.
type Reading struct {
	Stats      idemflight.Stats
	MaxEntries int
	MaxWeight  int64

	stored bool // what the cache keeps are copies
	oldest oldest
	at     time.Time
}

// oldest says when the executions of the oldest unsettled keys started; zero: there is none, if all were seen.
type oldest struct {
	inFlight, held time.Time
	all            bool
}

func (o *oldest) note(state idemflight.State, started time.Time) {
	first := &o.inFlight
	if state == idemflight.Held {
		first = &o.held
	}
	if first.IsZero() || started.Before(*first) {
		*first = started
	}
}

// age is 0 where there is no such key, and not known where none was seen by a look that failed.
func (r *Reading) age(started time.Time) (seconds float64, known bool) {
	if started.IsZero() {
		return 0, r.oldest.all
	}
	return max(0, r.at.Sub(started).Seconds()), true // a store counts by its own clock
}

// Reader reads a cache. It is safe for concurrent use.
type Reader struct {
	stats      func() idemflight.Stats
	unsettled  func(context.Context, func(idemflight.State, time.Time) (more bool)) error
	maxEntries int
	maxWeight  int64
	stored     bool

	// mu guards what the last look saw, and is held while it looks into memory. A store is asked without it.
	mu      sync.Mutex
	looking bool
	next    time.Time
	seen    oldest
}

// NewReader returns a Reader of c.
func NewReader[K comparable, V any](c *idemflight.Cache[K, V]) *Reader {
	o := c.Options()
	return &Reader{
		stats: c.Stats,
		unsettled: func(ctx context.Context, each func(idemflight.State, time.Time) bool) error {
			return c.Unsettled(ctx, func(_ K, e idemflight.Entry[V]) bool { return each(e.State, e.StartedAt) })
		},
		maxEntries: o.MaxEntries, maxWeight: o.MaxWeight, stored: o.Store != nil,
	}
}

// Read asks the cache for its Stats once, and for the ages of the oldest unsettled keys. With a Store these are from
// the last look into it, and this call may start another, for which it does not wait.
func (r *Reader) Read() *Reading {
	reading := &Reading{Stats: r.stats(), MaxEntries: r.maxEntries, MaxWeight: r.maxWeight, stored: r.stored}
	if r.stored {
		reading.oldest = r.lastLook()
	} else {
		reading.oldest = r.look(reading.Stats)
	}
	reading.at = time.Now()
	return reading
}

// look looks at the keys in memory, which come in the order in which their executions started, unless the last look
// took too long. What Stats does not count is not searched for.
func (r *Reader) look(s idemflight.Stats) oldest {
	if s.InFlight+s.Held == 0 {
		return oldest{all: true}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	began := time.Now()
	if began.Before(r.next) {
		return r.seen
	}
	r.seen = oldest{all: true}
	_ = r.unsettled(context.Background(), func(state idemflight.State, started time.Time) (more bool) {
		r.seen.note(state, started)
		return s.InFlight > 0 && r.seen.inFlight.IsZero() || s.Held > 0 && r.seen.held.IsZero()
	})
	r.next = began.Add(LookShare * time.Since(began))
	return r.seen
}

// lastLook returns what the last look into the store saw, and starts the next one if it is due.
func (r *Reader) lastLook() oldest {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.looking && !time.Now().Before(r.next) {
		r.looking = true
		go r.lookIntoStore()
	}
	return r.seen
}

func (r *Reader) lookIntoStore() {
	ctx, cancel := context.WithTimeout(context.Background(), LookTimeout)
	defer cancel()
	began, seen := time.Now(), oldest{}
	defer func() { // also if the store or a codec calls runtime.Goexit
		r.mu.Lock()
		defer r.mu.Unlock()
		r.looking, r.seen, r.next = false, seen, began.Add(max(LookEvery, LookShare*time.Since(began)))
	}()
	err := r.unsettled(ctx, func(state idemflight.State, started time.Time) (more bool) {
		seen.note(state, started)
		return true // a store has them in any order
	})
	seen.all = err == nil
}
