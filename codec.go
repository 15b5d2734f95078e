package idemflight

import (
	"bytes"
	"context"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Codec says how [Cache.Save], [Cache.Load] and a [Store] write keys, values and errors. The zero
// Codec is enough for most types: a nil field has a default. Its functions must be safe for
// concurrent use; none is called with a lock held, and a panic in one counts as an error for the
// entry in question. With a Store, a key that cannot be encoded is [ErrInvalidKey]; if the value of
// an execution cannot be encoded, the effect has taken place, so its key is held.
//
// The next version of the program reads what this one has written. So V changes as a wire format
// does: fields are added, never renamed or reused for something else.
type Codec[K comparable, V any] struct {
	// EncodeKey and DecodeKey turn a key into a text and back. Two keys must not have the same
	// text. By default strings are written as they are, integers in decimal, and a [Key] as
	// Key.String does it. Any other K needs both functions, including a type that embeds Key.
	EncodeKey func(K) (string, error)
	DecodeKey func(string) (K, error)

	// EncodeValue and DecodeValue turn a value into bytes and back. By default strings and []byte
	// are written as they are, everything else as JSON; text that JSON would change because it is
	// not UTF-8 is an error. If JSON is certain to lose a part of V, both functions are required:
	// if V has unexported fields, or fields tagged "-", without implementing MarshalJSON and
	// UnmarshalJSON (or MarshalText and UnmarshalText); if it implements what writes it and not what
	// reads it, or has either from an embedded field that does not know the others (a time.Time, for
	// one); or if it has interfaces, funcs, channels or complex numbers. DecodeValue owns the bytes
	// that it gets.
	EncodeValue func(V) ([]byte, error)
	DecodeValue func([]byte) (V, error)

	// Sentinels are the errors for which [errors.Is] is to work on an error that was written and
	// read again, by the names under which they are written. This package's own, context.Canceled
	// and context.DeadlineExceeded are always included. A name, once used, stays with its error.
	Sentinels map[string]error
}

// StoredError is what is left of an error that was written and read again: its text, and
// [errors.Is] for the sentinels that it matched (those in [Codec].Sentinels, and those of this
// package and of context, which are always included). [errors.As] does not find the types that it
// had. Safe for concurrent use.
type StoredError struct {
	Text  string
	Names []string // of the sentinels, sorted, even those that the Codec did not know that read it

	sentinels map[string]error // of that Codec; nil if none of Names is among them
}

// Error returns Text.
func (e *StoredError) Error() string { return e.Text }

// Is reports whether target is one of the sentinels in Names.
func (e *StoredError) Is(target error) bool {
	for _, name := range e.Names {
		known := namedSentinels[name]
		if known == nil {
			known = e.sentinels[name]
		}
		if known != nil && known == target {
			return true
		}
	}
	return false
}

// namedSentinels are the sentinels that every Codec has. Names never change.
var namedSentinels = map[string]error{
	"context.Canceled":             context.Canceled,
	"context.DeadlineExceeded":     context.DeadlineExceeded,
	"idemflight.ErrCallerLeft":     ErrCallerLeft,
	"idemflight.ErrClaimLost":      ErrClaimLost,
	"idemflight.ErrClosed":         ErrClosed,
	"idemflight.ErrExpired":        ErrExpired,
	"idemflight.ErrFull":           ErrFull,
	"idemflight.ErrGoexit":         ErrGoexit,
	"idemflight.ErrInFlight":       ErrInFlight,
	"idemflight.ErrInterrupted":    ErrInterrupted,
	"idemflight.ErrInvalidKey":     ErrInvalidKey,
	"idemflight.ErrKeyReused":      ErrKeyReused,
	"idemflight.ErrNotExecuting":   ErrNotExecuting,
	"idemflight.ErrNotHeld":        ErrNotHeld,
	"idemflight.ErrOutcomeUnknown": ErrOutcomeUnknown,
	"idemflight.ErrReentrant":      ErrReentrant,
	"idemflight.ErrStore":          ErrStore,
	"idemflight.ErrValueShed":      ErrValueShed,
}

// validate returns what is wrong with the Sentinels.
func (c Codec[K, V]) validate() (bad []error) {
	report := func(name, why string, args ...any) {
		bad = append(bad, fmt.Errorf("idemflight: Options.Codec.Sentinels[%q] %s", name, fmt.Sprintf(why, args...)))
	}
	nameOf := make(map[error]string)
	for name, err := range namedSentinels {
		nameOf[err] = name
	}
	for _, name := range slices.Sorted(maps.Keys(c.Sentinels)) {
		err := c.Sentinels[name]
		switch {
		case name == "":
			report(name, "has no name")
		case namedSentinels[name] != nil:
			report(name, "is the name of one that is there already")
		case err == nil:
			report(name, "is nil")
		case !reflect.ValueOf(err).Comparable():
			report(name, "is a %T, which cannot be compared: errors.Is would not find it", err)
		case nameOf[err] != "":
			report(name, "is %q, too: an error has one name", nameOf[err])
		default:
			nameOf[err] = name
		}
	}
	return bad
}

// withDefaults returns c with its defaults filled in, or an error that says which
// functions are missing.
func (c Codec[K, V]) withDefaults() (Codec[K, V], error) {
	bad := c.validate()
	for _, f := range []struct {
		name    string
		missing bool
		why     string
	}{
		{"EncodeKey", c.EncodeKey == nil, keyFormOf[K]().why},
		{"DecodeKey", c.DecodeKey == nil, keyFormOf[K]().why},
		{"EncodeValue", c.EncodeValue == nil, valueFormOf[V]().why},
		{"DecodeValue", c.DecodeValue == nil, valueFormOf[V]().why},
	} {
		if f.missing && f.why != "" {
			bad = append(bad, fmt.Errorf("idemflight: Options.Codec.%s is nil: %s", f.name, f.why))
		}
	}
	if c.EncodeKey == nil {
		c.EncodeKey = encodeKey[K]
	}
	if c.DecodeKey == nil {
		c.DecodeKey = decodeKey[K]
	}
	if c.EncodeValue == nil {
		c.EncodeValue = encodeValue[V]
	}
	if c.DecodeValue == nil {
		c.DecodeValue = decodeValue[V]
	}
	return c, errors.Join(bad...)
}

// form is how the default writes keys or values of a type.
type form struct {
	name string // what a saved stream says; "" if there is none
	why  string // there is none; or ""
}

const ownForm = "own" // that of the functions of a Codec

func keyFormOf[K comparable]() form {
	switch t := reflect.TypeFor[K](); {
	case t == reflect.TypeFor[Key]():
		return form{name: "key"}
	case t.Kind() == reflect.String:
		return form{name: "text"}
	case isInt(t.Kind()) || isUint(t.Kind()):
		return form{name: "integer"}
	default:
		return form{why: fmt.Sprintf("keys of type %v have no default (strings, integers and idemflight.Key have)", t)}
	}
}

func valueFormOf[V any]() form {
	t := reflect.TypeFor[V]()
	if isText(t) {
		return form{name: "text"}
	}
	if why := (&lossCheck{}).loss(t, "", true); why != "" {
		return form{why: fmt.Sprintf("JSON, the default, would lose a part of %v: %s", t, why)}
	}
	return form{name: "json"}
}

func isInt(k reflect.Kind) bool  { return reflect.Int <= k && k <= reflect.Int64 }
func isUint(k reflect.Kind) bool { return reflect.Uint <= k && k <= reflect.Uintptr }

// isText reports whether values of type t are written as they are.
func isText(t reflect.Type) bool {
	return t.Kind() == reflect.String || t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8
}

func encodeKey[K comparable](key K) (string, error) {
	switch key := any(key).(type) {
	case string:
		return key, nil
	case Key:
		return key.String(), nil
	}
	switch v := reflect.ValueOf(key); {
	case v.Kind() == reflect.String:
		return v.String(), nil
	case isInt(v.Kind()):
		return strconv.FormatInt(v.Int(), 10), nil
	default:
		return strconv.FormatUint(v.Uint(), 10), nil
	}
}

func decodeKey[K comparable](text string) (key K, err error) {
	if k, ok := any(&key).(*Key); ok {
		*k, err = ParseKey(text)
		return key, err
	}
	v := reflect.ValueOf(&key).Elem()
	if v.Kind() == reflect.String {
		v.SetString(text)
		return key, nil
	}
	if isInt(v.Kind()) {
		var n int64
		if n, err = strconv.ParseInt(text, 10, v.Type().Bits()); err == nil {
			v.SetInt(n)
		}
	} else {
		var n uint64
		if n, err = strconv.ParseUint(text, 10, v.Type().Bits()); err == nil {
			v.SetUint(n)
		}
	}
	if err != nil {
		return key, fmt.Errorf("idemflight: not a key of type %v: %w", v.Type(), errors.Unwrap(err))
	}
	if again, _ := encodeKey(key); again != text { // "+1" or "01": another text of the same key
		return key, fmt.Errorf("idemflight: not a key of type %v in the form in which it was written", v.Type())
	}
	return key, nil
}

func encodeValue[V any](value V) ([]byte, error) {
	v := reflect.ValueOf(&value).Elem() // by way of a pointer, so that methods on pointers are found
	if isText(v.Type()) {
		if v.Kind() == reflect.String {
			return []byte(v.String()), nil
		}
		return v.Bytes(), nil
	}
	data, err := json.Marshal(&value)
	if err == nil && (!utf8.Valid(data) || !jsonKeeps(v)) {
		err = fmt.Errorf("text in a %v is not UTF-8, and JSON would change it", v.Type())
	}
	return data, err
}

func decodeValue[V any](data []byte) (value V, err error) {
	v := reflect.ValueOf(&value).Elem()
	switch {
	case !isText(v.Type()):
		err = json.Unmarshal(data, &value)
	case v.Kind() == reflect.String:
		v.SetString(string(data))
	default:
		v.SetBytes(data)
	}
	return value, err
}

// encodeError returns err as it is written, nil for nil: the names of the sentinels that it
// matches, escaped and separated by commas, then a newline and its text.
func (c Codec[K, V]) encodeError(err error) []byte {
	if err == nil {
		return nil
	}
	err = finite(err)
	var names []string
	for _, sentinels := range []map[string]error{namedSentinels, c.Sentinels} {
		for name, sentinel := range sentinels {
			if errors.Is(err, sentinel) {
				names = append(names, name)
			}
		}
	}
	if stored, ok := errors.AsType[*StoredError](err); ok { // may have names from elsewhere
		names = append(names, stored.Names...)
	}
	slices.Sort(names)
	var b []byte
	for i, name := range slices.Compact(names) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendEscaped(b, name)
	}
	b = append(b, '\n')
	return append(b, textOfError(err)...)
}

// noText is an error as it is written that matches no sentinel and has no text.
const noText = "\n"

// maxStack is how much of the stack of a panic is written, where it is part of the text. (What a
// cache keeps of a panic has none.)
const maxStack = 4 << 10

func textOfError(err error) string {
	text := err.Error()
	if p, ok := errors.AsType[*PanicError](err); ok && len(p.Stack) > maxStack {
		text = strings.Replace(text, string(p.Stack), string(p.Stack[:maxStack]), 1)
	}
	return text
}

// decodeError reads what encodeError wrote.
func (c Codec[K, V]) decodeError(data []byte) (error, error) {
	if data == nil {
		return nil, nil
	}
	line, text, found := bytes.Cut(data, []byte("\n"))
	if !found {
		return nil, errors.New("an error without text")
	}
	e := &StoredError{Text: string(text)}
	if len(line) == 0 {
		return e, nil
	}
	for escaped := range strings.SplitSeq(string(line), ",") {
		name, err := unescape(escaped)
		if err != nil {
			return nil, fmt.Errorf("the name of a sentinel: %w", err)
		}
		e.Names = append(e.Names, name)
		if c.Sentinels[name] != nil {
			e.sentinels = c.Sentinels
		}
	}
	return e, nil
}

// In a Store, the line of names of an error begins with marks: the origin, and for a held key the
// reason. No name begins like a mark, because names are escaped.
//
//	@00-<trace>-<span>-<flags>=<why>,<names>\n<text>

// encodeOutcome is encodeError for a retained outcome, with its origin.
func (c Codec[K, V]) encodeOutcome(origin *Origin, err error) []byte {
	switch {
	case origin == nil:
		return c.encodeError(err)
	case err == nil:
		return []byte("@" + origin.String())
	}
	return withMarks("@"+origin.String(), c.encodeError(err))
}

// encodeHeld is encodeError for a held key, with its origin and the reason.
func (c Codec[K, V]) encodeHeld(origin *Origin, err error, held why) []byte {
	marks := fmt.Sprintf("=%d", held)
	if origin != nil {
		marks = "@" + origin.String() + marks
	}
	if err == nil {
		return []byte(marks + "\n")
	}
	written := c.encodeError(err)
	if string(written) == noText {
		marks += "," // or it would be read as no error
	}
	return withMarks(marks, written)
}

// withMarks returns an error as it is written, with marks.
func withMarks(marks string, written []byte) []byte {
	if written[0] != '\n' {
		marks += ","
	}
	return append([]byte(marks), written...)
}

// decodeOutcome reads what encodeOutcome wrote.
func (c Codec[K, V]) decodeOutcome(data []byte) (origin *Origin, err, bad error) {
	origin, rest, bad := cutOrigin(data)
	if bad != nil || origin != nil && len(rest) == 0 {
		return origin, nil, bad
	}
	if origin != nil {
		rest = bytes.TrimPrefix(rest, []byte(","))
	}
	err, bad = c.decodeError(rest)
	return origin, err, bad
}

// cutOrigin cuts the mark of an origin off, if there is one.
func cutOrigin(data []byte) (origin *Origin, rest []byte, bad error) {
	rest, found := bytes.CutPrefix(data, []byte("@"))
	if !found {
		return nil, data, nil
	}
	origin = new(Origin)
	text := rest[:min(originText, len(rest))]
	if bad := origin.UnmarshalText(text); bad != nil {
		return nil, nil, bad
	}
	return origin, rest[len(text):], nil
}

// decodeHeld reads what encodeHeld wrote. A store has nil if the owner died.
func (c Codec[K, V]) decodeHeld(data []byte) (origin *Origin, err error, held why, bad error) {
	if data == nil {
		return nil, ErrInterrupted, interrupted, nil
	}
	origin, data, bad = cutOrigin(data)
	if bad != nil {
		return nil, nil, restored, bad
	}
	rest, found := bytes.CutPrefix(data, []byte("="))
	if !found {
		err, bad = c.decodeError(data)
		return origin, err, restored, bad
	}
	digits := bytes.IndexAny(rest, ",\n")
	if digits < 0 {
		return origin, nil, restored, errors.New("an error without text")
	}
	n, bad := strconv.ParseUint(string(rest[:digits]), 10, 8)
	if bad != nil {
		return origin, nil, restored, fmt.Errorf("why it is held: %w", bad)
	}
	if held = why(n); held >= whyEnd { // of a later version
		held = restored
	}
	rest = rest[digits:]
	if rest[0] == ',' {
		rest = rest[1:]
	} else if len(rest) == 1 {
		return origin, nil, held, nil
	}
	err, bad = c.decodeError(rest)
	return origin, err, held, bad
}

// lossCheck looks for what JSON certainly loses of the values of a type.
type lossCheck struct{ seen []looked }

// looked is a type that is being looked at, or was; nothing is lost of it as far as is known.
type looked struct {
	t           reflect.Type
	addressable bool
}

// loss says what JSON loses of a t at path; "" if nothing is certain to be lost. A value that
// cannot be addressed (in a map) is written without the methods of pointers to it.
func (l *lossCheck) loss(t reflect.Type, path string, addressable bool) string {
	at := looked{t, addressable}
	if slices.Contains(l.seen, at) {
		return ""
	}
	what := strings.TrimPrefix(path+" is", " ")
	writer, reader := jsonMethods(t, addressable)
	if writer != "" && reader != "" {
		for _, method := range []string{writer, reader} {
			if from := speaksAlone(t, method); from != "" {
				return fmt.Sprintf("%s a %v, for which the %s of its embedded %s speaks alone", what, t, method, from)
			}
		}
		return ""
	}
	if why := l.part(t, path, what, addressable); why != "" || writer == "" {
		return why
	}
	return fmt.Sprintf("%s a %v, which has a %s and nothing that reads what that writes", what, t, writer)
}

// part is loss for a t that JSON itself writes.
func (l *lossCheck) part(t reflect.Type, path, what string, addressable bool) string {
	at := looked{t, addressable}
	switch t.Kind() {
	case reflect.Interface:
		return fmt.Sprintf("%s an interface (%v), whose dynamic type is not written", what, t)
	case reflect.Func, reflect.Chan, reflect.UnsafePointer, reflect.Complex64, reflect.Complex128:
		return fmt.Sprintf("%s of type %v, which JSON does not have", what, t)
	case reflect.Pointer, reflect.Slice:
		return l.within(at).loss(t.Elem(), path, true)
	case reflect.Array:
		return l.loss(t.Elem(), path, addressable)
	case reflect.Map:
		if k := t.Key(); k.Kind() != reflect.String && !isInt(k.Kind()) && !isUint(k.Kind()) && !speaksAsText(k) {
			return fmt.Sprintf("%s a map with keys of type %v, which JSON does not have", what, k)
		}
		return l.within(at).loss(t.Elem(), path, false)
	case reflect.Struct:
		return l.within(at).fields(t, path, addressable, map[string]string{}, nil)
	}
	return ""
}

// within notes that a type, which may hold itself, is being looked at.
func (l *lossCheck) within(at looked) *lossCheck {
	l.seen = append(l.seen, at)
	return l
}

// fields is loss for the fields of a struct; named are those met so far, by their names in JSON,
// and around are the structs in which it is embedded.
func (l *lossCheck) fields(t reflect.Type, path string, addressable bool, named map[string]string, around []reflect.Type) string {
	around = append(around, t)
	for f := range t.Fields() {
		tag := f.Tag.Get("json")
		name, _, _ := strings.Cut(tag, ",")
		at := strings.TrimPrefix(path+"."+f.Name, ".")
		embedded := f.Type
		if f.Anonymous && embedded.Kind() == reflect.Pointer {
			embedded = embedded.Elem()
		}
		switch {
		case f.Name == "_" || !f.IsExported() && f.Type.Size() == 0: // nothing to lose
		case tag == "-":
			return at + ` is tagged "-"`
		case f.Anonymous && name == "" && embedded.Kind() == reflect.Struct && (f.IsExported() || embedded == f.Type):
			if slices.Contains(around, embedded) {
				return fmt.Sprintf("%s is in itself (%v), and JSON leaves the inner one out", at, embedded)
			}
			if why := l.fields(embedded, at, addressable || embedded != f.Type, named, around); why != "" {
				return why
			}
		case !f.IsExported():
			return at + " is not exported, and no MarshalJSON and UnmarshalJSON speak for it"
		default:
			if name == "" {
				name = f.Name
			}
			if named[name] != "" {
				return fmt.Sprintf("%s and %s have the same name in JSON", named[name], at)
			}
			named[name] = at
			if why := l.loss(f.Type, at, addressable); why != "" {
				return why
			}
		}
	}
	return ""
}

// jsonMethods returns the names of the methods with which JSON writes and reads a t; "" for one that t
// does not have.
func jsonMethods(t reflect.Type, addressable bool) (writer, reader string) {
	writes, reads := t, reflect.PointerTo(t)
	if addressable {
		writes = reads
	}
	switch {
	case writes.Implements(reflect.TypeFor[json.Marshaler]()):
		writer = "MarshalJSON"
	case writes.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		writer = "MarshalText"
	}
	switch {
	case reads.Implements(reflect.TypeFor[json.Unmarshaler]()):
		reader = "UnmarshalJSON"
	case reads.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		reader = "UnmarshalText"
	}
	return writer, reader
}

// speaksForItself reports whether t has methods that write and read it.
func speaksForItself(t reflect.Type, addressable bool) bool {
	writer, reader := jsonMethods(t, addressable)
	return writer != "" && reader != ""
}

// speaksAlone returns the embedded field of t from which t has the method by promotion, if that leaves
// something of t out: another field, or the field itself, which is nil where t is read if it is a
// pointer. Otherwise it returns "".
func speaksAlone(t reflect.Type, method string) string {
	if t.Kind() != reflect.Struct || !isPromoted(t, method) {
		return ""
	}
	var from reflect.StructField
	leaves := false
	for f := range t.Fields() {
		_, speaks := methodOf(f.Type, method)
		if f.Anonymous && speaks {
			from = f
		} else if f.Type.Size() > 0 {
			leaves = true
		}
	}
	switch {
	case from.Type == nil: // not promoted, after all
		return ""
	case leaves, from.Type.Kind() == reflect.Pointer, from.Type.Kind() == reflect.Interface:
		return from.Name
	}
	return speaksAlone(from.Type, method)
}

// isPromoted reports whether t has the method from a field that it embeds: then the compiler has
// generated it. A compiler that does not tell leaves it uncertain, and nothing is refused.
func isPromoted(t reflect.Type, method string) bool {
	m, ok := methodOf(t, method)
	if !ok {
		return false
	}
	pc := m.Func.Pointer()
	file, _ := runtime.FuncForPC(pc).FileLine(pc)
	return file == "<autogenerated>"
}

// methodOf returns a method of t, or else of pointers to t. Each name is a constant: otherwise the
// linker would keep all methods of all types in the user's program.
func methodOf(t reflect.Type, method string) (m reflect.Method, ok bool) {
	for _, t := range []reflect.Type{t, reflect.PointerTo(t)} {
		switch method {
		case "MarshalJSON":
			m, ok = t.MethodByName("MarshalJSON")
		case "UnmarshalJSON":
			m, ok = t.MethodByName("UnmarshalJSON")
		case "MarshalText":
			m, ok = t.MethodByName("MarshalText")
		case "UnmarshalText":
			m, ok = t.MethodByName("UnmarshalText")
		}
		if ok {
			return m, true
		}
	}
	return m, false
}

// speaksAsText is speaksForItself for the keys of a map.
func speaksAsText(t reflect.Type) bool {
	return t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) &&
		reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// jsonKeeps reports whether all text in v, which has been written as JSON, is UTF-8: JSON
// silently writes another character in the place of what is not. Types that speak for themselves
// in JSON are left to it.
func jsonKeeps(v reflect.Value) bool {
	if t := v.Type(); speaksForItself(t, v.CanAddr()) {
		if !v.CanInterface() {
			return true
		}
		if v.CanAddr() {
			v = v.Addr()
		}
		if _, ok := reflect.TypeAssert[json.Marshaler](v); ok {
			return true
		}
		m, _ := reflect.TypeAssert[encoding.TextMarshaler](v)
		text, err := m.MarshalText()
		return err != nil || utf8.Valid(text)
	}
	switch v.Kind() {
	case reflect.String:
		return utf8.ValidString(v.String())
	case reflect.Pointer:
		return v.IsNil() || jsonKeeps(v.Elem())
	case reflect.Slice, reflect.Array:
		if k := v.Type().Elem().Kind(); reflect.Bool <= k && k <= reflect.Float64 {
			return true
		}
		for i := range v.Len() {
			if !jsonKeeps(v.Index(i)) {
				return false
			}
		}
	case reflect.Map:
		for each := v.MapRange(); each.Next(); {
			if !jsonKeeps(each.Key()) || !jsonKeeps(each.Value()) {
				return false
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if !jsonKeeps(v.Field(i)) {
				return false
			}
		}
	}
	return true
}
