package idemhttp

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// replay answers with an answer that was not made for this request: resp is complete. It reports
// false, and has done nothing, if resp is none that can be sent.
//
// w's headers are this request's own, set by middleware outside, and stay unless resp has them.
func (m *Middleware) replay(w http.ResponseWriter, resp *Response) bool {
	status := resp.Status
	if status == 0 {
		status = http.StatusOK
	}
	if status < 200 || status > 999 { // 101, say, released to those who waited: nobody else is upgraded
		return false
	}
	h := w.Header()
	header, trailer := canonical(resp.Header), canonical(resp.Trailer)
	f := filter{accepted: status == http.StatusAccepted, named: listed(header["Connection"])}
	c := newCopier(header, trailer)
	deleteFold(h, m.opts.ReplayHeader) // now that there are few, most often none
	for name, values := range header {
		if f.replays(name) && name != m.opts.ReplayHeader {
			deleteOdd(h, name)
			h[name] = c.copy(values)
		}
	}
	if first, ok := header["Trailer"]; ok {
		h["Trailer"] = m.announced(first, filter{accepted: f.accepted})
	}
	h[m.opts.ReplayHeader] = c.copy(isTrue)
	body := resp.Body
	if !bodyAllowed(status) {
		body = nil
	}
	setLength(h, header, status, body)

	// Trailers that were not announced must be known by now, or net/http sends a
	// small body without.
	announced := listed(h["Trailer"])
	for name, values := range trailer {
		if len(values) > 0 && f.replays(name) && name != m.opts.ReplayHeader && !slices.Contains(announced, name) {
			h[http.TrailerPrefix+name] = c.copy(values)
		}
	}
	w.WriteHeader(status)
	if len(body) > 0 {
		_, _ = w.Write(body) // whoever does not read it any more may ask again
	}
	for _, name := range announced {
		values, known := trailer[name]
		_, sent := header[name]
		switch {
		case !f.replays(name): // what is there is this request's own
		case len(values) > 0 && name != m.opts.ReplayHeader:
			h[name] = c.copy(values)
		case known || sent:
			delete(h, name) // sent as a header, and taken back before it was a trailer
		}
	}
	return true
}

var isTrue = []string{"true"}

// announced returns what the first answer announced in its Trailer header, without what is not
// replayed.
func (m *Middleware) announced(first []string, f filter) []string {
	var out []string
	for _, value := range first {
		names := listed([]string{value})
		wanted := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
			return !f.replays(name) || name == m.opts.ReplayHeader
		})
		switch {
		case len(wanted) == len(names):
			out = append(out, value) // word for word
		case len(wanted) > 0:
			out = append(out, strings.Join(wanted, ", "))
		}
	}
	return out
}

// setLength sets Content-Length to what body has, if the first answer declared one; otherwise
// net/http knows best, and compression outside has nothing to undo.
func setLength(h, first http.Header, status int, body []byte) {
	declared := declaredLength(first) >= 0
	if _, own := h["Content-Length"]; !own && !declared {
		return
	}
	delete(h, "Content-Length")
	if declared && bodyAllowed(status) {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
}

// copier copies header values into one allocation: the record is shared by all who get it, and
// middleware outside may change values in place.
type copier struct{ room []string }

func newCopier(headers ...http.Header) copier {
	n := len(isTrue)
	for _, h := range headers {
		for _, values := range h {
			n += len(values)
		}
	}
	return copier{make([]string, 0, n)}
}

// copy returns a copy of values that grows only by moving elsewhere. Nil stays nil: a header that
// must be absent.
func (c *copier) copy(values []string) []string {
	if values == nil {
		return nil
	}
	from := len(c.room)
	c.room = append(c.room, values...)
	return c.room[from:len(c.room):len(c.room)]
}
