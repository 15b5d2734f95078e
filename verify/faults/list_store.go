package main

// promisesOfStores are the numbers of the promises about a cache with a Store. They hold for the core, and the tests
// of storetest are asked: two caches over one Memory stand for two processes.
//
// Promises 32 and 33 say what is not promised.
var promisesOfStores = []string{
	"28", "29", "30", "31", "34", "35", "36", "37", "38", "39", "40", "41", "42", "43", "44",
}

var storeFaults = []fault{
	// 28. Promises 1, 2, 13, 15, 22 and 23 hold for all processes whose caches share the store.
	{name: "store-fn-runs-without-a-claim", promise: "28", sentence: "at most one execution per key runs, in all processes", hint: "TestPromise35_", in: "(*Cache).claim", old: "case standing.Granted:", new: "case standing.Granted || standing.State == InFlight && standing.ExpiresIn > 0:"},
	{name: "store-fn-runs-over-what-is-kept", promise: "28", sentence: "while an outcome is kept, fn does not run, in no process", in: "(*Cache).claim", old: "case standing.Granted:", new: "case standing.Granted || standing.State == Retained:"},
	{name: "store-final-error-lost", promise: "28", sentence: "a kept error is replayed elsewhere", in: "(*Cache).entryOf", old: "e.Origin, e.Err, err = codec.decodeOutcome(s.Err)", new: "e.Origin, _, err = codec.decodeOutcome(s.Err)"},
	{name: "store-claim-without-fingerprint", promise: "28", sentence: "fingerprints are compared in all processes: that of the claim", in: "(*Cache).claim", old: "r := ClaimRequest{Fingerprint: f.fingerprint}", new: "r := ClaimRequest{}"},
	{name: "store-reused-is-replayed", promise: "28", sentence: "fingerprints are compared in all processes: with what is kept", in: "(*inquiry).refused", old: "case standing.Fingerprint != f.fingerprint:", new: "case standing.State != Retained && standing.Fingerprint != f.fingerprint:"},
	{name: "store-reused-is-watched", promise: "28", sentence: "fingerprints are compared in all processes: with what is in flight, at once", in: "(*inquiry).refused", old: "case standing.Fingerprint != f.fingerprint:", new: "case standing.State != InFlight && standing.Fingerprint != f.fingerprint:"},
	{name: "store-reused-is-unknown", promise: "28", sentence: "fingerprints are compared in all processes: with what is held", in: "(*inquiry).refused", old: "case standing.Fingerprint != f.fingerprint:", new: "case standing.State != Held && standing.Fingerprint != f.fingerprint:"},
	{name: "store-ttl-of-the-copy-is-told", promise: "28", sentence: "ExpiresAt tells when the outcome ends, in all processes", in: "(*Cache).copyOf", old: "times: &times{e.StartedAt, e.CompletedAt, e.ExpiresAt, c.ahead.Load()},", new: "times: &times{e.StartedAt, e.CompletedAt, c.wall(at).Add(keep), c.ahead.Load()},"},

	// 29. The claim is recorded before fn runs, the outcome before any caller hears it; verbs are repeated.
	{name: "store-callers-hear-first", promise: "29", sentence: "before any caller hears an outcome the engine has recorded it", in: "(*ending).settle", old: "defer end.land()", new: "end.land()", quick: true},
	{name: "store-answer-lost-once-is-lost", promise: "29", sentence: "a verb whose answer was lost is repeated", in: "(*Cache).patiently", old: "if ctx.Err() == nil { rest(ctx, pause) }; if ctx.Err() != nil", new: ""},
	{name: "store-repeat-under-another-id", promise: "29", sentence: "each verb is idempotent for its claim ID: a repeat bears the same", in: "(*Cache).request", old: "standing, err = c.opts.Store.Claim(ctx, *r)", new: "r.ID = newClaimID(); standing, err = c.opts.Store.Claim(ctx, *r)"},
	{name: "store-claims-as-long-as-a-lease", promise: "29", sentence: "up to 5 s: a Claim", in: "(*Cache).request", old: "min(patience, c.opts.Lease)", new: "c.opts.Lease"},
	{name: "store-begins-as-long-as-a-lease", promise: "29", sentence: "up to 5 s: a Begin", in: "(*Cache).newClaim", old: "patience", new: "c.opts.Lease"},
	{name: "store-settles-for-5-s", promise: "29", sentence: "Settle: up to Lease", in: "(*ending).record", old: "f.key, c.opts.Lease,", new: "f.key, patience,"},
	{name: "store-repeated-settle-is-anothers", promise: "29", sentence: "the answer to a repeated Settle is the outcome that was sent: callers here get fn's own error", in: "(*ending).adopt", old: "if sent.Disposition == Retain && string(sent.Value) == string(counts.Value) && string(sent.Err) == string(counts.Err) { return false }", new: ""},
	{name: "store-panics-on", promise: "29", sentence: "a store that panics has not answered", hint: "TestAStoreThatPanics", in: "contained", old: "v := recover()", new: "v := any(nil)"},
	{name: "store-records-for-the-leader", promise: "29", sentence: "the outcome is recorded, whatever the leader's context says", in: "(*ending).record", old: "context.WithoutCancel(f.exec.leader)", new: "f.exec.leader"},

	// 30. A claim ends by Settle, or by a takeover.
	{name: "store-ids-are-the-same", promise: "30", sentence: "the claim ID is the fence: no other process has it", in: "newClaimID", old: "rand.Read(id[:])", new: `rand.Read(id[:]); id = ClaimID([]byte("everybody's same"))`},
	{name: "store-one-id-per-process", promise: "30", sentence: "every request has an ID of its own", in: "(*Cache).request", old: "Claim{text, newClaimID()}", new: `Claim{text, ClaimID([]byte(fmt.Sprintf("%16p", c)))}`},
	{name: "store-begin-of-the-replaced", promise: "30", sentence: "an execution of which the claim was taken over cannot Begin", in: "BeginEffect", old: "return e.takeBack(cl, err)", new: "if err = e.takeBack(cl, err); err == ErrClaimLost { return nil }; return err"},
	{name: "store-lost-while-asked-is-unsaid", promise: "30", sentence: "BeginEffect answers ErrClaimLost once fn's context has ended for that", in: "(*execution).takeBack", old: "if asked.lost { err = ErrClaimLost }", new: ""},
	{name: "store-lost-is-canceled-after-fn", promise: "30", sentence: "BeginEffect answers ErrClaimLost once fn's context has ended for that", hint: "TestPromise30_WhoKnows", in: "(*execution).begins", old: "cl.lost:", new: "cl.lost && e.phase == running:"},
	{name: "store-lost-refuses-in-reconcile", promise: "30", sentence: "in Reconcile BeginEffect returns nil, also if its claim is lost", hint: "TestPromise12_BeginEffectInAReconcile", in: "BeginEffect", old: "cl == nil || e.reconciling", new: "cl == nil"},
	{name: "store-settles-though-lost", promise: "30", sentence: "SettleTx of who was replaced is refused", in: "Settling", old: "case lost: return Claim{}, Settlement{}, ErrClaimLost", new: "case lost:"},
	{name: "store-lost-outcome-counts", promise: "30", sentence: "cannot Settle while the key is another's", in: "(*ending).record", old: "end.hold(takenOver, ErrClaimLost)", new: ""},
	{name: "store-lost-is-asked-for-long", promise: "30", sentence: "ErrClaimLost is an answer, not to be asked for again", in: "isAnswer", old: "errors.Is(err, ErrClaimLost) ||", new: ""},
	{name: "store-not-renewed", promise: "30", sentence: "leases of long executions are renewed", in: "(*keeper).beat", old: "k.within(k.c.opts.Lease/6, func(ctx context.Context) { if k.renew(ctx) { next = k.c.opts.Lease / 3 } })", new: ""},
	{name: "store-renewal-hangs", promise: "30", sentence: "one renewal that hangs costs no lease", in: "(*keeper).beat", old: "k.within(k.c.opts.Lease/6,", new: "k.within(k.c.opts.Lease/3,"},
	{name: "store-renewed-once", promise: "30", sentence: "leases of long executions are renewed, again and again", in: "(*keeper).beatAgain", old: "if !k.idleLocked() { k.armInLocked(max(at-k.c.now(), firstPause)) }", new: ""},
	{name: "store-renewed-for-a-moment", promise: "30", sentence: "renewed for a Lease", in: "(*keeper).renew", old: "due, k.c.opts.Lease)", new: "due, 0)"},
	{name: "store-renewed-one-by-one", promise: "30", sentence: "all of a cache in one call", in: "(*keeper).renew", old: "lost, err = k.c.opts.Store.Renew(ctx, due, k.c.opts.Lease); return err", new: "for i := range due { l, failed := k.c.opts.Store.Renew(ctx, due[i:i+1], k.c.opts.Lease); lost = append(lost, l...); err = errors.Join(err, failed) }; return err"},
	{name: "store-renewed-when-young", promise: "30", sentence: "of executions that run longer than a third of Lease", in: "(*keeper).renew", old: ">= k.c.opts.Lease/3", new: ">= 0"},
	{name: "store-renewed-after-its-end", promise: "30", sentence: "of executions that run", in: "(*keeper).forget", old: "delete(k.claims, cl.ID)", new: ""},
	{name: "store-lost-unheard", promise: "30", sentence: "when a renewal says lost, fn's context ends", in: "(*keeper).renew", old: "e.lose()", new: "_ = e.first"},
	{name: "store-lost-without-cause", promise: "30", sentence: "with cause ErrClaimLost", in: "(*execution).lose", old: "cl.abort(ErrClaimLost)", new: "cl.abort(nil)"},
	{name: "store-late-grant-is-used", promise: "30", sentence: "a grant that comes later than a lease after it was asked for is not used", in: "(*Cache).request", old: "c.now()-sent >= c.opts.Lease", new: "c.now() < sent"},
	{name: "store-lease-of-its-own", promise: "30", sentence: "a takeover is possible once the lease is over: that of Options.Lease", in: "(*Cache).request", old: "= c.opts.Lease, c.opts.HoldTTL,", new: "= c.opts.Lease*2, c.opts.HoldTTL,"},

	// 31. A takeover.
	{name: "store-takes-over-the-begun", promise: "31", sentence: "begun: held; fn does not run", in: "(*Cache).claim", old: "case standing.Granted:", new: "case standing.Granted || standing.State == InFlight && standing.ExpiresIn == 0 || standing.State == Held && standing.Err == nil:"},
	{name: "store-never-takes-over", promise: "31", sentence: "claimed and announced: fn runs", in: "(*inquiry).refused", old: "case standing.free(): r.Replaces, r.From = standing.ID, InFlight; return true", new: ""},
	{name: "store-announcement-unsaid", promise: "31", sentence: "claimed and announced: fn runs, since the engine knows", in: "(*Cache).request", old: "= c.opts.Lease, c.opts.HoldTTL, c.opts.EffectsAnnounced", new: "= c.opts.Lease, c.opts.HoldTTL, false"},
	{name: "store-announced-by-all", promise: "31", sentence: "claimed and not announced: held", in: "(*Cache).request", old: "= c.opts.Lease, c.opts.HoldTTL, c.opts.EffectsAnnounced", new: "= c.opts.Lease, c.opts.HoldTTL, true"},
	{name: "store-hold-of-the-dead-without-end", promise: "31", sentence: "held for the dead owner's HoldTTL", in: "(*Cache).request", old: "= c.opts.Lease, c.opts.HoldTTL, c.opts.EffectsAnnounced", new: "= c.opts.Lease, -1, c.opts.EffectsAnnounced"},
	{name: "store-interrupted-unsaid", promise: "31", sentence: "held, with ErrInterrupted", in: "Codec.decodeHeld", old: "return nil, ErrInterrupted, interrupted, nil", new: "return nil, nil, interrupted, nil"},
	{name: "store-takeover-with-no-payload", promise: "31", sentence: "fn runs, for its own payload", in: "(*inquiry).refused", old: "*r = ClaimRequest{Fingerprint: f.fingerprint}", new: "*r = ClaimRequest{}"},
	{name: "store-slow-does-not-settle", promise: "31", sentence: "whose owner is slow, and was not taken over, settles as if nothing had been", in: "(*ending).record", old: "if end.lost {", new: "if end.lost || c.now()-cl.since > c.opts.Lease {"},
	{name: "store-slow-does-not-begin", promise: "31", sentence: "whose owner is slow, and was not taken over, goes on", in: "(*Cache).newClaim", old: "cl.begin = func(ctx context.Context) error {", new: "cl.begin = func(ctx context.Context) error { if c.now()-cl.since > c.opts.Lease { return ErrClaimLost };"},

	// 34. One call per key asks the store.
	{name: "store-asked-twice", promise: "34", sentence: "asked once per first execution", in: "(*Cache).claim", old: "r := ClaimRequest{Fingerprint: f.fingerprint}", new: "r := ClaimRequest{Fingerprint: f.fingerprint}; _, _ = c.read(q.ctx, f.key, q.key)"},
	{name: "store-begin-unrecorded", promise: "34", sentence: "asked once per BeginEffect", in: "BeginEffect", old: "cl == nil || e.reconciling", new: "cl == nil || e.effects >= 0"},
	{name: "store-replay-asks", promise: "34", sentence: "a replay from memory: never", hint: "TestPromise28_", in: "(*Cache).copyOf", old: "if keep <= 0 {", new: "if keep > 0 {"},
	{name: "store-own-replay-asks", promise: "34", sentence: "a replay from memory: never, of an execution here", hint: "TestPromise38_", in: "(*ending).copyLocked", old: "if keep <= 0 ||", new: "if keep > 0 ||"},

	// 35. Who finds the key in flight elsewhere watches.
	{name: "store-watch-without-end", promise: "35", sentence: "the watch ends when nobody waits", in: "(*flight).unwatchLocked", old: "f.asks.claiming.stopWatch()", new: ""},
	{name: "store-watch-is-no-join", promise: "35", sentence: "all who watch get its outcome (Source Joined)", in: "(*inquiry).watch", old: "q.land(standing, Joined)", new: "q.land(standing, Replayed)"},
	{name: "store-watch-tells-another-payload", promise: "35", sentence: "the fingerprint is compared, also with what the watch ends with", in: "(*inquiry).watch", old: "standing.State == Retained && standing.Fingerprint == f.fingerprint", new: "standing.State == Retained"},
	{name: "store-watch-of-what-is-held", promise: "35", sentence: "when the watched execution ends in another way, they look again", in: "(*inquiry).watch", old: "standing.State != InFlight || standing.ExpiresIn == 0", new: "standing.ExpiresIn == 0"},
	{name: "store-watch-of-the-dead", promise: "35", sentence: "when its owner dies, they look again", hint: "TestPromise30_", in: "(*Cache).read", old: "standing = Standing{ID: standing.ID}", new: "standing.ExpiresIn = 1"},
	{name: "store-watch-fails-for-good", promise: "35", sentence: "a failing Watch is asked again while somebody waits", in: "(*inquiry).watch", old: "c.storeFailed(f.key, err)", new: "c.storeFailed(f.key, err); q.reject(&storeError{err}); return"},
	{name: "store-no-wait-waits", promise: "35", sentence: "NoWait: ErrInFlight, also of the first in its process", in: "(*inquiry).inFlightLocked", old: "cl.noWait && !q.flight.leaderLeft", new: "cl.noWait && q.flight.leaderLeft"},
	{name: "store-max-wait-waits-on", promise: "35", sentence: "WithMaxWait: ErrInFlight, also of the first in its process", in: "(*call).waitForAnswer", old: "r.opts.maxWait != forever && r.opts.maxWait > 0", new: "r.opts.maxWait == forever && r.opts.maxWait < 0"},
	{name: "store-fn-of-who-left", promise: "35", sentence: "fn of a caller that has left is never started by a watch", hint: "TestALeaderThatLeaves", in: "(*Cache).newClaim", old: "cl := &claim{", new: "f.leaderLeft = false; cl := &claim{"},
	{name: "store-claim-of-who-left-stays", promise: "35", sentence: "when the leader has left, another looks again, and claims", hint: "TestALeaderThatLeaves", in: "(*inquiry).granted", old: "q.releaseUnused(cl)", new: ""},
	{name: "store-asks-for-the-leader", promise: "35", sentence: "others are not affected by a leader that leaves while the store is asked", hint: "TestALeaderThatLeaves", in: "(*Cache).claim", old: "context.WithoutCancel(f.exec.leader)", new: "f.exec.leader"},
	{name: "store-leader-does-not-look-again", promise: "35", sentence: "when it is released, they look again: the first of its process", in: "(*call).lead", old: "case asks.next == nil && f.outcome.source == lookAgain: m.reply.flight = nil; return false", new: ""},
	{name: "store-joined-do-not-look-again", promise: "35", sentence: "when it is released, they look again: who has joined", in: "(*call).follow", old: "case r.flight.outcome.source == lookAgain: r.flight = nil; return false", new: ""},

	// 36. Another fingerprint, while the store is asked.
	{name: "store-undecided-is-reused", promise: "36", sentence: "waits for that answer and then looks again", in: "(*call).meetFlightLocked", old: "(m.ctxErr != nil || !f.undecided())", new: "m.fn != nil"},
	{name: "store-undecided-does-not-leave", promise: "36", sentence: "its own context ends the wait", in: "(*call).awaitDecision", old: "case <-m.reply.ended:", new: ""},
	{name: "store-decided-untold", promise: "36", sentence: "once it is known that fn runs here it is answered", in: "(*inquiry).granted", old: "q.asks.claiming.decideLocked()", new: ""},
	{name: "store-watched-untold", promise: "36", sentence: "once it is known that fn runs elsewhere it is answered", hint: "TestPromise3[56]_", in: "(*inquiry).inFlightLocked", old: "cl.decideLocked()", new: ""},

	// 37. What was released only joined callers of the process are told.
	{name: "store-release-is-a-hold", promise: "37", sentence: "what is released is released in the store", in: "(*ending).settlement", old: "if end.disposition == Release { return Settlement{Disposition: Release} }", new: ""},
	{name: "store-release-is-kept", promise: "37", sentence: "WithTTL(0): nobody elsewhere is told", in: "(*ending).settlement", old: "if end.ttl() <= 0 { return Settlement{Disposition: Release} }", new: "if end.ttl() <= 0 { s, _ := c.keeper.retaining(end.value, end.err, nil, 1e9); return s }"},

	// 38. ErrStore, ErrClaimLost.
	{name: "store-fails-open", promise: "38", sentence: "the claim could not be obtained: fn did not run", in: "(*Cache).claim", old: "case err != nil: q.reject(err); return", new: "case err != nil: q.granted(&r, standing); return", quick: true},
	{name: "store-unreadable-is-nothing", promise: "38", sentence: "a record that cannot be read is ErrStore", in: "(*inquiry).land", old: "if err != nil {", new: "if err != nil && c == nil {"},
	{name: "store-unencoded-is-success", promise: "38", sentence: "a value that cannot be encoded is a Hold: its effect is done", in: "(*ending).settlement", old: "end.hold(unrecorded, err)", new: ""},
	{name: "store-unencoded-keys-are-one", promise: "38", sentence: "a key that cannot be encoded is ErrInvalidKey", in: "(*Cache).claim", old: "err != nil { q.reject(err); return }; if o :=", new: "err != nil { c.storeFailed(f.key, err) }; if o :="},
	{name: "store-asked-for-ever", promise: "38", sentence: "a store that contradicts itself strands nobody", in: "(*Cache).claim", old: "range tooOften", new: "c.keeper != nil"},
	{name: "store-begin-outlives-its-context", promise: "38", sentence: "BeginEffect waits until its context ends", in: "BeginEffect", old: "cl.begin(ctx)", new: "cl.begin(context.WithoutCancel(ctx))"},
	{name: "store-failure-counts-as-within", promise: "38", sentence: "calls that ended with ErrStore count as StoreFailed, whatever the store wrapped", in: "(*Stats).without", old: "_, failed := err.(*storeError)", new: "failed := false"},
	{name: "store-error-without-end", promise: "38", sentence: "an error without end is recorded like any other", in: "contained", old: "finite(verb())", new: "verb()"},
	{name: "store-grants-a-held-key", promise: "38", sentence: "a store that breaks its rules is an error, and fn does not run on a held key", in: "(*inquiry).granted", old: "case !r.Reconcile:", new: "case false:"},
	{name: "store-failure-uncounted", promise: "38", sentence: "calls that ended with ErrStore count as StoreFailed", in: "(*Stats).without", old: "failed { return &s.StoreFailed", new: "failed { return &s.OutcomeUnknown"},
	{name: "store-invalid-key-uncounted", promise: "38", sentence: "a key that the store does not take is ErrInvalidKey, and counts so", in: "(*Stats).without", old: "return &s.InvalidKey", new: "return &s.StoreFailed"},
	{name: "store-invalid-key-is-asked-again", promise: "38", sentence: "ErrInvalidKey is an answer", in: "isAnswer", old: "|| errors.Is(err, ErrInvalidKey)", new: ""},
	{name: "store-attempt-uncounted", promise: "38", sentence: "StoreErrors: attempts that failed", in: "(*Cache).storeFailed", old: "k.failures.Add(1)", new: ""},
	{name: "store-attempt-untold", promise: "38", sentence: "EventStore: an attempt failed", in: "(*Cache).storeFailed", old: "c.observe(context.Background(), Event[K]{Kind: EventStore, Key: key, Err: err})", new: ""},
	{name: "store-observer-without-end", promise: "38", sentence: "an Observer may ask the store that fails", in: "(*keeper).tells", old: "if k.telling[key] == tooDeep { return false }", new: ""},
	{name: "store-observer-told-once", promise: "38", sentence: "EventStore: each attempt that failed", in: "(*Cache).storeFailed", old: "defer k.told(key)", new: ""},
	{name: "store-observer-told-of-one", promise: "38", sentence: "EventStore: each attempt that failed, also one of the Observer's own", in: "(*keeper).tells", old: "if k.telling[key] == tooDeep", new: "if k.telling[key] == 1"},
	{name: "store-resolved-and-still-offered", promise: "43", sentence: "Resolve counts for this process, too", in: "(*Cache).operate", old: "c.keeper.withdraw(text, asked)", new: "_ = asked"},
	{name: "store-forgotten-and-still-offered", promise: "43", sentence: "Forget counts for this process, too", in: "(*Cache).forgetStored", old: "if was && standing.State != InFlight", new: "if false && asked > 0"},
	{name: "store-forgotten-in-flight-and-not-offered", promise: "43", sentence: "Forget marks a key in flight; its outcome is recorded", in: "(*Cache).forgetStored", old: "if was && standing.State != InFlight", new: "if was"},
	{name: "store-cut-off-restore-for-good", promise: "43", sentence: "Restore into a key that is absent", in: "(*Cache).restoreStored", old: "&& got.free()", new: "&& false"},
	{name: "store-free-is-unsettled", promise: "43", sentence: "Unsettled: in flight and held only", in: "(*Cache).unsettledStored", old: "if s.free() { return nil }", new: ""},
	{name: "store-unanswered-is-not-given-back", promise: "38", sentence: "a claim whose answer never came is given back", in: "(*Cache).request", old: "if !known { c.keeper.giveBackLater(r.Claim) }", new: "_ = known"},
	{name: "store-given-back-once", promise: "38", sentence: "a claim whose answer never came is given back, until the store takes it", in: "(*keeper).giveBack", old: "unused = append(unused, id)", new: ""},
	{name: "store-refusal-ignored", promise: "38", sentence: "an error that is ErrStore: do not begin", in: "BeginEffect", old: "return e.takeBack(cl, err)", new: "_ = e.takeBack(cl, err)"},
	{name: "store-refused-has-begun", promise: "38", sentence: "it counts as the other refusals do: nothing has begun", in: "(*execution).takeBack", old: "asked.begins--", new: ""},
	{name: "store-refused-says-nothing", promise: "38", sentence: "it counts as the other refusals do: as NoEffect at the top", in: "(*execution).takeBack", old: "e.last = max(e.last, noEffect)", new: ""},
	{name: "store-unrecorded-is-success", promise: "38", sentence: "an outcome that the store did not take is a Hold", in: "(*ending).offer", old: "end.hold(unrecorded, err)", new: ""},
	{name: "store-unrecorded-value-lost", promise: "38", sentence: "and fn's value beside it", in: "(*ending).holdLocked", old: "o.err = end.unknown()", new: "o.err, o.value = end.unknown(), *new(V)"},
	{name: "store-unrecorded-is-not-offered", promise: "38", sentence: "the core offers it again", in: "(*keeper).beatAgain", old: "defer k.within(k.c.opts.Lease/3, k.offer)", new: ""},
	{name: "store-offered-once", promise: "38", sentence: "with every heartbeat", in: "(*keeper).offer", old: "c.storeFailed(o.key, err); continue", new: "c.storeFailed(o.key, err)"},
	{name: "store-offer-has-no-payload", promise: "38", sentence: "its own later calls are answered, of the same payload", in: "(*inquiry).unrecorded", old: "o.fingerprint != q.flight.fingerprint", new: "o == nil"},
	{name: "store-own-calls-ask", promise: "38", sentence: "a process whose Settle was not taken answers its own later calls until an offer is accepted", in: "(*Cache).claim", old: "o != nil", new: "o != nil && o.at < 0"},
	{name: "store-lost-begun-is-a-release", promise: "38", sentence: "ErrClaimLost at Settle: ErrOutcomeUnknown, unless nothing had begun", in: "(*ending).record", old: "end.said != effectBegun &&", new: ""},
	{name: "store-lost-settling-is-a-release", promise: "38", sentence: "unless Settling was not asked", in: "(*ending).record", old: "(!cl.settles || errors.Is(end.err, ErrClaimLost))", new: "end.c == c"},
	{name: "store-refused-settling-is-unknown", promise: "38", sentence: "or its store answered ErrClaimLost", in: "(*ending).record", old: "|| errors.Is(end.err, ErrClaimLost)", new: ""},
	{name: "store-lost-release-is-unknown", promise: "38", sentence: "unless the outcome is a release with nothing begun, which needs no record", in: "(*ending).record", old: "return }; end.unheld = true", new: "}; end.unheld = true"},

	// 39. The engine's outcome counts.
	{name: "store-commit-unseen", promise: "39", sentence: "if the engine already has an outcome for the claim, that one counts", in: "(*ending).record", old: "end.adopt(counts, s, asked)", new: "asked < 0"},
	{name: "store-committed-value-unseen", promise: "39", sentence: "and the callers get it", in: "(*ending).adopt", old: "Retain, e.Value, e.Err", new: "Retain, end.value, e.Err"},
	{name: "store-settling-says-nothing", promise: "39", sentence: "Settling takes part as NoEffect at the top of fn", in: "Settling", old: "e.last = max(e.last, noEffect)", new: ""},
	{name: "store-settles-another-type", promise: "39", sentence: "a value of another type than V is an error", in: "(*Cache).seal", old: "!ok && value != nil", new: "!ok && value == nil"},
	{name: "store-settles-a-failure", promise: "39", sentence: "nil or a final error", in: "(*Cache).seal", old: "if d != Retain {", new: "if d == Release {"},
	{name: "store-settles-after-fn", promise: "39", sentence: "inside fn", in: "Settling", old: "case over: return Claim{}, Settlement{}, ErrNotExecuting", new: "case over:"},
	{name: "store-who-settled-is-stopped", promise: "39", sentence: "an fn whose transaction has committed goes on", in: "(*execution).lose", old: "!cl.settles", new: "cl != nil"},

	// 40. The local layer never outlives the record.
	{name: "store-copy-counts-from-the-answer", promise: "40", sentence: "counted from before the question was sent", in: "(*inquiry).land", old: "c.copyOf(f.key, f.hash, e, standing, q.since)", new: "c.copyOf(f.key, f.hash, e, standing, c.now())"},
	{name: "store-watch-counts-from-the-answer", promise: "40", sentence: "counted from before the question was sent, at the end of a watch too", in: "(*inquiry).watch", old: "err == nil { switch {", new: "err == nil { q.since = c.now(); switch {"},
	{name: "store-own-copy-counts-from-the-answer", promise: "40", sentence: "counted from before the question was sent, of an execution here too", in: "(*ending).copyLocked", old: "deadlineOf(end.at, keep)", new: "deadlineOf(c.now(), keep)"},
	{name: "store-copy-outlives", promise: "40", sentence: "so it never outlives the record", in: "(*Cache).copyOf", old: "keep = min(keep, standing.ExpiresIn)", new: ""},
	{name: "store-own-copy-outlives", promise: "40", sentence: "so it never outlives the record, of an execution here either", in: "(*ending).copyLocked", old: "keep = min(keep, ttl)", new: ""},

	// 41. Copies for LocalTTL.
	{name: "store-copy-as-long-as-the-record", promise: "41", sentence: "for at most LocalTTL", in: "(*Cache).copyOf", old: "keep := c.opts.LocalTTL", new: "keep := c.opts.TTL"},
	{name: "store-own-copy-as-long-as-the-record", promise: "41", sentence: "for at most LocalTTL, of an execution here too", in: "(*ending).copyLocked", old: "keep := c.opts.LocalTTL", new: "keep := max(ttl, c.opts.LocalTTL)"},
	{name: "store-held-copied", promise: "41", sentence: "retained outcomes only: a held key is asked about at every call", hint: "TestPromise43_", in: "(*ending).holdLocked", old: "case c.keeper != nil:", new: "case c.keeper != nil && end.exec.reconciling:"},
	{name: "store-forget-leaves-the-copy", promise: "41", sentence: "Forget drops the copy here at once", in: "(*Cache).drop", old: "case r != nil:", new: "case r != nil && c.keeper != nil: case r != nil:"},
	{name: "store-forgotten-elsewhere-is-copied", promise: "41", sentence: "what was forgotten elsewhere while in flight is not retained, and not copied", in: "(*ending).record", old: "end.forgotten = err == nil && counts.Forgotten", new: ""},
	{name: "store-forgotten-meanwhile-is-copied", promise: "41", sentence: "what was forgotten here while the store was asked is not copied", in: "(*inquiry).landAs", old: "q.s.mu.Lock(); if d != nil", new: "q.s.mu.Lock(); f.forgotten = false; if d != nil"},

	// 42. MaxEntries, MaxWeight and MinRetention bound memory only.
	{name: "store-eviction-told", promise: "42", sentence: "evicting drops a copy, and is no event", in: "(*Cache).noteDropped", old: "c.keeper == nil", new: "c != nil"},
	{name: "store-min-retention", promise: "42", sentence: "MinRetention is ignored", in: "(*Options).minRetention", old: "case o.MinRetention < 0, o.Store != nil:", new: "case o.MinRetention < 0:"},
	{name: "store-heavy-copy", promise: "42", sentence: "ErrValueShed does not occur", in: "(*inquiry).landAs", old: "|| d.weight > c.opts.MaxWeight", new: ""},
	{name: "store-own-heavy-copy", promise: "42", sentence: "ErrValueShed does not occur, of an execution here either", in: "(*ending).copyLocked", old: "|| d.weight > c.opts.MaxWeight", new: ""},
	{name: "store-place-of-a-refusal-lost", promise: "42", sentence: "ErrFull means that MaxEntries are in flight", in: "(*inquiry).settle", old: "q.c.returnPlace()", new: ""},
	{name: "store-place-of-a-replay-lost", promise: "42", sentence: "ErrFull means that MaxEntries are in flight, not what is not copied", in: "(*inquiry).landAs", old: "case d == nil: c.returnPlace()", new: "case d == nil:"},
	{name: "store-place-of-an-outcome-lost", promise: "42", sentence: "ErrFull means that MaxEntries are in flight, not what is not copied here", in: "(*ending).copyLocked", old: "c.returnPlace()", new: ""},
	{name: "store-place-of-a-hold-lost", promise: "42", sentence: "ErrFull means that MaxEntries are in flight, not what is held", in: "(*ending).holdLocked", old: "c.returnPlace(); o.err = end.unknown()", new: "o.err = end.unknown()"},
	{name: "store-weight-lost", promise: "42", sentence: "MaxWeight bounds memory: what is not copied weighs nothing", in: "(*ending).copyLocked", old: "c.returnWeight(d.weight)", new: ""},
	{name: "store-weight-of-the-too-heavy-given-back", promise: "42", sentence: "MaxWeight bounds memory: what is too heavy for a copy has taken no weight", in: "(*Cache).returnWeight", old: "&& weight <= c.opts.MaxWeight", new: ""},

	// 43. Operators act on the store.
	{name: "store-operator-who-left-hears-of-the-store", promise: "43", sentence: "ErrCallerLeft once ctx ends", in: "(*Cache).reconcileStored", old: "case err != nil && ctx.Err() != nil: return e, left(ctx, ctx.Err())", new: ""},
	{name: "store-lookup-swallows", promise: "43", sentence: "Lookup returns the store's errors", in: "(*Cache).lookupStored", old: "if err != nil || standing.State == Absent { return e, false, err }", new: "if err != nil || standing.State == Absent { return e, false, nil }"},
	{name: "store-forget-twice", promise: "43", sentence: "a Forget whose answer was lost has forgotten, and does not act on what came after", in: "(*Cache).forgetStored", old: "if attempts > 1", new: "if attempts < 0"},
	{name: "store-forget-that-failed-releases", promise: "43", sentence: "what the store did not forget is retained", in: "(*ending).retains", old: "if end.c.keeper != nil", new: "if end.c.keeper != nil && end.forgotten"},
	{name: "store-forget-that-failed-leaves-a-copy", promise: "43", sentence: "a Forget drops the copy, also if the store fails", in: "(*ending).copyLocked", old: "|| end.flight.forgotten", new: ""},
	{name: "store-unsettled-must-go-on", promise: "43", sentence: "each may end Unsettled, whatever the store makes of it", in: "(*Cache).unsettledStored", old: "errors.Is(err, enough)", new: "err == enough"},
	{name: "store-forget-swallows", promise: "43", sentence: "Forget returns the store's errors", in: "(*Cache).forgetStored", old: "if err != nil || standing.State == Absent { return false, err }", new: "if err != nil || standing.State == Absent { return false, nil }"},
	{name: "store-unsettled-swallows", promise: "43", sentence: "Unsettled returns the store's errors", in: "(*Cache).unsettledStored", old: "c.storeFailed(*new(K), err); return &storeError{err}", new: "c.storeFailed(*new(K), err); return nil"},
	{name: "store-resolve-swallows", promise: "43", sentence: "Resolve returns the store's errors: it is not settled", in: "(*Cache).operate", old: "return c.settleClaim(context.WithoutCancel(ctx), key, r.Claim, s, c.opts.Lease)", new: "_ = c.settleClaim(context.WithoutCancel(ctx), key, r.Claim, s, c.opts.Lease); return nil"},
	{name: "store-resolve-of-what-is-not-held", promise: "43", sentence: "of all operators one acts", in: "(*Cache).operate", old: "case held.State != Held: return notHeld(held.State)", new: "case held.State != Held: return nil"},
	{name: "store-resolve-without-payload", promise: "43", sentence: "they claim with the record's fingerprint", in: "(*Cache).operate", old: "ClaimRequest{Fingerprint: held.Fingerprint,", new: "ClaimRequest{"},
	{name: "store-reconcile-without-payload", promise: "43", sentence: "they claim with the record's fingerprint", in: "(*inquiry).replaceHeld", old: "ClaimRequest{Fingerprint: standing.Fingerprint,", new: "ClaimRequest{"},
	{name: "store-reconcile-never-pauses", promise: "43", sentence: "the 1 s after a Reconcile that learned nothing", in: "(*ending).record", old: "c.keeper.pause(cl.ID, end.unknown())", new: ""},
	{name: "store-fn-after-reconcile-unbegun", promise: "43", sentence: "what follows Reconcile is begun", in: "(*ending).recordsBegin", old: "if cl == nil {", new: "if cl != nil {"},
	{name: "store-fn-after-reconcile-unrecorded", promise: "43", sentence: "what follows Reconcile is begun, or does not follow", in: "(*ending).recordsBegin", old: "case err == nil: return true", new: "case err == nil || errors.Is(err, ErrStore): return true"},
	{name: "store-fn-after-replaced-reconcile", promise: "43", sentence: "of all Reconciles in all processes one acts", in: "(*ending).recordsBegin", old: "case err == nil: return true", new: "case err == nil || err == ErrClaimLost: return true"},
	{name: "store-nobodys-fn-begun", promise: "43", sentence: "what does not follow Reconcile, since its caller has left, is not begun", in: "(*ending).recordsBegin", old: "if end.nobodysFn { return false }", new: ""},
	{name: "store-resolve-ends-half-way", promise: "43", sentence: "an operator who leaves has resolved, or has not", in: "(*Cache).operate", old: "context.WithoutCancel(ctx)", new: "ctx"},
	{name: "store-restore-here-only", promise: "43", sentence: "Restore and Load write through", in: "(*Cache).restoreStored", old: "return c.settleClaim(context.WithoutCancel(ctx), key, r.Claim, s, c.opts.Lease)", new: "return nil"},
	{name: "store-restore-without-payload", promise: "43", sentence: "they move keys into the store, with their fingerprints", in: "(*Cache).restoreStored", old: "ClaimRequest{Fingerprint: e.Fingerprint}", new: "ClaimRequest{}"},
	{name: "store-restore-anew", promise: "43", sentence: "they move keys into the store, with their ends", in: "(*Cache).restoreStored", old: "max(e.ExpiresAt.Sub(c.wall(c.syncWall())), 1)", new: "c.opts.TTL"},
	{name: "store-restore-over-what-is-there", promise: "43", sentence: "Restore wants an absent key", in: "(*Cache).restoreStored", old: `case !got.Granted: return fmt.Errorf("idemflight: Restore of a key that the store has already, %v: restored twice?", got.State)`, new: "case !got.Granted: return nil"},

	// 44. Save, Close.
	{name: "store-close-waits-for-elsewhere", promise: "44", sentence: "Close waits for executions, not for those of other processes", in: "(*Cache).ends", old: "case f.asks != nil && f.asks.claiming != nil && f.asks.claiming.watches: continue", new: ""},
	{name: "store-close-does-not-wait-for-the-answer", promise: "44", sentence: "Close waits as before: what the store is asked for may run here", in: "(*Cache).ends", old: "undecided = append(undecided, f.asks.claiming.decided)", new: ""},
	{name: "store-reconcile-of-the-closed-drops-the-copy", promise: "44", sentence: "Close as before: what is kept is replayed on, also after a Reconcile that is refused", hint: "TestPromise43_ReconcileOfAClosed", in: "(*call).claimToAsk", old: "case f == nil && c.closed.Load():", new: "case f == nil && c.closed.Load(): if r := s.kept.get(m.reply.hash, m.key); r != nil { c.removeLocked(s, r) }"},
	{name: "store-saves", promise: "44", sentence: "Save is an error with a Store", hint: "TestPromise43_", in: "(*Cache).Save", old: "if c.keeper != nil {", new: "if c.keeper != nil && c.opts.Lease < 0 {"},

	// around.md: a Store keeps the origin.
	{name: "store-origin-lost", promise: "28", sentence: "a Store keeps the origin: of what is retained", hint: "TestOrigin", in: "Codec.encodeOutcome", old: "case origin == nil:", new: "case origin == nil || err == nil:"},
	{name: "store-origin-of-a-hold-lost", promise: "28", sentence: "a Store keeps the origin: of what is held", hint: "TestOrigin", in: "Codec.encodeHeld", old: "if origin != nil {", new: "if origin != nil && held == 0 {"},
	{name: "store-origin-of-what-landed-lost", promise: "28", sentence: "a replay elsewhere points to the run", hint: "TestOrigin", in: "(*inquiry).landAs", old: "origin: e.Origin", new: ""},
	{name: "store-origin-of-the-copy-lost", promise: "28", sentence: "a replay from the copy points to the run", hint: "TestOrigin", in: "(*Cache).copyOf", old: "origin: e.Origin,", new: ""},
	{name: "store-origin-lost-by-resolve", promise: "28", sentence: "what was resolved points to the run that left it unknown", hint: "TestOrigin", in: "(*Cache).resolveStored", old: "c.keeper.retaining(value, cause, origin, c.opts.TTL)", new: "c.keeper.retaining(value, cause, nil, c.opts.TTL)"},
}
