package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/idemflight/idemflight"
)

// CheckCodec tests what comes back of values and errors that c has written, by
// [idemflight.Cache.Save] or into a Store. It fails for
//
//   - each value that cannot be written or read, or that is not equal to what it was, by
//     reflect.DeepEqual (a time.Time from time.Now is not: its monotonic clock is not written, so
//     use its Round(0));
//   - each error that does not have the same text, or in which errors.Is finds nothing any
//     more: neither the error itself nor one that it wraps. Pass the errors that callers tell
//     apart; whatever they test for needs a name in c.Sentinels. The parts that errors.Is does
//     not find are logged.
//
// errors.As finds none of the types that an error had, whatever the Codec. Keys are not checked.
func CheckCodec[K comparable, V any](t *testing.T, c idemflight.Codec[K, V], values []V, errs []error) {
	t.Helper()
	failures, notes := checkCodec(c, values, errs)
	for _, failure := range failures {
		t.Error(failure)
	}
	for _, note := range notes {
		t.Log(note)
	}
}

func checkCodec[K comparable, V any](c idemflight.Codec[K, V], values []V, errs []error) (failures, notes []string) {
	forText := idemflight.Codec[string, V]{EncodeValue: c.EncodeValue, DecodeValue: c.DecodeValue, Sentinels: c.Sentinels}
	for i, value := range values {
		got, err := roundTrip(forText, idemflight.Entry[V]{Value: value})
		switch {
		case err != nil:
			failures = append(failures, fmt.Sprintf("values[%d] (%T) does not come back: %v", i, value, err))
		case !reflect.DeepEqual(value, got.Value):
			failures = append(failures, fmt.Sprintf("values[%d] (%T) comes back as something else:\n%s", i, value, different(value, got.Value)))
		}
	}
	for i, err := range errs {
		got, failed := roundTrip(forText, idemflight.Entry[V]{Err: err})
		switch {
		case failed != nil:
			failures = append(failures, fmt.Sprintf("errs[%d] (%v) does not come back: %v", i, err, failed))
			continue
		case err == nil && got.Err == nil:
			continue
		case err == nil || got.Err == nil || err.Error() != got.Err.Error():
			failures = append(failures, fmt.Sprintf("errs[%d] (%v) comes back as another: %v", i, err, got.Err))
			continue
		}
		found := 0
		for _, part := range parts(err) {
			if errors.Is(got.Err, part) {
				found++
			} else {
				notes = append(notes, fmt.Sprintf("errs[%d] (%v): errors.Is does not find its %T (%v) in what comes back", i, err, part, part))
			}
		}
		if found == 0 {
			failures = append(failures, fmt.Sprintf("errs[%d] (%v) comes back as a text alone: give what callers test for a name in Codec.Sentinels", i, err))
		}
	}
	return failures, notes
}

func different(want, got any) string {
	var out collector
	assert.Equal(&out, want, got)
	return out.text
}

// collector collects what an assertion says.
type collector struct{ text string }

func (c *collector) Errorf(format string, args ...any) { c.text += fmt.Sprintf(format, args...) }

// parts returns err and all that it wraps.
func parts(err error) []error {
	all := []error{err}
	switch err := err.(type) {
	case interface{ Unwrap() error }:
		if inner := err.Unwrap(); inner != nil {
			all = append(all, parts(inner)...)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range err.Unwrap() {
			if inner != nil {
				all = append(all, parts(inner)...)
			}
		}
	}
	return all
}

// roundTrip saves an outcome in one cache, and loads it in another.
func roundTrip[V any](c idemflight.Codec[string, V], e idemflight.Entry[V]) (idemflight.Entry[V], error) {
	const key = "key"
	ctx := context.Background()
	e.State, e.StartedAt, e.CompletedAt = idemflight.Retained, time.Now(), time.Now()
	e.ExpiresAt = time.Now().Add(long)
	opts := idemflight.Options[string, V]{Codec: c, MaxEntries: 1}
	before, err := idemflight.New(opts)
	if err != nil {
		return e, err
	}
	defer func() { _ = before.Close(ctx) }()
	after, err := idemflight.New(opts)
	if err != nil {
		return e, err
	}
	defer func() { _ = after.Close(ctx) }()
	var saved bytes.Buffer
	if err := before.Restore(ctx, key, e); err != nil {
		return e, err
	}
	if err := before.Save(&saved); err != nil {
		return e, err
	}
	if _, err := after.Load(ctx, &saved); err != nil {
		return e, err
	}
	got, _, err := after.Lookup(ctx, key)
	return got, err
}
