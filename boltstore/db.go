// Package boltstore is an [idemflight.Store] in a file, by bbolt: for one process at a time, without a server.
//
// The lock on the file is the lease: the kernel ends it with the process, however that ends, so an execution
// that runs is never taken over, and what a dead process left is seen at once by the next one that opens the
// file. Options.Lease is only how long closed rows are kept. The file must be on a file system with locks that
// work; NFS is not one.
//
// What a verb answers is on the disk, after two fdatasync of bbolt. Writes that come while one is being
// written go together into the next. If the disk loses what it said was written, or a backup is put
// back, keys are forgotten, and their operations can run again. The engine's clock is the machine's: set forward,
// it lets keys expire early.
//
// With EffectsAnnounced a Claim does not wait for the disk: it is in memory until Begin or Settle. If the
// process dies before, it has begun nothing, and absent is right.
package boltstore

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/idemflight/idemflight/internal/record"
)

// Options configures a [DB]. The zero value is right for everything but tests.
type Options struct {
	// NoSync does not wait for the disk. What verbs have answered is then lost if the machine stops, though
	// not if the process does.
	NoSync bool
}

// DB is an open file. It is safe for concurrent use. It has no goroutine while nobody writes.
type DB struct {
	bolt   *bolt.DB
	path   string
	epoch  uint64
	opened []opening // sorted; the last is this one
	closed chan struct{}
	writer sync.WaitGroup

	// mu guards what follows. It is held while a page or two of the file are read, never while one is
	// written, nor while anybody waits.
	mu       sync.Mutex
	closing  bool
	broken   error        // of a commit: what is in the file is not known since
	queue    []*operation // that wait for the next transaction
	writing  bool         // there is a writer
	busy     map[id]int   // operations queued or being written; only the writer may change such a key
	inMemory map[id]record.Record
	rows     []row // of inMemory that are closed, in the order in which they were closed
	watched  map[id]chan struct{}
	commits  int // transactions that succeeded: for tests
}

// id is a key of a store.
type id struct{ store, key string }

type row struct {
	id
	end int64
}

// opening is when the file was opened with an epoch: whoever had it open before was dead by then.
type opening struct {
	epoch uint64
	at    int64 // ns since 1970
}

// The layout of the file. All integers are 8 bytes, big-endian.
//
//	idemflight          version: 1
//	   opened           epoch → when, ns since 1970: the last of them
//	name:NAME           of each store
//	   records          key → record
//	   due              when its record ends ‖ key → nothing; may be earlier than the record says
var (
	headBucket    = []byte("idemflight")
	versionKey    = []byte("version")
	openedBucket  = []byte("opened")
	recordsBucket = []byte("records")
	dueBucket     = []byte("due")
)

const (
	version    = 1
	namePrefix = "name:"

	// maxOpenings bounds what Open reads. The owner of a record that is older than all of them is thought to
	// have died later than it did, so its hold is longer.
	maxOpenings = 1024

	// lockTimeout is how long Open waits for another process that is just leaving. bbolt tries every 50 ms.
	lockTimeout = 200 * time.Millisecond
)

var (
	errClosed = errors.New("boltstore: the file is closed")
	errOther  = errors.New("it is a bbolt file of something else")
)

// Open opens the file, which it makes if there is none, for this process alone: while another has it open, the
// error says so, after at most half a second. A file that is not a boltstore, or is damaged, is an error, and left
// as it is. Whatever was open when the file was last closed or left has a dead owner from now on.
//
// It reads all pages of the file that are in use, and writes once. [DB.Close] closes it.
func Open(path string, o Options) (*DB, error) {
	d := &DB{
		path: path, closed: make(chan struct{}),
		busy: make(map[id]int), inMemory: make(map[id]record.Record), watched: make(map[id]chan struct{}),
	}
	fresh := false
	if info, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		fresh = true
	} else if err == nil && info.Size() > 0 {
		if err := check(path); err != nil {
			return nil, openError(path, err)
		}
	}
	var err error
	if d.bolt, err = openBolt(path, &bolt.Options{
		Timeout: lockTimeout, NoSync: o.NoSync, NoFreelistSync: true, FreelistType: bolt.FreelistMapType,
	}); err != nil {
		return nil, openError(path, err)
	}
	if err := contain(func() error { return d.bolt.Update(d.begin) }); err != nil {
		_ = d.bolt.Close()
		return nil, openError(path, err)
	}
	if fresh && !o.NoSync { // the file's name is on the disk, too
		if dir, err := os.Open(filepath.Dir(path)); err == nil {
			_ = dir.Sync() // some systems cannot
			_ = dir.Close()
		}
	}
	return d, nil
}

func openError(path string, err error) error {
	if errors.Is(err, bolterrors.ErrTimeout) {
		return fmt.Errorf("boltstore: %s is in use: one process at a time may open it, and once", path)
	}
	return fmt.Errorf("boltstore: %s cannot be opened, and is left as it is: %w", path, err)
}

// openBolt is bolt.Open, that closes the file also if bbolt panics over it.
func openBolt(path string, o *bolt.Options) (db *bolt.DB, err error) {
	var file *os.File
	o.OpenFile = func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
		file, err = os.OpenFile(name, flag, mode)
		return file, err
	}
	err = contain(func() (err error) {
		db, err = bolt.Open(path, 0o600, o)
		return err
	})
	if err != nil && file != nil {
		_ = file.Close() // closed already, but after a panic
	}
	return db, err
}

// contain runs do, and returns a panic as an error: bbolt panics over damaged files. The address faults of a
// file that is shorter than it says are panics in there.
func contain(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the file is damaged: %v", p)
		}
	}()
	return do()
}

// begin makes what is missing, and begins an epoch.
func (d *DB) begin(tx *bolt.Tx) error {
	head, err := tx.CreateBucketIfNotExists(headBucket)
	if err != nil {
		return err
	}
	if err := head.Put(versionKey, bytesOf(version)); err != nil {
		return err
	}
	opened, err := head.CreateBucketIfNotExists(openedBucket)
	if err != nil {
		return err
	}
	for c, k, v := start(opened); k != nil; k, v = c.Next() {
		if len(k) != 8 || len(v) != 8 {
			return errors.New("the file is damaged: an opening of another form")
		}
		d.opened = append(d.opened, opening{binary.BigEndian.Uint64(k), int64(binary.BigEndian.Uint64(v))})
	}
	if n := len(d.opened); n > 0 {
		d.epoch = d.opened[n-1].epoch
	}
	d.epoch++
	d.opened = append(d.opened, opening{d.epoch, time.Now().UnixNano()})
	for ; len(d.opened) > maxOpenings; d.opened = d.opened[1:] {
		if err := opened.Delete(bytesOf(d.opened[0].epoch)); err != nil {
			return err
		}
	}
	return opened.Put(bytesOf(d.epoch), bytesOf(uint64(d.opened[len(d.opened)-1].at)))
}

func start(b *bolt.Bucket) (c *bolt.Cursor, k, v []byte) {
	c = b.Cursor()
	k, v = c.First()
	return c, k, v
}

func bytesOf(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// at returns what record wants to know of this moment.
func (d *DB) at() record.At {
	return record.At{Now: time.Now().UnixNano(), Epoch: d.epoch, LeaseEnd: d.leaseEnd}
}

// leaseEnd returns when the owner of r died: with its process, which was before the next opened the file.
func (d *DB) leaseEnd(r record.Record) int64 {
	if r.Epoch == d.epoch {
		return record.Forever
	}
	i, _ := slices.BinarySearchFunc(d.opened, r.Epoch+1, func(o opening, epoch uint64) int {
		return cmp.Compare(o.epoch, epoch)
	})
	return max(d.opened[min(i, len(d.opened)-1)].at, r.Started)
}

// Close waits for what is being written, and closes the file. Verbs that come later return an error; a Watch
// returns. It may come twice.
func (d *DB) Close() error {
	d.mu.Lock()
	if !d.closing {
		d.closing = true
		close(d.closed)
	}
	d.mu.Unlock()
	d.writer.Wait()
	return d.bolt.Close()
}

// Store returns the store of that name in the file; the first time it makes it, which is a write. One name is
// one space of keys: give each kind of operation its own. All stores of one name are the same.
func (d *DB) Store(name string) (*Store, error) {
	s := &Store{d, name, []byte(namePrefix + name)}
	there := false
	err := contain(func() error {
		return d.bolt.View(func(tx *bolt.Tx) error {
			there = tx.Bucket(s.bucket) != nil
			return nil
		})
	})
	if err == nil && !there {
		err = contain(func() error { return d.bolt.Update(s.make) })
	}
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return nil, errClosed
	}
	if err != nil {
		return nil, fmt.Errorf("boltstore: %s: store %q: %w", d.path, name, err)
	}
	return s, nil
}

func (s *Store) make(tx *bolt.Tx) error {
	b, err := tx.CreateBucketIfNotExists(s.bucket)
	if err != nil {
		return err
	}
	for _, name := range [][]byte{recordsBucket, dueBucket} {
		if _, err := b.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	return nil
}

// inMemoryKeys returns the keys of a store that are in memory, sorted.
func (d *DB) inMemoryKeys(store string) (keys []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id := range maps.Keys(d.inMemory) {
		if id.store == store {
			keys = append(keys, id.key)
		}
	}
	slices.Sort(keys)
	return keys
}
