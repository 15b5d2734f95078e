package model

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/idemflight/idemflight"
)

func goexit() { runtime.Goexit() }

func pick[T any](t *rapid.T, label string, from ...T) T {
	return rapid.SampledFrom(from).Draw(t, label)
}

// one reports true in one of n draws.
func one(t *rapid.T, label string, n int) bool { return rapid.IntRange(1, n).Draw(t, label) == n }

func drawConfig(t *rapid.T) config {
	c := config{
		ttl:            pick(t, "TTL", 10*time.Second, 500*time.Millisecond, 100*time.Second),
		maxEntries:     pick(t, "MaxEntries", 3, 1, 2, 4, 8, 12, 100),
		protect:        pick[time.Duration](t, "MinRetention", -1, -1, 2*time.Second, 200*time.Second),
		maxWeight:      pick[int64](t, "MaxWeight", 0, 20),
		classify:       pick(t, "Classify", noClassifier, lenient, custom),
		announced:      one(t, "EffectsAnnounced", 4),
		reconcile:      rapid.Bool().Draw(t, "Reconcile"),
		execTimeout:    pick[time.Duration](t, "ExecTimeout", 3*time.Second, -1),
		maxWaiters:     pick(t, "MaxWaiters", 0, 2),
		observerPanics: pick(t, "Observer panics at", idemflight.EventKind(-1), -1, -1, idemflight.EventReplayed, idemflight.EventJoined, idemflight.EventEvicted, idemflight.EventResolved, idemflight.EventUnannounced),
		closes:         one(t, "closes", 4),
		scans:          one(t, "scans", 6),
	}
	if c.defaultHold = one(t, "default HoldTTL", 6); c.defaultHold {
		c.ttl = pick(t, "TTL", c.ttl, 10*24*time.Hour)
		c.holdTTL = max(7*24*time.Hour, c.ttl)
	} else {
		c.holdTTL = pick(t, "HoldTTL", c.ttl, 4*time.Second, -1)
	}
	if c.scans { // what promise 19 says of scans
		c.protect, c.maxEntries, c.closes = -1, pick(t, "MaxEntries", 8, 12, 16), false
	}
	n := min(c.maxEntries, 12) + 2
	for i := range n {
		c.keys = append(c.keys, fmt.Sprintf("k%d", i))
	}
	return c
}

func (d *driver) drawKey(t *rapid.T) string {
	i := rapid.IntRange(0, 4*len(d.ref.keys)).Draw(t, "key")
	if i == 4*len(d.ref.keys) {
		return "" // invalid
	}
	return d.ref.keys[i%len(d.ref.keys)]
}

func (d *driver) drawFingerprint(t *rapid.T) (f idemflight.Fingerprint) {
	f[0] = pick[byte](t, "fingerprint", 0, 0, 0, 0, 1, 2)
	return f
}

// drawValue draws a value that is like no other, and what it weighs.
func (d *driver) drawValue(t *rapid.T) int {
	d.nextID++
	return d.nextID*100 + pick(t, "weight", 1, 0, 5, 9, 20, 21, unwritable, unreadable, lessThan0, unweighed)
}

func (d *driver) drawEnding(t *rapid.T) *ending {
	how := &ending{value: d.drawValue(t)}
	switch pick(t, "end", "value", "value", "value", "error", "error", "panic", "goexit") {
	case "error":
		how.err = drawErr(t, 3, false)
	case "panic":
		how.panics = pick[any](t, "panics with", "fn", idemflight.Final(errors.New("marked")), idemflight.Retryable(errors.New("marked")))
	case "goexit":
		how.goexit = true
	}
	if one(t, "effects", 3) {
		how.effects = rapid.SliceOfN(rapid.Map(rapid.Bool(), func(b bool) effect { return effect(b) }), 1, 4).Draw(t, "effects")
	}
	return how
}

// doCall makes a call from outside of any execution.
func (d *driver) doCall(t *rapid.T) {
	c := d.newCaller(t)
	d.drawContext(t, c)
	d.call(c)
}

// drawContext gives c a context from outside of any execution.
func (d *driver) drawContext(t *rapid.T, c *caller) {
	values := context.WithValue(context.Background(), callIDKey{}, c.id)
	c.ctx, c.cancel = values, func(error) {}
	switch pick(t, "context", "endless", "cancel", "cancel", "deadline", "dead") {
	case "endless":
		c.endless = true
	case "cancel":
		c.ctx, c.cancel = context.WithCancelCause(values)
	case "deadline":
		c.endsAt = time.Now().Add(pick(t, "deadline", time.Second, 3*time.Second, time.Nanosecond))
		var stop context.CancelFunc
		c.ctx, stop = context.WithDeadline(values, c.endsAt)
		c.cancel = func(error) { stop() }
		c.reason = context.DeadlineExceeded
	case "dead":
		c.ended = true
		c.reason = errors.New("dead on arrival")
		c.ctx, c.cancel = context.WithCancelCause(values)
		c.cancel(idemflight.Final(c.reason))
	}
}

// doAbandoned is what the end of promise 13's Reconcile is about: some wait for it, the one that asked
// leaves or not, and then it says, mostly, that there was no effect.
func (d *driver) doAbandoned(t *rapid.T) {
	if !d.ref.reconcile {
		return
	}
	key := d.ref.keys[rapid.IntRange(0, len(d.ref.keys)-1).Draw(t, "key")]
	d.nextID++
	lost := &errSpec{form: leaf, class: idemflight.Release, err: errors.New("lost")}
	first := &caller{call: &call{id: d.nextID, key: key, began: time.Now(), endless: true}, cancel: func(error) {}}
	first.fn = &ending{err: &errSpec{form: marker, d: idemflight.Hold, kids: []*errSpec{lost}, err: idemflight.Unknown(lost.err)}}
	first.ctx = context.WithValue(context.Background(), callIDKey{}, first.id)
	if d.ref.kept[key] == nil && d.ref.flights[key] == nil {
		d.call(first)
	}
	held := d.ref.kept[key]
	if held == nil || held.state != idemflight.Held {
		return
	}
	asks := d.newCaller(t)
	asks.key, asks.fp, asks.reconcile = key, held.fp, nil
	if asks.asks = rapid.Bool().Draw(t, "operator"); asks.asks {
		asks.inline, asks.ttl, asks.maxWait = false, nil, nil
	}
	asks.reason = errors.New("gone")
	asks.ctx, asks.cancel = context.WithCancelCause(context.WithValue(context.Background(), callIDKey{}, asks.id))
	d.call(asks)
	for range rapid.IntRange(0, 3).Draw(t, "joined") {
		c := d.newCaller(t)
		c.key, c.fp = key, held.fp
		d.drawContext(t, c)
		d.call(c)
	}
	if one(t, "an operator too", 3) {
		d.doReconcile(t)
	}
	if !asks.gone && one(t, "leaves", 2) {
		d.step(func() { asks.cancel(idemflight.Final(asks.reason)) }, func() { d.ref.cancel(asks.call) })
	}
	if one(t, "later", 3) {
		d.doSleep(t)
	}
	if one(t, "forgotten", 4) {
		d.doForget(t)
	}
	i := slices.IndexFunc(d.execs, func(e *execution) bool { return e.reconciling && e.flight.key == key })
	if i < 0 {
		return
	}
	how := d.drawEnding(t)
	if !one(t, "any end", 4) {
		none := &errSpec{form: leaf, class: idemflight.Release, err: errors.New("none")}
		how.err = &errSpec{form: marker, d: idemflight.Release, kids: []*errSpec{none}, err: idemflight.Retryable(none.err)}
		how.panics, how.goexit = nil, false
	}
	d.finish(d.execs[i], how)
}

// doNested makes a call with the context of an execution under way.
func (d *driver) doNested(t *rapid.T) {
	e := d.drawExec(t)
	if e == nil {
		return
	}
	c := d.newCaller(t)
	if rapid.Bool().Draw(t, "the same key") {
		c.key = e.flight.key
	}
	c.from, c.cancel = e.exec, func(error) {}
	c.ctx = context.WithValue(e.ctx, callIDKey{}, c.id)
	d.call(c)
}

func (d *driver) newCaller(t *rapid.T) *caller {
	d.nextID++
	c := &caller{call: &call{id: d.nextID, key: d.drawKey(t), fp: d.drawFingerprint(t), began: time.Now()}}
	c.way = pick(t, "way", viaDoResult, viaDoResult, viaDo, viaWrap)
	c.inline = one(t, "inline", 5)
	if one(t, "WithTTL", 4) {
		ttl := pick(t, "TTL", 0, -1, 1, time.Second, 3*time.Second, math.MaxInt64)
		c.ttl = &ttl
	}
	if one(t, "WithMaxWait", 4) {
		wait := pick(t, "MaxWait", idemflight.NoWait, 0, time.Second, 3*time.Second)
		c.maxWait = &wait
	}
	if one(t, "ends at once", 2) {
		c.fn = d.drawEnding(t)
	}
	if d.ref.reconcile && one(t, "reconciles at once", 2) && (c.maxWait == nil || *c.maxWait > 0) {
		c.reconcile = d.drawEnding(t) // where the call may not wait at all it would be chance which comes first
	}
	return c
}

func (d *driver) call(c *caller) {
	d.mu.Lock()
	d.byID[c.id] = c.call
	d.mu.Unlock()
	d.calls = append(d.calls, c)
	d.step(func() {
		go func() {
			returned := false
			defer func() {
				c.panicked = recover()
				c.exited = !returned && c.panicked == nil
				c.returned.Store(true)
			}()
			if c.asks {
				c.entry, c.err = d.c.Reconcile(c.ctx, c.key)
				returned = true
				return
			}
			c.res, c.err = d.c.do(c.ctx, c.call, c.way, func(ctx context.Context) (int, error) { return d.enter(ctx, nil) })
			returned = true
		}()
	}, func() {
		if c.asks {
			d.ref.ask(c.call)
		} else {
			d.ref.do(c.call)
		}
	})
}

// doReconcile calls Cache.Reconcile, mostly of a key that is held or of which Reconcile runs.
func (d *driver) doReconcile(t *rapid.T) {
	d.nextID++
	c := &caller{call: &call{id: d.nextID, asks: true, key: d.drawKey(t), began: time.Now()}, cancel: func(error) {}}
	var apt []string
	for _, key := range d.ref.keys {
		r, f := d.ref.kept[key], d.ref.flights[key]
		if r != nil && r.state == idemflight.Held || f != nil && f.exec.reconciling {
			apt = append(apt, key)
		}
	}
	if len(apt) > 0 && !one(t, "any", 6) {
		c.key = pick(t, "apt", apt...)
	}
	if d.ref.reconcile && one(t, "reconciles at once", 2) {
		c.reconcile = d.drawEnding(t)
	}
	c.ctx = context.WithValue(context.Background(), callIDKey{}, c.id)
	switch e := d.drawExec(t); pick(t, "context", "endless", "cancel", "cancel", "dead", "nested") {
	case "endless":
		c.endless = true
	case "cancel":
		c.ctx, c.cancel = context.WithCancelCause(c.ctx)
	case "dead":
		c.ended, c.reason = true, errors.New("dead on arrival")
		c.ctx, c.cancel = context.WithCancelCause(c.ctx)
		c.cancel(idemflight.Final(c.reason))
	case "nested":
		if e == nil {
			c.endless = true
			break
		}
		c.from = e.exec
		c.ctx = context.WithValue(e.ctx, callIDKey{}, c.id)
	}
	d.call(c)
}

// doScan is what the recency of promise 19 is about: a few keys that are replayed again and again, while
// new keys go by.
func (d *driver) doScan(t *rapid.T) {
	hot := d.ref.keys[:rapid.IntRange(1, 4).Draw(t, "hot")]
	for range rapid.IntRange(1, 20).Draw(t, "rounds") {
		for _, key := range hot {
			d.simpleCall(key)
		}
		for range rapid.IntRange(1, 2).Draw(t, "new keys") {
			d.simpleCall(fmt.Sprintf("new %d", d.nextID))
		}
	}
}

// simpleCall makes a call whose fn returns a value at once.
func (d *driver) simpleCall(key string) {
	d.nextID += 2
	ends := &ending{value: d.nextID * 100}
	c := &caller{call: &call{id: d.nextID + 1, key: key, began: time.Now(), endless: true, fn: ends, reconcile: ends}, cancel: func(error) {}}
	d.nextID++
	c.ctx = context.WithValue(context.Background(), callIDKey{}, c.id)
	d.call(c)
}

// drawExec draws an execution that is under way, or nil.
func (d *driver) drawExec(t *rapid.T) *execution {
	if len(d.execs) == 0 {
		return nil
	}
	return d.execs[rapid.IntRange(0, len(d.execs)-1).Draw(t, "execution")]
}

// doFinish ends an execution.
func (d *driver) doFinish(t *rapid.T) {
	if e := d.drawExec(t); e != nil {
		d.finish(e, d.drawEnding(t))
	}
}

func (d *driver) finish(e *execution, how *ending) {
	d.remove(e)
	d.step(func() { e.gate <- func() *ending { return how } }, func() { d.ref.end(e.exec, how) })
}

// remove takes e, which is about to end, off those under way.
func (d *driver) remove(e *execution) {
	d.execs = slices.DeleteFunc(d.execs, func(other *execution) bool { return other == e })
	d.ended = append(d.ended, e)
}

// doEffect calls BeginEffect or NoEffect in an execution.
func (d *driver) doEffect(t *rapid.T) {
	e := d.drawExec(t)
	if e == nil {
		return
	}
	what := effect(rapid.Bool().Draw(t, "begin"))
	var err error
	d.step(func() {
		e.gate <- func() *ending {
			if what == begin {
				err = idemflight.BeginEffect(e.ctx)
			} else {
				idemflight.NoEffect(e.ctx)
			}
			return nil
		}
	}, func() {
		if refused := d.ref.effect(e.exec, what); refused != (err != nil) || refused && err != context.Cause(e.ctx) {
			disagree("BeginEffect answers %v; refuses, by the contract: %v", err, refused)
		}
	})
}

// doLate calls BeginEffect and NoEffect with the context of an execution that has ended.
func (d *driver) doLate(t *rapid.T) {
	if len(d.ended) == 0 {
		return
	}
	e := d.ended[rapid.IntRange(0, len(d.ended)-1).Draw(t, "ended")]
	d.step(func() {
		idemflight.NoEffect(e.ctx)
		if err := idemflight.BeginEffect(e.ctx); !e.reconciling && (err == nil || err != context.Cause(e.ctx)) {
			disagree("BeginEffect after fn has returned answers %v, want %v", err, context.Cause(e.ctx))
		}
		if e.ctx.Err() == nil {
			disagree("fn's context has not ended with fn")
		}
	}, func() {})
}

// doCancel ends the context of a caller that has not returned.
func (d *driver) doCancel(t *rapid.T) {
	var may []*caller
	for _, c := range d.calls {
		if !c.endless && !c.ended && c.from == nil && c.endsAt.IsZero() {
			may = append(may, c)
		}
	}
	if len(may) == 0 {
		return
	}
	c := may[rapid.IntRange(0, len(may)-1).Draw(t, "caller")]
	c.reason = errors.New("gone")
	d.step(func() { c.cancel(idemflight.Final(c.reason)) }, func() { d.ref.cancel(c.call) })
}

// doRace ends an execution and the context of one of its callers at once. Whether the caller still
// gets the outcome is then the cache's choice, but one or the other it must be.
func (d *driver) doRace(t *rapid.T) {
	e := d.drawExec(t)
	if e == nil {
		return
	}
	var may []*caller
	for _, c := range d.calls {
		waits := e.flight.leader == c.call && !e.flight.leaderLeft || slices.Contains(e.flight.waiters, c.call) && !e.reconciling
		if waits && !c.asks && !c.endless && !c.ended && c.from == nil && c.endsAt.IsZero() {
			may = append(may, c)
		}
	}
	if len(may) == 0 {
		return
	}
	c := may[rapid.IntRange(0, len(may)-1).Draw(t, "caller")]
	how, first := d.drawEnding(t), rapid.Bool().Draw(t, "leaves first")
	c.reason = errors.New("gone meanwhile")
	leave := func() { c.cancel(idemflight.Final(c.reason)) }
	d.remove(e)
	d.step(func() {
		if first {
			leave()
		}
		e.gate <- func() *ending { return how }
		if !first {
			leave()
		}
	}, func() {
		if d.left[c.id] {
			d.ref.cancel(c.call)
			d.ref.end(e.exec, how)
		} else {
			d.ref.end(e.exec, how)
			d.ref.cancel(c.call)
		}
	})
}

// doMisuse makes calls that panic, and count nowhere.
func (d *driver) doMisuse(t *rapid.T) {
	c := d.newCaller(t)
	c.way = viaDoResult
	ctx, fn := context.Context(nil), fnOf(func(context.Context) (int, error) { return 0, nil })
	if rapid.Bool().Draw(t, "nil fn") {
		ctx, fn = context.Background(), nil
	}
	d.step(func() {
		defer func() {
			if recover() == nil {
				disagree("a nil context, or a nil fn, does not panic")
			}
		}()
		_, _ = d.c.do(ctx, c.call, c.way, fn)
	}, func() {})
}

// doSleep lets time pass: often exactly to, or to just before, what happens next.
func (d *driver) doSleep(t *rapid.T) {
	now := time.Now()
	to := now.Add(pick(t, "sleep", time.Nanosecond, time.Second, 2*time.Second, 10*time.Second, time.Minute))
	var marks []time.Time
	for _, key := range d.ref.keys {
		if r := d.ref.kept[key]; r != nil && !r.deadline.IsZero() && r.ttl < time.Hour {
			marks = append(marks, r.deadline, r.deadline.Add(-1))
		}
	}
	for _, e := range d.execs {
		if !e.deadline.IsZero() {
			marks = append(marks, e.deadline, e.deadline.Add(-1))
		}
	}
	if len(marks) > 0 && !one(t, "anywhere", 4) {
		to = marks[rapid.IntRange(0, len(marks)-1).Draw(t, "mark")]
	}
	d.sleep(to)
}

// sleep lets time pass to the given instant, with a step wherever something happens on the way.
func (d *driver) sleep(to time.Time) {
	for {
		next := d.ref.next(to)
		for _, c := range d.closes {
			if c.endsAt.After(d.ref.now) && c.endsAt.Before(next) {
				next = c.endsAt
			}
		}
		d.step(func() { time.Sleep(time.Until(next)) }, func() {})
		if !next.Before(to) {
			return
		}
	}
}

func (d *driver) doForget(t *rapid.T) {
	key := d.drawKey(t)
	id, ctx := d.operator()
	var got bool
	var err error
	d.step(func() { got, err = d.c.Forget(ctx, key) }, func() {
		if want := d.ref.forget(id, key); got != want || err != nil {
			disagree("Forget of %q answers %v, %v, want %v", key, got, err, want)
		}
	})
}

// operator returns the context in which an operator acts, and its number.
func (d *driver) operator() (id int, ctx context.Context) {
	d.nextID++
	return d.nextID, context.WithValue(context.Background(), callIDKey{}, d.nextID)
}

func (d *driver) doResolve(t *rapid.T) {
	key, value := d.drawKey(t), d.drawValue(t)
	var held []string
	for _, key := range d.ref.keys {
		if r := d.ref.kept[key]; r != nil && r.state == idemflight.Held {
			held = append(held, key)
		}
	}
	if len(held) > 0 && !one(t, "any", 4) {
		key = pick(t, "held", held...)
	}
	var err error
	var spec *errSpec
	if rapid.Bool().Draw(t, "with an error") {
		spec = drawErr(t, 2, false)
		err = spec.err
	}
	id, ctx := d.operator()
	var got error
	d.step(func() { got = d.c.Resolve(ctx, key, value, err) }, func() { d.ref.resolve(id, key, value, spec, got) })
}

func (d *driver) doRestore(t *rapid.T) {
	key, now := d.drawKey(t), time.Now()
	e := idemflight.Entry[int]{
		State:       pick(t, "state", idemflight.Retained, idemflight.Held, idemflight.Shed, idemflight.InFlight, 0, 5),
		Value:       d.drawValue(t),
		Fingerprint: d.drawFingerprint(t),
		CompletedAt: now.Add(-pick(t, "age", 0, time.Second, 10*time.Second)),
	}
	e.StartedAt = e.CompletedAt.Add(-time.Second)
	if !one(t, "no deadline", 4) {
		e.ExpiresAt = now.Add(pick[time.Duration](t, "left", time.Second, 10*time.Second, 1, 0, -1))
	}
	var spec *errSpec
	if one(t, "with an error", 3) {
		spec = drawErr(t, 2, false)
		e.Err = spec.err
	}
	var got error
	d.step(func() { got = d.c.Restore(context.Background(), key, e) }, func() { d.ref.restore(key, e, spec, got) })
}

// doClose closes the cache, from outside or from within an execution.
func (d *driver) doClose(t *rapid.T) {
	if len(d.execs) > 0 && rapid.Bool().Draw(t, "from within") {
		e := d.drawExec(t)
		var err error
		d.ref.closed = true
		d.step(func() { err = d.c.Close(e.ctx) }, func() {
			if err != idemflight.ErrReentrant {
				disagree("Close from within an execution answers %v", err)
			}
		})
		return
	}
	c := &closing{ctx: context.Background(), cancel: func(error) {}}
	switch pick(t, "context", "endless", "deadline", "dead") {
	case "deadline":
		c.endsAt = time.Now().Add(2 * time.Second)
		ctx, stop := context.WithDeadline(context.Background(), c.endsAt)
		c.ctx, c.cancel = ctx, func(error) { stop() }
	case "dead":
		c.ctx, c.cancel = context.WithCancelCause(context.Background())
		c.cancel(errors.New("dead on arrival"))
	}
	d.close(c)
}

// close closes the cache.
func (d *driver) close(c *closing) {
	d.ref.closed = true
	d.closes = append(d.closes, c)
	d.step(func() {
		go func() {
			c.err = d.c.Close(c.ctx)
			c.returned.Store(true)
		}()
	}, func() {})
}

// doLook looks at the cache in every way there is.
func (d *driver) doLook(t *rapid.T) {
	for _, key := range append(d.ref.keys, "") {
		got, ok := d.lookup(key)
		want, wanted := d.ref.entry(key)
		if ok != wanted {
			disagree("Lookup of %q finds %v %v, want %v %+v", key, ok, got, wanted, want)
		}
		if ok {
			if wrong := want.wrong(got); wrong != "" {
				disagree("Lookup of %q: %s", key, wrong)
			}
		}
	}
	if one(t, "All", 3) {
		d.lookAtAll()
	}
	if one(t, "Unsettled", 3) {
		d.lookAtUnsettled(rapid.IntRange(0, d.ref.maxEntries).Draw(t, "up to"))
	}
	if one(t, "Stats", 3) {
		d.lookAtStats()
	}
}

// lookAtUnsettled looks at up to so many of the keys in flight and held. They come in the order in which they
// began.
func (d *driver) lookAtUnsettled(most int) {
	unsettled := len(d.ref.flights) + d.ref.heldCount()
	var last time.Time
	found := map[string]bool{}
	err := d.c.Unsettled(context.Background(), func(key string, got idemflight.Entry[int]) bool {
		want, ok := d.ref.entry(key)
		switch {
		case !ok || want.State != idemflight.Held && want.State != idemflight.InFlight:
			disagree("Unsettled shows %q, which is %v", key, want.State)
		case found[key]:
			disagree("Unsettled shows %q twice", key)
		case want.wrong(got) != "":
			disagree("Unsettled, at %q: %s", key, want.wrong(got))
		}
		if got.StartedAt.Before(last) {
			disagree("Unsettled shows %q, which began before the one that it has shown before", key)
		}
		last = got.StartedAt
		found[key] = true
		return len(found) < most
	})
	if want := min(max(most, 1), unsettled); len(found) != want || err != nil {
		disagree("Unsettled shows %d keys (%v), want %d", len(found), err, want)
	}
}

func (d *driver) lookAtAll() {
	found := 0
	for key, got := range d.c.All() {
		want, ok := d.ref.entry(key)
		if !ok {
			disagree("All shows %q, of which there should be nothing", key)
		}
		if wrong := want.wrong(got); wrong != "" {
			disagree("All, at %q: %s", key, wrong)
		}
		found++
	}
	if found != d.ref.places() {
		disagree("All shows %d keys, want %d", found, d.ref.places())
	}
}

func (d *driver) lookAtStats() {
	var got idemflight.Stats
	var n int
	d.step(func() { got, n = d.c.Stats(), d.c.Len() }, func() {
		want := d.ref.all()
		if d.ref.busy() && got.Expired >= want.Expired && got.Expired <= want.Expired+uint64(len(d.ref.stale)) {
			want.Expired = got.Expired // counted, and told later
		}
		if got != want {
			disagree("Stats are\n\t%+v, want\n\t%+v", got, want)
		}
		if n != len(d.ref.kept) {
			disagree("Len is %d, want %d", n, len(d.ref.kept))
		}
	})
}

// endAll ends what runs, and looks at the books.
func (d *driver) endAll() {
	for len(d.execs) > 0 {
		d.finish(d.execs[0], &ending{value: 1})
	}
	synctest.Wait()
	if len(d.calls) > 0 {
		disagree("the call on %q is left waiting", d.calls[0].key)
	}
	d.lookAtStats()
}

// finale ends what runs, lets time pass, and looks at the books once more.
func (d *driver) finale() {
	d.endAll()
	d.sleep(time.Now().Add(time.Hour))
	if d.ref.defaultHold {
		d.sleep(time.Now().Add(12 * 24 * time.Hour))
	}
	if len(d.ref.stale) > 0 && !d.ref.closed {
		disagree("the record of %q was never reclaimed", d.ref.stale[0].key)
	}
	d.lookAtAll()
	d.lookAtStats()
}
