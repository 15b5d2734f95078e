package linear

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/storetest"
)

// bent is a cache with a fault: what is not nil is asked instead of the cache.
type bent struct {
	*idemflight.Cache[int, int]
	do      func(ctx context.Context, key int, fn func(context.Context) (int, error), opts ...idemflight.CallOption) (result, error)
	forget  func(key int) bool
	lookup  func(key int) (idemflight.Entry[int], bool)
	resolve func(key int, value int, err error) error
}

func (b *bent) DoResult(ctx context.Context, key int, fn func(context.Context) (int, error), opts ...idemflight.CallOption) (result, error) {
	if b.do != nil {
		return b.do(ctx, key, fn, opts...)
	}
	return b.Cache.DoResult(ctx, key, fn, opts...)
}

func (b *bent) Forget(ctx context.Context, key int) (bool, error) {
	if b.forget != nil {
		return b.forget(key), nil
	}
	return b.Cache.Forget(ctx, key)
}

func (b *bent) Lookup(ctx context.Context, key int) (idemflight.Entry[int], bool, error) {
	if b.lookup != nil {
		e, ok := b.lookup(key)
		return e, ok, nil
	}
	return b.Cache.Lookup(ctx, key)
}

func (b *bent) Resolve(ctx context.Context, key int, value int, err error) error {
	if b.resolve != nil {
		return b.resolve(key, value, err)
	}
	return b.Cache.Resolve(ctx, key, value, err)
}

// look is Lookup without an error, which there is none of.
func (b *bent) look(key int) (idemflight.Entry[int], bool) {
	e, ok, _ := b.Cache.Lookup(background, key)
	return e, ok
}

// drop is Forget alike.
func (b *bent) drop(key int) bool {
	ok, _ := b.Cache.Forget(background, key)
	return ok
}

func seldom() bool { return rand.IntN(20) == 0 }

// remembered gives old outcomes of a key.
type remembered struct {
	mu  sync.Mutex
	old map[int]result
}

func (m *remembered) keep(key int, r result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.old == nil {
		m.old = map[int]result{}
	}
	m.old[key] = r
}

func (m *remembered) get(key int) (result, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.old[key]
	r.Source = idemflight.Replayed
	return r, ok
}

// faults are caches that break a promise under racing callers. byOracle tells which of them the
// oracle of wide histories must find too; porcupine must find all.
var faults = map[string]struct {
	byOracle bool
	plant    func(o *options, b *bent)
}{
	"two executions overlap": {true, func(_ *options, b *bent) {
		b.do = func(ctx context.Context, key int, fn func(context.Context) (int, error), opts ...idemflight.CallOption) (result, error) {
			if e, _ := b.look(key); e.State == idemflight.InFlight {
				defer func() {
					if r := recover(); r != nil {
						panic(&idemflight.PanicError{Value: r})
					}
				}()
				v, err := fn(ctx)
				return result{Value: v, Source: idemflight.Executed}, err
			}
			return b.Cache.DoResult(ctx, key, fn, opts...)
		}
	}},
	"ran again while kept": {true, func(_ *options, b *bent) {
		b.do = func(ctx context.Context, key int, fn func(context.Context) (int, error), opts ...idemflight.CallOption) (result, error) {
			if e, _ := b.look(key); e.State == idemflight.Retained && seldom() {
				b.drop(key)
			}
			return b.Cache.DoResult(ctx, key, fn, opts...)
		}
	}},
	"a window between flight and record": {true, func(_ *options, b *bent) {
		b.do = func(ctx context.Context, key int, fn func(context.Context) (int, error), opts ...idemflight.CallOption) (result, error) {
			res, err := b.Cache.DoResult(ctx, key, fn, append(opts, idemflight.WithTTL(0))...)
			if res.Source == idemflight.Executed && err == nil {
				time.Sleep(time.Microsecond)
				now := time.Now()
				_ = b.Restore(background, key, idemflight.Entry[int]{State: idemflight.Retained, Value: res.Value, CompletedAt: now, ExpiresAt: now.Add(time.Hour)})
			}
			return res, err
		}
	}},
	"a stale value after Forget": {true, func(_ *options, b *bent) {
		var m remembered
		b.do = func(ctx context.Context, key int, fn func(context.Context) (int, error), opts ...idemflight.CallOption) (result, error) {
			if old, ok := m.get(key); ok && seldom() {
				return old, nil
			}
			return b.Cache.DoResult(ctx, key, fn, opts...)
		}
		b.forget = func(key int) bool {
			if e, _ := b.look(key); e.State == idemflight.Retained && e.Err == nil {
				m.keep(key, result{Value: e.Value})
			}
			return b.drop(key)
		}
	}},
	"the value of another key": {true, func(_ *options, b *bent) {
		var m remembered
		b.do = func(ctx context.Context, key int, fn func(context.Context) (int, error), opts ...idemflight.CallOption) (result, error) {
			res, err := b.Cache.DoResult(ctx, key, fn, opts...)
			if res.Source == idemflight.Executed && err == nil {
				m.keep(key, res)
			}
			if other, ok := m.get(key + 1); ok && res.Source == idemflight.Replayed && seldom() {
				return other, nil
			}
			return res, err
		}
	}},
	"replayed after its deadline": {true, func(o *options, _ *bent) {
		if o.TTL < time.Minute {
			o.TTL = time.Hour
		}
	}},
	"an eviction is not told": {true, func(o *options, _ *bent) { o.Observer = nil }},
	"the last resort is told as an outcome": {false, func(o *options, _ *bent) {
		tell := o.Observer
		o.Observer = func(ctx context.Context, e event) {
			if e.Kind == idemflight.EventEvicted {
				e.Err = nil
			}
			tell(ctx, e)
		}
	}},
	"joined callers get a flight that is over": {true, func(_ *options, b *bent) {
		var m remembered
		b.do = func(ctx context.Context, key int, fn func(context.Context) (int, error), opts ...idemflight.CallOption) (result, error) {
			old, ok := m.get(key)
			res, err := b.Cache.DoResult(ctx, key, fn, opts...)
			if res.Source == idemflight.Executed && err == nil {
				m.keep(key, res)
			}
			if ok && res.Source == idemflight.Joined && err == nil {
				res.Value = old.Value
			}
			return res, err
		}
	}},
	"Forget drops nothing": {false, func(_ *options, b *bent) {
		b.forget = func(key int) bool { _, ok := b.look(key); return ok }
	}},
	"Forget says no and drops": {true, func(_ *options, b *bent) {
		b.forget = func(key int) bool { b.drop(key); return false }
	}},
	"Lookup does not see flights": {false, func(_ *options, b *bent) {
		b.lookup = func(key int) (idemflight.Entry[int], bool) {
			e, ok := b.look(key)
			if e.State == idemflight.InFlight {
				return idemflight.Entry[int]{}, false
			}
			return e, ok
		}
	}},
	"a held key runs again": {true, func(_ *options, b *bent) {
		b.do = func(ctx context.Context, key int, fn func(context.Context) (int, error), opts ...idemflight.CallOption) (result, error) {
			res, err := b.Cache.DoResult(ctx, key, fn, opts...)
			if errors.Is(err, idemflight.ErrOutcomeUnknown) {
				b.drop(key)
			}
			return res, err
		}
	}},
	"a failure of which fn said nothing is released": {true, func(_ *options, b *bent) {
		b.do = func(ctx context.Context, key int, fn func(context.Context) (int, error), opts ...idemflight.CallOption) (result, error) {
			return b.Cache.DoResult(ctx, key, func(ctx context.Context) (int, error) {
				idemflight.NoEffect(ctx) // for it
				return fn(ctx)
			}, opts...)
		}
	}},
	"of two who resolve, both act": {false, func(_ *options, b *bent) {
		b.resolve = func(key int, value int, err error) error {
			_ = b.Cache.Resolve(background, key, value, err)
			return nil
		}
	}},
}

func plant(fault func(*options, *bent)) func(options) target {
	return func(o options) target {
		b := &bent{}
		fault(&o, b)
		b.Cache = idemflight.MustNew(o)
		return b
	}
}

// TestPorcupineFindsFaultsAmongProcesses: two caches over one store that do not know enough of each other.
func TestPorcupineFindsFaultsAmongProcesses(t *testing.T) {
	w := workload{clients: 8, calls: 40, keys: 4, ttl: time.Hour, maxEntries: 1000, forgets: true}
	for name, fresh := range map[string]func(options) target{
		"each has a store of its own": func(o options) target {
			a, b := newProcesses(0)(o).(processes), newProcesses(0)(o).(processes)
			return processes{a[0], b[0]}
		},
		"copies are older than a Forget elsewhere": func(o options) target {
			o.Store, o.LocalTTL = storetest.Mem(), time.Minute
			return processes{newCache(o), newCache(o)}
		},
		"a Settle is lost, and nobody is told": func(o options) target {
			o.Store, o.LocalTTL = &losesSettles{Memory: storetest.Mem()}, -1
			return processes{newCache(o), newCache(o)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for n := range attempts {
				if bad := record(w, fresh).linearizable(patience); bad != nil {
					t.Logf("found in history %d", n+1)
					return
				}
			}
			require.Fail(t, "porcupine has not found the fault")
		})
	}
}

// losesSettles releases some keys whose outcome was to be retained.
type losesSettles struct {
	*storetest.Memory
	n atomic.Int32
}

func (s *losesSettles) Settle(ctx context.Context, c idemflight.Claim, what idemflight.Settlement) (idemflight.Standing, error) {
	if s.n.Add(1)%3 == 0 {
		what = idemflight.Settlement{Disposition: idemflight.Release}
	}
	return s.Memory.Settle(ctx, c, what)
}

// attempts is in how many histories of each kind a planted fault must show.
const attempts = 50

// TestPorcupineFindsPlantedFaults records narrow histories of caches that are wrong in one way each.
func TestPorcupineFindsPlantedFaults(t *testing.T) {
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			for n := range attempts {
				for kind, w := range narrow {
					if bad := record(w, plant(fault.plant)).linearizable(patience); bad != nil {
						t.Logf("found in history %d of kind %q", n+1, kind)
						return
					}
				}
			}
			require.Fail(t, "porcupine has not found the fault")
		})
	}
}

// TestOracleFindsPlantedFaults does the same with the oracle of wide histories.
func TestOracleFindsPlantedFaults(t *testing.T) {
	for name, fault := range faults {
		if !fault.byOracle {
			continue
		}
		t.Run(name, func(t *testing.T) {
			w := workload{clients: 64, calls: 100, keys: 60, ttl: time.Millisecond, maxEntries: 50, forgets: true, fails: true, leaves: true, replays: 50}
			long := w
			long.ttl = time.Hour
			for n := range attempts {
				for _, w := range []workload{w, long} {
					if wrong := record(w, plant(fault.plant)).Sound(); wrong != "" {
						t.Logf("found in history %d: %s", n+1, wrong)
						return
					}
				}
			}
			require.Fail(t, "the oracle has not found the fault")
		})
	}
}
