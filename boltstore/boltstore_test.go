package boltstore_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/boltstore"
	"github.com/idemflight/idemflight/storetest"
)

// childFile names, in the environment, the file that this program, as a child of itself, opens: see TestKilledProcess.
const childFile = "BOLTSTORE_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childFile); path != "" {
		child(path)
		return
	}
	if path := os.Getenv(workerFile); path != "" {
		worker(path)
	}
	goleak.VerifyTestMain(m)
}

const (
	lease = time.Minute
	long  = time.Hour
)

var (
	retain  = idemflight.Settlement{Disposition: idemflight.Retain, Value: []byte("value"), TTL: long}
	release = idemflight.Settlement{}
)

func open(t *testing.T, path string) *boltstore.DB {
	t.Helper()
	d, err := boltstore.Open(path, boltstore.Options{NoSync: testing.Short()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

func openStore(t *testing.T) (*boltstore.DB, *boltstore.Store) {
	t.Helper()
	d := open(t, newPath(t))
	return d, storeOf(t, d)
}

func newPath(t *testing.T) string { return filepath.Join(t.TempDir(), "keys.db") }

func storeOf(t *testing.T, d *boltstore.DB) *boltstore.Store {
	t.Helper()
	s, err := d.Store("payments")
	require.NoError(t, err)
	return s
}

func request(key string, announced bool) idemflight.ClaimRequest {
	r := idemflight.ClaimRequest{Claim: idemflight.Claim{Key: key}, Lease: lease, HoldTTL: long, EffectsAnnounced: announced}
	_, _ = rand.Read(r.ID[:])
	return r
}

func claim(t *testing.T, s idemflight.Store, key string, announced bool) idemflight.ClaimRequest {
	t.Helper()
	r := request(key, announced)
	x, err := s.Claim(t.Context(), r)
	require.NoError(t, err)
	require.True(t, x.Granted, "claim of %q: %+v", key, x)
	return r
}

func settle(t *testing.T, s idemflight.Store, r idemflight.ClaimRequest, what idemflight.Settlement) {
	t.Helper()
	_, err := s.Settle(t.Context(), r.Claim, what)
	require.NoError(t, err)
}

func state(t *testing.T, s idemflight.Store, key string) idemflight.State {
	t.Helper()
	x, err := s.Read(t.Context(), key)
	require.NoError(t, err)
	return x.State
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for start := time.Now(); !done(); time.Sleep(time.Millisecond) {
		require.Less(t, time.Since(start), 30*time.Second, "waited for %s", what)
	}
}

// hold lets no transaction begin until the function that it returns is called, or the test ends.
func hold(t *testing.T, d *boltstore.DB) (release func()) {
	t.Helper()
	release = sync.OnceFunc(d.Hold())
	t.Cleanup(release)
	return release
}

// process is a Store whose process may crash.
type process struct {
	idemflight.Store
	db   *boltstore.DB
	path string
}

func (p *process) Crash(t *testing.T) {
	if p.db != nil {
		p.db.Crash()
	}
	p.db = open(t, p.path)
	p.Store = storeOf(t, p.db)
}

func TestConformance(t *testing.T) {
	var mu sync.Mutex
	processes := make(map[string]*process) // by test: one engine for each
	storetest.Run(t, func(t *testing.T) idemflight.Store {
		mu.Lock()
		defer mu.Unlock()
		p := processes[t.Name()]
		if p == nil {
			p = &process{path: newPath(t)}
			p.Crash(t)
			processes[t.Name()] = p
		}
		return p
	})
}

// TestAfterACrash: what each state of a record reads as for the next process.
func TestAfterACrash(t *testing.T) {
	for _, announced := range []bool{false, true} {
		path := newPath(t)
		d := open(t, path)
		s := storeOf(t, d)
		claim(t, s, "claimed", announced)
		begun := claim(t, s, "begun", announced)
		require.NoError(t, s.Begin(t.Context(), begun.Claim, lease))
		settle(t, s, claim(t, s, "retained", announced), retain)
		settle(t, s, claim(t, s, "released", announced), release)
		settle(t, s, claim(t, s, "held", announced), idemflight.Settlement{Disposition: idemflight.Hold, TTL: -1})
		before := time.Now()
		d.Crash()

		s = storeOf(t, open(t, path))
		want := map[string]idemflight.State{
			"claimed": idemflight.Held, "begun": idemflight.Held, "retained": idemflight.Retained,
			"released": idemflight.Absent, "held": idemflight.Held,
		}
		if announced {
			want["claimed"] = idemflight.Absent // it had begun nothing
		}
		for key, want := range want {
			require.Equal(t, want, state(t, s, key), "%s, announced: %v", key, announced)
		}
		x, err := s.Read(t.Context(), "begun")
		require.NoError(t, err)
		require.Nil(t, x.Err)
		require.False(t, x.CompletedAt.Before(before.Round(0)), "the owner died when the next process opened the file, not %v before", before.Sub(x.CompletedAt))
	}
}

// TestHoldBeginsWithTheDeath: a long execution is renewed by nobody, and yet its hold begins when it dies.
func TestHoldBeginsWithTheDeath(t *testing.T) {
	path := newPath(t)
	d := open(t, path)
	s := storeOf(t, d)
	r := request("k", false)
	r.Lease, r.HoldTTL = 1, long // the lease that was written is over at once
	_, err := s.Claim(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, idemflight.InFlight, state(t, s, "k"), "whoever lives is not taken over")
	for range 3 { // whatever the epochs between
		d.Crash()
		d = open(t, path)
	}
	x, err := storeOf(t, d).Read(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, idemflight.Held, x.State)
	require.Greater(t, x.ExpiresIn, long-lease)
}

func TestStoresAreApart(t *testing.T) {
	d, s := openStore(t)
	other, err := d.Store("refunds")
	require.NoError(t, err)
	claim(t, s, "k", false)
	claim(t, other, "k", false)
	again := storeOf(t, d)
	require.Equal(t, idemflight.InFlight, state(t, again, "k"), "stores of one name are one")
}

func TestKeysThatDoNotFit(t *testing.T) {
	_, s := openStore(t)
	for _, key := range []string{"", strings.Repeat("k", 32_001)} {
		_, err := s.Claim(t.Context(), request(key, false))
		require.ErrorIs(t, err, idemflight.ErrInvalidKey)
	}
	r := claim(t, s, strings.Repeat("k", 32_000), false)
	settle(t, s, r, retain)
	require.Equal(t, idemflight.Retained, state(t, s, r.Key))
}

// TestGroupCommit: what comes while a transaction is written goes together into the next.
func TestGroupCommit(t *testing.T) {
	const writers = 100
	d, s := openStore(t)
	before := d.Commits()
	goOn := hold(t, d)
	var all sync.WaitGroup
	errs := make(chan error, writers)
	for i := range writers {
		all.Go(func() {
			_, err := s.Claim(context.Background(), request(fmt.Sprint(i), false))
			errs <- err
		})
	}
	until(t, "the operations", func() bool { return d.Pending() == writers })
	goOn()
	all.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	// The writer had taken some of them, and waited; the others went together.
	require.LessOrEqual(t, d.Commits()-before, 2, "transactions for %d writes at once", writers)
	for i := range writers {
		require.Equal(t, idemflight.InFlight, state(t, s, fmt.Sprint(i)))
	}
}

// TestAnnouncedClaimWritesNothing, nor does what ends before it has begun.
func TestAnnouncedClaimWritesNothing(t *testing.T) {
	d, s := openStore(t)
	before := d.Commits()
	settle(t, s, claim(t, s, "released", true), release)
	claim(t, s, "released", true)
	marked := claim(t, s, "marked", true)
	found, err := s.Forget(t.Context(), marked.Claim)
	require.NoError(t, err)
	require.True(t, found)
	settle(t, s, marked, retain)
	require.NoError(t, s.GiveBack(t.Context(), claim(t, s, "given back", true).Claim))
	begun := claim(t, s, "begun", true)
	_, err = s.Renew(t.Context(), []idemflight.Claim{begun.Claim}, lease)
	require.NoError(t, err)
	require.Equal(t, before, d.Commits(), "transactions so far")

	require.NoError(t, s.Begin(t.Context(), begun.Claim, lease))
	require.Equal(t, before+1, d.Commits(), "Begin is written")
	require.NoError(t, s.Begin(t.Context(), begun.Claim, lease))
	require.Equal(t, before+1, d.Commits(), "Begin again is not")
	settle(t, s, begun, retain)
	require.Equal(t, before+2, d.Commits(), "Settle is written")
	settle(t, s, begun, retain)
	x, err := s.Claim(t.Context(), request("begun", false))
	require.NoError(t, err)
	require.Equal(t, idemflight.Retained, x.State)
	require.Equal(t, before+2, d.Commits(), "what changes nothing is not")
	claim(t, s, "not announced", false)
	require.Equal(t, before+3, d.Commits(), "a Claim that is not announced is written")
}

// TestFileDoesNotGrow: what has ended is dropped, from the file and from memory.
func TestFileDoesNotGrow(t *testing.T) {
	_, s := openStore(t)
	brief := retain
	brief.TTL = 1
	for i := range 600 {
		r := request(fmt.Sprint("k", i), i%2 == 0)
		r.Lease = time.Millisecond
		_, err := s.Claim(t.Context(), r)
		require.NoError(t, err)
		if i%4 < 2 {
			settle(t, s, r, brief)
		} else {
			settle(t, s, r, release)
		}
	}
	n := 0
	until(t, "the sweep", func() bool {
		n++
		r := claim(t, s, fmt.Sprint("later", n), false)
		settle(t, s, r, idemflight.Settlement{Disposition: idemflight.Retain, Value: []byte("kept"), TTL: long})
		records, due, inMemory := s.Rows()
		return records == n && due == n && inMemory == 0
	})
	for i := range n {
		require.Equal(t, idemflight.Retained, state(t, s, fmt.Sprint("later", i+1)), "what has not ended stays")
	}
}

// TestSweepDropsAllThatHasEnded: one transaction does.
func TestSweepDropsAllThatHasEnded(t *testing.T) {
	_, s := openStore(t)
	ends := retain
	ends.TTL = 50 * time.Millisecond
	for i := range 5 {
		r := request(fmt.Sprint(i), false)
		r.Lease = 1
		_, err := s.Claim(t.Context(), r)
		require.NoError(t, err)
		settle(t, s, r, ends)
	}
	time.Sleep(ends.TTL + time.Millisecond)
	claim(t, s, "another", false)
	records, due, _ := s.Rows()
	require.Equal(t, []int{1, 1}, []int{records, due})
}

// TestSweepSparesTheLiving: a record whose lease as written is over, and its hold too, and whose owner lives.
func TestSweepSparesTheLiving(t *testing.T) {
	for name, owner := range map[string]func(*testing.T, *boltstore.Store) idemflight.ClaimRequest{
		"claimed": func(t *testing.T, s *boltstore.Store) idemflight.ClaimRequest {
			r := request("k", false)
			r.Lease, r.HoldTTL = 1, 1
			_, err := s.Claim(t.Context(), r)
			require.NoError(t, err)
			return r
		},
		"begun": func(t *testing.T, s *boltstore.Store) idemflight.ClaimRequest {
			r := request("k", true)
			r.Lease, r.HoldTTL = 1, 1
			_, err := s.Claim(t.Context(), r)
			require.NoError(t, err)
			require.NoError(t, s.Begin(t.Context(), r.Claim, 1))
			return r
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, s := openStore(t)
			r := owner(t, s)
			for i := range 3 {
				claim(t, s, fmt.Sprint("other", i), false)
				require.Equal(t, idemflight.InFlight, state(t, s, "k"))
			}
			_, due, _ := s.Rows()
			require.Equal(t, 4, due, "it is looked at again")
			settle(t, s, r, retain)
			claim(t, s, "another", false)
			require.Equal(t, idemflight.Retained, state(t, s, "k"))
			records, due, _ := s.Rows()
			require.Equal(t, 5, records)
			require.LessOrEqual(t, due, 6)
		})
	}
}

// TestSettleTakesItsOwnCopy: who has left may use its slices again, though they are not written yet.
func TestSettleTakesItsOwnCopy(t *testing.T) {
	d, s := openStore(t)
	r := claim(t, s, "k", false)
	goOn := hold(t, d)
	value, failure := []byte("value"), []byte("error")
	ctx, cancel := context.WithCancel(t.Context())
	settled := make(chan error, 1)
	go func() {
		_, err := s.Settle(ctx, r.Claim, idemflight.Settlement{Disposition: idemflight.Retain, Value: value, Err: failure, TTL: long})
		settled <- err
	}()
	until(t, "the operation", func() bool { return d.Pending() == 1 })
	cancel()
	require.ErrorIs(t, <-settled, context.Canceled)
	copy(value, "VALUE")
	copy(failure, "ERROR")
	goOn()
	x, err := s.Read(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, "value", string(x.Value))
	require.Equal(t, "error", string(x.Err))
}

// TestFailedCommit: what is in the file is not known then, so nobody is told anything until it is opened again.
func TestFailedCommit(t *testing.T) {
	path := newPath(t)
	d := open(t, path)
	s := storeOf(t, d)
	r := claim(t, s, "k", false)
	d.Fill()
	big := retain
	big.Value = make([]byte, 10<<20) // more than the file has room for
	_, err := s.Settle(t.Context(), r.Claim, big)
	require.ErrorContains(t, err, path)
	require.False(t, errors.Is(err, idemflight.ErrClaimLost), "no answer: %v", err)
	_, err = s.Read(t.Context(), "k")
	require.ErrorContains(t, err, "opened again")
	_, err = s.Claim(t.Context(), request("l", true))
	require.ErrorContains(t, err, "opened again")
	require.NoError(t, d.Close())
	require.Equal(t, idemflight.Held, state(t, storeOf(t, open(t, path)), "k"))
}

func TestClose(t *testing.T) {
	d, s := openStore(t)
	r := claim(t, s, "k", false)
	watched := make(chan error)
	go func() { watched <- s.Watch(context.Background(), r.Claim) }()
	until(t, "the watch", func() bool { return d.Watched() == 1 })
	require.NoError(t, d.Close())
	require.Error(t, <-watched)
	require.NoError(t, d.Close(), "it may come twice")

	ctx := t.Context()
	_, err := s.Claim(ctx, request("l", true))
	require.Error(t, err, "Claim")
	_, err = s.Claim(ctx, request("l", false))
	require.Error(t, err, "Claim")
	require.Error(t, s.Begin(ctx, r.Claim, lease), "Begin")
	_, err = s.Settle(ctx, r.Claim, retain)
	require.Error(t, err, "Settle")
	require.False(t, errors.Is(err, idemflight.ErrClaimLost), "it is not known what became of the claim: %v", err)
	_, err = s.Renew(ctx, []idemflight.Claim{r.Claim}, lease)
	require.Error(t, err, "Renew")
	require.Error(t, s.Watch(ctx, r.Claim), "Watch")
	_, err = s.Read(ctx, "k")
	require.Error(t, err, "Read")
	require.Error(t, s.GiveBack(ctx, r.Claim), "GiveBack")
	_, err = s.Forget(ctx, r.Claim)
	require.Error(t, err, "Forget")
	require.Error(t, s.Unsettled(ctx, func(string, idemflight.Standing) error { return nil }), "Unsettled")
	_, err = d.Store("new")
	require.Error(t, err, "Store")
}

// TestCloseWritesWhatWaits: what was asked before Close is answered.
func TestCloseWritesWhatWaits(t *testing.T) {
	path := newPath(t)
	d := open(t, path)
	s := storeOf(t, d)
	goOn := hold(t, d)
	claimed := make(chan error, 2)
	for i, key := range []string{"k", "l"} {
		go func() {
			_, err := s.Claim(context.Background(), request(key, false))
			claimed <- err
		}()
		until(t, "the operations", func() bool { return d.Pending() == i+1 })
	}
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }()
	until(t, "Close", func() bool { _, err := s.Read(t.Context(), "m"); return err != nil })
	goOn()
	require.NoError(t, <-closed)
	require.NoError(t, <-claimed)
	require.NoError(t, <-claimed)
	s = storeOf(t, open(t, path))
	require.Equal(t, idemflight.Held, state(t, s, "k"))
	require.Equal(t, idemflight.Held, state(t, s, "l"))
}

// TestContext: a verb that waits for the disk ends with its context, and may have acted.
func TestContext(t *testing.T) {
	d, s := openStore(t)
	goOn := hold(t, d)
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	r := request("k", false)
	claimed := make(chan error, 1)
	go func() {
		_, err := s.Claim(ctx, r)
		claimed <- err
	}()
	cancel(enough)
	require.Equal(t, context.Canceled, <-claimed, "not the cause, which may be an answer of a store's")
	goOn()
	x, err := s.Claim(t.Context(), r)
	require.NoError(t, err)
	require.True(t, x.Granted, "the same request again")
}

// TestReadWaitsForTheDisk: nobody is told what is not there to stay.
func TestReadWaitsForTheDisk(t *testing.T) {
	d, s := openStore(t)
	r := claim(t, s, "k", true)
	goOn := hold(t, d)
	settled, read := make(chan error, 1), make(chan idemflight.Standing, 1)
	go func() {
		_, err := s.Settle(context.Background(), r.Claim, retain)
		settled <- err
	}()
	until(t, "the operation", func() bool { return d.Pending() == 1 })
	go func() {
		x, _ := s.Read(context.Background(), "k")
		read <- x
	}()
	select {
	case x := <-read:
		require.Fail(t, "Read does not wait for a write of its key", "%+v", x)
	case <-time.After(20 * time.Millisecond):
	}
	goOn()
	require.NoError(t, <-settled)
	require.Equal(t, idemflight.Retained, (<-read).State)
}

// TestClaimInMemoryWaitsForTheDisk: two claims of a key, one on its way to the disk, one that needs no disk.
func TestClaimInMemoryWaitsForTheDisk(t *testing.T) {
	d, s := openStore(t)
	goOn := hold(t, d)
	granted := make(chan bool, 2)
	ask := func(announced bool) {
		x, _ := s.Claim(context.Background(), request("k", announced))
		granted <- x.Granted
	}
	go ask(false)
	until(t, "the operation", func() bool { return d.Pending() == 1 })
	go ask(true)
	select {
	case <-granted:
		require.Fail(t, "a claim in memory overtakes one of the same key")
	case <-time.After(20 * time.Millisecond):
	}
	goOn()
	require.NotEqual(t, <-granted, <-granted, "one of both must be granted")
}

// TestStepsOfOneBatch: what one was told is on the disk is there, whatever the next one does in memory.
func TestStepsOfOneBatch(t *testing.T) {
	path := newPath(t)
	d := open(t, path)
	s := storeOf(t, d)
	released, forgotten := claim(t, s, "released", false), claim(t, s, "forgotten", false)
	settle(t, s, forgotten, retain)
	goOn := hold(t, d)
	var all sync.WaitGroup
	errs := make(chan error, 10)
	queue := func(n int, ask func() error) {
		t.Helper()
		all.Go(func() { errs <- ask() })
		until(t, "the queue", func() bool { return d.Queued() == n })
	}
	again := func(key string) func() error {
		return func() error {
			_, err := s.Claim(context.Background(), request(key, true))
			return err
		}
	}
	all.Go(func() { // the writer takes it alone: what follows waits for the next transaction
		_, err := s.Claim(context.Background(), request("first", false))
		errs <- err
	})
	until(t, "the writer", func() bool { return d.Pending() == 1 && d.Queued() == 0 })
	queue(1, func() error { _, err := s.Settle(context.Background(), released.Claim, release); return err })
	queue(2, again("released"))
	queue(3, func() error { _, err := s.Forget(context.Background(), forgotten.Claim); return err })
	queue(4, again("forgotten"))
	goOn()
	all.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	d.Crash()
	s = storeOf(t, open(t, path))
	for _, key := range []string{"released", "forgotten"} {
		x, err := s.Read(t.Context(), key)
		require.NoError(t, err)
		require.True(t, x.State == idemflight.Absent || x.State == idemflight.InFlight && x.ExpiresIn == 0, "%s must be free: %+v", key, x)
	}
}

// TestClaimInMemoryAfterABatch: a claim that waited for a write of its key needs no disk once that has ended, and is there.
func TestClaimInMemoryAfterABatch(t *testing.T) {
	d, s := openStore(t)
	old := claim(t, s, "k", false)
	goOn := hold(t, d)
	settled, granted := make(chan error, 1), make(chan bool, 1)
	go func() {
		_, err := s.Settle(context.Background(), old.Claim, release)
		settled <- err
	}()
	until(t, "the writer", func() bool { return d.Pending() == 1 && d.Queued() == 0 })
	go func() {
		x, _ := s.Claim(context.Background(), request("k", true))
		granted <- x.Granted
	}()
	until(t, "the queue", func() bool { return d.Queued() == 1 })
	before := d.Commits()
	goOn()
	require.NoError(t, <-settled)
	require.True(t, <-granted)
	require.Equal(t, before+1, d.Commits(), "one for Settle, none for the claim")
	_, _, inMemory := s.Rows()
	require.Equal(t, 1, inMemory)
	x, err := s.Claim(t.Context(), request("k", true))
	require.NoError(t, err)
	require.False(t, x.Granted, "it is claimed")
}

// TestAClosedRowsEndIsItsOwn: a key in memory that was claimed, or closed, again since its row was closed stays.
func TestAClosedRowsEndIsItsOwn(t *testing.T) {
	_, s := openStore(t)
	closed := func(key string, lease time.Duration) {
		r := request(key, true)
		r.Lease = lease
		_, err := s.Claim(t.Context(), r)
		require.NoError(t, err)
		settle(t, s, r, release)
	}
	const soon = 50 * time.Millisecond
	closed("first", soon) // those behind it are looked at when it has ended
	closed("claimed", 1)
	closed("closed", 1)
	claim(t, s, "claimed", true)
	closed("closed", lease)
	time.Sleep(soon + time.Millisecond)
	claim(t, s, "other", true) // which sweeps
	require.Equal(t, idemflight.InFlight, state(t, s, "claimed"))
	_, _, inMemory := s.Rows()
	require.Equal(t, 3, inMemory, "claimed, closed and other: a late verb of the one that was closed finds that")
}

// TestWatchEndsInMemory: who watches a claim that is in memory alone hears of its end.
func TestWatchEndsInMemory(t *testing.T) {
	d, s := openStore(t)
	r := claim(t, s, "k", true)
	watched := make(chan error, 1)
	go func() { watched <- s.Watch(context.Background(), r.Claim) }()
	until(t, "the watch", func() bool { return d.Watched() == 1 })
	settle(t, s, r, release)
	require.Zero(t, d.Watched(), "told, and watched no more")
	require.NoError(t, <-watched)
}

// TestUnsettledTellsOnceWhatMovesToTheDisk: f may begin an effect of what was in memory.
func TestUnsettledTellsOnceWhatMovesToTheDisk(t *testing.T) {
	_, s := openStore(t)
	r := claim(t, s, "k", true)
	told := 0
	require.NoError(t, s.Unsettled(t.Context(), func(string, idemflight.Standing) error {
		told++
		return s.Begin(t.Context(), r.Claim, lease)
	}))
	require.Equal(t, 1, told)
	records, _, inMemory := s.Rows()
	require.Equal(t, []int{1, 0}, []int{records, inMemory}, "it has moved")
}

func TestUnsettledIsWhole(t *testing.T) {
	_, s := openStore(t)
	want := make(map[string]bool)
	for i := range 1300 { // more than two scans of what is in the file
		announced := i%10 == 0
		r := claim(t, s, fmt.Sprint(i), announced)
		if i%7 == 0 {
			require.NoError(t, s.GiveBack(t.Context(), r.Claim))
			continue
		}
		want[r.Key] = true
	}
	got := make(map[string]bool)
	require.NoError(t, s.Unsettled(t.Context(), func(key string, x idemflight.Standing) error {
		require.False(t, got[key], "%q is told twice", key)
		got[key] = true
		if len(got)%5 > 0 {
			return nil
		}
		found, err := s.Forget(t.Context(), idemflight.Claim{Key: key, ID: x.ID}) // f may ask the store
		require.True(t, found)
		return err
	}))
	require.Equal(t, want, got)
}

// TestUnsettledIsInTheOrderOfTheKeys: of those in memory, too.
func TestUnsettledIsInTheOrderOfTheKeys(t *testing.T) {
	for _, announced := range []bool{true, false} {
		_, s := openStore(t)
		for i := range 20 {
			claim(t, s, fmt.Sprintf("%02d", 7*i%20), announced)
		}
		var got []string
		require.NoError(t, s.Unsettled(t.Context(), func(key string, _ idemflight.Standing) error {
			got = append(got, key)
			return nil
		}))
		require.Len(t, got, 20)
		require.IsIncreasing(t, got, "announced: %v", announced)
	}
}

// TestStoreThatIsThere: it is written once.
func TestStoreThatIsThere(t *testing.T) {
	d, _ := openStore(t)
	goOn := hold(t, d) // nobody can write
	there := make(chan error, 1)
	go func() {
		_, err := d.Store("payments")
		there <- err
	}()
	select {
	case err := <-there:
		require.NoError(t, err)
	case <-time.After(5 * time.Second):
		t.Error("a store that is there is made again")
	}
	goOn()
}

func TestManyOpenings(t *testing.T) {
	path := newPath(t)
	d, err := boltstore.Open(path, boltstore.Options{NoSync: true})
	require.NoError(t, err)
	claim(t, storeOf(t, d), "k", false)
	require.NoError(t, d.Close())
	for range 1100 {
		d, err = boltstore.Open(path, boltstore.Options{NoSync: true})
		require.NoError(t, err)
		require.NoError(t, d.Close())
	}
	d = open(t, path)
	s := storeOf(t, d)
	require.Equal(t, idemflight.Held, state(t, s, "k"), "of an epoch that is no longer listed")
	for _, key := range []string{"late", "later"} {
		claim(t, s, key, false)
		require.NoError(t, d.Close())
		d = open(t, path)
		s = storeOf(t, d)
		require.Equal(t, idemflight.Held, state(t, s, key), "each opening is an epoch of its own, however many there were")
	}
}

// child claims and begins, says so, and waits to be killed.
func child(path string) {
	ctx := context.Background()
	d, err := boltstore.Open(path, boltstore.Options{})
	must(err)
	s, err := d.Store("payments")
	must(err)
	for _, announced := range []bool{false, true} {
		r := request(fmt.Sprint("claimed ", announced), announced)
		_, err = s.Claim(ctx, r)
		must(err)
		r = request(fmt.Sprint("begun ", announced), announced)
		_, err = s.Claim(ctx, r)
		must(err)
		must(s.Begin(ctx, r.Claim, lease))
		r = request(fmt.Sprint("retained ", announced), announced)
		_, err = s.Claim(ctx, r)
		must(err)
		_, err = s.Settle(ctx, r.Claim, retain)
		must(err)
	}
	fmt.Println("ready")
	select {}
}

func must(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// TestKilledProcess: the next process is served at once, without a clock.
func TestKilledProcess(t *testing.T) {
	path := newPath(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childFile+"="+path)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	_, err = boltstore.Open(path, boltstore.Options{})
	require.ErrorContains(t, err, "in use")
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()

	s := storeOf(t, open(t, path))
	for key, want := range map[string]idemflight.State{
		"claimed false": idemflight.Held, "begun false": idemflight.Held, "retained false": idemflight.Retained,
		"claimed true": idemflight.Absent, "begun true": idemflight.Held, "retained true": idemflight.Retained,
	} {
		require.Equal(t, want, state(t, s, key), key)
	}
}
