-- One row per key. Open: leased is not null, an execution owns the row.
create table if not exists idemflight (
	ns          text        not null,  -- the name that the store was opened with
	key         bytea       not null,
	claim       bytea       not null,  -- the ID of the execution that wrote last: the fence
	state       "char"      not null,  -- c claimed, b begun, r retained, h held (open: being reconciled),
	                                   -- x released, d dropped before it was settled
	announced   boolean     not null,
	forgotten   boolean     not null,
	fingerprint bytea       not null,
	lease       interval    not null,  -- its length
	hold        interval,              -- of what an owner leaves that dies; null: without end
	leased      timestamptz,           -- the end of the lease
	started     timestamptz not null,
	completed   timestamptz,
	expires     timestamptz,           -- of r and h, null: without end; 'epoch' once the row reads as absent for good
	kept        timestamptz,           -- when Sweep may delete the row; null: never
	value       bytea,
	error       bytea,
	primary key (ns, key)
) with (fillfactor = 70);

-- None on leased: then Begin and Renew change no index, and their updates stay on the page.
create index if not exists idemflight_kept on idemflight (kept) where kept is not null;
