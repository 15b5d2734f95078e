package idemprom

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/metrics"
)

// Durations are the histograms of one cache, a [prometheus.Collector]: how long executions ran and calls waited,
// which [Observe] fills, and how long a Store took and how often it failed, which [MeasureStore] fills. It is safe
// for concurrent use.
type Durations struct {
	executions, waits, verbs *prometheus.HistogramVec
	errors                   *prometheus.CounterVec

	// Those of the vectors above that a cache fills, by number.
	execution, wait []prometheus.Observer
}

// NewDurations returns the Durations of a cache, whose metrics have the label cache="name".
func NewDurations(name string) *Durations {
	labels := prometheus.Labels{"cache": name}
	histogram := func(m metrics.Metric) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: nameOf(m, false), Help: m.Help, ConstLabels: labels, Buckets: metrics.Buckets,
			// Native: each bucket a tenth wider than the one before, 160 at most, emptied once an hour if there are more.
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
		}, labelsOf(m))
	}
	d := &Durations{
		executions: histogram(metrics.Executions),
		waits:      histogram(metrics.Waits),
		verbs:      histogram(metrics.StoreVerbs),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: nameOf(metrics.StoreErrors, true), Help: metrics.StoreErrors.Help, ConstLabels: labels,
		}, labelsOf(metrics.StoreErrors)),
	}
	d.execution = each(d.executions, metrics.Dispositions)
	d.wait = each(d.waits, metrics.WaitResults)
	return d
}

// each returns the histogram of each attribute, which is then exported from the first scrape on.
func each(of *prometheus.HistogramVec, attributes []string) (all []prometheus.Observer) {
	for _, a := range attributes {
		all = append(all, of.WithLabelValues(a))
	}
	return all
}

// Describe and Collect make it a [prometheus.Collector].
func (d *Durations) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range []prometheus.Collector{d.executions, d.waits, d.verbs, d.errors} {
		c.Describe(ch)
	}
}

// Collect: see Describe.
func (d *Durations) Collect(ch chan<- prometheus.Metric) {
	for _, c := range []prometheus.Collector{d.executions, d.waits, d.verbs, d.errors} {
		c.Collect(ch)
	}
}

// Observe returns an Observer, for idemflight.Options, that fills d. To have others beside it, see
// [idemflight.JoinObservers].
func Observe[K comparable](d *Durations) func(context.Context, idemflight.Event[K]) {
	return func(_ context.Context, e idemflight.Event[K]) {
		execution, wait := metrics.Tells(&e)
		switch {
		case execution >= 0:
			d.execution[execution].Observe(e.Took.Seconds())
		case wait >= 0:
			d.wait[wait].Observe(e.Took.Seconds())
		}
	}
}

// MeasureStore returns a Store that does what s does and fills d, to be given as Options.Store; nil if s is. What
// else s can do, SettleTx say, s itself does still, with the claims of a cache that was given the measured one. What
// ended because its caller had gone is not an error, nor are idemflight.ErrClaimLost and ErrInvalidKey, which
// are answers.
func MeasureStore(s idemflight.Store, d *Durations) idemflight.Store {
	if s == nil {
		return nil
	}
	took := each(d.verbs, metrics.Verbs)
	var errors []prometheus.Counter
	for _, verb := range metrics.Verbs {
		errors = append(errors, d.errors.WithLabelValues(verb))
	}
	return &metrics.Measured{Store: s, Told: func(_ context.Context, verb int, t time.Duration, failed bool) {
		took[verb].Observe(t.Seconds())
		if failed {
			errors[verb].Inc()
		}
	}}
}
