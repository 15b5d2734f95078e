package explore

import (
	"errors"
	"fmt"
	"slices"

	"github.com/idemflight/idemflight"
)

// observe notes what the store shows between two steps. It reports whether all is well.
func (w *storedWorld) observe() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.read()
	if n := len(w.shots); w.trace != nil && (n == 0 || now.ID != w.shots[n-1].ID || now.State != w.shots[n-1].State || now.Begun != w.shots[n-1].Begun) {
		w.trace("     the key is %v (%d), claim %x, begun: %v", now.State, valueOf(now), now.ID[:2], now.Begun)
	}
	w.shots = append(w.shots, now)
	return w.wrong == nil
}

// actedLocked says what is wrong with what a verb made of the record. v is who asked, nil for a timer.
func (w *storedWorld) actedLocked(verb string, id idemflight.ClaimID, v *visit, now idemflight.Standing) error {
	before, g := w.before, w.grants[id]
	switch verb {
	case "Claim":
		if now.ID != id || g != nil { // refused, or a repeat
			return nil
		}
		if replaced := w.grants[before.ID]; replaced != nil {
			replaced.lost = true
		}
		g = &grant{id: id, process: v.by.process, life: len(w.lives) - 1, reconcile: before.State == idemflight.Held}
		w.grants[id], v.grant = g, g
	case "Begin":
		if now.ID == id && now.Begun {
			g.begun = true
		}
	case "Settle":
		if before.ID != id || g.over {
			return nil // it was lost, or is a repeat
		}
		g.over = true
		return w.settledLocked(g, v, now)
	case "GiveBack":
		if g == nil || before.ID != id || g.over {
			return nil
		}
		g.over = true
		for _, x := range g.runs {
			if x.end == 0 {
				return fmt.Errorf("the claim of execution %d, which runs, is given back", x.id)
			}
		}
	case "Forget":
		if before.ID != id || before.State == idemflight.Absent {
			return nil
		}
		v.acted = true
		if now.State == idemflight.Absent {
			g.over, g.lost = true, true
			w.endLifeLocked()
		}
	}
	return nil
}

// endLifeLocked notes that the key is forgotten.
func (w *storedWorld) endLifeLocked() {
	w.lives[len(w.lives)-1].end = max(w.step, 1)
	w.lives = append(w.lives, life{})
}

// settledLocked says what is wrong with what was recorded under g.
func (w *storedWorld) settledLocked(g *grant, v *visit, now idemflight.Standing) error {
	want, value := idemflight.Release, 0
	switch {
	case len(g.runs) > 0:
		x := g.runs[len(g.runs)-1]
		if want = x.want; want == idemflight.Retain {
			value = x.value(w)
		}
		if x.end == 0 {
			return fmt.Errorf("execution %d runs, and its outcome is recorded", x.id)
		}
		if x.reconciling && want == idemflight.Release && now.State == idemflight.Held && (w.failed || len(w.sc.clock) > 0) {
			want = idemflight.Hold // that fn is to run could not be recorded
		}
	case v != nil && v.kind == "resolve":
		v.acted = true
		if now.State == idemflight.Retained {
			want, value = idemflight.Retain, resolved
		}
	case g.reconcile:
		return errors.New("a held key was settled by nobody")
	}
	bad := func() error {
		return fmt.Errorf("it is to be %v (%d), and the store has %v (%d)", want, value, now.State, valueOf(now))
	}
	switch want {
	case idemflight.Hold:
		if now.State != idemflight.Held {
			return bad()
		}
	case idemflight.Release:
		if now.State != idemflight.Absent {
			return bad()
		}
	case idemflight.Retain:
		l := &w.lives[len(w.lives)-1]
		if l.outcome != 0 && l.outcome != value {
			return fmt.Errorf("%d was recorded, and then %d", l.outcome, value)
		}
		l.outcome, l.since = value, w.step
		forgotten := w.before.Forgotten && now.State == idemflight.Absent
		if !forgotten && (now.State != idemflight.Retained || valueOf(now) != value) {
			return bad()
		}
		if forgotten {
			w.endLifeLocked()
		}
	}
	return nil
}

// value returns what x succeeds with.
func (x *run) value(w *storedWorld) int {
	if !x.reconciling {
		return x.id
	}
	for _, e := range w.effects {
		if e.grant.life == x.grant.life {
			return e.id
		}
	}
	return 0
}

// beginsLocked says what is wrong with x, which begins.
func (w *storedWorld) beginsLocked(x *run) error {
	g := x.grant
	if g == nil {
		return fmt.Errorf("execution %d has no claim", x.id)
	}
	if g.over && !g.lost {
		return fmt.Errorf("execution %d runs under a claim that is over", x.id)
	}
	if n := len(g.runs); n > 0 {
		if y := g.runs[n-1]; x.reconciling || !y.reconciling || y.want != idemflight.Release || !g.begun {
			return fmt.Errorf("execution %d follows %d", x.id, y.id)
		}
	} else if x.reconciling != g.reconcile {
		return fmt.Errorf("execution %d: the key was held: %v, and it reconciles: %v", x.id, g.reconcile, x.reconciling)
	}
	g.runs = append(g.runs, x)
	if !x.reconciling && x.visit.by.left > 0 && x.visit.end != 0 && x.visit.end < w.step {
		return fmt.Errorf("execution %d is of a caller that has left", x.id)
	}
	for _, y := range w.runs {
		if y.end == 0 && y.grant != g && !y.grant.lost && !g.lost {
			return fmt.Errorf("execution %d began while %d runs, and neither's lease has ended", x.id, y.id)
		}
	}
	return nil
}

// checkEffectLocked says what is wrong with the effect that x is about to have.
func (w *storedWorld) checkEffectLocked(x *run) error {
	if w.opts.EffectsAnnounced && !x.grant.begun {
		return fmt.Errorf("the effect of execution %d is not announced in the store", x.id)
	}
	for _, e := range w.effects {
		if e.grant.life == x.grant.life {
			return fmt.Errorf("execution %d has an effect, and %d had one", x.id, e.id)
		}
	}
	return nil
}

// checkRefused says what is wrong with err, with which BeginEffect refused x.
func (w *storedWorld) checkRefused(x *run, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(err, idemflight.ErrClaimLost) && x.grant.lost || errors.Is(err, idemflight.ErrStore) && (w.failed || len(w.sc.clock) > 0) {
		return nil
	}
	return fmt.Errorf("calling BeginEffect in execution %d answered %w", x.id, err)
}

// finish looks at the whole schedule, and then asks both caches once more.
func (w *storedWorld) finish() {
	end := w.read()
	if g := w.grants[end.ID]; end.State == idemflight.InFlight || g != nil && !g.over {
		w.fail(fmt.Errorf("a claim is left: the key is %v", end.State))
		return
	}
	for i := range w.caches {
		w.step++
		w.client("last", i).does(charges)
		w.observe()
	}
	calls := [2]uint64{}
	for _, v := range w.visits {
		if v.kind == "do" {
			calls[v.by.process]++
		}
		if err := w.check(v); err != nil {
			w.fail(fmt.Errorf("%s: %w", v, err))
			return
		}
	}
	for i, c := range w.caches {
		s := c.Stats()
		sum := s.Executed + s.Joined + s.Replayed + s.Reconciled + s.KeyReused + s.NotWaited + s.OutcomeUnknown + s.CallerLeft + s.StoreFailed
		if s.InFlight != 0 || s.Waiters != 0 || sum != calls[i] {
			w.fail(fmt.Errorf("process %d has %d flights and %d waiters left, and counts %d of %d calls", i, s.InFlight, s.Waiters, sum, calls[i]))
		}
	}
}

// check says what is wrong with the answer of v.
func (w *storedWorld) check(v *visit) error {
	if !v.answered {
		return errors.New("has no answer")
	}
	switch v.kind {
	case "do":
		return w.checkDo(v)
	case "forget":
		if v.err == nil && v.did != v.acted || v.did && v.err != nil {
			return fmt.Errorf("the store has forgotten: %v", v.acted)
		}
		if v.err == nil && !v.did && !w.during(v, isAbsent) {
			return errors.New("it was there all the while")
		}
	case "resolve":
		if v.err == nil && !v.acted {
			return errors.New("the store knows nothing of it")
		}
	case "reconcile":
		if v.err == nil && !w.during(v, func(x idemflight.Standing) bool {
			return x.State == v.entry.State && valueOf(x) == v.entry.Value || v.entry.State == idemflight.Absent && isAbsent(x)
		}) {
			return fmt.Errorf("it was never %v (%d)", v.entry.State, v.entry.Value)
		}
	}
	if v.err == nil {
		return nil
	}
	if errors.Is(v.err, idemflight.ErrNotHeld) {
		if !w.during(v, func(x idemflight.Standing) bool { return x.State != idemflight.Held }) && !w.inFlightHere(v) {
			return errors.New("it was held all the while")
		}
		return nil
	}
	return w.checkError(v)
}

// isAbsent reports whether x is no record, or that of an owner who is dead and has begun nothing.
func isAbsent(x idemflight.Standing) bool {
	return x.State == idemflight.Absent || x.State == idemflight.InFlight && x.ExpiresIn == 0 && !x.Begun
}

// checkDo says what is wrong with the answer of a call of Do.
func (w *storedWorld) checkDo(v *visit) error {
	var f failure
	switch {
	case v.err == nil:
	case !errors.Is(v.err, idemflight.ErrOutcomeUnknown) && errors.As(v.err, &f):
		x := w.runs[f-1]
		if x.want != idemflight.Release || x.visit.by.process != v.by.process {
			return fmt.Errorf("execution %d did not fail for it", x.id)
		}
		return nil
	case errors.Is(v.err, idemflight.ErrStore) && !errors.Is(v.err, idemflight.ErrOutcomeUnknown) && v.ran:
		return errors.New("its fn ran")
	default:
		return w.checkError(v)
	}
	for _, l := range w.lives {
		if l.outcome != v.res.Value || l.outcome == 0 {
			continue
		}
		if l.since > v.end {
			return errors.New("its outcome was recorded later")
		}
		if l.end != 0 && l.end < w.asked(v) {
			return fmt.Errorf("its outcome was forgotten in step %d", l.end)
		}
		if v.res.Source == idemflight.Executed && (l.outcome == resolved || w.runs[l.outcome-1].visit != v) {
			return errors.New("it is not its own")
		}
		return nil
	}
	return errors.New("its outcome was not recorded")
}

// checkError says what is wrong with the error of v, which is of the library.
func (w *storedWorld) checkError(v *visit) error {
	lost := func() bool {
		for _, g := range w.grants {
			if g.lost && g.process == v.by.process {
				return true
			}
		}
		return false
	}
	legal := false
	switch err := v.err; {
	case errors.Is(err, idemflight.ErrCallerLeft):
		legal = v.by.left > 0 && v.by.left <= v.end
	case errors.Is(err, idemflight.ErrStore):
		legal = w.failed || len(w.sc.clock) > 0 // or has been waited for too long
	case errors.Is(err, idemflight.ErrClaimLost):
		// Or Resolve has released the key, the answer was lost, and another has claimed it since: a
		// repeat finds nothing of it any more.
		legal = lost() || v.acted && w.failed
	case errors.Is(err, idemflight.ErrOutcomeUnknown):
		legal = slices.ContainsFunc(w.shots[max(w.asked(v), 1)-1:v.end+1], func(x idemflight.Standing) bool { return x.State == idemflight.Held })
	case errors.Is(err, idemflight.ErrInFlight):
		legal = w.during(v, func(x idemflight.Standing) bool { return x.State == idemflight.InFlight }) || w.inFlightHere(v)
	}
	if !legal {
		return errors.New("that was not true at any moment")
	}
	return nil
}

// inFlightHere reports whether v may have met a flight of its own process, which may be in flight for longer than the
// record: it has yet to hear.
func (w *storedWorld) inFlightHere(v *visit) bool {
	return slices.ContainsFunc(w.visits, func(o *visit) bool {
		return o != v && o.kind == "do" && o.by.process == v.by.process && o.start <= v.end && o.end >= v.start
	})
}

// asked returns since when the flight that answers v may have asked the store. Who joins it hears what it was told then,
// even after a Forget (promise 23).
func (w *storedWorld) asked(v *visit) int {
	since := v.start
	for _, o := range w.visits {
		if o.kind == "do" && o.by.process == v.by.process && (o.end >= v.start || o.by.left > 0) {
			since = min(since, o.start)
		}
	}
	return since
}

// during reports whether the record was so at a moment of v.
func (w *storedWorld) during(v *visit, was func(idemflight.Standing) bool) bool {
	return slices.ContainsFunc(w.shots[max(v.start, 1)-1:v.end+1], was)
}
