package idemgrpc

import (
	"context"
	"errors"
	"strings"

	"github.com/idemflight/idemflight"
)

// maxKeyBytes is what a client may pin with the key alone: seven UUIDs, and what others accept too.
const maxKeyBytes = 255

var (
	errKeyMissing = errors.New("the call has no idempotency key")
	errKeySeveral = errors.New("the idempotency key comes more than once")
	errKeyLength  = errors.New("an idempotency key has 1 to 255 bytes")
	errKeyBytes   = errors.New("an idempotency key has bytes other than visible ASCII (spaces are not allowed)")
	errKeyQuote   = errors.New(`an idempotency key that begins with a quote has to be a string of RFC 8941, without parameters`)
)

// parseKey returns the key that the values in metadata name: 1 to 255 bytes of visible ASCII, raw or, as
// package idemhttp's header has it, as a string of RFC 8941. Both name the same key.
func parseKey(values []string) (string, error) {
	switch {
	case len(values) == 0:
		return "", errKeyMissing
	case len(values) > 1:
		return "", errKeySeveral
	}
	key := values[0]
	if strings.HasPrefix(key, `"`) {
		var ok bool
		if key, ok = unquote(key); !ok {
			return "", errKeyQuote
		}
	}
	return key, checkKey(key)
}

// unquote returns the content of a string of RFC 8941, and whether s, which begins with a quote, is one.
func unquote(s string) (content string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), i == len(s)-1
		case '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", false
}

var keyEscapes = strings.NewReplacer(`"`, `\"`, `\`, `\\`)

// valueOf returns a key as it is sent: raw, unless that would be read as a string of RFC 8941.
func valueOf(key string) string {
	if strings.HasPrefix(key, `"`) {
		return `"` + keyEscapes.Replace(key) + `"`
	}
	return key
}

// checkKey reports what is wrong with a key, quotes and escapes taken off.
func checkKey(key string) error {
	if key == "" || len(key) > maxKeyBytes {
		return errKeyLength
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] >= 0x7f {
			return errKeyBytes
		}
	}
	return nil
}

type handlerKey struct{}

// KeyFrom returns the key of the call that a covered handler serves, from its context, and reports
// whether there is one. Give both its parts to the bank, as one reference, so that the bank too can tell
// a retry: the ID alone may also be another customer's.
func KeyFrom(ctx context.Context) (idemflight.Key, bool) {
	key, ok := ctx.Value(handlerKey{}).(idemflight.Key)
	return key, ok
}
