package storetest_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/storetest"
)

// Promises 38 and 39: a store that fails, loses answers, or knows better.

// Promise 38: Without the store's answer fn does not run: ErrStore. An outcome that the store did
// not take is held, and offered again.
func TestPromise38_WithoutTheStoreFnDoesNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		var told atomic.Int64
		a := over(t, m, func(o *options) {
			o.Observer = func(_ context.Context, e idemflight.Event[string]) {
				if e.Kind == idemflight.EventStore {
					told.Add(1)
				}
			}
		})
		require.Equal(t, 1, must(a.Do(bg, "kept", returns(1, nil))))
		m.Fail("Claim", storetest.Before, 1<<30)
		_, err := a.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrStore)
		require.NotErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		s := a.Stats()
		require.EqualValues(t, 1, s.StoreFailed)
		require.NotZero(t, s.StoreErrors)
		require.EqualValues(t, s.StoreErrors, told.Load())
		require.Zero(t, s.InFlight)
		require.Equal(t, 1, must(a.Do(bg, "kept", mustNotRun(t))), "what is in memory is replayed")
		m.Fail("Claim", storetest.Before, 0)
		require.Equal(t, 2, must(a.Do(bg, theKey, returns(2, nil))))
		time.Sleep(time.Minute) // and no heartbeat is left
	})
}

func TestPromise38_AClaimWithoutAnAnswerIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		m.Fail("Claim", storetest.After, 1<<30)
		_, err := a.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrStore)
		m.Fail("Claim", storetest.After, 0)
		m.Fail("GiveBack", storetest.Before, 1)
		for range 2 {
			_, err = b.Do(bg, theKey, mustNotRun(t), idemflight.WithMaxWait(idemflight.NoWait))
			require.ErrorIs(t, err, idemflight.ErrInFlight, "an orphan")
			time.Sleep(10*time.Second + time.Nanosecond)
		}
		require.Equal(t, 2, must(b.Do(bg, theKey, returns(2, nil))), "the heartbeat has given it back")
	})
}

func TestPromise38_BeginEffectIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		m.Fail("Begin", storetest.Before, 1<<30)
		_, err := a.Do(bg, theKey, func(ctx context.Context) (int, error) {
			err := idemflight.BeginEffect(ctx)
			require.ErrorIs(t, err, idemflight.ErrStore)
			return 0, err
		})
		require.ErrorIs(t, err, idemflight.ErrStore)
		require.NotErrorIs(t, err, idemflight.ErrOutcomeUnknown, "nothing has begun")
		m.Fail("Begin", storetest.Before, 0)
		require.Equal(t, 2, must(over(t, m).Do(bg, theKey, returns(2, nil))), "released")
	})
}

func TestPromise38_WhatTheStoreDidNotTakeIsHeldAndOfferedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		m.Fail("Settle", storetest.Before, 1<<30)
		v, err := a.Do(bg, theKey, returns(7, nil))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.ErrorIs(t, err, idemflight.ErrStore)
		require.ErrorContains(t, err, "its outcome was not recorded by the store")
		require.Equal(t, 7, v)
		_, err = a.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "its own later calls")
		require.ErrorIs(t, err, idemflight.ErrStore)
		_, err = a.Do(bg, theKey, mustNotRun(t), idemflight.WithFingerprint(idemflight.FingerprintOf([]byte("x"))))
		require.ErrorIs(t, err, idemflight.ErrKeyReused)
		time.Sleep(time.Minute)
		_, err = b.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "the lease has ended")
		m.Fail("Settle", storetest.Before, 0)
		time.Sleep(time.Minute)
		require.Equal(t, 7, must(b.Do(bg, theKey, mustNotRun(t))))
		require.Equal(t, 7, must(a.Do(bg, theKey, mustNotRun(t))))
	})
}

// Promise 39: An outcome that the engine already has counts, whatever fn returned: a commit whose
// answer was lost still counts.
func TestPromise39_TheEnginesOutcomeCounts(t *testing.T) {
	for _, committed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			m := storetest.Mem()
			a := over(t, m)
			ctx, cancel := context.WithCancel(bg)
			defer cancel()
			v, err := a.Do(ctx, theKey, func(ctx context.Context) (int, error) {
				c, s, err := idemflight.Settling(ctx, 7, nil)
				require.NoError(t, err)
				if committed {
					_, err = m.Settle(ctx, c, s)
					require.NoError(t, err)
				}
				return 0, errors.New("the answer to the commit was lost")
			})
			if !committed {
				require.EqualError(t, err, "the answer to the commit was lost")
				require.Equal(t, 5, must(over(t, m).Do(bg, theKey, returns(5, nil))), "released: it did nothing")
				return
			}
			require.NoError(t, err)
			require.Equal(t, 7, v)
			require.Equal(t, 7, must(over(t, m).Do(bg, theKey, mustNotRun(t))))
		})
	}
}

func TestPromise39_SettlingWantsWhatCanBeKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, err := idemflight.Settling(bg, 7, nil)
		require.ErrorIs(t, err, idemflight.ErrNotExecuting)
		_, err = idemflight.MustNew(options{}).Do(bg, theKey, func(ctx context.Context) (int, error) {
			_, _, err := idemflight.Settling(ctx, 7, nil)
			return 0, idemflight.Retryable(err)
		})
		require.ErrorIs(t, err, idemflight.ErrNotExecuting)
		require.ErrorContains(t, err, "the cache of this execution has no Store")
		a := over(t, storetest.Mem())
		_, err = a.Do(bg, theKey, func(ctx context.Context) (int, error) {
			_, _, err := idemflight.Settling(ctx, "text", nil)
			require.ErrorContains(t, err, "a value of type string, and the cache has int")
			_, _, err = idemflight.Settling(ctx, 7, errBoom)
			require.ErrorContains(t, err, "must be nil or Final(err)")
			_, s, err := idemflight.Settling(ctx, 7, idemflight.Final(errBoom))
			require.NoError(t, err)
			require.Equal(t, idemflight.Settlement{Disposition: idemflight.Retain, Value: []byte("7"), Err: []byte("\nboom"), TTL: 24 * time.Hour}, s)
			return 0, errBoom
		})
		require.Equal(t, errBoom, err, "Settling counts as NoEffect at the top")
	})
}

func TestPromise38_AKeyThatTheStoreDoesNotTakeIsInvalid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		m.Hook(func(context.Context, storetest.When, string, idemflight.Claim) error {
			return fmt.Errorf("%w: too long", idemflight.ErrInvalidKey)
		})
		_, err := a.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrInvalidKey)
		require.NotErrorIs(t, err, idemflight.ErrStore)
		require.Equal(t, 1, m.Asked("Claim"), "it is an answer")
		require.EqualValues(t, 1, a.Stats().InvalidKey)
	})
}

func TestPromise38_BeginEffectWaitsNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		m.Fail("Begin", storetest.Before, -1)
		_, err := over(t, m).Do(bg, theKey, func(ctx context.Context) (int, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			began := time.Now()
			err := idemflight.BeginEffect(ctx)
			require.Equal(t, time.Second, time.Since(began))
			return 0, err
		})
		require.ErrorIs(t, err, idemflight.ErrStore)
	})
}

// inconsistent is a store that grants nothing of what it says is absent.
type inconsistent struct{ *storetest.Memory }

func (inconsistent) Claim(context.Context, idemflight.ClaimRequest) (idemflight.Standing, error) {
	return idemflight.Standing{}, nil
}

func TestPromise38_AStoreThatContradictsItselfStrandsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := over(t, inconsistent{storetest.Mem()}).Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrStore)
	})
}

func TestPromise38_WhatCannotBeReadDoesNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		texts := idemflight.MustNew(idemflight.Options[string, string]{Store: m})
		_, err := texts.Do(bg, theKey, func(context.Context) (string, error) { return "text", nil })
		require.NoError(t, err)
		_, err = over(t, m).Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrStore)
	})
}

func TestPromise38_WhatCannotBeEncoded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m, func(o *options) {
			o.Codec.EncodeKey = func(key string) (string, error) {
				if key != theKey {
					return "", errBoom
				}
				return key, nil
			}
			o.Codec.DecodeKey = func(key string) (string, error) { return key, nil }
			o.Codec.EncodeValue = func(int) ([]byte, error) { return nil, errBoom }
			o.Codec.DecodeValue = func([]byte) (int, error) { return 0, nil }
		}), over(t, m)
		v, err := a.Do(bg, theKey, returns(7, nil))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "its effect is done")
		require.ErrorIs(t, err, errBoom)
		require.Equal(t, 7, v)
		_, err = b.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		_, err = a.Do(bg, "another", mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrInvalidKey)
		require.ErrorIs(t, err, errBoom)
	})
}

func TestPromise38_WhatWasLostIsUnknownUnlessNothingHadBegun(t *testing.T) {
	settles := func(ctx context.Context) error {
		_, _, err := idemflight.Settling(ctx, 1, nil)
		return err
	}
	for name, tc := range map[string]struct {
		does            func(context.Context) error
		returns         error
		begins, unknown bool
	}{
		"nothing begun":                  {does: func(context.Context) error { return nil }, returns: errBoom},
		"begun":                          {does: idemflight.BeginEffect, returns: errBoom, begins: true, unknown: true},
		"perhaps settled":                {does: settles, returns: errBoom, unknown: true},
		"not settled, the store says so": {does: settles, returns: idemflight.ErrClaimLost},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := storetest.Mem()
				a, b := over(t, m, announced), over(t, m, announced)
				wakes := make(chan struct{})
				late := slow(t, m, a, func(ctx context.Context) (int, error) {
					require.NoError(t, tc.does(ctx))
					<-wakes
					return 0, idemflight.Retryable(tc.returns)
				})
				if tc.begins {
					require.NoError(t, b.Resolve(bg, theKey, 2, nil))
				} else {
					require.Equal(t, 2, must(b.Do(bg, theKey, returns(2, nil))))
				}
				close(wakes)
				got := <-late
				require.ErrorIs(t, got.err, tc.returns)
				require.Equal(t, tc.unknown, errors.Is(got.err, idemflight.ErrOutcomeUnknown))
				if tc.unknown {
					require.ErrorIs(t, got.err, idemflight.ErrClaimLost)
				}
			})
		})
	}
}

// Its transaction has closed the claim: the heartbeat finds it lost.
func TestPromise39_WhoHasSettledIsNotStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		var last context.Context
		v, err := over(t, m).Do(bg, theKey, func(ctx context.Context) (int, error) {
			last = ctx
			c, s, err := idemflight.Settling(ctx, 7, nil)
			require.NoError(t, err)
			_, err = m.Settle(ctx, c, s)
			require.NoError(t, err)
			select {
			case <-ctx.Done():
				t.Error(context.Cause(ctx))
			case <-time.After(20 * time.Second):
			}
			return 0, errBoom
		})
		require.NoError(t, err)
		require.Equal(t, 7, v)
		_, _, err = idemflight.Settling(last, 7, nil)
		require.ErrorIs(t, err, idemflight.ErrNotExecuting, "fn has returned")
	})
}

// The store's own goroutines and panics are no reason to strand anybody.
func TestAStoreThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		times := 0
		m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if times++; times < 3 && when == storetest.Before {
				panic("the driver's bug")
			}
			return nil
		})
		require.Equal(t, 7, must(a.Do(bg, theKey, returns(7, nil))))
		require.NotZero(t, a.Stats().StoreErrors)
	})
}

func TestPanicsOverAStore(t *testing.T) {
	for name, inline := range map[string][]idemflight.CallOption{"inline": {idemflight.Inline()}, "on a goroutine": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := storetest.Mem()
				a, b := over(t, m), over(t, m)
				ctx, cancel := context.WithCancel(bg)
				defer cancel()
				require.Panics(t, func() {
					_, _ = a.Do(ctx, theKey, func(context.Context) (int, error) { panic("boom") }, inline...)
				})
				_, err := b.Do(bg, theKey, mustNotRun(t))
				require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
				require.ErrorContains(t, err, "fn panicked and had not said whether an effect had begun")
				require.Zero(t, a.Stats().InFlight)
			})
		})
	}
}

// loop is an error that wraps itself, and hydra one that does so twice.
type (
	loop  struct{}
	hydra struct{}
)

func (loop) Error() string    { return "loop" }
func (loop) Unwrap() error    { return loop{} }
func (hydra) Error() string   { return "hydra" }
func (hydra) Unwrap() []error { return []error{hydra{}, hydra{}} }

// An error without end is recorded like any other, whether fn, the store or the codec comes up with it.
func TestPromise38_AnErrorWithoutEndIsRecorded(t *testing.T) {
	for _, endless := range []error{loop{}, hydra{}} {
		synctest.Test(t, func(t *testing.T) {
			m := storetest.Mem()
			a, b := over(t, m), over(t, m)
			_, err := a.Do(bg, theKey, returns(0, endless))
			require.True(t, isUnknown(err))
			_, err = b.Do(bg, theKey, mustNotRun(t))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			require.ErrorContains(t, err, endless.Error())
			_, err = a.Do(bg, "final", returns(0, idemflight.Final(endless)))
			require.EqualError(t, err, endless.Error())
			_, err = b.Do(bg, "final", mustNotRun(t))
			require.EqualError(t, err, endless.Error())

			m.Hook(func(context.Context, storetest.When, string, idemflight.Claim) error { return endless })
			_, err = a.Do(bg, "store", mustNotRun(t))
			require.ErrorIs(t, err, idemflight.ErrStore)
			m.Hook(nil)

			mute := over(t, m, func(o *options) {
				o.Codec.EncodeKey = func(string) (string, error) { return "", endless }
				o.Codec.DecodeKey = func(s string) (string, error) { return s, nil }
			})
			_, err = mute.Do(bg, "codec", mustNotRun(t))
			require.ErrorIs(t, err, idemflight.ErrInvalidKey)
			time.Sleep(time.Minute)
		})
	}
}

// isUnknown is errors.Is(err, ErrOutcomeUnknown) of an err that may wrap something without end.
func isUnknown(err error) bool {
	is, ok := err.(interface{ Is(error) bool })
	return ok && is.Is(idemflight.ErrOutcomeUnknown)
}

// shy is an error whose Is panics.
type shy struct{}

func (shy) Error() string { return "shy" }
func (shy) Is(error) bool { panic("shy") }

// What a codec comes up with is looked at without a lock: the cache goes on.
func TestPromise38_ACodecsErrorThatPanicsLocksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := over(t, storetest.Mem(), func(o *options) {
			o.Codec.EncodeKey = func(key string) (string, error) {
				if key == theKey {
					return "", shy{}
				}
				return key, nil
			}
			o.Codec.DecodeKey = func(s string) (string, error) { return s, nil }
		})
		_, err := c.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrInvalidKey)
		require.EqualValues(t, 1, c.Stats().InvalidKey)
		for i := range 256 { // of every shard
			require.Equal(t, i, must(c.Do(bg, fmt.Sprint(i), returns(i, nil))))
		}
	})
}

// A store's failure counts as that, whatever the store wraps in it.
func TestPromise38_AStoresFailureCountsAsThat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		c := over(t, m)
		m.Hook(func(context.Context, storetest.When, string, idemflight.Claim) error {
			return fmt.Errorf("the proxy says: %w", idemflight.ErrOutcomeUnknown)
		})
		_, err := c.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrStore)
		require.EqualValues(t, 1, c.Stats().StoreFailed)
		require.Zero(t, c.Stats().OutcomeUnknown)
	})
}

// lax is a store that grants the claim of a held key to anybody.
type lax struct{ *storetest.Memory }

func (s lax) Claim(ctx context.Context, r idemflight.ClaimRequest) (idemflight.Standing, error) {
	x, err := s.Memory.Claim(ctx, r)
	if err == nil && x.State == idemflight.Held {
		x.Granted = true
	}
	return x, err
}

// A store that breaks its rules is an error. fn does not run on a held key.
func TestPromise38_AHeldKeyThatIsGrantedUnaskedDoesNotRun(t *testing.T) {
	for _, reconcile := range []func(context.Context, string, idemflight.Entry[int]) (int, error){
		nil,
		func(context.Context, string, idemflight.Entry[int]) (int, error) { return 0, errBoom },
	} {
		synctest.Test(t, func(t *testing.T) {
			m := storetest.Mem()
			_, err := over(t, m).Do(bg, theKey, returns(0, errBoom))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			c := over(t, lax{m}, func(o *options) { o.Reconcile = reconcile })
			_, err = c.Do(bg, theKey, mustNotRun(t))
			require.ErrorIs(t, err, idemflight.ErrStore)
			require.ErrorContains(t, err, "it granted the claim of a held key")
			m.Hook(nil)
			time.Sleep(time.Minute)
			e, _, err := c.Lookup(bg, theKey)
			require.NoError(t, err)
			require.Equal(t, idemflight.Held, e.State)
		})
	}
}
