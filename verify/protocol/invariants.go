package main

// invariant is a sentence that must hold in every world.
type invariant uint8

const (
	none invariant = iota
	oneEffect
	oneAnswer
	trueRetryable
	heldStays
	fence
	lateOwner
	leaseEnds
	forgetActs
	numberInvariants = iota
)

var invariants = [numberInvariants]struct{ name, says string }{
	oneEffect:     {"one-effect", "no second effect in one life of the key, but for those of promise 32"},
	oneAnswer:     {"one-answer", "no two callers are told different outcomes; an outcome that is told tells of an effect that took place; what was dropped does not come back"},
	trueRetryable: {"true-retryable", "nobody is told that it may be retried when its effect took place, or still may"},
	heldStays:     {"held-stays", "while an effect may have happened, the key is never free and fn starts nowhere, but after Forget, Resolve, Reconcile or HoldTTL"},
	fence:         {"fence", "an owner that was replaced neither begins nor settles, while the key is not its own"},
	lateOwner:     {"late-owner", "an owner that nobody has replaced begins and settles, however late"},
	leaseEnds:     {"lease-ends", "nobody is replaced before the lease is over"},
	forgetActs:    {"forget-acts", "the outcome of a flight that Forget met is not kept"},
}

// breaks notes that the step which is being made breaks an invariant. The first one counts.
func (s *stepper) breaks(which invariant, format string, args ...any) {
	if s.broken != none || s.cfg.looksFor != none && s.cfg.looksFor != which {
		return
	}
	s.broken = which
	s.say(" ✗ "+format, args...)
}

// effect lets the effect of id take place.
func (s *stepper) effect(w *world, id claimID) {
	own := &w.truth[id]
	own.sent, own.happened = false, true
	for other := claimID(1); other <= maxClaims; other++ {
		if e := &w.truth[other]; other != id && e.happened && e.past == own.past && !e.writtenOff && !own.writtenOff {
			s.breaks(oneEffect, "that of %v had taken place already", other)
		}
	}
}

// mayFollow reports whether an effect of id may still take place.
func (s *stepper) mayFollow(w *world, id claimID) bool {
	e := &w.truth[id]
	if e.expired || e.past > 0 {
		return false
	}
	if e.sent {
		return true
	}
	for i := range w.callers {
		if c := &w.callers[i]; c.id == id && (c.at == mayEffect || c.at == running && s.cfg.fn == plain) {
			return true
		}
	}
	return false
}

// saysRetryable reports whether the bank's books, which show no effect, let Reconcile by id answer Retryable.
func (s *stepper) saysRetryable(w *world, id claimID) bool {
	switch s.cfg.bank {
	case patient:
		for other := claimID(1); other <= maxClaims; other++ {
			if other != id && s.mayFollow(w, other) {
				return false
			}
		}
		return true
	case deadline: // it asks the record
		return w.truth[w.record.started].expired
	}
	writtenOff := 0
	for other := range w.truth {
		if e := &w.truth[other]; e.writtenOff && e.past == 0 {
			writtenOff++
		}
	}
	return writtenOff < 2 // hasty: nothing to be seen is nothing; so often, to keep the worlds finite
}

// mayExpire reports whether the bank's deadline for id can be over. What has been granted and has not begun was
// granted after all that may have had an effect, so that its deadline is the later one.
func (s *stepper) mayExpire(w *world, id claimID) bool {
	if e := &w.truth[id]; e.expired || e.begun {
		return !e.expired
	}
	for other := range w.truth {
		if e := &w.truth[other]; e.doubtful() && !e.expired {
			return false
		}
	}
	return id == w.record.started
}

// nothingHappened notes that Reconcile by id, or an operator, has answered Retryable, and that the engine has
// taken it. An effect that may follow all the same is the gap of promise 32: with a hasty bank it is not counted. It is
// looked for now rather than when the bank was asked: in between, nobody else could begin.
func (s *stepper) nothingHappened(w *world, id claimID) {
	for other := claimID(1); other <= maxClaims; other++ {
		e := &w.truth[other]
		if other == id || e.past > 0 || !e.begun && !e.sent && !e.happened {
			continue
		}
		if e.happened || s.mayFollow(w, other) {
			e.writtenOff = s.cfg.bank == hasty
		} else {
			e.begun = false
		}
	}
}

// tell tells callers an outcome.
func (s *stepper) tell(w *world, outcome claimID) {
	s.say("; told the outcome of %v", outcome)
	e := &w.truth[outcome]
	if !e.happened {
		s.breaks(oneAnswer, "which did not take place")
	}
	if e.past > 0 { // of an earlier life of the key
		return
	}
	if w.told != 0 && w.told != outcome {
		s.breaks(oneAnswer, "and others that of %v", w.told)
	}
	w.told = outcome
}

// tellRetryable tells the callers of c fn's error, which says that nothing was done.
func (s *stepper) tellRetryable(w *world, c *caller) {
	if c.operator {
		return
	}
	s.say("; told fn's error: may be retried")
	e := &w.truth[c.id]
	if e.revived && e.past > 0 { // a late Claim on a key that Forget or time had freed: the design admits it
		return
	}
	if e.happened || e.sent || w.tx.owner == c.id {
		s.breaks(trueRetryable, "but its effect took place, or may")
	}
}

// mustBeLost checks an answer ErrClaimLost that a caller has heard.
func (s *stepper) mustBeLost(w *world, id claimID, verb string) {
	if !w.truth[id].lost {
		s.breaks(lateOwner, "%v refuses %v, which nobody has replaced", verb, id)
	}
}

// check looks at a world.
func (s *stepper) check(w *world) invariant {
	r := &w.record
	if r.absent() || r.state == claimed {
		for id := claimID(1); id <= maxClaims; id++ {
			if w.truth[id].doubtful() && !(r.state == claimed && r.id == id) {
				s.breaks(heldStays, "%v may have had its effect, and the key is %v", id, stateNames[r.state])
			}
		}
	}
	return s.broken
}
