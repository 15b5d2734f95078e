package clients

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/avast/retry-go/v4"
	"github.com/hashicorp/go-multierror"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/idemflight/idemflight"
)

var retryableHTTP = client{name: "retryablehttp", module: "github.com/hashicorp/go-retryablehttp", rows: []row{
	{
		what: "connection refused, at all attempts", effect: none, says: "giving up after 3 attempt(s)", want: idemflight.Release,
		fail: func(t *testing.T) error { return retryablePost(t, "http://"+refuses(t)) },
	}, {
		what: "the server hangs up without an answer, at all attempts", effect: possible, says: "giving up after 3 attempt(s)", want: idemflight.Hold,
		fail: func(t *testing.T) error { return retryablePost(t, hangsUp(t)) },
	}, {
		what: "the server hangs up at the first attempt, and refuses the others", effect: possible, says: "connect: connection refused", want: idemflight.Release,
		remark: unknowable + ": it keeps the last error only.",
		fail:   func(t *testing.T) error { return retryablePost(t, hangsUpAndIsGone(t)) },
	}, {
		what: "an answer 500 to all attempts", effect: possible, says: "giving up after 3 attempt(s)", want: idemflight.Release,
		remark: unknowable + ": an error with nothing but a text.",
		fail:   func(t *testing.T) error { return retryablePost(t, answers(t, http.StatusInternalServerError, nil, "")) },
	},
}}

func retryablePost(t *testing.T, url string) error {
	c := retryablehttp.NewClient()
	c.HTTPClient = &http.Client{Transport: transport(t)}
	c.Logger, c.RetryMax, c.RetryWaitMin, c.RetryWaitMax = nil, 2, time.Millisecond, time.Millisecond
	resp, err := c.Post(url, "text/plain", []byte("charge"))
	if err == nil {
		_ = resp.Body.Close()
	}
	return err
}

var retryGo = client{name: "retry-go", module: "github.com/avast/retry-go/v4", rows: []row{
	{
		what: "connection refused, at all attempts", effect: none, says: "All attempts fail", want: idemflight.Release,
		fail: func(t *testing.T) error {
			url := "http://" + refuses(t)
			return retry.Do(func() error { return post(t, http.Client{}, url) }, retry.Attempts(2), retry.Delay(time.Millisecond))
		},
	}, {
		what: "the server hangs up at the first attempt, and refuses the next", effect: possible, says: "All attempts fail", want: idemflight.Hold,
		remark: "The error has all attempts in it, and each is judged alone.",
		fail:   func(t *testing.T) error { return hungUpThenRefused(t) },
	}, {
		what: "the same with LastErrorOnly", effect: possible, says: "connect: connection refused", want: idemflight.Release,
		remark: unknowable + ": it keeps the last error only.",
		fail:   func(t *testing.T) error { return hungUpThenRefused(t, retry.LastErrorOnly(true)) },
	}, {
		what: "the context ends between attempts, after one that was refused", effect: none, says: "context canceled", want: idemflight.Hold,
		remark: "Held in vain: the end of the context is one of the errors, and might have come in the middle of an attempt.",
		fail: func(t *testing.T) error {
			ctx, cancel := context.WithCancel(context.Background())
			url := "http://" + refuses(t)
			return retry.Do(func() error { defer cancel(); return post(t, http.Client{}, url) }, retry.Context(ctx), retry.Attempts(2), retry.Delay(time.Minute))
		},
	}, {
		what: "Unrecoverable around a marker of fn", effect: possible, says: "no answer", want: idemflight.Hold,
		remark: "Markers are found in it.",
		fail: func(t *testing.T) error {
			return retry.Do(func() error { return retry.Unrecoverable(idemflight.Unknown(errors.New("no answer"))) })
		},
	},
}}

func hungUpThenRefused(t *testing.T, opts ...retry.Option) error {
	url := hangsUpAndIsGone(t)
	return retry.Do(func() error { return post(t, http.Client{}, url) }, append(opts, retry.Attempts(2), retry.Delay(time.Millisecond))...)
}

var multiError = client{name: "go-multierror", module: "github.com/hashicorp/go-multierror", rows: []row{
	{
		what: "connection refused by two servers", effect: none, says: "2 errors occurred", want: idemflight.Release,
		fail: func(t *testing.T) error {
			return multierror.Append(post(t, http.Client{}, "http://"+refuses(t)), post(t, http.Client{}, "http://"+refuses(t)))
		},
	}, {
		what: "one server hangs up without an answer, another refuses", effect: possible, says: "2 errors occurred", want: idemflight.Hold,
		fail: func(t *testing.T) error {
			return multierror.Append(post(t, http.Client{}, hangsUp(t)), post(t, http.Client{}, "http://"+refuses(t)))
		},
	}, {
		what: "one server refuses, another hangs up without an answer", effect: possible, says: "2 errors occurred", want: idemflight.Hold,
		fail: func(t *testing.T) error {
			return multierror.Append(post(t, http.Client{}, "http://"+refuses(t)), post(t, http.Client{}, hangsUp(t)))
		},
	}, {
		what: "a marker beside another error", effect: possible, says: "2 errors occurred", want: idemflight.Hold,
		remark: "Markers are found in it.",
		fail: func(t *testing.T) error {
			return multierror.Append(errors.New("out of paper"), idemflight.Unknown(errors.New("no answer")))
		},
	},
}}
