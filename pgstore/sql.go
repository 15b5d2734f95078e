package pgstore

import "strings"

// statements are the SQL of the verbs. Each is one atomic step, correct under READ COMMITTED: a statement
// that finds its row locked waits, and then looks at its condition again. All times are those of
// clock_timestamp(). In all of them $1 is the store's name, $2 the key and $3 the ID of the claim.
type statements struct {
	read, claim, takeOver, reconcile, begin, settle, giveBack, forget string
	renew, owned, watched, mark, unsettled, sweep, sweepMarks         string
}

func statementsFor(table tables) statements {
	sql := strings.NewReplacer("{table}", table.rows, "{marks}", table.marks, "{now}", now, "{columns}", columns,
		"{mine}", mine, "{until}", until, "{absent}", absent, "{held}", held, "{closing}", closing,
		"{notify}", strings.ReplaceAll(notify, "{marks}", table.marks)).Replace
	return statements{
		read: sql(`select {columns} from {table} t where ns = $1 and key = $2`),

		// Where there is a record, "not exists" finds it, and nothing is locked or written, so a replay costs
		// no more than reading. Otherwise a row is inserted, or put over one that reads as absent. That is
		// looked at again once the row is locked, since another claim may have come first.
		claim: sql(`insert into {table} as t (ns, key, claim, state, announced, forgotten, fingerprint,
				lease, hold, started, leased, kept)
			select $1::text, $2::bytea, $3::bytea, 'c', $4::boolean, false, $5::bytea,
				lease, hold, now, now + lease, now + lease + hold + lease
			from (select {now} as now, $6::bigint * interval '1us' as lease, $7::bigint * interval '1us' as hold) as q
			where not exists (select from {table} t where ns = $1 and key = $2 and not {absent})
			on conflict (ns, key) do update set claim = excluded.claim, state = 'c',
				announced = excluded.announced, forgotten = false, fingerprint = excluded.fingerprint,
				lease = excluded.lease, hold = excluded.hold, started = excluded.started, leased = excluded.leased,
				kept = excluded.kept, completed = null, expires = null, value = null, error = null
			where t.claim <> excluded.claim and {absent}`),

		takeOver: sql(`update {table} t set claim = $3, announced = $4, forgotten = false, fingerprint = $5,
			lease = $6::bigint * interval '1us', hold = $7::bigint * interval '1us', started = {now},
			leased = {now} + $6::bigint * interval '1us',
			kept = {now} + (2 * $6::bigint + $7::bigint) * interval '1us'
			where ns = $1 and key = $2 and claim = $8 and claim <> $3 and state = 'c' and announced and leased <= {now}`),

		// What a dead owner leaves is written down as a hold, which GiveBack restores.
		reconcile: sql(`update {table} t set claim = $3, state = 'h', announced = $4, forgotten = false,
			lease = $6::bigint * interval '1us', hold = $7::bigint * interval '1us', leased = {now} + $6::bigint * interval '1us',
			completed = case when state = 'h' then completed else leased end,
			expires = {until}, kept = {until} + $6::bigint * interval '1us'
			where ns = $1 and key = $2 and claim = $8 and claim <> $3 and fingerprint = $5 and {held}`),

		// kept changes only for one that was being reconciled: otherwise this update touches no index.
		begin: sql(`update {table} t set state = 'b', leased = greatest(leased, {now} + $4::bigint * interval '1us'),
			started = case when state = 'h' then {now} else started end,
			kept = case when state = 'h' then {now} + $4::bigint * interval '1us' + hold + lease else kept end,
			completed = null, expires = null, value = null, error = null
			where {mine}`),

		// $7 is null for what has no end; $8 says that it is to read as absent.
		settle: sql(`update {table} t set state = $4::text::"char",
			value = case when state = 'h' and $4::text = 'h' then value else $5::bytea end,
			error = case when state = 'h' and $4::text = 'h' then error else $6::bytea end,
			completed = case when state = 'h' and $4::text = 'h' then completed else {now} end,
			expires = case when {closing} then 'epoch' else {now} + $7::bigint * interval '1us' end,
			kept = {now} + case when {closing} then '0' else $7::bigint * interval '1us' end + lease,
			leased = null, forgotten = forgotten and $4::text <> 'h'
			where {mine} returning {notify}`),

		giveBack: sql(`update {table} t set state = case when state = 'c' then 'd' else state end,
			expires = case when state = 'c' then 'epoch' else expires end,
			kept = case when state = 'c' then {now} + lease else kept end, leased = null
			where {mine} and state in ('c', 'h') returning {notify}`),

		// A live owner is left alone; what it retains will be dropped. The clock is read once: with two
		// readings the owner could be alive for one column and dead for the next.
		forget: sql(`update {table} t set forgotten = true,
			state = case when leased is null or leased > q.now then state else 'd' end,
			leased = case when leased > q.now then leased end,
			expires = case when leased > q.now then expires else 'epoch' end,
			kept = case when leased > q.now then kept else q.now + lease end
			from (select {now} as now) as q
			where ns = $1 and key = $2 and claim = $3 and not {absent}`),

		// The rows that are locked are skipped: their owners are alive, in SettleTx. They count as owned.
		renew: sql(`with mine as (
				select ns, key, claim from {table} t join unnest($2::bytea[], $3::bytea[]) as q (key, claim) using (key, claim)
				where ns = $1 and leased is not null for update of t skip locked)
			update {table} t set leased = {now} + $4::bigint * interval '1us'
			from mine where t.ns = mine.ns and t.key = mine.key`),
		owned: sql(`select claim from {table} t join unnest($2::bytea[], $3::bytea[]) as q (key, claim) using (key, claim)
			where ns = $1 and leased is not null`),

		watched: sql(`select key, claim from {table} t where ns = $1 and key = any($2::bytea[]) and leased > {now}`),

		mark: sql(`insert into {marks} (claim) select unnest($1::bytea[]) on conflict do nothing`),

		// By pages of the primary key, from $2 on.
		unsettled: sql(`select key, {columns} from {table} t where ns = $1 and key >= $2 and (leased is not null or state = 'h')
			order by key limit $3`),

		// An open row stays, after what it leaves has expired, for another lease: its owner may be late.
		sweep: sql(`delete from {table} where ctid = any(array(
			select ctid from {table} where kept <= {now} and (leased is null or leased + hold + lease <= {now})
			order by kept limit $1 for update skip locked))`),
		sweepMarks: sql(`delete from {marks} where since < {now} - interval '1 day'`),
	}
}

// channel is what a process listens to while its calls wait. What is told is the ID of a claim, in hex.
const channel = "idemflight"

// Words of the statements, in terms of the row t.
const (
	now     = `clock_timestamp()`
	columns = `claim, state::text, announced, forgotten, fingerprint, value, error, started, completed, leased, ` +
		until + `, ` + now
	mine = `ns = $1 and key = $2 and claim = $3 and leased is not null`

	// until is when what is kept ends, or what the owner leaves if it dies; null: never.
	until = `case when t.leased is null or t.state = 'h' then t.expires else t.leased + t.hold end`

	// idle: nobody owns the row, or its owner may be dead and has left it for others to find out about.
	idle   = `(t.leased is null or t.leased <= ` + now + ` and not (t.state = 'c' and t.announced))`
	absent = `(` + idle + ` and coalesce(` + until + `, 'infinity') <= ` + now + `)`
	held   = `(` + idle + ` and coalesce(` + until + `, 'infinity') > ` + now + ` and t.state <> 'r')`

	// notify tells of the end of the claim those who listen, at the commit, if anybody waits for it. Commits
	// that notify wait for each other, so the others must not.
	notify = `case when exists (select from {marks} m where m.claim = t.claim)
		then pg_notify('` + channel + `', encode(t.claim, 'hex')) end`

	// closing: the row is to read as absent.
	closing = `($8::boolean or t.forgotten and $4::text = 'r')`
)
