package idemflight_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// allLevels logs to out whatever its level.
func allLevels(out *bytes.Buffer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func TestLogEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		c := idemflight.MustNew(options{Observer: idemflight.LogEvents[string](allLevels(&out))})
		executes(t, c, "a", 1)
		replays(t, c, "a")
		hold(t, c, "b")
		_, _ = c.Do(bg, "b", neverRuns(t))
		_, _ = c.Do(dead(context.Canceled), "c", neverRuns(t))
		want := [][3]string{{"executed", "a", "DEBUG"}, {"replayed", "a", "DEBUG"}, {"executed", "b", "WARN"},
			{"rejected", "b", "WARN"}, {"caller_left", "c", "DEBUG"}}
		lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
		require.Len(t, lines, len(want), "one record per event:\n%s", out.String())
		for i, line := range lines {
			var rec map[string]any
			require.NoError(t, json.Unmarshal(line, &rec))
			require.Equal(t, want[i], [3]string{rec["event"].(string), rec["key"].(string), rec["level"].(string)})
			require.NotContains(t, string(line), "!BADKEY")
		}
		require.Contains(t, string(lines[3]), errBoom.Error(), "the log says why a call was rejected")
	})
}

func TestLogEvents_LevelMessageAndFields(t *testing.T) {
	type (
		event  = idemflight.Event[string]
		fields = map[string]any
	)
	const debug, info, warn, fatal = "DEBUG", "INFO", "WARN", "ERROR"
	unknown := fmt.Errorf("%w: %w", idemflight.ErrOutcomeUnknown, errBoom)
	panicked := &idemflight.PanicError{Value: "v", Stack: []byte("goroutine 1")}
	c := idemflight.MustNew(options{})
	panicOf(func() { _, _ = c.Do(bg, theKey, func(context.Context) (int, error) { panic("v") }) })
	_, heldByPanic := c.Do(bg, theKey, neverRuns(t))
	why := func(err error) fields { return fields{"err": err.Error()} }
	rejected := func(err error) event { return event{Kind: idemflight.EventRejected, Err: err} }
	for _, tt := range []struct {
		e              event
		level, message string
		want           fields // beside event and key
	}{
		{event{Kind: idemflight.EventExecuted, Took: time.Second, Waiters: 2, Disposition: idemflight.Retain},
			debug, "executed", fields{"took": 1e9, "waiters": 2., "disposition": "retain"}},
		{event{Kind: idemflight.EventExecuted, Err: errBoom},
			debug, "executed, not kept", fields{"disposition": "release", "err": errBoom.Error()}},
		{event{Kind: idemflight.EventExecuted, Err: unknown, Disposition: idemflight.Hold},
			warn, "key held", fields{"disposition": "hold", "err": unknown.Error()}},
		{event{Kind: idemflight.EventExecuted, Err: fmt.Errorf("x: %w", panicked), Disposition: idemflight.Hold},
			warn, "key held", fields{"disposition": "hold", "err": "x: " + panicked.Error(), "stack": "goroutine 1"}}, // another's
		{event{Kind: idemflight.EventExecuted, Err: heldByPanic, Disposition: idemflight.Hold},
			fatal, "key held, execution panicked", fields{"disposition": "hold", "err": heldByPanic.Error()}},
		{event{Kind: idemflight.EventExecuted, Err: &idemflight.PanicError{Value: "v"}},
			fatal, "execution panicked", fields{"disposition": "release", "err": (&idemflight.PanicError{Value: "v"}).Error()}},
		{event{Kind: idemflight.EventExecuted, Err: idemflight.ErrGoexit},
			fatal, "execution panicked", fields{"disposition": "release", "err": idemflight.ErrGoexit.Error()}},
		{event{Kind: idemflight.EventFinished, Disposition: idemflight.Retain}, debug, "finished without its leader", fields{"disposition": "retain"}},
		{event{Kind: idemflight.EventFinished, Disposition: idemflight.Hold, Err: errBoom}, warn, "key held", fields{"disposition": "hold", "err": errBoom.Error()}},
		{event{Kind: idemflight.EventReconciled, Disposition: idemflight.Retain}, info, "reconciled", fields{"disposition": "retain"}},
		{event{Kind: idemflight.EventJoined, Took: 5}, debug, "joined", fields{"took": 5.}},
		{event{Kind: idemflight.EventJoined, Err: errBoom}, debug, "joined", why(errBoom)},
		{event{Kind: idemflight.EventJoined, Err: unknown}, warn, "joined, outcome unknown", why(unknown)},
		{event{Kind: idemflight.EventReplayed}, debug, "replayed", nil},
		{event{Kind: idemflight.EventCallerLeft, Err: idemflight.ErrCallerLeft}, debug, "caller left", why(idemflight.ErrCallerLeft)},
		{rejected(idemflight.ErrKeyReused), debug, "rejected, key reused", why(idemflight.ErrKeyReused)},
		{rejected(idemflight.ErrInFlight), debug, "rejected, in flight", why(idemflight.ErrInFlight)},
		{rejected(idemflight.ErrReentrant), debug, "rejected, reentrant", why(idemflight.ErrReentrant)},
		{rejected(idemflight.ErrInvalidKey), debug, "rejected, invalid key", why(idemflight.ErrInvalidKey)},
		{rejected(unknown), warn, "rejected, outcome unknown", why(unknown)},
		{rejected(errors.Join(idemflight.ErrInFlight, unknown)), warn, "rejected, outcome unknown", why(errors.Join(idemflight.ErrInFlight, unknown))},
		{rejected(idemflight.ErrValueShed), warn, "rejected, value shed", why(idemflight.ErrValueShed)},
		{rejected(idemflight.ErrFull), warn, "rejected, full", why(idemflight.ErrFull)},
		{rejected(idemflight.ErrClosed), warn, "rejected, closed", why(idemflight.ErrClosed)},
		{rejected(errBoom), warn, "rejected", why(errBoom)},
		{event{Kind: idemflight.EventExpired}, info, "expired", nil},
		{event{Kind: idemflight.EventExpired, Err: unknown}, warn, "held key expired", why(unknown)},
		{event{Kind: idemflight.EventEvicted}, warn, "evicted", nil},
		{event{Kind: idemflight.EventEvicted, Err: unknown}, warn, "held key evicted", why(unknown)},
		{event{Kind: idemflight.EventShed}, warn, "value shed", nil},
		{event{Kind: idemflight.EventPanicked, Err: panicked}, fatal, "hook panicked", fields{"err": panicked.Error(), "stack": "goroutine 1"}},
		{event{Kind: idemflight.EventPanicked, Err: idemflight.ErrGoexit}, fatal, "hook panicked", why(idemflight.ErrGoexit)},
		{event{Kind: idemflight.EventForgotten}, info, "forgotten", nil},
		{event{Kind: idemflight.EventResolved, Disposition: idemflight.Retain}, info, "resolved", fields{"disposition": "retain"}},
		{event{Kind: idemflight.EventResolved, Disposition: idemflight.Hold, Err: errBoom}, warn, "held key not reconciled", fields{"disposition": "hold", "err": errBoom.Error()}},
		{event{Kind: idemflight.EventStore, Err: errBoom}, warn, "store failed", why(errBoom)},
		{event{Kind: idemflight.EventUnannounced}, warn, "effect not announced", nil},
		{event{Kind: 99}, warn, "unknown event", nil},
	} {
		for _, asDefault := range []bool{false, true} {
			var out bytes.Buffer
			logger := allLevels(&out)
			if asDefault {
				before := slog.Default()
				slog.SetDefault(logger)
				defer slog.SetDefault(before)
				logger = nil
			}
			tt.e.Key = "k"
			idemflight.LogEvents[string](logger)(bg, tt.e)
			want := fields{"level": tt.level, "msg": "idemflight: " + tt.message, "event": tt.e.Kind.String(), "key": "k"}
			maps.Copy(want, tt.want)
			var got fields
			require.NoError(t, json.Unmarshal(out.Bytes(), &got), "%v", tt.e)
			delete(got, "time")
			require.Equal(t, want, got, "%v, of the default logger %v", tt.e, asDefault)
		}
	}
}

func TestLogEvents_EveryKindOfEvent(t *testing.T) {
	var out bytes.Buffer
	observe := idemflight.LogEvents[idemflight.Key](allLevels(&out))
	for k := idemflight.EventExecuted; k <= idemflight.EventUnannounced; k++ {
		for _, err := range []error{nil, errBoom, fmt.Errorf("x: %w", idemflight.ErrOutcomeUnknown), &idemflight.PanicError{Value: "v"}} {
			out.Reset()
			observe(bg, idemflight.Event[idemflight.Key]{Kind: k, Key: idemflight.Key{Scope: "s", ID: "i"}, Err: err, Took: time.Second, Waiters: 2, Disposition: idemflight.Hold})
			var rec map[string]any
			require.NoError(t, json.Unmarshal(out.Bytes(), &rec), "one record for %v", k)
			require.Equal(t, k.String(), rec["event"])
			require.Equal(t, map[string]any{"scope": "s", "id": "i"}, rec["key"])
			require.Regexp(t, "^idemflight: [a-z]", rec["msg"])
			require.NotContains(t, rec["msg"], "unknown event")
		}
	}
}

// A level that the logger does not want is not made ready for it.
func TestLogEvents_CostsNothingWhereNobodyListens(t *testing.T) {
	var out bytes.Buffer
	observe := idemflight.LogEvents[int](slog.New(slog.NewTextHandler(&out, nil)))
	e := idemflight.Event[int]{Kind: idemflight.EventReplayed, Key: 1 << 20, Took: time.Second}
	require.Zero(t, testing.AllocsPerRun(100, func() { observe(bg, e) }))
	require.Empty(t, out.String(), "a replay is of level Debug")
}

func TestJoinObservers_AllHearEveryEventInOrder(t *testing.T) {
	var heard []string
	hears := func(name string) func(context.Context, idemflight.Event[string]) {
		return func(ctx context.Context, e idemflight.Event[string]) {
			heard = append(heard, fmt.Sprint(name, " ", e.Key, " ", ctx.Value(nameKey{})))
		}
	}
	ctx := context.WithValue(bg, nameKey{}, "ctx")
	e := idemflight.Event[string]{Key: "k"}
	idemflight.JoinObservers(nil, hears("a"), nil, hears("b"), hears("c"), nil)(ctx, e)
	require.Equal(t, []string{"a k ctx", "b k ctx", "c k ctx"}, heard)

	heard = nil
	idemflight.JoinObservers(nil, hears("a"))(ctx, e)
	require.Equal(t, []string{"a k ctx"}, heard)
	require.NotPanics(t, func() { idemflight.JoinObservers[string](nil, nil)(ctx, e) })
	require.NotPanics(t, func() { idemflight.JoinObservers[string]()(ctx, e) })
}

// Nobody's panic or Goexit keeps the others from hearing, and the cache counts one for the event.
func TestJoinObservers_AllHearAlsoIfSomePanicOrExit(t *testing.T) {
	type observer = func(context.Context, idemflight.Event[string])
	panics := func(v string) observer { return func(context.Context, idemflight.Event[string]) { panic(v) } }
	exits := func(context.Context, idemflight.Event[string]) { runtime.Goexit() }
	for name, tt := range map[string]struct {
		observers func(hears observer) []observer
		panic     any
	}{
		"the first":          {func(h observer) []observer { return []observer{panics("1"), h, h} }, "1"},
		"one in the middle":  {func(h observer) []observer { return []observer{h, panics("1"), h} }, "1"},
		"the last":           {func(h observer) []observer { return []observer{h, h, panics("1")} }, "1"},
		"several":            {func(h observer) []observer { return []observer{panics("1"), h, panics("2"), h, panics("3")} }, "1"},
		"Goexit":             {func(h observer) []observer { return []observer{exits, h, h} }, nil},
		"Goexit, then panic": {func(h observer) []observer { return []observer{exits, h, panics("2"), h} }, nil},
		"panic, then Goexit": {func(h observer) []observer { return []observer{panics("1"), h, exits, h} }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var heard []string
			joined := idemflight.JoinObservers(tt.observers(func(_ context.Context, e idemflight.Event[string]) { heard = append(heard, e.Key) })...)
			done := make(chan any)
			go func() {
				defer func() { done <- recover() }()
				joined(bg, idemflight.Event[string]{Key: "k"})
				require.Fail(t, "the panic or Goexit goes on")
			}()
			require.Equal(t, tt.panic, <-done, "the first panic goes on")
			require.Equal(t, "k k", strings.Join(heard, " "))

			heard = nil
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(options{Observer: joined})
				call := start(c, bg, theKey, one)
				synctest.Wait()
				require.Equal(t, tt.panic == nil, call.exited)
				require.EqualValues(t, 1, c.Stats().HookPanics, "one for the event")
				require.Equal(t, "k k", strings.Join(heard, " "))
			})
		})
	}
}
