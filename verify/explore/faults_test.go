package explore

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight/verify/internal/plant"
	"github.com/idemflight/idemflight/verify/internal/suite"
)

// faults are mistakes in the library, each with the scenarios of which at least one has to show it.
// Some need the points' package to stop between two halves of what was one critical section.
var faults = []struct {
	name  string
	quick bool // planted also without -long
	edits []plant.Edit
	by    []string
}{
	{"a flight is retired in one critical section, and its outcome published in the next", true, []plant.Edit{
		{In: "(*Cache).settle", Old: "o := &f.outcome", New: `if x.disposition == Retain { delete(s.pending, f.key); s.mu.Unlock(); yield.At("fault"); s.mu.Lock() }; o := &f.outcome`},
	}, []string{"do/2"}},
	{"Forget takes the flight out, whose end then deletes whatever is there", true, []plant.Edit{
		{In: "(*Cache).Forget", Old: "f.forgotten = true", New: "f.forgotten = true; delete(s.pending, key)"},
		settlesUnseen,
	}, []string{"forget/3"}},
	{"a waiter's leaving removes the key", true, []plant.Edit{
		{In: "(*Cache).leave", Old: "s.waiters--", New: "s.waiters--; delete(s.pending, f.key)"},
		settlesUnseen,
	}, []string{"leave-joined/3"}},
	{"a leader's leaving removes the key", false, []plant.Edit{
		{In: "(*Cache).leave", Old: "f.leaderLeft = true", New: "f.leaderLeft = true; delete(s.pending, f.key)"},
		settlesUnseen,
	}, []string{"leave-leader/2"}},
	{"a leader's leaving cancels fn", false, []plant.Edit{
		{In: "(*execution).errLocked", Old: "", New: "if err := e.leader.Err(); err != nil { return err }"},
	}, []string{"leave-leader/2"}},
	{"who leaves does not look whether the flight has settled", false, []plant.Edit{
		{In: "(*Cache).leave", Old: "if f.settled { return false }", New: ""},
	}, []string{"leave-joined/3"}},
	{"an outcome is stored after Forget", true, []plant.Edit{
		{In: "(*Cache).settle", Old: "!f.forgotten &&", New: ""},
	}, []string{"forget/2"}},
	{"an unknown outcome is forgotten with the value", false, []plant.Edit{
		{In: "(*Cache).settle", Old: "x.disposition == Retain && !retain", New: "!retain && (x.disposition == Retain || f.forgotten)"},
	}, []string{"forget-unknown/2"}},
	{"a release does not give its place back", false, []plant.Edit{
		{In: "(*Cache).settle", Old: "c.giveBack()", New: ""},
	}, []string{"fails/2"}},
	{"Forget gives the place back after the record is gone", true, []plant.Edit{
		{In: "(*Cache).Forget", Old: "c.giveBack(); c.removeLocked(s, key, r)", New: `c.removeLocked(s, key, r); defer c.giveBack(); defer yield.At("fault")`},
	}, []string{"evict-forget/2"}},
	{"the place of an expired record is given back, and kept as well", false, []plant.Edit{
		{In: "(*Cache).meet", Old: "hasPlace = true", New: "c.giveBack(); hasPlace = true"},
	}, []string{"full-expiry/2"}},
	{"BeginEffect succeeds after the end", true, []plant.Edit{
		{In: "BeginEffect", Old: "case e.ended:", New: "case e.ended: return nil; case e.late:"},
	}, []string{"effect-elsewhere/2"}},
	{"NoEffect takes back more than has begun", false, []plant.Edit{
		{In: "NoEffect", Old: "if e.begun > 0 { e.begun-- }", New: "e.begun--"},
	}, []string{"effect/2"}},
	{"who looks for room evicts the outcome of his own key", false, []plant.Edit{
		{In: "(*Cache).evict", Old: "case first == key: return true", New: ""},
	}, []string{"evict-same/2"}},
	{"who evicts does not look again whether it is protected", false, []plant.Edit{
		{In: "(*Cache).evict", Old: "!c.unprotected(done, now)", New: "done == forever"},
	}, []string{"protect/3"}},
	{"a call that found no place does not look at its key again", false, []plant.Edit{
		{In: "(*Cache).meet", Old: "none, upTo = c.makeRoom(key, &m.notes)", New: "if none, upTo = c.makeRoom(key, &m.notes); none { s.mu.Lock(); s.stats.Full++; m.kind, m.err = EventRejected, ErrFull; break }"},
	}, []string{"full-same/2"}},
	{"a claim does not look at what was kept since its first look", false, []plant.Edit{
		{In: "(*Cache).meet", Old: "s.kept.puts != puts", New: "false"},
	}, []string{"do/2"}},
	{"a claim reads whether the cache is closed before it has the lock", true, []plant.Edit{
		{In: "(*Cache).meet", Old: `yield.At("meet"); s.mu.Lock(); mayLead := me.err == nil && !c.closed.Load()`, New: `mayLead := me.err == nil && !c.closed.Load(); yield.At("meet"); s.mu.Lock()`},
	}, []string{"close/2"}},
	{"the timer that stops does not look at the places again", true, []plant.Edit{
		{In: "(*Cache).disarm", Old: "if c.places.Load() > 0 { c.rearm() }", New: ""},
	}, []string{"disarm/2"}},
	{"the timer that has fired is not set again", false, []plant.Edit{
		{In: "(*Cache).reclaim", Old: "defer c.rearm()", New: "_ = c.rearm"},
	}, []string{"expiry-keys/3"}},
	{"of two operators who resolve both act", false, []plant.Edit{
		{In: "(*Cache).Resolve", Old: "return c.heldLocked(s, key, &x.notes) == held", New: "c.heldLocked(s, key, &x.notes); return true"},
	}, []string{"resolve/2"}},
	{"Restore does not look at the key again before it puts the entry in", false, []plant.Edit{
		{In: "(*Cache).Restore", Old: "return err == nil", New: "err = nil; return true"},
	}, []string{"restore/3"}},
	{"what leaves a shard stays where it is replayed without a lock", true, []plant.Edit{
		{In: "(*kept).remove", Old: "f.flags.Load()&hot != 0", New: "false"},
	}, []string{"hot/2"}},
	{"a replay without a lock does not look at the clock", false, []plant.Edit{
		{In: "(*Cache).lookHot", Old: "|| r.expired(c.now())", New: ""},
	}, []string{"hot-expiry/2"}},
	{"a replay without a lock does not look at the fingerprint", false, []plant.Edit{
		{In: "(*Cache).lookHot", Old: "r.record == nil || r.fingerprint() != o.fp", New: "r.record == nil"},
	}, []string{"hot-fingerprints/2"}},
	{"a reconciled flight that learned nothing gives its place back", false, []plant.Edit{
		{In: "(*Cache).settle", Old: "s.stats.Holds++", New: "s.stats.Holds++; if e.reconciling { c.giveBack() }"},
	}, []string{"reconcile-nothing/2"}},
}

// settlesUnseen lets a flight settle that others have taken out.
var settlesUnseen = plant.Edit{In: "(*Cache).settle", Old: "s.pending[f.key] != f", New: "false"}

// TestFaultsAreOfThisSource also tries the faults that the long run alone plants.
func TestFaultsAreOfThisSource(t *testing.T) {
	library, err := plant.Load("../..")
	require.NoError(t, err)
	checker, err := plant.NewChecker("../..")
	require.NoError(t, err)
	for _, f := range faults {
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
	for _, f := range faults {
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
