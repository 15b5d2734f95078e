package idemflight

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// keeper does what a cache with a Store has to do in the background: it renews the leases of the
// claims under which fn runs, offers again the outcomes that the store did not take, and gives back
// the claims whose answers never came. One timer does all of it, every third of a lease, and only
// while there is something to do.
type keeper[K comparable, V any] struct {
	c     *Cache[K, V]
	codec Codec[K, V] // with defaults filled in

	failures atomic.Uint64 // attempts to ask the store that failed

	// mu guards the rest. Only code that takes no lock is called with it held; in particular, the
	// mu of an execution is never taken under it.
	mu     sync.Mutex
	claims map[ClaimID]*claim
	offers map[string]*offer[K] // by key
	unused []Claim              // to be given back: their answers never came
	pauses map[ClaimID]pause    // after a Reconcile that learned nothing, by the hold that it left
	timer  *time.Timer
	armed  bool

	telling map[K]int // how many EventStores of a key the Observer is getting

	offering bool // a beat gives back and offers
}

// offer is an outcome that the store did not take.
type offer[K comparable] struct {
	key         K
	claim       Claim
	settlement  Settlement
	fingerprint Fingerprint
	err         error // what the store said
	at          time.Duration
}

func newKeeper[K comparable, V any](c *Cache[K, V]) *keeper[K, V] {
	codec, _ := c.opts.Codec.withDefaults() // New has checked it
	return &keeper[K, V]{
		c: c, codec: codec,
		claims: map[ClaimID]*claim{}, offers: map[string]*offer[K]{}, pauses: map[ClaimID]pause{}, telling: map[K]int{},
	}
}

// encodeKey returns the text of key, or ErrInvalidKey.
func (k *keeper[K, V]) encodeKey(key K) (text string, err error) {
	k.c.guard(
		func() {
			text, err = k.codec.EncodeKey(key)
			err = finite(err)
			_ = isAnswer(err) // a method of it that panics does so here
		},
		func(panicked error) { err = panicked })
	if err != nil {
		err = fmt.Errorf("%w: it cannot be encoded: %w", ErrInvalidKey, err)
	}
	return text, err
}

// retaining returns the settlement with which an outcome is retained, or says that
// it cannot be encoded.
func (k *keeper[K, V]) retaining(value V, cause error, origin *Origin, ttl time.Duration) (s Settlement, err error) {
	s = Settlement{Disposition: Retain, TTL: ttl}
	k.c.guard(func() {
		s.Err = k.codec.encodeOutcome(origin, cause)
		s.Value, err = k.codec.EncodeValue(value)
	}, func(panicked error) { err = panicked })
	if err != nil {
		err = fmt.Errorf("idemflight: the outcome cannot be encoded: %w", err)
	}
	return s, err
}

// runs notes the execution that runs under cl, whose lease is renewed from now on until forget.
func (k *keeper[K, V]) runs(cl *claim, e *execution) {
	k.mu.Lock()
	defer k.mu.Unlock()
	cl.exec = e
	k.claims[cl.ID] = cl
	k.armLocked()
}

func (k *keeper[K, V]) forget(cl *claim) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.claims, cl.ID)
	k.disarmLocked()
}

// giveBackLater has claims given back for which it is not known whether they were granted. If
// there are more than MaxEntries, the first are left to their leases: a store that is down must
// not fill the memory.
func (k *keeper[K, V]) giveBackLater(claims ...Claim) {
	if len(claims) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.unused = append(k.unused, claims...)
	k.unused = k.unused[max(0, len(k.unused)-k.c.opts.MaxEntries):]
	k.armLocked()
}

// offerLater has an outcome offered again until the store takes it.
func (k *keeper[K, V]) offerLater(o *offer[K]) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.offers[o.claim.Key] = o
	k.armLocked()
}

// offered returns the outcome of key that the store has not taken yet, or nil.
func (k *keeper[K, V]) offered(key string) *offer[K] {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.offers[key]
}

// withdraw drops the outcome of key that the store had not taken before the given time, if there is
// one: an operator has settled the key since. So its claim is gone, whatever the store says to
// another offer.
func (k *keeper[K, V]) withdraw(key string, before time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if o := k.offers[key]; o != nil && o.at < before {
		delete(k.offers, key)
	}
}

// pause notes that Reconcile learned nothing about the hold with the given ID.
func (k *keeper[K, V]) pause(id ClaimID, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.c.now()
	for id, p := range k.pauses {
		if p.over(now) {
			delete(k.pauses, id)
		}
	}
	k.pauses[id] = pause{now + pauseTime, err}
}

// paused returns the error that calls on a hold get during a pause, or nil if there is none.
func (k *keeper[K, V]) paused(id ClaimID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	p, ok := k.pauses[id]
	if !ok || p.over(k.c.now()) {
		return nil
	}
	return p.err
}

func (k *keeper[K, V]) idleLocked() bool { return len(k.claims)+len(k.offers)+len(k.unused) == 0 }

func (k *keeper[K, V]) armLocked() { k.armInLocked(k.c.opts.Lease / 3) }

func (k *keeper[K, V]) armInLocked(d time.Duration) {
	if k.armed {
		return
	}
	k.armed = true
	if k.timer == nil {
		k.timer = time.AfterFunc(d, k.beat)
	} else {
		k.timer.Reset(d)
	}
}

func (k *keeper[K, V]) disarmLocked() {
	if k.armed && k.idleLocked() && k.timer.Stop() {
		k.armed = false
	}
}

// beat does what is due, on a goroutine of its own. The next beat begins a third of a lease after
// this one began, even while this one is still offering: an offer must not delay a renewal. A
// renewal that hangs is given up after a sixth, and tried again at once: an execution that was
// just too young for one beat has a third of its lease left at the next. Whatever follows user
// code is deferred, because the Observer may call runtime.Goexit.
func (k *keeper[K, V]) beat() {
	began, next := k.c.now(), k.c.opts.Lease/6
	defer func() { k.beatAgain(began + next) }()
	k.within(k.c.opts.Lease/6, func(ctx context.Context) {
		if k.renew(ctx) {
			next = k.c.opts.Lease / 3
		}
	})
}

func (k *keeper[K, V]) beatAgain(at time.Duration) {
	k.mu.Lock()
	k.armed = false
	if !k.idleLocked() {
		k.armInLocked(max(at-k.c.now(), firstPause))
	}
	busy := k.offering
	k.offering = true
	k.mu.Unlock()
	if busy {
		return
	}
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.offering = false
		k.disarmLocked()
	}()
	defer k.within(k.c.opts.Lease/3, k.offer)
	k.within(k.c.opts.Lease/3, k.giveBack)
}

// within gives part of a beat so much time.
func (k *keeper[K, V]) within(limit time.Duration, part func(context.Context)) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	part(ctx)
}

// renew renews the leases of the executions that have run for a third of a lease or longer, and
// reports whether the store answered.
func (k *keeper[K, V]) renew(ctx context.Context) bool {
	var due []Claim
	k.mu.Lock()
	for _, cl := range k.claims {
		if k.c.now()-cl.since >= k.c.opts.Lease/3 {
			due = append(due, cl.Claim)
		}
	}
	k.mu.Unlock()
	if len(due) == 0 {
		return true
	}
	var lost []ClaimID
	err := contained(func() (err error) {
		lost, err = k.c.opts.Store.Renew(ctx, due, k.c.opts.Lease)
		return err
	})
	if err != nil {
		k.c.storeFailed(*new(K), err)
	}
	for _, id := range lost {
		k.mu.Lock()
		cl := k.claims[id]
		delete(k.claims, id)
		var e *execution
		if cl != nil {
			e = cl.exec
		}
		k.mu.Unlock()
		if e != nil {
			e.lose()
		}
	}
	return err == nil
}

// giveBack gives back claims for which it is not known whether they were granted.
func (k *keeper[K, V]) giveBack(ctx context.Context) {
	k.mu.Lock()
	unused := k.unused
	k.unused = nil
	k.mu.Unlock()
	defer func() { k.giveBackLater(unused...) }()
	for len(unused) > 0 && ctx.Err() == nil {
		id := unused[0]
		err := contained(func() error { return k.c.opts.Store.GiveBack(ctx, id) })
		unused = unused[1:]
		if err != nil && !isAnswer(err) { // the others will hardly fare better
			unused = append(unused, id)
			k.c.storeFailed(*new(K), err)
			return
		}
	}
}

// offer offers the store the outcomes that it has not taken.
func (k *keeper[K, V]) offer(ctx context.Context) {
	k.mu.Lock()
	offers := make([]*offer[K], 0, len(k.offers))
	for _, o := range k.offers {
		offers = append(offers, o)
	}
	k.mu.Unlock()
	for _, o := range offers {
		if ctx.Err() != nil {
			return
		}
		err := contained(func() error {
			_, err := k.c.opts.Store.Settle(ctx, o.claim, o.settlement)
			return err
		})
		if err != nil && !isAnswer(err) {
			k.c.storeFailed(o.key, err)
			continue
		}
		k.mu.Lock()
		if k.offers[o.claim.Key] == o {
			delete(k.offers, o.claim.Key)
		}
		k.mu.Unlock()
	}
}

// Pauses between attempts to ask the store.
const (
	patience   = 5 * time.Second // for how long a verb is repeated; Settle is repeated for a lease
	firstPause = 5 * time.Millisecond
	longPause  = 500 * time.Millisecond
)

func nextPause(p time.Duration) time.Duration { return min(2*p, longPause) }

// rest waits for a pause, or until ctx ends.
func rest(ctx context.Context, pause time.Duration) {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// patiently calls verb, which asks the store, until the store answers, for at most upTo: every verb
// may be repeated. It returns nil or an error that is an answer (see isAnswer); otherwise ErrStore
// around what the store said last.
func (c *Cache[K, V]) patiently(ctx context.Context, key K, upTo time.Duration, verb func(context.Context) error) error {
	if err := ctx.Err(); err != nil { // the store is not asked on behalf of a caller that has left
		return &storeError{err}
	}
	ctx, cancel := context.WithTimeout(ctx, upTo)
	defer cancel()
	for pause := firstPause; ; pause = nextPause(pause) {
		err := contained(func() error { return verb(ctx) })
		if err == nil || isAnswer(err) {
			return err
		}
		c.storeFailed(key, err)
		if ctx.Err() == nil {
			rest(ctx, pause)
		}
		if ctx.Err() != nil {
			return &storeError{err}
		}
	}
}

// isAnswer reports whether the store has answered with err, and is not to be asked again.
func isAnswer(err error) bool { return errors.Is(err, ErrClaimLost) || errors.Is(err, ErrInvalidKey) }

// contained calls verb, which calls the user's store, and turns a panic into an error, even a panic
// of a method of the store's error.
func contained(verb func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = newPanicError(v).withoutStack()
		}
	}()
	if err = finite(verb()); err != nil {
		_ = isAnswer(err)
		_ = err.Error()
	}
	return err
}

// tooDeep is how many EventStores of one key an Observer gets at once; of more it may be the cause
// itself, because it asks the store that fails about the key of which it is told.
const tooDeep = 100

// storeFailed counts and reports an attempt that failed.
func (c *Cache[K, V]) storeFailed(key K, err error) {
	k := c.keeper
	k.failures.Add(1)
	if c.opts.Observer == nil || !k.tells(key) {
		return
	}
	defer k.told(key) // even if the Observer calls runtime.Goexit
	c.observe(context.Background(), Event[K]{Kind: EventStore, Key: key, Err: err})
}

// tells reports whether the Observer is to be told of a failure for key; then told must follow.
func (k *keeper[K, V]) tells(key K) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.telling[key] == tooDeep {
		return false
	}
	k.telling[key]++
	return true
}

func (k *keeper[K, V]) told(key K) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.telling[key]--; k.telling[key] == 0 {
		delete(k.telling, key)
	}
}
