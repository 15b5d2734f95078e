-- 1 ID. Returns 1 if the record is in flight by this claim, and its lease goes on.
return mine and alive and 1 or 0
