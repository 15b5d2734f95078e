package idemtest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemtest"
)

// TestSteps plays each step once, and once more what follows the end of the script.
func TestSteps(t *testing.T) {
	for _, tc := range []struct {
		step    idemtest.Step
		name    string
		charges int
		err     error  // nil: a receipt
		cause   error  // around which it is
		panics  string // what it panics with says
		took    time.Duration
		lenient idemflight.Disposition
	}{
		{step: idemtest.Step{}, name: "OK", charges: 1, lenient: idemflight.Retain},
		{step: idemtest.OK, name: "OK", charges: 1, lenient: idemflight.Retain},
		{step: idemtest.Decline, name: "Decline", err: idemtest.ErrDeclined, lenient: idemflight.Release},
		{step: idemtest.Refuse, name: "Refuse", err: idemtest.ErrRefused, lenient: idemflight.Release},
		{step: idemtest.LoseRequest, name: "LoseRequest", err: idemtest.ErrNoAnswer, cause: os.ErrDeadlineExceeded, lenient: idemflight.Hold},
		{step: idemtest.LoseAnswer, name: "LoseAnswer", charges: 1, err: idemtest.ErrNoAnswer, cause: os.ErrDeadlineExceeded, lenient: idemflight.Hold},
		{step: idemtest.Reset, name: "Reset", charges: 1, err: idemtest.ErrNoAnswer, lenient: idemflight.Hold},
		{step: idemtest.Hang, name: "Hang", charges: 1, err: idemtest.ErrNoAnswer, cause: context.DeadlineExceeded, took: time.Minute, lenient: idemflight.Hold},
		{step: idemtest.PanicBefore, name: "PanicBefore", panics: `PanicBefore, as scripted for "rent"`},
		{step: idemtest.PanicAfter, name: "PanicAfter", charges: 1, panics: `PanicAfter, as scripted for "rent"`},
		{step: idemtest.Slow(time.Second), name: "Slow(1s)", charges: 1, took: time.Second, lenient: idemflight.Retain},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				require.Equal(t, tc.name, tc.step.String())
				var bank idemtest.Bank
				bank.Script("rent", tc.step)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()

				start := time.Now()
				o := idemtest.Storm(t, 1, func(context.Context, int) (idemtest.Receipt, error) {
					return bank.Charge(ctx, "rent", 900)
				})[0]
				require.Equal(t, tc.took, time.Since(start), "how long it took")
				require.Len(t, bank.Books()["rent"], tc.charges, "charges")
				switch {
				case tc.panics != "":
					require.Contains(t, o.Panic, tc.panics)
				case tc.err == nil:
					require.NoError(t, o.Err)
					require.Equal(t, idemtest.Receipt{ID: "pay-1", Key: "rent", Amount: 900}, o.Value)
					require.Equal(t, o.Value, bank.Books()["rent"][0])
				default:
					require.ErrorIs(t, o.Err, tc.err)
					require.Zero(t, o.Value, "nothing beside an error")
				}
				if tc.cause != nil {
					require.ErrorIs(t, o.Err, tc.cause)
				}
				if tc.panics == "" {
					require.Equal(t, tc.lenient, idemflight.ClassifyLenient(o.Err), "ClassifyLenient of %v", o.Err)
				}

				found, err := bank.Find(t.Context(), "rent")
				if tc.charges == 0 {
					require.ErrorIs(t, err, idemtest.ErrNotFound)
				} else {
					require.NoError(t, err)
					require.Equal(t, bank.Books()["rent"][0], found)
				}
				_, err = bank.Charge(t.Context(), "rent", 900)
				require.NoError(t, err, "what follows the script is OK")
				require.Len(t, bank.Books()["rent"], tc.charges+1)
			})
		})
	}
}

// TestErrorsOfTheWire: what is no answer looks like what a client of a real bank sees.
func TestErrorsOfTheWire(t *testing.T) {
	var bank idemtest.Bank
	for _, tc := range []struct {
		step idemtest.Step
		op   string
		says string
		slow bool // Timeout() is true
	}{
		{idemtest.LoseRequest, "read", "i/o timeout", true},
		{idemtest.LoseAnswer, "read", "i/o timeout", true},
		{idemtest.Reset, "read", "reset", false},
		{idemtest.Refuse, "dial", "refused", false},
	} {
		bank.Script("rent", tc.step)
		_, err := bank.Charge(t.Context(), "rent", 900)
		var wire *net.OpError
		require.ErrorAs(t, err, &wire, "of %v", tc.step)
		require.Equal(t, tc.op, wire.Op, "of %v", tc.step)
		require.Contains(t, err.Error(), tc.says, "of %v", tc.step)
		require.Equal(t, tc.slow, wire.Timeout(), "of %v", tc.step)
	}
}

// TestLostRequestsAndAnswersLookTheSame: code under test that tells them apart would not in production.
func TestLostRequestsAndAnswersLookTheSame(t *testing.T) {
	var bank idemtest.Bank
	bank.Script("rent", idemtest.LoseRequest, idemtest.LoseAnswer)
	_, first := bank.Charge(t.Context(), "rent", 900)
	_, second := bank.Charge(t.Context(), "rent", 900)
	require.Equal(t, first, second)
}

func TestScriptIsByKeyAndInOrder(t *testing.T) {
	var bank idemtest.Bank
	bank.Script("rent", idemtest.Decline)
	bank.Script("rent", idemtest.Refuse, idemtest.OK)
	_, err := bank.Charge(t.Context(), "phone", 30)
	require.NoError(t, err, "another key's script")
	_, err = bank.Charge(t.Context(), "rent", 900)
	require.ErrorIs(t, err, idemtest.ErrDeclined)
	_, err = bank.Charge(t.Context(), "rent", 900)
	require.ErrorIs(t, err, idemtest.ErrRefused)
	r, err := bank.Charge(t.Context(), "rent", 900)
	require.NoError(t, err)
	require.Equal(t, "pay-2", r.ID, "an ID of its own, among all keys")
	bank.RequireOnce(t)
}

// TestCallerLeaves: the order is with the bank all the same, and not being worked on any more.
func TestCallerLeaves(t *testing.T) {
	gone := errors.New("the client has gone")
	for _, tc := range []struct {
		step    idemtest.Step
		charges int
	}{
		{idemtest.Slow(time.Hour), 1},
		{idemtest.Hang, 1},
		{waiting(idemtest.LoseAnswer), 1},
		{waiting(idemtest.LoseRequest), 0},
		{waiting(idemtest.Decline), 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			var bank idemtest.Bank
			bank.Script("rent", tc.step)
			ctx, leave := context.WithCancelCause(t.Context())
			left := make(chan error)
			go func() {
				_, err := bank.Charge(ctx, "rent", 900)
				left <- err
			}()
			synctest.Wait()
			leave(gone)
			err := <-left
			require.ErrorIs(t, err, idemtest.ErrNoAnswer, "of %v", tc.step)
			require.NotErrorIs(t, err, idemtest.ErrDeclined, "an answer that nobody gets")
			require.Len(t, bank.Books()["rent"], tc.charges, "charges of %v", tc.step)
			_, err = bank.Find(t.Context(), "rent")
			require.NotErrorIs(t, err, idemtest.ErrPending)
		})
	}
	var bank idemtest.Bank
	ctx, leave := context.WithCancelCause(t.Context())
	leave(gone)
	bank.Script("rent", idemtest.Decline)
	_, err := bank.Charge(ctx, "rent", 900)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, gone)
	require.NotErrorIs(t, err, idemtest.ErrNoAnswer, "nothing was sent")
	require.Empty(t, bank.Books())
	_, err = bank.Find(ctx, "rent")
	require.ErrorIs(t, err, gone)
	_, err = bank.Charge(t.Context(), "rent", 900)
	require.ErrorIs(t, err, idemtest.ErrDeclined, "the step that was not played")
}

// waiting returns the step after the end of ctx.
func waiting(s idemtest.Step) idemtest.Step {
	return s.During(func(ctx context.Context) { <-ctx.Done() })
}

// TestPending: while an order is at the bank, Find does not say that there is no charge.
func TestPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bank idemtest.Bank
		bank.Script("rent", idemtest.Slow(time.Second), idemtest.Slow(time.Hour))
		for range 2 {
			go func() { _, _ = bank.Charge(t.Context(), "rent", 900) }()
			synctest.Wait()
		}
		_, err := bank.Find(t.Context(), "rent")
		require.ErrorIs(t, err, idemtest.ErrPending)
		require.ErrorContains(t, bank.CheckOnce("rent"), "Under way still: 2.")
		time.Sleep(time.Second + 1)
		_, err = bank.Find(t.Context(), "rent")
		require.ErrorIs(t, err, idemtest.ErrPending, "the other one is there still")
		time.Sleep(time.Hour)
		r, err := bank.Find(t.Context(), "rent")
		require.NoError(t, err)
		require.Equal(t, "pay-2", r.ID, "the last")
	})
}

// TestDuring: f runs on the order's way to its end, and one that does not return ends it unbooked.
func TestDuring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bank idemtest.Bank
		arrived, release := make(chan struct{}), make(chan struct{})
		held := idemtest.LoseAnswer.During(func(context.Context) {
			close(arrived)
			<-release
		})
		require.Equal(t, "LoseAnswer, During", held.String())
		bank.Script("rent", held, idemtest.OK.During(func(context.Context) { panic("a bug of the test") }))
		go func() {
			<-arrived
			_, err := bank.Find(t.Context(), "rent")
			require.ErrorIs(t, err, idemtest.ErrPending)
			close(release)
		}()
		_, err := bank.Charge(t.Context(), "rent", 900)
		require.ErrorIs(t, err, idemtest.ErrNoAnswer)
		require.Panics(t, func() { _, _ = bank.Charge(t.Context(), "rent", 900) })
		r, err := bank.Find(t.Context(), "rent")
		require.NoError(t, err, "neither pending nor booked")
		require.Equal(t, "pay-1", r.ID)
	})
}

// TestWhatHangsEndsWithTheTest: or the bubble could not end.
func TestWhatHangsEndsWithTheTest(t *testing.T) {
	for _, step := range []idemtest.Step{idemtest.Hang, idemtest.Slow(time.Hour), waiting(idemtest.OK)} {
		synctest.Test(t, func(t *testing.T) {
			var bank idemtest.Bank
			bank.Script("rent", step)
			go func() {
				_, err := bank.Charge(context.Background(), "rent", 900)
				require.ErrorIs(t, err, idemtest.ErrNoAnswer)
				require.ErrorContains(t, err, "the test is over")
			}()
			synctest.Wait()
			if step == idemtest.Hang {
				bank.RequireOnce(t, "rent")
			} else {
				bank.RequireAtMostOnce(t)
			}
		})
	}
}

func TestBooksAreACopy(t *testing.T) {
	var bank idemtest.Bank
	_, _ = bank.Charge(t.Context(), "rent", 900)
	bank.Books()["rent"][0].Amount = 0
	delete(bank.Books(), "rent")
	require.Equal(t, 900, bank.Books()["rent"][0].Amount)
}

// TestManyAtOnce: under -race, and each charge counts.
func TestManyAtOnce(t *testing.T) {
	var bank idemtest.Bank
	bank.Script("rent", idemtest.LoseAnswer, idemtest.LoseRequest, idemtest.Decline)
	idemtest.Storm(t, 200, func(ctx context.Context, i int) (idemtest.Receipt, error) {
		_, _ = bank.Find(ctx, "rent")
		return bank.Charge(ctx, "rent", 900)
	})
	require.Len(t, bank.Books()["rent"], 198)
	ids := make(map[string]bool)
	for _, r := range bank.Books()["rent"] {
		ids[r.ID] = true
	}
	require.Len(t, ids, 198, "IDs")
}

// TestRequireOnce: what it says, a whole history among it.
func TestRequireOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bank idemtest.Bank
		require.EqualError(t, try(t, func(t testing.TB) { bank.RequireOnce(t) }).failed,
			"idemtest: nothing was charged: Charge was not called")

		bank.Script("rent", idemtest.LoseAnswer, idemtest.Slow(time.Second))
		_, _ = bank.Charge(t.Context(), "rent", 900)
		bank.RequireOnce(t)
		bank.RequireAtMostOnce(t)
		time.Sleep(1500 * time.Millisecond)
		_, _ = bank.Find(t.Context(), "rent")
		_, _ = bank.Charge(t.Context(), "rent", 900)
		left, leave := context.WithCancel(t.Context())
		leave()
		_, _ = bank.Charge(left, "rent", 900)
		const history = `idemtest: "rent" was charged 2 times, and should have been %s. Since 2000-01-01 00:00:00.000Z:
	+0s        charge 1   arrives: amount 900, plays LoseAnswer
	+0s        charge 1   books pay-1
	+0s        charge 1   caller gets "idemtest: no answer: read tcp: i/o timeout"
	+1.5s      find       pay-1
	+1.5s      charge 2   arrives: amount 900, plays Slow(1s)
	+2.5s      charge 2   books pay-2, CHARGED 2 TIMES
	+2.5s      charge 2   caller gets pay-2
	+2.5s      charge 3   is not sent: context canceled`
		require.EqualError(t, try(t, func(t testing.TB) { bank.RequireOnce(t, "rent") }).failed, fmt.Sprintf(history, "once"))
		require.EqualError(t, try(t, func(t testing.TB) { bank.RequireAtMostOnce(t) }).failed, fmt.Sprintf(history, "once at most"))

		require.EqualError(t, bank.CheckOnce("gas"),
			`idemtest: "gas" was charged not at all, and should have been once. Nobody asked the bank about it.`)
		_, _ = bank.Find(t.Context(), "gas")
		require.ErrorContains(t, bank.CheckOnce("gas"), "idemtest: no such charge")

		bank.Script("phone", idemtest.Decline)
		_, _ = bank.Charge(t.Context(), "phone", 30)
		err := bank.CheckOnce("rent", "phone")
		require.ErrorContains(t, err, `"rent" was charged 2 times`)
		require.ErrorContains(t, err, "\nidemtest: \"phone\" was charged not at all", "each key that is wrong")
		require.Equal(t, err, bank.CheckOnce("rent", "phone"), "a check changes nothing")
		err = bank.CheckOnce()
		require.ErrorContains(t, err, `"phone"`)
		require.ErrorContains(t, err, `"rent"`)
		require.NotContains(t, err.Error(), `"gas"`, "which was not to be charged")
		require.NotContains(t, bank.CheckAtMostOnce().Error(), `"phone"`)
	})
}

// TestLongHistories: of very many calls the first and the last are shown, of very many keys some.
func TestLongHistories(t *testing.T) {
	var bank idemtest.Bank
	for range 100 { // three events each
		_, _ = bank.Charge(t.Context(), "rent", 900)
	}
	text := bank.CheckOnce("rent").Error()
	require.Equal(t, 1+30+1+20, len(strings.Split(text, "\n")), "lines of\n%s", text)
	require.Contains(t, text, "charge 10  caller gets pay-10\n\t… 250 more …\n")
	require.NotContains(t, text, "charge 11 ")
	require.Contains(t, text, "books pay-100, CHARGED 100 TIMES")

	for i := range 20 {
		_, _ = bank.Charge(t.Context(), fmt.Sprint(i), 1)
		_, _ = bank.Charge(t.Context(), fmt.Sprint(i), 1)
	}
	text = bank.CheckAtMostOnce().Error()
	require.Equal(t, 5, strings.Count(text, "should have been once at most"))
	require.Contains(t, text, "\nidemtest: and 16 more of 21 keys")
}
