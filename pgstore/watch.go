package pgstore

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/jackc/pgx/v5"
)

// How long after one look at a watched claim the next one comes: longer each time.
const (
	firstLook  = 5 * time.Millisecond
	laterLook  = 250 * time.Millisecond
	lookWithin = 10 * time.Second // what a look may take; then it is an error
)

// watching has the poller, which looks at all claims that this process watches, in one statement. Its
// goroutine starts with the first watch and ends with the last.
type watching struct {
	mu     sync.Mutex // guards poller and its watches. No query runs with it held.
	poller *poller    // nil: nobody watches
}

// poller is one run of the goroutine.
type poller struct {
	watches map[*watch]struct{}
	news    chan struct{} // holds one token if there is a new watch
	cancel  context.CancelFunc
}

// watch is one call of Watch.
type watch struct {
	claim idemflight.Claim
	done  chan error // gets the answer; room for one

	// Of the poller alone, once the watch is among its watches.
	next  time.Time
	pause time.Duration
}

// Watch is [idemflight.Store].Watch. It polls: the first look comes after 5 ms, later ones at up to 250 ms.
// Cost: one round trip per look for all that the process watches.
func (s *Store) Watch(ctx context.Context, c idemflight.Claim) error {
	w := &watch{claim: c, done: make(chan error, 1), next: time.Now().Add(firstLook), pause: firstLook}
	defer s.unwatch(s.watch(w), w)
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Store) watch(w *watch) *poller {
	s.watching.mu.Lock()
	defer s.watching.mu.Unlock()
	p := s.watching.poller
	if p == nil {
		ctx, cancel := context.WithCancel(context.Background())
		p = &poller{watches: map[*watch]struct{}{}, news: make(chan struct{}, 1), cancel: cancel}
		s.watching.poller = p
		go s.poll(ctx, p)
	}
	p.watches[w] = struct{}{}
	select {
	case p.news <- struct{}{}:
	default:
	}
	return p
}

// unwatch removes w, and stops the poller with its last watch.
func (s *Store) unwatch(p *poller, w *watch) {
	s.watching.mu.Lock()
	defer s.watching.mu.Unlock()
	delete(p.watches, w)
	if len(p.watches) == 0 {
		p.cancel()
		if s.watching.poller == p {
			s.watching.poller = nil
		}
	}
}

// poll looks at the watches of p when their time has come, until ctx ends.
func (s *Store) poll(ctx context.Context, p *poller) {
	timer := time.NewTimer(firstLook)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.news:
		}
		due, next := s.due(p)
		if len(due) > 0 {
			s.look(ctx, due)
			_, next = s.due(p)
		}
		timer.Reset(time.Until(next))
	}
}

// due returns the watches of p whose time has come, and the time of the next one.
func (s *Store) due(p *poller) (due []*watch, next time.Time) {
	s.watching.mu.Lock()
	defer s.watching.mu.Unlock()
	now := time.Now()
	next = now.Add(laterLook)
	for w := range p.watches {
		if !w.next.After(now) {
			due = append(due, w)
		} else if w.next.Before(next) {
			next = w.next
		}
	}
	return due, next
}

// look answers those watches whose claim is no longer in flight and alive, and all if it could not ask.
func (s *Store) look(ctx context.Context, due []*watch) {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	keys := make([][]byte, len(due))
	for i, w := range due {
		keys[i] = []byte(w.claim.Key)
	}
	alive := map[idemflight.Claim]bool{}
	rows, err := s.pool.Query(ctx, s.sql.watched, s.name, keys)
	if err == nil {
		var key, id []byte
		_, err = pgx.ForEachRow(rows, []any{&key, &id}, func() error {
			alive[idemflight.Claim{Key: string(key), ID: idemflight.ClaimID(id)}] = true
			return nil
		})
	}
	for _, w := range due {
		w.pause = min(w.pause*3/2, laterLook)
		w.next = time.Now().Add(w.pause/2 + rand.N(w.pause)) // apart from other processes
		if err != nil || !alive[w.claim] {
			select {
			case w.done <- err:
			default: // answered before
			}
		}
	}
}
