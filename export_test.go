package idemflight

// LimitShards gives caches made from now on at most n shards.
func LimitShards(n int) { maxShards = n }

// Shards returns the number of shards of c.
func (c *Cache[K, V]) Shards() int { return len(c.shards) }
