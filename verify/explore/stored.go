package explore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/yield"
	"github.com/idemflight/idemflight/storetest"
)

// stored is a scenario of two processes, which have a cache each and share a store. Each verb of the
// store is a point, and may fail there: that is one more choice of the schedule. Whether others come
// in between a verb and its answer makes no difference, since what follows the answer meets them only
// at the next point.
//
// There is one key, and a bank, which knows what fn did.
type stored struct {
	options   func(o *storedOptions) // what differs from the world's
	prepare   func(c *client)        // before the schedule begins, without points
	reconcile bool                   // Options.Reconcile asks the bank
	failures  int                    // how many verbs may fail
	outage    bool                   // a verb that fails goes on failing until its caller has given up
	clock     []time.Duration        // as in scenario
	actors    []func(c *client)      // the first is "a", of process 0, the next "b", of process 1, and so on
}

type (
	storedCache   = idemflight.Cache[string, int]
	storedOptions = idemflight.Options[string, int]
)

const theKey = "order"

// storedWorld is one schedule of such a scenario.
type storedWorld struct {
	*scheduler
	sc     *stored
	opts   storedOptions
	caches [2]*storedCache
	mem    *storetest.Memory

	mu      sync.Mutex // guards what follows
	wrong   error
	clients map[string]*client
	visits  []*visit
	runs    []*run
	effects []*run
	grants  map[idemflight.ClaimID]*grant
	lives   []life // of the key, the present one last
	shots   []idemflight.Standing
	before  idemflight.Standing // what the record was when the present verb acted
	failed  bool                // a verb has
	outages map[request]time.Time
}

// life of a key: from when it is absent until a Forget has made it so again. In each there is one
// effect at most.
type life struct {
	outcome int // what the store has recorded in it; 0: nothing
	since   int // the step in which it had
	end     int // the step in which it was forgotten; 0: it was not
}

// request is a verb and its repeats.
type request struct {
	verb  string
	claim idemflight.Claim
}

// grant is a claim that the store has granted.
type grant struct {
	id        idemflight.ClaimID
	process   int
	life      int
	reconcile bool // of a held key
	begun     bool
	over      bool // settled, given back, or forgotten when its lease was over
	lost      bool // its lease has ended, or it has been replaced
	runs      []*run
}

// run is one execution of fn or Reconcile.
type run struct {
	id          int
	visit       *visit // on whose behalf
	grant       *grant
	reconciling bool
	end         int
	mayCharge   bool // BeginEffect has let it, or it does not ask
	charged     bool
	want        idemflight.Disposition
}

// visit is what a client asks of its cache.
type visit struct {
	by         *client
	kind       string // do, forget, resolve, reconcile
	start, end int    // steps
	answered   bool
	grant      *grant // the last one that the store gave for it
	ran        bool   // its fn did

	res   idemflight.Result[int]
	entry idemflight.Entry[int] // of reconcile
	acted bool                  // of forget and resolve: the store has done it
	did   bool                  // of forget: what it answered
	err   error
}

// client is an actor.
type client struct {
	w       *storedWorld
	name    string
	process int
	ctx     context.Context
	cancel  context.CancelFunc
	left    int
}

type (
	visitKey struct{}
	unseen   struct{} // in the context of what the world itself asks of the store
)

// unstopped are the points of the library that are the other scenarios' business.
var unstopped = append([]string{
	"execute", "settled", lookFound, lookValid, "look: lock", "meet", "claim", "record", "watch", "weight", "weight: taken",
	"reclaim", "lookup", yield.Locked + "put", yield.Locked + "gone", yield.Locked + "grow", yield.Locked + "shrink",
}, timerPoints...)

// run runs one schedule of st in a bubble of its own.
func (st *stored) run(t *testing.T, sc *scenario, p plan, trace func(string, ...any)) (r ran) {
	synctest.Test(t, func(*testing.T) {
		w := newStoredWorld(st, trace)
		w.through = sc.through
		yield.Hook(w.park)
		defer yield.Hook(nil)
		if st.prepare != nil {
			st.prepare(w.client("prepare", 0))
		}
		w.free = false
		for i, script := range st.actors {
			c := w.client(string(rune('a'+i)), i%2)
			w.spawn(c.name, true, func(*thread) { script(c) })
		}
		var err error
		r.made, r.interruptions, err = w.drive(p, st.clock, w.observe)
		r.steps, r.passed = w.step, w.passed || w.through == ""
		w.fail(err)
		if w.wrong == nil {
			w.free = true
			w.finish()
		}
		if w.wrong != nil {
			if err != nil { // the bubble is about to fail for the stranded, and with it the process
				fmt.Printf("VIOLATION in %s: %v\nchoices: %s\n", sc.name, w.wrong, printChoices(r.made))
			}
			w.release()
			for _, c := range w.clients {
				c.cancel()
			}
		}
		r.wrong = w.wrong
	})
	return r
}

func newStoredWorld(st *stored, trace func(string, ...any)) *storedWorld {
	w := &storedWorld{
		scheduler: &scheduler{
			ignored: map[string]bool{}, free: true, trace: trace, timers: thread{name: "timer"},
			stored: true, failures: st.failures, pause: firstPause, moved: make(chan struct{}, 1),
		},
		sc: st, mem: storetest.Mem(), clients: map[string]*client{}, grants: map[idemflight.ClaimID]*grant{},
		lives: make([]life, 1), outages: map[request]time.Time{},
	}
	for _, p := range unstopped {
		w.ignored[p] = true
	}
	if st.outage {
		w.pause = patience + time.Second
	}
	w.mem.Hook(w.verb)
	w.opts = storedOptions{Store: w.mem, EffectsAnnounced: true, LocalTTL: -1, ExecTimeout: -1}
	if st.options != nil {
		st.options(&w.opts)
	}
	if st.reconcile {
		w.opts.Reconcile = func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
			return w.execute(ctx, asksTheBank, true)
		}
	}
	for i := range w.caches {
		w.caches[i] = idemflight.MustNew(w.opts)
	}
	return w
}

// As the library has them.
const (
	firstPause = 5 * time.Millisecond
	patience   = 5 * time.Second
)

func (w *storedWorld) client(name string, process int) *client {
	c := &client{w: w, name: name, process: process}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	w.clients[name] = c
	return c
}

func (w *storedWorld) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failLocked(err)
}

func (w *storedWorld) failLocked(err error) {
	if err != nil && w.wrong == nil {
		w.wrong = fmt.Errorf("after step %d: %w", w.step, err)
	}
}

// read returns what the store has now.
func (w *storedWorld) read() idemflight.Standing {
	x, err := w.mem.Read(context.WithValue(context.Background(), unseen{}, true), theKey)
	if err != nil {
		panic(err)
	}
	return x
}

var errEngine = errors.New("the engine fails")

// verb is the hook of the store.
func (w *storedWorld) verb(ctx context.Context, when storetest.When, verb string, c idemflight.Claim) error {
	if ctx.Value(unseen{}) != nil {
		return nil
	}
	if when == storetest.After {
		if verb == "Watch" { // changes nothing, and others have acted meanwhile
			return nil
		}
		v, _ := ctx.Value(visitKey{}).(*visit)
		w.mu.Lock()
		w.failLocked(w.actedLocked(verb, c.ID, v, w.read()))
		w.mu.Unlock()
		if w.fate(verb) == failsAfter {
			return errEngine
		}
		return nil
	}
	w.mu.Lock()
	down := time.Now().Before(w.outages[request{verb, c}])
	w.mu.Unlock()
	if down {
		return errEngine
	}
	fate := w.asks(verb)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before = w.read()
	if fate == acts {
		return nil
	}
	w.failed = true
	if w.sc.outage {
		long := patience
		if verb == "Settle" {
			long = idemflight.DefaultLease
		}
		w.outages[request{verb, c}] = time.Now().Add(long)
	}
	if fate == failsBefore {
		return errEngine
	}
	return nil
}

// asks parks the calling goroutine before a verb, and returns what is to become of that.
func (s *scheduler) asks(verb string) fate {
	if s.free {
		return acts
	}
	s.mu.Lock()
	t := s.current(verb)
	s.passed = s.passed || verb == s.through
	t.after = ""
	s.parkLocked(t, verb)
	return t.fate
}

// fate returns what is to become of the verb that the calling goroutine asks.
func (s *scheduler) fate(verb string) fate {
	if s.free {
		return acts
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current(verb).fate
}

func (c *client) begin(kind string) (*visit, context.Context) {
	v := &visit{by: c, kind: kind}
	c.w.begins(kind)
	v.start = c.w.step
	c.w.mu.Lock()
	c.w.visits = append(c.w.visits, v)
	c.w.mu.Unlock()
	return v, context.WithValue(c.ctx, visitKey{}, v)
}

func (v *visit) over() {
	v.end, v.answered = v.by.w.step, true
	if v.by.w.trace != nil {
		v.by.w.trace("     %s", v)
	}
}

func (v *visit) String() string {
	return fmt.Sprintf("%s %s: %d, %v, %v, %v", v.by.name, v.kind, v.res.Value, v.res.Source, v.did, v.err)
}

func (c *client) cache() *storedCache { return c.w.caches[c.process] }

// deed is what fn does, and how it ends.
type deed func(w *storedWorld, ctx context.Context, x *run) (int, error)

func (c *client) does(d deed, opts ...idemflight.CallOption) *visit {
	v, ctx := c.begin("do")
	v.res, v.err = c.cache().DoResult(ctx, theKey, func(ctx context.Context) (int, error) {
		v.ran = true
		return c.w.execute(ctx, d, false)
	}, opts...)
	v.over()
	return v
}

func (c *client) forgets() {
	v, ctx := c.begin("forget")
	v.did, v.err = c.cache().Forget(ctx, theKey)
	v.over()
}

func (c *client) resolves(err error) {
	v, ctx := c.begin("resolve")
	v.err = c.cache().Resolve(ctx, theKey, resolved, err)
	v.over()
}

func (c *client) reconciles() {
	v, ctx := c.begin("reconcile")
	v.entry, v.err = c.cache().Reconcile(ctx, theKey)
	v.over()
}

// leaves ends the context of another.
func (c *client) leaves(who string) {
	c.w.begins(who + " leaves")
	other := c.w.clients[who]
	other.left = c.w.step
	other.cancel()
}

// kills makes the owner of the key look dead, and lets it go on: late, if nobody takes the key over.
func (c *client) kills() {
	w := c.w
	w.begins("kill")
	id := w.read().ID
	if w.mem.Kill(id) {
		w.mu.Lock()
		w.grants[id].lost = true
		w.mu.Unlock()
	}
}

// execute is what fn and Reconcile do.
func (w *storedWorld) execute(ctx context.Context, d deed, reconciling bool) (int, error) {
	v, _ := ctx.Value(visitKey{}).(*visit)
	w.mu.Lock()
	x := &run{id: len(w.runs) + 1, visit: v, grant: v.grant, reconciling: reconciling, want: idemflight.Retain}
	w.runs = append(w.runs, x)
	w.failLocked(w.beginsLocked(x))
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		x.end = max(w.step, 1)
		w.mu.Unlock()
	}()
	w.scheduler.runs()
	return d(w, ctx, x)
}

func (x *run) fails(want idemflight.Disposition) (int, error) {
	x.want = want
	return x.id, failure(x.id)
}

// charges has its effect, which it announces.
func charges(w *storedWorld, ctx context.Context, x *run) (int, error) {
	if err := idemflight.BeginEffect(ctx); err != nil {
		w.fail(w.checkRefused(x, err))
		return x.fails(idemflight.Release)
	}
	return chargesUnannounced(w, ctx, x)
}

func chargesUnannounced(w *storedWorld, _ context.Context, x *run) (int, error) {
	w.mu.Lock()
	x.mayCharge = true
	w.mu.Unlock()
	w.park("effect")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failLocked(w.checkEffectLocked(x))
	x.charged = true
	w.effects = append(w.effects, x)
	return x.id, nil
}

// chargesAndFails has its effect, and does not know it.
func chargesAndFails(w *storedWorld, ctx context.Context, x *run) (int, error) {
	if id, err := charges(w, ctx, x); err != nil {
		return id, err
	}
	return x.fails(idemflight.Hold)
}

// beginsAndFails begins its effect, has none, and does not know it.
func beginsAndFails(w *storedWorld, ctx context.Context, x *run) (int, error) {
	if err := idemflight.BeginEffect(ctx); err != nil {
		w.fail(w.checkRefused(x, err))
		return x.fails(idemflight.Release)
	}
	return x.fails(idemflight.Hold)
}

// failsEarly fails before its effect.
func failsEarly(_ *storedWorld, _ context.Context, x *run) (int, error) {
	return x.fails(idemflight.Release)
}

// asksTheBank is Reconcile: it finds the effect, or answers Retryable if none can arrive any more.
func asksTheBank(w *storedWorld, _ context.Context, x *run) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.effects {
		if e.grant.life == x.grant.life {
			return e.id, nil
		}
	}
	if slices.ContainsFunc(w.runs, func(y *run) bool { return y.mayCharge && !y.charged }) {
		return x.fails(idemflight.Hold)
	}
	id, err := x.fails(idemflight.Release)
	return id, idemflight.Retryable(err)
}

// valueOf returns the value that a record has, 0 if it has none.
func valueOf(x idemflight.Standing) int {
	v, _ := strconv.Atoi(string(x.Value))
	return v
}
