package redisstore

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

func TestMicros_RoundsUp(t *testing.T) {
	for d, want := range map[time.Duration]int64{
		0: 0, 1: 1, time.Microsecond - 1: 1, time.Microsecond: 1, time.Microsecond + 1: 2, time.Second: 1_000_000,
	} {
		require.Equal(t, want, micros(d), "%d ns", d)
	}
}

// What is no answer of the scripts is an error.
func TestStanding_OfWhatIsNone(t *testing.T) {
	whole := []any{"held", "1000", nil, int64(1), nil, "", "", "5", "6", nil, "\nboom"}
	x, err := standing(whole)
	require.NoError(t, err)
	require.Equal(t, idemflight.Standing{
		State: idemflight.Held, ExpiresIn: time.Millisecond, Begun: true,
		StartedAt: time.UnixMicro(5), CompletedAt: time.UnixMicro(6), Err: []byte("\nboom"),
	}, x)
	replies := []any{nil, "OK", []any{}, []any{"no state"}}
	for _, i := range []int{1, 7, 8} {
		for _, number := range []any{nil, "soon"} {
			broken := slices.Clone(whole)
			broken[i] = number
			replies = append(replies, broken)
		}
	}
	for _, reply := range replies {
		_, err := standing(reply)
		require.Error(t, err, "%v", reply)
	}
}
