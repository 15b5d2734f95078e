-- 1 ID, 2 disposition, 3 TTL, -1: without end, 4 '1' if there is a value, 5 value, 6 '1' if there is an error, 7 error.
-- Returns 0 if the claim is lost; nothing but a state ('absent') and a mark of Forget if it was settled now; or the
-- Standing that counts.
if not mine then return 0 end

local ttl = tonumber(ARGV[3])
local value, err = ARGV[4] == '1' and ARGV[5], ARGV[6] == '1' and ARGV[7]

if not r.leased then -- closed
	local _, left = view()
	return answer(({r = 'retained', h = 'held', x = 'absent'})[r.st], left)
end

if ARGV[2] == 'retain' then
	local kept = not r.forgotten and ttl > 0
	write({st = 'r', leased = false, val = value, err = err, completed = now, expires = kept and now + ttl or 0})
	return {'absent', r.forgotten and 1 or 0}
end

if ARGV[2] == 'hold' then
	local fields = {leased = false, expires = ttl < 0 and -1 or ttl > 0 and now + ttl or 0, forgotten = false}
	if r.st ~= 'h' then
		fields.st, fields.val, fields.err, fields.completed = 'h', value, err, now
	end
	write(fields)
	return {'absent', 0}
end

local forgotten = r.forgotten
write({st = 'x', leased = false, expires = 0, completed = now, val = false, err = false})
return {'absent', forgotten and 1 or 0}
