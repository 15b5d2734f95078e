-- The claims whose end a call in another process has waited for, and which are told to those who listen. A
-- table of its own, so that a mark changes no row that a transaction of the user's may have locked or seen.
-- Not logged: what a crash loses is told later, by asking.
create unlogged table if not exists idemflight_watched (
	claim bytea       primary key,
	since timestamptz not null default now()
);
