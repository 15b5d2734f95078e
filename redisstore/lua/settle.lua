-- 1 ID, 2 disposition, 3 TTL, -1: without end, 4 '1' if there is a value, 5 value, 6 '1' if there is an error, 7 error.
-- Returns 0 if the claim is lost; nothing but a state ('absent') and a mark of Forget if it was settled now; or the
-- Standing that counts.
if not mine then return 0 end
local ttl = tonumber(ARGV[3])
local value, err = ARGV[4] == '1' and ARGV[5], ARGV[6] == '1' and ARGV[7]

if not r.leased then -- closed: what it was settled with counts
	if r.st == 'g' then return 0 end
	local _, left = view()
	return answer(({r = 'retained', h = 'held', x = 'absent'})[r.st], left)
end

-- What only an owner needs goes; a field that stays is up to a hundred bytes.
local fields = {leased = false, hold = false, announced = false, val = value, err = err, completed = now}

if ARGV[2] == 'retain' then
	fields.st = 'r'
	fields.expires = not r.forgotten and ttl > 0 and now + ttl or 0
	write(fields)
	return {'absent', r.forgotten and 1 or 0}
end

if ARGV[2] == 'hold' then
	if r.st == 'h' then -- nothing was learned: error and times stay
		fields.val, fields.err, fields.completed = nil, nil, nil
	end
	fields.st = 'h'
	fields.expires = ttl < 0 and -1 or ttl > 0 and now + ttl or 0
	fields.forgotten = false -- an effect that may have taken place is not to be forgotten unseen
	write(fields)
	return {'absent', 0}
end

fields.st, fields.expires, fields.val, fields.err = 'x', 0, false, false
write(fields)
return {'absent', 0}
