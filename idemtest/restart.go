package idemtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/idemflight/idemflight"
)

// How says how [Restart] ends a process.
type How int

const (
	// Planned: Close, Save, exit; then Load, listen. Executions have ten seconds to end, which pass
	// in no time in a testing/synctest bubble. A key that is still in flight then is interrupted:
	// held. With a Store there is nothing to save.
	Planned How = iota

	// Crash: the process is killed. What it leaves behind is in its Store: the outcomes, and for
	// each key that was in flight the claim, whose lease is over. Without a Store, nothing is left.
	Crash

	// Torn: like Planned, but the second half of the stream is missing, as after a full disk. Load
	// must say so; the entries that are whole are restored. A service must not listen then: what a
	// retry does now shows why.
	Torn
)

// String returns planned, crash or torn.
func (h How) String() string {
	switch h {
	case Planned:
		return "planned"
	case Crash:
		return "crash"
	case Torn:
		return "torn"
	}
	return fmt.Sprintf("How(%d)", int(h))
}

// grace is what a planned restart gives to executions.
const grace = 10 * time.Second

// Restart ends the process of old and starts that of new: a cache made with the options of the next
// process, with nothing in flight. Afterwards old starts no new executions, and the test goes on
// with new. If something cannot be played, or fails, the test ends.
//
// No goroutine can be killed: an fn that runs in old goes on, as far as its context lets
// it, and so may its effect, like a request that was on the wire. What it returns reaches
// only its own callers.
//
// Executions that are in flight at a Crash with a Store, or for longer than a planned restart
// waits, are dead only if the Store can be told so, by a method KillAll() like that of
// storetest.Memory, which kills the owners in all caches that share the Store. To crash with
// another engine, kill a process: storetest.RunProcesses shows how.
func Restart[K comparable, V any](t testing.TB, old, new *idemflight.Cache[K, V], how How) {
	t.Helper()
	note, err := restart(old, new, how)
	if err != nil {
		t.Fatalf("idemtest: Restart, %v: %v", how, err)
		return
	}
	if note != "" {
		t.Logf("idemtest: Restart, %v: %s", how, note)
	}
}

func restart[K comparable, V any](old, new *idemflight.Cache[K, V], how How) (note string, err error) {
	if old == nil || new == nil || old == new {
		return "", errors.New("it takes two caches: that of the old process, and that of the new one")
	}
	if n := new.Stats().InFlight; n > 0 {
		return "", fmt.Errorf("the new process has %d executions in flight before it starts", n)
	}
	from, to := old.Options().Store, new.Options().Store
	if from != nil && to == nil {
		return "", errors.New("old has a Store and new has none: where its keys are new does not look")
	}
	switch {
	case how != Planned && how != Crash && how != Torn:
		return "", errors.New("it is none of Planned, Crash, Torn")
	case how == Torn && from != nil:
		return "", errors.New("with a Store there is no stream to tear")
	}
	within := grace
	if how == Crash {
		within = 0
	}
	ended := closed(old, within)
	switch {
	case from != nil && how == Planned && ended:
		return "", nil
	case from != nil:
		return "", kill(from, ended)
	case how == Planned:
		return carry(old, new)
	case how == Torn:
		return tear(old, new)
	}
	return "", nil
}

// closed closes a cache, and reports whether what was in flight ended in time.
func closed[K comparable, V any](c *idemflight.Cache[K, V], within time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return c.Close(ctx) == nil
}

// kill has all users of a Store dead. If nothing was in flight, none need be.
func kill(s idemflight.Store, idle bool) error {
	if k, ok := s.(interface{ KillAll() }); ok {
		k.KillAll()
	} else if !idle {
		return fmt.Errorf("a %T cannot be told that its users are dead: it has no method KillAll(), as storetest.Mem() has", s)
	}
	return nil
}

// carry takes the keys from old to new.
func carry[K comparable, V any](old, new *idemflight.Cache[K, V]) (note string, err error) {
	var stream bytes.Buffer
	if err := old.Save(&stream); err != nil {
		return "", err
	}
	return load(new, stream.Bytes())
}

// tear takes to new what half a stream has of old's keys, of which Load must say
// that it is not all.
func tear[K comparable, V any](old, new *idemflight.Cache[K, V]) (note string, err error) {
	var stream bytes.Buffer
	if err := old.Save(&stream); err != nil {
		return "", err
	}
	note, err = load(new, stream.Bytes()[:stream.Len()/2])
	if err == nil {
		return "", fmt.Errorf("half of the stream was taken for a whole one by Load: %s", note)
	}
	return fmt.Sprintf("half of the stream arrives: %s; Load says %q", note, err), nil
}

func load[K comparable, V any](c *idemflight.Cache[K, V], stream []byte) (note string, err error) {
	report, err := c.Load(context.Background(), bytes.NewReader(stream))
	return fmt.Sprintf("%d restored, %d interrupted, %d expired, %d refused",
		report.Restored, report.Interrupted, report.Expired, report.Refused), err
}
