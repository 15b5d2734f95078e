//go:build linux || darwin || freebsd

package storetest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/record"
)

// filesVariable names, in the environment of a worker, the folder of its store; plantedInFiles the fault of that.
const (
	filesVariable  = "STORETEST_FILES"
	plantedInFiles = "STORETEST_FILES_FAULT"
)

// init makes this program the worker of its own tests. (TestMain is also for systems without flock.)
func init() {
	if dir := os.Getenv(filesVariable); dir != "" {
		Worker(func() (idemflight.Store, error) { return openFiles(dir, os.Getenv(plantedInFiles)) })
	}
}

// TestFiles: the store with which RunProcesses is tested is one.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	Run(t, func(t *testing.T) idemflight.Store {
		s, err := openFiles(dir, "")
		require.NoError(t, err)
		return s
	})
}

func TestRunProcesses(t *testing.T) {
	t.Setenv(filesVariable, t.TempDir())
	if os.Getenv(plantedInFiles) != "" {
		patience = 10 * time.Second
	}
	RunProcesses(t, os.Args[0])
}

// TestRunProcessesFindsFaults asserts that RunProcesses fails for a store with any one fault. It runs this program
// again.
func TestRunProcessesFindsFaults(t *testing.T) {
	if os.Getenv("IDEMFLIGHT_FAULTS") == "" {
		t.Skip("skipped: it runs the suite once for each fault, which takes a minute; by hand: IDEMFLIGHT_FAULTS=1")
	}
	for name, fault := range fileFaults {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestRunProcesses$/^"+fault.found+"$", "-test.failfast", "-test.timeout=100s")
			cmd.Env = append(os.Environ(), plantedInFiles+"="+name, "IDEMFLIGHT_KILLS=100") // what takes chance gets more of it
			out, err := cmd.CombinedOutput()
			require.Error(t, err, "RunProcesses must fail")
			require.Contains(t, string(out), "--- FAIL: TestRunProcesses/"+fault.found, "this part must fail, not the program:\n%s", out)
			t.Log(firstFailed(string(out)))
		})
	}
}

// fileFaults are what RunProcesses must find, and in which part.
var fileFaults = map[string]struct {
	found string
	plant func(*files)
}{
	"Claim is not recorded": {"Killed", func(f *files) {
		f.forgets = func(verb string, next record.Record) bool {
			return verb == "Claim" && next.State == record.Claimed && !next.Announced
		}
	}},
	"Begin is not recorded": {"Killed", func(f *files) {
		f.forgets = func(verb string, next record.Record) bool { return verb == "Begin" }
	}},
	"Settle is not recorded": {"Killed", func(f *files) {
		f.forgets = func(verb string, next record.Record) bool { return verb == "Settle" }
	}},
	"what has begun is taken over": {"Killed", func(f *files) {
		f.sees = func(r *record.Record) {
			if r.State == record.Begun {
				r.State, r.Announced = record.Claimed, true
			}
		}
	}},
	"all is announced": {"Killed", func(f *files) { f.sees = func(r *record.Record) { r.Announced = true } }},
	"leases never end": {"Killed", func(f *files) { f.leaseEnd = func(record.Record) int64 { return record.Forever - 1 } }},
	"Reconcile that dies leaves nothing": {"Killed", func(f *files) {
		f.sees = func(r *record.Record) {
			if r.State == record.Reconciling {
				r.State, r.Announced = record.Claimed, true
			}
		}
	}},
	"Begin without its fence":  {"Paused", func(f *files) { f.unfenced = "Begin" }},
	"Settle without its fence": {"Paused", func(f *files) { f.unfenced = "Settle" }},
	"late owners are refused": {"Paused", func(f *files) {
		f.lateRefused = true
	}},
	"takeover without looking at the lease": {"Killed", func(f *files) {
		f.leaseEnd = func(r record.Record) int64 { return r.Leased - int64(r.Lease) + 1e6 }
	}},
	"no lock": {"Storm", func(f *files) { f.unlocked = true }},
}

// files is a store that has a file for each key, in a folder, and locks of the kernel. What it has written survives
// its process, and not the machine.
type files struct {
	dir string

	// Faults.
	forgets     func(verb string, next record.Record) bool // does not write
	sees        func(*record.Record)
	leaseEnd    func(record.Record) int64
	lateRefused bool
	unfenced    string
	unlocked    bool
}

func openFiles(dir, fault string) (*files, error) {
	f := &files{dir: dir}
	if fault != "" {
		fileFaults[fault].plant(f)
	}
	return f, nil
}

func (f *files) path(key string) string {
	return filepath.Join(f.dir, fmt.Sprintf("%x", sha256.Sum256([]byte(key))))
}

// step replaces the record of key by what verb makes of it.
func (f *files) step(ctx context.Context, verb, key string, act func(record.Record, record.At) record.Record) (err error) {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	lock, err := os.OpenFile(f.path(key)+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if !f.unlocked {
		if err := retried(func() error { return syscall.Flock(int(lock.Fd()), syscall.LOCK_EX) }); err != nil {
			return err
		}
	}
	_, r, err := f.read(f.path(key))
	if err != nil {
		return err
	}
	at := record.At{Now: time.Now().UnixNano(), LeaseEnd: f.leaseEnd}
	if r.State != record.Absent && record.End(r, at) <= at.Now {
		r = record.Record{}
	}
	next := act(r, at)
	if next.State == record.Absent || string(record.Encode(next)) == string(record.Encode(r)) {
		return nil
	}
	if f.forgets != nil && f.forgets(verb, next) {
		return nil
	}
	b, err := json.Marshal(fileOf{[]byte(key), record.Encode(next)})
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(f.dir, "*.new")
	if err != nil {
		return err
	}
	_, err = temporary.Write(b)
	return errors.Join(err, temporary.Close(), os.Rename(temporary.Name(), f.path(key)))
}

func retried(call func() error) error {
	for {
		if err := call(); err != syscall.EINTR {
			return err
		}
	}
}

// fileOf is what a file has.
type fileOf struct{ Key, Record []byte }

func (f *files) read(path string) (key string, r record.Record, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", r, nil
	}
	var has fileOf
	if err == nil {
		err = json.Unmarshal(b, &has)
	}
	if err == nil {
		r, err = record.Decode(has.Record)
	}
	if f.sees != nil && err == nil {
		f.sees(&r)
	}
	return string(has.Key), r, err
}

func (f *files) Claim(ctx context.Context, q idemflight.ClaimRequest) (x idemflight.Standing, err error) {
	err = f.step(ctx, "Claim", q.Key, func(r record.Record, at record.At) record.Record {
		r, x = record.Claim(r, q, at)
		return r
	})
	return x, err
}

func (f *files) Begin(ctx context.Context, c idemflight.Claim, lease time.Duration) error {
	var answer error
	err := f.step(ctx, "Begin", c.Key, func(r record.Record, at record.At) record.Record {
		if answer = f.refusal("Begin", r, &c, at); answer == nil {
			r, answer = record.Begin(r, c, lease, at)
		}
		return r
	})
	return errors.Join(err, answer)
}

func (f *files) Settle(ctx context.Context, c idemflight.Claim, s idemflight.Settlement) (x idemflight.Standing, err error) {
	var answer error
	err = f.step(ctx, "Settle", c.Key, func(r record.Record, at record.At) record.Record {
		if answer = f.refusal("Settle", r, &c, at); answer == nil {
			r, x, answer = record.Settle(r, c, s, at)
		}
		return r
	})
	return x, errors.Join(err, answer)
}

// refusal is the fault that refuses late owners, and the one that asks for no owner.
func (f *files) refusal(verb string, r record.Record, c *idemflight.Claim, at record.At) error {
	if f.unfenced == verb {
		c.ID = r.ID
	}
	open := r.State == record.Claimed || r.State == record.Begun || r.State == record.Reconciling
	if f.lateRefused && open && at.Now >= r.Leased {
		return idemflight.ErrClaimLost
	}
	return nil
}

func (f *files) Renew(ctx context.Context, cs []idemflight.Claim, lease time.Duration) (lost []idemflight.ClaimID, err error) {
	for _, c := range cs {
		owned := false
		err = f.step(ctx, "Renew", c.Key, func(r record.Record, at record.At) record.Record {
			r, owned = record.Renew(r, c, lease, at)
			return r
		})
		if err != nil {
			return nil, err
		}
		if !owned {
			lost = append(lost, c.ID)
		}
	}
	return lost, nil
}

func (f *files) Watch(ctx context.Context, c idemflight.Claim) error {
	for {
		waits := false
		err := f.step(ctx, "Watch", c.Key, func(r record.Record, at record.At) record.Record {
			waits = record.InFlight(r, c, at)
			return r
		})
		if err != nil || !waits {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (f *files) Read(ctx context.Context, key string) (x idemflight.Standing, err error) {
	err = f.step(ctx, "Read", key, func(r record.Record, at record.At) record.Record {
		x = record.Read(r, at)
		return r
	})
	return x, err
}

func (f *files) GiveBack(ctx context.Context, c idemflight.Claim) error {
	return f.step(ctx, "GiveBack", c.Key, func(r record.Record, at record.At) record.Record { return record.GiveBack(r, c, at) })
}

func (f *files) Forget(ctx context.Context, c idemflight.Claim) (found bool, err error) {
	err = f.step(ctx, "Forget", c.Key, func(r record.Record, at record.At) record.Record {
		r, found = record.Forget(r, c, at)
		return r
	})
	return found, err
}

func (f *files) Unsettled(ctx context.Context, each func(key string, s idemflight.Standing) error) error {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), ".") {
			continue
		}
		key, _, err := f.read(filepath.Join(f.dir, e.Name()))
		if err != nil {
			return err
		}
		x, err := f.Read(ctx, key)
		if err == nil && (x.State == idemflight.InFlight || x.State == idemflight.Held) {
			err = each(key, x)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}
