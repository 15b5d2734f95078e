package ideminspect

import (
	"math"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second:                    "0 ms",
		0:                               "0 ms",
		999 * time.Millisecond:          "999 ms",
		time.Second:                     "1.0 s",
		9999 * time.Millisecond:         "9.9 s",
		59*time.Second + 999999999:      "59 s",
		time.Minute:                     "1 min 00 s",
		59*time.Minute + 59*time.Second: "59 min 59 s",
		time.Hour:                       "1 h 00 min",
		24*time.Hour - 1:                "23 h 59 min",
		24 * time.Hour:                  "1 d 0 h",
		1000*time.Hour + time.Minute:    "41 d 16 h",
		math.MaxInt64:                   "106751 d 23 h",
	} {
		require.Equal(t, strings.ReplaceAll(want, " ", space), age(d), "%d", d)
	}
}

func TestNumber(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1_000", 1_048_576: "1_048_576", -100: "-100", -1000: "-1_000"} {
		require.Equal(t, strings.ReplaceAll(want, "_", "\u202f"), number(n))
	}
	for f, want := range map[float64]string{0: "0", 0.001: "<" + space + "0.01", 0.5: "0.50", 9.99: "9.99", 12.6: "13", 12345: "12\u202f345"} {
		require.Equal(t, want, rate(f))
	}
}

func TestClean(t *testing.T) {
	for s, want := range map[string]string{
		"plain äß 日本 😀": "plain äß 日本 😀", "a\nb": "a\nb", "a\tb\x00\x1b[31m": `a\tb\x00\x1b[31m`, "\u202e\u2066\ufeff": `\u202e\u2066\ufeff`,
		"\xff\xc3": `\xff\xc3`, "0123456789abcdefghijXYZ": "0123456789abcdefghij…",
	} {
		require.Equal(t, want, clean(s, 20))
	}
	require.Equal(t, "…", mask("ab"))
	require.Equal(t, "ab…", mask("abcdef"))
	require.Equal(t, "日本日本…", mask(strings.Repeat("日本", 50)))
}

// TestVersion: the same entry seen again, as the clock is put right, and others.
func TestVersion(t *testing.T) {
	at := time.Now()
	e := idemflight.Entry[int]{State: idemflight.Held, CompletedAt: at, StartedAt: at.Add(-time.Second), ExpiresAt: at.Add(time.Hour)}
	seen := version(e)
	again := func(change func(*idemflight.Entry[int])) bool {
		e := e
		change(&e)
		return sameVersion(seen, version(e)) && sameVersion(version(e), seen)
	}
	require.True(t, again(func(e *idemflight.Entry[int]) { e.ExpiresAt = at.Add(2 * time.Hour) }), "a Reconcile that learned nothing")
	require.True(t, again(func(e *idemflight.Entry[int]) { e.CompletedAt = at.Add(3 * time.Millisecond) }), "the clock is put right")
	require.True(t, again(func(e *idemflight.Entry[int]) { e.CompletedAt = at.Add(-clockError) }))
	require.False(t, again(func(e *idemflight.Entry[int]) { e.CompletedAt = at.Add(clockError + 1) }), "held anew")
	require.False(t, again(func(e *idemflight.Entry[int]) { e.State = idemflight.Retained }))
	require.False(t, again(func(e *idemflight.Entry[int]) { e.Fingerprint[0] = 1 }))
	require.False(t, again(func(e *idemflight.Entry[int]) { e.Err = idemflight.ErrInterrupted }))
	for _, other := range []string{"", "-", seen[:5], seen + "0", "x" + seen, seen[strings.IndexByte(seen, '-'):]} {
		require.False(t, sameVersion(other, seen), "%q", other)
	}
	require.False(t, sameVersion("", ""), "no version is none")
}

// TestNames: a name stays while its key is shown now and then, and not many more are known than are shown.
func TestNames(t *testing.T) {
	var names ids[int]
	first := names.of(-1)
	require.Len(t, first, 26)
	for i := range 10 * maxNames {
		names.of(i)
		if i%1000 == 0 {
			require.Equal(t, first, names.of(-1))
		}
	}
	key, ok := names.key(first)
	require.True(t, ok)
	require.Equal(t, -1, key)
	_, ok = names.key("unheard")
	require.False(t, ok)
	require.LessOrEqual(t, len(names.young.of)+len(names.old.of), 2*maxNames)
	require.Len(t, names.young.named, len(names.young.of))
}

// TestOrigin: a link if there is an address for it, otherwise the ID, and never a link that runs something.
func TestOrigin(t *testing.T) {
	origin := idemflight.Origin{TraceID: [16]byte{1, 2, 3}, SpanID: [8]byte{4}}
	const id = "01020300000000000000000000000000"
	for address, link := range map[string]string{
		"https://traces.example/?a=1&b=2": `href="https://traces.example/?a=1&amp;b=2"`,
		"":                                "", "javascript:alert(1)": "", "JAVASCRIPT:alert(1)": "", "data:text/html,x": "", "//elsewhere": "",
	} {
		v := &view[string, int]{v: View[string, int]{TraceURL: func(o idemflight.Origin) string {
			require.Equal(t, origin, o)
			return address
		}}}
		r := v.row("key", idemflight.Entry[int]{State: idemflight.Held, Origin: &origin})
		require.Equal(t, id, r.Trace)
		w := httptest.NewRecorder()
		(&answer{status: 200, Entry: &r}).write(w, false)
		require.Contains(t, w.Body.String(), id)
		require.NotContains(t, strings.ToLower(w.Body.String()), "javascript:")
		if link == "" {
			require.Empty(t, r.Link)
			require.NotContains(t, w.Body.String(), "noreferrer")
		} else {
			require.Contains(t, w.Body.String(), link)
		}
	}
	v := &view[string, int]{}
	require.Equal(t, id, v.row("key", idemflight.Entry[int]{Origin: &origin}).Trace, "without TraceURL")
	require.Empty(t, v.row("key", idemflight.Entry[int]{Origin: &idemflight.Origin{}}).Trace, "not traced")
}
