package idemhttp_test

import (
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
)

var (
	rawKey    = regexp.MustCompile(`^[!#-~][!-~]{0,254}$`)
	quotedKey = regexp.MustCompile(`^"((?:[!#-\[\]-~]|\\["\\]){1,255})"$`)
	escape    = regexp.MustCompile(`\\(.)`)
)

// grammar is the syntax of keys, written down another way.
func grammar(value string) (key string, valid bool) {
	if rawKey.MatchString(value) {
		return value, true
	}
	if m := quotedKey.FindStringSubmatch(value); m != nil {
		return escape.ReplaceAllString(m[1], "$1"), true
	}
	return "", false
}

// FuzzKey holds the key parser against the grammar, and what Transport sends for a key against what
// the middleware reads.
func FuzzKey(f *testing.F) {
	for _, c := range keyCases {
		f.Add(c.value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		want, valid := grammar(value)
		key, ok := keyOf(t, value)
		require.Equal(t, valid, ok, "whether %q is a key", value)
		require.Equal(t, want, key, "key of %q", value)
		if !valid {
			return
		}
		base := &sent{}
		r, err := http.NewRequestWithContext(idemhttp.WithKey(t.Context(), want), "POST", "http://x/", nil)
		require.NoError(t, err)
		_, err = (&idemhttp.Transport{Base: base}).RoundTrip(r)
		require.NoError(t, err)
		again, _ := keyOf(t, base.requests[0].Header.Get("Idempotency-Key"))
		require.Equal(t, want, again, "what Transport sends names the same key")
	})
}

// keyOf sends a header through the middleware; ok unless that is a 400.
func keyOf(t testing.TB, value string) (id string, ok bool) {
	opts := idemflight.Options[idemflight.Key, *idemhttp.Response]{MaxEntries: 1}
	m := newMiddleware(t, idemhttp.Options{Cache: idemflight.MustNew(opts)})
	r := post("", "")
	r.Header["Idempotency-Key"] = []string{value}
	a := call(m.Handler(handler(func(_ http.ResponseWriter, r *http.Request) {
		key, _ := idemhttp.KeyFrom(r.Context())
		id = key.ID
	})), r)
	return id, a.Status == 200
}

// sortedQuery is the query as DefaultFingerprint has it, written down another way.
func sortedQuery(raw string) string {
	var parsed, asSent []string
	for _, part := range strings.FieldsFunc(raw, func(c rune) bool { return c == '&' }) {
		if values, err := url.ParseQuery(part); err != nil {
			asSent = append(asSent, part)
		} else {
			parsed = append(parsed, values.Encode())
		}
	}
	slices.SortStableFunc(parsed, func(a, b string) int {
		a, _, _ = strings.Cut(a, "=")
		b, _, _ = strings.Cut(b, "=")
		a, _ = url.QueryUnescape(a)
		b, _ = url.QueryUnescape(b)
		return strings.Compare(a, b)
	})
	return strings.Join(append(parsed, asSent...), "&")
}

// FuzzDefaultFingerprint holds it against its definition. Fingerprints outlive the process that made
// them (Restore), so that they may never become others.
func FuzzDefaultFingerprint(f *testing.F) {
	for _, query := range []string{
		"", "a=1", "b=2&a=1&b=1", "a", "=", "&&a=1&", "%61=1&a=%32", "a=%zz&b=1&=%", "a=1;b=2&c", "a=b=c&a=b%26c", "a+b=c%20d&a%20b=e", "z=\xff&y=%ff",
		"i=9&h=8&g=7&f=6&e=5&d=4&c=3&b=2&a=1&a=0", "long=" + strings.Repeat("x", 300),
	} {
		f.Add("POST", "/payments", query, []byte("body"))
	}
	f.Fuzz(func(t *testing.T, method, path, query string, body []byte) {
		r := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}}
		want := idemflight.FingerprintOf([]byte(method), []byte(r.URL.EscapedPath()), []byte(sortedQuery(query)), body)
		require.Equal(t, want, idemhttp.DefaultFingerprint(r, body), "%q %q?%q", method, path, query)
	})
}

// program is a handler made of the bytes of script: what handlers do to a writer, in any order.
func program(script []byte) handler {
	return func(w http.ResponseWriter, _ *http.Request) {
		names := []string{"X-A", "x-b", "Content-Type", "Content-Encoding", "Trailer", http.TrailerPrefix + "X-T", "X-Sum", "Idempotent-Replayed"}
		values := []string{"1", "text/x", "X-Sum", "X-Sum, X-A", "gzip", ""}
		statuses := []int{200, 201, 204, 304, 404, 500, 103, 299}
		for rest := script; len(rest) > 1; rest = rest[2:] {
			op, arg := rest[0], int(rest[1])
			switch op % 8 {
			case 0:
				w.Header().Set(names[arg%len(names)], values[arg/len(names)%len(values)])
			case 1:
				w.Header().Add(names[arg%len(names)], values[arg/len(names)%len(values)])
			case 2:
				delete(w.Header(), names[arg%len(names)])
			case 3:
				w.WriteHeader(statuses[arg%len(statuses)])
			case 4:
				io.WriteString(w, strings.Repeat(string(rune('a'+arg%26)), arg))
			case 5:
				io.Copy(w, io.MultiReader(strings.NewReader(strings.Repeat("<html>", arg))))
			case 6:
				w.(http.Flusher).Flush()
			case 7:
				w.Write(make([]byte, arg*20))
			}
		}
	}
}

// FuzzRecorder runs a program bare, through the middleware, and replayed: what the client sees does
// not differ, and nothing truncated is ever replayed.
func FuzzRecorder(f *testing.F) {
	for _, script := range []string{
		"", "\x03\x01", "\x04\x05\x03\x05", "\x00\x00\x04\x09\x00\x08\x06\x00", "\x00\x14\x05\x40\x00\x06", "\x03\x02\x04\x05", "\x03\x06\x00\x00\x03\x01",
		"\x06\x00\x05\xff\x05\xff\x05\xff", "\x07\xff\x04\x01", "\x00\x05\x04\x01\x00\x0d", "\x00\x07\x04\x01\x01\x07\x06\x00\x00\x07",
	} {
		f.Add([]byte(script))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 200 {
			return
		}
		h := program(script)
		opts := idemflight.Options[idemflight.Key, *idemhttp.Response]{MaxEntries: 1}
		m := newMiddleware(t, idemhttp.Options{
			Cache: idemflight.MustNew(opts), MaxResponseBytes: 2000,
			Classify: func(*idemhttp.Response) idemflight.Disposition { return idemflight.Retain },
		})
		bare := onWire(t, h)
		delete(bare.Header, "Idempotent-Replayed") // which is not the handler's to set
		first := onWire(t, m.Handler(h))
		again := onWire(t, m.Handler(h))
		require.Equal(t, bare, first, "script %q", script)
		if again.Status == 409 && again.Header.Get("Content-Type") == "application/problem+json" {
			require.Greater(t, len(bare.Body), 2000, "only what is too large is not replayed")
			return
		}
		require.True(t, again.replayed())
		again.Header.Del("Idempotent-Replayed")
		if first.Trailer == nil {
			again.Trailer = nil // a small answer's late trailers reach nobody the first time
		}
		first.Header, again.Header = canon(first.Header), canon(again.Header)
		require.Equal(t, first, again, "script %q", script)
	})
}

// onWire has h serve one request over a connection in memory, by net/http's own writer.
func onWire(t testing.TB, h http.Handler) answer {
	t.Helper()
	p := newPipes()
	s := &http.Server{Handler: h, ErrorLog: quiet}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(p) }()
	defer func() { _ = s.Close(); <-done }()
	client := &http.Client{Transport: &http.Transport{DialContext: p.dial, DisableKeepAlives: true, DisableCompression: true}}
	r, err := http.NewRequestWithContext(t.Context(), "POST", "http://memory/", strings.NewReader("body"))
	require.NoError(t, err)
	r.Header.Set("Idempotency-Key", "k")
	res, err := client.Do(r)
	require.NoError(t, err)
	a := read(res)
	if a.Status != 304 {
		a.Header.Del("Content-Length")
	}
	return a
}
