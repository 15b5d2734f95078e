package ideminspect_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/ideminspect"
	"github.com/idemflight/idemflight/storetest"
)

var errNever = errors.New("the bank has no such booking")

// reconcile knows of ann's payment that it took place, and of ben's that it did not.
func reconcile(_ context.Context, k key, _ idemflight.Entry[string]) (string, error) {
	switch k {
	case ann:
		return "receipt 7", nil
	case ben:
		return "", idemflight.Retryable(errNever)
	}
	return "", errors.New("the bank is down")
}

// withAndWithoutStore runs a test for both kinds of caches.
func withAndWithoutStore(t *testing.T, test func(t *testing.T, opts options)) {
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, options{Reconcile: reconcile}) })
	})
	t.Run("store", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, options{Reconcile: reconcile, Store: storetest.Mem()}) })
	})
}

// TestActions: what each does, and that it is logged with who.
func TestActions(t *testing.T) {
	withAndWithoutStore(t, func(t *testing.T, opts options) {
		eve := key{Scope: "eve", ID: "3f2e1d0c-9b8a"}
		for _, tc := range []struct {
			do      string
			key     key
			text    string
			becomes idemflight.State
			value   string
			err     string
			says    string
		}{
			{do: "ask-again", key: ann, becomes: idemflight.Retained, value: "receipt 7", says: "Done, and logged."},
			{do: "ask-again", key: ben, becomes: idemflight.Absent, says: "Done, and logged: nothing is kept"},
			{do: "ask-again", key: eve, becomes: idemflight.Held, err: errBank.Error(), says: "learned nothing; the key stays held"},
			{do: "took-place", key: eve, text: "receipt 8", becomes: idemflight.Retained, value: "receipt 8", says: "Done"},
			{do: "refused", key: eve, text: "no such account", becomes: idemflight.Retained, err: "no such account", says: "Done"},
			{do: "did-not", key: eve, becomes: idemflight.Absent, says: "nothing is kept"},
			{do: "forget", key: eve, becomes: idemflight.Absent, says: "nothing is kept"},
		} {
			s := newSite(t, opts, full)
			hold(t, s.cache, tc.key, errBank)
			e := s.find(tc.key)
			a := s.act(tc.do, e, tc.text)
			require.Equal(t, http.StatusOK, a.Status, "%s of %v: %s", tc.do, tc.key, a.Body)
			require.Contains(t, a.shown(t).Message, tc.says)
			is, _, err := s.cache.Lookup(t.Context(), tc.key)
			require.NoError(t, err)
			require.Equal(t, tc.becomes, is.State, "%s of %v", tc.do, tc.key)
			require.Equal(t, tc.value, is.Value)
			if tc.err == "" {
				require.NoError(t, is.Err)
			} else {
				require.EqualError(t, is.Err, tc.err)
			}
			if tc.becomes == idemflight.Absent {
				require.Nil(t, a.shown(t).Entry)
			} else {
				require.Equal(t, tc.becomes, a.shown(t).Entry.State, "the answer shows the entry as it is now")
			}
			log := s.log.take(t)
			require.Len(t, log, 1)
			require.Equal(t, "ideminspect: done", log[0]["msg"])
			require.Equal(t, "INFO", log[0]["level"])
			require.Equal(t, "nora", log[0]["by"])
			require.Equal(t, tc.do, log[0]["action"])
			require.Equal(t, "payments", log[0]["cache"])
			require.Equal(t, e.Tag, log[0]["tag"])
			require.Equal(t, tc.key.Scope+"/"+tc.key.ID[:4]+"…", log[0]["key"])
			_, _ = s.cache.Forget(t.Context(), tc.key)
		}
	})
}

// TestOnlyWhatWasSeen: an entry that has changed since is left alone: 409, and logged.
func TestOnlyWhatWasSeen(t *testing.T) {
	withAndWithoutStore(t, func(t *testing.T, opts options) {
		for name, change := range map[string]func(s *site){
			"settled": func(s *site) { require.NoError(t, s.cache.Resolve(t.Context(), ann, "elsewhere", nil)) },
			"held anew": func(s *site) {
				require.NoError(t, s.cache.Resolve(t.Context(), ann, "", idemflight.Retryable(errNever)))
				time.Sleep(time.Second)
				hold(t, s.cache, ann, errBank)
			},
			"forgotten": func(s *site) { _, _ = s.cache.Forget(t.Context(), ann) },
		} {
			for _, what := range []string{"ask-again", "took-place", "refused", "did-not", "forget"} {
				s := newSite(t, opts, full)
				hold(t, s.cache, ann, errBank)
				e := s.find(ann)
				change(s)
				before, _, _ := s.cache.Lookup(t.Context(), ann)
				a := s.act(what, e, "text")
				require.Equal(t, http.StatusConflict, a.Status, "%s of what was %s: %s", what, name, a.Body)
				after, _, _ := s.cache.Lookup(t.Context(), ann)
				require.Equal(t, before.State, after.State, "%s of what was %s", what, name)
				require.Equal(t, before.Value, after.Value)
				log := s.log.take(t)
				require.Len(t, log, 1)
				require.Equal(t, "WARN", log[0]["level"])
				require.Equal(t, "ideminspect: not done", log[0]["msg"])
				require.Equal(t, "nora", log[0]["by"])
				_, _ = s.cache.Forget(t.Context(), ann)
			}
		}
	})
}

// TestGoneWhileActing: an entry that goes between the look and the act was not forgotten by who asked for it.
func TestGoneWhileActing(t *testing.T) {
	v, elsewhere := full, func() {}
	v.Key = func(k key) string { elsewhere(); return k.String() }
	s := newSite(t, options{}, v)
	hold(t, s.cache, ann, errBank)
	e := s.find(ann)
	elsewhere = func() { _, _ = s.cache.Forget(t.Context(), ann) } // while the page looks
	a := s.act("forget", e, "")
	require.Equal(t, http.StatusConflict, a.Status, a.Body)
	require.Equal(t, "ideminspect: not done", s.log.take(t)[0]["msg"])
}

// TestNoVersion: without one, or with an entry that this page has not shown, nothing is done.
func TestNoVersion(t *testing.T) {
	s := newSite(t, options{}, full)
	hold(t, s.cache, ann, errBank)
	e := s.find(ann)
	for _, r := range []*http.Request{
		form("", "do", "forget", "entry", e.Entry),
		form("", "do", "forget", "entry", e.Entry, "version", "0-0"),
		form("", "do", "forget", "version", e.Version),
		form("", "do", "forget", "entry", "UNHEARD", "version", e.Version),
	} {
		require.Equal(t, http.StatusConflict, do(s.page, r).Status)
	}
	require.Equal(t, idemflight.Held, s.state(ann))
}

// TestHeldOnly: what is not held cannot be settled; but it can be forgotten.
func TestHeldOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, options{Reconcile: reconcile}, full)
		settle(t, s.cache, ann, "receipt")
		end := fly(s.cache, ben)
		for _, k := range []key{ann, ben} {
			e := s.find(k)
			for _, what := range []string{"ask-again", "took-place", "refused", "did-not"} {
				require.Equal(t, http.StatusConflict, s.act(what, e, "text").Status, what)
				require.Equal(t, http.StatusConflict, get(s.page, "entry="+e.Entry+"&ask="+what).Status, what)
			}
			require.Contains(t, get(s.page, "entry="+e.Entry+"&ask=forget").Body, "runs the operation again")
		}
		require.Equal(t, idemflight.Retained, s.state(ann))
		require.Equal(t, http.StatusOK, s.act("forget", s.find(ann), "").Status)
		require.Equal(t, http.StatusOK, s.act("forget", s.find(ben), "").Status)
		end()
		synctest.Wait()
		require.Zero(t, s.cache.Len(), "both are forgotten, that in flight at its end")
	})
}

// TestAsks: each action has a page that says what comes of it, who will have done it, and what it wants.
func TestAsks(t *testing.T) {
	s := newSite(t, options{Reconcile: reconcile}, full)
	hold(t, s.cache, ann, errBank)
	e := s.find(ann)
	for _, what := range []string{"ask-again", "took-place", "refused", "did-not", "forget"} {
		r := form("entry=" + e.Entry + "&ask=" + what)
		r.Method = http.MethodGet
		body := do(s.page, r).Body
		require.Contains(t, body, `name="version" value="`+e.Version+`"`)
		require.Contains(t, body, "Logged as done by nora.")
		require.Contains(t, body, errBank.Error(), "the entry is to be seen")
		require.Equal(t, what == "did-not" || what == "forget", strings.Contains(body, "twice"), "%s: what may come of it", what)
		require.Equal(t, what == "took-place" || what == "refused", strings.Contains(body, "<textarea"), what)
		require.Equal(t, what == "did-not" || what == "forget", strings.Contains(body, `class="risky"`), what)
		r.Header.Del("X-User")
		require.Equal(t, http.StatusForbidden, do(s.page, r).Status, "nobody could do it")
	}
	require.Empty(t, s.log.take(t), "nothing was done")
}

// TestOffersWhatIsThere: no Reconcile, no Ask again; no ParseValue, no It took place; neither as a route.
func TestOffersWhatIsThere(t *testing.T) {
	s := newSite(t, options{}, view{})
	hold(t, s.cache, ann, errBank)
	body, e := get(s.page, "").Body, s.find(ann)
	for what, status := range map[string]int{"ask-again": 404, "took-place": 404, "explode": 404} {
		require.NotContains(t, body, "ask="+what)
		require.Equal(t, status, get(s.page, "entry="+e.Entry+"&ask="+what).Status, what)
		require.Equal(t, status, s.act(what, e, "text").Status, what)
	}
	require.Contains(t, body, "ask=did-not")
	require.Equal(t, idemflight.Held, s.state(ann))
}

// TestWhoActs: nobody is 403, and logged, with why; nothing is done.
func TestWhoActs(t *testing.T) {
	for name, actor := range map[string]func(*http.Request) (string, error){
		"an error": func(*http.Request) (string, error) { return "eve", errors.New("signed out") },
		"nobody":   func(*http.Request) (string, error) { return "", nil },
	} {
		s := newSite(t, options{}, full)
		hold(t, s.cache, ann, errBank)
		page, log := withActor(t, s.cache, actor)
		e := do(page, form("format=json", "do", "find", "key", ann.String())).shown(t).Entry
		a := do(page, form("", "do", "did-not", "entry", e.Entry, "version", e.Version))
		require.Equal(t, http.StatusForbidden, a.Status, name)
		require.NotContains(t, a.Body, "signed out", "that is for the log")
		require.Equal(t, idemflight.Held, s.state(ann))
		lines := log.take(t)
		require.Len(t, lines, 1)
		require.Equal(t, "WARN", lines[0]["level"])
		require.NotEmpty(t, lines[0]["err"])
	}
}

// TestMistakes of the operator are 400: nothing is done.
func TestMistakes(t *testing.T) {
	s := newSite(t, options{}, full)
	hold(t, s.cache, ann, errBank)
	e := s.find(ann)
	a := s.act("took-place", e, "")
	require.Equal(t, http.StatusBadRequest, a.Status)
	require.Contains(t, a.Body, "a receipt has a number", "ParseValue's error")
	for _, text := range []string{"", " \n"} {
		require.Equal(t, http.StatusBadRequest, s.act("refused", e, text).Status, "an empty error")
	}
	require.Equal(t, idemflight.Held, s.state(ann))
	require.Len(t, s.log.take(t), 3)
}

// TestReconcileThatHangs does not hang the page: after 20 s, or when the request ends, it goes on without it.
func TestReconcileThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		s := newSite(t, options{ExecTimeout: -1, Reconcile: func(context.Context, key, idemflight.Entry[string]) (string, error) {
			<-answer
			return "receipt 9", nil
		}}, full)
		hold(t, s.cache, ann, errBank)
		e := s.find(ann)
		start := time.Now()
		a := s.act("ask-again", e, "")
		require.Equal(t, http.StatusAccepted, a.Status)
		require.Contains(t, a.Body, "has not answered yet; it goes on")
		require.Equal(t, 20*time.Second, time.Since(start))
		require.Equal(t, idemflight.InFlight, a.shown(t).Entry.State)
		require.Equal(t, "ideminspect: done", s.log.take(t)[0]["msg"], "it was asked")
		require.Equal(t, 1, s.list().InFlight, "the page is there")

		require.Equal(t, http.StatusConflict, s.act("did-not", e, "").Status, "it is being asked about")
		close(answer)
		synctest.Wait()
		require.Equal(t, idemflight.Retained, s.state(ann))

		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		answer = make(chan struct{})
		hold(t, s.cache, ben, errBank)
		e = s.find(ben)
		start = time.Now()
		do(s.page, form("", "do", "ask-again", "entry", e.Entry, "version", e.Version).WithContext(ctx))
		require.Equal(t, 3*time.Second, time.Since(start))
		close(answer)
	})
}

// TestTwoOperators: of two who saw the same, one acts.
func TestTwoOperators(t *testing.T) {
	s := newSite(t, options{}, full)
	for range 50 {
		hold(t, s.cache, ann, errBank)
		e := s.find(ann)
		statuses := make(chan int, 2)
		for _, what := range []string{"refused", "took-place"} {
			go func() { statuses <- s.act(what, e, "text").Status }()
		}
		require.Equal(t, http.StatusOK+http.StatusConflict, <-statuses+<-statuses)
		_, _ = s.cache.Forget(t.Context(), ann)
	}
}

// TestObserverHearsOfIt in the context of the request.
func TestObserverHearsOfIt(t *testing.T) {
	type by struct{}
	var heard []any
	s := newSite(t, options{Observer: func(ctx context.Context, e idemflight.Event[key]) {
		if e.Kind == idemflight.EventResolved || e.Kind == idemflight.EventForgotten {
			heard = append(heard, ctx.Value(by{}), e.Kind, e.Key)
		}
	}}, full)
	hold(t, s.cache, ann, errBank)
	e := s.find(ann)
	r := form("", "do", "refused", "entry", e.Entry, "version", e.Version, "text", "no")
	do(s.page, r.WithContext(context.WithValue(r.Context(), by{}, "nora")))
	e = s.find(ann)
	r = form("", "do", "forget", "entry", e.Entry, "version", e.Version)
	do(s.page, r.WithContext(context.WithValue(r.Context(), by{}, "nora")))
	require.Equal(t, []any{"nora", idemflight.EventResolved, ann, "nora", idemflight.EventForgotten, ann}, heard)
}

// TestClosed: a closed cache can still be settled, and says why it does not ask.
func TestClosed(t *testing.T) {
	s := newSite(t, options{Reconcile: reconcile}, full)
	hold(t, s.cache, ann, errBank)
	require.NoError(t, s.cache.Close(t.Context()))
	a := s.act("ask-again", s.find(ann), "")
	require.Equal(t, http.StatusServiceUnavailable, a.Status)
	require.Contains(t, a.Body, "cache is closed")
	require.Equal(t, http.StatusOK, s.act("refused", s.find(ann), "no").Status)
}

func withActor(t *testing.T, c *cache, actor func(*http.Request) (string, error)) (*ideminspect.Page, *logged) {
	log := &logged{}
	page, err := ideminspect.New(ideminspect.Options{Write: true, Actor: actor, Logger: newLogger(log)})
	require.NoError(t, err)
	ideminspect.Add(page, "payments", c, full)
	return page, log
}
