package idemotel_test

import (
	"context"
	"fmt"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemotel"
)

// Two requests pay the same rent: the span of the first has the execution for a child, that of the second is linked
// to it.
func ExampleTrace() {
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	payments := idemflight.MustNew(idemotel.Trace(idemflight.Options[string, string]{}, idemotel.Options[string]{
		TracerProvider: provider, // nil: the global one
		Name:           "payments",
	}))

	for _, name := range []string{"first request", "second request"} {
		ctx, span := provider.Tracer("example").Start(context.Background(), name)
		_, _ = payments.Do(ctx, "rent", func(context.Context) (string, error) { return "receipt", nil })
		span.End()
	}

	names := map[string]string{}
	for _, s := range exporter.GetSpans() {
		names[s.SpanContext.SpanID().String()] = s.Name
	}
	for _, s := range exporter.GetSpans() {
		fmt.Printf("%s", s.Name)
		if s.Parent.IsValid() {
			fmt.Printf(", under %s", names[s.Parent.SpanID().String()])
		}
		for _, l := range s.Links {
			fmt.Printf(", linked to %s", names[l.SpanContext.SpanID().String()])
		}
		for _, a := range s.Attributes {
			fmt.Printf(", %s=%s", a.Key, a.Value.String())
		}
		fmt.Println()
	}
	// Output:
	// idemflight execute, under first request, idemflight.cache.name=payments, idemflight.disposition=retain, idemflight.waiters=0
	// first request, idemflight.result=executed
	// second request, linked to idemflight execute, idemflight.result=replayed
}
