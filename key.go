package idemflight

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"reflect"
	"strings"
	"unsafe"
)

// Key is a ready-made composite key: whose, and which. Two customers who send the same ID have
// different keys. A Key without Scope or without ID is invalid ([ErrInvalidKey]).
type Key struct {
	Scope string // whose: a stable principal, such as the customer's account
	ID    string // which: what the client sent, one per intent
}

// String returns scope/id, with every byte except A–Z a–z 0–9 - . _ ~ written as %XX. It is
// readable, no two Keys have the same text, and stores and saved files use it; [ParseKey] reads it.
func (k Key) String() string {
	b := make([]byte, 0, len(k.Scope)+len("/")+len(k.ID))
	b = appendEscaped(b, k.Scope)
	b = append(b, '/')
	b = appendEscaped(b, k.ID)
	return string(b)
}

// LogValue returns a group of scope and id. (There is no MarshalText: a type that embeds Key would
// inherit it, and lose its other fields.)
func (k Key) LogValue() slog.Value {
	return slog.GroupValue(slog.String("scope", k.Scope), slog.String("id", k.ID))
}

// ParseKey returns the Key for which [Key.String] returned s. Anything else is an error that says
// what is wrong and matches [ErrInvalidKey]: a Key without Scope or ID, and also an escape that
// String would not have written, so that no two texts name one Key.
func ParseKey(s string) (Key, error) {
	scope, id, found := strings.Cut(s, "/")
	if !found {
		return Key{}, &parseError{"no / between scope and ID"}
	}
	var k Key
	var err error
	if k.Scope, err = unescape(scope); err != nil {
		return Key{}, &parseError{"in the scope, " + err.Error()}
	}
	if k.ID, err = unescape(id); err != nil {
		return Key{}, &parseError{"in the ID, " + err.Error()}
	}
	switch {
	case k.Scope == "":
		return Key{}, &parseError{"no scope before the /"}
	case k.ID == "":
		return Key{}, &parseError{"no ID after the /"}
	}
	return k, nil
}

// parseError is ErrInvalidKey from ParseKey.
type parseError struct{ why string }

func (e *parseError) Error() string        { return "idemflight: not the text of a Key: " + e.why }
func (e *parseError) Is(target error) bool { return target == ErrInvalidKey }

const upperHex = "0123456789ABCDEF"

// appendEscaped appends s, every byte that plain does not have as %XX.
func appendEscaped(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return b
}

// plain reports whether c stands for itself: the unreserved characters of RFC 3986.
func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

// unescape reads what appendEscaped wrote, and nothing else.
func unescape(s string) (string, error) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case plain(c):
		case c != '%':
			return "", fmt.Errorf("byte %d must be written as %%%02X", i, c)
		default:
			high, low := -1, -1
			if i+2 < len(s) {
				high, low = strings.IndexByte(upperHex, s[i+1]), strings.IndexByte(upperHex, s[i+2])
			}
			if high < 0 || low < 0 {
				return "", fmt.Errorf("the %% at byte %d needs two digits of 0–9 A–F", i)
			}
			c = byte(high<<4 | low)
			if plain(c) {
				return "", fmt.Errorf("the escape at byte %d stands for %q, which needs none", i, string(c))
			}
			i += 2
		}
		b = append(b, c)
	}
	return string(b), nil
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

// Fingerprint identifies the payload that a key was used with, so that a retry can be told
// apart from the same key with another payload. The zero value means "none": it matches
// none and nothing else.
type Fingerprint [16]byte

// String returns 32 lower-case hex digits, and "" for none.
func (f Fingerprint) String() string {
	if f == (Fingerprint{}) {
		return ""
	}
	return hex.EncodeToString(f[:])
}

// MarshalText returns what String does; its error is nil.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads what MarshalText wrote. Anything else, upper case and 32 zeros
// included, is an error and changes nothing: a fingerprint has exactly one text, so that
// texts can be compared, too.
func (f *Fingerprint) UnmarshalText(text []byte) error {
	var read Fingerprint
	if len(text) > 0 {
		if len(text) != hex.EncodedLen(len(read)) {
			return fmt.Errorf("idemflight: a Fingerprint is 32 hex digits or nothing, not %d bytes", len(text))
		}
		_, _ = hex.Decode(read[:], text) // a wrong digit shows in the comparison
		if read.String() != string(text) {
			return errors.New("idemflight: a Fingerprint is 32 hex digits in lower case, and not all of them 0")
		}
	}
	*f = read
	return nil
}

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

// locate notes the Keys and strings in a t that lies at the given offset. embedded says that a Key
// there is what names the operation.
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

// copyText gives the key at k a copy of its text: so what its caller does to the bytes afterwards,
// as frameworks with pooled buffers do, changes nothing, and a key that was cut from a large text
// keeps no more than itself alive. Strings in an interface are not copied.
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
