package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/verify/internal/interval"
)

// Keys beyond those that clients choose: fn calls up to nestedKeys of them, the Observer's own begin
// at observerKey, and those of executions that a restart interrupts at lingerKey.
const (
	nestedKeys  = 3
	observerKey = nestedKeys + 10
	lingerKey   = nestedKeys + 100
	extraKeys   = nestedKeys + 200
)

// driver drives one round of a Cache, or of several with one Store.
type driver[K comparable] struct {
	*recorder
	mix
	codec[K]
	fresh       func(idemflight.Options[K, *value]) target[K]
	books       *books // of the Store; nil without one
	shared      *sink
	stop        atomic.Bool
	saved       []saved[K]    // at a restart
	interrupted map[int]int64 // keys that were in flight at a restart: when they were put back
}

// life is one cache of a round: a restart begins another. It counts what Stats should say.
type life[K comparable] struct {
	c                              target[K]
	copies                         bool          // of what a Store has
	calls, ended, panicked, broken atomic.Uint64 // broken: panics of hooks
	unannounced                    atomic.Uint64 // executions that succeed without a word
	forgotten, resolved            atomic.Uint64 // by operators
	events                         [idemflight.EventUnannounced + 1]atomic.Uint64
	running, traced                atomic.Int64 // executions, and what Trace was told of them
	closing                        atomic.Bool
	quiet                          atomic.Bool // the Observer does not call back any more
}

// work is what one client does: n steps, each with the cache that pick names.
func (d *driver[K]) work(pick func(*rand.Rand) *life[K], client, n int, r *rand.Rand, out *sink) {
	last := 0
	for range n {
		if d.stop.Load() {
			return
		}
		p, what := d.drawPlan(r, last), r.IntN(1000)
		last = p.key
		l := pick(r)
		switch {
		case what < 10:
			d.forget(l, p.key, client, out)
		case what < 20:
			d.resolve(l, p, client, out)
		case what < 40:
			d.lookup(l, p.key, client, out)
		case what < 50 && d.Reconciles:
			d.ask(l, p, client, out)
		case what == 50:
			n := 0
			for range l.c.All() {
				if n++; n == 10 {
					break
				}
			}
		default:
			d.call(context.Background(), l, p, client, out)
		}
	}
}

func (d *driver[K]) forget(l *life[K], key, client int, out *sink) {
	slot, began := d.enter(client)
	ok, err := l.c.Forget(d.key(key))
	d.leave(slot)
	if err != nil {
		d.refused("Forget", err)
	}
	if ok {
		l.forgotten.Add(1)
	}
	out.add(op{Kind: interval.Forgot, Key: key, Client: client, Call: began, Ret: d.now(), OK: ok})
}

func (d *driver[K]) resolve(l *life[K], p plan, client int, out *sink) {
	o := op{Kind: interval.Resolved, Key: p.key, Client: client, ID: int(d.ids.Add(1)), Releases: p.inline}
	var err error
	if o.Releases {
		err = idemflight.Retryable(&failure{id: o.ID})
	}
	v := &value{id: o.ID}
	if p.watched {
		d.watch(v, nil)
	}
	var slot int
	slot, o.Call = d.enter(client)
	err = l.c.Resolve(d.key(p.key), v, err)
	d.leave(slot)
	o.Ret = d.now()
	switch o.OK = err == nil; {
	case o.OK:
		l.resolved.Add(1)
	case errors.Is(err, idemflight.ErrClaimLost) && d.books != nil && d.books.mayBeLost(p.key):
		o.OK = true // it released the key, the answer was lost, and others have claimed the key since
	case !errors.Is(err, idemflight.ErrNotHeld):
		o.OK, o.Ret = d.refused("Resolve", err), interval.Never // perhaps: the store may have heard of it, or may not
	}
	out.add(o)
}

// ask has an operator ask Reconcile.
func (d *driver[K]) ask(l *life[K], p plan, client int, out *sink) {
	p.dead, p.ttl, p.byHand = false, -1, true
	x := &execution{plan: p}
	ctx, cancel := leaving(context.WithValue(context.Background(), executionKey{}, x), p)
	defer cancel()
	slot, began := d.enter(client)
	o := op{Key: p.key, Client: client, Call: began, ByHand: true}
	x.run, x.found = o, o
	e, err := l.c.Reconcile(ctx, d.key(p.key))
	d.leave(slot)
	switch {
	// If there was no effect, another call may have run and left the key held before the entry was read.
	case err == nil, errors.Is(err, idemflight.ErrOutcomeUnknown):
	case errors.Is(err, idemflight.ErrCallerLeft):
		if p.leaves == 0 || !errors.Is(err, ctx.Err()) || !errors.Is(err, context.Cause(ctx)) {
			d.violation("an operator left, whose context does not say so: %v", err)
		}
		out.addExecution(x) // it may still run
		return
	case errors.Is(err, idemflight.ErrNotHeld), errors.Is(err, idemflight.ErrClosed) && l.closing.Load():
	case errors.Is(err, idemflight.ErrFull) && d.books != nil && d.mayBeFull():
	case errors.Is(err, idemflight.ErrStore) && d.books != nil && p.leaves > 0 && errors.Is(err, ctx.Err()): // read on his behalf
	default:
		d.refused(fmt.Sprintf("Cache.Reconcile: %+v", e), err)
	}
	if x.found.Start != 0 {
		x.over.Store(d.now())
		out.addExecution(x)
		d.saw("an operator asks Reconcile")
	}
}

func (d *driver[K]) lookup(l *life[K], key, client int, out *sink) {
	o := op{Key: key, Client: client}
	var slot int
	slot, o.Call = d.enter(client)
	e, ok, err := l.c.Lookup(d.key(key))
	d.leave(slot)
	o.Ret = d.now()
	if err != nil {
		d.refused("Lookup", err)
	}
	if !ok || err != nil {
		return
	}
	o.ID = d.idOf(e.Value, e.Err)
	switch e.State {
	case idemflight.InFlight:
		if d.books != nil { // perhaps with an operator's claim, under which nothing runs
			return
		}
		if d.MaxWaiters > 0 && e.Waiters > d.MaxWaiters {
			d.violation("%d callers have joined a flight, and MaxWaiters is %d", e.Waiters, d.MaxWaiters)
		}
		o.Kind = interval.InFlight
	case idemflight.Retained:
		o.Kind = interval.Replayed
	case idemflight.Held:
		o.Kind = interval.MetHeld
	case idemflight.Shed:
		if o.Kind, o.ID = interval.MetShed, 0; d.books != nil {
			d.violation("with a Store nothing is shed, and Lookup answers %+v", e)
		}
	default:
		d.violation("Lookup answers %+v", e)
	}
	out.add(o)
}

// idOf returns the id of the execution that an outcome tells of, or 0.
func (d *driver[K]) idOf(v *value, err error) int {
	f := failureOf(err)
	switch {
	case v == nil && f == nil:
		return 0
	case v == nil:
		return f.id
	case f != nil && f.id != v.id:
		d.violation("the value is of execution %d, and the error of %d: %v", v.id, f.id, err)
	}
	return v.id
}

// refused judges the error of an operator's verb, which only a Store that cannot be asked explains. It
// reports whether it does.
func (d *driver[K]) refused(what string, err error) bool {
	if !d.unreachable() || !errors.Is(err, idemflight.ErrStore) && !errors.Is(err, idemflight.ErrClaimLost) {
		d.violation("%s: an error that it cannot get: %v", what, err)
		return false
	}
	d.saw("an operator cannot ask the store")
	return true
}

// unreachable reports whether some process may have found that the store cannot be asked: an outage was
// planned, or the engine is that slow.
func (d *driver[K]) unreachable() bool {
	return d.books != nil && (d.Outage || d.books.stalled.Load())
}

// mayBeFull reports whether there are fewer places than keys.
func (m mix) mayBeFull() bool { return m.MaxEntries > 0 && m.MaxEntries < m.Keys+extraKeys }

// call makes one call, and judges its answer.
func (d *driver[K]) call(parent context.Context, l *life[K], p plan, client int, out *sink) {
	if p.fate != exits && p.fate != exitsBefore {
		d.callHere(parent, l, p, client, out)
		return
	}
	var wg sync.WaitGroup // fn may run on this goroutine, and end it
	wg.Go(func() { d.callHere(parent, l, p, client, out) })
	wg.Wait()
}

func (d *driver[K]) callHere(parent context.Context, l *life[K], p plan, client int, out *sink) {
	key := d.key(p.key)
	if p.invalid = p.invalid && len(d.invalid) > 0; p.invalid {
		key = d.invalid[p.size%len(d.invalid)]
	}
	x := &execution{plan: p}
	ctx, cancel := leaving(context.WithValue(parent, executionKey{}, x), p)
	defer cancel()
	var captured *token
	if p.watched {
		captured = &token{}
		d.watch(nil, captured)
	}
	fn := func(ctx context.Context) (*value, error) {
		if captured != nil {
			captured.bytes[0]++
		}
		return d.execute(ctx, l, x)
	}

	slot, began := d.enter(client)
	o := op{Key: p.key, Client: client, Call: began, Payload: p.payload}
	x.run, x.found = o, o
	var res result
	var err error
	returned := false
	defer func() {
		o.Ret = d.now()
		d.leave(slot)
		d.calls.Add(1)
		l.calls.Add(1)
		switch panicked := recover(); {
		case returned:
			d.judge(ctx, l, x, o, res, err, out)
		case panicked == nil && (p.fate == exits || p.fate == exitsBefore) && x.run.Start != 0:
			d.saw("fn's Goexit ends its leader")
			d.executed(x, o, x.run.ID, out)
		case isPanicError(panicked) && (p.fate == panics || p.fate == panicsBefore) && x.run.Start != 0:
			d.saw("the leader panics")
			d.executed(x, o, d.idOf(nil, panicked.(error)), out)
		default:
			d.violation("a call ended by panic or Goexit that was not its fn's: %v", panicked)
		}
	}()
	res, err = l.c.call(ctx, p.way, key, fn, p.options()...)
	returned = true
}

func isPanicError(v any) bool {
	_, ok := v.(*idemflight.PanicError)
	return ok
}

// asItIs reports whether err may come from fn as it is, or as the store has it.
func (d *driver[K]) asItIs(err error) bool {
	switch err.(type) {
	case *failure, *idemflight.PanicError:
		return true
	case *idemflight.StoredError:
		return d.books != nil
	}
	return errors.Is(err, idemflight.ErrGoexit)
}

// errLeaves is the cause with which some contexts end.
var errLeaves = errors.New("the caller has had enough")

// leaving returns the context of a call.
func leaving(ctx context.Context, p plan) (context.Context, context.CancelFunc) {
	switch {
	case p.dead:
		ctx, cancel := context.WithCancelCause(ctx)
		cancel(errLeaves)
		return ctx, func() {}
	case p.leaves > 0:
		return context.WithTimeoutCause(ctx, p.leaves, errLeaves)
	}
	return ctx, func() {}
}

// options are those of the call.
func (p plan) options() []idemflight.CallOption {
	opts := make([]idemflight.CallOption, 0, 4)
	if p.payload > 1 {
		opts = append(opts, idemflight.WithFingerprint(idemflight.Fingerprint{p.payload}))
	}
	if p.ttl >= 0 {
		opts = append(opts, idemflight.WithTTL(p.ttl))
	}
	if p.waits {
		opts = append(opts, idemflight.WithMaxWait(p.maxWait))
	}
	if p.inline {
		opts = append(opts, idemflight.Inline())
	}
	return opts
}

// executed records that the call x led a flight whose outcome is of execution id.
func (d *driver[K]) executed(x *execution, o op, id int, out *sink) {
	if x.run.Start == 0 || id != 0 && id != x.run.ID {
		d.violation("a call says that it ran fn, and got the outcome of execution %d, not its own, %d", id, x.run.ID)
		return
	}
	x.over.Store(o.Ret)
	out.addExecution(x)
}

// judge says whether the answer of a call is one that it could get, and records it.
func (d *driver[K]) judge(ctx context.Context, l *life[K], x *execution, o op, res result, err error, out *sink) {
	p, told := x.plan, x.plan.way == byDoResult
	if d.books != nil {
		defer func() { // led a flight, and then looked again
			if !x.added && (x.run.Start != 0 || x.found.Start != 0) {
				x.over.Store(o.Ret)
				out.addExecution(x)
			}
		}()
	}
	bad := func(why string) {
		d.violation("%s: %+v, source %v, error %v", why, p, res.Source, err)
	}
	reject := func(kind interval.Kind, legal bool) {
		if !legal {
			bad("an error that its options do not allow")
		}
		if res.Source != 0 || res.Value != nil && kind != interval.MetHeld {
			bad("an outcome and a refusal at once")
		}
		if x.run.Start != 0 {
			bad("refused, and fn ran")
		}
		if o.Kind = kind; kind != interval.Reused || d.books == nil { // there the other may have left before its fn ran
			out.add(o)
		}
		if x.found.Start != 0 { // led the flight of a Reconcile that learned nothing
			x.over.Store(o.Ret)
			out.addExecution(x)
		}
	}
	if p.invalid {
		if !errors.Is(err, idemflight.ErrInvalidKey) {
			bad("an invalid key is let pass")
		}
		return
	}
	unknown := errors.Is(err, idemflight.ErrOutcomeUnknown)
	switch o.ID = d.idOf(res.Value, err); {
	case unknown: // wraps any error
	case errors.Is(err, idemflight.ErrCallerLeft):
		if p.leaves == 0 && !p.dead || !errors.Is(err, ctx.Err()) || !errors.Is(err, context.Cause(ctx)) {
			bad("left, and its context does not say so")
		}
		out.addExecution(x) // fn may run, or have run
		return
	case errors.Is(err, idemflight.ErrKeyReused):
		reject(interval.Reused, d.Payloads > 1)
		return
	case errors.Is(err, idemflight.ErrInFlight) && p.waits && (d.Reconciles || d.books != nil):
		if res.Source != 0 || res.Value != nil {
			bad("an outcome and a refusal at once")
		}
		if o.Kind = interval.InFlight; d.books == nil { // or a flight may only have asked the store
			out.add(o)
		}
		out.addExecution(x) // it may lead the flight of a Reconcile
		return
	case errors.Is(err, idemflight.ErrInFlight):
		if d.books != nil && d.MaxWaiters > 0 {
			return
		}
		reject(interval.InFlight, p.waits || d.MaxWaiters > 0)
		return
	case errors.Is(err, idemflight.ErrValueShed):
		reject(interval.MetShed, d.MaxWeight > 0 && d.books == nil)
		return
	case errors.Is(err, idemflight.ErrFull):
		reject(interval.Full, d.mayBeFull())
		return
	case errors.Is(err, idemflight.ErrClosed):
		reject(interval.Full, l.closing.Load())
		return
	case errors.Is(err, idemflight.ErrStore):
		reject(interval.Full, d.unreachable())
		return
	}
	lost, unrecorded := errors.Is(err, idemflight.ErrClaimLost), unknown && errors.Is(err, idemflight.ErrStore)
	if lost && (d.books == nil || !d.books.mayBeLost(p.key)) || unrecorded && !d.unreachable() {
		bad("no lease has ended, and the store could be asked")
	}
	if (lost || unrecorded) && x.run.Start == 0 { // the store may know better
		return
	}
	if errors.Is(err, idemflight.ErrInterrupted) {
		d.saw("ErrInterrupted")
	}
	if !unknown && err == nil && res.Value == nil {
		bad("neither value nor error")
	}
	if err != nil && !unknown && !d.asItIs(err) {
		bad("fn's error does not come back as it is")
	}
	source := res.Source
	if !told { // what can be told from fn having run
		switch {
		case x.run.Start != 0:
			source = idemflight.Executed
		case x.found.Start != 0 && !unknown:
			source = idemflight.Reconciled
		}
	}
	switch source {
	case idemflight.Executed:
		d.executed(x, o, o.ID, out)
	case idemflight.Reconciled:
		if o.ID != x.found.ID {
			bad(fmt.Sprintf("reconciled, and not with what Reconcile %d found", x.found.ID))
		}
		x.over.Store(o.Ret)
		out.addExecution(x)
	case idemflight.Joined:
		if isPanicError(err) {
			d.saw("a joined caller gets *PanicError")
		} else if errors.Is(err, idemflight.ErrGoexit) {
			d.saw("a joined caller gets ErrGoexit")
		}
		o.Kind = interval.Joined
		if d.books != nil { // the outcome of another process, or what was kept when its flight asked the store
			o.Kind, o.Either, o.Call = interval.Replayed, true, o.Call-flightAsks
		}
		out.add(o)
	case idemflight.Replayed:
		if told && (!res.ExpiresAt.After(res.CompletedAt) && d.books == nil || unknown) {
			bad("a replay that is none")
		}
		o.Kind = interval.Replayed
		out.add(o)
	default:
		if d.books != nil {
			o.Call -= flightAsks
		}
		switch o.Either = !told; {
		case unknown:
			reject(interval.MetHeld, true)
		case told:
			bad("an outcome without source")
		default:
			o.Kind = interval.Replayed
			out.add(o)
		}
	}
}
