package idemhttp

import (
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// A recorder stands between a handler and the writer of the executing request, and must not be
// noticed: what the client gets is what it would have got without. What is recorded is what was
// sent.
//
//	buffering ──Flush, or a Write past limit──▶ passing ──▶ done
//	    └──────────────finish, deliver─────────────────────▶ done
//
// While it buffers, nothing reaches the client but 1xx, so that a handler that panics leaves no
// half answer. Passing, it goes on recording as long as the body fits. A client that has gone is
// none of the handler's business: writes succeed.
//
// The handler sees the headers of w itself: what it changes after WriteHeader must still be found
// there (trailers), and 1xx answers send it. So the moment of WriteHeader is kept in header.
//
// Like any http.ResponseWriter, it is for one goroutine at a time.
type recorder struct {
	// Written before the handler runs, only read after.
	w         http.ResponseWriter
	limit     int64       // MaxResponseBytes
	unwelcome string      // the replay header, which would say of this answer what is not true
	switches  bool        // 101 is a final status: HTTP/1
	before    http.Header // what middleware outside had set; a copy

	// What else the handler is given; here to save allocations.
	ctx     handlerContext
	request requestBody

	// Written by the final WriteHeader, only read after.
	status   int         // 0: there was none yet
	header   http.Header // a copy, whose strings are its own
	declared int64       // Content-Length; -1: none

	// Of the writing.
	written    int64 // what the handler tried to write
	body       []byte
	omitted    bool // the body did not fit
	sentHeader bool
	passing    bool
	late       http.Header // the handler's later changes, parked while w holds the snapshot
	announcing http.Header // what w had when it had written a header that announces trailers; a copy
	sniffed    []string    // the Content-Type that net/http adds when the header is sent; nil: none
}

func newRecorder(w http.ResponseWriter, r *http.Request, limit int64, replayHeader string) *recorder {
	rec := &recorder{w: w, limit: limit, unwelcome: replayHeader, switches: r.ProtoMajor < 2}
	if h := w.Header(); len(h) > 0 {
		rec.before = h.Clone()
	}
	return rec
}

// writer returns what the handler is given: a Flusher if w can flush, since handlers ask.
func (r *recorder) writer() http.ResponseWriter {
	if canFlush(r.w) {
		return flusher{r}
	}
	return r
}

func canFlush(w http.ResponseWriter) bool {
	for {
		switch t := w.(type) {
		case interface{ FlushError() error }, http.Flusher:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return false
		}
	}
}

func (r *recorder) Header() http.Header { return r.w.Header() }

func (r *recorder) WriteHeader(status int) {
	switch {
	case r.status != 0:
		r.logSuperfluous()
		return
	case status < 100 || status > 999:
		// Here, where it is the handler's, and not later, when the header is sent.
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	}
	h := r.w.Header()
	deleteFold(h, r.unwelcome)
	if status < 200 && !(status == http.StatusSwitchingProtocols && r.switches) {
		r.w.WriteHeader(status)
		return
	}
	r.status = status
	r.header = owned(h)
	r.declared = declaredLength(h)
}

// logSuperfluous logs that a final status was there already, to where net/http
// would have logged it.
func (r *recorder) logSuperfluous() {
	s, _ := r.ctx.Value(http.ServerContextKey).(*http.Server)
	if s == nil {
		return // nobody's log
	}
	logf := log.Printf
	if s.ErrorLog != nil {
		logf = s.ErrorLog.Printf
	}
	from := callerOutside()
	logf("http: superfluous response.WriteHeader call from %s (%s:%d)", from.Function, path.Base(from.File), from.Line)
}

// callerOutside returns the innermost caller that is neither the recorder nor
// net/http (http.Error, say).
func callerOutside() runtime.Frame {
	var callers [16]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(2, callers[:])])
	for {
		frame, more := frames.Next()
		inside := strings.HasPrefix(frame.Function, "net/http.") || strings.HasPrefix(frame.Function, thisPackage)
		if !inside || !more {
			return frame
		}
	}
}

const thisPackage = "github.com/idemflight/idemflight/idemhttp."

func (r *recorder) Write(p []byte) (int, error)       { return write(r, p) }
func (r *recorder) WriteString(s string) (int, error) { return write(r, s) }

func write[T []byte | string](r *recorder, p T) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	switch {
	case len(p) == 0:
		return 0, nil
	case !bodyAllowed(r.status):
		return 0, http.ErrBodyNotAllowed
	}
	r.written += int64(len(p)) // counted although it may fail, as net/http does: no later Write fits in
	if r.declared >= 0 && r.written > r.declared {
		return 0, http.ErrContentLength
	}
	switch {
	case r.omitted:
	case int64(len(p)) <= r.limit-int64(len(r.body)):
		if cap(r.body)-len(r.body) < len(p) {
			// At first what is declared, as far as a claim is worth it; then doubled: append alone
			// takes ever smaller steps.
			r.body = slices.Grow(r.body, max(len(p), len(r.body), int(min(r.declared, r.limit, defaultMaxBody))))
		}
		// No room of a pool: a handler may write after it has returned, and not
		// into another's answer.
		r.body = append(r.body, p...)
	default:
		if !r.passing {
			r.pass([]byte(p[:min(len(p), sniffLen)]))
		}
		r.body, r.omitted = nil, true
	}
	if r.passing {
		send(r, p)
		r.restore()
	}
	return len(p), nil
}

// sniffLen is how much net/http looks at to find out the Content-Type.
const sniffLen = 512

// ReadFrom is what io.Copy uses.
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{r}, src, buf[:])
}

const copyBuffer = 32 << 10 // as io.Copy has it

var copyBuffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// pass sends what there is, and makes all that follows pass through. next is the beginning of what
// follows at once.
func (r *recorder) pass(next []byte) {
	r.sendHeader(next)
	r.passing = true
	if len(r.body) > 0 {
		send(r, r.body)
	}
}

// send writes p to the client. Whether it is still there is not the handler's business: the answer
// is recorded for the retry.
func send[T []byte | string](r *recorder, p T) {
	switch p := any(p).(type) {
	case []byte:
		_, _ = r.w.Write(p)
	case string:
		_, _ = io.WriteString(r.w, p)
	}
}

// sendHeader makes w write its header as it stood at WriteHeader. next is the beginning of what
// follows the body there is without a Flush in between.
func (r *recorder) sendHeader(next []byte) {
	if r.sentHeader {
		return
	}
	r.sentHeader = true
	h := r.w.Header()
	if !sameHeader(h, r.header) {
		r.late = make(http.Header, len(h))
		replaceHeader(r.late, h)
		replaceHeader(h, r.header.Clone())
	}
	r.w.WriteHeader(r.status)
	if len(r.header["Trailer"]) > 0 {
		r.announcing = h.Clone()
	}
	// Asked now, when middleware outside that sets headers at WriteHeader has done so.
	first := append(slices.Clip(r.body[:min(len(r.body), sniffLen)]), next[:min(len(next), sniffLen)]...)
	if r.sniffs(h) && len(first) > 0 {
		r.sniffed = []string{http.DetectContentType(first)}
	}
}

// restore gives w the headers that the handler has changed since WriteHeader, once the body has
// begun: middleware outside may send its header only then. What it has changed itself stays.
func (r *recorder) restore() {
	if r.late == nil {
		return
	}
	h := r.w.Header()
	for name, values := range h {
		if was, ok := r.header[name]; !ok || !slices.Equal(was, values) {
			r.late[name] = values
		}
	}
	for name := range r.header {
		if _, ok := h[name]; !ok {
			delete(r.late, name)
		}
	}
	replaceHeader(h, r.late)
	r.late = nil
}

// sniffs reports whether net/http adds a Content-Type to h.
func (r *recorder) sniffs(h http.Header) bool {
	if _, ok := h["Content-Type"]; ok {
		return false
	}
	return h.Get("Content-Encoding") == "" && !(r.switches && h.Get("Transfer-Encoding") != "")
}

func sameHeader(a, b http.Header) bool {
	if len(a) != len(b) {
		return false
	}
	for name, values := range a {
		other, ok := b[name]
		if !ok || !slices.Equal(values, other) {
			return false
		}
	}
	return true
}

func replaceHeader(to, from http.Header) {
	clear(to)
	for name, values := range from {
		to[name] = values
	}
}

// finish returns what is to be remembered, once the handler has returned. The header is on its way
// then, the body is if it passed through: for the rest see deliver.
func (r *recorder) finish() *Response {
	h := r.w.Header()
	deleteFold(h, r.unwelcome) // as a trailer
	if r.status == 0 {
		// Nothing was written, and w is left untouched: the server makes it an empty 200, unless
		// middleware outside still has something to say.
		header := changed(r.before, maps.Clone(h))
		delete(header, r.unwelcome)
		return &Response{Status: http.StatusOK, Header: owned(header), Trailer: r.trailer(h, h)}
	}
	r.sendHeader(nil)
	if r.late != nil {
		h = r.late
	}
	if cap(r.body)-len(r.body) > len(r.body)/8 {
		r.body = slices.Clone(r.body) // it will be kept for long
	}
	resp := &Response{Status: r.status, Trailer: r.trailer(r.header, h), Body: r.body, BodyOmitted: r.omitted}
	_, told := r.header["Content-Type"]
	if len(r.before) == 0 && r.late == nil {
		resp.Header = changed(nil, r.header)
	} else { // restore may have to compare still, and what is taken out is not to be kept alive
		resp.Header = owned(changed(r.before, maps.Clone(r.header)))
	}
	if !told && (len(r.body) > 0 || r.omitted) {
		resp.Header["Content-Type"] = r.sniffed // nil if the first client saw none
	}
	delete(resp.Header, r.unwelcome)
	return resp
}

// deliver sends the answer that finish has seen, if it has not passed through. The outcome is
// settled by then: a client that reads slowly keeps nobody waiting.
func (r *recorder) deliver() {
	if r.sentHeader && !r.passing {
		r.pass(nil)
	}
	r.restore()
}

// trailer returns the trailers of the handler: what sent, the header as it was sent, announces, and
// what has http.TrailerPrefix, as they stand in h at the end. What was announced and is gone then
// has no values. What middleware outside has set, also when it wrote the header, and the handler
// left alone is not the handler's.
func (r *recorder) trailer(sent, h http.Header) http.Header {
	var out http.Header
	add := func(name, from string) {
		had, has := r.before[from], h[from]
		if slices.Equal(had, sent[from]) && (slices.Equal(had, has) || r.announcing != nil && slices.Equal(r.announcing[from], has)) {
			return
		}
		if out == nil {
			out = make(http.Header)
		}
		name = http.CanonicalHeaderKey(name)
		out[name] = append(out[name], has...)
	}
	for key, values := range h {
		if name, ok := strings.CutPrefix(key, http.TrailerPrefix); ok && len(values) > 0 {
			add(name, key)
		}
	}
	announced := listed(sent["Trailer"])
	slices.Sort(announced)
	for _, name := range slices.Compact(announced) {
		add(name, name)
	}
	return owned(out)
}

// Deadlines and full duplex are the connection's, and the controller finds them here. There is no
// Unwrap: nothing behind the recorder may be written to, or hijacked.

func (r *recorder) SetReadDeadline(t time.Time) error {
	return http.NewResponseController(r.w).SetReadDeadline(t)
}

func (r *recorder) SetWriteDeadline(t time.Time) error {
	return http.NewResponseController(r.w).SetWriteDeadline(t)
}

func (r *recorder) EnableFullDuplex() error {
	return http.NewResponseController(r.w).EnableFullDuplex()
}

// CloseNotify is there since some frameworks panic without. The handler is to finish whatever its
// client does, so it never hears of it.
func (r *recorder) CloseNotify() <-chan bool { return make(chan bool) }

// flusher is a recorder whose w can flush.
type flusher struct{ *recorder }

func (f flusher) Flush() { _ = f.FlushError() }

func (f flusher) FlushError() error {
	r := f.recorder
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	if !r.passing {
		r.pass(nil)
	}
	defer r.restore()
	if err := http.NewResponseController(r.w).Flush(); errors.Is(err, http.ErrNotSupported) {
		return err // middleware outside that can flush if what is behind it can
	}
	return nil
}
