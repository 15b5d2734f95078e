package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

func TestPromise12_EffectCountDecidesUnmarkedErrorPanicAndGoexit(t *testing.T) {
	failed := errors.New("failed")
	const B, N = true, false // BeginEffect, NoEffect
	for name, c := range map[string]struct {
		calls []bool
		want  idemflight.Disposition
	}{
		"begun":                        {[]bool{B}, idemflight.Hold},
		"begun twice":                  {[]bool{B, B}, idemflight.Hold},
		"begun and taken back":         {[]bool{B, N}, idemflight.Release},
		"one of two taken back":        {[]bool{B, B, N}, idemflight.Hold},
		"both of two taken back":       {[]bool{B, B, N, N}, idemflight.Release},
		"taken back and begun again":   {[]bool{B, N, B}, idemflight.Hold},
		"each taken back":              {[]bool{B, N, B, N}, idemflight.Release},
		"nothing begun":                {[]bool{N}, idemflight.Release},
		"nothing begun, said twice":    {[]bool{N, N}, idemflight.Release},
		"nothing begun, then begun":    {[]bool{N, B}, idemflight.Hold},
		"an early NoEffect saves none": {[]bool{N, N, N, B}, idemflight.Hold},
		"a late NoEffect saves none":   {[]bool{B, N, N, N, B}, idemflight.Hold},
	} {
		for how, end := range map[string]func() (int, error){
			"error":  func() (int, error) { return 0, failed },
			"panic":  func() (int, error) { panic("failed") },
			"Goexit": func() (int, error) { runtime.Goexit(); return 0, nil },
		} {
			// Whatever Classify would say, it is not asked: the opposite of what is wanted shows it.
			for _, says := range dispositions {
				synctest.Test(t, func(t *testing.T) {
					asked := 0
					cache := idemflight.MustNew(idemflight.Options[string, int]{
						MaxEntries: fewEntries, Classify: func(error) idemflight.Disposition { asked++; return says },
					})
					start(cache, t.Context(), theKey, func(ctx context.Context) (int, error) {
						for _, begin := range c.calls {
							if !begin {
								idemflight.NoEffect(ctx)
								continue
							}
							if err := idemflight.BeginEffect(ctx); err != nil {
								t.Errorf("%s: BeginEffect must return nil while fn runs, got %v", name, err)
							}
						}
						return end()
					})
					synctest.Wait()
					require.Equal(t, c.want, dispositionOf(t, cache, theKey), "%s, then %s", name, how)
					require.Zero(t, asked, "%s, then %s: Classify must not be asked", name, how)
				})
			}
		}
	}
}

func TestPromise12_ClassifyIsAskedOnceWhenFnSaidNeither(t *testing.T) {
	failed := errors.New("failed")
	for how, c := range map[string]struct {
		end  func() (int, error)
		want func(error) bool
	}{
		"error":          {func() (int, error) { return 7, failed }, func(err error) bool { return err == failed }},
		"panic(value)":   {func() (int, error) { panic("boom") }, func(err error) bool { var p *idemflight.PanicError; return errors.As(err, &p) && p.Value == "boom" }},
		"panic(error)":   {func() (int, error) { panic(failed) }, func(err error) bool { _, ok := err.(*idemflight.PanicError); return ok && errors.Is(err, failed) }},
		"panic(marked)":  {func() (int, error) { panic(idemflight.Final(failed)) }, func(err error) bool { _, ok := err.(*idemflight.PanicError); return ok && errors.Is(err, failed) }},
		"Goexit":         {func() (int, error) { runtime.Goexit(); return 0, nil }, func(err error) bool { return errors.Is(err, idemflight.ErrGoexit) }},
		"nil panic":      {func() (int, error) { panic(nil) }, func(err error) bool { _, ok := err.(*idemflight.PanicError); return ok }}, //nolint:govet
		"typed nil":      {func() (int, error) { return 0, (*codeError)(nil) }, func(err error) bool { return err == error((*codeError)(nil)) }},
		"no comparison":  {func() (int, error) { return 0, sliceError{"a"} }, func(err error) bool { _, ok := err.(sliceError); return ok }},
		"answer of ours": {func() (int, error) { return 0, idemflight.ErrFull }, func(err error) bool { return err == idemflight.ErrFull }},
	} {
		for _, says := range dispositions {
			synctest.Test(t, func(t *testing.T) {
				var asked []error
				cache := idemflight.MustNew(idemflight.Options[string, int]{
					Classify: func(err error) idemflight.Disposition { asked = append(asked, err); return says },
				})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				start(cache, ctx, theKey, func(context.Context) (int, error) { return c.end() })
				synctest.Wait()
				require.Len(t, asked, 1, "%s: calls of Classify", how)
				require.True(t, c.want(asked[0]), "%s: what Classify is asked about, got %#v", how, asked[0])
				require.Equal(t, says, dispositionOf(t, cache, theKey), "%s: Classify must decide", how)
				if says == idemflight.Retain {
					res, err := cache.DoResult(ctx, theKey, neverRuns(t))
					require.Equal(t, idemflight.Replayed, res.Source, "%s: retained by Classify", how)
					require.True(t, c.want(err), "%s: the replay must give the error that Classify retained, got %#v", how, err)
				}
			})
		}
	}
}

func TestPromise12_DispositionOutsideTheThreeIsHold(t *testing.T) {
	for _, d := range []idemflight.Disposition{-1, 3, 4, 99, math.MinInt32, math.MaxInt32} {
		events := &eventLog[string]{}
		c := idemflight.MustNew(idemflight.Options[string, int]{
			Classify: func(error) idemflight.Disposition { return d },
			Observer: events.observe,
		})
		_, err := c.Do(context.Background(), theKey, returns(0, errors.New("failed")))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "Classify said Disposition(%d)", int(d))
		require.Equal(t, idemflight.Hold, dispositionOf(t, c, theKey), "Disposition(%d) must be Hold", int(d))
		require.Equal(t, uint64(1), c.Stats().Holds, "Stats.Holds after Disposition(%d)", int(d))
		require.Equal(t, idemflight.Hold, events.of(idemflight.EventExecuted)[0].Disposition, "Event.Disposition after Disposition(%d)", int(d))

		c.Forget(theKey)
		_, err = c.Do(context.Background(), theKey, returns(0, errors.Join(errors.New("failed"), idemflight.Final(errors.New("final")))))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "Classify said Disposition(%d) of one part of a join", int(d))
	}
}

// isError matches another error by its Is method.
type isError struct{ target error }

func (e *isError) Error() string        { return "is " + e.target.Error() }
func (e *isError) Is(target error) bool { return target == e.target }

// classifyCases are errors without marker and what ClassifyDefault makes of each.
func classifyCases() map[string]struct {
	err  error
	want idemflight.Disposition
} {
	const Release, Hold = idemflight.Release, idemflight.Hold
	type row = struct {
		err  error
		want idemflight.Disposition
	}
	wrap := func(err error) error { return fmt.Errorf("charge: %w", err) }
	plain := errors.New("card has expired")
	dns := &net.DNSError{Err: "no such host", Name: "bank", IsNotFound: true}
	dial := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	read := &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	urlErr := func(op string, err error) error { return &url.Error{Op: op, URL: "https://bank/charge", Err: err} }

	cases := map[string]row{
		// Every other error is released: a transient failure never burns the key.
		"plain":                  {plain, Release},
		"plain, wrapped":         {wrap(plain), Release},
		"not exist":              {&fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}, Release},
		"Timeout() false":        {&timeoutError{false, plain}, Release},
		"connection refused":     {syscall.ECONNREFUSED, Release},
		"net.ErrWriteToConnect":  {net.ErrWriteToConnected, Release},
		"OpError read, harmless": {&net.OpError{Op: "read", Err: plain}, Release},
		"empty tree":             {&treeError{nil}, Release},
		"tree of nil":            {&treeError{[]error{nil, nil}}, Release},
		"not comparable":         {sliceError{"a"}, Release},
		"parse":                  {&net.ParseError{Type: "IP", Text: "x"}, Release},

		// Ambiguous.
		"canceled":            {context.Canceled, Hold},
		"deadline":            {context.DeadlineExceeded, Hold},
		"canceled, wrapped":   {wrap(wrap(context.Canceled)), Hold},
		"is canceled":         {&isError{context.Canceled}, Hold},
		"Timeout() true":      {&timeoutError{true, plain}, Hold},
		"Timeout(), wrapped":  {wrap(&timeoutError{true, plain}), Hold},
		"os deadline":         {os.ErrDeadlineExceeded, Hold},
		"ETIMEDOUT":           {os.NewSyscallError("read", syscall.ETIMEDOUT), Hold},
		"io.EOF":              {io.EOF, Hold},
		"io.EOF, wrapped":     {wrap(io.EOF), Hold},
		"io.ErrUnexpectedEOF": {wrap(io.ErrUnexpectedEOF), Hold},
		"net.ErrClosed":       {wrap(net.ErrClosed), Hold},
		"ECONNRESET":          {syscall.ECONNRESET, Hold},
		"ECONNABORTED":        {wrap(syscall.ECONNABORTED), Hold},
		"EPIPE":               {os.NewSyscallError("write", syscall.EPIPE), Hold},
		"reset while reading": {wrap(read), Hold},
		"pipe while writing":  {&net.OpError{Op: "write", Err: syscall.EPIPE}, Hold},
		"timeout while reading": {
			&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, Hold},

		// Deciders, from the outside in.
		"PanicError":                 {&idemflight.PanicError{Value: "boom"}, Hold},
		"PanicError, wrapped":        {wrap(&idemflight.PanicError{Value: plain}), Hold},
		"PanicError around dial":     {&idemflight.PanicError{Value: dial}, Hold},
		"PanicError around ours":     {&idemflight.PanicError{Value: idemflight.ErrFull}, Hold},
		"PanicError around a marker": {&idemflight.PanicError{Value: idemflight.Retryable(plain)}, Hold},
		"dial around PanicError":     {&net.OpError{Op: "dial", Err: &idemflight.PanicError{Value: 1}}, Release},
		"ErrGoexit":                  {idemflight.ErrGoexit, Hold},
		"ErrGoexit, wrapped":         {wrap(idemflight.ErrGoexit), Hold},

		"dial":                   {dial, Release},
		"dial, wrapped":          {wrap(wrap(dial)), Release},
		"dial timed out":         {&net.OpError{Op: "dial", Err: context.DeadlineExceeded}, Release},
		"dial, reset":            {&net.OpError{Op: "dial", Err: syscall.ECONNRESET}, Release},
		"dial inside read":       {&net.OpError{Op: "read", Err: dial}, Release},
		"DNS":                    {dns, Release},
		"DNS timed out":          {&net.DNSError{Err: "i/o timeout", IsTimeout: true}, Release},
		"DNS inside dial":        {&net.OpError{Op: "dial", Err: dns}, Release},
		"DNS inside read":        {&net.OpError{Op: "read", Err: dns}, Release},
		"timeout around dial":    {&timeoutError{true, dial}, Release},
		"timeout around DNS":     {&timeoutError{true, wrap(dns)}, Release},
		"timeout around ours":    {&timeoutError{true, idemflight.ErrFull}, Release},
		"timeout around url":     {&timeoutError{true, urlErr("Post", dial)}, Release},
		"timeout around Get":     {&timeoutError{true, urlErr("Get", dial)}, Hold},
		"timeout around panic":   {&timeoutError{true, &idemflight.PanicError{Value: dial}}, Hold},
		"timeout, timeout, dial": {&timeoutError{true, &timeoutError{true, dial}}, Release},
		"dial around Get":        {&net.OpError{Op: "dial", Err: urlErr("Get", io.EOF)}, Release},

		"Get around Post":        {urlErr("Get", urlErr("Post", dial)), Hold},
		"Post around ours":       {urlErr("Post", idemflight.ErrFull), Hold},
		"Post around panic":      {urlErr("Post", &idemflight.PanicError{Value: 1}), Hold},
		"Post, DNS in a read":    {urlErr("Post", &net.OpError{Op: "read", Err: dns}), Release},
		"Post, dial deep inside": {urlErr("Post", wrap(&timeoutError{true, wrap(dial)})), Release},
		"ours around Get":        {fmt.Errorf("%w", &wrapperError{urlErr("Get", io.EOF)}), Hold},

		// Of joined errors each is judged alone, and Hold wins.
		"join, harmless":             {errors.Join(plain, plain), Release},
		"join, one ambiguous":        {errors.Join(plain, io.EOF), Hold},
		"join, ambiguous first":      {errors.Join(io.EOF, plain), Hold},
		"join, dial and plain":       {errors.Join(dial, plain), Release},
		"join, dial beside EOF":      {errors.Join(dial, io.EOF), Hold},
		"join, ours beside EOF":      {errors.Join(idemflight.ErrFull, io.EOF), Hold},
		"join, ours beside ours":     {errors.Join(idemflight.ErrFull, idemflight.ErrClosed), Release},
		"join, dial beside Get":      {errors.Join(dial, urlErr("Get", dial)), Hold},
		"join, dial beside Post":     {errors.Join(urlErr("Post", dial), dial), Release},
		"join, ours beside panic":    {errors.Join(idemflight.ErrFull, &idemflight.PanicError{Value: 1}), Hold},
		"join, wrapped":              {wrap(errors.Join(plain, wrap(syscall.EPIPE))), Hold},
		"join in a join":             {errors.Join(plain, errors.Join(plain, idemflight.ErrGoexit)), Hold},
		"join, own deciders deeper":  {errors.Join(&timeoutError{true, dial}, &timeoutError{true, dns}), Release},
		"join, one without a deeper": {errors.Join(&timeoutError{true, dial}, &timeoutError{true, plain}), Hold},
		"timeout around a join":      {&timeoutError{true, errors.Join(plain, plain)}, Hold},
		"timeout, wrapped join":      {&timeoutError{true, wrap(errors.Join(plain, wrap(plain)))}, Hold},
		"tree":                       {&treeError{[]error{plain, nil, net.ErrClosed}}, Hold},
		"two %w":                     {fmt.Errorf("%w, %w", idemflight.ErrInFlight, context.Canceled), Hold},
		"dial around a join":         {&net.OpError{Op: "dial", Err: errors.Join(plain, io.EOF)}, Release},
	}
	// A POST to which nothing was sent is released; a GET may be the redirect that followed the
	// effect; and what is neither dial nor DNS holds whatever the method.
	for _, op := range []string{"Post", "Put", "Patch", "Delete"} {
		cases[op+", dial"] = row{urlErr(op, dial), Release}
		cases[op+", dial, wrapped"] = row{wrap(urlErr(op, dial)), Release}
		cases[op+", DNS"] = row{urlErr(op, dns), Release}
		cases[op+", dial timed out"] = row{urlErr(op, &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}), Release}
		cases[op+", plain"] = row{urlErr(op, plain), Hold}
		cases[op+", EOF"] = row{urlErr(op, io.EOF), Hold}
		cases[op+", reset"] = row{urlErr(op, read), Hold}
		cases[op+", deadline"] = row{urlErr(op, context.DeadlineExceeded), Hold}
	}
	for _, op := range []string{"Get", "Head"} {
		for name, err := range map[string]error{"dial": dial, "DNS": dns, "plain": plain, "EOF": io.EOF, "deadline": context.DeadlineExceeded} {
			cases[op+", "+name] = row{urlErr(op, err), Hold}
			cases[op+", "+name+", wrapped"] = row{wrap(urlErr(op, err)), Hold}
		}
	}
	// The answer of an inner Do, whose key guards itself.
	for _, ours := range sentinels {
		cases["ours: "+ours.Error()] = row{ours, Release}
		cases["ours, wrapped: "+ours.Error()] = row{wrap(wrap(ours)), Release}
		cases["ours inside a timeout: "+ours.Error()] = row{&timeoutError{true, wrap(ours)}, Release}
	}
	return cases
}

// wrapperError pretends nothing: it is a wrapper like any other.
type wrapperError struct{ err error }

func (e *wrapperError) Error() string { return "wrapper" }
func (e *wrapperError) Unwrap() error { return e.err }

// sentinels are the errors a call can answer with instead of an outcome: all but ErrGoexit.
var sentinels = []error{
	idemflight.ErrKeyReused, idemflight.ErrInFlight, idemflight.ErrOutcomeUnknown, idemflight.ErrValueShed,
	idemflight.ErrFull, idemflight.ErrClosed, idemflight.ErrReentrant, idemflight.ErrInvalidKey,
	idemflight.ErrLeft, idemflight.ErrInterrupted, idemflight.ErrNotExecuting,
}

func TestPromise12_ClassifyDefaultHoldsWhatIsAmbiguousAndReleasesTheRest(t *testing.T) {
	for name, c := range classifyCases() {
		require.Equal(t, c.want, idemflight.ClassifyDefault(c.err), "ClassifyDefault of %s: %#v", name, c.err)
		require.Equal(t, c.want, judged(t, c.err, func(context.Context) {}, nil), "without Options.Classify, a key whose fn returned %s", name)
	}
}

// ClassifyDefault is asked last: what fn said about its effect comes first, for every one of them.
func TestPromise12_EffectCountComesBeforeClassifyDefault(t *testing.T) {
	for name, c := range classifyCases() {
		for _, effect := range effects {
			if !effect.ask {
				require.Equal(t, effect.want, judged(t, c.err, effect.say, nil), "%s, %s", name, effect.name)
			}
		}
	}
}

func TestPromise12_AnswersOfAnInnerDoReleaseTheOuterKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := idemflight.MustNew(idemflight.Options[string, int]{})
		outer := idemflight.MustNew(idemflight.Options[string, int]{})
		for name, end := range map[string]error{"EOF": idemflight.Unknown(io.EOF), "ErrGoexit": idemflight.Unknown(idemflight.ErrGoexit), "panic": idemflight.Unknown(&idemflight.PanicError{Value: 1})} {
			_, err := inner.Do(t.Context(), name, returns(0, end))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			require.Equal(t, idemflight.Release, idemflight.ClassifyDefault(err), "ErrOutcomeUnknown around %s: the outer of the two decides", name)
		}
		_, err := outer.Do(t.Context(), "deadline", func(ctx context.Context) (int, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return inner.Do(ctx, "slow", func(context.Context) (int, error) { time.Sleep(time.Minute); return 7, nil })
		})
		require.ErrorIs(t, err, context.DeadlineExceeded, "the inner call left")
		require.Equal(t, idemflight.Release, dispositionOf(t, outer, "deadline"), "ErrLeft around a deadline must release the outer key")
		time.Sleep(2 * time.Minute)
	})
}

func TestPromise12_AskedByAUserClassifyDefaultFollowsMarkersAndNilIsRetain(t *testing.T) {
	require.Equal(t, idemflight.Retain, idemflight.ClassifyDefault(nil), "ClassifyDefault(nil)")
	plain, dial := errors.New("plain"), &net.OpError{Op: "dial", Err: errors.New("refused")}
	for _, m := range markers {
		for name, err := range map[string]error{
			"plain":              m.mark(plain),
			"wrapped":            fmt.Errorf("x: %w", m.mark(plain)),
			"ambiguous":          m.mark(context.DeadlineExceeded),
			"dial":               m.mark(dial),
			"in url.Error":       &url.Error{Op: "Get", Err: m.mark(plain)},
			"in dial":            &net.OpError{Op: "dial", Err: m.mark(io.EOF)},
			"beside plain":       errors.Join(plain, m.mark(plain)),
			"around a marker":    m.mark(idemflight.Unknown(plain)),
			"around a Retryable": m.mark(fmt.Errorf("x: %w", idemflight.Retryable(plain))),
			"around panic":       m.mark(&idemflight.PanicError{Value: 1}),
		} {
			require.Equal(t, m.want, idemflight.ClassifyDefault(err), "ClassifyDefault of %s, %s", m.name, name)
		}
		require.Equal(t, idemflight.Hold, idemflight.ClassifyDefault(errors.Join(m.mark(plain), io.EOF)), "%s beside an ambiguous error: each is judged alone", m.name)
		require.Equal(t, idemflight.Hold, idemflight.ClassifyDefault(&idemflight.PanicError{Value: m.mark(plain)}), "%s inside a panic", m.name)
	}
}

// trapError is an error one of whose methods misbehaves.
type trapError struct {
	where string
	how   func()
}

func (e *trapError) trap(where string) {
	if e.where == where {
		e.how()
	}
}
func (e *trapError) Error() string        { e.trap("Error"); return "methods" }
func (e *trapError) Unwrap() error        { e.trap("Unwrap"); return nil }
func (e *trapError) Is(target error) bool { e.trap("Is"); return false }
func (e *trapError) As(target any) bool   { e.trap("As"); return false }
func (e *trapError) Timeout() bool        { e.trap("Timeout"); return false }

// trapTree misbehaves in the other form of Unwrap.
type trapTree struct{ how func() }

func (e *trapTree) Error() string   { return "many methods" }
func (e *trapTree) Unwrap() []error { e.how(); return nil }

func TestPromise12_TypedNilsAndPanickingErrorMethodsStrandNobody(t *testing.T) {
	bad := map[string]error{
		"nil *url.Error":    (*url.Error)(nil),
		"nil *net.OpError":  (*net.OpError)(nil),
		"nil *net.DNSError": (*net.DNSError)(nil),
		"nil *PanicError":   (*idemflight.PanicError)(nil),
		"nil *PathError":    (*fs.PathError)(nil),
		"nil of our own":    (*wrapError)(nil),
		"nil tree":          (*treeError)(nil),
		"nil timeout":       (*timeoutError)(nil),
	}
	for how, f := range map[string]func(){"panics": func() { panic("misbehaves") }, "exits": runtime.Goexit} {
		for _, where := range []string{"Error", "Unwrap", "Is", "As", "Timeout"} {
			bad[where+" "+how] = &trapError{where, f}
		}
		bad["Unwrap() []error "+how] = &trapTree{f}
	}
	for name, err := range bad {
		for shape, returned := range map[string]error{"itself": err, "marked": idemflight.Unknown(err), "around": &wrapperError{err}, "beside": &treeError{[]error{idemflight.Retryable(io.EOF), err}}} {
			for _, inline := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					what := fmt.Sprintf("%s, %s, inline %v", name, shape, inline)
					c := idemflight.MustNew(idemflight.Options[string, int]{MaxEntries: fewEntries})
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					var opts []idemflight.CallOption
					if inline {
						opts = append(opts, idemflight.Inline())
					}
					leader := start(c, ctx, theKey, func(context.Context) (int, error) { time.Sleep(time.Second); return 7, returned }, opts...)
					synctest.Wait()
					joined := []*pending[int]{start(c, ctx, theKey, neverRuns(t)), start(c, ctx, theKey, neverRuns(t))}
					time.Sleep(2 * time.Second)
					synctest.Wait()
					for i, call := range append(joined, leader) {
						require.True(t, call.returned(), "%s: caller %d must not be stranded", what, i)
						require.True(t, call.err != nil || call.panicked != nil || call.exited, "%s: caller %d got (%d, nil)", what, i, call.res.Value)
					}
					require.Zero(t, c.Stats().InFlight, "%s: nothing must be left in flight", what)
					if shape == "marked" {
						require.Equal(t, idemflight.Hold, dispositionOf(t, c, theKey), "%s: the marker is found before the bad method", what)
					}
					if name == "nil *url.Error" || name == "nil *PanicError" {
						require.Equal(t, idemflight.Hold, dispositionOf(t, c, theKey), "%s: ambiguous by its type alone", what)
					}
					c.Forget(theKey)
					next := start(c, ctx, theKey, returns(9, nil))
					synctest.Wait()
					require.True(t, next.returned(), "%s: the key must stay usable", what)
					require.NoError(t, next.err, "%s: the next call", what)
				})
			}
		}
	}
}

func TestPromise12_TimeoutThatPanicsHolds(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[string, int]{})
	err := &trapError{"Timeout", func() { panic("misbehaves") }}
	_, got := c.Do(context.Background(), theKey, returns(0, err))
	require.ErrorIs(t, got, idemflight.ErrOutcomeUnknown, "a classifier that panics cannot know")
	require.Equal(t, idemflight.Hold, dispositionOf(t, c, theKey), "after a panic in Classify the flight ends as a Hold")
}

func TestPromise12_BeginEffectRefusesAfterExecTimeout(t *testing.T) {
	looks := map[string]func(context.Context){
		"timer never armed": func(context.Context) {},
		"Done was asked":    func(ctx context.Context) { _ = ctx.Done() },
		"context derived": func(ctx context.Context) {
			_, cancel := context.WithCancel(ctx)
			cancel()
		},
	}
	for look, arm := range looks {
		for timeout, opt := range map[time.Duration]time.Duration{time.Minute: time.Minute, idemflight.DefaultExecTimeout: 0} {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(idemflight.Options[string, int]{ExecTimeout: opt})
				_, err := c.Do(t.Context(), theKey, func(ctx context.Context) (int, error) {
					arm(ctx)
					time.Sleep(timeout - time.Nanosecond)
					if err := idemflight.BeginEffect(ctx); err != nil {
						t.Errorf("%s: BeginEffect a nanosecond before ExecTimeout must return nil, got %v", look, err)
					}
					idemflight.NoEffect(ctx)
					time.Sleep(2 * time.Nanosecond)
					err := idemflight.BeginEffect(ctx)
					if !errors.Is(err, context.DeadlineExceeded) || err != context.Cause(ctx) {
						t.Errorf("%s: BeginEffect after ExecTimeout must refuse with the cause of fn's context, got %v, cause %v", look, err, context.Cause(ctx))
					}
					return 0, err
				})
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.NotErrorIs(t, err, idemflight.ErrOutcomeUnknown, "%s: nothing has begun", look)
			})
		}
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(idemflight.Options[string, int]{ExecTimeout: -1})
			_, err := c.Do(t.Context(), theKey, func(ctx context.Context) (int, error) {
				arm(ctx)
				time.Sleep(1000 * time.Hour)
				return 7, idemflight.BeginEffect(ctx)
			})
			require.NoError(t, err, "%s: with a negative ExecTimeout BeginEffect never refuses while fn runs", look)
		})
	}
}

// At the very instant of the deadline two goroutines wake: fn, and the one that ends its context.
// Whichever comes first, it is too late.
func TestPromise12_BeginEffectRefusesWhileTheTimerIsLate(t *testing.T) {
	var late int // how often fn was first
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(idemflight.Options[string, int]{ExecTimeout: time.Minute})
			_, err := c.Do(t.Context(), theKey, func(ctx context.Context) (int, error) {
				wake := time.After(time.Minute)
				ended := ctx.Done()
				<-wake
				select {
				case <-ended:
				default:
					late++
				}
				err := idemflight.BeginEffect(ctx)
				if err != context.DeadlineExceeded {
					t.Errorf("BeginEffect at the deadline must refuse with it, got %v", err)
				}
				return 0, err
			})
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NotErrorIs(t, err, idemflight.ErrOutcomeUnknown, "nothing has begun")
		})
	}
	t.Logf("fn was first in %d of 200", late)
}

// Also afterwards it says why it was too late.
func TestPromise12_BeginEffectAfterAnOverdueFnTellsTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[string, int]{ExecTimeout: time.Minute})
		for _, tt := range []struct {
			takes time.Duration
			want  error
		}{{time.Second, context.Canceled}, {time.Hour, context.DeadlineExceeded}} {
			var ctx context.Context
			_, err := c.Do(t.Context(), tt.takes.String(), func(inner context.Context) (int, error) {
				ctx = inner
				time.Sleep(tt.takes)
				return 1, nil
			})
			require.NoError(t, err)
			require.Equal(t, tt.want, idemflight.BeginEffect(ctx), "fn took %v", tt.takes)
			require.Equal(t, tt.want, context.Cause(ctx))
		}
	})
}

func TestPromise12_RefusedBeginEffectReleases(t *testing.T) {
	const B, N, R = 'B', 'N', 'R' // BeginEffect, NoEffect, a BeginEffect that is refused
	for calls, want := range map[string]idemflight.Disposition{
		"R":     idemflight.Release,
		"RR":    idemflight.Release,
		"NR":    idemflight.Release,
		"BNR":   idemflight.Release,
		"BR":    idemflight.Hold, // what began before is out there
		"BRN":   idemflight.Release,
		"BBRN":  idemflight.Hold,
		"BRR":   idemflight.Hold, // two refusals take nothing back
		"RN":    idemflight.Release,
		"NBRR":  idemflight.Hold,
		"BNBR":  idemflight.Hold,
		"BBRNN": idemflight.Release,
	} {
		for how, end := range map[string]func(error) (int, error){
			"refusal returned": func(err error) (int, error) { return 0, err },
			"other error":      func(error) (int, error) { return 0, io.EOF },
			"panic":            func(error) (int, error) { panic("boom") },
			"Goexit":           func(error) (int, error) { runtime.Goexit(); return 0, nil },
		} {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				c := idemflight.MustNew(idemflight.Options[string, int]{
					ExecTimeout: time.Minute,
					Classify:    func(error) idemflight.Disposition { asked++; return idemflight.Retain },
				})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				start(c, ctx, theKey, func(ctx context.Context) (int, error) {
					var refused error
					for _, call := range calls {
						switch call {
						case B:
							if err := idemflight.BeginEffect(ctx); err != nil {
								t.Errorf("%s: BeginEffect before the timeout: %v", calls, err)
							}
						case N:
							idemflight.NoEffect(ctx)
						case R:
							time.Sleep(2 * time.Minute)
							if refused = idemflight.BeginEffect(ctx); refused == nil {
								t.Errorf("%s: BeginEffect after the timeout must refuse", calls)
							}
						}
					}
					return end(refused)
				})
				time.Sleep(time.Hour)
				synctest.Wait()
				require.Equal(t, want, dispositionOf(t, c, theKey), "%s (B begin, N no effect, R refused), then %s", calls, how)
				require.Zero(t, asked, "%s, then %s: a refusal takes part like NoEffect, Classify must not be asked", calls, how)
			})
		}
	}
}

func TestPromise12_SuccessIsRetainedWhateverBeginEffectSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[string, int]{ExecTimeout: time.Minute})
		v, err := c.Do(t.Context(), theKey, func(ctx context.Context) (int, error) {
			time.Sleep(time.Hour)
			if idemflight.BeginEffect(ctx) == nil {
				t.Error("BeginEffect after ExecTimeout must refuse")
			}
			return 7, nil
		})
		require.NoError(t, err)
		require.Equal(t, 7, v)
		require.Equal(t, idemflight.Retain, dispositionOf(t, c, theKey), "a nil error after a refusal")
	})
}

func TestPromise12_BeginEffectRefusesOnceFnHasReturned(t *testing.T) {
	for _, timeout := range []time.Duration{0, -1} {
		for name, derive := range map[string]func(context.Context) context.Context{
			"fn's own":      func(ctx context.Context) context.Context { return ctx },
			"WithValue":     func(ctx context.Context) context.Context { return context.WithValue(ctx, nameKey{}, 1) },
			"WithoutCancel": func(ctx context.Context) context.Context { return context.WithoutCancel(ctx) },
		} {
			synctest.Test(t, func(t *testing.T) {
				c := idemflight.MustNew(idemflight.Options[string, int]{ExecTimeout: timeout})
				var fnCtx context.Context
				_, err := c.Do(t.Context(), theKey, func(ctx context.Context) (int, error) {
					fnCtx = ctx
					return 0, errors.New("transient")
				})
				require.Error(t, err)
				refused := idemflight.BeginEffect(derive(fnCtx))
				require.Error(t, refused, "%s: BeginEffect after fn has returned", name)
				require.Equal(t, context.Cause(fnCtx), refused, "%s: must be the cause of fn's context", name)
				require.NotErrorIs(t, refused, idemflight.ErrNotExecuting, "%s: the context does belong to an execution", name)
				require.Equal(t, idemflight.Release, dispositionOf(t, c, theKey), "%s: nothing is kept of a late BeginEffect", name)

				// What the leftovers of one execution say must not reach the next one of its key.
				next := start(c, t.Context(), theKey, func(ctx context.Context) (int, error) {
					if err := idemflight.BeginEffect(ctx); err != nil {
						t.Errorf("%s: the new execution may begin: %v", name, err)
					}
					time.Sleep(time.Second)
					return 0, errors.New("failed")
				})
				synctest.Wait()
				idemflight.NoEffect(derive(fnCtx))
				require.Error(t, idemflight.BeginEffect(derive(fnCtx)), "%s: refused while the next execution runs, too", name)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				require.ErrorIs(t, next.err, idemflight.ErrOutcomeUnknown, "%s: NoEffect of an execution that is over must do nothing to the next", name)
				idemflight.NoEffect(derive(fnCtx))
				require.Equal(t, idemflight.Hold, dispositionOf(t, c, theKey), "%s: nor to what is held", name)
			})
		}
	}
}

func TestPromise12_ErrNotExecutingOutsideOfAnyExecution(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[string, int]{})
	asked := 0
	classify := idemflight.MustNew(idemflight.Options[string, int]{Classify: func(error) idemflight.Disposition { asked++; return idemflight.Retain }})
	caller := context.WithValue(context.Background(), nameKey{}, "caller's")
	for name, ctx := range map[string]context.Context{"Background": context.Background(), "the caller's": caller, "a test's": t.Context()} {
		require.ErrorIs(t, idemflight.BeginEffect(ctx), idemflight.ErrNotExecuting, "%s", name)
		require.NotPanics(t, func() { idemflight.NoEffect(ctx) }, "NoEffect with %s", name)
		// Not even while an execution runs that this context started: it is not the one fn was given.
		_, _ = c.Do(caller, theKey, func(fnCtx context.Context) (int, error) {
			if err := idemflight.BeginEffect(fnCtx); err != nil {
				t.Errorf("%s: BeginEffect with fn's context: %v", name, err)
			}
			if err := idemflight.BeginEffect(ctx); !errors.Is(err, idemflight.ErrNotExecuting) {
				t.Errorf("%s inside fn: want ErrNotExecuting, got %v", name, err)
			}
			idemflight.NoEffect(ctx)
			return 0, errors.New("failed")
		})
		require.Equal(t, idemflight.Hold, dispositionOf(t, c, theKey), "%s: NoEffect with it must do nothing", name)
		c.Forget(theKey)

		asked = 0
		_, _ = classify.Do(caller, theKey, func(context.Context) (int, error) {
			idemflight.NoEffect(ctx)
			return 0, idemflight.BeginEffect(ctx)
		})
		require.Equal(t, 1, asked, "%s: with a context of no execution fn said neither, so Classify is asked", name)
		classify.Forget(theKey)
	}
}

func TestPromise12_BothWorkFromAnyGoroutineWhileFnRuns(t *testing.T) {
	const workers, rounds = 4, 250
	for name, last := range map[string]struct {
		extra func(context.Context) error
		want  idemflight.Disposition
	}{
		"all taken back": {func(context.Context) error { return nil }, idemflight.Release},
		"one left":       {idemflight.BeginEffect, idemflight.Hold},
	} {
		asked := 0
		c := idemflight.MustNew(idemflight.Options[string, int]{Classify: func(error) idemflight.Disposition { asked++; return idemflight.Retain }})
		_, err := c.Do(context.Background(), theKey, func(ctx context.Context) (int, error) {
			var wg sync.WaitGroup
			for range workers {
				wg.Go(func() {
					for range rounds {
						if err := idemflight.BeginEffect(ctx); err != nil {
							t.Errorf("%s: BeginEffect: %v", name, err)
						}
					}
					// Only what this goroutine began: no NoEffect ever finds nothing to take back.
					for range rounds {
						idemflight.NoEffect(ctx)
					}
				})
			}
			if err := last.extra(ctx); err != nil {
				t.Errorf("%s: BeginEffect: %v", name, err)
			}
			wg.Wait()
			return 0, errors.New("failed")
		})
		require.Error(t, err)
		require.Equal(t, last.want, dispositionOf(t, c, theKey), "%d goroutines, %s", workers, name)
		require.Zero(t, asked, "%s: Classify must not be asked", name)
	}
}

func TestPromise12_DerivedContextsCountForTheirExecution(t *testing.T) {
	for name, derive := range map[string]func(context.Context) context.Context{
		"value": func(ctx context.Context) context.Context { return context.WithValue(ctx, nameKey{}, 1) },
		"timeout": func(ctx context.Context) context.Context {
			d, c := context.WithTimeout(ctx, time.Hour)
			_ = c
			return d
		}, //nolint:govet
		"own end": func(ctx context.Context) context.Context { d, c := context.WithCancel(ctx); c(); return d },
	} {
		synctest.Test(t, func(t *testing.T) {
			c := idemflight.MustNew(idemflight.Options[string, int]{})
			_, err := c.Do(t.Context(), theKey, func(ctx context.Context) (int, error) {
				if err := idemflight.BeginEffect(derive(ctx)); err != nil {
					t.Errorf("%s: fn runs and its time is not up, so the effect may begin; got %v", name, err)
				}
				return 0, errors.New("failed")
			})
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown, "%s: BeginEffect with a context derived from fn's must count", name)
			_, err = c.Do(t.Context(), "other", func(ctx context.Context) (int, error) {
				_ = idemflight.BeginEffect(ctx)
				idemflight.NoEffect(derive(ctx))
				return 0, io.EOF
			})
			require.NotErrorIs(t, err, idemflight.ErrOutcomeUnknown, "%s: NoEffect with a context derived from fn's must count", name)
		})
	}
}

func TestPromise12_OfNestedExecutionsTheInnermostCounts(t *testing.T) {
	for _, same := range []bool{true, false} {
		for name, c := range map[string]struct {
			inner        func(innerCtx, outerCtx context.Context)
			after        func(innerCtx, outerCtx context.Context)
			innerD       idemflight.Disposition
			outerD       idemflight.Disposition
			classifyAsks int // for inner and outer together
		}{
			"inner begins":             {inner: func(i, _ context.Context) { _ = idemflight.BeginEffect(i) }, innerD: idemflight.Hold, outerD: idemflight.Retain, classifyAsks: 1},
			"inner has none":           {inner: func(i, _ context.Context) { idemflight.NoEffect(i) }, innerD: idemflight.Release, outerD: idemflight.Retain, classifyAsks: 1},
			"outer's context in inner": {inner: func(_, o context.Context) { _ = idemflight.BeginEffect(o) }, innerD: idemflight.Retain, outerD: idemflight.Hold, classifyAsks: 1},
			"inner takes nothing back from outer": {
				inner:  func(i, o context.Context) { _ = idemflight.BeginEffect(o); idemflight.NoEffect(i) },
				innerD: idemflight.Release, outerD: idemflight.Hold,
			},
			"inner's context afterwards": {
				inner: func(context.Context, context.Context) {},
				after: func(i, o context.Context) {
					if idemflight.BeginEffect(i) == nil {
						panic("BeginEffect with the context of an inner execution that is over must refuse")
					}
					idemflight.NoEffect(i)
				},
				innerD: idemflight.Retain, outerD: idemflight.Retain, classifyAsks: 2,
			},
		} {
			what := fmt.Sprintf("%s, one cache %v", name, same)
			asked := 0
			opts := idemflight.Options[string, int]{Classify: func(error) idemflight.Disposition { asked++; return idemflight.Retain }}
			outer := idemflight.MustNew(opts)
			inner := outer
			if !same {
				inner = idemflight.MustNew(opts)
			}
			_, err := outer.Do(context.Background(), "outer", func(outerCtx context.Context) (int, error) {
				var innerCtx context.Context
				_, _ = inner.Do(context.WithValue(outerCtx, nameKey{}, 1), "inner", func(ctx context.Context) (int, error) {
					innerCtx = ctx
					c.inner(ctx, outerCtx)
					return 0, errors.New("inner failed")
				})
				if c.after != nil {
					c.after(innerCtx, outerCtx)
				}
				return 0, errors.New("outer failed")
			})
			require.Error(t, err)
			require.Equal(t, c.innerD, dispositionOf(t, inner, "inner"), "%s: the inner key", what)
			require.Equal(t, c.outerD, dispositionOf(t, outer, "outer"), "%s: the outer key", what)
			require.Equal(t, c.classifyAsks, asked, "%s: calls of Classify", what)
		}
	}
}

// In Reconcile, which is an execution too and the innermost one, neither counts: not for what the
// key becomes, not for the fn that follows, and not for an execution around it.
func TestPromise12_InReconcileBeginEffectReturnsNilAndNeitherCounts(t *testing.T) {
	for _, effect := range effects {
		synctest.Test(t, func(t *testing.T) {
			asked := 0
			answer := errors.New("still unknown")
			c := idemflight.MustNew(idemflight.Options[string, int]{
				Classify: func(error) idemflight.Disposition { asked++; return idemflight.Release },
				Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
					if err := idemflight.BeginEffect(ctx); err != nil {
						t.Errorf("BeginEffect in Reconcile must return nil, got %v", err)
					}
					idemflight.NoEffect(ctx)
					effect.say(ctx)
					return 0, answer
				},
			})
			_, err := c.Do(t.Context(), theKey, returns(0, idemflight.Unknown(errors.New("lost"))))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)

			_, err = c.Do(t.Context(), theKey, neverRuns(t))
			require.ErrorIs(t, err, answer, "%s in Reconcile", effect.name)
			require.Equal(t, idemflight.Hold, dispositionOf(t, c, theKey), "%s in Reconcile must not count: an unmarked error holds again", effect.name)
			require.Zero(t, asked, "Classify is not for Reconcile")

			// Around it an execution that began nothing itself.
			_, err = c.Do(t.Context(), "outer", func(ctx context.Context) (int, error) {
				_, err := c.Do(ctx, theKey, neverRuns(t))
				return 0, err
			})
			require.ErrorIs(t, err, answer)
			require.Equal(t, 1, asked, "%s in Reconcile must not count for the execution around it, whose Classify is asked", effect.name)

			answer = idemflight.Retryable(errors.New("it did not take place"))
			_, err = c.Do(t.Context(), theKey, returns(0, io.EOF))
			require.ErrorIs(t, err, io.EOF)
			require.Equal(t, 2, asked, "%s in Reconcile must not count for the fn that follows, whose Classify is asked", effect.name)
			require.Equal(t, idemflight.Release, dispositionOf(t, c, theKey), "Classify released it")
		})
	}
}

// It means nothing there, so it is not refused there either: not even when the time is up.
func TestPromise12_InReconcileBeginEffectReturnsNilWhenItsTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[string, int]{
			ExecTimeout: time.Minute,
			Reconcile: func(ctx context.Context, _ string, _ idemflight.Entry[int]) (int, error) {
				time.Sleep(time.Hour)
				if err := idemflight.BeginEffect(ctx); err != nil {
					t.Errorf("BeginEffect in Reconcile must return nil, got %v", err)
				}
				return 9, nil
			},
		})
		_, err := c.Do(t.Context(), theKey, returns(0, idemflight.Unknown(errors.New("lost"))))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		v, err := c.Do(t.Context(), theKey, neverRuns(t))
		require.NoError(t, err)
		require.Equal(t, 9, v, "what Reconcile found, late or not")
	})
}

// What net/http really returns, against servers on the loopback interface.
func TestPromise12_ClassifyDefaultReadsRealClientErrors(t *testing.T) {
	release := make(chan struct{})
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	}))
	defer cut.Close()
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer slow.Close()
	defer close(release)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()

	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	impatient := &http.Client{Transport: transport, Timeout: 50 * time.Millisecond}
	unresolved := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "bank", IsNotFound: true}}
	}}}
	post := func(c *http.Client, url string) func() (*http.Response, error) {
		return func() (*http.Response, error) { return c.Post(url, "text/plain", nil) }
	}
	for name, c := range map[string]struct {
		send func() (*http.Response, error)
		want idemflight.Disposition
	}{
		"POST, refused":        {post(client, gone.URL), idemflight.Release},
		"POST, no such host":   {post(unresolved, "http://bank.invalid"), idemflight.Release},
		"POST, connection cut": {post(client, cut.URL), idemflight.Hold},
		"POST, client timeout": {post(impatient, slow.URL), idemflight.Hold},
		"GET, refused":         {func() (*http.Response, error) { return client.Get(gone.URL) }, idemflight.Hold},
	} {
		resp, err := c.send()
		if err == nil {
			_ = resp.Body.Close()
		}
		require.Error(t, err, name)
		require.Equal(t, c.want, idemflight.ClassifyDefault(err), "%s: %v", name, err)
		require.Equal(t, c.want, judged(t, fmt.Errorf("charge: %w", err), func(context.Context) {}, nil), "%s, wrapped and returned by fn: %v", name, err)
	}
}
