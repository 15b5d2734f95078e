package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
	"github.com/idemflight/idemflight/verify/internal/interval"
)

// website is one round over HTTP: a server on the loopback with the middleware, and clients.
type website struct {
	*recorder
	mix
	url      string
	m        *idemhttp.Middleware
	life     life[idemflight.Key]
	shared   *sink
	stop     atomic.Bool
	required bool

	answers  sync.Map // of *answer, by the id of the execution
	attempts sync.Map // of *attempt, by the number of the request
	count    sync.Map // of *atomic.Int64: executions of a key
}

// attempt is a request as the server got it.
type attempt struct {
	number   int64
	arrivals atomic.Int32 // net/http may send it again, over another connection
	left     atomic.Bool  // the server put a deadline on it
}

const (
	webMaxResponse = 8 << 10
	webMaxRequest  = 4 << 10
	webTimeout     = 20 * time.Second
)

// web drives idemhttp as m has it. bend, if not nil, puts a planted fault around the middleware and
// the handler.
func web(m mix, patience time.Duration, bend func(s *website, covered http.Handler) http.Handler) outcome {
	s := &website{recorder: newRecorder(m.Clients, patience), mix: m}
	s.shared = s.newSink()
	before := runtime.NumGoroutine()
	out := outcome{seen: s.seen}
	s.run(&out, bend)
	out.calls, out.executions = s.calls.Load(), s.executions.Load()
	if !out.stuck {
		if n := settledGoroutines(before, patience); n > before {
			s.violation("%d goroutines are left behind:\n%s", n-before, stacks())
		}
	}
	out.wrong = s.violations()
	return out
}

func (s *website) run(out *outcome, bend func(*website, http.Handler) http.Handler) {
	r := source(s.Seed, s.Round, 1<<19)
	o := idemhttp.DefaultCacheOptions()
	o.TTL, o.HoldTTL, o.MaxEntries, o.MinRetention, o.MaxWaiters = s.TTL, s.HoldTTL, s.MaxEntries, s.MinRetention, s.MaxWaiters
	if s.MaxWeight > 0 {
		o.MaxWeight = s.MaxWeight * 20
	}
	o.Observer = s.observe
	cache := idemflight.MustNew(o)
	s.required = r.IntN(2) == 0
	var err error
	s.m, err = idemhttp.New(idemhttp.Options{
		Cache: cache, Scope: scope, Require: s.required, MaxWait: oneOf(r, 0, idemflight.NoWait, time.Millisecond),
		MaxRequestBytes: webMaxRequest, MaxResponseBytes: webMaxResponse,
	})
	if err != nil {
		s.violation("idemhttp.New: %v", err)
		return
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.violation("no listener: %v", err)
		return
	}
	s.url = "http://" + listener.Addr().String() + "/pay"
	covered := s.m.Handler(http.HandlerFunc(s.handle))
	if bend != nil {
		covered = bend(s, covered)
	}
	server := &http.Server{Handler: s.outside(covered), ErrorLog: log.New(io.Discard, "", 0)}
	served := make(chan struct{})
	go func() { _ = server.Serve(listener); close(served) }()
	transport := &http.Transport{MaxIdleConnsPerHost: s.Clients}

	ended := s.drive(transport, out)
	transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), s.patience)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil && ended {
		s.violation("the server does not shut down, %v:\n%s", err, stacks())
		ended = false
	}
	_ = server.Close()
	<-served
	if out.stuck = !ended; out.stuck {
		return
	}
	s.check(cache)
	for key := range cache.All() {
		_, _ = cache.Forget(context.Background(), key)
	}
	s.answers.Clear() // the Observer holds on to s for as long as the cache has a timer
	s.attempts.Clear()
}

// drive has all clients send their share of requests.
func (s *website) drive(transport *http.Transport, out *outcome) bool {
	var done sync.WaitGroup
	for i := range s.Clients {
		sink := s.newSink()
		done.Go(func() {
			c := &client{website: s, id: i, rand: source(s.Seed, s.Round, 1+i), sink: sink, transport: transport}
			for range s.Calls / s.Clients {
				if s.stop.Load() {
					return
				}
				c.step()
			}
		})
	}
	over := make(chan struct{})
	go func() { done.Wait(); close(over) }()
	began, tick := time.Now(), time.NewTicker(2*time.Millisecond)
	defer tick.Stop()
	procs := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(procs)
	for n, closes := 1, s.Close != staysOpen; ; n++ {
		select {
		case <-over:
			return true
		case <-tick.C:
		}
		out.goroutines = max(out.goroutines, runtime.NumGoroutine())
		if n%25 == 0 {
			runtime.GOMAXPROCS(s.Procs[n/25%len(s.Procs)])
			out.heap = max(out.heap, heap())
		}
		if closes && s.calls.Load() > uint64(s.Calls*3/4) {
			closes = false
			s.life.closing.Store(true)
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = s.m.Cache().Close(ctx)
		}
		st := s.m.Cache().Stats()
		if s.MaxEntries > 0 && st.InFlight+st.Entries > s.MaxEntries {
			s.violation("places: MaxEntries is %d, and Stats %+v", s.MaxEntries, st)
		}
		if time.Since(began) > roundTime {
			s.stop.Store(true)
		}
		if s.hangs() {
			s.violation("a request has not been answered:\n%s", stacks())
			return false
		}
	}
}

// check looks at the round when it is over.
func (s *website) check(cache *idemflight.Cache[idemflight.Key, *idemhttp.Response]) {
	why := ""
	if !s.eventually(func() string {
		st := cache.Stats()
		byEvent, _ := callEvents(st)
		byEvent[idemflight.EventEvicted], byEvent[idemflight.EventExpired], byEvent[idemflight.EventShed] = st.Evicted, st.Expired, st.Shed
		why = ""
		for kind, n := range byEvent {
			if told := s.life.events[kind].Load(); told != n {
				why = fmt.Sprintf("%d events say %v, and Stats %d: %+v", told, kind, n, st)
			}
		}
		if ended := s.life.ended.Load(); st.Retains+st.Releases+st.Holds != ended {
			why = fmt.Sprintf("%d handlers have ended: %+v", ended, st)
		}
		if st.Panics != s.life.panicked.Load() {
			why = fmt.Sprintf("%d handlers have panicked or exited: %+v", s.life.panicked.Load(), st)
		}
		if st.InFlight+st.Waiters > 0 || st.HookPanics > 0 {
			why = fmt.Sprintf("no request is left, and nothing panicked in a hook: %+v", st)
		}
		return why
	}) {
		s.violation("counters: %s", why)
	}
	s.tally(cache.Stats())
	h := s.history()
	h.TTL, h.HoldTTL, h.MinRetention = int64(s.TTL), int64(s.holdTTL()), int64(s.protect())
	if h.HoldTTL < 0 {
		h.HoldTTL = interval.Never
	}
	if why := h.Sound(); why != "" {
		s.violation("%s", why)
	}
	s.sinks = nil
}

func scope(r *http.Request) (string, error) {
	if account := r.Header.Get("X-Account"); account != "" {
		return account, nil
	}
	return "", errors.New("nobody")
}

func (s *website) observe(_ context.Context, e idemflight.Event[idemflight.Key]) {
	ret := s.now()
	s.life.events[e.Kind].Add(1)
	if e.Kind == idemflight.EventEvicted {
		s.shared.add(evicted(atoi(e.Key.ID), min(ret, s.earliest()), ret, e.Err))
	}
}

type serving struct {
	*execution
	*attempt
}

type servingKey struct{}

// outside is around the middleware: it knows when a request came, and when it was over, whatever
// becomes of it.
func (s *website) outside(covered http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		number := int64(atoi(r.Header.Get("X-Attempt")))
		known, _ := s.attempts.LoadOrStore(number, &attempt{number: number})
		a := serving{&execution{}, known.(*attempt)}
		a.arrivals.Add(1)
		slot, began := s.enter(int(number))
		defer s.leave(slot)
		a.run = op{Client: int(number), Call: began}
		ctx := context.WithValue(r.Context(), servingKey{}, a)
		if r.Header.Get("X-Deadline") != "" {
			a.left.Store(true)
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, 300*time.Microsecond)
			defer cancel()
		}
		defer func() {
			a.over.Store(s.now())
			if a.run.Start != 0 {
				s.shared.addExecution(a.execution)
			}
		}()
		covered.ServeHTTP(w, r.WithContext(ctx))
	})
}

// drawAnswer draws how the n-th execution of a key answers.
func (s *website) drawAnswer(key int, n int64) *answer {
	r := rand.New(rand.NewPCG(s.Seed, uint64(s.Round)<<40|uint64(key)<<20|uint64(n)))
	a := &answer{status: 201, size: r.IntN(300), lines: 1}
	if r.IntN(100) < 15 {
		a.pause = time.Duration(r.Int64N(int64(2 * time.Millisecond)))
	}
	if r.IntN(8) == 0 {
		a.lines, a.flushes = 2+r.IntN(5), true
	}
	switch r.IntN(30) {
	case 0:
		a.size = webMaxResponse + 1 + r.IntN(webMaxResponse)
	case 1:
		a.status, a.size, a.ends = 500, 2*webMaxResponse, answersUndone // too large to share
	case 2, 3:
		a.trailer = true
	}
	if r.IntN(100) < max(10, s.Fails) {
		a.ends = webFate(r.IntN(int(webFates)))
		a.status = oneOf(r, 200, 302, 400, 404, 408, 409, 422, 429, 500, 501, 502, 503)
	}
	if a.status == 302 {
		a.size = 0
	}
	return a
}
