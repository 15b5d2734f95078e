package idemflight

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/idemflight/idemflight/internal/yield"
)

// The operators' verbs with a Store: they read and change the store.

// read asks the store about a key.
func (c *Cache[K, V]) read(ctx context.Context, key K, text string) (standing Standing, err error) {
	err = c.patiently(ctx, key, patience, func(ctx context.Context) error {
		standing, err = c.opts.Store.Read(ctx, text)
		return err
	})
	if err == nil && standing.free() {
		standing = Standing{ID: standing.ID}
	}
	return standing, err
}

// free reports whether the key is in flight by name only: its owner is dead and has begun nothing.
func (s *Standing) free() bool { return s.State == InFlight && s.ExpiresIn == 0 && !s.Begun }

// lookupStored is Lookup with a Store.
func (c *Cache[K, V]) lookupStored(ctx context.Context, key K) (e Entry[V], ok bool, err error) {
	hash := c.hash(key) // first: it says what is wrong with a key that has none
	if err := checkKey(&c.traits, key); err != nil {
		return e, false, nil // nothing is ever kept under it
	}
	text, err := c.keeper.encodeKey(key)
	if err != nil {
		return e, false, err
	}
	at := c.now()
	standing, err := c.read(ctx, key, text)
	if err != nil || standing.State == Absent {
		return e, false, err
	}
	if e, err = c.entryOf(standing, at); err != nil {
		return e, true, &storeError{fmt.Errorf("its record cannot be read: %w", err)}
	}
	if e.State == InFlight {
		s := c.shardOf(hash)
		s.mu.Lock()
		if f := s.flights.get(hash, key); f != nil {
			e.Waiters, e.Origin = int(f.waiters), f.origin()
		}
		s.mu.Unlock()
	}
	return e, true, nil
}

// forgetStored is Forget with a Store: the copy in memory has been dropped already.
func (c *Cache[K, V]) forgetStored(ctx context.Context, key K) (was bool, err error) {
	text, err := c.keeper.encodeKey(key)
	if err != nil {
		return false, err
	}
	for range tooOften {
		asked := c.now()
		standing, err := c.read(ctx, key, text)
		if err != nil || standing.State == Absent {
			return false, err
		}
		attempts := 0
		err = c.patiently(ctx, key, patience, func(ctx context.Context) error {
			attempts++
			was, err = c.opts.Store.Forget(ctx, Claim{text, standing.ID})
			return err
		})
		if was && standing.State != InFlight {
			c.keeper.withdraw(text, asked)
		}
		if err != nil || was {
			return was, err
		}
		if attempts > 1 {
			return true, nil // an earlier attempt may have dropped it, and what is there now is not meant
		}
	}
	return false, nil
}

// operate claims a held key for an operator, and settles it. It returns ErrNotHeld if the key is
// not held, or another caller is quicker.
func (c *Cache[K, V]) operate(ctx context.Context, key K, settlement func(*Origin) (Settlement, error)) error {
	text, err := c.keeper.encodeKey(key)
	if err != nil {
		return err
	}
	asked := c.now()
	held, err := c.read(ctx, key, text)
	switch {
	case err != nil:
		return err
	case held.State != Held:
		return notHeld(held.State)
	}
	origin, _, _, _ := c.keeper.codec.decodeHeld(held.Err)
	s, err := settlement(origin)
	if err != nil {
		return fmt.Errorf("%w; the key stays held", err)
	}
	r := ClaimRequest{Fingerprint: held.Fingerprint, Reconcile: true, Replaces: held.ID, From: Held}
	got, err := c.request(ctx, key, text, &r)
	switch {
	case err != nil:
		return err
	case !got.Granted:
		return notHeld(got.State)
	case got.State != Held:
		c.keeper.giveBackLater(r.Claim)
		return notHeld(got.State)
	}
	c.keeper.withdraw(text, asked)
	// From here on it gets settled, whatever becomes of ctx.
	return c.settleClaim(context.WithoutCancel(ctx), key, r.Claim, s, c.opts.Lease)
}

// resolveStored is resolve with a Store.
func (c *Cache[K, V]) resolveStored(ctx context.Context, key K, value V, cause error, d Disposition) error {
	_ = c.hash(key) // says what is wrong with a key that has none
	if checkKey(&c.traits, key) != nil {
		return notHeld(Absent)
	}
	return c.operate(ctx, key, func(origin *Origin) (Settlement, error) {
		if d == Release {
			return Settlement{Disposition: Release}, nil
		}
		return c.keeper.retaining(value, cause, origin, c.opts.TTL)
	})
}

// reconcileStored is Reconcile with a Store.
func (c *Cache[K, V]) reconcileStored(ctx context.Context, key K) (Entry[V], error) {
	m := call[K, V]{c: c, key: key, ctx: ctx}
	m.reply.hash, m.reply.ended = c.hash(key), ctx.Done()
	if checkKey(&c.traits, key) != nil {
		return Entry[V]{}, notHeld(Absent)
	}
	m.shard, m.within = c.shardOf(m.reply.hash), executionOf(ctx)
	m.reply.opts.ttl, m.reply.opts.maxWait = -1, forever
	asks, err := m.claimToAsk()
	c.emit(m.notes)
	switch {
	case err == ErrCallerLeft:
		return Entry[V]{}, left(ctx, ctx.Err())
	case err == ErrFull:
		return Entry[V]{}, c.full()
	case err != nil:
		return Entry[V]{}, err
	}
	f := m.reply.flight
	select {
	case <-asks.answered:
	case <-m.reply.ended:
		if m.operatorLeaves() {
			return Entry[V]{}, left(ctx, ctx.Err())
		}
	}
	if !asks.claiming.reconciles { // the store has said why
		return Entry[V]{}, f.outcome.err
	}
	if m.leads && !f.outcome.lost {
		c.observe(ctx, f.ended(EventResolved))
	}
	e, _, err := c.lookupStored(ctx, key)
	switch {
	case asks.next == nil && Disposition(f.outcome.disposition) == Hold:
		return e, f.outcome.err
	case err != nil && ctx.Err() != nil: // the store failed because the operator left
		return e, left(ctx, ctx.Err())
	}
	return e, err
}

// claimToAsk finds the flight that asks Reconcile about the key, or starts one that asks the
// store whether it may.
func (m *call[K, V]) claimToAsk() (*asking[K, V], error) {
	c, s := m.c, m.shard
	exhausted, asOf := false, uint32(0) // the last makeRoom found nothing, as of this insertion
	for {
		if m.ctxErr = m.ctx.Err(); m.ctxErr != nil {
			return nil, ErrCallerLeft
		}
		yield.At("operate")
		s.mu.Lock()
		f := s.flights.get(m.reply.hash, m.key)
		switch {
		case f == nil && c.closed.Load():
			s.mu.Unlock()
			return nil, ErrClosed
		case f == nil:
			r := s.kept.get(m.reply.hash, m.key)
			if r != nil { // a copy, which may be out of date; its place passes to the flight
				c.removeLocked(s, r)
			}
			if r != nil || c.takePlace() {
				m.claimLocked(nil)
				f = m.reply.flight
				f.leaderLeft, f.operated = true, byOperator
				asks := f.asks
				s.mu.Unlock()
				go c.claim(f, nil)
				return asks, nil
			}
			s.mu.Unlock()
			if exhausted && asOf == c.seq.Load() {
				return nil, ErrFull
			}
			exhausted, asOf = c.makeRoom(m.key, m.reply.hash, &m.notes)
			continue
		case m.within.inside(&f.exec):
			s.mu.Unlock()
			return nil, ErrReentrant
		case f.undecided():
			decided := f.asks.claiming.decided
			s.mu.Unlock()
			select {
			case <-decided:
			case <-m.reply.ended:
			}
			continue
		case f.asks == nil || f.asks.claiming.watches:
			s.mu.Unlock()
			return nil, notHeld(InFlight)
		}
		m.reply.flight = f
		asks := f.asks
		s.mu.Unlock()
		return asks, nil
	}
}

// restoreStored is restore with a Store, into which it writes the entry. One whose value was shed
// becomes held, with ErrValueShed: a store has no state Shed, and fn must not run.
func (c *Cache[K, V]) restoreStored(ctx context.Context, key K, e Entry[V], held why) error {
	if c.closed.Load() {
		return ErrClosed
	}
	var notes []note[K]
	defer func() { c.emit(notes) }()
	d, err := c.draftFrom(key, e, &notes)
	if err != nil {
		return err
	}
	d.why = held
	if d.err == ErrInterrupted {
		d.why = interrupted
	}
	ttl := time.Duration(-1)
	switch {
	case e.State == InFlight:
		ttl = c.opts.HoldTTL
	case !e.ExpiresAt.IsZero():
		ttl = max(e.ExpiresAt.Sub(c.wall(c.syncWall())), 1)
	}
	if d.state == Shed {
		d.err = ErrValueShed
	}
	s := Settlement{Disposition: Hold, TTL: ttl}
	if d.state == Retained {
		s, err = c.keeper.retaining(d.value, d.err, d.origin, ttl)
	} else {
		c.guard(func() { s.Err = c.keeper.codec.encodeHeld(d.origin, d.err, d.why) }, func(panicked error) { err = panicked })
	}
	if err != nil {
		return err
	}
	text, err := c.keeper.encodeKey(key)
	if err != nil {
		return err
	}
	r := ClaimRequest{Fingerprint: e.Fingerprint}
	got, err := c.request(ctx, key, text, &r)
	if err == nil && !got.Granted && got.free() { // of a Restore that was cut off, for one
		r = ClaimRequest{Fingerprint: e.Fingerprint, Replaces: got.ID, From: InFlight}
		got, err = c.request(ctx, key, text, &r)
	}
	switch {
	case err != nil:
		return err
	case !got.Granted:
		return fmt.Errorf("idemflight: Restore of a key that the store has already, %v: restored twice?", got.State)
	}
	return c.settleClaim(context.WithoutCancel(ctx), key, r.Claim, s, c.opts.Lease)
}

// unsettledStored is Unsettled with a Store.
func (c *Cache[K, V]) unsettledStored(ctx context.Context, each func(K, Entry[V]) bool) error {
	enough := errors.New("enough")
	var unread error
	at := c.now()
	var theirs any // what each panicked with, if it did
	err := contained(func() error {
		return c.opts.Store.Unsettled(ctx, func(text string, s Standing) error {
			if s.free() {
				return nil
			}
			var key K
			var err error
			c.guard(
				func() { key, err = c.keeper.codec.DecodeKey(text) },
				func(panicked error) { err = panicked })
			if err != nil {
				unread = errors.Join(unread, fmt.Errorf("the key %q: %w", text, err))
				return nil
			}
			e, err := c.entryOf(s, at)
			if err != nil {
				unread = errors.Join(unread, fmt.Errorf("the record of %q: %w", text, err))
				return nil
			}
			if e.State != InFlight && e.State != Held {
				return nil
			}
			more := false
			func() {
				defer func() {
					if theirs = recover(); theirs != nil {
						panic(theirs) // through the store's frames, and raised again below
					}
				}()
				more = each(key, e)
			}()
			if !more {
				return enough
			}
			return nil
		})
	})
	switch {
	case theirs != nil:
		panic(theirs)
	case errors.Is(err, enough):
		return nil
	case err != nil:
		c.storeFailed(*new(K), err)
		return &storeError{err}
	case unread != nil:
		return &storeError{fmt.Errorf("some of what it has cannot be read: %w", unread)}
	}
	return nil
}

// record has the store record how the execution ended, before any caller hears of it.
func (end *ending[K, V]) record(cl *claim) {
	c, f := end.c, end.flight
	defer c.keeper.forget(cl) // until then its lease is renewed

	if end.lost { // nothing ran that would have to be recorded
		return
	}
	s := Settlement{Disposition: Hold, TTL: c.opts.HoldTTL, Err: []byte(noText)} // until there is a better one
	answered := false
	defer func() {
		if !answered {
			end.offer(cl, s, &storeError{ErrGoexit})
		}
	}()
	s = end.settlement()
	var counts Standing
	var asked time.Duration
	yield.At("record")
	err := c.patiently(context.WithoutCancel(f.exec.leader), f.key, c.opts.Lease, func(ctx context.Context) (err error) {
		asked = c.now()
		counts, err = c.opts.Store.Settle(ctx, cl.Claim, s)
		return err
	})
	end.forgotten = err == nil && counts.Forgotten
	another := err == nil && counts.State == Retained && end.adopt(counts, s, asked)
	answered = true
	switch {
	case another:
		end.weigh()
	case err == nil && counts.State == Retained:
	case err == nil: // recorded
		if end.exec.reconciling && end.disposition == Hold {
			c.keeper.pause(cl.ID, end.unknown())
		}
	case !errors.Is(err, ErrStore):
		if end.disposition == Release && end.said != effectBegun && (!cl.settles || errors.Is(end.err, ErrClaimLost)) {
			end.lost = true
			return // nothing had begun: there is nothing to record
		}
		end.unheld = true
		end.hold(takenOver, ErrClaimLost)
	default:
		end.offer(cl, s, err)
	}
}

// offer holds the outcome, which the store has not taken, and has it offered to the store again.
func (end *ending[K, V]) offer(cl *claim, s Settlement, err error) {
	f := end.flight
	end.c.keeper.offerLater(&offer[K]{
		key: f.key, claim: cl.Claim, settlement: s, fingerprint: f.fingerprint, err: err, at: end.c.now(),
	})
	end.unheld = true
	end.hold(unrecorded, err)
}

// hold makes the outcome held for the given reason, because of what the store said.
func (end *ending[K, V]) hold(reason why, said error) {
	if end.err != nil {
		said = &bothErrors{said, end.err}
	}
	end.disposition, end.why, end.err = Hold, reason, said
}

// bothErrors is what the store said and what fn returned.
type bothErrors struct{ store, fn error }

func (e *bothErrors) Error() string   { return fmt.Sprintf("%v; fn returned: %v", e.store, e.fn) }
func (e *bothErrors) Unwrap() []error { return []error{e.store, e.fn} }

// settlement returns the outcome as it is to be recorded. An outcome that cannot be encoded is
// held: its effect has taken place.
func (end *ending[K, V]) settlement() (s Settlement) {
	c := end.c
	if end.disposition == Retain {
		if end.ttl() <= 0 {
			return Settlement{Disposition: Release}
		}
		s, err := c.keeper.retaining(end.value, end.err, end.origin, end.ttl())
		if err == nil {
			return s
		}
		c.note(&end.notes, Event[K]{Kind: EventStore, Key: end.flight.key, Err: err, Origin: end.c.originOf(end.c.shardOf(end.flight.hash), end.flight)})
		end.hold(unrecorded, err)
	}
	if end.disposition == Release {
		return Settlement{Disposition: Release}
	}
	s = Settlement{Disposition: Hold, TTL: c.opts.HoldTTL, Err: []byte(noText)}
	c.guard(func() { s.Err = c.keeper.codec.encodeHeld(end.origin, end.err, end.why) }, nil)
	return s
}

// adopt replaces the outcome by the one that the store has, unless they are the same: an earlier
// attempt, or the user's own transaction, has settled the claim. It reports whether it did; at is
// when the store was asked.
func (end *ending[K, V]) adopt(counts Standing, sent Settlement, at time.Duration) (another bool) {
	end.adopted, end.expires = true, deadlineOf(at, counts.ExpiresIn)
	if sent.Disposition == Retain && string(sent.Value) == string(counts.Value) && string(sent.Err) == string(counts.Err) {
		return false
	}
	e, err := end.c.entryOf(counts, at)
	if err != nil {
		end.hold(unrecorded, &storeError{fmt.Errorf("its record cannot be read: %w", err)})
		return false
	}
	end.disposition, end.value, end.err = Retain, e.Value, e.Err
	return true
}

// unknown returns the error for the callers of a flight whose outcome the store holds.
func (end *ending[K, V]) unknown() error {
	c := end.c
	c.syncWall()
	e := &unknownError{cause: end.err, why: end.why, until: after(c.wall(end.at), c.opts.HoldTTL)}
	if end.unheld { // until the lease ends: what the store says then may differ
		e.until = c.wall(end.at + c.opts.Lease)
	}
	if end.exec.reconciling {
		e.since = c.timesOf(end.flight.asks.held).completed
	}
	return e
}

// copyLocked keeps a copy of the outcome for a while, and returns when the copy expires.
func (end *ending[K, V]) copyLocked(s *shard[K, V], d *draft[K, V]) time.Duration {
	c := end.c
	ttl := end.keeps()
	keep := c.opts.LocalTTL
	if ttl >= 0 {
		keep = min(keep, ttl)
	}
	if keep <= 0 || d.weight > c.opts.MaxWeight || end.flight.forgotten {
		c.returnWeight(d.weight)
		c.returnPlace()
		return forever
	}
	c.syncWall()
	d.times = &times{c.wall(d.started), c.wall(d.done), after(c.wall(d.done), ttl), c.ahead.Load()}
	d.deadline = deadlineOf(end.at, keep)
	c.keepLocked(s, d, &end.notes)
	return d.deadline
}
