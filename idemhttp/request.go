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
// scope, and two clients that send the same key get the same answer. In any other service it would
// show one customer another's answers.
func SharedScope(*http.Request) (string, error) { return "shared", nil }

var errNoScope = errors.New("idemhttp: Scope returned an empty scope")

// statusOf returns the status that err, of Scope or Key, carries: otherwise the one given.
func statusOf(err error, otherwise int) int {
	var coded interface{ StatusCode() int }
	if errors.As(err, &coded) {
		if status := coded.StatusCode(); status >= 400 && status <= 599 {
			return status
		}
	}
	return otherwise
}

var errBodyTooLarge = errors.New("idemhttp: the request body is larger than MaxRequestBytes")

// trustedLength is how much memory the claim of a Content-Length alone is worth: a client that
// announces much and sends nothing pins no more, and one that sends some at most four times that.
const trustedLength = 64 << 10

// readBody reads the body of r to its end, at most limit bytes, into room if that has about the
// right size: a request that waits for long is not to hold much more memory than what it has read.
func readBody(r *http.Request, limit int64, room []byte) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if r.ContentLength > limit {
		return nil, fmt.Errorf("%w (%d): %d bytes are announced", errBodyTooLarge, limit, r.ContentLength) // unread: a client that waits for 100 Continue need not send it
	}
	size := int64(minBody)
	if r.ContentLength >= 0 {
		size = min(r.ContentLength, trustedLength) + 1 // one more, so that the end is read without growing
	}
	body := room[:0]
	if int64(cap(body)) < size || roomy(body, size) {
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
			return fitted(body), nil
		case err != nil:
			var tooLarge *http.MaxBytesError // of middleware outside
			if errors.As(err, &tooLarge) {
				return nil, errors.Join(errBodyTooLarge, err)
			}
			return nil, err
		}
		if len(body) == cap(body) {
			body = grown(body, r.ContentLength, limit)
		}
	}
}

// minBody is the room for a body whose length is not known.
const minBody = 512

// roomy reports whether the room of body is too large to hold n bytes for long.
func roomy(body []byte, n int64) bool { return int64(cap(body)) > n+n/4+1<<10 }

// grown returns body with more room: up to what is announced, as far as what has come makes that
// likely, otherwise half as much again, since a slow client's body waits in it.
func grown(body []byte, announced, limit int64) []byte {
	have := int64(len(body))
	more := have/2 + minBody
	if rest := announced + 1 - have; rest > 0 {
		more = min(3*have, rest)
	}
	larger := make([]byte, have, have+max(min(more, limit+1-have), 1))
	copy(larger, body)
	return larger
}

// fitted returns body in room of about its size.
func fitted(body []byte) []byte {
	if roomy(body, int64(len(body))) {
		return bytes.Clone(body)
	}
	return body
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

// withBodyBack returns a copy of r, which has been read, as it was before: with
// body still to be read.
func withBodyBack(r *http.Request, body []byte) *http.Request {
	back := *r
	if len(body) > 0 {
		room := new(requestBody)
		room.rest.Reset(body)
		back.Body = room
	}
	return &back
}

// requestBody is io.NopCloser(bytes.NewReader(body)) in one allocation.
type requestBody struct{ rest bytes.Reader }

func (b *requestBody) Read(p []byte) (int, error)         { return b.rest.Read(p) }
func (b *requestBody) WriteTo(w io.Writer) (int64, error) { return b.rest.WriteTo(w) }
func (b *requestBody) Close() error                       { return nil }

// DefaultFingerprint is what Options.Fingerprint is by default: the fingerprint of the method, the
// path, the query sorted by name, the Content-Type byte for byte, and the body. The path is that of
// the request line (RequestURI), so that two mounts behind http.StripPrefix differ; without one,
// URL.EscapedPath. Doubled and trailing slashes do not count, so that a redirect to the canonical
// path is the same payload; dot segments do. The order of values with the same name counts; a part
// of the query that does not parse counts as it was sent. Host and other headers do not count. Use
// one of your own if your clients cannot send the same bytes again (a multipart body has a random
// boundary), or if a header matters.
func DefaultFingerprint(r *http.Request, body []byte) idemflight.Fingerprint {
	var room [512]byte // on the stack, and enough for most
	text := append(room[:0], r.Method...)
	method := len(text)
	text = appendPath(text, requestPath(r))
	path := len(text)
	text = appendQuery(text, r.URL.RawQuery)
	query := len(text)
	text = append(text, r.Header.Get("Content-Type")...)
	return idemflight.FingerprintOf(text[:method], text[method:path], text[path:query], text[query:], body)
}

// requestPath returns the path of the request line, which may be a URL with scheme and host.
func requestPath(r *http.Request) string {
	line, _, _ := strings.Cut(r.RequestURI, "?")
	if strings.HasPrefix(line, "/") {
		return line
	}
	if _, rest, found := strings.Cut(line, "://"); found {
		if slash := strings.IndexByte(rest, '/'); slash >= 0 {
			return rest[slash:]
		}
		return ""
	}
	if line != "" {
		return line
	}
	return r.URL.EscapedPath()
}

// appendPath appends path without doubled and trailing slashes; an empty one is the root.
//
// What it appends is for good: fingerprints outlive the process (Restore).
func appendPath(text []byte, path string) []byte {
	from := len(text)
	for i := range len(path) {
		if path[i] != '/' || i == 0 || path[i-1] != '/' {
			text = append(text, path[i])
		}
	}
	switch {
	case len(text) == from:
		text = append(text, '/')
	case len(text) > from+1 && text[len(text)-1] == '/':
		text = text[:len(text)-1]
	}
	return text
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
