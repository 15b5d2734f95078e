package redisstore

import (
	"context"
	"sync"
	"time"

	"github.com/idemflight/idemflight"
)

// How long after a look a watched claim is looked at again: at first, and at most. Each pause is twice the one
// before.
const (
	firstPause   = 5 * time.Millisecond
	longestPause = 250 * time.Millisecond
)

// watches are the claims that somebody watches. One goroutine per Store polls for all of them; there is none
// while nobody watches.
type watches struct {
	// mu guards what follows, and the fields of each watched as far as they say so. The engine is never
	// asked with mu held.
	mu     sync.Mutex
	claims map[idemflight.Claim]*watched
	poller *poller // nil exactly if nobody watches
}

// poller is the goroutine that polls. It ends soon after its context.
type poller struct {
	ctx  context.Context
	stop context.CancelFunc
	wake chan struct{} // has room for one
}

// watched is a claim that somebody watches.
type watched struct {
	// Guarded by mu.
	callers int
	pause   time.Duration
	due     time.Time

	// err is written before done is closed, and only read after.
	done chan struct{}
	err  error
}

// Watch returns nil once the claim is no longer in flight, or its lease has ended: the latter at once, the former
// up to 250 ms later if it took long, or about 5 ms if it did not. It returns the error of an engine that could
// not be asked. Cost: one goroutine and one round trip per look, for all that is watched in this Store.
func (s *Store) Watch(ctx context.Context, c idemflight.Claim) error {
	if err := checkKey(c.Key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	w := s.join(c)
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
		s.leave(c, w)
		return ctx.Err()
	}
}

// join counts a caller that watches c.
func (s *Store) join(c idemflight.Claim) *watched {
	ws := &s.watches
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.poller == nil {
		ctx, stop := context.WithCancel(context.Background())
		ws.poller = &poller{ctx: ctx, stop: stop, wake: make(chan struct{}, 1)}
		ws.claims = map[idemflight.Claim]*watched{}
		go s.poll(ws.poller)
	}
	w := ws.claims[c]
	if w == nil {
		w = &watched{pause: firstPause, due: time.Now().Add(firstPause), done: make(chan struct{})}
		ws.claims[c] = w
		select {
		case ws.poller.wake <- struct{}{}:
		default: // it is about to wake anyway
		}
	}
	w.callers++
	return w
}

// leave takes a caller's leave, whose context has ended.
func (s *Store) leave(c idemflight.Claim, w *watched) {
	s.watches.mu.Lock()
	defer s.watches.mu.Unlock()
	w.callers--
	if w.callers == 0 {
		s.watches.dropLocked(c, w)
	}
}

// dropLocked takes w away, and stops the poller with the last. w may have gone already, and another be there
// for the same claim. Must be called with mu held.
func (ws *watches) dropLocked(c idemflight.Claim, w *watched) {
	if ws.claims[c] != w {
		return
	}
	delete(ws.claims, c)
	if len(ws.claims) == 0 {
		ws.poller.stop()
		ws.poller = nil
	}
}

// look is a claim that is due, and what watches it.
type look struct {
	claim idemflight.Claim
	by    *watched
}

// poll looks at all claims that are due, until p is stopped.
func (s *Store) poll(p *poller) {
	for p.ctx.Err() == nil {
		due, pause := s.watches.due()
		if len(due) > 0 {
			s.lookAt(p.ctx, due)
			continue
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-p.wake:
		case <-p.ctx.Done():
		}
		timer.Stop()
	}
}

// due returns the claims that are due, or how long it is until one will be.
func (ws *watches) due() (due []look, pause time.Duration) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	pause = longestPause
	now := time.Now()
	for c, w := range ws.claims {
		if left := w.due.Sub(now); left > 0 {
			pause = min(pause, left)
		} else {
			due = append(due, look{c, w})
		}
	}
	return due, pause
}

// lookAt asks for claims that are due, and ends the watches of those that are over or could not be asked for.
func (s *Store) lookAt(ctx context.Context, due []look) {
	keys, args := make([]string, len(due)), make([][]any, len(due))
	for i, l := range due {
		keys[i], args[i] = s.prefix+l.claim.Key+suffix, []any{id(l.claim.ID)}
	}
	cmds, err := s.runEach(ctx, watch, keys, args)
	if err != nil {
		return // p was stopped: nobody watches these any more
	}

	s.watches.mu.Lock()
	defer s.watches.mu.Unlock()
	for i, l := range due {
		left, err := cmds[i].Int64()
		if err == nil && left > 0 {
			l.by.pause = min(2*l.by.pause, longestPause)
			again := time.Duration(min(left, l.by.pause.Milliseconds())) * time.Millisecond
			l.by.due = time.Now().Add(again)
			continue
		}
		if s.watches.claims[l.claim] == l.by {
			l.by.err = naming(l.claim.Key, err)
			close(l.by.done)
			s.watches.dropLocked(l.claim, l.by)
		}
	}
}
