package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// oldJoins are the ways to join errors that know WrappedErrors only.
var oldJoins = map[string]func(...error) error{
	"multi":         func(errs ...error) error { return &multi{errs} },
	"attempts":      func(errs ...error) error { return attempts(errs) },
	"wrapped":       func(errs ...error) error { return fmt.Errorf("charge: %w", &multi{errs}) },
	"multi in join": func(errs ...error) error { return errors.Join(&multi{errs}) },
	"join in multi": func(errs ...error) error { return &multi{[]error{errors.Join(errs...)}} },
}

func TestPromise11_MarkersInAnOlderMultiErrorCountAsInErrorsJoin(t *testing.T) {
	never := func(error) idemflight.Disposition {
		t.Error("Classify was asked, although every part bears a marker")
		return idemflight.Hold
	}
	for how, join := range oldJoins {
		for _, a := range markers {
			require.Equal(t, a.want, judged(t, join(a.mark(errBoom)), func(context.Context) {}, never), "%s of %s", how, a.name)
			for _, b := range markers {
				want := max(a.want, b.want)
				for _, effect := range effects {
					require.Equal(t, want, judged(t, join(a.mark(errBoom), nil, b.mark(errEnough)), effect.say, never),
						"%s of %s and %s, %s: Hold beats Retain beats Release", how, a.name, b.name, effect.name)
				}
				require.Equal(t, a.want, judged(t, a.mark(join(b.mark(errBoom), b.mark(errEnough))), func(context.Context) {}, never),
					"%s around %s of %s: the outermost wins", a.name, how, b.name)
			}
		}
	}
}

func TestPromise11_UnmarkedPartsOfAnOlderMultiErrorAreJudgedAlone(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: errors.New("refused")}
	for how, join := range oldJoins {
		for _, m := range markers {
			require.Equal(t, m.want, judged(t, join(m.mark(errBoom), dial), func(context.Context) {}, idemflight.ClassifyLenient), "%s: %s first, beside a dial error", how, m.name)
			require.Equal(t, m.want, judged(t, join(dial, m.mark(errBoom)), func(context.Context) {}, idemflight.ClassifyLenient), "%s: %s last, beside a dial error", how, m.name)
			require.Equal(t, idemflight.Hold, judged(t, join(io.EOF, m.mark(errBoom)), func(context.Context) {}, idemflight.ClassifyLenient), "%s: %s beside what is ambiguous", how, m.name)
			require.Equal(t, m.want, idemflight.ClassifyLenient(join(dial, m.mark(errBoom))), "%s: %s, asked by a user", how, m.name)
		}
		var asked []error
		got := judged(t, join(errBoom, idemflight.Final(dial), errEnough), func(context.Context) {}, func(err error) idemflight.Disposition {
			asked = append(asked, err)
			return idemflight.Release
		})
		require.Equal(t, idemflight.Retain, got, how)
		require.ElementsMatch(t, []error{errBoom, errEnough}, asked, "%s: each part without a marker is judged alone", how)

		whole := join(errBoom, dial)
		asked = nil
		judged(t, whole, func(context.Context) {}, func(err error) idemflight.Disposition { asked = append(asked, err); return idemflight.Release })
		require.Len(t, asked, 1, "%s without markers is one error", how)
		require.Equal(t, fmt.Sprintf("%p", whole), fmt.Sprintf("%p", asked[0]), "%s without markers is judged as fn returned it", how)
	}
}

func TestPromise11_MarkersInAnOlderMultiErrorSpeakOnce(t *testing.T) {
	for how, join := range oldJoins {
		for _, m := range markers {
			c := idemflight.MustNew(options{MaxEntries: fewEntries})
			returned := join(errEnough, m.mark(errBoom))
			_, err := c.Do(bg, theKey, returns(0, returned))
			require.ErrorIs(t, err, errBoom, "%s of %s", how, m.name)
			require.ErrorIs(t, err, errEnough, "%s of %s", how, m.name)
			require.Contains(t, err.Error(), returned.Error(), "%s of %s: the same text", how, m.name)
			requireNoMarker(t, err, how+" of "+m.name)
		}
	}
}

func TestPromise11_TheSearchForMarkersDoesNotEnterAPanicInAnOlderMultiError(t *testing.T) {
	for how, join := range oldJoins {
		for _, m := range markers {
			require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(join(&idemflight.PanicError{Value: m.mark(errBoom)})), "%s: %s in a panic", how, m.name)
		}
	}
}

// Errors without end: they wrap themselves, or make up what they wrap.
type (
	loop    struct{ next error }
	hydra   struct{ heads []error }
	older   struct{ heads []error }
	endless struct{ depth int }
	spread  struct{}
)

func (e *loop) Error() string           { return "loop" }
func (e *loop) Unwrap() error           { return e.next }
func (e *hydra) Error() string          { return "hydra" }
func (e *hydra) Unwrap() []error        { return e.heads }
func (e *older) Error() string          { return "older" }
func (e *older) WrappedErrors() []error { return e.heads }
func (e endless) Error() string         { return "endless" }
func (e endless) Unwrap() error         { return endless{e.depth + 1} }
func (spread) Error() string            { return "spread" }
func (spread) Unwrap() []error          { return []error{spread{}, spread{}, spread{}} }

// A flight whose error has no end must settle all the same, and nobody can know what is in it.
func TestPromise11_AnErrorWithoutEndIsHeld(t *testing.T) {
	circle := &loop{}
	circle.next = &loop{&loop{circle}}
	heads, old := &hydra{}, &older{}
	heads.heads = []error{errBoom, heads, heads}
	old.heads = []error{old, errBoom, old}
	for name, err := range map[string]error{
		"circle": circle, "hydra": heads, "older": old, "endless": endless{}, "spread": spread{},
		"joined":          errors.Join(errBoom, circle),
		"beside a marker": errors.Join(idemflight.Retryable(errBoom), heads),
		"in a POST":       &url.Error{Op: "Post", Err: circle},
		"spread, a POST":  &url.Error{Op: "Post", Err: spread{}},
	} {
		require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(err), name)
		for how, classify := range map[string]func(error) idemflight.Disposition{
			"ClassifyLenient": idemflight.ClassifyLenient,
			"Release":         func(error) idemflight.Disposition { return idemflight.Release },
		} {
			c := idemflight.MustNew(options{MaxEntries: fewEntries, Classify: classify})
			call := start(c, bg, theKey, returns(0, err))
			soon(t, call.done, "the flight of "+name)
			require.Equal(t, idemflight.Hold, dispositionOf(t, c, theKey), "%s, Classify: %s", name, how)
		}
	}
	require.Equal(t, idemflight.Retain, judged(t, idemflight.Final(circle), func(context.Context) {}, nil),
		"a marker around it decides before it is looked at")
}

// An error without end is kept, reported and saved like any other: nothing that looks for an error inside follows it
// forever. Joined callers meet it, too.
func TestPromise11_AnErrorWithoutEndIsLoggedAndSaved(t *testing.T) {
	circle, heads := &loop{}, &hydra{}
	circle.next, heads.heads = circle, []error{heads, heads}
	for name, err := range map[string]error{"circle": circle, "hydra": heads, "spread": spread{}} {
		for _, mark := range []func(error) error{idemflight.Final, idemflight.Unknown} {
			c := idemflight.MustNew(options{MaxEntries: fewEntries, Observer: idemflight.LogEvents[string](slog.New(slog.DiscardHandler))})
			first := start(c, bg, theKey, returns(0, mark(err)))
			soon(t, first.done, "the leader of "+name)
			soon(t, start(c, bg, theKey, neverRuns(t)).done, "a duplicate of "+name)
			saved := make(chan struct{})
			var failed error
			go func() {
				defer close(saved)
				failed = c.Save(io.Discard)
			}()
			soon(t, saved, "Save of "+name)
			require.NoError(t, failed)
		}
	}
}

// As many errors are looked at as that, those which join others too.
func TestPromise11_TenThousandErrorsAreLookedAt(t *testing.T) {
	errs := slices.Repeat([]error{errBoom}, 9999)
	require.Equal(t, idemflight.Release, idemflight.ClassifyLenient(errors.Join(errs...)))
	require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(errors.Join(append(errs, errBoom)...)))
}

// Long is not without end.
func TestPromise11_ALongJoinIsReadToItsEnd(t *testing.T) {
	many := make([]error, 5000)
	for i := range many {
		many[i] = fmt.Errorf("row %d", i)
	}
	require.Equal(t, idemflight.Release, idemflight.ClassifyLenient(errors.Join(many...)))
	deep := error(idemflight.Final(errBoom))
	for range 5000 {
		deep = &wrapperError{deep}
	}
	require.Equal(t, idemflight.Retain, idemflight.ClassifyLenient(deep))
	many[4999] = io.EOF
	require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(&multi{many}))
	many[4998] = idemflight.Unknown(errBoom)
	began := time.Now()
	require.Equal(t, idemflight.Hold, judged(t, errors.Join(many...), func(context.Context) {}, func(error) idemflight.Disposition { return idemflight.Release }))
	require.Less(t, time.Since(began), 10*time.Second)
}
