package idemhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemflight/idemflight"
)

// Options configures [New]. Only Scope is required. Functions must be safe for concurrent use.
type Options struct {
	// Scope returns whose key it is: a stable principal, such as the account for which the
	// request was authenticated; not a bearer token, which changes between attempts and is a
	// secret. Two scopes never see each other's answers. After an error or an empty scope nothing
	// runs, and the answer is 401; if the error has a method StatusCode() int that returns 400 to
	// 599, it has that status, and 429 and 5xx are retryable. Scope must not read the body.
	// [SharedScope] opts out.
	Scope func(*http.Request) (string, error)

	// Cache keeps the answers. nil = MustNew(DefaultCacheOptions()). One cache may serve several
	// middlewares: then a key that a client uses for two of them counts as reused (422).
	Cache *idemflight.Cache[idemflight.Key, *Response]

	// HeaderName is the header that has the key. "" = "Idempotency-Key".
	HeaderName string

	// Key returns the key of a request that has it elsewhere: in a form field, in a header that
	// depends on the sender, in the body of an event. It gets the whole body, and a copy of the
	// request from which it may also read the body (by FormValue, say; the handler does not see
	// what it parses). It must not change the body. "" = no key. The key is taken as it is
	// returned: 1 to 255 bytes of visible ASCII, without quotes. An error is answered 400,
	// unless it carries a status as an error of Scope does. This is the place to check a
	// webhook's signature, before its id is believed. With Key, every covered request is read
	// first, even one without a key: 413 and 400 apply to it, and so does Scope. Key together
	// with HeaderName is an error.
	Key func(r *http.Request, body []byte) (string, error)

	// Require makes the answer to a covered request without a key 400. Otherwise
	// it passes untouched.
	Require bool

	// Methods are the methods that are covered, in whatever case; requests with others pass
	// untouched. A safe method is an error. nil = POST and PATCH.
	Methods []string

	// MaxWait is how long a duplicate waits for the first request's answer, or for the
	// cache's Reconcile, before it gets 409. 0 = 30 s; [idemflight.NoWait], or any negative
	// value: 409 at once, as in the draft. So that the 409 still arrives, the wait also ends
	// a tenth of the server's WriteTimeout (at most 1 s) before that, counted from when the
	// middleware saw the request.
	MaxWait time.Duration

	// MaxRequestBytes bounds the request's body, which is read into memory before the
	// handler runs. If it is larger, the answer is 413; if its Content-Length says so, it is
	// not even read. 0 = 1 MiB.
	MaxRequestBytes int64

	// MaxResponseBytes bounds how much of an answer's body is buffered and remembered. An answer
	// with a larger body is delivered whole and remembered without it. 0 = 1 MiB.
	MaxResponseBytes int64

	// Fingerprint tells a retry from another request with the same key. If it always returns zero,
	// the check is off: a key that is sent with another payload then gets the first answer. The
	// request's own Body has been read by then. nil = [DefaultFingerprint].
	Fingerprint func(r *http.Request, body []byte) idemflight.Fingerprint

	// Classify judges answers; the cache's own Classify is not asked about them. If it returns
	// Retain, the answer is stored, whatever the handler said about its effect. Otherwise the
	// handler decides, with BeginEffect (the key is held) or NoEffect (the next request runs
	// again). If it said neither, Release lets the next request run again, and Hold, or anything
	// else, a panic included, holds the key. The Response is complete and must not be changed. nil
	// = [ClassifyStatus].
	Classify func(*Response) idemflight.Disposition

	// KeyReusedStatus is the status for a key that was used with another payload, from 400 to 499.
	// 0 = 422.
	KeyReusedStatus int

	// ReplayHeader is the header that is "true" on every answer of a handler that did not run for
	// this request, and on no other. "" = "Idempotent-Replayed".
	ReplayHeader string

	// Problem writes the middleware's own answers; Retry-After and Cache-Control have been
	// set by then. nil = [WriteProblem], which a Problem of your own may call, too:
	// problem+json (RFC 9457).
	Problem func(http.ResponseWriter, *http.Request, Problem)
}

const (
	defaultMaxWait = 30 * time.Second // below what proxies and clients usually wait for an answer
	defaultMaxBody = 1 << 20
)

// Middleware gives handlers idempotency keys. Make one with [New]. Safe for concurrent use.
type Middleware struct {
	opts       Options // with defaults filled in, names of headers canonical
	reconciles bool    // the cache has a Reconcile
	keepsBody  bool    // Fingerprint or Key is the user's, and may keep the body that it is given

	problems [kinds]atomic.Uint64
}

// New returns a middleware, or an error that names every bad field of opts.
func New(opts Options) (*Middleware, error) {
	var bad []error
	report := func(field string, value any, why string) {
		bad = append(bad, fmt.Errorf("idemhttp: Options.%s is %v: %s", field, value, why))
	}
	if opts.Scope == nil {
		report("Scope", "nil", "must tell whose key it is: the authenticated account, say (SharedScope, if all clients are one party)")
	}
	if opts.Key != nil && opts.HeaderName != "" {
		report("HeaderName", fmt.Sprintf("%q", opts.HeaderName), "Key is given and tells the key: one of the two")
	}
	opts.HeaderName = orDefault(opts.HeaderName, defaultHeaderName)
	if !isToken(opts.HeaderName) {
		report("HeaderName", fmt.Sprintf("%q", opts.HeaderName), "no header can have that name")
	}
	opts.ReplayHeader = orDefault(opts.ReplayHeader, "Idempotent-Replayed")
	if !isToken(opts.ReplayHeader) {
		report("ReplayHeader", fmt.Sprintf("%q", opts.ReplayHeader), "no header can have that name")
	}
	for _, method := range opts.Methods {
		switch strings.ToUpper(method) {
		case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
			report("Methods", fmt.Sprintf("%q", opts.Methods), method+" is safe and needs no key")
		default:
			if !isToken(method) {
				report("Methods", fmt.Sprintf("%q", opts.Methods), fmt.Sprintf("%q is no method", method))
			}
		}
	}
	if opts.MaxRequestBytes < 0 {
		report("MaxRequestBytes", opts.MaxRequestBytes, "must not be negative (0 means the default, 1 MiB)")
	}
	if opts.MaxResponseBytes < 0 {
		report("MaxResponseBytes", opts.MaxResponseBytes, "must not be negative (0 means the default, 1 MiB)")
	}
	opts.KeyReusedStatus = orDefault(opts.KeyReusedStatus, http.StatusUnprocessableEntity)
	if opts.KeyReusedStatus < 400 || opts.KeyReusedStatus > 499 {
		report("KeyReusedStatus", opts.KeyReusedStatus, "must be from 400 to 499 (0 means the default, 422)")
	}
	if len(bad) > 0 {
		return nil, errors.Join(bad...)
	}

	opts.HeaderName, opts.ReplayHeader = http.CanonicalHeaderKey(opts.HeaderName), http.CanonicalHeaderKey(opts.ReplayHeader)
	opts.Methods = slices.Clone(opts.Methods)
	if len(opts.Methods) == 0 {
		opts.Methods = []string{http.MethodPost, http.MethodPatch}
	}
	opts.MaxWait = orDefault(opts.MaxWait, defaultMaxWait)
	opts.MaxRequestBytes = orDefault(opts.MaxRequestBytes, defaultMaxBody)
	opts.MaxResponseBytes = orDefault(opts.MaxResponseBytes, defaultMaxBody)
	if opts.Cache == nil {
		opts.Cache = idemflight.MustNew(DefaultCacheOptions())
	}
	keepsBody := opts.Fingerprint != nil || opts.Key != nil
	if opts.Fingerprint == nil {
		opts.Fingerprint = DefaultFingerprint
	}
	if opts.Classify == nil {
		opts.Classify = ClassifyStatus
	}
	if opts.Problem == nil {
		opts.Problem = WriteProblem
	}
	return &Middleware{opts: opts, reconciles: opts.Cache.Options().Reconcile != nil, keepsBody: keepsBody}, nil
}

func orDefault[T comparable](v, otherwise T) T {
	if v == *new(T) {
		return otherwise
	}
	return v
}

// isToken reports whether s can be a method or the name of a header (RFC 9110).
func isToken(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

// Cache returns the cache that keeps the answers, so that you can settle held keys, watch it, and
// hand the keys over at a restart.
func (m *Middleware) Cache() *idemflight.Cache[idemflight.Key, *Response] { return m.opts.Cache }

// Handler returns next with idempotency keys. It panics if next is nil.
//
// The executing request runs next on its own goroutine. The context that next gets has the values
// of the request's context, but neither its cancellation nor a deadline set outside: it ends at the
// cache's ExecTimeout and when next returns, so that a client that hangs up neither stops the work
// nor loses its answer. The end of the server's BaseContext does not end it either: if a handler
// must learn of a shutdown, tell it by a channel of your own. It is the context for
// [idemflight.BeginEffect] and [idemflight.NoEffect].
func (m *Middleware) Handler(next http.Handler) http.Handler {
	if next == nil {
		panic("idemhttp: Handler called with a nil handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.serve(next, w, r) })
}

// serve lets a request pass that is not covered, and has the others read and answered.
func (m *Middleware) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	if !m.covers(r.Method) || m.opts.Key == nil && !m.opts.Require && len(r.Header[m.opts.HeaderName]) == 0 {
		next.ServeHTTP(w, r)
		return
	}
	c := calls.Get().(*call)
	c.m, c.next, c.w, c.r = m, next, w, r
	c.noteTime()
	switch k, err := c.read(); {
	case err == errKeyMissing && !m.opts.Require:
		run(next, w, r, withBodyBack(r, c.body))
	case err != nil:
		m.problem(w, r, k, err)
		c.release()
	case c.once():
		c.release()
	}
}

// read finds out the key, its scope and the body, in the order of the checks: what costs
// nothing first, and nothing is read for a client that Scope refuses. An error comes with
// its kind of problem.
func (c *call) read() (k kind, err error) {
	m, r := c.m, c.r
	if m.opts.Key == nil {
		if c.key.ID, err = parseKey(r.Header[m.opts.HeaderName]); err != nil {
			return kindOfKey(err), err
		}
	}
	if c.key.Scope, err = m.opts.Scope(r); err != nil {
		return problemScope.refused(err), err
	}
	if c.key.Scope == "" {
		return problemScope, errNoScope
	}
	if c.body, err = readBody(r, m.opts.MaxRequestBytes, c.body); err != nil {
		if errors.Is(err, errBodyTooLarge) {
			return problemBodyTooLarge, err
		}
		return problemUnreadableBody, err
	}
	if m.opts.Key == nil {
		return kind{}, nil
	}
	toRead := withBodyBack(r, c.body)
	defer func() { // the server removes the files of a form that its own request has
		if toRead.MultipartForm != nil && toRead.MultipartForm != r.MultipartForm {
			_ = toRead.MultipartForm.RemoveAll()
		}
	}()
	if c.key.ID, err = m.opts.Key(toRead, c.body); err != nil {
		k = problemMalformedKey.refused(err)
		k.detail = detailKeyFailed
		return k, err
	}
	if c.key.ID == "" {
		return problemMissingKey, errKeyMissing
	}
	return problemMalformedKey, checkKey(c.key.ID)
}

func kindOfKey(err error) kind {
	if err == errKeyMissing {
		return problemMissingKey
	}
	return problemMalformedKey
}

func (m *Middleware) covers(method string) bool {
	for _, covered := range m.opts.Methods {
		if strings.EqualFold(covered, method) {
			return true
		}
	}
	return false
}

// A call is a covered request on its way through the cache.
type call struct {
	m    *Middleware
	next http.Handler
	w    http.ResponseWriter
	r    *http.Request
	key  idemflight.Key
	body []byte
	rec  *recorder // not nil: this request executes

	// If the server has a WriteTimeout.
	writeTimeout time.Duration
	seen         time.Time // when the middleware saw the request

	fn func(context.Context) (*Response, error) // execute, which would be allocated each time anew
}

// calls pools finished calls. One that did not execute keeps the buffer of its body.
var calls = sync.Pool{New: func() any {
	c := new(call)
	c.fn = c.execute
	return c
}}

// release lets another request have c; nothing of c may be used afterwards. Only a body that
// nobody can have kept goes with it. Otherwise another customer's would be found there: by a
// handler, which may read its request's body after it has returned, or by a Fingerprint or
// Key of the user's own.
func (c *call) release() {
	body := c.body
	if c.rec != nil || c.m.keepsBody {
		body = nil
	}
	*c = call{body: body[:0], fn: c.fn}
	calls.Put(c)
}

// once makes the one call of the cache, and answers. It reports whether c is over: the cache has
// answered with an outcome, so that it cannot run fn any more. After a panic nothing is certain.
func (c *call) once() bool {
	m, w, r := c.m, c.w, c.r
	defer func() {
		if c.rec == nil {
			return
		}
		deleteFold(w.Header(), m.opts.ReplayHeader)
		// The cache has wrapped the handler's panic; the server's recovery is to see its own. The
		// handler's frames, if they are on the stack now, stay there until that recovery returns.
		if v := recover(); v != nil {
			if p, ok := v.(*idemflight.PanicError); ok {
				v = p.Value
			}
			panic(v)
		}
	}()
	res, err := m.opts.Cache.DoResult(r.Context(), c.key, c.fn,
		idemflight.WithFingerprint(m.opts.Fingerprint(r, c.body)), idemflight.WithMaxWait(c.maxWait()), idemflight.Inline())
	switch {
	case c.rec != nil:
		c.rec.deliver() // whatever it means to the cache, its client gets it
	case res.Source == idemflight.NoOutcome && isAnswer(err, idemflight.ErrReentrant):
		run(c.next, w, r, withBody(r.Context(), r, c.body, new(requestBody))) // mounted twice: the outer one sees to it
	default:
		m.answer(w, r, res, err)
	}
	return res.Source != idemflight.NoOutcome
}

// noteTime notes when the middleware saw the request, if the time to answer it is limited.
func (c *call) noteTime() {
	if s, ok := c.r.Context().Value(http.ServerContextKey).(*http.Server); ok && s.WriteTimeout > 0 {
		c.writeTimeout, c.seen = s.WriteTimeout, time.Now()
	}
}

// maxWait returns how long the request may wait for another's answer, so that the server still lets
// its own through.
func (c *call) maxWait() time.Duration {
	wait := c.m.opts.MaxWait
	if c.writeTimeout == 0 {
		return wait
	}
	left := c.writeTimeout - min(c.writeTimeout/10, time.Second) - time.Since(c.seen)
	if left <= 0 {
		return idemflight.NoWait
	}
	return min(wait, left)
}

// execute runs the handler and returns what its answer is to the cache.
func (c *call) execute(ctx context.Context) (*Response, error) {
	c.rec = newRecorder(c.w, c.r, c.m.opts.MaxResponseBytes, c.m.opts.ReplayHeader)
	c.rec.ctx = handlerContext{ctx, c.key}
	run(c.next, c.rec.writer(), c.r, withBody(&c.rec.ctx, c.r, c.body, &c.rec.request))
	resp, err := c.m.outcome(c.rec.finish())
	if err == nil && resp.Status >= 400 { // a refusal, and not the success that EventUnannounced is about
		idemflight.NoEffect(ctx)
	}
	return resp, err
}

// run runs the handler with copied, the copy of the server's request that it may read.
func run(next http.Handler, w http.ResponseWriter, original, copied *http.Request) {
	defer func() {
		// The server removes the files of a form; middleware outside asks for the pattern.
		original.MultipartForm, original.Pattern = copied.MultipartForm, copied.Pattern
	}()
	next.ServeHTTP(w, copied)
}

// answer answers a request that did not execute.
func (m *Middleware) answer(w http.ResponseWriter, r *http.Request, res idemflight.Result[*Response], err error) {
	kept := !res.ExpiresAt.IsZero()
	switch resp := res.Value; {
	case res.Source == idemflight.NoOutcome:
		m.problem(w, r, m.kindOf(err), err)
	case res.Source == idemflight.Joined && isAnswer(err, idemflight.ErrOutcomeUnknown): // the flight left the key held
		m.problem(w, r, m.unknown(), err)
	case resp != nil && resp.BodyOmitted && kept:
		m.problem(w, r, problemUnavailable, idemflight.ErrValueShed)
	case resp != nil && resp.BodyOmitted:
		m.problem(w, r, problemUnrecorded, orDefault(err, errUnrecorded))
	case resp == nil || !m.replay(w, resp):
		k := problemFailed
		if !kept { // released: the next one runs
			k.retryAfter = retrySoon
		}
		m.problem(w, r, k, orDefault(err, errNoResponse))
	}
}

var (
	errUnrecorded = errors.New("idemhttp: the answer was larger than MaxResponseBytes")
	errNoResponse = errors.New("idemhttp: the outcome has no Response that can be sent")
)
