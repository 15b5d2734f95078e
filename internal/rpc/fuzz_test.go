package rpc_test

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight/internal/rpc"
)

var (
	rawKey    = regexp.MustCompile(`^[!#-~][!-~]{0,254}$`)
	quotedKey = regexp.MustCompile(`^"((?:[!#-\[\]-~]|\\["\\]){1,255})"$`)
	escape    = regexp.MustCompile(`\\(.)`)
)

// grammar is the syntax of keys in metadata, written down another way.
func grammar(value string) (key string, valid bool) {
	if rawKey.MatchString(value) {
		return value, true
	}
	if m := quotedKey.FindStringSubmatch(value); m != nil {
		return escape.ReplaceAllString(m[1], "$1"), true
	}
	return "", false
}

// FuzzParseKey holds the parser of keys in metadata against the grammar, and what a client sends for a key against
// what a server reads.
func FuzzParseKey(f *testing.F) {
	for _, value := range []string{"k1", `"k1"`, `"a\"b\\c"`, `a"b`, "~!", "", `""`, `"`, `"k`, `"k";a=1`, `"k\x"`, `"k\`, "a b", "\x7f", "\xff"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		want, valid := grammar(value)
		key, err := rpc.ParseKey([]string{value})
		require.Equal(t, valid, err == nil, "whether %q is a key: %v", value, err)
		if !valid {
			return
		}
		require.Equal(t, want, key, "key of %q", value)
		again, err := rpc.ParseKey([]string{rpc.KeyValue(key)})
		require.NoError(t, err)
		require.Equal(t, key, again, "what a client sends names the same key")
	})
}
