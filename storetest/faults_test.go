package storetest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/record"
)

// plantedFault names, in the environment, the fault that TestRun plants.
const plantedFault = "STORETEST_FAULT"

func TestRun(t *testing.T) {
	m := Mem()
	open := func(*testing.T) idemflight.Store { return m }
	switch fault := os.Getenv(plantedFault); {
	case fault == "an engine for each process":
		open = func(*testing.T) idemflight.Store { return Mem() }
	case fault != "":
		s := &faulty{Memory: m}
		require.Contains(t, faults, fault)
		patience = 3 * time.Second
		faults[fault](s)
		open = func(*testing.T) idemflight.Store { return s }
	}
	Run(t, open)
}

// TestRunFindsFaults asserts that Run fails for a store with any one fault. It runs this program again.
func TestRunFindsFaults(t *testing.T) {
	if os.Getenv("IDEMFLIGHT_FAULTS") == "" {
		t.Skip("skipped: it runs the suite once for each fault, which takes a minute; by hand: IDEMFLIGHT_FAULTS=1")
	}
	names := []string{"an engine for each process"}
	for name := range faults {
		names = append(names, name)
	}
	for _, name := range names {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestRun$", "-test.failfast", "-test.timeout=100s")
			cmd.Env = append(os.Environ(), plantedFault+"="+name)
			out, err := cmd.CombinedOutput()
			require.Error(t, err, "the suite must fail")
			require.Contains(t, string(out), "--- FAIL: TestRun/", "a test of the suite must fail, not the program")
			t.Log(firstFailed(string(out)))
		})
	}
}

// firstFailed returns the innermost test that the output of a run says has failed.
func firstFailed(out string) (name string) {
	for line := range strings.Lines(out) {
		if failed, ok := strings.CutPrefix(strings.TrimSpace(line), "--- FAIL: "); ok {
			name = failed
		}
	}
	return name
}

// faulty is a Memory with other verbs, where they are not nil.
type faulty struct {
	*Memory
	claim     func(ctx context.Context, r idemflight.ClaimRequest) (idemflight.Standing, error)
	begin     func(ctx context.Context, c idemflight.Claim, lease time.Duration) error
	settle    func(ctx context.Context, c idemflight.Claim, s idemflight.Settlement) (idemflight.Standing, error)
	renew     func(ctx context.Context, cs []idemflight.Claim, lease time.Duration) ([]idemflight.ClaimID, error)
	watch     func(ctx context.Context, c idemflight.Claim) error
	read      func(ctx context.Context, key string) (idemflight.Standing, error)
	giveBack  func(ctx context.Context, c idemflight.Claim) error
	forget    func(ctx context.Context, c idemflight.Claim) (bool, error)
	unsettled func(ctx context.Context, f func(key string, s idemflight.Standing) error) error
}

func (f *faulty) Claim(ctx context.Context, r idemflight.ClaimRequest) (idemflight.Standing, error) {
	if f.claim != nil {
		return f.claim(ctx, r)
	}
	return f.Memory.Claim(ctx, r)
}

func (f *faulty) Begin(ctx context.Context, c idemflight.Claim, lease time.Duration) error {
	if f.begin != nil {
		return f.begin(ctx, c, lease)
	}
	return f.Memory.Begin(ctx, c, lease)
}

func (f *faulty) Settle(ctx context.Context, c idemflight.Claim, s idemflight.Settlement) (idemflight.Standing, error) {
	if f.settle != nil {
		return f.settle(ctx, c, s)
	}
	return f.Memory.Settle(ctx, c, s)
}

func (f *faulty) Renew(ctx context.Context, cs []idemflight.Claim, lease time.Duration) ([]idemflight.ClaimID, error) {
	if f.renew != nil {
		return f.renew(ctx, cs, lease)
	}
	return f.Memory.Renew(ctx, cs, lease)
}

func (f *faulty) Watch(ctx context.Context, c idemflight.Claim) error {
	if f.watch != nil {
		return f.watch(ctx, c)
	}
	return f.Memory.Watch(ctx, c)
}

func (f *faulty) Read(ctx context.Context, key string) (idemflight.Standing, error) {
	if f.read != nil {
		return f.read(ctx, key)
	}
	return f.Memory.Read(ctx, key)
}

func (f *faulty) GiveBack(ctx context.Context, c idemflight.Claim) error {
	if f.giveBack != nil {
		return f.giveBack(ctx, c)
	}
	return f.Memory.GiveBack(ctx, c)
}

func (f *faulty) Forget(ctx context.Context, c idemflight.Claim) (bool, error) {
	if f.forget != nil {
		return f.forget(ctx, c)
	}
	return f.Memory.Forget(ctx, c)
}

func (f *faulty) Unsettled(ctx context.Context, each func(key string, s idemflight.Standing) error) error {
	if f.unsettled != nil {
		return f.unsettled(ctx, each)
	}
	return f.Memory.Unsettled(ctx, each)
}

// peek returns the record of key as it is.
func (f *faulty) peek(key string) record.Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.records[key]
}

// edit changes the record of key behind the store's back.
func (f *faulty) edit(key string, change func(*record.Record)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.records[key]
	change(&r)
	f.putLocked(key, r)
}

func (f *faulty) drop(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.records, key)
}

// dead reports whether r is open and its lease is over.
func dead(r record.Record) bool {
	x := record.Read(r, now())
	open := r.State == record.Claimed || r.State == record.Begun || r.State == record.Reconciling
	return open && (x.State != idemflight.InFlight || x.ExpiresIn == 0)
}

// twoSteps returns what a late owner's verb does between reading its record and writing it: it waits for the
// Claim that replaces it, which in turn waits for the reading, so that whoever is scheduled first they meet.
func (f *faulty) twoSteps() (between func(idemflight.Claim)) {
	const longest = 20 * time.Millisecond // for a verb that nobody races with
	read := make(chan struct{}, 1)
	f.claim = func(ctx context.Context, r idemflight.ClaimRequest) (idemflight.Standing, error) {
		if r.Replaces != (idemflight.ClaimID{}) && dead(f.peek(r.Key)) {
			select {
			case <-read:
			case <-time.After(longest):
			}
		}
		return f.Memory.Claim(ctx, r)
	}
	return func(c idemflight.Claim) {
		select {
		case read <- struct{}{}:
		default:
		}
		for end := time.Now().Add(longest); f.peek(c.Key).ID == c.ID && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	}
}

// onClaim has change see each request, and the record, before the Claim.
func onClaim(change func(f *faulty, q *idemflight.ClaimRequest, r record.Record)) func(*faulty) {
	return func(f *faulty) {
		f.claim = func(ctx context.Context, q idemflight.ClaimRequest) (idemflight.Standing, error) {
			change(f, &q, f.peek(q.Key))
			return f.Memory.Claim(ctx, q)
		}
	}
}

// afterGrant has change see the records before and after each first grant.
func afterGrant(change func(before record.Record, r *record.Record)) func(*faulty) {
	return func(f *faulty) {
		f.claim = func(ctx context.Context, q idemflight.ClaimRequest) (idemflight.Standing, error) {
			before := f.peek(q.Key)
			x, err := f.Memory.Claim(ctx, q)
			if x.Granted && before.ID != q.ID {
				f.edit(q.Key, func(r *record.Record) { change(before, r) })
			}
			return x, err
		}
	}
}

// onSettle has change see each Settle, and the record, before it acts.
func onSettle(change func(f *faulty, c *idemflight.Claim, s *idemflight.Settlement, r record.Record)) func(*faulty) {
	return func(f *faulty) {
		f.settle = func(ctx context.Context, c idemflight.Claim, s idemflight.Settlement) (idemflight.Standing, error) {
			change(f, &c, &s, f.peek(c.Key))
			return f.Memory.Settle(ctx, c, s)
		}
	}
}

// onBegin has after see the records before and after each Begin that is not refused.
func onBegin(after func(before record.Record, r *record.Record, lease time.Duration)) func(*faulty) {
	return func(f *faulty) {
		f.begin = func(ctx context.Context, c idemflight.Claim, lease time.Duration) error {
			before := f.peek(c.Key)
			err := f.Memory.Begin(ctx, c, lease)
			if err == nil {
				f.edit(c.Key, func(r *record.Record) { after(before, r, lease) })
			}
			return err
		}
	}
}

// onRead has change see each answer of Read.
func onRead(change func(r record.Record, x *idemflight.Standing)) func(*faulty) {
	return func(f *faulty) {
		f.read = func(ctx context.Context, key string) (idemflight.Standing, error) {
			x, err := f.Memory.Read(ctx, key)
			change(f.peek(key), &x)
			return x, err
		}
	}
}

// faults are what Run must find.
var faults = map[string]func(*faulty){
	"takeover without comparing the ID": onClaim(func(_ *faulty, q *idemflight.ClaimRequest, r record.Record) {
		if q.From == idemflight.InFlight {
			q.Replaces = r.ID
		}
	}),
	"reconcile without comparing the ID": onClaim(func(_ *faulty, q *idemflight.ClaimRequest, r record.Record) {
		if q.From == idemflight.Held {
			q.Replaces = r.ID
		}
	}),
	"takeover without the lease condition": onClaim(func(f *faulty, q *idemflight.ClaimRequest, r record.Record) {
		if q.From == idemflight.InFlight && q.Replaces == r.ID && r.State == record.Claimed && r.Announced {
			f.Kill(r.ID)
		}
	}),
	"reconcile of what is in flight": onClaim(func(f *faulty, q *idemflight.ClaimRequest, r record.Record) {
		if q.From == idemflight.Held && q.Replaces == r.ID && r.State == record.Reconciling {
			f.Kill(r.ID)
		}
	}),
	"takeover of what has begun": onClaim(func(f *faulty, q *idemflight.ClaimRequest, r record.Record) {
		if q.From == idemflight.InFlight && q.Replaces == r.ID && r.State == record.Begun && dead(r) {
			f.edit(q.Key, func(r *record.Record) { r.State, r.Announced = record.Claimed, true })
		}
	}),
	"takeover of what was not announced": onClaim(func(f *faulty, q *idemflight.ClaimRequest, r record.Record) {
		if q.From == idemflight.InFlight && q.Replaces == r.ID && r.State == record.Claimed && dead(r) {
			f.edit(q.Key, func(r *record.Record) { r.Announced = true })
		}
	}),
	"takeover of a dead reconciler": onClaim(func(f *faulty, q *idemflight.ClaimRequest, r record.Record) {
		if q.From == idemflight.InFlight && q.Replaces == r.ID && r.State == record.Reconciling && dead(r) {
			f.edit(q.Key, func(r *record.Record) { r.State, r.Announced = record.Claimed, true })
		}
	}),
	"takeover, though From says held": onClaim(func(_ *faulty, q *idemflight.ClaimRequest, r record.Record) {
		if q.Replaces == r.ID && r.State == record.Claimed && r.Announced && dead(r) {
			q.From = idemflight.InFlight
		}
	}),
	"reconcile without comparing fingerprints": onClaim(func(_ *faulty, q *idemflight.ClaimRequest, r record.Record) {
		if q.From == idemflight.Held {
			q.Fingerprint = r.Fingerprint
		}
	}),
	"held granted to who does not reconcile": onClaim(func(_ *faulty, q *idemflight.ClaimRequest, _ record.Record) {
		q.Reconcile = true
	}),
	"late duplicate of a Claim granted": onClaim(func(f *faulty, q *idemflight.ClaimRequest, r record.Record) {
		if r.State == record.Closed && r.ID == q.ID {
			f.drop(q.Key)
			q.Replaces = idemflight.ClaimID{}
		}
	}),
	"repeated Claim refused": func(f *faulty) {
		f.claim = func(ctx context.Context, q idemflight.ClaimRequest) (idemflight.Standing, error) {
			if f.peek(q.Key).ID == q.ID {
				return f.Memory.Read(ctx, q.Key)
			}
			return f.Memory.Claim(ctx, q)
		}
	},
	"repeated Claim takes the mark away": onClaim(func(f *faulty, q *idemflight.ClaimRequest, r record.Record) {
		if r.ID == q.ID {
			f.edit(q.Key, func(r *record.Record) { r.Forgotten = false })
		}
	}),
	"repeated Claim renews": onClaim(func(f *faulty, q *idemflight.ClaimRequest, r record.Record) {
		if r.ID == q.ID {
			f.edit(q.Key, func(r *record.Record) { r.Leased = now().Now + int64(q.Lease) })
		}
	}),
	"Claim in two steps": func(f *faulty) {
		f.claim = func(ctx context.Context, q idemflight.ClaimRequest) (idemflight.Standing, error) {
			next, x := record.Claim(f.peek(q.Key), q, now())
			time.Sleep(time.Millisecond)
			f.edit(q.Key, func(r *record.Record) { *r = next })
			return x, nil
		}
	},
	"grant leaves the mark": afterGrant(func(before record.Record, r *record.Record) { r.Forgotten = before.Forgotten }),
	"grant to reconcile starts anew": afterGrant(func(before record.Record, r *record.Record) {
		if r.State == record.Reconciling {
			r.Started = now().Now
		}
	}),
	"grant to reconcile drops the error": afterGrant(func(before record.Record, r *record.Record) { r.Err = nil }),
	"grant to reconcile moves the end of the hold": afterGrant(func(_ record.Record, r *record.Record) {
		if r.State == record.Reconciling {
			r.Expires = now().Now + int64(r.Hold)
		}
	}),
	"grant to reconcile keeps the HoldTTL": afterGrant(func(before record.Record, r *record.Record) {
		if r.State == record.Reconciling {
			r.Hold = before.Hold
		}
	}),
	"Begin without the fence": func(f *faulty) {
		f.begin = func(ctx context.Context, c idemflight.Claim, lease time.Duration) error {
			c.ID = f.peek(c.Key).ID
			return f.Memory.Begin(ctx, c, lease)
		}
	},
	"Begin refused to a late owner": func(f *faulty) {
		f.begin = func(ctx context.Context, c idemflight.Claim, lease time.Duration) error {
			if dead(f.peek(c.Key)) {
				return idemflight.ErrClaimLost
			}
			return f.Memory.Begin(ctx, c, lease)
		}
	},
	"Begin shortens the lease": onBegin(func(_ record.Record, r *record.Record, lease time.Duration) {
		r.Leased = now().Now + int64(lease)
	}),
	"Begin does not move the lease": onBegin(func(before record.Record, r *record.Record, _ time.Duration) { r.Leased = before.Leased }),
	"Begin after a Reconcile leaves the error": onBegin(func(before record.Record, r *record.Record, _ time.Duration) {
		r.Err = before.Err
	}),
	"Begin after a Reconcile leaves the start": onBegin(func(before record.Record, r *record.Record, _ time.Duration) {
		r.Started = before.Started
	}),
	"Begin writes nothing": onBegin(func(before record.Record, r *record.Record, _ time.Duration) { *r = before }),
	"Settle without the fence": onSettle(func(_ *faulty, c *idemflight.Claim, _ *idemflight.Settlement, r record.Record) {
		if r.State != record.Absent {
			c.ID = r.ID
		}
	}),
	"late Begin in two steps": func(f *faulty) {
		between := f.twoSteps()
		f.begin = func(ctx context.Context, c idemflight.Claim, lease time.Duration) error {
			before := f.peek(c.Key)
			next, err := record.Begin(before, c, lease, now())
			if dead(before) {
				between(c)
			}
			f.edit(c.Key, func(r *record.Record) { *r = next })
			return err
		}
	},
	"late Settle in two steps": func(f *faulty) {
		between := f.twoSteps()
		f.settle = func(ctx context.Context, c idemflight.Claim, s idemflight.Settlement) (idemflight.Standing, error) {
			before := f.peek(c.Key)
			next, x, err := record.Settle(before, c, s, now())
			if dead(before) {
				between(c)
			}
			f.edit(c.Key, func(r *record.Record) { *r = next })
			return x, err
		}
	},
	"Settle of what is absent succeeds": func(f *faulty) {
		f.settle = func(ctx context.Context, c idemflight.Claim, s idemflight.Settlement) (idemflight.Standing, error) {
			if r := f.peek(c.Key); r.State == record.Absent {
				return idemflight.Standing{}, nil
			}
			return f.Memory.Settle(ctx, c, s)
		}
	},
	"Settle refused to a late owner": func(f *faulty) {
		f.settle = func(ctx context.Context, c idemflight.Claim, s idemflight.Settlement) (idemflight.Standing, error) {
			if dead(f.peek(c.Key)) {
				return idemflight.Standing{}, idemflight.ErrClaimLost
			}
			return f.Memory.Settle(ctx, c, s)
		}
	},
	"Settle repeated is lost": func(f *faulty) {
		f.settle = func(ctx context.Context, c idemflight.Claim, s idemflight.Settlement) (idemflight.Standing, error) {
			if r := f.peek(c.Key); r.ID == c.ID && r.Settled {
				return idemflight.Standing{}, idemflight.ErrClaimLost
			}
			return f.Memory.Settle(ctx, c, s)
		}
	},
	"Settle again replaces": onSettle(func(f *faulty, c *idemflight.Claim, _ *idemflight.Settlement, r record.Record) {
		if r.ID == c.ID && (r.State == record.Retained || r.State == record.Held) {
			f.edit(c.Key, func(r *record.Record) { r.State, r.Settled = record.Begun, false })
		}
	}),
	"Settle retains what was forgotten": onSettle(func(f *faulty, c *idemflight.Claim, _ *idemflight.Settlement, _ record.Record) {
		f.edit(c.Key, func(r *record.Record) { r.Forgotten = false })
	}),
	"Settle drops the hold of what was forgotten": onSettle(func(_ *faulty, _ *idemflight.Claim, s *idemflight.Settlement, r record.Record) {
		if r.Forgotten && s.Disposition == idemflight.Hold {
			s.Disposition = idemflight.Release
		}
	}),
	"Hold leaves the mark": func(f *faulty) {
		f.settle = func(ctx context.Context, c idemflight.Claim, s idemflight.Settlement) (idemflight.Standing, error) {
			before := f.peek(c.Key)
			x, err := f.Memory.Settle(ctx, c, s)
			if err == nil && !before.Settled && s.Disposition == idemflight.Hold {
				f.edit(c.Key, func(r *record.Record) { r.Forgotten = before.Forgotten })
			}
			return x, err
		}
	},
	"Hold of who reconciled replaces the error": onSettle(func(f *faulty, c *idemflight.Claim, s *idemflight.Settlement, r record.Record) {
		if s.Disposition == idemflight.Hold && r.State == record.Reconciling {
			f.edit(c.Key, func(r *record.Record) { r.Err = s.Err })
		}
	}),
	"Hold of who reconciled leaves the end": func(f *faulty) {
		f.settle = func(ctx context.Context, c idemflight.Claim, s idemflight.Settlement) (idemflight.Standing, error) {
			before := f.peek(c.Key)
			x, err := f.Memory.Settle(ctx, c, s)
			if s.Disposition == idemflight.Hold && before.State == record.Reconciling {
				f.edit(c.Key, func(r *record.Record) { r.Expires = before.Expires })
			}
			return x, err
		}
	},
	"TTL 0 is kept": onSettle(func(_ *faulty, _ *idemflight.Claim, s *idemflight.Settlement, _ record.Record) {
		if s.Disposition == idemflight.Retain && s.TTL == 0 {
			s.TTL = time.Hour
		}
	}),
	"TTL is halved": onSettle(func(_ *faulty, _ *idemflight.Claim, s *idemflight.Settlement, _ record.Record) { s.TTL /= 2 }),
	"nil and empty are one": onSettle(func(_ *faulty, _ *idemflight.Claim, s *idemflight.Settlement, _ record.Record) {
		if len(s.Value) == 0 {
			s.Value = nil
		}
	}),
	"errors are cut at NUL": onSettle(func(_ *faulty, _ *idemflight.Claim, s *idemflight.Settlement, _ record.Record) {
		if before, _, found := bytes.Cut(s.Err, []byte{0}); found {
			s.Err = before
		}
	}),
	"Settle keeps the caller's slice": func(f *faulty) {
		f.settle = func(ctx context.Context, c idemflight.Claim, s idemflight.Settlement) (idemflight.Standing, error) {
			x, err := f.Memory.Settle(ctx, c, s)
			f.mu.Lock()
			defer f.mu.Unlock()
			if r := f.records[c.Key]; r.State == record.Retained && r.ID == c.ID {
				r.Value = s.Value
				f.records[c.Key] = r
			}
			return x, err
		}
	},
	"keys in one case": onClaim(func(_ *faulty, q *idemflight.ClaimRequest, _ record.Record) { q.Key = strings.ToLower(q.Key) }),
	"keys cut at NUL": func(f *faulty) {
		cut := func(key string) string { before, _, _ := strings.Cut(key+"\x00", "\x00"); return before }
		f.claim = func(ctx context.Context, q idemflight.ClaimRequest) (idemflight.Standing, error) {
			q.Key = cut(q.Key)
			return f.Memory.Claim(ctx, q)
		}
		f.settle = func(ctx context.Context, c idemflight.Claim, s idemflight.Settlement) (idemflight.Standing, error) {
			c.Key = cut(c.Key)
			return f.Memory.Settle(ctx, c, s)
		}
		f.read = func(ctx context.Context, key string) (idemflight.Standing, error) {
			return f.Memory.Read(ctx, cut(key))
		}
	},
	"Renew loses nobody": func(f *faulty) {
		f.renew = func(ctx context.Context, cs []idemflight.Claim, lease time.Duration) ([]idemflight.ClaimID, error) {
			_, err := f.Memory.Renew(ctx, cs, lease)
			return nil, err
		}
	},
	"Renew without the fence": func(f *faulty) {
		f.renew = func(ctx context.Context, cs []idemflight.Claim, lease time.Duration) ([]idemflight.ClaimID, error) {
			lost, err := f.Memory.Renew(ctx, cs, lease)
			for _, c := range cs {
				f.edit(c.Key, func(r *record.Record) { r.Leased = now().Now + int64(lease) })
			}
			return lost, err
		}
	},
	"Renew of the first alone": func(f *faulty) {
		f.renew = func(ctx context.Context, cs []idemflight.Claim, lease time.Duration) ([]idemflight.ClaimID, error) {
			return f.Memory.Renew(ctx, cs[:min(1, len(cs))], lease)
		}
	},
	"Renew loses late owners": func(f *faulty) {
		f.renew = func(ctx context.Context, cs []idemflight.Claim, lease time.Duration) (lost []idemflight.ClaimID, err error) {
			var alive []idemflight.Claim
			for _, c := range cs {
				if dead(f.peek(c.Key)) {
					lost = append(lost, c.ID)
				} else {
					alive = append(alive, c)
				}
			}
			more, err := f.Memory.Renew(ctx, alive, lease)
			return append(lost, more...), err
		}
	},
	"Watch ends with its context alone": func(f *faulty) {
		f.watch = func(ctx context.Context, c idemflight.Claim) error {
			<-ctx.Done()
			return ctx.Err()
		}
	},
	"Watch does not end with its context": func(f *faulty) {
		f.watch = func(_ context.Context, c idemflight.Claim) error { return f.Memory.Watch(context.Background(), c) }
	},
	"verbs without context": func(f *faulty) {
		f.read = func(_ context.Context, key string) (idemflight.Standing, error) {
			return f.Memory.Read(context.Background(), key)
		}
	},
	"GiveBack is Release": func(f *faulty) {
		f.giveBack = func(ctx context.Context, c idemflight.Claim) error {
			_, _ = f.Memory.Settle(ctx, c, release)
			return nil
		}
	},
	"GiveBack does nothing": func(f *faulty) {
		f.giveBack = func(context.Context, idemflight.Claim) error { return nil }
	},
	"GiveBack by key": func(f *faulty) {
		f.giveBack = func(ctx context.Context, c idemflight.Claim) error {
			c.ID = f.peek(c.Key).ID
			return f.Memory.GiveBack(ctx, c)
		}
	},
	"GiveBack leaves no row": func(f *faulty) {
		f.giveBack = func(ctx context.Context, c idemflight.Claim) error {
			err := f.Memory.GiveBack(ctx, c)
			if f.peek(c.Key).State == record.Closed {
				f.drop(c.Key)
			}
			return err
		}
	},
	"GiveBack restores the ID, too": func(f *faulty) {
		before := map[string]idemflight.ClaimID{} // by key, of who was replaced
		f.claim = func(ctx context.Context, q idemflight.ClaimRequest) (idemflight.Standing, error) {
			if q.Reconcile {
				f.mu.Lock()
				before[q.Key] = q.Replaces
				f.mu.Unlock()
			}
			return f.Memory.Claim(ctx, q)
		}
		f.giveBack = func(ctx context.Context, c idemflight.Claim) error {
			was := f.peek(c.Key)
			err := f.Memory.GiveBack(ctx, c)
			if was.State == record.Reconciling && was.ID == c.ID {
				f.edit(c.Key, func(r *record.Record) { r.ID = before[c.Key] })
			}
			return err
		}
	},
	"Forget by key": func(f *faulty) {
		f.forget = func(ctx context.Context, c idemflight.Claim) (bool, error) {
			c.ID = f.peek(c.Key).ID
			return f.Memory.Forget(ctx, c)
		}
	},
	"Forget leaves no row": func(f *faulty) {
		f.forget = func(ctx context.Context, c idemflight.Claim) (bool, error) {
			found, err := f.Memory.Forget(ctx, c)
			if f.peek(c.Key).State == record.Closed {
				f.drop(c.Key)
			}
			return found, err
		}
	},
	"Forget drops what is in flight": func(f *faulty) {
		f.forget = func(ctx context.Context, c idemflight.Claim) (bool, error) {
			found, err := f.Memory.Forget(ctx, c)
			if found && f.peek(c.Key).ID == c.ID {
				f.drop(c.Key)
			}
			return found, err
		}
	},
	"Forget always finds something": func(f *faulty) {
		f.forget = func(ctx context.Context, c idemflight.Claim) (bool, error) {
			_, err := f.Memory.Forget(ctx, c)
			return true, err
		}
	},
	"no closed rows": func(f *faulty) {
		f.settle = func(ctx context.Context, c idemflight.Claim, s idemflight.Settlement) (idemflight.Standing, error) {
			x, err := f.Memory.Settle(ctx, c, s)
			if f.peek(c.Key).State == record.Closed {
				f.drop(c.Key)
			}
			return x, err
		}
	},
	"what expires leaves no row": func(f *faulty) {
		f.read = func(ctx context.Context, key string) (idemflight.Standing, error) {
			x, err := f.Memory.Read(ctx, key)
			if r := f.peek(key); x.State == idemflight.Absent && (r.State == record.Retained || r.State == record.Held) {
				f.drop(key)
			}
			return x, err
		}
	},
	"dead owners leave nothing": onRead(func(r record.Record, x *idemflight.Standing) {
		if dead(r) {
			*x = idemflight.Standing{}
		}
	}),
	"dead owners that announced are held": onRead(func(r record.Record, x *idemflight.Standing) {
		if r.Announced && dead(r) && r.State == record.Claimed {
			x.State, x.ExpiresIn = idemflight.Held, 10
		}
	}),
	"nobody is dead": onRead(func(r record.Record, x *idemflight.Standing) {
		if dead(r) {
			x.State, x.ExpiresIn = idemflight.InFlight, time.Second
		}
	}),
	"Read hides Begun":       onRead(func(_ record.Record, x *idemflight.Standing) { x.Begun = false }),
	"Read hides Forgotten":   onRead(func(_ record.Record, x *idemflight.Standing) { x.Forgotten = false }),
	"Read hides Err":         onRead(func(_ record.Record, x *idemflight.Standing) { x.Err = nil }),
	"Read hides Fingerprint": onRead(func(_ record.Record, x *idemflight.Standing) { x.Fingerprint = idemflight.Fingerprint{} }),
	"Read hides StartedAt":   onRead(func(_ record.Record, x *idemflight.Standing) { x.StartedAt = time.Time{} }),
	"Read hides CompletedAt": onRead(func(_ record.Record, x *idemflight.Standing) { x.CompletedAt = time.Time{} }),
	"Unsettled without dead owners": func(f *faulty) {
		f.unsettled = func(ctx context.Context, each func(string, idemflight.Standing) error) error {
			return f.Memory.Unsettled(ctx, func(key string, x idemflight.Standing) error {
				if dead(f.peek(key)) {
					return nil
				}
				return each(key, x)
			})
		}
	},
	"Unsettled tells all": func(f *faulty) {
		f.unsettled = func(ctx context.Context, each func(string, idemflight.Standing) error) error {
			f.mu.Lock()
			var keys []string
			for key := range f.records {
				keys = append(keys, key)
			}
			f.mu.Unlock()
			for _, key := range keys {
				x, _ := f.Memory.Read(ctx, key)
				if err := each(key, x); err != nil {
					return err
				}
			}
			return nil
		}
	},
	"Unsettled goes on after f's error": func(f *faulty) {
		f.unsettled = func(ctx context.Context, each func(string, idemflight.Standing) error) (first error) {
			_ = f.Memory.Unsettled(ctx, func(key string, x idemflight.Standing) error {
				if err := each(key, x); first == nil {
					first = err
				}
				return nil
			})
			return first
		}
	},
}
