package idemotel_test

import (
	"context"
	"fmt"
	"io"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemotel"
)

var raceEnabled bool

// discard is a SpanExporter.
type discard struct{ io.Writer }

func (discard) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (discard) Shutdown(context.Context) error                             { return nil }

// caches are one without tracing and one with it, and contexts of a caller whose span is not, and is, recorded.
func caches(o options) map[string]struct {
	*cache
	ctx context.Context
} {
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(discard{}), sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample())))
	recorded, _ := provider.Tracer("test").Start(context.Background(), "request")
	type one = struct {
		*cache
		ctx context.Context
	}
	traced := func() *cache {
		return idemflight.MustNew(idemotel.Trace(o, idemotel.Options[string]{TracerProvider: provider, Name: "payments"}))
	}
	return map[string]one{
		"none":         {idemflight.MustNew(o), unrecorded()["not sampled"]},
		"not recorded": {traced(), unrecorded()["not sampled"]},
		"recorded":     {traced(), recorded}, // links beyond the limit of a span are dropped
	}
}

// BenchmarkReplay: what tracing costs a replay.
func BenchmarkReplay(b *testing.B) {
	for name, c := range caches(options{}) {
		b.Run(name, func(b *testing.B) {
			fn := returns("receipt", nil)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = c.Do(c.ctx, "rent", fn)
			}
		})
	}
}

// BenchmarkExecution: what tracing costs a first execution.
func BenchmarkExecution(b *testing.B) {
	keys := make([]string, 1<<16)
	for i := range keys {
		keys[i] = fmt.Sprint("key ", i)
	}
	for name, c := range caches(options{MaxEntries: 1000, MinRetention: -1}) {
		b.Run(name, func(b *testing.B) {
			fn := returns("receipt", nil)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				_, _ = c.Do(c.ctx, keys[i%len(keys)], fn)
			}
		})
	}
}
