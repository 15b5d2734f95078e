-- 1 ID. Returns whether there was anything.
if not mine or view() == 'absent' then return 0 end
if alive then
	write({forgotten = '1'})
	return 1
end
if r.leased then -- the owner is dead; should it come late, it finds the row closed
	write({st = 'g', leased = false, expires = 0})
else
	write({expires = 0})
end
return 1
