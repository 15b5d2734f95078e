package soak

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/idemflight/idemflight"
)

// mix is what a round does, all of it drawn from the seed.
type mix struct {
	Seed  uint64
	Round int

	Web             bool   // idemhttp
	Stored          bool   // caches with a Store; else a Cache without
	KeyType         string // int, float, string or Key
	Clients, Calls  int    // calls of all clients
	Keys            int
	Payloads        int // fingerprints in use; 1: none
	Procs           []int
	TTL, HoldTTL    time.Duration
	MaxEntries      int
	MinRetention    time.Duration
	MaxWeight       int64
	Classifies      bool // Options.Classify is given
	Reconciles      bool // and Reconcile
	Announced       bool // EffectsAnnounced
	ExecTimeout     time.Duration
	MaxWaiters      int
	CallsBack       bool // the Observer calls the cache
	HooksPanic      bool
	Leaves, Repeats int // of 100 calls, how many have a context that ends; or repeat the last key
	Fails           int // of 100 executions
	Close           closing
	Drain           draining

	// Of rounds with a Store.
	Processes       int // caches that share it
	Lease, LocalTTL time.Duration
	Breaks          int  // of 1,000 verbs, how many fail, half of them after they have acted
	Outage          bool // all verbs of one process fail for longer than a lease
	Dies            bool // owners of some keys are made to look dead, if the store can do that
	Heartbeats      bool // some executions last longer than a lease
	Traces          bool // Options.Trace is given
}

type closing int

const (
	staysOpen closing = iota
	closesInTheMiddle
	restarts // with a Store: in the middle, and the next cache opens while the last one still closes
)

type draining int

const (
	byForget draining = iota
	byExpiry
	byDropping
)

func (c closing) String() string  { return [...]string{"never", "in the middle", "restart"}[c] }
func (d draining) String() string { return [...]string{"forget", "expiry", "drop"}[d] }

// oneOf picks one of several.
func oneOf[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// source is where a round, or one client of it, draws from.
func source(seed uint64, round, client int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(round)<<20|uint64(client)))
}

// drawMix draws round number round. scale, in percent, makes rounds smaller.
func drawMix(seed uint64, round, scale int) mix {
	return drawKind(mix{Seed: seed, Round: round, Web: round%4 == 3, Stored: round%4 == 1}, scale)
}

// drawStoredMix draws round number round of those that all have a Store.
func drawStoredMix(seed uint64, round, scale int) mix {
	return drawKind(mix{Seed: seed, Round: round, Stored: true}, scale)
}

func drawKind(m mix, scale int) mix {
	r := source(m.Seed, m.Round, 0)
	m.KeyType = oneOf(r, "int", "float", "string", "Key")
	m.Clients = oneOf(r, 2, 8, 32, 128, 512)
	m.Calls = oneOf(r, 30_000, 80_000, 150_000)
	m.Keys = oneOf(r, 4, 50, 500, 5000)
	m.Payloads = oneOf(r, 1, 1, 3)
	for range 4 {
		m.Procs = append(m.Procs, 1+r.IntN(2*runtime.NumCPU()))
	}
	m.TTL = oneOf(r, 1, time.Microsecond, 50*time.Microsecond, time.Millisecond, 20*time.Millisecond, 200*time.Millisecond, time.Hour, 24*time.Hour)
	m.HoldTTL = oneOf(r, 0, -1, time.Microsecond, time.Millisecond, 20*time.Millisecond, time.Hour)
	m.MaxEntries = oneOf(r, 1, 8, m.Keys/2+1, m.Keys*3/4+1, m.Keys*3/4+1, 4*m.Keys+4*m.Clients+1000, 4*m.Keys+4*m.Clients+1000, 0, 0)
	m.MinRetention = oneOf(r, -1, -1, 0, m.TTL/4+1, m.TTL)
	if r.IntN(3) == 0 {
		m.MaxWeight = oneOf(r, int64(1), 2000, int64(m.Keys)*50)
	}
	m.Classifies, m.Reconciles = r.IntN(2) == 0, r.IntN(2) == 0
	m.ExecTimeout = oneOf(r, 0, -1, 2*time.Millisecond)
	m.MaxWaiters = oneOf(r, 0, 0, 1, 5)
	m.CallsBack, m.HooksPanic = r.IntN(2) == 0, r.IntN(4) == 0
	m.Leaves, m.Repeats, m.Fails = oneOf(r, 0, 5, 30), oneOf(r, 0, 50, 90), oneOf(r, 0, 10, 40, 80)
	m.Close = oneOf(r, staysOpen, closesInTheMiddle, restarts)
	m.Drain = oneOf(r, byForget, byExpiry, byDropping)
	m.Announced = r.IntN(4) == 0
	if m.Web {
		m.Clients, m.Calls, m.Keys = oneOf(r, 4, 16, 48), oneOf(r, 3000, 6000), oneOf(r, 5, 50, 500)
		m.KeyType = "Key"
	}
	if m.Stored {
		m.drawStored(r)
	}
	m.Calls = max(m.Calls*scale/100, 4*m.Clients)
	short := !m.Heartbeats && m.TTL <= time.Second && m.HoldTTL > 0 && m.HoldTTL <= time.Second
	stays := m.Close == closesInTheMiddle && !m.Stored || m.Close != staysOpen && m.Stored && m.LocalTTL > 0
	if m.Drain == byExpiry && (!short || stays) { // what a closed cache keeps does not expire by itself: it has no timers
		m.Drain = byDropping
	}
	return m
}

// drawStored draws what differs where caches share a Store.
func (m *mix) drawStored(r *rand.Rand) {
	m.KeyType = oneOf(r, "int", "string", "Key")
	m.Clients, m.Calls, m.Keys = oneOf(r, 4, 16, 64), oneOf(r, 5000, 20_000), oneOf(r, 4, 50, 500)
	m.TTL = oneOf(r, time.Microsecond, time.Millisecond, 20*time.Millisecond, 200*time.Millisecond, time.Hour, 24*time.Hour)
	m.HoldTTL = oneOf(r, 0, -1, time.Millisecond, 20*time.Millisecond, time.Hour)
	m.MaxEntries = oneOf(r, 8, m.Keys/2+1, 4*m.Keys+4*m.Clients+1000, 0)
	m.MinRetention = -1 // which only bounds memory here
	m.Announced = r.IntN(2) == 0
	m.Processes = oneOf(r, 2, 3)
	m.Lease = oneOf(r, time.Second, 2*time.Second)
	m.LocalTTL = oneOf(r, -1, -1, 5*time.Millisecond, time.Minute)
	m.Breaks = oneOf(r, 0, 20, 20, 100)
	m.Outage, m.Dies, m.Heartbeats, m.Traces = r.IntN(6) == 0, r.IntN(3) == 0, r.IntN(4) == 0, r.IntN(4) == 0
	if m.Heartbeats {
		m.Lease = time.Second
	}
}

// String shows the mix on one line, for the report of a violation.
func (m mix) String() string {
	type plain mix
	return fmt.Sprintf("%+v", plain(m))
}

// holdTTL is HoldTTL as the cache understands it.
func (m mix) holdTTL() time.Duration {
	if m.HoldTTL == 0 {
		return max(idemflight.DefaultHoldTTL, m.TTL)
	}
	return m.HoldTTL
}

// protect is MinRetention as the cache understands it.
func (m mix) protect() time.Duration {
	switch {
	case m.MinRetention < 0:
		return 0
	case m.MinRetention == 0:
		return min(idemflight.DefaultMinRetention, m.TTL/2)
	case m.MinRetention >= m.TTL:
		return math.MaxInt64 / 2
	}
	return m.MinRetention
}

// fate is how an execution ends.
type fate int

const (
	succeeds fate = iota
	final
	retryable
	unknown
	plain          // no marker and no word of its effect: Classify decides, without one it is held
	plainHolds     // as Classify has it, which is always to hold
	plainRetains   //
	breaksClassify // which panics, and holds
	begun          // BeginEffect, then no marker
	undone         // BeginEffect, NoEffect, then no marker
	saidTwice      // two of BeginEffect, and one effect taken back, twice
	panics
	panicsBefore // with NoEffect at the top
	exits        // runtime.Goexit
	exitsBefore
	timesOut // heeds its context and ExecTimeout
	mixed    // of several errors, one holds
	fates
)

// plan is what a call is to do, and what its fn does if it runs.
type plan struct {
	key     int
	invalid bool // the key is none
	way     way
	dead    bool          // its context has ended on arrival
	leaves  time.Duration // its context ends after this; 0: never
	inline  bool
	payload uint8
	ttl     time.Duration // WithTTL; negative: not given
	maxWait time.Duration // WithMaxWait, if waits
	waits   bool

	fate    fate
	pause   time.Duration   // of fn; below a microsecond it only yields
	size    int             // of the value
	nested  int             // fn calls another key: that much further on; 0: none
	reenter bool            // and its own
	watched bool            // value and captured are followed
	finds   fate            // of Reconcile
	dies    moment          // its owner looks dead from then on
	byHand  bool            // an operator asks that
	lingers <-chan struct{} // fn does not return before this is closed
}

// moment is one in the course of fn.
type moment int

const (
	never moment = iota
	beforeBegin
	afterBegin
)

// way is by which method a call is made.
type way int

const (
	byDoResult way = iota
	byDo
	byWrap
)

// drawPlan draws the next call of a client. It draws as much whatever comes of it.
func (m mix) drawPlan(r *rand.Rand, last int) plan {
	p := plan{key: 1 + r.IntN(m.Keys), ttl: -1}
	if r.IntN(100) < m.Repeats && last > 0 {
		p.key = last
	}
	p.way = oneOf(r, byDoResult, byDoResult, byDoResult, byDo, byWrap)
	if r.IntN(100) < m.Leaves {
		p.leaves = 1 + time.Duration(r.Int64N(int64(time.Millisecond)))>>r.IntN(12)
		p.dead = r.IntN(8) == 0
	}
	p.inline = r.IntN(4) == 0
	p.payload = uint8(1 + r.IntN(m.Payloads)*r.IntN(2)) // mostly the first
	if r.IntN(10) == 0 {
		p.ttl = oneOf(r, 0, m.TTL/2, m.TTL)
	}
	if p.waits = r.IntN(10) == 0; p.waits {
		p.maxWait = oneOf(r, idemflight.NoWait, 0, 10*time.Microsecond, time.Millisecond)
	}
	p.invalid = r.IntN(500) == 0
	failed := fate(1 + r.IntN(int(fates)-1))
	if r.IntN(100) < m.Fails {
		p.fate = failed
	}
	if slow := r.IntN(100); slow < 3 {
		p.pause = time.Duration(r.Int64N(int64(time.Millisecond)))
	} else {
		p.pause = time.Duration(r.Int64N(int64(4))) // of runtime.Gosched
	}
	p.size = r.IntN(100)
	if r.IntN(1000) == 0 {
		p.size = 10_000
	}
	if r.IntN(20) == 0 {
		p.nested = 1 + r.IntN(3)
	}
	p.reenter = r.IntN(50) == 0
	p.watched = r.IntN(32) == 0
	p.finds = oneOf(r, succeeds, succeeds, final, retryable, retryable, unknown, plain, panics, exits)
	if dies := oneOf(r, never, never, beforeBegin, afterBegin); m.Dies && p.key%3 == 0 {
		p.dies = dies
	}
	return p
}
