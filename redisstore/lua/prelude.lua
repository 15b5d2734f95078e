-- What every verb starts with. A record is one hash, KEYS[1]; a field that is not there has nothing to say:
--
--   id          of the claim that the record bears
--   st          c claimed, b begun, r retained, h held, x released, g given back, or forgotten without being settled
--   leased      when the lease ends; there exactly while the record is open, as c and b are, and h is while reconciled
--   lease       for how long a lease is taken, and what is closed is kept
--   hold        for how long the record reads as held if its owner dies; -1: without end
--   expires     when what is r or h expires; -1: never; 0: it has been dropped
--   started, completed    the execution
--   fp, announced, forgotten, val, err
--
-- Instants are microseconds since 1970 by the engine's clock, durations are microseconds. They are doubles:
-- exact up to the year 2255, and to 2 microseconds for what is 292 years from now.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function text(number) return string.format('%.0f', number) end

-- The record, but for val and err, which may be large. The first six fields are numbers.
local r = {}
local names = {'leased', 'lease', 'hold', 'expires', 'started', 'completed', 'id', 'st', 'fp', 'announced', 'forgotten'}
local found = redis.pcall('HMGET', KEYS[1], unpack(names))
if found.err and not string.find(found.err, 'WRONGTYPE', 1, true) then
	return found -- for one, that this user may not ask
end
local whole, empty = not found.err, not found.err
for i, value in ipairs(found) do
	if value and i <= 6 then
		value = tonumber(value)
		whole = whole and value and math.abs(value) < 2 ^ 60
	end
	r[names[i]] = value
	empty = empty and value == false
end

-- What no verb writes is an error, and stays as it is: an effect may have taken place.
if whole and not empty then
	local owned, closed = r.lease and r.leased and r.hold, r.lease and not r.leased and r.expires
	local fits = {c = owned, b = owned, r = closed, h = (owned or closed) and r.expires, x = closed, g = closed}
	whole = fits[r.st] and r.id and #r.id == 16 and r.fp and #r.fp == 16
end
if not whole and not empty then
	return redis.error_reply('DAMAGED the record of this key is not one that the store has written')
end

local alive = r.leased and r.leased > now
local mine = r.id == ARGV[1] -- of the verbs that name a claim

-- ends returns when the record reads as absent, -1: never. That of an open one is about the time after its lease.
local function ends()
	if r.st == 'c' or r.st == 'b' then return r.hold < 0 and -1 or r.leased + r.hold end
	return r.expires or 0
end

-- view returns the state that the record reads as, and what is left of it, or in flight of the lease; -1: no end.
local function view()
	if not r.id then return 'absent', 0 end
	if alive then return 'in_flight', r.leased - now end
	if r.st == 'c' and r.announced then return 'in_flight', 0 end
	local at = ends()
	if at >= 0 and at <= now then return 'absent', 0 end
	return r.st == 'r' and 'retained' or 'held', at < 0 and -1 or at - now
end

-- answer returns a Standing: the record as it is now, told as that state.
local function answer(state, left, granted)
	local value = redis.call('HMGET', KEYS[1], 'val', 'err')
	local died = state == 'held' and (r.st == 'c' or r.st == 'b')
	return {state, text(left), granted and 1 or 0, r.st == 'b' and 1 or 0, r.forgotten and 1 or 0, r.id, r.fp,
		text(r.started or 0), text(died and r.leased or r.completed or 0), value[1], value[2]}
end

local function standing()
	local state, left = view()
	if state == 'absent' then return {state} end
	return answer(state, left)
end

-- keep sets when the engine drops the record: a lease (but never less than a second) after it has come to read as
-- absent. A late owner, and a repeat of a verb, find it until then.
local function keep()
	local at = ends()
	if at < 0 then
		redis.call('PERSIST', KEYS[1])
	else
		local last = math.max(at, r.leased or 0, now) + math.max(r.lease, 1000000)
		redis.call('PEXPIREAT', KEYS[1], text(math.ceil(last / 1000)))
	end
end

-- write changes fields of the record; false drops one. A full engine (maxmemory) refuses what may take memory, but
-- only as the first write of a script. That is HSET for a key that is new to it: so it refuses the claim. What
-- it has once admitted goes on, since for that keep comes first.
local function write(fields)
	local set, drop, new = {}, {}, not r.id
	for name, value in pairs(fields) do
		r[name] = value
		if value then
			set[#set + 1] = name
			set[#set + 1] = type(value) == 'number' and text(value) or value
		else
			drop[#drop + 1] = name
		end
	end
	if not new then keep() end
	if #set > 0 then redis.call('HSET', KEYS[1], unpack(set)) end
	if #drop > 0 then redis.call('HDEL', KEYS[1], unpack(drop)) end
	if new then keep() end
end
