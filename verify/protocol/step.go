package main

import (
	"fmt"
	"maps"
)

// stepper finds the worlds that one step leads to, in the order of section 4's table: who asks for each verb, then
// what happens to whom by itself.
type stepper struct {
	cfg   *config
	visit func(next *world, broken invariant)

	broken invariant // by the step that is being made; 0: none

	// For a trace only.
	tracing  bool
	words    string             // of the step that is being made
	letters  [maxCallers]string // of the callers
	known    map[claimID]string // names of claim IDs, before the step
	names    map[claimID]string // and after it
	nextName string             // of a claim ID that the step makes
}

func (s *stepper) rule(r rule) bool { return s.cfg.without&(1<<r) == 0 }

// steps visits every world that w leads to by one step.
func (s *stepper) steps(w *world) {
	for i := range w.late {
		if w.late[i].verb != noVerb {
			s.lateRequest(w, i)
		}
	}
	for i := range s.cfg.callers {
		c := &w.callers[i]
		if c.at == idle {
			s.newCall(w, i)
			break // idle callers are alike, and come last
		}
		switch c.at {
		case claiming:
			s.claims(w, i)
		case askingBank:
			s.asksBank(w, i)
		case restarting:
			s.restarts(w, i)
		case running:
			s.runs(w, i)
		case mayEffect:
			s.hasBegun(w, i)
		case atBank:
			s.awaitsBank(w, i)
		case inTx, committing:
			s.commits(w, i)
		case settling, offering:
			s.settles(w, i)
		case givingBack:
			s.givesBack(w, i)
		}
		s.dies(w, i)
	}
	s.heartbeat(w)
	s.userForgets(w)
	s.timePasses(w)
	s.bankActs(w)
	s.serverActs(w)
}

// make makes one step: change gets a copy of w and says in words what it does.
func (s *stepper) make(w *world, change func(next *world)) {
	next := *w
	s.words, s.broken, s.names = "", none, maps.Clone(s.known)
	change(&next)
	if s.broken == none {
		if next == *w { // a repeat, say
			return
		}
		s.broken = s.check(&next)
	}
	s.visit(&next, s.broken)
}

// callerSteps is make for a step of one caller.
func (s *stepper) callerSteps(w *world, i int, what string, change func(next *world, c *caller)) {
	s.make(w, func(next *world) {
		s.say("%v %v", s.letter(i), what)
		change(next, &next.callers[i])
	})
}

// ask lets caller i send a request: the engine acts, and the answer is heard; or the request or its answer is
// lost, or the request is late, and the caller repeats it, or gives up where it may. gaveUp is nil where it goes on.
func (s *stepper) ask(w *world, i int, q request, does asking) {
	waits := s.waits(w, q)
	if !waits {
		s.make(w, func(next *world) {
			s.say("%v: %v", s.letter(i), q)
			a := s.apply(next, q)
			s.say(" = %v", a)
			does.heard(next, &next.callers[i], a)
		})
		s.make(w, func(next *world) {
			s.say("%v: %v acts, its answer is lost; to be repeated", s.letter(i), q)
			s.apply(next, q)
		})
	}
	if does.gaveUp != nil {
		if !waits {
			s.make(w, func(next *world) {
				s.say("%v: %v acts, its answer is lost; gives up", s.letter(i), q)
				s.apply(next, q)
				does.gaveUp(next, &next.callers[i])
			})
		}
		s.make(w, func(next *world) {
			s.say("%v: %v never arrives; gives up", s.letter(i), q)
			does.gaveUp(next, &next.callers[i])
		})
	}
	if room := s.room(w); room >= 0 {
		s.make(w, func(next *world) {
			s.say("%v: %v, a copy of which is late; to be repeated", s.letter(i), q)
			next.late[room] = q
		})
		if does.gaveUp != nil {
			s.make(w, func(next *world) {
				s.say("%v: %v is late; gives up", s.letter(i), q)
				next.late[room] = q
				does.gaveUp(next, &next.callers[i])
			})
		}
	}
}

// asking is what a caller makes of an answer, and what it does if it never has one.
type asking struct {
	heard  func(w *world, c *caller, a answer)
	gaveUp func(w *world, c *caller)
}

// room returns where a late request can be put, or -1.
func (s *stepper) room(w *world) int {
	for i := range s.cfg.late {
		if w.late[i].verb == noVerb {
			return i
		}
	}
	return -1
}

// lateRequest lets a late request act, as often as it likes, or lets it be lost.
func (s *stepper) lateRequest(w *world, i int) {
	q := w.late[i]
	if !s.waits(w, q) && !(q.verb == forget && w.drops >= s.cfg.drops) {
		s.make(w, func(next *world) {
			s.say("late: %v", q)
			s.say(" = %v", s.apply(next, q))
		})
	}
	s.make(w, func(next *world) {
		s.say("late: %v is lost", q)
		next.late[i] = request{}
	})
}

// Claim.

func (s *stepper) newCall(w *world, i int) {
	s.make(w, func(next *world) {
		id := next.fresh()
		s.baptize(id)
		s.say("%v calls, with claim ID %v", s.letter(i), s.name(id))
		next.callers[i] = caller{at: claiming, id: id}
	})
	if s.cfg.operators && s.readsHeld(&w.record) {
		s.make(w, func(next *world) {
			id := next.fresh()
			s.baptize(id)
			s.say("%v, an operator, reads that the key is held by %v; resolves it with claim ID %v", s.letter(i), s.name(next.record.id), s.name(id))
			next.callers[i] = caller{at: claiming, id: id, replaces: next.record.id, from: held, operator: true}
		})
	}
}

func (s *stepper) claims(w *world, i int) {
	c := w.callers[i]
	q := request{verb: claim, id: c.id, replaces: c.replaces, from: c.from, stale: c.stale, reconcile: s.cfg.reconcile || c.operator}
	s.ask(w, i, q, asking{
		heard: func(next *world, c *caller, a answer) {
			switch a.kind {
			case granted:
				if c.operator {
					s.say("; not held any more: given back, ErrNotHeld")
					*c = caller{at: givingBack, id: c.id}
					return
				}
				s.startFn(next, c)
			case grantedHeld:
				*c = caller{at: askingBank, id: c.id, operator: c.operator}
			case retainedNow:
				s.tell(next, a.outcome)
				*c = caller{}
			case deadNow, heldNow:
				if c.operator || a.kind == heldNow && !s.cfg.reconcile {
					s.say("; told ErrOutcomeUnknown")
					*c = caller{}
					return
				}
				c.replaces, c.from, c.stale = a.id, claimed, false
				if a.kind == heldNow {
					c.from = held
				}
				if s.rule(ownIDs) {
					c.id = next.fresh()
					s.baptize(c.id)
					s.say("; asks with claim ID %v", s.name(c.id))
				}
			default: // in flight, or absent in the meantime: looks again, which is a new call
				if s.rule(ownIDs) || c.operator || a.kind == absentNow && c.replaces == 0 {
					*c = caller{}
				} else {
					c.replaces, c.from, c.stale = 0, 0, false
				}
			}
		},
		gaveUp: func(next *world, c *caller) {
			s.say("; told ErrStore")
			*c = caller{at: givingBack, id: c.id}
		},
	})
}

func (s *stepper) startFn(w *world, c *caller) {
	s.say("; fn starts")
	*c = caller{at: running, id: c.id}
	if s.cfg.fn == plain {
		s.mayAct(w, c.id)
	}
}

// mayAct notes that from now on an effect of id may happen.
func (s *stepper) mayAct(w *world, id claimID) {
	w.truth[id].begun = true
	w.truth[id].past = 0
}

// asksBank is Reconcile, or an operator who looks at the bank. What they may answer, the configuration says.
func (s *stepper) asksBank(w *world, i int) {
	id := w.callers[i].id
	found := false
	for other := claimID(1); other <= maxClaims; other++ {
		if e := &w.truth[other]; e.happened && e.past == 0 {
			found = true
			s.callerSteps(w, i, "finds the effect of "+s.name(other), func(_ *world, c *caller) {
				c.settle(retain, other)
			})
		}
	}
	if !found && s.saysRetryable(w, id) {
		s.callerSteps(w, i, "finds no effect: Retryable", func(next *world, c *caller) {
			switch {
			case c.operator:
				c.settle(release, 0)
			case s.rule(beginAfterRetryable):
				c.at = restarting
			default:
				if r := &next.record; r.open() && r.id == c.id {
					s.nothingHappened(next, c.id)
				}
				s.startFn(next, c)
			}
		})
	}
	s.callerSteps(w, i, "learns nothing", func(_ *world, c *caller) {
		c.settle(hold, 0)
	})
}

// Begin.

// restarts is the Begin that comes before the fn after a Reconcile that answered Retryable.
func (s *stepper) restarts(w *world, i int) {
	s.ask(w, i, request{verb: begin, id: w.callers[i].id}, asking{
		heard: func(next *world, c *caller, a answer) {
			if a.kind == claimLost {
				s.mustBeLost(next, c.id, "Begin")
				s.say("; nothing runs; told ErrOutcomeUnknown(ErrClaimLost)")
				*c = caller{}
				return
			}
			s.nothingHappened(next, c.id)
			s.startFn(next, c)
		},
		gaveUp: func(_ *world, c *caller) {
			s.say("; nothing runs")
			c.settle(hold, 0)
		},
	})
}

func (s *stepper) runs(w *world, i int) {
	switch s.cfg.fn {
	case begins:
		s.ask(w, i, request{verb: begin, id: w.callers[i].id}, asking{
			heard: func(next *world, c *caller, a answer) {
				if a.kind == claimLost {
					s.mustBeLost(next, c.id, "BeginEffect")
					c.settle(release, 0)
					return
				}
				s.mayAct(next, c.id)
				c.at, c.begun = mayEffect, true
			},
			gaveUp: func(next *world, c *caller) {
				s.say("; BeginEffect returns ErrStore")
				if !s.rule(refusalStops) {
					s.mayAct(next, c.id)
					c.at, c.begun = mayEffect, true
					return
				}
				c.settle(release, 0)
			},
		})
		if !s.rule(beginBeforeEffect) {
			s.callerSteps(w, i, "does not call BeginEffect", func(next *world, c *caller) {
				s.mayAct(next, c.id)
				c.at = mayEffect
			})
		}
	case plain:
		s.sendsEffect(w, i)
	case settlesInTx:
		if w.tx.owner != 0 {
			break // waits for the lock
		}
		s.callerSteps(w, i, "calls SettleTx", func(next *world, c *caller) {
			a := s.settleTx(next, c.id)
			s.say(" = %v", a)
			if a.kind == claimLost {
				s.mustBeLost(next, c.id, "SettleTx")
				c.settle(release, 0)
				return
			}
			c.at, c.asked = inTx, true
		})
	}
	s.failsBefore(w, i)
}

func (s *stepper) hasBegun(w *world, i int) {
	s.sendsEffect(w, i)
	s.failsBefore(w, i)
}

func (s *stepper) sendsEffect(w *world, i int) {
	s.callerSteps(w, i, "sends its effect", func(next *world, c *caller) {
		next.truth[c.id].sent = !next.truth[c.id].expired
		c.at = atBank
	})
}

func (s *stepper) failsBefore(w *world, i int) {
	s.callerSteps(w, i, "fails before its effect: Retryable", func(_ *world, c *caller) {
		c.settle(release, 0)
	})
}

func (s *stepper) awaitsBank(w *world, i int) {
	switch e := &w.truth[w.callers[i].id]; {
	case e.happened:
		s.callerSteps(w, i, "hears that its effect took place", func(_ *world, c *caller) {
			c.settle(retain, c.id)
		})
	case !e.sent:
		s.callerSteps(w, i, "hears that the bank refused: Retryable", func(_ *world, c *caller) {
			c.settle(release, 0)
		})
	}
	s.callerSteps(w, i, "hears nothing from the bank: Unknown", func(_ *world, c *caller) {
		c.settle(hold, 0)
	})
}

func (s *stepper) commits(w *world, i int) {
	c := &w.callers[i]
	if c.at == inTx {
		s.callerSteps(w, i, "sends COMMIT", func(next *world, c *caller) {
			next.tx.sent = true
			c.at = committing
		})
		s.callerSteps(w, i, "rolls back: Retryable", func(next *world, c *caller) {
			next.tx = transaction{}
			c.settle(release, 0)
		})
		return
	}
	if w.tx.owner != c.id {
		if w.truth[c.id].happened {
			s.callerSteps(w, i, "hears that it is committed", func(_ *world, c *caller) {
				c.settle(retain, c.id)
			})
		} else {
			s.callerSteps(w, i, "hears that it was rolled back: Retryable", func(_ *world, c *caller) {
				c.settle(release, 0)
			})
		}
	}
	// Like NoEffect at the top of fn: the transaction either shows in the record or did nothing.
	s.callerSteps(w, i, "hears nothing of its COMMIT; fn returns an error", func(_ *world, c *caller) {
		c.settle(release, 0)
	})
}

// Settle.

// settle turns to settling. How the caller came there matters only to a Release that is lost.
func (c *caller) settle(d disposition, outcome claimID) {
	now := caller{at: settling, id: c.id, disposition: d, outcome: outcome}
	if d == release {
		now.operator, now.begun, now.asked = c.operator, c.begun, c.asked
	}
	*c = now
}

func (s *stepper) settles(w *world, i int) {
	c := w.callers[i]
	q := request{verb: settle, id: c.id, disposition: c.disposition, outcome: c.outcome}
	if c.at == offering {
		s.ask(w, i, q, asking{heard: func(_ *world, c *caller, _ answer) { *c = caller{} }})
		return
	}
	if !s.rule(recordFirst) {
		s.callerSteps(w, i, "does not wait for the record", func(next *world, c *caller) {
			s.tellOwn(next, c)
			*c = caller{at: offering, id: c.id, disposition: c.disposition, outcome: c.outcome}
		})
	}
	s.ask(w, i, q, asking{
		heard: func(next *world, c *caller, a answer) {
			switch {
			case a.kind == claimLost:
				s.mustBeLost(next, c.id, "Settle")
				if c.disposition == release && !c.begun && !c.operator && (!c.asked || !s.rule(askedIsUnknown)) {
					s.tellRetryable(next, c)
				} else {
					s.say("; told ErrOutcomeUnknown(ErrClaimLost)")
				}
			case a.kind == mineClosed && s.rule(standingCounts):
				switch a.disposition {
				case retain:
					s.tell(next, a.outcome)
				case release:
					s.tellRetryable(next, c)
				case hold:
					s.say("; told ErrOutcomeUnknown")
				}
			default:
				s.tellOwn(next, c)
			}
			*c = caller{}
		},
		gaveUp: func(_ *world, c *caller) {
			s.say("; told ErrOutcomeUnknown(ErrStore)")
			*c = caller{at: offering, id: c.id, disposition: c.disposition, outcome: c.outcome}
		},
	})
}

// tellOwn tells the callers what the execution came to.
func (s *stepper) tellOwn(w *world, c *caller) {
	switch c.disposition {
	case retain:
		s.tell(w, c.outcome)
	case release:
		s.tellRetryable(w, c)
	case hold:
		s.say("; told ErrOutcomeUnknown")
	}
}

// Renew.

func (s *stepper) heartbeat(w *world) {
	if !w.record.open() || !w.record.leaseOver || w.tx.owner != 0 {
		return
	}
	for i := range s.cfg.callers {
		c := &w.callers[i]
		if c.at >= askingBank && c.at <= settling && (c.id == w.record.id || !s.rule(renewFenced)) {
			s.make(w, func(next *world) {
				s.say("%v: Renew(%v)", s.letter(i), s.name(c.id))
				s.renew(next, c.id)
			})
		}
	}
}

// Forget.

func (s *stepper) userForgets(w *world) {
	if w.record.absent() || w.drops >= s.cfg.drops || !s.cfg.forgets {
		return
	}
	q := request{verb: forget, id: w.record.id}
	if !s.waits(w, q) {
		s.make(w, func(next *world) {
			s.say("a user reads %v: %v", s.name(q.id), q)
			s.say(" = %v", s.apply(next, q))
		})
	}
	if room := s.room(w); room >= 0 {
		s.make(w, func(next *world) {
			s.say("a user reads %v: %v, a copy of which is late", s.name(q.id), q)
			next.late[room] = q
		})
	}
}

// GiveBack.

func (s *stepper) givesBack(w *world, i int) {
	s.ask(w, i, request{verb: giveBack, id: w.callers[i].id}, asking{
		heard: func(_ *world, c *caller, _ answer) { *c = caller{} },
	})
	if !s.rule(givenBackIDs) {
		s.callerSteps(w, i, "is called again, and uses the claim ID that is being given back", func(_ *world, c *caller) {
			c.at = claiming
		})
	}
}

// What happens by itself.

func (s *stepper) dies(w *world, i int) {
	s.make(w, func(next *world) {
		s.say("%v dies", s.letter(i))
		c := &next.callers[i]
		if c.at == inTx {
			s.say("; the server rolls back")
			next.tx = transaction{}
		}
		*c = caller{}
	})
}

func (s *stepper) timePasses(w *world) {
	r := &w.record
	if r.alive() {
		s.make(w, func(next *world) {
			s.say("the lease of %v ends", s.name(r.id))
			next.record.leaseOver = true
			if !s.rule(heldByReading) && s.readsHeld(&next.record) && next.tx.owner == 0 {
				next.record = record{state: held, id: r.id, settled: hold, started: r.started}
			}
		})
	}
	if w.tx.owner == 0 && w.drops < s.cfg.drops && (r.state == retained || s.readsHeld(r)) {
		s.make(w, func(next *world) {
			s.say("the TTL or HoldTTL of %v ends", s.name(r.id))
			s.dropRecord(next, true)
			next.before, next.undoes = record{}, false // long written to the disk
		})
	}
	if r.state == closed {
		s.make(w, func(next *world) {
			s.say("the closed row of %v is swept", s.name(r.id))
			next.truth[r.id].lost = true
			next.record = record{}
		})
	}
}

func (s *stepper) bankActs(w *world) {
	for id := claimID(1); id <= maxClaims; id++ {
		e := &w.truth[id]
		if e.sent {
			s.make(w, func(next *world) {
				s.say("the EFFECT of %v takes place", s.name(id))
				s.effect(next, id)
			})
			s.make(w, func(next *world) {
				s.say("the effect of %v never arrives, or is refused", s.name(id))
				next.truth[id].sent = false
			})
		}
		if s.cfg.bank == deadline && s.mayExpire(w, id) {
			s.make(w, func(next *world) {
				s.say("the bank takes no effect of %v any more", s.name(id))
				next.truth[id].expired, next.truth[id].sent = true, false
			})
		}
	}
}

// serverActs is PostgreSQL: it decides a COMMIT, or crashes and loses a claim that nobody waited for.
func (s *stepper) serverActs(w *world) {
	if w.tx.sent {
		s.make(w, func(next *world) {
			s.say("the server commits the transaction of %v: its EFFECT takes place", s.name(next.tx.owner))
			s.commit(next)
		})
		s.make(w, func(next *world) {
			s.say("the server rolls back the transaction of %v", s.name(next.tx.owner))
			next.tx = transaction{}
		})
	}
	if w.undoes && w.tx.owner == 0 {
		s.make(w, func(next *world) {
			s.say("the engine crashes and loses the claim of %v", s.name(next.record.id))
			next.truth[next.record.id].lost = true
			next.record = next.before
			next.before, next.undoes = record{}, false
			if next.record.open() {
				next.truth[next.record.id].lost = false
			}
		})
	}
}

// The trace.

func (s *stepper) say(format string, args ...any) {
	if !s.tracing {
		return
	}
	for i, arg := range args {
		switch arg := arg.(type) {
		case claimID:
			args[i] = s.name(arg)
		case request:
			args[i] = s.request(arg)
		case answer:
			args[i] = s.answer(arg)
		}
	}
	s.words += fmt.Sprintf(format, args...)
}
