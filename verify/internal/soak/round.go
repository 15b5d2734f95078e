package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/verify/internal/interval"
)

// outcome is what came of a round.
type outcome struct {
	wrong             []string
	stuck             bool // something hangs, and will for ever
	calls, executions uint64
	restarts          int
	seen              map[string]uint64 // kinds of answers and events
	goroutines        int               // most at once
	heap              uint64            // likewise
}

// core drives a Cache, made by fresh, as m has it.
func core[K comparable](m mix, c codec[K], patience time.Duration, fresh func(idemflight.Options[K, *value]) target[K]) outcome {
	d := &driver[K]{recorder: newRecorder(m.Clients, patience), mix: m, codec: c, fresh: fresh, interrupted: map[int]int64{}}
	d.shared = d.newSink()
	before := runtime.NumGoroutine()
	out := outcome{seen: d.seen}
	d.run(&out)
	out.calls, out.executions = d.calls.Load(), d.executions.Load()
	if !out.stuck {
		if n := settledGoroutines(before, patience); n > before {
			d.violation("%d goroutines are left behind:\n%s", n-before, stacks())
		}
	}
	out.wrong = d.violations()
	return out
}

func (d *driver[K]) newLife() *life[K] {
	l := &life[K]{}
	l.c = d.fresh(d.options(l))
	return l
}

func (d *driver[K]) run(out *outcome) {
	l := d.newLife()
	calls := d.Calls
	if d.Close == restarts {
		calls /= 2
	}
	if !d.phase(l, 0, calls, d.Close != staysOpen, out) {
		return
	}
	if d.Close == restarts {
		next := d.newLife()
		d.handOver(next)
		if l = next; !d.phase(l, 1, calls, false, out) {
			return
		}
		out.restarts++
	}
	h := d.history()
	h.MinRetention = int64(d.protect())
	if d.Close == restarts {
		h.Slack = int64(5 * time.Millisecond)
		d.interrupt(h)
	}
	if why := h.Sound(); why != "" {
		d.violation("%s", why)
	}
	h, d.sinks = interval.History{}, nil
	d.drain(l)
}

// history is what was recorded, with the options of the caches.
func (d *driver[K]) history() interval.History {
	h := d.recorder.history()
	h.TTL, h.HoldTTL = int64(d.TTL), int64(d.holdTTL())
	if h.HoldTTL < 0 {
		h.HoldTTL = interval.Never
	}
	return h
}

// phase has all clients do their share of calls, while it looks on. It reports whether all came to
// an end.
func (d *driver[K]) phase(l *life[K], number, calls int, closes bool, out *outcome) bool {
	var done, closed sync.WaitGroup
	lingers := make(chan struct{})
	switch {
	case d.Close == restarts && number == 0:
		d.linger(l, lingers)
	case d.Close == restarts:
		for i := range lingering { // what the restart interrupted is met again
			d.call(context.Background(), l, plan{key: d.Keys + lingerKey + i, ttl: -1, payload: 1}, i, d.shared)
		}
	}
	for i := range d.Clients {
		s := d.newSink()
		only := func(*rand.Rand) *life[K] { return l }
		done.Go(func() { d.work(only, i, calls/d.Clients, source(d.Seed, d.Round, 1+2*i+number), s) })
	}
	start := d.calls.Load()
	if !d.attend(&done, out, func(running bool) {
		if closes && (!running || d.calls.Load()-start > uint64(calls*3/4)) {
			closes = false
			d.close(l, &closed)
		}
		d.bounds(l)
	}) {
		return false
	}
	l.quiet.Store(true)
	if number == 0 && d.Close == restarts {
		d.save(l)
	}
	close(lingers)
	return d.atRest(&closed, out, l)
}

// attend looks on until all clients are done, every few milliseconds, and has look do so, too. It
// reports false if a call hangs.
func (d *driver[K]) attend(clients *sync.WaitGroup, out *outcome, look func(running bool)) bool {
	over := make(chan struct{})
	go func() { clients.Wait(); close(over) }()
	began, tick := time.Now(), time.NewTicker(2*time.Millisecond)
	defer tick.Stop()
	procs := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(procs)
	for n, running := 1, true; running; n++ {
		select {
		case <-over:
			running = false
		case <-tick.C:
		}
		out.goroutines = max(out.goroutines, runtime.NumGoroutine())
		if n%25 == 0 {
			runtime.GOMAXPROCS(d.Procs[n/25%len(d.Procs)])
			out.heap = max(out.heap, heap())
		}
		if time.Since(began) > roundTime {
			d.stop.Store(true)
		}
		look(running)
		if d.hangs() {
			return d.stuck("a call has not returned", out)
		}
	}
	return true
}

// close closes the cache of l: one call gives up waiting or not, and one, of which closed tells, does not.
func (d *driver[K]) close(l *life[K], closed *sync.WaitGroup) {
	l.closing.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), time.Microsecond)
	defer cancel()
	_ = l.c.Close(ctx)
	closed.Go(func() {
		if err := l.c.Close(context.Background()); err != nil {
			d.violation("Close: %v", err)
		}
	})
}

// atRest waits until flights have ended, of which there are no calls any more, and compares counters. It
// reports false if they do not end.
func (d *driver[K]) atRest(closed *sync.WaitGroup, out *outcome, lives ...*life[K]) bool {
	if !within(d.patience, closed.Wait) {
		return d.stuck("Close has not returned", out)
	}
	for _, l := range lives {
		if !d.eventually(func() string {
			if s := l.c.Stats(); s.InFlight+s.Waiters > 0 {
				return fmt.Sprintf("%d flights and %d waiters are left, of no call", s.InFlight, s.Waiters)
			}
			return ""
		}) {
			return d.stuck("flights do not end", out)
		}
		d.counts(l)
	}
	return true
}

// roundTime is when a phase of a round is cut short.
const roundTime = 4 * time.Second

func (d *driver[K]) stuck(what string, out *outcome) bool {
	d.violation("%s:\n%s", what, stacks())
	out.stuck = true
	return false
}

// lingering is how many executions a restart interrupts, others aside.
const lingering = 4

// linger starts executions that last until lingers is closed, and whose leaders have left.
func (d *driver[K]) linger(l *life[K], lingers <-chan struct{}) {
	for i := range lingering {
		p := plan{key: d.Keys + lingerKey + i, ttl: -1, payload: 1, leaves: 3 * time.Millisecond, fate: fate(i), lingers: lingers}
		d.call(context.Background(), l, p, i, d.shared)
	}
}

// save is the first half of a planned restart: no client calls any more, and some flights still run.
func (d *driver[K]) save(l *life[K]) {
	d.saved = nil
	for key, e := range l.c.All() {
		d.saved = append(d.saved, saved[K]{key, e})
	}
}

// handOver is the other half: the old cache has come to rest, and next has no callers yet.
func (d *driver[K]) handOver(next *life[K]) {
	for _, s := range d.saved {
		key := d.num(s.key)
		o := op{Kind: interval.Forgot, Key: key, Client: -1, OK: true, Call: d.now()}
		own := key >= d.Keys+observerKey && key < d.Keys+lingerKey // the Observer uses these from the first event on
		if own {
			o.Ret = d.now()
			d.shared.add(o)
			continue
		}
		slot, _ := d.enter(0)
		err := next.c.Restore(s.key, s.e)
		d.leave(slot)
		o.Ret = d.now()
		expired := !s.e.ExpiresAt.IsZero() && s.e.ExpiresAt.Before(time.Now().Add(time.Millisecond))
		switch {
		case err == nil && s.e.State == idemflight.InFlight:
			d.interrupted[key] = d.now()
		case err == nil:
		case expired || d.CallsBack && d.MaxEntries > 0:
			d.shared.add(o)
		default:
			d.violation("Restore of %+v: %v", s.e, err)
		}
	}
	d.saved = nil
}

// interrupt has the executions that were in flight at a restart be held from then on.
func (d *driver[K]) interrupt(h interval.History) {
	for key, at := range d.interrupted {
		last := (*op)(nil)
		for i := range h.Ops[key] {
			if e := &h.Ops[key][i]; e.Kind == interval.Ran && e.Start < at && (last == nil || e.Start > last.Start) {
				last = e
			}
		}
		if last != nil {
			last.Becomes, last.Ret = idemflight.Hold, at
		}
	}
}

type saved[K comparable] struct {
	key K
	e   entry
}
