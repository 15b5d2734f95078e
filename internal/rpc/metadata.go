package rpc

import (
	"encoding/json"
	"strings"
)

// defaultMetadataKey is where a key is, if nothing else is said.
const defaultMetadataKey = "idempotency-key"

// MetadataKey returns the name, in lower case, under which the key is in metadata, or why there can be none of
// that name. "" is the default.
func MetadataKey(name string) (lower, why string) {
	if name == "" {
		return defaultMetadataKey, ""
	}
	lower = strings.ToLower(name)
	if strings.Trim(lower, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		return "", "metadata has names of letters, digits, - _ and . only"
	}
	if strings.HasSuffix(lower, "-bin") {
		return "", "-bin is for bytes, and a key is text"
	}
	if isProtocols(lower) {
		return "", "the protocol keeps that name for itself"
	}
	return lower, ""
}

// isProtocols reports whether gRPC, Connect or HTTP uses metadata of that name.
func isProtocols(lower string) bool {
	for _, prefix := range []string{"grpc-", "connect-", "trailer-", "content-"} {
		if strings.HasPrefix(lower, prefix) {
			return true
		}
	}
	switch lower {
	case "user-agent", "te", "host", "date", "trailer", "accept-encoding", "connection", "transfer-encoding":
		return true
	}
	return false
}

// neverReplayed is the metadata that belongs to one exchange: credentials and challenges, the time, limits
// and tracing of that call, when to retry it, and who in a browser may read it.
var neverReplayed = map[string]bool{
	"set-cookie":             true,
	"www-authenticate":       true,
	"proxy-authenticate":     true,
	"date":                   true,
	"age":                    true,
	"server-timing":          true,
	"ratelimit":              true,
	"retry-after":            true,
	"grpc-retry-pushback-ms": true,
	"x-request-id":           true,
	"x-correlation-id":       true,
	"traceparent":            true,
	"tracestate":             true,
	"baggage":                true,
	"grpc-trace-bin":         true,
	"via":                    true,
	"cf-ray":                 true,
	ReplayTrailer:            true,
}

// ReplayTrailer marks a replay.
const ReplayTrailer = "idempotent-replayed"

var neverReplayedPrefixes = []string{"ratelimit-", "x-ratelimit-", "access-control-"}

// Replays reports whether metadata of a recorded answer is part of its replays.
func Replays(name string) bool {
	name = strings.ToLower(name)
	if neverReplayed[name] {
		return false
	}
	for _, prefix := range neverReplayedPrefixes {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	return true
}

// Metadata is the header or the trailer of an answer. As JSON its values are bytes: those of -bin names are.
type Metadata map[string][]string

// MarshalJSON implements json.Marshaler.
func (m Metadata) MarshalJSON() ([]byte, error) {
	out := make(map[string][][]byte, len(m))
	for name, values := range m {
		for _, v := range values {
			out[name] = append(out[name], []byte(v))
		}
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *Metadata) UnmarshalJSON(data []byte) error {
	var from map[string][][]byte
	if err := json.Unmarshal(data, &from); err != nil {
		return err
	}
	*m = make(Metadata, len(from))
	for name, values := range from {
		for _, v := range values {
			(*m)[name] = append((*m)[name], string(v))
		}
	}
	return nil
}

// What metadata takes in memory, in bytes, about.
const (
	entryBytes = 64 // a name and its values
	valueBytes = 16 // a value, beside its text
)

// Bytes returns what m takes in memory, about.
func (m Metadata) Bytes() (n int) {
	for name, values := range m {
		n += entryBytes + len(name)
		for _, v := range values {
			n += valueBytes + len(v)
		}
	}
	return n
}

// Record is how an answer is written, as JSON.
type Record struct {
	Type    string   `json:"type,omitempty"` // URL of the message's type; "": there is none
	Message []byte   `json:"message,omitempty"`
	Status  []byte   `json:"status,omitempty"` // google.rpc.Status
	Header  Metadata `json:"header,omitempty"`
	Trailer Metadata `json:"trailer,omitempty"`
}
