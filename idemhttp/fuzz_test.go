package idemhttp_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"regexp"
	"runtime"
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

var slashes = regexp.MustCompile(`/+`)

// cleaned is a path as DefaultFingerprint has it, written down another way.
func cleaned(path string) string {
	path = slashes.ReplaceAllString(path, "/")
	if path == "" || path == "/" {
		return "/"
	}
	return strings.TrimSuffix(path, "/")
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
	for _, path := range []string{"", "/", "//", "/a//b/", "a/", "/a b/../c//"} {
		f.Add("POST", path, "", []byte("body"))
	}
	f.Fuzz(func(t *testing.T, method, path, query string, body []byte) {
		r := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}, Header: http.Header{"Content-Type": {path}}}
		want := idemflight.FingerprintOf([]byte(method), []byte(cleaned(r.URL.EscapedPath())), []byte(sortedQuery(query)), []byte(path), body)
		require.Equal(t, want, idemhttp.DefaultFingerprint(r, body), "%q %q?%q", method, path, query)
	})
}

// program is a handler made of the bytes of script: what handlers do to a writer, in any order. What
// it is told is appended to told, if that is not nil.
func program(script []byte, told *[]string) handler {
	return func(w http.ResponseWriter, r *http.Request) {
		tell := func(what any, err error) {
			if told != nil {
				*told = append(*told, fmt.Sprint(what, err))
			}
		}
		for rest := script; len(rest) > 1; rest = rest[2:] {
			op, arg := rest[0], int(rest[1])
			name, value := headerNames[arg%len(headerNames)], headerValues[arg/len(headerNames)%len(headerValues)]
			switch op % ops {
			case 0:
				w.Header().Set(name, value)
			case 1:
				w.Header().Add(name, value)
			case 2:
				delete(w.Header(), name)
			case 3:
				w.WriteHeader(statuses[arg%len(statuses)])
			case 4:
				tell(io.WriteString(w, strings.Repeat(string(rune('a'+arg%26)), arg+1))) // of nothing, HTTP/2 says otherwise than HTTP/1
			case 5:
				tell(io.Copy(w, &pieces{strings.Repeat("<html>", arg)}))
			case 6:
				tell("flush", http.NewResponseController(w).Flush())
			case 7:
				tell(w.Write(make([]byte, 1+arg*20)))
			case 8:
				w.Header().Set("Content-Length", lengths[arg%len(lengths)])
			case 9:
				w.Header()[name] = nil
			case 10: // in place
				if values := w.Header()[name]; len(values) > 0 {
					values[0] = value
				}
			case 11:
				tell(io.WriteString(w, prefixes[arg%len(prefixes)]))
			case 12:
				body, err := io.ReadAll(r.Body)
				tell(string(body), err)
			case 13:
				func() {
					defer func() { tell(recover(), nil) }()
					w.WriteHeader([]int{0, 99, 1000, -1}[arg%4])
				}()
			case 14:
				if f, ok := w.(http.Flusher); ok {
					f.Flush()
				}
			case breaks:
				switch arg % 3 {
				case 0:
					panic(http.ErrAbortHandler)
				case 1:
					panic(errBoom)
				default:
					runtime.Goexit()
				}
			}
		}
	}
}

const breaks, ops = 15, 16

var (
	headerNames = []string{"X-A", "x-b", "Content-Type", "Content-Encoding", "Trailer", http.TrailerPrefix + "X-T", "X-Sum", "Idempotent-Replayed",
		"x-a", "idempotent-replayed", http.TrailerPrefix + "Idempotent-Replayed", "X-Outer", "Etag"}
	headerValues = []string{"1", "text/x", "X-Sum", "X-Sum, X-Outer", "gzip", "", "outer", "x\r\ny: z", "idempotent-Replayed,X-B"}
	statuses     = []int{200, 201, 204, 304, 404, 500, 103, 299, 102, 999, 303, 100}
	lengths      = []string{"0", "5", "100", "600", "2000", "5000", "many", "-1", ""}
	prefixes     = []string{"<!DOCTYPE html>", "%PDF-", "\x00\x01", "{}", "\xff\xfe", "<", "\x1f\x8b\x08"}
)

// prepare returns the script that is run, and what of it comes before it breaks off.
func prepare(setup byte, script []byte) (run, before []byte, broken bool) {
	for ; len(script) > 1; script = script[2:] {
		switch op := script[0] % ops; {
		case op == 8 && setup&overHTTP2 != 0: // a length that is not kept is noticed late there, and bytes sent that should not
		case op == 14 && setup&outerWriter != 0: // finds a Flusher where the bare handler needs the controller
		case op == 9 && setup&overHTTP2 != 0 && headerNames[int(script[1])%len(headerNames)] != "Content-Type",
			op < 11 && setup&overHTTP2 != 0 && strings.Contains(headerValues[int(script[1])/len(headerNames)%len(headerValues)], "\r"):
			// net/http never ends an answer over HTTP/2 whose trailers have no value that it can send
		case op == breaks:
			return append(run, script[:2]...), run, true
		default:
			run = append(run, script[:2]...)
		}
	}
	return run, run, false
}

// pieces is a reader of 128 bytes at a time, a part of what net/http sniffs: whoever copies it, the
// writes are the same.
type pieces struct{ rest string }

func (p *pieces) Read(b []byte) (int, error) {
	if p.rest == "" {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), 128)], p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// unwrapped is a writer of middleware outside that leaves everything but its three methods to Unwrap.
type unwrapped struct{ http.ResponseWriter }

func (u unwrapped) Unwrap() http.ResponseWriter { return u.ResponseWriter }

// Bits of a setup.
const (
	outerHeaders = 1 << iota // middleware outside sets some
	outerWriter              // … and gives a writer of its own
	overHTTP2
	outerOddName // … and one that is not canonical
)

// outside is the middleware outside of h, bare or not.
func outside(setup byte, h http.Handler) http.Handler {
	return handler(func(w http.ResponseWriter, r *http.Request) {
		if setup&outerHeaders != 0 {
			w.Header().Set("X-Outer", "outer")
			w.Header().Set("Trailer", "X-Sum")
		}
		if setup&outerOddName != 0 {
			w.Header()["x-b"] = []string{"outer"}
		}
		if setup&outerWriter != 0 {
			w = unwrapped{w}
		}
		h.ServeHTTP(w, r)
	})
}

// FuzzRecorder runs a program bare, through the middleware, and replayed: neither what the client
// sees differs, nor what the program is told, and nothing broken off is ever replayed.
func FuzzRecorder(f *testing.F) {
	for _, script := range []string{
		"", "\x03\x01", "\x04\x05\x03\x05", "\x00\x00\x04\x09\x00\x08\x06\x00", "\x00\x14\x05\x40\x00\x06", "\x03\x02\x04\x05", "\x03\x06\x00\x00\x03\x01",
		"\x06\x00\x05\xff\x05\xff\x05\xff", "\x07\xff\x04\x01", "\x00\x05\x04\x01\x00\x0d", "\x00\x07\x04\x01\x01\x07\x06\x00\x00\x07",
		"\x08\x02\x04\x64", "\x08\x02\x04\x63", "\x08\x02\x04\x32\x04\x64\x04\x01", "\x08\x03\x05\xff", // lengths: kept, missed, exceeded
		"\x0b\x00\x04\x10", "\x0b\x05\x06\x00\x0b\x00", "\x09\x02\x0b\x00", "\x00\x37\x0b\x00", // sniffed, or not
		"\x04\x10\x0f\x00", "\x04\x10\x0e\x00\x0f\x01", "\x07\xff\x0f\x02", "\x08\x02\x04\x64\x06\x00\x0f\x00", // broken off
		"\x03\x06\x03\x08\x00\x00\x03\x06\x0d\x01\x03\x00\x0d\x01", "\x0c\x00\x03\x03\x04\x01\x06\x00", "\x00\x00\x03\x00\x0a\x0d\x00\x0d\x04\x09\x02\x00",
		"\x04\x05\x07\xff", "\x00\x2b\x03\x00\x00\x0b\x04\x05", // sniffed over both, a late trailer that was a header outside
	} {
		for setup := range byte(outerOddName << 1) {
			f.Add(setup, []byte(script))
		}
	}
	f.Fuzz(func(t *testing.T, setup byte, script []byte) {
		if len(script) > 200 {
			return
		}
		script, before, broken := prepare(setup, script)
		const limit = 2000
		opts := idemflight.Options[idemflight.Key, *idemhttp.Response]{MaxEntries: 1}
		m := newMiddleware(t, idemhttp.Options{
			Cache: idemflight.MustNew(opts), MaxResponseBytes: limit,
			Classify: func(*idemhttp.Response) idemflight.Disposition { return idemflight.Retain },
		})
		var toldBare, toldFirst []string
		bare := onWire(t, setup, program(before, &toldBare), "Idempotent-Replayed") // which is not the handler's to set
		first := onWire(t, setup, m.Handler(program(script, &toldFirst)))
		again := onWire(t, setup, m.Handler(program(script, nil)))
		of := fmt.Sprintf("setup %d, script %q", setup, script)
		require.Equal(t, toldBare, toldFirst, "what the program is told, %s", of)
		if broken {
			requireProblem(t, again.answer, 409, "outcome-unknown", false)
			if first.Status != 0 { // what had passed by then
				require.True(t, strings.HasPrefix(bare.Body, first.Body), "%q begins with %q, %s", bare.Body, first.Body, of)
				bare.answer = answer{Status: bare.Status, Header: bare.Header}
				first.answer = answer{Status: first.Status, Header: first.Header}
				require.Equal(t, bare, first, of)
			}
			return
		}
		if first.Trailer == nil && setsForbiddenTrailer(script) {
			bare.Trailer = nil // a small answer's trailers reach nobody, unless it had that one from the beginning
		}
		require.Equal(t, bare, first, of)
		if again.Status == 409 && again.Header.Get("Content-Type") == "application/problem+json" {
			require.Greater(t, len(bare.Body), limit, "only what is too large is not replayed, %s", of)
			return
		}
		require.True(t, again.replayed(), of)
		again.Header.Del("Idempotent-Replayed")
		if first.Trailer == nil {
			again.Trailer = nil // a small answer's late trailers reach nobody the first time
		}
		first.Header, again.Header = canon(first.Header), canon(again.Header)
		unannounce(first.Header, "Idempotent-Replayed")
		first.Err = ""    // fewer bytes than declared: the retry gets what there was
		first.early = nil // 1xx are no answers
		require.Equal(t, first, again, of)
	})
}

// setsForbiddenTrailer reports whether script sets the replay header as a trailer.
func setsForbiddenTrailer(script []byte) bool {
	for ; len(script) > 1; script = script[2:] {
		name := headerNames[int(script[1])%len(headerNames)]
		if op := script[0] % ops; (op < 2 || op == 9) && name == http.TrailerPrefix+"Idempotent-Replayed" {
			return true
		}
	}
	return false
}

// unannounce takes name out of what the Trailer header in h announces.
func unannounce(h http.Header, name string) {
	var rest []string
	for _, value := range h["Trailer"] {
		names := strings.Split(value, ",")
		others := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return strings.EqualFold(strings.TrimSpace(n), name) })
		if len(others) < len(names) {
			value = strings.Join(others, ", ")
		}
		if len(others) > 0 {
			rest = append(rest, value)
		}
	}
	if h["Trailer"] != nil && rest == nil {
		h.Del("Trailer")
	} else if rest != nil {
		h["Trailer"] = rest
	}
}

// onWire has h, behind the setup's middleware, serve one request over a connection in memory, by
// net/http's own writer. No answer has the status 0. What is seen is told without the headers called
// unseen.
func onWire(t testing.TB, setup byte, h http.Handler, unseen ...string) (got seen) {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP1(setup&overHTTP2 == 0)
	protocols.SetUnencryptedHTTP2(setup&overHTTP2 != 0)
	p := newPipes()
	served := make(chan struct{}) // the client may have its answer before the handler returns
	s := &http.Server{ErrorLog: quiet, Protocols: &protocols, Handler: handler(func(w http.ResponseWriter, r *http.Request) {
		defer close(served)
		outside(setup, h).ServeHTTP(w, r)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(p) }()
	transport := &http.Transport{DialContext: p.dial, DisableKeepAlives: true, DisableCompression: true, Protocols: &protocols}
	defer func() { transport.CloseIdleConnections(); _ = s.Close(); <-done }()
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			for _, name := range unseen {
				header.Del(name)
			}
			got.early = append(got.early, fmt.Sprint(code, header))
			return nil
		},
	})
	r, err := http.NewRequestWithContext(ctx, "POST", "http://memory/", strings.NewReader("body"))
	require.NoError(t, err)
	r.Header.Set("Idempotency-Key", "k")
	r.GetBody = nil // so that it is not sent twice
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(r)
	if err != nil {
		<-served
		got.Err = "no answer"
		return got
	}
	got.answer = read(res)
	<-served
	if got.Status != 304 {
		got.Header.Del("Content-Length")
	}
	for _, name := range unseen {
		got.Header.Del(name)
		got.Trailer.Del(name)
	}
	if len(got.Trailer["Idempotent-Replayed"]) == 0 {
		got.Trailer.Del("Idempotent-Replayed") // announced, and then it did not come
	}
	if len(got.Trailer) == 0 {
		got.Trailer = nil
	}
	return got
}
