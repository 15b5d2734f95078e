package idemotel_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemotel"
	"github.com/idemflight/idemflight/storetest"
)

// measured is what metrics go to.
type measured struct {
	t        testing.TB
	reader   *sdkmetric.ManualReader
	provider *sdkmetric.MeterProvider
}

func newMeasured(t testing.TB) *measured {
	reader := sdkmetric.NewManualReader()
	return &measured{t, reader, sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))}
}

// cache returns a cache that is measured as the package documentation says.
func (m *measured) cache(name string, o options) *cache {
	m.t.Helper()
	durations, err := idemotel.NewDurations(m.provider, name)
	require.NoError(m.t, err)
	o.Observer = idemotel.Observe[string](durations)
	o.Store = idemotel.MeasureStore(o.Store, durations)
	c, err := idemflight.New(o)
	require.NoError(m.t, err)
	registration, err := idemotel.Register(c, m.provider, name)
	require.NoError(m.t, err)
	m.t.Cleanup(func() { require.NoError(m.t, registration.Unregister()) })
	return c
}

// collect returns what is collected now, by name.
func (m *measured) collect() map[string]metricdata.Metrics {
	m.t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(m.t, m.reader.Collect(context.Background(), &all))
	found := map[string]metricdata.Metrics{}
	for _, s := range all.ScopeMetrics {
		require.Equal(m.t, "github.com/idemflight/idemflight/idemotel", s.Scope.Name)
		for _, x := range s.Metrics {
			found[x.Name] = x
		}
	}
	return found
}

// point is one value of a metric: a number, or how often something was observed and the sum of it.
type point struct {
	cache, value string // of its attributes
	x            float64
	count        uint64
}

func pointsOf(t testing.TB, m metricdata.Metrics) (points []point, attribute string) {
	t.Helper()
	add := func(p metricdata.DataPoint[float64], count uint64) {
		cache, ok := p.Attributes.Value("cache")
		require.True(t, ok, m.Name)
		x := point{cache: cache.AsString(), x: p.Value, count: count}
		for _, a := range p.Attributes.ToSlice() {
			if a.Key != "cache" {
				attribute, x.value = string(a.Key), a.Value.AsString()
			}
		}
		points = append(points, x)
	}
	switch data := m.Data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range data.DataPoints {
			add(metricdata.DataPoint[float64]{Attributes: p.Attributes, Value: float64(p.Value)}, 0)
		}
	case metricdata.Gauge[float64]:
		for _, p := range data.DataPoints {
			add(p, 0)
		}
	case metricdata.Histogram[float64]:
		for _, p := range data.DataPoints {
			require.Equal(t, []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 30, 60, 120, 300}, p.Bounds, m.Name)
			add(metricdata.DataPoint[float64]{Attributes: p.Attributes, Value: p.Sum}, p.Count)
		}
	default:
		t.Fatalf("%s is a %T", m.Name, m.Data)
	}
	return points, attribute
}

// point returns that of the cache payments with that attribute, which must be there.
func (m *measured) point(name, value string) point {
	m.t.Helper()
	points, _ := pointsOf(m.t, m.collect()[name])
	for _, p := range points {
		if p.cache == "payments" && p.value == value {
			return p
		}
	}
	m.t.Fatalf("%s of %q was not collected", name, value)
	return point{}
}

// contract are the metrics: unit, attribute and its values.
var contract = map[string][]string{
	"idemflight.calls": {"{call}", "result", "executed", "joined", "replayed", "reconciled", "key_reused", "in_flight", "outcome_unknown",
		"value_shed", "full", "closed", "reentrant", "invalid_key", "caller_left", "store_failed"},
	"idemflight.executions":         {"{execution}", "disposition", "retain", "release", "hold"},
	"idemflight.execution.panics":   {"{panic}", "", ""},
	"idemflight.hook.panics":        {"{panic}", "", ""},
	"idemflight.removals":           {"{key}", "reason", "evicted", "expired", "shed"},
	"idemflight.key.usage":          {"{key}", "state", "in_flight", "held", "done"},
	"idemflight.key.limit":          {"{key}", "", ""},
	"idemflight.waiters":            {"{call}", "", ""},
	"idemflight.weight.usage":       {"", "", ""},
	"idemflight.weight.limit":       {"", "", ""},
	"idemflight.unsettled.age":      {"s", "state", "in_flight", "held"},
	"idemflight.execution.duration": {"s", "disposition", "retain", "hold"},
	"idemflight.wait.duration":      {"s", "result", "joined"},
	"idemflight.store.duration":     {"s", "verb", "claim", "settle", "unsettled"},
	"idemflight.store.errors":       {"{error}", "verb", "claim", "begin", "settle", "renew", "watch", "read", "give_back", "forget", "unsettled"},
}

// TestRegister_TheContract: every metric, with its unit, kind and attributes, and no other.
func TestRegister_TheContract(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeasured(t)
		c := m.cache("payments", options{Store: storetest.Mem(), MaxWeight: 1000, Weigh: func(_, value string) int64 { return int64(len(value)) }})
		m.cache("mails", options{})
		ctx := context.Background()
		go func() { _, _ = c.Do(ctx, "rent", after(time.Second, "receipt", nil)) }()
		synctest.Wait()
		_, _ = c.Do(ctx, "rent", returns("", nil))
		_, _ = c.Do(ctx, "phone", returns("", idemflight.Unknown(errLost)))
		m.collect() // looks into the store
		synctest.Wait()

		got := map[string][]string{}
		for name, x := range m.collect() {
			points, attribute := pointsOf(t, x)
			var values []string
			for _, p := range points {
				if !slices.Contains(values, p.value) {
					values = append(values, p.value)
				}
			}
			slices.Sort(values)
			got[name] = append([]string{x.Unit, attribute}, values...)
			require.NotEmpty(t, x.Description, name)
			sum, isSum := x.Data.(metricdata.Sum[int64])
			counts := slices.Contains([]string{"idemflight.calls", "idemflight.executions", "idemflight.execution.panics",
				"idemflight.hook.panics", "idemflight.removals", "idemflight.store.errors"}, name)
			require.Equal(t, counts, isSum && sum.IsMonotonic, "%s is a counter", name)
		}
		for name := range contract {
			slices.Sort(contract[name][2:])
		}
		require.Equal(t, contract, got)
		require.Equal(t, 2.0, m.point("idemflight.calls", "executed").x)
		require.Equal(t, 1.0, m.point("idemflight.calls", "joined").x)
		require.Equal(t, 1000.0, m.point("idemflight.weight.limit", "").x)
		require.Equal(t, 7.0, m.point("idemflight.weight.usage", "").x)
		time.Sleep(time.Second)
		require.Equal(t, 1.0, m.point("idemflight.unsettled.age", "held").x)
		points, _ := pointsOf(t, m.collect()["idemflight.removals"])
		require.Len(t, points, 3, "of mails alone: with a store copies are dropped")
	})
}

// TestObserve: executions by disposition, and waits by how they ended.
func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeasured(t)
		c := m.cache("payments", options{})
		ctx := context.Background()
		go func() { _, _ = c.Do(ctx, "a", after(time.Minute, "receipt", nil)) }()
		synctest.Wait()
		time.Sleep(time.Second)
		go func() { _, _ = c.Do(ctx, "a", returns("", nil)) }()
		go func() { _, _ = c.Do(ctx, "a", returns("", nil), idemflight.WithMaxWait(2*time.Second)) }()
		left, cancel := context.WithTimeout(ctx, 4*time.Second)
		defer cancel()
		_, err := c.Do(left, "a", returns("", nil))
		require.ErrorIs(t, err, idemflight.ErrCallerLeft)
		time.Sleep(time.Hour)
		_, _ = c.Do(ctx, "a", returns("", nil))
		_, _ = c.Do(ctx, "b", after(8*time.Second, "", idemflight.Retryable(errLost)))
		_, _ = c.Do(ctx, "c", after(16*time.Second, "", idemflight.Unknown(errLost)))

		for disposition, seconds := range map[string]float64{"retain": 60, "release": 8, "hold": 16} {
			p := m.point("idemflight.execution.duration", disposition)
			require.Equal(t, uint64(1), p.count, disposition)
			require.InDelta(t, seconds, p.x, 1e-9, disposition)
		}
		for result, seconds := range map[string]float64{"joined": 59, "rejected": 2, "left": 4} {
			p := m.point("idemflight.wait.duration", result)
			require.Equal(t, uint64(1), p.count, result)
			require.InDelta(t, seconds, p.x, 1e-9, result)
		}
		require.Equal(t, m.point("idemflight.unsettled.age", "held").x, 16.0)
	})
}

// TestMeasureStore: what is measured is a Store still, and its failures are counted by verb.
func TestMeasureStore(t *testing.T) {
	m, store := newMeasured(t), storetest.Mem()
	d, err := idemotel.NewDurations(m.provider, "payments")
	require.NoError(t, err)
	require.Nil(t, idemotel.MeasureStore(nil, d))
	s := idemotel.MeasureStore(store, d)
	for _, verb := range contract["idemflight.store.errors"][2:] {
		require.Zero(t, m.point("idemflight.store.errors", verb).x, "seen before the first error")
	}
	ctx := context.Background()
	store.Fail("Read", storetest.Before, 2)
	for range 3 {
		_, _ = s.Read(ctx, "key")
	}
	require.ErrorIs(t, s.Begin(ctx, idemflight.Claim{Key: "key"}, time.Second), idemflight.ErrClaimLost)
	require.Equal(t, 2.0, m.point("idemflight.store.errors", "read").x)
	require.Zero(t, m.point("idemflight.store.errors", "begin").x)
	require.Equal(t, uint64(3), m.point("idemflight.store.duration", "read").count)
	require.Equal(t, uint64(1), m.point("idemflight.store.duration", "begin").count)
	storetest.Run(t, func(*testing.T) idemflight.Store { return s })
}

// TestRegister_CanBeUndone: after that nothing is collected, and the cache is asked no more.
func TestRegister_CanBeUndone(t *testing.T) {
	m := newMeasured(t)
	c := idemflight.MustNew(options{})
	registration, err := idemotel.Register(c, m.provider, "payments")
	require.NoError(t, err)
	require.NotEmpty(t, m.collect())
	require.NoError(t, registration.Unregister())
	require.Empty(t, m.collect())
}

// TestErrors_OfTheMeterAreTold, all of them.
func TestErrors_OfTheMeterAreTold(t *testing.T) {
	_, err := idemotel.Register(idemflight.MustNew(options{}), failing{}, "payments")
	require.ErrorContains(t, err, "no idemflight.calls")
	require.ErrorContains(t, err, "no idemflight.unsettled.age")
	_, err = idemotel.NewDurations(failing{}, "payments")
	require.ErrorContains(t, err, "no idemflight.wait.duration")
	require.ErrorContains(t, err, "no idemflight.store.errors")
}

// failing is a MeterProvider that makes no instruments.
type failing struct {
	noop.MeterProvider
}

func (failing) Meter(string, ...metric.MeterOption) metric.Meter { return failingMeter{} }

type failingMeter struct{ noop.Meter }

func no(name string) error { return errors.New("no " + name) }

func (failingMeter) Int64Counter(name string, _ ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return nil, no(name)
}
func (failingMeter) Float64Histogram(name string, _ ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return nil, no(name)
}
func (failingMeter) Int64ObservableCounter(name string, _ ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	return nil, no(name)
}
func (failingMeter) Float64ObservableGauge(name string, _ ...metric.Float64ObservableGaugeOption) (metric.Float64ObservableGauge, error) {
	return nil, no(name)
}

// TestGlobals: nil is the global MeterProvider, which does nothing unless it was set.
func TestGlobals(t *testing.T) {
	d, err := idemotel.NewDurations(nil, "payments")
	require.NoError(t, err)
	registration, err := idemotel.Register(idemflight.MustNew(options{Observer: idemotel.Observe[string](d)}), nil, "payments")
	require.NoError(t, err)
	require.NoError(t, registration.Unregister())
}

// TestMetrics_AllocateNothing for a verb of a store, or a replay.
func TestMetrics_AllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	m := newMeasured(t)
	c := m.cache("payments", options{})
	fn := returns("receipt", nil)
	_, _ = c.Do(context.Background(), "rent", fn)
	require.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = c.Do(context.Background(), "rent", fn) }), "a replay")
	d, err := idemotel.NewDurations(m.provider, "payments")
	require.NoError(t, err)
	observe := idemotel.Observe[string](d)
	e := idemflight.Event[string]{Kind: idemflight.EventExecuted, Took: time.Second}
	require.LessOrEqual(t, testing.AllocsPerRun(1000, func() { observe(context.Background(), e) }), 1.0, "an execution")
}
