package idemflight

import (
	"context"
	"database/sql/driver"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
)

// ClassifyLenient is an Options.Classify for an fn that does one thing: it holds errors that are
// known to be ambiguous and releases all others, so that the next call runs fn again.
//
// No classifier can know for certain. An error tells what failed last, not what fn did before, and
// many clients report a lost answer in words of their own. So let fn say it: call [NoEffect] first
// thing in fn, and [BeginEffect] before what matters; then no classifier is asked.
//
// ClassifyLenient reads a chain of errors from the outside in, and the first error that speaks
// decides. Joined errors (Unwrap() []error, or WrappedErrors() []error) are judged one by one, and
// Hold wins. These are held:
//
//   - *[PanicError], [ErrGoexit], and [ErrOutcomeUnknown], [ErrStore] and [ErrClaimLost]
//     of an inner Do;
//   - [context.Canceled], [context.DeadlineExceeded], and any error whose Timeout() is true;
//   - [io.EOF], [io.ErrUnexpectedEOF], [io.ErrClosedPipe], [os.ErrClosed], [net.ErrClosed], a
//     connection reset or aborted, a broken pipe, [exec.ErrWaitDelay], [driver.ErrBadConn];
//   - *[net.OpError], unless its Op is "dial";
//   - *[url.Error], unless its Op is neither Get nor Head and a dial or DNS error is in it, so that
//     nothing was sent. (A GET may be the redirect that followed the effect.) This is wrong if a
//     client below fn retries, and its first attempt arrived before it failed to connect again; and
//     if a POST is answered by a redirect to a host that cannot be reached;
//   - an SQLState() of class 08, except 08001 and 08004, and 40003 and 57P01 to 57P03;
//   - a status of gRPC or Connect that is Canceled, Unknown, DeadlineExceeded, ResourceExhausted,
//     Internal, Unavailable or DataLoss.
//
// These speak too, and are released: *[net.OpError] with Op "dial" and *[net.DNSError], timeouts
// included, other states and statuses, and the other errors of this package. If there are markers,
// they decide ([Final]: Retain). nil is Retain.
//
// Where repeating is better than blocking, as with most e-mails, use func(error) Disposition {
// return Release } as Classify.
func ClassifyLenient(err error) Disposition {
	if err == nil {
		return Retain
	}
	if d, found := markedAs(err, classify); found {
		return d
	}
	return classify(err)
}

// classify is ClassifyLenient without regard to markers, which are no part of a chain's meaning
// once they have been heeded. It never returns Retain.
func classify(err error) Disposition {
	w := walk{left: maxErrors}
	return w.classify(err)
}

func (w *walk) classify(err error) Disposition {
	for err != nil {
		if w.tooLong() {
			return Hold
		}
		if d, speaks := w.decide(err); speaks {
			return d
		}
		parts, one := inside(err)
		if one == nil {
			return w.classifyJoined(parts)
		}
		err = one
	}
	return Release
}

func (w *walk) classifyJoined(errs []error) Disposition {
	d := Release
	for _, err := range errs {
		if err != nil {
			d = max(d, w.classify(err))
		}
	}
	return d
}

// decide looks at err itself, not at what it wraps, except for what a *url.Error encloses. Of
// several things that one error says, what holds comes before what releases.
func (w *walk) decide(err error) (d Disposition, speaks bool) {
	switch e := err.(type) {
	case *PanicError, *unknownError:
		return Hold, true
	case *leftError:
		return Release, true
	case *url.Error:
		reads := strings.EqualFold(e.Op, "Get") || strings.EqualFold(e.Op, "Head")
		if !reads && w.neverSent(e.Err) {
			return Release, true
		}
		return Hold, true
	case *net.OpError:
		if e.Op == "dial" {
			return Release, true
		}
		return Hold, true
	case *net.DNSError:
		return Release, true
	}
	if isAmbiguous(err) {
		return Hold, true
	}
	if saysOneOf(err, ownSentinels) {
		return Release, true
	}
	state, hasState := sqlState(err)
	if hasState && ambiguousState(state) {
		return Hold, true
	}
	code, hasCode := statusCode(err)
	if hasCode && ambiguousCode(code) {
		return Hold, true
	}
	return Release, hasState || hasCode
}

// neverSent reports whether a dial or DNS error is in err. Where errors are joined, one attempt
// that could not connect says nothing about another one that may have arrived.
func (w *walk) neverSent(err error) bool {
	for err != nil && !w.tooLong() {
		switch e := err.(type) {
		case *PanicError, *unknownError:
			return false
		case *net.OpError:
			if e.Op == "dial" {
				return true
			}
		case *net.DNSError:
			return true
		}
		parts, one := inside(err)
		if one == nil {
			return w.noneSent(parts)
		}
		err = one
	}
	return false
}

func (w *walk) noneSent(errs []error) bool {
	found := false
	for _, err := range errs {
		switch {
		case err == nil:
		case w.neverSent(err):
			found = true
		case w.classify(err) == Hold:
			return false
		}
	}
	return found
}

// isAmbiguous reports whether err itself, not what it wraps, may come after the effect.
func isAmbiguous(err error) bool {
	if t, ok := err.(interface{ Timeout() bool }); ok && t.Timeout() {
		return true
	}
	return saysOneOf(err, ambiguous) || saysOneOf(err, ownAmbiguous)
}

// ambiguous are the errors of the standard library that may come after the effect.
var ambiguous = append([]error{
	context.Canceled, context.DeadlineExceeded,
	io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, os.ErrClosed, net.ErrClosed,
	exec.ErrWaitDelay, driver.ErrBadConn,
}, connectionLost...)

// ownAmbiguous are this package's own.
var ownAmbiguous = []error{ErrGoexit, ErrOutcomeUnknown, ErrStore, ErrClaimLost}

func saysOneOf(err error, sentinels []error) bool {
	for _, sentinel := range sentinels {
		if says(err, sentinel) {
			return true
		}
	}
	return false
}

// says is errors.Is without the unwrapping: it reports whether err is target, or says so by its Is
// method. A multi-error's Is answers for its parts, and many a wrapper's for what it wraps. That is
// not err's own word: what is inside is judged where it stands.
func says(err, target error) bool {
	if err == target {
		return true
	}
	e, ok := err.(interface{ Is(error) bool })
	if !ok || !e.Is(target) {
		return false
	}
	w := walk{left: maxErrors}
	return !w.wraps(err, target)
}

// wraps reports whether target is inside err, which is more than one error deep.
func (w *walk) wraps(err, target error) bool {
	is := func(err error) bool {
		if err == nil || w.tooLong() {
			return false
		}
		e, ok := err.(interface{ Is(error) bool })
		return err == target || ok && e.Is(target) || w.wraps(err, target)
	}
	parts, one := inside(err)
	return is(one) || slices.ContainsFunc(parts, is)
}

// sqlState returns the SQLSTATE of an error of a database, as pgx and lib/pq tell it.
func sqlState(err error) (state string, ok bool) {
	e, ok := err.(interface{ SQLState() string })
	if !ok {
		return "", false
	}
	state = e.SQLState()
	return state, state != ""
}

// ambiguousState reports whether a statement that ended with this SQLSTATE may
// have been carried out.
func ambiguousState(state string) bool {
	switch state {
	case "08001", "08004": // no connection came about
		return false
	case "40003", // statement completion unknown
		"57P01", "57P02", "57P03": // the server shuts down, has crashed, cannot connect now
		return true
	}
	return strings.HasPrefix(state, "08")
}

// statusCode returns the code of an RPC's status. Its type is told by its shape, because the
// packages it comes from are no dependency of this one: gRPC's error has a GRPCStatus method whose
// result has Code; Connect's has Code, and Meta and Details beside it or, since its v2, IsRemote. Code
// is of kind uint32 in both. 0 is OK, which is no error: it does not speak.
//
// The names of the methods must be constants: for a name that it does not know the linker keeps
// every exported method of the program.
func statusCode(err error) (code uint64, ok bool) {
	v := reflect.ValueOf(err)
	if isNil(v) {
		return 0, false
	}
	if get := v.MethodByName("GRPCStatus"); isGetter(get) {
		status := get.Call(nil)[0]
		if status.Kind() == reflect.Interface {
			status = status.Elem()
		}
		if !status.IsValid() || isNil(status) {
			return 0, false
		}
		return codeFrom(status.MethodByName("Code"))
	}
	if isGetter(v.MethodByName("Meta")) && isGetter(v.MethodByName("Details")) || isGetter(v.MethodByName("IsRemote")) {
		return codeFrom(v.MethodByName("Code"))
	}
	return 0, false
}

func isNil(v reflect.Value) bool { return v.Kind() == reflect.Pointer && v.IsNil() }

// isGetter reports whether method is there, takes nothing and returns one value.
func isGetter(method reflect.Value) bool {
	return method.IsValid() && method.Type().NumIn() == 0 && method.Type().NumOut() == 1
}

func codeFrom(method reflect.Value) (code uint64, ok bool) {
	if !isGetter(method) || method.Type().Out(0).Kind() != reflect.Uint32 {
		return 0, false
	}
	code = method.Call(nil)[0].Uint()
	return code, code != 0
}

// ambiguousCode reports whether a call that ended with this code, which gRPC and Connect share, may
// have been carried out.
func ambiguousCode(code uint64) bool {
	switch code {
	case 1, // Canceled
		2,  // Unknown
		4,  // DeadlineExceeded
		8,  // ResourceExhausted
		13, // Internal
		14, // Unavailable
		15: // DataLoss
		return true
	}
	return false
}
