-- 1 ID, 2 the ID that it replaces or '', 3 the state in which that was seen, 4 '1' to reconcile, 5 fingerprint,
-- 6 lease, 7 hold, 8 '1' if effects are announced.
-- Returns a Standing.
local function grant()
	if r.st == 'h' then return answer('held', ends() < 0 and -1 or math.max(0, ends() - now), true) end
	return answer('absent', 0, true)
end

if mine then
	if r.leased then return grant() end
	return standing()
end

local state = view()
local seen = ARGV[2] ~= '' and ARGV[2] == r.id
local lease, hold = tonumber(ARGV[6]), tonumber(ARGV[7])

if ARGV[2] == '' and state == 'absent' or
	seen and ARGV[3] == 'in_flight' and r.st == 'c' and r.announced and not alive then
	write({id = ARGV[1], st = 'c', leased = now + lease, lease = lease, hold = hold, started = now, fp = ARGV[5],
		announced = ARGV[8] == '1' and '1', forgotten = false, expires = false, completed = false, val = false, err = false})
	return grant()
end

if seen and ARGV[3] == 'held' and ARGV[4] == '1' and state == 'held' and r.fp == ARGV[5] then
	-- What has read as held since its owner died is held from now on.
	local completed = r.st == 'h' and r.completed or r.leased
	write({id = ARGV[1], st = 'h', expires = ends(), completed = completed, leased = now + lease, lease = lease, hold = hold,
		forgotten = false})
	return grant()
end

return standing()
