package explore

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// edit replaces what occurs exactly once in a file of the library.
type edit struct{ file, old, new string }

// faults are mistakes in the library, each with the scenarios of which at least one has to show it.
// Some need the points' package to stop between two halves of what was one critical section.
var faults = []struct {
	name  string
	quick bool // planted also without -long
	edits []edit
	by    []string
}{
	{"a flight is retired in one critical section, and its outcome published in the next", true, []edit{
		{"settle.go", "\to := &f.outcome\n", "\tif x.disposition == Retain {\n\t\tdelete(s.pending, f.key)\n\t\ts.mu.Unlock()\n\t\tyield.At(\"fault\")\n\t\ts.mu.Lock()\n\t}\n\to := &f.outcome\n"},
	}, []string{"do/2"}},
	{"Forget takes the flight out, whose end then deletes whatever is there", true, []edit{
		{"cache.go", "\t\tf.forgotten = true\n", "\t\tf.forgotten = true\n\t\tdelete(s.pending, key)\n"},
		settlesUnseen,
	}, []string{"forget/3"}},
	{"a waiter's leaving removes the key", true, []edit{
		{"call.go", "\t\tf.waiters--\n\t\ts.waiters--\n", "\t\tf.waiters--\n\t\ts.waiters--\n\t\tdelete(s.pending, f.key)\n"},
		settlesUnseen,
	}, []string{"leave-joined/3"}},
	{"a leader's leaving removes the key", false, []edit{
		{"call.go", "\t\tf.leaderLeft = true\n", "\t\tf.leaderLeft = true\n\t\tdelete(s.pending, f.key)\n"},
		settlesUnseen,
	}, []string{"leave-leader/2"}},
	{"a leader's leaving cancels fn", false, []edit{
		{"flight.go", "func (e *execution) errLocked() error {\n", "func (e *execution) errLocked() error {\n\tif err := e.leader.Err(); err != nil {\n\t\treturn err\n\t}\n"},
	}, []string{"leave-leader/2"}},
	{"who leaves does not look whether the flight has settled", false, []edit{
		{"call.go", "\tif f.settled {\n\t\treturn false\n\t}\n", ""},
	}, []string{"leave-joined/3"}},
	{"an outcome is stored after Forget", true, []edit{
		{"settle.go", "!f.forgotten && ttl > 0", "ttl > 0"},
	}, []string{"forget/2"}},
	{"an unknown outcome is forgotten with the value", false, []edit{
		{"settle.go", "if x.disposition == Retain && !retain {", "if !retain && (x.disposition == Retain || f.forgotten) {"},
	}, []string{"forget-unknown/2"}},
	{"a release does not give its place back", false, []edit{
		{"settle.go", "\tcase Release:\n\t\tc.giveBack()\n", "\tcase Release:\n"},
	}, []string{"fails/2"}},
	{"Forget gives the place back after the record is gone", true, []edit{
		{"cache.go", "\t\tc.giveBack()\n\t\tc.removeLocked(s, key, r)\n", "\t\tc.removeLocked(s, key, r)\n\t\tdefer c.giveBack()\n\t\tdefer yield.At(\"fault\")\n"},
	}, []string{"evict-forget/2"}},
	{"the place of an expired record is given back, and kept as well", false, []edit{
		{"call.go", "\t\t\t\thasPlace = true ", "\t\t\t\tc.giveBack()\n\t\t\t\thasPlace = true "},
	}, []string{"full-expiry/2"}},
	{"BeginEffect succeeds after the end", true, []edit{
		{"effect.go", "\tcase e.ended:\n", "\tcase e.ended:\n\t\treturn nil\n\tcase e.late:\n"},
	}, []string{"effect-elsewhere/2"}},
	{"NoEffect takes back more than has begun", false, []edit{
		{"effect.go", "\te.spoke = true\n\tif e.begun > 0 {\n\t\te.begun--\n\t}\n", "\te.spoke = true\n\te.begun--\n"},
	}, []string{"effect/2"}},
	{"who looks for room evicts the outcome of his own key", false, []edit{
		{"room.go", "\tcase first == key:\n\t\treturn true\n", ""},
	}, []string{"evict-same/2"}},
	{"who evicts does not look again whether it is protected", false, []edit{
		{"room.go", "case f.record == nil || !c.unprotected(done, now):", "case f.record == nil || done == forever:"},
	}, []string{"protect/3"}},
	{"a call that found no place does not look at its key again", false, []edit{
		{"call.go", "\t\tnone, upTo = c.makeRoom(key, &m.notes)\n", "\t\tif none, upTo = c.makeRoom(key, &m.notes); none {\n\t\t\ts.mu.Lock()\n\t\t\ts.stats.Full++\n\t\t\tm.kind, m.err = EventRejected, ErrFull\n\t\t\tbreak\n\t\t}\n"},
	}, []string{"full-same/2"}},
	{"a claim does not look at what was kept since its first look", false, []edit{
		{"call.go", "if s.kept.puts != puts {", "if false {"},
	}, []string{"do/2"}},
	{"a claim reads whether the cache is closed before it has the lock", true, []edit{
		{"call.go", "\t\tyield.At(\"meet\")\n\t\ts.mu.Lock()\n\t\tmayLead := me.err == nil && !c.closed.Load()\n", "\t\tmayLead := me.err == nil && !c.closed.Load()\n\t\tyield.At(\"meet\")\n\t\ts.mu.Lock()\n"},
	}, []string{"close/2"}},
	{"the timer that stops does not look at the places again", true, []edit{
		{"reclaim.go", "\tif c.places.Load() > 0 {\n\t\tc.rearm()\n\t}\n", ""},
	}, []string{"disarm/2"}},
	{"the timer that has fired is not set again", false, []edit{
		{"reclaim.go", "\tdefer c.rearm() ", "\t_ = c.rearm "},
	}, []string{"expiry-keys/3"}},
	{"of two operators who resolve both act", false, []edit{
		{"settle.go", "return c.heldLocked(s, key, &x.notes) == held }", "c.heldLocked(s, key, &x.notes); return true }"},
	}, []string{"resolve/2"}},
	{"Restore does not look at the key again before it puts the entry in", false, []edit{
		{"restore.go", "return err == nil }", "err = nil; return true }"},
	}, []string{"restore/3"}},
	{"what leaves a shard stays where it is replayed without a lock", true, []edit{
		{"ttl.go", "if f.flags.Load()&hot != 0 {", "if false {"},
	}, []string{"hot/2"}},
	{"a replay without a lock does not look at the clock", false, []edit{
		{"cache.go", "r.fingerprint() != o.fp || r.expired(c.now()) {\n\t\treturn", "r.fingerprint() != o.fp {\n\t\treturn"},
	}, []string{"hot-expiry/2"}},
	{"a replay without a lock does not look at the fingerprint", false, []edit{
		{"cache.go", "r.record == nil || r.fingerprint() != o.fp || r.expired(c.now()) {\n\t\treturn", "r.record == nil || r.expired(c.now()) {\n\t\treturn"},
	}, []string{"hot-fingerprints/2"}},
	{"a reconciled flight that learned nothing gives its place back", false, []edit{
		{"settle.go", "\t\ts.stats.Holds++\n", "\t\ts.stats.Holds++\n\t\tif e.reconciling {\n\t\t\tc.giveBack()\n\t\t}\n"},
	}, []string{"reconcile-nothing/2"}},
}

// settlesUnseen lets a flight settle that others have taken out.
var settlesUnseen = edit{"settle.go", "\tif s.pending[f.key] != f {\n\t\tpanic(\"idemflight: bug, please report it: a flight was not pending when it settled\")\n\t}\n", ""}

// Also of those that are planted by the long run alone.
func TestFaultsAreOfThisSource(t *testing.T) {
	for _, f := range faults {
		edited := map[string]string{}
		for i, e := range f.edits {
			if edited[e.file] == "" {
				text, err := os.ReadFile(filepath.Join("../..", e.file))
				require.NoError(t, err)
				edited[e.file] = string(text)
			}
			require.Equal(t, 1, strings.Count(edited[e.file], e.old), "%s: edit %d: %s has to contain this exactly once:\n%s", f.name, i, e.file, e.old)
			edited[e.file] = strings.Replace(edited[e.file], e.old, e.new, 1)
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
	found, planted := 0, 0
	t.Cleanup(func() { t.Logf("%d of %d faults found", found, planted) })
	for _, f := range faults {
		if !f.quick && !*long {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			planted++
			dir := t.TempDir()
			overlay := map[string]string{}
			for i, e := range f.edits {
				path := filepath.Join(root, e.file)
				from := path
				if copied := overlay[path]; copied != "" {
					from = copied
				}
				text, err := os.ReadFile(from)
				require.NoError(t, err)
				require.Equal(t, 1, strings.Count(string(text), e.old),
					"edit %d: %s has to contain this exactly once:\n%s\nThe library has changed: bring the fault up to date.", i, e.file, e.old)
				overlay[path] = filepath.Join(dir, e.file)
				require.NoError(t, os.WriteFile(overlay[path], []byte(strings.Replace(string(text), e.old, e.new, 1)), 0o666))
			}
			text, err := json.Marshal(map[string]any{"Replace": overlay})
			require.NoError(t, err)
			list, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "explore.test")
			require.NoError(t, os.WriteFile(list, text, 0o666))
			out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-overlay", list, "-o", binary, ".").CombinedOutput()
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
