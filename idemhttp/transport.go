package idemhttp

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// defaultHeaderName is the header of draft-ietf-httpapi-idempotency-key-header.
const defaultHeaderName = "Idempotency-Key"

// Transport is the client's side: an http.RoundTripper that puts a key on every request whose
// method is not safe (GET, HEAD, OPTIONS and TRACE are). The key is the one that the request
// already has; otherwise the one in its context ([WithKey]), otherwise the one that Generate makes,
// otherwise none. It is written as a string of RFC 8941. If the key is not valid, which includes an
// empty header, RoundTrip returns an error, and nothing is sent. The zero value is ready to use,
// and safe for concurrent use.
//
// The key belongs to the intent, so make it outside of the retry loop and pass it with [WithKey].
// Under a client that retries by calling Do again, Generate makes a key per attempt, which protects
// nothing; it is right only if the retries are below it, in Base.
//
// A request with a key is sent once. Without Transport it would not be: net/http takes the header
// Idempotency-Key as permission to resend a request by itself when a reused connection dies, even a
// POST. So send keys only to servers that honour them. Transport neither retries nor lets net/http
// do so: the request that Base gets has no GetBody, and instead of no body an empty one whose
// length net/http cannot know (over HTTP/1.1 it is sent chunked). This also ends HTTP/2's own
// retries, which would be safe. A Base that retries must keep the body itself; every attempt
// carries the same key.
type Transport struct {
	Base       http.RoundTripper          // nil = http.DefaultTransport
	HeaderName string                     // "" = "Idempotency-Key"
	Generate   func(*http.Request) string // returns a key for a request that has none, such as idemflight.NewID(); "" = none
}

type keyToSend struct{}

// WithKey returns a context with which [Transport] sends requests under key, which
// is raw, not quoted.
func WithKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, keyToSend{}, key)
}

// RoundTrip sends req with its key through Base. It does not change req.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	base := orDefault(t.Base, http.DefaultTransport)
	if isSafe(req.Method) {
		return base.RoundTrip(req)
	}
	name := http.CanonicalHeaderKey(orDefault(t.HeaderName, defaultHeaderName))
	key, err := t.key(req, name)
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close() // a RoundTripper must, also on errors
		}
		return nil, fmt.Errorf("idemhttp: %s of %s %s: %w", name, req.Method, req.URL.Redacted(), err)
	}
	if key == "" {
		return base.RoundTrip(req)
	}
	return base.RoundTrip(sentOnce(withKey(req, name, quoteKey(key))))
}

// isSafe reports whether requests with this method need no key.
func isSafe(method string) bool {
	switch strings.ToUpper(method) {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// withKey returns a copy of req whose header called name is value alone.
func withKey(req *http.Request, name, value string) *http.Request {
	keyed := *req
	if lines := req.Header[name]; len(lines) == 1 && lines[0] == value {
		return &keyed
	}
	if keyed.Header = req.Header.Clone(); keyed.Header == nil {
		keyed.Header = make(http.Header)
	}
	deleteFold(keyed.Header, name)
	keyed.Header[name] = []string{value}
	return &keyed
}

// sentOnce takes from req, which it changes, what net/http would send it again with: the way to
// read its body anew, or the knowledge that there is none.
func sentOnce(req *http.Request) *http.Request {
	req.GetBody = nil
	if req.Body == nil || req.Body == http.NoBody {
		req.Body = io.NopCloser(strings.NewReader("")) // a length of 0 beside a body means that it is not known
	}
	return req
}

// key returns the key that req is to be sent with; "" is none.
func (t *Transport) key(req *http.Request, name string) (string, error) {
	var lines []string
	for k, v := range req.Header { // a client may have set it in any case; two of them would be two lines
		if strings.EqualFold(k, name) {
			lines = append(lines, v...)
		}
	}
	if len(lines) > 0 {
		return parseKey(lines)
	}
	if key, found := req.Context().Value(keyToSend{}).(string); found {
		return key, checkKey(key)
	}
	if t.Generate == nil {
		return "", nil
	}
	key := t.Generate(req)
	if key == "" {
		return "", nil
	}
	return key, checkKey(key)
}

// CloseIdleConnections closes the idle connections of Base;
// http.Client.CloseIdleConnections calls it.
func (t *Transport) CloseIdleConnections() {
	if c, ok := orDefault(t.Base, http.DefaultTransport).(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
