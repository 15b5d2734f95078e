-- 1 ID. Returns what is left of the lease, in milliseconds, if the record is in flight by this claim; otherwise 0.
return mine and alive and math.ceil((r.leased - now) / 1000) or 0
