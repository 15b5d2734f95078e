package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/record"
)

// Verbs are the names by which [Memory.Fail] and [Memory.Asked] know the methods of a Store.
var Verbs = []string{"Claim", "Begin", "Settle", "Renew", "Watch", "Read", "GiveBack", "Forget", "Unsettled"}

// When is a moment in the course of a verb.
type When int

const (
	Before When = iota // it has not acted
	After              // it has acted; its answer has not been given
)

// String returns "before" or "after".
func (w When) String() string {
	if w == Before {
		return "before"
	}
	return "after"
}

// ErrFailed is in every error that [Memory.Fail] makes.
var ErrFailed = errors.New("storetest: this verb was told to fail")

// Memory is an [idemflight.Store] in memory, for tests: of caches that share it, and of what they
// do when it fails. Make one with [Mem]. Its clock is time.Now, so in a testing/synctest bubble
// that of the bubble; it has no goroutines. All methods are safe for concurrent use. Keys, values
// and errors are copied.
type Memory struct {
	// mu guards all that follows. Hooks and f of Unsettled never run with mu held.
	mu      sync.Mutex
	records map[string]record.Record
	watched map[string]chan struct{} // closed and removed when the record changes
	fails   map[moment]int
	asked   map[string]int
	dead    map[idemflight.ClaimID]bool // for good: see KillAll
	hook    Hook
}

type moment struct {
	verb string
	when When
}

// Mem returns an empty Memory.
func Mem() *Memory {
	return &Memory{
		records: make(map[string]record.Record), watched: make(map[string]chan struct{}),
		fails: make(map[moment]int), asked: make(map[string]int), dead: make(map[idemflight.ClaimID]bool),
	}
}

// Hook is called for each verb, with its name: see [Memory.Hook]. The Claim has only the key for
// Read, and is zero for Renew and Unsettled.
type Hook func(ctx context.Context, when When, verb string, c idemflight.Claim) error

// Hook has h called before and after each verb acts, on the goroutine that asked, without a lock: h
// may wait, or ask m itself. If h returns an error, that is the error of the verb: returned before,
// the verb does not act; returned after, its answer is lost. After is called even if the answer is
// an error. h replaces the previous hook; nil means none.
func (m *Memory) Hook(h Hook) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = h
}

// Fail lets a verb fail with [ErrFailed] the next so many times, before it acts or after; 0 ends
// it, and a negative number means without end. It panics if there is no such verb.
func (m *Memory) Fail(verb string, when When, times int) {
	mustKnow(verb)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fails[moment{verb, when}] = times
}

// Asked returns how often a verb was called so far, failures included. It panics if
// there is no such verb.
func (m *Memory) Asked(verb string) int {
	mustKnow(verb)
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked[verb]
}

func mustKnow(verb string) {
	if !slices.Contains(Verbs, verb) {
		panic(fmt.Sprintf("storetest: no verb %q, but %q", verb, Verbs))
	}
}

// Kill makes the owner of the claim look dead: its lease ends now. It reports whether the claim was
// open. It goes through all records.
func (m *Memory) Kill(id idemflight.ClaimID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := now()
	for key, r := range m.records {
		if dead, ok := record.Renew(r, idemflight.Claim{Key: key, ID: id}, 0, at); ok {
			m.putLocked(key, dead)
			return true
		}
	}
	return false
}

// KillAll makes the owners of all open claims dead for good, as if their processes had been
// killed: the leases end now, and whatever the owners still ask changes nothing; they learn that
// they have lost their claims.
func (m *Memory) KillAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := now()
	for key, r := range m.records {
		if dead, ok := record.Renew(r, idemflight.Claim{Key: key, ID: r.ID}, 0, at); ok {
			m.dead[r.ID] = true
			m.putLocked(key, dead)
		}
	}
}

func now() record.At { return record.At{Now: time.Now().UnixNano()} }

// verb runs act, which has m.mu, between the hooks. An error of theirs takes the answer away.
func (m *Memory) verb(ctx context.Context, verb string, c idemflight.Claim, act func(record.At) error) error {
	return m.between(ctx, verb, c, func() error { return m.locked(act) })
}

func (m *Memory) between(ctx context.Context, verb string, c idemflight.Claim, act func() error) error {
	m.mu.Lock()
	m.asked[verb]++
	m.mu.Unlock()
	if err := m.at(ctx, moment{verb, Before}, c); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	answer := act()
	if err := m.at(ctx, moment{verb, After}, c); err != nil {
		return err
	}
	return answer
}

func (m *Memory) locked(act func(record.At) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return act(now())
}

// at is what happens at a moment.
func (m *Memory) at(ctx context.Context, now moment, c idemflight.Claim) error {
	m.mu.Lock()
	hook, times := m.hook, m.fails[now]
	if times > 0 {
		m.fails[now]--
	}
	m.mu.Unlock()
	if hook != nil {
		if err := hook(ctx, now.when, now.verb, c); err != nil {
			return err
		}
	}
	if times != 0 {
		return fmt.Errorf("%w: %s, %v it acted", ErrFailed, now.verb, now.when)
	}
	return nil
}

// getLocked returns the record of key, without one that has ended.
func (m *Memory) getLocked(key string, at record.At) record.Record {
	r := m.records[key]
	if r.State != record.Absent && record.End(r, at) <= at.Now {
		delete(m.records, key)
		return record.Record{}
	}
	return r
}

func (m *Memory) putLocked(key string, r record.Record) {
	if r.State == record.Absent || reflect.DeepEqual(m.records[key], r) {
		return
	}
	m.records[key] = r
	if changed, ok := m.watched[key]; ok {
		delete(m.watched, key)
		close(changed)
	}
}

// Claim is [idemflight.Store].Claim.
func (m *Memory) Claim(ctx context.Context, r idemflight.ClaimRequest) (x idemflight.Standing, err error) {
	err = m.verb(ctx, "Claim", r.Claim, func(at record.At) error {
		next, answer := record.Claim(m.getLocked(r.Key, at), r, at)
		m.putLocked(r.Key, next)
		x = answer
		return nil
	})
	return answerOf(x, err)
}

// answerOf returns x, but nothing beside an error.
func answerOf(x idemflight.Standing, err error) (idemflight.Standing, error) {
	if err != nil {
		return idemflight.Standing{}, err
	}
	return x, nil
}

// Begin is [idemflight.Store].Begin.
func (m *Memory) Begin(ctx context.Context, c idemflight.Claim, lease time.Duration) error {
	return m.verb(ctx, "Begin", c, func(at record.At) error {
		if m.dead[c.ID] {
			return idemflight.ErrClaimLost
		}
		next, err := record.Begin(m.getLocked(c.Key, at), c, lease, at)
		m.putLocked(c.Key, next)
		return err
	})
}

// Settle is [idemflight.Store].Settle.
func (m *Memory) Settle(ctx context.Context, c idemflight.Claim, s idemflight.Settlement) (x idemflight.Standing, err error) {
	err = m.verb(ctx, "Settle", c, func(at record.At) error {
		if m.dead[c.ID] {
			return idemflight.ErrClaimLost
		}
		next, answer, err := record.Settle(m.getLocked(c.Key, at), c, s, at)
		m.putLocked(c.Key, next)
		x = answer
		return err
	})
	return answerOf(x, err)
}

// Renew is [idemflight.Store].Renew.
func (m *Memory) Renew(ctx context.Context, cs []idemflight.Claim, lease time.Duration) (lost []idemflight.ClaimID, err error) {
	err = m.verb(ctx, "Renew", idemflight.Claim{}, func(at record.At) error {
		for _, c := range cs {
			next, ok := record.Renew(m.getLocked(c.Key, at), c, lease, at)
			if ok = ok && !m.dead[c.ID]; ok {
				m.putLocked(c.Key, next)
			} else {
				lost = append(lost, c.ID)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return lost, nil
}

// Watch is [idemflight.Store].Watch. It waits between the hooks.
func (m *Memory) Watch(ctx context.Context, c idemflight.Claim) error {
	return m.between(ctx, "Watch", c, func() error {
		changed, lease := m.watch(c)
		if changed == nil {
			return nil
		}
		over := time.NewTimer(lease)
		defer over.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed: // early, if it was renewed
		case <-over.C:
		}
		return nil
	})
}

// watch returns a channel that is closed when the record changes, and how long its lease is; nil if
// it is not in flight by c.
func (m *Memory) watch(c idemflight.Claim) (changed chan struct{}, lease time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := now()
	r := m.getLocked(c.Key, at)
	if !record.InFlight(r, c, at) {
		return nil, 0
	}
	if m.watched[c.Key] == nil {
		m.watched[c.Key] = make(chan struct{})
	}
	return m.watched[c.Key], time.Duration(r.Leased - at.Now)
}

// Read is [idemflight.Store].Read.
func (m *Memory) Read(ctx context.Context, key string) (x idemflight.Standing, err error) {
	err = m.verb(ctx, "Read", idemflight.Claim{Key: key}, func(at record.At) error {
		x = record.Read(m.getLocked(key, at), at)
		return nil
	})
	return answerOf(x, err)
}

// GiveBack is [idemflight.Store].GiveBack.
func (m *Memory) GiveBack(ctx context.Context, c idemflight.Claim) error {
	return m.verb(ctx, "GiveBack", c, func(at record.At) error {
		if !m.dead[c.ID] {
			m.putLocked(c.Key, record.GiveBack(m.getLocked(c.Key, at), c, at))
		}
		return nil
	})
}

// Forget is [idemflight.Store].Forget.
func (m *Memory) Forget(ctx context.Context, c idemflight.Claim) (found bool, err error) {
	err = m.verb(ctx, "Forget", c, func(at record.At) error {
		var next record.Record
		next, found = record.Forget(m.getLocked(c.Key, at), c, at)
		m.putLocked(c.Key, next)
		return nil
	})
	return found && err == nil, err
}

// Unsettled is [idemflight.Store].Unsettled, in the order of the keys.
func (m *Memory) Unsettled(ctx context.Context, f func(key string, s idemflight.Standing) error) error {
	standings := make(map[string]idemflight.Standing)
	err := m.verb(ctx, "Unsettled", idemflight.Claim{}, func(at record.At) error {
		for key, r := range m.records {
			if x := record.Read(r, at); x.State == idemflight.InFlight || x.State == idemflight.Held {
				standings[key] = x
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(standings)) {
		if err := f(key, standings[key]); err != nil {
			return err
		}
	}
	return nil
}
