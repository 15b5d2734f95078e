// Package pgstore keeps the keys of idemflight in PostgreSQL, so that an operation happens once per key among
// all processes that share the database, and over their crashes. If the effect of fn is in that database,
// too, settle in its transaction with [Store.SettleTx]: then effect and record are committed together, and no
// crash leaves an unknown outcome. For effects elsewhere, call [idemflight.BeginEffect] before them.
//
//	pool, err := pgxpool.New(ctx, "postgres://…") // the store's own
//	…
//	err = pgstore.Migrate(ctx, pool) // or run what pgstore.Schema returns
//	…
//	store, err := pgstore.Open(ctx, pool, "payments", pgstore.Options{})
//	…
//	payments, err := idemflight.New(idemflight.Options[string, Receipt]{
//		Store: store, EffectsAnnounced: true,
//	})
//
// # What is lost when what dies
//
// A process that dies leaves its claims, whose leases end: other processes run what had certainly begun
// nothing, and find the rest held. A server that crashes and comes back has lost nothing, unless
// Options.RelaxedClaims was set, where it may have lost claims, never an effect or an outcome. PostgreSQL
// loses what it acknowledged at a failover to a replica that is not synchronous, when a backup is restored,
// and with fsync or synchronous_commit off: keys are forgotten then, and fn may run again. So have a
// synchronous replica (synchronous_standby_names, and synchronous_commit not below on) where that matters.
//
// # The pool
//
// Give the store a pool of its own, of some connections per core of the client. An fn that holds a connection
// and calls BeginEffect needs a second one: with one pool for both, as many executions as it has connections
// can wait for each other for ever. The pool of SettleTx is the user's; it needs the right to read and update
// the table idemflight, and to read idemflight_watched, in the same database, and finds them whatever its
// search_path is.
//
// The statements need no state of a session. They are prepared or not as the pool's
// [pgx.ConnConfig.DefaultQueryExecMode] says, and work in every mode. Its default, prepared statements, is
// the fastest: without them the server plans each claim again, some 0.5 ms of its time. Behind a pgbouncer in
// transaction mode that is older than 1.21, or has max_prepared_statements = 0, set
// [pgx.QueryExecModeExec]. LISTEN does nothing there: who waits for another process polls, as Cost says.
//
// A verb whose context ends while it waits for a row closes its connection and asks the server to cancel the
// statement. An idle connection keeps the context of its last request, and with it the outcome of that
// execution, until it is used again or closed (pgx does that): at most one outcome per connection of the pool.
//
// # Transactions
//
// The verbs are correct under READ COMMITTED, and need it as the default of the pool's sessions, which it is
// unless somebody has set default_transaction_isolation: above it they fail now and then with 40001, and are
// repeated. A user's transaction may have any isolation. Under REPEATABLE READ or SERIALIZABLE the heartbeat of
// an execution, which comes after a third of its lease, can make SettleTx fail with 40001: the transaction is
// rolled back and may be tried again, but keep such transactions shorter than that.
//
// A transaction that has called SettleTx keeps the record locked until it ends. Settle and a takeover wait
// for it, heartbeats, replays and watches do not. It must not be prepared for a two-phase commit: PostgreSQL
// refuses that if a process that waits is to be told. All times are those of the server's clock_timestamp().
//
// # Cost
//
// In round trips: a first execution 2, with BeginEffect 3, each with a commit to wait for; a replay that is
// not in memory 1, which writes and locks nothing; heartbeats 1 for all executions. SettleTx adds one statement
// to the user's transaction. While calls wait for executions in other processes, one goroutine asks for all of
// them, 5 ms after the first and then at growing intervals of up to 250 ms. For those that take longer than some
// 0.2 s another one listens, by a connection of its own beside the pool: what they wait for is then told when it
// is committed. Only executions that are waited for are told of, since commits that notify wait for each other.
// The intervals stay, so where no notification arrives an outcome is up to 0.4 s old when it is seen.
//
// A key takes some 550 bytes on the server, indexes and dead versions included, and the bytes of its value once
// and of the key twice: a million keys a day with a TTL of 24 h, half a GB to one. What has expired is deleted
// by the store itself, after every 1,000 claims, or by [Store.Sweep]; autovacuum must keep up.
package pgstore
