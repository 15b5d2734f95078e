// Package idemflight makes an operation happen once per idempotency key, however
// often it is requested.
//
// A service must not charge a card twice because a client retried. So it wraps the charge in
// [Cache.Do]: duplicates that arrive while it runs wait for the one execution and share its
// result, and later ones get that result replayed until a TTL passes. If the charge fails in a
// way that leaves unknown whether the card was charged, it is not run again: the key is held
// until someone finds out.
//
//	var payments = idemflight.MustNew(idemflight.Options[idemflight.Key, Receipt]{})
//
//	func pay(ctx context.Context, customer, key string, order Order) (Receipt, error) {
//		return payments.Do(ctx, idemflight.Key{Scope: customer, ID: key},
//			func(ctx context.Context) (Receipt, error) {
//				idemflight.NoEffect(ctx) // up to here nothing has begun: a failure may be tried again
//				if order.Amount <= 0 {
//					return Receipt{}, idemflight.Final(errBadAmount) // a real answer: replayed
//				}
//				// From here on, a failure is "unknown", not "try again".
//				if err := idemflight.BeginEffect(ctx); err != nil {
//					return Receipt{}, err
//				}
//				receipt, err := bank.Charge(ctx, customer, key, order)
//				if errors.Is(err, bank.ErrNotConnected) {
//					idemflight.NoEffect(ctx) // certainly not charged: the next call may try again
//				}
//				return receipt, err
//			}, idemflight.WithFingerprint(order.Fingerprint()))
//	}
//
// fn may outlive its caller, which can leave as soon as its own context ends while the work goes
// on. So fn captures nothing that the caller closes, reuses or reads afterwards: no *http.Request,
// no body, no buffer of a pool, no named result. Copy what it needs, or use [Inline].
//
// # What the next call does
//
// The way fn ends decides the [Disposition] of its outcome, that decides the [State] of the key,
// and that decides what the next call does:
//
//	fn ended with                             Disposition  State     the next call with this key
//	nil error                                 Retain       Retained  gets the same value, fn does not run
//	Final(err): a real answer (declined)      Retain       Retained  gets the same error, fn does not run
//	Retryable(err): certainly had no effect   Release      Absent    runs fn again
//	Unknown(err): may have had its effect     Hold         Held      fn does not run: ErrOutcomeUnknown,
//	                                                                 or Reconcile finds out
//	any other error, panic, runtime.Goexit:
//	  an effect has begun (BeginEffect)       Hold         Held      as above
//	  none has begun (NoEffect; or            Release      Absent    runs fn again
//	    EffectsAnnounced, no BeginEffect)
//	  fn said neither                         Options.Classify decides; without one: Hold
//
//	nil error or Final(err), but
//	  WithTTL(0), or Forget while in flight   Release      Absent    runs fn again
//
//	afterwards
//	  its value was dropped under MaxWeight                Shed      fn does not run: ErrValueShed
//	  it expired, was evicted or forgotten                 Absent    runs fn again
//
// Unknown is held, certainty is spelled out: an error tells what failed last, not what fn had done
// before. So begin every fn with NoEffect(ctx), and call BeginEffect before what matters. Or, if
// every fn of a cache calls BeginEffect, set EffectsAnnounced, leave NoEffect out at the top, and
// let [EventUnannounced] tell you of an fn that forgot BeginEffect.
//
// # Glossary
//
// A key names the operation, once per intent. An execution is one run of fn. A flight is an
// execution and the callers waiting for it; the leader is the caller that started it, the others
// have joined. The outcome is the value and error of an execution; its effect is what fn does to
// the world. An outcome is retained, so that it can be replayed to later callers. A key is held
// when nobody knows whether the effect took place: fn does not run until someone finds out, which
// is called to reconcile. A value is shed when it is dropped under memory pressure while its key is
// still remembered. What is retained, held or shed is kept; if nothing is kept, the key is
// released. Records expire (by time), are evicted (for capacity) or forgotten (by you).
//
// With a Store an execution runs under a claim. The lease says how long the execution is thought to
// be alive after its last sign of life. After that, another process may take the key over, which
// replaces the claim.
//
// # Three classic failures
//
// The request is lost on its way: nothing has run, and the retry runs fn.
//
// The work fails half-way: if fn has said that nothing has begun, the retry runs it again. If an
// effect has begun, or fn said nothing, the key is held: the retry gets [ErrOutcomeUnknown], or
// Options.Reconcile asks the bank and answers with what it finds. A person can settle the key
// with [Cache.Resolve].
//
// The answer is lost on its way back: the caller's context ends, and it gets [ErrCallerLeft] or
// nothing at all. fn runs to its end, its outcome is kept, and the retry gets it replayed.
//
// # Crashes, and several machines
//
// Options.Store keeps the keys in an engine that you already have: a file for one process (module
// boltstore), PostgreSQL (pgstore) or Redis (redisstore) for any number of processes. Then Do runs
// fn once per key among all processes that share the store, and across their crashes. A process
// that dies before [BeginEffect] leaves its key free, if its cache has EffectsAnnounced. One that
// dies after it, or whose fns announce nothing, leaves the key held, and Reconcile finds out. If
// the effect is in PostgreSQL, SettleTx records the outcome in the transaction of the effect, so
// that nothing is left to find out. An error reaches other processes as its text and those of the
// Codec's Sentinels that it matches. The page docs/stores.md says when to choose which store, and
// what to set in its engine.
//
// # What it does not do
//
// Without a Store, fn runs once per key within the TTL in one process. A crash forgets the keys;
// a planned restart need not ([Cache.Close], [Cache.Save], [Cache.Load]). Two processes do not
// know of each other.
//
// It is not atomic with your database, except through SettleTx of package pgstore. Between the
// commit of your transaction and the cache's record there is a gap in which the process can die.
// Close it by writing the key into a table of your own in the same transaction, and looking there
// in Reconcile, or first thing in fn.
//
// No Store knows whether a process that was paused after [BeginEffect] will still have its effect:
// give the bank the key as its own idempotency key.
//
// Two executions that wait for each other's keys are not detected: they wait until their callers'
// contexts end. (An execution that waits for its own key is detected: [ErrReentrant].)
//
// No classifier can know whether an effect took place. [ClassifyLenient] is careful about timeouts
// and lost connections, and is for an fn that does one thing; an operation that matters calls
// [BeginEffect].
//
// # Choosing a key
//
// It comes from the client, which makes it once per intent, outside of the retry loop: a UUID
// ([NewID]). Never make it in the handler: a retry would be a new operation. Never share it between
// customers: use [Key], whose Scope is the authenticated user, account or site. A hash of the body
// is usually wrong as a key, since the same order twice is two orders; it is right as a
// [Fingerprint], which tells a retry from the same key used for something else ([ErrKeyReused]).
//
// # Choosing sizes
//
// MaxEntries should exceed the rate of new keys × TTL: 10 new keys a second for 24 hours are
// 864,000. If it does not, the least recently used outcomes are evicted (approximately: one that
// was replayed is passed over once, and from 4,096 entries on, one that is nearly as old may go
// first). Outcomes that completed within MinRetention are not evicted: new keys get [ErrFull]
// instead, which is safer than forgetting what a client is still retrying. Flights are never
// evicted, and neither are held keys, with one exception: when no outcome may go, a key goes that
// is held only because fn said nothing at all. If values are big, bound them with MaxWeight and
// Weigh: a call with a key whose value was shed gets [ErrValueShed], and fn still does not run.
//
// # Work in several steps
//
// An order that is charged, then shipped, then mailed is an outer Do with three inner ones, each
// with a key of its own (the order's ID plus the step). When the third fails, the retry replays the
// first two and goes on. Call NoEffect(ctx) first thing in the outer fn: its effects are those of
// the inner calls, each of which its own key guards, so that an error of one of them releases the
// outer key. Without NoEffect, any error that an inner Do returns holds the outer key.
//
// # Legal again later, but not in quick succession
//
// A button that people press twice, a webhook that arrives in bursts: use a TTL as short as the
// burst, the natural key (user and button), a HoldTTL as short as the TTL, and a negative
// MinRetention if dropping a record early is harmless.
//
// # Cost
//
// A replay takes no lock and allocates nothing. A first execution takes two allocations, one more
// to copy the text of its key, and two more and a goroutine if the leader's context can end and it
// did not ask for [Inline]. A joined caller costs no goroutine. An idle cache has no goroutine, and
// no running timer unless something is going to expire.
//
// An outcome without an error, fingerprint, weight or TTL of its own takes about 80 bytes in
// addition to its value, its key and the key's text; one with any of these takes about 100 bytes
// more. After a burst the memory shrinks to what is left.
package idemflight
