package idemflight_test

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
	"weak"

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

// checkKeyAlone expects the same of the check by which every method begins. (With a cache for each type of
// keys, the compiler would take minutes.)
func checkKeyAlone[K comparable](t *testing.T, name string, key K, valid bool) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		if err := idemflight.CheckKey(key); valid {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, idemflight.ErrInvalidKey)
		}
	})
}

// text is a string with a method.
type text string

func (s text) String() string { return string(s) }

// Promise 21: A key that is missing, has a part missing, or is not equal to itself gets
// ErrInvalidKey, and fn does not run. The cache keeps its own copy of a string key.
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
	checkKeyAlone(t, "empty named string", name(""), false)
	checkKeyAlone(t, "zero struct", pair{}, false)
	checkKeyAlone(t, "zero array", [2]byte{}, false)
	checkKeyAlone(t, "nil pointer", (*int)(nil), false)
	checkKeyAlone(t, "nil channel", (chan int)(nil), false)
	checkKey(t, "nil interface", any(nil), false)
	// ... unless K is numeric or bool.
	checkKey(t, "int 0", 0, true)
	checkKeyAlone(t, "named int 0", number(0), true)
	checkKeyAlone(t, "uintptr 0", uintptr(0), true)
	checkKeyAlone(t, "duration 0", time.Duration(0), true)
	checkKeyAlone(t, "float 0", 0.0, true)
	checkKeyAlone(t, "float -0", math.Copysign(0, -1), true)
	checkKeyAlone(t, "complex 0", complex128(0), true)
	checkKeyAlone(t, "false", false, true)
	checkKeyAlone(t, "named false", flag(false), true)

	checkKey(t, "string", " ", true)
	checkKeyAlone(t, "struct", pair{B: 1}, true)
	checkKeyAlone(t, "array", [2]byte{0, 1}, true)
	checkKeyAlone(t, "pointer", new(int), true)
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
	checkKeyAlone(t, "embedded type made from Key, without ID", likeStep{like{Scope: "s"}, "charge"}, false)
	checkKeyAlone(t, "embedded type made from Key", likeStep{like(whole), "charge"}, true)
	checkKeyAlone(t, "Key embedded at depth, without both", deepStep{1, step{Step: "charge"}}, false)
	checkKeyAlone(t, "Key embedded at depth, without ID", deepStep{1, step{idemflight.Key{Scope: "s"}, "charge"}}, false)
	checkKeyAlone(t, "Key embedded at depth", deepStep{0, step{whole, ""}}, true)
	checkKeyAlone(t, "a Key among the fields", field{Step: "charge"}, true)
	checkKeyAlone(t, "zero, with a Key among the fields", field{}, false)
	checkKeyAlone(t, "no Key at all", twin{ID: "i"}, true)

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
	checkKeyAlone(t, "empty string in an interface with methods", fmt.Stringer(text("")), false)
	checkKeyAlone(t, "string in an interface with methods", fmt.Stringer(text("k")), true)
	checkKeyAlone(t, "Key in an interface with methods, without Scope", fmt.Stringer(idemflight.Key{ID: "i"}), false)

	checkKeyAlone(t, "NaN", nan, false)
	checkKeyAlone(t, "complex NaN", complex(0, nan), false)
	checkKeyAlone(t, "NaN in a struct", deep{A: nan, P: new(int)}, false)
	checkKeyAlone(t, "NaN in an array", [1]float64{nan}, false)
	checkKey(t, "NaN in an interface", any(nan), false)
	checkKeyAlone(t, "infinity", math.Inf(1), true)
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

// invalid returns what every method says to the key.
func invalid[K comparable](key K) error {
	return idemflight.CheckKey(key)
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

// The characters that stand for themselves are those of RFC 3986; all others are escaped.
func TestKey_TheTextEscapesNothingThatNeedsNone(t *testing.T) {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
	require.Equal(t, plain+"/"+plain, idemflight.Key{Scope: plain, ID: plain}.String())
	for c := range 256 {
		id := string([]byte{byte(c)})
		require.Equal(t, strings.Contains(plain, id), strings.HasSuffix(idemflight.Key{Scope: "s", ID: id}.String(), "/"+id), "%q", id)
	}
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

// checkReuse expects that a cache keeps its own copy of a key, what its caller does to the bytes while
// the flight is on notwithstanding. with makes a key of a text.
func checkReuse[K comparable](t *testing.T, name string, with func(string) K) {
	t.Run(name, func(t *testing.T) {
		for how, end := range map[string]error{"retained": nil, "held": idemflight.Unknown(errBoom), "released": idemflight.Retryable(errBoom)} {
			for leader, opts := range map[string][]idemflight.CallOption{"on its own goroutine": nil, "inline": {idemflight.Inline()}} {
				synctest.Test(t, func(t *testing.T) {
					what := how + ", " + leader
					var asked []K
					log := &eventLog[K]{}
					c := idemflight.MustNew(idemflight.Options[K, int]{
						MaxEntries: 1, MinRetention: -1, Observer: log.observe, Weigh: func(K, int) int64 { return 1 }, MaxWeight: 10,
						Reconcile: func(_ context.Context, key K, _ idemflight.Entry[int]) (int, error) {
							asked = append(asked, key)
							return 2, nil
						},
					})
					buffer := []byte("order-A")
					reused := with(unsafe.String(&buffer[0], len(buffer)))
					keyA, keyB := with("order-A"), with("order-B")
					gate := newGate(t)
					led := start(c, t.Context(), reused, func(context.Context) (int, error) { gate.wait(); return 1, end }, opts...)
					synctest.Wait()
					copy(buffer, "order-B") // the next request on this connection
					require.Equal(t, keyB, reused, "the bytes of the caller's key have changed")

					e, ok := lookup(c, keyA)
					require.True(t, ok, "%s: the key as it was is in flight", what)
					require.Equal(t, idemflight.InFlight, e.State)
					_, ok = lookup(c, keyB)
					require.False(t, ok, "%s: what the bytes say now is no key of the cache", what)
					joined := start(c, t.Context(), keyA, neverRunsAs[int](t))
					synctest.Wait()
					gate.open()
					synctest.Wait()
					require.Nil(t, led.panicked, "%s: the leader must not panic", what)
					require.True(t, led.returned() && joined.returned(), "%s: nobody hangs", what)
					require.Equal(t, idemflight.Joined, joined.res.Source, "%s: a caller with the key as it was joins", what)
					copy(buffer, "order-C")

					told := log.of(idemflight.EventExecuted)
					require.Len(t, told, 1)
					require.Equal(t, keyA, told[0].Key, "%s: the event has the key as it was", what)
					var kept []K
					for k := range c.All() {
						kept = append(kept, k)
					}
					if how == "released" {
						require.Empty(t, kept, "%s: nothing is kept", what)
						return
					}
					require.Equal(t, []K{keyA}, kept, "%s: the key is kept as it was", what)
					if how == "held" {
						e, err := c.Reconcile(bg, keyA)
						require.NoError(t, err)
						require.Equal(t, 2, e.Value)
						require.Equal(t, []K{keyA}, asked, "%s: Reconcile is given the key as it was", what)
					}
					r, err := c.DoResult(bg, keyA, neverRunsAs[int](t))
					require.NoError(t, err, what)
					require.Equal(t, idemflight.Replayed, r.Source, "%s: the key as it was is replayed", what)
					_, err = c.Do(bg, with("order-D"), returns(4, nil))
					require.NoError(t, err, "%s: another key takes its place", what)
					require.Equal(t, []K{keyA}, log.keys(idemflight.EventEvicted), "%s: the key as it was is evicted", what)
					require.NoError(t, c.CheckInvariants())
				})
			}
		}
		c := idemflight.MustNew(idemflight.Options[K, int]{MaxEntries: fewEntries})
		for i, e := range []idemflight.Entry[int]{
			retainedEntry(1, time.Now().Add(time.Hour)), {State: idemflight.Held, Err: errBoom}, {State: idemflight.InFlight},
			{State: idemflight.Shed, StartedAt: time.Now(), CompletedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)},
		} {
			buffer := fmt.Appendf(nil, "restored-%d", i)
			require.NoError(t, c.Restore(bg, with(unsafe.String(&buffer[0], len(buffer))), e))
			copy(buffer, "something")
			_, ok := lookup(c, with(fmt.Sprint("restored-", i)))
			require.True(t, ok, "Restore copies the text of a key too, of one that was %v", e.State)
		}
		require.NoError(t, c.CheckInvariants())
	})
}

// Frameworks with pooled buffers make strings of bytes that they use again for the next request.
func TestPromise21_TheCacheKeepsItsOwnCopyOfAKey(t *testing.T) {
	type (
		name  string
		order struct{ ID string }
		line  struct {
			Number int
			Order  order
			Steps  [2]name
		}
		like idemflight.Key
		step struct {
			idemflight.Key
			Step string
		}
	)
	checkReuse(t, "string", func(s string) string { return s })
	checkReuse(t, "named string", func(s string) name { return name(s) })
	checkReuse(t, "Key", func(s string) idemflight.Key { return idemflight.Key{Scope: s, ID: s[1:]} })
	checkReuse(t, "made from Key", func(s string) like { return like{Scope: "shop", ID: s} })
	checkReuse(t, "embeds Key", func(s string) step { return step{idemflight.Key{Scope: "shop", ID: s}, s[:5]} })
	checkReuse(t, "struct and array of strings", func(s string) line { return line{7, order{s}, [2]name{"", name(s[2:])}} })
}

// A held key has its own text, which a call that asks Reconcile about it must not replace with the caller's.
func TestPromise21_ReconcileLeavesAHeldKeyItsOwnText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := newGate(t)
		c := idemflight.MustNew(options{Reconcile: func(context.Context, string, idemflight.Entry[int]) (int, error) {
			gate.wait()
			return 2, nil
		}})
		hold(t, c, "order-A")
		buffer := []byte("order-A")
		led := start(c, t.Context(), unsafe.String(&buffer[0], len(buffer)), neverRuns(t))
		synctest.Wait()
		copy(buffer, "order-B") // the next request on this connection
		e, _ := lookup(c, "order-A")
		require.Equal(t, idemflight.InFlight, e.State, "the key as it was is being reconciled")
		joined := start(c, t.Context(), "order-A", neverRuns(t))
		synctest.Wait()
		gate.open()
		synctest.Wait()
		led.got(t, idemflight.Reconciled, 2)
		joined.got(t, idemflight.Joined, 2)
		require.Equal(t, 2, replays(t, c, "order-A"), "the key as it was is retained")
		require.NoError(t, c.CheckInvariants())
	})
}

// textOfAMegabyte is a text from which keys are cut.
type textOfAMegabyte [1 << 20]byte

// cut calls use with a string cut from a large text, and returns what tells whether the text is garbage.
//
//go:noinline
func cut(use func(key string)) weak.Pointer[textOfAMegabyte] {
	text := new(textOfAMegabyte)
	copy(text[1000:], "order-A")
	use(unsafe.String(&text[1000], len("order-A")))
	return weak.Make(text)
}

// A key that was cut from a large text keeps no more than itself alive.
func TestPromise21_AKeyKeepsNoMoreThanItselfAlive(t *testing.T) {
	gone := func(t *testing.T, text weak.Pointer[textOfAMegabyte], c interface{ Len() int }) {
		t.Helper()
		for range 3 {
			runtime.GC()
		}
		require.Nil(t, text.Value(), "the text that the key was cut from is garbage")
		require.Equal(t, 1, c.Len(), "the key is kept")
	}
	for name, end := range map[string]error{"retained": nil, "final": idemflight.Final(errBoom), "held": idemflight.Unknown(errBoom)} {
		t.Run(name, func(t *testing.T) {
			c := idemflight.MustNew(options{MaxEntries: fewEntries})
			gone(t, cut(func(key string) { _, _ = c.Do(bg, key, returns(1, end)) }), c)
			runtime.KeepAlive(c)
		})
	}
	t.Run("Key", func(t *testing.T) {
		c := idemflight.MustNew(idemflight.Options[idemflight.Key, int]{MaxEntries: fewEntries})
		gone(t, cut(func(key string) { _, _ = c.Do(bg, idemflight.Key{Scope: key[:3], ID: key}, one) }), c)
		runtime.KeepAlive(c)
	})
	t.Run("restored", func(t *testing.T) {
		c := idemflight.MustNew(options{MaxEntries: fewEntries})
		gone(t, cut(func(key string) { must(c.Restore(bg, key, retainedEntry(1, time.Now().Add(time.Hour)))) }), c)
		runtime.KeepAlive(c)
	})
	t.Run("in flight, its leader gone", func(t *testing.T) {
		c := idemflight.MustNew(options{MaxEntries: fewEntries})
		gate, ended := newGate(t), make(chan struct{})
		text := cut(func(key string) {
			ctx, cancel := context.WithCancel(bg)
			_, err := c.Do(ctx, key, func(context.Context) (int, error) {
				defer close(ended)
				cancel()
				gate.wait()
				return 1, nil
			})
			require.ErrorIs(t, err, idemflight.ErrCallerLeft)
		})
		for range 3 {
			runtime.GC()
		}
		require.Nil(t, text.Value(), "the text that the key was cut from is garbage")
		require.Equal(t, 1, c.Stats().InFlight, "the key is in flight")
		gate.open()
		soon(t, ended, "fn")
	})
}
