package idemflight

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"
)

// What Save writes is a line of text and frames, of which the last is the trailer.
// Numbers are big endian.
//
//	"idemflight save 1\n"       the version
//	frame, frame, …, frame
//
//	frame   length    4 bytes   of the body
//	        checksum  4 bytes   of all lines, lengths and bodies up to here
//	        body                its first byte says what it is
//	        checksum  4 bytes   of all lines, lengths and bodies up to here
//
//	'h'     the form of keys, the form of values    strings; once, first
//	'e'     state, why it is held, parts            a byte each
//	        fingerprint                             16 bytes
//	        started, completed, expires             12 bytes each: seconds since 1970, nanoseconds
//	        key, value, error, origin               strings; all but the first only if parts has their bit
//	't'     how many entries, how many left out     8 bytes each; once, last
//
//	string  its length as a varint, its bytes
//
// The checksum is CRC-32C. As it goes on from frame to frame, one that is missing, doubled or at
// another's place shows like a changed bit. A length is checked before it is believed. What a later
// version adds to a frame gets a version of its own.
const (
	saveLine = "idemflight save "
	version  = "1\n"

	headFrame, entryFrame, trailerFrame = 'h', 'e', 't'

	hasValue, hasError, hasOrigin = 1, 2, 4 // bits of parts

	maxParts = 1 << 30 // bytes of key, value and error together
	maxFrame = maxParts + 1<<10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Save writes all that is kept to w, and what is in flight as interrupted, for [Cache.Load] in the
// next process. With a Store it is an error: the store has everything. For a planned restart:
// Close, Save, exit; then Load, listen. It works on a closed cache and on one in use; in the second
// case it may miss what changes meanwhile.
//
// Keys, values and errors are written by Options.Codec; if it lacks a function that K or V needs,
// Save fails before it writes anything. An entry that cannot be encoded is left out, the others are
// written, and the error says how many were left out; Load then returns an error, too. An error
// from w ends Save; what was written by then is a truncated stream, which Load recognizes. w is
// neither closed nor synced.
//
// No lock is held while w is written to. Memory is needed for one entry and a few hundred keys.
func (c *Cache[K, V]) Save(w io.Writer) error {
	if c.keeper != nil {
		return errors.New("idemflight: Save of a cache with a Store, which has all of it")
	}
	codec, err := c.opts.Codec.withDefaults()
	if err != nil {
		return err
	}
	out := newFrameWriter(w)
	out.write(c.opts.Codec.appendForms([]byte{headFrame}))
	var body []byte
	var saved, missed uint64
	var firstMissed error
	for key := range c.keys {
		e, held, ok := c.look(key)
		if !ok {
			continue
		}
		var err error
		c.guard(
			func() { body, err = codec.appendEntry(append(body[:0], entryFrame, byte(e.State), byte(held)), key, e) },
			func(panicked error) { err = panicked })
		if err != nil {
			missed++
			if firstMissed == nil {
				firstMissed = err
			}
			continue
		}
		saved++
		if out.write(body); out.err != nil {
			break
		}
	}
	trailer := binary.BigEndian.AppendUint64([]byte{trailerFrame}, saved)
	out.write(binary.BigEndian.AppendUint64(trailer, missed))
	if err := out.flush(); err != nil {
		return fmt.Errorf("idemflight: Save: the stream is cut: %w", err)
	}
	if missed > 0 {
		return fmt.Errorf("idemflight: Save: %d of %d entries could not be written, the first: %w",
			missed, saved+missed, firstMissed)
	}
	return nil
}

// LoadReport counts the entries of a stream by what [Cache.Load] made of them.
type LoadReport struct {
	Restored    int // as they were
	Interrupted int // in flight when they were saved, held now
	Expired     int // meanwhile: nothing is lost
	Refused     int // present already, no room, or cannot be decoded; Load's error has the first reason
}

// Load puts back what [Cache.Save] wrote, before the first calls come in, each entry as
// [Cache.Restore] does it: with the rest of its TTL and its fingerprint, and a hold without end
// stays without end. What was in flight is held for Options.HoldTTL with [ErrInterrupted]. What has
// expired meanwhile is left out, which is no error.
//
// After an error something is missing, and keys may be unguarded: do not start to listen. The error
// says what it is: the stream was cut or changed (everything that is whole before that place is
// restored), has another version, or was saved with other keys or values; entries were refused (the
// rest is restored), or Save could not write them; ctx ended, whose cause the error wraps. ctx is
// looked at between entries; a read from r is not interrupted.
//
// It reads r to the end of the stream, and up to a buffer further: to have several streams in one
// file, pass the same [bufio.Reader] to each Load. Even for a damaged stream, it takes no more
// memory than there is data.
func (c *Cache[K, V]) Load(ctx context.Context, r io.Reader) (LoadReport, error) {
	mustHave(ctx, "Load")
	var report LoadReport
	codec, err := c.opts.Codec.withDefaults()
	if err != nil {
		return report, err
	}
	buffered, ok := r.(*bufio.Reader)
	if !ok {
		buffered = bufio.NewReader(r)
	}
	in := frameReader{r: buffered}
	if err := in.begin(c.opts.Codec.forms()); err != nil {
		return report, fmt.Errorf("idemflight: Load: nothing is restored: %w", err)
	}
	var firstRefused error
	read, err := in.entries(ctx, func(body []byte) {
		if err := c.load(ctx, &codec, body, &report); err != nil {
			report.Refused++
			if firstRefused == nil {
				firstRefused = err
			}
		}
	})
	if err != nil {
		err = fmt.Errorf("idemflight: Load: entries are missing after %d: %w", read, err)
	}
	if firstRefused != nil {
		refused := fmt.Errorf("idemflight: Load: %d of %d entries are refused, the first: %w", report.Refused, read, firstRefused)
		err = errors.Join(refused, err)
	}
	return report, err
}

// load restores an entry and counts it in report, or says why it is refused.
func (c *Cache[K, V]) load(ctx context.Context, codec *Codec[K, V], body []byte, report *LoadReport) error {
	in := cursor{rest: body[1:]}
	e, held, parts := readEntry[V](&in)
	if !in.short && !e.ExpiresAt.IsZero() && !e.ExpiresAt.After(c.wall(c.syncWall())) {
		report.Expired++
		return nil
	}
	var key K
	var err error
	c.guard(
		func() { key, err = codec.readParts(&in, parts, &e) },
		func(panicked error) { err = panicked })
	if err != nil {
		return err
	}
	switch err := c.restore(ctx, key, e, held); {
	case errors.Is(err, ErrExpired):
		report.Expired++
	case err != nil:
		return err
	case e.State == InFlight:
		report.Interrupted++
	default:
		report.Restored++
	}
	return nil
}

// forms returns how c writes keys and values.
func (c Codec[K, V]) forms() (keys, values string) {
	keys, values = ownForm, ownForm
	if c.EncodeKey == nil && c.DecodeKey == nil {
		keys = keyFormOf[K]().name
	}
	if c.EncodeValue == nil && c.DecodeValue == nil {
		values = valueFormOf[V]().name
	}
	return keys, values
}

func (c Codec[K, V]) appendForms(b []byte) []byte {
	keys, values := c.forms()
	return appendString(appendString(b, keys), values)
}

// appendEntry appends the parts of e that are kept in its state; b has the state and
// the reason already.
func (c Codec[K, V]) appendEntry(b []byte, key K, e Entry[V]) ([]byte, error) {
	text, err := c.EncodeKey(key)
	if err != nil {
		return b, fmt.Errorf("a key: %w", err)
	}
	var value, cause []byte
	var parts byte
	if e.State == Retained {
		if value, err = c.EncodeValue(e.Value); err != nil {
			return b, fmt.Errorf("a value: %w", err)
		}
	}
	if value != nil {
		parts |= hasValue
	}
	if cause = c.encodeError(e.Err); cause != nil {
		parts |= hasError
	}
	var origin []byte
	if e.Origin != nil {
		parts, origin = parts|hasOrigin, []byte(e.Origin.String())
	}
	if int64(len(text))+int64(len(value))+int64(len(cause)) > maxParts {
		return b, errors.New("a key, value and error of more than 1 GiB together")
	}
	b = append(b, parts)
	b = append(b, e.Fingerprint[:]...)
	for _, t := range [...]time.Time{e.StartedAt, e.CompletedAt, e.ExpiresAt} {
		b = binary.BigEndian.AppendUint64(b, uint64(t.Unix()))
		b = binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond()))
	}
	b = appendString(b, text)
	if value != nil {
		b = appendString(b, value)
	}
	if cause != nil {
		b = appendString(b, cause)
	}
	if origin != nil {
		b = appendString(b, origin)
	}
	return b, nil
}

// readEntry reads the parts of an entry that need no Codec.
func readEntry[V any](in *cursor) (e Entry[V], held why, parts byte) {
	head := in.bytes(3)
	e.State, held, parts = State(head[0]), why(head[1]), head[2]
	if held >= whyEnd { // of a later version
		held = restored
	}
	e.Fingerprint = Fingerprint(in.bytes(len(e.Fingerprint)))
	e.StartedAt, e.CompletedAt, e.ExpiresAt = in.time(), in.time(), in.time()
	return e, held, parts
}

// readParts reads the other parts of an entry.
func (c Codec[K, V]) readParts(in *cursor, parts byte, e *Entry[V]) (key K, err error) {
	if key, err = c.DecodeKey(string(in.string())); err != nil {
		return key, fmt.Errorf("a key: %w", err)
	}
	var value []byte
	if parts&hasValue != 0 {
		value = bytes.Clone(in.string())
	}
	if e.State == Retained {
		if e.Value, err = c.DecodeValue(value); err != nil {
			return key, fmt.Errorf("a value: %w", err)
		}
	}
	if parts&hasError != 0 {
		if e.Err, err = c.decodeError(in.string()); err != nil {
			return key, err
		}
	}
	if parts&hasOrigin != 0 {
		e.Origin = new(Origin)
		if err = e.Origin.UnmarshalText(in.string()); err != nil {
			return key, err
		}
	}
	if in.short || len(in.rest) > 0 {
		err = errors.New("an entry that is not in the form of version 1")
	}
	return key, err
}

func appendString[S string | []byte](b []byte, s S) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// frameWriter writes the line and frames. After an error it does nothing more.
type frameWriter struct {
	w   *bufio.Writer
	sum uint32
	err error
}

func newFrameWriter(w io.Writer) *frameWriter {
	f := &frameWriter{w: bufio.NewWriterSize(w, 64<<10)}
	f.summed([]byte(saveLine + version))
	return f
}

// write writes a frame.
func (f *frameWriter) write(body []byte) {
	f.summed(binary.BigEndian.AppendUint32(nil, uint32(len(body))))
	f.plain(binary.BigEndian.AppendUint32(nil, f.sum))
	f.summed(body)
	f.plain(binary.BigEndian.AppendUint32(nil, f.sum))
}

func (f *frameWriter) summed(b []byte) {
	f.sum = crc32.Update(f.sum, castagnoli, b)
	f.plain(b)
}

func (f *frameWriter) plain(b []byte) {
	if f.err == nil {
		_, f.err = f.w.Write(b)
	}
}

func (f *frameWriter) flush() error {
	if f.err == nil {
		f.err = f.w.Flush()
	}
	return f.err
}

// frameReader reads what frameWriter wrote.
type frameReader struct {
	r    *bufio.Reader
	sum  uint32
	body bytes.Buffer
}

var errChanged = errors.New("the stream was changed here: its checksum does not match")

// begin reads what comes before the entries, and compares the forms of keys and values with those
// that are wanted. (Those of the user's own functions are nobody else's business.)
func (f *frameReader) begin(keys, values string) error {
	line := make([]byte, len(saveLine+version))
	n, err := io.ReadFull(f.r, line)
	switch {
	case err != nil && n == 0:
		return fmt.Errorf("the stream is empty: %w", cut(err))
	case !bytes.HasPrefix(line, []byte(saveLine)[:min(n, len(saveLine))]):
		return errors.New("this is not what Save wrote")
	case err != nil:
		return fmt.Errorf("the stream ends in its first line: %w", cut(err))
	case string(line[len(saveLine):]) != version:
		return fmt.Errorf("the stream is of version %q, and this program reads 1", bytes.TrimSpace(line[len(saveLine):]))
	}
	f.sum = crc32.Update(0, castagnoli, line)
	body, err := f.next()
	if err != nil {
		return err
	}
	if body[0] != headFrame {
		return errChanged
	}
	in := cursor{rest: body[1:]}
	for _, part := range []struct{ what, want string }{{"keys", keys}, {"values", values}} {
		is := string(in.string())
		if is != part.want && is != ownForm && part.want != ownForm {
			return fmt.Errorf("the %s were saved as %q, and this cache has them as %q", part.what, is, part.want)
		}
	}
	return nil
}

// entries calls each with the body of every entry, which is valid during the call, and returns how
// many there were, and an error if they may not be all.
func (f *frameReader) entries(ctx context.Context, each func(body []byte)) (read uint64, err error) {
	for {
		if ctx.Err() != nil {
			return read, context.Cause(ctx)
		}
		body, err := f.next()
		if err != nil {
			return read, err
		}
		switch body[0] {
		case entryFrame:
			read++
			each(body)
		case trailerFrame:
			in := cursor{rest: body[1:]}
			saved, missed := binary.BigEndian.Uint64(in.bytes(8)), binary.BigEndian.Uint64(in.bytes(8))
			switch {
			case saved != read || in.short || len(in.rest) > 0:
				return read, errChanged
			case missed > 0:
				return read, fmt.Errorf("Save could not write %d others", missed)
			}
			return read, nil
		default:
			return read, errChanged
		}
	}
}

// next returns the body of the next frame, which is not empty, and valid until the next call.
func (f *frameReader) next() ([]byte, error) {
	var length [4]byte
	if err := f.summed(length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n == 0 || n > maxFrame {
		return nil, errChanged
	}
	f.body.Reset()
	if _, err := io.CopyN(&f.body, f.r, int64(n)); err != nil { // takes no more memory than there is data
		return nil, fmt.Errorf("the stream ends: %w", cut(err))
	}
	body := f.body.Bytes()
	f.sum = crc32.Update(f.sum, castagnoli, body)
	return body, f.check()
}

// summed fills b from the stream, and compares the checksum behind it.
func (f *frameReader) summed(b []byte) error {
	if _, err := io.ReadFull(f.r, b); err != nil {
		return fmt.Errorf("the stream ends: %w", cut(err))
	}
	f.sum = crc32.Update(f.sum, castagnoli, b)
	return f.check()
}

func (f *frameReader) check() error {
	var sum [4]byte
	if _, err := io.ReadFull(f.r, sum[:]); err != nil {
		return fmt.Errorf("the stream ends: %w", cut(err))
	}
	if binary.BigEndian.Uint32(sum[:]) != f.sum {
		return errChanged
	}
	return nil
}

// cut returns err, of a read, so that an end does not look as if it belonged there.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// cursor reads the parts of a body. Where they end too early it has zeros, and notes it.
type cursor struct {
	rest  []byte
	short bool
}

func (c *cursor) bytes(n int) []byte {
	if n > len(c.rest) {
		c.rest, c.short = nil, true
		return make([]byte, n)
	}
	b := c.rest[:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cursor) string() []byte {
	length, n := binary.Uvarint(c.rest)
	if n <= 0 || length > uint64(len(c.rest)-n) {
		c.rest, c.short = nil, true
		return nil
	}
	c.rest = c.rest[n:]
	return c.bytes(int(length))
}

func (c *cursor) time() time.Time {
	seconds, ns := int64(binary.BigEndian.Uint64(c.bytes(8))), binary.BigEndian.Uint32(c.bytes(4))
	t := time.Unix(seconds, int64(ns))
	if t.IsZero() {
		return time.Time{}
	}
	return t
}
