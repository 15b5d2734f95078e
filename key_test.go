package idemflight_test

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
)

// checkKey expects of a key that Do runs fn, or that no method accepts it.
func checkKey[K comparable](t *testing.T, name string, key K, valid bool) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			log := &eventLog[K]{}
			c := idemflight.MustNew(idemflight.Options[K, int]{Observer: log.observe})
			ran := 0
			fn := func(context.Context) (int, error) { ran++; return 1, nil }
			if valid {
				for range 2 {
					v, err := c.Do(bg, key, fn)
					require.NoError(t, err, "a valid key")
					require.Equal(t, 1, v)
				}
				require.Equal(t, 1, ran)
				_, ok := lookup(c, key)
				require.True(t, ok)
				return
			}
			for range 2 {
				r, err := c.DoResult(bg, key, fn)
				require.ErrorIs(t, err, idemflight.ErrInvalidKey)
				require.Zero(t, r, "no outcome was obtained")
			}
			require.Zero(t, ran, "fn does not run for an invalid key")
			_, ok := lookup(c, key)
			require.False(t, ok)
			require.False(t, forget(c, key))
			require.False(t, resolve(c, key, 1, nil))
			require.ErrorIs(t, c.Restore(bg, key, retainedEntry(1, time.Now().Add(time.Hour))), idemflight.ErrInvalidKey)
			require.Zero(t, c.Len())
			require.Equal(t, idemflight.Stats{InvalidKey: 2}, c.Stats())
			require.Len(t, log.of(idemflight.EventRejected), 2)
			require.Len(t, log.of(callKinds...), 2)
		})
	})
}

// text is a string with a method.
type text string

func (s text) String() string { return string(s) }

func TestPromise21_InvalidKeys(t *testing.T) {
	type (
		name   string
		number int32
		flag   bool
		pair   struct {
			A string
			B int
		}
		deep struct {
			A float64
			P *int
		}
		like idemflight.Key // made from Key: the same rules
		step struct {       // embeds it: the same rules
			idemflight.Key
			Step string
		}
		likeStep struct {
			like
			Step string
		}
		deepStep struct {
			N int
			step
		}
		field struct { // has one as an ordinary field: a zero step is a step, too
			Order idemflight.Key
			Step  string
		}
		twin struct { // the fields of Key, but neither made from it nor convertible to it
			ID, Scope string
		}
	)
	whole := idemflight.Key{Scope: "s", ID: "i"}
	nan := math.NaN()
	// Each type is a Cache to compile, so there is one of each sort.

	// The zero value of K is no caller's key ...
	checkKey(t, "empty string", "", false)
	checkKey(t, "empty named string", name(""), false)
	checkKey(t, "zero struct", pair{}, false)
	checkKey(t, "zero array", [2]byte{}, false)
	checkKey(t, "nil pointer", (*int)(nil), false)
	checkKey(t, "nil channel", (chan int)(nil), false)
	checkKey(t, "nil interface", any(nil), false)
	// ... unless K is numeric or bool.
	checkKey(t, "int 0", 0, true)
	checkKey(t, "named int 0", number(0), true)
	checkKey(t, "uintptr 0", uintptr(0), true)
	checkKey(t, "duration 0", time.Duration(0), true)
	checkKey(t, "float 0", 0.0, true)
	checkKey(t, "float -0", math.Copysign(0, -1), true)
	checkKey(t, "complex 0", complex128(0), true)
	checkKey(t, "false", false, true)
	checkKey(t, "named false", flag(false), true)

	checkKey(t, "string", " ", true)
	checkKey(t, "struct", pair{B: 1}, true)
	checkKey(t, "array", [2]byte{0, 1}, true)
	checkKey(t, "pointer", new(int), true)
	checkKey(t, "interface", any("k"), true)

	checkKey(t, "Key without both", idemflight.Key{}, false)
	checkKey(t, "Key without ID", idemflight.Key{Scope: "s"}, false)
	checkKey(t, "Key without Scope", idemflight.Key{ID: "i"}, false)
	checkKey(t, "Key", whole, true)
	checkKey(t, "made from Key, without ID", like{Scope: "s"}, false)
	checkKey(t, "made from Key, without Scope", like{ID: "i"}, false)
	checkKey(t, "made from Key", like(whole), true)
	checkKey(t, "embedded Key without both", step{Step: "charge"}, false)
	checkKey(t, "embedded Key without ID", step{idemflight.Key{Scope: "s"}, "charge"}, false)
	checkKey(t, "embedded Key without Scope", step{idemflight.Key{ID: "i"}, "charge"}, false)
	checkKey(t, "embedded Key, no step", step{Key: whole}, true)
	checkKey(t, "embedded Key", step{whole, "charge"}, true)
	checkKey(t, "embedded type made from Key, without ID", likeStep{like{Scope: "s"}, "charge"}, false)
	checkKey(t, "embedded type made from Key", likeStep{like(whole), "charge"}, true)
	checkKey(t, "Key embedded at depth, without both", deepStep{1, step{Step: "charge"}}, false)
	checkKey(t, "Key embedded at depth, without ID", deepStep{1, step{idemflight.Key{Scope: "s"}, "charge"}}, false)
	checkKey(t, "Key embedded at depth", deepStep{0, step{whole, ""}}, true)
	checkKey(t, "a Key among the fields", field{Step: "charge"}, true)
	checkKey(t, "zero, with a Key among the fields", field{}, false)
	checkKey(t, "no Key at all", twin{ID: "i"}, true)

	// A key of interface type is what is in it.
	checkKey(t, "empty string in an interface", any(""), false)
	checkKey(t, "empty named string in an interface", any(name("")), false)
	checkKey(t, "zero struct in an interface", any(pair{}), false)
	checkKey(t, "zero array in an interface", any([2]byte{}), false)
	checkKey(t, "nil pointer in an interface", any((*int)(nil)), false)
	checkKey(t, "int 0 in an interface", any(0), true)
	checkKey(t, "named int 0 in an interface", any(number(0)), true)
	checkKey(t, "float 0 in an interface", any(0.0), true)
	checkKey(t, "false in an interface", any(false), true)
	checkKey(t, "named false in an interface", any(flag(false)), true)
	checkKey(t, "Key in an interface, without both", any(idemflight.Key{}), false)
	checkKey(t, "Key in an interface, without ID", any(idemflight.Key{Scope: "s"}), false)
	checkKey(t, "Key in an interface", any(whole), true)
	checkKey(t, "embedded Key in an interface, without Scope", any(deepStep{1, step{idemflight.Key{ID: "i"}, "charge"}}), false)
	checkKey(t, "embedded Key in an interface", any(step{Key: whole}), true)
	checkKey(t, "empty string in an interface with methods", fmt.Stringer(text("")), false)
	checkKey(t, "string in an interface with methods", fmt.Stringer(text("k")), true)
	checkKey(t, "Key in an interface with methods, without Scope", fmt.Stringer(idemflight.Key{ID: "i"}), false)

	checkKey(t, "NaN", nan, false)
	checkKey(t, "complex NaN", complex(0, nan), false)
	checkKey(t, "NaN in a struct", deep{A: nan, P: new(int)}, false)
	checkKey(t, "NaN in an array", [1]float64{nan}, false)
	checkKey(t, "NaN in an interface", any(nan), false)
	checkKey(t, "infinity", math.Inf(1), true)
}

// The error says which part is missing.
func TestPromise21_TheErrorSaysWhatIsMissing(t *testing.T) {
	type step struct {
		idemflight.Key
		Step string
	}
	nan := math.NaN()
	for _, tc := range []struct {
		err  error
		want string
	}{
		{invalid(""), "it is the zero value"},
		{invalid([2]byte{}), "it is the zero value"},
		{invalid(any(nil)), "it is the zero value"},
		{invalid(any("")), "it is the zero value"},
		{invalid(idemflight.Key{ID: "i"}), "its Scope is missing"},
		{invalid(idemflight.Key{Scope: "s"}), "its ID is missing"},
		{invalid(step{idemflight.Key{ID: "i"}, "charge"}), "its Scope is missing"},
		{invalid(step{idemflight.Key{Scope: "s"}, "charge"}), "its ID is missing"},
		{invalid(any(idemflight.Key{Scope: "s"})), "its ID is missing"},
		{invalid(nan), "it is not equal to itself (NaN)"},
	} {
		require.ErrorIs(t, tc.err, idemflight.ErrInvalidKey)
		require.EqualError(t, tc.err, idemflight.ErrInvalidKey.Error()+": "+tc.want)
	}
}

// invalid returns what Do says to the key.
func invalid[K comparable](key K) error {
	_, err := idemflight.MustNew(idemflight.Options[K, int]{MaxEntries: 1}).Do(bg, key, one)
	return err
}

// Once: a Key without Scope passed for valid inside a key of interface type.
func TestErrInvalidKey_ForAnInterfaceThatHoldsAKeyWithoutScope(t *testing.T) {
	c := idemflight.MustNew(idemflight.Options[any, int]{})
	_, err := c.Do(bg, idemflight.Key{ID: "1"}, one)
	require.ErrorIs(t, err, idemflight.ErrInvalidKey)
	_, err = c.Do(bg, idemflight.Key{Scope: "s", ID: "1"}, one)
	require.NoError(t, err)
}

// A zero that is a key, and floats that are equal without having the same bits.
func TestPromise21_NegativeZeroIsZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[float64, int]{})
		_, err := c.Do(bg, 0.0, returns(1, nil))
		require.NoError(t, err)
		v, err := c.Do(bg, math.Copysign(0, -1), neverRuns(t))
		require.NoError(t, err)
		require.Equal(t, 1, v, "-0 and 0 are one key, as they are equal")
	})
}

func TestKey_ScopesDoNotMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[idemflight.Key, int]{})
		for i, k := range []idemflight.Key{{Scope: "a", ID: "1"}, {Scope: "b", ID: "1"}, {Scope: "a", ID: "2"}, {Scope: "a1", ID: "1"}, {Scope: "a", ID: "11"}} {
			v, err := c.Do(bg, k, returns(i, nil))
			require.NoError(t, err)
			require.Equal(t, i, v, "%v is a key of its own", k)
		}
	})
}

func TestNewID_IsARandomUUIDv4(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	var mu sync.Mutex
	seen := map[string]bool{}
	digits := map[int]map[byte]bool{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				id := idemflight.NewID()
				mu.Lock()
				if !form.MatchString(id) || seen[id] {
					t.Errorf("NewID gave %q, expected a UUID v4 that was not given before", id)
				}
				seen[id] = true
				for i := range len(id) {
					if digits[i] == nil {
						digits[i] = map[byte]bool{}
					}
					digits[i][id[i]] = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for i, d := range digits {
		switch i {
		case 8, 13, 18, 23, 14: // the dashes and the version
		case 19:
			require.Len(t, d, 4, "the variant leaves two random bits at position %d", i)
		default:
			require.Len(t, d, 16, "every digit is random at position %d", i)
		}
	}
}
