// Package idemflight makes an operation happen once.
//
// A service must not charge a card twice because a client retried. It wraps the
// operation with an idempotency key: concurrent duplicates wait for the one execution in flight and
// share its result, later duplicates get the completed result replayed until a TTL passes, and a
// failure after which nobody can know whether the card was charged is never blindly run again.
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
// fn may outlive its caller, which can leave as soon as its own context ends while the work goes on.
// So fn captures nothing that the caller closes, reuses or reads afterwards: no *http.Request, no
// body, no buffer of a pool, no named result. Copy what it needs, or use [Inline].
//
// # What the next call does
//
//	fn returned                               is         the next call with this key
//	nil error                                 success    gets the same value, fn does not run
//	Final(err): a real answer (declined)      final      gets the same error, fn does not run
//	Retryable(err): certainly had no effect   retryable  runs fn again
//	Unknown(err): may have had its effect     unknown    fn does not run: ErrOutcomeUnknown,
//	                                                     or Reconcile finds out
//	any other error, or it panicked:
//	  an effect has begun (BeginEffect)       unknown    as above
//	  none has begun (NoEffect; or            retryable  runs fn again
//	    EffectsAnnounced and no BeginEffect)
//	  fn said neither                         Options.Classify decides; without one: unknown
//
// Unknown is held, certainty is spelled out: an error tells what failed last, and not what fn had done
// before. So begin every fn with NoEffect(ctx), and call BeginEffect before what matters; or set
// EffectsAnnounced for a cache of which every fn does the latter (then without NoEffect at the top), and
// let [EventUnannounced] tell you of one that forgot.
//
// # Glossary
//
// A key names the operation, once per intent. An execution is one run of fn. A flight is an
// execution and the callers waiting for it; the leader is the caller that started it, the others
// have joined. The outcome is the value and error of an execution, its effect what fn does to the
// world. An outcome is retained for replay, and replayed to later callers. A key is held when
// nobody knows whether the effect took place: fn does not run until someone finds out, which is to
// reconcile it. A value is shed when it is dropped under memory pressure with its key still
// remembered. Kept is retained, held or shed; released is nothing kept. Records expire (time), are
// evicted (capacity) or forgotten (by you).
//
// With a Store an execution runs under a claim. The lease is for how long it is thought alive after its last
// sign of life; after that another process may take it over, which replaces the claim.
//
// # Three classic failures
//
// The request is lost on its way: nothing has run; the retry runs fn.
//
// The work fails half-way: if fn has said that nothing has begun, the retry runs it again. If an effect
// has begun, or fn said nothing, the key is held: the retry gets [ErrOutcomeUnknown], or
// Options.Reconcile asks the bank and answers with what it finds. A person can settle it with
// [Cache.Resolve].
//
// The answer is lost on its way back: the caller's context ends, it gets [ErrCallerLeft] or nothing at
// all; fn runs to its end, its outcome is kept, and the retry gets it replayed.
//
// # Over a crash, on several machines
//
// Options.Store keeps the keys in an engine that exists already: a file for one process (module boltstore),
// PostgreSQL (pgstore) or Redis (redisstore) for any number. Then Do is once per key among all processes
// that share the store, and over their crashes. A process that dies before [BeginEffect] leaves its key
// free, if its cache is EffectsAnnounced; one that dies after it, or whose fns announce nothing, leaves the
// key held, and Reconcile finds out. If the effect is in PostgreSQL, SettleTx records the outcome in its
// transaction, so that nothing is left to find out. Errors cross processes as their text and the
// Codec's Sentinels. The page docs/stores.md says which store is for whom, and what to set in its engine.
//
// # What it does not do
//
// Without a Store it is once per key, within the TTL, in one process. A crash forgets; a planned restart
// need not ([Cache.Close], [Cache.Save], [Cache.Load]). Two processes do not know of each other.
//
// It is not atomic with your database, but by SettleTx of package pgstore. Between the commit of your
// transaction and our record lies a gap in which the process can die. Elsewhere close it by writing the
// key into a table of your own in the same transaction, and looking there in Reconcile, or first thing in fn.
//
// No Store knows whether a process that was paused after [BeginEffect] will still have its effect: give the
// bank the key as its own idempotency key.
//
// Two executions that wait for each other's keys are not detected: the callers' contexts end that.
// (Waiting for one's own key is: [ErrReentrant].)
//
// No classifier can know whether an effect took place. [ClassifyLenient] is careful about timeouts
// and lost connections, and is for an fn that does one thing; an operation that matters calls
// [BeginEffect].
//
// # Choosing a key
//
// It comes from the client, made once per intent, outside of the retry loop: a UUID ([NewID]).
// Never make it in the handler: a retry would be a new operation. Never share it between customers:
// use [Key], whose Scope is the authenticated user, account or site. A hash of the body is usually
// wrong as a key, since the same order twice is two orders; it is right as a [Fingerprint], which
// tells a retry from the same key used for something else ([ErrKeyReused]).
//
// # Choosing sizes
//
// MaxEntries should exceed the rate of new keys × TTL: 10 new keys a second for 24 hours are
// 864,000. If it does not, the least recently used outcomes go (approximately: one that was replayed
// since is passed over once, and from 4,096 entries on one that is nearly as old may go first), but none
// completed within MinRetention: then new keys get [ErrFull], which is safer than to forget what a client
// is still retrying. Flights are never evicted, nor are held keys, but for those that are held only
// because fn said nothing at all: they go when no outcome may. If values are big, bound them with MaxWeight and Weigh: a key
// whose value was shed answers [ErrValueShed] and still does not run.
//
// # Work in several steps
//
// An order that is charged, then shipped, then mailed is an outer Do with three inner ones, each with
// a key of its own (the order's ID plus the step): when the third fails, the retry replays the first
// two and goes on. Say NoEffect(ctx) first thing in the outer fn: its effects are those of the inner
// ones, whose keys guard themselves, so that any error of theirs releases the outer key. Without it,
// whatever an inner Do returns holds the outer key.
//
// # Legal again later, but not in quick succession
//
// A button that people press twice, a webhook that comes in bursts: a short TTL (the burst), the
// natural key (user and button), HoldTTL as short, and MinRetention negative if dropping a record early
// is harmless.
//
// # Cost
//
// A replay takes no lock and allocates nothing. A first execution takes two allocations, and one more to
// copy the text of its key; two more and a goroutine if the leader's context can end and it did not ask for [Inline]. A joined caller costs no goroutine. An idle cache has none, and no running timer unless
// something is to expire.
//
// An outcome without error, fingerprint, weight and TTL of its own takes about 80 bytes beside its
// value and its key (of a string its two words, not its text); one with any of these takes about 100
// more. After a burst the memory shrinks to what is left.
package idemflight
