package engine_test

import (
	"testing"

	"mochi/model/engine"
)

func TestShardRowsCountsSlots(t *testing.T) {
	for shards := 1; shards <= 9; shards++ {
		for slots := 0; slots <= 40; slots++ {
			rows := make([]int, shards)
			for i := range slots {
				rows[i%shards]++
			}
			for v, want := range rows {
				if got := engine.ShardRows(slots, shards, v); got != want {
					t.Errorf("%d slots, %d shards: shard %d has %d rows, want %d", slots, shards, v, got, want)
				}
			}
		}
	}
}
