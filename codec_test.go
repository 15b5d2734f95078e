package idemflight_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
)

// carried returns an entry with this key, value and error as it is when it was written and read again. (With a
// cache of each type, Save and Load, the compiler would take minutes.)
func carried[K comparable, V any](t *testing.T, codec idemflight.Codec[K, V], key K, value V, err error) (idemflight.Entry[V], error) {
	t.Helper()
	now := time.Now()
	again, e, err := codec.Carry(key, idemflight.Entry[V]{State: idemflight.Retained, Value: value, Err: err, ExpiresAt: now})
	if err != nil {
		return e, err
	}
	require.Equal(t, key, again, "the key is the same as before")
	require.True(t, now.Equal(e.ExpiresAt))
	return e, nil
}

func keyComesBack[K comparable](t *testing.T, keys ...K) {
	t.Helper()
	for _, key := range keys {
		_, err := carried(t, idemflight.Codec[K, int]{}, key, 1, nil)
		require.NoError(t, err, "%T %v", key, key)
	}
}

func valueComesBack[V any](t *testing.T, values ...V) {
	t.Helper()
	for _, value := range values {
		e, err := carried(t, idemflight.Codec[string, V]{}, "k", value, nil)
		require.NoError(t, err, "%T %v", value, value)
		require.Equal(t, value, e.Value, "%T", value)
	}
}

func TestCodec_KeysOfStringsIntegersAndKeyHaveADefault(t *testing.T) {
	type (
		name   string
		number int16
	)
	keyComesBack(t, "a", "not UTF-8 \xff\x00", "a/b%2F\n", strings.Repeat("long ", 1<<10))
	keyComesBack[name](t, "a")
	keyComesBack(t, idemflight.Key{Scope: "a/b", ID: "c d\xff"}, idemflight.Key{Scope: "s", ID: "i"})
	keyComesBack(t, 0, 1, math.MinInt, math.MaxInt)
	keyComesBack[int8](t, math.MinInt8, math.MaxInt8)
	keyComesBack[number](t, -1, math.MaxInt16)
	keyComesBack[uint64](t, 0, math.MaxUint64)
	keyComesBack[uint8](t, math.MaxUint8)
	keyComesBack[uintptr](t, 7)
	keyComesBack[int64](t, math.MinInt64)
	keyComesBack[uint](t, math.MaxUint)
}

// Each of these has a part that the methods or fields beside it do not write.
type (
	hidden       struct{ a int }
	hiddenWriter struct{ a int } // writes itself, and cannot be read
	spoken       struct{ a int } // both
	tagged       struct {
		A int `json:"-"`
	}
	twice struct {
		A int `json:"B"`
		B int
	}
	inner    struct{ X int }
	shadowed struct {
		inner
		X int
	}
	embedding struct {
		inner
		Y int
		_ [4]byte
	}
	list struct {
		Next *list
		V    map[string][]*spoken
	}
	selfEmbedding struct {
		*selfEmbedding
		X int
	}
	embeddedKey struct {
		idemflight.Key
		N int
	}
	plainText     string
	textWriter    struct{ a int } // writes itself as text, and cannot be read
	spokenByPtr   struct{ a int } // both, by methods of its pointer
	Outer         struct{ X int }
	Speaking      struct{ S spokenByPtr }
	SelfEmbedding struct {
		*SelfEmbedding
		X int
	}
	EmbeddedInTurn struct{ *Embeds }
	Embeds         struct{ *EmbeddedInTurn }
	renamed        struct {
		Outer `json:"o"`
		X     int
	}
	stamped struct {
		time.Time
		Note string
	}
	ownStamped struct { // with methods of its own
		time.Time
		Note string
	}
	generic[T any] struct { // with methods of its own, too
		time.Time
		Note T
	}
	Speaker interface {
		json.Marshaler
		json.Unmarshaler
	}
	Redacted string // writes itself, and is read as any string
	lastly   struct{ stamped }
)

func (s ownStamped) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{s.Time, s.Note})
}

func (s *ownStamped) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&s.Time, &s.Note})
}

func (g generic[T]) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{g.Time, g.Note})
}

func (g *generic[T]) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&g.Time, &g.Note})
}

func (Redacted) MarshalJSON() ([]byte, error) { return []byte(`"…"`), nil }

func (w textWriter) MarshalText() ([]byte, error)   { return fmt.Append(nil, w.a), nil }
func (s *spokenByPtr) MarshalText() ([]byte, error) { return fmt.Append(nil, s.a), nil }
func (s *spokenByPtr) UnmarshalText(text []byte) error {
	_, err := fmt.Sscan(string(text), &s.a)
	return err
}

func (h hiddenWriter) MarshalJSON() ([]byte, error) { return json.Marshal(h.a) }
func (s spoken) MarshalText() ([]byte, error)       { return fmt.Append(nil, s.a), nil }
func (s *spoken) UnmarshalText(text []byte) error {
	_, err := fmt.Sscan(string(text), &s.a)
	return err
}

func TestCodec_ValuesComeBackAsTheyWere(t *testing.T) {
	type (
		name  string
		bytes []byte
	)
	valueComesBack(t, "", "text", "not UTF-8 \xff")
	valueComesBack[name](t, "a\xff")
	valueComesBack(t, nil, []byte{}, []byte("a\x00\xff"))
	valueComesBack(t, bytes(nil), bytes("a"))
	valueComesBack(t, json.RawMessage(`{ "a" : 1 }`))
	valueComesBack(t, 0, -1, math.MaxInt)
	valueComesBack(t, 1.5, math.SmallestNonzeroFloat64)
	valueComesBack(t, true, false)
	valueComesBack(t, struct{}{})
	valueComesBack(t, nil, &inner{7})
	valueComesBack(t, nil, map[string]int{}, map[string]int{"ä<&\u2028": 1})
	valueComesBack(t, nil, []string{}, []string{"\ufffd", "a"})
	valueComesBack(t, map[int]bool{-1: true})
	valueComesBack(t, map[spoken]int{{1}: 2})
	valueComesBack(t, spoken{7})
	valueComesBack(t, embedding{inner: inner{1}, Y: 2})
	valueComesBack(t, &list{Next: &list{}, V: map[string][]*spoken{"a": {nil, {1}}}})
	valueComesBack(t, embeddedKey{idemflight.Key{Scope: "s", ID: "i"}, 3})
	valueComesBack(t, struct {
		A Outer
		X int
	}{Outer{1}, 2})
	valueComesBack(t, renamed{Outer{1}, 2})
	valueComesBack(t, spokenByPtr{7})
	valueComesBack(t, Speaking{spokenByPtr{7}})
	valueComesBack(t, map[string]struct{ *Speaking }{"a": {&Speaking{spokenByPtr{7}}}})
	valueComesBack(t, time.Unix(5, 7).UTC())
	valueComesBack(t, struct{ time.Time }{time.Unix(5, 7).UTC()})
	valueComesBack(t, ownStamped{time.Unix(5, 7).UTC(), "paid"})
	valueComesBack(t, generic[string]{time.Unix(5, 7).UTC(), "paid"})
	valueComesBack(t, map[string]ownStamped{"a": {time.Unix(5, 7).UTC(), "paid"}})
	valueComesBack(t, struct {
		spoken
		_ struct{}
	}{spoken{7}, struct{}{}})
	valueComesBack(t, idemflight.Fingerprint{}, fingerprint(1))
	valueComesBack(t, nil, &idemhttp.Response{
		Status: 201, Header: http.Header{"Location": {"/a", "/b"}}, Body: []byte("\x00body\xff"), Trailer: http.Header{"T": nil}})
}

// refuses requires that a cache of these types is refused without a Codec: by Save and Load at the latest.
func refuses[K comparable, V any](t *testing.T, why ...string) {
	t.Helper()
	refusesCodec(t, idemflight.Codec[K, V]{}, why...)
}

func refusesCodec[K comparable, V any](t *testing.T, codec idemflight.Codec[K, V], why ...string) {
	t.Helper()
	err := codec.Lacks()
	require.Error(t, err)
	for _, why := range why {
		require.ErrorContains(t, err, why)
	}
}

// What the Codec lacks is an error of Save and of Load, before anything is written.
func TestCodec_WithoutOneThatIsNeededNothingIsSaved(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[int, any]{MaxEntries: fewEntries})
	lacks := idemflight.Codec[int, any]{}.Lacks()
	var out bytes.Buffer
	require.EqualError(t, c.Save(&out), lacks.Error())
	require.Empty(t, out.String(), "nothing is written")
	_, err := c.Load(bg, strings.NewReader("idemflight save 1\n"))
	require.EqualError(t, err, lacks.Error())
}

func TestCodec_WhatTheDefaultWouldLoseIsRefused(t *testing.T) {
	refuses[float64, int](t, "idemflight: Options.Codec.EncodeKey is nil: keys of type float64 have no default",
		"idemflight: Options.Codec.DecodeKey is nil")
	refuses[embeddedKey, int](t, "keys of type idemflight_test.embeddedKey have no default")
	refuses[bool, int](t, "keys of type bool")
	refuses[any, int](t, "keys of type interface {}")
	refuses[[2]string, int](t, "keys of type [2]string")

	refuses[string, hidden](t, "idemflight: Options.Codec.EncodeValue is nil: JSON, the default, would lose a part of idemflight_test.hidden: a is not exported",
		"idemflight: Options.Codec.DecodeValue is nil")
	refuses[string, *hidden](t, "a is not exported")
	refuses[string, map[string][]hidden](t, "a is not exported")
	refuses[string, hiddenWriter](t, "a is not exported")
	refuses[string, struct{ A struct{ B hidden } }](t, "A.B.a is not exported")
	refuses[string, struct{ *inner }](t, "inner is not exported")
	refuses[string, struct{ URL *url.URL }](t, "URL.User.username is not exported")
	refuses[string, tagged](t, `A is tagged "-"`)
	refuses[string, twice](t, "A and B have the same name in JSON")
	refuses[string, shadowed](t, "inner.X and X have the same name in JSON")
	refuses[string, struct {
		*Outer
		X int
	}](t, "Outer.X and X have the same name in JSON")
	refuses[string, struct{ plainText }](t, "plainText is not exported")
	refuses[string, textWriter](t, "a is not exported")
	refuses[string, map[textWriter]int](t, "a map with keys of type idemflight_test.textWriter")
	refuses[string, map[string]struct{ Speaking }](t, "Speaking.S.a is not exported")
	refuses[string, SelfEmbedding](t, "SelfEmbedding is in itself (idemflight_test.SelfEmbedding), and JSON leaves the inner one out")
	refuses[string, Embeds](t, "EmbeddedInTurn.Embeds is in itself")
	refuses[string, struct {
		A Outer
		Outer
		X int
	}](t, "Outer.X and X have the same name in JSON")
	refuses[string, struct {
		A Speaking
		B map[string]Speaking
	}](t, "B.S.a is not exported")
	refuses[string, any](t, "would lose a part of interface {}: is an interface (interface {})")
	refuses[string, error](t, "is an interface (error)")
	refuses[string, struct{ A []io.Reader }](t, "A is an interface (io.Reader)")
	refuses[string, struct{ F func() }](t, "F is of type func(), which JSON does not have")
	refuses[string, chan int](t, "of type chan int")
	refuses[string, complex64](t, "of type complex64")
	refuses[string, map[float64]int](t, "a map with keys of type float64")
	refuses[string, selfEmbedding](t, "selfEmbedding is not exported")
	refuses[string, stamped](t, "is a idemflight_test.stamped, for which the MarshalJSON of its embedded Time speaks alone")
	refuses[string, *stamped](t, "the MarshalJSON of its embedded Time speaks alone")
	refuses[string, lastly](t, "the MarshalJSON of its embedded Time speaks alone")
	refuses[string, struct{ A []stamped }](t, "A is a idemflight_test.stamped, for which")
	refuses[string, struct{ *big.Int }](t, "the MarshalJSON of its embedded Int speaks alone") // which is nil when it is read
	refuses[string, *struct {
		spoken
		X int
	}](t, "the MarshalText of its embedded spoken speaks alone")
	refuses[string, *struct {
		spoken
		At time.Time
	}](t, "the MarshalText of its embedded spoken speaks alone")
	refuses[string, *struct {
		spokenByPtr
		X int
	}](t, "the MarshalText of its embedded spokenByPtr speaks alone")
	refuses[string, struct{ Speaker }](t, "the MarshalJSON of its embedded Speaker speaks alone")
	refuses[string, struct{ Token Redacted }](t, "Token is a idemflight_test.Redacted, which has a MarshalJSON and nothing that reads what that writes")
	_ = selfEmbedding{}.selfEmbedding // only reflection reads it otherwise

	// With functions of one's own there is nothing to lose; one half of them is not enough.
	codec := idemflight.Codec[string, hidden]{
		EncodeValue: func(h hidden) ([]byte, error) { return json.Marshal(h.a) },
		DecodeValue: func(b []byte) (h hidden, err error) { err = json.Unmarshal(b, &h.a); return h, err },
	}
	e, err := carried(t, codec, "k", hidden{7}, nil)
	require.NoError(t, err)
	require.Equal(t, hidden{7}, e.Value)
	codec.DecodeValue = nil
	refusesCodec(t, codec, "idemflight: Options.Codec.DecodeValue is nil")
}

// Of text that JSON would change, two values could become one.
func TestCodec_TextThatJSONWouldChangeIsAnError(t *testing.T) {
	const bad = "\xff"
	for name, err := range map[string]error{
		"field": func() error {
			_, err := carried(t, idemflight.Codec[string, struct{ A string }]{}, "k", struct{ A string }{bad}, nil)
			return err
		}(),
		"pointer": func() error {
			_, err := carried(t, idemflight.Codec[string, **string]{}, "k", new(new(bad)), nil)
			return err
		}(),
		"elements": func() error {
			_, err := carried(t, idemflight.Codec[string, [2][]string]{}, "k", [2][]string{{"a"}, {"b", bad}}, nil)
			return err
		}(),
		"key of a map": func() error {
			_, err := carried(t, idemflight.Codec[string, map[string]int]{}, "k", map[string]int{bad: 1}, nil)
			return err
		}(),
		"element of a map": func() error {
			_, err := carried(t, idemflight.Codec[string, map[string]string]{}, "k", map[string]string{"a": bad}, nil)
			return err
		}(),
		"header": func() error {
			_, err := carried(t, idemflight.Codec[string, *idemhttp.Response]{}, "k", &idemhttp.Response{Header: http.Header{"A": {bad}}}, nil)
			return err
		}(),
		"its own text": func() error {
			_, err := carried(t, idemflight.Codec[string, rawText]{}, "k", rawText{bad}, nil)
			return err
		}(),
		"its own JSON": func() error {
			_, err := carried(t, idemflight.Codec[string, rawJSON]{}, "k", rawJSON{`"` + bad + `"`}, nil)
			return err
		}(),
	} {
		require.ErrorContains(t, err, "is not UTF-8, and JSON would change it", name)
	}
	_, err := carried(t, idemflight.Codec[string, float64]{}, "k", math.NaN(), nil)
	require.ErrorContains(t, err, "unsupported value: NaN")
}

type (
	rawText struct{ s string }
	rawJSON struct{ s string }
)

func (r rawText) MarshalText() ([]byte, error)  { return []byte(r.s), nil }
func (r *rawText) UnmarshalText(b []byte) error { r.s = string(b); return nil }
func (r rawJSON) MarshalJSON() ([]byte, error)  { return []byte(r.s), nil }
func (r *rawJSON) UnmarshalJSON(b []byte) error { r.s = string(b); return nil }

var (
	errNoFunds = errors.New("declined")
	errLimit   = errors.New("over the limit")
)

// matchingError is every error for which its list says so.
type matchingError struct {
	plainError
	is []error
}

func (e *matchingError) Is(target error) bool {
	for _, err := range e.is {
		if err == target {
			return true
		}
	}
	return false
}

// What is left of an error is its text, and errors.Is for the sentinels.
func TestCodec_ErrorsKeepTheirTextAndSentinels(t *testing.T) {
	codec := idemflight.Codec[string, int]{Sentinels: map[string]error{
		"declined": errNoFunds, "limit, daily\n": errLimit, "eof": io.EOF,
	}}
	all := []error{errNoFunds, errLimit, io.EOF, context.Canceled, context.DeadlineExceeded,
		idemflight.ErrKeyReused, idemflight.ErrInFlight, idemflight.ErrOutcomeUnknown, idemflight.ErrValueShed,
		idemflight.ErrFull, idemflight.ErrClosed, idemflight.ErrReentrant, idemflight.ErrInvalidKey, idemflight.ErrCallerLeft,
		idemflight.ErrGoexit, idemflight.ErrInterrupted, idemflight.ErrNotExecuting, idemflight.ErrNotHeld, idemflight.ErrExpired}
	for _, err := range append([]error{
		errBoom,
		errors.New(""),
		errors.New("two\nlines, \xff"),
		fmt.Errorf("at the bank: %w", errNoFunds),
		errors.Join(errNoFunds, fmt.Errorf("x: %w", errLimit), context.Canceled),
		&matchingError{plainError{"many"}, []error{io.EOF, idemflight.ErrFull}},
		&matchingError{plainError{"all"}, all},
		sliceError{"not", "comparable"},
		&idemflight.PanicError{Value: errNoFunds},
		&idemflight.StoredError{Text: "by hand", Names: []string{"context.Canceled"}},
	}, all...) {
		e, failed := carried(t, codec, "k", 7, err)
		require.NoError(t, failed)
		require.Equal(t, 7, e.Value, "a value beside an error is kept")
		stored, ok := errors.AsType[*idemflight.StoredError](e.Err)
		require.True(t, ok, "%T", e.Err)
		require.Equal(t, err.Error(), e.Err.Error())
		require.Equal(t, err.Error(), stored.Text)
		for _, sentinel := range all {
			require.Equal(t, errors.Is(err, sentinel), errors.Is(e.Err, sentinel), "%q is %q", err, sentinel)
		}
		// And so on, from one version of the program to the next.
		again, failed := carried(t, codec, "k", 7, fmt.Errorf("again: %w", e.Err))
		require.NoError(t, failed)
		for _, sentinel := range all {
			require.Equal(t, errors.Is(err, sentinel), errors.Is(again.Err, sentinel), "%q is %q", err, sentinel)
		}
	}
	e, err := carried(t, codec, "k", 0, errors.Join(errLimit, io.EOF, context.Canceled))
	require.NoError(t, err)
	require.Equal(t, []string{"context.Canceled", "eof", "limit, daily\n"}, e.Err.(*idemflight.StoredError).Names)

	// A process that does not know a name keeps it for one that does.
	unknowing, err := carried(t, idemflight.Codec[string, int]{}, "k", 0, e.Err)
	require.NoError(t, err)
	require.NotErrorIs(t, unknowing.Err, errLimit)
	require.ErrorIs(t, unknowing.Err, context.Canceled)
	knowing, err := carried(t, codec, "k", 0, unknowing.Err)
	require.NoError(t, err)
	require.ErrorIs(t, knowing.Err, errLimit)

	e, err = carried(t, codec, "k", 7, nil)
	require.NoError(t, err)
	require.NoError(t, e.Err)
}

func TestStoredError_MadeByHand(t *testing.T) {
	err := &idemflight.StoredError{Text: "bank: no", Names: []string{"idemflight.ErrInterrupted", "context.DeadlineExceeded", "declined"}}
	require.EqualError(t, err, "bank: no")
	require.ErrorIs(t, err, idemflight.ErrInterrupted)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, errNoFunds, "it knows no Codec")
	require.NotErrorIs(t, &idemflight.StoredError{Text: "declined"}, errNoFunds, "a text makes no error")
	require.NotErrorIs(t, err, nil)
}

// A panic is written by its text; a stack in it is cut.
func TestCodec_AStackInTheTextIsCut(t *testing.T) {
	for _, tt := range []struct{ size, want int }{{100, 100}, {4 << 10, 4 << 10}, {4<<10 + 1, 4 << 10}, {1 << 20, 4 << 10}} {
		p := &idemflight.PanicError{Value: "v", Stack: bytes.Repeat([]byte("S"), tt.size)}
		wrapped := &plainError{"fn: v\n" + string(p.Stack)}
		e, err := carried(t, idemflight.Codec[string, int]{}, "k", 0, errors.Join(wrapped, p))
		require.NoError(t, err)
		require.Contains(t, e.Err.Error(), "fn: v\n"+strings.Repeat("S", tt.want)+"\n")
	}
}

func TestCodec_SentinelsAreChecked(t *testing.T) {
	for want, sentinels := range map[string]map[string]error{
		`Sentinels["b"] is "a", too`:                                 {"a": errBoom, "b": errBoom},
		`Sentinels["mine"] is "idemflight.ErrFull", too`:             {"mine": idemflight.ErrFull},
		`Sentinels["mine"] is "context.Canceled", too`:               {"mine": context.Canceled},
		`Sentinels["idemflight.ErrFull"] is the name of one`:         {"idemflight.ErrFull": errBoom},
		`Sentinels["context.DeadlineExceeded"] is the name of one`:   {"context.DeadlineExceeded": errBoom},
		`Sentinels["a"] is nil`:                                      {"a": nil},
		`Sentinels[""] has no name`:                                  {"": errBoom},
		`Sentinels["a"] is a idemflight_test.sliceError, which cann`: {"a": sliceError{"x"}},
	} {
		refusesCodec(t, idemflight.Codec[string, int]{Sentinels: sentinels}, "idemflight: Options.Codec."+want)
	}
	_, err := idemflight.New(options{Codec: idemflight.Codec[string, int]{Sentinels: map[string]error{"a": nil}}})
	require.ErrorContains(t, err, `Sentinels["a"] is nil`, "also where nothing is written yet")
	refusesCodec(t, idemflight.Codec[string, int]{Sentinels: map[string]error{"a": nil, "b": nil}},
		`Sentinels["a"]`, `Sentinels["b"]`) // names them all
}
