package ideminspect_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/ideminspect"
)

func TestNewNamesTheBadField(t *testing.T) {
	_, err := ideminspect.New(ideminspect.Options{Write: true})
	require.ErrorContains(t, err, "Options.Actor is nil")
	_, err = ideminspect.New(ideminspect.Options{})
	require.NoError(t, err, "the zero Options")
}

func TestAddNamesWhatIsWrong(t *testing.T) {
	p, err := ideminspect.New(ideminspect.Options{})
	require.NoError(t, err)
	c := idemflight.MustNew(options{})
	ideminspect.Add(p, "payments", c, view{})
	require.PanicsWithValue(t, "ideminspect: Add: the Page is nil", func() { ideminspect.Add(nil, "x", c, view{}) })
	require.PanicsWithValue(t, "ideminspect: Add: the name is empty", func() { ideminspect.Add(p, "", c, view{}) })
	require.PanicsWithValue(t, "ideminspect: Add: the Cache x is nil", func() { ideminspect.Add(p, "x", (*cache)(nil), view{}) })
	require.PanicsWithValue(t, "ideminspect: Add: the page has a cache of the name payments", func() { ideminspect.Add(p, "payments", c, view{}) })
}

// TestWithoutCaches: a page is served before the caches are there.
func TestWithoutCaches(t *testing.T) {
	p, err := ideminspect.New(ideminspect.Options{})
	require.NoError(t, err)
	a := get(p, "")
	require.Equal(t, http.StatusOK, a.Status)
	require.Contains(t, a.Body, "There are no caches yet")
	require.Equal(t, http.StatusNotFound, get(p, "cache=payments").Status)
}

// TestHeaders: the page is never stored, not framed, and loads nothing from elsewhere; a nonce is used once.
func TestHeaders(t *testing.T) {
	s := newSite(t, options{}, view{})
	nonces := map[string]bool{}
	for _, a := range []answer{get(s.page, ""), get(s.page, "format=json"), get(s.page, "cache=none"), do(s.page, form("", "do", "find", "key", "ann/1"))} {
		require.Equal(t, "no-store", a.Header.Get("Cache-Control"))
		require.Equal(t, "DENY", a.Header.Get("X-Frame-Options"))
		require.Equal(t, "nosniff", a.Header.Get("X-Content-Type-Options"))
		require.Equal(t, "same-origin", a.Header.Get("Referrer-Policy"))
		policy := a.Header.Get("Content-Security-Policy")
		m := regexp.MustCompile(`^default-src 'none'; script-src 'nonce-(\w+)'; style-src 'nonce-(\w+)'; connect-src 'self'; ` +
			`form-action 'self'; base-uri 'none'; frame-ancestors 'none'$`).FindStringSubmatch(policy)
		require.NotNil(t, m, "policy %q", policy)
		require.False(t, nonces[m[1]], "a nonce of its own")
		nonces[m[1]] = true
		for _, tag := range regexp.MustCompile(`<(script|style)[^>]*>`).FindAllString(a.Body, -1) {
			require.Contains(t, tag, m[1])
		}
	}
	for _, elsewhere := range []string{"//", "src=", "@import", "url("} {
		style, _, _ := strings.Cut(get(s.page, "").Body, "<script")
		require.NotContains(t, style, elsewhere, "nothing is loaded")
	}
}

func TestOtherMethods(t *testing.T) {
	s := newSite(t, options{}, view{})
	for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions} {
		a := do(s.page, httptest.NewRequest(method, "/idemflight", nil))
		require.Equal(t, http.StatusMethodNotAllowed, a.Status, method)
		require.Equal(t, "GET, HEAD, POST", a.Header.Get("Allow"))
	}
	require.Equal(t, http.StatusOK, do(s.page, httptest.NewRequest(http.MethodHead, "/idemflight", nil)).Status)
}

// TestOtherSites: what another site has a browser send is refused, looks included, before anybody is asked who acts.
func TestOtherSites(t *testing.T) {
	s := newSite(t, options{}, full)
	hold(t, s.cache, ann, errBank)
	e := s.find(ann)
	for name, set := range map[string]func(*http.Request){
		"cross-site": func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"same-site":  func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
		"origin": func(r *http.Request) {
			r.Header.Del("Sec-Fetch-Site")
			r.Header.Set("Origin", "https://evil.example")
		},
	} {
		for _, what := range []string{"find", "did-not", "forget", "ask-again"} {
			r := form("", "do", what, "entry", e.Entry, "version", e.Version, "key", ann.String())
			set(r)
			require.Equal(t, http.StatusForbidden, do(s.page, r).Status, "%s of %s", what, name)
		}
	}
	require.Equal(t, idemflight.Held, s.state(ann))
	require.Empty(t, s.log.take(t))

	r := form("", "do", "did-not", "entry", e.Entry, "version", e.Version) // a client that is no browser
	r.Header.Del("Sec-Fetch-Site")
	require.Equal(t, http.StatusOK, do(s.page, r).Status)
}

func TestBadForms(t *testing.T) {
	s := newSite(t, options{}, view{})
	require.Equal(t, http.StatusRequestEntityTooLarge, do(s.page, form("", "do", "find", "key", strings.Repeat("x", 1<<20))).Status)
	r := form("")
	r.Body = io.NopCloser(strings.NewReader("do=%zz"))
	require.Equal(t, http.StatusBadRequest, do(s.page, r).Status)
	require.Equal(t, http.StatusNotFound, do(s.page, form("", "cache", "none", "do", "find", "key", "x")).Status)
	require.Equal(t, http.StatusNotFound, do(s.page, form("", "do", "explode")).Status)
	require.Equal(t, http.StatusNotFound, get(s.page, "entry=unheard").Status)
}

// TestGetChangesNothing: a link cannot act, whatever is in it, and no key is taken from one.
func TestGetChangesNothing(t *testing.T) {
	s := newSite(t, options{}, full)
	hold(t, s.cache, ann, errBank)
	e := s.find(ann)
	for _, what := range []string{"did-not", "forget"} {
		a := get(s.page, fmt.Sprintf("entry=%s&version=%s&do=%s", e.Entry, e.Version, what))
		require.Equal(t, http.StatusOK, a.Status)
		r := form(fmt.Sprintf("entry=%s&version=%s&do=%s", e.Entry, e.Version, what)) // nothing in the body
		require.Equal(t, http.StatusNotFound, do(s.page, r).Status)
	}
	require.Nil(t, get(s.page, "format=json&do=find&key="+ann.String()).shown(t).Entry)
	require.Equal(t, idemflight.Held, s.state(ann))
	require.Empty(t, s.log.take(t))
}

// TestReadOnly: without Write the routes do not exist, and nothing on the page leads to them.
func TestReadOnly(t *testing.T) {
	for _, actor := range []func(*http.Request) (string, error){nil, func(*http.Request) (string, error) { return "nora", nil }} {
		p, err := ideminspect.New(ideminspect.Options{Actor: actor, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		c := idemflight.MustNew(options{})
		ideminspect.Add(p, "payments", c, full)
		hold(t, c, ann, errBank)
		found := do(p, form("format=json", "do", "find", "key", ann.String())).shown(t)
		require.NotNil(t, found.Entry)
		require.Empty(t, found.Actions)
		require.False(t, found.Write)
		for _, what := range []string{"ask-again", "took-place", "refused", "did-not", "forget"} {
			a := do(p, form("", "do", what, "entry", found.Entry.Entry, "version", found.Entry.Version, "text", "x"))
			require.Equal(t, http.StatusNotFound, a.Status, what)
			require.Equal(t, http.StatusNotFound, get(p, "entry="+found.Entry.Entry+"&ask="+what).Status, what)
		}
		for _, query := range []string{"", "entry=" + found.Entry.Entry} {
			require.NotContains(t, get(p, query).Body, "ask=")
		}
		e, _, _ := c.Lookup(t.Context(), ann)
		require.Equal(t, idemflight.Held, e.State)
	}
}

// TestManyCaches: each has its own page, and the first page says which of them need somebody.
func TestManyCaches(t *testing.T) {
	s := newSite(t, options{}, view{})
	mails := idemflight.MustNew(idemflight.Options[int, bool]{})
	ideminspect.Add(s.page, "mails & more", mails, ideminspect.View[int, bool]{})
	hooks := idemflight.MustNew(idemflight.Options[string, int]{})
	ideminspect.Add(s.page, "hooks", hooks, ideminspect.View[string, int]{})
	hold(t, s.cache, ann, errBank)
	require.NoError(t, mails.Restore(t.Context(), 7, idemflight.Entry[bool]{State: idemflight.Held}))
	require.NoError(t, mails.Restore(t.Context(), 8, idemflight.Entry[bool]{State: idemflight.Held}))

	all := s.list()
	require.Equal(t, "payments", all.Cache, "the first")
	held := map[string]int{}
	for _, c := range all.Caches {
		held[c.Name] = c.Held
	}
	require.Equal(t, map[string]int{"payments": 1, "mails & more": 2, "hooks": 0}, held)
	require.Len(t, get(s.page, "cache=mails+%26+more&format=json").shown(t).Unsettled, 2)
	require.Contains(t, get(s.page, "").Body, `href="?cache=mails&#43;%26&#43;more"`)

	require.NotContains(t, get(s.page, "cache=mails+%26+more").Body, "Look up", "a type of which nobody said how it is read")
	a := do(s.page, form("", "cache", "mails & more", "do", "find", "key", "7"))
	require.Equal(t, http.StatusBadRequest, a.Status)
	require.Contains(t, a.Body, "View.ParseKey")
	require.Contains(t, get(s.page, "cache=hooks").Body, "Look up")

	// An entry of one cache is none of another.
	e := s.find(ann)
	require.Equal(t, http.StatusNotFound, get(s.page, "cache=hooks&entry="+e.Entry).Status)
	require.Equal(t, http.StatusConflict, do(s.page, form("", "cache", "hooks", "do", "forget", "entry", e.Entry, "version", e.Version)).Status)
}

// TestConcurrentUse: all at once, for the race detector.
func TestConcurrentUse(t *testing.T) {
	s := newSite(t, options{Reconcile: nil}, full)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			ideminspect.Add(s.page, fmt.Sprint("cache ", i), idemflight.MustNew(options{}), view{})
			for n := range 20 {
				k := key{Scope: "ann", ID: fmt.Sprintf("%d-of-%d", n, i)}
				_, _ = s.cache.Do(t.Context(), k, func(context.Context) (string, error) { return "", errBank })
				get(s.page, "")
				get(s.page, fmt.Sprintf("format=json&cache=cache+%d", i))
				a := do(s.page, form("format=json", "do", "find", "key", k.String()))
				e := a.shown(t).Entry
				if e == nil || s.act("did-not", e, "").Status != http.StatusOK {
					t.Errorf("%v is to be found and settled: %s", k, a.Body)
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, s.cache.Len())
	require.Len(t, s.log.take(t), 160, "lines of the log")
}
