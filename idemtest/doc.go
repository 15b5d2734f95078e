// Package idemtest helps you test that your code has its effect once, whatever
// goes wrong meanwhile.
//
// [Bank] is an effect that can be counted: it takes money as often as it is asked to, loses
// requests and answers as its [Bank.Script] says, and reports what was booked. [Storm] calls your
// code from many goroutines at once. [Restart] carries the keys over into the cache of the next
// process, or loses them as a crash does. Nothing here sleeps for real: in a testing/synctest
// bubble, a TTL of a day passes in no time.
//
//	func TestPay(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			var bank idemtest.Bank
//			shop := newShop(&bank) // the code under test, with a cache whose TTL is a day
//			pay := func(ctx context.Context, _ int) (idemtest.Receipt, error) {
//				return shop.pay(ctx, "ann", "rent", 900)
//			}
//			bank.Script("ann/rent", idemtest.LoseAnswer) // booked, and nobody is told
//
//			_, err := pay(t.Context(), 0)
//			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
//
//			rs := idemtest.Storm(t, 100, pay) // 100 retries at once: the shop's Reconcile asks bank.Find
//			require.NoError(t, rs[0].Err)
//			idemtest.RequireSame(t, rs)
//
//			time.Sleep(23 * time.Hour) // in the bubble: no time at all
//			_, err = pay(t.Context(), 0)
//			require.NoError(t, err)
//			bank.RequireOnce(t, "ann/rent") // or it prints what happened to this key, a line for each event
//		})
//	}
//
// Each check comes in two forms: RequireOnce ends the test, and CheckOnce returns an error, for
// programs and fuzz targets.
//
// # What to play
//
// The three failures after which a customer is charged twice are [LoseAnswer] and then a retry, a
// [Storm] of duplicates, and [Restart] while [Hang] keeps a call at the bank. The one after which a
// customer is never charged is [LoseRequest] and then a retry, if the code holds the key and nobody
// finds out. LoseAnswer and LoseRequest look the same to the code under test, so play both.
package idemtest
