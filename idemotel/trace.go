package idemotel

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/metrics"
)

const scope = "github.com/idemflight/idemflight/idemotel"

// Options of [Trace]. All are optional.
type Options[K comparable] struct {
	TracerProvider trace.TracerProvider         // nil: the global one, as it is when Trace is called
	Name           string                       // of the cache: the attribute idemflight.cache.name
	Key            func(K) []attribute.KeyValue // what spans say of the key; nil: nothing, since keys may be secrets
}

// Trace returns o with tracing put in: its Options.Trace, instead of one that was there, and its Observer, beside one
// that was there. The package documentation says which spans there are. Safe for concurrent use, if t.Key is.
func Trace[K comparable, V any](o idemflight.Options[K, V], t Options[K]) idemflight.Options[K, V] {
	provider := t.TracerProvider
	if provider == nil {
		provider = otel.GetTracerProvider()
	}
	tr := &tracing[K]{
		tracer: provider.Tracer(scope),
		name:   attribute.String("idemflight.cache.name", t.Name),
		key:    t.Key,
	}
	o.Trace = tr.execution
	o.Observer = idemflight.JoinObservers(o.Observer, tr.observe)
	return o
}

type tracing[K comparable] struct {
	tracer trace.Tracer
	name   attribute.KeyValue
	key    func(K) []attribute.KeyValue
}

// with returns the attributes of a span about key.
func (t *tracing[K]) with(key K, more ...attribute.KeyValue) trace.SpanStartEventOption {
	all := append(more, t.name)
	if t.key != nil {
		all = append(all, t.key(key)...)
	}
	return trace.WithAttributes(all...)
}

// execution is the Options.Trace of a cache.
func (t *tracing[K]) execution(ctx context.Context, key K, reconciles bool) (context.Context, idemflight.Origin, func(idemflight.Event[K])) {
	name := "idemflight execute"
	if reconciles {
		name = "idemflight reconcile"
	}
	ctx, span := t.tracer.Start(ctx, name, t.with(key))
	at := span.SpanContext()
	origin := idemflight.Origin{TraceID: at.TraceID(), SpanID: at.SpanID(), Sampled: at.IsSampled()}
	return ctx, origin, func(e idemflight.Event[K]) { settled(span, e) }
}

// settled ends the span of an execution.
func settled[K comparable](span trace.Span, e idemflight.Event[K]) {
	defer span.End() // also if a method of the error panics
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(
		attribute.String("idemflight.disposition", e.Disposition.String()),
		attribute.Int("idemflight.waiters", e.Waiters))
	if e.Err != nil && e.Disposition != idemflight.Retain {
		span.SetStatus(codes.Error, e.Err.Error())
	}
}

// observe is the Observer of a cache: it tells how calls ended.
func (t *tracing[K]) observe(ctx context.Context, e idemflight.Event[K]) {
	if e.Kind > idemflight.EventCallerLeft { // it is not of a call
		return
	}
	waited := t.waited(&e)
	span := trace.SpanFromContext(ctx)
	if waited {
		t.wait(ctx, e)
	}
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(attribute.String("idemflight.result", metrics.Result(e.Kind, e.Err)))
	if !waited && e.Origin != nil && (!e.Led || e.Kind == idemflight.EventReplayed) {
		span.AddLink(linkTo(e.Origin))
	}
}

// waited reports whether e is of a call that waited. One that has led the execution all the time has that for a child.
func (t *tracing[K]) waited(e *idemflight.Event[K]) bool {
	_, wait := metrics.Tells(e)
	return wait >= 0 && !(e.Led && e.Kind == idemflight.EventRejected)
}

// wait makes the span of a call that has waited.
func (t *tracing[K]) wait(ctx context.Context, e idemflight.Event[K]) {
	var links []trace.Link
	if e.Origin != nil {
		links = append(links, linkTo(e.Origin))
	}
	end := time.Now()
	_, span := t.tracer.Start(ctx, "idemflight wait", trace.WithTimestamp(end.Add(-e.Took)), trace.WithLinks(links...),
		t.with(e.Key, attribute.String("idemflight.result", metrics.Result(e.Kind, e.Err))))
	span.End(trace.WithTimestamp(end))
}

// linkTo returns a link to the execution with that origin.
func linkTo(o *idemflight.Origin) trace.Link {
	flags := trace.TraceFlags(0).WithSampled(o.Sampled)
	return trace.Link{SpanContext: trace.NewSpanContext(trace.SpanContextConfig{TraceID: o.TraceID, SpanID: o.SpanID, TraceFlags: flags})}
}
