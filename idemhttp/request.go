package idemhttp

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/idemflight/idemflight"
)

// SharedScope is an Options.Scope for services whose clients are one party: all keys are in one
// scope, and two clients that send the same key get the same answer. Anywhere else it would show
// one customer the other's answers.
func SharedScope(*http.Request) (string, error) { return "shared", nil }

var errNoScope = errors.New("idemhttp: Scope returned an empty scope")

// scopeStatus returns the status that a failure of Scope is answered with.
func scopeStatus(err error) int {
	var coded interface{ StatusCode() int }
	if errors.As(err, &coded) {
		if status := coded.StatusCode(); status >= 400 && status <= 599 {
			return status
		}
	}
	return http.StatusUnauthorized
}

var errBodyTooLarge = errors.New("idemhttp: the request body is larger than MaxRequestBytes")

// trustedLength is how much memory the claim of a Content-Length alone is worth: a client that
// announces much and sends nothing pins no more.
const trustedLength = 64 << 10

// readBody reads the body of r to its end: at most limit bytes.
func readBody(r *http.Request, limit int64) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if r.ContentLength > limit {
		return nil, errBodyTooLarge // unread: a client that waits for 100 Continue need not send it
	}
	size := int64(512)
	if r.ContentLength >= 0 {
		size = min(r.ContentLength, trustedLength) + 1 // one more, so that the end is read without growing
	}
	body := make([]byte, 0, size)
	for {
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if int64(len(body)) > limit {
			return nil, errBodyTooLarge
		}
		switch {
		case err == io.EOF:
			return body, nil
		case err != nil:
			var tooLarge *http.MaxBytesError // of middleware outside
			if errors.As(err, &tooLarge) {
				return nil, errors.Join(errBodyTooLarge, err)
			}
			return nil, err
		}
		if len(body) == cap(body) {
			body = slices.Grow(body, len(body))
		}
	}
}

// withBody returns a copy of r, which has been read, with ctx and with body still to be read. The
// copy is made here and not earlier since reading is what fills in r's trailers.
func withBody(ctx context.Context, r *http.Request, body []byte) *http.Request {
	r = r.WithContext(ctx)
	r.Body, r.ContentLength, r.TransferEncoding = http.NoBody, int64(len(body)), nil
	if len(body) > 0 {
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return r
}

// DefaultFingerprint is the Options.Fingerprint if none is given: of the method, the escaped path,
// the query sorted by name, and the body. The order of values of one name counts; what does not
// parse counts as it was sent. Host and headers do not count. The path is what the middleware sees:
// two mounts behind an http.StripPrefix that leaves the same path share it. Give your own if your
// clients cannot send the same bytes again (a multipart body has a random boundary), or a header
// matters.
func DefaultFingerprint(r *http.Request, body []byte) idemflight.Fingerprint {
	path, query := r.URL.EscapedPath(), sortedQuery(r.URL.RawQuery)
	text := make([]byte, 0, len(r.Method)+len(path)+len(query)) // one allocation for the three
	text = append(append(append(text, r.Method...), path...), query...)
	m, p := len(r.Method), len(r.Method)+len(path)
	return idemflight.FingerprintOf(text[:m], text[m:p], text[p:], body)
}

// sortedQuery returns raw with its parameters sorted by name, those of one name in the order they
// were sent, each in one of the many ways to escape it. Those that do not parse come last, as they
// are: they never equal one that does.
func sortedQuery(raw string) string {
	if raw == "" {
		return ""
	}
	type parameter struct{ name, text string }
	var parsed []parameter
	var asSent []string
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		n, err1 := url.QueryUnescape(name)
		v, err2 := url.QueryUnescape(value)
		if err1 != nil || err2 != nil || strings.Contains(part, ";") {
			asSent = append(asSent, part)
			continue
		}
		parsed = append(parsed, parameter{n, url.QueryEscape(n) + "=" + url.QueryEscape(v)})
	}
	slices.SortStableFunc(parsed, func(a, b parameter) int { return cmp.Compare(a.name, b.name) })
	parts := make([]string, 0, len(parsed)+len(asSent))
	for _, p := range parsed {
		parts = append(parts, p.text)
	}
	return strings.Join(append(parts, asSent...), "&")
}
