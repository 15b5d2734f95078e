-- 1 '1' if only what is unsettled matters. Returns a Standing, 'absent' for what does not matter.
local state = view()
if ARGV[1] == '1' and state == 'retained' then return {'absent'} end
return standing()
