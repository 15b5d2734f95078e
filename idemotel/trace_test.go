package idemotel_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemotel"
	"github.com/idemflight/idemflight/storetest"
)

// bank is an fn whose effect has a span of its own.
func (tr *traced) bank(ctx context.Context) (string, error) {
	_, span := tr.provider.Tracer("test").Start(ctx, "bank")
	defer span.End()
	time.Sleep(time.Second)
	return "receipt", nil
}

// TestTrace_AnExecutionIsBetweenItsLeaderAndTheBank.
func TestTrace_AnExecutionIsBetweenItsLeaderAndTheBank(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTraced(t, sdktrace.AlwaysSample())
		c := tr.cache(options{})
		tr.do("request", c, "rent", tr.bank)

		request := tr.span("request")
		execute := tr.under(request, "idemflight execute")
		tr.under(execute, "bank")
		require.Equal(t, internal, execute.SpanKind)
		require.Equal(t, map[attribute.Key]any{
			"idemflight.cache.name": "payments", "idemflight.disposition": "retain", "idemflight.waiters": int64(0),
		}, attributes(execute))
		require.Equal(t, codes.Unset, execute.Status.Code)
		require.Equal(t, time.Second, execute.EndTime.Sub(execute.StartTime))
		require.Empty(t, execute.Links)
		require.Equal(t, map[attribute.Key]any{"idemflight.result": "executed"}, attributes(request))
		require.Empty(t, request.Links, "the execution is its child")
		require.Len(t, tr.all(), 3)

		e, found, err := c.Lookup(context.Background(), "rent")
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, &idemflight.Origin{TraceID: execute.SpanContext.TraceID(), SpanID: execute.SpanContext.SpanID(), Sampled: true}, e.Origin)
	})
}

// TestTrace_WhoWaits has a span from when it began to wait, linked to the execution from its start on.
func TestTrace_WhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTraced(t, sdktrace.AlwaysSample())
		c := tr.cache(options{})
		began := time.Now()
		go tr.request("leads, and leaves", func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			_, _ = c.Do(ctx, "rent", after(time.Minute, "receipt", nil))
		})
		synctest.Wait()
		time.Sleep(time.Second)
		go tr.do("joins", c, "rent", returns("", nil))
		go tr.request("leaves", func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
			defer cancel()
			_, _ = c.Do(ctx, "rent", returns("", nil))
		})
		go tr.do("waits for 8 s", c, "rent", returns("", nil), idemflight.WithMaxWait(8*time.Second))
		tr.do("does not wait", c, "rent", returns("", nil), idemflight.WithMaxWait(idemflight.NoWait))
		time.Sleep(time.Hour)

		execute := tr.under(tr.span("leads, and leaves"), "idemflight execute")
		require.Equal(t, int64(1), attributes(execute)["idemflight.waiters"])
		for request, want := range map[string]struct {
			from, to time.Duration
			result   string
		}{
			"leads, and leaves": {0, 2 * time.Second, "caller_left"},
			"joins":             {time.Second, time.Minute, "joined"},
			"leaves":            {time.Second, 5 * time.Second, "caller_left"},
			"waits for 8 s":     {time.Second, 9 * time.Second, "in_flight"},
		} {
			require.Equal(t, want.result, result(tr.span(request)), request)
			require.Empty(t, tr.span(request).Links, request)
			wait := tr.under(tr.span(request), "idemflight wait")
			require.Equal(t, internal, wait.SpanKind)
			require.Equal(t, want.from, wait.StartTime.Sub(began), request)
			require.Equal(t, want.to, wait.EndTime.Sub(began), request)
			require.Equal(t, map[attribute.Key]any{"idemflight.cache.name": "payments", "idemflight.result": want.result}, attributes(wait))
			require.Equal(t, codes.Unset, wait.Status.Code, request)
			tr.requireLinked(wait, execute)
		}
		require.Equal(t, 4, tr.links["idemflight wait"], "links that a sampler sees")
		require.Len(t, tr.spans("idemflight wait"), 4)
		rejected := tr.span("does not wait")
		require.Equal(t, "in_flight", result(rejected))
		tr.requireLinked(rejected, execute)
	})
}

// TestTrace_AReplayIsALink on the caller's span, and no span.
func TestTrace_AReplayIsALink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTraced(t, sdktrace.AlwaysSample())
		c := tr.cache(options{})
		tr.do("first", c, "rent", returns("receipt", nil))
		tr.do("again", c, "rent", returns("", nil))
		again := tr.span("again")
		tr.requireLinked(again, tr.span("idemflight execute"))
		require.Equal(t, map[attribute.Key]any{"idemflight.result": "replayed"}, attributes(again))
		require.Len(t, tr.all(), 3)
	})
}

// TestTrace_AReplayElsewhereIsLinkedToo: in another process, and after a restart.
func TestTrace_AReplayElsewhereIsLinkedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // with a store
		tr, store := newTraced(t, sdktrace.AlwaysSample()), storetest.Mem()
		tr.do("first", tr.cache(options{Store: store}), "rent", returns("receipt", nil))
		other := tr.cache(options{Store: store})
		tr.do("again", other, "rent", returns("", nil))
		tr.do("from memory", other, "rent", returns("", nil))
		tr.requireLinked(tr.span("again"), tr.span("idemflight execute"))
		tr.requireLinked(tr.span("from memory"), tr.span("idemflight execute"))
		require.Equal(t, "replayed", result(tr.span("again")))
	})
	synctest.Test(t, func(t *testing.T) { // saved and loaded
		tr := newTraced(t, sdktrace.AlwaysSample())
		old, next := tr.cache(options{}), tr.cache(options{})
		tr.do("first", old, "rent", returns("receipt", nil))
		var file bytes.Buffer
		require.NoError(t, old.Save(&file))
		_, err := next.Load(context.Background(), &file)
		require.NoError(t, err)
		tr.do("again", next, "rent", returns("", nil))
		tr.requireLinked(tr.span("again"), tr.span("idemflight execute"))
	})
}

// TestTrace_WaitingForAnotherProcess is a wait like any, also for the call that leads here.
func TestTrace_WaitingForAnotherProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, store := newTraced(t, sdktrace.AlwaysSample()), storetest.Mem()
		c, other := tr.cache(options{Store: store}), tr.cache(options{Store: store})
		go tr.do("first", c, "rent", after(time.Minute, "receipt", nil))
		synctest.Wait()
		tr.do("there", other, "rent", returns("", nil))
		require.Equal(t, "joined", result(tr.span("there")))
		tr.requireLinked(tr.under(tr.span("there"), "idemflight wait"), tr.span("idemflight execute"))
		time.Sleep(time.Hour)
	})
}

// TestTrace_Status: an error where the key is held or released because of one, and not for an answer.
func TestTrace_Status(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTraced(t, sdktrace.AlwaysSample())
		c := tr.cache(options{})
		panics := func(context.Context) (string, error) { panic("at the bank") }
		for name, want := range map[string]struct {
			fn          func(context.Context) (string, error)
			disposition string
			status      codes.Code
			text        string
			opts        []idemflight.CallOption
		}{
			"success":       {returns("receipt", nil), "retain", codes.Unset, "", nil},
			"declined":      {returns("", idemflight.Final(errLost)), "retain", codes.Unset, "", nil},
			"released":      {returns("", idemflight.Retryable(errLost)), "release", codes.Error, errLost.Error(), nil},
			"held":          {returns("", idemflight.Unknown(errLost)), "hold", codes.Error, errLost.Error(), nil},
			"panicked":      {panics, "hold", codes.Error, "at the bank", nil},
			"shared, alone": {returns("receipt", nil), "release", codes.Unset, "", []idemflight.CallOption{idemflight.WithTTL(0)}},
		} {
			func() {
				defer func() { _ = recover() }()
				tr.do(name, c, name, want.fn, want.opts...)
			}()
			execute := tr.under(tr.span(name), "idemflight execute")
			require.Equal(t, want.disposition, attributes(execute)["idemflight.disposition"], name)
			require.Equal(t, want.status, execute.Status.Code, name)
			require.Contains(t, execute.Status.Description, want.text, name)
			require.Equal(t, "executed", result(tr.span(name)), name)
		}
		require.Zero(t, c.Stats().HookPanics)
	})
}

// TestTrace_Reconcile has a span like fn, and fn after it one beside.
func TestTrace_Reconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTraced(t, sdktrace.AlwaysSample())
		found, err := "receipt", error(nil)
		c := tr.cache(options{Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[string]) (string, error) {
			_, span := tr.provider.Tracer("test").Start(ctx, "ask the bank")
			defer span.End()
			return found, err
		}})
		hold := func(key string) {
			tr.do("holds "+key, c, key, returns("", idemflight.Unknown(errLost)))
			require.Equal(t, "executed", result(tr.span("holds "+key)))
		}
		hold("a")
		tr.do("found", c, "a", returns("", nil))
		reconcile := tr.under(tr.span("found"), "idemflight reconcile")
		tr.under(reconcile, "ask the bank")
		require.Equal(t, "retain", attributes(reconcile)["idemflight.disposition"])
		require.Equal(t, codes.Unset, reconcile.Status.Code)
		require.Equal(t, internal, reconcile.SpanKind)
		require.Equal(t, "reconciled", result(tr.span("found")))
		require.Empty(t, tr.span("found").Links)
		tr.do("again", c, "a", returns("", nil))
		tr.requireLinked(tr.span("again"), reconcile)

		hold("b")
		found, err = "", errLost
		tr.do("learned nothing", c, "b", returns("", nil))
		reconcile = tr.under(tr.span("learned nothing"), "idemflight reconcile")
		require.Equal(t, "hold", attributes(reconcile)["idemflight.disposition"])
		require.Equal(t, codes.Error, reconcile.Status.Code)
		require.Equal(t, "outcome_unknown", result(tr.span("learned nothing")))
		require.Empty(t, tr.spans("idemflight wait"), "it led")
		tr.do("told the same", c, "b", returns("", nil))
		require.Len(t, tr.span("told the same").Links, 1, "to the execution that left it unknown")

		hold("c")
		err = idemflight.Retryable(errLost)
		tr.do("had no effect", c, "c", returns("receipt", nil))
		request := tr.span("had no effect")
		require.Equal(t, "release", attributes(tr.under(request, "idemflight reconcile"))["idemflight.disposition"])
		require.Equal(t, "retain", attributes(tr.under(request, "idemflight execute"))["idemflight.disposition"])
		require.Equal(t, "executed", result(request))

		hold("d")
		found, err = "receipt", nil
		tr.request("operator", func(ctx context.Context) {
			_, err := c.Reconcile(ctx, "d")
			require.NoError(t, err)
		})
		tr.under(tr.span("operator"), "idemflight reconcile")
		require.Nil(t, result(tr.span("operator")), "it is no call")
	})
}

// TestTrace_NotSampled: nothing is exported, and a caller that is sampled links to the execution all the same.
func TestTrace_NotSampled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTraced(t, sdktrace.ParentBased(sdktrace.AlwaysSample()))
		c := tr.cache(options{})
		unsampled := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, Remote: true,
		}))
		fn := func(ctx context.Context) (string, error) {
			at := trace.SpanContextFromContext(ctx)
			require.Equal(t, trace.TraceID{1}, at.TraceID(), "fn is in its leader's trace")
			require.NotEqual(t, trace.SpanID{2}, at.SpanID())
			require.False(t, at.IsSampled())
			time.Sleep(time.Minute)
			return "receipt", nil
		}
		go func() { _, _ = c.Do(unsampled, "rent", fn) }()
		synctest.Wait()
		go func() { _, _ = c.Do(unsampled, "rent", fn) }()
		time.Sleep(time.Hour)
		_, err := c.Do(unsampled, "rent", fn)
		require.NoError(t, err)
		require.Empty(t, tr.all())

		e, _, err := c.Lookup(context.Background(), "rent")
		require.NoError(t, err)
		require.Equal(t, [16]byte{1}, e.Origin.TraceID)
		require.False(t, e.Origin.Sampled)
		tr.do("sampled", c, "rent", fn)
		link := tr.span("sampled").Links[0].SpanContext
		require.Equal(t, e.Origin.SpanID, [8]byte(link.SpanID()))
		require.False(t, link.IsSampled())
	})
}

// TestTrace_WithoutAnSDK: spans are passed on, and nothing else happens.
func TestTrace_WithoutAnSDK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := idemflight.New(idemotel.Trace(options{}, idemotel.Options[string]{TracerProvider: noop.NewTracerProvider()}))
		require.NoError(t, err)
		for range 2 {
			got, err := c.Do(context.Background(), "rent", returns("receipt", nil))
			require.NoError(t, err)
			require.Equal(t, "receipt", got)
		}
		e, _, err := c.Lookup(context.Background(), "rent")
		require.NoError(t, err)
		require.Nil(t, e.Origin)
		require.Zero(t, c.Stats().HookPanics)

		c = idemflight.MustNew(idemotel.Trace(options{}, idemotel.Options[string]{})) // the global one
		_, err = c.Do(context.Background(), "rent", returns("receipt", nil))
		require.NoError(t, err)
	})
}

// TestTrace_KeysAreSecrets unless Options.Key says what to tell of them.
func TestTrace_KeysAreSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, told := range []bool{false, true} {
			tr := newTraced(t, sdktrace.AlwaysSample())
			o := idemotel.Options[string]{TracerProvider: tr.provider, Name: "payments"}
			if told {
				o.Key = func(key string) []attribute.KeyValue { return []attribute.KeyValue{attribute.String("order", key)} }
			}
			c := idemflight.MustNew(idemotel.Trace(options{}, o))
			go tr.do("first", c, "s3cret", after(time.Second, "", idemflight.Unknown(errLost)))
			synctest.Wait()
			tr.do("joins", c, "s3cret", returns("", nil))
			tr.do("again", c, "s3cret", returns("", nil))
			for _, s := range tr.all() {
				ours := strings.HasPrefix(s.Name, "idemflight ")
				require.Equal(t, told && ours, attributes(s)["order"] == "s3cret", "%s has the key", s.Name)
				if !told {
					require.NotContains(t, s.Status.Description, "s3cret", s.Name)
					for _, v := range attributes(s) {
						require.NotEqual(t, "s3cret", v, s.Name)
					}
				}
			}
			require.Len(t, tr.spans("idemflight wait"), 1)
		}
	})
}

// TestTrace_OtherHooks: the Observer that was there hears every event, before the span of the call has its result.
func TestTrace_OtherHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTraced(t, sdktrace.AlwaysSample())
		var events []idemflight.Event[string]
		c := tr.cache(options{
			Observer: func(_ context.Context, e idemflight.Event[string]) { events = append(events, e) },
			Trace: func(ctx context.Context, _ string, _ bool) (context.Context, idemflight.Origin, func(idemflight.Event[string])) {
				t.Error("it should have been replaced")
				return ctx, idemflight.Origin{}, nil
			},
		})
		tr.do("first", c, "rent", returns("receipt", nil))
		tr.do("again", c, "rent", returns("", nil))
		require.Len(t, events, 2)
		require.Equal(t, idemflight.EventReplayed, events[1].Kind)
		require.Equal(t, [8]byte(tr.span("idemflight execute").SpanContext.SpanID()), events[1].Origin.SpanID)
	})
}

// TestTrace_WhatPanics ends its span all the same, and the cache contains it.
func TestTrace_WhatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTraced(t, sdktrace.AlwaysSample())
		end := func(err error) {
			_, _, ended := idemotel.Trace(options{}, idemotel.Options[string]{TracerProvider: tr.provider}).Trace(context.Background(), "rent", false)
			ended(idemflight.Event[string]{Disposition: idemflight.Hold, Err: err})
		}
		require.Panics(t, func() { end(badError{}) })
		require.Equal(t, "hold", attributes(tr.span("idemflight execute"))["idemflight.disposition"])

		c := idemflight.MustNew(idemotel.Trace(options{}, idemotel.Options[string]{
			TracerProvider: tr.provider, Key: func(string) []attribute.KeyValue { panic("Key") },
		}))
		got, err := c.Do(context.Background(), "rent", returns("receipt", nil))
		require.NoError(t, err)
		require.Equal(t, "receipt", got)
		require.Equal(t, uint64(1), c.Stats().HookPanics)
	})
}

type badError struct{}

func (badError) Error() string { panic("Error") }

// TestTrace_OtherEventsAreOfNoCall: upkeep and operators leave the span of their context as it is.
func TestTrace_OtherEventsAreOfNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTraced(t, sdktrace.AlwaysSample())
		c := tr.cache(options{})
		tr.do("holds", c, "rent", returns("", idemflight.Unknown(errLost)))
		tr.request("operator", func(ctx context.Context) {
			require.NoError(t, c.Resolve(ctx, "rent", "receipt", nil))
			_, err := c.Forget(ctx, "rent")
			require.NoError(t, err)
		})
		require.Empty(t, tr.span("operator").Attributes)
		require.Empty(t, tr.span("operator").Links)
	})
}

// TestTrace_AReplayThatIsNotRecordedAllocatesNothing: without a span, and with one that is not sampled.
func TestTrace_AReplayThatIsNotRecordedAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	tr := newTraced(t, sdktrace.ParentBased(sdktrace.AlwaysSample()))
	c := tr.cache(options{})
	fn := returns("receipt", nil)
	tr.do("first", c, "rent", fn)
	for name, ctx := range unrecorded() {
		require.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = c.Do(ctx, "rent", fn) }), name)
	}
	require.Len(t, tr.exporter.GetSpans(), 2)
}

// unrecorded are contexts of callers whose span is not recorded.
func unrecorded() map[string]context.Context {
	at := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
	never, _ := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())).Tracer("test").Start(context.Background(), "request")
	return map[string]context.Context{
		"no span":     context.Background(),
		"not sampled": never,
		"remote":      trace.ContextWithRemoteSpanContext(context.Background(), at),
	}
}
