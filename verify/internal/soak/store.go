package soak

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/storetest"
)

// Engine is where the stores of a soak are.
type Engine struct {
	Name string

	// Open returns an empty store, which all caches of a round share, and what removes it again.
	Open func(ctx context.Context) (s idemflight.Store, remove func() error, err error)
}

// memory is the engine of rounds that name none.
var memory = Engine{"memory", func(context.Context) (idemflight.Store, func() error, error) {
	return storetest.Mem(), func() error { return nil }, nil
}}

// books is what is known of the claims of a store, from what it has answered.
type books struct {
	now   func() int64
	lease int64
	text  func(key int) string
	kill  func(idemflight.ClaimID) bool // ends a lease; nil if the store cannot

	stalled atomic.Bool // the engine has taken half a lease, or longer, for a verb

	mu     sync.Mutex
	claims map[idemflight.ClaimID]*granted
	lapsed map[string]bool // keys of which a lease has ended, or may have
	unsaid map[string]bool // keys of which the answer of a Settle was lost
}

// granted is a claim that the store has granted.
type granted struct {
	key     string
	leased  int64 // when the last request was sent that has moved the end of the lease
	settled bool
}

func newBooks(now func() int64, lease time.Duration, text func(int) string) *books {
	return &books{now: now, lease: int64(lease), text: text, claims: map[idemflight.ClaimID]*granted{}, lapsed: map[string]bool{}, unsaid: map[string]bool{}}
}

// grants notes what Claim has granted, on behalf of x if that is not nil.
func (b *books) grants(r idemflight.ClaimRequest, sent int64, x *execution) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.claims[r.ID] == nil { // else it is a repeat
		b.claims[r.ID] = &granted{key: r.Key, leased: sent}
	}
	if replaced := b.claims[r.Replaces]; replaced != nil && !replaced.settled {
		b.lapsed[r.Key] = true
	}
	if x != nil {
		x.claim = r.ID
	}
}

// leases notes that a request which was sent then has moved the end of the lease, or has ended the claim.
func (b *books) leases(id idemflight.ClaimID, sent int64, settled bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.claims[id]
	if c == nil || c.settled {
		return
	}
	if b.now()-c.leased >= b.lease {
		b.lapsed[c.key] = true
	}
	c.leased, c.settled = sent, settled
}

// owns reports whether x runs under a claim of its key.
func (b *books) owns(x *execution) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.claims[x.claim]
	return c != nil && c.key == b.text(x.plan.key) && !c.settled
}

func (b *books) lapse(key int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lapsed[b.text(key)] = true
}

// hasLapsed reports whether a lease of the key may have ended so far.
func (b *books) hasLapsed(key int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := b.text(key)
	if b.lapsed[text] {
		return true
	}
	for _, c := range b.claims {
		if c.key == text && !c.settled && b.now()-c.leased >= b.lease {
			return true
		}
	}
	return false
}

// mayBeLost reports whether ErrClaimLost is to be expected of the key: a lease has ended; or a Settle was
// not answered, what it recorded was dropped, and another has claimed the key, before it was repeated.
func (b *books) mayBeLost(key int) bool {
	if b.hasLapsed(key) {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.unsaid[b.text(key)]
}

// end returns the keys of which a lease may have ended, now that all is at rest.
func (b *books) end() map[string]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.claims {
		if !c.settled {
			b.lapsed[c.key] = true
		}
	}
	return b.lapsed
}

// door is how one process gets to the store: some verbs fail there, before they act or after, and during an
// outage all of them.
type door struct {
	idemflight.Store
	books  *books
	breaks int // of 1,000 verbs
	down   atomic.Bool

	mu     sync.Mutex
	chance *rand.Rand
}

var errBroken = errors.New("the engine does not answer")

// ask has the store do a verb, unless it is to fail, and notes if that takes long.
func (s *door) ask(verb func() error) error {
	return s.through(func() error {
		sent := s.books.now()
		err := verb()
		if s.books.now()-sent >= s.books.lease/2 {
			s.books.stalled.Store(true)
		}
		return err
	})
}

// through has the store do a verb, unless it is to fail.
func (s *door) through(verb func() error) error {
	s.mu.Lock()
	broken, acts := s.chance.IntN(1000) < s.breaks, s.chance.IntN(2) == 0
	s.mu.Unlock()
	if s.down.Load() || broken && !acts {
		return errBroken
	}
	err := verb()
	if broken {
		return errBroken
	}
	return err
}

func (s *door) Claim(ctx context.Context, r idemflight.ClaimRequest) (answer idemflight.Standing, err error) {
	sent := s.books.now()
	err = s.ask(func() (err error) {
		if answer, err = s.Store.Claim(ctx, r); err == nil && answer.Granted {
			x, _ := ctx.Value(executionKey{}).(*execution)
			s.books.grants(r, sent, x)
		}
		return err
	})
	return answer, err
}

func (s *door) Begin(ctx context.Context, c idemflight.Claim, lease time.Duration) error {
	sent := s.books.now()
	return s.ask(func() error {
		err := s.Store.Begin(ctx, c, lease)
		if err == nil {
			s.books.leases(c.ID, sent, false)
		}
		return err
	})
}

func (s *door) Settle(ctx context.Context, c idemflight.Claim, what idemflight.Settlement) (answer idemflight.Standing, err error) {
	err = s.ask(func() (err error) {
		if answer, err = s.Store.Settle(ctx, c, what); err == nil {
			s.books.leases(c.ID, 0, true)
		}
		return err
	})
	if err == errBroken {
		s.books.mu.Lock()
		s.books.unsaid[c.Key] = true
		s.books.mu.Unlock()
	}
	return answer, err
}

func (s *door) Renew(ctx context.Context, cs []idemflight.Claim, lease time.Duration) (lost []idemflight.ClaimID, err error) {
	sent := s.books.now()
	err = s.ask(func() (err error) {
		if lost, err = s.Store.Renew(ctx, cs, lease); err != nil {
			return err
		}
		gone := map[idemflight.ClaimID]bool{}
		for _, id := range lost {
			gone[id] = true
		}
		for _, c := range cs {
			if !gone[c.ID] {
				s.books.leases(c.ID, sent, false)
			}
		}
		return nil
	})
	return lost, err
}

func (s *door) Watch(ctx context.Context, c idemflight.Claim) error {
	return s.through(func() error { return s.Store.Watch(ctx, c) }) // which waits
}

func (s *door) Read(ctx context.Context, key string) (answer idemflight.Standing, err error) {
	err = s.ask(func() (err error) {
		answer, err = s.Store.Read(ctx, key)
		return err
	})
	return answer, err
}

func (s *door) GiveBack(ctx context.Context, c idemflight.Claim) error {
	return s.ask(func() error {
		err := s.Store.GiveBack(ctx, c)
		if err == nil {
			s.books.leases(c.ID, 0, true)
		}
		return err
	})
}

func (s *door) Forget(ctx context.Context, c idemflight.Claim) (was bool, err error) {
	err = s.ask(func() (err error) {
		was, err = s.Store.Forget(ctx, c)
		return err
	})
	return was, err
}

func (s *door) Unsettled(ctx context.Context, f func(key string, x idemflight.Standing) error) error {
	return s.ask(func() error { return s.Store.Unsettled(ctx, f) })
}
