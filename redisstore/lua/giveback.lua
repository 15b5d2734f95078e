-- 1 ID.
if not mine or not r.leased then return 0 end
if r.st == 'c' then
	write({st = 'g', leased = false, expires = 0})
elseif r.st == 'h' then
	write({leased = false})
end
return 1
