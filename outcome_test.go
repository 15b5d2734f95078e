package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// dispositions are the three of them.
var dispositions = []idemflight.Disposition{idemflight.Release, idemflight.Retain, idemflight.Hold}

// requireNoMarker fails if err speaks to an execution whose fn returns it: without a marker
// Classify is asked, and its answer, whichever of the three it is, is what counts.
func requireNoMarker(t *testing.T, err error, what string) {
	t.Helper()
	require.Error(t, err, "%s: an error was expected", what)
	for _, want := range dispositions {
		c := idemflight.MustNew(options{
			MaxEntries: fewEntries,
			Classify:   func(error) idemflight.Disposition { return want },
		})
		for _, returned := range []error{err, fmt.Errorf("around: %w", err)} {
			_, _ = c.Do(context.Background(), theKey, returns(0, returned))
			require.Equal(t, want, dispositionOf(t, c, theKey),
				"%s: must bear no marker for an execution around it, whose Classify then decides", what)
			forget(c, theKey)
		}
	}
}

// markers are the markers and what each decides.
var markers = []struct {
	name string
	mark func(error) error
	want idemflight.Disposition
}{
	{"Final", idemflight.Final, idemflight.Retain},
	{"Retryable", idemflight.Retryable, idemflight.Release},
	{"Unknown", idemflight.Unknown, idemflight.Hold},
}

// effects are what fn can say about its effect before it fails, and what an unmarked error,
// panic or Goexit is by that.
var effects = []struct {
	name string
	say  func(context.Context)
	want idemflight.Disposition // of what is unmarked
	ask  bool                   // Classify decides instead
}{
	{"said nothing", func(context.Context) {}, idemflight.Release, true},
	{"after BeginEffect", func(ctx context.Context) { _ = idemflight.BeginEffect(ctx) }, idemflight.Hold, false},
	{"after NoEffect", idemflight.NoEffect, idemflight.Release, false},
}

// Promise 11: A nil error is retained. A marker (Final, Retryable, Unknown) decides what becomes of
// an error, through wrapping and joins, and only for the cache whose fn returned it: nobody outside
// sees it.
func TestPromise11_NilErrorIsRetained(t *testing.T) {
	for _, effect := range effects {
		for _, v := range []int{7, 0} {
			asked := 0
			c := idemflight.MustNew(options{Classify: func(error) idemflight.Disposition {
				asked++
				return idemflight.Hold
			}})
			got, err := c.Do(context.Background(), theKey, func(ctx context.Context) (int, error) {
				effect.say(ctx)
				return v, nil
			})
			require.NoError(t, err, "success %s", effect.name)
			require.Equal(t, v, got, "the value of a success %s", effect.name)
			require.Equal(t, idemflight.Retain, dispositionOf(t, c, theKey),
				"a nil error %s must be retained", effect.name)
			res, err := c.DoResult(context.Background(), theKey, neverRuns(t))
			require.NoError(t, err, "replay of a success %s", effect.name)
			require.Equal(t, v, res.Value, "replayed value of a success %s", effect.name)
			require.Equal(t, idemflight.Replayed, res.Source, "source of the second call")
			require.Zero(t, asked, "Classify must not be asked about a nil error")
		}
	}
}

func TestPromise11_MarkerDecidesWhateverEffectAndClassifySay(t *testing.T) {
	for _, m := range markers {
		for _, effect := range effects {
			for _, classify := range dispositions {
				t.Run(fmt.Sprintf("%s/%s/Classify says %v", m.name, effect.name, classify), func(t *testing.T) {
					asked := 0
					c := idemflight.MustNew(options{Classify: func(error) idemflight.Disposition {
						asked++
						return classify
					}})
					cause := errors.New("declined")
					v, err := c.Do(context.Background(), theKey, func(ctx context.Context) (int, error) {
						effect.say(ctx)
						return 7, m.mark(cause)
					})
					require.ErrorIs(t, err, cause, "the caller must get the error that was marked")
					require.Equal(t, 7, v, "the value must be returned along with the error")
					require.Equal(t, m.want, dispositionOf(t, c, theKey),
						"the marker alone must decide")
					require.Zero(t, asked, "Classify must not be asked about a marked error")
				})
			}
		}
	}
}

// wrapError wraps one error and has identity, so that errors.As can take it out again.
type wrapError struct {
	text string
	err  error
}

func (w *wrapError) Error() string { return w.text + ": " + w.err.Error() }
func (w *wrapError) Unwrap() error { return w.err }

// treeError wraps several errors by a method of its own.
type treeError struct{ parts []error }

func (e *treeError) Error() string   { return fmt.Sprintf("tree of %d", len(e.parts)) }
func (e *treeError) Unwrap() []error { return e.parts }

// judged has fn return err from a fresh cache with the given Classify and reports what became of
// it.
func judged(t *testing.T, err error, effect func(context.Context), classify func(error) idemflight.Disposition) idemflight.Disposition {
	t.Helper()
	c := idemflight.MustNew(options{MaxEntries: fewEntries, Classify: classify})
	_, got := c.Do(context.Background(), theKey, func(ctx context.Context) (int, error) {
		effect(ctx)
		return 0, err
	})
	require.Error(t, got, "an error of fn must reach the caller")
	return dispositionOf(t, c, theKey)
}

func TestPromise11_MarkerWorksThroughWrapping(t *testing.T) {
	wraps := map[string]func(error) error{
		"fmt.Errorf":      func(err error) error { return fmt.Errorf("charge: %w", err) },
		"twice":           func(err error) error { return fmt.Errorf("a: %w", fmt.Errorf("b: %w", err)) },
		"own type":        func(err error) error { return &wrapError{"bank", err} },
		"url.Error":       func(err error) error { return &url.Error{Op: "Post", URL: "http://bank", Err: err} },
		"net.OpError":     func(err error) error { return &net.OpError{Op: "dial", Err: err} },
		"join of one":     func(err error) error { return errors.Join(err) },
		"join, nil parts": func(err error) error { return &treeError{[]error{nil, err, nil}} },
		"wrapped join":    func(err error) error { return fmt.Errorf("x: %w", errors.Join(nil, err)) },
		"join of wrapped": func(err error) error { return errors.Join(fmt.Errorf("x: %w", &wrapError{"y", err})) },
		"in ErrFull":      func(err error) error { return fmt.Errorf("%w: %w", idemflight.ErrFull, err) },
		"beside a nil":    func(err error) error { return fmt.Errorf("%w: %w", err, error(nil)) },
	}
	for name, wrap := range wraps {
		for _, m := range markers {
			// Around a Release nothing that an unmarked part could turn into something else.
			err := wrap(m.mark(errors.New("declined")))
			contrary := func(error) idemflight.Disposition { return idemflight.Release }
			require.Equal(t, m.want, judged(t, err, func(context.Context) {}, contrary),
				"%s inside %s must decide", m.name, name)
		}
	}
}

func TestPromise11_OutermostMarkerWins(t *testing.T) {
	for _, outer := range markers {
		for _, inner := range markers {
			cause := errors.New("declined")
			for shape, err := range map[string]error{
				"directly":          outer.mark(inner.mark(cause)),
				"with text between": outer.mark(fmt.Errorf("between: %w", inner.mark(cause))),
				"wrapped":           fmt.Errorf("around: %w", outer.mark(fmt.Errorf("between: %w", inner.mark(cause)))),
				"around a join":     outer.mark(errors.Join(inner.mark(cause), errors.New("other"))),
				"thrice":            outer.mark(inner.mark(outer.mark(inner.mark(cause)))),
			} {
				got := judged(t, err, func(context.Context) {}, nil)
				require.Equal(t, outer.want, got,
					"%s around %s, %s: the outermost must win", outer.name, inner.name, shape)
			}
		}
	}
}

func TestPromise11_AmongJoinedErrorsHoldBeatsRetainBeatsRelease(t *testing.T) {
	final, retryable, unknown := idemflight.Final(errors.New("final")), idemflight.Retryable(errors.New("retryable")), idemflight.Unknown(errors.New("unknown"))
	for name, c := range map[string]struct {
		parts []error
		want  idemflight.Disposition
	}{
		"final, retryable":          {[]error{final, retryable}, idemflight.Retain},
		"final, unknown":            {[]error{final, unknown}, idemflight.Hold},
		"retryable, unknown":        {[]error{retryable, unknown}, idemflight.Hold},
		"all":                       {[]error{retryable, final, unknown}, idemflight.Hold},
		"final twice":               {[]error{final, final}, idemflight.Retain},
		"retryable twice":           {[]error{retryable, retryable}, idemflight.Release},
		"wrapped parts":             {[]error{fmt.Errorf("a: %w", retryable), fmt.Errorf("b: %w", final)}, idemflight.Retain},
		"outermost within a part":   {[]error{idemflight.Retryable(unknown), final}, idemflight.Retain},
		"join within a join":        {[]error{errors.Join(retryable, unknown), final}, idemflight.Hold},
		"join deep within wrapping": {[]error{fmt.Errorf("x: %w", errors.Join(retryable, final)), retryable}, idemflight.Retain},
	} {
		for i := range c.parts {
			// The order of the parts must not matter: each of them comes first once.
			parts := append(append([]error{}, c.parts[i:]...), c.parts[:i]...)
			never := func(error) idemflight.Disposition { return idemflight.Disposition(99) }
			quiet := func(context.Context) {}
			require.Equal(t, c.want, judged(t, errors.Join(parts...), quiet, never),
				"%s, errors.Join, part %d first", name, i)
			require.Equal(t, c.want, judged(t, &treeError{parts}, quiet, never),
				"%s, Unwrap() []error, part %d first", name, i)
			require.Equal(t, c.want, judged(t, fmt.Errorf("x: %w", &treeError{parts}), quiet, never), "%s, wrapped, part %d first", name, i)
		}
	}
}

func TestPromise11_UnmarkedPartsOfAJoinAreJudgedEachAlone(t *testing.T) {
	plain, other := errors.New("plain"), errors.New("other")
	for _, m := range markers {
		for _, effect := range effects {
			for _, says := range dispositions {
				name := fmt.Sprintf("%s beside an unmarked error, %s, Classify says %v", m.name, effect.name, says)
				unmarked := effect.want
				if effect.ask {
					unmarked = says
				}
				// Disposition's own order is nobody's business here: the beats relation is.
				want := idemflight.Release
				for _, d := range []idemflight.Disposition{m.want, unmarked} {
					if d == idemflight.Hold || (d == idemflight.Retain && want == idemflight.Release) {
						want = d
					}
				}
				var asked []error
				classify := func(err error) idemflight.Disposition {
					asked = append(asked, err)
					return says
				}
				got := judged(t, errors.Join(plain, m.mark(errors.New("marked"))), effect.say, classify)
				require.Equal(t, want, got, name)
				switch {
				case !effect.ask:
					require.Empty(t, asked, "%s: Classify must not be asked", name)
				case m.want != idemflight.Hold: // beside a Hold nobody needs to ask
					require.Equal(t, []error{plain}, asked,
						"%s: Classify must be asked about the unmarked part alone", name)
				}
			}
		}
	}

	// Each alone: the one that is ambiguous holds, though the other one would be released.
	var asked []error
	classify := func(err error) idemflight.Disposition {
		asked = append(asked, err)
		return idemflight.ClassifyLenient(err)
	}
	got := judged(t, errors.Join(plain, idemflight.Retryable(errors.New("marked")), other), func(context.Context) {}, classify)
	require.Equal(t, idemflight.Release, got, "two harmless unmarked parts beside a Retryable")
	require.ElementsMatch(t, []error{plain, other}, asked,
		"each unmarked part must be judged alone")
	got = judged(t, errors.Join(plain, idemflight.Final(errors.New("marked")), io.EOF), func(context.Context) {}, nil)
	require.Equal(t, idemflight.Hold, got, "an ambiguous unmarked part beside a Final")

	// With no marker in any part, the join is one error without marker: Classify sees it whole.
	asked = nil
	whole := errors.Join(plain, other)
	require.Equal(t, idemflight.Release, judged(t, whole, func(context.Context) {}, classify),
		"join without markers")
	require.Equal(t, []error{whole}, asked,
		"a join that bears no marker must be given to Classify as fn returned it")
}

// errors.Join leaves out what is nil; a join of one's own may not.
func TestPromise11_NilPartsOfAJoinAreNotJudged(t *testing.T) {
	for _, marked := range []error{idemflight.Final(errTeapot), idemflight.Retryable(errTeapot)} {
		require.NotEqual(t, idemflight.Hold, judged(t, &treeError{[]error{nil, marked, nil}}, func(context.Context) {}, func(err error) idemflight.Disposition {
			t.Errorf("Classify was asked about %v", err)
			return idemflight.Hold
		}))
	}
}

func TestPromise11_SearchNeverEntersAPanicError(t *testing.T) {
	for _, m := range markers {
		marked := &idemflight.PanicError{Value: m.mark(errors.New("inside"))}
		for name, err := range map[string]error{
			"itself":  marked,
			"wrapped": fmt.Errorf("inner: %w", marked),
			"joined":  errors.Join(errors.New("other"), marked),
		} {
			asked := 0
			for _, says := range dispositions {
				got := judged(t, err, func(context.Context) {}, func(error) idemflight.Disposition { asked++; return says })
				require.Equal(t, says, got,
					"%s in a *PanicError that fn returned, %s: Classify must decide", m.name, name)
			}
			require.Equal(t, 3, asked,
				"%s in a *PanicError that fn returned, %s: calls of Classify", m.name, name)
		}
		// A marker in the panic's value does not save it from being ambiguous either.
		c := idemflight.MustNew(options{})
		require.Panics(t, func() {
			_, _ = c.Do(context.Background(), theKey, func(context.Context) (int, error) { panic(m.mark(errors.New("inside"))) })
		}, "the leader must panic with fn's panic")
		require.Equal(t, idemflight.Hold, dispositionOf(t, c, theKey),
			"a panic with %s is a panic, and held", m.name)
	}
}

// codeError is an error with data, found by errors.As, and with Is and As methods of its own.
type codeError struct{ code int }

var errTeapot = errors.New("teapot")

func (e *codeError) Error() string        { return fmt.Sprintf("code %d", e.code) }
func (e *codeError) StatusCode() int      { return e.code }
func (e *codeError) Is(target error) bool { return target == errTeapot && e.code == 418 }

func (e *codeError) As(target any) bool {
	if p, ok := target.(*numberError); ok {
		*p = numberError(e.code)
		return true
	}
	return false
}

type numberError int

func (numberError) Error() string { return "number" }

func TestPromise11_CallersAndRecordsGetTheMarkedErrorItself(t *testing.T) {
	for _, m := range markers {
		synctest.Test(t, func(t *testing.T) {
			var seen []error
			events := &eventLog[string]{}
			c := idemflight.MustNew(options{
				Observer: events.observe,
				Reconcile: func(_ context.Context, _ string, held idemflight.Entry[int]) (int, error) {
					seen = append(seen, held.Err)
					return 9, nil
				},
			})
			cause := &codeError{418}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			fn := func(context.Context) (int, error) {
				time.Sleep(time.Second)
				return 7, m.mark(cause)
			}
			leader := start(c, ctx, theKey, fn)
			synctest.Wait()
			joined := start(c, ctx, theKey, neverRuns(t))
			time.Sleep(2 * time.Second)
			synctest.Wait()

			for who, call := range map[string]*pending[int]{"leader": leader, "joined": joined} {
				require.True(t, call.returned(), "%s must have its answer", who)
				require.Equal(t, 7, call.res.Value, "%s, %s: fn's value", m.name, who)
				if m.want == idemflight.Hold {
					require.ErrorIs(t, call.err, idemflight.ErrOutcomeUnknown,
						"%s, %s", m.name, who)
					require.ErrorIs(t, call.err, error(cause),
						"%s, %s: must wrap the marked error", m.name, who)
				} else {
					require.True(t, call.err == error(cause), "%s, %s: must get the very error that was marked, got %#v", m.name, who, call.err)
				}
				requireNoMarker(t, call.err, m.name+", "+who)
			}
			if entry, ok := lookup(c, theKey); ok {
				require.True(t, entry.Err == error(cause),
					"%s: Entry.Err must be the marked error itself, got %#v", m.name, entry.Err)
				for _, e := range c.All() {
					require.True(t, e.Err == error(cause), "%s: All's Entry.Err must be the marked error itself, got %#v", m.name, e.Err)
				}
			}
			for _, ev := range events.of() {
				require.ErrorIs(t, ev.Err, error(cause),
					"%s: %v: Event.Err is what the call returned", m.name, ev.Kind)
				requireNoMarker(t, ev.Err, fmt.Sprintf("%s: Event.Err of %v", m.name, ev.Kind))
			}
			if m.want == idemflight.Retain {
				v, err := c.Do(t.Context(), theKey, neverRuns(t))
				require.Equal(t, 7, v, "replayed value beside an error")
				require.True(t, err == error(cause),
					"the replay must give the marked error itself, got %#v", err)
			}
			if m.want == idemflight.Hold {
				v, err := c.Do(t.Context(), theKey, neverRuns(t))
				require.NoError(t, err, "Reconcile found a value")
				require.Equal(t, 9, v, "the value Reconcile found")
				require.Len(t, seen, 1, "runs of Reconcile")
				require.True(t, seen[0] == error(cause),
					"Reconcile must see the marked error itself, got %#v", seen[0])
			}
		})
	}
}

func TestPromise11_MarkerDeeperInsideIsTakenOutOfAnErrorOfTheSameText(t *testing.T) {
	shapes := map[string]func(marked error) error{
		"fmt.Errorf":   func(err error) error { return fmt.Errorf("charge 12: %w", err) },
		"own type":     func(err error) error { return &wrapError{"bank", err} },
		"join":         func(err error) error { return errors.Join(errors.New("log"), err) },
		"Unwrap many":  func(err error) error { return &treeError{[]error{err, errors.New("log")}} },
		"wrapped join": func(err error) error { return fmt.Errorf("a: %w", errors.Join(err, errors.New("log"))) },
		"two markers":  func(err error) error { return fmt.Errorf("a: %w", idemflight.Retryable(fmt.Errorf("b: %w", err))) },
		"marked above": func(err error) error { return idemflight.Final(fmt.Errorf("b: %w", err)) },
	}
	for name, shape := range shapes {
		for _, m := range markers {
			what := m.name + " in " + name
			cause := &codeError{418}
			wrap := &wrapError{"charge", m.mark(cause)}
			own := shape(wrap)
			c := idemflight.MustNew(options{})
			_, got := c.Do(context.Background(), theKey, returns(0, own))

			entry, kept := lookup(c, theKey)
			answers := map[string]error{"the caller's error": got}
			if kept {
				answers["the record's error"] = entry.Err
				_, again := c.Do(context.Background(), theKey, neverRuns(t))
				answers["the next caller's error"] = again
			}
			for which, err := range answers {
				require.Error(t, err, "%s: %s", what, which)
				if !errors.Is(err, idemflight.ErrOutcomeUnknown) {
					require.Equal(t, own.Error(), err.Error(),
						"%s: %s must have the text of fn's", what, which)
				}
				require.ErrorIs(t, err, error(cause),
					"%s: %s: errors.Is must find what was marked", what, which)
				require.ErrorIs(t, err, error(wrap),
					"%s: %s: errors.Is must find what is around the marker", what, which)
				require.ErrorIs(t, err, errTeapot,
					"%s: %s: errors.Is must ask Is methods", what, which)
				require.NotErrorIs(t, err, io.EOF,
					"%s: %s: errors.Is must not find what is not there", what, which)
				var code *codeError
				require.ErrorAs(t, err, &code,
					"%s: %s: errors.As must find what was marked", what, which)
				require.Same(t, cause, code, "%s: %s: what errors.As finds", what, which)
				var number numberError
				require.ErrorAs(t, err, &number,
					"%s: %s: errors.As must ask As methods", what, which)
				require.Equal(t, numberError(418), number,
					"%s: %s: what As methods give", what, which)
				var status interface{ StatusCode() int }
				require.True(t, errors.As(err, &status),
					"%s: %s: errors.As with an interface", what, which)
				var around *wrapError
				require.ErrorAs(t, err, &around,
					"%s: %s: errors.As must find what is around the marker", what, which)
				if name != "own type" { // there the outer of two *wrapError is found
					require.Same(t, wrap, around,
						"%s: %s: what errors.As takes out is fn's own", what, which)
				}
				var none *net.OpError
				require.False(t, errors.As(err, &none),
					"%s: %s: errors.As must not find what is not there", what, which)
				requireNoMarker(t, err, what+": "+which)
				if name != "own type" && name != "two markers" && name != "marked above" {
					// Taken out of it, it is fn's own again, marker and all.
					require.Equal(t, m.want, judged(t, around, func(context.Context) {}, nil),
						"%s: %s: what errors.As takes out", what, which)
				}
			}
			if name != "marked above" { // there the marked error is the answer, and not what fn returned
				require.ErrorIs(t, got, own,
					"%s: errors.Is must find fn's own error, as on fn's own", what)
			}
		}
	}
}

// What is left after the marker is gone must still be read right by a classifier: a transient
// failure that the inner fn called Retryable is, to an execution around it, what it is.
func TestPromise11_WithoutItsMarkerAnErrorIsClassifiedByWhatIsInIt(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: errors.New("refused")}
	for name, c := range map[string]struct {
		err  error
		want idemflight.Disposition
	}{
		"deadline":             {fmt.Errorf("x: %w", idemflight.Retryable(context.DeadlineExceeded)), idemflight.Hold},
		"cut answer":           {fmt.Errorf("x: %w", idemflight.Final(io.ErrUnexpectedEOF)), idemflight.Hold},
		"plain":                {fmt.Errorf("x: %w", idemflight.Final(errors.New("plain"))), idemflight.Release},
		"dial":                 {fmt.Errorf("x: %w", idemflight.Final(dial)), idemflight.Release},
		"url.Error, dial":      {&url.Error{Op: "Post", Err: idemflight.Final(dial)}, idemflight.Release},
		"url.Error, no dial":   {&url.Error{Op: "Post", Err: idemflight.Retryable(errors.New("plain"))}, idemflight.Hold},
		"timeout around dial":  {&timeoutError{true, idemflight.Final(dial)}, idemflight.Hold},
		"timeout around plain": {&timeoutError{true, idemflight.Final(errors.New("plain"))}, idemflight.Hold},
		"join, ambiguous":      {errors.Join(errors.New("a"), idemflight.Retryable(io.EOF)), idemflight.Hold},
		"join, harmless":       {errors.Join(errors.New("a"), idemflight.Final(dial)), idemflight.Release},
		"panic error":          {fmt.Errorf("x: %w", idemflight.Retryable(&idemflight.PanicError{Value: dial})), idemflight.Hold},
		"answer of a cache":    {fmt.Errorf("x: %w", idemflight.Final(fmt.Errorf("y: %w", idemflight.ErrFull))), idemflight.Release},
	} {
		// The inner cache classifies, too: what it holds would come out as ErrOutcomeUnknown.
		inner := idemflight.MustNew(options{Classify: idemflight.ClassifyLenient})
		outer := idemflight.MustNew(options{Classify: idemflight.ClassifyLenient})
		_, _ = outer.Do(context.Background(), theKey, func(ctx context.Context) (int, error) {
			return inner.Do(ctx, theKey, returns(0, c.err))
		})
		require.Equal(t, c.want, dispositionOf(t, outer, theKey),
			"%s: what ClassifyLenient makes of the inner cache's error in the outer one", name)
	}
}

func TestPromise11_MarkersSpeakOnceToTheCacheWhoseFnReturnedThem(t *testing.T) {
	for _, m := range markers {
		cause := errors.New("declined")
		asked := 0
		inner := idemflight.MustNew(options{})
		outer := idemflight.MustNew(options{Classify: func(err error) idemflight.Disposition {
			require.ErrorIs(t, err, cause, "Classify of the outer cache")
			asked++
			return idemflight.Release
		}})
		for range 2 { // the second time an inner Final is replayed and an inner Unknown is met held
			_, err := outer.Do(context.Background(), theKey, func(ctx context.Context) (int, error) {
				_, err := inner.Do(ctx, theKey, returns(0, m.mark(cause)))
				return 0, fmt.Errorf("outer: %w", err)
			})
			require.ErrorIs(t, err, cause, "%s: the outer caller's error", m.name)
		}
		require.Equal(t, m.want, dispositionOf(t, inner, theKey),
			"%s must decide for the inner key", m.name)
		require.Equal(t, idemflight.Release, dispositionOf(t, outer, theKey),
			"%s of the inner fn must not decide for the outer key", m.name)
		require.Equal(t, 2, asked, "%s: calls of the outer Classify", m.name)
	}
}

// Beside a marker of the outer fn's own, one that has spoken already is silent, too: the error it
// is in is an unmarked part, judged alone.
func TestPromise11_MarkerThatHasSpokenIsAnUnmarkedPartOfAJoin(t *testing.T) {
	for _, m := range markers {
		inner := idemflight.MustNew(options{MaxEntries: fewEntries})
		_, spoken := inner.Do(context.Background(), theKey, returns(0, fmt.Errorf("inner: %w", m.mark(errors.New("declined")))))
		for _, says := range dispositions {
			var asked []error
			got := judged(t, errors.Join(spoken, idemflight.Retryable(errors.New("outer"))), func(context.Context) {}, func(err error) idemflight.Disposition {
				asked = append(asked, err)
				return says
			})
			require.Equal(t, says, got,
				"%s that has spoken, beside a Retryable, Classify says %v", m.name, says)
			require.Equal(t, []error{spoken}, asked,
				"%s that has spoken: Classify must be asked about it alone", m.name)
		}
	}
}

// A Classify that fails makes a Hold of the flight, and nothing else of the error.
func TestPromise11_RecordsKeepFnsOwnErrorThoughClassifyFails(t *testing.T) {
	for name, fail := range map[string]func(){"panics": func() { panic("classify") }, "exits": runtime.Goexit} {
		for shape, c := range map[string]struct{ returned, want error }{
			"unmarked":         {errTeapot, errTeapot},
			"beside a marker":  {errors.Join(errTeapot, idemflight.Final(io.EOF)), errTeapot},
			"in a marked part": {errors.Join(idemflight.Final(errTeapot), io.EOF), errTeapot},
		} {
			synctest.Test(t, func(t *testing.T) {
				cache := idemflight.MustNew(options{Classify: func(error) idemflight.Disposition { fail(); return idemflight.Retain }})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				call := start(cache, ctx, theKey, returns(7, c.returned))
				synctest.Wait()
				require.ErrorIs(t, call.err, idemflight.ErrOutcomeUnknown,
					"Classify %s, %s", name, shape)
				require.ErrorIs(t, call.err, c.want, "Classify %s, %s", name, shape)
				require.Equal(t, 7, call.res.Value, "Classify %s, %s: fn's value", name, shape)
				requireNoMarker(t, call.err, shape)
				e, _ := lookup(cache, theKey)
				require.Equal(t, idemflight.Held, e.State, "Classify %s, %s", name, shape)
				require.ErrorIs(t, e.Err, c.want, "Classify %s, %s: Entry.Err", name, shape)
				requireNoMarker(t, e.Err, shape)
				if shape == "unmarked" {
					require.True(t, e.Err == c.want,
						"Classify %s: Entry.Err must be fn's own error, got %#v", name, e.Err)
				}
				require.Equal(t, uint64(1), cache.Stats().HookPanics,
					"Classify %s, %s: Stats.HookPanics", name, shape)
			})
		}
	}
}

func TestPromise11_CauseInErrCallerLeftBearsNoMarker(t *testing.T) {
	for _, m := range markers {
		for _, when := range []string{"joined", "leading", "dead on arrival"} {
			synctest.Test(t, func(t *testing.T) {
				what := m.name + " as cause, " + when
				c := idemflight.MustNew(options{})
				cause := errors.New("shutting down")
				for shape, marked := range map[string]error{
					"itself":  m.mark(cause),
					"wrapped": fmt.Errorf("because: %w", m.mark(cause)),
				} {
					key := theKey + when + shape
					ctx, cancel := context.WithCancelCause(t.Context())
					slow := returnsAfter(time.Minute, 7, nil)
					if when == "joined" {
						start(c, t.Context(), key, slow)
						synctest.Wait()
					}
					if when == "dead on arrival" {
						cancel(marked)
					}
					call := start(c, ctx, key, slow)
					synctest.Wait()
					cancel(marked)
					synctest.Wait()
					require.True(t, call.returned(),
						"%s, %s: the caller must have left", what, shape)
					require.ErrorIs(t, call.err, idemflight.ErrCallerLeft, "%s, %s", what, shape)
					require.ErrorIs(t, call.err, context.Canceled,
						"%s, %s: must wrap ctx.Err()", what, shape)
					require.ErrorIs(t, call.err, cause,
						"%s, %s: must wrap what is in the cause", what, shape)
					if shape == "wrapped" { // of a marker itself what was marked is left
						require.ErrorIs(t, call.err, marked,
							"%s, %s: must wrap context.Cause", what, shape)
					}
					requireNoMarker(t, call.err, what+", "+shape)
					require.Equal(t, idemflight.Release, idemflight.ClassifyLenient(call.err),
						"%s, %s: ErrCallerLeft is the answer of a key that guards itself", what, shape)
				}
				time.Sleep(2 * time.Minute)
			})
		}
	}
}

// A marker that came in from outside must not speak in the cause that a fn's error carries out
// of an inner Do, either: here the leader's cancellation is what ends the inner call.
func TestPromise11_MarkedCauseOfAnInnerCallDoesNotDecideTheOuterKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(options{Classify: idemflight.ClassifyLenient})
		_, err := c.Do(t.Context(), "outer", func(ctx context.Context) (int, error) {
			inner, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(time.Second, func() { cancel(idemflight.Final(errors.New("gave up"))) })
			return c.Do(inner, "inner", returnsAfter(time.Minute, 7, nil))
		})
		require.ErrorIs(t, err, idemflight.ErrCallerLeft, "the inner call's answer")
		require.Equal(t, idemflight.Release, dispositionOf(t, c, "outer"),
			"Final in a cause must not burn the outer key")
		time.Sleep(time.Hour)
		require.Equal(t, idemflight.Retain, dispositionOf(t, c, "inner"),
			"the inner key guards itself")
	})
}

func TestPromise11_MarkersOfNilAreNil(t *testing.T) {
	for _, m := range markers {
		require.True(t, m.mark(nil) == nil, "%s(nil) must be nil", m.name)
		require.Equal(t, "declined", m.mark(errors.New("declined")).Error(),
			"%s must not change the text", m.name)
		require.ErrorIs(t, m.mark(io.EOF), io.EOF, "%s must wrap", m.name)
		c := idemflight.MustNew(options{})
		v, err := c.Do(context.Background(), theKey, returns(7, m.mark(nil)))
		require.NoError(t, err, "fn returned %s(nil)", m.name)
		require.Equal(t, 7, v, "value beside %s(nil)", m.name)
		require.Equal(t, idemflight.Retain, dispositionOf(t, c, theKey),
			"%s(nil) is success", m.name)
	}
}

func TestPromise11_ValueThatMustNotBeKeptIsReturnedWithRetryable(t *testing.T) {
	c := idemflight.MustNew(options{})
	notYet := errors.New("not yet")
	for run := 1; run <= 2; run++ {
		res, err := c.DoResult(context.Background(), theKey, returns(run, idemflight.Retryable(notYet)))
		require.True(t, err == notYet, "the caller must get the marked error, got %v", err)
		require.Equal(t, run, res.Value, "the caller must get the value of its own run")
		require.Equal(t, idemflight.Executed, res.Source, "fn must run each time")
		require.True(t, res.ExpiresAt.IsZero(), "ExpiresAt of what is not kept")
		_, kept := lookup(c, theKey)
		require.False(t, kept, "nothing must be kept of a value returned with Retryable")
	}
	require.Equal(t, uint64(2), c.Stats().Releases, "Stats.Releases")
	require.Zero(t, c.Len(), "Len")
}

// endedContext is a context of the user's own with an error of its own.
type endedContext struct {
	context.Context
	done chan struct{}
	err  error
}

func (c endedContext) Done() <-chan struct{} { return c.done }
func (c endedContext) Err() error            { return c.err }

// Once: a marker in the Err of a context of the user's own leaked through ErrCallerLeft, and spoke to
// the execution around.
func TestErrCallerLeft_BearsNoMarkerOfTheContextsErr(t *testing.T) {
	c := idemflight.MustNew(options{Classify: idemflight.ClassifyLenient})
	ended := endedContext{bg, make(chan struct{}), idemflight.Final(errors.New("gone"))}
	close(ended.done)
	runs := 0
	for range 2 {
		_, err := c.Do(bg, "outer", func(context.Context) (int, error) {
			runs++
			return c.Do(ended, "inner", one)
		})
		require.ErrorIs(t, err, idemflight.ErrCallerLeft)
	}
	require.Equal(t, 2, runs, "ErrCallerLeft of the inner call releases the outer key")
}
