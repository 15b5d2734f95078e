package soak

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/verify/internal/interval"
)

// options are those of the cache of l, and its hooks.
func (d *driver[K]) options(l *life[K]) idemflight.Options[K, *value] {
	o := idemflight.Options[K, *value]{
		TTL: d.TTL, HoldTTL: d.HoldTTL, MaxEntries: d.MaxEntries, MinRetention: d.MinRetention, MaxWeight: d.MaxWeight,
		ExecTimeout: d.ExecTimeout, MaxWaiters: d.MaxWaiters, Observer: d.observer(l), EffectsAnnounced: d.Announced,
	}
	if d.Traces {
		o.Trace = func(ctx context.Context, key K, _ bool) (context.Context, idemflight.Origin, func(idemflight.Event[K])) {
			n := l.traced.Add(1)
			return ctx, idemflight.Origin{TraceID: [16]byte{1, byte(d.num(key))}, SpanID: [8]byte{1, byte(n)}}, func(idemflight.Event[K]) { l.traced.Add(-1) }
		}
	}
	if d.MaxWeight > 0 {
		o.Weigh = func(_ K, v *value) int64 {
			switch {
			case v == nil:
				return 0
			case d.HooksPanic && v.id%1013 == 0:
				l.broken.Add(1)
				panic("Weigh")
			case v.id%101 == 0:
				return -1 // counts as 0
			}
			return int64(len(v.pad))
		}
	}
	if d.Classifies {
		o.Classify = func(err error) idemflight.Disposition {
			f := (*failure)(nil)
			if isPanicError(err) || !errors.As(err, &f) {
				return idemflight.Hold
			}
			if f.inHook {
				l.broken.Add(1)
				panic("Classify")
			}
			return f.becomes
		}
	}
	if d.Reconciles {
		o.Reconcile = func(ctx context.Context, key K, held idemflight.Entry[*value]) (*value, error) {
			return d.reconcile(ctx, l, d.num(key), held)
		}
	}
	return o
}

// observer counts events, records evictions and the end of flights whose leader, or operator, has left,
// and calls the cache now and then.
func (d *driver[K]) observer(l *life[K]) func(context.Context, idemflight.Event[K]) {
	return func(ctx context.Context, e idemflight.Event[K]) {
		ret := d.now()
		n, key := l.events[e.Kind].Add(1), d.num(e.Key)
		switch e.Kind {
		case idemflight.EventFinished, idemflight.EventResolved:
			if x, ok := ctx.Value(executionKey{}).(*execution); ok {
				x.over.CompareAndSwap(0, ret)
			}
		case idemflight.EventEvicted:
			if d.books != nil { // a copy
				break
			}
			d.shared.add(evicted(key, min(ret, d.earliest()), ret, e.Err))
		}
		if d.CallsBack && n%61 == 0 && key > 0 && key <= d.Keys+nestedKeys && !l.quiet.Load() {
			d.callBack(l, key, int(n/61))
		}
		if d.HooksPanic && n%509 == 0 {
			l.broken.Add(1)
			panic("Observer")
		}
	}
}

// evicted is an eviction, of which the event has that error.
func evicted(key int, from, to int64, err error) op {
	o := op{Kind: interval.Evicted, Key: key, Client: -1, Call: from, Ret: to, State: idemflight.Retained}
	if errors.Is(err, idemflight.ErrOutcomeUnknown) {
		o.State = idemflight.Held
	}
	return o
}

func (d *driver[K]) callBack(l *life[K], key, n int) {
	switch n % 4 {
	case 0:
		d.lookup(l, key, n&0xFF, d.shared)
	case 1:
		d.forget(l, key, n&0xFF, d.shared)
	case 2:
		l.c.Stats()
	case 3:
		d.call(context.Background(), l, plan{key: d.Keys + observerKey + n/4%4, ttl: -1, payload: 1}, n, d.shared)
	}
}

// begin notes that an execution begins. The func that it returns must be deferred: it notes the end.
func (d *driver[K]) begin(l *life[K], x *execution, e *op, reconciles bool) (id int, end func()) {
	switch {
	case e.Start == 0:
	case d.books != nil && d.books.hasLapsed(x.plan.key): // it has looked again
		again := *e
		again.Ret = d.now()
		d.shared.add(again)
	default:
		d.violation("one call ran fn, or Reconcile, twice: %+v", x.plan)
	}
	if d.books != nil && !d.books.owns(x) {
		d.violation("an execution has no claim: %+v", x.plan)
	}
	e.Start = d.now()
	id = int(d.ids.Add(1))
	e.Kind, e.ID, e.Keeps, e.Reconciles = interval.Ran, id, int64(d.TTL), reconciles
	if x.plan.ttl > 0 || x.plan.ttl == 0 && !reconciles {
		e.Keeps = int64(x.plan.ttl)
	}
	if x.plan.dead {
		d.violation("an execution was started for a context that had ended: %+v", x.plan)
	}
	if n := l.running.Add(1); d.MaxEntries > 0 && n > int64(d.MaxEntries) {
		d.violation("%d executions at once, and MaxEntries is %d", n, d.MaxEntries)
	}
	d.executions.Add(1)
	return id, func() {
		e.End = d.now()
		e.Charged = !reconciles && e.Becomes != idemflight.Release && (x.began || !d.Announced)
		l.running.Add(-1)
		l.ended.Add(1)
	}
}

// execute is fn.
func (d *driver[K]) execute(ctx context.Context, l *life[K], x *execution) (*value, error) {
	p, e := x.plan, &x.run
	id, end := d.begin(l, x, e, false)
	defer end()
	if ctx.Value(executionKey{}) != x {
		d.violation("fn's context does not carry its leader's values: %+v", p)
	}
	if p.dies == beforeBegin {
		d.looksDead(x)
	}
	if p.lingers != nil {
		<-p.lingers
	}
	if p.pause < time.Microsecond {
		for range p.pause {
			runtime.Gosched()
		}
	} else {
		time.Sleep(p.pause)
	}
	if p.reenter {
		v, err := l.c.call(ctx, p.way, d.key(p.key), func(context.Context) (*value, error) {
			d.violation("a re-entrant call ran its fn")
			return nil, nil
		})
		l.calls.Add(1)
		d.calls.Add(1)
		if !errors.Is(err, idemflight.ErrReentrant) || v.Value != nil {
			d.violation("a re-entrant call got %+v, %v", v, err)
		}
	}
	if p.nested > 0 {
		d.call(ctx, l, plan{key: p.key + p.nested, ttl: -1, way: p.way, payload: 1, leaves: time.Millisecond, pause: p.pause}, id, d.shared)
	}
	v := &value{id: id, pad: make([]byte, p.size)}
	if p.watched {
		d.watch(v, nil)
	}
	return v, d.fail(ctx, l, x)
}

// fail ends an execution as planned, and says in e what must become of its outcome.
func (d *driver[K]) fail(ctx context.Context, l *life[K], x *execution) error {
	p, e := x.plan, &x.run
	f := &failure{id: e.ID}
	silent := func(want idemflight.Disposition) error { // fn has said nothing of its effect
		switch f.becomes = want; {
		case d.Announced:
			e.Becomes = idemflight.Release
		case d.Classifies:
			e.Becomes, e.Spare = want, want == idemflight.Hold
		default:
			e.Becomes, e.Spare = idemflight.Hold, true
		}
		return f
	}
	e.Becomes = idemflight.Release
	switch p.fate {
	case succeeds:
		if d.Announced && d.books != nil && !d.mayBegin(ctx, x) {
			break
		}
		e.Becomes = idemflight.Retain
		switch { // with or without a word
		case d.Announced && d.books != nil:
		case e.ID%2 == 0:
			idemflight.NoEffect(ctx)
		case d.Announced:
			l.unannounced.Add(1)
		}
		return nil
	case final:
		e.Becomes = idemflight.Retain
		return idemflight.Final(f)
	case retryable:
		return idemflight.Retryable(f)
	case unknown:
		e.Becomes = idemflight.Hold
		return idemflight.Unknown(f)
	case mixed:
		e.Becomes = idemflight.Hold
		return errors.Join(idemflight.Final(f), idemflight.Unknown(f))
	case plain:
		return silent(idemflight.Release)
	case plainHolds:
		return silent(idemflight.Hold)
	case plainRetains:
		return silent(idemflight.Retain)
	case breaksClassify:
		if f.inHook = d.Classifies && d.HooksPanic; f.inHook {
			return silent(idemflight.Hold)
		}
		return silent(idemflight.Release)
	case begun, undone, saidTwice:
		if p.fate == saidTwice { // nothing has begun yet, which takes back nothing later
			idemflight.NoEffect(ctx)
		}
		if d.mayBegin(ctx, x) {
			e.Becomes = idemflight.Hold
			switch p.fate {
			case undone:
				idemflight.NoEffect(ctx)
				e.Becomes = idemflight.Release
			case saidTwice:
				if d.mayBegin(ctx, x) { // of two effects, one is taken back, twice
					idemflight.NoEffect(ctx)
					idemflight.NoEffect(ctx)
				}
			}
		}
	case panics, panicsBefore, exits, exitsBefore:
		if p.fate == panicsBefore || p.fate == exitsBefore {
			idemflight.NoEffect(ctx)
		} else {
			_ = silent(idemflight.Hold) // as Classify has it
		}
		l.panicked.Add(1)
		if p.fate == exits || p.fate == exitsBefore {
			runtime.Goexit()
		}
		panic(f)
	case timesOut:
		if d.ExecTimeout <= 0 || d.ExecTimeout > time.Second {
			return silent(idemflight.Release)
		}
		<-ctx.Done()
		if e.ID%2 == 0 {
			if idemflight.BeginEffect(ctx) == nil {
				d.violation("an effect may begin after ExecTimeout")
			}
			break // the refusal says that nothing has begun
		}
		f.cause = ctx.Err()
		return silent(idemflight.Release)
	}
	return f
}

// mayBegin is BeginEffect.
func (d *driver[K]) mayBegin(ctx context.Context, x *execution) bool {
	err := idemflight.BeginEffect(ctx)
	late := d.ExecTimeout > 0 && errors.Is(err, context.DeadlineExceeded)
	if err != nil && !late && (d.books == nil || !d.mayRefuse(err, x.plan.key)) {
		d.violation("BeginEffect refuses: %v", err)
	}
	x.began = x.began || err == nil
	if x.began && x.plan.dies == afterBegin {
		d.looksDead(x)
	}
	return err == nil
}

// reconcile is Options.Reconcile. What it finds was planned by the call that asks.
func (d *driver[K]) reconcile(ctx context.Context, l *life[K], key int, held idemflight.Entry[*value]) (*value, error) {
	x, ok := ctx.Value(executionKey{}).(*execution)
	if !ok || x.plan.key != key {
		d.violation("Reconcile's context does not carry the values of the call that asks")
		return nil, idemflight.Unknown(&failure{})
	}
	e := &x.found
	id, end := d.begin(l, x, e, true)
	defer end()
	if held.State != idemflight.Held || held.Value != nil {
		d.violation("Reconcile is shown an entry that is not held: %+v", held)
	}
	f := &failure{id: id}
	switch e.Becomes = idemflight.Hold; x.plan.finds {
	case succeeds:
		e.Becomes = idemflight.Retain
		return &value{id: id}, nil
	case final:
		e.Becomes = idemflight.Retain
		return &value{id: id}, idemflight.Final(f)
	case retryable:
		e.Becomes = idemflight.Release
		return nil, idemflight.Retryable(f)
	case unknown:
		return nil, idemflight.Unknown(f)
	case panics:
		l.panicked.Add(1)
		panic(f)
	case exits:
		l.panicked.Add(1)
		runtime.Goexit()
	}
	return nil, f
}
