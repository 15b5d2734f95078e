package idemflight

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"reflect"
	"unsafe"
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
	zeroValid bool      // numeric or bool: 0 and false are keys like any other
	dynamic   bool      // holds an interface: a key may turn out to be unhashable
	isInner   bool      // is an interface: what is in it has traits of its own
	keys      []uintptr // where Keys lie in it: itself, or what it embeds
	texts     []uintptr // where strings lie in it
}

func traitsOf(t reflect.Type) keyTraits {
	traits := keyTraits{
		zeroValid: t.Kind() >= reflect.Bool && t.Kind() <= reflect.Complex128,
		dynamic:   holdsInterface(t),
		isInner:   t.Kind() == reflect.Interface,
	}
	traits.locate(t, 0, true)
	return traits
}

// locate notes the Keys and strings in a t that lies at the given offset. embedded says that a Key there
// is what names the operation.
func (traits *keyTraits) locate(t reflect.Type, at uintptr, embedded bool) {
	switch t.Kind() {
	case reflect.String:
		traits.texts = append(traits.texts, at)
	case reflect.Array:
		for i := range t.Len() {
			traits.locate(t.Elem(), at+uintptr(i)*t.Elem().Size(), false)
		}
	case reflect.Struct:
		if embedded && t.ConvertibleTo(reflect.TypeFor[Key]()) {
			traits.keys = append(traits.keys, at)
		}
		for f := range t.Fields() {
			traits.locate(f.Type, at+f.Offset, embedded && f.Anonymous)
		}
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

// checkKey says why key may not name an operation (promise 21), or returns nil.
func checkKey[K comparable](t *keyTraits, key K) error {
	var zero K
	switch {
	case !equal(key, key):
		return errNotEqual
	case t.isInner && key != zero:
		inner := reflect.New(reflect.TypeOf(key))
		inner.Elem().Set(reflect.ValueOf(key))
		traits := traitsOf(inner.Elem().Type())
		return traits.check(inner.UnsafePointer(), inner.Elem().IsZero())
	}
	return t.check(unsafe.Pointer(&key), key == zero)
}

// check is checkKey for the key at k, which is equal to itself.
func (t *keyTraits) check(k unsafe.Pointer, zero bool) error {
	for _, at := range t.keys {
		switch k := (*Key)(unsafe.Add(k, at)); {
		case k.Scope == "":
			return errNoScope
		case k.ID == "":
			return errNoID
		}
	}
	if zero && !t.zeroValid {
		return errZeroKey
	}
	return nil
}

// copyText gives the key at k a copy of its text: so what its caller does to the bytes afterwards, as
// frameworks with pooled buffers do, changes nothing, and a key that was cut from a large text keeps no
// more than itself alive. Strings in an interface are not copied.
func (t *keyTraits) copyText(k unsafe.Pointer) {
	n := 0
	for _, at := range t.texts {
		n += len(*(*string)(unsafe.Add(k, at)))
	}
	if n == 0 {
		return
	}
	all := make([]byte, 0, n) // one allocation for all
	for _, at := range t.texts {
		s := (*string)(unsafe.Add(k, at))
		from := len(all)
		all = append(all, *s...)
		*s = unsafe.String(unsafe.SliceData(all[from:]), len(*s))
	}
}

// equal is ==; called with one key twice, it finds those that a map would lose, such as NaN.
func equal[K comparable](a, b K) bool { return a == b }
