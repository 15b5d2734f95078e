package idemflight_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

func TestNilAndUnhashableArgumentsPanicAtTheCall(t *testing.T) {
	type anyCache = idemflight.Cache[any, int]
	type composite struct{ of any }
	type fn = func(context.Context) (int, error)
	run := returns(1, nil)
	for name, bad := range map[string]struct {
		ctx  context.Context
		key  any
		fn   fn
		says []string
	}{
		"nil ctx":                   {nil, theKey, run, []string{"nil", "ctx|context"}},
		"nil fn":                    {context.Background(), theKey, nil, []string{"nil", "fn"}},
		"nil fn, dead ctx":          {dead(errEnough), theKey, nil, []string{"nil", "fn"}},
		"slice":                     {context.Background(), []int{1}, run, []string{"unhashable|not hashable|hash"}},
		"map":                       {context.Background(), map[string]int{}, run, []string{"unhashable|not hashable|hash"}},
		"func":                      {context.Background(), func() {}, run, []string{"unhashable|not hashable|hash"}},
		"slice in a struct":         {context.Background(), composite{[]int{1}}, run, []string{"unhashable|not hashable|hash"}},
		"slice in an array":         {context.Background(), [2]any{1, []int{1}}, run, []string{"unhashable|not hashable|hash"}},
		"slice in a struct, nested": {context.Background(), composite{composite{[]int{1}}}, run, []string{"unhashable|not hashable|hash"}},
	} {
		for state, put := range map[string]func(c *anyCache, gate *gate){
			"absent": func(*anyCache, *gate) {},
			"in flight": func(c *anyCache, gate *gate) {
				start(c, context.Background(), any(theKey), func(context.Context) (int, error) { gate.wait(); return 1, nil })
			},
			"retained": func(c *anyCache, _ *gate) { start(c, context.Background(), any(theKey), run) },
			"held": func(c *anyCache, _ *gate) {
				start(c, context.Background(), any(theKey), returns(0, idemflight.Unknown(errBoom)))
			},
		} {
			for _, closed := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, closed %v", name, state, closed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						events := 0
						c := idemflight.MustNew(idemflight.Options[any, int]{MaxEntries: 8, Observer: func(context.Context, idemflight.Event[any]) { events++ }})
						gate := newGate(t)
						put(c, gate)
						synctest.Wait()
						if closed {
							_ = c.Close(dead(errEnough))
						}
						before, told := c.Stats(), events
						wrapped := idemflight.Wrap(c, func(any) (any, idemflight.Fingerprint, error) { return bad.key, idemflight.Fingerprint{}, nil },
							func(context.Context, any) (int, error) { return 1, nil })
						for _, opts := range [][]idemflight.CallOption{nil, {idemflight.Inline()}, {idemflight.WithMaxWait(idemflight.NoWait)}, {idemflight.WithFingerprint(idemflight.Fingerprint{1})}} {
							for way, call := range map[string]func(){
								"Do":       func() { _, _ = c.Do(bad.ctx, bad.key, bad.fn, opts...) },
								"DoResult": func() { _, _ = c.DoResult(bad.ctx, bad.key, bad.fn, opts...) },
								"Wrap": func() {
									if bad.fn == nil { // Wrap has a test of its own for that
										panic("idemflight: nil fn")
									}
									_, _ = wrapped(bad.ctx, 1)
								},
							} {
								said := fmt.Sprint(panicOf(call))
								require.Regexp(t, "^idemflight: ", said, "%s must panic at the call, and say who does", way)
								for _, word := range bad.says {
									require.Regexp(t, "(?i)"+word, said, "the message must say what is wrong with the call of %s", way)
								}
							}
						}
						require.Equal(t, before, c.Stats(), "such a call counts nowhere, and leaves nothing behind")
						require.Equal(t, told, events, "such a call is no event")

						// The key stays usable.
						gate.open()
						synctest.Wait()
						v, err := c.Do(context.Background(), theKey, run)
						switch {
						case state == "held":
							require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
						case closed && state == "absent":
							require.ErrorIs(t, err, idemflight.ErrClosed)
						default:
							require.NoError(t, err)
							require.Equal(t, 1, v)
						}
					})
				})
			}
		}
	}
}

func TestUnhashableKeysLeaveNoLockHeldInOtherMethods(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[any, int]{})
	key := any([]int{1})
	now := time.Now()
	for name, call := range map[string]func(){
		"Lookup":  func() { c.Lookup(key) },
		"Forget":  func() { c.Forget(key) },
		"Resolve": func() { c.Resolve(key, 1, nil) },
		"Restore": func() {
			_ = c.Restore(key, idemflight.Entry[int]{State: idemflight.Retained, CompletedAt: now, ExpiresAt: now.Add(time.Hour)})
		},
	} {
		require.Regexp(t, `^idemflight: key of type \[\]int cannot be hashed`, fmt.Sprint(panicOf(call)), "%s with an unhashable key must panic", name)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 1000 {
			_, _ = c.Do(t.Context(), i+1, returns(1, nil))
		}
		c.Stats()
	}()
	soon(t, done, "calls after such panics")
}

// What is missing is said, and not left to whatever would trip over it later.
func TestWhatIsMissingIsNamed(t *testing.T) {
	var none context.Context
	c := idemflight.MustNew(options{})
	key := func(string) (string, idemflight.Fingerprint, error) { return "", idemflight.Fingerprint{}, nil }
	fn := func(context.Context, string) (int, error) { return 1, nil }
	for want, call := range map[string]func(){
		"Cache must be made by New":              func() { _, _ = new(cache).Do(context.Background(), theKey, returns(1, nil)) },
		"Close called with a nil context":        func() { _ = c.Close(none) },
		"Wrap called with a nil Cache":           func() { idemflight.Wrap(nil, key, fn) },
		"Wrap called with a nil key function":    func() { idemflight.Wrap(c, nil, fn) },
		"Wrap called with a nil fn":              func() { idemflight.Wrap[string](c, key, nil) },
		"a call through Wrap with a nil context": func() { _, _ = idemflight.Wrap(c, key, fn)(none, "") },
		"Do called with a nil context":           func() { _, _ = c.Do(none, theKey, returns(1, nil)) },
		"Do called with a nil fn":                func() { _, _ = c.Do(context.Background(), theKey, nil) },
	} {
		require.Equal(t, "idemflight: "+want, fmt.Sprint(panicOf(call)))
	}
	require.Equal(t, idemflight.Stats{}, c.Stats())
}
