package ideminspect

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"

	"github.com/idemflight/idemflight"
)

// What an operator can do, by the name that forms have for it.
const (
	askAgain  = "ask-again"
	tookPlace = "took-place"
	refused   = "refused"
	didNot    = "did-not"
	forget    = "forget"
)

// action is something that an operator can do.
type action struct {
	Do    string `json:"do"`
	Name  string `json:"name"`
	Means string `json:"means"` // what comes of it
	Wants string `json:"wants,omitempty"`
	Risky bool   `json:"risky"` // an effect may take place twice
	any   bool   // not of held keys alone
}

var actions = []action{
	{Do: askAgain, Name: "Ask again",
		Means: "The cache’s Reconcile is asked now. If it finds the answer, callers get that from now on. If it finds that there was certainly no effect, the next call runs the operation."},
	{Do: tookPlace, Name: "It took place", Wants: "The value that callers get",
		Means: "Each call with this key gets the value that you give, and the operation does not run again."},
	{Do: refused, Name: "Refused for good", Wants: "The error that callers get",
		Means: "Each call with this key gets the error that you give, and the operation does not run again."},
	{Do: didNot, Name: "It certainly did not", Risky: true,
		Means: "The next call with this key runs the operation. If the effect took place after all, it takes place twice: look where it would show first, in the books of the bank, say."},
	{Do: forget, Name: "Forget", Risky: true, any: true},
}

// forgetMeans is what comes of Forget.
var forgetMeans = map[idemflight.State]string{
	idemflight.InFlight: "The execution goes on, and its callers get its outcome. That is then not kept, unless it is unknown: the next call runs the operation again.",
	idemflight.Retained: "The next call with this key runs the operation again, although it has run.",
	idemflight.Held:     "The next call with this key runs the operation, although nobody found out whether it took place: it may take place twice.",
	idemflight.Shed:     "The next call with this key runs the operation again, although it has run.",
}

// offered returns what an operator can do about r.
func (p *Page) offered(c *shown, r *entryRow) (can []action) {
	for _, a := range actions {
		if !p.opts.Write || !c.entries.offers(a.Do) || !a.any && r.State != idemflight.Held {
			continue
		}
		if a.Do == forget {
			a.Means = forgetMeans[r.State]
		}
		can = append(can, a)
	}
	return can
}

// exists reports whether a cache's entries can have that action.
func (p *Page) exists(c *shown, do string) bool {
	for _, a := range actions {
		if a.Do == do {
			return p.opts.Write && c.entries.offers(do)
		}
	}
	return false
}

// errChanged: the entry is not what the operator saw.
var errChanged = errors.New("the entry has changed meanwhile")

const (
	gone    = "This entry is not there any more, or this process has been restarted since. Look the key up."
	changed = "Nothing was done: the entry has changed since you looked at it. This is how it is now."
)

// list answers with what is unsettled.
func (p *Page) list(a *answer, r *http.Request, c *shown) {
	all := p.all()
	a.listing = list(all, looks(r.Context(), all), c, a.Now)
	for _, can := range p.offered(c, &entryRow{State: idemflight.Held}) {
		if can.Do != forget { // that is where the rest of the entry is
			a.HeldActions = append(a.HeldActions, can)
		}
	}
}

// show makes a an answer about one entry.
func (p *Page) show(a *answer, c *shown, r entryRow) {
	r = r.at(a.Now)
	a.Entry, a.Actions = &r, p.offered(c, &r)
}

// find answers a look-up.
func (p *Page) find(a *answer, r *http.Request, c *shown, text string) {
	ctx, cancel := context.WithTimeout(r.Context(), lookFor)
	defer cancel()
	row, found, err := c.entries.find(ctx, text)
	switch {
	case err != nil:
		a.failed(statusOf(err), "The key cannot be looked up: "+errorText(err))
	case !found:
		a.Message = "Nothing is known of this key: the next call with it runs the operation."
	default:
		p.show(a, c, row)
	}
}

// entry answers with an entry that has been on the page, and asks whether to act if that
// is what is asked for.
func (p *Page) entry(a *answer, r *http.Request, c *shown, ask url.Values) {
	ctx, cancel := context.WithTimeout(r.Context(), lookFor)
	defer cancel()
	row, found, err := c.entries.get(ctx, ask.Get("entry"))
	switch {
	case err != nil:
		a.failed(statusOf(err), "The entry cannot be read: "+errorText(err))
		return
	case !found:
		a.failed(http.StatusNotFound, gone)
		return
	}
	do := ask.Get("ask")
	if do != "" && !p.exists(c, do) {
		a.failed(http.StatusNotFound, "There is no such action.")
		return
	}
	p.show(a, c, row)
	if do == "" {
		return
	}
	for _, can := range a.Actions {
		if can.Do == do {
			a.Asks = &can
		}
	}
	if a.Asks == nil {
		a.failed(http.StatusConflict, "That cannot be done any more: the key is "+stateText(row.State)+".")
		return
	}
	if a.Who, err = p.opts.Actor(r); err != nil || a.Who == "" {
		a.Asks = nil
		a.failed(http.StatusForbidden, "It is not known who you are, so that you cannot act.")
	}
}

// act does what a POST asks for, if the entry is what the operator saw.
func (p *Page) act(a *answer, r *http.Request, c *shown, form url.Values) {
	do, id := form.Get("do"), form.Get("entry")
	if !p.exists(c, do) {
		a.failed(http.StatusNotFound, "There is no such action.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), actFor)
	defer cancel()
	who, err := p.opts.Actor(r)
	if err == nil && who == "" {
		err = errors.New("Options.Actor returned no name")
	}
	if err != nil {
		a.failed(http.StatusForbidden, "It is not known who you are: nothing was done.")
		p.log(r, c, id, do, who, err)
		return
	}
	err = p.actOn(ctx, c, id, do, form)
	c.stale.Store(true)
	p.log(r, c, id, do, who, err)

	row, found, lookErr := c.entries.get(ctx, id)
	if found {
		p.show(a, c, row)
	}
	a.status = statusOf(err)
	_, mistake := errors.AsType[inputError](err)
	switch {
	case mistake:
		a.Message = "Nothing was done: " + errorText(err)
	case asked(do, err) && errors.Is(err, idemflight.ErrOutcomeUnknown):
		a.Message = "Reconcile was asked and learned nothing; the key stays held: " + errorText(err)
	case asked(do, err):
		a.Message = "Reconcile was asked and has not answered yet; it goes on. Come back to this key later."
	case a.status == http.StatusConflict && !found && lookErr == nil:
		a.Message = gone
	case a.status == http.StatusConflict:
		a.Message = changed
	case err != nil:
		a.Message = "This did not succeed: " + errorText(err)
	case !found && lookErr == nil:
		a.Message = "Done, and logged: nothing is kept of this key now, and the next call with it runs the operation."
	default:
		a.Message = "Done, and logged."
	}
}

// asked reports whether Reconcile was asked although there is an error. (The error that left
// the outcome unknown is the user's and may match anything else, too: so ErrOutcomeUnknown
// is looked for first.)
func asked(do string, err error) bool {
	return do == askAgain && (errors.Is(err, idemflight.ErrOutcomeUnknown) || errors.Is(err, idemflight.ErrCallerLeft))
}

// actOn acts on the entry, unless it has changed. It may change between the look and the act; then
// Resolve and Reconcile still refuse a key that is not held.
func (p *Page) actOn(ctx context.Context, c *shown, id, do string, form url.Values) error {
	row, found, err := c.entries.get(ctx, id)
	switch {
	case err != nil:
		return err
	case !found || !sameVersion(row.Version, form.Get("version")):
		return errChanged
	}
	return c.entries.act(ctx, id, do, form.Get("text"))
}

// log tells of an attempt to act.
func (p *Page) log(r *http.Request, c *shown, id, do, who string, err error) {
	l := p.opts.Logger
	if l == nil {
		l = slog.Default()
	}
	level, message := slog.LevelInfo, "ideminspect: done"
	attrs := []slog.Attr{slog.String("by", who), slog.String("action", do), slog.String("cache", c.name)}
	if key := c.entries.masked(id); key != "" {
		attrs = append(attrs, slog.String("key", key), slog.String("tag", tag(id)))
	}
	if err != nil {
		attrs = append(attrs, slog.String("err", errorText(err)))
		if !asked(do, err) {
			level, message = slog.LevelWarn, "ideminspect: not done"
		}
	}
	l.LogAttrs(r.Context(), level, message, attrs...)
}

// statusOf returns the status for an attempt that ended with err.
func statusOf(err error) int {
	_, mistake := errors.AsType[inputError](err)
	switch {
	case mistake:
		return http.StatusBadRequest
	case err == nil, errors.Is(err, idemflight.ErrOutcomeUnknown):
		return http.StatusOK
	case errors.Is(err, errChanged), errors.Is(err, idemflight.ErrNotHeld):
		return http.StatusConflict
	case errors.Is(err, idemflight.ErrCallerLeft):
		return http.StatusAccepted
	}
	return http.StatusServiceUnavailable
}

// stateText returns a state in words.
func stateText(s idemflight.State) string {
	if s == idemflight.InFlight {
		return "in flight"
	}
	return s.String()
}
