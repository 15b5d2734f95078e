package idemprom

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/metrics"
)

// NewCollector returns a Collector of c, whose metrics have the label cache="name". It asks c.Stats once a scrape,
// and for the age of the oldest unsettled keys: see the package's documentation for what that costs with a
// Store. Register one for each cache, under names of their own. It keeps c from being garbage until it is
// unregistered.
func NewCollector[K comparable, V any](c *idemflight.Cache[K, V], name string) prometheus.Collector {
	col := collector{reader: metrics.NewReader(c)}
	for _, m := range metrics.Table {
		d := prometheus.NewDesc(nameOf(m, m.Kind == metrics.Counter), m.Help, labelsOf(m), prometheus.Labels{"cache": name})
		col.descs = append(col.descs, d)
	}
	return &col
}

type collector struct {
	reader *metrics.Reader
	descs  []*prometheus.Desc // of metrics.Table, in its order
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	reading := c.reader.Read()
	for i, m := range metrics.Table {
		kind := prometheus.GaugeValue
		if m.Kind == metrics.Counter {
			kind = prometheus.CounterValue
		}
		for _, v := range m.Values {
			x, known := v.Of(reading)
			switch {
			case !known:
			case m.Attribute == "":
				ch <- prometheus.MustNewConstMetric(c.descs[i], kind, x)
			default:
				ch <- prometheus.MustNewConstMetric(c.descs[i], kind, x, v.Attribute)
			}
		}
	}
}

// nameOf returns the name that Prometheus has for m: idemflight_calls_total for idemflight.calls.
func nameOf(m metrics.Metric, total bool) string {
	name := strings.ReplaceAll(m.Name, ".", "_")
	if m.Unit == "s" {
		name += "_seconds"
	}
	if total {
		name += "_total"
	}
	return name
}

func labelsOf(m metrics.Metric) []string {
	if m.Attribute == "" {
		return nil
	}
	return []string{m.Attribute}
}
