package soak

import (
	"context"
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
	"github.com/idemflight/idemflight/verify/internal/interval"
)

// answer is what an execution of the handler does, and what every client of its key may see of it.
type answer struct {
	id      int
	key     int
	payload uint8
	number  int64 // of the attempt that was executed; 0: put there by Resolve
	status  int
	size    int // of the body
	lines   int // in which it is written
	flushes bool
	trailer bool
	pause   time.Duration
	ends    webFate
}

// webFate is how a handler ends.
type webFate int

const (
	answersOnly webFate = iota
	answersAfterEffect
	answersUndone
	handlerPanics
	handlerPanicsBefore
	handlerAborts
	handlerExits
	webFates
)

func (f webFate) breaksOff() bool { return f >= handlerPanics && f <= handlerExits }

// becomes is what an answer with this status becomes if the handler has said nothing of its effect.
var becomes = map[int]idemflight.Disposition{
	200: idemflight.Retain, 201: idemflight.Retain, 302: idemflight.Retain, 400: idemflight.Retain, 422: idemflight.Retain,
	404: idemflight.Release, 409: idemflight.Release, 429: idemflight.Release, 501: idemflight.Release,
	408: idemflight.Hold, 500: idemflight.Hold, 502: idemflight.Hold, 503: idemflight.Hold,
}

// body returns the bytes of an answer: nobody else's look like them.
func (a *answer) body() []byte {
	text := make([]byte, a.size)
	seed := strconv.Itoa(a.id)
	for i := range text {
		text[i] = seed[i%len(seed)] + byte(i>>8)
	}
	return text
}

// handle is the handler behind the middleware: its effect is that it has run.
func (s *website) handle(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Idempotency-Key") == "" {
		w.WriteHeader(http.StatusTeapot) // not covered
		return
	}
	serve, ok := r.Context().Value(servingKey{}).(serving)
	key, named := idemhttp.KeyFrom(r.Context())
	if !ok || !named {
		s.violation("the handler's context has no values, or no key")
		return
	}
	k := atoi(key.ID)
	n, _ := s.count.LoadOrStore(k, new(atomic.Int64))
	a := s.drawAnswer(k, n.(*atomic.Int64).Add(1))
	e := &serve.run
	if e.Start != 0 {
		s.violation("one request was executed twice")
	}
	e.Start, e.ID, e.Key, e.Kind, e.Keeps = s.now(), int(s.ids.Add(1)), k, interval.Ran, int64(s.TTL)
	a.id, a.key, a.number = e.ID, k, serve.number
	a.payload = payloadOf(r)
	e.Payload = a.payload
	s.answers.Store(a.id, a)
	s.executions.Add(1)
	defer func() {
		e.End = s.now()
		s.life.ended.Add(1)
	}()
	s.perform(w, r.Context(), a, e)
}

func payloadOf(r *http.Request) uint8 { return uint8(atoi(r.URL.Query().Get("payload"))) }

func (s *website) perform(w http.ResponseWriter, ctx context.Context, a *answer, e *op) {
	e.Becomes = becomes[a.status]
	switch a.ends {
	case answersOnly:
		e.Spare = e.Becomes == idemflight.Hold
	case handlerPanics, handlerAborts, handlerExits:
		e.Becomes, e.Spare = idemflight.Hold, true
	case handlerPanicsBefore:
		e.Becomes = idemflight.Release
		idemflight.NoEffect(ctx)
	case answersAfterEffect, answersUndone:
		if err := idemflight.BeginEffect(ctx); err != nil {
			s.violation("BeginEffect refuses: %v", err)
		}
		switch {
		case a.ends == answersUndone:
			idemflight.NoEffect(ctx)
			if e.Becomes == idemflight.Hold {
				e.Becomes = idemflight.Release
			}
		case e.Becomes == idemflight.Release:
			e.Becomes = idemflight.Hold
		}
	}
	if a.pause > 0 {
		time.Sleep(a.pause)
	} else {
		runtime.Gosched()
	}
	h := w.Header()
	h.Set("X-Execution", strconv.Itoa(a.id))
	h.Set("Set-Cookie", "session="+strconv.FormatInt(a.number, 10))
	h["X-Many"] = []string{"one", strconv.Itoa(a.id)}
	if a.trailer {
		h.Set("Trailer", "X-Sum")
	}
	if a.ends.breaksOff() {
		s.life.panicked.Add(1)
		switch a.ends {
		case handlerAborts:
			panic(http.ErrAbortHandler)
		case handlerExits:
			runtime.Goexit()
		}
		panic(a)
	}
	w.WriteHeader(a.status)
	text := a.body()
	for i := range a.lines {
		from, to := len(text)*i/a.lines, len(text)*(i+1)/a.lines
		if _, err := w.Write(text[from:to]); err != nil && a.size > 0 {
			s.violation("Write: %v", err) // also when the client has gone, which neither stops the handler nor loses the answer
		}
		if a.flushes {
			if err := http.NewResponseController(w).Flush(); err != nil {
				s.violation("Flush: %v", err)
			}
		}
	}
	if a.trailer {
		h.Set("X-Sum", strconv.Itoa(a.size))
	}
}
