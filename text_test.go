package idemflight_test

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// checkTexts requires that the numbers from 0 up have these texts, in every form, and no others have any.
func checkTexts[T interface {
	~int
	fmt.Stringer
	encoding.TextMarshaler
}, P interface {
	*T
	encoding.TextUnmarshaler
}](t *testing.T, name string, texts ...string) {
	t.Run(name, func(t *testing.T) {
		for i, text := range texts {
			require.Equal(t, text, T(i).String())
			marshaled, err := T(i).MarshalText()
			require.NoError(t, err)
			require.Equal(t, text, string(marshaled))
			read := T(-1)
			require.NoError(t, P(&read).UnmarshalText([]byte(text)))
			require.Equal(t, T(i), read)

			asJSON, err := json.Marshal(map[string]T{"is": T(i)})
			require.NoError(t, err)
			require.JSONEq(t, `{"is":"`+text+`"}`, string(asJSON))
		}
		for _, unknown := range []T{-1, T(len(texts)), 1 << 30} {
			require.Contains(t, unknown.String(), fmt.Sprintf("%d", int(unknown)), "String has something to say for any number")
			_, err := unknown.MarshalText()
			require.ErrorContains(t, err, fmt.Sprintf("idemflight.%s(%d)", name, int(unknown)), "MarshalText has not")
		}
		for _, unknown := range []string{"", "0", "1", " " + texts[1], texts[1] + "\n", strings.ToUpper(texts[1]), texts[1][1:], T(-1).String()} {
			read := T(1)
			require.ErrorContains(t, P(&read).UnmarshalText([]byte(unknown)), "idemflight."+name, "%q", unknown)
			require.Equal(t, T(1), read, "%q changes nothing", unknown)
		}
	})
}

// The texts are in logs, metrics and files: they never change, nor do the numbers.
func TestTexts_OfTheSmallIntegersAreStrict(t *testing.T) {
	checkTexts[idemflight.Disposition](t, "Disposition", "release", "retain", "hold")
	checkTexts[idemflight.Source](t, "Source", "none", "executed", "joined", "replayed", "reconciled")
	checkTexts[idemflight.State](t, "State", "absent", "in_flight", "retained", "held", "shed")
	checkTexts[idemflight.EventKind](t, "EventKind", "executed", "joined", "replayed", "reconciled", "rejected", "caller_left",
		"finished", "evicted", "expired", "shed", "panicked", "forgotten", "resolved", "store", "unannounced")
}

func TestFingerprint_Text(t *testing.T) {
	fp := idemflight.Fingerprint{0: 0xab, 15: 1}
	const text = "ab000000000000000000000000000001"
	for _, tt := range []struct {
		fp   idemflight.Fingerprint
		text string
	}{{fp, text}, {idemflight.Fingerprint{}, ""}} {
		require.Equal(t, tt.text, tt.fp.String())
		marshaled, err := tt.fp.MarshalText()
		require.NoError(t, err)
		require.Equal(t, tt.text, string(marshaled))
		read := idemflight.Fingerprint{7}
		require.NoError(t, read.UnmarshalText([]byte(tt.text)))
		require.Equal(t, tt.fp, read)
	}
	asJSON, err := json.Marshal(idemflight.Entry[int]{State: idemflight.Held, Fingerprint: fp})
	require.NoError(t, err)
	require.Contains(t, string(asJSON), `"State":"held"`)
	require.Contains(t, string(asJSON), `"Fingerprint":"`+text+`"`)

	for _, wrong := range []string{"a", text[1:], text + "0", strings.ToUpper(text), strings.Repeat("0", 32), "x" + text[1:], text[:31] + " ", "0x" + text[2:]} {
		read := fp
		require.ErrorContains(t, read.UnmarshalText([]byte(wrong)), "idemflight: a Fingerprint is 32 hex digits", "%q", wrong)
		require.Equal(t, fp, read, "%q changes nothing", wrong)
	}
}

func TestKey_Text(t *testing.T) {
	for text, key := range map[string]idemflight.Key{
		"acct_7/9f2c-4.A~":      {Scope: "acct_7", ID: "9f2c-4.A~"},
		"a%2Fb/c%25d":           {Scope: "a/b", ID: "c%d"},
		"%20/%0A%00":            {Scope: " ", ID: "\n\x00"},
		"J%C3%BCrgen/%FF%3A%2B": {Scope: "Jürgen", ID: "\xff:+"},
	} {
		require.Equal(t, text, key.String())
		read, err := idemflight.ParseKey(text)
		require.NoError(t, err)
		require.Equal(t, key, read)
	}
	require.Equal(t, "/a", idemflight.Key{ID: "a"}.String())
	require.Equal(t, "/", idemflight.Key{}.String())
	require.Equal(t, "a/b", fmt.Sprint(idemflight.Key{Scope: "a", ID: "b"}))
}

// One Key has one text: what String would not have written is refused, with a word about what is wrong.
func TestParseKey_IsStrict(t *testing.T) {
	for text, why := range map[string]string{
		"":        "no / between scope and ID",
		"scope":   "no / between scope and ID",
		"/":       "no scope before the /",
		"/id":     "no scope before the /",
		"scope/":  "no ID after the /",
		"a/b/c":   "in the ID, byte 1 must be written as %2F",
		"a b/c":   "in the scope, byte 1 must be written as %20",
		"a/ü":     "in the ID, byte 0 must be written as %C3",
		"a/%2f":   "in the ID, the % at byte 0 needs two digits of 0–9 A–F",
		"a/%":     "needs two digits",
		"a/b%2":   "in the ID, the % at byte 1 needs two digits",
		"a/%GG":   "needs two digits",
		"a/%41":   `in the ID, the escape at byte 0 stands for "A", which needs none`,
		"a/b\n":   "in the ID, byte 1 must be written as %0A",
		"%2Fa":    "no / between",
		"a/+":     "must be written as %2B",
		"a/b%00%": "the % at byte 4 needs",
	} {
		key, err := idemflight.ParseKey(text)
		require.ErrorIs(t, err, idemflight.ErrInvalidKey, "%q", text)
		require.ErrorContains(t, err, "idemflight: not the text of a Key: ")
		require.ErrorContains(t, err, why, "%q", text)
		require.Zero(t, key, "%q", text)
	}
}

// FuzzKey_Text: what String writes, ParseKey reads, and what it reads, String would write.
func FuzzKey_Text(f *testing.F) {
	for _, s := range []string{"", "a", "a/b", "%", "%2F", "%2f/%41", "Jürgen/\xff\x00", "a%2Fb/c", "/a", "a/"} {
		f.Add(s, "id", s)
		f.Add("scope", s, s+"/"+s)
	}
	f.Fuzz(func(t *testing.T, scope, id, text string) {
		key := idemflight.Key{Scope: scope, ID: id}
		read, err := idemflight.ParseKey(key.String())
		if scope == "" || id == "" {
			require.ErrorIs(t, err, idemflight.ErrInvalidKey)
		} else {
			require.NoError(t, err)
			require.Equal(t, key, read)
		}
		if read, err := idemflight.ParseKey(text); err == nil {
			require.Equal(t, text, read.String())
		} else {
			require.ErrorIs(t, err, idemflight.ErrInvalidKey)
		}
	})
}

func TestKey_IsLoggedAsAGroup(t *testing.T) {
	var out bytes.Buffer
	type order struct {
		idemflight.Key
		Number int
	}
	l := slog.New(slog.NewJSONHandler(&out, nil))
	l.Info("m", "key", idemflight.Key{Scope: "s p", ID: "i"})
	require.Contains(t, out.String(), `"key":{"scope":"s p","id":"i"}`)

	_, marshals := any(idemflight.Key{}).(encoding.TextMarshaler)
	require.False(t, marshals, "a type that embeds Key would inherit it")
	asJSON, err := json.Marshal(order{idemflight.Key{Scope: "s", ID: "i"}, 7})
	require.NoError(t, err)
	require.JSONEq(t, `{"Scope":"s","ID":"i","Number":7}`, string(asJSON), "an embedded Key does not hide its neighbours")
}
