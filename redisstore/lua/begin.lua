-- 1 ID, 2 lease. Returns 0 if the claim is lost.
if not mine or not r.leased then return 0 end

local fields = {st = 'b', leased = math.max(r.leased, now + ARGV[2])}
if r.st == 'h' then -- it was reconciled, and fn follows
	fields.started, fields.completed, fields.expires, fields.val, fields.err = now, false, false, false, false
end
write(fields)
return 1
