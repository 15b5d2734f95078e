// Package redisstore keeps the keys of idemflight in Redis, so that an operation happens once among processes.
//
// What it cannot promise: Redis acknowledges writes that it can still lose, and an operation whose record is lost
// runs a second time. With appendfsync everysec, the default of append-only files, a crash loses up to a second
// of claims, begins and outcomes; without append-only file, all since the last snapshot. A failover, by Sentinel,
// in a cluster or by hand, loses what the replica had not received, which no setting prevents. A maxmemory-policy
// other than noeviction drops records while nothing is wrong. So this store is fine for mails, webhooks and cache
// fills. It is fit for money only with appendfsync always and without automatic failover, or if the bank is given the
// key as an idempotency key of its own; the store in PostgreSQL has no such conditions.
//
// # Setting up
//
//	client := redis.NewClient(&redis.Options{Addr: "localhost:6379"}) // or NewFailoverClient, NewClusterClient
//	store, err := redisstore.Open(ctx, client, "charges", redisstore.Options{})
//	if err != nil {
//		return err
//	}
//	if store.Persistence() < redisstore.PersistedAlways {
//		log.Printf("idempotency keys: Redis has %v", store.Persistence())
//	}
//	cache, err := idemflight.New(idemflight.Options[string, Charge]{Store: store, EffectsAnnounced: true})
//
// # What to set in the engine
//
// Redis 6.0 or later, or Valkey. In redis.conf:
//
//	maxmemory-policy noeviction     # the default; Open refuses any other
//	appendonly yes
//	appendfsync always              # or everysec, and what that means: see above
//	hash-max-listpack-value 1024    # for values between 64 bytes and that it saves 0.6 KB each
//
// Until Redis 6.2 the last one is called hash-max-ziplist-value. The user of the client needs the commands EVALSHA,
// EVAL, TIME, HMGET, HSET, HDEL, PERSIST and PEXPIREAT, for Unsettled also SCAN, and for Open INFO or CONFIG GET, on
// keys that begin with "name:{".
//
// Leases and TTLs are counted by the clock of the engine. When a replica becomes the master its clock counts: keep
// both right (NTP), to well below a lease. A lease that ends too soon lets others find out about an execution that
// still runs; it does not let them run beside one that has begun.
//
// A full engine (maxmemory) refuses new claims, so that no operation starts which could not be recorded; calls get
// idemflight.ErrStore. What has been claimed goes on: its begins and its outcome are still taken.
//
// The commands of a store need a client whose ReadTimeout is above the engine's slowest answer: with appendfsync always, of
// a disk that is busy. The client repeats a command whose answer was lost, and so does the cache; both do no harm.
//
// # Cost
//
// A verb is one round trip, and one script, which takes some 50 µs of the engine's one thread:
// enough for ten thousand first executions a second. A first execution is two round
// trips, with BeginEffect three; the first call of another process that is told the outcome one; a replay from memory
// none; a takeover, and Reconcile of a held key, one more. With appendfsync always each of these but the replay also
// waits for the disk. Leases of executions that run long are renewed in one pipeline. While calls wait
// for executions of other processes, a Store looks at all of those in one pipeline, at first 5 ms after the
// call, then less and less often, until every 250 ms.
//
// # Size
//
// A record is a hash at name:{key}. It takes 0.3 KB beside its value and error, or 0.9 KB if one of them is longer than
// hash-max-listpack-value: of a million keys with small values a third of a gigabyte. It expires one lease after its TTL, since
// verbs that come late must find it. In a cluster what stands between the first pair of braces chooses the slot: that is
// the key, up to a "}" in it. So keys that begin with the same words and a "}" are all in one slot.
//
// A record whose owner died reads as held until HoldTTL, and expires then; with a negative HoldTTL it stays until
// somebody resolves or forgets it. Nothing sweeps, and nothing runs while nobody calls.
package redisstore
