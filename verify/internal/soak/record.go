package soak

import (
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/verify/internal/interval"
)

type op = interval.Op

// value is what fn returns. Nothing but the cache and its callers may refer to one.
type value struct {
	id  int // of the execution
	pad []byte
}

// failure is fn's error; it tells whose, and what Classify is to make of it.
type failure struct {
	id      int
	becomes idemflight.Disposition
	inHook  bool // Classify panics
	cause   error
}

func (f *failure) Error() string { return fmt.Sprintf("execution %d failed", f.id) }
func (f *failure) Unwrap() error { return f.cause }

// failureOf returns the failure that err tells of, also as a Store has it; nil if there is none.
func failureOf(err error) *failure {
	var f *failure
	var stored *idemflight.StoredError
	if !errors.As(err, &f) && errors.As(err, &stored) {
		if id := failed.FindStringSubmatch(stored.Text); id != nil {
			f = &failure{id: atoi(id[1])}
		}
	}
	return f
}

var failed = regexp.MustCompile(`execution (\d+) failed`)

// execution is a call under way, and what came of it if it led a flight. Its leader's context carries
// it to fn and Reconcile, which write it before the flight ends; it is read after that.
type execution struct {
	plan       plan
	run, found op           // of fn, and of Reconcile; Start is 0 if it did not run
	over       atomic.Int64 // Ret of both
	began      bool         // BeginEffect has let it
	added      bool         // to what is recorded
	claim      idemflight.ClaimID
}

type executionKey struct{}

// recorder records what happens in a round.
type recorder struct {
	begun    time.Time
	ids      atomic.Int64
	slots    []atomic.Int64 // when each call that is under way began; 0: free
	patience time.Duration  // for a call to return

	calls, executions atomic.Uint64

	mu     sync.Mutex
	sinks  []*sink
	wrong  []string
	values []weak.Pointer[value]
	tokens []weak.Pointer[token]
	seen   map[string]uint64 // of what Stats does not count
}

// token is something that fn captures.
type token struct{ bytes [64]byte }

// sink is where one goroutine records, and sometimes others with it.
type sink struct {
	mu    sync.Mutex
	ops   []op
	execs []*execution
}

func newRecorder(clients int, patience time.Duration) *recorder {
	return &recorder{begun: time.Now(), slots: make([]atomic.Int64, 2*clients+256), patience: patience, seen: map[string]uint64{}}
}

func (r *recorder) now() int64 { return int64(time.Since(r.begun)) + 1 }

func (r *recorder) newSink() *sink {
	s := &sink{}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sinks = append(r.sinks, s)
	return s
}

func (s *sink) add(o op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ops = append(s.ops, o)
}

func (s *sink) addExecution(x *execution) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.added = true
	s.execs = append(s.execs, x)
}

// mostWrong is how many violations of a round are told; the first ones say it all.
const mostWrong = 5

func (r *recorder) violation(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.wrong) < mostWrong {
		r.wrong = append(r.wrong, fmt.Sprintf(format, args...))
	}
}

func (r *recorder) violations() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wrong
}

func (r *recorder) saw(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[what]++
}

// watch follows one value, and something that fn captured.
func (r *recorder) watch(v *value, t *token) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v != nil {
		r.values = append(r.values, weak.Make(v))
	}
	if t != nil {
		r.tokens = append(r.tokens, weak.Make(t))
	}
}

// enter notes that a call begins; hint is where to look for a free slot. leave takes what it returned.
func (r *recorder) enter(hint int) (slot int, began int64) {
	for {
		began = r.now()
		for i := range r.slots {
			slot = (hint + i) % len(r.slots)
			if r.slots[slot].CompareAndSwap(0, began) {
				return slot, began
			}
		}
		runtime.Gosched() // many flights that their leaders have left call others
	}
}

func (r *recorder) leave(slot int) { r.slots[slot].Store(0) }

// earliest returns when the first call under way began: whoever emits an event of upkeep is in one.
func (r *recorder) earliest() int64 {
	first := r.now()
	for i := range r.slots {
		if began := r.slots[i].Load(); began > 0 {
			first = min(first, began)
		}
	}
	return first
}

// hangs reports whether a call lasts too long.
func (r *recorder) hangs() bool { return r.now()-r.earliest() > int64(r.patience) }

// history assembles what was recorded, once all flights have ended.
func (r *recorder) history() interval.History {
	h := interval.History{Ops: map[int][]op{}}
	end := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sinks {
		for _, o := range s.ops {
			h.Ops[o.Key] = append(h.Ops[o.Key], o)
		}
		for _, x := range s.execs {
			ret := x.over.Load()
			if ret == 0 {
				ret = end
			}
			for _, o := range []op{x.found, x.run} {
				if o.Start != 0 {
					o.Ret = ret
					h.Ops[o.Key] = append(h.Ops[o.Key], o)
				}
			}
		}
	}
	return h
}
