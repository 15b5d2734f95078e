package rpc

import (
	"context"
	"errors"
	"strings"
)

// maxKeyBytes is what a client may pin with the key alone: seven UUIDs, and what others accept too.
const maxKeyBytes = 255

// ErrKeyMissing is the error of ParseKey for a call without a key.
var ErrKeyMissing = errors.New("the call has no idempotency key")

var (
	errKeySeveral = errors.New("the idempotency key comes more than once")
	errKeyLength  = errors.New("an idempotency key has 1 to 255 bytes")
	errKeyBytes   = errors.New("an idempotency key has bytes other than visible ASCII (spaces are not allowed)")
	errKeyQuote   = errors.New(`an idempotency key that begins with a quote has to be a string of RFC 8941, without parameters`)
)

// ParseKey returns the key that the values in metadata name: 1 to 255 bytes of visible ASCII, raw or, as
// package idemhttp's header has it, as a string of RFC 8941. Both name the same key.
func ParseKey(values []string) (string, error) {
	switch {
	case len(values) == 0:
		return "", ErrKeyMissing
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
	return key, CheckKey(key)
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

// KeyValue returns a key as it is sent: raw, unless that would be read as a string of RFC 8941.
func KeyValue(key string) string {
	if strings.HasPrefix(key, `"`) {
		return `"` + keyEscapes.Replace(key) + `"`
	}
	return key
}

// CheckKey reports what is wrong with a key, quotes and escapes taken off.
func CheckKey(key string) error {
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

type keyToSend struct{}

// WithKey returns a context with the key that a client's interceptor is to send.
func WithKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, keyToSend{}, key)
}

// WithoutKey returns ctx without the key of WithKey.
func WithoutKey(ctx context.Context) context.Context {
	if _, found := ctx.Value(keyToSend{}).(string); !found {
		return ctx
	}
	return context.WithValue(ctx, keyToSend{}, nil)
}

// KeyToSend returns the key that has to be added to a call; "" is none. sent are the values that its metadata
// has already. Without those the key is that of WithKey, otherwise what generate, if not nil, returns.
func KeyToSend(ctx context.Context, sent []string, generate func() string) (string, error) {
	if len(sent) > 0 {
		_, err := ParseKey(sent)
		return "", err
	}
	if key, found := ctx.Value(keyToSend{}).(string); found {
		return key, CheckKey(key)
	}
	if generate == nil {
		return "", nil
	}
	key := generate()
	if key == "" {
		return "", nil
	}
	return key, CheckKey(key)
}
