-- 1 ID, 2 lease. Returns 0 if the claim is lost.
if not mine or not r.leased then return 0 end
write({leased = now + ARGV[2]})
return 1
