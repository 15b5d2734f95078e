package idemflight

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
)

// Origin is the place of an execution in a distributed trace: a span, in the terms of W3C
// Trace Context (https://www.w3.org/TR/trace-context/). The zero Origin means that the
// execution was not traced.
type Origin struct {
	TraceID [16]byte
	SpanID  [8]byte
	Sampled bool
}

// originText is how long the text of an Origin is.
const originText = len("00-") + 32 + len("-") + 16 + len("-00")

// String returns the Origin in the form of the header traceparent:
// 00-<trace>-<span>-<flags>, in lower case.
func (o Origin) String() string {
	flags := byte(0)
	if o.Sampled {
		flags = 1
	}
	return fmt.Sprintf("00-%x-%x-%02x", o.TraceID, o.SpanID, flags)
}

// MarshalText returns what String does, and no error.
func (o Origin) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads what MarshalText wrote. Anything else is an error and changes nothing.
func (o *Origin) UnmarshalText(text []byte) error {
	var read Origin
	var flags [1]byte
	bad := len(text) != originText
	if !bad {
		_, err1 := hex.Decode(read.TraceID[:], text[3:35])
		_, err2 := hex.Decode(read.SpanID[:], text[36:52])
		_, err3 := hex.Decode(flags[:], text[53:])
		bad = errors.Join(err1, err2, err3) != nil
	}
	read.Sampled = flags[0]&1 != 0
	if bad || read.String() != string(text) {
		return fmt.Errorf("idemflight: %q is no origin, which is 00-<trace>-<span>-<flags> in lower case, with flags 00 or 01", text)
	}
	*o = read
	return nil
}

// trace tells Options.Trace that an execution begins, and returns the context for it.
func (end *ending[K, V]) trace() context.Context {
	c, f, e := end.c, end.flight, end.exec
	var values context.Context // what Trace returned, if it derives from e
	c.guard(func() {
		ctx, o, ends := c.opts.Trace(e, f.key, e.reconciling)
		end.traced = ends
		if o != (Origin{}) {
			end.origin = &o
		}
		if executionOf(ctx) == e {
			values = ctx
		}
	}, c.notePanic(f.key, &end.notes))
	s := c.shardOf(f.hash)
	s.mu.Lock()
	e.env.origin = end.origin
	s.mu.Unlock()
	if _, same := values.(*execution); same || values == nil {
		return e
	}
	return &traced{e, values}
}

// traced is an execution with the values that Trace has added. Its end and its deadline are those
// of the execution, even if Trace has derived a context with others.
type traced struct {
	*execution
	values context.Context
}

func (t *traced) Value(key any) any { return t.values.Value(key) }

// traceEnds calls the func that Trace returned: the execution has ended.
func (end *ending[K, V]) traceEnds() {
	c, f := end.c, end.flight
	e := Event[K]{Key: f.key, Err: end.err, Waiters: int(end.waiters), Disposition: Release, Led: true}
	if !end.yielded { // otherwise the flight goes on, and must not be read
		e = f.ended(EventExecuted)
		e.Led = !f.leaderLeft
	}
	e.Kind = EventExecuted
	if end.exec.reconciling {
		e.Kind = EventReconciled
	}
	e.Took, e.Origin = end.at-end.exec.started, end.origin
	c.guard(func() { end.traced(e) }, func(err error) {
		c.observe(context.Background(), Event[K]{Kind: EventPanicked, Key: f.key, Err: err})
	})
}
