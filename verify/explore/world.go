package explore

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/bits"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/yield"
)

// key is a key of the cache: what the scenario calls it (A, B, …), and a number that leads it to
// the shard that the scenario wants it in.
type key int

const (
	keyA key = iota
	keyB
	keyC
	maxKeys
	filler = roles - 1
)

const roles = 8

func (k key) role() key { return k % roles }

func (k key) String() string { return string(rune('A' + k.role())) }

type (
	cache   = idemflight.Cache[key, int]
	options = idemflight.Options[key, int]
	entry   = idemflight.Entry[int]
	event   = idemflight.Event[key]
)

// scenario is a small program whose schedules are explored.
type scenario struct {
	name string
	doc  string // one line for the table

	options func(o *options) // what differs from the world's
	keys    int              // how many it uses; 0 = 1
	spread  bool             // each key in a shard of its own; else all in one
	bucket  uint32           // how the hashes of the keys end, in its lowest four bits; 0 = anyhow

	prepare   func(w *world)    // before the schedule begins, without points
	reconcile *body             // of Options.Reconcile
	actors    []func(p *person) // the first is "a", the next "b", …
	clock     []time.Duration   // time that passes at any moment, in this order

	through string // a point that some schedule has to pass, or the scenario shows nothing

	timers  bool // the points of the reclaim timer count: where nothing is about expiry they only double the schedules
	settled bool // and so does the one after a flight has settled
	apart   bool // others may come in between fn's end and the settling of its flight: which nobody can tell but by time, effects and weight
	expect  func(w *world) error

	stored *stored // two processes that share a store: then only name, doc and through count besides
}

// callers returns how many actors sc has.
func (sc *scenario) callers() int {
	if sc.stored != nil {
		return len(sc.stored.actors)
	}
	return len(sc.actors)
}

// world is one schedule of a scenario.
type world struct {
	*scheduler
	sc    *scenario
	cache *cache
	opts  options
	keys  [maxKeys]key
	fills []key // others that are kept, and stay
	begun time.Time

	closing, closed int // the step at which the first Close began, and the one at which it returned nil; 0: not yet

	mu       sync.Mutex // guards what follows, since goroutines that were woken together run together
	wrong    error
	calls    []*call
	ops      []*op
	execs    []*execution
	upkeep   []event
	running  [maxKeys]*execution
	flights  [maxKeys]*flight
	pauses   [maxKeys]*pause
	people   map[string]*person
	finals   bool // the schedule is over: what is called now is not looked at
	shots    []shot
	counts   counts
	lastExec int
	base     idemflight.Stats // after prepare
}

// timerPoints are left out unless a scenario asks for them. ("reclaim" is not: a search for room comes there too.)
var timerPoints = []string{"arm", "disarm", "disarm: stop", "disarmed", "rearm", "fired"}

func (sc *scenario) ignored() map[string]bool {
	m := map[string]bool{"execute": true}
	if !sc.timers {
		for _, p := range timerPoints {
			m[p] = true
		}
	}
	if !sc.settled {
		m["settled"] = true
	}
	return m
}

// ran is what came of one schedule.
type ran struct {
	made          []choice
	interruptions int
	steps         int
	passed        bool
	wrong         error
}

// run runs one schedule of sc in a bubble of its own.
func (sc *scenario) run(t *testing.T, p plan, trace func(string, ...any)) (r ran) {
	if sc.stored != nil {
		return sc.stored.run(t, sc, p, trace)
	}
	synctest.Test(t, func(*testing.T) {
		w := newWorld(sc, trace)
		yield.Hook(w.park)
		defer yield.Hook(nil)
		if sc.prepare != nil {
			w.finals = true
			sc.prepare(w)
			w.base, w.upkeep, w.finals = w.cache.Stats(), nil, false
		}
		w.free = false
		for i, script := range sc.actors {
			name := string(rune('a' + i))
			who := w.person(name)
			w.spawn(name, true, func(t *thread) {
				who.thread = t
				script(who)
			})
		}
		var err error
		r.made, r.interruptions, err = w.drive(p, sc.clock, w.observe)
		r.steps, r.passed = w.step, w.passed || w.through == ""
		w.fail(err)
		if w.wrong == nil {
			w.free = true
			w.finish()
		}
		if w.wrong != nil {
			w.explain()
			if err != nil { // the bubble is about to fail for the stranded, and with it the process
				fmt.Printf("VIOLATION in %s: %v\nchoices: %s\n", sc.name, w.wrong, printChoices(r.made))
			}
			w.release()
			for _, p := range w.people {
				p.cancel()
			}
		}
		r.wrong = w.wrong
	})
	return r
}

func newWorld(sc *scenario, trace func(string, ...any)) *world {
	w := &world{
		scheduler: &scheduler{ignored: sc.ignored(), endsAtOnce: !sc.apart, through: sc.through, free: true, trace: trace, timers: thread{name: "timer"}},
		sc:        sc, begun: time.Now(), people: map[string]*person{},
	}
	w.opts = options{
		TTL: ttl, HoldTTL: ttl, MaxEntries: 4, MinRetention: -1, ExecTimeout: -1,
		Observer: w.told,
	}
	if sc.options != nil {
		sc.options(&w.opts)
	}
	if sc.reconcile != nil {
		w.opts.Reconcile = func(ctx context.Context, k key, held entry) (int, error) {
			c, _ := ctx.Value(callKey{}).(*call)
			return w.execute(ctx, k.role(), c, sc.reconcile, true)
		}
	}
	w.cache = idemflight.MustNew(w.opts)
	n := max(sc.keys, 1)
	shards, seed := layoutOf(w.cache)
	for i := range n {
		want := 0
		if sc.spread {
			want = i % shards
		}
		w.keys[i] = keyFor(key(i), 0, func(hash uint64) bool {
			return shardOf(hash, shards) == want && (sc.bucket == 0 || hash%16 == uint64(sc.bucket))
		}, seed)
	}
	return w
}

// layoutOf returns how many shards c has, and its seed. The scenarios say whether keys share a
// shard, and hashing is random in every cache: so the keys are chosen to fit.
func layoutOf(c *cache) (shards int, seed maphash.Seed) {
	v := reflect.ValueOf(c).Elem()
	return v.FieldByName("shards").Len(), *(*maphash.Seed)(unsafe.Pointer(v.FieldByName("seed").UnsafeAddr()))
}

func shardOf(hash uint64, shards int) int {
	i, _ := bits.Mul64(hash, uint64(shards))
	return int(i)
}

// shardInFlight returns the shard that has something in flight.
func shardInFlight(c *cache) int {
	return shardWhere(c, func(s reflect.Value) bool { return s.FieldByName("flights").FieldByName("len").Int() > 0 })
}

// shardWhere returns the first shard that is as wanted, or -1.
func shardWhere(c *cache, is func(shard reflect.Value) bool) int {
	shards := reflect.ValueOf(c).Elem().FieldByName("shards")
	for i := range shards.Len() {
		if is(shards.Index(i)) {
			return i
		}
	}
	return -1
}

// bucketsOf returns how many buckets the table of c's first shard has.
func bucketsOf(c *cache) int {
	table := reflect.ValueOf(c).Elem().FieldByName("shards").Index(0).FieldByName("kept").FieldByName("table")
	return int(uint32(table.FieldByName("size").FieldByName("v").Uint()))
}

// keyFor returns a key, after another, that plays role and whose hash fits.
func keyFor(role, after key, fits func(hash uint64) bool, seed maphash.Seed) key {
	for k := role + after - after%roles + roles; ; k += roles {
		if fits(maphash.Comparable(seed, k)) {
			return k
		}
	}
}

// grows fills the first shard with n outcomes before the schedule begins. They stay in their buckets
// while the table goes from an even number of those to an odd one, or back.
func (w *world) grows(n int) {
	shards, seed := layoutOf(w.cache)
	k := key(0)
	for i := range n {
		end := uint64(2 + 2*i%6)
		k = keyFor(filler, k, func(hash uint64) bool { return shardOf(hash, shards) == 0 && hash%8 == end }, seed)
		_, _ = w.cache.Do(context.Background(), k, func(context.Context) (int, error) { return 900, nil })
		w.fills = append(w.fills, k)
	}
}

// shrinks forgets all of those but n.
func (w *world) shrinks(n int) {
	for _, k := range w.fills[n:] {
		_, _ = w.cache.Forget(context.Background(), k)
	}
	w.fills = w.fills[:n]
}

// fail notes the first thing that went wrong.
func (w *world) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failLocked(err)
}

func (w *world) failLocked(err error) {
	if err != nil && w.wrong == nil && !w.finals {
		w.wrong = fmt.Errorf("after step %d: %w", w.step, err)
	}
}

// person is an actor: what it can do, and how it fares.
type person struct {
	w      *world
	name   string
	thread *thread
	ctx    context.Context
	cancel context.CancelFunc
	left   int // the step at which its context ended; 0: it has not
}

func (w *world) person(name string) *person {
	p := w.people[name]
	if p == nil {
		p = &person{w: w, name: name}
		p.ctx, p.cancel = context.WithCancel(context.Background())
		w.people[name] = p
	}
	return p
}

// op is something other than a call of Do that somebody does.
type op struct {
	by         *person
	thread     *thread
	kind       string // forget, resolve, reconcile, restore, close
	key        key
	start, end int // steps; end is 0 until it has had its effect
	did        bool
	to         idemflight.State // what the key becomes if it did
	err        error
	events     []event

	// Of reconcile: what it answered, and the flight that it began, if it did.
	got   entry
	flies *flight
}

type opKey struct{}

// ctx is the context that o gives to the library.
func (o *op) ctx(ctx context.Context) context.Context { return context.WithValue(ctx, opKey{}, o) }

func (w *world) begin(p *person, kind string, k key, to idemflight.State) *op {
	o := &op{by: p, kind: kind, key: k, to: to}
	if !w.free {
		o.thread = w.begins(kind + " " + k.String())
	}
	o.start = w.step
	w.mu.Lock()
	w.ops = append(w.ops, o)
	w.mu.Unlock()
	return o
}

func (o *op) over(w *world, did bool) {
	o.did = did
	if o.end == 0 {
		o.end = w.step
	}
	if w.trace != nil {
		w.trace("     %s %v: %v %v", o.kind, o.key, did, o.err)
	}
}

// leaves ends the context of who.
func (p *person) leaves(who string) {
	p.w.begins(who + " leaves")
	other := p.w.person(who)
	other.left = p.w.step
	other.cancel()
}

func (p *person) forgets(k key) {
	o := p.w.begin(p, "forget", k, 0)
	did, err := p.w.cache.Forget(o.ctx(context.Background()), p.w.keys[k])
	o.err = err
	o.over(p.w, did)
}

func (p *person) resolves(k key, err error) {
	to := idemflight.Retained
	if err != nil && idemflight.ClassifyLenient(err) == idemflight.Release {
		to = 0
	}
	o := p.w.begin(p, "resolve", k, to)
	o.err = p.w.cache.Resolve(o.ctx(context.Background()), p.w.keys[k], resolved, err)
	o.over(p.w, o.err == nil)
}

// reconciles calls Cache.Reconcile with the person's own context.
func (p *person) reconciles(k key) {
	o := p.w.begin(p, "reconcile", k, 0)
	o.got, o.err = p.w.cache.Reconcile(o.ctx(p.ctx), p.w.keys[k])
	o.over(p.w, o.err == nil)
}

// resolved and restored are values that no execution returned.
const (
	resolved = 1000
	restored = 2000
)

func (p *person) restores(k key, state idemflight.State) error {
	to := state
	if state == idemflight.InFlight {
		to = idemflight.Held
	}
	o := p.w.begin(p, "restore", k, to)
	now := time.Now()
	e := entry{State: state, StartedAt: now, CompletedAt: now, ExpiresAt: now.Add(p.w.opts.TTL)}
	switch state {
	case idemflight.Retained:
		e.Value = restored
	case idemflight.Held:
		e.Err = failure(restored)
	}
	err := p.w.cache.Restore(context.Background(), p.w.keys[k], e)
	o.over(p.w, err == nil)
	p.w.fail(p.w.checkRestore(o, err))
	return err
}

func (p *person) closes(ctx context.Context) {
	w := p.w
	o := w.begin(p, "close", 0, 0)
	if w.closing == 0 {
		w.closing = w.step
	}
	err := w.cache.Close(ctx)
	o.over(w, err == nil)
	if err == nil && w.closed == 0 {
		w.closed = w.step
		w.mu.Lock()
		for _, x := range w.running {
			if x != nil {
				w.failLocked(fmt.Errorf("closing returned while execution %d of %v runs", x.id, x.key))
			}
		}
		w.mu.Unlock()
	}
}

// looks asks for all that can be seen.
func (p *person) looks() {
	w := p.w
	w.begins("looks")
	s := w.cache.Stats()
	if n := s.InFlight + s.Entries; n > w.opts.MaxEntries || s.Held > s.Entries || s.InFlight < 0 || s.Waiters < 0 {
		w.fail(fmt.Errorf("by Stats there are %d in flight, %d kept, %d held, %d waiters of %d entries", s.InFlight, s.Entries, s.Held, s.Waiters, w.opts.MaxEntries))
	}
	if n := w.cache.Len(); n > w.opts.MaxEntries {
		w.fail(fmt.Errorf("by Len there are %d of %d", n, w.opts.MaxEntries))
	}
	seen := map[key]bool{}
	for k := range w.cache.All() {
		if seen[k] {
			w.fail(fmt.Errorf("iterating gave %v twice", k))
		}
		seen[k] = true
	}
}

// looksAtUnsettled asks for what is in flight and held: what is so all the while has to be there.
func (p *person) looksAtUnsettled() {
	w := p.w
	w.begins("looks at unsettled")
	seen, since := map[key]bool{}, w.step
	err := w.cache.Unsettled(context.Background(), func(k key, e entry) bool {
		if k = k.role(); seen[k] || !unsettled(e) {
			w.fail(fmt.Errorf("%v, %s, is said to be unsettled; before in this list: %v", k, show(e), seen[k]))
		}
		seen[k] = true
		return true
	})
	w.fail(err)
	w.mu.Lock()
	defer w.mu.Unlock()
	for k := range max(key(w.sc.keys), 1) {
		all := true
		for _, s := range w.shots[since-1:] {
			all = all && unsettled(s.entries[k])
		}
		if all && !seen[k] {
			w.failLocked(fmt.Errorf("%v is unsettled and was not shown", k))
		}
	}
}

func unsettled(e entry) bool { return e.State == idemflight.InFlight || e.State == idemflight.Held }

// call is a call of Do.
type call struct {
	by         *person
	thread     *thread
	key        key
	body       *body
	how        how
	start, end int // steps; end is 0 while it is under way
	at, doneAt time.Time
	dead       bool    // its context had ended before the call began
	leads      *flight // the one that it began, if it did

	found int // the step in which it began to look at the record that it replayed, if it took no lock

	res      idemflight.Result[int]
	err      error
	panicked *idemflight.PanicError
	exited   bool
	events   []event
}

// how are the options of a call.
type how struct {
	stays   bool // with a context that cannot end: the caller runs fn itself
	inline  bool
	maxWait time.Duration // 0 = without end
	ttl     time.Duration // of the outcome; 0 = Options.TTL, negative = WithTTL(0)
	fp      byte
}

func (h how) fingerprint() (f idemflight.Fingerprint) {
	f[0] = h.fp
	return f
}

func (h how) options() (opts []idemflight.CallOption) {
	if h.inline {
		opts = append(opts, idemflight.Inline())
	}
	if h.maxWait != 0 {
		opts = append(opts, idemflight.WithMaxWait(h.maxWait))
	}
	if h.ttl != 0 {
		opts = append(opts, idemflight.WithTTL(h.ttl))
	}
	if h.fp != 0 {
		opts = append(opts, idemflight.WithFingerprint(h.fingerprint()))
	}
	return opts
}

// prepares keeps an outcome of k before the schedule begins.
func (w *world) prepares(k key, value int, err error) {
	_, _ = w.cache.Do(context.Background(), w.keys[k], func(context.Context) (int, error) { return value, err })
}

type callKey struct{}

// does calls Do for k.
func (p *person) does(k key, b *body, opts ...how) *call { return p.doesIn(p.ctx, k, b, opts...) }

// doesIn calls Do with a context of its own, such as that of an execution.
func (p *person) doesIn(ctx context.Context, k key, b *body, opts ...how) *call {
	w := p.w
	c := &call{by: p, key: k, body: b}
	for _, h := range opts {
		c.how = h
	}
	if c.how.stays {
		ctx = context.WithoutCancel(ctx)
	}
	ctx = context.WithValue(ctx, callKey{}, c)
	var t *thread
	if !w.free {
		t = w.begins(startOfDo + k.String())
		c.thread = t
	}
	c.start, c.at, c.dead = w.step, time.Now(), ctx.Err() != nil
	w.mu.Lock()
	w.calls = append(w.calls, c)
	w.mu.Unlock()
	returned := false
	defer func() {
		if !returned {
			if v := recover(); v != nil {
				c.panicked, _ = v.(*idemflight.PanicError)
				if c.panicked == nil {
					panic(v)
				}
			} else {
				c.exited = true
			}
		}
		c.end, c.doneAt = w.step, time.Now()
		if w.trace != nil {
			w.trace("     %s", c)
		}
	}()
	c.res, c.err = w.cache.DoResult(ctx, w.keys[k], w.fn(c), c.how.options()...)
	if t != nil && t.from == lookValid {
		c.found = t.found
	}
	returned = true
	return c
}

func (c *call) String() string {
	switch {
	case c.end == 0:
		return fmt.Sprintf("%s do %v: …", c.by.name, c.key)
	case c.panicked != nil:
		return fmt.Sprintf("%s do %v: panic %v", c.by.name, c.key, c.panicked.Value)
	case c.exited:
		return fmt.Sprintf("%s do %v: Goexit", c.by.name, c.key)
	}
	text := ""
	if c.err != nil {
		text, _, _ = strings.Cut(c.err.Error(), "\n")
	}
	return fmt.Sprintf("%s do %v: %d, %v %s", c.by.name, c.key, c.res.Value, c.res.Source, text)
}

// told is the Observer.
func (w *world) told(ctx context.Context, e event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.finals && e.Kind <= idemflight.EventFinished {
		return
	}
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		c.events = append(c.events, e)
		return
	}
	if o, ok := ctx.Value(opKey{}).(*op); ok {
		o.events = append(o.events, e)
		return
	}
	if e.Kind < idemflight.EventEvicted {
		w.failLocked(fmt.Errorf("an event of no call: %v %v", e.Kind, e.Key))
	}
	w.upkeep = append(w.upkeep, e)
}

// failure is the error of an execution, by its number.
type failure int

func (f failure) Error() string { return fmt.Sprintf("failure %d", int(f)) }

// execution is one execution of fn or Reconcile.
type execution struct {
	id          int
	key         key
	call        *call // whose fn it is; of Reconcile, the one that asked; nil if an operator did
	reconciling bool
	flight      *flight
	thread      *thread
	start, end  int
	at, doneAt  time.Time

	want     idemflight.Disposition // what becomes of the outcome by what fn said
	begun    int                    // effects that the library let begin and that were not taken back
	spoke    bool                   // BeginEffect or NoEffect was called while it ran
	marked   bool                   // its error bears a marker
	panicked bool
	exited   bool
	err      error // as callers get it; nil, a failure, or ErrGoexit
}

func (w *world) fn(c *call) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) { return w.execute(ctx, c.key, c, c.body, false) }
}

// execute is what fn and Reconcile do.
func (w *world) execute(ctx context.Context, k key, c *call, b *body, reconciling bool) (int, error) {
	w.mu.Lock()
	w.lastExec++
	x := &execution{id: w.lastExec, key: k, call: c, reconciling: reconciling, start: w.step, at: time.Now(), want: idemflight.Retain}
	if other := w.running[k]; other != nil {
		w.failLocked(fmt.Errorf("execution %d of %v began while %d runs", x.id, x.key, other.id))
	}
	if w.closed > 0 {
		w.failLocked(fmt.Errorf("execution %d of %v began after Close had returned", x.id, x.key))
	}
	w.running[k] = x
	w.execs = append(w.execs, x)
	w.mu.Unlock()

	returned := false
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		x.end, x.doneAt = w.step, time.Now()
		x.exited = !returned && !x.panicked
		if w.running[k] == x {
			w.running[k] = nil
		}
	}()
	x.thread = w.runs()
	if err := ctx.Err(); err != nil {
		w.fail(fmt.Errorf("the context of execution %d has ended while it runs: %w", x.id, err))
	}
	v, err := b.run(w, ctx, x)
	returned = true
	return v, err
}

// body is what fn does in the middle, and how it ends.
type body struct {
	name string
	run  func(w *world, ctx context.Context, x *execution) (int, error)
}

func ends(name string, want idemflight.Disposition, mark func(error) error) *body {
	return &body{name, func(_ *world, _ context.Context, x *execution) (int, error) {
		x.want = want
		if mark == nil {
			return x.id, nil
		}
		x.err = failure(x.id)
		err := mark(x.err)
		x.marked = err != x.err
		return x.id, err
	}}
}

var (
	succeeds    = ends("succeeds", idemflight.Retain, nil)
	retryable   = ends("is retryable", idemflight.Release, idemflight.Retryable)
	isFinal     = ends("is final", idemflight.Retain, idemflight.Final)
	isUnknown   = ends("is unknown", idemflight.Hold, idemflight.Unknown)
	saysNothing = ends("fails and says nothing", idemflight.Hold, func(err error) error { return err })
	learnsLess  = ends("learns nothing", idemflight.Hold, func(err error) error { return err })

	// fails says first that nothing has begun.
	fails = &body{"fails", func(w *world, ctx context.Context, x *execution) (int, error) {
		x.noEffect(w, ctx)
		return x.fails()
	}}

	panics = &body{"panics", func(_ *world, _ context.Context, x *execution) (int, error) {
		x.want, x.panicked, x.err = idemflight.Hold, true, failure(x.id)
		panic(x.err)
	}}
	exits = &body{"exits", func(_ *world, _ context.Context, x *execution) (int, error) {
		x.want, x.err = idemflight.Hold, idemflight.ErrGoexit
		runtime.Goexit()
		return 0, nil
	}}

	// begins fails after its effect has begun; at first it says that nothing has begun.
	begins = &body{"begins its effect and fails", func(w *world, ctx context.Context, x *execution) (int, error) {
		x.noEffect(w, ctx)
		x.effect(w, ctx)
		w.park("effect has begun")
		return x.fails()
	}}
	// takesBack fails with an error that is ambiguous, after NoEffect has said that it is not.
	takesBack = &body{"takes its effect back and fails", func(w *world, ctx context.Context, x *execution) (int, error) {
		x.effect(w, ctx)
		w.park("effect has begun")
		x.noEffect(w, ctx)
		_, err := x.fails()
		return x.id, errors.Join(err, context.DeadlineExceeded)
	}}
	// delegates has another goroutine begin its effect, and does not wait for it.
	delegates = &body{"has another begin its effect, and fails", func(w *world, ctx context.Context, x *execution) (int, error) {
		x.noEffect(w, ctx)
		w.spawn(fmt.Sprintf("effect/%d", x.id), false, func(*thread) {
			w.begins("begin effect")
			x.effect(w, ctx)
		})
		w.park("fn fails")
		return x.fails()
	}}
	// delegatesBoth has another goroutine begin its effect and take it back.
	delegatesBoth = &body{"has another begin its effect and take it back, and fails", func(w *world, ctx context.Context, x *execution) (int, error) {
		x.noEffect(w, ctx)
		w.spawn(fmt.Sprintf("effect/%d", x.id), false, func(*thread) {
			w.begins("begin effect")
			x.effect(w, ctx)
			w.begins("no effect")
			x.noEffect(w, ctx)
		})
		w.park("fn fails")
		return x.fails()
	}}
)

// fails ends x with an error without marker: held, unless it has said that no effect has begun, or none
// any more.
func (x *execution) fails() (int, error) {
	x.want = idemflight.Release
	if x.begun > 0 || !x.spoke {
		x.want = idemflight.Hold
	}
	x.err = failure(x.id)
	return x.id, x.err
}

// effect calls BeginEffect: it must be let begin exactly while x runs.
func (x *execution) effect(w *world, ctx context.Context) {
	err := idemflight.BeginEffect(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if (err == nil) != (x.end == 0) {
		w.failLocked(fmt.Errorf("call of BeginEffect in execution %d, which has ended: %v, answered %v", x.id, x.end > 0, err))
	}
	if x.end == 0 {
		x.begun++
		x.spoke = true
	}
}

func (x *execution) noEffect(w *world, ctx context.Context) {
	idemflight.NoEffect(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if x.end == 0 {
		x.spoke = true
		if x.begun > 0 {
			x.begun--
		}
	}
}
