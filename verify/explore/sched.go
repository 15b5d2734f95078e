package explore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/yield"
)

// thread is a goroutine that the scheduler knows: an actor of the scenario, or one that the library
// made. Its name is the same in every schedule that begins alike: an actor's own, or its parent's
// with a number.
type thread struct {
	name     string
	goid     uint64
	label    unsafe.Pointer
	resume   chan struct{}
	children int

	point string    // where it is parked; "" while it runs or waits for another
	from  string    // where it was parked last
	found int       // the step in which it went on from lookFound last: it then reads the clock
	looks int       // the step in which it went on from lookForRoom last, and read what may go
	asOf  time.Time // when it came there, and read the clock
	waits time.Time // since when it waits for another, if it does
	after string    // the point of the scenario at which it was parked last, if the library has had none since
	fate  fate      // of the store's verb before which it was parked last
	actor bool      // of the scenario: it has to come to its end; what the library made is seen only at its points
	ended bool      // of actors
}

// scheduler lets one goroutine at a time go on. It serves one schedule.
//
// Mostly nobody is parked with a lock held, so that any may go on. But a point whose name begins with
// yield.Locked lies within the critical section of a shard: another thread that wants the lock would
// block on it, which a bubble does not take for waiting, and synctest.Wait would not return. So while
// a thread is parked at such a point (the holder), the driver picks only the holder or a thread
// whose next stretch takes no lock (withoutLock); it does not let time pass; and the oracle, which
// takes locks, looks again when the critical section is over. What this leaves out is a thread that
// wants the lock of another shard: it could go on, but the driver does not know which lock it wants.
// (The rest changes nothing: what a thread does up to the lock, it may as well do before or after.)
type scheduler struct {
	ignored    map[string]bool // points that do not park
	endsAtOnce bool            // nobody comes in between the end of fn and the settling of its flight

	// free turns the points off: the driver itself calls the cache, or the schedule is over. It is
	// written only while everybody else is blocked.
	free bool

	// With a store. Any point may then be the first of a goroutine that an actor's call made. Where
	// nobody can go on, those that wait for time go on: moved says when one has parked or ended.
	stored   bool
	failures int           // how many verbs may fail yet
	pause    time.Duration // after a failure this may pass at any moment, so that the verb is repeated
	moved    chan struct{}

	mu      sync.Mutex
	threads []*thread
	timers  thread // parent of what no thread made

	// A point that some schedule has to pass, and whether this one did. If it is in a critical
	// section, another thread has to go on meanwhile.
	through string
	passed  bool

	step  int // number of the present step; written by the driver while everybody else is blocked
	last  *thread
	trace func(format string, args ...any)
}

// openings are the points with which operations of the library begin. An actor has parked right
// before, at the start of its operation: parking again would only double the schedules. (Do has
// none: before its first point it looks into the table.)
var openings = map[string]bool{
	"forget": true, "lookup": true, "close": true, "resolve": true, "restore": true, "operate": true, "unsettled": true,
}

// The points of a look without a lock: it has found a record, and is about to read the clock; it is
// about to read whether the record is gone.
const (
	lookFound = "look: found"
	lookValid = "look: not expired"

	lookForRoom = "look for room"

	yielded = "yielded" // Reconcile has found that fn may run
	settle  = "settle"
)

// withoutLock are the points, beside the start of a Do, from which a thread comes to its next point,
// or to the end of its operation, without the lock of a shard. A look goes on to an answer, or to
// "look: lock" or "meet", before the lock; a search for room reads the heads, up to "looked for room"
// or "reclaim"; and the timer has a lock of its own, under which nobody stops.
var withoutLock = map[string]bool{
	lookFound: true, lookValid: true, lookForRoom: true,
	"arm": true, "disarm": true, "disarm: stop": true, "disarmed": true, "rearm": true, "fired": true,
}

// needsLock reports whether a thread may need the lock of a shard before it parks again.
func (t *thread) needsLock() bool {
	return !withoutLock[t.point] && !strings.HasPrefix(t.point, startOfDo)
}

// isLocked reports whether a thread at point holds the lock of a shard.
func isLocked(point string) bool { return strings.HasPrefix(point, yield.Locked) }

// holder returns the thread that is parked with the lock of a shard, or nil.
func (s *scheduler) holder() *thread {
	for _, t := range s.threads {
		if isLocked(t.point) {
			return t
		}
	}
	return nil
}

// births are the points at which a goroutine of the library is seen first.
var births = map[string]bool{"execute": true, "fired": true}

// park is the hook of internal/yield.
func (s *scheduler) park(point string) {
	if s.free {
		return
	}
	s.mu.Lock()
	t := s.current(point)
	s.passed = s.passed || point == s.through && !isLocked(point)
	skip := s.ignored[point] || t.after == start && openings[point] || t.after == running && point == settle && s.endsAtOnce ||
		isLocked(point) && t.from == spunFor
	t.after = ""
	if skip {
		s.mu.Unlock()
		return
	}
	s.parkLocked(t, point)
}

// parkLocked parks t, the calling goroutine, and unlocks s.mu.
func (s *scheduler) parkLocked(t *thread, point string) {
	if t.point != "" {
		panic(fmt.Sprintf("explore: %s parks at %q, and is parked at %q: two goroutines pass for one", t.name, point, t.point))
	}
	t.point = point
	if point == lookForRoom {
		t.asOf = time.Now()
	}
	s.mu.Unlock()
	s.moves()
	<-t.resume
}

// spunFor is the point before a critical section whose end another thread may wait for in a loop
// (see shedOne of the library): nobody is parked within.
const spunFor = "weight: taken"

// begins parks the calling goroutine before an operation, and returns its thread.
func (s *scheduler) begins(what string) *thread {
	if s.free {
		return nil
	}
	s.mu.Lock()
	t := s.current(what)
	s.parkLocked(t, what)
	t.after = start
	return t
}

// runs parks the calling goroutine in fn.
func (s *scheduler) runs() *thread {
	if s.free {
		return nil
	}
	s.mu.Lock()
	t := s.current(running)
	s.parkLocked(t, running)
	t.after = running
	return t
}

const (
	start     = "start"
	startOfDo = "do " // and the key
	running   = "fn runs"
)

// current returns the thread that calls. Goroutines are told apart by their profiler labels, which
// cost nothing to read, and which a goroutine inherits: so the first time one is seen its number
// counts too. With a store it counts for actors at every point: what their calls make may park anywhere first.
func (s *scheduler) current(point string) *thread {
	label := runtime_getProfLabel()
	parent := &s.timers
	for _, t := range s.threads {
		if t.label == label {
			parent = t
			break
		}
	}
	mayBeNew := births[point] || s.stored && parent.actor
	if parent != &s.timers && !mayBeNew && !alwaysCompareGoroutines {
		return parent
	}
	id := goid()
	for _, t := range s.threads {
		if t.goid == id {
			return t
		}
	}
	if !mayBeNew && parent != &s.timers {
		panic(fmt.Sprintf("explore: a goroutine made by %s is first seen at %q: add it to births", parent.name, point))
	}
	parent.children++
	return s.adopt(parent.name+"/"+strconv.Itoa(parent.children), id)
}

// alwaysCompareGoroutines makes current distrust labels: slow, for the test that they may be trusted.
var alwaysCompareGoroutines bool

// adopt makes the calling goroutine a thread.
func (s *scheduler) adopt(name string, id uint64) *thread {
	if len(s.threads) == len(labels) {
		panic("explore: more goroutines than labels")
	}
	l := labels[len(s.threads)]
	pprof.SetGoroutineLabels(l)
	t := &thread{name: name, goid: id, label: runtime_getProfLabel(), resume: make(chan struct{})}
	s.threads = append(s.threads, t)
	return t
}

// spawn runs f on a goroutine of its own, as the thread name.
func (s *scheduler) spawn(name string, actor bool, f func(t *thread)) {
	ready := make(chan struct{})
	go func() {
		s.mu.Lock()
		t := s.adopt(name, goid())
		t.actor = actor
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			t.ended = true
			s.mu.Unlock()
			s.moves()
		}()
		close(ready)
		f(t)
	}()
	<-ready
}

// labels are as many as a schedule can have threads.
var labels = func() (all [32]context.Context) {
	for i := range all {
		all[i] = pprof.WithLabels(context.Background(), pprof.Labels("thread", strconv.Itoa(i)))
	}
	return all
}()

// runtime_getProfLabel returns the labels of the calling goroutine. There is no exported way to ask;
// the runtime keeps this one for packages that need it (go.dev/issue/67401).
//
//go:linkname runtime_getProfLabel runtime/pprof.runtime_getProfLabel
func runtime_getProfLabel() unsafe.Pointer

// goid returns the number of the calling goroutine, as a stack trace prints it.
func goid() (id uint64) {
	var buf [64]byte
	line := buf[:runtime.Stack(buf[:], false)]
	for _, c := range line[len("goroutine "):] {
		if c < '0' || c > '9' {
			break
		}
		id = id*10 + uint64(c-'0')
	}
	return id
}

// choice is one that had an alternative: the pick, of how many.
type choice struct{ pick, of int }

// fate is what becomes of a verb of the store.
type fate int

const (
	acts fate = iota
	failsBefore
	failsAfter // it acts, and its answer is lost
)

func (f fate) String() string { return [...]string{"", ": fails", ": acts, and its answer is lost"}[f] }

// fates are the verbs of a store, each with the number of its fates: where nothing changes, a lost
// answer is none of its own.
var fates = map[string]int{
	"Claim": 3, "Begin": 3, "Settle": 3, "Renew": 3, "GiveBack": 3, "Forget": 3, "Watch": 2, "Read": 2,
}

// plan is what a schedule is to do: the choices to make, then always the first; and how often a
// thread that could go on may be interrupted, or a verb fail, negative for any number.
type plan struct {
	picks []choice
	bound int
}

// stepFormat prints a step: its number, the thread that takes it, and the point from which that goes on.
const stepFormat = "%3d  %-10s %s"

// errOtherwise: the schedule went otherwise than the last time, though it began alike.
var errOtherwise = errors.New("not deterministic")

// drive runs the schedule of plan to its end. clock are the durations by which time may pass, one
// after the other; after is called whenever everybody is blocked, and stops the schedule by
// returning false: it must take no lock while there is a holder.
func (s *scheduler) drive(p plan, clock []time.Duration, after func() bool) (made []choice, interruptions int, err error) {
	choose := func(n int) (int, error) {
		c := choice{0, n}
		if i := len(made); i < len(p.picks) {
			want := p.picks[i]
			if want.of != 0 && want.of != n || want.pick >= n {
				return 0, fmt.Errorf("%w: choice %d was one of %d, and is now one of %d", errOtherwise, i, want.of, n)
			}
			c.pick = want.pick
		}
		made = append(made, c)
		return c.pick, nil
	}
	var options []*thread
	tick := &thread{name: "clock"}
	idle := false
	for {
		synctest.Wait()
		if !after() {
			return made, interruptions, nil
		}
		options = options[:0]
		busy := false
		holder := s.holder()
		for _, t := range s.threads {
			switch {
			case t.point != "":
				if holder == nil || t == holder || !t.needsLock() {
					options = append(options, t)
				}
			case t.actor && !t.ended:
				busy = true
			}
		}
		if len(options) == 0 && !busy {
			if idle {
				return made, interruptions, nil
			}
			idle = true
			s.step++
			if s.stored {
				idle = !s.await()
			} else {
				time.Sleep(time.Nanosecond) // a timer that is due fires only when everybody waits for time
			}
			continue
		}
		idle = false
		if len(clock) > 0 && holder == nil {
			tick.point = clock[0].String()
			options = append(options, tick)
		}
		if len(options) == 0 {
			if s.stored && s.await() {
				continue
			}
			return made, interruptions, fmt.Errorf("stranded: %s", s.waiting())
		}
		slices.SortFunc(options, func(a, b *thread) int {
			if l := s.last; (a == l) != (b == l) { // going on comes first
				if a == l {
					return -1
				}
				return 1
			}
			return cmp.Compare(a.name, b.name)
		})
		canGoOn := options[0] == s.last
		if canGoOn && interruptions == p.bound {
			options = options[:1]
		}
		t := options[0]
		if n := len(options); n > 1 {
			pick, err := choose(n)
			if err != nil {
				return made, interruptions, err
			}
			t = options[pick]
			if canGoOn && pick != 0 {
				interruptions++
			}
		}
		t.fate = acts
		if n := fates[t.point]; n > 0 && s.failures > 0 && interruptions != p.bound {
			pick, err := choose(n)
			if err != nil {
				return made, interruptions, err
			}
			if t.fate = fate(pick); t.fate != acts { // counts as an interruption
				interruptions++
				s.failures--
				clock = append([]time.Duration{s.pause}, clock...)
			}
		}
		s.step++
		if s.trace != nil {
			s.trace(stepFormat, s.step, t.name, t.point+t.fate.String())
		}
		s.last = t
		if t == tick {
			time.Sleep(clock[0])
			clock = clock[1:]
			continue
		}
		if holder != nil && t != holder {
			s.passed = s.passed || holder.point == s.through
		}
		if t.point == lookFound {
			t.found = s.step
		}
		if t.point == lookForRoom {
			t.looks = s.step
		}
		t.from, t.point = t.point, ""
		t.resume <- struct{}{}
	}
}

// moves says that a thread has parked or ended.
func (s *scheduler) moves() {
	select {
	case s.moved <- struct{}{}:
	default:
	}
}

// await lets time pass until a thread has parked or ended. It reports false if none has for a while.
func (s *scheduler) await() bool {
	select {
	case <-s.moved: // before
	default:
	}
	enough := time.NewTimer(3 * idemflight.DefaultLease)
	defer enough.Stop()
	select {
	case <-s.moved:
		return true
	case <-enough.C:
		return false
	}
}

func (s *scheduler) waiting() (names []string) {
	for _, t := range s.threads {
		if t.actor && !t.ended && t.point == "" {
			names = append(names, t.name)
		}
	}
	return names
}

// release lets everybody go and turns the points off.
func (s *scheduler) release() {
	s.free = true
	for _, t := range s.threads {
		if t.point != "" {
			t.point = ""
			t.resume <- struct{}{}
		}
	}
}

// next returns the choices of the schedule after the one that made these, or false after the last.
func next(made []choice) ([]choice, bool) {
	for i := len(made) - 1; i >= 0; i-- {
		if made[i].pick+1 < made[i].of {
			n := slices.Clone(made[:i+1])
			n[i].pick++
			return n, true
		}
	}
	return nil, false
}
