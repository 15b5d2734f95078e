package storetest_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/yield"
	"github.com/idemflight/idemflight/storetest"
)

// What mutation of the layer over the Store has found to be untested.

// edited is a store whose answers to Claim are changed.
type edited struct {
	*storetest.Memory
	claim func(r idemflight.ClaimRequest, x *idemflight.Standing)
}

func (s edited) Claim(ctx context.Context, r idemflight.ClaimRequest) (idemflight.Standing, error) {
	x, err := s.Memory.Claim(ctx, r)
	s.claim(r, &x)
	return x, err
}

func TestPromise38_TheTextSaysWhatAStoreDidWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := over(t, inconsistent{storetest.Mem()}).Do(bg, theKey, mustNotRun(t))
		require.ErrorContains(t, err, "it does not grant the claim of a key that it says is absent")
	})
}

// A caller that runs fn itself, and that has to know first whether the key is in flight, leaves like any other.
func TestPromise36_WhoWaitsForTheStoresAnswerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		asking := make(chan struct{})
		hooked(m, storetest.Before, "Claim", func(context.Context) { <-asking })
		led := start(a, bg, returns(7, nil))
		synctest.Wait()
		ctx, cancel := context.WithCancel(bg)
		left := start(a, ctx, mustNotRun(t), idemflight.Inline(), payload)
		synctest.Wait()
		require.Empty(t, left)
		cancel()
		synctest.Wait()
		require.Len(t, left, 1, "the store has not answered yet")
		require.ErrorIs(t, (<-left).err, idemflight.ErrKeyReused)
		close(asking)
		require.NoError(t, (<-led).err)
	})
}

// Only a grant that comes too late is given back, and once.
func TestPromise30_ARefusalThatComesLateIsAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		require.Equal(t, 7, must(over(t, m).Do(bg, theKey, returns(7, nil))))
		a := over(t, m, func(o *options) { o.Lease = time.Second })
		late := func(context.Context) { time.Sleep(time.Second) }
		hooked(m, storetest.After, "Claim", late)
		asked := m.Asked("Claim")
		require.Equal(t, 7, must(a.Do(bg, theKey, mustNotRun(t))))
		require.Equal(t, 1, m.Asked("Claim")-asked)
		time.Sleep(time.Minute)
		require.Zero(t, m.Asked("GiveBack"))

		hooked(m, storetest.After, "Claim", func(ctx context.Context) {
			m.Hook(nil)
			late(ctx)
		})
		_, err := a.Do(bg, "other", returns(8, nil))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Equal(t, 1, m.Asked("GiveBack"))
	})
}

func TestPromise38_HowLongWhatWasNotRecordedIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		m.Fail("Settle", storetest.Before, -1)
		_, err := a.Do(bg, theKey, returns(7, nil))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		_, err = a.Do(bg, theKey, mustNotRun(t))
		require.ErrorContains(t, err, "until "+time.Now().Add(30*time.Second).UTC().Format("2006-01-02 15:04:05Z"))
		m.Fail("Settle", storetest.Before, 0)
		time.Sleep(time.Minute)
	})
}

func TestPromise43_TheOperatorHearsWhyTheStoreFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m, func(o *options) { o.Reconcile = unknown })
		m.Fail("Read", storetest.Before, -1)
		_, err := a.Reconcile(bg, theKey)
		require.ErrorIs(t, err, idemflight.ErrStore)
		require.ErrorIs(t, err, storetest.ErrFailed)
		require.NotErrorIs(t, err, idemflight.ErrGoexit)
	})
}

// Each answer of the store decides alone what is asked next.
func TestPromise31_AKeyThatGetsFreeDuringATakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		dead := idemflight.ClaimRequest{Claim: idemflight.Claim{Key: theKey, ID: idemflight.ClaimID{1}}, Lease: time.Second, EffectsAnnounced: true}
		x, err := m.Claim(bg, dead)
		require.NoError(t, err)
		require.True(t, x.Granted)
		time.Sleep(time.Second)
		a := over(t, m, announced)
		asked := m.Asked("Claim")
		hooked(m, storetest.After, "Claim", func(context.Context) {
			m.Hook(nil)
			require.NoError(t, m.GiveBack(bg, dead.Claim))
		})
		require.Equal(t, 7, must(a.Do(bg, theKey, returns(7, nil))))
		require.Equal(t, 3, m.Asked("Claim")-asked, "the dead owner's, with Replaces; nobody's; nobody's, without")
	})
}

// A claim that has begun and of which the lease is over is unknown, whatever the store calls it.
func TestPromise31_ABegunClaimWhoseLeaseIsOverIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := over(t, edited{storetest.Mem(), func(_ idemflight.ClaimRequest, x *idemflight.Standing) {
			*x = idemflight.Standing{State: idemflight.InFlight, ID: idemflight.ClaimID{1}, Begun: true}
		}})
		_, err := a.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
	})
}

func TestPromise38_WhatAStoreGrantsWithoutRightIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		_, err := over(t, m).Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		_, err = over(t, lax{m}).Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrStore)
		time.Sleep(time.Minute)
		require.Equal(t, 1, m.Asked("GiveBack"))

		c := over(t, edited{m, func(_ idemflight.ClaimRequest, x *idemflight.Standing) {
			if x.Granted {
				x.State = idemflight.Absent
			}
		}}, func(o *options) { o.Reconcile = unknown })
		_, err = c.Reconcile(bg, theKey)
		require.ErrorIs(t, err, idemflight.ErrNotHeld, "nobody's fn is to run")
		require.NotErrorIs(t, err, idemflight.ErrStore)
	})
}

func TestPromise43_WhatAnOperatorHasSettledIsNotGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		_, err := a.Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.NoError(t, a.Resolve(bg, theKey, 4, nil))
		require.NoError(t, a.Restore(bg, "other", idemflight.Entry[int]{State: idemflight.Retained, Value: 1, ExpiresAt: time.Now().Add(time.Hour)}))
		time.Sleep(time.Minute)
		require.Zero(t, m.Asked("GiveBack"))
	})
}

// heldAs writes a held record with this text as its error.
func heldAs(t *testing.T, m *storetest.Memory, text string) {
	t.Helper()
	r := idemflight.ClaimRequest{Claim: idemflight.Claim{Key: theKey, ID: idemflight.ClaimID{1}}, Lease: time.Minute}
	_, err := m.Claim(bg, r)
	require.NoError(t, err)
	_, err = m.Settle(bg, r.Claim, idemflight.Settlement{Disposition: idemflight.Hold, Err: []byte(text), TTL: time.Hour})
	require.NoError(t, err)
}

func TestPromise36_ReconcileIsToldOfAnErrorThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		heldAs(t, m, "@")
		a := over(t, m, func(o *options) {
			o.Reconcile = func(_ context.Context, _ string, held idemflight.Entry[int]) (int, error) {
				require.Error(t, held.Err)
				return 7, nil
			}
		})
		require.Equal(t, 7, must(a.Do(bg, theKey, mustNotRun(t))))
	})
}

// watched is a store that notes when Watch was asked; early says how often it returns at once.
type watched struct {
	*storetest.Memory
	began time.Time

	mu    sync.Mutex
	early int
	asked []time.Duration
}

func (s *watched) Watch(ctx context.Context, c idemflight.Claim) error {
	s.mu.Lock()
	s.asked = append(s.asked, time.Since(s.began))
	s.early--
	early := s.early >= 0
	s.mu.Unlock()
	if early {
		return nil
	}
	return s.Memory.Watch(ctx, c)
}

func (s *watched) times() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// A watch that fails is repeated more and more slowly; one that returns too early, as some engines have it, at
// once; and nobody asks for the claim again before there is news.
func TestPromise35_WhenAWatchIsRepeated(t *testing.T) {
	const ms = time.Millisecond
	for name, w := range map[string]struct {
		early, fails int
		want         []time.Duration
	}{
		"early": {early: 3, want: []time.Duration{0, 5 * ms, 10 * ms, 15 * ms}},
		"fails": {fails: 4, want: []time.Duration{0, 5 * ms, 15 * ms, 35 * ms, 75 * ms}},
		"both":  {early: 2, fails: 2, want: []time.Duration{0, 5 * ms, 10 * ms, 20 * ms, 40 * ms}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &watched{Memory: storetest.Mem(), early: w.early}
				m.Fail("Watch", storetest.Before, w.fails)
				a, b := over(t, m), over(t, m)
				fn, runs, release := blocked(7, nil)
				led := start(a, bg, fn)
				<-runs
				m.began = time.Now()
				asked := m.Asked("Claim")
				watches := start(b, bg, mustNotRun(t))
				time.Sleep(time.Second)
				require.Equal(t, w.want, m.times())
				close(release)
				owner, joined := <-led, <-watches
				require.NoError(t, owner.err)
				require.NoError(t, joined.err)
				require.Equal(t, 1, m.Asked("Claim")-asked)
				require.True(t, owner.res.ExpiresAt.Equal(joined.res.ExpiresAt), "counted from the last answer: %v and %v", owner.res.ExpiresAt, joined.res.ExpiresAt)
			})
		})
	}
}

// An owner that dies is found dead by the watch, too.
func TestPromise35_AWatchOfADeadOwnerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m, announced), over(t, m, announced)
		fn, runs, release := blocked(7, nil)
		ids := firstClaim(m)
		led := start(a, bg, fn)
		<-runs
		watches := start(b, bg, returns(8, nil))
		synctest.Wait()
		m.Hook(nil)
		require.True(t, m.Kill(<-ids))
		synctest.Wait()
		require.Len(t, watches, 1)
		require.Equal(t, 8, (<-watches).res.Value)
		close(release)
		<-led
	})
}

// Nobody watches once all callers have left, whoever is the last.
func TestPromise35_AWatchEndsWithItsLastCaller(t *testing.T) {
	for name, order := range map[string][2]int{"the leader leaves first": {0, 1}, "and last": {1, 0}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := storetest.Mem()
				a, b := over(t, m), over(t, m)
				fn, runs, release := blocked(7, nil)
				led := start(a, bg, fn)
				<-runs
				var leave [2]context.CancelFunc
				var calls [2]<-chan answer
				for i := range calls {
					var ctx context.Context
					ctx, leave[i] = context.WithCancel(bg)
					calls[i] = start(b, ctx, mustNotRun(t))
					synctest.Wait()
				}
				for n, i := range order {
					require.Equal(t, 1, b.Stats().InFlight, "%d have left", n)
					leave[i]()
					require.ErrorIs(t, (<-calls[i]).err, idemflight.ErrCallerLeft)
					synctest.Wait()
				}
				require.Zero(t, b.Stats().InFlight)
				close(release)
				require.NoError(t, (<-led).err)
			})
		})
	}
}

// eventLog are events, in their order.
type eventLog struct {
	mu     sync.Mutex
	events []idemflight.Event[string]
}

// observe notes the events of these kinds, all if there are none.
func (l *eventLog) observe(kinds ...idemflight.EventKind) func(*options) {
	return func(o *options) {
		o.Observer = func(_ context.Context, e idemflight.Event[string]) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if len(kinds) == 0 || slices.Contains(kinds, e.Kind) {
				l.events = append(l.events, e)
			}
		}
	}
}

// all returns the events so far, once nothing is under way. Only in a bubble.
func (l *eventLog) all() []idemflight.Event[string] {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.events
}

// onYield calls at when the library comes to a point, until the test ends. Only goroutines of a bubble count.
func onYield(t *testing.T, at func(point string)) {
	yield.Hook(func(point string) {
		if time.Now().Year() < 2020 {
			at(point)
		}
	})
	t.Cleanup(func() { yield.Hook(nil) })
}

// What another process has retained comes with its times, is copied with its weight, and its copy is reclaimed
// by a timer, which rests when there is nothing to reclaim.
func TestPromise42_ACopyIsReclaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fired := 0
		onYield(t, func(point string) {
			if point == "fired" {
				fired++
			}
		})
		m := storetest.Mem()
		weighs := func(o *options) { o.MaxWeight, o.Weigh = 5, func(_ string, v int) int64 { return int64(v) } }
		a, b := over(t, m, always), over(t, m, weighs)
		time.Sleep(time.Hour)
		for key, v := range map[string]int{"x": 2, "y": 1} {
			made, err := a.DoResult(bg, key, returns(v, nil))
			require.NoError(t, err)
			time.Sleep(time.Second)
			got, err := b.DoResult(bg, key, mustNotRun(t))
			require.NoError(t, err)
			require.True(t, got.CompletedAt.Equal(made.CompletedAt), "%v and %v", got.CompletedAt, made.CompletedAt)
			require.True(t, got.ExpiresAt.Equal(made.ExpiresAt), "%v and %v", got.ExpiresAt, made.ExpiresAt)
		}
		require.EqualValues(t, 3, b.Stats().Weight)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		require.NotZero(t, fired)
		require.LessOrEqual(t, fired, 2)
		require.Zero(t, b.Stats().Weight)

		fired = 0
		require.Equal(t, 2, must(b.Do(bg, "x", mustNotRun(t))))
		was, err := a.Forget(bg, "x") // elsewhere
		require.True(t, was && err == nil)
		time.Sleep(time.Minute) // the copy has expired, and the timer is not due
		require.Equal(t, 9, must(b.Do(bg, "x", returns(9, nil))), "too heavy")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		require.Zero(t, fired, "how often the timer of an empty cache fires")
	})
}

// The copy that a flight found expired is the last: whatever becomes of the flight, the timer rests.
func TestPromise42_AFlightOverAnExpiredCopyLeavesNoTimer(t *testing.T) {
	for name, then := range map[string]func(t *testing.T, m *storetest.Memory, b *cache){
		"refused": func(t *testing.T, m *storetest.Memory, b *cache) {
			heldAs(t, m, "\nboom")
			_, err := b.Do(bg, theKey, mustNotRun(t))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		},
		"too heavy now": func(t *testing.T, m *storetest.Memory, b *cache) {
			require.Equal(t, 9, must(over(t, m, always).Do(bg, theKey, returns(9, nil))))
			require.Equal(t, 9, must(b.Do(bg, theKey, mustNotRun(t))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fired := 0
				onYield(t, func(point string) {
					if point == "fired" {
						fired++
					}
				})
				m := storetest.Mem()
				a, b := over(t, m, always), over(t, m, func(o *options) { o.MaxWeight, o.Weigh = 5, func(_ string, v int) int64 { return int64(v) } })
				require.Equal(t, 2, must(a.Do(bg, theKey, returns(2, nil))))
				require.Equal(t, 2, must(b.Do(bg, theKey, mustNotRun(t))))
				was, err := a.Forget(bg, theKey)
				require.True(t, was && err == nil)
				time.Sleep(time.Minute)
				then(t, m, b)
				fired = 0
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				require.Zero(t, fired)
			})
		})
	}
}

// A store whose Retained has no time left is not copied, and says so.
func TestPromise40_WhatIsAboutToExpireIsNotCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		require.Equal(t, 7, must(over(t, m).Do(bg, theKey, returns(7, nil))))
		b := over(t, edited{m, func(_ idemflight.ClaimRequest, x *idemflight.Standing) { x.ExpiresIn = 0 }})
		got, err := b.DoResult(bg, theKey, mustNotRun(t))
		require.NoError(t, err)
		require.Equal(t, 7, got.Value)
		require.True(t, got.ExpiresAt.Equal(time.Now()), "%v", got.ExpiresAt)
		require.Zero(t, b.Len())

		heldAs2 := over(t, edited{m, func(_ idemflight.ClaimRequest, x *idemflight.Standing) {
			*x = idemflight.Standing{State: idemflight.Held, ID: x.ID, Err: []byte("\nboom")}
		}})
		_, err = heldAs2.Do(bg, theKey, mustNotRun(t))
		require.ErrorContains(t, err, "until "+time.Now().UTC().Format("2006-01-02 15:04:05Z"))
	})
}

func TestPromise38_TheTextSaysThatARecordCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		require.Equal(t, 7, must(over(t, m).Do(bg, theKey, returns(7, nil))))
		for _, decode := range []func([]byte) (int, error){
			func([]byte) (int, error) { return 0, errBoom },
			func([]byte) (int, error) { panic(errBoom) },
		} {
			b := over(t, m, func(o *options) {
				o.Codec.EncodeValue = func(int) ([]byte, error) { return nil, errBoom }
				o.Codec.DecodeValue = decode
			})
			_, err := b.Do(bg, theKey, mustNotRun(t))
			require.ErrorIs(t, err, idemflight.ErrStore)
			require.ErrorContains(t, err, "its record cannot be read")
			require.ErrorContains(t, err, "boom")
		}
	})
}

func TestPromise37_WhatIsHeldElsewhereSaysWhyAndUntilWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		_, err := over(t, m).Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		_, err = over(t, m).Do(bg, theKey, mustNotRun(t))
		require.ErrorContains(t, err, "until "+time.Now().Add(7*24*time.Hour).UTC().Format("2006-01-02 15:04:05Z"))

		m = storetest.Mem()
		_, err = over(t, m, func(o *options) { o.HoldTTL = -1 }).Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		_, err = over(t, m).Do(bg, theKey, mustNotRun(t))
		require.NotContains(t, err.Error(), "until 20")

		for text, want := range map[string]string{"@": "is no origin", "=,\n": "why it is held: ", "=": "an error without text"} {
			m = storetest.Mem()
			heldAs(t, m, text)
			_, err = over(t, m).Do(bg, theKey, mustNotRun(t))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			require.ErrorContains(t, err, want)
		}
	})
}

func TestPromise39_SettlingKeepsTheTTLOfItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := over(t, storetest.Mem())
		_, err := a.Do(bg, theKey, func(ctx context.Context) (int, error) {
			_, s, err := idemflight.Settling(ctx, 7, nil)
			require.NoError(t, err)
			require.Zero(t, s.TTL)
			return 7, nil
		}, idemflight.WithTTL(0))
		require.NoError(t, err)
	})
}

func TestPromise25_AWeighThatPanicsOverACopyIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		require.Equal(t, 7, must(over(t, m).Do(bg, theKey, returns(7, nil))))
		var log eventLog
		b := over(t, m, log.observe(idemflight.EventPanicked), func(o *options) {
			o.MaxWeight, o.Weigh = 5, func(string, int) int64 { panic(errBoom) }
		})
		require.Equal(t, 7, must(b.Do(bg, theKey, mustNotRun(t))))
		require.Len(t, log.all(), 1)
		require.ErrorIs(t, log.events[0].Err, errBoom)
		require.EqualValues(t, 1, b.Stats().HookPanics)
	})
}

// The call that leads the flight that asks the store, and hears of an outcome there, is a replay like any other.
func TestPromise25_AReplayFromTheStoreIsToldAsThat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		require.Equal(t, 7, must(over(t, m).Do(bg, theKey, returns(7, nil))))
		var log eventLog
		b := over(t, m, log.observe())
		time.Sleep(time.Second)
		hooked(m, storetest.Before, "Claim", func(context.Context) { time.Sleep(time.Second) })
		require.Equal(t, 7, must(b.Do(bg, theKey, mustNotRun(t))))
		require.Equal(t, []idemflight.Event[string]{{Kind: idemflight.EventReplayed, Key: theKey, Led: true}}, log.all())
		require.EqualValues(t, 1, b.Stats().Replayed)
		require.Zero(t, b.Stats().Executed)
	})
}

func TestPromise37_WhyAKeyIsHeldWhoeverWroteIt(t *testing.T) {
	for text, want := range map[string]string{
		"\nboom":      "it was held when it was restored: boom",
		"=9,\nboom":   "its outcome was not recorded by the store: boom",
		"=11,\nboom":  "it was held when it was restored: boom", // of a later version
		"=255,\nboom": "it was held when it was restored: boom",
	} {
		synctest.Test(t, func(t *testing.T) {
			m := storetest.Mem()
			heldAs(t, m, text)
			_, err := over(t, m).Do(bg, theKey, mustNotRun(t))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			require.ErrorContains(t, err, want)
		})
	}
}

// As long as the store is asked whether an effect may begin, one may begin: if fn ends first, nobody knows.
func TestPromise38_WhoAsksWhetherAnEffectMayBeginMayHaveBegunIt(t *testing.T) {
	for name, before := range map[string]func(ctx context.Context) error{
		"the first": func(context.Context) error { return nil },
		"after one taken back": func(ctx context.Context) error {
			err := idemflight.BeginEffect(ctx)
			idemflight.NoEffect(ctx)
			return err
		},
		"the store's Goexit": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := storetest.Mem()
				a := over(t, m)
				asking := make(chan struct{})
				_, err := a.Do(bg, theKey, func(ctx context.Context) (int, error) {
					if before == nil {
						hooked(m, storetest.Before, "Begin", func(context.Context) { runtime.Goexit() })
						var exits sync.WaitGroup
						exits.Go(func() { _ = idemflight.BeginEffect(ctx) })
						exits.Wait()
						return 0, errBoom
					}
					require.NoError(t, before(ctx))
					hooked(m, storetest.Before, "Begin", func(context.Context) { <-asking })
					go func() { _ = idemflight.BeginEffect(ctx) }()
					synctest.Wait()
					return 0, errBoom
				})
				require.ErrorIs(t, err, errBoom)
				require.Equal(t, before != nil, errors.Is(err, idemflight.ErrOutcomeUnknown), "%v", err)
				close(asking)
			})
		})
	}
}

// deadOwner writes a claim of theKey that has begun nothing, and whose lease is over.
func deadOwner(t *testing.T, m *storetest.Memory) idemflight.Claim {
	t.Helper()
	r := idemflight.ClaimRequest{Claim: idemflight.Claim{Key: theKey, ID: idemflight.ClaimID{1}}, Lease: time.Second, EffectsAnnounced: true}
	x, err := m.Claim(bg, r)
	require.NoError(t, err)
	require.True(t, x.Granted)
	time.Sleep(time.Second)
	return r.Claim
}

func TestPromise43_AKeyWhoseOwnerDiedWithoutAnEffectIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		deadOwner(t, m)
		a := over(t, m, announced)
		_, ok, err := a.Lookup(bg, theKey)
		require.NoError(t, err)
		require.False(t, ok)
		for _, key := range []string{theKey, "never seen"} {
			was, err := a.Forget(bg, key)
			require.NoError(t, err)
			require.False(t, was)
		}
		require.Zero(t, m.Asked("Forget"))
		require.NoError(t, a.Unsettled(bg, func(key string, _ idemflight.Entry[int]) bool {
			t.Errorf("Unsettled has %q, which no operator can settle", key)
			return true
		}))
	})
}

// A Restore that was cut off between its claim and its settlement is made again, and counts.
func TestPromise43_ARestoreThatWasCutOffIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		hooked(m, storetest.After, "Claim", func(context.Context) { m.KillAll() })
		e := idemflight.Entry[int]{State: idemflight.Retained, Value: 7, CompletedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
		require.ErrorIs(t, over(t, m, announced).Restore(bg, theKey, e), idemflight.ErrClaimLost)
		m.Hook(nil)
		a := over(t, m, announced)
		require.NoError(t, a.Restore(bg, theKey, e))
		require.Equal(t, 7, must(a.Do(bg, theKey, mustNotRun(t))))
		require.ErrorContains(t, a.Restore(bg, theKey, e), "retained: restored twice?")
	})
}

// tooLarge has the store refuse the settlements of the first claim, for good.
func tooLarge(m *storetest.Memory) {
	var first idemflight.ClaimID
	m.Hook(func(_ context.Context, when storetest.When, verb string, c idemflight.Claim) error {
		if when == storetest.Before && verb == "Settle" && (first == c.ID || first == idemflight.ClaimID{}) {
			first = c.ID
			return errBoom
		}
		return nil
	})
}

// What an operator did counts here, too, although the store has not refused this process's outcome yet.
func TestPromise43_WhatAnOperatorSettlesIsNoLongerOffered(t *testing.T) {
	for name, settle := range map[string]func(*cache) error{
		"Resolve": func(c *cache) error { return c.Resolve(bg, theKey, 8, nil) },
		"Forget": func(c *cache) error {
			was, err := c.Forget(bg, theKey)
			require.True(t, was)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := storetest.Mem()
				tooLarge(m)
				a := over(t, m)
				_, err := a.Do(bg, theKey, returns(7, nil))
				require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
				time.Sleep(31 * time.Second) // the lease has ended
				_, err = a.Do(bg, theKey, mustNotRun(t))
				require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
				require.NoError(t, settle(a))
				require.Equal(t, 8, must(a.Do(bg, theKey, returns(8, nil))))
				asked := m.Asked("Settle")
				time.Sleep(time.Hour)
				require.Equal(t, asked, m.Asked("Settle"), "nothing is offered any more")
			})
		})
	}
}

// While the claim of what is offered is still open, Forget marks the key, and the store goes on being offered the
// outcome: without it the key would be held, since an effect may have taken place.
func TestPromise43_WhatIsForgottenInFlightIsStillOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m, func(o *options) { o.Lease = time.Second })
		m.Fail("Settle", storetest.Before, -1)
		_, err := b.Do(bg, theKey, returns(7, nil))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		e, ok, err := a.Lookup(bg, theKey)
		require.True(t, ok && err == nil)
		require.Equal(t, idemflight.InFlight, e.State)
		time.Sleep(time.Millisecond)
		was, err := b.Forget(bg, theKey)
		require.True(t, was && err == nil)
		m.Fail("Settle", storetest.Before, 0)
		time.Sleep(time.Minute)
		synctest.Wait()
		_, ok, err = a.Lookup(bg, theKey)
		require.NoError(t, err)
		require.False(t, ok)
	})
}

// An Observer asks the store that fails about the key of which it is told. That fails, and so on; but not without end.
func TestPromise25_AnObserverMayAskAStoreThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		depth, deepest, told := 0, 0, 0
		var a *cache
		a = over(t, m, func(o *options) {
			o.Observer = func(_ context.Context, e idemflight.Event[string]) {
				if e.Kind != idemflight.EventStore {
					return
				}
				told++
				if depth++; depth < 1000 {
					deepest = max(deepest, depth)
					_, _, _ = a.Lookup(bg, e.Key)
				}
				depth--
			}
		})
		m.Fail("Claim", storetest.Before, 1)
		m.Fail("Read", storetest.Before, -1)
		_, err := a.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrStore)
		require.Equal(t, 100, deepest)
		require.Greater(t, a.Stats().StoreErrors, uint64(told), "those of which it was not told")
		told = 0
		m.Fail("Read", storetest.Before, 1)
		_, _, err = a.Lookup(bg, theKey) // nothing of this is left
		require.NoError(t, err)
		require.Equal(t, 1, told)
	})
}

func TestPromise43_LookupOfAKeyInFlightHereTellsWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m, tracedBy(1)), over(t, m)
		fn, runs, release := blocked(7, nil)
		led := start(a, bg, fn)
		<-runs
		joined := start(a, bg, mustNotRun(t))
		synctest.Wait()
		e, ok, err := a.Lookup(bg, theKey)
		require.True(t, ok && err == nil)
		require.Equal(t, idemflight.InFlight, e.State)
		require.Equal(t, 1, e.Waiters)
		requireOrigin(t, 1, e.Origin, "Lookup")
		e, ok, err = b.Lookup(bg, theKey)
		require.True(t, ok && err == nil)
		require.Zero(t, e.Waiters)
		close(release)
		require.NoError(t, (<-led).err)
		require.NoError(t, (<-joined).err)
		e, _, err = a.Lookup(bg, theKey)
		require.NoError(t, err)
		require.Equal(t, idemflight.Retained, e.State)
	})
}

// The record is forgotten elsewhere, and another takes its place: that is forgotten.
func TestPromise43_AForgetThatIsLateForgetsWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		require.Equal(t, 7, must(b.Do(bg, theKey, returns(7, nil))))
		hooked(m, storetest.Before, "Forget", func(context.Context) {
			m.Hook(nil)
			was, err := b.Forget(bg, theKey)
			require.True(t, was && err == nil)
			require.Equal(t, 8, must(b.Do(bg, theKey, returns(8, nil))))
		})
		was, err := a.Forget(bg, theKey)
		require.True(t, was && err == nil)
		_, ok, err := a.Lookup(bg, theKey)
		require.NoError(t, err)
		require.False(t, ok)
	})
}

func TestPromise43_WhatAStoreGrantsToAnOperatorWithoutRightIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		heldAs(t, m, "\nboom")
		a := over(t, edited{m, func(_ idemflight.ClaimRequest, x *idemflight.Standing) {
			if x.Granted {
				x.State = idemflight.Absent
			}
		}})
		require.ErrorIs(t, a.Resolve(bg, theKey, 1, nil), idemflight.ErrNotHeld)
		time.Sleep(time.Minute)
		require.Equal(t, 1, m.Asked("GiveBack"))
	})
}

// An operator leaves whatever is being waited for: the store, Reconcile, or another's question.
func TestPromise43_AnOperatorMayLeave(t *testing.T) {
	for name, verb := range map[string]string{"the store": "Claim", "Reconcile": ""} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := storetest.Mem()
				heldAs(t, m, "\nboom")
				ends := make(chan struct{})
				a := over(t, m, func(o *options) {
					o.Reconcile = func(context.Context, string, idemflight.Entry[int]) (int, error) {
						<-ends
						return 7, nil
					}
				})
				if verb != "" {
					hooked(m, storetest.Before, verb, func(context.Context) { <-ends })
				}
				var left [2]chan error
				for i := range left {
					left[i] = make(chan error, 1)
				}
				ctx, cancel := context.WithCancel(bg)
				for _, left := range left { // the second meets the first
					go func() {
						_, err := a.Reconcile(ctx, theKey)
						left <- err
					}()
					synctest.Wait()
				}
				cancel()
				synctest.Wait()
				for _, left := range left {
					require.Len(t, left, 1)
					require.ErrorIs(t, <-left, idemflight.ErrCallerLeft)
				}
				close(ends)
				synctest.Wait()
				atRest(t, a)
			})
		})
	}
}

func TestPromise43_ReconcileTellsWhyItsAnswerIsMissing(t *testing.T) {
	for name, tc := range map[string]struct {
		when  storetest.When
		fails bool // Read, after what was found is recorded
		ends  bool // and the operator's context then
		want  error
	}{
		"the store fails":       {storetest.Before, true, false, idemflight.ErrStore},
		"the operator leaves":   {storetest.Before, true, true, idemflight.ErrCallerLeft},
		"he leaves as it comes": {storetest.After, false, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := storetest.Mem()
				heldAs(t, m, "\nboom")
				a := over(t, m, func(o *options) {
					o.Reconcile = func(context.Context, string, idemflight.Entry[int]) (int, error) { return 7, nil }
				})
				ctx, cancel := context.WithCancel(bg)
				defer cancel()
				settled := false
				m.Hook(func(_ context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
					settled = settled || verb == "Settle" && when == storetest.After
					if !settled || verb != "Read" || when != tc.when {
						return nil
					}
					if tc.ends {
						cancel()
					}
					if tc.fails {
						return errBoom
					}
					return nil
				})
				e, err := a.Reconcile(ctx, theKey)
				if tc.want != nil {
					require.ErrorIs(t, err, tc.want)
					require.Equal(t, tc.want == idemflight.ErrCallerLeft, errors.Is(err, idemflight.ErrCallerLeft))
					return
				}
				require.NoError(t, err)
				require.Equal(t, 7, e.Value)
			})
		})
	}
}

// An operator's Reconcile takes the place of a copy that is out of date, and gives it back.
func TestPromise43_ReconcileOverAStaleCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		found := 0
		a, b := over(t, m, func(o *options) {
			o.MaxEntries = 1
			o.Reconcile = func(context.Context, string, idemflight.Entry[int]) (int, error) { found++; return 9, nil }
		}), over(t, m)
		require.Equal(t, 7, must(a.Do(bg, theKey, returns(7, nil))))
		was, err := b.Forget(bg, theKey)
		require.True(t, was && err == nil)
		_, err = b.Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		e, err := a.Reconcile(bg, theKey)
		require.NoError(t, err)
		require.Equal(t, 9, e.Value)
		require.Equal(t, 1, found)
		require.Equal(t, 9, must(a.Do(bg, theKey, mustNotRun(t))))
		require.Equal(t, 5, must(a.Do(bg, "other", returns(5, nil))), "there is a place")
		require.Equal(t, 9, must(b.Do(bg, theKey, mustNotRun(t))))
	})
}

func TestPromise43_ReconcileOfAClosedCacheAndFromWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		heldAs(t, m, "\nboom")
		a := over(t, m, func(o *options) { o.Reconcile = unknown })
		require.Equal(t, 7, must(a.Do(bg, "other", func(ctx context.Context) (int, error) {
			_, err := a.Reconcile(ctx, "other")
			require.ErrorIs(t, err, idemflight.ErrReentrant)
			return 7, nil
		})))
		require.NoError(t, a.Close(bg))
		for _, key := range []string{theKey, "other"} { // of the second there is a copy
			_, err := a.Reconcile(bg, key)
			require.ErrorIs(t, err, idemflight.ErrClosed)
		}
		_, err := a.Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrClosed)
		require.Equal(t, 7, must(a.Do(bg, "other", returns(7, nil))))
	})
}

func TestPromise43_WhatRestoreWrites(t *testing.T) {
	past := idemflight.Entry[int]{StartedAt: time.Unix(1, 0), CompletedAt: time.Unix(2, 0)}
	for name, tc := range map[string]struct {
		change func(e *idemflight.Entry[int])
		text   string // of the error of a call
		until  time.Duration
	}{
		"held":      {func(e *idemflight.Entry[int]) { e.State, e.Err = idemflight.Held, errBoom }, "it was held when it was restored: boom", 0},
		"in flight": {func(e *idemflight.Entry[int]) { e.State, e.CompletedAt = idemflight.InFlight, time.Time{} }, "its execution was interrupted", 7 * 24 * time.Hour},
		"shed":      {func(e *idemflight.Entry[int]) { e.State, e.ExpiresAt = idemflight.Shed, time.Now().Add(2*time.Hour) }, idemflight.ErrValueShed.Error(), 2 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := storetest.Mem()
				e := past
				tc.change(&e)
				require.NoError(t, over(t, m).Restore(bg, theKey, e))
				is, ok, err := over(t, m).Lookup(bg, theKey)
				require.True(t, ok && err == nil)
				if tc.until == 0 {
					require.Zero(t, is.ExpiresAt)
				} else {
					require.Equal(t, tc.until, time.Until(is.ExpiresAt))
				}
				time.Sleep(time.Hour)
				_, err = over(t, m).Do(bg, theKey, mustNotRun(t))
				require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
				require.ErrorContains(t, err, tc.text)
			})
		})
	}
}

// Why a key is held comes with it from a memory-only version into the store.
func TestPromise43_LoadKeepsWhyAKeyIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := idemflight.MustNew(options{})
		_, err := old.Do(bg, theKey, func(ctx context.Context) (int, error) {
			return 0, errors.Join(idemflight.BeginEffect(ctx), errBoom)
		})
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		var saved bytes.Buffer
		require.NoError(t, old.Save(&saved))
		m := storetest.Mem()
		_, err = over(t, m).Load(bg, &saved)
		require.NoError(t, err)
		_, err = over(t, m).Do(bg, theKey, mustNotRun(t))
		require.ErrorContains(t, err, "fn failed after BeginEffect")
	})
}

func TestPromise43_RestoreOfWhatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		var log eventLog
		a := over(t, m, log.observe(idemflight.EventPanicked), func(o *options) {
			o.MaxWeight, o.Weigh = 5, func(string, int) int64 { panic(errBoom) }
		})
		require.Error(t, a.Restore(bg, theKey, idemflight.Entry[int]{State: idemflight.Held, Err: &hostile{}}))
		_, ok, err := a.Lookup(bg, theKey)
		require.NoError(t, err)
		require.False(t, ok, "nothing is written")
		require.NoError(t, a.Restore(bg, theKey, idemflight.Entry[int]{State: idemflight.Retained, Value: 7, ExpiresAt: time.Now().Add(time.Hour)}))
		require.Len(t, log.all(), 1)
	})
}

func TestPromise43_UnsettledSaysWhatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		heldAs(t, m, "@")
		a := over(t, m)
		err := a.Unsettled(bg, func(string, idemflight.Entry[int]) bool { return true })
		require.ErrorIs(t, err, idemflight.ErrStore)
		require.ErrorContains(t, err, `the record of "key"`)
		require.ErrorContains(t, err, "is no origin")
		require.Zero(t, a.Stats().StoreErrors)
		m.Fail("Unsettled", storetest.Before, 1)
		require.ErrorIs(t, a.Unsettled(bg, func(string, idemflight.Entry[int]) bool { return true }), idemflight.ErrStore)
		require.EqualValues(t, 1, a.Stats().StoreErrors)
	})
}

// A pause follows a Reconcile that learned nothing, not the hold that it is to find out about.
func TestPromise36_ReconcileIsAskedRightAfterTheHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := over(t, storetest.Mem(), func(o *options) {
			o.Reconcile = func(context.Context, string, idemflight.Entry[int]) (int, error) { return 7, nil }
		})
		_, err := a.Do(bg, theKey, returns(0, errBoom))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.Equal(t, 7, must(a.Do(bg, theKey, mustNotRun(t))))
	})
}

// until is how an error says until when a key is held.
func until(d time.Duration) string {
	return "until " + time.Now().Add(d).UTC().Format("2006-01-02 15:04:05Z")
}

func TestPromise38_UntilWhenWhatTheStoreDidNotTakeIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		m.Fail("Settle", storetest.Before, -1)
		ended := time.Now()
		_, err := a.Do(bg, theKey, returns(7, nil)) // tries for a lease
		require.ErrorContains(t, err, until(30*time.Second-time.Since(ended)), "the lease that it had when fn ended")
		m.Fail("Settle", storetest.Before, 0)
		time.Sleep(time.Minute)
	})
}

func TestPromise30_UntilWhenWhatWasTakenOverIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		fn, runs, release := blocked(0, errBoom)
		slowly := slow(t, m, over(t, m, announced), func(ctx context.Context) (int, error) {
			if err := idemflight.BeginEffect(ctx); err != nil {
				return 0, err
			}
			return fn(ctx)
		})
		<-runs
		b := over(t, m, announced, func(o *options) {
			o.Reconcile = func(context.Context, string, idemflight.Entry[int]) (int, error) { return 9, nil }
		})
		require.Equal(t, 9, must(b.Do(bg, theKey, mustNotRun(t))))
		close(release)
		err := (<-slowly).err
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.ErrorIs(t, err, idemflight.ErrClaimLost)
		require.ErrorContains(t, err, until(30*time.Second))
	})
}

func TestPromise38_ThatAnOutcomeCannotBeEncodedIsToldAndSaid(t *testing.T) {
	for name, encode := range map[string]func() error{
		"fails":  func() error { return errBoom },
		"panics": func() error { panic(errBoom) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log eventLog
				a := over(t, storetest.Mem(), log.observe(idemflight.EventStore), func(o *options) {
					o.Codec.EncodeValue = func(int) ([]byte, error) { return []byte("7"), encode() }
					o.Codec.DecodeValue = func([]byte) (int, error) { return 7, nil }
				})
				_, err := a.Do(bg, theKey, returns(7, nil))
				require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
				require.ErrorContains(t, err, "the outcome cannot be encoded")
				require.ErrorContains(t, err, "boom")
				require.Len(t, log.all(), 1)
				_, err = a.Do(bg, theKey, mustNotRun(t))
				require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			})
		})
	}
}

// The outcome that the engine has counts, also over a success with another value; one that cannot be read is unknown.
func TestPromise39_WhatTheEngineHasCountsOverSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		settles := func(ctx context.Context) (int, error) {
			c, s, err := idemflight.Settling(ctx, 7, nil)
			require.NoError(t, err)
			_, err = m.Settle(ctx, c, s)
			require.NoError(t, err)
			return 8, nil
		}
		require.Equal(t, 7, must(over(t, m).Do(bg, theKey, settles)))
		a := over(t, m, func(o *options) {
			o.Codec.EncodeValue = func(v int) ([]byte, error) { return []byte{byte(v)}, nil }
			o.Codec.DecodeValue = func([]byte) (int, error) { return 0, errBoom }
		})
		_, err := a.Do(bg, "other", settles)
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.ErrorContains(t, err, "its record cannot be read")
	})
}

func TestPromise37_SinceWhenAKeyIsHeldThatReconcileLearnedNothingAbout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		since := time.Now().UTC().Format("2006-01-02 15:04:05Z")
		heldAs(t, m, "\nboom")
		time.Sleep(time.Minute)
		_, err := over(t, m, func(o *options) { o.Reconcile = unknown }).Do(bg, theKey, mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.ErrorContains(t, err, "key held since "+since)
	})
}

// The owner's own copy has the times of the record, not those of the copy.
func TestPromise42_TheOwnersCopyTellsTheTimesOfTheRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := over(t, storetest.Mem())
		made, err := a.DoResult(bg, theKey, returns(7, nil))
		require.NoError(t, err)
		time.Sleep(time.Second)
		got, err := a.DoResult(bg, theKey, mustNotRun(t))
		require.NoError(t, err)
		require.True(t, got.ExpiresAt.Equal(made.ExpiresAt), "%v and %v", got.ExpiresAt, made.ExpiresAt)
		require.True(t, got.CompletedAt.Equal(made.CompletedAt))
		require.Equal(t, 1, a.Len())
		require.Equal(t, 8, must(a.Do(bg, "no TTL", returns(8, nil), idemflight.WithTTL(0))))
		require.Equal(t, 1, a.Len())
	})
}

// busy starts an execution of theKey, and returns what says that its lease is renewed: a call in another process
// that may not wait is told so, two leases later.
func busy(t *testing.T, m *storetest.Memory, c *cache) (alive func(), end func() answer) {
	t.Helper()
	fn, runs, release := blocked(7, nil)
	led := start(c, bg, fn)
	<-runs
	return func() {
			t.Helper()
			time.Sleep(time.Minute)
			_, err := over(t, m).Do(bg, theKey, mustNotRun(t), idemflight.WithMaxWait(idemflight.NoWait))
			require.ErrorIs(t, err, idemflight.ErrInFlight)
		}, func() answer {
			close(release)
			return <-led
		}
}

// Leases are renewed whatever else there is to do, and was done before.
func TestPromise30_TheHeartbeatGoesOn(t *testing.T) {
	ends := func(t *testing.T, c *cache) {
		require.Equal(t, 1, must(c.Do(bg, "ends", returns(1, nil))))
	}
	for name, tc := range map[string]struct {
		before, beside func(t *testing.T, m *storetest.Memory, c *cache)
		failures       int
	}{
		"alone":                {},
		"after one that ends":  {before: func(t *testing.T, _ *storetest.Memory, c *cache) { ends(t, c) }},
		"beside one that ends": {beside: func(t *testing.T, _ *storetest.Memory, c *cache) { ends(t, c) }},
		"beside an outcome that is not taken": {beside: func(t *testing.T, m *storetest.Memory, c *cache) {
			m.Hook(func(_ context.Context, _ storetest.When, verb string, claim idemflight.Claim) error {
				if verb == "Settle" && claim.Key == "offered" {
					return errBoom
				}
				return nil
			})
			_, err := c.Do(bg, "offered", returns(1, nil))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			ends(t, c)
		}, failures: -1},
		"beside a claim to be given back": {beside: func(t *testing.T, m *storetest.Memory, c *cache) {
			m.Fail("GiveBack", storetest.Before, -1)
			m.Hook(func(_ context.Context, _ storetest.When, verb string, claim idemflight.Claim) error {
				if verb == "Claim" && claim.Key == "lost" {
					return errBoom
				}
				return nil
			})
			_, err := c.Do(bg, "lost", mustNotRun(t))
			require.ErrorIs(t, err, idemflight.ErrStore)
			ends(t, c)
		}, failures: -1},
		"after one renewal that fails": {beside: func(_ *testing.T, m *storetest.Memory, _ *cache) { m.Fail("Renew", storetest.Before, 1) }, failures: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := storetest.Mem()
				a := over(t, m)
				if tc.before != nil {
					tc.before(t, m, a)
				}
				alive, end := busy(t, m, a)
				if tc.beside != nil {
					tc.beside(t, m, a)
				}
				alive()
				alive()
				require.NoError(t, end().err)
				if tc.failures >= 0 {
					require.EqualValues(t, tc.failures, a.Stats().StoreErrors)
				}
				m.Hook(nil)
				m.Fail("GiveBack", storetest.Before, 0)
				time.Sleep(time.Minute)
			})
		})
	}
}

// A claim that was found to be lost is not renewed again.
func TestPromise30_ALostClaimIsRenewedNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		_, end := busy(t, m, a)
		m.KillAll()
		time.Sleep(15 * time.Second)
		asked := m.Asked("Renew")
		require.Equal(t, 1, asked)
		time.Sleep(10 * time.Minute)
		require.Equal(t, asked, m.Asked("Renew"))
		require.ErrorIs(t, end().err, idemflight.ErrClaimLost)
	})
}

// At most MaxEntries claims are kept to be given back.
func TestPromise44_SoManyClaimsAreGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m, func(o *options) { o.MaxEntries = 2 })
		m.Fail("Claim", storetest.Before, -1)
		m.Fail("GiveBack", storetest.Before, -1)
		for _, key := range []string{"a", "b", "c", "d"} {
			_, err := a.Do(bg, key, mustNotRun(t))
			require.ErrorIs(t, err, idemflight.ErrStore)
		}
		failed := a.Stats().StoreErrors
		var back atomic.Int64
		hooked(m, storetest.After, "GiveBack", func(context.Context) { back.Add(1) })
		time.Sleep(20 * time.Second)
		require.Greater(t, a.Stats().StoreErrors, failed, "what fails in the heartbeat is counted")
		require.Zero(t, back.Load())
		m.Fail("GiveBack", storetest.Before, 0)
		time.Sleep(time.Minute)
		require.EqualValues(t, 2, back.Load())
	})
}

// One outcome that the store does not take does not keep it from the others; what fails is counted.
func TestPromise38_EachOutcomeIsOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		fails := func(but string) {
			m.Hook(func(_ context.Context, when storetest.When, verb string, c idemflight.Claim) error {
				if verb == "Settle" && when == storetest.Before && c.Key != but {
					return errBoom
				}
				return nil
			})
		}
		fails("none")
		var calls sync.WaitGroup
		for i := range 10 {
			calls.Go(func() {
				_, err := a.Do(bg, string(rune('0'+i)), returns(i, nil))
				require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			})
		}
		calls.Wait()
		time.Sleep(5 * time.Second) // between two beats
		fails("5")
		failed := a.Stats().StoreErrors
		time.Sleep(10 * time.Second) // one beat
		require.EqualValues(t, 9, a.Stats().StoreErrors-failed)
		require.Equal(t, 5, must(over(t, m).Do(bg, "5", mustNotRun(t))))
		m.Hook(nil)
		time.Sleep(time.Minute)
	})
}

// Beats do not meet: what one is still giving back or offering, the next leaves alone; and each has its time.
func TestPromise44_BeatsDoNotMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a := over(t, m)
		m.Fail("Settle", storetest.Before, -1)
		_, err := a.Do(bg, "offered", returns(1, nil))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		m.Fail("Claim", storetest.Before, -1)
		m.Fail("GiveBack", storetest.Before, 1) // of the call itself, if it tries
		_, err = a.Do(bg, "lost", mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrStore)
		m.Fail("Settle", storetest.Before, 0)
		var mu sync.Mutex
		now, most := map[string]int{}, map[string]int{}
		m.Hook(func(ctx context.Context, when storetest.When, verb string, _ idemflight.Claim) error {
			if when != storetest.Before || verb != "GiveBack" && verb != "Settle" {
				return nil
			}
			mu.Lock()
			now[verb]++
			most[verb] = max(most[verb], now[verb])
			mu.Unlock()
			end, ok := ctx.Deadline()
			require.True(t, ok)
			require.LessOrEqual(t, time.Until(end), 10*time.Second)
			<-ctx.Done()
			mu.Lock()
			now[verb]--
			mu.Unlock()
			return ctx.Err()
		})
		time.Sleep(5 * time.Minute)
		require.Equal(t, map[string]int{"GiveBack": 1, "Settle": 1}, most)
		m.Hook(nil)
		m.Fail("Claim", storetest.Before, 0)
		time.Sleep(5 * time.Minute)
	})
}

// shyText is an error whose text panics.
type shyText struct{}

func (shyText) Error() string { panic("shy") }

func TestPromise38_AnErrorOfTheStoreThatPanicsInPart(t *testing.T) {
	for _, said := range []error{shy{}, shyText{}} {
		synctest.Test(t, func(t *testing.T) {
			m := storetest.Mem()
			var log eventLog
			a := over(t, m, log.observe())
			m.Hook(func(context.Context, storetest.When, string, idemflight.Claim) error { return said })
			_, err := a.Do(bg, theKey, mustNotRun(t))
			require.ErrorIs(t, err, idemflight.ErrStore)
			require.NotEmpty(t, err.Error())
			require.NotEmpty(t, log.all())
			for _, e := range log.events {
				require.NotEmpty(t, e.Err.Error())
			}
			m.Hook(nil)
			time.Sleep(time.Minute)
			require.Zero(t, a.Stats().HookPanics)
		})
	}
}

// An abandoned cache, none of whose executions runs any more, is collected: no timer keeps it.
func TestPromise44_AnIdleCacheIsCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := func() weak.Pointer[cache] {
			c := over(t, storetest.Mem(), always)
			require.Equal(t, 7, must(c.Do(bg, theKey, returns(7, nil))))
			return weak.Make(c)
		}()
		time.Sleep(time.Second)
		runtime.GC()
		require.Nil(t, made.Value())
	})
}

func TestOriginOfWhatWasJoinedHereIsInTheEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		_, err := over(t, m, tracedBy(1)).Do(bg, theKey, returns(7, nil))
		require.NoError(t, err)
		var log eventLog
		b := over(t, m, log.observe())
		asking := make(chan struct{})
		hooked(m, storetest.Before, "Claim", func(context.Context) { <-asking })
		first := start(b, bg, mustNotRun(t))
		synctest.Wait()
		second := start(b, bg, mustNotRun(t))
		synctest.Wait()
		close(asking)
		require.NoError(t, (<-first).err)
		require.NoError(t, (<-second).err)
		require.Len(t, log.all(), 2)
		for _, e := range log.events {
			requireOrigin(t, 1, e.Origin, e.Kind.String())
		}
	})
}

// nothing is what a Reconcile says that has learned nothing.
type nothing struct{ text string }

func (e *nothing) Error() string { return e.text }

// What Reconcile said of one key is not kept beyond its pause.
func TestPromise36_PausesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		var said []weak.Pointer[nothing]
		a := over(t, m, func(o *options) {
			o.Reconcile = func(context.Context, string, idemflight.Entry[int]) (int, error) {
				e := &nothing{"nothing"}
				said = append(said, weak.Make(e))
				return 0, e
			}
		})
		for _, key := range []string{"a", "b"} {
			_, err := over(t, m).Do(bg, key, returns(0, errBoom))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			_, err = a.Do(bg, key, mustNotRun(t))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			time.Sleep(time.Minute)
		}
		require.Len(t, said, 2)
		runtime.GC()
		require.Nil(t, said[0].Value())
		runtime.KeepAlive(a)
	})
}

// What is forgotten while its copy waits for weight is not copied, and returns what it has taken.
func TestPromise41_AForgetWhileACopyWaitsForWeight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		require.Equal(t, 4, must(over(t, m).Do(bg, theKey, returns(4, nil))))
		b := over(t, m, func(o *options) {
			o.MaxEntries, o.MaxWeight, o.Weigh = 2, 5, func(_ string, v int) int64 { return int64(v) }
		})
		require.Equal(t, 5, must(b.Do(bg, "heavy", returns(5, nil))))
		waits := 0
		onYield(t, func(point string) {
			if point == "weight" {
				if waits++; waits == 1 {
					was, err := b.Forget(bg, theKey)
					require.True(t, was && err == nil)
				}
			}
		})
		require.Equal(t, 4, must(b.Do(bg, theKey, mustNotRun(t))))
		require.Equal(t, 1, waits, "the seam")
		require.Zero(t, b.Stats().Weight)
		for _, key := range []string{"x", "y"} { // there are two places, and all the weight
			require.Equal(t, 2, must(b.Do(bg, key, returns(2, nil))))
		}
		require.EqualValues(t, 4, b.Stats().Weight)
		require.Equal(t, 2, b.Len())
	})
}

// An operator's flight takes a place, and gives it back.
func TestPromise18_AnOperatorsFlightTakesAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		heldAs(t, m, "\nboom")
		a := over(t, m, func(o *options) { o.MaxEntries, o.Reconcile = 1, unknown })
		_, err := a.Reconcile(bg, theKey)
		require.ErrorIs(t, err, errBoom)
		fn, runs, release := blocked(1, nil)
		ended := make(chan error, 1)
		go func() {
			_, err := a.Do(bg, "flies", fn)
			ended <- err
		}()
		<-runs
		_, err = a.Do(bg, "another", mustNotRun(t))
		require.ErrorIs(t, err, idemflight.ErrFull)
		close(release)
		require.NoError(t, <-ended)
	})
}

// What a verb was given to wait for ends with the verb, and keeps no timer.
func TestPromise44_TheContextOfAVerbEndsWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.Mem()
		a, b := over(t, m), over(t, m)
		var mu sync.Mutex
		ctxs := map[string][]context.Context{}
		m.Hook(func(ctx context.Context, _ storetest.When, verb string, _ idemflight.Claim) error {
			mu.Lock()
			defer mu.Unlock()
			ctxs[verb] = append(ctxs[verb], ctx)
			return nil
		})
		led := start(a, bg, func(ctx context.Context) (int, error) {
			err := idemflight.BeginEffect(ctx)
			time.Sleep(15 * time.Second)
			return 7, err
		})
		synctest.Wait()
		watches := start(b, bg, mustNotRun(t))
		require.NoError(t, (<-led).err)
		require.NoError(t, (<-watches).err)
		synctest.Wait()
		requireEnded := func(verbs ...string) {
			mu.Lock()
			defer mu.Unlock()
			for _, verb := range verbs {
				require.NotEmpty(t, ctxs[verb], verb)
				for _, ctx := range ctxs[verb] {
					require.Error(t, ctx.Err(), verb)
				}
			}
			clear(ctxs)
		}
		requireEnded("Claim", "Begin", "Renew", "Watch", "Read", "Settle")

		m.Fail("Settle", storetest.Before, 1<<30)
		_, err := a.Do(bg, "offered again", returns(7, nil))
		require.ErrorIs(t, err, idemflight.ErrStore)
		m.Fail("Settle", storetest.Before, 0)
		asked := m.Asked("Settle")
		mu.Lock()
		clear(ctxs)
		mu.Unlock()
		for range 100 {
			if time.Sleep(time.Second); m.Asked("Settle") > asked {
				break
			}
		}
		requireEnded("Settle")
	})
}
