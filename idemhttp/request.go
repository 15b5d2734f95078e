package idemhttp

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
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
// announces much and sends nothing pins no more, and one that sends some at most four times that.
const trustedLength = 64 << 10

// readBody reads the body of r to its end, at most limit bytes, into room if that has about the right
// size: a request that waits for long is not to hold a large body's room for a small one.
func readBody(r *http.Request, limit int64, room []byte) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if r.ContentLength > limit {
		return nil, fmt.Errorf("%w (%d): %d bytes are announced", errBodyTooLarge, limit, r.ContentLength) // unread: a client that waits for 100 Continue need not send it
	}
	size := int64(512)
	if r.ContentLength >= 0 {
		size = min(r.ContentLength, trustedLength) + 1 // one more, so that the end is read without growing
	}
	body := room[:0]
	if have := int64(cap(body)); have < size || have > 2*size+1<<10 {
		body = make([]byte, 0, size)
	}
	for {
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if int64(len(body)) > limit {
			return nil, fmt.Errorf("%w (%d)", errBodyTooLarge, limit)
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
			more := len(body)
			if rest := r.ContentLength + 1 - int64(len(body)); rest > 0 {
				more = int(min(3*int64(len(body)), rest))
			}
			body = slices.Grow(body, more)
		}
	}
}

// withBody returns a copy of r, which has been read, with ctx and with body still to be read. The
// copy is made here and not earlier since reading is what fills in r's trailers.
// room is for the reader of the body.
func withBody(ctx context.Context, r *http.Request, body []byte, room *requestBody) *http.Request {
	r = r.WithContext(ctx)
	r.Body, r.ContentLength, r.TransferEncoding = http.NoBody, int64(len(body)), nil
	if len(body) > 0 {
		room.rest.Reset(body)
		r.Body = room
	}
	return r
}

// requestBody is io.NopCloser(bytes.NewReader(body)) in one allocation.
type requestBody struct{ rest bytes.Reader }

func (b *requestBody) Read(p []byte) (int, error)         { return b.rest.Read(p) }
func (b *requestBody) WriteTo(w io.Writer) (int64, error) { return b.rest.WriteTo(w) }
func (b *requestBody) Close() error                       { return nil }

// DefaultFingerprint is the Options.Fingerprint if none is given: of the method, the escaped path,
// the query sorted by name, and the body. The order of values of one name counts; what does not
// parse counts as it was sent. Host and headers do not count. The path is what the middleware sees:
// two mounts behind an http.StripPrefix that leaves the same path share it. Give your own if your
// clients cannot send the same bytes again (a multipart body has a random boundary), or a header
// matters.
func DefaultFingerprint(r *http.Request, body []byte) idemflight.Fingerprint {
	var room [256]byte // on the stack, and enough for most
	path := r.URL.EscapedPath()
	m, p := len(r.Method), len(r.Method)+len(path)
	text := appendQuery(append(append(room[:0], r.Method...), path...), r.URL.RawQuery)
	return idemflight.FingerprintOf(text[:m], text[m:p], text[p:], body)
}

// appendQuery appends raw with its parameters sorted by name, those of one name in the order they
// were sent, each in one of the many ways to escape it. Those that do not parse come last, as they
// are: they never equal one that does.
//
// What it appends is for good: fingerprints outlive the process (Restore).
func appendQuery(text []byte, raw string) []byte {
	if raw == "" {
		return text
	}
	type parameter struct{ name, value string }
	var room [8]parameter
	parsed := room[:0]
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
		parsed = append(parsed, parameter{n, v})
	}
	slices.SortStableFunc(parsed, func(a, b parameter) int { return cmp.Compare(a.name, b.name) })
	for i, p := range parsed {
		if i > 0 {
			text = append(text, '&')
		}
		text = append(append(append(text, url.QueryEscape(p.name)...), '='), url.QueryEscape(p.value)...)
	}
	for i, part := range asSent {
		if i > 0 || len(parsed) > 0 {
			text = append(text, '&')
		}
		text = append(text, part...)
	}
	return text
}
