package model

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/idemflight/idemflight"
)

type (
	options = idemflight.Options[string, int]
	event   = idemflight.Event[string]
	result  = idemflight.Result[int]
	fnOf    = func(context.Context) (int, error)
)

// target is what is checked: the cache itself, or one with a planted fault.
type target interface {
	do(ctx context.Context, c *call, way way, fn fnOf) (result, error)
	Lookup(ctx context.Context, key string) (idemflight.Entry[int], bool, error)
	All() iter.Seq2[string, idemflight.Entry[int]]
	Unsettled(ctx context.Context, each func(string, idemflight.Entry[int]) bool) error
	Forget(ctx context.Context, key string) (bool, error)
	Resolve(ctx context.Context, key string, value int, err error) error
	Reconcile(ctx context.Context, key string) (idemflight.Entry[int], error)
	Restore(ctx context.Context, key string, e idemflight.Entry[int]) error
	Save(w io.Writer) error
	Load(ctx context.Context, r io.Reader) (idemflight.LoadReport, error)
	Len() int
	Stats() idemflight.Stats
	Close(ctx context.Context) error
}

// way is how a call is made.
type way int

const (
	viaDoResult way = iota
	viaDo
	viaWrap
)

// cache is the target that is the cache itself.
type cache struct {
	*idemflight.Cache[string, int]
}

func newCache(o options) target { return cache{idemflight.MustNew(o)} }

func (c cache) do(ctx context.Context, k *call, way way, fn fnOf) (res result, err error) {
	var opts []idemflight.CallOption
	if k.fp != (idemflight.Fingerprint{}) && way != viaWrap {
		opts = append(opts, idemflight.WithFingerprint(k.fp))
	}
	if k.inline {
		opts = append(opts, idemflight.Inline())
	}
	if k.ttl != nil {
		opts = append(opts, idemflight.WithTTL(*k.ttl))
	}
	if k.maxWait != nil {
		opts = append(opts, idemflight.WithMaxWait(*k.maxWait))
	}
	switch way {
	case viaDoResult:
		return c.DoResult(ctx, k.key, fn, opts...)
	case viaDo:
		res.Value, err = c.Do(ctx, k.key, fn, opts...)
	case viaWrap:
		wrapped := idemflight.Wrap(c.Cache,
			func(k *call) (string, idemflight.Fingerprint, error) { return k.key, k.fp, nil },
			func(ctx context.Context, _ *call) (int, error) { return fn(ctx) }, opts...)
		res.Value, err = wrapped(ctx, k)
	}
	return res, err
}

// driver runs one program against a target and the reference.
type driver struct {
	t    *rapid.T
	c    target
	ref  *reference
	quit chan struct{} // closed to let all that waits for the program go, once it has failed

	nextID int
	calls  []*caller // not yet found to have returned
	execs  []*execution
	ended  []*execution
	closes []*closing
	left   map[int]bool // calls that were seen to leave in this step

	fresh  func() target // makes the cache of the next process
	before []*reference  // of the processes before this one
	wrote  []string      // keys that the Codec has written, in order
	saved  *saved        // what was saved last

	mu     sync.Mutex // guards what follows, which the cache's goroutines write
	events []seen
	begun  []*execution
	byID   map[int]*call
}

type seen struct {
	ctx context.Context
	event
}

// caller is a call under way, of Do or of Cache.Reconcile, on a goroutine of its own.
type caller struct {
	*call
	way      way
	ctx      context.Context
	cancel   context.CancelCauseFunc
	returned atomic.Bool // read while it may be written
	res      result
	entry    idemflight.Entry[int] // of Cache.Reconcile
	err      error
	panicked any
	exited   bool
}

// execution is an execution under way.
type execution struct {
	*exec  // the reference's, once matched
	callID int
	held   *idemflight.Entry[int]
	ctx    context.Context
	gate   chan func() *ending
}

type closing struct {
	ctx      context.Context
	cancel   context.CancelCauseFunc
	endsAt   time.Time
	returned atomic.Bool // read while it may be written
	err      error
}

type callIDKey struct{}

func callID(ctx context.Context) int {
	id, ok := ctx.Value(callIDKey{}).(int)
	if !ok {
		return -1
	}
	return id
}

// run runs one program, drawn from t, against a target made by fresh, and returns where it and the
// reference disagree, and the references, one for each process, for what they have counted. It must be
// called in a bubble.
func run(t *rapid.T, fresh func(options) target) (counted []*reference, err error) {
	d := &driver{t: t, quit: make(chan struct{}), byID: map[int]*call{}}
	cfg := drawConfig(t)
	d.ref = newReference(cfg, time.Now())
	d.fresh = func() target { return fresh(d.options(cfg)) }
	d.c = d.fresh()
	defer func() {
		if r := recover(); r != nil {
			said, ok := r.(disagreement)
			d.abandon()
			if !ok {
				panic(r)
			}
			err = errors.New(string(said))
		}
	}()
	actions := map[string]func(*rapid.T){}
	for name, a := range map[string]struct {
		times int
		do    func(*rapid.T)
	}{
		"do": {6, d.doCall}, "finish": {4, d.doFinish}, "effect": {1, d.doEffect}, "cancel": {1, d.doCancel},
		"sleep": {4, d.doSleep}, "forget": {1, d.doForget}, "resolve": {1, d.doResolve}, "restore": {1, d.doRestore},
		"reconcile": {2, d.doReconcile}, "abandoned": {2, d.doAbandoned}, "nested": {1, d.doNested}, "look": {2, d.doLook}, "late": {1, d.doLate}, "scan": {1, d.doScan},
		"race": {1, d.doRace}, "misuse": {1, d.doMisuse}, "close": {1, d.doClose},
		"save": {1, d.doSave}, "load": {1, d.doLoad}, "restart": {1, d.doRestart},
	} {
		if name == "close" && !cfg.closes || name == "scan" && !cfg.scans {
			continue
		}
		for i := range a.times {
			actions[fmt.Sprintf("%s %d", name, i)] = a.do
		}
	}
	t.Repeat(actions)
	d.finale()
	return append(d.before, d.ref), nil
}

func (d *driver) options(cfg config) options {
	o := options{
		TTL: cfg.ttl, HoldTTL: cfg.holdTTL, MaxEntries: cfg.maxEntries, MinRetention: cfg.protect, MaxWeight: cfg.maxWeight,
		ExecTimeout: cfg.execTimeout, MaxWaiters: cfg.maxWaiters, EffectsAnnounced: cfg.announced, Observer: d.observe,
		Codec: d.codec(),
	}
	if cfg.defaultHold {
		o.HoldTTL = 0
	}
	if cfg.maxWeight > 0 {
		o.Weigh = func(_ string, value int) int64 {
			w, panics := weightOf(value)
			if panics {
				panic("Weigh")
			}
			return w
		}
	}
	switch cfg.classify {
	case lenient:
		o.Classify = idemflight.ClassifyLenient
	case custom:
		o.Classify = customClassify
	}
	if cfg.reconcile {
		o.Reconcile = func(ctx context.Context, key string, held idemflight.Entry[int]) (int, error) {
			return d.enter(ctx, &held)
		}
	}
	return o
}

func (d *driver) observe(ctx context.Context, e event) {
	d.mu.Lock()
	d.events = append(d.events, seen{ctx, e})
	d.mu.Unlock()
	if e.Kind == d.ref.observerPanics {
		panic("Observer")
	}
}

// enter is fn, and Reconcile: it does what the call says, or what the program will say.
func (d *driver) enter(ctx context.Context, held *idemflight.Entry[int]) (int, error) {
	r := &execution{callID: callID(ctx), held: held, ctx: ctx, gate: make(chan func() *ending)}
	d.mu.Lock()
	d.begun = append(d.begun, r)
	d.mu.Unlock()
	var how *ending
	if c := d.callOf(r.callID); c != nil {
		how = c.fn
		if held != nil {
			how = c.reconcile
		}
	}
	for how == nil {
		select {
		case do := <-r.gate:
			how = do()
		case <-d.quit:
			return 0, nil
		}
	}
	for _, what := range how.effects {
		if what == begin {
			_ = idemflight.BeginEffect(ctx)
		} else {
			idemflight.NoEffect(ctx)
		}
	}
	switch {
	case how.panics != nil:
		panic(how.panics)
	case how.goexit:
		goexit()
	case how.err != nil:
		return how.value, how.err.err
	}
	return how.value, nil
}

// abandon lets everything go after a disagreement.
func (d *driver) abandon() {
	close(d.quit)
	for _, c := range d.calls {
		c.cancel(nil)
	}
	for _, c := range d.closes {
		c.cancel(nil)
	}
}

// step does something to the cache, waits until nothing moves, has the reference do the same, and
// compares what came of it.
func (d *driver) step(act, reference func()) {
	act()
	synctest.Wait()
	d.compare(reference)
}

func (d *driver) compare(reference func()) {
	d.mu.Lock()
	events, begun := d.events, d.begun
	d.events, d.begun = nil, nil
	d.mu.Unlock()

	obs := &observed{failed: map[*call]error{}, flown: map[int]bool{}, weighed: map[string]bool{}, gone: func(key string) bool {
		e, ok := d.lookup(key)
		return !ok || e.State == idemflight.InFlight
	}}
	for _, c := range d.calls {
		if c.returned.Load() {
			obs.failed[c.call] = c.err
		}
	}
	for _, r := range begun {
		if r.held == nil {
			obs.flown[r.callID] = true
		}
	}
	callEvents, besides := map[int][]seen{}, []seen{}
	panicked := map[string]int{}
	hookPanics := uint64(0)
	for _, e := range events {
		if e.Kind == d.ref.observerPanics {
			hookPanics++
		}
		switch e.Kind {
		case idemflight.EventEvicted:
			if e.Err != nil && e.Err != idemflight.ErrOutcomeUnknown {
				disagree("EventEvicted with error %v", e.Err)
			}
			if evicted := (eviction{e.Key, e.Err != nil}); !d.ref.toldEvicted(evicted, obs.failed) {
				obs.evicted = append(obs.evicted, evicted)
			}
		case idemflight.EventShed:
			obs.shed = append(obs.shed, e.Key)
		case idemflight.EventPanicked:
			panicked[e.Key]++
			if p := (*idemflight.PanicError)(nil); !errors.As(e.Err, &p) {
				disagree("EventPanicked with error %v", e.Err)
			}
		case idemflight.EventFinished, idemflight.EventForgotten, idemflight.EventResolved, idemflight.EventUnannounced:
			besides = append(besides, e)
			continue
		case idemflight.EventExpired:
		default:
			id := callID(e.ctx)
			callEvents[id] = append(callEvents[id], e)
			continue
		}
		if e.ctx != context.Background() {
			disagree("%v with a context other than Background", e.Kind)
		}
	}
	d.left = map[int]bool{}
	for id, events := range callEvents { // before fn began, if that was in this step
		d.left[id] = events[0].Kind == idemflight.EventCallerLeft && !obs.flown[id]
	}
	for key := range panicked {
		obs.weighed[key] = true
	}
	m := d.ref
	m.step(obs)
	m.stats.HookPanics += hookPanics
	m.advance(time.Now())
	for _, e := range events {
		if e.Kind == idemflight.EventExpired {
			m.told(e.Key, e.Err != nil)
			if e.Err != nil && e.Err != idemflight.ErrOutcomeUnknown {
				disagree("EventExpired with error %v", e.Err)
			}
		}
	}
	reference()
	m.rest()
	m.overdue()

	d.match(begun)
	d.compareCalls(callEvents)
	d.compareBesides(besides)
	if !maps.Equal(panicked, m.panicked) {
		disagree("EventPanicked by key: %v, want %v", panicked, m.panicked)
	}
	d.compareClosing()
}

// match finds the reference's execution of each that has begun, and checks what it was given.
func (d *driver) match(begun []*execution) {
	for _, r := range begun {
		c := d.callOf(r.callID)
		if c == nil {
			disagree("an execution with the values of no call")
		}
		if c.fn != nil && r.held == nil || c.reconcile != nil && r.held != nil {
			continue // ended already
		}
		i := slices.IndexFunc(d.ref.begun, func(e *exec) bool {
			return e.flight.leader.id == r.callID && e.reconciling == (r.held != nil)
		})
		if i < 0 {
			disagree("an execution of %q (Reconcile: %v) has begun that should not", c.key, r.held != nil)
		}
		r.exec = d.ref.begun[i]
		d.ref.begun = slices.Delete(d.ref.begun, i, i+1)
		if e := r.exec; e.reconciling {
			want := entry{idemflight.Entry[int]{
				State: idemflight.Held, Fingerprint: e.held.fp, StartedAt: e.held.started,
				CompletedAt: e.held.completed, ExpiresAt: e.held.deadline,
			}, e.held.err, e.held.anyCompleted}
			if wrong := want.wrong(*r.held); wrong != "" {
				disagree("Reconcile of %q was given the wrong entry: %s", c.key, wrong)
			}
		}
		if deadline, ok := r.ctx.Deadline(); ok == r.exec.deadline.IsZero() || !deadline.Equal(r.exec.deadline) {
			disagree("fn's context ends at %v, want %v", deadline, r.exec.deadline)
		}
		if err := r.ctx.Err(); err != nil {
			disagree("fn's context has ended with %v before fn began", err)
		}
		d.execs = append(d.execs, r)
	}
	if len(d.ref.begun) > 0 {
		disagree("no execution of %q has begun (Reconcile: %v)", d.ref.begun[0].flight.key, d.ref.begun[0].reconciling)
	}
}

func (d *driver) compareCalls(events map[int][]seen) {
	d.calls = slices.DeleteFunc(d.calls, func(c *caller) bool {
		a, told := d.ref.answers[c.call]
		switch {
		case told && !c.returned.Load():
			disagree("the call on %q has not returned, want %v", c.key, a.kind)
		case !told && c.returned.Load():
			disagree("the call on %q has returned %+v, %v, while it should wait", c.key, c.res, c.err)
		case !told:
			return false
		}
		if c.asks {
			c.checkAsked(a)
			return true
		}
		got := events[c.id]
		delete(events, c.id)
		if len(got) != 1 {
			disagree("the call on %q has %d events, want 1", c.key, len(got))
		}
		c.check(a, got[0])
		return true
	})
	for id, e := range events {
		disagree("%d events of call %d, which has not just returned: %v", len(e), id, e[0].Kind)
	}
}

// check compares how a call returned, and its event, with what they should be.
func (c *caller) check(a answer, e seen) {
	switch {
	case a.panics != nil:
		p, ok := c.panicked.(*idemflight.PanicError)
		if !ok || p.Value != a.panics.panicked || len(p.Stack) == 0 {
			disagree("the leader of %q did not panic with fn's value but with %v", c.key, c.panicked)
		}
	case a.exits != c.exited:
		disagree("the goroutine of the call on %q exited: %v, want %v", c.key, c.exited, a.exits)
	case c.panicked != nil:
		disagree("the call on %q panicked with %v", c.key, c.panicked)
	case !a.exits:
		if wrong := a.wrong(c.err); wrong != "" {
			disagree("the call on %q: %s", c.key, wrong)
		}
		want := result{Value: a.value, Source: a.source, CompletedAt: a.completed, ExpiresAt: a.expires}
		if c.way != viaDoResult {
			want = result{Value: a.value}
		}
		same := c.res.Value == want.Value && c.res.Source == want.Source && c.res.ExpiresAt.Equal(want.ExpiresAt) && c.res.CompletedAt.Equal(want.CompletedAt)
		if !same {
			disagree("the call on %q returned\n\t%+v, want\n\t%+v", c.key, c.res, want)
		}
		if e.Err != c.err {
			disagree("the event of the call on %q has error %v, the call %v", c.key, e.Err, c.err)
		}
	}
	a.compareEvent(c.key, e.event)
}

// checkAsked compares how a call of Cache.Reconcile returned with how it should.
func (c *caller) checkAsked(a answer) {
	switch {
	case c.panicked != nil || c.exited:
		disagree("Cache.Reconcile of %q panicked with %v, or exited", c.key, c.panicked)
	case a.wrong(c.err) != "":
		disagree("Cache.Reconcile of %q: %s", c.key, a.wrong(c.err))
	case a.entry(c.entry) != "":
		disagree("Cache.Reconcile of %q: %s", c.key, a.entry(c.entry))
	}
}

func (a answer) compareEvent(key string, e event) {
	if wrong := a.wrong(e.Err); wrong != "" {
		disagree("the event of the call on %q: %s", key, wrong)
	}
	if e.Kind != a.kind || e.Key != key || e.Took != a.took || e.Waiters != a.waiters || e.Disposition != a.disposition {
		disagree("the event of the call on %q is\n\t%+v, want\n\t%v, took %v, %d waiters, %v", key, e, a.kind, a.took, a.waiters, a.disposition)
	}
}

// compareBesides compares the events that are not those of calls that return.
func (d *driver) compareBesides(events []seen) {
	for _, want := range d.ref.besides {
		i := slices.IndexFunc(events, func(e seen) bool { return callID(e.ctx) == want.id && e.Kind == want.answer.kind })
		if i < 0 {
			disagree("no event %v for %q", want.answer.kind, want.key)
		}
		want.answer.compareEvent(want.key, events[i].event)
		events = slices.Delete(events, i, i+1)
	}
	if len(events) > 0 {
		disagree("event %v for %q, which is not due or has been told", events[0].Kind, events[0].Key)
	}
}

func (d *driver) compareClosing() {
	d.closes = slices.DeleteFunc(d.closes, func(c *closing) bool {
		flying := len(d.ref.flights) > 0
		switch {
		case !flying:
			if !c.returned.Load() || c.err != nil {
				disagree("Close with nothing in flight: returned %v with %v", c.returned.Load(), c.err)
			}
		case c.ctx.Err() != nil:
			if !c.returned.Load() || !errors.Is(c.err, context.Cause(c.ctx)) {
				disagree("Close with a context that has ended: returned %v with %v", c.returned.Load(), c.err)
			}
		case c.returned.Load():
			disagree("Close has returned %v while executions are in flight", c.err)
		default:
			return false
		}
		return true
	})
}

func (d *driver) callOf(id int) *call {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.byID[id]
}

// lookup is Lookup.
func (d *driver) lookup(key string) (idemflight.Entry[int], bool) {
	e, ok, err := d.c.Lookup(context.Background(), key)
	if err != nil {
		disagree("Lookup of %q fails: %v", key, err)
	}
	return e, ok
}
