package boltstore

import bolt "go.etcd.io/bbolt"

// Crash closes the file as the kernel does when a process dies: nobody is waited for.
func (d *DB) Crash() { _ = d.bolt.Close() }

// Commits returns how many transactions verbs have written since Open.
func (d *DB) Commits() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.commits
}

// Hold lets no transaction begin until the function that it returns is called.
func (d *DB) Hold() (release func()) {
	tx, err := d.bolt.Begin(true)
	if err != nil {
		panic(err)
	}
	return func() { _ = tx.Rollback() }
}

// Fill lets the file grow no more, so that commits fail.
func (d *DB) Fill() { d.bolt.MaxSize = 1 }

// Queued returns how many operations wait for the next transaction.
func (d *DB) Queued() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.queue)
}

// Pending returns how many keys have operations that are queued or being written.
func (d *DB) Pending() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.busy)
}

// Watched returns how many keys somebody watches.
func (d *DB) Watched() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.watched)
}

// Rows returns how many records and due entries the file has for a store, and how many there are in memory.
func (s *Store) Rows() (records, due, inMemory int) {
	_ = s.db.bolt.View(func(tx *bolt.Tx) error {
		records = tx.Bucket(s.bucket).Bucket(recordsBucket).Stats().KeyN
		due = tx.Bucket(s.bucket).Bucket(dueBucket).Stats().KeyN
		return nil
	})
	return records, due, len(s.db.inMemoryKeys(s.name))
}

// Damage writes bytes where the record of key is.
func (s *Store) Damage(key string, b []byte) error {
	return s.db.bolt.Update(func(tx *bolt.Tx) error {
		return tx.Bucket(s.bucket).Bucket(recordsBucket).Put([]byte(key), b)
	})
}

// Syncs reports whether bbolt waits for the disk.
func (d *DB) Syncs() bool { return !d.bolt.NoSync }
