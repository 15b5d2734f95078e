package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	vegeta "github.com/tsenart/vegeta/v12/lib"

	"github.com/idemflight/idemflight/idemhttp"
)

const (
	clientTimeout  = 700 * time.Millisecond // how long a client waits for an answer before it hangs up and asks again
	clientPatience = 2 * time.Minute        // after which it goes without an answer
)

// answers are what clients were told in the end, by order: different answers only.
type answers map[string][]answer

type answer struct {
	status int
	charge int64 // of a receipt
}

func (a answer) receipt() bool { return a.status == http.StatusCreated }

// ask asks for n orders, at that rate, and adds what the clients are told.
func (as answers) ask(ctx context.Context, addr string, n, rate int) error {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	defer transport.CloseIdleConnections()
	attacker := vegeta.NewAttacker(vegeta.Client(retrying(ctx, transport)))
	defer context.AfterFunc(ctx, func() { attacker.Stop() })()
	var next atomic.Int64
	target := func(t *vegeta.Target) error {
		order := orderID(int(next.Add(1) - 1))
		t.Method, t.URL = http.MethodPost, fmt.Sprintf("http://%s/orders/%s", addr, order)
		t.Header = http.Header{"Idempotency-Key": {order}, "Content-Type": {"application/json"}}
		t.Body = []byte(`{"cents":1200}`)
		return nil
	}
	pace := atMost{vegeta.ConstantPacer{Freq: rate, Per: time.Second}, uint64(n)}
	var failed error
	for told := range attacker.Attack(target, pace, 0, "") {
		if told.Code != 0 { // otherwise its client has lost its patience
			failed = cmp.Or(failed, as.add(path.Base(told.URL), int(told.Code), told.Body))
		}
	}
	return cmp.Or(ctx.Err(), failed)
}

func orderID(n int) string { return fmt.Sprintf("order-%d", n) }

func (as answers) add(order string, status int, body []byte) error {
	a := answer{status: status}
	if status == http.StatusCreated {
		var r receipt
		if err := json.Unmarshal(body, &r); err != nil || r.Order != order {
			return fmt.Errorf("%q is no receipt of %s", body, order)
		}
		a.charge = r.Charge
	}
	if !slices.Contains(as[order], a) {
		as[order] = append(as[order], a)
	}
	return nil
}

// atMost is a vegeta.Pacer that stops after so many hits.
type atMost struct {
	vegeta.ConstantPacer
	hits uint64
}

func (p atMost) Pace(elapsed time.Duration, hits uint64) (time.Duration, bool) {
	if hits >= p.hits {
		return 0, true
	}
	return p.ConstantPacer.Pace(elapsed, hits)
}

// retrying returns a client that sends a request with a key again, under the same key, until it has an answer that is
// final, or ctx ends.
func retrying(ctx context.Context, transport http.RoundTripper) *http.Client {
	c := retryablehttp.NewClient()
	c.HTTPClient = &http.Client{Transport: &idemhttp.Transport{Base: transport}, Timeout: clientTimeout}
	c.Logger = nil
	c.CheckRetry = func(request context.Context, answer *http.Response, err error) (bool, error) {
		if over := cmp.Or(ctx.Err(), request.Err()); over != nil {
			return false, over
		}
		return again(answer, err), nil
	}
	c.Backoff = retryablehttp.LinearJitterBackoff // sooner than Retry-After asks for
	c.RetryWaitMin, c.RetryWaitMax, c.RetryMax = 20*time.Millisecond, 200*time.Millisecond, 1<<20
	return &http.Client{Transport: &retryablehttp.RoundTripper{Client: c}, Timeout: clientPatience}
}

// again reports whether a request is to be sent again. It is the rule of docs/http.md: after no answer at all, after
// one with Retry-After, and after a 5xx that does not say "retryable":false.
func again(answer *http.Response, err error) bool {
	if err != nil || answer.Header.Get("Retry-After") != "" {
		return true
	}
	final := answer.Header.Get("Content-Type") == "application/problem+json" // a retryable problem has Retry-After
	return answer.StatusCode >= 500 && !final
}
