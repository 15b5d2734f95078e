package main

const (
	cacheGo    = "cache.go"
	callGo     = "call.go"
	classifyGo = "classify.go"
	connlostGo = "connlost.go"
	effectGo   = "effect.go"
	errorsGo   = "errors.go"
	eventsGo   = "events.go"
	flightGo   = "flight.go"
	hotGo      = "hot.go"
	inspectGo  = "inspect.go"
	coreKeyGo  = "key.go"
	optionsGo  = "options.go"
	outcomeGo  = "outcome.go"
	reclaimGo  = "reclaim.go"
	restoreGo  = "restore.go"
	recordGo   = "record.go"
	roomGo     = "room.go"
	settleGo   = "settle.go"
	ttlGo      = "ttl.go"
	wrapGo     = "wrap.go"
)

// Where no hint stands, the tests named after the promise are tried first.
var coreFaults = []fault{
	// 1. At most one execution per key runs at any moment, whatever happens meanwhile.
	{name: "forget-ends-the-flight", promise: "1", sentence: "whatever is forgotten", file: cacheGo, old: "		f.forgotten = true\n", new: "		f.forgotten = true\n		delete(s.pending, key)\n"},
	{name: "forgotten-flight-not-joined", promise: "1", sentence: "whatever is forgotten", file: callGo, old: "if f := s.pending[key]; f != nil {", new: "if f := s.pending[key]; f != nil && !f.forgotten {"},
	{name: "leader-takes-the-flight-along", promise: "1", sentence: "whatever is left", file: callGo, old: "		f.leaderLeft = true\n", new: "		f.leaderLeft = true\n		delete(s.pending, f.key)\n", quick: true},
	{name: "reconcile-not-joined", promise: "1", sentence: "Reconcile counts as an execution of its key", file: callGo, old: "if f := s.pending[key]; f != nil {", new: "if f := s.pending[key]; f != nil && f.held == nil {"},
	{name: "close-ends-flights", promise: "1", sentence: "whatever is closed", file: cacheGo, old: "			inFlight = append(inFlight, f.done)\n", new: "			inFlight = append(inFlight, f.done)\n			delete(s.pending, f.key)\n"},

	// 2. While an outcome is kept, fn does not run for its key; no window.
	{name: "window-between-flight-and-kept", promise: "2", sentence: "no window between not in flight any more and kept", file: settleGo, old: "\tdeadline := forever\n\tswitch x.disposition {\n", new: "\tdelete(s.pending, f.key)\n\ts.mu.Unlock()\n\ttime.Sleep(time.Microsecond)\n\ts.mu.Lock()\n\tdeadline := forever\n\tswitch x.disposition {\n"},
	{name: "kept-error-runs-again", promise: "2", sentence: "while an outcome is kept, fn does not run", file: settleGo, old: "	if x.disposition == Retain && !retain {\n", new: "	if x.disposition == Retain && (!retain || x.err != nil) {\n"},
	{name: "kept-meanwhile-unseen", promise: "2", sentence: "no window between not in flight any more and kept", file: ttlGo, old: "	k.newest = r.deadline\n	k.puts++\n", new: "	k.newest = r.deadline\n"},
	{name: "kept-at-first-look-forgotten", promise: "2", sentence: "while an outcome is kept, fn does not run", hint: "TestPromise13_WithoutReconcile|TestPromise22_", file: cacheGo, old: "\t\tseen.puts-- // call has to look again\n", new: ""},
	{name: "hot-for-another-key", promise: "2", sentence: "while an outcome is kept, fn does not run for its key: and it is the outcome of that key", file: hotGo, old: "if h == nil || h.hash != hash || h.key != key {", new: "if h == nil {"},

	// 3. fn runs with no lock of the library held.
	{name: "fn-under-the-lock", promise: "3", sentence: "fn runs with no lock held", file: settleGo, old: "	x.run(e, fn)\n", new: "	s.mu.Lock()\n	x.run(e, fn)\n	s.mu.Unlock()\n"},
	{name: "fn-one-at-a-time", promise: "3", sentence: "it may call Do for other keys", file: settleGo, old: "	x.run(e, fn)\n", new: "	c.reclaimer.mu.Lock()\n	x.run(e, fn)\n	c.reclaimer.mu.Unlock()\n"},

	// 4. fn's context: the leader's values, neither its cancellation nor its deadline.
	{name: "values-lost", promise: "4", sentence: "the context carries the leader's values", file: flightGo, old: "		values = context.WithoutCancel(e.leader)\n", new: "		values = context.Background()\n"},
	{name: "values-lost-once-someone-looks", promise: "4", sentence: "the context carries the leader's values", file: flightGo, old: "		values := context.WithoutCancel(e.leader)\n", new: "		values := context.Background()\n"},
	{name: "cancellation-of-the-leader", promise: "4", sentence: "not the leader's cancellation", file: flightGo, old: "		values := context.WithoutCancel(e.leader)\n", new: "		values := e.leader\n", quick: true},
	{name: "cancellation-through-value", promise: "4", sentence: "not the leader's cancellation", file: flightGo, old: "		values = context.WithoutCancel(e.leader)\n", new: "		values = e.leader\n"},
	{name: "deadline-of-the-leader", promise: "4", sentence: "nor its deadline", file: flightGo, old: "\tif e.deadline == 0 {\n\t\treturn time.Time{}, false\n\t}\n", new: "\tif d, ok := e.leader.Deadline(); ok || e.deadline == 0 {\n\t\treturn d, ok\n\t}\n"},
	{name: "context-outlives-fn", promise: "4", sentence: "it ends when fn returns", file: flightGo, old: "	if cancel != nil {\n		cancel()\n", new: "	if cancel != nil && begun {\n		cancel()\n"},
	{name: "exec-timeout-ignored", promise: "4", sentence: "or ExecTimeout after fn started", file: flightGo, old: "	if timeout > 0 {\n", new: "	if timeout < 0 {\n"},
	{name: "err-before-anyone-looks", promise: "4", sentence: "or ExecTimeout after fn started", file: flightGo, old: "\tcase e.late || e.overdue():\n", new: "\tcase e.late:\n"},
	{name: "timer-armed-at-once", promise: "4", sentence: "the timer is armed when someone looks, so that it costs nothing otherwise", file: flightGo, old: "\t\te.deadline = e.started + min(timeout, forever-e.started)\n", new: "\t\te.deadline = e.started + min(timeout, forever-e.started)\n\t\te.Done()\n"},
	{name: "leaving-stops-the-work", promise: "4", sentence: "the leader leaving does not stop the work", file: callGo, old: "		f.leaderLeft = true\n", new: "		f.leaderLeft = true\n		f.exec.Done()\n		f.exec.cancel()\n"},

	// 5. In flight until fn really returns.
	{name: "timeout-ends-the-flight", promise: "5", sentence: "in flight until fn really returns, also when it ignores its timeout", file: settleGo, old: "	x.run(e, fn)\n", new: "	ran := make(chan struct{})\n	go func() {\n		defer close(ran)\n		x.run(e, fn)\n	}()\n	select {\n	case <-ran:\n	case <-e.Done():\n	}\n"},

	// 6. Re-entrancy.
	{name: "reentrancy-unseen", promise: "6", sentence: "ErrReentrant instead of waiting for itself", file: callGo, old: "\treturn c.refuse(ctx, s, f, err, within.inside(&f.exec))\n", new: "\tif err == nil {\n\t\treturn nil\n\t}\n\treturn c.refuse(ctx, s, f, err, within.inside(&f.exec))\n"},
	{name: "reentrancy-at-depth-one", promise: "6", sentence: "at any depth", file: flightGo, old: "\t\tif e.first == first {\n\t\t\treturn true\n\t\t}\n", new: "\t\treturn e.first == first\n"},
	{name: "reentrancy-of-other-keys", promise: "6", sentence: "the flight itself", file: flightGo, old: "\t\tif e.first == first {\n", new: "\t\tif e.first != nil {\n"},

	// 7. Every caller returns as soon as its own context ends.
	{name: "leader-stays", promise: "7", sentence: "the leader included, unless it called with Inline", file: callGo, old: "stays: inline || ctx.Done() == nil}", new: "stays: true}"},
	{name: "inline-leader-leaves", promise: "7", sentence: "unless it called with Inline", file: callGo, old: "stays: inline || ctx.Done() == nil}", new: "stays: ctx.Done() == nil}"},
	{name: "goroutine-for-who-cannot-leave", promise: "7", sentence: "who cannot leave needs no other goroutine", file: callGo, old: "stays: inline || ctx.Done() == nil}", new: "stays: inline}"},
	{name: "left-is-not-told", promise: "7", sentence: "an error that is ErrLeft", file: errorsGo, old: "return target == ErrLeft }", new: "return false }"},
	{name: "left-without-cause", promise: "7", sentence: "and wraps context.Cause(ctx)", file: errorsGo, old: "[]error{e.cause, e.err}", new: "[]error{e.err}"},
	{name: "left-without-err", promise: "7", sentence: "and ctx.Err()", file: errorsGo, old: "[]error{e.cause, e.err}", new: "[]error{e.cause}"},
	{name: "goroutine-per-departed", promise: "7", sentence: "no goroutine is left behind per departed caller", file: callGo, old: "\tas := &s.stats.NotWaited\n", new: "\tgo func() { <-f.done }()\n\tas := &s.stats.NotWaited\n"},
	{name: "joined-leaves-without-error", promise: "7", sentence: "an error that is ErrLeft", file: cacheGo, old: "err = c.depart(ctx, seen.shard, f, true, false)", new: "_ = c.depart(ctx, seen.shard, f, true, false)"},
	{name: "joined-through-wrap-leaves-without-error", promise: "7", sentence: "an error that is ErrLeft", file: wrapGo, old: "err = c.depart(ctx, seen.shard, f, true, false)", new: "_ = c.depart(ctx, seen.shard, f, true, false)"},
	{name: "waiter-stops-the-work", promise: "7", hint: "TestTheFlightGoesOn", sentence: "others are not affected", file: callGo, old: "		f.waiters--\n", new: "		f.waiters--\n		f.exec.Done()\n		f.exec.cancel()\n"},

	// 8. The outcome wins.
	{name: "left-though-settled", promise: "8", sentence: "if both are there, the outcome wins", file: callGo, old: "\tcase !c.leave(s, f, as, leads):\n", new: "\tcase !c.leave(s, f, as, leads) && !leaves:\n"},
	{name: "left-before-done", promise: "8", sentence: "if both are there, the outcome wins", file: callGo, old: "\tif f.settled {\n\t\treturn false\n\t}\n", new: ""},
	{name: "dead-context-no-replay", promise: "8", hint: "TestDoReplaysThough", sentence: "with a context dead on arrival a retained outcome is still replayed", file: cacheGo, old: "\tmustCall(ctx, fn == nil)\n\to := readOptions(opts)\n\thash := c.hash(key)\n\tvar seen", new: "\tmustCall(ctx, fn == nil)\n\tif ctx.Err() != nil {\n\t\treturn *new(V), left(ctx, ctx.Err())\n\t}\n\to := readOptions(opts)\n\thash := c.hash(key)\n\tvar seen", quick: true},
	{name: "dead-context-runs-fn", promise: "8", sentence: "and fn is never started", file: callGo, old: "		if me.err != nil {\n			s.stats.Left++\n", new: "		if me.err != nil && me.within != nil {\n			s.stats.Left++\n"},

	// 9. All callers of one flight get the same value and the same error.
	{name: "value-dropped-with-an-error", promise: "9", sentence: "fn's value is returned also when its error is not nil", file: flightGo, old: "	x.value, x.err = fn(e)\n", new: "	if x.value, x.err = fn(e); x.err != nil {\n		x.value = *new(V)\n	}\n"},
	{name: "joined-get-another-error", promise: "9", hint: "TestJoinedCallersOfEveryForm", sentence: "the same error: fn's", file: cacheGo, old: "\t\treturn f.outcome.value, f.outcome.err\n", new: "\t\tif f.outcome.err != nil {\n\t\t\treturn f.outcome.value, &unmarked{f.outcome.err}\n\t\t}\n\t\treturn f.outcome.value, nil\n"},
	{name: "joined-through-wrap-get-no-error", promise: "9", sentence: "the same error: fn's", hint: "TestJoinedCallersOfEveryForm", file: wrapGo, old: "\t\t\treturn f.outcome.value, f.outcome.err\n", new: "\t\t\treturn f.outcome.value, nil\n"},
	{name: "joined-through-do-result-get-no-value", promise: "9", sentence: "all callers of one flight get the same value", file: cacheGo, old: "\t\treturn f.outcome.result(&c.clock, Joined), f.outcome.err\n", new: "\t\treturn Result[V]{Source: Joined}, f.outcome.err\n"},
	{name: "zero-is-no-value", promise: "9", sentence: "zero and nil values are values", file: settleGo, old: "	if x.disposition == Retain && !retain {\n", new: "	if x.disposition == Retain && (!retain || any(x.value) == any(*new(V))) {\n"},

	// 10. WithMaxWait and MaxWaiters.
	{name: "one-waiter-too-many", promise: "10", sentence: "MaxWaiters", file: callGo, old: "int(f.waiters) >= c.opts.MaxWaiters", new: "int(f.waiters) > c.opts.MaxWaiters"},
	{name: "max-waiters-unseen", promise: "10", sentence: "MaxWaiters", file: cacheGo, old: " && o.maxWait > 0 && c.opts.MaxWaiters == 0 {", new: " && o.maxWait > 0 {"},
	{name: "max-wait-bounds-the-leader", promise: "10", sentence: "never a leader", file: callGo, old: "c.wait(me.ctx, s, f, true)", new: "c.waitUpTo(me.ctx, s, f, min(time.Second, forever))"},
	{name: "max-wait-ends-the-flight", promise: "10", hint: "TestTheFlightGoesOn", sentence: "the flight goes on", file: callGo, old: "\treturn ErrInFlight\n}\n", new: "\tf.exec.Done()\n\tf.exec.cancel()\n\treturn ErrInFlight\n}\n"},
	{name: "max-wait-ignored", promise: "10", sentence: "a caller that may not wait any longer gets ErrInFlight", file: callGo, old: "	if maxWait == forever {\n", new: "	if maxWait >= 0 {\n"},
	{name: "no-wait-joins", promise: "10", sentence: "NoWait: not at all", file: optionsGo, old: "kind: optionMaxWait, d: d}", new: "kind: optionMaxWait, d: d & forever}"},

	// 11. Markers.
	{name: "nil-is-not-retained", promise: "11", sentence: "a nil error is retained", file: settleGo, old: "		x.disposition = Retain\n		return\n", new: "		x.disposition = Release\n		return\n"},
	{name: "release-beats-hold", promise: "11", sentence: "Hold beats Retain beats Release", file: outcomeGo, old: "{ return max(a, sane(b)) }", new: "{ return min(a, sane(b)) }"},
	{name: "innermost-marker-wins", promise: "11", sentence: "the outermost wins", file: outcomeGo, old: "			return e.d, true\n", new: "			if d, found := judge(e.err, plain); found {\n				return d, true\n			}\n			return e.d, true\n"},
	{name: "effect-beats-a-marker", promise: "11", sentence: "a marker decides, whatever BeginEffect says", file: settleGo, old: "		if !found {\n			d = plain(err)\n", new: "		if !found || x.begun {\n			d = plain(err)\n"},
	{name: "search-enters-a-panic", promise: "11", sentence: "the search never enters a *PanicError", file: outcomeGo, old: "		case *PanicError, *unmarked:\n", new: "		case *unmarked:\n"},
	{name: "heard-twice", promise: "11", sentence: "markers speak once", file: outcomeGo, old: "		case *PanicError, *unmarked:\n", new: "		case *PanicError:\n"},
	{name: "marker-reaches-callers", promise: "11", sentence: "what callers get is the error that was marked", file: outcomeGo, old: "		err = m.err\n", new: "		return m\n"},
	{name: "one-marker-taken-off", promise: "11", sentence: "the error that was marked", file: outcomeGo, old: "		err = m.err\n", new: "		return m.err\n"},
	{name: "deeper-marker-leaks", promise: "11", sentence: "an error that comes out of Do bears no marker", file: outcomeGo, old: "	if _, found := judge(err, sureRelease); found {\n", new: "	if _, found := judge(err, sureRelease); found && err == nil {\n"},
	{name: "text-of-unmarked", promise: "11", sentence: "an error with the same text", file: outcomeGo, old: "func (u *unmarked) Error() string { return u.err.Error() }", new: "func (u *unmarked) Error() string { return \"unmarked: \" + u.err.Error() }"},
	{name: "unmarked-hides-the-cause", promise: "11", sentence: "for which errors.Is and As work as on fn's own", file: outcomeGo, old: "func (u *unmarked) Unwrap() error { return u.err }", new: "func (u *unmarked) Unwrap() error { return nil }"},
	{name: "rest-of-a-join-unjudged", promise: "11", sentence: "the others being judged each alone", file: outcomeGo, old: "			d = strongest(d, plain(err))\n", new: "			_ = plain(err)\n"},
	{name: "marker-in-left", promise: "11", sentence: "the cause in ErrLeft included, bears no marker", file: callGo, old: "cause: unmark(context.Cause(ctx))", new: "cause: context.Cause(ctx)"},
	{name: "marked-nil", promise: "11", sentence: "Final(nil), Retryable(nil) and Unknown(nil) are nil", file: outcomeGo, old: "	if err == nil {\n		return nil\n	}\n	return &marked{err, d}\n", new: "	return &marked{err, d}\n"},

	// 12. Without a marker.
	{name: "effect-not-held", promise: "12", sentence: "held while an effect has begun", file: settleGo, old: "		case e.reconciling || x.begun:\n", new: "		case e.reconciling:\n", quick: true},
	{name: "no-effect-takes-all-back", promise: "12", sentence: "each takes back one", file: effectGo, old: "		e.begun--\n", new: "		e.begun = 0\n"},
	{name: "begun-once", promise: "12", sentence: "BeginEffect was called more often than NoEffect", file: effectGo, old: "	e.begun++\n", new: "	e.begun = 1\n"},
	{name: "no-effect-goes-below-zero", promise: "12", sentence: "NoEffect at the top of fn: nothing has begun yet", file: effectGo, old: "	if e.begun > 0 {\n		e.begun--\n	}\n", new: "	e.begun--\n"},
	{name: "no-effect-unheard", promise: "12", sentence: "released when either was called and none is outstanding", file: settleGo, old: "		case x.spoke:\n			return Release\n", new: ""},
	{name: "refusal-unheard", promise: "12", sentence: "a refusal takes part as if NoEffect had been called", file: effectGo, old: "\te.spoke = true\n\tif e.overdue() { // also if the timer of inner is late\n\t\treturn context.DeadlineExceeded\n\t}\n", new: "\tif e.overdue() {\n\t\treturn context.DeadlineExceeded\n\t}\n\te.spoke = true\n"},
	{name: "refusal-counts-as-begun", promise: "12", sentence: "a refusal: nothing more has begun", file: effectGo, old: "\tif e.overdue() { // also if the timer of inner is late\n", new: "\tif e.overdue() { // also if the timer of inner is late\n\t\te.begun++\n"},
	{name: "begins-after-the-timeout", promise: "12", sentence: "it refuses once ExecTimeout has passed", file: effectGo, old: "\tif e.overdue() { // also if the timer of inner is late\n\t\treturn context.DeadlineExceeded\n\t}\n", new: ""},
	{name: "begins-after-fn", promise: "12", sentence: "it refuses once fn has returned", file: effectGo, old: "\tcase e.ended:\n", new: "\tcase e.ended:\n\t\treturn nil\n\tcase e.late:\n"},
	{name: "begins-while-the-timer-is-late", promise: "12", sentence: "it refuses once ExecTimeout has passed", file: effectGo, old: "	if e.overdue() { // also", new: "	if e.errLocked() != nil { // also"},
	{name: "begins-outside", promise: "12", sentence: "ErrNotExecuting: ctx belongs to no execution", file: effectGo, old: "		return ErrNotExecuting\n", new: "		return nil\n"},
	{name: "outermost-execution-counts", promise: "12", sentence: "nested executions: the innermost counts", file: flightGo, old: "	if key == (executionKey{}) {\n		return e\n", new: "	if key == (executionKey{}) {\n		if e.outer != nil {\n			return e.outer\n		}\n		return e\n"},
	{name: "effect-in-reconcile-refused", promise: "12", sentence: "in Reconcile BeginEffect returns nil", file: effectGo, old: "	case e.reconciling:\n		return nil\n", new: ""},
	{name: "disposition-outside-the-three", promise: "12", sentence: "a Disposition outside the three is Hold", file: outcomeGo, old: "	if d < Release || d > Hold {\n", new: "	if d > Hold {\n"},
	{name: "classify-asked-in-vain", promise: "12", sentence: "otherwise Classify is asked", file: settleGo, old: "		return sane(c.opts.Classify(err))\n", new: "		return sane(ClassifyDefault(err))\n"},
	{name: "classify-of-a-panic", promise: "12", sentence: "*PanicError, ErrGoexit: Hold", file: classifyGo, old: "	case *PanicError:\n		return Hold, true\n", new: ""},
	{name: "classify-of-goexit", promise: "12", sentence: "*PanicError, ErrGoexit: Hold", file: classifyGo, old: "	if err == ErrGoexit {\n", new: "	if err == ErrGoexit && err == nil {\n"},
	{name: "classify-of-a-get", promise: "12", sentence: "a *url.Error: Release if its Op is neither Get nor Head", file: classifyGo, old: "		if !reads && neverSent(e.Err) {\n", new: "		if neverSent(e.Err) || reads && false {\n"},
	{name: "classify-of-a-head", promise: "12", sentence: "neither Get nor Head", file: classifyGo, old: ` || strings.EqualFold(e.Op, "Head")`, new: ""},
	{name: "classify-of-a-url-error", promise: "12", sentence: "a *url.Error: else Hold", file: classifyGo, old: "			return Release, true\n		}\n		return Hold, true\n", new: "			return Release, true\n		}\n		return 0, false\n"},
	{name: "classify-of-a-dial-in-a-join", promise: "12", hint: "TestADialError", sentence: "and a dial or DNS error is in it", file: classifyGo, old: "		return slices.ContainsFunc(e.Unwrap(), neverSent)\n", new: "		return false\n"},
	{name: "classify-of-a-dial", promise: "12", sentence: `a net.OpError with Op "dial": Release`, file: classifyGo, old: `return e.Op == "dial"`, new: `return e.Op == "connect"`},
	{name: "classify-of-any-op", promise: "12", sentence: `a net.OpError with Op "dial"`, file: classifyGo, old: `return e.Op == "dial"`, new: `return e.Op != ""`},
	{name: "classify-of-dns", promise: "12", sentence: "a net.DNSError: Release", file: classifyGo, old: "	case *net.DNSError:\n		return true\n", new: "	case *net.DNSError:\n		return false\n"},
	{name: "classify-of-an-inner-answer", promise: "12", sentence: "another sentinel of this package: Release", file: classifyGo, old: "	case *unknownError, *leftError:\n		return Release, true\n", new: "	case *unknownError:\n		return Release, true\n"},
	{name: "classify-of-an-inner-hold", promise: "12", sentence: "the answer of an inner Do, whose key guards itself", file: classifyGo, old: "	case *unknownError, *leftError:\n		return Release, true\n", new: "	case *leftError:\n		return Release, true\n"},
	{name: "classify-from-the-inside", promise: "12", sentence: "unless one of these stands deeper", file: classifyGo, old: "		ambiguous = ambiguous || isAmbiguous(err)\n", new: "		if ambiguous = ambiguous || isAmbiguous(err); ambiguous {\n			return Hold\n		}\n"},
	{name: "classify-of-a-join", promise: "12", sentence: "of joined errors each is judged alone, and Hold wins", file: classifyGo, old: "d, parts = max(d, classifyChain(part, ambiguous)), parts+1", new: "d, parts = classifyChain(part, ambiguous), parts+1"},
	{name: "classify-of-what-joins-nothing", promise: "12", sentence: "Hold for Timeout() true", hint: "TestATimeoutThatJoinsNothing", file: classifyGo, old: "if parts > 0 {", new: "if parts >= 0 {"},
	{name: "classify-of-a-timeout", promise: "12", sentence: "Timeout() bool true", file: classifyGo, old: "ok && t.Timeout() {\n		return true\n", new: "ok && t.Timeout() {\n		return false\n"},
	{name: "classify-of-canceled", promise: "12", sentence: "context cancellation", file: classifyGo, old: "	context.Canceled, context.DeadlineExceeded,", new: "	context.DeadlineExceeded,"},
	{name: "classify-of-eof", promise: "12", sentence: "io.EOF", file: classifyGo, old: " io.EOF,", new: ""},
	{name: "classify-of-unexpected-eof", promise: "12", sentence: "io.ErrUnexpectedEOF", file: classifyGo, old: " io.ErrUnexpectedEOF,", new: ""},
	{name: "classify-of-closed", promise: "12", sentence: "net.ErrClosed", file: classifyGo, old: " net.ErrClosed,", new: ""},
	{name: "classify-of-reset", promise: "12", sentence: "connection reset", file: connlostGo, old: "syscall.ECONNRESET, ", new: ""},
	{name: "classify-of-aborted", promise: "12", sentence: "aborted", file: connlostGo, old: "syscall.ECONNABORTED, ", new: ""},
	{name: "classify-of-a-broken-pipe", promise: "12", sentence: "or broken pipe", file: connlostGo, old: ", syscall.EPIPE", new: ""},
	{name: "classify-of-the-rest", promise: "12", sentence: "and releases every other error, so that a transient failure never burns the key", file: classifyGo, old: "	if ambiguous {\n		return Hold\n	}\n	return Release\n", new: "	return Hold\n"},
	{name: "classify-by-a-user", promise: "12", sentence: "asked by a user, it follows markers", file: classifyGo, old: "	if d, found := judge(err, classify); found {\n", new: "	if d, found := judge(err, classify); found && err == nil {\n"},
	{name: "classify-of-nil", promise: "12", sentence: "and nil is Retain", file: classifyGo, old: "	if err == nil {\n		return Retain\n	}\n	if d", new: "	if d"},

	// 13. Hold, Release, Resolve, Reconcile.
	{name: "held-flight-tells-its-error", promise: "13", sentence: "the callers of that flight get an error that is ErrOutcomeUnknown", file: settleGo, old: "\to.err = &unknownError{x.err}\n", new: "\to.err = x.err\n"},
	{name: "unknown-without-cause", promise: "13", sentence: "and wraps the original", file: errorsGo, old: "func (e *unknownError) Unwrap() error        { return e.cause }", new: "func (e *unknownError) Unwrap() error        { return nil }"},
	{name: "held-value-kept", promise: "13", sentence: "a held key keeps no value", file: settleGo, old: "e.started, x.at, c.opts.HoldTTL)\n", new: "e.started, x.at, c.opts.HoldTTL)\n\t\tr.value = x.value\n"},
	{name: "held-value-not-told", promise: "13", sentence: "callers of the flight get fn's value too", file: settleGo, old: "e.started, x.at, c.opts.HoldTTL)\n", new: "e.started, x.at, c.opts.HoldTTL)\n\t\to.value = *new(V)\n"},
	{name: "resolve-of-what-is-retained", promise: "13", sentence: "Resolve acts on held keys only", file: settleGo, old: "f.record != nil && f.state() == Held {", new: "f.full != nil {"},
	{name: "resolve-from-completion", promise: "13", sentence: "settled now, Options.TTL from now", file: settleGo, old: "\t\tx.at = c.nowToo()\n", new: "\t\tx.at = held.done\n"},
	{name: "resolve-loses-the-fingerprint", promise: "13", sentence: "fingerprint kept", file: settleGo, old: "c.retainLocked(s, key, held.fingerprint, held", new: "c.retainLocked(s, key, Fingerprint{}, held"},
	{name: "resolve-of-anything-releases", promise: "13", sentence: "anything else: stays held, false", file: settleGo, old: "		d = Hold\n		c.guard", new: "		d = Release\n		c.guard"},
	{name: "two-operators-act", promise: "13", sentence: "of two operators who resolve, one acts", file: settleGo, old: "{ return c.heldLocked(s, key, &x.notes) == held }", new: "{ return c.heldLocked(s, key, &x.notes) == held || s.kept.get(key).record != nil }"},
	{name: "reconcile-on-the-caller", promise: "13", sentence: "never on a caller's goroutine", file: callGo, old: "			go c.findOut(s, f, nil)\n", new: "			c.findOut(s, f, nil)\n"},
	{name: "reconcile-is-not-asked", promise: "13", sentence: "Reconcile runs when a call meets a held key", file: callGo, old: "	case c.opts.Reconcile == nil || me.err != nil || c.closed.Load():\n", new: "	case c.opts.Reconcile == nil || me.err != nil || c.closed.Load() || r.err != nil:\n"},
	{name: "reconcile-gets-no-error", promise: "13", sentence: "with the entry that was held", file: callGo, old: "c.claimLocked(s, key, fn, me, o, r.full, m)", new: "r.full.err = nil\n\t\tc.claimLocked(s, key, fn, me, o, r.full, m)"},
	{name: "released-by-reconcile", promise: "13", sentence: "Retryable: released, and fn runs in the same flight", file: settleGo, old: "	if e.reconciling && x.disposition == Release {\n", new: "	if e.reconciling && x.disposition == Release && c.closed.Load() {\n"},
	{name: "fn-after-reconcile-has-its-time", promise: "13", sentence: "with an ExecTimeout of its own", file: settleGo, old: "		c.execute(s, f, f.next(), f.fn, nil)\n", new: "		n := f.next()\n		c.execute(s, f, n, func(context.Context) (V, error) {\n			n.deadline = f.exec.deadline\n			return f.fn(n)\n		}, nil)\n"},
	{name: "held-again-as-new", promise: "13", sentence: "held again as it was (error, times, fingerprint)", file: settleGo, old: "\to, r := &f.outcome, f.held\n", new: "\to, r := &f.outcome, (*fullRecord[K, V])(nil)\n"},
	{name: "hold-ttl-not-anew", promise: "13", sentence: "its HoldTTL anew", file: settleGo, old: "\t\tr.expireAfter(&c.clock, x.at, c.opts.HoldTTL)\n", new: ""},
	{name: "unmarked-from-reconcile-releases", promise: "13", sentence: "in Reconcile only markers count", file: settleGo, old: "		case e.reconciling || x.begun:\n", new: "		case x.begun:\n"},
	{name: "ttl-of-the-reconciled", promise: "13", sentence: "the leader's WithTTL counts for a reconciled outcome too", file: settleGo, old: "f.ttl < 0 || e.reconciling && f.ttl == 0 {", new: "f.ttl < 0 || e.reconciling {"},
	{name: "ttl-0-of-the-reconciled", promise: "13", sentence: "but 0 does not", file: settleGo, old: "f.ttl < 0 || e.reconciling && f.ttl == 0 {", new: "f.ttl < 0 {"},
	{name: "panic-of-reconcile-repanicked", promise: "13", sentence: "panic (not re-panicked)", file: settleGo, old: "\t\to.source = uint8(Reconciled)\n\t} else {\n\t\to.panicked = x.panicked\n\t}\n", new: "\t\to.source = uint8(Reconciled)\n\t}\n\to.panicked = x.panicked\n"},
	{name: "source-of-the-reconciled", promise: "13", sentence: "leader's Source Reconciled", file: settleGo, old: "\t\to.source = uint8(Reconciled)\n", new: "\t\to.source = uint8(Executed)\n"},
	{name: "learned-nothing-is-an-outcome", promise: "13", sentence: "Source is None exactly when no outcome was obtained", file: settleGo, old: "\t\to.source, o.value = uint8(None), *new(V)\n", new: ""},

	// 14. Panic and Goexit.
	{name: "panic-returned", promise: "14", sentence: "the leader, if it is still there, re-panics", file: callGo, old: "	if f.outcome.panicked != nil {\n", new: "	if f.outcome.panicked != nil && f.outcome.err == nil {\n"},
	{name: "panic-with-the-bare-value", promise: "14", sentence: "re-panics with *PanicError", file: callGo, old: "		panic(f.outcome.panicked)\n", new: "		panic(f.outcome.panicked.Value)\n"},
	{name: "goexit-is-success", promise: "14", sentence: "joined callers get ErrGoexit; no caller ever sees (zero, nil)", file: flightGo, old: "				x.err = ErrGoexit\n", new: "				x.err = nil\n"},
	{name: "panic-without-stack", promise: "14", sentence: "PanicError has the stack of the goroutine that panicked", file: flightGo, old: "Stack: debug.Stack()}", new: "Stack: debug.Stack()[:0]}"},
	{name: "panic-does-not-unwrap", promise: "14", sentence: "Unwrap gives Value if it is an error", file: errorsGo, old: "	err, _ := e.Value.(error)\n	return err\n", new: "	return nil\n"},
	{name: "panic-shows-no-stack", promise: "14", sentence: "Error shows both", file: errorsGo, old: `fmt.Sprintf("idemflight: panic: %v\n\n%s", e.Value, e.Stack)`, new: `fmt.Sprintf("idemflight: panic: %v", e.Value)`},
	{name: "hook-panic-gets-out", promise: "14", sentence: "a panic in Classify, Weigh or Observer is contained", file: eventsGo, old: "		if v := recover(); v != nil {\n			err =", new: "		if v := any(nil); v != nil {\n			err ="},
	{name: "hook-panic-uncounted", promise: "14", sentence: "Stats.HookPanics", file: eventsGo, old: "		c.hookPanics.Add(1)\n", new: ""},
	{name: "hook-panic-untold", promise: "14", sentence: "and EventPanicked for the first two", file: settleGo, old: "	return func(err error) { c.note(notes, Event[K]{Kind: EventPanicked, Key: key, Err: err}) }\n", new: "	return nil\n"},
	{name: "classify-panic-releases", promise: "14", sentence: "after one in Classify the flight ends as a Hold", file: settleGo, old: "	x.disposition, x.err = Hold, &unmarked{err} //", new: "	x.disposition, x.err = Release, &unmarked{err} //"},
	{name: "weigh-panic-weighs", promise: "14", sentence: "after one in Weigh the outcome weighs 0", file: settleGo, old: "	c.guard(func() { weight = max(c.opts.Weigh(key, value), 0) }, c.panicked(key, notes))\n", new: "	weight = 1\n	c.guard(func() { weight = max(c.opts.Weigh(key, value), 0) }, c.panicked(key, notes))\n"},

	// 15. TTL.
	{name: "the-instant-itself", promise: "15", sentence: "the instant itself counts as expired", file: recordGo, old: "return now >= r.deadline }", new: "return now > r.deadline }", quick: true},
	{name: "ttl-from-the-start", promise: "15", sentence: "the TTL counts from completion", file: settleGo, old: "\tdeadline := deadlineOf(x.at, ttl)\n", new: "\tttl -= x.at - started\n\tdeadline := deadlineOf(x.at, ttl)\n"},
	{name: "replays-extend", promise: "15", sentence: "replays do not extend it", file: cacheGo, old: "\t\tr.use()\n\t\ts.stats.Replayed++\n", new: "\t\tr.use()\n\t\tif t := c.timesOf(r); r.deadline != forever {\n\t\t\tr.deadline = c.now() + t.expires.Sub(t.completed)\n\t\t}\n\t\ts.stats.Replayed++\n"},
	{name: "huge-ttl-overflows", promise: "15", sentence: "huge TTLs do not overflow", file: recordGo, old: "mark + min(ttl, forever-mark)", new: "mark + ttl"},
	{name: "negative-ttl-taken", promise: "15", sentence: "a negative TTL is an error from New", file: optionsGo, old: "	if o.TTL < 0 {\n", new: "	if o.TTL < -1 {\n"},
	{name: "negative-with-ttl", promise: "15", sentence: "WithTTL(<0) means 0", file: optionsGo, old: "d: max(d, 0)}", new: "d: d}"},
	{name: "hold-without-end-ends", promise: "15", sentence: "a negative HoldTTL holds without end: ExpiresAt is zero", hint: "TestExpiresAtOfATTL", file: settleGo, old: "\tif deadline != forever {\n\t\to.expires = deadline\n\t}\n", new: "\to.expires = deadline\n"},
	{name: "expires-at-of-the-options", promise: "15", hint: "TestExpiresAtOfATTL", sentence: "ExpiresAt tells the deadline", file: settleGo, old: "\t\to.expires = deadline\n", new: "\t\to.expires = deadline + c.opts.TTL - ttl\n"},
	{name: "lookup-of-the-expired", promise: "15", sentence: "in every method alike", file: inspectGo, old: "r.record != nil && !r.expired(c.now()) {", new: "r.record != nil {"},
	{name: "hot-though-expired", promise: "15", hint: "TestHot", sentence: "never replayed at or after its deadline, also without a lock", file: cacheGo, old: "r.fingerprint() != o.fp || r.expired(c.now()) {\n\t\treturn", new: "r.fingerprint() != o.fp {\n\t\treturn"},
	{name: "forget-of-the-expired", promise: "15", sentence: "in every method alike", file: cacheGo, old: "f.record == nil || !f.expired(c.now()) {\n\t\treturn f\n", new: "f.record == nil || !f.expired(c.now()-1) {\n\t\treturn f\n"},
	{name: "default-ttl", promise: "15", sentence: "TTL 0 = 24h", file: optionsGo, old: "= 24 * time.Hour", new: "= 23 * time.Hour"},
	{name: "hold-ttl-of-its-own", promise: "15", sentence: "HoldTTL", file: settleGo, old: "e.started, x.at, c.opts.HoldTTL)\n", new: "e.started, x.at, c.opts.TTL)\n"},

	// 16. In flight, nothing expires.
	{name: "ttl-0-retains", promise: "16", sentence: "WithTTL(0) retains nothing", file: settleGo, old: "&& !f.forgotten && ttl > 0 }", new: "&& !f.forgotten && ttl >= 0 }"},
	{name: "ttl-of-a-hold", promise: "16", sentence: "WithTTL does not affect a hold", file: settleGo, old: "e.started, x.at, c.opts.HoldTTL)\n", new: "e.started, x.at, min(c.opts.HoldTTL, c.ttl(f, e)))\n"},
	{name: "ttl-of-the-joined", promise: "16", sentence: "the leader's WithTTL counts", file: cacheGo, old: "\t\t\ts.joinLocked(f)\n", new: "\t\t\ts.joinLocked(f)\n\t\t\tf.ttl = o.ttl\n"},
	{name: "joined-too-late", promise: "16", hint: "TestJoinedCallersOfEveryForm", sentence: "joined callers get the outcome however short the TTL", file: cacheGo, old: "\t\treturn f.outcome.value, f.outcome.err\n", new: "\t\tif f.outcome.expires == 0 && f.outcome.err == nil {\n\t\t\treturn *new(V), ErrInFlight\n\t\t}\n\t\treturn f.outcome.value, f.outcome.err\n"},

	// 17. Without further calls, what expired becomes garbage; no goroutine when idle.
	{name: "reclaimed-late", promise: "17", sentence: "within 1 s after their expiry", file: reclaimGo, old: "reclaimDelay = time.Second / 2", new: "reclaimDelay = 2 * time.Second"},
	{name: "reclaimed-once", promise: "17", sentence: "without further calls", file: reclaimGo, old: "	defer c.rearm() // also", new: "	// also"},
	{name: "edge-unpublished", promise: "17", sentence: "without further calls", file: ttlGo, old: "	return k.plain.Len() == 1\n", new: "	return false\n"},
	{name: "never-reclaimed", promise: "17", sentence: "without further calls", file: reclaimGo, old: "	if int64(deadline) >= t.next.Load() {\n", new: "	if deadline > 0 {\n"},
	{name: "shed-value-kept", promise: "17", hint: "TestPromise20_TheLeast", sentence: "values become garbage", file: ttlGo, old: "\tk.add(r.shed())\n", new: "\tshed := r.shed()\n\tshed.value = r.value\n\tk.add(shed)\n"},
	{name: "queue-keeps-records", promise: "17", sentence: "records become garbage", file: ttlGo, old: "\tq.items[last] = nil // the array must not keep it alive\n", new: ""},
	{name: "tables-stay", promise: "17", sentence: "a shard's tables when the shard empties", file: ttlGo, old: "\t\t*k = kept[K, V]{ttl: k.ttl, unhot: k.unhot, puts: k.puts}\n", new: ""},
	{name: "pending-table-stays", promise: "17", hint: "TestTheTableOfFlights", sentence: "a shard's tables when the shard empties", file: settleGo, old: "		s.pending, s.peak = nil, 0\n", new: ""},
	{name: "timer-outlives-the-last-key", promise: "17", hint: "TestAnAbandonedCacheWithoutKeys", sentence: "an abandoned Cache is garbage-collected with its timers", file: reclaimGo, old: "	if c.places.Load() > 0 || t.next.Load() == int64(forever) {\n", new: "	if c.places.Load() >= 0 || t.next.Load() == int64(forever) {\n"},
	{name: "goroutine-when-idle", promise: "17", sentence: "no goroutine exists while nothing is running", file: cacheGo, old: "\tc.reclaimer.next.Store(int64(forever))\n", new: "\tc.reclaimer.next.Store(int64(forever))\n\tgo func() { select {} }()\n"},

	// 18. MaxEntries bounds in flight + kept, exactly.
	{name: "one-place-too-many", promise: "18", sentence: "MaxEntries bounds in flight + kept, exactly", file: roomGo, old: "		if n >= int64(c.opts.MaxEntries) {\n", new: "		if n > int64(c.opts.MaxEntries) {\n"},
	{name: "place-lost-at-release", promise: "18", sentence: "given back when nothing is kept: Release", file: settleGo, old: "	case Release:\n		c.giveBack()\n", new: "	case Release:\n", quick: true},
	{name: "place-lost-at-forget", promise: "18", sentence: "given back: Forget", file: cacheGo, old: "\tcase r.record != nil:\n\t\tc.giveBack()\n", new: "\tcase r.record != nil:\n"},
	{name: "place-lost-at-resolve", promise: "18", sentence: "given back when nothing is kept", file: settleGo, old: "	if d == Release {\n		c.giveBack()\n	}\n", new: ""},
	{name: "place-lost-at-expiry", promise: "18", sentence: "from an expired record to the new flight of its key", file: callGo, old: "				hasPlace = true //", new: "				hasPlace = false //"},
	{name: "place-taken-twice-for-reconcile", promise: "18", sentence: "from a held key to its Reconcile and back", file: callGo, old: "// its place passes to the flight\n", new: "\n\t\tc.takePlace()\n"},
	{name: "place-not-needed-to-fly", promise: "18", sentence: "a new key takes a place before its flight can be seen", file: callGo, old: "		if hasPlace || c.takePlace() {\n", new: "		if hasPlace || c.takePlace() || c.places.Add(1) > 0 {\n"},
	{name: "expired-not-free", promise: "18", sentence: "expired entries count as free", file: roomGo, old: "		if i := c.firstDue(now); i >= 0 {\n			c.reclaimSome(&c.shards[i], now, notes)\n			return false", new: "		if i := c.firstDue(now); i >= 0 && i < 0 {\n			c.reclaimSome(&c.shards[i], now, notes)\n			return false"},
	{name: "evicted-for-a-place-that-is-free", promise: "18", sentence: "nothing is evicted while there is a free place", hint: "TestPromise18_ThePlaceOfWhatExpired", file: roomGo, old: "			c.reclaimSome(&c.shards[i], now, notes)\n			return false, 0 // there", new: "			if c.reclaimSome(&c.shards[i], now, notes) > 0 {\n				return false, 0\n			}\n		}\n		if false {\n			return false, 0 // there"},
	{name: "full-without-another-look", promise: "18", hint: "TestNoErrFullForAKey", sentence: "a call that finds no place looks at its key again", file: callGo, old: "\t\tnone, upTo = c.makeRoom(key, &m.notes)\n\t}\n", new: "\t\tif none, upTo = c.makeRoom(key, &m.notes); none {\n\t\t\ts.mu.Lock()\n\t\t\ts.stats.Full++\n\t\t\tm.kind, m.err = EventRejected, ErrFull\n\t\t\tbreak\n\t\t}\n\t}\n"},
	{name: "full-though-something-came", promise: "18", sentence: "ErrFull only if there is none to evict, also none that came meanwhile", hint: "TestNoErrFullWhileSomething", file: callGo, old: "none && upTo == c.seq.Load() {", new: "none && upTo <= c.seq.Load() {"},
	{name: "len-counts-the-expired", promise: "18", sentence: "Len and Stats agree; they may reclaim what has expired", file: inspectGo, old: "\tc.reclaimAll()\n", new: ""},

	// 19. When full.
	{name: "most-recently-used-goes", promise: "19", sentence: "the least recently used", file: recordGo, old: "\t\tr.flags.Or(both)\n", new: "\t\tr.flags.Or(both &^ replayed)\n"},
	{name: "second-chance-for-ever", promise: "19", sentence: "the least recently used", hint: "TestWhatIsNoLongerInUse", file: ttlGo, old: "	r.flags.And(^replayed)\n", new: ""},
	{name: "held-evicted", promise: "19", sentence: "held keys are never evicted", file: ttlGo, old: "\tif State(r.state) == Held {\n\t\tk.held++\n\t} else {\n\t\theap.Push(&k.order, r)\n\t}\n", new: "\tif State(r.state) == Held {\n\t\tk.held++\n\t}\n\theap.Push(&k.order, r)\n"},
	{name: "eviction-untold", promise: "19", sentence: "every eviction is an event", file: roomGo, old: "\tc.note(notes, Event[K]{Kind: EventEvicted, Key: first})\n", new: ""},
	{name: "eviction-uncounted", promise: "19", sentence: "and counted", file: roomGo, old: "	s.stats.Evicted++\n", new: ""},
	{name: "protect-to-the-instant", promise: "19", sentence: "no outcome completed less than Protect ago", file: roomGo, old: "now-done >= c.opts.Protect\n", new: "now-done > c.opts.Protect\n"},
	{name: "protect-by-use", promise: "19", sentence: "Protect counts from completion", file: ttlGo, old: "done: done, turn: next,", new: "done: max(done, next.at), turn: next,"},
	{name: "protect-ignored", promise: "19", sentence: "unless Protect forbids it", file: roomGo, old: "now-done >= c.opts.Protect\n", new: "true\n"},
	{name: "protect-default", promise: "19", sentence: "0 = DefaultProtect, but at most half of TTL", file: optionsGo, old: "min(DefaultProtect, o.TTL/2)", new: "min(DefaultProtect, o.TTL)"},
	{name: "protect-ttl", promise: "19", sentence: "TTL or more = nothing is evicted", file: optionsGo, old: "	case o.Protect >= o.TTL:\n", new: "	case o.Protect > o.TTL:\n"},
	{name: "protect-negative", promise: "19", sentence: "negative = none, plain LRU", file: optionsGo, old: "		o.Protect = 0\n", new: "		o.Protect = 1\n"},
	{name: "full-runs-fn", promise: "19", sentence: "the call gets ErrFull and fn does not run", file: callGo, old: "			s.stats.Full++\n			m.kind, m.err = EventRejected, ErrFull\n			break\n", new: "			s.stats.Full++\n			c.claimLocked(s, key, fn, me, o, nil, &m)\n			break\n"},

	// 20. MaxWeight.
	{name: "shed-runs-again", promise: "20", sentence: "such a key answers ErrValueShed, and fn does not run", file: callGo, old: "\t\ts.stats.ValueShed++\n\t\tm.err = ErrValueShed\n", new: "\t\ts.kept.remove(key, r)\n\t\ts.publishLocked()\n\t\tc.claimLocked(s, key, fn, me, o, nil, m)\n"},
	{name: "too-heavy-hurts-others", promise: "20", sentence: "no other outcome suffers for it", file: settleGo, old: "weight == 0 || weight > c.opts.MaxWeight || c.takeWeight(weight) {", new: "weight == 0 || c.weight.Load() == 0 && weight > c.opts.MaxWeight || c.takeWeight(weight) {"},
	{name: "too-heavy-kept", promise: "20", sentence: "heavier than MaxWeight is shed at once", file: settleGo, old: "	if weight > c.opts.MaxWeight {\n", new: "	if weight > 0 && weight > c.opts.MaxWeight+1 {\n"},
	{name: "negative-weight", promise: "20", sentence: "a weight below 0 counts as 0", file: settleGo, old: "weight = max(c.opts.Weigh(key, value), 0)", new: "weight = c.opts.Weigh(key, value)"},
	{name: "weight-overbooked", promise: "20", sentence: "sum of Weigh over retained outcomes", file: roomGo, old: "		if w > c.opts.MaxWeight-sum {\n", new: "		if w > c.opts.MaxWeight-sum+1 {\n"},
	{name: "weight-lost-at-removal", promise: "20", hint: "TestPromise20_TheSumIsExact", sentence: "sum of Weigh over retained outcomes", file: reclaimGo, old: "\t\tc.weight.Add(-f.full.weight)\n", new: ""},
	{name: "weight-lost-at-shedding", promise: "20", hint: "TestPromise20_TheSumIsExact", sentence: "sum of Weigh over retained outcomes", file: roomGo, old: "		c.weight.Add(-r.weight)\n", new: ""},
	{name: "shedding-by-age", promise: "20", sentence: "the values of the least recently used", file: recordGo, old: "\t\tr.flags.Or(both)\n", new: "\t\tr.flags.Or(both &^ replayedValue)\n"},
	{name: "held-weighed", promise: "20", sentence: "what is held weighs 0", file: settleGo, old: " || x.disposition != Retain || c.ttl", new: " || x.disposition == Release || c.ttl"},
	{name: "shed-untold", promise: "20", sentence: "the values are shed: an event, and counted", file: roomGo, old: "	s.stats.Shed++\n", new: ""},
	{name: "weigh-without-max-weight", promise: "20", sentence: "one without the other is an error from New", file: optionsGo, old: "	if o.MaxWeight == 0 && o.Weigh != nil {\n", new: "	if o.MaxWeight < 0 && o.Weigh != nil {\n"},
	{name: "max-weight-without-weigh", promise: "20", sentence: "one without the other is an error from New", file: optionsGo, old: "	if o.MaxWeight > 0 && o.Weigh == nil {\n", new: "	if o.MaxWeight > 1 && o.Weigh == nil {\n"},

	// 21. Invalid keys.
	{name: "zero-key", promise: "21", sentence: "the zero value of K", file: coreKeyGo, old: "	if key == zero && !t.zeroValid {\n", new: "	if key == zero && !t.zeroValid && !t.composite {\n"},
	{name: "zero-number", promise: "21", sentence: "unless K is numeric or bool", file: coreKeyGo, old: "t.Kind() >= reflect.Bool &&", new: "t.Kind() > reflect.Bool &&"},
	{name: "zero-complex", promise: "21", sentence: "unless K is numeric or bool", file: coreKeyGo, old: "t.Kind() <= reflect.Complex128", new: "t.Kind() < reflect.Complex128"},
	{name: "key-without-id", promise: "21", sentence: "a Key without Scope or without ID", file: coreKeyGo, old: `k.Scope != "" && k.ID != ""`, new: `k.Scope != ""`},
	{name: "key-without-scope", promise: "21", sentence: "a Key without Scope or without ID", file: coreKeyGo, old: `k.Scope != "" && k.ID != ""`, new: `k.ID != ""`},
	{name: "key-in-an-interface", promise: "21", sentence: "a Key without Scope or without ID", hint: "TestAnInterfaceKey", file: coreKeyGo, old: " || t.Kind() == reflect.Interface,", new: ","},
	{name: "nan", promise: "21", sentence: "not equal to itself (NaN)", file: coreKeyGo, old: "	return equal(key, key)\n", new: "	return true\n"},

	// 22. Fingerprints.
	{name: "none-equals-any", promise: "22", sentence: "none equals none and nothing else", file: callGo, old: "\tcase r.fingerprint() != o.fp:\n", new: "\tcase o.fp != (Fingerprint{}) && r.fingerprint() != o.fp:\n"},
	{name: "reused-in-flight", promise: "22", sentence: "also while in flight, before any wait", file: callGo, old: "	case f.fingerprint != o.fp:\n", new: "	case o.maxWait > 0 && f.fingerprint != o.fp:\n"},
	{name: "none-joins-any", promise: "22", sentence: "none equals none and nothing else", file: callGo, old: "	case f.fingerprint != o.fp:\n", new: "	case f.fingerprint != (Fingerprint{}) && f.fingerprint != o.fp:\n"},
	{name: "another-joins", promise: "22", sentence: "a call whose fingerprint differs from the flight's gets ErrKeyReused", file: cacheGo, old: "f != nil && f.fingerprint == o.fp && o.maxWait", new: "f != nil && o.maxWait"},
	{name: "hot-for-any-fingerprint", promise: "22", hint: "TestHot", sentence: "another fingerprint gets ErrKeyReused, also where it is replayed without a lock", file: cacheGo, old: "r.record == nil || r.fingerprint() != o.fp || r.expired(c.now()) {\n\t\treturn", new: "r.record == nil || r.expired(c.now()) {\n\t\treturn"},
	{name: "reused-drops-the-record", promise: "22", sentence: "the record stays untouched", file: callGo, old: "\tcase r.fingerprint() != o.fp:\n", new: "\tcase r.fingerprint() != o.fp:\n\t\tc.giveBack()\n\t\tc.removeLocked(s, key, r)\n"},
	{name: "reused-counts-as-use", promise: "22", sentence: "its order stays untouched", file: callGo, old: "\tcase r.fingerprint() != o.fp:\n", new: "\tcase r.fingerprint() != o.fp:\n\t\tr.use()\n"},
	{name: "ended-before-reused", promise: "22", sentence: "a flight: ErrReentrant, ErrKeyReused, own context ended, ErrInFlight", file: callGo, old: "	case f.fingerprint != o.fp:\n", new: "	case me.err == nil && f.fingerprint != o.fp:\n"},
	{name: "shed-before-reused", promise: "22", sentence: "ErrKeyReused before replayed, held or shed", file: callGo, old: "\tcase r.fingerprint() != o.fp:\n", new: "\tcase r.state() != Shed && r.fingerprint() != o.fp:\n"},
	{name: "closed-before-held", promise: "22", sentence: "on a held key ErrClosed answers as without Reconcile", file: callGo, old: "\t\tm.err = &unknownError{r.err()}\n", new: "\t\tm.err = &unknownError{r.err()}\n\t\tif c.closed.Load() {\n\t\t\tm.err = ErrClosed\n\t\t}\n"},
	{name: "full-before-closed", promise: "22", sentence: "nothing: own context ended, ErrClosed, ErrFull", file: callGo, old: "		if !mayLead {\n", new: "		if !mayLead && c.places.Load() < int64(c.opts.MaxEntries) {\n"},

	// 23. Forget.
	{name: "forget-keeps-held", promise: "23", sentence: "Forget drops what is kept", file: cacheGo, old: "\tcase r.record != nil:\n\t\tc.giveBack()\n", new: "\tcase r.record != nil && r.state() != Held:\n\t\tc.giveBack()\n"},
	{name: "forgotten-is-retained", promise: "23", sentence: "its callers get the outcome, which is then not retained", file: settleGo, old: "x.disposition == Retain && !f.forgotten && ttl > 0 }", new: "x.disposition == Retain && ttl > 0 }", quick: true},
	{name: "forgotten-hold-is-released", promise: "23", sentence: "a Hold is held all the same", file: settleGo, old: "	if x.disposition == Retain && !retain {\n", new: "	if x.disposition == Hold && f.forgotten || x.disposition == Retain && !retain {\n"},
	{name: "forget-in-flight-false", promise: "23", sentence: "on a key in flight it returns true", file: cacheGo, old: "\treturn r.record != nil || f != nil\n", new: "\treturn r.record != nil\n"},
	{name: "hot-outlives-its-record", promise: "23", hint: "TestHot", sentence: "Forget drops what is kept, also where it is replayed without a lock", file: ttlGo, old: "\tif f.flags.Load()&hot != 0 {\n\t\tk.unhot(key, f)\n\t}\n", new: ""},

	// 24. Close, All, Restore.
	{name: "closed-runs-fn", promise: "24", sentence: "new executions are refused", file: callGo, old: "		if !mayLead {\n			s.stats.Closed++\n", new: "		if !mayLead && me.within != nil {\n			s.stats.Closed++\n", quick: true},
	{name: "closed-reconciles", promise: "24", sentence: "Reconcile's included", file: callGo, old: "	case c.opts.Reconcile == nil || me.err != nil || c.closed.Load():\n", new: "	case c.opts.Reconcile == nil || me.err != nil:\n"},
	{name: "close-does-not-wait", promise: "24", sentence: "it waits until no execution is in flight", file: cacheGo, old: "	for _, done := range inFlight {\n", new: "	for _, done := range inFlight[:0] {\n"},
	{name: "close-waits-for-one", promise: "24", hint: "TestCloseWaitsForTheLast", sentence: "it waits until no execution is in flight", file: cacheGo, old: "	for _, done := range inFlight {\n", new: "	for _, done := range inFlight[:min(1, len(inFlight))] {\n"},
	{name: "close-tells-err", promise: "24", sentence: "or ctx ends (context.Cause)", file: cacheGo, old: "			return context.Cause(ctx)\n", new: "			return ctx.Err()\n"},
	{name: "close-with-a-dead-context", promise: "24", sentence: "with nothing in flight it returns nil whatever ctx is", file: cacheGo, old: "	for _, done := range inFlight {\n", new: "	if ctx.Err() != nil {\n		return context.Cause(ctx)\n	}\n	for _, done := range inFlight {\n"},
	{name: "close-from-inside-waits", promise: "24", sentence: "from inside an execution it closes and returns ErrReentrant", file: cacheGo, old: "\tif within.running(&c.clock) {\n", new: "\tif within.running(&c.clock) && ctx.Err() != nil {\n"},
	{name: "close-from-another-cache", promise: "24", sentence: "from inside an execution of its own", file: flightGo, old: "e.clock == of && !e.hasEnded()", new: "!e.hasEnded()"},
	{name: "close-leaves-the-timer", promise: "24", sentence: "timers stop", file: cacheGo, old: "	c.reclaimer.halt(true)\n", new: ""},
	{name: "restore-over-a-kept-key", promise: "24", sentence: "Restore wants an absent key", file: restoreGo, old: "\tcase c.liveLocked(s, key, notes).record != nil:\n", new: "\tcase c.liveLocked(s, key, notes).full != nil:\n"},
	{name: "restore-of-the-expired", promise: "24", sentence: "with ExpiresAt in the future", file: restoreGo, old: "	if left <= 0 {\n", new: "	if left < 0 {\n"},
	{name: "restore-after-close", promise: "24", sentence: "after Close, ErrClosed", file: restoreGo, old: "	case c.closed.Load():\n		return ErrClosed\n", new: ""},
	{name: "restore-of-in-flight", promise: "24", sentence: "InFlight becomes held with ErrInterrupted: the old process may have had its effect", file: restoreGo, old: "\t\tcause = ErrInterrupted\n", new: ""},
	{name: "restore-loses-the-fingerprint", promise: "24", sentence: "All and Restore carry the keys over", file: restoreGo, old: "key, state, cause, e.Fingerprint, 0", new: "key, state, cause, Fingerprint{}, 0"},
	{name: "restore-extends", promise: "24", sentence: "its own TTL being ExpiresAt − CompletedAt", file: restoreGo, old: "	left := e.ExpiresAt.Sub(now)\n", new: "	left := e.ExpiresAt.Sub(e.CompletedAt)\n"},
	{name: "restore-when-full", promise: "24", sentence: "it evicts like a new key", file: restoreGo, old: "\t\tnone, upTo = c.makeRoom(key, notes)\n", new: "\t\tnone, upTo = true, c.seq.Load()\n"},
	{name: "all-without-flights", promise: "24", sentence: "All shows kept and in flight", hint: "TestAll_|TestPromise24_", file: inspectGo, old: "	for key := range s.pending {\n		keys = append(keys, key)\n	}\n", new: ""},
	{name: "all-under-the-lock", promise: "24", sentence: "no lock held while the loop body runs", hint: "TestAll_", file: inspectGo, old: "				if e, ok := c.Lookup(key); ok && !yield(key, e) {\n					return\n				}\n", new: "				e, ok := c.Lookup(key)\n				c.shards[i].mu.Lock()\n				more := !ok || yield(key, e)\n				c.shards[i].mu.Unlock()\n				if !more {\n					return\n				}\n"},

	// 25. Events and Stats.
	{name: "replay-untold", promise: "25", sentence: "exactly one call event", file: eventsGo, old: "\tc.observe(ctx, Event[K]{Kind: EventReplayed, Key: key, Err: r.err()})\n", new: ""},
	{name: "hot-uncounted", promise: "25", hint: "TestHot", sentence: "counts in exactly one of the Stats of calls, also without a lock", file: cacheGo, old: "\tc.hot.count()\n", new: ""},
	{name: "left-told-twice", promise: "25", sentence: "exactly one call event", file: callGo, old: "Took: c.now() - f.startedAt})\n\t\treturn Result", new: "Took: c.now() - f.startedAt})\n\t\tc.observe(me.ctx, Event[K]{Kind: EventRejected, Key: f.key, Err: err})\n\t\treturn Result"},
	{name: "goexit-untold", promise: "25", sentence: "every call that exits with fn's Goexit", file: callGo, old: "		if exits {\n			c.observeLed", new: "		if exits && me.ctx == nil {\n			c.observeLed"},
	{name: "joined-counted-as-left", promise: "25", sentence: "counts in exactly one of the Stats of calls", file: settleGo, old: "	*joined += uint64(f.waiters)\n", new: "	*joined += uint64(min(f.waiters, 1))\n"},
	{name: "leader-that-left-counted", promise: "25", sentence: "counts in exactly one of the Stats of calls", file: settleGo, old: "	if !f.leaderLeft {\n		*led++\n	}\n", new: "	*led++\n"},
	{name: "event-err-of-the-record", promise: "25", sentence: "Event.Err is the error that the call returned", file: flightGo, old: "Event[K]{Kind: kind, Key: f.key, Err: o.err,", new: "Event[K]{Kind: kind, Key: f.key,"},
	{name: "finished-untold", promise: "25", sentence: "a flight whose leader left emits one EventFinished", file: settleGo, old: "\tif f.leaderLeft {\n\t\tnotes", new: "\tif f.leaderLeft && f.outcome.err != nil {\n\t\tnotes"},
	{name: "finished-though-the-leader-stayed", promise: "25", sentence: "besides them, only a flight whose leader left", file: settleGo, old: "\tif f.leaderLeft {\n\t\tnotes", new: "\tif f != nil {\n\t\tnotes"},
	{name: "expired-held-untold", promise: "25", sentence: "EventExpired: Err is ErrOutcomeUnknown if the key was held", file: reclaimGo, old: "		e.Err = ErrOutcomeUnknown\n", new: ""},
	{name: "expired-uncounted", promise: "25", sentence: "EventExpired once per expired record", file: reclaimGo, old: "	s.stats.Expired++\n", new: ""},
	{name: "forget-is-an-eviction", promise: "25", sentence: "Forget emits nothing of its own", file: cacheGo, old: "\tcase r.record != nil:\n\t\tc.giveBack()\n", new: "\tcase r.record != nil:\n\t\tc.note(&notes, Event[K]{Kind: EventEvicted, Key: key})\n\t\tc.giveBack()\n"},
	{name: "upkeep-with-the-callers-context", promise: "25", sentence: "Background for upkeep", file: eventsGo, old: "note[K]{context.Background(), e}", new: "note[K]{context.TODO(), e}"},
	{name: "took-missing", promise: "25", sentence: "Took: of the execution", file: flightGo, old: " Took: o.took,", new: ""},
	{name: "panics-uncounted", promise: "25", sentence: "Panics: those that ended by panic or Goexit", file: settleGo, old: "	if !x.returned {\n", new: "	if x.panicked != nil {\n"},
	{name: "releases-of-reconcile-uncounted", promise: "25", sentence: "executions of fn and of Reconcile that ended", file: settleGo, old: "		s.mu.Lock()\n		s.stats.Releases++\n		s.mu.Unlock()\n", new: ""},
	{name: "learned-nothing-counts-as-joined", promise: "25", sentence: "calls whose Reconcile learned nothing count as OutcomeUnknown, the joined ones too", file: settleGo, old: "joined, led = &s.stats.OutcomeUnknown, &s.stats.OutcomeUnknown", new: "led = &s.stats.OutcomeUnknown"},
	{name: "log-without-the-key", promise: "25", sentence: `LogEvents: key under "key"`, hint: "TestLogEvents", file: eventsGo, old: `, slog.Any("key", e.Key)`, new: ""},
	{name: "goexit-of-an-observer", promise: "25", sentence: "each event is told, also if the Observer calls runtime.Goexit at one", hint: "TestPromise14_|TestPromise25_|TestObserver", file: eventsGo, old: "		if told < len(notes) {\n			c.emit(notes[told:])\n		}\n", new: ""},

	// 26. fn's return happens before every return that shares its outcome.
	{name: "told-before-the-outcome-is-set", promise: "26", sentence: "fn's return happens before every return that shares its outcome", file: settleGo, old: "	o := &f.outcome\n", new: "	if f.done != nil {\n		close(f.done)\n		f.done = nil\n		time.Sleep(time.Microsecond)\n	}\n	o := &f.outcome\n"},

	// 27. A replay allocates nothing.
	{name: "options-allocate", promise: "27", sentence: "Do itself allocates nothing, options included", file: cacheGo, old: "\to := readOptions(opts)\n\thash := c.hash(key)\n\tvar seen", new: "\to := readOptions(append([]CallOption(nil), opts...))\n\thash := c.hash(key)\n\tvar seen"},
	{name: "wrap-makes-its-closure-first", promise: "27", sentence: "through Wrap a replay allocates nothing at all", file: wrapGo, old: "\t\thash := c.hash(k)\n", new: "\t\trun := func(ctx context.Context) (V, error) { return fn(ctx, arg) }\n\t\tif ctx == nil {\n\t\t\tgo run(ctx)\n\t\t}\n\t\thash := c.hash(k)\n"},
}
