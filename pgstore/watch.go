package pgstore

import (
	"context"
	"encoding/hex"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/idemflight/idemflight"
)

// How long after one look at a watched claim the next one comes: longer each time.
const (
	firstLook   = 5 * time.Millisecond
	laterLook   = 250 * time.Millisecond
	listenAfter = 50 * time.Millisecond // when looks are so far apart, a notification is worth its cost
	lookWithin  = 10 * time.Second      // what a look may take; then it is an error
	listenAgain = 10 * time.Second      // after the connection was lost, or the server refused it
)

// watching has the poller, which looks at all claims that this process watches, in one statement. Its
// goroutine starts with the first watch and ends with the last. A second one listens for the ends of those
// that take longer, and lets the poller look at them at once: so whatever is not told is found all the same.
type watching struct {
	mu     sync.Mutex    // guards poller and what it has. No query runs with it held.
	poller *poller       // nil: nobody watches
	later  time.Duration // laterLook; longer in tests
}

// poller is one run of the goroutine.
type poller struct {
	watches map[*watch]struct{}
	news    chan struct{} // holds one token if there is something new to look at
	cancel  context.CancelFunc

	listener  bool      // its goroutine runs
	listening bool      // and the server has taken LISTEN
	again     time.Time // earlier it is not tried again
}

// watch is one call of Watch.
type watch struct {
	claim  idemflight.Claim
	done   chan error // gets the answer; room for one
	next   time.Time  // of a look
	pause  time.Duration
	marked bool // those who listen will be told
}

// Watch is [idemflight.Store].Watch. It polls: the first look comes after 5 ms, later ones at up to 250 ms,
// and from 50 ms on it listens, too. Cost: one round trip per look for all that the process watches, and one
// more for each claim that takes longer.
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
	p.wake()
	return p
}

// wake lets the poller see what is due.
func (p *poller) wake() {
	select {
	case p.news <- struct{}{}:
	default:
	}
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
		due, next := s.takeDue(ctx, p)
		for len(due) > 0 {
			s.look(ctx, p, due)
			due, next = s.takeDue(ctx, p)
		}
		timer.Reset(time.Until(next))
	}
}

// takeDue returns the watches of p whose time has come, and the time of the next one. Those it returns get a new
// time now: what is told while they are looked at makes them due again. It starts the goroutine that listens once
// somebody waits for long.
func (s *Store) takeDue(ctx context.Context, p *poller) (due []*watch, next time.Time) {
	s.watching.mu.Lock()
	defer s.watching.mu.Unlock()
	now := time.Now()
	next = now.Add(s.watching.later)
	for w := range p.watches {
		if !w.next.After(now) {
			due = append(due, w)
			w.pause = min(w.pause*3/2, s.watching.later)
			w.next = now.Add(w.pause/2 + rand.N(w.pause)) // apart from other processes
		}
		if w.next.Before(next) {
			next = w.next
		}
		if w.pause >= listenAfter && !p.listener && !p.again.After(now) {
			p.listener = true
			go s.listen(ctx, p)
		}
	}
	return due, next
}

// look answers those watches whose claim is no longer in flight and alive, and all if it could not ask.
func (s *Store) look(ctx context.Context, p *poller, due []*watch) {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	s.mark(ctx, p, due)
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
		if err != nil || !alive[w.claim] {
			select {
			case w.done <- err:
			default: // answered before
			}
		}
	}
}

// mark lets the ends of claims be told to those who listen, of which this process is one. The look that
// follows sees what has ended before. If it fails, the looks will do.
func (s *Store) mark(ctx context.Context, p *poller, due []*watch) {
	var ids [][]byte
	s.watching.mu.Lock()
	for _, w := range due {
		if p.listening && w.pause >= listenAfter && !w.marked {
			w.marked = true
			ids = append(ids, w.claim.ID[:])
		}
	}
	s.watching.mu.Unlock()
	if len(ids) > 0 {
		_, _ = s.pool.Exec(ctx, s.sql.mark, ids)
	}
}

// listen lets the poller look at what it is told of, until ctx ends or the connection is lost.
func (s *Store) listen(ctx context.Context, p *poller) {
	_ = s.withConnection(ctx, func(conn *pgx.Conn) error { // without it the looks go on
		if _, err := conn.Exec(ctx, "listen "+channel); err != nil {
			return err
		}
		s.listens(p, func(w *watch) bool { return w.pause >= listenAfter }) // to be marked
		for {
			n, err := conn.WaitForNotification(ctx)
			if err != nil {
				return err
			}
			id, _ := hex.DecodeString(n.Payload)
			s.listens(p, func(w *watch) bool { return string(w.claim.ID[:]) == string(id) })
		}
	})
	s.watching.mu.Lock()
	defer s.watching.mu.Unlock()
	p.listener, p.listening, p.again = false, false, time.Now().Add(listenAgain)
}

// listens notes that the server has taken LISTEN, and lets the poller look at some watches at once.
func (s *Store) listens(p *poller, at func(*watch) bool) {
	s.watching.mu.Lock()
	defer s.watching.mu.Unlock()
	p.listening = true
	for w := range p.watches {
		if at(w) {
			w.next = time.Time{}
		}
	}
	p.wake()
}

// withConnection calls f with a connection that is made like those of the pool, and is none of them: whoever
// listens keeps it, and the verbs of several stores must not wait for that.
func (s *Store) withConnection(ctx context.Context, f func(*pgx.Conn) error) error {
	config := s.pool.Config()
	if config.BeforeConnect != nil {
		if err := config.BeforeConnect(ctx, config.ConnConfig); err != nil {
			return err
		}
	}
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx) // nothing is lost with it
	}()
	if config.AfterConnect != nil {
		if err := config.AfterConnect(ctx, conn); err != nil {
			return err
		}
	}
	return f(conn)
}
