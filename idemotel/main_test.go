package idemotel_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemotel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type (
	cache   = idemflight.Cache[string, string]
	options = idemflight.Options[string, string]
)

var errLost = errors.New("no answer from the bank")

// returns is an fn, and after one that takes some time.
func returns(value string, err error) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return value, err }
}

func after(d time.Duration, value string, err error) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { time.Sleep(d); return value, err }
}

// traced is what traces go to, and the links that its sampler saw.
type traced struct {
	t        testing.TB
	exporter *tracetest.InMemoryExporter
	provider *sdktrace.TracerProvider

	mu    sync.Mutex
	links map[string]int // that a span of this name had when it was sampled
}

func newTraced(t testing.TB, sampler sdktrace.Sampler) *traced {
	tr := &traced{t: t, exporter: tracetest.NewInMemoryExporter(), links: map[string]int{}}
	tr.provider = sdktrace.NewTracerProvider(sdktrace.WithSyncer(tr.exporter), sdktrace.WithSampler(counting{sampler, tr}))
	return tr
}

// counting is a Sampler that counts links.
type counting struct {
	sdktrace.Sampler
	in *traced
}

func (c counting) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.links[p.Name] += len(p.Links)
	return c.Sampler.ShouldSample(p)
}

func (tr *traced) cache(o options) *cache {
	tr.t.Helper()
	c, err := idemflight.New(idemotel.Trace(o, idemotel.Options[string]{TracerProvider: tr.provider, Name: "payments"}))
	require.NoError(tr.t, err)
	return c
}

// request has call run within a span of its own, of that name.
func (tr *traced) request(name string, call func(context.Context)) {
	ctx, span := tr.provider.Tracer("test").Start(context.Background(), name)
	defer span.End()
	call(ctx)
}

// do is a request that calls Do.
func (tr *traced) do(name string, c *cache, key string, fn func(context.Context) (string, error), opts ...idemflight.CallOption) {
	tr.request(name, func(ctx context.Context) { _, _ = c.Do(ctx, key, fn, opts...) })
}

// all returns the spans that have ended, in that order. That of an execution ends once the flight has settled, and
// so perhaps after the call: the test must be in a bubble.
func (tr *traced) all() tracetest.SpanStubs {
	synctest.Wait()
	return tr.exporter.GetSpans()
}

// spans returns those of that name that have ended.
func (tr *traced) spans(name string) (found []tracetest.SpanStub) {
	for _, s := range tr.all() {
		if s.Name == name {
			found = append(found, s)
		}
	}
	return found
}

// span returns the one span of that name.
func (tr *traced) span(name string) tracetest.SpanStub {
	tr.t.Helper()
	found := tr.spans(name)
	require.Len(tr.t, found, 1, "spans of the name %q", name)
	return found[0]
}

// under returns the span of that name that is a child of parent.
func (tr *traced) under(parent tracetest.SpanStub, name string) tracetest.SpanStub {
	tr.t.Helper()
	found := slices.DeleteFunc(tr.spans(name), func(s tracetest.SpanStub) bool { return s.Parent.SpanID() != parent.SpanContext.SpanID() })
	require.Len(tr.t, found, 1, "spans of the name %q under %q", name, parent.Name)
	require.Equal(tr.t, parent.SpanContext.TraceID(), found[0].SpanContext.TraceID())
	return found[0]
}

// requireLinked fails unless s has one link, to that span.
func (tr *traced) requireLinked(s, to tracetest.SpanStub) {
	tr.t.Helper()
	require.Len(tr.t, s.Links, 1, "links of %q", s.Name)
	got := s.Links[0].SpanContext
	require.Equal(tr.t, to.SpanContext.TraceID(), got.TraceID(), "link of %q", s.Name)
	require.Equal(tr.t, to.SpanContext.SpanID(), got.SpanID(), "link of %q", s.Name)
	require.Equal(tr.t, to.SpanContext.IsSampled(), got.IsSampled(), "link of %q", s.Name)
}

func attributes(s tracetest.SpanStub) map[attribute.Key]any {
	all := map[attribute.Key]any{}
	for _, a := range s.Attributes {
		all[a.Key] = a.Value.AsInterface()
	}
	return all
}

// result is what a caller's span says of how its call ended.
func result(s tracetest.SpanStub) any { return attributes(s)["idemflight.result"] }

var internal = trace.SpanKindInternal
