package model

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/idemflight/idemflight"
)

// config is what a program's cache is made with, and what the reference goes by: the options, with
// the defaults of the contract filled in by hand.
type config struct {
	ttl, holdTTL   time.Duration // holdTTL < 0: without end
	maxEntries     int
	protect        time.Duration // < 0: none; at least ttl: nothing is evicted
	maxWeight      int64         // 0: no bound
	classify       classifier
	announced      bool // EffectsAnnounced
	reconcile      bool
	execTimeout    time.Duration // < 0: none
	maxWaiters     int           // 0: no bound
	observerPanics idemflight.EventKind
	keys           []string
	closes, scans  bool // the program may close it, and scan
	defaultHold    bool // holdTTL is the default
}

// classifier is what Options.Classify is.
type classifier int

const (
	noClassifier classifier = iota // nil: whatever has no marker is held
	lenient                        // ClassifyLenient
	custom                         // customClassify
)

// pauseTime is for how long a Reconcile that learned nothing is not asked again by calls.
const pauseTime = time.Second

// call is one call of Do, as the program makes it; or one of Cache.Reconcile.
type call struct {
	id      int
	asks    bool // it is one of Cache.Reconcile
	key     string
	fp      idemflight.Fingerprint
	inline  bool
	ttl     *time.Duration
	maxWait *time.Duration

	endless bool      // its context cannot end
	endsAt  time.Time // deadline of its context; zero: none
	from    *exec     // its context is derived from that of a running execution
	ended   bool      // its context has ended
	reason  error     // and why

	fn, reconcile *ending // nil: waits for the program to say how it ends

	began time.Time
	met   time.Time // when it met its key first: from then on its events count what it waited
	gone  bool      // has returned, in the eyes of the reference
}

func (c *call) dead() bool  { return c.ended || c.from != nil && c.from.ctxEnded }
func (c *call) stays() bool { return c.inline || c.endless }

// within reports whether c is made from inside an execution of f, at any depth.
func (c *call) within(f *flight) bool {
	for e := c.from; e != nil; e = e.flight.leader.from {
		if e.flight == f {
			return true
		}
	}
	return false
}

// ending is what an execution does before it ends, and how it ends.
type ending struct {
	effects []effect
	value   int
	err     *errSpec // nil: none
	panics  any
	goexit  bool
}

type effect bool

const (
	begin  effect = true
	noneOf effect = false
)

// exec is one execution of fn or of Reconcile.
type exec struct {
	flight      *flight
	reconciling bool
	started     time.Time
	deadline    time.Time // of its context; zero: none
	ctxEnded    bool
	begun       int
	last        said
	held        *record // what Reconcile is asked about
}

// said is what fn has said last about its effect.
type said int

const (
	nothing said = iota
	saidNone
	saidBegun
)

// flight is an execution, or two, and its callers.
type flight struct {
	key        string
	fp         idemflight.Fingerprint
	leader     *call
	leaderLeft bool
	waiters    []*call
	askers     []*call // of Cache.Reconcile, that have joined
	started    time.Time
	forgotten  bool
	exec       *exec
}

// record is what is kept of a key.
type record struct {
	key                string
	state              idemflight.State
	value              int
	err                *cause
	fp                 idemflight.Fingerprint
	started, completed time.Time
	anyCompleted       bool      // the contract does not say when it completed
	deadline           time.Time // zero: none
	ttl                time.Duration
	weight             int64
	spare              bool      // held only because fn said nothing: may be evicted as the last resort
	pausedUntil        time.Time // Reconcile learned nothing a moment ago,
	learned            *cause    // but this

	// For the promise that what is replayed often survives a scan.
	replayed     bool
	lastUse      int // in insertions
	longestPause int
	leastM       int
}

func (r *record) expired(now time.Time) bool { return !r.deadline.IsZero() && !now.Before(r.deadline) }

// answer is what a call must return and what its event must say.
type answer struct {
	kind        idemflight.EventKind
	source      idemflight.Source
	value       int
	wrong       func(error) string // what is wrong with the error
	completed   time.Time
	expires     time.Time
	took        time.Duration
	waiters     int
	disposition idemflight.Disposition
	panics      *cause // the caller panics instead
	exits       bool   // the caller's goroutine exits instead

	entry func(idemflight.Entry[int]) string // of Cache.Reconcile: what is wrong with the entry
}

// beside is an event that must be told beside those of the calls that return, in the context of a call
// or of an operator.
type beside struct {
	id     int
	key    string
	answer answer
}

// observed is what the cache did in one step where the contract leaves it a choice.
type observed struct {
	evicted []eviction
	shed    []string
	failed  map[*call]error   // of calls that have returned by the end of the step
	gone    func(string) bool // reports whether nothing is kept of a key after the step
	flown   map[int]bool      // calls whose fn has begun
	weighed map[string]bool   // keys at which Weigh has panicked
}

// eviction is an EventEvicted.
type eviction struct {
	key  string
	held bool // as its Err says
}

// toTell is an eviction for a call that runs fn itself, and that has it told when it returns.
type toTell struct {
	eviction
	by *call
}

// disagreement is panicked with where cache and contract part.
type disagreement string

func disagree(format string, args ...any) { panic(disagreement(fmt.Sprintf(format, args...))) }

// reference is the contract: a map with deadlines, and flights beside it.
type reference struct {
	config
	now     time.Time
	kept    map[string]*record
	flights map[string]*flight
	stale   []*record // expired, not yet told
	untold  []toTell  // evicted, not yet told
	closed  bool
	stats   idemflight.Stats

	insertions int
	obs        *observed

	// How often a program came to what no counter of Stats tells.
	lookedAgain, lastResorts, paused, learned int
	loaded                                    idemflight.LoadReport
	unwritten, damaged                        int // entries that Save, and streams that Load could not do with

	// What the step must have brought about.
	answers  map[*call]answer
	besides  []beside
	begun    []*exec        // executions that have begun and wait for the program
	panicked map[string]int // EventPanicked by key
}

func newReference(cfg config, now time.Time) *reference {
	return &reference{config: cfg, now: now, kept: map[string]*record{}, flights: map[string]*flight{}}
}

// step starts a step in which the cache was seen to do obs.
func (m *reference) step(obs *observed) {
	m.obs, m.answers, m.besides, m.begun, m.panicked = obs, map[*call]answer{}, nil, nil, map[string]int{}
}

// rest ends a step: nothing may have been seen that was not called for.
func (m *reference) rest() {
	if len(m.obs.evicted) > 0 {
		disagree("evicted %v, for which there was no need", m.obs.evicted)
	}
	if len(m.obs.shed) > 0 {
		disagree("shed %v, for which there was no need", m.obs.shed)
	}
	m.noteM()
}

// noteM notes how many outcomes find room now.
func (m *reference) noteM() {
	for _, r := range m.kept {
		r.leastM = min(r.leastM, m.m())
	}
}

// tell notes the answer of c.
func (m *reference) tell(c *call, a answer) {
	if c.gone {
		panic("model: a call is answered twice")
	}
	c.gone = true
	m.answers[c] = a
}

func is(sentinel error) func(error) string {
	return func(got error) string {
		if !errors.Is(got, sentinel) {
			return fmt.Sprintf("error %v instead of %v", got, sentinel)
		}
		return ""
	}
}

// beside notes an event that must be told, in the context of id.
func (m *reference) beside(id int, key string, a answer) {
	m.besides = append(m.besides, beside{id, key, a})
}

func (m *reference) reject(c *call, sentinel error, counter *uint64) {
	*counter++
	m.tell(c, answer{kind: idemflight.EventRejected, wrong: is(sentinel), took: m.now.Sub(c.met)})
}

// leave answers c with ErrCallerLeft.
func (m *reference) leave(c *call) {
	if !c.asks {
		m.stats.CallerLeft++
	}
	m.tell(c, answer{kind: idemflight.EventCallerLeft, took: m.now.Sub(c.met), entry: noEntry, wrong: func(got error) string {
		for _, want := range []error{idemflight.ErrCallerLeft, c.reason} {
			if want != nil && !errors.Is(got, want) {
				return fmt.Sprintf("error %v is not %v", got, want)
			}
		}
		if d := idemflight.ClassifyLenient(got); d != idemflight.Release {
			return fmt.Sprintf("the cause in %q bears a marker: classified %v", got, d)
		}
		return ""
	}})
}

// places returns how many places are taken.
func (m *reference) places() int { return len(m.kept) + len(m.flights) }

func (m *reference) heldCount() (n int) {
	for _, r := range m.kept {
		if r.state == idemflight.Held {
			n++
		}
	}
	return n
}

func (m *reference) weight() (sum int64) {
	for _, r := range m.kept {
		sum += r.weight
	}
	return sum
}

// do is a call of Do (promises 6 to 10, 13, 18, 19, 22, 24), which may meet its key more than once.
func (m *reference) do(c *call) {
	if c.met.IsZero() {
		c.met = m.now
	}
	if c.key == "" {
		m.reject(c, idemflight.ErrInvalidKey, &m.stats.InvalidKey)
		return
	}
	if r := m.kept[c.key]; r != nil {
		switch {
		case r.fp != c.fp:
			m.reject(c, idemflight.ErrKeyReused, &m.stats.KeyReused)
		case r.state == idemflight.Retained:
			m.replay(c, r)
		case r.state == idemflight.Shed:
			m.reject(c, idemflight.ErrValueShed, &m.stats.ValueShed)
		case m.reconcile && m.now.Before(r.pausedUntil):
			m.paused++
			m.stats.OutcomeUnknown++
			m.tell(c, answer{kind: idemflight.EventRejected, wrong: r.learned.notLearned})
		case !m.reconcile || c.dead() || m.closed:
			m.stats.OutcomeUnknown++
			m.tell(c, answer{kind: idemflight.EventRejected, wrong: r.err.unknown})
		default:
			delete(m.kept, c.key)
			m.fly(c, c.fp, r)
		}
		return
	}
	if f := m.flights[c.key]; f != nil {
		switch {
		case c.within(f):
			m.reject(c, idemflight.ErrReentrant, &m.stats.Reentrant)
		case f.fp != c.fp:
			m.reject(c, idemflight.ErrKeyReused, &m.stats.KeyReused)
		case c.dead():
			m.leave(c)
		case c.maxWait != nil && *c.maxWait <= 0, m.maxWaiters > 0 && len(f.waiters) >= m.maxWaiters:
			m.reject(c, idemflight.ErrInFlight, &m.stats.NotWaited)
		default:
			f.waiters = append(f.waiters, c)
			if f.exec.reconciling { // should it look again, chance must not decide whose fn the others meet
				c.fn, c.reconcile = nil, nil
			}
		}
		return
	}
	switch {
	case c.dead():
		m.leave(c)
	case m.closed:
		m.reject(c, idemflight.ErrClosed, &m.stats.Closed)
	case !m.room(c):
		m.reject(c, idemflight.ErrFull, &m.stats.Full)
	default:
		m.fly(c, c.fp, nil)
	}
}

// ask is a call of Cache.Reconcile (promise 13).
func (m *reference) ask(c *call) {
	c.met = m.now
	refuse := func(wrong func(error) string) { m.tell(c, answer{wrong: wrong, entry: noEntry}) }
	r, f := m.kept[c.key], m.flights[c.key]
	switch {
	case !m.reconcile:
		refuse(isNameless)
	case f != nil && f.exec.reconciling && c.within(f):
		refuse(is(idemflight.ErrReentrant))
	case f != nil && f.exec.reconciling && c.dead():
		m.leave(c)
	case f != nil && f.exec.reconciling:
		f.askers = append(f.askers, c)
	case r == nil || r.state != idemflight.Held:
		refuse(is(idemflight.ErrNotHeld))
	case c.dead():
		m.leave(c)
	case m.closed:
		refuse(is(idemflight.ErrClosed))
	default:
		delete(m.kept, c.key)
		m.fly(c, r.fp, r)
	}
}

func noEntry(got idemflight.Entry[int]) string {
	if got != (idemflight.Entry[int]{}) {
		return fmt.Sprintf("entry %+v where none was expected", got)
	}
	return ""
}

// names are the errors that have a name of their own.
var names = []error{
	idemflight.ErrInvalidKey, idemflight.ErrClosed, idemflight.ErrFull, idemflight.ErrNotHeld, idemflight.ErrExpired,
	idemflight.ErrReentrant,
}

func isNameless(got error) string {
	if got == nil || slices.ContainsFunc(names, func(s error) bool { return errors.Is(got, s) }) {
		return fmt.Sprintf("error %v instead of one that says in words what is wrong", got)
	}
	return ""
}

func (m *reference) replay(c *call, r *record) {
	m.stats.Replayed++
	r.longestPause = max(r.longestPause, m.insertions-r.lastUse)
	r.replayed, r.lastUse = true, m.insertions
	m.tell(c, answer{
		kind: idemflight.EventReplayed, source: idemflight.Replayed, value: r.value, wrong: r.err.original,
		completed: r.completed, expires: r.deadline,
	})
}

// room reports whether a new key finds a place, one that the cache was seen to make included; the
// cache may choose whom to evict among those that the contract lets go. The key is that of c, or is put back.
func (m *reference) room(c *call) bool {
	m.insertions++
	if m.places() < m.maxEntries {
		return true
	}
	unreplayed, any, spare := false, false, false
	for _, r := range m.kept {
		switch {
		case !m.evictable(r):
		case r.state == idemflight.Held:
			spare = true
		default:
			any = true
			unreplayed = unreplayed || !r.replayed
		}
	}
	must := unreplayed || any && m.protect < 0 // an outcome goes
	if (any || spare) && len(m.obs.evicted) == 0 && c != nil {
		for key, r := range m.kept {
			if m.evictable(r) && m.obs.gone(key) {
				m.obs.evicted = []eviction{{key, r.state == idemflight.Held}}
				m.untold = append(m.untold, toTell{m.obs.evicted[0], c})
				break
			}
		}
	}
	if len(m.obs.evicted) == 0 {
		if must || spare {
			disagree("ErrFull, or a place from nowhere, where a key could have been evicted")
		}
		return false
	}
	e := m.obs.evicted[0]
	m.obs.evicted = m.obs.evicted[1:]
	key := e.key
	r := m.kept[key]
	switch {
	case r == nil:
		disagree("evicted %q, of which nothing was kept", key)
	case !m.evictable(r):
		disagree("evicted %q, which is %v, completed %v ago", key, r.state, m.now.Sub(r.completed))
	case e.held != (r.state == idemflight.Held):
		disagree("the EventEvicted of %q, which is %v, says held: %v", key, r.state, e.held)
	case e.held && must:
		disagree("evicted %q, which is held, where an outcome could have been evicted", key)
	case e.held:
		for _, other := range m.kept {
			if other.state == idemflight.Held && m.evictable(other) && other.completed.Before(r.completed) {
				disagree("evicted %q, though %q is held for longer", key, other.key)
			}
		}
		m.lastResorts++
	case m.survives(r):
		disagree("evicted %q, though it was replayed at least every %d insertions of %d places", key, r.longestPause, r.leastM)
	}
	delete(m.kept, key)
	m.stats.Evicted++
	return true
}

// evictable reports whether r may be evicted: an outcome, or as the last resort a key that is held only
// because fn said nothing.
func (m *reference) evictable(r *record) bool {
	switch {
	case r.state == idemflight.Held && !r.spare || m.protect >= m.ttl:
		return false
	case m.protect < 0:
		return true
	}
	return m.now.Sub(r.completed) >= m.protect
}

// survives reports whether promise 19 says that r is not evicted: it has been replayed at least once
// per M/4 insertions, and it and all others that were ever replayed are at most M/2.
func (m *reference) survives(r *record) bool {
	if m.protect >= 0 || m.maxEntries < 8 || !r.replayed {
		return false
	}
	used := 0
	for _, other := range m.kept {
		if other.replayed {
			used++
		}
	}
	least := min(r.leastM, m.m())
	return used <= least/2 && max(r.longestPause, m.insertions-r.lastUse) <= least/4
}

func (m *reference) m() int { return m.maxEntries - m.heldCount() - len(m.flights) }

// fly starts a flight of c's key, with Reconcile if held is what c met.
func (m *reference) fly(c *call, fp idemflight.Fingerprint, held *record) {
	f := &flight{key: c.key, fp: fp, leader: c, started: m.now}
	m.flights[c.key] = f
	m.noteM()
	m.execute(f, held)
	m.leaveAll() // who may not wait does not wait for Reconcile either
}

// execute starts an execution of f.
func (m *reference) execute(f *flight, held *record) {
	e := &exec{flight: f, reconciling: held != nil, held: held, started: m.now}
	if m.execTimeout > 0 {
		e.deadline = m.now.Add(m.execTimeout)
	}
	f.exec = e
	said := f.leader.fn
	if e.reconciling {
		said = f.leader.reconcile
	}
	if said != nil {
		m.end(e, said)
		return
	}
	m.begun = append(m.begun, e)
}

// effect is BeginEffect or NoEffect inside e; it reports whether BeginEffect refuses.
func (m *reference) effect(e *exec, what effect) (refused bool) {
	if e.reconciling {
		return false
	}
	switch {
	case what == noneOf && e.last == saidNone: // it has been said
	case what == noneOf:
		e.last, e.begun = saidNone, max(e.begun-1, 0)
	case e.ctxEnded:
		e.last = max(e.last, saidNone)
		return true
	default:
		e.last = saidBegun
		e.begun++
	}
	return false
}

// judge decides the disposition of how e ended (promises 11 to 14), and whether that is a hold for no
// other reason than that fn said nothing.
func (m *reference) judge(e *exec, how *ending) (d idemflight.Disposition, spare bool) {
	if how.succeeds() {
		return idemflight.Retain, false
	}
	classifyPanics := false
	plain := func(s *errSpec) idemflight.Disposition {
		switch {
		case e.reconciling || e.begun > 0:
			return idemflight.Hold
		case e.last != nothing || m.announced:
			return idemflight.Release
		case m.classify == noClassifier:
			return idemflight.Hold
		case m.classify == lenient && (s == nil || e.ctxEnded && !errors.Is(s.err, context.DeadlineExceeded)):
			return idemflight.Hold // as a panic, Goexit, or what comes too late
		case m.classify == lenient:
			return s.byLenient()
		case s == nil && how.goexit:
			return idemflight.Release
		case s == nil:
			return idemflight.Retain
		}
		d, panics := s.byCustom()
		classifyPanics = classifyPanics || panics
		return d
	}
	found := false
	if how.err != nil {
		d, found = how.err.marked(plain)
	}
	if !found {
		d = plain(how.err)
	}
	if classifyPanics {
		m.stats.HookPanics++
		m.panicked[e.flight.key]++
		d = idemflight.Hold
	}
	return d, d == idemflight.Hold && !found && e.begun == 0
}

func (how *ending) succeeds() bool { return how.err == nil && how.panics == nil && !how.goexit }

func (how *ending) cause() *cause {
	switch {
	case how.goexit:
		return &cause{goexit: true}
	case how.panics != nil:
		return &cause{panicked: how.panics}
	case how.err != nil:
		return &cause{spec: how.err}
	}
	return nil
}

// end ends e, and its flight unless Reconcile found that fn is to run.
func (m *reference) end(e *exec, how *ending) {
	f := e.flight
	for _, what := range how.effects {
		m.effect(e, what)
	}
	why, value := how.cause(), how.value
	d, spare := m.judge(e, how)
	if how.panics != nil || how.goexit {
		m.stats.Panics++
		value = 0
	}
	defer m.endContext(e)
	if m.announced && !e.reconciling && how.succeeds() && e.last == nothing {
		m.stats.Unannounced++
		m.beside(f.leader.id, f.key, answer{kind: idemflight.EventUnannounced, wrong: (*cause)(nil).original})
	}
	nobodys := e.reconciling && d == idemflight.Release
	if nobodys && !f.leaderLeft && !f.leader.asks {
		m.stats.Releases++
		m.tellAskers(f, f.askers, nil)
		f.askers = nil
		m.execute(f, nil)
		return
	}

	a := answer{
		kind: idemflight.EventExecuted, source: idemflight.Executed, value: value, wrong: why.original,
		completed: m.now, took: m.now.Sub(e.started), waiters: len(f.waiters),
	}
	if e.reconciling {
		a.kind, a.source = idemflight.EventReconciled, idemflight.Reconciled
	}
	ttl := m.ttl
	if f.leader.ttl != nil && !(e.reconciling && *f.leader.ttl <= 0) {
		ttl = max(*f.leader.ttl, 0)
	}
	if d == idemflight.Retain && (f.forgotten || ttl == 0) {
		d = idemflight.Release
	}
	a.disposition = d
	learnedNothing := false
	delete(m.flights, f.key) // its place passes on
	switch d {
	case idemflight.Release:
		m.stats.Releases++
	case idemflight.Retain:
		m.stats.Retains++
		r := &record{key: f.key, state: idemflight.Retained, value: value, err: why, fp: f.fp, started: e.started, completed: m.now}
		m.keep(r, ttl, m.weigh(f.key, value))
		a.expires = r.deadline
	case idemflight.Hold:
		m.stats.Holds++
		a.wrong = why.unknown
		r := e.held
		if learnedNothing = r != nil; !learnedNothing {
			r = &record{key: f.key, state: idemflight.Held, err: why, fp: f.fp, started: e.started, completed: m.now, spare: spare}
		} else {
			a.wrong = why.notLearned
			r.pausedUntil, r.learned = m.now.Add(pauseTime), why
		}
		m.hold(r)
		a.expires = r.deadline
	}
	if nobodys {
		m.landAgain(f, a)
	} else {
		m.land(f, a, learnedNothing, how)
	}
}

// landAgain ends f, whose Reconcile has found that there was no effect, and in which nobody's fn is to
// run: those that wait meet the key again.
func (m *reference) landAgain(f *flight, a answer) {
	m.tellOfNoCall(f, a, nil)
	slices.SortStableFunc(f.waiters, func(a, b *call) int { // whose fn runs is the cache's choice
		switch {
		case m.obs.flown[a.id] == m.obs.flown[b.id]:
			return 0
		case m.obs.flown[a.id]:
			return -1
		}
		return 1
	})
	for _, w := range f.waiters {
		m.lookedAgain++
		m.do(w)
	}
}

// tellOfNoCall answers the calls of Cache.Reconcile that have waited for f, as tellAskers does, and has it
// told how f ended, if that is not told as its leader's call.
func (m *reference) tellOfNoCall(f *flight, a answer, wrong func(error) string) {
	m.tellAskers(f, f.askers, wrong)
	switch {
	case f.leader.asks:
		a.kind = idemflight.EventResolved
		m.beside(f.leader.id, f.key, a)
		if !f.leaderLeft {
			m.tellAskers(f, []*call{f.leader}, wrong)
		}
	case f.leaderLeft:
		a.kind = idemflight.EventFinished
		m.beside(f.leader.id, f.key, a)
	}
}

// tellAskers answers calls of Cache.Reconcile that have waited for f; wrong is nil if that has found that
// there was no effect.
func (m *reference) tellAskers(f *flight, askers []*call, wrong func(error) string) {
	wait, runs := len(f.waiters) > 0, f.exec.reconciling && m.flights[f.key] == f
	for _, c := range askers {
		a := answer{wrong: wrong, entry: func(got idemflight.Entry[int]) string {
			want, _ := m.entry(f.key)
			if wrong == nil { // what it finds is that of a moment ago: fn may be over by now, or not have begun
				flying := got.State == idemflight.InFlight && got.Fingerprint == f.fp
				switch {
				case runs && flying && got.StartedAt.Equal(f.started):
					return ""
				case !runs && (got == idemflight.Entry[int]{} || wait && flying && got.StartedAt.Equal(m.now)):
					return ""
				}
			}
			return want.wrong(got)
		}}
		if wrong == nil {
			a.wrong = (*cause)(nil).original
		}
		m.tell(c, a)
	}
}

// land answers the callers of f, which has ended.
func (m *reference) land(f *flight, a answer, learnedNothing bool, how *ending) {
	for _, w := range f.waiters {
		j := answer{kind: idemflight.EventJoined, source: idemflight.Joined, value: a.value, wrong: a.wrong,
			completed: a.completed, expires: a.expires, took: m.now.Sub(w.met)}
		if learnedNothing {
			m.stats.OutcomeUnknown++
			j = answer{kind: idemflight.EventRejected, wrong: a.wrong, took: j.took}
		} else {
			m.stats.Joined++
		}
		m.tell(w, j)
	}
	wrong := (*cause)(nil).original
	if a.disposition == idemflight.Hold {
		wrong = a.wrong
	}
	m.learned += len(f.askers)
	m.tellOfNoCall(f, a, wrong)
	switch {
	case f.leaderLeft || f.leader.asks:
		return
	case learnedNothing:
		m.stats.OutcomeUnknown++
		a = answer{kind: idemflight.EventRejected, wrong: a.wrong, took: m.now.Sub(f.leader.met)}
	case a.kind == idemflight.EventReconciled:
		m.stats.Reconciled++
	default:
		m.stats.Executed++
		if how.panics != nil {
			a.panics = how.cause()
		}
		a.exits = how.goexit && f.leader.stays()
	}
	m.tell(f.leader, a)
}

// endContext ends the context of e: callers whose context is derived from it leave.
func (m *reference) endContext(e *exec) {
	if !e.ctxEnded {
		e.ctxEnded = true
		m.leaveAll()
	}
}

// weigh asks Weigh.
func (m *reference) weigh(key string, value int) int64 {
	if m.maxWeight == 0 {
		return 0
	}
	w, panics := weightOf(value)
	if panics {
		m.stats.HookPanics++
		m.panicked[key]++
	}
	return max(w, 0)
}

// keep puts a retained outcome in, and sheds for it (promise 20).
func (m *reference) keep(r *record, ttl time.Duration, weight int64) {
	r.ttl, r.deadline = ttl, m.now.Add(ttl)
	m.put(r, weight)
}

func (m *reference) put(r *record, weight int64) {
	m.insertions++
	r.lastUse, r.leastM = m.insertions, m.m()
	if weight > m.maxWeight {
		m.stats.Shed++
		if got := m.nextShed(); got != r.key {
			disagree("shed %q instead of %q, which alone weighs more than MaxWeight", got, r.key)
		}
		r.state, r.value, weight = idemflight.Shed, 0, 0
	}
	for weight > 0 && m.weight()+weight > m.maxWeight {
		key := m.nextShed()
		victim := m.kept[key]
		if victim == nil || victim.weight == 0 {
			disagree("shed %q, which has no weight; the newcomer is %q", key, r.key)
		}
		victim.state, victim.value, victim.weight = idemflight.Shed, 0, 0
		m.stats.Shed++
	}
	r.weight = weight
	m.kept[r.key] = r
}

func (m *reference) nextShed() string {
	if len(m.obs.shed) == 0 {
		disagree("nothing was shed where MaxWeight wants it")
	}
	key := m.obs.shed[0]
	m.obs.shed = m.obs.shed[1:]
	return key
}

// hold holds r's key from now.
func (m *reference) hold(r *record) {
	r.ttl, r.deadline = m.holdTTL, time.Time{}
	if m.holdTTL >= 0 {
		r.deadline = m.now.Add(m.holdTTL)
	}
	m.kept[r.key] = r
}

// cancel ends the context of c.
func (m *reference) cancel(c *call) {
	c.ended = true
	m.leaveAll()
}

// leaveAll lets all who wait, may leave and have a reason do so (promises 7 and 10).
func (m *reference) leaveAll() {
	for _, f := range m.flights {
		f.waiters = slices.DeleteFunc(f.waiters, m.leavesIfDue)
		f.askers = slices.DeleteFunc(f.askers, m.leavesIfDue)
		c := f.leader
		switch {
		case f.leaderLeft:
		case f.exec.reconciling: // everybody may leave
			f.leaderLeft = m.leavesIfDue(c)
		case c.dead() && !c.stays():
			f.leaderLeft = true
			m.leave(c)
		}
	}
}

// leavesIfDue reports whether c, which waits, does not any longer.
func (m *reference) leavesIfDue(c *call) bool {
	late := c.maxWait != nil && !m.now.Before(c.began.Add(*c.maxWait))
	if late && c.dead() { // both at the same instant: the cache may choose
		late = errors.Is(m.obs.failed[c], idemflight.ErrInFlight)
	}
	switch {
	case late:
		m.reject(c, idemflight.ErrInFlight, &m.stats.NotWaited)
	case c.dead():
		m.leave(c)
	default:
		return false
	}
	return true
}

// next returns the next instant at which something that is not expiry happens by itself, if that is before to.
func (m *reference) next(to time.Time) time.Time {
	sooner := func(t time.Time) {
		if t.After(m.now) && t.Before(to) {
			to = t
		}
	}
	each := func(c *call) {
		if !c.ended && !c.endsAt.IsZero() {
			sooner(c.endsAt)
		}
		if c.maxWait != nil {
			sooner(c.began.Add(*c.maxWait))
		}
	}
	for _, f := range m.flights {
		sooner(f.exec.deadline)
		for _, c := range f.callers() {
			each(c)
		}
	}
	return to
}

func (f *flight) callers() []*call { return slices.Concat([]*call{f.leader}, f.waiters, f.askers) }

// advance lets time pass to now.
func (m *reference) advance(now time.Time) {
	m.now = now
	for key, r := range m.kept {
		if r.expired(now) {
			delete(m.kept, key)
			m.stale = append(m.stale, r)
		}
	}
	for _, f := range m.flights {
		if e := f.exec; !e.deadline.IsZero() && !now.Before(e.deadline) {
			e.ctxEnded = true
		}
		for _, c := range f.callers() {
			if !c.ended && !c.endsAt.IsZero() && !now.Before(c.endsAt) {
				c.ended = true
			}
		}
	}
	m.leaveAll()
}

// told is an EventExpired of key.
func (m *reference) told(key string, held bool) {
	for i, r := range m.stale {
		if r.key == key && (r.state == idemflight.Held) == held {
			m.stale = slices.Delete(m.stale, i, i+1)
			m.stats.Expired++
			return
		}
	}
	disagree("EventExpired of %q (held: %v), which has not expired or was told before", key, held)
}

// busy reports whether there is a caller that runs fn itself, and tells what it evicted, overwrote or
// reclaimed when fn is through.
func (m *reference) busy() bool {
	for _, f := range m.flights {
		if f.leader.stays() && !f.exec.reconciling {
			return true
		}
	}
	return false
}

// toldEvicted reports whether an EventEvicted is one that was still to be told, and by one of the calls that
// have returned.
func (m *reference) toldEvicted(e eviction, returned map[*call]error) bool {
	i := slices.IndexFunc(m.untold, func(u toTell) bool {
		_, ok := returned[u.by]
		return ok && u.eviction == e
	})
	if i >= 0 {
		m.untold = slices.Delete(m.untold, i, i+1)
	}
	return i >= 0
}

// overdue checks that what was evicted is told, and what has expired too: in time (promise 17), and
// when its key is flown again.
func (m *reference) overdue() {
	if m.busy() {
		return
	}
	if len(m.untold) > 0 {
		disagree("%v was evicted without an EventEvicted", m.untold)
	}
	for _, r := range m.stale {
		if m.flights[r.key] != nil || m.kept[r.key] != nil {
			disagree("the record of %q has expired and was overwritten without an EventExpired", r.key)
		}
		late := max(time.Second, r.ttl/8)
		if !m.closed && m.now.Sub(r.deadline) > late {
			disagree("the record of %q (TTL %v) expired %v ago and has not been reclaimed", r.key, r.ttl, m.now.Sub(r.deadline))
		}
	}
}

// forget is Forget (promise 23), in the context of id.
func (m *reference) forget(id int, key string) bool {
	f := m.flights[key]
	switch {
	case m.kept[key] != nil:
		delete(m.kept, key)
	case f != nil:
		f.forgotten = true
	default:
		return false
	}
	m.beside(id, key, answer{kind: idemflight.EventForgotten, wrong: (*cause)(nil).original})
	return true
}

// resolve is Resolve (promise 13), in the context of id. got is what it returned.
func (m *reference) resolve(id int, key string, value int, err *errSpec, got error) {
	d, why := idemflight.Retain, (*cause)(nil)
	if err != nil {
		hold := func(*errSpec) idemflight.Disposition { return idemflight.Hold }
		found := false
		if d, found = err.marked(hold); !found {
			d = idemflight.Hold
		}
		why = &cause{spec: err}
	}
	r := m.kept[key]
	held := r != nil && r.state == idemflight.Held
	switch {
	case d == idemflight.Hold && got != nil && (!held && errors.Is(got, idemflight.ErrNotHeld) || isNameless(got) == ""):
		return
	case d == idemflight.Hold:
		disagree("Resolve of %q with %v answers %v, want a refusal", key, err.err, got)
	case !held:
		if !errors.Is(got, idemflight.ErrNotHeld) {
			disagree("Resolve of %q, which is not held, answers %v", key, got)
		}
		return
	case got != nil:
		disagree("Resolve of %q answers %v, want success", key, got)
	}
	m.beside(id, key, answer{kind: idemflight.EventResolved, disposition: d, wrong: why.original})
	delete(m.kept, key)
	if d == idemflight.Retain {
		settled := &record{key: key, state: idemflight.Retained, value: value, err: why, fp: r.fp, started: r.started, completed: m.now}
		m.keep(settled, m.ttl, m.weigh(key, value))
	}
}

// restore is Restore (promise 24). got is what it returned.
func (m *reference) restore(key string, e idemflight.Entry[int], err *errSpec, got error) {
	r := &record{
		key: key, state: e.State, value: e.Value, fp: e.Fingerprint,
		started: e.StartedAt, completed: e.CompletedAt, deadline: e.ExpiresAt,
	}
	if err != nil {
		r.err = &cause{spec: err}
	}
	legal := m.refusals(r)
	switch {
	case e.State < idemflight.InFlight || e.State > idemflight.Shed:
		legal = append(legal, errNameless)
	case e.State == idemflight.InFlight, e.State == idemflight.Held && e.ExpiresAt.IsZero():
	case e.ExpiresAt.IsZero():
		legal = append(legal, errNameless)
	case r.expired(m.now):
		legal = append(legal, idemflight.ErrExpired)
	}
	if len(legal) == 0 && !m.room(nil) {
		legal = append(legal, idemflight.ErrFull)
	}
	switch {
	case len(legal) > 0:
		m.weighedInVain(r)
		if !isOneOf(got, legal) {
			disagree("Restore of %q: error %v, want one of %v", key, got, legal)
		}
	case got != nil:
		disagree("Restore of %q: %v, want success", key, got)
	default:
		m.putBack(r)
	}
}

// errNameless stands for any error that is none of names.
var errNameless = errors.New("one that says in words what is wrong")

// isOneOf reports whether got is one of the legal errors.
func isOneOf(got error, legal []error) bool {
	return slices.ContainsFunc(legal, func(want error) bool {
		return want == errNameless && isNameless(got) == "" || errors.Is(got, want)
	})
}

// refusals returns the errors with which the cache may refuse to take r back, whatever r is, but for want
// of room.
func (m *reference) refusals(r *record) (legal []error) {
	if r.key == "" {
		legal = append(legal, idemflight.ErrInvalidKey)
	}
	if m.closed {
		legal = append(legal, idemflight.ErrClosed)
	}
	if m.kept[r.key] != nil || m.flights[r.key] != nil {
		legal = append(legal, errNameless)
	}
	return legal
}

// weighedInVain is for r that is refused: the contract does not say whether Weigh is asked before.
func (m *reference) weighedInVain(r *record) {
	if m.obs.weighed[r.key] {
		m.weigh(r.key, r.value)
	}
}

// putBack puts r, for which there is a place, back.
func (m *reference) putBack(r *record) {
	r.ttl = r.deadline.Sub(r.completed)
	if r.state != idemflight.Retained {
		r.value = 0
	}
	switch r.state {
	case idemflight.InFlight:
		r.state, r.err = idemflight.Held, &cause{sentinel: idemflight.ErrInterrupted}
		r.completed, r.anyCompleted = m.now, true
		m.hold(r)
	case idemflight.Held:
		m.kept[r.key] = r
	case idemflight.Retained:
		m.put(r, m.weigh(r.key, r.value))
	case idemflight.Shed:
		m.put(r, 0)
	}
}

// entry is what Lookup and All must say of key.
func (m *reference) entry(key string) (want entry, ok bool) {
	if r := m.kept[key]; r != nil {
		return entry{idemflight.Entry[int]{
			State: r.state, Value: r.value, Fingerprint: r.fp,
			StartedAt: r.started, CompletedAt: r.completed, ExpiresAt: r.deadline,
		}, r.err, r.anyCompleted}, true
	}
	if f := m.flights[key]; f != nil {
		return entry{idemflight.Entry[int]{State: idemflight.InFlight, Fingerprint: f.fp, Waiters: len(f.waiters), StartedAt: f.started}, nil, false}, true
	}
	return entry{}, false
}

// entry is an Entry with its error as the reference knows it.
type entry struct {
	idemflight.Entry[int]
	err          *cause
	anyCompleted bool
}

// wrong says what is wrong with got.
func (want entry) wrong(got idemflight.Entry[int]) string {
	same := got.State == want.State && got.Value == want.Value && got.Fingerprint == want.Fingerprint &&
		got.Waiters == want.Waiters && got.StartedAt.Equal(want.StartedAt) && got.ExpiresAt.Equal(want.ExpiresAt) &&
		(want.anyCompleted || got.CompletedAt.Equal(want.CompletedAt))
	if !same {
		return fmt.Sprintf("entry is\n\t%+v, want\n\t%+v", got, want.Entry)
	}
	return want.err.original(got.Err)
}

// all returns Stats as it must be.
func (m *reference) all() idemflight.Stats {
	s := m.stats
	s.InFlight, s.Entries, s.Held, s.Weight = len(m.flights), len(m.kept), m.heldCount(), m.weight()
	for _, f := range m.flights {
		s.Waiters += len(f.waiters)
	}
	return s
}

// Values say in their last two digits what they weigh, or something else about them.
const (
	unwritable = 96 // the Codec panics when it is to write it
	unreadable = 97 // and fails when it is to read it
	lessThan0  = 98 // what it weighs
	unweighed  = 99 // Weigh panics
)

// weightOf is Weigh.
func weightOf(value int) (w int64, panics bool) {
	switch digits := value % 100; digits {
	case unwritable, unreadable:
		return 1, false
	case lessThan0:
		return -3, false
	case unweighed:
		return 0, true
	default:
		return int64(digits), false
	}
}
