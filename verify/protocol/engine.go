package main

// The verbs, each an atomic step of the engine, in the order of section 4's table. Whatever a rule asks for is
// behind s.rule(…), so that it can be taken away.

// answer of the engine to a verb.
type answer struct {
	kind        answerKind
	id          claimID     // of the record that is in the way
	disposition disposition // of mineClosed
	outcome     claimID     // of retainedNow and mineClosed
}

type answerKind uint8

const (
	done        answerKind = iota
	granted                // State 0: fn runs
	grantedHeld            // State Held: Reconcile first
	absentNow
	inFlight
	deadNow // in flight with ExpiresIn 0: its owner has certainly begun nothing
	retainedNow
	heldNow
	mineClosed // the standing that counts
	claimLost
)

// apply lets the engine act on a request.
func (s *stepper) apply(w *world, q request) answer {
	was := w.record
	answered := s.act(w, q)
	if q.verb != claim && w.record != was {
		w.before, w.undoes = record{}, false // this write was waited for: a crash loses nothing any more
	}
	return answered
}

func (s *stepper) act(w *world, q request) answer {
	switch q.verb {
	case claim:
		return s.claim(w, q)
	case begin:
		return s.begin(w, q)
	case settle:
		return s.settle(w, q)
	case forget:
		return s.forget(w, q)
	case giveBack:
		return s.giveBack(w, q)
	}
	panic("no verb")
}

// writes reports whether the engine would write for this request, which has to wait for a user's transaction
// that has locked the record.
func (s *stepper) writes(w *world, q request) bool {
	trial, broken := *w, s.broken
	s.apply(&trial, q)
	s.broken = broken
	return trial.record != w.record
}

func (s *stepper) waits(w *world, q request) bool {
	return w.tx.owner != 0 && s.rule(rowLock) && s.writes(w, q)
}

// takeable reports whether the record's owner is dead and has certainly begun nothing.
func (s *stepper) takeable(r *record) bool {
	return r.open() && (r.leaseOver || !s.rule(leaseOver)) &&
		(r.state == claimed || r.state == begun && !s.rule(unbegunOnly) || r.state == reconciling && !s.rule(reconcilerHolds)) &&
		(r.announced || !s.rule(announcedOnly))
}

// readsHeld is computed by who reads: nobody has to write it.
func (s *stepper) readsHeld(r *record) bool {
	return r.state == held || r.open() && r.leaseOver && !s.takeable(r)
}

func (s *stepper) claim(w *world, q request) answer {
	r := &w.record
	nothing := r.absent() && q.replaces == 0
	over := q.replaces != 0 && q.replaces == r.id && !(q.stale && s.rule(sameGrant))
	saw := func(st state) bool { return q.from == st || !s.rule(from) }
	if !s.rule(replaces) {
		nothing, over, saw = r.absent(), true, func(state) bool { return true }
	}
	switch {
	case r.id == q.id && r.state == reconciling && s.rule(claimRepeats):
		return answer{kind: grantedHeld}
	case r.id == q.id && r.open() && s.rule(claimRepeats):
		return answer{kind: granted}
	case r.id == q.id && (r.state != closed || s.rule(closedRefuses)):
		return s.standing(r)
	case nothing:
		s.grant(w, q, claimed)
		return answer{kind: granted}
	case over && s.takeable(r) && saw(claimed):
		s.grant(w, q, claimed)
		return answer{kind: granted}
	case over && s.readsHeld(r) && q.reconcile && saw(held):
		s.grant(w, q, reconciling)
		return answer{kind: grantedHeld}
	}
	return s.standing(r)
}

// standing is what Read says, too.
func (s *stepper) standing(r *record) answer {
	switch {
	case r.absent():
		return answer{kind: absentNow}
	case r.state == retained:
		return answer{kind: retainedNow, outcome: r.outcome}
	case s.takeable(r):
		return answer{kind: deadNow, id: r.id}
	case s.readsHeld(r):
		return answer{kind: heldNow, id: r.id}
	}
	return answer{kind: inFlight, id: r.id}
}

func (s *stepper) grant(w *world, q request, as state) {
	r := &w.record
	w.before, w.undoes = record{}, false
	if s.cfg.relaxed && (as == claimed || !s.rule(heldDurable)) {
		w.before, w.undoes = *r, true
	}
	if r.alive() {
		s.breaks(leaseEnds, "%v is put over %v, whose lease is not over", q.id, r.id)
	}
	if r.id != 0 && r.id != q.id {
		w.truth[r.id].lost = true
	}
	owner := &w.truth[q.id]
	owner.lost, owner.revived = false, owner.revived || owner.lost
	for i := range w.callers {
		c := &w.callers[i]
		c.stale = c.stale || c.replaces == q.id
	}
	for i := range w.late {
		late := &w.late[i]
		late.stale = late.stale || late.replaces == q.id
	}

	now := record{state: as, id: q.id, announced: s.cfg.announced, started: q.id}
	if as == reconciling {
		now.started = r.started
	}
	if !s.rule(claimClearsMark) {
		now.forgotten = r.forgotten
	}
	*r = now
}

func (s *stepper) begin(w *world, q request) answer {
	r := &w.record
	if !r.open() || r.id != q.id && s.rule(beginFenced) {
		return answer{kind: claimLost}
	}
	if w.truth[q.id].lost {
		s.breaks(fence, "%v was replaced, and yet it begins", q.id)
	}
	if r.state == reconciling && s.rule(beginRestarts) {
		r.started = q.id
	}
	r.state, r.leaseOver = begun, false
	return answer{kind: done}
}

func (s *stepper) settle(w *world, q request) answer {
	r := &w.record
	mine := r.open() && (r.id == q.id || !s.rule(settleFenced))
	if !mine && r.id == q.id && r.settled != unsettled {
		if s.rule(closedStays) {
			return answer{kind: mineClosed, disposition: r.settled, outcome: r.outcome}
		}
		mine = true
	}
	if !mine {
		return answer{kind: claimLost}
	}
	if w.truth[q.id].lost {
		s.breaks(fence, "%v was replaced, and yet it settles", q.id)
	}
	switch q.disposition {
	case retain:
		if r.forgotten != 0 && s.rule(forgottenGoes) {
			meant := r.forgotten == r.id
			s.close(w, retain, q.outcome)
			if meant {
				w.drop()
			}
			return answer{kind: done}
		}
		if r.forgotten == r.id {
			s.breaks(forgetActs, "Forget met the flight of %v, and its outcome is kept", r.id)
		}
		if w.truth[q.outcome].past > 0 && !w.truth[q.id].revived {
			s.breaks(oneAnswer, "the outcome of %v, which was dropped, is back, and nobody has claimed the key since", q.outcome)
		}
		*r = record{state: retained, id: r.id, settled: retain, outcome: q.outcome, started: r.started}
	case hold:
		now := record{state: held, id: r.id, settled: hold, started: r.started}
		if !s.rule(holdClearsMark) {
			now.forgotten = r.forgotten
		}
		if r.state == reconciling && !s.rule(holdKeepsTimes) {
			now.started = q.id
		}
		*r = now
	case release:
		if r.state == reconciling { // Resolve or Cache.Reconcile: Retryable
			s.nothingHappened(w, q.id)
		}
		if own := &w.truth[q.id]; !own.sent && !own.happened {
			own.begun = false
		}
		s.close(w, release, 0)
	}
	return answer{kind: done}
}

// close ends the record as absent.
func (s *stepper) close(w *world, settled disposition, outcome claimID) {
	r := &w.record
	if s.rule(closedRows) {
		*r = record{state: closed, id: r.id, settled: settled, outcome: outcome}
	} else {
		*r = record{}
	}
}

// renew is what the heartbeat does for a claim. Its answer "lost" ends fn's context, which only refuses earlier
// what Begin and SettleTx refuse: left out.
func (s *stepper) renew(w *world, id claimID) {
	if r := &w.record; r.open() && (r.id == id || !s.rule(renewFenced)) {
		r.leaseOver = false
		w.before, w.undoes = record{}, false
	}
}

func (s *stepper) forget(w *world, q request) answer {
	r := &w.record
	if r.absent() || r.id != q.id && s.rule(forgetByID) {
		return answer{kind: absentNow}
	}
	meant := r.id == q.id
	if r.alive() && s.rule(forgetMarks) {
		r.forgotten = q.id
		return answer{kind: done}
	}
	s.dropRecord(w, meant)
	return answer{kind: done}
}

// dropRecord lets Forget or time drop the record; meant, as opposed to by mistake.
func (s *stepper) dropRecord(w *world, meant bool) {
	r := &w.record
	if meant && r.open() && r.leaseOver {
		w.truth[r.id].lost = true
	}
	kept := r.state == retained || s.readsHeld(r)
	s.close(w, r.settled, r.outcome)
	if meant && kept {
		w.drop()
	}
}

// drop ends this life of the key: what was known of it the user has dropped, and effects are due anew.
func (w *world) drop() {
	w.drops++
	w.told = 0
	for id := range w.truth {
		if e := &w.truth[id]; e.begun || e.sent || e.happened {
			e.past++
		}
	}
}

func (s *stepper) giveBack(w *world, q request) answer {
	r := &w.record
	switch {
	case !r.open() || r.id != q.id && s.rule(giveBackFenced):
	case r.state == claimed || !s.rule(giveBackOwn):
		s.close(w, unsettled, 0)
	case r.state == reconciling:
		*r = record{state: held, id: r.id, settled: hold, started: r.started}
	}
	return answer{kind: done}
}

// settleTx is SettleTx's statement in the user's transaction; commit says what becomes of it.
func (s *stepper) settleTx(w *world, id claimID) answer {
	if r := &w.record; !r.open() || r.id != id && s.rule(txFenced) {
		return answer{kind: claimLost}
	}
	if w.truth[id].lost {
		s.breaks(fence, "%v was replaced, and yet SettleTx says nil", id)
	}
	w.tx = transaction{owner: id}
	return answer{kind: done}
}

func (s *stepper) commit(w *world) {
	id := w.tx.owner
	w.tx = transaction{}
	w.truth[id].past = 0
	s.effect(w, id)
	if s.rule(oneTransaction) {
		w.before, w.undoes = record{}, false
		r := &w.record
		if forgotten := r.forgotten; forgotten != 0 && s.rule(forgottenGoes) {
			meant := forgotten == r.id
			s.close(w, retain, id)
			if meant {
				w.drop()
			}
			return
		}
		*r = record{state: retained, id: r.id, settled: retain, outcome: id, started: r.started}
	}
}
