package idemflight_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// savedBy returns what c saves.
func savedBy[K comparable, V any](t *testing.T, c *idemflight.Cache[K, V]) []byte {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, c.Save(&out))
	return out.Bytes()
}

// loads loads all of stream into a new cache.
func loads[K comparable, V any](t *testing.T, o idemflight.Options[K, V], stream []byte, want idemflight.LoadReport) *idemflight.Cache[K, V] {
	t.Helper()
	c := idemflight.MustNew(o)
	report, err := c.Load(bg, bytes.NewReader(stream))
	require.NoError(t, err)
	require.Equal(t, want, report)
	return c
}

// comparableEntries returns what All shows, so that it can be compared with what another cache shows: times in wall
// time alone, errors by their texts.
func comparableEntries[K comparable, V any](c *idemflight.Cache[K, V]) map[K]idemflight.Entry[V] {
	all := entries(c)
	for key, e := range all {
		for _, at := range []*time.Time{&e.StartedAt, &e.CompletedAt, &e.ExpiresAt} {
			*at = at.Round(0).UTC()
		}
		if e.Err != nil {
			e.Err = errors.New(e.Err.Error())
		}
		all[key] = e
	}
	return all
}

// everyKind makes a cache with an entry of every kind but in flight.
func everyKind(t *testing.T) (*cache, options) {
	o := weighted(options{TTL: time.Hour, HoldTTL: 2 * time.Hour, Codec: idemflight.Codec[string, int]{Sentinels: map[string]error{"boom": errBoom}}})
	c := idemflight.MustNew(o)
	executes(t, c, "plain", 1)
	executes(t, c, "of its own TTL", 2, idemflight.WithTTL(time.Minute))
	executes(t, c, "with a fingerprint", 3, idemflight.WithFingerprint(fingerprint(1)))
	executes(t, c, "shed", tooHeavy)
	_, _ = c.Do(bg, "error", returns(4, idemflight.Final(fmt.Errorf("x: %w", errBoom))))
	_, _ = c.Do(bg, "slow", returnsAfter(5*time.Second, 0, nil))
	hold(t, c, "held", idemflight.WithFingerprint(fingerprint(2)))
	must(c.Restore(bg, "held without end", idemflight.Entry[int]{State: idemflight.Held, Err: errBoom, CompletedAt: time.Now()}))
	must(c.Restore(bg, "held without error", idemflight.Entry[int]{State: idemflight.Held, ExpiresAt: time.Now().Add(time.Second)}))
	return c, o
}

func TestPromise24_SaveAndLoadCarryAllThatIsKeptOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, o := everyKind(t)
		require.NoError(t, old.Close(bg))
		stream := savedBy(t, old)
		time.Sleep(999 * time.Millisecond)
		want := comparableEntries(old)
		require.Len(t, want, 9)

		log := &eventLog[string]{}
		o.Observer = log.observe
		c := loads(t, o, stream, idemflight.LoadReport{Restored: 9})
		require.Equal(t, want, comparableEntries(c))
		require.NoError(t, c.CheckInvariants())
		require.Empty(t, log.seen(), "Load emits nothing of its own")
		require.Equal(t, idemflight.Stats{Entries: 9, Held: 3, Weight: old.Stats().Weight}, c.Stats(), "and counts in no Stats of calls")
		require.Equal(t, stream[:20], savedBy(t, c)[:20], "and can be saved again")

		// It answers as the old one does.
		require.Equal(t, 1, replays(t, c, "plain"))
		v, err := c.Do(bg, "error", neverRuns(t))
		require.ErrorIs(t, err, errBoom)
		require.EqualError(t, err, "x: boom")
		require.Equal(t, 4, v)
		_, err = c.Do(bg, "held", neverRuns(t), idemflight.WithFingerprint(fingerprint(2)))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.ErrorIs(t, err, errBoom)
		_, err = c.Do(bg, "held", neverRuns(t), idemflight.WithFingerprint(fingerprint(3)))
		require.ErrorIs(t, err, idemflight.ErrKeyReused)
		_, err = c.Do(bg, "with a fingerprint", neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrKeyReused)
		_, err = c.Do(bg, "shed", neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrValueShed)

		// And forgets when the old one would have.
		for _, at := range []struct {
			sleep time.Duration
			gone  []string
		}{
			{time.Second, []string{"held without error"}},
			{time.Minute, []string{"of its own TTL"}},
			{time.Hour, []string{"plain", "with a fingerprint", "shed", "error", "slow"}},
			{2 * time.Hour, []string{"held"}},
			{1e6 * time.Hour, nil},
		} {
			for _, key := range at.gone {
				_, ok := lookup(c, key)
				require.True(t, ok, "%q is still there", key)
			}
			time.Sleep(at.sleep)
			for _, key := range at.gone {
				_, ok := lookup(c, key)
				require.False(t, ok, "%q has expired", key)
			}
		}
		requireState(t, c, idemflight.Held, "held without end")
		e, _ := lookup(c, "held without end")
		require.Equal(t, time.Time{}, e.ExpiresAt)
	})
}

// What is in flight may have its effect after Save: the next process holds it, for its own HoldTTL.
func TestPromise24_SaveTakesWhatIsInFlightAsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := idemflight.MustNew(options{})
		end := fly(t, old, "flying", idemflight.WithFingerprint(fingerprint(1)))
		joined := start(old, bg, "flying", neverRuns(t), idemflight.WithFingerprint(fingerprint(1)))
		executes(t, old, "done", 1)
		began := time.Now().Round(0)
		time.Sleep(time.Second)
		stream := savedBy(t, old)
		_, err := end(7, nil)
		require.NoError(t, err)
		<-joined.done

		time.Sleep(time.Hour)
		c := loads(t, options{HoldTTL: time.Minute}, stream, idemflight.LoadReport{Restored: 1, Interrupted: 1})
		e, ok := lookup(c, "flying")
		require.True(t, ok)
		require.Equal(t, idemflight.Held, e.State)
		require.ErrorIs(t, e.Err, idemflight.ErrInterrupted)
		require.Equal(t, fingerprint(1), e.Fingerprint)
		require.True(t, began.Equal(e.StartedAt), "%v", e.StartedAt)
		require.Equal(t, time.Minute, time.Until(e.ExpiresAt))
		_, err = c.Do(bg, "flying", neverRuns(t), idemflight.WithFingerprint(fingerprint(1)))
		require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
		require.ErrorIs(t, err, idemflight.ErrInterrupted)

		// Another restart later it is a held key like any other, and still says why.
		again := loads(t, options{}, savedBy(t, c), idemflight.LoadReport{Restored: 2})
		e, _ = lookup(again, "flying")
		require.ErrorIs(t, e.Err, idemflight.ErrInterrupted)
		require.Equal(t, time.Minute, time.Until(e.ExpiresAt))
	})
}

// Its age decides whether it may make room, and when: a restart must not make it young again.
func TestPromise24_ALoadedHoldWithoutEndIsAsOldAsItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog[string]{}
		o := options{MaxEntries: 3, HoldTTL: -1, MinRetention: time.Hour, Observer: log.observe}
		old := idemflight.MustNew(o)
		for _, key := range []string{"first", "second", "third"} {
			_, err := old.Do(bg, key, returns(0, errBoom)) // without a word of its effect
			require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
			time.Sleep(time.Minute)
		}
		time.Sleep(time.Hour - 2*time.Minute) // the third will be as old as MinRetention in a minute

		c := loads(t, o, savedBy(t, old), idemflight.LoadReport{Restored: 3})
		log.clear()
		executes(t, c, "new", 1)
		require.Equal(t, []string{"first"}, log.keys(idemflight.EventEvicted), "the one held longest goes first")
		executes(t, c, "newer", 2)
		require.Equal(t, []string{"first", "second"}, log.keys(idemflight.EventEvicted))
		_, err := c.Do(bg, "newest", neverRuns(t))
		require.ErrorIs(t, err, idemflight.ErrFull, "MinRetention still protects the third")
		time.Sleep(time.Minute)
		executes(t, c, "newest", 3)
		require.Equal(t, []string{"first", "second", "third"}, log.keys(idemflight.EventEvicted))
	})
}

func TestPromise24_LoadLeavesOutWhatHasExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := idemflight.MustNew(options{HoldTTL: time.Second})
		executes(t, old, "second", 1, idemflight.WithTTL(time.Second))
		executes(t, old, "more", 2, idemflight.WithTTL(time.Second+1))
		hold(t, old, "held")
		stream := savedBy(t, old)
		time.Sleep(time.Second) // the instant itself counts as expired
		require.Len(t, entries(loads(t, options{}, stream, idemflight.LoadReport{Restored: 1, Expired: 2})), 1)
		time.Sleep(time.Hour)
		require.Empty(t, entries(loads(t, options{}, stream, idemflight.LoadReport{Expired: 3})))
		require.Empty(t, entries(loads(t, options{}, savedBy(t, old), idemflight.LoadReport{})), "Save leaves it out, too")
	})
}

// An entry that cannot be restored is refused, the others are restored, and Load says so.
func TestPromise24_LoadRefusesWhatCannotBeRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := idemflight.MustNew(options{})
		for i := range 10 {
			executes(t, old, keyNo(i), i)
		}
		stream := savedBy(t, old)

		t.Log("present")
		c := idemflight.MustNew(options{})
		executes(t, c, keyNo(3), 33)
		report, err := c.Load(bg, bytes.NewReader(stream))
		require.ErrorContains(t, err, "idemflight: Load: 1 of 10 entries are refused, the first: ")
		require.ErrorContains(t, err, "kept already")
		require.Equal(t, idemflight.LoadReport{Restored: 9, Refused: 1}, report)
		require.Equal(t, 33, replays(t, c, keyNo(3)))
		require.Equal(t, 4, replays(t, c, keyNo(4)))

		t.Log("full")
		c = idemflight.MustNew(options{MaxEntries: 4})
		report, err = c.Load(bg, bytes.NewReader(stream))
		require.ErrorIs(t, err, idemflight.ErrFull)
		require.Equal(t, idemflight.LoadReport{Restored: 4, Refused: 6}, report)
		require.Len(t, entries(c), 4)
		require.NoError(t, c.CheckInvariants())

		t.Log("closed")
		c = idemflight.MustNew(options{})
		require.NoError(t, c.Close(bg))
		report, err = c.Load(bg, bytes.NewReader(stream))
		require.ErrorIs(t, err, idemflight.ErrClosed)
		require.Equal(t, idemflight.LoadReport{Refused: 10}, report)

		t.Log("not to be decoded")
		fails := func(data []byte) (v int, err error) {
			_, err = fmt.Sscan(string(data), &v)
			switch v {
			case 3:
				return 0, errBoom
			case 4:
				panic("at four")
			}
			return v, err
		}
		c = idemflight.MustNew(options{Codec: idemflight.Codec[string, int]{DecodeValue: fails}})
		report, err = c.Load(bg, bytes.NewReader(stream))
		require.ErrorContains(t, err, "2 of 10 entries are refused, the first: ")
		require.Equal(t, idemflight.LoadReport{Restored: 8, Refused: 2}, report)
		require.EqualValues(t, 1, c.Stats().HookPanics)

		t.Log("invalid keys")
		c = idemflight.MustNew(options{Codec: idemflight.Codec[string, int]{DecodeKey: func(string) (string, error) { return "", nil }}})
		report, err = c.Load(bg, bytes.NewReader(stream))
		require.ErrorIs(t, err, idemflight.ErrInvalidKey)
		require.Equal(t, idemflight.LoadReport{Refused: 10}, report)
	})
}

// What has no value to keep is not asked for one.
func TestSave_EncodesNoValueButRetainedOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var encoded []int
		o := weighted(options{Codec: idemflight.Codec[string, int]{
			EncodeValue: func(v int) ([]byte, error) { encoded = append(encoded, v); return nil, nil },
			DecodeValue: func(b []byte) (int, error) { require.Nil(t, b, "as it was encoded"); return 7, nil },
		}})
		old := idemflight.MustNew(o)
		hold(t, old, "held")
		executes(t, old, "shed", tooHeavy)
		executes(t, old, "retained", 1)
		end := fly(t, old, "flying")
		c := loads(t, o, savedBy(t, old), idemflight.LoadReport{Restored: 3, Interrupted: 1})
		require.Equal(t, []int{1}, encoded)
		require.Equal(t, 7, replays(t, c, "retained"))
		_, _ = end(0, nil)
	})
}

// An entry that cannot be encoded is left out, the others are written; Save and Load both say so.
func TestPromise24_SaveLeavesOutWhatCannotBeEncoded(t *testing.T) {
	codec := idemflight.Codec[string, int]{EncodeValue: func(v int) ([]byte, error) {
		switch v {
		case 3:
			return nil, errBoom
		case 4:
			panic("at four")
		}
		return fmt.Append(nil, v), nil
	}}
	old := idemflight.MustNew(options{Codec: codec})
	for i := range 10 {
		executes(t, old, keyNo(i), i)
	}
	_, _ = old.Do(bg, "bad error", returns(0, idemflight.Final((*typedNil)(nil))))
	var stream bytes.Buffer
	require.ErrorContains(t, old.Save(&stream), "idemflight: Save: 3 of 11 entries could not be written, the first: ")
	require.EqualValues(t, 2, old.Stats().HookPanics)

	c := idemflight.MustNew(options{})
	report, err := c.Load(bg, &stream)
	require.ErrorContains(t, err, "idemflight: Load: entries are missing after 8: Save could not write 3 others")
	require.Equal(t, idemflight.LoadReport{Restored: 8}, report)
	require.Len(t, entries(c), 8)
}

// typedNil is an error of which a nil pointer cannot say what it is.
type typedNil struct{ text string }

func (e *typedNil) Error() string { return e.text }

// Wherever a stream is cut, the entries before the cut are restored, and Load reports that some are
// missing.
func TestPromise24_ACutIsNoticedWhereverItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, o := everyKind(t)
		end := fly(t, old, "flying")
		defer end(0, nil)
		stream := savedBy(t, old)
		want := comparableEntries(old)
		most := 0
		for n := range stream {
			c := idemflight.MustNew(o)
			report, err := c.Load(bg, iotest.HalfReader(bytes.NewReader(stream[:n])))
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut after %d of %d bytes", n, len(stream))
			got := comparableEntries(c)
			require.Len(t, got, report.Restored+report.Interrupted)
			require.Equal(t, idemflight.LoadReport{Restored: report.Restored, Interrupted: report.Interrupted}, report)
			delete(got, "flying") // held now
			for key, e := range got {
				require.Equal(t, want[key], e, "%q, cut after %d of %d bytes", key, n, len(stream))
			}
			require.GreaterOrEqual(t, len(got), most-1, "as much as before the cut, at %d", n)
			most = max(most, len(got))
		}
		require.Equal(t, len(want)-1, most, "all entries are restored before the trailer")
		loads(t, o, stream, idemflight.LoadReport{Restored: len(want) - 1, Interrupted: 1})
	})
}

// Every changed bit is noticed, before a wrong entry is restored.
func TestPromise24_AChangedBitIsNoticedWhereverItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options{MaxEntries: fewEntries}
		old := idemflight.MustNew(o)
		executes(t, old, "a", 1)
		executes(t, old, "b", 2, idemflight.WithFingerprint(fingerprint(1)))
		hold(t, old, "c")
		stream := savedBy(t, old)
		want := comparableEntries(old)
		for bit := range 8 * len(stream) {
			changed := bytes.Clone(stream)
			changed[bit/8] ^= 1 << (bit % 8)
			c := idemflight.MustNew(o)
			_, err := c.Load(bg, bytes.NewReader(changed))
			require.Error(t, err, "bit %d of byte %d", bit%8, bit/8)
			for key, e := range comparableEntries(c) {
				require.Equal(t, want[key], e, "%q, bit %d of byte %d", key, bit%8, bit/8)
			}
		}
	})
}

// Frames that are missing, doubled or in another order are noticed like changed bits.
func TestPromise24_AFrameAtAnothersPlaceIsNoticed(t *testing.T) {
	old := idemflight.MustNew(options{MaxEntries: fewEntries})
	for i := range 3 {
		executes(t, old, keyNo(i), i)
	}
	stream := savedBy(t, old)
	first := bytes.IndexByte(stream, '\n') + 1
	var frames [][]byte // head, three entries, trailer
	for rest := stream[first:]; len(rest) > 0; {
		n := 12 + int(rest[2])<<8 + int(rest[3])
		frames, rest = append(frames, rest[:n]), rest[n:]
	}
	require.Len(t, frames, 5)
	for _, order := range [][]int{{}, {4}, {1, 2, 3, 4}, {0, 4}, {0, 1, 2, 4}, {0, 1, 1, 2, 3, 4}, {0, 2, 1, 3, 4}, {0, 1, 2, 3}, {0, 0, 1, 2, 3, 4}, {0, 1, 2, 3, 3}} {
		other := bytes.Clone(stream[:first])
		for _, i := range order {
			other = append(other, frames[i]...)
		}
		c := idemflight.MustNew(options{MaxEntries: fewEntries})
		_, err := c.Load(bg, bytes.NewReader(other))
		require.Error(t, err, "frames %v", order)
	}
}

func TestLoad_SaysWhatAStreamIsThatItCannotRead(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, idemflight.MustNew(idemflight.Options[int, struct{}]{MaxEntries: fewEntries}).Save(&out))
	for _, tt := range []struct{ stream, why string }{
		{"", "the stream is empty"},
		{"idem", "the stream ends in its first line"},
		{"idemflight save 1\n", "the stream ends"},
		{"idemflight save 2\nand so on", `the stream is of version "2", and this program reads 1`},
		{"idemflight save 10\n", `the stream is of version "10", and this program reads 1`},
		{"{", "this is not what Save wrote"},
		{strings.Repeat("PK\x03\x04", 10), "this is not what Save wrote"},
		{out.String(), `the keys were saved as "integer", and this cache has them as "text"`},
	} {
		c := idemflight.MustNew(options{MaxEntries: fewEntries})
		report, err := c.Load(bg, strings.NewReader(tt.stream))
		require.ErrorContains(t, err, "idemflight: Load: nothing is restored: "+tt.why)
		require.Zero(t, report)
		require.Empty(t, entries(c))
	}
	texts := idemflight.MustNew(idemflight.Options[int, string]{MaxEntries: fewEntries})
	_, err := texts.Load(bg, bytes.NewReader(out.Bytes()))
	require.ErrorContains(t, err, `the values were saved as "json", and this cache has them as "text"`)

	own := idemflight.Codec[string, int]{DecodeKey: func(s string) (string, error) { return s, nil }, DecodeValue: func([]byte) (int, error) { return 0, nil }}
	_, err = idemflight.MustNew(options{MaxEntries: fewEntries, Codec: own}).Load(bg, bytes.NewReader(out.Bytes()))
	require.NoError(t, err, "what functions of one's own can read is their business")
}

// A length that was changed does not make Load take memory for what is not there.
func TestLoad_TakesNoMoreMemoryThanThereIsData(t *testing.T) {
	stream := []byte("idemflight save 1\n\x7f\xff\xff\xff")
	c := idemflight.MustNew(options{MaxEntries: fewEntries})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := c.Load(bg, io.MultiReader(bytes.NewReader(stream), io.LimitReader(zeros{}, 1<<31)))
	require.ErrorContains(t, err, "its checksum does not match")
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// failingWriter takes n bytes.
type failingWriter struct{ n int }

func (w *failingWriter) Write(b []byte) (int, error) {
	if len(b) > w.n {
		n := w.n
		w.n = 0
		return n, errBoom
	}
	w.n -= len(b)
	return len(b), nil
}

func TestSave_ReturnsTheWritersError(t *testing.T) {
	c := idemflight.MustNew(options{MaxEntries: fewEntries})
	executes(t, c, "a", 1)
	whole := len(savedBy(t, c))
	for n := range whole {
		err := c.Save(&failingWriter{n})
		require.ErrorIs(t, err, errBoom, "after %d of %d bytes", n, whole)
		require.ErrorContains(t, err, "idemflight: Save: the stream is cut: ")
	}
	require.NoError(t, c.Save(&failingWriter{whole}))

	// It stops there: the rest is not encoded for nobody.
	encoded := 0
	big := idemflight.MustNew(options{Codec: idemflight.Codec[string, int]{
		EncodeValue: func(int) ([]byte, error) { encoded++; return make([]byte, 10<<10), nil }}})
	for i := range 1000 {
		executes(t, big, keyNo(i), i)
	}
	require.ErrorIs(t, big.Save(&failingWriter{}), errBoom)
	require.Less(t, encoded, 20)
}

func TestLoad_ReturnsTheReadersError(t *testing.T) {
	c := idemflight.MustNew(options{MaxEntries: fewEntries})
	executes(t, c, "a", 1)
	stream := savedBy(t, c)
	for n := range stream {
		_, err := idemflight.MustNew(options{MaxEntries: fewEntries}).
			Load(bg, io.MultiReader(bytes.NewReader(stream[:n]), iotest.ErrReader(errBoom)))
		require.ErrorIs(t, err, errBoom, "after %d bytes", n)
	}
}

func TestLoad_StopsBetweenEntriesWhenItsContextEnds(t *testing.T) {
	old := idemflight.MustNew(options{})
	for i := range 10 {
		executes(t, old, keyNo(i), i)
	}
	stream := savedBy(t, old)
	c := idemflight.MustNew(options{})
	report, err := c.Load(dead(errEnough), bytes.NewReader(stream))
	require.ErrorIs(t, err, errEnough)
	require.Zero(t, report)
	require.Empty(t, entries(c))

	ctx, cancel := context.WithCancelCause(bg)
	decoded := 0
	c = idemflight.MustNew(options{Codec: idemflight.Codec[string, int]{DecodeValue: func([]byte) (int, error) {
		if decoded++; decoded == 3 {
			cancel(errEnough)
		}
		return 7, nil
	}}})
	report, err = c.Load(ctx, bytes.NewReader(stream))
	require.ErrorIs(t, err, errEnough)
	require.ErrorContains(t, err, "idemflight: Load: entries are missing after 3: ")
	require.Equal(t, idemflight.LoadReport{Restored: 3}, report)
	require.Len(t, entries(c), 3)

	//lint:ignore SA1012 a nil context is what this is about
	require.PanicsWithValue(t, "idemflight: Load called with a nil context", func() { _, _ = c.Load(nil, &bytes.Buffer{}) }) //nolint:staticcheck
}

// writerFunc is a writer that does something else, too.
type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

// The cache may be used while it is saved, by the writer as well: no lock is held.
func TestSave_HoldsNoLockWhileItWrites(t *testing.T) {
	c := idemflight.MustNew(options{})
	for i := range 10_000 {
		executes(t, c, keyNo(i), i)
	}
	var stream bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		writes := 0
		must(c.Save(writerFunc(func(b []byte) {
			writes++
			stream.Write(b)
			for i := range 1000 { // of every shard
				forget(c, keyNo(i))
				_, err := c.Do(bg, fmt.Sprint(writes, keyNo(i)), one)
				must(err)
			}
		})))
	}()
	soon(t, done, "a Save whose writer uses the cache")
	next := idemflight.MustNew(options{})
	report, err := next.Load(bg, &stream)
	require.NoError(t, err)
	require.GreaterOrEqual(t, report.Restored, 9_000)
	for i := 1000; i < 10_000; i++ {
		require.Equal(t, i, replays(t, next, keyNo(i)), "what was there all the time")
	}
}

func TestLoad_SeveralStreamsOfOneFile(t *testing.T) {
	var file bytes.Buffer
	for i := range 3 {
		c := idemflight.MustNew(options{MaxEntries: fewEntries})
		executes(t, c, theKey, i)
		require.NoError(t, c.Save(&file))
	}
	r := bufio.NewReader(&file)
	for i := range 3 {
		c := idemflight.MustNew(options{MaxEntries: fewEntries})
		_, err := c.Load(bg, r)
		require.NoError(t, err)
		require.Equal(t, i, replays(t, c, theKey))
	}
}

// Load does not wait for more than the stream: it may come from a process that is still there.
func TestLoad_EndsWithTheStream(t *testing.T) {
	c := idemflight.MustNew(options{MaxEntries: fewEntries})
	executes(t, c, theKey, 1)
	r, w := io.Pipe()
	go func() { must(c.Save(w)) }()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := idemflight.MustNew(options{MaxEntries: fewEntries}).Load(bg, r)
		must(err)
	}()
	soon(t, done, "a Load from a pipe that stays open")
}

// The bytes that DecodeValue gets are its own.
func TestCodec_DecodeValueMayKeepItsBytes(t *testing.T) {
	o := idemflight.Options[int, []byte]{Codec: idemflight.Codec[int, []byte]{DecodeValue: func(b []byte) ([]byte, error) { return b, nil }}}
	old := idemflight.MustNew(o)
	for i := range 100 {
		_, err := old.Do(bg, i, returns(fmt.Append(nil, "value ", i), nil))
		require.NoError(t, err)
	}
	c := loads(t, o, savedBy(t, old), idemflight.LoadReport{Restored: 100})
	for i, e := range entries(c) {
		require.Equal(t, fmt.Sprint("value ", i), string(e.Value))
	}
}

func TestPromise24_SaveAndLoadKeysOfEveryKind(t *testing.T) {
	keys := idemflight.MustNew(idemflight.Options[idemflight.Key, int]{})
	key := idemflight.Key{Scope: "acct/7", ID: "ä"}
	_, err := keys.Do(bg, key, returns(7, nil))
	require.NoError(t, err)
	stream := savedBy(t, keys)
	require.Contains(t, string(stream), key.String(), "a stream can be searched for a key")
	require.Equal(t, comparableEntries(keys), comparableEntries(loads(t, idemflight.Options[idemflight.Key, int]{}, stream, idemflight.LoadReport{Restored: 1})))

	ints := idemflight.MustNew(idemflight.Options[int, []byte]{})
	for _, i := range []int{0, -1, math.MaxInt, math.MinInt} {
		_, err := ints.Do(bg, i, returns([]byte{0, byte(i)}, nil))
		require.NoError(t, err)
	}
	require.Equal(t, comparableEntries(ints), comparableEntries(loads(t, idemflight.Options[int, []byte]{}, savedBy(t, ints), idemflight.LoadReport{Restored: 4})))
}

// A planned restart is not to take long. (Some 0.3 s each way; the bound leaves room for a busy machine.)
func TestSave_AHundredThousandEntriesQuickly(t *testing.T) {
	oneGoroutine(t)
	if os.Getenv("IDEMFLIGHT_HASHBITS") != "" {
		t.Skip("skipped: with all keys in a few chains nothing is quick")
	}
	const n = 100_000
	old := idemflight.MustNew(options{})
	for i := range n {
		_, err := old.Do(bg, keyNo(i), one)
		require.NoError(t, err)
	}
	began := time.Now()
	var stream bytes.Buffer
	require.NoError(t, old.Save(&stream))
	saved := time.Now()
	loads(t, options{}, stream.Bytes(), idemflight.LoadReport{Restored: n})
	t.Logf("%d bytes, saved in %v, loaded in %v", stream.Len(), saved.Sub(began), time.Since(saved))
	require.Less(t, time.Since(began), 20*time.Second)
}

// FuzzLoad: whatever a stream holds, Load neither panics nor restores what cannot be saved again; one that it
// takes for whole comes back the same.
func FuzzLoad(f *testing.F) {
	c := idemflight.MustNew(options{MaxEntries: fewEntries})
	_, _ = c.Do(bg, "a", one)
	_, _ = c.Do(bg, "b", returns(0, idemflight.Unknown(errBoom)), idemflight.WithFingerprint(fingerprint(1)))
	var seed bytes.Buffer
	must(c.Save(&seed))
	f.Add(seed.Bytes())
	f.Add(seed.Bytes()[:seed.Len()/2])
	f.Add(append(bytes.Clone(seed.Bytes()), "behind"...))
	f.Fuzz(func(t *testing.T, stream []byte) {
		for _, in := range [][]byte{stream, reframed(stream)} {
			c := idemflight.MustNew(options{MaxEntries: fewEntries})
			report, err := c.Load(bg, bytes.NewReader(in))
			require.NoError(t, c.CheckInvariants())
			require.LessOrEqual(t, c.Len(), report.Restored+report.Interrupted)
			if err == nil {
				require.Zero(t, report.Refused)
			}
			next := idemflight.MustNew(options{MaxEntries: fewEntries})
			_, err = next.Load(bg, bytes.NewReader(savedBy(t, c)))
			require.NoError(t, err)
		}
	})
}

// reframed makes a stream of which body is that of the only entry, so that the fuzzer need not guess checksums.
func reframed(body []byte) []byte {
	return framed([]byte("h\x04text\x04json"), append([]byte{'e'}, body...), trailer(1))
}

func trailer(entries byte) []byte { return []byte{'t', 7: 0, 8: entries, 16: 0} }

// framed makes a stream of frames with these bodies.
func framed(bodies ...[]byte) []byte {
	table := crc32.MakeTable(crc32.Castagnoli)
	stream := []byte("idemflight save 1\n")
	sum := crc32.Checksum(stream, table)
	for _, body := range bodies {
		length := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
		sum = crc32.Update(sum, table, length)
		stream = binary.BigEndian.AppendUint32(append(stream, length...), sum)
		sum = crc32.Update(sum, table, body)
		stream = binary.BigEndian.AppendUint32(append(stream, body...), sum)
	}
	return stream
}

// Frames whose checksums are right, and which Save would not write all the same.
func TestLoad_RefusesWhatSaveWouldNotWrite(t *testing.T) {
	head := []byte("h\x04text\x04json")
	end := time.Now().Add(time.Hour).Unix()
	entry := func(state, parts byte, ends int64, rest string) []byte {
		b := append([]byte{'e', state, 0, parts}, make([]byte, 16+12+12)...)
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, uint64(ends)), 0)
		return append(b, rest...)
	}
	good := entry(2, 1, end, "\x01k\x017")
	for name, tt := range map[string]struct {
		bodies [][]byte
		want   idemflight.LoadReport
		why    string // "": nothing is wrong
	}{
		"a whole one":              {[][]byte{head, good, trailer(1)}, idemflight.LoadReport{Restored: 1}, ""},
		"an empty frame":           {[][]byte{head, good, {}, trailer(1)}, idemflight.LoadReport{Restored: 1}, "after 1: the stream was changed here"},
		"an unknown frame":         {[][]byte{head, good, []byte("x"), trailer(1)}, idemflight.LoadReport{Restored: 1}, "after 1: the stream was changed here"},
		"no head":                  {[][]byte{good, trailer(1)}, idemflight.LoadReport{}, "nothing is restored"},
		"an entry too many":        {[][]byte{head, good, trailer(0)}, idemflight.LoadReport{Restored: 1}, "after 1: the stream was changed here"},
		"an entry too few":         {[][]byte{head, good, trailer(2)}, idemflight.LoadReport{Restored: 1}, "after 1: the stream was changed here"},
		"a short trailer":          {[][]byte{head, good, trailer(1)[:5]}, idemflight.LoadReport{Restored: 1}, "after 1: the stream was changed here"},
		"a short trailer of none":  {[][]byte{head, trailer(0)[:5]}, idemflight.LoadReport{}, "after 0: the stream was changed here"},
		"a long trailer":           {[][]byte{head, append(trailer(0), 0)}, idemflight.LoadReport{}, "after 0: the stream was changed here"},
		"an entry of one byte":     {[][]byte{head, good[:1], trailer(1)}, idemflight.LoadReport{Refused: 1}, "1 of 1 entries are refused"},
		"an entry without key":     {[][]byte{head, good[:56], trailer(1)}, idemflight.LoadReport{Refused: 1}, "1 of 1 entries are refused"},
		"an entry without value":   {[][]byte{head, entry(2, 0, end, "\x01k"), trailer(1)}, idemflight.LoadReport{Refused: 1}, "a value: "},
		"something behind it":      {[][]byte{head, append(bytes.Clone(good), 0), trailer(1)}, idemflight.LoadReport{Refused: 1}, "not in the form of version 1"},
		"a string without end":     {[][]byte{head, entry(2, 1, end, "\x01k\xff\xff\xff\xff\xff\xff\xff\xff\x7f7"), trailer(1)}, idemflight.LoadReport{Refused: 1}, "1 of 1 entries are refused"},
		"an error without text":    {[][]byte{head, entry(3, 2, end, "\x01k\x01x"), trailer(1)}, idemflight.LoadReport{Refused: 1}, "an error without text"},
		"an error with a bad name": {[][]byte{head, entry(3, 2, end, "\x01k\x02/\n"), trailer(1)}, idemflight.LoadReport{Refused: 1}, "the name of a sentinel"},
		"an origin, and more":      {[][]byte{head, entry(2, 1|4, end, "\x01k\x017\x37"+originNo(1).String()+"x"), trailer(1)}, idemflight.LoadReport{Refused: 1}, "not in the form of version 1"},
		"an origin":                {[][]byte{head, entry(2, 1|4, end, "\x01k\x017\x37"+originNo(1).String()), trailer(1)}, idemflight.LoadReport{Restored: 1}, ""},
		"a state that is none":     {[][]byte{head, entry(9, 1, end, "\x01k\x017"), trailer(1)}, idemflight.LoadReport{Refused: 1}, "State(9)"},
		"an absent one":            {[][]byte{head, entry(0, 1, end, "\x01k\x017"), trailer(1)}, idemflight.LoadReport{Refused: 1}, "absent"},
	} {
		t.Run(name, func(t *testing.T) {
			c := idemflight.MustNew(options{MaxEntries: fewEntries})
			report, err := c.Load(bg, bytes.NewReader(framed(tt.bodies...)))
			require.Equal(t, tt.want, report)
			require.Equal(t, tt.want.Restored, c.Len())
			if tt.why == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.why)
		})
	}

	// A value that is missing is not an empty one.
	texts := idemflight.MustNew(idemflight.Options[string, string]{MaxEntries: fewEntries})
	report, err := texts.Load(bg, bytes.NewReader(framed([]byte("h\x04text\x04text"), entry(2, 1, end, "\x01k"), trailer(1))))
	require.ErrorContains(t, err, "not in the form of version 1")
	require.Equal(t, idemflight.LoadReport{Refused: 1}, report)

	// A reason of a later version is none.
	for _, why := range []byte{11, 255} {
		c := idemflight.MustNew(options{MaxEntries: fewEntries})
		held := entry(3, 0, end, "\x01k")
		held[2] = why
		_, err := c.Load(bg, bytes.NewReader(framed(head, held, trailer(1))))
		require.NoError(t, err)
		_, err = c.Do(bg, "k", neverRuns(t))
		require.ErrorContains(t, err, "it was held when it was restored")
	}

	// A length beyond what Save writes is not believed, however right its checksum; the greatest that it may write is.
	for length, why := range map[uint32]string{math.MaxUint32: "the stream was changed here", 1<<30 + 1<<10 + 1: "the stream was changed here", 1<<30 + 1<<10: "the stream ends"} {
		stream := framed(head)
		sum := binary.BigEndian.Uint32(stream[len(stream)-4:])
		written := binary.BigEndian.AppendUint32(nil, length)
		stream = binary.BigEndian.AppendUint32(append(stream, written...), crc32.Update(sum, crc32.MakeTable(crc32.Castagnoli), written))
		_, err := idemflight.MustNew(options{MaxEntries: fewEntries}).Load(bg, bytes.NewReader(stream))
		require.ErrorContains(t, err, why, "%d bytes", length)
	}
}

// What a Codec says, or panics with, is in the error of Save and Load; what expires while it works is expired.
func TestSaveAndLoad_SayWhatTheCodecSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options{MaxEntries: fewEntries, TTL: time.Minute}
		c := idemflight.MustNew(o)
		executes(t, c, "a", 1)
		stream := savedBy(t, c)
		for _, fails := range []func() error{func() error { return errBoom }, func() error { panic(errBoom) }} {
			o.Codec.EncodeValue = func(int) ([]byte, error) { return nil, fails() }
			o.Codec.DecodeValue = func([]byte) (int, error) { return 0, fails() }
			bad := idemflight.MustNew(o)
			executes(t, bad, "a", 1)
			executes(t, bad, "b", 1)
			err := bad.Save(io.Discard)
			require.ErrorContains(t, err, "2 of 2 entries")
			require.ErrorContains(t, err, "boom")
			report, err := bad.Load(bg, bytes.NewReader(stream))
			require.ErrorContains(t, err, "boom")
			require.Equal(t, idemflight.LoadReport{Refused: 1}, report)
		}
		o.Codec.DecodeValue = func([]byte) (int, error) { time.Sleep(time.Hour); return 1, nil }
		report, err := idemflight.MustNew(o).Load(bg, bytes.NewReader(stream))
		require.NoError(t, err)
		require.Equal(t, idemflight.LoadReport{Expired: 1}, report)
	})
}

// A Codec that writes values its own way is not the default, even if it reads them as that does.
func TestSave_SaysWhoseFormValuesHave(t *testing.T) {
	o := idemflight.Options[string, string]{MaxEntries: fewEntries}
	o.Codec.EncodeValue = func(s string) ([]byte, error) { return []byte(s), nil }
	var out bytes.Buffer
	require.NoError(t, idemflight.MustNew(o).Save(&out))
	require.Contains(t, out.String(), "\x04text\x03own")
}

// Why a key is held comes with it.
func TestSave_KeepsWhyAKeyIsHeld(t *testing.T) {
	c := idemflight.MustNew(options{})
	_, err := c.Do(bg, theKey, func(ctx context.Context) (int, error) {
		return 0, errors.Join(idemflight.BeginEffect(ctx), errBoom)
	})
	require.ErrorIs(t, err, idemflight.ErrOutcomeUnknown)
	var saved bytes.Buffer
	require.NoError(t, c.Save(&saved))
	again := idemflight.MustNew(options{})
	_, err = again.Load(bg, &saved)
	require.NoError(t, err)
	_, err = again.Do(bg, theKey, neverRuns(t))
	require.ErrorContains(t, err, "fn failed after BeginEffect")
}
