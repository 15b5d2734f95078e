package idemhttp

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

// defaultHeaderName is the header of draft-ietf-httpapi-idempotency-key-header.
const defaultHeaderName = "Idempotency-Key"

// Transport is the client's side: an http.RoundTripper that puts a key on POST and PATCH requests.
// The key is the one that the request already bears, else the one of its context ([WithKey]), else
// Generate's, else there is none; it is written as a string of RFC 8941. A key that is not valid,
// an empty header included, is an error, and nothing is sent. The zero value is ready to use, and
// safe for concurrent use.
//
// The key belongs to the intent, so make it outside of the retry loop and give it with [WithKey]. A
// Generate under a client that retries by calling Do again makes a key per attempt, which protects
// nothing; it is right only with the retries below it, in Base. Transport itself does not retry.
//
// Send keys only to servers that honour them: net/http takes the header as leave to send a request
// again by itself when a reused connection dies, POST or not.
type Transport struct {
	Base       http.RoundTripper // nil = http.DefaultTransport
	HeaderName string            // "" = "Idempotency-Key"
	Generate   func() string     // of a key for a request that has none, such as idemflight.NewID; nil = none
}

type keyToSend struct{}

// WithKey returns a context whose requests [Transport] sends with key: raw, not quoted.
func WithKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, keyToSend{}, key)
}

// RoundTrip sends req with its key through Base. It does not change req.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	base := orDefault(t.Base, http.DefaultTransport)
	if !strings.EqualFold(req.Method, http.MethodPost) && !strings.EqualFold(req.Method, http.MethodPatch) {
		return base.RoundTrip(req)
	}
	name := http.CanonicalHeaderKey(orDefault(t.HeaderName, defaultHeaderName))
	key, found, err := t.key(req, name)
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close() // a RoundTripper must, also on errors
		}
		return nil, fmt.Errorf("idemhttp: %s of %s %s: %w", name, req.Method, req.URL.Redacted(), err)
	}
	if !found {
		return base.RoundTrip(req)
	}
	quoted := quoteKey(key)
	if lines := req.Header[name]; len(lines) == 1 && lines[0] == quoted {
		return base.RoundTrip(req)
	}
	req = req.Clone(req.Context())
	if req.Header == nil {
		req.Header = make(http.Header)
	}
	deleteFold(req.Header, name)
	req.Header[name] = []string{quoted}
	return base.RoundTrip(req)
}

// key returns the key that req is to be sent with, if any.
func (t *Transport) key(req *http.Request, name string) (key string, found bool, err error) {
	var lines []string
	for k, v := range req.Header { // a client may have set it in any case; two of them would be two lines
		if strings.EqualFold(k, name) {
			lines = append(lines, v...)
		}
	}
	if len(lines) > 0 {
		key, err = parseKey(lines)
		return key, true, err
	}
	key, found = req.Context().Value(keyToSend{}).(string)
	if !found && t.Generate != nil {
		key, found = t.Generate(), true
	}
	if found {
		err = checkKey(key)
	}
	return key, found, err
}

// CloseIdleConnections closes those of Base; http.Client.CloseIdleConnections calls it.
func (t *Transport) CloseIdleConnections() {
	if c, ok := orDefault(t.Base, http.DefaultTransport).(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
