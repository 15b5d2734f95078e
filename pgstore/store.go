package pgstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/idemflight/idemflight"
)

// Options of a [Store]. The zero value is right for most.
type Options struct {
	// Sweep is the least time between two sweeps by the store itself, which it thinks of after every 1,000
	// claims. 0: no least time. Negative: it never sweeps; the user calls [Store.Sweep].
	Sweep time.Duration

	// RelaxedClaims lets fn start before its claim is on the disk of the server: synchronous_commit is off
	// for the claim, and for no other verb. A claim that a crash of the server takes away with it is refused
	// at BeginEffect or SettleTx, so fn has no effect, and another execution runs. That holds only where
	// effects are announced: a claim without EffectsAnnounced is refused with an error.
	RelaxedClaims bool
}

// Store is an [idemflight.Store] in PostgreSQL, which also settles in transactions of the user's
// ([Store.SettleTx]). It has nothing to close: it keeps no connection and, while no call waits for an
// execution in another process, no goroutine. All methods are safe for concurrent use.
type Store struct {
	// Written by Open.
	pool *pgxpool.Pool
	name string
	opts Options
	sql  statements

	watching watching
	sweeping sweeping
}

var _ idemflight.Store = (*Store)(nil)

const (
	maxKey  = 1024 // bytes of an encoded key: an index row of PostgreSQL has room for 2,700
	maxName = 200
)

var (
	errKeyTooLong = fmt.Errorf("%w: encoded it has more than %d bytes, which is all that pgstore has room for",
		idemflight.ErrInvalidKey, maxKey)
	errNotAnnounced = errors.New("pgstore: Options.RelaxedClaims needs EffectsAnnounced in the options of the cache: " +
		"without it a claim that the server loses is a second run")
)

// Open returns the store of one kind of operation: caches that share a database and a name share their keys.
// The name has 1 to 200 bytes of UTF-8 without NUL. A name that changes forgets every key.
//
// pool should be the store's own: see the package's doc. Open returns an error that says what to call if the
// schema is missing or too old; a newer one is fine. Cost: two round trips.
func Open(ctx context.Context, pool *pgxpool.Pool, name string, o Options) (*Store, error) {
	if name == "" || len(name) > maxName || !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
		return nil, fmt.Errorf("pgstore: the name of a store has 1 to %d bytes of UTF-8 without NUL, not %q", maxName, name)
	}
	found, in, err := installed(ctx, pool)
	if err != nil {
		return nil, err
	}
	if found < version {
		return nil, fmt.Errorf("pgstore: the schema has version %d, and this package needs %d: "+
			"call pgstore.Migrate, or run what pgstore.Schema returns", found, version)
	}
	return &Store{pool: pool, name: name, opts: o, sql: statementsFor(in), watching: watching{later: laterLook}}, nil
}

// Claim is [idemflight.Store].Claim. Cost: one round trip, which writes only if it grants.
func (s *Store) Claim(ctx context.Context, r idemflight.ClaimRequest) (idemflight.Standing, error) {
	if len(r.Key) > maxKey {
		return idemflight.Standing{}, errKeyTooLong
	}
	relaxed := s.opts.RelaxedClaims && !r.Reconcile
	if relaxed && !r.EffectsAnnounced {
		return idemflight.Standing{}, errNotAnnounced
	}
	args := []any{r.ID[:], r.EffectsAnnounced, r.Fingerprint[:], micros(r.Lease), endless(r.HoldTTL)}
	sql := s.sql.claim
	replaces := r.Replaces != (idemflight.ClaimID{})
	if replaces {
		args = append(args, r.Replaces[:])
		switch {
		case r.From == idemflight.InFlight:
			sql = s.sql.takeOver
		case r.From == idemflight.Held && r.Reconcile:
			sql = s.sql.reconcile
		default:
			sql = "" // never granted
		}
	}
	for {
		wrote, x, err := s.writeAndRead(ctx, relaxed, r.Key, sql, args...)
		if err != nil {
			return idemflight.Standing{}, err
		}
		if wrote {
			s.countClaim()
		}
		switch seen := x.standing(); {
		case x.ID == r.ID && x.leased != nil:
			return x.granted(), nil
		case seen.State != idemflight.Absent, x.ID == r.ID, replaces:
			return seen, nil
		}
		// It ended, or was swept, between the two statements. Look again.
	}
}

// Begin is [idemflight.Store].Begin. Cost: one round trip.
func (s *Store) Begin(ctx context.Context, c idemflight.Claim, lease time.Duration) error {
	tag, err := s.pool.Exec(ctx, s.sql.begin, s.name, []byte(c.Key), c.ID[:], micros(lease))
	if err == nil && tag.RowsAffected() == 0 {
		err = idemflight.ErrClaimLost
	}
	return err
}

// Settle is [idemflight.Store].Settle. It waits for a transaction that has called SettleTx and has not ended,
// and so finds out about a commit whose answer was lost. Cost: one round trip.
func (s *Store) Settle(ctx context.Context, c idemflight.Claim, st idemflight.Settlement) (idemflight.Standing, error) {
	wrote, x, err := s.writeAndRead(ctx, false, c.Key, s.sql.settle, settleArgs(c, st)...)
	switch {
	case err != nil:
		return idemflight.Standing{}, err
	case wrote:
		return idemflight.Standing{Forgotten: x.Forgotten && st.Disposition == idemflight.Retain}, nil
	case x.ID != c.ID || x.leased != nil || x.state == 'd':
		return idemflight.Standing{}, idemflight.ErrClaimLost
	}
	return x.outcome(), nil
}

// settleArgs returns the arguments of the statement settle, except the store's name and the key.
func settleArgs(c idemflight.Claim, st idemflight.Settlement) []any {
	state, closing := "x", true
	switch {
	case st.Disposition == idemflight.Retain:
		state, closing = "r", st.TTL <= 0
	case st.Disposition == idemflight.Hold:
		state, closing = "h", false
	}
	return []any{c.ID[:], state, bytesOrNull(st.Value), bytesOrNull(st.Err), endless(st.TTL), closing}
}

// Renew is [idemflight.Store].Renew. Cost: one round trip for all.
func (s *Store) Renew(ctx context.Context, cs []idemflight.Claim, lease time.Duration) ([]idemflight.ClaimID, error) {
	keys, ids := make([][]byte, len(cs)), make([][]byte, len(cs))
	for i := range cs {
		keys[i], ids[i] = []byte(cs[i].Key), cs[i].ID[:]
	}
	owned := make(map[idemflight.ClaimID]bool, len(cs))
	var b pgx.Batch
	b.Queue(s.sql.renew, s.name, keys, ids, micros(lease))
	b.Queue(s.sql.owned, s.name, keys, ids).Query(func(rows pgx.Rows) error {
		var id []byte
		_, err := pgx.ForEachRow(rows, []any{&id}, func() error {
			owned[idemflight.ClaimID(id)] = true
			return nil
		})
		return err
	})
	if err := s.pool.SendBatch(ctx, &b).Close(); err != nil {
		return nil, err
	}
	var lost []idemflight.ClaimID
	for _, c := range cs {
		if !owned[c.ID] {
			lost = append(lost, c.ID)
		}
	}
	return lost, nil
}

// Read is [idemflight.Store].Read. Cost: one round trip.
func (s *Store) Read(ctx context.Context, key string) (idemflight.Standing, error) {
	if len(key) > maxKey {
		return idemflight.Standing{}, errKeyTooLong
	}
	x, err := readRow(s.pool.QueryRow(ctx, s.sql.read, s.name, []byte(key)), key)
	return x.standing(), err
}

// GiveBack is [idemflight.Store].GiveBack. Cost: one round trip.
func (s *Store) GiveBack(ctx context.Context, c idemflight.Claim) error {
	_, err := s.pool.Exec(ctx, s.sql.giveBack, s.name, []byte(c.Key), c.ID[:])
	return err
}

// Forget is [idemflight.Store].Forget. Cost: one round trip.
func (s *Store) Forget(ctx context.Context, c idemflight.Claim) (bool, error) {
	tag, err := s.pool.Exec(ctx, s.sql.forget, s.name, []byte(c.Key), c.ID[:])
	return err == nil && tag.RowsAffected() == 1, err
}

// page is how many rows Unsettled reads at once.
const page = 200

// Unsettled is [idemflight.Store].Unsettled, in the order of the keys' bytes. f may call the store: no
// connection is held meanwhile. What changes during the scan may be missed. Rows that are damaged do not end it:
// it returns what is wrong with them at the end. Cost: a scan of the name's rows by its index, with one round
// trip for every 200 keys found.
func (s *Store) Unsettled(ctx context.Context, f func(key string, s idemflight.Standing) error) error {
	type found struct {
		key []byte
		row
	}
	var damaged []error
	for from := []byte{}; ; {
		rows, err := s.pool.Query(ctx, s.sql.unsettled, s.name, from, page)
		if err != nil {
			return err
		}
		all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (x found, err error) {
			err = x.scan(r, &x.key)
			return x, err
		})
		if err != nil {
			return err
		}
		for _, x := range all {
			if err := x.whole(string(x.key)); err != nil {
				damaged = append(damaged, err)
				continue
			}
			if seen := x.standing(); seen.State == idemflight.InFlight || seen.State == idemflight.Held {
				if err := f(string(x.key), seen); err != nil {
					return err
				}
			}
		}
		if len(all) < page {
			return errors.Join(damaged...)
		}
		from = append(all[page-1].key, 0) // the next one in the order of bytes
	}
}

// writeAndRead runs sql, if it is not empty, which changes the row of key or not, and reads the row, in one
// round trip and one transaction. wrote reports whether sql changed it. A row that does not exist reads as the
// zero row. If relaxed, the transaction is durable only soon after.
func (s *Store) writeAndRead(ctx context.Context, relaxed bool, key, sql string, args ...any) (wrote bool, x row, err error) {
	var b pgx.Batch
	if relaxed { // until the end of the transaction; SET LOCAL would log a warning
		b.Queue("select set_config('synchronous_commit', 'off', true)")
	}
	if sql != "" {
		b.Queue(sql, append([]any{s.name, []byte(key)}, args...)...).Exec(func(tag pgconn.CommandTag) error {
			wrote = tag.RowsAffected() == 1
			return nil
		})
	}
	b.Queue(s.sql.read, s.name, []byte(key)).QueryRow(func(r pgx.Row) (err error) {
		x, err = readRow(r, key)
		return err
	})
	err = s.pool.SendBatch(ctx, &b).Close()
	return wrote, x, err
}

// readRow returns the row of key, the zero row if there is none, or the error of one that is damaged.
func readRow(r pgx.Row, key string) (x row, err error) {
	switch err := x.scan(r); {
	case errors.Is(err, pgx.ErrNoRows):
		return row{}, nil
	case err != nil:
		return row{}, err
	}
	return x, x.whole(key)
}

// micros is d as the statements take it, in µs.
func micros(d time.Duration) int64 { return d.Microseconds() }

// endless is micros of a duration that is without end if it is negative.
func endless(d time.Duration) any {
	if d < 0 {
		return nil
	}
	return micros(d)
}

// bytesOrNull tells nil from empty whatever the driver does.
func bytesOrNull(b []byte) any {
	if b == nil {
		return nil
	}
	return b
}
