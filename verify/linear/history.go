package linear

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/verify/internal/interval"
)

type (
	options = idemflight.Options[int, int]
	event   = idemflight.Event[int]
	result  = idemflight.Result[int]
)

// target is what a history is recorded of: the cache, or one with a planted fault.
type target interface {
	DoResult(ctx context.Context, key int, fn func(context.Context) (int, error), opts ...idemflight.CallOption) (result, error)
	Forget(ctx context.Context, key int) (bool, error)
	Lookup(ctx context.Context, key int) (idemflight.Entry[int], bool, error)
	Resolve(ctx context.Context, key int, value int, err error) error
	Close(ctx context.Context) error
}

var background = context.Background()

func newCache(o options) target { return idemflight.MustNew(o) }

type op = interval.Op

// workload is what clients do.
type workload struct {
	clients, calls, keys int // calls of each client
	ttl                  time.Duration
	maxEntries           int
	forgets              bool // Forget, Resolve and WithTTL(0) too
	fails                bool // fn fails, and panics, now and then
	leaves               bool // callers leave
	begins               bool // fn calls BeginEffect
	replays              int  // of 100 calls, how many only repeat the last key
}

// history is what was recorded.
type history struct {
	interval.History
	n      int  // calls
	stored bool // of several caches over one store
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
	over atomic.Int64 // Ret, of whoever comes first
}

// record runs w against a target made by fresh.
func record(w workload, fresh func(options) target) history {
	r := &recorder{workload: w, begun: time.Now(), since: make([]atomic.Int64, w.clients)}
	r.c = fresh(options{TTL: w.ttl, HoldTTL: w.ttl, MaxEntries: w.maxEntries, MinRetention: -1, Observer: r.observe})

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
	h := history{n: w.clients * w.calls}
	_, h.stored = r.c.(processes)
	h.TTL, h.HoldTTL, h.Ops = int64(w.ttl), int64(w.ttl), map[int][]op{}
	for _, o := range r.ops {
		h.Ops[o.Key] = append(h.Ops[o.Key], o)
	}
	for i := range ops {
		for _, o := range ops[i] {
			h.Ops[o.Key] = append(h.Ops[o.Key], o)
		}
		for _, e := range execs[i] {
			if e.Start == 0 {
				continue // fn did not run
			}
			o := e.op
			if o.Ret = e.over.Load(); o.Ret == 0 {
				o.Ret = end
			}
			h.Ops[o.Key] = append(h.Ops[o.Key], o)
		}
	}
	return h
}

// observe records evictions, and when a flight has ended whose leader has left.
func (r *recorder) observe(ctx context.Context, e event) {
	switch e.Kind {
	case idemflight.EventFinished:
		if x, ok := ctx.Value(executionKey{}).(*execution); ok {
			x.over.CompareAndSwap(0, r.now())
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
		o := op{Kind: interval.Evicted, Key: e.Key, Client: r.clients, Call: first, Ret: ret}
		if e.Err != nil {
			o.State = idemflight.Held
		}
		r.ops = append(r.ops, o)
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
	o := op{Key: c.key, Client: c.id, Call: c.now()}
	c.since[c.id].Store(o.Call)
	defer c.since[c.id].Store(0)
	switch what := c.rand.IntN(20); {
	case what == 0 && c.forgets:
		o.Kind = interval.Forgot
		o.OK, _ = c.c.Forget(background, c.key)
	case what == 1 && c.forgets:
		o.Kind, o.ID, o.Releases = interval.Resolved, int(c.ids.Add(1)), c.one(3)
		var err error
		if o.Releases {
			err = idemflight.Retryable(&failure{o.ID})
		}
		o.OK = c.c.Resolve(background, c.key, o.ID, err) == nil
	case what == 2:
		o.Kind = interval.Looked
		var e idemflight.Entry[int]
		e, o.OK, _ = c.c.Lookup(background, c.key)
		o.State, o.ID = e.State, idOf(e.Value, e.Err)
	default:
		c.do(o)
		return
	}
	o.Ret = c.now()
	c.ops = append(c.ops, o)
}

// idOf returns the id of the execution that an outcome tells of. Of an error that comes from a store only the text
// is left.
func idOf(value int, err error) int {
	if err == nil {
		return value
	}
	if found := failureText.FindStringSubmatch(err.Error()); found != nil {
		value, _ = strconv.Atoi(found[1])
	}
	return value
}

var failureText = regexp.MustCompile(`execution (\d+) failed`)

func (c *client) do(o op) {
	x := &execution{op: o}
	x.Kind, x.ID, x.Keeps = interval.Ran, int(c.ids.Add(1)), int64(c.ttl)
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
		x.Keeps = 0
		opts = append(opts, idemflight.WithTTL(0))
	}
	pause, fate := c.rand.IntN(30), c.rand.IntN(24)
	if !c.fails {
		fate = 23
	}
	fn := func(ctx context.Context) (int, error) {
		x.Start = c.now()
		if c.begins {
			if err := idemflight.BeginEffect(ctx); err != nil {
				panic(fmt.Sprintf("linear: BeginEffect: %v", err))
			}
		}
		for range pause {
			runtime.Gosched()
		}
		var err error
		switch fate {
		case 0, 1, 2:
			x.Becomes, err = idemflight.Release, idemflight.Retryable(&failure{x.ID})
		case 3, 4:
			x.Becomes, err = idemflight.Retain, idemflight.Final(&failure{x.ID})
		case 5:
			x.Becomes, err = idemflight.Hold, idemflight.Unknown(&failure{x.ID})
		case 6:
			x.Becomes, x.Spare, x.End = idemflight.Hold, !c.begins, c.now()
			panic(&failure{x.ID})
		case 7: // says nothing at all
			x.Becomes, x.Spare, err = idemflight.Hold, !c.begins, &failure{x.ID}
		case 8: // says that nothing has begun
			idemflight.NoEffect(ctx)
			x.Becomes, err = idemflight.Release, &failure{x.ID}
		default:
			x.Becomes = idemflight.Retain
		}
		x.End = c.now()
		return x.ID, err
	}
	res, err := caught(func() (result, error) { return c.c.DoResult(ctx, c.key, fn, opts...) })
	o.Ret = c.now()

	o.ID = idOf(res.Value, err)
	switch {
	case errors.Is(err, idemflight.ErrCallerLeft):
		c.execs = append(c.execs, x) // fn may run, or have run
		return
	case res.Source == idemflight.Executed:
		x.over.Store(o.Ret)
		c.execs = append(c.execs, x)
		if o.ID == x.ID {
			return
		}
		o.Kind = interval.Replayed // says that it ran fn, but brings another's outcome
	case res.Source == idemflight.Joined:
		o.Kind = interval.Joined
	case res.Source == idemflight.Replayed:
		o.Kind = interval.Replayed
	case errors.Is(err, idemflight.ErrInFlight):
		o.Kind = interval.InFlight
	case errors.Is(err, idemflight.ErrFull):
		o.Kind = interval.Full
	case errors.Is(err, idemflight.ErrOutcomeUnknown):
		o.Kind = interval.MetHeld
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
