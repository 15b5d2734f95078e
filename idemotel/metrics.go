package idemotel

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/metrics"
)

// meterOf returns the meter of this package; a nil mp is the global one.
func meterOf(mp metric.MeterProvider) metric.Meter {
	if mp == nil {
		mp = otel.GetMeterProvider()
	}
	return mp.Meter(scope)
}

// attributesOf returns those of one value of m, of the cache with that name.
func attributesOf(cache string, m metrics.Metric, value string) metric.MeasurementOption {
	set := []attribute.KeyValue{attribute.String("cache", cache)}
	if m.Attribute != "" {
		set = append(set, attribute.String(m.Attribute, value))
	}
	return metric.WithAttributeSet(attribute.NewSet(set...))
}

// Register has the metrics of c collected, with the attribute cache, from the global MeterProvider if mp is nil. It asks
// c.Stats once a collection, and for the age of the oldest unsettled keys: see the package's documentation for what
// that costs with a Store. Until Unregister is called c is not garbage.
func Register[K comparable, V any](c *idemflight.Cache[K, V], mp metric.MeterProvider, name string) (metric.Registration, error) {
	meter, reader := meterOf(mp), metrics.NewReader(c)
	var (
		failed      []error
		instruments []metric.Observable
		observers   []func(metric.Observer, *metrics.Reading)
	)
	for _, m := range metrics.Table {
		instrument, observe, err := instrumentOf(meter, m)
		failed, instruments = append(failed, err), append(instruments, instrument)
		for _, v := range m.Values {
			attributes := attributesOf(name, m, v.Attribute)
			observers = append(observers, func(o metric.Observer, r *metrics.Reading) {
				if x, known := v.Of(r); known {
					observe(o, x, attributes)
				}
			})
		}
	}
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	return meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		reading := reader.Read()
		for _, observe := range observers {
			observe(o, reading)
		}
		return nil
	}, instruments...)
}

// instrumentOf returns the instrument of m, and how a value of it is observed.
func instrumentOf(meter metric.Meter, m metrics.Metric) (metric.Observable, func(metric.Observer, float64, metric.ObserveOption), error) {
	unit, help := metric.WithUnit(m.Unit), metric.WithDescription(m.Help)
	var ints metric.Int64Observable
	var err error
	switch m.Kind {
	case metrics.Gauge:
		gauge, err := meter.Float64ObservableGauge(m.Name, unit, help)
		return gauge, func(o metric.Observer, x float64, at metric.ObserveOption) { o.ObserveFloat64(gauge, x, at) }, err
	case metrics.Counter:
		ints, err = meter.Int64ObservableCounter(m.Name, unit, help)
	default:
		ints, err = meter.Int64ObservableUpDownCounter(m.Name, unit, help)
	}
	return ints, func(o metric.Observer, x float64, at metric.ObserveOption) { o.ObserveInt64(ints, int64(x), at) }, err
}

// Durations are the histograms of one cache: how long executions ran and calls waited, which [Observe] fills, and how
// long a Store took and how often it failed, which [MeasureStore] fills. It is safe for concurrent use.
type Durations struct {
	executions, waits, verbs histogram
	errors                   metric.Int64Counter
	errorsOf                 [][]metric.AddOption // by verb
}

// histogram is one with the options of each value of its attribute, made beforehand.
type histogram struct {
	metric.Float64Histogram
	of [][]metric.RecordOption
}

func (h *histogram) record(ctx context.Context, i int, took time.Duration) {
	h.Record(ctx, took.Seconds(), h.of[i]...)
}

// NewDurations returns the Durations of a cache, whose metrics have the attribute cache. A nil mp is the global
// MeterProvider.
func NewDurations(mp metric.MeterProvider, name string) (*Durations, error) {
	meter := meterOf(mp)
	var failed []error
	histogramOf := func(m metrics.Metric, values []string) histogram {
		made, err := meter.Float64Histogram(m.Name, metric.WithUnit(m.Unit), metric.WithDescription(m.Help),
			metric.WithExplicitBucketBoundaries(metrics.Buckets...))
		failed = append(failed, err)
		h := histogram{Float64Histogram: made}
		for _, v := range values {
			h.of = append(h.of, []metric.RecordOption{attributesOf(name, m, v)})
		}
		return h
	}
	d := &Durations{
		executions: histogramOf(metrics.Executions, metrics.Dispositions),
		waits:      histogramOf(metrics.Waits, metrics.WaitResults),
		verbs:      histogramOf(metrics.StoreVerbs, metrics.Verbs),
	}
	m := metrics.StoreErrors
	var err error
	d.errors, err = meter.Int64Counter(m.Name, metric.WithUnit(m.Unit), metric.WithDescription(m.Help))
	for _, v := range metrics.Verbs {
		d.errorsOf = append(d.errorsOf, []metric.AddOption{attributesOf(name, m, v)})
	}
	if err := errors.Join(append(failed, err)...); err != nil {
		return nil, err
	}
	return d, nil
}

// Observe returns an Observer, for idemflight.Options, that fills d. To have others beside it, see
// [idemflight.JoinObservers].
func Observe[K comparable](d *Durations) func(context.Context, idemflight.Event[K]) {
	return func(ctx context.Context, e idemflight.Event[K]) {
		execution, wait := metrics.Tells(&e)
		switch {
		case execution >= 0:
			d.executions.record(ctx, execution, e.Took)
		case wait >= 0:
			d.waits.record(ctx, wait, e.Took)
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
	for _, of := range d.errorsOf { // to be seen before the first error
		d.errors.Add(context.Background(), 0, of...)
	}
	return &metrics.Measured{Store: s, Told: func(ctx context.Context, verb int, took time.Duration, failed bool) {
		d.verbs.record(ctx, verb, took)
		if failed {
			d.errors.Add(ctx, 1, d.errorsOf[verb]...)
		}
	}}
}
