package soak

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/idemflight/idemflight"
)

// bounds looks at a cache while it is in use.
func (d *driver[K]) bounds(l *life[K]) {
	s := l.c.Stats()
	if n := s.InFlight + s.Entries; d.MaxEntries > 0 && n > d.MaxEntries || s.InFlight < 0 || s.Entries < 0 || s.Waiters < 0 || s.Held > s.Entries {
		d.violation("places: MaxEntries is %d, and Stats %+v", d.MaxEntries, s)
	}
	if d.MaxWeight > 0 && s.Weight > d.MaxWeight || s.Weight < 0 {
		d.violation("weight: MaxWeight is %d, and Stats %+v", d.MaxWeight, s)
	}
}

// callEvents are the Stats of calls, by the event that tells of them.
func callEvents(s idemflight.Stats) (byEvent map[idemflight.EventKind]uint64, sum uint64) {
	byEvent = map[idemflight.EventKind]uint64{
		idemflight.EventExecuted: s.Executed, idemflight.EventJoined: s.Joined, idemflight.EventReplayed: s.Replayed,
		idemflight.EventReconciled: s.Reconciled, idemflight.EventCallerLeft: s.CallerLeft,
		idemflight.EventRejected: s.KeyReused + s.NotWaited + s.OutcomeUnknown + s.ValueShed + s.Full + s.Closed + s.Reentrant + s.InvalidKey + s.StoreFailed,
	}
	for _, n := range byEvent {
		sum += n
	}
	return byEvent, sum
}

// miscounted says which of the counters of a cache at rest is wrong, or nothing.
func (l *life[K]) miscounted(maxEntries int) string {
	listed, held := 0, 0
	for _, e := range l.c.All() {
		listed++
		if e.State == idemflight.Held {
			held++
		}
	}
	s := l.c.Stats()
	byEvent, calls := callEvents(s)
	if !l.copies { // to drop one is no event
		byEvent[idemflight.EventEvicted], byEvent[idemflight.EventExpired], byEvent[idemflight.EventShed] = s.Evicted, s.Expired, s.Shed
	}
	byEvent[idemflight.EventUnannounced], byEvent[idemflight.EventStore] = s.Unannounced, s.StoreErrors
	for kind, n := range byEvent {
		if told := l.events[kind].Load(); told != n {
			return fmt.Sprintf("%d events say %v, and Stats %d: %+v", told, kind, n, s)
		}
	}
	switch {
	case calls != l.calls.Load():
		return fmt.Sprintf("%d calls were made, and Stats counts %d: %+v", l.calls.Load(), calls, s)
	case s.Retains+s.Releases+s.Holds != l.ended.Load():
		return fmt.Sprintf("%d executions have ended, and Stats counts %d: %+v", l.ended.Load(), s.Retains+s.Releases+s.Holds, s)
	case s.Panics != l.panicked.Load():
		return fmt.Sprintf("%d executions have panicked or exited: %+v", l.panicked.Load(), s)
	case s.Unannounced != l.unannounced.Load():
		return fmt.Sprintf("%d executions have succeeded without a word: %+v", l.unannounced.Load(), s)
	case l.events[idemflight.EventForgotten].Load() != l.forgotten.Load():
		return fmt.Sprintf("%d keys were forgotten, and %d events say so", l.forgotten.Load(), l.events[idemflight.EventForgotten].Load())
	case l.events[idemflight.EventResolved].Load() < l.resolved.Load():
		return fmt.Sprintf("%d keys were resolved, and %d events say so", l.resolved.Load(), l.events[idemflight.EventResolved].Load())
	case l.traced.Load() != 0:
		return fmt.Sprintf("Trace was told of %d executions more than have ended", l.traced.Load())
	case s.HookPanics != l.broken.Load():
		return fmt.Sprintf("%d hooks have panicked: %+v", l.broken.Load(), s)
	case s.Entries != listed || s.Held != held || l.c.Len() != listed || maxEntries > 0 && listed > maxEntries:
		return fmt.Sprintf("All lists %d keys, %d of them held, Len is %d, MaxEntries %d: %+v", listed, held, l.c.Len(), maxEntries, s)
	}
	return ""
}

// counts compares Stats with what was counted outside, once a cache has come to rest.
func (d *driver[K]) counts(l *life[K]) {
	why := ""
	if !d.eventually(func() string { // what expires meanwhile is told after it was counted
		why = l.miscounted(d.MaxEntries)
		return why
	}) {
		d.violation("counters: %s", why)
	}
	d.tally(l.c.Stats())
}

// tally counts the kinds of answers for the report.
func (r *recorder) tally(s idemflight.Stats) {
	for name, n := range map[string]uint64{
		"executed": s.Executed, "joined": s.Joined, "replayed": s.Replayed, "reconciled": s.Reconciled,
		"ErrKeyReused": s.KeyReused, "ErrInFlight": s.NotWaited, "ErrOutcomeUnknown": s.OutcomeUnknown, "ErrValueShed": s.ValueShed,
		"ErrFull": s.Full, "ErrClosed": s.Closed, "ErrReentrant": s.Reentrant, "ErrInvalidKey": s.InvalidKey, "ErrCallerLeft": s.CallerLeft,
		"retained": s.Retains, "released": s.Releases, "held": s.Holds, "evicted": s.Evicted, "expired": s.Expired, "shed": s.Shed,
		"a hook panics": s.HookPanics, "an effect is not announced": s.Unannounced, "ErrStore": s.StoreFailed, "a verb fails": s.StoreErrors,
	} {
		r.mu.Lock()
		r.seen[name] += n
		r.mu.Unlock()
	}
}

// drain empties the cache of l in one of three ways, and looks for what is left.
func (d *driver[K]) drain(l *life[K]) {
	switch d.Drain {
	case byForget:
		for key := range l.c.All() {
			_, _ = l.c.Forget(key)
		}
		if n := l.c.Len(); n > 0 {
			d.violation("%d entries are left when all are forgotten", n)
		}
	case byExpiry:
		// Garbage at most a second after it has expired, without a call.
		time.Sleep(max(d.TTL, d.holdTTL()) + time.Second + 100*time.Millisecond)
	case byDropping:
		if err := l.c.Close(context.Background()); err != nil {
			d.violation("Close of a cache at rest: %v", err)
		}
		l.c = nil
	}
	d.gone()
	runtime.KeepAlive(l.c) // what is gone is so while there is a cache
}

// gone looks whether a value, or what fn captured, is still referred to.
func (r *recorder) gone() {
	why := ""
	if !r.eventually(func() string {
		runtime.GC()
		values, tokens := 0, 0
		for _, p := range r.values {
			if p.Value() != nil {
				values++
			}
		}
		for _, p := range r.tokens {
			if p.Value() != nil {
				tokens++
			}
		}
		if why = ""; values+tokens > 0 {
			why = fmt.Sprintf("when all has gone, %d of %d values and %d of %d things that fn captured are left",
				values, len(r.values), tokens, len(r.tokens))
		}
		return why
	}) {
		r.violation("%s", why)
	}
	r.values, r.tokens = nil, nil
}

// eventually asks until nothing is wrong, or patience ends: what is told may still be on its way.
func (r *recorder) eventually(wrong func() string) bool {
	end := time.Now().Add(r.patience)
	for pause := time.Millisecond; wrong() != ""; pause = min(2*pause, 100*time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
		time.Sleep(pause)
	}
	return true
}

// within reports whether wait returns in time.
func within(patience time.Duration, wait func()) bool {
	done := make(chan struct{})
	go func() { wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-time.After(patience):
		return false
	}
}

// settledGoroutines returns the number of goroutines, once it is at most want or patience has ended.
func settledGoroutines(want int, patience time.Duration) (n int) {
	end := time.Now().Add(min(patience, 5*time.Second))
	for n = runtime.NumGoroutine(); n > want && time.Now().Before(end); n = runtime.NumGoroutine() {
		time.Sleep(time.Millisecond)
	}
	return n
}

// heap returns the bytes of objects, live or not yet collected, without stopping the world.
func heap() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// liveHeap returns the bytes of objects that are in use.
func liveHeap() uint64 {
	runtime.GC()
	runtime.GC() // what a sync.Pool holds survives one
	debug.FreeOSMemory()
	return heap()
}

// stacks returns what all goroutines do, as far as one wants to read.
func stacks() string {
	buf := make([]byte, 1<<20)
	text := string(buf[:runtime.Stack(buf, true)])
	return text[:min(len(text), 16<<10)]
}
