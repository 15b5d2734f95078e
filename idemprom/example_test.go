package idemprom_test

import (
	"context"
	"fmt"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemprom"
)

// A cache whose metrics are registered, three calls of one payment, and what Prometheus then scrapes. In a server
// promhttp.Handler does the last part.
func Example() {
	durations := idemprom.NewDurations("payments")
	payments := idemflight.MustNew(idemflight.Options[string, string]{
		Observer: idemprom.Observe[string](durations),
	})
	registry := prometheus.NewRegistry()
	registry.MustRegister(durations, idemprom.NewCollector(payments, "payments"))

	for range 3 {
		_, _ = payments.Do(context.Background(), "rent", func(context.Context) (string, error) { return "receipt", nil })
	}

	families, err := registry.Gather()
	if err != nil {
		fmt.Println(err)
	}
	for _, f := range families {
		if f.GetName() == "idemflight_key_usage" || f.GetName() == "idemflight_executions_total" {
			_, _ = expfmt.MetricFamilyToText(os.Stdout, f)
		}
	}
	// Output:
	// # HELP idemflight_executions_total Executions of fn and of Reconcile that have ended, by what became of the outcome.
	// # TYPE idemflight_executions_total counter
	// idemflight_executions_total{cache="payments",disposition="hold"} 0
	// idemflight_executions_total{cache="payments",disposition="release"} 0
	// idemflight_executions_total{cache="payments",disposition="retain"} 1
	// # HELP idemflight_key_usage Places taken by keys in flight, held, and done.
	// # TYPE idemflight_key_usage gauge
	// idemflight_key_usage{cache="payments",state="done"} 1
	// idemflight_key_usage{cache="payments",state="held"} 0
	// idemflight_key_usage{cache="payments",state="in_flight"} 0
}
