package idemhttp

import (
	"context"
	"errors"
	"strings"

	"github.com/idemflight/idemflight"
)

// maxKeyBytes is what a client may pin with the key alone: seven UUIDs, and what others accept too.
const maxKeyBytes = 255

var (
	errKeyMissing    = errors.New("idemhttp: the request has no idempotency key")
	errKeyEmpty      = errors.New("idemhttp: the key is empty")
	errKeyLong       = errors.New("idemhttp: the key is longer than 255 bytes")
	errKeyBytes      = errors.New("idemhttp: the key has bytes other than visible ASCII (spaces are not allowed)")
	errKeyQuote      = errors.New("idemhttp: the quoted key has no closing quote, or a backslash before something other than \" or \\")
	errKeyParameters = errors.New("idemhttp: something follows the closing quote of the key: parameters are not allowed")
	errKeySeveral    = errors.New("idemhttp: the header with the key comes more than once")
)

// parseKey returns the key that the lines of the header name: 1 to 255 bytes of visible ASCII, raw
// or as a string of RFC 8941. Only a leading quote starts a string, so that every key that clients
// send unquoted today names itself. Whitespace is no part of a key, not even around it: net/http
// has taken off what a sender may put there.
func parseKey(lines []string) (string, error) {
	switch {
	case len(lines) == 0:
		return "", errKeyMissing
	case len(lines) > 1:
		return "", errKeySeveral
	}
	value := lines[0]
	if !strings.HasPrefix(value, `"`) {
		return value, checkKey(value)
	}
	key, err := unquote(value[1:])
	if err != nil {
		return "", err
	}
	return key, checkKey(key)
}

// unquote returns the content of a string of RFC 8941 whose opening quote has been read. Nothing
// may follow the closing one.
func unquote(s string) (string, error) {
	end := strings.IndexAny(s, `"\`)
	if end < 0 {
		return "", errKeyQuote
	}
	if s[end] == '"' { // the usual case: no escapes, so no copy
		if end+1 != len(s) {
			return "", errKeyParameters
		}
		return s[:end], nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			if i+1 != len(s) {
				return "", errKeyParameters
			}
			return b.String(), nil
		case '\\':
			i++
			if i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", errKeyQuote
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", errKeyQuote
}

// checkKey reports what is wrong with a key, quotes and escapes taken off.
func checkKey(key string) error {
	switch {
	case key == "":
		return errKeyEmpty
	case len(key) > maxKeyBytes:
		return errKeyLong
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] >= 0x7f {
			return errKeyBytes
		}
	}
	return nil
}

var keyEscapes = strings.NewReplacer(`"`, `\"`, `\`, `\\`)

// quoteKey returns a valid key as a string of RFC 8941.
func quoteKey(key string) string { return `"` + keyEscapes.Replace(key) + `"` }

// handlerContext is the context of a covered handler: that of its execution, with the key. It is
// not made by context.WithValue, which would allocate twice.
type handlerContext struct {
	context.Context
	key idemflight.Key
}

type handlerKey struct{}

func (c *handlerContext) Value(key any) any {
	if key == (handlerKey{}) {
		return &c.key
	}
	return c.Context.Value(key)
}

// KeyFrom returns the key of the request that a covered handler serves, from its context, and
// reports whether there is one. Pass both its parts to the bank, as one reference, so that the bank
// can recognize a retry, too: the ID alone may also be another customer's.
func KeyFrom(ctx context.Context) (idemflight.Key, bool) {
	if key, ok := ctx.Value(handlerKey{}).(*idemflight.Key); ok {
		return *key, true
	}
	return idemflight.Key{}, false
}
