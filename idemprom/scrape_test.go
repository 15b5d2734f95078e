package idemprom_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemprom"
	"github.com/idemflight/idemflight/storetest"
)

const (
	text     = "text/plain;version=0.0.4"
	protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)

// used returns the metrics of a cache that has a store, a bound of weight, and was used, and of one in memory.
func used(t testing.TB) *prometheus.Registry {
	c, r := newCache(t, options{
		Store: storetest.Mem(), MaxWeight: 1000, Weigh: func(_, value string) int64 { return int64(len(value)) },
	})
	ctx := context.Background()
	for range 3 {
		_, err := c.Do(ctx, "rent", returns("receipt", nil))
		require.NoError(t, err)
	}
	register(t, r, "mails", options{})
	_, err := c.Do(ctx, "phone", returns("", idemflight.Unknown(errLost)))
	require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
	t.Cleanup(func() { require.NoError(t, c.Close(ctx)) })
	gather(t, r) // looks into the store
	require.Eventually(t, func() bool { return gather(t, r)["idemflight_unsettled_age_seconds"] != nil }, 10*time.Second, time.Millisecond)
	return r
}

// contract are the metrics, each with the values of its label.
var contract = map[string][]string{
	"idemflight_calls_total": {"executed", "joined", "replayed", "reconciled", "key_reused", "in_flight", "outcome_unknown",
		"value_shed", "full", "closed", "reentrant", "invalid_key", "caller_left", "store_failed"},
	"idemflight_executions_total":           {"retain", "release", "hold"},
	"idemflight_execution_panics_total":     {""},
	"idemflight_hook_panics_total":          {""},
	"idemflight_removals_total":             {"evicted", "expired", "shed"},
	"idemflight_key_usage":                  {"in_flight", "held", "done"},
	"idemflight_key_limit":                  {""},
	"idemflight_waiters":                    {""},
	"idemflight_weight_usage":               {""},
	"idemflight_weight_limit":               {""},
	"idemflight_unsettled_age_seconds":      {"in_flight", "held"},
	"idemflight_execution_duration_seconds": {"retain", "release", "hold"},
	"idemflight_wait_duration_seconds":      {"joined", "left", "rejected"},
	"idemflight_store_duration_seconds":     {"claim", "begin", "settle", "renew", "watch", "read", "give_back", "forget", "unsettled"},
	"idemflight_store_errors_total":         {"claim", "begin", "settle", "renew", "watch", "read", "give_back", "forget", "unsettled"},
}

// TestScrape_IsReadBack: over HTTP, in both formats, every metric of the contract and no other, with its label and
// that of the cache alone.
func TestScrape_IsReadBack(t *testing.T) {
	r := used(t)
	for _, format := range []string{text, protobuf} {
		got := map[string][]string{}
		fs := scrape(t, r, format)
		for name, f := range fs {
			require.NotEmpty(t, f.GetHelp(), name)
			for _, m := range f.GetMetric() {
				cache, value := labelsOf(m)
				require.Contains(t, []string{"payments", "mails"}, cache)
				require.LessOrEqual(t, len(m.GetLabel()), 2)
				if !slices.Contains(got[name], value) {
					got[name] = append(got[name], value)
				}
			}
		}
		want := map[string][]string{}
		for name, values := range contract {
			want[name] = slices.Sorted(slices.Values(values))
			slices.Sort(got[name])
		}
		require.Equal(t, want, got, format)
		require.Equal(t, 2.0, fs.value(t, "idemflight_calls_total", "executed"))
		require.Equal(t, 2.0, fs.value(t, "idemflight_calls_total", "replayed"))
		require.Len(t, fs["idemflight_removals_total"].GetMetric(), 3, "of mails alone: with a store copies are dropped")
		require.Equal(t, 1.0, fs.value(t, "idemflight_executions_total", "hold"))
		require.Equal(t, 1.0, fs.value(t, "idemflight_key_usage", "done"))
		require.Equal(t, float64(idemflight.DefaultMaxEntries), fs.value(t, "idemflight_key_limit", ""))
		require.Equal(t, 7.0, fs.value(t, "idemflight_weight_usage", ""))
		require.Equal(t, 1000.0, fs.value(t, "idemflight_weight_limit", ""))
		require.Greater(t, fs.value(t, "idemflight_unsettled_age_seconds", "held"), 0.0)
		require.Zero(t, fs.value(t, "idemflight_unsettled_age_seconds", "in_flight"))
	}
}

// TestScrape_HistogramsAreNativeToo: with the buckets of the contract, and native ones for those who ask for them.
func TestScrape_HistogramsAreNativeToo(t *testing.T) {
	r := used(t)
	h := scrape(t, r, protobuf).metric("idemflight_store_duration_seconds", "claim").GetHistogram()
	require.NotEmpty(t, h.GetPositiveSpan(), "native buckets")
	var bounds []float64
	for _, b := range scrape(t, r, text).metric("idemflight_store_duration_seconds", "claim").GetHistogram().GetBucket() {
		bounds = append(bounds, b.GetUpperBound())
	}
	require.Len(t, bounds, 19, "the last is +Inf")
	require.Equal(t, []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 30, 60, 120, 300}, bounds[:18])
}

// TestScrape_LintersSayNothing: neither promlint nor a pedantic registry, which used has.
func TestScrape_LintersSayNothing(t *testing.T) {
	problems, err := testutil.GatherAndLint(used(t))
	require.NoError(t, err)
	require.Empty(t, problems)
}

// TestCollector_CachesShareARegistry under names of their own, and one name twice is refused.
func TestCollector_CachesShareARegistry(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	for _, name := range []string{"payments", "mails"} {
		r.MustRegister(idemprom.NewDurations(name), idemprom.NewCollector(idemflight.MustNew(options{}), name))
	}
	require.Len(t, gather(t, r)["idemflight_waiters"].GetMetric(), 2)
	require.Error(t, r.Register(idemprom.NewCollector(idemflight.MustNew(options{}), "mails")))
	require.Error(t, r.Register(idemprom.NewDurations("mails")))
}

// TestCollector_WeightOnlyWhereItIsBounded: usage / limit would be a division by zero.
func TestCollector_WeightOnlyWhereItIsBounded(t *testing.T) {
	_, r := newCache(t, options{})
	fs := gather(t, r)
	require.NotContains(t, fs, "idemflight_weight_usage")
	require.NotContains(t, fs, "idemflight_weight_limit")
	require.NotContains(t, fs, "idemflight_store_errors_total", "there is no store")
}
