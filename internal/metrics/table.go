// Package metrics is what idemprom and idemotel have in common: which number of a cache has which name, how old
// its oldest unsettled keys are, and a Store that tells how long its verbs take.
package metrics

import (
	"errors"

	"github.com/idemflight/idemflight"
)

// Metric is one that is read from a cache, as OpenTelemetry has it.
type Metric struct {
	Name, Unit, Help string
	Kind             Kind
	Attribute        string // that tells its values apart; "": there is one value
	Values           []Value
}

// Kind is how a metric moves.
type Kind int

const (
	Counter Kind = iota // only up
	Amount              // up and down, and to be added up over processes
	Gauge               // up and down, in fractions
)

// Value is one value of a metric.
type Value struct {
	Attribute string
	Of        func(*Reading) (x float64, known bool)
}

func count(attribute string, of func(*idemflight.Stats) uint64) Value {
	return Value{attribute, func(r *Reading) (float64, bool) { return float64(of(&r.Stats)), true }}
}

func number(attribute string, of func(*idemflight.Stats) int) Value {
	return Value{attribute, func(r *Reading) (float64, bool) { return float64(of(&r.Stats)), true }}
}

// removal is a count of what was dropped from memory. With a Store that were copies, and nothing is lost: to be
// told of that would only alarm.
func removal(attribute string, of func(*idemflight.Stats) uint64) Value {
	return Value{attribute, func(r *Reading) (float64, bool) { return float64(of(&r.Stats)), !r.stored }}
}

type stats = idemflight.Stats

// Table has every metric that is read from a cache.
var Table = []Metric{
	{"idemflight.calls", "{call}", "Calls of Do that have ended, by how.", Counter, "result", []Value{
		count("executed", func(s *stats) uint64 { return s.Executed }),
		count("joined", func(s *stats) uint64 { return s.Joined }),
		count("replayed", func(s *stats) uint64 { return s.Replayed }),
		count("reconciled", func(s *stats) uint64 { return s.Reconciled }),
		count("key_reused", func(s *stats) uint64 { return s.KeyReused }),
		count("in_flight", func(s *stats) uint64 { return s.NotWaited }),
		count("outcome_unknown", func(s *stats) uint64 { return s.OutcomeUnknown }),
		count("value_shed", func(s *stats) uint64 { return s.ValueShed }),
		count("full", func(s *stats) uint64 { return s.Full }),
		count("closed", func(s *stats) uint64 { return s.Closed }),
		count("reentrant", func(s *stats) uint64 { return s.Reentrant }),
		count("invalid_key", func(s *stats) uint64 { return s.InvalidKey }),
		count("caller_left", func(s *stats) uint64 { return s.CallerLeft }),
		count("store_failed", func(s *stats) uint64 { return s.StoreFailed }),
	}},
	{"idemflight.executions", "{execution}", "Executions of fn and of Reconcile that have ended, by what became of the outcome.", Counter, "disposition", []Value{
		count("retain", func(s *stats) uint64 { return s.Retains }),
		count("release", func(s *stats) uint64 { return s.Releases }),
		count("hold", func(s *stats) uint64 { return s.Holds }),
	}},
	{"idemflight.execution.panics", "{panic}", "Executions that ended by panic or runtime.Goexit.", Counter, "", []Value{
		count("", func(s *stats) uint64 { return s.Panics }),
	}},
	{"idemflight.hook.panics", "{panic}", "Panics and Goexits of the functions in Options and of the methods of errors.", Counter, "", []Value{
		count("", func(s *stats) uint64 { return s.HookPanics }),
	}},
	{"idemflight.removals", "{key}", "Unexpired outcomes evicted for capacity, records expired, values shed for weight.", Counter, "reason", []Value{
		removal("evicted", func(s *stats) uint64 { return s.Evicted }),
		removal("expired", func(s *stats) uint64 { return s.Expired }),
		removal("shed", func(s *stats) uint64 { return s.Shed }),
	}},
	{"idemflight.key.usage", "{key}", "Places taken by keys in flight, held, and done.", Amount, "state", []Value{
		number("in_flight", func(s *stats) int { return s.InFlight }),
		number("held", func(s *stats) int { return s.Held }),
		number("done", func(s *stats) int { return s.Entries - s.Held }),
	}},
	{"idemflight.key.limit", "{key}", "Places for keys: MaxEntries.", Amount, "", []Value{
		{"", func(r *Reading) (float64, bool) { return float64(r.MaxEntries), true }},
	}},
	{"idemflight.waiters", "{call}", "Calls that have joined a flight and wait.", Amount, "", []Value{
		number("", func(s *stats) int { return s.Waiters }),
	}},
	{"idemflight.weight.usage", "", "Weight of retained outcomes, as Weigh counts.", Amount, "", []Value{
		{"", func(r *Reading) (float64, bool) { return float64(r.Stats.Weight), r.MaxWeight > 0 }},
	}},
	{"idemflight.weight.limit", "", "The weight that retained outcomes may have: MaxWeight.", Amount, "", []Value{
		{"", func(r *Reading) (float64, bool) { return float64(r.MaxWeight), r.MaxWeight > 0 }},
	}},
	{"idemflight.unsettled.age", "s", "Time since the execution started of the oldest key in flight, and held; 0 without one.", Gauge, "state", []Value{
		{"in_flight", func(r *Reading) (float64, bool) { return r.age(r.oldest.inFlight) }},
		{"held", func(r *Reading) (float64, bool) { return r.age(r.oldest.held) }},
	}},
}

// The metrics that an Observer and a measured Store fill: histograms of seconds, and a counter.
var (
	Executions  = Metric{Name: "idemflight.execution.duration", Unit: "s", Help: "How long fn, or Reconcile, ran, by what became of the outcome.", Attribute: "disposition"}
	Waits       = Metric{Name: "idemflight.wait.duration", Unit: "s", Help: "How long a call waited for an execution, by how the wait ended.", Attribute: "result"}
	StoreVerbs  = Metric{Name: "idemflight.store.duration", Unit: "s", Help: "How long the store took to answer; watch waits on purpose.", Attribute: "verb"}
	StoreErrors = Metric{Name: "idemflight.store.errors", Unit: "{error}", Help: "Attempts to ask the store that failed.", Attribute: "verb"}
)

// Buckets are the upper bounds of all histograms, in seconds: those of otelgrpc, and up to ExecTimeout's default.
var Buckets = []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 30, 60, 120, 300}

// Dispositions and WaitResults are the attributes of Executions and Waits.
var (
	Dispositions = []string{idemflight.Release.String(), idemflight.Retain.String(), idemflight.Hold.String()}
	WaitResults  = []string{"joined", "left", "rejected"}
)

// Tells says where Event.Took belongs: to Executions under Dispositions[execution], or to Waits under
// WaitResults[wait]; a number below 0 is none.
func Tells[K comparable](e *idemflight.Event[K]) (execution, wait int) {
	switch e.Kind {
	case idemflight.EventExecuted, idemflight.EventReconciled, idemflight.EventFinished:
		return int(e.Disposition), -1
	case idemflight.EventResolved: // by Cache.Reconcile; what a person resolved took nothing
		if e.Took > 0 {
			return int(e.Disposition), -1
		}
	case idemflight.EventJoined:
		return -1, 0
	case idemflight.EventCallerLeft:
		if e.Took > 0 {
			return -1, 1
		}
	case idemflight.EventRejected:
		if e.Took > 0 {
			return -1, 2
		}
	}
	return -1, -1
}

// rejections are the results of calls that were rejected, by the error: the outcome that is unknown first, since it
// wraps what left it so, which may be the answer of another cache.
var rejections = []struct {
	err    error
	result string
}{
	{idemflight.ErrOutcomeUnknown, "outcome_unknown"},
	{idemflight.ErrStore, "store_failed"},
	{idemflight.ErrKeyReused, "key_reused"},
	{idemflight.ErrInFlight, "in_flight"},
	{idemflight.ErrValueShed, "value_shed"},
	{idemflight.ErrFull, "full"},
	{idemflight.ErrClosed, "closed"},
	{idemflight.ErrReentrant, "reentrant"},
	{idemflight.ErrInvalidKey, "invalid_key"},
}

// Result returns how a call ended, as the attribute of idemflight.calls has it.
func Result(kind idemflight.EventKind, err error) string {
	if kind == idemflight.EventRejected {
		for _, r := range rejections {
			if errors.Is(err, r.err) {
				return r.result
			}
		}
	}
	return kind.String()
}
