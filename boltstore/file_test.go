package boltstore_test

import (
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/boltstore"
)

func TestSecondOpenIsRefusedAtOnce(t *testing.T) {
	path := newPath(t)
	d := open(t, path)
	start := time.Now()
	_, err := boltstore.Open(path, boltstore.Options{})
	require.ErrorContains(t, err, path)
	require.ErrorContains(t, err, "in use")
	require.Less(t, time.Since(start), 5*time.Second)
	require.NoError(t, d.Close())
	again := open(t, path)
	require.NoError(t, again.Close())
}

// refused asserts that a file is not opened, that the error names it, and that it is left as it is.
func refused(t *testing.T, content []byte, why string) {
	t.Helper()
	path := newPath(t)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	_, err := boltstore.Open(path, boltstore.Options{})
	require.Error(t, err)
	require.ErrorContains(t, err, path)
	require.ErrorContains(t, err, why)
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, string(content) == string(after), "the file was changed")
}

func TestForeignFiles(t *testing.T) {
	refused(t, []byte("not a database"), "")
	refused(t, []byte(strings.Repeat("a long text that is no database\n", 10_000)), "")
	refused(t, make([]byte, 100_000), "")

	bucket := func(write func(tx *bolt.Tx) error) []byte {
		path := newPath(t)
		db, err := bolt.Open(path, 0o600, nil)
		require.NoError(t, err)
		require.NoError(t, db.Update(write))
		require.NoError(t, db.Close())
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		return b
	}
	refused(t, bucket(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("mine")); return err }), "something else")
	refused(t, bucket(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("idemflight"))
		if err != nil {
			return err
		}
		return b.Put([]byte("version"), []byte{0, 0, 0, 0, 0, 0, 0, 2})
	}), "version")

	empty := newPath(t)
	require.NoError(t, os.WriteFile(empty, bucket(func(*bolt.Tx) error { return nil }), 0o600))
	open(t, empty) // made, and then the power failed

	_, err := boltstore.Open(t.TempDir(), boltstore.Options{})
	require.Error(t, err, "a directory")
}

// image returns a file with some hundred records.
func image(t *testing.T) []byte {
	t.Helper()
	path := newPath(t)
	d, err := boltstore.Open(path, boltstore.Options{NoSync: true})
	require.NoError(t, err)
	s := storeOf(t, d)
	for i := range 300 {
		r := claim(t, s, fmt.Sprint("key", i), true)
		settle(t, s, r, idemflight.Settlement{Disposition: idemflight.Retain, Value: make([]byte, i), TTL: long})
	}
	require.NoError(t, d.Close())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

// TestDamagedFiles: whatever is done to a file, it is refused and left alone, or works; nothing ends the process.
func TestDamagedFiles(t *testing.T) {
	good := image(t)
	for _, size := range []int{1, 100, 4096, 5000, 8192, 3 * 4096, len(good) / 4} {
		refused(t, good[:size], "")
	}
	const rounds = 100
	random := mathrand.New(mathrand.NewPCG(1, 0))
	opened := 0
	path := newPath(t)
	for range rounds {
		bad := append([]byte(nil), good...)
		switch random.IntN(3) {
		case 0: // a few bits
			for range 1 + random.IntN(20) {
				bad[random.IntN(len(bad))] ^= 1 << random.IntN(8)
			}
		case 1: // the head of a page
			page := random.IntN(len(bad) / 4096)
			for range 8 {
				bad[page*4096+random.IntN(64)] = byte(random.Uint32())
			}
		case 2: // a page that is another
			a, b := random.IntN(len(bad)/4096), random.IntN(len(bad)/4096)
			copy(bad[a*4096:(a+1)*4096], good[b*4096:])
		}
		require.NoError(t, os.WriteFile(path, bad, 0o600))
		d, err := boltstore.Open(path, boltstore.Options{NoSync: true})
		if err != nil {
			require.NotContains(t, err.Error(), "in use", "the file that was refused before must not be locked")
			after, readErr := os.ReadFile(path)
			require.NoError(t, readErr)
			require.True(t, string(bad) == string(after), "the file was changed")
			continue
		}
		opened++
		if s, err := d.Store("payments"); err == nil {
			for i := range 300 {
				r := request(fmt.Sprint("key", i), i%2 == 0)
				if x, err := s.Claim(t.Context(), r); err == nil && x.Granted {
					_, _ = s.Settle(t.Context(), r.Claim, retain)
				}
			}
			_ = s.Unsettled(t.Context(), func(string, idemflight.Standing) error { return nil })
		}
		_ = d.Close()
	}
	t.Logf("%d of %d were opened", opened, rounds)
}

// TestDamagedRecord is an error of its key alone, and is not claimed.
func TestDamagedRecord(t *testing.T) {
	_, s := openStore(t)
	require.NoError(t, s.Damage("bad", []byte("not a record")))
	_, err := s.Read(t.Context(), "bad")
	require.ErrorContains(t, err, `"bad"`)
	for _, announced := range []bool{false, true} {
		_, err = s.Claim(t.Context(), request("bad", announced))
		require.Error(t, err)
	}
	claim(t, s, "good", false)
	var told []string
	err = s.Unsettled(t.Context(), func(key string, _ idemflight.Standing) error {
		told = append(told, key)
		return nil
	})
	require.ErrorContains(t, err, `"bad"`, "what cannot be read is not passed over")
	require.Equal(t, []string{"good"}, told, "and does not hide the others")
}

// TestDamagedRecordThatHasEnded: the sweep that meets it does not fail the writes of other keys.
func TestDamagedRecordThatHasEnded(t *testing.T) {
	_, s := openStore(t)
	r := claim(t, s, "bad", false)
	ends := retain
	ends.TTL = 1
	settle(t, s, r, ends)
	require.NoError(t, s.Damage("bad", []byte("not a record")))
	for i := range 3 {
		settle(t, s, claim(t, s, fmt.Sprint("good", i), false), retain)
	}
	_, err := s.Read(t.Context(), "bad")
	require.ErrorContains(t, err, `"bad"`, "it is there for somebody to look at")
}
