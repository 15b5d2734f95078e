package idemflight_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// Errors that ClassifyLenient knows by their shape, in types of our own. What the real ones are is
// tested in verify/clients.

// multi is how the multi-errors from before errors.Join are made: WrappedErrors lists the parts, and
// Unwrap begins a chain of tails whose first members are seen by Is and As alone.
type multi struct{ errs []error }

func (m *multi) Error() string          { return errors.Join(m.errs...).Error() }
func (m *multi) WrappedErrors() []error { return m.errs }
func (m *multi) Unwrap() error          { return tail(m.errs) }

type tail []error

func (t tail) Error() string { return t[0].Error() }
func (t tail) Unwrap() error {
	if len(t) == 1 {
		return nil
	}
	return t[1:]
}
func (t tail) Is(target error) bool { return errors.Is(t[0], target) }
func (t tail) As(target any) bool   { return errors.As(t[0], target) }

// attempts is how retry libraries tell of all attempts: Is looks at each, Unwrap gives the last.
type attempts []error

func (a attempts) Error() string { return errors.Join(a...).Error() }
func (a attempts) Is(target error) bool {
	for _, err := range a {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
func (a attempts) Unwrap() error          { return a[len(a)-1] }
func (a attempts) WrappedErrors() []error { return a }

// forwarding is a wrapper whose Is answers for what it wraps.
type forwarding struct{ err error }

func (e *forwarding) Error() string        { return "forwarding" }
func (e *forwarding) Unwrap() error        { return e.err }
func (e *forwarding) Is(target error) bool { return errors.Is(e.err, target) }

// listless has the older method, and an Unwrap that it leaves the work to.
type listless struct{ err error }

func (e *listless) Error() string          { return "listless" }
func (e *listless) Unwrap() error          { return e.err }
func (e *listless) WrappedErrors() []error { return []error{nil} }

// attemptCases are errors that join others, as retry libraries and older multi-errors do.
func attemptCases() map[string]struct {
	err  error
	want idemflight.Disposition
} {
	const Release, Hold = idemflight.Release, idemflight.Hold
	type row = struct {
		err  error
		want idemflight.Disposition
	}
	plain := errors.New("card has expired")
	dial := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	slowDial := &net.OpError{Op: "dial", Net: "tcp", Err: context.DeadlineExceeded}
	read := &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	return map[string]row{
		"attempts: deadline, dial":   {attempts{context.DeadlineExceeded, dial}, Hold},
		"attempts: dial, deadline":   {attempts{dial, context.DeadlineExceeded}, Hold},
		"attempts: reset, dial":      {attempts{read, dial}, Hold},
		"attempts: dial, dial":       {attempts{dial, dial}, Release},
		"attempts: slow dial":        {attempts{slowDial, dial}, Release},
		"attempts: plain":            {attempts{plain, plain}, Release},
		"attempts: ours, reset":      {attempts{idemflight.ErrFull, read}, Hold},
		"attempts: ours, ours":       {attempts{idemflight.ErrFull, idemflight.ErrClosed}, Release},
		"attempts: unknown, dial":    {attempts{idemflight.ErrOutcomeUnknown, dial}, Hold},
		"attempts: Post, EOF":        {attempts{&url.Error{Op: "Post", Err: io.EOF}, &url.Error{Op: "Post", Err: dial}}, Hold},
		"attempts: Post, Post":       {attempts{&url.Error{Op: "Post", Err: dial}, &url.Error{Op: "Post", Err: dial}}, Release},
		"attempts, wrapped":          {fmt.Errorf("charge: %w", attempts{io.EOF, dial}), Hold},
		"attempts in attempts":       {attempts{attempts{io.EOF, dial}, dial}, Hold},
		"multi: deadline first":      {&multi{[]error{context.DeadlineExceeded, dial}}, Hold},
		"multi: deadline last":       {&multi{[]error{dial, context.DeadlineExceeded}}, Hold},
		"multi: read first":          {&multi{[]error{read, dial}}, Hold},
		"multi: dial, plain":         {&multi{[]error{dial, plain}}, Release},
		"multi: slow dial":           {&multi{[]error{slowDial, plain}}, Release},
		"multi: one":                 {&multi{[]error{read}}, Hold},
		"multi in a join":            {errors.Join(plain, &multi{[]error{read, plain}}), Hold},
		"a list of nothing":          {&listless{io.EOF}, Hold},
		"a list of nothing, plain":   {&listless{plain}, Release},
		"timeout around attempts":    {&timeoutError{true, attempts{dial, dial}}, Hold},
		"forwarding Is, slow dial":   {&forwarding{slowDial}, Release},
		"forwarding Is, deadline":    {&forwarding{context.DeadlineExceeded}, Hold},
		"forwarding Is, ours":        {&forwarding{fmt.Errorf("%w", idemflight.ErrFull)}, Release},
		"forwarding Is, ours, reset": {&forwarding{errors.Join(idemflight.ErrFull, read)}, Hold},
		"Is beside joined parts":     {&isAndJoins{io.EOF, []error{plain, dial}}, Hold},
		"Is beside an empty join":    {&isAndJoins{io.EOF, nil}, Hold},
	}
}

// isAndJoins is an error that says itself what it is, beside what it joins.
type isAndJoins struct {
	target error
	parts  []error
}

func (e *isAndJoins) Error() string        { return "is and joins" }
func (e *isAndJoins) Is(target error) bool { return target == e.target }
func (e *isAndJoins) Unwrap() []error      { return e.parts }

// The first attempt timed out and may have been done, the last could not connect.
func TestPromise12_TheFirstAttemptTimedOutTheLastWasRefused(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for _, err := range []error{
		attempts{context.DeadlineExceeded, refused},
		&multi{[]error{context.DeadlineExceeded, refused}},
		errors.Join(context.DeadlineExceeded, refused),
	} {
		require.Equal(t, idemflight.Hold, judged(t, err, func(context.Context) {}, idemflight.ClassifyLenient), "%T", err)
	}
}

// No classifier can know: if a client below fn keeps the error of its last attempt only, and that
// attempt could not connect, a POST looks as if it was never sent.
func TestPromise12_AnAttemptThatIsNotInTheErrorIsNotSeen(t *testing.T) {
	last := &url.Error{Op: "Post", Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}
	require.Equal(t, idemflight.Release, idemflight.ClassifyLenient(fmt.Errorf("giving up after 3 attempts: %w", last)))
}

// stateError is how a PostgreSQL driver tells of the server's error.
type stateError struct {
	state string
	err   error
}

func (e *stateError) Error() string    { return "SQLSTATE " + e.state }
func (e *stateError) SQLState() string { return e.state }
func (e *stateError) Unwrap() error    { return e.err }

func TestPromise12_ClassifyLenientReadsSQLStates(t *testing.T) {
	want := map[string]idemflight.Disposition{
		"08000": idemflight.Hold, "08003": idemflight.Hold, "08006": idemflight.Hold, "08007": idemflight.Hold, "08P01": idemflight.Hold,
		"40003": idemflight.Hold, "57P01": idemflight.Hold, "57P02": idemflight.Hold, "57P03": idemflight.Hold,
	}
	for _, released := range []string{
		"08001", "08004", "00000", "23505", "40000", "40001", "40002", "40P01", "53300", "57014", "57000", "57P00", "57P04", "57P05",
		"XX000", "8006", "008006", "x",
	} {
		want[released] = idemflight.Release
	}
	for state, want := range want {
		require.Equal(t, want, idemflight.ClassifyLenient(&stateError{state: state}), "SQLSTATE %s", state)
		require.Equal(t, want, idemflight.ClassifyLenient(fmt.Errorf("insert: %w", &stateError{state, io.EOF})),
			"SQLSTATE %s around what is ambiguous: the state speaks first", state)
		require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(&timeoutError{true, &stateError{state: state}}),
			"SQLSTATE %s inside a timeout: the timeout speaks first", state)
	}
	require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(&stateError{"", io.EOF}), "without a state it does not speak")
	require.Equal(t, idemflight.Release, idemflight.ClassifyLenient(&stateError{"", nil}))
}

// The shapes of gRPC's and Connect's errors, and what only looks like them.
type (
	code   uint32
	status struct{ code code }

	statusError struct { // gRPC: the code is on what GRPCStatus returns
		code code
		err  error
	}
	rpcError struct { // Connect
		code code
		err  error
	}
	anyStatus    struct{ status any }
	ifaceStatus  struct{ status interface{ Code() code } }
	valueStatus  struct{ status statusValue }
	statusValue  struct{ code code }
	intStatus    struct{}
	intCode      struct{}
	argStatus    struct{}
	argCode      struct{}
	twoStatuses  struct{}
	noStatus     struct{}
	onlyCode     struct{ code code }
	codeAndMeta  struct{ code code }
	stringRPC    struct{}
	wrongDetails struct{ code code }
	bothShapes   struct {
		state string
		code  code
	}
)

func (s *status) Code() code {
	if s == nil {
		return 0
	}
	return s.code
}

func (e *statusError) Error() string       { return fmt.Sprintf("rpc error: code = %d", e.code) }
func (e *statusError) GRPCStatus() *status { return &status{e.code} }
func (e *statusError) Unwrap() error       { return e.err }

func (e *rpcError) Error() string             { return fmt.Sprintf("code %d", e.code) }
func (e *rpcError) Code() code                { return e.code }
func (e *rpcError) Meta() map[string][]string { return nil }
func (e *rpcError) Details() []*int           { return nil }
func (e *rpcError) Unwrap() error             { return e.err }

func (e anyStatus) Error() string                          { return "status of any type" }
func (e anyStatus) GRPCStatus() any                        { return e.status }
func (e ifaceStatus) Error() string                        { return "status behind an interface" }
func (e ifaceStatus) GRPCStatus() interface{ Code() code } { return e.status }
func (e valueStatus) Error() string                        { return "status by value" }
func (e valueStatus) GRPCStatus() statusValue              { return e.status }
func (s statusValue) Code() code                           { return s.code }

func (intStatus) Error() string                 { return "status with a code of kind int" }
func (intStatus) GRPCStatus() intCode           { return intCode{} }
func (intCode) Code() int                       { return 14 }
func (argStatus) Error() string                 { return "status whose code takes an argument" }
func (argStatus) GRPCStatus() argCode           { return argCode{} }
func (argCode) Code(...int) code                { return 14 }
func (twoStatuses) Error() string               { return "two statuses" }
func (twoStatuses) GRPCStatus() (*status, bool) { return &status{14}, true }
func (noStatus) Error() string                  { return "no status" }
func (noStatus) GRPCStatus()                    {}

func (e onlyCode) Error() string                         { return "only a code" }
func (e onlyCode) Code() code                            { return e.code }
func (e codeAndMeta) Error() string                      { return "no details" }
func (e codeAndMeta) Code() code                         { return e.code }
func (e codeAndMeta) Meta() any                          { return nil }
func (stringRPC) Error() string                          { return "a code that is a text" }
func (stringRPC) Code() string                           { return "unavailable" }
func (stringRPC) Meta() any                              { return nil }
func (stringRPC) Details() any                           { return nil }
func (wrongDetails) Error() string                       { return "details of one's own" }
func (e wrongDetails) Code() code                        { return e.code }
func (wrongDetails) Meta() any                           { return nil }
func (wrongDetails) Details(verbose bool) (string, bool) { return "", verbose }

func (e bothShapes) Error() string       { return "an error of both shapes" }
func (e bothShapes) SQLState() string    { return e.state }
func (e bothShapes) GRPCStatus() *status { return &status{e.code} }

func TestPromise12_ClassifyLenientReadsTheStatusOfAnRPC(t *testing.T) {
	held := map[code]bool{1: true, 2: true, 4: true, 8: true, 13: true, 14: true, 15: true}
	for c := code(1); c <= 20; c++ {
		want := idemflight.Release
		if held[c] {
			want = idemflight.Hold
		}
		for _, err := range []error{
			&statusError{code: c}, &rpcError{code: c}, anyStatus{&status{c}}, ifaceStatus{&status{c}}, valueStatus{statusValue{c}}, bothShapes{"", c}, bothShapes{"23505", c},
		} {
			require.Equal(t, want, idemflight.ClassifyLenient(err), "%T, code %d", err, c)
			require.Equal(t, want, idemflight.ClassifyLenient(fmt.Errorf("charge: %w", err)), "%T, code %d, wrapped", err, c)
			require.Equal(t, want, idemflight.ClassifyLenient(errors.Join(errBoom, err)), "%T, code %d, joined", err, c)
			require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(&timeoutError{true, err}), "%T, code %d: the timeout speaks first", err, c)
		}
		for _, inner := range []error{io.EOF, driver.ErrBadConn, &net.OpError{Op: "dial", Err: errBoom}} {
			require.Equal(t, want, idemflight.ClassifyLenient(&statusError{c, inner}), "gRPC, code %d around %v: the status speaks first", c, inner)
			require.Equal(t, want, idemflight.ClassifyLenient(&rpcError{c, inner}), "Connect, code %d around %v: the status speaks first", c, inner)
		}
	}
	require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(bothShapes{"57P01", 5}), "of what one error says, what holds comes first")
}

func TestPromise12_WhatLooksLikeAStatusAndIsNoneDoesNotSpeak(t *testing.T) {
	for _, err := range []error{
		&statusError{code: 0}, &rpcError{code: 0}, (*statusError)(nil), (*rpcError)(nil),
		anyStatus{nil}, anyStatus{(*status)(nil)}, anyStatus{14}, anyStatus{"14"}, anyStatus{struct{ Code code }{14}}, anyStatus{onlyCode{}}, ifaceStatus{nil}, ifaceStatus{(*status)(nil)},
		intStatus{}, argStatus{}, twoStatuses{}, noStatus{},
		onlyCode{14}, codeAndMeta{14}, stringRPC{}, wrongDetails{14},
	} {
		require.Nil(t, panicOf(func() {
			if e, ok := err.(interface{ Unwrap() error }); ok && panicOf(func() { _ = e.Unwrap() }) != nil {
				return // ClassifyLenient does not guard what the search through any error calls
			}
			require.Equal(t, idemflight.Release, idemflight.ClassifyLenient(err), "%T %+v", err, err)
			require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(errors.Join(err, io.EOF)), "%T", err)
		}), "%T must not panic", err)
	}
	require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(&statusError{0, io.EOF}), "OK says nothing, and the search goes on")
	require.Equal(t, idemflight.Hold, idemflight.ClassifyLenient(&rpcError{0, io.EOF}), "OK says nothing, and the search goes on")
}
