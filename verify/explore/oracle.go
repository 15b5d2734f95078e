package explore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/idemflight/idemflight"
)

// shot is what the cache shows between two steps.
type shot struct {
	at      time.Time
	entries [maxKeys]entry
	taken   int // in flight and kept
	firm    int // of these, those that may not be evicted
	weight  int64
	asking  [maxKeys]bool   // in flight, and Reconcile has not answered yet
	pauses  [maxKeys]*pause // of keys that are held
	blind   bool            // somebody held the lock of a shard: the last one before, which may be out of date
}

// flight is the time during which a key is in flight.
type flight struct {
	key   key
	claim int   // the step in which it began
	by    *call // the call that leads it, or
	op    *op   // the operator's Reconcile that does
	end   int   // the step in which it settled; 0: not yet
	fp    idemflight.Fingerprint
	held  entry // what Reconcile is asked about; absent if it is not
	execs []*execution
	fn    int                    // the step in which Reconcile had found that fn may run, and it was to follow
	state idemflight.State       // what was left: Retained, Held, Shed, or 0
	what  idemflight.Disposition // what became of the outcome
}

// asks reports whether Reconcile has not answered yet.
func (f *flight) asks() bool { return f.held.State == idemflight.Held && f.fn == 0 && f.end == 0 }

// nobodys reports whether f has settled with nobody's fn to run: those that wait look again.
func (f *flight) nobodys() bool {
	x := f.execs[len(f.execs)-1]
	return x.reconciling && x.want == idemflight.Release
}

// pause is what a Reconcile that learned nothing leaves: until its end no call asks again.
type pause struct {
	by    *execution
	until time.Time
}

const pauseTime = time.Second // as the library has it

// over reports whether p is over, or there is none.
func (p *pause) over(at time.Time) bool { return p == nil || !at.Before(p.until) }

// counts are what upkeep and executions came to, as the steps show it.
type counts struct {
	evicted, expired, shed   int
	last                     int // of those evicted: held, as the last resort
	retains, releases, holds int
}

// observe looks at the cache between two steps and compares it with what was there before; after a
// critical section in which somebody was parked, with what was there before that. It reports whether
// all is well.
func (w *world) observe() bool {
	if w.holder() != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		s := w.shots[len(w.shots)-1]
		s.blind = true
		w.shots = append(w.shots, s)
		return w.wrong == nil
	}
	w.free = true
	s := shot{at: time.Now(), taken: len(w.fills)}
	for k := range max(key(w.sc.keys), 1) {
		e, ok, err := w.cache.Lookup(context.Background(), w.keys[k])
		w.fail(err)
		if !ok {
			continue
		}
		s.entries[k] = e
		s.taken++
		if !w.mayGo(e, s.at) && !w.mayGoLast(e, s.at) {
			s.firm++
		}
		if e.State == idemflight.Retained && w.opts.Weigh != nil {
			s.weight += w.opts.Weigh(w.keys[k], e.Value)
		}
	}
	w.free = false
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.ops {
		if o.end == 0 && (o.by.thread.point == "arm" || o.by.thread.point == "disarm") {
			o.end = w.step // what is left to do is about the timer
		}
	}
	if s.taken > w.opts.MaxEntries {
		w.failLocked(fmt.Errorf("%d keys in flight and kept, of at most %d", s.taken, w.opts.MaxEntries))
	}
	if w.opts.MaxWeight > 0 && s.weight > w.opts.MaxWeight {
		w.failLocked(fmt.Errorf("what is retained weighs %d, of at most %d", s.weight, w.opts.MaxWeight))
	}
	if len(w.shots) > 0 {
		before := w.shots[len(w.shots)-1]
		for k := range max(key(w.sc.keys), 1) {
			w.failLocked(w.transitionLocked(k, before, s))
			if s.entries[k].State != idemflight.Held {
				w.pauses[k] = nil
			}
			s.asking[k] = s.entries[k].State == idemflight.InFlight && w.flights[k].asks()
		}
	}
	s.pauses = w.pauses
	w.shots = append(w.shots, s)
	w.failLocked(w.lingerersLocked())
	return w.wrong == nil
}

// mayGo reports whether e is an outcome that could be evicted.
func (w *world) mayGo(e entry, now time.Time) bool {
	return (e.State == idemflight.Retained || e.State == idemflight.Shed) && w.unprotected(e, now)
}

// mayGoLast reports whether e is held, and could be evicted as the last resort.
func (w *world) mayGoLast(e entry, now time.Time) bool { return w.spare(e) && w.unprotected(e, now) }

// spare reports whether e is held only because fn said nothing.
func (w *world) spare(e entry) bool {
	var f failure
	if e.State != idemflight.Held || !errors.As(e.Err, &f) {
		return false
	}
	x := w.execOf(int(f))
	return f == unsaid || x != nil && !x.reconciling && !x.marked && !x.spoke
}

func (w *world) unprotected(e entry, now time.Time) bool {
	return w.opts.MinRetention < 0 || w.opts.MinRetention < w.opts.TTL && now.Sub(e.CompletedAt) >= w.opts.MinRetention
}

// transitionLocked says what is wrong with the way that k took in the present step.
func (w *world) transitionLocked(k key, before, now shot) error {
	a, b := before.entries[k], now.entries[k]
	from, to := a.State, b.State
	bad := func(why string, args ...any) error {
		return fmt.Errorf("%v was %s and is %s: %s", k, show(a), show(b), fmt.Sprintf(why, args...))
	}
	f := w.flights[k]
	if from == idemflight.InFlight {
		// Executions of this flight that have begun, the present one last.
		for _, x := range w.execs {
			if x.key == k && x.flight == nil {
				x.flight = f
				f.execs = append(f.execs, x)
			}
		}
		if to == idemflight.InFlight {
			if len(f.execs) > 0 && f.execs[0].thread == w.last && w.last.from == yielded && w.last.point != settle {
				f.fn = w.step
			}
			return nil
		}
		return w.settledLocked(f, a, b, now, bad)
	}
	if from == to {
		if a.Value != b.Value || !a.CompletedAt.Equal(b.CompletedAt) || !a.ExpiresAt.Equal(b.ExpiresAt) || a.Err != b.Err || a.Fingerprint != b.Fingerprint {
			return bad("another outcome in the place of one that is kept")
		}
		return nil
	}
	switch to {
	case idemflight.InFlight:
		if from != 0 && (from != idemflight.Held || w.opts.Reconcile == nil) {
			return bad("an execution began while an outcome is kept")
		}
		f = &flight{key: k, claim: w.step, fp: b.Fingerprint, held: a}
		w.flights[k] = f
		f.by, f.op = w.callOf(k, w.last), w.opOf("reconcile", k, w.last)
		switch {
		case f.by != nil:
			if f.by.leads != nil {
				return bad("it leads its second flight")
			}
			f.by.leads = f
			if from == idemflight.Held && !w.pauses[k].over(now.at) {
				return bad("Reconcile has learned nothing a moment ago")
			}
		case f.op != nil:
			f.op.flies = f
			if from != idemflight.Held {
				return bad("an operator's Reconcile has no fn")
			}
		default:
			return bad("nobody called Do")
		}
		if w.closing > 0 && w.closing < w.step {
			return bad("after Close")
		}
		for _, x := range w.execs {
			if x.key == k && x.flight == nil {
				x.flight = w.flights[k]
				x.flight.execs = append(x.flight.execs, x)
			}
		}
		return nil
	case 0:
		return w.goneLocked(k, a, before, now, bad)
	case idemflight.Shed:
		if from == idemflight.Retained && w.opts.MaxWeight > 0 {
			w.counts.shed++
			return nil
		}
	case idemflight.Retained, idemflight.Held:
		if from == 0 && w.underWay("restore", k, to) || from == idemflight.Held && w.underWay("resolve", k, to) {
			return nil
		}
	}
	return bad("no way leads there")
}

func show(e entry) string {
	if e.State == 0 {
		return "absent"
	}
	return fmt.Sprintf("%v (%d, %v)", e.State, e.Value, e.Err)
}

// callOf returns the call of Do for k that t makes in the present step, the innermost; or nil.
func (w *world) callOf(k key, t *thread) *call {
	for _, c := range slices.Backward(w.calls) {
		if c.thread == t && c.key == k && w.present(c.end) {
			return c
		}
	}
	return nil
}

// opOf returns what else t does with k in the present step, if it is of that kind.
func (w *world) opOf(kind string, k key, t *thread) *op {
	for _, o := range slices.Backward(w.ops) {
		if o.thread == t && o.kind == kind && o.key == k && w.present(o.end) {
			return o
		}
	}
	return nil
}

// underWay reports whether something of that kind on k, that makes the key become to, is under way
// in the present step.
func (w *world) underWay(kind string, k key, to idemflight.State) bool {
	return slices.ContainsFunc(w.ops, func(o *op) bool { return o.kind == kind && o.key == k && o.to == to && w.present(o.end) })
}

// present reports whether what ended in the step end, 0 for not yet, went on in the present step.
func (w *world) present(end int) bool { return end == 0 || end >= w.step }

// settledLocked says what is wrong with what f left.
func (w *world) settledLocked(f *flight, a, b entry, now shot, bad func(string, ...any) error) error {
	f.end, f.state = w.step, b.State
	if len(f.execs) == 0 {
		return bad("the flight ended and nothing had run")
	}
	for _, x := range f.execs {
		if x.end == 0 {
			return bad("execution %d runs", x.id)
		}
	}
	x := f.execs[len(f.execs)-1]
	for _, y := range f.execs[:len(f.execs)-1] {
		if !y.reconciling || y.want != idemflight.Release {
			return bad("execution %d ran before %d in one flight", y.id, x.id)
		}
		w.counts.releases++
		if c := f.by; c == nil || c.end != 0 && c.end < x.start {
			return bad("execution %d of fn followed, and its leader had left", x.id)
		}
	}
	if x.call != f.by {
		return bad("execution %d is not of the leader", x.id)
	}
	if (f.held.State == idemflight.Held) != f.execs[0].reconciling {
		return bad("execution %d came first", f.execs[0].id)
	}
	if f.nobodys() && f.by != nil && (f.by.end == 0 || f.by.end >= w.step) {
		return bad("there was no effect, the leader is there, and its fn did not run")
	}
	ttl := w.opts.TTL
	if f.by != nil {
		switch t := f.by.how.ttl; {
		case t > 0:
			ttl = t
		case t < 0 && !x.reconciling:
			ttl = 0
		}
	}
	must, may := w.forgotten(f)
	want := x.want
	switch {
	case want == idemflight.Retain && (must || ttl == 0):
		want = idemflight.Release
	case want == idemflight.Retain && may && b.State == 0:
		want = idemflight.Release
	}
	f.what = want
	switch want {
	case idemflight.Retain:
		w.counts.retains++
		expires := x.doneAt.Add(ttl)
		if b.State == idemflight.Shed && w.opts.MaxWeight > 0 {
			w.counts.shed++
			return nil
		}
		if b.State == 0 && !now.at.Before(expires) {
			w.counts.expired++
			return nil
		}
		if b.State != idemflight.Retained || b.Value != x.id || !errorIs(b.Err, x.err) {
			return bad("execution %d is to be retained", x.id)
		}
		if !b.ExpiresAt.Equal(expires) || b.Fingerprint != f.fp {
			return bad("it expires at %v and not at %v, or its fingerprint differs", b.ExpiresAt, expires)
		}
	case idemflight.Release:
		w.counts.releases++
		if b.State != 0 {
			return bad("execution %d is to be released (forgotten: %v)", x.id, must || may)
		}
	default:
		w.counts.holds++
		expires := x.doneAt.Add(w.opts.HoldTTL)
		if b.State == 0 && !now.at.Before(expires) {
			w.counts.expired++
			return nil
		}
		if b.State != idemflight.Held {
			return bad("execution %d is to be held", x.id)
		}
		if x.reconciling && (b.Err != f.held.Err || !b.CompletedAt.Equal(f.held.CompletedAt)) {
			return bad("it was held as %s, and Reconcile learned nothing", show(f.held))
		}
		if w.pauses[f.key] = nil; x.reconciling {
			w.pauses[f.key] = &pause{x, x.doneAt.Add(pauseTime)}
		}
		if !b.ExpiresAt.Equal(expires) || b.Fingerprint != f.fp {
			return bad("it expires at %v and not at %v, or its fingerprint differs", b.ExpiresAt, expires)
		}
	}
	return nil
}

// forgotten reports whether f must have been forgotten, or may have been.
func (w *world) forgotten(f *flight) (must, may bool) {
	for _, o := range w.ops {
		if o.kind != "forget" || o.key != f.key || o.start > f.end || o.end != 0 && o.end < f.claim {
			continue
		}
		may = true
		must = must || o.start > f.claim && o.end != 0 && o.end < f.end
	}
	return must, may
}

// goneLocked says what is wrong with a record that is gone.
func (w *world) goneLocked(k key, a entry, before, now shot, bad func(string, ...any) error) error {
	if !a.ExpiresAt.IsZero() && !now.at.Before(a.ExpiresAt) {
		w.counts.expired++
		return nil
	}
	for _, o := range w.ops { // not one that is only under way: another may evict meanwhile
		drops := o.kind == "forget" || o.kind == "resolve" && a.State == idemflight.Held && o.to == 0
		if drops && o.key == k && o.thread == w.last && w.present(o.end) {
			return nil
		}
	}
	switch {
	case a.State != idemflight.Held:
		if !w.mayGo(a, now.at) {
			return bad("it is protected")
		}
	case !w.mayGoLast(a, now.at):
		return bad("nobody forgot or resolved it, and it has not expired")
	default:
		// The last resort: of a thread that looked for an outcome that may go, when there was none.
		if s := w.shots[max(w.last.looks-1, 0)]; !s.blind {
			for _, e := range s.entries {
				if w.mayGo(e, w.last.asOf) {
					return bad("it is held, and %s could have gone", show(e))
				}
			}
		}
	}
	// Evicted: by somebody that wants a place for another key, and has found none free since.
	full := func(since int) bool {
		for i := since - 1; i < len(w.shots); i++ {
			if w.shots[i].taken >= w.opts.MaxEntries {
				return true
			}
		}
		return false
	}
	evicted := func() error {
		if w.counts.evicted++; a.State == idemflight.Held {
			w.counts.last++
		}
		return nil
	}
	for _, c := range w.calls {
		if c.key != k && c.thread == w.last && w.present(c.end) && full(c.start) {
			return evicted()
		}
	}
	for _, o := range w.ops {
		if o.kind == "restore" && o.key != k && o.thread == w.last && w.present(o.end) && full(o.start) {
			return evicted()
		}
	}
	return bad("nobody forgot it, it has not expired, and nobody needs its place")
}

// lingerersLocked finds callers that wait although their context has ended, or that may wait no longer.
func (w *world) lingerersLocked() error {
	now := time.Now()
	for _, t := range w.threads {
		if t.point != "" || t.ended {
			t.waits = time.Time{}
		} else if t.waits.IsZero() {
			t.waits = now
		}
	}
	for _, c := range w.calls {
		p := c.by
		if c.end != 0 || c.thread == nil || c.thread.point != "" || w.nests(c) {
			continue
		}
		leads := c.leads != nil && c.leads.end == 0
		flies := leads && !c.leads.asks()
		if p.left > 0 && p.left < w.step && !c.how.stays && !(c.how.inline && flies) {
			return fmt.Errorf("%s waits for %v, and left in step %d", p.name, c.key, p.left)
		}
		if d := c.how.maxWait; d != 0 && !flies && now.Sub(c.thread.waits) > max(d, 0) {
			return fmt.Errorf("%s waits for %v, and may wait no longer", p.name, c.key)
		}
	}
	for _, o := range w.ops {
		if p := o.by; o.kind == "reconcile" && o.end == 0 && p.left > 0 && p.left < w.step && o.thread.point == "" {
			return fmt.Errorf("%s waits for Reconcile of %v, and left in step %d", p.name, o.key, p.left)
		}
	}
	return nil
}

// nests reports whether c was made by an execution.
func (w *world) nests(c *call) bool {
	for _, x := range w.execs {
		if x.end == 0 && x.call != nil && x.call.by == c.by && x.call != c {
			return true
		}
	}
	return false
}

// during calls look with what k was at each moment of a call, until it returns true. An answer that
// was found without a lock has to be true later than it was found: see replayable of the library.
func (w *world) during(c *call, look func(i int, e entry) bool) bool {
	for i := max(c.start, c.found) - 1; i < len(w.shots) && (i <= c.end || w.shots[i-1].blind); i++ {
		if look(i, w.shots[i].entries[c.key]) {
			return true
		}
	}
	return false
}

// tally is what Stats should count of the calls.
type tally map[string]uint64

// finish looks at the whole schedule: answers, events, counters, places.
func (w *world) finish() {
	sum := tally{}
	for _, c := range w.calls {
		kind, err := w.checkCall(c, sum)
		if err == nil {
			err = c.checkEvents(kind)
		}
		if err != nil {
			w.fail(fmt.Errorf("%s: %w", c, err))
			return
		}
	}
	for _, o := range w.ops {
		if err := w.checkOp(o); err != nil {
			w.fail(fmt.Errorf("%s %v of %s: %w", o.kind, o.key, o.by.name, err))
			return
		}
	}
	if w.sc.expect != nil {
		w.fail(w.sc.expect(w))
	}
	for _, check := range []func(tally) error{w.checkFills, w.checkReclaimed, w.checkStats, w.checkPlaces} {
		if err := check(sum); err != nil {
			w.fail(err)
			return
		}
	}
}

// checkCall says what is wrong with the answer of c, and counts it.
func (w *world) checkCall(c *call, sum tally) (kind idemflight.EventKind, err error) {
	if c.end == 0 {
		return 0, errors.New("has no answer")
	}
	if c.exited || c.panicked != nil {
		x := w.execOf(c.panickedWith())
		if c.exited {
			x = w.lastOf(c)
		}
		if x == nil || x.call != c || c.exited && !x.exited || c.panicked != nil && !x.panicked || x.reconciling {
			return 0, errors.New("does not end as fn did")
		}
		sum["executed"]++
		return idemflight.EventExecuted, w.checkShared(c, x)
	}
	var f failure
	x := w.execOf(c.res.Value)
	if errors.As(c.err, &f) && x == nil {
		x = w.execOf(int(f))
	}
	if x == nil && errors.Is(c.err, idemflight.ErrGoexit) {
		x = w.exitedDuring(c)
	}
	switch c.res.Source {
	case idemflight.Executed, idemflight.Reconciled:
		if x == nil || x.call != c || x.reconciling != (c.res.Source == idemflight.Reconciled) {
			return 0, errors.New("is not of its own execution")
		}
		kind = idemflight.EventExecuted
		sum["executed"]++
		if x.reconciling {
			kind = idemflight.EventReconciled
			sum["executed"]--
			sum["reconciled"]++
		}
		if x.panicked && !x.reconciling {
			return 0, errors.New("is not the panic of its own fn")
		}
		return kind, w.checkShared(c, x)
	case idemflight.Joined:
		if x == nil || x.call == c || x.key != c.key || x.flight == nil {
			return 0, errors.New("is not of another's execution")
		}
		sum["joined"]++
		return idemflight.EventJoined, w.checkShared(c, x)
	case idemflight.Replayed:
		sum["replayed"]++
		was := func(_ int, e entry) bool {
			return e.State == idemflight.Retained && e.Value == c.res.Value && e.Err == c.err && e.Fingerprint == c.how.fingerprint() &&
				e.CompletedAt.Equal(c.res.CompletedAt) && e.ExpiresAt.Equal(c.res.ExpiresAt)
		}
		if !w.during(c, was) {
			return 0, errors.New("was not retained at any moment of the call")
		}
		return idemflight.EventReplayed, nil
	}
	return w.checkRefusal(c, x, sum)
}

func (c *call) panickedWith() int {
	if c.panicked == nil {
		return 0
	}
	f, _ := c.panicked.Value.(failure)
	return int(f)
}

func (w *world) execOf(id int) *execution {
	if id < 1 || id > len(w.execs) {
		return nil
	}
	return w.execs[id-1]
}

func (w *world) lastOf(c *call) (last *execution) {
	for _, x := range w.execs {
		if x.call == c {
			last = x
		}
	}
	return last
}

// exitedDuring returns the execution that ended by Goexit in a flight that settled during c.
func (w *world) exitedDuring(c *call) *execution {
	for _, x := range w.execs {
		if x.key == c.key && x.exited && x.flight != nil && x.flight.end >= c.start && x.flight.end <= c.end {
			return x
		}
	}
	return nil
}

// checkShared says what is wrong with what c got of x.
func (w *world) checkShared(c *call, x *execution) error {
	f := x.flight
	if f == nil || f.end < c.start || f.end > c.end || f.end == 0 || f.execs[len(f.execs)-1] != x {
		return fmt.Errorf("execution %d did not end its flight during the call", x.id)
	}
	if f.fp != c.how.fingerprint() {
		return fmt.Errorf("execution %d has another fingerprint", x.id)
	}
	if f.nobodys() {
		return fmt.Errorf("execution %d found that fn may run, and that is no outcome", x.id)
	}
	if (f.by == c) != (c.res.Source != idemflight.Joined) {
		return fmt.Errorf("execution %d is of a flight that another leads", x.id)
	}
	if c.panicked != nil || c.exited {
		return nil
	}
	if got := errors.Is(c.err, idemflight.ErrOutcomeUnknown); got != (x.want == idemflight.Hold) {
		return fmt.Errorf("execution %d is to be %v", x.id, x.want)
	}
	if !errorIs(c.err, x.err) || x.panicked != isPanic(c.err) {
		return fmt.Errorf("the error of execution %d is %v", x.id, x.err)
	}
	if v := c.res.Value; v != x.id && !(v == 0 && (x.panicked || x.exited)) {
		return fmt.Errorf("the value of execution %d is %d", x.id, x.id)
	}
	if !c.res.CompletedAt.Equal(x.doneAt) {
		return fmt.Errorf("execution %d ended at %v, not at %v", x.id, x.doneAt, c.res.CompletedAt)
	}
	return nil
}

func isPanic(err error) bool {
	_, ok := errors.AsType[*idemflight.PanicError](err)
	return ok
}

// errorIs reports whether err is want, or wraps it; nil is nil only.
func errorIs(err, want error) bool {
	if want == nil {
		return err == nil
	}
	return errors.Is(err, want)
}

// checkRefusal says what is wrong with an answer that is no outcome.
func (w *world) checkRefusal(c *call, x *execution, sum tally) (idemflight.EventKind, error) {
	fp := c.how.fingerprint()
	kind, what := idemflight.EventRejected, ""
	var legal func(i int, e entry) bool
	switch err := c.err; {
	case err == nil:
		return 0, errors.New("no outcome and no error")
	case errors.Is(err, idemflight.ErrCallerLeft):
		kind, what = idemflight.EventCallerLeft, "left"
		p := c.by
		if p.left == 0 || p.left > c.end || c.how.stays {
			return 0, errors.New("his context had not ended")
		}
		legal = func(i int, e entry) bool {
			return i >= max(p.left, c.start)-1 && (e.State == idemflight.InFlight || e.State == 0 && w.lastOf(c) == nil)
		}
	case errors.Is(err, idemflight.ErrOutcomeUnknown):
		what = "unknown"
		legal = func(i int, e entry) bool {
			if e.State != idemflight.Held || e.Fingerprint != fp {
				return false
			}
			if p := w.shots[i].pauses[c.key]; !p.over(w.shots[i].at) {
				return errorIs(err, p.by.err)
			}
			mayAsk := w.opts.Reconcile != nil && (c.by.left == 0 || c.by.left > c.end) && (w.closing == 0 || w.closing > c.end)
			return errorIs(err, e.Err) && !mayAsk
		}
		if x != nil && x.reconciling && x.flight.end >= c.start && x.flight.end <= c.end {
			// It asked itself, or waited for one that did.
			legal = func(int, entry) bool {
				return x.want == idemflight.Hold && errorIs(err, x.err) && x.flight.fp == fp
			}
		}
	case errors.Is(err, idemflight.ErrInFlight):
		what = "not waited"
		if c.how.maxWait == 0 && w.opts.MaxWaiters == 0 {
			return 0, errors.New("he may wait")
		}
		if c.how.maxWait > 0 && w.opts.MaxWaiters == 0 && c.doneAt.Sub(c.at) < c.how.maxWait {
			return 0, errors.New("he may wait longer")
		}
		legal = func(_ int, e entry) bool { return e.State == idemflight.InFlight }
	case errors.Is(err, idemflight.ErrKeyReused):
		what = "key reused"
		legal = func(_ int, e entry) bool { return e.State != 0 && e.Fingerprint != fp }
	case errors.Is(err, idemflight.ErrValueShed):
		what = "shed"
		legal = func(_ int, e entry) bool { return e.State == idemflight.Shed }
	case errors.Is(err, idemflight.ErrFull):
		what = "full"
		legal = func(i int, e entry) bool { return e.State == 0 && w.shots[i].firm >= w.opts.MaxEntries }
		if w.hasUnseenPlaces(c) {
			legal = func(_ int, e entry) bool { return e.State == 0 }
		}
	case errors.Is(err, idemflight.ErrClosed):
		what = "closed"
		if w.closing == 0 || w.closing > c.end {
			return 0, errors.New("nobody has closed")
		}
		legal = func(_ int, e entry) bool { return e.State == 0 }
	case errors.Is(err, idemflight.ErrReentrant):
		what = "reentrant"
		legal = func(_ int, e entry) bool {
			return e.State == idemflight.InFlight && w.nests(c) || e.State == idemflight.InFlight
		}
	default:
		return 0, errors.New("an error of nobody")
	}
	sum[what]++
	if c.res != (idemflight.Result[int]{}) {
		return 0, errors.New("brings a result")
	}
	if what == "full" || what == "closed" { // which is said after a last look at the key
		if absent := func(i int, e entry) bool { return i >= c.end-1 && e.State == 0 }; !w.during(c, absent) {
			return 0, fmt.Errorf("%q was said of a key that is there", what)
		}
	}
	if !w.during(c, legal) {
		return 0, fmt.Errorf("%q was not true at any moment of the call", what)
	}
	return kind, nil
}

// hasUnseenPlaces reports whether a Restore was under way during c: it has its place before there
// is anything to see.
func (w *world) hasUnseenPlaces(c *call) bool {
	for _, o := range w.ops {
		if o.kind == "restore" && o.start <= c.end && (o.end == 0 || o.end >= c.start) {
			return true
		}
	}
	return false
}

// checkEvents says what is wrong with the events of c: one of a call, of this kind.
func (c *call) checkEvents(kind idemflight.EventKind) error {
	n, finished := 0, 0
	for _, e := range c.events {
		if e.Kind == idemflight.EventFinished {
			if finished++; c.leads == nil || e.Disposition != c.leads.what {
				return fmt.Errorf("it was told as finished: %v", e.Disposition)
			}
			continue
		}
		n++
		if e.Kind != kind || e.Key.role() != c.key {
			return fmt.Errorf("event %v of %v, should be %v", e.Kind, e.Key, kind)
		}
		if !c.exited && c.panicked == nil && e.Err != c.err {
			return fmt.Errorf("event %v says %v", e.Kind, e.Err)
		}
	}
	if n != 1 {
		return fmt.Errorf("%d call events", n)
	}
	want := 0
	if c.leads != nil && (kind == idemflight.EventCallerLeft || errors.Is(c.err, idemflight.ErrInFlight)) {
		want = 1
	}
	if finished != want {
		return fmt.Errorf("its flight was told as finished %d times", finished)
	}
	return nil
}

// checkOp says what is wrong with the answer and the events of o.
func (w *world) checkOp(o *op) error {
	if o.end == 0 {
		return errors.New("has no answer")
	}
	during := func(look func(s *shot, e entry) bool) bool {
		for i := o.start - 1; i < len(w.shots) && (i <= o.end || w.shots[i-1].blind); i++ {
			if look(&w.shots[i], w.shots[i].entries[o.key]) {
				return true
			}
		}
		return false
	}
	told, kind, what := 0, idemflight.EventResolved, idemflight.Release
	switch o.kind {
	case "forget":
		kind = idemflight.EventForgotten
		if o.did {
			told = 1
		}
		if o.err != nil || !during(func(_ *shot, e entry) bool { return (e.State != 0) == o.did }) {
			return fmt.Errorf("answered %v, %v", o.did, o.err)
		}
	case "resolve":
		if o.did {
			told = 1
			if o.to == idemflight.Retained {
				what = idemflight.Retain
			}
		} else if !errors.Is(o.err, idemflight.ErrNotHeld) {
			return fmt.Errorf("answered %w", o.err)
		}
		if !during(func(_ *shot, e entry) bool { return (e.State == idemflight.Held) == o.did }) {
			return fmt.Errorf("answered %v, and that was not true at any moment", o.err)
		}
	case "reconcile":
		if o.flies != nil {
			told, what = 1, o.flies.what
		}
		if err := w.checkReconcile(o, during); err != nil {
			return fmt.Errorf("answered %s, %v: %w", show(o.got), o.err, err)
		}
	}
	if len(o.events) != told {
		return fmt.Errorf("%d events", len(o.events))
	}
	for _, e := range o.events {
		if e.Kind != kind || e.Key.role() != o.key || e.Disposition != what {
			return fmt.Errorf("event %v, %v", e.Kind, e.Disposition)
		}
	}
	return nil
}

// checkReconcile says what is wrong with the answer of an operator's Reconcile.
func (w *world) checkReconcile(o *op, during func(func(*shot, entry) bool) bool) error {
	mayAsk := func(s *shot, e entry) bool { return e.State == idemflight.Held || s.asking[o.key] }
	legal := false
	switch {
	case o.err == nil || errors.Is(o.err, idemflight.ErrOutcomeUnknown):
		for _, x := range w.execs {
			f := x.flight
			if !x.reconciling || x.key != o.key || (x.want == idemflight.Hold) != (o.err != nil) || !errors.Is(o.err, x.err) && o.err != nil {
				continue
			}
			answered := f.end
			if x != f.execs[len(f.execs)-1] {
				answered = f.fn
			}
			if answered < o.start || answered > o.end || o.flies != nil && o.flies != f {
				continue
			}
			legal = legal || during(func(_ *shot, e entry) bool {
				return e.State == o.got.State && e.Value == o.got.Value && e.Err == o.got.Err && e.ExpiresAt.Equal(o.got.ExpiresAt)
			})
		}
	case o.got != entry{}:
		return errors.New("brings an entry")
	case errors.Is(o.err, idemflight.ErrNotHeld):
		legal = during(func(s *shot, e entry) bool { return !mayAsk(s, e) })
	case errors.Is(o.err, idemflight.ErrCallerLeft):
		legal = o.by.left > 0 && o.by.left <= o.end && during(mayAsk)
	case errors.Is(o.err, idemflight.ErrClosed):
		legal = w.closing > 0 && w.closing <= o.end && during(mayAsk)
	}
	if !legal {
		return errors.New("that was not true at any moment")
	}
	return nil
}

// checkRestore says what is wrong with the answer of Restore.
func (w *world) checkRestore(o *op, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := max(o.start-1, 0); i < len(w.shots); i++ {
		s := w.shots[i]
		e := s.entries[o.key]
		switch {
		case err == nil && e.State == 0, errors.Is(err, idemflight.ErrClosed) && w.closing > 0:
			return nil
		case errors.Is(err, idemflight.ErrFull) && e.State == 0 && s.firm >= w.opts.MaxEntries:
			return nil
		case err != nil && !errors.Is(err, idemflight.ErrFull) && !errors.Is(err, idemflight.ErrClosed) && e.State != 0:
			return nil
		}
	}
	return fmt.Errorf("restoring %v was answered with %v", o.key, err)
}

// checkFills looks whether all is still there that nobody has touched.
func (w *world) checkFills(tally) error {
	for _, k := range w.fills {
		if e, _, _ := w.cache.Lookup(context.Background(), k); e.State != idemflight.Retained {
			return fmt.Errorf("an outcome that nobody touched is %s", show(e))
		}
	}
	return nil
}

// checkReclaimed lets time pass, with nobody calling, and looks whether what expires is reclaimed.
func (w *world) checkReclaimed(tally) error {
	if !w.sc.timers || w.closing > 0 {
		return nil
	}
	expiring := w.counts.expired
	for _, e := range w.shots[len(w.shots)-1].entries {
		if e.State != 0 && !e.ExpiresAt.IsZero() {
			expiring++
		}
	}
	time.Sleep(max(w.opts.TTL, w.opts.HoldTTL) + time.Second)
	got := 0
	w.mu.Lock()
	for _, e := range w.upkeep {
		if e.Kind == idemflight.EventExpired {
			got++
		}
	}
	w.mu.Unlock()
	if got != expiring {
		return fmt.Errorf("%d records expired, and nobody called for a second: %d are reclaimed", expiring, got)
	}
	return nil
}

// checkStats compares Stats with what was seen.
func (w *world) checkStats(sum tally) error {
	s := w.cache.Stats()
	for _, c := range []struct {
		name              string
		got, before, want uint64
	}{
		{"Executed", s.Executed, w.base.Executed, sum["executed"]},
		{"Joined", s.Joined, w.base.Joined, sum["joined"]},
		{"Replayed", s.Replayed, w.base.Replayed, sum["replayed"]},
		{"Reconciled", s.Reconciled, w.base.Reconciled, sum["reconciled"]},
		{"KeyReused", s.KeyReused, w.base.KeyReused, sum["key reused"]},
		{"NotWaited", s.NotWaited, w.base.NotWaited, sum["not waited"]},
		{"OutcomeUnknown", s.OutcomeUnknown, w.base.OutcomeUnknown, sum["unknown"]},
		{"ValueShed", s.ValueShed, w.base.ValueShed, sum["shed"]},
		{"Full", s.Full, w.base.Full, sum["full"]},
		{"Closed", s.Closed, w.base.Closed, sum["closed"]},
		{"Reentrant", s.Reentrant, w.base.Reentrant, sum["reentrant"]},
		{"Left", s.CallerLeft, w.base.CallerLeft, sum["left"]},
		{"Retains", s.Retains, w.base.Retains, uint64(w.counts.retains)},
		{"Releases", s.Releases, w.base.Releases, uint64(w.counts.releases)},
		{"Holds", s.Holds, w.base.Holds, uint64(w.counts.holds)},
		{"Evicted", s.Evicted, w.base.Evicted, uint64(w.counts.evicted)},
		{"Shed", s.Shed, w.base.Shed, uint64(w.counts.shed)},
		{"HookPanics", s.HookPanics, w.base.HookPanics, 0},
		{"InFlight", uint64(s.InFlight), 0, 0},
		{"Waiters", uint64(s.Waiters), 0, 0},
	} {
		if c.got -= c.before; c.got != c.want {
			return fmt.Errorf("counter %s is %d, and should be %d", c.name, c.got, c.want)
		}
	}
	evicted, shed, last := 0, 0, 0
	for _, e := range w.upkeep {
		switch e.Kind {
		case idemflight.EventEvicted:
			evicted++
			if e.Err != nil {
				last++
			}
		case idemflight.EventShed:
			shed++
		}
	}
	if last != w.counts.last {
		return fmt.Errorf("%d events of held keys that were evicted for %d", last, w.counts.last)
	}
	if evicted != w.counts.evicted || shed != w.counts.shed {
		return fmt.Errorf("%d events of eviction for %d, %d of shedding for %d", evicted, w.counts.evicted, shed, w.counts.shed)
	}
	if w.sc.timers && w.closing == 0 {
		return nil // all has been reclaimed
	}
	end := w.shots[len(w.shots)-1]
	if s.Entries != end.taken || s.Weight != end.weight {
		return fmt.Errorf("by Stats there are %d entries of weight %d, and %d of %d are there", s.Entries, s.Weight, end.taken, end.weight)
	}
	return nil
}

// checkPlaces fills the cache: no place may have been lost, and none given out twice.
func (w *world) checkPlaces(tally) error {
	if w.closing > 0 {
		return nil
	}
	w.finals = true
	for i := range 2 * w.opts.MaxEntries {
		_, _ = w.cache.Do(context.Background(), key(-1-i), func(context.Context) (int, error) { return 0, nil })
	}
	w.finals = false
	if n := w.cache.Stats().Entries; n != w.opts.MaxEntries {
		return fmt.Errorf("after as many new keys as fit, %d of %d places are in use", n, w.opts.MaxEntries)
	}
	return nil
}

// explain prints what everybody got.
func (w *world) explain() {
	if w.trace == nil {
		return
	}
	for _, c := range w.calls {
		w.trace("     %s", c)
	}
	for i, s := range w.shots {
		if s.blind {
			continue
		}
		w.trace("     after %d: A %s; B %s; C %s", i, show(s.entries[0]), show(s.entries[1]), show(s.entries[2]))
	}
}
