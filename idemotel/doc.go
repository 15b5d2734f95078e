// Package idemotel tells OpenTelemetry what an idemflight cache does: a span for each execution, to which whoever
// waited for it, or had its outcome replayed, is linked; and metrics of calls, executions, places and held keys.
//
//	durations, err := idemotel.NewDurations(nil, "payments") // nil: the global MeterProvider
//	…
//	payments, err := idemflight.New(idemotel.Trace(idemflight.Options[string, Receipt]{
//		Observer: idemotel.Observe[string](durations),
//		Store:    idemotel.MeasureStore(store, durations), // if there is one
//	}, idemotel.Options[string]{Name: "payments"}))
//	…
//	registration, err := idemotel.Register(payments, nil, "payments")
//
// # Spans
//
//	idemflight execute    an execution of fn: a child of the span of the call that leads, and the parent of
//	                      the spans in fn
//	idemflight reconcile  the same of Options.Reconcile
//	idemflight wait       a call that waited for an execution which it had joined, or that left: begun when it
//	                      began to wait, with a link to the execution from its start on, since samplers see no more
//
// All are internal. They have the attribute idemflight.cache.name, and those that [Options].Key gives. An execution has
// idemflight.disposition (retain, release, hold) and idemflight.waiters as well, and the status error with the text of the
// error if the key was held or released because of one, not if that is a final answer. (One that is not retained because of
// WithTTL(0) or Forget is released.) If fn follows Reconcile there are two spans, one after the other.
// The span of an execution ends once the flight has settled, which may be a moment after the calls have returned.
//
// A replay has no span of its own: the span of its caller gets a link to the execution whose outcome it is, also if that
// was in another process or before a restart (with a Store, or Save). A call that is rejected gets a link to the execution
// that is in its way, if that was traced. And the span of every caller gets idemflight.result: executed, joined, replayed,
// reconciled, caller_left, or why it was rejected, as idemflight.calls below.
//
// # Metrics
//
//	name                           unit         attributes, beside cache
//	idemflight.calls               {call}       result: executed, joined, replayed, reconciled, key_reused,
//	                                            in_flight, outcome_unknown, value_shed, full, closed,
//	                                            reentrant, invalid_key, caller_left, store_failed
//	idemflight.executions          {execution}  disposition: retain, release, hold
//	idemflight.execution.panics    {panic}
//	idemflight.hook.panics         {panic}
//	idemflight.removals            {key}        reason: evicted, expired, shed; only without a Store
//	idemflight.key.usage           {key}        state: in_flight, held, done
//	idemflight.key.limit           {key}
//	idemflight.waiters             {call}
//	idemflight.weight.usage        as Weigh counts; only with MaxWeight
//	idemflight.weight.limit        as Weigh counts; only with MaxWeight
//	idemflight.unsettled.age       s            state: in_flight, held
//	idemflight.execution.duration  s            disposition
//	idemflight.wait.duration       s            result: joined, left, rejected
//	idemflight.store.duration      s            verb: claim, begin, settle, renew, watch, read, give_back,
//	                                            forget, unsettled
//	idemflight.store.errors        {error}      verb
//
// The first eleven are those of [Register], the histograms and the errors those of [Durations]. No key, scope or error text
// is ever on a metric.
//
// With a Store the numbers are of this process, and held of idemflight.key.usage is 0. Only idemflight.unsettled.age is of
// all processes: the store is asked for it (Store.Unsettled, which may scan), once a minute at most, for 10 s at most, and a
// look that took long is followed by a pause of twenty times that. A collection never waits for it: it tells what the last look
// saw, so that the first one tells nothing. A look that fails counts as an error of the verb unsettled.
//
// # Cost
//
// A replay whose caller's span is not recorded allocates nothing, and costs a look for that span. Each execution
// costs a span, and what is kept of it takes more memory for its origin. A collection calls Cache.Stats once, and
// without a Store Cache.Unsettled, if anything is in flight or held: about a millisecond for a thousand of those, and
// where it takes long, collections within twenty times that tell what the last look saw. See BenchmarkReplay and
// BenchmarkExecution.
package idemotel
