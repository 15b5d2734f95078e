package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
	"github.com/idemflight/idemflight/verify/internal/interval"
)

// webAnswers are the kinds that a soak must have met over HTTP.
var webAnswers = []string{
	"http: executed", "http: replayed", "http: broken off", "http: client hung up",
	"http: missing-key", "http: malformed-key", "http: scope", "http: body-too-large", "http: key-reused", "http: in-flight",
	"http: outcome-unknown", "http: answer-unavailable", "http: answer-unrecorded", "http: full", "http: closed", "http: left", "http: failed",
}

// client is one that sends requests, and compares the answers with what executions gave.
type client struct {
	*website
	id        int
	rand      *rand.Rand
	sink      *sink
	transport *http.Transport
}

// request is what a client sends.
type request struct {
	key      int
	payload  uint8
	spoilt   string        // the name of the problem that it must get
	hangsUp  time.Duration // 0: it does not
	deadline bool          // the server puts a short deadline on it
}

func (c *client) draw() request {
	q := request{key: 1 + c.rand.IntN(c.Keys), payload: uint8(1 + c.rand.IntN(c.Payloads)*c.rand.IntN(2))}
	if c.rand.IntN(100) < c.Leaves {
		q.hangsUp = time.Duration(c.rand.Int64N(int64(4 * time.Millisecond)))
	}
	q.deadline = c.rand.IntN(40) == 0
	spoilt := oneOf(c.rand, "malformed-key", "scope", "body-too-large", "missing-key")
	if c.rand.IntN(60) == 0 && (spoilt != "missing-key" || c.required) {
		q.spoilt = spoilt
	}
	return q
}

func (c *client) step() {
	q, what := c.draw(), c.rand.IntN(200)
	key := idemflight.Key{Scope: "account", ID: strconv.Itoa(q.key)}
	switch what {
	case 0, 1:
		began := c.now()
		ok, err := c.m.Cache().Forget(context.Background(), key)
		if err != nil {
			c.violation("Forget: %v", err)
		}
		c.sink.add(op{Kind: interval.Forgot, Key: q.key, Client: c.id, Call: began, Ret: c.now(), OK: ok})
	case 2, 3:
		c.resolve(key, q.key)
	default:
		c.send(q)
	}
}

// resolve puts an answer in place of what is held.
func (c *client) resolve(key idemflight.Key, k int) {
	a := &answer{id: int(c.ids.Add(1)), key: k, status: 200, size: 40}
	c.answers.Store(a.id, a)
	o := op{Kind: interval.Resolved, Key: k, Client: c.id, ID: a.id, Call: c.now()}
	err := c.m.Cache().Resolve(context.Background(), key, &idemhttp.Response{
		Status: a.status, Body: a.body(),
		Header: http.Header{"X-Execution": {strconv.Itoa(a.id)}, "X-Many": {"one", strconv.Itoa(a.id)}, "Set-Cookie": {"session=0"}},
	}, nil)
	o.Ret, o.OK = c.now(), err == nil
	if err != nil && !errors.Is(err, idemflight.ErrNotHeld) {
		c.violation("Resolve: %v", err)
	}
	c.sink.add(o)
}

func (c *client) send(q request) {
	number := c.ids.Add(1)
	lasts := webTimeout
	if q.hangsUp > 0 {
		lasts = q.hangsUp
	}
	ctx, cancel := context.WithTimeout(context.Background(), lasts)
	defer cancel()
	size := 10
	if q.spoilt == "body-too-large" {
		size = webMaxRequest + 1
	}
	body := bytes.Repeat([]byte{'0' + q.payload}, size)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("%s?payload=%d", c.url, q.payload), bytes.NewReader(body))
	if err != nil {
		c.violation("no request: %v", err)
		return
	}
	r.Header.Set("X-Attempt", strconv.FormatInt(number, 10))
	if q.spoilt != "scope" {
		r.Header.Set("X-Account", "account")
	}
	if q.deadline {
		r.Header.Set("X-Deadline", "soon")
	}
	var base http.RoundTripper = c.transport
	switch key := strconv.Itoa(q.key); {
	case q.spoilt == "malformed-key":
		r.Header.Set("Idempotency-Key", `"not quite`)
	case q.spoilt == "missing-key":
	case number%2 == 0:
		r.Header.Set("Idempotency-Key", `"`+key+`"`)
	default:
		base, r = &idemhttp.Transport{Base: base}, r.WithContext(idemhttp.WithKey(r.Context(), key))
	}

	o := op{Key: q.key, Client: int(number), Call: c.now(), Payload: q.payload, Either: true}
	resp, text, err := exchange(&http.Client{Transport: base, CheckRedirect: noRedirect}, r)
	o.Ret = c.now()
	c.calls.Add(1)
	known, _ := c.attempts.LoadAndDelete(number)
	a, _ := known.(*attempt)
	if err != nil {
		c.unanswered(q, number, ctx, err)
		return
	}
	if resp.Header.Get("Content-Type") == "application/problem+json" && resp.Header.Get("X-Execution") == "" {
		c.refused(q, o, resp, text)
		return
	}
	c.answered(q, o, a, resp, text)
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// exchange sends r and reads the whole answer.
func exchange(c *http.Client, r *http.Request) (*http.Response, []byte, error) {
	resp, err := c.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp, text, err
}

// unanswered judges a request that got no answer, or half of one.
func (c *client) unanswered(q request, number int64, ctx context.Context, err error) {
	switch {
	case q.hangsUp > 0 && (ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded)):
		c.saw("http: client hung up")
	case ctx.Err() != nil:
		c.violation("no answer in %v: %v", webTimeout, err)
	case c.Leaves > 0 && errors.Is(err, context.DeadlineExceeded):
		// Not its own: net/http closes the connection of a request whose context has ended also when
		// it has just passed to another. Nothing that a server does shows as this error.
		c.saw("http: client hung up")
	case c.brokeOff(number):
		c.saw("http: broken off")
	case q.spoilt == "body-too-large": // the server may close before it has read all
	default:
		c.violation("a request lost its answer: %+v: %v", q, err)
	}
}

// brokeOff reports whether the execution of this attempt panicked or exited.
func (c *client) brokeOff(number int64) (found bool) {
	c.answers.Range(func(_, v any) bool {
		a := v.(*answer)
		found = a.number == number && a.ends.breaksOff()
		return !found
	})
	return found
}

// answered judges a handler's answer.
func (c *client) answered(q request, o op, at *attempt, resp *http.Response, text []byte) {
	o.ID = atoi(resp.Header.Get("X-Execution"))
	bad := func(why string) {
		c.violation("%s: %+v: %d %v, %d bytes", why, q, resp.StatusCode, resp.Header, len(text))
	}
	known, ok := c.answers.Load(o.ID)
	if !ok {
		if c.brokeOff(int64(o.Client)) && resp.StatusCode >= 500 {
			c.saw("http: broken off")
			return
		}
		bad("an answer of no execution")
		return
	}
	a := known.(*answer)
	replayed := resp.Header.Get("Idempotent-Replayed") == "true"
	if a.key != q.key || q.spoilt != "" {
		bad("the answer of another key, or of none")
		return
	}
	if own := a.number == int64(o.Client); own == replayed && at != nil && at.arrivals.Load() == 1 {
		bad("says that it is replayed, and is not, or the other way round")
	}
	if replayed && resp.Header.Get("Set-Cookie") != "" || !replayed && resp.Header.Get("Set-Cookie") == "" {
		bad("the cookie of another, or none of its own")
	}
	many := resp.Header.Values("X-Many")
	if resp.StatusCode != a.status || !bytes.Equal(text, a.body()) || !slices.Equal(many, []string{"one", strconv.Itoa(a.id)}) {
		bad(fmt.Sprintf("not the answer of execution %+v", *a))
	}
	if a.trailer && resp.Trailer.Get("X-Sum") != strconv.Itoa(a.size) {
		bad("without its trailer")
	}
	if !replayed {
		c.saw("http: executed")
		return
	}
	c.saw("http: replayed")
	o.Kind = interval.Replayed
	c.sink.add(o)
}

// refused judges a problem of the middleware.
func (c *client) refused(q request, o op, resp *http.Response, text []byte) {
	var p struct {
		Type      string
		Status    int
		Retryable bool
	}
	if err := json.Unmarshal(text, &p); err != nil || p.Status != resp.StatusCode {
		c.violation("a problem that is none: %d %v %s", resp.StatusCode, resp.Header, text)
	}
	_, name, _ := strings.Cut(p.Type, "#problem-")
	c.saw("http: " + name)
	bad := func(why string) {
		c.violation("%s: %+v: %d %v %s", why, q, resp.StatusCode, resp.Header, text)
	}
	if p.Retryable != (resp.Header.Get("Retry-After") != "") || resp.Header.Get("Cache-Control") != "no-store" {
		bad("Retry-After or Cache-Control is wrong")
	}
	if want, ok := statuses[name]; !ok || want.status != p.Status || want.retryable != p.Retryable && name != "failed" {
		bad("a problem with another status than its own")
	}
	legal := true
	switch name {
	case "missing-key", "malformed-key", "scope", "body-too-large":
		legal = q.spoilt == name
	case "key-reused":
		o.Kind, legal = interval.Reused, c.Payloads > 1
	case "in-flight":
		o.Kind = interval.InFlight
	case "outcome-unknown":
		o.Kind = interval.MetHeld
	case "answer-unavailable":
		o.Kind = interval.MetShed
	case "answer-unrecorded", "failed":
		o.Kind, o.Either = interval.Joined, false
		legal = name != "failed" || p.Retryable
	case "full":
		o.Kind, legal = interval.Full, c.MaxEntries > 0 && c.MaxEntries < c.Keys
	case "closed":
		o.Kind, legal = interval.Full, c.life.closing.Load()
	case "left":
		o.Kind, legal = interval.Full, q.deadline || q.hangsUp > 0
	}
	if !legal || q.spoilt != "" && q.spoilt != name {
		bad("a problem that this request cannot have")
		return
	}
	if q.spoilt == "" {
		c.sink.add(o)
	}
}

// statuses are those of the problems, by name.
var statuses = map[string]struct {
	status    int
	retryable bool
}{
	"missing-key": {400, false}, "malformed-key": {400, false}, "scope": {401, false}, "body-too-large": {413, false},
	"key-reused": {422, false}, "in-flight": {409, true}, "outcome-unknown": {409, false}, "answer-unavailable": {409, false},
	"answer-unrecorded": {409, true}, "full": {503, true}, "closed": {503, true}, "left": {503, true}, "failed": {500, true},
}
