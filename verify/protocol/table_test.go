package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight/internal/storetable"
)

// TestTheModelAnswersLikeTheStores: the verbs of the model answer what section 4's table says, which storetest
// asks of every store.
func TestTheModelAnswersLikeTheStores(t *testing.T) {
	for _, row := range storetable.States {
		t.Run(row.Name, func(t *testing.T) { require.Empty(t, tableDiffers(0, row)) })
	}
}

// TestFaultsTheTableNoticesTheRulesOfVerbs: a rule of one verb's answer that is taken away shows in the table,
// too. The others are about what comes late, about two claims' histories, or not about verbs.
func TestFaultsTheTableNoticesTheRulesOfVerbs(t *testing.T) {
	for _, r := range []rule{
		claimRepeats, replaces, from, leaseOver, announcedOnly, unbegunOnly, reconcilerHolds, claimClearsMark,
		closedRefuses, beginFenced, settleFenced, closedStays, closedRows, forgottenGoes, holdClearsMark,
		renewFenced, forgetByID, forgetMarks, giveBackOwn, giveBackFenced,
	} {
		var differs []string
		for _, row := range storetable.States {
			differs = append(differs, tableDiffers(1<<r, row)...)
		}
		require.NotEmpty(t, differs, "the table is true without %q", protocolRules[r].name)
		t.Logf("%s: %s", protocolRules[r].name, differs[0])
	}
}

// onRecord is a world in which the verbs act on one record, for an owner and for others.
type onRecord struct {
	stepper
	world
	owner, last claimID // who the verbs are for; the last ID given out
}

// in brings a record into a state of the table.
func in(without rules, row storetable.State) *onRecord {
	o := &onRecord{last: 1, owner: 1}
	o.cfg = &config{callers: 1, announced: strings.Contains(row.Steps, "announce"), reconcile: true, without: without}
	for _, step := range strings.Fields(row.Steps) {
		switch step {
		case "claim", "announce":
			o.claim(o.owner, 0, 0)
		case "begin":
			o.act(begin, o.owner)
		case "retain":
			o.settle(o.owner, retain)
		case "hold":
			o.settle(o.owner, hold)
		case "release":
			o.settle(o.owner, release)
		case "unkept": // the model knows no TTL but one that is over at some time
			o.settle(o.owner, retain)
			o.dropRecord(&o.world, true)
		case "giveback":
			o.act(giveBack, o.owner)
		case "forget":
			o.act(forget, o.owner)
		case "brief":
		case "expire":
			o.dropRecord(&o.world, true)
		case "die":
			o.record.leaseOver = true
		case "replace":
			o.claim(o.fresh(), o.owner, claimed)
		case "again":
			o.claim(o.fresh(), 0, 0)
		case "reconcile":
			next := o.fresh()
			o.claim(next, o.owner, held)
			o.owner = next
		case "reconciled":
			o.claim(o.fresh(), o.owner, held)
		default:
			panic("the table has a step that is not known: " + step)
		}
	}
	return o
}

func (o *onRecord) fresh() claimID { o.last++; return o.last }

func (o *onRecord) act(v verb, id claimID) answer { return o.apply(&o.world, request{verb: v, id: id}) }

func (o *onRecord) settle(id claimID, d disposition) answer {
	return o.apply(&o.world, request{verb: settle, id: id, disposition: d, outcome: id})
}

func (o *onRecord) claim(id, replaces claimID, from state) answer {
	return o.apply(&o.world, request{verb: claim, id: id, replaces: replaces, from: from, reconcile: true})
}

// reads is what the record reads as, in the table's words.
func (o *onRecord) reads() string { return reads(o.standing(&o.record)) }

func reads(a answer) string {
	switch a.kind {
	case inFlight:
		return storetable.InFlight
	case deadNow:
		return storetable.Dead
	case retainedNow:
		return storetable.Retained
	case heldNow:
		return storetable.Held
	}
	return storetable.Absent
}

// tableDiffers returns where a row of the table is not true of the model without some rules. Each verb comes twice.
func tableDiffers(without rules, row storetable.State) (differs []string) {
	report := func(verb, want, got string) {
		if want != storetable.Any && want != got {
			differs = append(differs, fmt.Sprintf("%s: %s: want %s, is %s", row.Name, verb, want, got))
		}
	}
	twice := func(verb, want string, ask func(o *onRecord) string) {
		o := in(without, row)
		report("reads", row.Reads, o.reads())
		before := o.record
		first := ask(o)
		report(verb, want, first)
		if unchanging := []string{storetable.Refused, storetable.Lost, storetable.Nothing}; slices.Contains(unchanging, want) && o.record != before {
			report(verb, "nothing changes", "another record")
		}
		after := o.record
		report(verb+" again", first, ask(o))
		if o.record != after {
			report(verb+" again", "nothing changes", "another record")
		}
	}
	claims := func(verb, want string, request func(o *onRecord) (id, replaces claimID, from state)) {
		var id, replaces claimID
		var from state
		twice(verb, want, func(o *onRecord) string {
			if id == 0 {
				id, replaces, from = request(o)
			}
			stood, before := o.reads(), o.record
			switch a := o.claim(id, replaces, from); {
			case a.kind == granted || a.kind == grantedHeld:
				if before.id != id {
					report(verb+", then", fmt.Sprint(storetable.InFlight, " by ", id), fmt.Sprint(o.reads(), " by ", o.record.id))
				} else if o.record != before {
					report(verb+", a repeat", "nothing changes", "another record")
				}
				if before.id != id && o.record.forgotten != 0 {
					report(verb, "no mark", "marked")
				}
				if a.kind == grantedHeld {
					return storetable.ToFindOut
				}
				return storetable.Granted
			default:
				report(verb+", which is refused", stood, reads(a))
				return storetable.Refused
			}
		})
	}
	other := func(o *onRecord) claimID { return o.last + 1 }
	claims("Claim", row.Claim, func(o *onRecord) (claimID, claimID, state) { return other(o), 0, 0 })
	claims("Claim by the owner", row.Again, func(o *onRecord) (claimID, claimID, state) { return o.owner, 0, 0 })
	claims("Claim to take over", row.TakeOver, func(o *onRecord) (claimID, claimID, state) { return other(o), o.owner, claimed })
	claims("Claim to reconcile", row.Reconcile, func(o *onRecord) (claimID, claimID, state) { return other(o), o.owner, held })

	lost := func(a answer) string {
		if a.kind == claimLost {
			return storetable.Lost
		}
		return storetable.OK
	}
	twice("Begin", row.Begin, func(o *onRecord) string {
		answered := lost(o.act(begin, o.owner))
		if answered == storetable.OK && (o.record.state != begun || !o.record.alive()) {
			report("Begin, then", "begun and alive", stateNames[o.record.state])
		}
		return answered
	})
	for d, name := range map[disposition]string{retain: storetable.Retained, hold: storetable.Held, release: storetable.Absent} {
		o := in(without, row)
		before := o.record
		first, again := o.settle(o.owner, d), o.settle(o.owner, d)
		switch verb := "Settle as " + name; row.Settle {
		case storetable.Any:
		case storetable.Lost:
			report(verb, storetable.Lost, lost(first))
			report(verb+" again", storetable.Lost, lost(again))
		case storetable.OK, storetable.Forgotten:
			report(verb, storetable.OK, lost(first))
			report(verb+" again", name, counts(again))
			if then := name; d == retain && row.Settle == storetable.Forgotten {
				report(verb+", then", storetable.Absent, o.reads())
			} else {
				report(verb+", then", then, o.reads())
			}
			if o.record.state != closed && o.record.forgotten != 0 {
				report(verb, "no mark", "marked")
			}
		default: // it is a repeat itself
			report(verb, row.Settle, counts(first))
			report(verb+" again", row.Settle, counts(again))
			if o.record != before {
				report(verb, "nothing changes", "another record")
			}
		}
	}
	twice("Renew", row.Renew, func(o *onRecord) string {
		before := o.record
		if o.renew(&o.world, o.owner); o.record.open() && o.record.id == o.owner {
			return storetable.OK
		}
		if o.record != before {
			report("Renew of what is not the owner's", "nothing changes", "another record")
		}
		return storetable.Lost
	})
	twice("GiveBack", row.GiveBack, func(o *onRecord) string {
		o.act(giveBack, o.owner)
		return o.reads()
	})

	o := in(without, row)
	switch a := o.act(forget, o.owner); {
	case a.kind == absentNow:
		report("Forget", row.Forget, storetable.Nothing)
	case o.record.alive() && o.record.forgotten != 0:
		report("Forget", row.Forget, storetable.Marked)
	case o.record.absent():
		report("Forget", row.Forget, storetable.Dropped)
	default:
		report("Forget", row.Forget, "another record")
	}
	return append(differs, strangersDiffer(without, row)...)
}

// strangersDiffer returns which verbs do something for an ID that the record does not bear.
func strangersDiffer(without rules, row storetable.State) (differs []string) {
	o := in(without, row)
	before, stranger := o.record, o.last+1
	for verb, ask := range map[string]func(){
		"Begin":              func() { o.act(begin, stranger) },
		"Settle as retained": func() { o.settle(stranger, retain) },
		"Settle as held":     func() { o.settle(stranger, hold) },
		"Settle as absent":   func() { o.settle(stranger, release) },
		"Renew":              func() { o.renew(&o.world, stranger) },
		"GiveBack":           func() { o.act(giveBack, stranger) },
		"Forget":             func() { o.act(forget, stranger) },
		"Claim to take over": func() { o.claim(stranger+1, stranger, claimed) },
		"Claim to reconcile": func() { o.claim(stranger+1, stranger, held) },
	} {
		if ask(); o.record != before {
			differs = append(differs, fmt.Sprintf("%s: %s by a stranger: another record", row.Name, verb))
			o = in(without, row)
		}
	}
	return differs
}

// counts is what an answer of Settle says that the outcome was.
func counts(a answer) string {
	if a.kind != mineClosed {
		return "no outcome"
	}
	switch a.disposition {
	case retain:
		return storetable.Retained
	case hold:
		return storetable.Held
	case release:
		return storetable.Absent
	}
	return "no outcome"
}
