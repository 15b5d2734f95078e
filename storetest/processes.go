package storetest

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// RunProcesses tests that caches in several processes keep their promises over a Store when the
// processes die, or are paused. binary is a program by the store's author that calls [Worker]; it
// is started many times, with args and the environment of the test. Call [Run] first, which tests
// the same Store within one process.
//
//   - Killed: which answers another process gets, and which effects there are, while an owner
//     lives, and after kill -9 at each step of its call.
//   - Paused: an owner is stopped for longer than its lease. If it was replaced, it neither begins
//     nor settles; if not, it does both, late. A pause between BeginEffect and the effect is left
//     out: nobody can promise anything about it.
//   - Storm: two processes at a time are killed 60 to 260 ms after they have opened the store,
//     until a last one, which is not killed, has an answer for every key: no effect comes twice,
//     and every answer is what was effected.
//
// A Store whose leases end with the process (its ExpiresIn is negative) is taken to be for one
// process at a time: then only one worker lives at a time, and while it does, another one must get
// an error from open, or find its keys in flight.
//
// It takes about 10 s, and some 30 processes. The environment variable IDEMFLIGHT_KILLS sets how
// often the storm kills (by default 20 times, with -short 8). If it is set, one child in five is
// paused for longer than its lease before it is killed, and a storm without BeginEffect follows,
// which must show effects that come twice: this proves that the storm would find them.
// IDEMFLIGHT_FAILING=20 lets 20 of 1,000 verbs fail in the storm's workers, before or after they
// act. IDEMFLIGHT_RESTART is a shell command that kills the engine and starts it again; the storm
// runs it every few seconds. Leases last 1 or 2 s: an engine that takes a second for a verb fails
// the tests. Keys are random, and stay in the engine for an hour. Where processes cannot be paused
// (Windows), none is.
func RunProcesses(t *testing.T, binary string, args ...string) {
	f := &fleet{binary: binary, args: args, lease: 2 * time.Second}
	f.bound = f.probe(t)
	t.Run("Killed", f.killed)
	t.Run("Paused", f.paused)
	kills, long := killsWanted(t)
	t.Run("Storm", func(t *testing.T) { f.storm(t, kills) })
	if long {
		t.Run("StormWithoutBegin", func(t *testing.T) { f.control(t, kills) })
	}
}

// fleet starts workers.
type fleet struct {
	binary  string
	args    []string
	lease   time.Duration
	effects *ledger // of the test that runs
	bound   bool    // leases end with the process alone, and so does the right to open the store
}

// child is a worker that was started.
type child struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr bytes.Buffer  // to be read once it has ended
	ended  chan struct{} // closed once it is dead, and all that it told is in reports

	// Guarded by mu; arrived has room for one.
	mu      sync.Mutex
	reports []report
	hear    func(report) bool // takes reports before they come into reports
	arrived chan struct{}
}

func (f *fleet) newLedger(t *testing.T) {
	t.Helper()
	var err error
	f.effects, err = openLedger(filepath.Join(t.TempDir(), "effects"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.effects.file.Close() })
}

// launch starts a worker, which may not be able to open the store.
func (f *fleet) launch(s setting) (*child, error) {
	s.Effects, s.Lease = f.effects.path, f.lease
	told, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(f.binary, f.args...), ended: make(chan struct{}), arrived: make(chan struct{}, 1)}
	c.cmd.Env = append(os.Environ(), workerVariable+"="+string(told))
	c.cmd.Stderr = &c.stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go c.listen(stdout)
	return c, nil
}

// listen reads what c tells until it is dead.
func (c *child) listen(stdout io.Reader) {
	defer close(c.ended)
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		text, mine := strings.CutPrefix(lines.Text(), linePrefix)
		var r report
		if !mine || json.Unmarshal([]byte(text), &r) != nil {
			continue
		}
		c.mu.Lock()
		if c.hear == nil || !c.hear(r) {
			c.reports = append(c.reports, r)
		}
		c.mu.Unlock()
		select {
		case c.arrived <- struct{}{}:
		default:
		}
	}
	_ = c.cmd.Wait()
}

// kill ends c as kill -9 does, and returns when it is dead.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.ended
}

func (c *child) send(o order) {
	b, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	_, _ = c.stdin.Write(append(b, '\n')) // if it is dead that shows when it is to answer
}

// hears returns the first report of c that match accepts, or an error if c dies or too much time
// passes. One goroutine may wait at a time.
func (c *child) hears(what string, match func(report) bool) (report, error) {
	tooLate := time.NewTimer(patience)
	defer tooLate.Stop()
	for ended := false; ; {
		c.mu.Lock()
		i := slices.IndexFunc(c.reports, match)
		if i >= 0 {
			r := c.reports[i]
			c.reports = slices.Delete(c.reports, i, i+1)
			c.mu.Unlock()
			return r, nil
		}
		others := slices.Clone(c.reports)
		c.mu.Unlock()
		if ended {
			return report{}, fmt.Errorf("waited for %s, but the worker ended: %v\n%s", what, c.cmd.ProcessState, c.stderr.Bytes())
		}
		select {
		case <-c.arrived:
		case <-c.ended:
			ended = true
		case <-tooLate.C:
			return report{}, fmt.Errorf("waited %v for %s; the worker said %+v", patience, what, others)
		}
	}
}

// begin starts a worker that opens the store.
func (f *fleet) begin(s setting) (*child, error) {
	c, err := f.launch(s)
	if err != nil {
		return nil, err
	}
	r, err := c.hears("the store to be open", func(r report) bool { return r.Step == ready || r.Step == failed })
	if err == nil && r.Step == failed {
		err = fmt.Errorf("a worker could not open the store: %s", r.Err)
	}
	if err != nil {
		c.kill()
		return nil, err
	}
	return c, nil
}

// start is begin, for the test's own goroutine.
func (f *fleet) start(t *testing.T) *child {
	t.Helper()
	return f.startAs(t, setting{})
}

func (f *fleet) startAs(t *testing.T, s setting) *child {
	t.Helper()
	c, err := f.begin(s)
	require.NoError(t, err)
	t.Cleanup(c.kill)
	return c
}

// reaches waits until c reports that the call of key is at that step.
func (c *child) reaches(t *testing.T, key string, at step) report {
	t.Helper()
	r, err := c.hears(fmt.Sprintf("%q to be %s", key, at), func(r report) bool {
		return r.Key == key && (r.Step == at || r.Step == answered)
	})
	require.NoError(t, err)
	require.Equal(t, at, r.Step, "the call of %q was answered already: %+v", key, r)
	return r
}

func (f *fleet) probe(t *testing.T) (bound bool) {
	t.Helper()
	f.newLedger(t)
	c := f.start(t)
	defer c.kill()
	c.send(order{Do: probe})
	r, err := c.hears("an answer", func(r report) bool { return r.Step == probed })
	require.NoError(t, err)
	require.Empty(t, r.Err)
	return r.Bound
}

// effectsOf returns the values that were effected for key.
func (f *fleet) effectsOf(key string) (values []string) {
	for _, l := range f.effects.lines() {
		if l.kind == effect && l.key == key {
			values = append(values, l.value)
		}
	}
	return values
}

// ordeal is one key, whose first call is struck by something, and what must become of it.
type ordeal struct {
	name   string
	key    string
	mode   mode // of the second caller; the first has a Reconcile where it needs one
	stopAt step
	before step   // of an earlier owner, which died there; "" if there was none
	holdAt step   // where the second caller stops until the first has ended; "" if it does not
	wants  string // what the second caller is told
	writes string // who has effected, once it has been told; "" if nobody
}

// What a caller is told, and who effects: values of the executions of the first, the second
// and the earlier owner.
const (
	first   = "first"
	second  = "second"
	earlier = "earlier"
	unknown = "unknown"
)

// deaths are what the first caller can be killed at.
func deaths() (all []*ordeal) {
	for _, m := range []mode{{false, false}, {false, true}, {true, false}, {true, true}} {
		add := func(at, before step, wants, writes string) {
			name := string(at)
			if before != "" {
				name += ", of one who died " + string(before)
			}
			all = append(all, &ordeal{
				name: fmt.Sprintf("%s, announced %v, Reconcile %v", name, m.Announced, m.Reconcile), key: newKey(),
				mode: m, stopAt: at, before: before, wants: wants, writes: writes,
			})
		}
		runs := m.Announced || m.Reconcile // who has begun nothing: the next one runs
		for _, at := range []step{claimSent, beforeBegin} {
			if runs {
				add(at, "", second, second)
			} else {
				add(at, "", unknown, "")
			}
		}
		if m.Reconcile {
			add(afterBegin, "", second, second)
			add(afterEffect, "", first, first)
			add(reconciling, afterBegin, second, second)
			add(reconciling, afterEffect, earlier, earlier)
		} else {
			add(afterBegin, "", unknown, "")
			add(afterEffect, "", unknown, first)
			add(reconciling, afterBegin, unknown, "")
			add(reconciling, afterEffect, unknown, earlier)
		}
		add(afterSettle, "", first, first)
	}
	return all
}

func newKey() string { return rand.Text() }

// killed kills one worker in the middle of many calls, at each step, and asks another one.
func (f *fleet) killed(t *testing.T) {
	f.newLedger(t)
	ordeals := deaths()
	owner := f.start(t)
	for _, o := range ordeals {
		if o.before != "" {
			owner.send(order{Do: call, Key: o.key, Value: earlier, Mode: o.mode, StopAt: o.before})
		}
	}
	for _, o := range ordeals {
		if o.before != "" {
			owner.reaches(t, o.key, o.before)
		}
	}
	owner.kill()

	owner = f.start(t)
	for _, o := range ordeals {
		m := o.mode
		m.Reconcile = m.Reconcile || o.stopAt == reconciling
		owner.send(order{Do: call, Key: o.key, Value: first, Mode: m, StopAt: o.stopAt})
	}
	for _, o := range ordeals {
		owner.reaches(t, o.key, o.stopAt)
	}
	var other *child
	if !f.bound {
		other = f.start(t)
		f.leaveAlone(t, other, ordeals)
	}
	owner.kill()
	if f.bound {
		other = f.start(t)
	}
	for range 2 { // what has been told once is told again
		for _, o := range ordeals {
			other.send(order{Do: call, Key: o.key, Value: second, Mode: o.mode})
		}
		for _, o := range ordeals {
			t.Run(o.name, func(t *testing.T) {
				f.check(t, o, other.reaches(t, o.key, answered))
			})
		}
	}
}

// leaveAlone asserts that other finds the keys in flight as long as their owner lives. Whoever
// waits for an answer to its claim renews nothing yet, so its lease may be over by now.
func (f *fleet) leaveAlone(t *testing.T, other *child, ordeals []*ordeal) {
	t.Helper()
	alive := slices.DeleteFunc(slices.Clone(ordeals), func(o *ordeal) bool { return o.stopAt == claimSent || o.stopAt == afterSettle })
	for _, o := range alive {
		other.send(order{Do: call, Key: o.key, Value: second, Mode: o.mode, MaxWait: idemflight.NoWait})
	}
	for _, o := range alive {
		t.Run(o.name+", while the owner lives", func(t *testing.T) {
			r := other.reaches(t, o.key, answered)
			require.Equal(t, []string{"in flight"}, r.Is, "must be told that it is in flight, and was told %q, %s", r.Value, r.Err)
		})
	}
}

// check asserts that the second caller was told what it must be, and that there are the
// effects that must be.
func (f *fleet) check(t *testing.T, o *ordeal, r report) {
	t.Helper()
	if o.wants == unknown {
		require.Equal(t, []string{"unknown", "interrupted"}, r.Is, "must be told that the outcome is unknown, and was told %q, %s", r.Value, r.Err)
	} else {
		require.Empty(t, r.Err, "must be told the value of the %s execution", o.wants)
		require.Equal(t, o.wants, r.Value, "must be told the value of this execution")
	}
	f.checkEffects(t, o)
}

func (f *fleet) checkEffects(t *testing.T, o *ordeal) {
	t.Helper()
	var want []string
	if o.writes != "" {
		want = []string{o.writes}
	}
	require.Equal(t, want, f.effectsOf(o.key), "the effects, by the executions that had them")
}

// pauses are what the first caller can be paused at: those in which the second one replaces it, and
// those in which it finds that the lease is over, and changes nothing.
func pauses() (replaced, spared []*ordeal) {
	add := func(to *[]*ordeal, name string, m mode, at step, wants, writes string) {
		*to = append(*to, &ordeal{name: name, key: newKey(), mode: m, stopAt: at, wants: wants, writes: writes})
	}
	announced, neither := mode{Announced: true}, mode{}
	add(&replaced, "replaced before Begin, announced", announced, beforeBegin, second, second)
	add(&replaced, "replaced before Begin, by Reconcile", mode{Reconcile: true}, beforeBegin, second, second)
	add(&replaced, "replaced before Settle", mode{Reconcile: true}, afterEffect, first, first)
	add(&replaced, "replaced before Settle, announced", mode{true, true}, afterEffect, first, first)
	add(&replaced, "replaced before Begin by one who runs", announced, beforeBegin, second, second)
	replaced[len(replaced)-1].holdAt = beforeBegin
	add(&replaced, "replaced before Begin by one who finds out", mode{Reconcile: true}, beforeBegin, second, second)
	replaced[len(replaced)-1].holdAt = reconciling
	add(&replaced, "replaced before Settle by one who finds out", mode{true, true}, afterEffect, first, first)
	replaced[len(replaced)-1].holdAt = reconciling
	add(&spared, "not replaced, claimed", neither, beforeBegin, unknown, "")
	add(&spared, "not replaced, after the effect", neither, afterEffect, unknown, first)
	add(&spared, "not replaced, after the effect, announced", announced, afterEffect, unknown, first)
	return replaced, spared
}

// paused stops two workers for longer than their leases: one that renews them when it wakes, and so
// may learn from that what has become of them, and one whose renewals fail, so that Begin and
// Settle are the first to ask.
func (f *fleet) paused(t *testing.T) {
	if !canPause {
		t.Skip("processes cannot be paused here")
	}
	f.newLedger(t)
	if f.bound {
		f.pausedBound(t)
		return
	}
	owners := []*sleeper{newSleeper(f.start(t), "renews"), newSleeper(f.startAs(t, setting{NoRenew: true}), "cannot renew")}
	other := f.start(t)
	for _, s := range owners {
		s.callAll(s.child, first)
	}
	for _, s := range owners {
		for _, o := range s.all() {
			s.reaches(t, o.key, o.stopAt)
		}
		require.NoError(t, pause(s.cmd.Process))
	}
	for _, s := range owners {
		for _, o := range s.met() {
			other.send(order{Do: call, Key: o.key, Value: second, Mode: o.mode, StopAt: o.holdAt})
		}
	}
	for _, s := range owners {
		for _, o := range s.met() {
			t.Run(s.name+"/"+o.name+", while it is paused", func(t *testing.T) {
				if o.holdAt != "" {
					other.reaches(t, o.key, o.holdAt)
				} else {
					f.check(t, o, other.reaches(t, o.key, answered))
				}
			})
		}
		other.untilFree(t, s.free)
	}
	for _, s := range owners {
		require.NoError(t, resume(s.cmd.Process))
		for _, o := range s.all() {
			s.send(order{Do: letGo, Key: o.key})
		}
	}
	for _, s := range owners {
		for _, o := range s.replaced {
			t.Run(s.name+"/"+o.name+", the owner is refused", func(t *testing.T) {
				r := s.reaches(t, o.key, answered)
				if o.holdAt != "" {
					other.send(order{Do: letGo, Key: o.key})
				}
				require.Contains(t, r.Is, "lost", "it was told %q, %s", r.Value, r.Err)
				require.Equal(t, o.stopAt == afterEffect, slices.Contains(r.Is, "unknown"), "unknown if it had begun: it was told %s", r.Err)
				if o.holdAt != "" {
					f.check(t, o, other.reaches(t, o.key, answered))
				}
				f.checkEffects(t, o)
			})
		}
		for _, o := range append(s.spared, s.free) {
			t.Run(s.name+"/"+o.name+", the owner settles late", func(t *testing.T) {
				r := s.reaches(t, o.key, answered)
				o.wants, o.writes = first, first
				f.check(t, o, r)
			})
		}
		for _, c := range []*child{s.child, other} {
			s.callAll(c, "third")
			for _, o := range s.all() {
				t.Run(s.name+"/"+o.name+", all are told the same", func(t *testing.T) { f.check(t, o, c.reaches(t, o.key, answered)) })
			}
		}
	}
}

// sleeper is an owner that is paused, and the keys that it owns then.
type sleeper struct {
	*child
	name             string
	replaced, spared []*ordeal
	free             *ordeal // that nobody else calls
}

func newSleeper(c *child, name string) *sleeper {
	s := &sleeper{child: c, name: name, free: &ordeal{
		name: "not replaced, claimed, announced", key: newKey(), mode: mode{Announced: true}, stopAt: beforeBegin,
	}}
	s.replaced, s.spared = pauses()
	return s
}

func (s *sleeper) met() []*ordeal { return slices.Concat(s.replaced, s.spared) }
func (s *sleeper) all() []*ordeal { return append(s.met(), s.free) }

// callAll has c call all keys. Only the owner stops.
func (s *sleeper) callAll(c *child, value string) {
	for _, o := range s.all() {
		ordered := order{Do: call, Key: o.key, Value: value, Mode: o.mode}
		if value == first {
			ordered.StopAt = o.stopAt
		}
		c.send(ordered)
	}
}

// untilFree waits until the lease of o is over.
func (c *child) untilFree(t *testing.T, o *ordeal) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		c.send(order{Do: lookUp, Key: o.key, Mode: o.mode})
		r := c.reaches(t, o.key, lookedUp)
		require.Empty(t, r.Err)
		if r.State == idemflight.Absent {
			return
		}
		require.Equal(t, idemflight.InFlight, r.State)
		require.Less(t, time.Since(start), patience, "waited for the lease of a paused owner to end")
	}
}

// pausedBound stops a worker whose leases do not end: nobody else runs, or is told anything.
func (f *fleet) pausedBound(t *testing.T) {
	owner := f.start(t)
	key := newKey()
	owner.send(order{Do: call, Key: key, Value: first, StopAt: afterEffect})
	owner.reaches(t, key, afterEffect)
	require.NoError(t, pause(owner.cmd.Process))
	other, err := f.launch(setting{})
	require.NoError(t, err)
	t.Cleanup(other.kill)
	r, err := other.hears("an answer of open", func(r report) bool { return r.Step == ready || r.Step == failed })
	require.NoError(t, err)
	if r.Step == ready {
		other.send(order{Do: call, Key: key, Value: second, MaxWait: idemflight.NoWait})
		r = other.reaches(t, key, answered)
		require.Equal(t, []string{"in flight"}, r.Is, "while the owner is paused: %+v", r)
	} else {
		t.Log("as it must, while another process has it, open says:", r.Err)
	}
	other.kill()
	require.NoError(t, resume(owner.cmd.Process))
	owner.send(order{Do: letGo, Key: key})
	o := &ordeal{key: key, wants: first, writes: first}
	f.check(t, o, owner.reaches(t, key, answered))
	owner.kill()
	other = f.start(t)
	other.send(order{Do: call, Key: key, Value: second})
	f.check(t, o, other.reaches(t, key, answered))
}
