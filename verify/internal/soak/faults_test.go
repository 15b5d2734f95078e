package soak

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

type options = idemflight.Options[int, *value]

// bent is a cache with a fault: what is not nil is asked instead of the cache.
type bent struct {
	target[int]
	do      func(ctx context.Context, by way, key int, fn fnOf, opts ...idemflight.CallOption) (result, error)
	stats   func() idemflight.Stats
	restore func(key int, e entry) error
	forget  func(key int) (bool, error)
	closes  func(ctx context.Context) error
	n       atomic.Int64
}

func (b *bent) call(ctx context.Context, by way, key int, fn fnOf, opts ...idemflight.CallOption) (result, error) {
	if b.do != nil {
		return b.do(ctx, by, key, fn, opts...)
	}
	return b.target.call(ctx, by, key, fn, opts...)
}

func (b *bent) Stats() idemflight.Stats {
	if b.stats != nil {
		return b.stats()
	}
	return b.target.Stats()
}

func (b *bent) Restore(key int, e entry) error {
	if b.restore != nil {
		return b.restore(key, e)
	}
	return b.target.Restore(key, e)
}

func (b *bent) Forget(key int) (bool, error) {
	if b.forget != nil {
		return b.forget(key)
	}
	return b.target.Forget(key)
}

func (b *bent) Close(ctx context.Context) error {
	if b.closes != nil {
		return b.closes(ctx)
	}
	return b.target.Close(ctx)
}

// each reports whether it is the turn of the k-th, 2k-th … to be wrong.
func (b *bent) each(k int64) bool { return b.n.Add(1)%k == 0 }

// after has calls answered by the cache, and then bent.
func (b *bent) after(wrong func(key int, res *result, err *error)) {
	b.do = func(ctx context.Context, by way, key int, fn fnOf, opts ...idemflight.CallOption) (result, error) {
		res, err := b.target.call(ctx, by, key, fn, opts...)
		wrong(key, &res, &err)
		return res, err
	}
}

// small is a round that takes some tenths of a second.
var small = mix{
	KeyType: "int", Clients: 16, Calls: 6000, Keys: 60, Payloads: 1, Procs: []int{2, 1}, TTL: time.Hour, MaxEntries: 500,
	MinRetention: -1, ExecTimeout: -1, Leaves: 5, Repeats: 50, Fails: 20, Drain: byForget,
}

// with is small, changed.
func with(change func(*mix)) mix {
	m := small
	change(&m)
	return m
}

// planted is what a fault holds on to; ends is closed when its goroutines may end.
type planted struct {
	kept []any
	ends chan struct{}
}

// faults are caches that are wrong in one way each, what the soak must say, and the round that must
// show it.
var faults = map[string]struct {
	says  string
	mix   mix
	plant func(o *options, b *bent, p *planted)
}{
	"a second execution runs beside the first": {"executions overlap", with(func(m *mix) {
		m.Fails, m.Keys, m.TTL = 0, 4, time.Millisecond
	}), func(_ *options, b *bent, _ *planted) {
		b.do = func(ctx context.Context, by way, key int, fn fnOf, opts ...idemflight.CallOption) (result, error) {
			x, _ := ctx.Value(executionKey{}).(*execution)
			if x.run.Start == 0 {
				x.plan.pause, x.plan.reenter = 100*time.Microsecond, false // long enough that others meet it
			}
			if e, _, _ := b.Lookup(key); e.State == idemflight.InFlight && ctx.Err() == nil && x.run.Start == 0 { // not re-entrant
				v, err := fn(ctx)
				return result{Value: v, Source: idemflight.Executed}, err
			}
			return b.target.call(ctx, by, key, fn, opts...)
		}
	}},
	"an outcome is lost": {"began while an outcome was kept", small, func(_ *options, b *bent, _ *planted) {
		b.after(func(key int, res *result, err *error) {
			if res.Source == idemflight.Executed && *err == nil && b.each(10) {
				_, _ = b.target.Forget(key)
			}
		})
	}},
	"a held key runs again": {"began while an outcome was kept", small, func(_ *options, b *bent, _ *planted) {
		b.after(func(key int, _ *result, err *error) {
			if errors.Is(*err, idemflight.ErrOutcomeUnknown) {
				_, _ = b.target.Forget(key)
			}
		})
	}},
	"a replay of another key": {"none of this key", small, func(_ *options, b *bent, _ *planted) {
		var last atomic.Pointer[value]
		b.after(func(_ int, res *result, err *error) {
			if v := last.Load(); v != nil && res.Source == idemflight.Replayed && *err == nil && b.each(20) {
				res.Value = v
			}
			last.Store(res.Value)
		})
	}},
	"a replay after its deadline": {"after it had gone", with(func(m *mix) { m.TTL, m.HoldTTL = time.Millisecond, time.Hour }), func(o *options, _ *bent, _ *planted) {
		o.TTL = time.Hour
	}},
	"(zero, nil)": {"neither value nor error", small, func(_ *options, b *bent, _ *planted) {
		b.after(func(_ int, res *result, err *error) {
			if res.Source == idemflight.Joined && b.each(5) {
				res.Value, *err = nil, nil
			}
		})
	}},
	"an error that no option allows": {"its options do not allow", small, func(_ *options, b *bent, _ *planted) {
		b.after(func(_ int, res *result, err *error) {
			if res.Source == idemflight.Replayed && b.each(50) {
				*res, *err = result{}, idemflight.ErrFull
			}
		})
	}},
	"the outcome of another payload": {"another payload", with(func(m *mix) { m.Payloads = 3 }), func(_ *options, b *bent, _ *planted) {
		b.do = func(ctx context.Context, by way, key int, fn fnOf, opts ...idemflight.CallOption) (result, error) {
			return b.target.call(ctx, by, key, fn, append(opts, idemflight.WithFingerprint(idemflight.Fingerprint{}))...)
		}
	}},
	"a call never returns": {"has not returned", small, func(_ *options, b *bent, p *planted) {
		b.after(func(int, *result, *error) {
			if b.n.Add(1) == 1000 {
				<-p.ends
			}
		})
	}},
	"a goroutine is left behind": {"goroutines are left behind", small, func(_ *options, b *bent, p *planted) {
		b.after(func(int, *result, *error) {
			if b.n.Add(1) == 1000 {
				go func() { <-p.ends }()
			}
		})
	}},
	"a value is left behind": {"values and 0 of", with(func(m *mix) { m.Drain = byDropping }), func(_ *options, b *bent, p *planted) {
		b.after(func(_ int, res *result, _ *error) {
			if res.Source == idemflight.Executed && b.each(2) {
				b.keep(p, res.Value)
			}
		})
	}},
	"what fn captured is left behind": {"that fn captured are left", small, func(_ *options, b *bent, p *planted) {
		b.do = func(ctx context.Context, by way, key int, fn fnOf, opts ...idemflight.CallOption) (result, error) {
			b.keep(p, fn)
			return b.target.call(ctx, by, key, fn, opts...)
		}
	}},
	"what is expired is left behind": {"values and 0 of", with(func(m *mix) {
		m.TTL, m.HoldTTL, m.MaxEntries, m.Drain = 5*time.Millisecond, 5*time.Millisecond, 0, byExpiry
	}), func(_ *options, b *bent, _ *planted) {
		b.after(func(key int, res *result, err *error) {
			if now := time.Now(); res.Source == idemflight.Executed && *err == nil {
				_ = b.target.Restore(key+1_000_000, entry{State: idemflight.Retained, Value: res.Value, CompletedAt: now, ExpiresAt: now.Add(time.Hour)})
			}
		})
	}},
	"a counter is wrong": {"counters:", small, func(_ *options, b *bent, _ *planted) {
		b.stats = func() idemflight.Stats {
			s := b.target.Stats()
			s.Releases++
			return s
		}
	}},
	"an event is not told": {"events say", small, func(o *options, b *bent, _ *planted) {
		told := o.Observer
		o.Observer = func(ctx context.Context, e idemflight.Event[int]) {
			if b.n.Add(1) != 1000 {
				told(ctx, e)
			}
		}
	}},
	"too many places": {"MaxEntries is 20", with(func(m *mix) { m.MaxEntries = 20 }), func(o *options, _ *bent, _ *planted) { o.MaxEntries++ }},
	"too much weight": {"MaxWeight is 1000", with(func(m *mix) { m.MaxWeight = 1000 }), func(o *options, _ *bent, _ *planted) { o.MaxWeight = 2000 }},
	"what is protected is evicted": {"evicted what was protected", with(func(m *mix) { m.MaxEntries, m.MinRetention = 20, time.Minute }), func(o *options, _ *bent, _ *planted) {
		o.MinRetention = -1
	}},
	"a restart loses entries": {"began while an outcome was kept", with(func(m *mix) { m.Close = restarts }), func(_ *options, b *bent, _ *planted) {
		b.restore = func(key int, e entry) error {
			if b.each(4) {
				return nil
			}
			return b.target.Restore(key, e)
		}
	}},
	"Forget drops and says no": {"began while an outcome was kept", small, func(_ *options, b *bent, _ *planted) {
		b.forget = func(key int) (bool, error) { _, err := b.target.Forget(key); return false, err }
	}},
	"Reconcile runs beside another": {"twice", with(func(m *mix) { m.Reconciles, m.Fails = true, 80 }), func(o *options, b *bent, _ *planted) {
		reconcile := o.Reconcile
		o.Reconcile = func(ctx context.Context, key int, held entry) (*value, error) {
			if v, err := reconcile(ctx, key, held); err == nil { // finds out twice
				return v, nil
			}
			return reconcile(ctx, key, held)
		}
	}},
}

func (b *bent) keep(p *planted, what any) {
	keeping.Lock()
	defer keeping.Unlock()
	p.kept = append(p.kept, what)
}

// attempts is in how many rounds a planted fault must show: some need goroutines to meet.
const attempts = 10

// TestSoakFindsPlantedFaults drives caches that are wrong in one way each.
func TestSoakFindsPlantedFaults(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			for n := range attempts {
				settledGoroutines(goroutines+1, patiently) // what the last fault left behind would hide another
				p := &planted{ends: make(chan struct{})}
				m := fault.mix
				m.Seed, m.Round = uint64(n), n
				out := core(m, ints, 500*time.Millisecond, func(o options) target[int] {
					b := &bent{}
					fault.plant(&o, b, p)
					b.target = newCache(o)
					return b
				})
				close(p.ends)
				keeping.Lock()
				p.kept = nil
				keeping.Unlock()
				if found(t, n, out, fault.says) {
					return
				}
			}
			require.Fail(t, "the soak has not found the fault")
		})
	}
}

// found reports whether a round says what it must.
func found(t *testing.T, round int, out outcome, says string) bool {
	for _, wrong := range out.wrong {
		if strings.Contains(wrong, says) {
			t.Logf("found in round %d: %.300s", round+1, wrong)
			return true
		}
	}
	if len(out.wrong) > 0 {
		t.Logf("round %d says something else: %.300s", round+1, out.wrong[0])
	}
	return false
}
