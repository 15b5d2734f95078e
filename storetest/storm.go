package storetest

import (
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Of a storm. A child lives for as long as it takes to begin a few executions, or a few hundred.
const (
	atOnce    = 2   // children, if the store is for more than one
	callers   = 8   // in each
	openKeys  = 100 // at least so many keys have no answer while children are killed
	moreKeys  = 100 // so many are added at a time
	sample    = 20  // of the keys that are done are asked again by each child
	shortest  = 60 * time.Millisecond
	longest   = 260 * time.Millisecond
	mostShown = 10 // of what is wrong

	pausedOnceIn = 5 // kills, if that is asked for
)

// killsWanted returns how often a storm kills, and whether that was asked for.
func killsWanted(t *testing.T) (kills int, long bool) {
	t.Helper()
	if text := os.Getenv("IDEMFLIGHT_KILLS"); text != "" {
		kills, err := strconv.Atoi(text)
		require.NoError(t, err, "IDEMFLIGHT_KILLS")
		return kills, true
	}
	if testing.Short() {
		return 8, false
	}
	return 20, false
}

// failingWanted returns how many of 1,000 verbs are to fail in a storm.
func failingWanted(t *testing.T) (failing int) {
	t.Helper()
	if text := os.Getenv("IDEMFLIGHT_FAILING"); text != "" {
		var err error
		failing, err = strconv.Atoi(text)
		require.NoError(t, err, "IDEMFLIGHT_FAILING")
	}
	return failing
}

// restarts runs the command in IDEMFLIGHT_RESTART, if there is one, over and over: it kills the
// engine, and starts it again. It returns what to call in the end, which says how often that was.
func restarts(t *testing.T) (stop func() int) {
	t.Helper()
	command := os.Getenv("IDEMFLIGHT_RESTART")
	if command == "" {
		return func() int { return 0 }
	}
	end, done := make(chan struct{}), make(chan struct{})
	n := 0
	go func() {
		defer close(done)
		for {
			select {
			case <-end:
				return
			case <-time.After(time.Second + mathrand.N(2*time.Second)):
			}
			if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
				t.Errorf("IDEMFLIGHT_RESTART: %v\n%s", err, out)
				return
			}
			n++
		}
	}()
	return func() int { close(end); <-done; return n }
}

// tempest is a storm that goes on.
type tempest struct {
	f         *fleet
	unguarded bool
	failing   int  // of 1,000 verbs
	restarts  int  // of the engine
	pausing   bool // children are paused, too

	mu      sync.Mutex
	keys    []string                  // all
	open    []string                  // those that nobody was told a value of
	values  map[string]map[string]int // how often each value was told, by key
	errs    map[string]int            // how often each error was told
	strange []string                  // what no caller may be told
	kills   int
	pauses  int // before a kill, for longer than a lease
	left    int // kills that are to come
}

func (s *tempest) hear(r report) bool {
	if r.Step != answered {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.Err == "":
		if s.values[r.Key] == nil {
			s.values[r.Key] = make(map[string]int)
			if i := slices.Index(s.open, r.Key); i >= 0 {
				s.open = slices.Delete(s.open, i, i+1)
			}
		}
		s.values[r.Key][r.Value]++
	case len(r.Is) == 0:
		s.strange = append(s.strange, r.Err)
	default:
		s.errs[fmt.Sprint(r.Is)]++
	}
	return true
}

// next returns what a child is to do: first what has no answer. It is nil if all have one, and
// there is no kill to come.
func (s *tempest) next() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.left > 0 && len(s.open) < openKeys {
		for range moreKeys {
			key := newKey()
			s.keys, s.open = append(s.keys, key), append(s.open, key)
		}
	}
	if len(s.open) == 0 {
		return nil
	}
	keys := slices.Clone(s.open)
	for range sample {
		keys = append(keys, s.keys[mathrand.IntN(len(s.keys))])
	}
	return keys
}

// life starts a child, lets it work, and kills it.
func (s *tempest) life() error {
	c, err := s.f.begin(setting{Failing: s.failing})
	for patient := time.Now().Add(patience); err != nil && os.Getenv("IDEMFLIGHT_RESTART") != "" && time.Now().Before(patient); {
		c, err = s.f.begin(setting{Failing: s.failing}) // the engine was down
	}
	if err != nil {
		return err
	}
	defer c.kill()
	c.mu.Lock()
	c.hear = s.hear
	c.mu.Unlock()
	over := time.AfterFunc(shortest+mathrand.N(longest-shortest), func() {
		if s.pausing && mathrand.IntN(pausedOnceIn) == 0 {
			s.pause(c)
		}
		_ = c.cmd.Process.Kill()
	})
	defer over.Stop()
	for keys := s.next(); keys != nil; keys = s.next() {
		c.send(order{Do: storm, Keys: keys, Callers: callers, Unguarded: s.unguarded})
		if _, err := c.hears("keys", func(r report) bool { return r.Step == passed }); err != nil {
			break // as it should
		}
	}
	<-c.ended
	if status := c.cmd.ProcessState; status.Exited() {
		return fmt.Errorf("a worker ended by itself: %v\n%s", status, c.stderr.Bytes())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kills++
	return nil
}

// pause stops a child until others have taken over what it has claimed, and lets it go on for a moment: it is late, and
// does not know. An effect of which it says itself that it came late has been said by then.
func (s *tempest) pause(c *child) {
	if err := pause(c.cmd.Process); err != nil {
		return // it has ended
	}
	time.Sleep(s.f.lease + mathrand.N(s.f.lease))
	_ = resume(c.cmd.Process)
	time.Sleep(shortest + mathrand.N(shortest))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pauses++
}

// rage kills children until that is enough, and then lets one live until all keys have an answer.
func (f *fleet) rage(t *testing.T, kills int, unguarded bool) *tempest {
	t.Helper()
	f.newLedger(t)
	f.lease = time.Second
	_, long := killsWanted(t)
	s := &tempest{
		f: f, unguarded: unguarded, left: kills, failing: failingWanted(t), pausing: long && canPause && !f.bound,
		values: make(map[string]map[string]int), errs: make(map[string]int),
	}
	n := atOnce
	if f.bound {
		n = 1
	}
	stop := restarts(t)
	errs := make(chan error, n)
	for range n {
		go func() {
			for {
				s.mu.Lock()
				enough := s.left <= 0
				if !enough {
					s.left--
				}
				s.mu.Unlock()
				if enough {
					errs <- nil
					return
				}
				if err := s.life(); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if s.restarts = stop(); t.Failed() {
		t.FailNow()
	}
	for keys := s.next(); keys != nil; keys = s.next() { // once, unless the worker has an error
		s.calm(t, keys)
	}
	s.calm(t, s.keys) // by one who knows nothing
	return s
}

// calm has a child of which nobody is killed call keys.
func (s *tempest) calm(t *testing.T, keys []string) {
	t.Helper()
	c := s.f.start(t)
	defer c.kill()
	c.mu.Lock()
	c.hear = s.hear
	c.mu.Unlock()
	for some := range slices.Chunk(keys, moreKeys) {
		c.send(order{Do: storm, Keys: some, Callers: 2, Unguarded: s.unguarded})
		_, err := c.hears("keys to have an answer", func(r report) bool { return r.Step == passed })
		if err != nil {
			s.mu.Lock()
			t.Logf("%d keys, %d without an answer, errors %v", len(s.keys), len(s.open), s.errs)
			s.mu.Unlock()
		}
		require.NoError(t, err)
	}
}

// verdict is what a storm has shown.
type verdict struct {
	doubles []string // keys that have more than one effect
	wrong   []string // what was told that is not the one effect
	late    int      // effects after the end of their lease, which no library can prevent
	answers int
}

func (s *tempest) judge() (v verdict) {
	effects := make(map[string][]string)
	tolerated := make(map[string]bool)
	for _, l := range s.f.effects.lines() {
		if l.kind == late {
			v.late++
			tolerated[l.key] = true
			continue
		}
		effects[l.key] = append(effects[l.key], l.value)
	}
	for _, key := range s.keys {
		told := s.values[key]
		for _, n := range told {
			v.answers += n
		}
		switch {
		case tolerated[key]:
		case len(effects[key]) > 1:
			v.doubles = append(v.doubles, fmt.Sprintf("%s: effects %v, told %v", key, effects[key], told))
		case len(told) != 1 || len(effects[key]) == 0 || told[effects[key][0]] == 0:
			v.wrong = append(v.wrong, fmt.Sprintf("%s: effects %v, told %v", key, effects[key], told))
		}
	}
	return v
}

func (s *tempest) log(t *testing.T, v verdict) {
	t.Helper()
	t.Logf("%d kills, %d after a pause longer than a lease, %d restarts of the engine, %d of 1,000 verbs failing, %d keys, %d answers: %d keys with two effects, %d with wrong answers, %d effects too late; and errors:",
		s.kills, s.pauses, s.restarts, s.failing, len(s.keys), v.answers, len(v.doubles), len(v.wrong), v.late)
	for _, is := range slices.Sorted(maps.Keys(s.errs)) {
		t.Logf("  %6d %s", s.errs[is], is)
	}
}

// storm asserts that whatever is killed, each key has one effect, and all are told the same.
func (f *fleet) storm(t *testing.T, kills int) {
	s := f.rage(t, kills, false)
	v := s.judge()
	s.log(t, v)
	require.Empty(t, v.doubles[:min(len(v.doubles), mostShown)], "keys with two effects")
	require.Empty(t, v.wrong[:min(len(v.wrong), mostShown)], "keys of which something else was told than their effect")
	require.Empty(t, s.strange[:min(len(s.strange), mostShown)], "errors that nobody may be told")
	require.LessOrEqual(t, v.late, len(s.keys)/100, "effects after the end of their lease: this machine is too slow to test anything")
}

// control asserts that the storm would have found two effects: fn leaves BeginEffect out, in a
// cache to which it is promised.
func (f *fleet) control(t *testing.T, kills int) {
	s := f.rage(t, kills, true)
	v := s.judge()
	s.log(t, v)
	require.NotEmpty(t, v.doubles, "the effect comes first and the record after it: some effects must come twice")
}
