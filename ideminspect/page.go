package ideminspect

import (
	"bytes"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/idemflight/idemflight"
)

// Options configures [New]. The zero value is a page that changes nothing.
type Options struct {
	// Write lets operators settle and forget keys. Otherwise these routes do not exist: 404.
	Write bool

	// Actor returns the name of the person who acts, for the log and for the page; it must not
	// be empty. An error is answered 403 and logged. Required with Write. Actor must be safe
	// for concurrent use.
	Actor func(*http.Request) (string, error)

	// Logger logs every action: at level Info if it was done, Warn if not. nil = slog.Default() at
	// the time of each action.
	Logger *slog.Logger
}

// Page is an [http.Handler] that shows caches. Make one with [New], and put caches on it with
// [Add]. Safe for concurrent use.
type Page struct {
	opts  Options
	cross *http.CrossOriginProtection

	mu     sync.RWMutex // guards caches; nothing runs under it
	caches []*shown     // in the order in which they were added
}

// New returns a page without caches, or an error that names the bad field of opts.
func New(opts Options) (*Page, error) {
	if opts.Write && opts.Actor == nil {
		return nil, errors.New("ideminspect: Options.Actor is nil: Write is set, and needs it to log who acts")
	}
	return &Page{opts: opts, cross: http.NewCrossOriginProtection()}, nil
}

// Add puts a cache on the page, after those that are already there. It panics if p or c is nil, or
// if name is empty or taken. Safe for concurrent use, even while the page is being served.
func Add[K comparable, V any](p *Page, name string, c *idemflight.Cache[K, V], v View[K, V]) {
	switch {
	case p == nil:
		panic("ideminspect: Add: the Page is nil")
	case name == "":
		panic("ideminspect: Add: the name is empty")
	case c == nil:
		panic("ideminspect: Add: the Cache " + name + " is nil")
	}
	p.add(newShown(name, c, v))
}

func (p *Page) add(c *shown) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.ContainsFunc(p.caches, func(other *shown) bool { return other.name == c.name }) {
		panic("ideminspect: Add: the page has a cache of the name " + c.name)
	}
	p.caches = append(p.caches, c)
}

// all returns the caches; the slice is only read.
func (p *Page) all() []*shown {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.caches[:len(p.caches):len(p.caches)]
}

// named returns the cache of that name, or the first one for no name.
func (p *Page) named(name string) *shown {
	for _, c := range p.all() {
		if c.name == name || name == "" {
			return c
		}
	}
	return nil
}

// answer is what a request gets: as a page, or as JSON.
type answer struct {
	status int

	Now     time.Time `json:"now"`
	Write   bool      `json:"write"`
	Cache   string    `json:"cache,omitempty"`
	Message string    `json:"message,omitempty"`

	*listing           // nil on pages about one entry
	Entry    *entryRow `json:"entry,omitempty"`
	Actions  []action  `json:"actions,omitempty"` // of Entry

	HeldActions []action `json:"-"` // of each held key that is listed

	Asks    *action `json:"-"` // the page asks whether to do this
	Who     string  `json:"-"` // who would do it
	LooksUp string  `json:"-"` // the label of the look-up; "" without one
	Nonce   string  `json:"-"`
	Part    bool    `json:"-"` // for a page that is live: without style and script
}

// failed makes a an answer that says why there is none.
func (a *answer) failed(status int, message string) {
	a.status, a.Message = status, message
}

// Lists reports whether a is the page of a cache.
func (a *answer) Lists() bool { return a.listing != nil }

// Bad reports whether the message tells of something that went wrong.
func (a *answer) Bad() bool { return a.status >= 400 }

// maxBody bounds the body of a POST: a value, say, that an operator gives.
const maxBody = 1 << 20

// ServeHTTP answers GET and HEAD with the page, and a POST that looks a key up or acts. It returns
// soon after the request's context has ended.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := &answer{status: http.StatusOK, Now: time.Now(), Write: p.opts.Write, Nonce: rand.Text()}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'nonce-"+a.Nonce+"'; style-src 'nonce-"+a.Nonce+
		"'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin") // no-referrer would hide from us where a POST comes from
	p.answer(a, w, r)
	format := r.URL.Query().Get("format")
	a.Part = format == "part"
	a.write(w, format == "json")
}

// answer finds out what to answer.
func (p *Page) answer(a *answer, w http.ResponseWriter, r *http.Request) {
	ask := r.URL.Query()
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodPost:
		if err := p.cross.Check(r); err != nil {
			a.failed(http.StatusForbidden, "This request came from another site: nothing was done.")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if err := r.ParseForm(); err != nil {
			if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
				a.failed(http.StatusRequestEntityTooLarge, "That is too long: at most 1 MiB.")
				return
			}
			a.failed(http.StatusBadRequest, "This form cannot be read: "+clean(err.Error(), maxText))
			return
		}
		ask = r.PostForm
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		a.failed(http.StatusMethodNotAllowed, "GET, HEAD or POST.")
		return
	}
	c := p.named(ask.Get("cache"))
	switch {
	case c == nil && ask.Get("cache") != "":
		a.failed(http.StatusNotFound, "There is no cache of this name.")
		return
	case c == nil:
		a.Message = "There are no caches yet: ideminspect.Add puts them here."
		return
	}
	a.Cache, a.LooksUp = c.name, c.entries.looksUp()
	switch {
	case r.Method == http.MethodPost && ask.Get("do") == "find":
		p.find(a, r, c, ask.Get("key"))
	case r.Method == http.MethodPost:
		p.act(a, r, c, ask)
	case ask.Get("entry") != "":
		p.entry(a, r, c, ask)
	default:
		p.list(a, r, c)
	}
}

// write writes a.
func (a *answer) write(w http.ResponseWriter, asJSON bool) {
	var b bytes.Buffer
	var err error
	if asJSON {
		w.Header().Set("Content-Type", "application/json")
		err = json.NewEncoder(&b).Encode(a)
	} else {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		err = page.Execute(&b, a)
	}
	if err != nil { // a bug of this package
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(b.Bytes()) // that the client is gone is no error
}

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string
	//go:embed page.js
	pageJS string

	page = template.Must(template.New("page").Funcs(template.FuncMap{
		"age":  func(seconds float64) string { return age(time.Duration(seconds * float64(time.Second))) },
		"rate": rate, "number": number, "instant": instant, "short": short, "state": stateText,
		"percent": func(share float64) string { return fmt.Sprintf("%.1f%s%%", 100*share, space) },
		"css":     func() template.CSS { return template.CSS(pageCSS) },
		"js":      func() template.JS { return template.JS(pageJS) },
		"row":     func(a *answer, r entryRow) rowOf { return rowOf{a, r} },
		"url":     pageURL,
	}).Parse(pageHTML))
)

// rowOf is a row of a table, for a template.
type rowOf struct {
	*answer
	Row entryRow
}

// pageURL returns the address of a page, relative to where it is mounted: pairs
// are names and values.
func pageURL(pairs ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	return "?" + q.Encode()
}
