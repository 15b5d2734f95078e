package clients

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/idemflight/idemflight"
)

type text = wrapperspb.StringValue

var connectClient = client{name: "Connect", module: "connectrpc.com/connect", rows: []row{
	{
		what: "connection refused", effect: none, says: "unavailable: ", want: idemflight.Hold, is: connectCode(connect.CodeUnavailable),
		remark: "Held in vain: the status is outside of the dial error, and speaks first.",
		fail:   func(t *testing.T) error { return connectCall(t, within(t, enough), "http://"+refuses(t)) },
	}, {
		what: "the server hangs up without an answer", effect: possible, says: "unavailable: unexpected EOF", want: idemflight.Hold, is: connectCode(connect.CodeUnavailable),
		fail: func(t *testing.T) error { return connectCall(t, within(t, enough), hangsUp(t)) },
	}, {
		what: "deadline of the call", effect: possible, says: "deadline_exceeded", want: idemflight.Hold, is: connectCode(connect.CodeDeadlineExceeded),
		fail: func(t *testing.T) error { return connectCall(t, within(t, hung), "http://"+silent(t)) },
	}, {
		what: "the caller cancels", effect: possible, says: "canceled", want: idemflight.Hold, is: connectCode(connect.CodeCanceled),
		fail: func(t *testing.T) error {
			ctx, cancel := context.WithCancel(context.Background())
			return connectCall(t, ctx, connectServer(t, func(ctx context.Context) error { cancel(); <-ctx.Done(); return ctx.Err() }))
		},
	},
	connectAnswer(connect.CodeInvalidArgument, none, idemflight.Release, ""),
	connectAnswer(connect.CodeAlreadyExists, none, idemflight.Release, "An earlier attempt may have made it: `Final(err)`, or look."),
	connectAnswer(connect.CodeFailedPrecondition, none, idemflight.Release, ""),
	connectAnswer(connect.CodeAborted, none, idemflight.Release, "By convention: the server gave up and says to try again."),
	connectAnswer(connect.CodeInternal, possible, idemflight.Hold, ""),
	connectAnswer(connect.CodeResourceExhausted, none, idemflight.Hold, "Held in vain after a quota; a client whose limit of the answer's size is exceeded gets the same code."),
	{
		what: "the handler returns an error without a code", effect: possible, says: "unknown: out of paper", want: idemflight.Hold, is: connectCode(connect.CodeUnknown),
		fail: func(t *testing.T) error {
			return connectCall(t, within(t, enough), connectServer(t, func(context.Context) error { return errors.New("out of paper") }))
		},
	}, {
		what: "something in between answers 502", effect: possible, says: "unavailable: 502 Bad Gateway", want: idemflight.Hold, is: connectCode(connect.CodeUnavailable),
		fail: func(t *testing.T) error {
			return connectCall(t, within(t, enough), answers(t, http.StatusBadGateway, nil, "<html>"))
		},
	}, {
		what: "a method that the server does not have (404)", effect: none, says: "unimplemented: 404 Not Found", want: idemflight.Release, is: connectCode(connect.CodeUnimplemented),
		fail: func(t *testing.T) error {
			return connectCall(t, within(t, enough), answers(t, http.StatusNotFound, nil, "<html>"))
		},
	},
}}

// connectAnswer is the row of a handler that answers with a code.
func connectAnswer(code connect.Code, e effect, want idemflight.Disposition, remark string) row {
	return row{
		what: "the handler answers " + code.String(), effect: e, says: code.String() + ": no", want: want, remark: remark, is: connectCode(code),
		fail: func(t *testing.T) error {
			return connectCall(t, within(t, enough), connectServer(t, func(context.Context) error { return connect.NewError(code, errors.New("no")) }))
		},
	}
}

func connectCode(code connect.Code) func(error) bool {
	return func(err error) bool {
		e, ok := errors.AsType[*connect.Error](err)
		return ok && e.Code() == code
	}
}

func connectServer(t *testing.T, handle func(context.Context) error) string {
	h := connect.NewUnaryHandler("/bank.Bank/Charge", func(ctx context.Context, _ *connect.Request[text]) (*connect.Response[text], error) {
		return connect.NewResponse(wrapperspb.String("charged")), handle(ctx)
	})
	return serves(t, h.ServeHTTP)
}

func connectCall(t *testing.T, ctx context.Context, url string) error {
	c := connect.NewClient[text, text](&http.Client{Transport: transport(t)}, url+"/bank.Bank/Charge")
	_, err := c.CallUnary(ctx, connect.NewRequest(wrapperspb.String("100")))
	return err
}
