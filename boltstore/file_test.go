package boltstore_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
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

// refused asserts that a file is not opened, that the error names it, and that it is left as it is and free.
func refused(t *testing.T, content []byte, why string) {
	t.Helper()
	path := newPath(t)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	for range 2 { // the second would tell that the first has not closed it
		_, err := boltstore.Open(path, boltstore.Options{})
		require.Error(t, err)
		require.ErrorContains(t, err, path)
		require.ErrorContains(t, err, why)
	}
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
	opening := func(key, value string) []byte {
		return bucket(func(tx *bolt.Tx) error {
			head, err := tx.CreateBucket([]byte("idemflight"))
			require.NoError(t, err)
			require.NoError(t, head.Put([]byte("version"), []byte{0, 0, 0, 0, 0, 0, 0, 1}))
			opened, err := head.CreateBucket([]byte("opened"))
			require.NoError(t, err)
			return opened.Put([]byte(key), []byte(value))
		})
	}
	refused(t, opening("short", "8 bytes."), "an opening of another form")
	refused(t, opening("8 bytes.", "a long one"), "an opening of another form")

	empty := newPath(t)
	require.NoError(t, os.WriteFile(empty, bucket(func(*bolt.Tx) error { return nil }), 0o600))
	open(t, empty) // made, and then the power failed
	nothing := newPath(t)
	require.NoError(t, os.WriteFile(nothing, nil, 0o600))
	open(t, nothing) // before anything was written to it

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

// TestDamagedPages: what bbolt would panic over is found before, and said. Every page of a kind is damaged alike,
// whether the file uses it or not.
func TestDamagedPages(t *testing.T) {
	const branch, leaf, bucket = 1, 2, 1
	var (
		native = binary.NativeEndian
		set32  = func(at int, to uint32) func([]byte) {
			return func(page []byte) { native.PutUint32(page[at:], to) }
		}
		set16 = func(at int, to uint16) func([]byte) {
			return func(page []byte) { native.PutUint16(page[at:], to) }
		}
		child = func(of int, to uint64) func([]byte) {
			return func(page []byte) { native.PutUint64(page[16+16*of+8:], to) }
		}
	)
	// inBuckets damages the values of a page that are buckets; these begin with their root, 8 bytes.
	inBuckets := func(damage func(element, value []byte)) func([]byte) {
		return func(page []byte) {
			for i := range int(native.Uint16(page[10:])) {
				if e := page[16+16*i:]; native.Uint32(e) == bucket {
					damage(e, e[native.Uint32(e[4:])+native.Uint32(e[8:]):])
				}
			}
		}
	}
	good, size := image(t), os.Getpagesize()
	var bad []byte
	for what, c := range map[string]struct {
		flags  uint16
		damage func(page []byte)
		why    string
	}{
		"another number":         {leaf, func(page []byte) { page[0]++ }, "does not say that it is"},
		"longer than the file":   {leaf, set32(12, 1<<20), "does not say that it is"},
		"of two kinds":           {leaf, set16(8, branch|leaf), "do not fit"},
		"more elements than fit": {leaf, set16(10, 1<<16-1), "do not fit"},
		"no children":            {branch, set16(10, 0), "do not fit"},
		"a value outside":        {leaf, set32(16+12, 1<<20), "do not fit"},
		"an unknown element":     {leaf, set32(16, 2), "do not fit"},
		"a key twice": {leaf, func(page []byte) {
			native.PutUint32(page[32+4:], native.Uint32(page[16+4:])-16)
			native.PutUint32(page[32+8:], native.Uint32(page[16+8:]))
		}, "not in order"},
		"a key before its parent's": {leaf, func(page []byte) { page[16+native.Uint32(page[16+4:])] = 0 }, "not in order"},
		"a key on two pages": {branch, func(page []byte) { // the last of one child is the first of the next
			child, next := bad[int(native.Uint64(page[16+8:]))*size:], page[32:]
			last := child[16*native.Uint16(child[10:]):]
			copy(last[native.Uint32(last[4:]):], next[native.Uint32(next):][:native.Uint32(next[4:])])
		}, "not in order"},
		"a part of another page":  {leaf, set32(12, 1), "met twice"},
		"a child twice":           {branch, func(page []byte) { child(1, native.Uint64(page[16+8:]))(page) }, "met twice"},
		"a child at the head":     {branch, child(0, 1), "page 1 of"},
		"a child after the end":   {branch, child(0, 1<<40), "page 1099511627776 of"},
		"a bucket without a root": {leaf, inBuckets(func(e, _ []byte) { native.PutUint32(e[12:], 8) }), "do not fit"},
		"a bucket of another kind": {leaf, inBuckets(func(_, value []byte) {
			if native.Uint64(value) == 0 {
				native.PutUint16(value[16+8:], branch)
			}
		}), "a bucket that does not fit"},
		"a bucket with the number of a page": {leaf, inBuckets(func(_, value []byte) {
			if native.Uint64(value) == 0 {
				native.PutUint64(value[16:], 2)
			}
		}), "a bucket that does not fit"},
	} {
		t.Run(what, func(t *testing.T) {
			bad = bytes.Clone(good)
			for at := 2 * size; at < len(bad); at += size {
				if page := bad[at : at+size]; native.Uint16(page[8:]) == c.flags {
					c.damage(page)
				}
			}
			require.False(t, bytes.Equal(good, bad), "nothing was damaged")
			refused(t, bad, c.why)
		})
	}
}

// TestFileThatIsCutShort while it is open: a fault of its memory is an error, and not the end of the process.
func TestFileThatIsCutShort(t *testing.T) {
	path := newPath(t)
	require.NoError(t, os.WriteFile(path, image(t), 0o600))
	s := storeOf(t, open(t, path))
	require.NoError(t, os.Truncate(path, int64(2*os.Getpagesize())))
	_, err := s.Read(t.Context(), "key1")
	require.ErrorContains(t, err, "the file is damaged")
}

// TestFilesAreClosed, whether they were opened or refused.
func TestFilesAreClosed(t *testing.T) {
	const own = "/proc/self/fd"
	if _, err := os.Stat(own); err != nil {
		t.Skip("no", own, "to look at")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the collector closes files, too
	dir := t.TempDir()
	good, cut, foreign := filepath.Join(dir, "good"), filepath.Join(dir, "cut"), filepath.Join(dir, "foreign")
	require.NoError(t, os.WriteFile(cut, image(t)[:3*4096], 0o600))
	db, err := bolt.Open(foreign, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("mine")); return err }))
	require.NoError(t, db.Close())
	for range 2 { // it makes the file, and finds it
		d, err := boltstore.Open(good, boltstore.Options{})
		require.NoError(t, err)
		require.NoError(t, d.Close())
	}
	for _, path := range []string{cut, foreign} {
		_, err = boltstore.Open(path, boltstore.Options{})
		require.Error(t, err)
	}
	all, err := os.ReadDir(own)
	require.NoError(t, err)
	for _, fd := range all {
		file, _ := os.Readlink(filepath.Join(own, fd.Name())) // or it has been closed meanwhile
		require.False(t, strings.HasPrefix(file, dir), "%s is still open", file)
	}
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
	r := request("bad", false)
	r.Lease = 1
	_, err := s.Claim(t.Context(), r)
	require.NoError(t, err)
	ends := retain
	ends.TTL = 1
	settle(t, s, r, ends)
	require.NoError(t, s.Damage("bad", []byte("not a record")))
	for i := range 3 {
		settle(t, s, claim(t, s, fmt.Sprint("good", i), false), retain)
	}
	_, due, _ := s.Rows()
	require.Equal(t, 3, due, "a sweep has met it")
	_, err = s.Read(t.Context(), "bad")
	require.ErrorContains(t, err, `"bad"`, "it is there for somebody to look at")
}

// What verbs answer is on the disk, unless tests say otherwise: no test can cut the power.
func TestWaitsForTheDisk(t *testing.T) {
	for noSync, want := range map[bool]bool{false: true, true: false} {
		d, err := boltstore.Open(filepath.Join(t.TempDir(), "file"), boltstore.Options{NoSync: noSync})
		require.NoError(t, err)
		require.Equal(t, want, d.Syncs(), "NoSync: %v", noSync)
		require.NoError(t, d.Close())
	}
}
