package main

import (
	"fmt"
	"strings"
)

var (
	stateNames       = [...]string{"absent", "absent (a closed row)", "claimed", "begun", "reconciling", "retained", "held"}
	dispositionNames = [...]string{"", "Release", "Retain", "Hold"}
	verbNames        = [...]string{"", "Claim", "Begin", "Settle", "Forget", "GiveBack"}
	answerNames      = [...]string{"ok", "granted", "granted, held", "absent", "in flight", "in flight, its owner is dead and has begun nothing", "retained", "held", "yours, closed", "ErrClaimLost"}
)

// baptize gives a new claim ID the name that it keeps in this trace, though normalize renumbers it.
func (s *stepper) baptize(id claimID) {
	if s.tracing {
		s.names[id] = s.nextName
	}
}

func (s *stepper) name(id claimID) string {
	if !s.tracing {
		return ""
	}
	return s.names[id]
}

func (s *stepper) letter(i int) string {
	if !s.tracing {
		return ""
	}
	return s.letters[i]
}

func (s *stepper) request(q request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s(%s", verbNames[q.verb], s.name(q.id))
	if q.replaces != 0 {
		seen := "in flight"
		if q.from == held {
			seen = "held"
		}
		fmt.Fprintf(&b, ", replaces %s, which was %s", s.name(q.replaces), seen)
	}
	if q.disposition != unsettled {
		fmt.Fprintf(&b, ", %s", dispositionNames[q.disposition])
	}
	if q.outcome != 0 {
		fmt.Fprintf(&b, " the outcome of %s", s.name(q.outcome))
	}
	return b.String() + ")"
}

func (s *stepper) answer(a answer) string {
	text := answerNames[a.kind]
	if a.kind == mineClosed {
		text += ": " + dispositionNames[a.disposition]
	}
	if a.outcome != 0 {
		text += ", the outcome of " + s.name(a.outcome)
	}
	return text
}

// describe says what the engine keeps.
func (s *stepper) describe(r *record) string {
	text := stateNames[r.state]
	if r.state == noRow {
		return text
	}
	text += " by " + s.name(r.id)
	if r.open() && r.leaseOver {
		text += ", lease over"
		if s.readsHeld(r) {
			text += ": reads as held"
		}
	}
	if r.forgotten != 0 {
		text += ", forgotten"
	}
	return text
}
