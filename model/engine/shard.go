package engine

// ShardRows is how many of a queue's slots lie in one of its virtual shards:
// slot i belongs to shard i mod shards, as its row i / shards. slots may also be
// a part of the queue: its first slots. shard is 0 … shards−1, shards at least 1.
func ShardRows(slots, shards, shard int) int { return (slots - shard + shards - 1) / shards }
