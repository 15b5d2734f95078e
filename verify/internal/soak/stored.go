package soak

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/verify/internal/interval"
)

// stored drives several caches, made by fresh, as processes that share a store of e have them.
func stored[K comparable](m mix, c codec[K], patience time.Duration, e Engine, fresh func(idemflight.Options[K, *value]) target[K]) outcome {
	d := &driver[K]{recorder: newRecorder(m.Clients, patience), mix: m, codec: c, fresh: fresh}
	d.shared = d.newSink()
	d.books = newBooks(d.now, m.Lease, d.text)
	before := runtime.NumGoroutine()
	out := outcome{seen: d.seen}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	store, remove, err := e.Open(ctx)
	cancel()
	if err != nil {
		return outcome{seen: d.seen, stuck: true, wrong: []string{fmt.Sprintf("%s: %v", e.Name, err)}}
	}
	if k, ok := store.(interface{ Kill(idemflight.ClaimID) bool }); ok {
		d.books.kill = k.Kill
	}
	w := &world[K]{driver: d, store: store, remove: remove}
	w.run(&out)
	out.calls, out.executions = d.calls.Load(), d.executions.Load()
	if !out.stuck {
		if n := settledGoroutines(before, patience); n > before {
			d.violation("%d goroutines are left behind:\n%s", n-before, stacks())
		}
	}
	out.wrong = d.violations()
	return out
}

// world is one round of processes that share a store.
type world[K comparable] struct {
	*driver[K]
	store     idemflight.Store // without a door
	remove    func() error
	processes []process[K]
	lives     []*life[K] // all that there were
	closed    sync.WaitGroup
}

// process is one of those that share a store.
type process[K comparable] struct {
	door *door
	life atomic.Pointer[life[K]] // the present one
}

// text is the key as the store has it: the default of Codec.
func (c codec[K]) text(key int) string { return fmt.Sprint(c.key(key)) }

// open opens a cache for process number n.
func (w *world[K]) open(n int) {
	l := &life[K]{copies: true}
	o := w.options(l)
	o.Store, o.Lease, o.LocalTTL = w.processes[n].door, w.Lease, w.LocalTTL
	o.Codec.EncodeValue, o.Codec.DecodeValue = encodeValue, w.decodeValue
	l.c = w.fresh(o)
	w.processes[n].life.Store(l)
	w.lives = append(w.lives, l)
}

func encodeValue(v *value) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	return append(binary.AppendVarint(nil, int64(v.id)), v.pad...), nil
}

func (w *world[K]) decodeValue(text []byte) (*value, error) {
	if len(text) == 0 {
		return nil, nil
	}
	id, n := binary.Varint(text)
	v := &value{id: int(id), pad: text[n:]}
	if id%32 == 0 {
		w.watch(v, nil)
	}
	return v, nil
}

func (w *world[K]) run(out *outcome) {
	w.processes = make([]process[K], w.Processes)
	for i := range w.processes {
		w.processes[i].door = &door{Store: w.store, books: w.books, breaks: w.Breaks, chance: source(w.Seed, w.Round, 1<<19+i)}
		w.open(i)
	}
	if !w.drive(out) {
		return
	}
	w.left()
	h := w.history()
	h.Slack = int64(5 * time.Millisecond) // between the clock of the engine and ours
	h.Stale, h.Lapsed = max(0, int64(w.LocalTTL)), map[int]bool{}
	if w.books.stalled.Load() {
		w.saw("rounds in which the engine stalls")
	}
	lapsed := w.books.end()
	for key := range h.Ops {
		if h.Lapsed[key] = lapsed[w.text(key)]; h.Lapsed[key] {
			w.saw("keys of which a lease has ended")
		}
	}
	if why := h.Sound(); why != "" {
		w.violation("%s", why)
	}
	h, w.sinks = interval.History{}, nil
	w.drain()
}

// drive has all clients do their calls, each with any of the processes. It reports whether all came
// to an end.
func (w *world[K]) drive(out *outcome) bool {
	var clients, slow sync.WaitGroup
	ends := w.heartbeats(&slow)
	for i := range w.Clients {
		s := w.newSink()
		any := func(r *rand.Rand) *life[K] { return w.processes[r.IntN(len(w.processes))].life.Load() }
		clients.Go(func() { w.work(any, i, w.Calls/w.Clients, source(w.Seed, w.Round, 1+i), s) })
	}
	began := time.Now()
	past := func(part uint64) bool { // so many quarters of the round
		return w.calls.Load() > uint64(w.Calls)*part/4 || time.Since(began) > time.Duration(part)*roundTime/4
	}
	closes, breaks := w.Close != staysOpen, w.Outage
	var breakdown time.Time
	if !w.attend(&clients, out, func(running bool) {
		if breaks && (past(1) || !running) {
			breaks, breakdown = false, time.Now()
			w.processes[1].door.down.Store(true)
		}
		if time.Since(breakdown) > w.Lease*5/4 || !running {
			w.processes[1].door.down.Store(false)
		}
		if closes && (past(3) || !running) {
			closes = false
			w.close(w.lives[0], &w.closed)
			if w.Close == restarts {
				w.open(0)
				out.restarts++
			}
		}
		for _, l := range w.lives {
			w.bounds(l)
		}
	}) {
		return false
	}
	if w.Heartbeats {
		time.Sleep(time.Until(began.Add(w.Lease * 5 / 4)))
	}
	close(ends)
	if !within(w.patience, slow.Wait) {
		return w.stuck("a call that waits for another process has not returned", out)
	}
	for _, l := range w.lives {
		l.quiet.Store(true)
	}
	return w.atRest(&w.closed, out, w.lives...)
}

// heartbeats starts executions in one process that last until the channel is closed, longer than a lease,
// and calls that wait for them in another.
func (w *world[K]) heartbeats(slow *sync.WaitGroup) (ends chan struct{}) {
	ends = make(chan struct{})
	if !w.Heartbeats {
		return ends
	}
	for i := range lingering {
		p := plan{key: w.Keys + lingerKey + i, ttl: -1, payload: 1, leaves: 3 * time.Millisecond, fate: fate(i), lingers: ends}
		w.call(context.Background(), w.processes[0].life.Load(), p, i, w.shared)
		p.leaves = 0
		slow.Go(func() { w.call(context.Background(), w.processes[1].life.Load(), p, i, w.shared) })
	}
	return ends
}

// looksDead has the owner of the claim under which x runs look dead, if the store can do that, and waits a
// little, so that others come.
func (d *driver[K]) looksDead(x *execution) {
	kill := d.books.kill
	if kill == nil {
		return
	}
	d.books.lapse(x.plan.key)
	if kill(x.claim) {
		d.saw("an owner looks dead")
		time.Sleep(time.Millisecond)
	}
}

// unsettled returns what the store has that is in flight or held, by key.
func (w *world[K]) unsettled() map[string]idemflight.Standing {
	all := map[string]idemflight.Standing{}
	ctx, cancel := context.WithTimeout(context.Background(), w.patience)
	defer cancel()
	if err := w.store.Unsettled(ctx, func(key string, x idemflight.Standing) error {
		all[key] = x
		return nil
	}); err != nil {
		w.violation("Unsettled: %v", err)
	}
	return all
}

// orphan reports whether x is a claim of which the lease is over and that has begun nothing: the next caller
// takes it over, and Lookup and Forget say that the key is free.
func orphan(x idemflight.Standing) bool {
	return x.State == idemflight.InFlight && x.ExpiresIn == 0 && !x.Begun
}

// left looks for claims that are left in the store, now that nothing runs. What was given up during an
// outage is given back with the next heartbeat, or its lease ends.
func (w *world[K]) left() {
	why := ""
	if !w.eventually(func() string {
		why = ""
		for key, x := range w.unsettled() {
			if x.State == idemflight.InFlight && !orphan(x) || x.State == idemflight.Held && x.Err == nil && !w.books.end()[key] {
				why = fmt.Sprintf("a claim is left of key %s: %+v", key, x)
			}
		}
		return why
	}) {
		w.violation("%s", why)
	}
}

// drain empties the caches and the store, removes it, and looks for what is left.
func (w *world[K]) drain() {
	switch w.Drain {
	case byForget:
		w.forgetAll()
		w.isEmpty("all is forgotten")
	case byExpiry:
		time.Sleep(max(w.TTL, w.holdTTL()) + time.Second + 100*time.Millisecond)
		w.isEmpty("all has expired")
	case byDropping:
		for i, l := range w.lives {
			if err := l.c.Close(context.Background()); err != nil {
				w.violation("Close of a cache at rest: %v", err)
			}
			w.lives[i] = nil
		}
		for i := range w.processes {
			w.processes[i].life.Store(nil)
		}
	}
	// Before looking: a driver may keep, in each idle connection, the context of its last request, and with it
	// the outcome of the flight that asked. pgx does.
	if err := w.remove(); err != nil {
		w.violation("the store cannot be removed: %v", err)
	}
	w.gone()
	runtime.KeepAlive(w.lives) // what is gone is so while there are caches and a store
	runtime.KeepAlive(w.store)
}

// forgetAll forgets every key in every cache.
func (w *world[K]) forgetAll() {
	const hands = 8
	var all sync.WaitGroup
	for hand := range hands {
		all.Go(func() {
			for key := 1 + hand; key <= w.Keys+extraKeys; key += hands {
				for _, l := range w.lives {
					if _, err := l.c.Forget(w.key(key)); err != nil {
						w.violation("Forget of a key at rest: %v", err)
					}
				}
			}
		})
	}
	all.Wait()
}

// isEmpty looks whether the store has nothing any more.
func (w *world[K]) isEmpty(when string) {
	var left []string
	for key, x := range w.unsettled() {
		if !orphan(x) { // which is no more than a free key is
			left = append(left, fmt.Sprintf("%s is %v", key, x.State))
		}
	}
	for key := 1; key <= w.Keys+extraKeys; key++ {
		ctx, cancel := context.WithTimeout(context.Background(), w.patience)
		x, err := w.store.Read(ctx, w.text(key))
		cancel()
		if err != nil || x.State == idemflight.Retained {
			left = append(left, fmt.Sprintf("%d is %v, %v", key, x.State, err))
		}
	}
	if len(left) > 0 {
		slices.Sort(left)
		w.violation("when %s, the store still has %d keys: %s", when, len(left), strings.Join(left[:min(3, len(left))], ", "))
	}
}

// flightAsks is how much older than the call an answer may be that a caller shares with the flight it has
// joined: the flight may have asked the store before.
const flightAsks = int64(time.Second)

// mayRefuse reports whether BeginEffect may refuse with err.
func (d *driver[K]) mayRefuse(err error, key int) bool {
	switch {
	case errors.Is(err, idemflight.ErrClaimLost):
		return d.books.hasLapsed(key)
	case errors.Is(err, idemflight.ErrStore):
		return d.unreachable() || d.ExecTimeout > 0 // which has passed while the store was asked
	}
	return false
}
