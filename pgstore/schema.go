package pgstore

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// version is that of the schema, the number of the last migration. A migration is never changed once it
// was released, only adds (so that the version before still works with what it finds), and may run twice.
const version = 2

//go:embed migrations
var migrations embed.FS

// schema is what [Schema] returns, without the transaction around it.
var schema = schemaUpTo(version)

func schemaUpTo(last int) string {
	var b strings.Builder
	b.WriteString(`select pg_advisory_xact_lock(7236832765470273391); -- one process at a time
create table if not exists idemflight_schema (version integer primary key, migrated timestamptz not null default now());
`)
	for v := 1; v <= last; v++ {
		sql, err := migrations.ReadFile(fmt.Sprintf("migrations/%d.sql", v))
		if err != nil {
			panic(fmt.Sprintf("pgstore: bug: %v", err))
		}
		fmt.Fprintf(&b, "\n-- Version %d.\n%sinsert into idemflight_schema (version) values (%d) on conflict do nothing;\n", v, sql, v)
	}
	return b.String()
}

// Schema returns the SQL that [Migrate] runs, for those who migrate by other means: statements for psql, in
// a transaction. It may run again, also after an older or a newer one.
func Schema() string { return "begin;\n" + schema + "commit;\n" }

// Migrate makes the tables idemflight, idemflight_watched and idemflight_schema, or brings them up to this version, in the
// first schema of the connection's search_path. The role of pool must be allowed to create tables there
// unless nothing is to be done. Processes that call it at once wait for each other, by an advisory lock.
// After an error nothing has changed. Cost: two round trips if nothing is to be done.
func Migrate(ctx context.Context, pool *pgxpool.Pool) error {
	if found, _, err := installed(ctx, pool); err == nil && found >= version {
		return nil
	}
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, schema)
		return err
	})
	if err != nil {
		return fmt.Errorf("pgstore: migrating to version %d of the schema: %w", version, err)
	}
	return nil
}

// errNoSchema: there are no tables.
var errNoSchema = errors.New("pgstore: there is no table idemflight on the connection's search_path: " +
	"call pgstore.Migrate, or run what pgstore.Schema returns")

// tables are those of one schema, quoted.
type tables struct{ rows, marks string }

// installed returns the version of the schema that the connections of pool find, and its tables.
func installed(ctx context.Context, pool *pgxpool.Pool) (found int, in tables, err error) {
	var schema *string
	err = pool.QueryRow(ctx, `select (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace
		where c.oid = to_regclass('idemflight_schema'))`).Scan(&schema)
	switch {
	case err != nil:
		return 0, in, err
	case schema == nil:
		return 0, in, errNoSchema
	}
	table := func(name string) string { return pgx.Identifier{*schema, name}.Sanitize() }
	err = pool.QueryRow(ctx, "select coalesce(max(version), 0) from "+table("idemflight_schema")).Scan(&found)
	return found, tables{rows: table("idemflight"), marks: table("idemflight_watched")}, err
}
