// Package idemprom exports what an idemflight cache does to Prometheus: how calls of Do ended, what became of
// executions, how full the cache is, and since when the oldest key waits for somebody to find out about it.
//
//	durations := idemprom.NewDurations("payments")
//	payments, err := idemflight.New(idemflight.Options[string, Receipt]{
//		Observer: idemprom.Observe[string](durations),
//		Store:    idemprom.MeasureStore(store, durations), // if there is one
//	})
//	…
//	prometheus.MustRegister(durations, idemprom.NewCollector(payments, "payments"))
//
// The first look at a new dashboard should be at idemflight_unsettled_age_seconds{state="held"}: a held key waits for
// a person, or for Reconcile. The repository has alert rules (docs/alerts.yml), a dashboard for Grafana
// (docs/dashboard.json), and a page that says what to do about each alert (docs/operations.md).
//
// # Metrics
//
// Each has the label cache, the name that was given. No key, scope or error text is ever on one.
//
//	idemflight_calls_total                 result: executed, joined, replayed, reconciled, key_reused,
//	                                       in_flight, outcome_unknown, value_shed, full, closed,
//	                                       reentrant, invalid_key, caller_left, store_failed
//	idemflight_executions_total            disposition: retain, release, hold
//	idemflight_execution_panics_total
//	idemflight_hook_panics_total
//	idemflight_removals_total              reason: evicted, expired, shed; only without a Store
//	idemflight_key_usage                   state: in_flight, held, done
//	idemflight_key_limit
//	idemflight_waiters
//	idemflight_weight_usage                only with MaxWeight
//	idemflight_weight_limit                only with MaxWeight
//	idemflight_unsettled_age_seconds       state: in_flight, held
//	idemflight_execution_duration_seconds  disposition
//	idemflight_wait_duration_seconds       result: joined, left, rejected
//	idemflight_store_duration_seconds      verb: claim, begin, settle, renew, watch, read, give_back,
//	                                       forget, unsettled
//	idemflight_store_errors_total          verb
//
// The first eleven are those of [NewCollector], the histograms and the errors those of [Durations]. The histograms
// have buckets from 5 ms to 5 min, and are native histograms for servers that ask for these.
//
// A Reconcile that is followed by fn is counted among the executions; the histogram has fn's time alone, as the
// event of the flight tells it.
//
// # With a Store
//
// The numbers are of this process: its calls, its executions, its copies of outcomes. So held of
// idemflight_key_usage is 0: what is held is in the store. There is no idemflight_removals_total, since to drop a copy
// loses nothing. The one exception is idemflight_unsettled_age_seconds,
// which is of all processes, since a key that a dead process left behind is nobody's: the store is asked for it
// (Store.Unsettled, which may scan). A scrape never waits for that. It tells what the last look saw, and starts the
// next one if the last began a minute ago or longer; a look ends after 10 s, and one that took long is followed by
// a pause of twenty times that. So the first scrape has no age, and a key may be settled for a minute before it is
// gone. A look that fails counts as an error of the verb unsettled; until one succeeds, an age is told only of
// what it saw before that.
//
// # Cost
//
// A scrape calls Cache.Stats once, which takes the locks of all shards for some microseconds, and without a Store
// Cache.Unsettled, if anything is in flight or held: about a millisecond for a thousand of those. Where there are so
// many that it takes long, scrapes within twenty times that tell what the last look saw. An Observer costs a replay a
// comparison, and an execution or a wait one observation of a histogram. MeasureStore reads the clock twice for each
// verb, and observes once. Neither allocates. See BenchmarkObserver, BenchmarkScrape and BenchmarkMeasureStore.
package idemprom
