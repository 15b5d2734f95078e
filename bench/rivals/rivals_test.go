package rivals_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight/bench/internal/keys"
	"github.com/idemflight/idemflight/bench/rivals"
)

// TestContract holds this library to what it promises. The others are logged: what they do is
// theirs, and the report tells it.
func TestContract(t *testing.T) {
	list := keys.New(500)
	for _, r := range rivals.All[int]() {
		t.Run(r.Name, func(t *testing.T) {
			c := rivals.Check(r, list)
			t.Logf("%+v", c)
			want := rivals.Contract{
				Keys: len(list), Executions: 1,
				LeaderLeaves: true, WorkGoesOn: true, Others: rivals.OthersValue, WaiterLeaves: true,
			}
			switch r.Name {
			case "idemflight":
				require.Equal(t, want, c)
			case "idemflight-inline":
				want.LeaderLeaves = false
				require.Equal(t, want, c)
			}
		})
	}
}

// TestFeatures tries what the table says of each rival.
func TestFeatures(t *testing.T) {
	boom := errors.New("boom")
	for _, r := range rivals.All[int]() {
		t.Run(r.Name, func(t *testing.T) {
			runs := 0
			s := r.Open(rivals.Options[int]{Capacity: 1000, TTL: time.Hour, Load: func(_ context.Context, key string) (int, error) {
				runs++
				if key == "fails" {
					return 0, boom
				}
				return 7, nil
			}})
			defer s.Close()
			for range 3 {
				v, err := s.Do(t.Context(), "key")
				require.NoError(t, err)
				require.Equal(t, 7, v)
			}
			require.Equal(t, r.Keeps, runs == 1, "runs: %d", runs)
			_, err := s.Do(t.Context(), "fails")
			require.Error(t, err)
			require.Equal(t, r.Errors, errors.Is(err, boom))
		})
	}
}

// TestBound fills each rival that has a bound ten times over.
func TestBound(t *testing.T) {
	const capacity = 1000
	list := keys.New(10 * capacity)
	for _, r := range rivals.All[int]() {
		if !r.Keeps {
			continue
		}
		t.Run(r.Name, func(t *testing.T) {
			runs := 0
			s := r.Open(rivals.Options[int]{Capacity: capacity, TTL: time.Hour, Load: func(context.Context, string) (int, error) {
				runs++
				return 1, nil
			}})
			defer s.Close()
			for range 2 {
				for _, key := range list {
					_, err := s.Do(t.Context(), key)
					require.NoError(t, err)
				}
			}
			require.Equal(t, r.Bounded, runs > len(list), "runs: %d", runs)
		})
	}
}

func TestNamed(t *testing.T) {
	found, unknown := rivals.Named[int]([]string{"otter", "nobody", "idemflight"})
	require.Equal(t, []string{"nobody"}, unknown)
	require.Len(t, found, 2)
	require.Equal(t, "idemflight", found[0].Name, "the order is that of All")
}
