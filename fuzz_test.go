package idemflight_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// Keys and errors that are hard on the code that prints them.
type (
	fuzzValuer   string // what slog asks for a value panics
	fuzzStringer string // what fmt asks for a text panics
	fuzzJSON     string // what encoding/json asks panics
	fuzzText     string // encoding.TextMarshaler fails
	fuzzLoop     string // a LogValuer whose value is itself
	fuzzGroup    string // a LogValuer whose value is a group that has a key of its own
	fuzzError    struct{ text *string }
	fuzzStruct   struct {
		Name string
		Ch   any
	}
)

func (k fuzzValuer) LogValue() slog.Value       { panic(string(k)) }
func (k fuzzStringer) String() string           { panic(string(k)) }
func (k fuzzJSON) MarshalJSON() ([]byte, error) { panic(string(k)) }
func (k fuzzText) MarshalText() ([]byte, error) { return nil, errors.New(string(k)) }
func (k fuzzLoop) LogValue() slog.Value         { return slog.AnyValue(k) }
func (k fuzzGroup) LogValue() slog.Value {
	return slog.GroupValue(slog.String("event", string(k)), slog.String("msg", string(k)))
}
func (e *fuzzError) Error() string { return *e.text }

// FuzzLogEvents logs events of hostile keys and errors: what it makes of them is one record, which
// can be read, with the kind under "event" and something under "key".
func FuzzLogEvents(f *testing.F) {
	for _, text := range []string{"", "plain", "two\nlines \x1b[31m\u2028", "\xff\xfe not UTF-8", `"quoted" = \ `, strings.Repeat("long ", 1<<12)} {
		for shape := range byte(12) {
			f.Add(shape, shape, text, text, int(shape), int64(time.Second)*int64(shape), int(shape)-1, int(shape)%4)
		}
	}
	f.Fuzz(func(t *testing.T, keyShape, errShape byte, key, text string, kind int, took int64, waiters, disposition int) {
		var err error
		switch plain := errors.New(text); errShape % 9 {
		case 0:
		case 1:
			err = plain
		case 2:
			err = (*fuzzError)(nil) // its method panics
		case 3:
			err = &fuzzError{} // … another way
		case 4:
			err = errors.Join(plain, idemflight.ErrOutcomeUnknown, fmt.Errorf("%w: %s", plain, text))
		case 5:
			err = &idemflight.PanicError{Value: text, Stack: []byte(text)}
		case 6:
			err = &idemflight.PanicError{Value: fuzzStringer(text)}
		case 7:
			err = idemflight.Unknown(plain)
		case 8:
			err = &idemflight.PanicError{Value: (*fuzzError)(nil)}
		}
		e := idemflight.Event[any]{
			Kind: idemflight.EventKind(kind), Err: err, Took: time.Duration(took),
			Waiters: waiters, Disposition: idemflight.Disposition(disposition),
		}
		switch keyShape % 12 {
		case 0:
			e.Key = key
		case 1:
			e.Key = idemflight.Key{Scope: key, ID: text}
		case 2:
			e.Key = fuzzValuer(key)
		case 3:
			e.Key = fuzzStringer(key)
		case 4:
			e.Key = fuzzJSON(key)
		case 5:
			e.Key = fuzzText(key)
		case 6:
			e.Key = fuzzLoop(key)
		case 7:
			e.Key = fuzzGroup(key)
		case 8:
			e.Key = fuzzStruct{Name: key, Ch: make(chan int)}
		case 9:
			e.Key = struct{ F float64 }{float64(took) / float64(waiters)}
		case 10:
			e.Key = (*fuzzError)(nil)
		case 11:
			e.Key = nil
		}
		var asJSON, asText bytes.Buffer
		ctx := context.WithValue(t.Context(), fuzzStringer("key"), key)
		all := &slog.HandlerOptions{Level: slog.LevelDebug}
		require.NotPanics(t, func() { idemflight.LogEvents[any](slog.New(slog.NewJSONHandler(&asJSON, all)))(ctx, e) })
		require.NotPanics(t, func() { idemflight.LogEvents[any](slog.New(slog.NewTextHandler(&asText, all)))(ctx, e) })

		lines := bytes.Split(asJSON.Bytes(), []byte("\n"))
		require.Len(t, lines, 2, "one record: %q", asJSON.String())
		require.Empty(t, lines[1], "which ends with its line: %q", asJSON.String())
		require.True(t, json.Valid(lines[0]), "a record that can be read: %q", lines[0])
		var record map[string]any
		require.NoError(t, json.Unmarshal(lines[0], &record))
		require.Regexp(t, "^idemflight: [a-z, ]+$", record["msg"])
		require.Equal(t, e.Kind.String(), record["event"])
		require.Contains(t, record, "key")
		if keyShape%12 == 0 {
			require.Equal(t, string([]rune(key)), record["key"],
				"word for word, as far as it is text")
		}
		require.Equal(t, err != nil, record["err"] != nil, "why, if there is a why: %q", lines[0])
		require.NotContains(t, asJSON.String(), "!BADKEY")

		require.Equal(t, 1, bytes.Count(asText.Bytes(), []byte("\n")),
			"one line: %q", asText.String())
		require.Contains(t, asText.String(), `" event=`+e.Kind.String()+" key",
			"%q", asText.String())
	})
}
