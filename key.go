package idemflight

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"reflect"
)

// Key is a ready-made composite key: whose, and which. Two customers who send the same ID do not
// meet. A Key without Scope or without ID is invalid ([ErrInvalidKey]).
type Key struct {
	Scope string // whose: a stable principal, such as the customer's account
	ID    string // which: what the client sent, one per intent
}

// NewID returns a random ID in the form of a UUID version 4 (RFC 9562). Make it once per intent,
// outside of the retry loop: a new ID for a retry is a new operation. Safe for concurrent use.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	var s [36]byte
	hex.Encode(s[:8], b[:4])
	hex.Encode(s[9:13], b[4:6])
	hex.Encode(s[14:18], b[6:8])
	hex.Encode(s[19:23], b[8:10])
	hex.Encode(s[24:], b[10:])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return string(s[:])
}

// Fingerprint identifies the payload that a key was used with, so that the same key with another
// payload is told apart from a retry. The zero value is "none": it equals none and nothing else.
type Fingerprint [16]byte

// FingerprintOf returns the SHA-256 of the parts, each preceded by its length as 8 bytes, so that
// ("ab", "c") and ("a", "bc") differ; truncated to 16 bytes. It costs about a microsecond per KiB
// or less and allocates nothing.
func FingerprintOf(parts ...[]byte) Fingerprint {
	h := sha256.New()
	var length [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(length[:], uint64(len(p)))
		h.Write(length[:])
		h.Write(p)
	}
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	return Fingerprint(sum[:16])
}

// keyTraits is what New finds out about the key type once, so that calls need no reflection.
type keyTraits struct {
	zeroValid bool // numeric or bool: 0 and false are keys like any other
	dynamic   bool // holds an interface: a key may turn out to be unhashable
	composite bool // is Key, or an interface that may hold one
}

func traitsOf[K comparable]() keyTraits {
	t := reflect.TypeFor[K]()
	return keyTraits{
		zeroValid: t.Kind() >= reflect.Bool && t.Kind() <= reflect.Complex128,
		dynamic:   holdsInterface(t),
		composite: t == reflect.TypeFor[Key]() || t.Kind() == reflect.Interface,
	}
}

func holdsInterface(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Interface:
		return true
	case reflect.Array:
		return holdsInterface(t.Elem())
	case reflect.Struct:
		for f := range t.Fields() {
			if holdsInterface(f.Type) {
				return true
			}
		}
	}
	return false
}

// hashDynamic is maphash.Comparable for keys that may turn out to be unhashable.
func hashDynamic[K comparable](seed maphash.Seed, key K) uint64 {
	defer func() {
		if v := recover(); v != nil {
			panic(fmt.Sprintf("idemflight: key of type %T cannot be hashed: %v", key, v))
		}
	}()
	return maphash.Comparable(seed, key)
}

// validKey reports whether key may name an operation (promise 21).
func validKey[K comparable](t keyTraits, key K) bool {
	var zero K
	if key == zero && !t.zeroValid {
		return false
	}
	if t.composite {
		if k, ok := any(key).(Key); ok {
			return k.Scope != "" && k.ID != ""
		}
	}
	return equal(key, key)
}

// equal is ==; called with one key twice, it finds those that a map would lose, such as NaN.
func equal[K comparable](a, b K) bool { return a == b }
