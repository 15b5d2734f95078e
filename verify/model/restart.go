package model

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/idemflight/idemflight"
)

// saved is what Save must have written.
type saved struct {
	stream  []byte
	order   []string          // keys, as they come in the stream
	records map[string]record // by key; in the state InFlight, those that were
	missed  int               // entries that the Codec could not write
}

// save is Save, which has written keys in this order (promise 24).
func (m *reference) save(order []string) *saved {
	s := &saved{records: map[string]record{}}
	for key, r := range m.kept {
		if r.state == idemflight.Retained && r.value%100 == unwritable {
			s.missed++
			continue
		}
		s.records[key] = record{
			key: key, state: r.state, value: r.value, err: r.err.written(), fp: r.fp,
			started: r.started, completed: r.completed, anyCompleted: r.anyCompleted, deadline: r.deadline,
			spare: r.spare,
		}
	}
	for key, f := range m.flights {
		s.records[key] = record{key: key, state: idemflight.InFlight, fp: f.fp, started: f.started}
	}
	m.stats.HookPanics += uint64(s.missed)
	m.unwritten += s.missed
	for _, key := range order {
		if _, ok := s.records[key]; ok {
			s.order = append(s.order, key)
		}
	}
	if len(s.order) != len(s.records) || len(order) != len(s.records)+s.missed {
		disagree("Save has written %q, want %d keys", order, len(s.records)+s.missed)
	}
	return s
}

// load is Load of the first entries of s, as many as got counts. why is the error that it returned, and whole
// tells whether there is anything wrong with the stream.
func (m *reference) load(s *saved, got idemflight.LoadReport, why error, whole bool) {
	var want idemflight.LoadReport
	var first []error // what Load may say about the first entry that is refused
	for _, key := range s.order[:got.Restored+got.Interrupted+got.Expired+got.Refused] {
		r := s.records[key]
		if r.expired(m.now) {
			want.Expired++
			continue
		}
		legal := m.refusals(&r)
		if r.state == idemflight.Retained && r.value%100 == unreadable {
			legal = append(legal, errUnreadable)
		}
		if len(legal) == 0 && !m.room(nil) {
			legal = append(legal, idemflight.ErrFull)
		}
		switch {
		case len(legal) > 0:
			want.Refused++
			m.weighedInVain(&r)
			if first == nil {
				first = legal
			}
			continue
		case r.state == idemflight.InFlight:
			want.Interrupted++
		default:
			want.Restored++
		}
		m.putBack(&r)
	}
	if got != want {
		disagree("Load reports %+v, want %+v", got, want)
	}
	if wantsError := !whole || s.missed > 0 || want.Refused > 0; wantsError != (why != nil) {
		disagree("Load of a stream (whole: %v) that reports %+v, and from which %d are missing, answers %v", whole, got, s.missed, why)
	}
	if first != nil && !isOneOf(why, first) {
		disagree("Load answers %v, want what was wrong with the first that is refused: one of %v", why, first)
	}
	m.loaded.Restored += want.Restored
	m.loaded.Interrupted += want.Interrupted
	m.loaded.Expired += want.Expired
	m.loaded.Refused += want.Refused
	if !whole {
		m.damaged++
	}
}

// written returns c as it is once it has been written and read.
func (c *cause) written() *cause {
	if c == nil || c.read != nil {
		return c
	}
	return &cause{read: c}
}

// stored are the errors for which errors.Is works on an error that was read: some of those that always do,
// and the Codec's own.
var stored = []error{
	idemflight.ErrInFlight, idemflight.ErrOutcomeUnknown, idemflight.ErrCallerLeft, idemflight.ErrGoexit, idemflight.ErrInterrupted,
	context.Canceled, context.DeadlineExceeded, io.EOF,
}

var ownSentinels = map[string]error{"end": io.EOF}

// readAgain says what is wrong with got as c, written and read.
func (c *cause) readAgain(got error) string {
	if got == nil {
		return "no error where one was expected"
	}
	if want := c.text(); !strings.Contains(got.Error(), want) || c.panicked == nil && got.Error() != want {
		return "the error that was read says " + strconv.Quote(got.Error()) + ", want " + strconv.Quote(want)
	}
	if !c.is(idemflight.ErrOutcomeUnknown) && errors.Is(got, idemflight.ErrOutcomeUnknown) {
		return "the error that was read is ErrOutcomeUnknown, which it was not"
	}
	return c.named(got)
}

// text is what c says; of a panic, what it must say among others.
func (c *cause) text() string {
	switch {
	case c.goexit:
		return idemflight.ErrGoexit.Error()
	case c.sentinel != nil:
		return c.sentinel.Error()
	case c.panicked != nil:
		if err, ok := c.panicked.(error); ok {
			return err.Error()
		}
		return c.panicked.(string)
	}
	return c.spec.err.Error()
}

// named says which of the stored errors got, which is c as it was read or wraps that, is not, or is and should
// not be.
func (c *cause) named(got error) string {
	for _, err := range stored {
		switch is := errors.Is(got, err); {
		case err == idemflight.ErrOutcomeUnknown: // which may wrap it
		case is && !c.is(err):
			return "the error that was read is " + err.Error() + ", which it was not"
		case !is && c.is(err):
			return "the error that was read is not " + err.Error() + " any more"
		}
	}
	return ""
}

// is reports whether sentinel is in c.
func (c *cause) is(sentinel error) bool {
	switch {
	case c.goexit:
		return sentinel == idemflight.ErrGoexit
	case c.sentinel != nil:
		return sentinel == c.sentinel
	case c.spec != nil:
		return c.spec.any(func(s *errSpec) bool { return s.form == leaf && s.err == sentinel })
	}
	return false
}

// errUnreadable is what the Codec says when it fails.
var errUnreadable = errors.New("unreadable")

// codec is Options.Codec. It notes the keys that it writes.
func (d *driver) codec() idemflight.Codec[string, int] {
	return idemflight.Codec[string, int]{
		Sentinels: ownSentinels,
		EncodeKey: func(key string) (string, error) {
			d.wrote = append(d.wrote, key)
			return textOf(key), nil
		},
		DecodeKey: func(text string) (string, error) { return text[1 : len(text)-1], nil },
		EncodeValue: func(value int) ([]byte, error) {
			if value%100 == unwritable {
				panic("EncodeValue")
			}
			return strconv.AppendInt(nil, int64(value), 10), nil
		},
		DecodeValue: func(text []byte) (int, error) {
			value, err := strconv.Atoi(string(text))
			if value%100 == unreadable {
				err = errUnreadable
			}
			return value, err
		},
	}
}

// textOf is how a key is written: so that it can be found in a stream.
func textOf(key string) string { return "<" + key + ">" }

// doSave saves.
func (d *driver) doSave(*rapid.T) {
	var stream bytes.Buffer
	var err error
	d.wrote = nil
	d.step(func() { err = d.c.Save(&stream) }, func() {
		d.saved = d.ref.save(d.wrote)
		d.saved.stream = stream.Bytes()
		if (err != nil) != (d.saved.missed > 0) {
			disagree("Save, for which %d entries could not be written, answers %v", d.saved.missed, err)
		}
	})
}

// doLoad loads what was saved last, sometimes damaged.
func (d *driver) doLoad(t *rapid.T) {
	if d.saved == nil {
		return
	}
	s, stream, end := d.saved, bytes.Clone(d.saved.stream), len(d.saved.stream)
	whole := !one(t, "damaged", 6)
	if !whole {
		end = rapid.IntRange(0, end-1).Draw(t, "at")
		if stream[end] ^= 1; rapid.Bool().Draw(t, "cut") {
			stream = stream[:end]
		}
	}
	// What comes before the next entry's key is whole; one the key of which is damaged is not.
	least, most := 0, 0
	for i, key := range s.order {
		at := bytes.Index(s.stream, []byte(textOf(key)))
		if at < end {
			least = i
		}
		if at+len(textOf(key)) <= end {
			most = i + 1
		}
	}
	if whole {
		least = most
	}
	var report idemflight.LoadReport
	var err error
	d.step(func() { report, err = d.c.Load(context.Background(), bytes.NewReader(stream)) }, func() {
		if n := report.Restored + report.Interrupted + report.Expired + report.Refused; n < least || n > most {
			disagree("Load of a stream (whole: %v) reports %+v, want from %d to %d entries", whole, report, least, most)
		}
		d.ref.load(s, report, err, whole)
	})
}

// doRestart is a planned restart: the process closes its cache and saves, before or after its executions have
// ended, and the next one goes on with that, after a while.
func (d *driver) doRestart(t *rapid.T) {
	if rapid.Bool().Draw(t, "waits") {
		d.endAll()
	}
	if rapid.Bool().Draw(t, "closes first") {
		d.closeForGood()
	}
	d.doSave(t)
	d.endAll()
	d.closeForGood()
	d.doSleep(t)
	d.before = append(d.before, d.ref)
	d.ref = newReference(d.ref.config, time.Now())
	d.c = d.fresh()
	d.doLoad(t)
}

// closeForGood closes the cache, and waits for what is in flight.
func (d *driver) closeForGood() {
	d.close(&closing{ctx: context.Background(), cancel: func(error) {}})
}
