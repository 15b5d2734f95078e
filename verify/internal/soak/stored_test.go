package soak

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/storetest"
)

// bentStore is a store with a fault: what is not nil is asked instead of the store.
type bentStore struct {
	*storetest.Memory
	claim  func(ctx context.Context, r idemflight.ClaimRequest) (idemflight.Standing, error)
	begin  func(ctx context.Context, c idemflight.Claim, lease time.Duration) error
	settle func(ctx context.Context, c idemflight.Claim, s idemflight.Settlement) (idemflight.Standing, error)
	n      atomic.Int64
}

// each reports whether it is the turn of the k-th, 2k-th … to be wrong.
func (s *bentStore) each(k int64) bool { return s.n.Add(1)%k == 0 }

func (s *bentStore) Claim(ctx context.Context, r idemflight.ClaimRequest) (idemflight.Standing, error) {
	if s.claim != nil {
		return s.claim(ctx, r)
	}
	return s.Memory.Claim(ctx, r)
}

func (s *bentStore) Begin(ctx context.Context, c idemflight.Claim, lease time.Duration) error {
	if s.begin != nil {
		return s.begin(ctx, c, lease)
	}
	return s.Memory.Begin(ctx, c, lease)
}

func (s *bentStore) Settle(ctx context.Context, c idemflight.Claim, what idemflight.Settlement) (idemflight.Standing, error) {
	if s.settle != nil {
		return s.settle(ctx, c, what)
	}
	return s.Memory.Settle(ctx, c, what)
}

// smallStored is a round that takes some tenths of a second.
var smallStored = mix{
	Stored: true, KeyType: "int", Clients: 16, Calls: 6000, Keys: 60, Payloads: 1, Procs: []int{2, 1}, TTL: time.Hour, MinRetention: -1,
	ExecTimeout: -1, Leaves: 5, Repeats: 50, Fails: 20, Drain: byForget, Processes: 2, Lease: time.Second, LocalTTL: -1,
}

func withStored(change func(*mix)) mix {
	m := smallStored
	change(&m)
	return m
}

// storedFaults are stores, or caches with one, that are wrong in one way each, what the soak must say, and
// the round that must show it.
var storedFaults = map[string]struct {
	says  string
	mix   mix
	plant func(s *bentStore, b *bent, p *planted)
}{
	"a claim is granted beside another": {"executions overlap", withStored(func(m *mix) { m.Keys, m.Fails, m.TTL = 4, 0, time.Millisecond }), func(s *bentStore, _ *bent, _ *planted) {
		s.claim = func(ctx context.Context, r idemflight.ClaimRequest) (idemflight.Standing, error) {
			x, err := s.Memory.Claim(ctx, r)
			if call, ok := ctx.Value(executionKey{}).(*execution); ok && x.State == idemflight.InFlight {
				call.plan.pause = 100 * time.Microsecond
				return idemflight.Standing{Granted: true, ID: r.ID}, nil
			}
			return x, err
		}
		s.begin = func(context.Context, idemflight.Claim, time.Duration) error { return nil }
		s.settle = func(ctx context.Context, c idemflight.Claim, what idemflight.Settlement) (idemflight.Standing, error) {
			x, err := s.Memory.Settle(ctx, c, what)
			if errors.Is(err, idemflight.ErrClaimLost) { // of the other
				err = nil
			}
			return x, err
		}
	}},
	"Begin leaves no mark": {"two effects", withStored(func(m *mix) { m.Keys, m.Announced, m.Dies, m.Fails, m.Leaves = 9, true, true, 0, 0 }), func(s *bentStore, _ *bent, _ *planted) {
		s.begin = func(context.Context, idemflight.Claim, time.Duration) error { return nil }
	}},
	"an outcome is lost": {"began while an outcome was kept", smallStored, func(s *bentStore, _ *bent, _ *planted) {
		s.settle = func(ctx context.Context, c idemflight.Claim, what idemflight.Settlement) (idemflight.Standing, error) {
			if what.Disposition == idemflight.Retain && s.each(10) {
				what = idemflight.Settlement{Disposition: idemflight.Release}
			}
			return s.Memory.Settle(ctx, c, what)
		}
	}},
	"a hold is lost": {"began while an outcome was kept", withStored(func(m *mix) { m.Fails = 80 }), func(s *bentStore, _ *bent, _ *planted) {
		s.settle = func(ctx context.Context, c idemflight.Claim, what idemflight.Settlement) (idemflight.Standing, error) {
			if what.Disposition == idemflight.Hold && s.each(10) {
				what = idemflight.Settlement{Disposition: idemflight.Release}
			}
			return s.Memory.Settle(ctx, c, what)
		}
	}},
	"the outcome of another key": {"none of this key", smallStored, func(s *bentStore, _ *bent, _ *planted) {
		var last atomic.Pointer[idemflight.Standing]
		s.claim = func(ctx context.Context, r idemflight.ClaimRequest) (idemflight.Standing, error) {
			x, err := s.Memory.Claim(ctx, r)
			if other := last.Load(); x.State == idemflight.Retained && other != nil && s.each(10) {
				return *other, err
			}
			if x.State == idemflight.Retained {
				last.Store(&x)
			}
			return x, err
		}
	}},
	"fn runs without a claim": {"has no claim", smallStored, func(_ *bentStore, b *bent, _ *planted) {
		b.do = func(ctx context.Context, by way, key int, fn fnOf, opts ...idemflight.CallOption) (result, error) {
			if x, _ := ctx.Value(executionKey{}).(*execution); b.each(100) && ctx.Err() == nil && x.run.Start == 0 {
				v, err := fn(ctx)
				return result{Value: v, Source: idemflight.Executed}, err
			}
			return b.target.call(ctx, by, key, fn, opts...)
		}
	}},
	"a claim is left for ever": {"a claim is left", smallStored, func(s *bentStore, _ *bent, _ *planted) {
		s.settle = func(ctx context.Context, c idemflight.Claim, what idemflight.Settlement) (idemflight.Standing, error) {
			x, err := s.Memory.Settle(ctx, c, what)
			if what.Disposition == idemflight.Release && s.each(5) {
				_, _ = s.Memory.Claim(ctx, idemflight.ClaimRequest{
					Claim: idemflight.Claim{Key: "left" + c.Key, ID: idemflight.ClaimID{1}}, Lease: time.Hour, HoldTTL: time.Hour})
			}
			return x, err
		}
	}},
	"a goroutine is left after Close": {"goroutines are left behind", withStored(func(m *mix) { m.Close = restarts }), func(_ *bentStore, b *bent, p *planted) {
		b.closes = func(ctx context.Context) error {
			go func() { <-p.ends }()
			return b.target.Close(ctx)
		}
	}},
	"an error that the call cannot get": {"its options do not allow", smallStored, func(_ *bentStore, b *bent, _ *planted) {
		b.after(func(_ int, res *result, err *error) {
			if res.Source == idemflight.Replayed && b.each(50) {
				*res, *err = result{}, idemflight.ErrStore
			}
		})
	}},
	"Settle says that the claim is lost": {"no lease has ended", smallStored, func(s *bentStore, _ *bent, _ *planted) {
		s.settle = func(ctx context.Context, c idemflight.Claim, what idemflight.Settlement) (idemflight.Standing, error) {
			x, err := s.Memory.Settle(ctx, c, what)
			if what.Disposition == idemflight.Retain && s.each(20) {
				err = idemflight.ErrClaimLost
			}
			return x, err
		}
	}},
	"Settle answers with another outcome": {"not its own", smallStored, func(s *bentStore, _ *bent, _ *planted) {
		var mu sync.Mutex
		var last []byte
		s.settle = func(ctx context.Context, c idemflight.Claim, what idemflight.Settlement) (idemflight.Standing, error) {
			x, err := s.Memory.Settle(ctx, c, what)
			mu.Lock()
			defer mu.Unlock()
			if last != nil && what.Disposition == idemflight.Retain && s.each(20) {
				x = idemflight.Standing{State: idemflight.Retained, ID: c.ID, Value: last, ExpiresIn: time.Hour}
			}
			if what.Disposition == idemflight.Retain {
				last = what.Value
			}
			return x, err
		}
	}},
	"Forget says no and drops": {"began while an outcome was kept", smallStored, func(_ *bentStore, b *bent, _ *planted) {
		b.forget = func(key int) (bool, error) { _, err := b.target.Forget(key); return false, err }
	}},
	"a copy outlives LocalTTL": {"had gone", withStored(func(m *mix) { m.TTL = time.Millisecond }), func(_ *bentStore, b *bent, _ *planted) {
		var kept sync.Map
		b.after(func(key int, res *result, err *error) {
			if v, ok := kept.Load(key); ok && res.Source == idemflight.Replayed && *err == nil && b.each(3) {
				res.Value = v.(*value)
			} else if res.Source == idemflight.Executed && *err == nil {
				kept.Store(key, res.Value)
			}
		})
	}},
}

// drivesStored drives one round over a store and caches that plant, if not nil, has made wrong.
func drivesStored(m mix, patience time.Duration, p *planted, plant func(*bentStore, *bent, *planted)) outcome {
	s := &bentStore{}
	e := Engine{Name: "bent", Open: func(context.Context) (idemflight.Store, func() error, error) {
		s.Memory = storetest.Mem()
		return s, func() error { return nil }, nil
	}}
	return stored(m, ints, patience, e, func(o options) target[int] {
		b := &bent{target: newCache(o)}
		if plant != nil {
			plant(s, b, p)
		}
		return b
	})
}

// TestSoakFindsPlantedFaultsOfStores drives stores, and caches with one, that are wrong in one way each.
func TestSoakFindsPlantedFaultsOfStores(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	for name, fault := range storedFaults {
		t.Run(name, func(t *testing.T) {
			for n := range attempts {
				settledGoroutines(goroutines+1, patiently)
				p := &planted{ends: make(chan struct{})}
				m := fault.mix
				m.Seed, m.Round = uint64(n), n
				out := drivesStored(m, 500*time.Millisecond, p, fault.plant)
				close(p.ends)
				if found(t, n, out, fault.says) {
					return
				}
			}
			require.Fail(t, "the soak has not found the fault")
		})
	}
}

// TestSmallStoredRoundsAreSound drives the library as the planted faults are driven, and some more.
func TestSmallStoredRoundsAreSound(t *testing.T) {
	for name, fault := range storedFaults {
		require.Empty(t, drivesStored(fault.mix, patiently, nil, nil).wrong, "the round of %q without the fault", name)
	}
	for _, m := range []mix{
		withStored(func(m *mix) { m.Heartbeats, m.Breaks = true, 20 }),
		withStored(func(m *mix) { m.Outage, m.Reconciles, m.Announced = true, true, true }),
		withStored(func(m *mix) { m.Dies, m.Reconciles, m.Traces, m.Close, m.Keys = true, true, true, restarts, 9 }),
	} {
		require.Empty(t, drivesStored(m, patiently, nil, nil).wrong, "%v", m)
	}
}

// TestAnEngineThatDoesNotAnswerIsAViolation asks for a store where none is.
func TestAnEngineThatDoesNotAnswerIsAViolation(t *testing.T) {
	e := Engine{"none", func(context.Context) (idemflight.Store, func() error, error) {
		return nil, nil, errors.New("nobody listens")
	}}
	out := stored(smallStored, ints, patiently, e, newCache[int])
	require.True(t, out.stuck)
	require.Equal(t, []string{"none: nobody listens"}, out.wrong)
}
