package explore

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight/verify/internal/plant"
	"github.com/idemflight/idemflight/verify/internal/suite"
)

// fault is a mistake in the library.
type fault struct {
	name  string
	quick bool // planted also without -long
	edits []plant.Edit
	by    []string
}

// faults are mistakes in the library, each with the scenarios of which at least one has to show it.
// Some need the points' package to stop between two halves of what was one critical section.
//
// Three mistakes in the table are none that a caller could tell, and are not here. If a tag is stored
// before its record, a look finds the slot empty, and what a look without a lock misses is looked up
// again with it; so too if a growing table drops what it moves from the old bucket early, as long as
// it is in the new one by the end of the critical section. And whether the clock or gone is read first
// makes no difference: neither is ever taken back, so that at the first of the two readings the
// record was there and had not expired.
//
// The three faults about gone break what the library says of itself, that a replay has an instant
// after its record was found; that there is one within the call holds without the mark.
var faults = []fault{
	{"a flight is retired in one critical section, and its outcome published in the next", true, []plant.Edit{
		{In: "(*ending).land", Old: "deadline := end.landLocked(s)", New: `if end.disposition == Retain { s.mu.Unlock(); yield.At("fault"); s.mu.Lock() }; deadline := end.landLocked(s)`},
	}, []string{"do/2"}},
	{"Forget takes the flight out", true, []plant.Edit{
		{In: "(*Cache).drop", Old: "f.forgotten = true", New: "f.forgotten = true; s.flights.remove(f)"},
		settlesUnseen,
	}, []string{"forget/3"}},
	{"a waiter's leaving removes the key", true, []plant.Edit{
		{In: "(*Cache).leave", Old: "s.waiters--", New: "s.waiters--; s.flights.remove(f)"},
		settlesUnseen,
	}, []string{"leave-joined/3"}},
	{"a leader's leaving removes the key", false, []plant.Edit{
		{In: "(*Cache).leave", Old: "f.leaderLeft = true", New: "f.leaderLeft = true; s.flights.remove(f)"},
		settlesUnseen,
	}, []string{"leave-leader/2"}},
	{"a leader's leaving cancels fn", false, []plant.Edit{
		{In: "(*execution).errLocked", Old: "", New: "if err := e.leader.Err(); err != nil { return err }"},
	}, []string{"leave-leader/2"}},
	{"a caller that leaves does not look whether the flight has settled", false, []plant.Edit{
		{In: "(*Cache).leave", Old: "if f.settled { return false }", New: ""},
	}, []string{"leave-joined/3"}},
	{"an outcome is stored after Forget", true, []plant.Edit{
		{In: "(*ending).retains", Old: "forgotten := end.flight.forgotten", New: "forgotten := false"},
	}, []string{"forget/2"}},
	{"an unknown outcome is forgotten with the value", false, []plant.Edit{
		{In: "(*ending).land", Old: "end.disposition == Retain && !end.retains()", New: "!end.retains() && (end.disposition == Retain || f.forgotten)"},
	}, []string{"forget-unknown/2"}},
	{"a release does not return its place", false, []plant.Edit{
		{In: "(*ending).landLocked", Old: "s.stats.Releases++; c.returnPlace()", New: "s.stats.Releases++"},
	}, []string{"fails/2"}},
	{"Forget returns the place after the record is gone", true, []plant.Edit{
		{In: "(*Cache).drop", Old: "c.returnPlace(); c.removeLocked(s, r)", New: `c.removeLocked(s, r); defer c.returnPlace(); defer yield.At("fault")`},
	}, []string{"evict-forget/2"}},
	{"the place of an expired record is returned, and kept as well", false, []plant.Edit{
		{In: "(*call).decideLocked", Old: "if hasPlace = mayLead; !hasPlace { c.returnPlace() }", New: "hasPlace = mayLead; c.returnPlace()"},
	}, []string{"full-expiry/2"}},
	{"BeginEffect succeeds after the end", true, []plant.Edit{
		{In: "(*execution).begins", Old: "case e.phase != running:", New: "case e.phase != running: return nil; case e.phase == overLate:"},
	}, []string{"effect-elsewhere/2"}},
	{"NoEffect takes back more than has begun", false, []plant.Edit{
		{In: "NoEffect", Old: "if 0 < e.effects && e.effects < math.MaxInt32 { e.effects-- }", New: "e.effects--"},
	}, []string{"effect/2"}},
	{"a call that looks for room evicts the outcome of its own key", false, []plant.Edit{
		{In: "(*search).dropLocked", Old: "if r.hash == find.hash && r.key == find.key { return }", New: ""},
	}, []string{"evict-same/2"}},
	{"an eviction drops what it meets, without another look whether that may go", false, []plant.Edit{
		{In: "(*search).evict", Old: "t != found && !find.oldEnough(t) || !find.unprotected(r.done(c.opts.TTL))", New: "t == never"},
	}, []string{"protect/3"}},
	{"a call that found no place does not look at its key again", false, []plant.Edit{
		{In: "(*call).decide", Old: "exhausted, asOf = c.makeRoom(m.key, m.reply.hash, &m.notes)", New: "if exhausted, asOf = c.makeRoom(m.key, m.reply.hash, &m.notes); exhausted { s.mu.Lock(); m.rejectLocked(&s.stats.Full, ErrFull); s.mu.Unlock(); return }"},
	}, []string{"full-same/2"}},
	{"a call whose look without a lock found nothing claims without another", true, []plant.Edit{
		{In: "(*call).decideLocked", Old: "r := s.kept.get(m.reply.hash, m.key); r != nil", New: "r := s.kept.get(m.reply.hash, m.key); false"},
	}, []string{"do/2"}},
	{"a claim reads whether the cache is closed before it has the lock", true, []plant.Edit{
		{In: "(*call).decide", Old: `yield.At("meet")`, New: `if m.kind = 0; c.closed.Load() { m.kind = -1 }; yield.At("meet")`},
		{In: "(*call).decideLocked", Old: "!c.closed.Load()", New: "m.kind != -1"},
	}, []string{"close/2"}},
	{"the timer that stops does not look at the places again", false, []plant.Edit{
		{In: "(*Cache).disarm", Old: "if c.places.Load() > 0 { c.rearm() }", New: ""},
	}, []string{"disarm/2"}},
	{"the timer that has fired is not set again", false, []plant.Edit{
		{In: "(*Cache).reclaim", Old: "defer c.rearm()", New: "_ = c.rearm"},
	}, []string{"expiry-keys/3"}},
	{"two operators resolve, and both act", false, []plant.Edit{
		{In: "(*Cache).resolve", Old: "now, state := c.heldLocked(s, hash, key, notes); now != held { c.returnWeight(weight)", New: "now, state := c.heldLocked(s, hash, key, notes); now != held && false { c.returnWeight(weight)"},
	}, []string{"resolve/2"}},
	{"Restore does not look at the key again before it inserts the entry", false, []plant.Edit{
		{In: "(*Cache).restore", Old: "err := c.restorableLocked(s, hash, key, &notes); err != nil", New: "err := c.restorableLocked(s, hash, key, &notes); err == ErrClosed"},
	}, []string{"restore/3"}},
	{"a reconciled flight that learned nothing returns its place", false, []plant.Edit{
		{In: "(*ending).holdLocked", Old: "s.stats.Holds++", New: "s.stats.Holds++; if end.exec.reconciling { c.returnPlace() }"},
	}, []string{"reconcile-nothing/2"}},

	{"fn starts for a leader that has left", true, []plant.Edit{
		{In: "(*ending).yieldToFn", Old: "if f.leaderLeft {", New: "if f.fn == nil {"},
	}, []string{"reconcile-leave/2"}},
	{"a leader that leaves does not look whether Reconcile has answered", true, []plant.Edit{
		{In: "(*Cache).leaveAnswer", Old: "if f.asks == nil { return false }", New: ""},
	}, []string{"reconcile-leave-inline/2"}},
	{"those that wait for Reconcile do not look again", true, []plant.Edit{
		{In: "(*call).follow", Old: "case r.flight.outcome.source == lookAgain: r.flight = nil; return false", New: ""},
	}, []string{"look-again/2"}},
	{"an inline leader stays while Reconcile runs", false, []plant.Edit{
		{In: "(*call).startAsking", Old: "m.reply.ended = m.ctx.Done()", New: ""},
	}, []string{"reconcile-leave-inline/2"}},
	{"a Reconcile that learned nothing leaves no pause", false, []plant.Edit{
		{In: "(*Cache).holdAgainLocked", Old: "r.more.pause = &pause{d.done + pauseTime, d.err}", New: ""},
	}, []string{"pause/2"}},
	{"the pause goes on at its end", false, []plant.Edit{
		{In: "(*pause).over", Old: "now >= p.until", New: "now > p.until"},
	}, []string{"pause/2"}},
	{"an operator who leaves is told, and so is nobody of his Reconcile", false, []plant.Edit{
		{In: "(*call).operatorLeaves", Old: "f.operated = byOperatorWhoLeft", New: ""},
	}, []string{"operator-nothing/2"}},
	{"the last resort takes whatever is held", false, []plant.Edit{
		{In: "why.spare", Old: "return w == unsaid || w == panickedUnsaid", New: "return true"},
	}, []string{"last-resort-not/2"}},
	{"the last resort comes before an outcome that may go", false, []plant.Edit{
		{In: "(*Cache).makeRoom", Old: "s != nil { over = find.evict(s, t) } else if", New: "held, first := find.lastResort(); held != nil { over = find.evictHeld(held, first) } else if s != nil { over = find.evict(s, t) } else if"},
	}, []string{"last-resort-held/2"}},
	{"the last resort evicts a held key of the call that looks for room", false, []plant.Edit{
		{In: "(*search).dropLocked", Old: "if r.hash == find.hash && r.key == find.key { return }", New: ""},
	}, []string{"last-resort-own/2"}},

	{"an insertion has its number before the head of its shard shows it", false, []plant.Edit{
		{In: "(*Cache).insertLocked", Old: "c.seq.Load() + 1", New: "c.seq.Add(1)"},
		{In: "(*Cache).insertLocked", Old: "s.publishLocked() } c.seq.Add(1)", New: "s.publishLocked() }"},
	}, []string{"evict-late/2"}},

	{"a replay without a lock does not look at the clock", false, []plant.Edit{
		{In: "(*Cache).replayable", Old: "|| rec.expired(c.now())", New: ""},
	}, []string{"replay-expiry/2"}},
	{"a replay without a lock does not look at the fingerprint", false, []plant.Edit{
		{In: "(*record).answers", Old: "return fp == Fingerprint{}", New: "return true"},
	}, []string{"replay-fingerprints/2"}},
	{"a replay without a lock does not look at the state", false, []plant.Edit{
		{In: "(*record).answers", Old: "State(r.more.kind) == Retained &&", New: ""},
	}, []string{"resolve/3"}},
	{"a replay without a lock does not look whether the record is gone", false, []plant.Edit{
		{In: "(*record).use", Old: "if flags&gone != 0 { return false }", New: ""},
	}, []string{"replay/2"}},
	{"a record that leaves the table is not marked as gone", true, []plant.Edit{
		{In: "(*table).remove", Old: "r.flags.Or(gone)", New: ""},
	}, []string{"replay/2"}},
	{"a record whose value is shed is not marked as gone", false, []plant.Edit{
		{In: "(*table).replace", Old: "old.flags.Or(gone)", New: ""},
	}, []string{"replay-shed/2"}},
	{"a table that grows does not move what belongs to the new bucket", false, []plant.Edit{
		{In: "(*table).grow", Old: "to.put(r)", New: "_ = to"},
	}, []string{"grow/2"}},
	{"a table that grows drops what it moves before it is in the new bucket", true, []plant.Edit{
		{In: "(*table).grow", Old: "for r := range from.all", New: "from.empty(); for r := range from.all"},
	}, []string{"grow/2"}},
	{"a directory that grows loses the buckets of the one before", false, []plant.Edit{
		{In: "(*table).resize", Old: "segments[i].Store(old[i].Load())", New: "_ = i"},
	}, []string{"grow-directory/2"}},
	{"a table that shrinks does not move what was in the last bucket", false, []plant.Edit{
		{In: "(*table).shrink", Old: "to.put(r)", New: "_, _ = to, r"},
	}, []string{"shrink/2"}},
	{"a table that shrinks moves nothing out of the last bucket of a segment", false, []plant.Edit{
		{In: "(*table).shrink", Old: "to.put(r)", New: "if n%segmentLen > 0 { to.put(r) }"},
	}, []string{"shrink-directory/2"}},
}

// settlesUnseen lets a flight settle that others have taken out.
var settlesUnseen = plant.Edit{In: "(*ending).land", Old: "!s.flights.remove(f)", New: "!s.flights.remove(f) && false"}

// TestFaultsAreOfThisSource also tries the faults that the long run alone plants.
func TestFaultsAreOfThisSource(t *testing.T) {
	library, err := plant.Load("../..")
	require.NoError(t, err)
	checker, err := plant.NewChecker("../..")
	require.NoError(t, err)
	for _, f := range slices.Concat(faults, storedFaults) {
		edited, err := library.Apply(f.edits...)
		if assert.NoError(t, err, "%s", f.name) {
			assert.NoError(t, checker.Check(library, edited), "%s", f.name)
		}
	}
}

// TestFaultsAreFound plants each fault in a copy of the library's source that only the compiler
// sees (go test -overlay), and explores the scenarios that have to show it.
func TestFaultsAreFound(t *testing.T) {
	if *child != "" || testing.Short() {
		t.Skip("planted without -short")
	}
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	library, err := plant.Load(root)
	require.NoError(t, err)
	found, planted := 0, 0
	t.Cleanup(func() { t.Logf("%d of %d faults found", found, planted) })
	for _, f := range slices.Concat(faults, storedFaults) {
		if !f.quick && !*long {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			planted++
			edited, err := library.Apply(f.edits...)
			require.NoError(t, err, "the library has changed: bring the fault up to date")
			dir := t.TempDir()
			overlay, err := suite.Overlay(dir, edited)
			require.NoError(t, err)
			binary := filepath.Join(dir, "explore.test")
			out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", binary, ".").CombinedOutput()
			require.NoError(t, err, "%s", out)

			for _, name := range f.by {
				res, err := exploreChild(t, binary, name, 20_000)
				switch {
				case err != nil:
					text, _, _ := strings.Cut(err.Error(), "\n\n")
					t.Logf("%s ended the process: %s", name, text)
				case res.Violation != "":
					t.Logf("%s, schedule %d (%s): %s", name, res.Schedules, res.Choices, res.Violation)
				default:
					t.Logf("%s: nothing in %d schedules", name, res.Schedules)
					continue
				}
				found++
				return
			}
			t.Errorf("nobody found it")
		})
	}
}
