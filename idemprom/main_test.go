package idemprom_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemprom"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type (
	cache   = idemflight.Cache[string, string]
	options = idemflight.Options[string, string]
)

var errLost = errors.New("no answer from the bank")

// newCache returns a cache that is measured as the package documentation says, and what collects its metrics.
func newCache(t testing.TB, o options) (*cache, *prometheus.Registry) {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	return register(t, r, "payments", o), r
}

func register(t testing.TB, r *prometheus.Registry, name string, o options) *cache {
	t.Helper()
	durations := idemprom.NewDurations(name)
	o.Observer = idemprom.Observe[string](durations)
	o.Store = idemprom.MeasureStore(o.Store, durations)
	c, err := idemflight.New(o)
	require.NoError(t, err)
	r.MustRegister(durations, idemprom.NewCollector(c, name))
	return c
}

// returns is an fn.
func returns(value string, err error) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return value, err }
}

// families are what was scraped, by name.
type families map[string]*dto.MetricFamily

func gather(t testing.TB, r prometheus.Gatherer) families {
	t.Helper()
	all, err := r.Gather()
	require.NoError(t, err)
	fs := families{}
	for _, f := range all {
		fs[f.GetName()] = f
	}
	return fs
}

// scrape has the metrics sent over HTTP, in the format that Prometheus would accept, and reads them back.
func scrape(t testing.TB, r prometheus.Gatherer, accept string) families {
	t.Helper()
	server := httptest.NewServer(promhttp.HandlerFor(r, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}))
	defer server.Close()
	request, err := http.NewRequest(http.MethodGet, server.URL, nil)
	require.NoError(t, err)
	request.Header.Set("Accept", accept)
	client := server.Client()
	response, err := client.Do(request)
	require.NoError(t, err)
	defer func() { client.CloseIdleConnections() }()
	defer func() { _ = response.Body.Close() }()
	require.Equal(t, http.StatusOK, response.StatusCode)
	decoder := expfmt.NewDecoder(response.Body, expfmt.ResponseFormat(response.Header))
	fs := families{}
	for {
		var f dto.MetricFamily
		if err := decoder.Decode(&f); err != nil {
			require.Equal(t, "EOF", err.Error())
			return fs
		}
		fs[f.GetName()] = &f
	}
}

// labelsOf returns the cache of m, and the value of its other label, if it has one.
func labelsOf(m *dto.Metric) (cache, value string) {
	for _, l := range m.GetLabel() {
		if l.GetName() == "cache" {
			cache = l.GetValue()
		} else {
			value = l.GetValue()
		}
	}
	return cache, value
}

// metric returns that of payments in a family which has the value of its label; "" if that has none.
func (fs families) metric(name, value string) *dto.Metric {
	for _, m := range fs[name].GetMetric() {
		if cache, got := labelsOf(m); cache == "payments" && got == value {
			return m
		}
	}
	return nil
}

// value returns the number that a counter or a gauge has. A test that asks for one that is not there fails.
func (fs families) value(t testing.TB, name, label string) float64 {
	t.Helper()
	m := fs.metric(name, label)
	require.NotNil(t, m, "%s of %q was not scraped", name, label)
	if m.Counter != nil {
		return m.GetCounter().GetValue()
	}
	require.NotNil(t, m.Gauge, "%s of %q is neither counter nor gauge", name, label)
	return m.GetGauge().GetValue()
}

// observed returns how often something was observed, and the sum of it.
func (fs families) observed(t testing.TB, name, label string) (count uint64, sum float64) {
	t.Helper()
	m := fs.metric(name, label)
	require.NotNil(t, m, "%s of %q was not scraped", name, label)
	return m.GetHistogram().GetSampleCount(), m.GetHistogram().GetSampleSum()
}

func registryOf(c prometheus.Collector) *prometheus.Registry {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	return r
}
