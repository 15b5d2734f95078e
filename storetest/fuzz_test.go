package storetest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/storetest"
)

var errDeclined, errLimit = errors.New("declined"), errors.New("over the limit")

// sentinels have names that would be more than one, or none, if they were not escaped.
var sentinels = map[string]error{"declined": errDeclined, "@limit,\n=1 %2C": errLimit}

// told are the errors that errors.Is is to find in what comes back.
var told = []error{errDeclined, errLimit, context.Canceled, idemflight.ErrFull, idemflight.ErrInterrupted}

// receipt is a value that is written as JSON.
type receipt struct {
	Text  string
	Lines map[string][]string
	Bytes []byte
	Next  *receipt
}

// writer writes and reads records by the Codec of one pair of types.
type writer[K comparable, V any] struct{ t *testing.T }

func (w writer[K, V]) over(m idemflight.Store) *idemflight.Cache[K, V] {
	return idemflight.MustNew(idemflight.Options[K, V]{
		Store: m, MaxEntries: 1, Codec: idemflight.Codec[K, V]{Sentinels: sentinels},
	})
}

// carried returns e as it is once it was written into an empty store, and read again, and its value and
// error as the store has them.
func (w writer[K, V]) carried(key K, e idemflight.Entry[V]) (again idemflight.Entry[V], written idemflight.Standing, err error) {
	m, ctx := storetest.Mem(), w.t.Context()
	text := ""
	m.Hook(func(_ context.Context, _ storetest.When, _ string, c idemflight.Claim) error {
		text = c.Key
		return nil
	})
	if err := w.over(m).Restore(ctx, key, e); err != nil {
		return again, written, err
	}
	again, found, err := w.over(m).Lookup(ctx, key)
	require.NoError(w.t, err, "what was written can be read: %v %+v", key, e)
	require.True(w.t, found)
	written, err = m.Read(ctx, text)
	require.NoError(w.t, err)
	return again, written, nil
}

// requireSame fails unless both have the same value and an error with the same text and sentinels.
func (w writer[K, V]) requireSame(want, got idemflight.Entry[V]) {
	w.t.Helper()
	require.Equal(w.t, want.State, got.State)
	require.Equal(w.t, want.Value, got.Value)
	require.Equal(w.t, want.Fingerprint, got.Fingerprint)
	require.Equal(w.t, want.Origin, got.Origin)
	require.Equal(w.t, fmt.Sprint(want.Err), fmt.Sprint(got.Err))
	for _, is := range told {
		require.Equal(w.t, errors.Is(want.Err, is), errors.Is(got.Err, is), "%#v is %q, and %#v", want.Err, is, got.Err)
	}
}

// reads has a cache read what a store has, of which nobody knows who wrote it. It is an error, or something that
// is the same when it was written and read again.
func (w writer[K, V]) reads(text string, s idemflight.Settlement) {
	m, ctx := storetest.Mem(), w.t.Context()
	r := idemflight.ClaimRequest{Claim: idemflight.Claim{Key: text, ID: idemflight.ClaimID{1}}, Lease: time.Hour}
	_, err := m.Claim(ctx, r)
	require.NoError(w.t, err)
	c := w.over(m)
	var key K
	n := 0
	err = c.Unsettled(ctx, func(k K, _ idemflight.Entry[V]) bool { key = k; n++; return true })
	if err != nil {
		require.ErrorIs(w.t, err, idemflight.ErrStore)
		require.ErrorContains(w.t, err, strconv.Quote(text), "which key it is")
		return
	}
	require.Equal(w.t, 1, n)
	if text == "" {
		return // no key has that text
	}
	_, found, err := c.Lookup(ctx, key)
	require.NoError(w.t, err)
	require.True(w.t, found, "the key %v has another text than %q", key, text)

	_, err = m.Settle(ctx, r.Claim, s)
	require.NoError(w.t, err)
	e, found, err := c.Lookup(ctx, key)
	require.True(w.t, found)
	if err != nil {
		require.ErrorIs(w.t, err, idemflight.ErrStore)
		return
	}
	once, written, err := w.carried(key, e)
	require.NoError(w.t, err, "%+v", e)
	w.requireSame(e, once)
	twice, again, err := w.carried(key, once)
	require.NoError(w.t, err, "%+v", e)
	w.requireSame(e, twice)
	require.Equal(w.t, string(written.Value), string(again.Value), "one value is always written the same way")
	require.Equal(w.t, string(written.Err), string(again.Err), "one error is always written the same way")
}

// failure returns an error with that text, which is one or more of told.
func failure(text string, kind byte) error {
	if kind == 0 {
		return nil
	}
	err := errors.New(text)
	for i, is := range told {
		if kind>>i&2 != 0 {
			err = fmt.Errorf("%w%s%w", err, text, is)
		}
	}
	return err
}

// FuzzCodec writes keys, values and errors, which come back as they were; and reads what nobody wrote, which is an
// error or comes back, too.
func FuzzCodec(f *testing.F) {
	const origin = "@00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
	for i, text := range []string{
		"", "a/b", "a%2Fb/%00", "a%2fb/c", "a/%41", "-7", "+7", "32768", "\xff/", "context.Canceled,declined\nno, it was",
		"declined,context.Canceled,declined\n", ",\n", "\n", "%2\n", origin, origin + "\n", origin + ",declined\nx", origin + "declined\nx",
		"=1\n", "=1,declined\nx", "=255\nx", origin + "=4,declined\nx", "=\n", "=-1\n", "@",
	} {
		for _, value := range []string{"", "null", `{"Text":"\ud800"}`, `{"Text":"é","Lines":{"":null},"Bytes":"AA==","Next":{}}`, "{\"Text\":\"\xff\"}", text} {
			f.Add(text, []byte(value), []byte(text), byte(i))
			f.Add("ann/5", []byte(value), []byte(text), byte(1)<<(i%6))
			f.Add("5", []byte(value), []byte(text), byte(0))
		}
	}
	f.Fuzz(func(t *testing.T, text string, value, stored []byte, kind byte) {
		structs, texts := writer[idemflight.Key, receipt]{t}, writer[int16, []byte]{t}
		for _, s := range []idemflight.Settlement{
			{Disposition: idemflight.Retain, Value: value, Err: stored, TTL: time.Hour},
			{Disposition: idemflight.Retain, Value: value, TTL: time.Hour},
			{Disposition: idemflight.Hold, Err: stored, TTL: time.Hour},
		} {
			structs.reads(text, s)
			texts.reads(text, s)
		}

		key := idemflight.Key{Scope: text, ID: string(stored)}
		e := idemflight.Entry[receipt]{
			State: idemflight.Retained, ExpiresAt: time.Now().Add(time.Hour), Err: failure(string(stored), kind),
			Value: receipt{text, map[string][]string{text: {string(value)}}, bytes.Clone(value), &receipt{Text: text}},
		}
		again, _, err := structs.carried(key, e)
		switch {
		case key.Scope == "" || key.ID == "":
			require.ErrorIs(t, err, idemflight.ErrInvalidKey)
		case !utf8.ValidString(text) || !utf8.Valid(value):
			require.ErrorContains(t, err, "not UTF-8")
		default:
			require.NoError(t, err)
			structs.requireSame(e, again)
		}
	})
}
