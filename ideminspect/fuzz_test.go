package ideminspect_test

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/ideminspect"
)

// mark is in every text that FuzzPage has others write. In a page it must never be markup.
const mark = "fuzz-mark"

// marked returns s with what would be an element, or end an attribute, if it were not escaped.
func marked(s string) string { return s + "<" + mark + ` a="` + mark + ` b='` + mark + ">" + s }

// Bits of how a request is made.
const (
	posts         = 1 << iota // otherwise it is a GET
	fromElsewhere             // the browser says that it comes from another site
	nobody                    // the actor is not known
	readOnly                  // the page has no Write
	guesses                   // the entry is not one that the page has named
	blind                     // the version is not that of the entry
	asJSON
	retained     // the entry is retained, not held
	plain        // the body is not a form
	anotherCache // the name of the cache is not the one on the page
	oddMethod
)

// found is what Reconcile finds.
const found = "found"

// input is what FuzzPage tries.
type input struct {
	setup   int
	do, key string // what to do, or to ask about; the key to look up
	text    string // what the operator types
	raw     string // behind the rest, as it is
}

// sends reports whether that bit is set.
func (in input) sends(bit int) bool { return in.setup&bit != 0 }

// request is the request, for the entry e.
func (in input) request(e *entry, cacheName string) *http.Request {
	if in.sends(guesses) {
		e.Entry = in.key
	}
	if in.sends(blind) {
		e.Version = in.text
	}
	if in.sends(anotherCache) {
		cacheName = marked(in.text)
	}
	format := ""
	if in.sends(asJSON) {
		format = "format=json"
	}
	r := form(format, "cache", cacheName, "do", in.do, "entry", e.Entry, "version", e.Version, "text", in.text, "key", in.key)
	if !in.sends(posts) {
		ask := url.Values{"cache": {cacheName}, "entry": {e.Entry}, "ask": {in.do}}
		r = form("")
		r.Method, r.Body, r.URL.RawQuery = http.MethodGet, http.NoBody, format+"&"+ask.Encode()+"&"+in.raw
	} else {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(body) + "&" + in.raw))
	}
	if in.sends(oddMethod) {
		r.Method = map[string]string{http.MethodGet: http.MethodHead, http.MethodPost: http.MethodDelete}[r.Method]
	}
	if in.sends(fromElsewhere) {
		r.Header.Set("Sec-Fetch-Site", "cross-site")
	}
	if in.sends(plain) {
		r.Header.Set("Content-Type", "text/plain")
	}
	if in.sends(nobody) {
		r.Header.Del("X-User")
	}
	return r
}

// mayAct reports whether the request has all that an action needs.
func (in input) mayAct() bool {
	_, bad := url.ParseQuery(in.raw)
	const not = fromElsewhere | nobody | readOnly | guesses | blind | plain | anotherCache | oddMethod
	return in.sends(posts) && in.setup&not == 0 && bad == nil
}

// becomes returns what the entry is to be afterwards.
func (in input) becomes(was idemflight.Entry[string]) (is idemflight.Entry[string]) {
	if !in.mayAct() || was.State != idemflight.Held && in.do != "forget" {
		return was
	}
	is.State = idemflight.Retained
	switch {
	case in.do == "forget", in.do == "did-not":
		is.State = idemflight.Absent
	case in.do == "ask-again":
		is.Value = found
	case in.do == "took-place" && in.text != "":
		is.Value = in.text
	case in.do == "refused" && strings.TrimSpace(in.text) != "":
		is.Err = errors.New(in.text)
	default:
		return was
	}
	return is
}

// FuzzPage sends a page what no operator would send, about an entry whose key, error and value are no operator's
// either. The page answers, and never with 5xx; what others wrote stays text; JSON stays JSON; and the entry
// changes only if an action is confirmed, by somebody, for what there is.
func FuzzPage(f *testing.F) {
	hostile := []string{"", "x", "ann/1", "</title><script>alert(1)</script>", `" onload="x`, "]]>&lt;&#0;", "\xff\x00\u2028\u202e", "%", " \n"}
	for i, do := range []string{"find", "ask-again", "took-place", "refused", "did-not", "forget", "", "explode"} {
		text := hostile[i%len(hostile)]
		for bit := 1; bit <= oddMethod; bit *= 2 {
			f.Add(posts|bit, do, text, "text", text, "")
			f.Add(posts|bit|asJSON, do, "ann/1", text, text, "do=forget&format=json")
			f.Add(bit&^posts, do, text, text, text, "entry=&ask=forget&cache=%zz;")
		}
	}
	f.Fuzz(func(t *testing.T, setup int, do, key, text, others, raw string) {
		checkPage(t, input{setup, do, key, text, raw}, marked(others))
	})
}

// checkPage tries in on an entry in whose key, error and value others wrote that text.
func checkPage(t *testing.T, in input, others string) {
	opts := options{MaxEntries: 1, Reconcile: func(context.Context, key, idemflight.Entry[string]) (string, error) { return found, nil }}
	shows := full
	shows.Key = func(k key) string { return k.ID }
	log := &logged{}
	page, err := ideminspect.New(ideminspect.Options{Write: !in.sends(readOnly), Actor: actor, Logger: newLogger(log)})
	require.NoError(t, err)
	s, name := &site{t, page, idemflight.MustNew(opts), log}, marked("payments")
	defer func() { require.NoError(t, s.cache.Close(context.Background())) }()
	ideminspect.Add(page, name, s.cache, shows)

	k := key{Scope: "ann", ID: others}
	if in.sends(retained) {
		settle(t, s.cache, k, others)
	} else {
		hold(t, s.cache, k, errors.New(others))
	}
	was, _, err := s.cache.Lookup(t.Context(), k)
	require.NoError(t, err)

	r := in.request(s.find(k), name)
	asked := fmt.Sprintf("%s ?%s %+v", r.Method, r.URL.RawQuery, in)
	wantsJSON := r.URL.Query().Get("format") == "json"
	a := do(s.page, r)
	require.Less(t, a.Status, 500, "%s\n%s", asked, a.Body)
	if wantsJSON {
		requireJSON(t, a, asked)
	} else {
		requireMarkup(t, a, asked)
	}
	require.NotContains(t, fmt.Sprint(a.Header), mark, "a key or a text in a header: %s", asked)

	want := in.becomes(was)
	is, _, err := s.cache.Lookup(t.Context(), k)
	require.NoError(t, err)
	require.Equal(t, want.State, is.State, "%s: %d %s", asked, a.Status, a.Body)
	require.Equal(t, want.Value, is.Value, asked)
	require.Equal(t, fmt.Sprint(want.Err), fmt.Sprint(is.Err), asked)
	acted := want.State != was.State
	lines := s.log.take(t)
	for _, line := range lines {
		require.NotContains(t, fmt.Sprint(line["key"]), mark, "the log has no more than the beginning of a key: %s", asked)
		require.Equal(t, acted, line["msg"] == "ideminspect: done", "%s: %v", asked, line)
	}
	if acted {
		require.Equal(t, http.StatusOK, a.Status, asked)
		require.Len(t, lines, 1, "what was done is logged once: %s", asked)
		require.Equal(t, "nora", lines[0]["by"], asked)
	}
}

func requireJSON(t *testing.T, a answer, asked string) {
	t.Helper()
	require.Equal(t, "application/json", a.Header.Get("Content-Type"), asked)
	require.True(t, json.Valid([]byte(a.Body)), "JSON stays JSON: %s\n%s", asked, a.Body)
	for _, bad := range []string{"<", ">", "&"} { // so that a browser that takes it for a page finds no markup
		require.NotContains(t, a.Body, bad, asked)
	}
}

// requireMarkup fails if the page is not well-formed, or if what is marked is more than text.
func requireMarkup(t *testing.T, a answer, asked string) {
	t.Helper()
	require.Equal(t, "text/html; charset=utf-8", a.Header.Get("Content-Type"), asked)
	for _, quote := range []string{"<", `"`, "'"} {
		require.NotContains(t, a.Body, quote+mark, asked)
	}
	d := xml.NewDecoder(strings.NewReader(withoutCode(a.Body)))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		token, err := d.Token()
		if err == io.EOF {
			return
		}
		require.NoError(t, err, "%s\n%s", asked, a.Body)
		element, _ := token.(xml.StartElement)
		for _, attr := range element.Attr {
			require.NotContains(t, element.Name.Local+" "+attr.Name.Local, mark, asked)
			require.False(t, strings.HasPrefix(attr.Name.Local, "on"), "%s: %s runs something", asked, attr.Name.Local)
			if attr.Name.Local == "href" || attr.Name.Local == "action" {
				require.Regexp(t, `^[?#]`, attr.Value, "an address elsewhere: %s", asked)
			}
		}
	}
}

// withoutCode returns a page without style and script, which are not XML.
func withoutCode(body string) string {
	for _, name := range []string{"style", "script"} {
		before, rest, _ := strings.Cut(body, "<"+name)
		_, after, _ := strings.Cut(rest, "</"+name+">")
		body = before + after
	}
	return body
}
