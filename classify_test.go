package idemflight_test

import (
	"context"
	"database/sql/driver"
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
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

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
				cache := idemflight.MustNew(options{
					Classify: func(err error) idemflight.Disposition { asked = append(asked, err); return says },
				})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				start(cache, ctx, theKey, func(context.Context) (int, error) { return c.end() })
				synctest.Wait()
				require.Len(t, asked, 1, "%s: calls of Classify", how)
				require.True(t, c.want(asked[0]),
					"%s: what Classify is asked about, got %#v", how, asked[0])
				require.Equal(t, says, dispositionOf(t, cache, theKey),
					"%s: Classify must decide", how)
				if says == idemflight.Retain {
					res, err := cache.DoResult(ctx, theKey, neverRuns(t))
					require.Equal(t, idemflight.Replayed, res.Source,
						"%s: retained by Classify", how)
					require.True(t, c.want(err), "%s: the replay must give the error that Classify retained, got %#v", how, err)
				}
			})
		}
	}
}

func TestPromise12_DispositionOutsideTheThreeIsHold(t *testing.T) {
	for _, d := range []idemflight.Disposition{-1, 3, 4, 99, math.MinInt32, math.MaxInt32} {
		events := &eventLog[string]{}
		c := idemflight.MustNew(options{
			Classify: func(error) idemflight.Disposition { return d },
			Observer: events.observe,
		})
		_, err := c.Do(context.Background(), theKey, returns(0, errors.New("failed")))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown,
			"Classify said Disposition(%d)", int(d))
		require.Equal(t, idemflight.Hold, dispositionOf(t, c, theKey),
			"Disposition(%d) must be Hold", int(d))
		require.Equal(t, uint64(1), c.Stats().Holds, "Stats.Holds after Disposition(%d)", int(d))
		require.Equal(t, idemflight.Hold, events.of(idemflight.EventExecuted)[0].Disposition,
			"Event.Disposition after Disposition(%d)", int(d))

		forget(c, theKey)
		_, err = c.Do(context.Background(), theKey, returns(0, errors.Join(errors.New("failed"), idemflight.Final(errors.New("final")))))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown,
			"Classify said Disposition(%d) of one part of a join", int(d))
	}
}

// isError matches another error by its Is method.
type isError struct{ target error }

func (e *isError) Error() string        { return "is " + e.target.Error() }
func (e *isError) Is(target error) bool { return target == e.target }

// classifyCases are errors without marker and what ClassifyLenient makes of each.
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
		// Every other error is released, so that the next call runs.
		"plain":                 {plain, Release},
		"plain, wrapped":        {wrap(plain), Release},
		"not exist":             {&fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}, Release},
		"Timeout() false":       {&timeoutError{false, plain}, Release},
		"connection refused":    {syscall.ECONNREFUSED, Release},
		"net.ErrWriteToConnect": {net.ErrWriteToConnected, Release},
		"empty tree":            {&treeError{nil}, Release},
		"tree of nil":           {&treeError{[]error{nil, nil}}, Release},
		"not comparable":        {sliceError{"a"}, Release},
		"parse":                 {&net.ParseError{Type: "IP", Text: "x"}, Release},

		// Held, each by itself.
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
		"io.ErrClosedPipe":     {wrap(io.ErrClosedPipe), Hold},
		"os.ErrClosed":         {&fs.PathError{Op: "write", Path: "|1", Err: os.ErrClosed}, Hold},
		"exec.ErrWaitDelay":    {wrap(exec.ErrWaitDelay), Hold},
		"driver.ErrBadConn":    {wrap(driver.ErrBadConn), Hold},
		"read, harmless":       {&net.OpError{Op: "read", Err: plain}, Hold},
		"host unreachable":     {&net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.EHOSTUNREACH)}, Hold},
		"network down":         {&net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ENETDOWN)}, Hold},
		"not connected":        {&net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("write", syscall.ENOTCONN)}, Hold},
		"TLS alert":            {&net.OpError{Op: "remote error", Err: errors.New("tls: internal error")}, Hold},
		"OpError without Op":   {&net.OpError{Err: plain}, Hold},
		"proxy not reached":    {&net.OpError{Op: "proxyconnect", Net: "tcp", Err: dial}, Hold},
		"Dial with a capital":  {&net.OpError{Op: "Dial", Err: plain}, Hold},
		"unreachable, without": {os.NewSyscallError("connect", syscall.EHOSTUNREACH), Release},

		// From the outside in, the first that speaks decides.
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
		"dial inside read":       {&net.OpError{Op: "read", Err: dial}, Hold},
		"DNS":                    {dns, Release},
		"DNS timed out":          {&net.DNSError{Err: "i/o timeout", IsTimeout: true}, Release},
		"DNS inside dial":        {&net.OpError{Op: "dial", Err: dns}, Release},
		"DNS inside read":        {&net.OpError{Op: "read", Err: dns}, Hold},
		"timeout around dial":    {&timeoutError{true, dial}, Hold},
		"timeout around DNS":     {&timeoutError{true, wrap(dns)}, Hold},
		"timeout around ours":    {&timeoutError{true, idemflight.ErrFull}, Hold},
		"timeout around url":     {&timeoutError{true, urlErr("Post", dial)}, Hold},
		"timeout around Get":     {&timeoutError{true, urlErr("Get", dial)}, Hold},
		"timeout around panic":   {&timeoutError{true, &idemflight.PanicError{Value: dial}}, Hold},
		"timeout, timeout, dial": {&timeoutError{true, &timeoutError{true, dial}}, Hold},
		"dial around Get":        {&net.OpError{Op: "dial", Err: urlErr("Get", io.EOF)}, Release},
		"dial around unknown":    {&net.OpError{Op: "dial", Err: idemflight.ErrOutcomeUnknown}, Release},
		"silent around dial":     {&timeoutError{false, dial}, Release},

		"Get around Post":        {urlErr("Get", urlErr("Post", dial)), Hold},
		"Post around ours":       {urlErr("Post", idemflight.ErrFull), Hold},
		"Post around panic":      {urlErr("Post", &idemflight.PanicError{Value: 1}), Hold},
		"Post, dial in a panic":  {urlErr("Post", &idemflight.PanicError{Value: dial}), Hold},
		"Post, proxy":            {urlErr("Post", &net.OpError{Op: "proxyconnect", Err: dial}), Release},
		"Post, dial, plain":      {urlErr("Post", errors.Join(dial, plain)), Release},
		"Post, dial, EOF":        {urlErr("Post", errors.Join(dial, io.EOF)), Hold},
		"Post, EOF, dial":        {urlErr("Post", wrap(attempts{io.EOF, dial})), Hold},
		"Post, dial, dial":       {urlErr("Post", attempts{dial, nil, dns}), Release},
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
		"join, dial inside timeouts": {errors.Join(&timeoutError{true, dial}, &timeoutError{true, dns}), Hold},
		"join, timeouts inside dial": {errors.Join(&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, dns), Release},
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
	// The answer of an inner Do: its key guards itself, unless it does not know either.
	for _, ours := range sentinels {
		want := Release
		switch ours {
		case idemflight.ErrOutcomeUnknown, idemflight.ErrStore, idemflight.ErrClaimLost:
			want = Hold
		}
		cases["ours: "+ours.Error()] = row{ours, want}
		cases["ours, wrapped: "+ours.Error()] = row{wrap(wrap(ours)), want}
		cases["ours by Is: "+ours.Error()] = row{&isError{ours}, want}
		cases["ours inside a timeout: "+ours.Error()] = row{&timeoutError{true, wrap(ours)}, Hold}
	}
	for name, r := range attemptCases() {
		cases[name] = row(r)
	}
	return cases
}

// wrapperError pretends nothing: it is a wrapper like any other.
type wrapperError struct{ err error }

func (e *wrapperError) Error() string { return "wrapper" }
func (e *wrapperError) Unwrap() error { return e.err }

// sentinels are the errors of this package except ErrGoexit, which is how an execution ends.
var sentinels = []error{
	idemflight.ErrKeyReused, idemflight.ErrInFlight, idemflight.ErrOutcomeUnknown, idemflight.ErrValueShed,
	idemflight.ErrFull, idemflight.ErrClosed, idemflight.ErrReentrant, idemflight.ErrInvalidKey,
	idemflight.ErrCallerLeft, idemflight.ErrInterrupted, idemflight.ErrNotExecuting,
	idemflight.ErrNotHeld, idemflight.ErrExpired, idemflight.ErrStore, idemflight.ErrClaimLost,
}

func TestPromise12_ClassifyLenientHoldsWhatIsAmbiguousAndReleasesTheRest(t *testing.T) {
	for name, c := range classifyCases() {
		require.Equal(t, c.want, idemflight.ClassifyLenient(c.err),
			"ClassifyLenient of %s: %#v", name, c.err)
		require.Equal(t, c.want, judged(t, c.err, func(context.Context) {}, idemflight.ClassifyLenient),
			"as Options.Classify, a key whose fn returned %s", name)
	}
}

// ClassifyLenient is asked last: what fn said about its effect comes first, for every one of them.
func TestPromise12_EffectCountComesBeforeClassifyLenient(t *testing.T) {
	for name, c := range classifyCases() {
		for _, effect := range effects {
			if !effect.ask {
				require.Equal(t, effect.want, judged(t, c.err, effect.say, idemflight.ClassifyLenient),
					"%s, %s", name, effect.name)
			}
		}
	}
}

func TestPromise12_AnInnerDoThatDoesNotKnowHoldsTheOuterKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := idemflight.MustNew(options{})
		outer := idemflight.MustNew(options{Classify: idemflight.ClassifyLenient})
		dial := &net.OpError{Op: "dial", Err: errors.New("refused")}
		for name, end := range map[string]error{"plain": errBoom, "dial": dial, "EOF": io.EOF, "ErrFull": idemflight.ErrFull, "panic": &idemflight.PanicError{Value: 1}} {
			_, err := inner.Do(t.Context(), name, returns(0, idemflight.Unknown(end)))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(err),
				"ErrOutcomeUnknown around %s: the outer of the two decides", name)
			require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(&url.Error{Op: "Post", Err: err}),
				"the same from below a client: what is inside it does not mean that nothing was sent")
			_, err = outer.Do(t.Context(), name, func(ctx context.Context) (int, error) { return inner.Do(ctx, name, neverRuns(t)) })
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			require.Equal(t, idemflight.Hold, dispositionOf(t, outer, name), "the outer key of a held one")
		}
	})
}

// The inner key guards the effect: the outer fn runs again, and the inner Do joins or replays.
func TestPromise12_AnInnerDoThatWasLeftReleasesTheOuterKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := idemflight.MustNew(options{})
		outer := idemflight.MustNew(options{Classify: idemflight.ClassifyLenient})
		_, err := outer.Do(t.Context(), "deadline", func(ctx context.Context) (int, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return inner.Do(ctx, "slow", returnsAfter(time.Minute, 7, nil))
		})
		require.ErrorIs(t, err, context.DeadlineExceeded, "the inner call left")
		require.Equal(t, idemflight.Release, dispositionOf(t, outer, "deadline"),
			"ErrCallerLeft around a deadline must release the outer key")

		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(err) // left, because another call had left
		_, err = inner.Do(ctx, "slow", neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrCallerLeft)
		require.Equal(t, idemflight.Release, idemflight.ClassifyLenient(err), "ErrCallerLeft around another one")
		time.Sleep(2 * time.Minute)
	})
}

func TestPromise12_AskedByAUserClassifyLenientFollowsMarkersAndNilIsRetain(t *testing.T) {
	require.Equal(t, idemflight.Retain, idemflight.ClassifyLenient(nil), "ClassifyLenient(nil)")
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
			require.Equal(t, m.want, idemflight.ClassifyLenient(err),
				"ClassifyLenient of %s, %s", m.name, name)
		}
		require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(errors.Join(m.mark(plain), io.EOF)), "%s beside an ambiguous error: each is judged alone", m.name)
		require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(&idemflight.PanicError{Value: m.mark(plain)}), "%s inside a panic", m.name)
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
func (e *trapError) SQLState() string     { e.trap("SQLState"); return "" }
func (e *trapError) GRPCStatus() *status  { e.trap("GRPCStatus"); return nil }

func (e *trapError) WrappedErrors() []error { e.trap("WrappedErrors"); return nil }

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
		"nil status":        (*statusError)(nil),
		"nil RPC":           (*rpcError)(nil),
		"nil SQL state":     (*stateError)(nil),
	}
	for how, f := range map[string]func(){"panics": func() { panic("misbehaves") }, "exits": runtime.Goexit} {
		for _, where := range []string{"Error", "Unwrap", "Is", "As", "Timeout", "WrappedErrors", "SQLState", "GRPCStatus"} {
			bad[where+" "+how] = &trapError{where, f}
		}
		bad["Unwrap() []error "+how] = &trapTree{f}
	}
	for name, err := range bad {
		for shape, returned := range map[string]error{"itself": err, "marked": idemflight.Unknown(err), "around": &wrapperError{err}, "beside": &treeError{[]error{idemflight.Retryable(io.EOF), err}}} {
			for _, inline := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					what := fmt.Sprintf("%s, %s, inline %v", name, shape, inline)
					c := idemflight.MustNew(options{MaxEntries: fewEntries, Classify: idemflight.ClassifyLenient})
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
						require.True(t, call.returned(),
							"%s: caller %d must not be stranded", what, i)
						require.True(t, call.err != nil || call.panicked != nil || call.exited,
							"%s: caller %d got (%d, nil)", what, i, call.res.Value)
					}
					require.Zero(t, c.Stats().InFlight, "%s: nothing must be left in flight", what)
					if shape == "marked" {
						require.Equal(t, idemflight.Hold, dispositionOf(t, c, theKey),
							"%s: the marker is found before the bad method", what)
					}
					if name == "nil *url.Error" || name == "nil *PanicError" {
						require.Equal(t, idemflight.Hold, dispositionOf(t, c, theKey),
							"%s: ambiguous by its type alone", what)
					}
					forget(c, theKey)
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
	c := idemflight.MustNew(options{Classify: idemflight.ClassifyLenient})
	err := &trapError{"Timeout", func() { panic("misbehaves") }}
	_, got := c.Do(context.Background(), theKey, returns(0, err))
	require.ErrorIs(t, got, idemflight.ErrOutcomeUnknown, "a classifier that panics cannot know")
	require.Equal(t, idemflight.Hold, dispositionOf(t, c, theKey),
		"after a panic in Classify the flight ends as a Hold")
}

// What net/http really returns, against servers on the loopback interface.
func TestPromise12_ClassifyLenientReadsRealClientErrors(t *testing.T) {
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
		require.Equal(t, c.want, idemflight.ClassifyLenient(err), "%s: %v", name, err)
		require.Equal(t, c.want, judged(t, fmt.Errorf("charge: %w", err), func(context.Context) {}, idemflight.ClassifyLenient), "%s, wrapped and returned by fn: %v", name, err)
	}
}

// timeoutTree is a timeout that joins nothing.
type timeoutTree struct{ parts []error }

func (timeoutTree) Error() string     { return "timeout" }
func (timeoutTree) Timeout() bool     { return true }
func (e timeoutTree) Unwrap() []error { return e.parts }

// Once: a timeout with an Unwrap method of several errors was judged by those alone, even if
// there were none.
func TestClassifyLenient_TimeoutThatJoinsNothingIsAmbiguous(t *testing.T) {
	require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(timeoutTree{}))
	require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(timeoutTree{[]error{nil}}))
	require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(timeoutTree{[]error{errors.New("plain")}}))
}

// Once: no test noticed the planted fault that a dial error was overlooked among joined ones. A
// client that tried several addresses joins what it met: if it could not dial one of them, a POST
// was not sent.
func TestClassifyLenient_DialErrorAmongJoinedOnesMeansNotSent(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: errors.New("refused")}
	joined := errors.Join(errors.New("proxy"), dial)
	require.Equal(t, idemflight.Release, idemflight.ClassifyLenient(&url.Error{Op: "Post", Err: joined}))
	require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(&url.Error{Op: "Get", Err: joined}), "a GET may be the redirect that followed the effect")
	require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(&url.Error{Op: "Post", Err: errors.Join(errors.New("proxy"), errors.New("other"))}))
}

// Classify is asked whatever the time. If ExecTimeout had passed when fn ended, the error that it is given
// is context.DeadlineExceeded as well: an error of a library that does not say so would pass for another.
func TestPromise12_ClassifyIsToldThatTheTimeWasOver(t *testing.T) {
	deadline := fmt.Errorf("rpc: %w", context.DeadlineExceeded)
	for name, end := range map[string]struct {
		took time.Duration
		fn   intFn
		late bool   // it is told
		text string // of what Classify gets, if that is not fn's own error
		own  error
	}{
		"in time":            {took: time.Second - 1, fn: returns(0, errBoom), own: errBoom},
		"at the instant":     {took: time.Second, fn: returns(0, errBoom), late: true, text: "after ExecTimeout: boom", own: errBoom},
		"late":               {took: time.Hour, fn: returns(0, errBoom), late: true, text: "after ExecTimeout: boom", own: errBoom},
		"late, and says so":  {took: time.Hour, fn: returns(0, deadline), late: true, own: deadline},
		"late, panics":       {took: time.Hour, fn: func(context.Context) (int, error) { panic(errBoom) }, late: true, own: errBoom},
		"late, exits":        {took: time.Hour, fn: goexits, late: true, own: idemflight.ErrGoexit},
		"late, looks for it": {fn: func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, errBoom }, late: true, text: "after ExecTimeout: boom", own: errBoom},
	} {
		for _, d := range []idemflight.Disposition{idemflight.Release, idemflight.Hold} {
			t.Run(fmt.Sprintf("%s, %v", name, d), func(t *testing.T) {
				eachLeader(t, func(t *testing.T, _ context.Context, _ context.CancelFunc, opts []idemflight.CallOption) {
					var asked []error
					c := idemflight.MustNew(options{ExecTimeout: time.Second, Classify: func(err error) idemflight.Disposition {
						asked = append(asked, err)
						return d
					}})
					call := start(c, bg, theKey, func(ctx context.Context) (int, error) { time.Sleep(end.took); return end.fn(ctx) }, opts...)
					synctest.Wait()
					joined := start(c, bg, theKey, neverRuns(t))
					time.Sleep(2 * time.Hour)
					synctest.Wait()
					require.True(t, call.returned())
					require.Len(t, asked, 1, "Classify is asked once, whatever the time")
					require.ErrorIs(t, asked[0], end.own, "Classify gets fn's error")
					require.Equal(t, end.late, errors.Is(asked[0], context.DeadlineExceeded), "whether Classify is told: %v", asked[0])
					if end.text != "" {
						require.EqualError(t, asked[0], end.text)
					}
					require.Equal(t, d, dispositionOf(t, c, theKey), "what Classify says counts")
					require.ErrorIs(t, joined.err, end.own, "callers get fn's own error")
					if !errors.Is(end.own, context.DeadlineExceeded) {
						require.NotErrorIs(t, joined.err, context.DeadlineExceeded, "callers get fn's own error")
					}
					if e, ok := lookup(c, theKey); ok {
						require.NotContains(t, e.Err.Error(), "ExecTimeout", "what is kept is fn's own error")
					}
				})
			})
		}
	}
}
