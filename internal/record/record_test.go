package record_test

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/record"
)

// What each verb answers in each state is tested by storetest, which runs internal/storetable on this state
// machine. Here is what an engine alone knows.

var (
	first = idemflight.ClaimRequest{
		Claim: idemflight.Claim{Key: "k", ID: idemflight.ClaimID{1}}, Lease: 10, HoldTTL: 100,
	}
	retain = idemflight.Settlement{Disposition: idemflight.Retain, Value: []byte("v"), TTL: 1000}
)

func claimed(q idemflight.ClaimRequest, at record.At) record.Record {
	r, _ := record.Claim(record.Record{}, q, at)
	return r
}

func TestLeaseEndCountsAsOver(t *testing.T) {
	r := claimed(first, record.At{Now: 1000})
	for now, want := range map[int64]idemflight.Standing{
		1000: {State: idemflight.InFlight, ExpiresIn: 10},
		1009: {State: idemflight.InFlight, ExpiresIn: 1},
		1010: {State: idemflight.Held, ExpiresIn: 100},
		1109: {State: idemflight.Held, ExpiresIn: 1},
		1110: {},
	} {
		x := record.Read(r, record.At{Now: now})
		require.Equal(t, want, idemflight.Standing{State: x.State, ExpiresIn: x.ExpiresIn}, "at %d", now)
	}
}

func TestLeaseEndIsTheEngines(t *testing.T) {
	r := claimed(first, record.At{Now: 1000, Epoch: 7})
	require.EqualValues(t, 7, r.Epoch)
	at := record.At{Now: 1_000_000, LeaseEnd: func(record.Record) int64 { return record.Forever }}
	x := record.Read(r, at)
	require.Equal(t, idemflight.InFlight, x.State)
	require.Negative(t, x.ExpiresIn, "a lease without end")
	require.EqualValues(t, record.Forever, record.End(r, at))

	at.LeaseEnd = func(record.Record) int64 { return 999_990 }
	x = record.Read(r, at)
	require.Equal(t, idemflight.Held, x.State)
	require.EqualValues(t, 90, x.ExpiresIn, "the hold begins when the engine says that the owner died")
	require.Equal(t, time.Unix(0, 999_990), x.CompletedAt)
}

func TestLongTimesHaveNoEnd(t *testing.T) {
	q := first
	q.Lease, q.HoldTTL = math.MaxInt64, math.MaxInt64
	at := record.At{Now: time.Now().UnixNano()}
	r := claimed(q, at)
	require.Negative(t, record.Read(r, at).ExpiresIn)
	long := retain
	long.TTL = math.MaxInt64
	r, _, err := record.Settle(r, q.Claim, long, at)
	require.NoError(t, err)
	require.Negative(t, record.Read(r, at).ExpiresIn)
	require.EqualValues(t, record.Forever, record.End(r, at))
}

func TestEnd(t *testing.T) {
	at := record.At{Now: 1000}
	open := claimed(first, at)
	require.EqualValues(t, 1000+10+100+10, record.End(open, at), "of one in flight: lease, hold, lease")

	settle := func(r record.Record, s idemflight.Settlement) record.Record {
		r, _, err := record.Settle(r, first.Claim, s, at)
		require.NoError(t, err)
		return r
	}
	require.EqualValues(t, 1000+1000+10, record.End(settle(open, retain), at), "of one retained: TTL, lease")
	released := settle(open, idemflight.Settlement{})
	require.EqualValues(t, 1000+10, record.End(released, at), "of a closed row: a lease")
	long, err := record.Begin(open, first.Claim, 500, at)
	require.NoError(t, err)
	require.EqualValues(t, 1000+500, record.End(settle(long, idemflight.Settlement{}), at), "of a closed row: as long as the lease would have been")
	require.EqualValues(t, 1000+500, record.End(settle(long, idemflight.Settlement{Disposition: idemflight.Retain}), at), "of one retained with TTL 0: as of a closed row")
	held := settle(open, idemflight.Settlement{Disposition: idemflight.Hold, TTL: -1})
	require.EqualValues(t, record.Forever, record.End(held, at), "of one held without end")
}

func TestSlicesAreCopied(t *testing.T) {
	at := record.At{Now: 1000}
	value := []byte("value")
	s := retain
	s.Value = value
	r, _, err := record.Settle(claimed(first, at), first.Claim, s, at)
	require.NoError(t, err)
	value[0] = 'X'
	x := record.Read(r, at)
	require.Equal(t, "value", string(x.Value))
	x.Value[0] = 'X'
	require.Equal(t, "value", string(record.Read(r, at).Value))
}

// What it was settled with counts, and that it was forgotten is part of the answer.
func TestARepeatOfSettleTellsThatItWasForgotten(t *testing.T) {
	at := record.At{Now: 1000}
	r, _, err := record.Settle(claimed(first, at), first.Claim, retain, at)
	require.NoError(t, err)
	r, found := record.Forget(r, first.Claim, at)
	require.True(t, found)
	_, x, err := record.Settle(r, first.Claim, retain, at)
	require.NoError(t, err)
	require.Equal(t, idemflight.Retained, x.State)
	require.True(t, x.Forgotten)
}

func full() record.Record {
	return record.Record{
		State: record.Held, Settled: true, Disposition: idemflight.Hold, Announced: true, Forgotten: true,
		ID: idemflight.ClaimID{1, 2}, Fingerprint: idemflight.Fingerprint{3, 4},
		Epoch: 5, Lease: 6, Hold: -1, Leased: 8, Started: 9, Completed: 10, Expires: record.Forever,
		Value: []byte{0, 255}, Err: []byte{},
	}
}

func TestEncode(t *testing.T) {
	retained := full()
	retained.State, retained.Settled, retained.Value, retained.Err = record.Retained, false, nil, make([]byte, 300)
	for _, r := range []record.Record{full(), retained, {State: record.Claimed}} {
		got, err := record.Decode(record.Encode(r))
		require.NoError(t, err)
		require.Equal(t, r, got)
	}
}

func TestDecodeRefusesForeignBytes(t *testing.T) {
	good := record.Encode(full())
	for i := range len(good) * 8 {
		bad := append([]byte(nil), good...)
		bad[i/8] ^= 1 << (i % 8)
		_, err := record.Decode(bad)
		require.Error(t, err, "bit %d changed", i)
	}
	for i := range good {
		_, err := record.Decode(good[:i])
		require.Error(t, err, "cut after %d bytes", i)
	}
	_, err := record.Decode(append(good, 0))
	require.Error(t, err, "a byte too many")
	_, err = record.Decode(record.Encode(record.Record{}))
	require.Error(t, err, "an absent record is not written")
}

// The checksum of these bytes is right: they are refused for their form.
func TestDecodeRefusesAnotherForm(t *testing.T) {
	seal := func(body []byte) []byte {
		return binary.BigEndian.AppendUint32(body, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	}
	good := record.Encode(full())
	body := good[: len(good)-4 : len(good)-4]
	require.Equal(t, good, seal(body), "a record ends with the CRC-32C of all before")
	for i := range body {
		_, err := record.Decode(seal(body[:i:i]))
		require.Error(t, err, "cut after %d bytes", i)
	}
	for what, changed := range map[string]struct {
		at int
		to byte
	}{
		"another version":      {0, 2},
		"an absent record":     {1, byte(record.Absent)},
		"an unknown state":     {1, byte(record.Closed) + 1},
		"an unknown flag":      {2, 8},
		"a new disposition":    {3, byte(idemflight.Hold) + 1},
		"an error without end": {len(body) - 1, 2},
	} {
		bad := append([]byte(nil), body...)
		bad[changed.at] = changed.to
		_, err := record.Decode(seal(bad))
		require.Error(t, err, what)
	}
	_, err := record.Decode(seal(append(body, 0)))
	require.Error(t, err, "a byte too many")
}

func FuzzDecode(f *testing.F) {
	f.Add(record.Encode(full()))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := record.Decode(b); err == nil {
			require.Equal(t, b, record.Encode(r))
		}
	})
}
