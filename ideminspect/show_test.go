package ideminspect_test

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/ideminspect"
)

// TestKeysAreMasked: unless View.Key says otherwise, a page shows the scope and at most four characters, and a
// third, of the rest; in HTML, in JSON, on pages about one key.
func TestKeysAreMasked(t *testing.T) {
	s := newSite(t, options{}, view{Value: full.Value, ParseValue: full.ParseValue})
	other := key{Scope: "ann", ID: ann.ID[:8] + "-another-one"}
	for _, k := range []key{ann, other, {Scope: "ben", ID: "123456"}, {Scope: "ben", ID: "12"}} {
		hold(t, s.cache, k, errBank)
	}
	var keys, tags []string
	for _, e := range s.list().Unsettled {
		keys, tags = append(keys, e.Key), append(tags, e.Tag)
	}
	require.Equal(t, []string{"ann/5f0c…", "ann/5f0c…", "ben/12…", "ben/…"}, keys)
	require.NotEqual(t, tags[0], tags[1], "tags tell keys apart")
	e := s.find(ann)
	require.Equal(t, tags[0], e.Tag, "a key has one tag")
	for _, query := range []string{"", "format=json", "entry=" + e.Entry, "entry=" + e.Entry + "&ask=forget"} {
		require.NotContains(t, get(s.page, query).Body, ann.ID[:5], query)
	}
	a := s.act("refused", e, "no")
	require.Equal(t, http.StatusOK, a.Status)
	require.NotContains(t, a.Body, ann.ID[:5])
	require.NotContains(t, fmt.Sprint(s.log.take(t)), ann.ID[:5], "the log")

	unmasked := newSite(t, options{}, full)
	hold(t, unmasked.cache, ann, errBank)
	require.Contains(t, get(unmasked.page, "").Body, ann.ID)
	unmasked.act("refused", unmasked.find(ann), "no")
	require.NotContains(t, fmt.Sprint(unmasked.log.take(t)), ann.ID[:5], "the log has no more than that, whatever the page shows")
}

func TestKeysOfOtherTypesAreMasked(t *testing.T) {
	p, err := ideminspect.New(ideminspect.Options{})
	require.NoError(t, err)
	strs, nums := idemflight.MustNew(idemflight.Options[string, int]{}), idemflight.MustNew(idemflight.Options[int, int]{})
	ideminspect.Add(p, "strings", strs, ideminspect.View[string, int]{})
	ideminspect.Add(p, "numbers", nums, ideminspect.View[int, int]{ParseKey: func(s string) (n int, err error) {
		_, err = fmt.Sscanf(s, "order %d", &n)
		return n, err
	}})
	require.NoError(t, strs.Restore(t.Context(), "secret-token-of-ann", idemflight.Entry[int]{State: idemflight.Held}))
	require.NoError(t, nums.Restore(t.Context(), 471_108_154, idemflight.Entry[int]{State: idemflight.Held}))
	require.Equal(t, "secr…", get(p, "cache=strings&format=json").shown(t).Unsettled[0].Key)
	require.Equal(t, "471…", get(p, "cache=numbers&format=json").shown(t).Unsettled[0].Key)

	require.NotNil(t, do(p, form("format=json", "cache", "strings", "do", "find", "key", "secret-token-of-ann")).shown(t).Entry)
	require.NotNil(t, do(p, form("format=json", "cache", "numbers", "do", "find", "key", "order 471108154")).shown(t).Entry)
	a := do(p, form("", "cache", "numbers", "do", "find", "key", "4711"))
	require.Equal(t, http.StatusBadRequest, a.Status, "ParseKey's error")
}

// TestLookUp: of a Key as String writes it, or as it is.
func TestLookUp(t *testing.T) {
	s := newSite(t, options{}, view{})
	k := key{Scope: "ann@example.com", ID: "order 7/a"}
	settle(t, s.cache, k, "receipt")
	for _, text := range []string{k.String(), "ann@example.com/order 7/a"} {
		e := do(s.page, form("format=json", "do", "find", "key", text)).shown(t).Entry
		require.NotNil(t, e, text)
		require.Equal(t, idemflight.Retained, e.State)
	}
	for _, text := range []string{"", "ann", "/7", "ann/"} {
		a := do(s.page, form("", "do", "find", "key", text))
		require.Equal(t, http.StatusBadRequest, a.Status, "%q", text)
		require.Contains(t, a.Body, "not the text of a Key")
	}
	a := do(s.page, form("", "do", "find", "key", "ann/other"))
	require.Equal(t, http.StatusOK, a.Status)
	require.Contains(t, a.Body, "Nothing is known of this key")
	require.Zero(t, s.cache.Stats().Replayed, "a look-up is no call")
}

// TestValuesAreHidden unless View.Value shows them.
func TestValuesAreHidden(t *testing.T) {
	for _, v := range []view{{}, full} {
		s := newSite(t, options{}, v)
		settle(t, s.cache, ann, "a secret receipt")
		e := s.find(ann)
		if v.Value == nil {
			require.Nil(t, e.Value)
			require.NotContains(t, get(s.page, "entry="+e.Entry).Body, "secret")
		} else {
			require.Equal(t, "a secret receipt", *e.Value)
			require.Contains(t, get(s.page, "entry="+e.Entry).Body, "a secret receipt")
		}
	}
}

// TestWhatIsHeld: since when, until when, why, for which payload; and how long it took.
func TestWhatIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, ttl := range []time.Duration{time.Hour, -1} {
			s := newSite(t, options{HoldTTL: ttl, TTL: time.Minute}, view{})
			fp := idemflight.FingerprintOf([]byte("19.99"))
			_, err := s.cache.Do(t.Context(), ann, func(context.Context) (string, error) {
				time.Sleep(1500 * time.Millisecond)
				return "", errBank
			}, idemflight.WithFingerprint(fp))
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			since := time.Now()
			time.Sleep(10 * time.Minute)

			e := s.list().Unsettled[0]
			require.Equal(t, idemflight.Held, e.State)
			require.True(t, e.Since.Equal(since))
			require.Equal(t, 600.0, e.Age, "durations are seconds")
			require.Equal(t, 1.5, *e.Took)
			require.Equal(t, fp.String()[:8], e.Payload)
			require.Equal(t, errBank.Error(), e.Error)
			if ttl < 0 {
				require.Nil(t, e.Left)
				require.Contains(t, get(s.page, "").Body, ">settled<")
			} else {
				require.Equal(t, 3000.0, *e.Left)
				require.True(t, e.Until.Equal(since.Add(time.Hour)))
				require.Contains(t, get(s.page, "").Body, "in 50\u00a0min\u00a000\u00a0s")
			}
			require.Contains(t, get(s.page, "").Body, "10\u00a0min\u00a000\u00a0s")
		}
	})
}

// TestFlights: how old they are and how many wait; on top if it is more than a minute.
func TestFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, options{}, view{})
		end := fly(s.cache, ann)
		for range 3 {
			go func() { _, _ = s.cache.Do(context.Background(), ann, nothing) }()
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		p := s.list()
		require.Equal(t, 60.0, p.Unsettled[0].Age)
		require.Equal(t, 3, *p.Unsettled[0].Waiters)
		require.Contains(t, get(s.page, "").Body, `<span class="cell">3</span>`)
		require.Equal(t, 3, p.Waiters)
		require.Equal(t, 1, p.InFlight)
		require.Zero(t, p.Slow, "a minute is no more than a minute")
		require.Contains(t, get(s.page, "").Body, "Nothing: no key is held")

		time.Sleep(time.Second)
		p = s.list()
		require.Equal(t, 1, p.Slow)
		require.Equal(t, 61.0, *p.OldestSlow)
		require.Equal(t, 1, p.Caches[0].Slow)
		require.NotContains(t, get(s.page, "").Body, "Nothing: no key is held")
		end()
		synctest.Wait()
	})
}

func nothing(context.Context) (string, error) { return "", nil }

// TestHostileText: keys, errors, values and names are text, whatever is in them.
func TestHostileText(t *testing.T) {
	bad := "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{.}}</title></textarea>\u202e\x00\xff`${1}\r\n" + strings.Repeat("long ", 2000)
	s := newSite(t, options{}, full)
	more := idemflight.MustNew(idemflight.Options[string, string]{})
	ideminspect.Add(s.page, bad[:80], more, ideminspect.View[string, string]{Key: func(k string) string { return k }, Value: func(v string) string { return v }})
	require.NoError(t, more.Restore(t.Context(), bad, idemflight.Entry[string]{State: idemflight.Held, Err: errors.New(bad)}))
	_, err := more.Do(t.Context(), "v", func(context.Context) (string, error) { return bad, nil })
	require.NoError(t, err)
	of := "cache=" + strings.NewReplacer("<", "%3C", " ", "+", "&", "%26", "#", "%23", "+", "%2B", ";", "%3B").Replace(bad[:80])
	held := get(s.page, of+"&format=json").shown(t).Unsettled[0]
	value := do(s.page, form("", "cache", bad[:80], "do", "find", "key", "v")).Body
	for name, body := range map[string]string{
		"list": get(s.page, of).Body, "entry": get(s.page, of+"&entry="+held.Entry).Body, "value": value,
		"ask": get(s.page, of+"&entry="+held.Entry+"&ask=refused").Body,
	} {
		require.Contains(t, body, html.EscapeString("<script>alert(1)</script>"), name)
		for _, raw := range []string{"<script>alert", "<img", "</textarea>\\", "\u202e", "\x00", "\xff", "\r"} {
			require.NotContains(t, body, raw, "%s has %q", name, raw)
		}
		require.Contains(t, body, `\u202e\x00\xff`, name)
		require.Less(t, strings.Count(body, "long"), 2*800+2*40, "%s is cut", name)
	}
}

// panics has methods and functions that panic: a page is to be there all the same.
type panics struct{}

func (panics) Error() string { panic("no text") }

func TestPanicsAreShown(t *testing.T) {
	s := newSite(t, options{}, view{
		Key:   func(key) string { panic("no key") },
		Value: func(string) string { panic("no value") },
	})
	require.NoError(t, s.cache.Restore(t.Context(), ann, idemflight.Entry[string]{State: idemflight.Held, Err: panics{}}))
	settle(t, s.cache, ben, "x")
	e := s.list().Unsettled[0]
	require.Equal(t, "(View.Key panicked: no key)", e.Key)
	require.Contains(t, e.Error, "no text")
	require.Equal(t, "(View.Value panicked: no value)", *s.find(ben).Value)
}
