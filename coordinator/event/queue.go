package event

// ShardMismatch is reported of each copy of a queue shard that differs from
// most other copies, or whose holder says that it is damaged. The copy is
// replaced by a new round.
type ShardMismatch struct {
	Warning
	Replica
	Step         int64  `json:"step"`          // after which the copies were compared
	Shard        int    `json:"shard"`         // its number
	Majority     int    `json:"majority"`      // copies that agree with each other
	RepairedFrom string `json:"repaired from"` // the replica that has a sound copy, or nobody
}

// EventName implements Event.
func (ShardMismatch) EventName() string { return "shard mismatch" }

// ShardDamaged is reported when a replica found, before it sent a copy of a
// queue shard, that the copy no longer matches its own checksums.
type ShardDamaged struct {
	Warning
	Replica
	Step  int64  `json:"step"`  // where the job stands
	Shard int    `json:"shard"` // its number
	What  string `json:"what"`  // own checksum
}

// EventName implements Event.
func (ShardDamaged) EventName() string { return "shard mismatch" }

// ShardsLost is reported when no copy of some queue shards is left. The job
// goes back to the last checkpoint.
type ShardsLost struct {
	Warning
	Shards string `json:"shards"` // their numbers in words
	Step   int64  `json:"step"`   // where the job stood
	Copies string `json:"copies"` // what --queue-copies says
}

// EventName implements Event.
func (ShardsLost) EventName() string { return "shards lost" }
