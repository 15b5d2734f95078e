package idemhttp

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// neverReplayed are the headers that belong to one exchange: credentials and challenges, what is
// between two hops, the time, limits and tracing of that request, and who may read it. Canonical.
var neverReplayed = map[string]bool{
	"Set-Cookie":          true,
	"Set-Cookie2":         true,
	"Www-Authenticate":    true,
	"Proxy-Authenticate":  true,
	"Proxy-Authorization": true,
	"Connection":          true,
	"Proxy-Connection":    true,
	"Keep-Alive":          true,
	"Te":                  true,
	"Trailer":             true, // announced anew with the trailers
	"Transfer-Encoding":   true,
	"Upgrade":             true,
	"Content-Length":      true, // recomputed
	"Date":                true,
	"Age":                 true,
	"Server-Timing":       true,
	"Ratelimit":           true,
	"Retry-After":         true, // but that of a 202
	"X-Request-Id":        true,
	"X-Correlation-Id":    true,
	"Traceparent":         true,
	"Tracestate":          true,
	"Baggage":             true,
	"Via":                 true,
	"Cf-Ray":              true,
}

var neverReplayedPrefixes = []string{"Ratelimit-", "X-Ratelimit-", "Access-Control-"}

// filter tells which headers and trailers of an answer are replayed.
type filter struct {
	accepted bool     // the answer is a 202, whose Retry-After says when the work will be done
	named    []string // the headers that Connection names
}

// replays reports whether the header called name, canonical, is replayed.
func (f *filter) replays(name string) bool {
	if name == "Retry-After" && f.accepted {
		return !slices.Contains(f.named, name)
	}
	if neverReplayed[name] || strings.HasPrefix(name, http.TrailerPrefix) {
		return false
	}
	for _, prefix := range neverReplayedPrefixes {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	return !slices.Contains(f.named, name)
}

// listed returns the canonical names in a header that is a list of names: Connection or Trailer.
func listed(values []string) []string {
	var names []string
	for _, v := range values {
		for name := range strings.SplitSeq(v, ",") {
			if name = strings.TrimSpace(name); name != "" {
				names = append(names, http.CanonicalHeaderKey(name))
			}
		}
	}
	return names
}

// canonical returns h with canonical names: h itself if it has no others. Where names become one,
// their values come in the order that net/http sends them.
func canonical(h http.Header) http.Header {
	odd := false
	for name := range h {
		odd = odd || http.CanonicalHeaderKey(name) != name
	}
	if !odd {
		return h
	}
	out := make(http.Header, len(h))
	for _, name := range slices.Sorted(maps.Keys(h)) {
		to := http.CanonicalHeaderKey(name)
		if values, ok := out[to]; ok {
			out[to] = append(slices.Clip(values), h[name]...)
		} else {
			out[to] = h[name]
		}
	}
	return out
}

// deleteFold deletes the header called name from h, in whatever case, also as a trailer-to-be.
func deleteFold(h http.Header, name string) {
	for k := range h {
		if plain := strings.TrimPrefix(k, http.TrailerPrefix); strings.EqualFold(plain, name) {
			delete(h, k)
		}
	}
}

// changed takes from now what is as it was before the handler ran, told by value, and returns what
// is left, under canonical names; headers that are gone have no values. Trailers-to-be are no
// headers. changed may modify now in place.
func changed(before, now http.Header) http.Header {
	now = canonical(now)
	for name := range now {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			delete(now, name)
		}
	}
	for name, had := range canonical(before) {
		if values, ok := now[name]; !ok {
			now[name] = nil
		} else if slices.Equal(had, values) {
			delete(now, name)
		}
	}
	return now
}

// owned returns a copy of h whose strings are its own, all in one allocation. A record that shared
// them would keep alive what they were cut from: a request's path, say, or a body.
func owned(h http.Header) http.Header {
	if h == nil {
		return nil
	}
	values, length := 0, 0
	for name, of := range h {
		values, length = values+len(of), length+len(name)
		for _, v := range of {
			length += len(v)
		}
	}
	var text strings.Builder
	text.Grow(length)
	own := func(s string) string {
		from := text.Len()
		text.WriteString(s)
		return text.String()[from:]
	}
	out, room := make(http.Header, len(h)), make([]string, 0, values)
	for name, of := range h {
		from := len(room)
		for _, v := range of {
			room = append(room, own(v))
		}
		name = own(name)
		if of == nil {
			out[name] = nil // a header that must be absent
		} else {
			out[name] = room[from:len(room):len(room)]
		}
	}
	return out
}

// deleteOdd deletes the header called name, canonical, from h where it stands under other names.
func deleteOdd(h http.Header, name string) {
	for k := range h {
		if k != name && strings.EqualFold(k, name) {
			delete(h, k)
		}
	}
}

// declaredLength returns the Content-Length in h, or -1: net/http drops what is no length.
func declaredLength(h http.Header) int64 {
	values := h["Content-Length"]
	if len(values) == 0 {
		return -1 // the usual case
	}
	n, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// bodyAllowed reports whether an answer with this status may have a body.
func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}
