package linear

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemflight/idemflight"
)

type (
	options = idemflight.Options[int, int]
	event   = idemflight.Event[int]
	result  = idemflight.Result[int]
)

// target is what a history is recorded of: the cache, or one with a planted fault.
type target interface {
	DoResult(ctx context.Context, key int, fn func(context.Context) (int, error), opts ...idemflight.CallOption) (result, error)
	Forget(key int) bool
	Lookup(key int) (idemflight.Entry[int], bool)
	Resolve(key int, value int, err error) bool
	Close(ctx context.Context) error
}

func newCache(o options) target { return idemflight.MustNew(o) }

type kind int

const (
	ran      kind = iota // an execution of fn, with its leader
	joined               // got the outcome of execution id, and had not started it
	replayed             // got the kept outcome of execution id
	metHeld              // was told that execution id is held
	inFlight             // did not wait for a flight
	full                 // found no place
	forgot               // Forget
	looked               // Lookup
	resolved             // Resolve
	evicted              // an eviction, from the Observer
)

func (k kind) String() string {
	return [...]string{"ran", "joined", "replayed", "met held", "in flight", "full", "forgot", "looked", "resolved", "evicted"}[k]
}

// op is one thing that happened to a key, some time between call and ret. All times are
// nanoseconds since the history began.
type op struct {
	kind      kind
	key       int
	client    int
	id        int // of the execution that it is, or whose outcome it got; for resolved, of the new value
	call, ret int64

	// Of an execution: when fn began and ended, and what it wants to become of its outcome.
	start, end int64
	becomes    idemflight.Disposition
	noTTL      bool // WithTTL(0)

	// Of forgot, looked and resolved: what they answered.
	ok       bool
	state    idemflight.State
	releases bool // resolved, without a value
}

func (o op) String() string {
	s := fmt.Sprintf("[%d, %d] client %d %v", o.call, o.ret, o.client, o.kind)
	switch o.kind {
	case ran:
		return s + fmt.Sprintf(" %d, fn [%d, %d], %v", o.id, o.start, o.end, o.becomes)
	case forgot:
		return s + fmt.Sprintf(" %v", o.ok)
	case looked:
		return s + fmt.Sprintf(" %v %v %d", o.ok, o.state, o.id)
	case resolved:
		return s + fmt.Sprintf(" %v %d, releases %v", o.ok, o.id, o.releases)
	}
	return s + fmt.Sprintf(" %d", o.id)
}

// workload is what clients do.
type workload struct {
	clients, calls, keys int // calls of each client
	ttl                  time.Duration
	maxEntries           int
	forgets              bool // Forget, Resolve and WithTTL(0) too
	fails                bool // fn fails, and panics, now and then
	leaves               bool // callers leave
	replays              int  // of 100 calls, how many only repeat the last key
}

// history is what was recorded.
type history struct {
	ttl int64
	ops map[int][]op // by key
	n   int          // calls
}

// failure is fn's error; it tells whose.
type failure struct{ id int }

func (f *failure) Error() string { return fmt.Sprintf("execution %d failed", f.id) }

// recorder records what its clients do to a target.
type recorder struct {
	workload
	c     target
	begun time.Time
	ids   atomic.Int64
	since []atomic.Int64 // when the call of each client that is under way began; 0: none

	mu  sync.Mutex
	ops []op // from the Observer
}

func (r *recorder) now() int64 { return int64(time.Since(r.begun)) + 1 }

type executionKey struct{}

// execution is an op under way.
type execution struct {
	op
	ret atomic.Int64
}

// record runs w against a target made by fresh.
func record(w workload, fresh func(options) target) history {
	r := &recorder{workload: w, begun: time.Now(), since: make([]atomic.Int64, w.clients)}
	r.c = fresh(options{TTL: w.ttl, MaxEntries: w.maxEntries, Protect: -1, Observer: r.observe})

	ops, execs := make([][]op, w.clients), make([][]*execution, w.clients)
	var wg sync.WaitGroup
	for i := range w.clients {
		wg.Go(func() {
			c := &client{recorder: r, id: i, rand: rand.New(rand.NewPCG(uint64(i), rand.Uint64()))}
			for range w.calls {
				c.step()
			}
			ops[i], execs[i] = c.ops, c.execs
		})
	}
	wg.Wait()
	_ = r.c.Close(context.Background()) // flights that all have left still run

	end := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	h := history{ttl: int64(w.ttl), ops: map[int][]op{}, n: w.clients * w.calls}
	for _, o := range r.ops {
		h.ops[o.key] = append(h.ops[o.key], o)
	}
	for i := range ops {
		for _, o := range ops[i] {
			h.ops[o.key] = append(h.ops[o.key], o)
		}
		for _, e := range execs[i] {
			if e.start == 0 {
				continue // fn did not run
			}
			o := e.op
			if o.ret = e.ret.Load(); o.ret == 0 {
				o.ret = end
			}
			h.ops[o.key] = append(h.ops[o.key], o)
		}
	}
	return h
}

// observe records evictions, and when a flight has ended whose leader has left.
func (r *recorder) observe(ctx context.Context, e event) {
	switch e.Kind {
	case idemflight.EventFinished:
		if x, ok := ctx.Value(executionKey{}).(*execution); ok {
			x.ret.CompareAndSwap(0, r.now())
		}
	case idemflight.EventEvicted:
		ret := r.now()
		first := ret // whoever evicts is in a call that has not returned
		for i := range r.since {
			if since := r.since[i].Load(); since > 0 {
				first = min(first, since)
			}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ops = append(r.ops, op{kind: evicted, key: e.Key, client: r.clients, call: first, ret: ret})
	}
}

// client is one goroutine that calls.
type client struct {
	*recorder
	id    int
	rand  *rand.Rand
	key   int
	ops   []op
	execs []*execution
}

func (c *client) one(n int) bool { return c.rand.IntN(n) == 0 }

func (c *client) step() {
	if c.rand.IntN(100) >= c.replays {
		c.key = c.rand.IntN(c.keys)
	}
	o := op{key: c.key, client: c.id, call: c.now()}
	c.since[c.id].Store(o.call)
	defer c.since[c.id].Store(0)
	switch what := c.rand.IntN(20); {
	case what == 0 && c.forgets:
		o.kind, o.ok = forgot, c.c.Forget(c.key)
	case what == 1 && c.forgets:
		o.kind, o.id, o.releases = resolved, int(c.ids.Add(1)), c.one(3)
		var err error
		if o.releases {
			err = idemflight.Retryable(&failure{o.id})
		}
		o.ok = c.c.Resolve(c.key, o.id, err)
	case what == 2:
		o.kind = looked
		var e idemflight.Entry[int]
		e, o.ok = c.c.Lookup(c.key)
		o.state, o.id = e.State, idOf(e.Value, e.Err)
	default:
		c.do(o)
		return
	}
	o.ret = c.now()
	c.ops = append(c.ops, o)
}

// idOf returns the id of the execution that an outcome tells of.
func idOf(value int, err error) int {
	if f := (*failure)(nil); errors.As(err, &f) {
		return f.id
	}
	return value
}

func (c *client) do(o op) {
	x := &execution{op: o}
	x.kind, x.id = ran, int(c.ids.Add(1))
	ctx, cancel := context.WithValue(context.Background(), executionKey{}, x), func() {}
	if c.leaves && c.one(4) {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.rand.IntN(30_000)))
	}
	defer cancel()
	var opts []idemflight.CallOption
	if c.one(20) {
		opts = append(opts, idemflight.WithMaxWait(idemflight.NoWait))
	}
	if c.forgets && c.one(10) {
		x.noTTL = true
		opts = append(opts, idemflight.WithTTL(0))
	}
	pause, fate := c.rand.IntN(30), c.rand.IntN(24)
	if !c.fails {
		fate = 23
	}
	fn := func(context.Context) (int, error) {
		x.start = c.now()
		for range pause {
			runtime.Gosched()
		}
		var err error
		switch fate {
		case 0, 1, 2:
			x.becomes, err = idemflight.Release, idemflight.Retryable(&failure{x.id})
		case 3, 4:
			x.becomes, err = idemflight.Retain, idemflight.Final(&failure{x.id})
		case 5:
			x.becomes, err = idemflight.Hold, idemflight.Unknown(&failure{x.id})
		case 6:
			x.becomes, x.end = idemflight.Hold, c.now()
			panic(&failure{x.id})
		default:
			x.becomes = idemflight.Retain
		}
		x.end = c.now()
		return x.id, err
	}
	res, err := caught(func() (result, error) { return c.c.DoResult(ctx, c.key, fn, opts...) })
	o.ret = c.now()

	o.id = idOf(res.Value, err)
	switch {
	case errors.Is(err, idemflight.ErrLeft):
		c.execs = append(c.execs, x) // fn may run, or have run
		return
	case res.Source == idemflight.Executed:
		x.ret.Store(o.ret)
		c.execs = append(c.execs, x)
		if o.id == x.id {
			return
		}
		o.kind = replayed // says that it ran fn, but brings another's outcome
	case res.Source == idemflight.Joined:
		o.kind = joined
	case res.Source == idemflight.Replayed:
		o.kind = replayed
	case errors.Is(err, idemflight.ErrInFlight):
		o.kind = inFlight
	case errors.Is(err, idemflight.ErrFull):
		o.kind = full
	case errors.Is(err, idemflight.ErrOutcomeUnknown):
		o.kind = metHeld
	default:
		panic(fmt.Sprintf("linear: DoResult answers %+v, %v", res, err))
	}
	c.ops = append(c.ops, o)
}

// caught calls do; a leader that panics has executed.
func caught(do func() (result, error)) (res result, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case *idemflight.PanicError:
			res, err = result{Source: idemflight.Executed}, p
		default:
			panic(p)
		}
	}()
	return do()
}

// never is later than all times of a history.
const never = math.MaxInt64
