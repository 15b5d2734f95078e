// Package redisstore keeps the keys of idemflight in Redis, so that an operation happens once among processes.
// What it cannot promise: Redis can lose what it has acknowledged, and an operation whose record is lost may run
// a second time. With appendfsync everysec, the default of append-only files, a crash of the machine loses up to a
// second of claims, begins and outcomes; without an append-only file a crash loses all since the last snapshot. A
// failover, by Sentinel, in a cluster or by hand, loses what the replica had not received yet, and no setting
// prevents that. A maxmemory-policy other than noeviction drops records while all is well. So this store is fine for
// mails, webhooks and cache fills. For money it is fit only with appendfsync always and no automatic failover, or
// if the bank is given the key as an idempotency key of its own. A store in PostgreSQL has no such conditions.
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
// Until Redis 6.2 the last one is called hash-max-ziplist-value. The client's user needs the commands EVALSHA,
// EVAL, TIME, HMGET, HSET, HDEL, PERSIST and PEXPIREAT, SCAN for Unsettled, and INFO or CONFIG GET for Open, on
// keys that begin with "name:{".
//
// The engine's clock counts all leases and TTLs. After a failover that is the clock of the new master: keep both right
// (NTP), to well below a lease. A lease that ends too early lets others find out about an execution that still
// runs. It does not let them run beside one that has begun.
//
// A full engine (maxmemory) refuses new claims, so no operation starts that could not be recorded: its callers get
// idemflight.ErrStore. Executions that have their claim go on; their begins and outcomes are still taken.
//
// The client's ReadTimeout should be longer than the engine's slowest answer, which with appendfsync always depends
// on the disk. If an answer is lost, the client repeats the command, and so does the cache. Neither does harm.
//
// # Cost
//
// A verb is one round trip and one script, which takes some 50 µs of the engine's one thread: enough for ten
// thousand first executions a second. A first execution is two round trips, three with BeginEffect; the first
// call in another process, which is told the outcome, is one; a replay from memory none; a takeover, and Reconcile of
// a held key, one more. With appendfsync always, each but the replay also waits for the disk. All leases of
// executions that run long are renewed in one pipeline. While callers wait for executions in other processes, a
// Store looks at all of these in one pipeline: first after 5 ms, then less and less often, down to every 250 ms.
//
// # Size
//
// A record is a hash at name:{key}. It takes 0.3 KB beside its value and error, or 0.9 KB if one of them is longer
// than hash-max-listpack-value: of a million keys with small values a third of a gigabyte. It expires one lease
// after its TTL, so that late verbs find it.
//
// In a cluster, the text between the first "{" and the first "}" after it chooses the slot. That is the key, or if
// there is a "}" in it, the part before: keys that share this part share a slot, too.
//
// A record whose owner died reads as held until HoldTTL has passed, and expires then. With a negative HoldTTL it
// stays until somebody resolves or forgets it. Nothing sweeps, and nothing runs while nobody calls.
package redisstore
